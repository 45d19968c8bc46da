//! A tag that a process inherits whatever becomes of its environment, its session and its parents: resource limits.

use super::proc::path_of;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io::{self, Read};

/// `/proc/PID/limits` has 17 lines of at most 80 bytes.
const LIMITS_LENGTH_MAX: usize = 2048;

/// Stands for no limit: more than any machine has.
const PLENTY: u64 = 1 << 40;

/// A limit that a tag lowers a little.
struct Scale {
    resource: Resource,
    /// Its row in `/proc/PID/limits`.
    name: &'static [u8],
    /// Below this, the limit was chosen for a purpose, and a lower one could be felt.
    room: u64,
    /// How many different tags it makes: a power of two.
    tags: u64,
}

/// The bytes of all POSIX message queues of a user: 819,200 by default, whatever memory there is. A
/// tag takes none of the nine queues of the default size that fit.
const QUEUES: Scale =
    Scale { resource: Resource::Msgqueue, name: b"Max msgqueue size", room: 256 * 1024, tags: 16 * 1024 };

/// The pending signals of a user: about one for each 256 KiB of memory, so that on a small machine there is no room.
const SIGNALS: Scale =
    Scale { resource: Resource::Sigpending, name: b"Max pending signals", room: 16 * 1024, tags: 4096 };

impl Scale {
    fn below(&self, limit: Option<u64>, seed: u64) -> Option<u64> {
        let limit = limit.unwrap_or(PLENTY);
        (limit >= self.room).then(|| limit - 1 - seed % self.tags)
    }

    /// The soft limit from a table with the columns name, soft limit, hard limit and unit, see proc(5).
    fn soft_limit(&self, table: &[u8]) -> Option<u64> {
        let row = table.split(|&byte| byte == b'\n').find_map(|line| line.strip_prefix(self.name))?;
        std::str::from_utf8(row).ok()?.split_ascii_whitespace().next()?.parse().ok()
    }

    fn put_on_us(&self, limit: u64) -> io::Result<()> {
        let maximum = getrlimit(self.resource).maximum;
        Ok(setrlimit(self.resource, Rlimit { current: Some(limit), maximum })?)
    }
}

/// Soft limits that are a little below the usual ones, see `RLIMIT_MSGQUEUE` and `RLIMIT_SIGPENDING` in
/// getrlimit(2): both if both leave room, so that there are many. They are inherited through fork(2) and execve(2),
/// and a process that does not change them on purpose keeps them as long as it lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RlimitTag {
    queues: Option<u64>,
    signals: Option<u64>,
}

impl RlimitTag {
    /// One from `seed`; `None` if the limits leave no room for it. An even and an odd seed never make the same one.
    #[must_use]
    pub fn new(seed: u64) -> Option<Self> {
        let limit = |scale: &Scale| getrlimit(scale.resource).current;
        Self::below(limit(&QUEUES), limit(&SIGNALS), seed)
    }

    fn below(queues: Option<u64>, signals: Option<u64>, seed: u64) -> Option<Self> {
        let queues = QUEUES.below(queues, seed);
        // The lowest bit stands in both: each alone may be all there is.
        let rest = if queues.is_some() { (seed / QUEUES.tags) << 1 | seed & 1 } else { seed };
        let signals = SIGNALS.below(signals, rest);
        queues.or(signals).map(|_| Self { queues, signals })
    }

    /// Whether a process has it. Any user may read the limits of any process; a process that is gone has none.
    #[must_use]
    pub fn is_on(self, pid: i32) -> bool {
        let mut text = [0; LIMITS_LENGTH_MAX];
        let length = path_of(pid, "limits").and_then(File::open).and_then(|mut file| file.read(&mut text));
        length.is_ok_and(|length| self.is_in(&text[..length]))
    }

    fn is_in(self, table: &[u8]) -> bool {
        let fits = |scale: &Scale, limit: Option<u64>| limit.is_none() || scale.soft_limit(table) == limit;
        fits(&QUEUES, self.queues) && fits(&SIGNALS, self.signals)
    }

    /// Puts it on the calling process. The hard limits stay. Fit for the time between fork(2) and execve(2): system
    /// calls and nothing else.
    pub(super) fn put_on_us(self) -> io::Result<()> {
        self.queues.map_or(Ok(()), |limit| QUEUES.put_on_us(limit))?;
        self.signals.map_or(Ok(()), |limit| SIGNALS.put_on_us(limit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Option<u64> = Some(819_200);

    #[test]
    fn a_tag_is_below_the_limit_and_there_is_none_without_room() {
        let (room, tags) = (SIGNALS.room, SIGNALS.tags);
        for (limit, seed, expected) in [
            (Some(room - 1), 0, None),
            (Some(0), 7, None),
            (Some(room), 0, Some(room - 1)),
            (Some(100_000), tags - 1, Some(100_000 - tags)),
            (Some(100_000), tags, Some(99_999)),
            (None, 1, Some(PLENTY - 2)),
        ] {
            assert_eq!(SIGNALS.below(limit, seed), expected, "{limit:?} {seed}");
        }
        assert_eq!(RlimitTag::below(Some(0), Some(0), 1), None);
    }

    #[test]
    fn a_machine_with_little_memory_has_tags_too() {
        // About as with 4 GiB and with 1 GiB.
        for signals in [15_000, 3_700] {
            assert_eq!(
                RlimitTag::below(DEFAULT, Some(signals), 5),
                Some(RlimitTag { queues: Some(819_194), signals: None })
            );
        }
        let only = RlimitTag::below(Some(0), Some(100_000), 5);
        assert_eq!(only, Some(RlimitTag { queues: None, signals: Some(99_994) }));
    }

    #[test]
    fn an_even_and_an_odd_seed_never_make_the_same_tag() {
        let odd = |limit: u64| limit % 2 == 1;
        for (queues, signals) in [(DEFAULT, Some(96_365)), (DEFAULT, Some(9)), (Some(9), Some(96_365)), (None, None)] {
            for seed in (0..100_000).map(|step| step * 7919) {
                let (even, other) =
                    (RlimitTag::below(queues, signals, seed & !1), RlimitTag::below(queues, signals, seed | 1));
                let (even, other) = (even.unwrap(), other.unwrap());
                let differ = |one: Option<u64>, two: Option<u64>| one.map(odd) != two.map(odd) || one.is_none();
                assert!(differ(even.queues, other.queues) && differ(even.signals, other.signals), "{even:?} {other:?}");
            }
        }
    }

    #[test]
    fn each_limit_is_read_from_its_own_row_and_all_that_are_tagged_have_to_fit() {
        let table = b"Limit    Soft Limit   Hard Limit  Units\nMax processes   1  2  processes\n\
            Max pending signals       96364                96365                signals   \nMax msgqueue size  8 9 bytes\n";
        assert_eq!((SIGNALS.soft_limit(table), QUEUES.soft_limit(table)), (Some(96364), Some(8)));
        for (queues, signals, fits) in [
            (Some(8), Some(96364), true),
            (Some(8), None, true),
            (None, Some(96364), true),
            (Some(9), Some(96364), false),
            (Some(8), Some(96365), false),
        ] {
            assert_eq!(RlimitTag { queues, signals }.is_in(table), fits, "{queues:?} {signals:?}");
        }
        let unlimited = b"Max pending signals       unlimited            unlimited            signals\n";
        for table in [&unlimited[..], b"Max processes 96364 96365\n", b""] {
            assert_eq!(SIGNALS.soft_limit(table), None);
            assert!(!RlimitTag { queues: Some(8), signals: None }.is_in(table));
        }
    }
}
