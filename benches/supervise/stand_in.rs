//! The supervised gateway and the processes that it starts: the bench itself with another first argument.
//!
//! `stand-in gateway PORT [kids]` serves the probe contract from one thread; with kids it starts ten of each kind first,
//! and twenty plain ones. `stand-in gateway PORT hostile NUMBER` ignores SIGTERM and starts NUMBER children of all kinds in turn,
//! and `... raging NUMBER` one more that keeps forking. `stand-in kid KIND` is one of them. `stand-in nothing` exits at
//! once.
//! `stand-in starter PROGRAM [ARG...]` becomes that program once its standard input ends: a gate for many at once.
//! Under the name `openclaw` it is that program: `gateway --port PORT` serves as well, and exits with 0 at SIGUSR2;
//! `gateway restart-handoff` says that this was planned.
//! Each reports on its standard output, which it inherits through the supervisor, and reads the clock first.

use crate::world;
use nix::sys::signal::{SigSet, Signal, raise};
use nix::unistd::{Pid, setpgid, setsid};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

pub(crate) const ROLE: &str = "stand-in";

/// The name under which it is OpenClaw's program.
pub(crate) const OPENCLAW: &str = "openclaw";

/// The number of processes of `kids`.
pub(crate) const KIDS: usize = 50;

/// The kinds that a hostile gateway starts in turn.
const HOSTILE: [&str; 8] = ["plain", "group", "session", "daemon", "wiped", "lost", "stubborn", "stopped"];

/// The length of a fork chain that is not killed: some seconds.
const LINKS: u32 = 5000;

/// The bytes of one [`News`].
pub(crate) const NEWS_LENGTH: usize = 16;

/// The kind of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A gateway runs, with the time of its first instruction.
    Gateway,
    /// Its children run and it listens.
    Listening,
    /// A child runs.
    Kid,
    /// A starter waits for the gate to open.
    AtGate,
    /// A gateway exits for a planned restart, with the time of its last instruction.
    Leaving,
}

/// One report on the pipe, shorter than `PIPE_BUF` and so written atomically.
#[derive(Debug, Clone, Copy)]
pub(crate) struct News {
    pub(crate) kind: Kind,
    pub(crate) pid: i32,
    /// Nanoseconds of the monotonic clock.
    pub(crate) at: u64,
}

impl News {
    fn encode(self) -> [u8; NEWS_LENGTH] {
        let kind: u32 = match self.kind {
            Kind::Gateway => 0,
            Kind::Listening => 1,
            Kind::Kid => 2,
            Kind::AtGate => 3,
            Kind::Leaving => 4,
        };
        let mut bytes = [0; NEWS_LENGTH];
        let parts = kind.to_le_bytes().into_iter().chain(self.pid.to_le_bytes()).chain(self.at.to_le_bytes());
        bytes.iter_mut().zip(parts).for_each(|(byte, part)| *byte = part);
        bytes
    }

    /// Reads one report.
    pub(crate) fn decode(bytes: [u8; NEWS_LENGTH]) -> Option<Self> {
        let (kind, rest) = bytes.split_first_chunk::<4>()?;
        let (pid, at) = rest.split_first_chunk::<4>()?;
        let kind = match u32::from_le_bytes(*kind) {
            0 => Kind::Gateway,
            1 => Kind::Listening,
            2 => Kind::Kid,
            3 => Kind::AtGate,
            4 => Kind::Leaving,
            _ => return None,
        };
        Some(Self { kind, pid: i32::from_le_bytes(*pid), at: u64::from_le_bytes(at.try_into().ok()?) })
    }
}

