//! Notifications: one message when an incident begins and one when it ends, and nothing that keeps the supervisor waiting.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "a test measures by the clock, with a bound")]

use crate::support;

use serde_json::Value;
use std::fs;
use std::time::{Duration, Instant};
use support::supervisor::{Said, Supervisor};
use support::webhook::{Reply, WebhookServer};
use support::{PATIENCE, Scene, wait_for};

/// The path of each webhook here. It is a secret.
const SECRET: &str = "/services/T0S3CR3T/xoxb-very-secret";

/// Three failures, then a gateway that stays.
const THREE_CRASHES: &str = "exit=3@20ms;exit=3@20ms;exit=3@20ms;healthy";

fn events(server: &WebhookServer) -> Vec<String> {
    let name = |message: &Value| format!("{} {}", message["event"], message["incident"]).replace('"', "");
    server.requests().iter().map(|request| name(&request.json())).collect()
}

fn said(supervisor: &Supervisor) -> String {
    supervisor.story()
}

#[test]
fn a_crash_loop_is_two_messages_on_each_channel() {
    let scene = Scene::new(THREE_CRASHES);
    // Its first tries fail, in ways that may pass.
    let server = WebhookServer::start(&[Reply::Status(500), Reply::Close, Reply::Status(204)]);
    let supervisor = scene
        .launch()
        .option("--notify", &server.url(SECRET))
        .option("--on-event", "cat >> told; echo >> told; echo noise")
        .option("--stable-after", "300ms")
        .start();
    let notes = || {
        let text = fs::read_to_string(scene.root().join("told")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect::<Vec<Value>>()
    };
    wait_for("two messages", PATIENCE, || said(&supervisor), || (notes().len() >= 2).then_some(()));
    let requests = server.wait(4);
    assert_eq!(
        events(&server),
        [
            "incident.opened crash_loop",
            "incident.opened crash_loop",
            "incident.opened crash_loop",
            "incident.ended crash_loop"
        ],
        "the first one is tried again"
    );
    let (opened, ended) = (requests[2].json(), requests[3].json());
    assert_eq!([&opened, &ended].map(|message| message["id"].clone()), [opened["id"].clone(), opened["id"].clone()]);
    assert_eq!((&opened["severity"], &ended["outcome"]), (&Value::from("error"), &Value::from("recovered")));
    assert!(opened["what"].as_str().is_some_and(|what| what.starts_with("3 failures in ")), "{opened:#}");
    assert!(opened["next"].as_str().is_some_and(|next| next.starts_with("the next start is in ")), "{opened:#}");
    let command = format!("--store-dir {}", scene.store_dir().display());
    assert!(opened["to_do"].as_str().is_some_and(|advice| advice.contains(&command)), "{opened:#}");
    assert_eq!(notes(), [opened, ended], "the command gets the same messages");
    let log = said(&supervisor);
    assert!(!log.contains("S3CR3T") && !log.contains("xoxb"), "{log}");
    assert!(log.contains("trying again") && log.contains("takes notifications again"), "{log}");
}

#[test]
fn the_last_message_leaves_before_the_supervisor_and_is_not_repeated_by_the_next_one() {
    let scene = Scene::new("exit=78@20ms;exit=78@20ms;healthy");
    let server = WebhookServer::start(&[Reply::Status(200)]);
    let launch = || scene.launch().option("--notify", &server.url(SECRET)).option("--stable-after", "300ms");
    launch().start().expect_exit(78);
    assert_eq!(events(&server), ["incident.opened refused"]);
    launch().start().expect_exit(78);
    assert_eq!(events(&server), ["incident.opened refused"], "it is the same incident");
    let supervisor = launch().start();
    server.wait(2);
    assert_eq!(events(&server), ["incident.opened refused", "incident.ended refused"], "{}", said(&supervisor));
}

#[test]
fn a_server_that_stalls_delays_neither_a_restart_nor_the_end_for_long() {
    let scene = Scene::new("exit=3@20ms;exit=3@20ms;exit=3@20ms;healthy");
    let server = WebhookServer::start(&[Reply::Stall]);
    let mut supervisor = scene.launch().option("--notify", &server.url("/")).start();
    supervisor.wait_event_with("gateway.spawned", |event| event.number("generation") == 4);
    supervisor.wait_started();
    server.wait(1);
    let begun = Instant::now();
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    supervisor.expect_exit(0);
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(6), "{took:?}\n{}", said(&supervisor));
}

