//! Who is in charge: the first thing that a supervisor asks, and the end of it.

use crate::world::{KILLED, PROMPT, STARTED, Script, World, acquired, owner, s};
use openclaw_supervise_core::lease::{Basis, CONFIRMED_FOR, KILLED_BY, LOST_DRAIN, RETURN_MAX, UNCHANGED_FOR};
use openclaw_supervise_core::policy::{OnConflict, OnStoreLost};
use openclaw_supervise_core::{
    Acquired, Contested, Effect, Event, ExitStatus, Fact, Fingerprint, History, Holder, LeaseAnswer, LeaseRequest,
    Owner, OwnerPlan, Policy, Recovered, Report, Request, Settled, exit,
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
fn an_owner_that_cannot_be_judged_from_here_is_left_alone_and_the_way_out_is_told() {
    let unjudged = || LeaseAnswer::Unjudged { why: "start one there".to_owned() };
    let world = with(unjudged());
    assert_eq!((world.outcome(), world.when(touches)), ((78, "start one there"), vec![]));
    let mut world = World::new(Policy { on_conflict: OnConflict::Standby, ..Policy::default() });
    world.lease = unjudged();
    world.send(Event::Start);
    world.run_for(s(3600));
    assert_eq!((world.exit(), world.names()), (None, vec!["standby.entered"]));
    assert!(asks(&world)[1..].iter().all(|(_, ask)| *ask == LeaseRequest::Peek) && asks(&world).len() > 200);
    world.lease = LeaseAnswer::Free;
    world.run_for(s(15 + 16));
    assert_eq!(world.told("standby.left").len(), 1, "one that gives it back is succeeded");
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

fn lost() -> Event {
    Event::LeaseLost { owner: Some(owner(901)), why: "its heartbeat stood still".to_owned() }
}

#[test]
fn losing_the_lease_ends_the_gateway_and_the_supervisor_in_every_state() {
    let mut hung = World::started(Script { boots_in: Duration::ZERO, dies: None, drain: None });
    hung.run_for(s(10));
    hung.port = Some(openclaw_supervise_core::Verdict::Silent);
    hung.run_for(s(65));
    let mut standing = World::new(Policy { on_conflict: OnConflict::Standby, ..Policy::default() });
    standing.port = Some(STARTED);
    standing.send(Event::Start);
    standing.run_for(s(5));
    let mut spawning = World::new(Policy::default());
    spawning.unanswered = |effect| matches!(effect, Effect::Record { .. });
    spawning.send(Event::Start);
    spawning.run_for(s(1));
    let mut starting = World::started(Script { boots_in: s(100), ..Script::default() });
    starting.run_for(s(1));
    for (state, mut world, has_gateway) in [
        ("hung", Box::new(hung), true),
        ("standing by", Box::new(standing), false),
        ("about to spawn", Box::new(spawning), false),
        ("starting", Box::new(starting), true),
        ("running", Box::new(World::serving()), true),
    ] {
        let (spawns, ends) = (world.spawns().len(), world.told("gateway.exited").len());
        world.send(lost());
        world.run_for(LOST_DRAIN + s(1));
        let (code, reason) = world.outcome();
        assert_eq!(code, 78, "{state}");
        assert!(reason.contains("pid 901 (openclaw-supervise run) took the lease"), "{state}: {reason}");
        assert_eq!(world.spawns().len(), spawns, "{state}");
        assert_eq!(world.told("gateway.exited").len(), ends + usize::from(has_gateway), "{state}");
        assert_eq!(world.told("lease.lost").len(), 1, "{state}");
        assert_eq!(world.core.lease(), None, "{state}: nothing to give back");
    }
}

#[test]
fn the_gateway_of_a_lost_lease_has_two_seconds_to_drain_and_a_request_changes_nothing() {
    let script = Script { drain: None, ..Script::default() };
    for requests in [&[][..], &[Request::Restart], &[Request::Stop], &[Request::Detach]] {
        let mut world = World::started(script);
        world.run_for(s(10));
        let at = world.now;
        world.send(lost());
        for request in requests {
            world.request(*request);
        }
        world.run_for(s(10));
        assert_eq!(world.when(|effect| matches!(effect, Effect::Terminate { .. })), [at], "{requests:?}");
        assert_eq!(world.kills(), [at + LOST_DRAIN], "{requests:?}");
        assert_eq!((world.outcome().0, world.spawns().len()), (78, 1), "{requests:?}");
        assert_eq!(world.causes(), ["the lease was lost"], "{requests:?}");
    }
}

/// Seed 1197141 of the simulation.
#[test]
fn after_a_pause_any_event_ends_the_gateway_of_a_lost_lease_even_one_about_an_older_gateway() {
    let mut world = World::started(Script { drain: None, ..Script::default() });
    world.run_for(s(10));
    world.send(lost());
    world.now += s(80);
    world.send(Event::Examined { generation: 0, evidence: None, conclusion: None });
    assert_eq!(world.kills(), [world.now]);
}

#[test]
fn a_gateway_that_comes_to_life_when_the_lease_is_gone_is_ended() {
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::Spawn { .. });
    world.send(Event::Start);
    world.run_for(s(1));
    world.send(lost());
    assert_eq!(world.exit(), None, "its process may be there");
    world.unanswered = |_| false;
    world.send(Event::Spawned { generation: 1, pid: 101, fingerprint: Fingerprint::default() });
    world.run_for(s(3));
    assert_eq!(world.kills().len(), 1);
    world.leader_exits(1, KILLED);
    world.run_for(s(1));
    assert_eq!((world.outcome().0, world.spawns().len()), (78, 1));
}

/// Seed 26386 of the simulation.
#[test]
fn the_time_to_drain_counts_from_the_loss_for_a_gateway_that_comes_to_life_later() {
    let mut world = World::new(Policy::default());
    world.script = Script { drain: None, ..Script::default() };
    world.unanswered = |effect| matches!(effect, Effect::Spawn { .. });
    world.send(Event::Start);
    world.run_for(s(1));
    let at = world.now;
    world.send(lost());
    world.run_for(s(1));
    world.send(Event::Spawned { generation: 1, pid: 101, fingerprint: Fingerprint::default() });
    world.run_for(s(5));
    assert_eq!(world.kills(), [at + LOST_DRAIN]);
}

#[test]
fn a_gateway_of_a_lost_lease_that_survives_sigkill_is_named_in_the_reason() {
    let mut world = World::serving();
    world.script.drain = None;
    world.survivors = vec![1];
    world.send(lost());
    world.run_for(s(5));
    let (code, reason) = world.outcome();
    assert!(code == 78 && reason.contains("pid 901") && reason.contains("survived SIGKILL"), "{reason}");
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
    start_by_heartbeat(&mut world);
    world.run_for(s(20));
    world
}

fn start_by_heartbeat(world: &mut World) {
    let LeaseAnswer::Acquired(acquired) = acquired(History::default()) else { panic!("it is acquired") };
    world.lease = LeaseAnswer::Acquired(Box::new(Acquired { basis: Basis::Heartbeat, ..*acquired }));
    world.send(Event::Start);
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

/// A world in which the first spawn waits for a confirmation with this ticket.
fn unconfirmed_spawn() -> (World, u64) {
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::Confirm { .. });
    start_by_heartbeat(&mut world);
    world.run_for(s(1));
    let Some(&ticket) = confirmations(&world).last() else { panic!("none is asked for") };
    (world, ticket)
}

#[test]
fn a_confirmation_that_took_longer_than_a_beat_is_asked_for_again() {
    let (mut world, first) = unconfirmed_spawn();
    world.run_for(Duration::from_millis(10_001));
    world.send(Event::Confirmed { ticket: first });
    assert_eq!((world.spawns().len(), confirmations(&world).last()), (0, Some(&(first + 1))));
    world.run_for(s(10));
    world.send(Event::Confirmed { ticket: first });
    assert_eq!(world.spawns().len(), 0, "an old answer is no answer");
    world.send(Event::Confirmed { ticket: first + 1 });
    assert_eq!(world.spawns().len(), 1);
}

#[test]
fn a_confirmation_that_was_slept_over_is_asked_for_again() {
    let (mut world, first) = unconfirmed_spawn();
    world.send(Event::ClockJumped { by: s(11) });
    world.send(Event::Confirmed { ticket: first });
    assert_eq!(world.spawns().len(), 0);
    world.send(Event::Confirmed { ticket: first + 1 });
    assert_eq!(world.spawns().len(), 1);
}

#[test]
fn an_owner_without_a_confirmation_for_20_s_ends_its_gateway_before_second_30() {
    for drain in [Script::default().drain, None] {
        let mut world = by_heartbeat();
        world.script.drain = drain;
        let confirmed = world.now.saturating_sub(PROMPT);
        world.send(Event::LeaseConfirmed { age: PROMPT });
        world.stalled = true;
        world.unanswered = |effect| matches!(effect, Effect::Confirm { .. } | Effect::Record { .. });
        world.run_until(confirmed + CONFIRMED_FOR.saturating_sub(PROMPT));
        assert_eq!((signals(&world), world.told("lease.unconfirmed").len()), (0, 0));
        world.run_for(s(60));
        let told = [confirmed + CONFIRMED_FOR];
        assert_eq!((world.told("lease.unconfirmed"), world.told("store.unavailable")), (told.into(), told.into()));
        let by = if drain.is_some() { told[0] + s(1) } else { confirmed + KILLED_BY };
        assert!(world.kills().len() == 1 && world.kills()[0] <= by, "{:?}", world.kills());
        assert!(world.kills()[0] + s(3) <= confirmed + UNCHANGED_FOR);
        assert_eq!(world.causes(), ["the lease was not confirmed"]);
        assert_eq!((world.exit(), world.spawns().len()), (None, 1), "it waits for the store");
        let probes = world.probes().len();
        world.stalled = false;
        world.unanswered = |_| false;
        world.send(Event::LeaseConfirmed { age: s(2) });
        world.run_for(s(20));
        assert_eq!((world.probes().len() > probes, world.spawns().len()), (true, 2));
        assert_eq!(world.told("store.available").len(), 1);
        assert_eq!(world.told("restart.scheduled").len(), 1, "at once, and at no cost");
        assert_eq!(world.core.status(world.now).restarts, 0);
    }
}

#[test]
fn what_the_store_says_itself_is_the_reason_and_is_told_once() {
    let mut world = by_heartbeat();
    world.stalled = true;
    world.send(Event::StoreFailed { why: "stale file handle".to_owned() });
    world.run_for(s(25));
    let why = world.effects.iter().find_map(|(_, effect)| match effect {
        Effect::Report(Report::LeaseUnconfirmed { why, .. }) => Some(why.as_str()),
        _ => None,
    });
    assert_eq!((why, world.told("store.unavailable").len()), (Some("stale file handle"), 1));
    world.send(Event::StoreReturned);
    assert_eq!((world.told("store.available").len(), world.spawns().len()), (1, 1), "that is no confirmation");
}

#[test]
fn a_confirmation_counts_from_before_its_write_began() {
    let mut world = by_heartbeat();
    world.stalled = true;
    world.run_for(s(15));
    let began = world.now.saturating_sub(s(6));
    world.send(Event::LeaseConfirmed { age: s(6) });
    world.run_for(s(20));
    assert_eq!(world.told("lease.unconfirmed"), [began + CONFIRMED_FOR]);
    world.send(Event::LeaseConfirmed { age: s(21) });
    world.run_for(s(60));
    assert_eq!(world.spawns().len(), 1, "one that took too long says nothing about now");
}

#[test]
fn after_a_sleep_the_age_of_the_confirmation_is_looked_at_before_anything_else() {
    let mut world = by_heartbeat();
    world.stalled = true;
    let before = world.effects.len();
    world.send(Event::ClockJumped { by: s(3600) });
    let names: Vec<_> = world.effects[before..].iter().take(4).map(|(_, effect)| format!("{effect:?}")).collect();
    assert!(names[0].contains("StoreUnavailable") && names[1].contains("LeaseUnconfirmed"), "{names:#?}");
    assert!(names[2].starts_with("Terminate"), "{names:#?}");
    assert_eq!(world.kills(), [world.now], "another supervisor may run a gateway by now");
}

#[test]
fn a_machine_that_stood_still_ends_its_gateway_in_the_first_step() {
    let mut world = by_heartbeat();
    world.stalled = true;
    world.now += s(60);
    world.send(Event::Tick);
    assert_eq!(world.kills(), [world.now]);
}

/// Seed 112689 of the simulation: the time of the drain was over by then, but the drain had not begun.
#[test]
fn a_machine_that_stood_still_ends_its_gateway_in_the_first_step_though_it_drains() {
    let mut world = by_heartbeat();
    world.script.drain = None;
    world.request(Request::Restart);
    assert_eq!(signals(&world), 1);
    world.stalled = true;
    world.now += s(400);
    world.send(Event::LeaseConfirmed { age: s(400) });
    assert_eq!(world.kills(), [world.now]);
}

/// Seed 88958 of the simulation.
#[test]
fn what_a_launcher_has_left_is_heard_of_before_the_gateway_of_an_unconfirmed_lease_is_ended() {
    let mut world = by_heartbeat();
    world.listener = Owner::Ours(Holder { pid: 150, command: "node".to_owned(), uid: None });
    world.run_for(s(70));
    world.unanswered = |effect| matches!(effect, Effect::SeekHeir { .. });
    world.leader_exits(1, ExitStatus::Code(0));
    world.stalled = true;
    world.now += s(60);
    world.send(Event::HeirSought { generation: 1, pid: Some(150) });
    assert_eq!((world.told("gateway.followed"), world.kills()), (vec![world.now], vec![world.now]));
    assert_eq!(world.told("gateway.exited"), [], "the launcher was not the gateway");
}

#[test]
fn an_operator_may_keep_the_gateway_and_it_can_still_be_stopped() {
    let mut world = World::new(Policy { on_store_lost: Some(OnStoreLost::Keep), ..Policy::default() });
    start_by_heartbeat(&mut world);
    world.run_for(s(20));
    world.stalled = true;
    world.unanswered = |effect| matches!(effect, Effect::Confirm { .. } | Effect::Record { .. });
    world.run_for(s(900));
    assert_eq!((signals(&world), world.told("lease.unconfirmed").len()), (0, 1));
    let condition = |world: &World| world.core.status(world.now).gateway.expect("it runs").condition;
    assert!(condition(&world).expect("something is wrong").starts_with("is kept on an unconfirmed lease: "));
    world.stalled = false;
    world.send(Event::LeaseConfirmed { age: PROMPT });
    assert_eq!(condition(&world), None);
    world.request(Request::Stop);
    world.run_for(s(3));
    assert_eq!(world.outcome().0, 0);
}

#[test]
fn under_the_lock_a_silent_store_costs_the_gateway_only_on_request() {
    for (on_store_lost, kills) in [(None, 0), (Some(OnStoreLost::Keep), 0), (Some(OnStoreLost::Stop), 1)] {
        let mut world = World::new(Policy { on_store_lost, ..Policy::default() });
        world.send(Event::Start);
        world.run_for(s(20));
        world.stalled = true;
        world.run_for(s(40));
        assert_eq!((world.kills().len(), world.told("lease.unconfirmed").len()), (kills, kills), "{on_store_lost:?}");
    }
}

#[test]
fn a_start_that_waits_is_taken_back_and_the_port_is_looked_at_again() {
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::Record { .. });
    start_by_heartbeat(&mut world);
    world.stalled = true;
    world.run_for(s(30));
    let fact = Effect::Remember { generation: 1, fact: Fact::Settled(Settled::Postponed) };
    assert!(world.effects.iter().any(|(_, effect)| *effect == fact));
    assert_eq!((world.core.status(world.now).state, world.spawns().len()), ("probing", 0));
    world.unanswered = |_| false;
    world.stalled = false;
    let probes = world.probes().len();
    world.send(Event::LeaseConfirmed { age: PROMPT });
    world.run_for(s(1));
    assert_eq!((world.probes().len() > probes, world.spawns().len()), (true, 1));
}

