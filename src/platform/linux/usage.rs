//! What a process uses of the machine, see proc(5).

use super::proc::{guarded, path_of};
use super::time_namespace::start_of_machine;
use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

/// More than the first 24 fields of a line can have: a name of 64 bytes and numbers of 20 digits.
const STAT_LENGTH_MAX: usize = 1024;

/// One reading. All of it is of one process: it comes from one read of one file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProcessUsage {
    /// Start time of that process, as in [`super::proc::Stat`].
    pub start_time: u64,
    /// CPU time of its first thread, which runs the event loop of a gateway. It grows by clock ticks, of 10 ms.
    pub cpu: Duration,
    /// Resident memory, in KiB. The kernel counts it for each processor apart and adds that up from time to time, so it
    /// is off by up to some hundred KiB for each. What is exact (`smaps_rollup`) takes long and can be waited for: it
    /// needs the lock of the memory map, which a process that hangs may hold.
    pub rss_kb: u64,
    /// How often that thread had to wait for a page from a disk or from swap.
    pub major_faults: u64,
    /// Whether that thread could run just then.
    pub runnable: bool,
}

/// Reads `/proc/PID/task/PID/stat`. That of the process itself has the CPU time of all its threads.
///
/// # Errors
/// ENOENT or ESRCH if it is gone; EMFILE and the like; `TimedOut` if such a read is stuck.
pub fn of(pid: i32) -> io::Result<ProcessUsage> {
    let mut line = [0; STAT_LENGTH_MAX];
    let path = path_of(pid, &format!("task/{pid}/stat"))?;
    let length = guarded(pid, || File::open(path)?.read(&mut line))?;
    let [hertz, page] = [libc::_SC_CLK_TCK, libc::_SC_PAGESIZE].map(number);
    parse(&line[..length], hertz, page).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

fn number(name: libc::c_int) -> u64 {
    // SAFETY: sysconf(3) takes a number and touches nothing.
    u64::try_from(unsafe { libc::sysconf(name) }).unwrap_or(0)
}

/// The name in the second field may hold anything, so fields are counted from its last `)`.
fn parse(line: &[u8], hertz: u64, page: u64) -> Option<ProcessUsage> {
    let close = line.iter().rposition(|&byte| byte == b')')?;
    let mut fields = std::str::from_utf8(line.get(close + 1..)?).ok()?.split_ascii_whitespace();
    // The state is field 3, majflt 12, utime 14, stime 15, starttime 22 and rss 24.
    let runnable = fields.next()? == "R";
    let major_faults = fields.nth(8)?.parse().ok()?;
    let user: u64 = fields.nth(1)?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    let start_time = start_of_machine(fields.nth(6)?.parse().ok()?);
    let pages: u64 = fields.nth(1)?.parse().ok()?;
    let ticks = user.checked_add(system)?;
    let cpu = Duration::from_secs(ticks.checked_div(hertz)?)
        + Duration::from_nanos((ticks % hertz).checked_mul(1_000_000_000)? / hertz);
    Some(ProcessUsage { start_time, cpu, rss_kb: pages.checked_mul(page)? / 1024, major_faults, runnable })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_blanks_and_parentheses_does_not_shift_the_fields() {
        let line =
            b"12 (a) (b\n) c) R 3 4 5 0 -1 64 1 2 3 4 150 33 7 8 20 0 11 0 987 1000000 25 18446744073709551615 1";
        let usage = parse(line, 100, 4096).unwrap();
        assert_eq!(
            usage,
            ProcessUsage {
                start_time: 987,
                cpu: Duration::from_millis(1830),
                rss_kb: 100,
                major_faults: 3,
                runnable: true
            }
        );
        assert_eq!(parse(line, 100, 65536).unwrap().rss_kb, 1600);
    }

    #[test]
    fn what_is_cut_or_absurd_is_no_reading() {
        let line = b"12 (a) R 3 4 5 0 -1 64 1 2 3 4 150 33 7 8 20 0 11 0 987 1000000 25 1";
        let end = line.iter().rposition(|&byte| byte == b' ').unwrap();
        for cut in 0..=end - 2 {
            assert_eq!(parse(&line[..cut], 100, 4096), None, "{cut}");
        }
        assert!(parse(line, 100, 4096).is_some());
        assert_eq!((parse(line, 0, 4096), parse(line, 100, u64::MAX)), (None, None));
    }
}
