//! Exits with 0 that nobody asked for: were they planned?

use super::{Effect, Effects, Moment, Report, Run, State, Supervisor};
use crate::core::Generation;
use crate::core::fault::Fault;
use crate::core::handoff::{Pending, Support, Word};
use crate::core::past::Fact;

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

    /// Puts off what an exit means, if its gateway can be asked. Says whether it was.
    pub(super) fn defer_exit(&mut self, now: Moment, generation: Generation, pid: i32, run: Run) -> bool {
        let pending = Pending { generation, pid, run, at: now };
        self.policy.handoff && pid > 0 && !self.has(Fault::HandoffNotAsked) && self.handoffs.defer(pending)
    }

    /// Asks about the oldest exit once the next gateway is up, or its time runs out.
    pub(super) fn tick_handoffs(&mut self, now: Moment, fx: &mut Effects) {
        if let Some(ticket) = self.handoffs.lost(now) {
            self.on_consumed(now, ticket, &Word::TimedOut("no answer came".to_owned()), fx);
        }
        let is_up = matches!(self.state, State::Running { .. }) || self.has(Fault::HandoffBesideBoot);
        let Some(Pending { generation, pid, .. }) = self.handoffs.due(now, is_up) else { return };
        let (generation, pid) = (*generation, *pid);
        self.ticket += 1;
        let ticket = self.ticket;
        self.handoffs.ask(ticket, now);
        fx.push(Effect::Consume { ticket, generation, pid });
    }

    pub(super) fn on_consumed(&mut self, now: Moment, ticket: u64, word: &Word, fx: &mut Effects) {
        let Some(Pending { generation, run, at, .. }) = self.handoffs.settle(ticket) else { return };
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
        let was_delayed = self.restarts.settle_exit(at, run, is_planned, &self.policy);
        // It waits for what was taken for a loop and is none.
        if is_planned && was_delayed && matches!(self.state, State::BackingOff { .. }) {
            self.start_at_gate(now, fx);
        }
        self.tick_handoffs(now, fx);
    }
}
