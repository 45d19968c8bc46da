//! What a client may ask, and the objects that answer it. Their shape is told in `docs/CONTROL.md`.

use crate::core::Request;
use crate::core::status::{GatewayStatus, Status};
use crate::host::clock;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::time::Duration;

/// What a supervisor knows of itself and the core does not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What runs us.
    pub manager: &'static str,
    /// When we began, as RFC 3339.
    pub started_at: String,
    /// The gateway's config file.
    pub config: PathBuf,
    /// Our own directory.
    pub store_dir: PathBuf,
    /// Where the gateway listens, `ws://HOST:PORT`.
    pub url: String,
    /// The same, the port alone.
    pub port: u16,
}

/// What a client asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    /// What are you doing?
    Status,
    /// Tell me what happens.
    Watch,
    /// Do this, and tell me what happens.
    Do(Request),
}

const ASKS: [(&str, Ask); 5] = [
    ("status", Ask::Status),
    ("watch", Ask::Watch),
    ("restart", Ask::Do(Request::Restart)),
    ("stop", Ask::Do(Request::Stop)),
    ("retry-now", Ask::Do(Request::Retry)),
];

impl Ask {
    /// Reads one line; `Err` says what is wrong with it.
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        let request: Value = serde_json::from_slice(line).map_err(|error| format!("this is not JSON: {error}"))?;
        let word = request.get("ask").and_then(Value::as_str).unwrap_or_default();
        let known = ASKS.iter().find(|(name, _)| *name == word).map(|(_, ask)| *ask);
        known.ok_or_else(|| {
            let names: Vec<&str> = ASKS.iter().map(|(name, _)| *name).collect();
            format!("\"ask\" must be one of {}", names.join(", "))
        })
    }

    /// Its word.
    pub(super) fn name(self) -> &'static str {
        ASKS.iter().find(|(_, ask)| *ask == self).map_or("", |(name, _)| name)
    }
}

/// The line that says that a request was heard.
pub(super) fn accepted() -> String {
    line(&json!({ "accepted": true }))
}

/// The line that says why it was not.
pub(super) fn error(why: &str) -> String {
    line(&json!({ "error": why }))
}

/// An object as a line.
pub(super) fn line(value: &Value) -> String {
    format!("{value}\n")
}

/// The answer to `status`. Every key is there, with null where a value is not known.
#[must_use]
pub fn status_to_json(status: &Status, facts: &Facts) -> Value {
    let (verdict, detail) = status.probe.as_ref().map(|(verdict, detail)| (verdict.name(), detail.as_str())).unzip();
    let readiness = status.gateway.as_ref().and_then(|gateway| gateway.readiness.as_ref());
    json!({
        "supervisor": {
            "pid": std::process::id(),
            "version": env!("CARGO_PKG_VERSION"),
            "state": status.state,
            "since": facts.started_at,
            "manager": facts.manager,
            "config": facts.config.to_string_lossy(),
            "store_dir": facts.store_dir.to_string_lossy(),
            "url": facts.url,
            "port": facts.port,
            "stop_timeout_ms": milliseconds(status.stop_timeout),
        },
        "gateway": status.gateway.as_ref().map(|gateway| gateway_to_json(gateway, status.generation)),
        "lease": {
            "held": status.epoch.is_some(),
            "epoch": status.epoch,
            "owner_pid": status.epoch.map(|_| std::process::id()),
        },
        "probe": {
            "verdict": verdict,
            "detail": detail,
            "ready": readiness.map(|readiness| readiness.ready),
            "ready_detail": readiness.map(|readiness| readiness.detail.as_str()),
        },
        "generation": status.generation,
        "restarts": {
            "in_window": status.restarts,
            "max": status.max_restarts,
            "window_ms": milliseconds(status.restart_window),
            "for_memory": status.memory_restarts,
        },
        "next": {
            "action": status.next.action,
            "at": status.next.within.and_then(stamp_in),
            "in_ms": status.next.within.map(milliseconds),
            "why": status.next.why,
        },
    })
}

fn gateway_to_json(gateway: &GatewayStatus, generation: u64) -> Value {
    let sample = gateway.sample.unwrap_or_default();
    json!({
        "pid": gateway.pid,
        "generation": generation,
        "age_ms": milliseconds(gateway.age),
        "up_ms": gateway.up.map(milliseconds),
        "healthy": gateway.healthy,
        "adopted": gateway.adopted,
        "rss_kb": sample.rss_kb,
        "tree_rss_kb": sample.tree_rss_kb,
        "loop_cpu_ms": sample.cpu.map(milliseconds),
    })
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock then, as RFC 3339; none beyond the end of the calendar.
fn stamp_in(within: Duration) -> Option<String> {
    let now: Timestamp = clock::stamp().parse().ok()?;
    let then = now.checked_add(SignedDuration::try_from(within).ok()?).ok()?;
    Some(format!("{then:.3}"))
}
