//! A store on a file system of the network that hangs, fails or is cut off: the gateway of its owner ends before another
//! machine may start one, and the next one starts when the store is back.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "a test measures by the clock, with a bound")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use nix::sys::signal::Signal;
use rustix::io::Errno;
use std::thread;
use std::time::{Duration, Instant};
use support::jail::{Jail, gateways};
use support::ledger::Ledger;
use support::shared::{Mount, mount_at};
use support::supervisor::{Launch, Supervisor, Verb};
use support::{Scene, let_pass, wait_for};

/// When no gateway of an owner may live any more, after its last confirmation.
const GONE: Duration = Duration::from_secs(30);

/// How old a confirmation is told to be too old.
const UNCONFIRMED: std::ops::Range<i64> = 20_000..25_000;

/// What a program says that cannot look at its own paths.
const HANGS: &str = "(does its file system hang?), so nothing was done; check the mount";

/// Where the failure meets it: at the path, or in the middle of a write.
const FAILS: [&str; 2] = ["cannot look at ", "cannot write "];

fn on_store<'a>(scene: &'a Scene, store: &Mount) -> Launch<'a> {
    scene.launch().option("--store-dir", &store.path().join("store").display().to_string())
}

fn start(launch: Launch<'_>) -> Supervisor {
    let mut supervisor = launch.start();
    supervisor.patience = Duration::from_mins(1);
    supervisor
}

/// The gateway ends by itself, or is killed, in time; says how old the confirmation was then.
fn assert_ended(supervisor: &mut Supervisor, scene: &Scene, since: Instant, why: &[&str]) {
    let unavailable = supervisor.wait_event("store.unavailable");
    assert!(why.iter().any(|why| unavailable.text("why").contains(why)), "{unavailable:?}");
    let unconfirmed = supervisor.wait_event("lease.unconfirmed");
    assert!(UNCONFIRMED.contains(&unconfirmed.number("age_ms")), "{unconfirmed:?}");
    assert_eq!(unconfirmed.text("action"), "stop");
    wait_for("the end of the gateway", GONE, || supervisor.story(), || gateways(scene).is_empty().then_some(()));
    let took = since.elapsed();
    assert!(took < GONE, "{took:?}\n{}", supervisor.story());
}

