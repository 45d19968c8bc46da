//! The log: one line a transition, as JSON or as text.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::os::unix::fs::chown;
use std::process::Command;
use support::Scene;
use support::root::needs_root;
use support::supervisor::{Line, PROGRAM, Supervisor};

/// A run with a crash, a restart and a stop.
fn live(scene: &Scene, supervisor: &mut Supervisor) {
    let diary = scene.diary();
    let start = |count: usize| {
        let look = || {
            let listening = diary.text().lines().filter(|line| line.starts_with("LISTEN ")).count() >= count;
            listening.then(|| diary.starts()[count - 1].process)
        };
        let gateway = support::wait_for("a start", support::PATIENCE, || diary.text(), look);
        let is_told = || (supervisor.story().matches("gateway.started").count() >= count).then_some(());
        support::wait_for("the news of a start", support::PATIENCE, || supervisor.story(), is_told);
        gateway
    };
    start(1).kill();
    start(2);
    supervisor.signal(Signal::SIGHUP);
    start(3);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

#[test]
fn each_line_in_json_is_one_event_with_its_time_and_generation() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    live(&scene, &mut supervisor);
    let mut before = None;
    for line in supervisor.lines() {
        let Line::Event(event) = line else { panic!("{line:?} is no event\n{}", supervisor.story()) };
        let at = event.text("at");
        let at: jiff::Timestamp = at.parse().unwrap_or_else(|error| panic!("{at:?} is no RFC 3339 stamp: {error}"));
        assert!(before.is_none_or(|before| before <= at), "{} came late", event.value());
        before = Some(at);
        assert!(["info", "warn", "error"].contains(&event.text("level")), "{}", event.value());
        assert!(!event.text("message").is_empty(), "{}", event.value());
        if event.name().starts_with("gateway.") {
            assert!((1..=3).contains(&event.number("generation")), "{}", event.value());
        }
    }
    let events = supervisor.events();
    assert_eq!(events[0].name(), "supervisor.started");
    assert_eq!(events[0].number("pid"), i64::from(supervisor.pid()));
    assert_eq!(events[0].text("version"), env!("CARGO_PKG_VERSION"));
    assert_eq!(events.last().map(support::supervisor::Event::name), Some("supervisor.stopped"));
    for (name, count) in [("gateway.spawned", 3), ("gateway.started", 3), ("gateway.exited", 3)] {
        assert_eq!(supervisor.count(name), count, "{name}\n{}", supervisor.story());
    }
}

#[test]
fn probes_that_find_nothing_new_write_nothing() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    supervisor.wait_event("readiness.changed");
    let before = supervisor.lines().len();
    scene.diary().wait_requests(gateway.pid, 20);
    assert_eq!(supervisor.lines().len(), before, "{}", supervisor.story());
}

#[test]
fn text_lines_carry_the_same_names_and_no_escapes() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--log-format", "text").start();
    live(&scene, &mut supervisor);
    let lines: Vec<_> = supervisor
        .lines()
        .into_iter()
        .map(|line| match line {
            Line::Text(text) => text,
            Line::Event(event) => panic!("{} is JSON", event.value()),
        })
        .collect();
    for name in ["supervisor.started", "gateway.spawned", "gateway.started", "signal.received", "supervisor.stopped"] {
        assert!(lines.iter().any(|line| line.contains(name)), "no line has {name}\n{}", supervisor.story());
    }
    assert!(!lines.iter().any(|line| line.contains('\u{1b}') || line.is_empty()), "{}", supervisor.story());
}

#[test]
fn the_log_file_has_every_event_alone_also_after_it_was_renamed() {
    let scene = Scene::new("healthy");
    let path = scene.root().join("events.log");
    let option = path.display().to_string();
    let noisy =
        [&["sh", "-c", "echo noise >&2; exec \"$@\"", "sh"].map(str::to_owned)[..], &scene.gateway_words()].concat();
    let words: Vec<&str> = noisy.iter().map(String::as_str).collect();
    let mut supervisor = scene.launch().option("--log-file", &option).words(&words).start();
    supervisor.wait_started();
    let renamed = scene.root().join("events.log.1");
    std::fs::rename(&path, &renamed).expect("it is there");
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert!(supervisor.lines().iter().any(|line| matches!(line, Line::Text(text) if text == "noise")));
    let [before, after] = [&renamed, &path].map(|path| std::fs::read_to_string(path).expect("it is there"));
    let written: Vec<serde_json::Value> =
        before.lines().chain(after.lines()).map(|line| serde_json::from_str(line).expect(line)).collect();
    let events: Vec<_> = supervisor.events().iter().map(|event| event.value().clone()).collect();
    assert_eq!(written, events);
    assert!(after.contains("supervisor.stopped") && before.contains("gateway.started"), "{before}---\n{after}");
}

