//! An unrequested exit with 0 is followed by another gateway at once; then OpenClaw's command line is asked whether the
//! restart was planned.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::time::Duration;
use support::ledger::Ledger;
use support::openclaw::Openclaw;
use support::process::Process;
use support::supervisor::{Event, Launch, Said, Supervisor};
use support::{PATIENCE, Scene, wait_for};

fn launch<'a>(scene: &'a Scene, openclaw: &Openclaw) -> Launch<'a> {
    let words = openclaw.words(scene.port());
    scene.launch().words(&words.iter().map(String::as_str).collect::<Vec<_>>())
}

/// How many restarts the budget has lost.
fn spent(scene: &Scene) -> Value {
    Said::by(scene, &["status", "--json"]).json()["restarts"]["in_window"].clone()
}

/// The gateway asks for a successor, as the real one does.
fn restart(supervisor: &mut Supervisor, gateway: Process) -> Process {
    gateway.signal(Signal::SIGUSR2);
    follow(supervisor, gateway)
}

/// The gateway exits with 0 and has planned nothing.
fn leave(scene: &Scene, supervisor: &mut Supervisor, gateway: Process) -> Process {
    scene.diary().command(gateway.pid, "exit=0");
    follow(supervisor, gateway)
}

fn follow(supervisor: &mut Supervisor, gateway: Process) -> Process {
    let exited = supervisor.wait_event("gateway.exited");
    assert_eq!((exited.number("pid"), exited.number("code")), (gateway.pid.into(), 0));
    supervisor.wait_started()
}

/// When the supervisor did it, in milliseconds since 1970.
fn stamp(event: &Event) -> u128 {
    let at: jiff::Timestamp = event.text("at").parse().expect("a stamp is one of RFC 3339");
    u128::try_from(at.as_millisecond()).expect("it is after 1970")
}

#[test]
fn ten_planned_restarts_in_a_row_cost_nothing_and_are_asked_about_after_the_next_boot() {
    let scene = Scene::new("healthy; boot=100ms");
    let openclaw = scene.openclaw();
    let mut supervisor = launch(&scene, &openclaw).start();
    let mut gateway = supervisor.wait_started();
    openclaw.wait_calls("capabilities", 1);
    for round in 1..=10 {
        let before = gateway;
        gateway = restart(&mut supervisor, before);
        let started = supervisor.last("gateway.started");
        let accepted = supervisor.wait_event("handoff.accepted");
        assert_eq!(accepted.number("generation"), round);
        let calls = openclaw.calls("consume");
        assert_eq!(calls.len(), usize::try_from(round).expect("it is small"), "{calls:?}");
        let call = calls.last().expect("it was made");
        assert!(call.words.contains(&format!("--expected-pid {} ", before.pid)), "{call:?}");
        assert!(call.at.as_millis() >= stamp(&started), "asked at {call:?}\n{}", supervisor.story());
        assert_eq!(supervisor.last("restart.scheduled").number("delay_ms"), 0);
    }
    assert_eq!(spent(&scene), 0);
    assert_eq!(openclaw.calls("capabilities").len(), 1, "it is known from the first time on");
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

#[test]
fn an_unplanned_exit_is_counted_and_a_second_one_waits() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    let mut supervisor = launch(&scene, &openclaw).start();
    let first = supervisor.wait_started();
    let second = leave(&scene, &mut supervisor, first);
    assert_eq!(supervisor.last("restart.scheduled").number("delay_ms"), 0);
    assert_eq!(supervisor.wait_event("handoff.missing").number("generation"), 1);
    assert_eq!(spent(&scene), 1);
    leave(&scene, &mut supervisor, second);
    assert!(supervisor.last("restart.scheduled").number("delay_ms") > 0, "{}", supervisor.story());
    assert_eq!(supervisor.wait_event("handoff.missing").number("generation"), 2);
    assert_eq!(spent(&scene), 2);
}

#[test]
fn a_rejected_handoff_is_reported_and_counted() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    openclaw.answer(
        "consume",
        r#"echo '{"ok":true,"protocol":"openclaw.gateway.restart-handoff","protocolVersion":1,"status":"rejected","reason":"expired"}'; exit"#,
    );
    let mut supervisor = launch(&scene, &openclaw).start();
    let first = supervisor.wait_started();
    restart(&mut supervisor, first);
    let rejected = supervisor.wait_event("handoff.rejected");
    assert_eq!((rejected.number("generation"), rejected.text("reason")), (1, "expired"));
    assert_eq!(spent(&scene), 1);
}

