//! The clocks: monotonic for decisions, boot time to detect a suspend, wall clock for timestamps only.

use crate::core::Moment;
use crate::platform::clock;
use std::time::Duration;

/// Detects a suspend.
#[derive(Debug)]
pub struct SuspendClock {
    /// Total time suspended since boot.
    suspended: Duration,
}

impl SuspendClock {
    #[must_use]
    pub fn new() -> Self {
        Self { suspended: suspended() }
    }

    /// How long the machine was suspended since the last call that told, if that is at least `least`. Less is kept until
    /// then: many short suspends add up.
    pub fn slept(&mut self, least: Duration) -> Option<Duration> {
        let by = suspended().saturating_sub(self.suspended);
        let is_enough = by >= least;
        if is_enough {
            self.suspended += by;
        }
        is_enough.then_some(by)
    }
}

impl Default for SuspendClock {
    fn default() -> Self {
        Self::new()
    }
}

/// Offset of [`now`], so that times before the boot, which the store holds, have a moment too.
const ORIGIN: Duration = Duration::from_hours(24 * 365 * 10);

/// The monotonic time, without suspends.
#[must_use]
pub fn now() -> Moment {
    ORIGIN + clock::monotonic()
}

/// A moment on the kernel's own clock.
#[must_use]
pub fn of_the_kernel(moment: Moment) -> Duration {
    moment.saturating_sub(ORIGIN)
}

/// The time since boot, with suspends.
#[must_use]
pub fn since_boot() -> Duration {
    clock::boot()
}

/// The wall clock in milliseconds since 1970.
#[must_use]
pub fn wall_ms() -> i64 {
    i64::try_from(clock::wall().as_millis()).unwrap_or(i64::MAX)
}

/// The wall clock at a moment, as far as the present one tells. `now` and `now_ms` are one reading of both clocks.
#[must_use]
pub fn wall_of(moment: Moment, now: Moment, now_ms: i64) -> i64 {
    let ago = now.saturating_sub(moment).as_millis();
    now_ms.saturating_sub(i64::try_from(ago).unwrap_or(i64::MAX))
}

/// The wall clock since 1970.
#[must_use]
pub fn wall() -> Duration {
    clock::wall()
}

/// The wall clock as RFC 3339 in UTC with milliseconds.
#[must_use]
pub fn stamp() -> String {
    stamp_of(wall_ms())
}

/// A time in the form of [`stamp`].
#[must_use]
pub fn stamp_of(wall_ms: i64) -> String {
    format!("{:.3}", jiff::Timestamp::from_millisecond(wall_ms).unwrap_or_default())
}

/// The time of day in so long, for people.
#[must_use]
pub fn time_in(within: Duration) -> String {
    let at = wall_ms().saturating_add(i64::try_from(within.as_millis()).unwrap_or(i64::MAX));
    let stamp = stamp_of(at);
    format!("{} UTC", stamp.get(11..19).unwrap_or(&stamp))
}

/// The time that a [`stamp`] names.
#[must_use]
pub fn wall_ms_of(stamp: &str) -> Option<i64> {
    stamp.parse::<jiff::Timestamp>().ok().map(jiff::Timestamp::as_millisecond)
}

fn suspended() -> Duration {
    since_boot().saturating_sub(clock::monotonic())
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
    fn the_monotonic_clock_never_goes_back_and_no_suspend_is_detected_without_one() {
        let before = now();
        assert!(now() >= before);
        assert_eq!(SuspendClock::new().slept(Duration::from_millis(100)), None);
    }
}
