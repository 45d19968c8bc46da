//! A child of the gateway that has become root, below a supervisor that has not: it may not be signalled, and perhaps not
//! even seen. It is told of, at once, and nothing waits for it.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;
use std::process::Command;
use support::jail::{Jail, first_process};
use support::process::{Process, stat};
use support::root::needs_root;
use support::supervisor::{Event, Supervisor};
use support::{Scene, fake_gateway};

const NOBODY: u32 = 65534;

/// The same command, started by root and run by nobody.
fn as_nobody(scene: &Scene, inner: &Command) -> Command {
    needs_root("another user");
    for folder in [scene.root().to_owned(), scene.state_dir()] {
        chown(&folder, Some(NOBODY), Some(NOBODY)).expect("root may do that");
    }
    let mut command = scene.command("/usr/bin/setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    command.arg(inner.get_program()).args(inner.get_args());
    command
}

/// A supervisor's command whose gateway has a child that becomes root as sudo(8) does.
fn with_a_child_that_rises(scene: &Scene) -> Command {
    let rise = scene.root().join("rise");
    fs::copy("/usr/bin/setpriv", &rise).expect("this test needs setpriv(1) of util-linux");
    fs::set_permissions(&rise, Permissions::from_mode(0o4755)).expect("it is our file");
    let script = format!("setsid {} --reuid 0 --clear-groups sleep 100 & exec \"$@\"", rise.display());
    let words = scene.gateway_words();
    let words: Vec<_> = ["/bin/sh", "-c", &script, "sh"].into_iter().chain(words.iter().map(String::as_str)).collect();
    as_nobody(scene, &scene.launch().words(&words).command())
}

fn risen(scene: &Scene, supervisor: &Supervisor) -> Process {
    let is_it = |process: &Process| {
        let command = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
        command.starts_with(b"sleep\0") && uid(*process) == Some(0)
    };
    let look = || scene.processes().into_iter().find(is_it);
    support::wait_for("a child that is root", support::PATIENCE, || supervisor.story(), look)
}

fn uid(process: Process) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(Path::new("/proc").join(process.pid.to_string())).ok().map(|process| process.uid())
}

fn assert_told(killed: &Event, words: &str) {
    assert_eq!(killed.number("survivors"), 1, "{}", killed.value());
    let left = killed.value()["left"][0].as_str().unwrap_or_default();
    assert!(left.contains(words), "{}", killed.value());
    // Ten seconds it took for each death.
    assert!(killed.number("elapsed_ms") < 3000, "{}", killed.value());
}

#[test]
fn who_may_not_be_signalled_is_told_of_and_not_waited_for() {
    let scene = Scene::new("healthy");
    let mut supervisor = Supervisor::spawn(with_a_child_that_rises(&scene));
    let gateway = supervisor.wait_started();
    let root = risen(&scene, &supervisor);
    assert_eq!(uid(gateway), Some(NOBODY));
    gateway.kill();
    assert_told(&supervisor.wait_event("tree.killed"), "not permitted, it is of user 0");
    supervisor.wait_started();
    assert!(root.is_alive());
}

#[test]
fn who_is_hidden_by_the_mount_of_proc_is_told_of() {
    for hidepid in [1, 2] {
        let scene = Scene::new("healthy");
        let plain = with_a_child_that_rises(&scene);
        let mut below_init = scene.command(fake_gateway());
        below_init.arg("as-init").arg(plain.get_program()).args(plain.get_args());
        // Of this namespace alone.
        let jail = Jail::with_pids().and(&format!("mount -t proc -o hidepid={hidepid} proc /proc"));
        let mut supervisor = Supervisor::spawn(jail.around(&below_init));
        supervisor.wait_event("gateway.started");
        let root = risen(&scene, &supervisor);
        let init = first_process(supervisor.pid());
        init.signal(Signal::SIGHUP);
        assert_told(&supervisor.wait_event("tree.killed"), "(hidden, not permitted)");
        supervisor.wait_event("gateway.started");
        let parent = stat(root.pid).and_then(|root| stat(root.parent)).map(|parent| parent.parent);
        assert_eq!(parent, Some(init.pid), "it is a child of the supervisor by now");
    }
}

#[test]
fn a_port_that_another_user_holds_is_named_with_that_user() {
    let scene = Scene::new("healthy");
    let _roots = scene.stranger("foreign");
    let mut supervisor = Supervisor::spawn(as_nobody(&scene, &scene.launch().command()));
    supervisor.expect_exit(78);
    let (conflict, stopped) = (supervisor.last("conflict.detected"), supervisor.last("supervisor.stopped"));
    assert_eq!((conflict.number("holder_uid"), &conflict.value()["holder_pid"]), (0, &serde_json::Value::Null));
    assert!(stopped.text("reason").contains("a process of user root"), "{}", supervisor.story());
}