#[test]
fn a_release_without_handoffs_is_reported_once_and_started_with_no_respawn() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    openclaw.answer("capabilities", "echo no such command >&2; exit 1");
    let mut supervisor = launch(&scene, &openclaw).start();
    let first = supervisor.wait_started();
    supervisor.wait_event("handoff.unsupported");
    let second = leave(&scene, &mut supervisor, first);
    assert_eq!(spent(&scene), 1, "it is charged at once");
    assert_eq!(scene.diary().environment(first.pid).get("OPENCLAW_NO_RESPAWN"), None);
    let value = |gateway: Process| scene.diary().environment(gateway.pid).get("OPENCLAW_NO_RESPAWN").cloned();
    assert_eq!(value(second).as_deref(), Some("1"));
    let third = leave(&scene, &mut supervisor, second);
    assert!(supervisor.last("restart.scheduled").number("delay_ms") > 0, "{}", supervisor.story());
    assert_eq!(value(third).as_deref(), Some("1"));
    assert_eq!((supervisor.count("handoff.unsupported"), openclaw.calls("consume")), (1, vec![]));
}

#[test]
fn a_command_line_with_malformed_answers_counts_as_unsupported() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    openclaw.answer("capabilities", "echo '{\"ok\":true}'; exit 0");
    let mut supervisor = launch(&scene, &openclaw).start();
    supervisor.wait_started();
    let reason = supervisor.wait_event("handoff.unsupported").text("reason").to_owned();
    assert!(reason.contains("exit code 0"), "{reason}");
}

#[test]
fn a_command_line_that_never_answers_delays_nothing() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    openclaw.answer("capabilities", "exec sleep 300");
    let mut supervisor = launch(&scene, &openclaw).start();
    supervisor.patience = Duration::from_mins(2);
    let first = supervisor.wait_started();
    openclaw.wait_calls("capabilities", 1);
    first.kill();
    let second = follow_death(&mut supervisor, first);
    assert_eq!(supervisor.count("handoff.timed_out"), 0, "it is asked still");
    supervisor.wait_event("handoff.timed_out");
    assert!(second.is_alive());
    let gone = |call: &support::openclaw::Call| Process::find(call.pid).is_none();
    let look = || openclaw.calls("capabilities").iter().all(gone).then_some(());
    wait_for("the end of the command line", PATIENCE, || supervisor.story(), look);
    openclaw.answer("capabilities", "");
    restart(&mut supervisor, second);
    supervisor.wait_event("handoff.accepted");
}

fn follow_death(supervisor: &mut Supervisor, gateway: Process) -> Process {
    assert_eq!(supervisor.wait_event("gateway.exited").number("pid"), i64::from(gateway.pid));
    supervisor.wait_started()
}

#[test]
fn another_program_is_queried_again() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    openclaw.answer("capabilities", "exit 1");
    let mut supervisor = launch(&scene, &openclaw).start();
    let first = supervisor.wait_started();
    supervisor.wait_event("handoff.unsupported");
    openclaw.answer("capabilities", "");
    let newer = std::fs::read_to_string(openclaw.program()).expect("it is there") + "# newer\n";
    std::fs::write(openclaw.program(), newer).expect("it is ours");
    let second = leave(&scene, &mut supervisor, first);
    openclaw.wait_calls("capabilities", 2);
    let third = restart(&mut supervisor, second);
    supervisor.wait_event("handoff.accepted");
    restart(&mut supervisor, third);
    supervisor.wait_event("handoff.accepted");
    assert_eq!(openclaw.calls("capabilities").len(), 2);
}

#[test]
fn the_command_line_has_the_gateways_settings_and_nothing_of_ours() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    let config = scene.root().join("its.json").display().to_string();
    let flags = ["--config", &config, "--profile", "work"];
    // The manager's socket, the hints of a service, and what a supervisor around us says of itself.
    let hints = ["OPENCLAW_SERVICE_MARKER", "INVOCATION_ID", "OPENCLAW_SUPERVISE_INSTANCE", "OPENCLAW_SUPERVISE_HOOK"];
    let mut launch = launch(&scene, &openclaw).flags(&flags);
    for hint in hints {
        launch = launch.env(hint, "of-another");
    }
    let socket = scene.root().join("notify").display().to_string();
    let _ear = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket can be made");
    let mut supervisor = launch.env("NOTIFY_SOCKET", &socket).start();
    supervisor.wait_started();
    let calls = openclaw.wait_calls("capabilities", 1);
    let environment = openclaw.environment(&calls[0]);
    for hint in hints.into_iter().chain(["NOTIFY_SOCKET"]) {
        assert_eq!(environment.get(hint), None, "{hint}");
    }
    let state = scene.state_dir().display().to_string();
    for (name, value) in [
        ("OPENCLAW_SUPERVISOR_MODE", "external"),
        ("OPENCLAW_STATE_DIR", &state),
        ("OPENCLAW_CONFIG_PATH", &config),
        ("OPENCLAW_PROFILE", "work"),
    ] {
        assert_eq!(environment.get(name).map(String::as_str), Some(value), "{name}");
    }
}

