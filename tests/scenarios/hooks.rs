//! Hooks: before a start, after an end, never while a gateway runs.

use crate::world::{CRASH, HookScript, KILLED, STARTED, Script, World, acquired, owner, s, tree_end};
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::{
    Call, Contested, Effect, Event, ExitStatus, ExitUsage, Fact, Generation, History, Hook, HookEnd, Layer,
    LeaseAnswer, PastRun, Policy, Remains, Report, Request, Settled, TreeEnd, Unfinished, Verdict,
};
use std::time::Duration;

const MS: Duration = Duration::from_millis(1);
const DONE: HookEnd = HookEnd::Ended(ExitStatus::Code(0));

fn before() -> Policy {
    Policy { pre_start: Some(s(15)), ..Policy::default() }
}

fn after() -> Policy {
    Policy { post_stop: Some(s(15)), ..Policy::default() }
}

fn both() -> Policy {
    Policy { post_stop: Some(s(15)), ..before() }
}

/// A supervisor with this policy and these hooks, just after its start.
fn begun(policy: Policy, hook: HookScript) -> World {
    let mut world = World::new(policy);
    world.hook = hook;
    world.send(Event::Start);
    world.run_for(MS * 10);
    world
}

/// A world whose post-stop hook runs after a crash.
fn crashed(hook: HookScript) -> World {
    let mut world = World::started_with(after(), Script { boots_in: Duration::ZERO, ..Script::default() });
    world.hook = hook;
    world.run_for(s(10));
    world.leader_exits(1, CRASH);
    world.run_for(MS * 10);
    assert_eq!(world.core.status(world.now).state, "post_stop");
    world
}

fn pre_starts(world: &World) -> Vec<Generation> {
    let calls = world.calls().into_iter().filter(|(_, call)| call.hook() == Hook::PreStart);
    calls.map(|(_, call)| call.generation()).collect()
}

fn ended(world: &World) -> Vec<Duration> {
    world.when(|effect| matches!(effect, Effect::EndHook { .. }))
}

fn killed(world: &World) -> Vec<Duration> {
    world.when(|effect| matches!(effect, Effect::KillHook { .. }))
}

fn unborn(world: &World) -> Vec<Generation> {
    let facts = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Remember { generation, fact: Fact::Settled(Settled::NeverStarted) } => Some(*generation),
        _ => None,
    });
    facts.collect()
}

fn causes_on_record(world: &World) -> Vec<Cause> {
    let facts = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Remember { fact: Fact::Settled(Settled::Ran(_, cause)), .. } => Some(*cause),
        _ => None,
    });
    facts.collect()
}

fn scheduled(world: &World) -> Vec<Duration> {
    let delays = world.effects.iter().filter_map(|(_, effect)| match effect {
        Effect::Report(Report::RestartScheduled { delay, .. }) => Some(*delay),
        _ => None,
    });
    delays.collect()
}

/// A gateway that an earlier supervisor left.
fn left(died: Option<(ExitStatus, Duration)>) -> LeaseAnswer {
    let left = Unfinished { generation: 7, spawned: s(900), started: Some(s(910)), healthy_until: None, died };
    acquired(History { generation: 7, runs: vec![], left: Some(left) })
}

#[test]
fn the_pre_start_hook_comes_before_each_spawn_and_between_two_looks_at_the_port() {
    let mut world = begun(before(), HookScript::ending(s(2), 0));
    world.script = Script::dying(s(200), CRASH);
    world.run_for(s(500));
    assert_eq!(pre_starts(&world), [1, 2, 3]);
    for (spawn, (call, _)) in world.spawns().into_iter().zip(world.calls()) {
        assert!(spawn >= call + s(2), "the start waits for the hook");
        let looks = world.probes().into_iter().filter(|at| (call..=spawn).contains(at)).count();
        assert!(looks >= 1, "and for another look at the port");
    }
    assert_eq!(
        world.names()[..5],
        ["hook.started", "hook.finished", "gateway.spawned", "gateway.listening", "gateway.started"]
    );
}

