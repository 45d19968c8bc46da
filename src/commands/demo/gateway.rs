//! The stand-in gateway: a process that answers as OpenClaw's does, with a boot, a drain and helpers, and that freezes
//! when it is told to. The supervisor in front of it cannot tell the difference.
//!
//! It takes orders on stdin, which the supervisor hands through. The end of that stream means that the demo is gone:
//! the stand-in then ends as a misconfigured gateway would, which ends its supervisor too.

use crate::cli::StandIn;
use crate::core::{Request, exit};
use crate::host::signals::{self, Signal, Signals};
use crate::platform::process::{self, Handle};
use std::cell::Cell;
use std::io::{self, BufRead};
use std::net::Ipv4Addr;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc::{self, UnboundedReceiver};
use tokio::task::LocalSet;

/// The order to freeze, a line on stdin.
pub(super) const FREEZE: &str = "freeze";

/// What the helpers call themselves, after the gateway's spawn broker and what agents start through it.
const HELPERS: [&str; 2] = ["spawn-broker", "mcp-server"];

/// A request head that is longer is no probe's.
const HEAD_LENGTH_MAX: usize = 8 * 1024;

/// What `/startupz` answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Starting,
    Started,
    Draining,
}

/// What the demo wants of its gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Freeze,
    /// Nobody is left to give orders.
    End,
}

/// Serves until it is asked to stop; returns the exit code.
pub async fn serve(stand_in: StandIn) -> u8 {
    match LocalSet::new().run_until(live(stand_in)).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("the stand-in cannot serve on port {}: {error}; is the port taken?", stand_in.port);
            exit::FAILURE
        }
    }
}

/// Does nothing until a signal ends it, as a helper that is idle.
#[must_use]
pub fn help() -> u8 {
    signals::release();
    block()
}

async fn live(stand_in: StandIn) -> io::Result<u8> {
    let mut signals = Signals::install()?;
    let mut orders = take_orders();
    let phase = Rc::new(Cell::new(Phase::Starting));
    let helpers = HELPERS.into_iter().map(start_helper).collect::<io::Result<Vec<Handle>>>()?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, stand_in.port)).await?;
    tokio::task::spawn_local(accept(listener, Rc::clone(&phase)));
    let booted = tokio::time::sleep(stand_in.boot);
    tokio::pin!(booted);
    loop {
        tokio::select! {
            signal = signals.next() => match signal {
                Some(Signal::Operator { request: Request::Stop, .. }) | None => break,
                Some(_) => {}
            },
            order = orders.recv() => match order {
                Some(Order::Freeze) => block(),
                Some(Order::End) | None => return Ok(exit::EX_CONFIG),
            },
            () = &mut booted, if phase.get() == Phase::Starting => phase.set(Phase::Started),
        }
    }
    phase.set(Phase::Draining);
    tokio::time::sleep(stand_in.drain).await;
    for helper in helpers {
        // One that is gone already needs no signal.
        let _gone = helper.terminate();
        helper.watch()?.exit(&helper).await?;
    }
    Ok(exit::OK)
}

/// Blocks this thread, and with it the event loop, for good: connections are accepted by the kernel and never answered,
/// and SIGTERM is caught and never acted on. So does a gateway whose JavaScript does not return.
fn block() -> ! {
    loop {
        std::thread::park();
    }
}

fn take_orders() -> UnboundedReceiver<Order> {
    let (orders, inbox) = mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in io::stdin().lock().lines() {
            match line {
                Ok(line) if line == FREEZE => {
                    let _closed = orders.send(Order::Freeze);
                    return;
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        let _closed = orders.send(Order::End);
    });
    inbox
}

fn start_helper(name: &str) -> io::Result<Handle> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0(name).arg("demo-helper").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    process::spawn_in_own_session(&mut command)
}

async fn accept(listener: TcpListener, phase: Rc<Cell<Phase>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let phase = Rc::clone(&phase);
                tokio::task::spawn_local(async move {
                    // The peer may hang up at any time.
                    let _hung_up = converse(&stream, &phase).await;
                });
            }
            // No descriptor left, or a connection that is gone again.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Answers one request after the other until the peer closes or asks us to.
