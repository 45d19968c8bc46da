//! Under tini, the init of many images: signals arrive, the exit code is passed on, and every orphan is killed and reaped.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use nix::sys::signal::Signal;
use std::process::Command;
use std::time::Duration;
use support::jail::{Jail, first_process, gateways};
use support::process::zombies_of;
use support::root::needs_root;
use support::supervisor::{Launch, Supervisor};
use support::{Scene, wait_for};

/// Installs it, where it is not there.
fn need_tini() {
    needs_root("a pid namespace for tini");
    let script = "command -v tini >/dev/null || { apt-get update &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends tini; } >/dev/null 2>&1";
    let lock = std::env::temp_dir().join("ocs-systemd.lock");
    let installed = Command::new("flock").arg(lock).args(["sh", "-c", script]).status().expect("flock can be started");
    assert!(installed.success(), "this test needs the package tini, which apt-get could not install");
}

/// With tini as number 1 of a pid namespace. `flags` are its own.
fn start(launch: &Launch<'_>, flags: &[&str]) -> Supervisor {
    need_tini();
    let plain = launch.command();
    let mut words = plain.get_args();
    let mut inner = Command::new(plain.get_program());
    // "in-session", which a leader of a group, as tini makes one of its child, cannot become.
    inner.args(words.next()).arg("/usr/bin/tini").args(flags).arg("--").args(words);
    inner.envs(plain.get_envs().filter_map(|(name, value)| Some((name, value?))));
    inner.current_dir(plain.get_current_dir().expect("a scene has a folder"));
    Supervisor::spawn(Jail::with_pids().around(&inner))
}

#[test]
fn a_signal_to_tini_stops_all_and_our_code_is_its_own() {
    for flags in [&[][..], &["-g"]] {
        let scene = Scene::new("healthy drain=200ms kid=daemon kid=wiped kid=ignoring");
        let mut supervisor = start(&scene.launch(), flags);
        supervisor.wait_event("gateway.started");
        first_process(supervisor.pid()).signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        assert_eq!(supervisor.last("gateway.exited").number("code"), 0, "it drained\n{}", supervisor.story());
        assert_eq!(scene.processes(), [], "{flags:?}");
    }
    let scene = Scene::new("exit=78@100ms");
    start(&scene.launch(), &[]).expect_exit(78);
}

#[test]
fn a_hundred_orphans_of_a_dead_gateway_leave_no_zombie() {
    let scene = Scene::new(&("kid=daemon ".repeat(100) + "; healthy"));
    let mut supervisor = start(&scene.launch(), &[]);
    supervisor.wait_event("gateway.started");
    gateways(&scene)[0].kill();
    supervisor.wait_event("tree.killed");
    supervisor.wait_event("gateway.started");
    let first = first_process(supervisor.pid());
    let tree = || std::iter::once(first).chain(first.tree());
    let none = || tree().all(|process| zombies_of(process.pid).is_empty()).then_some(());
    wait_for("the end of the last zombie", Duration::from_secs(1), || supervisor.story(), none);
    assert_eq!(gateways(&scene).len(), 1, "{}", supervisor.story());
}
