//! SIGKILL to children by pid. In a [`Turn`](super::child::Turn) no child is reaped, and the pid is as good as a handle:
//! it costs no descriptor, and no time that a process which forks all the while would use.

use super::child::positive;
use super::proc;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::io;

/// SIGKILL to a child of ours.
///
/// # Errors
/// ECHILD if it is none; `TimedOut` if this thread was left behind, and its turn is over.
pub fn kill_child(pid: i32) -> io::Result<()> {
    let name = positive(pid).ok_or(io::ErrorKind::InvalidInput)?;
    has_ended(name)?;
    if proc::is_left_behind() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    Ok(rustix::process::kill_process(name, Signal::KILL)?)
}

/// SIGKILL to the whole process group of a child, at once: a process that is being forked gets the signal too, or is
/// never created. The caller knows that the session of the child was made below us; a group never spans two sessions.
///
/// # Errors
/// ECHILD if it is no child; EPERM if the group is ours, or if its number could be that of another group by now: it is
/// fixed only if it is the pid of the child, or if the child is a zombie and cannot leave the group any more. `TimedOut` as
/// with [`kill_child`], or if the read of its group is stuck.
pub fn kill_group_of_child(pid: i32) -> io::Result<()> {
    let name = positive(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let is_zombie = has_ended(name)?;
    let child = proc::stat(pid)?;
    // Both are 0 if they were made outside our pid namespace (pid_namespaces(7)): no pid as rustix has it.
    let (our_group, our_session) = (nix::unistd::getpgrp().as_raw(), nix::unistd::getsid(None)?.as_raw());
    let group =
        positive(child.group).filter(|&group| group != Pid::INIT && child.group != our_group).ok_or(Errno::PERM)?;
    if [0, our_session].contains(&child.session) || !(is_zombie || group == name) {
        return Err(Errno::PERM.into());
    }
    Ok(rustix::process::kill_process_group(group, Signal::KILL)?)
}

/// SIGKILL to the process group with the pid of a child of ours as its number, without a look at it: until that child is
/// reaped, the number is its own, and so is a group that has it.
///
/// # Errors
/// ECHILD if it is no child; ESRCH if there is no such group; EPERM if the group is ours; `TimedOut` as with [`kill_child`].
pub fn kill_group_led_by_child(pid: i32) -> io::Result<()> {
    let name = positive(pid).ok_or(io::ErrorKind::InvalidInput)?;
    has_ended(name)?;
    if proc::is_left_behind() {
        return Err(io::ErrorKind::TimedOut.into());
    }
    if pid == nix::unistd::getpgrp().as_raw() {
        return Err(Errno::PERM.into());
    }
    Ok(rustix::process::kill_process_group(name, Signal::KILL)?)
}

/// Whether this is a child of ours, dead or alive, that was not reaped.
#[must_use]
pub fn is_child(pid: i32) -> bool {
    positive(pid).is_some_and(|pid| has_ended(pid).is_ok())
}

/// Whether this is a child of ours that has not ended.
#[must_use]
pub fn is_living_child(pid: i32) -> bool {
    positive(pid).is_some_and(|pid| matches!(has_ended(pid), Ok(false)))
}

/// Whether a child of ours has ended. It stays a zombie.
///
/// # Errors
/// ECHILD if it is none.
pub(super) fn has_ended(pid: Pid) -> io::Result<bool> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(rustix::process::waitid(WaitId::Pid(pid), options)?.is_some())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::platform::process::{is_zombie_child, reap, spawn_in_own_session};
    use std::os::unix::process::CommandExt;
    use std::process::Command;

    #[test]
    #[expect(clippy::zombie_processes, reason = "they are reaped by what is tested beside")]
    fn only_children_are_killed_and_never_our_own_group() {
        let parent = std::os::unix::process::parent_id().cast_signed();
        for pid in [0, -1, i32::MIN, 1, parent, i32::MAX] {
            assert!(kill_child(pid).is_err() && kill_group_of_child(pid).is_err(), "{pid}");
        }
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        assert!(is_living_child(pid) && !is_living_child(1) && !is_living_child(0));
        let same_session = Command::new("sleep").arg("60").process_group(0).spawn().unwrap();
        for pid in [pid, same_session.id().cast_signed()] {
            assert_eq!(kill_group_of_child(pid).unwrap_err().raw_os_error(), Some(libc::EPERM));
            kill_child(pid).unwrap();
            while !is_zombie_child(pid) {
                std::thread::yield_now();
            }
            assert_eq!(kill_group_of_child(pid).unwrap_err().raw_os_error(), Some(libc::EPERM));
            assert!(is_child(pid) && !is_living_child(pid));
            reap(pid);
        }
    }

    #[test]
    fn a_zombie_still_names_its_group() {
        let mut command = Command::new("sh");
        let child = spawn_in_own_session(command.args(["-c", "sleep 60 & echo"]).stdout(std::process::Stdio::null()));
        let pid = child.unwrap().pid();
        while !is_zombie_child(pid) {
            std::thread::yield_now();
        }
        let in_group = || proc::processes().unwrap().into_iter().filter(|other| other.group == pid && !other.is_dead());
        assert_eq!(in_group().count(), 1);
        kill_group_of_child(pid).unwrap();
        while in_group().count() > 0 {
            std::thread::yield_now();
        }
        reap(pid);
    }
}
