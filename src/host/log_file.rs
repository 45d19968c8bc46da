//! `--log-file`: the lines of the event log once more, in a file of their own.
//!
//! It is opened again when another file, or none, has its name (logrotate(8), SIGHUP being a request here). What fails is
//! told once on stderr, which has every line anyway, and is tried again with each line: neither a full disk nor a file system
//! that hangs holds up the supervisor.

use super::clock;
use super::line_queue::LineQueue;
use crate::core::Moment;
use crate::platform::folder::Folder;
use rustix::fs::OFlags;
use rustix::io::Errno;
use std::ffi::OsStr;
use std::fs::{File, symlink_metadata};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// Between two warnings. The line that tells of a failure is one for the file too, and a disk that is nearly full takes some.
const TELL_EVERY: Duration = Duration::from_hours(1);

static QUEUE: LineQueue = LineQueue::new("log-file", "the file system of --log-file did not take them fast enough");

/// Waits for about a second until every queued line is written.
pub fn flush() {
    QUEUE.flush(|| false);
}

/// The `MakeWriter` of the file at this absolute path.
#[derive(Debug, Clone)]
pub(super) struct QueuedFile(pub(super) PathBuf);

impl<'a> MakeWriter<'a> for QueuedFile {
    type Writer = FileWriter<'a>;

    fn make_writer(&'a self) -> FileWriter<'a> {
        FileWriter(&self.0)
    }
}

pub(super) struct FileWriter<'a>(&'a Path);

impl Write for FileWriter<'_> {
    /// Queues a whole line or drops it. Neither fails nor blocks.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let make = || {
            let mut sink = Sink::new(self.0.to_owned());
            move |line: &[u8]| sink.write(line)
        };
        if QUEUE.refuses(line, make) {
            QUEUE.count_dropped();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Sink {
    path: PathBuf,
    file: Option<File>,
    /// Whether the file ends with a part of a line.
    is_torn: bool,
    /// Lines that it did not take, since the last that it took.
    missing: u64,
    /// When a failure was told last.
    told: Option<Moment>,
    /// Whether that it is written again is still to be told.
    is_to_be_cleared: bool,
}

impl Sink {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, is_torn: false, missing: 0, told: None, is_to_be_cleared: false }
    }

    fn write(&mut self, line: &[u8]) {
        match self.try_write(line) {
            Ok(()) => {
                let lines = std::mem::take(&mut self.missing);
                if std::mem::take(&mut self.is_to_be_cleared) {
                    tracing::info!(lines, "the log file {} is written again; it lacks some lines", self.path.display());
                }
            }
            Err(error) => {
                self.missing += 1;
                let now = clock::now();
                if self.told.is_none_or(|told| told.saturating_add(TELL_EVERY) <= now) {
                    (self.told, self.is_to_be_cleared) = (Some(now), true);
                    tracing::warn!(
                        "cannot write the log file {}: {error}; the gateway is supervised all the same, stderr has every \
                         line, and the file is tried again with each; free space there, or name another with --log-file",
                        self.path.display()
                    );
                }
            }
        }
    }

    fn try_write(&mut self, line: &[u8]) -> io::Result<()> {
        if !self.is_current() {
            self.file = None;
            (self.file, self.is_torn) = (Some(open(&self.path)?), false);
        }
        let Some(mut file) = self.file.as_ref() else { return Err(ErrorKind::NotFound.into()) };
        let mut rest = if self.is_torn { [b"\n", line].concat() } else { line.to_vec() };
        while !rest.is_empty() {
            match file.write(&rest) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(length) => {
                    rest.drain(..length);
                    self.is_torn = !rest.is_empty();
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Whether the open file still has the name.
    fn is_current(&self) -> bool {
        let identity = |meta: io::Result<std::fs::Metadata>| meta.ok().map(|meta| (meta.dev(), meta.ino()));
        let open = self.file.as_ref().and_then(|file| identity(file.metadata()));
        open.is_some() && open == identity(symlink_metadata(&self.path))
    }
}

/// For appending; created with mode 0600. A link is not followed, and a FIFO or device is refused.
fn open(path: &Path) -> io::Result<File> {
    let folder = Folder::open(path.parent().unwrap_or(Path::new("/")))?;
    let name = path.file_name().unwrap_or(OsStr::new("."));
    let opened = folder.open_file(name, OFlags::WRONLY | OFlags::APPEND | OFlags::CREATE);
    opened.map_err(|error| {
        let is_link = error.raw_os_error() == Some(Errno::LOOP.raw_os_error());
        if is_link { io::Error::other("it is a symbolic link, which is not followed") } else { error }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    struct Scratch(PathBuf);

    impl Scratch {
        fn new(name: &str) -> Self {
            let folder = std::env::temp_dir().join(format!("ocs-log-file-{name}-{}", std::process::id()));
            fs::create_dir_all(&folder).unwrap();
            Self(fs::canonicalize(folder).unwrap())
        }

        fn read(&self, name: &str) -> String {
            fs::read_to_string(self.0.join(name)).unwrap_or_default()
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).ok();
        }
    }

    #[test]
    fn a_renamed_removed_or_emptied_file_is_followed() {
        let scratch = Scratch::new("rotated");
        let path = scratch.0.join("log");
        let mut sink = Sink::new(path.clone());
        sink.write(b"one\n");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        fs::rename(&path, scratch.0.join("log.1")).unwrap();
        sink.write(b"two\n");
        assert_eq!((scratch.read("log.1"), scratch.read("log")), ("one\n".to_owned(), "two\n".to_owned()));
        fs::remove_file(&path).unwrap();
        sink.write(b"three\n");
        assert_eq!(scratch.read("log"), "three\n");
        File::options().write(true).open(&path).unwrap().set_len(0).unwrap();
        sink.write(b"four\n");
        assert_eq!(scratch.read("log"), "four\n", "copytruncate leaves no hole");
        assert!(sink.told.is_none());
    }

    #[test]
    fn what_cannot_be_written_is_told_once_and_written_when_it_can_be() {
        let scratch = Scratch::new("missing");
        let mut sink = Sink::new(scratch.0.join("logs/log"));
        sink.write(b"one\n");
        let told = sink.told;
        sink.write(b"two\n");
        assert!(told.is_some() && sink.told == told && sink.missing == 2);
        fs::create_dir(scratch.0.join("logs")).unwrap();
        sink.write(b"three\n");
        assert!(sink.missing == 0 && !sink.is_to_be_cleared);
        assert_eq!(scratch.read("logs/log"), "three\n");
    }

    #[test]
    fn neither_a_link_nor_a_fifo_nor_a_directory_is_written_to() {
        let scratch = Scratch::new("guards");
        symlink(scratch.0.join("target"), scratch.0.join("link")).unwrap();
        nix::unistd::mkfifo(&scratch.0.join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        fs::create_dir(scratch.0.join("folder")).unwrap();
        for (name, why) in [("link", "symbolic link"), ("fifo", ""), ("folder", "directory")] {
            let error = open(&scratch.0.join(name)).unwrap_err().to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
        assert!(!scratch.0.join("target").exists());
    }

    #[test]
    fn a_line_after_a_part_of_one_begins_a_line() {
        let scratch = Scratch::new("torn");
        let mut sink = Sink::new(scratch.0.join("log"));
        sink.write(b"one, cut he");
        sink.is_torn = true;
        sink.write(b"two\n");
        assert_eq!(scratch.read("log"), "one, cut he\ntwo\n");
    }
}
