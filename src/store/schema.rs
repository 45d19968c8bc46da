//! The database: its settings, its tables and their migrations.

use super::clock::Patience;
use super::error::StoreError;
use super::folder::{DATABASE, FILE_MODE, FileId, database_of, tighten};
use super::image::{self, DatabaseImage};
use crate::core::lease::Basis;
use crate::platform::folder::Folder;
use crate::platform::sqlite;
use rusqlite::{Connection, OpenFlags, Transaction, TransactionBehavior};
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// `osup`: identifies our databases, also for file(1).
const APPLICATION_ID: i64 = 0x6f73_7570;

/// From each version to the next one. Version 0 is an empty database.
const MIGRATIONS: [&str; 3] = [
    "
    CREATE TABLE state_leases (
        scope TEXT, lease_key TEXT, owner TEXT, pid INTEGER, start_time INTEGER, boot_id TEXT, pid_namespace INTEGER,
        host TEXT, address TEXT, port INTEGER, epoch INTEGER, acquired_at INTEGER, heartbeat_at INTEGER, beat INTEGER,
        released_at INTEGER, version TEXT,
        PRIMARY KEY (scope, lease_key)
    ) WITHOUT ROWID;
    CREATE TABLE generations (
        number INTEGER PRIMARY KEY, instance TEXT, owner TEXT, command TEXT, boot_id TEXT,
        pid INTEGER, start_time INTEGER, process_group INTEGER, members TEXT,
        intent_at INTEGER, intent_boot_ms INTEGER, started_at INTEGER, started_boot_ms INTEGER,
        stable_at INTEGER, stable_boot_ms INTEGER, healthy_until INTEGER, healthy_until_boot_ms INTEGER,
        died_at INTEGER, died_boot_ms INTEGER, died_code INTEGER, died_signal INTEGER, core_dumped INTEGER,
        settled_at INTEGER, settled_boot_ms INTEGER, cause TEXT, clean INTEGER
    );
    CREATE TABLE events (id INTEGER PRIMARY KEY, at_ms INTEGER, name TEXT, generation INTEGER, fields TEXT);
",
    "
    ALTER TABLE state_leases ADD COLUMN basis TEXT;
",
    "
    ALTER TABLE generations ADD COLUMN pid_namespace INTEGER;
    ALTER TABLE generations ADD COLUMN uid INTEGER;
    ALTER TABLE generations ADD COLUMN units TEXT;
",
];

/// The version that this program writes.
pub(super) const VERSION: i64 = 3;

/// In bytes. A record is far smaller than a page, so small pages take the least memory. An existing database keeps its size.
const PAGE: i64 = 1024;

/// Pages kept in memory, in addition to those that a transaction has changed.
const CACHE: i64 = 16;

/// Pages in the log that trigger a checkpoint. The start after a crash reads all of them.
const CHECKPOINT_PAGES: i64 = 1000;

/// How long an empty file that another supervisor has just made is left to it.
const SETTLING: Duration = Duration::from_millis(200);

const READ_ONLY: OpenFlags = OpenFlags::SQLITE_OPEN_READ_ONLY.union(OpenFlags::SQLITE_OPEN_NO_MUTEX);

/// See `PRAGMA wal_checkpoint`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Checkpoint {
    Passive,
    Truncate,
}

/// An open database.
#[derive(Debug)]
pub(super) struct Database {
    conn: Connection,
    path: PathBuf,
    id: Option<FileId>,
    /// What it was made for.
    pub(super) basis: Basis,
}