#[test]
fn a_log_file_that_cannot_be_written_is_told_once_and_ends_nothing() {
    let scene = Scene::new("healthy");
    for path in [scene.root().join("missing/events.log"), "/dev/full".into(), scene.root().to_owned()] {
        let option = path.display().to_string();
        let mut supervisor = scene.launch().option("--log-file", &option).start();
        supervisor.wait_started();
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        let told =
            |event: &support::supervisor::Event| event.name() == "log" && event.text("message").contains(&option);
        assert_eq!(supervisor.events().iter().filter(|event| told(event)).count(), 1, "{}", supervisor.story());
    }
}

#[test]
fn the_termination_log_has_the_last_words_of_a_failure_and_none_of_a_stop() {
    let scene = Scene::new("healthy; exit=78; exit=1");
    let path = scene.root().join("termination-log");
    let launch = || scene.launch().option("--termination-log", &path.display().to_string());
    let mut supervisor = launch().start();
    supervisor.wait_started();
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert!(!path.exists());
    for (code, parts) in [(78, ["exited with 78", "start again"]), (69, ["gave up after", "fix the cause"])] {
        let mut supervisor = launch().option("--max-restarts", "1").start();
        supervisor.expect_exit(code);
        let words = std::fs::read_to_string(&path).expect("it is there");
        assert!(words.starts_with(&format!("openclaw-supervise ended with exit code {code}: ")), "{words}");
        assert!(words.lines().count() == 1 && words.ends_with('\n'), "{words}");
        assert!(parts.iter().all(|part| words.contains(part)), "{words}");
    }
    let mut command =
        scene.launch().option("--termination-log", &path.display().to_string()).words(&["/none"]).command();
    assert_eq!(command.output().expect("it runs").status.code(), Some(78));
    let words = std::fs::read_to_string(&path).expect("it is there");
    assert!(words.contains("exit code 78") && words.contains("/none"), "{words}");
}

#[test]
fn a_crash_loop_is_an_error_and_a_single_crash_and_a_stop_are_none() {
    let scene = Scene::new("exit=1");
    let mut supervisor = scene.launch().option("--max-restarts", "3").start();
    supervisor.expect_exit(69);
    let levels: Vec<_> = supervisor
        .events()
        .iter()
        .filter(|event| event.name() == "restart.scheduled")
        .map(|event| (event.number("failures"), event.text("level").to_owned()))
        .collect();
    assert_eq!(levels, [(1, "warn".to_owned()), (2, "warn".to_owned()), (3, "error".to_owned())]);
    assert!(supervisor.last("restart.scheduled").text("message").starts_with("crash loop; next start in "));
    let scene = Scene::new("die=TERM@10s");
    let mut supervisor = scene.launch().words(&["sleep", "100"]).start();
    supervisor.wait_event("gateway.spawned");
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_eq!(supervisor.last("gateway.exited").text("level"), "info", "{}", supervisor.story());
}

#[test]
fn a_closed_stderr_does_not_end_the_gateway() {
    let scene = Scene::new("healthy");
    let mut command = scene.launch().command();
    let (reader, writer) = std::io::pipe().expect("a pipe can be made");
    command.stderr(writer);
    let mut child = command.spawn().expect("the supervisor starts");
    drop(command);
    scene.diary().wait_line("LISTEN");
    let first = scene.diary().starts()[0].process;
    scene.diary().wait_requests(first.pid, 3);
    drop(reader);
    // Its exit cannot be logged, and a new gateway is started.
    first.kill();
    let second = || scene.diary().starts().get(1).map(|start| start.process);
    let second = support::wait_for("a second start", support::PATIENCE, || scene.diary().text(), second);
    scene.diary().wait_requests(second.pid, 3);
    assert!(second.is_alive() && child.try_wait().expect("it is our child").is_none());
    child.kill().expect("it is our child");
    child.wait().expect("it is our child");
}

