//! What cannot be undone waits here for the store: a spawn for its record and, where only a heartbeat keeps the lease,
//! every spawn and start of a hook for the confirmation that the lease is still ours. A signal to what we started waits for
//! nothing: it is ours although the lease may be lost, and the store may hang.
//!
//! While an act waits, the timeouts of its state do not run: its next deadline counts from the act.

use super::state::{Answer, Fence, State, Waiting};
use super::{Effect, Effects, Generation, Moment, Supervisor};
use crate::effect::Installers;
use crate::fault::Fault;
use crate::history::{Fact, Settled};
use crate::lease::{Basis, FRESH_FOR, RECORD_MAX};
use core::time::Duration;

impl Fence {
    pub(super) fn new() -> Self {
        Self { basis: Basis::Lock, ticket: 0, waiting: None }
    }

    pub(super) fn enter_lease(&mut self, basis: Basis) {
        (self.basis, self.waiting) = (basis, None);
    }

    pub(super) fn is_waiting(&self) -> bool {
        self.waiting.is_some()
    }

    /// When the waiting ends without an answer: what counts is since when an act has waited, for a store that is always
    /// late must not hold us for ever. Under a heartbeat that depends on the last confirmation.
    pub(super) fn deadline(&self) -> Option<Moment> {
        let waiting = self.waiting.as_ref().filter(|_| self.basis == Basis::Lock);
        waiting.map(|waiting| waiting.since.saturating_add(RECORD_MAX))
    }

    /// Drops what waits and says whether there was anything.
    pub(super) fn take_back(&mut self) -> bool {
        self.waiting.take().is_some()
    }

    /// The machine slept: a confirmation ages all the same, see `tests/core/lease_model.rs`.
    pub(super) fn note_sleep(&mut self, by: Duration) {
        if let Some(Waiting { answer: Answer::Confirmation { slept, .. }, .. }) = &mut self.waiting {
            *slept = slept.saturating_add(by);
        }
    }

    /// We stood still: an answer that is under way gets its time again.
    pub(super) fn rearm(&mut self, now: Moment) {
        if let Some(waiting) = &mut self.waiting {
            waiting.since = now;
        }
    }

    /// Keeps an act and says what the store is asked; gives it back where there is nothing to wait for.
    fn hold(&mut self, now: Moment, act: Effect) -> Result<Effect, Effect> {
        let since = self.waiting.as_ref().map_or(now, |waiting| waiting.since);
        match (&act, self.basis) {
            (Effect::Spawn { generation, .. }, Basis::Lock | Basis::Heartbeat) => {
                let generation = *generation;
                self.waiting = Some(Waiting { act, since, answer: Answer::Record(generation) });
                Ok(Effect::Record { generation })
            }
            (_, Basis::Lock) => Err(act),
            (_, Basis::Heartbeat) => Ok(self.ask(now, act, since)),
        }
    }

    fn ask(&mut self, now: Moment, act: Effect, since: Moment) -> Effect {
        self.ticket += 1;
        let answer = Answer::Confirmation { asked: now, slept: Duration::ZERO };
        self.waiting = Some(Waiting { act, since, answer });
        Effect::Confirm { ticket: self.ticket }
    }
}

impl Supervisor {
    /// Asks for something that cannot be undone. It is done once the fence is passed.
    pub(super) fn act(&mut self, now: Moment, act: Effect, fx: &mut Effects) {
        let is_hasty = matches!(act, Effect::Spawn { .. }) && self.has(Fault::RecordNotWaitedFor);
        let is_signal =
            matches!(act, Effect::Terminate { .. } | Effect::TerminateListener { .. } | Effect::KillTree { .. });
        if is_signal && !self.has(Fault::SignalWaitsForStore) {
            return self.emit(act, fx);
        }
        match self.fence.hold(now, act) {
            Ok(question) => fx.push(question),
            Err(act) => self.emit(act, fx),
        }
        if is_hasty {
            self.pass(now, fx);
        }
    }

    /// The record of a spawn is written, or cannot be.
    pub(super) fn on_recorded(&mut self, now: Moment, generation: Generation, fx: &mut Effects) {
        self.hear_store(fx);
        match self.fence.waiting.take() {
            Some(waiting @ Waiting { answer: Answer::Record(waits), .. }) if waits == generation => {
                match self.fence.basis {
                    Basis::Lock => self.let_pass(now, waiting, fx),
                    Basis::Heartbeat => fx.push(self.fence.ask(now, waiting.act, waiting.since)),
                }
            }
            other => self.fence.waiting = other,
        }
    }

    /// The lease was ours when the store looked. An answer that took long says too little about now.
    pub(super) fn on_confirmed(&mut self, now: Moment, ticket: u64, fx: &mut Effects) {
        match self.fence.waiting.take() {
            Some(waiting @ Waiting { answer: Answer::Confirmation { asked, slept }, .. })
                if ticket == self.fence.ticket =>
            {
                let age = now.saturating_sub(asked).saturating_add(slept);
                if age <= FRESH_FOR || self.has(Fault::StaleConfirmationTrusted) {
                    self.let_pass(now, waiting, fx);
                } else {
                    fx.push(self.fence.ask(now, waiting.act, waiting.since));
                }
            }
            other => self.fence.waiting = other,
        }
    }

    /// The store does not answer.
    pub(super) fn tick_fence(&mut self, now: Moment, fx: &mut Effects) {
        if self.fence.deadline().is_some_and(|deadline| deadline <= now) {
            self.tell_silence(fx);
            self.pass(now, fx);
        }
    }

    pub(super) fn pass(&mut self, now: Moment, fx: &mut Effects) {
        if let Some(waiting) = self.fence.waiting.take() {
            self.let_pass(now, waiting, fx);
        }
    }

    fn let_pass(&mut self, now: Moment, Waiting { act, .. }: Waiting, fx: &mut Effects) {
        self.emit(act, fx);
        // Its time begins with it.
        match &mut self.state {
            State::Spawning(spawning) => spawning.rearm(now),
            State::Hooking(_) => self.rearm_hook(now),
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Adopting(_)
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Starting { .. }
            | State::Running { .. }
            | State::Examining(_)
            | State::Stopping(_)
            | State::Sweeping { .. }
            | State::Exited => {}
        }
    }

    fn emit(&mut self, mut act: Effect, fx: &mut Effects) {
        match &mut act {
            // What was learnt while it waited counts.
            Effect::Spawn { no_respawn, .. } => *no_respawn = self.forbids_successor(),
            // Other questions may have been asked while it waited.
            Effect::Hook { ticket, .. } => *ticket = self.number_hook(),
            Effect::KillTree { grace, installers, .. } if self.is_hurried() => {
                (*grace, *installers) = (Duration::ZERO, Installers::AsOthers);
            }
            _ => {}
        }
        fx.push(act);
    }

    /// Takes back a spawn that still waits, if one does. It costs nothing, and says so on record.
    pub(super) fn take_back_spawn(&mut self, fx: &mut Effects) -> bool {
        let is_waiting = self.fence.take_back();
        if is_waiting {
            let fact = Fact::Settled(Settled::Postponed);
            fx.push(Effect::Remember { generation: self.generation, fact });
        }
        is_waiting
    }
}