#[test]
fn no_pre_start_hook_is_called_where_no_start_follows() {
    let mut conflict = World::new(before());
    conflict.port = Some(STARTED);
    conflict.send(Event::Start);
    conflict.run_for(s(5));
    assert_eq!(conflict.outcome().0, 78);

    let mut contended = World::new(before());
    contended.lease = LeaseAnswer::Contended { owner: Some(owner(55)), what: Contested::Lease };
    contended.send(Event::Start);
    assert_eq!(contended.outcome().0, 78);

    let mut adopted = World::new(before());
    adopted.lease = left(None);
    adopted.remains = Remains::Leader { pid: 107, differs: None };
    adopted.send(Event::Start);
    adopted.run_for(s(60));
    assert_eq!(adopted.told("gateway.adopted").len(), 1);

    let mut waiting = World::new(before());
    waiting.port = Some(Verdict::Draining);
    waiting.send(Event::Start);
    waiting.run_for(s(60));
    assert_eq!(waiting.exit(), None);

    let mut gated = World::new(Policy { boot_limit: 1, ..before() });
    let mut runs = Vec::new();
    for spawned in [800, 900] {
        let run = openclaw_supervise_core::restart_policy::Run {
            started: Some(s(spawned)),
            healthy_until: s(spawned),
            ended: s(spawned + 1),
            clean: false,
        };
        runs.push(PastRun { spawned: s(spawned), settled: Settled::Ran(run, Cause::Asked), death: CRASH });
    }
    gated.lease = acquired(History { generation: 2, runs, left: None });
    gated.send(Event::Start);
    gated.run_for(s(50));
    assert_eq!(gated.core.status(gated.now).state, "backing_off");
    gated.run_for(s(60));
    assert_eq!(pre_starts(&gated), [3], "once the limit of unclean boots allows a start");

    for world in [conflict, contended, adopted, waiting] {
        assert_eq!((world.calls(), world.spawns()), (vec![], vec![]));
    }
}

#[test]
fn a_pre_start_hook_that_is_not_called_because_of_an_update_costs_nothing_and_is_called_once_that_is_over() {
    let postponed = HookEnd::Postponed("package.json is missing".to_owned());
    let mut world = begun(before(), HookScript { ends: Some((MS, postponed)), ..HookScript::endless() });
    world.run_for(s(100));
    assert_eq!((world.spawns().len(), world.exit()), (0, None));
    assert_eq!(world.core.status(world.now).restarts, 0);
    assert!(unborn(&world).is_empty());
    assert!(world.told("gateway.spawn_failed").len() > 4, "1, 2, 4, 8, 16 and 30 s between the looks");
    world.hook = HookScript::ending(MS, 0);
    world.run_for(s(60));
    assert_eq!((world.spawns().len(), world.told("gateway.started").len()), (1, 1));
    assert_eq!(world.core.status(world.now).restarts, 0);
}

#[test]
fn an_update_that_keeps_a_hook_from_being_called_is_not_waited_for_without_end() {
    let postponed = HookEnd::Postponed("package.json is missing".to_owned());
    let mut world = begun(before(), HookScript { ends: Some((MS, postponed)), ..HookScript::endless() });
    world.run_for(s(7200));
    let (code, reason) = world.outcome();
    assert_eq!((code, world.spawns().len()), (69, 0), "{reason}");
    assert!(reason.contains("was not called: package.json is missing"), "{reason}");
}

#[test]
fn a_pre_start_hook_that_fails_or_takes_too_long_costs_the_start_and_the_budget_and_ends_with_69() {
    let endless = HookScript { hears: None, ..HookScript::endless() };
    let missing =
        HookScript { ends: Some((MS, HookEnd::NotStarted("no such file".to_owned()))), ..HookScript::endless() };
    let table = [
        (HookScript::ending(MS, 3), "its pre-start hook ended with exit code 3"),
        (missing, "its pre-start hook could not be started: no such file"),
        (endless, "its pre-start hook took longer than 15s"),
    ];
    for (hook, words) in table {
        let mut world = begun(before(), hook);
        world.run_for(s(3600));
        let (code, reason) = world.outcome();
        assert_eq!(code, 69, "{reason}");
        assert!(reason.contains(words), "{reason}");
        assert_eq!((world.spawns().len(), pre_starts(&world)), (0, vec![1, 2, 3, 4, 5, 6, 7]));
        assert_eq!(unborn(&world), [1, 2, 3, 4, 5, 6, 7], "each is on record");
        let pauses: Vec<_> = world.calls().windows(2).map(|pair| pair[1].0.saturating_sub(pair[0].0)).collect();
        assert!(pauses[0] >= MS * 500 && pauses[5] >= s(16), "{pauses:?}");
    }
}

