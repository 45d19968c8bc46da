//! Where the gateway listens.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

/// The gateway's listener, as a client reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Every address that the gateway may listen on, the likeliest first. Never empty, and all with `port`.
    pub addresses: Vec<SocketAddr>,
    pub tls: bool,
    /// For messages: `127.0.0.1`, `[::1]`, `gateway.example`.
    pub host: String,
    pub port: u16,
}

impl Endpoint {
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
            Err(_) => vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])],
        };
        let addresses = addresses.into_iter().map(|address| SocketAddr::new(address, port)).collect();
        Some(Self { addresses, tls, host: host.to_owned(), port })
    }
}

impl fmt::Display for Endpoint {
    /// `ws://HOST:PORT`, or `wss://` with TLS: the form in OpenClaw's own messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}

/// Where the gateway is expected to listen, as its settings read at one moment.
#[derive(Debug, Clone)]
pub struct Resolved {
    pub endpoint: Endpoint,
    /// One line each: what could not be read or is not known, and what was assumed for it.
    pub warnings: Vec<String>,
    /// The files that were read, or would have been read if they existed.
    pub files: Vec<PathBuf>,
}

/// Reads the settings of the gateway anew. They may change while it runs.
#[derive(Clone)]
pub struct Resolver(Arc<dyn Fn() -> Resolved + Send + Sync>);

impl Resolver {
    #[must_use]
    pub fn new(resolve: impl Fn() -> Resolved + Send + Sync + 'static) -> Self {
        Self(Arc::new(resolve))
    }

    /// Blocks on the file system.
    #[must_use]
    pub fn resolve(&self) -> Resolved {
        (self.0)()
    }
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Resolver")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_url_gives_the_addresses_of_a_running_gateway() {
        let known = Endpoint {
            addresses: vec![SocketAddr::from(([127, 0, 0, 1], 1)), SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], 1))],
            tls: false,
            host: "127.0.0.1".to_owned(),
            port: 1,
        };
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
