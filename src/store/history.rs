//! The table of gateways.

use super::clock::{Clocks, Stamp};
use super::column::{count, integer, number, pid, text};
use super::dating::Dating;
use super::record::GenerationRecord;
use crate::core::restart_policy::Cause;
use crate::core::{ExitStatus, Generation, History, Moment, PastRun, Settled, TreeRecord};
use rusqlite::{Connection, OptionalExtension, Row, Transaction, params};
use serde_json::{Value, json};
use std::time::Duration;

/// The gateways that the core learns of: no window of its policy reaches further.
const TOLD_AGE_MAX: Duration = Duration::from_hours(7 * 24);
const TOLD_MAX: u32 = 64;

/// The most gateways that are kept.
const ROWS_MAX: i64 = 256;

/// `offset` is added to its number.
pub(super) fn write(tx: &Transaction<'_>, record: &GenerationRecord, offset: u64) -> rusqlite::Result<()> {
    let wall = |stamp: Option<Stamp>| stamp.map(|stamp| stamp.wall_ms);
    let boot = |stamp: Option<Stamp>| stamp.and_then(|stamp| stamp.boot_ms);
    let (died, settled) = (record.died.map(|(_, at)| at), record.settled.map(|(_, at)| at));
    let (code, signal, core_dumped) = match record.died {
        Some((ExitStatus::Code(code), _)) => (Some(code), None, None),
        Some((ExitStatus::Signal { number, core_dumped }, _)) => (None, Some(number), Some(core_dumped)),
        Some((ExitStatus::Unknown, _)) | None => (None, None, None),
    };
    let (cause, clean) = match record.settled {
        Some((Settled::Ran(clean, cause), _)) => (Some(name_of(cause)), Some(clean)),
        Some((Settled::NeverStarted, _)) => (Some(UNBORN), None),
        Some((Settled::Postponed, _)) => (Some(POSTPONED), None),
        None => (None, None),
    };
    let members: Vec<_> = record.tree.members.iter().map(|(pid, start_time)| json!([pid, start_time])).collect();
    let units = record.tree.units.iter().map(|unit| json!(unit)).collect();
    tx.execute(
        "INSERT OR REPLACE INTO generations (number, instance, owner, command, boot_id, pid, start_time, process_group, \
         members, intent_at, intent_boot_ms, started_at, started_boot_ms, stable_at, stable_boot_ms, healthy_until, \
         healthy_until_boot_ms, died_at, died_boot_ms, died_code, died_signal, core_dumped, settled_at, \
         settled_boot_ms, cause, clean, pid_namespace, uid, units) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, \
         ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29)",
        params![
            number(record.generation.saturating_add(offset)),
            record.instance,
            record.owner,
            record.command,
            record.boot_id,
            record.pid,
            record.start_time.map(number),
            record.group,
            Value::Array(members).to_string(),
            wall(record.intent),
            boot(record.intent),
            wall(record.started),
            boot(record.started),
            wall(record.stable),
            boot(record.stable),
            wall(record.healthy_until),
            boot(record.healthy_until),
            wall(died),
            boot(died),
            code,
            signal,
            core_dumped,
            wall(settled),
            boot(settled),
            cause,
            clean,
            record.pid_namespace.map(number),
            record.tree.uid,
            Value::Array(units).to_string(),
        ],
    )
    .map(drop)
}

const UNBORN: &str = "unborn";
const POSTPONED: &str = "postponed";

fn name_of(cause: Cause) -> &'static str {
    match cause {
        Cause::Asked => "asked",
        Cause::CleanExit => "clean_exit",
        Cause::Memory => "memory",
        Cause::Failed => "failed",
    }
}

