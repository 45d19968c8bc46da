//! Lines for a file or stream that may block. A thread writes what the loop queues; it is started with the first line.
//! Lines beyond the limit are dropped, counted and reported when there is room again.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, channel, sync_channel};
use std::time::Duration;

/// A line has a few hundred bytes, and a busy hour a few dozen lines.
const LINES_WAITING_MAX: usize = 1024;

const FLUSH_TIME_MAX: Duration = Duration::from_secs(1);

enum Command {
    Line(Vec<u8>),
    /// Acknowledged when everything before it is written.
    Flush(Sender<()>),
}

pub(super) struct LineQueue {
    /// The name of its thread.
    name: &'static str,
    /// What to tell with the number of dropped lines.
    dropped_because: &'static str,
    thread: OnceLock<SyncSender<Command>>,
    dropped: AtomicU64,
}

impl LineQueue {
    pub(super) const fn new(name: &'static str, dropped_because: &'static str) -> Self {
        Self { name, dropped_because, thread: OnceLock::new(), dropped: AtomicU64::new(0) }
    }

    /// Queues a whole line, or drops it where there is no room. Returns whether the line was left to the caller: no thread can
    /// be started now. `make` is called for a new thread, which writes by what it returns. Never blocks.
    #[must_use]
    pub(super) fn refuses<W>(&'static self, line: &[u8], make: impl FnOnce() -> W) -> bool
    where
        W: FnMut(&[u8]) + Send + 'static,
    {
        if self.thread.get().is_none() {
            let (sender, commands) = sync_channel(LINES_WAITING_MAX);
            let write = make();
            let thread = std::thread::Builder::new().name(self.name.to_owned());
            if thread.spawn(move || self.write_all(&commands, write)).is_ok() {
                // Of two that are started at the same time, one ends with its sender.
                let _second = self.thread.set(sender);
            }
        }
        let Some(thread) = self.thread.get() else { return true };
        if thread.try_send(Command::Line(line.to_vec())).is_err() {
            self.count_dropped();
        }
        false
    }

    pub(super) fn count_dropped(&self) {
        self.dropped.fetch_add(1, Ordering::Relaxed);
    }

    /// Waits until every queued line is written, for [`FLUSH_TIME_MAX`], and again while `is_worth_it`.
    pub(super) fn flush(&self, mut is_worth_it: impl FnMut() -> bool) {
        let Some(thread) = self.thread.get() else { return };
        let (done, written) = channel();
        if thread.try_send(Command::Flush(done)).is_ok() {
            while written.recv_timeout(FLUSH_TIME_MAX) == Err(RecvTimeoutError::Timeout) && is_worth_it() {}
        }
    }

    fn write_all(&self, commands: &Receiver<Command>, mut write: impl FnMut(&[u8])) {
        for command in commands {
            match command {
                Command::Line(line) => write(&line),
                // A flush that has timed out does not end the thread.
                Command::Flush(done) => drop(done.send(())),
            }
            let lines = self.dropped.swap(0, Ordering::Relaxed);
            if lines > 0 {
                tracing::warn!(lines, "log lines were dropped: {}", self.dropped_because);
            }
        }
    }
}
