//! The OpenClaw program that the gateway's command names: its command line and its files.

mod files;
#[cfg(test)]
mod tests;

pub use files::fingerprint;

use self::files::EntryFile;
use super::launch::{INSTANCE, Launch, OWNED, scrub};
use crate::core::SpawnFailure;
use crate::platform::regular_file;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The name of a package is at the head of its `package.json`, which has 140 KB.
const MANIFEST_HEAD: u64 = 4096;

/// How to start OpenClaw's CLI: as the gateway is started, up to the word `gateway`.
#[derive(Debug, Clone)]
pub struct Openclaw {
    program: PathBuf,
    arguments: Vec<OsString>,
    exports: Vec<(&'static str, OsString)>,
    entry: EntryFile,
    config: PathBuf,
}

impl Openclaw {
    /// `None` if the gateway's command names no OpenClaw program.
    #[must_use]
    pub fn of(launch: &Launch) -> Option<Self> {
        let words: Vec<_> =
            std::iter::once(launch.program.clone().into()).chain(launch.arguments.iter().cloned()).collect();
        let Named { at, end } = named(&words)?;
        let file = locate(&words[at], std::env::var_os("PATH").as_deref());
        Some(Self {
            program: launch.program.clone(),
            arguments: words[1..end].to_vec(),
            exports: launch.exports.clone(),
            entry: EntryFile::new(file, &launch.program, at),
            config: launch.config.clone(),
        })
    }

    /// Identifies the state of the program's files: equal numbers mean unchanged files. Blocks on the file system.
    #[must_use]
    pub fn fingerprint(&self) -> u64 {
        self.entry.fingerprint(&self.program)
    }

    /// The same of the gateway's configuration.
    pub(super) fn config_fingerprint(&self) -> u64 {
        fingerprint([Some(self.config.as_path())])
    }

    /// The folder of its package, if that was there when we started.
    #[must_use]
    pub fn package(&self) -> Option<&Path> {
        self.entry.package.as_deref()
    }

    /// Why the program cannot be started now. `now` is the time since 1970, as is what `given_up` returns: when the last
    /// installation was cut short, if none is at work. Blocks on the file system.
    #[must_use]
    pub fn obstacle(&self, now: Duration, given_up: impl Fn() -> Option<Duration>) -> Option<SpawnFailure> {
        self.entry.obstacle(&self.program, now, given_up)
    }

    /// Another OpenClaw command, in the gateway's environment. Its standard streams are not set.
    pub(super) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).args(words);
        scrub(&mut command);
        command.env_remove(INSTANCE).envs(OWNED).envs(self.exports.iter().map(|(name, value)| (name, value)));
        command
    }

    /// The command line up to the word `gateway`.
    pub(super) fn line(&self) -> String {
        let words = std::iter::once(self.program.as_os_str()).chain(self.arguments.iter().map(OsString::as_os_str));
        words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ")
    }
}

/// The indices of OpenClaw's program and of the word `gateway` in a command.
struct Named {
    at: usize,
    end: usize,
}

fn named(words: &[OsString]) -> Option<Named> {
    let at = words.iter().position(|word| is_openclaw(word))?;
    // --profile is OpenClaw's only global option with a free value.
    let is_verb = |&end: &usize| words[end] == "gateway" && words[end - 1] != "--profile";
    let end = (at + 1..words.len()).find(is_verb)?;
    Some(Named { at, end })
}

/// A bare `openclaw` is the one on PATH, even if its link is broken. Other names are paths.
fn locate(word: &OsStr, path: Option<&OsStr>) -> PathBuf {
    let named = PathBuf::from(word);
    let folders = path.filter(|_| word == "openclaw").into_iter().flat_map(std::env::split_paths);
    let found = folders
        .map(|folder| folder.join(word))
        .find(|file| fs::symlink_metadata(file).is_ok_and(|meta| meta.is_symlink() || meta.is_file()));
    found.unwrap_or(named)
}

/// Whether a command, program first, starts OpenClaw's gateway.
#[must_use]
pub fn is_gateway(words: &[OsString]) -> bool {
    named(words).is_some()
}

/// Whether this word of a command is OpenClaw's program: the file that npm links to, or the file that that one runs.
#[must_use]
pub fn is_openclaw(word: &OsStr) -> bool {
    let path = Path::new(word);
    match path.file_name().and_then(OsStr::to_str) {
        Some("openclaw" | "openclaw.mjs") => true,
        Some("index.js" | "entry.js" | "index.mjs" | "entry.mjs") => is_built(path),
        _ => false,
    }
}

/// Whether it is in the folder `dist` of OpenClaw's package. If the manifest cannot be read, the folder's name decides.
fn is_built(file: &Path) -> bool {
    let dist = file.parent().filter(|folder| folder.ends_with("dist"));
    let Some(package) = dist.and_then(Path::parent) else { return false };
    match regular_file::head(&package.join("package.json"), MANIFEST_HEAD) {
        Ok(head) => first_name(&String::from_utf8_lossy(&head)) == Some("openclaw"),
        Err(_) => package.ends_with("openclaw"),
    }
}

/// The first `"name": "..."` of a manifest, which is the package's.
fn first_name(manifest: &str) -> Option<&str> {
    let (_, rest) = manifest.split_once("\"name\"")?;
    rest.trim_start().strip_prefix(':')?.trim_start().strip_prefix('"')?.split('"').next()
}
