//! A port held by another program is waited for within a bound; then its holder is named.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use std::time::Duration;
use support::supervisor::Supervisor;
use support::{PATIENCE, Scene, Stranger, http, wait_for};

fn assert_conflict(supervisor: &mut Supervisor, scene: &Scene, holder: &mut Stranger) {
    supervisor.expect_exit(78);
    let took = supervisor.age();
    // The bound of the kit is 500 ms.
    supervisor.assert_took("the conflict", took, &(Duration::from_millis(500)..Duration::from_secs(15)));
    let conflict = supervisor.last("conflict.detected");
    assert_eq!(conflict.number("holder_pid"), i64::from(holder.pid()));
    assert!(conflict.text("holder_command").contains("fake-gateway"));
    assert_eq!(scene.diary().starts().len(), 0);
    assert!(holder.is_alive() && holder.diary.signals(holder.pid()).is_empty());
}

#[test]
fn a_web_server_that_says_200_to_everything_is_no_gateway() {
    let scene = Scene::new("healthy");
    let mut foreign = scene.stranger("foreign");
    let mut supervisor = scene.start();
    assert_eq!(supervisor.wait_event("probe.verdict_changed").text("to"), "foreign");
    assert_conflict(&mut supervisor, &scene, &mut foreign);
}

#[test]
fn a_holder_that_never_answers_is_a_conflict_too() {
    let scene = Scene::new("healthy");
    let mut silent = scene.stranger("silent");
    let mut supervisor = scene.launch().option("--probe-timeout", "100ms").start();
    assert_eq!(supervisor.wait_event("probe.verdict_changed").text("to"), "silent");
    assert_conflict(&mut supervisor, &scene, &mut silent);
}

#[test]
fn a_holder_that_leaves_in_time_lets_the_gateway_start() {
    let scene = Scene::new("healthy");
    let mut foreign = scene.stranger("foreign");
    let mut supervisor = scene.launch().option("--conflict-timeout", "60s").start();
    supervisor.wait_event("probe.verdict_changed");
    foreign.end();
    let gateway = supervisor.wait_started();
    assert_eq!(scene.diary().starts()[0].process, gateway);
}

#[test]
fn a_draining_gateway_is_waited_for_longer_than_a_conflict() {
    let scene = Scene::new("healthy");
    let stranger = scene.stranger("drain=1500ms");
    stranger.process().signal(Signal::SIGTERM);
    let draining = || (http::startup_status(scene.port())? == "draining").then_some(());
    wait_for("a draining gateway", PATIENCE, String::new, draining);
    let mut supervisor = scene.launch().option("--conflict-timeout", "200ms").start();
    assert_eq!(supervisor.wait_event("probe.verdict_changed").text("to"), "draining");
    let gateway = supervisor.wait_started();
    assert_eq!(scene.diary().starts()[0].process, gateway);
    assert!(stranger.diary.text().contains(&format!("EXIT {} 0", stranger.pid())));
}

#[test]
fn another_program_that_takes_the_port_during_our_boot_is_not_taken_for_our_gateway() {
    let scene = Scene::new("boot=1500ms");
    let mut supervisor = scene.start();
    supervisor.wait_event("gateway.spawned");
    let mut stranger = scene.stranger("healthy");
    supervisor.expect_exit(78);
    assert!(scene.diary().text().contains("BUSY"), "{}", scene.diary().text());
    assert_eq!(supervisor.count("gateway.started"), 0, "{}", supervisor.story());
    assert_eq!(supervisor.last("conflict.detected").number("holder_pid"), i64::from(stranger.pid()));
    assert_eq!(scene.diary().starts().len(), 1);
    assert!(stranger.is_alive() && stranger.diary.signals(stranger.pid()).is_empty());
}

#[test]
fn a_holder_of_the_ipv6_port_alone_is_told_apart_from_our_gateway() {
    let scene = Scene::new("healthy");
    // An outgoing connection of another process may use that port for a moment.
    let bind = || match std::net::TcpListener::bind(("::1", scene.port())) {
        Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => None,
        bound => Some(bound.expect("this machine has IPv6 on its loopback")),
    };
    let _holder = wait_for("the port", PATIENCE, String::new, bind);
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    assert_eq!(scene.diary().starts()[0].process, gateway);
}
