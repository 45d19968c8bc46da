//! Whose listener it is.

use std::net::SocketAddr;

use crate::core::{Holder, Owner};
use crate::gateway::adopt;
use crate::platform::{listener, proc};

/// More generations than a tree of processes has; a pid that is reused during the walk could make a circle.
const ANCESTORS_MAX: usize = 64;

/// Who listens on `address`, and whether it belongs to the tree of `leader`, or without one bears the `key`.
pub(super) fn find(address: SocketAddr, leader: Option<i32>, key: Option<&str>) -> Owner {
    // What cannot be read (hidepid, another user, no /proc) is not seen.
    let pids = listener::find(address, leader).unwrap_or_default();
    let Some(leader) = leader else {
        // Of several that hold the socket one of ours is as good as all: they share it.
        let owners: Vec<_> = pids.into_iter().filter_map(|pid| name(pid, key)).collect();
        let ours = owners.iter().find(|owner| matches!(owner, Owner::Ours(_)));
        return ours.or(owners.first()).cloned().unwrap_or(Owner::Unseen);
    };
    if let Some(holder) = pids.iter().find(|&&pid| belongs_to(pid, leader)).and_then(|&pid| holder(pid)) {
        return Owner::Ours(holder);
    }
    pids.into_iter().find_map(holder).map_or(Owner::Unseen, Owner::Other)
}

/// A process that is not known to be of our child's tree: ours all the same if it bears the `key`.
pub(super) fn name(pid: i32, key: Option<&str>) -> Option<Owner> {
    let holder = holder(pid)?;
    Some(if key.is_some_and(|key| adopt::bears_key(pid, key)) { Owner::Ours(holder) } else { Owner::Other(holder) })
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
