//! Non-blocking standard error.
//!
//! Writing to a pipe without a reader (a stuck log driver, a paused pager) blocks, and `O_NONBLOCK` would also apply to the
//! gateway, with which we share the open file description. So a thread writes the lines that the loop queues. Lines beyond
//! the limit are dropped, counted and reported when there is room again. What stderr refuses (its reader is gone) goes to the
//! log file in the store directory. Where no thread can be started (a limit on processes), the loop writes what stderr takes
//! at once, and each line tries again to start one.

use crate::platform::standard_streams;
use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// A line has a few hundred bytes, and a busy hour a few dozen lines.
const LINES_WAITING_MAX: usize = 1024;

const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

/// So many times that, while stderr has room: then its thread gets no processor.
const FLUSHES_MAX: u32 = 5;

enum WriterCommand {
    Line(Vec<u8>),
    /// Acknowledged when everything before it is written.
    Flush(Sender<()>),
}

static WRITER: OnceLock<SyncSender<WriterCommand>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Waits until every queued line is written, for [`FLUSH_TIME_MAX`], or [`FLUSHES_MAX`] times that.
pub fn flush() {
    let Some(writer) = WRITER.get() else { return };
    let (done, written) = channel();
    if writer.try_send(WriterCommand::Flush(done)).is_ok() {
        // A timeout without room means that stderr is not read.
        let is_late = || written.recv_timeout(FLUSH_TIME_MAX) == Err(RecvTimeoutError::Timeout);
        let _lost = (0..FLUSHES_MAX).all(|_| is_late() && standard_streams::has_room());
    }
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
        let is_taken = match writer() {
            Some(writer) => writer.try_send(WriterCommand::Line(line.to_vec())).is_ok(),
            None => standard_streams::write_now(line),
        };
        if !is_taken {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// `None` if no thread can be started now.
fn writer() -> Option<&'static SyncSender<WriterCommand>> {
    if WRITER.get().is_none() {
        let (sender, commands) = sync_channel(LINES_WAITING_MAX);
        let thread = std::thread::Builder::new().name("stderr".to_owned());
        if thread.spawn(move || write_all(&commands)).is_ok() {
            // Of two that are started at the same time, one ends with its sender.
            let _second = WRITER.set(sender);
        }
    }
    WRITER.get()
}

fn write_all(commands: &Receiver<WriterCommand>) {
    let mut stderr = io::stderr();
    for command in commands {
        match command {
            WriterCommand::Line(line) => {
                if stderr.write_all(&line).is_err() {
                    let _lost = standard_streams::append(&line);
                }
            }
            // A flush that has timed out does not end the thread.
            WriterCommand::Flush(done) => drop(done.send(())),
        }
        let lines = DROPPED.swap(0, Ordering::Relaxed);
        if lines > 0 {
            tracing::warn!(lines, "log lines were dropped: stderr was not read fast enough");
        }
    }
}
