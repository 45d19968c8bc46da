//! The store for those who only look, while a supervisor runs or none does.

use super::clock::Clocks;
use super::error::StoreError;
use super::events::{self, EventRow};
use super::folder::database_of;
use super::history;
use super::identity::Identity;
use super::lease;
use super::record::GenerationRecord;
use super::schema::Database;
use crate::core::lease::{Basis, Life};
use crate::core::{History, Moment};
use crate::platform::{filesystem, proc};
use std::path::Path;
use std::time::Duration;

/// For how long a look may wait for those who write.
const WAIT: Duration = Duration::from_secs(1);

/// A database that is open for reading.
#[derive(Debug)]
pub struct Reader {
    database: Database,
    clocks: Clocks,
    basis: Basis,
}

/// Who has or had the lease.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tenant {
    /// As the row has it.
    pub row: lease::LeaseRow,
    /// Whether he lives, as far as can be told from here.
    pub alive: Life,
    /// His command, if he does.
    pub command: Option<String>,
}

impl Reader {
    /// Opens the store of a folder. None if there is none.
    pub fn open(dir: &Path) -> Result<Option<Self>, StoreError> {
        let path = database_of(dir);
        let there =
            path.try_exists().map_err(StoreError::file("look at", &path, "check the permissions of its folder"))?;
        if !there {
            return Ok(None);
        }
        let database = Database::open_to_read(dir, WAIT)?;
        if database.is_empty()? {
            return Ok(None);
        }
        let basis = match filesystem::without_dependable_locks(dir) {
            Ok(None) => Basis::Lock,
            Ok(Some(_)) | Err(_) => Basis::Heartbeat,
        };
        Ok(Some(Self { database, clocks: Clocks::system(), basis }))
    }

    /// Who has or had the lease last, of all configurations that share the folder.
    pub fn lease(&self) -> Result<Option<Tenant>, StoreError> {
        let rows = lease::read_all(self.database.conn()).map_err(self.database.error("read"))?;
        let us = Identity::ours(self.clocks.boot_id.clone());
        Ok(rows.into_iter().next().map(|row| {
            let alive = row.identity.life(&us, self.basis);
            let command = row.identity.pid.filter(|_| alive == Life::Alive).and_then(proc::command_of);
            Tenant { row, alive, command }
        }))
    }

    /// What the core would be told of earlier gateways.
    pub fn past(&self, now: Moment) -> Result<History, StoreError> {
        history::past(self.database.conn(), &self.clocks, now).map_err(self.database.error("read"))
    }

    /// The youngest gateway.
    pub fn youngest(&self) -> Result<Option<GenerationRecord>, StoreError> {
        let conn = self.database.conn();
        history::youngest(conn).and_then(|number| history::read(conn, number)).map_err(self.database.error("read"))
    }

    /// How long ago something was that a record tells.
    #[must_use]
    pub fn age(&self, record: &GenerationRecord, stamp: super::Stamp) -> Duration {
        self.clocks.age(stamp, record.boot_id.as_deref())
    }

    /// The youngest `limit` events, oldest first.
    pub fn events_last(&self, limit: u32) -> Result<Vec<EventRow>, StoreError> {
        events::last(self.database.conn(), limit).map_err(self.database.error("read"))
    }

    /// The oldest `limit` of the events after the one with this id, oldest first.
    pub fn events_after(&self, id: i64, limit: u32) -> Result<Vec<EventRow>, StoreError> {
        events::after(self.database.conn(), id, limit).map_err(self.database.error("read"))
    }
}
