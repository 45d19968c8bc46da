//! Under tini, the init of many images: signals arrive, the exit code is passed on, and every orphan is killed and reaped.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use std::time::Duration;
use support::jail::{Jail, first_process, gateways};
use support::package;
use support::process::zombies_of;
use support::supervisor::{Launch, Supervisor};
use support::{Scene, wait_for};

/// With tini as number 1 of a pid namespace. `flags` are its own.
fn start(launch: &Launch<'_>, flags: &[&str]) -> Supervisor {
    package::need("tini", "tini");
    let words = [&["/usr/bin/tini"], flags, &["--"]].concat();
    Supervisor::spawn(Jail::with_pids().around(&launch.behind(&words)))
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
