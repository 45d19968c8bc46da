//! A restart of the supervisor resets neither budget nor breaker nor generation numbers: they are in the store.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::fcntl::{OFlag, open};
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use serde_json::Value;
use std::process::Stdio;
use std::time::{Duration, Instant};
use support::jail::Jail;
use support::ledger::Ledger;
use support::process::Process;
use support::supervisor::{Launch, Said, Supervisor};
use support::{Scene, wait_for};

/// A supervisor with a budget of one restart, and a gateway that dies at once.
fn short_of_breath<'a>(scene: &'a Scene, backoff_max: &str) -> Launch<'a> {
    scene.launch().option("--max-restarts", "1").option("--backoff-max", backoff_max)
}

/// Spends the budget. The moment of the end.
fn spend(scene: &Scene, backoff_max: &str) -> Instant {
    let mut supervisor = short_of_breath(scene, backoff_max).start();
    supervisor.expect_exit(69);
    assert_eq!(scene.diary().starts().len(), 2, "{}", supervisor.story());
    supervisor.last("restart.gave_up").seen
}

fn kill(supervisor: &mut Supervisor, gateway: Process) {
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
    gateway.kill();
}

fn end(supervisor: &mut Supervisor) {
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

/// P9, as the record shows it: every gateway that was spawned has one end, and no other has one.
fn assert_one_end_each(scene: &Scene, generations: usize) {
    let events = Said::by(scene, &["events", "--json", "-n", "10000"]).expect(0).objects();
    let numbers = |names: &[&str]| {
        let named = events.iter().filter(|event| names.iter().any(|name| event["event"] == *name));
        let mut numbers: Vec<_> = named.map(|event| event["generation"].as_u64().unwrap()).collect();
        numbers.sort_unstable();
        numbers
    };
    let expected: Vec<_> = (1..=u64::try_from(generations).unwrap()).collect();
    assert_eq!(numbers(&["gateway.spawned"]), expected, "{events:#?}");
    assert_eq!(numbers(&["gateway.exited"]), expected, "{events:#?}");
    let ledger = Ledger::of(scene);
    let count = i64::try_from(generations).unwrap();
    assert_eq!(ledger.number("SELECT count(*) FROM generations WHERE settled_at IS NOT NULL"), count);
    assert_eq!(ledger.number("SELECT count(*) FROM generations"), count);
}

#[test]
fn a_spent_budget_leaves_one_trial_each_backoff_max() {
    let scene = Scene::new("exit=1@20ms");
    let mut since = spend(&scene, "3s");
    for starts in [3, 4] {
        let mut supervisor = short_of_breath(&scene, "3s").start();
        let scheduled = supervisor.wait_event("restart.scheduled");
        assert!((1..=3000).contains(&scheduled.number("delay_ms")), "{}", scheduled.value());
        assert!(scheduled.text("why").contains("restart budget spent"), "{}", scheduled.value());
        let told = Said::by(&scene, &["status", "--json"]).expect(3).json();
        assert_eq!(told["supervisor"]["state"], "backing_off", "{told:#}");
        assert_eq!(told["next"]["why"], scheduled.text("why"), "{told:#}");
        let within = told["next"]["in_ms"].as_i64().unwrap();
        assert!(within > 0 && within <= scheduled.number("delay_ms"), "{told:#}");
        let spawned = supervisor.wait_event("gateway.spawned");
        let waited = spawned.seen.duration_since(since);
        supervisor.assert_took("the wait", waited, &(Duration::from_millis(2900)..Duration::from_secs(8)));
        supervisor.expect_exit(69);
        since = supervisor.last("restart.gave_up").seen;
        assert_eq!(scene.diary().starts().len(), starts, "{}", supervisor.story());
    }
    assert_one_end_each(&scene, 4);
}

#[test]
fn retry_now_and_a_stop_do_not_wait_for_the_trial() {
    let scene = Scene::new("exit=1@20ms; exit=1@20ms; healthy");
    spend(&scene, "60s");
    let mut supervisor = short_of_breath(&scene, "60s").start();
    supervisor.wait_event("restart.scheduled");
    end(&mut supervisor);
    assert_eq!(scene.diary().starts().len(), 2);
    let mut supervisor = short_of_breath(&scene, "60s").start();
    let scheduled = supervisor.wait_event("restart.scheduled");
    assert!(scheduled.number("delay_ms") > 10_000, "{}", supervisor.story());
    Said::by(&scene, &["retry-now"]).expect(0).assert_says(&["gateway 3 was started"]);
    supervisor.wait_started();
    end(&mut supervisor);
    assert_one_end_each(&scene, 3);
}

#[test]
fn a_person_at_a_terminal_does_not_wait_for_the_trial() {
    let scene = Scene::new("exit=1@20ms; exit=1@20ms; healthy");
    spend(&scene, "60s");
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    let name = ptsname_r(&master).unwrap();
    let terminal = open(name.as_str(), OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC, Mode::empty()).unwrap();
    let mut command = short_of_breath(&scene, "60s").command();
    // Its output fits into the terminal's buffer: no reader is needed.
    let mut child = command.stdin(Stdio::null()).stderr(Stdio::from(terminal)).spawn().unwrap();
    let diary = scene.diary();
    let third = || diary.starts().get(2).map(|entry| entry.process);
    wait_for("the third start", support::PATIENCE, || diary.text(), third);
    let up = || (Said::by(&scene, &["status"]).code == Some(0)).then_some(());
    wait_for("a healthy gateway", support::PATIENCE, || diary.text(), up);
    Said::by(&scene, &["stop"]).expect(0);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_one_end_each(&scene, 3);
}

#[test]
fn unclean_boots_count_across_supervisors() {
    let scene = Scene::new("healthy");
    let launch = || scene.launch().option("--boot-limit", "1").option("--boot-window", "5s");
    let mut came_up = Vec::new();
    for _ in 0..2 {
        let mut supervisor = launch().start();
        let gateway = supervisor.wait_started();
        came_up.push(supervisor.last("gateway.started").seen);
        // The start has to be on record for the next supervisor.
        Ledger::of(&scene).wait_number(
            "SELECT count(*) FROM generations WHERE started_at IS NOT NULL",
            i64::try_from(came_up.len()).unwrap(),
        );
        kill(&mut supervisor, gateway);
    }
    let mut supervisor = launch().start();
    let scheduled = supervisor.wait_event_with("restart.scheduled", |event| event.text("why").contains("channels off"));
    assert!(scheduled.number("delay_ms") > 500, "{}", supervisor.story());
    let spawned = supervisor.wait_event("gateway.spawned");
    let waited = spawned.seen.duration_since(came_up[0]);
    supervisor.assert_took("the window", waited, &(Duration::from_millis(4900)..Duration::from_secs(9)));
    supervisor.wait_started();
    end(&mut supervisor);
    assert_one_end_each(&scene, 3);
}

#[test]
fn a_stable_gateway_that_died_with_its_supervisor_is_replaced_at_once() {
    let scene = Scene::new("healthy");
    let launch = || scene.launch().option("--stable-after", "500ms").option("--backoff-max", "60s");
    let mut first = launch().start();
    let gateway = first.wait_started();
    Ledger::of(&scene).wait_number("SELECT count(*) FROM generations WHERE stable_at IS NOT NULL", 1);
    kill(&mut first, gateway);
    let mut second = launch().start();
    let scheduled = second.wait_event("restart.scheduled");
    assert_eq!(scheduled.number("delay_ms"), 0, "{}", second.story());
    assert!(scheduled.text("why").contains("it had been healthy for"), "{}", scheduled.value());
    second.wait_started();
    let told: Value = Said::by(&scene, &["status", "--json"]).expect(0).json();
    assert_eq!(told["restarts"]["in_window"], 0, "{told:#}");
    end(&mut second);
    assert_one_end_each(&scene, 2);
}

#[test]
fn generations_continue_and_crashes_of_an_earlier_supervisor_count() {
    let scene = Scene::new("exit=1@20ms; healthy");
    let mut first = scene.start();
    first.wait_event_with("gateway.started", |event| event.number("generation") == 2);
    end(&mut first);
    let mut second = scene.start();
    second.wait_started();
    assert_eq!(second.last("gateway.started").number("generation"), 3);
    let told = Said::by(&scene, &["status", "--json"]).expect(0).json();
    assert_eq!(told["generation"], 3);
    assert_eq!(told["restarts"]["in_window"], 1, "{told:#}");
    end(&mut second);
    assert_one_end_each(&scene, 3);
}

#[test]
fn a_disk_that_is_full_at_the_start_does_not_renew_a_spent_budget() {
    let scene = Scene::new("exit=1@20ms");
    spend(&scene, "60s");
    let dir = scene.store_dir().display().to_string();
    let setup = format!(
        "cp -a '{dir}' '{dir}.kept' && mount -t tmpfs -o size=192k,mode=700 tmpfs '{dir}' && cp -a '{dir}.kept/.' '{dir}' && \
         {{ cat /dev/zero > '{dir}/filler' 2>/dev/null || true; }}"
    );
    let launch = short_of_breath(&scene, "60s");
    let mut supervisor = Supervisor::spawn(Jail::with_mounts(&setup).around(&launch.command()));
    supervisor.wait_event("store.unavailable");
    let scheduled = supervisor.wait_event("restart.scheduled");
    assert!(scheduled.text("why").contains("restart budget spent"), "{}", scheduled.value());
    assert!(scheduled.number("delay_ms") > 10_000, "{}", supervisor.story());
    assert_eq!(scene.diary().starts().len(), 2, "{}", supervisor.story());
    end(&mut supervisor);
}
