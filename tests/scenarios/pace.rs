//! How fast a dead gateway is followed by the next one.

use crate::world::{CRASH, KILLED, STARTED, Script, World, s};
use openclaw_supervise_core::{Effect, Event, ExitStatus, Fingerprint, Policy, Report, Request};
use std::time::Duration;

const DONE: ExitStatus = ExitStatus::Code(0);

fn unbraked() -> Policy {
    Policy { boot_limit: 0, ..Policy::default() }
}

/// The pauses between the ends of gateways and the next spawns.
fn pauses(world: &World) -> Vec<Duration> {
    let exits = world.told("gateway.exited");
    world.spawns()[1..].iter().zip(exits).map(|(spawn, exit)| spawn.saturating_sub(exit)).collect()
}

const SOON: Duration = Duration::from_millis(50);

#[test]
fn a_crash_loop_is_exactly_n_plus_one_spawns_and_then_69() {
    for max_restarts in [0, 1, 6] {
        let policy = Policy { max_restarts, ..unbraked() };
        let mut world = World::started_with(policy, Script::dying(s(1), CRASH));
        world.run_for(s(3000));
        let (code, reason) = world.outcome();
        assert_eq!((code, world.spawns().len()), (69, max_restarts as usize + 1));
        assert!(reason.contains("exit code 1") && reason.contains("--max-restarts"), "{reason}");
        assert_eq!(world.told("restart.gave_up").len(), 1);
        assert_eq!(world.told("gateway.exited").len(), world.spawns().len(), "one end each");
    }
}

#[test]
fn the_backoff_doubles_half_of_it_jitter() {
    let mut world = World::started_with(unbraked(), Script::dying(s(1), CRASH));
    world.run_for(s(3000));
    for (pause, full) in pauses(&world).into_iter().zip([1, 2, 4, 8, 16, 32]) {
        assert!(pause >= s(full) / 2 && pause <= s(full) + SOON, "{pause:?} of {full} s");
    }
}

#[test]
fn no_spawn_ever_finds_more_than_two_unclean_boots_in_the_last_five_minutes() {
    for lifetime in [Duration::from_millis(300), s(5), s(40), s(100)] {
        let mut world = World::started(Script::serving(lifetime, KILLED));
        world.run_for(s(6 * 3600));
        let (spawns, exits) = (world.spawns(), world.told("gateway.exited"));
        assert!(spawns.len() > 3);
        let started = world.told("gateway.started");
        for spawn in &spawns {
            // As the gateway itself counts: boots whose stamp is at most 300 s old, if they have ended.
            let unclean =
                started.iter().zip(&exits).filter(|(up, down)| *down < spawn && **up + s(300) >= *spawn).count();
            assert!(unclean <= 2, "{unclean} unclean boots behind the spawn at {spawn:?}");
        }
    }
}

#[test]
fn a_stable_gateway_that_crashes_is_replaced_at_once_and_uncounted() {
    let policy = Policy { max_restarts: 0, ..Policy::default() };
    let mut world = World::started_with(policy, Script::serving(s(400), KILLED));
    world.run_for(s(4100));
    assert_eq!((world.exit(), world.spawns().len()), (None, 11));
    assert!(pauses(&world).into_iter().all(|pause| pause < SOON), "{:?}", pauses(&world));
}

#[test]
fn a_stable_run_forgives_the_failures_before_it() {
    let mut world = World::started(Script::dying(s(1), CRASH));
    world.run_for(s(2));
    world.script = Script::serving(s(1000), KILLED);
    world.run_for(s(1010));
    world.script = Script::serving(s(1), KILLED);
    world.run_for(s(2000));
    let pauses = pauses(&world);
    assert!(pauses[2] < SOON && pauses[3] < SOON, "two stable runs: {pauses:?}");
    assert!(pauses[4] <= s(1) + SOON, "the first failure again: {pauses:?}");
}

#[test]
fn an_exit_0_before_any_answer_backs_off() {
    let mut world = World::started(Script::dying(Duration::from_millis(200), DONE));
    world.run_for(s(600));
    assert_eq!((world.outcome().0, world.spawns().len()), (69, 7));
    assert!(pauses(&world).into_iter().all(|pause| pause >= s(1) / 2));
    assert!(world.causes().iter().all(|cause| *cause == "exited with code 0 before it answered"));
}

