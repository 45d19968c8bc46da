//! Where the gateway listens.

use std::fmt;
use std::net::SocketAddr;

/// The gateway's listener, as a probe meets it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Every address that the gateway may listen on, the likeliest first. Never empty.
    pub addresses: Vec<SocketAddr>,
    /// Whether it speaks https there.
    pub tls: bool,
    /// How a person names the host: `127.0.0.1`, `[::1]`, `gateway.example`.
    pub host: String,
    /// The port, the same in every address.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    /// `ws://HOST:PORT`, or `wss://` with TLS: the form in OpenClaw's own messages.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "wss" } else { "ws" };
        write!(f, "{scheme}://{}:{}", self.host, self.port)
    }
}
