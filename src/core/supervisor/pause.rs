//! A pause of the supervision: an operator has its hands on the gateway. It is looked at and told of, and neither replaced for
//! its health or memory nor started. Stops, and the fence of the lease, are as ever.

use super::health::forget_overuse;
use super::state::{Paused, Poll, ProbePurpose, State, StopReason};
use super::{Effect, Effects, Moment, Report, Requester, Supervisor};
use crate::event::{PAUSE_MAX, PauseRequest};
use crate::fault::Fault;
use crate::prelude::*;
use crate::units::is_unprintable;
use core::time::Duration;

/// In characters.
const REASON_CHARS_MAX: usize = 200;

impl Supervisor {
    /// `None` ends it.
    pub(super) fn on_pause_requested(
        &mut self,
        now: Moment,
        pause: Option<PauseRequest>,
        by: &Requester,
        fx: &mut Effects,
    ) {
        if self.state.is_over() || self.lease.is_none() {
            return;
        }
        match pause {
            Some(_) if self.is_ending() || self.lost.is_some() => {
                fx.push(Effect::Report(Report::PauseRefused { why: "the supervisor is ending" }));
            }
            Some(PauseRequest { period, reason }) => self.pause(now, period, &reason, by.to_string(), fx),
            None if self.paused.is_some() => self.resume(now, format!("requested by {by}"), fx),
            None => {}
        }
    }

    fn pause(&mut self, now: Moment, period: Duration, reason: &str, by: String, fx: &mut Effects) {
        let period = period.min(PAUSE_MAX);
        let clean = reason.chars().map(|letter| if is_unprintable(letter) { ' ' } else { letter });
        let reason: String = clean.take(REASON_CHARS_MAX).collect();
        let until = now.saturating_add(period);
        self.paused = Some(Paused { until, reason: reason.clone(), by: by.clone() });
        fx.push(Effect::Report(Report::SupervisionPaused { period, reason, by }));
        self.hold_for_pause(now, until);
        self.tell_waiting_if_none(fx);
    }

    /// What is about to act waits.
    fn hold_for_pause(&mut self, now: Moment, until: Moment) {
        let is_unconfirmed = self.is_unconfirmed();
        match &mut self.state {
            State::Examining(_) => self.clear_hang(now),
            State::Running { overuse, .. } => forget_overuse(overuse),
            State::Probing { poll, judging, .. } => {
                if !is_unconfirmed {
                    *poll = Poll::Due(until);
                }
                // By then it would be long ago that the hook ran.
                if let ProbePurpose::Prepared = judging {
                    *judging = ProbePurpose::Nothing;
                }
            }
            State::BackingOff { .. }
            | State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Adopting(_)
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Starting { .. }
            | State::Stopping(_)
            | State::Sweeping { .. }
            | State::Exited => {}
        }
    }

    /// A manager is not kept waiting for a gateway that is not started.
    fn tell_waiting_if_none(&mut self, fx: &mut Effects) {
        if let State::Probing { .. } | State::BackingOff { .. } = self.state {
            self.tell_waiting(fx);
        }
    }

    /// Goes on. What was seen meanwhile proves nothing: every window begins anew.
    fn resume(&mut self, now: Moment, why: String, fx: &mut Effects) {
        self.paused = None;
        fx.push(Effect::Report(Report::SupervisionResumed { why }));
        let is_unconfirmed = self.is_unconfirmed();
        let is_kept = self.has(Fault::PauseWindowKept);
        match &mut self.state {
            State::Running { .. } if is_kept => {}
            State::Starting { boot, .. } => boot.rearm(now),
            State::Running { liveness, .. } => liveness.rearm(now),
            State::Probing { poll, watch, .. } => {
                watch.rearm(now);
                if !is_unconfirmed {
                    *poll = Poll::Due(now);
                }
            }
            State::BackingOff { .. }
            | State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Adopting(_)
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Examining(_)
            | State::Stopping(_)
            | State::Sweeping { .. }
            | State::Exited => {}
        }
    }

    pub(super) fn tick_pause(&mut self, now: Moment, fx: &mut Effects) {
        let is_due = self.paused_until().is_some_and(|until| until <= now) && !self.has(Fault::PauseNeverEnds);
        if is_due && !self.state.is_over() {
            self.resume(now, "its time is over".to_owned(), fx);
        }
    }

    pub(super) fn paused_until(&self) -> Option<Moment> {
        self.paused.as_ref().map(|paused| paused.until)
    }

    /// When what is planned for `at` comes: a pause puts it off, and waives no part of its own wait.
    pub(super) fn after_pause(&self, at: Moment) -> Moment {
        self.paused_until().map_or(at, |until| until.max(at))
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.is_some()
    }

    /// The operator has a hand on it: its end is told of, costs nothing, and is followed by a start after the pause.
    pub(super) fn is_spared(&self, why: StopReason) -> bool {
        let is_own_end = matches!(why, StopReason::Died | StopReason::Orphaned);
        self.is_paused() && is_own_end && !self.has(Fault::PausedEndCosts)
    }

    /// The machine has slept: a pause is a time of the clock on the wall.
    pub(super) fn shorten_pause(&mut self, by: Duration) {
        if let Some(paused) = &mut self.paused {
            paused.until = paused.until.saturating_sub(by);
        }
    }

    /// Why nothing is started or restarted.
    pub(super) fn pause_reason(&self) -> Option<String> {
        let Paused { reason, .. } = self.paused.as_ref()?;
        let colon = if reason.is_empty() { "" } else { ": " };
        Some(format!("supervision is paused{colon}{reason}"))
    }
}
