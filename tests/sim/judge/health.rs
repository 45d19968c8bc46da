//! What probe results prove about a gateway and about the process that holds the port.

use openclaw_supervise_core::{Moment, Phase, Policy, Verdict};
use std::time::Duration;

/// How long a gateway that is not ours may drain: OpenClaw's own limit.
const FOREIGN_DRAIN: Duration = Duration::from_secs(328);

/// The health of a gateway that has come up.
#[derive(Debug, Clone)]
pub(crate) struct Health {
    pub(crate) good: Moment,
    pub(crate) healthy_until: Moment,
    failed: u32,
    silent: bool,
    draining: Option<Moment>,
    restarting: Option<Moment>,
    last_answer: Moment,
    /// When the window began: with the last answer, or later if something kept it from answering.
    armed: Moment,
    /// Until when the window is extended.
    extended: Option<Moment>,
    /// The last failed probe found the port closed.
    closed: bool,
    /// The last informative probe was that of a healthy gateway.
    healthy: bool,
}

impl Health {
    pub(crate) fn new(at: Moment) -> Self {
        Self {
            good: at,
            healthy_until: at,
            failed: 0,
            silent: false,
            draining: None,
            restarting: None,
            last_answer: at,
            armed: at,
            extended: None,
            closed: false,
            healthy: true,
        }
    }

    pub(crate) fn observe(&mut self, at: Moment, verdict: Verdict) {
        if verdict == Verdict::Inconclusive {
            return;
        }
        self.last_answer = at;
        self.healthy = matches!(verdict, Verdict::Gateway(_) | Verdict::Draining);
        // A complete answer of any kind is life.
        let good = matches!(verdict, Verdict::Gateway(_) | Verdict::Draining | Verdict::Foreign);
        if good {
            (self.good, self.armed, self.failed, self.extended) = (at, at, 0, None);
        } else {
            self.failed += 1;
            self.closed = verdict == Verdict::Free;
        }
        match verdict {
            Verdict::Gateway(Phase::Started | Phase::Unknown) => {
                (self.healthy_until, self.draining, self.restarting) = (at, None, None);
            }
            Verdict::Gateway(Phase::Starting) => {
                self.draining = None;
                self.restarting.get_or_insert(at);
            }
            Verdict::Draining => {
                self.restarting = None;
                self.draining.get_or_insert(at);
            }
            Verdict::Free if self.draining.is_some() => (self.draining, self.restarting) = (None, Some(at)),
            Verdict::Foreign => (self.draining, self.restarting) = (self.draining.map(|_| at), None),
            Verdict::Free | Verdict::Booting | Verdict::Silent | Verdict::Malformed | Verdict::Inconclusive => {}
        }
        if !good {
            self.silent = verdict == Verdict::Silent;
        }
    }

    pub(crate) fn rearm(&mut self, at: Moment) {
        self.good = at;
        self.begin(at);
    }

    /// Begins the window anew.
    pub(crate) fn begin(&mut self, at: Moment) {
        (self.armed, self.failed, self.extended) = (at, 0, None);
        self.draining = self.draining.map(|_| at);
        self.restarting = self.restarting.map(|_| at);
    }

    pub(crate) fn armed(&self) -> Moment {
        self.armed
    }

    pub(crate) fn failed(&self) -> u32 {
        self.failed
    }

    pub(crate) fn is_extended(&self) -> bool {
        self.extended.is_some()
    }

    /// The time that a new window has.
    pub(crate) fn budget(&self, policy: &Policy) -> Duration {
        if self.restarting.is_some() { policy.startup_timeout } else { policy.hang_after }
    }

    /// When its hang is proven.
    pub(crate) fn proven(&self, policy: &Policy) -> Option<Moment> {
        let spent = |since: Moment, budget: Duration| Some(since + budget).filter(|until| *until <= self.last_answer);
        if let Some(since) = self.restarting {
            return spent(since, policy.startup_timeout);
        }
        let silence = (self.failed >= 3).then(|| self.extended.unwrap_or(self.armed + policy.hang_after));
        let drained = self.draining.and_then(|since| spent(since, policy.stop_timeout));
        silence.into_iter().chain(drained).min()
    }

    pub(crate) fn is_healthy(&self) -> bool {
        self.healthy
    }

    /// Whether it neither drains nor restarts in place.
    pub(crate) fn serves(&self) -> bool {
        self.draining.is_none() && self.restarting.is_none()
    }

    /// Extends the window; gives by how much.
    pub(crate) fn extend(&mut self, at: Moment, policy: &Policy) -> Duration {
        let boot = self.armed + policy.startup_timeout;
        let until = if self.closed { boot.max(at + policy.hang_after) } else { at + policy.hang_after };
        self.extended = Some(until);
        until.saturating_sub(at)
    }

    /// When a silent drain may be cut short.
    pub(crate) fn silent(&self, policy: &Policy) -> Option<Moment> {
        (self.failed >= 3 && self.silent).then_some(self.armed + policy.hang_after)
    }
}

/// What a probe of the port requires.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// The port is free.
    MayStart,
    /// A gateway of ours holds it.
    Adopt,
    /// Our gateway left a successor.
    Succeed,
    /// Too early to decide.
    Wait,
    /// Another process keeps the port.
    Conflict,
    /// Probes were inconclusive for too long.
    Blind,
}

/// What holds the port before a spawn.
#[derive(Debug, Clone, Default)]
pub(crate) struct PortWatch {
    draining: Option<Moment>,
    warming: Option<Moment>,
    other: Option<Moment>,
    blind: Option<Moment>,
    pub(crate) contended: bool,
}

impl PortWatch {
    pub(crate) fn observe(&mut self, at: Moment, verdict: Verdict, policy: &Policy) -> Duty {
        let over = |since: Moment, budget, duty| if at >= since + budget { duty } else { Duty::Wait };
        if verdict == Verdict::Inconclusive {
            return over(*self.blind.get_or_insert(at), policy.conflict_timeout, Duty::Blind);
        }
        self.blind = None;
        self.contended |= verdict != Verdict::Free;
        match verdict {
            Verdict::Free => Duty::MayStart,
            Verdict::Gateway(Phase::Starting) | Verdict::Booting => {
                self.other = None;
                over(*self.warming.get_or_insert(at), policy.startup_timeout, Duty::Conflict)
            }
            Verdict::Gateway(_) => Duty::Conflict,
            Verdict::Draining => {
                self.other = None;
                over(*self.draining.get_or_insert(at), FOREIGN_DRAIN, Duty::Conflict)
            }
            Verdict::Silent | Verdict::Foreign | Verdict::Malformed | Verdict::Inconclusive => {
                over(*self.other.get_or_insert(at), policy.conflict_timeout, Duty::Conflict)
            }
        }
    }

    pub(crate) fn rearm(&mut self, at: Moment) {
        for since in [&mut self.draining, &mut self.warming, &mut self.other, &mut self.blind] {
            *since = since.map(|_| at);
        }
    }
}
