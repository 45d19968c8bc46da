//! Requested restarts that come faster than a gateway can become stable: they are merged into one, which waits while the
//! gateway serves on. A stop never waits.

use super::state::{Merged, State};
use super::{Effect, Effects, Intent, Moment, Report, Requester, Supervisor};
use crate::fault::Fault;
use crate::prelude::*;
use core::time::Duration;

impl Supervisor {
    /// Puts off a requested restart that comes too fast, or while one is under way. Says whether it did.
    pub(super) fn merge_restart(&mut self, now: Moment, by: &Requester, fx: &mut Effects) -> bool {
        if self.is_ending() {
            return false;
        }
        if let Intent::Restart(_) = self.intent {
            self.tell_merged(by, None, "one is under way already".to_owned(), fx);
            return true;
        }
        // `holds` has the states in which there is a gateway, or is about to be.
        let Some((at, why)) = self.restart_gate(now).filter(|_| self.holds().is_some()) else { return false };
        let (_, at) = self.merged.waiting.get_or_insert((by.clone(), at));
        let delay = at.saturating_sub(now);
        self.tell_merged(by, Some(delay), why, fx);
        true
    }

    /// A flood of one sender fills no log, whether it is one process or a new one each time, such as `kill` in a loop.
    fn tell_merged(&mut self, by: &Requester, delay: Option<Duration>, why: String, fx: &mut Effects) {
        let is_same = |last: &Requester| last.how == by.how && last.uid == by.uid && last.command == by.command;
        let is_same = self.merged.last.as_ref().is_some_and(is_same);
        let count = if is_same { self.merged.count.saturating_add(1) } else { 1 };
        (self.merged.last, self.merged.count) = (Some(by.clone()), count);
        if count.is_power_of_two() {
            fx.push(Effect::Report(Report::RestartMerged { by: by.clone(), requests: count, delay, why }));
        }
    }

    /// When a restart that is requested now would be served at the latest, and why not at once.
    pub(super) fn restart_gate(&self, now: Moment) -> Option<(Moment, String)> {
        let at = self.gate_of_present(now)?;
        let at = self.merged.waiting.as_ref().map_or(at, |(_, waits)| at.min(*waits));
        let why = || self.pause_reason().unwrap_or_else(|| self.restarts.pace_reason(now, &self.policy));
        // The tick that ends a pause makes what it has put off: until then its time may be over, and the pace does not count.
        (at > now || self.is_paused()).then(|| (at, why()))
    }

    /// The same without regard to one that waits already. Where nothing serves that a restart would interrupt, the pace is
    /// that of a start, which is seconds at first.
    fn gate_of_present(&self, now: Moment) -> Option<Moment> {
        let unserved = || {
            if self.has(Fault::UnservedRestartWaits) {
                return self.restarts.request_gate(now, &self.policy);
            }
            self.restarts.start_gate(now, &self.policy)
        };
        if let (
            Some(until),
            State::Starting { .. } | State::Running { .. } | State::Examining(_) | State::Adopting(_),
        ) = (self.paused_until(), &self.state)
        {
            return Some(until);
        }
        match &self.state {
            // The start that was asked for is under way, and has a pace of its own.
            State::Running { stable: true, .. }
            | State::Stopping(_)
            | State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Probing { .. }
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Sweeping { .. }
            | State::Exited => None,
            State::Running { liveness, .. } if !liveness.is_healthy() => unserved(),
            State::Running { started, .. } => {
                let stable = started.saturating_add(self.policy.stable_after);
                let gate = self.restarts.request_gate(now, &self.policy)?;
                Some(gate.min(stable.saturating_add(self.policy.probe_interval)))
            }
            State::BackingOff { until, .. } => {
                Some(self.restarts.start_gate(now, &self.policy)?.min(self.after_pause(*until)))
            }
            State::Awaiting(_) => self.restarts.start_gate(now, &self.policy),
            State::Examining(_) => unserved(),
            // One that another supervisor started most likely serves.
            State::Starting { child, .. } if !child.adopted => unserved(),
            State::Starting { .. } | State::Adopting(_) => self.restarts.request_gate(now, &self.policy),
        }
    }

    /// When the restart that waits is due.
    pub(super) fn merged_deadline(&self) -> Option<Moment> {
        let (_, at) = self.merged.waiting.as_ref()?;
        (self.may_serve_merged() && !self.has(Fault::MergedRestartForgotten)).then_some(*at)
    }

    fn may_serve_merged(&self) -> bool {
        self.intent == Intent::Run
            && !self.is_paused()
            && self.lost.is_none()
            && matches!(self.state, State::Starting { .. } | State::Running { .. })
    }

    /// What waits comes as soon as its reason is gone, by the next tick: the gateway has become stable, or has stopped
    /// answering, or a person does not want to wait.
    pub(super) fn hasten_merged(&mut self, now: Moment) {
        if self.merged.waiting.is_some() && self.may_serve_merged() {
            let gate = self.gate_of_present(now).unwrap_or(now);
            if let Some((_, at)) = &mut self.merged.waiting {
                *at = gate.min(*at);
            }
        }
    }

    /// The gateway is stable, or the window has moved on. A tick alone serves what waits: any other event has its own
    /// meaning for the gateway, and is reported first.
    pub(super) fn tick_merged(&mut self, now: Moment, fx: &mut Effects) {
        if !self.may_serve_merged() || self.has(Fault::MergedRestartForgotten) {
            return;
        }
        if let Some((by, _)) = self.merged.waiting.take_if(|(_, at)| *at <= now) {
            fx.push(Effect::Report(Report::RestartRequested { by: by.clone() }));
            self.intent.harden(Intent::Restart(by));
            self.follow_intent(now, fx);
        }
    }

    /// Another gateway is started: that is the restart.
    pub(super) fn forget_merged(&mut self) {
        self.merged = Merged::default();
    }
}
