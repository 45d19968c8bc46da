//! The clocks: monotonic for decisions, boot time to notice a suspend, wall time for stamps only.

use crate::core::Moment;
use nix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Reads the clocks and remembers how far boot time was ahead of the monotonic one.
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

    /// How long the machine slept since the last call: `CLOCK_BOOTTIME` goes on in a suspend, `CLOCK_MONOTONIC` does
    /// not (`clock_gettime(2)`). Zero on kernels that have only one of them.
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

/// The monotonic time.
#[must_use]
pub fn now() -> Moment {
    read(ClockId::CLOCK_MONOTONIC)
}

/// The wall clock, as RFC 3339 in UTC with milliseconds.
#[must_use]
pub fn stamp() -> String {
    let wall = read(ClockId::CLOCK_REALTIME);
    let stamp = i64::try_from(wall.as_millis()).ok().and_then(|ms| jiff::Timestamp::from_millisecond(ms).ok());
    format!("{:.3}", stamp.unwrap_or_default())
}

#[cfg(target_os = "linux")]
fn ahead() -> Duration {
    read(ClockId::CLOCK_BOOTTIME).saturating_sub(now())
}

#[cfg(not(target_os = "linux"))]
fn ahead() -> Duration {
    Duration::ZERO
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
