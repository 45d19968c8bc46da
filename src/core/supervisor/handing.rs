//! Exits with 0 that nobody asked for: were they planned?

use super::hooking::Ending;
use super::{Effect, Effects, Moment, Report, State, Supervisor};
use crate::core::fault::Fault;
use crate::core::handoff::{ASKED_AGE_MAX, Pending, Support, Word};
use crate::core::past::Fact;
use crate::core::restart_policy::Cause;
use crate::core::{Death, Generation};

/// An exit of which the word decides whether there is another start.
#[derive(Debug, Clone)]
pub(super) struct Held {
    pending: Pending,
    /// How the gateway ended, for the reason of an exit.
    told: String,
}

impl Supervisor {
    /// Finds out once whether the gateway's command line can be asked, after its first boot: not beside it.
    pub(super) fn negotiate(&mut self, fx: &mut Effects) {
        if self.policy.handoff && self.handoffs.begin_negotiation() {
            fx.push(Effect::Negotiate);
        }
    }

    pub(super) fn on_negotiated(&mut self, now: Moment, support: &Support, fx: &mut Effects) {
        if matches!(self.state, State::Exited) {
            return;
        }
        match support {
            Support::Supported => {
                self.handoffs.learn(true);
            }
            Support::Unsupported(why) => {
                if self.handoffs.learn(false) {
                    fx.push(Effect::Report(Report::HandoffUnsupported { generation: None, reason: why.clone() }));
                }
            }
            Support::TimedOut(why) => {
                self.handoffs.forget_negotiation();
                let reason = format!("the command line did not say whether it knows restart handoffs: {why}");
                fx.push(Effect::Report(Report::HandoffTimedOut { generation: None, reason }));
            }
        }
        self.tick_handoffs(now, fx);
    }

    /// Puts off what the end of a run means, if its gateway may have planned it and can be asked. `death` is that of an exit
    /// with 0, or of one that was adopted, of which nobody learns it.
    pub(super) fn defer_exit(&mut self, now: Moment, ending: &Ending, cause: Cause) -> Option<Pending> {
        let Ending { child, run, death, .. } = *ending;
        // The row names the process that wrote it, which is the one that listens.
        let pid = child.listener.filter(|_| !self.has(Fault::LeaderAskedAbout)).unwrap_or(child.pid);
        let answered = run.started.is_some() || self.has_answered(&child);
        let is_possible = match death {
            Death::Code(0) => cause == Cause::CleanExit,
            Death::Unknown => !self.has(Fault::AdoptedExitIsCrash),
            Death::Code(_) | Death::Signal { .. } => false,
        };
        let is_fresh = now < run.ended.saturating_add(ASKED_AGE_MAX);
        let can_be_asked = self.policy.handoff && pid > 0 && !self.has(Fault::HandoffNotAsked);
        let pending = Pending { generation: self.generation, pid, run, cause, at: now };
        let is_deferred = is_possible && is_fresh && can_be_asked && answered && self.handoffs.defer(pending.clone());
        is_deferred.then_some(pending)
    }

    /// Goes on after an exit whose meaning is put off.
    pub(super) fn go_on_deferred(&mut self, now: Moment, pending: Pending, told: &str, fx: &mut Effects) {
        self.remember_settled(pending.run, pending.cause, fx);
        match self.restarts.after_exit(now, pending.run, pending.cause, &self.policy) {
            Some(plan) => self.follow_plan(now, plan, told, fx),
            None => self.state = State::Awaiting(Held { pending, told: told.to_owned() }),
        }
        self.tick_handoffs(now, fx);
    }

    /// Asks about the oldest exit once nothing is held up by it, or its time runs out.
    pub(super) fn tick_handoffs(&mut self, now: Moment, fx: &mut Effects) {
        if let Some(ticket) = self.handoffs.lost(now) {
            self.on_consumed(now, ticket, &Word::TimedOut("no answer came".to_owned()), fx);
        }
        let is_idle = matches!(self.state, State::Running { .. } | State::Awaiting(_));
        let Some(Pending { generation, pid, .. }) =
            self.handoffs.due(now, is_idle || self.has(Fault::HandoffBesideBoot))
        else {
            return;
        };
        let (generation, pid) = (*generation, *pid);
        self.ticket += 1;
        let ticket = self.ticket;
        self.handoffs.ask(ticket, now);
        fx.push(Effect::Consume { ticket, generation, pid });
    }

    pub(super) fn on_consumed(&mut self, now: Moment, ticket: u64, word: &Word, fx: &mut Effects) {
        let Some(Pending { generation, run, cause, at, .. }) = self.handoffs.settle(ticket) else { return };
        let about = Some(generation);
        let report = match word {
            Word::Accepted(reason) => Report::HandoffAccepted { generation, reason: reason.clone() },
            Word::Missing => Report::HandoffMissing { generation },
            Word::Rejected(reason) => Report::HandoffRejected { generation, reason: reason.clone() },
            Word::Unsupported(reason) => {
                self.handoffs.learn_by_word();
                Report::HandoffUnsupported { generation: about, reason: reason.clone() }
            }
            Word::TimedOut(reason) => Report::HandoffTimedOut { generation: about, reason: reason.clone() },
        };
        fx.push(Effect::Report(report));
        let is_planned = matches!(word, Word::Accepted(_)) || self.has(Fault::HandoffTakenForGranted);
        if is_planned {
            fx.push(Effect::Remember { generation, fact: Fact::Planned });
        }
        let was_delayed = self.restarts.settle_exit(at, run, cause, is_planned);
        self.follow_word(now, generation, is_planned, was_delayed, fx);
        self.tick_handoffs(now, fx);
    }

    /// What the word about this gateway means for a start that waits.
    fn follow_word(
        &mut self,
        now: Moment,
        generation: Generation,
        is_planned: bool,
        was_delayed: bool,
        fx: &mut Effects,
    ) {
        let is_last = generation == self.generation;
        match &self.state {
            // It waits for what was taken for a loop or a failure and is none.
            State::BackingOff { .. } if is_last && is_planned && was_delayed => self.start_at_gate(now, fx),
            State::Awaiting(_) if is_last && is_planned => self.start_at_gate(now, fx),
            State::Awaiting(held) if is_last => {
                let told = held.told.clone();
                let plan = self.restarts.after_no(now, &self.policy);
                self.follow_plan(now, plan, &told, fx);
            }
            State::Awaiting(held) => {
                let told = held.told.clone();
                if let Some(plan) = self.restarts.reconsider_exit(now, held.pending.at, &self.policy) {
                    self.follow_plan(now, plan, &told, fx);
                }
            }
            _ => {}
        }
    }
}
