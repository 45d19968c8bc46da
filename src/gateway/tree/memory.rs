//! What a tree has in memory.

use super::members::{Root, Tree};
use super::membership;
use crate::platform::descent::{is_unseen, living};
use crate::platform::proc::{self, Stat};
use crate::platform::usage;
use std::io;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TreeMemory {
    pub processes: u32,
    /// The sum over them, in KiB, so that a page that two of them share counts twice.
    pub rss_kb: u64,
}

impl Tree {
    /// How many members there are, and their resident memory. Misses members that only their instance id shows, and those with
    /// stuck reads.
    ///
    /// # Errors
    /// The processes cannot be listed, or not all of them be read: then the sum is not known.
    pub fn memory(&self) -> io::Result<TreeMemory> {
        // Without lists of children in `/proc` a family cannot be seen.
        let members = self.family().or_else(|_| self.scan_without_ids().map(membership::processes))?;
        let mut sum = TreeMemory::default();
        for member in members {
            match usage::of(member.pid) {
                Ok(usage) if usage.start_time == member.start_time => {
                    sum.rss_kb = sum.rss_kb.saturating_add(usage.rss_kb);
                    sum.processes += 1;
                }
                // Another process has its pid by now.
                Ok(_) => {}
                Err(error) if is_unseen(&error) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(sum)
    }

    fn family(&self) -> io::Result<Vec<Stat>> {
        let begun = proc::tick();
        let leaf = self.leaf_members();
        let mut members = self.remembered()?;
        members.extend(self.inherited(&leaf, |_| false)?);
        if let Root::Adopted { pid, start_time } = self.root {
            members.extend(living(pid)?.filter(|process| process.start_time == start_time));
        }
        for &pid in self.held.keys() {
            members.extend(living(pid)?.filter(|process| self.was_seen(process)));
        }
        for &pid in leaf.iter().filter(|&&pid| !self.is_elsewhere(pid)) {
            // A process that is younger than the list may have the pid of one that was on it.
            members.extend(living(pid)?.filter(|process| process.start_time < begun));
        }
        self.with_descendants(members)
    }
}
