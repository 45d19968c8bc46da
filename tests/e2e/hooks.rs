//! Hooks: the operator's commands before a gateway's start and after its end. Nothing of them outlives them.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use openclaw_supervise::host::journal::{ReplayError, replay};
use std::fs;
use std::thread;
use std::time::Duration;
use support::jail::Jail;
use support::ledger::Ledger;
use support::process::{Process, stat};
use support::supervisor::{Event, Said, Supervisor, Verb};
use support::{PATIENCE, Scene, wait_for};

/// What the hooks of a scene have written down.
struct Notes<'a>(&'a Scene);

impl Notes<'_> {
    fn lines(&self) -> Vec<String> {
        let text = fs::read_to_string(self.0.root().join("notes")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Waits for a line with this beginning, and returns the rest of its first one.
    fn wait(&self, beginning: &str) -> String {
        let look = || self.lines().into_iter().find_map(|line| Some(line.strip_prefix(beginning)?.trim().to_owned()));
        wait_for(&format!("a note {beginning:?}"), PATIENCE, || self.lines().join("\n"), look)
    }

    /// The living process whose pid such a line holds.
    fn wait_process(&self, beginning: &str) -> Process {
        let pid = self.wait(beginning).parse().expect("a pid follows");
        Process::find(pid).expect("it lives")
    }
}

/// A hook that notes this.
fn note(text: &str) -> String {
    format!("echo \"{text}\" >> notes")
}

fn is_hook(event: &Event, hook: &str) -> bool {
    event.text("hook") == hook
}

fn wait_gone(process: Process, supervisor: &Supervisor) {
    wait_for("its end", PATIENCE, || supervisor.story(), || (!process.is_alive()).then_some(()));
}

/// Leaves a process in a session of its own whose parent is gone, and notes its pid.
const DAEMON: &str = "(setsid sh -c 'echo \"daemon $$\" >> notes; exec env sleep 100' & ); \
                      until grep -q daemon notes; do sleep 0.01; done";

#[test]
fn a_pre_start_hook_runs_before_each_spawn() {
    let scene = Scene::new("healthy");
    let hook = note("pre $OPENCLAW_SUPERVISE_GENERATION $(cat gateway.log 2>/dev/null | grep -c START)");
    let mut supervisor = scene.launch().option("--pre-start", &hook).start();
    for generation in 1..=2 {
        let started = supervisor.wait_event("hook.started");
        let finished = supervisor.wait_event("hook.finished");
        assert_eq!((started.number("generation"), finished.number("code")), (generation, 0));
        assert_eq!(supervisor.wait_event("gateway.spawned").number("generation"), generation);
        supervisor.wait_started().kill();
    }
    supervisor.wait_started();
    supervisor.signal(Signal::SIGHUP);
    supervisor.wait_started();
    assert_eq!(Notes(&scene).lines(), ["pre 1 0", "pre 2 1", "pre 3 2", "pre 4 3"]);
}

#[test]
fn a_hook_gets_its_variables_and_none_of_our_own() {
    let scene = Scene::new("healthy");
    let profile = scene.root().join("state").display().to_string();
    let hook = "env > given; { readlink /proc/$$/fd/0; cut -d' ' -f6 /proc/$$/stat; echo $$; pwd; } >> notes";
    let launch = scene.launch().option("--pre-start", hook).option("--state-dir", &profile);
    let launch = launch.env("NOTIFY_SOCKET", "/nonexistent").env("OPENCLAW_SERVICE_MARKER", "1");
    let launch = launch.env("OPENCLAW_SUPERVISE_INSTANCE", "outer").env("OPENCLAW_SUPERVISE_CODE", "5");
    let mut supervisor = launch.env("KEPT", "as it was").start();
    let gateway = supervisor.wait_started();
    let text = fs::read_to_string(scene.root().join("given")).expect("the hook has written it");
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(&format!("{name}=")).map(str::to_owned));
    for name in ["NOTIFY_SOCKET", "OPENCLAW_SERVICE_MARKER", "OPENCLAW_SUPERVISE_INSTANCE", "OPENCLAW_SUPERVISE_CODE"] {
        assert_eq!(value(name), None, "{name}");
    }
    assert_eq!(value("KEPT").as_deref(), Some("as it was"));
    assert_eq!(value("OPENCLAW_STATE_DIR"), Some(profile));
    assert_eq!(value("OPENCLAW_SUPERVISE_GENERATION").as_deref(), Some("1"));
    assert!(value("OPENCLAW_SUPERVISE_HOOK").is_some_and(|id| id.len() > 32));
    assert!(!scene.diary().environment(gateway.pid).contains_key("OPENCLAW_SUPERVISE_HOOK"));
    let notes = Notes(&scene).lines();
    assert_eq!((notes[0].as_str(), &notes[1]), ("/dev/null", &notes[2]), "its own session");
    assert_eq!(notes[3], scene.root().display().to_string());
}

