//! `status`: the truth about supervisor and gateway now. The supervisor is asked, the port is looked at in any case,
//! and where nobody answers the store tells what was.

use super::record::{Gateway, Owner, Record};
use crate::core::lease::Life;
use crate::core::report::human;
use crate::core::{Observation, Phase, Readiness, Verdict, exit};
use crate::gateway::endpoint::Endpoint;
use crate::gateway::probe::{Look, Prober};
use crate::host::clock;
use crate::host::control::{Connection, ConnectionError};
use crate::settings::StatusSettings;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;

/// No gateway runs: 3 and 4 are the status codes of LSB for a service that does not run, and one whose state is unclear.
const NOT_RUNNING: u8 = 3;
const NOT_HEALTHY: u8 = 4;

/// How the gateway is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Health {
    Healthy,
    Unhealthy,
    Unknown,
    NotRunning,
}

impl Health {
    fn name(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Unknown => "unknown",
            Self::NotRunning => "not_running",
        }
    }

    fn exit_code(self) -> u8 {
        match self {
            Self::Healthy => exit::OK,
            Self::Unhealthy | Self::Unknown => NOT_HEALTHY,
            Self::NotRunning => NOT_RUNNING,
        }
    }
}

/// What one look at the port brought.
struct Finding {
    sighting: Observation,
    /// What `/readyz` says, where a gateway answers, or why that is not known.
    ready: Option<Result<Readiness, String>>,
}

/// Looks, asks, writes the answer and returns the exit code.
pub async fn run(settings: &StatusSettings, out: &mut impl io::Write) -> io::Result<u8> {
    let mut status = match Connection::ask(&settings.subject.store_dir, "status").await {
        Ok((_, status)) => of_supervisor(settings, status),
        Err(error) => of_record(settings, &error),
    };
    // Whoever supervises knows the port of the gateway's command, which stands in no file.
    let endpoint = status["supervisor"]["url"].as_str().and_then(|url| settings.endpoint.at(url));
    let prober = Prober::new(endpoint.unwrap_or_else(|| settings.endpoint.clone()), settings.probe_timeout);
    let finding = look(&prober).await;
    let health = judge(finding.sighting.verdict, !status["gateway"].is_null());
    status["probe"] = probe_to_json(&finding);
    status["health"] = health.name().into();
    let text = if settings.json { status.to_string() } else { as_text(&status) };
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // A reader that has gone away still learns it from the exit code.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(health.exit_code()),
    }
}

async fn look(prober: &Prober) -> Finding {
    let sighting = prober.look(Look::AnswersAndOwner { leader: None }).await;
    let answers = matches!(sighting.verdict, Verdict::Gateway(_) | Verdict::Draining);
    let ready = if answers { Some(prober.ready().await) } else { None };
    Finding { sighting, ready }
}

/// `gateway`: whether a process of ours is known to be there.
fn judge(verdict: Verdict, gateway: bool) -> Health {
    match verdict {
        Verdict::Gateway(Phase::Started | Phase::Unknown) => Health::Healthy,
        Verdict::Gateway(Phase::Starting) | Verdict::Draining | Verdict::Booting | Verdict::Silent => Health::Unhealthy,
        Verdict::Inconclusive => Health::Unknown,
        // Nobody listens, or somebody who is no gateway.
        Verdict::Free | Verdict::Foreign if gateway => Health::Unhealthy,
        Verdict::Free | Verdict::Foreign => Health::NotRunning,
    }
}

fn of_supervisor(settings: &StatusSettings, mut status: Value) -> Value {
    let mut last = None;
    if status["gateway"].is_null() {
        // What went before the present wait; a store that cannot be read is the supervisor's to tell of.
        let record = Record::open(&settings.subject.store_dir).ok().flatten();
        last = record.and_then(|record| record.gateway()).filter(|gateway| !gateway.alive);
    }
    status["answered_by"] = "supervisor".into();
    status["trouble"] = Value::Null;
    status["last"] = json!({ "supervisor": null, "gateway": last.as_ref().map(past_gateway_to_json) });
    status
}

