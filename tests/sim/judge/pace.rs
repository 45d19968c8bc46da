//! P4: is the next spawn allowed, and was the budget spent when we gave up?

use super::handoffs::{Cost, Exit};
use crate::fake_shell::Broken;
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::{ExitStatus, Moment, PastRun, Policy, Settled};
use std::time::Duration;

const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// What the end of a run means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Asked,
    Stable,
    Clean,
    /// An exit with 0 whose meaning is put off; `again` if it is not the first of late.
    Open {
        again: bool,
    },
    Failed,
}

/// A run that is over.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "how it came to its end; any mix of it happens")]
pub(crate) struct Over {
    pub(crate) settled: Moment,
    /// How long its process lived.
    pub(crate) age: Duration,
    pub(crate) died: Moment,
    pub(crate) death: ExitStatus,
    pub(crate) started: Option<Moment>,
    /// It has answered, though it may not have come up.
    pub(crate) answered: bool,
    /// It served for `stable_after`.
    pub(crate) stable: bool,
    pub(crate) clean: bool,
    /// A restart was asked for.
    pub(crate) asked: bool,
    /// We had ended it: its code says nothing.
    pub(crate) ended_by_us: bool,
    /// That was for its memory.
    pub(crate) limited: bool,
    /// It ended while no supervisor ran.
    pub(crate) lost: bool,
}

impl Over {
    /// Since when it is an unclean boot, if it is one.
    pub(super) fn unclean(&self) -> Option<Moment> {
        (!self.clean).then(|| self.started.unwrap_or(self.died))
    }
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "what holds for the next start; any mix of it happens")]
pub(crate) struct Pace {
    policy: Policy,
    spawns: Vec<Moment>,
    /// Those of them that cost something.
    costly: Vec<Moment>,
    /// The next one costs nothing.
    free: bool,
    /// A start beyond the budget is a trial: the first one of this supervisor, or the first after it stood by.
    trial: bool,
    /// Somebody does not want to wait for a trial.
    waived: bool,
    /// One was made by this supervisor.
    tried: bool,
    /// When the last end was settled.
    settled: Moment,
    /// When somebody was last stood by, which settles a refusal.
    stood: Moment,
    /// When the word came that an exit which was waited for had not been planned.
    denied: Moment,
    unclean: Vec<Moment>,
    failures: u32,
    clean_exit: Option<Moment>,
    floor: Moment,
    pub(crate) pending: Option<Class>,
    /// Exits that were charged since the last end was judged: the start that follows it was granted before.
    late: usize,
    /// The start that was decided waits for an update.
    postponed: bool,
    /// The start that follows is that after a repair: it waits for the breaker alone.
    mended: bool,
    /// The last gateways died like one another.
    doomed: bool,
    /// Those of a predecessor did: there is one trial at its time.
    warned: bool,
    /// A start was decided, and has been neither made nor prevented yet.
    begun: bool,
    /// The last gateway exited with 78 and nothing has explained it yet.
    pub(crate) refused: bool,
}

fn recent(times: &[Moment], now: Moment, window: Duration) -> usize {
    times.iter().filter(|at| **at + window > now).count()
}

impl Pace {
    pub(crate) fn new(policy: Policy) -> Self {
        let attended = policy.attended;
        Self {
            policy,
            spawns: Vec::new(),
            costly: Vec::new(),
            free: false,
            trial: true,
            waived: attended,
            tried: false,
            settled: Moment::ZERO,
            stood: Moment::ZERO,
            denied: Moment::ZERO,
            unclean: Vec::new(),
            failures: 0,
            clean_exit: None,
            floor: Moment::ZERO,
            pending: None,
            begun: false,
            late: 0,
            postponed: false,
            mended: false,
            doomed: false,
            warned: false,
            refused: false,
        }
    }

