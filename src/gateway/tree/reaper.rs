//! What inherits the orphans of a tree.

use crate::platform::descent::living;
use crate::platform::proc::{self, Stat};
use std::collections::BTreeSet;

/// More levels than a process tree has; a pid that is reused during the walk could make it loop.
const ANCESTORS_MAX: usize = 64;

/// The user manager reaps what its units leave.
const USER_MANAGER: &str = "systemd";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reaper {
    /// As a subreaper, we do.
    Us,
    /// This process has inherited those of another supervisor's gateway.
    Other(i32),
    /// An ancestor of ours, or one of those that reap for others.
    Unknown,
}

impl Reaper {
    /// That of an adopted leader, which is an orphan itself.
    pub(super) fn of_leader(pid: i32) -> Self {
        parent_of(pid).map_or(Self::Unknown, Self::Other)
    }

    /// The one that has inherited the highest of these members.
    pub(super) fn of_members(members: &[(i32, u64)]) -> Self {
        let is_member = |pid: i32| members.iter().any(|&(member, _)| member == pid);
        let alive = |&(pid, start_time): &(i32, u64)| {
            living(pid).ok().flatten().filter(|process: &Stat| process.start_time == start_time)
        };
        let mut parents = members.iter().filter_map(alive).map(|process| process.parent);
        parents.find(|&parent| parent > 0 && !is_member(parent)).map_or(Self::Unknown, Self::Other)
    }

    /// Whether an orphan may have come to this process. That of another pid namespace goes to the first one there.
    pub(super) fn may_be(self, pid: i32, ancestors: &BTreeSet<i32>) -> bool {
        let is_it = match self {
            Self::Us => false,
            Self::Other(reaper) => pid == reaper,
            Self::Unknown => {
                pid == 1 || ancestors.contains(&pid) || proc::name_of(pid).as_deref() == Some(USER_MANAGER)
            }
        };
        is_it || pid != 1 && proc::is_first_of_namespace(pid)
    }
}

/// A process, and those above it.
pub(super) fn ancestors(pid: i32) -> BTreeSet<i32> {
    std::iter::successors(Some(pid), |&pid| parent_of(pid)).take(ANCESTORS_MAX).collect()
}

fn parent_of(pid: i32) -> Option<i32> {
    proc::stat(pid).ok().map(|process| process.parent).filter(|parent| *parent > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    #[test]
    fn the_reaper_of_what_is_left_is_the_first_parent_that_is_no_member() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let named = |pid: u32| proc::stat(pid.cast_signed()).map(|process| (process.pid, process.start_time)).unwrap();
        let (us, it) = (named(std::process::id()), named(child.id()));
        assert_eq!(Reaper::of_members(&[it]), Reaper::Other(us.0));
        assert_eq!(Reaper::of_members(&[it, us]), Reaper::of_leader(us.0));
        assert_eq!(Reaper::of_members(&[(it.0, it.1 + 1)]), Reaper::Unknown, "the pid of another process now");
        drop(child.stdin.take());
        child.wait().unwrap();
    }
}
