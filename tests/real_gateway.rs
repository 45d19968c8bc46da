//! The promises once more, in front of the real gateway from its npm package.
//!
//! One test, because one gateway at a time is what a small machine bears: each boot takes its seconds of all cores.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "it polls beside the supervisor, by its own clock")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use nix::sys::signal::Signal;
use std::thread;
use std::time::{Duration, Instant};
use support::process::{Process, stat};
use support::real::RealGateway;
use support::supervisor::{Launch, Supervisor};
use support::{Scene, http, port, wait_for};

/// Cold disks and busy machines: a boot takes a quarter of a minute where nothing else runs.
const PATIENCE: Duration = Duration::from_mins(4);

#[test]
fn the_real_gateway_is_kept_alive_alone_and_ended_whole() {
    let real = RealGateway::install();
    let scene = Scene::new("");
    let mut supervisor = launch(&scene, &real).start();
    supervisor.patience = PATIENCE;

    let first = first_start_is_told_in_time(&mut supervisor, &scene);
    its_tree_has_a_broker_in_a_session_of_its_own(first);
    duplicates_are_turned_away(&scene, &real, first);
    let second = a_kill_is_answered_by_a_new_one(&mut supervisor, first);
    let third = a_planned_restart_is_no_crash(&mut supervisor, second);
    a_stop_leaves_nothing(&mut supervisor, &scene, third);
}

fn launch<'a>(scene: &'a Scene, real: &RealGateway) -> Launch<'a> {
    let words = real.words(scene.port());
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let config = scene.state_dir().join("openclaw.json").display().to_string();
    let mut launch = scene.launch().words(&words).env("OPENCLAW_CONFIG_PATH", &config);
    // What people get, but for the pace of the probes.
    let usual = ["--probe-timeout", "--hang-after", "--hung-stop-timeout", "--backoff-max", "--boot-limit"];
    for name in usual {
        launch = launch.without(name);
    }
    launch.option("--probe-interval", "1s").option("--startup-timeout", "240s").option("--stop-timeout", "60s")
}

/// Polls beside the supervisor: it may say `started` at any time after the gateway does, and never before.
fn first_start_is_told_in_time(supervisor: &mut Supervisor, scene: &Scene) -> Process {
    supervisor.wait_event("gateway.spawned");
    let begin = Instant::now();
    let mut last_not_started = begin;
    loop {
        let asked = Instant::now();
        if http::startup_status(scene.port()).as_deref() == Some("started") {
            break;
        }
        last_not_started = asked;
        assert!(begin.elapsed() < PATIENCE, "the gateway does not start\n{}", supervisor.story());
        thread::sleep(Duration::from_millis(20));
    }
    let started = supervisor.wait_event("gateway.started");
    assert!(started.seen >= last_not_started, "started was said too early\n{}", supervisor.story());
    let late = started.seen.saturating_duration_since(last_not_started);
    supervisor.assert_took("telling it", late, &(Duration::ZERO..Duration::from_secs(10)));
    started.process()
}

fn its_tree_has_a_broker_in_a_session_of_its_own(gateway: Process) {
    let own_session = |process: &&Process| stat(process.pid).is_some_and(|stat| stat.session == process.pid);
    let describe = || format!("{:?}", gateway.tree());
    wait_for("main, broker and reader", Duration::from_mins(1), describe, || {
        let tree = gateway.tree();
        // The gateway leads its session, the broker leads another.
        (tree.len() >= 3 && tree.iter().filter(own_session).count() >= 2).then_some(())
    });
    assert_eq!(stat(gateway.pid).map(|stat| stat.group), Some(gateway.pid));
}

fn a_kill_is_answered_by_a_new_one(supervisor: &mut Supervisor, first: Process) -> Process {
    let tree = first.tree();
    first.kill();
    supervisor.wait_event("gateway.exited");
    let second = supervisor.wait_started();
    assert_ne!(first, second);
    assert!(tree.iter().all(|process| !process.is_alive()), "some of {tree:?} are left\n{}", supervisor.story());
    second
}

/// The gateway exits 0 and leaves a handoff: its way to ask for a successor.
fn a_planned_restart_is_no_crash(supervisor: &mut Supervisor, second: Process) -> Process {
    second.signal(Signal::SIGUSR2);
    let exited = supervisor.wait_event("gateway.exited");
    assert_eq!(exited.number("code"), 0);
    let spawned = supervisor.wait_event("gateway.spawned");
    // After a crash it would have waited for half a second at least.
    let gap = spawned.seen.duration_since(exited.seen);
    supervisor.assert_took("the respawn", gap, &(Duration::ZERO..Duration::from_millis(450)));
    let third = supervisor.wait_started();
    assert_ne!(second, third);
    third
}

fn duplicates_are_turned_away(scene: &Scene, real: &RealGateway, gateway: Process) {
    let elsewhere = scene.root().join("other-state").display().to_string();
    let same = launch(scene, real);
    let other = launch(scene, real).option("--state-dir", &elsewhere);
    for launch in [same, other] {
        let mut second = launch.start();
        second.expect_exit(78);
        let took = second.age();
        second.assert_took("the refusal", took, &(Duration::ZERO..Duration::from_secs(1)));
        assert_eq!(second.count("gateway.spawned"), 0, "{}", second.story());
    }
    assert!(gateway.is_alive());
    assert_eq!(http::startup_status(scene.port()).as_deref(), Some("started"));
}

fn a_stop_leaves_nothing(supervisor: &mut Supervisor, scene: &Scene, gateway: Process) {
    its_tree_has_a_broker_in_a_session_of_its_own(gateway);
    let tree = gateway.tree();
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert!(tree.iter().all(|process| !process.is_alive()), "some of {tree:?} are left\n{}", supervisor.story());
    assert_eq!(scene.processes(), []);
    assert!(port::is_free(scene.port()));
}
