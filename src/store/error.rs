//! What can go wrong with the store.

use rusqlite::ErrorCode;
use std::io;
use std::path::{Path, PathBuf};

/// Why the store cannot be had, read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A file or folder of it.
    #[error("cannot {doing} {}: {source}; {advice}", path.display())]
    File {
        /// A verb.
        doing: &'static str,
        /// Which one.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
        /// What to do.
        advice: &'static str,
    },
    /// The folder belongs to somebody else.
    #[error(
        "the store folder {} belongs to user {owner} and we are user {us}; run as that user, chown the folder, or choose \
         another one with --store-dir", path.display()
    )]
    OtherUser {
        /// The folder.
        path: PathBuf,
        /// Its owner.
        owner: u32,
        /// Our effective user.
        us: u32,
    },
    /// A later version of this program wrote it.
    #[error(
        "the store {} has schema version {found} (written by openclaw-supervise {by}) and this is openclaw-supervise {us}, \
         which knows versions up to {known}; install that version or a later one, or move the file away", path.display()
    )]
    Newer {
        /// The database.
        path: PathBuf,
        /// Its version.
        found: i64,
        /// The program that wrote it.
        by: String,
        /// Our program's version.
        us: &'static str,
        /// Our schema's version.
        known: i64,
    },
    /// It is a database, but not one of ours.
    #[error("{} is the database of another program (application id {found:#x}); move it away or choose another --store-dir", path.display())]
    Stranger {
        /// The database.
        path: PathBuf,
        /// Whom it belongs to.
        found: i64,
    },
    /// `SQLite`.
    #[error("cannot {doing} {}: {source}{}", path.display(), advice(source))]
    Sqlite {
        /// A verb.
        doing: &'static str,
        /// The database.
        path: PathBuf,
        /// What `SQLite` said.
        source: rusqlite::Error,
    },
    /// The operating system.
    #[error("cannot start the thread of the store: {0}; raise the limit of processes")]
    Thread(io::Error),
}

/// What follows from an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Somebody else has it locked: later.
    Busy,
    /// It has to be moved aside.
    Damaged,
    /// Nobody may touch it, we neither.
    Refused,
    /// It cannot be used now: full, read-only, no such folder, I/O errors.
    Unavailable,
}

impl StoreError {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Sqlite { source, .. } => match source.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Kind::Busy,
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => Kind::Damaged,
                _ => Kind::Unavailable,
            },
            Self::OtherUser { .. } | Self::Newer { .. } | Self::Stranger { .. } => Kind::Refused,
            Self::File { .. } | Self::Thread(_) => Kind::Unavailable,
        }
    }

    pub(super) fn file(doing: &'static str, path: &Path, advice: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::File { doing, path: path.to_owned(), source, advice }
    }

    pub(super) fn sqlite(doing: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| Self::Sqlite { doing, path: path.to_owned(), source }
    }
}

fn advice(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => "; another program has it open and locked: end it",
        Some(ErrorCode::DiskFull) => "; free some space",
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "; a supervisor that starts moves it aside",
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "; check the permissions of the file and its folder, and whether the file system is read-only"
        }
        Some(ErrorCode::SystemIoFailure) => "; check the space and the health of the disk",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> StoreError {
        let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        StoreError::Sqlite { doing: "write", path: "/x/supervise.sqlite".into(), source }
    }

    #[test]
    fn only_notadb_and_corrupt_count_as_damage() {
        use rusqlite::ffi;
        for (code, kind) in [
            (ffi::SQLITE_NOTADB, Kind::Damaged),
            (ffi::SQLITE_CORRUPT, Kind::Damaged),
            (ffi::SQLITE_CORRUPT_VTAB, Kind::Damaged),
            (ffi::SQLITE_BUSY, Kind::Busy),
            (ffi::SQLITE_BUSY_RECOVERY, Kind::Busy),
            (ffi::SQLITE_FULL, Kind::Unavailable),
            (ffi::SQLITE_READONLY, Kind::Unavailable),
            (ffi::SQLITE_IOERR, Kind::Unavailable),
            (ffi::SQLITE_CANTOPEN, Kind::Unavailable),
            (ffi::SQLITE_ERROR, Kind::Unavailable),
        ] {
            assert_eq!(failure(code).kind(), kind, "{code}");
        }
    }

    #[test]
    fn a_message_is_one_line_that_ends_with_what_to_do() {
        let text = failure(rusqlite::ffi::SQLITE_FULL).to_string();
        assert!(
            text.starts_with("cannot write /x/supervise.sqlite: ") && text.ends_with("; free some space"),
            "{text}"
        );
        let newer = StoreError::Newer { path: "/x".into(), found: 7, by: "9.0.0".to_owned(), us: "0.1.0", known: 1 };
        assert!(!newer.to_string().contains(['\n', '\t']) && !newer.to_string().contains("  "), "{newer}");
    }
}
