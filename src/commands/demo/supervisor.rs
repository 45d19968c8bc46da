//! `openclaw-supervise run` as a child process, and its log.

use super::error::DemoError;
use super::gateway::FREEZE;
use crate::cli::StandIn;
use crate::core::Moment;
use crate::host::clock;
use crate::platform::process::{EndWatch, Handle};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;

/// Short timeouts, so that the demo takes seconds: flag, value, default.
pub(super) const SETTINGS: [(&str, &str, &str); 6] = [
    ("--probe-interval", "200ms", "5s"),
    ("--probe-timeout", "500ms", "5s"),
    ("--hang-after", "1500ms", "60s"),
    ("--hung-stop-timeout", "500ms", "10s"),
    ("--stable-after", "500ms", "2m"),
    ("--stop-timeout", "5s", "328s"),
];

/// How long each gateway runs undisturbed: `--stable-after` and two probes, so that the next start is not delayed.
pub(super) const STABLE_AFTER: Duration = Duration::from_millis(1100);

/// Logged only because the gateway is a stand-in, so it is not shown.
const HIDDEN_EVENT: &str = "handoff.unsupported";

/// How long to read the log after the supervisor has exited: a gateway that is left holds the pipe open.
const LOG_TAIL_TIME: Duration = Duration::from_millis(500);

/// A line of the supervisor's log, and when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LogLine {
    pub(super) at: Moment,
    pub(super) level: String,
    pub(super) event: String,
    pub(super) sentence: String,
}

impl LogLine {
    /// Parses a line of the text log: timestamp, level, event, sentence. Any other line becomes the sentence of `output`.
    fn parse(at: Moment, line: &str) -> Self {
        let mut words = line.splitn(2, ' ');
        let (stamp, rest) = (words.next().unwrap_or_default(), words.next().unwrap_or_default().trim_start());
        let (level, rest) = rest.split_once(' ').unwrap_or((rest, ""));
        let (event, sentence) = rest.split_once(' ').unwrap_or((rest, ""));
        let (level, event, sentence) =
            if stamp.parse::<jiff::Timestamp>().is_ok() { (level, event, sentence) } else { ("", "output", line) };
        Self { at, level: level.to_owned(), event: event.to_owned(), sentence: sentence.to_owned() }
    }

    /// The pid in the sentence of `gateway.spawned`.
    fn pid(&self) -> Option<i32> {
        let (_, rest) = self.sentence.split_once("is pid ")?;
        rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum SupervisorEvent {
    Logged(LogLine),
    Exited(Moment, ExitStatus),
}

pub(super) struct SupervisorProcess {
    child: Child,
    handle: Handle,
    watch: EndWatch,
    /// Inherited by its gateways, which exit at end of file.
    stdin: Option<ChildStdin>,
    log: UnboundedReceiver<LogLine>,
    ended: Option<(Moment, ExitStatus)>,
}

/// This program without the settings of the user's own gateway.
fn ours((name, value): (&str, &str)) -> io::Result<Command> {
    let mut command = Command::new(std::env::current_exe()?);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("OPENCLAW_")) {
            command.env_remove(name);
        }
    }
    command.env(name, value).process_group(0);
    Ok(command)
}

/// A verb that asks the supervisor, laid out for `width` columns. It is ended when this is dropped.
pub(super) struct VerbProcess {
    child: Child,
    handle: Handle,
    watch: EndWatch,
}

impl VerbProcess {
    pub(super) fn start(words: &[&str], scratch: &Path, tag: (&str, &str), width: usize) -> io::Result<Self> {
        let mut command = ours(tag)?;
        command.args(words).arg("--state-dir").arg(scratch).env("COLUMNS", width.to_string());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
        let handle = Handle::open(i32::try_from(child.id()).map_err(io::Error::other)?);
        match handle.and_then(|handle| Ok((handle.watch()?, handle))) {
            Ok((watch, handle)) => Ok(Self { child, handle, watch }),
            Err(error) => {
                let _gone = child.kill();
                Err(error)
            }
        }
    }

    /// What it printed, which fits into a pipe. It fails with any exit code but 0.
    pub(super) async fn output(mut self) -> io::Result<String> {
        let status = self.watch.exit(&self.handle).await?.status;
        let mut text = String::new();
        if let Some(mut out) = self.child.stdout.take() {
            out.read_to_string(&mut text)?;
        }
        if let Some(mut err) = self.child.stderr.take().filter(|_| !status.success()) {
            err.read_to_string(&mut text)?;
        }
        if status.success() {
            Ok(text)
        } else {
            Err(io::Error::other(format!("exit code {}: {}", code(status), text.trim_end())))
        }
    }
}

impl Drop for VerbProcess {
    fn drop(&mut self) {
        // The sandbox kills one that still runs.
        let _reaped = self.child.try_wait();
    }
}

