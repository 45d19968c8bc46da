//! The start of a process of ours so that all that it starts can be found again: in a session and a control group of its
//! own, with an rlimit tag, and with an id in its environment.

use super::tree::Orphans;
use crate::platform::cgroup::{self, Leaf};
use crate::platform::process::{self, EndWatch, Exec, Handle, Setup, Spawned};
use crate::platform::random;
use crate::platform::rlimit_tag::RlimitTag;
use crate::platform::{standard_streams, working_directory};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::process::Command;
use std::sync::{Arc, Once};
use std::time::Duration;
use tokio::time::timeout;

/// The first and the longest pause before another try to remove a control group that is not empty.
const RETRIES: [Duration; 2] = [Duration::from_millis(20), Duration::from_mins(1)];

/// How long the execve(2) of a child may take before it counts as done. A local file system takes a few milliseconds; a
/// dead one may hold it up for ever, and what is started has to be known in order to be killed.
const EXEC_TIME_MAX: Duration = Duration::from_secs(2);

/// What is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessKind {
    Gateway,
    Hook,
}

impl ProcessKind {
    /// The prefix of the names of their control groups; an id follows.
    pub(super) fn leaf_prefix(self) -> &'static str {
        match self {
            Self::Gateway => "openclaw-gateway-",
            Self::Hook => "openclaw-hook-",
        }
    }

    pub(super) fn leaf_name(self, id: &str) -> String {
        format!("{}{id}", self.leaf_prefix())
    }

    /// The tag that goes with an id. A hook that cannot be killed may live beside a gateway: their tags always differ.
    pub(super) fn tag_of(self, id: &str) -> Option<RlimitTag> {
        let digits = id.get(id.len().saturating_sub(16)..).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let seed = digits.unwrap_or(0);
        RlimitTag::new(match self {
            Self::Gateway => seed & !1,
            Self::Hook => seed | 1,
        })
    }

    /// Removes the empty control groups with this key as prefix: supervisors that were killed leave them behind.
    pub(super) fn clear_leaves(self, key: &str) {
        cgroup::remove_empty(&self.leaf_name(&format!("{key}-")));
    }
}

/// A process that was started. It is claimed.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) leader: Arc<Handle>,
    pub(super) watch: EndWatch,
    pub(super) exec: Exec,
    pub(super) leaf: Option<Arc<Leaf>>,
    pub(super) tag: Option<RlimitTag>,
}

/// Why nothing was started.
#[derive(Debug)]
pub(super) enum SpawnError {
    /// clone3(2).
    Spawn(io::Error),
    /// Its exit could not be watched.
    Watch(io::Error),
}

/// What a child gets as standard output and error; `None` if ours.
pub type Streams = [Option<File>; 2];

/// To be called before a start, beside the event loop: it blocks on the file systems of the working directory and of the log
/// file.
#[must_use]
pub fn prepare() -> Streams {
    working_directory::ensure();
    standard_streams::for_child()
}

/// Starts a command with this id. [`executed`] returns whether execve(2) succeeded. Nothing here waits for another process or
/// for a file system of the user: see [`prepare`].
pub(super) fn start(
    command: &mut Command,
    input: Option<BorrowedFd<'_>>,
    [output, errors]: &Streams,
    kind: ProcessKind,
    id: &str,
) -> Result<Started, SpawnError> {
    let leaf = Leaf::create(&kind.leaf_name(id));
    if let Err(error) = &leaf {
        tracing::debug!(%error, "no control group for a {kind:?}");
    }
    let (mut leaf, tag) = (leaf.ok().map(Arc::new), kind.tag_of(id));
    let streams = [input, output.as_ref().map(File::as_fd), errors.as_ref().map(File::as_fd)];
    let setup = Setup { leaf: leaf.as_deref(), tag, streams };
    let Spawned { handle: leader, outside, exec } = process::spawn(command, setup).map_err(|error| {
        retire(leaf.as_ref());
        SpawnError::Spawn(error)
    })?;
    process::claim(leader.pid());
    if let Some(error) = outside {
        tracing::debug!(%error, "a {kind:?} could not be created in its control group");
        retire(leaf.take().as_ref());
    }
    let watch = leader.watch().map_err(|error| {
        let _gone = (leader.kill(), leaf.as_ref().map(|leaf| leaf.kill()));
        process::unclaim(leader.pid());
        process::reap(leader.pid());
        retire(leaf.as_ref());
        SpawnError::Watch(error)
    })?;
    Ok(Started { leader: Arc::new(leader), watch, exec, leaf, tag })
}

/// Waits for the execve(2) of a child, for [`EXEC_TIME_MAX`] at most.
///
/// # Errors
/// That of execve(2): the child is exiting.
pub(super) async fn executed(exec: Exec, pid: i32) -> io::Result<()> {
    timeout(EXEC_TIME_MAX, exec.done()).await.unwrap_or_else(|_| {
        let seconds = EXEC_TIME_MAX.as_secs();
        tracing::warn!(
            pid,
            "execve(2) has not returned for {seconds}s: the file system of the program does not answer"
        );
        Ok(())
    })
}

/// Warns once if nothing but an environment shows orphans of ours, and other orphans may come to us too.
pub(super) fn warn_if_blind(started: &Started, orphans: Orphans) {
    static ONCE: Once = Once::new();
    let is_blind = orphans == Orphans::Mixed && started.leaf.is_none() && started.tag.is_none();
    // Elsewhere no orphan ever comes to us.
    if cfg!(target_os = "linux") && is_blind {
        ONCE.call_once(|| {
            tracing::warn!(
                "a daemon that clears its environment cannot be recognised here and would be left running: no control \
                 group is writable, and no resource limit leaves room for a tag; raise 'ulimit -q' to 262144 or more"
            );
        });
    }
}

/// Removes a control group now, or as soon as it is empty.
pub(super) fn retire(leaf: Option<&Arc<Leaf>>) {
    let Some(leaf) = leaf.filter(|leaf| !leaf.try_remove()) else { return };
    let leaf = Arc::clone(leaf);
    tokio::spawn(async move {
        let [mut pause, longest] = RETRIES;
        while !leaf.try_remove() {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(longest);
        }
    });
}

/// A new id: the key, and 128 random bits.
pub(super) fn new_id(key: &str) -> String {
    format!("{key}-{}", random::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_two_ids_are_the_same_and_all_begin_with_the_key() {
        let (one, other) = (new_id("0123456789abcdef"), new_id("0123456789abcdef"));
        assert_ne!(one, other);
        let random = one.strip_prefix("0123456789abcdef-").unwrap();
        assert!(random.len() == 32 && random.bytes().all(|digit| digit.is_ascii_hexdigit()), "{random}");
    }

    #[test]
    fn a_hook_never_has_the_tag_of_a_gateway() {
        for _ in 0..100 {
            let id = new_id("k");
            let (gateway, hook) = (ProcessKind::Gateway.tag_of(&id), ProcessKind::Hook.tag_of(&id));
            assert!(gateway.is_none() || gateway != hook, "{id}");
        }
    }
}
