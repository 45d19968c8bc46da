//! On file systems without dependable locks, a counter in the row shows whether an owner lives.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;
use support::jail::{Jail, first_process, gateways};
use support::ledger::Ledger;
use support::shared::{Mount, mount_of};
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

/// One test for all that is watched, to wait half a minute only once.
#[test]
fn a_counter_that_stands_still_for_thirty_seconds_frees_the_lease_of_an_owner_that_can_be_judged() {
    thread::scope(|scope| {
        scope.spawn(a_start_takes_the_lease);
        scope.spawn(a_standby_takes_the_lease);
        scope.spawn(an_owner_by_lock_answers_one_that_cannot_see_it);
        scope.spawn(an_owner_by_heartbeat_is_respected_by_one_that_has_the_lock);
        scope.spawn(an_owner_by_heartbeat_that_is_gone_is_succeeded_by_one_that_has_the_lock);
        scope.spawn(an_owner_by_lock_that_is_gone_is_succeeded_only_where_its_lock_is_seen);
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

/// A folder that one machine sees as it is, and another one, such as a virtual machine, through FUSE.
struct Lent {
    scene: Scene,
    mount: Mount,
}

impl Lent {
    fn new() -> Self {
        let scene = Scene::new("healthy");
        let [mount] = mount_of(&scene.state_dir(), [scene.root().join("lent")]);
        Self { scene, mount }
    }

    /// A supervisor that has the lease by its lock.
    fn owner_by_lock(&self) -> Supervisor {
        Self::on(&self.scene, &self.scene.state_dir())
    }

    /// One that cannot see the lock.
    fn owner_by_heartbeat(&self) -> Supervisor {
        Self::on(&self.scene, self.mount.path())
    }

    /// Neither sees the processes or the ports of the other.
    fn on(scene: &Scene, dir: &Path) -> Supervisor {
        let store = dir.join("supervise").display().to_string();
        let launch = scene.launch().option("--store-dir", &store).option("--on-conflict", "exit");
        let mut supervisor = Supervisor::spawn(Jail::with_pids().and_network().around(&launch.command()));
        supervisor.patience = Duration::from_secs(100);
        supervisor
    }

    /// 1 for a rollback journal, 2 for a write-ahead log: the bytes of the header.
    fn journal(&self) -> u8 {
        fs::read(self.scene.store_dir().join("supervise.sqlite")).expect("it is there")[18]
    }

    fn assert_sound(&self) {
        let sound = "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'";
        assert_eq!(Ledger::of(&self.scene).number(sound), 1);
    }

    fn wait_gateways(&self, count: usize, supervisor: &Supervisor) {
        let all = || (gateways(&self.scene).len() == count).then_some(());
        wait_for(&format!("{count} gateways"), PATIENCE, || supervisor.story(), all);
    }
}

/// Beside an owner behind the mount, whose locks are not seen here, a read may meet the middle of a write.
fn stop(mut supervisor: Supervisor) {
    first_process(supervisor.pid()).signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

/// Ends the supervisor and all that it started, as the end of its machine does.
fn lose(mut supervisor: Supervisor) {
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
}

fn an_owner_by_lock_answers_one_that_cannot_see_it() {
    let lent = Lent::new();
    let mut first = lent.owner_by_lock();
    first.wait_event("gateway.started");
    let gateway = gateways(&lent.scene).remove(0);
    let mut second = lent.owner_by_heartbeat();
    second.wait_event("lease.contended");
    second.expect_exit(78);
    let reason = second.last("supervisor.stopped");
    assert!(reason.text("reason").contains("a supervisor on host"), "{reason:?}");
    assert!(gateway.is_alive() && second.count("gateway.spawned") == 0, "{}", second.story());
    assert_eq!(lent.journal(), 2, "the mode of an open database never changes");
    first_process(first.pid()).signal(Signal::SIGHUP);
    first.wait_event("gateway.started");
    lent.wait_gateways(1, &first);
    first_process(first.pid()).signal(Signal::SIGTERM);
    first.expect_exit(0);
    assert_eq!((first.count("store.unavailable"), first.count("lease.released")), (0, 1), "{}", first.story());
    lent.assert_sound();
    let mut third = lent.owner_by_heartbeat();
    third.wait_event("gateway.started");
    assert_eq!(third.last("lease.acquired").number("epoch"), 2, "{}", third.story());
    assert_eq!((lent.journal(), third.count("lease.stale_recovered")), (1, 0), "{}", third.story());
    stop(third);
    assert!(Ledger::of(&lent.scene).number("SELECT count(*) FROM generations") >= 3, "its history is kept");
}

fn an_owner_by_heartbeat_is_respected_by_one_that_has_the_lock() {
    let lent = Lent::new();
    let mut first = lent.owner_by_heartbeat();
    first.wait_event("gateway.started");
    let gateway = gateways(&lent.scene).remove(0);
    let mut second = lent.owner_by_lock();
    second.wait_event("lease.contended");
    second.expect_exit(78);
    assert!(gateway.is_alive() && second.count("gateway.spawned") == 0, "{}", second.story());
    assert_eq!(lent.journal(), 1, "the mode of an open database never changes");
    first_process(first.pid()).signal(Signal::SIGHUP);
    first.wait_event("gateway.started");
    lent.wait_gateways(1, &first);
    assert_eq!((first.count("store.unavailable"), first.count("lease.lost")), (0, 0), "{}", first.story());
    stop(first);
    lent.assert_sound();
}

fn an_owner_by_heartbeat_that_is_gone_is_succeeded_by_one_that_has_the_lock() {
    let lent = Lent::new();
    let mut first = lent.owner_by_heartbeat();
    first.wait_event("gateway.started");
    lose(first);
    let mut second = lent.owner_by_lock();
    let contended = second.wait_event("lease.contended");
    let recovered = second.wait_event("lease.stale_recovered");
    let observed = recovered.seen.duration_since(contended.seen);
    second.assert_took("the look", observed, &(Duration::from_secs(29)..Duration::from_secs(45)));
    second.wait_event("gateway.started");
    assert_eq!((lent.journal(), gateways(&lent.scene).len()), (2, 1), "{}", second.story());
    lent.assert_sound();
}

fn an_owner_by_lock_that_is_gone_is_succeeded_only_where_its_lock_is_seen() {
    let lent = Lent::new();
    let mut first = lent.owner_by_lock();
    first.wait_event("gateway.started");
    lose(first);
    let mut second = lent.owner_by_heartbeat();
    second.expect_exit(78);
    let reason = second.last("supervisor.stopped").text("reason").to_owned();
    assert!(
        reason.contains("cannot be seen") && reason.contains("start and stop a supervisor where it ran"),
        "{reason}"
    );
    assert_eq!((second.count("gateway.spawned"), lent.journal()), (0, 2), "{}", second.story());
    let mut third = lent.owner_by_lock();
    third.wait_event("gateway.started");
    // The kernel may give the number of the first pid namespace to this one, whose pid 1 is younger.
    let why = third.last("lease.stale_recovered").text("why").to_owned();
    assert!(why.contains("lock is free") || why.contains("belongs to another process"), "{}", third.story());
    first_process(third.pid()).signal(Signal::SIGTERM);
    third.expect_exit(0);
    let mut fourth = lent.owner_by_heartbeat();
    fourth.wait_event("gateway.started");
    stop(fourth);
    lent.assert_sound();
}