impl Database {
    /// Opens the database for writing, and creates it if needed. One of the other kind is refused: see [`DatabaseImage`]. The text is
    /// a warning.
    pub(super) fn open(dir: &Path, basis: Basis, patience: Patience) -> Result<(Self, Option<String>), StoreError> {
        let path = database_of(dir);
        let inspect = |error| StoreError::file("inspect", &path, "check the directory and its file system")(error);
        let folder = Folder::open(dir).map_err(|error| inspect(error.into()))?;
        // SQLite would apply the umask. Its other files inherit the mode of this one.
        let is_made = match folder.create_file(DATABASE) {
            Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                return Err(StoreError::file("create", &path, "check the permissions of the directory")(error));
            }
            made => made.is_ok(),
        };
        let meta = folder.meta_of(DATABASE).map_err(inspect)?;
        if !meta.is_file() {
            return Err(inspect(io::Error::other("it is not a regular file, and may lead elsewhere")));
        }
        let kind = known_kind(&path, is_made, basis, patience)?;
        let meta = folder.meta_of(DATABASE).map_err(inspect)?;
        let warning = tighten(&folder, DATABASE, FILE_MODE);
        sqlite::keep_small();
        // SQLite takes no descriptor of a directory: it gets a path without links, and refuses any.
        let real = folder.real_path().map_err(inspect)?.join(DATABASE);
        let flags =
            OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_NOFOLLOW;
        let conn = Connection::open_with_flags(&real, flags).map_err(StoreError::sqlite("open", &path))?;
        // It has read nothing yet: only now is it certain which file it has.
        if FileId::at(&real).map_err(inspect)? != Some(FileId::of(&meta)) {
            return Err(inspect(io::Error::other("another file has taken its place")));
        }
        let database = Self { conn, path, id: Some(FileId::of(&meta)), basis };
        if kind.is_some_and(|known| database.id != Some(known)) {
            return Err(StoreError::OtherKind { path: database.path });
        }
        database.set_up(basis, meta.len() == 0, patience).map_err(|error| database.error("open")(error))?;
        database.refuse_other_databases()?;
        if kind.is_none() {
            database.choose_journal(patience).map_err(|error| database.error("open")(error))?;
        }
        database.conn.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES).map_err(database.error("open"))?;
        if basis == Basis::Lock && is_empty(&database.log()) {
            // The first commit to a log calls fsync, so that remains of an older log are not read as part of it. There are
            // none, and the start waits for the lease.
            database.set_synchronous("OFF")?;
        }
        Ok((database, warning))
    }

    /// Opens what was read of a database.
    pub(super) fn of_image(image: &DatabaseImage) -> Result<Self, StoreError> {
        let (path, bytes) = (image.path().to_owned(), image.bytes());
        sqlite::keep_small();
        let open = || {
            let mut conn = Connection::open_in_memory()?;
            conn.deserialize_read_exact("main", bytes, bytes.len(), true)?;
            Ok(conn)
        };
        let conn = open().map_err(StoreError::sqlite("read", &path))?;
        let database = Self { conn, path, id: None, basis: image.basis };
        database.refuse_other_databases().map(|()| database)
    }

    /// Opens an existing database for reading. `sees`: as for [`crate::core::lease::rule`].
    pub(super) fn open_to_read(dir: &Path, wait: Duration, sees: Basis) -> Result<Self, StoreError> {
        if let Some(image) = DatabaseImage::of_unshared(dir, sees)? {
            return Self::of_image(&image);
        }
        let path = database_of(dir);
        match Self::open_as(&path, &path, READ_ONLY, wait) {
            // In a read-only directory the log cannot be opened, even if it is empty.
            Err(StoreError::Sqlite { .. }) if is_read_only(dir) && is_empty(&log_of(&path)) => {
                Self::open_as(&path, &immutable(&path), READ_ONLY | OpenFlags::SQLITE_OPEN_URI, wait)
            }
            opened => opened,
        }
    }

    /// The same where nothing can be written, not even the index of the log: on a full disk, over a quota, on a disk that
    /// fails. The lock of the lease has to be ours, for then no process writes to it.
    pub(super) fn open_unwritable(dir: &Path, wait: Duration) -> Result<Self, StoreError> {
        match Self::open_to_read(dir, wait, Basis::Lock) {
            Err(error) => Self::of_image(&DatabaseImage::of_any(dir)?.ok_or(error)?),
            opened => opened,
        }
    }

    fn open_as(path: &Path, name: &Path, flags: OpenFlags, wait: Duration) -> Result<Self, StoreError> {
        sqlite::keep_small();
        let conn = Connection::open_with_flags(name, flags).map_err(StoreError::sqlite("open", path))?;
        let database = Self { conn, path: path.to_owned(), id: None, basis: Basis::Lock };
        database.wait(wait).map_err(|error| database.error("open")(error))?;
        database.refuse_other_databases().map(|()| database)
    }

    fn set_up(&self, basis: Basis, is_new: bool, patience: Patience) -> rusqlite::Result<()> {
        self.wait(patience.left())?;
        self.conn.pragma_update(None, "page_size", PAGE)?;
        self.conn.pragma_update(None, "cache_size", CACHE)?;
        self.conn.pragma_update(None, "trusted_schema", false)?;
        // A new file has nothing to lose in a power failure.
        let synchronous = if is_new && basis == Basis::Lock { "OFF" } else { "NORMAL" };
        self.conn.pragma_update(None, "synchronous", synchronous)
    }

    fn choose_journal(&self, patience: Patience) -> rusqlite::Result<()> {
        // WAL needs memory shared between all processes that have the database open, so they must run on one machine.
        let mode = match self.basis {
            Basis::Lock => "WAL",
            Basis::Heartbeat => "DELETE",
        };
        self.wait(patience.left())?;
        self.conn.pragma_update_and_check(None, "journal_mode", mode, |_| Ok(()))
    }

    fn refuse_other_databases(&self) -> Result<(), StoreError> {
        let pragma = |name| self.conn.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let found = pragma("user_version").map_err(self.error("read"))?;
        let application = pragma("application_id").map_err(self.error("read"))?;
        if application != 0 && application != APPLICATION_ID {
            return Err(StoreError::OtherProgram { path: self.path.clone(), found: application });
        }
        if found <= VERSION {
            return Ok(());
        }
        let by = "SELECT version FROM state_leases WHERE version IS NOT NULL ORDER BY acquired_at DESC LIMIT 1";
        let by = self.conn.query_row(by, [], |row| row.get(0)).unwrap_or_else(|_| "of a later version".to_owned());
        Err(StoreError::Newer { path: self.path.clone(), found, by, us: env!("CARGO_PKG_VERSION"), known: VERSION })
    }

    /// Begins to write, with the migrations in the same transaction.
    pub(super) fn begin(&self, patience: Patience) -> Result<Transaction<'_>, StoreError> {
        let begin = || {
            self.wait(patience.left())?;
            let tx = Transaction::new_unchecked(&self.conn, TransactionBehavior::Immediate)?;
            migrate(&tx)?;
            Ok(tx)
        };
        begin().map_err(self.error("write"))
    }

    /// Whether it was never written.
    pub(super) fn is_empty(&self) -> Result<bool, StoreError> {
        let version: i64 =
            self.conn.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(self.error("read"))?;
        Ok(version == 0)
    }

    /// How long `SQLite` waits for the locks of other processes.
    pub(super) fn wait(&self, wait: Duration) -> rusqlite::Result<()> {
        self.conn.busy_timeout(wait)
    }

    /// To be called after the first commit: from then on a power failure does not corrupt the database.
    pub(super) fn settle(&self) -> Result<(), StoreError> {
        self.set_synchronous("NORMAL")
    }

    fn set_synchronous(&self, mode: &str) -> Result<(), StoreError> {
        self.conn.pragma_update(None, "synchronous", mode).map_err(self.error("write"))
    }

    /// Moves the log into the database. The first commit after this waits for the disk.
    pub(super) fn checkpoint(&self, mode: Checkpoint) -> Result<(), StoreError> {
        let mode = match mode {
            Checkpoint::Passive => "PASSIVE",
            Checkpoint::Truncate => "TRUNCATE",
        };
        self.conn.pragma_update_and_check(None, "wal_checkpoint", mode, |_| Ok(())).map_err(self.error("write"))
    }

    fn log(&self) -> PathBuf {
        log_of(&self.path)
    }

    /// Whether the open file is still the one that others would open.
    pub(super) fn is_in_place(&self) -> io::Result<bool> {
        Ok(self.id.is_some() && FileId::at(&self.path)? == self.id)
    }

    pub(super) fn id(&self) -> Option<FileId> {
        self.id
    }

    pub(super) fn conn(&self) -> &Connection {
        &self.conn
    }

    pub(super) fn error(&self, doing: &'static str) -> impl FnOnce(rusqlite::Error) -> StoreError {
        StoreError::sqlite(doing, &self.path)
    }
}