/// What the store tells where no supervisor answers, for `error` says why.
fn of_record(settings: &StatusSettings, error: &ConnectionError) -> Value {
    let subject = &settings.subject;
    let (record, unreadable) = match Record::open(&subject.store_dir) {
        Ok(record) => (record, None),
        Err(why) => (None, Some(why)),
    };
    let owner = record.as_ref().and_then(Record::owner);
    let gateway = record.as_ref().and_then(Record::gateway);
    let holds = owner.as_ref().is_some_and(|owner| !owner.released && owner.life == Life::Alive);
    let owner_pid = owner.as_ref().and_then(|owner| owner.pid);
    let endpoint = owner.as_ref().and_then(|owner| place_of(owner, &settings.endpoint));
    let endpoint = endpoint.unwrap_or_else(|| settings.endpoint.clone());
    let (state, pid, trouble) = match error {
        ConnectionError::Absent if holds => {
            ("unreachable", owner_pid, Some("it has no control socket; its log says why".to_owned()))
        }
        ConnectionError::Absent => ("none", None, None),
        ConnectionError::Silent { pid } => ("silent", pid.or(owner_pid), Some(error.to_string())),
        ConnectionError::Forbidden | ConnectionError::Refused(_) | ConnectionError::Broken(_) => {
            ("unreachable", owner_pid.filter(|_| holds), Some(error.to_string()))
        }
    };
    json!({
        "supervisor": {
            "pid": pid,
            "version": null,
            "state": state,
            "since": owner.as_ref().filter(|_| holds).and_then(|owner| owner.since).map(clock::stamp_of),
            "manager": null,
            "config": subject.config_path.to_string_lossy(),
            "store_dir": subject.store_dir.to_string_lossy(),
            "url": endpoint.to_string(),
            "port": endpoint.port,
            "stop_timeout_ms": null,
        },
        "gateway": gateway.as_ref().filter(|gateway| gateway.alive).map(living_to_json),
        "lease": {
            "held": record.as_ref().map(|_| holds),
            "epoch": owner.as_ref().map(|owner| owner.epoch),
            "owner_pid": owner_pid.filter(|_| holds),
        },
        "probe": null,
        "generation": gateway.as_ref().map(|gateway| gateway.generation),
        "restarts": { "in_window": null, "max": null, "window_ms": null, "for_memory": null },
        "next": { "action": null, "at": null, "in_ms": null, "why": null },
        "answered_by": if record.is_some() { "store" } else { "nobody" },
        "trouble": trouble.or(unreadable),
        "last": {
            "supervisor": owner.as_ref().filter(|_| !holds).map(past_owner_to_json),
            "gateway": gateway.as_ref().filter(|gateway| !gateway.alive).map(past_gateway_to_json),
        },
    })
}

/// Where the gateway of that owner listens. What is not on record is as it is with our own.
fn place_of(owner: &Owner, known: &Endpoint) -> Option<Endpoint> {
    let (host, port) = owner.place.clone()?;
    known.at(&Endpoint { host, port, ..known.clone() }.to_string())
}

fn living_to_json(gateway: &Gateway) -> Value {
    json!({
        "pid": gateway.pid,
        "generation": gateway.generation,
        "age_ms": gateway.age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
        "up_ms": null,
        "healthy": null,
        "adopted": null,
        "rss_kb": null,
        "tree_rss_kb": null,
        "loop_cpu_ms": null,
    })
}

fn past_owner_to_json(owner: &Owner) -> Value {
    let end = match owner.life {
        _ if owner.released => Some("it gave its lease back"),
        Life::Gone(why) => Some(why),
        Life::Alive | Life::Unknown => None,
    };
    json!({ "pid": owner.pid, "host": owner.host, "since": owner.since.map(clock::stamp_of), "end": end })
}

fn past_gateway_to_json(gateway: &Gateway) -> Value {
    json!({
        "pid": gateway.pid,
        "generation": gateway.generation,
        "end": gateway.end,
        "ended_at": gateway.ended_at.map(clock::stamp_of),
    })
}

fn probe_to_json(finding: &Finding) -> Value {
    let Finding { sighting, ready } = finding;
    let holder = sighting.holder();
    let (ready, ready_detail) = match ready {
        Some(Ok(Readiness { ready, detail })) => (Some(ready), Some(detail)),
        Some(Err(why)) => (None, Some(why)),
        None => (None, None),
    };
    json!({
        "verdict": sighting.verdict.name(),
        "detail": sighting.detail,
        "ready": ready,
        "ready_detail": ready_detail,
        "pid": holder.map(|holder| holder.pid),
        "command": holder.map(|holder| holder.command.as_str()),
    })
}

/// A few aligned lines for a person.
fn as_text(status: &Value) -> String {
    let rows = [
        ("supervisor", supervisor_text(status)),
        ("gateway", gateway_text(status)),
        ("lease", lease_text(&status["lease"])),
        ("probe", probe_text(status)),
        ("restarts", restarts_text(&status["restarts"])),
        ("next", next_text(status)),
    ];
    let lines: Vec<String> = rows
        .into_iter()
        .map(|(label, text)| format!("{label:<11} {}", text.replace(|c: char| c.is_control(), " ")))
        .collect();
    lines.join("\n")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("unknown")
}

