//! The table of leases.

use super::column::{count, integer, number, pid, text};
use super::error::{StoreError, StoreErrorKind};
use super::identity::Identity;
use super::image::DatabaseImage;
use super::schema::Database;
use crate::core::Holder;
use crate::core::lease::{Basis, Life, Row};
use crate::platform::random;
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::io;
use std::path::Path;
use std::time::Duration;

/// The `scope` of our rows in `state_leases`.
const SCOPE: &str = "gateway_locks";

/// The values of the column `basis`.
const LOCK: &str = "lock";
const HEARTBEAT: &str = "heartbeat";

/// No counter of heartbeats gets this far.
const BEAT_MAX: u64 = 1 << 62;

/// The bound of the random start of a new counter.
const FIRST_BEAT_MAX: u64 = 1 << 32;

/// The wait for a locked database when only the owner is looked up.
const LOOK: Duration = Duration::from_millis(50);

/// A row; columns with invalid content are `None` or 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// The current or last owner.
    pub identity: Identity,
    /// Grows with each change of owner.
    pub epoch: u64,
    /// In milliseconds since 1970.
    pub acquired_at: Option<i64>,
    /// As above.
    pub heartbeat_at: Option<i64>,
    pub released: bool,
    /// The heartbeat counter.
    pub beat: u64,
    /// What its owner holds it on.
    pub basis: Basis,
    /// The address of the gateway: the host as in a URL, and the port.
    pub place: Option<(String, u16)>,
}

/// What an owner writes into its row.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) key: &'a str,
    pub(super) us: &'a Identity,
    pub(super) basis: Basis,
    pub(super) address: &'a str,
    pub(super) port: u16,
}

impl LeaseRow {
    /// For [`crate::core::lease::rule`].
    pub(super) fn to_rule(&self, us: &Identity, sees: Basis) -> Row {
        Row { released: self.released, life: self.life(us, sees), beat: self.beat, basis: self.basis }
    }

    /// Whether its owner lives. `sees`: as for [`crate::core::lease::rule`]. One on a heartbeat may run on another machine.
    pub(super) fn life(&self, us: &Identity, sees: Basis) -> Life {
        self.identity.life(us, if self.basis == Basis::Heartbeat { self.basis } else { sees })
    }

    /// The owner, for display. On another host its pid means nothing here.
    pub(super) fn holder(&self, us: &Identity, sees: Basis) -> Option<Holder> {
        match self.life(us, sees) {
            Life::Alive => self.identity.holder(),
            Life::Gone(_) => None,
            Life::Unknown => {
                let host = self.identity.host.as_deref().unwrap_or("unknown");
                self.identity.pid.map(|pid| Holder { pid, command: format!("a supervisor on host {host}"), uid: None })
            }
        }
    }

    /// `of`: what the database was made for; a row of version 1 says nothing else.
    fn parse(row: &rusqlite::Row<'_>, of: Basis) -> Self {
        Self {
            identity: Identity {
                owner: text(row, "owner"),
                pid: pid(row, "pid"),
                start_time: count(row, "start_time"),
                boot_id: text(row, "boot_id"),
                pid_namespace: count(row, "pid_namespace"),
                host: text(row, "host"),
            },
            epoch: count(row, "epoch").unwrap_or(0),
            acquired_at: integer(row, "acquired_at"),
            heartbeat_at: integer(row, "heartbeat_at"),
            released: integer(row, "released_at").is_some(),
            beat: count(row, "beat").unwrap_or(0),
            basis: match text(row, "basis").as_deref() {
                Some(LOCK) => Basis::Lock,
                Some(HEARTBEAT) => Basis::Heartbeat,
                Some(_) | None => of,
            },
            place: text(row, "address").zip(count(row, "port").and_then(|port| u16::try_from(port).ok())),
        }
    }
}

pub(super) fn read(conn: &Connection, key: &str, of: Basis) -> rusqlite::Result<Option<LeaseRow>> {
    let sql = "SELECT * FROM state_leases WHERE scope = ?1 AND lease_key = ?2";
    conn.query_row(sql, params![SCOPE, key], |row| Ok(LeaseRow::parse(row, of))).optional()
}

/// The last one taken first. Several configurations may use one directory, one at a time.
pub(super) fn read_all(database: &Database) -> Result<Vec<LeaseRow>, StoreError> {
    if database.is_empty()? {
        return Ok(Vec::new());
    }
    let read = || {
        let sql = "SELECT * FROM state_leases WHERE scope = ?1 ORDER BY acquired_at DESC";
        let mut statement = database.conn().prepare(sql)?;
        let rows = statement.query_map([SCOPE], |row| Ok(LeaseRow::parse(row, database.basis)))?;
        rows.collect::<rusqlite::Result<_>>()
    };
    read().map_err(database.error("read"))
}

