//! `demo` from the command line: it shows every chapter and leaves nothing, however it ends.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

mod page;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use openclaw_supervise::host::clock;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

/// Enough for any step on a busy machine.
const PATIENCE: Duration = Duration::from_mins(1);

const WIDTH: usize = 100;

/// A demo with a directory for temporary files of its own, and a variable by which everything that it starts is known.
struct Demo {
    child: Child,
    lines: Option<Receiver<String>>,
    seen: Vec<String>,
    temp: PathBuf,
    mark: String,
}

impl Demo {
    fn start(variables: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let id = format!("demo-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let temp = Path::new(env!("CARGO_TARGET_TMPDIR")).join(&id);
        fs::create_dir_all(&temp).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_openclaw-supervise"));
        command.args(["demo", "--fast"]).env("TMPDIR", &temp).env("DEMO_OF_TEST", &id);
        command.envs(variables.iter().copied());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (line, lines) = channel();
        let out = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            // Dropping the receiver closes the demo's stdout: the next line ends this thread.
            for text in out.lines().map_while(Result::ok) {
                if line.send(text).is_err() {
                    return;
                }
            }
        });
        Self { child, lines: Some(lines), seen: Vec::new(), temp, mark: format!("DEMO_OF_TEST={id}") }
    }

    /// Reads on until a line contains `text`.
    fn read_until(&mut self, text: &str) -> String {
        let deadline = clock::now() + PATIENCE;
        loop {
            let wait = deadline.saturating_sub(clock::now());
            let line = self.lines.as_ref().unwrap().recv_timeout(wait);
            let line = line.unwrap_or_else(|error| panic!("no {text:?} ({error}) in {:#?}", self.seen));
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    fn read_to_end(&mut self) {
        let deadline = clock::now() + PATIENCE;
        loop {
            match self.lines.as_ref().unwrap().recv_timeout(deadline.saturating_sub(clock::now())) {
                Ok(line) => self.seen.push(line),
                Err(RecvTimeoutError::Disconnected) => return,
                Err(RecvTimeoutError::Timeout) => panic!("no end in {:#?}", self.seen),
            }
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), signal).unwrap();
    }

    /// Its exit status and what it said on stderr.
    fn wait(&mut self) -> (ExitStatus, String) {
        let status = until("the demo ends", || self.child.try_wait().unwrap());
        let mut stderr = String::new();
        self.child.stderr.as_mut().map(|pipe: &mut ChildStderr| pipe.read_to_string(&mut stderr).unwrap());
        (status, stderr)
    }

    /// The processes that it started, and itself.
    fn processes(&self) -> Vec<String> {
        let mut alive = Vec::new();
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            // A zombie, or a process that has ended since, has no environment to read.
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            if environ.split(|&byte| byte == 0).any(|variable| variable == self.mark.as_bytes()) {
                alive.push(entry.file_name().to_string_lossy().into_owned());
            }
        }
        alive
    }

    fn scratch_directories(&self) -> usize {
        fs::read_dir(&self.temp).unwrap().count()
    }

    fn assert_nothing_is_left(&self) {
        assert_eq!(self.processes(), Vec::<String>::new(), "{:#?}", self.seen);
        assert_eq!(self.scratch_directories(), 0, "{:#?}", self.seen);
    }
}

impl Drop for Demo {
    fn drop(&mut self) {
        // A failed test must not leave its demo behind: SIGTERM ends the demo and all that it started.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(Signal::SIGTERM);
            self.child.wait().ok();
        }
        fs::remove_dir_all(&self.temp).ok();
    }
}

