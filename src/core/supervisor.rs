//! The life of one supervisor, as a state machine.
//!
//! ```text
//! Idle -> Leasing --contended--> Exited | Standby --quiet--> Leasing
//!            | ours                 (conflict)
//!            v
//!         Adopting --alive--> Starting | Running
//!            | nothing left
//!            v
//!         Probing --free--> Spawning -> Starting --started--> Running
//!          ^  |  \--held: bounded looks--> Exited | Standby     |
//!          |  '--- verdict on an exit 78 or a silent 0 ---.     | hung, asked, exited
//!          |                                              v     v
//!      BackingOff <--------- plan of the restart policy -- Stopping --tree gone--> Exited
//! ```
//!
//! Who decides what comes after `Stopping`: an intent (stop, detach, restart) before everything else, then what the
//! death meant, then the restart policy. The next spawn waits for the whole tree of the last one to be gone and for a
//! probe that found the port free; there is no other way to `Spawning`.
//!
//! Hooks stand in between, in `Hooking`: the pre-start hook after a look that found the port free, and before another
//! one; the post-stop hook when the tree is gone, before anybody decides what comes next. And a gateway that is to be
//! ended for its health is looked at first, in `Examining`.

mod adopting;
mod clearing;
mod conclusion;
mod end;
mod examining;
mod exits;
mod fence;
mod hooks;
mod lease;
mod notify;
mod poll;
mod probing;
mod requests;
mod running;
mod spawn;
mod standby;
mod status;
mod stopping;
mod time;

use super::conflict::Watch;
use super::effect::{Effect, Outcome, ProbeScope};
use super::event::{Event, Fingerprint, Request, Requester, SpawnFailure};
use super::fault::Fault;
use super::handoff::Handoffs;
use super::intent::Intent;
use super::liveness::Liveness;
use super::probe_history::ProbeHistory;
use super::report::{Exited, Report};
use super::restart_policy::{Plan, RestartPolicy, Run};
use super::{Generation, Moment, Notice, Observation, Owner, Policy, Readiness, Usage, Verdict, exit};
use crate::prelude::*;
use adopting::Adopting;
use clearing::Clearing;
use core::time::Duration;
use examining::Examining;
use exits::{Held, Repair, Streak, Update};
use fence::Fence;
use hooks::Hooking;
use lease::Seen;
use poll::Poll;
use spawn::Spawning;
use standby::Standby;
use stopping::Stopping;

/// A step that comes this much after its deadline means that we stood still: a paused VM or a SIGSTOP. Half a window
/// of the shortest default would be 30 s; a busy machine delays a timer by seconds at most.
pub const LATE: Duration = Duration::from_secs(10);

/// A probe answers within its timeout; one that is this much over it will never answer.
const ANSWER_LOST: Duration = Duration::from_secs(5);

/// A smaller difference between the boot-time and the monotonic clock is noise of reading them one after the other.
pub const JUMP_MIN: Duration = Duration::from_secs(1);

/// The effects of one step, in order.
pub type Effects = Vec<Effect>;

/// The machine. Feed it with [`Supervisor::step`] and wake it at [`Supervisor::deadline`].
#[derive(Debug, Clone)]
pub struct Supervisor {
    policy: Policy,
    state: State,
    intent: Intent,
    /// The youngest generation. Events that speak of another one are dropped.
    generation: Generation,
    /// The youngest probe. Answers to another one are dropped.
    ticket: u64,
    /// When we were last found to have stood still.
    awake_since: Moment,
    restarts: RestartPolicy,
    /// The epoch of the lease, while it is ours.
    lease: Option<u64>,
    /// What cannot be undone waits here.
    fence: Fence,
    /// Until then the shell may look for processes that have left the last tree.
    swept_by: Moment,
    /// The start of a gateway was decided here, so that what comes of it is not the doing of a predecessor.
    spawned: bool,
    /// A process of ours came to life: the program can be executed.
    born: bool,
    /// What the last probe saw.
    told: Option<Observation>,
    /// The last process that bore our mark and could not be found when it was looked for.
    lost_mark: Option<i32>,
    /// What was lately seen of the present gateway.
    trail: ProbeHistory,
    /// What its `/readyz` said last.
    readiness: Option<Readiness>,
    /// Gateways that were replaced for `--memory-max`.
    memory_restarts: u32,
    /// Exits whose meaning is not known yet.
    handoffs: Handoffs,
    /// The configuration and the program, as they were at the last spawn.
    fingerprint: Option<Fingerprint>,
    /// Deaths that look like one another.
    streak: Option<Streak>,
    /// The program is being replaced.
    update: Option<Update>,
    repair: Repair,
    /// What the service manager was told last.
    notice: Option<Notice>,
    /// The gateway that it was last told to be ready.
    readied: Option<Generation>,
}

