//! The port before a spawn.

use crate::world::{CRASH, KILLED, STARTED, Script, World, s, sighting, stranger};
use openclaw_supervise_core::{
    Effect, Event, ExitStatus, Owner, Phase, Policy, ProbeScope, Report, Request, SpawnFailure, Verdict,
};
use std::time::Duration;

fn is_spawn(effect: &Effect) -> bool {
    matches!(effect, Effect::Spawn { .. })
}

#[test]
fn a_free_port_is_probed_then_a_gateway_is_spawned_started_and_watched() {
    let mut world = World::started(Script::default());
    let begun: Vec<_> = world.effects.iter().filter(|(_, effect)| !matches!(effect, Effect::Report(_))).collect();
    assert!(
        matches!(begun[..], [(_, Effect::Lease { .. }), (_, Effect::Probe { .. })]),
        "nothing before the lease and the look at the port"
    );
    world.run_for(s(60));
    assert_eq!(world.names(), ["gateway.spawned", "gateway.listening", "gateway.started"]);
    assert_eq!(world.spawns().len(), 1);
    let started = world.told("gateway.started")[0];
    let watched = world.probes().into_iter().filter(|at| *at > started).count();
    assert_eq!(watched, 10, "one liveness probe every 5 s");
}

#[test]
fn a_healthy_gateway_ends_us_with_78_and_no_spawn() {
    for phase in [Phase::Started, Phase::Unknown] {
        let mut world = World::new(Policy::default());
        world.port = Some(Verdict::Gateway(phase));
        world.send(Event::Start);
        world.run_for(s(1));
        let (code, reason) = world.outcome();
        assert_eq!(code, 78);
        let known = "another gateway instance is already listening on ws://127.0.0.1:18789";
        assert!(reason.contains(known) && reason.contains("4242 (node stranger.mjs)"), "{reason}");
        assert_eq!(world.spawns(), []);
        assert_eq!(world.names(), ["conflict.detected"]);
    }
}

#[test]
fn the_exit_code_of_a_conflict_is_the_operators() {
    let mut world = World::new(Policy { conflict_exit_code: 0, ..Policy::default() });
    world.port = Some(STARTED);
    world.send(Event::Start);
    world.run_for(s(1));
    assert_eq!(world.outcome().0, 0);
}

#[test]
fn a_silent_or_foreign_holder_is_looked_at_a_bounded_number_of_times_then_78() {
    for verdict in [Verdict::Foreign, Verdict::Silent] {
        let mut world = World::new(Policy::default());
        world.port = Some(verdict);
        world.send(Event::Start);
        world.run_for(s(29));
        assert_eq!(world.exit(), None, "{verdict}");
        world.run_for(s(20));
        let (code, reason) = world.outcome();
        assert_eq!(code, 78);
        assert!(reason.contains("4242 (node stranger.mjs)") && reason.contains("scripted"), "{reason}");
        assert!(!reason.contains('\n'));
        assert!((4..15).contains(&world.probes().len()), "{} looks", world.probes().len());
        assert_eq!(world.spawns(), []);
    }
}

#[test]
fn a_holder_that_leaves_in_time_makes_room() {
    for verdict in [Verdict::Foreign, Verdict::Silent, Verdict::Draining] {
        let mut world = World::new(Policy::default());
        world.port = Some(verdict);
        world.send(Event::Start);
        world.run_for(s(15));
        assert_eq!(world.spawns(), [], "{verdict}");
        world.port = None;
        world.run_for(s(30));
        assert_eq!(world.spawns().len(), 1, "{verdict}");
        assert_eq!(world.names()[..3], ["conflict.detected", "conflict.resolved", "gateway.spawned"]);
    }
}

#[test]
fn a_drain_is_waited_for_far_beyond_the_conflict_timeout() {
    let mut world = World::new(Policy::default());
    world.port = Some(Verdict::Draining);
    world.send(Event::Start);
    world.run_for(s(320));
    assert_eq!((world.exit(), world.spawns().len()), (None, 0));
    world.port = None;
    world.run_for(s(6));
    assert_eq!(world.spawns().len(), 1);
}

