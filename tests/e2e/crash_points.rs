//! Wherever a supervisor is killed, the next one converges to one healthy gateway.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
use std::sync::Mutex;
use std::thread;
use std::time::Duration;
use support::jail::gateways;
use support::ledger::Ledger;
use support::process::Process;
use support::supervisor::Supervisor;
use support::{PATIENCE, Scene, http, let_pass, wait_for};

const KILL_AT: &str = "OPENCLAW_SUPERVISE_TEST_KILL_AT";

/// Runs one test for each number, at the same time.
fn each(numbers: RangeInclusive<u32>, test: impl Fn(u32) + Sync) {
    let test = &test;
    thread::scope(|scope| {
        for number in numbers {
            scope.spawn(move || test(number));
        }
    });
}

/// Waits until a started gateway serves the port and it is the only one.
fn the_one_gateway(scene: &Scene, supervisor: &Supervisor, what: &str) -> Process {
    let story = || format!("{what}\n{}\n{}", supervisor.story(), scene.diary().text());
    let look = || {
        let up = http::startup_status(scene.port()).is_some_and(|status| status == "started");
        gateways(scene).first().copied().filter(|_| up)
    };
    let gateway = wait_for("a gateway that is up", PATIENCE, story, look);
    assert_eq!(gateways(scene), [gateway], "one gateway\n{}", story());
    gateway
}

/// A gateway starts only after the one before it has ended, and none finds its port taken.
fn assert_never_two(scene: &Scene, what: &str) {
    let text = scene.diary().text();
    assert!(!text.contains("BUSY"), "{what}: two at a time\n{text}");
    let mut alive = None;
    for line in text.lines() {
        let mut words = line.split(' ');
        match (words.next(), words.next()) {
            (Some("START"), pid) => {
                assert_eq!(alive, None, "{what}: {pid:?} started beside another one\n{text}");
                alive = pid;
            }
            (Some("EXIT"), pid) if pid == alive => alive = None,
            _ => {}
        }
    }
}

/// Waits until a crash point has killed it, and kills it if there is none left.
fn wait_killed(mut supervisor: Supervisor, what: &str) -> Supervisor {
    assert_eq!(supervisor.wait_exit(), None, "{what}: it ended otherwise\n{}", supervisor.story());
    supervisor
}

/// A second start, and a stop.
fn converge(scene: &Scene, what: &str) {
    let mut second = scene.start();
    second.wait_event("lease.acquired");
    let one = the_one_gateway(scene, &second, what);
    assert_never_two(scene, what);
    // It owns the gateway now: a stop leaves nothing.
    second.signal(Signal::SIGTERM);
    second.expect_exit(0);
    assert!(!one.is_alive());
    assert_eq!(scene.processes(), [], "{what}: nothing is left\n{}", second.story());
}

/// What a killed supervisor has left: the number of gateways, of intents on record, and of recorded pids.
fn left(scene: &Scene) -> (usize, i64, i64) {
    let ledger = Ledger::of(scene);
    let count = |what: &str| match ledger.number("PRAGMA user_version") {
        0 => 0,
        _ => ledger.number(&format!("SELECT count({what}) FROM generations")),
    };
    let (intents, pids) = if ledger.path().exists() { (count("*"), count("pid")) } else { (0, 0) };
    (gateways(scene).len(), intents, pids)
}

#[test]
fn at_any_point_of_a_start() {
    let seen = Mutex::new(BTreeSet::new());
    each(1..=20, |number| {
        let scene = Scene::new("boot=30ms");
        let what = format!("crash point {number} of a start");
        wait_killed(scene.launch().env(KILL_AT, &number.to_string()).start(), &what);
        seen.lock().unwrap().insert(left(&scene));
        converge(&scene, &what);
        // The gateway of the first supervisor, if it had started one, still runs.
        assert_eq!(scene.diary().starts().len(), 1, "{what}\n{}", scene.diary().text());
    });
    let seen = seen.into_inner().unwrap();
    for state in [(0, 0, 0), (0, 1, 0), (1, 1, 0), (1, 1, 1)] {
        assert!(seen.contains(&state), "no point left {state:?} (gateways, intents, pids): {seen:?}");
    }
}

