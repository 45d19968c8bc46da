//! One look: it asks the supervisor and probes the port; without a supervisor it reads what the store has.

use super::past::{EVENTS_READ, LastExit, RecordedPast, WallTime};
use super::shown::{
    Elsewhere, Health, Last, LastGateway, LastSupervisor, PortProbe, ProbeShown, Shown, StandbyShown, UnitShown,
    Urgency, View,
};
use crate::commands::doctor::service;
use crate::commands::explain;
use crate::commands::record::{LastOwner, OwnerSeen, RecordedGateway, StoreRecord};
use crate::commands::start::SEARCH_TIME_MAX;
use crate::commands::terminal::Terminal;
use crate::core::lease::Life;
use crate::core::{Endpoint, Phase, Verdict};
use crate::gateway::probe::{Look, Prober};
use crate::host::clock;
use crate::host::control::{
    Connection, ConnectionError, GatewayReply, LeaseReply, NextReply, RestartsReply, StatusReply, SupervisorReply,
};
use crate::platform::proc::{self, ProcessState};
use crate::platform::thread::BlockingCall;
use crate::settings::StatusSettings;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

/// `answered_by` without a supervisor and a store.
pub(super) const NEITHER: &str = "nobody";

/// What an earlier look has found and need not be asked for again.
#[derive(Debug, Default)]
pub(super) struct EarlierLook {
    pub(super) unit: Option<UnitShown>,
    /// With its output.
    pub(super) exit: Option<LastExit>,
}

/// Asks, reads and probes.
pub(super) async fn observe(settings: &StatusSettings, terminal: &Terminal, known: &EarlierLook) -> Shown {
    let store_dir = &settings.subject.store_dir;
    let (asked, standbys) = tokio::join!(Connection::status(store_dir), Connection::standbys(store_dir));
    let asked_at = clock::now();
    let mut shown = match asked {
        Ok((connection, reply)) => of_supervisor(settings, reply, connection.pid(), known).await,
        Err(error) => of_record(settings, &error, known).await,
    };
    // Of a store without an owner the one in standby knows most.
    if shown.supervisor.state == "none"
        && let Some((pid, reply)) = standbys.iter().find(|(_, reply)| reply.supervisor.state == "standby")
    {
        let recorded = shown.lease.held;
        shown = of_supervisor(settings, reply.clone(), *pid, known).await;
        shown.lease.held = shown.lease.held.or(recorded);
    }
    shown.standbys = standbys.into_iter().map(|(_, reply)| StandbyShown::new(reply)).collect();
    // Only the supervisor knows a port that is named in the gateway's command.
    let endpoint = settings.endpoint.at(&shown.supervisor.url).unwrap_or_else(|| settings.endpoint.clone());
    let prober = Prober::new(endpoint, settings.probe_timeout);
    let unit = async {
        match &known.unit {
            Some(unit) => Some(unit.clone()),
            None => super::unit::look(&shown.supervisor).await,
        }
    };
    let (finding, unit) = tokio::join!(look(&prober), unit);
    shown.health = judge(finding.observation.verdict, shown.gateway.is_some(), shown.view == View::Full);
    let probe = ProbeShown::new(finding);
    shown.failing = probe.failing();
    (shown.probe, shown.unit) = (Some(probe), unit);
    let pid = shown.supervisor.pid.filter(|_| shown.supervisor.state == "silent");
    shown.is_stopped = pid.and_then(|pid| proc::stat(pid).ok()).is_some_and(|stat| stat.state == ProcessState::Stopped);
    shown.store_user = fs::metadata(store_dir).ok().map(|meta| super::past::user_of(meta.uid().into()));
    if shown.answered_by != "supervisor" && shown.unit.is_none() {
        let store = store_dir.to_owned();
        let found = BlockingCall::default().run(SEARCH_TIME_MAX, move || service::of_store(&store)).await;
        shown.lacks_service = found.is_ok_and(|found| found.is_empty());
    }
    shown.at = WallTime(terminal.now_ms());
    age(&mut shown, clock::now().saturating_sub(asked_at));
    let words = if settings.json { &Terminal::utc() } else { terminal };
    (shown.severity, shown.sentence) = super::sentence::sentence(&shown, words);
    shown
}

