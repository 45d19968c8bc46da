//! From the first signal, or the unexpected exit, to the moment when nothing of the gateway is left.
//!
//! "The leader exited" is not "the tree is gone": the rest of the tree is killed first, and only then does the state
//! change.

use super::SWEEP_TIME_MAX;
use super::health::verdict_on_ours;
use super::state::{Child, Ending, EvidenceFound, LauncherExit, Leader, Poll, State, StopReason, Stopping, TreePhase};
use super::{
    Effect, Effects, Exited, Intent, Moment, Observation, Outcome, ProbeScope, Report, Run, Supervisor, sooner,
};
use crate::ExitStatus;
use crate::event::TreeEnd;
use crate::fault::Fault;
use crate::history::{Fact, Unfinished};
use crate::liveness::Liveness;
use crate::prelude::*;
use crate::report::human;
use crate::restart_policy::Cause;
use crate::{ExitUsage, Generation, Owner, Policy, Verdict, exit};
use core::time::Duration;

/// The pause before a process that survived SIGKILL (in an uninterruptible sleep) is tried again.
const KILL_AGAIN: Duration = Duration::from_secs(5);

/// A kill takes 10 s, and the news of a death comes at once; what takes this long is lost, and the kill is done again.
const ANSWER_LOST: Duration = Duration::from_secs(30);

/// An answer that came while we stood still is taken in first.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// How long a successor is looked at again while its process cannot be seen, and the pause in between. A search for a process
/// has 1 s; the port is in use meanwhile, so that no start is delayed.
const SEEK_TIME_MAX: Duration = Duration::from_secs(5);
const SEEK_PAUSE: Duration = Duration::from_millis(500);

/// How long what a gateway leaves has to end by SIGTERM. The next start waits for it.
const MEMBERS_GRACE: Duration = Duration::from_secs(1);

/// The gateway's exit code for a failure that a retry does not mend.
pub(super) const REFUSAL: i32 = 78;

/// The exit codes of a shell, of env(1) and of a child of ours for a program that is not found, or cannot be executed.
pub(super) const NOT_FOUND: i32 = 127;
pub(super) const NOT_EXECUTABLE: i32 = 126;

/// The cause of an end that no supervisor saw.
pub(super) const LOST: &str = "ended while no supervisor ran";

impl Stopping {
    pub(super) fn leader_lives(&self) -> bool {
        matches!(self.leader, Leader::Alive)
    }

    pub(super) fn started(&self) -> Option<Moment> {
        self.started
    }

    /// A stop (`is_ending`) waits no longer for a lost answer because the machine was suspended.
    pub(super) fn rearm(&mut self, now: Moment, is_ending: bool) {
        self.liveness.rearm(now);
        match &mut self.tree {
            TreePhase::Killing { until, .. } | TreePhase::Gone { until } if is_ending => {
                *until = (*until).max(now.saturating_add(LAST_CHANCE));
            }
            TreePhase::Killing { until, .. } | TreePhase::Gone { until } => *until = now.saturating_add(ANSWER_LOST),
            TreePhase::Seeking { until } => *until = now.saturating_add(SEEK_TIME_MAX),
            TreePhase::Draining { .. } | TreePhase::Installing { .. } | TreePhase::Stubborn { .. } => {}
        }
    }

    pub(super) fn deadline(&self, policy: &Policy) -> Moment {
        match self.tree {
            TreePhase::Draining { until, .. } => {
                sooner(until.min(self.poll.wake(policy)), self.liveness.silent_deadline(policy))
            }
            TreePhase::Installing { again } | TreePhase::Stubborn { again, .. } => again,
            TreePhase::Seeking { .. } => self.poll.wake(policy),
            TreePhase::Killing { .. } if policy.planted.is(Fault::LostKillTrusted) => Moment::MAX,
            TreePhase::Killing { until, .. } | TreePhase::Gone { until } => until,
        }
    }
}

impl Supervisor {
    /// SIGTERM on request.
    pub(super) fn begin_stop(&mut self, now: Moment, fx: &mut Effects) {
        let (child, up) = match &self.state {
            State::Starting { child, .. } => (*child, None),
            State::Running { child, started, liveness, .. } => (*child, Some((*started, liveness.clone()))),
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Adopting(_)
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Examining(_)
            | State::Stopping(_)
            | State::Sweeping { .. }
            | State::Exited => return,
        };
        self.terminate(now, child, up, StopReason::Asked, self.policy.stop_timeout, fx);
    }

