//! The plain TCP connect.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use nix::errno::Errno;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

use super::verdict::Glimpse;
use crate::core::Verdict;

/// What came of one connect.
#[derive(Debug)]
pub(super) enum Knock {
    /// Somebody listens.
    Accepts,
    /// Nobody does.
    Refused,
    /// This machine has no such address, or no way to it (IPv6 switched off).
    Absent(Errno),
    /// Reset: somebody is there, and in trouble.
    Reset,
    /// The listener's backlog is full.
    TimedOut,
    /// The connect could not be tried: no descriptors, no memory, no permission.
    Failed(io::Error),
}

/// Connects and closes again.
pub(super) async fn knock(address: SocketAddr, deadline: Instant) -> Knock {
    match timeout_at(deadline, TcpStream::connect(address)).await {
        Err(_) => Knock::TimedOut,
        Ok(Err(error)) => classify(address, error),
        // In the range of ephemeral ports the kernel may pick the very port that is tried as the source: TCP's
        // simultaneous open then connects the socket with itself, which proves that nobody listens.
        Ok(Ok(stream)) if stream.local_addr().ok() == Some(address) => Knock::Refused,
        Ok(Ok(_)) => Knock::Accepts,
    }
}

/// Whether somebody has taken an address on which nobody listens: with a socket that is bound and no more, or as the
/// source of a connection. A gateway could not listen there. It binds as a gateway does, with `SO_REUSEADDR` and so past
/// connections in `TIME_WAIT`, see socket(7), and never listens.
pub(super) fn is_taken(address: SocketAddr) -> bool {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let bound = socket.and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    });
    bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// What the error of a connect says, see connect(2).
pub(super) fn classify(address: SocketAddr, error: io::Error) -> Knock {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => Knock::Refused,
        Some(Errno::ECONNRESET | Errno::ECONNABORTED | Errno::EPIPE) => Knock::Reset,
        Some(Errno::ETIMEDOUT) => Knock::TimedOut,
        // 127.0.0.1 always exists: there it means that every source port is in use.
        Some(Errno::EADDRNOTAVAIL) if address.is_ipv4() && address.ip().is_loopback() => Knock::Failed(error),
        Some(errno @ (Errno::EADDRNOTAVAIL | Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EAFNOSUPPORT)) => {
            Knock::Absent(errno)
        }
        _ => Knock::Failed(error),
    }
}

impl Knock {
    /// It as a phrase, `budget` being the time of the whole look.
    pub(super) fn detail(&self, budget: Duration) -> String {
        match self {
            Self::Accepts => "connection accepted".to_owned(),
            Self::Refused => "connection refused".to_owned(),
            Self::Absent(errno) => format!("cannot be reached from here: {}", errno.desc().to_lowercase()),
            Self::Reset => "connection reset".to_owned(),
            Self::TimedOut => format!("connection not accepted within {}", humantime::format_duration(budget)),
            Self::Failed(error) => format!("cannot connect: {error}").to_lowercase(),
        }
    }

    /// What it says about the port. Accepting alone says that somebody is there and mute.
    pub(super) fn glimpse(&self, budget: Duration) -> Glimpse {
        let verdict = match self {
            Self::Absent(_) => return Glimpse::Absent(self.detail(budget)),
            Self::Refused => Verdict::Free,
            Self::Accepts | Self::Reset | Self::TimedOut => Verdict::Silent,
            Self::Failed(_) => Verdict::Inconclusive,
        };
        Glimpse::Seen(verdict, self.detail(budget))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_tells_a_free_port_from_an_absent_address_and_from_a_failure_of_our_own() {
        for (address, errno, expected) in [
            ("127.0.0.1:1", Errno::ECONNREFUSED, Some(Verdict::Free)),
            ("[::1]:1", Errno::EADDRNOTAVAIL, None),
            ("[::1]:1", Errno::ENETUNREACH, None),
            ("[::1]:1", Errno::EAFNOSUPPORT, None),
            ("10.0.0.1:1", Errno::EADDRNOTAVAIL, None),
            ("127.0.0.1:1", Errno::EADDRNOTAVAIL, Some(Verdict::Inconclusive)),
            ("127.0.0.1:1", Errno::EMFILE, Some(Verdict::Inconclusive)),
            ("127.0.0.1:1", Errno::ENFILE, Some(Verdict::Inconclusive)),
            ("127.0.0.1:1", Errno::ENOBUFS, Some(Verdict::Inconclusive)),
            ("127.0.0.1:1", Errno::ENOMEM, Some(Verdict::Inconclusive)),
            ("127.0.0.1:1", Errno::EACCES, Some(Verdict::Inconclusive)),
            ("127.0.0.1:1", Errno::ETIMEDOUT, Some(Verdict::Silent)),
            ("127.0.0.1:1", Errno::ECONNRESET, Some(Verdict::Silent)),
        ] {
            let knock = classify(address.parse().unwrap(), io::Error::from_raw_os_error(errno as i32));
            let verdict = match knock.glimpse(Duration::from_secs(5)) {
                Glimpse::Seen(verdict, _) => Some(verdict),
                Glimpse::Absent(_) => None,
            };
            assert_eq!(verdict, expected, "{errno} at {address}");
        }
    }
}
