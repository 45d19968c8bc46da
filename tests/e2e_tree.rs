//! When a gateway ends, everything that it started ends with it, and nothing else.

#![cfg(target_os = "linux")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use nix::sys::signal::Signal;
use std::process::Stdio;
use support::Scene;
use support::bystander::Bystander;
use support::diary::Entry;
use support::supervisor::Supervisor;

const FAMILY: &str = "kid=plain kid=plain kid=setsid kid=setsid kid=daemon kid=daemon kid=deaf kid=deaf";

/// The children of the first gateway, all of them alive.
fn family(supervisor: &mut Supervisor, scene: &Scene) -> Vec<Entry> {
    supervisor.wait_started();
    let kids = scene.diary().kids();
    assert_eq!(kids.len(), 8, "{}", scene.diary().text());
    assert!(kids.iter().all(|kid| kid.process.is_alive()));
    // Each kind is as named.
    let gateway = scene.diary().starts()[0].process.pid;
    assert!(kids.iter().all(|kid| (kid.kind == "plain") == (kid.session == gateway)));
    kids
}

fn assert_gone(kids: &[Entry], supervisor: &Supervisor) {
    let left: Vec<_> = kids.iter().filter(|kid| kid.process.is_alive()).collect();
    assert!(left.is_empty(), "{left:?} are left\n{}", supervisor.story());
}

#[test]
fn a_stop_kills_the_whole_tree_and_nothing_else() {
    let scene = Scene::new(FAMILY);
    let mut bystander = Bystander::namesake(&scene);
    let mut supervisor = scene.start();
    let kids = family(&mut supervisor, &scene);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_gone(&kids, &supervisor);
    bystander.assert_alive();
    let killed = supervisor.last("tree.killed");
    assert_eq!(killed.number("survivors"), 0);
    // The leader left by itself; of the eight, six had left its process group.
    assert_eq!((killed.number("members"), killed.number("escaped")), (8, 6), "{}", killed.value());
}

#[test]
fn after_the_death_of_the_leader_the_tree_is_gone_before_the_next_spawn() {
    let scene = Scene::new(&format!("{FAMILY}; healthy"));
    let mut bystander = Bystander::namesake(&scene);
    let mut supervisor = scene.start();
    let kids = family(&mut supervisor, &scene);
    scene.diary().starts()[0].process.kill();
    supervisor.wait_event("gateway.exited");
    supervisor.wait_event("tree.killed");
    assert_gone(&kids, &supervisor);
    supervisor.wait_event("gateway.spawned");
    supervisor.wait_started();
    bystander.assert_alive();
}

#[test]
fn a_restart_and_a_hang_take_the_whole_tree_along() {
    for hangs in [false, true] {
        let scene = Scene::new(&format!("{FAMILY}; healthy"));
        let mut supervisor = scene.launch().option("--probe-timeout", "100ms").start();
        let kids = family(&mut supervisor, &scene);
        if hangs {
            scene.diary().command(scene.diary().starts()[0].process.pid, "freeze");
        } else {
            supervisor.signal(Signal::SIGHUP);
        }
        supervisor.wait_started();
        assert_gone(&kids, &supervisor);
    }
}

#[test]
fn orphans_that_end_leave_no_zombie() {
    let scene = Scene::new(FAMILY);
    let mut supervisor = scene.start();
    let kids = family(&mut supervisor, &scene);
    for kid in kids.iter().filter(|kid| kid.kind == "daemon") {
        kid.process.kill();
    }
    let reaped = || {
        let daemons = kids.iter().filter(|kid| kid.kind == "daemon");
        let gone = daemons.into_iter().all(|kid| support::process::stat(kid.process.pid).is_none());
        gone.then_some(())
    };
    support::wait_for("the orphans' end", support::PATIENCE, || supervisor.story(), reaped);
    assert!(scene.diary().starts()[0].process.is_alive());
}

#[test]
fn a_child_that_was_ours_before_any_gateway_is_left_alone() {
    let scene = Scene::new(FAMILY);
    // The shell starts it and becomes the supervisor, which so has a child that it never started.
    let plain = scene.launch().command();
    let mut command = scene.command("/bin/sh");
    command.args(["-c", "sleep 100 2>/dev/null & exec \"$@\"", "sh"]).arg(plain.get_program()).args(plain.get_args());
    command.stdout(Stdio::null());
    let mut supervisor = Supervisor::spawn(command);
    let kids = family(&mut supervisor, &scene);
    let is_sleep = |process: &support::process::Process| {
        let line = std::fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        line.starts_with(b"sleep")
    };
    let sleeper = scene.processes().into_iter().find(is_sleep).expect("the shell has started it");
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_gone(&kids, &supervisor);
    assert!(sleeper.is_alive());
}
