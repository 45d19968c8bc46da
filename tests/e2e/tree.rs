//! When a gateway ends, everything that it started ends with it, and nothing else.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs;
use std::path::PathBuf;
use std::process::Stdio;
use support::bystander::Bystander;
use support::diary::Entry;
use support::groups;
use support::process::Process;
use support::root::needs_root;
use support::supervisor::{Said, Supervisor};
use support::{PATIENCE, Scene, wait_for};

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
    wait_for("the orphans' end", PATIENCE, || supervisor.story(), reaped);
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
    let is_sleep = |process: &Process| {
        let line = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        line.starts_with(b"sleep")
    };
    let sleeper = scene.processes().into_iter().find(is_sleep).expect("the shell has started it");
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_gone(&kids, &supervisor);
    assert!(sleeper.is_alive());
}

/// A control group whose name makes it a systemd unit, removed at the end.
struct Scope(PathBuf);

impl Scope {
    fn around(process: Process) -> Self {
        needs_root("control groups");
        let own = groups::own().expect("this needs cgroup2 to be mounted");
        let dir = own.join(format!("ocs-test-{}.scope", process.pid));
        fs::create_dir(&dir).expect("this needs a writable cgroup2 file system");
        fs::write(dir.join("cgroup.procs"), process.pid.to_string()).unwrap();
        Self(dir)
    }
}

impl Drop for Scope {
    fn drop(&mut self) {
        fs::write(self.0.join("cgroup.kill"), "1").ok();
        let gone = || fs::remove_dir(&self.0).is_ok().then_some(());
        wait_for("the end of a scope", PATIENCE, String::new, gone);
    }
}

#[test]
fn a_job_in_a_scope_of_its_own_and_a_bearer_below_a_stranger_outlive_restart_and_stop_and_are_told_of() {
    for kills in [false, true] {
        let scene = Scene::new("kid=plain kid=setsid kid=daemon");
        let flags: &[&str] = if kills { &["--kill-strays"] } else { &[] };
        let mut supervisor = scene.launch().flags(flags).start();
        let gateway = supervisor.wait_started();
        scene.diary().wait_kids(3);
        let kids = scene.diary().kids();
        let job = kids.iter().find(|kid| kid.kind == "setsid").unwrap().process;
        let _scope = Scope::around(job);
        let instance = scene.diary().environment(gateway.pid)["OPENCLAW_SUPERVISE_INSTANCE"].clone();
        let mut command = scene.command("sh");
        command.args(["-c", "OPENCLAW_SUPERVISE_INSTANCE=\"$0\" sleep 600 & exec sleep 600", &instance]);
        let mut stranger = Bystander::start("a shell that has started a process with our id", command);
        let child = || stranger.process().tree().into_iter().find(|process| *process != stranger.process());
        let bearer = wait_for("its child", PATIENCE, String::new, child);
        // What started this one is above the supervisor, too.
        let mut command = scene.command("sleep");
        command.arg("601").env("OPENCLAW_SUPERVISE_INSTANCE", &instance);
        let mut sibling = Bystander::start("a process with our id beside the supervisor", command);
        supervisor.signal(Signal::SIGHUP);
        supervisor.wait_event("restart.requested");
        if kills {
            supervisor.wait_event_with("gateway.started", |event| event.number("generation") == 2);
            assert_eq!((job.is_alive(), bearer.is_alive()), (false, false), "{}", supervisor.story());
            assert_eq!(supervisor.count("tree.strays_left"), 0, "{}", supervisor.story());
        } else {
            let left = supervisor.wait_event("tree.strays_left").value()["strays"].to_string();
            for part in
                [format!("{} ", job.pid), format!("(ocs-test-{}.scope)", job.pid), format!("{} sleep 600", bearer.pid)]
            {
                assert!(left.contains(&part), "{part:?} is missing in {left}");
            }
            supervisor.wait_event_with("gateway.started", |event| event.number("generation") == 2);
            let status = Said::by(&scene, &["status", "--port", &scene.port().to_string()]).expect(0).out;
            assert!(status.contains("strays      left: "), "{status}");
        }
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        assert_eq!((job.is_alive(), bearer.is_alive()), (!kills, !kills), "{}", supervisor.story());
        stranger.assert_alive();
        assert_eq!(sibling.has_ended(), kills, "{}", supervisor.story());
        let mut known = vec![job, bearer, stranger.process()];
        known.extend((!kills).then(|| sibling.process()));
        let others = scene.processes().into_iter().filter(|process| !known.contains(process));
        assert_eq!(others.collect::<Vec<_>>(), []);
        if bearer.is_alive() {
            bearer.kill();
        }
    }
}
