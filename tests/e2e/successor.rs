//! Releases before 2026.8 leave a detached successor after an update: it answers on the port before its predecessor exits
//! with 0. It is adopted if it is ours, and a conflict if it is not.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use support::diary::Entry;
use support::ledger::Ledger;
use support::process::{Process, describe};
use support::supervisor::{Said, Supervisor};
use support::{PATIENCE, Scene, wait_for};

/// Has the gateway leave a successor, and waits until that one is kept.
fn succeed(scene: &Scene, supervisor: &mut Supervisor, gateway: Process) -> Process {
    scene.diary().command(gateway.pid, "succeed");
    let exited = supervisor.wait_event("gateway.exited");
    assert_eq!((exited.number("pid"), exited.number("code")), (i64::from(gateway.pid), 0));
    let succeeded = supervisor.wait_event("gateway.succeeded");
    let adopted = supervisor.wait_event("gateway.adopted");
    assert_eq!(adopted.number("pid"), succeeded.number("pid"), "{}", supervisor.story());
    let started = supervisor.wait_event("gateway.started");
    assert_eq!(started.number("pid"), adopted.number("pid"), "{}", supervisor.story());
    let successor = started.process();
    assert_eq!(scene.diary().starts().last().map(|start| start.process), Some(successor));
    successor
}

fn kids(scene: &Scene) -> Vec<Process> {
    scene.diary().kids().iter().map(|kid: &Entry| kid.process).collect()
}

fn assert_all_gone(scene: &Scene, supervisor: &Supervisor) {
    let left = scene.processes();
    assert!(left.is_empty(), "these are left:\n{}\n{}", describe(&left), supervisor.story());
}

#[test]
fn a_successor_is_adopted_and_a_later_stop_kills_its_whole_tree() {
    let scene = Scene::new("kid=setsid kid=plain kid=daemon kid=wiped kid=lost; kid=setsid kid=daemon kid=lost");
    let mut supervisor = scene.start();
    let first = supervisor.wait_started();
    scene.diary().wait_kids(5);
    let successor = succeed(&scene, &mut supervisor, first);
    scene.diary().wait_kids(8);
    assert_eq!(scene.diary().starts().len(), 2, "{}", supervisor.story());
    assert!(kids(&scene).iter().all(|kid| kid.is_alive()), "what belongs to it now lives\n{}", supervisor.story());
    assert_eq!(supervisor.count("gateway.spawned"), 1);
    assert_eq!(scene.diary().signals(successor.pid), [""; 0]);
    let status = Said::by(&scene, &["status", "--json"]).expect(0).json();
    assert_eq!(status["restarts"]["in_window"], 0, "{status}");
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_eq!(scene.diary().signals(successor.pid), ["SIGTERM"]);
    assert_all_gone(&scene, &supervisor);
}

#[test]
fn the_death_of_a_successor_is_followed_by_a_gateway_like_any_other() {
    let scene = Scene::new("kid=setsid; kid=setsid; healthy");
    let mut supervisor = scene.start();
    let first = supervisor.wait_started();
    let successor = succeed(&scene, &mut supervisor, first);
    scene.diary().wait_kids(2);
    successor.kill();
    let exited = supervisor.wait_event("gateway.exited");
    assert_eq!(exited.number("pid"), i64::from(successor.pid));
    let spawned = supervisor.wait_event("gateway.spawned");
    let third = supervisor.wait_started();
    assert_eq!(spawned.number("pid"), i64::from(third.pid));
    assert!(kids(&scene).iter().all(|kid| !kid.is_alive()), "{}", supervisor.story());
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_all_gone(&scene, &supervisor);
}

#[test]
fn successors_follow_each_other() {
    let scene = Scene::new("kid=setsid");
    let mut supervisor = scene.start();
    let mut gateway = supervisor.wait_started();
    for _ in 0..3 {
        gateway = succeed(&scene, &mut supervisor, gateway);
    }
    assert_eq!((scene.diary().starts().len(), supervisor.count("gateway.spawned")), (4, 1));
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_all_gone(&scene, &supervisor);
}

#[test]
fn the_next_supervisor_keeps_a_successor_as_well() {
    let scene = Scene::new("kid=setsid");
    let mut supervisor = scene.start();
    let first = supervisor.wait_started();
    let successor = succeed(&scene, &mut supervisor, first);
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
    let mut next = scene.start();
    assert_eq!(next.wait_event("gateway.adopted").process(), successor);
    // Whether it comes up once more depends on what its supervisor could still write down.
    next.wait_event("probe.verdict_changed");
    next.signal(Signal::SIGTERM);
    next.expect_exit(0);
    assert_all_gone(&scene, &next);
}

#[test]
fn a_successor_of_an_adopted_gateway_is_kept_though_the_exit_status_is_unknown() {
    let scene = Scene::new("kid=setsid kid=daemon; kid=setsid");
    let mut first = scene.start();
    let gateway = first.wait_started();
    scene.diary().wait_kids(2);
    Ledger::of(&scene).wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 1);
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    let mut supervisor = scene.start();
    assert_eq!(supervisor.wait_event("gateway.adopted").process(), gateway);
    scene.diary().wait_requests(gateway.pid, 5);
    scene.diary().command(gateway.pid, "succeed");
    assert_eq!(supervisor.wait_event("gateway.exited").number("pid"), i64::from(gateway.pid));
    let succeeded = supervisor.wait_event("gateway.succeeded");
    let successor = supervisor.wait_event("gateway.adopted").process();
    assert_eq!(succeeded.number("pid"), i64::from(successor.pid));
    scene.diary().wait_kids(3);
    assert!(successor.is_alive() && kids(&scene).iter().all(|kid| kid.is_alive()), "{}", supervisor.story());
    assert_eq!(supervisor.count("gateway.spawned"), 0);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_all_gone(&scene, &supervisor);
}

#[test]
fn a_stranger_that_takes_the_port_is_no_successor() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    let first = supervisor.wait_started();
    scene.diary().command(first.pid, "close");
    let closed = || scene.diary().text().contains("Close").then_some(());
    wait_for("a free port", PATIENCE, || supervisor.story(), closed);
    let mut stranger = scene.stranger("healthy");
    scene.diary().command(first.pid, "exit=0");
    supervisor.expect_exit(78);
    assert!(stranger.is_alive());
    assert_eq!(stranger.diary.signals(stranger.pid()), [""; 0]);
    let (spawned, succeeded) = (supervisor.count("gateway.spawned"), supervisor.count("gateway.succeeded"));
    assert_eq!((spawned, succeeded), (1, 0), "{}", supervisor.story());
    assert_eq!(supervisor.last("conflict.detected").number("holder_pid"), i64::from(stranger.pid()));
}

#[test]
fn a_stop_in_the_middle_of_a_succession_leaves_no_process() {
    let scene = Scene::new("kid=setsid");
    let mut supervisor = scene.start();
    let first = supervisor.wait_started();
    scene.diary().command(first.pid, "succeed");
    supervisor.wait_event("gateway.exited");
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_all_gone(&scene, &supervisor);
}
