//! A claim on a port that every process of the network namespace can see, whatever files it shares with us: an abstract
//! socket, see unix(7). It is gone with its holder, and it listens, so that a connection names that one.

use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use std::io;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::time::Duration;

/// How long serving pauses when a connection cannot be accepted (no descriptors): there is no hurry.
const PAUSE: Duration = Duration::from_secs(1);

/// A port that is claimed until this is dropped, and every [`Server`] of it.
#[derive(Debug)]
pub struct Claim {
    listener: UnixListener,
}

/// Somebody else's claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Who, where that can be seen: another pid namespace is not.
    pub by: Option<i32>,
}

/// What came of an attempt.
#[derive(Debug)]
pub enum Attempt {
    /// It is ours.
    Taken(Claim),
    /// It is not.
    Held(Held),
    /// Its holder was there and is not any more, or is about to listen: try again.
    Changing,
}

fn name(port: u16) -> String {
    format!("openclaw-supervise/{port}")
}

/// Takes the claim if nobody has it.
///
/// # Errors
/// No descriptors, or no such sockets in this sandbox.
pub fn take(port: u16) -> io::Result<Attempt> {
    match UnixListener::bind_addr(&SocketAddr::from_abstract_name(name(port))?) {
        Ok(listener) => Ok(Attempt::Taken(Claim { listener })),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Ok(peek(port)?.map_or(Attempt::Changing, Attempt::Held))
        }
        Err(error) => Err(error),
    }
}

/// Looks whether somebody has the claim.
///
/// # Errors
/// As [`take`].
pub fn peek(port: u16) -> io::Result<Option<Held>> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    match connect(socket.as_raw_fd(), &UnixAddr::new_abstract(name(port).as_bytes())?) {
        // The pid is 0 where it has no name in our pid namespace.
        Ok(()) => Ok(Some(Held { by: Some(getsockopt(&socket, PeerCredentials)?.pid()).filter(|&pid| pid > 0) })),
        // Its queue is full: there, and busy or stopped.
        Err(nix::Error::EAGAIN) => Ok(Some(Held { by: None })),
        Err(nix::Error::ECONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

impl Claim {
    /// What has to be served so that the claim keeps naming its holder.
    ///
    /// # Errors
    /// No descriptors.
    pub fn server(&self) -> io::Result<Server> {
        self.listener.set_nonblocking(true)?;
        Ok(Server { listener: self.listener.try_clone()? })
    }
}

/// The other end of every look at the claim. A connection stays in the queue of the listener, though its maker is gone,
/// until it is accepted; a full queue names nobody.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
}

impl Server {
    /// Accepts connections and drops them, for ever. It needs the reactor and the timer of a tokio runtime.
    pub async fn serve(self) {
        let Ok(listener) = tokio::net::UnixListener::from_std(self.listener) else { return };
        loop {
            if listener.accept().await.is_err() {
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A port that nobody else claims: it is ours as a TCP port for as long as the listener lives.
    fn port() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn me() -> Held {
        Held { by: Some(std::process::id().cast_signed()) }
    }

    #[test]
    fn one_claim_a_port_it_names_its_holder_and_is_gone_with_it() {
        let (_tcp, port) = port();
        assert_eq!(peek(port).unwrap(), None);
        let Attempt::Taken(claim) = take(port).unwrap() else { panic!("nobody had it") };
        assert!(matches!(take(port).unwrap(), Attempt::Held(held) if held == me()));
        assert_eq!(peek(port).unwrap(), Some(me()));
        drop(claim);
        assert_eq!(peek(port).unwrap(), None);
        assert!(matches!(take(port).unwrap(), Attempt::Taken(_)));
    }

    #[tokio::test]
    async fn a_claim_that_is_served_names_its_holder_however_often_it_is_asked() {
        let (_tcp, port) = port();
        let Attempt::Taken(claim) = take(port).unwrap() else { panic!("nobody had it") };
        let serving = tokio::spawn(claim.server().unwrap().serve());
        // More than any queue holds (net.core.somaxconn).
        for round in 0..10_000 {
            assert_eq!(peek(port).unwrap(), Some(me()), "{round}");
            tokio::task::yield_now().await;
        }
        serving.abort();
    }

    #[test]
    fn a_claim_that_nobody_serves_is_held_all_the_same() {
        let (_tcp, port) = port();
        let Attempt::Taken(_claim) = take(port).unwrap() else { panic!("nobody had it") };
        let nobody = (0..10_000).find(|_| peek(port).unwrap() == Some(Held { by: None }));
        assert!(nobody.is_some(), "the queue fills up");
        assert!(matches!(take(port).unwrap(), Attempt::Held(Held { by: None })));
    }
}
