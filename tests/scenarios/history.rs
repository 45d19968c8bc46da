//! What the store remembers paces the next supervisor.

use crate::world::{CRASH, Script, World, acquired, s};
use openclaw_supervise_core::restart_policy::{Cause, Run};
use openclaw_supervise_core::{
    Effect, Event, ExitStatus, Fact, History, Moment, PastRun, Policy, Remains, Request, Settled, Unfinished,
};
use std::time::Duration;

const SEGV: ExitStatus = ExitStatus::Signal { number: 11, core_dumped: true };

/// A run that died at once, at that moment.
fn crashed(at: u64) -> PastRun {
    let run = Run { started: None, healthy_until: s(at), ended: s(at), clean: false };
    PastRun { spawned: s(at - 1), settled: Settled::Ran(run, Cause::Failed), death: CRASH }
}

fn heir_of(policy: Policy, runs: Vec<PastRun>, script: Script) -> World {
    let mut world = World::new(policy);
    world.lease = acquired(History { generation: runs.len() as u64, runs, left: None });
    world.script = script;
    world.send(Event::Start);
    world.run_for(Duration::from_millis(100));
    world
}

fn unbraked() -> Policy {
    Policy { boot_limit: 0, ..Policy::default() }
}

/// Six restarts and the seventh death: a supervisor gave up at 990 s.
fn spent() -> Vec<PastRun> {
    [930, 940, 950, 960, 970, 980, 990].map(crashed).to_vec()
}

/// The second in which the first gateway was started.
fn first_spawn(world: &World) -> Option<u64> {
    world.spawns().first().map(Moment::as_secs)
}

#[test]
fn a_spent_budget_makes_the_next_supervisor_wait_for_its_trial_and_not_exit() {
    let mut world = heir_of(unbraked(), spent(), Script::default());
    assert_eq!((world.exit(), world.spawns()), (None, vec![]));
    let status = world.core.status(world.now);
    assert_eq!((status.state, status.restarts), ("backing_off", 6));
    assert!(status.next.why.contains("retry-now"), "{}", status.next.why);
    world.run_until(s(1289));
    assert_eq!(world.spawns(), []);
    world.run_until(s(1400));
    assert_eq!(first_spawn(&world), Some(1290), "one --backoff-max after the last death");
    assert_eq!(world.told("gateway.started").len(), 1);
}

#[test]
fn a_trial_that_fails_gives_up_and_the_next_one_waits_again() {
    let mut world = heir_of(unbraked(), spent(), Script::dying(s(1), CRASH));
    world.run_until(s(1400));
    assert_eq!((world.outcome().0, world.spawns().len()), (69, 1));
    let mut runs = spent();
    runs.push(crashed(1291));
    let mut world = World::new(unbraked());
    world.now = s(1291);
    world.lease = acquired(History { generation: 8, runs, left: None });
    world.send(Event::Start);
    world.run_until(s(1600));
    assert_eq!(first_spawn(&world), Some(1591), "69 cannot loop under any manager");
}

/// Gateways that died of one fatal signal, a second after their start.
fn segfaults(ends: &[u64]) -> Vec<PastRun> {
    ends.iter().map(|end| PastRun { death: SEGV, ..crashed(*end) }).collect()
}

#[test]
fn equal_deaths_count_across_supervisors() {
    let mut world = heir_of(unbraked(), segfaults(&[980, 990]), Script::dying(s(1), SEGV));
    world.run_for(s(100));
    let (code, reason) = world.outcome();
    assert_eq!((code, world.spawns().len()), (69, 1), "the third one");
    assert!(reason.contains("3 gateways in a row") && reason.contains("before this supervisor began"), "{reason}");
    assert!(!reason.contains("same configuration"), "that is not known: {reason}");
    for other in [crashed(990), PastRun { spawned: s(950), ..segfaults(&[990])[0] }] {
        let runs = vec![segfaults(&[970])[0], segfaults(&[980])[0], other];
        let mut world = heir_of(unbraked(), runs, Script::dying(s(1), SEGV));
        world.run_for(s(100));
        assert_eq!(world.spawns().len(), 3, "the last one was no such death");
    }
}

#[test]
fn after_giving_up_on_equal_deaths_there_is_one_trial_each_backoff_max() {
    let mut world = heir_of(unbraked(), segfaults(&[970, 980, 990]), Script::dying(s(1), SEGV));
    assert_eq!((world.exit(), world.spawns()), (None, vec![]));
    world.run_until(s(1400));
    assert_eq!((first_spawn(&world), world.outcome().0, world.spawns().len()), (Some(1290), 69, 1));
    let attended = Policy { attended: true, ..unbraked() };
    assert_eq!(first_spawn(&heir_of(attended, segfaults(&[970, 980, 990]), Script::default())), Some(1000));
    let mut mended = heir_of(unbraked(), segfaults(&[970, 980, 990]), Script::default());
    mended.request(Request::Retry);
    mended.run_for(s(20));
    assert_eq!((mended.exit(), mended.told("gateway.started").len()), (None, 1));
}

#[test]
fn a_start_from_a_terminal_does_not_wait_for_a_trial() {
    let world = heir_of(Policy { attended: true, ..unbraked() }, spent(), Script::default());
    assert_eq!(first_spawn(&world), Some(1000), "started from a terminal");
    for request in [Request::Retry, Request::Restart] {
        let mut world = heir_of(unbraked(), spent(), Script::default());
        world.run_for(s(10));
        let asked = world.now;
        world.request(request);
        world.run_for(s(1));
        assert_eq!(world.spawns().len(), 1, "{request:?}");
        assert!(first_spawn(&world).is_some_and(|at| at == asked.as_secs()));
    }
}

