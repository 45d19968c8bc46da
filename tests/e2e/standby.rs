//! A supervisor in standby is idle while the owner lives, and takes over once no owner was seen for 15 s.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "a take-over is timed by the clock")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use support::process::Process;
use support::supervisor::{Said, Supervisor};
use support::{Scene, let_pass};

/// How long no owner must have been seen, and what a loaded machine may add.
const QUIET: std::ops::Range<Duration> = Duration::from_secs(15)..Duration::from_secs(25);

/// Starts a supervisor and waits until it stands by.
fn stand_by(scene: &Scene) -> Supervisor {
    let mut standby = scene.launch().option("--on-conflict", "standby").start();
    // Longer than the default of these tests.
    standby.patience = Duration::from_secs(45);
    standby.wait_event("standby.entered");
    standby
}

fn expect_takeover(standby: &mut Supervisor, since: Instant) {
    let left = standby.wait_event("standby.left");
    standby.assert_took("the take-over", left.seen.duration_since(since), &QUIET);
}

/// Voluntary context switches of all threads of a process: at least one a wake-up.
fn wake_ups(pid: i32) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("it lives").flatten();
    let count = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"))?;
        line.trim().parse::<u64>().ok()
    };
    tasks.filter_map(count).sum()
}

fn assert_asleep(standby: &Supervisor) {
    let before = wake_ups(standby.pid());
    let_pass(Duration::from_secs(3));
    let more = wake_ups(standby.pid()) - before;
    // A look is one or, on a loaded machine, a few; one that polled would wake up tens of times.
    assert!(more <= 5, "{more} wake-ups in 3 s\n{}", standby.story());
}

#[test]
fn it_sleeps_while_the_owner_lives_and_ends_when_asked_to() {
    let scene = Scene::new("healthy");
    let mut owner = scene.start();
    let gateway = owner.wait_started();
    let mut standby = stand_by(&scene);
    let why = standby.last("standby.entered");
    assert!(why.text("why").contains(&format!("pid {}", owner.pid())), "{}", why.value());
    // Not to be asserted at once: it may still be writing that line.
    let_pass(Duration::from_millis(500));
    assert_asleep(&standby);
    // Asked for a gateway it looks again, and finds the owner.
    standby.signal(Signal::SIGHUP);
    standby.wait_event("standby.left");
    standby.wait_event("standby.entered");
    standby.signal(Signal::SIGTERM);
    standby.expect_exit(0);
    assert!(gateway.is_alive() && scene.diary().signals(gateway.pid).is_empty());
    assert_eq!(scene.diary().starts().len(), 1);
    assert_eq!(standby.count("lease.released"), 0, "it had none\n{}", standby.story());
    // The socket, too, is the owner's.
    Said::by(&scene, &["status"]).expect(0).assert_says(&[&format!("pid {}", owner.pid())]);
}

/// They mostly wait, each for about 20 s.
#[test]
fn it_takes_over_once_no_owner_was_seen_for_so_long() {
    thread::scope(|scope| {
        for case in [
            after_a_stopped_owner_it_starts_one_gateway,
            it_stays_in_standby_while_the_owner_is_restarted,
            after_a_killed_owner_it_adopts_the_gateway,
            of_two_in_standby_one_takes_over_and_the_other_stays,
            it_takes_over_after_a_gateway_without_a_supervisor,
            it_has_a_socket_of_its_own_and_status_shows_it_beside_the_owner,
        ] {
            scope.spawn(case);
        }
    });
}

fn after_a_stopped_owner_it_starts_one_gateway() {
    let scene = Scene::new("healthy");
    let mut owner = scene.start();
    let first = owner.wait_started();
    let mut standby = stand_by(&scene);
    owner.signal(Signal::SIGTERM);
    let since = Instant::now();
    owner.expect_exit(0);
    expect_takeover(&mut standby, since);
    let second = standby.wait_started();
    assert!(!first.is_alive() && second.is_alive());
    assert_eq!(scene.diary().starts().len(), 2);
    assert_eq!(sockets(&scene), Vec::<String>::new(), "it has that of the owner now");
    assert_eq!(standby.last("gateway.started").number("generation"), 2);
    Said::by(&scene, &["status"]).expect(0).assert_says(&[&format!("pid {}", standby.pid())]);
    standby.signal(Signal::SIGTERM);
    standby.expect_exit(0);
    assert!(!second.is_alive());
}

