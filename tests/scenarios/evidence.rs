//! Between the proof of a hang and the kill: evidence is saved.

use crate::world::{CRASH, EVIDENCE, STARTED, Script, World, s, sighting, stranger};
use openclaw_supervise_core::{Effect, Event, ExitStatus, HangContext, Holder, Owner, Phase, Policy, Request, Verdict};
use std::time::Duration;

const FROZEN: Script = Script { boots_in: Duration::ZERO, dies: None, drain: None };
const NEVER_UP: Script = Script { boots_in: Duration::from_secs(100_000), ..FROZEN };

fn terminations(world: &World) -> Vec<Duration> {
    world.when(|effect| matches!(effect, Effect::Terminate { .. }))
}

fn cases(world: &World) -> Vec<&HangContext> {
    let cases = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Examine { case, .. } => Some(&**case),
        _ => None,
    });
    cases.collect()
}

/// A world whose gateway is being examined, with a probe under way.
fn examined(script: Script, verdict: Verdict) -> World {
    let mut world = World::started(script);
    world.run_for(s(30));
    (world.port, world.evidence) = (Some(verdict), None);
    while cases(&world).is_empty() {
        world.run_for(Duration::from_millis(10));
    }
    assert_eq!((terminations(&world), world.core.status(world.now).state), (vec![], "examining"));
    world
}

fn hung() -> World {
    examined(FROZEN, Verdict::Silent)
}

#[test]
fn evidence_is_saved_before_a_hung_gateway_is_signalled_and_its_path_is_reported() {
    let mut world = World::started(FROZEN);
    (world.evidence, world.port) = (Some(s(2)), None);
    world.run_for(s(30));
    world.port = Some(Verdict::Silent);
    world.run_for(s(75));
    let asked = world.when(|effect| matches!(effect, Effect::Examine { .. }));
    assert_eq!((terminations(&world), world.told("gateway.hung")), (vec![asked[0] + s(2)], vec![asked[0] + s(2)]));
    assert_eq!(world.evidence_told(), [Some(EVIDENCE)]);
    assert_eq!(asked.len(), 1);
}

#[test]
fn the_context_has_the_probes_the_samples_and_the_age() {
    let world = hung();
    let [case] = cases(&world)[..] else { panic!("one look") };
    assert_eq!((case.why, case.failed_probes >= 3), ("it does not answer", true));
    assert!(case.last_good.is_some_and(|ago| ago >= s(60) && ago < s(66)), "{case:?}");
    assert!(case.age >= s(85) && case.looks.len() > 10 && case.samples.len() > 10, "{case:?}");
    assert!(case.looks.is_sorted_by_key(|look| std::cmp::Reverse(look.ago)), "oldest first: {case:?}");
    assert!(case.looks.iter().any(|look| look.verdict == STARTED), "and what was before: {case:?}");
}

#[test]
fn evidence_that_is_late_or_never_comes_is_not_waited_for() {
    for delay in [None, Some(s(6)), Some(s(600))] {
        let mut world = World::started(FROZEN);
        world.evidence = delay;
        world.run_for(s(30));
        world.port = Some(Verdict::Silent);
        world.run_for(s(75));
        let asked = world.when(|effect| matches!(effect, Effect::Examine { .. }))[0];
        assert_eq!((terminations(&world), world.evidence_told()), (vec![asked + s(5)], vec![None]), "{delay:?}");
        world.port = None;
        world.run_for(s(900));
        assert_eq!(
            (world.told("gateway.hung").len(), world.spawns().len()),
            (1, 2),
            "{delay:?}: a late report is ignored"
        );
    }
}

#[test]
fn a_boot_over_its_budget_is_examined_reported_and_replaced() {
    let mut world = World::started(NEVER_UP);
    world.run_for(s(320));
    assert_eq!(world.names()[..3], ["gateway.spawned", "startup.timed_out", "gateway.hung"]);
    assert_eq!((world.evidence_told(), world.spawns().len()), (vec![Some(EVIDENCE)], 2));
    let [case] = cases(&world)[..] else { panic!("one look") };
    assert_eq!((case.why, case.last_good, case.age), ("it never came up", None, s(300)));
}

#[test]
fn a_boot_of_several_minutes_is_left_alone() {
    for minutes in 1..5 {
        let mut world = World::started(Script { boots_in: s(minutes * 60), ..FROZEN });
        world.run_for(s(3600));
        assert_eq!(world.names(), ["gateway.spawned", "gateway.listening", "gateway.started"], "{minutes}");
    }
}

