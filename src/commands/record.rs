//! What `status` and `events` read from the store. No other command knows its schema.

use crate::core::Settled;
use crate::core::lease::Life;
use crate::platform::{machine, proc};
use crate::store::{EventRow, GenerationRecord, LeaseOwner, StoreError, StoreReader};
use serde_json::{Map, Value};
use std::path::Path;
use std::time::Duration;

/// An entry of the event log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) id: i64,
    pub(super) at_ms: i64,
    pub(super) name: String,
    /// As in the log; the generation, if any, first.
    pub(super) fields: Map<String, Value>,
}

/// The supervisor that took the lease last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastOwner {
    pub(super) pid: Option<i32>,
    pub(super) host: Option<String>,
    pub(super) epoch: u64,
    pub(super) since: Option<i64>,
    pub(super) released: bool,
    pub(super) life: Life,
    /// Where its gateway listens: the host as in a URL, and the port.
    pub(super) place: Option<(String, u16)>,
}

/// The latest gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordedGateway {
    pub(super) generation: u64,
    pub(super) pid: Option<i32>,
    /// Since its start was decided.
    pub(super) age: Option<Duration>,
    /// Whether its process is known to live.
    pub(super) alive: bool,
    /// Such as `with exit code 1`; `None` if no end is recorded.
    pub(super) end: Option<String>,
    pub(super) ended_at: Option<i64>,
}

/// An open store.
pub(super) struct StoreRecord(StoreReader);

impl StoreRecord {
    /// Opens it, if there is one.
    pub(super) fn open(store_dir: &Path) -> Result<Option<Self>, String> {
        StoreReader::open(store_dir).map(|reader| reader.map(Self)).map_err(|error| error.to_string())
    }

    /// The last `count` entries, oldest first.
    pub(super) fn last(&self, count: u32) -> Result<Vec<Entry>, String> {
        entries(self.0.events_last(count))
    }

    /// The first `limit` entries after the one with this id, oldest first.
    pub(super) fn after(&self, id: i64, limit: u32) -> Result<Vec<Entry>, String> {
        entries(self.0.events_after(id, limit))
    }

    /// What cannot be read is not known.
    pub(super) fn owner(&self) -> Option<LastOwner> {
        self.0.lease().ok().flatten().map(owner)
    }

    /// As above.
    pub(super) fn gateway(&self) -> Option<RecordedGateway> {
        self.0.youngest().ok().flatten().map(|record| self.judge(&record))
    }

    fn judge(&self, record: &GenerationRecord) -> RecordedGateway {
        let died = record.died.map(|(death, at)| (format!("with {death}"), at.wall_ms));
        let end = match (died, record.settled) {
            (Some(died), _) => Some(died),
            (None, Some((Settled::NeverStarted | Settled::Postponed, at))) => {
                Some(("before it had a process".to_owned(), at.wall_ms))
            }
            (None, Some((Settled::Ran(..), at))) => Some(("with an unknown status".to_owned(), at.wall_ms)),
            (None, None) => None,
        };
        RecordedGateway {
            generation: record.generation,
            pid: record.pid,
            age: record.intent.map(|at| self.0.age(record, at)),
            alive: end.is_none() && is_alive(record),
            ended_at: end.as_ref().map(|(_, at)| *at),
            end: end.map(|(how, _)| how),
        }
    }
}

/// Whether the process of its leader can be seen.
fn is_alive(record: &GenerationRecord) -> bool {
    let leads = |pid| proc::stat(pid).is_ok_and(|stat| !stat.is_dead() && Some(stat.start_time) == record.start_time);
    record.boot_id.is_some() && record.boot_id == machine::boot_id() && record.pid.is_some_and(leads)
}

fn entries(rows: Result<Vec<EventRow>, StoreError>) -> Result<Vec<Entry>, String> {
    rows.map(|rows| rows.into_iter().map(entry).collect()).map_err(|error| error.to_string())
}

fn entry(row: EventRow) -> Entry {
    let mut fields = Map::new();
    // The column counts: a supervisor that found another number in the store gave it there.
    if let Some(generation) = row.generation {
        fields.insert("generation".to_owned(), generation.into());
    }
    for (name, value) in serde_json::from_str::<Map<String, Value>>(&row.fields).unwrap_or_default() {
        fields.entry(name).or_insert(value);
    }
    Entry { id: row.id, at_ms: row.at_ms, name: row.name, fields }
}

fn owner(tenant: LeaseOwner) -> LastOwner {
    let LeaseOwner { row, alive: life, .. } = tenant;
    LastOwner {
        pid: row.identity.pid,
        host: row.identity.host,
        epoch: row.epoch,
        since: row.acquired_at,
        released: row.released,
        life,
        place: row.place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_the_column_counts_and_comes_first() {
        let row = |generation, fields: &str| EventRow {
            id: 1,
            at_ms: 2,
            name: "x".to_owned(),
            generation,
            fields: fields.to_owned(),
        };
        let text = |row| Value::Object(entry(row).fields).to_string();
        assert_eq!(text(row(Some(7), r#"{"pid":1,"generation":3}"#)), r#"{"generation":7,"pid":1}"#);
        assert_eq!(text(row(None, r#"{"pid":1}"#)), r#"{"pid":1}"#);
        assert_eq!(text(row(None, "nonsense")), "{}");
    }
}
