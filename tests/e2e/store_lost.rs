//! A store on a file system of the network that hangs, fails or is cut off: the gateway of its owner ends before another
//! machine may start one, and the next one starts when the store is back.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]
#![expect(clippy::disallowed_methods, reason = "a test measures by the clock, with a bound")]

use crate::support;

use nix::sys::signal::Signal;
use rustix::io::Errno;
use std::thread;
use std::time::{Duration, Instant};
use support::jail::{Jail, first_process, gateways};
use support::ledger::Ledger;
use support::process::{Process, stat};
use support::shared::{Mount, mount_at};
use support::supervisor::{Launch, Supervisor, Verb};
use support::{Scene, let_pass, wait_for};

/// When no gateway of an owner may live any more, after its last confirmation.
const GONE: Duration = Duration::from_secs(30);

/// How old a confirmation is told to be too old.
const UNCONFIRMED: std::ops::Range<i64> = 20_000..25_000;

/// What a program says that cannot look at its own paths.
const HANGS: &str = "(does its file system hang?), so nothing was done; check the mount";

/// Where the failure meets it: at the path, in the middle of a write, or at a page that then counts as corrupt.
const FAILS: [&str; 3] = ["cannot look at ", "cannot write ", "cannot move the corrupt "];

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
        scope.spawn(a_start_and_a_command_on_a_store_that_hangs_end_with_words);
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

/// The gateway is ours, with or without the lease: it is signalled at once. A release is reported once it is done.
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
fn a_start_and_a_command_on_a_store_that_hangs_end_with_words() {
    let scene = Scene::new("healthy");
    let [store] = mount_at([scene.root().join("net")]);
    let path = store.path().join("store").display().to_string();
    // Now the mount is complete.
    std::fs::create_dir(&path).expect("it answers");
    store.hang();
    let (mut supervisor, mut stopped) = (start(on_store(&scene, &store)), start(on_store(&scene, &store)));
    let probe = Verb::start(&scene, &["probe", "--store-dir", &path]);
    let status = Verb::start(&scene, &["status", "--store-dir", &path]);
    probe.wait_line("what it finds", |line| line.starts_with("free: "));
    stopped.signal(Signal::SIGTERM);
    let told = || stopped.story().contains("program path has not answered for").then_some(());
    wait_for("an end by SIGTERM", Duration::from_secs(15), || stopped.story(), told);
    wait_for(
        "its end",
        Duration::from_mins(1),
        || supervisor.story(),
        || supervisor.story().contains(HANGS).then_some(()),
    );
    // No call to it returns yet.
    store.answer();
    supervisor.expect_exit(1);
    stopped.expect_exit(1);
    let status = status.end().expect(4).to_string();
    assert!(status.contains(HANGS), "{status}");
    probe.end().expect(1);
    assert_eq!(scene.diary().starts().len(), 0);
    start(on_store(&scene, &store)).wait_started();
}

/// When another machine has spawned its gateway at the latest, see docs/OPERATION.md: in standby since the last heartbeat of
/// the owner, or since its start.
const STANDBY_SPAWNS: Duration = Duration::from_secs(50);
const START_SPAWNS: Duration = Duration::from_secs(40);

/// What a loaded machine may add, and how long an owner that was frozen may take to end its gateway.
const LATE: Duration = Duration::from_secs(5);
const AWAKE: Duration = Duration::from_secs(3);

/// A machine: processes, network and mount of its own.
fn machine(scene: &Scene, store: &Mount, on_conflict: &str) -> Supervisor {
    let jail = Jail::with_pids().and_network();
    let launch = on_store(scene, store).option("--on-conflict", on_conflict);
    let mut supervisor = Supervisor::spawn(jail.around(&launch.command()));
    supervisor.patience = Duration::from_secs(100);
    supervisor
}

/// Two machines with one store, and an owner on the first one.
struct Pair {
    scene: Scene,
    here: Mount,
    there: Mount,
    first: Supervisor,
}

impl Pair {
    fn new(script: &str) -> Self {
        let scene = Scene::new(script);
        let [here, there] = mount_at([scene.root().join("here"), scene.root().join("there")]);
        let mut first = machine(&scene, &here, "exit");
        first.wait_event("gateway.started");
        Self { scene, here, there, first }
    }

    /// With a second one that stands by.
    fn with_standby(script: &str) -> (Self, Supervisor) {
        let pair = Self::new(script);
        let mut second = machine(&pair.scene, &pair.there, "standby");
        second.wait_event("standby.entered");
        (pair, second)
    }

