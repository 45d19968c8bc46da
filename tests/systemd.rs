//! The shipped unit under a real systemd. Each test boots one as PID 1 of its own namespaces, see `systemd/machine.sh`, or says
//! what is missing for that.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]
#![expect(clippy::disallowed_methods, reason = "what systemd takes is measured by the test's own clock")]

#[path = "systemd/doctor.rs"]
mod doctor;
#[path = "systemd/install.rs"]
mod install;
#[path = "systemd/machine.rs"]
#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod machine;
#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use machine::{Machine, SHIPPED, Unit};
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};
use support::{let_pass, process};

#[test]
fn the_unit_is_activating_until_a_gateway_has_started_and_active_only_then() {
    let machine = Machine::boot("boot=1s warm=500ms");
    let unit = machine.shipped(&[]);
    unit.order_only("start");
    unit.wait_for("the word that it boots", || {
        assert!(!unit.has_reported("gateway.started"), "{}", unit.story());
        unit.status_text().starts_with("gateway 1 (pid ") && unit.status_text().ends_with(") is starting")
    });
    unit.wait_for("the unit to be active", || {
        let state = unit.state();
        assert!(state == "activating" || unit.has_reported("gateway.started"), "{state}\n{}", unit.story());
        state == "active"
    });
    unit.wait_serving(1);
    let shown = machine.systemctl(&["status", SHIPPED]);
    let shown = String::from_utf8_lossy(&shown.stdout);
    assert!(shown.contains("Status: \"gateway 1 (pid "), "{shown}");
}

#[test]
fn a_gateway_that_dies_is_replaced_inside_the_unit() {
    let machine = Machine::boot("healthy");
    let unit = machine.shipped(&[]);
    unit.order_well("start");
    let (main, first) = (unit.property("MainPID"), machine.gateway());
    first.kill();
    unit.wait_serving_through(2, &["active"]);
    assert_ne!(machine.gateway(), first);
    assert_eq!((unit.property("MainPID"), unit.property("NRestarts").as_str()), (main, "0"), "{}", unit.story());
}

#[test]
fn a_frozen_gateway_is_replaced_while_the_unit_stays_active() {
    let machine = Machine::boot("healthy");
    let unit = machine.shipped(&[]);
    unit.order_well("start");
    let (main, first) = (unit.property("MainPID"), machine.gateway());
    first.signal(Signal::SIGSTOP);
    unit.wait_serving_through(2, &["active"]);
    assert!(unit.has_reported("gateway.hung") && !first.is_alive(), "{}", unit.story());
    assert_eq!((unit.property("MainPID"), unit.property("NRestarts").as_str()), (main, "0"), "{}", unit.story());
}

#[test]
fn a_hung_supervisor_is_killed_by_the_watchdog_and_restarted_with_one_gateway() {
    let machine = Machine::boot("kid=setsid");
    let unit = machine.shipped(&["WatchdogSec=3s", "RestartSec=3s"]);
    unit.order_well("start");
    let (supervisor, first) = (unit.supervisor(), machine.gateway());
    // A running one is left alone.
    let_pass(Duration::from_secs(5));
    assert_eq!(unit.supervisor(), supervisor, "{}", unit.story());
    supervisor.signal(Signal::SIGSTOP);
    unit.wait_for("its end", || unit.property("SubState") == "auto-restart");
    assert_eq!(unit.property("Result"), "watchdog", "{}", unit.story());
    assert!(!supervisor.is_alive() && !first.is_alive(), "{}", unit.story());
    unit.wait_state("active");
    assert_eq!(unit.property("NRestarts"), "1", "{}", unit.story());
    unit.wait_for("the child of the one gateway", || machine.diary().kids().len() == 2);
    machine.gateway();
    assert_eq!(machine.processes().len(), 3, "{}", process::describe(&machine.processes()));
}