#[test]
fn no_hook_runs_where_no_spawn_follows() {
    let scene = Scene::new("healthy");
    let hooked = || scene.launch().option("--pre-start", &note("pre")).option("--post-stop", &note("post"));
    let mut first = scene.start();
    let gateway = first.wait_started();
    hooked().start().expect_exit(78);
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    let mut next = hooked().start();
    next.wait_event("gateway.adopted");
    next.signal(Signal::SIGQUIT);
    next.expect_exit(0);
    assert!(gateway.is_alive());
    let other = Scene::new("healthy");
    let _stranger = other.stranger("healthy");
    other.launch().option("--pre-start", &note("pre")).option("--post-stop", &note("post")).start().expect_exit(78);
    assert_eq!((Notes(&scene).lines(), Notes(&other).lines()), (vec![], vec![]));
}

#[test]
fn a_failed_pre_start_hook_prevents_the_start_and_counts_as_a_failure() {
    let scene = Scene::new("healthy");
    let launch = || scene.launch().option("--pre-start", "exit 7").option("--max-restarts", "1");
    let mut supervisor = launch().option("--backoff-max", "30s").start();
    let finished = supervisor.wait_event("hook.finished");
    assert_eq!((finished.text("hook"), finished.number("code")), ("pre-start", 7));
    assert!(supervisor.wait_event("restart.scheduled").number("delay_ms") > 0);
    supervisor.expect_exit(69);
    let reason = supervisor.last("supervisor.stopped");
    assert!(reason.text("reason").contains("its pre-start hook ended with exit code 7"), "{reason:?}");
    assert_eq!((supervisor.count("hook.finished"), supervisor.count("gateway.spawned")), (2, 0));
    let ledger = Ledger::of(&scene);
    assert_eq!(ledger.number("SELECT count(*) FROM generations WHERE settled_at IS NOT NULL"), 2);
    // The next supervisor counts both, and has no gateway to look for.
    let mut next = launch().option("--backoff-max", "30s").start();
    let scheduled = next.wait_event("restart.scheduled");
    assert!(scheduled.text("why").contains("restart budget spent"), "{scheduled:?}");
    next.signal(Signal::SIGTERM);
    next.expect_exit(0);
    assert_eq!((next.count("hook.started"), next.count("gateway.exited")), (0, 0), "{}", next.story());
    assert_eq!(scene.diary().starts().len(), 0);
}

#[test]
fn a_hook_that_takes_too_long_ends_with_all_that_it_started() {
    let scene = Scene::new("healthy");
    // Ignores SIGTERM the first time only.
    let hook =
        format!("test -e notes && exit; trap '' TERM; echo \"hook $$\" >> notes; {DAEMON}; sleep 100 & wait; wait");
    let mut supervisor = scene.launch().option("--pre-start", &hook).option("--pre-start-timeout", "500ms").start();
    let daemon = Notes(&scene).wait_process("daemon ");
    let leader = Notes(&scene).wait_process("hook ");
    let timed_out = supervisor.wait_event("hook.timed_out");
    assert_eq!((timed_out.text("hook"), timed_out.number("timeout_ms")), ("pre-start", 500));
    assert!(leader.is_alive() && daemon.is_alive(), "it has its grace");
    let finished = supervisor.wait_event("hook.finished");
    assert_eq!(finished.number("signal"), 9);
    assert!(!leader.is_alive() && !daemon.is_alive(), "{}", supervisor.story());
    supervisor.wait_event("restart.scheduled");
    supervisor.wait_event("gateway.spawned");
    supervisor.wait_started();
    assert_eq!(supervisor.count("hook.finished"), 2);
}

