//! Coming up, serving, hanging, and clocks that jump.

use crate::world::{KILLED, STARTED, Script, World, s, sighting, stranger};
use openclaw_supervise_core::{Effect, Event, ExitStatus, Owner, Phase, Policy, ProbeScope, Request, Verdict};
use std::time::Duration;

const NEVER_UP: Script = Script { boots_in: s_const(100_000), dies: None, drain: None };
const FROZEN: Script = Script { boots_in: Duration::ZERO, dies: None, drain: None };

const fn s_const(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn terminations(world: &World) -> Vec<Duration> {
    world.when(|effect| matches!(effect, Effect::Terminate { .. }))
}

#[test]
fn a_boot_over_its_budget_is_reported_and_replaced() {
    let mut world = World::started(NEVER_UP);
    world.run_for(s(320));
    let told = ["gateway.spawned", "startup.timed_out", "gateway.hung", "stop.escalated", "gateway.exited"];
    assert_eq!(world.names()[..5], told);
    assert_eq!(world.spawns().len(), 2, "killed 10 s after its SIGTERM, then replaced");
    assert_eq!(world.causes(), ["hung"]);
    assert!(world.told("gateway.started").is_empty());
}

#[test]
fn a_slow_boot_is_never_ended_before_the_budget_whatever_its_port_shows() {
    for verdict in [Verdict::Free, Verdict::Silent, Verdict::Foreign, Verdict::Gateway(Phase::Starting)] {
        let mut world = World::started(NEVER_UP);
        world.run_for(s(1));
        world.port = Some(verdict);
        world.run_for(s(291));
        assert!(terminations(&world).is_empty() && world.kills().is_empty(), "{verdict}");
        world.port = Some(STARTED);
        world.run_for(s(7));
        assert_eq!(world.told("gateway.started").len(), 1, "{verdict}: up in the last seconds");
        assert!(terminations(&world).is_empty());
    }
}

#[test]
fn a_gateway_that_answers_while_it_warms_up_is_listening_once_and_started_once() {
    let mut world = World::started(NEVER_UP);
    world.run_for(s(1));
    world.port = Some(Verdict::Gateway(Phase::Starting));
    world.run_for(s(30));
    assert_eq!(world.names(), ["gateway.spawned", "gateway.listening"]);
    world.port = Some(STARTED);
    world.run_for(s(30));
    assert_eq!(world.names(), ["gateway.spawned", "gateway.listening", "gateway.started"]);
}

#[test]
fn a_frozen_gateway_is_hung_after_the_window_and_gets_its_seconds_to_end_by_itself() {
    let mut world = World::started(FROZEN);
    world.run_for(s(30));
    world.port = Some(Verdict::Silent);
    let frozen = world.now;
    world.run_for(s(54));
    assert!(terminations(&world).is_empty(), "the last good probe is at most 5 s older than the freeze");
    world.run_for(s(11));
    let asked = terminations(&world)[0];
    assert!(asked >= frozen + s(55));
    assert_eq!(world.kills(), [], "a busy loop may still hear SIGTERM within --hung-stop-timeout");
    world.run_until(asked + s(10));
    assert_eq!(world.kills(), [asked + s(10)]);
    world.port = None;
    world.run_for(s(5));
    assert_eq!((world.spawns().len(), world.causes()), (2, vec!["hung"]));
}

#[test]
fn a_hung_gateway_that_ends_on_sigterm_is_not_killed_first() {
    let mut world = World::started(Script { drain: Some((s(3), ExitStatus::Code(0))), ..FROZEN });
    world.run_for(s(30));
    world.port = Some(Verdict::Silent);
    world.run_for(s(69));
    world.port = None;
    world.run_for(s(10));
    assert_eq!(world.told("stop.escalated"), []);
    assert_eq!((world.spawns().len(), world.causes()), (2, vec!["hung"]));
}

#[test]
fn every_kind_of_bad_answer_counts_towards_the_hang() {
    for verdict in [Verdict::Free, Verdict::Silent, Verdict::Malformed] {
        let mut world = World::started(FROZEN);
        world.run_for(s(30));
        world.port = Some(verdict);
        world.run_for(s(67));
        assert_eq!(world.told("liveness.missed").len(), 1, "{verdict}");
        assert_eq!(world.told("gateway.hung").len(), 1, "{verdict}");
    }
}

#[test]
fn a_hang_needs_three_failed_probes_however_short_the_window() {
    let policy = Policy { hang_after: s(1), ..Policy::default() };
    let mut world = World::started_with(policy, FROZEN);
    world.run_for(s(30));
    let before = world.probes().len();
    world.port = Some(Verdict::Free);
    world.run_for(s(30));
    let hung = world.told("gateway.hung")[0];
    let failed = world.probes()[before..].iter().filter(|at| **at < hung).count();
    assert_eq!(failed, 3);
}

#[test]
fn probes_that_cannot_run_or_get_lost_never_make_a_hang() {
    let mut world = World::serving();
    world.port = Some(Verdict::Inconclusive);
    world.run_for(s(3600));
    world.port = None;
    world.unanswered = |effect| matches!(effect, Effect::Probe { .. });
    let before = world.probes().len();
    world.run_for(s(3600));
    assert!(world.probes().len() > before + 300, "a lost answer is asked for again");
    assert!(terminations(&world).is_empty() && world.told("liveness.missed").is_empty());
}

#[test]
fn a_drain_that_was_seen_once_is_not_a_hang_while_no_probe_can_run() {
    let mut world = World::serving();
    world.port = Some(Verdict::Draining);
    world.run_for(s(6));
    world.port = Some(Verdict::Inconclusive);
    world.run_for(s(3600));
    assert!(terminations(&world).is_empty(), "not one failed probe speaks against it");
}

#[test]
fn a_miss_and_its_recovery_are_reported_once() {
    let mut world = World::serving();
    world.port = Some(Verdict::Free);
    world.run_for(s(30));
    world.port = None;
    world.run_for(s(30));
    assert_eq!(world.names()[3..], ["liveness.missed", "liveness.recovered"]);
}

#[test]
fn a_restart_in_place_has_the_budget_of_a_boot() {
    let mut world = World::serving();
    world.port = Some(Verdict::Draining);
    world.run_for(s(10));
    world.port = Some(Verdict::Free);
    world.run_for(s(290));
    assert!(terminations(&world).is_empty());
    world.port = None;
    world.run_for(s(100));
    assert_eq!((terminations(&world), world.spawns().len()), (vec![], 1));
}

#[test]
fn a_restart_in_place_that_never_comes_back_is_a_hang() {
    let mut world = World::serving();
    world.port = Some(Verdict::Draining);
    world.run_for(s(10));
    world.port = Some(Verdict::Free);
    world.run_for(s(310));
    assert_eq!(world.told("gateway.hung").len(), 1);
}

#[test]
fn a_clock_jump_restarts_the_window() {
    let mut world = World::serving();
    world.port = Some(Verdict::Silent);
    world.run_for(s(50));
    world.send(Event::ClockJumped { by: s(8 * 3600) });
    world.run_for(s(40));
    assert!(terminations(&world).is_empty());
    assert_eq!(world.told("clock.jumped").len(), 1);
    world.run_for(s(40));
    assert_eq!(terminations(&world).len(), 1, "the window is new, not gone");
}

#[test]
fn a_clock_jump_restarts_the_startup_budget() {
    let mut world = World::started(NEVER_UP);
    world.run_for(s(290));
    world.send(Event::ClockJumped { by: s(600) });
    world.run_for(s(290));
    assert!(terminations(&world).is_empty());
    world.run_for(s(20));
    assert_eq!(world.told("startup.timed_out").len(), 1);
}

#[test]
fn a_step_long_after_its_deadline_counts_as_a_jump() {
    let mut world = World::serving();
    world.port = Some(Verdict::Silent);
    world.run_for(s(50));
    let Some(deadline) = world.core.deadline() else { panic!("no deadline") };
    world.now = deadline + s(3600);
    world.send(Event::Tick);
    assert_eq!(world.told("clock.jumped").len(), 1);
    world.run_for(s(40));
    assert!(terminations(&world).is_empty(), "no kill straight after waking up");
}

#[test]
fn a_holder_of_the_port_is_given_its_time_again_after_a_jump() {
    let mut world = World::new(Policy::default());
    world.port = Some(Verdict::Silent);
    world.send(Event::Start);
    world.run_for(s(12));
    let Some(deadline) = world.core.deadline() else { panic!("no deadline") };
    world.now = deadline + s(3600);
    world.send(Event::Tick);
    world.run_for(s(20));
    assert_eq!(world.exit(), None, "it slept as we did");
    world.run_for(s(30));
    assert_eq!(world.outcome().0, 78);
}

#[test]
fn a_step_that_is_only_a_little_late_is_no_jump_and_a_tiny_difference_is_noise() {
    let mut world = World::serving();
    let Some(deadline) = world.core.deadline() else { panic!("no deadline") };
    world.now = deadline + s(9);
    world.send(Event::Tick);
    world.send(Event::ClockJumped { by: Duration::from_millis(999) });
    assert_eq!(world.told("clock.jumped"), []);
}

#[test]
fn an_answer_to_a_probe_of_the_last_gateway_says_nothing_about_the_next() {
    let mut world = World::serving();
    world.unanswered = |effect| matches!(effect, Effect::Probe { .. });
    world.run_for(s(6));
    let old = world.ticket();
    world.leader_exits(1, KILLED);
    world.unanswered = |effect| matches!(effect, Effect::Probe { ask: ProbeScope::Listener(_), .. });
    world.run_for(s(3));
    assert_eq!(world.spawns().len(), 2);
    world.send(Event::Probed { ticket: old, sighting: sighting(STARTED, Owner::Unseen) });
    assert_eq!(world.told("gateway.started").len(), 1);
}

#[test]
fn another_program_on_the_port_is_no_sign_of_life() {
    let mut world = World::serving();
    world.unanswered = |effect| matches!(effect, Effect::Probe { .. });
    world.run_for(s(6));
    world.send(Event::Probed { ticket: world.ticket(), sighting: sighting(Verdict::Free, Owner::Unseen) });
    for _ in 0..20 {
        world.run_for(s(5));
        let asked_whose = matches!(
            world.effects.iter().rev().find(|(_, effect)| matches!(effect, Effect::Probe { .. })),
            Some((_, Effect::Probe { ask: ProbeScope::Listener(1), .. }))
        );
        assert!(asked_whose || !terminations(&world).is_empty());
        world.send(Event::Probed { ticket: world.ticket(), sighting: sighting(STARTED, stranger()) });
    }
    assert_eq!(world.told("liveness.recovered"), []);
    assert_eq!(world.told("gateway.hung").len(), 1);
}

#[test]
fn a_miss_and_its_recovery_are_reported_once_even_if_the_clock_jumps_between() {
    let mut world = World::serving();
    world.port = Some(Verdict::Silent);
    world.run_for(s(20));
    world.send(Event::ClockJumped { by: s(3600) });
    world.run_for(s(20));
    world.port = None;
    world.run_for(s(10));
    assert_eq!((world.told("liveness.missed").len(), world.told("liveness.recovered").len()), (1, 1));
}

#[test]
fn a_standstill_is_reported_once_whatever_had_queued_up() {
    let mut world = World::serving();
    world.now += s(600);
    world.request(Request::Restart);
    world.send(Event::Tick);
    world.request(Request::Restart);
    assert_eq!(world.told("clock.jumped").len(), 1);
}
