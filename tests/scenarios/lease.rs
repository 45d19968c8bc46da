//! Who is in charge: the first thing that a supervisor asks, and the end of it.

use crate::world::{STARTED, Script, World, acquired, owner, s};
use openclaw_supervise_core::lease::Basis;
use openclaw_supervise_core::policy::OnConflict;
use openclaw_supervise_core::{
    Acquired, Contested, Effect, Event, Fact, History, LeaseAnswer, LeaseRequest, OwnerPlan, Policy, Recovered, Report,
    Request, Settled, exit,
};
use std::time::Duration;

fn contended() -> LeaseAnswer {
    LeaseAnswer::Contended { owner: Some(owner(900)), what: Contested::Lease }
}

fn with(lease: LeaseAnswer) -> World {
    let mut world = World::new(Policy::default());
    world.lease = lease;
    world.send(Event::Start);
    world
}

fn touches(effect: &Effect) -> bool {
    matches!(effect, Effect::Probe { .. } | Effect::Spawn { .. } | Effect::Terminate { .. } | Effect::KillTree { .. })
}

fn asks(world: &World) -> Vec<(Duration, LeaseRequest)> {
    let asks = world.effects.iter().filter_map(|(at, effect)| match effect {
        Effect::Lease { ask, .. } => Some((*at, *ask)),
        _ => None,
    });
    asks.collect()
}

#[test]
fn a_duplicate_start_ends_at_once_and_touches_nothing() {
    for named in [Some(owner(900)), None] {
        let world = with(LeaseAnswer::Contended { owner: named.clone(), what: Contested::PortClaim });
        let (code, reason) = world.outcome();
        assert_eq!((code, world.now), (78, s(1000)), "no time passes");
        assert!(reason.contains("another gateway instance is already listening on ws://127.0.0.1:18789"), "{reason}");
        assert!(reason.contains("port claim") && reason.contains("--state-dir"), "{reason}");
        assert_eq!(reason.contains("pid 900 (openclaw-supervise run)"), named.is_some(), "{reason}");
        assert_eq!(world.when(touches), []);
        assert_eq!(world.names(), ["lease.contended", "conflict.detected"]);
    }
}

#[test]
fn the_exit_code_of_a_duplicate_is_the_operators() {
    let mut world = World::new(Policy { conflict_exit_code: 0, ..Policy::default() });
    world.lease = contended();
    world.send(Event::Start);
    assert_eq!(world.outcome().0, 0);
}

#[test]
fn a_lease_that_was_left_is_told_of_before_it_is_ours() {
    let recovered = Some(Recovered { pid: Some(900), why: "its lock is free".to_owned() });
    let lease = Acquired { epoch: 7, basis: Basis::Lock, recovered, past: History::default(), trouble: None };
    let mut world = with(LeaseAnswer::Acquired(Box::new(lease)));
    world.run_for(s(10));
    assert_eq!(world.names()[..2], ["lease.stale_recovered", "gateway.spawned"]);
    assert_eq!(world.core.lease(), Some(7));
}

#[test]
fn a_store_that_cannot_be_read_does_not_keep_a_gateway_down() {
    let trouble = Some("it is full".to_owned());
    let lease = Acquired { epoch: 1, basis: Basis::Lock, recovered: None, past: History::default(), trouble };
    let mut world = with(LeaseAnswer::Acquired(Box::new(lease)));
    world.run_for(s(10));
    assert_eq!(world.told("gateway.started").len(), 1);
}

#[test]
fn a_lease_that_cannot_be_taken_ends_us_with_its_reason_and_says_whether_another_start_helps() {
    for (answer, code) in
        [(LeaseAnswer::Failed as fn(String) -> LeaseAnswer, exit::FAILURE), (LeaseAnswer::Refused, exit::EX_CONFIG)]
    {
        let world = with(answer("cannot create /nowhere".to_owned()));
        assert_eq!(world.outcome(), (code, "cannot create /nowhere"));
        assert_eq!(world.when(touches), []);
    }
}

#[test]
fn a_store_that_never_answers_ends_us_with_1_after_30_s() {
    let mut world = World::new(Policy::default());
    world.unanswered = |_| true;
    world.send(Event::Start);
    world.run_for(s(29));
    assert_eq!(world.exit(), None);
    world.run_for(s(2));
    let (code, reason) = world.outcome();
    assert!(code == 1 && reason.contains("--store-dir"), "{reason}");
    assert_eq!(world.when(touches), []);
}