    pub(super) fn terminate(
        &mut self,
        now: Moment,
        child: Child,
        up: Option<(Moment, Liveness)>,
        why: StopReason,
        grace: Duration,
        fx: &mut Effects,
    ) {
        let grace = if self.has(Fault::StopTimeoutIgnored) { Moment::MAX } else { grace };
        self.enter_stopping(
            now,
            child,
            up,
            why,
            Leader::Alive,
            TreePhase::Draining { until: now.saturating_add(grace), grace },
        );
        if let State::Stopping(stopping) = &mut self.state {
            stopping.expect_forwarding(now, self.policy.probe_interval, self.launcher.is_some());
        }
        self.act(now, Effect::Terminate { generation: self.generation }, fx);
    }

    /// SIGKILL to the whole tree.
    pub(super) fn kill(&mut self, now: Moment, told: u32, lost: bool, fx: &mut Effects) {
        let (generation, grace, strays) = (self.generation, self.grace(now), self.policy.kill_strays);
        let installers = self.installers(now);
        if let State::Stopping(stopping) = &mut self.state {
            stopping.tree = TreePhase::Killing { told, until: now.saturating_add(ANSWER_LOST), lost };
            self.act(now, Effect::KillTree { generation, grace, strays, installers }, fx);
        }
        // Nothing is followed any more.
        if let Some(LauncherExit { death, toll, .. }) = self.launcher.take() {
            self.leader_gone(now, death, toll, fx);
        }
    }

    /// How long the members have to end by SIGTERM: a stop gives them what its drain has left.
    fn grace(&self, now: Moment) -> Duration {
        let State::Stopping(Stopping { tree, .. }) = &self.state else { return Duration::ZERO };
        match tree {
            _ if self.is_hurried() => Duration::ZERO,
            TreePhase::Draining { until, .. } if matches!(self.intent, Intent::Stop(_) | Intent::StopNow(_)) => {
                until.saturating_sub(now).min(MEMBERS_GRACE)
            }
            TreePhase::Installing { .. } if matches!(self.intent, Intent::Stop(_)) => {
                self.policy.stop_timeout.min(MEMBERS_GRACE)
            }
            TreePhase::Draining { .. } | TreePhase::Seeking { .. } | TreePhase::Installing { .. } => MEMBERS_GRACE,
            TreePhase::Killing { .. } | TreePhase::Stubborn { .. } | TreePhase::Gone { .. } => Duration::ZERO,
        }
    }

    pub(super) fn is_hurried(&self) -> bool {
        let is_fenced = matches!(
            self.state,
            State::Stopping(Stopping { why: StopReason::LeaseLost | StopReason::Unconfirmed, .. })
        );
        let is_asked_twice = matches!(self.intent, Intent::StopNow(_)) && !self.has(Fault::SecondStopIsPatient);
        self.lost.is_some() || is_fenced || is_asked_twice
    }

    fn enter_stopping(
        &mut self,
        now: Moment,
        child: Child,
        up: Option<(Moment, Liveness)>,
        why: StopReason,
        leader: Leader,
        tree: TreePhase,
    ) {
        let (started, liveness) =
            up.map_or((None, Liveness::new(now)), |(started, liveness)| (Some(started), liveness));
        // Only silence during the drain cuts it short: what made it hang must not use up the time to end by itself.
        let mut liveness = liveness;
        liveness.rearm(now);
        let poll = Poll::Due(now.saturating_add(self.policy.probe_interval));
        let (unheard, installing) = (false, None);
        self.state =
            State::Stopping(Stopping { child, started, liveness, why, leader, tree, poll, unheard, installing });
    }

