//! What a person reads in each state, on a fixed clock, and that `--json` has what docs/status.schema.json says.

use super::past::{RecordedPast, WallTime};
use super::sentence::sentence;
use super::shown::{
    Elsewhere, FoundShown, Health, Last, LastGateway, LastSupervisor, ProbeShown, Shown, StandbyShown, UnitShown,
    Urgency, View,
};
use super::text::as_text;
use crate::commands::record::Entry;
use crate::commands::terminal::Terminal;
use crate::host::control::{
    GatewayReply, LeaseReply, NextReply, PausedReply, RestartsReply, StatusReply, SupervisorReply,
};
use jiff::Timestamp;
use serde_json::{Value, json};

#[path = "../../../tests/support/schema.rs"]
mod schema;
mod unanswered;

use unanswered::unanswered_states;

/// 10:36 in the zone of the tests.
const NOW: &str = "2026-11-30T09:36:00.000Z";

fn terminal(width: usize, has_colour: bool) -> Terminal {
    Terminal::fixed(Some(width), has_colour, "CET-1", NOW)
}

fn now() -> i64 {
    NOW.parse::<Timestamp>().unwrap().as_millisecond()
}

fn stamp(seconds: i64) -> String {
    crate::host::clock::stamp_of(now() + seconds * 1000)
}

/// Of events so many seconds ago.
fn past(rows: &[(i64, &str, Value)]) -> RecordedPast {
    let entry = |(ago, name, fields): &(i64, &str, Value)| Entry {
        id: 0,
        at_ms: now() - ago * 1000,
        name: (*name).to_owned(),
        level: None,
        message: None,
        fields: fields.as_object().unwrap().clone(),
    };
    RecordedPast::of(&rows.iter().map(entry).collect::<Vec<_>>())
}

fn exited(ago: i64, generation: u64, cause: &str, more: &Value) -> (i64, &'static str, Value) {
    let mut fields = json!({"generation": generation, "pid": 4250, "cause": cause, "uptime_ms": 95_000});
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    (ago, "gateway.exited", fields)
}

fn started(ago: i64, generation: u64) -> (i64, &'static str, Value) {
    (ago, "gateway.started", json!({"generation": generation, "pid": 4250}))
}

