//! The drills of an engineer on call: `status` alone names what happened, since when, the cause, the next step with its
//! deadline and what to do. `events`, `explain` and `doctor` agree with it.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use openclaw_supervise::host::clock;
use std::fs;
use std::ops::Range;
use std::os::unix::fs::{chown, symlink};
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::root::needs_root;
use support::supervisor::{Launch, PROGRAM, Said, Supervisor};
use support::{PATIENCE, Scene, wait_for};

/// In columns.
const WIDTH: usize = 80;

/// More than one verb's output, on one line each, so that a line break hides no phrase.
struct Look {
    /// As on a terminal of [`WIDTH`], of which no line is wider and no command is broken.
    status: String,
    json: serde_json::Value,
    events: String,
    explain: String,
    doctor: String,
}

impl Look {
    /// The verbs run side by side.
    fn at(scene: &Scene) -> Self {
        const VERBS: [&[&str]; 5] = [&["status"], &["status", "--json"], &["events"], &["explain"], &["doctor"]];
        let running = VERBS.map(|words| verb(scene, words).spawn().expect("the program starts"));
        let [status, json, events, explain, doctor] = running.map(text_of);
        assert_fits(&status);
        Self {
            status: one_line(&status),
            json: serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}")),
            events: one_line(&events),
            explain: one_line(&explain),
            doctor: one_line(&doctor),
        }
    }

    /// Each text of `status`, of which the sentence holds those up to the first row.
    fn assert_status(&self, sentence: &[&str], rows: &[&str]) {
        let (first, rest) = self.status.split_once(" supervisor ").expect("a sentence, then the rows");
        for text in sentence {
            assert!(first.contains(text), "{text:?} is not in the sentence\n{self}");
            // The times differ, in relative and in absolute form.
            let is_timed = text.contains("since") || text.contains(" at ");
            let said = self.json["sentence"].as_str().unwrap_or_default();
            assert!(is_timed || said.contains(text), "{text:?} is not in the JSON\n{self}");
        }
        for text in rows {
            assert!(rest.contains(text), "{text:?} is in no row\n{self}");
        }
    }

    /// The next step by itself: its time agrees with the time that is left, and the sentence has it.
    fn assert_next(&self, action: &str, within: Range<Duration>) {
        let next = &self.json["next"];
        assert_eq!(next["action"], action, "{self}");
        let left = Duration::from_millis(next["in_ms"].as_u64().expect("the time that is left"));
        assert!(within.contains(&left), "{left:?}\n{self}");
        let stamp = |value: &serde_json::Value| value.as_str().and_then(clock::wall_ms_of).expect("RFC 3339");
        let due = Duration::from_millis(stamp(&next["at"]).abs_diff(stamp(&self.json["at"])));
        // On a busy machine an answer takes its time, and what is due has none left.
        assert!(left.is_zero() || due.abs_diff(left) < Duration::from_secs(1), "{due:?} and {left:?}\n{self}");
        let at = next["at"].as_str().expect("a time");
        assert!(self.json["sentence"].as_str().is_some_and(|said| said.contains(at)), "{at} is not in it\n{self}");
    }

    /// Nothing comes by itself.
    fn assert_no_next(&self) {
        for name in ["action", "at", "in_ms"] {
            assert!(self.json["next"][name].is_null(), "{name}\n{self}");
        }
    }

    fn assert_others(&self, events: &str, explain: &str, doctor: &str) {
        for (text, part) in [(&self.events, events), (&self.explain, explain), (&self.doctor, doctor)] {
            assert!(text.contains(part), "{part:?} is missing\n{self}");
        }
    }
}

impl std::fmt::Display for Look {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { status, json, events, explain, doctor } = self;
        write!(f, "status: {status}\n\n{json}\n\nevents: {events}\n\nexplain: {explain}\n\ndoctor: {doctor}")
    }
}

/// On a terminal of [`WIDTH`]. A probe of a gateway that does not answer takes its whole timeout.
fn verb(scene: &Scene, words: &[&str]) -> Command {
    let mut command = scene.command(PROGRAM);
    command.args(words).env("COLUMNS", WIDTH.to_string()).env("OPENCLAW_SUPERVISE_PROBE_TIMEOUT", "200ms");
    // Without systemd a systemctl that doctor calls reads all unit files of the machine, for half a second; here is none.
    command.env("PATH", scene.root()).stdout(Stdio::piped()).stderr(Stdio::null());
    command
}

