//! What the answers that were delivered prove about a gateway, and about whoever holds the port.

use openclaw_supervise::core::{Moment, Phase, Policy, Verdict};
use std::time::Duration;

/// How long somebody else's gateway may drain: its own hard limit.
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
    last_word: Moment,
}

impl Health {
    pub(crate) fn new(at: Moment) -> Self {
        Self { good: at, healthy_until: at, failed: 0, silent: false, draining: None, restarting: None, last_word: at }
    }

    pub(crate) fn observe(&mut self, at: Moment, verdict: Verdict) {
        if verdict == Verdict::Inconclusive {
            return;
        }
        self.last_word = at;
        let good = matches!(verdict, Verdict::Gateway(_) | Verdict::Draining);
        (self.good, self.failed) = if good { (at, 0) } else { (self.good, self.failed + 1) };
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
            Verdict::Free | Verdict::Booting | Verdict::Silent | Verdict::Foreign | Verdict::Inconclusive => {}
        }
        if !good {
            self.silent = verdict == Verdict::Silent;
        }
    }

    pub(crate) fn rearm(&mut self, at: Moment) {
        (self.good, self.failed) = (at, 0);
        self.draining = self.draining.map(|_| at);
        self.restarting = self.restarting.map(|_| at);
    }

    /// From when on it is proven to hang.
    pub(crate) fn proven(&self, policy: &Policy) -> Option<Moment> {
        let spent = |since: Moment, budget: Duration| Some(since + budget).filter(|until| *until <= self.last_word);
        if let Some(since) = self.restarting {
            return spent(since, policy.startup_timeout);
        }
        let silence = (self.failed >= 3).then_some(self.good + policy.hang_after);
        let drained = self.draining.and_then(|since| spent(since, policy.stop_timeout));
        silence.into_iter().chain(drained).min()
    }

    /// From when on a drain need not be waited for any more.
    pub(crate) fn silent(&self, policy: &Policy) -> Option<Moment> {
        (self.failed >= 3 && self.silent).then_some(self.good + policy.hang_after)
    }
}

/// What an answer about the port obliges to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Duty {
    /// The port is free.
    MayStart,
    /// It is ours.
    Adopt,
    /// Too early to say.
    Wait,
    /// Somebody stays.
    Conflict,
    /// Nothing could be seen for too long.
    Blind,
}

/// Who holds the port before a spawn.
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
            Verdict::Silent | Verdict::Foreign | Verdict::Inconclusive => {
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
