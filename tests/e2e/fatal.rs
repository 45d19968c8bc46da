//! Repeated fast deaths by the same fatal signal are deterministic.

#![cfg(target_os = "linux")]

use crate::support;

use std::fs;
use support::Scene;

#[test]
fn three_fast_deaths_by_the_same_fatal_signal_end_it_before_the_budget_is_spent() {
    for (signal, number) in [("SEGV", "11"), ("ABRT", "6")] {
        let scene = Scene::new(&format!("die={signal}@50ms"));
        let mut supervisor = scene.start();
        supervisor.expect_exit(69);
        assert_eq!(scene.diary().starts().len(), 3, "{}", supervisor.story());
        let gave_up = supervisor.last("restart.gave_up");
        assert_eq!(gave_up.number("restarts"), 2, "those that were granted");
        let stopped = supervisor.last("supervisor.stopped");
        for why in [gave_up.text("why"), stopped.text("reason")] {
            assert!(why.contains("3 gateways in a row") && why.contains(number) && why.contains("doctor"), "{why}");
        }
    }
}

#[test]
fn after_a_restart_by_a_manager_one_trial_is_made_each_backoff_max() {
    let scene = Scene::new("die=SEGV@50ms");
    scene.start().expect_exit(69);
    assert_eq!(scene.diary().starts().len(), 3);
    for starts in [4, 5] {
        let mut supervisor = scene.launch().option("--backoff-max", "2s").start();
        let scheduled = supervisor.wait_event("restart.scheduled");
        assert!((1..=2000).contains(&scheduled.number("delay_ms")), "{}", supervisor.story());
        supervisor.expect_exit(69);
        assert_eq!(scene.diary().starts().len(), starts, "{}", supervisor.story());
        let why = supervisor.last("restart.gave_up").text("why").to_owned();
        assert!(why.contains(&format!("{starts} gateways in a row")), "{why}");
    }
}

#[test]
fn a_fast_death_after_the_start_counts_too() {
    let scene = Scene::new("die=SEGV@600ms");
    let mut supervisor = scene.start();
    for _ in 0..3 {
        supervisor.wait_started();
    }
    supervisor.expect_exit(69);
    assert_eq!(scene.diary().starts().len(), 3);
}

#[test]
fn a_configuration_change_resets_the_count() {
    let scene = Scene::new("die=SEGV@50ms; die=SEGV@50ms; die=SEGV@50ms; healthy");
    let config = scene.state_dir().join("openclaw.json");
    // Time to change it before the second start.
    let mut supervisor = scene.launch().option("--backoff-max", "5m").start();
    supervisor.wait_event("gateway.exited");
    // From the second start on it is as it was: the third death is the second of its kind.
    let written = fs::write(&config, r#"{"gateway":{"mode":"local"}}"#);
    assert!(written.is_ok(), "{written:?}");
    supervisor.wait_started();
    assert_eq!((scene.diary().starts().len(), supervisor.count("restart.gave_up")), (4, 0), "{}", supervisor.story());
}

#[test]
fn other_signals_are_paced_as_usual() {
    for script in [
        "die=SEGV@50ms; die=SEGV@50ms; die=ABRT@50ms; die=ABRT@50ms; die=SEGV@50ms; healthy",
        "die=SEGV@50ms; die=SEGV@50ms; exit=1@50ms; die=SEGV@50ms; die=SEGV@50ms; healthy",
        "die=KILL@50ms; die=KILL@50ms; die=KILL@50ms; die=KILL@50ms; die=KILL@50ms; healthy",
    ] {
        let scene = Scene::new(script);
        let mut supervisor = scene.start();
        supervisor.wait_started();
        assert_eq!(scene.diary().starts().len(), 6, "{}", supervisor.story());
        assert_eq!(supervisor.count("restart.gave_up"), 0);
    }
}
