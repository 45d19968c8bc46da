//! Requested restarts that come faster than a gateway can become stable.

use crate::world::{CRASH, Script, World, s};
use openclaw_supervise_core::{Effect, ExitStatus, Moment, Policy, Report, Request};
use std::time::Duration;

const DONE: ExitStatus = ExitStatus::Code(0);

/// In how long each merged request is served, as it was told.
fn merged(world: &World) -> Vec<Option<Duration>> {
    let merged = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Report(Report::RestartMerged { delay, .. }) => Some(*delay),
        _ => None,
    });
    merged.collect()
}

/// Asks again a second after each start, for so long.
fn insist(world: &mut World, time: Duration) {
    let until = world.now + time;
    while world.now < until {
        let starts = world.told("gateway.started").len();
        world.request(Request::Restart);
        while world.now < until && world.told("gateway.started").len() == starts {
            world.run_for(s(1));
        }
        world.run_for(s(1));
    }
}

fn spawns_within(world: &World, since: Moment, time: Duration) -> usize {
    world.spawns().iter().filter(|at| **at >= since && **at < since + time).count()
}

#[test]
fn an_agent_that_asks_after_each_start_gets_two_restarts_in_each_window_and_more_only_of_stable_gateways() {
    let mut world = World::started(Script::default());
    world.run_for(s(20));
    let since = world.now;
    insist(&mut world, s(3600));
    assert_eq!(spawns_within(&world, since, s(100)), 2);
    let all = spawns_within(&world, since, s(3600));
    assert!((24..=54).contains(&all), "{all} in an hour");
    assert_eq!(world.told("restart.gave_up"), []);
    let told = merged(&world);
    assert!(told.iter().flatten().all(|delay| *delay <= s(130)), "{told:?}");
}

#[test]
fn who_asks_once_after_a_long_time_is_served_at_once_whatever_came_before() {
    let mut world = World::started(Script::default());
    world.run_for(s(20));
    insist(&mut world, s(30));
    world.run_for(s(900));
    let (spawns, merges) = (world.spawns().len(), merged(&world).len());
    world.request(Request::Restart);
    world.run_for(s(2));
    assert_eq!((world.spawns().len(), merged(&world).len()), (spawns + 1, merges));
}

#[test]
fn a_merged_request_is_served_when_it_was_told_and_all_of_them_are_one_restart() {
    let mut world = World::started(Script::default());
    world.run_for(s(20));
    insist(&mut world, s(25));
    let (spawns, now) = (world.spawns().len(), world.now);
    assert_eq!(spawns, 3);
    for _ in 0..40 {
        world.request(Request::Restart);
        world.run_for(s(1));
    }
    let told = merged(&world);
    assert!(told.len() < 12, "the log of one sender stays short: {told:?}");
    assert_eq!(world.spawns().len(), spawns, "{told:?}");
    let within = world.core.status(now).restart_paced.map(|(within, _)| within);
    let due = now + within.or(told[0]).expect("it waits");
    world.run_for(due.saturating_sub(world.now) + s(1));
    assert_eq!(world.spawns().len(), spawns + 1);
    world.run_for(s(60));
    assert_eq!(world.spawns().len(), spawns + 1);
}

#[test]
fn a_crash_meanwhile_is_the_restart_that_was_asked_for() {
    let mut world = World::started(Script::default());
    world.run_for(s(20));
    insist(&mut world, s(25));
    world.request(Request::Restart);
    let spawns = world.spawns().len();
    let generation = world.core.generation();
    world.leader_exits(generation, CRASH);
    world.run_for(s(300));
    assert_eq!(world.spawns().len(), spawns + 1);
}

#[test]
fn a_stop_is_never_paced() {
    let mut world = World::started(Script::default());
    world.run_for(s(20));
    insist(&mut world, s(25));
    world.request(Request::Restart);
    world.request(Request::Stop);
    world.run_for(s(2));
    assert_eq!(world.outcome().0, 0);
}

#[test]
fn without_a_boot_limit_no_request_waits() {
    let mut world = World::started_with(Policy { boot_limit: 0, ..Policy::default() }, Script::default());
    world.run_for(s(20));
    for _ in 0..6 {
        world.request(Request::Restart);
        world.run_for(s(15));
    }
    assert_eq!((world.spawns().len(), merged(&world)), (7, vec![]));
}

#[test]
fn a_gateway_that_exits_and_is_asked_for_again_and_again_is_started_ever_more_slowly() {
    let mut world = World::started(Script::serving(s(1), DONE));
    let since = world.now;
    for _ in 0..200 {
        world.run_for(Duration::from_millis(100));
        world.request(Request::Restart);
    }
    assert!(spawns_within(&world, since, s(20)) <= 9, "{:?}", world.spawns());
}
