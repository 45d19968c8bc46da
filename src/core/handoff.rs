//! The gateway's own word that an exit with 0 was a restart that it planned: the restart handoff of OpenClaw's contract
//! for external supervisors, protocol version 1. Only its command line knows, and asking that is a cold start
//! of Node. So an exit is pending until it is asked about, and the next gateway is not held up by it: unless the budget
//! is spent, for then the word decides whether there is a next one.
//!
//! The exit status of an adopted gateway is unknown: its exit may have been planned as well.

use super::history::{Cause, Run};
use super::{Generation, Moment};
use crate::prelude::*;
use alloc::collections::VecDeque;
use core::time::Duration;
use serde::{Deserialize, Serialize};

/// The latest moment after an exit at which its handoff is asked for. The row lives 60 s and the answer takes 3 to 9
/// (measured, 2026.9.6); beside a boot the question would cost a host of one core 7 s of start-up.
pub const ASK_BY: Duration = Duration::from_secs(40);

/// How long one question may take: a cold start on slow storage.
pub const ANSWER_MAX: Duration = Duration::from_secs(30);

/// A question is up to two calls after one that is under way already, of `ANSWER_MAX` each. An answer that is later than
/// that is lost.
const LOST_AFTER: Duration = Duration::from_secs(100);

/// An exit longer ago than this is not asked about any more: the row lives 60 s, and the answer takes its time.
pub const ASKED_AGE_MAX: Duration = Duration::from_secs(55);

/// Exits that wait for their verdict. More of them than this would be a loop of clean exits.
pub const PENDING_MAX: usize = 8;

/// What the gateway's command line can be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Support {
    /// It speaks version 1.
    Supported,
    /// It does not; why.
    Unsupported(String),
    /// It gave no answer in time, or one that says nothing of that; why.
    TimedOut(String),
}

/// What it says of one exit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum HandoffVerdict {
    /// That gateway had asked to be started again, for this reason.
    Accepted(String),
    /// It had not.
    Missing,
    /// There is a row, and it does not hold.
    Rejected(String),
    /// It cannot be asked.
    Unsupported(String),
    /// It gave no answer in time, or none that can be read; why.
    TimedOut(String),
}

/// An exit that waits for its handoff verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pending {
    /// The gateway that exited.
    pub generation: Generation,
    /// Its process id, which the row names.
    pub pid: i32,
    /// Its run.
    pub run: Run,
    /// What its end counts as until then: a clean exit, or a failure if the exit status is unknown.
    pub cause: Cause,
    /// When it was planned for, which is what the restart policy knows it by.
    pub at: Moment,
}

/// Whether it is to be found out what the present program can be asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Inquiry {
    #[default]
    Due,
    UnderWay,
    /// It is under way still, and a word about an exit has told it already.
    Overtaken,
    Done,
}

/// The exits that wait, oldest first, and the question that is under way.
#[derive(Debug, Clone, Default)]
pub struct Handoffs {
    /// Whether the command line can be asked, as far as is known.
    support: Option<bool>,
    inquiry: Inquiry,
    pending: VecDeque<Pending>,
    asked: Option<(u64, Moment)>,
}

impl Handoffs {
    /// Whether it can be asked, as far as is known; nothing where that was never found out.
    #[must_use]
    pub fn support(&self) -> Option<bool> {
        self.support
    }

    /// Says whether it is to be found out now: neither known nor sought yet.
    pub fn begin_negotiation(&mut self) -> bool {
        let begins = self.inquiry == Inquiry::Due;
        if begins {
            self.inquiry = Inquiry::UnderWay;
        }
        begins
    }

    /// It could not be found out; the next gateway that comes up is an occasion to try again.
    pub fn forget_negotiation(&mut self) {
        self.inquiry = match self.inquiry {
            Inquiry::Due | Inquiry::UnderWay => Inquiry::Due,
            Inquiry::Overtaken | Inquiry::Done => Inquiry::Done,
        };
    }

    /// The program may be another one: what was known holds until it is found out again.
    pub fn renew(&mut self) {
        self.inquiry = match self.inquiry {
            Inquiry::Due | Inquiry::Done => Inquiry::Due,
            Inquiry::UnderWay | Inquiry::Overtaken => Inquiry::UnderWay,
        };
    }

    /// What was found out about that. Says whether it is news.
    pub fn learn(&mut self, support: bool) -> bool {
        self.inquiry = Inquiry::Done;
        self.support.replace(support) != Some(support)
    }

    /// An exit could not be asked about. An inquiry that is under way goes on.
    pub fn learn_by_word(&mut self) {
        self.support = Some(false);
        self.inquiry = match self.inquiry {
            Inquiry::Due | Inquiry::Done => Inquiry::Done,
            Inquiry::UnderWay | Inquiry::Overtaken => Inquiry::Overtaken,
        };
    }

    /// Whether the program certainly has no handoff: a replaced one may have it.
    fn is_known_to_be_none(&self) -> bool {
        matches!(self.inquiry, Inquiry::Overtaken | Inquiry::Done) && self.support == Some(false)
    }

    /// Defers what an exit means, unless the program has no handoff or too many exits wait.
    pub fn defer(&mut self, pending: Pending) -> bool {
        let is_possible = !self.is_known_to_be_none() && self.pending.len() < PENDING_MAX;
        if is_possible {
            self.pending.push_back(pending);
        }
        is_possible
    }

    /// The oldest exit, if it is to be asked for now: `ready` says that nothing is held up by it.
    #[must_use]
    pub fn due(&self, now: Moment, ready: bool) -> Option<&Pending> {
        let first = self.pending.front().filter(|_| self.asked.is_none())?;
        (ready || first.run.ended.saturating_add(ASK_BY) <= now).then_some(first)
    }

    /// The question is on its way.
    pub fn ask(&mut self, ticket: u64, now: Moment) {
        self.asked = Some((ticket, now));
    }

    /// The exit that this answer is about.
    pub fn settle(&mut self, ticket: u64) -> Option<Pending> {
        self.asked.take_if(|(asked, _)| *asked == ticket)?;
        self.pending.pop_front()
    }

    /// The ticket of a question that gets no answer any more.
    #[must_use]
    pub fn lost(&self, now: Moment) -> Option<u64> {
        self.asked.filter(|(_, at)| at.saturating_add(LOST_AFTER) <= now).map(|(ticket, _)| ticket)
    }

    /// When something is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        match self.asked {
            Some((_, at)) => Some(at.saturating_add(LOST_AFTER)),
            None => self.pending.front().map(|pending| pending.run.ended.saturating_add(ASK_BY)),
        }
    }

    /// Whether no exit waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// The machine stood still: an answer that is under way gets its time again.
    pub fn rearm(&mut self, now: Moment) {
        if let Some((_, at)) = &mut self.asked {
            *at = now;
        }
    }
}
