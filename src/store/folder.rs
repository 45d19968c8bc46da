//! The store directory: its owner and permissions, and the files in it.

use super::error::StoreError;
use crate::platform::random;
use std::fs::{self, DirBuilder, Metadata, OpenOptions, Permissions};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

pub(super) const FOLDER_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o600;

/// The file with the lock of the lease.
pub(super) fn lock_of(dir: &Path) -> PathBuf {
    dir.join("lease.lock")
}

/// A file by which an observer that cannot see the lock asks its owner for a sign of life.
pub(super) fn question_of(dir: &Path) -> PathBuf {
    dir.join("lease.ask")
}

pub(super) fn database_of(dir: &Path) -> PathBuf {
    dir.join("supervise.sqlite")
}

/// The identity of a file, under any name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }

    /// The file that has this name now. It must not be opened for this: closing any descriptor of a database drops the
    /// locks of `SQLite`, see section 2.2 of <https://www.sqlite.org/howtocorrupt.html>.
    pub(super) fn at(path: &Path) -> io::Result<Option<Self>> {
        match fs::metadata(path) {
            Ok(meta) => Ok(Some(Self::of(&meta))),
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether this directory, or what is left of the path to it, is on the file system of this file.
    pub(super) fn shares_device(self, dir: &Path) -> bool {
        dir.ancestors().find_map(|dir| Self::at(dir).ok()?).is_some_and(|above| above.device == self.device)
    }
}

/// Creates the directory if it is missing, checks that it is ours, and removes the permissions of others. Returns a warning
/// if that fails.
pub(super) fn prepare(dir: &Path) -> Result<Option<String>, StoreError> {
    let advice = "choose a writable directory with --store-dir";
    let meta = match fs::metadata(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(FOLDER_MODE).create(dir);
            made.map_err(StoreError::file("create the store directory", dir, advice))?;
            fs::metadata(dir)
        }
        meta => meta,
    };
    let meta = meta.map_err(StoreError::file("inspect the store directory", dir, advice))?;
    let (us, owner) = (rustix::process::geteuid().as_raw(), meta.uid());
    // On SMB, FAT, FUSE and NFS with squashed users everything belongs to one user: then the directory is as much ours as what
    // we create in it.
    if owner != us && owner_of_a_new_file(dir).ok() != Some(owner) {
        return Err(StoreError::OtherUser { path: dir.to_owned(), owner, us });
    }
    Ok(tighten(dir, &meta, FOLDER_MODE))
}

fn owner_of_a_new_file(dir: &Path) -> io::Result<u32> {
    let path = dir.join(format!("owner-{}", random::id()));
    let file = OpenOptions::new().write(true).create_new(true).mode(FILE_MODE).open(&path)?;
    // By its name: some servers tell the owner only then, and the kernel shows its own guess until it asks again.
    let owner = fs::metadata(&path).map(|meta| meta.uid());
    drop(file);
    let _stays = fs::remove_file(&path);
    owner
}

/// Removes the permissions of others. Volumes of some container runtimes and foreign file systems refuse or ignore chmod.
pub(super) fn tighten(path: &Path, meta: &Metadata, mode: u32) -> Option<String> {
    let wide = |meta: &Metadata| meta.mode() & 0o777 & !mode != 0;
    if !wide(meta) {
        return None;
    }
    let failed = match fs::set_permissions(path, Permissions::from_mode(mode)) {
        Err(error) => error.to_string(),
        Ok(()) if fs::metadata(path).is_ok_and(|meta| !wide(&meta)) => return None,
        Ok(()) => "chmod has no effect".to_owned(),
    };
    let (path, has) = (path.display(), meta.mode() & 0o777);
    Some(format!("{path} has mode {has:o} instead of {mode:o}, so other users may read or change it: {failed}"))
}

/// The corrupt databases that are kept.
const CORRUPT_MAX: usize = 3;

/// The suffixes of the files of a database.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// Moves the corrupt database aside together with its log. Only the owner of the lock may do this, with the database closed.
/// Returns the new name.
pub(super) fn move_aside(dir: &Path, wall_ms: i64) -> Result<PathBuf, StoreError> {
    let database = database_of(dir);
    let to = free_name(dir, wall_ms);
    for suffix in SUFFIXES {
        let (from, to) = (with_suffix(&database, suffix), with_suffix(&to, suffix));
        match fs::rename(&from, to) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(StoreError::file("move the corrupt", &from, "move it away by hand")(error));
            }
            _ => {}
        }
    }
    remove_oldest(dir);
    Ok(to)
}

