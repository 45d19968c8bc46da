//! `status`: supervisor and gateway as they are now. It asks the supervisor and probes the port; without a supervisor it
//! shows what the store has.

use super::record::{LastOwner, OwnerSeen, RecordedGateway, StoreRecord};
use crate::core::lease::Life;
use crate::core::report::human;
use crate::core::{Endpoint, Observation, Phase, Readiness, Verdict, exit};
use crate::gateway::probe::{Look, Prober};
use crate::host::clock;
use crate::host::control::{
    Connection, ConnectionError, GatewayReply, LeaseReply, NextReply, RestartsReply, StatusReply, SupervisorReply,
};
use crate::platform::machine;
use crate::settings::StatusSettings;
use serde::Serialize;
use std::fmt::Display;
use std::io;
use std::path::Path;
use std::time::Duration;

/// No gateway runs: 3 and 4 are the status codes of LSB for a service that does not run, and for an unclear state.
const NOT_RUNNING: u8 = 3;
const NOT_HEALTHY: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Health {
    Healthy,
    Unhealthy,
    Unknown,
    NotRunning,
}

impl Health {
    fn exit_code(self) -> u8 {
        match self {
            Self::Healthy => exit::OK,
            Self::Unhealthy | Self::Unknown => NOT_HEALTHY,
            Self::NotRunning => NOT_RUNNING,
        }
    }
}

/// One probe of the port.
struct PortProbe {
    observation: Observation,
    /// What `/readyz` answers if a gateway is there, or why that is not known.
    ready: Option<Result<Readiness, String>>,
}

/// What `--json` prints, see docs/CONTROL.md.
#[derive(Serialize)]
struct Shown {
    supervisor: SupervisorReply,
    gateway: Option<GatewayReply>,
    lease: LeaseReply,
    probe: Option<ProbeShown>,
    generation: Option<u64>,
    restarts: RestartsReply,
    next: NextReply,
    answered_by: &'static str,
    trouble: Option<String>,
    elsewhere: Option<Elsewhere>,
    standbys: Vec<StandbyShown>,
    last: Last,
    health: Health,
    /// Whether a gateway of this store would be seen from here.
    #[serde(skip)]
    is_in_view: bool,
}

/// The place in which the pids of the supervisor and its gateway are valid, if that is not here.
#[derive(Serialize)]
struct Elsewhere {
    host: Option<String>,
    /// Since the last heartbeat in the record, by the wall clocks of both places.
    heartbeat_age_ms: Option<u64>,
}

/// A supervisor in standby.
#[derive(Serialize)]
struct StandbyShown {
    pid: Option<i32>,
    host: Option<String>,
    state: String,
    since: Option<String>,
    manager: Option<String>,
    owner_pid: Option<i32>,
    why: Option<String>,
}

#[derive(Serialize)]
struct ProbeShown {
    verdict: &'static str,
    detail: String,
    ready: Option<bool>,
    ready_detail: Option<String>,
    pid: Option<i32>,
    command: Option<String>,
}

/// Supervisor and gateway of the past, if none is there now.
#[derive(Default, Serialize)]
struct Last {
    supervisor: Option<LastSupervisor>,
    gateway: Option<LastGateway>,
}

#[derive(Serialize)]
struct LastSupervisor {
    pid: Option<i32>,
    host: Option<String>,
    since: Option<String>,
    end: Option<String>,
    #[serde(skip)]
    ended_at_ms: Option<i64>,
}

#[derive(Serialize)]
struct LastGateway {
    pid: Option<i32>,
    generation: u64,
    end: Option<String>,
    ended_at: Option<String>,
}

