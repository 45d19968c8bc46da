//! The restart policy on its own: delays, budget, breaker, and numbers at the edge.

use openclaw_supervise_core::handoff::PENDING_MAX;
use openclaw_supervise_core::restart_policy::{Cause, Plan, RestartPolicy, Run};
use openclaw_supervise_core::{ExitStatus, Moment, PastRun, Policy, Settled};
use proptest::prelude::*;
use std::time::Duration;

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

const CAUSES: [Cause; 4] = [Cause::Asked, Cause::CleanExit, Cause::Failed, Cause::Memory];

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A gateway that never came up and died now.
fn stillborn(now: Moment) -> Run {
    Run { started: None, healthy_until: now, ended: now, clean: false }
}

/// One that served for so long and ended now.
fn served(now: Moment, healthy: Duration, clean: bool) -> Run {
    Run { started: Some(now.saturating_sub(healthy)), healthy_until: now, ended: now, clean }
}

fn start(plan: Plan) -> Moment {
    match plan {
        Plan::Start { at, why, .. } => {
            assert!(!why.is_empty() && !why.contains('\n'), "{why:?}");
            at
        }
        Plan::GiveUp { restarts } => panic!("gave up after {restarts}"),
    }
}

fn unbraked() -> Policy {
    Policy { boot_limit: 0, max_restarts: u32::MAX, ..Policy::default() }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_delay_lies_between_half_and_all_of_its_step(seed: u64, backoff_max in 0u64..1_000_000, failures in 1u32..40) {
        let policy = Policy { backoff_max: ms(backoff_max), ..unbraked() };
        let mut restarts = RestartPolicy::new(seed);
        let mut now = s(1000);
        for failure in 0..failures {
            prop_assert_eq!(restarts.attempt(), failure + 1);
            let at = start(restarts.after_run(now, stillborn(now), Cause::Failed, &policy));
            let full = s(1 << failure.min(20)).min(policy.backoff_max);
            let delay = at.saturating_sub(now);
            prop_assert!(delay >= full / 2 && delay <= full, "{:?} of {:?}", delay, full);
            now = at + ms(1);
        }
    }

    #[test]
    fn the_same_seed_draws_the_same_delays(seed: u64) {
        let draw = |seed| {
            let mut restarts = RestartPolicy::new(seed);
            let mut now = s(1);
            (0..8).map(|_| {
                now = start(restarts.after_run(now, stillborn(now), Cause::Failed, &unbraked()));
                now
            }).collect::<Vec<_>>()
        };
        prop_assert_eq!(draw(seed), draw(seed));
        prop_assert_ne!(draw(seed), draw(seed.wrapping_add(1)));
    }

    #[test]
    fn no_window_ever_grants_more_than_the_budget(
        seed: u64,
        max_restarts in 0u32..6,
        window in 1u64..600,
        backoff_max in 0u64..400,
        lives in proptest::collection::vec((0u64..90_000, any::<bool>()), 1..60),
    ) {
        let policy = Policy { max_restarts, restart_window: s(window), backoff_max: s(backoff_max), ..unbraked() };
        let mut restarts = RestartPolicy::new(seed);
        let (mut now, mut granted) = (s(1000), Vec::<Moment>::new());
        for (life, clean) in lives {
            now += ms(life);
            let cause = if clean { Cause::CleanExit } else { Cause::Failed };
            let within = granted.iter().filter(|at| **at + policy.restart_window > now).count();
            match restarts.after_run(now, served(now, ms(life), clean), cause, &policy) {
                Plan::Start { at, .. } => {
                    prop_assert!(within < max_restarts as usize, "{} already", within);
                    granted.push(now);
                    now = at;
                }
                Plan::GiveUp { restarts } => {
                    prop_assert_eq!((restarts, within), (max_restarts, max_restarts as usize));
                }
            }
        }
    }

    #[test]
    fn no_start_is_planned_into_a_window_full_of_unclean_boots(
        seed: u64,
        boot_limit in 1u32..5,
        window in 1u64..600,
        lives in proptest::collection::vec((0u64..200_000, any::<bool>(), 0u8..4, 0u64..10_000), 1..60),
    ) {
        let policy = Policy { boot_limit, boot_window: s(window), ..unbraked() };
        let mut restarts = RestartPolicy::new(seed);
        let (mut now, mut unclean) = (s(1000), Vec::<Moment>::new());
        for (life, clean, cause, boot) in lives {
            let spawned = now;
            now += ms(life);
            let up = (boot <= life).then_some(spawned + ms(boot));
            let cause = CAUSES[usize::from(cause)];
            let run = Run { started: up, healthy_until: now, ended: now, clean };
            if !clean {
                unclean.push(up.unwrap_or(now));
            }
            let at = start(restarts.after_run(now, run, cause, &policy));
            prop_assert!(at >= now && restarts.gate(at, &policy) == at, "a planned start passes the gate");
            let behind = unclean.iter().filter(|stamp| **stamp + policy.boot_window >= at).count();
            prop_assert!(behind <= boot_limit as usize, "{} unclean boots behind a start", behind);
            now = at;
        }
    }

    #[test]
    fn what_the_store_recalls_is_what_was_lived_through(
        seed: u64,
        max_restarts in 0u32..5,
        lives in proptest::collection::vec((0u64..90_000, any::<bool>(), 0u8..5, 0u64..400_000), 0..40),
    ) {
        let policy = Policy { max_restarts, ..Policy::default() };
        let (mut lived, mut recalled) = (RestartPolicy::new(seed), RestartPolicy::new(seed));
        let (mut now, mut runs) = (s(1000), Vec::new());
        for (life, clean, cause, pause) in lives {
            let spawned = now;
            now += ms(life);
            lived.begin(spawned);
            let settled = if cause == 4 {
                lived.after_spawn_failure(spawned, &policy);
                Settled::NeverStarted
            } else {
                let (run, cause) = (served(now, ms(life / 2), clean), CAUSES[usize::from(cause)]);
                lived.after_run(now, run, cause, &policy);
                Settled::Ran(run, cause)
            };
            runs.push(PastRun { spawned, settled, death: ExitStatus::Unknown });
            now += ms(pause);
        }
        recalled.recall(&runs, &policy);
        prop_assert_eq!(format!("{lived:?}"), format!("{recalled:?}"));
    }

    #[test]
    fn no_number_makes_it_panic(
        seed: u64,
        sizes in proptest::array::uniform5(prop_oneof![Just(Duration::ZERO), Just(ms(1)), Just(Duration::MAX), Just(s(u64::MAX))]),
        counts in proptest::array::uniform2(prop_oneof![Just(0u32), Just(1), Just(u32::MAX)]),
        rounds in 1u32..80,
    ) {
        let [restart_window, backoff_max, stable_after, boot_window, hang_after] = sizes;
        let [max_restarts, boot_limit] = counts;
        let policy = Policy {
            restart_window, backoff_max, stable_after, boot_window, hang_after, max_restarts, boot_limit,
            ..Policy::default()
        };
        let mut restarts = RestartPolicy::new(seed);
        for round in 0..rounds {
            let now = s(u64::from(round));
            let cause = CAUSES[round as usize % 4];
            restarts.after_run(now, stillborn(now), cause, &policy);
            restarts.after_spawn_failure(now, &policy);
            prop_assert!(restarts.gate(now, &policy) >= now);
        }
    }
}

