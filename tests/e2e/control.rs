//! The control commands: what they print, and their exit codes.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

#[path = "../support/schema.rs"]
#[expect(dead_code, reason = "the values of all states are together in a unit test")]
mod schema;
mod sentences;
use crate::support;

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;
use support::supervisor::{Event, Said, Supervisor, Verb};
use support::{PATIENCE, Scene, port, wait_for};

fn status(scene: &Scene, code: i32) -> Value {
    let told = Said::by(scene, &["status", "--json"]).expect(code).json();
    assert_eq!(schema::violations(&told), Vec::<String>::new(), "{told:#}");
    told
}

/// Asserts that everything in `expected` stands in `value`, which may have more.
fn assert_holds(value: &Value, expected: &Value) {
    fn holds(value: &Value, expected: &Value) -> bool {
        match expected {
            Value::Object(members) => members.iter().all(|(key, part)| value.get(key).is_some_and(|v| holds(v, part))),
            part => value == part,
        }
    }
    assert!(holds(value, expected), "expected {expected:#}\nin {value:#}");
}

/// Every key of `example`, however deep, is there in `value`.
fn assert_keys(value: &Value, example: &Value, place: &str) {
    let Value::Object(members) = example else { return };
    for (key, part) in members {
        let found = value.get(key);
        assert!(found.is_some(), "{place}.{key} is missing in {value:#}");
        assert_keys(found.unwrap(), part, &format!("{place}.{key}"));
    }
}

/// The request, and the client that made it.
fn assert_asked_by(event: &Event, word: &str, client: i32) {
    let by = event.text("by");
    for part in [format!("control socket: {word}"), format!("pid {client}"), format!("openclaw-supervise {word}")] {
        assert!(by.contains(&part), "{part:?} is missing in {by:?}");
    }
}

fn end(supervisor: &mut Supervisor) {
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

#[test]
fn status_of_a_running_supervisor_has_every_key_of_the_contract_with_the_right_value() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--probe-interval", "5s").option("--hang-after", "60s").start();
    let gateway = supervisor.wait_started();
    let told = status(&scene, 0);
    let example = include_str!("../../docs/CONTROL.md").split("```json").nth(1).unwrap().split("```").next().unwrap();
    assert_keys(&told, &serde_json::from_str(example).unwrap(), "status");
    let epoch = supervisor.last("lease.acquired").number("epoch");
    assert_holds(
        &told,
        &json!({
            "supervisor": {
                "pid": supervisor.pid(), "version": env!("CARGO_PKG_VERSION"), "state": "running",
                "config": scene.state_dir().join("openclaw.json"), "store_dir": scene.store_dir(),
                "url": scene.url(), "port": scene.port(),
            },
            "gateway": {"pid": gateway.pid, "generation": 1, "healthy": true, "adopted": false},
            "lease": {"held": true, "epoch": epoch, "owner_pid": supervisor.pid()},
            "probe": {"verdict": "gateway", "ready": true, "pid": gateway.pid},
            "generation": 1,
            "restarts": {"in_window": 0, "max": 6, "window_ms": 3_600_000, "for_memory": 0},
            "next": {"action": "probe the gateway", "why": "it is healthy"},
            "health": "healthy",
            "answered_by": "supervisor",
            "trouble": null,
            "last": {"supervisor": null, "gateway": null},
        }),
    );
    let (age, up) = (told["gateway"]["age_ms"].as_u64().unwrap(), told["gateway"]["up_ms"].as_u64().unwrap());
    assert!(up <= age && age < 20_000, "{told:#}");
    let (now, at): (jiff::Timestamp, jiff::Timestamp) =
        (jiff::Timestamp::now(), told["next"]["at"].as_str().unwrap().parse().unwrap());
    let ahead = at.duration_since(now).as_millis();
    let within = told["next"]["in_ms"].as_u64().unwrap();
    assert!(within <= 5000 && (-1000..=5000).contains(&ahead), "{ahead} ms ahead of {told:#}");
    let said = Said::by(&scene, &["status"]).expect(0);
    said.assert_says(&[
        &format!("pid {}", supervisor.pid()),
        &format!("1: pid {}", gateway.pid),
        &format!("epoch {epoch}"),
        "ready",
        "0 of 6 in the last 1h",
        "gateway at ",
    ]);
    // A busy machine may fail a probe, and then the next step is shown.
    let rows = if said.out.contains("\nnext ") { 10 } else { 9 };
    assert_eq!(said.out.lines().count(), rows, "{said}");
    assert!(said.out.starts_with("up for "), "{said}");
    assert!(said.err.is_empty(), "{said}");
    end(&mut supervisor);
}

