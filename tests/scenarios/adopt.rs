//! Adoption of what an earlier supervisor left.

use crate::world::{CRASH, KILLED, STARTED, Script, World, acquired, s, tree_end};
use openclaw_supervise_core::handoff::HandoffVerdict;
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::{
    Effect, Event, ExitStatus, Fact, History, Moment, Owner, Policy, ProbeScope, Remains, Report, Request, Settled,
    Unfinished, Verdict,
};
use std::time::Duration;

const SERVING: Script = Script { boots_in: Duration::ZERO, dies: None, drain: None };

/// A gateway that was started 400 s ago and came up.
fn left(started: Option<u64>) -> Unfinished {
    let started = started.map(s);
    Unfinished { generation: 3, spawned: s(600), started, healthy_until: None, died: None }
}

fn heir_of(left: Unfinished, remains: Remains, script: Script) -> World {
    let mut world = World::new(Policy::default());
    world.lease = acquired(History { generation: left.generation, runs: vec![], left: Some(left) });
    world.remains = remains;
    world.script = script;
    world.send(Event::Start);
    world
}

fn alive() -> Remains {
    Remains::Leader { pid: 103, differs: None }
}

fn facts(world: &World) -> Vec<Fact> {
    let facts = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Remember { generation: 3, fact } => Some(*fact),
        _ => None,
    });
    facts.collect()
}

fn signals(world: &World) -> Vec<Moment> {
    world.when(|effect| matches!(effect, Effect::Terminate { .. } | Effect::KillTree { .. }))
}

#[test]
fn a_gateway_that_serves_goes_on_without_a_restart() {
    let mut world = heir_of(left(Some(610)), alive(), SERVING);
    world.run_for(s(3600));
    assert_eq!(world.names(), ["gateway.adopted"], "it came up before us");
    assert_eq!((world.exit(), world.spawns(), signals(&world)), (None, vec![], vec![]));
    let first = world.effects.iter().find(|(_, effect)| matches!(effect, Effect::Probe { .. }));
    assert!(
        matches!(first, Some((at, Effect::Probe { ask: ProbeScope::Liveness(3), .. })) if *at == s(1000)),
        "{first:?}"
    );
    assert_eq!(facts(&world), [Fact::Stable], "and once only");
}

#[test]
fn a_gateway_that_was_known_to_be_stable_is_not_recorded_as_that_again() {
    let known = Unfinished { healthy_until: Some(s(800)), ..left(Some(610)) };
    let mut world = heir_of(known, alive(), SERVING);
    world.run_for(s(3600));
    assert_eq!(facts(&world), []);
}

#[test]
fn a_gateway_that_boots_has_its_budget_and_its_start_is_told() {
    let mut world = heir_of(left(None), alive(), SERVING);
    world.run_for(s(5));
    assert_eq!(world.names(), ["gateway.adopted", "gateway.listening", "gateway.started"]);
    assert_eq!((world.spawns(), facts(&world)), (vec![], vec![Fact::Started]));
    let mut world = heir_of(left(None), alive(), SERVING);
    world.port = Some(Verdict::Free);
    world.run_for(s(299));
    assert_eq!(signals(&world), []);
    world.run_for(s(20));
    assert_eq!(world.told("startup.timed_out"), [s(1300)]);
}

#[test]
fn a_gateway_of_another_kind_is_kept_and_told_of() {
    let differs = Some("another command".to_owned());
    let mut world = heir_of(left(Some(610)), Remains::Leader { pid: 103, differs: differs.clone() }, SERVING);
    world.run_for(s(600));
    let told = world.effects.iter().any(
        |(_, effect)| matches!(effect, Effect::Report(Report::GatewayAdopted { differs: d, pid: 103, .. }) if *d == differs),
    );
    assert!(told && signals(&world).is_empty());
}

#[test]
fn a_gateway_that_hung_unattended_is_given_the_window_and_replaced_as_one_that_was_not_stable() {
    let mut world = heir_of(left(Some(610)), alive(), SERVING);
    world.port = Some(Verdict::Silent);
    world.run_for(s(55));
    assert_eq!(signals(&world), [], "the window begins with us");
    world.run_for(s(25));
    assert_eq!(world.told("gateway.hung").len(), 1);
    world.port = None;
    world.run_for(s(10));
    let spent = facts(&world).iter().any(
        |fact| matches!(fact, Fact::Settled(Settled::Ran(run, Cause::Failed)) if run.healthy_for() == Duration::ZERO),
    );
    assert!(spent, "no supervisor saw it serve: {:?}", facts(&world));
}

