//! Our standard output and error, which all that we start inherits. A write to a pipe without a reader ends a gateway:
//! OpenClaw exits with 0 on EPIPE, others die of SIGPIPE. A log file takes the place of such a stream.

use super::folder::Folder;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The name of the log file.
pub const LOG: &str = "output.log";

/// What it had before it was last emptied, no more than [`SIZE_MAX`] of it.
const OLD_LOG: &str = "output.log.1";

/// A larger log is emptied. With the old one it takes twice this, and what is written between two looks.
const SIZE_MAX: u64 = 8 * 1024 * 1024;

/// What a pipe that poll(2) calls ready takes without a wait: `_POSIX_PIPE_BUF` of limits.h(0p).
const PART: usize = 512;

const NOW: Timespec = Timespec { tv_sec: 0, tv_nsec: 0 };

static FOLDER: OnceLock<PathBuf> = OnceLock::new();

/// Whether standard output and error are files, which lose no reader. poll(2) would ask a FUSE server about one.
static ARE_FILES: OnceLock<[bool; 2]> = OnceLock::new();

/// Where the log file is made if it is needed. The first call counts. Looks what our standard streams are, which blocks.
pub fn set_folder(folder: PathBuf) {
    let _second = FOLDER.set(folder);
    ARE_FILES.get_or_init(|| [is_file(io::stdout()), is_file(io::stderr())]);
}

fn is_file(stream: impl AsFd) -> bool {
    rustix::fs::fstat(stream).is_ok_and(|stat| rustix::fs::FileType::from_raw_mode(stat.st_mode).is_file())
}

fn lost() -> [bool; 2] {
    let [output, errors] = ARE_FILES.get().copied().unwrap_or_default();
    [!output && is_lost(io::stdout()), !errors && is_lost(io::stderr())]
}

/// The log file, if a stream of ours is lost.
#[must_use]
pub fn log_in_use() -> Option<PathBuf> {
    FOLDER.get().filter(|_| lost().contains(&true)).map(|folder| folder.join(LOG))
}

/// What a child gets as standard output and error: `None` if it can have ours. Without a log file it is `/dev/null`.
#[must_use]
pub fn for_child() -> [Option<File>; 2] {
    lost().map(|is_lost| {
        let null = || OpenOptions::new().write(true).open("/dev/null").ok();
        is_lost.then(|| open_log().ok().or_else(null)).flatten()
    })
}

/// Whether stderr takes a write without a wait. Not asked of a file.
#[must_use]
pub fn has_room() -> bool {
    let [_, is_file] = ARE_FILES.get().copied().unwrap_or_default();
    let stderr = io::stderr();
    !is_file && poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&NOW)).is_ok_and(|ready| ready > 0)
}

/// Writes a line of our own to stderr as far as that takes it without a wait; what it refuses goes to the log file. Returns
/// whether the whole line went to one of them.
#[must_use]
pub fn write_now(line: &[u8]) -> bool {
    let stderr = io::stderr();
    for part in line.chunks(PART) {
        let mut polled = [PollFd::new(&stderr, PollFlags::OUT)];
        match poll(&mut polled, Some(&NOW)) {
            Ok(0) => return false,
            // A file is always ready, and says so with the error of the write.
            Ok(_) if write_whole(&stderr, part) => {}
            Ok(_) | Err(_) => return append(line),
        }
    }
    true
}

fn write_whole(stderr: &io::Stderr, mut part: &[u8]) -> bool {
    while !part.is_empty() {
        match rustix::io::retry_on_intr(|| rustix::io::write(stderr, part)) {
            Ok(length) if length > 0 => part = part.get(length..).unwrap_or_default(),
            Ok(_) | Err(_) => return false,
        }
    }
    true
}

/// Writes a line of our own to the log file, after stderr has refused it. Returns whether that took it.
#[must_use]
pub fn append(line: &[u8]) -> bool {
    open_log().and_then(|mut log| log.write_all(line)).is_ok()
}

/// Empties the log file if it is too large, and keeps its end. Those who write to it go on: they append. It blocks.
pub fn bound() {
    if let Some(folder) = FOLDER.get() {
        // It is tried again.
        let _large = empty_if_larger(folder, SIZE_MAX);
    }
}

/// Whether we have a controlling terminal.
#[must_use]
pub fn has_terminal() -> bool {
    // Fails with ENXIO without one, see tty(4).
    File::open("/dev/tty").is_ok()
}

/// Whether writes fail: the last reader of a pipe is gone, the peer of a socket, or the terminal, see poll(2).
/// Whether nothing reads what is written to this stream any more.
pub fn is_lost(stream: impl AsFd) -> bool {
    let mut polled = [PollFd::new(&stream, PollFlags::empty())];
    let is_known = poll(&mut polled, Some(&NOW)).is_ok();
    is_known && polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL)
}

fn open_log() -> io::Result<File> {
    let folder = FOLDER.get().ok_or(io::ErrorKind::NotFound)?;
    Folder::open(folder)?.open_file(LOG, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE)
}

fn empty_if_larger(folder: &Path, size_max: u64) -> io::Result<()> {
    let folder = Folder::open(folder)?;
    let mut log = folder.open_file(LOG, OFlags::RDWR)?;
    let size = log.metadata()?.len();
    if size <= size_max {
        return Ok(());
    }
    // A new file: not one that others may read.
    folder.remove(OLD_LOG)?;
    let mut old = folder.create_file(OLD_LOG)?;
    log.seek(SeekFrom::Start(size - size_max))?;
    io::copy(&mut (&log).take(size_max), &mut old)?;
    log.set_len(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stream_is_lost_once_its_reader_is_gone() {
        let (reader, writer) = io::pipe().unwrap();
        assert!(!is_lost(&writer));
        drop(reader);
        assert!(is_lost(&writer));
        let (one, other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(!is_lost(&one));
        drop(other);
        assert!(is_lost(&one));
        assert!(!is_lost(OpenOptions::new().write(true).open("/dev/null").unwrap()));
    }

    #[test]
    fn a_log_that_is_too_large_keeps_its_end_and_its_writers_go_on() {
        let folder = std::env::temp_dir().join(format!("ocs-log-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut writer = OpenOptions::new().append(true).create(true).open(folder.join(LOG)).unwrap();
        for _ in 0..2 {
            writer.write_all(b"0123456789").unwrap();
            empty_if_larger(&folder, 10).unwrap();
            assert_eq!(std::fs::read(folder.join(LOG)).unwrap(), b"0123456789", "it has room");
            writer.write_all(b"abc").unwrap();
            empty_if_larger(&folder, 10).unwrap();
            assert_eq!(std::fs::read(folder.join(OLD_LOG)).unwrap(), b"3456789abc");
            assert_eq!(std::fs::read(folder.join(LOG)).unwrap(), b"", "what follows begins at its start");
        }
        std::fs::remove_dir_all(folder).unwrap();
    }
}
