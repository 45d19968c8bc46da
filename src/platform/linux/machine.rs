//! The machine that we run on: what tells whether a process id means the same to another process.

use std::fs;
use std::os::unix::fs::MetadataExt;

/// A name that this boot of the machine alone has, see random(4).
#[must_use]
pub fn boot_id() -> Option<String> {
    trimmed("/proc/sys/kernel/random/boot_id")
}

/// The physical memory in bytes, see proc(5).
#[must_use]
pub fn memory() -> Option<u64> {
    let table = fs::read_to_string("/proc/meminfo").ok()?;
    let row = table.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    row.split_ascii_whitespace().next()?.parse::<u64>().ok()?.checked_mul(1024)
}

/// A kind of namespace, see namespaces(7).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    Pid,
    Uts,
    Ipc,
    Cgroup,
}

impl Namespace {
    /// Whether a process is in the one that the machine booted with; `None` if that cannot be seen. Their numbers are fixed
    /// in `include/linux/proc_ns.h`.
    #[must_use]
    pub fn is_first(self, pid: i32) -> Option<bool> {
        let (name, first) = match self {
            Self::Pid => ("pid", 0xEFFF_FFFC),
            Self::Uts => ("uts", 0xEFFF_FFFE),
            Self::Ipc => ("ipc", 0xEFFF_FFFF),
            Self::Cgroup => ("cgroup", 0xEFFF_FFFB),
        };
        // Our own entry is right even if `/proc` is that of another pid namespace.
        let owner = if pid == std::process::id().cast_signed() { "self".to_owned() } else { pid.to_string() };
        fs::metadata(format!("/proc/{owner}/ns/{name}")).ok().map(|namespace| namespace.ino() == first)
    }
}

/// The number of our pid namespace, see `pid_namespaces(7)`: another one has other processes under the same ids.
#[must_use]
pub fn pid_namespace() -> Option<u64> {
    fs::metadata("/proc/self/ns/pid").ok().map(|namespace| namespace.ino())
}

/// The name of the machine or container.
#[must_use]
pub fn host_name() -> Option<String> {
    trimmed("/proc/sys/kernel/hostname")
}

/// Whether something keeps the wall clock right: the kernel's state, see adjtimex(2), which every NTP client sets. `None` if a
/// sandbox forbids the call.
#[must_use]
pub fn is_clock_synchronised() -> Option<bool> {
    // SAFETY: a `timex` of zeros is valid, and with `modes` 0 the kernel changes nothing and fills it.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer is that of a live `timex`.
    let answer = unsafe { libc::adjtimex(&raw mut state) };
    (answer >= 0).then_some(state.status & libc::STA_UNSYNC == 0)
}

fn trimmed(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_all_three_and_the_same_twice() {
        assert!(boot_id().is_some_and(|id| id.len() == 36), "{:?}", boot_id());
        assert!(pid_namespace().is_some_and(|number| number > 0));
        assert!(host_name().is_some());
        assert_eq!((boot_id(), pid_namespace()), (boot_id(), pid_namespace()));
    }
}
