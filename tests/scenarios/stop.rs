//! Stopping: requests, escalation, trees that survive a kill.

use crate::world::{CRASH, KILLED, STARTED, Script, World, by, s, sighting, tree_end};
use openclaw_supervise_core::policy::OnStoreLost;
use openclaw_supervise_core::{
    Effect, Event, ExitStatus, ExitUsage, Fingerprint, Owner, Policy, ProbeScope, Report, Request, SpawnFailure, Usage,
    Verdict,
};
use std::time::Duration;

const DEAF: Script = Script { boots_in: Duration::ZERO, dies: None, drain: None };

fn kill(effect: &Effect) -> bool {
    matches!(effect, Effect::KillTree { .. })
}

/// One world in each state that a supervisor can be in.
fn every_state() -> Vec<(&'static str, World)> {
    let probing = |verdict| {
        let mut world = World::new(Policy::default());
        world.port = Some(verdict);
        world.send(Event::Start);
        world.run_for(s(3));
        world
    };
    let running = |script| {
        let mut world = World::started(script);
        world.run_for(s(10));
        world
    };
    let mut spawning = World::new(Policy::default());
    spawning.unanswered = |effect| matches!(effect, Effect::Spawn { .. });
    spawning.send(Event::Start);
    spawning.run_for(s(1));
    let mut backing_off = World::started(Script::dying(s(1), CRASH));
    backing_off.run_for(Duration::from_millis(1020));
    let mut restarting = running(DEAF);
    restarting.request(Request::Restart);
    let mut hung = running(DEAF);
    hung.port = Some(Verdict::Free);
    hung.run_for(s(67));
    let mut examined = running(DEAF);
    (examined.port, examined.evidence) = (Some(Verdict::Free), None);
    examined.run_for(s(60));
    assert_eq!(examined.core.status(examined.now).state, "examining");
    let mut clearing = running(DEAF);
    clearing.unanswered = kill;
    clearing.leader_exits(1, CRASH);
    let mut stubborn = running(DEAF);
    stubborn.request(Request::Restart);
    stubborn.survivors = vec![1];
    stubborn.run_for(s(329));
    let hooked = Policy { pre_start: Some(s(15)), post_stop: Some(s(15)), ..Policy::default() };
    let mut prepared = World::new(hooked.clone());
    prepared.send(Event::Start);
    prepared.run_for(Duration::from_millis(500));
    let mut cleaned = World::started_with(hooked, Script::serving(s(1), CRASH));
    cleaned.run_for(Duration::from_millis(2500));
    vec![
        ("before a start, in a hook", prepared),
        ("after an end, in a hook", cleaned),
        ("idle", World::new(Policy::default())),
        ("probing", probing(Verdict::Inconclusive)),
        ("contended", probing(Verdict::Silent)),
        ("spawning", spawning),
        ("backing off", backing_off),
        ("starting", World::started(Script { boots_in: s(100), ..Script::default() })),
        ("starting, deaf", running(Script { boots_in: s(100), ..DEAF })),
        ("running", running(Script::default())),
        ("running, deaf", running(DEAF)),
        ("restarting", restarting),
        ("examined", examined),
        ("hung", hung),
        ("clearing a tree", clearing),
        ("stubborn", stubborn),
    ]
}

#[test]
fn a_stop_in_every_state_ends_with_0_within_the_stop_timeout() {
    for (state, mut world) in every_state() {
        assert_eq!(world.exit(), None, "{state}");
        let spawns = world.spawns().len();
        world.request(Request::Stop);
        match state {
            "spawning" => world.send(Event::Spawned { generation: 1, pid: 5, fingerprint: Fingerprint::default() }),
            "clearing a tree" => world.send(Event::TreeGone { generation: 1, end: tree_end(0) }),
            _ => {}
        }
        world.unanswered = |_| false;
        if state == "spawning" {
            world.run_for(s(1));
            world.leader_exits(1, ExitStatus::Code(0));
        }
        let asked = world.now;
        world.run_for(s(328) + s(10));
        let (code, reason) = world.outcome();
        assert_eq!(code, 0, "{state}: {reason}");
        assert!(reason.contains("as asked by Stop from pid 77"), "{state}: {reason}");
        assert!(world.now <= asked + s(328) + s(6), "{state}");
        assert_eq!(world.spawns().len(), spawns, "{state}: nothing starts after a stop");
    }
}

