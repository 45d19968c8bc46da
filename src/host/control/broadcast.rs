//! The reports for the clients that watch.

use super::slots::Slots;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast;
use tokio::time::timeout;

/// How many reports may wait for one client. A stop with everything that can go wrong has some twenty.
const REPORTS_WAITING_MAX: usize = 64;

/// How long the last reports may take at the end.
const FINISH_TIME_MAX: Duration = Duration::from_millis(500);

/// What a client that watches reads.
pub(super) type Reports = broadcast::Receiver<Option<Arc<str>>>;

/// Sends reports to every client that watches, and waits for none.
#[derive(Debug, Clone)]
pub struct Broadcast {
    /// `None` is the end.
    lines: broadcast::Sender<Option<Arc<str>>>,
    /// Clients before the answer to their request.
    pub(super) askers: Slots,
    /// Those that hear reports, so that they keep no other from asking.
    pub(super) watchers: Slots,
}

impl Default for Broadcast {
    fn default() -> Self {
        let (lines, _) = broadcast::channel(REPORTS_WAITING_MAX);
        Self { lines, askers: Slots::default(), watchers: Slots::default() }
    }
}

impl Broadcast {
    /// Whether a client watches.
    #[must_use]
    pub fn is_heard(&self) -> bool {
        self.lines.receiver_count() > 0
    }

    /// Sends one report: an object of the event log, without a line end.
    pub fn tell(&self, line: &str) {
        if self.is_heard() {
            // Fails if the last client has just left.
            let _no_client = self.lines.send(Some(Arc::from(line)));
        }
    }

    /// Disconnects every client once it has read what is pending, and waits up to [`FINISH_TIME_MAX`] for that. To be
    /// called after the last report, before the runtime ends.
    pub async fn finish(&self) {
        if self.lines.send(None).is_ok() {
            let empty = async { tokio::join!(self.askers.emptied(), self.watchers.emptied()) };
            let _too_slow = timeout(FINISH_TIME_MAX, empty).await;
        }
    }

    pub(super) fn subscribe(&self) -> Reports {
        self.lines.subscribe()
    }
}
