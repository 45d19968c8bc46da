//! A stand-in for the OpenClaw gateway that starts at once and misbehaves on command.
//!
//! It is told what to do by its environment, so that it can stand wherever the real command stands:
//! `FAKE_GATEWAY_DIR` is the folder of its log, `FAKE_GATEWAY_SCRIPT` its script (see `script.rs`). Of its arguments
//! it heeds `--port N`, unless the file `place` says where to listen (see `place.rs`), and `restart-handoff`, which makes it answer as the hidden CLI of the gateway does.
//! `in-session COMMAND...` becomes that command in a session of its own; `on-machine MACHINE COMMAND...` does so without the
//! system calls that such a machine lacks (see `old_kernel.rs`), and `trapped SOCKET CALLS COMMAND...` with system calls that
//! a test answers (see `trapped.rs`); `as-init COMMAND...` starts it and is the init of a
//! container beside it; `kid ...` is a child of the gateway (see `kids.rs`). A file `control-PID` in the folder makes it do
//! one of the script's mishaps at once.

#![expect(clippy::disallowed_methods, reason = "a process of its own, with its own clock, exit code and sleep")]

mod diary;
mod health_reply;
mod http;
mod init;
mod kids;
#[cfg(target_os = "linux")]
mod old_kernel;
mod place;
mod script;
mod storm;
#[cfg(target_os = "linux")]
mod trapped;

use diary::Diary;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, raise};
use place::Place;
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use script::{Farewell, HealthReply, Kid, Mishap, Role, Scene};
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

/// No test takes so long. Whatever a killed test run leaves behind is gone after that.
const LIFETIME: Duration = Duration::from_mins(3);

/// How often listeners, control file and script are looked at.
const TICK: Duration = Duration::from_millis(3);

/// The signals that are taken as messages. All others keep their default action.
const HEARD: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGUSR1, Signal::SIGUSR2];

