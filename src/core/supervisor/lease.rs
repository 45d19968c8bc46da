//! The lease: is another supervisor in charge?

use super::contention::PLAN_LOST;
use super::recovery::STOP_PATIENCE;
use super::state::{Lost, Poll, ProbePurpose, Rival, Seen, State, StopReason, WaitingFor};
use super::{Effect, Effects, Intent, Moment, Outcome, Report, Supervisor};
use crate::event::{Contested, LeaseAnswer};
use crate::fault::Fault;
use crate::lease::{LOST_DRAIN, UNCHANGED_FOR};
use crate::policy::OnConflict;
use crate::prelude::*;
use crate::{Holder, LeaseRequest, exit};
use core::time::Duration;

/// The pause between two looks at the counter of an owner that cannot be seen.
const OBSERVE_PAUSE: Duration = Duration::from_secs(5);

/// The store bounds its waits at about six seconds. What takes longer is a file system that hangs.
pub(super) const LEASE_LOST: Duration = Duration::from_secs(30);

/// When an answer counts as lost: that of an owner which is asked, or of the store.
pub(super) fn answer_lost(owner: Option<&Rival>) -> Duration {
    if owner.is_some_and(|owner| owner.gone_by.is_none()) { PLAN_LOST } else { LEASE_LOST }
}

impl Supervisor {
    pub(super) fn begin_leasing(&mut self, now: Moment, fx: &mut Effects) {
        fx.push(Effect::Report(Report::LeaseAcquireStarted));
        self.take_lease(now, None, None, fx);
    }

    pub(super) fn take_lease(&mut self, now: Moment, seen: Option<Seen>, unchanged: Option<u64>, fx: &mut Effects) {
        self.state = State::Leasing { poll: Poll::Due(now), seen, owner: None, stop_by: None };
        self.ask_lease(now, LeaseRequest::Take { unchanged }, fx);
    }

    /// Sends a lease request of the present state.
    pub(super) fn ask_lease(&mut self, now: Moment, ask: LeaseRequest, fx: &mut Effects) {
        if let Some(ticket) = self.begin_poll(now) {
            fx.push(Effect::Lease { ticket, ask });
        }
    }

    pub(super) fn tick_leasing(&mut self, now: Moment, fx: &mut Effects) {
        let State::Leasing { poll, seen, owner, stop_by } = &self.state else { return };
        let (poll, seen) = (*poll, *seen);
        if stop_by.is_some_and(|at| at <= now) {
            return self.intend_without_gateway(now, fx);
        }
        match poll {
            Poll::Due(at) if at <= now && owner.is_some() => self.retry_lease(now, fx),
            Poll::Asked { at, .. } if let Some(Rival { holder, what, gone_by: None }) = owner => {
                if at.saturating_add(PLAN_LOST) <= now {
                    let (holder, what) = (holder.clone(), *what);
                    self.settle_rival(now, holder.as_ref(), what, fx);
                }
            }
            Poll::Due(at) if at <= now => {
                let unchanged = seen.filter(|seen| now >= seen.since.saturating_add(UNCHANGED_FOR));
                self.take_lease(now, seen, unchanged.map(|seen| seen.beat), fx);
            }
            Poll::Asked { at, .. } if at.saturating_add(LEASE_LOST) <= now => {
                let reason = "the store directory has not answered for 30s (does its file system hang?), so nothing was \
                              started; check the mount, or name another with --store-dir";
                self.exit(now, exit::FAILURE, reason.to_owned(), fx);
            }
            Poll::Due(_) | Poll::Asked { .. } => {}
        }
    }

    pub(super) fn on_leased(&mut self, now: Moment, ticket: u64, answer: LeaseAnswer, fx: &mut Effects) {
        if !self.state.poll_mut().is_some_and(|poll| poll.answered_by(ticket)) {
            return;
        }
        match &self.state {
            // While an owner is asked, no answer of the store is waited for.
            State::Leasing { seen, owner, .. } if owner.as_ref().is_none_or(|owner| owner.gone_by.is_some()) => {
                let seen = *seen;
                self.judge_lease(now, answer, seen, fx);
            }
            State::Standby(standby) => {
                let seen = standby.seen;
                self.judge_peek(now, answer, seen, fx);
            }
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Adopting(_)
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Starting { .. }
            | State::Running { .. }
            | State::Examining(_)
            | State::Stopping(_)
            | State::Sweeping { .. }
            | State::Exited => {}
        }
    }

    fn judge_lease(&mut self, now: Moment, answer: LeaseAnswer, seen: Option<Seen>, fx: &mut Effects) {
        match answer {
            LeaseAnswer::Acquired(acquired) => self.enter_lease(now, *acquired, fx),
            LeaseAnswer::Contended { .. } if self.has(Fault::ContendedIsAcquired) => {
                self.look_at_port(now, ProbePurpose::Nothing, fx);
            }
            LeaseAnswer::Contended { owner, what } if self.is_ending() => self.stop_beside(now, owner, what, fx),
            LeaseAnswer::Unclear { owner, .. } if self.is_ending() => {
                self.stop_beside(now, owner, Contested::Lease, fx);
            }
            LeaseAnswer::Contended { owner, what } => self.contend(now, owner, what, fx),
            LeaseAnswer::Unclear { beat, owner } => self.observe(now, beat, owner.as_ref(), seen, fx),
            LeaseAnswer::Unjudged { why } => match self.policy.on_conflict {
                OnConflict::Standby => self.enter_standby(now, WaitingFor::Owner { pid: None }, why, fx),
                OnConflict::Exit => self.exit(now, self.policy.conflict_exit_code, why, fx),
            },
            LeaseAnswer::Failed(why) => self.exit(now, exit::FAILURE, why, fx),
            LeaseAnswer::Refused(why) => {
                let code = if self.has(Fault::RefusedLeaseRetried) { exit::FAILURE } else { exit::EX_CONFIG };
                self.exit(now, code, why, fx);
            }
            // Only a peek is answered so.
            LeaseAnswer::Free => {}
        }
    }

