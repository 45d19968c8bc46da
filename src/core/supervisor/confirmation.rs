//! How far the store vouches for the lease. A heartbeat that cannot be renewed ends the gateway before another supervisor
//! may count us as dead, whatever the thread of the store waits for: this is the loop's own clock.

use super::state::{Confirmation, Poll, ProbePurpose, State, StopReason, Stopping, StoreState, TreePhase};
use super::{Effect, Effects, Moment, Outcome, ProbeScope, Report, Supervisor};
use crate::fault::Fault;
use crate::intent::Intent;
use crate::lease::{Basis, CONFIRMED_FOR, KILLED_BY, RETURN_MAX};
use crate::policy::OnStoreLost;
use crate::prelude::*;
use crate::report::human;
use crate::{Hook, exit};
use core::mem;
use core::time::Duration;

/// What is told of a store that does not answer: its own waits are bounded.
const SILENT: &str = "the store does not answer (does its file system hang?)";

impl Confirmation {
    pub(super) fn new() -> Self {
        Self { at: Moment::ZERO, overdue: None, store: StoreState::Fine }
    }

    /// That of the transaction that took the lease has come already, if there was one.
    pub(super) fn enter_lease(&mut self, now: Moment) {
        if self.at == Moment::ZERO {
            self.at = now;
        }
        self.overdue = None;
    }
}

impl Supervisor {
    /// Whether the lease is held on what the store confirms.
    fn is_watched(&self) -> bool {
        let asked = self.policy.on_store_lost == Some(OnStoreLost::Stop);
        self.lease.is_some() && (asked || self.fence.basis == Basis::Heartbeat) && !self.state.is_over()
    }

    fn on_store_lost(&self) -> OnStoreLost {
        let usual = if self.fence.basis == Basis::Heartbeat { OnStoreLost::Stop } else { OnStoreLost::Keep };
        self.policy.on_store_lost.unwrap_or(usual)
    }

