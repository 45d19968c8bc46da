//! P11: a gateway that is alive is not ended for its health.
//!
//! What shows life is judged here on its own: a complete answer of the gateway, whatever it says.

use super::{Judge, Moment, Owner, Turn, Verdict, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::{Observation, Policy, Report};

type Judgement = Result<(), Broken>;

/// The probes that must have failed since the last sign of life.
const FAILED_MIN: u32 = 3;

/// The last report about the health of a gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Healthy,
    Missed,
    Degraded,
}

/// The signs of life of the present gateway.
#[derive(Debug, Clone)]
pub(super) struct Life {
    /// Its last complete answer, if that was not a gateway's: one that says what it does (starting, draining) is judged
    /// by the limits for that.
    pub(super) answered: Option<Moment>,
    /// How many probes have failed since its last answer.
    pub(super) missed: u32,
    /// It has said that it drains. If it stops answering then, it has the time of a drain or, behind a closed port, of a boot.
    drains: bool,
    told: Told,
}

impl Life {
    pub(super) fn new() -> Self {
        Self { answered: None, missed: 0, drains: false, told: Told::Healthy }
    }

    /// Whether the last informative probe brought such an answer.
    pub(super) fn answers(&self) -> bool {
        self.answered.is_some() && self.missed == 0
    }

    pub(super) fn is_degraded(&self) -> bool {
        self.told == Told::Degraded
    }

    /// The same for an answer of the port that is known to be about it.
    pub(super) fn note(&mut self, at: Moment, sighting: &Observation) {
        let strange = matches!(sighting.owner, Owner::Other(_));
        if let Verdict::Gateway(_) | Verdict::Draining = sighting.verdict
            && !strange
        {
            self.drains = sighting.verdict == Verdict::Draining;
        }
        match sighting.verdict {
            Verdict::Inconclusive => {}
            Verdict::Foreign if !strange => (self.answered, self.missed) = (Some(at), 0),
            Verdict::Gateway(_) | Verdict::Draining if !strange => (self.answered, self.missed) = (None, 0),
            Verdict::Gateway(_)
            | Verdict::Draining
            | Verdict::Free
            | Verdict::Booting
            | Verdict::Silent
            | Verdict::Foreign
            | Verdict::Malformed => self.missed += 1,
        }
    }

    pub(super) fn rearm(&mut self, at: Moment) {
        (self.answered, self.missed) = (self.answered.map(|_| at), 0);
    }

    /// When a boot that answered badly at the end of its time has to be ended; `None` while it answers.
    pub(super) fn is_due(&self, policy: &Policy) -> Option<Moment> {
        match self.answered {
            Some(_) if self.missed < FAILED_MIN => None,
            Some(at) => Some(at + policy.hang_after),
            None => Some(Moment::ZERO),
        }
    }

    /// When its answers do not show any more that it is alive; `None` while they do.
    pub(super) fn lapses(&self, policy: &Policy) -> Option<Moment> {
        if self.drains && self.missed > 0 { Some(Moment::ZERO) } else { self.is_due(policy) }
    }
}

impl Judge {
    /// A step that decides that a gateway hangs or never came up.
    pub(super) fn judge_life(&self, at: Moment) -> Judgement {
        let alive =
            self.owned.as_ref().is_some_and(|owned| owned.life.lapses(&self.policy).is_none_or(|over| over > at));
        must(!alive, "P11", "a gateway that answers is ended for its health")
    }

    /// Each change of its health is reported once, and nothing else.
    pub(super) fn judge_standing(&mut self, turn: &Turn<'_>, report: &Report) -> Judgement {
        let budget = self.policy.startup_timeout;
        let Some(owned) = &mut self.owned else { return Ok(()) };
        let told = match report {
            Report::LivenessMissed { .. } => Told::Missed,
            Report::LivenessDegraded { .. } => Told::Degraded,
            Report::LivenessRecovered { .. } => Told::Healthy,
            _ => return Ok(()),
        };
        must(std::mem::replace(&mut owned.life.told, told) != told, "P9", "the health of a gateway is reported twice")?;
        // A boot that answers is reported when its time is over.
        let answers = owned.life.answers() || owned.started.is_none() && owned.life.answered.is_some();
        let late = owned.started.is_some() || turn.at >= owned.armed.saturating_add(budget);
        must(
            told != Told::Degraded || answers && late,
            "hang",
            "degraded without an answer, or before the end of a boot",
        )
    }

    /// What an answer of a gateway that is up requires: the report of its change.
    pub(super) fn judge_degraded(&self, answered: bool) -> Judgement {
        let Some(owned) = self.owned.as_ref().filter(|owned| owned.started.is_some() && !owned.ending()) else {
            return Ok(());
        };
        let answers = answered && owned.life.answers();
        must(!answers || owned.life.is_degraded(), "P11", "a gateway that answers badly is not reported as degraded")
    }
}