#[test]
fn the_end_of_an_adopted_gateway_has_no_status_and_is_followed_by_a_start() {
    let mut world = heir_of(left(Some(610)), alive(), SERVING);
    world.run_for(s(10));
    world.leader_exits(3, ExitStatus::Unknown);
    world.run_for(s(10));
    assert_eq!(world.causes(), ["exit status unknown (adopted process)"]);
    assert_eq!(world.spawns().len(), 1);
    assert!(matches!(
        world.effects.iter().find(|(_, e)| matches!(e, Effect::Spawn { .. })),
        Some((_, Effect::Spawn { generation: 4, .. }))
    ));
}

#[test]
fn a_gateway_that_died_unattended_has_one_end_and_costs_one_restart() {
    let mut world = heir_of(left(Some(610)), Remains::Nothing { pid: Some(103) }, SERVING);
    assert_eq!(world.names()[..2], ["gateway.exited", "restart.scheduled"]);
    assert_eq!(world.causes(), ["ended while no supervisor ran"]);
    assert!(matches!(
        facts(&world)[..],
        [Fact::Died(ExitStatus::Unknown), Fact::Settled(Settled::Ran(_, Cause::Failed))]
    ));
    world.run_for(s(10));
    assert_eq!((world.spawns().len(), signals(&world).len()), (1, 0));
}

#[test]
fn of_a_gateway_that_cannot_be_seen_from_here_no_end_is_reported() {
    let mut world = heir_of(left(Some(610)), Remains::Unseen { pid: 103 }, SERVING);
    assert_eq!(world.names()[..2], ["gateway.unseen", "restart.scheduled"]);
    assert!(matches!(facts(&world)[..], [Fact::Unseen, Fact::Settled(Settled::Ran(_, Cause::Failed))]));
    world.run_for(s(10));
    assert_eq!((world.told("gateway.exited"), world.spawns().len(), signals(&world).len()), (vec![], 1, 0));
}

#[test]
fn an_end_that_is_recorded_is_not_reported_again() {
    for remains in
        [Remains::Nothing { pid: Some(103) }, Remains::Orphans { pid: Some(103) }, Remains::Unseen { pid: 103 }]
    {
        let died = Unfinished { died: Some((CRASH, s(900))), ..left(Some(610)) };
        let mut world = heir_of(died, remains, SERVING);
        world.run_for(s(10));
        assert_eq!((world.told("gateway.exited"), world.spawns().len()), (vec![], 1));
        let settled = facts(&world);
        let run = settled
            .iter()
            .find_map(|fact| if let Fact::Settled(Settled::Ran(run, _)) = fact { Some(*run) } else { None });
        assert!(run.is_some_and(|run| run.ended == s(900) && !run.clean), "{settled:?}");
    }
}

#[test]
fn orphans_are_cleared_away_before_anything_starts() {
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::KillTree { .. });
    world.lease = acquired(History { generation: 3, runs: vec![], left: Some(left(Some(610))) });
    world.remains = Remains::Orphans { pid: Some(103) };
    world.send(Event::Start);
    world.run_for(s(600));
    assert_eq!((world.kills()[0], world.probes(), world.spawns()), (s(1000), vec![], vec![]));
    world.send(Event::TreeGone { generation: 3, end: tree_end(0) });
    world.run_for(s(10));
    assert_eq!((world.spawns().len(), world.causes()), (1, vec!["ended while no supervisor ran"]));
}

#[test]
fn a_half_written_record_is_a_start_that_never_happened() {
    let mut world = heir_of(left(None), Remains::Nothing { pid: None }, SERVING);
    assert_eq!(world.names(), ["restart.scheduled"], "nothing began, so nothing ends");
    assert_eq!(facts(&world), [Fact::Settled(Settled::NeverStarted)]);
    world.run_for(s(10));
    assert_eq!((world.spawns().len(), world.told("gateway.started").len()), (1, 1));
}

#[test]
fn a_request_during_the_search_for_an_earlier_gateway_is_followed_whatever_is_found() {
    let remains = [
        alive(),
        Remains::Orphans { pid: Some(103) },
        Remains::Nothing { pid: Some(103) },
        Remains::Nothing { pid: None },
    ];
    for remains in remains {
        for request in [Request::Stop, Request::Detach] {
            let mut world = World::new(Policy::default());
            world.unanswered = |effect| matches!(effect, Effect::Adopt { .. });
            world.lease = acquired(History { generation: 3, runs: vec![], left: Some(left(Some(610))) });
            world.send(Event::Start);
            world.request(request);
            assert_eq!(world.exit(), None, "which gateway it concerns is not known yet");
            world.send(Event::Adopted { generation: 3, remains: remains.clone() });
            if remains == alive() && request == Request::Stop {
                assert_eq!(signals(&world), [s(1000)]);
                world.leader_exits(3, ExitStatus::Unknown);
            }
            world.run_for(s(5));
            assert_eq!((world.outcome().0, world.spawns()), (0, vec![]), "{remains:?}");
        }
    }
}

