//! The stand-in gateway. It answers like OpenClaw's, has a boot, a drain and helper processes, and freezes on command.
//!
//! Commands come on stdin, which it inherits from the supervisor. End of file means that the demo is gone: the stand-in then
//! exits as a misconfigured gateway would, which ends its supervisor too.

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

/// The line on stdin that makes it freeze.
pub(super) const FREEZE: &str = "freeze";

/// Names of the helpers, after the gateway's spawn broker and a process that an agent starts through it.
const HELPERS: [&str; 2] = ["spawn-broker", "mcp-server"];

/// Longer than the request head of any probe.
const HEAD_LENGTH_MAX: usize = 8 * 1024;

/// The state that `/startupz` reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StandInPhase {
    Starting,
    Started,
    Draining,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StdinCommand {
    Freeze,
    /// End of file.
    Exit,
}

/// Serves until SIGTERM; returns the exit code.
pub async fn serve(stand_in: StandIn) -> u8 {
    match LocalSet::new().run_until(run(stand_in)).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("the stand-in cannot serve on port {}: {error}; is the port taken?", stand_in.port);
            exit::FAILURE
        }
    }
}

/// An idle helper process, ended by the default action of a signal.
#[must_use]
pub fn run_helper() -> u8 {
    signals::release();
    block()
}

async fn run(stand_in: StandIn) -> io::Result<u8> {
    let mut signals = Signals::install()?;
    let mut commands = read_commands()?;
    let phase = Rc::new(Cell::new(StandInPhase::Starting));
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
            command = commands.recv() => match command {
                Some(StdinCommand::Freeze) => block(),
                Some(StdinCommand::Exit) | None => return Ok(exit::EX_CONFIG),
            },
            () = &mut booted, if phase.get() == StandInPhase::Starting => phase.set(StandInPhase::Started),
        }
    }
    phase.set(StandInPhase::Draining);
    tokio::time::sleep(stand_in.drain).await;
    for helper in helpers {
        // ESRCH: it has exited.
        let _gone = helper.terminate();
        helper.watch()?.exit(&helper).await?;
    }
    Ok(exit::OK)
}

/// Blocks this thread and its event loop forever, as JavaScript that does not return: the kernel accepts connections that are
/// never answered, and SIGTERM is caught and never acted on.
fn block() -> ! {
    loop {
        std::thread::park();
    }
}

fn read_commands() -> io::Result<UnboundedReceiver<StdinCommand>> {
    let (sender, commands) = mpsc::unbounded_channel();
    std::thread::Builder::new().spawn(move || {
        for line in io::stdin().lock().lines() {
            match line {
                Ok(line) if line == FREEZE => {
                    let _closed = sender.send(StdinCommand::Freeze);
                    return;
                }
                Ok(_) => {}
                Err(_) => break,
            }
        }
        let _closed = sender.send(StdinCommand::Exit);
    })?;
    Ok(commands)
}

fn start_helper(name: &str) -> io::Result<Handle> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg0(name).arg("demo-helper").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    process::spawn_in_own_session(&mut command)
}

async fn accept(listener: TcpListener, phase: Rc<Cell<StandInPhase>>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let phase = Rc::clone(&phase);
                tokio::task::spawn_local(async move {
                    // The peer may hang up at any time.
                    let _hung_up = serve_connection(&stream, &phase).await;
                });
            }
            // No descriptor left, or the connection was aborted.
            Err(_) => tokio::time::sleep(Duration::from_millis(10)).await,
        }
    }
}

/// Answers requests until the peer closes the connection or asks for that.
async fn serve_connection(stream: &TcpStream, phase: &Cell<StandInPhase>) -> io::Result<()> {
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

/// The response of OpenClaw's gateway to a request.
fn answer(head: &str, phase: StandInPhase) -> String {
    const JSON: &str = "application/json; charset=utf-8";
    let mut words = head.split_ascii_whitespace();
    let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    let path = target.split('?').next().unwrap_or_default();
    let (ok, unavailable) = ("200 OK", "503 Service Unavailable");
    let (status, kind, body) = match (path, phase) {
        ("/healthz" | "/health", _) => (ok, JSON, r#"{"ok":true,"status":"live"}"#),
        ("/startupz" | "/startup", StandInPhase::Started) => (ok, JSON, r#"{"ok":true,"status":"started"}"#),
        ("/startupz" | "/startup", StandInPhase::Starting) => {
            (unavailable, JSON, r#"{"ok":false,"status":"starting"}"#)
        }
        ("/startupz" | "/startup", StandInPhase::Draining) => {
            (unavailable, JSON, r#"{"ok":false,"status":"draining"}"#)
        }
        ("/readyz" | "/ready", StandInPhase::Started) => (ok, JSON, r#"{"ready":true,"failing":[]}"#),
        ("/readyz" | "/ready", StandInPhase::Starting) => {
            (unavailable, JSON, r#"{"ready":false,"failing":["startup"]}"#)
        }
        ("/readyz" | "/ready", StandInPhase::Draining) => {
            (unavailable, JSON, r#"{"ready":false,"failing":["draining"]}"#)
        }
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
    fn each_path_answers_as_with_openclaw_in_each_phase() {
        for (path, phase, status, word) in [
            ("/healthz", StandInPhase::Starting, "200", r#""status":"live""#),
            ("/health", StandInPhase::Draining, "200", r#""status":"live""#),
            ("/startupz", StandInPhase::Starting, "503", r#""status":"starting""#),
            ("/startupz", StandInPhase::Started, "200", r#""status":"started""#),
            ("/startup", StandInPhase::Draining, "503", r#""status":"draining""#),
            ("/readyz", StandInPhase::Started, "200", r#""ready":true"#),
            ("/ready", StandInPhase::Starting, "503", r#""ready":false"#),
            ("/readyz?x=1", StandInPhase::Draining, "503", r#""ready":false"#),
            ("/", StandInPhase::Started, "200", "text/html"),
            ("/unknown", StandInPhase::Started, "200", "text/html"),
        ] {
            let answer = answer(&format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n"), phase);
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{path}: {answer}");
            assert!(answer.contains(word), "{path}: {answer}");
        }
    }

    #[test]
    fn the_length_is_that_of_the_body_and_a_head_response_has_none() {
        let whole = answer("GET /healthz HTTP/1.1\r\n\r\n", StandInPhase::Started);
        let (head, body) = whole.split_once("\r\n\r\n").unwrap();
        assert!(head.ends_with(&format!("Content-Length: {}", body.len())));
        assert_eq!(answer("HEAD /healthz HTTP/1.1\r\n\r\n", StandInPhase::Started), format!("{head}\r\n\r\n"));
    }
}
