//! Failures that a restart cannot fix: repeated fatal signals, an update under way, a rejected configuration.

use crate::world::{CRASH, HookScript, Script, World, s};
use openclaw_supervise_core::{Call, Effect, Event, ExitStatus, Fact, Policy, Report, Request, Settled, SpawnFailure};
use std::time::Duration;

const SEGV: ExitStatus = ExitStatus::Signal { number: 11, core_dumped: true };
const ABRT: ExitStatus = ExitStatus::Signal { number: 6, core_dumped: true };
const KILL: ExitStatus = ExitStatus::Signal { number: 9, core_dumped: false };
const REFUSAL: ExitStatus = ExitStatus::Code(78);

fn repairing() -> Policy {
    Policy { repair: Some(s(300)), ..Policy::default() }
}

fn repairs(world: &World) -> usize {
    world.calls().iter().filter(|(_, call)| matches!(call, Call::Repair { .. })).count()
}

#[test]
fn three_fast_deaths_by_one_fatal_signal_are_enough() {
    let mut world = World::started(Script::dying(s(5), SEGV));
    world.run_for(s(2000));
    let (code, reason) = world.outcome();
    assert_eq!((code, world.spawns().len()), (69, 3));
    assert!(reason.contains("in a row") && reason.contains("same configuration"), "{reason}");
    let restarts = world.effects.iter().find_map(|(_, effect)| match effect {
        Effect::Report(Report::RestartGaveUp { restarts, .. }) => Some(*restarts),
        _ => None,
    });
    assert_eq!(restarts, Some(2), "those that were spent");
}

#[test]
fn slow_deaths_and_other_signals_follow_the_budget() {
    let budget = Policy { max_restarts: 4, boot_limit: 0, ..Policy::default() };
    for script in [Script::dying(s(31), SEGV), Script::dying(s(5), KILL), Script::dying(s(5), CRASH)] {
        let mut world = World::started_with(budget.clone(), script);
        world.run_for(s(3000));
        assert_eq!((world.outcome().0, world.spawns().len()), (69, 5));
    }
    let mut world = World::started_with(budget, Script::dying(s(5), SEGV));
    for number in 1..5 {
        while world.spawns().len() < number && world.exit().is_none() {
            world.run_for(Duration::from_millis(100));
        }
        world.script = Script::dying(s(5), if number % 2 == 0 { SEGV } else { ABRT });
    }
    world.run_for(s(3000));
    assert_eq!(world.spawns().len(), 5, "they take turns");
}

#[test]
fn a_changed_configuration_or_program_resets_the_count_of_equal_deaths() {
    let policy = Policy { boot_limit: 0, ..Policy::default() };
    let mut world = World::started_with(policy, Script::dying(s(5), SEGV));
    while world.told("gateway.exited").len() < 2 {
        world.run_for(s(1));
    }
    world.fingerprint.program = 8;
    world.run_for(s(2000));
    assert_eq!((world.outcome().0, world.spawns().len()), (69, 5), "two of the old ones and three of the new");
}

#[test]
fn an_update_is_waited_for_ever_more_patiently_and_costs_nothing() {
    let mut world = World::new(Policy { max_restarts: 0, ..Policy::default() });
    world.unborn = Some(SpawnFailure::Updating("package.json is missing".to_owned()));
    world.send(Event::Start);
    world.run_for(s(100));
    let spawns = world.spawns();
    let pauses: Vec<_> = spawns.windows(2).map(|pair| pair[1].saturating_sub(pair[0]).as_secs()).collect();
    assert_eq!(pauses[..6], [1, 2, 4, 8, 16, 30]);
    world.unborn = None;
    world.run_for(s(60));
    assert_eq!((world.exit(), world.told("gateway.started").len()), (None, 1));
    let failures =
        world.when(|effect| matches!(effect, Effect::Remember { fact: Fact::Settled(Settled::NeverStarted), .. }));
    assert_eq!(failures, []);
}

#[test]
fn an_update_that_does_not_end_counts_as_a_failure_after_ten_minutes() {
    let mut world = World::new(Policy { max_restarts: 2, ..Policy::default() });
    world.unborn = Some(SpawnFailure::Updating("package.json is missing".to_owned()));
    world.send(Event::Start);
    let begun = world.now;
    world.run_for(s(3000));
    let (code, _) = world.outcome();
    assert_eq!(code, 69);
    assert!(world.told("restart.gave_up")[0] >= begun + s(600));
    assert!(world.told("restart.gave_up")[0] <= begun + s(700));
}

