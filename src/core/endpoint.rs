//! Where the gateway listens.

use crate::prelude::*;
use alloc::vec;
use core::fmt;
use core::net::{IpAddr, SocketAddr};
use serde::{Deserialize, Serialize};

/// The gateway's listener, as a client reaches it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// Every address that the gateway may listen on, the likeliest first. Never empty, and all with `port`.
    pub addresses: Vec<SocketAddr>,
    pub tls: bool,
    /// For messages: `127.0.0.1`, `[::1]`, `gateway.example`.
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    /// Whether both have an address in common.
    #[must_use]
    pub fn overlaps(&self, other: &Self) -> bool {
        self.addresses.iter().any(|address| other.addresses.contains(address))
    }

    /// Plain http on both loopbacks: the gateway's default.
    #[must_use]
    pub fn local(port: u16) -> Self {
        let loopbacks = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        let addresses = loopbacks.map(|address| SocketAddr::new(address, port)).to_vec();
        Self { addresses, tls: false, host: "127.0.0.1".to_owned(), port }
    }

    /// The endpoint at a recorded `ws://HOST:PORT`, for a gateway that was started with other settings than `self`. `None`
    /// if the URL is malformed.
    #[must_use]
    pub fn at(&self, url: &str) -> Option<Self> {
        let (scheme, authority) = url.split_once("://")?;
        let (host, port) = authority.rsplit_once(':')?;
        let (tls, port) = (scheme == "wss", port.parse().ok()?);
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        let addresses = match bare.parse::<IpAddr>() {
            // The same host suggests the same bind mode.
            _ if host == self.host => self.addresses.iter().map(SocketAddr::ip).collect(),
            Ok(address) => vec![address],
            Err(_) => Self::local(port).addresses.iter().map(SocketAddr::ip).collect(),
        };
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        Some(Self { addresses, tls, host: host.to_owned(), port })
    }
}

/// Why the gateway is looked for at another endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MoveReason {
    /// Its settings name that one now.
    Settings,
    /// A socket of its tree listens there.
    Listens,
}

impl MoveReason {
    /// Its sentence in the event log.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Settings => "the gateway's settings have changed",
            Self::Listens => "the gateway listens there",
        }
    }
}

/// The gateway is at another endpoint than the one at which it was expected, or will be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Moved {
    pub to: Endpoint,
    pub why: MoveReason,
}

impl fmt::Display for Endpoint {
    /// `ws://HOST:PORT`, or `wss://` with TLS: the form in OpenClaw's own messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_url_gives_the_addresses_of_a_running_gateway() {
        let known = Endpoint::local(1);
        for (url, addresses) in [
            ("ws://127.0.0.1:19000", vec!["127.0.0.1:19000", "[::1]:19000"]),
            ("wss://10.1.2.3:19000", vec!["10.1.2.3:19000"]),
            ("ws://[::1]:19000", vec!["[::1]:19000"]),
            ("ws://localhost:19000", vec!["127.0.0.1:19000", "[::1]:19000"]),
        ] {
            let met = known.at(url).unwrap();
            assert_eq!(met.to_string(), url);
            assert_eq!(met.addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>(), addresses, "{url}");
        }
        for url in ["", "ws://", "127.0.0.1:80", "ws://127.0.0.1", "ws://127.0.0.1:x", "ws://127.0.0.1:99999"] {
            assert_eq!(known.at(url), None, "{url}");
        }
    }
}
