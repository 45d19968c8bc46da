//! When may the next gateway start, and when is it time to give up?
//!
//! Three brakes, the strictest wins:
//! - the backoff, for gateways that do not stay up;
//! - the breaker, which keeps the gateway's own from tripping: OpenClaw comes up with every channel switched off once
//!   it finds three unclean boots within 300 s behind it;
//! - the budget, after which we give up.

use super::fault::Fault;
use super::handoff::PENDING_MAX;
pub use super::history::{Cause, Run};
use super::history::{PastRun, Settled};
use super::pace::{BACKOFF_MIN, JUST_AFTER, QuickRestarts};
use super::units::human;
use super::{Moment, Policy};
use crate::prelude::*;
use alloc::collections::VecDeque;
use core::time::Duration;

/// What comes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Plan {
    /// Start at this moment.
    Start {
        /// Not before now.
        at: Moment,
        /// For people.
        why: String,
        /// Whether the last end was a failure.
        after_failure: bool,
    },
    /// Do not start again.
    GiveUp {
        /// How many restarts the window holds.
        restarts: u32,
    },
}

/// What a plan was made from, for the record: the counts of this moment and the settings that they are compared with.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PaceFacts {
    /// Failures since the last stable run.
    pub failures: u32,
    /// Restarts within `restart_window`.
    pub restarts: u32,
    pub max_restarts: u32,
    pub restart_window: Duration,
    /// Unclean boots within `boot_window`.
    pub unclean_boots: u32,
    pub boot_limit: u32,
    pub boot_window: Duration,
    pub backoff_max: Duration,
}

/// The history of starts that the decision needs.
#[derive(Debug, Clone)]
pub struct RestartPolicy {
    /// When the unclean boots were stamped, oldest first.
    unclean: VecDeque<Moment>,
    /// When restarts after short runs were granted, oldest first.
    spent: VecDeque<Moment>,
    /// Exits that were followed by a start at once and wait for the word whether they were planned, oldest first.
    open: Vec<Moment>,
    /// Requested and planned restarts that came fast.
    quick: QuickRestarts,
    /// Failures since the last stable run.
    failures: u32,
    /// The last exit without a request, which may have been planned.
    clean_exit: Option<Moment>,
    /// The one before it, while it waits for a word.
    before: Option<Moment>,
    trial: Trial,
    jitter: SplitMix,
}

/// Starts after we gave up: a manager that starts us again after 69 gets one trial per `backoff_max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trial {
    /// No supervisor gave up.
    Unneeded,
    /// One did, at this moment.
    After(Moment),
    /// A person does not want to wait for it.
    Granted,
}

