//! Whether a gateway serves now, and if not, why, until when, and what to do.

use crate::commands::doctor::facts::store::{Ended, LeaseFacts, SocketFacts, StoreFacts};
use crate::commands::doctor::finding::Finding;
use crate::core::exit;
use crate::core::report::human;
use crate::host::control::{GatewayReply, PausedReply, StatusReply};
use std::time::Duration;

/// A channel that is not connected for longer is an outage. A login may take minutes.
const CHANNEL_DOWN_MAX: Duration = Duration::from_mins(5);

/// What `doctor` knows besides the store.
#[derive(Debug, Clone)]
pub(in super::super) struct OutageAdvice {
    /// The command that starts the service.
    pub(in super::super) start: String,
    /// Asks the supervisor of this store: the program, a verb, and its options.
    pub(in super::super) store_option: String,
    /// Whether the manager says that the service failed, or is about to start it: then its finding has the cause.
    pub(in super::super) is_told: bool,
    /// The wall clock.
    pub(in super::super) now_ms: i64,
}

impl OutageAdvice {
    fn ask(&self, verb: &str) -> String {
        format!("openclaw-supervise {verb}{}", self.store_option)
    }
}

pub(in super::super) fn check(facts: &StoreFacts, advice: &OutageAdvice) -> Vec<Finding> {
    match (&facts.reply, &facts.socket) {
        (Some(reply), _) => {
            let paused = reply.paused.as_ref().map(|paused| pause(paused, reply.gateway.is_some(), advice));
            // A gateway that is down in a pause waits for its end as it should.
            let of_reply = Some(of_reply(facts, reply, advice)).filter(|_| paused.is_none() || reply.gateway.is_some());
            let mut findings: Vec<Finding> = paused.into_iter().chain(of_reply).collect();
            findings.extend(gave_up(facts, reply, advice));
            findings.extend(channel(facts, reply, advice));
            findings
        }
        (None, SocketFacts::Absent) => of_past(facts, advice).into_iter().collect(),
        // Another finding says why nothing is known.
        (None, SocketFacts::Answers { .. } | SocketFacts::Failed { .. } | SocketFacts::Forbidden(_)) => Vec::new(),
    }
}

fn named(gateway: &GatewayReply) -> String {
    let pid = gateway.pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
    format!("gateway {}{pid}", gateway.generation)
}

/// On purpose, and it ends by itself.
fn pause(paused: &PausedReply, has_gateway: bool, advice: &OutageAdvice) -> Finding {
    let down = if has_gateway { "" } else { ", and no gateway is running" };
    let within = paused.in_ms.and_then(|within| i64::try_from(within).ok());
    let until = within.map(|within| advice.now_ms.saturating_add(within));
    let reason = if paused.reason.is_empty() { String::new() } else { format!(": {}", paused.reason) };
    let found = format!("the supervision is paused by {}{reason}{down}", paused.by);
    Finding::warn("pause", found, "no gateway is replaced or started until then", advice.ask("resume")).until(until)
}

