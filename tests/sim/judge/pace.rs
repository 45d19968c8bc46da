//! P4: whether the next spawn is allowed, and whether the restart budget was spent at giving up.

use super::handoffs::{Cost, Exit};
use super::requests::QuickRestarts;
use crate::fake_shell::Broken;
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::{ExitStatus, Moment, PastRun, Policy, Settled};
use std::time::Duration;

const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// The class of an ended run, which decides how the next start is paced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Asked,
    Stable,
    Clean,
    /// An exit with 0 that waits for its verdict; `again` if it is not the first of late.
    Open {
        again: bool,
    },
    Failed,
}

/// An ended run.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one run; any combination happens")]
pub(crate) struct EndedRun {
    pub(crate) settled: Moment,
    /// How long its process lived.
    pub(crate) age: Duration,
    pub(crate) died: Moment,
    pub(crate) death: ExitStatus,
    pub(crate) started: Option<Moment>,
    /// It has answered a probe, though it may not have come up.
    pub(crate) answered: bool,
    /// It served for `stable_after`.
    pub(crate) stable: bool,
    pub(crate) clean: bool,
    /// A restart was requested.
    pub(crate) asked: bool,
    /// The supervisor had stopped it: its exit status says nothing.
    pub(crate) ended_by_us: bool,
    /// It was stopped for its memory.
    pub(crate) limited: bool,
    /// It ended while no supervisor ran.
    pub(crate) lost: bool,
    /// It was stopped on request, or because the store did not confirm the lease, which costs nothing.
    pub(crate) withdrawn: bool,
}

impl EndedRun {
    /// Since when it is an unclean boot, if it is one.
    pub(super) fn unclean(&self) -> Option<Moment> {
        (!self.clean).then(|| self.started.unwrap_or(self.died))
    }
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent conditions of the next start; any combination happens")]
pub(crate) struct Pace {
    policy: Policy,
    pub(crate) quick: QuickRestarts,
    spawns: Vec<Moment>,
    /// The spawns that count against the budget.
    costly: Vec<Moment>,
    /// The next spawn costs nothing.
    free: bool,
    /// When the last spawn was paid for, if it was.
    cost: Option<Moment>,
    /// The next spawn was paid for then, by one that did not happen.
    paid: Option<Moment>,
    /// The next start beyond the budget is a trial: the first of this supervisor, or the first after standby.
    trial: bool,
    /// A request waives the wait for a trial.
    waived: bool,
    /// This supervisor has made a trial.
    tried: bool,
    /// The last gateway that ended was stable: a request that hurries the next start comes at no pace.
    pub(super) ended_stable: bool,
    /// When the last end was settled.
    settled: Moment,
    /// When standby last ended, which explains a refusal.
    stood: Moment,
    /// When a verdict last said that an exit was not planned.
    rejected: Moment,
    unclean: Vec<Moment>,
    failures: u32,
    clean_exit: Option<Moment>,
    floor: Moment,
    pub(crate) pending: Option<Class>,
    /// Exits that were counted since the last end was settled: the next start was granted before that.
    late: usize,
    /// The decided start waits for an update.
    postponed: bool,
    /// The next start follows a repair: only the circuit breaker delays it.
    repair_changed_it: bool,
    /// This supervisor has seen a crash loop.
    crash_loop: bool,
    /// A predecessor has seen a crash loop: one trial, at its time.
    past_crash_loop: bool,
    /// A start was decided and has neither happened nor failed yet.
    begun: bool,
    /// A request lets the next start wait for nothing.
    forced: Forced,
    /// The start that was decided last is that one.
    excused: bool,
    /// The last gateway exited with 78, not explained by a conflict so far.
    pub(crate) refused: bool,
}

/// Whether the next start is to wait for nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Forced {
    No,
    /// It may, as far as can be known from outside.
    Maybe,
    Yes,
}

fn recent(times: &[Moment], now: Moment, window: Duration) -> usize {
    times.iter().filter(|at| **at + window > now).count()
}

