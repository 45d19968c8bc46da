use super::*;
use std::vec;

const SERVING: Verdict = Verdict::Gateway(Phase::Started);

fn at(seconds: u64) -> Moment {
    Duration::from_secs(seconds)
}

fn used(cpu: Duration) -> Usage {
    Usage { cpu: Some(cpu), ..Usage::default() }
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
    assert_eq!(told, [degraded, none, none, none, none, recovered]);
    let told = [Verdict::Silent, Verdict::Foreign].map(|verdict| liveness.observe(at(7), verdict));
    assert_eq!(told, [missed, degraded]);
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
        liveness.measure(at(second), used(at(second) * share / 100));
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
        assert_eq!(
            liveness.extend(at(60), &policy),
            Some(Extension { stall: Stall::Busy(at(30)), by: at(by) }),
            "{failure}"
        );
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
    liveness.measure(at(0), used(at(0)));
    liveness.observe(at(0), SERVING);
    for tick in 1..=13 {
        liveness.measure(at(tick * 5), used(at(500)));
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
            liveness.measure(at(second), used(at(second)));
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
            liveness.measure(at(second), used(at(second)));
            liveness.observe(at(second), Verdict::Silent);
        }
        assert_eq!(liveness.deadline(&policy), Some(at(130)));
        assert!(liveness.extend(at(130), &policy).is_some());
    }
}