#[test]
fn every_spawned_gateway_has_exactly_one_end_on_record_after_a_stop() {
    for (state, mut world) in every_state() {
        if state == "spawning" || state == "clearing a tree" {
            continue; // their answers are given by hand
        }
        world.request(Request::Stop);
        world.run_for(s(400));
        assert_eq!(world.told("gateway.spawned").len(), world.told("gateway.exited").len(), "{state}");
    }
}

#[test]
fn a_stop_while_the_process_is_created_ends_it_as_soon_as_it_exists() {
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::Spawn { .. });
    world.send(Event::Start);
    world.run_for(s(1));
    world.request(Request::Stop);
    world.send(Event::Spawned { generation: 1, pid: 5, fingerprint: Fingerprint::default() });
    assert!(matches!(world.effects.last(), Some((_, Effect::Terminate { generation: 1 }))));

    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::Spawn { .. });
    world.send(Event::Start);
    world.run_for(s(1));
    world.request(Request::Stop);
    world.send(Event::SpawnFailed { generation: 1, failure: SpawnFailure::Resources("fork: EAGAIN".to_owned()) });
    assert_eq!(world.outcome().0, 0);
}

#[test]
fn a_second_stop_skips_the_wait() {
    let mut world = World::started(DEAF);
    world.run_for(s(10));
    world.request(Request::Stop);
    world.run_for(s(3));
    assert_eq!(world.kills(), []);
    world.request(Request::Stop);
    assert_eq!(world.kills(), [world.now]);
    world.request(Request::Stop);
    assert_eq!(world.kills().len(), 1, "a third one adds nothing");
    world.run_for(s(1));
    assert_eq!((world.outcome().0, world.causes()), (0, vec!["stop requested"]));
    assert_eq!(world.told("stop.requested").len(), 1);
}

#[test]
fn a_second_stop_that_comes_before_the_process_exists_is_not_forgotten() {
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::Spawn { .. });
    world.send(Event::Start);
    world.run_for(s(1));
    world.request(Request::Stop);
    world.request(Request::Stop);
    world.send(Event::Spawned { generation: 1, pid: 5, fingerprint: Fingerprint::default() });
    assert_eq!(world.kills().len(), 1);
}

#[test]
fn a_restart_request_during_a_stop_stays_a_stop() {
    let mut world = World::started(DEAF);
    world.run_for(s(10));
    world.request(Request::Stop);
    world.request(Request::Restart);
    world.request(Request::Detach);
    world.run_for(s(400));
    assert_eq!((world.outcome().0, world.spawns().len()), (0, 1));
    assert_eq!(world.told("restart.requested"), []);
}

#[test]
fn a_stop_during_a_restart_ends_it() {
    let mut world = World::started(Script { drain: Some((s(5), ExitStatus::Code(0))), ..DEAF });
    world.run_for(s(10));
    world.request(Request::Restart);
    world.run_for(s(1));
    world.request(Request::Stop);
    world.run_for(s(5));
    assert_eq!((world.outcome().0, world.spawns().len()), (0, 1));
    assert_eq!(world.told("stop.escalated"), [], "the first stop is not in a hurry");
}

#[test]
fn a_detach_leaves_the_gateway_alone_and_ends_with_0() {
    for lifetime in [s(1), s(10)] {
        let mut world = World::started(Script { boots_in: s(5), ..DEAF });
        world.run_for(lifetime);
        world.request(Request::Detach);
        let (code, reason) = world.outcome();
        assert_eq!(code, 0);
        assert!(reason.contains("pid 101 goes on without a supervisor"), "{reason}");
        let touched = world.when(|effect| matches!(effect, Effect::Terminate { .. } | Effect::KillTree { .. }));
        assert!(touched.is_empty() && world.told("gateway.exited").is_empty());
    }
}

