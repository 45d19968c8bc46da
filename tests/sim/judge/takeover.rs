//! Takeover from a predecessor, and the records for the next supervisor.

use super::{Duty, Event, ExitStatus, Generation, Goal, Health, Judge, Moment, Owned, TICK_LATE_MAX, Turn, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::{Effect, Fact, Owner, Remains, Report, Settled, Unfinished};

use super::steps::Answer;
use std::time::Duration;

/// A run that has ended and is to be recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) generation: Generation,
    pub(super) started: Option<Moment>,
    pub(super) died: Moment,
    pub(super) clean: bool,
    pub(super) cause: Cause,
}

/// How long a failing search for an earlier gateway goes on; with `STOP_PATIENCE`, once a stop was requested.
const SEARCH_MAX: Duration = Duration::from_mins(1);
const STOP_PATIENCE: Duration = Duration::from_secs(5);

/// The search for an earlier gateway.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Search {
    pub(super) began: Moment,
    /// The last attempt failed.
    pub(super) failed: bool,
}

impl Judge {
    pub(super) fn judge_clear_hooks(&mut self, turn: &Turn<'_>) -> Result<(), Broken> {
        must(self.lease.held, "lease", "hooks are killed without the lease")?;
        if !std::mem::replace(&mut self.clearing, true) {
            let leased = matches!(turn.event, Event::Leased { .. });
            must(leased, "P1", "the hooks of a predecessor are killed too late")?;
            self.search = Search { began: turn.at, failed: false };
        }
        Ok(())
    }

    /// The next action comes after the hooks of a predecessor are gone, or their time is over.
    pub(super) fn leave_clearing(&mut self, at: Moment) -> Result<(), Broken> {
        let given_up = at >= self.search.began + SEARCH_MAX || self.goal >= Goal::Detach;
        must(
            !std::mem::take(&mut self.clearing) || given_up,
            "P1",
            "an action before the hooks of a predecessor are gone",
        )
    }

    /// Whether what a predecessor or a gateway has left is being looked for; after its exit: in vain.
    pub(crate) fn seeks(&self) -> bool {
        self.adopting
    }

    /// Whether the search may be given up now.
    pub(super) fn searched_in_vain(&self, at: Moment) -> bool {
        let stopped = self.leaving.is_some_and(|since| at >= since.saturating_add(STOP_PATIENCE));
        let fails = self.search.failed && self.goal >= Goal::Detach;
        let looks = self.adopting || self.clearing;
        looks && (fails || stopped || at >= self.search.began + SEARCH_MAX)
    }

    /// The search is bounded, and a stop ends it.
    pub(super) fn judge_search(&mut self, turn: &Turn<'_>) -> Result<(), Broken> {
        // In a pause the look at the port that shows that the hooks are given up waits for its end.
        if self.clearing && self.is_paused() && *turn.event == Event::Tick && turn.at >= self.search.began + SEARCH_MAX
        {
            self.clearing = turn.fx.iter().any(|effect| matches!(effect, Effect::ClearHooks { .. }));
        }
        let reads = self.goal >= Goal::Stop && self.lease.may_bring_gateway();
        if self.ends() || !self.adopting && !self.clearing && !reads {
            return Ok(());
        }
        must(!reads || self.goal < Goal::StopNow, "P5", "a second stop waits for the store")?;
        must(!self.clearing || self.goal < Goal::StopNow, "P5", "a second stop waits for the hooks of a predecessor")?;
        let failed = matches!(turn.event, Event::AdoptFailed { generation, .. } if *generation == self.generation);
        must(!failed || self.goal < Goal::Detach, "P5", "a stop waits for a failing search")?;
        must(self.goal < Goal::StopNow || !self.search.failed, "P5", "a second stop waits for a failing search")?;
        let now = turn.at.saturating_sub(self.suspended);
        let past = |due: Moment| now > due.saturating_add(TICK_LATE_MAX);
        // A stop waits so long for the hooks of a predecessor, and then for its gateway.
        let patience_ends = |since: Moment| since.max(self.search.began).saturating_add(STOP_PATIENCE);
        let stop = self.stop.is_some_and(|(since, _)| past(patience_ends(since)));
        must(!stop, "P5", "a stop waits too long for the search for an earlier gateway")?;
        let late = !reads && turn.at > self.search.began + SEARCH_MAX + self.standstill + TICK_LATE_MAX;
        // The look at the port that follows waits for the store.
        let waits = self.clearing && self.fence.is_unconfirmed();
        must(!late || waits, "owed", "the search for an earlier gateway has no end")
    }

