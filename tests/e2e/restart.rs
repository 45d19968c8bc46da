//! A restart on request drains the gateway by SIGTERM, starts a new one and costs no budget.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use std::time::Duration;
use support::Scene;
use support::supervisor::Said;

#[test]
fn each_restart_signal_means_sigterm_to_the_gateway_and_a_new_one() {
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        let scene = Scene::new("drain=100ms");
        let mut supervisor = scene.start();
        let first = supervisor.wait_started();
        supervisor.signal(signal);
        supervisor.wait_event("restart.requested");
        let second = supervisor.wait_started();
        assert!(first != second && !first.is_alive());
        assert_eq!(scene.diary().signals(first.pid), ["SIGTERM"], "after {signal}");
        assert_eq!(supervisor.last("gateway.exited").number("code"), 0);
    }
}

#[test]
fn restarts_on_request_spend_no_budget() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--max-restarts", "1").start();
    supervisor.wait_started();
    for _ in 0..4 {
        supervisor.signal(Signal::SIGHUP);
        supervisor.wait_started();
    }
    assert_eq!(scene.diary().starts().len(), 5);
    assert_eq!(supervisor.count("restart.gave_up"), 0);
}

#[test]
fn requests_after_each_start_are_merged_and_the_gateway_serves_until_they_are_served() {
    let scene = Scene::new("healthy");
    let launch = scene.launch().option("--boot-limit", "2").option("--stable-after", "4s");
    let mut supervisor = launch.option("--probe-interval", "500ms").start();
    supervisor.wait_started();
    for _ in 0..2 {
        supervisor.signal(Signal::SIGUSR1);
        supervisor.wait_started();
    }
    let third = supervisor.last("gateway.started").process();
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGHUP] {
        supervisor.signal(signal);
    }
    let merged = supervisor.wait_event("restart.merged");
    assert_eq!(merged.number("by_pid"), i64::from(std::process::id()));
    assert_eq!(merged.value()["inside"], false);
    let delay = Duration::from_millis(merged.number("delay_ms").cast_unsigned());
    assert!(delay <= Duration::from_millis(4500), "{}", merged.value());
    let said = Said::by(&scene, &["restart", "--timeout", "500ms"]).expect(0);
    said.assert_says(&["restart merged; at ", " UTC at the latest, in ", "because of 2 restarts on request within 5m"]);
    assert!(third.is_alive());
    let fourth = supervisor.wait_started();
    let waited = supervisor.last("gateway.started").seen.duration_since(merged.seen);
    supervisor.assert_took("the merged restart", waited, &(Duration::ZERO..delay + Duration::from_secs(3)));
    scene.diary().wait_requests(fourth.pid, 5);
    assert_eq!((scene.diary().starts().len(), scene.diary().signals(third.pid)), (4, vec!["SIGTERM".to_owned()]));
    // A stop is never paced.
    supervisor.signal(Signal::SIGUSR2);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

#[test]
fn requests_during_one_drain_are_one_restart() {
    let scene = Scene::new("drain=600ms; healthy");
    let mut supervisor = scene.start();
    supervisor.wait_started();
    supervisor.signal(Signal::SIGHUP);
    scene.diary().wait_line("SIGNAL");
    for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2] {
        supervisor.signal(signal);
    }
    let second = supervisor.wait_started();
    scene.diary().wait_requests(second.pid, 10);
    assert!(second.is_alive());
    assert_eq!(scene.diary().starts().len(), 2);
}

#[test]
fn a_request_cuts_the_delay_after_crashes_short() {
    let scene = Scene::new("exit=1; exit=1; exit=1; healthy");
    let mut supervisor = scene.launch().option("--backoff-max", "60s").start();
    let scheduled = supervisor.wait_event_with("restart.scheduled", |event| event.number("delay_ms") > 1500);
    supervisor.signal(Signal::SIGHUP);
    let spawned = supervisor.wait_event("gateway.spawned");
    let gap = spawned.seen.duration_since(scheduled.seen);
    supervisor.assert_took("the respawn", gap, &(Duration::ZERO..Duration::from_millis(1400)));
    supervisor.wait_started();
}

#[test]
fn a_request_does_not_reach_past_the_limit_of_unclean_boots() {
    let scene = Scene::new("exit=1");
    let mut supervisor = scene.launch().option("--boot-limit", "1").option("--boot-window", "300s").start();
    supervisor.wait_event_with("restart.scheduled", |event| event.number("delay_ms") > 30_000);
    supervisor.signal(Signal::SIGHUP);
    supervisor.wait_event("restart.requested");
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_eq!(scene.diary().starts().len(), 2);
}

#[test]
fn the_sender_of_a_signal_is_named() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    supervisor.wait_started();
    supervisor.signal(Signal::SIGHUP);
    let received = supervisor.wait_event("signal.received");
    assert!(received.text("signal").contains("HUP"));
    assert_eq!(received.number("sender_pid"), i64::from(std::process::id()));
    assert_eq!(received.number("sender_uid"), i64::from(nix::unistd::getuid().as_raw()));
    assert!(received.text("sender_command").contains("e2e"), "{}", received.value());
}