#[test]
fn a_hook_that_ends_well_when_its_time_is_over_has_failed_all_the_same() {
    let scene = Scene::new("healthy");
    let hook = "trap 'echo heard >> notes; exit 0' TERM; sleep 100 & wait";
    let launch = scene.launch().option("--pre-start", hook).option("--pre-start-timeout", "200ms");
    let mut supervisor = launch.option("--max-restarts", "0").start();
    supervisor.expect_exit(69);
    assert_eq!(Notes(&scene).lines(), ["heard"]);
    let reason = supervisor.last("supervisor.stopped");
    assert!(reason.text("reason").contains("its pre-start hook took longer than 200ms"), "{reason:?}");
    assert_eq!(scene.diary().starts().len(), 0);
}

#[test]
fn a_stop_ends_a_pre_start_hook_that_was_stopped_itself() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--pre-start", "echo \"hook $$\" >> notes; exec sleep 100").start();
    let hook = Notes(&scene).wait_process("hook ");
    assert_eq!(Said::by(&scene, &["status", "--json"]).json()["supervisor"]["state"], "pre_start");
    hook.signal(Signal::SIGSTOP);
    let is_stopped = || stat(hook.pid).is_some_and(|stat| stat.state == "T").then_some(());
    wait_for("its stop", PATIENCE, || supervisor.story(), is_stopped);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert!(!hook.is_alive());
    let took = supervisor.last("hook.finished");
    assert_eq!(took.number("signal"), 15, "{}", supervisor.story());
    // A start that was taken back costs the next supervisor nothing.
    assert_eq!(Ledger::of(&scene).number("SELECT count(*) FROM generations"), 0);
    assert_eq!(scene.diary().starts().len(), 0);
}

#[test]
fn a_second_stop_waits_for_no_hook() {
    for (option, ready) in [("--pre-start", "hook.started"), ("--post-stop", "gateway.started")] {
        let scene = Scene::new("healthy");
        let hook = "trap '' TERM; echo \"hook $$\" >> notes; sleep 100 & wait; wait";
        let mut supervisor = scene.launch().option(option, hook).start();
        supervisor.wait_event(ready);
        if option == "--post-stop" {
            supervisor.signal(Signal::SIGTERM);
        }
        let hook = Notes(&scene).wait_process("hook ");
        if option == "--pre-start" {
            supervisor.signal(Signal::SIGTERM);
            supervisor.wait_event("stop.requested");
        }
        let asked = supervisor.age();
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        let took = supervisor.age().saturating_sub(asked);
        supervisor.assert_took("the end of the hook", took, &(Duration::ZERO..Duration::from_secs(4)));
        assert!(!hook.is_alive());
        assert_eq!(supervisor.last("hook.finished").number("signal"), 9);
    }
}

#[test]
fn a_restart_that_is_asked_for_during_a_pre_start_hook_is_that_start() {
    let scene = Scene::new("healthy");
    let hook = format!("{}; until test -e go; do sleep 0.01; done", note("pre"));
    let mut supervisor = scene.launch().option("--pre-start", &hook).start();
    Notes(&scene).wait("pre");
    let client = Verb::start(&scene, &["restart", "--timeout", "20s"]);
    supervisor.wait_event("restart.requested");
    fs::write(scene.root().join("go"), "").expect("a file can be written");
    client.end().expect(0).assert_says(&["gateway 1 "]);
    supervisor.wait_started();
    assert_eq!((scene.diary().starts().len(), Notes(&scene).lines().len()), (1, 1));
}