#[test]
fn a_duplicate_unit_ends_with_78_says_why_and_is_not_restarted() {
    let machine = Machine::boot("healthy");
    let unit = machine.shipped(&[]);
    unit.order_well("start");
    let gateway = machine.gateway();
    let second = machine.copy("second", &["RestartSec=100ms"]);
    assert!(!second.order("start"));
    second.wait_state("failed");
    // Longer than RestartSec.
    let_pass(Duration::from_secs(1));
    let got = ["ActiveState", "ExecMainStatus", "NRestarts", "Result"].map(|name| second.property(name));
    assert_eq!(got, ["failed", "78", "0", "exit-code"], "{}", second.story());
    let (text, owner) = (second.status_text(), format!("pid {} ", unit.property("MainPID")));
    assert!(text.contains(&owner), "{text:?} does not name {owner:?}\n{}", second.story());
    assert_eq!((unit.state().as_str(), machine.gateway()), ("active", gateway));
}

#[test]
fn a_reload_replaces_the_gateway_and_is_over_when_the_next_one_serves() {
    let machine = Machine::boot("boot=1s drain=1s");
    let unit = machine.shipped(&[]);
    unit.order_well("start");
    let (main, first) = (unit.property("MainPID"), machine.gateway());
    unit.order_only("reload");
    unit.wait_for("the word that the next one boots", || {
        let text = unit.status_text();
        text.starts_with("gateway 2 (pid ") && text.ends_with(") is starting")
    });
    assert_eq!(unit.state(), "reloading", "{}", unit.story());
    unit.wait_for("the end of the reload", || {
        let state = unit.state();
        assert!(["reloading", "active"].contains(&state.as_str()), "{state}\n{}", unit.story());
        state == "active"
    });
    assert!(unit.says_serving(2) && !first.is_alive(), "{}", unit.story());
    assert_eq!((unit.property("MainPID"), unit.property("NRestarts").as_str()), (main, "0"), "{}", unit.story());
}

#[test]
fn a_stop_leaves_nothing_and_is_a_success() {
    let machine = Machine::boot("kid=plain kid=daemon kid=ignoring");
    let unit = machine.shipped(&[]);
    unit.order_well("start");
    machine.diary().wait_kids(3);
    // Supervisor, gateway and its children: what forked the daemon has ended.
    unit.wait_for("five processes", || machine.processes().len() == 5);
    let cgroup = unit.cgroup();
    assert!(cgroup.exists());
    unit.order_well("stop");
    let got = ["ActiveState", "Result", "ExecMainCode", "ExecMainStatus", "NRestarts"].map(|name| unit.property(name));
    // It exited: CLD_EXITED is 1.
    assert_eq!(got, ["inactive", "success", "1", "0", "0"], "{}", unit.story());
    let text = unit.status_text();
    assert!(text.starts_with("stopped as asked by SIGTERM"), "{text}");
    assert_eq!(machine.processes(), [], "{}", process::describe(&machine.processes()));
    assert!(!cgroup.exists());
}

#[test]
fn boots_drains_and_reloads_may_take_longer_than_the_timeouts_of_the_unit() {
    let machine = Machine::boot("boot=4s drain=4s");
    let unit = machine.shipped(&["TimeoutStartSec=2s", "TimeoutStopSec=2s"]);
    unit.order_well("start");
    unit.order_well("reload");
    unit.wait_serving_through(2, &["reloading", "active"]);
    let gateway = machine.gateway();
    unit.order_well("stop");
    assert!(!gateway.is_alive());
    let got = ["ActiveState", "Result", "NRestarts"].map(|name| unit.property(name));
    assert_eq!(got, ["inactive", "success", "0"], "{}", unit.story());
    // Both had the time to exit.
    let exits = machine.diary().text().lines().filter(|line| line.starts_with("EXIT ") && line.ends_with(" 0")).count();
    assert_eq!(exits, 2, "{}\n{}", machine.diary().text(), unit.story());
}

