//! What a client may ask, and the lines that answer it, see docs/CONTROL.md.

use crate::core::Request;
use crate::core::event::PAUSE_MAX;
use crate::core::event::PauseRequest;
use serde::Serialize;
use serde_json::{Value, json};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    Status,
    Metrics,
    /// Send a test notification on each channel, and say what came back.
    TestChannels,
    /// Send every report from now on.
    Watch,
    /// Do this, and send every report from now on.
    Do(Request),
    /// Pause the supervision, or go on, and send every report from now on.
    Pause(Option<PauseRequest>),
}

/// Those with a name of their own. `"force": true` makes another one of [`Request::Restart`] and [`Request::Retry`].
const NAMES: [&str; 7] = ["status", "metrics", "notify-test", "watch", "restart", "stop", "retry-now"];
const ASKS: [Ask; 7] = [
    Ask::Status,
    Ask::Metrics,
    Ask::TestChannels,
    Ask::Watch,
    Ask::Do(Request::Restart),
    Ask::Do(Request::Stop),
    Ask::Do(Request::Retry),
];

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
        if name == "pause" {
            return pause(&request).map(|pause| Self::Pause(Some(pause)));
        }
        if name == "resume" {
            return Ok(Self::Pause(None));
        }
        let ask = ASKS
            .into_iter()
            .zip(NAMES)
            .find_map(|(ask, known)| (known == name).then_some(ask))
            .ok_or_else(|| format!("\"ask\" must be one of {}, pause, resume", NAMES.join(", ")))?;
        match (ask, &request["force"]) {
            (ask, Value::Null | Value::Bool(false)) => Ok(ask),
            (Self::Do(Request::Restart), Value::Bool(true)) => Ok(Self::Do(Request::RestartForced)),
            (Self::Do(Request::Retry), Value::Bool(true)) => Ok(Self::Do(Request::RetryForced)),
            _ => Err("\"force\" must be true or false, and goes with restart and retry-now".to_owned()),
        }
    }
}

/// `for_ms` is needed; `reason` may be left out.
fn pause(request: &Value) -> Result<PauseRequest, String> {
    let most = PAUSE_MAX.as_millis();
    let wanted = || format!("\"for_ms\" must be a number from 1 to {most}, and \"reason\" a text");
    let period = request["for_ms"].as_u64().map(Duration::from_millis);
    let period = period.filter(|period| !period.is_zero() && *period <= PAUSE_MAX).ok_or_else(wanted)?;
    match &request["reason"] {
        Value::Null => Ok(PauseRequest { period, reason: String::new() }),
        Value::String(reason) => Ok(PauseRequest { period, reason: reason.clone() }),
        _ => Err(wanted()),
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
