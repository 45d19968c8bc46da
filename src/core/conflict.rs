//! May we start, with what is on the port?
//!
//! Only a free port lets a gateway start. A healthy gateway ends the question at once, a draining one is waited for,
//! one that warms up has the startup budget to become one or the other, anything else is given `conflict_timeout` to go
//! away.

use super::fault::Fault;
use super::{Moment, Phase, Policy, Verdict};
use core::time::Duration;

/// The first wait between two looks at a held port. It doubles up to the probe interval.
const RETRY_MIN: Duration = Duration::from_millis(250);

/// What follows from one look at the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PortRuling {
    /// The port is free: start.
    Clear,
    /// Look again at this moment.
    Wait(Moment),
    /// Another process keeps the port.
    Conflict,
    /// For `conflict_timeout` not one probe could run.
    Blind,
}

/// What the looks at the port have shown so far, since it was last free.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Watch {
    held: Option<HeldPort>,
    blind_since: Option<Moment>,
    looks: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct HeldPort {
    kind: Kind,
    /// Since when it is of this kind.
    since: Moment,
    /// When it was first seen draining: a drain that is busy now and then must not start its budget anew.
    draining_since: Option<Moment>,
    /// The same of warming up.
    warming_since: Option<Moment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// It serves, or answers nothing useful.
    Other,
    Draining,
    Warming,
}

impl Watch {
    /// Whether the port was seen held.
    #[must_use]
    pub fn contended(&self) -> bool {
        self.held.is_some()
    }

    /// Takes in one look. `drain_budget` is how long a gateway that we did not start may drain.
    pub fn rule(&mut self, now: Moment, verdict: Verdict, policy: &Policy) -> PortRuling {
        if verdict == Verdict::Inconclusive && policy.planted.is(Fault::InconclusiveIsFree)
            || verdict == Verdict::Silent && policy.planted.is(Fault::SilentIsFree)
        {
            return PortRuling::Clear;
        }
        if verdict == Verdict::Inconclusive {
            let since = *self.blind_since.get_or_insert(now);
            return if now >= since.saturating_add(policy.conflict_timeout) {
                PortRuling::Blind
            } else {
                self.wait(now, policy)
            };
        }
        self.blind_since = None;
        let until = match verdict {
            Verdict::Free => return PortRuling::Clear,
            Verdict::Gateway(Phase::Starting) | Verdict::Booting if policy.planted.is(Fault::WarmingIsConflict) => {
                return PortRuling::Conflict;
            }
            Verdict::Gateway(Phase::Starting) | Verdict::Booting => {
                let held = self.note(now, Kind::Warming);
                held.warming_since.unwrap_or(now).saturating_add(policy.startup_timeout)
            }
            Verdict::Gateway(Phase::Started | Phase::Unknown) => {
                self.note(now, Kind::Other);
                return PortRuling::Conflict;
            }
            Verdict::Draining if policy.planted.is(Fault::DrainNotWaitedFor) => return PortRuling::Conflict,
            Verdict::Draining => {
                let held = self.note(now, Kind::Draining);
                held.draining_since.unwrap_or(now) + DRAIN_BUDGET
            }
            Verdict::Silent | Verdict::Foreign | Verdict::Malformed | Verdict::Inconclusive => {
                self.note(now, Kind::Other).since.saturating_add(policy.conflict_timeout)
            }
        };
        if now >= until && !policy.planted.is(Fault::ConflictNeverEnds) {
            PortRuling::Conflict
        } else {
            self.wait(now, policy)
        }
    }

    /// Restarts every timeout: while the machine was suspended, no process could run.
    pub fn rearm(&mut self, now: Moment) {
        self.blind_since = self.blind_since.map(|_| now);
        if let Some(held) = &mut self.held {
            held.since = now;
            held.draining_since = held.draining_since.map(|_| now);
            held.warming_since = held.warming_since.map(|_| now);
        }
    }

    fn note(&mut self, now: Moment, kind: Kind) -> HeldPort {
        let before = self.held;
        let same_kind = before.is_some_and(|held| held.kind == kind);
        if !same_kind {
            self.looks = 0;
        }
        let held = HeldPort {
            kind,
            since: before.filter(|_| same_kind).map_or(now, |held| held.since),
            draining_since: before.and_then(|held| held.draining_since).or((kind == Kind::Draining).then_some(now)),
            warming_since: before.and_then(|held| held.warming_since).or((kind == Kind::Warming).then_some(now)),
        };
        self.held = Some(held);
        held
    }

    fn wait(&mut self, now: Moment, policy: &Policy) -> PortRuling {
        let pause = RETRY_MIN.saturating_mul(1 << self.looks.min(16)).min(policy.probe_interval);
        self.looks = self.looks.saturating_add(1);
        PortRuling::Wait(now.saturating_add(pause))
    }
}

