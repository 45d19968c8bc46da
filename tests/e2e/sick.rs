//! A gateway that answers badly is told from one that answers seldom: the first is replaced in time, the second never.

#![cfg(target_os = "linux")]

use crate::support;

use std::ops::Range;
use std::time::Duration;
use support::Scene;
use support::process::Process;
use support::supervisor::{Launch, Supervisor};

/// The window after which a gateway counts as hung here, and the pace of the looks.
const HANG_AFTER: Duration = Duration::from_secs(1);
const INTERVAL: Duration = Duration::from_millis(50);

/// What a busy machine may add to any of it.
const SLACK: Duration = Duration::from_secs(2);

fn launch(scene: &Scene) -> Launch<'_> {
    scene.launch().option("--hang-after", "1s").option("--probe-interval", "50ms").option("--probe-timeout", "150ms")
}

/// How long before the verdict the last good answer came.
fn silence(supervisor: &mut Supervisor) -> Duration {
    let hung = supervisor.wait_event("gateway.hung");
    assert!(hung.number("failed_probes") >= 3, "{}", hung.value());
    Duration::from_millis(hung.number("last_good_ms").unsigned_abs())
}

fn assert_within(supervisor: &Supervisor, silence: Duration, range: &Range<Duration>) {
    supervisor.assert_took("the verdict", silence, range);
}

/// Has the gateway fall ill and waits for its successor. The last look before the verdict saw `verdict`.
fn assert_replaced(illness: &str, verdict: &str) -> Scene {
    let scene = Scene::new("healthy");
    let mut supervisor = launch(&scene).start();
    let first = supervisor.wait_started();
    scene.diary().command(first.pid, illness);
    supervisor.wait_event_with("probe.verdict_changed", |event| event.text("to") == verdict);
    let silence = silence(&mut supervisor);
    assert_within(&supervisor, silence, &(HANG_AFTER..HANG_AFTER + INTERVAL + SLACK));
    supervisor.wait_event("gateway.exited");
    let second = supervisor.wait_started();
    assert!(first != second && !first.is_alive());
    assert_eq!(scene.diary().starts().len(), 2);
    assert_eq!(supervisor.count("liveness.extended"), 0, "{}", supervisor.story());
    drop(supervisor);
    scene
}

#[test]
fn a_gateway_whose_answers_are_cut_short_is_replaced() {
    assert_replaced("cut", "silent");
}

#[test]
fn a_gateway_whose_answers_drip_is_replaced() {
    assert_replaced("drip", "silent");
}

#[test]
fn a_gateway_that_resets_its_connections_is_replaced() {
    assert_replaced("reset", "silent");
}

#[test]
fn a_gateway_that_refuses_connections_is_replaced() {
    assert_replaced("close", "free");
}

#[test]
fn a_gateway_that_answers_with_a_gibibyte_is_left_alone_and_the_gibibyte_is_not_read() {
    let scene = Scene::new("healthy");
    let mut supervisor = launch(&scene).start();
    let gateway = supervisor.wait_started();
    scene.diary().command(gateway.pid, "flood");
    supervisor.wait_event("liveness.degraded");
    support::let_pass(HANG_AFTER * 2);
    assert_untouched(&supervisor, &scene, gateway);
    let text = scene.diary().text();
    let floods = text.lines().filter_map(|line| line.strip_prefix("FLOOD ")?.split(' ').nth(1)?.parse::<u64>().ok());
    let floods: Vec<_> = floods.collect();
    // What the buffers of a connection on the loopback hold is out of our hands.
    assert!(floods.len() >= 3 && floods.iter().all(|&taken| taken < 64 << 20), "{floods:?}");
}

#[test]
fn a_gateway_that_answers_every_fifth_probe_is_left_alone() {
    let scene = Scene::new("healthy");
    // One address: with two of them each look would ask twice. Five looks take a second and a half.
    let launch = scene.launch().option("--host", "127.0.0.1").option("--probe-timeout", "250ms");
    let mut supervisor = launch.option("--probe-interval", "50ms").option("--hang-after", "6s").start();
    let gateway = supervisor.wait_started();
    scene.diary().command(gateway.pid, "answers-every=5");
    let missed = supervisor.wait_event("liveness.missed").seen;
    let mut recovered = missed;
    while recovered.duration_since(missed) < Duration::from_secs(9) {
        recovered = supervisor.wait_event("liveness.recovered").seen;
    }
    assert_untouched(&supervisor, &scene, gateway);
    assert_eq!(supervisor.count("liveness.extended"), 0, "{}", supervisor.story());
}

fn assert_untouched(supervisor: &Supervisor, scene: &Scene, gateway: Process) {
    assert_eq!(supervisor.count("gateway.hung"), 0, "{}", supervisor.story());
    assert_eq!(scene.diary().starts().len(), 1);
    assert!(scene.diary().signals(gateway.pid).is_empty() && gateway.is_alive());
}

#[test]
fn a_loop_that_runs_in_circles_has_its_window_twice() {
    let scene = Scene::new("healthy");
    let mut supervisor = launch(&scene).start();
    let gateway = supervisor.wait_started();
    scene.diary().command(gateway.pid, "burn=100s");
    let extended = supervisor.wait_event("liveness.extended");
    assert!(extended.number("cpu_ms") > 0, "{}", extended.value());
    let silence = silence(&mut supervisor);
    assert_within(&supervisor, silence, &(HANG_AFTER * 2..HANG_AFTER * 2 + INTERVAL + SLACK));
    supervisor.wait_started();
    assert!(!gateway.is_alive());
    assert_eq!(supervisor.count("liveness.extended"), 1, "{}", supervisor.story());
}

#[test]
fn a_closed_port_with_work_behind_it_has_the_time_of_a_boot() {
    let scene = Scene::new("healthy");
    let mut supervisor = launch(&scene).option("--startup-timeout", "4s").start();
    let gateway = supervisor.wait_started();
    scene.diary().command(gateway.pid, "work=100s");
    supervisor.wait_event("liveness.extended");
    let silence = silence(&mut supervisor);
    let budget = Duration::from_secs(4);
    assert_within(&supervisor, silence, &(budget..budget + INTERVAL + SLACK));
    supervisor.wait_started();
    assert!(!gateway.is_alive());
    assert_eq!(supervisor.count("liveness.extended"), 1, "{}", supervisor.story());
}

#[test]
fn a_restart_inside_the_process_without_a_seen_drain_is_left_alone() {
    let scene = Scene::new("healthy");
    let mut supervisor = launch(&scene).start();
    let gateway = supervisor.wait_started();
    scene.diary().command(gateway.pid, "work=2500ms");
    supervisor.wait_event("liveness.extended");
    let after = supervisor.wait_event("liveness.recovered").number("after_ms");
    assert!(after > 2 * 1000, "{}", supervisor.story());
    assert_untouched(&supervisor, &scene, gateway);
}

#[test]
fn a_gateway_that_is_not_ready_is_told_of_once_and_left_alone() {
    let scene = Scene::new("unready");
    let mut supervisor = launch(&scene).start();
    let gateway = supervisor.wait_started();
    let told = supervisor.wait_event("readiness.changed");
    assert_eq!((&told.value()["ready"], told.text("detail")), (&false.into(), "not ready: channels"));
    // It is asked anew with one look in twelve, and a look is two requests and more.
    scene.diary().wait_requests(gateway.pid, 80);
    assert_eq!(supervisor.count("readiness.changed"), 1, "{}", supervisor.story());
    assert_untouched(&supervisor, &scene, gateway);
}