#[test]
fn a_drain_is_over_before_a_service_like_openclaws_own_is_killed() {
    let machine = Machine::boot("drain=100s kid=setsid");
    let unit = machine.wrapped(&["TimeoutStopSec=12s"]);
    unit.order_well("start");
    unit.wait_for("a gateway", || unit.has_reported("gateway.started"));
    unit.wait_for("the unit's own time", || unit.has_said("a gateway may drain for 7s"));
    let cgroup = unit.cgroup();
    let begin = Instant::now();
    unit.order_well("stop");
    let took = begin.elapsed();
    assert!((Duration::from_secs(7)..Duration::from_secs(12)).contains(&took), "{took:?}\n{}", unit.story());
    assert!(unit.has_reported("stop.escalated"), "{}", unit.story());
    // It exited: CLD_EXITED is 1. After SIGKILL the code would differ.
    let got = ["ActiveState", "Result", "ExecMainCode", "ExecMainStatus", "NRestarts"].map(|name| unit.property(name));
    assert_eq!(got, ["inactive", "success", "1", "0", "0"], "{}", unit.story());
    assert!(machine.processes().is_empty() && !cgroup.exists(), "{}", process::describe(&machine.processes()));
}

#[test]
fn a_supervisor_that_hangs_while_a_gateway_boots_is_killed() {
    let machine = Machine::boot("boot=170s");
    let unit = machine.shipped(&["TimeoutStartSec=1s", "RestartSec=10min"]);
    unit.order_only("start");
    unit.wait_for("the word that it boots", || unit.status_text().ends_with(") is starting"));
    unit.supervisor().signal(Signal::SIGSTOP);
    // 30 s after the last notification.
    unit.wait_for("the end of the start", || unit.property("SubState") == "auto-restart");
    assert_eq!((unit.property("Result").as_str(), machine.processes().len()), ("timeout", 0), "{}", unit.story());
}

#[test]
fn a_detach_is_refused_where_the_unit_would_end_the_gateway() {
    let machine = Machine::boot("healthy");
    let unit = machine.shipped(&[]);
    unit.order_well("start");
    let (supervisor, gateway) = (unit.supervisor(), machine.gateway());
    supervisor.signal(Signal::SIGQUIT);
    unit.wait_for("the refusal", || unit.has_reported("detach.refused"));
    assert_eq!((unit.state().as_str(), unit.supervisor(), machine.gateway()), ("active", supervisor, gateway));
}

#[test]
fn the_shipped_units_pass_systemd_analyze_verify() {
    let machine = Machine::boot("healthy");
    let path = "/etc/systemd/system/openclaw-supervise.service";
    let template = machine.of_account(&[]);
    let instance = "/etc/systemd/system/openclaw-supervise@alice.service";
    for (manager, path) in [("--system", path), ("--user", path), ("--system", instance)] {
        let output = machine.run(&["XDG_RUNTIME_DIR=/run", "systemd-analyze", manager, "verify", path]);
        let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && said.trim().is_empty(), "{manager} {path}: {said}\n{}", template.story());
    }
    // The check can fail.
    assert!(machine.run(&["sed", "-i", "s/^Type=notify/Typ=notify/", path]).status.success());
    let output = machine.run(&["systemd-analyze", "verify", path]);
    assert!(String::from_utf8_lossy(&output.stderr).contains("Typ"), "{output:?}");
}

#[test]
fn the_shipped_unit_works_under_a_user_manager() {
    let machine = Machine::boot("healthy");
    let unit = machine.of_user(&[]);
    unit.order_well("enable");
    let link = "/run/user/0/config/systemd/user/default.target.wants/openclaw-supervise.service";
    assert!(machine.run(&["test", "-L", link]).status.success(), "{}", unit.story());
    unit.order_well("start");
    let (supervisor, gateway) = (unit.supervisor(), machine.gateway());
    assert!(unit.cgroup().display().to_string().contains("/user@0.service/"), "{}", unit.story());
    supervisor.signal(Signal::SIGQUIT);
    unit.wait_for("the refusal", || unit.has_reported("detach.refused"));
    gateway.kill();
    unit.wait_serving_through(2, &["active"]);
    assert_eq!((unit.supervisor(), unit.property("NRestarts").as_str()), (supervisor, "0"), "{}", unit.story());
    unit.order_well("stop");
    let got = ["ActiveState", "Result", "ExecMainStatus"].map(|name| unit.property(name));
    assert_eq!(got, ["inactive", "success", "0"], "{}", unit.story());
    assert!(!supervisor.is_alive() && machine.gateways().is_empty(), "{}", unit.story());
}