/// The file to open, if there is one that has a kind already. `is_made`: we have just made it.
fn known_kind(path: &Path, is_made: bool, basis: Basis, patience: Patience) -> Result<Option<FileId>, StoreError> {
    let mut kind = image::kind(path)?;
    if kind.is_none() && !is_made && is_empty(path) {
        patience.pause(SETTLING);
        kind = image::kind(path)?;
    }
    match kind {
        Some(kind) if kind.basis != basis => Err(StoreError::OtherKind { path: path.to_owned() }),
        Some(kind) => {
            // Left by a crash between the two steps of a replacement.
            if basis == Basis::Heartbeat && !is_empty(&log_of(path)) {
                let advice = "check the permissions of the directory";
                image::remove_logs(path).map_err(StoreError::file("remove the old log of", path, advice))?;
            }
            Ok(Some(kind.id))
        }
        None => Ok(None),
    }
}

fn migrate(tx: &Transaction<'_>) -> rusqlite::Result<()> {
    let found: i64 = tx.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let from = usize::try_from(found).unwrap_or(0);
    if from >= MIGRATIONS.len() {
        return Ok(());
    }
    for migration in &MIGRATIONS[from..] {
        tx.execute_batch(migration)?;
    }
    tx.pragma_update(None, "application_id", APPLICATION_ID)?;
    tx.pragma_update(None, "user_version", VERSION)
}

