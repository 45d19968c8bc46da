//! What the world is told: one report per transition, never one per poll.
//!
//! A report knows its name and its fields (the contract of the event log) and one sentence for people. Stamps, colours
//! and streams are the business of `host::telemetry`.

use super::event::{Death, Requester, TreeEnd};
use super::{Generation, Holder, Verdict};
use std::fmt;
use std::time::Duration;

/// One entry of the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names and fields are those of the event log, documented in docs/EVENTS.md")]
pub enum Report {
    SupervisorStarted { version: &'static str, pid: u32, manager: &'static str },
    SupervisorStopped { exit_code: u8, reason: String },
    VerdictChanged { from: Option<Verdict>, to: Verdict, detail: String },
    ConflictDetected { kind: Verdict, holder: Option<Holder> },
    ConflictResolved,
    GatewaySpawned { generation: Generation, pid: i32, attempt: u32 },
    SpawnFailed { generation: Generation, why: String },
    GatewayListening { generation: Generation, pid: i32 },
    GatewayStarted { generation: Generation, pid: i32, boot: Duration },
    GatewayExited(Exited),
    GatewayHung { generation: Generation, last_good: Option<Duration>, failed_probes: u32, why: &'static str },
    StartupTimedOut { generation: Generation, budget: Duration },
    LivenessMissed { generation: Generation, detail: String },
    LivenessRecovered { generation: Generation, after: Duration },
    ClockJumped { by: Duration },
    RestartRequested { by: Requester },
    RestartScheduled { delay: Duration, why: String },
    RestartGaveUp { restarts: u32, window: Duration, why: String },
    StopRequested { by: Requester },
    StopEscalated { generation: Generation, why: String },
    DetachRequested { by: Requester },
    TreeKilled { generation: Generation, end: TreeEnd },
    SignalReceived { signal: &'static str, by: Requester },
}

/// The one end of one spawn.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as above")]
pub struct Exited {
    pub generation: Generation,
    pub pid: i32,
    pub death: Death,
    pub uptime: Duration,
    pub max_rss_kb: Option<u64>,
    pub cause: &'static str,
}

/// How loud a report is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Part of a normal life.
    Info,
    /// Something is wrong and is being dealt with.
    Warning,
    /// Somebody has to act.
    Error,
}

/// The value of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A count, a pid, milliseconds.
    Number(i64),
    /// Text.
    Text(String),
    /// Several texts.
    List(Vec<String>),
}

impl From<&str> for Field {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<u32> for Field {
    fn from(number: u32) -> Self {
        Self::Number(i64::from(number))
    }
}

impl From<i32> for Field {
    fn from(number: i32) -> Self {
        Self::Number(i64::from(number))
    }
}

impl From<u64> for Field {
    fn from(number: u64) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<Duration> for Field {
    /// Whole milliseconds, as every `_ms` field of the log.
    fn from(duration: Duration) -> Self {
        Self::Number(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The named values of one report, in the order in which they are written.
pub type Fields = Vec<(&'static str, Field)>;

fn some<T: Into<Field>>(name: &'static str, value: Option<T>) -> Option<(&'static str, Field)> {
    value.map(|value| (name, value.into()))
}

impl Report {
    /// The name of the event.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::SupervisorStarted { .. } => "supervisor.started",
            Self::SupervisorStopped { .. } => "supervisor.stopped",
            Self::VerdictChanged { .. } => "probe.verdict_changed",
            Self::ConflictDetected { .. } => "conflict.detected",
            Self::ConflictResolved => "conflict.resolved",
            Self::GatewaySpawned { .. } => "gateway.spawned",
            Self::SpawnFailed { .. } => "gateway.spawn_failed",
            Self::GatewayListening { .. } => "gateway.listening",
            Self::GatewayStarted { .. } => "gateway.started",
            Self::GatewayExited(_) => "gateway.exited",
            Self::GatewayHung { .. } => "gateway.hung",
            Self::StartupTimedOut { .. } => "startup.timed_out",
            Self::LivenessMissed { .. } => "liveness.missed",
            Self::LivenessRecovered { .. } => "liveness.recovered",
            Self::ClockJumped { .. } => "clock.jumped",
            Self::RestartRequested { .. } => "restart.requested",
            Self::RestartScheduled { .. } => "restart.scheduled",
            Self::RestartGaveUp { .. } => "restart.gave_up",
            Self::StopRequested { .. } => "stop.requested",
            Self::StopEscalated { .. } => "stop.escalated",
            Self::DetachRequested { .. } => "detach.requested",
            Self::TreeKilled { .. } => "tree.killed",
            Self::SignalReceived { .. } => "signal.received",
        }
    }

    /// The gateway that the report is about.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        match self {
            Self::GatewaySpawned { generation, .. }
            | Self::SpawnFailed { generation, .. }
            | Self::GatewayListening { generation, .. }
            | Self::GatewayStarted { generation, .. }
            | Self::GatewayExited(Exited { generation, .. })
            | Self::GatewayHung { generation, .. }
            | Self::StartupTimedOut { generation, .. }
            | Self::LivenessMissed { generation, .. }
            | Self::LivenessRecovered { generation, .. }
            | Self::StopEscalated { generation, .. }
            | Self::TreeKilled { generation, .. } => Some(*generation),
            Self::SupervisorStarted { .. }
            | Self::SupervisorStopped { .. }
            | Self::VerdictChanged { .. }
            | Self::ConflictDetected { .. }
            | Self::ConflictResolved
            | Self::ClockJumped { .. }
            | Self::RestartRequested { .. }
            | Self::RestartScheduled { .. }
            | Self::RestartGaveUp { .. }
            | Self::StopRequested { .. }
            | Self::DetachRequested { .. }
            | Self::SignalReceived { .. } => None,
        }
    }

    /// How loud it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::RestartGaveUp { .. } => Severity::Error,
            Self::SupervisorStopped { exit_code, .. } if *exit_code != 0 => Severity::Error,
            Self::ConflictDetected { .. }
            | Self::SpawnFailed { .. }
            | Self::GatewayHung { .. }
            | Self::StartupTimedOut { .. }
            | Self::LivenessMissed { .. }
            | Self::ClockJumped { .. }
            | Self::StopEscalated { .. }
            | Self::TreeKilled { .. } => Severity::Warning,
            Self::GatewayExited(Exited { death, .. }) if *death != Death::Code(0) => Severity::Warning,
            _ => Severity::Info,
        }
    }

