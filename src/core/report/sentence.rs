//! The parts of a report's sentence.

use super::{Exited, HungReport};
use crate::HookEnd;
use crate::event::{ExitStatus, TreeEnd};
use crate::prelude::*;
use core::fmt;
use core::time::Duration;

/// A duration with two significant units at most: `350ms`, `6.1s`, `1m35s`, `1h30m`.
#[must_use]
pub fn human(duration: Duration) -> String {
    let ms = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", duration.subsec_millis() / 100).replace(".0s", "s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60).replace("m0s", "m"),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60).replace("h0m", "h"),
    }
}

pub(super) fn mebibytes(kb: u64) -> String {
    format!("{} MiB", kb.div_ceil(1024))
}

impl fmt::Display for TreeEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { members, escaped, survivors, elapsed, commands, left, .. } = self;
        let plural = if *members == 1 { "" } else { "es" };
        write!(f, "killed {members} leftover process{plural} in {}", human(*elapsed))?;
        if *escaped > 0 {
            write!(f, ", {escaped} outside the gateway's process group")?;
        }
        let named = if left.is_empty() { commands } else { left };
        match *survivors {
            0 => write!(f, ": {}", commands.join("; ")),
            survivors => write!(f, "; {survivors} survived SIGKILL: {}", named.join("; ")),
        }
    }
}

impl fmt::Display for HookEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ended(death) => write!(f, "ended with {death}"),
            Self::NotStarted(why) => write!(f, "could not be started: {why}"),
            Self::Postponed(why) => write!(f, "was not called: {why}"),
        }
    }
}

impl fmt::Display for Exited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, pid, death, uptime, cause, toll } = self;
        write!(f, "gateway {generation} (pid {pid}) ended with {death} after {}: {cause}", human(*uptime))?;
        match (toll.max_rss_kb.map(mebibytes), toll.cpu.map(human)) {
            (Some(peak), Some(cpu)) => write!(f, "; peak memory {peak}, CPU time {cpu}"),
            (Some(peak), None) => write!(f, "; peak memory {peak}"),
            (None, Some(cpu)) => write!(f, "; CPU time {cpu}"),
            (None, None) => Ok(()),
        }
    }
}

impl fmt::Display for HungReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { generation, last_good, failed_probes, why, evidence } = self;
        match last_good.map(human) {
            Some(ago) => {
                write!(f, "gateway {generation}: {why}; last good probe {ago} ago, {failed_probes} failed since")
            }
            None => write!(f, "gateway {generation}: {why}; {failed_probes} probes failed"),
        }?;
        evidence.as_ref().map_or(Ok(()), |path| write!(f, "; evidence in {path}"))
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
    fn durations_read_as_people_say_them() {
        let table = [(0, "0ms"), (350, "350ms"), (1000, "1s"), (6130, "6.1s"), (59_990, "59.9s"), (60_000, "1m")];
        let longer = [(95_000, "1m35s"), (3_600_000, "1h"), (5_400_000, "1h30m"), (36_000_000, "10h")];
        for (ms, text) in table.into_iter().chain(longer) {
            assert_eq!(human(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn a_signal_is_told_by_its_name_where_it_has_one() {
        let death = |number, core_dumped| ExitStatus::Signal { number, core_dumped }.to_string();
        assert_eq!(death(11, true), "signal 11 (SIGSEGV, core dumped)");
        assert_eq!(death(9, false), "signal 9 (SIGKILL)");
        assert_eq!((death(34, false), death(34, true)), ("signal 34".into(), "signal 34 (core dumped)".into()));
    }
}
