//! P4: is the next spawn allowed, and was the budget spent when we gave up?

use crate::trial::Broken;
use openclaw_supervise::core::{Death, Moment, Policy};
use std::time::Duration;

const BACKOFF_MIN: Duration = Duration::from_secs(1);

/// What the end of a run means for the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    Asked,
    Stable,
    Clean,
    Failed,
}

/// A run that is over.
pub(crate) struct Over {
    pub(crate) settled: Moment,
    pub(crate) died: Moment,
    pub(crate) death: Death,
    pub(crate) started: Option<Moment>,
    pub(crate) healthy_until: Moment,
    /// A restart was asked for.
    pub(crate) asked: bool,
    /// We had ended it: its code says nothing.
    pub(crate) ended_by_us: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Pace {
    policy: Policy,
    spawns: Vec<Moment>,
    /// Those of them that cost something.
    costly: Vec<Moment>,
    /// The next one costs nothing.
    free: bool,
    unclean: Vec<Moment>,
    failures: u32,
    clean_exit: Option<Moment>,
    floor: Moment,
    pub(crate) pending: Option<Class>,
    /// The last gateway exited with 78 and nothing has explained it yet.
    pub(crate) refused: bool,
}

fn recent(times: &[Moment], now: Moment, window: Duration) -> usize {
    times.iter().filter(|at| **at + window > now).count()
}

impl Pace {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            policy,
            spawns: Vec::new(),
            costly: Vec::new(),
            free: false,
            unclean: Vec::new(),
            failures: 0,
            clean_exit: None,
            floor: Moment::ZERO,
            pending: None,
            refused: false,
        }
    }

    /// A gateway is gone.
    pub(crate) fn settle(&mut self, run: &Over) {
        if run.death != Death::Code(0) {
            self.unclean.push(run.started.unwrap_or(run.died));
        }
        let unasked = |code| !run.ended_by_us && !run.asked && run.death == Death::Code(code);
        self.refused = unasked(78);
        let healthy = run.started.map(|started| run.healthy_until.saturating_sub(started));
        let class = if run.asked {
            Class::Asked
        } else if healthy.is_some_and(|healthy| healthy >= self.policy.stable_after) {
            Class::Stable
        } else if unasked(0) && run.started.is_some() {
            Class::Clean
        } else {
            Class::Failed
        };
        let last = self.clean_exit;
        if class == Class::Stable {
            self.clean_exit = unasked(0).then_some(run.settled);
        } else if class == Class::Clean {
            self.clean_exit = Some(run.settled);
        }
        let again = last.is_some_and(|last| run.settled < last + self.policy.stable_after);
        let class = if class == Class::Clean && again { Class::Failed } else { class };
        self.pending = Some(class);
    }

    pub(crate) fn spawn_failed(&mut self) {
        self.pending = Some(Class::Failed);
    }

    /// Somebody asked for a restart while no gateway lived.
    pub(crate) fn ask_again(&mut self, at: Moment) {
        if self.pending.is_some() {
            self.pending = Some(Class::Asked);
        }
        (self.floor, self.refused, self.free) = (at, false, true);
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
        self.refused = false;
        match self.pending.take() {
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
                self.free |= free != Class::Clean;
                if free == Class::Stable {
                    self.failures = 0;
                }
            }
            None if delay.is_zero() || !self.breaker_closed_at(at) => self.floor = at,
            None => return Err(Broken::new("P4", "what was asked for again waits for nothing")),
        }
        Ok(())
    }

    pub(crate) fn spawn(&mut self, at: Moment) -> Result<(), Broken> {
        if self.refused {
            return Err(Broken::new("P4", "a refusal to start was answered with another start"));
        }
        if at < self.floor {
            return Err(Broken::new("P4", format!("a spawn before the backoff of {:?} is over", self.floor)));
        }
        if !self.breaker_closed_at(at) {
            return Err(Broken::new("P4", "a boot finds more unclean ones behind it than the limit"));
        }
        let window = self.policy.restart_window;
        if !std::mem::take(&mut self.free) {
            if recent(&self.costly, at, window) > self.policy.max_restarts as usize {
                return Err(Broken::new("P4", "more spawns than the budget holds"));
            }
            self.costly.push(at);
        }
        self.spawns.push(at);
        Ok(())
    }

    pub(crate) fn give_up(&self, at: Moment) -> Result<(), Broken> {
        let spent = recent(&self.spawns, at, self.policy.restart_window);
        if spent < self.policy.max_restarts as usize {
            return Err(Broken::new("P4", format!("gave up with {spent} spawns in the window")));
        }
        match self.pending {
            Some(Class::Failed | Class::Clean) => Ok(()),
            other => Err(Broken::new("P4", format!("gave up after {other:?}, which costs nothing"))),
        }
    }
}
