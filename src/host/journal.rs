//! What went into the core and what came out, so that a life can be replayed.
//!
//! At `--log-level debug` the event log holds one `core.begun` with every setting of the core and one `core.step` for
//! each step: the time, the event as JSON, and the effects as the core names them. The core is deterministic, so
//! feeding it the same events gives the same effects (promise P10); where it does not, the log is of another version.

mod handoff;
mod health;
mod lease;
mod remains;

use crate::core::event::{Event, ExitStatus, Request, Requester, SpawnFailure};
use crate::core::policy::OnConflict;
use crate::core::supervisor::Effects;
use crate::core::{Effect, Fingerprint, Holder, Moment, Observation, Owner, Phase, Policy, Supervisor, Verdict};
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Writes the settings that the core begins with to the log.
pub fn begin(policy: &Policy) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        let record = policy_to_json(policy).to_string();
        tracing::debug!(event = "core.begun", record, "{policy:?}");
    }
}

/// Writes one step to the log.
pub fn note(now: Moment, event: &Event, effects: &[Effect]) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        let record = json!({ "now_ns": nanoseconds(now), "input": event_to_json(event), "effects": names(effects) });
        tracing::debug!(event = "core.step", record = record.to_string(), "{event:?} -> {effects:?}");
    }
}

/// Why a log cannot be replayed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// There is no `core.begun` before the first step.
    #[error("the log does not tell how the core began; record it with --log-level debug from the start")]
    NoBeginning,
    /// A line does not say what such a line says.
    #[error("line {0} of the log cannot be read; it was cut, or written by another version")]
    Unreadable(usize),
    /// The core decides differently now.
    #[error(
        "line {line} of the log diverges: it tells {told}, the core says {said}; it was written by another version"
    )]
    Diverged {
        /// The line, from 1.
        line: usize,
        /// The effects in the log.
        told: String,
        /// The effects of the replay.
        said: String,
    },
}

/// Feeds a log through the core again and says how many steps it took. Lines about anything else are passed over.
pub fn replay<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<usize, ReplayError> {
    let mut core = None;
    let mut steps = 0;
    for (line, text) in (1..).zip(lines) {
        let Ok(entry) = serde_json::from_str::<Map<String, Value>>(text) else { continue };
        match entry.get("event").and_then(Value::as_str) {
            Some("core.begun") => {
                let policy = policy_from_json(&entry).ok_or(ReplayError::Unreadable(line))?;
                core = Some(Supervisor::new(policy));
            }
            Some("core.step") => {
                let core = core.as_mut().ok_or(ReplayError::NoBeginning)?;
                let (now, event, told) = step_from_json(&entry).ok_or(ReplayError::Unreadable(line))?;
                let mut effects = Effects::new();
                core.step(now, event, &mut effects);
                let said = json!(names(&effects));
                if told != said {
                    return Err(ReplayError::Diverged { line, told: told.to_string(), said: said.to_string() });
                }
                steps += 1;
            }
            _ => {}
        }
    }
    Ok(steps)
}

fn step_from_json(entry: &Map<String, Value>) -> Option<(Moment, Event, Value)> {
    let now = Duration::from_nanos(entry.get("now_ns")?.as_u64()?);
    Some((now, event_from_json(entry.get("input")?)?, entry.get("effects")?.clone()))
}

fn names(effects: &[Effect]) -> Vec<String> {
    effects.iter().map(|effect| format!("{effect:?}")).collect()
}

/// Exact for 584 years; a longer one is as good as endless.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

macro_rules! policy_json {
    (durations: $($duration:ident),+; counts: $($count:ident),+) => {
        fn policy_to_json(policy: &Policy) -> Value {
            json!({
                $(stringify!($duration): nanoseconds(policy.$duration),)+
                $(stringify!($count): policy.$count,)+
                "memory_max_kb": policy.memory_max_kb,
                "repair": policy.repair.map(nanoseconds),
                "handoff": policy.handoff,
                "pre_start": policy.pre_start.map(nanoseconds),
                "post_stop": policy.post_stop.map(nanoseconds),
                "url": policy.url,
                "messages": policy.messages,
                "attended": policy.attended,
                "standby": policy.on_conflict == OnConflict::Standby,
            })
        }

        fn policy_from_json(entry: &Map<String, Value>) -> Option<Policy> {
            let hook = |name: &str| match entry.get(name)? {
                Value::Null => Some(None),
                nanoseconds => nanoseconds.as_u64().map(|ns| Some(Duration::from_nanos(ns))),
            };
            Some(Policy {
                memory_max_kb: entry.get("memory_max_kb")?.as_u64(),
                repair: hook("repair")?,
                handoff: entry.get("handoff")?.as_bool()?,
                pre_start: hook("pre_start")?,
                post_stop: hook("post_stop")?,
                $($duration: Duration::from_nanos(entry.get(stringify!($duration))?.as_u64()?),)+
                $($count: entry.get(stringify!($count))?.as_u64()?.try_into().ok()?,)+
                url: entry.get("url")?.as_str()?.to_owned(),
                messages: entry.get("messages")?.as_str()?.to_owned(),
                attended: entry.get("attended")?.as_bool()?,
                on_conflict: match entry.get("standby")?.as_bool()? {
                    true => OnConflict::Standby,
                    false => OnConflict::Exit,
                },
                ..Policy::default()
            })
        }
    };
}

