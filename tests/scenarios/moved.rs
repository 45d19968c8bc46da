//! A gateway that serves elsewhere than it is expected.

use crate::world::{CRASH, STARTED, Script, World, s, sighting, stranger};
use openclaw_supervise_core::{
    Effect, Endpoint, Event, MoveReason, Moved, Observation, Phase, ProbeScope, Report, Request, Verdict,
};
use std::time::Duration;

fn elsewhere() -> [Endpoint; 2] {
    [Endpoint::local(19000), Endpoint { tls: true, ..Endpoint::local(18789) }]
}

fn ended(world: &World) -> Vec<Duration> {
    world.when(|effect| matches!(effect, Effect::Terminate { .. } | Effect::KillTree { .. } | Effect::Examine { .. }))
}

/// From and to, of each `endpoint.changed`.
fn changes(world: &World) -> Vec<(String, String)> {
    let changes = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Report(Report::EndpointChanged { from, to, .. }) => Some((from.to_string(), to.to_string())),
        _ => None,
    });
    changes.collect()
}

#[test]
fn a_gateway_that_moves_while_it_lives_is_followed_and_nothing_else_happens() {
    for place in elsewhere() {
        let mut world = World::serving();
        world.place = place.clone();
        world.run_for(s(400));
        assert_eq!(ended(&world), [], "{place}");
        assert_eq!(changes(&world), [("ws://127.0.0.1:18789".to_owned(), place.to_string())]);
        // The look that finds it may be the first one that misses it, or the one after that.
        let names: Vec<_> = world.names().into_iter().filter(|name| !name.starts_with("liveness.")).collect();
        assert_eq!(names, ["gateway.spawned", "gateway.listening", "gateway.started", "endpoint.changed"]);
        assert_eq!(world.core.status(world.now).endpoint, place);
    }
}

#[test]
fn a_gateway_that_comes_up_elsewhere_has_come_up() {
    for place in elsewhere() {
        let mut world = World::started(Script::default());
        world.run_for(s(1));
        world.place = place.clone();
        world.run_for(s(400));
        assert_eq!(ended(&world), [], "{place}");
        let names = ["gateway.spawned", "endpoint.changed", "gateway.listening", "gateway.started"];
        assert_eq!(world.names(), names);
    }
}

#[test]
fn one_that_is_gone_for_longer_than_the_window_is_cleared_by_an_answer_from_elsewhere() {
    let mut world = World::serving();
    world.evidence = None;
    world.port = Some(Verdict::Silent);
    while world.when(|effect| matches!(effect, Effect::Examine { .. })).is_empty() {
        world.run_for(Duration::from_millis(100));
    }
    (world.port, world.place) = (None, Endpoint::local(19000));
    world.run_for(s(4));
    assert!(world.told("gateway.hung").is_empty());
}

#[test]
fn what_drains_or_starts_where_the_gateway_was_is_asked_whose_it_is() {
    for verdict in [Verdict::Draining, Verdict::Gateway(Phase::Starting)] {
        let mut world = World::serving();
        world.port = Some(verdict);
        world.run_for(s(60));
        world.effects.clear();
        world.run_for(s(20));
        let asked = |ask: fn(&ProbeScope) -> bool| {
            world.when(|effect| matches!(effect, Effect::Probe { ask: asked, .. } if ask(asked))).len()
        };
        let strangers = asked(|ask| matches!(ask, ProbeScope::Liveness(_)));
        assert!(strangers == 0 && asked(|ask| matches!(ask, ProbeScope::Listener(1))) > 2, "{verdict}");
    }
}

#[test]
fn a_hang_is_found_as_fast_where_it_has_moved_to() {
    let silent_for = |place: Option<Endpoint>| {
        let mut world = World::serving();
        world.place = place.unwrap_or(world.place);
        world.run_for(s(30));
        world.port = Some(Verdict::Silent);
        let since = world.now;
        world.run_for(s(100));
        world.told("gateway.hung")[0].saturating_sub(since)
    };
    assert_eq!(silent_for(Some(Endpoint::local(19000))), silent_for(None));
}

#[test]
fn a_stranger_elsewhere_neither_starts_a_gateway_nor_keeps_one_that_hangs() {
    let mut world = World::started(Script::default());
    world.run_for(s(1));
    (world.listener, world.place) = (stranger(), Endpoint::local(19000));
    world.run_for(s(299));
    assert!(world.told("gateway.started").is_empty() && changes(&world).is_empty());
    let hung_after = |place: Option<Endpoint>| {
        let mut world = World::serving();
        match place {
            Some(place) => (world.listener, world.place) = (stranger(), place),
            None => world.port = Some(Verdict::Free),
        }
        while world.told("gateway.hung").is_empty() {
            world.run_for(Duration::from_millis(100));
        }
        assert_eq!(changes(&world), []);
        world.told("gateway.hung")
    };
    assert_eq!(hung_after(Some(Endpoint::local(19000))), hung_after(None));
}

#[test]
fn the_next_gateway_is_looked_for_where_the_settings_say_by_then() {
    let mut world = World::started(Script::serving(s(200), CRASH));
    world.run_for(s(190));
    let place = Endpoint::local(19000);
    // The gateway that lives has not read them yet.
    world.unanswered = |effect| matches!(effect, Effect::Probe { .. });
    world.place = place.clone();
    world.run_for(s(9));
    world.unanswered = |_| false;
    world.run_for(s(100));
    assert_eq!(world.spawns().len(), 2);
    assert_eq!(changes(&world), [("ws://127.0.0.1:18789".to_owned(), place.to_string())]);
    assert!(world.exit().is_none());
}

#[test]
fn a_conflict_at_the_new_port_names_it() {
    let mut world = World::new(openclaw_supervise_core::Policy::default());
    (world.place, world.port) = (Endpoint::local(19000), Some(STARTED));
    world.send(Event::Start);
    world.run_for(s(1));
    let (code, reason) = world.outcome();
    assert!(code == 78 && reason.contains("ws://127.0.0.1:19000"), "{code} {reason}");
}

#[test]
fn another_bind_mode_at_the_same_address_is_followed_without_a_report() {
    let mut world = World::serving();
    world.place.addresses.truncate(1);
    world.run_for(s(100));
    assert_eq!((ended(&world), changes(&world)), (vec![], vec![]));
    assert_eq!(world.when(|effect| matches!(effect, Effect::Follow(_))).len(), 1);
}

/// Seed 2240242 of the simulation: an answer that was under way came while the rest of the tree was killed.
#[test]
fn a_stranger_that_answers_while_a_gateway_is_killed_is_not_followed() {
    let mut world = World::serving();
    world.unanswered = |effect| matches!(effect, Effect::Probe { .. } | Effect::KillTree { .. });
    world.script.drain = None;
    world.request(Request::Restart);
    world.run_for(s(6));
    let ticket = world.ticket();
    world.leader_exits(1, CRASH);
    assert_eq!(world.kills().len(), 1);
    let moved = Moved { to: Endpoint::local(19000), why: MoveReason::Settings };
    let answer = Observation { moved: Some(moved), ..sighting(STARTED, stranger()) };
    world.send(Event::Probed { ticket, sighting: answer });
    assert_eq!((changes(&world), world.when(|effect| matches!(effect, Effect::Follow(_)))), (vec![], vec![]));
}
