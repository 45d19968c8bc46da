//! A gateway that is alive and not healthy is told of, and not replaced.

use crate::world::{STARTED, Script, World, ours, s, sighting, stranger};
use openclaw_supervise_core::{Effect, Event, Owner, Phase, ProbeScope, Report, Verdict};
use std::time::Duration;

const NEVER_UP: Script = Script { boots_in: Duration::from_secs(100_000), dies: None, drain: None };

fn terminations(world: &World) -> Vec<Duration> {
    world.when(|effect| matches!(effect, Effect::Terminate { .. } | Effect::Examine { .. }))
}

fn details(world: &World) -> Vec<&str> {
    let told = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Report(Report::LivenessDegraded { detail, .. }) => Some(detail.as_str()),
        _ => None,
    });
    told.collect()
}

#[test]
fn a_gateway_that_answers_badly_for_a_day_is_told_of_once_and_left_alone() {
    let mut world = World::serving();
    world.port = Some(Verdict::Foreign);
    world.run_for(s(24 * 3600));
    assert_eq!((terminations(&world), details(&world)), (vec![], vec!["scripted foreign"]));
    let status = world.core.status(world.now);
    assert_eq!(status.sentence(), "gateway 1 (pid 101) is alive and not healthy: scripted foreign");
    assert_eq!(status.next.why, "it is alive and not healthy: scripted foreign");
    assert!(status.gateway.is_some_and(|gateway| !gateway.healthy));
    world.port = None;
    world.run_for(s(10));
    assert_eq!(world.names()[3..], ["liveness.degraded", "liveness.recovered"]);
    assert_eq!(world.core.status(world.now).sentence(), "gateway 1 (pid 101) is healthy");
}

#[test]
fn an_owner_that_cannot_be_seen_counts_like_ours_and_a_stranger_does_not() {
    for (listener, ends) in [(ours(), 0), (Owner::Unseen, 0), (stranger(), 1)] {
        let mut world = World::serving();
        (world.listener, world.port) = (listener.clone(), Some(Verdict::Foreign));
        world.run_for(s(67));
        assert_eq!(world.told("gateway.hung").len(), ends, "{listener:?}");
        assert_eq!(world.told("liveness.degraded").len(), 1 - ends, "{listener:?}");
    }
}

#[test]
fn a_degraded_gateway_that_falls_silent_hangs_one_window_later() {
    let mut world = World::serving();
    world.port = Some(Verdict::Foreign);
    world.run_for(s(600));
    let last = world.now;
    world.port = Some(Verdict::Silent);
    world.run_for(s(66));
    let hung = world.told("gateway.hung")[0];
    assert!((last + s(55)..=last + s(65)).contains(&hung), "{hung:?} {last:?}");
    assert_eq!(world.names()[3..5], ["liveness.degraded", "gateway.hung"]);
}

#[test]
fn silence_with_an_answer_now_and_then_is_no_hang() {
    let mut world = World::serving();
    for _ in 0..100 {
        world.port = Some(Verdict::Silent);
        world.run_for(s(40));
        world.port = Some(Verdict::Foreign);
        world.run_for(s(12));
    }
    assert_eq!(terminations(&world), []);
}

#[test]
fn a_boot_that_answers_badly_is_told_of_when_its_time_is_over_and_not_ended() {
    let mut world = World::started(NEVER_UP);
    world.run_for(s(1));
    world.port = Some(Verdict::Foreign);
    world.run_for(s(298));
    assert_eq!(details(&world), [] as [&str; 0]);
    assert_eq!(world.core.status(world.now).sentence(), "gateway 1 (pid 101) is starting");
    world.run_for(s(3600));
    assert_eq!((terminations(&world), details(&world)), (vec![], vec!["scripted foreign"]));
    assert_eq!(world.told("startup.timed_out"), []);
    assert_eq!(
        world.core.status(world.now).sentence(),
        "gateway 1 (pid 101) is alive and not healthy: scripted foreign"
    );
    world.port = Some(STARTED);
    world.run_for(s(10));
    assert_eq!(world.names()[2..], ["gateway.listening", "liveness.recovered", "gateway.started"]);
}

#[test]
fn a_boot_that_stops_answering_after_its_time_has_one_window() {
    let mut world = World::started(NEVER_UP);
    world.run_for(s(1));
    world.port = Some(Verdict::Foreign);
    world.run_for(s(600));
    let last = world.now;
    world.port = Some(Verdict::Silent);
    world.run_for(s(70));
    let timed_out = world.told("startup.timed_out")[0];
    assert!((last + s(58)..=last + s(61)).contains(&timed_out), "{timed_out:?} {last:?}");
}

#[test]
fn a_boot_that_answered_once_and_never_again_is_ended_in_time() {
    let mut world = World::started(NEVER_UP);
    world.run_for(s(1));
    world.port = Some(Verdict::Foreign);
    world.run_for(s(100));
    world.port = Some(Verdict::Silent);
    world.run_for(s(200));
    let boot = world.told("gateway.spawned")[0];
    assert_eq!(world.told("startup.timed_out"), [boot + s(300)]);
}

#[test]
fn a_boot_that_says_starting_has_the_limit_of_the_operator_and_all_of_it_after_bad_answers() {
    let mut world = World::started(NEVER_UP);
    world.run_for(s(1));
    world.port = Some(Verdict::Foreign);
    world.run_for(s(600));
    world.port = Some(Verdict::Gateway(Phase::Starting));
    let since = world.now;
    world.run_for(s(299));
    assert_eq!(terminations(&world), []);
    world.run_for(s(3));
    assert!(world.told("startup.timed_out")[0] >= since + s(299));
}

#[test]
fn a_late_bad_answer_clears_the_hang_too() {
    for boots_in in [Duration::ZERO, NEVER_UP.boots_in] {
        let mut world = World::started(Script { boots_in, ..NEVER_UP });
        world.run_for(s(30));
        (world.port, world.evidence) = (Some(Verdict::Silent), None);
        while !world.effects.iter().any(|(_, effect)| matches!(effect, Effect::Examine { .. })) {
            world.run_for(Duration::from_millis(10));
        }
        world.send(Event::Probed { ticket: world.ticket(), sighting: sighting(Verdict::Foreign, ours()) });
        world.port = Some(Verdict::Foreign);
        world.run_for(s(400));
        assert_eq!((world.told("gateway.hung"), world.told("liveness.degraded").len()), (vec![], 1));
    }
}

#[test]
fn the_owner_of_a_degraded_listener_is_looked_for() {
    let mut world = World::serving();
    world.port = Some(Verdict::Foreign);
    world.run_for(s(7));
    let before = world.effects.len();
    world.run_for(s(60));
    let asked = world.effects[before..].iter().filter_map(|(_, effect)| match effect {
        Effect::Probe { ask, .. } => Some(*ask),
        _ => None,
    });
    assert!(asked.collect::<Vec<_>>().iter().all(|ask| *ask == ProbeScope::Listener(1)));
}