fn parse(row: &Row<'_>) -> GenerationRecord {
    let stamp =
        |wall: &str, boot: &str| integer(row, wall).map(|wall_ms| Stamp { wall_ms, boot_ms: integer(row, boot) });
    let small = |column: &str| integer(row, column).and_then(|number| i32::try_from(number).ok());
    let death = match (small("died_code"), small("died_signal")) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(number)) => ExitStatus::Signal { number, core_dumped: integer(row, "core_dumped") == Some(1) },
        (None, None) => ExitStatus::Unknown,
    };
    let clean = integer(row, "clean") == Some(1);
    let ending = match text(row, "cause").as_deref() {
        Some(UNBORN) => Settled::NeverStarted,
        Some(POSTPONED) => Settled::Postponed,
        Some("asked") => Settled::Ran(clean, Cause::Asked),
        Some("memory") => Settled::Ran(clean, Cause::Memory),
        Some("clean_exit") => Settled::Ran(clean, Cause::CleanExit),
        // An unknown cause counts as the worst.
        _ => Settled::Ran(clean, Cause::Failed),
    };
    GenerationRecord {
        generation: count(row, "number").unwrap_or(0),
        instance: text(row, "instance").unwrap_or_default(),
        owner: text(row, "owner").unwrap_or_default(),
        command: text(row, "command").unwrap_or_default(),
        boot_id: text(row, "boot_id"),
        pid: pid(row, "pid"),
        start_time: count(row, "start_time"),
        group: pid(row, "process_group"),
        pid_namespace: count(row, "pid_namespace"),
        tree: TreeRecord {
            members: text(row, "members").as_deref().map(members).unwrap_or_default(),
            uid: count(row, "uid").and_then(|uid| u32::try_from(uid).ok()),
            units: text(row, "units").and_then(|units| serde_json::from_str(&units).ok()).unwrap_or_default(),
        },
        intent: stamp("intent_at", "intent_boot_ms"),
        started: stamp("started_at", "started_boot_ms"),
        stable: stamp("stable_at", "stable_boot_ms"),
        healthy_until: stamp("healthy_until", "healthy_until_boot_ms"),
        died: stamp("died_at", "died_boot_ms").map(|at| (death, at)),
        settled: stamp("settled_at", "settled_boot_ms").map(|at| (ending, at)),
        is_unseen: false,
    }
}

/// The valid pairs of pid and start time in a JSON list.
fn members(text: &str) -> Vec<(i32, u64)> {
    let Ok(Value::Array(members)) = serde_json::from_str(text) else { return vec![] };
    let pair = |member: &Value| {
        let pid = i32::try_from(member.get(0)?.as_i64()?).ok().filter(|pid| *pid > 0)?;
        Some((pid, member.get(1)?.as_u64()?))
    };
    members.iter().filter_map(pair).collect()
}

/// One of them.
pub(super) fn read(conn: &Connection, generation: Generation) -> rusqlite::Result<Option<GenerationRecord>> {
    let sql = "SELECT * FROM generations WHERE number = ?1";
    conn.query_row(sql, [number(generation)], |row| Ok(parse(row))).optional()
}

/// The number of the youngest; 0 if there never was one.
pub(super) fn youngest(conn: &Connection) -> rusqlite::Result<Generation> {
    conn.query_row("SELECT max(number) AS number FROM generations", [], |row| Ok(count(row, "number").unwrap_or(0)))
}

/// Those without a readable end, the last first.
fn unsettled(conn: &Connection) -> rusqlite::Result<Vec<GenerationRecord>> {
    let sql = "SELECT * FROM generations WHERE number > 0 AND typeof(settled_at) <> 'integer' ORDER BY number DESC";
    conn.prepare(sql)?.query_map([], |row| Ok(parse(row)))?.collect()
}

/// What the core gets: the settled ones that can be dated, oldest first, and the last one without an end. An older one
/// without an end is over.
pub(super) fn past(conn: &Connection, clocks: &Clocks, now: Moment) -> rusqlite::Result<History> {
    let sql = "SELECT * FROM generations WHERE number > 0 ORDER BY number DESC LIMIT ?1";
    let mut records =
        conn.prepare(sql)?.query_map([TOLD_MAX], |row| Ok(parse(row)))?.collect::<rusqlite::Result<Vec<_>>>()?;
    let left = left(conn)?;
    let is_left = |record: &GenerationRecord| left.as_ref().is_some_and(|left| left.generation == record.generation);
    for record in records.iter_mut().filter(|record| record.settled.is_none() && !is_left(record)) {
        record.mark_over();
    }
    let readings: Vec<_> = records.iter().map(GenerationRecord::readings).collect();
    let dated = Dating::of(&readings, clocks, now);
    let is_told = |run: &PastRun| now.saturating_sub(run.spawned) <= TOLD_AGE_MAX;
    let settled = records.iter().zip(&dated).filter_map(|(record, dating)| record.past_run(dating.as_ref()));
    let mut runs: Vec<_> = settled.filter(is_told).collect();
    runs.reverse();
    let left = left.as_ref().map(|left| {
        let dating = records.iter().position(is_left).and_then(|index| dated[index].as_ref());
        left.left(dating, now)
    });
    Ok(History { generation: youngest(conn)?, runs, left })
}

