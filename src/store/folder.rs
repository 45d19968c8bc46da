//! The store directory: its owner and permissions, and the files in it.

use super::error::StoreError;
use crate::platform::folder::{Folder, FolderError};
use std::ffi::{OsStr, OsString};
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(super) const FOLDER_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o600;

/// The file with the lock of the lease.
pub(super) const LOCK: &str = "lease.lock";

pub(super) const DATABASE: &str = "supervise.sqlite";

const ADVICE: &str = "choose a writable directory with --store-dir";

pub(super) fn lock_of(dir: &Path) -> PathBuf {
    dir.join(LOCK)
}

/// A file by which an observer that cannot see the lock asks its owner for a sign of life.
pub(super) const QUESTION: &str = "lease.ask";

pub(super) fn database_of(dir: &Path) -> PathBuf {
    dir.join(DATABASE)
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

/// Names in an empty directory that file systems and their servers put there.
const OF_FILE_SYSTEMS: [&str; 6] =
    ["lost+found", ".snapshot", ".snapshots", "@eaDir", "#recycle", "System Volume Information"];

/// Names of ours: the files of the store and of the other wings, and what their names begin with.
const OURS: [&str; 9] = [
    "lease.lock",
    "lease.ask",
    "supervise.sqlite",
    "control.sock",
    "standby-",
    "incidents",
    "output.log",
    "capabilities.json",
    "owner-",
];

/// What is in a directory that was there before.
enum Content {
    /// A store, and nothing else.
    Store,
    /// No store yet, or one beside other files.
    Usable,
    /// Only other files, such as this one.
    Others(OsString),
}

/// Makes the store directory if it is missing, with those above it, and checks that it is fit to be one.
///
/// # Errors
/// It is not, or it cannot be made.
pub fn make(dir: &Path) -> Result<(), StoreError> {
    prepare(dir).map(|_warning| ())
}

/// The same. Permissions of others are removed from what we have made, and of another directory if all can write to it and it
/// holds nothing but a store. Returns a warning if others may read or change it.
pub(super) fn prepare(dir: &Path) -> Result<Option<String>, StoreError> {
    let (folder, is_made) = Folder::make(dir).map_err(|error| match error {
        FolderError::Link { link, owner, to } => StoreError::StrangeLink { path: dir.to_owned(), link, owner, to },
        FolderError::Kernel { error } => StoreError::file("open the store directory", dir, ADVICE)(error),
    })?;
    let file = |error| StoreError::file("inspect the store directory", dir, ADVICE)(error);
    let meta = folder.meta().map_err(file)?;
    let (us, owner, mode) = (rustix::process::geteuid().as_raw(), meta.uid(), meta.mode());
    let content = if is_made { Content::Usable } else { content(&folder, owner) };
    let unfit = |why: String| Err(StoreError::Unfit { path: dir.to_owned(), why });
    // Among files that no other user reaches ours do no harm.
    let is_private = owner == us && mode.trailing_zeros() >= 6;
    if let Content::Others(name) = &content
        && !is_private
    {
        return unfit(format!("holds other files ({})", name.display()));
    }
    let (is_open, is_sticky) = (mode & 0o002 != 0, mode & 0o1000 != 0);
    // On SMB, FAT, FUSE and NFS with squashed users everything belongs to one user, or has one mode: then the directory is as
    // much ours as what we create in it.
    let new = if is_open || is_sticky || owner != us { folder.new_file().ok() } else { None };
    let keeps_owners = new.as_ref().is_none_or(|new| new.uid() != owner);
    let ignores_modes = new.as_ref().is_some_and(|new| new.mode() & 0o077 != 0);
    if is_sticky && !ignores_modes {
        return unfit(format!("is shared by all users (mode {:o})", mode & 0o7777));
    }
    // A volume of root that its group may write to, as Kubernetes makes it with fsGroup, is for us if we may.
    let is_lent = owner == 0 && new.is_some();
    let is_only_ours = is_made || owner == us && matches!(content, Content::Store);
    if is_open && !ignores_modes && !is_only_ours {
        return unfit(format!(
            "can be written to by every user (mode {:o}; chmod o-w would make it fit)",
            mode & 0o7777
        ));
    }
    if owner != us && keeps_owners && !is_lent {
        return Err(StoreError::OtherUser { path: dir.to_owned(), owner, us });
    }
    if is_made || is_open {
        return Ok(tighten(&folder, ".", FOLDER_MODE));
    }
    Ok((mode & 0o020 != 0).then(|| wide(dir, mode, "it was not made by this program, so its mode stays as it is")))
}

/// One that may not be read looks empty.
fn content(folder: &Folder, owner: u32) -> Content {
    let names = folder.names().unwrap_or_default();
    let is_known =
        |name: &OsStr, known: &[&str]| known.iter().any(|known| name.as_bytes().starts_with(known.as_bytes()));
    let others = names.iter().find(|name| !is_known(name, &OURS) && !is_known(name, &OF_FILE_SYSTEMS));
    let us = rustix::process::geteuid().as_raw();
    let is_store = folder.meta_of(LOCK).is_ok_and(|lock| lock.is_file() && (lock.uid() == us || lock.uid() == owner));
    match others {
        None if is_store => Content::Store,
        Some(name) if !is_store => Content::Others(name.clone()),
        None | Some(_) => Content::Usable,
    }
}

fn wide(path: &Path, mode: u32, why: &str) -> String {
    let (path, mode) = (path.display(), mode & 0o777);
    format!("{path} has mode {mode:o}, so other users may read or change it: {why}")
}

/// Removes the permissions of others from a file in here, or from the directory itself (`.`). Volumes of some container
/// runtimes and foreign file systems refuse or ignore chmod.
pub(super) fn tighten(folder: &Folder, name: &str, mode: u32) -> Option<String> {
    let of_others = |meta: &Metadata| meta.mode() & 0o777 & !mode != 0;
    let meta = folder.meta_of(name).ok().filter(of_others)?;
    let failed = if meta.is_file() && meta.nlink() > 1 {
        "it has another name elsewhere, so it may be no file of ours".to_owned()
    } else {
        match folder.chmod(name, mode) {
            Err(error) => error.to_string(),
            Ok(()) if folder.meta_of(name).is_ok_and(|meta| !of_others(&meta)) => return None,
            Ok(()) => "chmod has no effect".to_owned(),
        }
    };
    let path = if name == "." { folder.path().to_owned() } else { folder.path().join(name) };
    Some(wide(&path, meta.mode(), &failed))
}

/// The corrupt databases that are kept.
const CORRUPT_MAX: usize = 3;

/// The suffixes of the files of a database.
const SUFFIXES: [&str; 3] = ["", "-wal", "-shm"];

/// Moves the corrupt database aside together with its log. Only the owner of the lock may do this, with the database closed.
/// Returns the new name.
pub(super) fn move_aside(dir: &Path, wall_ms: i64) -> Result<PathBuf, StoreError> {
    let failed = |error| StoreError::file("move the corrupt", &database_of(dir), "move it away by hand")(error);
    let folder = Folder::open(dir).map_err(|error| failed(error.into()))?;
    let to = free_name(&folder, wall_ms);
    for suffix in SUFFIXES {
        match folder.rename(format!("{DATABASE}{suffix}"), format!("{to}{suffix}")) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
    }
    remove_oldest(&folder);
    Ok(dir.join(to))
}

fn free_name(folder: &Folder, wall_ms: i64) -> String {
    let stamp = jiff::Timestamp::from_millisecond(wall_ms).unwrap_or_default();
    let stamp = stamp.strftime("%Y%m%dT%H%M%SZ").to_string();
    let name = |number: u32| match number {
        0 => format!("{DATABASE}.damaged-{stamp}"),
        more => format!("{DATABASE}.damaged-{stamp}.{more}"),
    };
    (0..u32::MAX).map(name).find(|name| folder.meta_of(name).is_err()).unwrap_or_else(|| name(u32::MAX))
}

pub(super) fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// The names sort by time. A file that cannot be removed stays.
fn remove_oldest(folder: &Folder) {
    let names = folder.names().unwrap_or_default().into_iter().filter_map(|name| name.into_string().ok());
    let mut corrupt: Vec<_> = names
        .filter(|name| {
            name.starts_with("supervise.sqlite.damaged-") && !name.ends_with("-wal") && !name.ends_with("-shm")
        })
        .collect();
    corrupt.sort();
    let surplus = corrupt.len().saturating_sub(CORRUPT_MAX);
    for name in &corrupt[..surplus] {
        for suffix in SUFFIXES {
            let _stays = folder.remove(format!("{name}{suffix}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scratch;
    use super::*;
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o7777
    }

    /// A directory of this mode with these files.
    fn directory(scratch: &Scratch, name: &str, mode: u32, files: &[&str]) -> PathBuf {
        let dir = scratch.path().join(name);
        fs::create_dir(&dir).unwrap();
        for name in files {
            fs::write(dir.join(name), "").unwrap();
        }
        fs::set_permissions(&dir, Permissions::from_mode(mode)).unwrap();
        dir
    }

    #[test]
    fn a_directory_is_created_private_and_one_that_was_there_keeps_its_mode() {
        let scratch = Scratch::new();
        let made = scratch.path().join("a/b");
        assert_eq!(prepare(&made).unwrap(), None);
        assert_eq!((mode(&made), mode(&scratch.path().join("a"))), (0o700, 0o700));
        for (name, bits, files, is_warned) in [
            ("empty", 0o755, &[][..], false),
            ("store", 0o755, &["lease.lock", "supervise.sqlite-wal", "control.sock", "incidents"], false),
            ("beside others", 0o750, &["lease.lock", "notes"], false),
            ("mount", 0o755, &["lost+found"], false),
            ("private", 0o700, &["notes"], false),
            ("lent", 0o2775, &[], true),
        ] {
            let dir = directory(&scratch, name, bits, files);
            assert_eq!(prepare(&dir).unwrap().is_some(), is_warned, "{name}");
            assert_eq!((mode(&dir), names(&dir).len()), (bits, files.len()), "{name}");
        }
    }

    #[test]
    fn a_store_that_all_could_write_to_is_made_private() {
        let scratch = Scratch::new();
        let dir = directory(&scratch, "store", 0o777, &["lease.lock", "lease.ask", "supervise.sqlite"]);
        assert_eq!(prepare(&dir).unwrap(), None);
        assert_eq!(mode(&dir), 0o700);
    }

    #[test]
    fn a_directory_that_is_shared_or_holds_other_files_is_refused_and_left_as_it_is() {
        let scratch = Scratch::new();
        for (name, bits, files, why) in [
            ("tmp", 0o1777, &[][..], "shared by all users (mode 1777)"),
            ("tmp with a store", 0o1777, &["lease.lock"], "shared by all users"),
            ("open", 0o777, &[], "can be written to by every user (mode 777; chmod o-w would"),
            ("open beside others", 0o777, &["lease.lock", "notes"], "can be written to by every user"),
            ("etc", 0o755, &["passwd"], "holds other files (passwd)"),
            ("home", 0o750, &[".profile"], "holds other files (.profile)"),
        ] {
            let dir = directory(&scratch, name, bits, files);
            let error = prepare(&dir).unwrap_err();
            let text = error.to_string();
            assert!(error.is_usage() && text.contains(why) && text.contains("--store-dir"), "{name}: {text}");
            assert_eq!((mode(&dir), names(&dir)), (bits, files.iter().map(ToString::to_string).collect()), "{name}");
        }
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_directory_where_chmod_has_no_effect_is_warned_about() {
        let warning = tighten(&Folder::open(Path::new("/proc/self/task")).unwrap(), ".", 0o700).unwrap();
        assert!(warning.contains(" has mode 555, so other users may read or change it: "), "{warning}");
    }

    #[test]
    fn a_file_with_a_second_name_keeps_its_mode() {
        let scratch = Scratch::new();
        let precious = scratch.path().join("precious");
        fs::write(&precious, "").unwrap();
        fs::set_permissions(&precious, Permissions::from_mode(0o644)).unwrap();
        fs::hard_link(&precious, scratch.path().join(LOCK)).unwrap();
        assert!(tighten(&Folder::open(scratch.path()).unwrap(), LOCK, FILE_MODE).is_some());
        assert_eq!(mode(&precious), 0o644);
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
    fn one_of_another_user_that_all_can_write_to_is_refused_for_that() {
        assert!(nix::unistd::geteuid().is_root(), "needs root: another user; run `sudo -E cargo test`");
        let scratch = Scratch::new();
        let dir = directory(&scratch, "theirs", 0o777, &[]);
        std::os::unix::fs::chown(&dir, Some(65_533), None).unwrap();
        let error = prepare(&dir).unwrap_err();
        assert!(error.is_usage() && error.to_string().contains("can be written to by every user"), "{error}");
        assert_eq!(mode(&dir), 0o777);
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
                fs::write(scratch.path().join(format!("{DATABASE}{suffix}")), [second]).unwrap();
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
