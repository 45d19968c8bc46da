//! Events about how a gateway does, and what it has used.

use super::nanoseconds;
use crate::core::{Event, ExitUsage, Readiness, Usage};
use serde_json::{Value, json};
use std::time::Duration;

pub(super) fn to_json(event: &Event) -> Option<Value> {
    Some(match event {
        Event::Measured { generation, sample: Usage { cpu, rss_kb, tree_rss_kb } } => json!({
            "is": "measured",
            "generation": generation,
            "cpu_ns": cpu.map(nanoseconds),
            "rss_kb": rss_kb,
            "tree_rss_kb": tree_rss_kb,
        }),
        Event::Examined { generation, evidence } => {
            json!({ "is": "examined", "generation": generation, "evidence": evidence })
        }
        _ => return None,
    })
}

pub(super) fn from_json(value: &Value) -> Option<Event> {
    let number = |name: &str| value.get(name)?.as_u64();
    let generation = number("generation")?;
    Some(match value.get("is")?.as_str()? {
        "measured" => {
            let cpu = number("cpu_ns").map(Duration::from_nanos);
            let sample = Usage { cpu, rss_kb: number("rss_kb"), tree_rss_kb: number("tree_rss_kb") };
            Event::Measured { generation, sample }
        }
        "examined" => {
            let evidence = value.get("evidence")?.as_str().map(str::to_owned);
            Event::Examined { generation, evidence }
        }
        _ => return None,
    })
}

pub(super) fn toll_to_json(toll: ExitUsage) -> Value {
    json!({ "max_rss_kb": toll.max_rss_kb, "cpu_ns": toll.cpu.map(nanoseconds), "oom_killed": toll.oom_killed })
}

pub(super) fn toll_from_json(value: &Value) -> Option<ExitUsage> {
    Some(ExitUsage {
        max_rss_kb: value.get("max_rss_kb")?.as_u64(),
        cpu: value.get("cpu_ns")?.as_u64().map(Duration::from_nanos),
        oom_killed: value.get("oom_killed")?.as_bool()?,
    })
}

pub(super) fn readiness_to_json(readiness: Option<&Readiness>) -> Value {
    readiness.map_or(Value::Null, |readiness| json!({ "ready": readiness.ready, "detail": readiness.detail }))
}

pub(super) fn readiness_from_json(value: &Value) -> Option<Readiness> {
    Some(Readiness { ready: value.get("ready")?.as_bool()?, detail: value.get("detail")?.as_str()?.to_owned() })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn all_events() -> Vec<Event> {
        let full = Usage { cpu: Some(Duration::from_nanos(7)), rss_kb: Some(1), tree_rss_kb: Some(2) };
        vec![
            Event::Measured { generation: 3, sample: full },
            Event::Measured { generation: 3, sample: Usage::default() },
            Event::Examined { generation: 3, evidence: Some("/x \"y\"".to_owned()) },
            Event::Examined { generation: 3, evidence: None },
        ]
    }
}
