//! The HTTP clients and the certificates that they accept.

use super::http::RequestError;
use reqwest::redirect::Policy;
use reqwest::{Client, ClientBuilder};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{ClientConfig, DigitallySignedStruct, SignatureScheme};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;

/// A client for plain http, and for https on this machine, where the gateway's certificate is self-signed and there is no
/// network in between. reqwest sets up TLS for plain http as well: without the system's roots that takes microseconds, not
/// milliseconds, so each probe builds its own client and leaves no memory behind.
pub(super) fn lenient_client() -> Result<Client, RequestError> {
    let provider = Arc::new(ring::default_provider());
    let verifier = Arc::new(AnyCertificate(provider.clone()));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| RequestError::Local(format!("cannot set up tls: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    build(base().tls_backend_preconfigured(config))
}

/// A client that checks the certificate against the system's roots and `name`.
pub(super) fn verifying_client(name: Option<&str>, address: SocketAddr) -> Result<Client, RequestError> {
    if CryptoProvider::get_default().is_none() {
        // Fails only if another thread has just installed one.
        drop(ring::default_provider().install_default());
    }
    // This client outlives the probe, its connections must not.
    let mut builder = base().pool_max_idle_per_host(0);
    if let Some(name) = name {
        builder = builder.resolve(name, address);
    }
    build(builder)
}

fn base() -> ClientBuilder {
    // No proxy from the environment, no redirects, no timer for a connection pool.
    Client::builder().no_proxy().redirect(Policy::none()).referer(false).http1_only().pool_idle_timeout(None)
}

fn build(builder: ClientBuilder) -> Result<Client, RequestError> {
    builder.build().map_err(|error| RequestError::Local(format!("cannot set up an HTTP client: {error}")))
}

/// `None` if the host is an address.
pub(super) fn name_of(host: &str) -> Option<&str> {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    bare.parse::<IpAddr>().is_err().then_some(bare)
}

/// Whether the address belongs to this machine: the kernel routes to each of its own addresses from that same address.
/// Connecting a UDP socket sends nothing, and unlike bind(2) is not fooled by `ip_nonlocal_bind`.
pub(super) fn is_local(address: IpAddr) -> bool {
    if address.is_loopback() || address.is_unspecified() {
        return true;
    }
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let source = UdpSocket::bind((any, 0)).and_then(|socket| {
        socket.connect((address, 9))?;
        socket.local_addr()
    });
    source.is_ok_and(|source| source.ip() == address)
}

#[derive(Debug)]
struct AnyCertificate(Arc<CryptoProvider>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::super::http::{AfterReply, ProbeClient};
    use super::*;
    use std::time::Duration;
    use tokio::net::TcpListener;
    use tokio::time::Instant;

    #[test]
    fn only_the_addresses_of_this_machine_are_local() {
        for (address, local) in [
            ("127.0.0.1", true),
            ("127.9.9.9", true),
            ("::1", true),
            ("0.0.0.0", true),
            // TEST-NET-1 (RFC 5737) and the documentation prefix (RFC 3849) are never assigned.
            ("192.0.2.1", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_local(address.parse().unwrap()), local, "{address}");
        }
    }

    #[test]
    fn a_host_is_a_name_unless_it_is_an_address() {
        for (host, name) in [
            ("127.0.0.1", None),
            ("[::1]", None),
            ("::1", None),
            ("gateway.example", Some("gateway.example")),
            ("localhost", Some("localhost")),
        ] {
            assert_eq!(name_of(host), name, "{host}");
        }
    }

    #[tokio::test]
    async fn beyond_this_machine_a_self_signed_certificate_is_refused() {
        let made = rcgen::generate_simple_self_signed(vec!["gateway.example".to_owned()]).unwrap();
        let config = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![made.cert.der().clone()], made.signing_key.serialize_der().try_into().unwrap())
            .unwrap();
        let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = async {
            let (stream, _) = listener.accept().await.unwrap();
            acceptor.accept(stream).await.is_ok()
        };
        let client = verifying_client(Some("gateway.example"), address).unwrap();
        let client = ProbeClient::new(address, "https", Some("gateway.example"), client);
        let deadline = Instant::now() + Duration::from_secs(20);
        let (reply, accepted) = tokio::join!(client.get("/healthz", AfterReply::Close, deadline), server);
        assert!(matches!(&reply, Err(RequestError::Malformed(why)) if why.contains("certificate")), "{reply:?}");
        assert!(!accepted);
    }
}