fn text_of(child: Child) -> String {
    let output = child.wait_with_output().expect("it is our child");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn status(scene: &Scene) -> String {
    let text = text_of(verb(scene, &["status"]).spawn().expect("the program starts"));
    assert_fits(&text);
    one_line(&text)
}

/// A command to copy is broken only if it does not fit on a line of its own.
fn assert_fits(text: &str) {
    for line in text.lines() {
        assert!(line.chars().count() <= WIDTH, "wider than {WIDTH}: {line:?}\n{text}");
        let is_whole = line.matches('`').count() % 2 == 0;
        assert!(is_whole || line.trim_start().len() > WIDTH / 2, "a command is broken: {line:?}\n{text}");
    }
}

/// A gateway that refuses its configuration. What it prints goes to the log file of the store: its output has no reader.
fn with_a_bad_key(launch: Launch<'_>, code: u8) -> Supervisor {
    let script = format!("echo 'Config invalid: unknown key gateway.tokne'; sleep 0.1; exit {code}");
    let mut command = launch.words(&["sh", "-c", &script]).command();
    let (reader, writer) = std::io::pipe().expect("a pipe can be made");
    drop(reader);
    Supervisor::spawn({
        command.stdout(Stdio::from(writer));
        command
    })
}

#[test]
fn a_refused_configuration_is_told_with_its_key() {
    let scene = Scene::new("healthy");
    with_a_bad_key(scene.launch(), 78).expect_exit(78);
    let look = Look::at(&scene);
    let refused = "the configuration was refused (exit 78): Config invalid: unknown key gateway.tokne; fix it, then \
                   `openclaw-supervise run";
    look.assert_status(&["down since ", refused], &["nothing will start it", "refused to start (exit code 78)"]);
    look.assert_others("ERROR supervisor.stopped", "unknown key gateway.tokne", "FAIL gateway not running");
    look.assert_no_next();
}

#[test]
fn a_crash_loop_is_told_with_the_key_and_the_next_start() {
    let scene = Scene::new("healthy");
    let launch = scene.launch().option("--boot-limit", "2");
    let mut supervisor = with_a_bad_key(launch, 1);
    supervisor.wait_event_with("restart.scheduled", |event| event.value()["level"] == "error");
    let look = Look::at(&scene);
    let crash_loop = ["down since ", "crash loop: gateway 3 crashed (exit code 1)", "unknown key gateway.tokne"];
    let next = ["the next start is at ", "fixed it? `openclaw-supervise start-now --force`"];
    look.assert_status(&[&crash_loop[..], &next].concat(), &["backing off", "restarts 3 of 6"]);
    look.assert_others("crash loop; next start in", "unknown key gateway.tokne", "FAIL backoff no gateway is running");
    look.assert_next("start a gateway", Duration::from_mins(4)..Duration::from_mins(6));
}

#[test]
fn a_freeze_is_told_with_its_deadline_while_it_lasts() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--probe-timeout", "100ms").option("--hang-after", "1m").start();
    let gateway = supervisor.wait_started();
    gateway.signal(Signal::SIGSTOP);
    supervisor.wait_event("liveness.missed");
    // The deadline is known from the third failed probe on.
    let has_deadline = || Some(status(&scene)).filter(|text| text.contains("it is replaced at "));
    wait_for("the deadline", PATIENCE, || supervisor.story(), has_deadline);
    let look = Look::at(&scene);
    look.assert_status(&["but since ", "gateway 1 does not answer (", " unless it answers"], &["healthy"]);
    look.assert_next("replace the gateway unless it answers", Duration::from_secs(20)..Duration::from_mins(1));
}

/// Without any signal: its event loop waits for a lock, as in a deadlock of native code.
#[test]
fn a_blocked_event_loop_is_told_with_what_it_does() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--probe-timeout", "100ms").start();
    let first = supervisor.wait_started();
    scene.diary().command(first.pid, "freeze");
    supervisor.wait_event("gateway.hung");
    supervisor.wait_started();
    let look = Look::at(&scene);
    let blocked = "its event loop waits for a lock or for another of its threads";
    look.assert_status(
        &["up for ", "; restarted at ", "s without an answer"],
        &["gateway 1 hung and was killed", blocked, "/incidents/"],
    );
    look.assert_others("WARN gateway.hung", blocked, "OK gateway gateway 2");
    // Health has no next step.
    assert!(!look.status.contains(" next "), "{look}");
}