    pub(super) fn judge_adopt(&mut self, at: Moment, generation: Generation, answer: Answer<'_>) -> Result<(), Broken> {
        must(self.lease.held, "lease", "a search for a gateway without the lease")?;
        self.leave_clearing(at)?;
        if self.adopting {
            return must(generation == self.generation, "P1", "two searches at once");
        }
        must(self.owned.is_none() && !self.spawning, "P1", "two gateways at once")?;
        let recorded = self.left.is_some_and(|left| left.generation == generation);
        let marked = answer.is_some_and(|(_, sighting)| matches!(sighting.owner, Owner::Ours(_)));
        let unrecorded = marked && self.left.is_none() && generation == self.generation + 1;
        must(recorded || unrecorded, "P2", "a search for a gateway that was not left")?;
        if !recorded {
            self.pace.unforce();
        }
        self.generation = generation;
        self.adopting = true;
        self.search = Search { began: at, failed: false };
        (self.port, self.duty) = (super::PortWatch::default(), None);
        Ok(())
    }

    /// Whether this result of the search requires a report that the gateway has ended.
    pub(super) fn loses(&self, event: &Event) -> bool {
        let Event::Adopted { generation, remains } = event else { return false };
        let gone = match remains {
            Remains::Leader { .. } | Remains::Unseen { .. } => false,
            Remains::Orphans { .. } => true,
            Remains::Nothing { pid } => pid.is_some(),
        };
        self.adopting && *generation == self.generation && gone && self.left.is_some_and(|left| left.died.is_none())
    }

    /// Whether this result requires a report that the end was not seen, and no other.
    pub(super) fn loses_sight(&self, event: &Event) -> bool {
        let Event::Adopted { generation, remains: Remains::Unseen { .. } } = event else { return false };
        self.adopting && *generation == self.generation && self.left.is_some_and(|left| left.died.is_none())
    }

    pub(super) fn note_adopted(&mut self, at: Moment, generation: Generation, remains: &Remains) {
        if !std::mem::take(&mut self.adopting) {
            return;
        }
        // A stop that waited for the search has its drain from here on; `judge_search` bounds the search.
        self.stop = self.stop.map(|(_, grace)| (at, grace));
        let left = self.left.take();
        if !matches!(remains, Remains::Nothing { .. }) {
            self.missing_pid = None;
        }
        let reported = left.is_none_or(|left| left.died.is_some());
        let (death, died) = left.and_then(|left| left.died).unwrap_or((ExitStatus::Unknown, at));
        let mut owned = left_gateway(generation, at, left);
        match remains {
            Remains::Leader { pid, .. } if left.and_then(|left| left.died).is_none() => {
                (owned.pid, self.has_run) = (*pid, true);
            }
            // It survived a kill; its end was reported then.
            Remains::Leader { pid, .. } => {
                (owned.pid, owned.death, owned.end_reported, owned.lost) = (*pid, Some((death, died)), true, true);
            }
            Remains::Nothing { pid: None } if left.is_some() => {
                self.never_started = Some(generation);
                self.pace.spawn_failed(at);
                return self.restart_done();
            }
            Remains::Nothing { .. } if left.is_none() => {
                self.may_pause = true;
                return self.restart_done();
            }
            Remains::Orphans { pid } | Remains::Nothing { pid } => {
                owned.pid = pid.unwrap_or(0);
                (owned.death, owned.end_reported, owned.lost) = (Some((death, died)), reported, true);
                owned.gone = matches!(remains, Remains::Nothing { .. });
            }
            // No end is reported that was not seen.
            Remains::Unseen { pid } => {
                (owned.pid, owned.gone) = (*pid, true);
                (owned.death, owned.end_reported, owned.lost) = (Some((death, died)), true, true);
            }
        }
        self.owned = Some(owned);
        self.settle(at);
    }

