//! The members of a tree, and what is known of them.

use super::membership::{Evidence, TreeMember, processes};
use super::reaper::Reaper;
use super::units;
use crate::core::{Installers, Layer, TreeEnd, TreeRecord};
use crate::platform;
use crate::platform::cgroup::Leaf;
use crate::platform::descent::{children_of, living};
use crate::platform::proc::{self, ProcessState, Stat};
use crate::platform::process::{self, Handle};
use crate::platform::rlimit_tag::RlimitTag;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The most handles on members: enough for those that are too young to be recorded.
const HELD_MAX: usize = 64;

/// Where the orphans that we inherit can come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Orphans {
    /// From our gateways alone: we had no child before them, and are not PID 1.
    OursAlone,
    /// From elsewhere too.
    Mixed,
}

impl Orphans {
    /// To be called once, before the first spawn.
    #[must_use]
    pub fn survey() -> Self {
        let childless = proc::children().is_ok_and(|children| children.is_empty());
        if childless && std::process::id() != 1 { Self::OursAlone } else { Self::Mixed }
    }
}

/// The leader of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Root {
    /// We spawned it and have not reaped it.
    Child { pid: i32, orphans: Orphans },
    /// Another supervisor spawned it: when it ends, its pid may be reused.
    Adopted { pid: i32, start_time: u64 },
    /// Gone; its pid, if known.
    Gone { pid: Option<i32> },
}

/// The tree of one gateway.
#[derive(Debug, Clone)]
pub struct Tree {
    pub(super) root: Root,
    /// A handle, to signal it even if `/proc` does not show it.
    pub(super) leader: Option<Arc<Handle>>,
    /// `NAME=value` in the environment of whatever the gateway starts.
    pub(super) instance: String,
    /// Start time of the leader: no older process has the instance id.
    pub(super) since: u64,
    /// Members seen before, by pid and start time, each older than the tick in which it was seen.
    pub(super) seen: BTreeMap<i32, u64>,
    /// Younger ones.
    pub(super) held: BTreeMap<i32, Arc<Handle>>,
    pub(in crate::gateway) leaf: Option<Arc<Leaf>>,
    pub(in crate::gateway) tag: Option<RlimitTag>,
    /// The user of the leader when it was last seen.
    pub(super) uid: Option<u32>,
    /// The control groups of the systemd units in which the gateway was seen.
    pub(super) units: BTreeSet<String>,
    pub(super) reaper: Reaper,
    /// Whether processes that were created outside, or moved there, are left.
    pub(super) spares_strays: bool,
    /// What becomes of installers.
    pub(super) installers: Installers,
    /// The folder of OpenClaw's package.
    pub(super) package: Option<PathBuf>,
}

impl Tree {
    /// The tree below `leader`, our child, with `instance` in its environment, as `NAME=value`.
    #[must_use]
    pub fn new(leader: &Handle, instance: String, orphans: Orphans) -> Self {
        Self::of(Root::Child { pid: leader.pid(), orphans }, instance, leader.start_time())
    }

    /// The tree of a leader that another supervisor spawned. `members` are those on record, by pid and start time.
    #[must_use]
    pub fn adopted(leader: &Handle, instance: String, members: &[(i32, u64)]) -> Self {
        let (pid, start_time) = (leader.pid(), leader.start_time());
        let seen = members.iter().copied().chain((start_time < proc::tick()).then_some((pid, start_time)));
        Self { seen: seen.collect(), ..Self::of(Root::Adopted { pid, start_time }, instance, start_time) }
    }

    /// The tree of a leader that we did not spawn and that is our child now, as are all orphans of its tree.
    #[must_use]
    pub fn inherited_by(leader: &Handle, instance: String, members: &[(i32, u64)]) -> Self {
        let tree = Self::new(leader, instance, Orphans::Mixed);
        Self { seen: members.iter().copied().collect(), ..tree }
    }

    /// What is left of a tree without its leader. `leader` is the pid of the leader, if known.
    #[must_use]
    pub fn orphaned(leader: Option<i32>, instance: String, members: &[(i32, u64)]) -> Self {
        let (seen, reaper) = (members.iter().copied().collect(), Reaper::of_members(members));
        Self { seen, reaper, ..Self::of(Root::Gone { pid: leader }, instance, 0) }
    }

