//! What a tree has in memory.

use super::{Root, Tree, is_gone, living, scan};
use crate::platform::proc::{self, Stat};
use crate::platform::usage;
use std::io;

impl Tree {
    /// Resident memory of all members, in KiB: the sum over them, so that a page that two of them share counts twice. It
    /// misses who left the tree unseen and bears no more than its id in the environment: to read that may have to wait
    /// for the process, as a look at its memory map does, and neither happens here.
    ///
    /// # Errors
    /// The processes cannot be listed, or not all of them read: then the sum is not known.
    pub fn rss_kb(&self) -> io::Result<u64> {
        // A family cannot be seen where the kernel keeps no lists of children.
        let members = self.family().or_else(|_| self.scan_without_ids().map(scan::processes))?;
        let mut sum = 0_u64;
        for member in members {
            match usage::of(member.pid) {
                Ok(usage) if usage.start_time == member.start_time => sum = sum.saturating_add(usage.rss_kb),
                // Another one has its pid by now.
                Ok(_) => {}
                Err(error) if is_gone(&error) => {}
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
            // Who is younger than the list may have the pid of one that was on it.
            members.extend(living(pid)?.filter(|process| process.start_time < begun));
        }
        self.with_descendants(members)
    }
}
