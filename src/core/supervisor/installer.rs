//! Package managers in the tree of a gateway that has ended.

use super::state::{Installing, State, Stopping, TreePhase};
use super::{Effects, Intent, Moment, Supervisor};
use crate::effect::{Effect, Installers};
use crate::event::TreeEnd;
use crate::fault::Fault;
use crate::prelude::*;
use crate::report::Report;
use core::mem;
use core::time::Duration;

/// The pause before another look at an installer that is left to finish.
const INSTALLER_PAUSE: Duration = Duration::from_secs(1);

impl Supervisor {
    /// An installer that replaces OpenClaw's package under a gateway that ends by itself is let finish: half a package does not
    /// start, and one that is whole is waited for anyway. A request to end does not wait for it.
    pub(super) fn installers(&self, now: Moment) -> Installers {
        let State::Stopping(Stopping { installing, .. }) = &self.state else { return Installers::AsOthers };
        let is_over =
            installing.as_ref().is_some_and(|one| one.since.saturating_add(self.policy.update_timeout) <= now);
        match (&self.intent, installing) {
            _ if self.is_hurried() || self.has(Fault::InstallerKilled) => Installers::AsOthers,
            (Intent::Run | Intent::Restart(_), Some(_)) if !is_over || self.has(Fault::InstallerWaitedForEver) => {
                Installers::Finish
            }
            (_, Some(_)) => Installers::RollBack,
            (Intent::Run, None) => Installers::Finish,
            (Intent::Restart(_) | Intent::Detach(_) | Intent::Stop(_) | Intent::StopNow(_), None) => {
                Installers::AsOthers
            }
        }
    }

    /// Nothing is left but an installer of OpenClaw's package, which the next start waits for.
    pub(super) fn await_installer(&mut self, now: Moment, mut end: TreeEnd, fx: &mut Effects) {
        let (generation, within, is_ending) = (self.generation, self.policy.update_timeout, self.is_ending());
        let State::Stopping(stopping) = &mut self.state else { return };
        stopping.tree = TreePhase::Installing { again: now.saturating_add(INSTALLER_PAUSE) };
        let installers = mem::take(&mut end.installing);
        let is_new = stopping.installing.is_none();
        let since = stopping.installing.as_ref().map_or(now, |installing| installing.since);
        stopping.installing = Some(Installing { since, named: installers.join("; ") });
        if end.members.max(end.survivors) > 0 {
            fx.push(Effect::Report(Report::TreeKilled { generation, end: Box::new(end) }));
        }
        if is_ending || self.is_hurried() {
            // It was asked for while the kill was under way.
            self.kill(now, 0, false, fx);
        } else if is_new {
            fx.push(Effect::Report(Report::InstallerAwaited { generation, installers, within }));
        }
    }

    pub(super) fn tell_cut_short(&mut self, commands: &[String], fx: &mut Effects) {
        if !commands.is_empty() {
            let (generation, commands) = (self.generation, commands.to_vec());
            self.cut_short.clone_from(&commands);
            fx.push(Effect::Report(Report::InstallerKilled { generation, commands }));
        }
    }
}
