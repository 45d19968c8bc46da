//! A member that is about to be killed.

use super::membership::{HeldMember, TreeMember};
use crate::platform::kill;
use std::io;

/// The outcome of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    Delivered,
    /// There was no such process.
    Missed,
    /// EPERM.
    Refused,
}

/// A member, and what holds its pid.
#[derive(Debug)]
pub(super) enum KillTarget {
    /// A child of ours.
    Child(TreeMember),
    /// Any other process.
    Other(HeldMember),
}

impl KillTarget {
    pub(super) fn member(&self) -> TreeMember {
        match self {
            Self::Child(member) => *member,
            Self::Other(held) => held.member,
        }
    }

    pub(super) fn kill(&self) -> Sent {
        let pid = self.member().process.pid;
        sent(
            pid,
            match self {
                Self::Child(_) => kill::kill_child(pid),
                Self::Other(held) => held.handle.kill(),
            },
        )
    }

    /// Whether its pid is still its own for certain: that of our child is until we reap it.
    pub(super) fn is_there(&self) -> bool {
        match self {
            Self::Child(_) => true,
            Self::Other(held) => !held.handle.has_ended().unwrap_or(true),
        }
    }

    /// SIGKILL to all of its group at once, if that is certain to belong to the tree.
    pub(super) fn kill_group(&self) {
        let TreeMember { process, evidence } = self.member();
        if evidence.is_born() {
            // The members that this misses are killed one by one.
            let _one_by_one = match self {
                Self::Child(_) => kill::kill_group_of_child(process.pid),
                Self::Other(held) if process.group == process.pid => held.handle.kill_group(),
                Self::Other(_) => return,
            };
        }
    }
}

pub(super) fn sent(pid: i32, result: io::Result<()>) -> Sent {
    match result {
        Ok(()) => Sent::Delivered,
        Err(error) => {
            if error.raw_os_error() != Some(libc::ESRCH) {
                tracing::debug!(pid, %error, "kill failed");
            }
            if error.raw_os_error() == Some(libc::EPERM) { Sent::Refused } else { Sent::Missed }
        }
    }
}
