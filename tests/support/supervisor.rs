//! The program under test, its events and its end.

use super::process::Process;
use super::{PATIENCE, Scene, wait_for};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::ops::Range;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// The program under test.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_openclaw-supervise");

/// Times that suit a gateway which starts in a few milliseconds. Each test adds what it is about; the last one counts.
const QUICK: &[(&str, &str)] = &[
    ("--log-format", "json"),
    ("--probe-interval", "50ms"),
    ("--probe-timeout", "1s"),
    ("--hang-after", "600ms"),
    ("--startup-timeout", "20s"),
    ("--stop-timeout", "10s"),
    ("--hung-stop-timeout", "200ms"),
    ("--backoff-max", "200ms"),
    ("--boot-limit", "0"),
    ("--conflict-timeout", "500ms"),
];

/// A supervisor to be.
pub(crate) struct Launch<'a> {
    scene: &'a Scene,
    options: Vec<(String, String)>,
    flags: Vec<String>,
    variables: Vec<(String, String)>,
    words: Option<Vec<String>>,
    machine: Option<String>,
}

impl<'a> Launch<'a> {
    pub(crate) fn new(scene: &'a Scene) -> Self {
        let mut options: Vec<_> = QUICK.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect();
        options.push(("--port".to_owned(), scene.port().to_string()));
        Self { scene, options, flags: Vec::new(), variables: Vec::new(), words: None, machine: None }
    }

    /// Sets an option, in place of its usual value.
    pub(crate) fn option(mut self, name: &str, value: &str) -> Self {
        self = self.without(name);
        self.options.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Leaves a usual option out.
    pub(crate) fn without(mut self, name: &str) -> Self {
        self.options.retain(|(known, _)| known != name);
        self
    }

    /// Adds words as they are.
    pub(crate) fn flags(mut self, words: &[&str]) -> Self {
        self.flags.extend(words.iter().map(|&word| word.to_owned()));
        self
    }

    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Supervises this command in place of the stand-in gateway.
    pub(crate) fn words(mut self, words: &[&str]) -> Self {
        self.words = Some(words.iter().map(|&word| word.to_owned()).collect());
        self
    }

    /// On a machine that lacks system calls, see `tests/helpers/old_kernel.rs`.
    pub(crate) fn on_machine(self, name: &str) -> Self {
        Self { machine: Some(name.to_owned()), ..self }
    }

    /// The command line, not started yet.
    pub(crate) fn command(&self) -> Command {
        // In its own session: with a controlling terminal SIGHUP means something else.
        let mut command = self.scene.command(super::fake_gateway());
        command.arg("in-session");
        if let Some(machine) = &self.machine {
            command.arg(super::fake_gateway()).args(["on-machine", machine]);
        }
        command.args([PROGRAM, "run"]);
        for (name, value) in &self.options {
            command.args([name, value]);
        }
        command.args(&self.flags).arg("--");
        command.args(self.words.clone().unwrap_or_else(|| self.scene.gateway_words()));
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.stdout(Stdio::null());
        command
    }

    pub(crate) fn start(self) -> Supervisor {
        Supervisor::spawn(self.command())
    }

    /// The same command line behind other words, such as a shell that becomes its arguments.
    pub(crate) fn behind(&self, words: &[&str]) -> Command {
        let plain = self.command();
        let mut command = self.scene.command(plain.get_program());
        let mut own = plain.get_args();
        // "in-session", which the leader of a group, as an init makes one of its child, cannot become.
        command.args(own.next()).args(words).args(own);
        command.envs(self.variables.iter().map(|(name, value)| (name, value))).stdout(Stdio::null());
        command
    }
}

/// One line of the supervisor's stderr.
#[derive(Debug, Clone)]
pub(crate) enum Line {
    Event(Event),
    Text(String),
}

/// One event.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    value: Value,
    /// When the test read it.
    pub(crate) seen: Instant,
}

impl Event {
    pub(crate) fn name(&self) -> &str {
        self.value["event"].as_str().unwrap_or_default()
    }

    pub(crate) fn value(&self) -> &Value {
        &self.value
    }

    /// A field that must be there and a number.
    pub(crate) fn number(&self, field: &str) -> i64 {
        let number = self.value[field].as_i64();
        number.unwrap_or_else(|| panic!("{field} of {} is no number", self.value))
    }