#[test]
fn a_gateway_that_dies_while_it_is_examined_has_hung_and_has_crashed() {
    let mut world = hung();
    world.leader_exits(1, CRASH);
    assert_eq!((world.evidence_told(), world.causes(), terminations(&world)), (vec![None], vec!["crashed"], vec![]));
    (world.port, world.evidence) = (None, Some(s(1)));
    world.send(Event::Examined { generation: 1, evidence: Some(EVIDENCE.to_owned()), conclusion: None });
    world.run_for(s(30));
    assert_eq!((world.told("gateway.hung").len(), world.spawns().len(), world.exit()), (1, 2, None));
}

/// Seeds 109538 and 100430 of the simulation.
#[test]
fn an_answer_while_it_is_examined_counts_though_it_comes_too_late_for_its_boot() {
    let launched = Owner::Ours(Holder { pid: 150, command: "node".to_owned(), uid: None });
    let examined = || {
        let mut world = examined(NEVER_UP, Verdict::Silent);
        let ticket = world.ticket();
        let warming = Verdict::Gateway(Phase::Starting);
        world.send(Event::Probed { ticket, sighting: sighting(warming, launched.clone()) });
        assert_eq!(world.core.status(world.now).state, "examining");
        world
    };
    let mut world = examined();
    world.leader_exits(1, ExitStatus::Code(0));
    assert_eq!(world.causes(), ["exited with code 0 without a request"], "it is no failure to start");
    let mut world = examined();
    (world.port, world.listener) = (Some(STARTED), launched.clone());
    world.run_for(s(7));
    assert_eq!(world.told("stop.forwarded").len(), 1, "the process that answered hears of the stop");
}

#[test]
fn a_stop_while_it_is_examined_waits_for_no_evidence() {
    let mut world = hung();
    let asked = world.now;
    world.request(Request::Stop);
    assert_eq!((terminations(&world), world.evidence_told()), (vec![asked], vec![None]));
    world.run_for(s(30));
    assert_eq!((world.outcome().0, world.kills(), world.causes()), (0, vec![asked + s(10)], vec!["stop requested"]));
}

#[test]
fn a_stop_while_it_is_examined_has_the_stop_timeout_and_no_more() {
    let mut world = World::started_with(Policy { stop_timeout: s(3), ..Policy::default() }, FROZEN);
    world.run_for(s(30));
    (world.port, world.evidence) = (Some(Verdict::Free), None);
    while cases(&world).is_empty() {
        world.run_for(Duration::from_millis(10));
    }
    let asked = world.now;
    world.request(Request::Stop);
    world.run_for(s(10));
    assert_eq!((world.kills(), world.outcome().0), (vec![asked + s(3)], 0));
}

#[test]
fn a_second_stop_while_it_was_examined_kills_at_once() {
    let mut world = hung();
    world.request(Request::Stop);
    world.request(Request::Stop);
    assert_eq!(world.kills(), [world.now]);
}

#[test]
fn a_restart_while_it_is_examined_spends_nothing_and_a_stop_outranks_it() {
    let mut world = hung();
    world.request(Request::Restart);
    assert_eq!(terminations(&world), [world.now]);
    world.port = None;
    world.run_for(s(12));
    assert_eq!((world.causes(), world.core.status(world.now).restarts), (vec!["restart requested"], 0));
    assert_eq!(world.spawns().len(), 2);

    let mut world = hung();
    world.request(Request::Restart);
    world.request(Request::Stop);
    world.request(Request::Restart);
    world.run_for(s(30));
    assert_eq!((world.outcome().0, world.spawns().len()), (0, 1));
}

#[test]
fn a_detach_while_it_is_examined_leaves_it() {
    let mut world = hung();
    world.request(Request::Detach);
    assert_eq!((world.outcome().0, terminations(&world), world.kills()), (0, vec![], vec![]));
}