#[test]
fn a_port_that_is_taken_while_the_hook_runs_is_a_conflict() {
    let scene = Scene::new("healthy");
    let hook = format!("{}; until test -e go; do sleep 0.01; done", note("pre"));
    let mut supervisor = scene.launch().option("--pre-start", &hook).start();
    Notes(&scene).wait("pre");
    let mut stranger = scene.stranger("healthy");
    fs::write(scene.root().join("go"), "").expect("a file can be written");
    supervisor.expect_exit(78);
    assert_eq!(supervisor.last("hook.finished").number("code"), 0);
    assert_eq!(supervisor.last("conflict.detected").number("holder_pid"), i64::from(stranger.pid()));
    assert!(stranger.is_alive());
    assert_eq!(scene.diary().starts().len(), 0);
}

#[test]
fn a_post_stop_hook_is_told_of_each_end_before_the_next_start() {
    let scene = Scene::new("exit=3@200ms; healthy");
    let told =
        ["GENERATION", "REASON", "CODE", "SIGNAL", "PID"].map(|name| format!("${{OPENCLAW_SUPERVISE_{name}-none}}"));
    let hook = note(&format!("{} $(cat gateway.log 2>/dev/null | grep -c START)", told.join("|")));
    let mut supervisor = scene.launch().option("--post-stop", &hook).option("--probe-timeout", "100ms").start();
    supervisor.wait_event_with("gateway.started", |event| event.number("generation") == 2);
    let diary = scene.diary();
    let gateway = |number: usize| diary.starts()[number].process;
    gateway(1).kill();
    supervisor.wait_started();
    diary.command(gateway(2).pid, "freeze");
    supervisor.wait_started();
    supervisor.signal(Signal::SIGHUP);
    supervisor.wait_started();
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    let pids: Vec<i32> = diary.starts().iter().map(|start| start.process.pid).collect();
    let expected = [
        format!("1|crashed|3|none|{} 1", pids[0]),
        format!("2|crashed|none|9|{} 2", pids[1]),
        format!("3|hung|none|9|{} 3", pids[2]),
        format!("4|restart requested|0|none|{} 4", pids[3]),
        format!("5|stop requested|0|none|{} 5", pids[4]),
    ];
    assert_eq!(Notes(&scene).lines(), expected, "{}", supervisor.story());
    assert_eq!(supervisor.count("hook.finished"), 5);
}

#[test]
fn the_result_of_a_post_stop_hook_changes_nothing() {
    for (hook, time, event) in [("exit 9", "10s", "hook.finished"), ("exec sleep 100", "200ms", "hook.timed_out")] {
        let scene = Scene::new("healthy");
        let mut supervisor = scene.launch().option("--post-stop", hook).option("--post-stop-timeout", time).start();
        supervisor.wait_started().kill();
        supervisor.wait_event_with(event, |event| is_hook(event, "post-stop"));
        supervisor.wait_started();
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        assert_eq!(supervisor.count(event), 2);
        assert_eq!(Ledger::of(&scene).number("SELECT count(*) FROM generations WHERE settled_at IS NOT NULL"), 2);
    }
}

#[test]
fn what_a_hook_leaves_running_is_gone_when_the_gateway_starts() {
    let wiped = DAEMON.replace("env sleep", "env -i sleep");
    // Below a shell that had a child before it became the supervisor, an orphan may belong to the shell.
    let mixed = Jail::open().and("{ env -i sleep 10 2>/dev/null & }");
    for (hook, jail) in [
        (DAEMON, Jail::open()),
        (&wiped, Jail::open()),
        (&wiped, mixed.clone()),
        (&wiped, Jail::open().and_no_groups()),
        (&wiped, mixed.and_no_groups()),
    ] {
        let scene = Scene::new("healthy");
        let mut supervisor = Supervisor::spawn(jail.around(&scene.launch().option("--pre-start", hook).command()));
        let pid = Notes(&scene).wait("daemon ").parse().expect("a pid follows");
        let gateway = supervisor.wait_event("gateway.spawned").process();
        assert!(stat(pid).is_none(), "{}", supervisor.story());
        supervisor.wait_started();
        assert!(gateway.is_alive());
    }
}

