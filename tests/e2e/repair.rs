//! A gateway that refuses its configuration, and OpenClaw's own repair of it: once, between two starts.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "what a stop takes is measured by the test's own clock")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs;
use std::time::{Duration, Instant};
use support::openclaw::Openclaw;
use support::process::{Process, stat};
use support::supervisor::{Launch, Supervisor};
use support::{PATIENCE, Scene, wait_for};

fn launch<'a>(scene: &'a Scene, openclaw: &Openclaw) -> Launch<'a> {
    let words = openclaw.words(scene.port());
    scene.launch().words(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

fn repairing<'a>(scene: &'a Scene, openclaw: &Openclaw) -> Launch<'a> {
    launch(scene, openclaw).option("--repair", "doctor")
}

/// What the last line says.
fn reason(supervisor: &Supervisor) -> String {
    supervisor.last("supervisor.stopped").text("reason").to_owned()
}

#[test]
fn a_refusal_is_repaired_once_and_the_next_start_serves() {
    let scene = Scene::new("boot=60s exit=78@50ms; healthy");
    let openclaw = scene.openclaw();
    let config = scene.root().join("my.json");
    fs::write(&config, "{}").expect("the folder can be written");
    // It begins only when nothing of the gateway is left, and the next one only after its end.
    openclaw.answer(
        "doctor",
        "grep -c '^START' \"$root/gateway.log\" > \"$root/seen\"; readlink /proc/$$/fd/0 >> \"$root/seen\"",
    );
    let elsewhere = scene.root().join("elsewhere").display().to_string();
    let launch = repairing(&scene, &openclaw).option("--state-dir", &elsewhere);
    let launch = launch.option("--config", &config.display().to_string());
    let mut supervisor = launch
        .env("NOTIFY_SOCKET", "/nonexistent")
        .env("INVOCATION_ID", "0123")
        .env("OPENCLAW_SERVICE_MARKER", "1")
        .start();
    let refused = supervisor.wait_event("gateway.exited");
    assert_eq!((refused.number("code"), refused.number("generation")), (78, 1));
    let began = supervisor.wait_event("hook.started");
    let ended = supervisor.wait_event("hook.finished");
    assert_eq!((began.text("hook"), ended.text("hook"), ended.number("code")), ("repair", "repair", 0));
    let gateway = supervisor.wait_started();
    assert_eq!(scene.diary().starts().last().map(|start| start.process), Some(gateway));
    let calls = openclaw.calls("doctor");
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(calls[0].words, "doctor --fix --yes --non-interactive");
    let given = openclaw.environment(&calls[0]);
    let value = |name: &str| given.get(name).map(String::as_str);
    assert_eq!(value("OPENCLAW_STATE_DIR"), Some(elsewhere.as_str()));
    assert_eq!(value("OPENCLAW_CONFIG_PATH"), Some(config.display().to_string().as_str()));
    assert_eq!(value("OPENCLAW_SUPERVISOR_MODE"), Some("external"));
    assert_eq!(value("OPENCLAW_SERVICE_REPAIR_POLICY"), Some("external"));
    for name in ["NOTIFY_SOCKET", "INVOCATION_ID", "OPENCLAW_SERVICE_MARKER", "OPENCLAW_SUPERVISE_INSTANCE"] {
        assert_eq!(value(name), None, "{name}");
    }
    assert_eq!(fs::read_to_string(scene.root().join("seen")).ok().as_deref(), Some("1\n/dev/null\n"));
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_eq!((scene.diary().starts().len(), supervisor.count("hook.started")), (2, 1));
}