    /// The next start satisfies a requested restart.
    fn restart_done(&mut self) {
        if self.goal <= Goal::Restart {
            self.goal = Goal::Run;
        }
    }

    /// Each fact is recorded once, as it happened.
    pub(super) fn judge_fact(&mut self, generation: Generation, fact: Fact) -> Result<(), Broken> {
        match fact {
            Fact::Started | Fact::Stable | Fact::Died(_) | Fact::Unseen => {
                must(generation == self.generation, "P9", "a fact about another gateway")
            }
            Fact::Settled(Settled::NeverStarted) => {
                must(self.postponed.is_none(), "P4", "a start that waits for an update counts as a failure")?;
                must(
                    self.never_started.take() == Some(generation),
                    "P9",
                    "a gateway that was started, or is settled already",
                )
            }
            Fact::Settled(Settled::Postponed) => {
                must(self.postponed.take() == Some(generation), "P9", "a start is postponed without an update")
            }
            Fact::Planned => self.judge_planned(generation),
            Fact::Succeeded(run) => {
                self.judge_fact(generation, Fact::Settled(Settled::Ran(run, Cause::Asked)))?;
                // From here on its successor is on record.
                must(self.duty == Some(Duty::Succeed), "P9", "a successor is recorded that was not found")?;
                let (generation, spawned) = (generation + 1, self.last);
                self.left = Some(Unfinished { generation, spawned, started: None, healthy_until: None, died: None });
                Ok(())
            }
            Fact::Settled(Settled::Ran(run, cause)) => {
                let Some(ended) = self.ended.take() else {
                    return must(false, "P9", "an end is recorded twice, or before the gateway has ended");
                };
                let Ended { started, died, clean, .. } = ended;
                let reported = Ended { generation, started: run.started, died: run.ended, clean: run.clean, cause };
                let what = format!("the wrong end is recorded: {reported:?} instead of {ended:?}");
                must(reported == ended && (started, died, clean) == (run.started, run.ended, run.clean), "P9", &what)
            }
        }
    }

    /// What is reported is recorded in the same step.
    pub(super) fn judge_record(turn: &Turn<'_>) -> Result<(), Broken> {
        let count = |wanted: &dyn Fn(&Effect) -> bool| turn.fx.iter().filter(|effect| wanted(effect)).count();
        let exits = count(&|effect| matches!(effect, Effect::Report(Report::GatewayExited(_))));
        let deaths = count(&|effect| matches!(effect, Effect::Remember { fact: Fact::Died(_), .. }));
        must(exits == deaths, "P9", "an exit is reported but not recorded, or recorded but not reported")?;
        let unseen = count(&|effect| matches!(effect, Effect::Report(Report::GatewayUnseen { .. })));
        let losses = count(&|effect| matches!(effect, Effect::Remember { fact: Fact::Unseen, .. }));
        must(unseen == losses, "P9", "a gateway out of sight is reported but not recorded, or the reverse")?;
        let starts = count(&|effect| matches!(effect, Effect::Report(Report::GatewayStarted { .. })));
        let ups = count(&|effect| matches!(effect, Effect::Remember { fact: Fact::Started, .. }));
        must(starts == ups, "P9", "a start is reported but not recorded, or recorded but not reported")
    }
}

fn left_gateway(generation: Generation, at: Moment, left: Option<Unfinished>) -> Owned {
    let started = left.and_then(|left| left.started);
    let mut health = Health::new(at);
    health.healthy_until = left.and_then(|left| left.healthy_until).or(started).unwrap_or(at);
    let spawned = left.map_or(at, |left| left.spawned);
    Owned { started, adopted: true, spawned, listening: started.is_some(), health, ..Owned::new(generation, 0, at) }
}
