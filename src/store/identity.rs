//! Identifies the owner of a lease, and tells whether it is alive.

use crate::core::Holder;
use crate::core::lease::{Basis, Life};
use crate::platform::{machine, proc, random};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};

/// A current, former or future owner of the lease. `None` for a missing or invalid column.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// 128 random bits.
    pub owner: Option<String>,
    pub pid: Option<i32>,
    /// Start time, as in [`proc::Stat`].
    pub start_time: Option<u64>,
    /// The boot in which the pid is valid.
    pub boot_id: Option<String>,
    /// The namespace in which it is valid.
    pub pid_namespace: Option<u64>,
    /// The machine or container, for display.
    pub host: Option<String>,
}

impl Identity {
    /// This process, with a new random id on each call.
    #[must_use]
    pub fn ours(boot_id: Option<String>) -> Self {
        let pid = std::process::id().cast_signed();
        Self {
            owner: Some(random::id()),
            pid: Some(pid),
            start_time: proc::stat(pid).ok().map(|stat| stat.start_time),
            boot_id,
            pid_namespace: machine::pid_namespace(),
            host: machine::host_name(),
        }
    }

    #[must_use]
    pub fn life(&self, us: &Self, basis: Basis) -> Life {
        if us.boot_id.is_none() || self.boot_id.is_none() {
            return Life::Unknown;
        }
        if self.boot_id != us.boot_id {
            // On a shared file system it may run on another machine.
            return match basis {
                Basis::Lock => Life::Gone("the machine has rebooted since"),
                Basis::Heartbeat => Life::Unknown,
            };
        }
        let (Some(pid), Some(start_time)) = (self.pid.filter(|pid| *pid > 0), self.start_time) else {
            return Life::Unknown;
        };
        if !self.is_here(us) {
            return Life::Unknown;
        }
        match proc::stat(pid) {
            Ok(stat) if stat.start_time != start_time => Life::Gone("its pid belongs to another process now"),
            Ok(stat) if stat.is_dead() => Life::Gone("its process has exited"),
            Ok(_) => Life::Alive,
            // `hidepid` hides a process from /proc, but kill(2) still tells whether it exists.
            Err(_) if is_missing(pid) => Life::Gone("its process no longer exists"),
            Err(_) => Life::Unknown,
        }
    }

    /// Whether its pid means the same process to us.
    #[must_use]
    pub fn is_here(&self, us: &Self) -> bool {
        us.boot_id.is_some() && self.boot_id == us.boot_id && self.pid_namespace == us.pid_namespace
    }

    /// Whether a gateway may outlive this owner, which is gone, where it cannot be seen from here. With PID 1 its whole pid
    /// namespace went, with the last boot all of this machine.
    #[must_use]
    pub fn may_leave_unseen(&self, us: &Self) -> bool {
        let is_same_boot = us.boot_id.is_some() && self.boot_id == us.boot_id;
        !self.is_here(us) && if is_same_boot { self.pid != Some(1) } else { self.host != us.host }
    }

    /// For display; only for a process in our pid namespace.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        self.pid.and_then(holder)
    }
}

/// The process that has this pid now.
pub(super) fn holder(pid: i32) -> Option<Holder> {
    let command = proc::command_of(pid)?;
    Some(Holder { pid, command, uid: proc::uid_of(pid) })
}

/// Whether no living process has this pid.
pub(super) fn is_gone(pid: i32) -> bool {
    proc::stat(pid).map_or_else(|_| is_missing(pid), |process| process.is_dead())
}

fn is_missing(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn ours() -> Identity {
        Identity::ours(machine::boot_id())
    }

    #[test]
    fn we_are_alive_and_each_identity_is_unique() {
        let us = ours();
        assert_eq!(us.life(&us, Basis::Heartbeat), Life::Alive);
        assert_ne!(us.owner, ours().owner);
        assert_eq!(us.holder().unwrap().pid, us.pid.unwrap());
    }

    #[test]
    fn a_recycled_pid_is_not_its_former_owner() {
        let us = ours();
        let before = Identity { start_time: us.start_time.map(|time| time - 1), ..us.clone() };
        assert!(matches!(before.life(&us, Basis::Heartbeat), Life::Gone(why) if why.contains("another process")));
    }

    #[test]
    fn a_zombie_and_a_reaped_process_are_gone() {
        let us = ours();
        let mut child = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let pid = child.id().cast_signed();
        let start_time = proc::stat(pid).unwrap().start_time;
        let it = Identity { pid: Some(pid), start_time: Some(start_time), ..us.clone() };
        assert_eq!(it.life(&us, Basis::Heartbeat), Life::Alive);
        drop(child.stdin.take());
        while !proc::stat(pid).unwrap().is_dead() {
            std::thread::yield_now();
        }
        assert_eq!(it.life(&us, Basis::Heartbeat), Life::Gone("its process has exited"));
        child.wait().unwrap();
        assert!(matches!(it.life(&us, Basis::Heartbeat), Life::Gone(_)));
    }

    #[test]
    fn a_gateway_may_outlive_its_owner_in_another_pid_namespace_and_on_another_machine() {
        let us = Identity { pid: Some(5), ..ours() };
        let elsewhere = Identity { pid_namespace: Some(1), ..us.clone() };
        let rebooted = Identity { boot_id: Some("another".to_owned()), ..us.clone() };
        for (owner, expected) in [
            (us.clone(), false),
            (elsewhere.clone(), true),
            (Identity { pid: Some(1), ..elsewhere }, false),
            (rebooted.clone(), false),
            (Identity { host: Some("another".to_owned()), ..rebooted }, true),
        ] {
            assert_eq!(owner.may_leave_unseen(&us), expected, "{owner:?}");
        }
    }

    #[test]
    fn another_namespace_another_boot_and_an_invalid_row_are_unknown() {
        let us = ours();
        for other in [
            Identity { pid_namespace: Some(1), ..us.clone() },
            Identity { boot_id: Some("another".to_owned()), ..us.clone() },
            Identity { boot_id: None, ..us.clone() },
            Identity { pid: None, ..us.clone() },
            Identity { pid: Some(-1), ..us.clone() },
            Identity { start_time: None, ..us.clone() },
            Identity::default(),
        ] {
            assert_eq!(other.life(&us, Basis::Heartbeat), Life::Unknown, "{other:?}");
        }
        let earlier = Identity { boot_id: Some("another".to_owned()), ..us.clone() };
        assert!(matches!(earlier.life(&us, Basis::Lock), Life::Gone(_)), "a local disk belongs to this machine");
        assert_eq!(us.life(&Identity { boot_id: None, ..us.clone() }, Basis::Lock), Life::Unknown);
    }
}
