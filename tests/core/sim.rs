//! Thousands of seeded worlds against the promises of `docs/TESTING.md`, and every planted fault against them.
//!
//! `SEED=n cargo test --test sim` replays one world and prints its whole log; `SEEDS=n` or `SEEDS=a..b` runs that many, or those;
//! `REPORTS=FILE` writes every report of them to a file, to compare before and after a change that should not show.

#[path = "../sim/dice.rs"]
mod dice;
#[path = "../support/fake_shell.rs"]
mod fake_shell;
#[path = "../sim/gateway.rs"]
mod gateway;
#[path = "../sim/judge.rs"]
mod judge;
#[path = "../sim/records.rs"]
mod records;
#[path = "../sim/trial.rs"]
mod trial;
#[path = "../sim/world.rs"]
mod world;

use fake_shell::Broken;
use openclaw_supervise_core::fault::Fault;
use openclaw_supervise_core::{Effect, Fact, Policy, Report, Settled, Supervisor};
use std::collections::BTreeMap;
use std::env;
use std::io::{self, Write};
use std::ops::Range;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use trial::{Maker, replay, shrink};
use world::World;

const SEEDS: u64 = 50_000;

/// A long run ends after so many failures.
const FAILURES_MAX: u64 = 100;

/// A fault has to be caught within this many seeds.
const FAULT_SEEDS: u64 = 3000;

/// `SEEDS=n` or `SEEDS=a..b`.
fn seeds() -> Option<Range<u64>> {
    let text = env::var("SEEDS").ok()?;
    let (from, to) = text.split_once("..").unwrap_or(("0", &text));
    let range = from.parse().ok().zip(to.parse().ok()).map(|(from, to)| from..to);
    Some(range.unwrap_or_else(|| panic!("SEEDS={text}: expected a number, or a range such as 0..5000000")))
}

fn number(name: &str) -> Option<u64> {
    env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Writes past the output capture of the test harness: this text is what `SEED` and `SEEDS` are for.
fn tell(text: &str) {
    let _closed = writeln!(io::stderr(), "{text}");
}

fn sound(policy: &Policy) -> Supervisor {
    Supervisor::new(policy.clone())
}

/// All that one needs to see why a seed fails.
fn failure(seed: u64, world: &World<'_>, broken: &Broken, make: Maker<'_>) -> String {
    let trial = &world.sups[world.acting].trial;
    let short = shrink(&trial.policy, make, &trial.log, broken);
    format!(
        "seed {seed} breaks {}: {}\n{:#?}\n\n{}\n\
         shortest failing record, {} inputs (none: it takes more than one supervisor):\n{}\n\
         SEED={seed} cargo test --test sim replays it\n",
        broken.promise,
        broken.what,
        trial.policy,
        world.story(),
        short.log.len(),
        short.story(),
    )
}

/// How often each report and each exit code was seen.
type Seen = BTreeMap<String, u64>;

/// What an effect is counted as.
fn noteworthy(effect: &Effect) -> Option<String> {
    Some(match effect {
        Effect::Report(Report::RestartGaveUp { why, .. }) if why.contains("in a row") => "a crash loop".to_owned(),
        Effect::Report(Report::LeaseContended { ends_within: Some(_), .. }) => "a stopping owner".to_owned(),
        Effect::Report(report) => report.name().to_owned(),
        Effect::Exit(outcome) => format!("exit {}", outcome.code),
        Effect::Examine { .. } => "evidence collected".to_owned(),
        Effect::Notify(notice) => format!("{notice:?}"),
        Effect::Hook { call, .. } => format!("a hook called: {}", call.hook().name()),
        Effect::EndHook { .. } => "a hook ended".to_owned(),
        Effect::KillHook { .. } => "a hook killed".to_owned(),
        Effect::Consume { .. } => "a handoff asked for".to_owned(),
        Effect::Remember { fact: Fact::Settled(Settled::Postponed), .. } => "a start postponed".to_owned(),
        Effect::Spawn { no_respawn: true, .. } => "a successor forbidden".to_owned(),
        Effect::Lease { .. }
        | Effect::AskOwner { .. }
        | Effect::Adopt { .. }
        | Effect::ClearHooks { .. }
        | Effect::Record { .. }
        | Effect::Confirm { .. }
        | Effect::FinishSweep
        | Effect::Watch { .. }
        | Effect::Remember { .. }
        | Effect::Probe { .. }
        | Effect::Follow(_)
        | Effect::Spawn { .. }
        | Effect::Measure { .. }
        | Effect::Negotiate
        | Effect::Terminate { .. }
        | Effect::TerminateListener { .. }
        | Effect::SeekHeir { .. }
        | Effect::KillTree { .. } => return None,
    })
}

/// Runs seeds on two threads and counts what they reached. With `SEEDS` every failure is told in a line; the first one ends
/// it otherwise, and the number of worlds that ran is told at the end.
fn explore(seeds: Range<u64>) -> Result<Seen, String> {
    let next = AtomicU64::new(seeds.start);
    let (ran, broken) = (AtomicU64::new(0), AtomicU64::new(0));
    let all = env::var_os("SEEDS").is_some();
    let work = || {
        let (mut reached, mut first) = (Seen::new(), None);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= seeds.end {
                return first.map_or(Ok(reached), Err);
            }
            let (world, end) = world::run(seed, &sound);
            ran.fetch_add(1, Ordering::Relaxed);
            if let Err(found) = end {
                if broken.fetch_add(1, Ordering::Relaxed) >= FAILURES_MAX || !all {
                    next.store(seeds.end, Ordering::Relaxed);
                }
                if all {
                    tell(&format!("seed {seed} breaks {}: {}", found.promise, found.what));
                }
                first.get_or_insert_with(|| failure(seed, &world, &found, &sound));
            }
            for (_, effect) in world.sups.iter().flat_map(|sup| &sup.trial.effects) {
                if let Some(what) = noteworthy(effect) {
                    *reached.entry(what).or_default() += 1;
                }
            }
        }
    };
    let both = thread::scope(|scope| {
        let second = scope.spawn(work);
        [work(), second.join().unwrap_or_else(|_| Err("a thread panicked".to_owned()))]
    });
    if all {
        let Range { start, end } = seeds;
        let (ran, broken) = (ran.into_inner(), broken.into_inner());
        tell(&format!("{ran} worlds ran, of the seeds {start}..{end}; {broken} of them broke a promise"));
    }
    let mut seen = Seen::new();
    for reached in both {
        for (what, count) in reached? {
            *seen.entry(what).or_default() += count;
        }
    }
    Ok(seen)
}