#[derive(Debug, Clone)]
enum State {
    /// Before `Event::Start`.
    Idle,
    /// Is another supervisor in charge? `seen` is the counter of one that cannot be seen itself.
    Leasing { poll: Poll, seen: Option<Seen> },
    /// The shell ends the hooks that a predecessor left.
    Clearing(Clearing),
    /// Somebody else is, and we wait for his end.
    Standby(Standby),
    /// The shell looks for the gateway of a predecessor.
    Adopting(Adopting),
    /// Whose is the port?
    Probing { poll: Poll, watch: Watch, judging: ProbePurpose },
    /// Nothing runs; the next start is planned.
    BackingOff { until: Moment, why: String },
    /// Nothing runs, and the budget is spent: the word about the last exit decides whether there is a next start.
    Awaiting(Held),
    /// A hook runs: before a spawn, or after an end.
    Hooking(Hooking),
    /// The spawn waits for its record, or the shell is creating the process.
    Spawning(Spawning),
    /// The process lives and has not come up yet. `armed` is when its budget began.
    Starting { child: Child, poll: Poll, armed: Moment, failed: u32, listening: bool },
    /// It has come up.
    /// `excess` counts the samples in a row that were over the limit of memory.
    Running { child: Child, poll: Poll, started: Moment, liveness: Liveness, stable: bool, excess: u32 },
    /// It hangs; what may tell why is being written down.
    Examining(Examining),
    /// It is being ended, or has ended and its tree is being cleared away.
    Stopping(Stopping),
    /// All is decided; the shell still looks for processes that have left the last tree.
    Sweeping { outcome: Outcome, until: Moment },
    /// After `Effect::Exit`.
    Exited,
}

/// What a probe of the port has to settle besides whether it is free.
#[derive(Debug, Clone, Copy)]
enum ProbePurpose {
    Nothing,
    /// The gateway exited with 78: somebody else's port, or its configuration?
    Refusal(Run),
    /// The pre-start hook has done its work: nobody may have come meanwhile.
    Prepared,
    /// The gateway exited with 0 before it ever answered: "I did not start", as older releases say of a duplicate.
    Unstarted(Run),
}

#[derive(Debug, Clone, Copy)]
struct Child {
    pid: i32,
    spawned: Moment,
    /// Another supervisor started it.
    adopted: bool,
    /// It has answered, though it may not have come up yet.
    answered: bool,
    /// The process of its tree that listens, where that was seen: a launcher need not exec the gateway.
    listener: Option<i32>,
}

impl Child {
    fn new(pid: i32, spawned: Moment, adopted: bool) -> Self {
        Self { pid, spawned, adopted, answered: false, listener: None }
    }

    /// Takes in an answer of its own.
    fn note_answer(&mut self, sighting: &Observation) {
        if let Verdict::Gateway(_) | Verdict::Draining = sighting.verdict {
            match &sighting.owner {
                Owner::Ours(holder) => (self.answered, self.listener) = (true, Some(holder.pid)),
                Owner::Unseen => self.answered = true,
                Owner::Other(_) => {}
            }
        }
    }
}

impl Supervisor {
    /// A supervisor that has not begun.
    #[must_use]
    pub fn new(policy: Policy) -> Self {
        let restarts = RestartPolicy::new(policy.seed);
        Self {
            policy,
            state: State::Idle,
            intent: Intent::Run,
            generation: 0,
            ticket: 0,
            awake_since: Moment::ZERO,
            restarts,
            lease: None,
            fence: Fence::new(),
            swept_by: Moment::ZERO,
            spawned: false,
            born: false,
            told: None,
            lost_mark: None,
            trail: ProbeHistory::default(),
            readiness: None,
            memory_restarts: 0,
            handoffs: Handoffs::default(),
            fingerprint: None,
            streak: None,
            update: None,
            repair: Repair::Untried,
            notice: None,
            readied: None,
        }
    }

