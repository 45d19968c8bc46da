//! Ended children, on either kernel.

use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};

/// Removes a zombie child of ours. Nothing happens if there is none.
pub fn reap(pid: i32) {
    // ECHILD means that it is no child of ours, or is gone already: nothing is left to do in either case.
    let _ignored = positive(pid).map(|pid| rustix::process::waitpid(Some(pid), WaitOptions::NOHANG));
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