impl Pace {
    pub(crate) fn new(policy: Policy) -> Self {
        let attended = policy.attended;
        Self {
            policy,
            quick: QuickRestarts::default(),
            spawns: Vec::new(),
            costly: Vec::new(),
            free: false,
            cost: None,
            paid: None,
            trial: true,
            waived: attended,
            tried: false,
            ended_stable: false,
            settled: Moment::ZERO,
            stood: Moment::ZERO,
            rejected: Moment::ZERO,
            unclean: Vec::new(),
            failures: 0,
            clean_exit: None,
            floor: Moment::ZERO,
            pending: None,
            begun: false,
            late: 0,
            postponed: false,
            repair_changed_it: false,
            crash_loop: false,
            past_crash_loop: false,
            forced: Forced::No,
            excused: false,
            refused: false,
        }
    }

    /// Counts the recorded runs, by the same rules.
    pub(crate) fn recall(&mut self, runs: &[PastRun]) {
        for PastRun { spawned, settled, .. } in runs {
            self.count(*spawned);
            let at = match settled {
                Settled::Ran(run, cause) => {
                    let stable = run.started.is_some() && run.healthy_for() >= self.policy.stable_after;
                    if !run.clean {
                        self.unclean.push(run.started.unwrap_or(run.ended));
                    }
                    if *cause == Cause::Asked && run.healthy_for() < self.policy.stable_after {
                        self.quick.note(run.ended, true);
                    }
                    self.classify(run.ended, *cause, stable, false);
                    run.ended
                }
                Settled::NeverStarted => {
                    self.pending = Some(Class::Failed);
                    *spawned
                }
                Settled::Postponed => {
                    self.take_back();
                    continue;
                }
            };
            self.settled = at;
            match self.pending.take() {
                // With the budget possibly spent no start was scheduled.
                Some(Class::Failed) if recent(&self.spawns, at, self.policy.restart_window) < self.budget() => {
                    self.failures += 1;
                }
                Some(Class::Failed) | None => {}
                Some(class) => self.pass(class),
            }
        }
    }

    fn budget(&self) -> usize {
        self.policy.max_restarts as usize
    }

    /// An end without a backoff; it may count against the budget.
    fn pass(&mut self, class: Class) {
        self.free |= class != Class::Clean;
        if class == Class::Stable {
            self.failures = 0;
        }
    }

    /// A request asks for a start past every wait.
    pub(super) fn force(&mut self, forced: Forced) {
        if self.forced != Forced::Yes {
            self.forced = forced;
        }
    }

    /// A gateway was found and goes on: that is the start that was asked for.
    pub(super) fn unforce(&mut self) {
        self.forced = Forced::No;
    }

    /// Counts a spawn.
    pub(crate) fn count(&mut self, at: Moment) {
        let paid = self.paid.take().unwrap_or(at);
        self.cost = (!std::mem::take(&mut self.free)).then_some(paid);
        self.costly.extend(self.cost);
        self.spawns.push(at);
    }

    /// Takes back the last counted start, which did not happen: what it cost is the cost of the next one.
    fn take_back(&mut self) {
        self.spawns.pop();
        let paid = self.cost.take().and_then(|cost| self.costly.iter().rposition(|paid| *paid == cost));
        self.paid = paid.map(|paid| self.costly.remove(paid));
        self.free |= self.paid.is_none();
    }

    /// The exit that a start waited for was not planned.
    pub(super) fn deny(&mut self, at: Moment) {
        self.rejected = at;
    }

    /// A counted start waits for an update.
    pub(super) fn postpone(&mut self) {
        self.take_back();
        self.begun = false;
        self.hold();
    }

    /// A counted start is taken back because the store does not confirm the lease.
    pub(super) fn withdraw(&mut self) {
        self.take_back();
        self.begun = false;
    }

    /// A start that was not counted yet waits for an update.
    pub(super) fn hold(&mut self) {
        (self.pending, self.postponed) = (None, true);
    }

    /// The program has changed.
    pub(super) fn renew(&mut self) {
        self.failures = 0;
    }

    /// A crash loop: no further start.
    pub(super) fn note_crash_loop(&mut self) {
        self.crash_loop = true;
    }

