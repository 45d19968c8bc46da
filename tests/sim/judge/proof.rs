//! What a kill for a hang or for memory needs: consecutive samples, an extended window while the event loop works, and
//! evidence.

use super::{Effect, Event, Generation, Judge, Moment, Owned, Turn, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::{HangContext, Report, Usage};
use std::time::Duration;

type Judgement = Result<(), Broken>;

/// The longest wait for evidence.
const EVIDENCE_TIME: Duration = Duration::from_secs(5);

/// The consecutive samples over the limit that prove a leak.
const SAMPLES_OVER: u32 = 3;

/// The collection of evidence on a hung gateway.
#[derive(Debug, Clone, Copy)]
pub(super) struct Examination {
    since: Moment,
    /// The evidence has arrived.
    done: bool,
    /// The hang was reported.
    reported: bool,
}

impl Examination {
    /// When the wait for evidence ends.
    pub(super) fn until(self) -> Moment {
        if self.done { self.since } else { self.since.saturating_add(EVIDENCE_TIME) }
    }
}

impl Owned {
    /// Whether it is ended because three consecutive samples were over the limit.
    pub(super) fn is_over_limit(&self) -> bool {
        self.weighing.is_some_and(|weighing| weighing.reported)
    }

    /// One that drains or restarts of its own accord is about to give its memory back.
    pub(super) fn note_serving(&mut self) {
        if self.weighing.is_some() && !self.ending() && !self.health.serves() {
            (self.weighing, self.excess) = (None, 0);
        }
    }

    /// Whether it hangs and the evidence is collected.
    pub(super) fn is_examined(&self, at: Moment) -> bool {
        self.examining.is_some_and(|examination| examination.until() <= at)
    }

    /// Whether its hang is not reported yet.
    pub(super) fn hang_unreported(&self) -> bool {
        self.examining.is_some_and(|examination| !examination.reported)
    }
}

impl Judge {
    pub(super) fn note_sample(&mut self, at: Moment, sample: &Usage) {
        self.note_stall(at, sample);
        let limit = self.policy.memory_max_kb;
        let Some(owned) = self.owned.as_mut().filter(|owned| owned.started.is_some() && !owned.ending()) else {
            return;
        };
        if owned.examining.is_some() || owned.weighing.is_some() || self.paused_until.is_some() {
            return;
        }
        if let (Some(limit), Some(tree)) = (limit, sample.tree_rss_kb) {
            owned.excess = if tree > limit && owned.health.serves() { owned.excess + 1 } else { 0 };
        }
    }

    pub(super) fn note_evidence(&mut self) {
        let Some(owned) = &mut self.owned else { return };
        if let Some(examination) = owned.examining.as_mut().or(owned.weighing.as_mut()) {
            examination.done = true;
        }
    }

    pub(super) fn judge_measure(&self, generation: Generation, tree: bool) -> Judgement {
        let Some(owned) = self.owned.as_ref().filter(|owned| owned.generation == generation && !owned.ending()) else {
            return must(false, "P2", "a sample of a gateway that does not exist");
        };
        let wanted = self.policy.memory_max_kb.is_some() && owned.started.is_some();
        must(tree == wanted, "P9", "the memory of a tree is read if and only if there is a limit")
    }

    pub(super) fn judge_examine(&mut self, at: Moment, generation: Generation, case: &HangContext) -> Judgement {
        if case.excess.is_some() {
            return self.judge_weigh(at, generation);
        }
        self.judge_life(at)?;
        self.judge_excuse()?;
        let held = self.lease.held;
        let policy = &self.policy;
        let Some(owned) = self.owned.as_mut().filter(|owned| owned.generation == generation && !owned.ending()) else {
            return must(false, "P2", "evidence of a gateway that does not exist");
        };
        must(held && owned.examining.is_none(), "P2", "evidence is collected twice, or without the lease")?;
        let proven = match owned.started {
            None => at >= owned.armed.saturating_add(policy.startup_timeout),
            Some(_) => owned.health.proven(policy).is_some_and(|proven| proven <= at),
        };
        must(proven, "P3", "a gateway counts as hung without a proof")?;
        owned.examining = Some(Examination { since: at, done: false, reported: false });
        Ok(())
    }

    fn judge_weigh(&mut self, at: Moment, generation: Generation) -> Judgement {
        let held = self.lease.held;
        let Some(owned) = self.owned.as_mut().filter(|owned| owned.generation == generation && !owned.ending()) else {
            return must(false, "P2", "evidence of a gateway that does not exist");
        };
        must(held && owned.weighing.is_none(), "P2", "evidence is collected twice, or without the lease")?;
        must(owned.excess >= SAMPLES_OVER, "P3", "a gateway counts as over its memory limit without a proof")?;
        owned.weighing = Some(Examination { since: at, done: false, reported: false });
        Ok(())
    }

    pub(super) fn judge_exceeded(&mut self, turn: &Turn<'_>, found: Option<&String>) -> Judgement {
        let policy = &self.policy;
        let Some(owned) = &mut self.owned else {
            return must(false, "memory", "the memory of a gateway that does not exist");
        };
        // One that hangs as well is not looked at for longer.
        let hangs = owned.health.proven(policy).is_some_and(|proven| proven <= turn.at);
        let Some(weighing) = owned.weighing.as_mut().filter(|weighing| !weighing.reported) else {
            return must(false, "memory", "a memory limit is reported twice, or without evidence being collected");
        };
        must(weighing.until() <= turn.at || hangs, "memory", "a gateway is ended for its memory before the evidence")?;
        weighing.reported = true;
        let collected = match turn.event {
            Event::Examined { evidence, .. } => evidence.as_ref(),
            _ => None,
        };
        must(found == collected, "P9", "a report of memory names other evidence than was collected")
    }

    pub(super) fn judge_hung(&mut self, turn: &Turn<'_>, report: &Report) -> Judgement {
        let Report::GatewayHung(hung) = report else { return Ok(()) };
        let Some(examination) = self.owned.as_mut().and_then(|owned| owned.examining.as_mut()) else {
            return must(false, "P9", "a hang is reported without evidence being collected");
        };
        must(!std::mem::replace(&mut examination.reported, true), "P9", "a hang is reported twice")?;
        let found = match turn.event {
            Event::Examined { evidence, .. } => evidence.clone(),
            _ => None,
        };
        must(hung.evidence == found, "P9", "a hang report names other evidence than was collected")
    }

    /// What a tree over its memory limit requires in the same step.
    pub(super) fn judge_limit(&self, turn: &Turn<'_>) -> Judgement {
        let reported = |effect: &Effect| matches!(effect, Effect::Report(Report::MemoryExceeded { .. }));
        let reported = turn.fx.iter().any(reported);
        let ended = self.owned.as_ref().is_some_and(|owned| owned.is_over_limit() && owned.decided);
        must(reported == ended, "memory", "a gateway over its memory limit is reported once and restarted")?;
        let idle = self.owned.as_ref().filter(|owned| !owned.ending()).is_some_and(|owned| {
            let is_unexamined = owned.excess >= SAMPLES_OVER && owned.weighing.is_none();
            is_unexamined || owned.weighing.is_some_and(|weighing| weighing.done)
        });
        must(!idle, "memory", "a gateway is over its memory limit and is not restarted")
    }
}
