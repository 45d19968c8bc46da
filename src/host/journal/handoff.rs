//! Events about exits that a gateway may have planned, and about what the outer manager allows.

use super::nanoseconds;
use crate::core::Event;
use crate::core::handoff::{HandoffVerdict, Support};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) fn to_json(event: &Event) -> Option<Value> {
    Some(match event {
        Event::Negotiated { support } => {
            let (word, why) = match support {
                Support::Supported => ("supported", None),
                Support::Unsupported(why) => ("unsupported", Some(why)),
                Support::TimedOut(why) => ("timed_out", Some(why)),
            };
            json!({ "is": "negotiated", "support": word, "why": why })
        }
        Event::Consumed { ticket, word } => {
            let (name, why) = match word {
                HandoffVerdict::Accepted(why) => ("accepted", Some(why)),
                HandoffVerdict::Missing => ("missing", None),
                HandoffVerdict::Rejected(why) => ("rejected", Some(why)),
                HandoffVerdict::Unsupported(why) => ("unsupported", Some(why)),
                HandoffVerdict::TimedOut(why) => ("timed_out", Some(why)),
            };
            json!({ "is": "consumed", "ticket": ticket, "word": name, "why": why })
        }
        Event::StopBudget { timeout } => json!({ "is": "stop_budget", "timeout_ns": nanoseconds(*timeout) }),
        _ => return None,
    })
}

pub(super) fn from_json(value: &Value) -> Option<Event> {
    let number = |name: &str| value.get(name)?.as_u64();
    let word = |name: &str| value.get(name)?.as_str();
    let why = || word("why").map(str::to_owned);
    Some(match word("is")? {
        "negotiated" => Event::Negotiated {
            support: match word("support")? {
                "supported" => Support::Supported,
                "unsupported" => Support::Unsupported(why()?),
                "timed_out" => Support::TimedOut(why()?),
                _ => return None,
            },
        },
        "consumed" => Event::Consumed {
            ticket: number("ticket")?,
            word: match word("word")? {
                "accepted" => HandoffVerdict::Accepted(why()?),
                "missing" => HandoffVerdict::Missing,
                "rejected" => HandoffVerdict::Rejected(why()?),
                "unsupported" => HandoffVerdict::Unsupported(why()?),
                "timed_out" => HandoffVerdict::TimedOut(why()?),
                _ => return None,
            },
        },
        "stop_budget" => Event::StopBudget { timeout: Duration::from_nanos(number("timeout_ns")?) },
        _ => return None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn all_events() -> Vec<Event> {
        let why = || "why \"x\"".to_owned();
        let supports = [Support::Supported, Support::Unsupported(why()), Support::TimedOut(why())];
        let words = [
            HandoffVerdict::Accepted(why()),
            HandoffVerdict::Missing,
            HandoffVerdict::Rejected(why()),
            HandoffVerdict::Unsupported(why()),
            HandoffVerdict::TimedOut(why()),
        ];
        let negotiated = supports.map(|support| Event::Negotiated { support });
        let consumed = words.map(|word| Event::Consumed { ticket: 4, word });
        let budget = Event::StopBudget { timeout: Duration::from_secs(325) };
        negotiated.into_iter().chain(consumed).chain([budget]).collect()
    }
}
