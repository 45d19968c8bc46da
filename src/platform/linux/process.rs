//! Processes of our own: creating, naming, signalling, watching and reaping them.

pub use super::clone::{Exec, Setup, Spawned, spawn, spawn_in_own_session};
pub use super::handle::{EndWatch, Exit, Handle};
pub use crate::platform::child::{Turn, claim, claimed, is_claimed, is_zombie_child, reap, reap_unclaimed, unclaim};
use std::io;

/// Whether this pid, a zombie, is provably all that is left of our descendants. What a process leaves behind becomes
/// ours, its subreaper's, in the instant in which it ends: if it has ended and the kernel lists no other child of ours,
/// no process is left through which anything could descend from it. If that cannot be told, the answer is no.
#[must_use]
pub fn is_all_that_is_left(pid: i32) -> bool {
    matches!(rustix::process::child_subreaper(), Ok(Some(_)))
        && is_zombie_child(pid)
        && super::proc::listed_children().is_ok_and(|children| children == [pid])
}

/// Makes orphans among our descendants our children, see `PR_SET_CHILD_SUBREAPER` in prctl(2).
///
/// # Errors
/// A kernel before 3.4.
pub fn become_subreaper() -> io::Result<()> {
    Ok(rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?)
}
