//! Starts gateways with and without a supervisor, and probes them.

use super::release::Installed;
use super::support::process::Process;
use super::support::supervisor::{Event, Launch, Supervisor};
use super::support::{Scene, http, wait_for};
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// For cold disks and busy machines: a boot takes 15 s on an idle one.
pub(crate) const PATIENCE: Duration = Duration::from_mins(4);

/// The defaults, except for the probe interval and a shorter hang timeout.
pub(crate) fn launch<'a>(scene: &'a Scene, installed: &Installed) -> Launch<'a> {
    let words = installed.words(scene.port());
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut launch = scene.launch().words(&words);
    for (name, value) in surroundings(scene) {
        launch = launch.env(name, &value);
    }
    for name in ["--probe-timeout", "--backoff-max", "--boot-limit"] {
        launch = launch.without(name);
    }
    let set = [
        ("--probe-interval", "1s"),
        ("--hang-after", "10s"),
        ("--hung-stop-timeout", "2s"),
        ("--startup-timeout", "240s"),
        ("--stop-timeout", "60s"),
        ("--conflict-timeout", "5s"),
    ];
    set.into_iter().fold(launch, |launch, (name, value)| launch.option(name, value))
}

/// Older releases keep their lock in the temporary directory.
fn surroundings(scene: &Scene) -> [(&'static str, String); 2] {
    let config = scene.state_dir().join("openclaw.json");
    let temporary = scene.root().join("tmp");
    fs::create_dir_all(&temporary).expect("the scene's folder can be written");
    [("OPENCLAW_CONFIG_PATH", config.display().to_string()), ("TMPDIR", temporary.display().to_string())]
}

/// Starts a supervisor with long timeouts.
pub(crate) fn start(launch: Launch<'_>) -> Supervisor {
    let mut supervisor = launch.start();
    supervisor.patience = PATIENCE;
    supervisor
}

pub(crate) fn is_healthy(port: u16) -> bool {
    let Some((200, body)) = http::get(port, "/healthz") else { return false };
    body.contains(r#""ok":true"#) && body.contains(r#""status":"live""#)
}

/// Waits until a gateway answers.
pub(crate) fn wait_healthy(port: u16) {
    wait_for("a healthy gateway", PATIENCE, String::new, || is_healthy(port).then_some(()));
}

/// The kind of its `/startupz`: `JSON`, or the page that older releases serve for any path.
pub(crate) fn startup_path(port: u16) -> String {
    match http::get(port, "/startupz") {
        Some((status, _)) if http::startup_status(port).is_some() => format!("{status} JSON"),
        Some((status, _)) => format!("{status} HTML"),
        None => "no answer".to_owned(),
    }
}

/// `5.3 s`
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// `12 ms`
pub(crate) fn millis(time: Duration) -> String {
    format!("{} ms", time.as_millis())
}

/// The exit in an event: `exit 0`, `SIGKILL`. Only the parent learns that of an adopted one.
pub(crate) fn ending(exited: &Event) -> String {
    let number = |field: &str| exited.value()[field].as_i64();
    let name = |signal: i64| i32::try_from(signal).ok().and_then(|signal| Signal::try_from(signal).ok());
    match (number("code"), number("signal")) {
        (Some(code), _) => format!("exit {code}"),
        (None, Some(signal)) => name(signal).map_or_else(|| format!("signal {signal}"), |name| name.to_string()),
        (None, None) => "end unknown".to_owned(),
    }
}

/// The exit of a child.
pub(crate) fn ending_of(status: ExitStatus) -> String {
    status.code().map_or_else(|| status.to_string(), |code| format!("exit {code}"))
}

/// The notable event names after the first `from`, without duplicates.
pub(crate) fn remarks(supervisor: &Supervisor, from: usize) -> String {
    let mut names: Vec<String> = Vec::new();
    let plain = ["core.", "log", "readiness.", "probe.", "gateway.spawned", "gateway.exited", "gateway.listening"];
    for event in supervisor.events().iter().skip(from) {
        let name = event.name();
        if !plain.iter().any(|prefix| name.starts_with(prefix)) && !names.iter().any(|known| known == name) {
            names.push(name.to_owned());
        }
    }
    if names.is_empty() { "no other event".to_owned() } else { names.join(", ") }
}

/// A gateway without a supervisor.
pub(crate) struct Alone {
    child: Child,
    started: Instant,
    log: PathBuf,
}

impl Alone {
    /// Starts one in a scene. `state` is a folder below that of the scene.
    pub(crate) fn start(scene: &Scene, installed: &Installed, state: &str, port: u16) -> Self {
        let dir = scene.root().join(state);
        fs::create_dir_all(&dir).expect("the scene's folder can be written");
        let words = installed.words(port);
        let mut command: Command = scene.command(&words[0]);
        command.args(&words[1..]).envs(surroundings(scene));
        command.env("OPENCLAW_STATE_DIR", &dir).env("OPENCLAW_CONFIG_PATH", dir.join("openclaw.json"));
        let log = scene.root().join(format!("{state}-{port}.log"));
        let file = File::create(&log).expect("the scene's folder can be written");
        let second = file.try_clone().expect("a file can be shared");
        command.stdout(Stdio::from(file)).stderr(Stdio::from(second));
        let started = Instant::now();
        let child = command.spawn().expect("the gateway starts");
        Self { child, started, log }
    }

    pub(crate) fn process(&self) -> Option<Process> {
        Process::find(i32::try_from(self.child.id()).expect("a pid fits"))
    }

    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Waits for its exit, as `exit 0 in 9.0 s`, or until `or` holds.
    pub(crate) fn wait_end_or(&mut self, or: impl Fn() -> bool) -> Option<String> {
        let (started, log) = (self.started, self.log.clone());
        let story = || fs::read_to_string(&log).unwrap_or_default();
        wait_for("the end of a second gateway", PATIENCE, story, || {
            let ended =
                self.try_wait().map(|status| format!("{} in {}", ending_of(status), seconds(started.elapsed())));
            (ended.is_some() || or()).then_some(ended)
        })
    }

    /// Sends SIGTERM and returns the exit.
    pub(crate) fn stop(&mut self) -> String {
        if let Some(process) = self.process() {
            process.signal(Signal::SIGTERM);
        }
        self.started = Instant::now();
        self.wait_end_or(|| false).unwrap_or_default()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        // Neither fails for a child that was not waited for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