policy_json! {
    durations: startup_timeout, probe_interval, probe_timeout, hang_after, stop_timeout, hung_stop_timeout,
        restart_window, backoff_max, stable_after, boot_window, conflict_timeout;
    counts: max_restarts, boot_limit, conflict_exit_code, seed
}

fn event_to_json(event: &Event) -> Value {
    match event {
        Event::Start => json!({ "is": "start" }),
        Event::Tick => json!({ "is": "tick" }),
        Event::Probed { ticket, sighting } => json!({
            "is": "probed",
            "ticket": ticket,
            "verdict": verdict_name(sighting.verdict),
            "owner": owner_to_json(&sighting.owner),
            "detail": sighting.detail,
            "readiness": health::readiness_to_json(sighting.readiness.as_ref()),
        }),
        Event::Leased { .. } | Event::LeaseLost { .. } | Event::Adopted { .. } | Event::Departed { .. } => {
            lease::to_json(event).unwrap_or_default()
        }
        Event::Spawned { generation, pid, fingerprint } => {
            let Fingerprint { config, program } = fingerprint;
            json!({ "is": "spawned", "generation": generation, "pid": pid, "config": config, "program": program })
        }
        Event::SpawnFailed { generation, failure } => {
            let (fault, why) = match failure {
                SpawnFailure::Program(why) => ("program", why),
                SpawnFailure::Resources(why) => ("resources", why),
                SpawnFailure::Updating(why) => ("updating", why),
            };
            json!({ "is": "spawn_failed", "generation": generation, "fault": fault, "why": why })
        }
        Event::LeaderExited { generation, death, toll } => json!({
            "is": "leader_exited",
            "generation": generation,
            "death": death_to_json(*death),
            "toll": health::toll_to_json(*toll),
        }),
        Event::TreeGone { .. } | Event::StraysKilled { .. } | Event::HookEnded { .. } => {
            remains::to_json(event).unwrap_or_default()
        }
        Event::Negotiated { .. } | Event::Consumed { .. } | Event::StopBudget { .. } => {
            handoff::to_json(event).unwrap_or_default()
        }
        Event::Measured { .. } | Event::Examined { .. } => health::to_json(event).unwrap_or_default(),
        Event::Requested { request, by } => json!({
            "is": "requested",
            "request": request_name(*request),
            "how": by.how,
            "pid": by.pid,
            "uid": by.uid,
            "command": by.command,
        }),
        Event::ClockJumped { by } => json!({ "is": "clock_jumped", "by_ns": nanoseconds(*by) }),
    }
}

fn event_from_json(value: &Value) -> Option<Event> {
    let number = |name: &str| value.get(name)?.as_u64();
    let word = |name: &str| value.get(name)?.as_str();
    let text = |name: &str| word(name).map(str::to_owned);
    let count = |name: &str| u32::try_from(number(name)?).ok();
    let generation = || number("generation");
    Some(match word("is")? {
        "start" => Event::Start,
        "tick" => Event::Tick,
        "probed" => {
            let owner = owner_from_json(value.get("owner")?)?;
            let readiness = value.get("readiness").and_then(health::readiness_from_json);
            let verdict = verdict_from_name(word("verdict")?)?;
            let sighting = Observation { verdict, owner, detail: text("detail")?, readiness };
            Event::Probed { ticket: number("ticket")?, sighting }
        }
        "spawned" => {
            let fingerprint = Fingerprint { config: number("config")?, program: number("program")? };
            Event::Spawned { generation: generation()?, pid: pid(value)?, fingerprint }
        }
        "spawn_failed" => {
            let why = text("why")?;
            let failure = match word("fault")? {
                "program" => SpawnFailure::Program(why),
                "resources" => SpawnFailure::Resources(why),
                "updating" => SpawnFailure::Updating(why),
                _ => return None,
            };
            Event::SpawnFailed { generation: generation()?, failure }
        }
        "leader_exited" => {
            let death = death_from_json(value.get("death")?)?;
            let toll = health::toll_from_json(value.get("toll")?)?;
            Event::LeaderExited { generation: generation()?, death, toll }
        }
        "requested" => {
            let by = Requester { how: text("how")?, pid: pid(value), uid: count("uid"), command: text("command") };
            Event::Requested { request: request_from_name(word("request")?)?, by }
        }
        "clock_jumped" => Event::ClockJumped { by: Duration::from_nanos(number("by_ns")?) },
        _ => {
            return lease::from_json(value)
                .or_else(|| remains::from_json(value))
                .or_else(|| health::from_json(value))
                .or_else(|| handoff::from_json(value));
        }
    })
}

