//! The drills of an engineer on call: `status` alone names what happened, since when, the cause, the next step with its
//! deadline and what to do. `events`, `explain` and `doctor` agree with it.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::process::Stdio;
use support::root::needs_root;
use support::supervisor::{Launch, Said, Supervisor};
use support::{PATIENCE, Scene, wait_for};

/// More than one verb's output, on one line each, so that a line break hides no phrase.
struct Look {
    status: String,
    json: serde_json::Value,
    events: String,
    explain: String,
    doctor: String,
}

impl Look {
    fn at(scene: &Scene) -> Self {
        let one_line = |words: &[&str]| Said::by(scene, words).out.split_whitespace().collect::<Vec<_>>().join(" ");
        Self {
            status: one_line(&["status"]),
            json: Said::by(scene, &["status", "--json"]).json(),
            events: one_line(&["events"]),
            explain: one_line(&["explain"]),
            doctor: one_line(&["doctor"]),
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
}

#[test]
fn a_freeze_is_told_with_its_deadline_while_it_lasts() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--probe-timeout", "100ms").option("--hang-after", "1m").start();
    let gateway = supervisor.wait_started();
    gateway.signal(Signal::SIGSTOP);
    supervisor.wait_event("liveness.missed");
    let ask = || Said::by(&scene, &["status"]).out.split_whitespace().collect::<Vec<_>>().join(" ");
    // The deadline is known from the third failed probe on.
    let has_deadline = || Some(ask()).filter(|text| text.contains("it is replaced at "));
    let told = wait_for("the deadline", PATIENCE, || supervisor.story(), has_deadline);
    for text in ["gateway 1 does not answer (", " unless it answers"] {
        assert!(told.contains(text), "{text:?} is missing: {told}");
    }
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
        &["up for ", "; restarted at ", " s without an answer"],
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
    let inner = scene.launch().option("--conflict-timeout", "2s").command();
    let mut command = scene.command("/usr/bin/setpriv");
    command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
    command.arg(inner.get_program()).args(inner.get_args());
    let mut supervisor = Supervisor::spawn(command);
    supervisor.wait_event("conflict.detected");
    let during = Said::by(&scene, &["status"]).out.split_whitespace().collect::<Vec<_>>().join(" ");
    let port = scene.port();
    for text in [&*format!("port {port} is held by "), "user root", &format!("`sudo ss -ltnp 'sport = :{port}'`")] {
        assert!(during.contains(text), "{text:?} is missing: {during}");
    }
    supervisor.expect_exit(78);
    let look = Look::at(&scene);
    let held = ["down since ", "is already listening on", "a process of the user with uid 0", "sudo ss -ltnp"];
    look.assert_status(&[&held[..], &["`openclaw-supervise run"]].concat(), &["foreign", "user root"]);
    look.assert_others("ERROR supervisor.stopped", "the supervisor started no gateway", "FAIL port");
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
    fs::rename(&retired, &package).expect("a folder can be renamed");
    Said::by(&scene, &["start-now"]).expect(0);
    supervisor.wait_started();
}