#[test]
fn a_drain_that_falls_silent_is_not_waited_for_to_the_end() {
    let mut world = World::started(DEAF);
    world.run_for(s(10));
    let asked = world.now;
    world.request(Request::Stop);
    world.port = Some(Verdict::Draining);
    world.run_for(s(100));
    assert_eq!(world.kills(), [], "a drain that answers has its budget");
    world.port = Some(Verdict::Silent);
    world.run_for(s(80));
    let killed = world.kills()[0];
    assert!(killed >= asked + s(150) && killed < asked + s(180), "{killed:?}");
    assert_eq!(world.outcome().0, 0);
}

#[test]
fn a_drain_with_its_port_closed_has_its_whole_budget() {
    let mut world = World::started(DEAF);
    world.run_for(s(10));
    let asked = world.now;
    world.request(Request::Stop);
    world.port = Some(Verdict::Free);
    world.run_for(s(400));
    assert_eq!(world.kills(), [asked + s(328)]);
}

#[test]
fn events_of_another_generation_change_nothing_in_any_state() {
    for (state, mut world) in every_state() {
        for generation in [0, 99] {
            let (before, effects) = (format!("{:?}", world.core), world.effects.len());
            world.send(Event::Spawned { generation, pid: 6, fingerprint: Fingerprint::default() });
            world.send(Event::SpawnFailed { generation, failure: SpawnFailure::Program("gone".to_owned()) });
            world.send(Event::LeaderExited { generation, death: KILLED, toll: ExitUsage::default() });
            world.send(Event::TreeGone { generation, end: tree_end(0) });
            world.send(Event::Measured { generation, sample: Usage::default() });
            world.send(Event::Examined { generation, evidence: None, conclusion: None });
            let unborn = matches!(state, "idle" | "probing" | "contended") && generation == 0;
            assert!(unborn || before == format!("{:?}", world.core), "{state}");
            assert_eq!(effects, world.effects.len(), "{state}");
        }
    }
}

#[test]
fn answers_with_a_spent_ticket_change_nothing_in_any_state() {
    for (state, mut world) in every_state() {
        let (before, effects) = (format!("{:?}", world.core), world.effects.len());
        for verdict in [Verdict::Free, STARTED, Verdict::Silent] {
            for ticket in [0, world.ticket().saturating_sub(1), 999_999] {
                world.send(Event::Probed { ticket, sighting: sighting(verdict, Owner::Unseen) });
            }
        }
        assert_eq!(before, format!("{:?}", world.core), "{state}");
        assert_eq!(effects, world.effects.len(), "{state}");
    }
}

#[test]
fn a_kill_without_an_answer_is_done_again_and_only_a_stop_goes_on_without() {
    let mut world = World::serving();
    world.unanswered = kill;
    world.leader_exits(1, CRASH);
    world.run_for(s(600));
    assert_eq!((world.exit(), world.spawns().len(), world.kills().len()), (None, 1, 21));
    world.request(Request::Stop);
    world.run_for(s(30));
    let (code, reason) = world.outcome();
    assert!(code == 1 && reason.contains("no kill of it comes back"), "{reason}");
}

#[test]
fn an_unreported_exit_is_found_by_a_second_kill() {
    let mut world = World::serving();
    world.script.drain = None;
    world.unanswered = kill;
    world.request(Request::Stop);
    world.run_for(s(330));
    for again in [false, true] {
        assert_eq!(world.kills().len(), 1 + usize::from(again));
        world.send(Event::TreeGone { generation: 1, end: tree_end(0) });
        world.run_for(s(30));
    }
    assert_eq!((world.outcome().0, world.told("gateway.exited").len()), (0, 1));
}

#[test]
fn a_start_that_does_not_come_back_ends_us_with_its_record_left_for_the_next() {
    for stop in [false, true] {
        let mut world = World::new(Policy::default());
        world.unanswered = |effect| matches!(effect, Effect::Spawn { .. });
        world.send(Event::Start);
        world.run_for(s(1));
        if stop {
            world.request(Request::Stop);
        }
        world.run_for(s(33));
        assert_eq!(world.exit(), None);
        world.run_for(s(3));
        let (code, reason) = world.outcome();
        assert!(code == 1 && reason.contains("it is looked for first"), "{reason}");
    }
}

