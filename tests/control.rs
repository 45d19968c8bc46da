//! The control socket and the verbs that use it, in front of a stand-in for the loop: what clients may do, what they
//! are told, and what a person reads.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may panic")]

#[path = "control/office.rs"]
mod office;
#[path = "control/records.rs"]
mod records;
#[path = "support/root.rs"]
mod root;
#[path = "support/schema.rs"]
#[expect(dead_code, reason = "the values of all states are together in a unit test")]
mod schema;

use office::{Desk, PATIENCE, PortState, Script, Stage, Verb};
use openclaw_supervise::core::Request;
use openclaw_supervise::host::control::{BoundSocket, CLIENTS_MAX, Connection, ConnectionError, Control, NAME};
use root::needs_root;
use serde_json::{Value, json};
use std::fs;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixListener;
use std::time::Duration;
use tokio::time::{Instant, timeout};

#[tokio::test]
async fn the_answer_to_status_has_every_key_of_the_contract() {
    let stage = Stage::new("keys");
    let desk = Desk::open(&stage, Script::default());
    let (connection, status) = Connection::ask(stage.store(), "status").await.unwrap();
    assert_eq!(connection.pid(), Some(std::process::id().cast_signed()));
    let told = include_str!("../docs/CONTROL.md").split("```json").nth(1).unwrap().split("```").next().unwrap();
    let told: Value = serde_json::from_str(told).unwrap();
    assert_eq!(office::shape(&status), office::shape(&told), "{status:#}");
    assert_eq!(status["supervisor"]["state"], "running");
    assert_eq!(status["gateway"]["generation"], 3);
    assert_eq!(status["lease"], json!({"held": true, "epoch": 7, "owner_pid": std::process::id()}));
    assert_eq!(
        status["restarts"],
        json!({"in_window": 1, "max": 6, "window_ms": 3_600_000, "free_in_ms": 900_000, "for_memory": 2, "waiting_ms": null})
    );
    assert_eq!(
        (&status["probe"]["ready"], &status["probe"]["ready_detail"]),
        (&json!(false), &json!("not ready: telegram"))
    );
    let used = ["rss_kb", "tree_rss_kb", "loop_cpu_ms"].map(|key| status["gateway"][key].as_u64());
    assert_eq!(used, [Some(700_000), Some(900_000), Some(30_000)]);
    assert_eq!(status["next"]["in_ms"], 1500);
    assert!(status["next"]["at"].as_str().unwrap().parse::<jiff::Timestamp>().is_ok());
    desk.close();
}

#[tokio::test]
async fn what_is_not_known_is_null_and_not_left_out() {
    let stage = Stage::new("nulls");
    let desk = Desk::open(&stage, Script { status: office::bare, ..Script::default() });
    let (_, status) = Connection::ask(stage.store(), "status").await.unwrap();
    assert_eq!(status["gateway"], Value::Null);
    for (object, key) in [("lease", "epoch"), ("lease", "owner_pid"), ("probe", "verdict"), ("next", "at")] {
        assert_eq!(status[object].get(key), Some(&Value::Null), "{object}.{key} of {status:#}");
    }
    desk.close();
}