#[test]
fn a_hook_that_exits_with_0_after_its_time_was_over_has_failed() {
    let slow = HookScript { ends: Some((s(16), DONE)), hears: None, dies: None };
    let mut world = begun(before(), slow);
    world.run_for(s(17));
    assert_eq!((world.spawns().len(), unborn(&world)), (0, vec![1]));
    assert_eq!(world.told("hook.timed_out").len(), 1);
}

#[test]
fn a_spent_budget_does_not_become_a_loop_where_only_hooks_fail() {
    let mut first = begun(before(), HookScript::ending(MS, 1));
    first.run_for(s(3600));
    let spawned: Vec<_> = first.calls().into_iter().map(|(at, _)| at).collect();
    let runs =
        spawned.into_iter().map(|spawned| PastRun { spawned, settled: Settled::NeverStarted, death: CRASH }).collect();
    // A manager starts us again at once.
    let mut second = World::new(before());
    second.now = first.now + s(1);
    second.hook = HookScript::ending(MS, 1);
    second.lease = acquired(History { generation: 7, runs, left: None });
    second.send(Event::Start);
    second.run_for(s(250));
    assert_eq!((second.calls().len(), second.exit()), (0, None), "one trial each --backoff-max");
    second.run_for(s(60));
    assert_eq!((second.calls().len(), second.outcome().0), (1, 69));
}

#[test]
fn a_port_taken_during_the_hook_costs_no_spawn_and_the_hook_is_called_again_once_it_is_free() {
    let mut world = begun(before(), HookScript::ending(s(5), 0));
    world.port = Some(Verdict::Silent);
    world.run_for(s(20));
    assert_eq!((world.calls().len(), world.spawns().len(), world.exit()), (1, 0, None));
    world.port = None;
    world.run_for(s(30));
    assert_eq!(pre_starts(&world), [1, 1], "it is one gateway, prepared twice");
    assert_eq!((world.spawns().len(), unborn(&world)), (1, vec![]));

    let mut world = begun(before(), HookScript::ending(s(5), 0));
    world.port = Some(STARTED);
    world.run_for(s(20));
    assert_eq!((world.outcome().0, world.spawns().len()), (78, 0));
}

#[test]
fn a_stop_or_a_detach_ends_the_pre_start_hook_and_then_us() {
    for request in [Request::Stop, Request::Detach] {
        let mut world = begun(before(), HookScript { hears: None, dies: None, ..HookScript::endless() });
        let asked = world.now;
        world.request(request);
        world.run_for(s(60));
        let (code, reason) = world.outcome();
        assert_eq!(code, 0, "{reason}");
        assert!(reason.contains("no gateway was running"), "{reason}");
        assert_eq!((ended(&world), killed(&world)), (vec![asked], vec![asked + s(5)]));
        assert_eq!(world.now, asked + s(5) + s(15), "what survives SIGKILL is not waited for");
        assert_eq!((world.spawns().len(), unborn(&world)), (0, vec![]), "it was interrupted: no failure of its own");
        assert_eq!(world.told("hook.finished").len(), 1);
    }
}

#[test]
fn a_second_stop_kills_the_pre_start_hook_at_once() {
    let mut world = begun(before(), HookScript { hears: None, ..HookScript::endless() });
    world.request(Request::Stop);
    world.run_for(s(1));
    assert_eq!(killed(&world), []);
    world.request(Request::Stop);
    assert_eq!(killed(&world), [world.now]);
    world.run_for(s(1));
    assert_eq!(world.outcome().0, 0);
}

