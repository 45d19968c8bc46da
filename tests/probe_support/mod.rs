//! Small servers that behave and misbehave.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use openclaw_supervise::core::Endpoint;
use openclaw_supervise::gateway::probe::Prober;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Enough for any answer on a busy machine.
pub(crate) const PATIENT: Duration = Duration::from_secs(20);
/// For servers that never answer.
pub(crate) const HASTY: Duration = Duration::from_millis(400);

pub(crate) const LIVE: &str = r#"{"ok":true,"status":"live"}"#;
pub(crate) const STARTED: &str = r#"{"ok":true,"status":"started","version":"2026.9.6","uptimeMs":1}"#;
pub(crate) const STARTING: &str = r#"{"ok":false,"status":"starting"}"#;
pub(crate) const DRAINING: &str = r#"{"ok":false,"status":"draining"}"#;

/// A server's reaction to a request.
#[derive(Debug, Clone)]
pub(crate) enum Act {
    /// Sends these bytes and waits for the next request.
    Send(Vec<u8>),
    /// Sends these bytes and closes.
    SendAndClose(Vec<u8>),
    /// Sends these bytes and keeps the connection open.
    SendAndHang(Vec<u8>),
    /// Sends the first bytes, then repeats another byte every 100 ms forever.
    Trickle(Vec<u8>, u8),
    /// Sends the first bytes, then more until the peer closes.
    Flood(Vec<u8>),
}

/// A server's reaction to a connection, before it reads a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnConnect {
    /// Reads the request.
    Listens,
    /// Closes with unread data, which makes the kernel send a reset.
    Resets,
    /// Sends a greeting.
    Greets,
}

pub(crate) fn reply(status: &str, kind: &str, body: &str) -> Vec<u8> {
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

pub(crate) fn json(status: &str, body: &str) -> Act {
    Act::Send(reply(status, "application/json; charset=utf-8", body))
}

pub(crate) fn html(status: &str) -> Act {
    Act::Send(reply(status, "text/html; charset=utf-8", "<!doctype html><title>Control UI</title>"))
}

/// A gateway with `startup` as its reaction to `/startupz`.
pub(crate) fn gateway(startup: Act) -> impl Fn(&str) -> Act + Clone + Send + Sync + 'static {
    move |path| match path {
        "/healthz" => json("200 OK", LIVE),
        "/startupz" => startup.clone(),
        "/readyz" => json("503 Service Unavailable", r#"{"ready":false,"failing":["telegram"]}"#),
        _ => html("200 OK"),
    }
}

/// A server that runs as long as the runtime of its test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    requests: Arc<AtomicUsize>,
    accepting: JoinHandle<()>,
}

impl Server {
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    /// Closes the listener.
    pub(crate) async fn stop(&mut self) {
        self.accepting.abort();
        assert!((&mut self.accepting).await.unwrap_err().is_cancelled());
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }
}

pub(crate) async fn serve(bind: &str, act: impl Fn(&str) -> Act + Clone + Send + Sync + 'static) -> Server {
    start(TcpListener::bind(bind).await.unwrap(), OnConnect::Listens, None, act)
}

pub(crate) async fn serve_with(on_connect: OnConnect, bytes: &[u8]) -> Server {
    let act = Act::SendAndHang(bytes.to_vec());
    start(TcpListener::bind("127.0.0.1:0").await.unwrap(), on_connect, None, move |_: &str| act.clone())
}