    /// One with a mistake in it, for the tests of the tests.
    #[cfg(feature = "planted-faults")]
    #[must_use]
    pub fn with_fault(policy: Policy, fault: Fault) -> Self {
        Self::new(Policy { planted: fault.into(), ..policy })
    }

    fn has(&self, fault: Fault) -> bool {
        self.policy.planted.is(fault)
    }

    /// Takes in one event at the monotonic time `now` and appends what has to be done to `fx`.
    pub fn step(&mut self, now: Moment, event: Event, fx: &mut Effects) {
        if let Some(late) = self.stood_still(now) {
            self.on_clock_jumped(now, late, fx);
        }
        if event
            .generation()
            .is_some_and(|generation| generation != self.generation && !self.has(Fault::StaleGenerationKept))
        {
            return;
        }
        match event {
            Event::Start => self.on_start(now, fx),
            Event::Tick => self.on_tick(now, fx),
            Event::Leased { ticket, answer } => self.on_leased(now, ticket, answer, fx),
            Event::LeaseLost { owner, why } => self.on_lease_lost(now, owner, why, fx),
            Event::HooksCleared { trouble } => self.on_hooks_cleared(now, trouble, fx),
            Event::Adopted { remains, .. } => self.on_adopted(now, remains, fx),
            Event::AdoptFailed { why, .. } => self.on_adopt_failed(now, why, fx),
            Event::Departed { pid } => self.on_departed(now, pid, fx),
            Event::Probed { ticket, sighting } => self.on_probed(now, ticket, &sighting, fx),
            Event::Recorded { generation } => self.on_recorded(now, generation, fx),
            Event::Confirmed { ticket } => self.on_confirmed(now, ticket, fx),
            Event::Spawned { pid, fingerprint, .. } => self.on_spawned(now, pid, fingerprint, fx),
            Event::SpawnFailed { failure, .. } => self.on_spawn_failed(now, &failure, fx),
            Event::LeaderExited { death, toll, .. } => self.on_leader_exited(now, death, toll, fx),
            Event::Measured { sample, .. } => self.on_measured(now, sample, fx),
            Event::Examined { evidence, .. } => self.on_examined(now, evidence, fx),
            Event::TreeGone { end, .. } => self.on_tree_gone(now, end, fx),
            Event::StraysKilled { generation, end } => self.tell_strays(generation, end, fx),
            Event::SweepFinished => self.finish_sweep(fx),
            Event::HookEnded { ticket, end } => self.on_hook_ended(now, ticket, &end, fx),
            Event::Negotiated { support } => self.on_negotiated(now, &support, fx),
            Event::Consumed { ticket, word } => self.on_consumed(now, ticket, &word, fx),
            Event::StopBudget { timeout } => self.policy.stop_timeout = timeout,
            Event::Requested { request, by } => self.on_requested(now, request, by, fx),
            Event::ClockJumped { by } => {
                self.fence.note_sleep(by);
                self.on_clock_jumped(now, by, fx);
            }
        }
    }

    /// The gateway whose process, or what is left of its tree, the shell has to hold on to.
    #[must_use]
    pub fn holds(&self) -> Option<Generation> {
        match &self.state {
            State::Adopting(_)
            | State::Spawning(_)
            | State::Starting { .. }
            | State::Running { .. }
            | State::Examining(_)
            | State::Stopping(_) => Some(self.generation),
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Sweeping { .. }
            | State::Exited => None,
        }
    }

    /// The youngest gateway; 0 before the first.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The epoch of the lease, while it is ours.
    #[must_use]
    pub fn lease(&self) -> Option<u64> {
        self.lease
    }

    fn on_start(&mut self, now: Moment, fx: &mut Effects) {
        if matches!(self.state, State::Idle) {
            self.begin_leasing(now, fx);
        }
    }