    /// What the store remembers, by the same rules.
    pub(crate) fn recall(&mut self, runs: &[PastRun]) {
        for PastRun { spawned, settled, .. } in runs {
            self.count(*spawned);
            let at = match settled {
                Settled::Ran(run, cause) => {
                    let stable = run.started.is_some() && run.healthy_for() >= self.policy.stable_after;
                    if !run.clean {
                        self.unclean.push(run.started.unwrap_or(run.ended));
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
                // Where the budget may have been spent nobody planned a start.
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

    /// Goes on after an end that costs nothing but, perhaps, of the budget.
    fn pass(&mut self, class: Class) {
        self.free |= class != Class::Clean;
        if class == Class::Stable {
            self.failures = 0;
        }
    }

    /// A gateway was started.
    pub(crate) fn count(&mut self, at: Moment) {
        if !std::mem::take(&mut self.free) {
            self.costly.push(at);
        }
        self.spawns.push(at);
    }

    /// The start that was counted last did not come about, and is made up for.
    fn take_back(&mut self) {
        self.spawns.pop();
        self.free = true;
    }

    /// Nobody had planned what a start was waiting for.
    pub(super) fn deny(&mut self, at: Moment) {
        self.denied = at;
    }

    /// It waits for an update.
    pub(super) fn postpone(&mut self) {
        self.take_back();
        self.begun = false;
        self.hold();
    }

    /// The same before anything was counted.
    pub(super) fn hold(&mut self) {
        (self.pending, self.postponed) = (None, true);
    }

    /// The program is another one.
    pub(super) fn renew(&mut self) {
        self.failures = 0;
    }

    /// One more start is one too many.
    pub(super) fn doom(&mut self) {
        self.doomed = true;
    }

    /// Whether one more start was one too many for a predecessor.
    pub(super) fn warn(&mut self, warned: bool) {
        self.warned = warned;
    }

    /// The last gateway has left somebody in its place.
    pub(super) fn succeed(&mut self, at: Moment) {
        (self.pending, self.refused, self.free, self.settled) = (None, false, true, at);
    }

    /// What was refused is repaired: the next start is paid for like any other.
    pub(super) fn repair(&mut self, at: Moment) {
        let spent = recent(&self.spawns, at, self.policy.restart_window) >= self.budget();
        (self.refused, self.settled, self.floor, self.mended) = (false, at, at, true);
        match self.pending {
            // It ends us, or this was not yet one of those that count.
            Some(Class::Failed) if spent && (self.tried || !self.trial) => return,
            Some(Class::Failed) if spent => self.trial = true,
            Some(Class::Failed) => self.failures += 1,
            Some(class) => self.pass(class),
            None => {}
        }
        self.pending = None;
    }

    /// What an exit was, that had to wait for its word.
    pub(super) fn settle_exit(&mut self, at: Moment, exit: &Exit, planned: bool) {
        let unbegun = self.spawns.last().is_none_or(|last| *last < exit.settled);
        let held = unbegun && self.pending.is_some();
        if planned {
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

    /// A start may wait for a word only if there is nothing left to pay it with.
    pub(super) fn may_hold(&self, at: Moment) -> Result<(), Broken> {
        let spent = recent(&self.spawns, at, self.policy.restart_window);
        if spent < self.budget() {
            return Err(Broken::new("P4", format!("a start waits for a word with {spent} spawns in the window")));
        }
        Ok(())
    }

    /// A gateway is gone. `waits` says that an exit with 0 has to wait for its word.
    pub(super) fn settle(&mut self, run: &Over, waits: bool) -> Cost {
        self.unclean.extend(run.unclean());
        let unasked = |code| !run.ended_by_us && !run.asked && run.death == ExitStatus::Code(code);
        self.refused = unasked(78) && !run.lost;
        let cause = match () {
            () if run.asked => Cause::Asked,
            () if run.limited => Cause::Memory,
            () if unasked(0) && run.answered => Cause::CleanExit,
            () => Cause::Failed,
        };
        (self.settled, self.late) = (run.settled, 0);
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
        (self.pending, self.settled, self.begun) = (Some(Class::Failed), at, false);
    }

    /// Somebody asked for a start while no gateway lived; `held` says whether it is ours to start one.
    pub(crate) fn ask_again(&mut self, at: Moment, held: bool) {
        if self.pending.is_some() {
            self.pending = Some(Class::Asked);
        }
        (self.floor, self.refused, self.free) = (at, false, true);
        self.waived |= held;
    }

    /// Somebody asked for a start before the last end was judged: it counts as what it was all the same.
    pub(crate) fn ask_before(&mut self, at: Moment, held: bool) {
        match self.pending {
            Some(Class::Failed) if recent(&self.spawns, at, self.policy.restart_window) < self.budget() => {
                self.failures += 1;
            }
            Some(Class::Stable) => self.failures = 0,
            Some(_) | None => {}
        }
        self.ask_again(at, held);
    }

    /// Somebody else has the port, which explains a refusal, and is waited for.
    pub(crate) fn stand_by(&mut self, at: Moment) {
        (self.refused, self.trial, self.stood) = (false, true, at);
        if let Some(class) = self.pending.take().filter(|class| *class != Class::Failed) {
            self.pass(class);
        }
    }

    fn breaker_closed_at(&self, at: Moment) -> bool {
        let limit = self.policy.boot_limit as usize;
        let unclean = self.unclean.iter().filter(|stamp| **stamp + self.policy.boot_window >= at).count();
        limit == 0 || unclean <= limit
    }

    /// `restart.scheduled` was told.
    pub(crate) fn schedule(&mut self, at: Moment, delay: Duration, contended: bool) -> Result<(), Broken> {
        if self.refused && !contended {
            return Err(Broken::new("P4", "a refusal to start was answered with another start"));
        }
        if self.doomed {
            return Err(Broken::new("P4", "the same death again and again is answered with another start"));
        }
        if std::mem::take(&mut self.postponed) {
            let patient = (Duration::from_secs(1)..=Duration::from_secs(30)).contains(&delay);
            self.floor = at + delay;
            return if patient { Ok(()) } else { Err(Broken::new("P4", "an update is not waited for")) };
        }
        self.refused = false;
        let slots = [self.settled, self.stood, self.denied].map(|since| since + self.policy.backoff_max);
        if self.trial && !self.waived && slots.contains(&(at + delay)) {
            (self.pending, self.floor) = (None, at + delay);
            return Ok(());
        }
        let spent = recent(&self.spawns, at, self.policy.restart_window) >= self.budget();
        match self.pending.take() {
            // What a predecessor spent does not end us: nobody planned this start by the backoff.
            Some(Class::Failed) if self.trial && spent => self.floor = at,
            Some(Class::Failed) if self.mended && !self.breaker_closed_at(at) => self.floor = at,
            Some(Class::Failed) => {
                let full = BACKOFF_MIN.saturating_mul(1 << self.failures.min(20)).min(self.policy.backoff_max);
                self.failures += 1;
                self.floor = at + full / 2;
            }
            Some(free) => {
                if !delay.is_zero() && self.breaker_closed_at(at) {
                    return Err(Broken::new("P4", format!("a start after {free:?} waits {delay:?} for nothing")));
                }
                self.floor = at;
                self.pass(free);
            }
            None if delay.is_zero() && self.free || !self.breaker_closed_at(at) => self.floor = at,
            None => return Err(Broken::new("P4", "what was asked for again waits for nothing")),
        }
        Ok(())
    }

    /// A start is decided: from here on it is counted, whatever comes of it.
    pub(crate) fn begin(&mut self, at: Moment) -> Result<(), Broken> {
        self.allows(at)?;
        let in_time = self.waived || at >= self.slot();
        if std::mem::take(&mut self.warned) && !in_time {
            return Err(Broken::new("P4", "the same death again and again, and the next supervisor does not wait"));
        }
        if !std::mem::replace(&mut self.begun, true) {
            self.count(at);
        }
        if std::mem::take(&mut self.mended) {
            self.pending = None;
        }
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
        if !self.breaker_closed_at(at) {
            return Err(Broken::new("P4", "a boot finds more unclean ones behind it than the limit"));
        }
        let spent = !self.begun && recent(&self.costly, at, self.policy.restart_window) > self.budget() + self.late;
        if spent && !self.free && !(self.trial && (self.waived || at >= self.slot())) {
            return Err(Broken::new("P4", "more spawns than the budget holds"));
        }
        Ok(())
    }

    pub(crate) fn spawn(&mut self, at: Moment) -> Result<(), Broken> {
        self.begin(at)?;
        self.begun = false;
        Ok(())
    }

    /// When a start beyond the budget may be tried.
    fn slot(&self) -> Moment {
        self.settled + self.policy.backoff_max
    }

    pub(crate) fn give_up(&self, at: Moment) -> Result<(), Broken> {
        if self.doomed {
            return Ok(());
        }
        if self.trial && !self.tried {
            return Err(Broken::new("P4", "gave up without one start of its own"));
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