#[test]
fn a_stop_ends_the_command_line_with_all_that_it_has_started() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    openclaw.answer("consume", "setsid sleep 300 & sleep 300");
    let mut supervisor = launch(&scene, &openclaw).start();
    let first = supervisor.wait_started();
    let second = restart(&mut supervisor, first);
    let call = openclaw.wait_calls("consume", 1).remove(0);
    let started = || Process::find(call.pid).is_some_and(|call| call.tree().len() == 3).then_some(());
    wait_for("what it starts", PATIENCE, || supervisor.story(), started);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert!(!second.is_alive());
    assert_eq!(scene.processes(), [], "at our end, and not later");
}

#[test]
fn a_crash_beside_a_question_neither_ends_it_nor_waits_for_it() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    openclaw.answer("consume", "while [ ! -e \"$root/go\" ]; do sleep 0.05; done");
    let mut supervisor = launch(&scene, &openclaw).start();
    let first = supervisor.wait_started();
    let second = restart(&mut supervisor, first);
    let call = openclaw.wait_calls("consume", 1).remove(0);
    second.kill();
    follow_death(&mut supervisor, second);
    assert!(Process::find(call.pid).is_some(), "it is no orphan of the gateway\n{}", supervisor.story());
    std::fs::write(scene.root().join("go"), "").expect("the folder can be written");
    assert_eq!(supervisor.wait_event("handoff.accepted").number("generation"), 1);
}

#[test]
fn an_answer_counts_though_a_child_holds_the_pipe_open() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    openclaw.answer("consume", "setsid sleep 300 &");
    let mut supervisor = launch(&scene, &openclaw).start();
    let first = supervisor.wait_started();
    restart(&mut supervisor, first);
    supervisor.wait_event("handoff.accepted");
}

/// What forbids a gateway to leave a successor.
fn forbidden(scene: &Scene, gateway: Process) -> Option<String> {
    scene.diary().environment(gateway.pid).get("OPENCLAW_NO_RESPAWN").cloned()
}

#[test]
fn a_failed_capability_query_is_repeated() {
    for (failure, reason) in [
        // The real one, while its configuration is refused.
        (r#"echo '{"ok":false,"error":{"message":"OpenClaw config is invalid"}}'; exit 1"#, "config is invalid"),
        ("kill -9 $$", "signal 9"),
    ] {
        let scene = Scene::new("healthy");
        let openclaw = scene.openclaw();
        openclaw.answer("capabilities", failure);
        let mut supervisor = launch(&scene, &openclaw).start();
        let first = supervisor.wait_started();
        let told = supervisor.wait_event("handoff.timed_out").text("reason").to_owned();
        assert!(told.contains(reason), "{told}");
        openclaw.answer("capabilities", "");
        first.kill();
        let second = follow_death(&mut supervisor, first);
        assert_eq!(forbidden(&scene, second), None, "{}", supervisor.story());
        openclaw.wait_calls("capabilities", 2);
        restart(&mut supervisor, second);
        supervisor.wait_event("handoff.accepted");
        assert_eq!(supervisor.count("handoff.unsupported"), 0, "{}", supervisor.story());
    }
}

#[test]
fn a_configuration_change_repeats_the_capability_query() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    openclaw.answer("capabilities", "exit 1");
    let config = scene.root().join("its.json");
    std::fs::write(&config, "{}").expect("the folder can be written");
    let flags = ["--config", &config.display().to_string()];
    let mut supervisor = launch(&scene, &openclaw).flags(&flags).start();
    let first = supervisor.wait_started();
    supervisor.wait_event("handoff.unsupported");
    openclaw.answer("capabilities", "");
    std::fs::write(&config, "{ }").expect("it is ours");
    let second = leave(&scene, &mut supervisor, first);
    openclaw.wait_calls("capabilities", 2);
    restart(&mut supervisor, second);
    supervisor.wait_event("handoff.accepted");
}