impl SupervisorProcess {
    /// `tag` is a variable for all its processes. The process group is its own, so that Ctrl-C reaches only the demo.
    pub(super) fn start(scratch: &Path, tag: (&str, &str), gateway: StandIn) -> io::Result<Self> {
        let (mut command, program) = (ours(tag)?, std::env::current_exe()?);
        command.args(arguments(gateway)).arg("--state-dir").arg(scratch);
        command.arg("--").arg(&program).args(gateway_arguments(gateway));
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let handle = Handle::open(i32::try_from(child.id()).map_err(io::Error::other)?)?;
        let watch = handle.watch()?;
        let (sender, log) = mpsc::unbounded_channel();
        if let Some(stderr) = child.stderr.take() {
            std::thread::Builder::new().spawn(move || read_log(stderr, &sender))?;
        }
        let stdin = child.stdin.take();
        Ok(Self { child, handle, watch, stdin, log, ended: None })
    }

    pub(super) fn pid(&self) -> i32 {
        self.handle.pid()
    }

    /// Whether [`SupervisorEvent::Exited`] was returned.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some() && self.log.is_closed() && self.log.is_empty()
    }

    /// The next event; the exit comes last. Cancel-safe.
    pub(super) async fn next(&mut self) -> io::Result<SupervisorEvent> {
        loop {
            if let Some((at, status)) = self.ended {
                if let Ok(Some(line)) = timeout(LOG_TAIL_TIME, self.log.recv()).await {
                    return Ok(SupervisorEvent::Logged(line));
                }
                self.log.close();
                return Ok(SupervisorEvent::Exited(at, status));
            }
            tokio::select! {
                biased;
                Some(line) = self.log.recv() => return Ok(SupervisorEvent::Logged(line)),
                exit = self.watch.exit(&self.handle) => self.ended = Some((clock::now(), exit?.status)),
            }
        }
    }

    /// Does nothing after the exit.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        // Only this struct reaps the child, on drop, so the pid cannot be reused.
        if self.ended.is_none() { Ok(kill(Pid::from_raw(self.pid()), signal)?) } else { Ok(()) }
    }

    /// Makes the gateway block its event loop.
    pub(super) fn freeze(&mut self) -> io::Result<()> {
        let stdin = self.stdin.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(stdin, "{FREEZE}").and_then(|()| stdin.flush())
    }

    /// Opens the gateway that `gateway.spawned` names. Fails unless it is this supervisor's child.
    pub(super) fn gateway(&self, spawned: &LogLine) -> Result<Handle, DemoError> {
        let unknown = || DemoError::Gateway(spawned.sentence.clone());
        let handle = spawned.pid().and_then(|pid| Handle::open(pid).ok()).ok_or_else(unknown)?;
        let stat = crate::platform::proc::stat(handle.pid()).map_err(|_| unknown())?;
        let ours = stat.parent == self.pid() && stat.start_time == handle.start_time();
        if ours { Ok(handle) } else { Err(unknown()) }
    }
}

impl Drop for SupervisorProcess {
    fn drop(&mut self) {
        // It has exited before: the sandbox kills the rest.
        let _reaped = self.child.try_wait();
    }
}

/// The exit status as a shell shows it: 128 plus the number of a signal.
pub(super) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

fn arguments(gateway: StandIn) -> Vec<String> {
    let head = ["run", "--log-format", "text", "--log-level", "info", "--host", "127.0.0.1", "--port"];
    let settings = SETTINGS.iter().flat_map(|(flag, value, _)| [*flag, *value]).map(str::to_owned);
    head.map(str::to_owned).into_iter().chain([gateway.port.to_string()]).chain(settings).collect()
}

pub(super) fn gateway_arguments(gateway: StandIn) -> [String; 7] {
    let ms = |duration: Duration| format!("{}ms", duration.as_millis());
    let (boot, drain) = (ms(gateway.boot), ms(gateway.drain));
    ["demo-gateway", "--port", &gateway.port.to_string(), "--boot", &boot, "--drain", &drain].map(str::to_owned)
}

fn read_log(log: impl Read, lines: &UnboundedSender<LogLine>) {
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    // An error ends the log like end of file.
    while log.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let parsed = LogLine::parse(clock::now(), String::from_utf8_lossy(&line).trim_end());
        if parsed.event != HIDDEN_EVENT && lines.send(parsed).is_err() {
            return;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_is_split_into_level_event_and_sentence() {
        let line = "2026-11-23T17:45:27.133Z  WARN gateway.spawned gateway 1 is pid 21828, attempt 1";
        let parsed = LogLine::parse(Duration::ZERO, line);
        assert_eq!((parsed.level.as_str(), parsed.event.as_str()), ("WARN", "gateway.spawned"));
        assert_eq!(parsed.sentence, "gateway 1 is pid 21828, attempt 1");
        assert_eq!(parsed.pid(), Some(21828));
        let error = LogLine::parse(Duration::ZERO, "2026-11-23T17:45:27.133Z ERROR conflict.detected");
        assert_eq!(
            (error.level.as_str(), error.event.as_str(), error.sentence.as_str()),
            ("ERROR", "conflict.detected", "")
        );
    }

    #[test]
    fn any_other_line_is_kept_as_output() {
        for line in ["thread 'main' panicked at x", "", "oops"] {
            let parsed = LogLine::parse(Duration::ZERO, line);
            assert_eq!((parsed.event.as_str(), parsed.sentence.as_str(), parsed.pid()), ("output", line, None));
        }
    }
}
