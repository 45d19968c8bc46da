//! OpenClaw's package, the Node.js that runs it, and the limit on open files.

use super::program;
use crate::gateway::openclaw::is_openclaw;
use crate::platform::regular_file;
use crate::settings::Settings;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// In bytes. That of OpenClaw has 140 KB.
const MANIFEST_MAX: u64 = 4 * 1024 * 1024;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct OpenclawPackage {
    pub(in super::super) folder: PathBuf,
    pub(in super::super) version: Option<String>,
    /// `engines.node`
    pub(in super::super) engines: Option<String>,
    /// When its files were put in place, in milliseconds since 1970. npm sets a fixed date as the time of the last change, so it
    /// is that of the inode.
    pub(in super::super) installed_ms: Option<i64>,
}

impl OpenclawPackage {
    /// The package that contains the program of the gateway's command.
    pub(in super::super) fn of(settings: &Settings) -> Option<Self> {
        let file = settings.command.iter().find(|word| is_openclaw(word))?;
        let file = fs::canonicalize(file).ok()?;
        file.ancestors().skip(1).find_map(Self::read)
    }

    fn read(folder: &Path) -> Option<Self> {
        let file = folder.join("package.json");
        let text = regular_file::head(&file, MANIFEST_MAX).ok()?;
        let text = String::from_utf8_lossy(&text);
        let manifest: Value = serde_json::from_str(&text).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        (manifest["name"] == "openclaw").then(|| Self {
            folder: folder.to_owned(),
            version: text(&manifest["version"]),
            engines: text(&manifest["engines"]["node"]),
            installed_ms: fs::metadata(file).ok().map(|meta| meta.ctime().saturating_mul(1000)),
        })
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum NodeFacts {
    /// `version`: what `node --version` prints.
    At {
        path: PathBuf,
        version: Option<String>,
    },
    Missing,
}

impl NodeFacts {
    /// The one in the gateway's command, else the first in its `PATH`.
    pub(in super::super) fn find(settings: &Settings, path: Option<&OsStr>) -> Self {
        let named = settings.command.first().map(Path::new).filter(|program| program.ends_with("node"));
        let found = || which::which_in("node", path, "/").ok();
        let Some(path) = named.map(Path::to_owned).or_else(found) else { return Self::Missing };
        let mut command = Command::new(&path);
        command.arg("--version").env_remove("NODE_OPTIONS");
        let version = program::output(command).ok().map(|text| text.trim().trim_start_matches('v').to_owned());
        Self::At { path, version }
    }
}

/// The soft limit on open files of a process, or of this one; `None` if there is none.
pub(in super::super) fn soft_limit(pid: Option<i32>) -> Option<u64> {
    let limits = pid.and_then(|pid| fs::read_to_string(format!("/proc/{pid}/limits")).ok());
    match limits.as_deref().and_then(|text| text.lines().find_map(|line| line.strip_prefix("Max open files"))) {
        Some(line) => line.split_whitespace().next()?.parse().ok(),
        None => rustix::process::getrlimit(rustix::process::Resource::Nofile).current,
    }
}
