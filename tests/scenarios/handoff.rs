//! Unrequested exits with 0: their cost before and after the handoff verdict.

use crate::world::{CRASH, Script, World, s};
use openclaw_supervise_core::handoff::{HandoffVerdict, Support};
use openclaw_supervise_core::{
    Effect, Event, ExitStatus, Fact, Generation, Holder, Moment, Owner, Phase, Policy, Request, Verdict,
};
use std::time::Duration;

const DONE: ExitStatus = ExitStatus::Code(0);
const SOON: Duration = Duration::from_millis(50);

fn accepted() -> HandoffVerdict {
    HandoffVerdict::Accepted("update".to_owned())
}

/// Gateways that serve for so long and then exit with 0.
fn restless(lifetime: Duration, words: Vec<Option<HandoffVerdict>>, policy: Policy) -> World {
    let mut world = World::new(policy);
    world.script = Script::serving(lifetime, DONE);
    world.verdicts = words;
    world.send(Event::Start);
    world
}

/// When each handoff was consumed.
fn asked(world: &World) -> Vec<(Moment, Generation, i32)> {
    let asked = world.effects.iter().filter_map(|(at, effect)| match effect {
        Effect::Consume { generation, pid, .. } => Some((*at, *generation, *pid)),
        _ => None,
    });
    asked.collect()
}

fn pauses(world: &World) -> Vec<Duration> {
    let exits = world.told("gateway.exited");
    world.spawns()[1..].iter().zip(exits).map(|(spawn, exit)| spawn.saturating_sub(exit)).collect()
}

fn forbids_successors(world: &World) -> Vec<bool> {
    let spawns = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Spawn { no_respawn, .. } => Some(*no_respawn),
        _ => None,
    });
    spawns.collect()
}

#[test]
fn ten_planned_restarts_in_a_row_spend_no_budget_and_the_first_seven_wait_for_nothing() {
    let policy = Policy { max_restarts: 0, ..Policy::default() };
    let mut world = restless(s(30), vec![Some(accepted()); 10], policy);
    for _ in 0..600 {
        if world.told("handoff.accepted").len() < 10 {
            world.run_for(s(1));
        }
    }
    assert_eq!((world.exit(), world.spawns().len()), (None, 11));
    let pauses = pauses(&world);
    assert!(pauses[..7].iter().all(|pause| *pause < SOON), "{pauses:?}");
    assert!(pauses[7..].iter().all(|pause| *pause < s(120)), "{pauses:?}");
    assert_eq!(world.told("handoff.accepted").len(), 10);
    assert_eq!(world.told("restart.gave_up").len(), 0);
}

#[test]
fn a_planned_restart_goes_on_record_as_asked_for() {
    let mut world = restless(s(30), vec![Some(accepted())], Policy::default());
    world.run_for(s(40));
    let facts = world.when(|effect| matches!(effect, Effect::Remember { generation: 1, fact: Fact::Planned }));
    assert_eq!(facts, world.told("handoff.accepted"));
}

#[test]
fn unplanned_exits_spend_budget_and_end_in_69() {
    for word in [
        HandoffVerdict::Missing,
        HandoffVerdict::Rejected("expired".to_owned()),
        HandoffVerdict::TimedOut("no answer".to_owned()),
    ] {
        let policy = Policy { max_restarts: 3, ..Policy::default() };
        let mut world = restless(s(30), vec![Some(word); 20], policy);
        world.run_for(s(2000));
        assert_eq!((world.outcome().0, world.spawns().len()), (69, 4));
    }
}

#[test]
fn one_planned_exit_of_two_costs_nothing_and_the_other_one_does() {
    let policy = Policy { max_restarts: 2, stable_after: s(20), boot_limit: 0, ..Policy::default() };
    let words = vec![Some(accepted()), Some(HandoffVerdict::Missing)].into_iter().cycle().take(12).collect();
    let mut world = restless(s(15), words, policy);
    world.run_for(s(600));
    // Two unplanned exits fit into the budget, the third was restarted before its verdict, the fourth gives up.
    assert_eq!((world.outcome().0, world.spawns().len()), (69, 8));
    assert_eq!(world.told("handoff.accepted").len(), 4);
}

