//! The limits of control groups, of both versions.

use std::fs;
use std::path::{Path, PathBuf};

/// Version 1 shows no limit as the largest number of pages, in bytes: 2^63 less a page.
const NO_LIMIT_MIN: u64 = 1 << 62;

/// The lowest limits of a control group and of those above it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in super::super) struct GroupLimits {
    /// In bytes.
    pub(in super::super) memory: Option<u64>,
    pub(in super::super) pids: Option<u64>,
    /// In percent of one processor.
    pub(in super::super) cpu_percent: Option<u64>,
}

/// The limits of a process.
pub(in super::super) fn of(pid: i32) -> GroupLimits {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    read(&lines, Path::new("/sys/fs/cgroup"))
}

/// `lines`: those of `/proc/PID/cgroup`, see cgroups(7).
fn read(lines: &str, root: &Path) -> GroupLimits {
    let lowest = |controller, limit: &dyn Fn(&Path) -> Option<u64>| {
        groups(lines, root, controller).iter().filter_map(|group| limit(group)).min()
    };
    let number = |group: &Path, file: &str| fs::read_to_string(group.join(file)).ok()?.trim().parse::<u64>().ok();
    GroupLimits {
        memory: lowest("memory", &|group| {
            let limit = number(group, "memory.max").or_else(|| number(group, "memory.limit_in_bytes"));
            limit.filter(|limit| *limit < NO_LIMIT_MIN)
        }),
        pids: lowest("pids", &|group| number(group, "pids.max")),
        cpu_percent: lowest("cpu", &|group| {
            let max = || fs::read_to_string(group.join("cpu.max")).ok().as_deref().and_then(percent);
            // A quota of -1 is no number here.
            let quota = number(group, "cpu.cfs_quota_us").zip(number(group, "cpu.cfs_period_us"));
            max().or_else(|| quota.and_then(|(quota, period)| quota.checked_mul(100)?.checked_div(period)))
        }),
    }
}

/// The group and its ancestors, in each tree that may have the controller. In a container the path may be that of the host:
/// then the root of the tree is the group itself.
fn groups(lines: &str, root: &Path, controller: &str) -> Vec<PathBuf> {
    let mut groups = Vec::new();
    for line in lines.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else { continue };
        let trees = if controllers.is_empty() {
            // Beside trees of version 1 that of version 2 is in a folder of its own.
            vec![root.to_owned(), root.join("unified")]
        } else if controllers.split(',').any(|name| name == controller) {
            vec![root.join(controllers)]
        } else {
            continue;
        };
        for tree in trees {
            let own = tree.join(path.trim_start_matches('/'));
            groups.extend(own.ancestors().take_while(|group| group.starts_with(&tree)).map(Path::to_owned));
        }
    }
    groups
}

/// `QUOTA PERIOD` of `cpu.max`, in percent of one processor.
fn percent(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace().map(|word| word.parse::<u64>().ok());
    let (quota, period) = (words.next()??, words.next()??);
    quota.checked_mul(100)?.checked_div(period)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits(lines: &str, files: &[(&str, &str)]) -> GroupLimits {
        use std::sync::atomic::{AtomicU32, Ordering};
        static TREES: AtomicU32 = AtomicU32::new(0);
        let number = TREES.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("limits-{}-{number}", std::process::id()));
        for (file, text) in files {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let limits = read(lines, &root);
        fs::remove_dir_all(root).unwrap();
        limits
    }

    #[test]
    fn the_lowest_limit_of_the_group_and_its_ancestors_counts_in_version_2() {
        let files = [
            ("a/memory.max", "1000\n"),
            ("a/b/memory.max", "max\n"),
            ("a/pids.max", "300\n"),
            ("a/b/pids.max", "200\n"),
            ("a/cpu.max", "50000 100000\n"),
            ("a/b/cpu.max", "max 100000\n"),
            ("memory.max", "max\n"),
        ];
        let expected = GroupLimits { memory: Some(1000), pids: Some(200), cpu_percent: Some(50) };
        assert_eq!(limits("0::/a/b\n", &files), expected);
        assert_eq!(limits("0::/c\n", &files), GroupLimits::default());
    }

    #[test]
    fn each_controller_of_version_1_has_its_own_tree() {
        let lines = "9:name=systemd:/\n8:pids:/x\n4:memory:/docker/0a\n1:cpu,cpuacct:/x\n0::/\n";
        let files = [
            // As a container without a cgroup namespace sees its own group.
            ("memory/memory.limit_in_bytes", "536870912\n"),
            ("pids/x/pids.max", "max\n"),
            ("cpu,cpuacct/x/cpu.cfs_quota_us", "20000\n"),
            ("cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
        ];
        let expected = GroupLimits { memory: Some(512 << 20), pids: None, cpu_percent: Some(20) };
        assert_eq!(limits(lines, &files), expected);
        let files = [
            ("memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("cpu,cpuacct/x/cpu.cfs_quota_us", "-1\n"),
            ("cpu,cpuacct/x/cpu.cfs_period_us", "100000\n"),
        ];
        assert_eq!(limits(lines, &files), GroupLimits::default());
    }
}