fn pid(value: &Value) -> Option<i32> {
    i32::try_from(value.get("pid")?.as_i64()?).ok()
}

/// A table of names, for both ways.
const VERDICTS: [(Verdict, &str); 9] = [
    (Verdict::Free, "free"),
    (Verdict::Booting, "booting"),
    (Verdict::Gateway(Phase::Starting), "gateway starting"),
    (Verdict::Gateway(Phase::Started), "gateway started"),
    (Verdict::Gateway(Phase::Unknown), "gateway"),
    (Verdict::Draining, "draining"),
    (Verdict::Silent, "silent"),
    (Verdict::Foreign, "foreign"),
    (Verdict::Inconclusive, "inconclusive"),
];

const REQUESTS: [(Request, &str); 4] =
    [(Request::Stop, "stop"), (Request::Restart, "restart"), (Request::Detach, "detach"), (Request::Retry, "retry")];

fn verdict_name(verdict: Verdict) -> Option<&'static str> {
    VERDICTS.iter().find(|(known, _)| *known == verdict).map(|(_, name)| *name)
}

fn verdict_from_name(name: &str) -> Option<Verdict> {
    VERDICTS.iter().find(|(_, known)| *known == name).map(|(verdict, _)| *verdict)
}

fn request_name(request: Request) -> Option<&'static str> {
    REQUESTS.iter().find(|(known, _)| *known == request).map(|(_, name)| *name)
}

fn request_from_name(name: &str) -> Option<Request> {
    REQUESTS.iter().find(|(_, known)| *known == name).map(|(request, _)| *request)
}

fn owner_to_json(owner: &Owner) -> Value {
    let (whose, holder) = match owner {
        Owner::Unseen => return Value::Null,
        Owner::Ours(holder) => ("ours", holder),
        Owner::Other(holder) => ("other", holder),
    };
    let mut value = holder_to_json(holder);
    value["whose"] = whose.into();
    value
}

fn holder_to_json(holder: &Holder) -> Value {
    json!({ "pid": holder.pid, "command": holder.command, "uid": holder.uid })
}

fn holder_from_json(value: &Value) -> Option<Holder> {
    Some(Holder {
        pid: pid(value)?,
        command: value.get("command")?.as_str()?.to_owned(),
        uid: value.get("uid")?.as_u64().and_then(|uid| u32::try_from(uid).ok()),
    })
}

fn owner_from_json(value: &Value) -> Option<Owner> {
    if value.is_null() {
        return Some(Owner::Unseen);
    }
    let holder = holder_from_json(value)?;
    match value.get("whose")?.as_str()? {
        "ours" => Some(Owner::Ours(holder)),
        "other" => Some(Owner::Other(holder)),
        _ => None,
    }
}

fn death_to_json(death: ExitStatus) -> Value {
    match death {
        ExitStatus::Code(code) => json!({ "code": code }),
        ExitStatus::Signal { number, core_dumped } => json!({ "signal": number, "core_dumped": core_dumped }),
        ExitStatus::Unknown => Value::Null,
    }
}

