//! Processes and their descendants, by what `/proc` or libproc shows of them.

use super::proc::{self, Stat};
use super::process::Handle;
use std::io;

/// All processes that descend from this one now, as far as they can be seen.
#[must_use]
pub fn descendants_of(pid: i32) -> Vec<Handle> {
    let mut family: Vec<Stat> = living(pid).ok().flatten().into_iter().collect();
    let mut next = 0;
    while let Some(parent) = family.get(next) {
        let children = children_of(parent).unwrap_or_default();
        next += 1;
        for child in children {
            if family.iter().all(|known| known.pid != child.pid) {
                family.push(child);
            }
        }
    }
    let below = family.into_iter().skip(1);
    below
        .filter_map(|process| Handle::open(process.pid).ok().filter(|h| h.start_time() == process.start_time))
        .collect()
}

/// The process that has this pid; `None` if it is dead or cannot be seen.
///
/// # Errors
/// EMFILE and the like.
pub fn living(pid: i32) -> io::Result<Option<Stat>> {
    match proc::stat(pid) {
        Ok(process) => Ok(Some(process).filter(|process| !process.is_dead())),
        Err(error) if is_unseen(&error) => Ok(None),
        Err(error) => Err(error),
    }
}

/// Whether a process is gone, is hidden (`hidepid`, see proc(5)), or blocks the reads about it. ENOENT comes from the
/// folder in `/proc`, ESRCH from a file that was opened in time, and from macOS.
#[must_use]
pub fn is_unseen(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
        || matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::TimedOut)
}

/// The living children of the process that was seen as `parent`.
///
/// # Errors
/// No lists of children in `/proc`; EMFILE and the like.
pub fn children_of(parent: &Stat) -> io::Result<Vec<Stat>> {
    let pids = match proc::children_of(parent.pid) {
        Err(error) if living(parent.pid)?.is_some() => return Err(error),
        pids => pids.unwrap_or_default(),
    };
    let mut children = Vec::new();
    for pid in pids {
        children.extend(living(pid)?.filter(|child| child.parent == parent.pid));
    }
    // They were its children only if its pid was its own all the while.
    let is_same = children.is_empty() || living(parent.pid)?.is_some_and(|now| now.start_time == parent.start_time);
    Ok(if is_same { children } else { Vec::new() })
}
