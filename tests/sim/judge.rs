//! The judge: checks every step of the core against the promises.
//!
//! It sees the events and effects that a shell sees, and the world tells it which processes live. It never looks into
//! the core.

#[path = "judge/alive.rs"]
mod alive;
#[path = "judge/fence.rs"]
mod fence;
#[path = "judge/handoffs.rs"]
mod handoffs;
#[path = "judge/health.rs"]
mod health;
#[path = "judge/hooks.rs"]
mod hooks;
#[path = "judge/installer.rs"]
mod installer;
#[path = "judge/launcher.rs"]
mod launcher;
#[path = "judge/lease.rs"]
mod lease;
#[path = "judge/moves.rs"]
mod moves;
#[path = "judge/notices.rs"]
mod notices;
#[path = "judge/owned.rs"]
mod owned;
#[path = "judge/pace.rs"]
mod pace;
#[path = "judge/pause.rs"]
mod pause;
#[path = "judge/proof.rs"]
mod proof;
#[path = "judge/requests.rs"]
mod requests;
#[path = "judge/stalls.rs"]
mod stalls;
#[path = "judge/steps.rs"]
mod steps;
#[path = "judge/takeover.rs"]
mod takeover;

use crate::fake_shell::{Broken, must};
use fence::Fence;
use handoffs::Handoffs;
use health::{Duty, Health, PortWatch};
use hooks::{HookRun, PendingEnd};
use lease::LeaseState;
use notices::Manager;
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::supervisor::{JUMP_MIN, LATE};
use openclaw_supervise_core::{
    Effect, Event, ExitStatus, Fingerprint, Generation, Moment, Observation, Owner, Policy, ProbeScope, Report,
    Request, TreeEnd, Unfinished, Verdict,
};
use owned::{Ending, Owned};
use pace::{EndedRun, Forced, Pace};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use takeover::{Ended, Search};

/// The longest that the world takes to create a process, and to wake the core after its deadline.
pub(crate) const SPAWN_MAX: Duration = Duration::from_secs(1);
pub(crate) const TICK_LATE_MAX: Duration = Duration::from_secs(2);

/// The longest that a kill takes, and the report of an exit.
pub(crate) const KILL_MAX: Duration = Duration::from_secs(10);
pub(crate) const NEWS_MAX: Duration = Duration::from_secs(2);

/// One step of the core.
pub(crate) struct Turn<'a> {
    pub(crate) at: Moment,
    pub(crate) event: &'a Event,
    pub(crate) fx: &'a [Effect],
    /// The deadline before the step, and after it.
    pub(crate) before: Option<Moment>,
    pub(crate) after: Option<Moment>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Goal {
    Run,
    Restart,
    Detach,
    Stop,
    StopNow,
}