fn log_of(database: &Path) -> PathBuf {
    database.with_extension("sqlite-wal")
}

fn is_empty(path: &Path) -> bool {
    fs::metadata(path).map_or(0, |meta| meta.len()) == 0
}

fn is_read_only(dir: &Path) -> bool {
    rustix::fs::access(dir, rustix::fs::Access::WRITE_OK).is_err()
}

/// The name under which `SQLite` reads a file without locks and log, see <https://www.sqlite.org/uri.html>.
fn immutable(path: &Path) -> PathBuf {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte);
    let bytes = path.as_os_str().as_encoded_bytes().iter();
    let name: String =
        bytes.map(|&byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02x}") }).collect();
    PathBuf::from(format!("file:{name}?immutable=1"))
}

#[cfg(test)]
mod tests {
    use super::super::lease;
    use super::super::tests::Scratch;
    use super::*;
    use std::os::unix::fs::MetadataExt;

    const NO_WAIT: Duration = Duration::ZERO;

    fn open(dir: &Path, basis: Basis) -> Result<Database, StoreError> {
        Database::open(dir, basis, Patience::new(NO_WAIT)).map(|(database, warning)| {
            assert_eq!(warning, None);
            database
        })
    }

    fn pragma<T: rusqlite::types::FromSql>(database: &Database, name: &str) -> T {
        database.conn.pragma_query_value(None, name, |row| row.get(0)).unwrap()
    }

    fn tables(database: &Database) -> Vec<String> {
        let sql = "SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name";
        database.conn.prepare(sql).unwrap().query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    }

    #[test]
    fn the_version_counts_the_migrations() {
        assert_eq!(usize::try_from(VERSION), Ok(MIGRATIONS.len()));
    }