fn free_name(dir: &Path, wall_ms: i64) -> PathBuf {
    let stamp = jiff::Timestamp::from_millisecond(wall_ms).unwrap_or_default();
    let stamp = stamp.strftime("%Y%m%dT%H%M%SZ").to_string();
    let name = |number: u32| match number {
        0 => dir.join(format!("supervise.sqlite.damaged-{stamp}")),
        more => dir.join(format!("supervise.sqlite.damaged-{stamp}.{more}")),
    };
    (0..u32::MAX).map(name).find(|name| !name.exists()).unwrap_or_else(|| name(u32::MAX))
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The names sort by time. A file that cannot be removed stays.
fn remove_oldest(dir: &Path) {
    let names =
        fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| entry.file_name().into_string().ok());
    let mut corrupt: Vec<_> = names
        .filter(|name| {
            name.starts_with("supervise.sqlite.damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
        })
        .collect();
    corrupt.sort();
    let surplus = corrupt.len().saturating_sub(CORRUPT_MAX);
    for name in &corrupt[..surplus] {
        for suffix in SUFFIXES {
            let _stays = fs::remove_file(with_suffix(&dir.join(name), suffix));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scratch;
    use super::*;

    #[test]
    fn a_directory_is_created_private_and_a_wider_one_is_tightened() {
        let scratch = Scratch::new();
        let dir = scratch.path().join("a/b");
        assert_eq!(prepare(&dir).unwrap(), None);
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        fs::set_permissions(&dir, Permissions::from_mode(0o755)).unwrap();
        assert_eq!(prepare(&dir).unwrap(), None);
        assert_eq!(fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_directory_where_chmod_has_no_effect_is_warned_about() {
        let sys = Path::new("/proc/self");
        let warning = tighten(sys, &fs::metadata(sys).unwrap(), 0o700).unwrap();
        assert!(warning.starts_with("/proc/self has mode 555 instead of 700"), "{warning}");
    }

    #[test]
    fn a_file_in_place_of_the_directory_is_an_error_with_advice() {
        let scratch = Scratch::new();
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        let error = prepare(&file.join("store")).unwrap_err().to_string();
        assert!(error.contains("store directory") && error.ends_with("--store-dir"), "{error}");
    }

    #[test]
    fn a_directory_of_another_user_is_refused() {
        let other = Path::new("/");
        let us = rustix::process::geteuid().as_raw();
        let owner = fs::metadata(other).unwrap().uid();
        // Root gives a directory away; other users find one of root.
        let scratch = Scratch::new();
        let dir = if owner == us {
            std::os::unix::fs::chown(scratch.path(), Some(us + 1), None).unwrap();
            scratch.path()
        } else {
            other
        };
        assert!(matches!(prepare(dir), Err(StoreError::OtherUser { .. })));
    }

    fn names(dir: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_corrupt_database_is_moved_with_its_log_and_three_are_kept() {
        let scratch = Scratch::new();
        for second in 0..5 {
            for suffix in SUFFIXES {
                fs::write(with_suffix(&database_of(scratch.path()), suffix), [second]).unwrap();
            }
            let to = move_aside(scratch.path(), i64::from(second) * 1000).unwrap();
            assert_eq!(fs::read(to).unwrap(), [second]);
        }
        let stay = names(scratch.path());
        assert_eq!(stay.len(), 9);
        assert_eq!(stay[0], "supervise.sqlite.damaged-19700101T000002Z");
        assert_eq!(stay[8], "supervise.sqlite.damaged-19700101T000004Z-wal");
    }

    #[test]
    fn two_corrupt_databases_within_a_second_do_not_overwrite_each_other() {
        let scratch = Scratch::new();
        for content in [1, 2] {
            fs::write(database_of(scratch.path()), [content]).unwrap();
            move_aside(scratch.path(), 0).unwrap();
        }
        assert_eq!(names(scratch.path()).len(), 2);
    }
}