async fn converse(stream: &TcpStream, phase: &Cell<Phase>) -> io::Result<()> {
    let mut received = Vec::new();
    loop {
        let Some(head) = read_head(stream, &mut received).await? else { return Ok(()) };
        write_all(stream, answer(&head, phase.get()).as_bytes()).await?;
        if head.to_ascii_lowercase().contains("\r\nconnection: close") {
            return Ok(());
        }
    }
}

async fn read_head(stream: &TcpStream, received: &mut Vec<u8>) -> io::Result<Option<String>> {
    const END: &[u8] = b"\r\n\r\n";
    loop {
        if let Some(at) = received.windows(END.len()).position(|window| window == END) {
            let head = received.drain(..at + END.len()).collect::<Vec<u8>>();
            return Ok(Some(String::from_utf8_lossy(&head).into_owned()));
        }
        if received.len() > HEAD_LENGTH_MAX {
            return Ok(None);
        }
        stream.readable().await?;
        let mut part = [0; 1024];
        match stream.try_read(&mut part) {
            Ok(0) => return Ok(None),
            Ok(length) => received.extend_from_slice(part.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
}

async fn write_all(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        stream.writable().await?;
        match stream.try_write(bytes) {
            Ok(length) => bytes = bytes.get(length..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// The whole response to a request, as OpenClaw's gateway would word it.
fn answer(head: &str, phase: Phase) -> String {
    const JSON: &str = "application/json; charset=utf-8";
    let mut words = head.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (ok, unavailable) = ("200 OK", "503 Service Unavailable");
    let (status, kind, body) = match (path, phase) {
        ("/healthz" | "/health", _) => (ok, JSON, r#"{"ok":true,"status":"live"}"#),
        ("/startupz" | "/startup", Phase::Started) => (ok, JSON, r#"{"ok":true,"status":"started"}"#),
        ("/startupz" | "/startup", Phase::Starting) => (unavailable, JSON, r#"{"ok":false,"status":"starting"}"#),
        ("/startupz" | "/startup", Phase::Draining) => (unavailable, JSON, r#"{"ok":false,"status":"draining"}"#),
        ("/readyz" | "/ready", Phase::Started) => (ok, JSON, r#"{"ready":true,"failing":[]}"#),
        ("/readyz" | "/ready", Phase::Starting) => (unavailable, JSON, r#"{"ready":false,"failing":["startup"]}"#),
        ("/readyz" | "/ready", Phase::Draining) => (unavailable, JSON, r#"{"ready":false,"failing":["draining"]}"#),
        _ => (ok, "text/html; charset=utf-8", "<!doctype html><title>stand-in gateway</title>"),
    };
    let length = body.len();
    let body = if method == "HEAD" { "" } else { body };
    format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{body}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_path_answers_as_the_gateways_does_in_each_phase() {
        for (path, phase, status, word) in [
            ("/healthz", Phase::Starting, "200", r#""status":"live""#),
            ("/health", Phase::Draining, "200", r#""status":"live""#),
            ("/startupz", Phase::Starting, "503", r#""status":"starting""#),
            ("/startupz", Phase::Started, "200", r#""status":"started""#),
            ("/startup", Phase::Draining, "503", r#""status":"draining""#),
            ("/readyz", Phase::Started, "200", r#""ready":true"#),
            ("/ready", Phase::Starting, "503", r#""ready":false"#),
            ("/readyz?x=1", Phase::Draining, "503", r#""ready":false"#),
            ("/", Phase::Started, "200", "text/html"),
            ("/unknown", Phase::Started, "200", "text/html"),
        ] {
            let answer = answer(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"), phase);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
            assert!(answer.contains(word), "{path}: {answer}");
        }
    }

    #[test]
    fn the_length_is_that_of_the_body_and_head_has_none() {
        let whole = answer("GET /healthz HTTP/1.1\r\n\r\n", Phase::Started);
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        assert_eq!(answer("HEAD /healthz HTTP/1.1\r\n\r\n", Phase::Started), format!("{head}\r\n\r\n"));
    }
}
