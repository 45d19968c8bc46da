//! On file systems without dependable locks, a counter in the row shows whether an owner lives.

#![cfg(target_os = "linux")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use nix::sys::signal::Signal;
use std::time::Duration;
use support::ledger::Ledger;
use support::supervisor::Supervisor;
use support::{PATIENCE, Scene, wait_for};

/// Of another machine: its pids and boot id mean nothing here.
const OF_ANOTHER_HOST: &str = "owner = 'of-another-host', host = 'elsewhere', boot_id = 'of-another-host', \
                               pid_namespace = 1, released_at = NULL";

fn start(scene: &Scene) -> Supervisor {
    let mut supervisor = scene.launch().option("--lease", "heartbeat").start();
    supervisor.patience = Duration::from_mins(1);
    supervisor
}

/// The store as the supervisor of another machine left it: a run of ours, under its name.
fn left_by_another_host() -> (Scene, Ledger) {
    let scene = Scene::new("healthy");
    let mut ours = start(&scene);
    ours.wait_started();
    ours.signal(Signal::SIGTERM);
    ours.expect_exit(0);
    let ledger = Ledger::of(&scene);
    ledger.change(&format!("UPDATE state_leases SET {OF_ANOTHER_HOST}"));
    (scene, ledger)
}

#[test]
fn an_owner_advances_its_counter_and_is_named_at_once() {
    let scene = Scene::new("healthy");
    let mut first = start(&scene);
    first.wait_started();
    let ledger = Ledger::of(&scene);
    let mut second = start(&scene);
    second.expect_exit(78);
    assert_eq!(second.last("conflict.detected").number("holder_pid"), i64::from(first.pid()), "{}", second.story());
    for _ in 0..2 {
        let beat = ledger.number("SELECT beat FROM state_leases");
        let more = || (ledger.number("SELECT beat FROM state_leases") > beat).then_some(());
        wait_for("the next heartbeat", Duration::from_secs(15), || first.story(), more);
    }
    assert_eq!(scene.diary().starts().len(), 1);
    assert_eq!(first.count("lease.lost"), 0, "{}", first.story());
}

/// One test for both, to wait half a minute only once.
#[test]
fn a_counter_that_stands_still_for_thirty_seconds_frees_the_lease() {
    std::thread::scope(|scope| {
        scope.spawn(a_start_takes_the_lease);
        scope.spawn(a_standby_takes_the_lease);
    });
}

fn a_start_takes_the_lease() {
    let (scene, ledger) = left_by_another_host();
    let (epoch, beat) = (ledger.number("SELECT epoch FROM state_leases"), "SELECT beat FROM state_leases");
    let still = ledger.number(beat);
    let mut second = start(&scene);
    let contended = second.wait_event("lease.contended");
    let recovered = second.wait_event("lease.stale_recovered");
    let observed = recovered.seen.duration_since(contended.seen);
    second.assert_took("the look", observed, &(Duration::from_secs(29)..Duration::from_secs(45)));
    second.wait_started();
    assert_eq!(scene.diary().starts().len(), 2);
    assert_eq!(ledger.number("SELECT epoch FROM state_leases"), epoch + 1);
    assert!(ledger.number(beat) > still, "who looked at the old owner's counter must not take it for the new one's");
}

/// A standby must not take a local process with the same pid for the owner.
fn a_standby_takes_the_lease() {
    let (scene, ledger) = left_by_another_host();
    ledger.change(&format!("UPDATE state_leases SET pid = {}", std::process::id()));
    let mut second = scene.launch().option("--lease", "heartbeat").option("--on-conflict", "standby").start();
    second.patience = Duration::from_secs(100);
    second.wait_event("lease.contended");
    ledger.change("UPDATE state_leases SET beat = beat + 1");
    second.wait_event("standby.entered");
    second.wait_event("lease.stale_recovered");
    second.wait_started();
    wait_for("two starts", PATIENCE, || second.story(), || (scene.diary().starts().len() == 2).then_some(()));
}

#[test]
fn an_advancing_counter_means_a_living_owner_on_another_host() {
    let (scene, ledger) = left_by_another_host();
    let mut second = start(&scene);
    second.wait_event("lease.contended");
    ledger.change("UPDATE state_leases SET beat = beat + 1");
    second.expect_exit(78);
    let reason = second.last("supervisor.stopped");
    assert!(reason.text("reason").contains("elsewhere"), "{reason:?}");
    assert_eq!(scene.diary().starts().len(), 1, "that of the run before");
    assert_eq!(ledger.number("SELECT count(*) FROM state_leases WHERE host = 'elsewhere' AND released_at IS NULL"), 1);
}

#[test]
fn an_owner_that_loses_its_row_ends_its_gateway_and_exits() {
    let scene = Scene::new("healthy");
    let mut first = start(&scene);
    let gateway = first.wait_started();
    let ledger = Ledger::of(&scene);
    ledger.wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 1);
    ledger.change(&format!("UPDATE state_leases SET epoch = epoch + 1, {OF_ANOTHER_HOST}"));
    first.signal(Signal::SIGHUP);
    first.wait_event("lease.lost");
    first.expect_exit(78);
    assert_eq!(first.count("lease.released"), 0, "{}", first.story());
    let reason = first.last("supervisor.stopped");
    assert!(reason.text("reason").contains("elsewhere"), "it names who took it: {reason:?}");
    assert!(!gateway.is_alive(), "a second one may run elsewhere");
    assert_eq!(scene.diary().signals(gateway.pid), ["SIGTERM"], "{}", scene.diary().text());
    assert_eq!(scene.diary().starts().len(), 1);
    let theirs = "SELECT count(*) FROM state_leases WHERE owner = 'of-another-host' AND released_at IS NULL";
    assert_eq!(ledger.number(theirs), 1);
}
