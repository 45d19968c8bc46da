//! An agent that asks for restarts again and again.

use super::{World, WorldEvent};
use crate::dice::Dice;
use openclaw_supervise_core::Request;

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
}
