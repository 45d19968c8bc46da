//! The promises once more, in front of the real gateway from its npm package.
//!
//! One test, because one gateway at a time is what a small machine bears: each boot takes its seconds of all cores.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]
#![expect(clippy::disallowed_methods, reason = "it polls beside the supervisor, by its own clock")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use nix::sys::signal::Signal;
use std::path::Path;
use std::time::{Duration, Instant};
use std::{fs, thread};
use support::process::{Process, describe, stat};
use support::real::RealGateway;
use support::supervisor::{Launch, Supervisor};
use support::{Scene, http, port, wait_for};

/// How long the gateway may be silent here: its event loop stands still for seconds while it works.
const HANG_AFTER: Duration = Duration::from_secs(15);

/// The pace of the looks.
const INTERVAL: Duration = Duration::from_secs(1);

/// How long a gateway that hangs has for its farewell.
const HUNG_STOP_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the machine has more to do than it can.
const BUSY: Duration = Duration::from_secs(20);

/// Cold disks and busy machines: a boot takes a quarter of a minute where nothing else runs.
const PATIENCE: Duration = Duration::from_mins(4);

#[test]
fn the_real_gateway_is_kept_alive_alone_and_ended_whole() {
    let real = RealGateway::install();
    let scene = Scene::new("");
    install_hook(&scene);
    let mut supervisor = launch(&scene, &real).start();
    supervisor.patience = PATIENCE;

    let first = first_start_is_told_in_time(&mut supervisor, &scene);
    its_tree_has_a_broker_in_a_session_of_its_own(first);
    duplicates_are_turned_away(&scene, &real, first);
    a_busy_machine_costs_it_nothing(&supervisor, &scene, first);
    let left = what_a_shell_command_leaves(&scene, 1);
    let second = a_kill_is_answered_by_a_new_one(&mut supervisor, first, &left);
    let left = what_a_shell_command_leaves(&scene, 2);
    let third = a_planned_restart_is_no_crash(&mut supervisor, second, &left);
    let left = what_a_shell_command_leaves(&scene, 3);
    let fourth = a_frozen_one_is_replaced_in_time(&mut supervisor, third, &left);
    let left = what_a_shell_command_leaves(&scene, 4);
    a_stop_leaves_nothing(&mut supervisor, &scene, fourth, &left);
}