    pub(super) fn tick_stopping(&mut self, now: Moment, fx: &mut Effects) {
        let is_ending = self.is_ending();
        let State::Stopping(stopping) = &mut self.state else { return };
        match stopping.tree {
            TreePhase::Draining { until, .. } if until <= now => {
                self.escalate(now, "it did not end in the time that it was given", fx);
            }
            TreePhase::Draining { .. }
                if stopping.liveness.silent_deadline(&self.policy).is_some_and(|at| at <= now) =>
            {
                self.escalate(now, "it stopped answering while it drained", fx);
            }
            TreePhase::Draining { .. } if stopping.poll.wake(&self.policy) <= now => {
                // Another process may have taken the port.
                let is_unheard = stopping.unheard;
                let scope = if is_unheard { ProbeScope::Listener } else { ProbeScope::Liveness };
                self.probe(now, scope(self.generation), fx);
            }
            TreePhase::Stubborn { again, told } if again <= now => {
                self.kill(now, told, false, fx);
            }
            TreePhase::Seeking { .. } if stopping.poll.wake(&self.policy) <= now => match stopping.poll {
                Poll::Due(_) => self.probe(now, ProbeScope::Port, fx),
                Poll::Asked { .. } => self.end_seeking(now, fx),
            },
            // Nothing is started beside it, but a stop does not wait for it for ever.
            TreePhase::Killing { lost: true, until, .. } if until <= now && is_ending => {
                let left = Vec::from(["no kill of it comes back".to_owned()]);
                self.on_tree_gone(now, TreeEnd { survivors: 1, left, ..TreeEnd::default() }, fx);
            }
            TreePhase::Killing { told, until, .. } if until <= now => self.kill(now, told, true, fx),
            TreePhase::Gone { until } if until <= now => self.kill(now, 0, true, fx),
            TreePhase::Installing { again } if again <= now => self.kill(now, 0, false, fx),
            TreePhase::Draining { .. }
            | TreePhase::Seeking { .. }
            | TreePhase::Installing { .. }
            | TreePhase::Stubborn { .. }
            | TreePhase::Killing { .. }
            | TreePhase::Gone { .. } => {}
        }
    }

    pub(super) fn judge_drain(&mut self, now: Moment, sighting: &Observation, fx: &mut Effects) {
        let State::Stopping(stopping) = &mut self.state else { return };
        if let TreePhase::Seeking { .. } = stopping.tree {
            return self.judge_successor(now, sighting, fx);
        }
        stopping.liveness.observe(now, verdict_on_ours(sighting, self.policy.planted));
        stopping.poll = stopping.poll.next(now, self.policy.probe_interval);
        self.judge_forwarding(now, sighting, fx);
    }

    /// Allows a drain that has begun already no more than `most`: for a stop that is the stop timeout, for a hang's may be
    /// longer.
    pub(super) fn shorten_drain(&mut self, now: Moment, most: Duration) {
        if let State::Stopping(Stopping { tree: TreePhase::Draining { until, grace }, .. }) = &mut self.state {
            *grace = (*grace).min(most);
            *until = (*until).min(now.saturating_add(most));
        }
    }

    /// No successor and no installer is waited for any longer: the rest of the tree goes.
    pub(super) fn end_seeking(&mut self, now: Moment, fx: &mut Effects) {
        if let State::Stopping(
            stopping @ Stopping { tree: TreePhase::Seeking { .. } | TreePhase::Installing { .. }, .. },
        ) = &mut self.state
        {
            // An answer that is still under way is about what is being ended.
            stopping.poll = Poll::Due(Moment::MAX);
            self.kill(now, 0, false, fx);
        }
    }

    /// Releases before 2026.8 leave a detached successor after an update, and it answers before they exit. It is no
    /// orphan to be killed and no stranger to be fought: it is kept, as one of a predecessor would be.
    fn judge_successor(&mut self, now: Moment, sighting: &Observation, fx: &mut Effects) {
        let is_patient = self.intent == Intent::Run && !self.has(Fault::UnseenSuccessorKilled);
        let State::Stopping(stopping) = &mut self.state else { return };
        let successor = match (&sighting.owner, sighting.verdict) {
            (Owner::Ours(holder), Verdict::Gateway(_)) if holder.pid != stopping.child.pid => holder.clone(),
            // On a busy machine the search for the process takes longer than its time.
            (Owner::Unseen, Verdict::Gateway(_))
                if is_patient && matches!(stopping.tree, TreePhase::Seeking { until } if now < until) =>
            {
                stopping.poll = Poll::Due(now.saturating_add(SEEK_PAUSE));
                return;
            }
            _ => return self.end_seeking(now, fx),
        };
        if self.intent != Intent::Run || self.has(Fault::SuccessorKilled) {
            return self.end_seeking(now, fx);
        }
        // It exited with 0, even if its status is unknown: a crash leaves no successor.
        let Some(run) = self.run_of_dead().map(|run| Run { clean: true, ..run }) else { return };
        let (generation, pid) = (self.generation, successor.pid);
        fx.push(Effect::Report(Report::SuccessorFound { generation, pid, command: successor.command }));
        fx.push(Effect::Remember { generation, fact: Fact::Succeeded(run) });
        self.restarts.after_run(now, run, Cause::Asked, &self.policy);
        self.lost_mark = Some(pid);
        self.forget_merged();
        let (generation, spawned) = (generation + 1, now);
        self.seek_left(now, Unfinished { generation, spawned, started: None, healthy_until: None, died: None }, fx);
    }

