//! Against a socket of our own, under a clock of our own.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

/// A manager's socket under an abstract name, which the kernel frees with it.
struct Ear(UnixDatagram, String);

impl Ear {
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

    fn manager(&self, watchdog: Option<Duration>) -> Manager {
        Manager::open(OsStr::new(&self.1), watchdog)
    }

    /// The next datagram, if there is one, as its lines.
    fn heard(&self) -> Vec<String> {
        let mut bytes = [0; 4096];
        let Ok(length) = self.0.recv(&mut bytes) else { return vec![] };
        String::from_utf8_lossy(&bytes[..length]).lines().map(str::to_owned).collect()
    }
}

/// Moments begin late enough for the kernel's clock to have begun.
fn at(seconds: u64) -> Moment {
    clock::now() + Duration::from_secs(1000 + seconds)
}

fn turn(manager: &mut Manager, now: Moment, status: &str) {
    manager.turn(now, false, || status.to_owned());
}

const EXTEND: &str = "EXTEND_TIMEOUT_USEC=30000000";

#[test]
fn each_turn_says_what_is_new_in_one_datagram_and_nothing_else() {
    let (ear, now) = (Ear::new(), at(0));
    let mut manager = ear.manager(None);
    turn(&mut manager, now, "booting");
    assert_eq!(ear.heard(), ["STATUS=booting", EXTEND]);
    assert_eq!(manager.deadline(), Some(now + EXTEND_SOON));
    turn(&mut manager, now + EXTEND_SOON / 2, "booting");
    assert_eq!(ear.heard(), [""; 0]);
    manager.tell(Notice::Ready);
    turn(&mut manager, now + EXTEND_EVERY, "serves");
    assert_eq!(ear.heard(), ["READY=1", "STATUS=serves"]);
    assert_eq!(manager.deadline(), None);
    turn(&mut manager, now + EXTEND_EVERY * 9, "serves");
    assert_eq!(ear.heard(), [""; 0]);
    // A second gateway is told of although nothing else has changed.
    manager.tell(Notice::Ready);
    turn(&mut manager, now + EXTEND_EVERY * 9, "serves");
    assert_eq!(ear.heard(), ["READY=1"]);
    manager.tell(Notice::Stopping);
    turn(&mut manager, now + EXTEND_EVERY * 9, "is being ended");
    assert_eq!(ear.heard(), ["STOPPING=1", "STATUS=is being ended", EXTEND]);
    manager.leave("stopped\nMAINPID=1");
    assert_eq!(ear.heard(), ["STOPPING=1", "STATUS=stopped MAINPID=1"]);
}

#[test]
fn more_time_is_asked_for_soon_after_a_change_and_then_at_a_steady_pace() {
    let (ear, mut now) = (Ear::new(), at(0));
    let mut manager = ear.manager(None);
    for change in [None, Some(Notice::Reloading), Some(Notice::Stopping)] {
        if let Some(notice) = change {
            manager.tell(notice);
        }
        let mut pauses = Vec::new();
        for _ in 0..7 {
            turn(&mut manager, now, "");
            assert_eq!(ear.heard().pop().as_deref(), Some(EXTEND), "{change:?}");
            pauses.push(manager.deadline().unwrap().saturating_sub(now).as_millis());
            now = manager.deadline().unwrap();
        }
        assert_eq!(pauses, [500, 1000, 2000, 4000, 8000, 10_000, 10_000], "{change:?}");
    }
}

#[test]
fn a_reload_bears_the_time_of_the_kernel() {
    let ear = Ear::new();
    let mut manager = ear.manager(None);
    manager.tell(Notice::Reloading);
    let now = clock::now();
    turn(&mut manager, now, "x");
    let heard = ear.heard();
    assert_eq!([&heard[0], &heard[2], &heard[3]], ["RELOADING=1", "STATUS=x", EXTEND]);
    let usec: u64 = heard[1].strip_prefix("MONOTONIC_USEC=").unwrap().parse().unwrap();
    let kernel = nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap();
    let apart = kernel.abs_diff(Duration::from_micros(usec));
    assert!(apart < Duration::from_secs(5), "{apart:?}");
}

