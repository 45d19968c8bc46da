//! The jobs of launchd that have to do with us, see launchd.plist(5).

use super::directives::{DRAIN_MAX, MARGIN};
use super::finding::Finding;
use super::program;
use crate::core::report::human;
use crate::settings::Settings;
use serde_json::Value;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What launchd waits for between SIGTERM and SIGKILL when the job says nothing.
const EXIT_TIME_OUT: u64 = 20;

/// The same between two starts of a job.
const THROTTLE_INTERVAL: u64 = 10;

/// The label of OpenClaw's own.
const OPENCLAWS: &str = "ai.openclaw.gateway";

/// One job's file.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Job {
    path: PathBuf,
    /// As `plutil -convert json` has it.
    list: Value,
}

/// The jobs of this user and of the machine.
pub(super) fn gather() -> Vec<Job> {
    let own = std::env::home_dir().map(|home| home.join("Library/LaunchAgents"));
    let folders = own.into_iter().chain(["/Library/LaunchAgents", "/Library/LaunchDaemons"].map(PathBuf::from));
    let entries = folders.flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten());
    entries.map(|entry| entry.path()).filter(|path| is_concerned(path)).filter_map(read).collect()
}

fn is_concerned(path: &Path) -> bool {
    let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
    name.contains("openclaw") && path.extension().is_some_and(|extension| extension == "plist")
}

fn read(path: PathBuf) -> Option<Job> {
    let mut command = Command::new("plutil");
    command.args(["-convert", "json", "-o", "-", "--"]).arg(&path);
    let list = serde_json::from_str(&program::ask(command).ok()?).ok()?;
    Some(Job { path, list })
}

impl Job {
    fn label(&self) -> &str {
        self.list["Label"].as_str().unwrap_or("a job without a label")
    }

    fn words(&self) -> Vec<&str> {
        let program = self.list["Program"].as_str();
        let arguments = self.list["ProgramArguments"].as_array().into_iter().flatten().filter_map(Value::as_str);
        program.into_iter().chain(arguments).collect()
    }

    fn runs_us(&self) -> bool {
        let is_ours = |word: &&str| Path::new(word).file_name().is_some_and(|name| name == "openclaw-supervise");
        self.words().iter().any(is_ours)
    }

    fn seconds(&self, key: &str, default: u64) -> u64 {
        self.list[key].as_u64().unwrap_or(default)
    }

    /// The command that changes one of its keys.
    fn line(&self, key: &str, kind: &str, value: &str) -> String {
        format!("plutil -replace {key} -{kind} {value} {}, and load it again", self.path.display())
    }
}

/// All checks of all jobs.
pub(super) fn check(jobs: &[Job], settings: Option<&Settings>) -> Vec<Finding> {
    let Some(ours) = jobs.iter().find(|job| job.runs_us()) else {
        let mut findings = vec![Finding::warn(
            "launchd job",
            "no job of launchd runs this program",
            "nothing starts it at a login or at boot",
            "openclaw-supervise install",
        )];
        findings.extend(second(jobs));
        return findings;
    };
    let mut findings = vec![program_of(ours), exit_time(ours, settings), keep_alive(ours), throttle(ours)];
    findings.extend(second(jobs));
    findings
}

fn program_of(job: &Job) -> Finding {
    let check = "launchd job";
    let words = job.words();
    let program = words.first().copied().unwrap_or_default();
    let found = format!("{} ({}): {program}", job.label(), job.path.display());
    if Path::new(program).is_absolute() && !Path::new(program).exists() {
        let why = "launchd cannot start it, and parks the job";
        return Finding::fail(
            check,
            found,
            why,
            job.line("ProgramArguments.0", "string", "/usr/local/bin/openclaw-supervise"),
        );
    }
    Finding::ok(check, found)
}

fn exit_time(job: &Job, settings: Option<&Settings>) -> Finding {
    let check = "stop time";
    let launchds = Duration::from_secs(job.seconds("ExitTimeOut", EXIT_TIME_OUT));
    let full = DRAIN_MAX.saturating_add(MARGIN * 2).as_secs().to_string();
    let fix = job.line("ExitTimeOut", "integer", &full);
    let (theirs, gateway) = (human(launchds), human(DRAIN_MAX));
    let explicit = settings.filter(|settings| !settings.stop_timeout_is_auto);
    let found = format!("ExitTimeOut {theirs}, the gateway's drain {gateway}");
    match explicit.map(|settings| settings.policy.stop_timeout) {
        Some(own) if launchds < own.saturating_add(MARGIN) => {
            let found = format!("{found}, our stop timeout {}", human(own));
            Finding::fail(check, found, "launchd sends SIGKILL in the middle of the drain", fix)
        }
        _ if launchds < DRAIN_MAX.saturating_add(MARGIN) => {
            Finding::warn(check, found, "a longer drain is cut off, and the work in it is lost", fix)
        }
        _ => Finding::ok(check, found),
    }
}