#[test]
fn a_suspend_does_not_count_as_silence_of_the_store() {
    let mut world = World::new(Policy::default());
    world.unanswered = |_| true;
    world.send(Event::Start);
    world.now += s(3600);
    world.send(Event::Tick);
    assert_eq!(world.exit(), None, "its answer may have waited as long as we did");
    world.send(Event::Leased { ticket: 1, answer: acquired(History::default()) });
    assert_eq!(world.probes().len(), 1);
}

#[test]
fn an_owner_that_cannot_be_seen_is_watched_for_30_s_and_then_taken_for_dead() {
    let mut world = with(LeaseAnswer::Unclear { beat: 7, owner: Some(owner(900)) });
    world.run_for(s(29));
    assert!(asks(&world).iter().all(|(_, ask)| *ask == LeaseRequest::Take { unchanged: None }));
    assert_eq!(world.told("lease.contended").len(), 1, "reported once, however often it is checked");
    world.lease = acquired(History::default());
    world.run_for(s(3));
    let (at, last) = asks(&world).pop().unwrap_or_else(|| panic!("the lease was not asked for"));
    assert_eq!((at, last), (s(1030), LeaseRequest::Take { unchanged: Some(7) }));
    assert_eq!(world.spawns().len(), 1);
}

#[test]
fn a_counter_that_advances_belongs_to_a_live_owner() {
    let mut world = with(LeaseAnswer::Unclear { beat: 7, owner: Some(owner(900)) });
    world.run_for(s(7));
    world.lease = LeaseAnswer::Unclear { beat: 8, owner: Some(owner(900)) };
    world.run_for(s(5));
    assert_eq!(world.outcome().0, 78);
    assert_eq!(world.when(touches), []);
}

#[test]
fn a_suspend_restarts_the_observation() {
    let mut world = with(LeaseAnswer::Unclear { beat: 7, owner: None });
    world.run_for(s(20));
    world.send(Event::ClockJumped { by: s(3600) });
    world.run_for(s(25));
    let patient = asks(&world).iter().all(|(_, ask)| *ask == LeaseRequest::Take { unchanged: None });
    assert!(patient, "the owner slept as we did");
    world.run_for(s(10));
    assert!(asks(&world).contains(&(s(1050), LeaseRequest::Take { unchanged: Some(7) })), "{:?}", asks(&world));
}

#[test]
fn a_stop_while_the_lease_is_looked_for_ends_with_0() {
    for request in [Request::Stop, Request::Detach] {
        let mut world = with(LeaseAnswer::Unclear { beat: 7, owner: None });
        world.run_for(s(7));
        world.request(request);
        assert_eq!(world.outcome().0, 0);
    }
}

#[test]
fn an_answer_to_an_older_attempt_is_no_lease() {
    let mut world = World::new(Policy::default());
    world.unanswered = |_| true;
    world.send(Event::Start);
    for ticket in [0, 2, 99] {
        world.send(Event::Leased { ticket, answer: acquired(History::default()) });
    }
    assert_eq!((world.core.lease(), world.probes().len()), (None, 0));
}

#[test]
fn losing_the_lease_ends_the_supervisor_and_leaves_the_gateway_alone_in_every_state() {
    let lost = || Event::LeaseLost { owner: Some(owner(901)), why: "its heartbeat stood still".to_owned() };
    let mut hung = World::started(Script { boots_in: Duration::ZERO, dies: None, drain: None });
    hung.run_for(s(10));
    hung.port = Some(openclaw_supervise_core::Verdict::Silent);
    hung.run_for(s(65));
    let mut standing = World::new(Policy { on_conflict: OnConflict::Standby, ..Policy::default() });
    standing.port = Some(STARTED);
    standing.send(Event::Start);
    standing.run_for(s(5));
    let starting = World::started(Script { boots_in: s(100), ..Script::default() });
    for (state, mut world) in
        [("hung", hung), ("standing by", standing), ("starting", starting), ("running", World::serving())]
    {
        let before = world.when(touches).len();
        world.send(lost());
        let (code, reason) = world.outcome();
        assert_eq!(code, 78, "{state}");
        assert!(reason.contains("pid 901 (openclaw-supervise run) took the lease"), "{state}: {reason}");
        assert_eq!(world.when(touches).len(), before, "{state}: no spawn, no signal");
        assert_eq!(world.told("lease.lost").len(), 1, "{state}");
        assert_eq!(world.core.lease(), None, "{state}: nothing to give back");
    }
}

