use super::*;
use crate::cli::DecisionSubject;
use std::fmt::Write;

const NOW: &str = "2026-11-30T03:00:00Z";
const BEGIN: i64 = 1_796_004_000_000; // 2026-11-30T02:00:00Z

/// A record: seconds since its begin, name, level, sentence, members.
fn record(rows: &[(i64, &str, &str, &str, Value)]) -> Vec<Entry> {
    let entry = |(id, (second, name, level, message, fields)): (i64, &(i64, &str, &str, &str, Value))| Entry {
        id,
        at_ms: BEGIN + second * 1000,
        name: (*name).to_owned(),
        level: Severity::named(level),
        message: (!message.is_empty()).then(|| (*message).to_owned()),
        fields: fields.as_object().cloned().unwrap_or_default(),
    };
    (1..).zip(rows).map(entry).collect()
}

fn begin() -> Vec<(i64, &'static str, &'static str, &'static str, Value)> {
    let output = "in the journal ('journalctl -u openclaw-supervise.service')";
    vec![
        (
            0,
            "supervisor.started",
            "info",
            "openclaw-supervise 0.1.0 is pid 7",
            json!({"manager": "systemd", "output": output}),
        ),
        (1, "gateway.spawned", "info", "gateway 3 is pid 42, attempt 1", json!({"generation": 3, "pid": 42})),
        (7, "gateway.started", "info", "gateway 3 is up after 6s", json!({"generation": 3, "pid": 42})),
    ]
}

fn scheduled(second: i64) -> (i64, &'static str, &'static str, &'static str, Value) {
    let members = json!({
        "delay_ms": 1500, "why": "failure 1 in a row, restart 3 of 6 within 1h", "failures": 1, "restarts": 3,
        "max_restarts": 6, "window_ms": 3_600_000, "unclean_boots": 2, "boot_limit": 2, "boot_window_ms": 300_000,
        "backoff_max_ms": 300_000
    });
    (second, "restart.scheduled", "info", "in 1.5s: failure 1 in a row, restart 3 of 6 within 1h", members)
}

fn hung() -> Vec<Entry> {
    let mut rows = begin();
    let members = json!({
        "generation": 3, "last_good_ms": 63_000, "failed_probes": 12, "why": "it does not answer", "limit_ms": 60_000,
        "probes": ["10.1s before: silent, no answer in 5s", "5s before: silent, no answer in 5s"],
        "conclusion": "stopped by a signal, such as SIGSTOP (state T)", "conclusion_cause": "stopped",
        "evidence": "/store/incidents/2026-11-30T02-14-00.000Z.json"
    });
    let exited =
        json!({"generation": 3, "pid": 42, "signal": 9, "uptime_ms": 839_000, "max_rss_kb": 317_000, "cause": "hung"});
    rows.extend([
        (780, "liveness.missed", "warn", "gateway 3 failed a probe: no answer in 5s", json!({"generation": 3})),
        (
            840,
            "gateway.hung",
            "warn",
            "gateway 3: it does not answer; last good probe 1m3s ago, 12 failed since",
            members,
        ),
        (
            850,
            "stop.escalated",
            "warn",
            "sending SIGKILL to the whole process tree: it did not end in the time that it was given",
            json!({"generation": 3, "grace_ms": 10_000, "why": "it did not end in the time that it was given"}),
        ),
        (850, "gateway.exited", "warn", "gateway 3 (pid 42) ended with signal 9 after 13m59s: hung", exited),
        scheduled(850),
        (852, "gateway.spawned", "info", "gateway 4 is pid 77, attempt 2", json!({"generation": 4, "pid": 77})),
        (858, "gateway.started", "info", "gateway 4 is up after 6s", json!({"generation": 4, "pid": 77})),
    ]);
    record(&rows)
}

fn ended(cause: &'static str, request: Option<&'static str>, members: &Value) -> Vec<Entry> {
    let mut rows = begin();
    let by = json!({"by": "SIGTERM from pid 9 (kill 7)", "by_pid": 9, "by_uid": 4_000_000_000_u32});
    rows.extend(request.map(|name| (50, name, "info", "requested by SIGTERM from pid 9 (kill 7)", by)));
    let mut fields = json!({"generation": 3, "pid": 42, "cause": cause});
    fields.as_object_mut().unwrap().extend(members.as_object().cloned().unwrap());
    rows.push((60, "gateway.exited", "warn", "gateway 3 (pid 42) ended", fields));
    record(&rows)
}

