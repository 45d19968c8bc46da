//! The machine that we run on: what tells whether a process id means the same to another process.

use std::ffi::CStr;
use std::ptr;

/// A name that this boot of the machine alone has.
#[must_use]
pub fn boot_id() -> Option<String> {
    text_of(c"kern.bootsessionuuid")
}

/// The physical memory in bytes.
#[must_use]
pub fn memory() -> Option<u64> {
    number_of(c"hw.memsize")
}

/// A kind of namespace of Linux.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Namespace {
    Pid,
    Uts,
    Ipc,
    Cgroup,
}

impl Namespace {
    /// There is one of each.
    #[must_use]
    pub fn is_first(self, _pid: i32) -> Option<bool> {
        Some(true)
    }
}

/// There are no pid namespaces.
#[must_use]
pub fn pid_namespace() -> Option<u64> {
    None
}

/// Whether something keeps the wall clock right: not asked here.
#[must_use]
pub fn is_clock_synchronised() -> Option<bool> {
    None
}

/// The name of the machine.
#[must_use]
pub fn host_name() -> Option<String> {
    text_of(c"kern.hostname")
}

/// A number of sysctl(3), unless it is 0.
pub(super) fn number_of(name: &CStr) -> Option<u64> {
    let (mut number, mut size) = (0_u64, size_of::<u64>());
    // SAFETY: the name ends with a NUL; the kernel writes at most `size` bytes to `number`, which has as many; nothing is
    // to be set.
    let result =
        unsafe { libc::sysctlbyname(name.as_ptr(), (&raw mut number).cast(), &raw mut size, ptr::null_mut(), 0) };
    (result == 0 && size == size_of::<u64>() && number > 0).then_some(number)
}

/// A text of sysctl(3); those that are asked for are far shorter than the room that it gets.
fn text_of(name: &CStr) -> Option<String> {
    let mut text = [0_u8; 256];
    let mut size = text.len();
    // SAFETY: the name ends with a NUL; the kernel writes at most `size` bytes to `text`, which has as many; nothing is
    // to be set.
    let result =
        unsafe { libc::sysctlbyname(name.as_ptr(), text.as_mut_ptr().cast(), &raw mut size, ptr::null_mut(), 0) };
    let text = CStr::from_bytes_until_nul(&text).ok().filter(|text| result == 0 && !text.is_empty())?;
    text.to_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_tells_its_boot_and_its_host() {
        assert!(boot_id().is_some_and(|id| id.len() == 36), "{:?}", boot_id());
        assert!(host_name().is_some());
        assert_eq!(text_of(c"kern.no_such_name"), None);
    }
}
