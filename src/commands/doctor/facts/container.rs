//! The container that we run in, if any, and its limits; and the file system of the state.

use super::program::is_ours;
use crate::host::manager::{self, Container};
use crate::platform::group_limits::{self, GroupLimits};
use crate::platform::{filesystem, proc};
use std::path::Path;
use std::time::Duration;

pub(in super::super) const MIB: u64 = 1024 * 1024;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct ContainerFacts {
    /// What shows that this is a container; `None` outside of one.
    pub(in super::super) sign: Option<String>,
    /// Whether our exit ends it.
    pub(in super::super) ends_with_us: bool,
    /// The command line of process 1.
    pub(in super::super) init: Option<String>,
    /// Those of the control group.
    pub(in super::super) limits: GroupLimits,
    /// `--max-old-space-size`, in bytes.
    pub(in super::super) heap: Option<u64>,
    /// `--memory-max`, in bytes.
    pub(in super::super) memory_limit: Option<u64>,
    /// Our stop timeout, unless a service manager bounds the stop.
    pub(in super::super) stop_timeout: Option<Duration>,
}

/// `pid`: the supervisor, or a process where it would be; `None` if that is not known.
pub(in super::super) fn gather(
    pid: Option<i32>,
    container: Option<&Container>,
    heap: Option<u64>,
    memory_limit_kb: Option<u64>,
    stop_timeout: Option<Duration>,
) -> ContainerFacts {
    ContainerFacts {
        sign: container.map(|container| container.sign.clone()),
        ends_with_us: container.is_some_and(|container| container.ends_with_us),
        init: proc::command_of(1),
        limits: pid.map(group_limits::of).unwrap_or_default(),
        heap,
        memory_limit: memory_limit_kb.map(|kb| kb * 1024),
        stop_timeout,
    }
}

/// The supervisor that a container was started for: only it has the command line and the environment of the image. It is
/// process 1, or its child where that is an init.
pub(in super::super) fn entry_point() -> Option<i32> {
    let is_ours = |pid: &i32| proc::command_of(*pid).is_some_and(|command| runs_us(&command));
    let of_container = |pid: &i32| *pid == 1 || manager::container().is_some();
    let children = proc::children_of(1).unwrap_or_default();
    std::iter::once(1).chain(children).filter(of_container).find(is_ours)
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