/// Makes the times of an answer of so long ago agree with the clock that is shown: a probe may take its whole timeout.
pub(super) fn age(shown: &mut Shown, by: Duration) {
    let by = u64::try_from(by.as_millis()).unwrap_or(u64::MAX);
    let paused = shown.paused.as_mut().map(|paused| &mut paused.in_ms);
    let left = [
        &mut shown.next.in_ms,
        &mut shown.restarts.free_in_ms,
        &mut shown.restarts.waiting_ms,
        &mut shown.supervisor.ends_within_ms,
    ];
    for ms in left.into_iter().chain(paused).flatten() {
        *ms = ms.saturating_sub(by);
    }
    let gateway = shown.gateway.as_mut();
    for ms in gateway.into_iter().flat_map(|gateway| [&mut gateway.age_ms, &mut gateway.up_ms]).flatten() {
        *ms = ms.saturating_add(by);
    }
}

async fn look(prober: &Prober) -> PortProbe {
    let observation = prober.look(Look::AnswersAndOwner { leader: None }).await;
    let answers = matches!(observation.verdict, Verdict::Gateway(_) | Verdict::Draining);
    let ready = if answers { Some(prober.ready().await) } else { None };
    PortProbe { observation, ready }
}

/// `gateway`: whether a gateway process of ours is known. `is_in_view`: whether it would be seen from here if there was one.
fn judge(verdict: Verdict, gateway: bool, is_in_view: bool) -> Health {
    match verdict {
        Verdict::Gateway(Phase::Started | Phase::Unknown) => Health::Healthy,
        Verdict::Gateway(Phase::Starting) | Verdict::Draining | Verdict::Booting | Verdict::Silent => Health::Unhealthy,
        Verdict::Inconclusive => Health::Unknown,
        // No listener, or another program.
        Verdict::Free | Verdict::Foreign | Verdict::Malformed if !is_in_view => Health::Unknown,
        Verdict::Free | Verdict::Foreign | Verdict::Malformed if gateway => Health::Unhealthy,
        Verdict::Free | Verdict::Foreign | Verdict::Malformed => Health::NotRunning,
    }
}

/// `pid`: that of the supervisor as it is seen from here.
async fn of_supervisor(settings: &StatusSettings, reply: StatusReply, pid: Option<i32>, known: &EarlierLook) -> Shown {
    let StatusReply { supervisor, mut gateway, mut lease, generation, restarts, next, paused, .. } = reply;
    if supervisor.state == "standby" && lease.held == Some(false) {
        // It speaks of itself; the lease is another one's.
        lease.held = lease.owner_pid.map(|_| true);
    }
    // The supervisor itself reports a store that cannot be read.
    let record = StoreRecord::open(&settings.subject.store_dir).ok().flatten();
    let past = past_of(record.as_ref(), settings, known).await;
    let mut last = Last { past, ..Last::default() };
    let is_elsewhere = supervisor.pid != pid;
    let mut view = if is_elsewhere { View::Partial } else { View::Full };
    if gateway.is_none() {
        let recorded = record.and_then(|record| record.gateway());
        match &recorded {
            // A standby knows nothing of the owner's gateway.
            Some(alive) if supervisor.state == "standby" && alive.life == Life::Alive => {
                gateway = Some(living_gateway(alive));
            }
            Some(alive) if supervisor.state == "standby" && alive.life == Life::Unknown => view = View::Partial,
            _ => {}
        }
        last.gateway = recorded.filter(|gateway| matches!(gateway.life, Life::Gone(_))).map(past_gateway);
    }
    let elsewhere = is_elsewhere.then(|| Elsewhere { host: supervisor.host.clone(), heartbeat_age_ms: None });
    Shown {
        supervisor,
        gateway,
        lease,
        generation,
        restarts,
        next,
        paused,
        answered_by: "supervisor",
        elsewhere,
        last,
        view,
        ..blank(settings)
    }
}

/// With nothing known.
fn blank(settings: &StatusSettings) -> Shown {
    Shown {
        at: WallTime(0),
        sentence: String::new(),
        severity: Urgency::Error,
        supervisor: SupervisorReply::default(),
        gateway: None,
        lease: LeaseReply::default(),
        probe: None,
        failing: Vec::new(),
        generation: None,
        restarts: RestartsReply::default(),
        next: NextReply::default(),
        paused: None,
        answered_by: NEITHER,
        trouble: None,
        elsewhere: None,
        standbys: Vec::new(),
        last: Last::default(),
        unit: None,
        found: Vec::new(),
        store_user: None,
        health: Health::Unknown,
        view: View::Partial,
        is_stopped: false,
        lacks_service: false,
        options: settings.subject.options.clone(),
    }
}