#[test]
fn the_edge_of_the_budgets_window_is_outside() {
    let policy = Policy { max_restarts: 1, restart_window: s(60), ..unbraked() };
    let mut restarts = RestartPolicy::new(0);
    start(restarts.after_run(s(100), stillborn(s(100)), Cause::Failed, &policy));
    assert_eq!((restarts.spent_at(ms(159_999), &policy), restarts.spent_at(s(160), &policy)), (1, 0));
    let mut at_once = restarts.clone();
    let early = at_once.after_run(ms(159_999), stillborn(ms(159_999)), Cause::Failed, &policy);
    assert_eq!(early, Plan::GiveUp { restarts: 1 });
    start(restarts.after_run(s(160), stillborn(s(160)), Cause::Failed, &policy));
}

#[test]
fn without_restarts_the_first_death_is_the_end_unless_it_was_asked_for_or_stable() {
    let policy = Policy { max_restarts: 0, ..unbraked() };
    let mut restarts = RestartPolicy::new(0);
    let now = s(1000);
    assert_eq!(start(restarts.after_run(now, stillborn(now), Cause::Asked, &policy)), now);
    for cause in [Cause::CleanExit, Cause::Failed, Cause::Memory] {
        assert_eq!(start(restarts.after_run(now, served(now, s(120), false), cause, &policy)), now);
        let plan = restarts.after_run(now, served(now, ms(119_999), false), cause, &policy);
        assert_eq!(plan, Plan::GiveUp { restarts: 0 });
    }
    assert_eq!(restarts.after_spawn_failure(now, &policy), Plan::GiveUp { restarts: 0 });
}