#[tokio::test]
async fn a_request_reaches_the_loop_with_the_name_of_who_asked_and_its_reports_come_back() {
    let stage = Stage::new("request");
    for (word, request) in [("restart", Request::Restart), ("stop", Request::Stop), ("retry-now", Request::Retry)] {
        let mut desk = Desk::open(&stage, Script::telling(&[r#"{"event":"x","n":1}"#, r#"{"event":"y"}"#]));
        let (mut connection, answer) = Connection::ask(stage.store(), word).await.unwrap();
        assert_eq!(answer, json!({"accepted": true}));
        let (asked, by) = timeout(PATIENCE, desk.heard()).await.unwrap();
        assert_eq!(asked, request);
        assert_eq!(by.how, format!("control socket: {word}"));
        assert_eq!(by.pid, Some(std::process::id().cast_signed()));
        assert_eq!(by.uid, Some(nix::unistd::getuid().as_raw()));
        assert!(by.command.unwrap().contains("control"));
        assert_eq!(connection.next().await.unwrap(), Some(json!({"event": "x", "n": 1})));
        assert_eq!(connection.next().await.unwrap(), Some(json!({"event": "y"})));
        desk.close();
    }
}

#[tokio::test]
async fn a_client_that_is_part_of_what_ends_is_answered_at_once_and_hears_nothing_more() {
    let stage = Stage::new("inside");
    let told = Script::telling(&[r#"{"event":"x"}"#]);
    let is_us = |pid| pid == std::process::id().cast_signed();
    let mut desk = Desk::open(&stage, Script { is_inside: is_us, ..told });
    for (word, request) in [("restart", Request::Restart), ("stop", Request::Stop), ("retry-now", Request::Retry)] {
        let (mut connection, answer) = Connection::ask(stage.store(), word).await.unwrap();
        assert_eq!(answer, json!({"accepted": true, "inside": true}));
        assert_eq!(timeout(PATIENCE, connection.next()).await.unwrap().unwrap(), None);
        let (asked, by) = timeout(PATIENCE, desk.heard()).await.unwrap();
        assert_eq!((asked, by.pid), (request, Some(std::process::id().cast_signed())));
    }
    // It may watch and ask: that ends nothing.
    assert_eq!(Connection::ask(stage.store(), "watch").await.unwrap().1, json!({"accepted": true}));
    desk.close();
    let desk = Desk::open(&stage, Script { is_inside: |_| true, ..Script::default() });
    for word in ["restart", "stop"] {
        let shown = Verb::new(&stage, &[word]).run().await;
        assert_eq!(shown.code, 0, "{shown:?}");
        assert!(shown.out.contains("accepted; you are part of what ends"), "{shown:?}");
    }
    desk.close();
}

#[tokio::test]
async fn a_watcher_hears_the_last_report_and_then_the_end() {
    let stage = Stage::new("watch");
    let desk = Desk::open(&stage, Script::default());
    let (mut connection, answer) = Connection::ask(stage.store(), "watch").await.unwrap();
    assert_eq!(answer, json!({"accepted": true}));
    assert!(desk.broadcast.is_heard());
    desk.broadcast.tell(r#"{"event":"supervisor.stopped"}"#);
    let reads = async {
        assert_eq!(connection.next().await.unwrap().unwrap()["event"], "supervisor.stopped");
        assert_eq!(connection.next().await.unwrap(), None);
        drop(connection);
    };
    timeout(PATIENCE, async { tokio::join!(desk.broadcast.finish(), reads) }).await.unwrap();
    desk.close();
}

#[tokio::test]
async fn without_clients_there_is_nothing_to_send_and_nothing_to_wait_for() {
    let stage = Stage::new("silence");
    let desk = Desk::open(&stage, Script::default());
    assert!(!desk.broadcast.is_heard());
    desk.broadcast.tell("{}");
    let start = Instant::now();
    desk.broadcast.finish().await;
    assert!(start.elapsed() < Duration::from_millis(250));
    desk.close();
}

#[tokio::test]
async fn a_client_that_never_reads_delays_no_other_and_is_disconnected() {
    let stage = Stage::new("deaf");
    let desk = Desk::open(&stage, Script::default());
    let deaf = stage.say(b"{\"ask\":\"watch\"}\n");
    office::until(|| desk.broadcast.is_heard()).await;
    let (mut listener, _) = Connection::ask(stage.store(), "watch").await.unwrap();
    let long = format!(r#"{{"event":"long","text":"{}"}}"#, "x".repeat(60_000));
    let start = Instant::now();
    for _ in 0..20 {
        desk.broadcast.tell(&long);
        assert_eq!(listener.next().await.unwrap().unwrap()["event"], "long");
    }
    // Five seconds are what one line may take.
    assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    drop(listener);
    office::until(|| !desk.broadcast.is_heard()).await;
    drop(deaf);
    desk.close();
}

#[tokio::test]
async fn a_client_that_falls_behind_is_told_so_and_let_go() {
    let stage = Stage::new("behind");
    let desk = Desk::open(&stage, Script::default());
    let (mut connection, _) = Connection::ask(stage.store(), "watch").await.unwrap();
    // Nothing is written in between: this task does not wait.
    for number in 0..100 {
        desk.broadcast.tell(&format!(r#"{{"event":"x","n":{number}}}"#));
    }
    let end = loop {
        match timeout(PATIENCE, connection.next()).await.unwrap() {
            Ok(Some(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(&end, Err(ConnectionError::Refused(why)) if why.contains("too slowly")), "{end:?}");
    desk.close();
}

#[tokio::test]
async fn watching_clients_keep_no_other_from_asking_and_the_oldest_idle_one_gives_way() {
    let stage = Stage::new("crowd");
    let mut desk = Desk::open(&stage, Script::default());
    let (waiting, _) = Connection::ask(stage.store(), "retry-now").await.unwrap();
    let mut crowd = Vec::new();
    for _ in 1..CLIENTS_MAX {
        crowd.push(Connection::ask(stage.store(), "watch").await.unwrap().0);
    }
    for _ in 0..3 * CLIENTS_MAX {
        Connection::ask(stage.store(), "status").await.unwrap();
    }
    let mut waiting = vec![waiting];
    for (word, request) in [("restart", Request::Restart), ("stop", Request::Stop)] {
        let (connection, answer) = Connection::ask(stage.store(), word).await.unwrap();
        waiting.push(connection);
        assert_eq!(answer, json!({"accepted": true}));
        desk.heard_of(request).await;
        let oldest = timeout(PATIENCE, crowd.remove(0).next()).await.unwrap();
        assert!(
            matches!(&oldest, Err(ConnectionError::Refused(why)) if why.contains("too many clients")),
            "{oldest:?}"
        );
    }
    desk.broadcast.tell("{}");
    // One that waits for an outcome stays, and so do the younger ones.
    for connection in crowd.iter_mut().chain(&mut waiting) {
        assert_eq!(timeout(PATIENCE, connection.next()).await.unwrap().unwrap(), Some(json!({})));
    }
    desk.close();
}

#[tokio::test]
async fn clients_that_say_nothing_keep_no_other_from_asking() {
    let stage = Stage::new("mutes");
    let desk = Desk::open(&stage, Script::default());
    let mutes: Vec<_> = (0..2 * CLIENTS_MAX).map(|_| stage.say(b"")).collect();
    Connection::ask(stage.store(), "status").await.unwrap();
    drop(mutes);
    desk.close();
}

#[tokio::test]
async fn what_is_no_request_is_answered_with_what_one_is() {
    let stage = Stage::new("garbage");
    let desk = Desk::open(&stage, Script::default());
    let long = [b' '; 5000];
    for (bytes, why) in [
        (&b"{\"ask\":\"dance\"}\n"[..], "one of status, metrics, notify-test, watch, restart, stop, retry-now"),
        (b"{}\n", "one of status"),
        (b"[1]\n", "one of status"),
        (b"\"status\"\n", "one of status"),
        (b"{\"ask\":7}\n", "one of status"),
        (b"status\n", "not JSON"),
        (b"\n", "not JSON"),
        (b"\xff\xfe\n", "not JSON"),
        (&long, "one line of at most 4096 bytes"),
    ] {
        let answer = office::answer(stage.say(bytes)).await;
        let answer: Value = serde_json::from_str(&answer).unwrap();
        assert!(answer["error"].as_str().unwrap().contains(why), "{:?}: {answer}", String::from_utf8_lossy(bytes));
    }
    // A client that changes its mind is no reason to say anything.
    assert_eq!(office::answer(stage.say_and_close(b"{\"ask\":")).await, "");
    assert!(Connection::ask(stage.store(), "status").await.is_ok());
    desk.close();
}

#[tokio::test]
async fn a_client_that_says_nothing_is_let_go_after_five_seconds() {
    let stage = Stage::new("mute");
    let desk = Desk::open(&stage, Script::default());
    let start = Instant::now();
    let answer = office::answer(stage.say(b"{\"ask\":\"status\"}")).await;
    assert!(answer.contains("no line came within 5s"), "{answer}");
    assert!(start.elapsed() >= Duration::from_secs(5));
    desk.close();
}

#[tokio::test]
async fn another_user_is_turned_away() {
    needs_root("another user");
    let stage = Stage::new("stranger");
    let mut desk = Desk::open(&stage, Script::default());
    stage.open_to_all();
    let shown = Verb::new(&stage, &["stop", "--timeout", "5s"]).user(65_534).run().await;
    assert_eq!(shown.code, 1, "{shown:?}");
    assert!(shown.out.contains("uid 65534 may not ask here"), "{shown:?}");
    assert!(desk.heard_so_far().is_none());
    fs::set_permissions(stage.store().join(NAME), fs::Permissions::from_mode(0o600)).unwrap();
    let shown = Verb::new(&stage, &["stop", "--timeout", "5s"]).user(65_534).run().await;
    assert!(shown.out.contains("belongs to another user"), "{shown:?}");
    let shown = Verb::new(&stage, &["status"]).user(65_534).run().await;
    assert_eq!((shown.code, shown.row("gateway")), (4, "unknown"), "nothing of it can be seen: {shown:?}");
    desk.close();
}

#[tokio::test]
async fn the_file_is_for_us_alone_replaces_a_dead_ones_and_goes_with_us() {
    let stage = Stage::new("file");
    let path = stage.store().join(NAME);
    drop(UnixListener::bind(&path).unwrap());
    assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket(), "a dead one is left");
    let control = Control::on(BoundSocket::of_owner(stage.store()).unwrap()).unwrap();
    assert_eq!(fs::symlink_metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // A successor that came before we had tidied up keeps its own.
    let successor = Control::on(BoundSocket::of_owner(stage.store()).unwrap()).unwrap();
    drop(control);
    assert!(path.exists());
    drop(successor);
    assert!(!path.exists());
    fs::write(&path, "mine").unwrap();
    let without_file = BoundSocket::of_owner(stage.store()).and_then(Control::on);
    assert_eq!(without_file.is_ok(), cfg!(target_os = "linux"), "{without_file:?}");
    assert!(BoundSocket::of_owner(stage.store()).unwrap_err().to_string().contains("no socket"), "its name is taken");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}

#[tokio::test]
async fn a_path_may_be_longer_than_a_sockets_address_where_the_kernel_has_a_way_around_that() {
    for length in [90, 100, 101, 102, 103, 104, 107, 108, 109, 110, 300, 1000] {
        let stage = Stage::new("far").deep(length);
        if cfg!(target_os = "macos") && stage.store().join(NAME).as_os_str().len() > 103 {
            let refused = BoundSocket::of_owner(stage.store()).unwrap_err().to_string();
            assert!(refused.contains("name a shorter --store-dir"), "{length}: {refused}");
            continue;
        }
        let desk = Desk::open(&stage, Script::default());
        assert!(stage.store().join(NAME).exists());
        let asked = Connection::ask(stage.store(), "status").await;
        assert!(asked.is_ok(), "{length}: {asked:?}");
        desk.close();
    }
}

#[tokio::test]
async fn without_a_listener_no_supervisor_is_found() {
    let stage = Stage::new("absent");
    let absent = |asked: Result<_, ConnectionError>| matches!(asked.map(drop), Err(ConnectionError::Absent));
    assert!(absent(Connection::ask(stage.store(), "status").await));
    drop(UnixListener::bind(stage.store().join(NAME)).unwrap());
    assert!(absent(Connection::ask(stage.store(), "status").await));
    assert!(absent(Connection::ask(&stage.store().join("nowhere"), "status").await));
}

#[tokio::test]
async fn a_supervisor_that_does_not_answer_is_named() {
    let stage = Stage::new("frozen");
    let _frozen = UnixListener::bind(stage.store().join(NAME)).unwrap();
    let shown = Verb::new(&stage, &["status"]).run().await;
    assert_eq!(shown.code, 3, "{shown:?}");
    let me = std::process::id();
    assert!(shown.row("supervisor").contains(&format!("silent (pid {me}): the supervisor (pid {me}) does not answer")));
    let shown = Verb::new(&stage, &["status", "--json"]).run().await;
    let status = shown.json();
    assert_eq!((&status["supervisor"]["state"], &status["supervisor"]["pid"]), (&json!("silent"), &json!(me)));
    let shown = Verb::new(&stage, &["restart"]).run().await;
    assert_eq!(shown.code, 1, "{shown:?}");
    assert!(shown.out.contains("does not answer"), "{shown:?}");
}

#[tokio::test]
async fn status_tells_the_truth_of_now_and_its_exit_code_says_how_the_gateway_is() {
    for (port_state, running, code, health) in [
        (PortState::Healthy, true, 0, "healthy"),
        (PortState::Healthy, false, 0, "healthy"),
        (PortState::Starting, true, 4, "unhealthy"),
        (PortState::Foreign, true, 4, "unhealthy"),
        (PortState::Foreign, false, 3, "not_running"),
        (PortState::Free, true, 4, "unhealthy"),
        (PortState::Free, false, 3, "not_running"),
    ] {
        let stage = Stage::new("truth");
        let gateway = stage.gateway(port_state);
        let status = if running { office::full } else { office::bare };
        let desk = Desk::open(&stage, Script { status, ..Script::default() });
        let shown = Verb::new(&stage, &["status", "--json"]).run().await;
        assert_eq!(shown.code, code, "{port_state:?}, {running}: {shown:?}");
        assert_eq!(shown.json()["health"], health, "{port_state:?}, {running}");
        assert_eq!(shown.json()["answered_by"], "supervisor");
        assert_eq!(schema::violations(&shown.json()), Vec::<String>::new());
        let text = Verb::new(&stage, &["status"]).run().await;
        // There is nothing to say of what comes next while all is well.
        let is_well = running && health == "healthy";
        let has_next = text.out.contains("\nnext ");
        assert_eq!((text.code, has_next), (code, !is_well), "{port_state:?}, {running}: {text:?}");
        drop(gateway);
        desk.close();
    }
}

#[tokio::test]
async fn the_text_of_status_says_who_what_and_what_next() {
    let stage = Stage::new("text");
    let gateway = stage.gateway(PortState::Healthy);
    let desk = Desk::open(&stage, Script::default());
    let shown = Verb::new(&stage, &["status"]).run().await;
    let me = std::process::id();
    assert!(shown.row("supervisor").starts_with(&format!("running: pid {me}, version ")), "{shown:?}");
    assert!(shown.row("supervisor").contains("run by systemd, since 2026-01-0"), "{shown:?}");
    assert_eq!(
        shown.row("gateway"),
        "3: pid 4250, 1m40s old, up for 1m30s, healthy, 684 MiB resident, 879 MiB with its children, 30s of CPU"
    );
    assert_eq!(shown.row("lease"), format!("held by pid {me}, epoch 7"));
    assert!(shown.row("probe").starts_with(&format!("gateway at ws://127.0.0.1:{}: ", stage.port())), "{shown:?}");
    assert!(shown.row("probe").contains("; not ready: "), "{shown:?}");
    assert!(shown.row("restarts").starts_with("1 of 6 in the last 1h; 5 left, one more at "), "{shown:?}");
    assert!(shown.row("restarts").ends_with("; 2 for --memory-max"), "{shown:?}");
    assert!(!shown.out.contains("\nnext "), "not while it is healthy: {shown:?}");
    drop(gateway);
    desk.close();
}

#[tokio::test]
async fn without_a_supervisor_the_verbs_say_so() {
    let stage = Stage::new("none");
    let shown = Verb::new(&stage, &["status"]).run().await;
    assert_eq!(shown.code, 3, "{shown:?}");
    assert_eq!(shown.row("supervisor"), "not running");
    let shown = Verb::new(&stage, &["status", "--json"]).run().await;
    let status = shown.json();
    assert_eq!((&status["supervisor"]["state"], &status["gateway"]), (&json!("none"), &Value::Null));
    let gateway = stage.gateway(PortState::Healthy);
    assert_eq!(Verb::new(&stage, &["status"]).run().await.code, 0, "a bare gateway is healthy too");
    drop(gateway);
    for verb in ["restart", "stop", "retry-now"] {
        let shown = Verb::new(&stage, &[verb]).run().await;
        assert_eq!(shown.code, 3, "{shown:?}");
        assert!(shown.out.starts_with("openclaw-supervise is not running for "), "{shown:?}");
        assert_eq!(shown.out.lines().count(), 1, "{shown:?}");
    }
    let shown = Verb::new(&stage, &["events"]).run().await;
    assert_eq!((shown.code, shown.out.as_str()), (0, ""));
    assert!(shown.err.contains("nothing is recorded in "), "{shown:?}");
}

#[tokio::test]
async fn a_broken_config_is_no_reason_to_say_nothing() {
    let stage = Stage::new("config");
    fs::write(stage.root().join("openclaw.json"), "{gateway: {").unwrap();
    let desk = Desk::open(&stage, Script::default());
    let shown = Verb::new(&stage, &["status"]).run().await;
    assert!(shown.row("supervisor").starts_with("running"), "{shown:?}");
    assert!(shown.err.contains("is not JSON5"), "{shown:?}");
    desk.close();
}

#[tokio::test]
async fn a_request_waits_for_its_outcome_and_the_exit_code_tells_it() {
    let started = r#"{"event":"gateway.started","generation":4,"pid":77,"boot_ms":2100}"#;
    let same = r#"{"event":"gateway.started","generation":3,"pid":77,"boot_ms":2100}"#;
    let stopped = r#"{"event":"supervisor.stopped","exit_code":0,"reason":"stopped as asked"}"#;
    let gave_up = r#"{"event":"restart.gave_up","restarts":6,"window_ms":1,"why":"six restarts"}"#;
    let failed = r#"{"event":"supervisor.stopped","exit_code":78,"reason":"a conflict"}"#;
    let conflict = r#"{"event":"conflict.detected","kind":"silent","holder_pid":9,"holder_command":"nc -l"}"#;
    let spawned = r#"{"event":"gateway.spawned","generation":4,"pid":77,"attempt":2}"#;
    for (verb, told, code, line) in [
        ("restart", vec![same, started], 0, "gateway 4 (pid 77) is up after 2.1s"),
        ("restart", vec![gave_up], 1, "the supervisor gave up: six restarts"),
        ("restart", vec![failed], 1, "the supervisor exited with code 78: a conflict"),
        ("restart", vec![conflict], 1, "the port is in use (silent) by pid 9 (nc -l); stop that process"),
        ("restart", vec![same], 1, "the restart has not finished within 1s"),
        ("stop", vec![failed], 1, "the supervisor exited with code 78: a conflict"),
        ("stop", vec![started], 1, "the stop has not finished within 1s"),
        ("retry-now", vec![spawned], 0, "gateway 4 was started, pid 77"),
        ("retry-now", vec![conflict], 1, "the port is in use (silent) by pid 9 (nc -l); stop that process"),
    ] {
        let stage = Stage::new("outcome");
        let status = if verb == "retry-now" { office::bare } else { office::full };
        let desk = Desk::open(&stage, Script { status, ..Script::telling(&told) });
        let shown = Verb::new(&stage, &[verb, "--timeout", "1s"]).run().await;
        assert_eq!(shown.code, code, "{verb} {told:?}: {shown:?}");
        assert!(shown.out.lines().next_back().unwrap().starts_with(line), "{verb} {told:?}: {shown:?}");
        desk.close();
    }
    // The supervisor here is this very process, which stays, and that it goes is waited for too.
    let stage = Stage::new("outcome");
    let desk = Desk::open(&stage, Script::telling(&[stopped]));
    let shown = Verb::new(&stage, &["stop", "--timeout", "1s"]).run().await;
    assert_eq!(shown.code, 1, "{shown:?}");
    desk.close();
}

#[tokio::test]
async fn a_stop_is_over_when_the_process_is() {
    let stage = Stage::new("stop");
    let mut supervisor = office::Other::start(&stage).await;
    let shown = Verb::new(&stage, &["stop", "--timeout", "20s"]).run().await;
    assert_eq!(shown.code, 0, "{shown:?}");
    assert!(supervisor.is_over(), "{shown:?}");
    let mut lines = shown.out.lines();
    assert!(lines.next().unwrap().starts_with("systemd may restart it; to keep it down: systemctl "), "{shown:?}");
    assert_eq!(lines.next(), Some("the supervisor exited: as asked"));
    assert!(!stage.store().join(NAME).exists());
}

/// Nothing but a supervisor of its own process, when a test has started it.
#[tokio::test]
async fn as_another_process() {
    office::Other::be().await;
}

#[tokio::test]
async fn where_nothing_waits_there_is_nothing_to_hasten() {
    let stage = Stage::new("idle");
    let mut desk = Desk::open(&stage, Script::default());
    let shown = Verb::new(&stage, &["retry-now"]).run().await;
    assert_eq!((shown.code, shown.out.trim_end()), (0, "nothing was waiting: the supervisor is running"));
    assert!(desk.heard_so_far().is_none());
    desk.close();
}

#[tokio::test]
async fn a_supervisor_that_goes_away_without_a_word_is_no_success() {
    let stage = Stage::new("gone");
    let desk = Desk::open(&stage, Script::leaving());
    let shown = Verb::new(&stage, &["restart", "--timeout", "20s"]).run().await;
    assert_eq!(shown.code, 1, "{shown:?}");
    assert!(shown.out.starts_with("the supervisor exited during the restart"), "{shown:?}");
    desk.close();
}

#[test]
fn follow_waits_for_a_store_that_is_not_there_and_ends_with_its_reader() {
    let stage = Stage::new("follow");
    let mut follow = Verb::new(&stage, &["events", "--follow"]).spawn();
    // It has said nothing and lives: it looks twice a second.
    office::let_pass(Duration::from_millis(700));
    assert!(follow.try_wait().unwrap().is_none());
    nix::sys::signal::kill(office::pid_of(&follow), nix::sys::signal::Signal::SIGINT).unwrap();
    let end = follow.wait_with_output().unwrap();
    assert_eq!((end.stdout.len(), String::from_utf8_lossy(&end.stderr).as_ref()), (0, ""));
}
