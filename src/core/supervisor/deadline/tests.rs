use super::super::state::{
    Boot, Child, Ending, Examining, HeldExit, HookPhase, Hooking, Leader, Overuse, Rival, Search, Spawning, Standby,
    StopReason, Stopping, Then, TreePhase, WaitingFor, Was,
};
use super::*;
use crate::conflict::Watch;
use crate::event::{Contested, Request, Requester};
use crate::exit_status::ExitStatus;
use crate::handoff::Pending;
use crate::history::{Cause, Run};
use crate::hook::Call;
use crate::lease::Basis;
use crate::liveness::{Hung, Liveness};
use crate::prelude::*;
use crate::{Event, Excess, Outcome};
use std::vec;

const NOW: Moment = Duration::from_secs(1000);

fn after(seconds: u64) -> Moment {
    NOW + Duration::from_secs(seconds)
}

fn run() -> Run {
    Run { started: Some(NOW), healthy_until: NOW, ended: NOW, clean: true }
}

fn stopping(leader: Leader, tree: TreePhase, poll: Poll) -> State {
    let (child, liveness, why) = (Child::new(7, NOW, false), Liveness::new(NOW), StopReason::Asked);
    State::Stopping(Stopping {
        child,
        started: None,
        liveness,
        why,
        leader,
        tree,
        poll,
        unheard: false,
        installing: None,
    })
}

fn hooking(phase: HookPhase, then: Then) -> State {
    State::Hooking(Hooking { ticket: 1, call: Call::PreStart { generation: 1 }, began: NOW, phase, then })
}

/// Every state with every phase that waits for something else, and in how many seconds it gives that up or repeats it. None
/// of the answers that it waits for comes.
#[expect(clippy::too_many_lines, reason = "a table")]
fn table() -> Vec<(&'static str, State, Option<u64>)> {
    let asked = Poll::Asked { ticket: 1, at: NOW };
    let child = Child::new(7, NOW, false);
    let rival = |gone_by| Some(Rival { holder: None, what: Contested::Lease, gone_by });
    let standby = |poll, pid| {
        let behind = WaitingFor::Owner { pid };
        State::Standby(Standby { behind, poll, quiet_since: None, gone: None, seen: None, hasty: false })
    };
    let pending = Pending { generation: 1, pid: 7, run: run(), cause: Cause::CleanExit, at: NOW };
    let dead = Leader::Dead { death: ExitStatus::Code(1), at: NOW, drained: false, reason: "crashed" };
    let hung = Hung { last_good: Duration::ZERO, failed_probes: 3, why: "silent", limit: Duration::from_mins(1) };
    let ending = Ending {
        child,
        run: run(),
        age: Duration::ZERO,
        why: StopReason::Died,
        death: ExitStatus::Code(1),
        unasked: true,
        reason: "crashed",
        told: String::new(),
    };
    let outcome = || Outcome { code: 0, reason: String::new() };
    vec![
        ("before the start", State::Idle, None),
        ("the store is asked", State::Leasing { poll: asked, seen: None, owner: None, stop_by: None }, Some(30)),
        ("the owner is asked", State::Leasing { poll: asked, seen: None, owner: rival(None), stop_by: None }, Some(3)),
        (
            "the owner stops",
            State::Leasing { poll: Poll::Due(after(1)), seen: None, owner: rival(Some(after(9))), stop_by: None },
            Some(1),
        ),
        ("hooks are ended", State::Clearing(Clearing { left: None, heir: true, search: Search::new(NOW) }), Some(20)),
        ("the owner is watched", standby(Poll::Due(after(300)), Some(9)), Some(300)),
        ("the owner is looked for", standby(asked, None), Some(30)),
        ("a gateway is looked for", State::Adopting(Adopting { left: None, search: Search::new(NOW) }), Some(20)),
        (
            "the port is probed",
            State::Probing { poll: asked, watch: Watch::default(), judging: ProbePurpose::Nothing },
            Some(10),
        ),
        ("a delay", State::BackingOff { until: after(7), why: String::new() }, Some(7)),
        ("a verdict", State::Awaiting(HeldExit { pending, told: String::new() }), Some(40)),
        ("a hook runs", hooking(HookPhase::Running { until: after(15) }, Then::Start), Some(15)),
        (
            "a hook is killed",
            hooking(
                HookPhase::Killing { until: after(2), cut: super::super::state::Cut::TimedOut },
                Then::Conclude(Box::new(ending)),
            ),
            Some(2),
        ),
        ("a process is created", State::Spawning(Spawning { until: after(30), overdue: false }), Some(30)),
        ("a boot", State::Starting { child, poll: asked, boot: Boot::new(NOW) }, Some(10)),
        (
            "a gateway serves",
            State::Running {
                child,
                poll: asked,
                started: NOW,
                liveness: Liveness::new(NOW),
                stable: false,
                overuse: Overuse::Samples(0),
            },
            Some(10),
        ),
        (
            "what has its memory is collected",
            State::Running {
                child,
                poll: asked,
                started: NOW,
                liveness: Liveness::new(NOW),
                stable: false,
                overuse: Overuse::Proven { excess: Excess { tree_rss_kb: 2, limit_kb: 1 }, until: after(5) },
            },
            Some(5),
        ),
        (
            "evidence is collected",
            State::Examining(Examining {
                child,
                poll: asked,
                was: Was::Booting(Boot::new(NOW)),
                hung,
                until: after(5),
            }),
            Some(5),
        ),
        (
            "a drain",
            stopping(Leader::Alive, TreePhase::Draining { until: after(328), grace: Duration::from_secs(328) }, asked),
            Some(10),
        ),
        ("a successor is looked for", stopping(dead, TreePhase::Seeking { until: NOW }, asked), Some(10)),
        (
            "a kill",
            stopping(Leader::Alive, TreePhase::Killing { told: 0, until: after(30), lost: false }, asked),
            Some(30),
        ),
        (
            "a leader survived",
            stopping(Leader::Alive, TreePhase::Stubborn { again: after(5), told: 1 }, asked),
            Some(5),
        ),
        ("an installer finishes", stopping(dead, TreePhase::Installing { again: after(1) }, asked), Some(1)),
        ("news of a death", stopping(Leader::Alive, TreePhase::Gone { until: after(30) }, asked), Some(30)),
        ("strays are looked for", State::Sweeping { outcome: outcome(), until: after(1) }, Some(1)),
        ("after the end", State::Exited, None),
    ]
}

