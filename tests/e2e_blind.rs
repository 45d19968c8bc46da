//! A supervisor that cannot probe does not conclude that the gateway hangs.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use rustix::process::{Pid, Resource, Rlimit, getrlimit, prlimit};
use std::time::Duration;
use support::Scene;
use support::supervisor::Supervisor;

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
