//! Notices to the service manager, and the use of `/readyz`.

use crate::world::{CRASH, STARTED, Script, World, acquired, by, owner, s, sighting, stranger};
use Notice::{Ready, Reloading, Stopping};
use openclaw_supervise_core::policy::OnConflict;
use openclaw_supervise_core::restart_policy::{Cause, Run};
use openclaw_supervise_core::{
    Contested, Effect, Event, Fingerprint, History, LeaseAnswer, Notice, Observation, Owner, PastRun, Phase, Policy,
    Readiness, Remains, Report, Request, Settled, Unfinished, Verdict,
};
use std::time::Duration;

const UP: Script = Script { boots_in: Duration::ZERO, dies: None, drain: None };
const NEVER_UP: Script = Script { boots_in: Duration::from_secs(100_000), ..UP };

fn told_at(world: &World, notice: Notice) -> Vec<Duration> {
    world.when(|effect| *effect == Effect::Notify(notice))
}

#[test]
fn ready_is_told_once_when_the_gateway_has_come_up() {
    let mut world = World::started(Script::default());
    world.run_for(s(7));
    assert_eq!(world.notices(), []);
    world.run_for(s(3600));
    assert_eq!((world.notices(), told_at(&world, Ready)), (vec![Ready], world.told("gateway.started")));
}

#[test]
fn a_gateway_that_listens_and_warms_up_is_not_ready() {
    let mut world = World::started(NEVER_UP);
    world.run_for(s(1));
    for verdict in [Verdict::Gateway(Phase::Starting), Verdict::Draining, Verdict::Foreign, Verdict::Silent] {
        world.port = Some(verdict);
        world.run_for(s(20));
        assert_eq!(world.notices(), [], "{verdict}");
    }
}

#[test]
fn each_gateway_is_ready_once_and_a_crash_is_no_reload() {
    let mut world = World::started(Script::serving(s(200), CRASH));
    world.run_for(s(650));
    assert_eq!((world.spawns().len(), world.notices()), (4, vec![Ready; 4]));
}

#[test]
fn a_hung_gateway_is_replaced_without_a_word_but_ready() {
    let mut world = World::started(UP);
    world.run_for(s(30));
    world.port = Some(Verdict::Silent);
    world.run_for(s(68));
    world.port = None;
    world.run_for(s(30));
    assert_eq!((world.told("gateway.hung").len(), world.notices()), (1, vec![Ready, Ready]));
}

#[test]
fn a_miss_a_recovery_and_a_restart_in_place_change_nothing_for_the_manager() {
    let mut world = World::serving();
    for verdict in
        [Verdict::Silent, STARTED, Verdict::Draining, Verdict::Free, Verdict::Gateway(Phase::Starting), STARTED]
    {
        world.port = Some(verdict);
        world.run_for(s(30));
    }
    assert_eq!(world.notices(), [Ready]);
}

#[test]
fn a_restart_of_a_ready_gateway_is_a_reload_and_the_next_one_is_ready() {
    let mut world = World::serving();
    world.request(Request::Restart);
    assert_eq!(world.notices(), [Ready, Reloading]);
    world.request(Request::Restart);
    world.run_for(s(60));
    assert_eq!(world.notices(), [Ready, Reloading, Ready]);
}

#[test]
fn a_restart_of_one_that_was_never_ready_is_none() {
    let mut world = World::started(NEVER_UP);
    world.run_for(s(3));
    world.request(Request::Restart);
    world.run_for(s(3));
    assert_eq!(world.notices(), []);
}

#[test]
fn a_restart_of_one_that_is_examined_is_a_reload_too() {
    let mut world = World::started(UP);
    world.run_for(s(30));
    (world.port, world.evidence) = (Some(Verdict::Free), None);
    world.run_for(s(57));
    assert_eq!(world.core.status(world.now).state, "examining");
    world.request(Request::Restart);
    world.port = None;
    world.run_for(s(30));
    assert_eq!(world.notices(), [Ready, Reloading, Ready]);
}

#[test]
fn a_replacement_for_its_memory_is_a_reload() {
    let policy = Policy { memory_max_kb: Some(1), ..Policy::default() };
    let mut world = World::started_with(policy, Script { drain: Script::default().drain, ..UP });
    world.tree_rss_kb = Some(2);
    world.run_for(s(16));
    assert_eq!(world.told("memory.exceeded").len(), 1);
    world.tree_rss_kb = Some(1);
    world.run_for(s(20));
    assert_eq!(world.notices(), [Ready, Reloading, Ready]);
}