fn it_stays_in_standby_while_the_owner_is_restarted() {
    let scene = Scene::new("healthy");
    let mut owner = scene.start();
    let gateway = owner.wait_started();
    let mut standby = stand_by(&scene);
    for _ in 0..2 {
        owner.signal(Signal::SIGKILL);
        owner.wait_exit();
        owner = scene.start();
        assert_eq!(owner.wait_event("gateway.adopted").process(), gateway);
        // Less than the time that it has: the next owner is behind the last one.
        let_pass(Duration::from_secs(8));
    }
    assert_asleep(&standby);
    assert_eq!(standby.count("standby.left"), 0, "{}", standby.story());
    assert_eq!(scene.diary().starts().len(), 1);
    standby.signal(Signal::SIGTERM);
    standby.expect_exit(0);
}

fn after_a_killed_owner_it_adopts_the_gateway() {
    let scene = Scene::new("healthy");
    let mut owner = scene.start();
    let gateway = owner.wait_started();
    let mut standby = stand_by(&scene);
    let since = Instant::now();
    owner.signal(Signal::SIGKILL);
    owner.wait_exit();
    let told = || Some(Said::by(&scene, &["status", "--json"]).expect(0).json());
    let told = || told().filter(|told| told["next"]["in_ms"].is_u64());
    let told = support::wait_for("the quiet", support::PATIENCE, || standby.story(), told);
    assert_eq!(told["gateway"]["pid"], gateway.pid, "{told:#}");
    // Not the next look, which comes every 3 s.
    assert!(told["next"]["in_ms"].as_u64() > Some(4_000), "{told:#}");
    expect_takeover(&mut standby, since);
    assert_eq!(standby.wait_event("gateway.adopted").process(), gateway);
    scene.diary().wait_requests(gateway.pid, 5);
    assert_eq!(scene.diary().starts().len(), 1);
    standby.signal(Signal::SIGTERM);
    standby.expect_exit(0);
    assert_eq!(scene.processes(), []);
}

fn of_two_in_standby_one_takes_over_and_the_other_stays() {
    let scene = Scene::new("healthy");
    let mut owner = scene.start();
    owner.wait_started();
    let mut both = [stand_by(&scene), stand_by(&scene)];
    let since = Instant::now();
    owner.signal(Signal::SIGTERM);
    owner.expect_exit(0);
    // The look of the later one may find the earlier one in charge already: then it never leaves.
    let took_over = |one: &Supervisor| one.count("gateway.started") == 1;
    let story = || both[0].story() + &both[1].story();
    let look = || both.iter().position(took_over);
    let taker = support::wait_for("one of them to take over", Duration::from_secs(45), story, look);
    both[taker].assert_took("the take-over", since.elapsed(), &QUIET);
    let other = &mut both[1 - taker];
    // It looks every three seconds.
    let_pass(Duration::from_secs(5));
    assert_asleep(other);
    assert_eq!(other.count("gateway.spawned"), 0, "{}", other.story());
    other.signal(Signal::SIGTERM);
    other.expect_exit(0);
    assert_eq!(scene.diary().starts().len(), 2);
}

fn it_takes_over_after_a_gateway_without_a_supervisor() {
    let scene = Scene::new("healthy");
    let mut stranger = scene.stranger("healthy");
    let mut standby = stand_by(&scene);
    assert_eq!(standby.count("lease.acquired"), 1, "{}", standby.story());
    let mut second = scene.start();
    second.expect_exit(78);
    assert_eq!(second.last("conflict.detected").number("holder_pid"), i64::from(standby.pid()));
    let told = Said::by(&scene, &["status", "--json"]).expect(0).json();
    assert_eq!(told["supervisor"]["state"], "standby", "{told:#}");
    assert_eq!(told["lease"]["owner_pid"], standby.pid(), "{told:#}");
    assert_eq!(told["next"]["why"], "a gateway without a supervisor uses the port", "{told:#}");
    assert_eq!(told["probe"]["pid"], stranger.pid(), "{told:#}");
    let_pass(Duration::from_millis(500));
    assert_asleep(&standby);
    assert!(stranger.is_alive() && stranger.diary.signals(stranger.pid()).is_empty());
    let since = Instant::now();
    stranger.end();
    expect_takeover(&mut standby, since);
    let gateway = standby.wait_started();
    assert_eq!(Process::find(gateway.pid), Some(gateway));
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn in_standby_behind_a_gateway_a_request_is_followed_at_once() {
    let scene = Scene::new("healthy");
    let mut stranger = scene.stranger("healthy");
    let mut standby = stand_by(&scene);
    let said = Said::by(&scene, &["retry-now"]).expect(1);
    said.assert_says(&[&format!("pid {}", stranger.pid())]);
    assert!(said.took < Duration::from_secs(3), "{said}");
    standby.wait_event("standby.entered");
    assert!(stranger.is_alive() && stranger.diary.signals(stranger.pid()).is_empty());
    stranger.end();
    // A request does not wait for an owner that might come back.
    let said = Said::by(&scene, &["retry-now"]).expect(0);
    said.assert_says(&["gateway 1 was started"]);
    assert!(said.took < Duration::from_secs(3), "{said}");
    standby.wait_started();
    standby.signal(Signal::SIGTERM);
    standby.expect_exit(0);
}

#[test]
fn in_standby_behind_a_gateway_a_stop_leaves_that_one_alone() {
    let scene = Scene::new("healthy");
    let mut stranger = scene.stranger("healthy");
    let mut standby = stand_by(&scene);
    Said::by(&scene, &["stop"]).expect(0);
    standby.expect_exit(0);
    assert!(stranger.is_alive() && stranger.diary.signals(stranger.pid()).is_empty());
}

/// The files of the sockets of supervisors in standby.
fn sockets(scene: &Scene) -> Vec<String> {
    let names = fs::read_dir(scene.store_dir()).expect("the store is there").flatten();
    let names = names.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with("standby-")).collect()
}

