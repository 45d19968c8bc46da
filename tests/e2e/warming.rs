//! A gateway without a supervisor that is still booting gets the startup budget before it is a conflict.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::unistd::getuid;
use serde_json::json;
use std::fs;
use std::time::Duration;
use support::process::Process;
use support::supervisor::Supervisor;
use support::{Scene, Stranger};

/// Writes the state lock as a gateway does that boots and does not listen yet.
fn hold_state(scene: &Scene, process: Process) {
    let folder = scene.state_dir().join("tmp").join(format!("openclaw-{}", getuid()));
    fs::create_dir_all(&folder).unwrap();
    let lock = json!({"pid": process.pid, "startTime": process.start_time, "port": scene.port(), "ownerId": "x"});
    fs::write(folder.join("gateway.state.lock"), lock.to_string()).unwrap();
}

fn expect_conflict_with(supervisor: &mut Supervisor, stranger: &mut Stranger, words: &str) {
    supervisor.expect_exit(78);
    let conflict = supervisor.last("conflict.detected");
    assert_eq!(conflict.number("holder_pid"), i64::from(stranger.pid()), "{}", supervisor.story());
    let stopped = supervisor.last("supervisor.stopped");
    for part in ["another gateway instance is already listening on", &format!("pid {}", stranger.pid()), words] {
        assert!(stopped.text("reason").contains(part), "{part:?} is missing in {}", stopped.value());
    }
    assert_eq!(supervisor.count("gateway.spawned"), 0, "{}", supervisor.story());
    assert!(stranger.is_alive() && stranger.diary.signals(stranger.pid()).is_empty());
}

#[test]
fn one_that_comes_up_stays_in_control() {
    let scene = Scene::new("healthy");
    let mut stranger = scene.stranger("warm=2s");
    let mut supervisor = scene.start();
    let conflict = supervisor.wait_event("conflict.detected");
    expect_conflict_with(&mut supervisor, &mut stranger, "is healthy and stays in control");
    let waited = supervisor.last("supervisor.stopped").seen.duration_since(conflict.seen);
    // Four times the conflict timeout of this kit, which is for those that do not boot.
    supervisor.assert_took("the wait", waited, &(Duration::from_secs(1)..Duration::from_secs(10)));
}

#[test]
fn one_that_dies_while_it_warms_up_is_followed_by_ours() {
    let scene = Scene::new("healthy");
    let mut stranger = scene.stranger("warm=60s");
    let mut supervisor = scene.start();
    supervisor.wait_event("conflict.detected");
    stranger.end();
    supervisor.wait_event("conflict.resolved");
    supervisor.wait_started();
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn one_that_never_comes_up_is_named_after_the_time_of_a_boot() {
    let scene = Scene::new("healthy");
    let mut stranger = scene.stranger("warm=60s");
    let mut supervisor = scene.launch().option("--startup-timeout", "1500ms").start();
    expect_conflict_with(&mut supervisor, &mut stranger, "still warming up");
    assert!(supervisor.age() >= Duration::from_millis(1500), "{}", supervisor.story());
}

#[test]
fn one_that_does_not_listen_yet_is_known_by_the_lock_of_its_state() {
    let scene = Scene::new("healthy");
    let mut stranger = scene.stranger_unready("boot=2s warm=500ms");
    hold_state(&scene, stranger.process());
    let mut supervisor = scene.start();
    assert_eq!(supervisor.wait_event("conflict.detected").text("kind"), "booting");
    expect_conflict_with(&mut supervisor, &mut stranger, "is healthy and stays in control");
    assert!(supervisor.age() > Duration::from_millis(1500), "{}", supervisor.story());
}

#[test]
fn one_that_dies_before_it_listens_is_followed_by_ours() {
    let scene = Scene::new("healthy");
    let mut stranger = scene.stranger_unready("boot=60s");
    hold_state(&scene, stranger.process());
    let mut supervisor = scene.start();
    supervisor.wait_event("conflict.detected");
    stranger.end();
    supervisor.wait_event("conflict.resolved");
    supervisor.wait_started();
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn one_that_never_listens_is_named_after_the_time_of_a_boot() {
    let scene = Scene::new("healthy");
    let mut stranger = scene.stranger_unready("boot=60s");
    hold_state(&scene, stranger.process());
    let mut supervisor = scene.launch().option("--startup-timeout", "1500ms").start();
    expect_conflict_with(&mut supervisor, &mut stranger, "has been booting for longer than a gateway may");
    assert!(supervisor.age() >= Duration::from_millis(1500), "{}", supervisor.story());
}

#[test]
fn a_lock_file_of_a_killed_gateway_delays_nothing() {
    let scene = Scene::new("healthy");
    let mut stranger = scene.stranger_unready("boot=60s");
    let dead = stranger.process();
    stranger.end();
    // A living process has the number by now: this one.
    let me = Process::find(std::process::id().cast_signed()).unwrap();
    let recycled = Process { start_time: me.start_time - 1, ..me };
    for left in [dead, recycled] {
        hold_state(&scene, left);
        let mut supervisor = scene.start();
        supervisor.wait_started();
        assert_eq!(supervisor.count("conflict.detected"), 0, "{}", supervisor.story());
        supervisor.signal(nix::sys::signal::Signal::SIGTERM);
        supervisor.expect_exit(0);
    }
}