#[derive(Debug, Clone)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "independent observations of one supervisor; any combination happens"
)]
pub(crate) struct Judge {
    policy: Policy,
    ticket: u64,
    /// That of the youngest probe.
    probe: u64,
    lease: LeaseState,
    fence: Fence,
    /// Since when the exit is decided and only the sweep for stray processes runs, and whether a probe had decided it.
    sweeping: Option<(Moment, bool)>,
    asked: Option<(ProbeScope, Moment)>,
    generation: Generation,
    /// What a predecessor left, until the search for it is over.
    left: Option<Unfinished>,
    adopting: bool,
    /// The hooks of a predecessor are being killed.
    clearing: bool,
    /// When that search or that cleanup began, and whether the last attempt failed.
    search: Search,
    /// The last process with our mark that could not be found.
    missing_pid: Option<i32>,
    /// A process with our mark was not found: a pause is allowed.
    may_pause: bool,
    /// A gateway that could not be started, until that is recorded.
    never_started: Option<Generation>,
    /// The same for one that waits for an update of OpenClaw, and since when.
    postponed: Option<Generation>,
    updating: Option<Moment>,
    /// The repair hook ran, and no gateway has come up since.
    repaired: bool,
    /// No gateway was started since: a changed configuration is the work of the repair.
    repair_changed_it: bool,
    /// Of configuration and program at the last start.
    fingerprint: Option<Fingerprint>,
    /// The crash loop: the signal, and the number of fast crashes by it in a row.
    streak: Option<(i32, u32)>,
    handoffs: Handoffs,
    /// A gateway that has ended, until that is recorded.
    ended: Option<Ended>,
    /// The same, until its post-stop hook has run.
    pending_end: Option<PendingEnd>,
    /// The running hook.
    hook_run: Option<HookRun>,
    /// The pre-start hook succeeded and the port has been free since.
    prepared: bool,
    /// Why the last gateway ended, as it was reported.
    cause: Option<(Generation, &'static str)>,
    /// The first gateway ended because its command was not found.
    unfound: bool,
    /// The extra time for a stop after the timeout of a hook was restarted.
    extra_stop_time: Duration,
    spawning: bool,
    /// When the process of the spawn was asked for, and when its time last began anew.
    spawned_at: Option<(Moment, Moment)>,
    /// A gateway has been started or adopted.
    has_run: bool,
    killing: bool,
    killed_at: Option<Moment>,
    installer: installer::Installer,
    /// How long kills have been waited for that never came back.
    kills_lost: Duration,
    owned: Option<Owned>,
    goal: Goal,
    /// The end of the pause of the supervision.
    paused_until: Option<Moment>,
    shortened_at: Moment,
    /// The requested restart that waits.
    waiting: requests::Waiting,
    /// When a stop was first requested, its stop timeout, and how long the machine was suspended since.
    stop: Option<(Moment, Duration)>,
    /// When a stop or a detach was first requested.
    leaving: Option<Moment>,
    suspended: Duration,
    standstill: Duration,
    /// When the last late event came.
    awake_since: Moment,
    port: PortWatch,
    duty: Option<Duty>,
    pace: Pace,
    manager: Manager,
    alive: BTreeMap<Generation, u32>,
    reported_survivors: BTreeSet<Generation>,
    over: bool,
    ticks: VecDeque<Moment>,
    last: Moment,
    /// Since when an overdue action is missing.
    overdue: Option<Moment>,
}

impl Judge {
    pub(crate) fn new(policy: Policy) -> Self {
        Self {
            pace: Pace::new(policy.clone()),
            policy,
            ticket: 0,
            probe: 0,
            lease: LeaseState::default(),
            asked: None,
            generation: 0,
            left: None,
            adopting: false,
            clearing: false,
            fence: Fence::default(),
            sweeping: None,
            search: Search::default(),
            missing_pid: None,
            may_pause: false,
            never_started: None,
            postponed: None,
            updating: None,
            repaired: false,
            repair_changed_it: false,
            fingerprint: None,
            streak: None,
            handoffs: Handoffs::default(),
            ended: None,
            pending_end: None,
            hook_run: None,
            prepared: false,
            cause: None,
            unfound: false,
            extra_stop_time: Duration::ZERO,
            spawning: false,
            spawned_at: None,
            has_run: false,
            killing: false,
            killed_at: None,
            installer: installer::Installer::default(),
            kills_lost: Duration::ZERO,
            owned: None,
            goal: Goal::Run,
            paused_until: None,
            shortened_at: Moment::ZERO,
            waiting: requests::Waiting::default(),
            stop: None,
            leaving: None,
            suspended: Duration::ZERO,
            standstill: Duration::ZERO,
            awake_since: Moment::ZERO,
            port: PortWatch::default(),
            duty: None,
            manager: Manager::default(),
            alive: BTreeMap::new(),
            reported_survivors: BTreeSet::new(),
            over: false,
            ticks: VecDeque::new(),
            last: Moment::ZERO,
            overdue: None,
        }
    }

    pub(crate) fn note_alive(&mut self, generation: Generation, alive: u32) {
        self.alive.insert(generation, alive);
    }

    pub(crate) fn note_suspension(&mut self, time: Duration) {
        self.suspended += time;
        self.standstill += time;
        self.overdue = None;
    }

    /// The youngest ticket.
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// The youngest generation.
    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// The gateway that has come up and is not being stopped.
    pub(crate) fn serving(&self) -> Option<Generation> {
        self.owned.as_ref().filter(|owned| owned.started.is_some() && !owned.ending()).map(|owned| owned.generation)
    }