/// As above.
pub(super) fn rows_of(image: &DatabaseImage) -> Result<Vec<LeaseRow>, StoreError> {
    Database::of_image(image).and_then(|database| read_all(&database)).map_err(|error| match error.kind() {
        StoreErrorKind::Refused => error,
        _ => StoreError::file("read", image.path(), "if no supervisor uses it elsewhere, move it away")(
            io::Error::other(error),
        ),
    })
}

/// Writes our row. The counter continues that of the last owner, or starts at random: a supervisor that watches it must not
/// see the same number again, or it would consider us dead.
pub(super) fn write(
    tx: &Transaction<'_>,
    terms: Terms<'_>,
    epoch: u64,
    last: Option<&LeaseRow>,
    wall_ms: i64,
) -> rusqlite::Result<()> {
    let us = terms.us;
    // A counter beyond the bound was not written by us.
    let next = last.and_then(|row| row.beat.checked_add(1)).filter(|beat| *beat <= BEAT_MAX);
    let beat = next.unwrap_or_else(|| random::bits() % FIRST_BEAT_MAX);
    let sql = "INSERT OR REPLACE INTO state_leases (scope, lease_key, owner, pid, start_time, boot_id, pid_namespace, \
               host, address, port, epoch, acquired_at, heartbeat_at, beat, released_at, version, basis) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?14, NULL, ?13, ?15)";
    tx.execute(
        sql,
        params![
            SCOPE,
            terms.key,
            us.owner,
            us.pid,
            us.start_time.map(number),
            us.boot_id,
            us.pid_namespace.map(number),
            us.host,
            terms.address,
            terms.port,
            number(epoch),
            wall_ms,
            env!("CARGO_PKG_VERSION"),
            number(beat),
            if terms.basis == Basis::Lock { LOCK } else { HEARTBEAT },
        ],
    )
    .map(drop)
}

/// Records where the gateway is now, if the row is still ours.
pub(super) fn write_place(tx: &Transaction<'_>, terms: Terms<'_>, epoch: u64) -> rusqlite::Result<()> {
    let sql = "UPDATE state_leases SET address = ?5, port = ?6 \
               WHERE scope = ?1 AND lease_key = ?2 AND owner = ?3 AND epoch = ?4";
    tx.execute(sql, params![SCOPE, terms.key, terms.us.owner, number(epoch), terms.address, terms.port]).map(drop)
}

/// Increments the counter, if the row is still ours.
pub(super) fn beat(tx: &Transaction<'_>, terms: Terms<'_>, epoch: u64, wall_ms: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE state_leases SET heartbeat_at = ?5, \
               beat = CASE WHEN typeof(beat) = 'integer' AND beat BETWEEN 0 AND ?6 THEN beat + 1 ELSE 1 END \
               WHERE scope = ?1 AND lease_key = ?2 AND owner = ?3 AND epoch = ?4";
    let owner = &terms.us.owner;
    tx.execute(sql, params![SCOPE, terms.key, owner, number(epoch), wall_ms, number(BEAT_MAX)]).map(drop)
}

/// Returns whether the row was still ours.
pub(super) fn release(tx: &Transaction<'_>, terms: Terms<'_>, epoch: u64, wall_ms: i64) -> rusqlite::Result<bool> {
    let sql = "UPDATE state_leases SET released_at = ?5 \
               WHERE scope = ?1 AND lease_key = ?2 AND owner = ?3 AND epoch = ?4";
    let rows = tx.execute(sql, params![SCOPE, terms.key, terms.us.owner, number(epoch), wall_ms])?;
    Ok(rows == 1)
}

/// The owner in the database of a directory, if it is known to be alive.
pub(super) fn living_owner(dir: &Path, us: &Identity, sees: Basis) -> Option<Holder> {
    let database = Database::open_to_read(dir, LOOK, sees).ok()?;
    let rows = read_all(&database).ok()?;
    let living = rows.into_iter().find(|row| !row.released && row.life(us, sees) == Life::Alive)?;
    living.identity.holder()
}

/// Whether an owner in the database of a directory ended without releasing its lease.
pub(super) fn is_left(dir: &Path, us: &Identity, sees: Basis) -> bool {
    let rows = Database::open_to_read(dir, LOOK, sees).ok().and_then(|database| read_all(&database).ok());
    rows.is_some_and(|rows| rows.iter().any(|row| !row.released && matches!(row.life(us, sees), Life::Gone(_))))
}

/// Reads the row without opening the database for writing.
pub(super) fn peek(dir: &Path, key: &str, sees: Basis) -> Option<LeaseRow> {
    let database = Database::open_to_read(dir, LOOK, sees).ok()?;
    read(database.conn(), key, database.basis).ok()?
}
