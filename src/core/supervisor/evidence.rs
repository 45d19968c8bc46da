//! Before a gateway is ended for its health: what may tell why is written down while it is still there to be looked at.

use super::health::verdict_on_ours;
use super::state::{Child, EvidenceFound, Examining, Overuse, Poll, State, StopReason, Was};
use super::{Effect, Effects, Moment, Observation, Report, Supervisor};
use crate::fault::Fault;
use crate::liveness::{Hung, Liveness};
use crate::prelude::*;
use crate::probe_history::{Excess, HangContext};
use crate::report::HungReport;
use crate::{Conclusion, Condition, Phase, Verdict};
use core::time::Duration;

/// How long the evidence is waited for: a look at a process that hangs may hang itself, and the replacement is worth more.
pub(super) const EVIDENCE_TIME_MAX: Duration = Duration::from_secs(5);

/// How many failed probes the report of a hang names.
const PROBES_TOLD_MAX: usize = 8;

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
}

impl Supervisor {
    pub(super) fn examine(&mut self, now: Moment, child: Child, poll: Poll, was: Was, hung: Hung, fx: &mut Effects) {
        let examining = Examining { child, poll, was, hung, until: self.evidence_deadline(now) };
        let case = Box::new(self.hang_context(now, &examining));
        fx.push(Effect::Examine { generation: self.generation, case });
        self.state = State::Examining(examining);
    }

    fn evidence_deadline(&self, now: Moment) -> Moment {
        if self.has(Fault::EvidenceWaitedForEver) { Moment::MAX } else { now.saturating_add(EVIDENCE_TIME_MAX) }
    }

    fn hang_context(&self, now: Moment, examining: &Examining) -> HangContext {
        let Examining { child, hung, .. } = examining;
        HangContext {
            why: hung.why,
            last_good: examining.started().map(|_| hung.last_good),
            failed_probes: hung.failed_probes,
            listener: child.listener,
            age: now.saturating_sub(child.spawned),
            excess: None,
            looks: self.trail.looks(now),
            samples: self.trail.samples(now),
        }
    }

    pub(super) fn hung_report(&self, now: Moment, examining: &Examining, found: EvidenceFound) -> Report {
        let Hung { failed_probes, why, limit, .. } = examining.hung;
        let case = self.hang_context(now, examining);
        let failed = case.looks.iter().filter(|look| case.last_good.is_none_or(|good| look.ago < good));
        let mut probes: Vec<_> = failed.rev().take(PROBES_TOLD_MAX).map(ToString::to_string).collect();
        probes.reverse();
        Report::GatewayHung(Box::new(HungReport {
            generation: self.generation,
            last_good: case.last_good,
            failed_probes,
            why,
            limit,
            probes,
            conclusion: found.conclusion.unwrap_or_else(|| Conclusion::of(&case, None)),
            evidence: found.evidence,
        }))
    }

    pub(super) fn on_examined(&mut self, now: Moment, found: EvidenceFound, fx: &mut Effects) {
        match &self.state {
            State::Examining(examining) => {
                let examining = examining.clone();
                self.terminate_hung(now, &examining, found, fx);
            }
            State::Running { overuse: Overuse::Proven { .. }, .. } => self.end_for_memory(now, found, fx),
            State::Running { overuse: Overuse::Samples(_), .. }
            | State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Adopting(_)
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Starting { .. }
            | State::Stopping(_)
            | State::Sweeping { .. }
            | State::Exited => {}
        }
    }

    /// Ends the gateway that is examined, with or without the evidence.
    pub(super) fn terminate_hung(
        &mut self,
        now: Moment,
        examining: &Examining,
        found: EvidenceFound,
        fx: &mut Effects,
    ) {
        fx.push(Effect::Report(self.hung_report(now, examining, found)));
        self.terminate(now, examining.child, examining.up(), StopReason::Hung, self.policy.hung_stop_timeout, fx);
    }

    /// The tree is over its limit. What has the memory is written down while all of it is still there: a drain ends
    /// processes.
    pub(super) fn weigh(&mut self, now: Moment, excess: Excess, fx: &mut Effects) {
        let until = self.evidence_deadline(now);
        let State::Running { child, liveness, overuse, .. } = &mut self.state else { return };
        *overuse = Overuse::Proven { excess, until };
        let case = HangContext {
            why: "its processes use more than --memory-max",
            last_good: Some(now.saturating_sub(liveness.healthy_until())),
            failed_probes: 0,
            listener: child.listener,
            age: now.saturating_sub(child.spawned),
            excess: Some(excess),
            looks: self.trail.looks(now),
            samples: self.trail.samples(now),
        };
        fx.push(Effect::Examine { generation: self.generation, case: Box::new(case) });
        if self.has(Fault::MemoryEvidenceSkipped) {
            self.end_for_memory(now, EvidenceFound::default(), fx);
        }
    }

    /// Drains a gateway that is over its memory limit, with or without the evidence.
    pub(super) fn end_for_memory(&mut self, now: Moment, found: EvidenceFound, fx: &mut Effects) {
        let generation = self.generation;
        let State::Running { child, started, liveness, overuse: Overuse::Proven { excess, .. }, .. } = &self.state
        else {
            return;
        };
        let (child, up, excess) = (*child, Some((*started, liveness.clone())), *excess);
        let conclusion = found.conclusion.unwrap_or_else(|| Conclusion::over_limit(excess, &Condition::default()));
        fx.push(Effect::Report(Report::MemoryExceeded { generation, excess, conclusion, evidence: found.evidence }));
        self.memory_restarts = self.memory_restarts.saturating_add(1);
        self.tell_reloading(fx);
        self.terminate(now, child, up, StopReason::MemoryLimit, self.policy.stop_timeout, fx);
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
                State::Running { child, poll, started, liveness, stable, overuse: Overuse::Samples(0) }
            }
        };
    }
}
