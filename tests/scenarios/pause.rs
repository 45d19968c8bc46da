//! A pause of the supervision.

use crate::world::{CRASH, KILLED, PROMPT, Script, World, by, s};
use openclaw_supervise_core::event::PAUSE_MAX;
use openclaw_supervise_core::event::PauseRequest;
use openclaw_supervise_core::{Effect, Event, ExitStatus, Notice, Policy, ProbeScope, Request, Verdict};
use std::time::Duration;

const PERIOD: Duration = Duration::from_mins(20);

fn pause(world: &mut World, period: Duration) {
    let pause = Some(PauseRequest { period, reason: "gdb".to_owned() });
    world.send(Event::PauseRequested { pause, by: by("pause") });
}

fn resume(world: &mut World) {
    world.send(Event::PauseRequested { pause: None, by: by("resume") });
}

fn paused() -> World {
    let mut world = World::serving();
    pause(&mut world, PERIOD);
    world
}

fn ends_of_gateways(world: &World) -> usize {
    world
        .when(|effect| matches!(effect, Effect::Terminate { .. } | Effect::KillTree { .. } | Effect::Examine { .. }))
        .len()
}

#[test]
fn a_gateway_that_hangs_in_a_pause_is_left_alone_and_has_its_whole_window_after_it() {
    let mut world = paused();
    world.port = Some(Verdict::Silent);
    world.run_for(PERIOD.saturating_sub(s(5)));
    assert_eq!(ends_of_gateways(&world), 0);
    assert_eq!(world.core.status(world.now).next.action, "resume the supervision");
    world.run_for(s(50));
    assert_eq!((world.told("supervision.resumed").len(), ends_of_gateways(&world)), (1, 0));
    world.run_for(s(60));
    assert_eq!(world.told("gateway.hung").len(), 1);
}

#[test]
fn a_gateway_that_is_examined_is_let_go() {
    let mut world = World::serving();
    world.evidence = None;
    world.port = Some(Verdict::Silent);
    while world.core.status(world.now).state != "examining" {
        world.run_for(s(1));
    }
    pause(&mut world, PERIOD);
    world.run_for(s(600));
    assert_eq!((world.told("gateway.hung").len(), world.spawns().len()), (0, 1));
}

#[test]
fn a_boot_over_its_time_and_memory_over_its_limit_wait_for_the_end() {
    let mut world = World::started(Script { boots_in: s(100_000), ..Script::default() });
    world.run_for(s(5));
    pause(&mut world, PERIOD);
    world.run_for(PERIOD.saturating_sub(s(1)));
    assert_eq!(ends_of_gateways(&world), 0);
    let mut world = World::started_with(Policy { memory_max_kb: Some(1), ..Policy::default() }, Script::default());
    world.run_for(s(10));
    pause(&mut world, PERIOD);
    world.tree_rss_kb = Some(2);
    world.run_for(PERIOD.saturating_sub(s(1)));
    assert_eq!(ends_of_gateways(&world), 0);
    world.run_for(s(60));
    assert!(!world.told("memory.exceeded").is_empty());
}

/// Whatever its end: the operator has a hand in it.
#[test]
fn a_gateway_that_ends_in_a_pause_is_told_of_costs_nothing_and_is_followed_at_its_end() {
    for death in [CRASH, KILLED, ExitStatus::Code(0), ExitStatus::Code(78)] {
        let mut world = World::started_with(Policy { max_restarts: 0, ..Policy::default() }, Script::default());
        world.run_for(s(200));
        pause(&mut world, PERIOD);
        world.run_for(s(10));
        // What the operator runs by hand on the port is no conflict.
        world.leader_exits(1, death);
        world.run_for(s(7));
        world.port = Some(Verdict::Gateway(openclaw_supervise_core::Phase::Started));
        world.run_for(PERIOD.saturating_sub(s(60)));
        assert_eq!((world.told("gateway.exited").len(), world.spawns().len(), world.exit()), (1, 1, None), "{death:?}");
        world.port = None;
        world.run_for(s(60));
        assert_eq!((world.spawns().len(), world.exit()), (2, None), "{death:?}");
    }
}