#[test]
fn the_breaker_opens_just_after_the_oldest_boot_has_left_the_window() {
    let policy = Policy { backoff_max: Duration::ZERO, max_restarts: 9, ..Policy::default() };
    let mut restarts = RestartPolicy::new(0);
    for (died, planned) in [(s(10), s(10)), (s(20), s(20)), (s(30), ms(310_001)), (s(311), ms(320_001))] {
        assert_eq!(start(restarts.after_run(died, stillborn(died), Cause::Failed, &policy)), planned);
    }
    assert_eq!(restarts.gate(s(320), &policy), ms(320_001));
    assert_eq!(restarts.gate(s(400), &policy), s(400));
}

#[test]
fn a_boot_counts_from_when_it_came_up_and_a_clean_end_not_at_all() {
    let policy = Policy { boot_limit: 1, backoff_max: Duration::ZERO, ..Policy::default() };
    let mut restarts = RestartPolicy::new(0);
    let (now, later) = (s(1000), s(1100));
    start(restarts.after_run(now, served(now, s(100), false), Cause::Failed, &policy));
    start(restarts.after_run(s(1050), served(s(1050), s(1), true), Cause::CleanExit, &policy));
    let at = start(restarts.after_run(later, stillborn(later), Cause::Failed, &policy));
    assert_eq!(at, s(1200) + ms(1), "the first one came up at 900 s");
}

#[test]
fn boots_that_turn_out_to_be_clean_do_not_push_older_unclean_ones_out() {
    let policy = Policy { max_restarts: u32::MAX, boot_limit: 2, boot_window: s(300), ..Policy::default() };
    let mut restarts = RestartPolicy::new(0);
    for now in [s(1000), s(1001), s(1002)] {
        restarts.after_run(now, stillborn(now), Cause::Failed, &policy);
    }
    let pending: Vec<_> = (0..PENDING_MAX as u64).map(|number| s(1010 + number)).collect();
    for now in &pending {
        restarts.after_exit(*now, stillborn(*now), Cause::CleanExit, &policy);
    }
    for at in &pending {
        assert!(restarts.settle_exit(*at, stillborn(*at), Cause::CleanExit, true));
    }
    let gate = restarts.gate(s(1100), &policy);
    assert!(gate > s(1300) && gate < s(1301), "the boot of 1000 s still counts: {gate:?}");
}

#[test]
fn no_limit_on_boots_means_no_gate() {
    let policy = unbraked();
    let mut restarts = RestartPolicy::new(0);
    for second in 0..50 {
        start(restarts.after_run(s(second), stillborn(s(second)), Cause::Asked, &policy));
        assert_eq!(restarts.gate(s(second), &policy), s(second));
    }
}

#[test]
fn a_stable_run_starts_the_backoff_anew() {
    let (mut restarts, policy) = (RestartPolicy::new(3), unbraked());
    for _ in 0..6 {
        restarts.after_run(s(1), stillborn(s(1)), Cause::Failed, &policy);
    }
    assert_eq!(restarts.attempt(), 7);
    let now = s(1000);
    assert_eq!(start(restarts.after_run(now, served(now, s(120), false), Cause::Failed, &policy)), now);
    assert_eq!(restarts.attempt(), 1);
    assert!(start(restarts.after_run(now, stillborn(now), Cause::Failed, &policy)) <= now + s(1));
}