/// Seed 616128 of the simulation: each suspend gave the kill its time again.
#[test]
fn a_stop_waits_no_longer_for_a_kill_that_does_not_come_back_whatever_the_clocks_do() {
    let mut world = World::serving();
    world.unanswered = kill;
    world.request(Request::Stop);
    world.request(Request::Stop);
    let at = world.now;
    world.leader_exits(1, KILLED);
    for _ in 0..3 {
        world.run_for(s(10));
        world.send(Event::ClockJumped { by: s(3600) });
    }
    world.run_for(s(2));
    assert_eq!(world.kills(), [at, at + s(30)]);
}

/// Two kills that do not come back, and a detach: nothing is started beside what may live, not even a hook.
#[test]
fn a_detach_beside_a_tree_of_which_no_kill_comes_back_calls_no_hook() {
    let mut world = World::started_with(Policy { post_stop: Some(s(5)), ..Policy::default() }, Script::default());
    world.run_for(s(10));
    world.unanswered = kill;
    world.leader_exits(1, CRASH);
    world.request(Request::Detach);
    world.run_for(s(61));
    let (code, reason) = world.outcome();
    assert!(code == 0 && reason.contains("the rest of the tree of gateway pid 101 survived SIGKILL"), "{reason}");
    assert_eq!((world.kills().len(), world.calls()), (2, vec![]));
}

/// Seed 1066676 of the simulation: each suspend gave the start its time again.
#[test]
fn a_stop_waits_no_longer_for_a_start_that_hangs_than_for_a_drain_whatever_the_clocks_do() {
    for (stops, most) in [(1, s(8)), (2, Duration::ZERO), (3, Duration::ZERO)] {
        let mut world = World::new(Policy { stop_timeout: s(8), ..Policy::default() });
        world.unanswered = |effect| matches!(effect, Effect::Spawn { .. });
        world.send(Event::Start);
        world.run_for(s(1));
        let at = world.now;
        for _ in 0..stops {
            world.request(Request::Stop);
        }
        world.run_for(s(4));
        world.send(Event::ClockJumped { by: s(3600) });
        assert_eq!(world.exit(), None, "an answer that is under way is taken in first");
        world.run_for(s(30));
        assert_eq!((world.outcome().0, world.now <= at + most + s(10)), (1, true), "{stops}: {:?}", world.now);
    }
}

/// Seed 1190856 of the simulation.
#[test]
fn a_stop_timeout_that_is_over_before_the_time_of_an_unconfirmed_lease_is_the_reason_of_the_kill() {
    let mut world =
        World::new(Policy { stop_timeout: s(1), on_store_lost: Some(OnStoreLost::Stop), ..Policy::default() });
    world.script.drain = None;
    world.send(Event::Start);
    world.run_for(s(10));
    world.stalled = true;
    while world.when(|effect| matches!(effect, Effect::Terminate { .. })).is_empty() {
        world.run_for(Duration::from_millis(100));
    }
    world.now += s(1);
    world.send(Event::Probed { ticket: 1, sighting: sighting(Verdict::Free, Owner::Unseen) });
    assert_eq!(world.kills(), [], "no event but its own tick");
    world.run_for(s(1));
    let named = |effect: &Effect| matches!(effect, Effect::Report(Report::StopEscalated { why, .. }) if why == "it did not end in the time that it was given");
    assert_eq!((world.when(named).len(), world.kills().len()), (1, 1));
}

#[test]
fn the_end_of_the_leader_is_not_the_end_of_the_tree() {
    for request in [None, Some(Request::Restart), Some(Request::Stop)] {
        let mut world = World::serving();
        world.unanswered = kill;
        if let Some(request) = request {
            world.request(request);
        }
        world.leader_exits(1, CRASH);
        world.run_for(s(29));
        assert_eq!((world.exit(), world.spawns().len(), world.kills().len()), (None, 1, 1));
        world.send(Event::TreeGone { generation: 1, end: tree_end(0) });
        world.run_for(s(3));
        assert!(world.exit().is_some() || world.spawns().len() == 2);
    }
}

