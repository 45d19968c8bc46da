//! The files of control groups.

use rustix::fs::{CWD, Mode, OFlags, openat};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

pub(super) fn open_group(parent: impl AsFd, name: &str) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

pub(super) fn read(group: impl AsFd, name: &str) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::from(openat(group, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?);
    let mut bytes = Vec::with_capacity(4096);
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}

pub(super) fn write(group: impl AsFd, name: &str, text: &str) -> io::Result<()> {
    let file = openat(group, name, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?;
    std::fs::File::from(file).write_all(text.as_bytes())
}

pub(super) fn is_gone(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ENODEV))
}

pub(super) fn is_for_threads(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EOPNOTSUPP)
}

pub(super) fn numbers(list: &[u8]) -> impl Iterator<Item = i32> {
    list.split(u8::is_ascii_whitespace).filter_map(|word| std::str::from_utf8(word).ok()?.parse().ok())
}

/// The text of a file, with a read that its size cannot mislead.
pub(super) fn text_of(path: impl AsRef<Path>) -> io::Result<String> {
    let file = openat(CWD, path.as_ref(), OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    let mut text = String::with_capacity(4096);
    std::fs::File::from(file).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_are_pids() {
        assert_eq!(numbers(b"1\n22\n\nx\n0\n").collect::<Vec<_>>(), [1, 22, 0]);
    }
}