#[test]
fn the_template_runs_a_gateway_with_only_the_rights_of_its_user() {
    let machine = Machine::boot("healthy");
    let unit = machine.of_account(&[]);
    unit.order_well("start");
    let (supervisor, gateway) = (unit.supervisor(), machine.gateway());
    for process in [supervisor, gateway] {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).expect("it lives");
        for line in ["Uid:\t1234\t1234\t1234\t1234", "NoNewPrivs:\t1", "CapBnd:\t0000000000000000", "Seccomp:\t2"] {
            assert!(status.lines().any(|found| found == line), "{line:?} is not in\n{status}");
        }
    }
    // The gateway has its own control group despite the hardening.
    let group = std::fs::read_to_string(format!("/proc/{}/cgroup", gateway.pid)).expect("it lives");
    assert!(group.contains("openclaw-gateway-"), "{group}\n{}", unit.story());
    gateway.kill();
    unit.wait_serving_through(2, &["active"]);
    let output = machine.run(&["sh", "-c", "find /srv/alice -user root -o -perm /077 -type f"]);
    assert!(output.stdout.is_empty(), "{}", String::from_utf8_lossy(&output.stdout));
    unit.order_well("stop");
    let got = ["ActiveState", "Result", "ExecMainStatus"].map(|name| unit.property(name));
    assert_eq!(got, ["inactive", "success", "0"], "{}", unit.story());
    assert!(!supervisor.is_alive() && machine.gateways().is_empty(), "{}", unit.story());
}

#[test]
fn openclaws_own_service_and_ours_stop_each_other() {
    let machine = Machine::boot("healthy");
    let (unit, own) = (machine.shipped(&[]), machine.idle("openclaw-gateway"));
    own.order_well("start");
    unit.order_well("start");
    assert_eq!((own.state().as_str(), unit.state().as_str()), ("inactive", "active"), "{}", unit.story());
    own.order_well("start");
    unit.wait_state("inactive");
    assert!(machine.gateways().is_empty(), "{}", unit.story());
}

#[test]
fn a_supervisor_that_is_killed_is_followed_by_one_gateway() {
    let machine = Machine::boot("healthy");
    let unit = machine.shipped(&["RestartSec=100ms"]);
    unit.order_well("start");
    let (first, supervisor) = (machine.gateway(), unit.supervisor());
    supervisor.kill();
    unit.wait_for("the next supervisor", || unit.property("NRestarts") == "1");
    unit.wait_serving(2);
    assert_ne!(machine.gateway(), first);
    assert!(!first.is_alive());
}

#[test]
fn a_spent_budget_never_hits_the_start_limit_of_systemd() {
    let machine = Machine::boot("exit=1");
    let quick = "Environment=OPENCLAW_SUPERVISE_MAX_RESTARTS=1";
    let unit = machine.shipped(&["RestartSec=100ms", quick]);
    unit.order_only("start");
    // systemd's own limit would be five starts within ten seconds.
    let restarts = || unit.property("NRestarts").parse::<u32>().unwrap_or(0);
    unit.wait_for("the seventh start", || restarts() >= 6);
    assert!(unit.has_reported("restart.gave_up"), "{}", unit.story());
    assert_ne!(unit.property("Result"), "start-limit-hit");
    unit.order_well("stop");
}

#[test]
fn start_now_starts_a_failed_unit_and_says_so() {
    let machine = Machine::boot("healthy");
    let unit = machine.shipped(&["Restart=no"]);
    unit.order_well("start");
    unit.supervisor().kill();
    unit.wait_state("failed");
    let all = unit.property("Environment");
    let ours = |word: &&str| word.starts_with("OPENCLAW_STATE_DIR=") || word.starts_with("OPENCLAW_GATEWAY_PORT=");
    let words: Vec<_> = all.split_whitespace().filter(ours).chain(["openclaw-supervise", "start-now"]).collect();
    let output = machine.run(&words);
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{output:?}\n{}", unit.story());
    assert!(said.starts_with("started openclaw-supervise.service; see "), "{output:?}");
    assert_eq!(unit.state(), "active");
    unit.wait_serving(2);
}