async fn past_of(record: Option<&StoreRecord>, settings: &StatusSettings, known: &EarlierLook) -> RecordedPast {
    let entries = record.and_then(|record| record.last(EVENTS_READ).ok()).unwrap_or_default();
    let mut past = RecordedPast::of(&entries);
    if let Some(exit) = past.exit.as_mut().filter(|exit| past.down_since.is_some() && exit.is_failure()) {
        exit.output = match &known.exit {
            Some(known) if known.at == exit.at => known.output.clone(),
            _ => explain::last_words(&entries, exit.generation, &settings.subject.config_path).await,
        };
    }
    past
}

/// What the store has. `error` says why no supervisor answers.
async fn of_record(settings: &StatusSettings, error: &ConnectionError, known: &EarlierLook) -> Shown {
    let subject = &settings.subject;
    let (record, unreadable) = match StoreRecord::open(&subject.store_dir) {
        Ok(record) => (record, None),
        Err(why) => (None, Some(why)),
    };
    let owner = record.as_ref().and_then(StoreRecord::owner);
    let gateway = record.as_ref().and_then(StoreRecord::gateway);
    let mut endpoint = owner.as_ref().and_then(|owner| place_of(owner, &settings.endpoint));
    let port = endpoint.as_ref().unwrap_or(&settings.endpoint).port;
    let seen = OwnerSeen::look(&subject.store_dir, owner.as_ref(), port).await;
    if let OwnerSeen::ClaimOnly { port, .. } = seen {
        endpoint = at(&settings.endpoint, settings.endpoint.host.clone(), port);
    }
    let endpoint = endpoint.unwrap_or_else(|| settings.endpoint.clone());
    let holds = matches!(seen, OwnerSeen::Here | OwnerSeen::Elsewhere { .. });
    let owner_pid = owner.as_ref().and_then(|owner| owner.pid).filter(|_| holds);
    let (state, pid, trouble) = unheard(error, &seen, owner_pid, &subject.store_dir);
    let since = owner.as_ref().filter(|_| holds).and_then(|owner| owner.since).map(clock::stamp_of);
    let elsewhere = owner.as_ref().filter(|_| matches!(seen, OwnerSeen::Elsewhere { .. })).map(|owner| Elsewhere {
        host: owner.host.clone(),
        heartbeat_age_ms: owner.heartbeat_at.and_then(|at| u64::try_from(clock::wall_ms().saturating_sub(at)).ok()),
    });
    let is_in_view = matches!(seen, OwnerSeen::Nowhere | OwnerSeen::Here | OwnerSeen::OtherStore { dir: Some(_), .. })
        && gateway.as_ref().is_none_or(|gateway| gateway.life != Life::Unknown)
        && (record.is_some() || matches!(error, ConnectionError::Absent | ConnectionError::Silent { .. }));
    let view = match is_in_view {
        _ if is_forbidden(error, &subject.store_dir) => View::Forbidden,
        true => View::Full,
        false => View::Partial,
    };
    let held = match seen {
        OwnerSeen::Nowhere | OwnerSeen::OtherStore { dir: Some(_), .. } => record.as_ref().map(|_| false),
        OwnerSeen::Here
        | OwnerSeen::Unnamed
        | OwnerSeen::Elsewhere { is_locked: true }
        | OwnerSeen::ClaimOnly { is_locked: true, .. } => Some(true),
        OwnerSeen::Elsewhere { .. } | OwnerSeen::ClaimOnly { .. } | OwnerSeen::OtherStore { .. } => None,
    };
    Shown {
        supervisor: SupervisorReply {
            pid,
            host: owner.as_ref().filter(|_| holds).and_then(|owner| owner.host.clone()),
            state: state.to_owned(),
            since,
            config: subject.config_path.to_string_lossy().into_owned(),
            store_dir: subject.store_dir.to_string_lossy().into_owned(),
            url: endpoint.to_string(),
            port: endpoint.port,
            ..SupervisorReply::default()
        },
        gateway: gateway.as_ref().filter(|gateway| !matches!(gateway.life, Life::Gone(_))).map(living_gateway),
        lease: LeaseReply { held, epoch: owner.as_ref().map(|owner| owner.epoch), owner_pid },
        generation: gateway.as_ref().map(|gateway| gateway.generation),
        answered_by: if record.is_some() { "store" } else { NEITHER },
        trouble: trouble.or(unreadable),
        elsewhere,
        last: Last {
            past: past_of(record.as_ref(), settings, known).await,
            supervisor: owner.filter(|_| !holds).map(|owner| past_owner(owner, record.as_ref())),
            gateway: gateway.filter(|gateway| matches!(gateway.life, Life::Gone(_))).map(past_gateway),
        },
        view,
        ..blank(settings)
    }
}

