//! The account of one decision: what is on record about the end of a gateway, or about a supervisor that started none.

use super::rules::{self, Rule};
use crate::cli::DecisionSubject;
use crate::commands::record::Entry;
use crate::core::report::human;
use std::time::Duration;

/// How many events stand before the end, and after it.
const EVENTS_MAX: usize = 10;

/// All that is on record about it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Account {
    /// `None` if no gateway was started.
    pub(super) generation: Option<u64>,
    pub(super) at_ms: i64,
    /// One sentence.
    pub(super) decision: String,
    pub(super) rule: String,
    /// What was compared with what: a label and a value each.
    pub(super) inputs: Vec<(&'static str, String)>,
    pub(super) asked_by: Option<Asker>,
    pub(super) conclusion: Option<String>,
    pub(super) evidence: Option<String>,
    pub(super) output: OutputOf,
    /// From the first sign to the end.
    pub(super) before: Vec<Entry>,
    pub(super) next: Vec<Entry>,
    pub(super) advice: String,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Asker {
    pub(super) text: String,
    pub(super) uid: Option<u32>,
}

/// Where and when the gateway has written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct OutputOf {
    /// Its processes, as far as they are on record.
    pub(super) pids: Vec<u64>,
    pub(super) from_ms: i64,
    pub(super) until_ms: i64,
    pub(super) manager: Option<String>,
    /// Completes "see the gateway's output ...".
    pub(super) place: Option<String>,
    /// The file that took the place of our standard output.
    pub(super) moved_to: Option<String>,
}

/// The last words about a gateway, or about a supervisor without one.
const DECISIONS: [&str; 7] = [
    "gateway.exited",
    "gateway.unseen",
    "gateway.spawn_failed",
    "gateway.hung",
    "memory.exceeded",
    "restart.gave_up",
    "supervisor.stopped",
];

/// What ends the life of a gateway on record.
const ENDS: [&str; 3] = ["gateway.exited", "gateway.unseen", "gateway.spawn_failed"];

const REQUESTS: [&str; 4] = ["stop.requested", "restart.requested", "retry.requested", "detach.requested"];

/// What follows an end, for the account of it.
const CONSEQUENCES: [&str; 16] = [
    "tree.killed",
    "installer.awaited",
    "installer.killed",
    "handoff.accepted",
    "handoff.missing",
    "handoff.rejected",
    "hook.finished",
    "conflict.detected",
    "restart.scheduled",
    "restart.gave_up",
    "gateway.spawned",
    "gateway.spawn_failed",
    "gateway.started",
    "standby.entered",
    "supervisor.started",
    "supervisor.stopped",
];

impl Account {
    /// `entries` are all on record, oldest first. The error is one line for a person.
    pub(super) fn of(entries: &[Entry], subject: &DecisionSubject) -> Result<Self, String> {
        match subject {
            DecisionSubject::Last => last(entries),
            DecisionSubject::Generation(generation) => of_generation(entries, *generation),
            DecisionSubject::Incident(file) => {
                let is_it = |path: &str| file.as_ref().is_none_or(|file| path.rsplit('/').next() == Some(file));
                let found = entries.iter().rev().find(|entry| entry.text("evidence").is_some_and(is_it));
                match (found.and_then(Entry::generation), file) {
                    (Some(generation), _) => of_generation(entries, generation),
                    (None, Some(file)) => Err(format!("no event on record names the incident {file}")),
                    (None, None) => {
                        Err("no incident is on record: no gateway has hung or was above --memory-max".to_owned())
                    }
                }
            }
        }
    }
}

fn last(entries: &[Entry]) -> Result<Account, String> {
    let nothing = || "no restart, kill or refusal is on record".to_owned();
    let position = entries.iter().rposition(|entry| DECISIONS.contains(&entry.name.as_str())).ok_or_else(nothing)?;
    if let Some(generation) = entries[position].generation() {
        return of_generation(entries, generation);
    }
    // Which gateway led to that, if one did since the supervisor began.
    let begin = entries[..position].iter().rposition(|entry| entry.name == "supervisor.started").unwrap_or(0);
    let ended = entries[begin..position].iter().rev().find(|entry| ENDS.contains(&entry.name.as_str()));
    match ended.and_then(Entry::generation) {
        Some(generation) => of_generation(entries, generation),
        None => Ok(of_supervisor(&entries[begin..], position - begin)),
    }
}

