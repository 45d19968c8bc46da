//! The container that we run in, if any, and its limits; and the file system of the state.

use super::program::is_ours;
use crate::platform::{filesystem, proc};
use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::time::Duration;

pub(in super::super) const MIB: u64 = 1024 * 1024;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct ContainerFacts {
    /// What shows that this is a container; `None` outside of one.
    pub(in super::super) sign: Option<String>,
    /// The command line of process 1.
    pub(in super::super) init: Option<String>,
    /// In bytes.
    pub(in super::super) memory_max: Option<u64>,
    pub(in super::super) pids_max: Option<u64>,
    /// In percent of one processor.
    pub(in super::super) cpu_percent: Option<u64>,
    /// `--max-old-space-size`, in bytes.
    pub(in super::super) heap: Option<u64>,
    /// `--memory-max`, in bytes.
    pub(in super::super) memory_limit: Option<u64>,
    /// Our stop timeout, unless a service manager bounds the stop.
    pub(in super::super) stop_timeout: Option<Duration>,
}

pub(in super::super) fn gather(
    node_options: Option<&OsStr>,
    memory_limit_kb: Option<u64>,
    stop_timeout: Option<Duration>,
) -> ContainerFacts {
    let files = ["/.dockerenv", "/run/.containerenv"].into_iter().find(|file| Path::new(file).exists());
    let kubernetes = || std::env::var_os("KUBERNETES_SERVICE_HOST").map(|_| "KUBERNETES_SERVICE_HOST is set");
    let init = proc::command_of(1);
    let is_init = init.as_deref().is_some_and(runs_us);
    let sign = files.or_else(kubernetes).or(is_init.then_some("this program is process 1"));
    let limit = |file: &str| of_group(file).and_then(|text| text.trim().parse().ok());
    ContainerFacts {
        sign: sign.map(str::to_owned),
        init,
        memory_max: limit("memory.max"),
        pids_max: limit("pids.max"),
        cpu_percent: of_group("cpu.max").as_deref().and_then(percent),
        heap: node_options.and_then(OsStr::to_str).and_then(heap),
        memory_limit: memory_limit_kb.map(|kb| kb * 1024),
        stop_timeout,
    }
}

/// A file of our control group, else of the nearest ancestor that has it.
fn of_group(file: &str) -> Option<String> {
    let own = proc::cgroup_of(i32::try_from(std::process::id()).ok()?)?;
    let root = Path::new("/sys/fs/cgroup");
    let own = root.join(own.trim_start_matches('/'));
    own.ancestors()
        .take_while(|group| group.starts_with(root))
        .find_map(|group| fs::read_to_string(group.join(file)).ok())
}

/// `QUOTA PERIOD` of `cpu.max`, in percent of one processor.
fn percent(text: &str) -> Option<u64> {
    let mut words = text.split_whitespace().map(|word| word.parse::<u64>().ok());
    let (quota, period) = (words.next()??, words.next()??);
    quota.checked_mul(100)?.checked_div(period)
}

/// The heap limit in `NODE_OPTIONS`, in bytes. Node treats dashes and underscores alike.
fn heap(options: &str) -> Option<u64> {
    let (_, size) = options
        .split_whitespace()
        .filter_map(|word| word.split_once('='))
        .rfind(|(name, _)| name.replace('_', "-") == "--max-old-space-size")?;
    size.parse::<u64>().ok()?.checked_mul(MIB)
}

/// Whether a command line starts this program.
pub(in super::super) fn runs_us(command: &str) -> bool {
    command.split_whitespace().next().is_some_and(is_ours)
}

/// The name of the file system of a directory, or of its nearest ancestor that exists, if locks cannot be trusted on it.
pub(in super::super) fn network_file_system(dir: &Path) -> Option<&'static str> {
    let place = dir.ancestors().find(|place| place.exists()).unwrap_or(Path::new("/"));
    filesystem::without_dependable_locks(place).ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_the_kernel_and_node_write_them() {
        assert_eq!((percent("50000 100000\n"), percent("max 100000"), percent("")), (Some(50), None, None));
        assert_eq!(heap("--trace --max-old-space-size=2048"), Some(2048 * MIB));
        assert_eq!(heap("--max_old_space_size=1 --max-old-space-size=2"), Some(2 * MIB));
        assert_eq!((heap("--max-old-space-size=x"), heap("")), (None, None));
    }
}