#[test]
fn probes_that_cannot_run_never_lead_to_a_spawn_and_end_with_1() {
    let mut world = World::new(Policy::default());
    world.port = Some(Verdict::Inconclusive);
    world.send(Event::Start);
    world.run_for(s(60));
    assert_eq!(world.outcome().0, 1);
    assert_eq!(world.spawns(), []);
}

#[test]
fn a_probe_that_could_not_run_is_asked_again_and_a_free_port_then_counts() {
    let mut world = World::new(Policy::default());
    world.port = Some(Verdict::Inconclusive);
    world.send(Event::Start);
    world.run_for(s(10));
    world.port = None;
    world.run_for(s(10));
    assert_eq!(world.spawns().len(), 1);
}

#[test]
fn a_probe_that_says_something_begins_the_patience_with_blind_ones_anew() {
    let mut world = World::new(Policy::default());
    world.port = Some(Verdict::Inconclusive);
    world.send(Event::Start);
    world.run_for(s(20));
    world.port = Some(Verdict::Draining);
    world.run_for(s(6));
    world.port = Some(Verdict::Inconclusive);
    world.run_for(s(24));
    assert_eq!(world.exit(), None);
    world.run_for(s(20));
    assert_eq!(world.outcome().0, 1);
}

#[test]
fn lost_answers_are_asked_for_again_and_an_old_ticket_spawns_nothing() {
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| !matches!(effect, Effect::Lease { .. } | Effect::Record { .. });
    world.send(Event::Start);
    let lost = world.ticket();
    world.run_for(s(25));
    assert_eq!(world.probes().len(), 3, "5 s for the probe and 5 s of patience each");
    world.send(Event::Probed { ticket: lost, sighting: sighting(Verdict::Free, Owner::Unseen) });
    assert_eq!(world.spawns(), []);
    world.send(Event::Probed { ticket: world.ticket(), sighting: sighting(Verdict::Free, Owner::Unseen) });
    assert_eq!(world.spawns().len(), 1);
    world.send(Event::Probed { ticket: world.ticket(), sighting: sighting(Verdict::Free, Owner::Unseen) });
    assert_eq!(world.spawns().len(), 1, "the same answer twice is one answer");
}

#[test]
fn a_gateway_that_refuses_with_a_free_port_ends_us_with_78_and_no_second_spawn() {
    let mut world = World::started(Script::dying(s(2), ExitStatus::Code(78)));
    world.run_for(s(60));
    let (code, reason) = world.outcome();
    assert_eq!(code, 78);
    assert!(reason.contains("configuration") && reason.contains("openclaw doctor"), "{reason}");
    assert_eq!((world.spawns().len(), world.causes()), (1, vec!["refused to start"]));
}

#[test]
fn a_refusal_says_where_the_gateways_output_is_shown() {
    let messages = "in the journal ('journalctl -u openclaw.service')".to_owned();
    let policy = Policy { messages, ..Policy::default() };
    let mut world = World::started_with(policy, Script::dying(s(2), ExitStatus::Code(78)));
    world.run_for(s(60));
    let reason = world.outcome().1;
    assert!(
        reason.contains("; see the gateway's output in the journal ('journalctl -u openclaw.service'); run"),
        "{reason}"
    );
}

#[test]
fn a_refusal_or_a_silent_0_beside_a_healthy_gateway_is_a_conflict() {
    for code in [78, 0] {
        let mut world = World::started(Script::dying(s(2), ExitStatus::Code(code)));
        world.run_for(s(1));
        world.port = Some(STARTED);
        world.unanswered = |effect| matches!(effect, Effect::Probe { ask: ProbeScope::Listener(_), .. });
        world.run_for(s(60));
        let (exit, reason) = world.outcome();
        assert_eq!(exit, 78);
        assert!(reason.contains("another gateway instance is already listening"), "{reason}");
        assert_eq!(world.spawns().len(), 1);
    }
}

