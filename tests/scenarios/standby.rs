//! Standby beside another owner.

use crate::world::{STARTED, World, acquired, owner, s};
use openclaw_supervise_core::policy::OnConflict;
use openclaw_supervise_core::{Contested, Effect, Event, History, LeaseAnswer, LeaseRequest, Policy, Request, Verdict};

fn contended(pid: i32) -> LeaseAnswer {
    LeaseAnswer::Contended { owner: Some(owner(pid)), what: Contested::Lease }
}

fn patient() -> World {
    World::new(Policy { on_conflict: OnConflict::Standby, ..Policy::default() })
}

/// A world in standby beside a supervisor with this pid.
fn beside(pid: i32) -> World {
    let mut world = patient();
    world.lease = contended(pid);
    world.send(Event::Start);
    world
}

fn is_peek(effect: &Effect) -> bool {
    matches!(effect, Effect::Lease { ask: LeaseRequest::Peek, .. })
}

#[test]
fn an_owner_that_lives_is_looked_at_every_five_minutes_for_the_news_of_its_end_may_be_lost() {
    let mut world = beside(900);
    assert_eq!(world.names(), ["lease.contended", "conflict.detected", "standby.entered"]);
    assert!(matches!(world.effects.last(), Some((_, Effect::Watch { pid: 900 }))));
    assert_eq!(world.core.deadline(), Some(s(1300)));
    world.run_for(s(86_400));
    assert_eq!((world.exit(), world.when(is_peek).len(), world.names().len()), (None, 288, 3));
    world.lease = LeaseAnswer::Free;
    world.run_for(s(330));
    assert_eq!(world.told("standby.left").len(), 1);
}

#[test]
fn it_takes_over_15_s_after_the_owner_exited() {
    let mut world = beside(900);
    world.run_for(s(100));
    world.lease = LeaseAnswer::Free;
    world.send(Event::Departed { pid: 900 });
    world.run_for(s(14));
    assert_eq!(world.told("standby.left"), [], "an owner that is being restarted is not gone");
    assert!(world.when(is_peek).len() >= 5, "it is looked for meanwhile");
    world.unanswered = |effect| matches!(effect, Effect::Lease { ask: LeaseRequest::Take { .. }, .. });
    world.run_for(s(2));
    assert_eq!(world.told("standby.left"), [s(1115)]);
    world.unanswered = |_| false;
    world.send(Event::Leased { ticket: world.lease_ticket(), answer: acquired(History::default()) });
    world.run_for(s(10));
    assert_eq!((world.exit(), world.told("gateway.started").len()), (None, 1));
}

#[test]
fn an_owner_that_comes_back_in_time_is_waited_for_again() {
    let mut world = beside(900);
    world.lease = LeaseAnswer::Free;
    world.send(Event::Departed { pid: 900 });
    world.run_for(s(10));
    world.lease = contended(901);
    world.run_for(s(100));
    assert_eq!((world.told("standby.left"), world.core.deadline()), (vec![], Some(s(1312))));
    assert!(matches!(world.effects.last(), Some((_, Effect::Watch { pid: 901 }))));
    world.lease = LeaseAnswer::Free;
    world.send(Event::Departed { pid: 901 });
    world.run_for(s(14));
    assert_eq!(world.told("standby.left"), [], "its 15 s start again");
}

#[test]
fn the_exit_of_another_process_changes_nothing() {
    let mut world = beside(900);
    let before = world.effects.len();
    world.send(Event::Departed { pid: 901 });
    assert_eq!(world.effects.len(), before);
}

#[test]
fn an_owner_that_cannot_be_watched_is_checked_every_15_s() {
    let mut world = patient();
    world.lease = LeaseAnswer::Contended { owner: None, what: Contested::Lease };
    world.send(Event::Start);
    world.run_for(s(150));
    assert_eq!(world.when(is_peek).len(), 10);
    assert_eq!((world.exit(), world.told("standby.entered").len()), (None, 1));
}

#[test]
fn a_dead_process_still_named_as_the_owner_causes_no_busy_loop() {
    let mut world = beside(900);
    world.send(Event::Departed { pid: 900 });
    world.send(Event::Departed { pid: 900 });
    world.run_for(s(60));
    assert!(world.when(is_peek).len() <= 5, "{:?}", world.when(is_peek));
}

