//! What a client may ask, and the lines that answer it, see docs/CONTROL.md.

use crate::core::Request;
use serde::Serialize;
use serde_json::{Value, json};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ask {
    Status,
    /// Send every report from now on.
    Watch,
    /// Do this, and send every report from now on.
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
    /// Parses one line. `Err` is for the client.
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        let request: Value = serde_json::from_slice(line).map_err(|error| format!("this is not JSON: {error}"))?;
        let word = request["ask"].as_str().unwrap_or_default();
        let known = ASKS.iter().find(|(name, _)| *name == word).map(|(_, ask)| *ask);
        known.ok_or_else(|| {
            let names: Vec<&str> = ASKS.iter().map(|(name, _)| *name).collect();
            format!("\"ask\" must be one of {}", names.join(", "))
        })
    }

    pub(super) fn name(self) -> &'static str {
        ASKS.iter().find(|(_, ask)| *ask == self).map_or("", |(name, _)| name)
    }
}

/// The request was accepted.
pub(super) fn accepted() -> String {
    line(&json!({ "accepted": true }))
}

/// It was not.
pub(super) fn error(why: &str) -> String {
    line(&json!({ "error": why }))
}

pub(super) fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() + "\n"
}
