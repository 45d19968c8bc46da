//! `doctor` while the gateway is down or about to be: each store is that of a real run.

use super::support::let_pass;
use super::support::supervisor::Said;
use super::{Diagnosis, Ward};
use nix::sys::signal::Signal;
use std::time::Duration;

#[test]
fn a_stop_on_request_is_a_warning_with_its_time() {
    let ward = Ward::new("healthy");
    let mut supervisor = ward.scene.start();
    supervisor.wait_started();
    Said::by(&ward.scene, &["stop"]).expect(0);
    supervisor.expect_exit(0);
    let diagnosis = ward.ask();
    diagnosis.assert_is("gateway", "warn", &["not running: stopped as asked by", "\"since\":\"20"]);
    assert_eq!(diagnosis.code, Some(0), "{diagnosis:#?}");
}

#[test]
fn a_refused_configuration_a_spent_budget_and_a_killed_supervisor_fail() {
    let refused = Ward::new("exit=78@50ms");
    refused.scene.start().expect_exit(78);
    let reason = ["exit code 78", "cannot start with its configuration", "correct that, then", "\"since\":\"20"];
    refused.ask().assert_is("gateway", "fail", &reason);

    let fatal = Ward::new("die=SEGV@50ms");
    fatal.scene.start().expect_exit(69);
    fatal.ask().assert_is("budget", "fail", &["gave up (exit code 69)", "SIGSEGV"]);

    let killed = Ward::new("healthy");
    let mut supervisor = killed.scene.start();
    let gateway = supervisor.wait_started();
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
    let told = [&*format!("pid {}", supervisor.pid()), &*format!("gateway pid {} runs on", gateway.pid)];
    killed.ask().assert_is("gateway", "fail", &told);
}

#[test]
fn the_socket_of_a_killed_supervisor_is_removed_and_a_dry_run_removes_nothing() {
    let ward = Ward::new("healthy");
    let mut supervisor = ward.scene.start();
    supervisor.wait_started();
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
    let socket = ward.scene.state_dir().join("supervise/control.sock");
    ward.ask().assert_is("supervisor", "warn", &["control.sock is left", "rm "]);
    for (words, is_left) in [(&["--fix", "--dry-run"][..], true), (&["--fix"], false)] {
        let output = ward.command(words).output().expect("the program starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let verb = if is_left { "would remove " } else { "removed " };
        assert!(text.starts_with(verb) && text.contains("control.sock"), "{text}");
        assert_eq!((socket.exists(), output.status.code()), (is_left, Some(1)), "{text}");
    }
    ward.ask().assert_is("supervisor", "ok", &["not running"]);
    let output = ward.command(&["--dry-run"]).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2), "a dry run of what?");
}

#[test]
fn a_backoff_that_stands_fails_with_its_end() {
    let ward = Ward::new("exit=1@50ms");
    let mut supervisor = ward.scene.launch().option("--backoff-max", "5m").start();
    supervisor.wait_event_with("restart.scheduled", |event| event.number("delay_ms") > 3000);
    let diagnosis = ward.ask();
    diagnosis.assert_is("backoff", "fail", &["no gateway is running", "retry-now", "\"until\":\"20"]);
    diagnosis.assert_is("supervisor", "ok", &["backing off"]);
}

#[test]
fn a_supervisor_that_does_not_answer_fails() {
    let ward = Ward::new("healthy");
    let mut supervisor = ward.scene.start();
    supervisor.wait_started();
    supervisor.signal(Signal::SIGSTOP);
    let diagnosis = ward.ask();
    supervisor.signal(Signal::SIGCONT);
    diagnosis.assert_is("supervisor", "fail", &[&format!("pid {}", supervisor.pid()), "does not answer"]);
}

#[test]
fn one_in_standby_is_well_behind_another_supervisor_and_not_behind_another_program() {
    let ward = Ward::new("healthy");
    let mut owner = ward.scene.start();
    owner.wait_started();
    let mut standby = ward.scene.launch().option("--on-conflict", "standby").start();
    standby.wait_event("standby.entered");
    let diagnosis = ward.ask();
    assert_eq!(diagnosis.code, Some(0), "{diagnosis:#?}");
    diagnosis.assert_is("gateway", "ok", &["is healthy"]);

    let ward = Ward::new("");
    let stranger = ward.scene.stranger("foreign");
    let mut standby = ward.scene.launch().option("--on-conflict", "standby").start();
    standby.wait_event("conflict.detected");
    let diagnosis = ward.ask();
    let user = nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name);
    let named = format!("(pid {}, user {}", stranger.pid(), user.expect("this user has a name"));
    diagnosis.assert_is("port", "fail", &[&named, "kill"]);
}

#[test]
fn a_channel_that_is_not_connected_is_named() {
    let ward = Ward::new("unready");
    let mut supervisor = ward.scene.start();
    supervisor.wait_event_with("readiness.changed", |event| event.value()["ready"] == false);
    // The event is told before it is on record.
    let_pass(Duration::from_millis(300));
    ward.ask().assert_is("channels", "warn", &["not ready", "\"since\":\"20", "openclaw channels status"]);
}

#[test]
fn the_port_on_record_counts_and_not_the_default_one() {
    let ward = Ward::new("healthy");
    // `Ward::ask` names the port; here nothing does but the record, of a supervisor whose command had it.
    let ask = || {
        let mut command = ward.scene.command(super::PROGRAM);
        command.env("PATH", ward.bin()).args(["doctor", "--json"]);
        Diagnosis::of(&command.output().expect("the program starts"))
    };
    let mut supervisor = ward.scene.start();
    supervisor.wait_started();
    let place = format!("127.0.0.1:{}", ward.scene.port());
    let is_at_place = |diagnosis: Diagnosis, word: &str| {
        let port = diagnosis.findings.iter().find(|finding| finding["check"] == "port" && finding["level"] == "ok");
        let found = port.map(|port| port["found"].to_string()).unwrap_or_default();
        assert!(found.contains(&place) && found.contains(word), "{diagnosis:#?}");
    };
    is_at_place(ask(), "started");
    Said::by(&ward.scene, &["stop"]).expect(0);
    supervisor.expect_exit(0);
    is_at_place(ask(), "free");
}