#[test]
fn the_hook_of_a_supervisor_that_was_killed_ends_before_anything_else_begins() {
    let scene = Scene::new("healthy");
    let slow = "echo \"hook $$\" >> notes; exec sleep 100";
    let mut killed = scene.launch().option("--pre-start", &format!("{DAEMON}; {slow}")).start();
    let left = [Notes(&scene).wait_process("daemon "), Notes(&scene).wait_process("hook ")];
    killed.signal(Signal::SIGKILL);
    killed.wait_exit();
    assert!(left.iter().all(|process| process.is_alive()));
    let look =
        format!("for pid in {} {}; do readlink /proc/$pid/exe && echo beside >> notes; done", left[0].pid, left[1].pid);
    let mut next = scene.launch().option("--pre-start", &format!("{look}; {}", note("second"))).start();
    next.wait_started();
    assert!(left.iter().all(|process| !process.is_alive()), "{}", next.story());
    assert_eq!(Notes(&scene).lines()[2..], ["second"], "{}", next.story());
    assert_eq!((next.count("gateway.adopted"), scene.diary().starts().len()), (0, 1));
}

#[test]
fn the_next_supervisor_finds_processes_without_an_environment_by_the_hooks_control_group() {
    let scene = Scene::new("healthy");
    let wiped = DAEMON.replace("env sleep", "env -i sleep");
    let mut killed = scene.launch().option("--pre-start", &format!("{wiped}; sleep 100")).start();
    let daemon = Notes(&scene).wait_process("daemon ");
    let environment = || fs::read(format!("/proc/{}/environ", daemon.pid)).unwrap_or_default();
    wait_for("an empty environment", PATIENCE, || killed.story(), || environment().is_empty().then_some(()));
    killed.signal(Signal::SIGKILL);
    killed.wait_exit();
    let hook = scene.processes().into_iter().find(|process| *process != daemon);
    hook.expect("the hook lives").kill();
    let mut next = scene.start();
    next.wait_event("gateway.spawned");
    assert!(!daemon.is_alive(), "{}", next.story());
    next.wait_started();
}

#[test]
fn a_supervisor_without_hooks_ends_them_too() {
    let scene = Scene::new("healthy");
    let hook = "echo \"hook $$\" >> notes; exec sleep 100";
    let mut killed = scene.launch().option("--post-stop", hook).option("--post-stop-timeout", "1m").start();
    killed.wait_started().kill();
    let left = Notes(&scene).wait_process("hook ");
    killed.signal(Signal::SIGKILL);
    killed.wait_exit();
    let mut next = scene.start();
    next.wait_event("gateway.spawned");
    assert!(!left.is_alive(), "{}", next.story());
    next.wait_started();
}

#[test]
fn the_hook_of_a_living_supervisor_with_the_same_config_is_left_alone() {
    let (scene, other) = (Scene::new("healthy"), Scene::new("healthy"));
    let config = scene.root().join("own.json").display().to_string();
    fs::write(&config, "{}").expect("a file can be written");
    let hook = "echo \"hook $$\" >> notes; exec sleep 100";
    let mut first = scene.launch().option("--config", &config).option("--pre-start", hook).start();
    let running = Notes(&scene).wait_process("hook ");
    let mut second = other.launch().option("--config", &config).option("--pre-start", "true").start();
    second.wait_started();
    assert!(running.is_alive(), "{}", second.story());
    first.signal(Signal::SIGTERM);
    first.expect_exit(0);
    wait_gone(running, &first);
}

#[test]
fn a_detach_calls_no_post_stop_hook() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--post-stop", &note("post")).start();
    let gateway = supervisor.wait_started();
    supervisor.signal(Signal::SIGQUIT);
    supervisor.expect_exit(0);
    assert!(gateway.is_alive() && Notes(&scene).lines().is_empty());
}

#[test]
fn under_a_heartbeat_a_hook_starts_when_the_store_has_confirmed_the_lease() {
    let scene = Scene::new("exit=3@200ms; healthy");
    let launch = scene.launch().option("--lease", "heartbeat");
    let mut supervisor = launch.option("--pre-start", &note("pre")).option("--post-stop", &note("post")).start();
    supervisor.wait_event_with("gateway.started", |event| event.number("generation") == 2);
    assert_eq!(Notes(&scene).lines(), ["pre", "post", "pre"]);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_eq!(Notes(&scene).lines().len(), 4);
}

