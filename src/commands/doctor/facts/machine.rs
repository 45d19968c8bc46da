//! The machine: its disks, memory, processes, descriptors and clock.

use crate::host::clock;
use crate::platform::group_limits::{self, Used};
use crate::platform::machine;
use crate::platform::thread::bounded;
use rustix::fs::{StatVfsMountFlags, statvfs};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long a file system may take for one call.
const DISK_TIME_MAX: Duration = Duration::from_secs(2);

/// A file system that we write to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Disk {
    pub(in super::super) dir: PathBuf,
    /// In bytes, as far as this user may take them.
    pub(in super::super) free: u64,
    /// `None` where the file system makes them as it needs them.
    pub(in super::super) inodes_free: Option<u64>,
    pub(in super::super) is_read_only: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct MachineFacts {
    pub(in super::super) disks: Vec<Disk>,
    /// Directories on a file system that does not answer.
    pub(in super::super) silent: Vec<PathBuf>,
    /// In bytes.
    pub(in super::super) memory_available: Option<u64>,
    /// Of the control group, in bytes.
    pub(in super::super) memory: Option<Used>,
    /// Of the control group; threads count.
    pub(in super::super) tasks: Option<Used>,
    /// `RLIMIT_NPROC`, which does not bind root.
    pub(in super::super) processes_max: Option<u64>,
    /// Of the whole machine.
    pub(in super::super) open_files: Option<Used>,
    /// Of the gateway.
    pub(in super::super) descriptors: Option<Used>,
    pub(in super::super) now_ms: i64,
    /// When the last event was recorded, in milliseconds since 1970.
    pub(in super::super) newest_ms: Option<i64>,
    pub(in super::super) is_synchronised: Option<bool>,
}

/// `pid`: the supervisor, or a process where it would be. `dirs`: those that are written to.
pub(in super::super) fn gather(
    pid: Option<i32>,
    gateway: Option<i32>,
    dirs: &[&Path],
    newest_ms: Option<i64>,
) -> MachineFacts {
    let (memory, tasks) = pid.map(group_limits::usage_of).unwrap_or_default();
    let (disks, silent) = disks(dirs);
    MachineFacts {
        disks,
        silent,
        memory_available: available(&fs::read_to_string("/proc/meminfo").unwrap_or_default()),
        memory,
        tasks,
        processes_max: pid.and_then(|pid| row(pid, "Max processes")),
        open_files: fs::read_to_string("/proc/sys/fs/file-nr").ok().as_deref().and_then(open_files),
        descriptors: gateway.and_then(descriptors),
        now_ms: clock::wall_ms(),
        newest_ms,
        is_synchronised: machine::is_clock_synchronised(),
    }
}

/// One for each file system, and the directories of those that do not answer in time.
fn disks(dirs: &[&Path]) -> (Vec<Disk>, Vec<PathBuf>) {
    let (mut seen, mut disks, mut silent) = (Vec::new(), Vec::new(), Vec::new());
    for dir in dirs {
        let dir = (*dir).to_owned();
        let place = dir.clone();
        match bounded(DISK_TIME_MAX, move || disk(&place)) {
            Some((device, disk)) if !seen.contains(&device) => {
                seen.push(device);
                disks.extend(disk);
            }
            Some(_) => {}
            None => silent.push(dir),
        }
    }
    (disks, silent)
}

/// With its device. Of a directory that does not exist, that of its nearest ancestor.
fn disk(dir: &Path) -> (Option<u64>, Option<Disk>) {
    let place = dir.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/"));
    let disk = statvfs(place).ok().map(|stat| Disk {
        dir: dir.to_owned(),
        free: stat.f_bavail.saturating_mul(stat.f_frsize),
        inodes_free: (stat.f_files > 0).then_some(stat.f_favail),
        is_read_only: stat.f_flag.contains(StatVfsMountFlags::RDONLY),
    });
    (fs::metadata(place).ok().map(|meta| meta.dev()), disk)
}

/// `MemAvailable`, in bytes, see proc(5).
fn available(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
}

/// The soft limit of a row of `/proc/PID/limits`; `None` if there is none.
fn row(pid: i32, name: &str) -> Option<u64> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).ok()?;
    limits.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()?.parse().ok()
}

/// Allocated, unused since Linux 2.6, and the maximum, see proc(5).
fn open_files(text: &str) -> Option<Used> {
    let mut words = text.split_whitespace().map(|word| word.parse::<u64>().ok());
    let (used, _, limit) = (words.next()??, words.next()??, words.next()??);
    Some(Used { used, limit })
}

/// `None` of another user's process.
fn descriptors(pid: i32) -> Option<Used> {
    let used = u64::try_from(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()).ok()?;
    Some(Used { used, limit: row(pid, "Max open files")? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_of_the_kernel_are_understood() {
        assert_eq!(available("MemTotal: 1 kB\nMemAvailable:    2048 kB\n"), Some(2 << 20));
        assert_eq!(available("MemTotal: 1 kB\n"), None);
        assert_eq!(open_files("1504\t0\t9223\n"), Some(Used { used: 1504, limit: 9223 }));
        assert_eq!(open_files(""), None);
    }

    #[test]
    fn one_file_system_is_told_once() {
        let folder = std::env::temp_dir();
        let (disks, silent) = disks(&[&folder.join("not/there"), &folder]);
        assert_eq!((disks.len(), silent.len()), (1, 0));
        assert!(disks[0].free > 0 && disks[0].dir.ends_with("not/there"));
    }
}
