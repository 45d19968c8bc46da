//! The files of OpenClaw's package: whether they changed, and whether an update is replacing them.

use crate::core::SpawnFailure;
use crate::platform::hash::fnv1a;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// npm renames the package that it replaces to a hidden sibling and removes that at the end. An older sibling was left by
/// an update that failed. A rename sets ctime.
pub(super) const RETIRED_AGE_MAX: Duration = Duration::from_mins(10);

/// The length of the hash that npm appends to the name of a retired package: letters and digits of a base64.
const RETIRED_HASH: usize = 8;

/// Which program opens the entry file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenedBy {
    /// execve(2): it is the program of the command.
    Kernel,
    /// A JavaScript runtime, at the same path.
    Runtime,
    /// A program that may look elsewhere: in a container, as another user, on another host.
    Unknown,
}

/// OpenClaw's entry file, as the command names it; a bare name if it was not found on PATH.
#[derive(Debug, Clone)]
pub(super) struct EntryFile {
    pub(super) path: PathBuf,
    opened_by: OpenedBy,
    /// Whether it existed when we started.
    existed: bool,
}

impl EntryFile {
    /// `index` is the position of `path` in the command that starts `program`.
    pub(super) fn new(path: PathBuf, program: &Path, index: usize) -> Self {
        let is_runtime = program.file_name().is_some_and(|name| name == "node" || name == "nodejs" || name == "bun");
        let opened_by = match index {
            0 => OpenedBy::Kernel,
            _ if is_runtime => OpenedBy::Runtime,
            _ => OpenedBy::Unknown,
        };
        Self { existed: fs::canonicalize(&path).is_ok(), path, opened_by }
    }

    pub(super) fn fingerprint(&self, program: &Path) -> u64 {
        let package = fs::canonicalize(&self.path).ok().and_then(|file| package_of(&file));
        let manifest = package.as_ref().map(|package| package.join("package.json"));
        fingerprint([Some(program), Some(&self.path), package.as_deref(), manifest.as_deref()])
    }

    pub(super) fn obstacle(&self, program: &Path, now: Duration) -> Option<SpawnFailure> {
        let package = match fs::canonicalize(&self.path) {
            Ok(file) => package_of(&file)?,
            Err(error) => return self.explain_missing(&error, program, now),
        };
        if !package.join("package.json").exists() {
            return Some(SpawnFailure::Updating(format!("{} has no package.json", package.display())));
        }
        find_retired(&package, now).map(SpawnFailure::Updating)
    }

    fn explain_missing(&self, error: &io::Error, program: &Path, now: Duration) -> Option<SpawnFailure> {
        let link = fs::read_link(&self.path).ok().zip(self.path.parent());
        let file = link.map_or_else(|| self.path.clone(), |(target, folder)| folder.join(target));
        if let Some(why) = package_of(&file).and_then(|package| find_retired(&package, now)) {
            return Some(SpawnFailure::Updating(why));
        }
        let shown = self.path.display();
        match self.opened_by {
            _ if self.existed => Some(SpawnFailure::Updating(format!("{shown} has disappeared: {error}"))),
            OpenedBy::Runtime => Some(SpawnFailure::Program(format!(
                "cannot start {shown} with {}: {error}; correct COMMAND, or install OpenClaw there",
                program.display()
            ))),
            OpenedBy::Kernel | OpenedBy::Unknown => None,
        }
    }
}

/// The package folder of one of its files.
fn package_of(file: &Path) -> Option<PathBuf> {
    let folder = file.parent()?;
    if folder.ends_with("dist") {
        return folder.parent().map(Path::to_owned);
    }
    Some(folder.to_owned()).filter(|folder| folder.ends_with("openclaw"))
}

/// Finds the hidden sibling that npm renames a package to while it replaces it: `.NAME-HASH`.
fn find_retired(package: &Path, now: Duration) -> Option<String> {
    let prefix = format!(".{}-", package.file_name()?.to_str()?);
    let is_its = |name: &str| {
        let hash = name.strip_prefix(&prefix).unwrap_or_default();
        hash.len() == RETIRED_HASH && hash.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let is_young = |changed: i64| {
        u64::try_from(changed).is_ok_and(|changed| now.saturating_sub(Duration::from_secs(changed)) < RETIRED_AGE_MAX)
    };
    let entries = fs::read_dir(package.parent()?).ok()?.flatten();
    let mut retired = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_its));
    let entry = retired.find(|entry| entry.metadata().is_ok_and(|meta| is_young(meta.ctime())))?;
    Some(format!("npm is replacing the package: {} exists", entry.path().display()))
}

/// A hash of the mtimes and sizes of the files. A missing file counts as zeroes. Blocks on the file system.
#[must_use]
pub fn fingerprint<'a>(files: impl IntoIterator<Item = Option<&'a Path>>) -> u64 {
    let words = files.into_iter().flat_map(|file| {
        let meta = file.and_then(|file| fs::metadata(file).ok());
        meta.map_or([0; 3], |meta| [meta.mtime().cast_unsigned(), meta.mtime_nsec().cast_unsigned(), meta.size()])
    });
    fnv1a(words.flat_map(u64::to_le_bytes))
}
