//! `--memory-max`, and what else is measured.

use crate::world::{CRASH, EVIDENCE, STARTED, Script, World, acquired, s};
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::{
    Effect, Event, ExitStatus, Fact, History, Policy, Remains, Report, Request, Settled, Unfinished, Usage, Verdict,
};
use std::time::Duration;

const LIMIT: u64 = 1000;
const UP: Script = Script { boots_in: Duration::ZERO, dies: None, drain: Some((s_const(2), ExitStatus::Code(0))) };

const fn s_const(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn limited() -> Policy {
    Policy { memory_max_kb: Some(LIMIT), ..Policy::default() }
}

/// A world whose gateway has served for 200 s.
fn stable(policy: Policy) -> World {
    let mut world = World::started_with(policy, UP);
    world.tree_rss_kb = Some(LIMIT);
    world.run_for(s(200));
    world
}

fn ended(world: &World) -> Vec<Duration> {
    world.when(|effect| matches!(effect, Effect::Terminate { .. }))
}

/// Lets so many samples be taken, each with this much memory.
fn samples(world: &mut World, kb: &[Option<u64>]) {
    let measures = |world: &World| world.when(|effect| matches!(effect, Effect::Measure { .. })).len();
    for kb in kb {
        world.tree_rss_kb = *kb;
        let before = measures(world);
        while measures(world) == before {
            world.run_for(Duration::from_millis(100));
        }
    }
}

const OVER: Option<u64> = Some(LIMIT + 1);
const UNDER: Option<u64> = Some(LIMIT);

#[test]
fn three_samples_in_a_row_over_the_limit_drain_the_gateway_and_replace_it() {
    let mut world = stable(limited());
    samples(&mut world, &[OVER, OVER]);
    assert_eq!(ended(&world), []);
    samples(&mut world, &[OVER]);
    assert_eq!((world.told("memory.exceeded").len(), ended(&world).len()), (1, 1));
    world.tree_rss_kb = UNDER;
    world.run_for(s(30));
    assert_eq!((world.causes(), world.kills().len()), (vec!["over its memory limit"], 1), "its tree, once it ended");
    assert_eq!((world.told("stop.escalated"), world.spawns().len()), (vec![], 2));
    let status = world.core.status(world.now);
    assert_eq!((status.memory_restarts, status.restarts), (1, 0), "counted apart, and free after a stable run");
    assert!(
        world
            .effects
            .iter()
            .any(|(_, e)| matches!(e, Effect::Remember { fact: Fact::Settled(Settled::Ran(_, Cause::Memory)), .. }))
    );
}

#[test]
fn a_peak_of_one_or_two_samples_does_nothing_however_often() {
    let mut world = stable(limited());
    for _ in 0..20 {
        samples(&mut world, &[OVER, OVER, UNDER]);
    }
    assert_eq!((ended(&world), world.told("memory.exceeded")), (vec![], vec![]));
}

#[test]
fn a_sample_that_could_not_be_taken_says_nothing() {
    let mut world = stable(limited());
    samples(&mut world, &[OVER, None, OVER, None, None]);
    assert_eq!(ended(&world), [], "it does not count");
    samples(&mut world, &[OVER]);
    assert_eq!(ended(&world).len(), 1, "nor does it make anything forgotten");
    let mut world = stable(limited());
    samples(&mut world, &[None; 50]);
    assert_eq!(ended(&world), []);
}

#[test]
fn without_a_limit_the_tree_is_not_even_measured() {
    let mut world = stable(Policy::default());
    samples(&mut world, &[OVER; 20]);
    assert_eq!(ended(&world), []);
    assert_eq!(world.when(|effect| matches!(effect, Effect::Measure { tree: true, .. })), []);
}

#[test]
fn a_gateway_that_boots_is_not_ended_for_its_memory() {
    let mut world = World::new(limited());
    (world.script, world.tree_rss_kb) = (Script { boots_in: s(200), ..UP }, OVER);
    world.send(Event::Start);
    world.run_for(s(199));
    assert_eq!((ended(&world), world.told("gateway.started")), (vec![], vec![]));
}

#[test]
fn early_ones_spend_the_budget_and_end_in_giving_up() {
    let mut world = World::new(limited());
    (world.script, world.tree_rss_kb) = (UP, OVER);
    world.send(Event::Start);
    world.run_for(s(3600));
    assert_eq!(world.outcome().0, 69);
    assert_eq!((world.spawns().len(), world.core.status(world.now).memory_restarts), (7, 7));
}

#[test]
fn stable_ones_never_spend_it() {
    let mut world = World::new(limited());
    (world.script, world.tree_rss_kb) = (UP, UNDER);
    world.send(Event::Start);
    for round in 1..=12 {
        world.run_for(s(150));
        samples(&mut world, &[OVER; 3]);
        world.tree_rss_kb = UNDER;
        world.run_for(s(5));
        let status = world.core.status(world.now);
        assert_eq!((world.exit(), status.memory_restarts, status.restarts), (None, round, 0));
    }
}

#[test]
fn a_gateway_that_drains_or_restarts_by_itself_is_left_to_it() {
    let mut world = stable(limited());
    world.port = Some(Verdict::Draining);
    world.run_for(s(6));
    samples(&mut world, &[OVER; 20]);
    world.port = Some(Verdict::Free);
    samples(&mut world, &[OVER; 20]);
    assert_eq!(ended(&world), [], "it is about to give its memory back");
    world.port = Some(STARTED);
    world.run_for(s(6));
    samples(&mut world, &[OVER; 3]);
    assert_eq!(ended(&world).len(), 1, "it did not");
}

#[test]
fn its_drain_has_the_whole_stop_timeout_unless_it_falls_silent() {
    let mut world = stable(limited());
    world.script.drain = None;
    samples(&mut world, &[OVER; 3]);
    let asked = ended(&world)[0];
    world.port = Some(Verdict::Draining);
    world.run_for(s(400));
    assert_eq!(world.kills(), [asked + s(328)]);

    let mut world = World::started_with(limited(), Script { drain: None, ..UP });
    world.tree_rss_kb = OVER;
    world.run_for(s(20));
    world.port = Some(Verdict::Silent);
    world.run_for(s(90));
    assert_eq!(world.kills().len(), 1);
}

#[test]
fn a_stop_and_a_restart_outrank_it() {
    for request in [Request::Stop, Request::Restart] {
        let mut world = stable(limited());
        samples(&mut world, &[OVER; 3]);
        world.request(request);
        world.tree_rss_kb = UNDER;
        world.run_for(s(20));
        let cause = if request == Request::Stop { "stop requested" } else { "restart requested" };
        assert_eq!(world.causes(), [cause]);
        assert_eq!(world.exit().map(|outcome| outcome.code), (request == Request::Stop).then_some(0));
    }
}

#[test]
fn a_gateway_killed_by_the_oom_killer_before_the_limit_acts_has_crashed() {
    let mut world = stable(limited());
    samples(&mut world, &[OVER, OVER]);
    world.leader_exits(1, CRASH);
    world.tree_rss_kb = UNDER;
    world.run_for(s(20));
    assert_eq!((world.causes(), world.core.status(world.now).memory_restarts), (vec!["crashed"], 0));
}

#[test]
fn an_adopted_gateway_has_the_same_limit() {
    let left =
        Unfinished { generation: 3, spawned: s(600), started: Some(s(610)), healthy_until: Some(s(900)), died: None };
    let mut world = World::new(limited());
    world.lease = acquired(History { generation: 3, runs: vec![], left: Some(left) });
    (world.remains, world.script, world.tree_rss_kb) = (Remains::Leader { pid: 103, differs: None }, UP, OVER);
    world.send(Event::Start);
    world.run_for(s(12));
    assert_eq!((world.told("memory.exceeded").len(), ended(&world).len()), (1, 1));
    world.tree_rss_kb = UNDER;
    world.run_for(s(20));
    assert_eq!(world.core.status(world.now).restarts, 0, "it had been stable before us");
}

#[test]
fn an_adopted_gateway_that_hangs_is_examined_too() {
    let left = Unfinished { generation: 3, spawned: s(600), started: Some(s(610)), healthy_until: None, died: None };
    let mut world = World::new(Policy::default());
    world.lease = acquired(History { generation: 3, runs: vec![], left: Some(left) });
    (world.remains, world.script, world.port) = (Remains::Leader { pid: 103, differs: None }, UP, Some(Verdict::Free));
    world.send(Event::Start);
    world.run_for(s(66));
    assert_eq!((world.evidence_told(), ended(&world).len()), (vec![Some(EVIDENCE)], 1));
}

#[test]
fn the_last_sample_is_shown() {
    let mut world = stable(limited());
    let sample = |world: &World| world.core.status(world.now).gateway.and_then(|gateway| gateway.sample);
    let shown = sample(&world);
    assert_eq!(shown.and_then(|sample| sample.tree_rss_kb), UNDER);
    world.send(Event::Measured { generation: 1, sample: Usage::default() });
    assert_eq!(sample(&world), Some(Usage::default()));
    world.leader_exits(1, CRASH);
    world.unanswered = |effect| matches!(effect, Effect::Probe { .. } | Effect::Measure { .. });
    world.run_for(s(10));
    assert_eq!(sample(&world), None, "that was another gateway");
}

/// A world whose gateway is over its limit, with the evidence not there yet.
fn weighed(evidence: Option<Duration>) -> World {
    let mut world = stable(limited());
    world.evidence = evidence;
    samples(&mut world, &[OVER; 3]);
    world
}

fn reported(world: &World) -> Vec<Option<&str>> {
    let reports = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Report(Report::MemoryExceeded { evidence, .. }) => Some(evidence.as_deref()),
        _ => None,
    });
    reports.collect()
}