/// How long a gateway that is not ours may drain before it counts as staying. OpenClaw 2026.9 hard-exits 325 to 327 s
/// after SIGTERM (its drain of 315 s and 10 s of cleanup).
pub const DRAIN_BUDGET: Duration = Duration::from_secs(328);

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Moment {
        Duration::from_millis(ms)
    }

    /// Follows the waits of one verdict and says when the ruling ends them.
    fn ends_at(watch: &mut Watch, mut now: Moment, verdict: Verdict) -> (PortRuling, Moment, u32) {
        let policy = Policy::default();
        for looks in 1.. {
            match watch.rule(now, verdict, &policy) {
                PortRuling::Wait(next) => {
                    assert!(next > now, "a wait lies ahead");
                    now = next;
                }
                end => return (end, now, looks),
            }
        }
        unreachable!("the range does not end")
    }

    #[test]
    fn a_free_port_is_clear_and_a_healthy_gateway_a_conflict_at_once() {
        let policy = Policy::default();
        assert_eq!(Watch::default().rule(at(0), Verdict::Free, &policy), PortRuling::Clear);
        for phase in [Phase::Started, Phase::Unknown] {
            assert_eq!(Watch::default().rule(at(0), Verdict::Gateway(phase), &policy), PortRuling::Conflict);
        }
    }

    #[test]
    fn a_silent_or_foreign_holder_is_given_the_conflict_timeout_in_few_looks() {
        for verdict in [Verdict::Silent, Verdict::Foreign, Verdict::Malformed] {
            let (end, when, looks) = ends_at(&mut Watch::default(), at(0), verdict);
            assert_eq!(end, PortRuling::Conflict);
            assert!(when >= at(30_000) && when < at(35_001), "{when:?}");
            assert!(looks < 15, "{looks}");
        }
    }

    #[test]
    fn one_that_warms_up_has_the_startup_budget_however_it_flickers() {
        for verdict in [Verdict::Booting, Verdict::Gateway(Phase::Starting)] {
            let (end, when, looks) = ends_at(&mut Watch::default(), at(0), verdict);
            assert_eq!(end, PortRuling::Conflict);
            assert!(when >= at(300_000) && when < at(305_001), "{when:?}");
            assert!(looks < 70, "{looks}");
        }
        let (policy, mut watch) = (Policy::default(), Watch::default());
        for second in (0..300).step_by(10) {
            let verdict = if second % 20 == 0 { Verdict::Booting } else { Verdict::Silent };
            assert!(matches!(watch.rule(at(second * 1000), verdict, &policy), PortRuling::Wait(_)), "{second}");
        }
        assert_eq!(watch.rule(at(300_000), Verdict::Booting, &policy), PortRuling::Conflict);
    }

    #[test]
    fn silent_and_foreign_in_turn_share_one_timeout() {
        let (policy, mut watch) = (Policy::default(), Watch::default());
        for second in 0..30 {
            let verdict = if second % 2 == 0 { Verdict::Silent } else { Verdict::Foreign };
            assert!(matches!(watch.rule(at(second * 1000), verdict, &policy), PortRuling::Wait(_)));
        }
        assert_eq!(watch.rule(at(30_000), Verdict::Foreign, &policy), PortRuling::Conflict);
    }

    #[test]
    fn a_long_drain_does_not_use_up_the_conflict_timeout() {
        let (policy, mut watch) = (Policy::default(), Watch::default());
        watch.rule(at(0), Verdict::Draining, &policy);
        assert!(matches!(watch.rule(at(300_000), Verdict::Draining, &policy), PortRuling::Wait(_)));
        let (end, when, _) = ends_at(&mut watch, at(301_000), Verdict::Silent);
        assert_eq!(end, PortRuling::Conflict);
        assert!(when >= at(331_000), "{when:?}");
    }

    #[test]
    fn a_drain_that_never_ends_is_a_conflict_even_if_it_is_silent_now_and_then() {
        let (policy, mut watch) = (Policy::default(), Watch::default());
        for second in (0..328).step_by(4) {
            let verdict = if second % 8 == 0 { Verdict::Draining } else { Verdict::Silent };
            assert!(matches!(watch.rule(at(second * 1000), verdict, &policy), PortRuling::Wait(_)), "{second}");
        }
        assert_eq!(watch.rule(at(328_000), Verdict::Draining, &policy), PortRuling::Conflict);
    }

    #[test]
    fn probes_that_cannot_run_never_start_anything_and_end_as_blind() {
        assert_eq!(ends_at(&mut Watch::default(), at(0), Verdict::Inconclusive).0, PortRuling::Blind);
    }

    #[test]
    fn a_probe_that_could_not_run_does_not_forget_the_holder() {
        let (policy, mut watch) = (Policy::default(), Watch::default());
        watch.rule(at(0), Verdict::Silent, &policy);
        watch.rule(at(20_000), Verdict::Inconclusive, &policy);
        assert_eq!(watch.rule(at(30_000), Verdict::Silent, &policy), PortRuling::Conflict);
    }
}