    /// The gateways that can do something.
    fn awake(&self) -> Vec<Process> {
        let is_frozen = |process: &Process| stat(process.pid).is_some_and(|stat| stat.state == "T");
        gateways(&self.scene).into_iter().filter(|process| !is_frozen(process)).collect()
    }

    fn assert_one_at_most(&self, second: &Supervisor) {
        let awake = self.awake();
        assert!(awake.len() <= 1, "{awake:?}\n{}\n{}", self.first.story(), second.story());
    }

    /// The second one has the only gateway in time.
    fn expect_takeover(&self, second: &Supervisor, since: Instant, most: Duration) {
        let started = || {
            self.assert_one_at_most(second);
            (second.count("gateway.started") == 1).then_some(())
        };
        wait_for("the second gateway", Duration::from_secs(100), || second.story(), started);
        let took = second.last("gateway.spawned").seen.duration_since(since);
        assert!(took < most + LATE, "{took:?}\n{}", second.story());
        assert_eq!(self.awake().len(), 1);
    }

    /// The first one finds the new owner, and goes.
    fn expect_loss(mut self) {
        let lost = self.first.wait_event("lease.lost");
        assert!(lost.text("why").contains("another owner"), "{lost:?}");
        self.first.expect_exit(78);
        assert_eq!((self.first.count("gateway.spawned"), self.awake().len()), (1, 1), "{}", self.first.story());
    }
}

/// Each of them takes a minute, so that all run at once.
#[test]
fn another_machine_starts_its_gateway_in_time_and_only_when_that_of_the_owner_is_gone() {
    thread::scope(|scope| {
        scope.spawn(an_owner_whose_store_hangs_is_succeeded_by_a_start);
        scope.spawn(an_owner_whose_store_hangs_is_succeeded_by_a_standby);
        scope.spawn(an_owner_that_is_cut_off_is_succeeded);
        scope.spawn(an_owner_that_is_frozen_is_succeeded_and_ends_its_gateway_when_it_wakes_up);
        scope.spawn(an_owner_that_is_away_for_a_moment_stays_the_owner);
    });
}

fn an_owner_whose_store_hangs_is_succeeded_by_a_start() {
    let pair = Pair::new("deaf");
    pair.here.hang();
    let mut second = machine(&pair.scene, &pair.there, "exit");
    let since = second.wait_event("lease.contended").seen;
    pair.expect_takeover(&second, since, START_SPAWNS);
    pair.here.answer();
    pair.expect_loss();
}

fn an_owner_whose_store_hangs_is_succeeded_by_a_standby() {
    let (pair, second) = Pair::with_standby("deaf");
    pair.here.hang();
    pair.expect_takeover(&second, Instant::now(), STANDBY_SPAWNS);
    pair.here.answer();
    pair.expect_loss();
}

fn an_owner_that_is_cut_off_is_succeeded() {
    let (mut pair, second) = Pair::with_standby("healthy");
    pair.here.disconnect();
    pair.expect_takeover(&second, Instant::now(), STANDBY_SPAWNS);
    assert_eq!(pair.first.last("lease.unconfirmed").text("action"), "stop");
}

fn an_owner_that_is_frozen_is_succeeded_and_ends_its_gateway_when_it_wakes_up() {
    let (pair, second) = Pair::with_standby("deaf");
    let frozen = first_process(pair.first.pid()).tree();
    for process in &frozen {
        process.signal(Signal::SIGSTOP);
    }
    pair.expect_takeover(&second, Instant::now(), STANDBY_SPAWNS);
    for process in &frozen {
        process.signal(Signal::SIGCONT);
    }
    let gone = || (gateways(&pair.scene).len() == 1).then_some(());
    wait_for("the end of its gateway", AWAKE, || pair.first.story(), gone);
    pair.expect_loss();
}

fn an_owner_that_is_away_for_a_moment_stays_the_owner() {
    let (mut pair, mut second) = Pair::with_standby("healthy");
    for error in [Errno::IO, Errno::STALE] {
        pair.here.fail(error);
        pair.first.wait_event("store.unavailable");
        pair.here.answer();
        pair.first.wait_event("store.available");
    }
    pair.here.hang();
    let_pass(Duration::from_secs(12));
    pair.here.answer();
    let_pass(Duration::from_secs(15));
    pair.assert_one_at_most(&second);
    for supervisor in [&pair.first, &second] {
        let ends = ["gateway.exited", "lease.lost", "lease.unconfirmed", "standby.left"];
        assert!(ends.iter().all(|name| supervisor.count(name) == 0), "{}", supervisor.story());
    }
    second.signal(Signal::SIGKILL);
    second.wait_exit();
}