#[test]
fn a_freeze_is_told_with_its_duration_and_evidence_after_it() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--probe-timeout", "100ms").start();
    supervisor.wait_started().signal(Signal::SIGSTOP);
    supervisor.wait_event("gateway.hung");
    supervisor.wait_started();
    let look = Look::at(&scene);
    look.assert_status(
        &["up for ", "; restarted at ", "s without an answer"],
        &["gateway 1 hung and was killed", "stopped by a signal, such as SIGSTOP", "/incidents/"],
    );
    look.assert_others("WARN gateway.hung", "gateway 1 was ended because it hung", "OK gateway gateway 2");
}

#[test]
fn a_gateway_over_its_memory_limit_is_told_with_the_limit() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--memory-max", "64M").start();
    let first = supervisor.wait_started();
    scene.diary().command(first.pid, "touch=96M");
    supervisor.wait_event("memory.exceeded");
    supervisor.wait_started();
    let look = Look::at(&scene);
    look.assert_status(&["up for ", "; restarted at ", "--memory-max"], &["gateway 1 was ended", "incident"]);
    look.assert_others("memory.exceeded", "memory", "OK gateway gateway 2");
}

#[test]
fn a_port_that_a_program_of_root_holds_is_told_with_that_user() {
    needs_root("another user");
    let scene = Scene::new("healthy");
    let _roots = scene.stranger("foreign");
    for folder in [scene.root().to_owned(), scene.state_dir()] {
        chown(&folder, Some(65534), Some(65534)).expect("root may do that");
    }
    let inner = scene.launch().option("--conflict-timeout", "1s").command();
    let mut command = scene.command("/usr/bin/setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    command.arg(inner.get_program()).args(inner.get_args());
    let mut supervisor = Supervisor::spawn(command);
    supervisor.wait_event("conflict.detected");
    let during = status(&scene);
    let port = scene.port();
    for text in [
        "down since ",
        &*format!("port {port} is held by "),
        "user root",
        &format!("`sudo ss -ltnp 'sport = :{port}'`"),
    ] {
        assert!(during.contains(text), "{text:?} is missing: {during}");
    }
    supervisor.expect_exit(78);
    let look = Look::at(&scene);
    let held = ["down since ", "is already listening on", "a process of user root", "sudo ss -ltnp"];
    look.assert_status(&[&held[..], &["`openclaw-supervise run"]].concat(), &["foreign", "user root"]);
    look.assert_others("ERROR supervisor.stopped", "the supervisor started no gateway", "FAIL port");
    look.assert_no_next();
}

#[test]
fn an_update_under_way_is_told_and_the_named_command_ends_the_wait() {
    let scene = Scene::new("healthy");
    let (modules, retired) = (scene.root().join("node_modules"), scene.root().join("node_modules/.openclaw-Ab3xYz09"));
    let package = modules.join("openclaw");
    fs::create_dir_all(modules.join(".bin")).expect("a folder can be made");
    fs::create_dir(&package).expect("a folder can be made");
    fs::copy(scene.openclaw().program(), package.join("openclaw.mjs")).expect("a file can be copied");
    fs::write(package.join("package.json"), r#"{"version":"1"}"#).expect("a file can be made");
    let program = modules.join(".bin/openclaw");
    symlink("../openclaw/openclaw.mjs", &program).expect("a link can be made");
    let (program, port) = (program.display().to_string(), scene.port().to_string());
    let mut supervisor = scene.launch().words(&[&program, "gateway", "run", "--port", &port]).start();
    let first = supervisor.wait_started();
    fs::rename(&package, &retired).expect("a folder can be renamed");
    first.kill();
    supervisor.wait_event_with("restart.scheduled", |event| event.number("delay_ms") >= 2000);
    let look = Look::at(&scene);
    let update = "an update of OpenClaw seems to be under way";
    let next = ["; the next start is at ", "gateway 1 crashed (signal 9, SIGKILL)", "`openclaw-supervise start-now`"];
    look.assert_status(&[&["down since ", update][..], &next].concat(), &["backing off", "costs no budget"]);
    look.assert_others("npm is replacing the package", "npm is replacing the package", "WARN backoff no gateway");
    assert!(!look.doctor.contains("FAIL backoff"), "{look}");
    // It is looked for every 2 s, and may be due.
    look.assert_next("start a gateway", Duration::ZERO..Duration::from_mins(6));
    fs::rename(&retired, &package).expect("a folder can be renamed");
    Said::by(&scene, &["start-now"]).expect(0);
    supervisor.wait_started();
}
