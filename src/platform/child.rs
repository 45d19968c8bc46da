//! Ended children, on either kernel.

use super::proc;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};
use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

/// Removes a zombie child of ours. Nothing happens if there is none.
pub fn reap(pid: i32) {
    // If it is no child of ours, or is gone already, nothing is left to do.
    let _ignored = is_reaped(pid);
}

/// Whether this pid is a child of ours that has ended, all of its threads included, and was not reaped.
#[must_use]
pub fn is_zombie_child(pid: i32) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    positive(pid).is_some_and(|pid| matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(Some(_))))
}

/// 0 and negative numbers name groups and everybody in kill(2): they never get that far.
pub(super) fn positive(pid: i32) -> Option<Pid> {
    if pid > 0 { Pid::from_raw(pid) } else { None }
}

/// The children that somebody here waits for. A process has one set of children, whoever in it asks: hence one list.
static CLAIMED: Mutex<BTreeSet<i32>> = Mutex::new(BTreeSet::new());

/// Keeps [`reap_unclaimed`] from a child, and the sweep of a gateway's orphans too. To be called in the turn in which it
/// was started.
pub fn claim(pid: i32) {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).insert(pid);
}

/// Takes that back.
pub fn unclaim(pid: i32) {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).remove(&pid);
}

/// Reaps every dead child that nobody here waits for. One SIGCHLD may stand for many of them.
pub fn reap_unclaimed() {
    // Where the children cannot be listed now, the next call takes these too. An orphan may come, and end, meanwhile.
    while let Ok(children) = proc::children() {
        let reaped = children.into_iter().filter(|&pid| !is_claimed(pid) && is_reaped(pid)).count();
        if reaped == 0 {
            return;
        }
    }
}

/// Whether this pid was a zombie child of ours, which is gone now.
fn is_reaped(pid: i32) -> bool {
    positive(pid).is_some_and(|pid| matches!(rustix::process::waitpid(Some(pid), WaitOptions::NOHANG), Ok(Some(_))))
}

/// The children that somebody here waits for.
#[must_use]
pub fn claimed() -> BTreeSet<i32> {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Whether somebody here waits for this child.
#[must_use]
pub fn is_claimed(pid: i32) -> bool {
    CLAIMED.lock().unwrap_or_else(PoisonError::into_inner).contains(&pid)
}
