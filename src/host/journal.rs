//! The input and output of the core, in the event log, so that a run can be replayed.
//!
//! At `--log-level debug` the event log holds one `core.begun` with the core's policy and one `core.step` for each step:
//! the time, the event and the effects. The core is deterministic, so the same events give the same effects (promise
//! P10); a difference means that the log is of another version.

use super::{clock, telemetry};
use crate::core::supervisor::Effects;
use crate::core::{Effect, Event, Moment, Policy, Supervisor};
use serde::{Deserialize, Serialize};
use serde_json::Value;

const BEGUN: &str = "core.begun";
const STEP: &str = "core.step";

/// One step of the core.
#[derive(Debug, Serialize, Deserialize)]
struct Step<E> {
    now: Moment,
    input: E,
    /// As `Debug` prints them: an effect is compared, never rebuilt.
    effects: Vec<String>,
}

/// Logs the policy that the core begins with.
pub fn begin(policy: &Policy) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        tracing::debug!(event = BEGUN, line = line(BEGUN, "the core begins with this policy", policy), "{policy:?}");
    }
}

/// Logs one step.
pub fn note(now: Moment, event: &Event, effects: &[Effect]) {
    if tracing::enabled!(tracing::Level::DEBUG) {
        let step = Step { now, input: event, effects: names(effects) };
        tracing::debug!(event = STEP, line = line(STEP, "one step of the core", &step), "{event:?} -> {effects:?}");
    }
}

/// Without members, which no replay takes for a step, if `value` does not serialise.
fn line(event: &str, message: &str, value: &impl Serialize) -> String {
    let members = serde_json::to_string(value).unwrap_or_default();
    telemetry::line(event, clock::wall_ms(), Some(("debug", message)), &members)
}

fn names(effects: &[Effect]) -> Vec<String> {
    effects.iter().map(|effect| format!("{effect:?}")).collect()
}

/// Why a log cannot be replayed.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// There is no `core.begun` before the first step.
    #[error("the log has no core.begun before its first step; record it with --log-level debug from the start")]
    NoBeginning,
    /// A `core.begun` or `core.step` does not parse.
    #[error("line {line} of the log does not parse: {why}; it was cut, or written by another version")]
    Unreadable {
        /// From 1.
        line: usize,
        /// What serde says.
        why: String,
    },
    /// The core decides differently now.
    #[error(
        "line {line} of the log diverges: it has {logged:?}, the core says {replayed:?}; it was written by another version"
    )]
    Diverged {
        /// From 1.
        line: usize,
        /// The effects in the log.
        logged: Vec<String>,
        /// The effects of the replay.
        replayed: Vec<String>,
    },
}

/// Feeds a log through the core and returns the number of steps. Other lines are skipped.
pub fn replay<'a>(lines: impl IntoIterator<Item = &'a str>) -> Result<usize, ReplayError> {
    let mut core = None;
    let mut steps = 0;
    for (line, text) in (1..).zip(lines) {
        let unreadable = |error: serde_json::Error| ReplayError::Unreadable { line, why: error.to_string() };
        let Ok(entry) = serde_json::from_str::<Value>(text) else { continue };
        match entry["event"].as_str() {
            Some(BEGUN) => core = Some(Supervisor::new(Policy::deserialize(entry).map_err(unreadable)?)),
            Some(STEP) => {
                let core = core.as_mut().ok_or(ReplayError::NoBeginning)?;
                let Step::<Event> { now, input, effects: logged } = Step::deserialize(entry).map_err(unreadable)?;
                let mut effects = Effects::new();
                core.step(now, input, &mut effects);
                let replayed = names(&effects);
                if logged != replayed {
                    return Err(ReplayError::Diverged { line, logged, replayed });
                }
                steps += 1;
            }
            _ => {}
        }
    }
    Ok(steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::core::history::Unfinished;
    use crate::core::lease::Basis;
    use crate::core::policy::OnConflict;
    use crate::core::{
        Acquired, Endpoint, ExitStatus, ExitUsage, Fingerprint, History, LeaseAnswer, MoveReason, Moved, Observation,
        Owner, Phase, Request, Requester, Verdict,
    };
    use std::time::Duration;

    /// Those with the values that JSON could lose.
    fn events() -> Vec<Event> {
        let by = Requester {
            how: "SIGTERM".to_owned(),
            pid: Some(7),
            uid: None,
            command: Some("kill \"x\"\n".into()),
            inside: None,
        };
        let verdict = Verdict::Gateway(Phase::Starting);
        let moved = Some(Moved { to: Endpoint { tls: true, ..Endpoint::local(1) }, why: MoveReason::Listens });
        let sighting = Observation { verdict, owner: Owner::Unseen, detail: "d".to_owned(), readiness: None, moved };
        let died = Some((ExitStatus::Signal { number: 9, core_dumped: false }, Duration::MAX));
        let left =
            Unfinished { generation: u64::MAX, spawned: Duration::ZERO, started: None, healthy_until: None, died };
        let past = History { generation: 7, runs: Vec::new(), left: Some(left) };
        let acquired = Acquired { epoch: u64::MAX, basis: Basis::Lock, recovered: None, past, trouble: None };
        vec![
            Event::Start,
            Event::Requested { request: Request::Retry, by },
            Event::Spawned { generation: 1, pid: -1, fingerprint: Fingerprint { config: u64::MAX, program: 0 } },
            Event::LeaderExited { generation: 3, death: ExitStatus::Unknown, toll: ExitUsage::default() },
            Event::Probed { ticket: u64::MAX, sighting },
            Event::Leased { ticket: 1, answer: LeaseAnswer::Acquired(Box::new(acquired)) },
            Event::ClockJumped { by: Duration::MAX },
        ]
    }

    #[test]
    fn an_event_survives_the_log() {
        for event in events() {
            let text = serde_json::to_string(&event).unwrap();
            assert_eq!(serde_json::from_str::<Event>(&text).unwrap(), event, "{text}");
        }
    }

    #[test]
    fn the_policy_survives_the_log() {
        let policy = Policy {
            seed: u64::MAX,
            endpoint: Endpoint { tls: true, ..Endpoint::local(1) },
            on_conflict: OnConflict::Standby,
            memory_max_kb: Some(5),
            ..Policy::default()
        };
        let text = serde_json::to_string(&policy).unwrap();
        assert_eq!(serde_json::from_str::<Policy>(&text).unwrap(), policy);
    }

    #[test]
    fn a_log_that_cannot_be_replayed_says_why() {
        let step = |input: &str| {
            format!(
                r#"{{"event":"core.step","at":"x","now":{{"secs":5,"nanos":0}},"input":{input},"effects":["Boom"]}}"#
            )
        };
        let (start, nonsense) = (step(r#""Start""#), step(r#""Nonsense""#));
        let begun = line(BEGUN, "", &Policy::default());
        assert_eq!(replay([start.as_str()]), Err(ReplayError::NoBeginning));
        assert!(matches!(replay([begun.as_str(), &start]), Err(ReplayError::Diverged { line: 2, .. })));
        let unreadable = replay(["gateway words", &begun, &nonsense]);
        assert!(matches!(unreadable, Err(ReplayError::Unreadable { line: 3, .. })), "{unreadable:?}");
        assert_eq!(replay([begun.as_str(), "{}", "5", r#"{"event":"gateway.started"}"#]), Ok(0));
    }
}
