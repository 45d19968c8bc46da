//! Planned restarts of the real gateway, one after the other: none of them costs anything.
//!
//! `REAL_HANDOFF_ROUNDS=10 cargo test --release --test real planned_restarts` is the long form.

use crate::support::process::describe;
use crate::support::real::RealGateway;
use crate::support::supervisor::Said;
use crate::support::{Scene, port};
use nix::sys::signal::Signal;
use std::time::Duration;

/// A boot takes its seconds, and the suite has to end.
const ROUNDS: &str = "2";

/// Cold disks and busy machines.
const PATIENCE: Duration = Duration::from_mins(4);

#[test]
fn planned_restarts_of_the_real_gateway_in_a_row_cost_no_budget() {
    let rounds = std::env::var("REAL_HANDOFF_ROUNDS").unwrap_or_else(|_| ROUNDS.to_owned());
    let rounds: i64 = rounds.parse().expect("REAL_HANDOFF_ROUNDS is a number");
    let real = RealGateway::install();
    let scene = Scene::new("");
    let words = real.words(scene.port());
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut launch = scene.launch().words(&words).option("--probe-interval", "1s").option("--hang-after", "30s");
    // What people get.
    for name in ["--backoff-max", "--boot-limit", "--startup-timeout"] {
        launch = launch.without(name);
    }
    let mut supervisor = launch.option("--stop-timeout", "60s").start();
    supervisor.patience = PATIENCE;
    let mut gateway = supervisor.wait_started();
    for round in 1..=rounds {
        gateway.signal(Signal::SIGUSR2);
        let exited = supervisor.wait_event("gateway.exited");
        assert_eq!((exited.number("generation"), exited.number("code")), (round, 0), "{}", supervisor.story());
        assert_eq!(supervisor.wait_event("restart.scheduled").number("delay_ms"), 0, "{}", supervisor.story());
        let successor = supervisor.wait_started();
        assert_ne!(successor, gateway);
        let accepted = supervisor.wait_event("handoff.accepted");
        assert_eq!(accepted.number("generation"), round, "{}", supervisor.story());
        gateway = successor;
    }
    let status = Said::by(&scene, &["status", "--json"]).expect(0).json();
    assert_eq!(status["restarts"]["in_window"], 0, "{status}");
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert!(scene.processes().is_empty(), "these are left:\n{}", describe(&scene.processes()));
    assert!(port::is_free(scene.port()));
}
