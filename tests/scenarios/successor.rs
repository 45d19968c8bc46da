//! A detached successor: a gateway exits with 0 and another one of ours has its port already.

use crate::world::{STARTED, Script, World, s, stranger};
use openclaw_supervise_core::{Effect, Event, ExitStatus, Fact, Holder, Owner, ProbeScope, Remains, Request, Verdict};
use std::time::Duration;

const DONE: ExitStatus = ExitStatus::Code(0);

fn heir() -> Owner {
    Owner::Ours(Holder { pid: 555, command: "openclaw-gateway".to_owned(), uid: None })
}

/// A gateway that has just exited with 0; `verdict` and `owner` are what its port shows then.
fn left(verdict: Verdict, owner: Owner) -> World {
    let mut world = World::started(Script::serving(s(30), DONE));
    world.run_for(s(29));
    (world.port, world.owner) = (Some(verdict), Some(owner));
    world.remains = Remains::Leader { pid: 555, differs: None };
    world.script = Script::serving(s(9999), DONE);
    world
}

#[test]
fn a_successor_is_adopted_and_nothing_of_it_is_killed() {
    let mut world = left(STARTED, heir());
    world.run_for(s(60));
    assert_eq!(world.kills(), []);
    assert_eq!(world.spawns().len(), 1, "no second one");
    let names = world.names();
    assert!(names.windows(3).any(|w| w == ["gateway.exited", "gateway.succeeded", "gateway.adopted"]), "{names:?}");
    assert_eq!(world.core.generation(), 2);
    assert_eq!(world.exit(), None);
}

/// A supervisor that was killed between the two left a gateway that no record led to, and the next one a second gateway.
#[test]
fn a_successor_is_on_record_from_the_moment_at_which_its_predecessor_is_settled() {
    let mut world = left(STARTED, heir());
    world.run_for(s(2));
    let index = |wanted: &dyn Fn(&Effect) -> bool| world.effects.iter().position(|(_, effect)| wanted(effect));
    let recorded =
        index(&|effect| matches!(effect, Effect::Remember { generation: 1, fact: Fact::Succeeded(run) } if run.clean));
    let sought = index(&|effect| matches!(effect, Effect::Adopt { generation: 2 }));
    assert!(recorded.is_some() && recorded < sought, "{recorded:?} {sought:?}");
    let settled = index(&|effect| matches!(effect, Effect::Remember { generation: 1, fact: Fact::Settled(_) }));
    assert_eq!(settled, None, "one fact is one transaction");
}

#[test]
fn a_successor_of_an_adopted_gateway_is_kept_though_the_exit_status_is_unknown() {
    let mut world = World::started(Script::serving(s(9999), DONE));
    world.run_for(s(29));
    (world.port, world.owner) = (Some(STARTED), Some(heir()));
    world.remains = Remains::Leader { pid: 555, differs: None };
    world.leader_exits(1, ExitStatus::Unknown);
    world.run_for(s(60));
    assert_eq!((world.kills(), world.spawns().len(), world.core.generation()), (vec![], 1, 2));
    let settled = world.effects.iter().find_map(|(_, effect)| match effect {
        Effect::Remember { generation: 1, fact: Fact::Succeeded(run) } => Some(run.clean),
        _ => None,
    });
    assert_eq!(settled, Some(true));
}

#[test]
fn a_free_port_another_program_and_the_dead_leader_itself_are_no_successor() {
    let dead = Owner::Ours(Holder { pid: 101, command: "openclaw-gateway".to_owned(), uid: None });
    for (verdict, owner) in
        [(Verdict::Free, Owner::Unseen), (STARTED, stranger()), (STARTED, dead), (Verdict::Silent, heir())]
    {
        let mut world = left(verdict, owner);
        world.run_for(s(7));
        assert_eq!(world.kills().len(), 1, "{verdict:?}");
        assert_eq!(world.told("gateway.succeeded"), []);
    }
}

/// On a busy machine the owner of the port was not found within the time for it, and the successor died with the old tree.
#[test]
fn a_successor_that_is_not_found_in_time_is_looked_at_again_before_anything_is_killed() {
    for looks in [s(2), s(5)] {
        let mut world = left(STARTED, Owner::Unseen);
        world.run_for(looks);
        assert_eq!(world.told("gateway.exited").len(), 1);
        assert_eq!(world.kills(), []);
        world.owner = Some(heir());
        world.run_for(s(60));
        assert_eq!((world.kills(), world.spawns().len(), world.core.generation()), (vec![], 1, 2));
        assert_eq!(world.told("gateway.succeeded").len(), 1);
    }
}

#[test]
fn a_process_that_is_never_seen_is_looked_for_within_a_bound() {
    let mut world = left(STARTED, Owner::Unseen);
    world.run_for(s(30));
    let waited = world.kills()[0].saturating_sub(world.told("gateway.exited")[0]);
    assert!((s(5)..s(6)).contains(&waited), "{waited:?}");
    let mut world = left(STARTED, Owner::Unseen);
    world.run_for(s(3));
    world.request(Request::Stop);
    assert_eq!(world.kills().len(), 1, "a stop does not wait for it");
}

#[test]
fn a_request_while_the_successor_is_looked_for_ends_all_of_it() {
    for request in [Request::Stop, Request::Restart] {
        let mut world = left(STARTED, heir());
        world.unanswered = |effect| matches!(effect, Effect::Probe { ask: ProbeScope::Port, .. });
        world.run_for(s(1) + Duration::from_millis(10));
        world.request(request);
        let ticket = world.ticket();
        world.send(Event::Probed { ticket, sighting: crate::world::sighting(STARTED, heir()) });
        assert_eq!(world.kills().len(), 1, "{request:?}");
        assert_eq!(world.told("gateway.succeeded"), []);
    }
}

#[test]
fn a_lost_answer_delays_nothing() {
    let mut world = left(STARTED, heir());
    world.unanswered = |effect| matches!(effect, Effect::Probe { ask: ProbeScope::Port, .. });
    world.run_for(s(30));
    let exit = world.told("gateway.exited")[0];
    let kill = world.kills()[0];
    assert!(kill > exit && kill <= exit + s(10), "probe timeout and a loss: {:?}", kill.saturating_sub(exit));
}

#[test]
fn a_late_answer_changes_nothing() {
    let mut world = left(STARTED, heir());
    world.unanswered = |effect| matches!(effect, Effect::Probe { ask: ProbeScope::Port, .. } | Effect::KillTree { .. });
    world.run_for(s(30));
    let (ticket, effects) = (world.ticket(), world.effects.len());
    world.send(Event::Probed { ticket, sighting: crate::world::sighting(STARTED, heir()) });
    assert_eq!(world.effects.len(), effects);
}

#[test]
fn a_successor_that_cannot_be_found_again_is_looked_for_at_the_port() {
    let mut world = left(STARTED, heir());
    world.remains = Remains::Nothing { pid: None };
    world.run_for(s(1) + Duration::from_millis(10));
    (world.port, world.owner) = (None, None);
    world.run_for(s(10));
    assert_eq!(world.spawns().len(), 2, "it was gone after all");
    assert_eq!(world.told("restart.gave_up"), []);
}

#[test]
fn a_gateway_that_never_answered_leaves_no_successor() {
    let mut world = World::started(Script::dying(s(3), DONE));
    world.run_for(s(4));
    assert_eq!(world.kills().len(), 1);
    let looks = world.when(|effect| matches!(effect, Effect::Probe { ask: ProbeScope::Port, .. }));
    assert!(world.kills()[0] <= looks[1], "no probe of the port before the tree was cleared");
}
