//! Is a gateway that has come up still serving?
//!
//! A liveness kill costs a person a bot in the middle of its work, so it needs proof: no good probe for `hang_after`
//! AND at least [`FAILED_PROBES_MIN`] failed ones. A probe that could not run proves nothing. A complete HTTP answer of any
//! status shows that the event loop turns: such a gateway is degraded, which is told, and does not hang. One that was seen
//! draining and then closes its port is restarting in place and gets the budget of a boot. If its event loop has
//! used CPU all the while, it may only be busy: it gets its window once more. If it does so behind a closed port, as in
//! a restart in place of which no probe saw the drain, it gets the budget of a boot.

use super::fault::Fault;
use super::{Moment, Phase, Policy, Verdict};
use core::mem;
use core::time::Duration;

/// How many probes must have failed in a row before a gateway counts as hung, however short `hang_after` is.
pub const FAILED_PROBES_MIN: u32 = 3;

/// The part of the time that an event loop must have had a processor to count as at work: one in so many. A frozen one
/// uses none, an idle one (2026.9.6 with its channels) less than 1 %; a blocked one all that others leave it.
const WORKING_PART: u32 = 20;

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
    /// The first probe that failed after a good one.
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
}

/// A window that is prolonged because the gateway works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extension {
    /// How much CPU time its event loop used since it last answered.
    pub cpu: Duration,
    /// By how much.
    pub by: Duration,
}

/// CPU time of the event loop at the beginning of the window and when it was last read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Work {
    since: (Moment, Duration),
    last: (Moment, Duration),
}

