//! The table of events.

use super::column::{count, integer, number, text};
use crate::core::Generation;
use rusqlite::{Connection, Transaction, params};
use std::time::Duration;

/// The most events that are kept, and for how long.
const ROWS_MAX: i64 = 10_000;
const AGE_MAX: Duration = Duration::from_hours(30 * 24);

/// No more than this counts between two events: a clock that is ahead once makes nothing old.
const STEP_MAX: i64 = 24 * 3_600_000;

/// How many new events trigger a pruning.
pub(super) const PRUNE_EVERY: u32 = 256;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRow {
    /// Never reused.
    pub id: i64,
    /// Milliseconds since 1970.
    pub at_ms: i64,
    pub name: String,
    pub generation: Option<Generation>,
    /// A JSON object.
    pub fields: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NewEvent {
    pub(super) at_ms: i64,
    pub(super) name: String,
    pub(super) generation: Option<Generation>,
    pub(super) fields: String,
}

pub(super) fn insert(tx: &Transaction<'_>, entry: &NewEvent, offset: u64) -> rusqlite::Result<()> {
    let generation = entry.generation.map(|generation| number(generation.saturating_add(offset)));
    let sql = "INSERT INTO events (at_ms, name, generation, fields) VALUES (?1, ?2, ?3, ?4)";
    tx.execute(sql, params![entry.at_ms, entry.name, generation, entry.fields]).map(drop)
}

/// Removes old and surplus events. The last one stays, so that no id is reused.
pub(super) fn prune(tx: &Transaction<'_>, wall_ms: i64) -> rusqlite::Result<()> {
    let surplus = "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - ?1";
    tx.execute(surplus, [ROWS_MAX])?;
    if let Some(old) = youngest_old(tx, wall_ms)? {
        tx.execute("DELETE FROM events WHERE id <= ?1", [old])?;
    }
    Ok(())
}

/// The youngest event that is older than [`AGE_MAX`] by the steps from each to the next one. A log with fewer than one event
/// a day is kept for longer; the number is bounded in any case.
fn youngest_old(tx: &Transaction<'_>, wall_ms: i64) -> rusqlite::Result<Option<i64>> {
    let most = i64::try_from(AGE_MAX.as_millis()).unwrap_or(i64::MAX);
    let oldest: Option<i64> =
        tx.query_row("SELECT min(at_ms) FROM events WHERE typeof(at_ms) = 'integer'", [], |row| row.get(0))?;
    if oldest.is_none_or(|at| wall_ms.saturating_sub(at) < most) {
        return Ok(None);
    }
    let mut statement = tx.prepare("SELECT id, at_ms FROM events WHERE typeof(at_ms) = 'integer' ORDER BY id DESC")?;
    let mut rows = statement.query([])?;
    let (mut later, mut age) = (wall_ms, 0_i64);
    while let Some(row) = rows.next()? {
        let (id, at): (i64, i64) = (row.get(0)?, row.get(1)?);
        age = age.saturating_add(later.saturating_sub(at).clamp(0, STEP_MAX));
        if age >= most {
            return Ok(Some(id));
        }
        later = at;
    }
    Ok(None)
}

/// The last `limit` events, oldest first.
pub(super) fn last(conn: &Connection, limit: u32) -> rusqlite::Result<Vec<EventRow>> {
    let sql = "SELECT * FROM events WHERE id > ?1 ORDER BY id DESC LIMIT ?2";
    let mut rows = query(conn, sql, i64::MIN, limit)?;
    rows.reverse();
    Ok(rows)
}

/// The first `limit` events after this id, oldest first.
pub(super) fn after(conn: &Connection, id: i64, limit: u32) -> rusqlite::Result<Vec<EventRow>> {
    query(conn, "SELECT * FROM events WHERE id > ?1 ORDER BY id LIMIT ?2", id, limit)
}

fn query(conn: &Connection, sql: &str, id: i64, limit: u32) -> rusqlite::Result<Vec<EventRow>> {
    let mut statement = conn.prepare(sql)?;
    let rows = statement.query_map(params![id, limit], |row| {
        Ok(EventRow {
            id: integer(row, "id").unwrap_or(0),
            at_ms: integer(row, "at_ms").unwrap_or(0),
            name: text(row, "name").unwrap_or_default(),
            generation: count(row, "generation"),
            fields: text(row, "fields").filter(|text| is_object(text)).unwrap_or_else(|| "{}".to_owned()),
        })
    })?;
    rows.collect()
}

fn is_object(text: &str) -> bool {
    serde_json::from_str::<serde_json::Map<_, _>>(text).is_ok()
}

#[cfg(test)]
mod tests {
    use super::super::clock::Patience;
    use super::super::schema::Database;
    use super::super::tests::Scratch;
    use super::*;
    use crate::core::lease::Basis;

    const DAY_MS: i64 = 24 * 3_600_000;

    fn database(scratch: &Scratch) -> Database {
        Database::open(scratch.path(), Basis::Lock, Patience::new(Duration::ZERO)).unwrap().0
    }

    fn add(tx: &Transaction<'_>, count: i64, at_ms: i64) {
        for number in 0..count {
            let entry = NewEvent { at_ms, name: format!("a.{number}"), generation: Some(3), fields: "{}".to_owned() };
            insert(tx, &entry, 2).unwrap();
        }
    }

    fn ids(rows: &[EventRow]) -> Vec<i64> {
        rows.iter().map(|row| row.id).collect()
    }

    #[test]
    fn both_ends_of_the_log_are_read_oldest_first() {
        let scratch = Scratch::new();
        let database = database(&scratch);
        let tx = database.begin(Patience::new(Duration::ZERO)).unwrap();
        add(&tx, 5, 7);
        assert_eq!(ids(&last(&tx, 2).unwrap()), [4, 5]);
        assert_eq!(ids(&after(&tx, 2, 2).unwrap()), [3, 4]);
        assert_eq!(ids(&after(&tx, 5, 2).unwrap()), Vec::<i64>::new());
        let expected =
            EventRow { id: 1, at_ms: 7, name: "a.0".to_owned(), generation: Some(5), fields: "{}".to_owned() };
        assert_eq!(after(&tx, 0, 1).unwrap(), [expected]);
    }

    #[test]
    fn a_row_without_sense_is_an_empty_one() {
        let scratch = Scratch::new();
        let database = database(&scratch);
        let tx = database.begin(Patience::new(Duration::ZERO)).unwrap();
        tx.execute_batch("INSERT INTO events VALUES (1, 'x', x'ff', -1, NULL), (2, NULL, NULL, NULL, 7)").unwrap();
        for row in last(&tx, 9).unwrap() {
            assert_eq!((row.at_ms, &*row.name, row.generation, &*row.fields), (0, "", None, "{}"));
        }
        prune(&tx, 40 * DAY_MS).unwrap();
    }

    #[test]
    fn the_old_and_the_surplus_go_and_an_id_is_never_given_twice() {
        let scratch = Scratch::new();
        let database = database(&scratch);
        let tx = database.begin(Patience::new(Duration::ZERO)).unwrap();
        for day in 0..40 {
            add(&tx, 1, day * DAY_MS);
        }
        prune(&tx, 40 * DAY_MS).unwrap();
        assert_eq!(ids(&last(&tx, 1).unwrap()), [40]);
        assert_eq!(last(&tx, 99).unwrap()[0].id, 12, "from day 11 on");
        prune(&tx, 40 * DAY_MS).unwrap();
        assert_eq!(last(&tx, 99).unwrap().len(), 29);
        add(&tx, ROWS_MAX + 5, 99 * DAY_MS);
        prune(&tx, 99 * DAY_MS).unwrap();
        let all = last(&tx, u32::MAX).unwrap();
        assert_eq!((all.len(), all[0].id), (10_000, 46));
    }

    #[test]
    fn a_clock_that_was_ahead_once_costs_no_event() {
        let scratch = Scratch::new();
        let database = database(&scratch);
        let tx = database.begin(Patience::new(Duration::ZERO)).unwrap();
        add(&tx, 5, DAY_MS);
        prune(&tx, 4000 * DAY_MS).unwrap();
        add(&tx, 2, 4000 * DAY_MS);
        prune(&tx, 4000 * DAY_MS + 7).unwrap();
        add(&tx, 2, 2 * DAY_MS);
        prune(&tx, 2 * DAY_MS).unwrap();
        assert_eq!(last(&tx, 99).unwrap().len(), 9);
    }
}
