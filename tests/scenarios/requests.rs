//! Requested restarts that come faster than a gateway can become stable.

use crate::world::{CRASH, STARTED, Script, World, ours, s, sighting};
use openclaw_supervise_core::{
    Effect, Event, ExitStatus, Moment, Observation, Policy, ProbeScope, Readiness, Report, Request, Verdict,
};
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
    assert_eq!(world.core.status(world.now).next.action, "restart the gateway");
    world.run_for(due.saturating_sub(world.now) + s(1));
    assert_eq!(world.spawns().len(), spawns + 1);
    world.run_for(s(60));
    assert_eq!(world.spawns().len(), spawns + 1);
}

/// Both came between the time at which it was due and the tick for it: the answer was not reported, or the signal had no
/// request of its own.
#[test]
fn a_restart_that_waits_is_served_by_a_tick_and_in_the_step_of_no_other_event() {
    let answer = |world: &mut World| {
        let readiness = Some(Readiness { ready: false, detail: String::new() });
        let sighting = Observation { readiness, ..sighting(STARTED, ours()) };
        world.send(Event::Probed { ticket: world.ticket(), sighting });
        assert_eq!(world.names().last(), Some(&"readiness.changed"));
    };
    let retry = |world: &mut World| world.request(Request::Retry);
    for event in [answer as fn(&mut World), retry] {
        let mut world = World::started(Script::default());
        world.run_for(s(20));
        insist(&mut world, s(25));
        world.request(Request::Restart);
        let (within, _) = world.core.status(world.now).restart_paced.expect("it waits");
        let due = world.now + within;
        world.unanswered = |effect| matches!(effect, Effect::Probe { .. });
        world.run_until(due.saturating_sub(Duration::from_millis(1)));
        let terminated = |world: &World| world.when(|effect| matches!(effect, Effect::Terminate { .. })).len();
        let before = terminated(&world);
        world.now = due + Duration::from_millis(1);
        event(&mut world);
        assert_eq!(terminated(&world), before);
        assert!(world.core.deadline().is_some_and(|at| at <= world.now), "the tick for it is due");
        world.send(Event::Tick);
        assert_eq!(terminated(&world), before + 1);
    }
}

#[test]
fn a_gateway_that_becomes_stable_is_restarted_at_once_if_a_restart_waits() {
    let mut world = World::started(Script::default());
    world.run_for(s(20));
    insist(&mut world, s(25));
    world.request(Request::Restart);
    let started = world.told("gateway.started").pop().expect("it serves");
    let spawns = world.spawns().len();
    world.run_until(started + Policy::default().stable_after + Policy::default().probe_interval + s(2));
    assert_eq!(world.spawns().len(), spawns + 1);
}

/// It is no request that comes faster than a gateway can become stable.
#[test]
fn a_restart_that_is_asked_for_when_a_stable_gateway_has_just_refused_costs_no_later_one_its_place() {
    let mut world = World::started_with(
        Policy { boot_limit: 1, ..Policy::default() },
        Script::serving(s(200), ExitStatus::Code(78)),
    );
    world.unanswered = |effect| matches!(effect, Effect::Probe { ask: ProbeScope::Port, .. });
    while world.told("gateway.exited").is_empty() {
        world.run_for(Duration::from_millis(500));
    }
    world.run_for(Duration::from_millis(100));
    world.unanswered = |_| false;
    world.script = Script::default();
    world.request(Request::Restart);
    world.run_for(s(20));
    assert_eq!(world.spawns().len(), 2);
    world.request(Request::Restart);
    world.run_for(s(5));
    assert_eq!((world.spawns().len(), merged(&world)), (3, vec![]));
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

/// The restart that waits is served, and the reason for its wait is forgotten.
#[test]
fn retry_now_makes_the_restart_that_waits() {
    for request in [Request::Retry, Request::RetryForced] {
        let mut world = World::started(Script::default());
        world.run_for(s(20));
        insist(&mut world, s(25));
        world.request(Request::Restart);
        assert!(world.core.status(world.now).restart_waits > Some(s(60)));
        let spawns = world.spawns().len();
        world.request(request);
        world.run_for(s(2));
        assert_eq!(world.spawns().len(), spawns + 1, "{request:?}");
        assert_eq!(world.core.status(world.now).restart_waits, None);
    }
}

#[test]
fn a_forced_restart_never_waits() {
    let mut world = World::started(Script::default());
    world.run_for(s(20));
    insist(&mut world, s(25));
    for _ in 0..5 {
        let spawns = world.spawns().len();
        world.request(Request::RestartForced);
        world.run_for(s(10));
        assert_eq!(world.spawns().len(), spawns + 1);
    }
}

/// The next boot may come up without its channels, and that is what the operator was told.
#[test]
fn a_forced_request_starts_past_the_limit_of_unclean_boots_and_once() {
    for request in [Request::RetryForced, Request::RestartForced] {
        let mut world = World::started(Script::serving(s(1), CRASH));
        world.run_for(s(60));
        let spawns = world.spawns().len();
        world.request(Request::Retry);
        world.run_for(s(2));
        assert_eq!(world.spawns().len(), spawns, "a plain one waits");
        world.request(request);
        world.run_for(s(60));
        assert_eq!(world.spawns().len(), spawns + 1, "{request:?}: what follows a crash waits again");
    }
}

/// A restart interrupts nothing there, and a person waits for it.
#[test]
fn a_restart_of_a_gateway_that_boots_waits_for_seconds() {
    let mut world = World::started(Script::default());
    world.run_for(s(20));
    world.request(Request::Restart);
    world.run_for(s(10));
    world.script.boots_in = s(1000);
    for spawns in 3..=5 {
        world.request(Request::Restart);
        world.run_for(s(5));
        assert_eq!(world.spawns().len(), spawns, "{:?}", merged(&world));
    }
}

/// It was put off for the gateway that served.
#[test]
fn a_restart_that_waits_comes_once_the_gateway_stops_answering() {
    let mut world = World::started(Script::default());
    world.run_for(s(20));
    insist(&mut world, s(25));
    world.request(Request::Restart);
    let spawns = world.spawns().len();
    world.port = Some(Verdict::Silent);
    world.run_for(s(6));
    world.port = None;
    world.run_for(s(10));
    assert_eq!(world.spawns().len(), spawns + 1);
}
