//! Events about what gateways and hooks leave behind.

use super::{death_from_json, death_to_json, nanoseconds};
use crate::core::{Event, HookEnd, Layer, TreeEnd};
use serde_json::{Value, json};
use std::time::Duration;

const LAYERS: [Layer; 5] = [Layer::Cgroup, Layer::Group, Layer::Descent, Layer::Instance, Layer::Record];

pub(super) fn to_json(event: &Event) -> Option<Value> {
    Some(match event {
        Event::TreeGone { generation, end } => {
            json!({ "is": "tree_gone", "generation": generation, "end": end_to_json(end) })
        }
        Event::StraysKilled { generation, end } => {
            json!({ "is": "strays_killed", "generation": generation, "end": end_to_json(end) })
        }
        Event::HookEnded { ticket, end: HookEnd::Ended(death) } => {
            json!({ "is": "hook_ended", "ticket": ticket, "death": death_to_json(*death) })
        }
        Event::HookEnded { ticket, end: HookEnd::NotStarted(why) } => {
            json!({ "is": "hook_ended", "ticket": ticket, "why": why })
        }
        Event::HookEnded { ticket, end: HookEnd::Postponed(why) } => {
            json!({ "is": "hook_ended", "ticket": ticket, "postponed": why })
        }
        _ => return None,
    })
}

pub(super) fn from_json(value: &Value) -> Option<Event> {
    let number = |name: &str| value.get(name)?.as_u64();
    Some(match value.get("is")?.as_str()? {
        "tree_gone" => Event::TreeGone { generation: number("generation")?, end: end_from_json(value.get("end")?)? },
        "strays_killed" => {
            Event::StraysKilled { generation: number("generation")?, end: end_from_json(value.get("end")?)? }
        }
        "hook_ended" => {
            let text = |why: &Value| why.as_str().map(str::to_owned);
            let end = match (value.get("why"), value.get("postponed")) {
                (Some(why), _) => HookEnd::NotStarted(text(why)?),
                (None, Some(why)) => HookEnd::Postponed(text(why)?),
                (None, None) => HookEnd::Ended(death_from_json(value.get("death")?)?),
            };
            Event::HookEnded { ticket: number("ticket")?, end }
        }
        _ => return None,
    })
}

fn end_to_json(end: &TreeEnd) -> Value {
    let found_by: Vec<_> = end.found_by.iter().map(|(layer, count)| json!([layer.name(), count])).collect();
    json!({
        "members": end.members,
        "escaped": end.escaped,
        "survivors": end.survivors,
        "elapsed_ns": nanoseconds(end.elapsed),
        "commands": end.commands,
        "found_by": found_by,
        "left": end.left,
    })
}

fn end_from_json(value: &Value) -> Option<TreeEnd> {
    let count = |name: &str| u32::try_from(value.get(name)?.as_u64()?).ok();
    let texts = |name: &str| {
        let list = value.get(name)?.as_array()?;
        list.iter().map(|text| text.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
    };
    let layer = |pair: &Value| {
        let name = pair.get(0)?.as_str()?;
        let count = u32::try_from(pair.get(1)?.as_u64()?).ok()?;
        Some((*LAYERS.iter().find(|layer| layer.name() == name)?, count))
    };
    Some(TreeEnd {
        members: count("members")?,
        escaped: count("escaped")?,
        survivors: count("survivors")?,
        elapsed: Duration::from_nanos(value.get("elapsed_ns")?.as_u64()?),
        commands: texts("commands")?,
        found_by: value.get("found_by")?.as_array()?.iter().map(layer).collect::<Option<_>>()?,
        left: texts("left")?,
    })
}
