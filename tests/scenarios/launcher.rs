//! A gateway behind a launcher: another process than the one that was started listens.

use crate::world::{CRASH, Script, TERMED, World, s};
use openclaw_supervise_core::{Effect, Event, ExitStatus, Holder, Moment, Owner, Policy, Request, Verdict};
use std::time::Duration;

/// The process that listens; the launcher is pid 101.
const GATEWAY: i32 = 151;

fn gateway() -> Owner {
    Owner::Ours(Holder { pid: GATEWAY, command: "openclaw-gateway".to_owned(), uid: None })
}

/// One whose launcher does this on SIGTERM.
fn launched(drain: Option<(Duration, ExitStatus)>) -> World {
    let mut world = World::new(Policy::default());
    (world.script, world.listener, world.heir) = (Script { drain, ..Script::default() }, gateway(), Some(GATEWAY));
    world.send(Event::Start);
    world.run_for(s(10));
    assert_eq!(world.told("gateway.started").len(), 1);
    world
}

fn second_terms(world: &World) -> Vec<Moment> {
    world.when(|effect| matches!(effect, Effect::TerminateListener { pid: GATEWAY, .. }))
}

#[test]
fn a_launcher_that_exits_with_0_during_the_boot_has_put_the_gateway_into_the_background() {
    let mut world = World::started(Script::dying(s(1), ExitStatus::Code(0)));
    world.heir = Some(GATEWAY);
    world.listener = gateway();
    world.run_for(s(20));
    assert_eq!(world.names(), ["gateway.spawned", "gateway.followed", "gateway.listening", "gateway.started"]);
    assert_eq!((world.spawns().len(), world.kills()), (1, vec![]));
    let status = world.core.status(world.now);
    assert_eq!(status.gateway.map(|gateway| gateway.pid), Some(GATEWAY));
}

#[test]
fn one_that_has_left_nothing_or_has_failed_is_a_gateway_that_did_not_start() {
    for (death, heir, sought) in [(ExitStatus::Code(0), None, 1), (CRASH, Some(GATEWAY), 0)] {
        let mut world = World::started(Script::dying(s(1), death));
        world.heir = heir;
        world.run_for(Duration::from_millis(1100));
        assert_eq!(world.when(|effect| matches!(effect, Effect::SeekHeir { .. })).len(), sought, "{death}");
        assert_eq!(world.told("gateway.exited").len(), 1, "{death}");
        assert_eq!(world.kills().len(), 1, "{death}");
    }
}

#[test]
fn what_a_command_leaves_in_its_boot_is_no_gateway_once_it_has_been_the_gateway_itself() {
    let mut world = World::new(Policy::default());
    world.send(Event::Start);
    world.run_for(s(10));
    (world.script, world.heir) = (Script::dying(s(1), ExitStatus::Code(0)), Some(GATEWAY));
    world.request(Request::Restart);
    world.run_for(s(60));
    assert_eq!(world.when(|effect| matches!(effect, Effect::SeekHeir { .. })), []);
    assert!(world.spawns().len() > 2, "{:?}", world.names());
}

#[test]
fn a_search_without_an_answer_ends_after_5_s() {
    let mut world = World::new(Policy::default());
    world.script = Script::dying(s(1), ExitStatus::Code(0));
    world.unanswered = |effect| matches!(effect, Effect::SeekHeir { .. });
    world.send(Event::Start);
    world.run_for(s(7));
    let given_up = s(1006) + Duration::from_millis(2);
    assert_eq!((world.told("gateway.exited"), world.kills()), (vec![given_up], vec![given_up]));
}

/// Seed 1129920 of the simulation: the tick came before the answer.
#[test]
fn a_search_that_we_slept_over_has_its_time_again() {
    let mut world = launched(None);
    world.unanswered = |effect| matches!(effect, Effect::SeekHeir { .. });
    world.leader_exits(1, ExitStatus::Code(0));
    world.now += s(60);
    world.send(Event::Tick);
    world.send(Event::HeirSought { generation: 1, pid: Some(GATEWAY) });
    assert_eq!(
        (world.told("gateway.followed").len(), world.told("gateway.exited"), world.kills()),
        (1, vec![], vec![])
    );
}

#[test]
fn a_gateway_that_serves_goes_on_however_its_launcher_ends() {
    for death in [ExitStatus::Code(0), CRASH, TERMED] {
        let mut world = launched(None);
        world.leader_exits(1, death);
        world.run_for(s(60));
        assert_eq!((world.kills(), world.spawns().len()), (vec![], 1), "{death}");
        assert_eq!(world.told("gateway.exited"), [], "{death}");
        world.heir = None;
        world.leader_exits(1, CRASH);
        world.run_for(s(1));
        assert_eq!(world.causes(), ["crashed"], "its own end is seen");
    }
}

#[test]
fn a_gateway_that_serves_on_after_the_sigterm_to_its_launcher_gets_one_itself_once() {
    let mut world = launched(None);
    world.request(Request::Stop);
    world.run_for(s(30));
    assert_eq!(second_terms(&world), [s(1010) + Duration::from_millis(702)]);
    assert_eq!(world.told("stop.forwarded").len(), 1);
}

#[test]
fn one_that_drains_by_then_gets_no_second_sigterm() {
    for verdict in [Verdict::Draining, Verdict::Free] {
        let mut world = launched(Some((s(20), ExitStatus::Code(0))));
        world.request(Request::Stop);
        world.port = Some(verdict);
        world.run_for(s(10));
        (world.port, world.heir) = (None, None);
        world.run_for(s(60));
        assert_eq!(second_terms(&world), [], "{verdict}");
        assert_eq!(world.outcome().0, 0);
    }
}

#[test]
fn a_launcher_that_dies_of_sigterm_leaves_its_gateway_the_time_to_drain() {
    let mut world = launched(Some((Duration::from_millis(2), TERMED)));
    world.request(Request::Stop);
    world.run_for(Duration::from_millis(100));
    assert_eq!((world.told("gateway.followed").len(), world.kills()), (1, vec![]));
    world.run_for(s(2));
    assert_eq!(second_terms(&world).len(), 1);
    let (code, reason) = world.outcome();
    assert!(code == 0 && reason.contains("ended with exit code 0"), "{reason}");
}

/// Seed 2916022 of the simulation: its successor answered while it drained.
#[test]
fn one_that_drains_gets_no_second_sigterm_because_another_process_of_ours_serves() {
    let mut world = launched(Some((s(20), ExitStatus::Code(0))));
    world.request(Request::Stop);
    world.listener = Owner::Ours(Holder { pid: 110, command: "openclaw-gateway".to_owned(), uid: None });
    world.run_for(s(10));
    assert_eq!(world.told("stop.forwarded"), []);
    world.listener = gateway();
    world.run_for(s(9));
    assert_eq!(second_terms(&world).len(), 1, "it serves again");
}