fn lines() -> LastOutput {
    let lines = ["[gateway] listening", "Error: unknown key\u{1b}[31m gateway.tokne"].map(str::to_owned).to_vec();
    LastOutput { source: "journalctl _PID=42".to_owned(), lines, trouble: None }
}

#[test]
fn a_hang_is_explained_at_every_width() {
    let account = Account::of(&hung(), &DecisionSubject::Last).unwrap();
    let mut shown = String::new();
    for (width, has_colour) in [(60, false), (80, false), (80, true), (200, false)] {
        let terminal = Terminal::fixed(Some(width), has_colour, "CET-1", NOW);
        let text = as_text(&account, Some(&lines()), "--profile work", &terminal);
        if !has_colour {
            assert!(text.lines().all(|line| line.chars().count() <= width), "{width}: {text}");
        }
        writeln!(shown, "--- {width} columns, colour: {has_colour}\n{text}").unwrap();
    }
    insta::assert_snapshot!(shown.replace('\u{1b}', "ESC"));
}

#[test]
fn json_has_the_same_account_with_times_in_utc() {
    let account = Account::of(&hung(), &DecisionSubject::Generation(3)).unwrap();
    insta::assert_snapshot!(format!("{:#}", as_json(&account, Some(&lines()))));
}

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn each_way_to_end_has_its_rule_and_who_asked() {
    let terminal = Terminal::fixed(Some(100), false, "UTC0", NOW);
    let nothing = || json!({});
    let unfound = LastOutput {
        source: "in the journal ('journalctl -u x')".to_owned(),
        lines: Vec::new(),
        trouble: Some("no line of it was found".to_owned()),
    };
    let mut spawn_failed = begin();
    spawn_failed.truncate(1);
    spawn_failed.push((
        1,
        "gateway.spawn_failed",
        "warn",
        "gateway 3 could not be started: ENOENT",
        json!({"generation": 3, "why": "ENOENT"}),
    ));
    let mut refused = begin();
    refused.truncate(1);
    refused.extend([
        (1, "conflict.detected", "warn", "the port is in use (foreign) by pid 900 (nginx)", json!({"kind": "foreign"})),
        (
            31,
            "supervisor.stopped",
            "error",
            "exit code 78: port 18789 is in use by another program",
            json!({"exit_code": 78}),
        ),
    ]);
    let mut gave_up = begin();
    gave_up.extend([
        (
            60,
            "gateway.exited",
            "warn",
            "gateway 3 (pid 42) ended with exit code 1",
            json!({"generation": 3, "pid": 42, "code": 1, "cause": "crashed"}),
        ),
        (
            60,
            "restart.gave_up",
            "error",
            "gave up after 6 restarts within 1h",
            json!({"restarts": 6, "max_restarts": 6, "window_ms": 3_600_000}),
        ),
        (
            60,
            "supervisor.stopped",
            "error",
            "exit code 69: gave up after 6 restarts within 1h",
            json!({"exit_code": 69}),
        ),
    ]);
    let mut memory = begin();
    memory.extend([
        (50, "memory.exceeded", "warn", "the processes of gateway 3 use 2048 MiB", json!({
            "generation": 3, "tree_rss_kb": 2 << 20, "limit_kb": 1 << 20, "conclusion": "over its memory limit", "evidence": "/i/x.json"
        })),
        (60, "gateway.exited", "info", "gateway 3 (pid 42) ended", json!({"generation": 3, "pid": 42, "code": 0, "cause": "over its memory limit"})),
    ]);
    let mut shown = String::new();
    for (name, entries) in [
        ("stopped", ended("stop requested", Some("stop.requested"), &nothing())),
        ("restarted", ended("restart requested", Some("restart.requested"), &nothing())),
        ("refused by the gateway", ended("refused to start", None, &json!({"code": 78}))),
        ("OOM", ended("killed by the kernel OOM killer", None, &json!({"signal": 9}))),
        ("memory", record(&memory)),
        ("crash loop", record(&gave_up)),
        ("no process", record(&spawn_failed)),
        ("port in use", record(&refused)),
    ] {
        let account = Account::of(&entries, &DecisionSubject::Last).unwrap();
        let output = account.generation.map(|_| &unfound);
        writeln!(shown, "--- {name}\n{}\n", as_text(&account, output, "", &terminal)).unwrap();
    }
    insta::assert_snapshot!(shown);
}

