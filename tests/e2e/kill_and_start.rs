//! "Kill it and start it again": a supervisor that is started while its predecessor drains takes over, one of however many.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use support::supervisor::Supervisor;
use support::{PATIENCE, Scene, wait_for};

/// One supervisor whose gateway drains.
fn draining(scene: &Scene) -> Supervisor {
    let mut first = scene.start();
    first.wait_started();
    first.signal(Signal::SIGTERM);
    first.wait_event("stop.requested");
    first
}

#[test]
fn one_that_starts_while_the_old_one_drains_takes_over_once_that_is_gone() {
    let scene = Scene::new("drain=2s");
    let mut first = draining(&scene);
    let mut second = scene.start();
    let told = second.wait_event("lease.contended");
    assert_eq!(told.number("owner_pid"), i64::from(first.pid()));
    assert!((1000..40_000).contains(&told.number("ends_within_ms")), "{:?}", told.value());
    first.expect_exit(0);
    second.wait_started();
    assert_eq!((scene.diary().starts().len(), second.count("conflict.detected")), (2, 0), "{}", second.story());
}

#[test]
fn one_with_another_state_directory_on_the_same_port_takes_over_as_well() {
    let scene = Scene::new("drain=2s");
    let mut first = draining(&scene);
    let other = scene.root().join("other");
    let mut second = scene.launch().env("OPENCLAW_STATE_DIR", &other.display().to_string()).start();
    let told = second.wait_event("lease.contended");
    assert_eq!(told.text("what"), "port claim");
    assert!(told.number("ends_within_ms") > 0);
    first.expect_exit(0);
    second.wait_started();
    assert_eq!(scene.diary().starts().len(), 2);
}

#[test]
fn of_many_that_wait_for_the_old_one_one_takes_over_and_the_others_end_with_78() {
    let scene = Scene::new("drain=2s");
    let mut first = draining(&scene);
    let mut many: Vec<_> = (0..6).map(|_| scene.start()).collect();
    first.expect_exit(0);
    let started = |one: &Supervisor| one.count("gateway.started") == 1;
    let winner = wait_for("one start", PATIENCE, String::new, || many.iter().position(started));
    let _kept = many.swap_remove(winner);
    for other in &mut many {
        other.expect_exit(78);
    }
    assert_eq!(scene.diary().starts().len(), 2);
}

#[test]
fn a_stop_during_the_wait_ends_the_second_with_0_and_leaves_the_first_alone() {
    let scene = Scene::new("drain=3s");
    let mut first = draining(&scene);
    let mut second = scene.start();
    second.wait_event_with("lease.contended", |told| told.value()["ends_within_ms"].is_number());
    second.signal(Signal::SIGTERM);
    second.expect_exit(0);
    first.expect_exit(0);
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn an_owner_that_is_frozen_says_nothing_and_is_a_conflict() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    first.signal(Signal::SIGSTOP);
    let mut second = scene.start();
    second.expect_exit(78);
    let reason = second.last("supervisor.stopped");
    assert!(reason.text("reason").contains("supervises it and holds the lease"), "{}", second.story());
    first.signal(Signal::SIGCONT);
    scene.diary().wait_requests(gateway.pid, 2);
}