/// The last one without a readable end, which may still be running.
pub(super) fn left(conn: &Connection) -> rusqlite::Result<Option<GenerationRecord>> {
    Ok(unsettled(conn)?.into_iter().next())
}

/// Settles all but the last one without an end, which may still be running.
pub(super) fn close_older(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    for record in unsettled(tx)?.into_iter().skip(1) {
        close(tx, record)?;
    }
    let sql = "DELETE FROM generations WHERE number <= (SELECT max(number) FROM generations) - ?1";
    tx.execute(sql, [ROWS_MAX]).map(drop)
}

/// Settles all of them.
pub(super) fn close_all(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    unsettled(tx)?.into_iter().try_for_each(|record| close(tx, record))
}

fn close(tx: &Transaction<'_>, mut record: GenerationRecord) -> rusqlite::Result<()> {
    record.mark_over();
    // A row without a readable stamp is useless.
    match record.settled {
        Some(_) => write(tx, &record, 0),
        None => tx.execute("DELETE FROM generations WHERE number = ?1", [number(record.generation)]).map(drop),
    }
}

#[cfg(test)]
mod tests {
    use super::super::clock::Patience;
    use super::super::schema::Database;
    use super::super::tests::{Scratch, TestClocks};
    use super::*;
    use crate::core::lease::Basis;
    use crate::core::restart_policy::Run;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn full(generation: Generation) -> GenerationRecord {
        let stamp = |wall_ms| Stamp { wall_ms, boot_ms: Some(wall_ms + 1) };
        GenerationRecord {
            generation,
            instance: "i".to_owned(),
            owner: "o".to_owned(),
            command: "node \"x\" \u{e9}".to_owned(),
            boot_id: Some("first".to_owned()),
            pid: Some(7),
            start_time: Some(8),
            group: Some(9),
            pid_namespace: Some(11),
            tree: TreeRecord {
                members: vec![(7, 8), (10, u64::from(u32::MAX))],
                uid: Some(12),
                units: ["/a.service".to_owned(), "/b.scope".to_owned()].into(),
            },
            intent: Some(stamp(1)),
            started: Some(stamp(2)),
            stable: Some(stamp(3)),
            healthy_until: Some(stamp(4)),
            died: Some((ExitStatus::Signal { number: 9, core_dumped: true }, stamp(5))),
            settled: Some((Settled::Ran(true, Cause::CleanExit), stamp(6))),
            is_unseen: false,
        }
    }

