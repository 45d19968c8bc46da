//! The lock file of a gateway's state directory, which shows a gateway that boots and does not listen yet.
//!
//! OpenClaw 2026.8 and later write `tmp/openclaw-UID/gateway.state.lock` in the state directory before anything else, and
//! remove it on a clean exit. Other OpenClaw programs with exclusive access to the state write it too, with their role.
//! Earlier releases keep theirs in the temporary directory of their environment, where we cannot find it.

use crate::platform::{proc, regular_file};
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Many times the size of a real one.
const LENGTH_MAX: u64 = 64 * 1024;

/// The gateway that holds a state directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StateOwner {
    pub pid: i32,
    /// The port that it will serve, if the file names it.
    pub port: Option<u16>,
}

/// The living gateway that holds `state_dir`. `None` also if the file cannot be read. Blocks on the file system.
#[must_use]
pub fn owner(state_dir: &Path) -> Option<StateOwner> {
    let text = String::from_utf8(regular_file::head(&path(state_dir), LENGTH_MAX).ok()?).ok()?;
    let (owner, started) = parse(&text)?;
    let process = proc::stat(owner.pid).ok()?;
    (!process.is_dead() && as_written(process.start_time) == started).then_some(owner)
}

fn path(state_dir: &Path) -> PathBuf {
    let uid = rustix::process::getuid().as_raw();
    state_dir.join("tmp").join(format!("openclaw-{uid}")).join("gateway.state.lock")
}

/// The start time as gateways write it: field 22 of `/proc/PID/stat`, or on macOS the seconds that ps(1) shows.
fn as_written(start_time: u64) -> u64 {
    if cfg!(target_os = "macos") { start_time / 1_000_000 } else { start_time }
}

/// The owner and its start time. A pid alone proves nothing, since the file outlives a gateway that was killed.
fn parse(text: &str) -> Option<(StateOwner, u64)> {
    let lock: Value = serde_json::from_str(text).ok()?;
    if lock.get("role").is_some_and(|role| role != "gateway") {
        return None;
    }
    let pid = lock.get("pid")?.as_i64()?.try_into().ok().filter(|pid| *pid > 0)?;
    let port = lock.get("port").and_then(Value::as_u64).and_then(|port| port.try_into().ok());
    Some((StateOwner { pid, port }, lock.get("startTime")?.as_u64()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner_of(text: &str) -> Option<(i32, Option<u16>, u64)> {
        parse(text).map(|(owner, started)| (owner.pid, owner.port, started))
    }

    #[test]
    fn a_gateway_is_identified_by_its_pid_and_start_time() {
        let written = r#"{"pid":42,"ownerId":"x","createdAt":"2026-11-01T00:00:00.000Z","configPath":"/c","stateDir":"/s",
            "port":18789,"startTime":987}"#;
        assert_eq!(owner_of(written), Some((42, Some(18789), 987)));
        assert_eq!(owner_of(r#"{"pid":42,"startTime":987}"#), Some((42, None, 987)));
        assert_eq!(owner_of(r#"{"pid":42,"startTime":987,"role":"gateway"}"#), Some((42, None, 987)));
    }

    #[test]
    fn another_role_or_a_malformed_file_is_not_a_gateway() {
        for text in [
            r#"{"pid":42,"startTime":987,"role":"sqlite-maintenance"}"#,
            r#"{"pid":42}"#,
            r#"{"pid":42,"startTime":null}"#,
            r#"{"pid":42,"startTime":-1}"#,
            r#"{"pid":-1,"startTime":987}"#,
            r#"{"pid":0,"startTime":987}"#,
            r#"{"pid":4294967338,"startTime":987}"#,
            r#"{"pid":"42","startTime":987}"#,
            r#"{"startTime":987}"#,
            "[]",
            "",
            "{",
        ] {
            assert_eq!(owner_of(text), None, "{text}");
        }
    }
}
