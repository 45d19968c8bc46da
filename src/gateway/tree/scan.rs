//! A look at every process, and at one that is held.

use super::members::{Orphans, Root, Tree, me};
use super::membership::{Evidence, HeldMember, TreeMember};
use crate::core::Layer;
use crate::platform::environment::ProcessEnvironment;
use crate::platform::proc::{self, Stat, Walk};
use crate::platform::process::Handle;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

impl Tree {
    /// The living members, found by a look at every process.
    pub(super) fn scan(&self) -> io::Result<Vec<TreeMember>> {
        Ok(self.scan_with_strays()?.0)
    }

    /// The same, and the strays, which are left.
    pub(super) fn scan_with_strays(&self) -> io::Result<(Vec<TreeMember>, Vec<Stat>)> {
        let leaf = self.leaf_members();
        let found = proc::survey(self.asked_for_id(leaf.clone()), self.bears())?;
        let bearers: BTreeSet<_> =
            found.iter().filter(|(_, bears)| *bears == Some(true)).map(|(process, _)| process.pid).collect();
        let all: Vec<_> = found.into_iter().map(|(process, _)| process).collect();
        // Asked for after the walk: a number that is the leader's then was so all the while.
        let bears_id = |process: &Stat| bearers.contains(&process.pid) && self.is_of_our_user(process.pid);
        Ok(self.divide(all, self.number_now(), &leaf, bears_id))
    }

    /// Those of them that something else than the instance id shows.
    pub(super) fn scan_without_ids(&self) -> io::Result<Vec<TreeMember>> {
        let leaf = self.leaf_members();
        let all = proc::processes()?;
        Ok(self.divide(all, self.number_now(), &leaf, |_| false).0)
    }

    /// The living members among `all`, the leader first, and the strays. The id counts only if nothing else shows a process,
    /// or no more than that it was seen before.
    pub(super) fn divide(
        &self,
        mut all: Vec<Stat>,
        number: Option<i32>,
        leaf: &BTreeSet<i32>,
        bears_id: impl Fn(&Stat) -> bool,
    ) -> (Vec<TreeMember>, Vec<Stat>) {
        let (mut inside, mut strays, elsewhere, me) = (BTreeMap::new(), Vec::new(), self.elsewhere(), me());
        let everything = all.clone();
        all.retain(|process| !elsewhere.contains(&process.pid));
        for process in &all {
            let evidence = self.judge_one_of(me, process, number, leaf);
            if !evidence.is_none() {
                inside.insert(process.pid, evidence);
            }
        }
        add_descendants(&all, &mut inside);
        self.set_aside(&mut all, &mut inside, &mut strays);
        let mut bearers = BTreeMap::new();
        for process in &all {
            match inside.get(&process.pid) {
                Some(before) if before.is_recorded_only() && bears_id(process) => {
                    let evidence = before.and(Evidence::of(Layer::Instance));
                    inside.insert(process.pid, evidence);
                }
                None if bears_id(process) => {
                    bearers.insert(process.pid, *process);
                }
                Some(_) | None => {}
            }
        }
        let outside = self.outsiders(&everything, &inside, &bearers);
        strays.extend(bearers.values().filter(|bearer| outside.contains(&bearer.pid)));
        all.retain(|process| !outside.contains(&process.pid));
        let known = inside.len();
        let found = bearers.into_keys().filter(|pid| !outside.contains(pid));
        inside.extend(found.map(|pid| (pid, Evidence::of(Layer::Instance))));
        if inside.len() > known {
            add_descendants(&all, &mut inside);
            self.set_aside(&mut all, &mut inside, &mut strays);
        }
        let evidence_of = |process: &Stat| inside.get(&process.pid).copied();
        let living = all.iter().filter(|process| !process.is_dead());
        let mut members: Vec<_> = living
            .filter_map(|process| Some(TreeMember { process: *process, evidence: evidence_of(process)? }))
            .collect();
        members.sort_by_key(|member| Some(member.process.pid) != self.number());
        (members, strays)
    }

    /// Moves what has a unit of its own to the strays.
    fn set_aside(&self, all: &mut Vec<Stat>, inside: &mut BTreeMap<i32, Evidence>, strays: &mut Vec<Stat>) {
        all.retain(|process| {
            let is_member = inside.get(&process.pid).is_some_and(|evidence| !evidence.is_of(Layer::Cgroup));
            let is_stray = is_member && !process.is_dead() && self.is_in_foreign_unit(process.pid);
            if is_stray {
                inside.remove(&process.pid);
                strays.push(*process);
            }
            !is_stray
        });
    }