    /// Whether a predecessor ended in a crash loop.
    pub(super) fn recall_crash_loop(&mut self, past_crash_loop: bool) {
        self.past_crash_loop = past_crash_loop;
    }

    /// The last gateway has left a successor.
    pub(super) fn succeed(&mut self, at: Moment) {
        self.quick.note(at, false);
        (self.pending, self.refused, self.free, self.settled) = (None, false, true, at);
        self.forced = Forced::No;
    }

    /// A repair succeeded: the next start counts like any other.
    pub(super) fn repair(&mut self, at: Moment) {
        let spent = recent(&self.spawns, at, self.policy.restart_window) >= self.budget();
        (self.refused, self.settled, self.floor, self.repair_changed_it) = (false, at, at, true);
        match self.pending {
            // Then the exit follows, or this end was not counted yet.
            Some(Class::Failed) if spent && (self.tried || !self.trial) => return,
            Some(Class::Failed) if spent => self.trial = true,
            Some(Class::Failed) => self.failures += 1,
            Some(class) => self.pass(class),
            None => {}
        }
        self.pending = None;
    }

    /// Settles an exit that waited for its verdict.
    pub(super) fn settle_exit(&mut self, at: Moment, exit: &Exit, planned: bool) {
        let unbegun = self.spawns.last().is_none_or(|last| *last < exit.settled);
        let held = unbegun && self.pending.is_some();
        if planned {
            self.quick.note(exit.settled, !matches!(exit.cost, Cost::Never));
            self.clean_exit.take_if(|last| *last == exit.settled);
            if let Some(index) = self.unclean.iter().rposition(|stamp| Some(*stamp) == exit.unclean) {
                self.unclean.remove(index);
            }
        }
        match exit.cost {
            _ if held && planned => (self.pending, self.free, self.floor) = (Some(Class::Asked), true, at),
            _ if held => self.pending = Some(Class::Failed),
            Cost::Restart if planned => {
                self.failures = self.failures.saturating_sub(1);
                if unbegun {
                    (self.free, self.floor) = (true, at);
                } else if let Some(paid) = self.costly.iter().position(|paid| *paid >= exit.settled) {
                    self.costly.remove(paid);
                }
            }
            Cost::Nothing if planned && unbegun => (self.free, self.floor) = (true, at),
            Cost::Nothing if !planned => {
                self.costly.push(exit.settled);
                self.late += 1;
                self.failures += u32::from(exit.unknown);
                if unbegun {
                    self.spawns.push(exit.settled);
                }
            }
            Cost::Restart | Cost::Nothing | Cost::Never => {}
        }
    }

    /// A start may wait for a verdict only if the budget was spent at the exit. The wait is bounded; the window moves on.
    pub(super) fn may_hold(&self) -> Result<(), Broken> {
        let spent = recent(&self.spawns, self.settled, self.policy.restart_window);
        if spent < self.budget() {
            return Err(Broken::new("P4", format!("a start waits for a verdict with {spent} spawns in the window")));
        }
        Ok(())
    }

    /// Settles an ended run. `waits` says that an exit with 0 waits for its verdict.
    pub(super) fn settle(&mut self, run: &EndedRun, waits: bool) -> Cost {
        self.unclean.extend(run.unclean());
        let unasked = |code| !run.ended_by_us && !run.asked && run.death == ExitStatus::Code(code);
        self.refused = unasked(78) && !run.lost;
        let cause = match () {
            () if run.asked || run.withdrawn => Cause::Asked,
            () if run.limited => Cause::Memory,
            () if unasked(0) && run.answered => Cause::CleanExit,
            () => Cause::Failed,
        };
        (self.settled, self.late, self.ended_stable) = (run.settled, 0, run.stable);
        if cause == Cause::Asked && !run.stable {
            self.quick.note(run.settled, true);
        }
        self.classify(run.settled, cause, run.stable, waits);
        match self.pending {
            Some(Class::Failed) => Cost::Restart,
            Some(Class::Open { .. }) => Cost::Nothing,
            Some(Class::Asked | Class::Stable | Class::Clean) | None => Cost::Never,
        }
    }

