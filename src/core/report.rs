//! The event log: one report per transition, never one per poll.
//!
//! A report has a name, a severity, JSON members (a contract, see docs/EVENTS.md) and one sentence for people. All of
//! them stand in one row of the table below. Time stamps, colours and streams belong to `host::telemetry`.

mod fields;
mod sentence;

use crate::prelude::*;
pub use crate::units::{human, is_unprintable, user};
pub use fields::{Field, Fields};
pub use sentence::{Exited, HungReport};

use super::conclusion::Conclusion;
use super::event::{Contested, Recovered, Requester, TreeEnd};
use super::policy::OnStoreLost;
use super::probe_history::Excess;
use super::restart_policy::PaceFacts;
use super::stall::Stall;
use super::units::mebibytes;
use super::{BlockedWrite, Endpoint, ExitStatus, Generation, Holder, Hook, HookEnd, MoveReason, Readiness, Verdict};
use alloc::borrow::Cow;
use core::fmt;
use core::time::Duration;
use fields::Member;
use serde::{Serialize, Serializer};

/// How loud a report is, the quietest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Part of normal operation.
    Info,
    /// Something is wrong and is being handled.
    Warning,
    /// An operator has to act.
    Error,
}

/// So many failures in a row are a crash loop, for which an operator has to act: the limit on unclean boots makes the next
/// start wait from about there on.
const CRASH_LOOP: u32 = 3;

impl Severity {
    const ALL: [Self; 3] = [Self::Info, Self::Warning, Self::Error];

    /// Its name in the event log, as `--log-level` has it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warn",
            Self::Error => "error",
        }
    }

    /// The one of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|severity| severity.name() == name)
    }
}

macro_rules! value {
    ($member:ident) => {
        $member
    };
    ($member:ident = $value:expr) => {
        $value
    };
}

/// A row: the variant and its data => name, severity, [JSON members], sentence. A member is the datum of that name, or
/// `name = value`.
macro_rules! reports {
    ($(
        $Variant:ident $({ $($data:ident: $type:ty),+ })? $(($inner:ident: $Inner:ty))? =>
            $name:literal, $severity:expr, [$($member:ident $(= $value:expr)?),*], $sentence:expr;
    )+) => {
        /// One entry of the event log.
        #[derive(Debug, Clone, PartialEq, Eq)]
        pub enum Report {
            $($Variant $({ $($data: $type),+ })? $(($Inner))?,)+
        }

        impl Report {
            /// The names of all events.
            pub const NAMES: &[&str] = &[$($name),+];

            /// The name of the event.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self {
                    $(Self::$Variant { .. } => $name,)+
                }
            }

            /// How loud it is.
            #[must_use]
            #[expect(unused_variables, reason = "a row binds all data of its variant")]
            pub fn severity(&self) -> Severity {
                use Severity::{Error, Info, Warning};
                match self {
                    $(Self::$Variant { $($($data),+)? $(0: $inner)? } => $severity,)+
                }
            }

            /// The JSON members after `event` and `at`, in their order. A value that is not known is left out.
            #[must_use]
            pub fn fields(&self) -> Fields {
                let mut fields = Fields::new();
                match self {
                    $(Self::$Variant { $($($data),+)? $(0: $inner)? } => {
                        $(value!($member $(= $value)?).put(stringify!($member), &mut fields);)*
                    })+
                }
                fields
            }
        }

        impl fmt::Display for Report {
            /// The sentence, without the name of the event.
            #[expect(unused_variables, reason = "a row binds all data of its variant")]
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let sentence: Cow<'_, str> = match self {
                    $(Self::$Variant { $($($data),+)? $(0: $inner)? } => $sentence.into(),)+
                };
                f.write_str(&sentence)
            }
        }
    };
}

