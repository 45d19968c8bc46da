//! The start of a process of ours so that all that it starts can be found again: in a session and a control group of its
//! own, with a mark, and with an id in its environment.

use super::tree::Orphans;
use crate::platform::cgroup::{self, Leaf};
use crate::platform::mark::Mark;
use crate::platform::process::{self, Handle, Setup, Spawned, Watch};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::process::Command;
use std::sync::{Arc, Once};
use std::time::Duration;

/// The first and the longest pause before another try to remove a control group that somebody is in.
const RETRIES: [Duration; 2] = [Duration::from_millis(20), Duration::from_mins(1)];

/// What is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Gateway,
    Hook,
}

impl Kind {
    /// What the names of their control groups begin with; an id follows.
    pub(super) fn leaf_prefix(self) -> &'static str {
        match self {
            Self::Gateway => "openclaw-gateway-",
            Self::Hook => "openclaw-hook-",
        }
    }

    /// The control group of one, by its id.
    pub(super) fn leaf_name(self, id: &str) -> String {
        format!("{}{id}", self.leaf_prefix())
    }

    /// The mark of one, by its id. A hook that cannot be killed may live beside a gateway: theirs are never the same.
    pub(super) fn mark_of(self, id: &str) -> Option<Mark> {
        let digits = id.get(id.len().saturating_sub(16)..).and_then(|digits| u64::from_str_radix(digits, 16).ok());
        let seed = digits.unwrap_or(0);
        Mark::new(match self {
            Self::Gateway => seed & !1,
            Self::Hook => seed | 1,
        })
    }

    /// Removes the empty control groups of those whose ids begin with this key: supervisors that were killed, and
    /// members that could not be, leave them behind.
    pub(super) fn clear_leaves(self, key: &str) {
        cgroup::remove_empty(&self.leaf_name(&format!("{key}-")));
    }
}

/// A process that was started and not reaped. Nobody else here reaps it.
#[derive(Debug)]
pub(super) struct Started {
    pub(super) leader: Arc<Handle>,
    pub(super) watch: Watch,
    pub(super) leaf: Option<Arc<Leaf>>,
    pub(super) mark: Option<Mark>,
}

/// Why nothing was started.
#[derive(Debug)]
pub(super) enum Failure {
    /// There never was a process.
    Spawn(io::Error),
    /// There was one, and nobody would have learned of its end.
    Watch(io::Error),
}

/// Starts a command with this id.
pub(super) fn start(command: &mut Command, kind: Kind, id: &str) -> Result<Started, Failure> {
    let leaf = Leaf::create(&kind.leaf_name(id));
    if let Err(error) = &leaf {
        tracing::debug!(%error, "no control group for a {kind:?}");
    }
    let (mut leaf, mark) = (leaf.ok().map(Arc::new), kind.mark_of(id));
    let spawned = process::spawn(command, Setup { leaf: leaf.as_deref(), mark });
    let Spawned { handle: leader, outside } = spawned.map_err(|error| {
        retire(leaf.as_ref());
        Failure::Spawn(error)
    })?;
    process::claim(leader.pid());
    if let Some(error) = outside {
        tracing::debug!(%error, "a {kind:?} could not be born into its control group");
        retire(leaf.take().as_ref());
    }
    let watch = leader.watch().map_err(|error| {
        let _gone = (leader.kill(), leaf.as_ref().map(|leaf| leaf.kill()));
        process::unclaim(leader.pid());
        process::reap(leader.pid());
        retire(leaf.as_ref());
        Failure::Watch(error)
    })?;
    Ok(Started { leader: Arc::new(leader), watch, leaf, mark })
}

/// Says once that nothing but an environment shows orphans of ours where others may come to us too.
pub(super) fn warn_if_blind(started: &Started, orphans: Orphans) {
    static ONCE: Once = Once::new();
    let is_blind = orphans == Orphans::Mixed && started.leaf.is_none() && started.mark.is_none();
    // Elsewhere no orphan ever comes to us.
    if cfg!(target_os = "linux") && is_blind {
        ONCE.call_once(|| {
            tracing::warn!(
                "a daemon that wipes its environment cannot be told from others here and would be left running: no \
                 control group is writable, and no limit leaves room for a mark; raise 'ulimit -q' to 262144 or more"
            );
        });
    }
}

/// Removes a control group now, or as soon as the last one in it has ended.
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

/// A new id: the key, and 128 bits that nobody else has, for `RandomState` is seeded by the system.
pub(super) fn new_id(key: &str) -> String {
    let word = || RandomState::new().build_hasher().finish();
    format!("{key}-{:016x}{:016x}", word(), word())
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
    fn a_hook_never_has_the_mark_of_a_gateway() {
        for _ in 0..100 {
            let id = new_id("k");
            let (gateway, hook) = (Kind::Gateway.mark_of(&id), Kind::Hook.mark_of(&id));
            assert!(gateway.is_none() || gateway != hook, "{id}");
        }
    }
}
