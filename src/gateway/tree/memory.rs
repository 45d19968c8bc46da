//! What a tree has in memory.

use super::members::{Root, Tree};
use super::membership;
use crate::platform::descent::{is_unseen, living};
use crate::platform::proc::{self, Stat};
use crate::platform::usage;
use std::io;

impl Tree {
    /// Resident memory of all members, in KiB: the sum over them, so that a page that two of them share counts twice. It
    /// misses members that only their instance id shows, and those with stuck reads.
    ///
    /// # Errors
    /// The processes cannot be listed, or not all of them be read: then the sum is not known.
    pub fn rss_kb(&self) -> io::Result<u64> {
        // Without lists of children in `/proc` a family cannot be seen.
        let members = self.family().or_else(|_| self.scan_without_ids().map(membership::processes))?;
        let mut sum = 0_u64;
        for member in members {
            match usage::of(member.pid) {
                Ok(usage) if usage.start_time == member.start_time => sum = sum.saturating_add(usage.rss_kb),
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
