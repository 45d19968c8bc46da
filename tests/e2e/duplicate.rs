//! A healthy gateway stays in control: a second supervisor spawns nothing and exits with 78.

#![cfg(target_os = "linux")]

use crate::support;

use support::supervisor::{Line, Supervisor};
use support::{Scene, process::Process};

/// P7: one line says what happened and names the holder.
fn assert_named(supervisor: &Supervisor, scene: &Scene, holder: Process) {
    let phrase = format!("another gateway instance is already listening on {}", scene.url());
    let told = supervisor.lines().iter().any(|line| {
        let text = match line {
            Line::Event(event) => event.value().to_string(),
            Line::Text(text) => text.clone(),
        };
        text.contains(&phrase) && text.contains(&holder.pid.to_string()) && text.contains("fake-gateway")
    });
    assert!(told, "no line names {phrase:?}, pid {} and its command\n{}", holder.pid, supervisor.story());
}

#[test]
fn a_healthy_gateway_that_is_not_ours_is_left_alone() {
    let scene = Scene::new("healthy");
    let mut stranger = scene.stranger("healthy");
    let mut supervisor = scene.start();
    supervisor.expect_exit(78);
    assert_eq!(scene.diary().starts().len(), 0);
    assert_named(&supervisor, &scene, stranger.process());
    let conflict = supervisor.last("conflict.detected");
    assert_eq!(conflict.number("holder_pid"), i64::from(stranger.pid()));
    assert!(conflict.text("holder_command").contains("fake-gateway"));
    assert!(stranger.is_alive() && stranger.diary.signals(stranger.pid()).is_empty());
}

#[test]
fn a_gateway_of_an_earlier_release_is_recognised() {
    let scene = Scene::new("healthy");
    let mut stranger = scene.stranger("old");
    let mut supervisor = scene.start();
    supervisor.expect_exit(78);
    assert_eq!(scene.diary().starts().len(), 0);
    assert!(stranger.is_alive());
}

#[test]
fn the_exit_code_of_a_conflict_can_be_chosen() {
    let scene = Scene::new("healthy");
    let _stranger = scene.stranger("healthy");
    // launchd does not start a job again that exits with 0, if its KeepAlive is SuccessfulExit = false.
    for code in [75, 0] {
        let mut supervisor = scene.launch().option("--conflict-exit-code", &code.to_string()).start();
        supervisor.expect_exit(code);
        assert!(supervisor.last("supervisor.stopped").text("reason").contains("nothing was started"));
    }
}

#[test]
fn a_second_supervisor_on_the_same_state_ends_and_the_first_goes_on() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    let mut second = scene.start();
    second.expect_exit(78);
    let reason = second.last("supervisor.stopped");
    let reason = reason.text("reason");
    for word in [&scene.url(), &format!("pid {}", first.pid()), "openclaw-supervise", "nothing was started"] {
        assert!(reason.contains(word), "{word} is not in {reason}");
    }
    assert_eq!(second.count("probe.verdict_changed"), 0, "no probe was needed\n{}", second.story());
    scene.diary().wait_requests(gateway.pid, 3);
    assert!(gateway.is_alive());
    assert_eq!(scene.diary().starts().len(), 1);
    assert!(scene.diary().signals(gateway.pid).is_empty());
}
