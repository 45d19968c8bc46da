//! Timestamps that mean something to a later process and after a reboot.

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

    #[test]
    fn the_clocks_of_the_system_run() {
        let clocks = Clocks::system();
        let before = clocks.now();
        assert!((0..10_000).contains(&((clocks.boot)() - before.boot_ms.unwrap())));
        assert_eq!(before.before(Duration::from_secs(1)).wall_ms, before.wall_ms - 1000);
    }
}
