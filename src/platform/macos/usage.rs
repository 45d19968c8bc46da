//! What a process uses of the machine, through libproc (`libproc.h`, `sys/proc_info.h`).

use super::machine::number_of;
use super::proc::{info, stat};
use std::io;
use std::sync::OnceLock;
use std::time::Duration;

/// One reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Start time of that process, as in [`super::proc::Stat`].
    pub start_time: u64,
    /// CPU time of all its threads: this interface does not say which of them was the first.
    pub cpu: Duration,
    /// Resident memory, in KiB.
    pub rss_kb: u64,
    /// How often it had to wait for a page from a disk.
    pub major_faults: u64,
    /// Not known.
    pub runnable: bool,
}

/// Asks for `PROC_PIDTASKINFO`.
///
/// # Errors
/// ESRCH where it is gone or a zombie; EPERM where it is another user's.
pub fn of(pid: i32) -> io::Result<ProcessUsage> {
    let before = stat(pid)?;
    // SAFETY: it is the struct of this flavor, and plain numbers.
    let task: libc::proc_taskinfo = unsafe { info(pid, libc::PROC_PIDTASKINFO) }?;
    // The flavor does not tell the start time; if it is the same before and after, so was the process.
    if stat(pid)?.start_time != before.start_time {
        return Err(io::Error::from_raw_os_error(libc::ESRCH));
    }
    let cpu = time(task.pti_total_user, task.pti_total_system).ok_or(io::ErrorKind::Unsupported)?;
    Ok(ProcessUsage {
        start_time: before.start_time,
        cpu,
        rss_kb: task.pti_resident_size / 1024,
        major_faults: u64::try_from(task.pti_pageins).unwrap_or(0),
        runnable: false,
    })
}

/// The sum of two amounts of CPU time as libproc tells them: in ticks of the hardware's clock, whatever its headers say.
/// That has 24 MHz on Apple silicon and shows 1 GHz on Intel; `mach_timebase_info` would deny the former to a translated
/// program.
pub(super) fn time(user: u64, system: u64) -> Option<Duration> {
    static FREQUENCY: OnceLock<Option<u64>> = OnceLock::new();
    let frequency = (*FREQUENCY.get_or_init(|| number_of(c"hw.tbfrequency")))?;
    let ticks = user.checked_add(system)?;
    let rest = u128::from(ticks % frequency) * 1_000_000_000 / u128::from(frequency);
    Some(Duration::from_secs(ticks / frequency) + Duration::from_nanos(u64::try_from(rest).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_of_cpu_time_is_known() {
        assert_eq!(time(0, 0), Some(Duration::ZERO));
        let frequency = number_of(c"hw.tbfrequency").unwrap();
        assert_eq!(time(frequency, frequency / 2), Some(Duration::from_millis(1500)));
    }
}
