//! What `status` shows, as `--json` prints it: see docs/CONTROL.md and docs/status.schema.json.

use super::past::{RecordedPast, WallTime};
use crate::core::{Observation, Readiness, exit};
use crate::host::control::{
    GatewayReply, LeaseReply, NextReply, PausedReply, RestartsReply, StatusReply, SupervisorReply,
};
use crate::platform::machine;
use serde::Serialize;

/// No gateway runs: 3 and 4 are the status codes of LSB for a service that does not run, and for an unclear state.
const NOT_RUNNING: u8 = 3;
pub const NOT_HEALTHY: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Health {
    Healthy,
    Unhealthy,
    Unknown,
    NotRunning,
}

impl Health {
    pub(super) fn exit_code(self) -> u8 {
        match self {
            Self::Healthy => exit::OK,
            Self::Unhealthy | Self::Unknown => NOT_HEALTHY,
            Self::NotRunning => NOT_RUNNING,
        }
    }
}

/// One probe of the port.
pub(super) struct PortProbe {
    pub(super) observation: Observation,
    /// What `/readyz` answers if a gateway is there, or why that is not known.
    pub(super) ready: Option<Result<Readiness, String>>,
}

/// What `--json` prints, see docs/CONTROL.md.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Shown {
    pub(super) at: WallTime,
    pub(super) sentence: String,
    pub(super) severity: Urgency,
    pub(super) supervisor: SupervisorReply,
    pub(super) gateway: Option<GatewayReply>,
    pub(super) lease: LeaseReply,
    pub(super) probe: Option<ProbeShown>,
    /// What `/readyz` names as failing.
    pub(super) failing: Vec<FailingCheck>,
    pub(super) generation: Option<u64>,
    pub(super) restarts: RestartsReply,
    pub(super) next: NextReply,
    pub(super) paused: Option<PausedReply>,
    pub(super) answered_by: &'static str,
    pub(super) trouble: Option<String>,
    pub(super) elsewhere: Option<Elsewhere>,
    pub(super) standbys: Vec<StandbyShown>,
    pub(super) last: Last,
    pub(super) unit: Option<UnitShown>,
    /// Supervisors at other places than our own settings say, if nothing is there.
    pub(super) found: Vec<FoundShown>,
    /// The user that owns the store directory.
    pub(super) store_user: Option<String>,
    pub(super) health: Health,
    #[serde(skip)]
    pub(super) view: View,
    /// Whether its process is stopped by a signal, of a supervisor that does not answer.
    #[serde(skip)]
    pub(super) is_stopped: bool,
    /// Whether no service for this store is found, which `start-now` could start.
    #[serde(skip)]
    pub(super) lacks_service: bool,
    /// The options by which a command finds this store, with a blank before each.
    #[serde(skip)]
    pub(super) options: String,
}

/// Whether a gateway of this store would be seen from here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum View {
    Full,
    /// It may run where nothing shows it.
    Partial,
    /// Another account would see more.
    Forbidden,
}

/// How bad the sentence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Urgency {
    Info,
    Warning,
    Error,
}

/// The place in which the pids of the supervisor and its gateway are valid, if that is not here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Elsewhere {
    pub(super) host: Option<String>,
    /// Since the last heartbeat in the record, by the wall clocks of both places.
    pub(super) heartbeat_age_ms: Option<u64>,
}

/// A supervisor in standby.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct StandbyShown {
    pub(super) pid: Option<i32>,
    pub(super) host: Option<String>,
    pub(super) state: String,
    pub(super) since: Option<String>,
    pub(super) manager: Option<String>,
    pub(super) owner_pid: Option<i32>,
    pub(super) why: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct ProbeShown {
    pub(super) verdict: &'static str,
    pub(super) detail: String,
    pub(super) ready: Option<bool>,
    pub(super) ready_detail: Option<String>,
    pub(super) pid: Option<i32>,
    pub(super) command: Option<String>,
    /// Of that process, or of its socket where the process cannot be seen.
    pub(super) user: Option<String>,
}