impl RestartPolicy {
    /// An empty history.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            unclean: VecDeque::new(),
            spent: VecDeque::new(),
            open: Vec::new(),
            quick: QuickRestarts::default(),
            failures: 0,
            clean_exit: None,
            before: None,
            trial: Trial::Unneeded,
            jitter: SplitMix(seed),
        }
    }

    /// Takes in what happened before us, oldest first: the same rules give the same state.
    pub fn recall(&mut self, runs: &[PastRun], policy: &Policy) {
        if policy.planted.is(Fault::HistoryForgotten) {
            return;
        }
        for PastRun { spawned, settled, .. } in runs {
            self.begin(*spawned);
            match settled {
                Settled::Postponed => continue,
                Settled::Ran(run, cause) => self.after_run(run.ended, *run, *cause, policy),
                Settled::NeverStarted => self.after_spawn_failure(*spawned, policy),
            };
        }
    }

    /// A gateway ended on request, or as it had planned.
    pub fn note_asked(&mut self, at: Moment, run: &Run, policy: &Policy) {
        self.quick.note_run(at, run, policy);
    }

    /// A start is requested while no gateway is there.
    pub fn note_hurried(&mut self, at: Moment) {
        self.quick.note(at);
    }

    /// A person does not want to wait.
    pub fn forget_asked(&mut self) {
        self.quick.forget();
    }

    /// When a restart that is requested now may end a gateway that is not stable. `None`: at once.
    #[must_use]
    pub fn request_gate(&self, now: Moment, policy: &Policy) -> Option<Moment> {
        self.quick.request_gate(now, policy)
    }

    /// When a start may follow requested or planned restarts that came fast. `None`: at once.
    #[must_use]
    pub fn start_gate(&self, now: Moment, policy: &Policy) -> Option<Moment> {
        self.quick.start_gate(now, policy)
    }

    /// Why requests and starts are paced.
    #[must_use]
    pub fn pace_reason(&self, now: Moment, policy: &Policy) -> String {
        let (count, window) = (self.quick.in_window(now, policy), human(policy.boot_window));
        let stable = human(policy.stable_after);
        format!("{count} restarts on request within {window}, none of a gateway that had been healthy for {stable}")
    }

    /// A gateway is being started.
    pub fn begin(&mut self, now: Moment) {
        if self.trial != Trial::Unneeded {
            self.spent.push_back(now);
            self.trial = Trial::Unneeded;
        }
    }

    /// There is no sense in another start, though the budget may have room: it waits like one beyond that.
    pub fn require_trial(&mut self, now: Moment) {
        // What was paid for it just now is paid when it comes about.
        if self.trial == Trial::Unneeded && self.spent.back() == Some(&now) {
            self.spent.pop_back();
        }
        self.trial = Trial::After(now);
    }

    /// A start was requested, whatever the budget says.
    pub fn grant_trial(&mut self) {
        if self.trial != Trial::Unneeded {
            self.trial = Trial::Granted;
        }
    }

    /// When the first gateway of a supervisor may start that finds the budget spent, or no sense in a start; before now if nothing is in the
    /// way.
    #[must_use]
    pub fn slot(&self, policy: &Policy) -> Moment {
        match self.trial {
            Trial::After(gave_up) if !policy.planted.is(Fault::SpentBudgetIgnored) => {
                gave_up.saturating_add(policy.backoff_max)
            }
            Trial::After(_) | Trial::Unneeded | Trial::Granted => Moment::ZERO,
        }
    }

    /// How many restarts count against the budget now.
    #[must_use]
    pub fn spent_at(&self, now: Moment, policy: &Policy) -> u32 {
        let counts = self.spent.iter().filter(|at| at.saturating_add(policy.restart_window) > now).count();
        u32::try_from(counts).unwrap_or(u32::MAX)
    }

    #[must_use]
    pub fn facts(&self, now: Moment, policy: &Policy) -> PaceFacts {
        let Policy { max_restarts, restart_window, boot_limit, boot_window, backoff_max, .. } = *policy;
        let unclean = self.unclean.iter().filter(|stamp| stamp.saturating_add(boot_window) > now).count();
        PaceFacts {
            failures: self.failures,
            restarts: self.spent_at(now, policy),
            max_restarts,
            restart_window,
            unclean_boots: u32::try_from(unclean).unwrap_or(u32::MAX),
            boot_limit,
            boot_window,
            backoff_max,
        }
    }

    /// In how long the budget has room for one more than now. `None` if nothing counts against it.
    #[must_use]
    pub fn free_in(&self, now: Moment, policy: &Policy) -> Option<Duration> {
        let ends = self.spent.iter().map(|at| at.saturating_add(policy.restart_window));
        ends.filter(|end| *end > now).min().map(|end| end.saturating_sub(now))
    }

    /// Which start in a row the next one is, from 1.
    #[must_use]
    pub fn attempt(&self) -> u32 {
        self.failures.saturating_add(1)
    }

    /// The earliest moment at which the breaker lets a gateway start.
    #[must_use]
    pub fn gate(&self, now: Moment, policy: &Policy) -> Moment {
        let limit = policy.boot_limit as usize;
        if limit == 0 || policy.planted.is(Fault::BreakerIgnored) {
            return now;
        }
        // `limit` boots may stay in the window; the youngest one that may not has to leave it.
        let Some(index) = self.unclean.len().checked_sub(limit.saturating_add(1)) else { return now };
        self.unclean
            .get(index)
            .map_or(now, |stamp| now.max(stamp.saturating_add(policy.boot_window).saturating_add(JUST_AFTER)))
    }

    fn mark_unclean(&mut self, run: Run, policy: &Policy) {
        if run.clean {
            return;
        }
        // A predecessor's may be older than those that were recorded before it, if it cannot be dated.
        let stamp = run.unclean_stamp();
        let place = self.unclean.partition_point(|other| *other <= stamp);
        self.unclean.insert(place, stamp);
        // One of those that wait for a word may turn out to be clean.
        if self.unclean.len() > (policy.boot_limit as usize).saturating_add(1 + PENDING_MAX) {
            self.unclean.pop_front();
        }
    }

    /// It had planned its end after all, and closed its own record of it.
    fn unmark_unclean(&mut self, run: Run) -> bool {
        let index = self.unclean.iter().rposition(|stamp| *stamp == run.unclean_stamp()).filter(|_| !run.clean);
        index.and_then(|index| self.unclean.remove(index)).is_some()
    }

    /// Records the end of a run and plans the next start.
    pub fn after_run(&mut self, now: Moment, run: Run, cause: Cause, policy: &Policy) -> Plan {
        self.mark_unclean(run, policy);
        match cause {
            Cause::Asked => {
                self.note_asked(now, &run, policy);
                self.start_free(now, "as asked", policy)
            }
            Cause::Memory if policy.planted.is(Fault::MemorySpendsBudget) => self.retry(now, policy),
            Cause::CleanExit | Cause::Failed | Cause::Memory if run.healthy_for() >= policy.stable_after => {
                self.failures = 0;
                self.clean_exit = (cause == Cause::CleanExit).then_some(now);
                let why = format!("it had been healthy for {}", human(run.healthy_for()));
                self.start(now, Duration::ZERO, &why, false, policy)
            }
            Cause::CleanExit => {
                let last = self.clean_exit.replace(now);
                if is_repeated(last, now, policy) {
                    self.retry_exit(now, policy)
                } else {
                    self.retry_at_once(now, policy)
                }
            }
            // A limit that a gateway reaches as soon as it is up is a failure like any other.
            Cause::Failed | Cause::Memory => self.retry(now, policy),
        }
    }

    /// Plans the next start after an exit of which it is not known yet whether the gateway had planned it: it is started at
    /// once and spends nothing, unless that was so the last time and is not settled either. Nothing if the budget is
    /// spent, so that the word has to be waited for.
    pub fn after_exit(&mut self, now: Moment, run: Run, cause: Cause, policy: &Policy) -> Option<Plan> {
        if run.healthy_for() >= policy.stable_after {
            return Some(self.after_run(now, run, cause, policy));
        }
        self.mark_unclean(run, policy);
        let last = self.clean_exit.replace(now);
        let plan = if is_repeated(last, now, policy) {
            let is_spent = self.spent_at(now, policy) >= policy.max_restarts;
            (!is_spent || policy.planted.is(Fault::WordNotWaitedFor)).then(|| self.retry_exit(now, policy))
        } else {
            self.overdraw(now, now, policy)
        };
        self.before = last.filter(|_| plan.is_none());
        plan
    }

    /// Plans the start after an exit at `at` that has waited for the handoff verdicts on those before it, if its own is not
    /// needed.
    pub fn reconsider_exit(&mut self, now: Moment, at: Moment, policy: &Policy) -> Option<Plan> {
        if is_repeated(self.before, at, policy) { None } else { self.overdraw(now, at, policy) }
    }

    fn retry_exit(&mut self, now: Moment, policy: &Policy) -> Plan {
        if policy.planted.is(Fault::CleanExitsNeverBackOff) {
            return self.retry_at_once(now, policy);
        }
        self.retry(now, policy)
    }

    /// The budget may be overdrawn by one exit with a late verdict, and not by one after the other.
    fn overdraw(&mut self, now: Moment, at: Moment, policy: &Policy) -> Option<Plan> {
        let open = u32::try_from(self.open.len()).unwrap_or(u32::MAX);
        if self.spent_at(now, policy).saturating_add(open) > policy.max_restarts {
            return None;
        }
        self.open.push(at);
        let why = "it exited by itself; whether it had planned that is asked later";
        Some(self.start_free(now, why, policy))
    }

    /// What an exit that was planned for at `at` turned out to be. Says whether its next start was put off for what is not
    /// so.
    pub fn settle_exit(&mut self, at: Moment, run: Run, cause: Cause, is_planned: bool) -> bool {
        let spent = self.spent.iter().position(|spent| *spent == at);
        let open = self.open.iter().position(|open| *open == at).map(|index| self.open.remove(index));
        if is_planned {
            for last in [&mut self.clean_exit, &mut self.before] {
                last.take_if(|last| *last == at);
            }
            if let Some(index) = spent {
                self.spent.remove(index);
                self.failures = self.failures.saturating_sub(1);
            }
            return self.unmark_unclean(run) || spent.is_some();
        }
        if open.is_some() {
            let place = self.spent.partition_point(|spent| *spent <= at);
            self.spent.insert(place, at);
            self.failures = self.failures.saturating_add(u32::from(cause == Cause::Failed));
        }
        false
    }

    /// An exit that had to wait for its verdict was not planned: unless the budget has room again by now, that is the end.
    pub fn after_no(&mut self, now: Moment, policy: &Policy) -> Plan {
        self.retry(now, policy)
    }

    /// The program is another one: what failed before says nothing about it.
    pub fn renew(&mut self) {
        self.failures = 0;
    }

    /// Plans the next start after a process could not even be created. Nothing booted, so the breaker does not care.
    pub fn after_spawn_failure(&mut self, now: Moment, policy: &Policy) -> Plan {
        self.retry(now, policy)
    }

    /// Takes one restart out of the budget.
    fn spend(&mut self, now: Moment, policy: &Policy) -> Result<(), Plan> {
        self.spent.retain(|at| at.saturating_add(policy.restart_window) > now);
        let restarts = u32::try_from(self.spent.len()).unwrap_or(u32::MAX);
        let budget = policy.max_restarts.saturating_add(u32::from(policy.planted.is(Fault::BudgetOffByOne)));
        if restarts >= budget {
            self.trial = Trial::After(now);
            return Err(Plan::GiveUp { restarts });
        }
        if policy.planted.is(Fault::BudgetNotCounted) {
            return Ok(());
        }
        self.spent.push_back(now);
        Ok(())
    }

    fn retry_at_once(&mut self, now: Moment, policy: &Policy) -> Plan {
        match self.spend(now, policy) {
            Ok(()) => {
                self.start(now, Duration::ZERO, "it exited by itself with 0, as for a planned restart", false, policy)
            }
            Err(plan) => plan,
        }
    }

    fn retry(&mut self, now: Moment, policy: &Policy) -> Plan {
        if let Err(plan) = self.spend(now, policy) {
            return plan;
        }
        let full = BACKOFF_MIN.saturating_mul(1 << self.failures.min(20)).min(policy.backoff_max);
        self.failures = self.failures.saturating_add(1);
        let full = if policy.planted.is(Fault::BackoffIsZero) { Duration::ZERO } else { full };
        let delay = full / 2 + self.jitter.below(full / 2);
        let (spent, budget) = (self.spent.len(), policy.max_restarts);
        let window = human(policy.restart_window);
        let why = format!("failure {} in a row, restart {spent} of {budget} within {window}", self.failures);
        self.start(now, delay, &why, true, policy)
    }

    /// A start that costs nothing.
    fn start_free(&self, now: Moment, why: &str, policy: &Policy) -> Plan {
        match self.start_gate(now, policy) {
            Some(paced) if paced > self.gate(now, policy) => Plan::Start {
                at: paced,
                why: format!("{why}; {}", self.pace_reason(now, policy)),
                after_failure: false,
            },
            Some(_) | None => self.start(now, Duration::ZERO, why, false, policy),
        }
    }

    fn start(&self, now: Moment, delay: Duration, why: &str, after_failure: bool, policy: &Policy) -> Plan {
        let gate = self.gate(now, policy);
        let at = now.saturating_add(delay);
        if gate <= at {
            return Plan::Start { at, why: why.to_owned(), after_failure };
        }
        let (limit, window) = (policy.boot_limit, human(policy.boot_window));
        let why = format!("{why}; more than {limit} unclean boots within {window} would switch its channels off");
        Plan::Start { at: gate, why, after_failure }
    }
}

/// Whether the last exit of its kind was a short time before this one.
fn is_repeated(last: Option<Moment>, at: Moment, policy: &Policy) -> bool {
    last.is_some_and(|last| at < last.saturating_add(policy.stable_after))
}

/// Vigna's `SplitMix64` (2015): a generator of one word, enough to keep supervisors of a fleet apart.
#[derive(Debug, Clone)]
struct SplitMix(u64);

impl SplitMix {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A duration from zero up to and including `most`, in whole milliseconds.
    fn below(&mut self, most: Duration) -> Duration {
        let most = u64::try_from(most.as_millis()).unwrap_or(u64::MAX - 1);
        Duration::from_millis(self.next() % (most + 1))
    }
}
