//! The directives of the unit that starts us, each against what the supervisor and the gateway need.

use super::{DRAIN_MAX, MARGIN};
use crate::commands::doctor::facts::systemd::UnitFacts;
use crate::commands::doctor::finding::Finding;
use crate::core::exit;
use crate::core::report::human;
use crate::host::manager;
use crate::settings::Settings;
use std::time::Duration;

/// As in the shipped unit.
const TIMEOUT_STOP: &str = "TimeoutStopSec=360";

/// A start limit that quick crashes reach sooner than this is reached by accident.
const START_LIMIT_TIME_MIN: Duration = Duration::from_secs(30);

pub(in super::super) fn check(unit: &UnitFacts, settings: Option<&Settings>) -> Vec<Finding> {
    let mut findings = vec![notify(unit), stop_time(unit, settings), kill_mode(unit), delegate(unit), watchdog(unit)];
    findings.extend([restart(unit), prevented(unit, settings), successes(unit), start_limit(unit), oom_policy(unit)]);
    findings
}

/// Whether systemd accepts our notifications, such as those that extend its timeouts.
fn accepts_notifications(unit: &UnitFacts) -> bool {
    unit.get("NotifyAccess").map_or_else(|| is_notify(unit), |access| access != "none")
}

fn is_notify(unit: &UnitFacts) -> bool {
    matches!(unit.get("Type"), Some("notify" | "notify-reload"))
}

fn notify(unit: &UnitFacts) -> Finding {
    let access = unit.get("NotifyAccess").unwrap_or("unknown");
    let kind = unit.get("Type").unwrap_or("unknown");
    let found = format!("Type={kind}, NotifyAccess={access}");
    if !is_notify(unit) {
        let why = "systemd considers the unit active before the gateway serves, and learns nothing of a drain";
        return Finding::warn("notify", found, why, unit.line("Service", "Type=notify"));
    }
    if access == "main" || access == "none" {
        return Finding::ok("notify", found);
    }
    let why = "every process in the control group, such as a tool of the gateway, may notify in its name";
    Finding::warn("notify", found, why, unit.line("Service", "NotifyAccess=main"))
}

/// The gateway's drain < our stop timeout < systemd's stop timeout.
fn stop_time(unit: &UnitFacts, settings: Option<&Settings>) -> Finding {
    let check = "stop time";
    let fix = || unit.line("Service", TIMEOUT_STOP);
    let Some(systemd) = unit.time("TimeoutStopUSec") else {
        return Finding::warn(check, "systemd does not report TimeoutStopSec", "a drain may be cut short", fix());
    };
    if systemd == Duration::MAX {
        let why = "systemd waits forever for a supervisor that hangs";
        return Finding::warn(check, "TimeoutStopSec=infinity", why, fix());
    }
    let auto = settings.is_none_or(|settings| settings.stop_timeout_is_auto);
    let ours = settings.map_or(DRAIN_MAX, |settings| settings.policy.stop_timeout);
    let (theirs, own) = (human(systemd), human(ours));
    let gateway = human(DRAIN_MAX);
    if !auto && ours < DRAIN_MAX {
        let found = format!("--stop-timeout {own} (TimeoutStopSec={theirs})");
        let why =
            format!("the gateway may drain for {gateway}, but is killed after {own} together with its unfinished work");
        return Finding::warn(check, found, why, "remove --stop-timeout and OPENCLAW_SUPERVISE_STOP_TIMEOUT");
    }
    let found = format!("TimeoutStopSec={theirs}, stop timeout {own}, gateway drain {gateway}");
    if systemd >= ours.saturating_add(MARGIN) {
        return Finding::ok(check, found);
    }
    if accepts_notifications(unit) {
        let why = "it suffices only because the supervisor requests more time during a drain; if one request is lost, systemd \
                   sends SIGKILL in the middle of it";
        return Finding::warn(check, found, why, fix());
    }
    let cut = manager::drain_within(systemd);
    if auto && cut >= DRAIN_MAX {
        return Finding::ok(check, found);
    }
    if auto {
        let cut = human(cut);
        let why =
            format!("the drain is cut short after {cut} to end before systemd's timeout, and unfinished work is lost");
        return Finding::warn(check, found, why, fix());
    }
    Finding::fail(check, found, "systemd sends SIGKILL to the whole control group in the middle of the drain", fix())
}