    pub(super) fn of(root: Root, instance: String, since: u64) -> Self {
        let (seen, held, units) = (BTreeMap::new(), BTreeMap::new(), units::ours().into_iter().collect());
        let (leader, leaf, tag, uid, spares_strays) = (None, None, None, None, true);
        let (installers, package) = (Installers::AsOthers, None);
        let reaper = match root {
            Root::Child { .. } if cfg!(target_os = "linux") => Reaper::Us,
            Root::Adopted { pid, .. } => Reaper::of_leader(pid),
            Root::Child { .. } | Root::Gone { .. } => Reaper::Unknown,
        };
        Self {
            root,
            leader,
            instance,
            since,
            seen,
            held,
            leaf,
            tag,
            uid,
            units,
            reaper,
            spares_strays,
            installers,
            package,
        }
    }

    /// The same tree, with the control group and the tag that its leader was started with.
    #[must_use]
    pub fn with(self, leaf: Option<Arc<Leaf>>, tag: Option<RlimitTag>) -> Self {
        Self { leaf, tag, ..self }
    }

    /// The same tree. `package` is the folder of OpenClaw's package.
    #[must_use]
    pub fn with_installers(self, installers: Installers, package: Option<PathBuf>) -> Self {
        Self { installers, package, ..self }
    }

    /// The same tree, with a hold on its leader.
    #[must_use]
    pub fn led_by(self, leader: &Arc<Handle>) -> Self {
        Self { leader: Some(Arc::clone(leader)), ..self }
    }

    /// Remembers the members of the tree now, so that those that leave it later are still known. Returns the members that
    /// job control has stopped.
    pub fn remember(&mut self) -> Vec<i32> {
        self.remember_found(Self::scan)
    }

    /// The same without those that nothing but their id shows: no environment is read, which is slow.
    pub fn remember_soon(&mut self) -> Vec<i32> {
        self.remember_found(Self::scan_without_ids)
    }

    pub(super) fn remember_found(&mut self, scan: impl FnOnce(&Self) -> io::Result<Vec<TreeMember>>) -> Vec<i32> {
        let begun = proc::tick();
        self.learn();
        // What is invisible now is searched for again when the tree is killed.
        let members = scan(self).unwrap_or_default();
        self.note(&members, begun);
        let stopped = members.iter().filter(|member| member.process.state == ProcessState::Stopped);
        stopped.map(|member| member.process.pid).collect()
    }

    /// SIGCONT to these members.
    pub fn resume(&self, stopped: &[i32]) {
        for &pid in stopped {
            if let Some(held) = self.hold(pid, |process| self.parentage(process))
                && let Err(error) = held.handle.resume()
            {
                tracing::debug!(pid, %error, "cannot send SIGCONT");
            }
        }
    }

    /// The process that leads what is left after the leader has exited: the one that is highest above `listener`, or the
    /// oldest that no other member has started. It is held.
    #[must_use]
    pub fn heir(&self, listener: Option<i32>) -> Option<Arc<Handle>> {
        let mut members = processes(self.scan().ok()?);
        members.retain(|member| Some(member.pid) != self.number());
        let find = |pid: i32| members.iter().find(|member| member.pid == pid);
        let heir = match listener {
            // A parent is older than its child: if the walk does not end, a pid was reused meanwhile.
            Some(listener) => {
                std::iter::successors(find(listener), |member| find(member.parent)).take(members.len()).last()
            }
            None => {
                members.iter().filter(|member| find(member.parent).is_none()).min_by_key(|member| member.start_time)
            }
        }?;
        self.hold(heir.pid, |process| self.parentage(process)).map(|held| Arc::new(held.handle))
    }

    /// SIGTERM to one member.
    ///
    /// # Errors
    /// It is no member, or gone; those of the signal.
    pub fn terminate(&self, pid: i32) -> io::Result<()> {
        let held = self.hold(pid, |process| self.parentage(process)).ok_or(io::ErrorKind::NotFound)?;
        held.handle.terminate()
    }

    /// Remembers what another copy of this tree has seen since it was made.
    pub fn absorb(&mut self, other: Self) {
        self.seen.extend(other.seen);
        self.held.extend(other.held);
        self.units.extend(other.units);
        self.uid = other.uid.or(self.uid);
    }

    /// Remembers these members, which were looked for from the tick `begun` on. What was older then was not mistaken for
    /// another process, nor was its parent: a later process with the parent's pid would be younger than the child.
    pub(super) fn note(&mut self, members: &[TreeMember], begun: u64) {
        self.held.retain(|_, handle| !handle.has_ended().unwrap_or(true));
        let (old, young): (Vec<_>, Vec<_>) =
            members.iter().map(|member| member.process).partition(|process| process.start_time < begun);
        self.seen.extend(old.into_iter().map(|process| (process.pid, process.start_time)));
        for process in young {
            if self.held.len() < HELD_MAX
                && let Some(held) = self.hold(process.pid, |process| self.parentage(process))
            {
                self.held.insert(process.pid, Arc::new(held.handle));
            }
        }
    }