reports! {
    // Supervisor.
    SupervisorStarted { version: &'static str, pid: u32, manager: &'static str, output: String } =>
        "supervisor.started", Info, [version, pid, manager, output],
        match *manager {
            "unknown" => format!("openclaw-supervise {version} is pid {pid}"),
            _ => format!("openclaw-supervise {version} is pid {pid}, run by {manager}"),
        };
    SupervisorStopped { exit_code: u8, reason: String } =>
        "supervisor.stopped", if *exit_code == 0 { Info } else { Error }, [exit_code, reason],
        format!("exit code {exit_code}: {reason}");
    SignalReceived { signal: &'static str, by: Requester } =>
        "signal.received", Info,
        [signal, sender_pid = by.pid, sender_uid = by.uid, sender_command = by.command],
        by.to_string();
    ClockJumped { by: Duration } =>
        "clock.jumped", Warning, [ms = by],
        format!("this machine or this process was suspended for {}", human(*by));

    // Lease and store.
    LeaseAcquireStarted =>
        "lease.acquire_started", Info, [],
        "checking for another supervisor of this gateway";
    LeaseContended { owner: Option<Holder>, what: Contested, ends_within: Option<Duration> } =>
        "lease.contended", Warning,
        [
            owner_pid = pid_of(owner.as_ref()), owner_command = command_of(owner.as_ref()), what,
            ends_within_ms = ends_within
        ],
        match ends_within {
            None => format!("the {} is held by {}", what.name(), named(owner.as_ref())),
            Some(within) => format!(
                "the {} is held by {}, which is stopping: waiting up to {} for its end",
                what.name(),
                named(owner.as_ref()),
                human(*within)
            ),
        };
    LeaseRecovered(previous: Recovered) =>
        "lease.stale_recovered", Info, [owner_pid = previous.pid, why = previous.why],
        match previous.pid {
            Some(pid) => format!("recovered the lease of pid {pid}: {}", previous.why),
            None => format!("recovered a stale lease: {}", previous.why),
        };
    LeaseAcquired { epoch: u64 } =>
        "lease.acquired", Info, [epoch],
        format!("this supervisor holds the lease, epoch {epoch}");
    LeaseTimedOut { why: String } =>
        "lease.timed_out", Warning, [why],
        why;
    LeaseReleased { epoch: u64 } =>
        "lease.released", Info, [epoch],
        format!("lease released, epoch {epoch}");
    LeaseLost { owner: Option<Holder>, why: String } =>
        "lease.lost", Error, [owner_pid = pid_of(owner.as_ref()), owner_command = command_of(owner.as_ref()), why],
        format!("the lease was taken by {}: {why}", named(owner.as_ref()));
    LeaseUnconfirmed { age: Duration, why: String, action: OnStoreLost } =>
        "lease.unconfirmed", if *action == OnStoreLost::Stop { Error } else { Warning },
        [age_ms = age, why, action = match action { OnStoreLost::Stop => "stop", OnStoreLost::Keep => "keep" }],
        format!(
            "the store has not confirmed the lease for {}: {why}; {}, and none is started until it does",
            human(*age),
            match action {
                OnStoreLost::Stop => "the gateway is ended",
                OnStoreLost::Keep => "the gateway is kept (--on-store-lost keep)",
            }
        );
    StoreMovedAside { to: String, why: String } =>
        "store.moved_aside", Warning, [to, why],
        format!("database corrupt ({why}); moved to {to} and recreated");
    StoreUnavailable { why: String } =>
        "store.unavailable", Warning, [why],
        why;
    StoreAvailable =>
        "store.available", Info, [],
        "store available again";
    StandbyEntered { why: String } =>
        "standby.entered", Info, [why],
        why;
    StandbyLeft { why: String } =>
        "standby.left", Info, [why],
        why;

    OutputMoved { to: Option<String> } =>
        "output.moved", if to.is_some() { Warning } else { Info }, [to],
        match to {
            Some(file) => format!(
                "nothing reads the standard output or error of this supervisor any more, which ends a gateway (EPIPE); the \
                 gateway writes to {file} instead"
            ),
            None => "the standard output and error of this supervisor are read again".to_owned(),
        };

    // Port.
    VerdictChanged { from: Option<Verdict>, to: Verdict, detail: String } =>
        "probe.verdict_changed", Info, [from = from.map_or("none", Verdict::name), to, detail],
        match from {
            Some(from) => format!("{from} -> {to}: {detail}"),
            None => format!("{to}: {detail}"),
        };
    ConflictDetected { kind: &'static str, holder: Option<Holder>, holder_uid: Option<u32> } =>
        "conflict.detected", Warning,
        [kind, holder_pid = pid_of(holder.as_ref()), holder_command = command_of(holder.as_ref()), holder_uid],
        match (*kind, holder, holder_uid) {
            ("lease" | "port claim", ..) => format!("the {kind} is held by {}", named(holder.as_ref())),
            (_, None, Some(uid)) => format!("the port is in use ({kind}) by a process of {}", user(*uid)),
            _ => format!("the port is in use ({kind}) by {}", named(holder.as_ref())),
        };
    EndpointChanged { from: Endpoint, to: Endpoint, why: MoveReason } =>
        "endpoint.changed", Info, [from = from.to_string(), to = to.to_string(), why = why.text()],
        format!("{from} -> {to}: {}", why.text());
    ConflictResolved =>
        "conflict.resolved", Info, [],
        "the port is free again";

    // Gateway.
    GatewaySpawned { generation: Generation, pid: i32, attempt: u32 } =>
        "gateway.spawned", Info, [generation, pid, attempt],
        format!("gateway {generation} is pid {pid}, attempt {attempt}");
    SpawnFailed { generation: Generation, why: String } =>
        "gateway.spawn_failed", Warning, [generation, why],
        format!("gateway {generation} could not be started: {why}");
    GatewayAdopted { generation: Generation, pid: i32, age: Duration, differs: Option<String> } =>
        "gateway.adopted", if differs.is_some() { Warning } else { Info }, [generation, pid, age_ms = age, differs],
        match differs {
            None => format!("gateway {generation} adopted; still running: pid {pid}, {} old", human(*age)),
            Some(differs) => format!(
                "gateway {generation} adopted; still running until its next restart, with {differs}: pid {pid}, {} old",
                human(*age)
            ),
        };
    SuccessorFound { generation: Generation, pid: i32, command: String } =>
        "gateway.succeeded", Info, [generation, pid, command],
        format!("gateway {generation} left a running successor: pid {pid} ({command}); adopting it");
    GatewayFollowed { generation: Generation, pid: i32, launcher: i32, death: ExitStatus } =>
        "gateway.followed", Info,
        [
            generation, pid, launcher_pid = launcher, code = death.code(), signal = death.signal(),
            why = "COMMAND has left the gateway in the background"
        ],
        format!(
            "pid {launcher}, which started gateway {generation}, ended with {death}; the gateway goes on as pid {pid} and is \
             followed"
        );
    GatewayListening { generation: Generation, pid: i32 } =>
        "gateway.listening", Info, [generation, pid],
        format!("gateway {generation} answers, still starting");
    GatewayStarted { generation: Generation, pid: i32, boot: Duration } =>
        "gateway.started", Info, [generation, pid, boot_ms = boot],
        format!("gateway {generation} is up after {}", human(*boot));
    StartupTimedOut { generation: Generation, budget: Duration } =>
        "startup.timed_out", Warning, [generation, budget_ms = budget],
        format!("gateway {generation} did not start within {}", human(*budget));
    LivenessMissed { generation: Generation, detail: String } =>
        "liveness.missed", Warning, [generation, detail],
        format!("gateway {generation} failed a probe: {detail}");
    LivenessDegraded { generation: Generation, detail: String } =>
        "liveness.degraded", Warning, [generation, detail],
        format!("gateway {generation} is alive and not healthy: {detail}; it is not replaced for that");
    LivenessRecovered { generation: Generation, after: Duration } =>
        "liveness.recovered", Info, [generation, after_ms = after],
        format!("gateway {generation} answers again after {}", human(*after));
    LivenessExtended { generation: Generation, stall: Stall, by: Duration } =>
        "liveness.extended", Warning,
        [
            generation, why = stall.name(), cpu_ms = stall.cpu(), waited_ms = stall.waited(),
            throttled_ms = stall.throttled(), left = stall.left(), by_ms = by
        ],
        format!("gateway {generation} does not answer, but {stall}; waiting {} more", human(*by));
    LivenessBlocked { generation: Generation, blocked: BlockedWrite } =>
        "liveness.blocked", Warning,
        [
            generation, stream = blocked.stream, file = blocked.file,
            reader_pid = pid_of(blocked.reader.as_ref()), reader_command = command_of(blocked.reader.as_ref())
        ],
        format!("gateway {generation} does not answer: {blocked}; it is not replaced, for the next one would write there too");
    ReadinessChanged { generation: Generation, readiness: Readiness } =>
        "readiness.changed", Info, [generation, ready = readiness.ready, detail = readiness.detail],
        if readiness.ready {
            format!("gateway {generation} is ready: {}", readiness.detail)
        } else {
            format!("gateway {generation} is up, but {}", unready(&readiness.detail))
        };
    MemoryExceeded { generation: Generation, excess: Excess, conclusion: Conclusion, evidence: Option<String> } =>
        "memory.exceeded", Warning,
        [
            generation, tree_rss_kb = excess.tree_rss_kb, limit_kb = excess.limit_kb, conclusion = conclusion.text,
            conclusion_cause = conclusion.cause.name(), evidence
        ],
        format!(
            "the processes of gateway {generation} use {}, above --memory-max ({}) in 3 consecutive samples; restarting{}",
            mebibytes(excess.tree_rss_kb),
            mebibytes(excess.limit_kb),
            evidence.as_ref().map_or_else(String::new, |path| format!("; evidence in {path}"))
        );
    GatewayHung(hung: Box<HungReport>) =>
        "gateway.hung", Warning,
        [
            generation = hung.generation, last_good_ms = hung.last_good, failed_probes = hung.failed_probes,
            why = hung.why, limit_ms = hung.limit, probes = hung.probes, conclusion = hung.conclusion.text,
            conclusion_cause = hung.conclusion.cause.name(), evidence = hung.evidence
        ],
        hung.to_string();
    StopEscalated { generation: Generation, grace: Duration, why: String } =>
        "stop.escalated", Warning, [generation, grace_ms = grace, why],
        format!("sending SIGKILL to the whole process tree: {why}");
    StopForwarded { generation: Generation, pid: i32 } =>
        "stop.forwarded", Info, [generation, pid],
        format!("gateway {generation} serves on: its launcher has not passed SIGTERM on; sent to pid {pid}, which listens");
    GatewayExited(exited: Exited) =>
        "gateway.exited", if exited.is_as_requested() { Info } else { Warning },
        [
            generation = exited.generation, pid = exited.pid, code = exited.death.code(),
            signal = exited.death.signal(), core_dumped = exited.death.core_dumped(), uptime_ms = exited.uptime,
            max_rss_kb = exited.toll.max_rss_kb, cpu_ms = exited.toll.cpu, cause = exited.cause
        ],
        exited.to_string();
    GatewayUnseen { generation: Generation, pid: i32 } =>
        "gateway.unseen", Warning, [generation, pid],
        format!(
            "gateway {generation} was pid {pid} on another machine or in another pid namespace; whether it has ended \
             cannot be seen from here"
        );
    TreeKilled { generation: Generation, end: Box<TreeEnd> } =>
        "tree.killed", Warning,
        [
            generation, members = end.members, escaped = end.escaped, survivors = end.survivors,
            elapsed_ms = end.elapsed, commands = end.commands, found_by = end.found_by_texts(),
            left = Some(&end.left).filter(|left| !left.is_empty())
        ],
        end.to_string();

    InstallerAwaited { generation: Generation, installers: Vec<String>, within: Duration } =>
        "installer.awaited", Info, [generation, installers, within_ms = within],
        format!(
            "gateway {generation} has ended; what installs OpenClaw in its tree may take up to {} more, and the next start waits \
             for it: {}",
            human(*within), installers.join("; ")
        );
    InstallerKilled { generation: Generation, commands: Vec<String> } =>
        "installer.killed", Warning, [generation, commands],
        format!(
            "an installation in the tree of gateway {generation} was killed half-way; run it again: {}",
            commands.join("; ")
        );

    StraysLeft { generation: Generation, strays: Vec<String> } =>
        "tree.strays_left", Info, [generation, strays],
        format!(
            "left {}: started outside the tree of gateway {generation} with its id, or moved to a unit of its own; \
             --kill-strays ends such processes",
            strays.join("; ")
        );

    // Exits that a gateway may have planned.
    HandoffAccepted { generation: Generation, reason: String } =>
        "handoff.accepted", Info, [generation, reason],
        format!("gateway {generation} had planned its restart ({reason}); it does not count against the budget");
    HandoffMissing { generation: Generation } =>
        "handoff.missing", Warning, [generation],
        format!("gateway {generation} exited with code 0 without requesting a restart");
    HandoffRejected { generation: Generation, reason: String } =>
        "handoff.rejected", Warning, [generation, reason],
        format!("the restart request of gateway {generation} was rejected: {reason}");
    HandoffUnsupported { generation: Option<Generation>, reason: String } =>
        "handoff.unsupported", Info, [generation, reason],
        format!("this OpenClaw release cannot say whether an exit was planned: {reason}");
    HandoffTimedOut { generation: Option<Generation>, reason: String } =>
        "handoff.timed_out", Warning, [generation, reason],
        format!("OpenClaw did not say whether an exit was planned: {reason}");

    // Hooks.
    HookStarted { hook: Hook, generation: Generation } =>
        "hook.started", Info, [generation, hook],
        format!("running the {} hook of gateway {generation}", hook.name());
    HookFinished { hook: Hook, generation: Generation, end: HookEnd, elapsed: Duration } =>
        "hook.finished", if end.is_success() { Info } else { Warning },
        [
            generation, hook, code = end.death().and_then(ExitStatus::code),
            signal = end.death().and_then(ExitStatus::signal), why = end.why(), elapsed_ms = elapsed
        ],
        match end.death() {
            Some(_) => format!("the {} hook {end} after {}", hook.name(), human(*elapsed)),
            None => format!("the {} hook {end}", hook.name()),
        };
    HookTimedOut { hook: Hook, generation: Generation, timeout: Duration } =>
        "hook.timed_out", Warning, [generation, hook, timeout_ms = timeout],
        format!("the {} hook exceeded its timeout of {}; terminating it", hook.name(), human(*timeout));

    // Requests and what comes next.
    RestartRequested { by: Requester } =>
        "restart.requested", Info, [by, by_pid = by.pid, by_uid = by.uid, inside = by.inside],
        format!("requested by {by}");
    RestartMerged { by: Requester, requests: u32, delay: Option<Duration>, why: String } =>
        "restart.merged", Info, [by, by_pid = by.pid, by_uid = by.uid, inside = by.inside, requests, delay_ms = delay, why],
        match delay {
            Some(delay) => format!("a restart requested by {by} is merged into one within {}: {why}", human(*delay)),
            None => format!("a restart requested by {by} is merged: {why}"),
        };
    SupervisionPaused { period: Duration, reason: String, by: String } =>
        "supervision.paused", Warning, [for_ms = period, reason, by],
        format!(
            "supervision is paused for {} by {by}{}{reason}; until then no gateway is replaced or started; 'openclaw-supervise \
             resume' ends it",
            human(*period),
            if reason.is_empty() { "" } else { ": " }
        );
    SupervisionResumed { why: String } =>
        "supervision.resumed", Info, [why],
        format!("supervision goes on: {why}");
    PauseRefused { why: &'static str } =>
        "supervision.pause_refused", Warning, [why],
        format!("cannot pause: {why}");
    RetryRequested { by: Requester } =>
        "retry.requested", Info, [by, by_pid = by.pid, by_uid = by.uid],
        format!("requested by {by}");
    StopRequested { by: Requester } =>
        "stop.requested", Info, [by, by_pid = by.pid, by_uid = by.uid],
        format!("requested by {by}");
    DetachRequested { by: Requester } =>
        "detach.requested", Info, [by, by_pid = by.pid, by_uid = by.uid],
        format!("requested by {by}");
    DetachRefused { why: &'static str } =>
        "detach.refused", Warning, [why],
        format!("cannot detach: {why}");
    RestartScheduled { delay: Duration, why: String, after_failure: bool, pace: Box<PaceFacts> } =>
        "restart.scheduled",
        match pace.failures {
            _ if !after_failure => Info,
            0..CRASH_LOOP => Warning,
            CRASH_LOOP.. => Error,
        },
        [
            delay_ms = delay, why, after_failure, failures = pace.failures, restarts = pace.restarts,
            max_restarts = pace.max_restarts, window_ms = pace.restart_window, unclean_boots = pace.unclean_boots,
            boot_limit = pace.boot_limit, boot_window_ms = pace.boot_window, backoff_max_ms = pace.backoff_max
        ],
        match pace.failures {
            CRASH_LOOP.. if *after_failure => format!("crash loop; next start in {}: {why}", human(*delay)),
            _ => format!("in {}: {why}", human(*delay)),
        };
    RestartGaveUp { restarts: u32, max_restarts: u32, window: Duration, why: String } =>
        "restart.gave_up", Error, [restarts, max_restarts, window_ms = window, why],
        why;
}

impl Report {
    /// The gateway that the report is about.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        match self.fields().first()? {
            ("generation", Field::Number(number)) => u64::try_from(*number).ok(),
            _ => None,
        }
    }
}

impl Serialize for Report {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.fields())
    }
}

