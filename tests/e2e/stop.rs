//! In every state SIGTERM ends the supervisor with 0 and leaves nothing; a stop is never downgraded to a restart.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use std::time::Duration;
use support::supervisor::Supervisor;
use support::{PATIENCE, Scene, http, wait_for};

/// Ends it and asserts that nothing of the scene is left but `strangers`.
fn assert_stops(supervisor: &mut Supervisor, scene: &Scene, signal: Signal, strangers: usize) {
    supervisor.signal(signal);
    supervisor.expect_exit(0);
    let left = scene.processes();
    assert_eq!(left.len(), strangers, "{left:?} are left\n{}", supervisor.story());
    assert_eq!(supervisor.last("supervisor.stopped").number("exit_code"), 0);
}

#[test]
fn while_a_foreign_holder_is_waited_for() {
    let scene = Scene::new("healthy");
    let mut foreign = scene.stranger("foreign");
    let mut supervisor = scene.launch().option("--conflict-timeout", "60s").start();
    supervisor.wait_event("probe.verdict_changed");
    assert_stops(&mut supervisor, &scene, Signal::SIGTERM, 1);
    assert!(foreign.is_alive() && foreign.diary.signals(foreign.pid()).is_empty());
    assert_eq!(scene.diary().starts().len(), 0);
}

#[test]
fn while_a_draining_gateway_is_waited_for() {
    let scene = Scene::new("healthy");
    let mut stranger = scene.stranger("drain=60s");
    stranger.process().signal(Signal::SIGTERM);
    let draining = || (http::startup_status(scene.port())? == "draining").then_some(());
    wait_for("a draining gateway", PATIENCE, String::new, draining);
    let mut supervisor = scene.start();
    supervisor.wait_event_with("probe.verdict_changed", |event| event.text("to") == "draining");
    assert_stops(&mut supervisor, &scene, Signal::SIGTERM, 1);
    assert!(stranger.is_alive());
}

#[test]
fn while_the_gateway_boots() {
    let scene = Scene::new("boot=60s");
    let mut supervisor = scene.start();
    supervisor.wait_event("gateway.spawned");
    scene.diary().wait_line("START");
    assert_stops(&mut supervisor, &scene, Signal::SIGTERM, 0);
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn while_the_gateway_runs_by_sigterm_and_by_sigint() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let scene = Scene::new("drain=100ms");
        let mut supervisor = scene.start();
        let gateway = supervisor.wait_started();
        assert_stops(&mut supervisor, &scene, signal, 0);
        // The gateway hears SIGTERM whatever we were sent, once, and leaves by itself.
        assert_eq!(scene.diary().signals(gateway.pid), ["SIGTERM"]);
        assert_eq!(supervisor.last("gateway.exited").number("code"), 0);
        assert!(supervisor.count("stop.requested") == 1, "{}", supervisor.story());
    }
}

#[test]
fn at_once_after_a_second_signal() {
    let scene = Scene::new("drain=60s");
    let mut supervisor = scene.launch().option("--stop-timeout", "60s").start();
    let gateway = supervisor.wait_started();
    supervisor.signal(Signal::SIGTERM);
    scene.diary().wait_line("SIGNAL");
    assert!(gateway.is_alive());
    assert_stops(&mut supervisor, &scene, Signal::SIGTERM, 0);
    assert_eq!(supervisor.count("stop.escalated"), 1, "{}", supervisor.story());
}

#[test]
fn while_a_restart_is_held_back() {
    let scene = Scene::new("exit=1");
    // Two unclean boots behind it: the third has to wait for five minutes.
    let mut supervisor = scene.launch().option("--boot-limit", "1").option("--boot-window", "300s").start();
    supervisor.wait_event_with("restart.scheduled", |event| event.number("delay_ms") > 30_000);
    assert_stops(&mut supervisor, &scene, Signal::SIGTERM, 0);
    assert_eq!(scene.diary().starts().len(), 2);
}

#[test]
fn after_the_stop_timeout_when_the_gateway_ignores_sigterm() {
    let scene = Scene::new("deaf");
    let mut supervisor = scene.launch().option("--stop-timeout", "400ms").start();
    let gateway = supervisor.wait_started();
    let asked = supervisor.age();
    assert_stops(&mut supervisor, &scene, Signal::SIGTERM, 0);
    let took = supervisor.age().saturating_sub(asked);
    supervisor.assert_took("the stop", took, &(Duration::from_millis(400)..Duration::from_secs(15)));
    assert!(!gateway.is_alive());
    assert_eq!(scene.diary().signals(gateway.pid), ["SIGTERM"]);
}

