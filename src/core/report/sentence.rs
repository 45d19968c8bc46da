//! The parts of a report's sentence.

use crate::conclusion::Conclusion;
use crate::event::TreeEnd;
use crate::prelude::*;
use crate::units::{human, mebibytes};
use crate::{ExitStatus, ExitUsage, Generation, HookEnd};
use core::fmt;
use core::time::Duration;

/// The end of one gateway process. Each spawn has exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exited {
    pub generation: Generation,
    pub pid: i32,
    pub death: ExitStatus,
    pub uptime: Duration,
    pub toll: ExitUsage,
    pub cause: &'static str,
}

/// The exit code of a shell or launcher after SIGTERM has ended its command, see bash(1): 128 and the number of the signal.
const TERMINATED: i32 = 128 + SIGTERM;
const SIGTERM: i32 = 15;

impl Exited {
    /// Whether it ended by itself with 0, or of the SIGTERM of a stop or restart on request.
    pub(super) fn is_as_requested(&self) -> bool {
        let is_requested = matches!(self.cause, "stop requested" | "restart requested" | "requested");
        match self.death {
            ExitStatus::Code(code) => code == 0 || is_requested && code == TERMINATED,
            ExitStatus::Signal { number, .. } => is_requested && number == SIGTERM,
            ExitStatus::Unknown => is_requested,
        }
    }
}

/// A gateway that is going to be replaced because it hangs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HungReport {
    pub generation: Generation,
    /// How long ago its last good probe was.
    pub last_good: Option<Duration>,
    pub failed_probes: u32,
    pub why: &'static str,
    /// What it had time for: the setting that decided.
    pub limit: Duration,
    /// The last failed probes, oldest first: how long ago, verdict and detail.
    pub probes: Vec<String>,
    pub conclusion: Conclusion,
    /// The file with the evidence.
    pub evidence: Option<String>,
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
        let Self { generation, last_good, failed_probes, why, conclusion, evidence, .. } = self;
        match last_good.map(human) {
            Some(ago) => {
                write!(f, "gateway {generation}: {why}; last good probe {ago} ago, {failed_probes} failed since")
            }
            None => write!(f, "gateway {generation}: {why}; {failed_probes} probes failed"),
        }?;
        write!(f, "; {}", conclusion.text)?;
        evidence.as_ref().map_or(Ok(()), |path| write!(f, "; evidence in {path}"))
    }
}
