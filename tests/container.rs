//! A real container under runc: a read-only root with only our static program and the stand-in gateway, user 1000 without
//! capabilities. We are its PID 1.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]
#![expect(clippy::disallowed_methods, reason = "how long a stop takes is measured by the test's own clock")]

#[path = "container/bundle.rs"]
mod bundle;
#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use bundle::{Container, PORT};
use std::time::{Duration, Instant};
use support::{Scene, wait_for};

const PATIENCE: Duration = Duration::from_mins(1);

fn wait_serving(container: &Container<'_>) {
    let started = || container.events().contains("\"gateway.started\"").then_some(());
    wait_for("the start of a gateway", PATIENCE, || container.story(), started);
    assert_eq!(container.probe("--live"), 0, "{}", container.story());
}

#[test]
fn it_serves_as_user_1000_without_capabilities_and_stops_within_the_grace_of_a_runtime() {
    let scene = Scene::new("healthy drain=300ms");
    let mut container = Container::run(&scene, "plain", &[]);
    wait_serving(&container);
    assert_eq!(container.probe("--ready"), 0, "{}", container.story());
    let status = container.read_of_first("status");
    for line in ["Uid:\t1000\t1000\t1000\t1000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.lines().any(|found| found == line), "{line:?} is not in\n{status}");
    }
    assert!(container.told("supervisor.started").contains("\"pid\":1,"), "{}", container.story());
    let begun = Instant::now();
    container.signal("TERM");
    assert_eq!(container.wait_exit(), 0, "{}", container.story());
    // `docker stop` kills after 10 s.
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert!(scene.processes().is_empty(), "{}", container.story());
}

#[test]
fn a_gateway_that_dies_with_a_hundred_orphans_is_replaced_and_leaves_no_zombie() {
    let scene = Scene::new(&("kid=daemon ".repeat(100) + "; healthy"));
    let container = Container::run(&scene, "zombies", &[]);
    wait_serving(&container);
    let first = container.gateway();
    first.kill();
    wait_for(
        "the next gateway",
        PATIENCE,
        || container.story(),
        || (container.events().matches("\"gateway.started\"").count() == 2).then_some(()),
    );
    assert!(!first.is_alive());
    let init = container.first();
    let zombies = || support::process::zombies_of(init.pid).is_empty().then_some(());
    wait_for("no zombie", Duration::from_secs(5), || container.story(), zombies);
}

#[test]
fn the_container_ends_with_our_exit_code() {
    for (script, settings, code) in
        [("exit=1", &["MAX_RESTARTS=0"][..], 69), ("exit=78@100ms", &[], 78), ("healthy", &["HANG_AFTER=never"], 2)]
    {
        let scene = Scene::new(script);
        let mut container = Container::run(&scene, "code", settings);
        assert_eq!(container.wait_exit(), code, "{script}\n{}", container.story());
    }
}

#[test]
fn the_health_check_fails_while_the_gateway_is_frozen_and_passes_after_it_was_replaced() {
    let scene = Scene::new("healthy; healthy");
    let container = Container::run(&scene, "health", &["HANG_AFTER=3s", "PROBE_INTERVAL=500ms", "PROBE_TIMEOUT=500ms"]);
    wait_serving(&container);
    container.gateway().signal(nix::sys::signal::Signal::SIGSTOP);
    assert_eq!(container.probe("--live"), 1, "{}", container.story());
    assert_eq!(container.probe("--supervised"), 0, "that is being seen to: {}", container.story());
    wait_for(
        "the next gateway",
        PATIENCE,
        || container.story(),
        || (container.events().matches("\"gateway.started\"").count() == 2).then_some(()),
    );
    assert_eq!(container.probe("--live"), 0);
    container.first().signal(nix::sys::signal::Signal::SIGSTOP);
    assert_eq!(container.probe("--supervised"), 1, "a stopped supervisor does not count");
    assert_eq!(container.probe("--live"), 0, "its gateway serves all the same");
    container.first().signal(nix::sys::signal::Signal::SIGCONT);
    assert_eq!(container.probe("--supervised"), 0, "{}", container.story());
}

#[test]
fn without_a_gateway_the_supervisor_of_a_container_still_counts_as_alive() {
    let scene = Scene::new("exit=1");
    let container = Container::run(&scene, "paced", &["BACKOFF_MAX=5m", "BOOT_LIMIT=1"]);
    let waits = || container.events().contains("\"restart.scheduled\"").then_some(());
    wait_for("a pause", PATIENCE, || container.story(), waits);
    assert_eq!((container.probe("--live"), container.probe("--supervised")), (1, 0), "{}", container.story());
}

#[test]
fn an_endless_drain_is_cut_off_within_the_grace_period_of_a_runtime() {
    let scene = Scene::new("healthy drain=100s kid=ignoring kid=daemon");
    let mut container = Container::run(&scene, "grace", &[]);
    wait_serving(&container);
    let begun = Instant::now();
    container.signal("TERM");
    assert_eq!(container.wait_exit(), 0, "{}", container.story());
    // `docker stop` kills after 10 s, and `--stop-timeout auto` is 8 s for process 1.
    let took = begun.elapsed();
    assert!((Duration::from_millis(7900)..Duration::from_secs(10)).contains(&took), "{took:?}\n{}", container.story());
    assert!(container.events().contains("\"stop.escalated\""), "{}", container.story());
    assert!(scene.processes().is_empty(), "{}", container.story());
}

#[test]
fn a_second_container_on_the_same_volume_stands_by_and_takes_over() {
    let scene = Scene::new("healthy; healthy");
    let mut first = Container::run(&scene, "owner", &[]);
    wait_serving(&first);
    let second = Container::run(&scene, "standby", &[]);
    wait_for("the standby", PATIENCE, || second.story(), || second.events().contains("standby.entered").then_some(()));
    assert_ne!(second.probe("--ready"), 0, "one that stands by is not ready");
    assert_eq!(second.probe("--supervised"), 0, "a standby supervisor counts as alive: {}", second.story());
    first.signal("KILL");
    first.wait_exit();
    wait_serving(&second);
    assert_eq!(first.events().matches("\"gateway.spawned\"").count(), 1);
}

#[test]
fn the_static_program_works_in_an_otherwise_empty_root() {
    let scene = Scene::new("healthy");
    let root = bundle::root(&scene, "empty");
    for (words, code) in
        [(&["--version"][..], 0), (&["--help"], 0), (&["status"], 3), (&["probe"], 1), (&["events"], 0)]
    {
        let output = std::process::Command::new("/usr/sbin/chroot")
            .arg(&root)
            .arg("/usr/bin/openclaw-supervise")
            .args(words)
            .env_clear()
            .envs([("HOME", "/state"), ("OPENCLAW_GATEWAY_PORT", &PORT.to_string())])
            .output()
            .expect("chroot can be started");
        assert_eq!(output.status.code(), Some(code), "{words:?}: {output:?}");
    }
}
