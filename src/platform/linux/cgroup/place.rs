//! Where a process is in the trees of control groups, and where those are mounted.

use super::files::text_of;
use crate::platform::linux::proc::path_of;
use rustix::fs::{CWD, Mode, OFlags, fstatfs, openat};
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// See `CGROUP2_SUPER_MAGIC` in statfs(2).
const MAGIC: u64 = 0x6367_7270;

/// A tree of control groups, or the part of it that we are shown.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Mount {
    /// Of the second version, or of the first and with a memory or CPU controller.
    kind: Hierarchy,
    /// The group that is shown there.
    root: PathBuf,
    point: PathBuf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hierarchy {
    Unified,
    Memory,
    Cpu,
}

/// Our own group of the second version.
pub(super) fn own() -> io::Result<PathBuf> {
    locate(Hierarchy::Unified, &text_of("/proc/self/cgroup")?)
}

/// A process's group of the second version.
pub(super) fn of(pid: i32) -> io::Result<PathBuf> {
    locate(Hierarchy::Unified, &text_of(path_of(pid, "cgroup")?)?)
}

/// Our own group of the first version's memory controller.
pub(super) fn own_memory() -> io::Result<PathBuf> {
    locate(Hierarchy::Memory, &text_of("/proc/self/cgroup")?)
}

/// A process's group of the first version's CPU controller.
pub(super) fn of_cpu(pid: i32) -> io::Result<PathBuf> {
    locate(Hierarchy::Cpu, &text_of(path_of(pid, "cgroup")?)?)
}

/// Opens what [`own`] or [`of`] gave, unless something else is mounted over it.
pub(super) fn open(group: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let group = openat(CWD, group, flags, Mode::empty())?;
    let is_group = u64::try_from(fstatfs(&group)?.f_type).is_ok_and(|magic| magic == MAGIC);
    if is_group { Ok(group) } else { Err(io::ErrorKind::Unsupported.into()) }
}

fn locate(kind: Hierarchy, groups: &str) -> io::Result<PathBuf> {
    // Mounts do not come and go below a service; the list of them can be long.
    static MOUNTS: OnceLock<Vec<Mount>> = OnceLock::new();
    let mounts = if let Some(mounts) = MOUNTS.get() {
        mounts
    } else {
        let mounts = parse_mounts(&text_of("/proc/self/mountinfo")?);
        MOUNTS.get_or_init(|| mounts)
    };
    path_in(groups, kind).and_then(|path| below(mounts, kind, path)).ok_or_else(|| io::ErrorKind::Unsupported.into())
}

/// Lines of `hierarchy:controllers:path`, see cgroups(7).
fn path_in(groups: &str, kind: Hierarchy) -> Option<&Path> {
    groups.lines().find_map(|line| {
        let (hierarchy, rest) = line.split_once(':')?;
        let (controllers, path) = rest.split_once(':')?;
        let fits = match kind {
            Hierarchy::Unified => hierarchy == "0" && controllers.is_empty(),
            Hierarchy::Memory => controllers.split(',').any(|controller| controller == "memory"),
            Hierarchy::Cpu => controllers.split(',').any(|controller| controller == "cpu"),
        };
        // Removed under a zombie. A group really named so looks the same; we create none.
        (fits && !path.ends_with(" (deleted)")).then_some(Path::new(path))
    })
}

/// The last mount that shows this path. It may have `..` in it, outside of our cgroup namespace: that is not shown.
fn below(mounts: &[Mount], kind: Hierarchy, path: &Path) -> Option<PathBuf> {
    if path.components().any(|part| part.as_os_str() == "..") {
        return None;
    }
    mounts.iter().rev().filter(|mount| mount.kind == kind).find_map(|mount| {
        let rest = path.strip_prefix(&mount.root).ok()?;
        Some(if rest.as_os_str().is_empty() { mount.point.clone() } else { mount.point.join(rest) })
    })
}

/// See `/proc/PID/mountinfo` in proc(5).
fn parse_mounts(lines: &str) -> Vec<Mount> {
    lines.lines().filter_map(parse_mount).collect()
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (left, right) = line.split_once(" - ")?;
    let mut fields = left.split(' ').skip(3);
    let (root, point) = (unescape(fields.next()?), unescape(fields.next()?));
    let mut fields = right.split(' ');
    let (name, options) = (fields.next()?, fields.nth(1).unwrap_or_default());
    let has = |controller: &str| options.split(',').any(|option| option == controller);
    let kind = match name {
        "cgroup2" => Hierarchy::Unified,
        "cgroup" if has("memory") => Hierarchy::Memory,
        "cgroup" if has("cpu") => Hierarchy::Cpu,
        _ => return None,
    };
    Some(Mount { kind, root: root.into(), point: point.into() })
}

/// Blanks, tabs, newlines and backslashes are written as three octal digits.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (code, letter)| text.replace(code, letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory\n\
        36 31 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct\n\
        41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:5 - cgroup2 cgroup2 rw\n";
    const CONTAINER: &str = "41 31 0:38 /docker/a\\040b /sys/fs/cgroup ro,nosuid - cgroup2 cgroup rw,nsdelegate\n";

    #[test]
    fn a_group_is_found_below_the_mount_that_shows_it() {
        for (mounts, kind, path, expected) in [
            (HYBRID, Hierarchy::Unified, "/", Some("/sys/fs/cgroup/unified")),
            (HYBRID, Hierarchy::Unified, "/a/b", Some("/sys/fs/cgroup/unified/a/b")),
            (HYBRID, Hierarchy::Memory, "/a", Some("/sys/fs/cgroup/memory/a")),
            (HYBRID, Hierarchy::Cpu, "/a", Some("/sys/fs/cgroup/cpu,cpuacct/a")),
            (CONTAINER, Hierarchy::Unified, "/docker/a b/c", Some("/sys/fs/cgroup/c")),
            (CONTAINER, Hierarchy::Unified, "/docker/a b", Some("/sys/fs/cgroup")),
            (CONTAINER, Hierarchy::Unified, "/docker/a", None),
            (CONTAINER, Hierarchy::Unified, "/docker/a bc", None),
            (CONTAINER, Hierarchy::Memory, "/docker/a b", None),
            (HYBRID, Hierarchy::Unified, "/../x", None),
            ("", Hierarchy::Unified, "/", None),
        ] {
            let found = below(&parse_mounts(mounts), kind, Path::new(path));
            assert_eq!(found.as_deref(), expected.map(Path::new), "{path}");
        }
    }

    #[test]
    fn the_lines_of_the_two_versions_are_told_apart() {
        for (lines, kind, expected) in [
            ("9:name=systemd:/s\n4:memory:/m\n0::/u:v\n", Hierarchy::Unified, Some("/u:v")),
            ("9:name=systemd:/s\n4:memory:/m\n0::/u\n", Hierarchy::Memory, Some("/m")),
            ("4:cpu,memory:/m\n", Hierarchy::Memory, Some("/m")),
            ("4:cpu,cpuacct:/c\n", Hierarchy::Cpu, Some("/c")),
            ("4:cpuset:/c\n", Hierarchy::Cpu, None),
            ("4:cpu,memory:/m\n", Hierarchy::Unified, None),
            ("0::/a (deleted)\n", Hierarchy::Unified, None),
            ("", Hierarchy::Memory, None),
        ] {
            assert_eq!(path_in(lines, kind), expected.map(Path::new), "{lines}");
        }
    }
}