fn keep_alive(job: &Job) -> Finding {
    match &job.list["KeepAlive"] {
        Value::Bool(true) => Finding::ok("restart", "KeepAlive true"),
        other => Finding::warn(
            "restart",
            format!("KeepAlive {other}"),
            if other["SuccessfulExit"] == false {
                "a supervisor that somebody else ends, such as by a stray SIGTERM, stays down until the next login"
            } else {
                "a supervisor that was killed stays down, and with it the gateway"
            },
            job.line("KeepAlive", "bool", "true"),
        ),
    }
}

fn throttle(job: &Job) -> Finding {
    let interval = job.seconds("ThrottleInterval", THROTTLE_INTERVAL);
    let found = format!("ThrottleInterval {interval}");
    if interval >= THROTTLE_INTERVAL {
        return Finding::ok("start limit", found);
    }
    let why = "after a burst of crashes launchd parks a job without a word";
    Finding::warn("start limit", found, why, job.line("ThrottleInterval", "integer", "10"))
}

fn second(jobs: &[Job]) -> Option<Finding> {
    let job = jobs.iter().find(|job| job.label().starts_with(OPENCLAWS) && !job.runs_us())?;
    if job.list["Disabled"] == true {
        return None;
    }
    Some(Finding::fail(
        "second service",
        format!("{} ({}) starts a gateway of its own", job.label(), job.path.display()),
        "launchd starts whichever of the two ends, for ever",
        "openclaw gateway stop; or have it start us: openclaw gateway install --wrapper openclaw-supervise --force",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::*;
    use serde_json::json;

    fn job(changes: &Value) -> Job {
        let mut list = json!({
            "Label": "ai.openclaw.supervise",
            "ProgramArguments": ["/bin/sh", "openclaw-supervise", "run"],
            "KeepAlive": true,
            "ThrottleInterval": 10,
            "ExitTimeOut": 340,
        });
        for (key, value) in changes.as_object().unwrap() {
            list[key] = value.clone();
        }
        Job { path: "/Library/LaunchDaemons/ai.openclaw.supervise.plist".into(), list }
    }

    fn bad(jobs: &[Job]) -> Vec<(&'static str, Level)> {
        let findings = check(jobs, None);
        findings
            .iter()
            .filter(|finding| finding.level != Level::Ok)
            .map(|finding| (finding.check, finding.level))
            .collect()
    }

    #[test]
    fn each_key_that_is_wrong_is_found_and_no_other() {
        use Level::{Fail, Warn};
        for (changes, expected) in [
            (json!({}), &[][..]),
            (json!({"ExitTimeOut": 20}), &[("stop time", Warn)]),
            (json!({"ExitTimeOut": null}), &[("stop time", Warn)]),
            (json!({"KeepAlive": {"SuccessfulExit": false}}), &[("restart", Warn)]),
            (json!({"KeepAlive": null}), &[("restart", Warn)]),
            (json!({"ThrottleInterval": 1}), &[("start limit", Warn)]),
            (json!({"ThrottleInterval": null}), &[]),
            (json!({"Program": "/nowhere/openclaw-supervise"}), &[("launchd job", Fail)]),
            (json!({"ProgramArguments": ["/bin/sh"]}), &[("launchd job", Warn)]),
        ] {
            assert_eq!(bad(&[job(&changes)]), expected, "{changes}");
        }
    }

    #[test]
    fn the_shipped_job_is_as_it_should_be() {
        let shipped = include_str!("../../../contrib/launchd/ai.openclaw.supervise.plist");
        let list = plist::Value::from_reader_xml(shipped.as_bytes()).unwrap();
        let mut list = serde_json::to_value(list).unwrap();
        // It need not be installed here.
        list["ProgramArguments"] = json!(["/bin/sh", "/usr/local/bin/openclaw-supervise", "run"]);
        let job = Job { path: "/x/ai.openclaw.supervise.plist".into(), list };
        assert_eq!(
            check(&[job], None).into_iter().filter(|finding| finding.level != Level::Ok).collect::<Vec<_>>(),
            []
        );
    }

    #[test]
    fn openclaws_own_job_is_one_too_many_unless_it_starts_us_or_is_off() {
        let own = |changes: Value| {
            let mut all = json!({"Label": OPENCLAWS, "ProgramArguments": ["/bin/sh", "openclaw"]});
            for (key, value) in changes.as_object().unwrap() {
                all[key] = value.clone();
            }
            job(&all)
        };
        let ours = job(&json!({}));
        assert_eq!(bad(&[own(json!({})), ours.clone()]), [("second service", Level::Fail)]);
        assert_eq!(bad(&[own(json!({"Disabled": true})), ours.clone()]), []);
        assert_eq!(bad(&[own(json!({"ProgramArguments": ["/bin/sh", "openclaw-supervise"]})), ours]), []);
    }

    #[test]
    fn the_files_of_openclaw_are_looked_at_and_no_others() {
        for (path, expected) in [
            ("/a/ai.openclaw.gateway.plist", true),
            ("/a/ai.openclaw.supervise.plist", true),
            ("/a/ai.openclaw.gateway.plist.bak", false),
            ("/a/com.apple.plist", false),
        ] {
            assert_eq!(is_concerned(Path::new(path)), expected, "{path}");
        }
    }
}