/// What the store does becomes what it did before, and the next gateway follows.
fn assert_back(supervisor: &mut Supervisor, scene: &Scene) {
    supervisor.wait_event("store.available");
    supervisor.wait_started();
    assert_eq!(gateways(scene).len(), 1, "{}", supervisor.story());
    for name in ["lease.unconfirmed", "store.unavailable", "store.available"] {
        assert_eq!(supervisor.count(name), 1, "{name}\n{}", supervisor.story());
    }
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait_event("stop.requested");
    // One that is deaf is not waited for.
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

/// Each of them takes half a minute, so that all run at once.
#[test]
fn a_gateway_ends_before_second_thirty_without_its_store_and_the_next_one_follows() {
    thread::scope(|scope| {
        scope.spawn(a_store_that_hangs);
        scope.spawn(a_store_that_is_locked);
        for error in [Errno::IO, Errno::STALE] {
            scope.spawn(move || a_store_that_fails(error));
        }
        scope.spawn(a_store_that_is_cut_off);
        scope.spawn(a_supervisor_that_is_stopped_for_as_long);
        scope.spawn(a_store_that_hangs_under_an_operator_who_keeps_the_gateway);
        scope.spawn(a_stop_while_the_store_hangs);
    });
}

/// Not even SIGKILL ends a call to it, and its gateway ignores SIGTERM.
fn a_store_that_hangs() {
    let scene = Scene::new("deaf");
    let [store] = mount_at([scene.root().join("net")]);
    let mut supervisor = start(on_store(&scene, &store).option("--stop-timeout", "60s"));
    supervisor.wait_started();
    let since = Instant::now();
    store.hang();
    assert_ended(&mut supervisor, &scene, since, &["does not answer"]);
    assert_eq!(supervisor.count("stop.escalated"), 1, "{}", supervisor.story());
    store.answer();
    assert_back(&mut supervisor, &scene);
}

fn a_store_that_is_locked() {
    let scene = Scene::new("healthy");
    let mut supervisor = start(scene.launch().option("--lease", "heartbeat"));
    supervisor.wait_started();
    let since = Instant::now();
    let blockade = Ledger::of(&scene).block();
    assert_ended(&mut supervisor, &scene, since, &["locked"]);
    drop(blockade);
    assert_back(&mut supervisor, &scene);
}

fn a_store_that_fails(error: Errno) {
    let scene = Scene::new("healthy");
    let [store] = mount_at([scene.root().join("net")]);
    let mut supervisor = start(on_store(&scene, &store));
    supervisor.wait_started();
    let since = Instant::now();
    store.fail(error);
    assert_ended(&mut supervisor, &scene, since, &FAILS);
    store.answer();
    assert_back(&mut supervisor, &scene);
}

fn a_store_that_is_cut_off() {
    let scene = Scene::new("healthy");
    let [mut store] = mount_at([scene.root().join("net")]);
    let mut supervisor = start(on_store(&scene, &store));
    supervisor.wait_started();
    let since = Instant::now();
    store.disconnect();
    assert_ended(&mut supervisor, &scene, since, &FAILS);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

/// The store is well; another machine may have taken the lease all the same.
fn a_supervisor_that_is_stopped_for_as_long() {
    let scene = Scene::new("deaf");
    let mut supervisor = start(scene.launch().option("--lease", "heartbeat"));
    let gateway = supervisor.wait_started();
    supervisor.signal(Signal::SIGSTOP);
    let_pass(GONE);
    supervisor.signal(Signal::SIGCONT);
    let since = Instant::now();
    wait_for("the end of the gateway", GONE, || supervisor.story(), || (!gateway.is_alive()).then_some(()));
    assert!(since.elapsed() < Duration::from_secs(3), "{:?}\n{}", since.elapsed(), supervisor.story());
    assert_back(&mut supervisor, &scene);
}

fn a_store_that_hangs_under_an_operator_who_keeps_the_gateway() {
    let scene = Scene::new("healthy");
    let [store] = mount_at([scene.root().join("net")]);
    let mut supervisor = start(on_store(&scene, &store).option("--on-store-lost", "keep"));
    let gateway = supervisor.wait_started();
    store.hang();
    assert_eq!(supervisor.wait_event("lease.unconfirmed").text("action"), "keep");
    // It can still be stopped.
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait_event("gateway.exited");
    assert!(!gateway.is_alive() && scene.diary().starts().len() == 1, "{}", supervisor.story());
    store.answer();
    supervisor.expect_exit(0);
}

/// The gateway is ours, whoever has the lease: it is told at once. That the lease is given back is told when it is.
fn a_stop_while_the_store_hangs() {
    let scene = Scene::new("healthy");
    let [store] = mount_at([scene.root().join("net")]);
    let mut supervisor = start(on_store(&scene, &store));
    let gateway = supervisor.wait_started();
    store.hang();
    let since = Instant::now();
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait_event("gateway.exited");
    assert!(!gateway.is_alive() && since.elapsed() < Duration::from_secs(3), "{:?}", since.elapsed());
    assert_eq!(scene.diary().signals(gateway.pid), ["SIGTERM"], "{}", scene.diary().text());
    supervisor.wait_event("supervisor.stopped");
    assert_eq!(supervisor.count("lease.released"), 0, "{}", supervisor.story());
    store.answer();
    supervisor.expect_exit(0);
}

/// Where the settings hang, there is no loop yet that could tell.
#[test]
fn a_start_and_a_command_on_a_store_that_hangs_end_with_words() {
    let scene = Scene::new("healthy");
    let [store] = mount_at([scene.root().join("net")]);
    let path = store.path().join("store").display().to_string();
    // Now the mount is complete.
    std::fs::create_dir(&path).expect("it answers");
    store.hang();
    let mut supervisor = start(on_store(&scene, &store));
    let probe = Verb::start(&scene, &["probe", "--store-dir", &path]);
    let status = Verb::start(&scene, &["status", "--store-dir", &path]);
    probe.wait_line("what it finds", |line| line.starts_with("free: "));
    wait_for(
        "its end",
        Duration::from_mins(1),
        || supervisor.story(),
        || supervisor.story().contains(HANGS).then_some(()),
    );
    // No call to it returns yet.
    store.answer();
    supervisor.expect_exit(1);
    let status = status.end().expect(4).to_string();
    assert!(status.contains(HANGS), "{status}");
    probe.end().expect(1);
    assert_eq!(scene.diary().starts().len(), 0);
    start(on_store(&scene, &store)).wait_started();
}

/// A machine: processes, network and mount of its own.
fn machine(scene: &Scene, store: &Mount) -> Supervisor {
    let jail = Jail::with_pids().and_network();
    let mut supervisor =
        Supervisor::spawn(jail.around(&on_store(scene, store).option("--on-conflict", "exit").command()));
    supervisor.patience = Duration::from_secs(100);
    supervisor
}

#[test]
fn another_machine_starts_its_gateway_only_when_that_of_an_owner_without_a_network_is_gone() {
    let scene = Scene::new("deaf");
    let [here, there] = mount_at([scene.root().join("here"), scene.root().join("there")]);
    let mut first = machine(&scene, &here);
    first.wait_event("gateway.started");
    here.hang();
    let mut second = machine(&scene, &there);
    second.wait_event("lease.contended");
    let one_at_most = || {
        let living = gateways(&scene);
        assert!(living.len() <= 1, "{living:?}\n{}\n{}", first.story(), second.story());
        (second.count("gateway.started") == 1).then_some(())
    };
    wait_for("the second gateway", Duration::from_secs(100), || second.story(), one_at_most);
    assert_eq!(gateways(&scene).len(), 1);
    here.answer();
    let lost = first.wait_event("lease.lost");
    assert!(lost.text("why").contains("another owner"), "{lost:?}");
    first.expect_exit(78);
    assert_eq!((first.count("gateway.spawned"), gateways(&scene).len()), (1, 1), "{}", first.story());
}
