//! The lease is ours, and before anything else what a predecessor left is looked for: hooks first, then its gateway.

use super::state::{Clearing, ProbePurpose, Search, State};
use super::{Effect, Effects, Intent, Moment, Report, Supervisor};
use crate::fault::Fault;
use crate::history::Unfinished;
use crate::prelude::*;
use crate::report::human;
use crate::{Acquired, exit};
use core::time::Duration;

/// The pause before another look when the processes could not be listed.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// A search looks at every process four times at most, 150 ms apart, and a kill takes 10 s; what takes longer than both
/// has lost its answer.
const ANSWER_LOST: Duration = Duration::from_secs(20);

/// For how long it is tried. Without it nothing may be started: a gateway or a hook of ours may still be there.
pub(super) const SEARCH_TIME_MAX: Duration = Duration::from_mins(1);

/// How long a stop or a detach waits for a search that is under way.
pub(super) const STOP_PATIENCE: Duration = Duration::from_secs(5);

impl Search {
    pub(super) fn new(now: Moment) -> Self {
        let (until, again) = (now.saturating_add(SEARCH_TIME_MAX), now.saturating_add(ANSWER_LOST));
        Self { until, again, trouble: None }
    }

    pub(super) fn deadline(&self) -> Moment {
        self.until.min(self.again)
    }

    pub(super) fn is_over(&self, now: Moment) -> bool {
        self.until <= now
    }

    pub(super) fn trouble(&self) -> Option<&str> {
        self.trouble.as_deref()
    }

    /// Whether to ask again now.
    pub(super) fn ask_again(&mut self, now: Moment) -> bool {
        let is_due = self.again <= now;
        if is_due {
            self.again = now.saturating_add(ANSWER_LOST);
        }
        is_due
    }

    pub(super) fn fail(&mut self, now: Moment, why: String) {
        (self.again, self.trouble) = (now.saturating_add(LOOK_AGAIN), Some(why));
    }

    pub(super) fn rearm(&mut self, now: Moment) {
        *self = Self { trouble: self.trouble.take(), ..Self::new(now) };
    }

    /// A stop or a detach waits for it: one more answer, and not for long.
    pub(super) fn shorten(&mut self, now: Moment) {
        self.until = self.until.min(now.saturating_add(STOP_PATIENCE));
        if self.trouble.is_some() {
            self.again = now;
        }
    }

    pub(super) fn wait_for_ever(&mut self) {
        self.until = Moment::MAX;
    }
}

impl Supervisor {
    pub(super) fn enter_lease(&mut self, now: Moment, acquired: Acquired, fx: &mut Effects) {
        let Acquired { epoch, basis, recovered, past, trouble } = acquired;
        // Without the store we cannot tell whether a predecessor crashed.
        let heir = recovered.is_some() || trouble.is_some();
        self.unread = trouble.filter(|_| past.generation == 0);
        if let Some(recovered) = recovered {
            fx.push(Effect::Report(Report::LeaseRecovered(recovered)));
        }
        fx.push(Effect::Report(Report::LeaseAcquired { epoch }));
        self.lease = Some(epoch);
        self.fence.enter_lease(basis);
        self.confirmation.enter_lease(now);
        // What we have started or adopted ourselves, before a time in standby, counts as well.
        self.generation = self.generation.max(past.generation);
        self.recall(&past.runs);
        if self.policy.attended {
            self.restarts.grant_trial();
            self.restarts.forget_asked();
        }
        // A predecessor that was stopped may have left them as well: it does not wait for them for long.
        let has_hooks = [self.policy.pre_start, self.policy.post_stop, self.policy.repair].iter().any(Option::is_some);
        let may_be_left = heir || has_hooks;
        if may_be_left && !self.has(Fault::HooksNotCleared) {
            self.state = State::Clearing(Clearing { left: past.left, heir, search: Search::new(now) });
            fx.push(Effect::ClearHooks { heir });
        } else {
            self.leave_clearing(now, past.left, fx);
            return;
        }
        self.follow_intent(now, fx);
    }

    fn look_for_gateway(&mut self, now: Moment, left: Option<Unfinished>, fx: &mut Effects) {
        match left {
            Some(left) if !self.has(Fault::LeftBehindForgotten) => self.seek_left(now, left, fx),
            _ => self.look_at_port(now, ProbePurpose::Nothing, fx),
        }
    }

    pub(super) fn on_hooks_cleared(&mut self, now: Moment, trouble: Option<String>, fx: &mut Effects) {
        let is_ending = self.is_ending();
        let State::Clearing(clearing) = &mut self.state else { return };
        match trouble {
            Some(why) if !is_ending => clearing.search.fail(now, why),
            Some(_) | None => {
                let left = clearing.left;
                self.leave_clearing(now, left, fx);
            }
        }
    }

    pub(super) fn tick_clearing(&mut self, now: Moment, fx: &mut Effects) {
        let is_ending = self.is_ending();
        let State::Clearing(Clearing { left, heir, search }) = &mut self.state else { return };
        match search.trouble() {
            Some(why) if search.is_over(now) && !is_ending => {
                let reason = format!(
                    "nothing was started: for {} hooks of an earlier supervisor could not be looked for ({why}) and may \
                     still be running; raise the limit on open files or free memory, then start again",
                    human(SEARCH_TIME_MAX)
                );
                self.exit(now, exit::FAILURE, reason, fx);
            }
            // What is not dead by now sleeps uninterruptibly, and dies when it wakes.
            Some(_) | None if search.is_over(now) => {
                let left = *left;
                self.leave_clearing(now, left, fx);
            }
            Some(_) | None => {
                if search.ask_again(now) {
                    fx.push(Effect::ClearHooks { heir: *heir });
                }
            }
        }
    }

    fn leave_clearing(&mut self, now: Moment, left: Option<Unfinished>, fx: &mut Effects) {
        if left.is_none() && self.is_ending() {
            // There is no gateway that the intent would have to wait for.
            self.state = State::Idle;
        } else {
            self.look_for_gateway(now, left, fx);
        }
        self.follow_intent(now, fx);
    }

    /// A stop or a detach does not wait for long, a second stop not at all.
    pub(super) fn shorten_clearing(&mut self, now: Moment, fx: &mut Effects) {
        let is_hurried = matches!(self.intent, Intent::StopNow(_));
        let State::Clearing(clearing) = &mut self.state else { return };
        if is_hurried {
            let left = clearing.left;
            self.leave_clearing(now, left, fx);
        } else {
            clearing.search.shorten(now);
        }
    }

    /// A stop or a detach is asked for, or the lease is lost.
    pub(super) fn is_ending(&self) -> bool {
        self.lost.is_some() || matches!(self.intent, Intent::Stop(_) | Intent::StopNow(_) | Intent::Detach(_))
    }
}
