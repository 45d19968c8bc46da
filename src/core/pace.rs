//! Restarts on request, and those that a gateway planned: how fast one may follow the other.
//!
//! They cost no budget, so nothing else holds up an agent that asks after each start, or an unknown sender of signals.
//! One that ends a gateway before it is stable counts as the breaker counts an unclean boot: `boot_limit` of them may lie
//! in `boot_window`. A request beyond that waits while the gateway serves on; a start beyond it, of a gateway that ended
//! by itself, is delayed by twice the last delay, for nothing serves meanwhile.

use super::fault::Fault;
use super::history::Run;
use super::{Moment, Policy};
use alloc::collections::VecDeque;
use core::time::Duration;

/// The first delay of a backoff.
pub(super) const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// The gateway's breaker counts boots of exactly its window's age as well.
pub(super) const JUST_AFTER: Duration = Duration::from_millis(1);

/// More of them change no delay.
const KEPT_MAX: usize = 64;

/// The requested and planned restarts that came before their gateway was stable, oldest first.
#[derive(Debug, Clone, Default)]
pub(super) struct QuickRestarts(VecDeque<Moment>);

impl QuickRestarts {
    /// A gateway ended on request, or as it had planned.
    pub(super) fn note_run(&mut self, at: Moment, run: &Run, policy: &Policy) {
        if run.healthy_for() < policy.stable_after {
            self.note(at);
        }
    }

    pub(super) fn note(&mut self, at: Moment) {
        let place = self.0.partition_point(|other| *other <= at);
        self.0.insert(place, at);
        if self.0.len() > KEPT_MAX {
            self.0.pop_front();
        }
    }

    /// A person does not want to wait.
    pub(super) fn forget(&mut self) {
        self.0.clear();
    }

    /// When the one that is `nth` from the youngest has left the window. `None` if there are fewer in it.
    fn leaves(&self, nth: usize, now: Moment, policy: &Policy) -> Option<Moment> {
        let stamp = self.0.get(self.0.len().checked_sub(nth)?)?;
        let leaves = stamp.saturating_add(policy.boot_window).saturating_add(JUST_AFTER);
        (leaves > now).then_some(leaves)
    }

    /// When a restart that is requested now may end the gateway. `None`: at once.
    pub(super) fn request_gate(&self, now: Moment, policy: &Policy) -> Option<Moment> {
        if policy.boot_limit == 0 || policy.planted.is(Fault::RequestsUnpaced) {
            return None;
        }
        self.leaves(policy.boot_limit as usize, now, policy)
    }

    /// When a start may follow them. `None`: at once.
    pub(super) fn start_gate(&self, now: Moment, policy: &Policy) -> Option<Moment> {
        if policy.boot_limit == 0 || policy.planted.is(Fault::PlannedUnpaced) {
            return None;
        }
        let leaves = self.leaves(policy.boot_limit as usize + 1, now, policy)?;
        let beyond = self.in_window(now, policy).saturating_sub(policy.boot_limit as usize + 1).min(20);
        let delay = BACKOFF_MIN.saturating_mul(1 << beyond).min(policy.backoff_max).min(policy.stable_after);
        let at = self.0.back()?.saturating_add(delay).min(leaves);
        (at > now).then_some(at)
    }

    pub(super) fn in_window(&self, now: Moment, policy: &Policy) -> usize {
        let is_in = |at: &&Moment| at.saturating_add(policy.boot_window) >= now;
        self.0.iter().filter(is_in).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn after(stamps: &[u64]) -> QuickRestarts {
        let mut quick = QuickRestarts::default();
        for at in stamps {
            quick.note(s(*at));
        }
        quick
    }

    #[test]
    fn a_request_waits_until_fewer_than_the_limit_lie_in_the_window() {
        let policy = Policy::default();
        for (stamps, expected) in [
            (&[][..], None),
            (&[900], None),
            (&[900, 990], Some(s(1200) + JUST_AFTER)),
            (&[990, 900, 995], Some(s(1290) + JUST_AFTER)),
            (&[600, 990], None),
        ] {
            assert_eq!(after(stamps).request_gate(s(1000), &policy), expected, "{stamps:?}");
        }
        let unlimited = Policy { boot_limit: 0, ..policy };
        assert_eq!(after(&[900, 990, 995]).request_gate(s(1000), &unlimited), None);
    }

    #[test]
    fn a_start_beyond_the_limit_waits_twice_as_long_as_the_last() {
        let policy = Policy::default();
        for (stamps, expected) in [
            (&[998, 999][..], None),
            (&[997, 998, 1000], Some(s(1001))),
            (&[996, 997, 998, 1000], Some(s(1002))),
            (&[995, 996, 997, 998, 1000], Some(s(1004))),
            (&[701, 997, 1000], Some(s(1001))),
            (&[600, 997, 1000], None),
        ] {
            assert_eq!(after(stamps).start_gate(s(1000), &policy), expected, "{stamps:?}");
        }
    }

    #[test]
    fn a_stable_gateway_may_be_restarted_as_often_as_one_likes() {
        let policy = Policy::default();
        let mut quick = QuickRestarts::default();
        for hour in 0..100_u64 {
            let ended = s(hour * 121);
            let run = Run { started: Some(ended), healthy_until: ended + s(120), ended: ended + s(120), clean: true };
            quick.note_run(ended, &run, &policy);
        }
        assert_eq!(quick.in_window(s(100 * 121), &policy), 0);
    }
}