    /// The run of a gateway that has exited.
    fn run_of_dead(&self) -> Option<Run> {
        let State::Stopping(Stopping { started, liveness, leader, .. }) = &self.state else { return None };
        let Leader::Dead { death, at, drained, .. } = leader else { return None };
        // An answer that was under way when it died is no health.
        let healthy_until = liveness.healthy_until().min(*at);
        let run = Run { started: *started, healthy_until, ended: *at, clean: false };
        let clean = self.ended_cleanly(&run, *death) || *drained && *death == ExitStatus::Unknown;
        Some(Run { clean, ..run })
    }

    /// Ends the wait for a drain.
    pub(super) fn escalate(&mut self, now: Moment, why: &str, fx: &mut Effects) {
        let generation = self.generation;
        if let State::Stopping(Stopping { tree: TreePhase::Draining { grace, .. }, .. }) = self.state {
            fx.push(Effect::Report(Report::StopEscalated { generation, grace, why: why.to_owned() }));
            self.kill(now, 0, false, fx);
        }
    }

    pub(super) fn on_leader_exited(&mut self, now: Moment, death: ExitStatus, toll: ExitUsage, fx: &mut Effects) {
        if self.launcher.is_none() && !self.seek_heir(now, death, toll, fx) {
            self.leader_gone(now, death, toll, fx);
        }
    }

    /// The gateway's process has exited.
    pub(super) fn leader_gone(&mut self, now: Moment, death: ExitStatus, toll: ExitUsage, fx: &mut Effects) {
        let generation = self.generation;
        let (child, up, why) = match &self.state {
            State::Starting { child, .. } => (*child, None, StopReason::Died),
            State::Running { child, started, liveness, .. } => {
                (*child, Some((*started, liveness.clone())), StopReason::Died)
            }
            State::Examining(examining) => {
                // It ended by itself before the evidence was collected.
                let report = self.hung_report(now, examining, EvidenceFound::default());
                fx.push(Effect::Report(report));
                (examining.child, examining.up(), StopReason::Died)
            }
            State::Stopping(stopping) => match stopping.leader {
                Leader::Alive => (stopping.child, None, stopping.why),
                Leader::Dead { .. } => return,
            },
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Adopting(_)
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Sweeping { .. }
            | State::Exited => return,
        };
        let uptime = now.saturating_sub(child.spawned);
        let answered = up.is_some() || self.has_answered(&child);
        let cause = self.cause(why, death, answered, toll.oom_killed);
        self.tell_exit(Exited { generation, pid: child.pid, death, uptime, toll, cause }, fx);
        fx.push(Effect::Remember { generation, fact: Fact::Died(death) });
        let drained = matches!(&self.state, State::Stopping(Stopping { tree: TreePhase::Draining { .. }, .. }));
        let dead = Leader::Dead { death, at: now, drained, reason: cause };
        let State::Stopping(stopping) = &mut self.state else {
            let may_be_clean = match death {
                ExitStatus::Code(code) => code == 0,
                // The exit status of an adopted process is unknown.
                ExitStatus::Unknown => !self.has(Fault::AdoptedHasNoSuccessor),
                ExitStatus::Signal { .. } => false,
            };
            let may_have_successor = may_be_clean && up.is_some() && self.intent == Intent::Run;
            let until = now.saturating_add(SEEK_TIME_MAX);
            self.enter_stopping(now, child, up, why, dead, TreePhase::Seeking { until });
            if self.has(Fault::LeaderExitIsTreeGone) {
                return self.settle(now, fx);
            }
            if may_have_successor {
                return self.probe(now, ProbeScope::Port, fx);
            }
            return self.kill(now, 0, false, fx);
        };
        stopping.leader = dead;
        match stopping.tree {
            TreePhase::Draining { .. } | TreePhase::Stubborn { .. } => {
                self.kill(now, 0, false, fx);
            }
            TreePhase::Seeking { .. } | TreePhase::Installing { .. } | TreePhase::Killing { .. } => {}
            TreePhase::Gone { .. } => self.settle(now, fx),
        }
    }