/// Three unclean boots within five minutes: the fourth waits, and a restart of the unit does not.
#[test]
fn the_unit_is_active_while_the_breakers_wait_lasts_and_a_restart_of_it_returns() {
    let machine = Machine::boot("exit=1@300ms");
    let unit = machine.shipped(&["Environment=OPENCLAW_SUPERVISE_BOOT_LIMIT=2"]);
    unit.order_well("start");
    let is_told = || unit.status_text().starts_with("waiting until ");
    unit.wait_for("the wait", is_told);
    assert_eq!(unit.state(), "active");
    let began = Instant::now();
    unit.order_well("restart");
    assert!(began.elapsed() < Duration::from_secs(30), "{}", unit.story());
    assert_eq!(unit.state(), "active");
    unit.wait_for("the wait", is_told);
}

#[test]
fn journalctl_finds_a_crash_by_its_priority_and_a_crash_loop_among_the_errors() {
    let machine = Machine::boot("healthy; exit=1@100ms");
    machine.keep_journal();
    let settings = ["StandardError=journal", "Restart=no", "Environment=OPENCLAW_SUPERVISE_LOG_FORMAT="];
    let unit = machine.shipped(&[&settings[..], &["Environment=OPENCLAW_SUPERVISE_MAX_RESTARTS=4"]].concat());
    let read = |words: &[&str]| machine.journalctl(&[&["--unit", SHIPPED, "_COMM=openclaw-superv"], words].concat());
    unit.order_well("start");
    unit.wait_for("its start", || read(&[]).contains("gateway.started"));
    assert_eq!(read(&["--priority=warning"]), "", "a start is no warning");
    machine.gateway().kill();
    unit.wait_for("the crash", || read(&["--priority=warning"]).contains("gateway.exited"));
    unit.wait_for("the loop", || read(&["--priority=err"]).contains("restart.scheduled crash loop"));
    unit.wait_state("failed");
    let errors = read(&["--priority=err"]);
    assert!(errors.contains("restart.gave_up") && errors.contains("supervisor.stopped exit code 69"), "{errors}");
    assert!(!errors.contains("gateway.spawned"), "{errors}");
    // Text, without the prefix and a second time.
    let all = read(&[]);
    assert!(all.lines().any(|line| line.starts_with("INFO gateway.started gateway 1 ")), "{all}");
    assert!(!all.contains('<') && !all.contains("{\"event\""), "{all}");
}

#[test]
fn explain_reads_the_last_output_of_a_dead_gateway_back_from_the_journal() {
    let machine = Machine::boot("healthy");
    machine.keep_journal();
    let command = "/bin/sh -c 'echo listening; echo unknown key gateway.tokne >&2; sleep 0.3; exit 78'";
    let start = format!("ExecStart=openclaw-supervise run -- {command}");
    let settings = ["StandardOutput=journal", "StandardError=journal", "ExecStart=", &start];
    let unit = machine.shipped(&settings);
    unit.order_only("start");
    unit.wait_state("failed");
    let store = format!("{}/state/supervise", machine.shared());
    let explained = || {
        let output = machine.run(&["openclaw-supervise", "--store-dir", &store, "explain", "--json"]);
        serde_json::from_slice::<serde_json::Value>(&output.stdout)
            .unwrap_or_else(|error| panic!("{error}: {output:?}"))
    };
    // The journal takes lines in its own time.
    unit.wait_for("both lines", || explained()["output"]["lines"].as_array().is_some_and(|lines| lines.len() == 2));
    let told = explained();
    assert_eq!(told["decision"], "gateway 1 refused to start (exit code 78)", "{told:#}");
    let lines = &told["output"]["lines"];
    assert_eq!((&lines[0], &lines[1]), (&"listening".into(), &"unknown key gateway.tokne".into()), "{told:#}");
    assert!(told["output"]["source"].as_str().is_some_and(|source| source.starts_with("journalctl _PID=")), "{told:#}");
}