#[test]
fn a_resume_starts_at_once() {
    let mut world = paused();
    world.leader_exits(1, CRASH);
    world.run_for(s(30));
    assert_eq!(world.spawns().len(), 1);
    resume(&mut world);
    world.run_for(s(2));
    assert_eq!((world.spawns().len(), world.told("supervision.resumed").len()), (2, 1));
    resume(&mut world);
    assert_eq!(world.told("supervision.resumed").len(), 1, "there is nothing to end");
}

#[test]
fn a_later_pause_takes_the_place_of_the_first_and_none_is_longer_than_a_day() {
    let mut world = paused();
    world.leader_exits(1, CRASH);
    world.run_for(s(30));
    pause(&mut world, s(60));
    world.run_for(s(70));
    assert_eq!(world.spawns().len(), 2);
    pause(&mut world, PAUSE_MAX * 9);
    assert_eq!(world.core.status(world.now).paused.map(|(within, ..)| within), Some(PAUSE_MAX));
}

/// One second of pause waives no backoff.
#[test]
fn a_backoff_outlasts_a_short_pause() {
    let mut world = World::started(Script::serving(s(1), CRASH));
    world.run_for(s(60));
    let (spawns, wait) = (world.spawns().len(), world.core.status(world.now).wait());
    pause(&mut world, s(1));
    world.run_for(s(20));
    assert_eq!((world.spawns().len(), wait > Some(s(60))), (spawns, true));
}

/// The wait of a start that is planned in a pause goes on after it, whatever ends the pause.
#[test]
fn no_end_of_a_pause_waives_a_backoff_that_began_in_it() {
    let end_of_fourth = || {
        let policy = Policy { startup_timeout: s(5), max_restarts: 50, boot_limit: 0, ..Policy::default() };
        let script = Script { boots_in: s(100_000), drain: Some((s(10), CRASH)), ..Script::default() };
        let mut world = World::started_with(policy, script);
        while world.spawns().len() < 5 || world.core.status(world.now).state != "stopping" {
            world.run_for(s(1));
        }
        world
    };
    let wait = |world: &mut World| {
        let from = world.now;
        while world.spawns().len() < 6 {
            world.run_for(Duration::from_millis(100));
        }
        world.now.saturating_sub(from)
    };
    let unpaused = wait(&mut end_of_fourth());
    let shortened: fn(&mut World) = |world| pause(world, s(1));
    for end in [shortened, resume] {
        let mut world = end_of_fourth();
        let from = world.now;
        pause(&mut world, PERIOD);
        while world.core.status(world.now).state != "backing_off" {
            world.run_for(s(1));
        }
        end(&mut world);
        let before = world.now.saturating_sub(from);
        assert_eq!(before + wait(&mut world), unpaused);
    }
}

#[test]
fn a_restart_waits_for_the_end_of_the_pause_even_a_forced_one() {
    for request in [Request::Restart, Request::RestartForced] {
        let mut world = paused();
        world.request(request);
        world.run_for(s(60));
        assert_eq!((world.spawns().len(), world.told("restart.merged").len()), (1, 1));
        resume(&mut world);
        world.run_for(s(5));
        assert_eq!(world.spawns().len(), 2);
    }
}

#[test]
fn a_restart_under_way_ends_the_gateway_and_the_next_one_waits() {
    let mut world = World::serving();
    world.script.drain = Some((s(30), ExitStatus::Code(0)));
    world.request(Request::Restart);
    world.run_for(s(5));
    pause(&mut world, PERIOD);
    world.run_for(s(600));
    assert_eq!((world.told("gateway.exited").len() <= 1, world.spawns().len()), (true, 1));
    world.run_for(PERIOD);
    assert_eq!(world.spawns().len(), 2);
}

#[test]
fn a_stop_is_a_stop_and_a_supervisor_that_ends_cannot_pause() {
    let mut world = paused();
    world.request(Request::Stop);
    pause(&mut world, PERIOD);
    assert_eq!(world.told("supervision.pause_refused").len(), 1);
    world.run_for(s(10));
    assert_eq!(world.outcome().0, 0);
}

#[test]
fn a_machine_that_sleeps_uses_up_the_pause() {
    let mut world = paused();
    world.send(Event::ClockJumped { by: PERIOD.saturating_sub(s(10)) });
    world.run_for(s(11));
    assert_eq!(world.told("supervision.resumed").len(), 1);
}