#[test]
fn an_unrequested_exit_0_is_followed_at_once_and_a_second_one_backs_off() {
    let mut world = World::started(Script::serving(s(10), DONE));
    world.run_for(s(24));
    let pauses = pauses(&world);
    assert!(pauses[0] < SOON && pauses[1] >= s(1) / 2, "{pauses:?}");
    assert_eq!(world.causes(), ["exited with code 0 without a request"; 2]);
}

#[test]
fn two_clean_exits_far_apart_are_both_followed_at_once() {
    let mut world = World::started(Script::serving(s(150), DONE));
    world.run_for(s(1000));
    assert_eq!(world.spawns().len(), 7);
    assert!(pauses(&world).into_iter().all(|pause| pause < SOON));
}

#[test]
fn clean_exits_in_a_loop_spend_the_budget_too() {
    let mut world = World::started(Script::serving(s(3), DONE));
    world.run_for(s(3000));
    assert_eq!((world.outcome().0, world.spawns().len()), (69, 7));
}

#[test]
fn a_restart_on_request_spends_neither_budget_nor_backoff() {
    let policy = Policy { max_restarts: 0, ..Policy::default() };
    let mut world = World::started_with(policy, Script::default());
    for round in 1..=20 {
        world.run_for(s(130));
        world.request(Request::Restart);
        world.run_for(s(2));
        assert_eq!(world.spawns().len(), round + 1);
    }
    assert_eq!(world.causes(), ["restart requested"; 20]);
    assert!(pauses(&world).into_iter().all(|pause| pause < SOON));
}

#[test]
fn requests_that_come_during_a_restart_are_one_restart() {
    let mut world = World::started(Script { drain: Some((s(10), DONE)), ..Script::default() });
    world.run_for(s(20));
    for _ in 0..5 {
        world.request(Request::Restart);
        world.run_for(s(1));
    }
    world.run_for(s(60));
    assert_eq!((world.spawns().len(), world.told("restart.requested").len()), (2, 1));
    assert_eq!(world.told("stop.escalated"), [], "only a second stop is in a hurry");
}

#[test]
fn a_restart_on_request_ends_a_backoff_but_not_the_breaker() {
    let mut world = World::started(Script::dying(s(1), CRASH));
    world.run_for(Duration::from_millis(1010));
    world.script = Script::dying(s(1), CRASH);
    world.request(Request::Restart);
    world.run_for(SOON);
    assert_eq!(world.spawns().len(), 2, "the backoff is skipped");
    world.run_for(s(10));
    assert_eq!(world.spawns().len(), 3);
    world.request(Request::Restart);
    let last = world.effects.last().map(|(_, effect)| effect);
    let told = matches!(last, Some(Effect::Report(Report::RestartScheduled { delay, .. })) if *delay > s(250));
    assert!(told, "the delay that is told is the breaker's: {last:?}");
    world.run_for(s(200));
    assert_eq!(world.spawns().len(), 3, "three unclean boots: a fourth spawn would lose its channels");
    world.script = Script::default();
    world.run_for(s(120));
    assert_eq!(world.spawns().len(), 4);
    assert!(world.spawns()[3] > world.told("gateway.exited")[0] + s(300));
}

#[test]
fn a_restart_that_is_asked_for_while_one_is_being_spawned_is_that_one() {
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::Spawn { .. });
    world.send(Event::Start);
    world.run_for(s(1));
    world.request(Request::Restart);
    world.send(Event::Spawned { generation: 1, pid: 5, fingerprint: Fingerprint::default() });
    world.port = Some(STARTED);
    world.run_for(s(30));
    assert_eq!(world.spawns().len(), 1, "a newborn must not be ended: SIGTERM in its first seconds is an unclean boot");
    assert_eq!(world.told("gateway.started").len(), 1);
}

#[test]
fn a_gateway_that_hangs_again_and_again_spends_the_budget() {
    let never_up = Script { boots_in: s(100_000), dies: None, drain: None };
    let policy = Policy { startup_timeout: s(30), ..unbraked() };
    let mut world = World::started_with(policy, never_up);
    world.run_for(s(3600));
    assert_eq!((world.outcome().0, world.spawns().len()), (69, 7));
}

#[test]
fn the_same_seed_gives_the_same_delays() {
    let run = |seed| {
        let mut world = World::started_with(Policy { seed, ..unbraked() }, Script::dying(s(1), CRASH));
        world.run_for(s(3000));
        world.spawns()
    };
    assert_eq!(run(7), run(7));
    assert_ne!(run(7), run(8), "supervisors of a fleet do not march in step");
}
