use super::*;
use crate::conclusion::{Conclusion, IncidentCause};
use crate::probe_history::Excess;
use crate::report::HungReport;
use crate::restart_policy::PaceFacts;
use crate::{ExitStatus, ExitUsage, Readiness};
use std::vec;

const MIN: u64 = 60;

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn exited(cause: &'static str) -> Report {
    let death = ExitStatus::Code(1);
    Report::GatewayExited(Exited { generation: 2, pid: 9, death, uptime: s(3), toll: ExitUsage::default(), cause })
}

fn crashed() -> Report {
    exited("crashed")
}

fn scheduled() -> Report {
    let (delay, why) = (s(8), "failure 3".to_owned());
    let pace = PaceFacts {
        failures: 3,
        restarts: 3,
        max_restarts: 6,
        restart_window: s(3600),
        unclean_boots: 3,
        boot_limit: 2,
        boot_window: s(300),
        backoff_max: s(300),
    };
    Report::RestartScheduled { delay, why, after_failure: true, pace: Box::new(pace) }
}

fn spawned() -> Report {
    Report::GatewaySpawned { generation: 2, pid: 9, attempt: 1 }
}

fn started() -> Report {
    Report::GatewayStarted { generation: 2, pid: 9, boot: s(3) }
}

fn hung() -> Report {
    let (last_good, evidence) = (Some(s(60)), Some("/e.json".to_owned()));
    Report::GatewayHung(Box::new(HungReport {
        generation: 2,
        last_good,
        failed_probes: 12,
        why: "no answer",
        limit: s(60),
        probes: Vec::new(),
        conclusion: conclusion(),
        evidence,
    }))
}

fn conclusion() -> Conclusion {
    Conclusion { cause: IncidentCause::Idle, text: "it waits".to_owned() }
}

fn exceeded() -> Report {
    let excess = Excess { tree_rss_kb: 2, limit_kb: 1 };
    Report::MemoryExceeded { generation: 2, excess, conclusion: conclusion(), evidence: Some("/m.json".to_owned()) }
}

fn ready(ready: bool) -> Report {
    let detail = if ready { "ready" } else { "not ready: channel:telegram" };
    Report::ReadinessChanged { generation: 2, readiness: Readiness { ready, detail: detail.to_owned() } }
}

fn conflict(kind: &'static str) -> Report {
    Report::ConflictDetected { kind, holder: None, holder_uid: Some(0) }
}

fn stopped(exit_code: u8) -> Report {
    Report::SupervisorStopped { exit_code, reason: "because".to_owned() }
}

fn standby() -> Report {
    Report::StandbyEntered { why: "stands by".to_owned() }
}

fn gave_up() -> Report {
    Report::RestartGaveUp { restarts: 6, max_restarts: 6, window: s(3600), why: "gave up".to_owned() }
}

fn alerts() -> Alerts {
    Alerts::new(s(5 * MIN), s(2 * MIN), 7, AlertMemory::default())
}

/// Feeds reports at their seconds, with ticks whenever they are due until `end`.
fn play(alerts: &mut Alerts, story: &[(u64, Report)], end: u64) -> Vec<Alert> {
    let mut told = Vec::new();
    let ticks = |alerts: &mut Alerts, until: Moment, told: &mut Vec<Alert>| {
        while let Some(due) = alerts.deadline().filter(|due| *due <= until) {
            alerts.tick(due, told);
            assert!(alerts.deadline().is_none_or(|next| next > due), "a tick that changes nothing is due again");
        }
    };
    for (at, report) in story {
        ticks(alerts, s(*at), &mut told);
        assert!(Alerts::concerns(report), "{report:?}");
        alerts.see(s(*at), report, &mut told);
    }
    ticks(alerts, s(end), &mut told);
    told
}

fn names(told: &[Alert]) -> Vec<String> {
    told.iter().map(|alert| format!("{} {:?}", alert.incident.kind.name(), alert.phase)).collect()
}

fn loop_of(count: u64) -> Vec<(u64, Report)> {
    (0..count).flat_map(|n| [(n * 5, spawned()), (n * 5 + 3, crashed()), (n * 5 + 3, scheduled())]).collect()
}

