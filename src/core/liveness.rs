//! Is a gateway that has come up still serving?
//!
//! A liveness kill costs a person a bot in the middle of its work, so it needs proof: no good probe for `hang_after`
//! AND at least [`FAILED_PROBES_MIN`] failed ones. A probe that could not run proves nothing. A complete HTTP answer of any
//! status shows that the event loop turns: such a gateway is degraded, which is told, and does not hang. One that was seen
//! draining and then closes its port is restarting in place and gets the budget of a boot. If its event loop has
//! used CPU all the while, it may only be busy: it gets its window once more. If it does so behind a closed port, as in
//! a restart in place of which no probe saw the drain, it gets the budget of a boot.

use super::fault::Fault;
use super::stall::{Stall, StallWatch};
use super::{BlockedWrite, Depth, Moment, Phase, Policy, Usage, Verdict};
use crate::prelude::*;
use core::mem;
use core::time::Duration;

/// How many probes must have failed in a row before a gateway counts as hung, however short `hang_after` is.
pub const FAILED_PROBES_MIN: u32 = 3;

/// What the gateway is doing, as far as probes can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Doing {
    Serving,
    /// Answers, and has said since then that it is about to stop or restart.
    Draining(Moment),
    /// Closed its port after draining, or says that it is starting, while its process lives.
    Restarting(Moment),
}

/// What one probe changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HealthFinding {
    /// Nothing.
    Unchanged,
    /// The first probe that failed while it was healthy.
    Missed,
    /// The first complete answer that was not a healthy gateway's.
    Degraded,
    /// The first good probe after failed ones or such answers, and how long there had been none, pauses of the machine
    /// included.
    Recovered(Duration),
}

/// What was last reported of its health. `since` is the last good probe before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Standing {
    Healthy,
    Missing { since: Moment },
    Degraded { since: Moment },
}

/// Why a gateway is to be replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hung {
    /// How long ago the last good probe was.
    pub last_good: Duration,
    /// How many failed since.
    pub failed_probes: u32,
    /// What it did not do in time.
    pub why: &'static str,
    /// The time that it had for that.
    pub limit: Duration,
}

/// A window that has run out and is prolonged or restarted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// What keeps the gateway from answering.
    pub stall: Stall,
    /// By how much.
    pub by: Duration,
}

/// The record of the probes of one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    doing: Doing,
    /// The last sign of life: a good probe, or any complete answer.
    last_good: Moment,
    /// When its window began: then, or later if it was restarted.
    armed: Moment,
    /// The last time that it was seen serving; a drain is alive, but not healthy.
    healthy_until: Moment,
    /// The last probe that said anything.
    last_word: Moment,
    failed: u32,
    standing: Standing,
    /// What the last failed probe saw.
    failure: Option<Verdict>,
    stalls: StallWatch,
    /// Until when the window was prolonged.
    extended: Option<Moment>,
}

impl Liveness {
    /// A gateway that has just answered.
    #[must_use]
    pub fn new(now: Moment) -> Self {
        Self {
            doing: Doing::Serving,
            last_good: now,
            armed: now,
            healthy_until: now,
            last_word: now,
            failed: 0,
            standing: Standing::Healthy,
            failure: None,
            stalls: StallWatch::default(),
            extended: None,
        }
    }

    /// One that was left alone for a while: it has its window, but has not been healthy before it is seen to be.
    #[must_use]
    pub fn resumed(now: Moment, healthy_until: Moment) -> Self {
        Self { healthy_until: healthy_until.min(now), ..Self::new(now) }
    }

