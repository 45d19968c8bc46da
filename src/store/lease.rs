//! The row that says who has the lease.

use super::cell::{count, integer, number, pid, text};
use super::identity::Identity;
use super::schema::Database;
use crate::core::Holder;
use crate::core::lease::{Basis, Life, Row};
use rusqlite::{Connection, OptionalExtension, Transaction, params};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::Path;
use std::time::Duration;

/// The rows of `state_leases` that are ours.
const SCOPE: &str = "gateway_locks";

/// A counter that was only ever counted up does not come to this.
const BEAT_MAX: u64 = 1 << 62;

/// Where the counter of a new row begins, at most.
const FIRST_BEAT_MAX: u64 = 1 << 32;

/// For how long a look at another's row may wait.
const LOOK: Duration = Duration::from_millis(50);

/// A row, as far as it makes sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaseRow {
    /// Who has or had the lease.
    pub identity: Identity,
    /// How often it has changed hands.
    pub epoch: u64,
    /// When it did last, in milliseconds since 1970.
    pub acquired_at: Option<i64>,
    /// Whether it was given back.
    pub released: bool,
    /// The counter of its owner.
    pub beat: u64,
    /// Where his gateway listens: the host as in a URL, and the port.
    pub place: Option<(String, u16)>,
}

/// What stands in a row for the one who takes the lease.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms<'a> {
    pub(super) key: &'a str,
    pub(super) us: &'a Identity,
    pub(super) address: &'a str,
    pub(super) port: u16,
}

impl LeaseRow {
    /// For [`crate::core::lease::rule`].
    pub(super) fn to_rule(&self, us: &Identity, basis: Basis) -> Row {
        Row { released: self.released, life: self.identity.life(us, basis), beat: self.beat }
    }

    fn parse(row: &rusqlite::Row<'_>) -> Self {
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
            released: integer(row, "released_at").is_some(),
            beat: count(row, "beat").unwrap_or(0),
            place: text(row, "address").zip(count(row, "port").and_then(|port| u16::try_from(port).ok())),
        }
    }
}

pub(super) fn read(conn: &Connection, key: &str) -> rusqlite::Result<Option<LeaseRow>> {
    let sql = "SELECT * FROM state_leases WHERE scope = ?1 AND lease_key = ?2";
    conn.query_row(sql, params![SCOPE, key], |row| Ok(LeaseRow::parse(row))).optional()
}

/// All of them, the one that was taken last first: several configurations may share a folder, though not at a time.
pub(super) fn read_all(conn: &Connection) -> rusqlite::Result<Vec<LeaseRow>> {
    let mut statement = conn.prepare("SELECT * FROM state_leases WHERE scope = ?1 ORDER BY acquired_at DESC")?;
    let rows = statement.query_map([SCOPE], |row| Ok(LeaseRow::parse(row)))?;
    rows.collect()
}

/// Puts us in. The counter goes on from the one of the last owner, or begins anywhere: whoever has watched it must not
/// see the same number again and take us for one who stands still.
pub(super) fn write(
    tx: &Transaction<'_>,
    terms: Terms<'_>,
    epoch: u64,
    last: Option<&LeaseRow>,
    wall_ms: i64,
) -> rusqlite::Result<()> {
    let us = terms.us;
    // A counter at its end was never one of ours.
    let next = last.and_then(|row| row.beat.checked_add(1)).filter(|beat| *beat <= BEAT_MAX);
    let beat = next.unwrap_or_else(|| RandomState::new().build_hasher().finish() % FIRST_BEAT_MAX);
    let sql = "INSERT OR REPLACE INTO state_leases (scope, lease_key, owner, pid, start_time, boot_id, pid_namespace, \
               host, address, port, epoch, acquired_at, heartbeat_at, beat, released_at, version) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?12, ?14, NULL, ?13)";
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
        ],
    )
    .map(drop)
}

/// Makes the counter go on, if the row still is ours.
pub(super) fn beat(tx: &Transaction<'_>, terms: Terms<'_>, epoch: u64, wall_ms: i64) -> rusqlite::Result<()> {
    let sql = "UPDATE state_leases SET heartbeat_at = ?5, \
               beat = CASE WHEN typeof(beat) = 'integer' AND beat BETWEEN 0 AND ?6 THEN beat + 1 ELSE 1 END \
               WHERE scope = ?1 AND lease_key = ?2 AND owner = ?3 AND epoch = ?4";
    let owner = &terms.us.owner;
    tx.execute(sql, params![SCOPE, terms.key, owner, number(epoch), wall_ms, number(BEAT_MAX)]).map(drop)
}

/// Gives it back, if it still is ours.
pub(super) fn release(tx: &Transaction<'_>, terms: Terms<'_>, epoch: u64, wall_ms: i64) -> rusqlite::Result<bool> {
    let sql = "UPDATE state_leases SET released_at = ?5 \
               WHERE scope = ?1 AND lease_key = ?2 AND owner = ?3 AND epoch = ?4";
    let rows = tx.execute(sql, params![SCOPE, terms.key, terms.us.owner, number(epoch), wall_ms])?;
    Ok(rows == 1)
}

/// The living owner that the database of a folder names, if we can be sure of him and the database can be read.
pub(super) fn living_owner(dir: &Path, us: &Identity, basis: Basis) -> Option<Holder> {
    let database = Database::open_to_read(dir, LOOK).ok()?;
    let rows = read_all(database.conn()).ok()?;
    let living = rows.into_iter().find(|row| !row.released && row.identity.life(us, basis) == Life::Alive)?;
    living.identity.holder()
}

/// The row of a database that nobody may want to be opened for writing.
pub(super) fn peek(dir: &Path, key: &str) -> Option<LeaseRow> {
    let database = Database::open_to_read(dir, LOOK).ok()?;
    read(database.conn(), key).ok()?
}
