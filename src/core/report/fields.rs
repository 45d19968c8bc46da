//! The fields of a report: the contract of the event log.

use super::{Exited, HungReport, Report};
use crate::event::{ExitStatus, Recovered, TreeEnd};
use crate::prelude::*;
use crate::{Holder, HookEnd, Readiness, Verdict};
use core::time::Duration;

/// The value of one field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// A count, a pid, milliseconds.
    Number(i64),
    /// Text.
    Text(String),
    /// Yes or no.
    Truth(bool),
    /// Several texts.
    List(Vec<String>),
}

impl From<bool> for Field {
    fn from(truth: bool) -> Self {
        Self::Truth(truth)
    }
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

fn holder_fields([pid, command]: [&'static str; 2], holder: Option<&Holder>) -> Fields {
    let Some(holder) = holder else { return vec![] };
    vec![(pid, holder.pid.into()), (command, holder.command.as_str().into())]
}

impl Report {
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
            Self::ConflictResolved | Self::HandoffMissing { .. } => vec![],
            Self::LeaseAcquireStarted
            | Self::LeaseContended { .. }
            | Self::LeaseRecovered(_)
            | Self::LeaseAcquired { .. }
            | Self::LeaseTimedOut { .. }
            | Self::LeaseReleased { .. }
            | Self::LeaseLost { .. }
            | Self::StoreMovedAside { .. }
            | Self::StoreUnavailable { .. }
            | Self::StoreAvailable => self.tenure_fields(),
            Self::VerdictChanged { .. } | Self::ConflictDetected { .. } => self.port_fields(),
            Self::GatewaySpawned { pid, attempt, .. } => vec![("pid", (*pid).into()), ("attempt", (*attempt).into())],
            Self::SpawnFailed { why, .. }
            | Self::StopEscalated { why, .. }
            | Self::StandbyEntered { why }
            | Self::StandbyLeft { why } => vec![("why", why.as_str().into())],
            Self::DetachRefused { why } => vec![("why", (*why).into())],
            Self::GatewayAdopted { .. } | Self::GatewayListening { .. } | Self::GatewayStarted { .. } => {
                self.birth_fields()
            }
            Self::GatewayExited(exited) => exited.fields(),
            Self::GatewayHung(_)
            | Self::StartupTimedOut { .. }
            | Self::LivenessMissed { .. }
            | Self::LivenessRecovered { .. }
            | Self::LivenessExtended { .. }
            | Self::ReadinessChanged { .. }
            | Self::MemoryExceeded { .. } => self.health_fields(),
            Self::ClockJumped { by } => vec![("ms", (*by).into())],
            Self::RestartRequested { by }
            | Self::RetryRequested { by }
            | Self::StopRequested { by }
            | Self::DetachRequested { by } => {
                vec![("by", by.to_string().as_str().into())]
            }
            Self::RestartScheduled { .. } | Self::RestartGaveUp { .. } => self.pace_fields(),
            Self::HandoffAccepted { reason, .. }
            | Self::HandoffRejected { reason, .. }
            | Self::HandoffUnsupported { reason, .. }
            | Self::HandoffTimedOut { reason, .. } => vec![("reason", reason.as_str().into())],
            Self::SuccessorFound { pid, command, .. } => {
                vec![("pid", (*pid).into()), ("command", command.as_str().into())]
            }
            Self::TreeKilled { end, .. } => end.fields(),
            Self::HookStarted { .. } | Self::HookFinished { .. } | Self::HookTimedOut { .. } => self.hook_fields(),
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

    /// Those of a look at the port.
    fn port_fields(&self) -> Fields {
        match self {
            Self::VerdictChanged { from, to, detail } => vec![
                ("from", from.map_or("none", Verdict::name).into()),
                ("to", to.name().into()),
                ("detail", detail.as_str().into()),
            ],
            Self::ConflictDetected { kind, holder } => {
                let mut fields = vec![("kind", (*kind).into())];
                fields.extend(holder_fields(["holder_pid", "holder_command"], holder.as_ref()));
                fields
            }
            _ => vec![],
        }
    }

    /// Those of a gateway's beginning.
    fn birth_fields(&self) -> Fields {
        match self {
            Self::GatewayAdopted { pid, age, differs, .. } => [("pid", (*pid).into()), ("age_ms", (*age).into())]
                .into_iter()
                .chain(some("differs", differs.as_deref()))
                .collect(),
            Self::GatewayListening { pid, .. } => vec![("pid", (*pid).into())],
            Self::GatewayStarted { pid, boot, .. } => vec![("pid", (*pid).into()), ("boot_ms", (*boot).into())],
            _ => vec![],
        }
    }

    /// Those of what comes next.
    fn pace_fields(&self) -> Fields {
        match self {
            Self::RestartScheduled { delay, why } => {
                vec![("delay_ms", (*delay).into()), ("why", why.as_str().into())]
            }
            Self::RestartGaveUp { restarts, window, why } => {
                vec![("restarts", (*restarts).into()), ("window_ms", (*window).into()), ("why", why.as_str().into())]
            }
            _ => vec![],
        }
    }

    /// Those of a gateway's health.
    fn health_fields(&self) -> Fields {
        match self {
            Self::GatewayHung(HungReport { last_good, failed_probes, why, evidence, .. }) => {
                some("last_good_ms", *last_good)
                    .into_iter()
                    .chain([("failed_probes", (*failed_probes).into()), ("why", (*why).into())])
                    .chain(some("evidence", evidence.as_deref()))
                    .collect()
            }
            Self::StartupTimedOut { budget, .. } => vec![("budget_ms", (*budget).into())],
            Self::LivenessMissed { detail, .. } => vec![("detail", detail.as_str().into())],
            Self::LivenessRecovered { after, .. } => vec![("after_ms", (*after).into())],
            Self::LivenessExtended { cpu, by, .. } => vec![("cpu_ms", (*cpu).into()), ("by_ms", (*by).into())],
            Self::ReadinessChanged { readiness: Readiness { ready, detail }, .. } => {
                vec![("ready", (*ready).into()), ("detail", detail.as_str().into())]
            }
            Self::MemoryExceeded { tree_rss_kb, limit_kb, .. } => {
                vec![("tree_rss_kb", (*tree_rss_kb).into()), ("limit_kb", (*limit_kb).into())]
            }
            _ => vec![],
        }
    }

    /// Those of a hook.
    fn hook_fields(&self) -> Fields {
        match self {
            Self::HookStarted { hook, .. } => vec![("hook", hook.name().into())],
            Self::HookFinished { hook, end, elapsed, .. } => {
                let mut fields = vec![("hook", hook.name().into())];
                fields.extend(match end {
                    HookEnd::Ended(ExitStatus::Code(code)) => Some(("code", (*code).into())),
                    HookEnd::Ended(ExitStatus::Signal { number, .. }) => Some(("signal", (*number).into())),
                    HookEnd::Ended(ExitStatus::Unknown) => None,
                    HookEnd::NotStarted(why) | HookEnd::Postponed(why) => Some(("why", why.as_str().into())),
                });
                fields.push(("elapsed_ms", (*elapsed).into()));
                fields
            }
            Self::HookTimedOut { hook, timeout, .. } => {
                vec![("hook", hook.name().into()), ("timeout_ms", (*timeout).into())]
            }
            _ => vec![],
        }
    }

    /// Those of the lease and the store.
    fn tenure_fields(&self) -> Fields {
        match self {
            Self::LeaseTimedOut { why } | Self::StoreUnavailable { why } => vec![("why", why.as_str().into())],
            Self::LeaseContended { owner, what } => {
                let mut fields = holder_fields(["owner_pid", "owner_command"], owner.as_ref());
                fields.push(("what", what.name().into()));
                fields
            }
            Self::LeaseRecovered(Recovered { pid, why }) => {
                some("owner_pid", *pid).into_iter().chain([("why", why.as_str().into())]).collect()
            }
            Self::LeaseAcquired { epoch } | Self::LeaseReleased { epoch } => vec![("epoch", (*epoch).into())],
            Self::LeaseLost { owner, why } => {
                let mut fields = holder_fields(["owner_pid", "owner_command"], owner.as_ref());
                fields.push(("why", why.as_str().into()));
                fields
            }
            Self::StoreMovedAside { to, why } => vec![("to", to.as_str().into()), ("why", why.as_str().into())],
            _ => vec![],
        }
    }
}

impl TreeEnd {
    fn fields(&self) -> Fields {
        let mut fields = vec![
            ("members", self.members.into()),
            ("escaped", self.escaped.into()),
            ("survivors", self.survivors.into()),
            ("elapsed_ms", self.elapsed.into()),
            ("commands", Field::List(self.commands.clone())),
        ];
        let found_by = self.found_by.iter().map(|(layer, count)| format!("{} {count}", layer.name())).collect();
        fields.push(("found_by", Field::List(found_by)));
        if !self.left.is_empty() {
            fields.push(("left", Field::List(self.left.clone())));
        }
        fields
    }
}

impl Exited {
    pub(super) fn fields(&self) -> Fields {
        let (code, signal, core_dumped) = match self.death {
            ExitStatus::Code(code) => (Some(code), None, None),
            ExitStatus::Signal { number, core_dumped } => (None, Some(number), Some(core_dumped)),
            ExitStatus::Unknown => (None, None, None),
        };
        [
            Some(("pid", self.pid.into())),
            some("code", code),
            some("signal", signal),
            some("core_dumped", core_dumped),
            Some(("uptime_ms", self.uptime.into())),
            some("max_rss_kb", self.toll.max_rss_kb),
            some("cpu_ms", self.toll.cpu),
            Some(("cause", self.cause.into())),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