#[test]
fn a_program_that_vanishes_is_waited_for_and_one_that_never_was_there_is_not() {
    let vanished = SpawnFailure::Program("cannot execute openclaw".to_owned());
    let mut world = World::new(Policy { max_restarts: 1, ..Policy::default() });
    world.unborn = Some(vanished.clone());
    world.send(Event::Start);
    world.run_for(s(1));
    assert_eq!(world.outcome().0, 78);

    let mut world = World::started_with(Policy { max_restarts: 1, ..Policy::default() }, Script::serving(s(5), CRASH));
    world.run_for(s(4));
    world.unborn = Some(vanished);
    world.run_for(s(60));
    assert_eq!(world.exit(), None);
    (world.unborn, world.script) = (None, Script::default());
    world.run_for(s(60));
    assert_eq!(world.told("gateway.started").len(), 2);
}

#[test]
fn a_stop_in_the_middle_of_an_update_is_a_stop() {
    let mut world = World::new(Policy::default());
    world.unborn = Some(SpawnFailure::Updating("package.json is missing".to_owned()));
    world.send(Event::Start);
    world.run_for(s(20));
    world.request(Request::Stop);
    assert_eq!(world.outcome().0, 0);
}

#[test]
fn a_refused_configuration_is_repaired_once_and_started_once_more() {
    let mut world = World::started_with(repairing(), Script::dying(s(2), REFUSAL));
    world.run_for(s(60));
    let (code, reason) = world.outcome();
    assert_eq!((code, world.spawns().len(), repairs(&world)), (78, 2, 1));
    assert!(reason.contains("not even after its repair"), "{reason}");
}

#[test]
fn the_start_after_a_repair_spends_budget_and_a_spent_budget_ends_in_69() {
    let policy = Policy { max_restarts: 0, ..repairing() };
    let mut world = World::started_with(policy, Script::dying(s(2), REFUSAL));
    world.run_for(s(2000));
    let (code, reason) = world.outcome();
    assert_eq!((code, world.spawns().len(), repairs(&world)), (69, 1, 1));
    assert!(reason.contains("gave up after 0 restarts") && reason.contains("exited with 78"), "{reason}");
}

/// Refuses, is repaired, crashes, and refuses again; `rewrite` happens before the last start.
fn refused_again(rewrite: impl FnOnce(&mut World)) -> World {
    let mut world = World::started_with(repairing(), Script::dying(s(2), REFUSAL));
    world.run_for(s(3));
    world.script = Script::dying(s(2), CRASH);
    world.run_for(s(2));
    assert_eq!((world.spawns().len(), repairs(&world)), (2, 1));
    world.script = Script::dying(s(2), REFUSAL);
    rewrite(&mut world);
    world.run_for(s(400));
    world
}

#[test]
fn only_a_change_by_another_program_allows_another_repair() {
    let world = refused_again(|_| {});
    assert_eq!((world.outcome().0, repairs(&world), world.spawns().len()), (78, 1, 3));
    for program in [0, 1] {
        let world = refused_again(|world| {
            world.fingerprint.program += program;
            world.fingerprint.config += 1 - program;
        });
        assert_eq!((world.outcome().0, repairs(&world), world.spawns().len()), (78, 2, 4));
    }
}

#[test]
fn a_gateway_that_writes_into_its_configuration_at_each_boot_backs_off_all_the_same() {
    let policy = Policy { boot_limit: 0, max_restarts: 5, ..Policy::default() };
    let pauses = |program: u64| {
        let mut world = World::started_with(policy.clone(), Script::dying(s(2), CRASH));
        for number in 1..=5 {
            while world.spawns().len() <= number {
                world.run_for(Duration::from_millis(100));
            }
            world.fingerprint.program += program;
            world.fingerprint.config += 1 - program;
        }
        let (spawns, exits) = (world.spawns(), world.told("gateway.exited"));
        spawns[1..].iter().zip(exits).map(|(spawn, exit)| spawn.saturating_sub(exit)).collect::<Vec<_>>()
    };
    let written = pauses(0);
    assert!(written.windows(2).all(|pair| pair[0] < pair[1]) && written[4] >= s(8), "{written:?}");
    let replaced = pauses(1);
    assert!(replaced.iter().all(|pause| *pause <= s(2)), "another program resets the backoff: {replaced:?}");
}

#[test]
fn a_repair_that_helps_is_followed_by_a_gateway_that_serves_and_may_be_tried_again() {
    let mut world = World::started_with(repairing(), Script::dying(s(2), REFUSAL));
    world.run_for(s(3));
    world.script = Script::serving(s(500), REFUSAL);
    world.run_for(s(600));
    assert_eq!((world.exit(), repairs(&world)), (None, 2));
}

