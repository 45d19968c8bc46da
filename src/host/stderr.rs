//! Standard error, without ever waiting for it.
//!
//! A pipe that nobody reads (a stuck log driver, a paused pager) blocks whoever writes to it, and `O_NONBLOCK` would
//! be set for the gateway too, with which we share the open file. So a thread does the writing, and the loop hands it
//! lines and goes on. What it cannot take is dropped, counted, and told of as soon as there is room.

use std::io::{self, Write};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;
use tracing_subscriber::fmt::MakeWriter;

/// How many lines may wait. One is a few hundred bytes, and a busy hour has a few dozen.
const LINES_WAITING_MAX: usize = 1024;

/// How long the last lines may take at the end.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

enum Work {
    Line(Vec<u8>),
    /// Answered when everything before it is written.
    Flush(Sender<()>),
}

static WRITER: OnceLock<SyncSender<Work>> = OnceLock::new();
static DROPPED: AtomicU64 = AtomicU64::new(0);

/// Waits until everything that was handed over is written, but for a second at most.
pub fn flush() {
    let (done, written) = channel();
    if writer().try_send(Work::Flush(done)).is_ok() {
        // Nobody reads: then nobody misses the rest.
        let _late = written.recv_timeout(FLUSH_TIME_MAX);
    }
}

/// The `MakeWriter` of the log.
#[derive(Debug, Clone, Copy)]
pub struct Stderr;

impl<'a> MakeWriter<'a> for Stderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl Write for Stderr {
    /// Takes a whole line, or loses it: it never fails and never waits.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) = writer().try_send(Work::Line(line.to_vec()))
        {
            DROPPED.fetch_add(1, Ordering::Relaxed);
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn writer() -> &'static SyncSender<Work> {
    WRITER.get_or_init(|| {
        let (lines, work) = sync_channel(LINES_WAITING_MAX);
        let named = std::thread::Builder::new().name("stderr".to_owned());
        // Without a thread there is no log, but still a supervisor: the receiver is dropped and every line counted.
        let _no_log = named.spawn(move || write_all(&work));
        lines
    })
}

fn write_all(work: &Receiver<Work>) {
    let mut stderr = io::stderr();
    for work in work {
        // Neither a closed stderr nor a flush that nobody waits for any more is a reason to end.
        let _nobody_there = match work {
            Work::Line(line) => stderr.write_all(&line).is_ok(),
            Work::Flush(done) => done.send(()).is_ok(),
        };
        let lines = DROPPED.swap(0, Ordering::Relaxed);
        if lines > 0 {
            tracing::warn!(lines, "nobody read the log for a while, and lines were lost");
        }
    }
}
