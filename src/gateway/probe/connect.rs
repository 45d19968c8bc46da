//! The plain TCP connect.

use super::outcome::AddressOutcome;
use crate::core::Verdict;
use nix::errno::Errno;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, timeout_at};

/// The result of one connect(2).
#[derive(Debug)]
pub(super) enum Connect {
    Accepted,
    Refused,
    /// This machine has no such address or no route to it, e.g. with IPv6 switched off.
    Absent(Errno),
    Reset,
    /// The listener's backlog is full.
    TimedOut,
    /// The connect could not be tried: no descriptors, no memory, no permission.
    Failed(io::Error),
}

/// Connects and closes again.
pub(super) async fn connect(address: SocketAddr, deadline: Instant) -> Connect {
    match timeout_at(deadline, TcpStream::connect(address)).await {
        Err(_) => Connect::TimedOut,
        Ok(Err(error)) => classify(address, error),
        // Within the ephemeral range the kernel may pick the target port as the source port: TCP's simultaneous open then
        // connects the socket to itself, which proves that the port has no listener.
        Ok(Ok(stream)) if stream.local_addr().ok() == Some(address) => Connect::Refused,
        Ok(Ok(_)) => Connect::Accepted,
    }
}

/// Whether an address without a listener is in use: by a socket that is bound but does not listen, or as the source of a
/// connection. A gateway could not listen there. Binds as a gateway does, with `SO_REUSEADDR` and so past connections in
/// `TIME_WAIT`, see socket(7), and never listens.
pub(super) fn is_taken(address: SocketAddr) -> bool {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() };
    let bound = socket.and_then(|socket| {
        socket.set_reuseaddr(true)?;
        socket.bind(address)
    });
    bound.is_err_and(|error| error.kind() == io::ErrorKind::AddrInUse)
}

/// See connect(2).
pub(super) fn classify(address: SocketAddr, error: io::Error) -> Connect {
    match error.raw_os_error().map(Errno::from_raw) {
        Some(Errno::ECONNREFUSED) => Connect::Refused,
        Some(Errno::ECONNRESET | Errno::ECONNABORTED | Errno::EPIPE) => Connect::Reset,
        Some(Errno::ETIMEDOUT) => Connect::TimedOut,
        // 127.0.0.1 always exists: there EADDRNOTAVAIL means that every source port is in use.
        Some(Errno::EADDRNOTAVAIL) if address.is_ipv4() && address.ip().is_loopback() => Connect::Failed(error),
        Some(errno @ (Errno::EADDRNOTAVAIL | Errno::ENETUNREACH | Errno::EHOSTUNREACH | Errno::EAFNOSUPPORT)) => {
            Connect::Absent(errno)
        }
        _ => Connect::Failed(error),
    }
}

impl Connect {
    /// `budget` is the timeout of the whole probe.
    pub(super) fn detail(&self, budget: Duration) -> String {
        match self {
            Self::Accepted => "connection accepted".to_owned(),
            Self::Refused => "connection refused".to_owned(),
            Self::Absent(errno) => format!("unreachable: {}", errno.desc().to_lowercase()),
            Self::Reset => "connection reset".to_owned(),
            Self::TimedOut => format!("connection not accepted within {}", humantime::format_duration(budget)),
            Self::Failed(error) => format!("cannot connect: {error}").to_lowercase(),
        }
    }

    pub(super) fn outcome(&self, budget: Duration) -> AddressOutcome {
        let verdict = match self {
            Self::Absent(_) => return AddressOutcome::Absent(self.detail(budget)),
            Self::Refused => Verdict::Free,
            Self::Accepted | Self::Reset | Self::TimedOut => Verdict::Silent,
            Self::Failed(_) => Verdict::Inconclusive,
        };
        AddressOutcome::Seen(verdict, self.detail(budget))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_errno_tells_a_free_port_from_an_absent_address_and_from_a_local_failure() {
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
            let connect = classify(address.parse().unwrap(), io::Error::from_raw_os_error(errno as i32));
            let verdict = match connect.outcome(Duration::from_secs(5)) {
                AddressOutcome::Seen(verdict, _) => Some(verdict),
                AddressOutcome::Absent(_) => None,
            };
            assert_eq!(verdict, expected, "{errno} at {address}");
        }
    }
}
