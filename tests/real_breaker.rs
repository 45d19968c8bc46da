//! The real gateway counts its unclean boots, and comes up with every channel switched off once it finds three of them
//! within 300 s. Its own record of boots shows that it never does under us.
//!
//! The wait that prevents it takes minutes. As part of all tests the record shows when the next boot would be safe, and that
//! we wait at least so long; `BREAKER=wait cargo test --test real_breaker` waits, and has that boot.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use rusqlite::{Connection, OpenFlags};
use std::fs;
use std::time::Duration;
use support::real::RealGateway;
use support::supervisor::{Event, Launch, Supervisor};
use support::{Scene, wait_for};

/// The gateway's window for unclean boots, in milliseconds.
const WINDOW_MS: i64 = 300_000;

/// Within which the three kills have to be, or they would not be what the test is about.
const A_MINUTE_MS: i64 = 60_000;

/// What the record says of a boot that found too many.
const TRIPPED: &str = "gateway.crash_loop_breaker";

/// The same, as it tells its operator.
const TOLD: &str = "restart-loop breaker tripped";

/// Cold disks and busy machines: a boot takes a quarter of a minute where nothing else runs.
const PATIENCE: Duration = Duration::from_mins(4);

/// One boot in the gateway's own record.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Boot {
    pid: i64,
    /// Since 1970.
    started_ms: i64,
    outcome: Option<String>,
    why: Option<String>,
}

/// The gateway's record, oldest first. A copy is read, so that nothing of ours is ever in its way.
fn boots(scene: &Scene) -> Vec<Boot> {
    wait_for("the gateway's record of its boots", PATIENCE, String::new, || read_boots(scene))
}

/// None while it is being written, or not there yet.
fn read_boots(scene: &Scene) -> Option<Vec<Boot>> {
    let copy = scene.root().join("boots");
    fs::create_dir_all(&copy).ok()?;
    for name in ["openclaw.sqlite", "openclaw.sqlite-wal"] {
        let (from, to) = (scene.state_dir().join("state").join(name), copy.join(name));
        if fs::copy(from, &to).is_err() {
            fs::remove_file(&to).ok();
        }
    }
    let base = Connection::open_with_flags(copy.join("openclaw.sqlite"), OpenFlags::SQLITE_OPEN_READ_WRITE).ok()?;
    let sql = "SELECT pid, started_at_ms, outcome, startup_reason FROM gateway_boot_lifecycle ORDER BY started_at_ms";
    let mut select = base.prepare(sql).ok()?;
    let rows = select.query_map([], |row| {
        Ok(Boot { pid: row.get(0)?, started_ms: row.get(1)?, outcome: row.get(2)?, why: row.get(3)? })
    });
    rows.ok()?.collect::<Result<_, _>>().ok()
}

fn launch<'a>(scene: &'a Scene, real: &RealGateway) -> Launch<'a> {
    let words = real.words(scene.port());
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let config = scene.state_dir().join("openclaw.json").display().to_string();
    let mut launch = scene.launch().words(&words).env("OPENCLAW_CONFIG_PATH", &config);
    // The pace that people get.
    for name in ["--backoff-max", "--boot-limit"] {
        launch = launch.without(name);
    }
    launch.option("--hang-after", "1m").option("--startup-timeout", "240s").option("--stop-timeout", "60s")
}

/// Milliseconds since 1970.
fn stamp(event: &Event) -> i64 {
    let at: jiff::Timestamp = event.text("at").parse().expect("a stamp is one of RFC 3339");
    at.as_millisecond()
}

/// When the start that is scheduled will be.
fn due(scheduled: &Event) -> i64 {
    stamp(scheduled) + scheduled.number("delay_ms")
}

/// How many of these boots a gateway that boots then would hold against us.
fn unclean_at(boots: &[Boot], then: i64) -> usize {
    boots.iter().filter(|boot| boot.outcome.is_none() && boot.started_ms >= then - WINDOW_MS).count()
}

#[test]
fn three_kills_within_a_minute_do_not_lead_to_the_breaker_of_the_real_gateway() {
    let real = RealGateway::install();
    let scene = Scene::new("");
    let mut supervisor = launch(&scene, &real).start();
    supervisor.patience = PATIENCE;
    let mut gateway = supervisor.wait_started();
    a_duplicate_leaves_no_boot_behind(&scene, &real);
    let mut kills = Vec::new();
    for start in 1..=3 {
        assert_eq!(boots(&scene).len(), start, "{:?}\n{}", boots(&scene), supervisor.story());
        gateway.kill();
        kills.push(stamp(&supervisor.wait_event("gateway.exited")));
        if start < 3 {
            // Its row is there before its port is open.
            gateway = supervisor.wait_event("gateway.listening").process();
        }
    }
    let took = kills[2] - kills[0];
    assert!(took < A_MINUTE_MS, "three kills in {took} ms: the machine is too busy\n{}", supervisor.story());
    let scheduled = supervisor.wait_event("restart.scheduled");
    let record = boots(&scene);
    assert!(record.iter().all(|boot| boot.outcome.is_none() && boot.why.is_none()), "{record:?}");
    assert_eq!(unclean_at(&record, stamp(&scheduled)), 3, "{record:?}");
    assert!(unclean_at(&record, due(&scheduled)) < 3, "{scheduled:?} comes too early for {record:?}");
    if std::env::var("BREAKER").is_ok_and(|whole| whole == "wait") {
        supervisor.patience = PATIENCE + Duration::from_millis(WINDOW_MS.unsigned_abs());
        supervisor.wait_started();
        let record = boots(&scene);
        assert_eq!((record.len(), record.iter().find(|boot| boot.why.is_some())), (4, None), "{}", supervisor.story());
        assert!(!supervisor.story().contains(TOLD), "{}", supervisor.story());
    } else {
        another_supervisor_waits_as_long(&scene, &real, supervisor, &record);
        without_our_pace_the_breaker_trips(&scene, &real);
    }
}

fn a_duplicate_leaves_no_boot_behind(scene: &Scene, real: &RealGateway) {
    let before = boots(scene);
    let mut second = launch(scene, real).start();
    second.expect_exit(78);
    assert_eq!((boots(scene), second.count("gateway.spawned")), (before, 0), "{}", second.story());
}

/// To end the one that waits and start another is no way around it.
fn another_supervisor_waits_as_long(scene: &Scene, real: &RealGateway, mut first: Supervisor, record: &[Boot]) {
    first.signal(nix::sys::signal::Signal::SIGTERM);
    first.expect_exit(0);
    let mut next = launch(scene, real).start();
    let scheduled = next.wait_event("restart.scheduled");
    assert!(unclean_at(record, due(&scheduled)) < 3, "{scheduled:?} comes too early for {record:?}");
    next.signal(nix::sys::signal::Signal::SIGTERM);
    next.expect_exit(0);
    assert_eq!((boots(scene).as_slice(), next.count("gateway.spawned")), (record, 0), "{}", next.story());
}

/// What is looked for above can be seen.
fn without_our_pace_the_breaker_trips(scene: &Scene, real: &RealGateway) {
    let mut hasty = launch(scene, real).option("--boot-limit", "0").start();
    hasty.patience = PATIENCE;
    hasty.wait_started();
    let record = boots(scene);
    assert_eq!(record.last().and_then(|boot| boot.why.as_deref()), Some(TRIPPED), "{record:?}\n{}", hasty.story());
    assert!(hasty.story().contains(TOLD), "{}", hasty.story());
    hasty.signal(nix::sys::signal::Signal::SIGTERM);
    hasty.expect_exit(0);
}
