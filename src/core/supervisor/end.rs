//! The end of the supervisor: nothing is left to decide, and at most a look for strays goes on.

use super::{Effect, Effects, Handoffs, Moment, Outcome, State, Supervisor};
use crate::prelude::*;
use core::time::Duration;

/// How long after the end of a tree a look for processes that have left it may go on; it takes some 150 ms. A longer one
/// waits for a process in an uninterruptible sleep.
pub(super) const SWEEP_TIME_MAX: Duration = Duration::from_secs(2);

impl Supervisor {
    /// Ends, once the looks that may go on are over: nobody would look afterwards.
    pub(super) fn exit(&mut self, now: Moment, code: u8, reason: String, fx: &mut Effects) {
        self.tell_stopping(fx);
        self.handoffs = Handoffs::default();
        self.fence.take_back();
        let outcome = Outcome { code, reason };
        // A gateway that goes on is looked at for the record.
        if self.lease.is_some() && (now < self.swept_by || self.holds().is_some()) {
            fx.push(Effect::FinishSweep);
            self.state = State::Sweeping { outcome, until: now.saturating_add(SWEEP_TIME_MAX) };
        } else {
            self.state = State::Exited;
            fx.push(Effect::Exit(outcome));
        }
    }

    /// The look for strays is over, or has had its time.
    pub(super) fn finish_sweep(&mut self, fx: &mut Effects) {
        if let State::Sweeping { outcome, .. } = &mut self.state {
            let outcome = core::mem::replace(outcome, Outcome { code: 0, reason: String::new() });
            self.state = State::Exited;
            fx.push(Effect::Exit(outcome));
        }
    }
}
