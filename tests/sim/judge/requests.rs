//! P4 for what costs no budget: how fast requested and planned restarts may follow each other.

use super::{Goal, Judge, Owned, TICK_LATE_MAX, Turn};
use crate::fake_shell::{Broken, must};
use openclaw_supervise_core::{Effect, Event, Generation, Moment, Policy, Report, Request};
use std::time::Duration;

type Judgement = Result<(), Broken>;

/// The first delay of a start, and the age at which a stamp leaves the window.
const DELAY_MIN: Duration = Duration::from_secs(1);
const JUST_AFTER: Duration = Duration::from_millis(1);

/// Ends on request, or as planned, of gateways that were not stable. What cannot be known from outside is only possible.
#[derive(Debug, Clone, Default)]
pub(crate) struct QuickRestarts {
    certain: Vec<Moment>,
    possible: Vec<Moment>,
}

fn nth(stamps: &[Moment], at: Moment, nth: usize, policy: &Policy) -> Option<Moment> {
    let leaves = *stamps.get(stamps.len().checked_sub(nth)?)? + policy.boot_window + JUST_AFTER;
    (policy.boot_limit > 0 && leaves > at).then_some(leaves)
}

fn start_gate(stamps: &[Moment], at: Moment, policy: &Policy) -> Option<Moment> {
    let limit = policy.boot_limit as usize;
    let leaves = nth(stamps, at, limit + 1, policy)?;
    let count = stamps.iter().filter(|stamp| **stamp + policy.boot_window >= at).count();
    let delay = DELAY_MIN.saturating_mul(1 << (count - limit - 1).min(20));
    let delay = delay.min(policy.backoff_max).min(policy.stable_after);
    Some(leaves.min(*stamps.last()? + delay)).filter(|gate| *gate > at)
}

impl QuickRestarts {
    pub(super) fn note(&mut self, at: Moment, is_certain: bool) {
        for stamps in [Some(&mut self.possible), Some(&mut self.certain).filter(|_| is_certain)].into_iter().flatten() {
            let place = stamps.partition_point(|other| *other <= at);
            stamps.insert(place, at);
        }
    }

    /// A person does not want to wait.
    pub(super) fn forget(&mut self) {
        self.certain.clear();
    }

    /// Whether a start that is planned now must come as late as this, at least.
    pub(super) fn is_too_early(&self, at: Moment, start: Moment, policy: &Policy) -> bool {
        start_gate(&self.certain, at, policy).is_some_and(|gate| start < gate)
    }

    /// Whether a restart of a gateway that serves nothing may come now, and whether it may be put off.
    fn lets_unserved(&self, at: Moment, policy: &Policy) -> (bool, bool) {
        let has_gate = |stamps: &[Moment]| start_gate(stamps, at, policy).is_some();
        (!has_gate(&self.certain), has_gate(&self.possible))
    }

    /// When a start that is planned now may come at the earliest, and has to at the latest.
    fn start_bounds(&self, at: Moment, policy: &Policy) -> (Moment, Moment) {
        let bound = |stamps: &[Moment]| start_gate(stamps, at, policy).unwrap_or(at);
        (bound(&self.certain), bound(&self.possible))
    }

    pub(super) fn explains(&self, at: Moment, start: Moment, policy: &Policy) -> bool {
        start_gate(&self.possible, at, policy).is_some_and(|gate| start <= gate)
    }
}

/// The requested restart that waits: for which gateway, and when it may be made and has to be. `1`: there is one to restart.
#[derive(Debug, Clone, Default)]
pub(super) struct Waiting(Option<(Generation, Moment, Moment)>, bool);

impl Waiting {
    /// A person does not want to wait.
    pub(super) fn hasten(&mut self, at: Moment) {
        if let Some((_, may, due)) = &mut self.0 {
            (*may, *due) = (at.min(*may), at.min(*due));
        }
    }

    /// It waits for the end of a pause.
    fn hold(&mut self, generation: Generation, until: Moment) {
        if !self.is_for(generation) {
            self.0 = Some((generation, Moment::ZERO, until));
        }
    }

    /// A pause is over.
    pub(super) fn resume(&mut self, at: Moment) {
        if let Some((_, may, due)) = &mut self.0 {
            (*may, *due) = (at.min(*may), at.max(*due));
        }
    }

    pub(super) fn is_for(&self, generation: Generation) -> bool {
        self.0.is_some_and(|(waits, ..)| waits == generation)
    }

    /// The next tick makes it, or another request before that.
    fn is_due(&self, generation: Generation, at: Moment) -> bool {
        self.0.is_some_and(|(waits, may, _)| waits == generation && may <= at)
    }
}

/// Whether its last informative probe was good. One that another supervisor started serves most likely.
fn serves(owned: &Owned) -> bool {
    (owned.started.is_some() || owned.adopted) && owned.health.is_healthy()
}

impl Judge {
    /// The gateway serves or boots, and nothing ends it.
    fn is_present(&self) -> Option<&Owned> {
        self.owned.as_ref().filter(|owned| !owned.ending() && owned.examining.is_none())
    }

    /// It has been up for so long that only a lack of answers keeps it from being stable.
    fn has_had_its_time(&self, at: Moment, owned: &Owned) -> bool {
        let time = self.policy.stable_after + self.policy.probe_interval;
        owned.started.is_some_and(|started| started + time <= at)
    }

