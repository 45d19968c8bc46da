//! The same fast death by the same fatal signal, again and again, is no accident.

#![cfg(target_os = "linux")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use std::fs;
use support::Scene;

#[test]
fn three_fast_deaths_by_the_same_fatal_signal_are_the_end_long_before_the_budget_is() {
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
fn a_manager_that_starts_us_again_gets_one_trial_at_its_time() {
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
fn a_gateway_that_had_come_up_before_it_died_fast_counts_as_well() {
    let scene = Scene::new("die=SEGV@600ms");
    let mut supervisor = scene.start();
    for _ in 0..3 {
        supervisor.wait_started();
    }
    supervisor.expect_exit(69);
    assert_eq!(scene.diary().starts().len(), 3);
}

#[test]
fn whoever_changes_the_configuration_in_between_gets_all_tries_again() {
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
fn other_deaths_and_other_signals_are_paced_as_usual() {
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
