//! An agent that asks for restarts again and again.

use super::{World, WorldEvent};
use crate::dice::Dice;
use crate::fake_shell::Broken;
use openclaw_supervise_core::event::PauseRequest;
use openclaw_supervise_core::{Event, Report, Request, Requester};
use std::time::Duration;

/// The longest pause of the supervision.
pub(super) const PERIOD_MAX: Duration = Duration::from_mins(5);

impl World<'_> {
    /// Some worlds have one; its requests come within minutes. It has dice of its own: the rest of the world stays as it is.
    pub(super) fn plan_requests(&mut self, horizon: u64) {
        let mut dice = Dice::new(self.policy.seed.wrapping_add(77));
        if !dice.once_in(5) {
            return;
        }
        let mut when = dice.s(0, horizon);
        let apart = dice.pick(&[2, 20, 200]);
        for _ in 0..dice.below(7) + 3 {
            when += dice.s(0, apart);
            self.later(when, WorldEvent::Operator(Request::Restart));
        }
        // A person who does not want to wait for what the agent has brought about, or for the limit of unclean boots.
        for _ in 0..dice.below(4) {
            when += dice.s(0, apart);
            let request =
                dice.pick(&[Request::Retry, Request::RetryForced, Request::RetryForced, Request::RestartForced]);
            self.later(when, WorldEvent::Operator(request));
        }
    }

    /// An operator with its hands on the gateway, in some worlds.
    pub(super) fn plan_pauses(&mut self, horizon: u64) {
        let mut dice = Dice::new(self.policy.seed.wrapping_add(1919));
        if !dice.once_in(6) {
            return;
        }
        for _ in 0..=dice.below(3) {
            let when = dice.s(0, horizon);
            let most = dice.pick(&[1000, 20_000, 300_000]);
            let period = dice.ms(1, most);
            self.later(when, WorldEvent::Supervision(Some(period)));
            if dice.once_in(2) {
                let back = when + dice.ms(0, 400_000).min(period * 2);
                self.later(back, WorldEvent::Supervision(None));
            }
        }
    }

    pub(super) fn pause_supervision(&mut self, period: Option<Duration>) -> Result<(), Broken> {
        let Some(sup) = self.any_up() else { return Ok(()) };
        let back = self.sups[sup].paused_until;
        if back > self.now {
            self.at(back, WorldEvent::Supervision(period));
            return Ok(());
        }
        self.send_pause(sup, period)
    }

    fn send_pause(&mut self, sup: usize, period: Option<Duration>) -> Result<(), Broken> {
        let pause = period.map(|period| PauseRequest { period, reason: "gdb".to_owned() });
        let by = Requester { how: "pause".to_owned(), pid: Some(77), uid: None, command: None, inside: None };
        self.send(sup, Event::PauseRequested { pause, by })
    }

    /// The next owner of the lease learns of the pause on record.
    pub(super) fn recall_pause(&mut self, sup: usize) -> Result<(), Broken> {
        let wall = self.now + self.slept;
        match self.recorded_pause.filter(|until| *until > wall && self.sups[sup].up) {
            Some(until) => self.send_pause(sup, Some(until.saturating_sub(wall))),
            None => Ok(()),
        }
    }

    pub(super) fn record_pause(&mut self, report: &Report) {
        match report {
            Report::SupervisionPaused { period, .. } => self.recorded_pause = Some(self.now + self.slept + *period),
            Report::SupervisionResumed { .. } => self.recorded_pause = None,
            _ => {}
        }
    }
}
