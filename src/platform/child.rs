//! Our children and their end, on either kernel.

use super::proc;
use rustix::process::{Pid, WaitId, WaitIdOptions, WaitOptions};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

/// Reaps a zombie child of ours, if it is one.
pub fn reap(pid: i32) {
    let _none = is_reaped(pid);
}

/// Whether this pid is a child of ours that has ended, all of its threads included, and was not reaped.
#[must_use]
pub fn is_zombie_child(pid: i32) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    positive(pid).is_some_and(|pid| matches!(rustix::process::waitid(WaitId::Pid(pid), options), Ok(Some(_))))
}

/// 0 and negative numbers name groups and all processes in kill(2): they never get that far.
pub(super) fn positive(pid: i32) -> Option<Pid> {
    if pid > 0 { Pid::from_raw(pid) } else { None }
}

/// A process has one set of children, shared by all its threads: hence one list.
static CHILDREN: Mutex<Children> =
    Mutex::new(Children { claimed: BTreeSet::new(), turns: Vec::new(), is_reaping_due: false });

struct Children {
    /// Children with a waiter.
    claimed: BTreeSet<i32>,
    /// The threads that need the pids of children to stay valid.
    turns: Vec<ThreadId>,
    is_reaping_due: bool,
}

fn lock() -> MutexGuard<'static, Children> {
    CHILDREN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A child of ours may have ended.
#[cfg(target_os = "linux")]
static ENDED: tokio::sync::Notify = tokio::sync::Notify::const_new();

/// Ready at the next SIGCHLD after this call, for a kernel that cannot watch one process.
#[cfg(target_os = "linux")]
pub(super) fn ended() -> tokio::sync::futures::Notified<'static> {
    ENDED.notified()
}

/// Keeps [`reap_unclaimed`] and the kill of another tree from a child. To be called in the turn of the loop in which it
/// was started.
pub fn claim(pid: i32) {
    lock().claimed.insert(pid);
}

/// Takes that back.
pub fn unclaim(pid: i32) {
    lock().claimed.remove(&pid);
}

/// The claimed children.
#[must_use]
pub fn claimed() -> BTreeSet<i32> {
    lock().claimed.clone()
}

/// Whether this child is claimed.
#[must_use]
pub fn is_claimed(pid: i32) -> bool {
    lock().claimed.contains(&pid)
}

/// While a thread has it, [`reap_unclaimed`] reaps nothing, so that the pid of a child is as good as a handle to it.
#[must_use = "dropping it ends the turn"]
#[derive(Debug)]
pub struct Turn(ThreadId);

impl Turn {
    /// That of this thread, which has none yet.
    pub fn begin() -> Self {
        let thread = thread::current().id();
        lock().turns.push(thread);
        Self(thread)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let is_due = {
            let mut children = lock();
            children.turns.retain(|turn| *turn != self.0);
            children.turns.is_empty() && std::mem::take(&mut children.is_reaping_due)
        };
        if is_due {
            reap_unclaimed();
        }
    }
}

/// Reaps every dead child that is not claimed, now or at the end of the last [`Turn`]. One SIGCHLD may stand for many of
/// them.
pub fn reap_unclaimed() {
    #[cfg(target_os = "linux")]
    ENDED.notify_waiters();
    // If the children cannot be listed now, the next call takes these too. Orphans may come, and end, meanwhile.
    while let Ok(pids) = proc::children() {
        let mut children = lock();
        children.turns.retain(|turn| !proc::was_left_behind(*turn));
        if !children.turns.is_empty() {
            children.is_reaping_due = true;
            return;
        }
        if pids.into_iter().filter(|&pid| !children.claimed.contains(&pid) && is_reaped(pid)).count() == 0 {
            return;
        }
    }
}

/// Whether this pid was a zombie child of ours, which is gone now.
fn is_reaped(pid: i32) -> bool {
    positive(pid).is_some_and(|pid| matches!(rustix::process::waitpid(Some(pid), WaitOptions::NOHANG), Ok(Some(_))))
}
