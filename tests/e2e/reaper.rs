//! Every orphan is reaped, as PID 1 of a container too, and no exit status of our own children is lost.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use std::time::Duration;
use support::jail::{Jail, first_process, gateways};
use support::process::{Process, stat};
use support::supervisor::{Launch, Supervisor};
use support::{PATIENCE, Scene, wait_for};

const ORPHANS: usize = 100;

/// How long a zombie may be seen.
const REAPED_WITHIN: Duration = Duration::from_secs(1);

/// A shell that leaves orphans in sessions of their own.
fn orphans() -> String {
    format!("i=0; while [ $i -lt {ORPHANS} ]; do (setsid sleep 100 2>/dev/null &); i=$((i+1)); done")
}

/// The stand-in gateway, behind such a shell.
fn with_orphans(scene: &Scene) -> Launch<'_> {
    let script = format!("{}; exec \"$@\"", orphans());
    let gateway = scene.gateway_words();
    let words: Vec<&str> =
        ["/bin/sh", "-c", &script, "sh"].into_iter().chain(gateway.iter().map(String::as_str)).collect();
    scene.launch().words(&words)
}

fn sleepers(scene: &Scene) -> Vec<Process> {
    let is_sleeper = |process: &Process| {
        std::fs::read(format!("/proc/{}/cmdline", process.pid)).is_ok_and(|line| line.starts_with(b"sleep\0"))
    };
    scene.processes().into_iter().filter(is_sleeper).collect()
}

/// Waits until all orphans have come to the supervisor, ends them at once, and waits until none of them is left.
fn assert_reaped(scene: &Scene, parent: Process, supervisor: &Supervisor) {
    let orphans = wait_for(
        "the orphans",
        PATIENCE,
        || supervisor.story(),
        || {
            let sleepers = sleepers(scene);
            let is_here = |process: &Process| stat(process.pid).is_some_and(|stat| stat.parent == parent.pid);
            (sleepers.len() == ORPHANS && sleepers.iter().all(is_here)).then_some(sleepers)
        },
    );
    for orphan in &orphans {
        orphan.kill();
    }
    let left =
        || orphans.iter().filter(|orphan| stat(orphan.pid).is_some_and(|stat| stat.parent == parent.pid)).count();
    wait_for(
        "the end of every zombie",
        REAPED_WITHIN,
        || format!("{} are left", left()),
        || (left() == 0).then_some(()),
    );
}

/// The gateway's own exit status is not lost.
fn assert_crash_is_told(scene: &Scene, supervisor: &mut Supervisor) {
    gateways(scene)[0].kill();
    assert_eq!(supervisor.wait_event("gateway.exited").number("signal"), 9);
    supervisor.wait_event("gateway.started");
}

#[test]
fn orphans_that_end_all_at_once_leave_no_zombie() {
    let scene = Scene::new("healthy");
    let mut supervisor = with_orphans(&scene).start();
    supervisor.wait_started();
    let parent = Process::find(supervisor.pid()).expect("the supervisor lives");
    assert_reaped(&scene, parent, &supervisor);
    assert_crash_is_told(&scene, &mut supervisor);
}

#[test]
fn orphans_of_pid_1_leave_no_zombie() {
    let scene = Scene::new("healthy");
    let mut supervisor = Supervisor::spawn(Jail::with_pids().around(&with_orphans(&scene).command()));
    supervisor.wait_event("gateway.started");
    assert_reaped(&scene, first_process(supervisor.pid()), &supervisor);
    assert_crash_is_told(&scene, &mut supervisor);
}

#[test]
fn the_status_of_a_hook_is_not_lost_among_a_hundred_others() {
    let scene = Scene::new("healthy");
    // They end in the same instant as the hook does.
    let hook = format!("{}; exit 7", orphans().replace("sleep 100", "sleep 0.5").replace("done", "done; sleep 0.45"));
    let mut supervisor = scene.launch().option("--pre-start", &hook).option("--max-restarts", "0").start();
    assert_eq!(supervisor.wait_event("hook.finished").number("code"), 7);
    supervisor.expect_exit(69);
    assert_eq!(sleepers(&scene), []);
}

#[test]
fn pid_1_says_why_it_does_not_detach() {
    let scene = Scene::new("healthy");
    let mut supervisor = Supervisor::spawn(Jail::with_pids().around(&scene.launch().command()));
    supervisor.wait_event("gateway.started");
    let inside = first_process(supervisor.pid());
    inside.signal(Signal::SIGQUIT);
    let refused = supervisor.wait_event("detach.refused");
    assert!(refused.text("why").contains("ends with this program"), "{refused:?}");
    assert!(inside.is_alive() && gateways(&scene).len() == 1);
    inside.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}
