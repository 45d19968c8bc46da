//! The events about the lease and about what a predecessor left, as JSON.

use super::{death_from_json, death_to_json, holder_from_json, holder_to_json, nanoseconds, pid};
use crate::core::restart_policy::{Cause, Run};
use crate::core::{Acquired, Event, History, LeaseAnswer, Moment, PastRun, Recovered, Remains, Settled, Unfinished};
use serde_json::{Value, json};
use std::time::Duration;

/// The words for what holds a lease up.
const GRIPS: [&str; 2] = ["lease", "port claim"];

const POSTPONED: &str = "postponed";

const CAUSES: [(Cause, &str); 4] =
    [(Cause::Asked, "asked"), (Cause::CleanExit, "clean_exit"), (Cause::Failed, "failed"), (Cause::Memory, "memory")];

/// `None` for an event of another kind.
pub(super) fn to_json(event: &Event) -> Option<Value> {
    Some(match event {
        Event::Leased { ticket, answer } => {
            json!({ "is": "leased", "ticket": ticket, "answer": answer_to_json(answer) })
        }
        Event::LeaseLost { owner, why } => {
            json!({ "is": "lease_lost", "owner": owner.as_ref().map(holder_to_json), "why": why })
        }
        Event::Adopted { generation, remains } => {
            let (what, pid, differs) = match remains {
                Remains::Leader { pid, differs } => ("leader", Some(*pid), differs.as_ref()),
                Remains::Orphans { pid } => ("orphans", *pid, None),
                Remains::Nothing { pid } => ("nothing", *pid, None),
            };
            json!({ "is": "adopted", "generation": generation, "remains": what, "pid": pid, "differs": differs })
        }
        Event::Departed { pid } => json!({ "is": "departed", "pid": pid }),
        _ => return None,
    })
}

pub(super) fn from_json(value: &Value) -> Option<Event> {
    let text = |name: &str| value.get(name)?.as_str().map(str::to_owned);
    Some(match value.get("is")?.as_str()? {
        "leased" => {
            Event::Leased { ticket: value.get("ticket")?.as_u64()?, answer: answer_from_json(value.get("answer")?)? }
        }
        "lease_lost" => Event::LeaseLost { owner: optional(value.get("owner")?, holder_from_json)?, why: text("why")? },
        "adopted" => {
            let remains = match value.get("remains")?.as_str()? {
                "leader" => Remains::Leader { pid: pid(value)?, differs: text("differs") },
                "orphans" => Remains::Orphans { pid: pid(value) },
                "nothing" => Remains::Nothing { pid: pid(value) },
                _ => return None,
            };
            Event::Adopted { generation: value.get("generation")?.as_u64()?, remains }
        }
        "departed" => Event::Departed { pid: pid(value)? },
        _ => return None,
    })
}

/// Nothing for null, and no answer at all for what cannot be read.
#[expect(clippy::option_option, reason = "the outer one says whether it could be read")]
fn optional<T>(value: &Value, read: impl Fn(&Value) -> Option<T>) -> Option<Option<T>> {
    if value.is_null() { Some(None) } else { read(value).map(Some) }
}

fn moment(value: &Value) -> Option<Moment> {
    value.as_u64().map(Duration::from_nanos)
}

fn answer_to_json(answer: &LeaseAnswer) -> Value {
    match answer {
        LeaseAnswer::Acquired(acquired) => json!({
            "is": "acquired",
            "epoch": acquired.epoch,
            "recovered": acquired.recovered.as_ref().map(|Recovered { pid, why }| json!({ "pid": pid, "why": why })),
            "past": past_to_json(&acquired.past),
            "trouble": acquired.trouble,
        }),
        LeaseAnswer::Contended { owner, what } => {
            json!({ "is": "contended", "owner": owner.as_ref().map(holder_to_json), "what": what })
        }
        LeaseAnswer::Unclear { beat, owner } => {
            json!({ "is": "unclear", "beat": beat, "owner": owner.as_ref().map(holder_to_json) })
        }
        LeaseAnswer::Free => json!({ "is": "free" }),
        LeaseAnswer::Failed(why) => json!({ "is": "failed", "why": why }),
    }
}

fn answer_from_json(value: &Value) -> Option<LeaseAnswer> {
    let owner = || optional(value.get("owner")?, holder_from_json);
    Some(match value.get("is")?.as_str()? {
        "acquired" => LeaseAnswer::Acquired(Box::new(Acquired {
            epoch: value.get("epoch")?.as_u64()?,
            recovered: optional(value.get("recovered")?, |recovered| {
                Some(Recovered { pid: pid(recovered), why: recovered.get("why")?.as_str()?.to_owned() })
            })?,
            past: past_from_json(value.get("past")?)?,
            trouble: optional(value.get("trouble")?, |trouble| trouble.as_str().map(str::to_owned))?,
        })),
        "contended" => {
            let what = value.get("what")?.as_str()?;
            LeaseAnswer::Contended { owner: owner()?, what: GRIPS.into_iter().find(|grip| *grip == what)? }
        }
        "unclear" => LeaseAnswer::Unclear { beat: value.get("beat")?.as_u64()?, owner: owner()? },
        "free" => LeaseAnswer::Free,
        "failed" => LeaseAnswer::Failed(value.get("why")?.as_str()?.to_owned()),
        _ => return None,
    })
}

fn past_to_json(past: &History) -> Value {
    let runs: Vec<Value> = past.runs.iter().map(run_to_json).collect();
    let left = past.left.map(|left| {
        json!({
            "generation": left.generation,
            "spawned_ns": nanoseconds(left.spawned),
            "started_ns": left.started.map(nanoseconds),
            "healthy_until_ns": left.healthy_until.map(nanoseconds),
            "death": left.died.map(|(death, _)| death_to_json(death)),
            "died_ns": left.died.map(|(_, at)| nanoseconds(at)),
        })
    });
    json!({ "generation": past.generation, "runs": runs, "left": left })
}