#[test]
fn the_tree_may_be_gone_before_the_leaders_end_is_known() {
    let mut world = World::started(DEAF);
    world.run_for(s(10));
    world.unanswered = kill;
    world.request(Request::Restart);
    world.run_for(s(330));
    world.send(Event::TreeGone { generation: 1, end: tree_end(0) });
    world.run_for(s(5));
    assert_eq!((world.spawns().len(), world.causes().len()), (1, 0));
    world.leader_exits(1, KILLED);
    world.run_for(s(5));
    assert_eq!((world.spawns().len(), world.causes()), (2, vec!["restart requested"]));
}

#[test]
fn the_end_of_a_tree_that_was_not_killed_is_ignored() {
    let mut world = World::started(DEAF);
    world.run_for(s(10));
    world.request(Request::Restart);
    let before = format!("{:?}", world.core);
    world.send(Event::TreeGone { generation: 1, end: tree_end(0) });
    assert_eq!(before, format!("{:?}", world.core));
}

#[test]
fn survivors_of_a_stop_are_named_and_end_it_with_1() {
    let mut world = World::started(Script { drain: Some((s(1), ExitStatus::Code(0))), ..DEAF });
    world.run_for(s(10));
    world.survivors = vec![2];
    world.request(Request::Stop);
    world.run_for(s(10));
    let (code, reason) = world.outcome();
    assert_eq!(code, 1);
    assert!(reason.contains("SIGKILL: 900 stuck (D, nfs_wait); 901 stuck (D, nfs_wait);"), "{reason}");
    assert!(!reason.contains("ended") && !reason.contains('?'), "those that are left, and no guess: {reason}");
    assert_eq!(world.told("tree.killed").len(), 1);
}

#[test]
fn a_gateway_that_survives_the_kill_of_a_stop_has_its_end_on_record_too() {
    let mut world = World::started(DEAF);
    world.run_for(s(10));
    world.survivors = vec![1];
    world.request(Request::Stop);
    world.run_for(s(340));
    assert_eq!(world.outcome().0, 1);
    assert_eq!(world.told("gateway.exited").len(), 1, "every spawn has exactly one end on record");
}

#[test]
fn a_leader_that_survives_the_kill_of_a_hang_is_killed_again_and_never_joined_by_another() {
    let mut world = World::started(DEAF);
    world.run_for(s(30));
    world.survivors = vec![1, 1, 1];
    world.port = Some(Verdict::Silent);
    while world.kills().len() < 2 {
        world.run_for(s(1));
    }
    world.port = None;
    world.run_for(s(30));
    let kills = world.kills();
    assert_eq!(kills.len(), 4, "three in vain");
    assert!(kills.windows(2).all(|pair| pair[1] >= pair[0] + s(5)), "{kills:?}");
    assert_eq!((world.spawns().len(), world.causes()), (2, vec!["hung"]));
    assert!(world.spawns()[1] > kills[3]);
}

#[test]
fn a_detach_ends_even_beside_a_leader_that_cannot_be_killed() {
    let mut world = World::started(DEAF);
    world.run_for(s(10));
    world.survivors = vec![1; 1000];
    world.request(Request::Restart);
    world.run_for(s(340));
    world.request(Request::Detach);
    world.run_for(s(60));
    assert!(world.exit().is_some());
}

#[test]
fn nothing_comes_after_the_exit() {
    let mut world = World::serving();
    world.request(Request::Stop);
    world.run_for(s(5));
    let effects = world.effects.len();
    assert_eq!(world.core.deadline(), None);
    world.send(Event::Tick);
    world.send(Event::Start);
    world.send(Event::ClockJumped { by: s(100) });
    world.send(Event::LeaderExited { generation: 1, death: KILLED, toll: ExitUsage::default() });
    world.send(Event::Requested { request: Request::Stop, by: by("SIGTERM") });
    world.send(Event::Probed { ticket: world.ticket(), sighting: sighting(Verdict::Free, Owner::Unseen) });
    assert_eq!(world.effects.len(), effects);
}

#[test]
fn liveness_goes_on_while_stopping() {
    let mut world = World::started(DEAF);
    world.run_for(s(10));
    let before = world.probes().len();
    world.request(Request::Stop);
    world.run_for(s(52));
    assert_eq!(world.probes().len(), before + 10);
    let asks = world.when(|effect| matches!(effect, Effect::Probe { ask: ProbeScope::Liveness(1), .. }));
    assert!(asks.len() >= 10);
}