    fn is_stable(&self, owned: &Owned) -> bool {
        owned
            .started
            .is_some_and(|started| owned.health.healthy_until.saturating_sub(started) >= self.policy.stable_after)
    }

    /// A restart was requested. Says whether it is to be followed now.
    pub(super) fn judge_pace_of(&mut self, turn: &Turn<'_>) -> Result<bool, Broken> {
        let Event::Requested { request: request @ (Request::Restart | Request::RestartForced), .. } = turn.event else {
            return Ok(true);
        };
        let at = turn.at;
        let is_served = turn.fx.iter().any(|effect| matches!(effect, Effect::Report(Report::RestartRequested { .. })));
        // In the step of the exit nothing is taken in any more.
        let exits = turn.fx.iter().any(|effect| matches!(effect, Effect::Exit(_) | Effect::FinishSweep));
        if self.goal != Goal::Run || self.ends() || self.lease.lost || exits {
            return Ok(true);
        }
        if self.is_paused() && !is_served {
            let until = self.paused_until.unwrap_or(at);
            self.waiting.hold(self.generation, until);
            if *request == Request::RestartForced {
                self.force_restart();
            }
            return Ok(false);
        }
        if *request == Request::RestartForced {
            must(is_served, "request", "a forced restart is put off")?;
            self.waiting = Waiting::default();
            return Ok(true);
        }
        let limit = self.policy.boot_limit as usize;
        let gate = |stamps: &[Moment]| nth(stamps, at, limit, &self.policy);
        let present = self.is_present();
        let place = |is: fn(&Effect) -> bool| turn.fx.iter().position(is);
        let ends = place(|effect| matches!(effect, Effect::Terminate { .. }));
        // For its lease, before the request was taken in.
        let is_ended_first =
            ends.is_some() && ends < place(|effect| matches!(effect, Effect::Report(Report::RestartRequested { .. })));
        if is_served {
            let may = is_ended_first
                || self.waiting.is_due(self.generation, at)
                || present.is_none_or(|owned| {
                    self.is_stable(owned)
                        || self.has_had_its_time(at, owned)
                        || gate(&self.pace.quick.certain).is_none()
                        || !serves(owned) && self.pace.quick.lets_unserved(at, &self.policy).0
                });
            must(may, "P4", "a requested restart of a gateway that is not stable, after as many as the limit")?;
            self.waiting = Waiting::default();
            return Ok(true);
        }
        let Some(due) = gate(&self.pace.quick.possible) else {
            return must(false, "request", "a requested restart is put off without a reason").map(|()| false);
        };
        let is_stable = present.is_some_and(|owned| self.is_stable(owned));
        must(!is_stable, "request", "the restart of a stable gateway is put off")?;
        let is_idle = present.is_some_and(|owned| !serves(owned)) && !self.pace.quick.lets_unserved(at, &self.policy).1;
        must(!is_idle, "request", "the restart of a gateway that serves nothing is put off without a reason")?;
        let stable = present.and_then(|owned| owned.started);
        let bound =
            |due: Moment| stable.map_or(due, |up| due.min(up + self.policy.stable_after + self.policy.probe_interval));
        let (mut may, mut due) = (bound(gate(&self.pace.quick.certain).unwrap_or(at)), bound(due));
        if present.is_some_and(|owned| !serves(owned)) {
            (may, due) = self.pace.quick.start_bounds(at, &self.policy);
        }
        match &mut self.waiting.0 {
            Some((generation, ..)) if *generation == self.generation => {}
            waiting => *waiting = Some((self.generation, may, due)),
        }
        Ok(false)
    }

    /// A restart is reported as requested.
    pub(super) fn judge_served(&mut self, turn: &Turn<'_>) -> Judgement {
        if let Event::Requested { request: Request::Restart | Request::RestartForced, .. } = turn.event {
            return Ok(());
        }
        must(!self.is_paused(), "pause", "a restart that was put off is served in a pause")?;
        must(
            *turn.event == Event::Tick,
            "request",
            "a restart that was put off is served in the step of another event",
        )?;
        let waiting = self.waiting.0.take().filter(|(generation, ..)| *generation == self.generation);
        let is_due = waiting.is_some_and(|(_, may, _)| may <= turn.at);
        let is_stable = waiting.is_some()
            && self.is_present().is_some_and(|owned| self.is_stable(owned) || self.has_had_its_time(turn.at, owned));
        let is_unserved = waiting.is_some()
            && self.is_present().is_some_and(|owned| !serves(owned))
            && self.pace.quick.lets_unserved(turn.at, &self.policy).0;
        must(
            is_due || is_stable || is_unserved,
            "P4",
            "a restart that was put off comes too early, or was not requested",
        )?;
        self.note_request(turn.at, Request::Restart);
        Ok(())
    }

    /// What was put off is not forgotten.
    pub(super) fn judge_waiting(&mut self, turn: &Turn<'_>) -> Judgement {
        let can = self.goal == Goal::Run && !self.is_paused() && !self.lease.lost && self.is_present().is_some();
        let could = std::mem::replace(&mut self.waiting.1, can);
        let Some((generation, _, due)) = &mut self.waiting.0 else { return Ok(()) };
        // One that was due during a search or an examination is made by the tick after it.
        if !could {
            *due = turn.at.max(*due);
        }
        let slack = TICK_LATE_MAX + self.standstill;
        let is_forgotten = can && *generation == self.generation && *due + slack <= turn.at;
        must(!is_forgotten, "request", "a restart that was put off is forgotten")
    }
}
