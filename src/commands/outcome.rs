//! What a request to a supervisor comes to: one line and an exit code.

use super::terminal::printable;
use crate::core::exit;
use crate::host::clock;
use crate::host::control::PausedReply;
use std::io;
use std::time::Duration;

/// Exit code without a supervisor: LSB's status code for a service that does not run.
pub(super) const NOT_RUNNING: u8 = 3;

/// The outcome of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RequestOutcome {
    pub(super) code: u8,
    pub(super) text: String,
}

impl RequestOutcome {
    pub(super) fn good(text: impl Into<String>) -> Self {
        Self { code: exit::OK, text: text.into() }
    }

    pub(super) fn bad(text: impl Into<String>) -> Self {
        Self { code: exit::FAILURE, text: text.into() }
    }

    /// A start that is not requested now.
    pub(super) fn paused(paused: &PausedReply, options: &str) -> Self {
        let until = |within| format!(" until {}", clock::time_in(Duration::from_millis(within)));
        let until = paused.in_ms.map_or_else(String::new, until);
        let colon = if paused.reason.is_empty() { "" } else { ": " };
        Self::bad(format!(
            "supervision is paused{until} by {}{colon}{}; `openclaw-supervise resume{options}` ends the pause, and a gateway is started",
            paused.by, paused.reason
        ))
    }
}

/// Prints one line, whatever the text.
pub(super) fn print(line: &str, out: &mut impl io::Write) -> io::Result<()> {
    match writeln!(out, "{}", printable(line)).and_then(|()| out.flush()) {
        // A closed pipe still gets the exit code.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