#[test]
fn a_repair_that_fails_or_takes_too_long_ends_with_78_and_says_so() {
    for (hook, words) in [(HookScript::ending(s(1), 1), "exit code 1"), (HookScript::endless(), "took longer than 5m")]
    {
        let mut world = World::new(repairing());
        (world.hook, world.script) = (hook, Script::dying(s(2), REFUSAL));
        world.send(Event::Start);
        world.run_for(s(400));
        let (code, reason) = world.outcome();
        assert_eq!((code, world.spawns().len()), (78, 1));
        assert!(reason.contains(words), "{reason}");
    }
}

#[test]
fn a_stop_while_it_is_repaired_is_a_stop_even_when_its_time_was_over() {
    for wait in [s(100), s(302) + Duration::from_millis(500)] {
        let mut world = World::new(repairing());
        world.script = Script::dying(s(2), REFUSAL);
        world.hook = HookScript { hears: Some(s(3)), ..HookScript::endless() };
        world.send(Event::Start);
        world.run_for(wait);
        assert_eq!(world.exit(), None);
        world.request(Request::Stop);
        world.run_for(s(30));
        assert_eq!(world.outcome().0, 0);
    }
}

#[test]
fn nothing_is_repaired_without_the_option_or_when_the_port_is_held() {
    let mut world = World::started(Script::dying(s(2), REFUSAL));
    world.run_for(s(60));
    assert_eq!((world.outcome().0, repairs(&world)), (78, 0));
    let mut world = World::started_with(repairing(), Script::dying(s(2), REFUSAL));
    world.run_for(s(1));
    world.port = Some(crate::world::STARTED);
    world.run_for(s(60));
    assert_eq!((world.outcome().0, repairs(&world)), (78, 0));
}

#[test]
fn the_stop_budget_of_the_outer_manager_bounds_the_next_drain_and_not_one_that_runs() {
    let stubborn = Script { drain: None, ..Script::default() };
    let mut world = World::started(stubborn);
    world.run_for(s(20));
    world.send(Event::StopBudget { timeout: s(15) });
    world.request(Request::Stop);
    let begun = world.now;
    world.port = Some(openclaw_supervise_core::Verdict::Draining);
    world.run_for(s(60));
    assert_eq!(world.kills()[0].saturating_sub(begun), s(15));

    let mut world = World::started(stubborn);
    world.run_for(s(20));
    world.request(Request::Restart);
    let begun = world.now;
    world.port = Some(openclaw_supervise_core::Verdict::Draining);
    world.run_for(s(1));
    world.send(Event::StopBudget { timeout: s(15) });
    world.run_for(s(400));
    assert_eq!(world.kills()[0].saturating_sub(begun), Policy::default().stop_timeout);
}

#[test]
fn a_first_gateway_that_is_not_found_or_not_executable_ends_us_with_78_at_once() {
    for (code, words) in [(127, "was not found"), (126, "cannot be executed")] {
        let mut world = World::started(Script::dying(Duration::from_millis(5), ExitStatus::Code(code)));
        world.run_for(s(5));
        let (exit, reason) = world.outcome();
        assert!(exit == 78 && reason.contains(&format!("exited with {code}")) && reason.contains(words), "{reason}");
        assert!(world.causes()[0].contains(&words[words.len() - 5..]), "{:?}", world.causes());
        assert_eq!(world.spawns().len(), 1);
    }
}

#[test]
fn one_that_came_up_before_is_a_crash_when_it_is_not_found() {
    let mut world = World::started(Script::serving(s(300), CRASH));
    world.run_for(s(299));
    world.script = Script::dying(Duration::from_millis(5), ExitStatus::Code(127));
    world.run_for(s(4));
    assert_eq!(world.exit(), None);
    assert!(world.spawns().len() >= 2);
    assert_eq!(world.causes().last(), Some(&"the command or its interpreter was not found"));
}

#[test]
fn an_output_that_has_moved_is_told_once_and_named_in_the_reason_of_an_end() {
    let mut world = World::started(Script::dying(s(2), REFUSAL));
    for _ in 0..2 {
        world.send(Event::OutputMoved { to: Some("/store/output.log".to_owned()) });
    }
    assert_eq!(world.told("output.moved").len(), 1);
    assert_eq!(world.core.status(world.now).output.as_deref(), Some("/store/output.log"));
    world.run_for(s(60));
    let (code, reason) = world.outcome();
    assert!(code == 78 && reason.contains("see the gateway's output in /store/output.log"), "{reason}");
}