#[test]
fn at_any_point_of_a_restart() {
    each(1..=20, |number| {
        let scene = Scene::new("drain=150ms boot=30ms");
        let what = format!("crash point {number} of a restart");
        let mut first = scene.launch().env(KILL_AT, &format!("Requested+{number}")).start();
        first.wait_started();
        first.signal(Signal::SIGHUP);
        wait_killed(first, &what);
        converge(&scene, &what);
        assert!((1..=2).contains(&scene.diary().starts().len()), "{what}\n{}", scene.diary().text());
    });
}

#[test]
fn at_any_point_of_a_stop() {
    each(1..=10, |number| {
        let scene = Scene::new("drain=150ms boot=30ms kid=setsid");
        let what = format!("crash point {number} of a stop");
        let mut first = scene.launch().env(KILL_AT, &format!("Requested+{number}")).start();
        first.wait_started();
        first.signal(Signal::SIGTERM);
        let ended = first.wait_exit();
        assert!(matches!(ended, None | Some(0)), "{what}: {ended:?}\n{}", first.story());
        converge(&scene, &what);
    });
}

#[test]
fn at_any_point_after_a_crash_of_its_gateway() {
    each(1..=16, |number| {
        let scene = Scene::new("kid=setsid exit=3@200ms; healthy");
        let what = format!("crash point {number} after a crash");
        let first = scene.launch().env(KILL_AT, &format!("LeaderExited+{number}")).start();
        wait_killed(first, &what);
        converge(&scene, &what);
        assert_eq!(scene.diary().starts().len(), 2, "{what}\n{}", scene.diary().text());
        let kids = scene.diary().kids();
        assert!(kids.iter().all(|kid| !kid.process.is_alive()), "{what}: {kids:?}");
    });
}

#[test]
fn at_any_point_of_an_adoption() {
    each(1..=12, |number| {
        let scene = Scene::new("boot=30ms");
        let what = format!("crash point {number} of an adoption");
        let mut first = scene.start();
        let gateway = first.wait_started();
        first.signal(Signal::SIGKILL);
        first.wait_exit();
        wait_killed(scene.launch().env(KILL_AT, &number.to_string()).start(), &what);
        assert!(gateway.is_alive(), "{what}");
        converge(&scene, &what);
        assert_eq!(scene.diary().starts().len(), 1, "{what}\n{}", scene.diary().text());
    });
}

/// The successor's port is closed by the time of the second start, so that only the record leads to it.
#[test]
fn at_any_point_after_a_gateway_has_left_a_successor() {
    let adopted = Mutex::new(0);
    each(1..=10, |number| {
        let scene = Scene::new("kid=setsid");
        let what = format!("crash point {number} of a succession");
        let mut first = scene.launch().env(KILL_AT, &format!("LeaderExited+{number}")).start();
        let gateway = first.wait_started();
        scene.diary().command(gateway.pid, "succeed");
        let first = wait_killed(first, &what);
        // It is gone where the point is behind the end of its tree: under load its owner may not be seen in time.
        let successor = scene.diary().starts()[1].process;
        scene.diary().command(successor.pid, "close");
        let is_closed = || (!successor.is_alive() || scene.diary().text().contains("Close")).then_some(());
        wait_for("a closed port", PATIENCE, || format!("{what}\n{}", first.story()), is_closed);
        let mut second = scene.start();
        let story = || format!("{what}\n{}\n{}\n{}", first.story(), second.story(), scene.diary().text());
        let is_there = || second.count("gateway.adopted") + second.count("gateway.started") > 0;
        wait_for("a gateway", PATIENCE, story, || is_there().then_some(()));
        assert_eq!(gateways(&scene).len(), 1, "{}", story());
        *adopted.lock().unwrap() += second.count("gateway.adopted");
        second.signal(Signal::SIGTERM);
        second.expect_exit(0);
        assert_eq!(scene.processes(), [], "{what}: nothing is left\n{}", second.story());
    });
    assert!(adopted.into_inner().unwrap() > 0, "no point was between the successor's record and its adoption");
}

/// Crash points lie between the steps of the loop; the store's thread and the kernel work concurrently.
#[test]
fn at_any_moment_again_and_again() {
    let scene = Scene::new("boot=30ms");
    for step in 0..40 {
        let mut victim = scene.start();
        let_pass(Duration::from_micros(step * 400));
        victim.signal(Signal::SIGKILL);
        victim.wait_exit();
    }
    converge(&scene, "forty kills");
    assert_eq!(scene.diary().starts().len(), 1, "{}", scene.diary().text());
}