    /// A field that must be there and a string.
    pub(crate) fn text(&self, field: &str) -> &str {
        self.value[field].as_str().unwrap_or_else(|| panic!("{field} of {} is no string", self.value))
    }

    /// The living process that the field `pid` names.
    pub(crate) fn process(&self) -> Process {
        let pid = i32::try_from(self.number("pid")).unwrap();
        Process::find(pid).unwrap_or_else(|| panic!("pid {pid} of {} is not alive", self.value))
    }
}

/// A running supervisor. It ends with this value; what it leaves ends with its scene.
pub(crate) struct Supervisor {
    child: Child,
    lines: Arc<Mutex<Vec<Line>>>,
    /// How many lines the waits have gone past.
    read: usize,
    started: Instant,
    /// How long it is waited for.
    pub(crate) patience: Duration,
}

impl Supervisor {
    pub(crate) fn spawn(mut command: Command) -> Self {
        let started = Instant::now();
        let mut child = command.stderr(Stdio::piped()).spawn().expect("the supervisor starts");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let stderr = child.stderr.take().expect("stderr is a pipe");
        let queue = Arc::clone(&lines);
        std::thread::spawn(move || collect(stderr, &queue));
        Self { child, lines, read: 0, started, patience: PATIENCE }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// The time since it was started.
    pub(crate) fn age(&self) -> Duration {
        self.started.elapsed()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("the supervisor has not been reaped");
    }

    /// Waits for the next event of that name after the last one waited for.
    pub(crate) fn wait_event(&mut self, name: &str) -> Event {
        self.wait_event_with(name, |_| true)
    }

    /// As above, and the predicate holds.
    pub(crate) fn wait_event_with(&mut self, name: &str, holds: impl Fn(&Event) -> bool) -> Event {
        let from = self.read;
        let find = || {
            let lines = self.lines.lock().unwrap();
            let mut after = lines.iter().enumerate().skip(from);
            after.find_map(|(index, line)| match line {
                Line::Event(event) if event.name() == name && holds(event) => Some((index, event.clone())),
                _ => None,
            })
        };
        // After the last line there is nothing to wait for.
        let look = || {
            let over = self.is_over();
            let found = find();
            (found.is_some() || over).then_some(found)
        };
        let what = format!("the event {name}");
        let Some((index, event)) = wait_for(&what, self.patience, || self.story(), look) else {
            panic!("the supervisor ended without {what}\n{}", self.story());
        };
        self.read = index + 1;
        event
    }

    /// Whether the collector has read the end: it holds the second reference until then.
    fn is_over(&self) -> bool {
        Arc::strong_count(&self.lines) == 1
    }

    /// Waits for `gateway.started` and returns the gateway's process.
    pub(crate) fn wait_started(&mut self) -> Process {
        self.wait_event("gateway.started").process()
    }

    /// Waits for the end and for the last of its lines. The exit code; none after a signal.
    pub(crate) fn wait_exit(&mut self) -> Option<i32> {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("it is our child") {
                self.wait_for_the_last_line();
                return status.code();
            }
            assert!(start.elapsed() < self.patience, "waited in vain for the supervisor's end\n{}", self.story());
            std::thread::sleep(super::TICK);
        }
    }

    /// How it ended; `None` if it runs.
    pub(crate) fn try_exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Asserts the exit code, and shows everything where it is another one.
    pub(crate) fn expect_exit(&mut self, code: i32) {
        let got = self.wait_exit();
        assert_eq!(got, Some(code), "exit code\n{}", self.story());
    }

    /// A gateway that lives on holds the pipe open: then there is no end, and what came within the bound is all.
    fn wait_for_the_last_line(&self) {
        let start = Instant::now();
        while !self.is_over() && start.elapsed() < Duration::from_millis(500) {
            std::thread::sleep(super::TICK);
        }
    }