fn of_generation(entries: &[Entry], generation: u64) -> Result<Account, String> {
    let is_its = |entry: &Entry| entry.generation() == Some(generation);
    let Some(begin) = entries.iter().position(is_its) else { return Err(missing(entries, generation)) };
    let end = entries.iter().rposition(|entry| is_its(entry) && ENDS.contains(&entry.name.as_str()));
    let Some(end) = end else {
        // It is about to be ended, or lives.
        let told = entries.iter().rfind(|entry| is_its(entry)).map(Entry::sentence).unwrap_or_default();
        return Err(format!("no end of gateway {generation} is on record; the last word about it: {told}"));
    };
    let life = &entries[begin..=end];
    let of_life = |name: &str| life.iter().rev().find(|entry| entry.name == name);
    let (hung, exceeded, exit) = (of_life("gateway.hung"), of_life("memory.exceeded"), &entries[end]);
    let cause = exit.text("cause").unwrap_or_default();
    let rule = match exit.name.as_str() {
        "gateway.spawn_failed" => Rule {
            decided: "could not be started",
            text: "no process could be created; it is tried again with a backoff and spends restart budget, unless an update \
                   replaces its program",
            advice: "the reason says what is missing",
        },
        "gateway.unseen" => Rule {
            decided: "may still run where it cannot be seen",
            text: "its supervisor ran on another machine or in another pid namespace and is gone; it counts as a failure",
            advice: "run one supervisor for a store directory, or stop the other gateway there",
        },
        _ if cause == "hung" && of_life("startup.timed_out").is_some() => rules::NOT_UP,
        _ => rules::of(cause),
    };
    let request = life.iter().rev().find(|entry| REQUESTS.contains(&entry.name.as_str()));
    let request = request.filter(|_| cause.contains("requested"));
    let supervisor = entries[..=end].iter().rev().find(|entry| entry.name == "supervisor.started");
    let next = consequences(&entries[end + 1..]);
    let gave_up = next.iter().find(|entry| entry.name == "restart.gave_up");
    let decided_at = hung.or(exceeded).filter(|_| !cause.contains("requested")).or(request).unwrap_or(exit);
    let mut inputs = inputs_of(life, hung, exceeded, exit);
    inputs.extend(next.iter().find(|entry| entry.name == "restart.scheduled").into_iter().flat_map(pace));
    inputs.extend(gave_up.and_then(budget));
    let (and_then, and_rule) = if gave_up.is_some() {
        (
            ", and the supervisor gave up (exit code 69)",
            "; after so many restarts, or the same death again, it gives up",
        )
    } else {
        ("", "")
    };
    Ok(Account {
        generation: Some(generation),
        at_ms: decided_at.at_ms,
        decision: format!("gateway {generation} {}{and_then}", rule.decided),
        rule: format!("{}{and_rule}", rule.text),
        inputs,
        asked_by: request.and_then(asker),
        conclusion: hung.or(exceeded).and_then(|entry| entry.text("conclusion")).map(str::to_owned),
        evidence: hung.or(exceeded).and_then(|entry| entry.text("evidence")).map(str::to_owned),
        output: output_of(life, supervisor, &entries[..=end]),
        before: signs(life),
        advice: advice(&rule, &next),
        next,
    })
}

fn missing(entries: &[Entry], generation: u64) -> String {
    let known = || entries.iter().filter_map(Entry::generation);
    match (known().min(), known().max()) {
        (Some(oldest), Some(_)) if generation < oldest => format!(
            "gateway {generation} is no longer on record, the oldest there is gateway {oldest}: 10000 events are kept, and no \
             longer than 30 days"
        ),
        (_, Some(newest)) => {
            format!("there has been no gateway {generation}: the newest on record is gateway {newest}")
        }
        (_, None) => format!("there has been no gateway {generation}: none is on record"),
    }
}

