//! What a gateway uses of the machine.

use core::time::Duration;
use serde::{Deserialize, Serialize};

/// One reading, while it lives. What the kernel does not tell is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// CPU time of the thread that runs its event loop, since it began; of the whole process where threads cannot be
    /// told apart.
    pub cpu: Option<Duration>,
    /// Resident memory of its process, in KiB.
    pub rss_kb: Option<u64>,
    /// The same of all its tree: the sum over its processes, so that a page that two of them share counts twice. Only
    /// where that was asked for.
    pub tree_rss_kb: Option<u64>,
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
