//! What the shell tells the core.

use super::{Generation, Sighting};
use std::fmt;
use std::time::Duration;

/// What an operator or a manager can ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// End the gateway and the supervisor.
    Stop,
    /// Drain the gateway and start a new one.
    Restart,
    /// End the supervisor alone and leave the gateway.
    Detach,
}

/// Who asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Requester {
    /// How the request came, such as `SIGTERM`.
    pub how: String,
    /// The asking process, where the kernel or the socket names it.
    pub pid: Option<i32>,
    /// Its user.
    pub uid: Option<u32>,
    /// Its command line, if it still lived when we looked.
    pub command: Option<String>,
}

impl fmt::Display for Requester {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.how)?;
        match (&self.command, self.pid) {
            (Some(command), Some(pid)) => write!(f, " from pid {pid} ({command})"),
            (None, Some(pid)) => write!(f, " from pid {pid}"),
            _ => Ok(()),
        }
    }
}

/// How the gateway process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Death {
    /// It called exit.
    Code(i32),
    /// A signal ended it.
    Signal {
        /// The signal's number.
        number: i32,
        /// Whether it left a core file.
        core_dumped: bool,
    },
    /// Nobody could tell us.
    Unknown,
}

/// Why no process could be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SpawnFailure {
    /// The program is not there or cannot be executed.
    Program(String),
    /// The machine refused: no memory, no processes, no descriptors.
    Resources(String),
}

/// What the end of a process tree looked like.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TreeEnd {
    /// How many processes had to be killed.
    pub members: u32,
    /// How many of them had left the gateway's process group.
    pub escaped: u32,
    /// How many were still there when the time for killing was over.
    pub survivors: u32,
    /// How long it took.
    pub elapsed: Duration,
    /// `pid command` of the first few of them.
    pub commands: Vec<String>,
}

/// One thing that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The shell is ready: signal handlers stand.
    Start,
    /// The deadline has come.
    Tick,
    /// A probe is back.
    Probed {
        /// The ticket of its `Effect::Probe`.
        ticket: u64,
        /// What it saw.
        sighting: Sighting,
    },
    /// The gateway process exists.
    Spawned {
        /// Its number.
        generation: Generation,
        /// Its process id.
        pid: i32,
    },
    /// It does not.
    SpawnFailed {
        /// Its number.
        generation: Generation,
        /// Why.
        failure: SpawnFailure,
    },
    /// The gateway process ended. Its tree may live on.
    LeaderExited {
        /// Its number.
        generation: Generation,
        /// How it ended.
        death: Death,
        /// Its peak resident set in KiB, where the kernel tells.
        max_rss_kb: Option<u64>,
    },
    /// `KillTree` is done.
    TreeGone {
        /// Its number.
        generation: Generation,
        /// What was found.
        end: TreeEnd,
    },
    /// Somebody asked for something.
    Requested {
        /// What.
        request: Request,
        /// Who.
        by: Requester,
    },
    /// The machine slept: the boot-time clock ran ahead of the monotonic one.
    ClockJumped {
        /// By how much.
        by: Duration,
    },
}

impl Event {
    /// The child that the event speaks of.
    #[must_use]
    pub fn generation(&self) -> Option<Generation> {
        match self {
            Self::Spawned { generation, .. }
            | Self::SpawnFailed { generation, .. }
            | Self::LeaderExited { generation, .. }
            | Self::TreeGone { generation, .. } => Some(*generation),
            Self::Start | Self::Tick | Self::Probed { .. } | Self::Requested { .. } | Self::ClockJumped { .. } => None,
        }
    }
}