#[test]
fn a_test_message_shows_what_came_back_and_no_secret() {
    let scene = Scene::new("healthy");
    for (reply, code, shown) in [
        (Reply::Status(204), 0, "ok    http://127.0.0.1:PORT/*** (json): 204"),
        (Reply::Redirect(301), 1, "answered 301, a redirect to http://127.0.0.1:PORT/***, which is not followed"),
        (Reply::Redirect(307), 1, "answered 307, a redirect"),
        (Reply::Echo, 1, "FAIL  http://127.0.0.1:PORT/*** (json): answered 404: ***"),
        (Reply::Endless, 1, "answered 500: xxxx"),
        (Reply::Garbage, 1, "FAIL  http://127.0.0.1:PORT/*** (json): "),
        (Reply::Close, 1, "FAIL  http://127.0.0.1:PORT/*** (json): "),
    ] {
        let server = WebhookServer::start(&[reply]);
        let said = Said::by(&scene, &["notify", "--test", "--notify", &server.url(SECRET)]).expect(code);
        let port = server.url("").rsplit(':').next().unwrap_or_default().to_owned();
        said.assert_says(&[&shown.replace("PORT", &port)]);
        assert_eq!(server.requests().len(), 1, "{reply:?}: it is tried once, and not followed");
        assert_eq!(server.requests()[0].json()["event"], "test");
    }
    let server = WebhookServer::start(&[Reply::Status(200)]);
    let ntfy = ["notify", "--test", "--notify-format", "ntfy", "--notify", &server.url("/topic")];
    Said::by(&scene, &ntfy).expect(0);
    let request = server.requests().remove(0);
    assert!(request.header("title").starts_with("OpenClaw gateway on "), "{request:?}");
    assert!(request.body.starts_with("what: a test of openclaw-supervise notify"), "{request:?}");
    Said::by(&scene, &["notify", "--test", "--on-event", "cat > got; echo broken >&2; exit 7"])
        .expect(1)
        .assert_says(&["FAIL  --on-event: it ended with exit code 7: broken"]);
    assert!(fs::read_to_string(scene.root().join("got")).is_ok_and(|text| text.contains("\"event\":\"test\"")));
    Said::by(&scene, &["notify", "--test", "--on-event", "sleep 100", "--on-event-timeout", "100ms"])
        .expect(1)
        .assert_says(&["it was killed after 100ms"]);
    let none = Said::by(&scene, &["notify", "--test"]).expect(1);
    assert!(none.err.contains("no notification channel is set here"), "{none}");
    let unreadable = ["notify", "--test", "--notify", "@/nowhere/hooks"];
    Said::by(&scene, &unreadable).expect(1).assert_says(&["cannot read /nowhere/hooks"]);
    let slip = Said::by(&scene, &["notify", "--test", "--notify", &SECRET[1..]]).expect(2);
    assert!(slip.err.contains("--notify: word 1 is not a URL") && !slip.err.contains("S3CR3T"), "{slip}");
}

#[test]
fn heartbeats_are_sent_while_the_gateway_is_healthy_and_not_while_it_hangs() {
    let scene = Scene::new("freeze=@900ms");
    let server = WebhookServer::start(&[Reply::Status(200)]);
    let mut supervisor = scene
        .launch()
        .option("--heartbeat-url", &server.url("/beat"))
        .option("--heartbeat-interval", "50ms")
        .option("--hang-after", "3s")
        .start();
    supervisor.wait_started();
    server.wait(2);
    assert!(server.requests().iter().all(|request| request.method == "GET" && request.path == "/beat"));
    supervisor.wait_event("liveness.missed");
    support::let_pass(Duration::from_millis(300));
    let before = server.requests().len();
    support::let_pass(Duration::from_millis(500));
    assert_eq!(server.requests().len(), before, "{}", said(&supervisor));
}