#[test]
fn what_has_the_memory_is_written_down_before_the_drain_begins() {
    let mut world = weighed(Some(s(2)));
    let asked = world.when(|effect| matches!(effect, Effect::Examine { case, .. } if case.excess.is_some()));
    assert_eq!((asked.len(), ended(&world)), (1, vec![]));
    assert_eq!(world.core.status(world.now).state, "running", "it serves meanwhile");
    world.run_for(s(3));
    assert_eq!((ended(&world), reported(&world)), (vec![asked[0] + s(2)], vec![Some(EVIDENCE)]));
}

#[test]
fn evidence_on_memory_that_is_late_or_never_comes_is_not_waited_for() {
    for delay in [None, Some(s(6)), Some(s(600))] {
        let mut world = weighed(delay);
        let asked = world.when(|effect| matches!(effect, Effect::Examine { .. }))[0];
        world.tree_rss_kb = UNDER;
        world.run_for(s(30));
        assert_eq!((ended(&world), reported(&world)), (vec![asked + s(5)], vec![None]), "{delay:?}");
        assert_eq!((world.causes(), world.spawns().len()), (vec!["over its memory limit"], 2));
    }
}

#[test]
fn one_that_drains_by_itself_or_dies_while_its_memory_is_examined_is_not_ended_for_it() {
    let mut world = stable(Policy { probe_interval: s(2), ..limited() });
    world.evidence = None;
    samples(&mut world, &[OVER; 3]);
    world.port = Some(Verdict::Draining);
    world.run_for(s(60));
    assert_eq!((ended(&world), reported(&world)), (vec![], vec![]));
    let mut world = weighed(None);
    world.leader_exits(1, CRASH);
    world.tree_rss_kb = UNDER;
    world.run_for(s(20));
    assert_eq!((world.causes(), reported(&world)), (vec!["crashed"], vec![]));
    let mut world = weighed(None);
    world.request(Request::Stop);
    world.run_for(s(20));
    assert_eq!((world.causes(), reported(&world), world.outcome().0), (vec!["stop requested"], vec![], 0));
}