    /// All events so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        let lines = self.lines.lock().unwrap();
        let event = |line: &Line| match line {
            Line::Event(event) => Some(event.clone()),
            Line::Text(_) => None,
        };
        lines.iter().filter_map(event).collect()
    }

    pub(crate) fn count(&self, name: &str) -> usize {
        self.events().iter().filter(|event| event.name() == name).count()
    }

    /// The last event of that name, which must be there.
    pub(crate) fn last(&self, name: &str) -> Event {
        let last = self.events().into_iter().rfind(|event| event.name() == name);
        last.unwrap_or_else(|| panic!("there is no event {name}\n{}", self.story()))
    }

    pub(crate) fn lines(&self) -> Vec<Line> {
        self.lines.lock().unwrap().clone()
    }

    /// Everything it wrote, for a panic.
    pub(crate) fn story(&self) -> String {
        let mut story = format!("--- pid {}, its stderr:\n", self.child.id());
        for line in self.lines.lock().unwrap().iter() {
            match line {
                Line::Event(event) => writeln!(story, "{}", event.value).unwrap(),
                Line::Text(text) => writeln!(story, "(text) {text}").unwrap(),
            }
        }
        story
    }

    /// Asserts that something took between so and so long.
    pub(crate) fn assert_took(&self, what: &str, took: Duration, range: &Range<Duration>) {
        assert!(range.contains(&took), "{what} took {took:?}, not {range:?}\n{}", self.story());
    }
}

fn collect(stderr: impl Read, queue: &Mutex<Vec<Line>>) {
    for line in BufReader::new(stderr).lines() {
        let Ok(text) = line else { break };
        let seen = Instant::now();
        let line = match serde_json::from_str::<Value>(&text) {
            Ok(value) if value["event"].is_string() => Line::Event(Event { value, seen }),
            _ => Line::Text(text),
        };
        queue.lock().unwrap().push(line);
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        // Neither fails for a child that was not waited for; one that was needs neither.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Another verb of the program, under way in a scene. It knows the state folder and nothing else.
pub(crate) struct Verb {
    child: Child,
    words: String,
    out: Arc<Mutex<Vec<String>>>,
    err: Arc<Mutex<Vec<String>>>,
    started: Instant,
}

/// What one said in all.
#[derive(Debug, Clone)]
pub(crate) struct Said {
    words: String,
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
    pub(crate) took: Duration,
}

impl Verb {
    pub(crate) fn start(scene: &Scene, words: &[&str]) -> Self {
        let started = Instant::now();
        let mut command = scene.command(PROGRAM);
        command.args(words).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let out = gather(child.stdout.take().expect("stdout is a pipe"));
        let err = gather(child.stderr.take().expect("stderr is a pipe"));
        Self { child, words: words.join(" "), out, err, started }
    }

    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Waits until `holds` for one of its lines, and returns that one.
    pub(crate) fn wait_line(&self, what: &str, holds: impl Fn(&str) -> bool) -> String {
        let look = || self.lines().into_iter().find(|line| holds(line));
        wait_for(&format!("a line with {what} from {}", self.words), PATIENCE, || self.lines().join("\n"), look)
    }

    /// What it has said so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.out.lock().unwrap().clone()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("it has not been reaped");
    }

    /// Waits for its end.
    pub(crate) fn end(mut self) -> Said {
        let look = || {
            let over = Arc::strong_count(&self.out) == 1 && Arc::strong_count(&self.err) == 1;
            self.child.try_wait().expect("it is our child").filter(|_| over)
        };
        let status = wait_for(&format!("the end of {}", self.words), PATIENCE, String::new, look);
        let text = |lines: &Mutex<Vec<String>>| lines.lock().unwrap().join("\n");
        Said {
            words: self.words.clone(),
            code: status.code(),
            out: text(&self.out),
            err: text(&self.err),
            took: self.started.elapsed(),
        }
    }
}

impl Drop for Verb {
    fn drop(&mut self) {
        // Neither fails for a child that was not waited for; one that was needs neither.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

impl Said {
    /// Runs a verb to its end.
    pub(crate) fn by(scene: &Scene, words: &[&str]) -> Self {
        Verb::start(scene, words).end()
    }

    /// Asserts the exit code, and shows everything where it is another one.
    pub(crate) fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self}");
        self
    }

    /// Its one JSON object.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self}"))
    }

    /// Its lines as JSON objects.
    pub(crate) fn objects(&self) -> Vec<Value> {
        let parse = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        self.out.lines().map(parse).collect()
    }

    /// Asserts that its output has each of these.
    pub(crate) fn assert_says(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.out.contains(text), "{text:?} is missing\n{self}");
        }
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { words, code, out, err, took } = self;
        write!(f, "--- {words} ended with {code:?} after {took:?}\nstdout:\n{out}\nstderr:\n{err}")
    }
}

fn gather(pipe: impl Read + Send + 'static) -> Arc<Mutex<Vec<String>>> {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let queue = Arc::clone(&lines);
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(text) = line else { break };
            queue.lock().unwrap().push(text);
        }
    });
    lines
}