    /// The members now, by pid and start time, as far as they can be told without a look at every process; remembers them,
    /// and forgets those that are gone. It misses members that left an adopted tree unseen, and those that are younger than
    /// a clock tick.
    pub fn snapshot(&mut self) -> Vec<(i32, u64)> {
        let begun = proc::tick();
        // One that was adopted in the tick of its creation was too young then.
        if let Root::Adopted { pid, start_time } = self.root
            && start_time < begun
        {
            self.seen.insert(pid, start_time);
        }
        let members = self.descend().or_else(|_| self.scan().map(processes));
        // If nothing can be seen, what was known stays known, and so does a member that blocks the reads about it.
        if let Ok(members) = members {
            let named = members.iter().filter(|member| member.start_time < begun);
            self.seen.retain(|&pid, _| proc::is_stuck(pid));
            self.seen.extend(named.map(|member| (member.pid, member.start_time)));
        }
        let mut known = self.seen.clone();
        if let Root::Child { pid, .. } = self.root {
            known.insert(pid, self.since);
        }
        known.into_iter().collect()
    }

    /// What a successor needs to find it all.
    pub fn record(&mut self) -> TreeRecord {
        self.learn();
        TreeRecord { members: self.snapshot(), uid: self.uid, units: self.units.clone() }
    }

    /// The living members, found from the known ones downwards.
    pub(super) fn descend(&self) -> io::Result<Vec<Stat>> {
        let mut members = self.remembered()?;
        members.extend(self.inherited(&self.leaf_members(), |pid| proc::environ_has(pid, &self.instance))?);
        self.with_descendants(members)
    }

    /// The living members that were seen before.
    pub(super) fn remembered(&self) -> io::Result<Vec<Stat>> {
        let mut members = Vec::new();
        for (&pid, &start_time) in &self.seen {
            members.extend(living(pid)?.filter(|process| process.start_time == start_time));
        }
        Ok(members)
    }

    /// The leader and the orphans of the tree that are children of ours.
    pub(super) fn inherited(&self, leaf: &BTreeSet<i32>, bears_id: impl Fn(i32) -> bool) -> io::Result<Vec<Stat>> {
        let mut members = Vec::new();
        if let Root::Child { .. } = self.root {
            let number = self.number_now();
            let is_member = |process: &Stat| !self.judge(process, number, leaf).is_none() || bears_id(process.pid);
            for pid in proc::children()? {
                members.extend(living(pid)?.filter(|process| !self.is_elsewhere(process.pid) && is_member(process)));
            }
        }
        Ok(members)
    }

    /// These and all that descends from them, each once.
    pub(super) fn with_descendants(&self, mut members: Vec<Stat>) -> io::Result<Vec<Stat>> {
        let mut found = BTreeSet::new();
        members.retain(|member| found.insert(member.pid));
        let mut next = 0;
        while let Some(&parent) = members.get(next) {
            next += 1;
            let children = children_of(&parent)?.into_iter();
            let is_left = |pid: i32| self.is_elsewhere(pid) || self.is_in_foreign_unit(pid);
            members.extend(children.filter(|child| found.insert(child.pid) && !is_left(child.pid)));
        }
        Ok(members)
    }

    /// What shows that a process is a member, apart from its environment and its parent. `number` names the leader's
    /// session and group, if these are the leader's for certain; `leaf` has the processes in the control group.
    pub(super) fn judge(&self, process: &Stat, number: Option<i32>, leaf: &BTreeSet<i32>) -> Evidence {
        if self.is_elsewhere(process.pid) {
            return Evidence::default();
        }
        self.judge_one_of(me(), process, number, leaf)
    }

    /// The same of a process that is not [elsewhere](Self::is_elsewhere). `me` is our pid.
    pub(super) fn judge_one_of(&self, me: i32, process: &Stat, number: Option<i32>, leaf: &BTreeSet<i32>) -> Evidence {
        let mut evidence = Evidence::default();
        if self.was_seen(process) {
            evidence = evidence.and(Evidence::of(Layer::Record));
        }
        if leaf.contains(&process.pid) {
            evidence = evidence.and(Evidence::of(Layer::Cgroup));
        }
        if number.is_some_and(|number| [process.session, process.group].contains(&number)) {
            evidence = evidence.and(Evidence::of(Layer::Group));
        }
        let Root::Child { pid, orphans } = self.root else {
            let is_tagged = evidence.is_recorded_only() && self.is_tagged_stray(process);
            return if is_tagged { evidence.and(Evidence::of(Layer::Descent)) } else { evidence };
        };
        if (process.pid, process.start_time) == (pid, self.since) {
            evidence = evidence.and(Evidence::of(Layer::Group));
        } else if process.parent == me {
            evidence = evidence.and(self.judge_orphan(process.pid, orphans));
        }
        if evidence.is_of(Layer::Group) { evidence.born() } else { evidence }
    }

