//! The members that a kill has found, for its report.

use super::super::installer;
use super::membership::{self, Evidence, TreeMember};
use crate::core::{Layer, TreeEnd};
use crate::platform::proc::{self, Stat};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// How many commands a report names.
pub(super) const NAMED_MAX: usize = 8;

/// How many are read, so that an installer among them is found.
const READ_MAX: usize = 64;

/// Pid and start time.
pub(super) type Name = (i32, u64);

/// A member that had to be killed.
#[derive(Debug)]
struct Killed {
    /// Whether SIGKILL was sent. It is only about to be otherwise.
    is_signalled: bool,
    escaped: bool,
    evidence: Evidence,
    command: Option<String>,
    installs: bool,
}

/// Outlives an attempt on an abandoned worker.
#[derive(Debug, Clone, Default)]
pub(super) struct Toll(Arc<Mutex<BTreeMap<Name, Killed>>>);

impl Toll {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Killed>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes a member down before it is killed: then it loses its command and its environment. The evidence from before
    /// this kill is what counts. `number` is the leader's group.
    pub(super) fn note(&self, member: &TreeMember, number: Option<i32>) {
        let TreeMember { process, evidence } = *member;
        let is_named = {
            let killed = self.lock();
            if killed.contains_key(&name(&process)) {
                return;
            }
            killed.len() <= READ_MAX
        };
        // Without the lock: the read may get stuck.
        let command = is_named.then(|| proc::command_of(process.pid).unwrap_or_default());
        let escaped = Some(process.group) != number;
        let installs = command.as_deref().is_some_and(installer::is_installer);
        let mut killed = self.lock();
        killed.remove(&hidden(process.pid));
        killed.insert(name(&process), Killed { is_signalled: false, escaped, evidence, command, installs });
    }

    pub(super) fn command(&self, member: Name) -> Option<String> {
        self.lock().get(&member)?.command.clone()
    }

    /// Forgets members that are not killed after all.
    pub(super) fn forget(&self, members: &BTreeSet<Name>) {
        self.lock().retain(|member, _| !members.contains(member));
    }

    /// Looks for an installer among the files of these members, unless a command line shows one.
    pub(super) fn seek_installer<'a>(&self, members: impl Iterator<Item = &'a TreeMember>) {
        if self.lock().values().any(|killed| killed.installs) {
            return;
        }
        for member in members.take(READ_MAX).filter(|member| installer::writes_package(member.process.pid)) {
            if let Some(killed) = self.lock().get_mut(&name(&member.process)) {
                killed.installs = true;
            }
        }
    }

    pub(super) fn is_installer(&self, member: Name) -> bool {
        self.lock().get(&member).is_some_and(|killed| killed.installs)
    }

    /// Records a member that cannot be inspected, unless it was seen before.
    pub(super) fn note_hidden(&self, pid: i32, escaped: bool) {
        let mut killed = self.lock();
        if killed.keys().any(|(known, _)| *known == pid) {
            return;
        }
        let (evidence, command) = (Evidence::of(Layer::Descent), Some("(hidden)".to_owned()));
        killed.insert(hidden(pid), Killed { is_signalled: true, escaped, evidence, command, installs: false });
    }

    /// Returns whether that is new.
    pub(super) fn mark_signalled(&self, process: &Stat) -> bool {
        self.lock().get_mut(&name(process)).is_some_and(|killed| !std::mem::replace(&mut killed.is_signalled, true))
    }

    pub(super) fn is_signalled(&self, process: &Stat) -> bool {
        self.lock().get(&name(process)).is_some_and(|killed| killed.is_signalled)
    }

    /// All of it but the survivors. `leader` is its pid.
    pub(super) fn report(&self, leader: Option<i32>) -> TreeEnd {
        let killed = self.lock();
        // The strays are what matters to the operator; the leader was named when it ended.
        let (leader, mut named): (Vec<_>, Vec<_>) = killed.iter().partition(|((pid, _), _)| Some(*pid) == leader);
        named.extend(leader);
        named.sort_by_key(|(_, killed)| !killed.installs);
        if named.first().is_some_and(|(_, killed)| killed.installs) {
            installer::note_cut();
        }
        let commands = named.iter().filter_map(|((pid, _), killed)| {
            let note = if killed.installs { " (an installation that was cut short: run it again)" } else { "" };
            Some(format!("{pid} {}{note}", killed.command.as_ref()?))
        });
        let cut_short = killed.values().filter(|killed| killed.installs).filter_map(|killed| killed.command.as_ref());
        TreeEnd {
            members: count(killed.len()),
            escaped: count(killed.values().filter(|killed| killed.escaped).count()),
            commands: commands.take(NAMED_MAX).collect(),
            cut_short: cut_short.take(NAMED_MAX).cloned().collect(),
            found_by: membership::count(&killed.values().map(|killed| killed.evidence).collect::<Vec<_>>()),
            ..TreeEnd::default()
        }
    }
}

/// `pid command (condition)` of one that is still there.
pub(super) fn survivor(member: &TreeMember, is_refused: bool) -> String {
    let pid = member.process.pid;
    let command = proc::command_of(pid).unwrap_or_default();
    let condition = match proc::uid_of(pid) {
        Some(uid) if is_refused => format!("not permitted, it is of user {uid}"),
        _ => proc::condition_of(pid).unwrap_or_else(|| "gone by now".to_owned()),
    };
    format!("{pid} {command} ({condition})")
}

/// The name of a process without a known start time: none that we could have started has one of 0.
fn hidden(pid: i32) -> Name {
    (pid, 0)
}

pub(super) fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn name(process: &Stat) -> Name {
    (process.pid, process.start_time)
}