/// Prints the status and returns the exit code.
pub async fn run(settings: &StatusSettings, out: &mut impl io::Write) -> io::Result<u8> {
    let store_dir = &settings.subject.store_dir;
    let (asked, standbys) = tokio::join!(Connection::status(store_dir), Connection::standbys(store_dir));
    let mut shown = match asked {
        Ok((connection, reply)) => of_supervisor(settings, reply, connection.pid()),
        Err(error) => of_record(settings, &error).await,
    };
    // Of a store without an owner the one in standby knows most.
    if shown.supervisor.state == "none"
        && let Some((pid, reply)) = standbys.iter().find(|(_, reply)| reply.supervisor.state == "standby")
    {
        let recorded = shown.lease.held;
        shown = of_supervisor(settings, reply.clone(), *pid);
        shown.lease.held = shown.lease.held.or(recorded);
    }
    shown.standbys = standbys.into_iter().map(|(_, reply)| StandbyShown::new(reply)).collect();
    // Only the supervisor knows a port that is named in the gateway's command.
    let endpoint = settings.endpoint.at(&shown.supervisor.url).unwrap_or_else(|| settings.endpoint.clone());
    let finding = look(&Prober::new(endpoint, settings.probe_timeout)).await;
    shown.health = judge(finding.observation.verdict, shown.gateway.is_some(), shown.is_in_view);
    shown.probe = Some(ProbeShown::new(finding));
    let text = if settings.json { serde_json::to_string(&shown)? } else { as_text(&shown) };
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // A closed pipe still gets the exit code.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(shown.health.exit_code()),
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
fn of_supervisor(settings: &StatusSettings, reply: StatusReply, pid: Option<i32>) -> Shown {
    let StatusReply { supervisor, gateway, mut lease, generation, restarts, next, .. } = reply;
    if supervisor.state == "standby" && lease.held == Some(false) {
        // It speaks of itself; the lease is another one's.
        lease.held = lease.owner_pid.map(|_| true);
    }
    let mut last = Last::default();
    if gateway.is_none() {
        // The supervisor itself reports a store that cannot be read.
        let record = StoreRecord::open(&settings.subject.store_dir).ok().flatten();
        let recorded = record.and_then(|record| record.gateway());
        last.gateway = recorded.filter(|gateway| matches!(gateway.life, Life::Gone(_))).map(past_gateway);
    }
    let is_elsewhere = supervisor.pid != pid;
    let elsewhere = is_elsewhere.then(|| Elsewhere { host: supervisor.host.clone(), heartbeat_age_ms: None });
    Shown {
        supervisor,
        gateway,
        lease,
        probe: None,
        generation,
        restarts,
        next,
        answered_by: "supervisor",
        trouble: None,
        elsewhere,
        standbys: Vec::new(),
        last,
        health: Health::Unknown,
        is_in_view: !is_elsewhere,
    }
}

/// What the store has. `error` says why no supervisor answers.
async fn of_record(settings: &StatusSettings, error: &ConnectionError) -> Shown {
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
    let held = match seen {
        OwnerSeen::Nowhere | OwnerSeen::OtherStore { dir: Some(_), .. } => record.as_ref().map(|_| false),
        OwnerSeen::Here | OwnerSeen::Unnamed | OwnerSeen::Elsewhere { is_locked: true } => Some(true),
        OwnerSeen::Elsewhere { is_locked: false } | OwnerSeen::ClaimOnly { .. } | OwnerSeen::OtherStore { .. } => None,
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
        probe: None,
        generation: gateway.as_ref().map(|gateway| gateway.generation),
        restarts: RestartsReply::default(),
        next: NextReply::default(),
        answered_by: if record.is_some() { "store" } else { "nobody" },
        trouble: trouble.or(unreadable),
        elsewhere,
        standbys: Vec::new(),
        last: Last {
            supervisor: owner.filter(|_| !holds).map(|owner| past_owner(owner, record.as_ref())),
            gateway: gateway.filter(|gateway| matches!(gateway.life, Life::Gone(_))).map(past_gateway),
        },
        health: Health::Unknown,
        is_in_view,
    }
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
    LastGateway { pid, generation, end, ended_at: ended_at.map(clock::stamp_of) }
}

impl Shown {
    /// Where the pids are valid, in words, if that is not here.
    fn place(&self) -> String {
        match self.elsewhere.as_ref().map(|elsewhere| elsewhere.host.as_deref()) {
            None => String::new(),
            Some(host) if host.is_none() || host == machine::host_name().as_deref() => {
                " in another pid namespace".to_owned()
            }
            Some(host) => around(" on ", host, ""),
        }
    }
}

impl StandbyShown {
    fn new(StatusReply { supervisor, lease, next, .. }: StatusReply) -> Self {
        let SupervisorReply { pid, host, state, since, manager, .. } = supervisor;
        Self { pid, host, state, since, manager, owner_pid: lease.owner_pid, why: next.why }
    }
}

impl ProbeShown {
    fn new(PortProbe { observation, ready }: PortProbe) -> Self {
        let holder = observation.holder().cloned();
        let (ready, ready_detail) = match ready {
            Some(Ok(Readiness { ready, detail })) => (Some(ready), Some(detail)),
            Some(Err(why)) => (None, Some(why)),
            None => (None, None),
        };
        let (pid, command) = holder.map(|holder| (holder.pid, holder.command)).unzip();
        let (verdict, detail) = (observation.verdict.name(), observation.detail);
        Self { verdict, detail, ready, ready_detail, pid, command }
    }
}

/// A few aligned lines for a person.
fn as_text(shown: &Shown) -> String {
    let rows = [
        ("supervisor", Some(supervisor_text(shown))),
        ("gateway", Some(gateway_text(shown))),
        ("lease", Some(lease_text(&shown.lease, &shown.place()))),
        ("probe", shown.probe.as_ref().map(|probe| probe_text(probe, &shown.supervisor.url))),
        ("restarts", Some(restarts_text(&shown.restarts))),
        ("output", shown.supervisor.output.clone()),
        ("next", next_text(shown)),
    ];
    let standbys = shown.standbys.iter().map(|standby| ("standby", Some(standby_text(standby))));
    let lines: Vec<String> = rows
        .into_iter()
        .chain(standbys)
        .filter_map(|(label, text)| Some(format!("{label:<11} {}", text?.replace(|c: char| c.is_control(), " "))))
        .collect();
    lines.join("\n")
}

fn time(ms: Option<u64>) -> Option<String> {
    ms.map(|ms| human(Duration::from_millis(ms)))
}

fn mebibytes(kb: Option<u64>) -> Option<String> {
    kb.map(|kb| format!("{} MiB", kb.div_ceil(1024)))
}

/// The known parts as one phrase.
fn phrase(parts: impl IntoIterator<Item = Option<String>>) -> String {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(", ")
}

/// `before`, the value and `after`, or nothing.
fn around<T: Display>(before: &str, value: Option<T>, after: &str) -> String {
    value.map(|value| format!("{before}{value}{after}")).unwrap_or_default()
}

fn supervisor_text(shown: &Shown) -> String {
    let SupervisorReply { pid, version, state, since, manager, .. } = &shown.supervisor;
    let trouble = around(": ", shown.trouble.as_ref(), "");
    let place = shown.place();
    if shown.answered_by == "supervisor" {
        let about = phrase([
            pid.map(|pid| format!("pid {pid}{place}")),
            version.as_ref().map(|version| format!("version {version}")),
            manager.as_ref().filter(|manager| *manager != "unknown").map(|manager| format!("run by {manager}")),
            since.as_ref().map(|since| format!("since {since}")),
        ]);
        return format!("{}: {about}", state.replace('_', " "));
    }
    if let Some(Elsewhere { heartbeat_age_ms, .. }) = &shown.elsewhere {
        let about = phrase([
            pid.map(|pid| format!("pid {pid}{place}")),
            since.as_ref().map(|since| format!("since {since}")),
            time(*heartbeat_age_ms).map(|age| format!("last heartbeat {age} ago")),
        ]);
        return format!("{state}: {about}{trouble}");
    }
    if state != "none" {
        return format!("{state}{}{trouble}", around(" (pid ", *pid, ")"));
    }
    let last = shown.last.supervisor.as_ref().map(|LastSupervisor { pid, host, end, ended_at_ms, .. }| {
        let end = end.as_deref().unwrap_or("how the last one ended is not known");
        let ago = ended_at_ms.and_then(|at| u64::try_from(clock::wall_ms().saturating_sub(at)).ok());
        let ago = around(", ", time(ago), " ago");
        format!("{end}{ago}{}", around(" (pid ", *pid, &format!("{})", around(" on ", host.as_ref(), ""))))
    });
    format!("not running{}{trouble}", around(": ", last, ""))
}

fn gateway_text(shown: &Shown) -> String {
    let Some(gateway) = &shown.gateway else {
        let last = shown.last.gateway.as_ref().map(|LastGateway { pid, generation, end, ended_at }| {
            let end = end.as_deref().unwrap_or("with an unknown status");
            format!(
                "gateway {generation}{} ended {end}{}",
                around(" (pid ", *pid, ")"),
                around(" at ", ended_at.as_ref(), "")
            )
        });
        return format!("not running{}", around("; ", last, ""));
    };
    let healthy = gateway.healthy.map(|healthy| if healthy { "healthy" } else { "not healthy" });
    let is_unseen = shown.answered_by != "supervisor" && !shown.is_in_view;
    phrase([
        Some(format!("{}{}", gateway.generation, around(": pid ", gateway.pid, &shown.place()))),
        is_unseen.then(|| "cannot be seen from here, no end on record".to_owned()),
        time(gateway.age_ms).map(|age| format!("{age} old")),
        time(gateway.up_ms).map(|up| format!("up for {up}")),
        healthy.map(str::to_owned),
        gateway.adopted.filter(|adopted| *adopted).map(|_| "adopted".to_owned()),
        mebibytes(gateway.rss_kb).map(|size| format!("{size} resident")),
        mebibytes(gateway.tree_rss_kb).map(|size| format!("{size} with its children")),
        time(gateway.loop_cpu_ms).map(|cpu| format!("{cpu} of CPU")),
    ])
}

fn lease_text(lease: &LeaseReply, place: &str) -> String {
    let epoch = lease.epoch.map(|epoch| format!("epoch {epoch}"));
    match lease.held {
        Some(true) => phrase([Some(format!("held{}", around(" by pid ", lease.owner_pid, place))), epoch]),
        Some(false) => phrase([Some("free".to_owned()), epoch.map(|epoch| format!("last {epoch}"))]),
        None if lease.owner_pid.is_some() => {
            phrase([Some(format!("taken{} and not released", around(" by pid ", lease.owner_pid, place))), epoch])
        }
        None => "unknown".to_owned(),
    }
}

fn standby_text(standby: &StandbyShown) -> String {
    let StandbyShown { pid, host, state, since, manager, why, .. } = standby;
    let about = phrase([
        pid.map(|pid| format!("pid {pid}{}", around(" on ", host.as_ref(), ""))),
        (state != "standby").then(|| state.clone()),
        manager.as_ref().filter(|manager| *manager != "unknown").map(|manager| format!("run by {manager}")),
        since.as_ref().map(|since| format!("since {since}")),
    ]);
    format!("{about}{}", around(": ", why.as_ref(), ""))
}

fn probe_text(probe: &ProbeShown, url: &str) -> String {
    let ProbeShown { verdict, detail, ready, ready_detail, pid, command } = probe;
    let holder = pid.map(|pid| format!(" (pid {pid}, {})", command.as_deref().unwrap_or("unknown")));
    let ready = match ready {
        Some(true) => "; ready".to_owned(),
        Some(false) => around("; ", ready_detail.as_ref(), ""),
        None => String::new(),
    };
    format!("{verdict} at {url}: {detail}{}{ready}", holder.unwrap_or_default())
}

fn restarts_text(restarts: &RestartsReply) -> String {
    let RestartsReply { in_window: Some(count), max: Some(max), window_ms, for_memory } = restarts else {
        return "unknown".to_owned();
    };
    let for_memory = for_memory.filter(|count| *count > 0);
    format!(
        "{count} of {max}{}{}",
        around(" in the last ", time(*window_ms), ""),
        around("; ", for_memory, " for --memory-max")
    )
}

/// `None` while all is well: then the next step is one more probe.
fn next_text(shown: &Shown) -> Option<String> {
    let NextReply { action, at, in_ms, why } = &shown.next;
    let Some(action) = action else {
        let none = shown.supervisor.state == "none";
        let text = if none {
            "nothing will start it; run openclaw-supervise, or start its service"
        } else {
            "unknown: only the supervisor knows"
        };
        return Some(text.to_owned());
    };
    let gateway = shown.gateway.as_ref().filter(|_| shown.supervisor.state == "running");
    let is_well = shown.health == Health::Healthy && gateway.is_some_and(|gateway| gateway.healthy == Some(true));
    let why = why.as_ref().filter(|why| !why.is_empty());
    let text = format!(
        "{action}{}{}{}",
        around(" in ", time(*in_ms), ""),
        around(" (at ", at.as_ref(), ")"),
        around(": ", why, "")
    );
    (!is_well).then_some(text)
}
