//! What a request to a supervisor comes to: one line and an exit code.

use crate::core::exit;
use std::io;

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
}

/// Prints one line, whatever the text.
pub(super) fn print(line: &str, out: &mut impl io::Write) -> io::Result<()> {
    match writeln!(out, "{}", line.replace(|c: char| c.is_control(), " ")).and_then(|()| out.flush()) {
        // A closed pipe still gets the exit code.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        written => written,
    }
}