fn past_from_json(value: &Value) -> Option<History> {
    let runs = value.get("runs")?.as_array()?.iter().map(run_from_json).collect::<Option<_>>()?;
    let left = optional(value.get("left")?, |left| {
        let died = optional(left.get("died_ns")?, moment)?;
        Some(Unfinished {
            generation: left.get("generation")?.as_u64()?,
            spawned: moment(left.get("spawned_ns")?)?,
            started: optional(left.get("started_ns")?, moment)?,
            healthy_until: optional(left.get("healthy_until_ns")?, moment)?,
            died: match died {
                Some(at) => Some((death_from_json(left.get("death")?)?, at)),
                None => None,
            },
        })
    })?;
    Some(History { generation: value.get("generation")?.as_u64()?, runs, left })
}

fn run_to_json(PastRun { spawned, settled, death }: &PastRun) -> Value {
    let mut value = json!({ "spawned_ns": nanoseconds(*spawned), "death": death_to_json(*death) });
    if *settled == Settled::Postponed {
        value["cause"] = json!(POSTPONED);
    }
    if let Settled::Ran(run, cause) = settled {
        let name = CAUSES.iter().find(|(known, _)| known == cause).map(|(_, name)| *name);
        value["cause"] = json!(name);
        value["started_ns"] = json!(run.started.map(nanoseconds));
        value["healthy_until_ns"] = json!(nanoseconds(run.healthy_until));
        value["ended_ns"] = json!(nanoseconds(run.ended));
        value["clean"] = json!(run.clean);
    }
    value
}

fn run_from_json(value: &Value) -> Option<PastRun> {
    let spawned = moment(value.get("spawned_ns")?)?;
    let death = death_from_json(value.get("death")?)?;
    let Some(name) = value.get("cause") else {
        return Some(PastRun { spawned, settled: Settled::NeverStarted, death });
    };
    let name = name.as_str()?;
    if name == POSTPONED {
        return Some(PastRun { spawned, settled: Settled::Postponed, death });
    }
    let (cause, _) = *CAUSES.iter().find(|(_, known)| *known == name)?;
    let run = Run {
        started: optional(value.get("started_ns")?, moment)?,
        healthy_until: moment(value.get("healthy_until_ns")?)?,
        ended: moment(value.get("ended_ns")?)?,
        clean: value.get("clean")?.as_bool()?,
    };
    Some(PastRun { spawned, settled: Settled::Ran(run, cause), death })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::core::{ExitStatus, Holder};

    /// At least one of every kind, and of everything that one may hold.
    pub(in crate::host::journal) fn all_events() -> Vec<Event> {
        let at = Duration::from_secs;
        let holder = Holder { pid: 9, command: "node".to_owned(), uid: None };
        let run = Run { started: Some(at(2)), healthy_until: at(3), ended: at(4), clean: true };
        let mut runs = [Settled::NeverStarted, Settled::Postponed]
            .map(|settled| PastRun { spawned: at(1), settled, death: ExitStatus::Unknown })
            .to_vec();
        let death = ExitStatus::Signal { number: 11, core_dumped: true };
        runs.extend(CAUSES.map(|(cause, _)| PastRun { spawned: at(1), settled: Settled::Ran(run, cause), death }));
        let run = Run { started: None, ..run };
        runs.push(PastRun { spawned: at(1), settled: Settled::Ran(run, Cause::Failed), death: ExitStatus::Code(3) });
        let left = Unfinished { generation: 7, spawned: at(5), started: None, healthy_until: None, died: None };
        let died = Some((ExitStatus::Signal { number: 9, core_dumped: false }, at(8)));
        let more = Unfinished { started: Some(at(6)), healthy_until: Some(at(7)), died, ..left };
        let unknown = Unfinished { died: Some((ExitStatus::Unknown, at(8))), ..left };
        let mut all = vec![
            Event::LeaseLost { owner: Some(holder.clone()), why: "w".to_owned() },
            Event::LeaseLost { owner: None, why: String::new() },
            Event::Departed { pid: 4 },
        ];
        let remains = [
            Remains::Leader { pid: 3, differs: None },
            Remains::Leader { pid: 3, differs: Some("another command".to_owned()) },
            Remains::Orphans { pid: None },
            Remains::Orphans { pid: Some(3) },
            Remains::Nothing { pid: None },
            Remains::Nothing { pid: Some(3) },
        ];
        all.extend(remains.map(|remains| Event::Adopted { generation: 2, remains }));
        let recovered = [None, Some(Recovered { pid: None, why: "w".to_owned() })];
        let acquired = [None, Some(left), Some(more), Some(unknown)].into_iter().map(|left| Acquired {
            epoch: 5,
            recovered: recovered[usize::from(left.is_some())].clone(),
            past: History { generation: 7, runs: runs.clone(), left },
            trouble: left.map(|_| "full".to_owned()),
        });
        let acquired: Vec<_> = acquired.map(|acquired| LeaseAnswer::Acquired(Box::new(acquired))).collect();
        let others = [
            LeaseAnswer::Contended { owner: Some(holder.clone()), what: GRIPS[0] },
            LeaseAnswer::Contended { owner: None, what: GRIPS[1] },
            LeaseAnswer::Unclear { beat: u64::MAX, owner: Some(holder) },
            LeaseAnswer::Free,
            LeaseAnswer::Failed("f".to_owned()),
        ];
        all.extend(acquired.into_iter().chain(others).map(|answer| Event::Leased { ticket: 1, answer }));
        all
    }
}
