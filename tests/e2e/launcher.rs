//! A gateway behind a launcher: one that goes to the background, one that keeps SIGTERM to itself, one that dies of it.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use support::supervisor::{Launch, Supervisor};
use support::{PATIENCE, Scene, process, wait_for};

/// A shell that runs this, with the gateway's command line in place of GATEWAY.
fn behind<'a>(scene: &'a Scene, script: &str) -> Launch<'a> {
    let gateway = scene.gateway_words().join(" ");
    scene.launch().words(&["sh", "-c", &script.replace("GATEWAY", &gateway)])
}

fn listener(scene: &Scene) -> process::Process {
    // A shell is followed before it becomes the gateway.
    scene.diary().wait_line("START ");
    let starts = scene.diary().starts();
    assert_eq!(starts.len(), 1, "{}", scene.diary().text());
    starts[0].process
}

/// Stops it, and asserts that its gateway had drained, heard of SIGTERM once, and that nothing is left.
fn assert_stops_with_a_drain(scene: &Scene, supervisor: &mut Supervisor) {
    let gateway = listener(scene);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_eq!(scene.diary().signals(gateway.pid), ["SIGTERM"], "{}", supervisor.story());
    assert_eq!(supervisor.count("stop.escalated"), 0, "{}", supervisor.story());
    assert_eq!(supervisor.last("gateway.exited").number("code"), 0, "{}", supervisor.story());
    assert_eq!(scene.processes(), []);
}

#[test]
fn a_command_that_goes_to_the_background_is_followed_however_long_its_gateway_boots() {
    for (boot, script) in [
        ("boot=1500ms", "setsid GATEWAY >/dev/null 2>&1 & sleep 0.3; exit 0"),
        ("boot=1500ms", "GATEWAY & exit 0"),
        ("healthy", "setsid GATEWAY >/dev/null 2>&1 & sleep 0.3; exit 0"),
        ("boot=800ms", "(setsid GATEWAY &) ; exit 0"),
    ] {
        let scene = Scene::new(&format!("{boot} drain=300ms"));
        let mut supervisor = behind(&scene, script).start();
        let followed = supervisor.wait_event("gateway.followed");
        let gateway = listener(&scene);
        assert_eq!(followed.number("pid"), i64::from(gateway.pid), "{script}\n{}", supervisor.story());
        scene.diary().wait_requests(gateway.pid, 3);
        let started = || (supervisor.count("gateway.started") == 1).then_some(());
        wait_for("its start", PATIENCE, || supervisor.story(), started);
        assert_eq!(supervisor.count("gateway.spawned"), 1, "{script}\n{}", supervisor.story());
        assert_stops_with_a_drain(&scene, &mut supervisor);
    }
}

#[test]
fn a_daemon_that_runs_the_gateway_as_its_child_is_followed_and_its_gateway_drains() {
    let scene = Scene::new("boot=500ms drain=300ms");
    let mut supervisor = behind(&scene, "(setsid sh -c 'GATEWAY; true' &) ; exit 0").start();
    let daemon = supervisor.wait_event("gateway.followed").process();
    supervisor.wait_event("gateway.started");
    assert_ne!(listener(&scene), daemon);
    assert_stops_with_a_drain(&scene, &mut supervisor);
}

#[test]
fn a_followed_gateway_is_replaced_when_it_crashes_and_adopted_after_a_crash_of_ours() {
    let scene = Scene::new("boot=300ms");
    let script = "setsid GATEWAY & exit 0";
    let mut supervisor = behind(&scene, script).start();
    supervisor.wait_event("gateway.followed");
    supervisor.wait_event("gateway.started");
    listener(&scene).kill();
    let exited = supervisor.wait_event("gateway.exited");
    assert_eq!(exited.number("signal"), 9, "{}", supervisor.story());
    let second = supervisor.wait_event("gateway.followed").process();
    supervisor.wait_event("gateway.started");
    scene.diary().wait_requests(second.pid, 2);
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
    let mut heir = behind(&scene, script).start();
    assert_eq!(heir.wait_event("gateway.adopted").process(), second, "{}", heir.story());
    heir.signal(Signal::SIGTERM);
    heir.expect_exit(0);
    assert_eq!(scene.processes(), []);
}

#[test]
fn a_command_that_ends_with_0_and_leaves_nothing_ends_with_words_on_the_background() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--max-restarts", "1").words(&["sh", "-c", "exit 0"]).start();
    supervisor.expect_exit(69);
    let reason = supervisor.last("supervisor.stopped");
    assert!(reason.text("reason").contains("foreground"), "{}", supervisor.story());
}

#[test]
fn a_launcher_that_keeps_sigterm_to_itself_does_not_cost_the_gateway_its_drain() {
    let scene = Scene::new("drain=500ms");
    let mut supervisor = behind(&scene, "trap '' TERM; GATEWAY; exit $?").start();
    supervisor.wait_event("gateway.started");
    assert_stops_with_a_drain(&scene, &mut supervisor);
    assert_eq!(supervisor.count("stop.forwarded"), 1, "{}", supervisor.story());
}

#[test]
fn a_launcher_that_dies_of_sigterm_does_not_cost_the_gateway_its_drain() {
    let scene = Scene::new("drain=500ms");
    let mut supervisor = behind(&scene, "GATEWAY; true").start();
    supervisor.wait_event("gateway.started");
    assert_stops_with_a_drain(&scene, &mut supervisor);
}

#[test]
fn a_launcher_that_passes_sigterm_on_does_not_cost_the_gateway_a_second_one() {
    let scene = Scene::new("drain=2s");
    let script = "GATEWAY & child=$!; trap 'kill -TERM $child' TERM; wait $child; wait $child";
    let mut supervisor = behind(&scene, script).start();
    supervisor.wait_event("gateway.started");
    assert_stops_with_a_drain(&scene, &mut supervisor);
    assert_eq!(supervisor.count("stop.forwarded"), 0, "{}", supervisor.story());
}

#[test]
fn a_gateway_that_serves_goes_on_when_its_launcher_is_killed() {
    let scene = Scene::new("drain=300ms");
    let mut supervisor = behind(&scene, "GATEWAY; exit $?").start();
    let launcher = supervisor.wait_started();
    let gateway = listener(&scene);
    assert_ne!(launcher, gateway);
    launcher.kill();
    assert_eq!(supervisor.wait_event("gateway.followed").process(), gateway);
    scene.diary().wait_requests(gateway.pid, 3);
    assert_eq!(supervisor.count("gateway.exited"), 0, "{}", supervisor.story());
    assert_stops_with_a_drain(&scene, &mut supervisor);
}