#[test]
fn stopping_is_told_when_a_stop_or_a_detach_is_asked_for_and_once() {
    for request in [Request::Stop, Request::Detach] {
        let mut world = World::serving();
        world.request(request);
        assert_eq!(world.notices(), [Ready, Stopping], "{request:?}: not only when all is over");
        world.request(request);
        world.run_for(s(400));
        assert_eq!((world.outcome().0, world.notices()), (0, vec![Ready, Stopping]));
    }
    let mut world = World::serving();
    world.request(Request::Restart);
    world.request(Request::Stop);
    world.run_for(s(400));
    assert_eq!(world.notices(), [Ready, Reloading, Stopping]);
}

#[test]
fn a_stop_before_anything_is_ready_is_told_too() {
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::Spawn { .. });
    world.send(Event::Start);
    world.run_for(s(1));
    world.request(Request::Stop);
    assert_eq!(world.notices(), [Stopping]);
    world.send(Event::Spawned { generation: 1, pid: 101, fingerprint: Fingerprint::default() });
    world.run_for(s(600));
    assert_eq!(world.notices(), [Stopping]);
}

#[test]
fn every_end_of_ours_is_told_before_it_comes() {
    let mut spent = World::started(Script::dying(s(1), CRASH));
    spent.run_for(s(3600));
    let mut conflict = World::new(Policy::default());
    conflict.port = Some(STARTED);
    conflict.send(Event::Start);
    conflict.run_for(s(10));
    let mut duplicate = World::new(Policy::default());
    duplicate.lease = LeaseAnswer::Contended { owner: Some(owner(900)), what: Contested::Lease };
    duplicate.send(Event::Start);
    let mut robbed = World::started(Script::default());
    robbed.send(Event::LeaseLost { owner: None, why: "it was taken".to_owned() });
    let mut hooked = World::new(Policy { pre_start: Some(s(15)), ..Policy::default() });
    hooked.hook = crate::world::HookScript::endless();
    hooked.send(Event::Start);
    hooked.run_for(s(1));
    hooked.send(Event::LeaseLost { owner: None, why: "it was taken".to_owned() });
    hooked.run_for(s(1));
    for (world, code) in [(&spent, 69), (&conflict, 78), (&duplicate, 78), (&robbed, 78), (&hooked, 78)] {
        assert_eq!(world.outcome().0, code);
        let is_end = |effect: &&Effect| matches!(effect, Effect::FinishSweep | Effect::Exit(_));
        let last = world.effects.iter().rev().map(|(_, effect)| effect).find(|effect| !is_end(effect));
        assert_eq!(last, Some(&Effect::Notify(Stopping)), "{code}");
        assert_eq!(told_at(world, Stopping).len(), 1, "{code}");
    }
}

#[test]
fn standing_by_is_ready_once_and_so_is_the_gateway_after_it() {
    let mut world = World::new(Policy { on_conflict: OnConflict::Standby, ..Policy::default() });
    world.lease = LeaseAnswer::Contended { owner: Some(owner(900)), what: Contested::Lease };
    world.send(Event::Start);
    assert_eq!(world.notices(), [Ready]);
    world.run_for(s(100));
    world.lease = LeaseAnswer::Free;
    world.send(Event::Departed { pid: 900 });
    world.run_for(s(14));
    assert_eq!(world.notices(), [Ready]);
    world.unanswered =
        |effect| matches!(effect, Effect::Lease { ask: openclaw_supervise_core::LeaseRequest::Take { .. }, .. });
    world.run_for(s(2));
    world.send(Event::Leased { ticket: world.lease_ticket(), answer: acquired(History::default()) });
    world.run_for(s(60));
    assert_eq!((world.told("gateway.started").len(), world.notices()), (1, vec![Ready, Ready]));
}

#[test]
fn an_adopted_gateway_is_ready_after_its_first_good_answer_to_us() {
    let left = Unfinished { generation: 3, spawned: s(600), started: Some(s(610)), healthy_until: None, died: None };
    for (verdict, ready) in [
        (STARTED, true),
        (Verdict::Gateway(Phase::Unknown), true),
        (Verdict::Gateway(Phase::Starting), false),
        (Verdict::Draining, false),
        (Verdict::Silent, false),
    ] {
        let mut world = World::new(Policy::default());
        world.lease = acquired(History { generation: 3, runs: vec![], left: Some(left) });
        (world.remains, world.script, world.port) = (Remains::Leader { pid: 103, differs: None }, UP, Some(verdict));
        world.send(Event::Start);
        assert_eq!(world.notices(), [], "no probe has seen it serve yet");
        world.run_for(s(30));
        assert_eq!(world.notices(), if ready { vec![Ready] } else { vec![] }, "{verdict}");
        world.port = None;
        world.run_for(s(30));
        assert_eq!(world.notices(), [Ready], "{verdict}");
    }
}