    /// The fields of the event log, without name, stamp and generation. A value that is not known is left out.
    #[must_use]
    pub fn fields(&self) -> Fields {
        match self {
            Self::SupervisorStarted { version, pid, manager } => {
                vec![("version", (*version).into()), ("pid", (*pid).into()), ("manager", (*manager).into())]
            }
            Self::SupervisorStopped { exit_code, reason } => {
                vec![("exit_code", u32::from(*exit_code).into()), ("reason", reason.as_str().into())]
            }
            Self::VerdictChanged { from, to, detail } => vec![
                ("from", from.map_or("none", Verdict::name).into()),
                ("to", to.name().into()),
                ("detail", detail.as_str().into()),
            ],
            Self::ConflictDetected { kind, holder } => {
                let mut fields = vec![("kind", kind.name().into())];
                if let Some(holder) = holder {
                    fields.push(("holder_pid", holder.pid.into()));
                    fields.push(("holder_command", holder.command.as_str().into()));
                }
                fields
            }
            Self::ConflictResolved => vec![],
            Self::GatewaySpawned { pid, attempt, .. } => vec![("pid", (*pid).into()), ("attempt", (*attempt).into())],
            Self::SpawnFailed { why, .. } | Self::StopEscalated { why, .. } => vec![("why", why.as_str().into())],
            Self::GatewayListening { pid, .. } => vec![("pid", (*pid).into())],
            Self::GatewayStarted { pid, boot, .. } => vec![("pid", (*pid).into()), ("boot_ms", (*boot).into())],
            Self::GatewayExited(exited) => exited.fields(),
            Self::GatewayHung { last_good, failed_probes, why, .. } => some("last_good_ms", *last_good)
                .into_iter()
                .chain([("failed_probes", (*failed_probes).into()), ("why", (*why).into())])
                .collect(),
            Self::StartupTimedOut { budget, .. } => vec![("budget_ms", (*budget).into())],
            Self::LivenessMissed { detail, .. } => vec![("detail", detail.as_str().into())],
            Self::LivenessRecovered { after, .. } => vec![("after_ms", (*after).into())],
            Self::ClockJumped { by } => vec![("ms", (*by).into())],
            Self::RestartRequested { by } | Self::StopRequested { by } | Self::DetachRequested { by } => {
                vec![("by", by.to_string().as_str().into())]
            }
            Self::RestartScheduled { delay, why } => {
                vec![("delay_ms", (*delay).into()), ("why", why.as_str().into())]
            }
            Self::RestartGaveUp { restarts, window, why } => {
                vec![("restarts", (*restarts).into()), ("window_ms", (*window).into()), ("why", why.as_str().into())]
            }
            Self::TreeKilled { end, .. } => vec![
                ("members", end.members.into()),
                ("escaped", end.escaped.into()),
                ("survivors", end.survivors.into()),
                ("elapsed_ms", end.elapsed.into()),
                ("commands", Field::List(end.commands.clone())),
            ],
            Self::SignalReceived { signal, by } => [
                Some(("signal", (*signal).into())),
                some("sender_pid", by.pid),
                some("sender_uid", by.uid),
                some("sender_command", by.command.as_deref()),
            ]
            .into_iter()
            .flatten()
            .collect(),
        }
    }
}