/// A check of `/readyz` that fails.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FailingCheck {
    pub(super) name: String,
    pub(super) is_channel: bool,
}

/// The service of the outer manager.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct UnitShown {
    pub(super) name: String,
    /// `system manager`, `user manager` or `launchd`.
    pub(super) manager: String,
    /// `loaded`, `not-found`, `masked` and others of systemd.
    pub(super) load: Option<String>,
    pub(super) active: Option<String>,
    pub(super) sub: Option<String>,
    pub(super) result: Option<String>,
    pub(super) file: Option<String>,
}

/// A supervisor of another account or with another store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct FoundShown {
    pub(super) name: String,
    pub(super) manager: Option<String>,
    pub(super) user: Option<String>,
    pub(super) pid: Option<i32>,
    pub(super) store_dir: Option<String>,
    pub(super) sentence: Option<String>,
    pub(super) health: Health,
}

/// Supervisor and gateway of the past.
#[derive(Debug, Clone, PartialEq, Default, Serialize)]
pub(super) struct Last {
    pub(super) supervisor: Option<LastSupervisor>,
    pub(super) gateway: Option<LastGateway>,
    #[serde(flatten)]
    pub(super) past: RecordedPast,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LastSupervisor {
    pub(super) pid: Option<i32>,
    pub(super) host: Option<String>,
    pub(super) since: Option<String>,
    pub(super) end: Option<String>,
    #[serde(skip)]
    pub(super) ended_at_ms: Option<i64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LastGateway {
    pub(super) pid: Option<i32>,
    pub(super) generation: u64,
    pub(super) end: Option<String>,
    pub(super) ended_at: Option<String>,
    #[serde(skip)]
    pub(super) ended_at_ms: Option<i64>,
}

impl Shown {
    /// Where the pids are valid, in words, if that is not here.
    pub(super) fn place(&self) -> String {
        match self.elsewhere.as_ref().map(|elsewhere| elsewhere.host.as_deref()) {
            None => String::new(),
            Some(Some(host)) if Some(host) != machine::host_name().as_deref() => format!(" on {host}"),
            Some(_) => " in another pid namespace".to_owned(),
        }
    }

    /// A command line of this program that concerns this store.
    pub(super) fn command(&self, verb: &str) -> String {
        format!("`openclaw-supervise {verb}{}`", self.options)
    }
}

impl StandbyShown {
    pub(super) fn new(StatusReply { supervisor, lease, next, .. }: StatusReply) -> Self {
        let SupervisorReply { pid, host, state, since, manager, .. } = supervisor;
        Self { pid, host, state, since, manager, owner_pid: lease.owner_pid, why: next.why }
    }
}

impl ProbeShown {
    pub(super) fn new(PortProbe { observation, ready }: PortProbe) -> Self {
        let holder = observation.holder().cloned();
        let user = observation.holder_uid().map(|uid| super::past::user_of(uid.into()));
        let (ready, ready_detail) = match ready {
            Some(Ok(Readiness { ready, detail })) => (Some(ready), Some(detail)),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        let (pid, command) = holder.map(|holder| (holder.pid, holder.command)).unzip();
        let (verdict, detail) = (observation.verdict.name(), observation.detail);
        Self { verdict, detail, ready, ready_detail, pid, command, user }
    }

    /// What `/readyz` names: `channel:NAME`, or another check of the gateway.
    pub(super) fn failing(&self) -> Vec<FailingCheck> {
        let detail = self.ready_detail.as_deref().filter(|_| self.ready == Some(false)).unwrap_or_default();
        let named = detail.strip_prefix("not ready: ").unwrap_or(detail).split(", ").filter(|name| !name.is_empty());
        let check = |name: &str| match name.strip_prefix("channel:") {
            Some(channel) => FailingCheck { name: channel.to_owned(), is_channel: true },
            None => FailingCheck { name: name.to_owned(), is_channel: false },
        };
        named.map(check).collect()
    }
}
