//! What a client may ask, and the lines that answer it, see docs/CONTROL.md.

use crate::core::Request;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Status,
    Metrics,
    /// Send every report from now on.
    Watch,
    /// Do this, and send every report from now on.
    Do(Request),
}

/// Those with a name of their own. `"force": true` makes another one of [`Request::Restart`] and [`Request::Retry`].
const ASKS: [Ask; 6] =
    [Ask::Status, Ask::Metrics, Ask::Watch, Ask::Do(Request::Restart), Ask::Do(Request::Stop), Ask::Do(Request::Retry)];

/// The line that asks for it.
#[must_use]
pub fn asking(request: Request) -> Value {
    match request {
        Request::RestartForced => json!({ "ask": Request::Restart.name(), "force": true }),
        Request::RetryForced => json!({ "ask": Request::Retry.name(), "force": true }),
        Request::Stop | Request::Restart | Request::Detach | Request::Retry => json!({ "ask": request.name() }),
    }
}

impl Ask {
    /// Parses one line. `Err` is for the client.
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        let request: Value = serde_json::from_slice(line).map_err(|error| format!("this is not JSON: {error}"))?;
        let name = request["ask"].as_str().unwrap_or_default();
        let ask = ASKS
            .into_iter()
            .find(|ask| ask.name() == name)
            .ok_or_else(|| format!("\"ask\" must be one of {}", ASKS.map(Self::name).join(", ")))?;
        match (ask, &request["force"]) {
            (_, Value::Null | Value::Bool(false)) => Ok(ask),
            (Self::Do(Request::Restart), Value::Bool(true)) => Ok(Self::Do(Request::RestartForced)),
            (Self::Do(Request::Retry), Value::Bool(true)) => Ok(Self::Do(Request::RetryForced)),
            _ => Err("\"force\" must be true or false, and goes with restart and retry-now".to_owned()),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Metrics => "metrics",
            Self::Watch => "watch",
            Self::Do(request) => request.name(),
        }
    }
}

/// `is_inside`: the client is part of what its request ends. `paced`: in how long it is served, and why not at once.
pub(super) fn accepted(is_inside: bool, paced: Option<(Duration, String)>) -> String {
    let mut answer = json!({ "accepted": true });
    if is_inside {
        answer["inside"] = true.into();
    }
    if let Some((within, why)) = paced {
        let in_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
        answer["paced"] = json!({ "in_ms": in_ms, "why": why });
    }
    line(&answer)
}

pub(super) fn error(why: &str) -> String {
    line(&json!({ "error": why }))
}

pub(super) fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() + "\n"
}
