//! The control socket, for every process that may signal us.
//!
//! A stream socket in the store directory, `control.sock`, for this user and root alone. A client writes one line and
//! reads lines until it has heard enough; `docs/CONTROL.md` is the contract. Nothing here decides anything, and nothing
//! waits for a client: one that does not read, writes too much or is too slow is disconnected.

mod answer;
mod connection;
mod line;
mod session;
mod socket;
mod status;

pub use connection::{ANSWER_TIME_MAX, Connection, ConnectionError};
pub use socket::NAME;
pub use status::{Facts, GatewayReply, LeaseReply, NextReply, ProbeReply, RestartsReply, StatusReply, SupervisorReply};

use crate::core::{Request, Requester, Status};
use nix::unistd::Uid;
use session::Office;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// How many clients are served at a time.
pub const CLIENTS_MAX: usize = 8;
const CLIENTS: u32 = 8;

/// How many reports may wait for one client. A stop with everything that can go wrong has some twenty.
const REPORTS_WAITING_MAX: usize = 64;

/// How long no client is accepted after accept(2) failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// How long the last reports may take at the end.
const FINISH_TIME_MAX: Duration = Duration::from_millis(500);

/// What a client wants from the loop.
#[derive(Debug)]
pub enum Query {
    /// What are you doing? The answer goes into the channel.
    Status(oneshot::Sender<Status>),
    /// Do this.
    Request {
        /// What.
        request: Request,
        /// Who asked.
        by: Requester,
    },
}

/// A report for the clients; none is the last one.
type Line = Option<Arc<str>>;

/// The socket. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    /// Removes the file.
    _file: socket::File,
    broadcast: Broadcast,
}

impl Control {
    /// Makes the socket, in place of the one of a predecessor that is gone: only who holds the lease may do this. Must be
    /// called within a runtime.
    ///
    /// # Errors
    /// What bind(2) says, or that the path is too long for a socket of this system.
    pub fn bind(store_dir: &Path) -> io::Result<Self> {
        let (listener, file) = socket::bind(store_dir)?;
        let listener = UnixListener::from_std(listener)?;
        Ok(Self { listener, _file: file, broadcast: Broadcast::default() })
    }

    /// Its clients hear what is told there: what those of an earlier socket of ours do.
    #[must_use]
    pub fn joining(self, broadcast: Broadcast) -> Self {
        Self { broadcast, ..self }
    }

    /// Sends reports to the clients that watch.
    #[must_use]
    pub fn broadcast(&self) -> Broadcast {
        self.broadcast.clone()
    }

    /// Serves clients for as long as this is polled. What they want from the loop goes to `messages`.
    pub async fn serve(self, messages: mpsc::Sender<impl From<Query> + Send + 'static>, facts: Facts) {
        let office = Arc::new(Office { messages, facts, broadcast: self.broadcast.clone() });
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => self.admit(stream, &office),
                // No descriptor, no memory: it stays so for a while, and the client waits in the backlog.
                Err(_) => sleep(PAUSE_AFTER_ERROR).await,
            }
        }
    }

    fn admit(&self, stream: UnixStream, office: &Arc<Office<impl From<Query> + Send + 'static>>) {
        let peer = match stream.peer_cred() {
            Ok(peer) if may_ask(peer.uid()) => peer,
            Ok(peer) => return turn_away(&stream, &format!("uid {} may not ask here", peer.uid())),
            Err(error) => return turn_away(&stream, &format!("the kernel does not tell who asks: {error}")),
        };
        let Ok(place) = Arc::clone(&self.broadcast.places).try_acquire_owned() else {
            return turn_away(&stream, &format!("{CLIENTS_MAX} clients are being served; ask again later"));
        };
        let office = Arc::clone(office);
        tokio::spawn(async move {
            // A client that went away is no news.
            let _gone = session::serve(&stream, peer, &office).await;
            drop(place);
        });
    }
}

/// Who may signal us may ask us.
fn may_ask(uid: u32) -> bool {
    uid == 0 || uid == Uid::effective().as_raw()
}

/// The buffer of a new connection has room for one line; where it has not, the client learns it from the end.
fn turn_away(stream: &UnixStream, why: &str) {
    let _full = stream.try_write(answer::error(why).as_bytes());
}

/// Tells reports to every client that watches, and waits for none.
#[derive(Debug, Clone)]
pub struct Broadcast {
    lines: broadcast::Sender<Line>,
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

    /// Hands one report on: an object of the event log, without a line end.
    pub fn tell(&self, line: &str) {
        if self.is_heard() {
            // It fails when the last one has just gone.
            let _nobody = self.lines.send(Some(Arc::from(line)));
        }
    }

    /// Lets every client go once it has read what is there, and waits half a second for that at most. To be called
    /// after the last report, before the runtime ends.
    pub async fn finish(&self) {
        if self.lines.send(None).is_ok() {
            let _too_slow = timeout(FINISH_TIME_MAX, self.places.acquire_many(CLIENTS)).await;
        }
    }

    fn subscribe(&self) -> broadcast::Receiver<Line> {
        self.lines.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_user_and_root_may_ask() {
        let me = Uid::effective().as_raw();
        assert!(may_ask(0) && may_ask(me));
        assert!(!may_ask(me + 1) && !may_ask(u32::MAX));
    }
}
