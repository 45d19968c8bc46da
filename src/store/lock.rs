//! The kernel's lock: held until its holder exits, for whatever reason.

use super::error::StoreError;
use super::folder::{FILE_MODE, FileId, lock_of, tighten};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// The lock file is never unlinked: a lock on an unlinked file excludes no other supervisor.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
    path: PathBuf,
    id: FileId,
}

#[derive(Debug)]
pub(super) enum LockAttempt {
    /// With a warning about its file.
    Taken(Lock, Option<String>),
    /// By another process.
    Held,
    /// The file system has no locks.
    Unsupported(Errno),
}

/// Does not wait.
pub(super) fn take(dir: &Path) -> Result<LockAttempt, StoreError> {
    let path = lock_of(dir);
    loop {
        let file = open(&path).map_err(StoreError::file(
            "open the lock",
            &path,
            "check its owner and permissions, or choose another directory with --store-dir",
        ))?;
        let meta = file.metadata().map_err(StoreError::file("inspect the lock", &path, "check the file system"))?;
        match try_flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(LockAttempt::Held),
            Err(error) => return Ok(LockAttempt::Unsupported(error)),
        }
        let id = FileId::of(&meta);
        // The file may have been replaced between open and flock.
        let now = FileId::at(&path).map_err(StoreError::file("inspect the lock", &path, "check the file system"))?;
        if now == Some(id) {
            let warning = tighten(&path, &meta, FILE_MODE);
            return Ok(LockAttempt::Taken(Lock { _file: file, path, id }, warning));
        }
    }
}

/// Whether another process holds the lock. Takes it shared for an instant.
pub(super) fn is_held(dir: &Path) -> Result<bool, StoreError> {
    let path = lock_of(dir);
    let file = match File::open(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        file => file.map_err(StoreError::file("open the lock", &path, "check its owner and permissions"))?,
    };
    Ok(try_flock(&file, FlockOperation::NonBlockingLockShared) == Err(Errno::WOULDBLOCK))
}

impl Lock {
    /// Whether the locked file is still the one that others would lock.
    pub(super) fn is_in_place(&self) -> io::Result<bool> {
        Ok(FileId::at(&self.path)? == Some(self.id))
    }
}

/// On a read-only file system an existing file can still be locked.
fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path);
    match file {
        Err(error) if matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) => {
            File::open(path).map_err(|_| error)
        }
        file => file,
    }
}

fn try_flock(file: &File, operation: FlockOperation) -> Result<(), Errno> {
    rustix::io::retry_on_intr(|| flock(file, operation))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scratch;
    use super::*;
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    fn taken(dir: &Path) -> Lock {
        match take(dir).unwrap() {
            LockAttempt::Taken(lock, None) => lock,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn there_is_one_holder_at_a_time_and_none_after_the_drop() {
        let scratch = Scratch::new();
        let dir = scratch.path();
        assert!(!is_held(dir).unwrap());
        assert!(!lock_of(dir).exists(), "a look creates no file");
        let lock = taken(dir);
        assert!(matches!(take(dir).unwrap(), LockAttempt::Held));
        assert!(is_held(dir).unwrap());
        drop(lock);
        assert!(!is_held(dir).unwrap());
        assert!(lock_of(dir).exists());
        taken(dir);
    }

    #[test]
    fn the_file_is_made_private() {
        let scratch = Scratch::new();
        let path = lock_of(scratch.path());
        fs::write(&path, "").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let _lock = taken(scratch.path());
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    #[test]
    fn a_replaced_file_is_noticed() {
        let scratch = Scratch::new();
        let lock = taken(scratch.path());
        assert!(lock.is_in_place().unwrap());
        fs::rename(lock_of(scratch.path()), scratch.path().join("old")).unwrap();
        assert!(!lock.is_in_place().unwrap());
        let other = taken(scratch.path());
        assert!(other.is_in_place().unwrap() && !lock.is_in_place().unwrap());
    }
}
