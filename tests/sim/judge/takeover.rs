//! What a predecessor left, and what goes on record for a successor.

use super::{Event, ExitStatus, Generation, Health, Judge, Moment, Owned, TICK_LATE_MAX, Turn, Wish, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::{Effect, Fact, Owner, Remains, Report, Settled, Unfinished};

use super::steps::Answer;
use std::time::Duration;

/// A run that is over and is to go on record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) generation: Generation,
    pub(super) started: Option<Moment>,
    pub(super) died: Moment,
    pub(super) clean: bool,
    pub(super) cause: Cause,
}

/// A search for an earlier gateway that fails is given up after this time; a stop waits for so much of it.
const SEARCH_MAX: Duration = Duration::from_mins(1);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The search for an earlier gateway.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Search {
    pub(super) began: Moment,
    /// The last try failed.
    pub(super) failed: bool,
}

impl Judge {
    pub(super) fn judge_clear_hooks(&mut self, turn: &Turn<'_>, _heir: bool) -> Result<(), Broken> {
        must(self.lease.held, "lease", "hooks are ended without the lease")?;
        if !std::mem::replace(&mut self.clearing, true) {
            let leased = matches!(turn.event, Event::Leased { .. });
            must(leased, "P1", "the hooks of a predecessor are ended too late")?;
            self.search = Search { began: turn.at, failed: false };
        }
        Ok(())
    }

    /// Whatever comes next does so once the hooks of a predecessor are gone, or have had their time.
    pub(super) fn leave_clearing(&mut self, at: Moment) -> Result<(), Broken> {
        let given_up = at >= self.search.began + SEARCH_MAX || self.wish >= Wish::Detach;
        must(!std::mem::take(&mut self.clearing) || given_up, "P1", "the hooks of a predecessor are not waited for")
    }

    /// Whether it has ended without knowing what a predecessor left.
    pub(crate) fn gave_up_search(&self) -> bool {
        self.adopting
    }

    /// Whether a search may be given up now.
    pub(super) fn searched_in_vain(&self, at: Moment) -> bool {
        let stopped = self.stop.is_some_and(|(since, _)| at >= since.saturating_add(STOP_PATIENCE));
        let fails = self.search.failed && self.wish >= Wish::Detach;
        let looks = self.adopting || self.clearing;
        looks && (fails || stopped || at >= self.search.began + SEARCH_MAX)
    }

    /// A search is bounded, and a stop ends it.
    pub(super) fn judge_search(&self, turn: &Turn<'_>) -> Result<(), Broken> {
        if self.ends() || !self.adopting && !self.clearing {
            return Ok(());
        }
        must(!self.clearing || self.wish < Wish::StopNow, "P5", "a second stop waits for the hooks of a predecessor")?;
        let failed = matches!(turn.event, Event::AdoptFailed { generation, .. } if *generation == self.generation);
        must(!failed || self.wish < Wish::Detach, "P5", "a stop waits for a search that fails")?;
        must(self.wish < Wish::StopNow || !self.search.failed, "P5", "a second stop waits for a search that fails")?;
        let now = turn.at.saturating_sub(self.stood_still);
        let past = |due: Moment| now > due.saturating_add(TICK_LATE_MAX);
        let stop = self.stop.is_some_and(|(since, _)| past(since.saturating_add(STOP_PATIENCE)));
        must(!stop, "P5", "a stop waits for a search that brings nothing")?;
        let late = turn.at > self.search.began + SEARCH_MAX + self.standstill + TICK_LATE_MAX;
        must(!late, "owed", "a search for an earlier gateway goes on for ever")
    }

    pub(super) fn judge_adopt(&mut self, at: Moment, generation: Generation, answer: Answer<'_>) -> Result<(), Broken> {
        must(self.lease.held, "lease", "a look for a gateway without the lease")?;
        self.leave_clearing(at)?;
        if self.adopting {
            return must(generation == self.generation, "P1", "two gateways are looked for at once");
        }
        must(self.owned.is_none() && !self.spawning, "P1", "two gateways at once")?;
        let recorded = self.left.is_some_and(|left| left.generation == generation);
        let marked = answer.is_some_and(|(_, sighting)| matches!(sighting.owner, Owner::Ours(_)));
        let unrecorded = marked && self.left.is_none() && generation == self.generation + 1;
        must(recorded || unrecorded, "P2", "a look for a gateway that nobody left")?;
        self.generation = generation;
        self.adopting = true;
        self.search = Search { began: at, failed: false };
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
        if self.wish <= Wish::Restart {
            self.wish = Wish::Run;
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
