//! A gateway that uses CPU time and does not answer may only be busy.

use crate::world::{STARTED, Script, World, s};
use openclaw_supervise_core::stall::Stall;
use openclaw_supervise_core::{Effect, Event, Policy, Report, Request, Verdict};
use std::time::Duration;

const FROZEN: Script = Script { boots_in: Duration::ZERO, dies: None, drain: None };

fn ended(world: &World) -> Vec<Duration> {
    world.when(|effect| matches!(effect, Effect::Terminate { .. }))
}

/// The CPU time and the length of each reported extension.
fn extensions(world: &World) -> Vec<(Duration, Duration)> {
    let told = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Report(Report::LivenessExtended { stall: Stall::Busy(cpu), by, .. }) => Some((*cpu, *by)),
        _ => None,
    });
    told.collect()
}

/// A world whose gateway falls silent after 30 s and uses this share of a processor from then on.
fn busy(policy: Policy, work: Option<u32>, verdict: Verdict) -> (World, Duration) {
    let mut world = World::started_with(policy, FROZEN);
    world.run_for(s(30));
    (world.work, world.port) = (work, Some(verdict));
    let since = world.now;
    (world, since)
}

#[test]
fn work_extends_the_window_once_and_only_once() {
    let (mut world, since) = busy(Policy::default(), Some(100), Verdict::Silent);
    world.run_for(s(600));
    let [(cpu, by)] = extensions(&world)[..] else { panic!("told once: {:?}", world.names()) };
    assert!(cpu > s(40) && by == s(60), "{cpu:?} {by:?}");
    let told = world.told("liveness.extended")[0];
    assert!(told >= since + s(55) && told <= since + s(60));
    assert_eq!(world.told("gateway.hung")[0].as_secs(), (told + s(60)).as_secs());
}

#[test]
fn an_idle_hang_is_not_given_more_time() {
    // A frozen process uses nothing, an idle loop less than 1 %; an unknown usage is no progress.
    for work in [Some(0), Some(1), Some(4), None] {
        let (mut world, since) = busy(Policy::default(), work, Verdict::Silent);
        world.run_for(s(66));
        assert_eq!(extensions(&world), [], "{work:?}");
        assert!(ended(&world)[0] <= since + s(65), "{work:?}");
    }
    let (mut world, _) = busy(Policy::default(), Some(6), Verdict::Silent);
    world.run_for(s(100));
    assert_eq!((extensions(&world).len(), ended(&world)), (1, vec![]), "5 % are work");
}

#[test]
fn a_busy_minute_is_survived() {
    let (mut world, _) = busy(Policy::default(), Some(100), Verdict::Silent);
    world.run_for(s(100));
    (world.work, world.port) = (Some(0), None);
    world.run_for(s(3600));
    assert_eq!((ended(&world), world.told("liveness.recovered").len()), (vec![], 1));
}

#[test]
fn every_window_has_an_extension_of_its_own() {
    let (mut world, _) = busy(Policy::default(), Some(100), Verdict::Silent);
    world.run_for(s(100));
    world.port = Some(STARTED);
    world.run_for(s(10));
    world.port = Some(Verdict::Silent);
    world.run_for(s(100));
    assert_eq!((extensions(&world).len(), ended(&world)), (2, vec![]));
    world.run_for(s(40));
    assert_eq!((extensions(&world).len(), ended(&world).len()), (2, 1));
}

#[test]
fn a_closed_port_with_work_behind_it_has_the_budget_of_a_boot() {
    // A restart in place without a seen drain.
    let (mut world, since) = busy(Policy::default(), Some(30), Verdict::Free);
    world.run_for(s(294));
    assert_eq!(ended(&world), []);
    assert!(extensions(&world)[0].1 <= s(240), "what is left of 300 s: {:?}", extensions(&world));
    world.run_for(s(10));
    assert_eq!((extensions(&world).len(), ended(&world).len()), (1, 1));
    assert!(ended(&world)[0] <= since + s(301));
    let (mut world, _) = busy(Policy::default(), Some(30), Verdict::Free);
    world.run_for(s(280));
    world.port = None;
    world.run_for(s(600));
    assert_eq!((ended(&world), world.spawns().len()), (vec![], 1));
}

#[test]
fn a_closed_port_with_nothing_behind_it_is_a_hang_after_the_window() {
    let (mut world, since) = busy(Policy::default(), Some(0), Verdict::Free);
    world.run_for(s(66));
    assert!(ended(&world)[0] <= since + s(65));
}

#[test]
fn a_closed_port_for_the_startup_budget_after_a_drain_is_a_hang_however_it_works() {
    for work in [0, 100] {
        let (mut world, since) = busy(Policy::default(), Some(work), Verdict::Draining);
        world.run_for(s(20));
        world.port = Some(Verdict::Free);
        world.run_for(s(294));
        assert_eq!(ended(&world), [], "{work}");
        world.run_for(s(15));
        let at = ended(&world)[0];
        assert!(at >= since + s(320) && at <= since + s(331), "{work}: {at:?}");
        assert_eq!(extensions(&world), [], "{work}: it had its budget");
    }
}

#[test]
fn a_drain_that_falls_silent_is_cut_short_however_it_works() {
    let (mut world, _) = busy(Policy::default(), Some(100), Verdict::Draining);
    world.run_for(s(20));
    world.port = Some(Verdict::Silent);
    let silent = world.now;
    world.run_for(s(70));
    assert!(extensions(&world).is_empty() && ended(&world)[0] <= silent + s(65));
}

#[test]
fn an_extension_begins_when_the_proof_is_there_however_short_the_window() {
    let policy = Policy { hang_after: s(1), ..Policy::default() };
    let (mut world, _) = busy(policy, Some(100), Verdict::Free);
    world.run_for(s(60));
    let (told, by) = (world.told("liveness.extended")[0], extensions(&world)[0].1);
    assert!(by > s(200), "the rest of a boot behind a closed port: {by:?}");
    assert_eq!(ended(&world), []);
    let policy = Policy { hang_after: s(1), ..Policy::default() };
    let (mut world, _) = busy(policy, Some(100), Verdict::Malformed);
    world.run_until(told + s(60));
    let (told, by) = (world.told("liveness.extended")[0], extensions(&world)[0].1);
    assert_eq!((by, ended(&world)[0].as_secs()), (s(1), (told + s(1)).as_secs()));
}

#[test]
fn a_suspend_restarts_the_window_and_the_extension() {
    let (mut world, _) = busy(Policy::default(), Some(100), Verdict::Silent);
    world.run_for(s(100));
    world.send(Event::ClockJumped { by: s(3600) });
    world.run_for(s(110));
    assert_eq!((extensions(&world).len(), ended(&world)), (2, vec![]));
    world.run_for(s(30));
    assert_eq!(ended(&world).len(), 1);
}

#[test]
fn probes_that_cannot_run_extend_nothing_and_end_nothing() {
    let (mut world, _) = busy(Policy::default(), Some(100), Verdict::Inconclusive);
    world.run_for(s(3600));
    assert_eq!((extensions(&world), ended(&world)), (vec![], vec![]));
}

#[test]
fn a_restart_on_request_does_not_wait_for_the_end_of_an_extension() {
    let (mut world, _) = busy(Policy::default(), Some(100), Verdict::Silent);
    world.run_for(s(80));
    world.request(Request::Restart);
    assert_eq!(ended(&world), [world.now]);
}
