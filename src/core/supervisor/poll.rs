//! The rhythm of probes: never two under way at once.

use super::{ANSWER_LOST, Moment, Policy};
use crate::fault::Fault;
use core::time::Duration;

#[derive(Debug, Clone, Copy)]
pub(super) enum Poll {
    Due(Moment),
    Asked { ticket: u64, at: Moment },
}

impl Poll {
    /// When to send the next probe: at its time, or when the answer to the last one is so late that it is lost.
    pub(super) fn wake(self, policy: &Policy) -> Moment {
        match self {
            Self::Due(at) => at,
            Self::Asked { at, .. } if policy.planted.is(Fault::DeadlineInThePast) => at,
            Self::Asked { .. } if policy.planted.is(Fault::LostProbeForgotten) => Moment::MAX,
            Self::Asked { at, .. } => at.saturating_add(policy.probe_timeout).saturating_add(ANSWER_LOST),
        }
    }

    /// Gives an answer that is under way its time again.
    pub(super) fn rearm(&mut self, now: Moment) {
        if let Self::Asked { at, .. } = self {
            *at = now;
        }
    }

    /// Whether this is the answer that is waited for.
    pub(super) fn answered_by(self, answer: u64) -> bool {
        matches!(self, Self::Asked { ticket, .. } if ticket == answer)
    }

    /// The next probe: one interval after the last one was sent, and not before now.
    pub(super) fn next(self, now: Moment, interval: Duration) -> Self {
        match self {
            Self::Due(at) => Self::Due(at),
            Self::Asked { at, .. } => Self::Due(now.max(at.saturating_add(interval))),
        }
    }
}
