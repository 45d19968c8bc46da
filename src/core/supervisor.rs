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
//! What comes after `Stopping` is decided by an intent (stop, detach, restart) before everything else, then what the
//! death meant, then the restart policy. The next spawn waits for the whole tree of the last one to be gone and for a
//! probe that found the port free; there is no other way to `Spawning`.
//!
//! Hooks stand in between, in `Hooking`: the pre-start hook after a look that found the port free, and before another
//! one; the post-stop hook when the tree is gone, before the next step is decided. And before a hanging gateway is
//! ended, the evidence is collected in `Examining`.

mod adoption;
mod confirmation;
mod contention;
mod deadline;
mod endpoint;
mod evidence;
mod exits;
mod fence;
mod health;
mod hooks;
mod installer;
mod launcher;
mod lease;
mod notify;
mod paced;
mod pause;
mod port;
mod recovery;
mod requests;
mod spawn;
mod standby;
mod state;
mod status;
mod stop;

use super::conflict::Watch;
use super::effect::{Effect, Outcome, ProbeScope};
use super::event::{Event, Fingerprint, Request, Requester, SpawnFailure};
use super::fault::Fault;
use super::handoff::Handoffs;
use super::intent::Intent;
use super::probe_history::ProbeHistory;
use super::report::{Exited, Report};
use super::restart_policy::{Plan, RestartPolicy, Run};
use super::{Generation, Moment, Notice, Observation, Owner, Policy, Readiness, Usage, exit};
use crate::prelude::*;
use core::time::Duration;
use state::{
    Confirmation, EvidenceFound, Fence, LauncherExit, Lost, Merged, Paused, Poll, ProbePurpose, Repair, State, Streak,
    Update,
};

/// A step that comes this much after its deadline means that we stood still: a paused VM or a SIGSTOP. Half a window
/// of the shortest default would be 30 s; a busy machine delays a timer by seconds at most.
pub const LATE: Duration = Duration::from_secs(10);

/// A smaller difference between the boot-time and the monotonic clock is noise of reading them one after the other.
pub const JUMP_MIN: Duration = Duration::from_secs(1);

/// A manager is not kept waiting for a start that waits for at least this long: it is told that we are ready, and what we wait
/// for. A shorter wait is part of a boot, which takes 5 s and more.
pub const TOLD_WAIT_MIN: Duration = Duration::from_secs(10);

/// Why a forced start does not wait.
const FORCED: &str = "as asked, at once (--force)";

/// How long after the end of a tree a look for processes that have left it may go on; it takes some 150 ms. A longer one
/// waits for a process in an uninterruptible sleep.
const SWEEP_TIME_MAX: Duration = Duration::from_secs(2);

/// The effects of one step, in order.
pub type Effects = Vec<Effect>;

