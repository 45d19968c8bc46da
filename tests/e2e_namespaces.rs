//! Two supervisors in two pid namespaces share a store: neither sees the other's process, and exactly one owns the gateway.

#![cfg(target_os = "linux")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use nix::sys::signal::Signal;
use support::jail::{Jail, first_process, gateways};
use support::ledger::Ledger;
use support::supervisor::Supervisor;
use support::{PATIENCE, Scene, wait_for};

/// As PID 1 it would stand by.
fn start(scene: &Scene, jail: &Jail) -> Supervisor {
    Supervisor::spawn(jail.around(&scene.launch().option("--on-conflict", "exit").command()))
}

/// No owner may be named: a pid of the other namespace is another process here.
fn assert_yields_to_unseen_owner(scene: &Scene, jail: &Jail, to: &str) {
    let mut second = start(scene, jail);
    second.expect_exit(78);
    assert_eq!(second.last("lease.contended").text("what"), to, "{}", second.story());
    let conflict = second.last("conflict.detected");
    assert!(conflict.value()["holder_pid"].is_null(), "{conflict:?}");
    let reason = second.last("supervisor.stopped");
    assert!(!reason.text("reason").contains("pid "), "{reason:?}");
}

fn assert_taken_over(scene: &Scene, jail: &Jail, mut first: Supervisor) {
    let gateway = gateways(scene);
    assert_eq!(gateway.len(), 1, "{}", first.story());
    // The rest of its namespace dies with it, see pid_namespaces(7).
    first_process(first.pid()).kill();
    first.wait_exit();
    let mut second = start(scene, jail);
    second.wait_event("lease.stale_recovered");
    let took = second.age();
    assert!(took.as_secs() < 5, "free means gone, at once, and not after {took:?}\n{}", second.story());
    second.wait_event("gateway.started");
    assert_eq!(second.count("gateway.adopted"), 0, "{}", second.story());
    let now = gateways(scene);
    assert!(now.len() == 1 && now != gateway, "{now:?} after {gateway:?}\n{}", second.story());
    let inside = first_process(second.pid());
    inside.signal(Signal::SIGTERM);
    second.expect_exit(0);
    wait_for("the end of all", PATIENCE, || second.story(), || scene.processes().is_empty().then_some(()));
    let ledger = Ledger::of(scene);
    assert_eq!(ledger.number("SELECT count(*) FROM generations WHERE settled_at IS NOT NULL"), 2);
}

#[test]
fn with_one_network() {
    let scene = Scene::new("healthy");
    let jail = Jail::with_pids();
    let mut first = start(&scene, &jail);
    first.wait_event("gateway.started");
    assert_eq!(Ledger::of(&scene).number("SELECT pid FROM state_leases"), 1, "it is number 1 in there");
    assert_yields_to_unseen_owner(&scene, &jail, "lease");
    assert_eq!(gateways(&scene).len(), 1);
    assert_taken_over(&scene, &jail, first);
}

#[test]
fn with_two_networks_in_which_no_port_claim_meets_the_other() {
    let scene = Scene::new("healthy");
    let jail = Jail::with_pids().and_network();
    let mut first = start(&scene, &jail);
    first.wait_event("gateway.started");
    assert_yields_to_unseen_owner(&scene, &jail, "lease");
    assert_eq!(gateways(&scene).len(), 1);
    assert_taken_over(&scene, &jail, first);
}

#[test]
fn with_two_stores_and_one_network_the_port_claim_decides_and_names_no_owner() {
    let scene = Scene::new("boot=1500ms");
    let jail = Jail::with_pids();
    let mut first = start(&scene, &jail);
    first.wait_event("gateway.spawned");
    let other = scene.root().join("other-state").display().to_string();
    let launch = scene.launch().option("--on-conflict", "exit").option("--state-dir", &other);
    let mut second = Supervisor::spawn(jail.around(&launch.command()));
    second.expect_exit(78);
    assert_eq!(second.last("lease.contended").text("what"), "port claim");
    assert!(second.last("conflict.detected").value()["holder_pid"].is_null(), "{}", second.story());
    first.wait_event("gateway.started");
    assert_eq!(gateways(&scene).len(), 1);
}