#[test]
fn a_heartbeat_that_stands_still_ends_a_standby_after_30_s() {
    let mut world = patient();
    world.lease = LeaseAnswer::Unclear { beat: 1, owner: None };
    world.send(Event::Start);
    world.run_for(s(6));
    world.lease = LeaseAnswer::Unclear { beat: 2, owner: None };
    world.run_for(s(20));
    assert_eq!(world.told("standby.entered").len(), 1);
    for beat in 3..20 {
        world.lease = LeaseAnswer::Unclear { beat, owner: None };
        world.run_for(s(15));
    }
    assert_eq!(world.told("standby.left"), [], "it goes on");
    let still = world.now;
    world.unanswered = |effect| matches!(effect, Effect::Lease { ask: LeaseRequest::Take { .. }, .. });
    world.run_for(s(60));
    let left = world.told("standby.left");
    assert!(left.len() == 1 && left[0] >= still + s(15) && left[0] <= still + s(46), "{left:?}");
    let last = world.effects.iter().rev().find(|(_, effect)| matches!(effect, Effect::Lease { .. }));
    assert!(
        matches!(last, Some((_, Effect::Lease { ask: LeaseRequest::Take { unchanged: Some(19) }, .. }))),
        "{last:?}"
    );
}

#[test]
fn a_stop_or_a_detach_beside_an_owner_ends_with_0() {
    for request in [Request::Stop, Request::Detach] {
        let mut world = beside(900);
        world.request(request);
        assert_eq!(world.outcome().0, 0);
    }
}

#[test]
fn standby_beside_a_gateway_without_a_supervisor_replaces_it_once_it_is_gone() {
    let mut world = patient();
    world.port = Some(STARTED);
    world.send(Event::Start);
    world.run_for(s(3600));
    assert_eq!((world.exit(), world.probes().len()), (None, 12));
    assert_eq!(world.names(), ["conflict.detected", "standby.entered"]);
    assert_eq!(world.core.lease(), Some(1), "no other supervisor may come first");
    world.port = None;
    world.send(Event::Departed { pid: 4242 });
    world.run_for(s(14));
    assert_eq!(world.spawns(), []);
    world.run_for(s(2));
    assert_eq!(world.spawns().len(), 1);
}

#[test]
fn a_silent_holder_is_looked_at_now_and_then() {
    let mut world = patient();
    world.port = Some(Verdict::Foreign);
    world.send(Event::Start);
    world.run_for(s(40));
    assert_eq!(world.told("standby.entered").len(), 1);
    let before = world.probes().len();
    world.run_for(s(150));
    assert_eq!(world.probes().len(), before + 10);
    world.port = None;
    world.run_for(s(31));
    assert_eq!(world.spawns().len(), 1);
}

#[test]
fn a_retry_tries_at_once_and_forces_nothing() {
    let mut world = beside(900);
    world.request(Request::Retry);
    assert_eq!(world.told("standby.left").len(), 1);
    world.run_for(s(60));
    assert_eq!(world.told("standby.entered").len(), 2, "the owner lives: back to waiting");
    assert_eq!((world.exit(), world.spawns()), (None, vec![]));
}

#[test]
fn a_retry_does_not_wait_for_an_owner_that_may_come_back() {
    let mut world = beside(900);
    world.lease = LeaseAnswer::Free;
    world.send(Event::Departed { pid: 900 });
    world.run_for(s(1));
    assert_eq!(world.spawns(), []);
    world.lease = acquired(History::default());
    world.request(Request::Retry);
    world.run_for(s(1));
    assert_eq!(world.spawns().len(), 1);
}

#[test]
fn a_suspend_restarts_the_15_s() {
    let mut world = beside(900);
    world.lease = LeaseAnswer::Free;
    world.send(Event::Departed { pid: 900 });
    world.run_for(s(10));
    world.send(Event::ClockJumped { by: s(3600) });
    world.run_for(s(14));
    assert_eq!(world.told("standby.left"), []);
}