/// A supervisor that ended, or waits, without a gateway.
fn of_supervisor(entries: &[Entry], position: usize) -> Account {
    let decision = &entries[position];
    let is_refusal = decision.number("exit_code") == Some(78);
    let why = |name: &str| entries[..position].iter().rev().find(|entry| entry.name == name).map(Entry::sentence);
    let inputs =
        [("port", why("conflict.detected")), ("lease", why("lease.contended")), ("store", why("store.unavailable"))];
    let rule = if is_refusal {
        "exit code 78: another supervisor or gateway is in place, or a setting cannot work, so another start would not help"
    } else {
        "the supervisor ended, and no gateway of it had ended before"
    };
    let request = entries[..position].iter().rev().find(|entry| REQUESTS.contains(&entry.name.as_str()));
    let has_one =
        entries[..position].iter().any(|entry| matches!(entry.name.as_str(), "gateway.spawned" | "gateway.adopted"));
    let did = if has_one { "ended, and its gateway did not" } else { "started no gateway" };
    Account {
        generation: None,
        at_ms: decision.at_ms,
        decision: format!("the supervisor {did}: {}", decision.sentence()),
        rule: rule.to_owned(),
        inputs: inputs.into_iter().filter_map(|(name, why)| Some((name, why?))).collect(),
        asked_by: request.and_then(asker),
        conclusion: None,
        evidence: None,
        output: OutputOf::default(),
        before: signs(&entries[..=position]),
        next: consequences(&entries[position + 1..]),
        advice: if is_refusal { "remove what the reason names, then start again" } else { "see the reason" }.to_owned(),
    }
}

fn ms(entry: &Entry, name: &str) -> Option<String> {
    entry.number(name).map(|ms| human(Duration::from_millis(ms)))
}

fn mebibytes(entry: &Entry, name: &str) -> Option<String> {
    entry.number(name).map(|kb| format!("{} MiB", kb.div_ceil(1024)))
}

/// What the end was decided from.
fn inputs_of(
    life: &[Entry],
    hung: Option<&Entry>,
    exceeded: Option<&Entry>,
    exit: &Entry,
) -> Vec<(&'static str, String)> {
    let mut inputs = Vec::new();
    let mut add = |name, value: Option<String>| inputs.extend(value.map(|value| (name, value)));
    if let Some(hung) = hung {
        let why = hung.text("why").unwrap_or_default();
        let option = match why {
            "it never came up" | "it did not come back from its own restart" => "--startup-timeout",
            "it drains for longer than a gateway may" => "--stop-timeout",
            _ => "--hang-after",
        };
        add("why", Some(why.to_owned()));
        add("limit", ms(hung, "limit_ms").map(|limit| format!("{limit} ({option})")));
        add("last good probe", ms(hung, "last_good_ms").map(|ago| format!("{ago} before")));
        let failed = hung.number("failed_probes");
        add("failed probes", failed.map(|count| format!("{count}, and at least 3 are needed")));
        for probe in hung.texts("probes") {
            add("probe", Some(probe.to_owned()));
        }
        for extended in life.iter().filter(|entry| entry.name == "liveness.extended") {
            add("extension", Some(extended.sentence()));
        }
    }
    if let Some(exceeded) = exceeded {
        add("memory of its tree", mebibytes(exceeded, "tree_rss_kb"));
        add("limit", mebibytes(exceeded, "limit_kb").map(|limit| format!("{limit} (--memory-max)")));
    }
    let escalated = life.iter().rev().find(|entry| entry.name == "stop.escalated");
    add(
        "SIGKILL",
        escalated.map(|entry| match ms(entry, "grace_ms") {
            Some(grace) => format!("{} (it had {grace})", entry.text("why").unwrap_or_default()),
            None => entry.sentence(),
        }),
    );
    let status = exit.number("code").map(|code| format!("code {code}"));
    let signal = exit.number("signal").map(|signal| format!("signal {signal}"));
    add("exit status", status.or(signal));
    add("uptime", ms(exit, "uptime_ms"));
    add("peak memory", mebibytes(exit, "max_rss_kb"));
    if exit.name != "gateway.exited" {
        add("reason", exit.text("why").map(str::to_owned));
    }
    inputs
}

