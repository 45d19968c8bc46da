//! The jobs of launchd that start this program or OpenClaw, see launchd.plist(5).

use super::program;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

#[derive(Debug, Clone, PartialEq)]
pub(in super::super) struct LaunchdJob {
    pub(in super::super) path: PathBuf,
    /// The property list as `plutil -convert json` prints it.
    pub(in super::super) list: Value,
}

/// The jobs of this user and of the system.
pub(in super::super) fn gather() -> Vec<LaunchdJob> {
    let own = std::env::home_dir().map(|home| home.join("Library/LaunchAgents"));
    let folders = own.into_iter().chain(["/Library/LaunchAgents", "/Library/LaunchDaemons"].map(PathBuf::from));
    let entries = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    entries.map(|entry| entry.path()).filter(|path| is_openclaw_job(path)).filter_map(read).collect()
}

fn is_openclaw_job(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.contains("openclaw") && path.extension().is_some_and(|extension| extension == "plist")
}

fn read(path: PathBuf) -> Option<LaunchdJob> {
    let mut command = Command::new("plutil");
    command.args(["-convert", "json", "-o", "-", "--"]).arg(&path);
    let list = serde_json::from_str(&program::output(command).ok()?).ok()?;
    Some(LaunchdJob { path, list })
}

impl LaunchdJob {
    pub(in super::super) fn label(&self) -> &str {
        self.list["Label"].as_str().unwrap_or("unnamed job")
    }

    pub(in super::super) fn words(&self) -> Vec<&str> {
        let program = self.list["Program"].as_str();
        let arguments = self.list["ProgramArguments"].as_array().into_iter().flatten().filter_map(Value::as_str);
        program.into_iter().chain(arguments).collect()
    }

    pub(in super::super) fn runs_us(&self) -> bool {
        self.words().iter().any(program::is_ours)
    }

    /// As `launchctl print` shows it, such as `running`. `None` if the job is not loaded, or launchctl does not answer.
    pub(in super::super) fn state(&self) -> Option<String> {
        let mut command = Command::new("launchctl");
        command.args(["print", &format!("gui/{}/{}", rustix::process::getuid().as_raw(), self.label())]);
        let text = program::output(command).ok()?;
        let state = text.lines().find_map(|line| line.trim().strip_prefix("state = "));
        state.map(str::to_owned)
    }

    pub(in super::super) fn seconds(&self, key: &str, default: u64) -> u64 {
        self.list[key].as_u64().unwrap_or(default)
    }

    /// How to change one of its keys.
    pub(in super::super) fn line(&self, key: &str, kind: &str, value: &str) -> String {
        format!("plutil -replace {key} -{kind} {value} {}, then load it again", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_job_files_of_openclaw_are_read() {
        for (path, expected) in [
            ("/a/ai.openclaw.gateway.plist", true),
            ("/a/ai.openclaw.supervise.plist", true),
            ("/a/ai.openclaw.gateway.plist.bak", false),
            ("/a/com.apple.plist", false),
        ] {
            assert_eq!(is_openclaw_job(Path::new(path)), expected, "{path}");
        }
    }
}
