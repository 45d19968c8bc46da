//! The settings of the unit that runs us, each against what we and the gateway need of it.

use super::finding::Finding;
use super::systemd::Unit;
use crate::core::exit;
use crate::core::report::human;
use crate::host::manager;
use crate::settings::Settings;
use std::time::Duration;

/// After this the gateway ends its own drain at the latest.
pub(super) const DRAIN_MAX: Duration = Duration::from_secs(327);

/// What a stop takes beyond the drain: SIGKILL to the tree, the last records, our own end.
pub(super) const MARGIN: Duration = Duration::from_secs(5);

/// What we ship with.
const TIMEOUT_STOP: &str = "TimeoutStopSec=360";

/// Where a limit of starts is met sooner than this, it is met by accident.
const START_LIMIT_TIME_MIN: Duration = Duration::from_secs(30);

/// All of them.
pub(super) fn check(unit: &Unit, settings: Option<&Settings>) -> Vec<Finding> {
    let mut findings = vec![notify(unit), stop_time(unit, settings), kill_mode(unit), delegate(unit), watchdog(unit)];
    findings.extend([restart(unit), prevented(unit, settings), successes(unit), start_limit(unit), oom_policy(unit)]);
    findings
}

/// Whether systemd hears us: then a boot or a drain may take longer than its own times.
fn hears_us(unit: &Unit) -> bool {
    unit.get("NotifyAccess").map_or_else(|| is_notify(unit), |access| access != "none")
}

fn is_notify(unit: &Unit) -> bool {
    matches!(unit.get("Type"), Some("notify" | "notify-reload"))
}

fn notify(unit: &Unit) -> Finding {
    let access = unit.get("NotifyAccess").unwrap_or("unknown");
    let kind = unit.get("Type").unwrap_or("unknown");
    let found = format!("Type={kind}, NotifyAccess={access}");
    if !is_notify(unit) {
        let why = "systemd calls the unit active before a gateway serves, and has no use for our word that one drains";
        return Finding::warn("notify", found, why, unit.line("Service", "Type=notify"));
    }
    if access == "main" || access == "none" {
        return Finding::ok("notify", found);
    }
    let why = "whatever the gateway's tools start may speak for the service";
    Finding::warn("notify", found, why, unit.line("Service", "NotifyAccess=main"))
}

/// The one inequality: the gateway's drain < our stop timeout < systemd's.
fn stop_time(unit: &Unit, settings: Option<&Settings>) -> Finding {
    let check = "stop time";
    let fix = || unit.line("Service", TIMEOUT_STOP);
    let Some(systemd) = unit.time("TimeoutStopUSec") else {
        return Finding::warn(check, "systemd does not tell TimeoutStopSec", "a drain may be cut off", fix());
    };
    if systemd == Duration::MAX {
        let why = "a supervisor that stands still is waited for without an end";
        return Finding::warn(check, "TimeoutStopSec=infinity", why, fix());
    }
    let auto = settings.is_none_or(|settings| settings.stop_timeout_is_auto);
    let ours = settings.map_or(DRAIN_MAX, |settings| settings.policy.stop_timeout);
    let (theirs, own) = (human(systemd), human(ours));
    let gateway = human(DRAIN_MAX);
    if !auto && ours < DRAIN_MAX {
        let found = format!("--stop-timeout {own} (TimeoutStopSec={theirs})");
        let why = format!("the gateway may drain for {gateway}, and is killed with its work after {own}");
        return Finding::warn(check, found, why, "leave --stop-timeout and OPENCLAW_SUPERVISE_STOP_TIMEOUT out");
    }
    let found = format!("TimeoutStopSec={theirs}, our stop timeout {own}, the gateway's drain {gateway}");
    if systemd >= ours.saturating_add(MARGIN) {
        return Finding::ok(check, found);
    }
    if hears_us(unit) {
        let why = "it is long enough only because we ask for more time while the gateway drains; a word that gets lost \
                   is a SIGKILL in the middle of it";
        return Finding::warn(check, found, why, fix());
    }
    let cut = manager::drain_within(systemd);
    if auto && cut >= DRAIN_MAX {
        return Finding::ok(check, found);
    }
    if auto {
        let cut = human(cut);
        let why =
            format!("we end the drain after {cut}, before systemd ends us, and what the gateway works on is lost");
        return Finding::warn(check, found, why, fix());
    }
    Finding::fail(check, found, "systemd sends SIGKILL to all of it in the middle of the drain", fix())
}

