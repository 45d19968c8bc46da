//! A gateway that exits is restarted at a bounded pace, or not at all where a restart cannot help.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use std::time::Duration;
use support::Scene;

#[test]
fn a_killed_gateway_is_replaced() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    let first = supervisor.wait_started();
    first.signal(Signal::SIGKILL);
    let exited = supervisor.wait_event("gateway.exited");
    assert_eq!(exited.number("pid"), i64::from(first.pid));
    assert!(!exited.value()["signal"].is_null(), "{}", exited.value());
    let second = supervisor.wait_started();
    assert_ne!(first, second);
    assert_eq!(scene.diary().starts().len(), 2);
}

#[test]
fn a_crash_loop_ends_with_69_when_the_budget_is_spent() {
    let scene = Scene::new("exit=1");
    let mut supervisor = scene.launch().option("--max-restarts", "3").start();
    supervisor.expect_exit(69);
    assert_eq!(scene.diary().starts().len(), 4);
    assert_eq!(supervisor.count("gateway.spawned"), 4);
    assert_eq!(supervisor.count("gateway.exited"), 4, "{}", supervisor.story());
    assert_eq!(supervisor.last("restart.gave_up").number("restarts"), 3);
    assert_eq!(supervisor.last("supervisor.stopped").number("exit_code"), 69);
}

#[test]
fn a_gateway_that_stops_crashing_within_the_budget_stays_up() {
    let scene = Scene::new("exit=1; exit=3; healthy");
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    let starts = scene.diary().starts();
    assert_eq!((starts.len(), starts[2].process), (3, gateway));
}

#[test]
fn the_delay_before_a_restart_has_a_lower_bound() {
    let scene = Scene::new("exit=1");
    let mut supervisor = scene.launch().option("--max-restarts", "3").option("--backoff-max", "400ms").start();
    supervisor.expect_exit(69);
    let spawned: Vec<_> = supervisor.events().into_iter().filter(|event| event.name() == "gateway.spawned").collect();
    for pair in spawned.windows(2) {
        let gap = pair[1].seen.duration_since(pair[0].seen);
        // Half of the delay is jitter, and the test reads the lines with some lag.
        supervisor.assert_took("the gap", gap, &(Duration::from_millis(180)..Duration::from_secs(10)));
    }
}

#[test]
fn exit_78_is_not_retried() {
    let scene = Scene::new("exit=78@100ms");
    let mut supervisor = scene.start();
    supervisor.expect_exit(78);
    assert_eq!(scene.diary().starts().len(), 1);
    assert_eq!(supervisor.last("gateway.exited").number("code"), 78);
}

#[test]
fn an_unrequested_exit_0_is_followed_by_a_restart() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    let first = supervisor.wait_started();
    scene.diary().command(first.pid, "exit=0");
    assert_eq!(supervisor.wait_event("gateway.exited").number("code"), 0);
    let second = supervisor.wait_started();
    assert_ne!(first, second);
}

#[test]
fn an_exit_0_before_the_first_answer_is_a_failure_and_no_tight_loop() {
    let scene = Scene::new("exit=0");
    let mut supervisor = scene.launch().option("--max-restarts", "2").start();
    supervisor.expect_exit(69);
    assert_eq!(scene.diary().starts().len(), 3);
    let took = supervisor.age();
    supervisor.assert_took("two restarts", took, &(Duration::from_millis(200)..Duration::from_secs(15)));
}

#[test]
fn a_spawn_waits_after_too_many_unclean_boots() {
    let scene = Scene::new("exit=1; exit=1; exit=1; healthy");
    let mut supervisor = scene.launch().option("--boot-limit", "2").option("--boot-window", "2s").start();
    supervisor.wait_started();
    let spawned: Vec<_> = supervisor.events().into_iter().filter(|event| event.name() == "gateway.spawned").collect();
    let gap = spawned[3].seen.duration_since(spawned[0].seen);
    supervisor.assert_took("four boots", gap, &(Duration::from_millis(1950)..Duration::from_secs(15)));
}
