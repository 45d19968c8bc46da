//! The last observations of a gateway, to explain its end.

use super::{Moment, Observation, Usage, Verdict};
use crate::prelude::*;
use crate::units::human;
use alloc::collections::VecDeque;
use core::fmt;
use core::time::Duration;

/// How many looks and samples are kept. With the defaults that is more than the window after which a gateway counts as
/// hung, and what was before it.
const KEPT_MAX: usize = 32;

/// One look at the port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PastProbe {
    /// How long ago its answer came.
    pub ago: Duration,
    /// What it saw.
    pub verdict: Verdict,
    /// How that came about.
    pub detail: String,
}

impl fmt::Display for PastProbe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} before: {}, {}", human(self.ago), self.verdict, self.detail)
    }
}

/// A gateway that is to be replaced, and all that led there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HangContext {
    /// What it did not do in time.
    pub why: &'static str,
    /// How long ago the last good probe was, if there ever was one.
    pub last_good: Option<Duration>,
    /// How many failed since.
    pub failed_probes: u32,
    /// The process of its tree that listens, where that is known.
    pub listener: Option<i32>,
    /// How long ago its process was started.
    pub age: Duration,
    /// Set if it is replaced for its memory, and does not hang.
    pub excess: Option<Excess>,
    /// The last looks, oldest first.
    pub looks: Vec<PastProbe>,
    /// The last samples and how long ago they were taken, oldest first.
    pub samples: Vec<(Duration, Usage)>,
}

/// The memory of a tree that is over its limit, in KiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Excess {
    pub tree_rss_kb: u64,
    pub limit_kb: u64,
}

/// The last looks at one gateway and the last samples of it.
#[derive(Debug, Clone, Default)]
pub struct ProbeHistory {
    looks: VecDeque<(Moment, Verdict, String)>,
    samples: VecDeque<(Moment, Usage)>,
}

impl ProbeHistory {
    /// Adds a look.
    pub fn see(&mut self, now: Moment, sighting: &Observation) {
        push(&mut self.looks, (now, sighting.verdict, sighting.detail.clone()));
    }

    /// Adds a sample.
    pub fn measure(&mut self, now: Moment, sample: Usage) {
        push(&mut self.samples, (now, sample));
    }

    /// The looks as they lie behind `now`, oldest first.
    #[must_use]
    pub fn looks(&self, now: Moment) -> Vec<PastProbe> {
        let look = |(at, verdict, detail): &(Moment, Verdict, String)| PastProbe {
            ago: now.saturating_sub(*at),
            verdict: *verdict,
            detail: detail.clone(),
        };
        self.looks.iter().map(look).collect()
    }

    /// The samples, in the same way.
    #[must_use]
    pub fn samples(&self, now: Moment) -> Vec<(Duration, Usage)> {
        self.samples.iter().map(|(at, sample)| (now.saturating_sub(*at), sample.clone())).collect()
    }

    /// What the last answer that was not a gateway's was like.
    #[must_use]
    pub fn last_foreign(&self) -> Option<&str> {
        let foreign = self.looks.iter().rev().find(|(_, verdict, _)| *verdict == Verdict::Foreign);
        foreign.map(|(_, _, detail)| detail.as_str())
    }

    /// The last sample.
    #[must_use]
    pub fn last_sample(&self) -> Option<Usage> {
        self.samples.back().map(|(_, sample)| sample.clone())
    }
}

fn push<T>(kept: &mut VecDeque<T>, item: T) {
    if kept.len() == KEPT_MAX {
        kept.pop_front();
    }
    kept.push_back(item);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Owner;

    #[test]
    fn the_oldest_go_first_and_the_order_stays() {
        let mut trail = ProbeHistory::default();
        let sighting = Observation {
            verdict: Verdict::Silent,
            owner: Owner::Unseen,
            detail: "x".into(),
            readiness: None,
            moved: None,
        };
        for second in 0..100 {
            trail.see(Duration::from_secs(second), &sighting);
            trail.measure(Duration::from_secs(second), Usage { rss_kb: Some(second), ..Usage::default() });
        }
        let now = Duration::from_secs(100);
        let ages: Vec<_> = trail.looks(now).iter().map(|look| look.ago.as_secs()).collect();
        assert_eq!(ages, (1..=32).rev().collect::<Vec<_>>());
        let ages: Vec<_> = trail.samples(now).iter().map(|(ago, _)| ago.as_secs()).collect();
        assert_eq!(ages, (1..=32).rev().collect::<Vec<_>>());
        assert_eq!(trail.last_sample().and_then(|sample| sample.rss_kb), Some(99));
    }
}