impl Exited {
    fn fields(&self) -> Fields {
        let (code, signal) = match self.death {
            Death::Code(code) => (Some(code), None),
            Death::Signal { number, .. } => (None, Some(number)),
            Death::Unknown => (None, None),
        };
        [
            Some(("pid", self.pid.into())),
            some("code", code),
            some("signal", signal),
            Some(("uptime_ms", self.uptime.into())),
            some("max_rss_kb", self.max_rss_kb),
            Some(("cause", self.cause.into())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}

impl fmt::Display for Report {
    /// One sentence for people, without the name of the event.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::SupervisorStarted { version, pid, manager: "unknown" } => {
                write!(f, "openclaw-supervise {version} is pid {pid}")
            }
            Self::SupervisorStarted { version, pid, manager } => {
                write!(f, "openclaw-supervise {version} is pid {pid}, run by {manager}")
            }
            Self::SupervisorStopped { exit_code, reason } => write!(f, "exit code {exit_code}: {reason}"),
            Self::VerdictChanged { from: Some(from), to, detail } => write!(f, "{from} -> {to}: {detail}"),
            Self::VerdictChanged { from: None, to, detail } => write!(f, "{to}: {detail}"),
            Self::ConflictDetected { kind, holder: Some(holder) } => {
                write!(f, "the port is held ({kind}) by pid {} ({})", holder.pid, holder.command)
            }
            Self::ConflictDetected { kind, holder: None } => {
                write!(f, "the port is held ({kind}) by a process that cannot be seen from here")
            }
            Self::ConflictResolved => f.write_str("the port is free again"),
            Self::GatewaySpawned { generation, pid, attempt } => {
                write!(f, "gateway {generation} is pid {pid}, attempt {attempt}")
            }
            Self::SpawnFailed { generation, why } => write!(f, "gateway {generation} could not be started: {why}"),
            Self::GatewayListening { generation, .. } => write!(f, "gateway {generation} answers and is warming up"),
            Self::GatewayStarted { generation, boot, .. } => {
                write!(f, "gateway {generation} is up after {}", human(*boot))
            }
            Self::GatewayExited(exited) => exited.fmt(f),
            Self::GatewayHung { generation, last_good: Some(ago), failed_probes, why } => {
                let ago = human(*ago);
                write!(f, "gateway {generation}: {why}; last good probe {ago} ago, {failed_probes} failed since")
            }
            Self::GatewayHung { generation, last_good: None, failed_probes, why } => {
                write!(f, "gateway {generation}: {why}; {failed_probes} probes failed")
            }
            Self::StartupTimedOut { generation, budget } => {
                write!(f, "gateway {generation} did not come up within {}", human(*budget))
            }
            Self::LivenessMissed { generation, detail } => write!(f, "gateway {generation} missed a probe: {detail}"),
            Self::LivenessRecovered { generation, after } => {
                write!(f, "gateway {generation} answers again after {}", human(*after))
            }
            Self::ClockJumped { by } => write!(f, "this machine or this process stood still for {}", human(*by)),
            Self::RestartRequested { by } | Self::StopRequested { by } | Self::DetachRequested { by } => {
                write!(f, "asked by {by}")
            }
            Self::RestartScheduled { delay, why } => write!(f, "in {}: {why}", human(*delay)),
            Self::RestartGaveUp { why, .. } => f.write_str(why),
            Self::StopEscalated { why, .. } => write!(f, "ending the whole tree with SIGKILL: {why}"),
            Self::TreeKilled { end, .. } => write!(
                f,
                "{} processes killed in {}, {} of them outside the gateway's group, {} left: {}",
                end.members,
                human(end.elapsed),
                end.escaped,
                end.survivors,
                end.commands.join("; ")
            ),
            Self::SignalReceived { by, .. } => by.fmt(f),
        }
    }
}

impl fmt::Display for Exited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, pid, death, uptime, cause, .. } = self;
        write!(f, "gateway {generation} (pid {pid}) ended with {death} after {}: {cause}", human(*uptime))
    }
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal { number, core_dumped: false } => write!(f, "signal {number}"),
            Self::Signal { number, core_dumped: true } => write!(f, "signal {number} (core dumped)"),
            Self::Unknown => f.write_str("an unknown status"),
        }
    }
}

/// A duration as a person would say it: two significant units at most.
#[must_use]
pub fn human(duration: Duration) -> String {
    let ms = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", duration.subsec_millis() / 100).replace(".0s", "s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60).replace("m0s", "m"),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60).replace("h0m", "h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let table = [(0, "0ms"), (350, "350ms"), (1000, "1s"), (6130, "6.1s"), (59_990, "59.9s"), (60_000, "1m")];
        let longer = [(95_000, "1m35s"), (3_600_000, "1h"), (5_400_000, "1h30m"), (36_000_000, "10h")];
        for (ms, text) in table.into_iter().chain(longer) {
            assert_eq!(human(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn a_death_by_signal_has_no_code_and_an_unknown_peak_is_left_out() {
        let exited = Exited {
            generation: 2,
            pid: 9,
            death: Death::Signal { number: 9, core_dumped: false },
            uptime: Duration::from_millis(1500),
            max_rss_kb: None,
            cause: "crashed",
        };
        let names: Vec<_> = Report::GatewayExited(exited).fields().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["pid", "signal", "uptime_ms", "cause"]);
    }
}
