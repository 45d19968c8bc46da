//! The keys of the launchd job that starts us, and other jobs for the same gateway, see launchd.plist(5).

use super::{DRAIN_MAX, MARGIN};
use crate::commands::doctor::facts::launchd::LaunchdJob;
use crate::commands::doctor::finding::Finding;
use crate::core::report::human;
use crate::settings::Settings;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// launchd's default between SIGTERM and SIGKILL, in seconds.
const EXIT_TIME_OUT: u64 = 20;

/// Its default between two starts of a job, in seconds.
const THROTTLE_INTERVAL: u64 = 10;

/// The label of OpenClaw's own job.
const OPENCLAWS: &str = "ai.openclaw.gateway";

pub(in super::super) fn check(jobs: &[LaunchdJob], settings: Option<&Settings>) -> Vec<Finding> {
    let Some(ours) = jobs.iter().find(|job| job.runs_us()) else {
        let mut findings = vec![Finding::warn(
            "launchd job",
            "no launchd job runs openclaw-supervise",
            "nothing starts it at login or at boot",
            "openclaw-supervise install",
        )];
        findings.extend(second(jobs));
        return findings;
    };
    let mut findings = vec![program_of(ours), exit_time(ours, settings), keep_alive(ours), throttle(ours)];
    findings.extend(second(jobs));
    findings
}

fn program_of(job: &LaunchdJob) -> Finding {
    let check = "launchd job";
    let words = job.words();
    let program = words.first().copied().unwrap_or_default();
    let found = format!("{} ({}): {program}", job.label(), job.path.display());
    if Path::new(program).is_absolute() && !Path::new(program).exists() {
        let why = "launchd cannot start it and disables the job";
        return Finding::fail(
            check,
            found,
            why,
            job.line("ProgramArguments.0", "string", "/usr/local/bin/openclaw-supervise"),
        );
    }
    Finding::ok(check, found)
}

fn exit_time(job: &LaunchdJob, settings: Option<&Settings>) -> Finding {
    let check = "stop time";
    let launchds = Duration::from_secs(job.seconds("ExitTimeOut", EXIT_TIME_OUT));
    let full = DRAIN_MAX.saturating_add(MARGIN * 2).as_secs().to_string();
    let fix = job.line("ExitTimeOut", "integer", &full);
    let (theirs, gateway) = (human(launchds), human(DRAIN_MAX));
    let explicit = settings.filter(|settings| !settings.stop_timeout_is_auto);
    let found = format!("ExitTimeOut {theirs}, gateway drain {gateway}");
    match explicit.map(|settings| settings.policy.stop_timeout) {
        Some(own) if launchds < own.saturating_add(MARGIN) => {
            let found = format!("{found}, stop timeout {}", human(own));
            Finding::fail(check, found, "launchd sends SIGKILL in the middle of the drain", fix)
        }
        _ if launchds < DRAIN_MAX.saturating_add(MARGIN) => {
            Finding::warn(check, found, "a longer drain is cut short, and unfinished work is lost", fix)
        }
        _ => Finding::ok(check, found),
    }
}

fn keep_alive(job: &LaunchdJob) -> Finding {
    match &job.list["KeepAlive"] {
        Value::Bool(true) => Finding::ok("restart", "KeepAlive true"),
        other => Finding::warn(
            "restart",
            format!("KeepAlive {other}"),
            if other["SuccessfulExit"] == false {
                "a supervisor that exits cleanly, such as on a stray SIGTERM, stays down until the next login"
            } else {
                "a supervisor that is killed stays down, and the gateway with it"
            },
            job.line("KeepAlive", "bool", "true"),
        ),
    }
}

fn throttle(job: &LaunchdJob) -> Finding {
    let interval = job.seconds("ThrottleInterval", THROTTLE_INTERVAL);
    let found = format!("ThrottleInterval {interval}");
    if interval >= THROTTLE_INTERVAL {
        return Finding::ok("start limit", found);
    }
    let why = "launchd silently disables a job that crashes too quickly";
    Finding::warn("start limit", found, why, job.line("ThrottleInterval", "integer", "10"))
}

fn second(jobs: &[LaunchdJob]) -> Option<Finding> {
    let job = jobs.iter().find(|job| job.label().starts_with(OPENCLAWS) && !job.runs_us())?;
    if job.list["Disabled"] == true {
        return None;
    }
    Some(Finding::fail(
        "second service",
        format!("{} ({}) starts a gateway of its own", job.label(), job.path.display()),
        "launchd keeps restarting the one that loses the port",
        "openclaw gateway stop; or let it start this supervisor: openclaw gateway install --wrapper openclaw-supervise --force",
    ))
}

#[cfg(test)]
mod tests {
    use super::super::tests::listing;
    use super::*;
    use serde_json::json;

    fn job(changes: &Value) -> LaunchdJob {
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
        LaunchdJob { path: "/Library/LaunchDaemons/ai.openclaw.supervise.plist".into(), list }
    }

    #[test]
    fn each_key_that_is_wrong_is_found_and_no_other() {
        let cases = [
            json!({}),
            json!({"ExitTimeOut": 20}),
            json!({"ExitTimeOut": null}),
            json!({"KeepAlive": {"SuccessfulExit": false}}),
            json!({"KeepAlive": null}),
            json!({"ThrottleInterval": 1}),
            json!({"ThrottleInterval": null}),
            json!({"Program": "/nowhere/openclaw-supervise"}),
            json!({"ProgramArguments": ["/bin/sh"]}),
        ];
        insta::assert_snapshot!(listing(cases.map(|changes| (changes.to_string(), check(&[job(&changes)], None)))));
    }

    #[test]
    fn the_shipped_job_is_as_it_should_be() {
        let shipped = include_str!("../../../../contrib/launchd/ai.openclaw.supervise.plist");
        let list = plist::Value::from_reader_xml(shipped.as_bytes()).unwrap();
        let mut list = serde_json::to_value(list).unwrap();
        // It need not be installed here.
        list["ProgramArguments"] = json!(["/bin/sh", "/usr/local/bin/openclaw-supervise", "run"]);
        let job = LaunchdJob { path: "/x/ai.openclaw.supervise.plist".into(), list };
        assert!(check(&[job], None).iter().all(|finding| finding.fix.is_none()));
    }

    #[test]
    fn openclaws_own_job_is_a_second_service_unless_it_starts_us_or_is_disabled() {
        let own = |changes: Value| {
            let mut all = json!({"Label": OPENCLAWS, "ProgramArguments": ["/bin/sh", "openclaw"]});
            for (key, value) in changes.as_object().unwrap() {
                all[key] = value.clone();
            }
            job(&all)
        };
        let ours = job(&json!({}));
        let wrapper = json!({"ProgramArguments": ["/bin/sh", "openclaw-supervise"]});
        let second = |own| second(&[own, ours.clone()]).into_iter().collect();
        insta::assert_snapshot!(listing([
            ("enabled", second(own(json!({})))),
            ("disabled", second(own(json!({"Disabled": true})))),
            ("starts us", second(own(wrapper))),
        ]));
    }
}
