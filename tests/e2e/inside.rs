//! Requests from inside: an agent of the gateway, or a hook, that asks for a restart or a stop is answered at once and not
//! kept waiting for its own end.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "an answer at once is timed by the clock")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};
use support::jail::{Jail, first_process};
use support::supervisor::{PROGRAM, Said, Supervisor};
use support::{PATIENCE, Scene, wait_for};

/// How the agent is bound to its gateway: shell text around `AGENT`.
const KINDS: [(&str, &str); 4] = [
    ("a child", "sh -c 'AGENT'"),
    ("a child in a session of its own", "setsid sh -c 'AGENT'"),
    ("a daemon", "(setsid sh -c 'AGENT' &)"),
    ("a daemon without an environment", "(setsid env -i PATH=/usr/bin:/bin sh -c 'AGENT' &)"),
];

/// The drain of the gateway: a client that is answered at once is done long before it.
const DRAIN: Duration = Duration::from_secs(4);

/// Runs a verb once, when the file `go` is there, and leaves what it said and its exit code.
fn agent(scene: &Scene, verb: &str) -> String {
    let (root, state) = (scene.root().display(), scene.state_dir());
    format!(
        "until mv {root}/go {root}/gone; do sleep 0.02; done 2>/dev/null; \
         {PROGRAM} {verb} --state-dir {} >{root}/said 2>&1; echo $? >{root}/code",
        state.display()
    )
}

fn start(scene: &Scene, kind: &str, verb: &str) -> Supervisor {
    let script = format!("{} >/dev/null 2>&1 & exec \"$@\"", kind.replace("AGENT", &agent(scene, verb)));
    let words = [vec!["/bin/sh".to_owned(), "-c".to_owned(), script, "sh".to_owned()], scene.gateway_words()].concat();
    scene.launch().words(&words.iter().map(String::as_str).collect::<Vec<_>>()).start()
}

/// Lets the agent ask, and waits for what it was told.
fn ask(scene: &Scene, supervisor: &Supervisor, what: &str) -> String {
    let since = Instant::now();
    fs::write(scene.root().join("go"), "").unwrap();
    let code = wait_for(
        "the end of the client",
        PATIENCE,
        || supervisor.story(),
        || fs::read_to_string(scene.root().join("code")).ok().filter(|code| code.ends_with('\n')),
    );
    let took = since.elapsed();
    assert!(took < DRAIN, "{what}: it was kept waiting for {took:?}\n{}", supervisor.story());
    let said = fs::read_to_string(scene.root().join("said")).unwrap();
    assert_eq!(code, "0\n", "{what}: {said}");
    assert!(said.contains("accepted; you are part of what ends") && said.lines().count() == 1, "{what}: {said}");
    said
}

/// Every kind of agent in a scene of its own, at the same time.
fn each_kind(test: impl Fn(&str, &str) + Sync) {
    let test = &test;
    thread::scope(|scope| {
        for (what, kind) in KINDS {
            scope.spawn(move || test(what, kind));
        }
    });
}

#[test]
fn an_agent_that_asks_for_a_restart_does_not_wait_for_it() {
    each_kind(|what, kind| {
        let scene = Scene::new("drain=4s; healthy");
        let mut supervisor = start(&scene, kind, "restart");
        let first = supervisor.wait_started();
        ask(&scene, &supervisor, what);
        assert!(first.is_alive(), "{what}: it drains\n{}", supervisor.story());
        let by = supervisor.wait_event("restart.requested");
        assert!(by.text("by").contains("openclaw-supervise restart"), "{what}: {by:?}");
        let second = supervisor.wait_started();
        assert_ne!(first, second, "{what}");
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
    });
}

#[test]
fn an_agent_that_asks_for_the_stop_does_not_wait_for_it() {
    each_kind(|what, kind| {
        let scene = Scene::new("drain=4s");
        let mut supervisor = start(&scene, kind, "stop");
        supervisor.wait_started();
        ask(&scene, &supervisor, what);
        supervisor.expect_exit(0);
        assert_eq!(scene.processes(), [], "{what}\n{}", supervisor.story());
    });
}

#[test]
fn an_agent_of_an_adopted_gateway_is_inside_as_well() {
    let scene = Scene::new("drain=4s; healthy");
    let mut first = start(&scene, KINDS[0].1, "restart");
    let gateway = first.wait_started();
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    let mut second = scene.start();
    assert_eq!(second.wait_event("gateway.adopted").process(), gateway);
    wait_for(
        "the control socket",
        PATIENCE,
        || second.story(),
        || scene.store_dir().join("control.sock").exists().then_some(()),
    );
    ask(&scene, &second, "an agent of an adopted gateway");
    assert_eq!(second.wait_event("restart.requested").value()["inside"], true);
    assert_ne!(second.wait_started(), gateway);
    second.signal(Signal::SIGTERM);
    second.expect_exit(0);
}

#[test]
fn a_hook_that_asks_for_the_stop_does_not_wait_for_it() {
    for hook in ["--pre-start", "--post-stop"] {
        let scene = Scene::new("exit=1@50ms");
        let (root, state) = (scene.root().display(), scene.state_dir());
        let ask = format!("{PROGRAM} stop --state-dir {} >{root}/said 2>&1", state.display());
        let mut supervisor = scene.launch().option(hook, &ask).start();
        supervisor.expect_exit(0);
        let said = fs::read_to_string(scene.root().join("said")).unwrap();
        // The stop ends a pre-start hook at once, and with it a client that may not have printed yet.
        let is_told = said.contains("accepted; you are part of what ends");
        assert!(is_told || said.is_empty() && hook == "--pre-start", "{hook}: {said}\n{}", supervisor.story());
        assert_eq!(scene.processes(), []);
    }
}

#[test]
fn a_client_outside_the_pid_namespace_of_the_supervisor_waits_for_the_outcome() {
    let scene = Scene::new("drain=1s; healthy");
    let mut supervisor = Supervisor::spawn(Jail::with_pids().around(&scene.launch().command()));
    supervisor.wait_event("gateway.started");
    Said::by(&scene, &["restart"]).expect(0).assert_says(&["gateway 2 (pid "]);
    assert!(!supervisor.last("restart.requested").text("by").contains("pid "), "{}", supervisor.story());
    first_process(supervisor.pid()).signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}