#[test]
fn metrics_are_kept_in_a_file_printed_by_a_verb_and_down_when_no_supervisor_runs() {
    let scene = Scene::new("healthy");
    let file = scene.root().join("openclaw.prom");
    let text = || fs::read_to_string(&file).unwrap_or_default();
    let wait = |line: &str| wait_for(line, PATIENCE, text, || text().lines().any(|it| it == line).then_some(()));
    let mut supervisor = scene.launch().option("--metrics-file", &file.display().to_string()).start();
    let gateway = supervisor.wait_started();
    wait("openclaw_gateway_up 1");
    gateway.kill();
    wait("openclaw_gateway_restarts_total{cause=\"crashed\"} 1");
    supervisor.wait_event_with("gateway.started", |event| event.number("generation") == 2);
    let printed = Said::by(&scene, &["metrics"]).expect(0);
    let lines = [
        "openclaw_supervise_up 1",
        "openclaw_gateway_generation 2",
        "# TYPE openclaw_gateway_restarts counter",
        "# EOF",
    ];
    printed.assert_says(&lines);
    // A start time that differs would read as a restart.
    for name in ["openclaw_supervise_start_time_seconds ", "openclaw_gateway_start_time_seconds "] {
        let line = printed.out.lines().find(|line| line.starts_with(name)).unwrap();
        wait(line);
    }
    printed.assert_says(&[
        "openclaw_supervise_restart_budget_remaining 5",
        "openclaw_gateway_restarts_total{cause=\"crashed\"} 1",
    ]);
    Said::by(&scene, &["metrics", "--prometheus"]).expect(0).assert_says(&[
        "# TYPE openclaw_gateway_restarts_total counter",
        "openclaw_gateway_startup_duration_seconds_count 2",
    ]);
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    supervisor.expect_exit(0);
    let down = "# HELP openclaw_supervise_up Whether a supervisor runs and answers.\n# TYPE openclaw_supervise_up gauge\n\
                openclaw_supervise_up 0\n";
    assert_eq!(text(), down, "the last text of the file");
    let said = Said::by(&scene, &["metrics"]).expect(0);
    assert_eq!(said.out, format!("{down}# EOF"));
}

#[test]
fn a_metrics_file_that_cannot_be_written_is_told_once_and_hurts_nothing() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--metrics-file", "/proc/openclaw.prom").start();
    let gateway = supervisor.wait_started();
    let told = || supervisor.story().matches("cannot write the metrics to /proc/openclaw.prom").count();
    wait_for("the warning", PATIENCE, || said(&supervisor), || (told() == 1).then_some(()));
    gateway.kill();
    supervisor.wait_event_with("gateway.started", |event| event.number("generation") == 2);
    assert_eq!(supervisor.story().matches("cannot write the metrics").count(), 1);
}

#[test]
fn a_test_without_channels_of_its_own_is_sent_by_the_running_supervisor() {
    let scene = Scene::new("healthy");
    let server = WebhookServer::start(&[Reply::Status(204), Reply::Status(500)]);
    let mut supervisor = scene.launch().option("--notify", &server.url(SECRET)).start();
    supervisor.wait_started();
    Said::by(&scene, &["notify", "--test"]).expect(0).assert_says(&["ok    http://127.0.0.1:", "/*** (json): 204"]);
    Said::by(&scene, &["notify", "--test"]).expect(1).assert_says(&["answered 500: ok"]);
    assert_eq!(events(&server), ["test test", "test test"]);
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    supervisor.expect_exit(0);
    let mut bare = scene.start();
    bare.wait_started();
    let said = Said::by(&scene, &["notify", "--test"]).expect(1);
    assert!(said.err.contains("the running supervisor has no notification channel"), "{said}");
}

#[test]
fn the_failure_of_a_unit_is_told_unless_its_supervisor_has_told_it() {
    let scene = Scene::new("exit=78@20ms");
    let server = WebhookServer::start(&[Reply::Status(200)]);
    let url = server.url(SECRET);
    let words = ["notify", "--failed-unit", "openclaw-supervise.service", "--notify", &url];
    Said::by(&scene, &words).expect(0);
    assert_eq!(events(&server), ["incident.opened unit_failed"]);
    scene.launch().option("--notify", &url).start().expect_exit(78);
    Said::by(&scene, &words).expect(0).assert_says(&["has told its end itself"]);
    assert_eq!(events(&server), ["incident.opened unit_failed", "incident.opened refused"]);
}
