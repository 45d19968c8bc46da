//! One sample of what a gateway uses, and of what keeps it from answering.

use super::tree::Tree;
use crate::core::{BlockedWrite, Depth, Holder, Usage};
use crate::platform::process::Handle;
use crate::platform::{proc, stall, usage};

/// How many processes in a row are followed that wait in a write to one another, as in `gateway | tee log`.
const CHAIN_MAX: usize = 4;

/// What of a gateway is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Sampling {
    /// The process that listens, where that is known: a launcher need not be the gateway.
    pub listener: Option<i32>,
    pub depth: Depth,
    /// Also the memory of the whole tree.
    pub tree: bool,
}

/// Reads `/proc`, so it belongs into a [`proc::run`]. The tree's memory is left out.
pub(super) fn read(leader: &Handle, mut tree: Tree, sampling: Sampling) -> Usage {
    let Sampling { listener, depth, .. } = sampling;
    let listener = listener.filter(|&pid| is_member(pid, leader, &tree));
    let pid = listener.unwrap_or(leader.pid());
    let Ok(used) = usage::of(pid) else { return Usage::default() };
    if pid == leader.pid() && used.start_time != leader.start_time() {
        return Usage::default();
    }
    let usage = Usage {
        cpu: Some(used.cpu),
        rss_kb: Some(used.rss_kb),
        major_faults: Some(used.major_faults),
        ..Usage::default()
    };
    if depth < Depth::Stall {
        return usage;
    }
    // While nothing listens, the gateway may be any process behind a launcher.
    let subjects = if listener.is_some() { vec![pid] } else { pids(&mut tree, leader) };
    let blocked = subjects.into_iter().find_map(|pid| Some((pid, blocked(pid, &mut tree, leader, depth)?)));
    let (writer, blocked) = blocked.map_or((pid, None), |(writer, blocked)| (writer, Some(blocked)));
    Usage {
        waited: stall::waited(pid),
        turns: stall::turns(writer),
        throttled: stall::throttled(pid),
        pressure: stall::pressure(pid),
        runnable: used.runnable,
        blocked,
        ..usage
    }
}

/// Whether a process that was seen listening is one of this tree.
pub(super) fn is_member(pid: i32, leader: &Handle, tree: &Tree) -> bool {
    proc::stat(pid).is_ok_and(|stat| stat.session == leader.pid() || stat.group == leader.pid() || tree.was_seen(&stat))
}

fn pids(tree: &mut Tree, leader: &Handle) -> Vec<i32> {
    let members = tree.snapshot().into_iter().map(|(pid, _)| pid);
    std::iter::once(leader.pid()).chain(members.filter(|&pid| pid != leader.pid())).collect()
}

/// A write that waits for a process outside the tree. One that waits for a member waits for what that one waits for: if
/// that is nothing outside, a kill of the tree helps. So it does where it alone could read its own pipe.
fn blocked(pid: i32, tree: &mut Tree, leader: &Handle, depth: Depth) -> Option<BlockedWrite> {
    let (stream, file) = stall::blocked_write(pid)?;
    let own = |reader: Option<Holder>| BlockedWrite { stream: stream.to_owned(), file: file.clone(), reader };
    if depth < Depth::Reader {
        return Some(own(None));
    }
    let members = pids(tree, leader);
    let (mut subject, mut written) = (pid, file.clone());
    for _ in 0..CHAIN_MAX {
        let readers = stall::readers_of(&written);
        if written.starts_with("pipe:") && readers == [subject] {
            return None;
        }
        let (inside, outside): (Vec<_>, Vec<_>) =
            readers.into_iter().filter(|&reader| reader != subject).partition(|reader| members.contains(reader));
        let holder = |pid: i32| {
            let command = proc::command_of(pid)?;
            Some(Holder { pid, command, uid: proc::uid_of(pid) })
        };
        match inside.first() {
            Some(&member) if outside.is_empty() => {
                subject = member;
                written = stall::blocked_write(member)?.1;
            }
            Some(_) | None => return Some(own(outside.into_iter().find_map(holder))),
        }
    }
    None
}