#[test]
fn a_wrong_option_is_an_error_in_the_journal_and_json_has_its_priority_too() {
    let machine = Machine::boot("exit=78");
    machine.keep_journal();
    let json = "Environment=OPENCLAW_SUPERVISE_LOG_FORMAT=json";
    let unit = machine.shipped(&["StandardError=journal", json, "Environment=OPENCLAW_SUPERVISE_PROBE_INTERVAL=soon"]);
    let errors = || machine.journalctl(&["--unit", SHIPPED, "--priority=err"]);
    unit.order_only("start");
    unit.wait_for("the refusal", || errors().contains("openclaw-supervise: error: invalid value 'soon'"));
    unit.wait_state("failed");
    let good = "Environment=OPENCLAW_SUPERVISE_PROBE_INTERVAL=50ms";
    let unit = machine.shipped(&["StandardError=journal", json, good]);
    unit.order_only("start");
    unit.wait_for("the end", || errors().lines().any(|line| line.starts_with("{\"event\":\"supervisor.stopped\"")));
}

/// The lines of a drop-in in the head comment of a shipped unit.
fn told_lines(unit: &str) -> Vec<&'static str> {
    let shipped = match unit {
        "user" => include_str!("../contrib/systemd/openclaw-supervise.service"),
        _ => include_str!("../contrib/systemd/openclaw-supervise@.service"),
    };
    let lines = shipped.lines().filter_map(|line| line.strip_prefix("#     "));
    lines.skip_while(|line| !line.starts_with("OnFailure=")).collect()
}

#[test]
fn on_failure_runs_for_a_spent_budget_and_for_a_final_failure() {
    for (script, code) in [("exit=1", "69"), ("exit=78", "78")] {
        let machine = Machine::boot(script);
        let settings = ["RestartSec=100ms", "Environment=OPENCLAW_SUPERVISE_MAX_RESTARTS=1"];
        let users = [&settings[..], &["[Unit]"], &told_lines("user")].concat();
        let accounts = [&settings[..], &["[Unit]"], &told_lines("account")].concat();
        machine.listener();
        let judge = |unit: &Unit<'_>, name: &str| {
            unit.order_only("start");
            unit.wait_for("the word of its end", || machine.heard().iter().any(|said| said == name));
            if code == "78" {
                unit.wait_state("failed");
                assert_eq!(unit.property("NRestarts"), "0", "{}", unit.story());
            } else {
                unit.wait_for("the next start", || unit.property("NRestarts") != "0");
            }
            unit.order_well("stop");
        };
        judge(&machine.of_user(&users), "openclaw-supervise.service");
        // Files of root are given to the user.
        judge(&machine.of_account(&accounts), "openclaw-supervise@alice.service");
    }
}

#[test]
fn the_shipped_notification_unit_tells_what_the_supervisor_could_not_and_nothing_twice() {
    let machine = Machine::boot("exit=78");
    let told = machine.notifier();
    let text = || std::fs::read_to_string(&told).unwrap_or_default();
    let on_failure = ["[Unit]", "OnFailure=openclaw-supervise-notify@%n.service", "[Service]"];
    // No supervisor at all.
    let unit = machine.shipped(&[&on_failure[..], &["ExecStart=", "ExecStart=/nowhere", "Restart=no"]].concat());
    unit.order_only("start");
    unit.wait_for("the message", || text().ends_with('\n'));
    let message: serde_json::Value = serde_json::from_str(&text()).unwrap();
    assert_eq!(message["incident"], "unit_failed");
    let what = message["what"].as_str().unwrap();
    assert!(what.starts_with("systemd unit openclaw-supervise.service has failed"), "{what}");
    // One that tells its own end.
    let own = format!("Environment=\"OPENCLAW_SUPERVISE_ON_EVENT=cat >>{}\"", told.display());
    let unit = machine.shipped(&[&on_failure[..], &[&own]].concat());
    unit.order_only("start");
    unit.wait_for("the end that the supervisor tells", || text().contains("\"incident\":\"refused\""));
    unit.wait_state("failed");
    let notifier = [
        "show",
        "-p",
        "Result,ExecMainStatus,ActiveState",
        "openclaw-supervise-notify@openclaw-supervise.service.service",
    ];
    let state = || String::from_utf8_lossy(&machine.systemctl(&notifier).stdout).into_owned();
    unit.wait_for("the second notification unit", || state().contains("ActiveState=inactive"));
    assert_eq!(text().lines().count(), 2, "{}\n{}", text(), state());
}