#[test]
fn a_gateway_that_boots_or_warms_up_is_not_healthy_yet() {
    let scene = Scene::new("boot=1500ms warm=1500ms");
    let mut supervisor = scene.start();
    supervisor.wait_event("gateway.spawned");
    let booting = json!({
        "supervisor": {"state": "starting"}, "health": "unhealthy",
        "gateway": {"healthy": false, "up_ms": null},
        "next": {"action": "replace the gateway if it has not started", "why": "it is starting"},
    });
    let told = status(&scene, 4);
    assert_holds(&told, &booting);
    assert_holds(&told, &json!({"probe": {"verdict": "free", "ready": null}}));
    assert!(told["next"]["in_ms"].as_u64().is_some_and(|ms| (10_000..=20_000).contains(&ms)), "{told:#}");
    supervisor.wait_event("gateway.listening");
    let told = status(&scene, 4);
    assert_holds(&told, &booting);
    assert_holds(&told, &json!({"probe": {"verdict": "gateway"}}));
    supervisor.wait_started();
    status(&scene, 0);
}

#[test]
fn in_backoff_nothing_runs_and_retry_now_does_not_wait() {
    let scene = Scene::new("exit=1@20ms; exit=1@20ms; exit=1@20ms; exit=1@20ms; healthy");
    let mut supervisor = scene.launch().option("--backoff-max", "60s").start();
    let scheduled = supervisor.wait_event_with("restart.scheduled", |event| event.number("delay_ms") >= 4000);
    // The store writes the end after it was reported.
    let recorded = |told: &Value| told["last"]["gateway"]["end"].is_string();
    let told = wait_for(
        "the record of the end",
        PATIENCE,
        || status(&scene, 3).to_string(),
        || Some(status(&scene, 3)).filter(recorded),
    );
    assert_holds(
        &told,
        &json!({
            "supervisor": {"state": "backing_off", "pid": supervisor.pid()},
            "health": "not_running", "gateway": null, "generation": 4, "answered_by": "supervisor",
            "restarts": {"in_window": 4, "max": 6},
            "last": {"supervisor": null, "gateway": {"generation": 4, "end": "with exit code 1"}},
            "next": {"action": "start a gateway", "why": scheduled.text("why")},
        }),
    );
    let within = told["next"]["in_ms"].as_i64().unwrap();
    assert!(within > 0 && within <= scheduled.number("delay_ms"), "{told:#}");
    assert!(told["next"]["at"].is_string(), "{told:#}");
    Said::by(&scene, &["status"]).expect(3).assert_says(&[
        "backing off",
        "gateway 4 (pid",
        "ended with exit code 1 at",
        "start a gateway in",
    ]);
    let client = Verb::start(&scene, &["retry-now"]);
    let pid = client.pid();
    let said = client.end().expect(0);
    said.assert_says(&["gateway 5 was started, pid"]);
    assert_asked_by(&supervisor.wait_event("retry.requested"), "retry-now", pid);
    let spawned = supervisor.wait_event("gateway.spawned");
    assert_eq!(spawned.number("generation"), 5);
    let waited = spawned.seen.duration_since(scheduled.seen);
    assert!(waited.as_millis() < u128::from(scheduled.number("delay_ms").unsigned_abs()), "{}", supervisor.story());
    supervisor.wait_started();
    Said::by(&scene, &["retry-now"]).expect(0).assert_says(&["nothing was waiting", "running"]);
    end(&mut supervisor);
}

