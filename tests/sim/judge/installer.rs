//! An installer of OpenClaw's package in the tree of a gateway that ends by itself is let finish, within its time.

use super::{Effect, Event, Goal, Judge, Moment, Turn, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::{Installers, Report, TreeEnd};

type Judgement = Result<(), Broken>;

#[derive(Debug, Clone, Default)]
pub(super) struct Installer {
    /// Since when one is left to finish.
    since: Option<Moment>,
    /// The last kill had a reason not to leave one.
    is_unwanted: bool,
}

impl Installer {
    /// Whether one is left in what was a tree.
    pub(super) fn note(&mut self, at: Moment, end: &TreeEnd) -> bool {
        self.since = if end.installing.is_empty() { None } else { self.since.or(Some(at)) };
        self.since.is_some()
    }
}

impl Judge {
    pub(super) fn judge_kill_of_installers(&mut self, at: Moment, installers: Installers) -> Judgement {
        let is_over = self.installer.since.is_some_and(|since| at >= since + self.policy.update_timeout);
        must(!is_over || installers != Installers::Finish, "owed", "an installer is waited for beyond its time")?;
        let is_withdrawn = self.owned.as_ref().is_some_and(|owned| owned.withdrawn);
        self.installer.is_unwanted = is_over || self.goal != Goal::Run || self.lease.lost || is_withdrawn;
        Ok(())
    }

    /// Judges what became of the installers.
    pub(super) fn judge_installers(&self, turn: &Turn<'_>) -> Judgement {
        let Event::TreeGone { generation, end } = turn.event else { return Ok(()) };
        if *generation != self.generation || end.cut_short.is_empty() || self.ends() {
            return Ok(());
        }
        must(self.installer.is_unwanted, "P3", "an installer of OpenClaw's package is killed half-way")?;
        let is_told = |effect: &Effect| matches!(effect, Effect::Report(Report::InstallerKilled { .. }));
        must(turn.fx.iter().any(is_told), "P7", "that an installer was killed half-way is not told")
    }
}