/// Whether another account would see more.
fn is_forbidden(error: &ConnectionError, dir: &Path) -> bool {
    let is_closed = || fs::read_dir(dir).is_err_and(|error| error.kind() == io::ErrorKind::PermissionDenied);
    !rustix::process::geteuid().is_root() && (matches!(error, ConnectionError::Forbidden) || is_closed())
}

/// Of a supervisor that does not answer: its state in a word, its pid and why it cannot be asked.
fn unheard(
    error: &ConnectionError,
    seen: &OwnerSeen,
    owner_pid: Option<i32>,
    store_dir: &Path,
) -> (&'static str, Option<i32>, Option<String>) {
    let trouble = seen.trouble(store_dir);
    match (error, seen) {
        (ConnectionError::Absent, OwnerSeen::Nowhere | OwnerSeen::OtherStore { dir: Some(_), .. }) => {
            ("none", None, trouble)
        }
        (ConnectionError::Absent, OwnerSeen::Elsewhere { .. }) => ("elsewhere", owner_pid, trouble),
        (ConnectionError::Absent, OwnerSeen::ClaimOnly { pid, .. } | OwnerSeen::OtherStore { pid, .. }) => {
            ("unreachable", *pid, trouble)
        }
        (ConnectionError::Absent, OwnerSeen::Here | OwnerSeen::Unnamed) => ("unreachable", owner_pid, trouble),
        (ConnectionError::Silent { pid }, _) => ("silent", pid.or(owner_pid), Some(error.to_string())),
        (ConnectionError::Forbidden | ConnectionError::Refused(_) | ConnectionError::Broken(_), _) => {
            ("unreachable", owner_pid, Some(error.to_string()))
        }
    }
}

/// Where the gateway of that owner listens. What is not on record is as in our own settings.
fn place_of(owner: &LastOwner, known: &Endpoint) -> Option<Endpoint> {
    let (host, port) = owner.place.clone()?;
    at(known, host, port)
}

fn at(known: &Endpoint, host: String, port: u16) -> Option<Endpoint> {
    known.at(&Endpoint { host, port, ..known.clone() }.to_string())
}

fn living_gateway(gateway: &RecordedGateway) -> GatewayReply {
    GatewayReply {
        pid: gateway.pid,
        generation: gateway.generation,
        age_ms: gateway.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        ..GatewayReply::default()
    }
}

fn past_owner(owner: LastOwner, record: Option<&StoreRecord>) -> LastSupervisor {
    let LastOwner { pid, host, since, released, life, .. } = owner;
    let stopped = record.filter(|_| released).and_then(|record| record.last(1).ok()?.pop());
    let stopped = stopped.filter(|entry| entry.name == "supervisor.stopped");
    let reason = stopped.as_ref().and_then(|entry| entry.fields.get("reason")?.as_str());
    let end = match life {
        _ if released => Some(reason.unwrap_or("it released its lease")),
        Life::Gone(why) => Some(why),
        Life::Alive | Life::Unknown => None,
    };
    let (end, ended_at_ms) = (end.map(str::to_owned), stopped.as_ref().map(|entry| entry.at_ms));
    LastSupervisor { pid, host, since: since.map(clock::stamp_of), end, ended_at_ms }
}

fn past_gateway(gateway: RecordedGateway) -> LastGateway {
    let RecordedGateway { pid, generation, end, ended_at, .. } = gateway;
    LastGateway { pid, generation, end, ended_at: ended_at.map(clock::stamp_of), ended_at_ms: ended_at }
}