/// A hook of the gateway's own kind, for its event `gateway:startup`: it needs no account, runs in the
/// gateway, and starts a shell command that leaves one process in its session, one in another, and one without an
/// environment in a third.
fn install_hook(scene: &Scene) {
    let hook = scene.state_dir().join("hooks/left-behind");
    let write = |path: &Path, text: &str| fs::write(path, text).expect("the state folder can be written");
    fs::create_dir_all(&hook).expect("the state folder can be written");
    let entries = r#"{"left-behind":{"enabled":true}}"#;
    let config = format!(r#"{{"hooks":{{"internal":{{"enabled":true,"entries":{entries}}}}}}}"#);
    write(&scene.state_dir().join("openclaw.json"), &config);
    let about = r#"{ "openclaw": { "events": ["gateway:startup"] } }"#;
    let head = format!("---\nname: left-behind\ndescription: Leaves processes behind\nmetadata: {about}\n---\n");
    write(&hook.join("HOOK.md"), &head);
    let linger = scene.root().join("linger.sh").display().to_string();
    write(Path::new(&linger), "echo $$ >> \"${0%/*}/lingering\"\nsleep 600\n");
    let script = format!("sh {linger} & setsid sh {linger} & env -i setsid sh {linger} &");
    let handler = format!(
        "import {{ spawn }} from \"node:child_process\";\n\
         export default () => {{\n  \
           spawn(\"/bin/sh\", [\"-c\", \"{script}\"], {{ detached: true, stdio: \"ignore\" }}).unref();\n}};\n"
    );
    write(&hook.join("handler.js"), &handler);
}

/// The processes that the gateway's start number `start` has left: the shells, whose parent is gone, and what they wait for.
fn what_a_shell_command_leaves(scene: &Scene, start: usize) -> Vec<Process> {
    let read = || fs::read_to_string(scene.root().join("lingering")).unwrap_or_default();
    wait_for("what the hook leaves", Duration::from_mins(2), read, || {
        let text = read();
        let pids: Vec<_> = text.lines().skip(3 * (start - 1)).filter_map(|line| line.parse().ok()).collect();
        let trees: Vec<_> = pids.into_iter().filter_map(Process::find).map(Process::tree).collect();
        (trees.len() == 3 && trees.iter().all(|tree| tree.len() == 2)).then(|| trees.concat())
    })
}

fn assert_gone(tree: &[Process], left: &[Process], supervisor: &Supervisor) {
    let alive: Vec<_> = tree.iter().chain(left).copied().filter(|process| process.is_alive()).collect();
    assert!(alive.is_empty(), "these are left:\n{}\n{}", describe(&alive), supervisor.story());
}

fn launch<'a>(scene: &'a Scene, real: &RealGateway) -> Launch<'a> {
    let words = real.words(scene.port());
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let config = scene.state_dir().join("openclaw.json").display().to_string();
    let mut launch = scene.launch().words(&words).env("OPENCLAW_CONFIG_PATH", &config);
    // What people get, but for the times that the test would have to wait for.
    for name in ["--backoff-max", "--boot-limit"] {
        launch = launch.without(name);
    }
    let text = |time: Duration| format!("{}s", time.as_secs());
    launch
        .option("--probe-interval", &text(INTERVAL))
        .option("--probe-timeout", "2s")
        .option("--hang-after", &text(HANG_AFTER))
        .option("--hung-stop-timeout", &text(HUNG_STOP_TIMEOUT))
        .option("--startup-timeout", "240s")
        .option("--stop-timeout", "60s")
}

/// Polls beside the supervisor: it may say `started` at any time after the gateway does, and never before.
fn first_start_is_told_in_time(supervisor: &mut Supervisor, scene: &Scene) -> Process {
    supervisor.wait_event("gateway.spawned");
    let begin = Instant::now();
    let mut last_not_started = begin;
    loop {
        let asked = Instant::now();
        if http::startup_status(scene.port()).as_deref() == Some("started") {
            break;
        }
        last_not_started = asked;
        assert!(begin.elapsed() < PATIENCE, "the gateway does not start\n{}", supervisor.story());
        thread::sleep(Duration::from_millis(20));
    }
    let started = supervisor.wait_event("gateway.started");
    assert!(started.seen >= last_not_started, "started was said too early\n{}", supervisor.story());
    let late = started.seen.saturating_duration_since(last_not_started);
    supervisor.assert_took("telling it", late, &(Duration::ZERO..Duration::from_secs(10)));
    started.process()
}

fn its_tree_has_a_broker_in_a_session_of_its_own(gateway: Process) {
    let own_session = |process: &&Process| stat(process.pid).is_some_and(|stat| stat.session == process.pid);
    let describe = || format!("{:?}", gateway.tree());
    wait_for("main, broker and reader", Duration::from_mins(1), describe, || {
        let tree = gateway.tree();
        // The gateway leads its session, the broker leads another.
        (tree.len() >= 3 && tree.iter().filter(own_session).count() >= 2).then_some(())
    });
    assert_eq!(stat(gateway.pid).map(|stat| stat.group), Some(gateway.pid));
}

/// Twice as many busy processes as there are processors, none of them nicer than the gateway.
fn a_busy_machine_costs_it_nothing(supervisor: &Supervisor, scene: &Scene, gateway: Process) {
    let processors = thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let spin = |_| scene.command("/bin/sh").args(["-c", "while :; do :; done"]).spawn().expect("there is a shell");
    let mut spinners: Vec<_> = (0..2 * processors).map(spin).collect();
    support::let_pass(BUSY);
    for spinner in &mut spinners {
        assert_eq!(spinner.try_wait().expect("it is our child"), None, "it was busy all the time");
        spinner.kill().and_then(|()| spinner.wait()).expect("it is our child");
    }
    assert_eq!(supervisor.count("gateway.hung"), 0, "{}", supervisor.story());
    assert!(gateway.is_alive());
    assert_eq!(http::startup_status(scene.port()).as_deref(), Some("started"));
}