#[test]
fn a_store_that_stays_away_ends_us_with_1_so_that_a_manager_can_mount_it_anew() {
    let mut world = by_heartbeat();
    world.stalled = true;
    world.unanswered = |effect| matches!(effect, Effect::Confirm { .. } | Effect::Record { .. });
    world.run_for(RETURN_MAX);
    assert_eq!(world.exit(), None);
    world.run_for(s(40));
    let (code, reason) = world.outcome();
    assert!(code == 1 && reason.contains("check the mount"), "{reason}");
}

#[test]
fn a_lease_that_another_took_meanwhile_is_lost() {
    let mut world = by_heartbeat();
    world.stalled = true;
    world.run_for(s(60));
    world.send(lost());
    let (code, reason) = world.outcome();
    assert!(code == 78 && reason.contains("pid 901"), "{reason}");
}

#[test]
fn a_stop_and_a_restart_reach_the_gateway_at_once_whatever_the_store_does() {
    for request in [Request::Stop, Request::Restart] {
        let mut world = by_heartbeat();
        world.stalled = true;
        world.unanswered = |effect| matches!(effect, Effect::Confirm { .. } | Effect::Record { .. });
        world.request(request);
        assert_eq!((signals(&world), confirmations(&world).len()), (1, 1), "{request:?}: only its spawn was confirmed");
        world.run_for(s(3));
        assert_eq!(world.causes().len(), 1, "{request:?}");
        assert_eq!((world.exit().is_some(), world.spawns().len()), (request != Request::Restart, 1), "{request:?}");
    }
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

/// Seed 2994845 of the simulation: the first event was news of an earlier gateway.
#[test]
fn news_of_an_earlier_gateway_does_not_put_off_the_end_of_one_without_a_confirmation() {
    let mut world = by_heartbeat();
    world.script.drain = Some((PROMPT, ExitStatus::Code(0)));
    world.request(Request::Restart);
    world.run_for(s(20));
    assert_eq!(world.core.generation(), 2);
    world.script.drain = None;
    world.stalled = true;
    world.now += s(400);
    world.leader_exits(1, KILLED);
    assert_eq!(world.told("lease.unconfirmed"), [world.now]);
}

/// Seed 2042625 of the simulation: the new stop timeout came with the first step after a suspension.
#[test]
fn a_drain_without_a_confirmation_has_the_stop_timeout_that_comes_with_it() {
    let mut world = World::new(Policy { stop_timeout: s(2), ..Policy::default() });
    start_by_heartbeat(&mut world);
    world.script.drain = None;
    world.run_for(s(20));
    world.send(Event::LeaseConfirmed { age: PROMPT });
    world.stalled = true;
    world.now += CONFIRMED_FOR;
    world.send(Event::StopBudget { timeout: s(40) });
    assert_eq!(signals(&world), 1);
    world.run_for(s(4));
    assert_eq!(world.kills(), []);
    world.run_for(KILLED_BY);
    assert_eq!(world.kills().len(), 1);
}
