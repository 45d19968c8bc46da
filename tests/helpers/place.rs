//! Where the gateway listens if not on its `--port`: the file `place` in its folder holds `ADDRESS:PORT` or
//! `ADDRESS:PORT tls`. It is read whenever the gateway opens, as OpenClaw reads its configuration.

use rustls::ServerConfig;
use rustls::crypto::ring::default_provider;
use std::io::{self, Error};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

pub(crate) struct Place {
    pub(crate) address: SocketAddr,
    pub(crate) tls: Option<Arc<ServerConfig>>,
}

impl Place {
    /// None if there is no such file.
    pub(crate) fn read(dir: &Path) -> io::Result<Option<Self>> {
        let Ok(text) = std::fs::read_to_string(dir.join("place")) else { return Ok(None) };
        let (address, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        let address = address.parse().map_err(Error::other)?;
        let tls = if rest == "tls" { Some(Arc::new(server()?)) } else { None };
        Ok(Some(Self { address, tls }))
    }
}

/// With a certificate that it has signed itself.
fn server() -> io::Result<ServerConfig> {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).map_err(Error::other)?;
    let key = made.signing_key.serialize_der().try_into().map_err(Error::other)?;
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()));
    let builder = builder.with_safe_default_protocol_versions().map_err(Error::other)?.with_no_client_auth();
    builder.with_single_cert(vec![made.cert.der().clone()], key).map_err(Error::other)
}
