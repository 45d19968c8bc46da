//! What a predecessor left, and what goes on record for a successor.

use super::{Event, ExitStatus, Generation, Health, Judge, Moment, Owned, Turn, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::{Effect, Fact, Owner, Remains, Report, Settled, Unfinished};

use super::steps::Answer;

/// A run that is over and is to go on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) generation: Generation,
    pub(super) started: Option<Moment>,
    pub(super) died: Moment,
    pub(super) clean: bool,
    pub(super) cause: Cause,
}

impl Judge {
    pub(super) fn judge_adopt(&mut self, generation: Generation, answer: Answer<'_>) -> Result<(), Broken> {
        must(self.lease.held, "lease", "a look for a gateway without the lease")?;
        must(self.owned.is_none() && !self.spawning && !self.adopting, "P1", "two gateways at once")?;
        let recorded = self.left.is_some_and(|left| left.generation == generation);
        let marked = answer.is_some_and(|(_, sighting)| matches!(sighting.owner, Owner::Ours(_)));
        let unrecorded = marked && self.left.is_none() && generation == self.generation + 1;
        must(recorded || unrecorded, "P2", "a look for a gateway that nobody left")?;
        self.generation = generation;
        self.adopting = true;
        (self.port, self.duty) = (super::PortWatch::default(), None);
        Ok(())
    }

    /// Whether the end of a gateway has to be told at this news of what is left of it.
    pub(super) fn loses(&self, event: &Event) -> bool {
        let Event::Adopted { generation, remains } = event else { return false };
        let gone = match remains {
            Remains::Leader { .. } => false,
            Remains::Orphans { .. } => true,
            Remains::Nothing { pid } => pid.is_some(),
        };
        self.adopting && *generation == self.generation && gone && self.left.is_some_and(|left| left.died.is_none())
    }

    pub(super) fn note_adopted(&mut self, at: Moment, generation: Generation, remains: &Remains) {
        if !std::mem::take(&mut self.adopting) {
            return;
        }
        let left = self.left.take();
        if !matches!(remains, Remains::Nothing { .. }) {
            self.lost_mark = None;
        }
        let told = left.is_none_or(|left| left.died.is_some());
        let (death, died) = left.and_then(|left| left.died).unwrap_or((ExitStatus::Unknown, at));
        let mut owned = heir(generation, at, left);
        match remains {
            Remains::Leader { pid, .. } if left.and_then(|left| left.died).is_none() => {
                (owned.pid, self.born) = (*pid, true);
            }
            // It survived a kill, and its end was told of then.
            Remains::Leader { pid, .. } => {
                (owned.pid, owned.death, owned.told_end, owned.lost) = (*pid, Some((death, died)), true, true);
            }
            Remains::Nothing { pid: None } if left.is_some() => {
                self.unborn = Some(generation);
                self.pace.spawn_failed(at);
                return self.wish_again();
            }
            Remains::Nothing { .. } if left.is_none() => {
                self.pardoned = true;
                return self.wish_again();
            }
            Remains::Orphans { pid } | Remains::Nothing { pid } => {
                owned.pid = pid.unwrap_or(0);
                (owned.death, owned.told_end, owned.lost) = (Some((death, died)), told, true);
                owned.gone = matches!(remains, Remains::Nothing { .. });
            }
        }
        self.owned = Some(owned);
        self.settle(at);
    }

    /// A restart that was asked for is the next start, whatever it is for.
    fn wish_again(&mut self) {
        if self.wish <= super::Wish::Restart {
            self.wish = super::Wish::Run;
        }
    }

    /// What the store is to remember is what happened, and once.
    pub(super) fn judge_fact(&mut self, generation: Generation, fact: Fact) -> Result<(), Broken> {
        match fact {
            Fact::Started | Fact::Stable | Fact::Died(_) => {
                must(generation == self.generation, "P9", "a fact about another gateway")
            }
            Fact::Settled(Settled::NeverStarted) => {
                must(self.postponed.is_none(), "P4", "a start that waits for an update counts as a failure")?;
                must(self.unborn.take() == Some(generation), "P9", "a gateway that was born, or is settled already")
            }
            Fact::Settled(Settled::Postponed) => {
                must(self.postponed.take() == Some(generation), "P9", "a start is put off for no update")
            }
            Fact::Planned => self.judge_planned(generation),
            Fact::Settled(Settled::Ran(run, cause)) => {
                let Some(ended) = self.ended.take() else {
                    return must(false, "P9", "an end on record of what has not ended, or twice");
                };
                let Ended { started, died, clean, .. } = ended;
                let told = Ended { generation, started: run.started, died: run.ended, clean: run.clean, cause };
                let what = format!("the end on record is another one: {told:?} instead of {ended:?}");
                must(told == ended && (started, died, clean) == (run.started, run.ended, run.clean), "P9", &what)
            }
        }
    }

    /// What was told has to be on record with the same step.
    pub(super) fn judge_record(turn: &Turn<'_>) -> Result<(), Broken> {
        let count = |wanted: &dyn Fn(&Effect) -> bool| turn.fx.iter().filter(|effect| wanted(effect)).count();
        let exits = count(&|effect| matches!(effect, Effect::Report(Report::GatewayExited(_))));
        let deaths = count(&|effect| matches!(effect, Effect::Remember { fact: Fact::Died(_), .. }));
        must(exits == deaths, "P9", "an end is told and not recorded, or the other way round")?;
        let starts = count(&|effect| matches!(effect, Effect::Report(Report::GatewayStarted { .. })));
        let ups = count(&|effect| matches!(effect, Effect::Remember { fact: Fact::Started, .. }));
        must(starts == ups, "P9", "a start is told and not recorded, or the other way round")
    }
}

fn heir(generation: Generation, at: Moment, left: Option<Unfinished>) -> Owned {
    let started = left.and_then(|left| left.started);
    let mut health = Health::new(at);
    health.healthy_until = left.and_then(|left| left.healthy_until).or(started).unwrap_or(at);
    let spawned = left.map_or(at, |left| left.spawned);
    Owned { started, spawned, listening: started.is_some(), health, ..Owned::new(generation, 0, at) }
}
