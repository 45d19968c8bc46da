//! What a service manager receives, at a socket of the test in place of systemd's.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "signs of life are timed by the clock")]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

mod ear;
use crate::support;

use ear::{Ear, Word};
use nix::sys::signal::Signal;
use std::fs;
use std::time::{Duration, Instant};
use support::supervisor::{Launch, Supervisor};
use support::{Scene, let_pass};

const EXTEND: (&str, &str) = ("EXTEND_TIMEOUT_USEC", "30000000");

fn with_watchdog<'a>(launch: Launch<'a>, usec: &str) -> Launch<'a> {
    launch.env("WATCHDOG_USEC", usec)
}

/// What its log says of the service manager.
fn warnings(supervisor: &Supervisor) -> Vec<String> {
    let logged = supervisor.events().into_iter().filter(|event| event.name() == "log");
    logged.map(|event| event.text("message").to_owned()).filter(|text| text.contains("service manager")).collect()
}

/// The assignments of a kind, in order.
fn said<'a>(words: &'a [Word], names: &[&str]) -> Vec<&'a Word> {
    words.iter().filter(|word| names.iter().any(|name| word.has(name))).collect()
}

#[test]
fn ready_is_sent_once_for_each_gateway_after_it_has_started() {
    for ear in [Ear::path as fn(&Scene) -> Ear, Ear::abstract_name] {
        let scene = Scene::new("boot=300ms warm=300ms");
        let ear = ear(&scene);
        let mut supervisor = ear.launch(&scene).start();
        ear.wait("READY", "1");
        assert_eq!(support::http::startup_status(scene.port()).as_deref(), Some("started"));
        let gateway = supervisor.wait_started();
        ear.wait("STATUS", &format!("gateway 1 (pid {}) is healthy", gateway.pid));
        gateway.kill();
        let second = supervisor.wait_started();
        ear.wait("STATUS", &format!("gateway 2 (pid {}) is healthy", second.pid));
        // Several probes later nothing more was sent.
        scene.diary().wait_requests(second.pid, 10);
        let words = ear.words();
        assert_eq!(said(&words, &["READY"]).len(), 2, "{words:#?}");
        assert_eq!(said(&words, &["RELOADING", "STOPPING", "MAINPID"]).len(), 0, "{words:#?}");
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
    }
}

#[test]
fn the_status_follows_the_gateway_and_does_not_repeat_itself() {
    let scene = Scene::new("boot=300ms");
    let ear = Ear::path(&scene);
    let mut supervisor = ear.launch(&scene).option("--hang-after", "10s").start();
    let gateway = supervisor.wait_started();
    let pid = gateway.pid;
    ear.wait("STATUS", &format!("gateway 1 (pid {pid}) is starting"));
    ear.wait("STATUS", &format!("gateway 1 (pid {pid}) is healthy"));
    gateway.signal(Signal::SIGSTOP);
    supervisor.wait_event("liveness.missed");
    ear.wait("STATUS", &format!("gateway 1 (pid {pid}) fails its probes"));
    gateway.signal(Signal::SIGCONT);
    supervisor.wait_event("liveness.recovered");
    ear.wait_after("STATUS", &format!("gateway 1 (pid {pid}) is healthy"), 1);
    scene.diary().wait_requests(pid, 10);
    let words = ear.words();
    let texts: Vec<_> = words.iter().filter_map(|word| word.value("STATUS")).collect();
    assert!(texts.windows(2).all(|two| two[0] != two[1]), "{texts:#?}");
    assert!(texts.len() <= 7, "{texts:#?}");
}

