//! A mark that a process inherits whatever becomes of its environment, its session and its parents: a resource limit.

use super::proc::path_of;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io::{self, Read};

/// Below this, somebody chose the limit for a purpose, and taking some of it away could be felt.
const ROOM: u64 = 16 * 1024;

/// How many different marks there are.
const MARKS: u64 = 4096;

/// Stands for no limit at all; nobody has so many signals pending.
const PLENTY: u64 = 1 << 40;

/// `/proc/PID/limits` has 17 lines of at most 80 bytes.
const LIMITS_LENGTH_MAX: usize = 2048;

/// A soft limit on pending signals that is a little below what everybody else has, see `RLIMIT_SIGPENDING` in
/// getrlimit(2). It is inherited through fork(2) and execve(2), and a process that does not change its limits on purpose
/// keeps it as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Mark(u64);

impl Mark {
    /// One that is drawn from `seed`; none where the limit leaves no room for it.
    #[must_use]
    pub fn new(seed: u64) -> Option<Self> {
        Self::below(getrlimit(Resource::Sigpending).current, seed)
    }

    fn below(limit: Option<u64>, seed: u64) -> Option<Self> {
        let limit = limit.unwrap_or(PLENTY);
        (limit >= ROOM).then(|| Self(limit - 1 - seed % MARKS))
    }

    /// Whether a process bears it. Everybody may ask this of any process; of one that is gone the answer is no.
    #[must_use]
    pub fn is_on(self, pid: i32) -> bool {
        let mut text = [0; LIMITS_LENGTH_MAX];
        let length = path_of(pid, "limits").and_then(File::open).and_then(|mut file| file.read(&mut text));
        length.is_ok_and(|length| soft_limit(&text[..length]) == Some(self.0))
    }

    /// Puts it on the calling process. The hard limit stays. Fit for the time between fork(2) and execve(2): two system
    /// calls and nothing else.
    pub(super) fn put_on_us(self) -> io::Result<()> {
        let maximum = getrlimit(Resource::Sigpending).maximum;
        Ok(setrlimit(Resource::Sigpending, Rlimit { current: Some(self.0), maximum })?)
    }
}

/// From a table with the columns name, soft limit, hard limit and unit, see proc(5).
fn soft_limit(table: &[u8]) -> Option<u64> {
    const NAME: &[u8] = b"Max pending signals";
    let row = table.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(NAME))?;
    std::str::from_utf8(row).ok()?.split_ascii_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_below_the_limit_and_there_is_none_without_room() {
        assert_eq!(Mark::below(Some(ROOM - 1), 0), None);
        assert_eq!(Mark::below(Some(0), 7), None);
        assert_eq!(Mark::below(Some(ROOM), 0), Some(Mark(ROOM - 1)));
        assert_eq!(Mark::below(Some(100_000), MARKS - 1), Some(Mark(100_000 - MARKS)));
        assert_eq!(Mark::below(Some(100_000), MARKS), Mark::below(Some(100_000), 0));
        assert_eq!(Mark::below(None, 1), Some(Mark(PLENTY - 2)));
    }

    #[test]
    fn the_soft_limit_is_read_from_its_own_row_alone() {
        let table = b"Limit    Soft Limit   Hard Limit  Units\nMax processes   1  2  processes\n\
            Max pending signals       96364                96365                signals   \nMax msgqueue size  8 9 bytes\n";
        assert_eq!(soft_limit(table), Some(96364));
        assert_eq!(soft_limit(b"Max pending signals       unlimited            unlimited            signals\n"), None);
        assert_eq!(soft_limit(b"Max processes 96364 96365\n"), None);
        assert_eq!(soft_limit(b""), None);
    }
}
