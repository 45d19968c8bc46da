//! A supervisor that cannot probe does not conclude that the gateway hangs.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::supervisor::Supervisor;
use support::{PATIENCE, Scene};

/// Lowers the running supervisor's limit of open descriptors; those that it has stay open.
fn limit_descriptors(supervisor: &Supervisor, current: Option<u64>) {
    let pid = Pid::from_raw(supervisor.pid());
    let maximum = getrlimit(Resource::Nofile).maximum;
    prlimit(pid, Resource::Nofile, Rlimit { current, maximum }).expect("it is our child");
}

#[test]
fn a_supervisor_without_descriptors_leaves_its_gateway_alone() {
    let scene = Scene::new("healthy");
    let launch = scene.launch().option("--hang-after", "300ms").option("--probe-timeout", "100ms");
    let mut supervisor = launch.start();
    let gateway = supervisor.wait_started();
    let before = getrlimit(Resource::Nofile).current;

    limit_descriptors(&supervisor, Some(1));
    let blind = supervisor.wait_event_with("probe.verdict_changed", |event| event.text("to") == "inconclusive");
    assert!(blind.text("detail").contains("too many open files"), "{}", blind.value());
    support::let_pass(Duration::from_millis(2500));
    limit_descriptors(&supervisor, before);

    supervisor.wait_event_with("probe.verdict_changed", |event| event.text("to") == "gateway");
    scene.diary().wait_requests(gateway.pid, 20);
    let told = ["liveness.missed", "gateway.hung", "gateway.exited"].map(|name| supervisor.count(name));
    assert_eq!(told, [0; 3], "{}", supervisor.story());
    assert!(scene.diary().signals(gateway.pid).is_empty() && gateway.is_alive());

    // A hang is detected again.
    scene.diary().command(gateway.pid, "freeze");
    supervisor.wait_event("gateway.hung");
    supervisor.wait_started();
    assert_eq!(scene.diary().starts().len(), 2);
}

/// A supervisor that may open so many descriptors from its start on.
fn start_with(scene: &Scene, descriptors: u32) -> Supervisor {
    let plain = scene.launch().command();
    let mut limited = Command::new("/bin/sh");
    limited
        .stdout(Stdio::null())
        .arg("-c")
        .arg(format!("ulimit -n {descriptors}; exec \"$0\" \"$@\""))
        .arg(plain.get_program());
    limited.args(plain.get_args());
    for (name, value) in plain.get_envs() {
        match value {
            Some(value) => limited.env(name, value),
            None => limited.env_remove(name),
        };
    }
    Supervisor::spawn(limited)
}

#[test]
fn with_too_few_descriptors_the_limit_is_to_blame_and_a_stop_is_followed() {
    for descriptors in 7..=15 {
        let scene = Scene::new("healthy");
        let mut supervisor = start_with(&scene, descriptors);
        let is_under_way = || {
            let names = supervisor.events().iter().map(|event| event.name().to_owned()).collect::<Vec<_>>();
            names.iter().any(|name| ["lease.acquired", "supervisor.stopped"].contains(&name.as_str())).then_some(())
        };
        support::wait_for("the lease or the end", PATIENCE, || supervisor.story(), is_under_way);
        supervisor.signal(Signal::SIGTERM);
        supervisor.wait_exit();
        let told = supervisor.events();
        let whys = told.iter().filter_map(|event| match event.name() {
            "store.unavailable" => Some(event.text("why")),
            "supervisor.stopped" if event.number("exit_code") == 1 => Some(event.text("reason")),
            _ => None,
        });
        for why in whys {
            assert!(why.contains("limit on open files"), "{descriptors}: {why}\n{}", supervisor.story());
        }
        assert!(supervisor.age() < Duration::from_secs(10), "{descriptors}: {}", supervisor.story());
        assert_eq!(scene.diary().starts().len(), 0, "{descriptors}: {}", supervisor.story());
    }
}

#[test]
fn a_search_that_fails_each_second_without_descriptors_is_told_once() {
    let scene = Scene::new("healthy");
    let mut supervisor = start_with(&scene, 11);
    let told = || supervisor.story().matches("cannot look for hooks").count();
    support::wait_for("the warning", PATIENCE, || supervisor.story(), || (told() > 0).then_some(()));
    let begun = supervisor.age();
    let repeats = || (supervisor.age() > begun + Duration::from_millis(2500)).then_some(());
    support::wait_for("two more searches", PATIENCE, || supervisor.story(), repeats);
    assert_eq!(told(), 1, "{}", supervisor.story());
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(1);
}
