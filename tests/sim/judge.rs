//! The promises, as one judge of every step.
//!
//! It knows what a shell knows: what was asked, what was answered. What only the world knows (which processes live) it is
//! told besides. It never looks into the core.

#[path = "judge/fence.rs"]
mod fence;
#[path = "judge/handoffs.rs"]
mod handoffs;
#[path = "judge/health.rs"]
mod health;
#[path = "judge/hooks.rs"]
mod hooks;
#[path = "judge/lease.rs"]
mod lease;
#[path = "judge/notices.rs"]
mod notices;
#[path = "judge/owned.rs"]
mod owned;
#[path = "judge/pace.rs"]
mod pace;
#[path = "judge/proof.rs"]
mod proof;
#[path = "judge/steps.rs"]
mod steps;
#[path = "judge/takeover.rs"]
mod takeover;

use crate::fake_shell::{Broken, must};
use fence::Fence;
use handoffs::Handoffs;
use health::{Duty, Health, PortWatch};
use hooks::{HookRun, Verge};
use lease::LeaseState;
use notices::Manager;
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::supervisor::{JUMP_MIN, LATE};
use openclaw_supervise_core::{
    Effect, Event, ExitStatus, Fingerprint, Generation, Moment, Observation, Owner, Policy, ProbeScope, Report,
    Request, TreeEnd, Unfinished, Verdict,
};
use owned::{Ending, Owned};
use pace::{Over, Pace};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;
use takeover::{Ended, Search};

/// The longest that the world takes to create a process, and after its deadline to wake us.
pub(crate) const SPAWN_MAX: Duration = Duration::from_secs(1);
pub(crate) const TICK_LATE_MAX: Duration = Duration::from_secs(2);

/// The longest that a kill takes, and the news of a death.
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
enum Wish {
    Run,
    Restart,
    Detach,
    Stop,
    StopNow,
}