#[test]
fn a_config_that_cannot_be_parsed_reaches_the_repair() {
    let scene = Scene::new("boot=60s exit=78@50ms; healthy");
    let openclaw = scene.openclaw();
    let config = scene.root().join("my.json");
    fs::write(&config, "{ gateway: { port: ").expect("the folder can be written");
    openclaw.answer("doctor", "echo '{}' > \"$root/my.json\"");
    let mut supervisor = repairing(&scene, &openclaw).option("--config", &config.display().to_string()).start();
    supervisor.wait_event("hook.finished");
    supervisor.wait_started();
    assert_eq!((scene.diary().starts().len(), openclaw.calls("doctor").len()), (2, 1), "{}", supervisor.story());
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

#[test]
fn a_refusal_after_the_repair_is_the_end_and_the_line_says_both() {
    let scene = Scene::new("boot=60s exit=78@50ms");
    let openclaw = scene.openclaw();
    let mut supervisor = repairing(&scene, &openclaw).start();
    supervisor.expect_exit(78);
    assert_eq!((scene.diary().starts().len(), openclaw.calls("doctor").len()), (2, 1));
    let reason = reason(&supervisor);
    assert!(reason.contains("exited with 78") && reason.contains("openclaw doctor --fix"), "{reason}");
}

#[test]
fn what_the_repair_itself_writes_into_the_configuration_is_no_reason_to_repair_again() {
    let scene = Scene::new("boot=60s exit=78@50ms");
    let openclaw = scene.openclaw();
    let config = scene.root().join("my.json");
    fs::write(&config, "{}").expect("the folder can be written");
    // As OpenClaw's own does at each run, and never twice the same.
    openclaw.answer("doctor", "echo \"{ meta: { lastRunAt: '$(date +%s%N)' } }\" > \"$root/my.json\"");
    let launch = repairing(&scene, &openclaw).option("--config", &config.display().to_string());
    let mut supervisor = launch.option("--backoff-max", "1s").option("--boot-limit", "0").start();
    supervisor.expect_exit(78);
    assert_eq!((scene.diary().starts().len(), openclaw.calls("doctor").len()), (2, 1), "{}", supervisor.story());
    assert!(reason(&supervisor).contains("not even after its repair"), "{}", reason(&supervisor));
}

#[test]
fn a_repair_that_fails_is_the_end_and_the_line_says_how() {
    let scene = Scene::new("boot=60s exit=78@50ms");
    let openclaw = scene.openclaw();
    openclaw.answer("doctor", "exit 3");
    let mut supervisor = repairing(&scene, &openclaw).start();
    supervisor.expect_exit(78);
    assert_eq!((scene.diary().starts().len(), openclaw.calls("doctor").len()), (1, 1));
    let reason = reason(&supervisor);
    assert!(reason.contains("exited with 78") && reason.contains("ended with exit code 3"), "{reason}");
}

#[test]
fn nothing_is_repaired_without_the_option() {
    let scene = Scene::new("boot=60s exit=78@50ms");
    let openclaw = scene.openclaw();
    let mut supervisor = launch(&scene, &openclaw).start();
    supervisor.expect_exit(78);
    assert_eq!((scene.diary().starts().len(), openclaw.calls("doctor").len()), (1, 0));
    assert_eq!(supervisor.count("hook.started"), 0);
    let reason = reason(&supervisor);
    assert!(reason.contains("exited with 78") && reason.contains(&scene.url()), "{reason}");
}

#[test]
fn a_duplicate_is_no_refusal_and_not_repaired() {
    let scene = Scene::new("boot=60s exit=78@4s; healthy");
    let openclaw = scene.openclaw();
    let mut supervisor = repairing(&scene, &openclaw).start();
    supervisor.wait_event("gateway.spawned");
    let mut stranger = scene.stranger("healthy");
    supervisor.expect_exit(78);
    assert_eq!(openclaw.calls("doctor"), []);
    assert!(reason(&supervisor).contains("another gateway instance is already listening"), "{}", supervisor.story());
    assert!(stranger.is_alive());
}

#[test]
fn a_gateway_that_came_up_may_be_repaired_again() {
    let scene = Scene::new("boot=60s exit=78@50ms; healthy; boot=60s exit=78@50ms; healthy");
    let openclaw = scene.openclaw();
    let mut supervisor = repairing(&scene, &openclaw).start();
    supervisor.wait_started().kill();
    supervisor.wait_started();
    assert_eq!((scene.diary().starts().len(), openclaw.calls("doctor").len()), (4, 2), "{}", supervisor.story());
}

#[test]
fn a_stop_during_the_repair_ends_it_with_all_that_it_started() {
    for deaf in ["", "trap '' TERM; "] {
        let scene = Scene::new("boot=60s exit=78@50ms");
        let openclaw = scene.openclaw();
        // A process in a session of its own, and one that the script waits for.
        let script = format!("{deaf}setsid sleep 600 & echo $! > \"$root/child\"; sleep 600");
        openclaw.answer("doctor", &script);
        let mut supervisor = repairing(&scene, &openclaw).start();
        supervisor.wait_event("hook.started");
        let call = openclaw.wait_calls("doctor", 1).remove(0);
        let child = wait_for(
            "its child",
            PATIENCE,
            || supervisor.story(),
            || {
                let pid = fs::read_to_string(scene.root().join("child")).ok()?.trim().parse().ok()?;
                Process::find(pid).filter(|_| stat(pid).is_some_and(|stat| stat.session == pid))
            },
        );
        let doctor = Process::find(call.pid).expect("it repairs");
        supervisor.signal(Signal::SIGTERM);
        if !deaf.is_empty() {
            // A second stop skips the wait.
            supervisor.wait_event("stop.requested");
            supervisor.signal(Signal::SIGTERM);
        }
        let asked = Instant::now();
        supervisor.expect_exit(0);
        let took = asked.elapsed();
        supervisor.assert_took("the stop", took, &(Duration::ZERO..Duration::from_secs(3)));
        assert!(!doctor.is_alive() && !child.is_alive(), "{}", supervisor.story());
        assert_eq!(scene.diary().starts().len(), 1);
        assert_eq!(supervisor.last("hook.finished").text("hook"), "repair");
    }
}