/// What the time of the next start was decided from.
fn pace(scheduled: &Entry) -> Vec<(&'static str, String)> {
    let of = |count: &str, most: &str| Some((scheduled.number(count)?, scheduled.number(most)?));
    let delay =
        ms(scheduled, "delay_ms").map(|delay| format!("{delay}: {}", scheduled.text("why").unwrap_or_default()));
    let backoff = scheduled.number("failures").zip(ms(scheduled, "backoff_max_ms"));
    let boots = of("unclean_boots", "boot_limit").zip(ms(scheduled, "boot_window_ms"));
    let all = [
        ("next start in", delay),
        ("restart budget", budget(scheduled).map(|(_, text)| text)),
        (
            "failures in a row",
            backoff.map(|(failures, most)| {
                format!("{failures}; the delay doubles with each, up to {most} (--backoff-max)")
            }),
        ),
        (
            "unclean boots",
            boots.map(|((boots, limit), window)| {
                format!(
                    "{boots} within {window}, and more than {limit} would delay a start (--boot-limit, --boot-window)"
                )
            }),
        ),
    ];
    all.into_iter().filter_map(|(name, value)| Some((name, value?))).collect()
}

fn budget(event: &Entry) -> Option<(&'static str, String)> {
    let (used, most) = (event.number("restarts")?, event.number("max_restarts")?);
    let window = ms(event, "window_ms")?;
    Some(("restart budget", format!("{used} of {most} spent within {window} (--max-restarts, --restart-window)")))
}

fn asker(request: &Entry) -> Option<Asker> {
    let uid = request.number("by_uid").and_then(|uid| u32::try_from(uid).ok());
    Some(Asker { text: request.text("by")?.to_owned(), uid })
}

/// `until_end`: all entries up to the end of that life. Output once moved stays so for as long as its supervisor runs.
fn output_of(life: &[Entry], supervisor: Option<&Entry>, until_end: &[Entry]) -> OutputOf {
    let pids = life.iter().filter(|entry| entry.name.starts_with("gateway."));
    let mut pids: Vec<u64> = pids.filter_map(|entry| entry.number("pid")).collect();
    pids.sort_unstable();
    pids.dedup();
    let member = |name: &str| supervisor.and_then(|entry| entry.text(name)).map(str::to_owned);
    let mut own = until_end.iter().rev().take_while(|entry| entry.name != "supervisor.started");
    let moved = own.find(|entry| entry.name == "output.moved");
    OutputOf {
        pids,
        from_ms: life.first().map_or(0, |entry| entry.at_ms),
        until_ms: life.last().map_or(0, |entry| entry.at_ms),
        manager: member("manager"),
        place: member("output"),
        moved_to: moved.and_then(|entry| entry.text("to")).map(str::to_owned),
    }
}

/// The events that led to the end: what was wrong, what was asked for, and the end itself.
fn signs(life: &[Entry]) -> Vec<Entry> {
    let tells = |entry: &&Entry| {
        let name = entry.name.as_str();
        let is_wrong = entry.level.is_some_and(|level| level > crate::core::report::Severity::Info);
        is_wrong
            || REQUESTS.contains(&name)
            || ENDS.contains(&name)
            || matches!(name, "signal.received" | "gateway.started")
    };
    let signs: Vec<_> = life.iter().filter(tells).cloned().collect();
    signs[signs.len().saturating_sub(EVENTS_MAX)..].to_vec()
}

/// Up to the next gateway that is up, or the end of the supervisor.
fn consequences(after: &[Entry]) -> Vec<Entry> {
    let mut next = Vec::new();
    for entry in after.iter().filter(|entry| CONSEQUENCES.contains(&entry.name.as_str())).take(EVENTS_MAX) {
        next.push(entry.clone());
        if matches!(entry.name.as_str(), "gateway.started" | "supervisor.stopped") {
            break;
        }
    }
    next
}

/// What to do, as far as it was not done yet.
fn advice(rule: &Rule, next: &[Entry]) -> String {
    let up = next.iter().find(|entry| entry.name == "gateway.started");
    let has_ended = next.iter().any(|entry| entry.name == "restart.gave_up");
    match up.and_then(Entry::generation) {
        Some(generation) => format!("gateway {generation} came up after it; {}", rule.advice),
        None if has_ended => format!("{}; fix that, then start again", rule.advice),
        None => rule.advice.to_owned(),
    }
}