#[test]
fn retry_now_does_not_lift_the_limit_of_unclean_boots_and_says_so() {
    let scene = Scene::new("exit=1@20ms");
    let mut supervisor = scene.launch().option("--boot-limit", "1").option("--boot-window", "60s").start();
    supervisor.wait_event_with("restart.scheduled", |event| event.number("delay_ms") > 30_000);
    let status_says =
        || Said::by(&scene, &["status"]).expect(3).assert_says(&["`openclaw-supervise start-now --force`"]);
    status_says();
    let said = Said::by(&scene, &["retry-now"]).expect(1);
    said.assert_says(&["now: openclaw-supervise retry-now --force"]);
    status_says();
    said.assert_says(&["not yet", "the next attempt is in 5", "all channels disabled"]);
    let told = status(&scene, 3);
    assert_holds(&told, &json!({"supervisor": {"state": "backing_off"}, "generation": 2}));
    assert!(told["next"]["why"].as_str().unwrap().contains("--boot-limit"), "{told:#}");
    end(&mut supervisor);
}

#[test]
fn without_a_supervisor_status_uses_the_store_and_a_probe() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    supervisor.signal(Signal::SIGSTOP);
    let said = Said::by(&scene, &["status", "--json"]).expect(0);
    assert!(said.took < Duration::from_secs(6), "{said}");
    assert_holds(
        &said.json(),
        &json!({
            "supervisor": {"pid": supervisor.pid(), "state": "silent"}, "answered_by": "store", "health": "healthy",
            "gateway": {"pid": gateway.pid, "generation": 1}, "lease": {"held": true, "owner_pid": supervisor.pid()},
            "probe": {"verdict": "gateway", "pid": gateway.pid},
        }),
    );
    let words = format!("silent (pid {})", supervisor.pid());
    let said = Said::by(&scene, &["status"]).expect(0);
    said.assert_says(&[&words, "is it stopped or frozen?", "only the supervisor knows"]);
    assert!(!said.out.contains("no supervisor"), "there is one\n{said}");
    for verb in ["restart", "stop", "retry-now"] {
        Said::by(&scene, &[verb]).expect(1).assert_says(&["does not answer", "stopped or frozen"]);
    }
    supervisor.signal(Signal::SIGCONT);
    // The request was answered with a failure meanwhile: it must not be executed later.
    scene.diary().wait_requests(gateway.pid, 3);
    assert!(gateway.is_alive() && scene.diary().starts().len() == 1, "{}", supervisor.story());
    status(&scene, 0);
}

#[test]
fn after_a_stop_status_shows_the_last_run_from_the_store() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    end(&mut supervisor);
    let told = status(&scene, 3);
    assert_holds(
        &told,
        &json!({
            "supervisor": {"pid": null, "state": "none"}, "gateway": null, "health": "not_running",
            "lease": {"held": false, "owner_pid": null}, "answered_by": "store", "trouble": null,
            "last": {
                "supervisor": {"pid": supervisor.pid()},
                "gateway": {"pid": gateway.pid, "generation": 1, "end": "with exit code 0"},
            },
        }),
    );
    let end = told["last"]["supervisor"]["end"].as_str().unwrap();
    assert!(end.starts_with("stopped"), "{told:#}");
    let last = format!("not running: {end}, ");
    let pid = format!(" (pid {} on ", supervisor.pid());
    let said = Said::by(&scene, &["status"]).expect(3);
    assert!(said.out.starts_with("stopped since "), "{said}");
    said.assert_says(&[&last, &pid, "gateway 1", "ended with exit code 0", &scene.url()]);
}