fn death_from_json(value: &Value) -> Option<ExitStatus> {
    let number = |name: &str| i32::try_from(value.get(name)?.as_i64()?).ok();
    if value.is_null() {
        return Some(ExitStatus::Unknown);
    }
    match (number("code"), number("signal")) {
        (Some(code), None) => Some(ExitStatus::Code(code)),
        (None, Some(number)) => Some(ExitStatus::Signal { number, core_dumped: value.get("core_dumped")?.as_bool()? }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::{ExitUsage, Readiness};
    use crate::core::{HookEnd, Layer, TreeEnd};

    fn by() -> Requester {
        Requester { how: "SIGTERM".to_owned(), pid: Some(7), uid: None, command: Some("kill \"x\"\n".to_owned()) }
    }

    fn holder() -> Holder {
        Holder { pid: 9, command: "node".to_owned(), uid: Some(1000) }
    }

    /// At least one of every kind of event, and of everything that one may hold.
    fn all_events() -> Vec<Event> {
        let mut all = vec![
            Event::Start,
            Event::Tick,
            Event::Spawned { generation: 1, pid: 42, fingerprint: Fingerprint { config: u64::MAX, program: 1 } },
            Event::SpawnFailed { generation: 2, failure: SpawnFailure::Program("gone".to_owned()) },
            Event::SpawnFailed { generation: 2, failure: SpawnFailure::Resources("full".to_owned()) },
            Event::ClockJumped { by: Duration::from_nanos(u64::MAX) },
        ];
        for death in [ExitStatus::Code(-1), ExitStatus::Signal { number: 11, core_dumped: true }, ExitStatus::Unknown] {
            let toll = ExitUsage { max_rss_kb: Some(1), cpu: Some(Duration::from_secs(2)), oom_killed: true };
            all.push(Event::LeaderExited { generation: 3, death, toll });
            all.push(Event::LeaderExited { generation: 3, death, toll: ExitUsage::default() });
        }
        for (request, _) in REQUESTS {
            all.push(Event::Requested { request, by: by() });
        }
        for (verdict, _) in VERDICTS {
            for owner in [Owner::Unseen, Owner::Ours(holder()), Owner::Other(holder())] {
                let sighting = Observation { verdict, owner, detail: "d".to_owned(), readiness: None };
                all.push(Event::Probed { ticket: u64::MAX, sighting: sighting.clone() });
                let readiness = Some(Readiness { ready: false, detail: "telegram".to_owned() });
                all.push(Event::Probed { ticket: 1, sighting: Observation { readiness, ..sighting } });
            }
        }
        let commands = vec!["1 a".to_owned(), "2 b".to_owned()];
        let (found_by, left) = (vec![(Layer::Group, 1), (Layer::Record, 2)], vec!["8 node".to_owned()]);
        let elapsed = Duration::from_millis(5);
        let end = TreeEnd { members: 3, escaped: 2, survivors: 1, elapsed, commands, found_by, left };
        all.push(Event::StraysKilled { generation: 3, end: end.clone() });
        for end in [
            HookEnd::NotStarted("no".to_owned()),
            HookEnd::Postponed("npm".to_owned()),
            HookEnd::Ended(ExitStatus::Code(3)),
            HookEnd::Ended(ExitStatus::Unknown),
        ] {
            all.push(Event::HookEnded { ticket: 7, end });
        }
        all.push(Event::TreeGone { generation: 4, end });
        all.extend(lease::tests::all_events());
        all.extend(health::tests::all_events());
        all.extend(handoff::tests::all_events());
        all
    }

    #[test]
    fn every_event_comes_back_as_it_was() {
        for event in all_events() {
            let text = event_to_json(&event).to_string();
            let value: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(event_from_json(&value), Some(event), "{text}");
        }
    }

    #[test]
    fn the_settings_come_back_as_they_were() {
        let policy = Policy {
            seed: u64::MAX,
            url: "wss://[::1]:1".to_owned(),
            attended: true,
            on_conflict: OnConflict::Standby,
            memory_max_kb: Some(5),
            ..Policy::default()
        };
        let Value::Object(entry) = policy_to_json(&policy) else { panic!("an object") };
        assert_eq!(policy_from_json(&entry), Some(policy));
    }

    #[test]
    fn a_log_that_cannot_be_replayed_says_why() {
        let begun = |policy: &Policy| {
            let mut entry = policy_to_json(policy);
            entry["event"] = "core.begun".into();
            entry.to_string()
        };
        let step = r#"{"event":"core.step","now_ns":5,"input":{"is":"start"},"effects":["Boom"]}"#;
        assert_eq!(replay([step]), Err(ReplayError::NoBeginning));
        let begun = begun(&Policy::default());
        assert!(matches!(replay([begun.as_str(), step]), Err(ReplayError::Diverged { line: 2, .. })));
        let cut = r#"{"event":"core.step","now_ns":5,"input":{"is":"nonsense"},"effects":[]}"#;
        assert_eq!(replay(["gateway words", begun.as_str(), cut]), Err(ReplayError::Unreadable(3)));
        assert_eq!(replay([begun.as_str(), "{}", r#"{"event":"gateway.started"}"#]), Ok(0));
    }
}