#[test]
fn under_a_heartbeat_a_store_that_does_not_answer_holds_a_hook_back_and_a_stop_takes_it_back() {
    let scene = Scene::new("healthy");
    let launch = scene.launch().option("--lease", "heartbeat").option("--pre-start-timeout", "1s");
    let hook = format!("{}; exit 1", note("pre"));
    let mut supervisor = launch.option("--pre-start", &hook).option("--backoff-max", "4s").start();
    supervisor.wait_event("restart.scheduled");
    let blockade = Ledger::of(&scene).block();
    supervisor.wait_event("hook.started");
    supervisor.signal(Signal::SIGTERM);
    let finished = supervisor.wait_event("hook.finished");
    assert!(finished.text("why").contains("taken back"), "{finished:?}");
    supervisor.expect_exit(0);
    let ran = supervisor.events().iter().filter(|event| event.value()["code"] == 1).count();
    assert_eq!(Notes(&scene).lines().len(), ran, "{}", supervisor.story());
    drop(blockade);
}

/// Notes processes that must not run beside this one: another hook, or a gateway.
const BESIDE: &str = "for pid in $(cat running 2>/dev/null; sed -n 's/^START \\([0-9]*\\) .*/\\1/p' gateway.log 2>/dev/null); do \
                      readlink /proc/$pid/exe && echo \"$pid beside $0\" >> notes; done";

/// Kills a supervisor with both hooks at its nth step, and lets another one take over.
fn kill_at(number: u32) {
    let scene = Scene::new("exit=3@50ms; healthy");
    // A hook that lives on does not hold the supervisor's stderr open: the next one starts at once.
    let hook = format!("exec 2>/dev/null; {BESIDE}; echo $$ > running; exec sleep 0.4");
    let gateway = scene.gateway_words();
    let script = format!("{BESIDE}; exec \"$@\"");
    let words = ["/bin/sh", "-c", &script, "gateway"].into_iter().chain(gateway.iter().map(String::as_str));
    let words: Vec<&str> = words.collect();
    let launch = || scene.launch().option("--pre-start", &hook).option("--post-stop", &hook).words(&words);
    let mut killed = launch().env("OPENCLAW_SUPERVISE_TEST_KILL_AT", &number.to_string()).start();
    assert_eq!(killed.wait_exit(), None, "{number}: it ended otherwise\n{}", killed.story());
    let mut next = launch().start();
    next.wait_event("gateway.started");
    next.signal(Signal::SIGTERM);
    next.expect_exit(0);
    assert_eq!(Notes(&scene).lines(), Vec::<String>::new(), "{number}\n{}\n{}", killed.story(), next.story());
    assert_eq!(scene.processes(), [], "{number}: nothing is left\n{}", next.story());
}

#[test]
fn wherever_a_supervisor_is_killed_no_hook_runs_beside_another_hook_or_a_gateway() {
    for first in [1, 9, 17, 25] {
        thread::scope(|scope| {
            for number in first..first + 8 {
                scope.spawn(move || kill_at(number));
            }
        });
    }
}

#[test]
fn a_run_with_hooks_replays_step_by_step() {
    let scene = Scene::new("warm=60s exit=3@100ms; healthy");
    let hook = "test $OPENCLAW_SUPERVISE_GENERATION -gt 1 || { echo 1 >> first; test $(wc -l < first) -gt 1; }";
    let launch = scene.launch().option("--log-level", "debug").option("--pre-start", hook);
    let mut supervisor = launch.option("--post-stop", "sleep 100").option("--post-stop-timeout", "100ms").start();
    supervisor.wait_started();
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    let log: Vec<String> = supervisor.events().iter().map(|event| event.value().to_string()).collect();
    let steps = replay(log.iter().map(String::as_str)).expect("it replays");
    assert_eq!(steps, log.iter().filter(|line| line.contains(r#""core.step""#)).count());
    // Without the end of the hook the run must differ.
    let ended = log.iter().position(|line| line.contains(r#""input":{"HookEnded""#)).expect("a hook has ended");
    let cut = log.iter().enumerate().filter(|(at, _)| *at != ended).map(|(_, line)| line.as_str());
    assert!(matches!(replay(cut), Err(ReplayError::Diverged { .. })));
}