/// What the worlds have to reach: a promise about something that never happens is not tested.
const REACHED: [&str; 69] = [
    "Ready",
    "Reloading",
    "Stopping",
    "evidence collected",
    "a handoff asked for",
    "a hook called: repair",
    "a start postponed",
    "a successor forbidden",
    "a crash loop",
    "a stopping owner",
    "a hook ended",
    "a hook killed",
    "exit 0",
    "exit 1",
    "exit 69",
    "exit 75",
    "exit 78",
    "clock.jumped",
    "conflict.detected",
    "conflict.resolved",
    "detach.requested",
    "endpoint.changed",
    "gateway.adopted",
    "gateway.exited",
    "gateway.followed",
    "gateway.hung",
    "gateway.listening",
    "gateway.spawn_failed",
    "gateway.spawned",
    "gateway.started",
    "gateway.succeeded",
    "handoff.accepted",
    "handoff.missing",
    "handoff.rejected",
    "handoff.timed_out",
    "handoff.unsupported",
    "hook.finished",
    "hook.started",
    "hook.timed_out",
    "installer.awaited",
    "installer.killed",
    "lease.acquired",
    "lease.contended",
    "lease.lost",
    "lease.stale_recovered",
    "lease.unconfirmed",
    "liveness.blocked",
    "liveness.degraded",
    "liveness.extended",
    "liveness.missed",
    "liveness.recovered",
    "memory.exceeded",
    "probe.verdict_changed",
    "readiness.changed",
    "restart.gave_up",
    "restart.requested",
    "restart.scheduled",
    "retry.requested",
    "standby.entered",
    "standby.left",
    "startup.timed_out",
    "stop.escalated",
    "stop.forwarded",
    "stop.requested",
    "store.available",
    "store.unavailable",
    "supervision.paused",
    "supervision.resumed",
    "tree.killed",
];