#[test]
fn a_detach_leaves_an_adopted_gateway_as_it_was_found() {
    let mut world = heir_of(left(Some(950)), alive(), SERVING);
    world.run_for(s(10));
    world.request(Request::Detach);
    assert_eq!((world.outcome().0, signals(&world), facts(&world)), (0, vec![], vec![]));
}

#[test]
fn a_gateway_that_survived_a_kill_is_killed_and_not_adopted() {
    let died = Unfinished { died: Some((ExitStatus::Unknown, s(900))), ..left(Some(610)) };
    let mut world = heir_of(died, alive(), SERVING);
    assert_eq!((world.told("gateway.adopted"), world.kills()), (vec![], vec![s(1000)]));
    world.run_for(s(10));
    assert_eq!((world.told("gateway.exited"), world.spawns().len()), (vec![], 1));
}

#[test]
fn a_gateway_with_our_mark_is_adopted_though_the_store_was_lost() {
    let mut world = World::new(Policy::default());
    world.port = Some(STARTED);
    world.owner = Some(crate::world::ours());
    world.remains = alive();
    world.script = SERVING;
    world.send(Event::Start);
    world.run_for(s(60));
    assert_eq!(world.names(), ["gateway.adopted", "gateway.listening", "gateway.started"]);
    assert_eq!((world.exit(), world.spawns(), signals(&world)), (None, vec![], vec![]));
}

#[test]
fn a_mark_that_cannot_be_followed_is_looked_at_again_and_ends_as_a_conflict() {
    let mut world = World::new(Policy::default());
    world.port = Some(STARTED);
    world.owner = Some(crate::world::ours());
    world.send(Event::Start);
    world.run_for(s(10));
    let (code, reason) = world.outcome();
    assert!(code == 78 && reason.contains("pid 101"), "{reason}");
    assert_eq!(world.when(|effect| matches!(effect, Effect::Adopt { .. })).len(), 1);

    let mut world = World::new(Policy::default());
    world.port = Some(STARTED);
    world.owner = Some(crate::world::ours());
    world.send(Event::Start);
    world.run_for(Duration::from_millis(500));
    (world.port, world.owner) = (None, None::<Owner>);
    world.run_for(s(30));
    assert_eq!((world.exit(), world.spawns().len()), (None, 1), "it was on its way out");
}

#[test]
fn an_adopted_gateway_that_crashes_at_once_is_paced_like_any_other() {
    let mut world = heir_of(left(None), alive(), Script::dying(s(1), KILLED));
    world.run_for(s(3000));
    assert_eq!((world.outcome().0, world.spawns().len()), (69, 6), "one restart each for the first seven ends");
}

/// An adopted gateway that ends after ten seconds, and what its command line says of that.
fn ended(answer: HandoffVerdict, policy: Policy) -> World {
    let mut world = World::new(policy);
    world.lease = acquired(History { generation: 3, runs: vec![], left: Some(left(Some(995))) });
    (world.remains, world.script, world.verdicts) = (alive(), SERVING, vec![Some(answer)]);
    world.send(Event::Start);
    world.run_for(s(10));
    world.leader_exits(3, ExitStatus::Unknown);
    world.run_for(s(10));
    world
}

#[test]
fn a_planned_restart_of_an_adopted_gateway_costs_nothing_and_is_no_unclean_boot() {
    let policy = Policy { max_restarts: 1, boot_limit: 1, ..Policy::default() };
    let mut world = ended(HandoffVerdict::Accepted("update".to_owned()), policy);
    assert_eq!(world.spawns().len(), 1);
    assert!(world.spawns()[0] < world.told("gateway.exited")[0] + Duration::from_millis(50));
    assert_eq!(world.told("handoff.accepted").len(), 1);
    assert!(facts(&world).contains(&Fact::Planned));
    assert_eq!((world.core.status(world.now).restarts, world.exit()), (0, None));
    world.leader_exits(4, CRASH);
    world.run_for(s(5));
    assert_eq!(
        (world.spawns().len(), world.exit()),
        (2, None),
        "that is the first unclean boot, and the first failure"
    );
}