fn of_reply(facts: &StoreFacts, reply: &StatusReply, advice: &OutageAdvice) -> Finding {
    let check = "gateway";
    let next = &reply.next;
    let why = next.why.clone().unwrap_or_default();
    let until =
        next.in_ms.and_then(|within| i64::try_from(within).ok()).map(|within| advice.now_ms.saturating_add(within));
    let state = reply.supervisor.state.as_str();
    let since = |ms: Option<u64>| ms.and_then(|ms| i64::try_from(ms).ok()).map(|ms| advice.now_ms.saturating_sub(ms));
    let Some(gateway) = &reply.gateway else { return without_gateway(facts, reply, advice).until(until) };
    let named = named(gateway);
    match (state, gateway.healthy) {
        ("running", Some(true) | None) => Finding::ok(check, format!("{named} is healthy")).since(since(gateway.up_ms)),
        ("running", Some(false)) if reply.paused.is_none() && why.starts_with("it is ") => Finding::warn(
            check,
            format!("{named} {}", why.trim_start_matches("it ")),
            "it is not replaced for that",
            advice.ask("status"),
        ),
        ("running", Some(false)) if reply.paused.is_some() => Finding::warn(
            check,
            format!("{named} fails its probes"),
            "it is not replaced during the pause",
            advice.ask("status"),
        ),
        ("running", Some(false)) => Finding::warn(
            check,
            format!("{named} fails its probes"),
            "it is replaced unless it answers until then",
            advice.ask("status"),
        )
        .until(until),
        ("examining", _) => {
            Finding::fail(check, format!("{named} hangs and is being replaced"), why, advice.ask("events -n 20"))
        }
        ("starting", _) => Finding::ok_since(check, format!("{named} is starting"), "a boot takes up to minutes")
            .since(since(gateway.age_ms)),
        ("stopping", _) => {
            let until = since(None).or(reply
                .supervisor
                .ends_within_ms
                .and_then(|ms| i64::try_from(ms).ok())
                .map(|ms| advice.now_ms.saturating_add(ms)));
            Finding::warn(check, format!("{named} is stopping"), why, advice.ask("status")).until(until)
        }
        (other, _) => {
            let found = format!("{named}: {}", other.replace('_', " "));
            if why.is_empty() { Finding::ok(check, found) } else { Finding::ok_since(check, found, why) }
        }
    }
}

/// A supervisor runs, and no gateway.
fn without_gateway(facts: &StoreFacts, reply: &StatusReply, advice: &OutageAdvice) -> Finding {
    let state = reply.supervisor.state.as_str();
    let why = reply.next.why.clone().unwrap_or_default();
    match state {
        "backing_off" if why.starts_with("an update of OpenClaw") => Finding::warn(
            "backoff",
            format!("no gateway is running: {why}"),
            "the gateway is down until then",
            format!(
                "let the update end; if none is under way, install OpenClaw again, then {}",
                advice.ask("retry-now")
            ),
        ),
        "backing_off" | "awaiting_word" => Finding::fail(
            "backoff",
            format!("no gateway is running; the next start waits: {why}"),
            "the gateway is down until then",
            format!("correct the cause ({}), then {}", advice.ask("events -n 20"), advice.ask("retry-now")),
        ),
        // One that stands by behind another supervisor is as it should be.
        "standby" if reply.lease.held != Some(true) && matches!(facts.lease, LeaseFacts::Held { .. }) => {
            Finding::ok_since("gateway", "this supervisor stands by", why)
        }
        "standby" => Finding::warn(
            "gateway",
            format!("the supervisor stands by: {why}"),
            "nothing restarts a gateway that runs without a supervisor",
            "end that gateway, and the supervisor starts its own within 15 s",
        ),
        "stopping" | "post_stop" | "exited" | "sweeping" => Finding::warn(
            "gateway",
            "no gateway is running: the last one has just ended",
            if why.is_empty() { "the supervisor decides what its exit meant".to_owned() } else { why },
            advice.ask("status"),
        ),
        "leasing" | "adopting" | "probing" | "pre_start" | "repairing" | "spawning" | "starting" => {
            Finding::ok_since("gateway", format!("about to start ({})", state.replace('_', " ")), why)
        }
        other => Finding::warn(
            "gateway",
            format!("no gateway is running ({})", other.replace('_', " ")),
            why,
            advice.ask("status"),
        ),
    }
}

/// The budget is spent for as long as no gateway came up since.
fn gave_up(facts: &StoreFacts, reply: &StatusReply, advice: &OutageAdvice) -> Option<Finding> {
    let restarts = &reply.restarts;
    let count = restarts.in_window.zip(restarts.max).filter(|(_, max)| *max > 0);
    let window = restarts.window_ms.map(|ms| human(Duration::from_millis(ms))).unwrap_or_default();
    if let Some((since, why)) = &facts.past.gave_up {
        let fix = format!("correct the cause ({}), then {}", advice.ask("events -n 20"), advice.ask("retry-now"));
        let found = format!("the supervisor gave up (exit code {}): {why}", exit::GAVE_UP);
        return Some(Finding::fail("budget", found, "one attempt each --backoff-max is made", fix).since(Some(*since)));
    }
    let (count, max) = count?;
    let found = format!("{count} of {max} restarts in the last {window}");
    if count < max {
        return Some(Finding::ok("budget", found));
    }
    let why = "the next failure ends the supervisor with exit code 69";
    Some(Finding::warn("budget", found, why, advice.ask("events -n 20")))
}

