//! The folder of the store: whose it is, who else may look into it, and what is in it.

use super::error::StoreError;
use std::fs::{self, DirBuilder, Metadata, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The mode of the folder and of the files in it.
pub(super) const FOLDER_MODE: u32 = 0o700;
pub(super) const FILE_MODE: u32 = 0o600;

/// The file whose lock is the lease.
pub(super) fn lock_of(dir: &Path) -> PathBuf {
    dir.join("lease.lock")
}

/// The database.
pub(super) fn database_of(dir: &Path) -> PathBuf {
    dir.join("supervise.sqlite")
}

/// Which file it is, whatever it is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FileId {
    device: u64,
    inode: u64,
}

impl FileId {
    pub(super) fn of(meta: &Metadata) -> Self {
        Self { device: meta.dev(), inode: meta.ino() }
    }

    /// The file that has this name now. Never opened for this: `SQLite`'s locks on a database end when any descriptor of
    /// it is closed, see "POSIX advisory locks" in the article on how to corrupt a database.
    pub(super) fn at(path: &Path) -> Option<Self> {
        fs::metadata(path).ok().map(|meta| Self::of(&meta))
    }
}

/// Makes the folder if it is not there, and sees to it that it is ours and for nobody else. Returns what could not be
/// put right.
pub(super) fn prepare(dir: &Path) -> Result<Option<String>, StoreError> {
    let advice = "choose a folder that can be written with --store-dir";
    let meta = match fs::metadata(dir) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            let mut builder = DirBuilder::new();
            let made = builder.recursive(true).mode(FOLDER_MODE).create(dir);
            made.map_err(StoreError::file("create the store folder", dir, advice))?;
            fs::metadata(dir)
        }
        meta => meta,
    };
    let meta = meta.map_err(StoreError::file("look at the store folder", dir, advice))?;
    let us = rustix::process::geteuid().as_raw();
    if meta.uid() != us {
        return Err(StoreError::OtherUser { path: dir.to_owned(), owner: meta.uid(), us });
    }
    Ok(tighten(dir, &meta, FOLDER_MODE))
}

/// Takes away what others may do with a file. Volumes of some container runtimes and foreign file systems refuse that,
/// or take it without an effect.
pub(super) fn tighten(path: &Path, meta: &Metadata, mode: u32) -> Option<String> {
    let wide = |meta: &Metadata| meta.mode() & 0o777 & !mode != 0;
    if !wide(meta) {
        return None;
    }
    let failed = match fs::set_permissions(path, Permissions::from_mode(mode)) {
        Err(error) => error.to_string(),
        Ok(()) if fs::metadata(path).is_ok_and(|meta| !wide(&meta)) => return None,
        Ok(()) => "chmod has no effect here".to_owned(),
    };
    let (path, has) = (path.display(), meta.mode() & 0o777);
    Some(format!("{path} has mode {has:o} instead of {mode:o}, and other users may see or change it: {failed}"))
}

#[cfg(test)]
mod tests {
    use super::super::tests::Scratch;
    use super::*;

    #[test]
    fn a_folder_is_made_for_us_alone_and_a_wider_one_is_tightened() {
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
    fn a_folder_where_chmod_does_not_work_is_warned_about() {
        let sys = Path::new("/proc/self");
        let warning = tighten(sys, &fs::metadata(sys).unwrap(), 0o700).unwrap();
        assert!(warning.starts_with("/proc/self has mode 555 instead of 700"), "{warning}");
    }

    #[test]
    fn a_file_in_the_way_is_an_error_with_advice() {
        let scratch = Scratch::new();
        let file = scratch.path().join("file");
        fs::write(&file, "").unwrap();
        let error = prepare(&file.join("store")).unwrap_err().to_string();
        assert!(error.contains("store folder") && error.ends_with("--store-dir"), "{error}");
    }

    #[test]
    fn a_folder_of_another_user_is_refused() {
        let other = Path::new("/");
        let us = rustix::process::geteuid().as_raw();
        let owner = fs::metadata(other).unwrap().uid();
        // For root a folder is given away; for others there is one of root.
        let scratch = Scratch::new();
        let dir = if owner == us {
            std::os::unix::fs::chown(scratch.path(), Some(us + 1), None).unwrap();
            scratch.path()
        } else {
            other
        };
        assert!(matches!(prepare(dir), Err(StoreError::OtherUser { .. })));
    }
}
