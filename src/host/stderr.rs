//! Non-blocking standard error.
//!
//! Writing to a pipe without a reader (a stuck log driver, a paused pager) blocks, and `O_NONBLOCK` would also apply to the
//! gateway, with which we share the open file description. So a thread writes the lines that the loop queues. What stderr
//! refuses (its reader is gone) goes to the log file in the store directory. Where no thread can be started (a limit on
//! processes), the loop writes what stderr takes at once, and each line tries again to start one.

use super::line_queue::LineQueue;
use crate::platform::standard_streams;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use tracing_subscriber::fmt::MakeWriter;

/// So many times that, while stderr has room: then its thread gets no processor.
const FLUSHES_MAX: u32 = 5;

static QUEUE: LineQueue = LineQueue::new("stderr", "stderr was not read fast enough");

/// Waits for about a second until every queued line is written, and up to five where stderr is read.
pub fn flush() {
    let mut left = FLUSHES_MAX;
    // A timeout without room means that stderr is not read.
    QUEUE.flush(|| {
        left = left.saturating_sub(1);
        left > 0 && standard_streams::has_room()
    });
}

/// Whether stderr is a stream of systemd's journal. There a line may begin with its priority, see sd-daemon(3).
#[must_use]
pub fn is_journal() -> bool {
    is_stream(std::env::var("JOURNAL_STREAM").ok().as_deref(), identity())
}

/// Device and inode of our standard error.
fn identity() -> Option<(u64, u64)> {
    let file = File::from(io::stderr().as_fd().try_clone_to_owned().ok()?);
    file.metadata().ok().map(|meta| (meta.dev(), meta.ino()))
}

/// The variable alone proves nothing: it is inherited, and a parent may have redirected our output, see systemd.exec(5).
fn is_stream(journal: Option<&str>, stderr: Option<(u64, u64)>) -> bool {
    let stream = journal.and_then(|stream| stream.split_once(':'));
    let stream = stream.and_then(|(device, inode)| Some((device.parse().ok()?, inode.parse().ok()?)));
    stream.is_some() && stream == stderr
}

/// The log's `MakeWriter`.
#[derive(Debug, Clone, Copy)]
pub struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for Stderr {
    /// Queues a whole line or drops it. Neither fails nor blocks.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if QUEUE.refuses(line, || write_line) && !standard_streams::write_now(line) {
            QUEUE.count_dropped();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn write_line(line: &[u8]) {
    if io::stderr().write_all(line).is_err() {
        let _lost = standard_streams::append(without_priority(line));
    }
}

/// The priority is for the journal alone.
fn without_priority(line: &[u8]) -> &[u8] {
    match line {
        [b'<', b'0'..=b'7', b'>', rest @ ..] => rest,
        _ => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stderr_goes_to_the_journal_only_if_device_and_inode_match() {
        for (stream, stderr, expected) in [
            (Some("8:1234"), Some((8, 1234)), true),
            (Some("8:1234"), Some((8, 1235)), false),
            (Some("8:1234"), None, false),
            (Some("8"), Some((8, 8)), false),
            (Some("x:y"), None, false),
            (None, None, false),
        ] {
            assert_eq!(is_stream(stream, stderr), expected, "{stream:?} {stderr:?}");
        }
    }

    #[test]
    fn what_the_journal_does_not_take_has_no_priority() {
        assert_eq!(without_priority(b"<3>ERROR x\n"), b"ERROR x\n");
        assert_eq!(without_priority(b"{\"a\":1}\n"), b"{\"a\":1}\n");
    }
}
