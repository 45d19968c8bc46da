//! The errors of the store.

use crate::platform::refusal::is_refusal;
use rusqlite::ErrorCode;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("cannot {doing} {}: {source}; {advice}", path.display())]
    File { doing: &'static str, path: PathBuf, source: io::Error, advice: &'static str },
    /// The store directory belongs to another user.
    #[error(
        "the store directory {} belongs to user {owner} and we run as user {us}; run as that user, chown the directory, or \
         choose another one with --store-dir", path.display()
    )]
    OtherUser {
        path: PathBuf,
        owner: u32,
        /// Our effective user.
        us: u32,
    },
    /// A link on the path to the store directory.
    #[error(
        "the store directory {} leads through the symbolic link {}, which user {owner} could aim anywhere; nothing was changed; name its \
         target: --store-dir {}", path.display(), link.display(), to.display()
    )]
    StrangeLink {
        path: PathBuf,
        link: PathBuf,
        /// The user who can change the link.
        owner: u32,
        /// Where it leads to.
        to: PathBuf,
    },
    /// No directory for a store.
    #[error(
        "the directory {} {why}, so it cannot be the store directory; nothing was changed; name a new one: --store-dir {}", path.display(),
        path.join("openclaw-supervise").display()
    )]
    Unfit { path: PathBuf, why: String },
    /// A directory, FIFO, socket or device in the place of the lock.
    #[error(
        "{} is no regular file, so it cannot be the lock of the store; nothing was changed; remove it, or choose another directory \
         with --store-dir", path.display()
    )]
    NoLockFile { path: PathBuf },
    /// A later version of this program wrote the database.
    #[error(
        "the store {} has schema version {found} (written by openclaw-supervise {by}), but openclaw-supervise {us} supports \
         only versions up to {known}; install that version or a later one, or move the file away", path.display()
    )]
    Newer { path: PathBuf, found: i64, by: String, us: &'static str, known: i64 },
    #[error("{} is the database of another program (application id {found:#x}); move it away or choose another directory with --store-dir", path.display())]
    OtherProgram {
        path: PathBuf,
        /// Its application id.
        found: i64,
    },
    /// It was made by a supervisor that sees its file system differently. Opening it would corrupt it, see [`super::image`].
    #[error(
        "another supervisor, which sees the file system of {} differently, has just replaced it; try again", path.display()
    )]
    OtherKind { path: PathBuf },
    #[error("cannot {doing} {}: {source}{advice}", path.display())]
    Sqlite { doing: &'static str, path: PathBuf, source: rusqlite::Error, advice: &'static str },
    #[error("cannot start the thread of the store: {0}; {advice}", advice = of_thread(.0))]
    Thread(io::Error),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StoreErrorKind {
    /// Locked by another process; retry later.
    Busy,
    /// The database has to be moved aside.
    Corrupt,
    /// Not ours to open.
    Refused,
    /// Not ours to open before it was replaced.
    OtherKind,
    /// Full, read-only, missing, or an I/O error; retry later.
    Unavailable,
}

impl StoreError {
    pub(super) fn kind(&self) -> StoreErrorKind {
        match self {
            Self::Sqlite { source, .. } => match source.sqlite_error_code() {
                Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => StoreErrorKind::Busy,
                Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => StoreErrorKind::Corrupt,
                _ => StoreErrorKind::Unavailable,
            },
            Self::OtherUser { .. }
            | Self::StrangeLink { .. }
            | Self::Unfit { .. }
            | Self::NoLockFile { .. }
            | Self::Newer { .. }
            | Self::OtherProgram { .. } => StoreErrorKind::Refused,
            Self::OtherKind { .. } => StoreErrorKind::OtherKind,
            Self::File { .. } | Self::Thread(_) => StoreErrorKind::Unavailable,
        }
    }

    /// Whether another start will not help either.
    #[must_use]
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::File { source, .. } | Self::Thread(source) => is_refusal(source),
            Self::OtherUser { .. }
            | Self::StrangeLink { .. }
            | Self::Unfit { .. }
            | Self::NoLockFile { .. }
            | Self::Newer { .. }
            | Self::OtherProgram { .. } => true,
            Self::OtherKind { .. } => false,
            Self::Sqlite { source, .. } => {
                matches!(source.sqlite_error_code(), Some(ErrorCode::ReadOnly | ErrorCode::PermissionDenied))
            }
        }
    }

    /// Whether the command line or the environment names a directory that is not for us.
    #[must_use]
    pub fn is_usage(&self) -> bool {
        matches!(self, Self::StrangeLink { .. } | Self::Unfit { .. })
    }

    pub(super) fn file(doing: &'static str, path: &Path, advice: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| {
            let advice = shortage(&source).unwrap_or(advice);
            Self::File { doing, path: path.to_owned(), source, advice }
        }
    }

    pub(super) fn sqlite(doing: &'static str, path: &Path) -> impl FnOnce(rusqlite::Error) -> Self {
        move |source| {
            let advice = advice(&source);
            Self::Sqlite { doing, path: path.to_owned(), source, advice }
        }
    }
}

fn of_thread(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => {
            "the sandbox forbids clone3(2): update the container runtime (Docker 20.10.10 or later), or run with \
             --security-opt seccomp=unconfined"
        }
        _ => "raise the limit on processes (ulimit -u, pids.max, TasksMax=), or that on memory",
    }
}

