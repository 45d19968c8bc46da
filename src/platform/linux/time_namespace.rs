//! Our time namespace, see `time_namespaces(7)`: its clocks since boot, and the start times that `/proc` shows in it, are
//! ahead of the machine's by a constant. Without it a process is named as in every other time namespace.

use std::fs;
use std::sync::OnceLock;
use std::time::Duration;

/// How far clocks are ahead, in nanoseconds.
#[derive(Debug, Default)]
struct Offsets {
    monotonic: i64,
    boot: i64,
}

/// Constant: no process enters another time namespace but by an execve(2) or as a child.
fn offsets() -> &'static Offsets {
    static OFFSETS: OnceLock<Offsets> = OnceLock::new();
    // Before Linux 5.6 there are none.
    OFFSETS.get_or_init(|| fs::read_to_string("/proc/self/timens_offsets").map(|text| parse(&text)).unwrap_or_default())
}

/// Lines of a clock, seconds and nanoseconds.
fn parse(text: &str) -> Offsets {
    let of = |clock: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(clock));
        let mut numbers = line.unwrap_or_default().split_ascii_whitespace().map(|word| word.parse().unwrap_or(0));
        let (seconds, nanoseconds): (i64, i64) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        seconds.saturating_mul(1_000_000_000).saturating_add(nanoseconds)
    };
    Offsets { monotonic: of("monotonic"), boot: of("boottime") }
}

/// A reading of `CLOCK_MONOTONIC`, as the machine has it.
pub(in crate::platform) fn monotonic_of_machine(reading: Duration) -> Duration {
    back(reading, offsets().monotonic)
}

/// A reading of `CLOCK_BOOTTIME`, as the machine has it.
pub(in crate::platform) fn boot_of_machine(reading: Duration) -> Duration {
    back(reading, offsets().boot)
}

fn back(reading: Duration, offset: i64) -> Duration {
    let by = Duration::from_nanos(offset.unsigned_abs());
    if offset < 0 { reading.saturating_add(by) } else { reading.saturating_sub(by) }
}

/// A start time of `/proc/PID/stat` in ticks, as the machine has it.
pub(super) fn start_of_machine(ticks: u64) -> u64 {
    // SAFETY: sysconf(3) takes a number and touches nothing.
    let hertz = || unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    match offsets().boot {
        0 => ticks,
        offset => ticks.saturating_add_signed(-(offset / (1_000_000_000 / hertz().max(1)))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_offsets_are_read_with_their_signs() {
        let offsets = parse("monotonic           3  500000000\nboottime          -86400         0\n");
        assert_eq!((offsets.monotonic, offsets.boot), (3_500_000_000, -86_400_000_000_000));
        assert_eq!(back(Duration::from_secs(5), offsets.monotonic), Duration::from_millis(1500));
        assert_eq!(back(Duration::from_secs(5), offsets.boot), Duration::from_secs(86_405));
        assert_eq!(parse("").boot, 0);
    }
}