#[test]
fn a_suspend_during_the_examination_restarts_the_window() {
    let jumps: [fn(&mut World); 2] = [
        |world| world.send(Event::ClockJumped { by: s(3600) }),
        |world| {
            world.now += s(100);
            world.send(Event::Tick);
        },
    ];
    for jump in jumps {
        for verdict in [Verdict::Silent, Verdict::Free] {
            let mut world = examined(FROZEN, verdict);
            jump(&mut world);
            let woken = world.now;
            world.send(Event::Examined { generation: 1, evidence: Some(EVIDENCE.to_owned()), conclusion: None });
            world.run_for(s(55));
            assert_eq!((terminations(&world), world.told("gateway.hung").len()), (vec![], 0), "{verdict}");
            world.run_for(s(20));
            assert!(terminations(&world)[0] >= woken + s(60), "{verdict}: the window is new, not gone");
        }
        let mut world = examined(NEVER_UP, Verdict::Free);
        jump(&mut world);
        world.run_for(s(295));
        assert_eq!(terminations(&world), []);
        world.port = Some(STARTED);
        world.run_for(s(4));
        assert_eq!(world.told("gateway.started").len(), 1);
    }
}

#[test]
fn an_answer_to_the_probe_under_way_clears_the_hang() {
    for verdict in [STARTED, Verdict::Gateway(Phase::Unknown), Verdict::Draining, Verdict::Gateway(Phase::Starting)] {
        let mut world = hung();
        world.send(Event::Probed { ticket: world.ticket(), sighting: sighting(verdict, Owner::Unseen) });
        world.port = Some(verdict);
        world.run_for(s(100));
        assert_eq!((world.told("liveness.recovered").len(), terminations(&world)), (1, vec![]), "{verdict}");
        assert_eq!(world.told("gateway.hung"), [], "{verdict}");
    }
    let mut world = examined(NEVER_UP, Verdict::Silent);
    world.send(Event::Probed { ticket: world.ticket(), sighting: sighting(STARTED, Owner::Unseen) });
    world.port = Some(STARTED);
    world.run_for(s(100));
    assert_eq!(world.told("gateway.started").len(), 1, "up in the last moment");
    assert_eq!(terminations(&world), []);
}

#[test]
fn no_other_answer_clears_the_hang() {
    let answers = [
        (Verdict::Silent, Owner::Unseen),
        (Verdict::Free, Owner::Unseen),
        (Verdict::Malformed, Owner::Unseen),
        (Verdict::Foreign, stranger()),
        (Verdict::Inconclusive, Owner::Unseen),
        (STARTED, stranger()),
    ];
    for (verdict, owner) in answers {
        let mut world = hung();
        let examined = world.now;
        world.send(Event::Probed { ticket: world.ticket(), sighting: sighting(verdict, owner) });
        world.run_for(s(6));
        assert!(terminations(&world)[0] <= examined + s(5), "{verdict}");
    }
    // One that takes too long to drain does so still.
    let mut world = World::serving();
    (world.port, world.evidence) = (Some(Verdict::Draining), None);
    while cases(&world).is_empty() {
        world.run_for(Duration::from_millis(10));
    }
    world.send(Event::Probed { ticket: world.ticket(), sighting: sighting(Verdict::Draining, Owner::Unseen) });
    world.run_for(s(6));
    assert_eq!((terminations(&world).len(), world.told("gateway.hung").len()), (1, 1));
}

#[test]
fn evidence_about_another_or_a_healthy_gateway_is_dropped() {
    for generation in [0, 1, 2] {
        let mut world = World::serving();
        world.send(Event::Examined { generation, evidence: Some(EVIDENCE.to_owned()), conclusion: None });
        world.run_for(s(60));
        assert_eq!((world.told("gateway.hung"), terminations(&world)), (vec![], vec![]));
    }
    let mut world = hung();
    world.send(Event::Examined { generation: 2, evidence: Some(EVIDENCE.to_owned()), conclusion: None });
    assert_eq!(terminations(&world), []);
}

#[test]
fn the_status_shows_the_examination() {
    let world = hung();
    let status = world.core.status(world.now);
    assert_eq!((status.state, status.next.action), ("examining", "replace the gateway"));
    assert!(status.next.within.is_some_and(|within| within <= s(5)));
    assert!(status.gateway.is_some_and(|gateway| !gateway.healthy && gateway.up.is_some()));
}

#[test]
fn a_hung_gateway_that_exits_with_0_when_it_is_told_to_is_still_a_failure() {
    let drain = Some((s(1), ExitStatus::Code(0)));
    let mut world = World::started(Script { drain, ..FROZEN });
    world.run_for(s(30));
    world.port = Some(Verdict::Silent);
    world.run_for(s(67));
    assert_eq!((world.causes(), world.core.status(world.now).restarts), (vec!["hung"], 1));
}
