//! What the world is told: one report per transition, never one per poll.
//!
//! A report knows its name and its fields (the contract of the event log) and one sentence for people. Stamps, colours
//! and streams are the business of `host::telemetry`.

mod fields;
mod sentence;

use crate::prelude::*;
pub use fields::{Field, Fields};

use super::event::{Contested, ExitStatus, Recovered, Requester, TreeEnd};
use super::{ExitUsage, Generation, Holder, Hook, HookEnd, Readiness, Verdict};
use core::time::Duration;

/// One entry of the event log.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names and fields are those of the event log, documented in docs/EVENTS.md")]
pub enum Report {
    SupervisorStarted { version: &'static str, pid: u32, manager: &'static str },
    SupervisorStopped { exit_code: u8, reason: String },
    LeaseAcquireStarted,
    LeaseContended { owner: Option<Holder>, what: Contested },
    LeaseRecovered(Recovered),
    LeaseAcquired { epoch: u64 },
    LeaseTimedOut { why: String },
    LeaseReleased { epoch: u64 },
    LeaseLost { owner: Option<Holder>, why: String },
    StoreMovedAside { to: String, why: String },
    StoreUnavailable { why: String },
    StoreAvailable,
    StandbyEntered { why: String },
    StandbyLeft { why: String },
    VerdictChanged { from: Option<Verdict>, to: Verdict, detail: String },
    ConflictDetected { kind: &'static str, holder: Option<Holder> },
    ConflictResolved,
    GatewaySpawned { generation: Generation, pid: i32, attempt: u32 },
    SpawnFailed { generation: Generation, why: String },
    GatewayAdopted { generation: Generation, pid: i32, age: Duration, differs: Option<String> },
    GatewayListening { generation: Generation, pid: i32 },
    GatewayStarted { generation: Generation, pid: i32, boot: Duration },
    GatewayExited(Exited),
    GatewayHung(HungReport),
    StartupTimedOut { generation: Generation, budget: Duration },
    LivenessMissed { generation: Generation, detail: String },
    LivenessRecovered { generation: Generation, after: Duration },
    LivenessExtended { generation: Generation, cpu: Duration, by: Duration },
    ReadinessChanged { generation: Generation, readiness: Readiness },
    MemoryExceeded { generation: Generation, tree_rss_kb: u64, limit_kb: u64 },
    ClockJumped { by: Duration },
    RestartRequested { by: Requester },
    RetryRequested { by: Requester },
    RestartScheduled { delay: Duration, why: String },
    RestartGaveUp { restarts: u32, window: Duration, why: String },
    StopRequested { by: Requester },
    StopEscalated { generation: Generation, why: String },
    DetachRequested { by: Requester },
    DetachRefused { why: &'static str },
    TreeKilled { generation: Generation, end: TreeEnd },
    HookStarted { hook: Hook, generation: Generation },
    HookFinished { hook: Hook, generation: Generation, end: HookEnd, elapsed: Duration },
    HookTimedOut { hook: Hook, generation: Generation, timeout: Duration },
    HandoffAccepted { generation: Generation, reason: String },
    HandoffMissing { generation: Generation },
    HandoffRejected { generation: Generation, reason: String },
    HandoffUnsupported { generation: Option<Generation>, reason: String },
    HandoffTimedOut { generation: Option<Generation>, reason: String },
    SuccessorFound { generation: Generation, pid: i32, command: String },
    SignalReceived { signal: &'static str, by: Requester },
}

/// The one end of one spawn.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as above")]
pub struct Exited {
    pub generation: Generation,
    pub pid: i32,
    pub death: ExitStatus,
    pub uptime: Duration,
    pub toll: ExitUsage,
    pub cause: &'static str,
}

/// A gateway that is to be replaced because it hangs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "as above")]
pub struct HungReport {
    pub generation: Generation,
    pub last_good: Option<Duration>,
    pub failed_probes: u32,
    pub why: &'static str,
    pub evidence: Option<String>,
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

impl Report {
    /// The name of the event.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::SupervisorStarted { .. } => "supervisor.started",
            Self::SupervisorStopped { .. } => "supervisor.stopped",
            Self::LeaseAcquireStarted => "lease.acquire_started",
            Self::LeaseContended { .. } => "lease.contended",
            Self::LeaseRecovered(_) => "lease.stale_recovered",
            Self::LeaseAcquired { .. } => "lease.acquired",
            Self::LeaseTimedOut { .. } => "lease.timed_out",
            Self::LeaseReleased { .. } => "lease.released",
            Self::LeaseLost { .. } => "lease.lost",
            Self::StoreMovedAside { .. } => "store.moved_aside",
            Self::StoreUnavailable { .. } => "store.unavailable",
            Self::StoreAvailable => "store.available",
            Self::StandbyEntered { .. } => "standby.entered",
            Self::StandbyLeft { .. } => "standby.left",
            Self::VerdictChanged { .. } => "probe.verdict_changed",
            Self::ConflictDetected { .. } => "conflict.detected",
            Self::ConflictResolved => "conflict.resolved",
            Self::GatewaySpawned { .. } => "gateway.spawned",
            Self::SpawnFailed { .. } => "gateway.spawn_failed",
            Self::GatewayAdopted { .. } => "gateway.adopted",
            Self::GatewayListening { .. } => "gateway.listening",
            Self::GatewayStarted { .. } => "gateway.started",
            Self::GatewayExited(_) => "gateway.exited",
            Self::GatewayHung(_) => "gateway.hung",
            Self::StartupTimedOut { .. } => "startup.timed_out",
            Self::LivenessMissed { .. } => "liveness.missed",
            Self::LivenessRecovered { .. } => "liveness.recovered",
            Self::LivenessExtended { .. } => "liveness.extended",
            Self::ReadinessChanged { .. } => "readiness.changed",
            Self::MemoryExceeded { .. } => "memory.exceeded",
            Self::ClockJumped { .. } => "clock.jumped",
            Self::RestartRequested { .. } => "restart.requested",
            Self::RetryRequested { .. } => "retry.requested",
            Self::RestartScheduled { .. } => "restart.scheduled",
            Self::RestartGaveUp { .. } => "restart.gave_up",
            Self::StopRequested { .. } => "stop.requested",
            Self::StopEscalated { .. } => "stop.escalated",
            Self::DetachRequested { .. } => "detach.requested",
            Self::DetachRefused { .. } => "detach.refused",
            Self::TreeKilled { .. } => "tree.killed",
            Self::HookStarted { .. } => "hook.started",
            Self::HookFinished { .. } => "hook.finished",
            Self::HookTimedOut { .. } => "hook.timed_out",
            Self::HandoffAccepted { .. } => "handoff.accepted",
            Self::HandoffMissing { .. } => "handoff.missing",
            Self::HandoffRejected { .. } => "handoff.rejected",
            Self::HandoffUnsupported { .. } => "handoff.unsupported",
            Self::HandoffTimedOut { .. } => "handoff.timed_out",
            Self::SuccessorFound { .. } => "gateway.succeeded",
            Self::SignalReceived { .. } => "signal.received",
        }
    }

    /// The gateway that the report is about.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        match self {
            Self::GatewaySpawned { generation, .. }
            | Self::SpawnFailed { generation, .. }
            | Self::GatewayAdopted { generation, .. }
            | Self::GatewayListening { generation, .. }
            | Self::GatewayStarted { generation, .. }
            | Self::GatewayExited(Exited { generation, .. })
            | Self::GatewayHung(HungReport { generation, .. })
            | Self::StartupTimedOut { generation, .. }
            | Self::LivenessMissed { generation, .. }
            | Self::LivenessRecovered { generation, .. }
            | Self::LivenessExtended { generation, .. }
            | Self::ReadinessChanged { generation, .. }
            | Self::MemoryExceeded { generation, .. }
            | Self::StopEscalated { generation, .. }
            | Self::TreeKilled { generation, .. }
            | Self::HookStarted { generation, .. }
            | Self::HookFinished { generation, .. }
            | Self::HandoffAccepted { generation, .. }
            | Self::HandoffMissing { generation }
            | Self::HandoffRejected { generation, .. }
            | Self::SuccessorFound { generation, .. }
            | Self::HookTimedOut { generation, .. } => Some(*generation),
            Self::HandoffUnsupported { generation, .. } | Self::HandoffTimedOut { generation, .. } => *generation,
            _ => None,
        }
    }