#[test]
fn a_restart_or_a_retry_during_the_pre_start_hook_changes_nothing() {
    for request in [Request::Restart, Request::Retry] {
        let mut world = begun(before(), HookScript::ending(s(5), 0));
        for _ in 0..3 {
            world.request(request);
        }
        world.run_for(s(60));
        assert_eq!((world.calls().len(), world.spawns().len(), ended(&world)), (1, 1, vec![]));
        assert_eq!(world.told("gateway.exited"), [], "the start that was asked for is this one");
    }
}

#[test]
fn the_post_stop_hook_follows_each_end_once_and_before_whatever_comes_next() {
    type End = fn(&mut World);
    let table: [(&str, End); 4] = [
        ("crashed", |world| world.leader_exits(1, CRASH)),
        ("hung", |world| {
            world.port = Some(Verdict::Silent);
            world.run_for(s(90));
            world.port = None;
        }),
        ("stop requested", |world| world.request(Request::Stop)),
        ("restart requested", |world| world.request(Request::Restart)),
    ];
    for (cause, end) in table {
        let mut world = World::started_with(after(), Script { boots_in: Duration::ZERO, ..Script::default() });
        world.hook = HookScript::ending(s(3), 1);
        world.run_for(s(10));
        end(&mut world);
        world.run_for(s(60));
        let calls = world.calls();
        let [(called, Call::PostStop { generation: 1, pid: 101, reason, .. })] = calls[..] else {
            panic!("{cause}: {calls:?}")
        };
        assert_eq!((reason, world.causes()), (cause, vec![cause]));
        assert!(called >= world.told("gateway.exited")[0]);
        let next = world.exit().map(|_| world.now).or(world.spawns().get(1).copied());
        assert!(next.is_some_and(|next| next >= called + s(3)), "{cause}: it is waited for, and its failure is told");
        assert_eq!(world.told("hook.finished"), [called + s(3)]);
    }
}

#[test]
fn a_gateway_that_was_lost_while_no_supervisor_ran_has_its_post_stop_hook_too() {
    let died = (ExitStatus::Code(9), s(950));
    let table = [
        (None, Remains::Nothing { pid: Some(107) }, ExitStatus::Unknown),
        (None, Remains::Orphans { pid: Some(107) }, ExitStatus::Unknown),
        (Some(died), Remains::Nothing { pid: Some(107) }, died.0),
    ];
    for (died, remains, death) in table {
        let mut world = World::new(both());
        world.lease = left(died);
        world.remains = remains;
        world.send(Event::Start);
        world.run_for(s(60));
        let reason = "ended while no supervisor ran";
        let told: Vec<_> = world.calls().into_iter().map(|(_, call)| call).collect();
        let expected = [Call::PostStop { generation: 7, pid: 107, reason, death }, Call::PreStart { generation: 8 }];
        assert_eq!(told, expected);
        assert_eq!(world.spawns().len(), 1);
    }
}

#[test]
fn no_post_stop_hook_is_called_for_what_never_ran() {
    let mut world = World::new(after());
    world.lease = left(None);
    world.remains = Remains::Nothing { pid: None };
    world.send(Event::Start);
    world.run_for(s(60));
    assert_eq!((world.calls(), world.spawns().len()), (vec![], 1));
}

#[test]
fn a_refusal_to_start_is_judged_after_the_post_stop_hook() {
    let mut world = World::started_with(after(), Script::dying(s(1), ExitStatus::Code(78)));
    world.run_for(s(60));
    assert_eq!((world.outcome().0, world.calls().len(), world.spawns().len()), (78, 1, 1));
}

#[test]
fn a_restart_asked_for_in_the_post_stop_hook_of_a_crash_leaves_the_crash_a_crash_and_starts_at_once() {
    let mut world = crashed(HookScript::ending(s(5), 0));
    world.request(Request::Restart);
    world.run_for(s(6));
    assert_eq!((causes_on_record(&world), scheduled(&world)), (vec![Cause::Failed], vec![Duration::ZERO]));
    assert_eq!((world.spawns().len(), world.core.status(world.now).restarts), (2, 1));
    // Without the request it would have waited, and a spent budget would have ended us.
    let mut world = World::started_with(Policy { max_restarts: 0, ..after() }, Script::dying(s(20), CRASH));
    world.hook = HookScript::ending(s(5), 0);
    world.run_for(s(22));
    world.script = Script::default();
    world.request(Request::Restart);
    world.run_for(s(20));
    assert_eq!((world.exit(), world.spawns().len()), (None, 2), "a requested restart does not end in giving up");
}

