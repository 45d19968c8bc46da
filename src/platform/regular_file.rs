//! Files that another user, or a gateway, may have replaced by something that never ends or never answers.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens a file for reading, if it is no FIFO, device or directory. open(2) of a FIFO would wait for its writer.
///
/// # Errors
/// Those of open(2); it is no regular file.
pub fn open(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is not a regular file")) }
}

/// The first `limit` bytes.
///
/// # Errors
/// As [`open`], and those of read(2).
pub fn head(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    open(path)?.take(limit).read_to_end(&mut head)?;
    Ok(head)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifo_and_a_device_are_refused_at_once() {
        let folder = std::env::temp_dir().join(format!("ocs-regular-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let fifo = folder.join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        std::fs::write(folder.join("file"), "abcdef").unwrap();
        for path in [&fifo, &folder, Path::new("/dev/zero")] {
            assert_eq!(head(path, 9).unwrap_err().to_string(), "it is not a regular file", "{}", path.display());
        }
        assert_eq!(head(&folder.join("file"), 3).unwrap(), b"abc");
        std::fs::remove_dir_all(folder).unwrap();
    }
}