    /// Whether a stop was requested.
    pub(crate) fn stopped(&self) -> bool {
        self.goal >= Goal::Stop
    }

    /// Whether a gateway with our mark could not be found.
    pub(crate) fn looked_in_vain(&self) -> bool {
        self.missing_pid.is_some()
    }

    /// Whether the exit is decided.
    fn ends(&self) -> bool {
        self.over || self.sweeping.is_some()
    }

    /// Whether the core has exited.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether it is in standby.
    pub(crate) fn stands_by(&self) -> bool {
        self.lease.stands_by()
    }

    /// Whether an event is out of date, so that it must change nothing.
    pub(crate) fn is_stale(&self, at: Moment, event: &Event) -> bool {
        match event {
            // Any event may be the first one after that.
            _ if self.is_confirmation_due(at) => false,
            Event::Tick | Event::ClockJumped { .. } | Event::StopBudget { .. } | Event::StraysKilled { .. }
                if self.sweeping.is_some() =>
            {
                self.over
            }
            Event::SweepFinished => self.over || self.sweeping.is_none(),
            _ if self.ends() => true,
            Event::HooksCleared { .. } => !self.clearing,
            Event::Recorded { generation } => !self.fence.records(*generation) && !self.fence.is_unavailable(),
            Event::Confirmed { ticket } => !self.fence.awaits(*ticket),
            Event::Probed { ticket, .. } => *ticket != self.probe || self.asked.is_none(),
            Event::Leased { ticket, .. } => self.lease.asked.is_none_or(|(asked, _)| asked != *ticket),
            Event::OwnerAsked { ticket, .. } => self.lease.owner_asked.is_none_or(|(asked, _)| asked != *ticket),
            Event::Departed { pid } => self.lease.watches() != Some(*pid),
            Event::HookEnded { ticket, .. } => !self.awaits_hook(*ticket),
            Event::Consumed { ticket, .. } => !self.handoffs.awaits(*ticket),
            Event::Examined { .. }
                if self.owned.as_ref().is_none_or(|owned| owned.examining.is_none() && owned.weighing.is_none()) =>
            {
                true
            }
            Event::AdoptFailed { .. } if !self.adopting => true,
            other => other.generation().is_some_and(|generation| generation != self.generation),
        }
    }

    /// Whether a shell could send this event now.
    pub(crate) fn is_lawful(&self, at: Moment, event: &Event, deadline: Option<Moment>) -> bool {
        let slack = TICK_LATE_MAX + self.standstill;
        if !self.over && at > self.last && deadline.is_some_and(|deadline| at > deadline.saturating_add(slack)) {
            return false;
        }
        self.is_expected(event, deadline.is_some_and(|deadline| deadline <= at))
    }

    /// Whether this answers an effect, or duplicates such an answer.
    pub(crate) fn is_expected(&self, event: &Event, due: bool) -> bool {
        let young = event.generation() == Some(self.generation);
        match event {
            Event::Spawned { .. } | Event::SpawnFailed { .. } if young => self.spawning && !self.fence.waits(),
            Event::Recorded { .. } if young => self.spawning,
            Event::Confirmed { ticket } => *ticket <= self.fence.ticket(),
            Event::HooksCleared { .. } => self.clearing,
            Event::SweepFinished => self.sweeping.is_some(),
            Event::TreeGone { .. } if young => self.killing,
            Event::HeirSought { .. } if young => self.owned.as_ref().is_some_and(|owned| owned.launcher.is_some()),
            Event::LeaderExited { .. } if young => self.owned.as_ref().is_some_and(|owned| owned.death.is_none()),
            Event::Adopted { .. } | Event::AdoptFailed { .. } if young => self.adopting,
            Event::Measured { .. } | Event::Examined { .. } if young => self.owned.is_some(),
            Event::Probed { ticket, .. }
            | Event::Leased { ticket, .. }
            | Event::OwnerAsked { ticket, .. }
            | Event::Consumed { ticket, .. }
            | Event::HookEnded { ticket, .. } => *ticket <= self.ticket,
            Event::Negotiated { .. } => self.handoffs.negotiating(),
            Event::StraysKilled { generation, .. } => *generation <= self.generation,
            Event::Tick => due,
            other => other.generation().is_none_or(|generation| generation < self.generation),
        }
    }

