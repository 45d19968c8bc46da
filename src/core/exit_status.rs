//! How a process ended.

use crate::prelude::*;
use core::fmt;
use serde::{Deserialize, Serialize};

/// How the gateway process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ExitStatus {
    /// It called exit.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The signal's number.
        number: i32,
        /// Whether it left a core file.
        core_dumped: bool,
    },
    /// Unknown: another process was its parent.
    Unknown,
}

impl ExitStatus {
    #[must_use]
    pub fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal { .. } | Self::Unknown => None,
        }
    }

    #[must_use]
    pub fn signal(self) -> Option<i32> {
        match self {
            Self::Signal { number, .. } => Some(number),
            Self::Code(_) | Self::Unknown => None,
        }
    }

    /// `None` unless a signal ended it.
    #[must_use]
    pub fn core_dumped(self) -> Option<bool> {
        match self {
            Self::Signal { core_dumped, .. } => Some(core_dumped),
            Self::Code(_) | Self::Unknown => None,
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal { number, core_dumped } => {
                let more = [signal_name(*number), core_dumped.then_some("core dumped")];
                let more: Vec<_> = more.into_iter().flatten().collect();
                write!(f, "signal {number}")?;
                if more.is_empty() { Ok(()) } else { write!(f, " ({})", more.join(", ")) }
            }
            Self::Unknown => f.write_str("an unknown status"),
        }
    }
}

/// The name of a signal that has the same number on every supported system, or that ends gateways on this one.
fn signal_name(number: i32) -> Option<&'static str> {
    Some(match number {
        1 => "SIGHUP",
        2 => "SIGINT",
        3 => "SIGQUIT",
        4 => "SIGILL",
        5 => "SIGTRAP",
        6 => "SIGABRT",
        8 => "SIGFPE",
        9 => "SIGKILL",
        11 => "SIGSEGV",
        13 => "SIGPIPE",
        15 => "SIGTERM",
        7 if cfg!(target_os = "linux") => "SIGBUS",
        31 if cfg!(target_os = "linux") => "SIGSYS",
        10 if cfg!(target_os = "macos") => "SIGBUS",
        12 if cfg!(target_os = "macos") => "SIGSYS",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_told_by_its_name_where_it_has_one() {
        let death = |number, core_dumped| ExitStatus::Signal { number, core_dumped }.to_string();
        assert_eq!(death(11, true), "signal 11 (SIGSEGV, core dumped)");
        assert_eq!(death(9, false), "signal 9 (SIGKILL)");
        assert_eq!((death(34, false), death(34, true)), ("signal 34".into(), "signal 34 (core dumped)".into()));
    }
}