    #[test]
    fn a_new_database_is_private_and_has_all_tables_after_the_first_transaction() {
        let scratch = Scratch::new();
        let database = open(scratch.path(), Basis::Lock).unwrap();
        assert!(database.is_empty().unwrap());
        database.begin(Patience::new(NO_WAIT)).unwrap().commit().unwrap();
        database.settle().unwrap();
        assert!(!database.is_empty().unwrap());
        assert_eq!(tables(&database), ["events", "generations", "state_leases"]);
        assert_eq!(pragma::<i64>(&database, "application_id"), APPLICATION_ID);
        assert_eq!(pragma::<String>(&database, "journal_mode"), "wal");
        assert_eq!(pragma::<i64>(&database, "synchronous"), 1);
        for name in ["supervise.sqlite", "supervise.sqlite-wal", "supervise.sqlite-shm"] {
            assert_eq!(fs::metadata(scratch.path().join(name)).unwrap().mode() & 0o777, FILE_MODE, "{name}");
        }
    }

    #[test]
    fn the_journal_mode_of_a_database_never_changes() {
        for (basis, other, mode) in [(Basis::Lock, Basis::Heartbeat, "wal"), (Basis::Heartbeat, Basis::Lock, "delete")]
        {
            let scratch = Scratch::new();
            let database = open(scratch.path(), basis).unwrap();
            database.begin(Patience::new(NO_WAIT)).unwrap().commit().unwrap();
            drop(database);
            assert!(matches!(open(scratch.path(), other), Err(StoreError::OtherKind { .. })));
            assert_eq!(pragma::<String>(&open(scratch.path(), basis).unwrap(), "journal_mode"), mode);
            let image = DatabaseImage::of_other_kind(scratch.path(), other).unwrap().unwrap();
            image.install(other).unwrap();
            assert!(!open(scratch.path(), other).unwrap().is_empty().unwrap(), "its content is in a new file");
        }
    }

    #[test]
    fn an_image_has_what_the_log_has_and_not_what_is_being_written() {
        for (basis, other) in [(Basis::Lock, Basis::Heartbeat), (Basis::Heartbeat, Basis::Lock)] {
            let scratch = Scratch::new();
            let database = open(scratch.path(), basis).unwrap();
            let write = |text: String| {
                let tx = database.begin(Patience::new(NO_WAIT)).unwrap();
                tx.execute("INSERT INTO events (name) VALUES (?1)", [text]).unwrap();
                tx
            };
            for number in 0..40 {
                write(format!("{number}").repeat(200)).commit().unwrap();
            }
            database.conn.pragma_update(None, "cache_spill", 1).unwrap();
            let going_on = write("x".repeat(100_000));
            let image = DatabaseImage::of_other_kind(scratch.path(), other).unwrap().unwrap();
            let read = Database::of_image(&image).unwrap();
            let sql = "SELECT count(*) FROM events WHERE name NOT LIKE '%x%'";
            assert_eq!(read.conn.query_row(sql, [], |row| row.get::<_, i64>(0)), Ok(40), "{basis:?}");
            assert_eq!(read.conn.query_row("SELECT max(id) FROM events", [], |row| row.get::<_, i64>(0)), Ok(40));
            let sound = read.conn.pragma_query_value(None, "integrity_check", |row| row.get::<_, String>(0));
            assert_eq!(sound.as_deref(), Ok("ok"), "{basis:?}");
            drop(going_on);
        }
    }

    #[test]
    fn a_row_of_version_1_is_held_on_what_its_database_was_made_for() {
        for (basis, other) in [(Basis::Lock, Basis::Heartbeat), (Basis::Heartbeat, Basis::Lock)] {
            let scratch = Scratch::new();
            let database = open(scratch.path(), basis).unwrap();
            database.conn.execute_batch(MIGRATIONS[0]).unwrap();
            let row = "INSERT INTO state_leases (scope, lease_key, owner) VALUES ('gateway_locks', 'k', 'o'); \
                       PRAGMA user_version = 1";
            database.conn.execute_batch(row).unwrap();
            let of = |database: &Database| lease::read(database.conn(), "k", database.basis).unwrap().unwrap().basis;
            assert_eq!(of(&database), basis);
            let image = DatabaseImage::of_other_kind(scratch.path(), other).unwrap().unwrap();
            assert_eq!(of(&Database::of_image(&image).unwrap()), basis);
            database.begin(Patience::new(NO_WAIT)).unwrap().commit().unwrap();
            assert_eq!(of(&database), basis, "migrated");
        }
    }

