//! Timestamps that mean something to a later process and after a reboot.

use crate::core::Moment;
use crate::platform::{clock, machine};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// One moment on two clocks, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Since 1970; this clock may be set.
    pub wall_ms: i64,
    /// Since the boot of its record; never stepped. `None` if it happened after a later boot.
    pub boot_ms: Option<i64>,
}

/// The clocks of the store; tests replace them.
#[derive(Clone)]
pub struct Clocks {
    /// Milliseconds since 1970.
    pub wall: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// Milliseconds since the boot.
    pub boot: Arc<dyn Fn() -> i64 + Send + Sync>,
    /// `None` if the system does not report it.
    pub boot_id: Option<String>,
}

impl fmt::Debug for Clocks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clocks").field("boot_id", &self.boot_id).finish_non_exhaustive()
    }
}

impl Clocks {
    #[must_use]
    pub fn system() -> Self {
        Self {
            wall: Arc::new(|| milliseconds(clock::wall())),
            boot: Arc::new(|| milliseconds(clock::boot())),
            boot_id: machine::boot_id(),
        }
    }

    #[must_use]
    pub fn now(&self) -> Stamp {
        Stamp { wall_ms: (self.wall)(), boot_ms: Some((self.boot)()) }
    }

    /// The age of a stamp in a record of boot `boot_id`: by the boot clock within one boot, else by the wall clock. A stamp
    /// in the future has the age 0, because a wall clock was set back.
    #[must_use]
    pub fn age(&self, stamp: Stamp, boot_id: Option<&str>) -> Duration {
        let same_boot = boot_id.is_some() && boot_id == self.boot_id.as_deref();
        let ms = match stamp.boot_ms.filter(|_| same_boot) {
            Some(boot_ms) => (self.boot)().saturating_sub(boot_ms),
            None => (self.wall)().saturating_sub(stamp.wall_ms),
        };
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }

    pub(super) fn moment(&self, now: Moment, stamp: Stamp, boot_id: Option<&str>) -> Moment {
        now.saturating_sub(self.age(stamp, boot_id))
    }
}

impl Stamp {
    /// The stamp of `age` earlier.
    #[must_use]
    pub fn before(self, age: Duration) -> Self {
        let ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        Self {
            wall_ms: self.wall_ms.saturating_sub(ms),
            boot_ms: self.boot_ms.map(|boot_ms| boot_ms.saturating_sub(ms)),
        }
    }
}

/// A deadline for waiting.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    until: i64,
}

impl Patience {
    pub(super) fn new(wait: Duration) -> Self {
        let ms = i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        Self { until: milliseconds(clock::monotonic()).saturating_add(ms) }
    }

    pub(super) fn left(self) -> Duration {
        let ms = self.until.saturating_sub(milliseconds(clock::monotonic()));
        Duration::from_millis(u64::try_from(ms).unwrap_or(0))
    }

    /// Sleeps for a moment; returns false after the deadline.
    #[expect(clippy::disallowed_methods, reason = "the store's own thread may block")]
    pub(super) fn pause(self, pause: Duration) -> bool {
        let left = self.left();
        std::thread::sleep(pause.min(left));
        !left.is_zero()
    }
}

pub(super) fn milliseconds(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clocks(wall: i64, boot: i64) -> Clocks {
        Clocks { wall: Arc::new(move || wall), boot: Arc::new(move || boot), boot_id: Some("b".to_owned()) }
    }

    #[test]
    fn within_one_boot_a_step_of_the_wall_clock_does_not_matter() {
        let stamp = Stamp { wall_ms: 1_000_000, boot_ms: Some(5_000) };
        for wall in [0, 1_000_000, i64::MAX] {
            assert_eq!(clocks(wall, 6_000).age(stamp, Some("b")), Duration::from_secs(1));
        }
    }

    #[test]
    fn after_a_reboot_the_wall_clock_counts_and_the_future_has_age_0() {
        let stamp = Stamp { wall_ms: 1_000_000, boot_ms: Some(5_000) };
        for (wall, boot_id, age) in
            [(1_003_000, Some("a"), 3_000), (1_003_000, None, 3_000), (0, Some("a"), 0), (i64::MIN, None, 0)]
        {
            assert_eq!(clocks(wall, 9_000_000).age(stamp, boot_id), Duration::from_millis(age), "{wall}");
        }
        let later = Stamp { boot_ms: None, ..stamp };
        assert_eq!(clocks(1_000_001, 0).age(later, Some("b")), Duration::from_millis(1));
        let nonsense = Stamp { wall_ms: i64::MIN, boot_ms: Some(i64::MIN) };
        assert!(clocks(1, 1).age(nonsense, Some("b")) > Duration::from_secs(1));
        assert_eq!(clocks(1, 1).moment(Duration::from_secs(9), nonsense, None), Duration::ZERO);
    }

    #[test]
    fn the_clocks_of_the_system_run() {
        let clocks = Clocks::system();
        let before = clocks.now();
        assert!(clocks.age(before, clocks.boot_id.as_deref()) < Duration::from_secs(10));
        assert_eq!(before.before(Duration::from_secs(1)).wall_ms, before.wall_ms - 1000);
    }
}