#[test]
fn a_lease_that_is_taken_away_while_the_hooks_of_a_predecessor_are_ended_is_lost() {
    let mut world = World::new(Policy { pre_start: Some(s(15)), ..Policy::default() });
    world.unanswered = |effect| matches!(effect, Effect::ClearHooks { .. });
    world.send(Event::Start);
    world.send(Event::LeaseLost { owner: Some(owner(901)), why: "taken by hand".to_owned() });
    assert_eq!(world.outcome().0, 78);
    assert_eq!(world.told("lease.lost").len(), 1);
}

#[test]
fn a_loss_of_what_was_never_ours_is_no_loss() {
    let mut world = with(LeaseAnswer::Unclear { beat: 7, owner: None });
    world.send(Event::LeaseLost { owner: None, why: "x".to_owned() });
    assert_eq!(world.exit(), None);
    let told = world.effects.iter().any(|(_, effect)| matches!(effect, Effect::Report(Report::LeaseLost { .. })));
    assert!(!told);
}

/// A supervisor whose lease is kept by a heartbeat, with a gateway that serves.
fn by_heartbeat() -> World {
    let mut world = World::new(Policy::default());
    let LeaseAnswer::Acquired(acquired) = acquired(History::default()) else { panic!("it is acquired") };
    world.lease = LeaseAnswer::Acquired(Box::new(Acquired { basis: Basis::Heartbeat, ..*acquired }));
    world.send(Event::Start);
    world.run_for(s(20));
    world
}

fn confirmations(world: &World) -> Vec<u64> {
    let asked = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Confirm { ticket } => Some(*ticket),
        _ => None,
    });
    asked.collect()
}

fn signals(world: &World) -> usize {
    world.when(|effect| matches!(effect, Effect::Terminate { .. } | Effect::KillTree { .. })).len()
}

#[test]
fn a_spawn_waits_for_its_record_and_goes_on_without_after_eight_seconds_under_the_lock() {
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::Record { .. });
    world.send(Event::Start);
    world.run_for(Duration::from_millis(7999));
    assert_eq!(world.spawns().len(), 0);
    world.run_for(s(1));
    assert_eq!(world.spawns().len(), 1);
    world.send(Event::Recorded { generation: 1 });
    assert_eq!(world.spawns().len(), 1, "a late record changes nothing");
}

#[test]
fn a_stop_takes_back_a_spawn_that_waits_and_that_costs_nothing() {
    for request in [Request::Stop, Request::Detach] {
        let mut world = World::new(Policy::default());
        world.unanswered = |effect| matches!(effect, Effect::Record { .. });
        world.send(Event::Start);
        world.run_for(s(1));
        world.request(request);
        assert_eq!((world.outcome().0, world.spawns().len()), (0, 0));
        let fact = Effect::Remember { generation: 1, fact: Fact::Settled(Settled::Postponed) };
        assert!(world.effects.iter().any(|(_, effect)| *effect == fact));
    }
}

#[test]
fn a_confirmation_that_took_longer_than_a_beat_is_asked_for_again() {
    let mut world = by_heartbeat();
    world.unanswered = |effect| matches!(effect, Effect::Confirm { .. });
    world.request(Request::Restart);
    let first = *confirmations(&world).last().expect("it is asked for");
    world.run_for(Duration::from_millis(10_001));
    world.send(Event::Confirmed { ticket: first });
    assert_eq!((signals(&world), confirmations(&world).last()), (0, Some(&(first + 1))));
    world.run_for(s(10));
    world.send(Event::Confirmed { ticket: first });
    assert_eq!(signals(&world), 0, "an old answer is no answer");
    world.send(Event::Confirmed { ticket: first + 1 });
    assert_eq!(signals(&world), 1);
}

#[test]
fn a_confirmation_that_was_slept_over_is_asked_for_again() {
    let mut world = by_heartbeat();
    world.unanswered = |effect| matches!(effect, Effect::Confirm { .. });
    world.request(Request::Restart);
    let first = *confirmations(&world).last().expect("it is asked for");
    world.send(Event::ClockJumped { by: s(11) });
    world.send(Event::Confirmed { ticket: first });
    assert_eq!(signals(&world), 0);
    world.send(Event::Confirmed { ticket: first + 1 });
    assert_eq!(signals(&world), 1);
}

