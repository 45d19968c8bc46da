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

/// Added to what is missing.
const CUT_SHORT: &str = "; an installation was cut short when its gateway ended: run it again";

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
    /// The folder of its package, if it existed when we started.
    pub(super) package: Option<PathBuf>,
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
        let file = fs::canonicalize(&path).ok();
        Self { existed: file.is_some(), package: file.as_deref().and_then(package_of), path, opened_by }
    }

    pub(super) fn fingerprint(&self, program: &Path) -> u64 {
        let package = fs::canonicalize(&self.path).ok().and_then(|file| package_of(&file));
        let manifest = package.as_ref().map(|package| package.join("package.json"));
        fingerprint([Some(program), Some(&self.path), package.as_deref(), manifest.as_deref()])
    }

    /// See [`Openclaw::obstacle`](super::Openclaw::obstacle).
    pub(super) fn obstacle(
        &self,
        program: &Path,
        now: Duration,
        given_up: impl Fn() -> Option<Duration>,
    ) -> Option<SpawnFailure> {
        let package = match fs::canonicalize(&self.path) {
            Ok(file) => package_of(&file)?,
            Err(error) => return self.explain_missing(&error, program, now, given_up),
        };
        if !package.join("package.json").exists() {
            let cut = given_up().map_or("", |_| CUT_SHORT);
            return Some(SpawnFailure::Updating(format!("{} has no package.json{cut}", package.display())));
        }
        // What an installer has left that was cut short stays there, and the package is complete as far as can be seen.
        let retired = find_retired(&package, now)?;
        let is_left = given_up().is_some_and(|cut| retired.changed <= cut);
        (!is_left).then(|| SpawnFailure::Updating(retired.told()))
    }

    /// Without its files it cannot be started, whether an update goes on or was cut short: it is looked for again.
    fn explain_missing(
        &self,
        error: &io::Error,
        program: &Path,
        now: Duration,
        given_up: impl Fn() -> Option<Duration>,
    ) -> Option<SpawnFailure> {
        let link = fs::read_link(&self.path).ok().zip(self.path.parent());
        let file = link.map_or_else(|| self.path.clone(), |(target, folder)| folder.join(target));
        let shown = self.path.display();
        if let Some(retired) = package_of(&file).and_then(|package| find_retired(&package, now)) {
            let is_left = given_up().is_some_and(|cut| retired.changed <= cut);
            let why = if is_left { format!("{shown} is missing: {error}{CUT_SHORT}") } else { retired.told() };
            return Some(SpawnFailure::Updating(why));
        }
        match self.opened_by {
            _ if self.existed => {
                let cut = given_up().map_or("", |_| CUT_SHORT);
                Some(SpawnFailure::Updating(format!("{shown} has disappeared: {error}{cut}")))
            }
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

/// What npm has renamed a package to while it replaces it.
struct Retired {
    path: PathBuf,
    /// When, as the time since 1970, in whole seconds.
    changed: Duration,
}

impl Retired {
    fn told(&self) -> String {
        format!("npm is replacing the package: {} exists", self.path.display())
    }
}

/// Finds the hidden sibling that npm renames a package to while it replaces it: `.NAME-HASH`.
fn find_retired(package: &Path, now: Duration) -> Option<Retired> {
    let prefix = format!(".{}-", package.file_name()?.to_str()?);
    let is_its = |name: &str| {
        let hash = name.strip_prefix(&prefix).unwrap_or_default();
        hash.len() == RETIRED_HASH && hash.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    let entries = fs::read_dir(package.parent()?).ok()?.flatten();
    let retired = entries.filter(|entry| entry.file_name().to_str().is_some_and(is_its));
    let dated = |entry: fs::DirEntry| {
        let changed = Duration::from_secs(u64::try_from(entry.metadata().ok()?.ctime()).ok()?);
        Some(Retired { path: entry.path(), changed })
    };
    retired.filter_map(dated).find(|retired| now.saturating_sub(retired.changed) < RETIRED_AGE_MAX)
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