#[test]
fn when_a_restart_is_asked_for_after_the_stop() {
    let scene = Scene::new("drain=600ms");
    let mut supervisor = scene.start();
    supervisor.wait_started();
    supervisor.signal(Signal::SIGTERM);
    scene.diary().wait_line("SIGNAL");
    assert_stops(&mut supervisor, &scene, Signal::SIGHUP, 0);
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn when_the_stop_comes_during_a_restart() {
    let scene = Scene::new("drain=600ms");
    let mut supervisor = scene.start();
    supervisor.wait_started();
    supervisor.signal(Signal::SIGHUP);
    scene.diary().wait_line("SIGNAL");
    assert_stops(&mut supervisor, &scene, Signal::SIGTERM, 0);
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn when_the_gateway_hangs() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--probe-timeout", "100ms").option("--hung-stop-timeout", "60s").start();
    let gateway = supervisor.wait_started();
    scene.diary().command(gateway.pid, "freeze");
    supervisor.wait_event("gateway.hung");
    supervisor.signal(Signal::SIGTERM);
    // Once for the stop, and once more to skip what is left of the wait. Unread, the two would be one.
    supervisor.wait_event("signal.received");
    assert_stops(&mut supervisor, &scene, Signal::SIGTERM, 0);
}

/// Before its handlers stand the signal ends it as it ends any program, and then nothing has been started.
#[test]
fn at_any_moment_of_its_own_start() {
    for step in 0..24 {
        let scene = Scene::new("boot=20ms kid=daemon");
        let mut supervisor = scene.start();
        support::let_pass(Duration::from_micros(step * 1000));
        supervisor.signal(Signal::SIGTERM);
        let code = supervisor.wait_exit();
        assert!(matches!(code, None | Some(0)), "{code:?}\n{}", supervisor.story());
        assert!(code.is_some() || supervisor.count("gateway.spawned") == 0, "{}", supervisor.story());
        assert_eq!(scene.processes(), [], "are left\n{}", supervisor.story());
    }
}

#[test]
fn in_a_storm_of_signals() {
    let scene = Scene::new("drain=50ms");
    let mut supervisor = scene.start();
    supervisor.wait_started();
    for _ in 0..50 {
        for signal in [Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGCHLD, Signal::SIGPIPE, Signal::SIGUSR2] {
            supervisor.signal(signal);
        }
    }
    assert_stops(&mut supervisor, &scene, Signal::SIGTERM, 0);
}

/// By a shell: `nohup`, `sh -c 'openclaw-supervise &'`, `trap`.
#[test]
fn a_signal_that_was_ignored_at_the_start_is_not_ignored_in_the_gateway() {
    let scene = Scene::new("healthy");
    let ignoring = ["/bin/sh", "-c", "trap '' HUP INT QUIT ALRM TSTP TTOU XFSZ TERM CHLD; exec \"$@\"", "sh"];
    let mut supervisor = Supervisor::spawn(scene.launch().behind(&ignoring));
    let gateway = supervisor.wait_started();
    supervisor.signal(Signal::SIGHUP);
    // Signals that are heard arrive in order, so that one is past.
    supervisor.signal(Signal::SIGUSR1);
    supervisor.wait_event("restart.requested");
    let next = supervisor.wait_started();
    let heard: Vec<_> = supervisor.events().into_iter().filter(|event| event.name() == "signal.received").collect();
    assert_eq!(heard.len(), 1, "{}", supervisor.story());
    for process in [gateway, next] {
        let lines = scene.diary().given(process.pid, "status");
        let ignored = lines.iter().find_map(|line| line.strip_prefix("SigIgn:"));
        let ignored = ignored.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
        // SIGPIPE is ignored by the stand-in itself, and those above 31 are the C library's.
        assert_eq!(ignored.map(|mask| mask & 0x7fff_efff), Some(0), "{lines:?}");
    }
    assert_stops(&mut supervisor, &scene, Signal::SIGTERM, 0);
}
