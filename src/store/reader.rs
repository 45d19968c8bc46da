//! Read access to the store, with or without a running supervisor.

use super::clock::Clocks;
use super::dating::Dating;
use super::error::StoreError;
use super::events::{self, EventRow};
use super::folder::database_of;
use super::history;
use super::identity::Identity;
use super::lease;
use super::lock;
use super::record::GenerationRecord;
use super::schema::Database;
use crate::core::lease::{Basis, Life};
use crate::core::{History, Moment};
use crate::platform::{filesystem, proc};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::time::Duration;

/// The wait for a locked database.
const WAIT: Duration = Duration::from_secs(1);

/// A database opened for reading.
#[derive(Debug)]
pub struct StoreReader {
    database: Database,
    clocks: Clocks,
    basis: Basis,
    is_locked: Option<bool>,
}

/// Whether a process holds the lock of the lease in this directory; `None` if that cannot be told. Takes the lock shared
/// for an instant.
#[must_use]
pub fn is_locked(dir: &Path) -> Option<bool> {
    lock::is_held(dir).ok()
}

/// The current or last owner of the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseOwner {
    pub row: lease::LeaseRow,
    pub alive: Life,
    /// Whether its pid is one of our own boot and pid namespace.
    pub is_here: bool,
    /// Whether a gateway of it may outlive it where it cannot be seen from here.
    pub may_leave_unseen: bool,
    /// Its last heartbeat, in milliseconds since 1970, where one is needed.
    pub heartbeat_at: Option<i64>,
    /// Its command line, if it is alive.
    pub command: Option<String>,
}

impl StoreReader {
    /// `None` if there is no store in this directory.
    pub fn open(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = database_of(dir);
        match fs::metadata(&path) {
            Ok(meta) if meta.is_file() => {}
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            // SQLite would wait for the other end of a FIFO.
            meta => {
                let error = meta.err().unwrap_or_else(|| io::Error::other("it is not a regular file"));
                return Err(StoreError::file(
                    "look for",
                    &path,
                    "check what is there, and the permissions of its directory",
                )(error));
            }
        }
        let basis = match filesystem::without_dependable_locks(dir) {
            Ok(None) => Basis::Lock,
            Ok(Some(_)) | Err(_) => Basis::Heartbeat,
        };
        let database = Database::open_to_read(dir, WAIT, basis)?;
        if database.is_empty()? {
            return Ok(None);
        }
        Ok(Some(Self { database, clocks: Clocks::system(), basis, is_locked: is_locked(dir) }))
    }

    /// Of all configurations that use the directory, the last owner.
    pub fn lease(&self) -> Result<Option<LeaseOwner>, StoreError> {
        let rows = lease::read_all(&self.database)?;
        let us = Identity::ours(self.clocks.boot_id.clone());
        Ok(rows.into_iter().next().map(|row| {
            // Beside a held lock another boot is another machine, and not an earlier boot of this one.
            let basis = if self.is_locked == Some(true) { Basis::Heartbeat } else { self.basis };
            let alive = match row.life(&us, basis) {
                // Wherever it ran, it held the lock for life.
                Life::Unknown
                    if (self.basis, row.basis) == (Basis::Lock, Basis::Lock) && self.is_locked == Some(false) =>
                {
                    Life::Gone("its lock is free")
                }
                life => life,
            };
            let (is_here, may_leave_unseen) = (row.identity.is_here(&us), row.identity.may_leave_unseen(&us));
            let command = row.identity.pid.filter(|_| alive == Life::Alive).and_then(proc::command_of);
            let heartbeat_at = row.heartbeat_at.filter(|_| row.basis == Basis::Heartbeat);
            LeaseOwner { row, alive, is_here, may_leave_unseen, heartbeat_at, command }
        }))
    }

    /// The history as the core gets it.
    pub fn past(&self, now: Moment) -> Result<History, StoreError> {
        history::past(self.database.conn(), &self.clocks, now).map_err(self.database.error("read"))
    }

    /// The last gateway.
    pub fn youngest(&self) -> Result<Option<GenerationRecord>, StoreError> {
        let conn = self.database.conn();
        history::youngest(conn).and_then(|number| history::read(conn, number)).map_err(self.database.error("read"))
    }

    /// How long ago its start was decided. `None` if that cannot be told.
    #[must_use]
    pub fn age(&self, record: &GenerationRecord) -> Option<Duration> {
        let dating = Dating::of(&[record.readings()], &self.clocks, Moment::ZERO).pop()??;
        dating.age(record.intent?)
    }

    /// The last `limit` events, oldest first.
    pub fn events_last(&self, limit: u32) -> Result<Vec<EventRow>, StoreError> {
        events::last(self.database.conn(), limit).map_err(self.database.error("read"))
    }

    /// The first `limit` events after this id, oldest first.
    pub fn events_after(&self, id: i64, limit: u32) -> Result<Vec<EventRow>, StoreError> {
        events::after(self.database.conn(), id, limit).map_err(self.database.error("read"))
    }
}
