//! The answers to the probe paths.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

/// What the gateway says of itself at the moment of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Starting,
    Started {
        ready: bool,
    },
    Draining,
    /// An earlier release has no `/startupz`.
    Unnamed,
    /// Not a gateway.
    Foreign,
    /// Nothing at all.
    Silent,
}

/// How long a client may take, and how long one that gets no answer is kept.
const PATIENCE: Duration = Duration::from_secs(30);

const HTML: &str = "<!doctype html><title>Control UI</title>";

/// Serves one request and closes the connection. A client that breaks off is its own affair.
pub(crate) fn answer(mut stream: impl Read + Write, phase: Phase) -> std::io::Result<()> {
    match read(&mut stream)? {
        Some(_) if phase == Phase::Silent => wait_until_it_goes(&mut stream),
        Some((method, path)) => write_reply(&mut stream, &method, &path, phase),
        None => Ok(()),
    }
}

/// Makes a connection wait for its client.
pub(crate) fn prepare(stream: &TcpStream) -> std::io::Result<()> {
    stream.set_nonblocking(false)?;
    stream.set_read_timeout(Some(PATIENCE))
}

/// Method and path of the one request; none if the client goes before it has said them.
pub(crate) fn read(stream: &mut impl Read) -> std::io::Result<Option<(String, String)>> {
    let mut request = Vec::new();
    let mut chunk = [0; 1024];
    while !request.windows(4).any(|bytes| bytes == b"\r\n\r\n") {
        let count = stream.read(&mut chunk)?;
        if count == 0 {
            return Ok(None);
        }
        request.extend_from_slice(&chunk[..count]);
    }
    let text = String::from_utf8_lossy(&request);
    let mut words = text.split(' ').map(str::to_owned);
    Ok(Some((words.next().unwrap_or_default(), words.next().unwrap_or_default())))
}

pub(crate) fn wait_until_it_goes(stream: &mut impl Read) -> std::io::Result<()> {
    while stream.read(&mut [0; 1024])? > 0 {}
    Ok(())
}

pub(crate) fn write_reply(stream: &mut impl Write, method: &str, path: &str, phase: Phase) -> std::io::Result<()> {
    let (status, kind, body) = reply(path, phase);
    let body_or_none = if method == "HEAD" { "" } else { body };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body_or_none}",
        body.len()
    )
}

fn reply(path: &str, phase: Phase) -> (&'static str, &'static str, &'static str) {
    const OK: &str = "200 OK";
    const BUSY: &str = "503 Service Unavailable";
    const JSON: &str = "application/json; charset=utf-8";
    let html = (OK, "text/html; charset=utf-8", HTML);
    match (path, phase) {
        (_, Phase::Foreign | Phase::Silent) => html,
        ("/healthz" | "/health", _) => (OK, JSON, r#"{"ok":true,"status":"live"}"#),
        ("/startupz" | "/startup", Phase::Starting) => (BUSY, JSON, r#"{"ok":false,"status":"starting"}"#),
        ("/startupz" | "/startup", Phase::Draining) => (BUSY, JSON, r#"{"ok":false,"status":"draining"}"#),
        ("/startupz" | "/startup", Phase::Started { .. }) => (OK, JSON, r#"{"ok":true,"status":"started"}"#),
        ("/readyz" | "/ready", Phase::Started { ready: true } | Phase::Unnamed) => {
            (OK, JSON, r#"{"ready":true,"failing":[]}"#)
        }
        ("/readyz" | "/ready", _) => (BUSY, JSON, r#"{"ready":false,"failing":["channels"]}"#),
        _ => html,
    }
}