fn until<T>(what: &str, mut check: impl FnMut() -> Option<T>) -> T {
    let deadline = clock::now() + PATIENCE;
    loop {
        if let Some(found) = check() {
            return found;
        }
        assert!(clock::now() < deadline, "{what} did not happen in time");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

fn count(lines: &[String], text: &str) -> usize {
    lines.iter().filter(|line| line.contains(text)).count()
}

#[test]
fn the_demo_shows_every_chapter_in_order_and_leaves_nothing() {
    let hostile = [
        ("OPENCLAW_GATEWAY_PORT", "1"),
        ("OPENCLAW_SUPERVISE_MAX_RESTARTS", "none"),
        ("OPENCLAW_SUPERVISE_HOST", "192.0.2.1"),
        ("OPENCLAW_CONFIG_PATH", "/nonexistent/openclaw.json"),
    ];
    let mut demo = Demo::start(&hostile);
    for text in [
        "openclaw-supervise demo",
        "[1/7] Start",
        " supervisor.started",
        " probe.verdict_changed free",
        " gateway.spawned       gateway 1",
        " gateway.listening     gateway 1",
        " gateway.started       gateway 1",
        "[2/7] A duplicate start",
        " 2 conflict.detected",
        " 2 supervisor.stopped    exit code 78",
        "[3/7] A crash",
        "$ kill -KILL",
        " gateway.exited        gateway 1",
        " tree.killed           killed 2 leftover processes",
        " gateway.spawned       gateway 2",
        " gateway.started       gateway 2",
        "[4/7] A freeze",
        "$ echo freeze",
        " liveness.missed       gateway 2",
        " gateway.hung          gateway 2",
        " tree.killed           killed 3 leftover processes",
        " gateway.started       gateway 3",
        "[5/7] A restart on request",
        "$ openclaw-supervise restart",
        " restart.requested     requested by control socket",
        " gateway.exited        gateway 3",
        " gateway.started       gateway 4",
        "[6/7] Looking back",
        "$ openclaw-supervise status",
        "$ openclaw-supervise explain incident",
        "[7/7] Stop",
        "$ kill -TERM",
        " stop.requested        requested by SIGTERM",
        " supervisor.stopped    exit code 0",
        "Measured",
        "  start ",
        "  duplicate start ",
        "  crash ",
        "  freeze ",
        "  restart on request ",
        "  stop ",
        "Processes left: 0",
    ] {
        demo.read_until(text);
    }
    demo.read_to_end();
    let (status, stderr) = demo.wait();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{:#?}", demo.seen);
    assert_eq!(count(&demo.seen, "s   gateway.spawned "), 4, "{:#?}", demo.seen);
    assert_eq!(count(&demo.seen, "s   gateway.exited "), 4, "{:#?}", demo.seen);
    demo.assert_nothing_is_left();
    for line in &demo.seen {
        assert!(line.chars().count() <= WIDTH && !line.contains(|c: char| c.is_control()), "{line:?}");
    }
    if std::env::var_os("INSTA_UPDATE").is_some_and(|update| update == "always") {
        page::update();
    }
    page::hold(&demo.seen);
}

#[test]
fn a_signal_at_any_moment_ends_the_demo_and_all_its_processes() {
    let interrupt = |moment: &str, signal: Signal| {
        let mut demo = Demo::start(&[]);
        demo.read_until(moment);
        demo.signal(signal);
        demo.read_until("Stopped by you");
        demo.read_to_end();
        let (status, stderr) = demo.wait();
        assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{signal} at {moment}: {:#?}", demo.seen);
        assert_eq!(count(&demo.seen, "Processes left: 0"), 1, "{signal} at {moment}: {:#?}", demo.seen);
        demo.assert_nothing_is_left();
    };
    let moments = [
        ("Settings", Signal::SIGINT),
        ("$ openclaw-supervise", Signal::SIGTERM),
        ("gateway.spawned", Signal::SIGINT),
        ("[2/7]", Signal::SIGHUP),
        ("2 supervisor.started", Signal::SIGINT),
        ("$ kill -KILL", Signal::SIGINT),
        ("liveness.missed", Signal::SIGINT),
        ("[5/7]", Signal::SIGQUIT),
        ("$ openclaw-supervise restart", Signal::SIGTERM),
    ];
    std::thread::scope(|scope| {
        for (moment, signal) in moments {
            scope.spawn(move || interrupt(moment, signal));
        }
    });
}

#[test]
fn a_second_signal_does_not_cut_the_cleanup_short() {
    let mut demo = Demo::start(&[]);
    demo.read_until("$ echo freeze");
    demo.signal(Signal::SIGINT);
    demo.read_until("Stopped by you");
    demo.signal(Signal::SIGINT);
    demo.read_until("Processes left: 0");
    assert_eq!(demo.wait().0.code(), Some(0));
    demo.assert_nothing_is_left();
}

#[test]
fn a_closed_stdout_ends_it_without_an_error() {
    let mut demo = Demo::start(&[]);
    demo.read_until("gateway.started");
    demo.lines = None;
    let (status, stderr) = demo.wait();
    assert_eq!((status.code(), stderr.as_str()), (Some(0), ""), "{:#?}", demo.seen);
    demo.assert_nothing_is_left();
}

/// Sends `signal` to the supervisor: the demo must report it and still clean up.
fn harm_supervisor(signal: Signal, complaint: &str) {
    let mut demo = Demo::start(&[]);
    let line = demo.read_until("supervisor.started");
    let (_, rest) = line.split_once("is pid ").unwrap();
    let supervisor = rest.split(',').next().unwrap().parse().unwrap();
    demo.read_until("gateway.started");
    kill(Pid::from_raw(supervisor), signal).unwrap();
    demo.read_to_end();
    let (status, stderr) = demo.wait();
    assert_eq!(status.code(), Some(1), "{:#?}", demo.seen);
    assert!(stderr.contains(complaint), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    demo.assert_nothing_is_left();
}

#[test]
fn a_supervisor_that_dies_too_early_is_named_and_nothing_is_left() {
    harm_supervisor(Signal::SIGKILL, "the supervisor exited with 137 in step");
}

#[test]
fn a_step_that_does_not_happen_in_time_is_named_and_nothing_is_left() {
    harm_supervisor(Signal::SIGSTOP, "step 'crash' timed out after 12s without gateway.exited");
}

#[test]
fn nothing_runs_on_when_the_demo_itself_is_killed() {
    let mut demo = Demo::start(&[]);
    demo.read_until("gateway.started");
    assert!(demo.processes().len() >= 5, "the demo, its supervisor, the gateway and two helpers");
    demo.signal(Signal::SIGKILL);
    demo.wait();
    until("all that it started ends", || demo.processes().is_empty().then_some(()));
}

#[test]
fn without_a_place_for_its_scratch_directory_it_starts_nothing() {
    let mut demo = Demo::start(&[("TMPDIR", "/nonexistent/temp")]);
    let (status, stderr) = demo.wait();
    assert_eq!(status.code(), Some(1));
    assert!(stderr.contains("cannot create a scratch directory") && stderr.contains("TMPDIR"), "{stderr}");
}

#[test]
fn it_takes_no_option_of_run_and_its_parts_are_not_in_the_help() {
    let run = |words: &[&str]| Command::new(env!("CARGO_BIN_EXE_openclaw-supervise")).args(words).output().unwrap();
    for words in [&["--port", "1", "demo"][..], &["demo", "--port", "1"], &["demo", "x"]] {
        assert_eq!(run(words).status.code(), Some(2), "{words:?}");
    }
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(help.contains("  demo ") && !help.contains("demo-"), "{help}");
}