#[test]
fn a_handoff_is_consumed_once_the_next_gateway_serves_and_not_during_its_boot() {
    let mut world = World::new(Policy::default());
    world.script = Script::dying(s(30), DONE);
    world.send(Event::Start);
    world.run_for(s(60));
    let up = world.told("gateway.started")[1];
    assert_eq!(asked(&world)[0], (up, 1, 101), "8 s after the spawn, with its start");
}

#[test]
fn a_boot_that_takes_long_is_not_waited_for_beyond_40_seconds() {
    let mut world = World::new(Policy::default());
    world.script = Script { boots_in: s(100), ..Script::dying(s(130), DONE) };
    world.send(Event::Start);
    world.run_for(s(200));
    let exit = world.told("gateway.exited")[0];
    assert_eq!(asked(&world), [(exit + s(40), 1, 101)]);
}

#[test]
fn a_second_exit_before_the_first_verdict_backs_off_and_a_late_verdict_ends_the_wait() {
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::Consume { .. });
    world.script = Script::serving(s(30), DONE);
    world.send(Event::Start);
    world.run_for(s(60) + SOON);
    assert_eq!(world.spawns().len(), 2, "the third one backs off");
    let ticket = world.effects.iter().find_map(|(_, effect)| match effect {
        Effect::Consume { ticket, .. } => Some(*ticket),
        _ => None,
    });
    world.send(Event::Consumed { ticket: ticket.unwrap_or(0), word: HandoffVerdict::Missing });
    world.run_for(SOON);
    assert_eq!(world.spawns().len(), 2, "the first exit was not planned, and the verdict on the second is not known");
    let second = world.effects.iter().rev().find_map(|(_, effect)| match effect {
        Effect::Consume { ticket, generation: 2, .. } => Some(*ticket),
        _ => None,
    });
    assert_eq!(second, None, "no gateway is up, and its 40 s are not over");
    world.run_for(s(2));
    assert_eq!(world.spawns().len(), 3);
}

#[test]
fn an_accepted_handoff_starts_a_delayed_restart_at_once() {
    let policy = Policy { backoff_max: s(300), stable_after: s(3000), boot_limit: 0, ..Policy::default() };
    let mut world = World::new(policy);
    world.script = Script::dying(s(1), CRASH);
    world.send(Event::Start);
    // Five failures: the next wait is 16 to 32 s.
    world.run_for(s(31));
    let failures = world.spawns().len();
    assert!(failures >= 5, "{failures}");
    world.unanswered = |effect| matches!(effect, Effect::Consume { .. });
    world.script = Script::serving(s(60), DONE);
    world.run_for(s(60));
    while world.told("gateway.exited").len() < failures + 2 {
        world.run_for(s(1));
    }
    let spawns = world.spawns().len();
    let tickets: Vec<_> = world
        .effects
        .iter()
        .filter_map(|(_, effect)| match effect {
            Effect::Consume { ticket, .. } => Some(*ticket),
            _ => None,
        })
        .collect();
    assert_eq!(tickets.len(), 1, "one question at a time");
    world.send(Event::Consumed { ticket: tickets[0], word: HandoffVerdict::Accepted("config".to_owned()) });
    world.run_for(s(40));
    assert!(world.spawns().len() > spawns || world.exit().is_some(), "{:?}", world.names());
}

#[test]
fn an_answer_that_never_comes_is_given_up_after_100_seconds() {
    let mut world = restless(s(30), vec![None], Policy::default());
    world.run_for(s(31));
    world.script = Script::default();
    world.run_for(s(200));
    let (at, ..) = asked(&world)[0];
    assert_eq!(world.told("handoff.timed_out"), [at + s(100)]);
}