    pub(crate) fn judge(&mut self, turn: &Turn<'_>) -> Result<(), Broken> {
        let at = turn.at;
        if self.over {
            return must(turn.fx.is_empty() && turn.after.is_none(), "exit", "an effect or a deadline after the exit");
        }
        if let Some((decided, answered)) = self.sweeping {
            return self.judge_sweep(turn, decided, answered);
        }
        // Only the first event after a suspension counts as late, however old the deadline is.
        let due = turn.before.map(|before| before.max(self.awake_since));
        let late = due.and_then(|due| at.checked_sub(due)).is_some_and(|late| late >= LATE);
        self.awake_since = if late { at } else { self.awake_since };
        if late || matches!(turn.event, Event::ClockJumped { by } if *by >= JUMP_MIN) {
            self.rearm(at);
        }
        self.shorten_pause(at, turn.event);
        if turn.after.is_none_or(|after| after > at) {
            self.standstill = Duration::ZERO;
        }
        let was = matches!(turn.event, Event::Requested { .. }).then(|| self.owned.clone()).flatten();
        let exit = self.exit_of(turn);
        let dies = exit.is_some();
        let ends = turn.fx.iter().filter(|effect| matches!(effect, Effect::Report(Report::GatewayExited(_)))).count();
        let loses = self.loses(turn.event);
        must(!(dies || loses) || ends == 1, "P9", "an exit is reported once")?;
        let unseen =
            turn.fx.iter().filter(|effect| matches!(effect, Effect::Report(Report::GatewayUnseen { .. }))).count();
        let loses_sight = self.loses_sight(turn.event);
        must(unseen == usize::from(loses_sight), "P9", "a gateway out of sight is reported once, and no other is")?;
        must(!loses_sight || ends == 0, "P9", "an end is reported that was not seen")?;
        self.last = at;
        if let Some(owned) = &mut self.owned {
            owned.decided = false;
        }
        self.fence.note(at, turn.event);
        self.shorten_end(at);
        self.note_lease_event(at, turn.event);
        // The search for what its launcher has left may end because its time to drain is over.
        let cut = turn.fx.iter().any(|effect| matches!(effect, Effect::Report(Report::StopEscalated { .. })));
        self.note_exit(at, exit, cut);
        self.drop_late_answer(at, turn.event);
        let answer = if self.judge_pace_of(turn)? { self.note(at, turn.event) } else { None };
        self.judge_installers(turn)?;
        let leaves = dies && self.goal == Goal::Run && self.owned.as_ref().is_some_and(Owned::may_have_successor);
        let kills = turn.fx.iter().any(|effect| matches!(effect, Effect::KillTree { .. }));
        must(!(leaves && kills) || self.must_hurry(turn), "P3", "a tree is killed before the search for a successor")?;
        for effect in turn.fx {
            must(!self.ends(), "exit", "the exit is the last effect")?;
            self.judge_effect(turn, effect, answer)?;
        }
        self.may_pause = false;
        self.judge_lease_turn(turn)?;
        self.judge_hooks(turn)?;
        Self::judge_record(turn)?;
        Self::judge_move(turn, answer)?;
        self.judge_answer(turn, answer)?;
        self.judge_request(turn, was.as_ref())?;
        self.judge_waiting(turn)?;
        self.judge_limit(turn)?;
        self.judge_handoffs(turn)?;
        self.judge_block(turn, answer.is_some())?;
        self.judge_time(turn)?;
        self.judge_rhythm(turn)?;
        self.judge_search(turn)?;
        self.judge_launcher(turn)?;
        self.judge_unheard(turn, answer)?;
        self.judge_fence(turn)?;
        self.judge_confirmation(turn)?;
        self.judge_notices(turn, answer)?;
        self.judge_pause(turn)?;
        self.judge_degraded(answer.is_some())?;
        self.judge_readiness(turn, answer)
    }