/// Its event loop stands still behind an open port.
fn a_frozen_one_is_replaced_in_time(supervisor: &mut Supervisor, third: Process, left: &[Process]) -> Process {
    let tree = third.tree();
    third.signal(Signal::SIGSTOP);
    let hung = supervisor.wait_event("gateway.hung");
    let silence = Duration::from_millis(hung.number("last_good_ms").unsigned_abs());
    supervisor.assert_took("the verdict", silence, &(HANG_AFTER..HANG_AFTER + INTERVAL + Duration::from_secs(2)));
    if let Some(evidence) = hung.value()["evidence"].as_str() {
        assert!(Path::new(evidence).exists(), "{evidence} is missing\n{}", supervisor.story());
    }
    let exited = supervisor.wait_event("gateway.exited");
    let farewell = exited.seen.duration_since(hung.seen);
    // It may go sooner: it is let run again, so that it can drain.
    let range = Duration::ZERO..HUNG_STOP_TIMEOUT + Duration::from_secs(5);
    supervisor.assert_took("its end", farewell, &range);
    supervisor.wait_event("gateway.spawned");
    assert_gone(&tree, left, supervisor);
    let fourth = supervisor.wait_started();
    assert_ne!(third, fourth);
    fourth
}

fn a_kill_is_answered_by_a_new_one(supervisor: &mut Supervisor, first: Process, left: &[Process]) -> Process {
    let tree = first.tree();
    first.kill();
    supervisor.wait_event("gateway.exited");
    supervisor.wait_event("gateway.spawned");
    assert_gone(&tree, left, supervisor);
    let second = supervisor.wait_started();
    assert_ne!(first, second);
    second
}

/// The gateway exits 0 and leaves a handoff: its way to ask for a successor.
fn a_planned_restart_is_no_crash(supervisor: &mut Supervisor, second: Process, left: &[Process]) -> Process {
    let tree = second.tree();
    second.signal(Signal::SIGUSR2);
    let exited = supervisor.wait_event("gateway.exited");
    assert_eq!(exited.number("code"), 0);
    let spawned = supervisor.wait_event("gateway.spawned");
    // After a crash it would have waited for half a second at least.
    let gap = spawned.seen.duration_since(exited.seen);
    supervisor.assert_took("the respawn", gap, &(Duration::ZERO..Duration::from_millis(450)));
    assert_gone(&tree, left, supervisor);
    let third = supervisor.wait_started();
    assert_ne!(second, third);
    third
}

fn duplicates_are_turned_away(scene: &Scene, real: &RealGateway, gateway: Process) {
    let elsewhere = scene.root().join("other-state").display().to_string();
    let same = launch(scene, real);
    let other = launch(scene, real).option("--state-dir", &elsewhere);
    for launch in [same, other] {
        let mut second = launch.start();
        second.expect_exit(78);
        let took = second.age();
        second.assert_took("the refusal", took, &(Duration::ZERO..Duration::from_secs(1)));
        assert_eq!(second.count("gateway.spawned"), 0, "{}", second.story());
    }
    assert!(gateway.is_alive());
    assert_eq!(http::startup_status(scene.port()).as_deref(), Some("started"));
}

fn a_stop_leaves_nothing(supervisor: &mut Supervisor, scene: &Scene, gateway: Process, left: &[Process]) {
    its_tree_has_a_broker_in_a_session_of_its_own(gateway);
    let tree = gateway.tree();
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_gone(&tree, left, supervisor);
    assert_eq!(scene.processes(), []);
    assert!(port::is_free(scene.port()));
}