#[test]
fn the_limit_of_unclean_boots_outranks_a_restart_asked_for_in_a_post_stop_hook() {
    let mut world = World::started_with(Policy { boot_limit: 1, ..after() }, Script::serving(s(1), CRASH));
    world.hook = HookScript::ending(s(5), 0);
    world.run_for(s(30));
    assert_eq!(world.core.status(world.now).state, "backing_off");
    let mut world = World::started_with(Policy { boot_limit: 1, ..after() }, Script::serving(s(1), CRASH));
    world.hook = HookScript::ending(s(5), 0);
    world.run_for(s(1));
    while world.calls().len() < 2 {
        world.run_for(MS * 100);
    }
    world.request(Request::Restart);
    world.run_for(s(10));
    assert_eq!((world.core.status(world.now).state, world.spawns().len()), ("backing_off", 2));
}

#[test]
fn a_stop_lets_the_post_stop_hook_finish_and_a_second_stop_kills_it() {
    let mut world = crashed(HookScript::ending(s(5), 0));
    world.request(Request::Stop);
    world.run_for(s(4));
    assert_eq!((world.exit(), ended(&world), killed(&world)), (None, vec![], vec![]));
    world.run_for(s(2));
    assert_eq!((world.outcome().0, causes_on_record(&world)), (0, vec![Cause::Failed]));

    let mut world = crashed(HookScript::endless());
    world.request(Request::Stop);
    world.run_for(s(1));
    world.request(Request::Stop);
    assert_eq!(killed(&world), [world.now]);
    world.run_for(s(1));
    assert_eq!((world.outcome().0, world.told("stop.requested").len()), (0, 1));
}

#[test]
fn a_third_stop_kills_the_post_stop_hook() {
    let mut world = World::started_with(after(), Script { drain: None, ..Script::default() });
    world.hook = HookScript::endless();
    world.run_for(s(10));
    world.request(Request::Stop);
    world.request(Request::Stop);
    world.run_for(s(1));
    assert_eq!((world.calls().len(), killed(&world)), (1, vec![]), "it has its time all the same");
    world.request(Request::Stop);
    assert_eq!(killed(&world), [world.now]);
    world.run_for(s(1));
    assert_eq!(world.outcome().0, 0);
}

#[test]
fn a_hook_that_survives_sigkill_is_waited_for_within_a_bound() {
    let deaf = HookScript { hears: None, dies: None, ..HookScript::endless() };
    let mut world = crashed(deaf.clone());
    let called = world.calls()[0].0;
    world.run_for(s(60));
    assert_eq!(world.told("hook.timed_out"), [called + s(15)]);
    assert_eq!((ended(&world), killed(&world)), (vec![called + s(15)], vec![called + s(20)]));
    assert_eq!(world.told("hook.finished"), [called + s(35)]);
    assert_eq!(world.spawns().len(), 2, "the next gateway starts");

    let mut world = crashed(deaf);
    world.request(Request::Stop);
    world.run_for(s(60));
    assert_eq!((world.outcome().0, world.now), (0, called + s(35)));
}

#[test]
fn a_hook_that_hears_sigterm_is_not_killed() {
    let mut world = begun(before(), HookScript { hears: Some(s(4)), ..HookScript::endless() });
    world.run_for(s(19) + MS * 500);
    assert_eq!((ended(&world).len(), killed(&world), unborn(&world)), (1, vec![], vec![1]));
}