    fn classify(&mut self, settled: Moment, cause: Cause, stable: bool, waits: bool) {
        let again = |last: Moment| settled < last + self.policy.stable_after;
        let class = match cause {
            Cause::Asked => Class::Asked,
            Cause::CleanExit | Cause::Failed | Cause::Memory if stable => {
                self.clean_exit = (cause == Cause::CleanExit).then_some(settled);
                Class::Stable
            }
            Cause::Failed | Cause::Memory if !waits => Class::Failed,
            Cause::CleanExit | Cause::Failed | Cause::Memory => match self.clean_exit.replace(settled) {
                Some(last) if again(last) => Class::Failed,
                last if waits => Class::Open { again: last.is_some() },
                Some(_) | None => Class::Clean,
            },
        };
        self.pending = Some(class);
    }

    pub(crate) fn spawn_failed(&mut self, at: Moment) {
        (self.pending, self.settled, self.begun, self.ended_stable) = (Some(Class::Failed), at, false, false);
    }

    /// A start was requested while no gateway ran; `held` says whether we have the lease.
    pub(crate) fn ask_again(&mut self, at: Moment, held: bool) {
        if self.pending.is_some() {
            self.pending = Some(Class::Asked);
        }
        (self.floor, self.refused, self.free) = (at, false, true);
        self.waived |= held;
    }

    /// A start was requested before the last end was settled, which counts all the same.
    pub(crate) fn ask_before(&mut self, at: Moment, held: bool) {
        self.quick.note(at, false);
        match self.pending {
            Some(Class::Failed) if recent(&self.spawns, at, self.policy.restart_window) < self.budget() => {
                self.failures += 1;
            }
            Some(Class::Stable) => self.failures = 0,
            Some(_) | None => {}
        }
        self.ask_again(at, held);
    }

    /// Another process has the port, which explains a refusal; we stand by.
    pub(crate) fn stand_by(&mut self, at: Moment) {
        // Only what is given up here makes the next start wait for its slot.
        if self.refused || self.pending.is_some() {
            self.stood = at;
        }
        (self.refused, self.trial, self.forced) = (false, true, Forced::No);
        if let Some(class) = self.pending.take().filter(|class| *class != Class::Failed) {
            self.pass(class);
        }
    }

    fn breaker_closed_at(&self, at: Moment) -> bool {
        let limit = self.policy.boot_limit as usize;
        let unclean = self.unclean.iter().filter(|stamp| **stamp + self.policy.boot_window >= at).count();
        limit == 0 || unclean <= limit
    }

    /// What a pause has put off comes at its end, or at that of another pause in its place.
    pub(super) fn unfloor(&mut self, at: Moment) {
        self.floor = self.floor.min(at);
    }

