//! With a socket and a clock of the test.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// A manager's socket, under an abstract name.
struct FakeManager(UnixDatagram, String);

impl FakeManager {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("@notify-test-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        Self(Self::bind(&name), name)
    }

    fn bind(name: &str) -> UnixDatagram {
        let socket = UnixDatagram::bind_addr(&address(OsStr::new(name)).unwrap()).unwrap();
        socket.set_nonblocking(true).unwrap();
        socket
    }

    fn manager(&self, watchdog: Option<Duration>) -> Notifier {
        Notifier::open(OsStr::new(&self.1), watchdog)
    }

    /// The lines of the next datagram.
    fn received(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let Ok(length) = self.0.recv(&mut bytes) else { return vec![] };
        String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned).collect()
    }
}

/// Late enough for the kernel's clock to have started.
fn at(seconds: u64) -> Moment {
    clock::now() + Duration::from_secs(1000 + seconds)
}

fn turn(manager: &mut Notifier, now: Moment, status: &str) {
    manager.turn(now, false, || status.to_owned());
}

const EXTEND: &str = "EXTEND_TIMEOUT_USEC=30000000";

#[test]
fn each_turn_sends_only_what_is_new_in_one_datagram() {
    let (fake, now) = (FakeManager::new(), at(0));
    let mut manager = fake.manager(None);
    turn(&mut manager, now, "booting");
    assert_eq!(fake.received(), ["STATUS=booting", EXTEND]);
    assert_eq!(manager.deadline(), Some(now + EXTEND_SOON));
    turn(&mut manager, now + EXTEND_SOON / 2, "booting");
    assert_eq!(fake.received(), [""; 0]);
    manager.queue(Notice::Ready);
    turn(&mut manager, now + EXTEND_EVERY, "serves");
    assert_eq!(fake.received(), ["READY=1", "STATUS=serves"]);
    assert_eq!(manager.deadline(), None);
    turn(&mut manager, now + EXTEND_EVERY * 9, "serves");
    assert_eq!(fake.received(), [""; 0]);
    // Ready again with a second gateway, although the status has not changed.
    manager.queue(Notice::Ready);
    turn(&mut manager, now + EXTEND_EVERY * 9, "serves");
    assert_eq!(fake.received(), ["READY=1"]);
    manager.queue(Notice::Stopping);
    turn(&mut manager, now + EXTEND_EVERY * 9, "is being ended");
    assert_eq!(fake.received(), ["STOPPING=1", "STATUS=is being ended", EXTEND]);
    manager.notify_stopping("stopped\nMAINPID=1");
    assert_eq!(fake.received(), ["STOPPING=1", "STATUS=stopped MAINPID=1"]);
}

#[test]
fn the_timeout_is_extended_soon_after_a_change_and_then_at_a_steady_pace() {
    let (fake, mut now) = (FakeManager::new(), at(0));
    let mut manager = fake.manager(None);
    for change in [None, Some(Notice::Reloading), Some(Notice::Stopping)] {
        if let Some(notice) = change {
            manager.queue(notice);
        }
        let mut pauses = Vec::new();
        for _ in 0..7 {
            turn(&mut manager, now, "");
            assert_eq!(fake.received().pop().as_deref(), Some(EXTEND), "{change:?}");
            pauses.push(manager.deadline().unwrap().saturating_sub(now).as_millis());
            now = manager.deadline().unwrap();
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000], "{change:?}");
    }
}

