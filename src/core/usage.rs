//! What a gateway uses of the machine.

use super::Holder;
use crate::prelude::*;
use core::fmt;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// One reading, while it lives. What the kernel does not tell is left out.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of the thread that runs its event loop, since it began; of the whole process where threads cannot be
    /// told apart.
    pub cpu: Option<Duration>,
    /// Resident memory of its process, in KiB.
    pub rss_kb: Option<u64>,
    /// The same of all its tree: the sum over its processes, so that a page that two of them share counts twice. Only
    /// where that was asked for.
    pub tree_rss_kb: Option<u64>,
    /// How many processes that are.
    pub tree_processes: Option<u32>,
    /// How often that thread had to wait for a page from a disk or from swap (major faults), since it began.
    #[serde(default)]
    pub major_faults: Option<u64>,
    /// How long that thread has waited for a processor since it began: it could run and did not. From
    /// [`Depth::Stall`] on, as all below.
    pub waited: Option<Duration>,
    /// How often that thread has got a processor since it began; of the one in `blocked`, if it sits in a write.
    pub turns: Option<u64>,
    /// How long the CPU limits of its control groups have throttled them, added up over the processors.
    pub throttled: Option<Duration>,
    /// How long any task of its control group, or of the machine, has waited for a processor (PSI).
    pub pressure: Option<Duration>,
    /// Whether that thread could run just then.
    pub runnable: bool,
    /// The write to its own output in which that thread sat just then.
    pub blocked: Option<BlockedWrite>,
}

/// How much a reading looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// CPU time and memory.
    Usual,
    /// Also what keeps it from its work.
    Stall,
    /// Also the process that does not read what it writes: that looks at the open files of all processes.
    Reader,
}

/// A write(2) to standard output or error that does not return.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BlockedWrite {
    /// `stdout` or `stderr`.
    pub stream: String,
    /// What that is, as `/proc/PID/fd` shows it, such as `pipe:[1234]`.
    pub file: String,
    /// A process that has the other end and does not read, where it can be seen.
    pub reader: Option<Holder>,
}

impl fmt::Display for BlockedWrite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { stream, file, reader } = self;
        write!(f, "it waits in a write to its {stream} ({file})")?;
        match reader {
            Some(Holder { pid, command, .. }) => write!(f, ", which pid {pid} ({command}) does not read"),
            None => f.write_str("; the reader cannot be seen from here"),
        }
    }
}

/// What a gateway that is over has used, and what the kernel says of its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ExitUsage {
    /// The most memory that its process ever had resident, in KiB.
    pub max_rss_kb: Option<u64>,
    /// CPU time of its process and of those that it has waited for.
    pub cpu: Option<Duration>,
    /// Killed by the kernel OOM killer, as far as can be told.
    pub oom_killed: bool,
}