fn main() -> ExitCode {
    match run() {
        Ok(code) => code,
        Err(error) => {
            // A closed stderr is no reason to fail otherwise.
            // In one write: the supervisor writes its log to the same pipe.
            drop(std::io::stderr().write_all(format!("fake-gateway: {error}\n").as_bytes()));
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<ExitCode, String> {
    let words: Vec<_> = std::env::args().skip(1).collect();
    match words.first().map(String::as_str) {
        // It may have no environment.
        Some("kid") => return kids::live(&words[1..]).map_err(|error| format!("kid: {error}")),
        Some("in-session") => return Err(in_session(&words[1..])),
        #[cfg(target_os = "linux")]
        Some("on-machine") => {
            let Err(error) = old_kernel::run(&words[1..]);
            return Err(format!("on-machine: {error}"));
        }
        #[cfg(target_os = "linux")]
        Some("trapped") => {
            let Err(error) = trapped::run(&words[1..]);
            return Err(format!("trapped: {error}"));
        }
        Some("as-init") => return init::live(&words[1..]).map_err(|error| format!("as-init: {error}")),
        _ => {}
    }
    let dir = std::env::var_os("FAKE_GATEWAY_DIR").ok_or("FAKE_GATEWAY_DIR is not set")?;
    let diary = Diary::new(PathBuf::from(dir));
    if let Some(at) = words.iter().position(|word| word == "restart-handoff") {
        return handoff(&diary, &words[at + 1..]).map_err(|error| format!("restart-handoff: {error}"));
    }
    let start = diary.note_start().map_err(|error| format!("log: {error}"))?;
    let _alone = diary.be_alone().map_err(|error| format!("lock: {error}"))?;
    let script = std::env::var("FAKE_GATEWAY_SCRIPT").unwrap_or_default();
    let scene = Scene::of_start(&script, start)?;
    limit_core(scene.core).map_err(|error| format!("RLIMIT_CORE: {error}"))?;
    let port = if diary.dir().join("place").exists() { 0 } else { port(&words)? };
    Gateway::new(diary, scene, port).live().map_err(|error| format!("port {port}: {error}"))
}

/// No core files beside the tests, unless one is what they are about.
fn limit_core(is_wanted: bool) -> nix::Result<()> {
    let (_, hard) = getrlimit(Resource::RLIMIT_CORE)?;
    let limit = if is_wanted { hard } else { 0 };
    setrlimit(Resource::RLIMIT_CORE, limit, limit)
}

/// Becomes another program, in a session without a terminal. Returns only why it could not.
fn in_session(words: &[String]) -> String {
    let Some((program, rest)) = words.split_first() else { return "in-session: no command".to_owned() };
    // A test run in the background of a shell ignores SIGINT and SIGQUIT, which a supervisor would leave so.
    let defaults = diary::ignores_keyboard_signals().then_some(["/usr/bin/env", "--default-signal=INT,QUIT"]);
    let mut words = defaults.into_iter().flatten().chain([program.as_str()]);
    match nix::unistd::setsid() {
        Ok(_) => {
            let mut command = Command::new(words.next().unwrap_or_default());
            format!("{program}: {}", command.args(words).args(rest).exec())
        }
        Err(error) => format!("setsid: {error}"),
    }
}

fn port(words: &[String]) -> Result<u16, String> {
    let mut given = None;
    for (index, word) in words.iter().enumerate() {
        if let Some(value) = word.strip_prefix("--port=") {
            given = Some(value.to_owned());
        } else if word == "--port" {
            given = words.get(index + 1).cloned();
        }
    }
    let text = given.or_else(|| std::env::var("OPENCLAW_GATEWAY_PORT").ok()).ok_or("no port was given")?;
    text.parse().map_err(|error| format!("port {text:?}: {error}"))
}

/// `capabilities --json` and `consume --expected-pid PID --json`, protocol version 1.
fn handoff(diary: &Diary, words: &[String]) -> std::io::Result<ExitCode> {
    diary.note(format_args!("HANDOFF {}", words.join(" ")))?;
    let pid = words.iter().skip_while(|word| *word != "--expected-pid").nth(1);
    let outcome = match (words.first().map(String::as_str), pid) {
        (Some("capabilities"), _) => r#""operations":["consume"]"#,
        (Some("consume"), Some(pid)) if diary.take_handoff(pid) => r#""status":"accepted""#,
        (Some("consume"), Some(_)) => r#""status":"none","reason":"missing""#,
        _ => return Ok(ExitCode::from(2)),
    };
    let head = r#""ok":true,"protocol":"openclaw.gateway.restart-handoff","protocolVersion":1"#;
    writeln!(std::io::stdout(), "{{{head},{outcome}}}")?;
    Ok(ExitCode::SUCCESS)
}

/// Where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// The port is not open yet.
    Booting,
    /// Open since then.
    Serving { since: Instant },
    /// SIGTERM came; it leaves then.
    Draining { until: Instant },
    /// A restart inside the process: draining, no listener, a new listener then.
    Cycling { drained: Instant, until: Instant },
    /// The event loop stands still, with an open port.
    Frozen,
    /// Alive without a listener.
    Closed,
}

struct Gateway {
    diary: Diary,
    scene: Scene,
    port: u16,
    born: Instant,
    stage: Stage,
    health_reply: HealthReply,
    listeners: Vec<TcpListener>,
    tls: Option<Arc<ServerConfig>>,
    kids: Vec<Child>,
    /// Memory in use, and until when.
    touched: Vec<(Vec<u8>, Option<Instant>)>,
}

/// How long a restart inside the process is seen as `draining` before the listener goes.
const CYCLE_DRAIN: Duration = Duration::from_millis(500);

impl Gateway {
    fn new(diary: Diary, scene: Scene, port: u16) -> Self {
        let (stage, born, health_reply) = (Stage::Booting, Instant::now(), HealthReply::Sound);
        let (listeners, kids, touched) = (Vec::new(), Vec::new(), Vec::new());
        Self { diary, scene, port, born, stage, health_reply, listeners, tls: None, kids, touched }
    }

    fn live(mut self) -> std::io::Result<ExitCode> {
        let signals = listen_for_signals(&self.diary);
        while self.born.elapsed() < LIFETIME {
            let signal = match signals.recv_timeout(TICK) {
                Ok(signal) => Some(signal),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => break,
            };
            if let Some(signal) = signal {
                self.take_signal(signal)?;
            }
            if let Some(mishap) = self.next_mishap()
                && let Some(code) = self.suffer(mishap)?
            {
                return self.leave(code);
            }
            if let Some(code) = self.advance()? {
                return self.leave(code);
            }
            self.serve();
        }
        self.leave(99)
    }

    fn leave(&self, code: u8) -> std::io::Result<ExitCode> {
        self.diary.note(format_args!("EXIT {} {code}", std::process::id()))?;
        Ok(ExitCode::from(code))
    }

    fn take_signal(&mut self, signal: Signal) -> std::io::Result<()> {
        let now = Instant::now();
        match (signal, self.stage) {
            // The real one installs its handlers late: a SIGTERM during the boot ends it as a signal does.
            (Signal::SIGTERM | Signal::SIGINT, Stage::Booting) if self.scene.farewell != Farewell::Ignore => {
                die(signal)
            }
            // A frozen loop hears nothing, and a drain is not begun twice.
            (_, Stage::Frozen | Stage::Draining { .. }) => {}
            (Signal::SIGTERM | Signal::SIGINT, _) => match self.scene.farewell {
                Farewell::Drain(time) => self.stage = Stage::Draining { until: now + time },
                Farewell::Ignore => {}
            },
            // Under an external supervisor a restart is an exit with a handoff.
            (Signal::SIGUSR2, _) => {
                self.diary.leave_handoff()?;
                self.stage = Stage::Draining { until: now };
            }
            _ => {}
        }
        Ok(())
    }

    fn next_mishap(&mut self) -> Option<Mishap> {
        if self.scene.mishaps.first().is_some_and(|&(at, _)| self.born.elapsed() >= at) {
            return Some(self.scene.mishaps.remove(0).1);
        }
        let text = self.diary.take_command()?;
        let (name, value) = text.split_once('=').unwrap_or((&text, ""));
        script::mishap(name, value)
    }

    /// The exit code, where it leaves.
    fn suffer(&mut self, mishap: Mishap) -> std::io::Result<Option<u8>> {
        let now = Instant::now();
        match mishap {
            Mishap::Exit(code) => return Ok(Some(u8::try_from(code).unwrap_or(99))),
            Mishap::Die(signal) => die(signal),
            Mishap::Freeze => self.stage = Stage::Frozen,
            Mishap::Close => {
                self.listeners.clear();
                self.stage = Stage::Closed;
            }
            Mishap::Cycle(time) => {
                let drained = now + CYCLE_DRAIN;
                self.stage = Stage::Cycling { drained, until: drained + time };
            }
            Mishap::Succeed => {
                self.listeners.clear();
                let mut command = Command::new(std::env::current_exe()?);
                command.args(["in-session"]).arg(std::env::current_exe()?).args(std::env::args_os().skip(1));
                let successor = command.spawn()?.id();
                while !self.diary.has(&format!("LISTEN {successor}"))? && self.born.elapsed() < LIFETIME {
                    thread::sleep(TICK);
                }
                return Ok(Some(0));
            }
            Mishap::Touch(size, time) => {
                self.touched.push((std::hint::black_box(vec![1; size]), time.map(|time| now + time)));
            }
            Mishap::Burn(time) => burn(time)?,
            Mishap::Print(size) => std::io::stdout().write_all(&vec![b'x'; size])?,
            Mishap::Answer(health_reply) => self.health_reply = health_reply,
            Mishap::Work(time) => {
                self.listeners.clear();
                burn(time)?;
                let now = Instant::now();
                self.stage = Stage::Cycling { drained: now, until: now };
            }
        }
        self.diary.note(format_args!("MISHAP {} {mishap:?}", std::process::id()))?;
        Ok(None)
    }

    /// What time alone brings about.
    fn advance(&mut self) -> std::io::Result<Option<u8>> {
        let now = Instant::now();
        self.touched.retain(|(_, until)| until.is_none_or(|until| now < until));
        match self.stage {
            Stage::Booting if self.born + self.scene.boot <= now => {
                for kid in self.scene.kids.clone() {
                    if kid != Kid::Heir {
                        self.kids.push(kids::spawn(&self.diary, kid, Stdio::null())?);
                    }
                }
                return self.open();
            }
            Stage::Draining { until } if until <= now => return Ok(Some(0)),
            Stage::Cycling { until, .. } if until <= now => return self.open(),
            Stage::Cycling { drained, .. } if drained <= now => self.listeners.clear(),
            _ => {}
        }
        Ok(None)
    }

    /// The exit code, where the port is busy.
    fn open(&mut self) -> std::io::Result<Option<u8>> {
        let place = Place::read(self.diary.dir())?;
        let v4 = SocketAddr::from((Ipv4Addr::LOCALHOST, self.port));
        let v4 = place.as_ref().map_or(v4, |place| place.address);
        let v6 = SocketAddr::from((Ipv6Addr::LOCALHOST, self.port));
        match TcpListener::bind(v4) {
            Ok(listener) => self.listeners.push(listener),
            Err(error) => {
                self.diary.note(format_args!("BUSY {} {error}", std::process::id()))?;
                return Ok(Some(1));
            }
        }
        // A machine may have no IPv6.
        if place.is_none() {
            self.listeners.extend(TcpListener::bind(v6));
        }
        self.tls = place.and_then(|place| place.tls);
        for listener in &self.listeners {
            listener.set_nonblocking(true)?;
        }
        if self.scene.kids.contains(&Kid::Heir) {
            let listener = self.listeners.first().map(TcpListener::try_clone).transpose()?;
            let stdin = listener.map_or_else(Stdio::null, |listener| Stdio::from(OwnedFd::from(listener)));
            self.kids.push(kids::spawn(&self.diary, Kid::Heir, stdin)?);
        }
        self.stage = Stage::Serving { since: Instant::now() };
        self.diary.note(format_args!("LISTEN {}", std::process::id()))?;
        Ok(None)
    }

    fn serve(&self) {
        if self.stage == Stage::Frozen {
            return;
        }
        let (phase, health_reply) = (self.phase(), self.health_reply);
        for listener in &self.listeners {
            while let Ok((stream, _)) = listener.accept() {
                // A test that misses the count will say so.
                self.diary.count_request().ok();
                let (diary, tls) = (self.diary.clone(), self.tls.clone());
                thread::spawn(move || {
                    http::prepare(&stream)?;
                    match (tls, health_reply) {
                        (Some(tls), _) => {
                            let session = ServerConnection::new(tls).map_err(std::io::Error::other)?;
                            http::answer(StreamOwned::new(session, stream), phase)
                        }
                        (None, HealthReply::Sound) => http::answer(stream, phase),
                        (None, _) => health_reply::answer(stream, health_reply, phase, &diary),
                    }
                });
            }
        }
    }

    fn phase(&self) -> http::Phase {
        match (self.scene.role, self.stage) {
            (Role::Foreign, _) => http::Phase::Foreign,
            (Role::Silent, _) => http::Phase::Silent,
            (Role::OldGateway, _) => http::Phase::Unnamed,
            (Role::Gateway, Stage::Draining { .. } | Stage::Cycling { .. }) => http::Phase::Draining,
            (Role::Gateway, Stage::Serving { since }) if since.elapsed() < self.scene.warm => http::Phase::Starting,
            (Role::Gateway, _) => http::Phase::Started { ready: self.scene.ready },
        }
    }
}

/// Blocks the heard signals in every thread there will be and starts the one that waits for them.
fn listen_for_signals(diary: &Diary) -> Receiver<Signal> {
    let mut heard = SigSet::empty();
    heard.extend(HEARD);
    let (sender, receiver) = mpsc::channel();
    if heard.thread_block().is_ok() {
        let diary = diary.clone();
        thread::spawn(move || {
            while let Ok(signal) = heard.wait() {
                let noted = diary.note(format_args!("SIGNAL {} {signal}", std::process::id()));
                if noted.is_err() || sender.send(signal).is_err() {
                    break;
                }
            }
        });
    }
    receiver
}

/// Works until this thread has used so much more CPU time.
fn burn(time: Duration) -> nix::Result<()> {
    let used = || nix::time::clock_gettime(nix::time::ClockId::CLOCK_THREAD_CPUTIME_ID).map(Duration::from);
    let goal = used()? + time;
    while used()? < goal {
        std::hint::spin_loop();
    }
    Ok(())
}

/// Ends this process by the signal. The runtime's own handler for SIGSEGV and SIGBUS steps aside at the first one.
fn die(signal: Signal) -> ! {
    let mut mask = SigSet::empty();
    mask.add(signal);
    loop {
        // Neither can fail for a real signal.
        mask.thread_unblock().ok();
        raise(signal).ok();
    }
}
