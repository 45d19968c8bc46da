//! Another supervisor has the lease or the claim on the port. One that stays is a conflict; one that is stopping, as in
//! "kill it and start it again", is waited for, and its place is taken.

use super::state::{Poll, Rival, State};
use super::{Effect, Effects, Moment, Report, Supervisor};
use crate::event::{Contested, OwnerPlan};
use crate::fault::Fault;
use crate::policy::OnConflict;
use crate::{Holder, LeaseRequest};
use core::time::Duration;

/// How long the owner may take to say what it plans: its loop waits for nothing, and the shell gives up after 1 s.
pub(super) const PLAN_LOST: Duration = Duration::from_secs(3);

/// The pause between two attempts on the lease of an owner that is stopping.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// One that cannot be seen now may be the one that was named before.
fn may_be_same(one: Option<&Holder>, other: Option<&Holder>) -> bool {
    one.zip(other).is_none_or(|(one, other)| one.pid == other.pid)
}

impl Supervisor {
    /// A living supervisor is in charge.
    pub(super) fn contend(&mut self, now: Moment, holder: Option<Holder>, what: Contested, fx: &mut Effects) {
        let State::Leasing { poll, owner, .. } = &mut self.state else { return };
        match owner {
            Some(Rival { holder: known, gone_by: Some(gone_by), .. })
                if may_be_same(known.as_ref(), holder.as_ref()) =>
            {
                if now < *gone_by {
                    *poll = Poll::Due(now.saturating_add(RETRY_PAUSE).min(*gone_by));
                    return;
                }
                let (holder, still) = (known.clone(), "has been stopping for longer than it said and still");
                let pid = holder.as_ref().map(|holder| holder.pid);
                self.yield_to(now, holder.as_ref(), pid, what.name(), still, fx);
            }
            // Standby waits for the end of any owner.
            Some(_) | None if self.policy.on_conflict == OnConflict::Standby => {
                self.settle_rival(now, holder.as_ref(), what, fx);
            }
            // A new owner is asked as well: of many that waited for the last one, one comes first.
            Some(_) | None => {
                *owner = Some(Rival { holder, what, gone_by: None });
                if let Some(ticket) = self.begin_poll(now) {
                    fx.push(Effect::AskOwner { ticket, what });
                }
            }
        }
    }

    pub(super) fn on_owner_asked(&mut self, now: Moment, ticket: u64, plan: OwnerPlan, fx: &mut Effects) {
        let State::Leasing { poll, owner: Some(Rival { holder, what, gone_by: gone_by @ None }), .. } = &mut self.state
        else {
            return;
        };
        if !poll.answered_by(ticket) {
            return;
        }
        let plan = if self.policy.planted.is(Fault::StoppingOwnerIsConflict) { OwnerPlan::Stays } else { plan };
        match plan {
            OwnerPlan::Ends(within) => {
                let endless = self.policy.planted.is(Fault::StoppingOwnerWaitedForEver);
                *gone_by = Some(if endless { Moment::MAX } else { now.saturating_add(within) });
                *poll = Poll::Due(now.saturating_add(RETRY_PAUSE));
                let (owner, what, ends_within) = (holder.clone(), *what, Some(within));
                fx.push(Effect::Report(Report::LeaseContended { owner, what, ends_within }));
            }
            OwnerPlan::Stays | OwnerPlan::Unknown => {
                let (holder, what) = (holder.clone(), *what);
                self.settle_rival(now, holder.as_ref(), what, fx);
            }
        }
    }

    /// The owner stays, as far as can be known.
    pub(super) fn settle_rival(&mut self, now: Moment, holder: Option<&Holder>, what: Contested, fx: &mut Effects) {
        let pid = holder.map(|holder| holder.pid);
        fx.push(Effect::Report(Report::LeaseContended { owner: holder.cloned(), what, ends_within: None }));
        self.yield_to(now, holder, pid, what.name(), "supervises it and", fx);
    }

    /// Tries again to take the lease of an owner that is stopping.
    pub(super) fn retry_lease(&mut self, now: Moment, fx: &mut Effects) {
        self.ask_lease(now, LeaseRequest::Take { unchanged: None }, fx);
    }
}
