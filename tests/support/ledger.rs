//! The store of a scene, to look into and to spoil.

use super::{PATIENCE, Scene, wait_for};
use rusqlite::{Connection, params};
use std::fs;
use std::path::PathBuf;

/// The database of a scene's store.
pub(crate) struct Ledger {
    path: PathBuf,
}

/// Blocks all other writers until it is dropped.
pub(crate) struct Blockade {
    _conn: Connection,
}

impl Ledger {
    pub(crate) fn of(scene: &Scene) -> Self {
        Self { path: scene.store_dir().join("supervise.sqlite") }
    }

    /// A copy of what the process of that pid sees in its own mount namespace. `SQLite` itself would follow the link
    /// `/proc/PID/root` to where it seems to lead: to our own root.
    pub(crate) fn copied_from(pid: i32, scene: &Scene) -> Self {
        let own = scene.store_dir();
        let there = PathBuf::from(format!("/proc/{pid}/root")).join(own.strip_prefix("/").expect("it is absolute"));
        let copy = scene.root().join("seen-inside");
        fs::create_dir_all(&copy).expect("a folder can be made");
        for name in ["supervise.sqlite", "supervise.sqlite-wal"] {
            fs::copy(there.join(name), copy.join(name)).expect("the store can be copied");
        }
        Self { path: copy.join("supervise.sqlite") }
    }

    pub(crate) fn path(&self) -> &PathBuf {
        &self.path
    }

    fn open(&self) -> Connection {
        let conn = Connection::open(&self.path).expect("the store can be opened");
        conn.busy_timeout(PATIENCE).expect("a timeout can be set");
        conn
    }

    /// Runs one statement that changes something.
    pub(crate) fn change(&self, sql: &str) {
        let rows = self.open().execute(sql, params![]).unwrap_or_else(|error| panic!("{sql}: {error}"));
        assert!(rows > 0, "{sql} changed nothing");
    }

    /// Runs any statements.
    pub(crate) fn run(&self, sql: &str) {
        self.open().execute_batch(sql).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }

    /// Locks it, as a backup tool may do.
    pub(crate) fn block(&self) -> Blockade {
        let conn = self.open();
        conn.execute_batch("BEGIN EXCLUSIVE").expect("the store can be locked");
        Blockade { _conn: conn }
    }

    /// One number.
    pub(crate) fn number(&self, sql: &str) -> i64 {
        self.open().query_row(sql, params![], |row| row.get(0)).unwrap_or_else(|error| panic!("{sql}: {error}"))
    }

    /// Waits until a question is answered by this number: records are written beside the supervisor's work.
    pub(crate) fn wait_number(&self, sql: &str, expected: i64) {
        let look = || (self.number(sql) == expected).then_some(());
        wait_for(&format!("{expected} from {sql}"), PATIENCE, || format!("it is {}", self.number(sql)), look);
    }
}
