//! What outlives the supervisor: the lease, the history of gateways and the event log.
//!
//! A [`Store`] has a thread of its own because `SQLite` blocks: jobs go in, [`News`] come out. The owner of the lease has
//! the kernel's lock on a file in the store directory and a claim on the port; the row in the database tells others who
//! that is. An unusable database costs an owner nothing: records are buffered and written later.
//!
//! ```text
//!            Take                   Intend, Change, Report, (beat)
//! None ----------------> Held(Open) ------------------------------> Held(Open)
//!  ^ contended, unclear,    |  ^ opened again: Returned, the buffer is written
//!  | failed                 v  |
//!  +--                  Held(Down): full, read-only, locked, I/O error
//!                           |  the row names another owner, or another one holds the lock of a new directory
//!                           +-------------> Lost: nothing is written any more
//! ```
//!
//! `worker` runs the thread, `acquire` takes the lease, `ownership` keeps it and writes. Below them are one file for each
//! table (`lease`, `history`, `events`), the database (`schema`, and `image` for that of an owner on another basis), and the
//! directory with its files (`folder`, `lock`).

mod acquire;
mod clock;
mod column;
mod context;
mod dating;
mod error;
mod events;
mod folder;
mod history;
mod identity;
mod image;
pub mod incidents;
mod lease;
mod lock;
mod messages;
mod ownership;
mod pause;
mod reader;
mod record;
mod schema;
#[cfg(test)]
mod tests;
mod worker;
mod write_buffer;

pub use clock::{Clocks, Stamp};
pub use error::StoreError;
pub use events::EventRow;
pub use folder::make as make_folder;
pub use identity::Identity;
pub use lease::LeaseRow;
pub use messages::{BasisChoice, Limits, News, Place, SpawnIntent};
pub use pause::{PauseKeeper, RecordedPause};
pub use reader::{LeaseOwner, StoreReader, is_locked};
pub use record::GenerationRecord;

use crate::core::{Fact, Generation, LeaseRequest, Moment, TreeRecord};
use crate::platform::claim::Claim;
use events::NewEvent;
use messages::Job;
use record::Change;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;
use worker::Worker;

/// Enough for `SQLite`'s deepest query, a few dozen KiB, and for std.
const STACK: usize = 512 * 1024;

/// A handle to the store. Only [`Store::close`] blocks; a drop without it is the same as a crash.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: Sender<Job>,
    clocks: Clocks,
    close: Duration,
    confirmed: Arc<AtomicI64>,
}

impl Store {
    /// Starts the thread, which calls `tell`. It opens no file before the first [`Store::ask`].
    pub fn open(
        place: Place,
        clocks: Clocks,
        limits: Limits,
        tell: impl Fn(News) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (jobs, inbox) = mpsc::channel();
        let confirmed = Arc::new(AtomicI64::new(0));
        let worker = Worker::new(place, clocks.clone(), limits, inbox, Box::new(tell), Arc::clone(&confirmed));
        // It ends with the last handle, or after `close`.
        let started = thread::Builder::new().name("store".to_owned()).stack_size(STACK).spawn(|| worker.run());
        started.map_err(StoreError::Thread)?;
        Ok(Self { jobs, clocks, close: limits.close, confirmed })
    }

    /// Takes the lease or looks at it. Answered by [`News::Leased`].
    pub fn ask(&self, ticket: u64, ask: LeaseRequest, now: Moment) {
        self.send(Job::Ask { ticket, ask, now });
    }

    /// Records that a gateway is about to be started. Answered by [`News::Intended`].
    pub fn intend(&self, intent: SpawnIntent) {
        self.send(Job::Intend(intent, self.clocks.now()));
    }

    pub fn spawned(&self, generation: Generation, pid: i32, start_time: u64) {
        self.change(generation, Change::Spawned { pid, start_time });
    }

    pub fn adopted(&self, generation: Generation, pid: i32, start_time: u64) {
        self.change(generation, Change::Adopted { pid, start_time });
    }

    pub fn tree(&self, generation: Generation, tree: TreeRecord) {
        self.change(generation, Change::Tree(tree));
    }

    /// Records what the core found at `now`.
    pub fn remember(&self, generation: Generation, fact: Fact, now: Moment) {
        self.change(generation, Change::Fact(fact, now));
    }

    /// Appends to the event log. `fields` is a JSON object.
    pub fn report(&self, at_ms: i64, name: &str, generation: Option<Generation>, fields: String) {
        self.send(Job::Report(NewEvent { at_ms, name: name.to_owned(), generation, fields }));
    }

    /// When the write of the last confirmation began, as time since the boot with suspends. It is read without the thread,
    /// which may wait for a file system.
    #[must_use]
    pub fn confirmed(&self) -> Option<Duration> {
        let ms = u64::try_from(self.confirmed.load(Ordering::Relaxed)).unwrap_or(0);
        (ms > 0).then(|| Duration::from_millis(ms))
    }

    /// Checks that the lease is still ours. Answered by [`News::Confirmed`] or [`News::Lost`].
    pub fn confirm(&self, ticket: u64) {
        self.send(Job::Confirm { ticket });
    }

    /// The gateway of the lease is there now. `claim` replaces the one on its old port.
    pub fn move_to(&self, host: String, port: u16, claim: Option<Claim>) {
        self.send(Job::Move { host, port, claim });
    }

    /// Writes the buffer, releases the lease if asked to, and drops lock and claim. Returns whether the lease was released
    /// within [`Limits::close`].
    #[must_use]
    pub fn close(&self, release: bool) -> bool {
        let (done, closed) = mpsc::sync_channel(1);
        self.send(Job::Close { release, done });
        closed.recv_timeout(self.close).unwrap_or(false)
    }

    fn change(&self, generation: Generation, change: Change) {
        self.send(Job::Change { generation, change, at: self.clocks.now() });
    }

    fn send(&self, job: Job) {
        // The thread ends before this handle only by a panic, which aborts a release build.
        let _gone = self.jobs.send(job);
    }
}