#[test]
fn a_clean_exit_soon_after_that_of_a_stable_gateway_backs_off_and_one_after_its_crash_does_not() {
    let policy = unbraked();
    for (first, waits) in [(Cause::CleanExit, true), (Cause::Failed, false)] {
        let mut restarts = RestartPolicy::new(0);
        restarts.after_run(s(1000), served(s(1000), policy.stable_after, true), first, &policy);
        let next = start(restarts.after_run(s(1010), served(s(1010), s(5), true), Cause::CleanExit, &policy));
        assert_eq!(next > s(1010), waits, "{first:?}: {next:?}");
        let edge = s(1010) + policy.stable_after;
        assert_eq!(start(restarts.after_run(edge, served(edge, s(5), true), Cause::CleanExit, &policy)), edge);
    }
}

#[test]
fn a_planned_exit_gives_back_what_it_has_spent_and_says_whether_its_start_was_put_off() {
    let (policy, run) = (unbraked(), |now| served(now, s(5), true));
    let mut restarts = RestartPolicy::new(0);
    let first = restarts.after_exit(s(1000), run(s(1000)), Cause::CleanExit, &policy);
    assert_eq!(first.map(start), Some(s(1000)));
    let second = restarts.after_exit(s(1010), run(s(1010)), Cause::CleanExit, &policy);
    assert!(second.map(start) > Some(s(1010)) && restarts.spent_at(s(1010), &policy) == 1);
    assert!(!restarts.settle_exit(s(1000), run(s(1000)), Cause::CleanExit, true), "it was started at once");
    assert!(restarts.settle_exit(s(1010), run(s(1010)), Cause::CleanExit, true), "it waits for nothing");
    assert_eq!(restarts.spent_at(s(1010), &policy), 0);
}

#[test]
fn an_exit_that_is_counted_late_leaves_the_window_in_its_turn() {
    let policy = Policy { max_restarts: 2, restart_window: s(60), ..unbraked() };
    let mut restarts = RestartPolicy::new(0);
    restarts.after_exit(s(1010), served(s(1010), s(5), true), Cause::CleanExit, &policy);
    start(restarts.after_run(s(1020), stillborn(s(1020)), Cause::Failed, &policy));
    restarts.settle_exit(s(1010), served(s(1010), s(5), true), Cause::CleanExit, false);
    assert_eq!(restarts.spent_at(s(1020), &policy), 2);
    start(restarts.after_run(s(1075), stillborn(s(1075)), Cause::Failed, &policy));
}

#[test]
fn a_window_shorter_than_the_backoff_paces_but_never_gives_up() {
    let policy = Policy { max_restarts: 1, restart_window: s(1), backoff_max: s(60), ..unbraked() };
    let (mut restarts, mut now) = (RestartPolicy::new(1), s(1000));
    for round in 0..100 {
        let at = start(restarts.after_run(now, stillborn(now), Cause::Failed, &policy));
        assert!(at >= now + s(1) / 2 && (round < 6 || at >= now + s(30)));
        now = at + s(1);
    }
}

#[test]
fn a_spent_budget_leaves_one_trial_each_backoff_max_which_counts_and_can_be_waived() {
    let policy = Policy { max_restarts: 1, backoff_max: s(60), restart_window: s(600), ..unbraked() };
    let mut restarts = RestartPolicy::new(0);
    start(restarts.after_run(s(1000), stillborn(s(1000)), Cause::Failed, &policy));
    assert_eq!(restarts.slot(&policy), Moment::ZERO, "nothing is spent yet");
    let spent = restarts.after_run(s(1001), stillborn(s(1001)), Cause::Failed, &policy);
    assert_eq!((spent, restarts.slot(&policy)), (Plan::GiveUp { restarts: 1 }, s(1061)));
    let mut impatient = restarts.clone();
    impatient.grant_trial();
    assert_eq!(impatient.slot(&policy), Moment::ZERO);
    for mut restarts in [restarts, impatient] {
        restarts.begin(s(1061));
        assert_eq!((restarts.slot(&policy), restarts.spent_at(s(1061), &policy)), (Moment::ZERO, 2));
        let again = restarts.after_run(s(1062), stillborn(s(1062)), Cause::Failed, &policy);
        assert_eq!((again, restarts.slot(&policy)), (Plan::GiveUp { restarts: 2 }, s(1122)));
        assert_eq!(restarts.spent_at(s(1601), &policy), 1, "each leaves the window in its time");
    }
}