    fn rearm(&mut self, at: Moment) {
        self.port.rearm(at);
        self.lease.rearm(at);
        self.fence.rearm(at);
        self.search.began = at;
        self.spawned_at = self.spawned_at.map(|(since, _)| (since, at));
        // What ends us waits for an answer that is under way, and no longer.
        let leaves = self.goal >= Goal::Detach || self.lease.lost;
        let again = if leaves { (at + Duration::from_secs(1)).saturating_sub(steps::KILL_LOST) } else { at };
        self.killed_at = self.killed_at.map(|since| since.max(again));
        self.rearm_hook(at);
        self.handoffs.rearm(at);
        if let Some(owned) = &mut self.owned {
            owned.armed = at;
            owned.health.rearm(at);
            owned.life.rearm(at);
            owned.stalls.begin(at);
            owned.launcher = owned.launcher.map(|(death, _)| (death, at));
            (owned.examining, owned.excess) = (None, if owned.examining.is_some() { 0 } else { owned.excess });
        }
    }

    /// Follows the event. Gives the observation if it is the awaited answer to a probe.
    fn note<'a>(&mut self, at: Moment, event: &'a Event) -> Option<(ProbeScope, &'a Observation)> {
        let young = event.generation().is_none_or(|generation| generation == self.generation);
        match event {
            Event::Probed { ticket, sighting } if *ticket == self.probe => {
                let (ask, _) = self.asked.take()?;
                self.note_answer(at, ask, sighting);
                return Some((ask, sighting));
            }
            Event::Spawned { generation, pid, fingerprint } if young => {
                self.note_fingerprint(*fingerprint);
                self.updating = None;
                self.spawning = false;
                self.has_run = true;
                self.owned = Some(Owned::new(*generation, *pid, at));
            }
            Event::SpawnFailed { failure, .. } if young => self.note_spawn_failure(at, failure),
            Event::Adopted { generation, remains } if young => self.note_adopted(at, *generation, remains),
            Event::AdoptFailed { .. } if young => self.search.failed = true,
            Event::TreeGone { end, .. } if young => self.note_tree_gone(at, end),
            Event::Requested { request, .. } => self.note_request(at, *request),
            Event::Measured { sample, .. } if young => self.note_sample(at, sample),
            Event::Examined { .. } if young => self.note_evidence(),
            Event::Negotiated { support } => self.note_support(support),
            Event::Consumed { ticket, word } => self.note_verdict(at, *ticket, word),
            Event::StopBudget { timeout } => {
                self.policy.stop_timeout = *timeout;
                // The drain of a gateway that is not there yet will have this time.
                self.stop =
                    self.stop.map(|(since, grace)| (since, if self.owned.is_none() { *timeout } else { grace }));
            }
            Event::Start
            | Event::Tick
            | Event::Leased { .. }
            | Event::OwnerAsked { .. }
            | Event::LeaseLost { .. }
            | Event::LeaseConfirmed { .. }
            | Event::StoreFailed { .. }
            | Event::StoreReturned
            | Event::Adopted { .. }
            | Event::AdoptFailed { .. }
            | Event::HooksCleared { .. }
            | Event::Recorded { .. }
            | Event::Confirmed { .. }
            | Event::SweepFinished
            | Event::Departed { .. }
            | Event::Probed { .. }
            | Event::Spawned { .. }
            | Event::SpawnFailed { .. }
            | Event::LeaderExited { .. }
            | Event::HeirSought { .. }
            | Event::Measured { .. }
            | Event::Examined { .. }
            | Event::TreeGone { .. }
            | Event::StraysKilled { .. }
            | Event::HookEnded { .. }
            | Event::OutputMoved { .. }
            | Event::PauseRequested { .. }
            | Event::ClockJumped { .. } => {}
        }
        None
    }

    fn note_exit(&mut self, at: Moment, exit: Option<(ExitStatus, Moment)>, cut: bool) {
        if let (Some(owned), Some(_)) = (&mut self.owned, exit) {
            if !owned.ending() {
                self.asked = None;
            }
            owned.drained = owned.terminated.is_some() && !owned.killed && !owned.escalated && !cut;
            owned.death = exit;
            self.settle(at);
        }
    }