/// OpenClaw names what is not connected in `/readyz`.
fn channel(facts: &StoreFacts, reply: &StatusReply, advice: &OutageAdvice) -> Option<Finding> {
    let check = "channels";
    reply.gateway.as_ref().filter(|gateway| gateway.healthy == Some(true))?;
    let detail = reply.probe.ready_detail.clone().unwrap_or_default();
    if reply.probe.ready? {
        return Some(Finding::ok(check, if detail.is_empty() { "ready".to_owned() } else { detail }));
    }
    let since = facts.past.unready.as_ref().map(|(since, _)| *since);
    let down =
        since.and_then(|since| u64::try_from(advice.now_ms.saturating_sub(since)).ok()).map(Duration::from_millis);
    let why = "the gateway is up; what it names here is not connected, and no restart is made for that";
    let fix = "openclaw channels status --probe, or openclaw doctor";
    let finding = if down.is_some_and(|down| down >= CHANNEL_DOWN_MAX) {
        Finding::fail(check, detail, why, fix)
    } else {
        Finding::warn(check, detail, why, fix)
    };
    Some(finding.since(since))
}

/// No supervisor runs.
fn of_past(facts: &StoreFacts, advice: &OutageAdvice) -> Option<Finding> {
    let check = "gateway";
    let start = advice.start.clone();
    if advice.is_told {
        return None;
    }
    if let Some(Ended { at_ms, code, reason }) = &facts.past.ended {
        let finding = match *code {
            exit::OK => Finding::warn(
                check,
                format!("not running: {reason}"),
                "a stop on request: nothing restarts it before the next start of its service",
                start,
            ),
            exit::GAVE_UP => Finding::fail(
                "budget",
                format!("not running: the supervisor gave up (exit code 69): {reason}"),
                "no supervisor is running, and no gateway",
                format!("correct the cause, then {start}"),
            ),
            code => Finding::fail(
                check,
                format!("not running: the supervisor ended with exit code {code}: {reason}"),
                "no supervisor is running, and no gateway",
                format!("correct that, then {start}"),
            ),
        };
        return Some(finding.since(Some(*at_ms)));
    }
    if let Some((pid, how)) = &facts.lost {
        let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
        let why = match facts.gateway {
            Some(gateway) => format!("gateway pid {gateway} runs on, and nothing restarts it when it fails"),
            None => "no supervisor is running, and no gateway".to_owned(),
        };
        let found = format!("the last supervisor{pid} ended without a stop: {how}");
        return Some(Finding::fail(check, found, why, start).since(facts.past.newest));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::super::tests::listing;
    use super::*;
    use crate::commands::doctor::facts::store::Past;
    use crate::core::lease::Life;
    use crate::host::control::{LeaseReply, NextReply, ProbeReply, RestartsReply, SupervisorReply};

    const NOW: i64 = 1_800_000_000_000;

    fn advice(is_told: bool) -> OutageAdvice {
        OutageAdvice {
            start: "systemctl start x".to_owned(),
            store_option: " --store-dir /s".to_owned(),
            is_told,
            now_ms: NOW,
        }
    }

    fn reply(state: &str, healthy: Option<bool>, why: &str) -> StatusReply {
        let gateway = healthy.map(|healthy| GatewayReply {
            pid: Some(7),
            generation: 3,
            up_ms: Some(60_000),
            healthy: Some(healthy),
            ..GatewayReply::default()
        });
        StatusReply {
            supervisor: SupervisorReply { state: state.to_owned(), ..SupervisorReply::default() },
            gateway,
            restarts: RestartsReply {
                in_window: Some(1),
                max: Some(6),
                window_ms: Some(3_600_000),
                ..RestartsReply::default()
            },
            next: NextReply { in_ms: Some(5000), why: Some(why.to_owned()), ..NextReply::default() },
            ..StatusReply::default()
        }
    }

    fn of(reply: StatusReply, past: Past) -> Vec<Finding> {
        let pid = reply.lease.owner_pid;
        let lease = if pid.is_some() { LeaseFacts::Held { pid, life: Life::Alive } } else { LeaseFacts::Unused };
        let socket = SocketFacts::Answers { pid: Some(1), state: reply.supervisor.state.clone() };
        let facts = StoreFacts { reply: Some(Box::new(reply)), past, ..StoreFacts::empty(socket, lease) };
        check(&facts, &advice(false))
    }

    #[test]
    fn each_state_of_a_supervisor_is_told() {
        let plain = |state, healthy, why: &str| (state, of(reply(state, healthy, why), Past::default()));
        let unready = |since| {
            let mut reply = reply("running", Some(true), "it is healthy");
            reply.probe = ProbeReply {
                ready: Some(false),
                ready_detail: Some("not ready: channel:chat".to_owned()),
                ..ProbeReply::default()
            };
            of(reply, Past { unready: Some((NOW - since, String::new())), ..Past::default() })
        };
        let mut behind = reply("standby", None, "pid 4 holds it");
        behind.lease = LeaseReply { owner_pid: Some(4), ..LeaseReply::default() };
        let paused = |state, healthy, why| {
            let mut reply = reply(state, healthy, why);
            let (reason, by) = ("an update".to_owned(), "root".to_owned());
            reply.paused = Some(PausedReply { until: None, in_ms: Some(600_000), reason, by });
            of(reply, Past::default())
        };
        let mut spent = reply("running", Some(true), "it is healthy");
        spent.restarts.in_window = Some(6);
        let gave_up = Past { gave_up: Some((NOW - 1000, "6 restarts within 1h".to_owned())), ..Past::default() };
        insta::assert_snapshot!(listing([
            plain("running", Some(true), "it is healthy"),
            plain("running", Some(false), "its last probes failed"),
            plain("running", Some(false), "it is alive and not healthy: GET /healthz answered 500"),
            plain("examining", Some(false), "it hangs; collecting evidence"),
            plain("starting", Some(false), "it is starting"),
            plain("stopping", Some(false), "it is being stopped"),
            plain("stopping", None, "it is being stopped"),
            plain("backing_off", None, "failure 3 in a row"),
            plain("awaiting_word", None, "the restart budget is spent"),
            plain("probing", None, "as soon as the port is free"),
            ("paused", paused("running", Some(true), "it is paused")),
            ("paused, not healthy", paused("running", Some(false), "it is paused")),
            ("paused, no gateway", paused("backing_off", None, "it is paused")),
            plain("standby", None, "a gateway without a supervisor uses the port"),
            ("standby behind an owner", of(behind, Past::default())),
            ("budget spent", of(spent, Past::default())),
            ("gave up", of(reply("backing_off", None, "one trial each 5m"), gave_up)),
            ("channel just gone", unready(10_000)),
            ("channel down for long", unready(600_000)),
        ]));
    }

    #[test]
    fn without_a_supervisor_the_record_says_how_the_last_one_ended() {
        let ended = |code, reason: &str| Past {
            ended: Some(Ended { at_ms: NOW - 720_000, code, reason: reason.to_owned() }),
            ..Past::default()
        };
        let facts = |past| StoreFacts { past, ..StoreFacts::empty(SocketFacts::Absent, LeaseFacts::Free) };
        let lost =
            |gateway| StoreFacts { lost: Some((Some(4), "its process has exited")), gateway, ..facts(Past::default()) };
        let cases = [
            ("never started", facts(Past::default()), false),
            ("stopped", facts(ended(0, "stopped as asked by pid 5")), false),
            ("gave up", facts(ended(69, "6 restarts within 1h")), false),
            ("refused", facts(ended(78, "the gateway exited with 78")), false),
            ("the manager has told", facts(ended(78, "the gateway exited with 78")), true),
            ("killed", lost(None), false),
            ("killed, its gateway alive", lost(Some(9)), false),
        ];
        insta::assert_snapshot!(listing(cases.map(|(case, facts, told)| (case, check(&facts, &advice(told))))));
    }
}