#[test]
fn the_gateway_of_a_killed_supervisor_is_still_reported_healthy() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
    let told = status(&scene, 0);
    assert_holds(
        &told,
        &json!({
            "supervisor": {"pid": null, "state": "none"}, "health": "healthy", "answered_by": "store",
            "gateway": {"pid": gateway.pid, "generation": 1}, "lease": {"held": false},
            "probe": {"verdict": "gateway", "pid": gateway.pid},
            "last": {"supervisor": {"pid": supervisor.pid()}},
        }),
    );
    Said::by(&scene, &["status"]).expect(0).assert_says(&[
        "not running: ",
        &format!("(pid {} on ", supervisor.pid()),
        "1: pid",
        &scene.url(),
    ]);
    for verb in ["restart", "stop", "retry-now"] {
        Said::by(&scene, &[verb]).expect(3).assert_says(&["is not running for"]);
    }
    assert!(gateway.is_alive() && scene.diary().signals(gateway.pid).is_empty());
}

#[test]
fn without_any_record_status_reports_nothing_and_creates_nothing() {
    let scene = Scene::new("healthy");
    let port = scene.port().to_string();
    let said = Said::by(&scene, &["status", "--port", &port]).expect(3);
    said.assert_says(&["supervisor  not running", "gateway     not running", "nothing will start it"]);
    assert_holds(
        &Said::by(&scene, &["status", "--port", &port, "--json"]).expect(3).json(),
        &json!({"answered_by": "nobody", "last": {"supervisor": null, "gateway": null}, "supervisor": {"state": "none"}}),
    );
    for verb in ["restart", "stop", "retry-now"] {
        let said = Said::by(&scene, &[verb]).expect(3);
        said.assert_says(&[
            "is not running for",
            &scene.store_dir().display().to_string(),
            "no service for it is found",
        ]);
        assert!(said.out.lines().count() == 1 && !said.out.contains("start-now"), "{said}");
    }
    let said = Said::by(&scene, &["events"]).expect(0);
    assert!(said.out.is_empty() && said.err.starts_with("openclaw-supervise: warning: nothing is recorded"), "{said}");
    let said = Said::by(&scene, &["explain"]).expect(1);
    assert!(said.err.starts_with("openclaw-supervise: error: nothing is recorded"), "{said}");
    assert!(!scene.store_dir().exists(), "who only looks makes nothing");
    let mut stranger = scene.stranger("healthy");
    let said = Said::by(&scene, &["status", "--port", &port]).expect(0);
    said.assert_says(&["not running", &format!("pid {}", stranger.pid())]);
    stranger.end();
}

#[test]
fn a_store_of_a_later_version_is_named_in_one_line() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    supervisor.wait_started();
    end(&mut supervisor);
    let path = scene.store_dir().join("supervise.sqlite");
    let database = rusqlite::Connection::open(&path).unwrap();
    database.pragma_update(None, "user_version", 99).unwrap();
    drop(database);
    let port = scene.port().to_string();
    let said = Said::by(&scene, &["status", "--port", &port]).expect(3);
    said.assert_says(&["not running", "schema version 99", "install that version or a later one"]);
    assert_eq!(said.out.lines().count(), 9, "{said}");
    let told = Said::by(&scene, &["status", "--port", &port, "--json"]).expect(3).json();
    assert!(told["trouble"].as_str().is_some_and(|trouble| trouble.contains("schema version 99")), "{told:#}");
    let said = Said::by(&scene, &["events"]).expect(1);
    assert!(said.err.contains("schema version 99") && said.err.lines().count() == 1, "{said}");
    Said::by(&scene, &["stop"]).expect(3);
}

#[test]
fn status_probes_the_port_of_the_gateways_command() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().without("--port").start();
    supervisor.wait_started();
    let told = status(&scene, 0);
    assert_holds(&told, &json!({"supervisor": {"port": scene.port()}, "probe": {"verdict": "gateway"}}));
    end(&mut supervisor);
    Said::by(&scene, &["status"]).expect(3).assert_says(&[&scene.url()]);
}