    /// Which processes are asked for their id in a look at all of them: a zombie has no environment, and needs no signal.
    pub(super) fn asked_for_id(&self, leaf: BTreeSet<i32>) -> impl Fn(&Stat) -> bool + use<> {
        let (since, me) = (self.since, me());
        move |process| {
            process.start_time >= since && !process.is_dead() && process.pid != me && !leaf.contains(&process.pid)
        }
    }

    pub(super) fn bears(&self) -> impl Fn(&ProcessEnvironment) -> bool + use<> {
        let entry = self.instance.clone();
        move |environment| environment.has(&entry)
    }

    pub(super) fn bears_id(&self, process: &Stat) -> bool {
        process.start_time >= self.since
            && !process.is_dead()
            && proc::environ_has(process.pid, &self.instance)
            && self.is_of_our_user(process.pid)
    }

    /// Whether any process belongs to this tree for what it is itself, whatever its parent. It looks at a few at a time, so
    /// that it leaves the processor to others.
    pub(super) fn finds_any(&self) -> io::Result<bool> {
        let mut walk = Walk::begin()?;
        while let Some(some) = walk.advance(self.asked_for_id(BTreeSet::new()), self.bears())? {
            let leaf = self.leaf_members();
            let is_member = |(process, bears): &(Stat, Option<bool>)| {
                let bears = *bears == Some(true) && self.is_of_our_user(process.pid);
                let shown = bears || !self.judge(process, None, &leaf).is_none();
                shown && !process.is_dead() && !self.is_elsewhere(process.pid)
            };
            if some.iter().any(is_member) {
                return Ok(true);
            }
            std::thread::yield_now();
        }
        Ok(false)
    }

    /// Takes hold of the process that has this pid now, if it lives and is a member, for what it is itself or by
    /// `parentage`. All that is read of it is read afterwards: if a signal reaches the handle later, the pid was its own
    /// all the while.
    pub(super) fn hold(&self, pid: i32, parentage: impl FnOnce(&Stat) -> Evidence) -> Option<HeldMember> {
        let handle = Handle::open(pid).ok()?;
        let process = proc::stat(pid).ok().filter(|process| !process.is_dead())?;
        let evidence = self.judge_all(&process, parentage(&process));
        (!evidence.is_none()).then_some(HeldMember { handle, member: TreeMember { process, evidence } })
    }

    /// What shows that a process is a member, `parentage` included. The control group and the environment are read only if
    /// nothing else shows it, or no more than that it was seen before: both reads are slow.
    pub(super) fn judge_all(&self, process: &Stat, parentage: Evidence) -> Evidence {
        if self.is_elsewhere(process.pid) {
            return Evidence::default();
        }
        let mut evidence = self.judge(process, self.number_now(), &BTreeSet::new()).and(parentage);
        if evidence.is_recorded_only() && self.leaf.is_some() && self.leaf_members().contains(&process.pid) {
            evidence = evidence.and(Evidence::of(Layer::Cgroup));
        }
        if evidence.is_recorded_only() && self.bears_id(process) {
            evidence = evidence.and(Evidence::of(Layer::Instance));
        }
        let may_be_stray = !evidence.is_none() && !evidence.is_of(Layer::Cgroup);
        if may_be_stray && self.is_in_foreign_unit(process.pid) { Evidence::default() } else { evidence }
    }

    /// How many scans in a row must find no member. In the middle of an execve(2) a process has no environment, and in an
    /// adopted tree that may be all that shows it.
    pub(super) fn empty_scans_min(&self) -> u32 {
        match self.root {
            Root::Child { orphans, .. } if !cfg!(target_os = "macos") => {
                if orphans == Orphans::OursAlone || self.tag.is_some() { 1 } else { 2 }
            }
            Root::Child { .. } | Root::Adopted { .. } | Root::Gone { .. } => 2,
        }
    }

    /// What it shows of a process that its parent is a member that was seen before.
    pub(super) fn parentage(&self, process: &Stat) -> Evidence {
        let is_seen = proc::stat(process.parent).is_ok_and(|parent| self.was_seen(&parent));
        if is_seen { Evidence::of(Layer::Descent) } else { Evidence::default() }
    }
}

fn add_descendants(all: &[Stat], inside: &mut BTreeMap<i32, Evidence>) {
    let mut is_changed = true;
    while std::mem::take(&mut is_changed) {
        for process in all {
            let Some(parent) = inside.get(&process.parent) else { continue };
            let before = inside.get(&process.pid).copied().unwrap_or_default();
            let after = before.and(parent.inherited());
            if after != before {
                inside.insert(process.pid, after);
                is_changed = true;
            }
        }
    }
}
