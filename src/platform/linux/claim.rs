//! A claim on a port that every process of the network namespace can see, whatever files it shares with us: an abstract
//! socket, see unix(7). It is gone with its holder, and it listens, so that a connection names that one.
//!
//! Any user may take any name. What the claim of another user says counts for nothing ([`Claimant::is_trusted`]): it is
//! told of, and the lease and the look at the port decide.

use super::listener;
use super::proc::uid_of;
pub use crate::platform::claimant::Claimant;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, getsockopt, socket};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::Duration;
use tokio::io::AsyncReadExt;

/// How long serving pauses when a connection cannot be accepted (no descriptors): there is no hurry.
const PAUSE: Duration = Duration::from_secs(1);

/// So many connections are accepted between two rests: a flood of them costs 1 % of a processor, and its client waits.
const BURST: u32 = 64;
const REST: Duration = Duration::from_millis(50);

/// `PATH_MAX`.
const PATH_LENGTH_MAX: u64 = 4096;

/// A port that is claimed until this is dropped, and every [`Server`] of it.
#[derive(Debug)]
pub struct Claim {
    listener: UnixListener,
}

/// What came of an attempt.
#[derive(Debug)]
pub enum ClaimOutcome {
    /// It is ours.
    Taken(Claim),
    /// It is not.
    Held(Claimant),
    /// Its holder was there and is not any more, or is about to listen: try again.
    Changing,
}

/// The beginning of all names.
const PREFIX: &str = "openclaw-supervise/";

fn name(port: u16) -> String {
    format!("{PREFIX}{port}")
}

/// Takes the claim if it is free.
///
/// # Errors
/// No descriptors, or no such sockets in this sandbox.
pub fn take(port: u16) -> io::Result<ClaimOutcome> {
    match UnixListener::bind_addr(&SocketAddr::from_abstract_name(name(port))?) {
        Ok(listener) => Ok(ClaimOutcome::Taken(Claim { listener })),
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            Ok(peek(port)?.map_or(ClaimOutcome::Changing, ClaimOutcome::Held))
        }
        Err(error) => Err(error),
    }
}

