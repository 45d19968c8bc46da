//! What a kill for a hang or for memory needs: consecutive samples, an extended window while the event loop works, and
//! evidence.

use super::{Effect, Event, Generation, Judge, Moment, Owned, Turn, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::{Report, Usage};
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
    /// Whether three consecutive samples were over the limit.
    pub(super) fn is_over_limit(&self) -> bool {
        self.excess >= SAMPLES_OVER
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
        if owned.examining.is_some() {
            return;
        }
        if let (Some(limit), Some(tree)) = (limit, sample.tree_rss_kb) {
            owned.excess = if tree > limit && owned.health.serves() { owned.excess + 1 } else { 0 };
        }
    }

    pub(super) fn note_evidence(&mut self) {
        if let Some(examination) = self.owned.as_mut().and_then(|owned| owned.examining.as_mut()) {
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

    pub(super) fn judge_examine(&mut self, at: Moment, generation: Generation) -> Judgement {
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
        let reported = |effect: &&Effect| matches!(effect, Effect::Report(Report::MemoryExceeded { .. }));
        let reported = turn.fx.iter().filter(reported).count();
        let over = matches!(turn.event, Event::Measured { .. })
            && self.owned.as_ref().is_some_and(|owned| owned.is_over_limit() && owned.decided);
        must(
            reported == usize::from(over),
            "memory",
            "a gateway over its memory limit is reported once and restarted",
        )?;
        let idle = self.owned.as_ref().is_some_and(|owned| owned.is_over_limit() && !owned.ending());
        must(!idle, "memory", "a gateway is over its memory limit and is not restarted")
    }
}
