//! The kernel's clocks, see `clock_gettime(2)` of Linux and `clock_gettime(3)` of macOS.

#[cfg(target_os = "linux")]
use super::time_namespace::{boot_of_machine, monotonic_of_machine};
use nix::time::{ClockId, clock_gettime};
#[cfg(not(target_os = "linux"))]
use std::convert::{identity as boot_of_machine, identity as monotonic_of_machine};
use std::time::Duration;

#[cfg(not(target_os = "macos"))]
const CLOCKS: [ClockId; 2] = [ClockId::CLOCK_MONOTONIC, ClockId::CLOCK_BOOTTIME];
#[cfg(target_os = "macos")]
const CLOCKS: [ClockId; 2] = [ClockId::from_raw(libc::CLOCK_UPTIME_RAW), ClockId::from_raw(libc::CLOCK_MONOTONIC_RAW)];

/// The monotonic clock of the machine. It stops during a suspend, as the timers of tokio do.
#[must_use]
pub fn monotonic() -> Duration {
    monotonic_of_machine(read(CLOCKS[0]))
}

/// The time since the machine's boot, suspends included.
#[must_use]
pub fn boot() -> Duration {
    boot_of_machine(read(CLOCKS[1]))
}

/// The wall clock: the time since 1970.
#[must_use]
pub fn wall() -> Duration {
    read(ClockId::CLOCK_REALTIME)
}

fn read(id: ClockId) -> Duration {
    // These clocks exist on every kernel that we run on, and a reading of them never fails or is negative.
    clock_gettime(id).map_or(Duration::ZERO, Duration::from)
}