fn hung() -> [(i64, &'static str, Value); 4] {
    let evidence = "/home/bot/.openclaw/supervise/incidents/2026-11-30T06-14-02.000Z.json";
    let hung = json!({
        "generation": 2, "last_good_ms": 60_400, "failed_probes": 5, "why": "no probe succeeded for 60s",
        "evidence": evidence, "conclusion": "stopped by a signal (SIGSTOP)"
    });
    [
        started(90_000, 2),
        (12_120, "gateway.hung", hung),
        exited(12_118, 2, "hung", &json!({"signal": 9})),
        started(12_000, 3),
    ]
}

fn next(action: &str, seconds: i64, why: &str) -> NextReply {
    NextReply {
        action: Some(action.to_owned()),
        at: Some(stamp(seconds)),
        in_ms: u64::try_from(seconds * 1000).ok(),
        why: Some(why.to_owned()),
        ..NextReply::default()
    }
}

fn gateway(healthy: bool) -> GatewayReply {
    GatewayReply {
        pid: Some(4250),
        generation: 3,
        age_ms: Some(12_005_000),
        up_ms: Some(12_000_000),
        healthy: Some(healthy),
        adopted: Some(false),
        rss_kb: Some(700_000),
        tree_rss_kb: Some(900_000),
        loop_cpu_ms: Some(30_000),
        ..GatewayReply::default()
    }
}

fn probe(verdict: &'static str, detail: &str) -> ProbeShown {
    let is_up = verdict == "gateway";
    ProbeShown {
        verdict,
        detail: detail.to_owned(),
        ready: is_up.then_some(true),
        ready_detail: is_up.then(|| "ready".to_owned()),
        pid: is_up.then_some(4250),
        command: is_up.then(|| "openclaw-gateway".to_owned()),
        user: is_up.then(|| "bot".to_owned()),
    }
}

fn free() -> ProbeShown {
    probe("free", "connection refused")
}

/// A supervisor that answers: its gateway is up.
fn up() -> Shown {
    let reply = StatusReply {
        supervisor: SupervisorReply {
            pid: Some(4242),
            host: Some("web-1".to_owned()),
            version: Some("0.1.0".to_owned()),
            state: "running".to_owned(),
            since: Some(stamp(-100_000)),
            manager: Some("systemd".to_owned()),
            config: "/home/bot/.openclaw/openclaw.json".to_owned(),
            store_dir: "/home/bot/.openclaw/supervise".to_owned(),
            url: "ws://127.0.0.1:18789".to_owned(),
            port: 18789,
            stop_timeout_ms: Some(328_000),
            ..SupervisorReply::default()
        },
        ..StatusReply::default()
    };
    Shown {
        at: WallTime(now()),
        sentence: String::new(),
        severity: Urgency::Error,
        supervisor: reply.supervisor,
        gateway: Some(gateway(true)),
        lease: LeaseReply { held: Some(true), epoch: Some(7), owner_pid: Some(4242) },
        probe: Some(probe("gateway", "GET /startupz answered 200 started")),
        failing: Vec::new(),
        generation: Some(3),
        restarts: RestartsReply {
            in_window: Some(1),
            max: Some(6),
            window_ms: Some(3_600_000),
            free_in_ms: Some(900_000),
            for_memory: Some(0),
            ..RestartsReply::default()
        },
        next: next("probe the gateway", 15, "it is healthy"),
        paused: None,
        answered_by: "supervisor",
        trouble: None,
        elsewhere: None,
        standbys: Vec::new(),
        last: Last { past: past(&hung()), ..Last::default() },
        unit: Some(UnitShown {
            name: "openclaw-supervise.service".to_owned(),
            manager: "user manager".to_owned(),
            load: Some("loaded".to_owned()),
            active: Some("active".to_owned()),
            sub: Some("running".to_owned()),
            result: Some("success".to_owned()),
            file: Some("enabled".to_owned()),
        }),
        found: Vec::new(),
        store_user: Some("bot".to_owned()),
        health: Health::Healthy,
        view: View::Full,
        is_stopped: false,
        lacks_service: false,
        options: String::new(),
    }
}

fn in_state(state: &str, next: NextReply, rows: &[(i64, &str, Value)]) -> Shown {
    let mut shown = up();
    state.clone_into(&mut shown.supervisor.state);
    (shown.gateway, shown.health, shown.probe) = (None, Health::NotRunning, Some(free()));
    (shown.next, shown.last.past) = (next, past(rows));
    shown
}

/// Nothing answers.
fn unanswered(state: &str, rows: &[(i64, &str, Value)]) -> Shown {
    let mut shown = in_state(state, NextReply::default(), rows);
    let SupervisorReply { config, store_dir, url, port, .. } = shown.supervisor;
    let state = state.to_owned();
    shown.supervisor = SupervisorReply { state, config, store_dir, url, port, ..SupervisorReply::default() };
    (shown.restarts, shown.answered_by, shown.unit) = (RestartsReply::default(), "store", None);
    shown.lease = LeaseReply { held: Some(false), epoch: Some(7), owner_pid: None };
    let end = Some("it released its lease".to_owned());
    let host = Some("web-1".to_owned());
    let last =
        LastSupervisor { pid: Some(4242), host, since: Some(stamp(-9000)), end, ended_at_ms: Some(now() - 720_000) };
    let of_gateway = LastGateway {
        pid: Some(4250),
        generation: 3,
        end: Some("with exit code 78".to_owned()),
        ended_at: Some(stamp(-720)),
        ended_at_ms: Some(now() - 720_000),
    };
    (shown.last.supervisor, shown.last.gateway) = (Some(last), Some(of_gateway));
    shown
}

fn stopped(exit_code: u8, reason: &str) -> (i64, &'static str, Value) {
    (720, "supervisor.stopped", json!({"exit_code": exit_code, "reason": reason}))
}

/// The request to replace the gateway.
fn requested() -> (i64, &'static str, Value) {
    (5, "restart.requested", json!({"by": "control socket: restart from pid 99 (bash)", "by_uid": 0}))
}

fn with(mut shown: Shown, change: impl FnOnce(&mut Shown)) -> Shown {
    change(&mut shown);
    shown
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn answered_states() -> Vec<(&'static str, Shown)> {
    let crash = exited(200, 3, "crashed", &json!({"code": 1}));
    let backoff = || next("start a gateway", 90, "failure 2 in a row, restart 2 of 6 within 1h");
    let conflict =
        json!({"kind": "foreign", "holder_pid": 812, "holder_command": "nginx -g daemon off;", "holder_uid": 0});
    vec![
        ("up", up()),
        (
            "up after a requested restart",
            with(up(), |shown| {
                let restarted = [
                    started(900, 2),
                    requested(),
                    exited(4, 2, "restart requested", &json!({"code": 0})),
                    started(2, 3),
                ];
                shown.last.past = past(&restarted);
                shown.gateway.as_mut().unwrap().up_ms = Some(2000);
            }),
        ),
        ("up for the first time", with(up(), |shown| shown.last = Last::default())),
        (
            "up, and a channel is not connected",
            with(up(), |shown| {
                let probe = shown.probe.as_mut().unwrap();
                (probe.ready, probe.ready_detail) =
                    (Some(false), Some("not ready: channel:telegram, event-loop".to_owned()));
                shown.failing = probe.failing();
                let mut rows = hung().to_vec();
                rows.push((700, "readiness.changed", json!({"generation": 3, "ready": false, "detail": "x"})));
                shown.last.past = past(&rows);
            }),
        ),
        (
            "up, and a restart is merged",
            with(up(), |shown| {
                shown.restarts.waiting_ms = Some(130_000);
                shown.next =
                    next("restart the gateway", 130, "it was asked for, and the gateway is to become stable first");
            }),
        ),
        (
            "degraded",
            with(up(), |shown| {
                let condition = "is alive and not healthy: GET /healthz answered 500";
                let gateway = shown.gateway.as_mut().unwrap();
                (gateway.healthy, gateway.condition) = (Some(false), Some(condition.to_owned()));
                (shown.health, shown.probe) = (Health::Unhealthy, Some(probe("foreign", "GET /healthz answered 500")));
                shown.next = next("probe the gateway", 15, &format!("it {condition}"));
            }),
        ),
        (
            "kept without its store",
            with(up(), |shown| {
                let condition = "is kept on an unconfirmed lease: disk I/O error";
                shown.gateway.as_mut().unwrap().condition = Some(condition.to_owned());
                shown.next = next("probe the gateway", 15, &format!("it {condition}"));
            }),
        ),
        (
            "hung",
            with(up(), |shown| {
                shown.gateway.as_mut().unwrap().healthy = Some(false);
                (shown.health, shown.probe) =
                    (Health::Unhealthy, Some(probe("silent", "GET /healthz: no answer within 5s")));
                let mut rows = hung().to_vec();
                rows.push((20, "liveness.missed", json!({"generation": 3, "detail": "x"})));
                shown.last.past = past(&rows);
                shown.next = next("replace the gateway unless it answers", 40, "its last probes failed");
            }),
        ),
        (
            "examined",
            with(up(), |shown| {
                "examining".clone_into(&mut shown.supervisor.state);
                shown.health = Health::Unhealthy;
                shown.next = next("replace the gateway", 4, "it hangs; collecting evidence");
            }),
        ),
        (
            "starting",
            with(up(), |shown| {
                "starting".clone_into(&mut shown.supervisor.state);
                let gateway = shown.gateway.as_mut().unwrap();
                (gateway.age_ms, gateway.up_ms, gateway.healthy) = (Some(12_000), None, Some(false));
                (shown.health, shown.probe) = (Health::Unhealthy, Some(free()));
                shown.next = next("replace the gateway if it has not started", 168, "it is starting");
            }),
        ),
        (
            "draining",
            with(up(), |shown| {
                "stopping".clone_into(&mut shown.supervisor.state);
                shown.health = Health::Unhealthy;
                shown.supervisor.ends_within_ms = Some(343_000);
                shown.supervisor.output = Some("/home/bot/.openclaw/supervise/output.log".to_owned());
                shown.supervisor.strays = vec!["77 sleep 600 (run-7.scope)".to_owned()];
                let mut rows = hung().to_vec();
                rows.push(requested());
                shown.last.past = past(&rows);
                shown.next = NextReply {
                    of_ms: Some(328_000),
                    then: Some("gateway 4".to_owned()),
                    ..next("kill what is left of the gateway", 323, "it drains: a restart was requested")
                };
            }),
        ),
        (
            "paused",
            with(up(), |shown| {
                shown.next = next("resume the supervision", 1200, "supervision is paused: gdb");
                shown.paused = Some(PausedReply {
                    until: Some(stamp(1200)),
                    in_ms: Some(1_200_000),
                    reason: "gdb".to_owned(),
                    by: "control socket: pause from pid 7 (openclaw-supervise pause)".to_owned(),
                });
                shown.restarts.waiting_ms = Some(126_000);
            }),
        ),
        (
            "killing what is left",
            in_state("stopping", next("kill what is left of the gateway", 9, "it is being stopped"), &[]),
        ),
        ("backing off", in_state("backing_off", backoff(), &[started(900, 3), crash.clone()])),
        (
            "awaiting the verdict on an exit",
            in_state(
                "awaiting_word",
                next("decide what the last exit meant", 40, "the restart budget is spent"),
                &[started(900, 3), exited(20, 3, "exited with code 0 without a request", &json!({"code": 0}))],
            ),
        ),
        (
            "port held by another",
            in_state(
                "probing",
                next("start a gateway", 2, "as soon as the port is free"),
                &[crash, (190, "conflict.detected", conflict)],
            ),
        ),
        (
            "another supervisor looked for",
            in_state("leasing", next("take the lease", 5, "looking for another supervisor"), &[]),
        ),
        (
            "standing by",
            with(
                in_state("standby", next("take over", 15, "another supervisor holds the lease (pid 77)"), &[]),
                |shown| {
                    shown.lease = LeaseReply { held: Some(true), epoch: None, owner_pid: Some(77) };
                    shown.health = Health::Healthy;
                    shown.probe = up().probe;
                    shown.standbys = vec![StandbyShown {
                        pid: Some(4242),
                        host: Some("web-1".to_owned()),
                        state: "standby".to_owned(),
                        since: Some(stamp(-100_000)),
                        manager: Some("systemd".to_owned()),
                        owner_pid: Some(77),
                        why: Some("another supervisor holds the lease (pid 77)".to_owned()),
                    }];
                },
            ),
        ),
    ]
}

fn several() -> Shown {
    let found = |user: &str, health, text: Option<&str>| FoundShown {
        name: format!("openclaw-supervise.service of user {user}"),
        manager: Some(format!("user manager of {user}")),
        user: Some(user.to_owned()),
        pid: Some(4242),
        store_dir: text.map(|_| format!("/home/{user}/.openclaw/supervise")),
        sentence: text.map(str::to_owned),
        health,
    };
    with(unanswered("none", &[]), |shown| {
        (shown.last, shown.answered_by, shown.severity) = (Last::default(), super::observe::NEITHER, Urgency::Warning);
        shown.health = Health::Unknown;
        shown.found = vec![found("bob", Health::Healthy, Some("up for 3 h")), found("eve", Health::Unknown, None)];
        shown.sentence = super::elsewhere::several("/root/.openclaw/supervise", &shown.found, 2);
    })
}

fn states() -> Vec<(&'static str, Shown)> {
    answered_states().into_iter().chain(unanswered_states()).chain([("several accounts", several())]).collect()
}

fn drawn(width: usize, has_colour: bool) -> String {
    let terminal = terminal(width, has_colour);
    let draw = |(name, mut shown): (&str, Shown)| {
        if shown.sentence.is_empty() {
            (shown.severity, shown.sentence) = sentence(&shown, &terminal);
        }
        format!("=== {name}\n{}\n", as_text(&shown, &terminal))
    };
    let text: String = states().into_iter().map(draw).collect();
    text.replace('\x1b', "^")
}

#[test]
fn each_state_reads_well_at_each_width_with_and_without_colour() {
    for width in [60, 80, 200] {
        for has_colour in [false, true] {
            let text = drawn(width, has_colour);
            let colour = if has_colour { "colour" } else { "plain" };
            insta::assert_snapshot!(format!("{width}_{colour}"), text);
            assert!(has_colour || text.lines().all(|line| line.chars().count() <= width));
        }
    }
}

#[test]
fn after_69_and_78_the_sentence_names_the_cause_and_what_to_do() {
    for (name, shown) in
        unanswered_states().into_iter().filter(|(name, _)| ["refused", "conflict", "gave up"].contains(name))
    {
        let (severity, sentence) = sentence(&shown, &terminal(200, false));
        assert_eq!(severity, Urgency::Error, "{name}");
        assert!(!sentence.contains("lease") && sentence.starts_with("down since 10:2"), "{sentence}");
        assert!(sentence.contains("then `openclaw-supervise start-now`"), "{sentence}");
    }
}

#[test]
fn the_limit_of_the_heap_has_a_row_where_it_is_known() {
    let mut shown = up();
    let row = |shown: &Shown| {
        as_text(shown, &terminal(80, false)).lines().find(|line| line.starts_with("heap")).map(str::to_owned)
    };
    assert_eq!(row(&shown), None, "an earlier version does not tell");
    (shown.supervisor.heap_mib, shown.supervisor.heap_source) = (Some(8192), Some("--max-heap".to_owned()));
    assert!(row(&shown).is_some_and(|row| row.ends_with("up to 8192 MiB (--max-heap)")), "{:?}", row(&shown));
}

#[test]
fn the_schema_documents_every_member_of_every_state_and_no_other() {
    let terminal = Terminal::utc();
    let values: Vec<Value> = states()
        .into_iter()
        .map(|(_, mut shown)| {
            (shown.supervisor.heap_mib, shown.supervisor.heap_source) = (Some(8192), Some("--max-heap".to_owned()));
            (shown.severity, shown.sentence) = sentence(&shown, &terminal);
            serde_json::to_value(&shown).unwrap()
        })
        .collect();
    for value in &values {
        assert_eq!(schema::violations(value), Vec::<String>::new(), "{value:#}");
    }
    assert_eq!(schema::unseen(&values), Vec::<String>::new());
}

#[test]
fn times_in_json_are_rfc_3339_in_utc() {
    let (_, refused) = unanswered_states().remove(0);
    assert!(sentence(&refused, &Terminal::utc()).1.starts_with("down since 2026-11-30T09:23:59.000Z, "), "{refused:?}");
}

#[test]
fn an_answer_is_as_old_as_the_probe_took() {
    let mut shown = in_state("backing_off", next("start a gateway", 90, "failure 2 in a row"), &[]);
    (shown.gateway, shown.restarts.free_in_ms) = (Some(gateway(true)), Some(2_000));
    super::observe::age(&mut shown, std::time::Duration::from_secs(5));
    assert_eq!((shown.next.in_ms, shown.restarts.free_in_ms), (Some(85_000), Some(0)));
    let gateway = shown.gateway.unwrap();
    assert_eq!((gateway.age_ms, gateway.up_ms), (Some(12_010_000), Some(12_005_000)));
}

#[test]
fn a_step_that_is_due_is_not_told_as_one_of_the_past() {
    let mut shown = in_state("backing_off", next("start a gateway", 0, "failure 2 in a row"), &[]);
    shown.next.at = Some(stamp(-3));
    let (_, said) = sentence(&shown, &terminal(200, false));
    assert!(said.contains("the next start is at 10:35:57 (just now)"), "{said}");
}

#[test]
fn the_same_death_again_and_again_is_told_once() {
    let why = "gave up: 3 gateways in a row died from SIGSEGV within 30s, so another would as well; see the gateway's output \
               above; run 'openclaw doctor', or repair the installation, then start again";
    let crash = exited(721, 3, "crashed", &json!({"signal": 11}));
    let stopped = (720, "supervisor.stopped", json!({"exit_code": 69, "reason": why}));
    let (_, said) = sentence(&unanswered("none", &[crash, stopped]), &terminal(200, false));
    let expected =
        "gave up (exit 69): 3 gateways in a row died from SIGSEGV within 30s, so another would as well; last: ";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn supervisors_that_cannot_be_looked_into_are_for_another_account() {
    let mut found = several().found;
    assert!(super::elsewhere::several("/x", &found, 2).ends_with(": name one with --store-dir"));
    found.remove(0);
    assert!(super::elsewhere::several("/x", &found, 1).ends_with("try `sudo openclaw-supervise status`"));
}

#[test]
fn in_a_wait_the_command_that_is_named_starts_a_gateway() {
    let crash = exited(200, 3, "crashed", &json!({"code": 1}));
    let waiting =
        |why: &str| in_state("backing_off", next("start a gateway", 90, why), &[started(900, 3), crash.clone()]);
    let said = |shown: &Shown| sentence(shown, &terminal(200, false)).1;
    let plain = said(&waiting("failure 2 in a row"));
    assert!(plain.ends_with("fixed it? `openclaw-supervise start-now`"), "{plain}");
    let breaker =
        said(&waiting("failure 3 in a row; more than 2 unclean boots within 5m would switch its channels off"));
    assert!(breaker.ends_with("fixed it? `openclaw-supervise start-now --force`"), "{breaker}");
    let paused = with(waiting("supervision is paused: gdb; failure 2 in a row"), |shown| {
        shown.paused = Some(PausedReply { reason: "gdb".to_owned(), ..PausedReply::default() });
        shown.options = " --profile bot".to_owned();
    });
    let paused = said(&paused);
    assert!(!paused.contains("start-now"), "a start is refused while it is paused: {paused}");
    assert!(paused.ends_with("`openclaw-supervise resume --profile bot` ends the pause"), "{paused}");
}