#[test]
fn a_restart_brings_another_gateway_and_spends_nothing() {
    let scene = Scene::new("drain=200ms boot=200ms");
    let mut supervisor = scene.start();
    let first = supervisor.wait_started();
    let client = Verb::start(&scene, &["restart"]);
    let pid = client.pid();
    let said = client.end().expect(0);
    assert!(!first.is_alive());
    assert_asked_by(&supervisor.wait_event("restart.requested"), "restart", pid);
    let second = supervisor.wait_started();
    said.assert_says(&[&format!("gateway 2 (pid {}) is up after", second.pid)]);
    assert_holds(&status(&scene, 0), &json!({"generation": 2, "restarts": {"in_window": 0}}));
    assert_eq!(supervisor.last("gateway.exited").text("cause"), "restart requested");
    end(&mut supervisor);
}

#[test]
fn two_restarts_at_once_are_one() {
    let scene = Scene::new("drain=2s");
    let mut supervisor = scene.start();
    supervisor.wait_started();
    let clients = [1, 2].map(|_| Verb::start(&scene, &["restart"]));
    let said = clients.map(|client| client.end().expect(0));
    for one in &said {
        one.assert_says(&["gateway 2 "]);
    }
    assert_eq!(scene.diary().starts().len(), 2, "{}", supervisor.story());
    assert_eq!(supervisor.count("restart.requested"), 1, "{}", supervisor.story());
    supervisor.signal(Signal::SIGQUIT);
    supervisor.expect_exit(0);
}

#[test]
fn a_restart_continues_after_its_client_timed_out() {
    let scene = Scene::new("drain=4s; healthy");
    let mut supervisor = scene.start();
    let first = supervisor.wait_started();
    let said = Said::by(&scene, &["restart", "--timeout", "300ms"]).expect(1);
    said.assert_says(&["the restart has not finished within 300ms", "it continues", "status"]);
    assert!(said.took < Duration::from_millis(3500), "{said}");
    assert_ne!(supervisor.wait_started(), first);
    end(&mut supervisor);
}

#[test]
fn a_restart_after_which_nothing_starts_any_more_failed() {
    let scene = Scene::new("healthy; boot=60s exit=3@20ms");
    let mut supervisor = scene.launch().option("--max-restarts", "0").start();
    supervisor.wait_started();
    let said = Said::by(&scene, &["restart"]).expect(1);
    said.assert_says(&["the supervisor gave up", "exit code 3"]);
    supervisor.expect_exit(69);
}

#[test]
fn a_stop_ends_gateway_and_supervisor_before_it_returns() {
    let scene = Scene::new("drain=300ms kid=setsid");
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    let client = Verb::start(&scene, &["stop"]);
    let pid = client.pid();
    let said = client.end().expect(0);
    assert!(!gateway.is_alive());
    assert_eq!(scene.processes(), [], "{said}");
    said.assert_says(&["the supervisor exited"]);
    supervisor.expect_exit(0);
    assert_asked_by(&supervisor.wait_event("stop.requested"), "stop", pid);
    assert_eq!(supervisor.last("gateway.exited").text("cause"), "stop requested");
    assert!(supervisor.last("supervisor.stopped").text("reason").contains("control socket: stop"));
    Said::by(&scene, &["stop"]).expect(3);
}

