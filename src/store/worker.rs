//! The thread of the store: takes jobs, writes them in batches, and answers.

use super::acquire;
use super::clock::Clocks;
use super::context::Context;
use super::identity::Identity;
use super::messages::{Job, Limits, News, Place};
use super::ownership::{HeldLease, Ownership};
use super::record::Change;
use super::write_buffer::WriteBuffer;
use crate::core::{Fact, Generation, LeaseAnswer, LeaseRequest, Moment};
use std::cell::Cell;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::AtomicI64;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender};
use std::time::Duration;

/// The most jobs that are written in one transaction.
const BATCH_MAX: usize = 256;

/// An answer that is due after the next write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Owed {
    Intended(Generation),
    Confirmed(u64),
}

pub(super) struct Worker {
    /// Dropped first: the lock is free before the receiver of the news learns of the end.
    ownership: Ownership,
    context: Context,
    buffer: WriteBuffer,
    jobs: Receiver<Job>,
    owed: Vec<Owed>,
    /// In milliseconds of the boot clock.
    next_look: i64,
    /// The last request for the lease was not granted: we may be in standby.
    is_waiting: bool,
    /// A gateway has just come up: there is time for a checkpoint.
    is_calm: bool,
}

impl Worker {
    pub(super) fn new(
        place: Place,
        clocks: Clocks,
        limits: Limits,
        jobs: Receiver<Job>,
        tell: Box<dyn Fn(News) + Send>,
        confirmed: Arc<AtomicI64>,
    ) -> Self {
        let us = Identity::ours(clocks.boot_id.clone());
        let buffer = WriteBuffer::new(us.owner.clone().unwrap_or_default(), clocks.clone());
        let context = Context { place, us, clocks, limits, tell, confirmed, told_of_modes: Cell::new(false) };
        let next_look = context.after(limits.look);
        Self {
            context,
            buffer,
            ownership: Ownership::None,
            jobs,
            owed: Vec::new(),
            next_look,
            is_waiting: false,
            is_calm: false,
        }
    }

    /// Returns after [`Job::Close`], or when the last sender is gone.
    pub(super) fn run(mut self) {
        loop {
            match self.next() {
                Ok(job) => {
                    if let Some((release, done)) = self.take_batch(job) {
                        let released = self.ownership.close(&mut self.context, &mut self.buffer, release);
                        // The caller may have stopped waiting.
                        let _unheard = done.send(released);
                        return;
                    }
                    self.write();
                    if mem::take(&mut self.is_calm) {
                        self.ownership.checkpoint(&self.context, &mut self.buffer);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            self.look_if_due();
            self.beat_if_due();
        }
    }

    /// A timer runs only while the lease is ours or waited for.
    fn next(&self) -> Result<Job, RecvTimeoutError> {
        let due = match self.ownership.held() {
            Some(held) if self.context.beats(held.basis) => held.next_beat.min(self.next_look),
            Some(_) => self.next_look,
            None if self.is_waiting => self.next_look,
            None => return self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
        };
        let wait = due.saturating_sub((self.context.clocks.boot)());
        self.jobs.recv_timeout(Duration::from_millis(u64::try_from(wait).unwrap_or(0)))
    }

    /// Looks for our files. While a gateway boots, its command may be replacing the directory: then the boot is waited for.
    fn look_if_due(&mut self) {
        if self.next_look <= (self.context.clocks.boot)() {
            self.next_look = self.context.after(self.context.limits.look);
            let place = &self.context.place;
            if self.is_waiting && place.dir.exists() && !place.standby_socket.exists() {
                self.context.tell(News::Moved);
            }
            self.ownership.answer(&self.context, &mut self.buffer);
            if !self.buffer.is_booting() {
                self.ownership.look(&self.context, &mut self.buffer);
            }
        }
    }

    /// Takes one job and those queued behind it. Returns the parameters of [`Job::Close`].
    fn take_batch(&mut self, job: Job) -> Option<(bool, SyncSender<bool>)> {
        let mut next = Some(job);
        for _ in 0..BATCH_MAX {
            match next.take()? {
                Job::Ask { ticket, ask, now } => self.ask(ticket, ask, now),
                Job::Intend(intent, at) => {
                    self.owed.push(Owed::Intended(intent.generation));
                    self.buffer.intend(intent, at);
                }
                Job::Change { generation, change, at } => {
                    self.is_calm |= matches!(change, Change::Fact(Fact::Started, _));
                    self.buffer.change(generation, change, at);
                }
                Job::Report(entry) => self.buffer.report(entry),
                Job::Confirm { ticket } => self.owed.push(Owed::Confirmed(ticket)),
                Job::Move { host, port, claim } => {
                    (self.context.place.host, self.context.place.port) = (host, port);
                    self.context.place.is_guess = false;
                    self.ownership.note_move(claim);
                }
                Job::Close { release, done } => return Some((release, done)),
            }
            next = self.jobs.try_recv().ok();
        }
        // The last one is already out of the queue.
        next.and_then(|job| self.take_batch(job))
    }

    fn ask(&mut self, ticket: u64, ask: LeaseRequest, now: Moment) {
        let (answer, left) = match ask {
            LeaseRequest::Take { unchanged } => {
                // A supervisor that asks again has lost what it had.
                self.ownership = Ownership::None;
                let began = (self.context.clocks.boot)();
                match acquire::take(&self.context, &mut self.buffer, unchanged, now) {
                    Ok((mut held, acquired, left)) => {
                        if acquired.trouble.is_none() {
                            held.confirm(&self.context, began);
                        }
                        self.ownership = Ownership::Held(held);
                        (LeaseAnswer::Acquired(Box::new(acquired)), left)
                    }
                    Err(answer) => (answer, None),
                }
            }
            LeaseRequest::Peek => (acquire::peek(&self.context), None),
        };
        self.is_waiting = !matches!(answer, LeaseAnswer::Acquired(_));
        self.context.tell(News::Leased { ticket, answer, left });
    }

    fn write(&mut self) {
        // The gateway's command may replace the directory; it has done so by the time the gateway is up.
        if !self.owed.is_empty() || self.is_calm {
            self.ownership.follow(&self.context);
        }
        let has_moved = self.ownership.held().is_some_and(HeldLease::has_moved);
        if !self.owed.is_empty() || self.buffer.has_changes() || has_moved {
            self.ownership.write(&self.context, &mut self.buffer, false);
        }
        self.answer();
    }

    /// An answer that would not be certain now is given when it is.
    fn answer(&mut self) {
        let Some(held) = self.ownership.held() else { return self.owed.clear() };
        if held.is_certain() {
            for owed in mem::take(&mut self.owed) {
                self.context.tell(match owed {
                    Owed::Intended(generation) => News::Intended { generation },
                    Owed::Confirmed(ticket) => News::Confirmed { ticket },
                });
            }
        }
    }

    fn beat_if_due(&mut self) {
        let (now, next) = ((self.context.clocks.boot)(), self.context.after(self.context.limits.beat));
        let Ownership::Held(held) = &mut self.ownership else { return };
        if !self.context.beats(held.basis) || now < held.next_beat {
            return;
        }
        held.next_beat = next;
        if held.is_down() {
            self.ownership.follow(&self.context);
        }
        self.ownership.write(&self.context, &mut self.buffer, true);
        self.answer();
        if let Ownership::Held(held) = &mut self.ownership
            && held.is_down()
        {
            held.next_beat = self.context.after(self.context.limits.beat_again);
        }
    }
}
