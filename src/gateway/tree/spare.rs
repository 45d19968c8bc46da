//! The installers in a tree that replace OpenClaw's package, which are left to finish.

use super::super::installer;
use super::members::Tree;
use super::membership::TreeMember;
use super::toll::{Name, Toll, name};
use crate::core::Installers;
use std::collections::BTreeSet;

/// What is left to finish.
#[derive(Debug, Default)]
pub(super) struct Spared {
    pub(super) installers: BTreeSet<Name>,
    /// With all that they have started.
    family: BTreeSet<Name>,
}

impl Spared {
    /// The installers among these members, if they are to finish. `toll` knows their command lines.
    pub(super) fn among(members: &[TreeMember], tree: &Tree, toll: &Toll) -> Self {
        let mut this = Self::default();
        if tree.installers == Installers::Finish {
            let replaces = |member: &&TreeMember| {
                let pid = member.process.pid;
                let command = toll.command(name(&member.process));
                Some(pid) != tree.number()
                    && command
                        .is_some_and(|command| installer::replaces_openclaw(pid, &command, tree.package.as_deref()))
            };
            this.installers = members.iter().filter(replaces).map(|member| name(&member.process)).collect();
            this.family.clone_from(&this.installers);
            this.add_children(members);
        }
        this
    }

    pub(super) fn add_children(&mut self, members: &[TreeMember]) {
        loop {
            let pids: BTreeSet<i32> = self.family.iter().map(|(pid, _)| *pid).collect();
            let before = self.family.len();
            let children = members.iter().filter(|member| pids.contains(&member.process.parent));
            self.family.extend(children.map(|member| name(&member.process)));
            if self.family.len() == before {
                return;
            }
        }
    }

    pub(super) fn has(&self, member: &TreeMember) -> bool {
        self.family.contains(&name(&member.process))
    }

    pub(super) fn names(&self) -> &BTreeSet<Name> {
        &self.family
    }
}