#[test]
fn a_stranger_on_the_port_of_an_adopted_gateway_does_not_make_it_ready() {
    let left = Unfinished { generation: 3, spawned: s(600), started: Some(s(610)), healthy_until: None, died: None };
    let mut world = World::new(Policy::default());
    world.unanswered = |effect| matches!(effect, Effect::Probe { .. });
    world.lease = acquired(History { generation: 3, runs: vec![], left: Some(left) });
    (world.remains, world.script) = (Remains::Leader { pid: 103, differs: None }, UP);
    world.send(Event::Start);
    world.run_for(s(1));
    let readiness = Some(Readiness { ready: true, detail: String::new() });
    let sighting = Observation { readiness, ..sighting(STARTED, stranger()) };
    world.send(Event::Probed { ticket: world.ticket(), sighting });
    assert_eq!((world.notices(), world.told("readiness.changed")), (vec![], vec![]));
}

fn says(ready: bool, detail: &str) -> Readiness {
    Readiness { ready, detail: detail.to_owned() }
}

#[test]
fn a_change_of_readiness_is_told_once_shown_and_never_acted_on() {
    let mut world = World::started(UP);
    world.readiness = Some(says(true, "ok"));
    world.run_for(s(60));
    world.readiness = Some(says(false, "telegram: 401"));
    world.run_for(s(86_400));
    world.readiness = Some(says(false, "discord: 500"));
    world.run_for(s(60));
    let shown = world.core.status(world.now).gateway.and_then(|gateway| gateway.readiness);
    assert_eq!(shown, Some(says(false, "discord: 500")), "the newest words");
    world.readiness = None;
    world.run_for(s(60));
    world.readiness = Some(says(true, "ok"));
    world.run_for(s(60));
    let told = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Report(Report::ReadinessChanged { readiness, .. }) => Some(readiness.ready),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    assert_eq!(told, [true, false, true]);
    assert_eq!((world.notices(), world.spawns().len(), world.kills()), (vec![Ready], 1, vec![]));
    assert!(world.when(|effect| matches!(effect, Effect::Terminate { .. } | Effect::Examine { .. })).is_empty());
}

#[test]
fn what_the_last_gateway_said_of_its_readiness_is_not_said_of_the_next() {
    let mut world = World::started(UP);
    world.readiness = Some(says(false, "telegram: 401"));
    world.run_for(s(200));
    world.leader_exits(1, CRASH);
    (world.readiness, world.script) = (None, NEVER_UP);
    world.run_for(s(10));
    let shown = world.core.status(world.now).gateway.map(|gateway| gateway.readiness);
    assert_eq!(shown, Some(None));
    world.send(Event::Requested { request: Request::Stop, by: by("SIGTERM") });
}

#[test]
fn a_gateway_whose_owner_cannot_be_seen_is_ready_all_the_same() {
    let mut world = World::started(NEVER_UP);
    world.unanswered = |effect| matches!(effect, Effect::Probe { .. });
    world.run_for(s(20));
    world.send(Event::Probed { ticket: world.ticket(), sighting: sighting(STARTED, Owner::Unseen) });
    assert_eq!(world.notices(), [Ready]);
}

/// `systemctl restart` returns, and `STATUS` says what is waited for.
#[test]
fn a_start_that_is_minutes_off_is_no_reason_to_keep_the_manager_waiting() {
    let mut world = World::new(Policy::default());
    let run = |at: u64| {
        let at = s(at);
        let run = Run { started: Some(at), healthy_until: at, ended: at, clean: false };
        PastRun { spawned: at, settled: Settled::Ran(run, Cause::Failed), death: CRASH }
    };
    world.lease = acquired(History { generation: 3, runs: vec![run(900), run(920), run(940)], ..History::default() });
    world.send(Event::Start);
    world.run_for(s(1));
    assert_eq!((world.notices(), world.spawns().len()), (vec![Ready], 0));
    assert!(world.core.status(world.now).wait() > Some(s(100)));
    world.run_for(s(400));
    assert_eq!(world.notices(), [Ready, Ready], "and once more when a gateway serves");
}

#[test]
fn a_short_wait_is_part_of_the_start() {
    let mut world = World::started(Script::dying(s(1), CRASH));
    world.run_for(Duration::from_millis(1200));
    assert!(world.core.status(world.now).wait().is_some());
    assert_eq!(world.notices(), []);
}