    fn with_tx(test: impl FnOnce(&Transaction<'_>)) {
        let scratch = Scratch::new();
        let patience = Patience::new(Duration::ZERO);
        let (database, _) = Database::open(scratch.path(), Basis::Lock, patience).unwrap();
        test(&database.begin(patience).unwrap());
    }

    #[test]
    fn a_record_comes_back_as_it_was_written() {
        with_tx(|tx| {
            let least = GenerationRecord { generation: 2, ..GenerationRecord::default() };
            for death in [ExitStatus::Code(3), ExitStatus::Unknown] {
                for ending in [Settled::NeverStarted, Settled::Postponed, Settled::Ran(false, Cause::Asked)] {
                    let at = Stamp { wall_ms: 3, boot_ms: None };
                    for record in
                        [full(1), GenerationRecord { died: Some((death, at)), settled: Some((ending, at)), ..full(1) }]
                    {
                        write(tx, &record, 0).unwrap();
                        assert_eq!(read(tx, 1).unwrap(), Some(record));
                    }
                }
            }
            write(tx, &least, 40).unwrap();
            assert_eq!(read(tx, 42).unwrap(), Some(GenerationRecord { generation: 42, ..least }));
            assert_eq!((read(tx, 2).unwrap(), youngest(tx).unwrap()), (None, 42));
        });
    }

    #[test]
    fn invalid_rows_are_skipped() {
        with_tx(|tx| {
            let watch = TestClocks::new();
            tx.execute_batch(
                "INSERT INTO generations (number) VALUES (-5), (0), (1), (9000);
                 INSERT INTO generations (number, settled_at, intent_at, cause) VALUES (2, 7, NULL, 'failed');
                 INSERT INTO generations (number, settled_at, intent_at, died_at, cause, clean, started_at)
                     VALUES (3, 7, 'x', x'00', 5.5, 'yes', -1);
                 INSERT INTO generations (number, instance, pid, start_time, members, intent_at, settled_at, boot_id)
                     VALUES (9001, x'ff', -4, -1, '[[0, 1], [5], 7, [6, 7], \"x\"', 'soon', 'never', x'03');",
            )
            .unwrap();
            close_older(tx).unwrap();
            let left = left(tx).unwrap().unwrap();
            assert_eq!(left, GenerationRecord { generation: 9001, ..GenerationRecord::default() });
            let past = past(tx, &watch.clocks(), s(5)).unwrap();
            assert_eq!((past.generation, past.runs), (9001, vec![]));
            assert_eq!(past.left.unwrap().spawned, s(5));
        });
        assert_eq!(members("[[0, 1], [5], 7, [6, 7], \"x\"]"), [(6, 7)]);
    }

    #[test]
    fn the_core_learns_of_the_last_week_within_a_bound() {
        with_tx(|tx| {
            let watch = TestClocks::new();
            let now = watch.clocks().now();
            for (number, age) in (1..=100).zip((0..100).rev()) {
                let at = now.before(Duration::from_hours(age * 2));
                let settled = Some((Settled::Ran(false, Cause::Failed), at));
                let record =
                    GenerationRecord { generation: number, intent: Some(at), settled, ..GenerationRecord::default() };
                write(tx, &record, 0).unwrap();
            }
            let told = past(tx, &watch.clocks(), Duration::from_hours(10_000)).unwrap();
            assert_eq!((told.runs.len(), told.generation, told.left), (64, 100, None));
            assert!(told.runs.is_sorted_by_key(|run| run.spawned), "oldest first");
            watch.go(Duration::from_hours(6 * 24));
            let told = past(tx, &watch.clocks(), Duration::from_hours(10_000)).unwrap();
            assert_eq!(told.runs.len(), 13);
        });
    }

    #[test]
    fn only_the_last_one_without_an_end_may_still_be_running() {
        with_tx(|tx| {
            let watch = TestClocks::new();
            let intent = Some(watch.clocks().now());
            watch.go(s(100));
            for generation in [3, 5, 6] {
                let boot_id = watch.clocks().boot_id;
                let record = GenerationRecord { generation, boot_id, intent, ..GenerationRecord::default() };
                write(tx, &record, 0).unwrap();
            }
            let settled = Some((Settled::NeverStarted, watch.clocks().now()));
            write(tx, &GenerationRecord { generation: 7, intent, settled, ..GenerationRecord::default() }, 0).unwrap();
            close_older(tx).unwrap();
            assert_eq!(left(tx).unwrap().unwrap().generation, 6);
            let told = past(tx, &watch.clocks(), s(1000)).unwrap();
            let run = Run { started: None, healthy_until: s(900), ended: s(900), clean: false };
            let over =
                PastRun { spawned: s(900), settled: Settled::Ran(run, Cause::Failed), death: ExitStatus::Unknown };
            assert_eq!(told.runs[..2], [over, over]);
            assert_eq!((told.runs.len(), told.runs[2].settled, told.generation), (3, Settled::NeverStarted, 7));
            assert_eq!(told.left.unwrap().generation, 6);
            close_all(tx).unwrap();
            assert_eq!(past(tx, &watch.clocks(), s(1000)).unwrap().left, None);
        });
    }

    #[test]
    fn old_gateways_are_removed() {
        with_tx(|tx| {
            for generation in 1..=ROWS_MAX.cast_unsigned() + 9 {
                write(tx, &full(generation), 0).unwrap();
            }
            close_older(tx).unwrap();
            assert_eq!(read(tx, 9).unwrap(), None);
            assert_eq!(read(tx, 10).unwrap(), Some(full(10)));
        });
    }
}