fn kill_mode(unit: &Unit) -> Finding {
    let check = "kill mode";
    let mode = unit.get("KillMode").unwrap_or("unknown");
    let found = format!("KillMode={mode}");
    let fix = unit.line("Service", "KillMode=mixed");
    match mode {
        "mixed" if unit.get("SendSIGKILL") == Some("no") => Finding::warn(
            check,
            format!("{found}, SendSIGKILL=no"),
            "what is left of a supervisor that stands still is left for ever",
            unit.line("Service", "SendSIGKILL=yes"),
        ),
        "mixed" => Finding::ok(check, found),
        "control-group" => Finding::fail(
            check,
            found,
            "a stop sends SIGTERM to the gateway's tools and helpers as well, so that they die in the middle of the work \
             that the gateway drains",
            fix,
        ),
        "process" => Finding::warn(
            check,
            found,
            "a gateway outlives a supervisor that was killed, to be adopted by the next one; but a stop then leaves it \
             running, too, with all that it has started",
            fix,
        ),
        _ => Finding::warn(check, found, "a stop may leave the gateway running, with all that it has started", fix),
    }
}

fn delegate(unit: &Unit) -> Finding {
    match unit.get("Delegate") {
        Some("yes") => Finding::ok("delegate", "Delegate=yes"),
        other => Finding::warn(
            "delegate",
            format!("Delegate={}", other.unwrap_or("unknown")),
            "the gateway gets no control group of its own, so that one of its processes which hides well is not found",
            unit.line("Service", "Delegate=yes"),
        ),
    }
}

fn watchdog(unit: &Unit) -> Finding {
    let fix = unit.line("Service", "WatchdogSec=60");
    // Before the first start systemd tells no time, whatever stands in the unit.
    let untold = unit.time("WatchdogUSec") == Some(Duration::MAX) && !unit.is_active();
    let written = || unit.written("WatchdogSec").filter(|value| !["", "0", "infinity"].contains(&value.as_str()));
    if let Some(value) = untold.then(written).flatten() {
        return Finding::ok("watchdog", format!("WatchdogSec={value}"));
    }
    match unit.time("WatchdogUSec") {
        Some(time) if time > Duration::ZERO && time != Duration::MAX && hears_us(unit) => {
            Finding::ok("watchdog", format!("WatchdogSec={}", human(time)))
        }
        Some(time) if time > Duration::ZERO && time != Duration::MAX => Finding::fail(
            "watchdog",
            format!("WatchdogSec={}, NotifyAccess=none", human(time)),
            "systemd does not hear that we live, and ends us each time that it is over",
            unit.line("Service", "NotifyAccess=main"),
        ),
        _ => Finding::warn("watchdog", "no WatchdogSec", "nobody replaces a supervisor that stands still", fix),
    }
}

fn restart(unit: &Unit) -> Finding {
    let policy = unit.get("Restart").unwrap_or("unknown");
    let found = format!("Restart={policy}");
    let fix = unit.line("Service", "Restart=always");
    match policy {
        "always" => Finding::ok("restart", found),
        "no" => {
            Finding::fail("restart", found, "a supervisor that was killed stays down, and with it the gateway", fix)
        }
        _ => Finding::warn(
            "restart",
            found,
            "a supervisor that somebody else than systemd ends, such as by a stray SIGTERM, stays down",
            fix,
        ),
    }
}

/// The codes and names in a list of exit statuses.
fn lists(unit: &Unit, property: &str, code: u8) -> bool {
    let name = if code == exit::EX_CONFIG { "CONFIG" } else { "UNAVAILABLE" };
    let number = code.to_string();
    unit.get(property).is_some_and(|list| list.split_whitespace().any(|word| word == number || word == name))
}

fn prevented(unit: &Unit, settings: Option<&Settings>) -> Finding {
    let (check, property) = ("exit codes", "RestartPreventExitStatus");
    let conflict = settings.map_or(exit::EX_CONFIG, |settings| settings.policy.conflict_exit_code);
    let found = format!("{property}={}", unit.get(property).unwrap_or_default());
    let missing: Vec<String> = [exit::EX_CONFIG, conflict]
        .into_iter()
        .filter(|code| !lists(unit, property, *code))
        .map(|code| code.to_string())
        .collect();
    if let Some(code) = missing.first().filter(|_| unit.get("Restart") != Some("no")) {
        let why = format!("we end with {code} where another start does not help, and would be started for ever");
        return Finding::fail(check, found, why, unit.line("Service", &format!("{property}={code}")));
    }
    if lists(unit, property, exit::GAVE_UP) {
        let why = "we end with 69 when the budget of restarts is spent, and the next start then goes slowly; so the \
                   gateway stays down instead";
        let fix = unit.line("Service", &format!("{property}= and {property}={}", exit::EX_CONFIG));
        return Finding::warn(check, found, why, fix);
    }
    Finding::ok(check, found)
}