#[test]
fn a_machine_that_slept_gives_an_answer_its_time_again() {
    let mut world = restless(s(30), vec![None], Policy::default());
    world.run_for(s(31));
    world.script = Script::default();
    world.run_for(s(50));
    world.send(Event::ClockJumped { by: s(3600) });
    let slept = world.now;
    world.run_for(s(200));
    assert_eq!(world.told("handoff.timed_out"), [slept + s(100)]);
}

#[test]
fn capabilities_are_queried_once_after_the_first_boot() {
    let mut world = World::started(Script::serving(s(400), CRASH));
    world.run_for(s(2000));
    assert!(world.spawns().len() > 3);
    let asked = world.when(|effect| *effect == Effect::Negotiate);
    assert_eq!(asked, world.told("gateway.started")[..1]);
}

#[test]
fn capabilities_are_queried_again_after_a_program_change_or_a_timeout() {
    let mut world = World::new(Policy::default());
    world.support = Support::TimedOut("no answer".to_owned());
    world.script = Script::serving(s(400), CRASH);
    world.send(Event::Start);
    world.run_for(s(300));
    assert_eq!(world.when(|effect| *effect == Effect::Negotiate).len(), 1);
    assert_eq!(world.told("handoff.timed_out").len(), 1);
    world.support = Support::Supported;
    world.run_for(s(200));
    assert_eq!(world.when(|effect| *effect == Effect::Negotiate).len(), 2, "another gateway, another try");
    world.run_for(s(300));
    let before = world.when(|effect| *effect == Effect::Negotiate).len();
    world.run_for(s(500));
    assert_eq!(world.when(|effect| *effect == Effect::Negotiate).len(), before);
    world.fingerprint.program = 8;
    world.run_for(s(500));
    assert_eq!(world.when(|effect| *effect == Effect::Negotiate).len(), before + 1);
}

#[test]
fn a_release_without_handoffs_is_reported_once_and_leaves_no_successor() {
    let mut world = World::new(Policy::default());
    world.support = Support::Unsupported("unknown command".to_owned());
    world.script = Script::serving(s(30), DONE);
    world.send(Event::Start);
    world.run_for(s(200));
    assert_eq!(world.told("handoff.unsupported").len(), 1);
    assert_eq!(asked(&world), [], "a release without handoffs is not asked for a verdict");
    let forbids = forbids_successors(&world);
    assert!(!forbids[0] && forbids[1..].iter().all(|forbids| *forbids) && forbids.len() > 2, "{forbids:?}");
    assert!(pauses(&world)[1] >= s(1) / 2, "a second exit with 0 in a row backs off");
}

#[test]
fn an_unsupported_verdict_holds_for_the_next_exits() {
    let words = vec![Some(HandoffVerdict::Unsupported("unknown command".to_owned()))];
    let mut world = restless(s(30), words, Policy::default());
    world.run_for(s(150));
    assert_eq!(asked(&world).len(), 1);
    assert_eq!(world.told("handoff.unsupported").len(), 1);
}

#[test]
fn a_query_under_way_is_not_repeated() {
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::Negotiate);
    world.verdicts = vec![Some(HandoffVerdict::Unsupported("unknown command".to_owned()))];
    world.script = Script::serving(s(30), DONE);
    world.send(Event::Start);
    world.run_for(s(40));
    assert_eq!(asked(&world).len(), 1);
    world.fingerprint.program = 8;
    world.run_for(s(150));
    assert!(world.told("gateway.started").len() > 2);
    assert_eq!(world.when(|effect| *effect == Effect::Negotiate).len(), 1, "the first answer is still to come");
    world.send(Event::Negotiated { support: Support::TimedOut("no answer".to_owned()) });
    world.run_for(s(100));
    assert_eq!(world.when(|effect| *effect == Effect::Negotiate).len(), 2);
}