#[test]
fn a_required_trial_gives_back_what_this_very_death_has_spent_and_no_more() {
    let policy = Policy { max_restarts: 5, backoff_max: s(60), restart_window: s(600), ..unbraked() };
    let mut restarts = RestartPolicy::new(0);
    for now in [s(1000), s(1010)] {
        start(restarts.after_run(now, stillborn(now), Cause::Failed, &policy));
    }
    let mut later = restarts.clone();
    later.require_trial(s(1020));
    assert_eq!((later.spent_at(s(1020), &policy), later.slot(&policy)), (2, s(1080)), "both were made");
    restarts.require_trial(s(1010));
    assert_eq!((restarts.spent_at(s(1010), &policy), restarts.slot(&policy)), (1, s(1070)));
    restarts.require_trial(s(1000));
    assert_eq!(restarts.spent_at(s(1010), &policy), 1, "it gives back once");
    restarts.begin(s(1070));
    assert_eq!(restarts.spent_at(s(1070), &policy), 2, "the trial is paid for when it is made");
}

#[test]
fn a_waiver_before_anything_is_spent_is_kept_for_nothing() {
    let policy = Policy { max_restarts: 0, backoff_max: s(60), ..unbraked() };
    let mut restarts = RestartPolicy::new(0);
    restarts.grant_trial();
    restarts.after_run(s(1000), stillborn(s(1000)), Cause::Failed, &policy);
    assert_eq!(restarts.slot(&policy), s(1060));
}

#[test]
fn a_replacement_for_its_memory_is_free_after_a_stable_run_and_a_failure_before() {
    let policy = Policy { max_restarts: 1, ..unbraked() };
    let mut restarts = RestartPolicy::new(1);
    for round in 1..20 {
        let now = s(round * 200);
        assert_eq!(start(restarts.after_run(now, served(now, policy.stable_after, true), Cause::Memory, &policy)), now);
        assert_eq!(restarts.spent_at(now, &policy), 0);
    }
    let early = |now| served(now, ms(119_999), true);
    assert!(start(restarts.after_run(s(5000), early(s(5000)), Cause::Memory, &policy)) > s(5000));
    let spent = restarts.after_run(s(5010), early(s(5010)), Cause::Memory, &policy);
    assert_eq!(spent, Plan::GiveUp { restarts: 1 });
}

/// The last gateway of a predecessor is recalled after the others, and may lie before them where its clock was wrong.
#[test]
fn a_run_that_is_recalled_late_and_lies_beyond_the_window_delays_nothing() {
    let policy = Policy { boot_limit: 2, boot_window: s(300), max_restarts: 3, ..Policy::default() };
    let now = s(1_000_000);
    let mut restarts = RestartPolicy::new(1);
    let ago = |age| now.saturating_sub(s(age));
    for age in [200, 100] {
        restarts.after_run(ago(age), stillborn(ago(age)), Cause::Failed, &policy);
    }
    let before = restarts.gate(now, &policy);
    restarts.after_run(ago(900_000), stillborn(ago(900_000)), Cause::Asked, &policy);
    assert_eq!((before, restarts.gate(now, &policy)), (now, now));
    restarts.after_run(now, stillborn(now), Cause::Asked, &policy);
    assert_eq!(restarts.gate(now, &policy), ago(200) + s(300) + ms(1), "the oldest of three has to leave the window");
}