#[test]
fn a_watchdog_is_fed_at_its_pace_and_not_while_we_stand_still() {
    let scene = Scene::new("healthy");
    let ear = Ear::path(&scene);
    let launch = with_watchdog(ear.launch(&scene).option("--probe-interval", "10s"), "900000");
    let mut supervisor = launch.start();
    supervisor.wait_started();
    ear.wait("READY", "1");
    let from = ear.words().len();
    let_pass(Duration::from_secs(4));
    let words = ear.words();
    let fed: Vec<_> = said(&words[from..], &["WATCHDOG"]).iter().map(|word| word.heard).collect();
    let pauses: Vec<_> = fed.windows(2).map(|two| two[1] - two[0]).collect();
    assert!((6..=13).contains(&fed.len()), "{pauses:?}");
    assert!(pauses.iter().all(|pause| *pause < Duration::from_millis(900)), "{pauses:?}");
    // Only the watchdog wakes it now, and WATCHDOG=1 is alone in its datagram.
    assert!(words[from..].iter().all(|word| word.names() == ["WATCHDOG"]), "{words:#?}");
    supervisor.signal(Signal::SIGSTOP);
    let_pass(Duration::from_millis(300));
    let still = ear.words().len();
    let_pass(Duration::from_secs(2));
    assert_eq!(ear.words().len(), still);
    supervisor.signal(Signal::SIGCONT);
    ear.wait_after("WATCHDOG", "1", ear.count("WATCHDOG"));
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

#[test]
fn a_watchdog_of_another_process_is_not_fed() {
    let scene = Scene::new("healthy");
    let ear = Ear::path(&scene);
    let mut supervisor = with_watchdog(ear.launch(&scene).env("WATCHDOG_PID", "1"), "300000").start();
    let gateway = supervisor.wait_started();
    ear.wait("READY", "1");
    scene.diary().wait_requests(gateway.pid, 20);
    assert_eq!(ear.count("WATCHDOG"), 0, "{:#?}", ear.words());
}

#[test]
fn a_restart_on_request_is_a_reload_until_the_next_gateway_serves() {
    let scene = Scene::new("boot=300ms drain=300ms");
    let ear = Ear::path(&scene);
    let mut supervisor = ear.launch(&scene).start();
    supervisor.wait_started();
    ear.wait("READY", "1");
    let before = kernel_usec();
    supervisor.signal(Signal::SIGHUP);
    let reloading = ear.wait("RELOADING", "1");
    let told: u128 = reloading.value("MONOTONIC_USEC").unwrap().parse().unwrap();
    assert!((before..=kernel_usec()).contains(&told), "{told} is not after {before}");
    assert_eq!(reloading.value(EXTEND.0), Some(EXTEND.1), "{reloading:?}");
    assert_eq!(ear.count("READY"), 1, "not before the next one serves");
    let second = supervisor.wait_started();
    let ready = ear.wait_after("READY", "1", 1);
    assert_eq!(ready.value("STATUS"), Some(format!("gateway 2 (pid {}) is healthy", second.pid).as_str()));
    // A second one, and a stop in the middle of it.
    supervisor.signal(Signal::SIGUSR2);
    ear.wait_after("RELOADING", "1", 1);
    supervisor.signal(Signal::SIGTERM);
    ear.wait("STOPPING", "1");
    supervisor.expect_exit(0);
    let words = ear.words();
    let order: Vec<_> = said(&words, &["READY", "RELOADING", "STOPPING"]).iter().map(|word| word.names()[0]).collect();
    assert_eq!(order, ["READY", "RELOADING", "READY", "RELOADING", "STOPPING", "STOPPING"], "{words:#?}");
}

fn kernel_usec() -> u128 {
    let time = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap();
    Duration::from(time).as_micros()
}

#[test]
fn more_time_is_asked_for_while_a_gateway_boots_or_drains_and_never_while_it_serves() {
    let scene = Scene::new("boot=6s drain=6s");
    let ear = Ear::path(&scene);
    let mut supervisor = ear.launch(&scene).option("--stop-timeout", "30s").start();
    ear.wait("READY", "1");
    let booting = ear.count(EXTEND.0);
    // Longer than the pause that it had come to.
    let_pass(Duration::from_secs(9));
    assert_eq!(ear.count(EXTEND.0), booting, "{:#?}", ear.words());
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(ear.wait("STOPPING", "1").value(EXTEND.0), Some(EXTEND.1));
    supervisor.expect_exit(0);
    let words = ear.words();
    let (before, after): (Vec<_>, Vec<_>) = said(&words, &[EXTEND.0]).into_iter().partition(|word| {
        assert_eq!(word.value(EXTEND.0), Some(EXTEND.1));
        word.heard < words.iter().find(|word| word.has("READY")).unwrap().heard
    });
    for part in [before, after] {
        let gaps: Vec<_> = part.windows(2).map(|two| two[1].heard - two[0].heard).collect();
        // After 0, 0.5, 1.5 and 3.5 s.
        assert_eq!(gaps.len(), 3, "{gaps:?}");
        assert!(gaps.iter().all(|gap| *gap < Duration::from_secs(4)), "{gaps:?}");
    }
}

#[test]
fn stopping_is_sent_last_with_the_reason() {
    // On request.
    let scene = Scene::new("healthy");
    let ear = Ear::path(&scene);
    let mut supervisor = ear.launch(&scene).start();
    supervisor.wait_started();
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    expect_last_words(&ear, &supervisor);
    // With 78 beside an owner, and with 69.
    let mut owner = scene.start();
    owner.wait_started();
    let mut duplicate = ear.launch(&scene).start();
    duplicate.expect_exit(78);
    expect_last_words(&ear, &duplicate);
    drop(owner);
    let scene = Scene::new("exit=3@0s");
    let ear = Ear::path(&scene);
    let mut supervisor = ear.launch(&scene).option("--max-restarts", "1").start();
    supervisor.expect_exit(69);
    expect_last_words(&ear, &supervisor);
    assert_eq!(ear.count("READY"), 0, "{:#?}", ear.words());
}

fn expect_last_words(ear: &Ear, supervisor: &Supervisor) {
    let reason = supervisor.last("supervisor.stopped").text("reason").to_owned();
    let last = ear.wait("STATUS", &reason);
    assert_eq!(last.names(), ["STOPPING", "STATUS"], "{last:?}");
    assert_eq!(ear.words().last().unwrap().value("STATUS"), Some(reason.as_str()));
}

#[test]
fn a_failed_start_sends_the_reason() {
    let scene = Scene::new("healthy");
    let ear = Ear::path(&scene);
    ear.launch(&scene).words(&["/nonexistent/gateway"]).start().expect_exit(78);
    let word = ear.words().pop().expect("it has said something");
    assert_eq!(word.names(), ["STATUS"], "{word:?}");
    assert!(word.value("STATUS").unwrap().contains("/nonexistent/gateway"), "{word:?}");
}

#[test]
fn a_standby_beside_a_healthy_owner_is_ready() {
    let scene = Scene::new("healthy");
    let mut owner = scene.start();
    owner.wait_started();
    let ear = Ear::path(&scene);
    let mut standby = with_watchdog(ear.launch(&scene), "600000").option("--on-conflict", "standby").start();
    let ready = ear.wait("READY", "1");
    let sentence = format!("standing by: another supervisor holds the lease (pid {})", owner.pid());
    assert_eq!(ready.value("STATUS"), Some(sentence.as_str()));
    // It lives, though it has nothing else to do.
    ear.wait_after("WATCHDOG", "1", ear.count("WATCHDOG") + 3);
    assert_eq!(ear.count("READY"), 1);
    standby.signal(Signal::SIGTERM);
    standby.expect_exit(0);
}

#[test]
fn a_full_and_unread_socket_delays_nothing() {
    let scene = Scene::new("healthy");
    let ear = Ear::deaf(&scene);
    let before = Instant::now();
    let mut supervisor = with_watchdog(ear.launch(&scene), "30000").start();
    let gateway = supervisor.wait_started();
    gateway.kill();
    let second = supervisor.wait_started();
    supervisor.signal(Signal::SIGHUP);
    let third = supervisor.wait_started();
    assert!(!second.is_alive() && third.is_alive());
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    supervisor.assert_took("all of it", before.elapsed(), &(Duration::ZERO..Duration::from_secs(8)));
    assert_eq!(warnings(&supervisor).len(), 1, "{}", supervisor.story());
}

#[test]
fn a_message_that_found_the_socket_full_is_sent_later() {
    let scene = Scene::new("healthy");
    let ear = Ear::deaf(&scene);
    let mut supervisor = ear.launch(&scene).start();
    let gateway = supervisor.wait_started();
    scene.diary().wait_requests(gateway.pid, 5);
    ear.listen();
    let ready = ear.wait("READY", "1");
    assert_eq!(ready.value("STATUS"), Some(format!("gateway 1 (pid {}) is healthy", gateway.pid).as_str()));
}

#[test]
fn a_missing_or_invalid_socket_is_warned_about_once() {
    let scene = Scene::new("healthy");
    let missing = scene.root().join("missing").display().to_string();
    for name in [missing.as_str(), "relative", "@", "vsock:2:1"] {
        let mut supervisor = with_watchdog(scene.launch(), "90000").env("NOTIFY_SOCKET", name).start();
        let gateway = supervisor.wait_started();
        scene.diary().wait_requests(gateway.pid, 10);
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        let warnings = warnings(&supervisor);
        assert!(warnings.len() == 1 && warnings[0].contains("NOTIFY_SOCKET="), "{name}: {}", supervisor.story());
    }
}

#[test]
fn neither_the_gateway_nor_a_hook_is_given_the_socket() {
    let scene = Scene::new("healthy");
    let ear = Ear::path(&scene);
    let given = "env > given-$OPENCLAW_SUPERVISE_GENERATION";
    let launch = with_watchdog(ear.launch(&scene), "60000000").option("--pre-start", given);
    let mut supervisor = launch.option("--post-stop", "env > given-post").start();
    let gateway = supervisor.wait_started();
    let environment = scene.diary().environment(gateway.pid);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    for name in ["NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"] {
        assert!(!environment.contains_key(name), "the gateway has {name}");
        for hook in ["given-1", "given-post"] {
            let given = fs::read_to_string(scene.root().join(hook)).unwrap();
            assert!(!given.lines().any(|line| line.starts_with(&format!("{name}="))), "{hook} has {name}");
        }
    }
}