#[test]
fn a_reload_carries_the_monotonic_clock_of_the_kernel() {
    let fake = FakeManager::new();
    let mut manager = fake.manager(None);
    manager.queue(Notice::Reloading);
    let now = clock::now();
    turn(&mut manager, now, "x");
    let received = fake.received();
    assert_eq!([&received[0], &received[2], &received[3]], ["RELOADING=1", "STATUS=x", EXTEND]);
    let usec: u64 = received[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
    let kernel = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap();
    let apart = kernel.abs_diff(Duration::from_micros(usec));
    assert!(apart < Duration::from_secs(5), "{apart:?}");
}

#[test]
fn the_watchdog_is_fed_after_a_third_of_its_period_and_wakes_us_after_half() {
    let (fake, now) = (FakeManager::new(), at(0));
    let mut manager = fake.manager(Some(Duration::from_secs(30)));
    manager.queue(Notice::Ready);
    turn(&mut manager, now, "");
    assert_eq!(fake.received(), ["READY=1", "WATCHDOG=1"]);
    for (seconds, received, wake) in [(9, "", 15), (10, "WATCHDOG=1", 25), (19, "", 25), (25, "WATCHDOG=1", 40)] {
        turn(&mut manager, now + Duration::from_secs(seconds), "");
        assert_eq!(fake.received().concat(), received, "after {seconds} s");
        assert_eq!(manager.deadline(), Some(now + Duration::from_secs(wake)), "after {seconds} s");
    }
}

#[test]
fn an_overdue_core_neither_feeds_the_watchdog_nor_extends_the_timeout() {
    let (fake, now) = (FakeManager::new(), at(0));
    let mut manager = fake.manager(Some(Duration::from_secs(3)));
    manager.turn(now, true, || "booting".to_owned());
    assert_eq!(fake.received(), ["STATUS=booting"]);
    // The core's own deadline wakes us; ours would be in the past.
    assert_eq!(manager.deadline(), None);
    manager.turn(now + Duration::from_mins(1), true, || "booting".to_owned());
    assert_eq!(fake.received(), [""; 0]);
    turn(&mut manager, now + Duration::from_mins(1), "booting");
    assert_eq!(fake.received(), [EXTEND, "WATCHDOG=1"]);
}

#[test]
fn a_failed_send_is_retried_at_a_bounded_pace() {
    let (fake, mut now) = (FakeManager::new(), at(0));
    let name = fake.1.clone();
    let mut manager = fake.manager(None);
    drop(fake);
    manager.queue(Notice::Ready);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        turn(&mut manager, now, "serves");
        let wake = manager.deadline().unwrap();
        pauses.push(wake.saturating_sub(now));
        // No retry in between, however often we wake.
        turn(&mut manager, now + Duration::from_millis(1), "serves");
        assert_eq!(manager.deadline(), Some(wake));
        now = wake;
    }
    assert_eq!((pauses[0], pauses[1], pauses[9]), (RETRY_MIN, RETRY_MIN * 2, RETRY_MAX));
    let fake = FakeManager(FakeManager::bind(&name), name);
    turn(&mut manager, now, "serves");
    assert_eq!(fake.received(), ["READY=1", "STATUS=serves"]);
    assert_eq!(manager.deadline(), None);
}

#[test]
fn a_full_queue_blocks_nothing_and_the_rest_is_sent_when_there_is_room() {
    let (fake, mut now) = (FakeManager::new(), at(0));
    let mut manager = fake.manager(Some(Duration::from_secs(1)));
    // One datagram per turn, until the queue is full.
    let mut number = 0;
    let is_full = |manager: &Notifier| matches!(manager.0.as_ref().unwrap().delivery, Delivery::Failing { .. });
    while !is_full(&manager) {
        number += 1;
        assert!(number < 100_000, "the queue is never full");
        turn(&mut manager, now, &number.to_string());
    }
    manager.queue(Notice::Ready);
    for _ in 0..6 {
        now = manager.deadline().unwrap();
        turn(&mut manager, now, "serves");
    }
    // The backoff leaves time for the watchdog.
    assert!(manager.deadline().unwrap().saturating_sub(now) <= Duration::from_millis(334));
    while !fake.received().is_empty() {}
    now = manager.deadline().unwrap();
    turn(&mut manager, now, "serves");
    assert_eq!(fake.received(), ["READY=1", "STATUS=serves", "WATCHDOG=1"]);
}

#[test]
fn a_malformed_name_is_ignored() {
    let long = format!("/{}", "x".repeat(200));
    for name in ["relative/path", "@", "vsock:2:1234", long.as_str()] {
        let mut manager = Notifier::open(OsStr::new(name), Some(Duration::from_secs(1)));
        manager.queue(Notice::Ready);
        manager.turn(at(0), false, || panic!("no status is needed"));
        manager.notify_stopping("ended");
        assert_eq!(manager.deadline(), None, "{name}");
    }
}

#[test]
fn a_long_status_fits_into_one_datagram() {
    let fake = FakeManager::new();
    fake.manager(None).notify_stopping(&"\u{20ac}".repeat(5000));
    let received = fake.received();
    assert_eq!(received.len(), 2, "{received:?}");
    assert!(
        received[1].len() <= STATUS_BYTES_MAX + "STATUS=".len() && received[1].ends_with('\u{20ac}'),
        "{received:?}"
    );
    fake.manager(None).notify_status("a\nb");
    assert_eq!(fake.received(), ["STATUS=a b"]);
}