fn pid_of(holder: Option<&Holder>) -> Option<i32> {
    holder.map(|holder| holder.pid)
}

fn command_of(holder: Option<&Holder>) -> Option<&str> {
    holder.map(|holder| holder.command.as_str())
}

fn named(holder: Option<&Holder>) -> String {
    match holder {
        Some(Holder { pid, command, .. }) => format!("pid {pid} ({command})"),
        None => "a process that is not visible from here".to_owned(),
    }
}

/// The failing checks of `/readyz`. One that names a channel is told as such.
fn unready(detail: &str) -> String {
    match detail.strip_prefix("not ready: ") {
        Some(failing) if failing.starts_with("channel:") && !failing.contains(", ") => {
            format!("channel {} is not connected", failing.trim_start_matches("channel:"))
        }
        Some(failing) => format!("not ready: {failing}"),
        None => detail.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ExitUsage;

    #[test]
    fn a_death_by_signal_has_no_code_and_an_unknown_peak_is_left_out() {
        let exited = Exited {
            generation: 2,
            pid: 9,
            death: ExitStatus::Signal { number: 9, core_dumped: false },
            uptime: Duration::from_millis(1500),
            toll: ExitUsage::default(),
            cause: "crashed",
        };
        let names: Vec<_> = Report::GatewayExited(exited).fields().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["generation", "pid", "signal", "core_dumped", "uptime_ms", "cause"]);
    }
}