fn it_has_a_socket_of_its_own_and_status_shows_it_beside_the_owner() {
    let scene = Scene::new("healthy");
    let mut owner = scene.start();
    let gateway = owner.wait_started();
    let mut killed = stand_by(&scene);
    let is_there = |count| move |scene: &Scene| (sockets(scene).len() == count).then_some(());
    support::wait_for("its socket", support::PATIENCE, || killed.story(), || is_there(1)(&scene));
    killed.signal(Signal::SIGKILL);
    killed.wait_exit();
    let stale = sockets(&scene);
    let mut standby = stand_by(&scene);
    let told = || Said::by(&scene, &["status", "--json"]).expect(0).json();
    let told = support::wait_for(
        "its socket",
        support::PATIENCE,
        || standby.story(),
        || Some(told()).filter(|told| told["standbys"][0]["pid"] == standby.pid()),
    );
    assert!(sockets(&scene).len() == 1 && sockets(&scene) != stale, "{stale:?} was left by the one that was killed");
    assert_eq!(told["supervisor"]["pid"], owner.pid(), "{told:#}");
    let shown = &told["standbys"][0];
    assert_eq!((&shown["state"], &shown["owner_pid"]), (&"standby".into(), &owner.pid().into()), "{told:#}");
    let said = Said::by(&scene, &["status"]).expect(0);
    let row = format!("standby     pid {}", standby.pid());
    said.assert_says(&[&row, &format!("another supervisor holds the lease (pid {})", owner.pid())]);
    // It looks for its socket, as the owner does for its own.
    fs::remove_file(scene.store_dir().join(&sockets(&scene)[0])).expect("it is there");
    support::wait_for("its socket", Duration::from_secs(30), || standby.story(), || is_there(1)(&scene));
    Said::by(&scene, &["status"]).expect(0).assert_says(&[&row]);
    // Without an owner on its socket it is there all the same.
    fs::remove_file(scene.store_dir().join("control.sock")).expect("the owner has one");
    Said::by(&scene, &["status"]).expect(0).assert_says(&[&row]);
    assert!(Said::by(&scene, &["probe", "--supervised"]).out.contains("standby"));
    standby.signal(Signal::SIGTERM);
    standby.expect_exit(0);
    assert_eq!(sockets(&scene), Vec::<String>::new());
    assert!(gateway.is_alive());
}

#[test]
fn with_a_store_of_its_own_it_says_who_owns_the_port() {
    let scene = Scene::new("healthy");
    let mut owner = scene.start();
    let gateway = owner.wait_started();
    let other = scene.root().join("other").display().to_string();
    let mut standby = scene.launch().option("--state-dir", &other).option("--on-conflict", "standby").start();
    standby.wait_event("standby.entered");
    let told = || Said::by(&scene, &["status", "--state-dir", &other, "--json"]);
    let told = support::wait_for(
        "its socket",
        support::PATIENCE,
        || standby.story(),
        || Some(told().json()).filter(|told| told["supervisor"]["pid"] == standby.pid()),
    );
    assert_eq!((&told["supervisor"]["state"], &told["health"]), (&"standby".into(), &"healthy".into()), "{told:#}");
    assert_eq!((&told["lease"]["held"], &told["lease"]["owner_pid"]), (&true.into(), &owner.pid().into()), "{told:#}");
    assert_eq!(told["probe"]["pid"], gateway.pid, "the port is that of the standby: {told:#}");
    let said = Said::by(&scene, &["stop", "--state-dir", &other]).expect(1);
    said.assert_says(&[&format!("in standby (pid {})", standby.pid())]);
    Said::by(&scene, &["probe", "--supervised", "--state-dir", &other]).expect(0);
    standby.signal(Signal::SIGTERM);
    standby.expect_exit(0);
    assert!(gateway.is_alive());
}