/// The record of the probes of one gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Liveness {
    doing: Doing,
    /// The last sign of life: a good probe, or any complete answer.
    last_good: Moment,
    /// The last time that it was seen serving; a drain is alive, but not healthy.
    healthy_until: Moment,
    /// The last probe that said anything.
    last_word: Moment,
    failed: u32,
    standing: Standing,
    /// What the last failed probe saw.
    failure: Option<Verdict>,
    work: Option<Work>,
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
            healthy_until: now,
            last_word: now,
            failed: 0,
            standing: Standing::Healthy,
            failure: None,
            work: None,
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

    /// Whether it answered its last informative probe, but not as a healthy gateway does.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        matches!(self.standing, Standing::Degraded { .. })
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
                (self.last_good, self.failed, self.extended) = (now, 0, None);
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
                (self.last_good, self.failed, self.extended) = (now, 0, None);
                match mem::replace(&mut self.standing, Standing::Degraded { since }) {
                    Standing::Degraded { .. } => HealthFinding::Unchanged,
                    Standing::Healthy | Standing::Missing { .. } => HealthFinding::Degraded,
                }
            }
            Verdict::Free | Verdict::Booting | Verdict::Silent | Verdict::Malformed => {
                self.failure = Some(verdict);
                self.failed += 1;
                match self.standing {
                    Standing::Missing { .. } => return HealthFinding::Unchanged,
                    Standing::Healthy => self.standing = Standing::Missing { since: self.last_good },
                    Standing::Degraded { since } => self.standing = Standing::Missing { since },
                }
                HealthFinding::Missed
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
        let window = self.last_good.saturating_add(policy.hang_after);
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
        let why = match self.doing {
            Doing::Serving => "it does not answer",
            Doing::Draining(_) if self.failed >= FAILED_PROBES_MIN => "it stopped answering while it drained",
            Doing::Draining(_) => "it drains for longer than a gateway may",
            Doing::Restarting(_) => "it did not come back from its own restart",
        };
        due.then(|| Hung { last_good: now.saturating_sub(self.last_good), failed_probes: self.failed, why })
    }

    /// Takes in how much CPU time its event loop has used in all.
    pub fn measure(&mut self, now: Moment, cpu: Duration) {
        let last = (now, cpu);
        self.work = match self.work {
            Some(Work { since, .. }) if self.failed > 0 => Some(Work { since, last }),
            Some(_) | None => Some(Work { since: last, last }),
        };
    }

    /// Prolongs a window that has run out, once, if the event loop has worked since the last good probe. From now on:
    /// three failed probes may have taken longer than a short window.
    pub fn extend(&mut self, now: Moment, policy: &Policy) -> Option<Extension> {
        let Work { since: (began, before), last: (at, after) } = self.work?;
        let (cpu, wall) = (after.saturating_sub(before), at.saturating_sub(began));
        let is_idle = wall.is_zero() || cpu.saturating_mul(WORKING_PART) < wall;
        let is_extended = self.extended.is_some() && !policy.planted.is(Fault::WorkExtendsForEver);
        if self.doing != Doing::Serving || is_idle || is_extended || policy.planted.is(Fault::WorkIgnored) {
            return None;
        }
        let is_closed = matches!(self.failure, Some(Verdict::Free | Verdict::Booting));
        let whole = if is_closed { policy.startup_timeout } else { policy.hang_after };
        let until = now.saturating_add(policy.hang_after).max(self.last_good.saturating_add(whole));
        self.extended = Some(until);
        Some(Extension { cpu, by: until.saturating_sub(now) })
    }

    /// The same while it drains because we asked it to: a closed port is then part of the way down, silence behind an
    /// open one is not.
    #[must_use]
    pub fn silent_deadline(&self, policy: &Policy) -> Option<Moment> {
        let unheard = policy.planted.is(Fault::SilentDrainWaitedFor);
        (self.failure == Some(Verdict::Silent) && self.failed >= FAILED_PROBES_MIN && !unheard)
            .then(|| self.last_good.saturating_add(policy.hang_after))
    }

    /// Restarts every timeout: time has passed in which no answer could come.
    pub fn rearm(&mut self, now: Moment) {
        (self.last_good, self.failed, self.work, self.extended) = (now, 0, None, None);
        self.doing = match self.doing {
            Doing::Serving => Doing::Serving,
            Doing::Draining(_) => Doing::Draining(now),
            Doing::Restarting(_) => Doing::Restarting(now),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prelude::*;
    use std::vec;

    const SERVING: Verdict = Verdict::Gateway(Phase::Started);

    fn at(seconds: u64) -> Moment {
        Duration::from_secs(seconds)
    }

    /// Feeds probes 10 s apart, beginning at 10 s, and says when the gateway counts as hung.
    fn hung_at(probes: &[Verdict], policy: &Policy) -> Option<u64> {
        let mut liveness = Liveness::new(at(0));
        (1..).zip(probes).find_map(|(tick, verdict)| {
            liveness.observe(at(tick * 10), *verdict);
            liveness.hung(at(tick * 10), policy).map(|_| tick * 10)
        })
    }

    #[test]
    fn a_gateway_hangs_only_after_the_window_and_three_failed_probes() {
        let policy = Policy::default();
        for failure in [Verdict::Silent, Verdict::Malformed, Verdict::Free] {
            assert_eq!(hung_at(&[failure; 9], &policy), Some(60), "{failure}");
        }
        let short = Policy { hang_after: at(1), ..Policy::default() };
        assert_eq!(hung_at(&[Verdict::Silent; 9], &short), Some(30), "three probes, however short the window");
    }

    #[test]
    fn one_good_probe_starts_the_window_anew() {
        let policy = Policy::default();
        let mut probes = [Verdict::Silent; 12];
        probes[4] = SERVING;
        assert_eq!(hung_at(&probes, &policy), Some(110));
    }

    #[test]
    fn probes_that_could_not_run_prove_nothing() {
        assert_eq!(hung_at(&[Verdict::Inconclusive; 99], &Policy::default()), None);
        let mixed: Vec<_> = [Verdict::Silent, Verdict::Inconclusive].into_iter().cycle().take(20).collect();
        assert_eq!(hung_at(&mixed, &Policy::default()), Some(60), "but they do not stop the clock either");
    }

    #[test]
    fn a_drain_may_last_longer_than_the_window_but_not_for_ever() {
        let policy = Policy::default();
        assert_eq!(hung_at(&[Verdict::Draining; 33], &policy), None);
        assert_eq!(hung_at(&[Verdict::Draining; 40], &policy), Some(340), "328 s after it was first seen at 10 s");
    }

    #[test]
    fn a_drain_that_falls_silent_is_cut_short() {
        let mut probes = vec![Verdict::Draining];
        probes.extend([Verdict::Silent; 20]);
        assert_eq!(hung_at(&probes, &Policy::default()), Some(70));
    }

    #[test]
    fn an_in_process_restart_has_the_budget_of_a_boot() {
        let mut probes = vec![Verdict::Draining];
        probes.extend([Verdict::Free; 40]);
        assert_eq!(hung_at(&probes, &Policy::default()), Some(320), "300 s after the port was first seen closed");
        probes[20] = SERVING;
        assert_eq!(hung_at(&probes, &Policy::default()), Some(270), "serving again: the ordinary window counts");
    }

    #[test]
    fn a_miss_and_a_recovery_are_told_once_each() {
        let mut liveness = Liveness::new(at(0));
        let told: Vec<_> = [SERVING, Verdict::Free, Verdict::Silent, SERVING, SERVING]
            .into_iter()
            .zip(1..)
            .map(|(verdict, tick)| liveness.observe(at(tick), verdict))
            .collect();
        let recovered = HealthFinding::Recovered(at(3));
        assert_eq!(
            told,
            [
                HealthFinding::Unchanged,
                HealthFinding::Missed,
                HealthFinding::Unchanged,
                recovered,
                HealthFinding::Unchanged
            ]
        );
    }

    #[test]
    fn a_complete_answer_of_any_kind_is_never_a_hang_and_is_told_once_each_way() {
        let policy = Policy::default();
        assert_eq!(hung_at(&[Verdict::Foreign; 999], &policy), None);
        let mut mixed = [Verdict::Silent; 40];
        mixed.iter_mut().step_by(4).for_each(|verdict| *verdict = Verdict::Foreign);
        assert_eq!(hung_at(&mixed, &policy), None, "one such answer starts the window anew");
        mixed[4..].fill(Verdict::Silent);
        assert_eq!(hung_at(&mixed, &policy), Some(70), "60 s after the last of them at 10 s");
        let mut liveness = Liveness::new(at(0));
        let shown = [Verdict::Foreign, Verdict::Foreign, Verdict::Silent, Verdict::Free, Verdict::Foreign, SERVING];
        let told: Vec<_> = (1..).zip(shown).map(|(tick, verdict)| liveness.observe(at(tick), verdict)).collect();
        let (none, missed) = (HealthFinding::Unchanged, HealthFinding::Missed);
        let (degraded, recovered) = (HealthFinding::Degraded, HealthFinding::Recovered(at(6)));
        assert_eq!(told, [degraded, none, missed, none, degraded, recovered]);
        assert_eq!(liveness.healthy_until(), at(6));
    }

    #[test]
    fn a_gateway_that_answers_badly_is_alive_but_not_healthy() {
        let mut liveness = Liveness::new(at(0));
        liveness.observe(at(50), Verdict::Foreign);
        assert!(liveness.is_degraded() && !liveness.is_healthy());
        assert_eq!(liveness.healthy_until(), at(0));
    }

    #[test]
    fn answers_between_two_words_of_a_drain_or_a_restart_spend_neither_budget() {
        let policy = Policy::default();
        for word in [Verdict::Draining, Verdict::Gateway(Phase::Starting)] {
            let mut probes = vec![word];
            probes.extend([Verdict::Foreign; 60]);
            probes.extend([word; 2]);
            assert_eq!(hung_at(&probes, &policy), None, "{word:?}");
            probes.extend([word; 60]);
            assert!(hung_at(&probes, &policy).is_some(), "{word:?}: it has its budget");
        }
    }

    #[test]
    fn a_jump_of_the_clock_starts_the_window_anew() {
        let policy = Policy::default();
        let mut liveness = Liveness::new(at(0));
        for tick in 1..=5 {
            liveness.observe(at(tick * 10), Verdict::Silent);
        }
        liveness.rearm(at(3600));
        liveness.observe(at(3600), Verdict::Silent);
        assert_eq!(liveness.hung(at(3600), &policy), None);
    }

    #[test]
    fn on_the_way_down_only_silence_counts() {
        let policy = Policy::default();
        let mut liveness = Liveness::new(at(0));
        for tick in 1..=5 {
            liveness.observe(at(tick), Verdict::Free);
        }
        assert_eq!(liveness.silent_deadline(&policy), None);
        liveness.observe(at(6), Verdict::Silent);
        assert_eq!(liveness.silent_deadline(&policy), Some(at(60)));
    }

    /// One that answered until 0 s and fails from then on, while its event loop uses `share` percent of a processor.
    fn failing(failure: Verdict, share: u32, until: u64) -> Liveness {
        let mut liveness = Liveness::new(at(0));
        for second in (0..=until).step_by(5) {
            liveness.measure(at(second), at(second) * share / 100);
            liveness.observe(at(second), failure);
        }
        liveness
    }

    #[test]
    fn work_since_the_last_good_probe_prolongs_the_window_once() {
        let policy = Policy::default();
        for (failure, by) in [(Verdict::Silent, 60), (Verdict::Malformed, 60), (Verdict::Free, 240)] {
            let mut liveness = failing(failure, 50, 60);
            assert!(liveness.hung(at(60), &policy).is_some());
            assert_eq!(liveness.extend(at(60), &policy), Some(Extension { cpu: at(30), by: at(by) }), "{failure}");
            assert_eq!(liveness.deadline(&policy), Some(at(60 + by)));
            assert_eq!(liveness.extend(at(60 + by), &policy), None, "{failure}");
        }
    }

    #[test]
    fn one_part_in_twenty_is_work_and_less_or_nothing_known_is_not() {
        let policy = Policy::default();
        assert!(failing(Verdict::Silent, 5, 60).extend(at(60), &policy).is_some());
        assert!(failing(Verdict::Silent, 4, 60).extend(at(60), &policy).is_none());
        let mut unmeasured = Liveness::new(at(0));
        for tick in 1..=6 {
            unmeasured.observe(at(tick * 10), Verdict::Silent);
        }
        assert!(unmeasured.extend(at(60), &policy).is_none());
    }

    #[test]
    fn work_before_the_last_good_probe_does_not_count() {
        let policy = Policy::default();
        let mut liveness = Liveness::new(at(0));
        liveness.measure(at(0), at(0));
        liveness.observe(at(0), SERVING);
        for tick in 1..=13 {
            liveness.measure(at(tick * 5), at(500));
            liveness.observe(at(tick * 5), Verdict::Silent);
        }
        assert!(liveness.hung(at(65), &policy).is_some());
        assert_eq!(liveness.extend(at(65), &policy), None, "it had used that by the first failed probe");
    }

    #[test]
    fn neither_a_drain_nor_a_restart_is_prolonged_by_work() {
        let policy = Policy::default();
        for verdict in [Verdict::Draining, Verdict::Gateway(Phase::Starting)] {
            let mut liveness = failing(Verdict::Silent, 100, 60);
            assert!(liveness.is_serving());
            liveness.observe(at(61), verdict);
            for second in 62..70 {
                liveness.measure(at(second), at(second));
                liveness.observe(at(second), Verdict::Silent);
            }
            assert!(!liveness.is_serving());
            assert_eq!(liveness.extend(at(130), &policy), None, "{verdict}");
        }
    }

    #[test]
    fn an_extension_ends_with_a_good_probe_or_a_jump_and_there_may_be_another_one() {
        let policy = Policy::default();
        let ends: [fn(&mut Liveness); 2] = [
            |liveness| {
                liveness.observe(at(70), SERVING);
            },
            |liveness| liveness.rearm(at(70)),
        ];
        for end in ends {
            let mut liveness = failing(Verdict::Silent, 100, 60);
            assert!(liveness.extend(at(60), &policy).is_some());
            end(&mut liveness);
            for second in (75..=130).step_by(5) {
                liveness.measure(at(second), at(second));
                liveness.observe(at(second), Verdict::Silent);
            }
            assert_eq!(liveness.deadline(&policy), Some(at(130)));
            assert!(liveness.extend(at(130), &policy).is_some());
        }
    }
}
