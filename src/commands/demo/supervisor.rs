//! One real supervisor under the director's eyes: `openclaw-supervise run` as a child process, and what it logs.

use super::Trouble;
use super::gateway::FREEZE;
use super::stage::Stage;
use crate::cli::StandIn;
use crate::core::Moment;
use crate::host::clock;
use crate::platform::process::{Handle, Watch};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};
use tokio::time::timeout;

/// The settings that let a person, or CI, see everything in seconds: flag, value, default.
pub(super) const SETTINGS: [(&str, &str, &str); 6] = [
    ("--probe-interval", "200ms", "5s"),
    ("--probe-timeout", "500ms", "5s"),
    ("--hang-after", "1500ms", "60s"),
    ("--hung-stop-timeout", "500ms", "10s"),
    ("--stable-after", "500ms", "2m"),
    ("--stop-timeout", "5s", "328s"),
];

/// How long a gateway of the demo runs before something is done to it: `--stable-after` and a probe or two, so that it
/// counts as stable and its next start is not paced.
pub(super) const SETTLED_AFTER: Duration = Duration::from_millis(1100);

/// An event that tells of the stand-in alone: with OpenClaw in its place it would not be there.
const BESIDE_THE_POINT: &str = "handoff.unsupported";

/// How long the rest of a log is waited for once its writer has ended: a gateway that is left holds the pipe open.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// One line of a supervisor's log, and when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) at: Moment,
    pub(super) level: String,
    pub(super) event: String,
    pub(super) sentence: String,
}

impl Heard {
    /// Takes a line of the text log apart: stamp, level, event, sentence. Any other line was not the log's.
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

/// What a supervisor did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum News {
    Said(Heard),
    Ended(Moment, ExitStatus),
}

/// A running supervisor.
pub(super) struct Supervisor {
    child: Child,
    handle: Handle,
    watch: Watch,
    /// Reaches every gateway that it starts; its end ends them.
    orders: Option<ChildStdin>,
    log: UnboundedReceiver<Heard>,
    ended: Option<(Moment, ExitStatus)>,
}

impl Supervisor {
    /// Starts one on the stage. Its process group is its own, so that Ctrl-C reaches the director alone.
    pub(super) fn start(stage: &Stage, gateway: StandIn) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let mut command = Command::new(&program);
        command.args(arguments(gateway)).arg("--state-dir").arg(stage.scratch());
        command.arg("--").arg(&program).args(gateway_arguments(gateway));
        // Nothing that a person has set for a gateway of their own may reach this one.
        for (name, _) in std::env::vars_os() {
            if name.to_str().is_some_and(|name| name.starts_with("OPENCLAW_")) {
                command.env_remove(name);
            }
        }
        let (name, value) = stage.mark();
        command.env(name, value).process_group(0);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let handle = Handle::open(i32::try_from(child.id()).map_err(io::Error::other)?)?;
        let watch = handle.watch()?;
        let (said, log) = mpsc::unbounded_channel();
        if let Some(stderr) = child.stderr.take() {
            std::thread::Builder::new().spawn(move || listen(stderr, &said))?;
        }
        let orders = child.stdin.take();
        Ok(Self { child, handle, watch, orders, log, ended: None })
    }

    /// Its process id.
    pub(super) fn pid(&self) -> i32 {
        self.handle.pid()
    }

    /// Whether it has ended and that was told.
    pub(super) fn has_ended(&self) -> bool {
        self.ended.is_some() && self.log.is_closed() && self.log.is_empty()
    }

    /// The next thing that it does; its end comes last. Cancel-safe.
    pub(super) async fn next(&mut self) -> io::Result<News> {
        loop {
            if let Some((at, status)) = self.ended {
                if let Ok(Some(heard)) = timeout(LAST_WORDS, self.log.recv()).await {
                    return Ok(News::Said(heard));
                }
                self.log.close();
                return Ok(News::Ended(at, status));
            }
            tokio::select! {
                biased;
                Some(heard) = self.log.recv() => return Ok(News::Said(heard)),
                exit = self.watch.exit(&self.handle) => self.ended = Some((clock::now(), exit?.status)),
            }
        }
    }

    /// Sends it a signal; one that has ended needs none.
    pub(super) fn signal(&self, signal: Signal) -> io::Result<()> {
        // Only this struct reaps it, when it is dropped, so its pid is still its own.
        if self.ended.is_none() { Ok(kill(Pid::from_raw(self.pid()), signal)?) } else { Ok(()) }
    }

    /// Tells the gateway to block its event loop.
    pub(super) fn freeze(&mut self) -> io::Result<()> {
        let orders = self.orders.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        writeln!(orders, "{FREEZE}").and_then(|()| orders.flush())
    }

    /// The gateway that a `gateway.spawned` names, held by a descriptor: it must be this supervisor's child.
    pub(super) fn gateway(&self, spawned: &Heard) -> Result<Handle, Trouble> {
        let unknown = || Trouble::Gateway(spawned.sentence.clone());
        let handle = spawned.pid().and_then(|pid| Handle::open(pid).ok()).ok_or_else(unknown)?;
        let stat = crate::platform::proc::stat(handle.pid()).map_err(|_| unknown())?;
        let ours = stat.parent == self.pid() && stat.start_time == handle.start_time();
        if ours { Ok(handle) } else { Err(unknown()) }
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Nothing happens to one that still runs: whoever drops it has ended it before.
        let _reaped = self.child.try_wait();
    }
}