/// The value in words, if it is known.
fn known(value: &Value) -> Option<String> {
    match value {
        Value::Null => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn time(value: &Value) -> Option<String> {
    value.as_u64().map(|ms| human(Duration::from_millis(ms)))
}

fn mebibytes(value: &Value) -> Option<String> {
    value.as_u64().map(|kb| format!("{} MiB", kb.div_ceil(1024)))
}

/// The parts that are known, as one phrase.
fn phrase(parts: impl IntoIterator<Item = Option<String>>) -> String {
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    parts.join(", ")
}

fn supervisor_text(status: &Value) -> String {
    let (supervisor, last) = (&status["supervisor"], &status["last"]["supervisor"]);
    let trouble = known(&status["trouble"]).map(|trouble| format!(": {trouble}")).unwrap_or_default();
    if status["answered_by"] != "supervisor" && supervisor["state"] != "none" {
        let pid = known(&supervisor["pid"]).map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        return format!("{}{pid}{trouble}", text(&supervisor["state"]));
    }
    if status["answered_by"] != "supervisor" {
        let last = known(&last["pid"]).map(|pid| {
            let host = known(&last["host"]).map(|host| format!(" on {host}")).unwrap_or_default();
            let end = known(&last["end"]).map(|end| format!(": {end}")).unwrap_or_default();
            format!("; the last one was pid {pid}{host}{end}")
        });
        return format!("none runs{}{trouble}", last.unwrap_or_default());
    }
    let about = phrase([
        known(&supervisor["pid"]).map(|pid| format!("pid {pid}")),
        known(&supervisor["version"]).map(|version| format!("version {version}")),
        known(&supervisor["manager"]).filter(|manager| manager != "unknown").map(|manager| format!("run by {manager}")),
        known(&supervisor["since"]).map(|since| format!("since {since}")),
    ]);
    format!("{}: {about}", text(&supervisor["state"]).replace('_', " "))
}

fn gateway_text(status: &Value) -> String {
    let (gateway, last) = (&status["gateway"], &status["last"]["gateway"]);
    if gateway.is_null() {
        let last = known(&last["generation"]).map(|number| {
            let pid = known(&last["pid"]).map(|pid| format!(" (pid {pid})")).unwrap_or_default();
            let at = known(&last["ended_at"]).map(|at| format!(" at {at}")).unwrap_or_default();
            let end = known(&last["end"]).unwrap_or_else(|| "with an unknown status".to_owned());
            format!("; gateway {number}{pid} ended {end}{at}")
        });
        return format!("none of ours{}", last.unwrap_or_default());
    }
    phrase([
        Some(format!("{}: pid {}", gateway["generation"], gateway["pid"])),
        time(&gateway["age_ms"]).map(|age| format!("{age} old")),
        time(&gateway["up_ms"]).map(|up| format!("up for {up}")),
        gateway["healthy"].as_bool().map(|healthy| if healthy { "healthy" } else { "not healthy" }.to_owned()),
        (gateway["adopted"] == true).then(|| "adopted".to_owned()),
        mebibytes(&gateway["rss_kb"]).map(|size| format!("{size} resident")),
        mebibytes(&gateway["tree_rss_kb"]).map(|size| format!("{size} with its children")),
        time(&gateway["loop_cpu_ms"]).map(|cpu| format!("{cpu} of CPU")),
    ])
}

fn lease_text(lease: &Value) -> String {
    let epoch = known(&lease["epoch"]).map(|epoch| format!("epoch {epoch}"));
    match lease["held"].as_bool() {
        Some(true) => {
            phrase([Some("held".to_owned()), known(&lease["owner_pid"]).map(|pid| format!("by pid {pid}")), epoch])
                .replacen("held, by", "held by", 1)
        }
        Some(false) => phrase([Some("free".to_owned()), epoch.map(|epoch| format!("last {epoch}"))]),
        None => "unknown".to_owned(),
    }
}

fn probe_text(status: &Value) -> String {
    let (probe, url) = (&status["probe"], text(&status["supervisor"]["url"]));
    let holder = known(&probe["pid"]).map(|pid| format!(" (pid {pid}, {})", text(&probe["command"])));
    let ready = match probe["ready"].as_bool() {
        Some(true) => "; ready".to_owned(),
        Some(false) => format!("; {}", text(&probe["ready_detail"])),
        None => String::new(),
    };
    format!("{} at {url}: {}{}{ready}", text(&probe["verdict"]), text(&probe["detail"]), holder.unwrap_or_default())
}

fn restarts_text(restarts: &Value) -> String {
    match (known(&restarts["in_window"]), known(&restarts["max"]), time(&restarts["window_ms"])) {
        (Some(count), Some(max), Some(window)) => {
            let for_memory = known(&restarts["for_memory"]).filter(|count| count != "0");
            let for_memory = for_memory.map(|count| format!("; {count} for --memory-max")).unwrap_or_default();
            format!("{count} of {max} in the last {window}{for_memory}")
        }
        _ => "unknown".to_owned(),
    }
}

fn next_text(status: &Value) -> String {
    let next = &status["next"];
    let Some(action) = known(&next["action"]) else {
        let none = status["supervisor"]["state"] == "none";
        return if none { "nothing: no supervisor" } else { "unknown: only the supervisor could tell" }.to_owned();
    };
    let within = time(&next["in_ms"]).map(|within| format!(" in {within}")).unwrap_or_default();
    let at = known(&next["at"]).map(|at| format!(" (at {at})")).unwrap_or_default();
    let why = known(&next["why"]).filter(|why| !why.is_empty()).map(|why| format!(": {why}")).unwrap_or_default();
    format!("{action}{within}{at}{why}")
}