/// Starts a supervisor with that stderr, lets it live, and asserts that it stops.
fn assert_lives_and_stops(scene: &Scene, stderr: impl Into<std::process::Stdio>) {
    let mut command = scene.launch().command();
    command.stderr(stderr);
    let mut child = command.spawn().expect("the supervisor starts");
    drop(command);
    let gateway = support::wait_for(
        "a listening gateway",
        support::PATIENCE,
        || scene.diary().text(),
        || scene.diary().text().contains("LISTEN").then(|| scene.diary().starts()[0].process),
    );
    scene.diary().wait_requests(gateway.pid, 5);
    let pid = i32::try_from(child.id()).expect("a pid fits");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), Signal::SIGTERM).expect("it is our child");
    let end = || child.try_wait().expect("it is our child");
    let status = support::wait_for("its end", support::PATIENCE, || scene.diary().text(), end);
    assert_eq!(status.code(), Some(0));
    assert_eq!(scene.processes(), []);
}

#[test]
fn a_log_on_a_full_disk_stops_nothing() {
    let scene = Scene::new("healthy");
    let full = std::fs::File::create("/dev/full").expect("every Linux has it");
    assert_lives_and_stops(&scene, full);
}

#[test]
fn an_unread_log_delays_nothing() {
    let scene = Scene::new("healthy");
    let (reader, writer) = std::io::pipe().expect("a pipe can be made");
    fill(&writer);
    assert_lives_and_stops(&scene, writer);
    drop(reader);
}

/// Writes until the pipe takes no more, then makes it a blocking one again: the flag belongs to both its users.
fn fill(mut pipe: &std::io::PipeWriter) {
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use std::io::Write;
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).expect("a pipe has flags");
    while pipe.write(&[b'.'; 4096]).is_ok() {}
    while pipe.write(b".").is_ok() {}
    fcntl(pipe, FcntlArg::F_SETFL(OFlag::empty())).expect("a pipe has flags");
}

/// Of a whole machine (`ulimit -u`), of a container (`pids.max`): no thread, or one or two, can be started.
#[test]
fn at_the_limit_of_processes_each_exit_has_its_line() {
    needs_root("another user, whose processes are counted");
    let user = 1_000_000 + std::process::id();
    for limit in 1..=5 {
        let scene = Scene::new("healthy");
        for folder in [scene.root().to_owned(), scene.state_dir()] {
            chown(&folder, Some(user), Some(user)).expect("root may do that");
        }
        let limited = |inner: &Command| {
            let mut command = scene.command("/usr/bin/setpriv");
            command.arg(format!("--reuid={user}")).arg(format!("--regid={user}")).args(["--clear-groups", "prlimit"]);
            command.arg(format!("--nproc={limit}:{limit}")).arg(inner.get_program()).args(inner.get_args());
            command
        };
        let asked = limited(scene.command(PROGRAM).arg("status").arg("--state-dir").arg(scene.state_dir()))
            .output()
            .expect("it runs");
        let told = String::from_utf8_lossy(&asked.stdout).into_owned() + &String::from_utf8_lossy(&asked.stderr);
        assert!(asked.status.code() == Some(3) && told.contains("not running"), "{limit}: {asked:?}");
        let mut supervisor = Supervisor::spawn(limited(&scene.launch().command()));
        let why = if limit <= 2 {
            "Resource temporarily unavailable"
        } else {
            supervisor.wait_event("probe.verdict_changed");
            supervisor.signal(Signal::SIGTERM);
            "stopped as asked by SIGTERM"
        };
        let code = supervisor.wait_exit().map(i64::from);
        let stopped = supervisor.last("supervisor.stopped");
        assert_eq!(code, Some(stopped.number("exit_code")), "{limit}: {}", supervisor.story());
        assert!(stopped.text("reason").contains(why), "{limit}: {}", supervisor.story());
    }
}