/// Seed 264008 of the simulation.
#[test]
fn a_request_while_the_hooks_of_a_predecessor_are_ended_is_not_forgotten() {
    for request in [Request::Retry, Request::Restart] {
        let mut world = World::new(Policy { pre_start: Some(s(15)), max_restarts: 6, ..unbraked() });
        let (mut runs, died) = (spent(), Some((CRASH, s(991))));
        runs.remove(0);
        let left = Unfinished { generation: 7, spawned: s(990), started: None, healthy_until: None, died };
        world.lease = acquired(History { generation: 7, runs, left: Some(left) });
        world.remains = Remains::Nothing { pid: Some(101) };
        world.unanswered = |effect| matches!(effect, Effect::ClearHooks { .. });
        world.send(Event::Start);
        world.request(request);
        world.send(Event::HooksCleared { trouble: None });
        world.run_for(s(3));
        assert_eq!(first_spawn(&world), Some(1001), "{request:?}: {:?}", world.names());
    }
}

#[test]
fn a_budget_that_has_room_again_waits_for_nothing() {
    let policy = Policy { restart_window: s(60), ..unbraked() };
    let world = heir_of(policy, [530, 540, 550, 560, 570, 580, 590].map(crashed).to_vec(), Script::default());
    assert_eq!(first_spawn(&world), Some(1000));
}

#[test]
fn what_a_predecessor_spent_counts_for_the_next_death() {
    let runs = [950, 960, 970, 980].map(crashed).to_vec();
    let mut world = heir_of(unbraked(), runs, Script::dying(s(1), CRASH));
    world.run_for(s(3000));
    assert_eq!((world.outcome().0, world.spawns().len()), (69, 3), "4 of 6 are spent");
}

#[test]
fn the_limit_of_unclean_boots_holds_across_supervisors_and_from_a_terminal() {
    let runs = [900, 950, 990].map(crashed).to_vec();
    for attended in [false, true] {
        let policy = Policy { attended, ..Policy::default() };
        let mut world = heir_of(policy, runs.clone(), Script::default());
        world.request(Request::Retry);
        world.run_until(s(1199));
        assert_eq!(world.spawns(), [], "a third one within 300 s would switch the channels off");
        world.run_until(s(1210));
        assert_eq!(world.spawns().len(), 1);
        assert!(first_spawn(&world).is_some_and(|at| at >= 1200));
    }
}

#[test]
fn a_stable_run_on_record_forgives_what_was_before_it() {
    let mut runs = [100, 110, 120].map(crashed).to_vec();
    let stable = Run { started: Some(s(200)), healthy_until: s(900), ended: s(900), clean: true };
    runs.push(PastRun { spawned: s(190), settled: Settled::Ran(stable, Cause::Failed), death: CRASH });
    let mut world = heir_of(unbraked(), runs, Script::dying(s(1), CRASH));
    world.run_for(s(4));
    let spawns = world.spawns();
    assert!(spawns.len() >= 2 && spawns[1] <= spawns[0] + s(2) + Duration::from_millis(50), "{spawns:?}");
}

#[test]
fn a_past_without_trouble_changes_nothing() {
    let asked = Run { started: Some(s(700)), healthy_until: s(900), ended: s(905), clean: true };
    let runs =
        vec![PastRun { spawned: s(690), settled: Settled::Ran(asked, Cause::Asked), death: ExitStatus::Code(0) }];
    let world = heir_of(Policy { max_restarts: 0, ..Policy::default() }, runs, Script::default());
    assert_eq!(first_spawn(&world), Some(1000));
    let numbered = world.effects.iter().any(|(_, effect)| matches!(effect, Effect::Spawn { generation: 2, .. }));
    assert!(numbered, "numbers go on");
}

#[test]
fn failed_starts_spend_the_budget_but_are_no_boots() {
    let unborn = |at| PastRun { spawned: s(at), settled: Settled::NeverStarted, death: ExitStatus::Unknown };
    let policy = Policy { max_restarts: 3, ..Policy::default() };
    let mut world = heir_of(policy, [960, 970, 980, 990].map(unborn).to_vec(), Script::default());
    world.run_until(s(1280));
    assert_eq!(world.spawns(), []);
    world.run_until(s(1300));
    assert_eq!(first_spawn(&world), Some(1290), "the budget's trial, not the breaker's gate");
}

/// Seed 3896683 of the simulation.
#[test]
fn a_gateway_that_was_stopped_for_a_restart_is_no_failure_if_a_detach_comes_meanwhile() {
    let mut world = World::serving();
    world.script.drain = None;
    world.request(Request::Restart);
    world.request(Request::Detach);
    world.leader_exits(1, CRASH);
    world.run_for(s(1));
    let causes = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Remember { fact: Fact::Settled(Settled::Ran(_, cause)), .. } => Some(*cause),
        _ => None,
    });
    assert_eq!(causes.collect::<Vec<_>>(), [Cause::Asked]);
}

/// Seed 3874660 of the simulation: a supervisor that is stopped waits for them for 5 s only, and leaves its lease in order.
#[test]
fn a_repair_that_an_earlier_supervisor_left_is_killed_first() {
    let mut world = World::new(Policy { repair: Some(s(60)), ..Policy::default() });
    world.send(Event::Start);
    let cleared = world.when(|effect| matches!(effect, Effect::ClearHooks { heir: false }));
    assert_eq!(cleared, [world.now]);
}
