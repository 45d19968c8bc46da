//! The clocks: monotonic for decisions, one that goes on in a suspend to notice it, wall time for stamps only.

use crate::core::Moment;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The clock that stands still in a suspend, as the timers of tokio do, and the one that goes on: `clock_gettime(2)` of
/// Linux, `clock_gettime(3)` of macOS.
#[cfg(not(target_os = "macos"))]
const CLOCKS: [ClockId; 2] = [ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_BOOTTIME];
#[cfg(target_os = "macos")]
const CLOCKS: [ClockId; 2] = [ClockId::from_raw(libc::CLOCK_UPTIME_RAW), ClockId::from_raw(libc::CLOCK_MONOTONIC_RAW)];

/// Reads the clocks and remembers how far the second was ahead of the first.
#[derive(Debug)]
pub struct Clock {
    ahead: Duration,
}

impl Clock {
    /// A clock that has not slept yet.
    #[must_use]
    pub fn new() -> Self {
        Self { ahead: ahead() }
    }

    /// How long the machine slept since the last call.
    pub fn slept(&mut self) -> Duration {
        let ahead = ahead();
        let slept = ahead.saturating_sub(self.ahead);
        self.ahead = ahead;
        slept
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

/// Moments begin so long before the machine came up that whatever the store remembers has a moment too.
const ORIGIN: Duration = Duration::from_hours(24 * 365 * 10);

/// The monotonic time, without what the machine slept.
#[must_use]
pub fn now() -> Moment {
    ORIGIN + read(CLOCKS[0])
}

/// A moment as others read it from the kernel's clock.
#[must_use]
pub fn of_the_kernel(moment: Moment) -> Duration {
    moment.saturating_sub(ORIGIN)
}

/// The time since the machine came up, with what it slept.
#[must_use]
pub fn since_boot() -> Duration {
    read(CLOCKS[1])
}

/// The wall clock, as milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> i64 {
    i64::try_from(read(ClockId::CLOCK_REALTIME).as_millis()).unwrap_or(i64::MAX)
}

/// The wall clock, as the time since 1970.
#[must_use]
pub fn wall() -> Duration {
    read(ClockId::CLOCK_REALTIME)
}

/// The wall clock, as RFC 3339 in UTC with milliseconds.
#[must_use]
pub fn stamp() -> String {
    stamp_of(wall_ms())
}

/// A time of the wall clock in the same form.
#[must_use]
pub fn stamp_of(wall_ms: i64) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(wall_ms).unwrap_or_default())
}

fn ahead() -> Duration {
    since_boot().saturating_sub(read(CLOCKS[0]))
}

fn read(id: ClockId) -> Duration {
    // These clocks exist on every kernel that we run on, and a reading of them never fails or is negative.
    clock_gettime(id).map_or(Duration::ZERO, Duration::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stamp_is_rfc_3339_with_milliseconds() {
        let stamp = stamp();
        assert_eq!(stamp.len(), "2026-01-01T00:00:00.000Z".len(), "{stamp}");
        assert!(stamp.parse::<jiff::Timestamp>().is_ok(), "{stamp}");
    }

    #[test]
    fn the_monotonic_clock_goes_forward_and_no_sleep_is_invented() {
        let before = now();
        assert!(now() >= before);
        assert!(Clock::new().slept() < Duration::from_millis(100));
    }
}