    fn note_answer(&mut self, at: Moment, ask: ProbeScope, sighting: &Observation) {
        let verdict = sighting.verdict;
        self.prepared &= matches!(verdict, Verdict::Free | Verdict::Inconclusive);
        let marked = match &sighting.owner {
            Owner::Ours(holder) if verdict != Verdict::Free => Some(holder.pid),
            Owner::Ours(_) | Owner::Other(_) | Owner::Unseen | Owner::Hidden { .. } => None,
        };
        let ours = marked.is_some() && marked != self.missing_pid;
        if let Some(owned) = self.owned.as_mut().filter(|owned| ask != ProbeScope::Port && !owned.ending()) {
            owned.note_answer(sighting);
            let late = owned.life.is_degraded() && owned.started.is_none();
            let was = owned.life.answered.is_some();
            owned.life.note(at, sighting);
            if owned.life.missed == 0 && verdict != Verdict::Inconclusive {
                owned.stalls.clear();
            }
            // A boot that answered when its time was over has that time again once it answers as a gateway does.
            // So has one that answers while the evidence is collected.
            let clears = owned.started.is_none() && owned.life.answers() && owned.examining.take().is_some();
            if clears || late && was && owned.life.answered.is_none() {
                owned.armed = at;
            }
        }
        match (ask, &mut self.owned) {
            (ProbeScope::Port, Some(owned)) if owned.may_have_successor() && self.left.is_none() => {
                let other = matches!(&sighting.owner, Owner::Ours(holder) if holder.pid != owned.pid);
                let succeeds = other && matches!(verdict, Verdict::Gateway(_)) && self.goal == Goal::Run;
                self.duty = succeeds.then_some(Duty::Succeed);
            }
            (ProbeScope::Port, _) if self.lease.stands_by() => self.note_neighbour(at, sighting, ours),
            (ProbeScope::Port, _) if ours => (self.duty, self.missing_pid) = (Some(Duty::Adopt), marked),
            (ProbeScope::Port, _) => self.duty = Some(self.port.observe(at, verdict, &self.policy)),
            (ProbeScope::Listener(_) | ProbeScope::Liveness(_), Some(owned))
                if owned.started.is_some() || owned.ending() =>
            {
                let stranger = matches!(sighting.owner, Owner::Other(_)) && verdict != Verdict::Free;
                let verdict = if stranger { Verdict::Malformed } else { verdict };
                if owned.health.failed() == 0 && verdict != Verdict::Inconclusive {
                    owned.stalls.begin(owned.health.armed());
                }
                owned.health.observe(at, verdict);
                owned.note_serving();
                // A late answer clears the hang.
                let good = matches!(verdict, Verdict::Gateway(_) | Verdict::Draining | Verdict::Foreign);
                let proven = owned.health.proven(&self.policy).is_some_and(|proven| proven <= at);
                if good && !proven && owned.examining.take().is_some() {
                    owned.excess = 0;
                }
            }
            (ProbeScope::Listener(_) | ProbeScope::Liveness(_), _) => {}
        }
    }

    fn note_tree_gone(&mut self, at: Moment, end: &TreeEnd) {
        if let Some(owned) = self.owned.as_mut().filter(|_| self.killing) {
            self.killing = false;
            let is_left = self.installer.note(at, end);
            owned.gone = !is_left && (end.survivors == 0 || owned.death.is_some());
            owned.survived = Some(at);
            self.settle(at);
        }
    }