/// Runs the role in the arguments.
pub(crate) fn play(words: &[String]) -> ExitCode {
    let at = world::now();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let played = match words.as_slice() {
        ["gateway", port] => gateway(at, port, &[]),
        ["gateway", port, "kids"] => {
            gateway(at, port, &[("plain", 20), ("stubborn", 10), ("session", 10), ("daemon", 10)])
        }
        ["gateway", port, kind @ ("hostile" | "raging"), number] => hostile(at, port, kind, number),
        ["kid", kind] => kid(kind),
        ["link", left] => link(left),
        ["nothing"] => Ok(()),
        ["starter", program, arguments @ ..] => starter(at, program, arguments),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    // The bench detects a missing report.
    if played.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs as OpenClaw's CLI.
pub(crate) fn play_openclaw(words: &[String]) -> ExitCode {
    let at = world::now();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let played = match words.as_slice() {
        ["gateway", "restart-handoff", "capabilities", ..] => answer(r#""operations":["consume"]"#),
        ["gateway", "restart-handoff", "consume", ..] => answer(r#""status":"accepted","handoff":{"reason":"bench"}"#),
        ["gateway", "--port", port] => planned(at, port),
        _ => Err(io::ErrorKind::InvalidInput.into()),
    };
    if played.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn answer(rest: &str) -> io::Result<()> {
    let head = r#""ok":true,"protocol":"openclaw.gateway.restart-handoff","protocolVersion":1"#;
    writeln!(io::stdout(), "{{{head},{rest}}}")
}

/// A gateway that exits with 0 at SIGUSR2.
fn planned(at: u64, port: &str) -> io::Result<()> {
    let asked = SigSet::from(Signal::SIGUSR2);
    asked.thread_block()?;
    let port = port.to_owned();
    // Ends with the process.
    std::thread::spawn(move || gateway(at, &port, &[]));
    asked.wait()?;
    tell(Kind::Leaving, world::now())
}

fn tell(kind: Kind, at: u64) -> io::Result<()> {
    let pid = i32::try_from(std::process::id()).map_err(io::Error::other)?;
    // One write(2): the buffer of `io::stdout` would split a report at a newline byte.
    let length = nix::unistd::write(io::stdout(), &News { kind, pid, at }.encode())?;
    if length == NEWS_LENGTH { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
}

fn gateway(at: u64, port: &str, kids: &[(&str, usize)]) -> io::Result<()> {
    tell(Kind::Gateway, at)?;
    for &(kind, number) in kids {
        for _ in 0..number {
            start_kid(kind)?;
        }
    }
    let listener = TcpListener::bind(("127.0.0.1", port.parse().map_err(io::Error::other)?))?;
    tell(Kind::Listening, world::now())?;
    for stream in listener.incoming() {
        // The peer may close the connection.
        let _gone = stream.and_then(serve);
    }
    Ok(())
}

fn hostile(at: u64, port: &str, kind: &str, number: &str) -> io::Result<()> {
    SigSet::from(Signal::SIGTERM).thread_block()?;
    let number = number.parse().map_err(io::Error::other)?;
    let mut kids: Vec<_> = HOSTILE.into_iter().cycle().take(number).map(|kind| (kind, 1)).collect();
    kids.extend((kind == "raging").then_some(("storm", 1)));
    gateway(at, port, &kids)
}

fn starter(at: u64, program: &str, arguments: &[&str]) -> io::Result<()> {
    tell(Kind::AtGate, at)?;
    io::copy(&mut io::stdin(), &mut io::sink())?;
    Err(Command::new(program).args(arguments).stdin(Stdio::null()).exec())
}

fn start_kid(kind: &str) -> io::Result<()> {
    let mut child = again(&["kid", kind])?.spawn()?;
    if ["daemon", "lost"].contains(&kind) {
        child.wait()?;
    }
    Ok(())
}

/// This program in another role.
fn again(words: &[&str]) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(ROLE).args(words).stdin(Stdio::null());
    Ok(command)
}

fn kid(kind: &str) -> io::Result<()> {
    match kind {
        // Blocked has the same effect as ignored.
        "stubborn" => SigSet::from(Signal::SIGTERM).thread_block()?,
        "group" => setpgid(Pid::from_raw(0), Pid::from_raw(0))?,
        "session" | "stopped" => drop(setsid()?),
        // The second fork of a daemon: its parent has exited and it has its own session.
        "daemon" => {
            setsid()?;
            return again(&["kid", "plain"])?.spawn().map(drop);
        }
        // A daemon without an environment.
        "lost" => {
            setsid()?;
            return again(&["kid", "plain"])?.env_clear().spawn().map(drop);
        }
        "wiped" => return Err(again(&["kid", "plain"])?.env_clear().exec()),
        "storm" => drop(again(&["link", &LINKS.to_string()])?.env_clear().spawn()?),
        _ => {}
    }
    tell(Kind::Kid, world::now())?;
    if kind == "stopped" {
        raise(Signal::SIGSTOP)?;
    }
    loop {
        std::thread::park();
    }
}

/// Starts the next link in a new session and exits.
fn link(left: &str) -> io::Result<()> {
    setsid()?;
    match left.parse::<u32>().map_err(io::Error::other)?.checked_sub(1) {
        Some(left) => again(&["link", &left.to_string()])?.spawn().map(drop),
        None => Ok(()),
    }
}

/// Serves one connection until the peer closes it.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    let mut request = Vec::new();
    let mut piece = [0; 1024];
    loop {
        let length = stream.read(&mut piece)?;
        if length == 0 {
            return Ok(());
        }
        request.extend_from_slice(piece.get(..length).unwrap_or_default());
        if !request.ends_with(b"\r\n\r\n") {
            continue;
        }
        let head = String::from_utf8_lossy(&request).to_ascii_lowercase();
        let status = if head.starts_with("get /startupz ") { "started" } else { "live" };
        let body = format!(r#"{{"ok":true,"status":"{status}"}}"#);
        let (length, kind) = (body.len(), "application/json");
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {length}\r\n\r\n{body}");
        stream.write_all(answer.as_bytes())?;
        if head.contains("connection: close") {
            return Ok(());
        }
        request.clear();
    }
}
