//! Kills by the OOM killer.

use super::files::{read, text_of};
use super::leaf::Leaf;
use super::place;
use std::path::PathBuf;
use std::sync::OnceLock;

/// The number of processes that the OOM killer has killed: in the leaf if it counts them, otherwise in the smallest group
/// around us that does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OomCount(Option<u64>);

impl OomCount {
    /// As it is now.
    #[must_use]
    pub fn read(leaf: Option<&Leaf>) -> Self {
        // Where it is does not change as long as we are not moved, and a search takes longer than a look.
        static SOURCE: OnceLock<PathBuf> = OnceLock::new();
        let of_leaf = leaf.and_then(|leaf| read(&*leaf.directory(), "memory.events").ok());
        let of_leaf = of_leaf.and_then(|text| count(&String::from_utf8_lossy(&text)));
        Self(of_leaf.or_else(|| count(&text_of(SOURCE.get_or_init(source)).unwrap_or_default())))
    }

    /// Whether it is more than it was `before`.
    #[must_use]
    pub fn is_above(self, before: Self) -> bool {
        matches!((before.0, self.0), (Some(before), Some(now)) if now > before)
    }
}

/// The nearest group of the second version that counts: for itself and all below it. Else our own of the first version.
/// Else the whole machine.
fn source() -> PathBuf {
    let counts = |path: &PathBuf| text_of(path).is_ok_and(|text| count(&text).is_some());
    let unified = place::own().ok().and_then(|own| {
        own.ancestors()
            .take_while(|group| place::open(group).is_ok())
            .map(|group| group.join("memory.events"))
            .find(counts)
    });
    let first = || place::own_memory().ok().map(|own| own.join("memory.oom_control")).filter(counts);
    unified.or_else(first).unwrap_or_else(|| PathBuf::from("/proc/vmstat"))
}

fn count(text: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix("oom_kill ")?.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_is_told_from_its_neighbours() {
        assert_eq!(count("low 1\noom 2\noom_kill 3\noom_group_kill 4\n"), Some(3));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\noom_kill 5\n"), Some(5));
        assert_eq!(count("oom_kill_disable 0\nunder_oom 0\n"), None);
    }

    #[test]
    fn a_count_that_cannot_be_read_has_not_grown() {
        let now = OomCount::read(None);
        assert!(now.0.is_some(), "every kernel since 4.13 counts for the machine");
        assert!(!now.is_above(OomCount(None)) && !OomCount(None).is_above(now));
        assert!(!now.is_above(OomCount(Some(u64::MAX))) && !now.is_above(now));
    }
}