    #[test]
    fn an_older_database_is_migrated_and_keeps_its_other_tables() {
        let scratch = Scratch::new();
        let path = database_of(scratch.path());
        let old = Connection::open(&path).unwrap();
        old.execute_batch(
            "PRAGMA journal_mode = WAL; CREATE TABLE of_version_0 (a); INSERT INTO of_version_0 VALUES (7)",
        )
        .unwrap();
        drop(old);
        let database = open(scratch.path(), Basis::Lock).unwrap();
        drop(database.begin(Patience::new(NO_WAIT)).unwrap());
        assert_eq!(tables(&database), ["of_version_0"], "nothing happens without a commit");
        database.begin(Patience::new(NO_WAIT)).unwrap().commit().unwrap();
        assert_eq!(pragma::<i64>(&database, "user_version"), VERSION);
        assert_eq!(tables(&database), ["events", "generations", "of_version_0", "state_leases"]);
        database.begin(Patience::new(NO_WAIT)).unwrap().commit().unwrap();
    }

    #[test]
    fn a_newer_database_is_refused_and_not_changed() {
        let scratch = Scratch::new();
        let path = database_of(scratch.path());
        let newer = Connection::open(&path).unwrap();
        newer
            .execute_batch(
                "CREATE TABLE state_leases (version, acquired_at); INSERT INTO state_leases VALUES ('9.8.7', 1); \
                 PRAGMA user_version = 7",
            )
            .unwrap();
        drop(newer);
        let before = fs::read(&path).unwrap();
        for error in
            [open(scratch.path(), Basis::Heartbeat), Database::open_to_read(scratch.path(), NO_WAIT, Basis::Heartbeat)]
        {
            let text = error.unwrap_err().to_string();
            assert!(text.contains("schema version 7 (written by openclaw-supervise 9.8.7)"), "{text}");
        }
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn the_database_of_another_program_is_refused() {
        let scratch = Scratch::new();
        let other = Connection::open(database_of(scratch.path())).unwrap();
        other.execute_batch("CREATE TABLE a (b); PRAGMA application_id = 77").unwrap();
        drop(other);
        assert!(matches!(open(scratch.path(), Basis::Heartbeat), Err(StoreError::OtherProgram { found: 77, .. })));
    }

    #[test]
    fn a_link_and_a_fifo_are_no_database() {
        let scratch = Scratch::new();
        let (path, precious) = (database_of(scratch.path()), scratch.path().join("precious"));
        Connection::open(&precious).unwrap().execute_batch("CREATE TABLE a (b)").unwrap();
        let before = fs::read(&precious).unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert!(open(scratch.path(), Basis::Lock).unwrap_err().to_string().contains("not a regular file"));
        assert_eq!(fs::read(&precious).unwrap(), before);
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(open(scratch.path(), Basis::Lock).is_err());
        assert!(super::super::StoreReader::open(scratch.path()).is_err());
    }

    #[test]
    fn special_characters_in_a_path_are_escaped_for_a_uri() {
        let scratch = Scratch::new();
        let dir = scratch.path().join("a?b #%\u{e9}");
        fs::create_dir(&dir).unwrap();
        let path = database_of(&dir);
        open(&dir, Basis::Heartbeat).unwrap().begin(Patience::new(NO_WAIT)).unwrap().commit().unwrap();
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
        let conn = Connection::open_with_flags(immutable(&path), flags).unwrap();
        assert_eq!(conn.query_row("SELECT count(*) FROM events", [], |row| row.get::<_, i64>(0)), Ok(0));
    }
}