    /// Whether its last informative probe was good.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.standing == Standing::Healthy
    }

    /// Whether it answered one of its last informative probes, but none as a healthy gateway does.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        matches!(self.standing, Standing::Degraded { .. }) && self.failed < FAILED_PROBES_MIN
    }

    /// Whether it neither drains nor restarts of its own accord.
    #[must_use]
    pub fn is_serving(&self) -> bool {
        self.doing == Doing::Serving
    }

    /// The last time that it was seen serving.
    #[must_use]
    pub fn healthy_until(&self) -> Moment {
        self.healthy_until
    }

    /// Takes in what a probe saw. [`Verdict::Foreign`] is an answer of the gateway itself.
    pub fn observe(&mut self, now: Moment, verdict: Verdict) -> HealthFinding {
        self.doing = match (verdict, self.doing) {
            // One that answers is back, if not as it should be.
            (Verdict::Gateway(Phase::Started | Phase::Unknown), _) | (Verdict::Foreign, Doing::Restarting(_)) => {
                Doing::Serving
            }
            (Verdict::Draining, Doing::Draining(since)) => Doing::Draining(since),
            // A budget is spent by a gateway that says what it does, not by one that says something else.
            (Verdict::Draining, _) | (Verdict::Foreign, Doing::Draining(_)) => Doing::Draining(now),
            (Verdict::Gateway(Phase::Starting), Doing::Restarting(since)) => Doing::Restarting(since),
            (Verdict::Gateway(Phase::Starting), _) | (Verdict::Free | Verdict::Booting, Doing::Draining(_)) => {
                Doing::Restarting(now)
            }
            (
                Verdict::Free
                | Verdict::Booting
                | Verdict::Silent
                | Verdict::Foreign
                | Verdict::Malformed
                | Verdict::Inconclusive,
                same,
            ) => same,
        };
        if verdict != Verdict::Inconclusive {
            self.last_word = now;
        }
        match verdict {
            Verdict::Inconclusive => HealthFinding::Unchanged,
            Verdict::Gateway(_) | Verdict::Draining => {
                if self.doing == Doing::Serving {
                    self.healthy_until = now;
                }
                self.note_life(now);
                match mem::replace(&mut self.standing, Standing::Healthy) {
                    Standing::Healthy => HealthFinding::Unchanged,
                    Standing::Missing { since } | Standing::Degraded { since } => {
                        HealthFinding::Recovered(now.saturating_sub(since))
                    }
                }
            }
            Verdict::Foreign => {
                let since = match self.standing {
                    Standing::Healthy => self.last_good,
                    Standing::Missing { since } | Standing::Degraded { since } => since,
                };
                self.note_life(now);
                match mem::replace(&mut self.standing, Standing::Degraded { since }) {
                    Standing::Degraded { .. } => HealthFinding::Unchanged,
                    Standing::Healthy | Standing::Missing { .. } => HealthFinding::Degraded,
                }
            }
            Verdict::Free | Verdict::Booting | Verdict::Silent | Verdict::Malformed => {
                self.failure = Some(verdict);
                if self.failed == 0 {
                    self.stalls.begin(self.armed);
                }
                self.failed += 1;
                match self.standing {
                    // One that answers late, or now and then, is told of once.
                    Standing::Missing { .. } | Standing::Degraded { .. } => HealthFinding::Unchanged,
                    Standing::Healthy => {
                        self.standing = Standing::Missing { since: self.last_good };
                        HealthFinding::Missed
                    }
                }
            }
        }
    }

    /// The moment from which on it counts as hung, if no good probe comes before.
    #[must_use]
    pub fn deadline(&self, policy: &Policy) -> Option<Moment> {
        if policy.planted.is(Fault::HungNeverEnded) {
            return None;
        }
        let proof = if policy.planted.is(Fault::HungAfterOneMiss) { 1 } else { FAILED_PROBES_MIN };
        let window = self.armed.saturating_add(policy.hang_after);
        let silence = (self.failed >= proof).then(|| self.extended.unwrap_or(window));
        match self.doing {
            Doing::Serving => silence,
            // A drain that still answers has the drain's budget, one that fell silent the ordinary window.
            Doing::Draining(since) => silence.into_iter().chain(self.spent(since, policy.stop_timeout)).min(),
            Doing::Restarting(since) => self.spent(since, policy.startup_timeout),
        }
    }

    /// The end of a budget, once a probe has seen that it was of no use: time alone proves nothing.
    fn spent(&self, since: Moment, budget: Duration) -> Option<Moment> {
        let until = since.saturating_add(budget);
        (until <= self.last_word).then_some(until)
    }

    /// Whether the window has run out.
    #[must_use]
    pub fn hung(&self, now: Moment, policy: &Policy) -> Option<Hung> {
        let due = self.deadline(policy)? <= now;
        let (why, limit) = match self.doing {
            Doing::Serving => ("it does not answer", policy.hang_after),
            Doing::Draining(_) if self.failed >= FAILED_PROBES_MIN => {
                ("it stopped answering while it drained", policy.hang_after)
            }
            Doing::Draining(_) => ("it drains for longer than a gateway may", policy.stop_timeout),
            Doing::Restarting(_) => ("it did not come back from its own restart", policy.startup_timeout),
        };
        due.then(|| Hung { last_good: now.saturating_sub(self.last_good), failed_probes: self.failed, why, limit })
    }

    /// Takes in a sample. Returns a blocked write that is to be reported again.
    pub fn measure(&mut self, now: Moment, sample: Usage) -> Option<BlockedWrite> {
        let was_blocked = self.stalls.is_blocked();
        self.stalls.measure(now, sample, self.failed == 0);
        if was_blocked && !self.stalls.writes_on() {
            // The window begins when the block ends.
            self.begin_window(now);
        }
        self.stalls.retell(now)
    }

    /// How much the next sample has to look at; `None` if none is needed.
    #[must_use]
    pub fn depth(&self, now: Moment) -> Option<Depth> {
        let is_missing = self.failed > 0 || matches!(self.standing, Standing::Missing { .. });
        (is_missing || self.stalls.is_blocked()).then(|| self.stalls.depth(now))
    }

    /// What is wrong with one that does not answer and is not hung, as a predicate.
    #[must_use]
    pub fn condition(&self) -> Option<String> {
        self.stalls.condition()
    }

    /// Prolongs a window that has run out, or restarts it, if something keeps the gateway from answering. From now on:
    /// three failed probes may have taken longer than a short window. Work counts once.
    pub fn extend(&mut self, now: Moment, policy: &Policy) -> Option<Extension> {
        // It answers, and has used up the time that it has for what it says it does.
        if self.failed < FAILED_PROBES_MIN {
            return None;
        }
        let is_extended = self.extended.is_some() && !policy.planted.is(Fault::WorkExtendsForEver);
        let may_work = self.doing == Doing::Serving && !is_extended && !policy.planted.is(Fault::WorkIgnored);
        let stall = self.stalls.judge(may_work, policy)?;
        if let Stall::Blocked(_) | Stall::Starved { .. } = stall {
            self.begin_window(now);
            let restarts = matches!(self.doing, Doing::Restarting(_));
            let by = if restarts { policy.startup_timeout } else { policy.hang_after };
            return Some(Extension { stall, by });
        }
        let is_closed = matches!(self.failure, Some(Verdict::Free | Verdict::Booting));
        let whole = if is_closed { policy.startup_timeout } else { policy.hang_after };
        let until = now.saturating_add(policy.hang_after).max(self.armed.saturating_add(whole));
        self.extended = Some(until);
        Some(Extension { stall, by: until.saturating_sub(now) })
    }

    /// The blocked write that is to be reported now.
    pub fn retell(&mut self, now: Moment) -> Option<BlockedWrite> {
        self.stalls.retell(now)
    }

    /// The same while it drains because we asked it to: a closed port is then part of the way down, silence behind an
    /// open one is not.
    #[must_use]
    pub fn silent_deadline(&self, policy: &Policy) -> Option<Moment> {
        let unheard = policy.planted.is(Fault::SilentDrainWaitedFor);
        (self.failure == Some(Verdict::Silent) && self.failed >= FAILED_PROBES_MIN && !unheard)
            .then(|| self.armed.saturating_add(policy.hang_after))
    }

    /// Restarts every timeout: time has passed in which no answer could come.
    pub fn rearm(&mut self, now: Moment) {
        self.last_good = now;
        self.begin_window(now);
    }

    fn note_life(&mut self, now: Moment) {
        (self.last_good, self.armed, self.failed, self.extended) = (now, now, 0, None);
        self.stalls.clear();
    }

    fn begin_window(&mut self, now: Moment) {
        (self.armed, self.failed, self.extended) = (now, 0, None);
        self.stalls.begin(now);
        self.doing = match self.doing {
            Doing::Serving => Doing::Serving,
            Doing::Draining(_) => Doing::Draining(now),
            Doing::Restarting(_) => Doing::Restarting(now),
        };
    }
}

#[cfg(test)]
mod tests;
