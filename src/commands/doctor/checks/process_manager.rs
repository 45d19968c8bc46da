//! What a process manager besides systemd and launchd gives a stop.

use super::{DRAIN_MAX, MARGIN};
use crate::commands::doctor::finding::Finding;
use crate::core::report::human;
use crate::host::manager::ProcessManager;
use std::time::Duration;

/// `own`: our stop timeout.
pub(in super::super) fn check(manager: ProcessManager, own: Duration) -> Vec<Finding> {
    let mut findings = vec![stop_time(manager, own)];
    if let ProcessManager::Pm2 { kills_tree: true, .. } = manager {
        let why = "a stop sends SIGINT to the gateway's tools and helpers as well, and kills the work that the gateway is \
                   draining";
        findings.push(Finding::warn(
            "kill mode",
            "treekill is on in pm2",
            why,
            "treekill: false (in the ecosystem file)",
        ));
    }
    findings
}

fn stop_time(manager: ProcessManager, own: Duration) -> Finding {
    let check = "stop time";
    let drain = human(DRAIN_MAX);
    let ours = format!("stop timeout {}, gateway drain {drain}", human(own));
    let Some(limit) = manager.stop_limit() else {
        return Finding::ok(check, format!("{} waits without a limit, {ours}", manager.name()));
    };
    let found = format!("{} waits {}, {ours}", manager.name(), human(limit));
    let is_enough = own >= DRAIN_MAX && limit >= own.saturating_add(MARGIN);
    if is_enough {
        return Finding::ok(check, found);
    }
    let time = DRAIN_MAX.saturating_add(MARGIN * 2).as_secs();
    let fix = match manager {
        ProcessManager::Pm2 { .. } => format!("kill_timeout: {} (in the ecosystem file)", time * 1000),
        ProcessManager::Supervisord { .. } => format!("stopwaitsecs={time} (in the section of the program)"),
        ProcessManager::Runit => format!(
            "OPENCLAW_SUPERVISE_STOP_TIMEOUT={}s in the run script, and sv -w {time} force-stop",
            DRAIN_MAX.as_secs() + 1
        ),
        ProcessManager::S6 { .. } => format!("echo {} >timeout-kill (in the service directory)", time * 1000),
    };
    if manager == ProcessManager::Runit && own >= DRAIN_MAX {
        return Finding::ok_since(check, found, format!("a forced stop needs more: sv -w {time} force-stop"));
    }
    if own < limit {
        let why = format!("a longer drain is cut short to end before the SIGKILL of {}", manager.name());
        return Finding::warn(check, found, why, fix);
    }
    let why = format!("{} sends SIGKILL in the middle of the drain, and the gateway is left running", manager.name());
    Finding::warn(check, found, why, fix)
}

#[cfg(test)]
mod tests {
    use super::super::tests::listing;
    use super::*;

    #[test]
    fn a_drain_has_to_fit_into_the_time_of_the_manager() {
        let seconds = Duration::from_secs;
        let pm2 = |kill_timeout, kills_tree| ProcessManager::Pm2 { kill_timeout, kills_tree };
        let cases = [
            ("pm2 by default", pm2(Duration::from_millis(1600), true), seconds(1)),
            ("pm2 with time", pm2(seconds(345), false), seconds(328)),
            ("supervisord by default", ProcessManager::Supervisord { stop_wait: seconds(10) }, seconds(8)),
            ("supervisord, our own timeout", ProcessManager::Supervisord { stop_wait: seconds(10) }, seconds(328)),
            ("supervisord with time", ProcessManager::Supervisord { stop_wait: seconds(337) }, seconds(328)),
            ("runit", ProcessManager::Runit, Duration::from_millis(5600)),
            ("runit with our own timeout", ProcessManager::Runit, seconds(328)),
            ("s6 by default", ProcessManager::S6 { kill_timeout: None }, seconds(328)),
            ("s6", ProcessManager::S6 { kill_timeout: Some(seconds(3)) }, Duration::from_millis(2400)),
        ];
        insta::assert_snapshot!(listing(cases.map(|(case, manager, own)| (case, check(manager, own)))));
    }
}