#[test]
fn the_next_supervisor_knows_the_capabilities_before_its_first_spawn() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    openclaw.answer("capabilities", "exit 1");
    let kept = scene.state_dir().join("supervise/capabilities.json");
    let run = |knows: bool, expected: Option<&str>, calls: usize| {
        let mut supervisor = launch(&scene, &openclaw).start();
        let gateway = supervisor.wait_started();
        assert_eq!(forbidden(&scene, gateway).as_deref(), expected, "{}", supervisor.story());
        if knows {
            restart(&mut supervisor, gateway);
            supervisor.wait_event("handoff.accepted");
        }
        let look = || {
            let text = std::fs::read(&kept).ok()?;
            let value: Value = serde_json::from_slice(&text).ok()?;
            (value["restart_handoff"] == knows).then_some(())
        };
        wait_for("what is kept", PATIENCE, || supervisor.story(), look);
        assert_eq!(supervisor.count("handoff.unsupported"), usize::from(!knows), "{}", supervisor.story());
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        assert_eq!(openclaw.calls("capabilities").len(), calls);
    };
    run(false, None, 1);
    run(false, Some("1"), 1);
    // A damaged file is ignored.
    std::fs::write(&kept, "{\"command\":").expect("it is ours");
    run(false, None, 2);
    // So is one for another program.
    let newer = std::fs::read_to_string(openclaw.program()).expect("it is there") + "# newer\n";
    std::fs::write(openclaw.program(), newer).expect("it is ours");
    openclaw.answer("capabilities", "");
    run(true, None, 3);
    run(true, None, 3);
}

#[test]
fn an_unwritable_capability_file_delays_nothing() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    // A folder is in the file's place.
    let in_its_place = scene.state_dir().join("supervise/capabilities.json.new");
    std::fs::create_dir_all(in_its_place).expect("a folder can be made");
    let mut supervisor = launch(&scene, &openclaw).start();
    let first = supervisor.wait_started();
    restart(&mut supervisor, first);
    supervisor.wait_event("handoff.accepted");
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

#[test]
fn a_command_without_openclaw_is_reported_once() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    let first = supervisor.wait_started();
    let told = supervisor.last("handoff.unsupported").text("reason").to_owned();
    assert!(told.contains("names no 'openclaw"), "{told}");
    let second = leave(&scene, &mut supervisor, first);
    assert_eq!((supervisor.count("handoff.unsupported"), forbidden(&scene, second)), (1, None));
}

#[test]
fn what_a_build_of_openclaw_runs_can_be_asked() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    let dist = scene.root().join("app/dist");
    std::fs::create_dir_all(&dist).expect("a folder can be made");
    std::fs::write(scene.root().join("app/package.json"), r#"{"name":"openclaw"}"#).expect("a file can be made");
    std::fs::copy(openclaw.program(), dist.join("index.js")).expect("a file can be copied");
    let file = dist.join("index.js").display().to_string();
    let port = scene.port().to_string();
    let mut supervisor = scene.launch().words(&["/bin/sh", &file, "gateway", "run", "--port", &port]).start();
    let first = supervisor.wait_started();
    restart(&mut supervisor, first);
    supervisor.wait_event("handoff.accepted");
    assert_eq!(spent(&scene), 0);
}

#[test]
fn the_error_of_a_refused_start_says_where_the_gateways_own_messages_are() {
    let scene = Scene::new("exit=78");
    let mut supervisor = launch(&scene, &scene.openclaw()).start();
    supervisor.expect_exit(78);
    let place = "see the gateway's output above, and in /tmp/openclaw/openclaw-*.log";
    let reason = supervisor.last("supervisor.stopped").text("reason").to_owned();
    assert!(reason.contains(place), "{reason}");
    Said::by(&scene, &["events"]).assert_says(&[place]);
}

/// A second supervisor that has adopted the gateway of a first one, which was killed.
fn adopt<'a>(
    scene: &'a Scene,
    openclaw: &Openclaw,
    configure: impl Fn(Launch<'a>) -> Launch<'a>,
) -> (Supervisor, Process) {
    let mut first = configure(launch(scene, openclaw)).start();
    let gateway = first.wait_started();
    Ledger::of(scene).wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 1);
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    let mut second = configure(launch(scene, openclaw)).start();
    assert_eq!(second.wait_event("gateway.adopted").process(), gateway);
    scene.diary().wait_requests(gateway.pid, 5);
    (second, gateway)
}