/// A supervisor that is started in a pause learns of it with the lease.
#[test]
fn a_start_in_a_pause_starts_nothing_and_keeps_no_manager_waiting() {
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::Probe { .. });
    world.send(Event::Start);
    world.run_for(Duration::from_millis(3));
    pause(&mut world, PERIOD);
    world.unanswered = |_| false;
    world.run_for(s(600));
    assert_eq!((world.spawns().len(), world.notices()), (0, vec![Notice::Ready]));
    let sentence = world.core.status(world.now).sentence_until(Some("10:24:05 UTC"));
    assert_eq!(sentence, "supervision is paused until 10:24:05 UTC: gdb; no gateway runs");
}

#[test]
fn the_end_of_a_pause_looks_at_the_port_once() {
    let mut world = paused();
    world.leader_exits(1, CRASH);
    world.run_for(PERIOD.saturating_sub(s(1)));
    let looks =
        |world: &World| world.when(|effect| matches!(effect, Effect::Probe { ask: ProbeScope::Port, .. })).len();
    let before = looks(&world);
    world.unanswered = |effect| matches!(effect, Effect::Probe { .. });
    world.run_for(s(2));
    assert_eq!(looks(&world), before + 1);
}

/// Another program on the port has its whole time after a pause.
#[test]
fn a_conflict_begins_anew_after_a_pause() {
    let mut world = World::new(Policy { conflict_timeout: s(30), ..Policy::default() });
    world.port = Some(Verdict::Silent);
    world.send(Event::Start);
    world.run_for(s(10));
    pause(&mut world, PERIOD);
    world.run_for(PERIOD + s(20));
    assert_eq!(world.exit(), None);
    world.run_for(s(20));
    assert_eq!(world.outcome().0, 78);
}

/// The store names the pause with the lease; what an earlier supervisor left is killed first.
#[test]
fn a_pause_that_begins_beside_the_cleanup_keeps_no_manager_waiting() {
    let mut world = World::new(Policy { pre_start: Some(s(10)), ..Policy::default() });
    world.unanswered = |effect| matches!(effect, Effect::ClearHooks { .. });
    world.send(Event::Start);
    world.run_for(Duration::from_millis(3));
    pause(&mut world, PERIOD);
    assert_eq!(world.notices(), vec![]);
    world.send(Event::HooksCleared { trouble: None });
    world.run_for(s(600));
    assert_eq!((world.spawns().len(), world.notices()), (0, vec![Notice::Ready]));
}

/// Seed 307206 of the simulation: the pause took the place of the pace, and its time was over.
#[test]
fn a_restart_between_the_end_of_a_pause_and_the_tick_that_ends_it_waits_for_that_tick() {
    let mut world = paused();
    world.now += PERIOD;
    world.request(Request::Restart);
    assert_eq!((ends_of_gateways(&world), world.told("restart.merged").len()), (0, 1));
    world.run_for(s(1));
    assert_eq!((world.told("supervision.resumed").len(), world.told("restart.requested").len()), (1, 1));
}

/// Seed 806112 of the simulation. The limit of unclean boots holds again for the start after the forced one.
#[test]
fn a_forced_restart_that_waits_for_the_end_of_a_pause_is_forced_by_then_and_only_once() {
    let mut world = World::started_with(Policy { boot_limit: 1, ..Policy::default() }, Script::serving(s(1), CRASH));
    while world.told("gateway.exited").len() < 2 {
        world.run_for(s(1));
    }
    let spawns = world.spawns().len();
    world.script = Script { drain: Some((PROMPT, CRASH)), ..Script::default() };
    world.run_for(s(400));
    assert_eq!(world.spawns().len(), spawns + 1);
    world.request(Request::Restart);
    world.run_for(s(1));
    pause(&mut world, s(30));
    world.request(Request::RestartForced);
    world.run_for(s(31));
    assert_eq!((world.told("restart.merged").len(), world.spawns().len()), (1, spawns + 3));
    world.request(Request::Restart);
    world.leader_exits(world.core.generation(), CRASH);
    world.run_for(s(100));
    assert_eq!(world.spawns().len(), spawns + 3, "more unclean boots than the limit");
}
