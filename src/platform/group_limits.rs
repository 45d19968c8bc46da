//! The limits of control groups, of both versions.

use std::fs;
use std::path::{Path, PathBuf};

/// Version 1 shows no limit as the largest number of pages, in bytes: 2^63 less a page.
const NO_LIMIT_MIN: u64 = 1 << 62;

/// The lowest limits of a control group and of those above it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GroupLimits {
    /// In bytes.
    pub memory: Option<u64>,
    pub pids: Option<u64>,
    /// In percent of one processor.
    pub cpu_percent: Option<u64>,
}

/// What a control group uses, and its limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Used {
    pub used: u64,
    pub limit: u64,
}

impl Used {
    /// Whether less than a tenth is left.
    #[must_use]
    pub fn is_nearly_all(self) -> bool {
        self.used > self.limit / 10 * 9
    }
}

/// The use of memory in bytes, without the page cache that the kernel would reclaim first, and of processes: each of the group
/// that has the least left.
#[must_use]
pub fn usage_of(pid: i32) -> (Option<Used>, Option<Used>) {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    usage(&lines, Path::new("/sys/fs/cgroup"))
}

fn usage(lines: &str, root: &Path) -> (Option<Used>, Option<Used>) {
    let least = |controller, used: &dyn Fn(&Path) -> Option<Used>| {
        let all = groups(lines, root, controller);
        all.iter().filter_map(|group| used(group)).min_by_key(|used| used.limit.saturating_sub(used.used))
    };
    let memory = least("memory", &|group| {
        let limit = number(group, "memory.max").or_else(|| number(group, "memory.limit_in_bytes"))?;
        let used = number(group, "memory.current").or_else(|| number(group, "memory.usage_in_bytes"))?;
        let account = fs::read_to_string(group.join("memory.stat")).unwrap_or_default();
        let cache = |name: &str| account.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<u64>().ok());
        let cache = cache("total_inactive_file ").or_else(|| cache("inactive_file ")).unwrap_or(0);
        (limit < NO_LIMIT_MIN).then_some(Used { used: used.saturating_sub(cache), limit })
    });
    let tasks =
        least("pids", &|group| Some(Used { used: number(group, "pids.current")?, limit: number(group, "pids.max")? }));
    (memory, tasks)
}

fn number(group: &Path, file: &str) -> Option<u64> {
    fs::read_to_string(group.join(file)).ok()?.trim().parse().ok()
}

/// The limits of a process.
#[must_use]
pub fn of(pid: i32) -> GroupLimits {
    let lines = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    read(&lines, Path::new("/sys/fs/cgroup"))
}

/// `lines`: those of `/proc/PID/cgroup`, see cgroups(7).
fn read(lines: &str, root: &Path) -> GroupLimits {
    let lowest = |controller, limit: &dyn Fn(&Path) -> Option<u64>| {
        groups(lines, root, controller).iter().filter_map(|group| limit(group)).min()
    };
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
        in_tree(files, |root| read(lines, root))
    }

    fn in_tree<T>(files: &[(&str, &str)], read: impl FnOnce(&Path) -> T) -> T {
        use std::sync::atomic::{AtomicU32, Ordering};
        static TREES: AtomicU32 = AtomicU32::new(0);
        let number = TREES.fetch_add(1, Ordering::Relaxed);
        let root = std::env::temp_dir().join(format!("limits-{}-{number}", std::process::id()));
        for (file, text) in files {
            let file = root.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        let read = read(&root);
        fs::remove_dir_all(root).unwrap();
        read
    }

    #[test]
    fn the_use_is_that_of_the_group_with_the_least_left_in_both_versions() {
        let mib = |count: u64| (count << 20).to_string();
        let (low, high, cache) = (mib(900), mib(1000), format!("anon 5\ninactive_file {}\n", mib(100)));
        let files = [
            ("a/memory.max", high.as_str()),
            ("a/memory.current", &low),
            ("a/memory.stat", &cache),
            ("memory.max", "max"),
            ("a/pids.max", "100\n"),
            ("a/pids.current", "95\n"),
        ];
        let (memory, tasks) = in_tree(&files, |root| usage("0::/a\n", root));
        assert_eq!(memory, Some(Used { used: 800 << 20, limit: 1000 << 20 }));
        assert_eq!(
            (tasks.unwrap().used, tasks.unwrap().is_nearly_all(), memory.unwrap().is_nearly_all()),
            (95, true, false)
        );
        let files = [
            ("memory/x/memory.limit_in_bytes", high.as_str()),
            ("memory/x/memory.usage_in_bytes", &low),
            ("memory/x/memory.stat", "inactive_file 1\ntotal_inactive_file 0\n"),
        ];
        let (memory, tasks) = in_tree(&files, |root| usage("4:memory:/x\n", root));
        assert_eq!((memory, tasks), (Some(Used { used: 900 << 20, limit: 1000 << 20 }), None));
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