#[test]
fn an_unplanned_end_of_an_adopted_gateway_is_a_failure_and_an_unclean_boot() {
    let policy = Policy { boot_limit: 1, ..Policy::default() };
    let mut world = ended(HandoffVerdict::Missing, policy);
    let status = world.core.status(world.now);
    assert_eq!((status.restarts, world.told("handoff.missing").len()), (1, 1));
    world.leader_exits(4, CRASH);
    world.run_for(s(250));
    assert_eq!(world.spawns().len(), 1, "a third boot would find two unclean ones");
    let scheduled = world.effects.iter().rev().find_map(|(_, effect)| match effect {
        Effect::Report(Report::RestartScheduled { why, .. }) => Some(why.as_str()),
        _ => None,
    });
    assert!(scheduled.is_some_and(|why| why.contains("failure 2 in a row")), "{scheduled:?}");
}

#[test]
fn a_gateway_that_ended_between_two_supervisors_is_asked_about_as_well() {
    for (left, asked) in [(left(Some(610)), 1), (left(None), 0)] {
        let mut world = World::new(Policy::default());
        world.lease = acquired(History { generation: 3, runs: vec![], left: Some(left) });
        world.remains = Remains::Nothing { pid: Some(103) };
        world.script = Script { boots_in: Duration::ZERO, ..Script::default() };
        world.verdicts = vec![Some(HandoffVerdict::Accepted("update".to_owned()))];
        world.send(Event::Start);
        world.run_for(s(10));
        assert_eq!(world.when(|effect| matches!(effect, Effect::Consume { pid: 103, .. })).len(), asked);
        assert_eq!(world.core.status(world.now).restarts, 1 - u32::try_from(asked).unwrap_or(0));
    }
}

#[test]
fn no_verdict_is_asked_for_an_exit_too_long_ago() {
    for (died, asked) in [(946, 1), (945, 0)] {
        let mut world = World::new(Policy::default());
        let left = Unfinished { died: Some((ExitStatus::Code(0), s(died))), ..left(Some(610)) };
        world.lease = acquired(History { generation: 3, runs: vec![], left: Some(left) });
        world.remains = Remains::Nothing { pid: Some(103) };
        world.script = Script { boots_in: Duration::ZERO, ..Script::default() };
        world.send(Event::Start);
        world.run_for(s(60));
        assert_eq!(world.when(|effect| matches!(effect, Effect::Consume { .. })).len(), asked, "{died}");
    }
}

/// A supervisor that looks for an earlier gateway and cannot.
fn searching() -> World {
    let mut world = World::new(Policy::default());
    world.lease = acquired(History { generation: 3, runs: vec![], left: Some(left(Some(610))) });
    world.unanswered = |effect| matches!(effect, Effect::Adopt { .. });
    world.send(Event::Start);
    world
}

fn search_fails(world: &mut World) {
    world.send(Event::AdoptFailed { generation: 3, why: "too many open files".to_owned() });
}

fn searches(world: &World) -> Vec<Moment> {
    world.when(|effect| matches!(effect, Effect::Adopt { .. }))
}

#[test]
fn a_search_that_fails_is_tried_again_and_given_up_after_a_minute_with_nothing_started() {
    let mut world = searching();
    for _ in 0..100 {
        search_fails(&mut world);
        world.run_for(s(1));
    }
    let outcome = world.exit().expect("it is bounded");
    assert_eq!((outcome.code, searches(&world).len()), (1, 60));
    assert!(outcome.reason.contains("too many open files") && outcome.reason.contains("may still be running"));
    assert!(world.spawns().is_empty());
}

#[test]
fn a_search_without_an_answer_is_asked_for_again() {
    let mut world = searching();
    world.run_for(s(45));
    assert_eq!(searches(&world), [s(1000), s(1020), s(1040)]);
}

#[test]
fn a_stop_ends_a_search_that_fails_and_says_what_may_be_left() {
    let mut world = searching();
    search_fails(&mut world);
    world.request(Request::Stop);
    assert_eq!((world.exit(), searches(&world).len()), (None, 2), "one more try");
    search_fails(&mut world);
    let outcome = world.exit().expect("it fails again");
    assert!(outcome.code == 1 && outcome.reason.contains("may still be running"), "{outcome:?}");
}

#[test]
fn a_stop_waits_five_seconds_for_a_search_that_never_answers_and_a_detach_leaves_what_there_is() {
    for (request, code) in [(Request::Stop, 1), (Request::Detach, 0)] {
        let mut world = searching();
        world.request(request);
        world.request(request);
        world.run_for(Duration::from_millis(4999));
        assert_eq!(world.exit(), None);
        world.run_for(s(1));
        assert_eq!(world.exit().map(|outcome| outcome.code), Some(code), "{request:?}");
        assert_eq!(signals(&world), []);
    }
}