#[test]
fn a_command_that_is_no_openclaw_gateway_is_not_queried() {
    let policy = Policy { handoff: false, ..Policy::default() };
    let mut world = restless(s(30), vec![Some(accepted()); 9], policy);
    world.run_for(s(300));
    assert_eq!(asked(&world), []);
    assert_eq!(world.when(|effect| *effect == Effect::Negotiate), []);
    assert!(forbids_successors(&world).iter().all(|forbids| !forbids));
}

/// One failure has spent the budget of one restart. Then gateways exit with 0 after two seconds, which is before the
/// first verdict.
fn overdrawn(words: Vec<Option<HandoffVerdict>>) -> World {
    let policy = Policy { max_restarts: 1, boot_limit: 0, ..Policy::default() };
    let mut world = World::started_with(policy, Script::dying(s(1), CRASH));
    world.run_for(s(1) + Duration::from_millis(100));
    (world.script, world.verdicts) = (Script::serving(s(2), DONE), words);
    while world.told("gateway.exited").len() < 3 {
        world.run_for(Duration::from_millis(100));
    }
    world.script = Script::serving(s(9999), DONE);
    world.run_for(Duration::from_millis(20));
    world
}

#[test]
fn a_spent_budget_waits_for_the_handoff_verdict() {
    let mut world = overdrawn(vec![Some(accepted()), Some(accepted())]);
    assert_eq!((world.exit(), world.spawns().len()), (None, 3), "no start before the verdict on the second exit");
    let status = world.core.status(world.now);
    assert_eq!(status.state, "awaiting_word");
    assert!(status.next.why.contains("retry-now") && status.next.within.is_some(), "{:?}", status.next);
    world.run_for(s(20));
    assert_eq!((world.exit(), world.spawns().len()), (None, 4));
    let words = world.told("handoff.accepted");
    assert_eq!(words.len(), 2);
    assert!(world.spawns()[3] < words[0] + SOON, "the first verdict makes room for it");
    assert_eq!(world.core.status(world.now).restarts, 1, "the failure");
}

#[test]
fn a_spent_budget_ends_in_69_once_the_handoff_is_missing_and_not_before() {
    let mut world = overdrawn(vec![Some(HandoffVerdict::Missing), Some(HandoffVerdict::Missing)]);
    assert_eq!(world.exit(), None);
    world.run_for(s(60));
    let (code, reason) = world.outcome();
    assert_eq!((code, world.spawns().len(), asked(&world).len()), (69, 3, 2));
    assert!(reason.contains("ended with exit code 0"), "{reason}");
    assert_eq!(world.told("restart.gave_up").last(), world.told("handoff.missing").last());
}

#[test]
fn the_last_of_several_exits_decides_where_the_budget_is_spent() {
    let mut world = overdrawn(vec![Some(HandoffVerdict::Missing), Some(accepted())]);
    world.run_for(s(60));
    assert_eq!((world.exit(), world.spawns().len()), (None, 4));
    assert!(world.spawns()[3] < world.told("handoff.accepted")[0] + SOON);
}

#[test]
fn a_wait_for_a_verdict_follows_retry_and_stop() {
    for (request, spawns) in [(Request::Retry, 4), (Request::Restart, 4), (Request::Stop, 3), (Request::Detach, 3)] {
        let mut world = overdrawn(vec![Some(HandoffVerdict::Missing), Some(HandoffVerdict::Missing)]);
        world.request(request);
        world.run_for(SOON);
        assert_eq!(world.spawns().len(), spawns, "{request:?}");
        assert_eq!(world.exit().map(|outcome| outcome.code), (spawns == 3).then_some(0));
        world.run_for(s(100));
        assert_eq!(world.told("restart.gave_up"), []);
    }
}