    fn on_probed(&mut self, now: Moment, ticket: u64, sighting: &Observation, fx: &mut Effects) {
        let poll = match &self.state {
            State::Probing { poll, .. } | State::Starting { poll, .. } | State::Running { poll, .. } => *poll,
            State::Stopping(stopping) => stopping.poll,
            State::Standby(standby) => standby.poll,
            State::Examining(examining) => examining.poll,
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Adopting(_)
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Sweeping { .. }
            | State::Exited => return,
        };
        if !poll.answered_by(ticket) && !self.has(Fault::StaleTicketKept) {
            return;
        }
        self.tell_verdict(sighting, fx);
        self.trail.see(now, sighting);
        match &self.state {
            State::Probing { .. } => self.judge_port(now, sighting, fx),
            State::Starting { .. } => self.judge_boot(now, sighting, fx),
            State::Running { .. } => self.judge_liveness(now, sighting, fx),
            State::Stopping(_) => self.judge_drain(now, sighting, fx),
            State::Standby(_) => self.judge_neighbour(now, sighting, fx),
            State::Examining(_) => self.reconsider(now, sighting, fx),
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Adopting(_)
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Sweeping { .. }
            | State::Exited => {}
        }
        self.tell_readiness(sighting, fx);
    }

    /// Sends a probe for the present state and notes it in its poll.
    fn probe(&mut self, now: Moment, ask: ProbeScope, fx: &mut Effects) {
        self.ticket += 1;
        let asked = Poll::Asked { ticket: self.ticket, at: now };
        match &mut self.state {
            State::Probing { poll, .. } | State::Starting { poll, .. } | State::Running { poll, .. } => *poll = asked,
            State::Stopping(stopping) => stopping.poll = asked,
            State::Standby(standby) => standby.poll = asked,
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Adopting(_)
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Examining(_)
            | State::Sweeping { .. }
            | State::Exited => return,
        }
        fx.push(Effect::Probe { ticket: self.ticket, ask });
    }

    fn tell_verdict(&mut self, sighting: &Observation, fx: &mut Effects) {
        let to = sighting.verdict;
        let from = self.told.replace(sighting.clone()).map(|before| before.verdict);
        if from.is_none_or(|from| from.name() != to.name()) {
            fx.push(Effect::Report(Report::VerdictChanged { from, to, detail: sighting.detail.clone() }));
        }
    }

    fn tell_readiness(&mut self, sighting: &Observation, fx: &mut Effects) {
        let (State::Running { .. }, Some(readiness)) = (&self.state, &sighting.readiness) else { return };
        if matches!(sighting.owner, Owner::Other(_)) {
            return;
        }
        let before = self.readiness.replace(readiness.clone());
        if before.is_none_or(|before| before.ready != readiness.ready) {
            let (generation, readiness) = (self.generation, readiness.clone());
            fx.push(Effect::Report(Report::ReadinessChanged { generation, readiness }));
        }
    }

    /// Another gateway is there: what was seen of the one before is of no use.
    fn begin_trail(&mut self) {
        (self.trail, self.readiness) = (ProbeHistory::default(), None);
    }

    /// Follows a plan of the restart policy.
    fn follow_plan(&mut self, now: Moment, plan: Plan, death: &str, fx: &mut Effects) {
        match plan {
            Plan::Start { at, why } => self.start_at(now, at, &why, fx),
            // A manager may start us again and again: what a predecessor spent must not end us as well.
            Plan::GiveUp { .. } if !self.spawned => {
                if self.policy.attended {
                    self.restarts.grant_trial();
                }
                self.look_at_port(now, ProbePurpose::Nothing, fx);
            }
            Plan::GiveUp { restarts } => {
                let window = self.policy.restart_window;
                let plural = if restarts == 1 { "" } else { "s" };
                let why = format!(
                    "gave up after {restarts} restart{plural} within {}: the last gateway {death}; its own messages stand \
                     above; mend the cause and start again, or raise --max-restarts",
                    super::report::human(window)
                );
                fx.push(Effect::Report(Report::RestartGaveUp { restarts, window, why: why.clone() }));
                self.exit(now, exit::GAVE_UP, why, fx);
            }
        }
    }

    fn start_at(&mut self, now: Moment, at: Moment, why: &str, fx: &mut Effects) {
        let delay = at.saturating_sub(now);
        fx.push(Effect::Report(Report::RestartScheduled { delay, why: why.to_owned() }));
        if delay.is_zero() {
            self.look_at_port(now, ProbePurpose::Nothing, fx);
        } else {
            self.state = State::BackingOff { until: at, why: why.to_owned() };
        }
    }
}

/// Why a drain is cut short that somebody has no patience for.
const TWICE: &str = "asked to stop a second time";

fn sooner(one: Moment, other: Option<Moment>) -> Moment {
    other.map_or(one, |other| one.min(other))
}