#[test]
fn the_recorded_history_equals_the_logs_of_all_supervisors() {
    let scene = Scene::new("exit=1@50ms; healthy");
    let mut first = scene.start();
    first.wait_event_with("gateway.started", |event| event.number("generation") == 2);
    end(&mut first);
    let mut second = scene.start();
    second.wait_started();
    end(&mut second);
    let logged: Vec<_> = [&first, &second].into_iter().flat_map(Supervisor::events).collect();
    let logged: Vec<_> =
        logged.iter().filter(|event| event.name() != "log").map(|event| event.value().clone()).collect();
    let recorded = Said::by(&scene, &["events", "--json", "-n", "1000"]).expect(0).objects();
    assert_eq!(names(&recorded), names(&logged), "oldest first, and all of them");
    for (recorded, logged) in recorded.iter().zip(&logged) {
        assert_eq!(recorded, logged);
    }
    let last = Said::by(&scene, &["events", "--json", "-n", "3"]).expect(0).objects();
    assert_eq!(last[..], logged[logged.len() - 3..]);
    let text = Said::by(&scene, &["events", "-n", "1000"]).expect(0);
    assert_eq!(text.out.lines().count(), logged.len());
    for (line, recorded) in text.out.lines().zip(&recorded) {
        let [name, level, message] = ["event", "level", "message"].map(|name| recorded[name].as_str().unwrap());
        assert!(line.contains(name) && line.contains(&level.to_uppercase()) && line.ends_with(message), "{line}");
    }
    assert!(Said::by(&scene, &["events", "-n", "0"]).expect(0).out.is_empty());
    let numbers = recorded.iter().filter(|event| event["event"] == "gateway.spawned").map(|event| &event["generation"]);
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 2, 3]);
}

fn names(events: &[Value]) -> Vec<&str> {
    events.iter().filter_map(|event| event["event"].as_str()).collect()
}

#[test]
fn events_follow_shows_new_events_of_every_supervisor_until_interrupted() {
    let scene = Scene::new("healthy");
    let follower = Verb::start(&scene, &["events", "--json", "--follow", "-n", "0"]);
    let mut first = scene.start();
    first.wait_started();
    let started = |pid: i32| {
        move |line: &str| {
            serde_json::from_str::<Value>(line)
                .is_ok_and(|event| event["event"] == "supervisor.started" && event["pid"] == pid)
        }
    };
    follower.wait_line("the first supervisor", started(first.pid()));
    Said::by(&scene, &["restart"]).expect(0);
    follower.wait_line("the restart", |line| line.contains("restart.requested"));
    end(&mut first);
    follower.wait_line("the end", |line| line.contains("supervisor.stopped"));
    let mut second = scene.start();
    second.wait_started();
    follower.wait_line("the second supervisor", started(second.pid()));
    follower.wait_line("its gateway", |line| line.contains("gateway.started") && line.contains("\"generation\":3"));
    let late = Verb::start(&scene, &["events", "--follow", "-n", "2"]);
    wait_for("two lines", PATIENCE, String::new, || (late.lines().len() >= 2).then_some(()));
    end(&mut second);
    for verb in [follower, late] {
        verb.wait_line("the last end", |line| line.contains("supervisor.stopped") && line.contains("SIGTERM"));
        verb.signal(Signal::SIGINT);
        let said = verb.end();
        assert!(said.err.is_empty() && matches!(said.code, None | Some(0 | 130)), "{said}");
        assert!(!said.out.lines().any(|line| said.out.matches(line).count() > 1 && line.contains("started")), "{said}");
    }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())).permissions().mode() & 0o7777
}

#[test]
fn store_and_socket_are_for_this_user_alone_and_the_socket_goes_with_its_supervisor() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    supervisor.wait_started();
    let (store, socket) = (scene.store_dir(), scene.store_dir().join("control.sock"));
    assert_eq!(mode(&store), 0o700);
    assert_eq!(mode(&socket), 0o600);
    for entry in fs::read_dir(&store).unwrap().flatten() {
        assert_eq!(mode(&entry.path()) & 0o077, 0, "{}", entry.path().display());
    }
    assert_eq!(mode(&store.join("supervise.sqlite")), 0o600);
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait_exit();
    // The socket of a killed supervisor is replaced.
    assert!(socket.exists());
    let mut second = scene.start();
    second.wait_event("gateway.adopted");
    status(&scene, 0);
    end(&mut second);
    assert!(!socket.exists());
    assert!(port::is_free(scene.port()));
}
