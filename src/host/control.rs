//! The control socket, for every process that may signal us.
//!
//! A stream socket in the store directory, `control.sock`, for this user and root alone; a supervisor in standby has one
//! under a name of its own. A client writes one line and
//! reads the answer, as `docs/CONTROL.md` specifies. Nothing here decides anything or waits for a client: one that does
//! not read, writes too much or is too slow is disconnected.

mod answer;
mod broadcast;
mod connection;
mod line;
mod metrics;
mod session;
mod slots;
mod socket;
mod status;

pub use answer::asking;
pub use broadcast::Broadcast;
pub use connection::{ANSWER_TIME_MAX, Connection, ConnectionError};
pub use metrics::{GatewayMetrics, MetricsReply, TotalReply};
pub use session::{ENDING, IsInside, Query, identify};
pub use slots::CLIENTS_MAX;
pub use socket::{BoundSocket, NAME, SocketFile, standby_name};
pub use status::{
    Facts, GatewayReply, LeaseReply, NextReply, PausedReply, ProbeReply, RestartsReply, StatusReply, SupervisorReply,
};

use session::Shared;
use socket::may_ask;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::mpsc;
use tokio::time::sleep;

/// How long a client may keep its request to itself while all slots are taken and another client waits.
const SILENCE_MAX: Duration = Duration::from_millis(100);

/// How long no client is accepted after accept(2) failed.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);

/// The socket. Its file goes when this is dropped.
#[derive(Debug)]
pub struct Control {
    listener: UnixListener,
    file: Arc<SocketFile>,
    broadcast: Broadcast,
}

impl Control {
    /// Must be called within a runtime.
    ///
    /// # Errors
    /// EMFILE.
    pub fn on(BoundSocket(listener, file): BoundSocket) -> io::Result<Self> {
        let listener = UnixListener::from_std(listener)?;
        Ok(Self { listener, file: Arc::new(file), broadcast: Broadcast::default() })
    }

    #[must_use]
    pub fn file(&self) -> Arc<SocketFile> {
        Arc::clone(&self.file)
    }

    /// Sends its clients the reports of `broadcast`, the one of our previous socket.
    #[must_use]
    pub fn joining(self, broadcast: Broadcast) -> Self {
        Self { broadcast, ..self }
    }

    #[must_use]
    pub fn broadcast(&self) -> Broadcast {
        self.broadcast.clone()
    }

    /// Serves clients for as long as this is polled. Their queries go to `messages`.
    pub async fn serve(
        self,
        messages: mpsc::Sender<impl From<Query> + Send + 'static>,
        facts: Facts,
        is_inside: IsInside,
    ) {
        let shared = Arc::new(Shared { messages, facts, is_inside, broadcast: self.broadcast.clone() });
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => self.admit(stream, &shared).await,
                // No descriptor or no memory, for a while: the client waits in the backlog.
                Err(_) => sleep(PAUSE_AFTER_ERROR).await,
            }
        }
    }

    async fn admit(&self, stream: UnixStream, shared: &Arc<Shared<impl From<Query> + Send + 'static>>) {
        let peer = match stream.peer_cred() {
            Ok(peer) if may_ask(peer.uid()) => peer,
            Ok(peer) => return turn_away(&stream, &format!("uid {} may not ask here", peer.uid())),
            Err(error) => return turn_away(&stream, &format!("the kernel does not name the client: {error}")),
        };
        let slot = self.broadcast.askers.enter(false, SILENCE_MAX).await;
        let shared = Arc::clone(shared);
        tokio::spawn(async move {
            let _disconnected = session::serve(&stream, peer, &shared, slot).await;
        });
    }
}

/// The buffer of a new connection has room for one line; if not, the client only sees the connection close.
fn turn_away(stream: &UnixStream, why: &str) {
    let _full = stream.try_write(answer::error(why).as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Uid;

    #[test]
    fn only_this_user_and_root_may_ask() {
        let me = Uid::effective().as_raw();
        assert!(may_ask(0) && may_ask(me));
        assert!(!may_ask(me + 1) && !may_ask(u32::MAX));
    }
}
