//! P10: the event log of a real life, replayed through the core, gives the same effects.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use openclaw_supervise::host::journal::{ReplayError, replay};
use support::Scene;
use support::supervisor::{Line, Supervisor};

fn log(supervisor: &Supervisor) -> Vec<String> {
    let lines = supervisor.lines();
    let events = lines.iter().filter_map(|line| match line {
        Line::Event(event) => Some(event.value().to_string()),
        Line::Text(_) => None,
    });
    events.collect()
}

#[test]
fn a_life_with_a_crash_a_freeze_a_restart_and_a_stop_replays_step_by_step() {
    let scene = Scene::new("healthy");
    let launch = scene.launch().option("--log-level", "debug").option("--probe-timeout", "100ms");
    let mut supervisor = launch.start();
    supervisor.wait_started().signal(Signal::SIGKILL);
    let second = supervisor.wait_started();
    scene.diary().command(second.pid, "freeze");
    supervisor.wait_event("gateway.hung");
    supervisor.wait_started();
    supervisor.signal(Signal::SIGHUP);
    supervisor.wait_started();
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);

    let log = log(&supervisor);
    let steps = replay(log.iter().map(String::as_str)).expect("it replays");
    let told = log.iter().filter(|line| line.contains(r#""core.step""#)).count();
    assert_eq!(steps, told);
    assert!(steps > 30, "{steps}");

    // Without one of its answers the life must have gone another way.
    let probed = log.iter().position(|line| line.contains(r#""input":{"Spawned""#)).expect("a gateway was spawned");
    let cut = log.iter().enumerate().filter(|(at, _)| *at != probed).map(|(_, line)| line.as_str());
    assert!(matches!(replay(cut), Err(ReplayError::Diverged { .. })));
}