#[test]
fn a_lease_that_is_not_confirmed_for_thirty_seconds_is_lost_and_nothing_is_signalled() {
    let mut world = by_heartbeat();
    world.unanswered = |effect| matches!(effect, Effect::Confirm { .. });
    world.request(Request::Stop);
    world.run_for(Duration::from_millis(29_999));
    assert_eq!(world.exit(), None);
    world.run_for(s(1));
    let (code, reason) = world.outcome();
    assert!(code == 78 && reason.contains("has not confirmed it for 30s"), "{reason}");
    assert_eq!((signals(&world), world.told("lease.lost").len()), (0, 1));
}

#[test]
fn a_drain_has_its_whole_time_from_its_sigterm_on() {
    let mut world = by_heartbeat();
    world.script.drain = None;
    world.unanswered = |effect| matches!(effect, Effect::Confirm { .. });
    world.request(Request::Stop);
    world.run_for(s(9));
    let ticket = *confirmations(&world).last().expect("it is asked for");
    world.send(Event::Confirmed { ticket });
    let told = world.now;
    world.unanswered = |_| false;
    world.run_for(s(400));
    assert_eq!(world.kills().first(), Some(&(told + s(328))));
}

/// A world whose owner says that it is gone within 8 s.
fn behind_a_stopping_owner() -> World {
    let mut world = World::new(Policy::default());
    (world.lease, world.plan) = (contended(), OwnerPlan::Ends(s(8)));
    world.send(Event::Start);
    world
}

#[test]
fn an_owner_that_is_stopping_is_waited_for_and_its_place_is_taken() {
    let mut world = behind_a_stopping_owner();
    world.run_for(s(5));
    assert_eq!((world.exit(), world.names()), (None, vec!["lease.contended"]), "reported once");
    assert_eq!(world.core.status(world.now).next.within, Some(s(3)));
    assert_eq!(world.when(touches), []);
    world.lease = acquired(History::default());
    world.run_for(s(1));
    assert_eq!(world.spawns().len(), 1);
}

#[test]
fn an_owner_that_overstays_its_time_is_a_conflict() {
    let mut world = behind_a_stopping_owner();
    world.run_for(s(20));
    let (code, reason) = world.outcome();
    assert_eq!((code, world.now), (78, s(1008)));
    assert!(reason.contains("pid 900") && reason.contains("has been stopping for longer than it said"), "{reason}");
    assert_eq!(world.names(), ["lease.contended", "conflict.detected"]);
    assert_eq!(world.when(touches), []);
}

#[test]
fn another_supervisor_that_was_faster_is_asked_anew() {
    let mut world = behind_a_stopping_owner();
    world.run_for(s(3));
    (world.lease, world.plan) =
        (LeaseAnswer::Contended { owner: Some(owner(901)), what: Contested::Lease }, OwnerPlan::Stays);
    world.run_for(s(1));
    let (code, reason) = world.outcome();
    assert!(code == 78 && reason.contains("pid 901"), "{reason}");
}

#[test]
fn an_owner_that_does_not_say_whether_it_stays_is_a_conflict_after_3_s() {
    let mut world = World::new(Policy::default());
    world.lease = contended();
    world.unanswered = |effect| matches!(effect, Effect::AskOwner { .. });
    world.send(Event::Start);
    world.run_for(s(10));
    assert_eq!((world.outcome().0, world.now), (78, s(1003)));
}

#[test]
fn standby_asks_no_owner_for_its_plans() {
    let mut world = World::new(Policy { on_conflict: OnConflict::Standby, ..Policy::default() });
    (world.lease, world.plan) = (contended(), OwnerPlan::Ends(s(8)));
    world.send(Event::Start);
    assert_eq!(world.names(), ["lease.contended", "conflict.detected", "standby.entered"]);
}

#[test]
fn a_stop_during_the_wait_for_the_owner_ends_with_0_at_once() {
    let mut world = behind_a_stopping_owner();
    world.run_for(s(3));
    world.request(Request::Stop);
    assert_eq!((world.outcome().0, world.now), (0, s(1003)));
}

#[test]
fn a_supervisor_that_is_stopping_says_by_when_it_is_gone() {
    let mut world = World::started(Script { drain: None, ..Script::default() });
    world.run_for(s(20));
    assert_eq!(world.core.status(world.now).ends_within, None);
    world.request(Request::Restart);
    assert_eq!(world.core.status(world.now).ends_within, None, "another gateway follows");
    world.request(Request::Stop);
    world.run_for(s(28));
    assert_eq!(world.core.status(world.now).ends_within, Some(s(320)), "the rest of the drain, and 20 s for the kill");
}