/// A supervisor in this state.
fn supervisor(state: State, basis: Basis) -> Supervisor {
    let mut core = Supervisor::new(Policy { handoff: true, ..Policy::default() });
    core.generation = 1;
    core.awake_since = NOW;
    if !matches!(state, State::Idle | State::Leasing { .. } | State::Standby(_)) {
        core.lease = Some(1);
        core.fence.enter_lease(basis);
        core.confirmation.enter_lease(NOW);
    }
    if let State::Awaiting(HeldExit { pending, .. }) = &state {
        core.handoffs.defer(pending.clone());
    }
    core.state = state;
    core
}

/// No `_`: a new state gets its row above.
fn number(state: &State) -> usize {
    match state {
        State::Idle => 0,
        State::Leasing { .. } => 1,
        State::Clearing(_) => 2,
        State::Standby(_) => 3,
        State::Adopting(_) => 4,
        State::Probing { .. } => 5,
        State::BackingOff { .. } => 6,
        State::Awaiting(_) => 7,
        State::Hooking(_) => 8,
        State::Spawning(_) => 9,
        State::Starting { .. } => 10,
        State::Running { .. } => 11,
        State::Examining(_) => 12,
        State::Stopping(_) => 13,
        State::Sweeping { .. } => 14,
        State::Exited => 15,
    }
}

#[test]
fn every_state_has_its_deadline_whatever_answer_it_waits_for() {
    let mut seen = [false; 16];
    for (name, state, seconds) in table() {
        seen[number(&state)] = true;
        assert_eq!(supervisor(state, Basis::Lock).deadline(), seconds.map(after), "{name}");
    }
    assert_eq!(seen, [true; 16]);
}

/// Sends a stop and then nothing but ticks: no effect is answered any more.
fn ends_after_stop(state: State, basis: Basis) -> Option<Moment> {
    let (mut core, mut now) = (supervisor(state, basis), NOW);
    let by = Requester { how: "SIGTERM".to_owned(), pid: None, uid: None, command: None, inside: None };
    let mut event = Event::Requested { request: Request::Stop, by };
    for _ in 0..1000 {
        let mut effects = Effects::new();
        core.step(now, event, &mut effects);
        if effects.iter().any(|effect| matches!(effect, Effect::Exit(_))) {
            return Some(now);
        }
        now = now.max(core.deadline()?);
        event = Event::Tick;
    }
    None
}

#[test]
fn a_stop_ends_every_state_in_bounded_time_though_no_answer_comes_any_more() {
    // A search, a drain, two kills that do not come back, and the news of a death.
    let most = Policy::default().stop_timeout + Duration::from_mins(3);
    for basis in [Basis::Lock, Basis::Heartbeat] {
        for (name, state, _) in table() {
            if !matches!(state, State::Idle | State::Sweeping { .. } | State::Exited) {
                let ends = ends_after_stop(state, basis);
                assert!(ends.is_some_and(|ends| ends <= NOW + most), "{name}, {basis:?}: {ends:?}");
            }
        }
    }
}