fn kill_mode(unit: &UnitFacts) -> Finding {
    let check = "kill mode";
    let mode = unit.get("KillMode").unwrap_or("unknown");
    let found = format!("KillMode={mode}");
    let fix = unit.line("Service", "KillMode=mixed");
    match mode {
        "mixed" if unit.get("SendSIGKILL") == Some("no") => Finding::warn(
            check,
            format!("{found}, SendSIGKILL=no"),
            "the processes of a supervisor that hangs are never killed",
            unit.line("Service", "SendSIGKILL=yes"),
        ),
        "mixed" => Finding::ok(check, found),
        "control-group" => Finding::fail(
            check,
            found,
            "a stop sends SIGTERM to the gateway's tools and helpers as well, and kills the work that the gateway is \
             draining",
            fix,
        ),
        "process" => Finding::warn(
            check,
            found,
            "the gateway of a killed supervisor survives and can be adopted, but a stop then leaves it and its descendants \
             running",
            fix,
        ),
        _ => Finding::warn(check, found, "a stop may leave the gateway and its descendants running", fix),
    }
}

fn delegate(unit: &UnitFacts) -> Finding {
    match unit.get("Delegate") {
        Some("yes") => Finding::ok("delegate", "Delegate=yes"),
        other => Finding::warn(
            "delegate",
            format!("Delegate={}", other.unwrap_or("unknown")),
            "without a control group of its own for the gateway, a descendant that detaches completely is not found",
            unit.line("Service", "Delegate=yes"),
        ),
    }
}

fn watchdog(unit: &UnitFacts) -> Finding {
    let fix = unit.line("Service", "WatchdogSec=60");
    // Before the first start systemd reports `infinity`, whatever the unit says.
    let unset = unit.time("WatchdogUSec") == Some(Duration::MAX) && !unit.is_active();
    let written = || unit.written("WatchdogSec").filter(|value| !["", "0", "infinity"].contains(&value.as_str()));
    if let Some(value) = unset.then(written).flatten() {
        return Finding::ok("watchdog", format!("WatchdogSec={value}"));
    }
    match unit.time("WatchdogUSec") {
        Some(time) if time > Duration::ZERO && time != Duration::MAX && accepts_notifications(unit) => {
            Finding::ok("watchdog", format!("WatchdogSec={}", human(time)))
        }
        Some(time) if time > Duration::ZERO && time != Duration::MAX => Finding::fail(
            "watchdog",
            format!("WatchdogSec={}, NotifyAccess=none", human(time)),
            "systemd rejects the keep-alive and kills the supervisor whenever the timeout expires",
            unit.line("Service", "NotifyAccess=main"),
        ),
        _ => Finding::warn("watchdog", "no WatchdogSec", "systemd cannot detect a hung supervisor", fix),
    }
}

fn restart(unit: &UnitFacts) -> Finding {
    let policy = unit.get("Restart").unwrap_or("unknown");
    let found = format!("Restart={policy}");
    // It comes with the exit codes after which another start does not help.
    let fix = if lists(unit, "RestartPreventExitStatus", exit::EX_CONFIG) {
        unit.line("Service", "Restart=always")
    } else {
        unit.lines("Service", &["Restart=always", "RestartPreventExitStatus=78"])
    };
    match policy {
        "always" => Finding::ok("restart", found),
        "no" => Finding::fail("restart", found, "a supervisor that is killed stays down, and the gateway with it", fix),
        _ => Finding::warn(
            "restart",
            found,
            "a supervisor that exits cleanly without `systemctl stop`, such as on a stray SIGTERM, stays down",
            fix,
        ),
    }
}

/// Whether a list of exit statuses has this code, as a number or by its name in systemd.exec(5).
fn lists(unit: &UnitFacts, property: &str, code: u8) -> bool {
    let name = if code == exit::EX_CONFIG { "CONFIG" } else { "UNAVAILABLE" };
    let number = code.to_string();
    unit.get(property).is_some_and(|list| list.split_whitespace().any(|word| word == number || word == name))
}