/// Looks whether the claim is taken.
///
/// # Errors
/// As [`take`].
pub fn peek(port: u16) -> io::Result<Option<Claimant>> {
    match connected(port) {
        Ok(socket) => {
            let peer = getsockopt(&socket, PeerCredentials)?;
            // The pid is 0 where it has no name in our pid namespace.
            Ok(Some(Claimant { by: Some(peer.pid()).filter(|&pid| pid > 0), uid: Some(peer.uid()) }))
        }
        // Its queue is full: there, and busy or stopped, or a process fills it to hide the holder.
        Err(nix::Error::EAGAIN) => Ok(Some(by_table(port))),
        Err(nix::Error::ECONNREFUSED) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Without `O_NONBLOCK`, connect(2) waits for room in the queue, which a holder may never make.
fn connected(port: u16) -> nix::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = socket(AddressFamily::Unix, SockType::Stream, flags, None)?;
    connect(socket.as_raw_fd(), &UnixAddr::new_abstract(name(port).as_bytes())?)?;
    Ok(socket)
}

/// The holder as the table of sockets and the descriptors of processes tell it, whether it listens or not: one that we may
/// not look into is unknown.
#[must_use]
pub fn by_table(port: u16) -> Claimant {
    let wanted = format!("@{}", name(port));
    let inode = table().lines().find_map(|row| {
        // `Num: RefCount Protocol Flags Type St Inode Path`; state 1 is that of a socket without a peer.
        let fields: Vec<_> = row.split_ascii_whitespace().collect();
        (fields.get(5) == Some(&"01") && fields.get(7) == Some(&wanted.as_str())).then(|| fields[6].parse().ok())?
    });
    let by = inode.and_then(|inode| listener::holder_of(inode).ok().flatten());
    Claimant { by, uid: by.and_then(uid_of) }
}

fn table() -> String {
    String::from_utf8_lossy(&fs::read("/proc/net/unix").unwrap_or_default()).into_owned()
}

/// All ports that are claimed in this network namespace, as far as the kernel lists them, see proc(5).
#[must_use]
pub fn ports() -> Vec<u16> {
    let table = table();
    let names = table.lines().filter_map(|row| row.rsplit('@').next());
    let ports = names.filter_map(|name| name.strip_prefix(PREFIX)?.parse().ok());
    // A connection that is open has the name of its listener.
    ports.collect::<BTreeSet<_>>().into_iter().collect()
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

/// The folder that the holder of a claim names. `None` if it is free, or if the holder does not say.
///
/// # Errors
/// No answer within `time`.
pub async fn folder_of(port: u16, time: Duration) -> io::Result<Option<PathBuf>> {
    let ask = async {
        let mut stream = tokio::net::UnixStream::from_std(UnixStream::from(connected(port)?))?;
        if !is_trusted(&stream) {
            return Ok(None);
        }
        let mut told = Vec::new();
        AsyncReadExt::take(&mut stream, PATH_LENGTH_MAX).read_to_end(&mut told).await?;
        Ok(Some(PathBuf::from(OsString::from_vec(told))).filter(|folder| folder.is_absolute()))
    };
    tokio::time::timeout(time, ask).await?
}

/// The other end may be a process of any user, and say anything.
fn is_trusted(stream: &tokio::net::UnixStream) -> bool {
    stream.peer_cred().is_ok_and(|peer| Claimant { by: peer.pid(), uid: Some(peer.uid()) }.is_trusted())
}

/// Accepts the connections that look at the claim. One stays in the queue of the listener until it is accepted, even if its
/// client is gone; a full queue does not name the holder.
#[derive(Debug)]
pub struct Server {
    listener: UnixListener,
}

impl Server {
    /// Accepts connections, tells this user and root the holder's folder, and drops them, for ever. It needs the reactor
    /// and the timer of a tokio runtime.
    pub async fn serve(self, folder: PathBuf) {
        let Ok(listener) = tokio::net::UnixListener::from_std(self.listener) else { return };
        for accepted in 1_u32.. {
            if accepted % BURST == 0 {
                tokio::time::sleep(REST).await;
            }
            match listener.accept().await {
                // A new connection has room for a path; a client that is gone needs none.
                Ok((client, _)) if is_trusted(&client) => {
                    let _gone = client.try_write(folder.as_os_str().as_bytes());
                }
                Ok(_) => {}
                Err(_) => tokio::time::sleep(PAUSE).await,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    /// A port that is not claimed: it is ours as a TCP port for as long as the listener lives.
    fn port() -> (TcpListener, u16) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        (listener, port)
    }

    fn me() -> Claimant {
        Claimant { by: Some(std::process::id().cast_signed()), uid: Some(nix::unistd::geteuid().as_raw()) }
    }

    #[test]
    fn one_claim_a_port_it_names_its_holder_and_is_gone_with_it() {
        let (_tcp, port) = port();
        assert_eq!(peek(port).unwrap(), None);
        let ClaimOutcome::Taken(claim) = take(port).unwrap() else { panic!("it was free") };
        assert!(matches!(take(port).unwrap(), ClaimOutcome::Held(held) if held == me()));
        assert_eq!(peek(port).unwrap(), Some(me()));
        drop(claim);
        assert_eq!(peek(port).unwrap(), None);
        assert!(matches!(take(port).unwrap(), ClaimOutcome::Taken(_)));
    }

    #[test]
    fn a_holder_that_does_not_listen_is_named_by_the_table() {
        let (_tcp, port) = port();
        assert_eq!(by_table(port), Claimant { by: None, uid: None });
        let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
        nix::sys::socket::bind(socket.as_raw_fd(), &UnixAddr::new_abstract(name(port).as_bytes()).unwrap()).unwrap();
        assert!(matches!(take(port).unwrap(), ClaimOutcome::Changing));
        assert_eq!(by_table(port), me());
    }

    #[test]
    fn each_claimed_port_is_listed_once_and_a_free_one_is_not() {
        let (_tcp, port) = port();
        let count = || ports().into_iter().filter(|listed| *listed == port).count();
        assert_eq!(count(), 0);
        let ClaimOutcome::Taken(_claim) = take(port).unwrap() else { panic!("it was free") };
        peek(port).unwrap();
        assert_eq!(count(), 1);
    }

    #[tokio::test]
    async fn a_claim_that_is_served_names_its_holder_however_often_it_is_asked() {
        let (_tcp, port) = port();
        let ClaimOutcome::Taken(claim) = take(port).unwrap() else { panic!("it was free") };
        let serving = tokio::spawn(claim.server().unwrap().serve(PathBuf::from("/store")));
        for round in 0..3 * BURST {
            assert_eq!(peek(port).unwrap(), Some(me()), "{round}");
            let told = folder_of(port, Duration::from_secs(20)).await.unwrap();
            assert_eq!(told, Some(PathBuf::from("/store")), "{round}");
        }
        serving.abort();
    }

    #[tokio::test]
    async fn a_flood_is_accepted_at_a_bounded_pace() {
        let (_tcp, port) = port();
        let ClaimOutcome::Taken(claim) = take(port).unwrap() else { panic!("it was free") };
        let server = claim.server().unwrap();
        let waiting: Vec<_> = std::iter::from_fn(|| connected(port).ok()).take(4 * BURST as usize).collect();
        let serving = tokio::spawn(server.serve(PathBuf::from("/store")));
        let begun = tokio::time::Instant::now();
        for stream in waiting {
            let mut stream = tokio::net::UnixStream::from_std(UnixStream::from(stream)).unwrap();
            stream.read_to_end(&mut Vec::new()).await.unwrap();
        }
        assert!(begun.elapsed() >= 3 * REST, "{:?}", begun.elapsed());
        serving.abort();
    }

    #[tokio::test]
    async fn a_full_queue_hides_no_holder_that_we_see_and_is_not_waited_for() {
        let (_tcp, port) = port();
        let ClaimOutcome::Taken(claim) = take(port).unwrap() else { panic!("it was free") };
        nix::sys::socket::listen(&claim.listener, nix::sys::socket::Backlog::new(0).unwrap()).unwrap();
        let _waiting: Vec<_> = std::iter::from_fn(|| connected(port).ok()).collect();
        assert_eq!(connected(port).unwrap_err(), nix::Error::EAGAIN);
        assert_eq!(peek(port).unwrap(), Some(me()));
        assert!(matches!(take(port).unwrap(), ClaimOutcome::Held(held) if held == me()));
        assert!(folder_of(port, Duration::from_secs(20)).await.is_err());
    }
}