#[test]
fn a_planned_restart_after_an_adoption_costs_nothing_either() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    let (mut supervisor, gateway) = adopt(&scene, &openclaw, |launch| launch.option("--max-restarts", "0"));
    gateway.signal(Signal::SIGUSR2);
    let exited = supervisor.wait_event("gateway.exited");
    assert_eq!((exited.number("pid"), exited.value()["code"].is_null()), (gateway.pid.into(), true), "{exited:?}");
    let next = supervisor.wait_started();
    assert_eq!(supervisor.last("restart.scheduled").number("delay_ms"), 0, "{}", supervisor.story());
    assert_eq!(supervisor.wait_event("handoff.accepted").number("generation"), 1);
    assert_eq!(spent(&scene), 0);
    let ledger = Ledger::of(&scene);
    ledger.wait_number("SELECT count(*) FROM generations WHERE number = 1 AND cause = 'asked' AND clean = 1", 1);
    restart(&mut supervisor, next);
    assert_eq!(supervisor.wait_event("handoff.accepted").number("generation"), 2);
    assert_eq!(spent(&scene), 0);
}

#[test]
fn a_crash_after_an_adoption_is_a_failure_once_the_command_line_has_said_so() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    let (mut supervisor, gateway) = adopt(&scene, &openclaw, |launch| launch);
    gateway.kill();
    supervisor.wait_started();
    assert_eq!(supervisor.wait_event("handoff.missing").number("generation"), 1);
    assert_eq!(spent(&scene), 1);
    let ledger = Ledger::of(&scene);
    assert_eq!(
        ledger.number("SELECT count(*) FROM generations WHERE number = 1 AND cause = 'failed' AND clean = 0"),
        1
    );
}

/// A supervisor whose budget of one restart a crash has spent, and its gateway. Handoff verdicts are waited for.
fn spend(scene: &Scene, openclaw: &Openclaw) -> (Supervisor, Process) {
    openclaw.answer("consume", "while [ ! -e \"$root/go\" ]; do sleep 0.05; done");
    let mut supervisor = launch(scene, openclaw).option("--max-restarts", "1").start();
    let first = supervisor.wait_started();
    first.kill();
    let second = follow_death(&mut supervisor, first);
    (supervisor, second)
}

#[test]
fn a_spent_budget_waits_for_the_handoff_verdict() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    let (mut supervisor, second) = spend(&scene, &openclaw);
    let third = restart(&mut supervisor, second);
    openclaw.wait_calls("consume", 1);
    third.signal(Signal::SIGUSR2);
    supervisor.wait_event("gateway.exited");
    let waits =
        || (Said::by(&scene, &["status", "--json"]).json()["supervisor"]["state"] == "awaiting_word").then_some(());
    wait_for("a supervisor that waits for a word", PATIENCE, || supervisor.story(), waits);
    std::fs::write(scene.root().join("go"), "").expect("the folder can be written");
    assert_eq!(supervisor.wait_event("handoff.accepted").number("generation"), 2);
    supervisor.wait_started();
    // The second row has taken the place of the first one: that one of the two is accepted is enough to go on.
    assert_eq!((spent(&scene), supervisor.count("restart.gave_up")), (1.into(), 0), "{}", supervisor.story());
}

#[test]
fn a_spent_budget_ends_in_69_when_the_word_is_no() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    let (mut supervisor, second) = spend(&scene, &openclaw);
    let third = leave(&scene, &mut supervisor, second);
    openclaw.wait_calls("consume", 1);
    scene.diary().command(third.pid, "exit=0");
    assert_eq!(supervisor.wait_event("gateway.exited").number("pid"), i64::from(third.pid));
    std::fs::write(scene.root().join("go"), "").expect("the folder can be written");
    supervisor.expect_exit(69);
    assert_eq!((supervisor.count("handoff.missing"), scene.diary().starts().len()), (2, 3), "{}", supervisor.story());
}

#[test]
fn a_gateway_below_a_launcher_is_queried_by_its_own_pid() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw();
    // As npx does: what was started waits for the gateway, and is not it.
    let script = std::fs::read_to_string(openclaw.program()).expect("it is there");
    let script = script.replace("exec \"$gateway\" \"$@\"", "\"$gateway\" \"$@\"\nexit $?");
    std::fs::write(openclaw.program(), script).expect("it is ours");
    let mut supervisor = launch(&scene, &openclaw).option("--max-restarts", "0").start();
    let launcher = supervisor.wait_started();
    let gateway = scene.diary().starts().last().expect("it was started").process;
    assert_ne!(launcher, gateway);
    gateway.signal(Signal::SIGUSR2);
    let exited = supervisor.wait_event("gateway.exited");
    assert_eq!((exited.number("pid"), exited.number("code")), (launcher.pid.into(), 0));
    supervisor.wait_started();
    assert_eq!(supervisor.wait_event("handoff.accepted").number("generation"), 1);
    let call = openclaw.wait_calls("consume", 1).remove(0);
    assert!(call.words.contains(&format!("--expected-pid {} ", gateway.pid)), "{call:?}");
    assert_eq!(spent(&scene), 0);
}