/// What it is, the reports by the second, and what is told.
type Case = (&'static str, Vec<(u64, Report)>, &'static [&'static str]);

#[test]
#[expect(clippy::too_many_lines, reason = "a table")]
fn what_opens_and_what_ends_an_incident() {
    let up = |at: u64| vec![(at, spawned()), (at + 3, started())];
    let cases: Vec<Case> = vec![
        ("one crash", [loop_of(1), up(10)].concat(), &[]),
        ("two crashes", [loop_of(2), up(20)].concat(), &[]),
        ("a crash loop that ends", [loop_of(5), up(40)].concat(), &["crash_loop Opened", "crash_loop Recovered"]),
        ("a crash loop that goes on", loop_of(50), &["crash_loop Opened"]),
        (
            "a spent budget",
            [loop_of(6), vec![(40, gave_up()), (40, stopped(69))]].concat(),
            &["crash_loop Opened", "gave_up Escalated"],
        ),
        (
            "a hang",
            [vec![(0, started()), (60, hung()), (70, exited("hung"))], up(71)].concat(),
            &["hang Opened", "hang Recovered"],
        ),
        (
            "a memory limit",
            [vec![(0, started()), (9, exceeded())], vec![(20, exited("over its memory limit"))], up(21)].concat(),
            &["memory Opened", "memory Recovered"],
        ),
        (
            "the kernel's OOM killer",
            [vec![(0, started()), (9, exited(OUT_OF_MEMORY))], up(10)].concat(),
            &["memory Opened", "memory Recovered"],
        ),
        (
            "a refused configuration",
            vec![(0, spawned()), (1, exited("refused to start")), (2, stopped(78))],
            &["refused Opened"],
        ),
        ("a port of another program", vec![(0, conflict("foreign")), (30, stopped(78))], &["conflict Opened"]),
        ("a port that is freed", [vec![(0, conflict("foreign")), (9, Report::ConflictResolved)], up(10)].concat(), &[]),
        ("a standby behind a supervisor", vec![(0, conflict("lease")), (0, standby())], &[]),
        (
            "a standby behind a program",
            [vec![(0, conflict("foreign")), (30, standby()), (90, Report::StandbyLeft { why: String::new() })], up(91)]
                .concat(),
            &["conflict Opened", "conflict Recovered"],
        ),
        ("a stop on request", vec![(0, started()), (9, exited("stop requested")), (9, stopped(0))], &[]),
        (
            "a stop amid a crash loop",
            [loop_of(4), vec![(60, stopped(0))]].concat(),
            &["crash_loop Opened", "crash_loop Stopped"],
        ),
        ("another failure of the supervisor", vec![(0, stopped(1))], &["failed Opened"]),
        ("a channel that is away for a moment", vec![(0, started()), (1, ready(false)), (200, ready(true))], &[]),
        (
            "a channel that is away",
            vec![(0, started()), (1, ready(true)), (9, ready(false)), (900, ready(true))],
            &["channel_down Opened", "channel_down Recovered"],
        ),
        (
            "a restart meanwhile",
            vec![
                (0, started()),
                (9, ready(false)),
                (600, exited("restart requested")),
                (601, spawned()),
                (605, started()),
                (605, ready(false)),
                (990, ready(true)),
            ],
            &["channel_down Opened", "channel_down Recovered"],
        ),
        (
            "planned restarts",
            (0..20)
                .flat_map(|n| [(n * 9, started()), (n * 9 + 8, exited("exited with code 0 without a request"))])
                .collect(),
            &[],
        ),
    ];
    for (name, story, expected) in cases {
        assert_eq!(names(&play(&mut alerts(), &story, 7200)), expected, "{name}");
    }
}

#[test]
fn a_flapping_gateway_gives_few_messages() {
    // It is up for 25 s each time and hangs then, for half a day.
    let story: Vec<_> = (0..400)
        .flat_map(|n| {
            let at = n * 100;
            [
                (at, spawned()),
                (at + 3, started()),
                (at + 28, Report::LivenessMissed { generation: 2, detail: String::new() }),
                (at + 90, hung()),
                (at + 95, exited("hung")),
            ]
        })
        .collect();
    let told = play(&mut alerts(), &story, 40_000);
    assert_eq!(names(&told), ["hang Opened", "hang Recovered", "hang Opened", "hang Recovered", "hang Opened"]);
    let ids: Vec<_> = told.iter().map(|alert| alert.incident.id).collect();
    assert_eq!(ids, [7, 7, 8, 8, 9], "both messages of an incident have its id");
}

#[test]
fn an_incident_long_after_the_last_one_settles_quickly_again() {
    let round = |at: u64| [(at, started()), (at + 60, hung()), (at + 70, exited("hung")), (at + 80, started())];
    let story: Vec<_> = [0, 600, 1200, 90_000].into_iter().flat_map(round).collect();
    let mut alerts = alerts();
    let told = play(&mut alerts, &story, 100_000);
    assert_eq!(told.len(), 8);
    assert_eq!(alerts.memory().flaps, 0);
    assert_eq!(alerts.memory().last_end, Some(s(90_090)), "10 s after it was up again");
}

#[test]
fn a_restart_of_the_supervisor_neither_repeats_a_message_nor_forgets_an_incident() {
    let mut first = alerts();
    play(&mut first, &[(0, gave_up()), (0, stopped(69))], 1);
    let mut second = Alerts::new(s(300), s(120), 99, first.memory().clone());
    assert_eq!(
        names(&play(&mut second, &[loop_of(4), vec![(40, gave_up()), (40, stopped(69))]].concat(), 41)),
        [""; 0]
    );
    let mut third = Alerts::new(s(300), s(120), 99, second.memory().clone());
    let adopted = Report::GatewayAdopted { generation: 2, pid: 9, age: s(50), differs: None };
    let mut beside = Alerts::new(s(300), s(120), 99, second.memory().clone());
    assert_eq!(names(&play(&mut beside, &[(60, adopted.clone())], 100)), [""; 0], "it has not answered");
    assert_eq!(names(&play(&mut beside, &[(101, ready(true))], 200)), ["gave_up Recovered"]);
    let told = play(&mut third, &[(60, spawned()), (63, started())], 100);
    assert_eq!(names(&told), ["gave_up Recovered"]);
    assert_eq!((told[0].incident.id, told[0].incident.since), (7, s(0)));
}

#[test]
fn a_message_says_what_is_next_and_where_the_evidence_is() {
    let told = play(&mut alerts(), &[(0, started()), (60, hung())], 61);
    assert_eq!(told[0].evidence.as_deref(), Some("/e.json"));
    assert!(told[0].what.contains("last good probe 1m ago"), "{}", told[0].what);
    let told = play(&mut alerts(), &loop_of(4), 61);
    assert_eq!(told[0].what, "3 failures in 10s, the last: gateway 2 (pid 9) ended with exit code 1 after 3s: crashed");
    assert_eq!(told[0].next, "the next start is in 8s: failure 3");
    let told = play(&mut alerts(), &[(0, conflict("foreign")), (30, stopped(78))], 61);
    assert_eq!(told[0].who.as_deref(), Some("the port is in use (foreign) by a process of user root"));
    assert_eq!(told[0].exit_code, Some(78));
}
