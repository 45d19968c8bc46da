//! The reports for the clients that watch.

use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast};
use tokio::time::timeout;

/// How many clients are served at a time.
pub const CLIENTS_MAX: usize = 8;
const CLIENTS: u32 = 8;

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
    /// One permit a client.
    places: Arc<Semaphore>,
}

impl Default for Broadcast {
    fn default() -> Self {
        let (lines, _) = broadcast::channel(REPORTS_WAITING_MAX);
        Self { lines, places: Arc::new(Semaphore::new(CLIENTS_MAX)) }
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
            let _too_slow = timeout(FINISH_TIME_MAX, self.places.acquire_many(CLIENTS)).await;
        }
    }

    /// A place for one more client. `None` if all are taken.
    pub(super) fn place(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.places).try_acquire_owned().ok()
    }

    pub(super) fn subscribe(&self) -> Reports {
        self.lines.subscribe()
    }
}