fn successes(unit: &Unit) -> Finding {
    let (check, property) = ("successes", "SuccessExitStatus");
    let found = format!("{property}={}", unit.get(property).unwrap_or_default());
    match [exit::EX_CONFIG, exit::GAVE_UP].into_iter().find(|code| lists(unit, property, *code)) {
        Some(code) => Finding::warn(
            check,
            found,
            if code == exit::EX_CONFIG {
                "78 is a failure: as a success it does not show in `systemctl --failed`, and OnFailure= is not run"
            } else {
                "69 is a failure: as a success neither the log of systemd nor $SERVICE_RESULT tells that the budget of \
                 restarts is spent"
            },
            unit.line("Service", &format!("{property}=")),
        ),
        None => Finding::ok(check, found),
    }
}

/// Our own budget ends us once and then waits, so only deaths of the supervisor itself can come to a limit of starts.
fn start_limit(unit: &Unit) -> Finding {
    let check = "start limit";
    let burst = unit.get("StartLimitBurst").and_then(|burst| burst.parse::<u32>().ok());
    let known = burst.zip(unit.time("StartLimitIntervalUSec")).zip(unit.time("RestartUSec"));
    let Some(((burst, interval), pause)) = known else {
        return Finding::ok(check, "systemd does not tell its limit of starts");
    };
    if burst == 0 || interval == Duration::ZERO {
        return Finding::ok(check, "no limit of starts");
    }
    let (within, each) = (human(interval), human(pause));
    let found = format!("{burst} starts in {within}, RestartSec={each}");
    let soonest = pause.saturating_mul(burst);
    if soonest >= interval {
        return Finding::ok_since(check, found, "it cannot be met");
    }
    if soonest >= START_LIMIT_TIME_MIN {
        return Finding::ok_since(check, found, "our own budget ends us at most once in that time");
    }
    let why = format!("after {burst} deaths of the supervisor within {} it stays down for good", human(soonest));
    Finding::warn(check, found, why, unit.line("Unit", "StartLimitIntervalSec=0"))
}

