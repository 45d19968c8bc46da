//! What goes into the store's thread, and what comes out of it.

use super::clock::Stamp;
use super::events::NewEvent;
use super::record::Change;
use crate::core::{Generation, Holder, LeaseAnswer, LeaseRequest, LeftRecord, Moment, Report};
use crate::platform::claim::{Claim, Server};
use std::path::PathBuf;
use std::sync::mpsc::SyncSender;
use std::time::Duration;

/// Where the store is, and which gateway it is for.
#[derive(Debug, Clone)]
pub struct Place {
    pub dir: PathBuf,
    /// The gateway: the path of its configuration.
    pub key: String,
    pub port: u16,
    /// Whether the port is a guess: a claim of another supervisor on it is then no conflict.
    pub is_guess: bool,
    /// Its address, for display.
    pub host: String,
    /// A file of another wing that belongs into the directory: [`News::Moved`] tells that it is missing.
    pub socket: PathBuf,
    /// The same for a supervisor that waits for the lease.
    pub standby_socket: PathBuf,
    pub basis: BasisChoice,
    /// Whether an owner by lock has to confirm its lease as well: it ends its gateway when it cannot.
    pub is_watched: bool,
}

/// What shows that a lease owner is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum BasisChoice {
    /// The lock on a local file system, else the heartbeat.
    #[default]
    Auto,
    Lock,
    Heartbeat,
}

/// How long things may take.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Waiting for a locked database.
    pub wait: Duration,
    /// The same while the store is reported as unavailable.
    pub again: Duration,
    /// Waiting for a lock that another process may hold for an instant only.
    pub contention: Duration,
    /// Between two heartbeats.
    pub beat: Duration,
    /// Between two looks whether our files are still in place. The second one that misses them acts, so that a restore
    /// that is going on is not disturbed: a loss is noticed within a minute.
    pub look: Duration,
    /// The same after one that failed.
    pub beat_again: Duration,
    /// Closing the store.
    pub close: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            wait: Duration::from_secs(5),
            again: Duration::from_millis(100),
            contention: Duration::from_millis(200),
            beat: crate::core::lease::BEAT,
            look: Duration::from_secs(20),
            beat_again: Duration::from_secs(2),
            close: Duration::from_secs(2),
        }
    }
}

/// A gateway that is about to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SpawnIntent {
    pub generation: Generation,
    /// The id in its environment.
    pub instance: String,
    pub command: String,
}

/// What the store reports.
#[derive(Debug)]
pub enum News {
    /// The port is claimed and the claim has to be served. Comes before [`News::Leased`].
    Claimed(Server),
    /// The answer to [`super::Store::ask`].
    Leased {
        ticket: u64,
        answer: LeaseAnswer,
        /// The gateway that may be left, if the lease was acquired.
        left: Option<LeftRecord>,
    },
    /// The intent is on record, or cannot be recorded: the gateway may be started.
    Intended { generation: Generation },
    /// The lease is still ours.
    Confirmed { ticket: u64 },
    /// The counter has gone on, see [`super::Store::confirmed`].
    Beaten,
    /// The database cannot be written, and why. Once until [`News::Returned`].
    Failed(String),
    /// It can be written again, and all that was missing is.
    Returned,
    /// The store directory was removed or replaced and the lease is ours in the new one, or [`Place::socket`] is missing. Or
    /// we wait for the lease, and [`Place::standby_socket`] is missing.
    /// The other files in it have to be created again.
    Moved,
    /// The lease belongs to another supervisor. Nothing is answered after this.
    Lost {
        /// `None` if the owner cannot be seen.
        owner: Option<Holder>,
        why: String,
    },
    /// For the event log.
    Report(Report),
    /// One line for the user.
    Warning(String),
}

/// One job of the thread.
#[derive(Debug)]
pub(super) enum Job {
    Ask {
        ticket: u64,
        ask: LeaseRequest,
        now: Moment,
    },
    Intend(SpawnIntent, Stamp),
    Change {
        generation: Generation,
        change: Change,
        at: Stamp,
    },
    Report(NewEvent),
    Confirm {
        ticket: u64,
    },
    /// `claim`: on the new port, if there is a new one.
    Move {
        host: String,
        port: u16,
        claim: Option<Claim>,
    },
    Close {
        release: bool,
        done: SyncSender<bool>,
    },
}