#[test]
fn the_exit_code_of_a_wrapper_for_sigterm_counts_as_success() {
    let machine = Machine::boot("healthy");
    let unit =
        machine.shipped(&["Type=simple", "ExecStart=", "ExecStart=/bin/sh -c 'sleep 0.2; exit 143'", "Restart=no"]);
    unit.order_well("start");
    unit.wait_for("its end", || unit.state() != "active");
    let got = ["ActiveState", "Result", "ExecMainStatus"].map(|name| unit.property(name));
    assert_eq!(got, ["inactive", "success", "143"], "{}", unit.story());
}

#[test]
fn an_unknown_option_is_reported_once() {
    let machine = Machine::boot("healthy");
    let unit = machine.shipped(&["RestartSec=100ms", "ExecStart=", "ExecStart=openclaw-supervise run --bogus"]);
    assert!(!unit.order("start"));
    unit.wait_state("failed");
    // Longer than RestartSec.
    let_pass(Duration::from_secs(1));
    let got = ["ActiveState", "ExecMainStatus", "NRestarts"].map(|name| unit.property(name));
    assert_eq!(got, ["failed", "2", "0"], "{}", unit.story());
}

#[test]
fn a_store_that_no_start_can_use_is_reported_once() {
    let machine = Machine::boot("healthy");
    let unit = machine.shipped(&[
        "RestartSec=100ms",
        "ExecStartPre=sh -c 'mkdir /run/foreign; chown 1000 /run/foreign'",
        "ExecStart=",
        "ExecStart=openclaw-supervise run --store-dir /run/foreign",
    ]);
    assert!(!unit.order("start"));
    unit.wait_state("failed");
    // Longer than RestartSec.
    let_pass(Duration::from_secs(1));
    let got = ["ActiveState", "ExecMainStatus", "NRestarts"].map(|name| unit.property(name));
    assert_eq!(got, ["failed", "78", "0"], "{}", unit.story());
    assert!(unit.status_text().contains("belongs to user 1000"), "{}", unit.story());
}

/// What docs/OPERATION.md says of a job that outlives the gateway.
#[test]
fn a_scope_and_a_service_with_an_imported_environment_outlive_the_gateway_and_its_daemons_do_not() {
    let machine = Machine::boot("kid=daemon kid=setsid");
    let command = "sh -c 'systemd-run --scope --collect sleep 611 & exec /usr/local/bin/openclaw gateway run'";
    let start = format!("ExecStart=openclaw-supervise run -- {command}");
    let unit = machine.shipped(&["ExecStart=", &start]);
    unit.order_well("start");
    let is_job = |process: &process::Process| {
        let command = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        command.ends_with(b"/sleep\x00611\0")
    };
    unit.wait_for("the job to run", || machine.processes().iter().any(is_job));
    let job = machine.processes().into_iter().find(is_job).expect("it was there");
    machine.diary().wait_kids(2);
    let kids = machine.diary().kids();
    let environment = std::fs::read(format!("/proc/{}/environ", machine.gateway().pid)).expect("it lives");
    let mut entries = environment.split(|&byte| byte == 0).map(String::from_utf8_lossy);
    let entry = entries.find(|entry| entry.starts_with("OPENCLAW_SUPERVISE_INSTANCE=")).expect("it has an id");
    let imported = machine.systemctl(&["set-environment", &entry]);
    assert!(imported.status.success(), "{imported:?}");
    let other = machine.idle("other");
    other.order_well("start");
    let main = other.property("MainPID");
    let first = machine.gateway();
    unit.order_well("reload");
    unit.wait_serving(2);
    assert!(!first.is_alive() && unit.has_reported("tree.strays_left"), "{}", unit.story());
    let daemons = machine.processes().into_iter().filter(|process| {
        // Their pids in the machine are others than out here, and the job may have started in the same tick.
        let command = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        command.windows(5).any(|word| word == b"\0kid\0")
            && kids.iter().any(|kid| kid.process.start_time == process.start_time)
    });
    assert_eq!(daemons.count(), 0, "{}", unit.story());
    unit.order_well("stop");
    assert!(job.is_alive(), "{}", unit.story());
    assert_eq!((other.state().as_str(), other.property("MainPID")), ("active", main), "{}", unit.story());
}