    /// Why a gateway ended, in words. `answered` says whether it ever did.
    fn cause(&self, why: StopReason, death: ExitStatus, answered: bool, oom_killed: bool) -> &'static str {
        match (&self.intent, why, death) {
            (_, StopReason::LeaseLost, _) => "the lease was lost",
            (Intent::Stop(_) | Intent::StopNow(_), ..) => "stop requested",
            (Intent::Restart(_), ..) => "restart requested",
            (_, StopReason::Asked, _) => "requested",
            (_, StopReason::Hung, _) => "hung",
            (_, StopReason::MemoryLimit, _) => "over its memory limit",
            (_, StopReason::Orphaned, _) => LOST,
            (_, StopReason::Unconfirmed, _) => "the lease was not confirmed",
            (_, StopReason::Died, _) if oom_killed => "killed by the kernel OOM killer",
            (_, StopReason::Died, ExitStatus::Unknown) => "exit status unknown (adopted process)",
            (_, StopReason::Died, ExitStatus::Code(0)) if answered => "exited with code 0 without a request",
            (_, StopReason::Died, ExitStatus::Code(0)) => "exited with code 0 before it answered",
            (_, StopReason::Died, ExitStatus::Code(REFUSAL)) => "refused to start",
            (_, StopReason::Died, ExitStatus::Code(NOT_FOUND)) if !answered => {
                "the command or its interpreter was not found"
            }
            (_, StopReason::Died, ExitStatus::Code(NOT_EXECUTABLE)) if !answered => "the command cannot be executed",
            (_, StopReason::Died, ExitStatus::Code(_) | ExitStatus::Signal { .. }) => "crashed",
        }
    }

    pub(super) fn on_tree_gone(&mut self, now: Moment, end: TreeEnd, fx: &mut Effects) {
        let generation = self.generation;
        let pause = if self.has(Fault::StubbornTreeLeft) { Moment::MAX } else { KILL_AGAIN };
        let State::Stopping(stopping) = &mut self.state else { return };
        let TreePhase::Killing { told, lost, .. } = stopping.tree else { return };
        self.swept_by = now.saturating_add(SWEEP_TIME_MAX);
        self.tell_left(&end.strays, fx);
        self.tell_cut_short(&end.cut_short, fx);
        if !end.installing.is_empty() {
            return self.await_installer(now, end, fx);
        }
        let State::Stopping(stopping) = &mut self.state else { return };
        let survivors = end.survivors;
        let left = end.left.join("; ");
        let named = if left.is_empty() { " (uninterruptible sleep?)".to_owned() } else { format!(": {left}") };
        // One that cannot be killed is told of once, not at every attempt.
        if end.members.max(survivors) > 0 && (survivors == 0 || survivors != told) {
            fx.push(Effect::Report(Report::TreeKilled { generation, end: Box::new(end) }));
        }
        match stopping.leader {
            Leader::Alive if survivors > 0 => {
                stopping.tree = TreePhase::Stubborn { again: now.saturating_add(pause), told: survivors }
            }
            Leader::Alive | Leader::Dead { .. } => {
                stopping.tree = TreePhase::Gone { until: now.saturating_add(ANSWER_LOST) };
            }
        }
        let leader_dead = matches!(stopping.leader, Leader::Dead { .. });
        let child = stopping.child;
        match &self.intent {
            // Where no kill comes back, nothing may be started beside what may live, not even a hook.
            Intent::Detach(by) if survivors > 0 && (!leader_dead || lost) && self.lost.is_none() => {
                let what = if leader_dead { "the rest of the tree of gateway" } else { "gateway" };
                let reason = format!("left as asked by {by}; {what} pid {} survived SIGKILL and was left", child.pid);
                self.exit(now, exit::OK, reason, fx);
            }
            intent
                if survivors > 0 && (self.lost.is_some() || matches!(intent, Intent::Stop(_) | Intent::StopNow(_))) =>
            {
                if !leader_dead {
                    let uptime = now.saturating_sub(child.spawned);
                    let cause = "survived SIGKILL";
                    let (pid, death, toll) = (child.pid, ExitStatus::Unknown, ExitUsage::default());
                    self.tell_exit(Exited { generation, pid, death, uptime, toll, cause }, fx);
                    fx.push(Effect::Remember { generation, fact: Fact::Died(death) });
                }
                let survived = format!(
                    "but {survivors} of the gateway's processes survived SIGKILL{named}; look at their stack in /proc before \
                     starting again"
                );
                let (code, reason) = match (self.take_lost(), &self.intent) {
                    (Some(Outcome { code, reason }), _) => (code, reason),
                    (None, Intent::Stop(by) | Intent::StopNow(by)) => {
                        (exit::FAILURE, format!("stopped as asked by {by}"))
                    }
                    (None, Intent::Run | Intent::Restart(_) | Intent::Detach(_)) => return,
                };
                self.exit(now, code, format!("{reason}, {survived}"), fx);
            }
            _ if leader_dead => self.settle(now, fx),
            // Two kills found nothing, so that it is dead, whatever became of the news.
            _ if lost && survivors == 0 => {
                self.on_leader_exited(now, ExitStatus::Unknown, ExitUsage::default(), fx);
            }
            _ => {}
        }
    }

    /// What came to light when the tree itself was long gone.
    pub(super) fn tell_strays(&mut self, generation: Generation, end: TreeEnd, fx: &mut Effects) {
        if !end.strays.is_empty() && !matches!(self.state, State::Exited) {
            self.tell_left(&end.strays, fx);
        }
        if !matches!(self.state, State::Exited) {
            self.tell_cut_short(&end.cut_short, fx);
        }
        if end.members.max(end.survivors) > 0 && !matches!(self.state, State::Exited) {
            fx.push(Effect::Report(Report::TreeKilled { generation, end: Box::new(end) }));
        }
    }

    /// The same that are still there are told of once.
    fn tell_left(&mut self, strays: &[String], fx: &mut Effects) {
        if self.strays != strays {
            self.strays = strays.to_vec();
            if !strays.is_empty() {
                let (generation, strays) = (self.generation, self.strays.clone());
                fx.push(Effect::Report(Report::StraysLeft { generation, strays }));
            }
        }
    }

    /// The leader is gone, others of its tree are not: they are cleared away before anything else.
    pub(super) fn clear_orphans(
        &mut self,
        now: Moment,
        child: Child,
        left: Option<Unfinished>,
        (death, at): (ExitStatus, Moment),
        fx: &mut Effects,
    ) {
        let up = left.and_then(|left| {
            let started = left.started?;
            Some((started, Liveness::new(left.healthy_until.unwrap_or(started))))
        });
        let dead = Leader::Dead { death, at, drained: false, reason: LOST };
        self.enter_stopping(now, child, up, StopReason::Orphaned, dead, TreePhase::Seeking { until: now });
        self.kill(now, 0, false, fx);
    }

    /// Nothing is left of the gateway: what comes next?
    fn settle(&mut self, now: Moment, fx: &mut Effects) {
        let State::Stopping(stopping) = &self.state else { return };
        let Stopping { child, why, leader: Leader::Dead { death, at, reason, .. }, .. } = stopping else { return };
        let Some(run) = self.run_of_dead() else { return };
        let (age, unasked) = (at.saturating_sub(child.spawned), self.intent == Intent::Run);
        let told = format!("ended with {death} after {}", human(age));
        let ending = Ending { child: *child, run, age, why: *why, death: *death, unasked, reason, told };
        self.decide(now, ending, fx);
    }

    /// An adopted gateway has no known exit status: a short run counts as unclean.
    pub(super) fn ended_cleanly(&self, run: &Run, death: ExitStatus) -> bool {
        match death {
            ExitStatus::Code(code) => code == 0,
            ExitStatus::Signal { .. } => false,
            ExitStatus::Unknown => run.healthy_for() >= self.policy.stable_after,
        }
    }

    /// Whether it was a gateway that answered, and not one that found its place taken.
    pub(super) fn has_answered(&self, child: &Child) -> bool {
        child.answered && !self.has(Fault::WarmingExitIsFailure)
    }
}