    /// How loud it is.
    #[must_use]
    pub fn severity(&self) -> Severity {
        match self {
            Self::RestartGaveUp { .. } | Self::LeaseLost { .. } => Severity::Error,
            Self::SupervisorStopped { exit_code, .. } if *exit_code != 0 => Severity::Error,
            Self::ConflictDetected { .. }
            | Self::LeaseContended { .. }
            | Self::LeaseTimedOut { .. }
            | Self::StoreMovedAside { .. }
            | Self::StoreUnavailable { .. }
            | Self::GatewayAdopted { differs: Some(_), .. }
            | Self::DetachRefused { .. }
            | Self::SpawnFailed { .. }
            | Self::GatewayHung(_)
            | Self::StartupTimedOut { .. }
            | Self::LivenessMissed { .. }
            | Self::LivenessExtended { .. }
            | Self::MemoryExceeded { .. }
            | Self::ClockJumped { .. }
            | Self::StopEscalated { .. }
            | Self::HandoffMissing { .. }
            | Self::HandoffRejected { .. }
            | Self::HandoffTimedOut { .. }
            | Self::TreeKilled { .. }
            | Self::HookTimedOut { .. } => Severity::Warning,
            Self::HookFinished { end, .. } if !end.is_success() => Severity::Warning,
            Self::GatewayExited(Exited { death, .. }) if *death != ExitStatus::Code(0) => Severity::Warning,
            _ => Severity::Info,
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
            death: ExitStatus::Signal { number: 9, core_dumped: false },
            uptime: Duration::from_millis(1500),
            toll: ExitUsage::default(),
            cause: "crashed",
        };
        let names: Vec<_> = Report::GatewayExited(exited).fields().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["pid", "signal", "core_dumped", "uptime_ms", "cause"]);
    }
}
