//! Before a gateway is ended for its health: what may tell why is written down while it is still there to be looked at.

use super::health::verdict_on_ours;
use super::state::{Child, Examining, Poll, State, StopReason, Was};
use super::{Effect, Effects, Moment, Observation, Report, Supervisor};
use crate::fault::Fault;
use crate::liveness::{Hung, Liveness};
use crate::prelude::*;
use crate::probe_history::HangContext;
use crate::report::HungReport;
use crate::{Phase, Verdict};
use core::time::Duration;

/// How long the evidence is waited for: a look at a process that hangs may hang itself, and the replacement is worth more.
pub(super) const EVIDENCE_TIME_MAX: Duration = Duration::from_secs(5);

impl Examining {
    pub(super) fn up(&self) -> Option<(Moment, Liveness)> {
        match &self.was {
            Was::Booting(_) => None,
            Was::Up { started, liveness, .. } => Some((*started, liveness.clone())),
        }
    }

    pub(super) fn started(&self) -> Option<Moment> {
        self.up().map(|(started, _)| started)
    }

    pub(super) fn report(&self, generation: u64, evidence: Option<String>) -> Report {
        let Hung { last_good, failed_probes, why } = self.hung;
        let last_good = self.started().map(|_| last_good);
        Report::GatewayHung(HungReport { generation, last_good, failed_probes, why, evidence })
    }
}

impl Supervisor {
    pub(super) fn examine(&mut self, now: Moment, child: Child, poll: Poll, was: Was, hung: Hung, fx: &mut Effects) {
        let case = HangContext {
            why: hung.why,
            last_good: matches!(was, Was::Up { .. }).then_some(hung.last_good),
            failed_probes: hung.failed_probes,
            listener: child.listener,
            age: now.saturating_sub(child.spawned),
            looks: self.trail.looks(now),
            samples: self.trail.samples(now),
        };
        fx.push(Effect::Examine { generation: self.generation, case: Box::new(case) });
        let until = now.saturating_add(EVIDENCE_TIME_MAX);
        let until = if self.has(Fault::EvidenceWaitedForEver) { Moment::MAX } else { until };
        self.state = State::Examining(Examining { child, poll, was, hung, until });
    }

    pub(super) fn on_examined(&mut self, now: Moment, evidence: Option<String>, fx: &mut Effects) {
        if let State::Examining(examining) = &self.state {
            let examining = examining.clone();
            self.terminate_hung(now, &examining, evidence, fx);
        }
    }

    /// Ends the gateway that is examined, with or without the evidence.
    pub(super) fn terminate_hung(
        &mut self,
        now: Moment,
        examining: &Examining,
        evidence: Option<String>,
        fx: &mut Effects,
    ) {
        fx.push(Effect::Report(examining.report(self.generation, evidence)));
        self.terminate(now, examining.child, examining.up(), StopReason::Hung, self.policy.hung_stop_timeout, fx);
    }

    /// The probe that was under way is back. A late answer clears the hang.
    pub(super) fn reconsider(&mut self, now: Moment, sighting: &Observation, fx: &mut Effects) {
        let verdict = verdict_on_ours(sighting, self.policy.planted);
        let State::Examining(examining) = &mut self.state else { return };
        examining.child.note_answer(sighting);
        let is_back = match (&examining.was, verdict) {
            (Was::Booting(_), Verdict::Gateway(Phase::Started | Phase::Unknown) | Verdict::Foreign) => true,
            (Was::Up { liveness, .. }, Verdict::Gateway(_) | Verdict::Draining | Verdict::Foreign) => {
                let mut liveness = liveness.clone();
                liveness.observe(now, verdict);
                liveness.hung(now, &self.policy).is_none()
            }
            (Was::Booting(_) | Was::Up { .. }, _) => false,
        };
        if !is_back {
            examining.poll = examining.poll.next(now, self.policy.probe_interval);
            return;
        }
        self.clear_hang(now);
        if let State::Starting { .. } = self.state {
            self.judge_boot(now, sighting, fx);
        } else {
            self.judge_liveness(now, sighting, fx);
        }
    }

    /// What was held against the gateway proves nothing any more: it answers, or the machine stood still.
    pub(super) fn clear_hang(&mut self, now: Moment) {
        let State::Examining(Examining { child, poll, was, .. }) = &self.state else { return };
        let (child, poll) = (*child, *poll);
        self.state = match was.clone() {
            Was::Booting(mut boot) => {
                boot.rearm(now);
                State::Starting { child, poll, boot }
            }
            Was::Up { started, mut liveness, stable } => {
                liveness.rearm(now);
                State::Running { child, poll, started, liveness, stable, excess: 0 }
            }
        };
    }
}
