//! A gateway that is alive is not replaced, however ill it is.

#![cfg(target_os = "linux")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use std::time::Duration;
use support::Scene;
use support::process::Process;
use support::supervisor::{Launch, Said, Supervisor};

/// The window after which a gateway counts as hung here.
const HANG_AFTER: Duration = Duration::from_secs(1);

fn launch(scene: &Scene) -> Launch<'_> {
    scene.launch().option("--hang-after", "1s").option("--probe-interval", "50ms").option("--probe-timeout", "150ms")
}

fn assert_untouched(supervisor: &Supervisor, scene: &Scene, gateway: Process) {
    assert_eq!(supervisor.count("gateway.hung"), 0, "{}", supervisor.story());
    assert_eq!(scene.diary().starts().len(), 1);
    assert!(scene.diary().signals(gateway.pid).is_empty() && gateway.is_alive());
}

/// Has a gateway answer in this way for a few windows: it is told of once, and left alone.
fn assert_told(illness: &str, detail: &str) {
    let scene = Scene::new("healthy");
    let mut supervisor = launch(&scene).start();
    let gateway = supervisor.wait_started();
    scene.diary().command(gateway.pid, illness);
    let told = supervisor.wait_event("liveness.degraded");
    assert!(told.text("detail").contains(detail), "{}", told.value());
    support::let_pass(HANG_AFTER * 4);
    let state = scene.state_dir().display().to_string();
    let status = Said::by(&scene, &["status", "--state-dir", &state]).expect(4);
    status.assert_says(&["not healthy", "it is alive and not healthy"]);
    scene.diary().command(gateway.pid, "answers-every=1");
    supervisor.wait_event("liveness.recovered");
    assert_untouched(&supervisor, &scene, gateway);
    assert_eq!(supervisor.count("liveness.degraded"), 1, "{}", supervisor.story());
}

#[test]
fn a_gateway_that_is_unavailable_is_told_of_and_left_alone() {
    assert_told("unavailable", "503");
}

#[test]
fn a_gateway_that_answers_html_on_every_path_is_told_of_and_left_alone() {
    assert_told("html", "text/html");
}

#[test]
fn a_gateway_that_redirects_is_told_of_and_left_alone() {
    assert_told("redirect", "302");
}

#[test]
fn a_gateway_that_is_ill_from_its_first_second_outlives_its_startup_timeout() {
    let scene = Scene::new("unavailable");
    let mut supervisor = launch(&scene).option("--startup-timeout", "1s").start();
    let gateway = supervisor.wait_event("gateway.spawned").process();
    supervisor.wait_event("liveness.degraded");
    support::let_pass(HANG_AFTER * 3);
    scene.diary().command(gateway.pid, "answers-every=1");
    supervisor.wait_event("liveness.recovered");
    supervisor.wait_started();
    assert_untouched(&supervisor, &scene, gateway);
    assert_eq!(supervisor.count("startup.timed_out"), 0, "{}", supervisor.story());
}