/// A report as the event log has it, at the beginning of time.
fn line(report: &Report) -> io::Result<String> {
    let members = serde_json::to_string(report)?;
    let comma = if members == "{}" { "" } else { "," };
    Ok(format!(r#"{{"event":"{}","at":"1970-01-01T00:00:00.000Z"{comma}{}"#, report.name(), &members[1..]))
}

/// Every report of these worlds: severity, JSON and sentence, a line each.
fn dump(seeds: Range<u64>, path: &str) -> io::Result<()> {
    let mut file = io::BufWriter::new(std::fs::File::create(path)?);
    for seed in seeds {
        let (world, _) = world::run(seed, &sound);
        for (number, sup) in (1..).zip(&world.sups) {
            for (at, effect) in &sup.trial.effects {
                if let Effect::Report(report) = effect {
                    let (severity, json) = (report.severity(), line(report)?);
                    writeln!(file, "{seed} {number} {at:?} {severity:?} {json} {report}")?;
                }
            }
        }
    }
    file.flush()
}

#[test]
fn no_world_breaks_a_promise() {
    if let Some(seed) = number("SEED") {
        let (world, end) = world::run(seed, &sound);
        if let Err(broken) = end {
            panic!("{}", failure(seed, &world, &broken, &sound));
        }
        return tell(&format!("seed {seed} keeps every promise; its log:\n{}", world.story()));
    }
    let seeds = seeds().unwrap_or(0..SEEDS);
    if let Ok(path) = env::var("REPORTS") {
        return dump(seeds, &path).unwrap();
    }
    let many = seeds.end.saturating_sub(seeds.start);
    let seen = explore(seeds).unwrap_or_else(|failure| panic!("{failure}"));
    let often = |what: &&str| seen.get(*what).copied().unwrap_or(0) > many / 1000;
    let missing: Vec<_> = REACHED.into_iter().filter(|what| !often(what)).collect();
    assert!(missing.is_empty(), "hardly a world reaches {missing:?}: {seen:?}");
}

/// The first seed that a fault fails on, and the promise that it breaks there.
fn caught(fault: Fault) -> Option<(u64, Broken)> {
    let make = |policy: &Policy| Supervisor::with_fault(policy.clone(), fault);
    (0..FAULT_SEEDS).find_map(|seed| world::run(seed, &make).1.err().map(|broken| (seed, broken)))
}

/// The rows of the table of faults: `| Name | what is wrong | promise |`.
fn table(text: &str) -> Vec<(String, String)> {
    let rows = text.lines().filter_map(|line| {
        let cells: Vec<_> = line.strip_prefix("| `")?.strip_suffix(" |")?.split(" | ").collect();
        let [name, _, promise] = cells.as_slice() else { return None };
        Some((name.trim_end_matches('`').to_owned(), (*promise).to_owned()))
    });
    rows.collect()
}

#[test]
fn every_planted_fault_is_caught_by_the_check_that_the_table_names() {
    let found: Vec<_> = Fault::all().map(|fault| (fault, caught(fault))).collect();
    let mut expected = Vec::new();
    for (fault, caught) in &found {
        let Some((seed, Broken { promise, what })) = caught else {
            panic!("{fault:?} breaks no promise within {FAULT_SEEDS} seeds; {found:#?}")
        };
        if seeds().is_some() {
            tell(&format!("{fault:?}: seed {seed}, {promise}: {what}"));
        }
        expected.push((format!("{fault:?}"), (*promise).to_owned()));
    }
    assert!(expected.len() > 20);
    let text = include_str!("../../docs/TESTING.md");
    assert_eq!(table(text), expected, "the table in docs/TESTING.md is out of step");
}

#[test]
fn a_failing_record_is_shrunk_to_what_it_needs_and_fails_still() {
    let make = |policy: &Policy| Supervisor::with_fault(policy.clone(), Fault::ExitToldTwice);
    let failing = (0..FAULT_SEEDS).find_map(|seed| {
        let (world, end) = world::run(seed, &make);
        let long = world.sups[world.acting].trial.log.len() > 40;
        end.err().filter(|_| long).map(|broken| (seed, world, broken))
    });
    let Some((seed, world, broken)) = failing else { panic!("the fault is not caught") };
    let trial = &world.sups[world.acting].trial;
    let short = shrink(&trial.policy, &make, &trial.log, &broken);
    assert!(short.log.len() < 20, "{}", short.story());
    let told = failure(seed, &world, &broken, &make);
    assert!(told.contains("P9") && told.contains(&format!("SEED={seed}")), "{told}");
    let (_, kept) = replay(&trial.policy, sound(&trial.policy), &short.log).unwrap_or_else(|| panic!("not lawful"));
    assert_eq!(kept, None, "without the fault the same record keeps every promise");
}