    fn note_request(&mut self, at: Moment, request: Request) {
        let is_retry = matches!(request, Request::Retry | Request::RetryForced);
        self.unfound &= is_retry;
        let lifeless = self.is_lifeless();
        let waiting = self.spawning && self.fence.waits();
        if is_retry || matches!(request, Request::Restart | Request::RestartForced) {
            self.lease.skip_wait();
            self.start_without_verdict();
        }
        let goal = match request {
            Request::Retry | Request::RetryForced => {
                if self.goal == Goal::Run {
                    self.pace.quick.forget();
                    if request == Request::RetryForced {
                        let is_certain = lifeless && self.lease.held && !self.lease.stands_by() && !self.clearing;
                        let ends = self.owned.as_ref().is_some_and(Owned::ending);
                        let waits = self.waiting.is_for(self.generation);
                        let is_possible =
                            !self.lease.stands_by() && (lifeless || ends || waits || self.hook_run.is_some());
                        self.pace.force(match () {
                            () if is_certain => Forced::Yes,
                            () if is_possible => Forced::Maybe,
                            () => Forced::No,
                        });
                    }
                    self.waiting.hasten(at);
                }
                if lifeless && self.goal == Goal::Run {
                    self.pace.ask_again(at, self.lease.held);
                }
                return;
            }
            Request::Restart => Goal::Restart,
            Request::RestartForced => {
                if self.goal <= Goal::Restart {
                    self.force_restart();
                }
                Goal::Restart
            }
            Request::Detach => Goal::Detach,
            Request::Stop if self.goal >= Goal::Stop => Goal::StopNow,
            Request::Stop => Goal::Stop,
        };
        if goal >= Goal::Detach && waiting {
            // The start has not happened yet and is cancelled.
            (self.spawning, self.postponed) = (false, Some(self.generation));
            self.fence.take_back();
        }
        if goal >= Goal::Detach {
            self.leaving.get_or_insert(at);
        }
        if goal >= Goal::Stop && self.stop.is_none() {
            self.stop = Some((at, self.policy.stop_timeout));
            self.suspended = Duration::ZERO;
        }
        if goal == Goal::Restart && self.goal < Goal::Restart && lifeless {
            self.pace.ask_again(at, self.lease.held);
        } else if goal == Goal::Restart && self.goal < Goal::Restart && (self.spawning || self.prepares()) {
            // The requested start is under way.
        } else {
            self.goal = self.goal.max(goal);
        }
    }

    fn is_lifeless(&self) -> bool {
        self.owned.is_none() && !self.spawning && !self.adopting && self.hook_run.is_none()
    }

    /// The next start waits for nothing, also where a pause puts the restart itself off.
    fn force_restart(&mut self) {
        let is_present = self.owned.as_ref().is_some_and(|owned| !owned.ending());
        let is_certain = is_present || self.is_lifeless() && self.lease.held && !self.clearing;
        self.pace.quick.forget();
        if !self.lease.stands_by() && !self.spawning {
            self.pace.force(if is_certain { Forced::Yes } else { Forced::Maybe });
        }
    }

    /// Ends the run once the leader is dead and no other process of the tree is left.
    fn settle(&mut self, at: Moment) {
        let over = self.owned.take_if(|owned| owned.gone && owned.death.is_some());
        let Some(owned) = over else { return };
        let (limited, spawned) = (owned.is_over_limit(), owned.spawned);
        let withdrawn = owned.withdrawn || owned.requested;
        let asked_by = owned.listener.unwrap_or(owned.pid);
        let answered = owned.started.is_some() || owned.answered;
        let Owned { generation, pid, health, started, terminated, drained, lost, death: Some((death, died)), .. } =
            owned
        else {
            return;
        };
        let healthy_until = health.healthy_until.min(died);
        let healthy = started.map(|started| healthy_until.saturating_sub(started));
        let stable = healthy.is_some_and(|healthy| healthy >= self.policy.stable_after);
        let clean = match death {
            ExitStatus::Code(code) => code == 0,
            ExitStatus::Signal { .. } => false,
            ExitStatus::Unknown => drained || healthy.unwrap_or_default() >= self.policy.stable_after,
        };
        let ended_by_us = terminated.is_some();
        let age = died.saturating_sub(spawned);
        let over = EndedRun {
            settled: at,
            age,
            died,
            death,
            started,
            answered,
            stable,
            clean,
            asked: false,
            ended_by_us,
            limited,
            lost,
            withdrawn,
        };
        let unasked = self.goal == Goal::Run;
        self.ended = Some(Ended { generation, started, died, clean, cause: Cause::Failed });
        self.pending_end = Some(PendingEnd { over, pid, asked_by, unasked });
        if self.policy.post_stop.is_none() {
            self.conclude(at);
        }
        (self.port, self.asked, self.duty) = (PortWatch::default(), None, None);
    }
}
