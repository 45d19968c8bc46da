//! Crash points for the tests: `OPENCLAW_SUPERVISE_TEST_KILL_AT=n` ends this process with SIGKILL at its n-th crash
//! point, `Requested+n` at the n-th one from the first event of that name on. There is one before each effect, one
//! before each spawn and one right after it. Only builds with the core's feature `planted-faults` have them.

use crate::core::Event;
use crate::core::fault::PLANTED;
use rustix::process::{Signal, getpid, kill_process};
use std::cell::RefCell;

/// What is ahead.
#[derive(Debug, PartialEq, Eq)]
enum Countdown {
    /// Nothing was requested.
    Off,
    /// So many points from the first event of that name on.
    Waiting { event: String, points: u64 },
    /// So many points from here on.
    Running { points: u64 },
}

thread_local! {
    /// The loop is one thread.
    static COUNTDOWN: RefCell<Countdown> =
        RefCell::new(parse(&std::env::var("OPENCLAW_SUPERVISE_TEST_KILL_AT").unwrap_or_default()));
}

fn parse(text: &str) -> Countdown {
    let (event, number) = text.split_once('+').unwrap_or(("", text));
    match number.parse() {
        Ok(points) if event.is_empty() => Countdown::Running { points },
        Ok(points) => Countdown::Waiting { event: event.to_owned(), points },
        Err(_) => Countdown::Off,
    }
}

/// An event is about to be handled.
pub(super) fn see(event: &Event) {
    if !PLANTED {
        return;
    }
    COUNTDOWN.with_borrow_mut(|countdown| {
        if let Countdown::Waiting { event: name, points } = countdown
            && format!("{event:?}").starts_with(name.as_str())
        {
            *countdown = Countdown::Running { points: *points };
        }
    });
}

/// The process may be killed here.
pub(super) fn pass() {
    if !PLANTED {
        return;
    }
    COUNTDOWN.with_borrow_mut(|countdown| match countdown {
        Countdown::Running { points: 0 | 1 } => {
            // It cannot fail on oneself.
            let _dead = kill_process(getpid(), Signal::KILL);
        }
        Countdown::Running { points } => *points -= 1,
        Countdown::Off | Countdown::Waiting { .. } => {}
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_are_counted_from_the_start_or_from_an_event_on() {
        assert_eq!(parse("7"), Countdown::Running { points: 7 });
        assert_eq!(parse("Requested+3"), Countdown::Waiting { event: "Requested".to_owned(), points: 3 });
        assert_eq!(parse(""), Countdown::Off);
    }
}
