//! A walk over all processes. One is taken before every kill of a tree, so each process costs three system calls and no
//! allocation.

use super::files::{STAT_LENGTH_MAX, parse_stat};
use crate::platform::stat::Stat;
use rustix::fs::{Mode, OFlags, RawDir, openat};
use std::ffi::CStr;
use std::io::{self, Write};
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;

/// What getdents64(2) fills at once: some thirty names. The kernel lists processes in the order of their pids, so that
/// with a short list most of those that are started during the walk are still seen.
const NAMES: usize = 1024;

/// A pid and the name of a file of it.
const PATH_LENGTH_MAX: usize = 32;

/// A walk that can be taken a few processes at a time.
#[derive(Debug)]
pub struct Walk {
    pub(super) folder: OwnedFd,
}

impl Walk {
    /// At the first process.
    ///
    /// # Errors
    /// EMFILE and the like.
    pub fn begin() -> io::Result<Self> {
        Ok(Self { folder: open_folder()? })
    }
}

/// The folder of all processes, at the first one.
pub(super) fn open_folder() -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(rustix::fs::CWD, c"/proc", flags, Mode::empty())?)
}

/// The next few pids. Says whether there may be more.
pub(super) fn list(folder: &OwnedFd, pids: &mut Vec<i32>) -> io::Result<bool> {
    let mut names = [MaybeUninit::uninit(); NAMES];
    let mut list = RawDir::new(folder, &mut names);
    while let Some(entry) = list.next() {
        let entry = entry?;
        pids.extend(entry.file_name().to_str().ok().and_then(|name| name.parse::<i32>().ok()));
        // The offset in the folder is the kernel's: the next call continues where this list ends.
        if list.is_buffer_empty() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A file about a process.
pub(super) fn open(folder: &OwnedFd, pid: i32, file: &str) -> io::Result<OwnedFd> {
    let mut path = [0; PATH_LENGTH_MAX];
    write!(&mut path[..], "{pid}/{file}\0")?;
    let path = CStr::from_bytes_until_nul(&path).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(openat(folder, path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// One process; `None` if it is a thread of the kernel.
pub(super) fn read_stat(folder: &OwnedFd, pid: i32) -> io::Result<Option<Stat>> {
    let file = open(folder, pid, "stat")?;
    // The kernel fills a large buffer in one read.
    let mut line = [0; STAT_LENGTH_MAX];
    let length = rustix::io::read(&file, &mut line)?;
    let (process, is_kernel) = parse_stat(&line[..length]).ok_or(io::ErrorKind::InvalidData)?;
    Ok((!is_kernel).then_some(process))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_in_steps_sees_every_process_once_and_no_thread_of_the_kernel() {
        let (mut walk, mut all) = (Walk::begin().expect("/proc is there"), Vec::new());
        while let Some(some) = walk.advance(|_| false, |_| ()).expect("/proc can be read") {
            all.extend(some.into_iter().map(|(process, _)| process));
        }
        let me = i32::try_from(std::process::id()).expect("a pid is positive");
        assert_eq!(all.iter().filter(|process| process.pid == me).count(), 1);
        let mut pids: Vec<_> = all.iter().map(|process| process.pid).collect();
        pids.dedup();
        assert_eq!(pids.len(), all.len());
        // In a pid namespace there is none, and 2 is a process like any other.
        let is_kernel = std::fs::read_to_string("/proc/2/comm").is_ok_and(|name| name == "kthreadd\n");
        assert!(!is_kernel || !pids.contains(&2));
    }
}
