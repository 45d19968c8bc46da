//! Who we are, and whether somebody else who left his name still lives.

use crate::core::Holder;
use crate::core::lease::{Basis, Life};
use crate::platform::{machine, proc};
use rustix::io::Errno;
use rustix::process::{Pid, test_kill_process};
use std::hash::{BuildHasher, Hasher, RandomState};

/// A process that has, had or wants the lease. What a row does not tell, or tells as nonsense, is missing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Identity {
    /// 128 random bits that no other has.
    pub owner: Option<String>,
    /// Process id.
    pub pid: Option<i32>,
    /// Start time, as in [`proc::Stat`].
    pub start_time: Option<u64>,
    /// The boot in which that process id means something.
    pub boot_id: Option<String>,
    /// The pid namespace in which it does.
    pub pid_namespace: Option<u64>,
    /// The machine or container, for people.
    pub host: Option<String>,
}

impl Identity {
    /// This process, under a name that is new with each call.
    #[must_use]
    pub fn ours(boot_id: Option<String>) -> Self {
        let pid = std::process::id().cast_signed();
        Self {
            owner: Some(random_id()),
            pid: Some(pid),
            start_time: proc::stat(pid).ok().map(|stat| stat.start_time),
            boot_id,
            pid_namespace: machine::pid_namespace(),
            host: machine::host_name(),
        }
    }

    /// Whether he lives, as far as we can tell.
    #[must_use]
    pub fn life(&self, us: &Self, basis: Basis) -> Life {
        if us.boot_id.is_none() || self.boot_id.is_none() {
            return Life::Unknown;
        }
        if self.boot_id != us.boot_id {
            // On a file system that other machines have too it may be one of theirs.
            return match basis {
                Basis::Lock => Life::Gone("the machine was started again since"),
                Basis::Heartbeat => Life::Unknown,
            };
        }
        let (Some(pid), Some(start_time)) = (self.pid.filter(|pid| *pid > 0), self.start_time) else {
            return Life::Unknown;
        };
        if self.pid_namespace != us.pid_namespace {
            return Life::Unknown;
        }
        match proc::stat(pid) {
            Ok(stat) if stat.start_time != start_time => Life::Gone("its process id belongs to another process now"),
            Ok(stat) if stat.is_dead() => Life::Gone("its process has ended"),
            Ok(_) => Life::Alive,
            // A process that `hidepid` hides is not seen either; a signal tells it from one that is not there.
            Err(_) if is_missing(pid) => Life::Gone("its process does not exist any more"),
            Err(_) => Life::Unknown,
        }
    }

    /// The same for people, of one who lives in our pid namespace.
    #[must_use]
    pub fn holder(&self) -> Option<Holder> {
        self.pid.and_then(holder)
    }
}

/// The process that has this pid here and now.
pub(super) fn holder(pid: i32) -> Option<Holder> {
    let command = proc::command_of(pid)?;
    Some(Holder { pid, command, uid: proc::uid_of(pid) })
}

fn is_missing(pid: i32) -> bool {
    Pid::from_raw(pid).is_some_and(|pid| test_kill_process(pid) == Err(Errno::SRCH))
}

/// `RandomState` is seeded by the system.
fn random_id() -> String {
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Command, Stdio};

    fn ours() -> Identity {
        Identity::ours(machine::boot_id())
    }

    #[test]
    fn we_live_and_no_two_of_us_have_one_name() {
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
        assert_eq!(it.life(&us, Basis::Heartbeat), Life::Gone("its process has ended"));
        child.wait().unwrap();
        assert!(matches!(it.life(&us, Basis::Heartbeat), Life::Gone(_)));
    }

    #[test]
    fn nothing_is_told_of_another_namespace_boot_or_a_row_without_sense() {
        let us = ours();
        for stranger in [
            Identity { pid_namespace: Some(1), ..us.clone() },
            Identity { boot_id: Some("another".to_owned()), ..us.clone() },
            Identity { boot_id: None, ..us.clone() },
            Identity { pid: None, ..us.clone() },
            Identity { pid: Some(-1), ..us.clone() },
            Identity { start_time: None, ..us.clone() },
            Identity::default(),
        ] {
            assert_eq!(stranger.life(&us, Basis::Heartbeat), Life::Unknown, "{stranger:?}");
        }
        let earlier = Identity { boot_id: Some("another".to_owned()), ..us.clone() };
        assert!(matches!(earlier.life(&us, Basis::Lock), Life::Gone(_)), "a local disk was here all the time");
        assert_eq!(us.life(&Identity { boot_id: None, ..us.clone() }, Basis::Lock), Life::Unknown);
    }
}