    /// A stop came before the answer, and another owner stays.
    fn stop_beside(&mut self, now: Moment, holder: Option<Holder>, what: Contested, fx: &mut Effects) {
        if let State::Leasing { owner, .. } = &mut self.state {
            *owner = Some(Rival { holder, what, gone_by: None });
        }
        self.intend_without_gateway(now, fx);
    }

    /// A stop waits for an answer of the store that is under way, for as long as for a search. Returns whether it does.
    pub(super) fn await_lease(&mut self, now: Moment) -> bool {
        let is_in_time = matches!(self.intent, Intent::Stop(_)) && !self.has(Fault::StopForgetsRecord);
        let State::Leasing { poll: Poll::Asked { .. }, owner, stop_by, .. } = &mut self.state else { return false };
        let asks_store = owner.as_ref().is_none_or(|owner| owner.gone_by.is_some());
        if is_in_time && asks_store {
            stop_by.get_or_insert(now.saturating_add(STOP_PATIENCE));
        }
        is_in_time && asks_store
    }

    /// Watches the counter of an owner that is not visible from here: while it advances, the owner is alive.
    fn observe(&mut self, now: Moment, beat: u64, owner: Option<&Holder>, seen: Option<Seen>, fx: &mut Effects) {
        if seen.is_none() {
            let (owner, what) = (owner.cloned(), Contested::Lease);
            fx.push(Effect::Report(Report::LeaseContended { owner, what, ends_within: None }));
        }
        match seen {
            Some(seen) if seen.beat != beat => self.yield_to(now, owner, None, "lease", "supervises it and", fx),
            _ => {
                let since = seen.map_or(now, |seen| seen.since);
                let patience = if self.has(Fault::HeartbeatNotWaitedFor) { Duration::ZERO } else { OBSERVE_PAUSE };
                let since = if self.has(Fault::HeartbeatNotWaitedFor) { Moment::ZERO } else { since };
                let poll = Poll::Due(now.saturating_add(patience));
                self.state = State::Leasing { poll, seen: Some(Seen { beat, since }), owner: None, stop_by: None };
            }
        }
    }

    /// A living owner is in charge. `watched` is its process, if its end can be seen from here. `does` is what it does
    /// besides, for the reason.
    pub(super) fn yield_to(
        &mut self,
        now: Moment,
        owner: Option<&Holder>,
        watched: Option<i32>,
        what: &'static str,
        does: &'static str,
        fx: &mut Effects,
    ) {
        let named = owner.map_or_else(
            || "another supervisor, which cannot be seen from here,".to_owned(),
            |owner| format!("pid {} ({})", owner.pid, owner.command),
        );
        let (holder, holder_uid) = (owner.cloned(), owner.and_then(|owner| owner.uid));
        fx.push(Effect::Report(Report::ConflictDetected { kind: what, holder, holder_uid }));
        match self.policy.on_conflict {
            OnConflict::Standby => {
                let why = format!("{named} holds the {what} and stays in control; taking over once it is gone");
                self.enter_standby(now, WaitingFor::Owner { pid: watched }, why, fx);
            }
            OnConflict::Exit => {
                let endpoint = &self.policy.endpoint;
                let reason = format!(
                    "another gateway instance is already listening on {endpoint}, or will be: {named} {does} holds the \
                     {what}; nothing was started; 'openclaw-supervise status' tells more; stop that one first, or \
                     give this one another --port and --state-dir"
                );
                self.exit(now, self.policy.conflict_exit_code, reason, fx);
            }
        }
    }

    /// Another supervisor is in charge. Our gateway is a second one, and provably ours: it is ended, and then we go.
    pub(super) fn on_lease_lost(&mut self, now: Moment, owner: Option<Holder>, why: String, fx: &mut Effects) {
        if self.lease.is_none() || self.state.is_over() || self.has(Fault::LeaseLossIgnored) {
            return;
        }
        let named = owner
            .as_ref()
            .map_or_else(|| "another supervisor".to_owned(), |o| format!("pid {} ({})", o.pid, o.command));
        let reason = format!(
            "{named} took the lease ({why}) and is in charge of {} now; no gateway of this supervisor is left running; see \
             'openclaw-supervise status', and end one of the two",
            self.policy.endpoint
        );
        self.lease = None;
        fx.push(Effect::Report(Report::LeaseLost { owner, why }));
        let outcome = Outcome { code: self.policy.conflict_exit_code, reason };
        let by = now.saturating_add(LOST_DRAIN);
        match &self.state {
            State::Hooking(_) => self.exit_after_hook(now, outcome, fx),
            // Its process may be there.
            State::Spawning(_) if !self.fence.is_waiting() => self.lost = Some(Lost { outcome, by }),
            State::Starting { .. } | State::Running { .. } | State::Examining(_) | State::Stopping(_)
                if !self.has(Fault::LostLeaseKeepsGateway) =>
            {
                self.lost = Some(Lost { outcome, by });
            }
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
            | State::Exited => self.exit(now, outcome.code, outcome.reason, fx),
        }
    }

    /// Ends the gateway of a lease that is lost.
    pub(super) fn end_lost(&mut self, now: Moment, fx: &mut Effects) {
        if let Some(Lost { by, .. }) = self.lost {
            self.tell_stopping(fx);
            self.end_own(now, StopReason::LeaseLost, by, fx);
        }
    }

    pub(super) fn take_lost(&mut self) -> Option<Outcome> {
        self.lost.take().map(|lost| lost.outcome)
    }
}
