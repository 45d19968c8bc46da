//! A gateway that runs and does not serve is replaced; one that is slow, draining or restarting is not.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use std::time::Duration;
use support::Scene;
use support::process::Process;
use support::supervisor::Supervisor;

/// Waits for the hang to be seen and for a successor of `first`.
fn assert_replaced(supervisor: &mut Supervisor, scene: &Scene, first: Process) {
    let hung = supervisor.wait_event("gateway.hung");
    assert!(hung.number("failed_probes") >= 3, "{}", hung.value());
    supervisor.wait_event("gateway.exited");
    let second = supervisor.wait_started();
    assert!(first != second && !first.is_alive());
    assert_eq!(scene.diary().starts().len(), 2);
}

#[test]
fn a_frozen_gateway_is_replaced() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--probe-timeout", "100ms").start();
    let first = supervisor.wait_started();
    scene.diary().command(first.pid, "freeze");
    assert_replaced(&mut supervisor, &scene, first);
}

#[test]
fn a_stopped_process_is_replaced() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--probe-timeout", "100ms").start();
    let first = supervisor.wait_started();
    first.signal(Signal::SIGSTOP);
    assert_replaced(&mut supervisor, &scene, first);
}

#[test]
fn a_gateway_that_lost_its_listener_is_replaced() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    let first = supervisor.wait_started();
    scene.diary().command(first.pid, "close");
    assert_replaced(&mut supervisor, &scene, first);
}

#[test]
fn a_boot_longer_than_hang_after_is_left_alone_within_its_budget() {
    let scene = Scene::new("boot=1s warm=1s");
    let mut supervisor = scene.launch().option("--hang-after", "300ms").start();
    supervisor.wait_started();
    assert_eq!(scene.diary().starts().len(), 1);
    assert_eq!(supervisor.count("gateway.hung") + supervisor.count("startup.timed_out"), 0, "{}", supervisor.story());
}

#[test]
fn a_boot_over_its_budget_is_replaced() {
    let scene = Scene::new("boot=60s; healthy");
    let mut supervisor = scene.launch().option("--startup-timeout", "500ms").start();
    supervisor.wait_event("startup.timed_out");
    let gateway = supervisor.wait_started();
    let starts = scene.diary().starts();
    assert_eq!((starts.len(), starts[1].process), (2, gateway));
    assert!(!starts[0].process.is_alive());
}

#[test]
fn a_boot_that_freezes_with_an_open_port_is_replaced() {
    let scene = Scene::new("warm=60s freeze=@100ms; healthy");
    let mut supervisor = scene.launch().option("--startup-timeout", "500ms").option("--probe-timeout", "100ms").start();
    supervisor.wait_event("startup.timed_out");
    supervisor.wait_started();
    assert_eq!(scene.diary().starts().len(), 2);
}

#[test]
fn a_restart_inside_the_process_gets_the_startup_budget() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--hang-after", "400ms").start();
    let gateway = supervisor.wait_started();
    scene.diary().command(gateway.pid, "cycle=1500ms");
    scene.diary().wait_line("MISHAP");
    supervisor.wait_event("liveness.recovered");
    scene.diary().wait_requests(gateway.pid, 20);
    assert_eq!(supervisor.count("gateway.hung"), 0, "{}", supervisor.story());
    assert_eq!(scene.diary().starts().len(), 1);
    assert!(scene.diary().signals(gateway.pid).is_empty() && gateway.is_alive());
}

#[test]
fn a_drain_longer_than_hang_after_is_not_cut_short() {
    let scene = Scene::new("drain=1500ms");
    let mut supervisor = scene.launch().option("--hang-after", "300ms").start();
    let gateway = supervisor.wait_started();
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert!(scene.diary().text().contains(&format!("EXIT {} 0", gateway.pid)), "{}", scene.diary().text());
    assert_eq!(supervisor.count("gateway.hung"), 0);
}

#[test]
fn a_gateway_that_freezes_while_it_drains_is_not_waited_for() {
    let scene = Scene::new("drain=60s");
    let launch = scene.launch().option("--stop-timeout", "60s").option("--probe-timeout", "100ms");
    let mut supervisor = launch.start();
    let gateway = supervisor.wait_started();
    supervisor.signal(Signal::SIGTERM);
    scene.diary().wait_line("SIGNAL");
    scene.diary().command(gateway.pid, "freeze");
    supervisor.expect_exit(0);
    assert!(!gateway.is_alive());
}

#[test]
fn a_pause_of_the_supervisor_is_no_hang_of_the_gateway() {
    for both in [false, true] {
        let scene = Scene::new("healthy");
        let mut supervisor = scene.launch().option("--hang-after", "300ms").option("--probe-timeout", "100ms").start();
        let gateway = supervisor.wait_started();
        let paused = Process::find(supervisor.pid()).into_iter().chain(both.then_some(gateway));
        let paused: Vec<_> = paused.collect();
        for process in &paused {
            process.signal(Signal::SIGSTOP);
        }
        support::let_pass(Duration::from_millis(1500));
        for process in &paused {
            process.signal(Signal::SIGCONT);
        }
        scene.diary().wait_requests(gateway.pid, 20);
        assert!(gateway.is_alive() && supervisor.count("gateway.hung") == 0, "{}", supervisor.story());
        assert_eq!(scene.diary().starts().len(), 1);
    }
}