#[test]
fn a_lost_lease_during_a_hook_kills_it_and_exits_with_78_once_it_is_gone() {
    let lost = || Event::LeaseLost { owner: Some(owner(55)), why: "taken by hand".to_owned() };
    for mut world in [
        begun(before(), HookScript { dies: Some(s(3)), ..HookScript::endless() }),
        crashed(HookScript { dies: Some(s(3)), ..HookScript::endless() }),
    ] {
        world.send(lost());
        assert_eq!((killed(&world), world.exit()), (vec![world.now], None));
        world.request(Request::Restart);
        world.run_for(s(4));
        let (code, reason) = world.outcome();
        assert_eq!(code, 78);
        assert!(reason.contains("pid 55"), "{reason}");
        assert_eq!((causes_on_record(&world), unborn(&world)), (vec![], vec![]), "nothing is ours to record");
        assert_eq!(world.told("hook.finished").len(), 1);
    }
}

#[test]
fn after_a_suspend_a_hook_has_its_time_again() {
    let mut world = begun(before(), HookScript::endless());
    world.run_for(s(14));
    world.send(Event::ClockJumped { by: s(3600) });
    let jumped = world.now;
    world.run_for(s(14));
    assert_eq!(ended(&world), []);
    world.run_for(s(2));
    assert_eq!(ended(&world), [jumped + s(15)]);
}

#[test]
fn an_answer_about_an_older_hook_changes_nothing() {
    let mut world = begun(before(), HookScript::ending(s(5), 0));
    let ticket = world.hook_ticket();
    let (effects, state) = (world.effects.len(), format!("{:?}", world.core));
    for ticket in [ticket - 1, ticket + 1] {
        world.send(Event::HookEnded { ticket, end: DONE });
    }
    assert_eq!((world.effects.len(), format!("{:?}", world.core)), (effects, state));
    world.run_for(s(20));
    let effects = world.effects.len();
    world.send(Event::HookEnded { ticket, end: DONE });
    assert_eq!(world.effects.len(), effects);
}

#[test]
fn the_status_names_the_hook_that_runs_and_how_long_it_may_still_take() {
    let mut world = begun(before(), HookScript::endless());
    world.run_for(s(5));
    let status = world.core.status(world.now);
    assert_eq!((status.state, status.gateway.is_none()), ("pre_start", true));
    assert_eq!((status.next.action, status.next.why.as_str()), ("start a gateway", "the pre-start hook runs"));
    assert!(status.next.within.is_some_and(|within| within > s(9) && within < s(11)));

    let world = crashed(HookScript::endless());
    let status = world.core.status(world.now);
    assert_eq!((status.state, status.gateway.is_none(), status.generation), ("post_stop", true, 1));
    assert_eq!(status.next.why, "the post-stop hook runs");
    assert!(status.next.within.is_some_and(|within| within <= s(15)));
}

#[test]
fn an_oom_kill_is_reported_as_out_of_memory() {
    let mut world = World::serving();
    world.send(Event::LeaderExited {
        generation: 1,
        death: KILLED,
        toll: ExitUsage { oom_killed: true, ..ExitUsage::default() },
    });
    assert_eq!(world.causes(), ["killed by the kernel OOM killer"]);
    // A gateway that is OOM-killed during its requested drain has ended as requested.
    let mut world = World::serving();
    world.request(Request::Stop);
    world.send(Event::LeaderExited {
        generation: 1,
        death: KILLED,
        toll: ExitUsage { oom_killed: true, ..ExitUsage::default() },
    });
    assert_eq!(world.causes(), ["stop requested"]);
}

#[test]
fn strays_of_any_generation_are_reported_and_change_nothing() {
    let mut world = World::started(Script::dying(s(100), CRASH));
    world.run_for(s(110));
    let (state, told) = (format!("{:?}", world.core), world.told("tree.killed").len());
    let strays = TreeEnd { members: 2, found_by: vec![(Layer::Instance, 2)], ..TreeEnd::default() };
    world.send(Event::StraysKilled { generation: 1, end: strays.clone() });
    assert_eq!((format!("{:?}", world.core), world.told("tree.killed").len()), (state, told + 1));
    world.send(Event::StraysKilled { generation: 1, end: tree_end(0) });
    assert_eq!(world.told("tree.killed").len(), told + 1, "nothing found, nothing reported");
    world.request(Request::Stop);
    world.run_for(s(20));
    let effects = world.effects.len();
    world.send(Event::StraysKilled { generation: 1, end: strays });
    assert_eq!(world.effects.len(), effects, "nothing comes after the exit");
}
