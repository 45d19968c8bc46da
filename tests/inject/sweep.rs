//! Which cases there are, and their table.

use super::calls;
use super::notifier::{Failure, Plan};
use super::phase::{self, End, Outcome, PHASES, Phase, describe_plan};
use crate::support::Scene;
use crate::support::bystander::Bystander;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use std::{env, thread};

/// Longer than `--hang-after` of the tests, and a probe's own time.
const DELAY: Duration = Duration::from_millis(1500);

/// The cases of the sample, about one for each system call, and so many threads run them.
const SAMPLE: usize = 90;

/// Cases in which the sweep has found a defect.
const FOUND: [&str; 6] = [
    // The gateway ran on, and another was started beside it.
    "hang / epoll_ctl pipe: ENOMEM / first",
    "respawn / epoll_ctl pipe: ENOSPC / first",
    // What could not be examined was told as missing.
    "start / access file: ENOMEM / first",
    "start / access file: EIO / first",
    "start / execve file: EIO / first",
    // One that could not be held was taken for dead.
    "adoption / pidfd_open: ENODEV / second",
];

#[derive(Debug, Clone)]
struct Case {
    phase: Phase,
    position: &'static str,
    plan: Plan,
}

impl Case {
    fn name(&self) -> String {
        format!("{} / {} / {}", self.phase, describe_plan(&self.plan), self.position)
    }
}

pub(crate) fn run() {
    let is_whole = env::var("INJECT").is_ok_and(|which| which == "all");
    let seed = number("INJECT_SEED").unwrap_or(1);
    let only = env::var("INJECT_ONLY").unwrap_or_default();
    let limit = number("INJECT_MINUTES").map(|minutes| Duration::from_secs(60 * minutes));
    let workers = number("INJECT_JOBS").map_or(8, |jobs| usize::try_from(jobs).unwrap_or(8));
    say(&format!("INJECT_SEED={seed}"));
    let mut cases: Vec<_> = thread::scope(|scope| {
        let phases: Vec<_> = PHASES.into_iter().map(|phase| scope.spawn(move || cases_of(phase))).collect();
        phases.into_iter().flat_map(|phase| phase.join().expect("a phase without failures")).collect()
    });
    cases.retain(|case| case.name().contains(&only));
    shuffle(&mut cases, seed);
    if !is_whole && only.is_empty() {
        cases = sample(cases);
    }
    say(&format!("{} cases", cases.len()));
    let outcomes = run_all(&cases, workers, limit);
    let table = Table::of(&cases, &outcomes);
    say(&table.text);
    assert!(
        table.broken == 0,
        "{} of {} cases broke a promise; repeat one with INJECT_ONLY='{}'",
        table.broken,
        outcomes.len(),
        table.first
    );
}

pub(crate) fn number(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Past the harness, which keeps the output of a test that passes.
pub(crate) fn say(text: &str) {
    let _closed = writeln!(std::io::stderr(), "{text}");
}

/// Every failure of every call that a phase without failures makes.
fn cases_of(phase: Phase) -> Vec<Case> {
    let elsewhere = Scene::new("");
    let mut bystander = Bystander::namesake(&elsewhere);
    // What one run makes less often than another may not be reached.
    let counts = || {
        let outcome = phase::run(phase, None, &mut bystander);
        assert!(outcome.broken.is_empty(), "{phase} without failures: {:?}\n{}", outcome.broken, outcome.story);
        outcome.counts
    };
    let runs: Vec<_> = std::iter::repeat_with(counts).take(2).collect();
    let unknown: Vec<_> = runs.iter().flat_map(BTreeMap::keys).filter(|call| call.starts_with('#')).collect();
    assert!(unknown.is_empty(), "system calls that tests/inject/calls.rs does not name: {unknown:?}");
    let mut cases = Vec::new();
    for (call, &first) in &runs[0] {
        let count = runs.iter().map(|run| run.get(call).copied().unwrap_or(0)).min().unwrap_or(first).max(1);
        let positions: BTreeMap<_, _> = [(count, "last"), (2.min(count), "second"), (1, "first")].into();
        let mut failures: Vec<_> = calls::errors(call).iter().copied().map(Failure::Errno).collect();
        failures.extend(calls::may_be_slow(call).then_some(Failure::Delay(DELAY)));
        for (&number, &position) in &positions {
            let plan = |&failure| Plan { call: call.clone(), number, failure };
            cases.extend(failures.iter().map(|failure| Case { phase, position, plan: plan(failure) }));
        }
    }
    cases
}

/// An order that depends on the seed and each case alone: what one run makes more of changes no other place.
fn shuffle(cases: &mut [Case], seed: u64) {
    cases.sort_by_cached_key(|case| {
        // Fowler, Noll and Vo, and the mix of `SplitMix64`.
        let name = case.name();
        let hash = name.bytes().fold(seed, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3));
        let mixed = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed ^ (mixed >> 27)
    });
}