#[test]
fn a_refusal_while_another_gateway_drains_waits_and_starts_again() {
    let mut world = World::started(Script::dying(s(2), ExitStatus::Code(78)));
    world.run_for(s(1));
    world.port = Some(Verdict::Draining);
    world.run_for(s(100));
    assert_eq!((world.exit(), world.spawns().len()), (None, 1));
    world.port = None;
    world.script = Script::default();
    world.run_for(s(60));
    assert_eq!((world.exit(), world.spawns().len()), (None, 2));
    assert_eq!(world.told("gateway.started").len(), 1);
}

#[test]
fn a_gateway_that_boots_while_a_stranger_answers_is_not_started() {
    let mut world = World::started(Script { boots_in: s(500), ..Script::default() });
    world.run_for(s(1));
    world.unanswered = |effect| matches!(effect, Effect::Probe { .. });
    world.run_for(s(1));
    world.send(Event::Probed { ticket: world.ticket(), sighting: sighting(STARTED, stranger()) });
    assert_eq!(world.told("gateway.started"), []);
    world.run_for(s(10));
    world.send(Event::Probed { ticket: world.ticket(), sighting: sighting(STARTED, Owner::Unseen) });
    assert_eq!(world.told("gateway.started").len(), 1, "an owner that cannot be seen is ours: the port was free");
}

#[test]
fn a_program_that_is_not_there_ends_us_at_once_the_first_time_only() {
    let missing = || SpawnFailure::Program("openclaw: not found on PATH; install it".to_owned());
    let mut world = World::new(Policy::default());
    world.unanswered = is_spawn;
    world.send(Event::Start);
    world.run_for(s(1));
    world.send(Event::SpawnFailed { generation: 1, failure: missing() });
    let (code, reason) = world.outcome();
    assert_eq!(code, 78);
    assert!(reason.contains("openclaw: not found on PATH"), "{reason}");

    let mut world = World::started(Script::dying(s(2), CRASH));
    world.run_for(s(1));
    world.unanswered = is_spawn;
    world.run_for(s(5));
    world.send(Event::SpawnFailed { generation: 2, failure: missing() });
    assert_eq!(world.exit(), None, "an update may be replacing it");
    world.unanswered = |_| false;
    world.script = Script::default();
    world.run_for(s(20));
    assert_eq!((world.spawns().len(), world.told("gateway.started").len()), (3, 1));
}

#[test]
fn a_machine_without_resources_is_tried_again_and_paced() {
    let mut world = World::new(Policy::default());
    world.unborn = Some(SpawnFailure::Resources("fork: EAGAIN".to_owned()));
    world.send(Event::Start);
    world.run_for(s(280));
    assert_eq!(world.outcome().0, 69);
    assert_eq!((world.spawns().len(), world.told("gateway.spawn_failed").len()), (7, 7));
}

#[test]
fn a_verdict_is_told_when_it_changes_and_not_per_probe() {
    let mut world = World::serving();
    world.run_for(s(300));
    let changes: Vec<_> = world
        .effects
        .iter()
        .filter_map(|(_, effect)| match effect {
            Effect::Report(Report::VerdictChanged { from, to, .. }) => Some((from.map(Verdict::name), to.name())),
            _ => None,
        })
        .collect();
    assert_eq!(changes, [(None, "free"), (Some("free"), "gateway")]);
}

#[test]
fn after_a_crash_a_healthy_successor_on_the_port_is_never_spawned_against() {
    let mut world = World::started(Script::serving(s(30), KILLED));
    world.run_for(s(20));
    world.port = Some(STARTED);
    world.run_for(s(60));
    assert_eq!((world.outcome().0, world.spawns().len()), (78, 1));
    assert!(world.now < s(1000) + s(60) + Duration::from_millis(1));
}

#[test]
fn a_restart_asked_for_while_a_refusal_is_judged_is_another_try() {
    let mut world = World::started(Script::dying(s(2), ExitStatus::Code(78)));
    world.run_for(s(1));
    world.unanswered = |effect| matches!(effect, Effect::Probe { ask: ProbeScope::Port, .. });
    world.run_for(s(2));
    assert_eq!((world.exit(), world.spawns().len()), (None, 1));
    world.script = Script::default();
    world.unanswered = |_| false;
    world.request(Request::Restart);
    world.run_for(s(60));
    assert_eq!((world.exit(), world.spawns().len()), (None, 2));
}