#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "what was seen of one supervisor; any mix of it is a thing to judge")]
pub(crate) struct Judge {
    policy: Policy,
    ticket: u64,
    /// That of the youngest probe.
    probe: u64,
    lease: LeaseState,
    fence: Fence,
    /// Since when all is decided and a look for strays goes on, and whether an answer had decided it.
    sweeping: Option<(Moment, bool)>,
    asked: Option<(ProbeScope, Moment)>,
    generation: Generation,
    /// What a predecessor left, until it was looked for.
    left: Option<Unfinished>,
    adopting: bool,
    /// The hooks of a predecessor are being ended.
    clearing: bool,
    /// Since when either has been, and whether the last try failed.
    search: Search,
    /// The last process with our mark that was looked for in vain.
    lost_mark: Option<i32>,
    /// Nothing was found of what bore our mark: a pause is in order.
    pardoned: bool,
    /// A gateway that could not be started, until that is on record.
    unborn: Option<Generation>,
    /// The same for one whose program is being replaced, and since when that has been so.
    postponed: Option<Generation>,
    updating: Option<Moment>,
    /// The repair was tried, and no gateway has come up since.
    repaired: bool,
    /// No gateway was started since: what is different then is its work.
    mended: bool,
    /// Configuration and program, as they were when the last gateway was started.
    fingerprint: Option<Fingerprint>,
    /// Equal fast deaths in a row: by which signal, and how many.
    streak: Option<(i32, u32)>,
    handoffs: Handoffs,
    /// A gateway that is over, until that is on record.
    ended: Option<Ended>,
    /// The same, until it is judged: after its post-stop hook.
    verge: Option<Verge>,
    /// The hook that runs.
    hook_run: Option<HookRun>,
    /// The pre-start hook has done its work and nobody has been on the port since.
    prepared: bool,
    /// Why the last gateway ended, as it was told.
    cause: Option<(Generation, &'static str)>,
    /// How much longer a stop may take because a hook was given its time again.
    lenience: Duration,
    spawning: bool,
    /// A process of ours has come to life.
    born: bool,
    killing: bool,
    killed_at: Option<Moment>,
    owned: Option<Owned>,
    wish: Wish,
    /// When a stop was first asked for, what it was then allowed to take, and how long nobody could move since.
    stop: Option<(Moment, Duration)>,
    stood_still: Duration,
    standstill: Duration,
    /// When the last late event came.
    awake_since: Moment,
    port: PortWatch,
    duty: Option<Duty>,
    pace: Pace,
    manager: Manager,
    alive: BTreeMap<Generation, u32>,
    told_survivors: BTreeSet<Generation>,
    over: bool,
    ticks: VecDeque<Moment>,
    last: Moment,
    /// Since when something has been due and was not done.
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
            lost_mark: None,
            pardoned: false,
            unborn: None,
            postponed: None,
            updating: None,
            repaired: false,
            mended: false,
            fingerprint: None,
            streak: None,
            handoffs: Handoffs::default(),
            ended: None,
            verge: None,
            hook_run: None,
            prepared: false,
            cause: None,
            lenience: Duration::ZERO,
            spawning: false,
            born: false,
            killing: false,
            killed_at: None,
            owned: None,
            wish: Wish::Run,
            stop: None,
            stood_still: Duration::ZERO,
            standstill: Duration::ZERO,
            awake_since: Moment::ZERO,
            port: PortWatch::default(),
            duty: None,
            manager: Manager::default(),
            alive: BTreeMap::new(),
            told_survivors: BTreeSet::new(),
            over: false,
            ticks: VecDeque::new(),
            last: Moment::ZERO,
            overdue: None,
        }
    }

    pub(crate) fn note_alive(&mut self, generation: Generation, alive: u32) {
        self.alive.insert(generation, alive);
    }

    pub(crate) fn note_standstill(&mut self, time: Duration) {
        self.stood_still += time;
        self.standstill += time;
        self.overdue = None;
    }

    /// The youngest probe that was asked for.
    pub(crate) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// The youngest gateway that was asked for.
    pub(crate) fn generation(&self) -> Generation {
        self.generation
    }

    /// The gateway that has come up and is not being ended.
    pub(crate) fn serving(&self) -> Option<Generation> {
        self.owned.as_ref().filter(|owned| owned.started.is_some() && !owned.ending()).map(|owned| owned.generation)
    }

    /// Whether it was asked to end together with its gateway.
    pub(crate) fn stopped(&self) -> bool {
        self.wish >= Wish::Stop
    }

    /// Whether a gateway that bears our mark could not be found.
    pub(crate) fn looked_in_vain(&self) -> bool {
        self.lost_mark.is_some()
    }

    /// Whether all is decided.
    fn ends(&self) -> bool {
        self.over || self.sweeping.is_some()
    }

    /// Whether it has ended by itself.
    pub(crate) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether it waits beside somebody who is in charge.
    pub(crate) fn stands_by(&self) -> bool {
        self.lease.stands_by()
    }

    /// Whether an event says nothing about the present, so that it must change nothing.
    pub(crate) fn is_stale(&self, event: &Event) -> bool {
        match event {
            Event::Tick | Event::ClockJumped { .. } | Event::StopBudget { .. } | Event::StraysKilled { .. }
                if self.sweeping.is_some() =>
            {
                self.over
            }
            Event::SweepFinished => self.over || self.sweeping.is_none(),
            _ if self.ends() => true,
            Event::HooksCleared { .. } => !self.clearing,
            Event::Recorded { generation } => !self.fence.records(*generation),
            Event::Confirmed { ticket } => !self.fence.awaits(*ticket),
            Event::Probed { ticket, .. } => *ticket != self.probe || self.asked.is_none(),
            Event::Leased { ticket, .. } => self.lease.asked.is_none_or(|(asked, _)| asked != *ticket),
            Event::Departed { pid } => self.lease.watches() != Some(*pid),
            Event::HookEnded { ticket, .. } => !self.awaits_hook(*ticket),
            Event::Consumed { ticket, .. } => !self.handoffs.awaits(*ticket),
            Event::Examined { .. } if self.owned.as_ref().is_none_or(|owned| owned.examining.is_none()) => true,
            Event::AdoptFailed { .. } if !self.adopting => true,
            other => other.generation().is_some_and(|generation| generation != self.generation),
        }
    }

    /// Whether a shell could send this now.
    pub(crate) fn is_lawful(&self, at: Moment, event: &Event, deadline: Option<Moment>) -> bool {
        let slack = TICK_LATE_MAX + self.standstill;
        if !self.over && at > self.last && deadline.is_some_and(|deadline| at > deadline.saturating_add(slack)) {
            return false;
        }
        self.is_expected(event, deadline.is_some_and(|deadline| deadline <= at))
    }

    /// Whether this answers something, or is a copy of what once did.
    pub(crate) fn is_expected(&self, event: &Event, due: bool) -> bool {
        let young = event.generation() == Some(self.generation);
        match event {
            Event::Spawned { .. } | Event::SpawnFailed { .. } if young => self.spawning && !self.fence.waits(),
            Event::Recorded { .. } if young => self.spawning,
            Event::Confirmed { ticket } => *ticket <= self.fence.ticket(),
            Event::HooksCleared { .. } => self.clearing,
            Event::SweepFinished => self.sweeping.is_some(),
            Event::TreeGone { .. } if young => self.killing,
            Event::LeaderExited { .. } if young => self.owned.as_ref().is_some_and(|owned| owned.death.is_none()),
            Event::Adopted { .. } | Event::AdoptFailed { .. } if young => self.adopting,
            Event::Measured { .. } | Event::Examined { .. } if young => self.owned.is_some(),
            Event::Probed { ticket, .. }
            | Event::Leased { ticket, .. }
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
            return must(turn.fx.is_empty() && turn.after.is_none(), "exit", "something comes after the exit");
        }
        if let Some((decided, answered)) = self.sweeping {
            return self.judge_sweep(turn, decided, answered);
        }
        // Of one standstill only the first event is late, however long the deadline stays behind.
        let due = turn.before.map(|before| before.max(self.awake_since));
        let late = due.and_then(|due| at.checked_sub(due)).is_some_and(|late| late >= LATE);
        if late {
            self.awake_since = at;
        }
        if late || matches!(turn.event, Event::ClockJumped { by } if *by >= JUMP_MIN) {
            self.rearm(at);
        }
        if turn.after.is_none_or(|after| after > at) {
            self.standstill = Duration::ZERO;
        }
        let was = self.owned.clone().filter(|_| matches!(turn.event, Event::Requested { .. }));
        let dies = matches!(turn.event, Event::LeaderExited { generation, .. }
            if self.owned.as_ref().is_some_and(|owned| owned.generation == *generation && owned.death.is_none()));
        let ends = turn.fx.iter().filter(|effect| matches!(effect, Effect::Report(Report::GatewayExited(_)))).count();
        let loses = self.loses(turn.event);
        must(!(dies || loses) || ends == 1, "P9", "a death is told once")?;
        self.last = at;
        if let Some(owned) = &mut self.owned {
            owned.decided = false;
        }
        self.fence.note(at, turn.event);
        self.note_lease_event(at, turn.event);
        let answer = self.note(at, turn.event);
        let leaves = dies && self.wish == Wish::Run && self.owned.as_ref().is_some_and(Owned::may_have_successor);
        let kills = turn.fx.iter().any(|effect| matches!(effect, Effect::KillTree { .. }));
        must(
            !(leaves && kills),
            "P3",
            "nobody looks whether a gateway has left a successor before all of it is ended",
        )?;
        for effect in turn.fx {
            must(!self.ends(), "exit", "the exit is the last effect")?;
            self.judge_effect(turn, effect, answer)?;
        }
        self.pardoned = false;
        self.judge_lease_turn(turn)?;
        self.judge_hooks(turn)?;
        Self::judge_record(turn)?;
        self.judge_answer(turn, answer)?;
        self.judge_request(turn, was.as_ref())?;
        self.judge_limit(turn)?;
        self.judge_handoffs(turn)?;
        self.judge_time(turn)?;
        self.judge_rhythm(turn)?;
        self.judge_search(turn)?;
        self.judge_fence(turn)?;
        self.judge_notices(turn, answer)?;
        self.judge_readiness(turn, answer)
    }

    fn rearm(&mut self, at: Moment) {
        self.port.rearm(at);
        self.lease.rearm(at);
        self.fence.rearm(at);
        self.search.began = at;
        self.rearm_hook(at);
        self.handoffs.rearm(at);
        if let Some(owned) = &mut self.owned {
            owned.armed = at;
            owned.health.rearm(at);
            (owned.examining, owned.excess) = (None, if owned.examining.is_some() { 0 } else { owned.excess });
        }
    }

    /// Follows what the event says. Gives back the answer to a probe that was waited for.
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
                self.born = true;
                self.owned = Some(Owned::new(*generation, *pid, at));
            }
            Event::SpawnFailed { failure, .. } if young => self.note_spawn_failure(at, failure),
            Event::LeaderExited { death, .. } if young => {
                if let Some(owned) = self.owned.as_mut().filter(|owned| owned.death.is_none()) {
                    if !owned.ending() {
                        self.asked = None;
                    }
                    // While its SIGTERM waits it has not been told to end.
                    owned.drained = owned.terminated.is_some() && !owned.killed && !owned.held && !owned.escalated;
                    owned.death = Some((*death, at));
                    self.settle(at);
                }
            }
            Event::Adopted { generation, remains } if young => self.note_adopted(at, *generation, remains),
            Event::AdoptFailed { .. } if young => self.search.failed = true,
            Event::TreeGone { end, .. } if young => self.note_tree_gone(at, end),
            Event::Requested { request, .. } => self.note_wish(at, *request),
            Event::Measured { sample, .. } if young => self.note_sample(at, *sample),
            Event::Examined { .. } if young => self.note_evidence(),
            Event::Negotiated { support } => self.note_support(support),
            Event::Consumed { ticket, word } => self.note_word(at, *ticket, word),
            Event::StopBudget { timeout } => self.policy.stop_timeout = *timeout,
            Event::Start
            | Event::Tick
            | Event::Leased { .. }
            | Event::LeaseLost { .. }
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
            | Event::Measured { .. }
            | Event::Examined { .. }
            | Event::TreeGone { .. }
            | Event::StraysKilled { .. }
            | Event::HookEnded { .. }
            | Event::ClockJumped { .. } => {}
        }
        None
    }

    fn note_answer(&mut self, at: Moment, ask: ProbeScope, sighting: &Observation) {
        let verdict = sighting.verdict;
        self.prepared &= matches!(verdict, Verdict::Free | Verdict::Inconclusive);
        let marked = match &sighting.owner {
            Owner::Ours(holder) if verdict != Verdict::Free => Some(holder.pid),
            Owner::Ours(_) | Owner::Other(_) | Owner::Unseen => None,
        };
        let ours = marked.is_some() && marked != self.lost_mark;
        if let Some(owned) = self.owned.as_mut().filter(|owned| ask != ProbeScope::Port && !owned.ending()) {
            owned.note_answer(sighting);
        }
        match (ask, &mut self.owned) {
            (ProbeScope::Port, Some(owned)) if owned.may_have_successor() && self.left.is_none() => {
                let other = matches!(&sighting.owner, Owner::Ours(holder) if holder.pid != owned.pid);
                let succeeds = other && matches!(verdict, Verdict::Gateway(_)) && self.wish == Wish::Run;
                self.duty = succeeds.then_some(Duty::Succeed);
            }
            (ProbeScope::Port, _) if self.lease.stands_by() => self.note_neighbour(at, sighting, ours),
            (ProbeScope::Port, _) if ours => (self.duty, self.lost_mark) = (Some(Duty::Adopt), marked),
            (ProbeScope::Port, _) => self.duty = Some(self.port.observe(at, verdict, &self.policy)),
            (ProbeScope::Listener(_) | ProbeScope::Liveness(_), Some(owned))
                if owned.started.is_some() || owned.ending() =>
            {
                let stranger = matches!(sighting.owner, Owner::Other(_)) && verdict != Verdict::Free;
                let verdict = if stranger && !owned.ending() { Verdict::Foreign } else { verdict };
                owned.health.observe(at, verdict);
                // Whoever answers after all does not hang.
                let good = matches!(verdict, Verdict::Gateway(_) | Verdict::Draining);
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
            owned.gone = end.survivors == 0 || owned.death.is_some();
            owned.survived = Some(at);
            self.settle(at);
        }
    }

    fn note_wish(&mut self, at: Moment, request: Request) {
        let lifeless = self.owned.is_none() && !self.spawning && !self.adopting && self.hook_run.is_none();
        let waiting = self.spawning && self.fence.waits();
        if matches!(request, Request::Restart | Request::Retry) {
            self.lease.hurry(at);
        }
        let wish = match request {
            Request::Retry => {
                if lifeless && self.wish == Wish::Run {
                    self.pace.ask_again(at, self.lease.held);
                }
                return;
            }
            Request::Restart => Wish::Restart,
            Request::Detach => Wish::Detach,
            Request::Stop if self.wish >= Wish::Stop => Wish::StopNow,
            Request::Stop => Wish::Stop,
        };
        if wish >= Wish::Detach && waiting {
            // The start has not happened, and does not.
            (self.spawning, self.postponed) = (false, Some(self.generation));
            self.fence.take_back();
        }
        if wish >= Wish::Stop && self.stop.is_none() {
            self.stop = Some((at, self.policy.stop_timeout));
            self.stood_still = Duration::ZERO;
        }
        if wish == Wish::Restart && self.wish < Wish::Restart && lifeless {
            self.pace.ask_again(at, self.lease.held);
        } else if wish == Wish::Restart && self.wish < Wish::Restart && (self.spawning || self.prepares()) {
            // The start that was asked for is under way.
        } else {
            self.wish = self.wish.max(wish);
        }
    }

    /// The leader is dead and nothing else is left: the run is over.
    fn settle(&mut self, at: Moment) {
        let over = self.owned.take_if(|owned| owned.gone && owned.death.is_some());
        let Some(owned) = over else { return };
        let (limited, spawned) = (owned.is_over_limit(), owned.spawned);
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
        let over = Over {
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
        };
        let unasked = self.wish == Wish::Run;
        self.ended = Some(Ended { generation, started, died, clean, cause: Cause::Failed });
        self.verge = Some(Verge { over, pid, asked_by, unasked });
        if self.policy.post_stop.is_none() {
            self.conclude(at);
        }
        (self.port, self.asked, self.duty) = (PortWatch::default(), None, None);
    }
}