/// How a run ended, as a shell would tell it: a signal counts from 128.
pub(super) fn code(status: ExitStatus) -> i32 {
    status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0))
}

/// The words of the supervisor's command line before the state directory.
fn arguments(gateway: StandIn) -> Vec<String> {
    let head = ["run", "--log-format", "text", "--log-level", "info", "--host", "127.0.0.1", "--port"];
    let settings = SETTINGS.iter().flat_map(|(flag, value, _)| [*flag, *value]).map(str::to_owned);
    head.map(str::to_owned).into_iter().chain([gateway.port.to_string()]).chain(settings).collect()
}

/// The words of the gateway's command line after the program.
pub(super) fn gateway_arguments(gateway: StandIn) -> [String; 7] {
    let ms = |duration: Duration| format!("{}ms", duration.as_millis());
    let (boot, drain) = (ms(gateway.boot), ms(gateway.drain));
    ["demo-gateway", "--port", &gateway.port.to_string(), "--boot", &boot, "--drain", &drain].map(str::to_owned)
}

fn listen(log: impl Read, said: &UnboundedSender<Heard>) {
    let mut log = BufReader::new(log);
    let mut line = Vec::new();
    // An error is as good as the end of the stream: nothing more will be read.
    while log.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let heard = Heard::parse(clock::now(), String::from_utf8_lossy(&line).trim_end());
        if heard.event != BESIDE_THE_POINT && said.send(heard).is_err() {
            return;
        }
        line.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_log_falls_into_level_event_and_sentence() {
        let line = "2026-11-23T17:45:27.133Z  WARN gateway.spawned gateway 1 is pid 21828, attempt 1";
        let heard = Heard::parse(Duration::ZERO, line);
        assert_eq!((heard.level.as_str(), heard.event.as_str()), ("WARN", "gateway.spawned"));
        assert_eq!(heard.sentence, "gateway 1 is pid 21828, attempt 1");
        assert_eq!(heard.pid(), Some(21828));
        let error = Heard::parse(Duration::ZERO, "2026-11-23T17:45:27.133Z ERROR conflict.detected");
        assert_eq!(
            (error.level.as_str(), error.event.as_str(), error.sentence.as_str()),
            ("ERROR", "conflict.detected", "")
        );
    }

    #[test]
    fn any_other_line_is_shown_as_it_is() {
        for line in ["thread 'main' panicked at x", "", "oops"] {
            let heard = Heard::parse(Duration::ZERO, line);
            assert_eq!((heard.event.as_str(), heard.sentence.as_str(), heard.pid()), ("output", line, None));
        }
    }
}
