//! What an incident shows of the process that listens, taken from its parts as the kernel printed them.

use crate::core::{Condition, Holder};
use crate::platform::proc;
use serde_json::Value;

/// The parts that are read here.
pub(super) const PROCESS: &str = "process";
pub(super) const TREE: &str = "tree";

/// A part that is missing or has another form is not known.
pub(super) fn of(incident: &Value) -> Condition {
    let process = &incident[PROCESS];
    let status = |name: &str| process["status"][name].as_str();
    let (group, tree) = (&incident["cgroup"], incident[TREE].as_array());
    let pressure = [&group["memory_pressure"], &incident["machine"]["pressure"]["memory"]];
    let rss_of = |member: &Value| Some((member.clone(), member["rss_kb"].as_u64()?));
    let largest = tree.and_then(|tree| tree.iter().filter_map(rss_of).max_by_key(|(_, rss_kb)| *rss_kb));
    let listeners = incident["port"]["listeners"].as_array();
    Condition {
        state: status("State").and_then(|state| state.chars().next()),
        tracer: status("TracerPid").and_then(|pid| pid.parse().ok()).filter(|pid| *pid > 0).map(holder_of),
        wchan: process["wchan"].as_str().filter(|wchan| !matches!(*wchan, "" | "0")).map(str::to_owned),
        is_in_user_mode: process["syscall"].as_str() == Some("running"),
        rss_kb: status("VmRSS").and_then(first_number),
        swapped_kb: status("VmSwap").and_then(first_number),
        group_kb: group["memory_current"].as_str().and_then(kib).zip(group["memory_max"].as_str().and_then(kib)),
        memory_pressure: pressure.into_iter().find_map(|text| some_avg10(text.as_str()?)),
        waiting: listeners.map(|all| all.iter().filter_map(|listener| listener["waiting"].as_u64()).sum()),
        largest: largest.and_then(|(member, rss_kb)| Some((named(&member)?, rss_kb))),
        members: tree.map_or(0, Vec::len),
    }
}

fn holder_of(pid: i32) -> Holder {
    let command = proc::command_of(pid).unwrap_or_else(|| "its command cannot be read".to_owned());
    Holder { pid, command, uid: proc::uid_of(pid) }
}

fn named(member: &Value) -> Option<Holder> {
    let pid = i32::try_from(member["pid"].as_i64()?).ok()?;
    let command = member["command"].as_str().unwrap_or("its command was not read in time").to_owned();
    Some(Holder { pid, command, uid: None })
}

/// `123 kB`.
fn first_number(text: &str) -> Option<u64> {
    text.split_ascii_whitespace().next()?.parse().ok()
}

/// Bytes; `max` is no limit.
fn kib(text: &str) -> Option<u64> {
    text.trim().parse::<u64>().ok().map(|bytes| bytes / 1024)
}

/// In whole percent, see `accounting/psi` in the kernel's documentation.
fn some_avg10(text: &str) -> Option<u32> {
    let line = text.lines().find_map(|line| line.strip_prefix("some "))?;
    let value = line.split(' ').find_map(|word| word.strip_prefix("avg10="))?;
    value.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_condition_is_what_the_kernel_printed() {
        let incident = json!({
            "machine": { "pressure": { "memory": "some avg10=3.00 avg60=0.00" } },
            "port": { "listeners": [{ "waiting": 2 }, { "waiting": 1 }] },
            "process": {
                "status": { "State": "S (sleeping)", "TracerPid": "0", "VmRSS": "100 kB", "VmSwap": "7 kB" },
                "wchan": "ep_poll", "syscall": "232 0x3"
            },
            "cgroup": { "memory_current": "4096", "memory_max": "8192", "memory_pressure": "some avg10=12.50 avg60=0.00" },
            "tree": [{ "pid": 1, "rss_kb": 5, "command": "a" }, { "pid": 2, "rss_kb": 9 }, { "pid": 3, "rss_kb": null }],
        });
        let unread = Holder { pid: 2, command: "its command was not read in time".to_owned(), uid: None };
        let expected = Condition {
            state: Some('S'),
            tracer: None,
            wchan: Some("ep_poll".to_owned()),
            is_in_user_mode: false,
            rss_kb: Some(100),
            swapped_kb: Some(7),
            group_kb: Some((4, 8)),
            memory_pressure: Some(12),
            waiting: Some(3),
            largest: Some((unread, 9)),
            members: 3,
        };
        assert_eq!(of(&incident), expected);
    }

    #[test]
    fn what_is_not_there_or_could_not_be_read_is_not_known() {
        let error = json!({ "error": "EPERM" });
        let unread =
            json!({ "process": { "status": error, "wchan": "0", "syscall": error }, "cgroup": error, "port": error });
        for incident in [json!({}), unread, json!({ "process": null, "cgroup": null, "tree": "x" })] {
            assert_eq!(of(&incident), Condition::default(), "{incident}");
        }
    }
}
