//! What a health kill and a limit of memory need: samples in a row, a window that work has prolonged, and evidence.

use super::{Effect, Event, Generation, Judge, Moment, Owned, Turn, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::{Report, Usage};
use std::time::Duration;

type Judgement = Result<(), Broken>;

/// How long the evidence is waited for.
const EVIDENCE_TIME: Duration = Duration::from_secs(5);

/// So many samples in a row over the limit are a leak.
const SAMPLES_OVER: u32 = 3;

/// A gateway that hangs is being looked at.
#[derive(Debug, Clone, Copy)]
pub(super) struct Examination {
    since: Moment,
    /// The evidence has come.
    done: bool,
    /// The hang was told.
    told: bool,
}

impl Examination {
    /// From when on nothing is waited for any more.
    pub(super) fn until(self) -> Moment {
        if self.done { self.since } else { self.since.saturating_add(EVIDENCE_TIME) }
    }
}

impl Owned {
    /// Three samples in a row were over the limit.
    pub(super) fn is_over_limit(&self) -> bool {
        self.excess >= SAMPLES_OVER
    }

    /// Whether it has hung and has been looked at.
    pub(super) fn is_examined(&self, at: Moment) -> bool {
        self.examining.is_some_and(|examination| examination.until() <= at)
    }

    /// Nobody has told yet that it hangs.
    pub(super) fn hangs_untold(&self) -> bool {
        self.examining.is_some_and(|examination| !examination.told)
    }
}

impl Judge {
    pub(super) fn note_sample(&mut self, at: Moment, sample: Usage) {
        let limit = self.policy.memory_max_kb;
        let Some(owned) = self.owned.as_mut().filter(|owned| owned.started.is_some() && !owned.ending()) else {
            return;
        };
        if owned.examining.is_some() {
            return;
        }
        if let Some(cpu) = sample.cpu {
            owned.health.measure(at, cpu);
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
            return must(false, "P2", "a sample of what is not there");
        };
        let wanted = self.policy.memory_max_kb.is_some() && owned.started.is_some();
        must(tree == wanted, "P9", "the memory of a tree is read where there is a limit for it, and only there")
    }

    pub(super) fn judge_examine(&mut self, at: Moment, generation: Generation) -> Judgement {
        let held = self.lease.held;
        let policy = &self.policy;
        let Some(owned) = self.owned.as_mut().filter(|owned| owned.generation == generation && !owned.ending()) else {
            return must(false, "P2", "a look at what is not there");
        };
        must(held && owned.examining.is_none(), "P2", "a second look, or one without the lease")?;
        let proven = match owned.started {
            None => at >= owned.armed.saturating_add(policy.startup_timeout),
            Some(_) => owned.health.proven(policy).is_some_and(|proven| proven <= at),
        };
        must(proven, "P3", "a gateway counts as hung without a proof")?;
        let works = owned.started.is_some() && owned.health.may_go_on();
        must(!works, "P3", "a gateway whose event loop works is not given its window once more")?;
        owned.examining = Some(Examination { since: at, done: false, told: false });
        Ok(())
    }

    /// A window is prolonged.
    pub(super) fn judge_extension(&mut self, at: Moment, by: Duration) -> Judgement {
        let policy = &self.policy;
        let Some(owned) = self.owned.as_mut().filter(|owned| owned.started.is_some() && !owned.ending()) else {
            return must(false, "hang", "more time for what is not up");
        };
        let due = owned.health.proven(policy).is_some_and(|proven| proven <= at);
        let why = "more time for a gateway that does not work, has its time still, or had more already";
        must(due && owned.examining.is_none() && owned.health.may_go_on(), "hang", why)?;
        must(
            by == owned.health.go_on(at, policy),
            "hang",
            "more or less time than one window, or a boot behind a closed port",
        )
    }

    pub(super) fn judge_hung(&mut self, turn: &Turn<'_>, report: &Report) -> Judgement {
        let Report::GatewayHung(hung) = report else { return Ok(()) };
        let Some(examination) = self.owned.as_mut().and_then(|owned| owned.examining.as_mut()) else {
            return must(false, "P9", "a hang is told of what was not examined");
        };
        must(!std::mem::replace(&mut examination.told, true), "P9", "a hang is told twice")?;
        let found = match turn.event {
            Event::Examined { evidence, .. } => evidence.clone(),
            _ => None,
        };
        must(hung.evidence == found, "P9", "a hang names other evidence than there is")
    }

    /// What a limit of memory obliges to, at once.
    pub(super) fn judge_limit(&self, turn: &Turn<'_>) -> Judgement {
        let told = |effect: &&Effect| matches!(effect, Effect::Report(Report::MemoryExceeded { .. }));
        let told = turn.fx.iter().filter(told).count();
        let over = matches!(turn.event, Event::Measured { .. })
            && self.owned.as_ref().is_some_and(|owned| owned.is_over_limit() && owned.decided);
        must(told == usize::from(over), "memory", "a tree over its limit is told of once, and replaced")?;
        let idle = self.owned.as_ref().is_some_and(|owned| owned.is_over_limit() && !owned.ending());
        must(!idle, "memory", "a tree is over its limit and nothing is done about it")
    }
}
