//! What the store remembers of earlier gateways, as far as decisions need it.

use super::{ExitStatus, Generation, Moment};
use crate::prelude::*;
use alloc::collections::BTreeSet;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// One run of a gateway that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    /// When it came up, if it did.
    pub started: Option<Moment>,
    /// When it was last seen serving, if it came up.
    pub healthy_until: Moment,
    /// When its process ended.
    pub ended: Moment,
    /// Whether it exited with 0, so that its own record shows a clean end.
    pub clean: bool,
}

impl Run {
    /// How long it is known to have served.
    #[must_use]
    pub fn healthy_for(&self) -> Duration {
        self.started.map_or(Duration::ZERO, |started| self.healthy_until.saturating_sub(started))
    }

    /// The gateway stamps its boot while it comes up and a failed one when it ends; the later of both is safe.
    pub(crate) fn unclean_stamp(&self) -> Moment {
        self.started.unwrap_or(self.ended)
    }
}

/// Why a gateway has to be started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Cause {
    /// It was requested.
    Asked,
    /// Its tree used more memory than `--memory-max`.
    Memory,
    /// It exited with 0 without a request: most likely a restart that the gateway planned itself.
    CleanExit,
    /// It crashed, hung, or never came up.
    Failed,
}

/// The final end of a gateway, once nothing of it is left. The store, which keeps the times of the run itself, has in
/// place of the [`Run`] whether the exit was clean.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settled<R = Run> {
    /// It ran, and this is what its end counts as.
    Ran(R, Cause),
    /// No process could be started at all.
    NeverStarted,
    /// The same while an update replaced the program; no failure.
    Postponed,
}

/// One gateway that is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PastRun {
    /// When its start was decided.
    pub spawned: Moment,
    /// Its end.
    pub settled: Settled,
    /// How its process ended, where that is known.
    pub death: ExitStatus,
}

/// The youngest gateway on record, if its end is not there: it lives, or it died with its supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfinished {
    /// Its number.
    pub generation: Generation,
    /// When its start was decided.
    pub spawned: Moment,
    /// When it came up, if it did.
    pub started: Option<Moment>,
    /// When it was last known to serve. Approximate: a probe writes no record.
    pub healthy_until: Option<Moment>,
    /// How its process ended and when, where that much was still recorded.
    pub died: Option<(ExitStatus, Moment)>,
}

/// A gateway that another supervisor may have left running: what is needed to find and adopt it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeftRecord {
    pub generation: Generation,
    /// The id in the environment of its tree; empty if unknown.
    pub instance: String,
    /// Of its leader. `None` if the supervisor died between the intent and the record of the spawn.
    pub pid: Option<i32>,
    pub start_time: Option<u64>,
    /// Whether its pids are of this boot and of our pid namespace: else they name other processes here.
    pub has_our_pids: bool,
    /// Whether it may run where it cannot be seen from here.
    pub is_elsewhere: bool,
    /// `None` if unknown.
    pub command: Option<String>,
    /// What was last known of its processes.
    pub tree: TreeRecord,
}

/// What is known of the processes of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TreeRecord {
    /// By pid and start time.
    pub members: Vec<(i32, u64)>,
    /// The real user of its leader, which may have changed it since its start, as su-exec(8) does.
    pub uid: Option<u32>,
    /// The control groups of the systemd units in which its leader and its listener were seen.
    pub units: BTreeSet<String>,
}

/// All of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct History {
    /// The number of the youngest gateway; 0 if there never was one.
    pub generation: Generation,
    /// Gateways that are over, oldest first; those that no window can reach any more may be missing.
    pub runs: Vec<PastRun>,
    /// The one that may still be there.
    pub left: Option<Unfinished>,
}

/// What the store has to remember of a gateway from now on. Each is written once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fact {
    /// It has come up.
    Started,
    /// It has been serving for `stable_after`.
    Stable,
    /// Its process ended.
    Died(ExitStatus),
    /// It is over for us, and whether its process has ended cannot be seen from here.
    Unseen,
    /// Nothing of it is left.
    Settled(Settled),
    /// It counts as asked for, and what is left of it belongs to a successor that it has left. That one is on record
    /// from the same moment on, under the next number.
    Succeeded(Run),
    /// Its exit turned out to be a restart that it had planned: it counts as asked for, and as clean.
    Planned,
}