/// What has once broken a promise, and one case of each call, up to [`SAMPLE`].
fn sample(cases: Vec<Case>) -> Vec<Case> {
    let (known, others): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| FOUND.contains(&case.name().as_str()));
    let mut seen = BTreeSet::new();
    let new = others.into_iter().filter(|case| seen.insert(case.plan.call.clone()));
    known.into_iter().chain(new).take(SAMPLE).collect()
}

fn run_all(cases: &[Case], workers: usize, limit: Option<Duration>) -> Vec<(usize, Outcome)> {
    let (next, outcomes, started) = (AtomicUsize::new(0), Mutex::new(Vec::new()), Instant::now());
    let work = || {
        let elsewhere = Scene::new("");
        let (mut bystander, mut since) = (Bystander::namesake(&elsewhere), Instant::now());
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(case) = cases.get(index).filter(|_| limit.is_none_or(|limit| started.elapsed() < limit)) else {
                break;
            };
            let run = AssertUnwindSafe(|| phase::run(case.phase, Some(&case.plan), &mut bystander));
            let outcome = catch_unwind(run).unwrap_or_else(|panic| failed(panic.downcast_ref::<String>().cloned()));
            if !outcome.broken.is_empty() {
                say(&format!("BROKEN {}: {:?} ({})\n{}", case.name(), outcome.broken, hit(&outcome), outcome.story));
            }
            // It lives for three minutes.
            if bystander.has_ended() || since.elapsed() > Duration::from_mins(1) {
                (bystander, since) = (Bystander::namesake(&elsewhere), Instant::now());
            }
            let mut done = outcomes.lock().expect("no holder panics");
            done.push((index, outcome));
            if done.len() % 100 == 0 {
                say(&format!("{} of {} cases after {:?}", done.len(), cases.len(), started.elapsed()));
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    outcomes.into_inner().expect("no holder panics")
}

/// A case that could not be played.
fn failed(panic: Option<String>) -> Outcome {
    let story = panic.unwrap_or_default();
    let broken = vec![format!("setup: {}", story.lines().next().unwrap_or("a panic"))];
    Outcome { end: End::Stuck, hit: None, broken, took: Duration::ZERO, counts: BTreeMap::new(), story }
}

fn hit(outcome: &Outcome) -> String {
    let hit = outcome.hit.as_ref();
    hit.map_or("not reached".to_owned(), |hit| format!("thread {}, {}", hit.thread, hit.about))
}

struct Table {
    text: String,
    broken: usize,
    /// The first case that broke a promise.
    first: String,
}

impl Table {
    fn of(cases: &[Case], outcomes: &[(usize, Outcome)]) -> Self {
        let mut rows: BTreeMap<(Phase, String), BTreeMap<String, usize>> = BTreeMap::new();
        let (mut broken, mut first, mut missed) = (0, String::new(), 0);
        for (index, outcome) in outcomes {
            let case = &cases[*index];
            let row = rows.entry((case.phase, describe_plan(&case.plan))).or_default();
            let word = if !outcome.broken.is_empty() {
                broken += 1;
                first = case.name();
                format!("BROKEN {}", case.position)
            } else if outcome.hit.is_none() {
                missed += 1;
                "not reached".to_owned()
            } else {
                outcome.end.to_string()
            };
            *row.entry(word).or_default() += 1;
        }
        let mut lines =
            vec![format!("{:<10} {:<34} outcome of the first, second and last call", "phase", "system call: failure")];
        for ((phase, plan), words) in &rows {
            let words: Vec<_> = words.iter().map(|(word, count)| format!("{word} x{count}")).collect();
            lines.push(format!("{phase:<10} {plan:<34} {}", words.join(", ")));
        }
        let mut slowest: Vec<_> = outcomes.iter().map(|(index, outcome)| (outcome.took, *index)).collect();
        slowest.sort_unstable();
        for (took, index) in slowest.iter().rev().take(10) {
            lines.push(format!("slow: {took:?} {}", cases[*index].name()));
        }
        lines.push(format!("{} cases: {broken} broke a promise, {missed} were not reached", outcomes.len()));
        Self { text: lines.join("\n"), broken, first }
    }
}
