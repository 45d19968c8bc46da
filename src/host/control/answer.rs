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

const ASKS: [Ask; 5] =
    [Ask::Status, Ask::Watch, Ask::Do(Request::Restart), Ask::Do(Request::Stop), Ask::Do(Request::Retry)];

impl Ask {
    /// Parses one line. `Err` is for the client.
    pub(super) fn parse(line: &[u8]) -> Result<Self, String> {
        let request: Value = serde_json::from_slice(line).map_err(|error| format!("this is not JSON: {error}"))?;
        let name = request["ask"].as_str().unwrap_or_default();
        ASKS.into_iter()
            .find(|ask| ask.name() == name)
            .ok_or_else(|| format!("\"ask\" must be one of {}", ASKS.map(Self::name).join(", ")))
    }

    fn name(self) -> &'static str {
        match self {
            Self::Status => "status",
            Self::Watch => "watch",
            Self::Do(request) => request.name(),
        }
    }
}

pub(super) fn accepted() -> String {
    line(&json!({ "accepted": true }))
}

/// The client is part of what its request ends.
pub(super) fn accepted_from_inside() -> String {
    line(&json!({ "accepted": true, "inside": true }))
}

pub(super) fn error(why: &str) -> String {
    line(&json!({ "error": why }))
}

pub(super) fn line(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default() + "\n"
}