#[test]
fn a_sign_of_life_goes_out_after_a_third_of_its_period_and_is_waited_for_until_half() {
    let (ear, now) = (Ear::new(), at(0));
    let mut manager = ear.manager(Some(Duration::from_secs(30)));
    manager.tell(Notice::Ready);
    turn(&mut manager, now, "");
    assert_eq!(ear.heard(), ["READY=1", "WATCHDOG=1"]);
    for (seconds, heard, wake) in [(9, "", 15), (10, "WATCHDOG=1", 25), (19, "", 25), (25, "WATCHDOG=1", 40)] {
        turn(&mut manager, now + Duration::from_secs(seconds), "");
        assert_eq!(ear.heard().concat(), heard, "after {seconds} s");
        assert_eq!(manager.deadline(), Some(now + Duration::from_secs(wake)), "after {seconds} s");
    }
}

#[test]
fn who_is_overdue_gives_no_sign_of_life_and_asks_for_no_time() {
    let (ear, now) = (Ear::new(), at(0));
    let mut manager = ear.manager(Some(Duration::from_secs(3)));
    manager.turn(now, true, || "booting".to_owned());
    assert_eq!(ear.heard(), ["STATUS=booting"]);
    // The core's own deadline wakes us; ours would be in the past.
    assert_eq!(manager.deadline(), None);
    manager.turn(now + Duration::from_mins(1), true, || "booting".to_owned());
    assert_eq!(ear.heard(), [""; 0]);
    turn(&mut manager, now + Duration::from_mins(1), "booting");
    assert_eq!(ear.heard(), [EXTEND, "WATCHDOG=1"]);
}

#[test]
fn what_did_not_go_out_is_told_later_at_a_bounded_pace() {
    let (ear, mut now) = (Ear::new(), at(0));
    let name = ear.1.clone();
    let mut manager = ear.manager(None);
    drop(ear);
    manager.tell(Notice::Ready);
    let mut pauses = Vec::new();
    for _ in 0..10 {
        turn(&mut manager, now, "serves");
        let wake = manager.deadline().unwrap();
        pauses.push(wake.saturating_sub(now));
        // In between nothing is tried, however often we wake.
        turn(&mut manager, now + Duration::from_millis(1), "serves");
        assert_eq!(manager.deadline(), Some(wake));
        now = wake;
    }
    assert_eq!((pauses[0], pauses[1], pauses[9]), (RETRY_MIN, RETRY_MIN * 2, RETRY_MAX));
    let ear = Ear(Ear::bind(&name), name);
    turn(&mut manager, now, "serves");
    assert_eq!(ear.heard(), ["READY=1", "STATUS=serves"]);
    assert_eq!(manager.deadline(), None);
}

#[test]
fn a_full_queue_blocks_nothing_and_what_it_had_no_room_for_is_told_when_it_has() {
    let (ear, mut now) = (Ear::new(), at(0));
    let mut manager = ear.manager(Some(Duration::from_secs(1)));
    // One datagram for each turn, until the kernel takes no more.
    let mut number = 0;
    let is_full = |manager: &Manager| matches!(manager.0.as_ref().unwrap().trouble, Trouble::Present { .. });
    while !is_full(&manager) {
        number += 1;
        assert!(number < 100_000, "the queue is never full");
        turn(&mut manager, now, &number.to_string());
    }
    manager.tell(Notice::Ready);
    for _ in 0..6 {
        now = manager.deadline().unwrap();
        turn(&mut manager, now, "serves");
    }
    // A watchdog is not let down by the pause.
    assert!(manager.deadline().unwrap().saturating_sub(now) <= Duration::from_millis(334));
    while !ear.heard().is_empty() {}
    now = manager.deadline().unwrap();
    turn(&mut manager, now, "serves");
    assert_eq!(ear.heard(), ["READY=1", "STATUS=serves", "WATCHDOG=1"]);
}

#[test]
fn a_name_of_another_shape_is_nobody() {
    let long = format!("/{}", "x".repeat(200));
    for name in ["relative/path", "@", "vsock:2:1234", long.as_str()] {
        let mut manager = Manager::open(OsStr::new(name), Some(Duration::from_secs(1)));
        manager.tell(Notice::Ready);
        manager.turn(at(0), false, || panic!("nobody wants a sentence"));
        manager.leave("ended");
        assert_eq!(manager.deadline(), None, "{name}");
    }
}

#[test]
fn the_last_words_fit_into_one_datagram() {
    let ear = Ear::new();
    ear.manager(None).leave(&"\u{20ac}".repeat(5000));
    let heard = ear.heard();
    assert_eq!(heard.len(), 2, "{heard:?}");
    assert!(heard[1].len() <= STATUS_BYTES_MAX + "STATUS=".len() && heard[1].ends_with('\u{20ac}'), "{heard:?}");
    ear.manager(None).explain("a\nb");
    assert_eq!(ear.heard(), ["STATUS=a b"]);
}