/// The machine. Feed it with [`Supervisor::step`] and wake it at [`Supervisor::deadline`].
#[derive(Debug, Clone)]
pub struct Supervisor {
    policy: Policy,
    state: State,
    intent: Intent,
    merged: Merged,
    paused: Option<Paused>,
    /// The youngest generation. Events that speak of another one are dropped.
    generation: Generation,
    /// The youngest probe. Answers to another one are dropped.
    ticket: u64,
    /// When we were last found to have stood still.
    awake_since: Moment,
    restarts: RestartPolicy,
    /// The epoch of the lease, while it is ours.
    lease: Option<u64>,
    /// How far the store vouches for it.
    confirmation: Confirmation,
    /// Another supervisor has it.
    lost: Option<Lost>,
    /// What cannot be undone waits here.
    fence: Fence,
    /// Until then the shell may look for processes that have left the last tree.
    swept_by: Moment,
    /// This supervisor has decided to start a gateway: what follows is not a predecessor's.
    spawned: bool,
    /// Why what a predecessor recorded could not be read.
    unread: Option<String>,
    /// A process of ours came to life: the program can be executed.
    born: bool,
    /// What the last probe saw.
    told: Option<Observation>,
    /// The last process that bore our mark and could not be found when it was looked for.
    lost_mark: Option<i32>,
    /// The process that was started has exited, and what it has left is being looked for.
    launcher: Option<LauncherExit>,
    /// How often that has been so for the present gateway.
    follows: u8,
    /// COMMAND was seen to be the gateway itself: what it leaves when it exits is no gateway.
    leads_itself: bool,
    /// What was lately seen of the present gateway.
    trail: ProbeHistory,
    /// What its `/readyz` said last.
    readiness: Option<Readiness>,
    /// Gateways that were replaced for `--memory-max`.
    memory_restarts: u32,
    /// Exits that wait for their handoff verdict.
    handoffs: Handoffs,
    /// The configuration and the program, as they were at the last spawn.
    fingerprint: Option<Fingerprint>,
    /// Deaths that look like one another.
    streak: Option<Streak>,
    /// The program is being replaced.
    update: Option<Update>,
    repair: Repair,
    /// The file that the gateway writes to in place of our standard output and error.
    output: Option<String>,
    /// Processes that the last kill of a tree left.
    strays: Vec<String>,
    /// The installations that the last kill of a tree has cut short.
    cut_short: Vec<String>,
    /// What the service manager was told last.
    notice: Option<Notice>,
    /// The gateway that it was last told to be ready.
    readied: Option<Generation>,
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
            merged: Merged::default(),
            paused: None,
            generation: 0,
            ticket: 0,
            awake_since: Moment::ZERO,
            restarts,
            lease: None,
            confirmation: Confirmation::new(),
            lost: None,
            fence: Fence::new(),
            swept_by: Moment::ZERO,
            spawned: false,
            unread: None,
            born: false,
            told: None,
            lost_mark: None,
            launcher: None,
            follows: 0,
            leads_itself: false,
            trail: ProbeHistory::default(),
            readiness: None,
            memory_restarts: 0,
            handoffs: Handoffs::default(),
            fingerprint: None,
            streak: None,
            update: None,
            repair: Repair::Untried,
            output: None,
            strays: Vec::new(),
            cut_short: Vec::new(),
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
        let late = self.stood_still(now);
        if let Event::ClockJumped { by } = &event {
            self.note_sleep(*by);
            self.shorten_pause(*by);
        }
        // Nothing else is done before this, but news that it depends on is taken in first.
        let is_news = matches!(
            event,
            Event::LeaseConfirmed { .. }
                | Event::LeaseLost { .. }
                | Event::LeaderExited { .. }
                | Event::HeirSought { .. }
                | Event::TreeGone { .. }
                // The drain that begins now has this time.
                | Event::StopBudget { .. }
        );
        if !is_news {
            self.check_confirmation(now, fx);
        }
        if let Some(late) = late {
            self.on_clock_jumped(now, late, fx);
        }
        if event
            .generation()
            .is_some_and(|generation| generation != self.generation && !self.has(Fault::StaleGenerationKept))
        {
            // The time of a lost or unconfirmed lease may be over, and this may be the first event since.
            self.check_confirmation(now, fx);
            return self.end_lost(now, fx);
        }
        let is_tick = event == Event::Tick;
        match event {
            Event::Start => self.on_start(now, fx),
            Event::Tick => self.on_tick(now, fx),
            Event::Leased { ticket, answer } => self.on_leased(now, ticket, answer, fx),
            Event::OwnerAsked { ticket, plan } => self.on_owner_asked(now, ticket, plan, fx),
            Event::LeaseLost { owner, why } => self.on_lease_lost(now, owner, why, fx),
            Event::LeaseConfirmed { age } => self.note_confirmation(now, age, fx),
            Event::StoreFailed { why } => self.on_store_failed(why, fx),
            Event::StoreReturned => self.on_store_returned(fx),
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
            Event::HeirSought { pid, .. } => self.on_heir_sought(now, pid, fx),
            Event::Measured { sample, .. } => self.on_measured(now, sample, fx),
            Event::Examined { evidence, conclusion, .. } => {
                self.on_examined(now, EvidenceFound { evidence, conclusion }, fx);
            }
            Event::TreeGone { end, .. } => self.on_tree_gone(now, end, fx),
            Event::StraysKilled { generation, end } => self.tell_strays(generation, end, fx),
            Event::SweepFinished => self.finish_sweep(fx),
            Event::HookEnded { ticket, end } => self.on_hook_ended(now, ticket, &end, fx),
            Event::Negotiated { support } => self.on_negotiated(now, &support, fx),
            Event::Consumed { ticket, word } => self.on_consumed(now, ticket, &word, fx),
            Event::OutputMoved { to } => self.on_output_moved(to, fx),
            Event::StopBudget { timeout } => self.policy.stop_timeout = timeout,
            Event::PauseRequested { pause, by } => self.on_pause_requested(now, pause, &by, fx),
            Event::Requested { request, by } => self.on_requested(now, request, by, fx),
            Event::ClockJumped { by } => self.on_clock_jumped(now, by, fx),
        }
        // A gateway may just have come to life.
        self.check_confirmation(now, fx);
        if is_tick {
            self.tick_merged(now, fx);
        }
        self.hasten_merged(now);
        self.end_lost(now, fx);
    }

    /// The gateway of which the shell has to keep the process, or what is left of its tree.
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
        let Some(poll) = self.state.poll_mut() else { return };
        if !poll.answered_by(ticket) && !self.has(Fault::StaleTicketKept) {
            return;
        }
        let sighting = &*self.follow(sighting, fx);
        self.tell_verdict(sighting, fx);
        self.trail.see(now, sighting);
        match &self.state {
            State::Probing { .. } => self.judge_port(now, sighting, fx),
            State::Starting { .. } => self.judge_boot(now, sighting, fx),
            State::Running { .. } => self.judge_liveness(now, sighting, fx),
            State::Stopping(_) => self.judge_drain(now, sighting, fx),
            State::Standby(standby) => {
                let behind = standby.behind;
                self.judge_neighbour(now, behind, sighting, fx);
            }
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

    /// Sends a probe for the present state.
    fn probe(&mut self, now: Moment, ask: ProbeScope, fx: &mut Effects) {
        if let Some(ticket) = self.begin_poll(now) {
            fx.push(Effect::Probe { ticket, ask });
        }
    }

    /// The ticket of the next question of the present state, noted in its poll. `None` in a state that asks nothing.
    fn begin_poll(&mut self, now: Moment) -> Option<u64> {
        let poll = self.state.poll_mut()?;
        self.ticket += 1;
        *poll = Poll::Asked { ticket: self.ticket, at: now };
        Some(self.ticket)
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
        (self.trail, self.readiness, self.follows) = (ProbeHistory::default(), None, 0);
    }

    fn on_output_moved(&mut self, to: Option<String>, fx: &mut Effects) {
        if self.output != to && !self.state.is_over() {
            self.output.clone_from(&to);
            fx.push(Effect::Report(Report::OutputMoved { to }));
        }
    }

    /// Where a person finds what the gateway said.
    fn messages(&self) -> String {
        self.output.as_ref().map_or_else(|| self.policy.messages.clone(), |file| format!("in {file}"))
    }

    /// Follows a plan of the restart policy.
    fn follow_plan(&mut self, now: Moment, plan: Plan, death: &str, fx: &mut Effects) {
        match plan {
            Plan::Start { .. } if self.is_forced() => self.start_at(now, now, FORCED, fx),
            Plan::Start { at, why, after_failure } => self.start_after(now, at, &why, after_failure, fx),
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
                    "gave up after {restarts} restart{plural} within {}: the last gateway {death}; see the gateway's output \
                     {}; fix the cause, then start again, or raise --max-restarts",
                    super::report::human(window),
                    self.messages()
                );
                let max_restarts = self.policy.max_restarts;
                fx.push(Effect::Report(Report::RestartGaveUp { restarts, max_restarts, window, why: why.clone() }));
                self.exit(now, exit::GAVE_UP, why, fx);
            }
        }
    }

    fn start_at(&mut self, now: Moment, at: Moment, why: &str, fx: &mut Effects) {
        self.start_after(now, at, why, false, fx);
    }

    fn start_after(&mut self, now: Moment, at: Moment, why: &str, after_failure: bool, fx: &mut Effects) {
        let end = self.after_pause(at);
        let delay = end.saturating_sub(now);
        let pause = self.pause_reason().filter(|_| end > at).map(|pause| format!("{pause}; "));
        let told = format!("{}{why}", pause.unwrap_or_default());
        let pace = Box::new(self.restarts.facts(now, &self.policy));
        fx.push(Effect::Report(Report::RestartScheduled { delay, why: told, after_failure, pace }));
        if delay.is_zero() {
            self.look_at_port(now, ProbePurpose::Nothing, fx);
        } else {
            self.state = State::BackingOff { until: at, why: why.to_owned() };
            if delay >= TOLD_WAIT_MIN {
                self.tell_waiting(fx);
            }
        }
    }

    /// Ends, once a search for strays that is under way is over: no later one would find them.
    pub(super) fn exit(&mut self, now: Moment, code: u8, reason: String, fx: &mut Effects) {
        self.tell_stopping(fx);
        (self.handoffs, self.launcher) = (Handoffs::default(), None);
        self.fence.take_back();
        let outcome = self.take_lost().unwrap_or(Outcome { code, reason });
        // A gateway that goes on is looked at for the record.
        if now < self.swept_by || self.lease.is_some() && self.holds().is_some() {
            fx.push(Effect::FinishSweep);
            self.state = State::Sweeping { outcome, until: now.saturating_add(SWEEP_TIME_MAX) };
        } else {
            self.state = State::Exited;
            fx.push(Effect::Exit(outcome));
        }
    }

    /// The look for strays is over, or has had its time.
    pub(super) fn finish_sweep(&mut self, fx: &mut Effects) {
        if let State::Sweeping { outcome, .. } = &mut self.state {
            let outcome = core::mem::replace(outcome, Outcome { code: 0, reason: String::new() });
            self.state = State::Exited;
            fx.push(Effect::Exit(outcome));
        }
    }
}

/// Why a second stop request cuts a drain short.
const TWICE: &str = "asked to stop a second time";

fn sooner(one: Moment, other: Option<Moment>) -> Moment {
    other.map_or(one, |other| one.min(other))
}