#[test]
fn an_exit_long_ago_that_was_not_planned_does_not_end_a_planned_one() {
    let policy = Policy { max_restarts: 1, boot_limit: 0, ..Policy::default() };
    let mut world = World::new(policy);
    world.script = Script { boots_in: s(100), ..Script::dying(s(150), DONE) };
    world.verdicts = vec![Some(HandoffVerdict::Missing), Some(accepted()), Some(accepted())];
    world.send(Event::Start);
    world.run_for(s(3 * 150 + 120));
    assert_eq!((world.exit(), world.spawns().len()), (None, 4));
    assert!(pauses(&world).iter().all(|pause| *pause < SOON), "{:?}", pauses(&world));
}

#[test]
fn a_verdict_after_the_next_crash_does_not_end_its_backoff() {
    let policy = Policy { stable_after: s(3000), boot_limit: 0, ..Policy::default() };
    let mut world = restless(s(5), vec![Some(HandoffVerdict::Missing), None], policy);
    world.run_for(s(7));
    world.script = Script::serving(s(1), CRASH);
    while world.told("gateway.exited").len() < 3 {
        world.run_for(Duration::from_millis(50));
    }
    world.run_for(Duration::from_millis(20));
    let second = world.effects.iter().find_map(|(_, effect)| match effect {
        Effect::Consume { ticket, generation: 2, .. } => Some(*ticket),
        _ => None,
    });
    world.send(Event::Consumed { ticket: second.unwrap_or(0), word: accepted() });
    world.run_for(s(10));
    assert_eq!(world.told("handoff.accepted").len(), 1);
    assert!(pauses(&world)[2] >= s(1) / 2, "{:?}", pauses(&world));
}

#[test]
fn a_gateway_that_plans_its_exit_while_it_warms_up_waits_for_nothing_either() {
    let warming = Verdict::Gateway(Phase::Starting);
    let mut world = World::new(Policy { max_restarts: 0, ..Policy::default() });
    (world.script, world.verdicts) = (Script::dying(s(5), DONE), vec![Some(accepted())]);
    world.send(Event::Start);
    world.run_for(s(1));
    world.port = Some(warming);
    world.run_for(s(3));
    world.port = None;
    world.script = Script::default();
    world.run_for(s(30));
    assert_eq!(world.causes(), ["exited with code 0 without a request"]);
    assert_eq!((world.told("handoff.accepted").len(), world.spawns().len(), world.exit()), (1, 2, None));
    assert!(pauses(&world)[0] < SOON);
    // One that never answered found its port in use, which older releases report so.
    let mut world = World::new(Policy { max_restarts: 0, ..Policy::default() });
    world.script = Script::dying(s(5), DONE);
    world.send(Event::Start);
    world.run_for(s(30));
    assert_eq!((world.causes(), world.outcome().0), (vec!["exited with code 0 before it answered"], 69));
}

#[test]
fn the_handoff_is_consumed_by_the_pid_of_the_listener() {
    let mut world = World::new(Policy::default());
    world.script = Script::serving(s(30), DONE);
    world.listener = Owner::Ours(Holder { pid: 777, command: "node openclaw.mjs".to_owned(), uid: None });
    world.send(Event::Start);
    world.run_for(s(40));
    let (_, generation, pid) = asked(&world)[0];
    assert_eq!((generation, pid), (1, 777), "npx has 101");
    // With an unseen listener only the spawned process is known.
    let mut world = World::new(Policy::default());
    world.script = Script::serving(s(30), DONE);
    world.listener = Owner::Unseen;
    world.send(Event::Start);
    world.run_for(s(40));
    assert_eq!(asked(&world)[0].2, 101);
}

#[test]
fn a_stop_consumes_no_handoff() {
    let mut world = restless(s(30), vec![None], Policy::default());
    world.run_for(s(31));
    world.request(Request::Stop);
    world.run_for(s(5));
    assert_eq!(world.outcome().0, 0);
    let effects = world.effects.len();
    world.now += s(100);
    world.send(Event::Tick);
    world.send(Event::Consumed { ticket: 9, word: HandoffVerdict::Missing });
    world.send(Event::Negotiated { support: Support::Unsupported("late".to_owned()) });
    assert_eq!((world.effects.len(), world.core.deadline()), (effects, None));
}