    /// What shows that a child of ours which we have not started is a member.
    pub(super) fn judge_orphan(&self, pid: i32, orphans: Orphans) -> Evidence {
        match orphans {
            Orphans::OursAlone => Evidence::of(Layer::Descent).born(),
            Orphans::Mixed if self.tag.is_some_and(|tag| tag.is_on(pid)) => Evidence::of(Layer::Descent),
            Orphans::Mixed => Evidence::default(),
        }
    }

    /// Whether it was created in an adopted tree, where orphans go to another reaper: it has the tag and not the id of
    /// another gateway. There are only some thousand tags, so two gateways may share one.
    pub(super) fn is_tagged_stray(&self, process: &Stat) -> bool {
        matches!(self.root, Root::Adopted { .. })
            && process.start_time >= self.since
            && self.tag.is_some_and(|tag| tag.is_on(process.pid))
            && self.is_of_our_user(process.pid)
            && !bears_another(process.pid, &self.instance)
    }

    /// Whether it belongs to no gateway: we, or a child that something else here waits for.
    pub(super) fn is_elsewhere(&self, pid: i32) -> bool {
        pid == me() || process::is_claimed(pid) && Some(pid) != self.number()
    }

    /// All processes that are so now: asked for once if thousands are looked at.
    pub(super) fn elsewhere(&self) -> BTreeSet<i32> {
        let mut pids = process::claimed();
        if let Some(number) = self.number() {
            pids.remove(&number);
        }
        pids.insert(me());
        pids
    }

    pub(in crate::gateway) fn was_seen(&self, process: &Stat) -> bool {
        let is_held =
            |handle: &Arc<Handle>| handle.start_time() == process.start_time && !handle.has_ended().unwrap_or(true);
        self.seen.get(&process.pid) == Some(&process.start_time) || self.held.get(&process.pid).is_some_and(is_held)
    }

    /// The pid that the leader has or had, which is the number of its session and group.
    pub(super) fn number(&self) -> Option<i32> {
        match self.root {
            Root::Child { pid, .. } | Root::Adopted { pid, .. } => Some(pid),
            Root::Gone { pid } => pid,
        }
    }

    /// The same if it still is the leader's. Then it was so all the while before, too.
    pub(super) fn number_now(&self) -> Option<i32> {
        match self.root {
            Root::Child { pid, .. } => platform::kill::is_child(pid).then_some(pid),
            // One that was too young to be recorded cannot be distinguished from a later one.
            Root::Adopted { pid, start_time } => {
                let is_leader = |process: Stat| process.start_time == start_time && self.seen.contains_key(&pid);
                proc::stat(pid).is_ok_and(is_leader).then_some(pid)
            }
            Root::Gone { .. } => None,
        }
    }

    pub(super) fn leaf_members(&self) -> BTreeSet<i32> {
        let members = self.leaf.as_ref().and_then(|leaf| leaf.members().ok());
        members.unwrap_or_default().into_iter().collect()
    }

    /// Whether nothing can be left but the leader's zombie.
    pub(super) fn is_all_that_is_left(&self) -> bool {
        matches!(self.root, Root::Child { pid, .. } if process::is_all_that_is_left(pid))
            && self.leaf_members().is_empty()
    }

    /// The end of a tree of which the leader's zombie is all that is left below us: known after a few system calls, none of
    /// which blocks, while a look at every process takes milliseconds. That look is still to come: see [`Tree::sweep`].
    pub fn end_at_once(&self, elapsed: impl Fn() -> Duration) -> Option<TreeEnd> {
        self.is_all_that_is_left().then(|| TreeEnd { elapsed: elapsed(), ..TreeEnd::default() })
    }
}

/// Whether a process has another value under the name of this entry.
pub(super) fn bears_another(pid: i32, entry: &str) -> bool {
    let name = entry.split('=').next().unwrap_or_default();
    proc::environment_of(pid).is_some_and(|environment| environment.get(name).is_some() && !environment.has(entry))
}

pub(super) fn me() -> i32 {
    i32::try_from(std::process::id()).unwrap_or(0)
}
