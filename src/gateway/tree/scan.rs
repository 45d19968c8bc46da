//! Looks at every process, and at one that is held.

use super::evidence::Evidence;
use super::{Orphans, Root, Tree};
use crate::core::Layer;
use crate::platform::environment::Environment;
use crate::platform::proc::{self, Stat, Walk};
use crate::platform::process::Handle;
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// A member, and what shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) process: Stat,
    pub(super) evidence: Evidence,
}

/// A member that nobody else can be taken for.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) handle: Handle,
    pub(super) member: Member,
}

pub(super) fn processes(members: Vec<Member>) -> Vec<Stat> {
    members.into_iter().map(|member| member.process).collect()
}

impl Tree {
    /// The living members, found by a look at every process.
    pub(super) fn scan(&self) -> io::Result<Vec<Member>> {
        let leaf = self.leaf_members();
        let found = proc::survey(self.who_is_asked(leaf.clone()), self.bears())?;
        let bearers: BTreeSet<_> =
            found.iter().filter(|(_, bears)| *bears == Some(true)).map(|(process, _)| process.pid).collect();
        let all: Vec<_> = found.into_iter().map(|(process, _)| process).collect();
        // Asked for after the walk: a number that is the leader's then was so all the while.
        Ok(self.members(&all, self.number_now(), &leaf, |process| bearers.contains(&process.pid)))
    }

    /// Those of them who show more than their id.
    pub(super) fn scan_without_ids(&self) -> io::Result<Vec<Member>> {
        let leaf = self.leaf_members();
        let all = proc::processes()?;
        Ok(self.members(&all, self.number_now(), &leaf, |_| false))
    }

    /// The members among `all`, the leader first, without those that are dead already. The id counts only of who shows
    /// nothing else, or was no more than seen before.
    pub(super) fn members(
        &self,
        all: &[Stat],
        number: Option<i32>,
        leaf: &BTreeSet<i32>,
        bears_id: impl Fn(&Stat) -> bool,
    ) -> Vec<Member> {
        let (mut inside, elsewhere, me) = (BTreeMap::new(), self.elsewhere(), super::me());
        let all: Vec<_> = all.iter().filter(|process| !elsewhere.contains(&process.pid)).copied().collect();
        for process in &all {
            let evidence = self.judge_one_of(me, process, number, leaf);
            if !evidence.is_none() {
                inside.insert(process.pid, evidence);
            }
        }
        add_descendants(&all, &mut inside);
        let known = inside.len();
        for process in &all {
            let before = inside.get(&process.pid).copied().unwrap_or_default();
            if before.is_hearsay() && bears_id(process) {
                inside.insert(process.pid, before.and(Evidence::of(Layer::Instance)));
            }
        }
        if inside.len() > known {
            add_descendants(&all, &mut inside);
        }
        let evidence_of = |process: &Stat| inside.get(&process.pid).copied();
        let living = all.iter().filter(|process| !process.is_dead());
        let mut members: Vec<_> =
            living.filter_map(|process| Some(Member { process: *process, evidence: evidence_of(process)? })).collect();
        members.sort_by_key(|member| Some(member.process.pid) != self.number());
        members
    }

    /// Whom to ask for its id in a look at every process: who is not told by what is known before that look. A zombie has
    /// no environment, and needs no signal.
    fn who_is_asked(&self, leaf: BTreeSet<i32>) -> impl Fn(&Stat) -> bool + use<> {
        let (since, me) = (self.since, super::me());
        move |process| {
            process.start_time >= since && !process.is_dead() && process.pid != me && !leaf.contains(&process.pid)
        }
    }

    fn bears(&self) -> impl Fn(&Environment) -> bool + use<> {
        let entry = self.instance.clone();
        move |environment| environment.has(&entry)
    }

    fn bears_id(&self, process: &Stat) -> bool {
        process.start_time >= self.since && !process.is_dead() && proc::environ_has(process.pid, &self.instance)
    }

    /// Whether anybody is there who belongs to this tree for what it is itself. Others get their turn in between.
    pub(super) async fn finds_any(&self) -> io::Result<bool> {
        let mut walk = Walk::begin()?;
        while let Some(some) = walk.advance(self.who_is_asked(BTreeSet::new()), self.bears())? {
            let leaf = self.leaf_members();
            let is_member = |(process, bears): &(Stat, Option<bool>)| {
                let shown = *bears == Some(true) || !self.judge(process, None, &leaf).is_none();
                shown && !process.is_dead() && !self.is_elsewhere(process.pid)
            };
            if some.iter().any(is_member) {
                return Ok(true);
            }
            tokio::task::yield_now().await;
        }
        Ok(false)
    }

    /// Takes hold of the process that has this pid now, if it lives and is a member, for what it is itself or because
    /// `parentage` says so. All that is read of it is read afterwards: if a signal reaches the handle later, the pid was
    /// its own all the while.
    pub(super) fn hold(&self, pid: i32, parentage: impl FnOnce(&Stat) -> Evidence) -> Option<Held> {
        let handle = Handle::open(pid).ok()?;
        let process = proc::stat(pid).ok().filter(|process| !process.is_dead())?;
        let evidence = self.judge_all(&process, parentage(&process));
        (!evidence.is_none()).then_some(Held { handle, member: Member { process, evidence } })
    }

    /// What shows that a process is a member, beside what it has from its parent. Only who shows nothing else, or was no
    /// more than seen before, is looked for in the control group and asked for its id: each look takes its time.
    pub(super) fn judge_all(&self, process: &Stat, parentage: Evidence) -> Evidence {
        if self.is_elsewhere(process.pid) {
            return Evidence::default();
        }
        let mut evidence = self.judge(process, self.number_now(), &BTreeSet::new()).and(parentage);
        if evidence.is_hearsay() && self.leaf.is_some() && self.leaf_members().contains(&process.pid) {
            evidence = evidence.and(Evidence::of(Layer::Cgroup));
        }
        if evidence.is_hearsay() && self.bears_id(process) {
            evidence = evidence.and(Evidence::of(Layer::Instance));
        }
        evidence
    }

    /// How many scans in a row must find nobody. In the middle of an execve(2) a process has no environment, and that of
    /// an adopted tree may be all that shows it.
    pub(super) fn empty_scans_min(&self) -> u32 {
        match self.root {
            Root::Child { orphans, .. } if !cfg!(target_os = "macos") => {
                if orphans == Orphans::OursAlone || self.mark.is_some() { 1 } else { 2 }
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
