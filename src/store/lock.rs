//! The kernel's lock: held until its holder exits, for whatever reason.

use super::error::StoreError;
use super::folder::{FILE_MODE, FileId, LOCK, lock_of, tighten};
use crate::platform::folder::Folder;
use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind};
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
    let folder =
        Folder::open(dir).map_err(|error| StoreError::file("open", dir, "check the store directory")(error.into()))?;
    loop {
        let file = open(&folder).map_err(|error| explain(&folder, &path, error))?;
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
            let warning = tighten(&folder, LOCK, FILE_MODE);
            return Ok(LockAttempt::Taken(Lock { _file: file, path, id }, warning));
        }
    }
}

/// Whether another process holds the lock. Takes it shared for an instant.
pub(super) fn is_held(dir: &Path) -> Result<bool, StoreError> {
    let path = lock_of(dir);
    let open = || Folder::open(dir).map_err(io::Error::from)?.open_file(LOCK, OFlags::RDONLY);
    let file = match open() {
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
fn open(folder: &Folder) -> io::Result<File> {
    match folder.open_file(LOCK, OFlags::RDWR | OFlags::CREATE) {
        Err(error) if matches!(error.kind(), ErrorKind::ReadOnlyFilesystem | ErrorKind::PermissionDenied) => {
            folder.open_file(LOCK, OFlags::RDONLY).map_err(|_| error)
        }
        file => file,
    }
}

fn explain(folder: &Folder, path: &Path, error: io::Error) -> StoreError {
    let advice = "check its owner and permissions, or choose another directory with --store-dir";
    // open(2) of a socket is ENXIO, as that of a FIFO without a reader may be.
    match folder.meta_of(LOCK) {
        Ok(meta) if !meta.is_file() && !meta.is_symlink() => StoreError::NoLockFile { path: path.to_owned() },
        Ok(_) | Err(_) => StoreError::file("open the lock", path, advice)(error),
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
    fn what_is_no_file_cannot_be_the_lock_and_no_other_start_will_help() {
        for kind in ["FIFO", "directory", "socket"] {
            let scratch = Scratch::new();
            let path = lock_of(scratch.path());
            match kind {
                "FIFO" => nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap(),
                "directory" => fs::create_dir(&path).unwrap(),
                _ => drop(std::os::unix::net::UnixListener::bind(&path).unwrap()),
            }
            let error = take(scratch.path()).unwrap_err();
            assert!(error.is_refusal() && error.to_string().contains("is no regular file"), "{kind}: {error}");
        }
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
    fn a_link_and_a_fifo_are_no_lock() {
        let scratch = Scratch::new();
        let (path, precious) = (lock_of(scratch.path()), scratch.path().join("precious"));
        fs::write(&precious, "").unwrap();
        fs::set_permissions(&precious, fs::Permissions::from_mode(0o644)).unwrap();
        std::os::unix::fs::symlink(&precious, &path).unwrap();
        assert!(take(scratch.path()).is_err() && is_held(scratch.path()).is_err());
        assert_eq!(fs::metadata(&precious).unwrap().mode() & 0o777, 0o644);
        fs::remove_file(&path).unwrap();
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(take(scratch.path()).is_err() && is_held(scratch.path()).is_err());
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
