//! The thread of the store: takes in what is to be done, writes it down, tells what came of it.

use super::clock::{Clocks, Stamp};
use super::identity::Identity;
use super::ledger::Ledger;
use super::record::Change;
use super::tenure::Tenure;
use super::{Intent, Limits, News, Place, events};
use crate::core::lease::Basis;
use crate::core::{Fact, Generation, LeaseRequest, Moment, Report};
use std::mem;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

/// How many jobs are taken in before they are written together.
const BATCH_MAX: usize = 256;

/// One thing to do.
#[derive(Debug)]
pub(super) enum Job {
    Ask { ticket: u64, ask: LeaseRequest, now: Moment },
    Intend(Intent, Stamp),
    Change { generation: Generation, change: Change, at: Stamp },
    Report(events::Entry),
    Confirm { ticket: u64 },
    Close { release: bool, done: SyncSender<bool> },
}

/// What a job asks to be answered once everything is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    Intended(Generation),
    Confirmed(u64),
}

/// All that the thread has.
pub(super) struct Worker {
    pub(super) place: Place,
    pub(super) us: Identity,
    pub(super) clocks: Clocks,
    pub(super) limits: Limits,
    pub(super) ledger: Ledger,
    pub(super) tenure: Tenure,
    jobs: Receiver<Job>,
    tell: Box<dyn Fn(News) + Send>,
    owed: Vec<Owed>,
    /// A gateway has come up: nothing is urgent now.
    is_calm: bool,
}

impl Worker {
    pub(super) fn new(
        place: Place,
        clocks: Clocks,
        limits: Limits,
        jobs: Receiver<Job>,
        tell: Box<dyn Fn(News) + Send>,
    ) -> Self {
        let us = Identity::ours(clocks.boot_id.clone());
        let ledger = Ledger::new(us.owner.clone().unwrap_or_default(), clocks.clone());
        let (tenure, owed) = (Tenure::None, Vec::new());
        Self { place, us, clocks, limits, ledger, tenure, jobs, tell, owed, is_calm: false }
    }

    /// Works until it is told to close, or nobody can tell it anything any more.
    pub(super) fn run(mut self) {
        loop {
            match self.next() {
                Ok(job) => {
                    if let Some((release, done)) = self.take_in_with_others(job) {
                        let released = self.close(release);
                        // Who asked may have stopped waiting.
                        let _unheard = done.send(released);
                        return;
                    }
                    self.write_down();
                    if mem::take(&mut self.is_calm) {
                        self.tidy_up();
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.beat_if_due();
        }
    }

    /// There is a timer only while a counter has to go on.
    fn next(&self) -> Result<Job, RecvTimeoutError> {
        match &self.tenure {
            Tenure::Held(held) if held.basis == Basis::Heartbeat => {
                let wait = held.next_beat.saturating_sub((self.clocks.boot)());
                self.jobs.recv_timeout(Duration::from_millis(u64::try_from(wait).unwrap_or(0)))
            }
            _ => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        }
    }

    /// One job, and those that wait behind it. Something is returned for the last job of all.
    fn take_in_with_others(&mut self, job: Job) -> Option<(bool, SyncSender<bool>)> {
        let mut next = Some(job);
        for _ in 0..BATCH_MAX {
            match next.take()? {
                Job::Ask { ticket, ask, now } => self.ask(ticket, ask, now),
                Job::Intend(intent, at) => {
                    self.owed.push(Owed::Intended(intent.generation));
                    self.ledger.intend(intent, at);
                }
                Job::Change { generation, change, at } => {
                    self.is_calm |= matches!(change, Change::Fact(Fact::Started, _));
                    self.ledger.change(generation, change, at);
                }
                Job::Report(entry) => self.ledger.report(entry),
                Job::Confirm { ticket } => self.owed.push(Owed::Confirmed(ticket)),
                Job::Close { release, done } => return Some((release, done)),
            }
            next = self.jobs.try_recv().ok();
        }
        // One more was taken out of the queue than a batch may have.
        next.and_then(|job| self.take_in_with_others(job))
    }

    fn ask(&mut self, ticket: u64, ask: LeaseRequest, now: Moment) {
        let (answer, left) = match ask {
            LeaseRequest::Take { unchanged } => self.take(unchanged, now),
            LeaseRequest::Peek => (self.peek(), None),
        };
        let heartbeat = matches!(&self.tenure, Tenure::Held(held) if held.basis == Basis::Heartbeat);
        self.tell(News::Leased { ticket, answer, left, heartbeat });
    }

    fn write_down(&mut self) {
        // What a gateway's own command does to the folder, it has done once the gateway is up.
        if !self.owed.is_empty() || self.is_calm {
            self.follow();
        }
        if !self.owed.is_empty() || self.ledger.has_news() {
            self.write(false);
        }
        let owed = mem::take(&mut self.owed);
        if let Tenure::Held(held) = &self.tenure
            && held.can_vouch()
        {
            for owed in owed {
                self.tell(match owed {
                    Owed::Intended(generation) => News::Intended { generation },
                    Owed::Confirmed(ticket) => News::Confirmed { ticket },
                });
            }
        }
    }

    fn beat_if_due(&mut self) {
        let (now, next) = ((self.clocks.boot)(), self.next_beat());
        if let Tenure::Held(held) = &mut self.tenure
            && held.basis == Basis::Heartbeat
            && held.next_beat <= now
        {
            held.next_beat = next;
            self.write(true);
        }
    }

    /// When the counter has to go on, if it does so now.
    pub(super) fn next_beat(&self) -> i64 {
        let beat = i64::try_from(self.limits.beat.as_millis()).unwrap_or(i64::MAX);
        (self.clocks.boot)().saturating_add(beat)
    }

    pub(super) fn tell(&self, news: News) {
        (self.tell)(news);
    }

    pub(super) fn report(&self, report: Report) {
        self.tell(News::Report(report));
    }

    pub(super) fn warn(&self, warning: Option<String>) {
        if let Some(warning) = warning {
            self.tell(News::Warning(warning));
        }
    }
}