    /// Whether the last confirmation is so old that nothing may be started.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.confirmation.overdue.is_some()
    }

    pub(super) fn note_sleep(&mut self, by: Duration) {
        self.fence.note_sleep(by);
        if !self.has(Fault::SleepConfirms) {
            self.confirmation.at = self.confirmation.at.saturating_sub(by);
        }
    }

    pub(super) fn note_confirmation(&mut self, now: Moment, age: Duration, fx: &mut Effects) {
        if self.state.is_over() {
            return;
        }
        self.confirmation.at = self.confirmation.at.max(now.saturating_sub(age));
        self.hear_store(fx);
        let is_fresh = age < CONFIRMED_FOR;
        if is_fresh
            && self.confirmation.overdue.take().is_some()
            && let State::Probing { poll, .. } = &mut self.state
        {
            match self.paused.as_ref() {
                Some(paused) => *poll = Poll::Due(paused.until),
                None => self.probe(now, ProbeScope::Port, fx),
            }
        }
    }

    /// When the confirmation is too old, or the wait for another one is over.
    pub(super) fn confirmation_deadline(&self) -> Option<Moment> {
        if !self.is_watched() {
            return None;
        }
        match self.confirmation.overdue {
            None => Some(self.confirmation.at.saturating_add(CONFIRMED_FOR)),
            Some(since) => (!self.is_at_work()).then(|| since.saturating_add(RETURN_MAX)),
        }
    }

    /// Whether something of ours runs, or may: that is not left behind because of the store.
    fn is_at_work(&self) -> bool {
        self.holds().is_some() || matches!(self.state, State::Hooking(_)) && !self.fence.is_waiting()
    }

    pub(super) fn check_confirmation(&mut self, now: Moment, fx: &mut Effects) {
        if !self.is_watched() {
            return;
        }
        let age = now.saturating_sub(self.confirmation.at);
        if self.confirmation.overdue.is_none() {
            if age < CONFIRMED_FOR {
                return;
            }
            self.confirmation.overdue = Some(now);
            let why = self.tell_silence(fx);
            fx.push(Effect::Report(Report::LeaseUnconfirmed { age, why, action: self.on_store_lost() }));
        }
        if self.on_store_lost() == OnStoreLost::Stop && !self.has(Fault::UnconfirmedKept) {
            let by = self.confirmation.at.saturating_add(KILLED_BY);
            let by = if self.has(Fault::UnconfirmedDrains) { Moment::MAX } else { by };
            self.end_own(now, StopReason::Unconfirmed, by, fx);
        }
        self.hold_start(now, fx);
    }

    /// What is not started yet waits for the store. Signals do not.
    fn hold_start(&mut self, now: Moment, fx: &mut Effects) {
        if !self.is_unconfirmed() {
            return;
        }
        match &mut self.state {
            State::Probing { poll, .. } => *poll = Poll::Due(Moment::MAX),
            State::Spawning(_) => {
                if self.take_back_spawn(fx) {
                    if let Intent::Restart(_) = self.intent {
                        self.intent = Intent::Run;
                    }
                    self.look_at_port(now, ProbePurpose::Nothing, fx);
                }
            }
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Adopting(_)
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Starting { .. }
            | State::Running { .. }
            | State::Examining(_)
            | State::Stopping(_)
            | State::Sweeping { .. }
            | State::Exited => {}
        }
        if self.confirmation_deadline().is_some_and(|until| until <= now) {
            self.give_up_store(now, fx);
        }
    }

    /// The store has been away for too long.
    fn give_up_store(&mut self, now: Moment, fx: &mut Effects) {
        let reason = format!(
            "the store has not confirmed the lease for {} ({}), so no gateway could be started; check the mount, or \
                 name another directory with --store-dir, then start again",
            human(now.saturating_sub(self.confirmation.at)),
            self.store_trouble()
        );
        match &self.state {
            // The end of its gateway is judged and recorded without it.
            State::Hooking(hooking) if hooking.hook() == Hook::PostStop => self.kill_hook(now, fx),
            State::Hooking(_) => self.exit_after_hook(now, Outcome { code: exit::FAILURE, reason }, fx),
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Adopting(_)
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Spawning(_)
            | State::Starting { .. }
            | State::Running { .. }
            | State::Examining(_)
            | State::Stopping(_)
            | State::Sweeping { .. }
            | State::Exited => self.exit(now, exit::FAILURE, reason, fx),
        }
    }

    /// Ends the gateway, if there is one: SIGTERM at once, and SIGKILL to its tree at `by`. It needs no confirmation, for
    /// its process is proven ours.
    pub(super) fn end_own(&mut self, now: Moment, why: StopReason, by: Moment, fx: &mut Effects) {
        let most = by.saturating_sub(now);
        let (child, up) = match &self.state {
            State::Starting { child, .. } => (*child, None),
            State::Running { child, started, liveness, .. } => (*child, Some((*started, liveness.clone()))),
            // That it may hang is not why it ends.
            State::Examining(_) => {
                self.clear_hang(now);
                return self.end_own(now, why, by, fx);
            }
            State::Stopping(_) => return self.hurry_stop(now, most, fx),
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Adopting(_)
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Sweeping { .. }
            | State::Exited => return,
        };
        self.terminate(now, child, up, why, self.policy.stop_timeout.min(most), fx);
        self.hurry_stop(now, most, fx);
    }

    fn hurry_stop(&mut self, now: Moment, most: Duration, fx: &mut Effects) {
        let drains_until = |state: &State| match state {
            State::Stopping(Stopping { tree: TreePhase::Draining { until, .. }, .. }) => Some(*until),
            _ => None,
        };
        if drains_until(&self.state) > Some(now.saturating_add(most)) {
            self.shorten_drain(now, most);
        }
        self.end_seeking(now, fx);
        // A stop timeout that is over before has a tick of its own.
        if most.is_zero() && drains_until(&self.state).is_some() {
            self.escalate(now, "another supervisor may be in charge", fx);
        }
    }

    pub(super) fn on_store_failed(&mut self, why: String, fx: &mut Effects) {
        if self.state.is_over() {
            return;
        }
        let before = mem::replace(&mut self.confirmation.store, StoreState::Failed(why.clone()));
        if let StoreState::Fine = before {
            fx.push(Effect::Report(Report::StoreUnavailable { why }));
        }
    }

    pub(super) fn on_store_returned(&mut self, fx: &mut Effects) {
        if !self.state.is_over() {
            self.confirmation.store = StoreState::Fine;
            fx.push(Effect::Report(Report::StoreAvailable));
        }
    }

    /// The store has answered. One that cannot write may answer as well.
    pub(super) fn hear_store(&mut self, fx: &mut Effects) {
        if let StoreState::Silent = self.confirmation.store {
            self.on_store_returned(fx);
        }
    }

    /// Tells that the store does not answer, unless it has told of its trouble itself, and gives the reason.
    pub(super) fn tell_silence(&mut self, fx: &mut Effects) -> String {
        if let StoreState::Fine = self.confirmation.store {
            self.confirmation.store = StoreState::Silent;
            fx.push(Effect::Report(Report::StoreUnavailable { why: SILENT.to_owned() }));
        }
        self.store_trouble()
    }

    pub(super) fn store_trouble(&self) -> String {
        match &self.confirmation.store {
            StoreState::Failed(why) => why.clone(),
            StoreState::Silent | StoreState::Fine => SILENT.to_owned(),
        }
    }
}