fn prevented(unit: &UnitFacts, settings: Option<&Settings>) -> Finding {
    let (check, property) = ("exit codes", "RestartPreventExitStatus");
    let conflict = settings.map_or(exit::EX_CONFIG, |settings| settings.policy.conflict_exit_code);
    let found = format!("{property}={}", unit.get(property).unwrap_or_default());
    let missing: Vec<String> = [exit::EX_CONFIG, conflict]
        .into_iter()
        .filter(|code| !lists(unit, property, *code))
        .map(|code| code.to_string())
        .collect();
    if let Some(code) = missing.first().filter(|_| unit.get("Restart") != Some("no")) {
        let why = format!("the exit code {code} says that another start does not help, but systemd restarts forever");
        return Finding::fail(check, found, why, unit.line("Service", &format!("{property}={code}")));
    }
    if lists(unit, property, exit::GAVE_UP) {
        let why = "the exit code 69 says that the restart budget is spent; the next start would go on slowly, but systemd \
                   makes none and the gateway stays down";
        let fix = unit.lines("Service", &[&format!("{property}="), &format!("{property}={}", exit::EX_CONFIG)]);
        return Finding::warn(check, found, why, fix);
    }
    Finding::ok(check, found)
}

fn successes(unit: &UnitFacts) -> Finding {
    let (check, property) = ("successes", "SuccessExitStatus");
    let found = format!("{property}={}", unit.get(property).unwrap_or_default());
    match [exit::EX_CONFIG, exit::GAVE_UP].into_iter().find(|code| lists(unit, property, *code)) {
        Some(code) => Finding::warn(
            check,
            found,
            if code == exit::EX_CONFIG {
                "78 is a failure: as a success it is missing in `systemctl --failed`, and OnFailure= is not started"
            } else {
                "69 is a failure: as a success neither the journal nor $SERVICE_RESULT shows that the restart budget is \
                 spent"
            },
            unit.line("Service", &format!("{property}=")),
        ),
        None => Finding::ok(check, found),
    }
}

/// Our own budget ends the supervisor once and then waits, so only crashes of the supervisor can reach the limit.
fn start_limit(unit: &UnitFacts) -> Finding {
    let check = "start limit";
    let burst = unit.get("StartLimitBurst").and_then(|burst| burst.parse::<u32>().ok());
    let known = burst.zip(unit.time("StartLimitIntervalUSec")).zip(unit.time("RestartUSec"));
    let Some(((burst, interval), pause)) = known else {
        return Finding::ok(check, "systemd does not report its start limit");
    };
    if burst == 0 || interval == Duration::ZERO {
        return Finding::ok(check, "no start limit");
    }
    let (within, each) = (human(interval), human(pause));
    let found = format!("{burst} starts in {within}, RestartSec={each}");
    let soonest = pause.saturating_mul(burst);
    if soonest >= interval {
        return Finding::ok_since(check, found, "it cannot be reached");
    }
    if soonest >= START_LIMIT_TIME_MIN {
        return Finding::ok_since(check, found, "the restart budget ends the supervisor at most once in that time");
    }
    let why = format!("after {burst} crashes of the supervisor within {} systemd starts it no more", human(soonest));
    Finding::warn(check, found, why, unit.line("Unit", "StartLimitIntervalSec=0"))
}

