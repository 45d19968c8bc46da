//! What survives us: who owns the gateway, what became of the gateways before it, and the event log.
//!
//! A [`Store`] is a thread of its own, for `SQLite` blocks: jobs go in, [`News`] come out. Two things make an owner, the
//! kernel's lock on a file in the folder of the store and a claim on the port; the row in the database tells others who
//! that is. A database that cannot be used takes nothing away from an owner: what is to be written is kept and written
//! once it can be.
//!
//! ```text
//!            Take                   Intend, Change, Report, (beat)
//! None ----------------> Held(Open) ------------------------------> Held(Open)
//!  ^ contended, unclear,    |  ^ opened again: StoreAvailable, all that was kept is written
//!  | failed                 v  |
//!  +--                  Held(Down): full, read-only, locked, I/O error
//!                           |  the row names another owner, or another one holds the lock of a new folder
//!                           +-------------> Lost: nothing is written any more
//! ```

mod acquire;
mod cell;
mod clock;
mod damage;
mod error;
mod events;
mod folder;
mod history;
mod identity;
pub mod incidents;
mod lease;
mod ledger;
mod lock;
mod reader;
mod record;
mod schema;
mod tenure;
#[cfg(test)]
mod tests;
mod worker;

pub use clock::{Clocks, Stamp};
pub use error::StoreError;
pub use events::EventRow;
pub use identity::Identity;
pub use lease::LeaseRow;
pub use reader::{Reader, Tenant};
pub use record::{Ending, GenerationRecord, LeftRecord};

use crate::core::{Fact, Generation, Holder, LeaseAnswer, LeaseRequest, Moment, Report};
use crate::platform::claim::Server;
use record::Change;
use std::path::PathBuf;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::Duration;
use worker::{Job, Worker};

/// What the thread needs at most, `SQLite`'s deepest query included: a few dozen KiB, and what std wants for itself.
const STACK: usize = 512 * 1024;

/// Where the store is and what it is about.
#[derive(Debug, Clone)]
pub struct Place {
    /// The folder.
    pub dir: PathBuf,
    /// Whose gateway: the path of its configuration.
    pub key: String,
    /// Its port.
    pub port: u16,
    /// Its address, for people.
    pub host: String,
    /// What shows whether an owner lives.
    pub basis: BasisChoice,
}

/// What shows whether an owner lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BasisChoice {
    /// The lock where the file system is a local one, else the heartbeat.
    #[default]
    Auto,
    /// The lock.
    Lock,
    /// The heartbeat.
    Heartbeat,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Waiting for a database that somebody has locked.
    pub wait: Duration,
    /// The same once it has been told that the database cannot be used.
    pub again: Duration,
    /// Waiting for a lock that may be held for an instant only.
    pub contention: Duration,
    /// From one heartbeat to the next.
    pub beat: Duration,
    /// Closing.
    pub close: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(5),
            again: Duration::from_millis(100),
            contention: Duration::from_millis(200),
            beat: crate::core::lease::BEAT,
            close: Duration::from_secs(2),
        }
    }
}

/// A gateway that is about to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Intent {
    /// Its number.
    pub generation: Generation,
    /// The id that it will carry in its environment.
    pub instance: String,
    /// Its command.
    pub command: String,
}

/// What the store has to say.
#[derive(Debug)]
pub enum News {
    /// The port is claimed. Somebody has to serve that; it is told before the lease is.
    Claimed(Server),
    /// An attempt on the lease is over.
    Leased {
        /// As it was asked.
        ticket: u64,
        /// How.
        answer: LeaseAnswer,
        /// The gateway that may be left, if the answer speaks of one.
        left: Option<LeftRecord>,
        /// Whether the lease can be lost without our doing: whoever signals or starts anything asks first.
        heartbeat: bool,
    },
    /// The intent is on record, or cannot be: the gateway may be started.
    Intended {
        /// Which one.
        generation: Generation,
    },
    /// Nobody else has the lease.
    Confirmed {
        /// As it was asked.
        ticket: u64,
    },
    /// Another folder lies where ours did, and is ours now. Whatever else is to be in it has to be made again.
    Moved,
    /// The lease belongs to somebody else. Nothing is answered after this.
    Lost {
        /// To whom, where he can be seen.
        owner: Option<Holder>,
        /// How that is known.
        why: String,
    },
    /// Something for the event log.
    Report(Report),
    /// Something for people: one line.
    Warning(String),
}

/// The store. Nothing here blocks, but for [`Store::close`]; dropping it without that is what a crash would be.
#[derive(Debug, Clone)]
pub struct Store {
    jobs: Sender<Job>,
    clocks: Clocks,
    close: Duration,
}

impl Store {
    /// Starts the thread. It touches no file before it is asked for the lease. `tell` is called on that thread.
    pub fn open(
        place: Place,
        clocks: Clocks,
        limits: Limits,
        tell: impl Fn(News) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (jobs, inbox) = mpsc::channel();
        let worker = Worker::new(place, clocks.clone(), limits, inbox, Box::new(tell));
        // It ends with the last handle, or when it is told to close.
        let started = thread::Builder::new().name("store".to_owned()).stack_size(STACK).spawn(|| worker.run());
        started.map_err(StoreError::Thread)?;
        Ok(Self { jobs, clocks, close: limits.close })
    }

    /// Asks for the lease, or for a look at it. Answered by [`News::Leased`].
    pub fn ask(&self, ticket: u64, ask: LeaseRequest, now: Moment) {
        self.send(Job::Ask { ticket, ask, now });
    }

    /// Writes down that a gateway is about to be started. Answered by [`News::Intended`].
    pub fn intend(&self, intent: Intent) {
        self.send(Job::Intend(intent, self.clocks.now()));
    }

    /// Its process exists.
    pub fn spawned(&self, generation: Generation, pid: i32, start_time: u64) {
        self.change(generation, Change::Spawned { pid, start_time });
    }

    /// It was left from another supervisor and goes on under this one.
    pub fn adopted(&self, generation: Generation, pid: i32, start_time: u64) {
        self.change(generation, Change::Adopted { pid, start_time });
    }

    /// These processes, by pid and start time, belong to it.
    pub fn members(&self, generation: Generation, members: Vec<(i32, u64)>) {
        self.change(generation, Change::Members(members));
    }

    /// Remembers what the core said at `now`.
    pub fn remember(&self, generation: Generation, fact: Fact, now: Moment) {
        self.change(generation, Change::Fact(fact, now));
    }

    /// Adds to the event log. `fields` is a JSON object.
    pub fn report(&self, at_ms: i64, name: &str, generation: Option<Generation>, fields: String) {
        self.send(Job::Report(events::Entry { at_ms, name: name.to_owned(), generation, fields }));
    }

    /// Asks whether the lease still is ours. Answered by [`News::Confirmed`] or [`News::Lost`].
    pub fn confirm(&self, ticket: u64) {
        self.send(Job::Confirm { ticket });
    }

    /// Writes what is left to write, gives the lease back if asked to, and lets go of lock and claim. Whether it was
    /// given back; what takes longer than the limit is left to the end of the process.
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
        // The thread ends before this handle only by a panic, and that ends the program in a release build.
        let _gone = self.jobs.send(job);
    }
}