fn oom_policy(unit: &Unit) -> Finding {
    match unit.get("OOMPolicy") {
        Some("continue") => Finding::ok("out of memory", "OOMPolicy=continue"),
        None => Finding::ok("out of memory", "this systemd knows no OOMPolicy"),
        Some(policy) => Finding::warn(
            "out of memory",
            format!("OOMPolicy={policy}"),
            "one tool that the kernel ends for want of memory ends the gateway and us",
            unit.line("Service", "OOMPolicy=continue"),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::systemd::tests::unit;
    use super::*;
    use crate::settings::{Invocation, World, read};
    use std::ffi::OsString;

    fn settings(words: &[&str]) -> Box<Settings> {
        let program = std::env::current_exe().unwrap().into_os_string();
        let line = ["openclaw-supervise", "run"].into_iter().chain(words.iter().copied()).map(OsString::from);
        let world = World {
            env: Box::new(|name| (name == "OPENCLAW_STATE_DIR").then(|| std::env::temp_dir().into_os_string())),
            pid1: false,
            launchd: false,
            ..World::of_process()
        };
        match read(line.chain(["--".into(), program]), &world) {
            Ok(Invocation::Run(settings)) => settings,
            other => panic!("{other:?}"),
        }
    }

    fn levels(changes: &[(&str, &str)], words: &[&str]) -> Vec<(&'static str, Level)> {
        let findings = check(&unit(changes), Some(&settings(words)));
        for finding in &findings {
            let advised = finding.why.is_some() && finding.fix.is_some();
            assert!(advised || finding.level == Level::Ok, "{finding:?}");
        }
        let bad = findings.iter().filter(|finding| finding.level != Level::Ok);
        bad.map(|finding| (finding.check, finding.level)).collect()
    }

    #[test]
    fn the_shipped_unit_is_as_it_should_be() {
        assert_eq!(levels(&[], &[]), []);
        assert!(check(&unit(&[]), None).iter().all(|finding| finding.level == Level::Ok));
    }

    #[test]
    fn each_setting_that_is_wrong_is_found_and_no_other() {
        use Level::{Fail, Warn};
        for (name, value, check, level) in [
            ("KillMode", "control-group", "kill mode", Fail),
            ("KillMode", "process", "kill mode", Warn),
            ("KillMode", "none", "kill mode", Warn),
            ("SendSIGKILL", "no", "kill mode", Warn),
            ("Delegate", "no", "delegate", Warn),
            ("NotifyAccess", "all", "notify", Warn),
            ("NotifyAccess", "exec", "notify", Warn),
            ("Type", "simple", "notify", Warn),
            ("WatchdogUSec", "0", "watchdog", Warn),
            ("WatchdogUSec", "infinity", "watchdog", Warn),
            ("Restart", "no", "restart", Fail),
            ("Restart", "on-failure", "restart", Warn),
            ("RestartPreventExitStatus", "", "exit codes", Fail),
            ("RestartPreventExitStatus", "1 77", "exit codes", Fail),
            ("RestartPreventExitStatus", "69 78", "exit codes", Warn),
            ("SuccessExitStatus", "143 78", "successes", Warn),
            ("SuccessExitStatus", "69", "successes", Warn),
            ("StartLimitIntervalUSec", "1h", "start limit", Warn),
            ("OOMPolicy", "stop", "out of memory", Warn),
            ("OOMPolicy", "kill", "out of memory", Warn),
            ("TimeoutStopUSec", "30s", "stop time", Warn),
            ("TimeoutStopUSec", "5min 32s", "stop time", Warn),
            ("TimeoutStopUSec", "infinity", "stop time", Warn),
            ("TimeoutStopUSec", "", "stop time", Warn),
        ] {
            assert_eq!(levels(&[(name, value)], &[]), [(check, level)], "{name}={value}");
        }
    }

    #[test]
    fn what_is_as_good_is_not_found_fault_with() {
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
        // systemd's own limit, and how quickly it is met.
        let quick = [("StartLimitIntervalUSec", "10s"), ("RestartUSec", "100ms")];
        assert_eq!(levels(&quick, &[]), [("start limit", Level::Warn)]);
        assert_eq!(levels(&quick[..1], &[]), []);
        // OpenClaw's.
        assert_eq!(levels(&[("StartLimitBurst", "10"), ("StartLimitIntervalUSec", "5min")], &[]), []);
    }

    #[test]
    fn the_drain_has_to_end_before_our_stop_timeout_and_that_before_systemds() {
        use Level::{Fail, Warn};
        let deaf =
            |time: &'static str| vec![("NotifyAccess", "none"), ("WatchdogUSec", "0"), ("TimeoutStopUSec", time)];
        let stop = |changes: &[(&str, &str)], words: &[&str]| {
            levels(changes, words).into_iter().find(|(check, _)| *check == "stop time").map(|(_, level)| level)
        };
        for (time, words, level) in [
            ("6min", &[][..], None),
            ("30s", &[], Some(Warn)),
            ("5min 29s", &[], Some(Warn)),
            // OpenClaw's own.
            ("5min 30s", &[], None),
            ("6min", &["--stop-timeout", "10min"], Some(Fail)),
            ("15min", &["--stop-timeout", "10min"], None),
            ("6min", &["--stop-timeout", "30s"], Some(Warn)),
            ("6min", &["--stop-timeout", "auto"], None),
        ] {
            assert_eq!(stop(&deaf(time), words), level, "{time} {words:?}");
        }
        // Where systemd hears us the drain is waited for all the same.
        assert_eq!(stop(&[("TimeoutStopUSec", "6min")], &["--stop-timeout", "10min"]), Some(Warn));
    }

    #[test]
    fn an_exit_code_of_ones_own_for_a_conflict_has_to_be_prevented_as_well() {
        let words = ["--conflict-exit-code", "17"];
        assert_eq!(levels(&[], &words), [("exit codes", Level::Fail)]);
        assert_eq!(levels(&[("RestartPreventExitStatus", "17 78")], &words), []);
    }

    #[test]
    fn a_watchdog_that_does_not_hear_us_ends_us() {
        let found = levels(&[("NotifyAccess", "none")], &[]);
        assert_eq!(found, [("watchdog", Level::Fail)]);
    }

    #[test]
    fn what_is_proposed_against_a_limit_of_starts_takes_it_away() {
        let findings = check(&unit(&[("StartLimitBurst", "5"), ("StartLimitIntervalUSec", "1h")]), None);
        let fix = findings.iter().find(|finding| finding.check == "start limit").and_then(|found| found.fix.clone());
        assert!(fix.is_some_and(|fix| fix.starts_with("StartLimitIntervalSec=0 (below [Unit], ")));
        assert_eq!(levels(&[("StartLimitBurst", "5"), ("StartLimitIntervalUSec", "0")], &[]), []);
    }

    #[test]
    fn the_line_to_change_stands_there_with_its_place() {
        let findings = check(&unit(&[("KillMode", "control-group")]), None);
        let fix = findings.iter().find_map(|finding| finding.fix.as_deref());
        assert_eq!(fix, Some("KillMode=mixed (below [Service], in `systemctl edit openclaw-supervise.service`)"));
    }
}
