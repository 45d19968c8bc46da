//! Whose listener it is.

use std::net::SocketAddr;

use crate::core::{Holder, Owner};
use crate::platform::{listener, proc};

/// More generations than a tree of processes has; a pid that is reused during the walk could make a circle.
const ANCESTORS_MAX: usize = 64;

/// Who listens on `address`, and whether it belongs to the tree of `leader`.
pub(super) fn find(address: SocketAddr, leader: Option<i32>) -> Owner {
    // What cannot be read (hidepid, another user, no /proc) is not seen.
    let pids = listener::find(address, leader).unwrap_or_default();
    if let Some(leader) = leader
        && let Some(holder) = pids.iter().find(|&&pid| belongs_to(pid, leader)).and_then(|&pid| holder(pid))
    {
        return Owner::Ours(holder);
    }
    pids.into_iter().find_map(holder).map_or(Owner::Unseen, Owner::Other)
}

/// A session or group counts as the leader's only where the leader made it: one that starts gateways by hand has many
/// strangers in its own.
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

fn holder(pid: i32) -> Option<Holder> {
    let command = proc::command_of(pid)?;
    Some(Holder { pid, command, uid: proc::uid_of(pid) })
}