/// What to do if the kernel is out of a resource: nothing is wrong with the file then.
fn shortage(error: &io::Error) -> Option<&'static str> {
    match error.raw_os_error()? {
        libc::EMFILE => Some("raise the limit on open files (ulimit -n, LimitNOFILE=)"),
        libc::ENFILE => Some("the system is out of file descriptors: raise fs.file-max"),
        libc::ENOMEM => Some("free some memory"),
        _ => None,
    }
}

/// Whether fewer descriptors are left than `SQLite` needs: for the database, its log, its shared memory and the
/// directory. `SQLite` does not pass on the kernel's error.
fn is_short_of_descriptors() -> bool {
    let four: Vec<_> = (0..4).map(|_| File::open("/dev/null")).collect();
    four.iter().any(|file| file.as_ref().is_err_and(|error| shortage(error).is_some()))
}

fn advice(error: &rusqlite::Error) -> &'static str {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "; another program holds a lock on it: end that program"
        }
        Some(ErrorCode::DiskFull) => "; free some space",
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => "; the next start moves it aside",
        Some(ErrorCode::CannotOpen | ErrorCode::SystemIoFailure) if is_short_of_descriptors() => {
            "; raise the limit on open files (ulimit -n, LimitNOFILE=)"
        }
        Some(ErrorCode::ReadOnly | ErrorCode::CannotOpen | ErrorCode::PermissionDenied) => {
            "; check the permissions of the file and its directory, and whether the file system is read-only"
        }
        Some(ErrorCode::SystemIoFailure) => "; check the free space and the health of the disk",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(code: i32) -> StoreError {
        let source = rusqlite::Error::SqliteFailure(rusqlite::ffi::Error::new(code), None);
        StoreError::sqlite("write", Path::new("/x/supervise.sqlite"))(source)
    }

    #[test]
    fn only_notadb_and_corrupt_count_as_damage() {
        use rusqlite::ffi;
        for (code, kind) in [
            (ffi::SQLITE_NOTADB, StoreErrorKind::Corrupt),
            (ffi::SQLITE_CORRUPT, StoreErrorKind::Corrupt),
            (ffi::SQLITE_CORRUPT_VTAB, StoreErrorKind::Corrupt),
            (ffi::SQLITE_BUSY, StoreErrorKind::Busy),
            (ffi::SQLITE_BUSY_RECOVERY, StoreErrorKind::Busy),
            (ffi::SQLITE_FULL, StoreErrorKind::Unavailable),
            (ffi::SQLITE_READONLY, StoreErrorKind::Unavailable),
            (ffi::SQLITE_IOERR, StoreErrorKind::Unavailable),
            (ffi::SQLITE_CANTOPEN, StoreErrorKind::Unavailable),
            (ffi::SQLITE_ERROR, StoreErrorKind::Unavailable),
        ] {
            assert_eq!(failure(code).kind(), kind, "{code}");
        }
    }

    #[test]
    fn only_what_an_operator_has_to_change_is_refused() {
        use rusqlite::ffi;
        let file = |code| StoreError::file("open", Path::new("/x"), "")(io::Error::from_raw_os_error(code));
        let thread = |code| StoreError::Thread(io::Error::from_raw_os_error(code));
        let other = StoreError::OtherUser { path: "/x".into(), owner: 0, us: 1000 };
        for error in [file(libc::EACCES), file(libc::EROFS), thread(libc::EPERM), failure(ffi::SQLITE_READONLY), other]
        {
            assert!(error.is_refusal(), "{error}");
        }
        for error in [file(libc::ENOSPC), file(libc::ESTALE), thread(libc::EAGAIN), failure(ffi::SQLITE_FULL)] {
            assert!(!error.is_refusal(), "{error}");
        }
    }

    #[test]
    fn each_message_says_what_failed_and_what_to_do() {
        use rusqlite::ffi;
        let path = || PathBuf::from("/x/supervise.sqlite");
        let full = || io::Error::from_raw_os_error(libc::ENOSPC);
        let sqlite = [
            ffi::SQLITE_BUSY,
            ffi::SQLITE_FULL,
            ffi::SQLITE_CORRUPT,
            ffi::SQLITE_READONLY,
            ffi::SQLITE_IOERR,
            ffi::SQLITE_ERROR,
        ];
        let mut errors = vec![
            StoreError::file("open the lock", Path::new("/x/lease.lock"), "check its owner and permissions")(full()),
            StoreError::OtherUser { path: "/x".into(), owner: 0, us: 1000 },
            StoreError::StrangeLink {
                path: "/home/a/x".into(),
                link: "/home/a".into(),
                owner: 1000,
                to: "/srv/x".into(),
            },
            StoreError::Unfit { path: "/x".into(), why: "is shared by all users (mode 1777)".to_owned() },
            StoreError::NoLockFile { path: "/x/lease.lock".into() },
            StoreError::Newer { path: path(), found: 9, by: "9.8.7".to_owned(), us: "0.1.0", known: 1 },
            StoreError::OtherProgram { path: path(), found: 77 },
            StoreError::Thread(io::Error::from_raw_os_error(libc::EAGAIN)),
        ];
        errors.extend(sqlite.map(failure));
        let lines: Vec<String> = errors.iter().map(StoreError::to_string).collect();
        assert!(lines.iter().all(|line| !line.contains('\n')));
        insta::assert_snapshot!(lines.join("\n"));
    }
}
