//! Descriptors that we inherited.

use std::fs;
use std::os::fd::RawFd;

/// Keeps every descriptor but the standard streams from the programs that we start: a parent may have left us one that is
/// not close-on-exec, such as the channel of pm2. To be called before the first spawn.
pub fn keep_from_children() {
    let entries = fs::read_dir("/dev/fd").or_else(|_| fs::read_dir("/proc/self/fd"));
    let numbers = entries.into_iter().flatten().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    for number in numbers.filter(|number: &RawFd| *number > 2) {
        // SAFETY: it sets a flag of a number, which does nothing if it names no descriptor any more.
        unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
    }
}