fn oom_policy(unit: &UnitFacts) -> Finding {
    match unit.get("OOMPolicy") {
        Some("continue") => Finding::ok("out of memory", "OOMPolicy=continue"),
        None => Finding::ok("out of memory", "this version of systemd has no OOMPolicy"),
        Some(policy) => Finding::warn(
            "out of memory",
            format!("OOMPolicy={policy}"),
            "when the kernel OOM killer ends one tool, systemd stops the gateway and the supervisor",
            unit.line("Service", "OOMPolicy=continue"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::listing;
    use super::*;
    use crate::commands::doctor::facts::systemd::tests::unit;
    use crate::commands::doctor::finding::Level;
    use crate::settings::{Invocation, ProcessContext, read};
    use std::ffi::OsString;
    use std::sync::Arc;

    fn settings(words: &[&str]) -> Box<Settings> {
        let program = std::env::current_exe().unwrap().into_os_string();
        let line = ["openclaw-supervise", "run"].into_iter().chain(words.iter().copied()).map(OsString::from);
        let context = ProcessContext {
            env: Arc::new(|name| (name == "OPENCLAW_STATE_DIR").then(|| std::env::temp_dir().into_os_string())),
            container: None,
            process_manager: None,
            launchd: false,
            ..ProcessContext::of_this_process()
        };
        match read(line.chain(["--".into(), program]), &context) {
            Ok(Invocation::Run(settings)) => settings,
            other => panic!("{other:?}"),
        }
    }

    fn levels(changes: &[(&str, &str)], words: &[&str]) -> Vec<(&'static str, Level)> {
        let findings = check(&unit(changes), Some(&settings(words)));
        let bad = findings.iter().filter(|finding| finding.level != Level::Ok);
        bad.map(|finding| (finding.check, finding.level)).collect()
    }

    #[test]
    fn the_shipped_unit_is_as_it_should_be() {
        assert_eq!(levels(&[], &[]), []);
        insta::assert_snapshot!(listing([("no settings", check(&unit(&[]), None))]));
    }

    #[test]
    fn each_directive_that_is_wrong_is_found_and_no_other() {
        let cases = [
            ("KillMode", "control-group"),
            ("KillMode", "process"),
            ("KillMode", "none"),
            ("SendSIGKILL", "no"),
            ("Delegate", "no"),
            ("NotifyAccess", "all"),
            ("NotifyAccess", "exec"),
            ("NotifyAccess", "none"),
            ("Type", "simple"),
            ("WatchdogUSec", "0"),
            ("WatchdogUSec", "infinity"),
            ("Restart", "no"),
            ("Restart", "on-failure"),
            ("RestartPreventExitStatus", ""),
            ("RestartPreventExitStatus", "1 77"),
            ("RestartPreventExitStatus", "69 78"),
            ("SuccessExitStatus", "143 78"),
            ("SuccessExitStatus", "69"),
            ("StartLimitIntervalUSec", "1h"),
            ("OOMPolicy", "stop"),
            ("OOMPolicy", "kill"),
            ("OOMPolicy", ""),
            ("TimeoutStopUSec", "30s"),
            ("TimeoutStopUSec", "5min 32s"),
            ("TimeoutStopUSec", "infinity"),
            ("TimeoutStopUSec", ""),
        ];
        insta::assert_snapshot!(listing(cases.map(|change| {
            let mut findings = check(&unit(&[change]), Some(&settings(&[])));
            findings.retain(|finding| finding.level != Level::Ok);
            (format!("{}={}", change.0, change.1), findings)
        })));
    }

    #[test]
    fn an_equivalent_value_is_no_finding() {
        for (name, value) in [
            ("RestartPreventExitStatus", "CONFIG"),
            ("RestartPreventExitStatus", "2 78"),
            ("SuccessExitStatus", "143 SIGTERM"),
            ("StartLimitIntervalUSec", "0"),
            ("StartLimitBurst", "0"),
            ("TimeoutStopUSec", "5min 33s"),
            ("OOMPolicy", ""),
        ] {
            assert_eq!(levels(&[(name, value)], &[]), [], "{name}={value}");
        }
        // The default of systemd.
        let quick = [("StartLimitIntervalUSec", "10s"), ("RestartUSec", "100ms")];
        assert_eq!(levels(&quick, &[]), [("start limit", Level::Warn)]);
        assert_eq!(levels(&quick[..1], &[]), []);
        // That of OpenClaw's own unit.
        assert_eq!(levels(&[("StartLimitBurst", "10"), ("StartLimitIntervalUSec", "5min")], &[]), []);
    }

    #[test]
    fn the_drain_ends_before_our_stop_timeout_and_that_before_systemds() {
        let stop = |changes: &[(&str, &str)], words: &[&str]| {
            let mut findings = check(&unit(changes), Some(&settings(words)));
            findings.retain(|finding| finding.check == "stop time");
            (format!("{changes:?} {words:?}"), findings)
        };
        let silent = |time, words: &[&str]| {
            stop(&[("NotifyAccess", "none"), ("WatchdogUSec", "0"), ("TimeoutStopUSec", time)], words)
        };
        insta::assert_snapshot!(listing([
            silent("6min", &[]),
            silent("30s", &[]),
            silent("5min 29s", &[]),
            // That of OpenClaw's own unit.
            silent("5min 30s", &[]),
            silent("6min", &["--stop-timeout", "10min"]),
            silent("15min", &["--stop-timeout", "10min"]),
            silent("6min", &["--stop-timeout", "30s"]),
            silent("6min", &["--stop-timeout", "auto"]),
            // With notifications the drain gets its time all the same.
            stop(&[("TimeoutStopUSec", "6min")], &["--stop-timeout", "10min"]),
        ]));
    }

    #[test]
    fn a_configured_conflict_exit_code_must_prevent_restarts_too() {
        let words = ["--conflict-exit-code", "17"];
        assert_eq!(levels(&[], &words), [("exit codes", Level::Fail)]);
        assert_eq!(levels(&[("RestartPreventExitStatus", "17 78")], &words), []);
    }
}