pub(crate) async fn serve_tls(bind: &str, act: impl Fn(&str) -> Act + Clone + Send + Sync + 'static) -> Server {
    let made = rcgen::generate_simple_self_signed(vec!["openclaw-gateway".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    start(TcpListener::bind(bind).await.unwrap(), OnConnect::Listens, Some(TlsAcceptor::from(Arc::new(config))), act)
}

pub(crate) fn start(
    listener: TcpListener,
    on_connect: OnConnect,
    tls: Option<TlsAcceptor>,
    act: impl Fn(&str) -> Act + Clone + Send + Sync + 'static,
) -> Server {
    let address = listener.local_addr().unwrap();
    let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counters = (connections.clone(), requests.clone());
    let accepting = tokio::spawn(async move {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                // EMFILE: a test takes all descriptors.
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            };
            connections.fetch_add(1, Ordering::SeqCst);
            let (act, tls, requests) = (act.clone(), tls.clone(), requests.clone());
            tokio::spawn(async move {
                match (on_connect, tls) {
                    (OnConnect::Resets, _) => stream.readable().await.unwrap(),
                    (OnConnect::Greets, _) => greet(stream, act("")).await,
                    (OnConnect::Listens, None) => converse(stream, act, &requests).await,
                    (OnConnect::Listens, Some(tls)) => {
                        if let Ok(stream) = tls.accept(stream).await {
                            converse(stream, act, &requests).await;
                        }
                    }
                }
            });
        }
    });
    Server { address, connections: counters.0, requests: counters.1, accepting }
}

async fn greet(mut stream: TcpStream, act: Act) {
    let Act::SendAndHang(bytes) = act else { panic!("a greeting is said once") };
    drop(stream.write_all(&bytes).await);
    std::future::pending::<()>().await;
}

async fn converse(mut stream: impl AsyncRead + AsyncWrite + Unpin, act: impl Fn(&str) -> Act, requests: &AtomicUsize) {
    while let Some(path) = read_path(&mut stream).await {
        requests.fetch_add(1, Ordering::SeqCst);
        // The peer may close the connection at any time.
        match act(&path) {
            Act::Send(bytes) => {
                if stream.write_all(&bytes).await.is_err() {
                    return;
                }
                stream.flush().await.ok();
            }
            Act::SendAndClose(bytes) => {
                stream.write_all(&bytes).await.ok();
                stream.shutdown().await.ok();
                return;
            }
            Act::SendAndHang(bytes) => {
                stream.write_all(&bytes).await.ok();
                stream.flush().await.ok();
                std::future::pending::<()>().await;
            }
            Act::Trickle(bytes, more) => {
                let mut next = stream.write_all(&bytes).await;
                while next.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    next = stream.write_all(&[more]).await;
                }
                return;
            }
            Act::Flood(bytes) => {
                let mut next = stream.write_all(&bytes).await;
                while next.is_ok() {
                    next = stream.write_all(&[b' '; 4096]).await;
                }
                return;
            }
        }
    }
}

async fn read_path(stream: &mut (impl AsyncRead + Unpin)) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8(head).ok()?.split(' ').nth(1)?.to_owned())
}

/// A free port that a gateway can bind: bound with `SO_REUSEADDR` and not listening.
pub(crate) fn reserve(bind: &str) -> (TcpSocket, SocketAddr) {
    let address: SocketAddr = bind.parse().unwrap();
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }.unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let address = socket.local_addr().unwrap();
    (socket, address)
}

/// Both loopbacks with one port, bound and not listening yet.
pub(crate) fn reserve_both() -> (TcpSocket, TcpSocket, [SocketAddr; 2]) {
    for _ in 0..50 {
        let (v4, first) = reserve("127.0.0.1:0");
        let v6 = TcpSocket::new_v6().unwrap();
        v6.set_reuseaddr(true).unwrap();
        let second = SocketAddr::new("::1".parse().unwrap(), first.port());
        if v6.bind(second).is_ok() {
            return (v4, v6, [first, second]);
        }
    }
    panic!("no port is free on both loopbacks");
}

pub(crate) fn endpoint(addresses: &[SocketAddr], tls: bool) -> Endpoint {
    Endpoint { addresses: addresses.to_vec(), tls, host: "127.0.0.1".to_owned(), port: addresses[0].port() }
}

pub(crate) fn prober(addresses: &[SocketAddr], timeout: Duration) -> Prober {
    Prober::new(endpoint(addresses, false), timeout)
}