    /// Judges `restart.scheduled`; `held`: for the end of a pause.
    pub(crate) fn schedule(&mut self, at: Moment, delay: Duration, contended: bool, held: bool) -> Result<(), Broken> {
        if self.refused && !contended {
            return Err(Broken::new("P4", "a refusal to start was answered with another start"));
        }
        if self.crash_loop {
            return Err(Broken::new("P4", "a crash loop is answered with another start"));
        }
        if std::mem::take(&mut self.postponed) {
            let patient = held || (Duration::from_secs(1)..=Duration::from_secs(30)).contains(&delay);
            self.floor = at + delay;
            return if patient { Ok(()) } else { Err(Broken::new("P4", "a start does not wait for an update")) };
        }
        self.refused = false;
        self.excused = false;
        match self.forced {
            Forced::Yes if !delay.is_zero() && !held => return Err(Broken::new("P4", "a forced start waits")),
            Forced::Yes | Forced::Maybe if delay.is_zero() || held => {
                self.floor = at;
                match self.pending.take() {
                    Some(Class::Failed) => self.failures += 1,
                    Some(class) => self.pass(class),
                    None => {}
                }
                return Ok(());
            }
            Forced::Yes | Forced::Maybe | Forced::No => {}
        }
        let slots = [self.settled, self.stood, self.rejected].map(|since| since + self.policy.backoff_max);
        if self.trial && !self.waived && slots.contains(&(at + delay)) {
            (self.pending, self.floor) = (None, at + delay);
            return Ok(());
        }
        let spent = recent(&self.spawns, at, self.policy.restart_window) >= self.budget();
        let is_paced = self.quick.explains(at, at + delay, &self.policy);
        if let Some(Class::Asked | Class::Open { .. }) = self.pending
            && !spent
            && self.quick.is_too_early(at, at + delay, &self.policy)
        {
            return Err(Broken::new("P4", "a start follows requested or planned restarts too soon"));
        }
        match self.pending.take() {
            // A budget spent by a predecessor does not end us; this start is a trial, without a backoff.
            Some(Class::Failed) if self.trial && spent => self.floor = at,
            Some(Class::Failed) if self.repair_changed_it && !self.breaker_closed_at(at) => self.floor = at,
            Some(Class::Failed) => {
                let full = BACKOFF_MIN.saturating_mul(1 << self.failures.min(20)).min(self.policy.backoff_max);
                self.failures += 1;
                self.floor = at + full / 2;
            }
            Some(free) => {
                if !delay.is_zero() && !held && self.breaker_closed_at(at) && !is_paced {
                    return Err(Broken::new("P4", format!("a start after {free:?} waits {delay:?} without a reason")));
                }
                self.floor = at;
                self.pass(free);
            }
            None if held || delay.is_zero() && self.free || !self.breaker_closed_at(at) || is_paced => self.floor = at,
            None => return Err(Broken::new("P4", "a requested start is delayed without a reason")),
        }
        Ok(())
    }

    /// Judges the decision to start; the start counts from here on, whatever its result.
    pub(crate) fn begin(&mut self, at: Moment) -> Result<(), Broken> {
        self.allows(at)?;
        let in_time = self.waived || at >= self.slot();
        if std::mem::take(&mut self.past_crash_loop) && !in_time {
            return Err(Broken::new("P4", "the next supervisor does not wait after a crash loop"));
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.count(at);
        }
        if std::mem::take(&mut self.repair_changed_it) {
            self.pending = None;
        }
        self.excused |= std::mem::replace(&mut self.forced, Forced::No) != Forced::No;
        (self.trial, self.waived, self.tried) = (false, false, true);
        Ok(())
    }

    fn allows(&self, at: Moment) -> Result<(), Broken> {
        if self.refused {
            return Err(Broken::new("P4", "a refusal to start was answered with another start"));
        }
        if at < self.floor {
            return Err(Broken::new("P4", format!("a spawn before the backoff of {:?} is over", self.floor)));
        }
        if self.excused || self.forced != Forced::No {
            return Ok(());
        }
        if !self.breaker_closed_at(at) {
            return Err(Broken::new("P4", "a boot after more unclean boots than the limit"));
        }
        let spent = !self.begun && recent(&self.costly, at, self.policy.restart_window) > self.budget() + self.late;
        let granted = self.free || self.paid.is_some();
        if spent && !granted && !(self.trial && (self.waived || at >= self.slot())) {
            return Err(Broken::new("P4", "more spawns than the budget holds"));
        }
        Ok(())
    }

    pub(crate) fn spawn(&mut self, at: Moment) -> Result<(), Broken> {
        self.begin(at)?;
        (self.begun, self.excused) = (false, false);
        Ok(())
    }

    /// When a trial beyond the budget is allowed.
    fn slot(&self) -> Moment {
        self.settled + self.policy.backoff_max
    }

    pub(crate) fn give_up(&self, at: Moment) -> Result<(), Broken> {
        if self.crash_loop {
            return Ok(());
        }
        if self.trial && !self.tried {
            return Err(Broken::new("P4", "gave up without a start of its own"));
        }
        let spent = recent(&self.spawns, at, self.policy.restart_window);
        if spent < self.budget() {
            return Err(Broken::new("P4", format!("gave up with {spent} spawns in the window")));
        }
        match self.pending {
            Some(Class::Failed | Class::Clean | Class::Open { again: true }) => Ok(()),
            other => Err(Broken::new("P4", format!("gave up after {other:?}, which costs nothing"))),
        }
    }
}
