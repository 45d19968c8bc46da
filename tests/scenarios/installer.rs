//! An installer of OpenClaw's package in the tree of a gateway that has ended.

use crate::world::{CRASH, Script, World, s};
use openclaw_supervise_core::{Effect, Installers, Policy, Report, Request};
use std::time::Duration;

/// A gateway that dies at once, and an installer in its tree that takes so long.
fn dying_beside(installer: Duration, policy: Policy) -> World {
    let mut world = World::started_with(policy, Script::serving(s(10), CRASH));
    world.run_for(s(1));
    world.script = Script::default();
    world.installs_until = Some(world.now + s(9) + installer);
    world
}

fn installers(world: &World) -> Vec<Installers> {
    let kills = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::KillTree { installers, .. } => Some(*installers),
        _ => None,
    });
    kills.collect()
}

fn cut_short(world: &World) -> bool {
    let is_told = |effect: &Effect| matches!(effect, Effect::Report(Report::InstallerKilled { commands, .. }) if commands == &["900 npm install -g openclaw"]);
    !world.when(is_told).is_empty()
}

#[test]
fn the_next_start_waits_for_an_installer_that_its_gateway_has_left() {
    let mut world = dying_beside(s(43), Policy::default());
    world.run_for(s(30));
    assert_eq!(world.spawns().len(), 1);
    assert_eq!((world.told("installer.awaited").len(), world.told("gateway.exited").len()), (1, 1));
    let next = world.core.status(world.now).next;
    assert!(next.action == "start a gateway" && next.why.contains("900 npm install -g openclaw"), "{next:?}");
    world.run_for(s(60));
    assert_eq!((world.spawns().len(), cut_short(&world)), (2, false));
    assert!(installers(&world).iter().all(|installers| *installers == Installers::Finish));
}

#[test]
fn an_installer_that_takes_too_long_is_asked_to_roll_back_and_named() {
    let mut world = dying_beside(s(3600), Policy { update_timeout: s(30), ..Policy::default() });
    world.run_for(s(38));
    assert_eq!((world.spawns().len(), cut_short(&world)), (1, false));
    world.run_for(s(5));
    assert_eq!(installers(&world).last(), Some(&Installers::RollBack));
    assert!(cut_short(&world));
    assert_eq!(world.core.status(world.now).cut_short, ["900 npm install -g openclaw"]);
    world.run_for(s(10));
    assert_eq!(world.spawns().len(), 2);
}

#[test]
fn a_stop_does_not_wait_for_an_installer() {
    let mut world = dying_beside(s(3600), Policy::default());
    world.run_for(s(20));
    world.request(Request::Stop);
    world.run_for(s(5));
    assert_eq!((world.outcome().0, world.spawns().len(), cut_short(&world)), (0, 1, true));
}

#[test]
fn a_restart_on_request_waits_for_no_installer_and_one_that_comes_meanwhile_ends_none() {
    let mut world = World::started(Script { boots_in: Duration::ZERO, ..Script::default() });
    world.run_for(s(200));
    world.installs_until = Some(world.now + s(3600));
    world.request(Request::Restart);
    world.run_for(s(5));
    assert_eq!(installers(&world), [Installers::AsOthers]);
    let mut world = dying_beside(s(43), Policy::default());
    world.run_for(s(20));
    world.request(Request::Restart);
    world.run_for(s(60));
    assert_eq!((world.spawns().len(), cut_short(&world)), (2, false));
}