#[test]
fn every_cause_of_the_event_log_has_a_rule_of_its_own() {
    let causes = [
        "stop requested",
        "restart requested",
        "requested",
        "hung",
        "exited with code 0 without a request",
        "exited with code 0 before it answered",
        "refused to start",
        "the command or its interpreter was not found",
        "the command cannot be executed",
        "crashed",
        "killed by the kernel OOM killer",
        "over its memory limit",
        "the lease was not confirmed",
        "the lease was lost",
        "survived SIGKILL",
        "ended while no supervisor ran",
    ];
    let unknown = rules::of("exit status unknown (adopted process)");
    assert!(causes.iter().all(|cause| rules::of(cause) != unknown));
    let documented = include_str!("../../../docs/EVENTS.md").replace('\n', " ");
    assert!(causes.iter().all(|cause| documented.contains(&format!("`{cause}`"))));
}

#[test]
fn what_cannot_be_explained_is_told_in_one_line() {
    let incident = |file: Option<&str>| DecisionSubject::Incident(file.map(str::to_owned));
    for (entries, subject, expected) in [
        (vec![], DecisionSubject::Last, "no restart, kill or refusal is on record"),
        (record(&begin()), DecisionSubject::Last, "no restart, kill or refusal is on record"),
        (
            record(&begin()),
            DecisionSubject::Generation(3),
            "no end of gateway 3 is on record; the last word about it: gateway 3 is up after 6s",
        ),
        (
            record(&begin()),
            DecisionSubject::Generation(2),
            "gateway 2 is no longer on record, the oldest there is gateway 3: 10000 events are kept, and no longer than 30 days",
        ),
        (
            record(&begin()),
            DecisionSubject::Generation(9),
            "there has been no gateway 9: the newest on record is gateway 3",
        ),
        (vec![], DecisionSubject::Generation(1), "there has been no gateway 1: none is on record"),
        (record(&begin()), incident(None), "no incident is on record: no gateway has hung or was above --memory-max"),
        (hung(), incident(Some("x.json")), "no event on record names the incident x.json"),
    ] {
        assert_eq!(Account::of(&entries, &subject).err().as_deref(), Some(expected));
    }
    for file in [None, Some("2026-11-30T02-14-00.000Z.json")] {
        assert_eq!(Account::of(&hung(), &incident(file)).unwrap().generation, Some(3));
    }
}

#[test]
fn a_supervisor_that_left_its_gateway_started_one() {
    let mut rows = begin();
    let members = json!({"exit_code": 0, "reason": "left as asked by SIGQUIT from pid 1 (init)"});
    rows.push((9, "supervisor.stopped", "info", "exit code 0: left as asked by SIGQUIT from pid 1 (init)", members));
    let account = Account::of(&record(&rows), &DecisionSubject::Last).unwrap();
    assert_eq!(account.generation, None);
    let expected =
        "the supervisor ended, and its gateway did not: exit code 0: left as asked by SIGQUIT from pid 1 (init)";
    assert_eq!(account.decision, expected);
}

#[test]
fn a_record_of_an_earlier_version_is_explained_from_its_members() {
    let mut entries = hung();
    for entry in &mut entries {
        (entry.level, entry.message) = (None, None);
        for name in ["limit_ms", "probes", "conclusion", "conclusion_cause", "failures", "grace_ms"] {
            entry.fields.remove(name);
        }
    }
    let account = Account::of(&entries, &DecisionSubject::Last).unwrap();
    let text = as_text(&account, None, "", &Terminal::fixed(Some(80), false, "UTC0", NOW));
    assert!(text.starts_with("gateway 3 was ended because it hung.") && text.contains("1m3s before"), "{text}");
    assert!(text.contains("cause=hung"), "{text}");
}
