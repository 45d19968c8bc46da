//! The process that holds a listener.

use crate::core::{Holder, Owner};
use crate::gateway::adopt;
use crate::platform::{listener, proc};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// More levels than a process tree has; a pid that is reused during the walk could make it loop.
const ANCESTORS_MAX: usize = 64;

/// What is known of the process that serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Served {
    /// It was not seen to serve yet.
    #[default]
    Never,
    /// The owner of its listener cannot be seen.
    Unseen,
    By(i32),
}

/// The process that listens on `address`. Ours if it is in the tree of `leader` or, without one, carries `mark`.
pub(super) fn find(address: SocketAddr, leader: Option<i32>, mark: Option<&Mark>) -> Owner {
    // Unreadable (hidepid, another user, no /proc) counts as unseen.
    let pids = listener::find(address, leader).unwrap_or_default();
    let Some(leader) = leader else {
        // Processes that hold the same socket share it: one of ours makes it ours.
        let owners: Vec<_> = pids.into_iter().filter_map(|pid| identify(pid, mark)).collect();
        let ours = owners.iter().find(|owner| matches!(owner, Owner::Ours(_)));
        return ours.or(owners.first()).cloned().unwrap_or_else(|| unseen(address));
    };
    if let Some(holder) = pids.iter().find(|&&pid| belongs_to(pid, leader)).and_then(|&pid| holder(pid)) {
        return Owner::Ours(holder);
    }
    pids.into_iter().find_map(holder).map_or_else(|| unseen(address), Owner::Other)
}

/// Of a process that cannot be seen, the user may still be known.
fn unseen(address: SocketAddr) -> Owner {
    let user = listener::user_of(address).ok().flatten();
    user.filter(|uid| *uid != rustix::process::geteuid().as_raw()).map_or(Owner::Unseen, |uid| Owner::Hidden { uid })
}

/// What shows a gateway of ours that is not our child.
#[derive(Debug, Clone)]
pub(super) struct Mark {
    /// Prefix of our gateways' instance ids.
    key: String,
    /// The user of our last gateway: it may not be our own. [`NO_USER`] if unknown.
    uid: Arc<AtomicU32>,
}

/// It never is a user's number, see setuid(2).
const NO_USER: u32 = u32::MAX;

impl Mark {
    pub(super) fn new(key: String) -> Self {
        Self { key, uid: Arc::new(AtomicU32::new(NO_USER)) }
    }

    pub(super) fn set_user(&self, uid: u32) {
        self.uid.store(uid, Ordering::Relaxed);
    }

    fn is_on(&self, pid: i32) -> bool {
        let uid = Some(self.uid.load(Ordering::Relaxed)).filter(|uid| *uid != NO_USER);
        adopt::bears_key(pid, &self.key, uid)
    }
}

/// A process that is not known to be in our child's tree is still ours if it carries `mark`.
pub(super) fn identify(pid: i32, mark: Option<&Mark>) -> Option<Owner> {
    let holder = holder(pid)?;
    Some(if mark.is_some_and(|mark| mark.is_on(pid)) { Owner::Ours(holder) } else { Owner::Other(holder) })
}

/// A session or group counts only if the leader created it: a shell's own holds many unrelated processes.
fn belongs_to(pid: i32, leader: i32) -> bool {
    let mut current = pid;
    for _ in 0..ANCESTORS_MAX {
        if current == leader {
            return true;
        }
        match proc::stat(current) {
            Ok(stat) if stat.session == leader || stat.group == leader => return true,
            Ok(stat) if stat.parent > 1 => current = stat.parent,
            Ok(_) | Err(_) => return false,
        }
    }
    false
}

pub(super) fn holder(pid: i32) -> Option<Holder> {
    let command = proc::command_of(pid)?;
    Some(Holder { pid, command, uid: proc::uid_of(pid) })
}
