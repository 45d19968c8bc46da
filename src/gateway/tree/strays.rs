//! Processes that carry the id of a gateway, or descend from it, and are not the gateway's to end.
//!
//! An environment goes where no process goes: into a user manager by `systemctl --user import-environment`, into an at(1)
//! job, into a terminal multiplexer that was there before. What is known by its id alone was created in the tree only if
//! its session was too: a session is inherited, so a living leader of it that is no member began outside. And a process
//! that has left its parent is an orphan, which the [reaper](super::reaper) of the tree inherits: any other living parent
//! has started it.
//!
//! A service or scope of its own says that its user wants a process to be ended by its manager: `systemd-run --scope`.

use super::members::{Tree, me};
use super::membership::Evidence;
use super::reaper::ancestors;
use super::units::unit_of;
use crate::core::TreeRecord;
use crate::platform::proc::{self, Stat};
use std::collections::{BTreeMap, BTreeSet};

impl Tree {
    /// The same tree, with what another supervisor has recorded of its user and units.
    #[must_use]
    pub fn known_by(mut self, record: &TreeRecord) -> Self {
        self.uid = record.uid;
        self.units.extend(record.units.iter().cloned());
        self.learn();
        self
    }

    /// The same tree. `are_spared`: whether its strays are left.
    #[must_use]
    pub fn with_strays(self, are_spared: bool) -> Self {
        Self { spares_strays: are_spared, ..self }
    }

    /// Notes the user of the leader, and the unit that it has made its own.
    pub(super) fn learn(&mut self) {
        if let Some(leader) = self.number_now() {
            self.uid = proc::real_uid_of(leader).or(self.uid);
            self.learn_unit_of(leader);
        }
    }

    /// The unit of this process is one of the gateway's.
    pub(in crate::gateway) fn learn_unit_of(&mut self, pid: i32) {
        self.units.extend(unit_of(pid));
    }

    /// Whether a process has a unit that none of the gateway was seen in. The leader never has.
    pub(super) fn is_in_foreign_unit(&self, pid: i32) -> bool {
        let is_below = |unit: &str, home: &str| {
            unit.strip_prefix(home).is_some_and(|below| below.is_empty() || below.starts_with('/'))
        };
        self.spares_strays
            && Some(pid) != self.number()
            && unit_of(pid).is_some_and(|unit| !self.units.iter().any(|home| is_below(&unit, home)))
    }

    /// Whether the id of a process can count: it has our own user, or the gateway's. Any user may write any id.
    pub(super) fn is_of_our_user(&self, pid: i32) -> bool {
        is_of_user(pid, self.uid)
    }

    /// Those of `bearers`, which nothing but their id shows, that were created outside. `inside` are members.
    pub(super) fn outsiders(
        &self,
        all: &[Stat],
        inside: &BTreeMap<i32, Evidence>,
        bearers: &BTreeMap<i32, Stat>,
    ) -> BTreeSet<i32> {
        let mut outside = BTreeSet::new();
        if bearers.is_empty() || !self.spares_strays {
            return outside;
        }
        let living: BTreeMap<_, _> = all
            .iter()
            .filter(|process| !process.is_dead() && process.pid != me())
            .map(|process| (process.pid, process))
            .collect();
        let ancestors = ancestors(me());
        loop {
            let before = outside.len();
            for (&pid, bearer) in bearers {
                let is_member =
                    |pid: i32| inside.contains_key(&pid) || bearers.contains_key(&pid) && !outside.contains(&pid);
                let is_under = |pid: i32| living.contains_key(&pid) && !is_member(pid);
                let was_started_outside = is_under(bearer.parent) && !self.reaper.may_be(bearer.parent, &ancestors);
                // Only a descendant of ours comes to us when it is an orphan.
                let is_outside = bearer.parent != me() && (is_under(bearer.session) || was_started_outside);
                if is_outside || self.is_in_foreign_unit(pid) {
                    outside.insert(pid);
                }
            }
            if outside.len() == before {
                return outside;
            }
        }
    }
}

/// Whether a process has our own user, or this one. A user who may not be seen is another one.
pub(in crate::gateway) fn is_of_user(pid: i32, user: Option<u32>) -> bool {
    let ours = rustix::process::getuid().as_raw();
    proc::real_uid_of(pid).is_some_and(|uid| uid == ours || Some(uid) == user)
}
