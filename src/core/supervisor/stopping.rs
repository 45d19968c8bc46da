//! From the first signal, or the unexpected exit, to the moment when nothing of the gateway is left.
//!
//! "The leader exited" is not "the tree is gone": the rest of the tree is killed first, and only then does the state
//! change.

use super::hooks::Ending;
use super::{
    Child, Effect, Effects, Exited, Intent, Moment, Observation, Poll, ProbePurpose, ProbeScope, Report, Run, State,
    Supervisor, sooner,
};
use crate::event::{ExitStatus, TreeEnd};
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

/// The gateway's exit code for a failure that a retry does not mend.
const REFUSAL: i32 = 78;

/// Why a gateway ended of which nobody saw the end.
pub(super) const LOST: &str = "ended while no supervisor ran";

#[derive(Debug, Clone)]
pub(super) struct Stopping {
    pub(super) child: Child,
    /// When it came up, if it did.
    started: Option<Moment>,
    pub(super) liveness: Liveness,
    why: StopReason,
    leader: Leader,
    tree: Tree,
    pub(super) poll: Poll,
}

/// Why it ends. An intent that comes later outranks it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StopReason {
    Asked,
    Hung,
    Died,
    /// Its tree has more memory than it may have.
    MemoryLimit,
    /// It died while no supervisor ran.
    Orphaned,
}

#[derive(Debug, Clone, Copy)]
enum Leader {
    Alive,
    /// `drained` says that it ended by itself in the time that it was given.
    Dead {
        death: ExitStatus,
        at: Moment,
        drained: bool,
        /// In the words of its report.
        reason: &'static str,
    },
}

#[derive(Debug, Clone, Copy)]
enum Tree {
    /// SIGTERM is sent; the gateway drains until then.
    Draining { until: Moment },
    /// It exited with 0, as far as can be known, and nobody had asked: whoever answers on its port now may be a successor
    /// that it left.
    Seeking,
    /// `Effect::KillTree` is under way. `told` is how many survivors of the last one were told of.
    Killing { told: u32 },
    /// The leader survived it; it is tried again then.
    Stubborn { again: Moment, told: u32 },
    /// Nothing is left, except perhaps the news of the leader's death.
    Gone,
}

impl Stopping {
    pub(super) fn leader_lives(&self) -> bool {
        matches!(self.leader, Leader::Alive)
    }

    pub(super) fn started(&self) -> Option<Moment> {
        self.started
    }

    pub(super) fn deadline(&self, policy: &Policy) -> Option<Moment> {
        match self.tree {
            Tree::Draining { until } => {
                Some(sooner(until.min(self.poll.wake(policy)), self.liveness.silent_deadline(policy)))
            }
            Tree::Stubborn { again, .. } => Some(again),
            Tree::Seeking => Some(self.poll.wake(policy)),
            Tree::Killing { .. } | Tree::Gone => None,
        }
    }
}

impl Supervisor {
    /// SIGTERM because somebody asked.
    pub(super) fn begin_stop(&mut self, now: Moment, fx: &mut Effects) {
        let (child, up) = match &self.state {
            State::Starting { child, .. } => (*child, None),
            State::Running { child, started, liveness, .. } => (*child, Some((*started, liveness.clone()))),
            State::Idle
            | State::Leasing { .. }
            | State::Standby(_)
            | State::Adopting { .. }
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning
            | State::Examining(_)
            | State::Stopping(_)
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
        fx.push(Effect::Terminate { generation: self.generation });
        let grace = if self.has(Fault::StopTimeoutIgnored) { Moment::MAX } else { grace };
        self.enter_stopping(now, child, up, why, Leader::Alive, Tree::Draining { until: now.saturating_add(grace) });
    }

    fn enter_stopping(
        &mut self,
        now: Moment,
        child: Child,
        up: Option<(Moment, Liveness)>,
        why: StopReason,
        leader: Leader,
        tree: Tree,
    ) {
        let (started, liveness) =
            up.map_or((None, Liveness::new(now)), |(started, liveness)| (Some(started), liveness));
        // Only silence during the drain cuts it short: what made it hang must not use up the time to end by itself.
        let mut liveness = liveness;
        liveness.rearm(now);
        let poll = Poll::Due(now.saturating_add(self.policy.probe_interval));
        self.state = State::Stopping(Stopping { child, started, liveness, why, leader, tree, poll });
    }

    pub(super) fn tick_stopping(&mut self, now: Moment, fx: &mut Effects) {
        let State::Stopping(stopping) = &mut self.state else { return };
        match stopping.tree {
            Tree::Draining { until } if until <= now => {
                self.escalate("it did not end in the time that it was given", fx);
            }
            Tree::Draining { .. } if stopping.liveness.silent_deadline(&self.policy).is_some_and(|at| at <= now) => {
                self.escalate("it stopped answering while it drained", fx);
            }
            Tree::Draining { .. } if stopping.poll.wake(&self.policy) <= now => {
                self.probe(now, ProbeScope::Liveness(self.generation), fx);
            }
            Tree::Stubborn { again, told } if again <= now => {
                stopping.tree = Tree::Killing { told };
                fx.push(Effect::KillTree { generation: self.generation });
            }
            Tree::Seeking if stopping.poll.wake(&self.policy) <= now => self.end_seeking(fx),
            Tree::Draining { .. } | Tree::Seeking | Tree::Stubborn { .. } | Tree::Killing { .. } | Tree::Gone => {}
        }
    }

    pub(super) fn judge_drain(&mut self, now: Moment, sighting: &Observation, fx: &mut Effects) {
        let State::Stopping(stopping) = &mut self.state else { return };
        if let Tree::Seeking = stopping.tree {
            return self.judge_successor(now, sighting, fx);
        }
        stopping.liveness.observe(now, sighting.verdict);
        stopping.poll = stopping.poll.next(now, self.policy.probe_interval);
    }

    /// A stop allows a drain that has begun already the stop timeout and no more: a hang's may be longer.
    pub(super) fn shorten_drain(&mut self, now: Moment) {
        if let State::Stopping(Stopping { tree: Tree::Draining { until }, .. }) = &mut self.state {
            *until = (*until).min(now.saturating_add(self.policy.stop_timeout));
        }
    }

    /// No successor is looked for any longer: the rest of the tree goes.
    pub(super) fn end_seeking(&mut self, fx: &mut Effects) {
        let generation = self.generation;
        if let State::Stopping(stopping @ Stopping { tree: Tree::Seeking, .. }) = &mut self.state {
            stopping.tree = Tree::Killing { told: 0 };
            // An answer that is still under way is about what is being ended.
            stopping.poll = Poll::Due(Moment::MAX);
            fx.push(Effect::KillTree { generation });
        }
    }

    /// Releases before 2026.8 leave a detached successor after an update, and it answers before they exit. It is no
    /// orphan to be killed and no stranger to be fought: it is kept, as one of a predecessor would be.
    fn judge_successor(&mut self, now: Moment, sighting: &Observation, fx: &mut Effects) {
        let State::Stopping(stopping) = &self.state else { return };
        let successor = match (&sighting.owner, sighting.verdict) {
            (Owner::Ours(holder), Verdict::Gateway(_)) if holder.pid != stopping.child.pid => holder.clone(),
            _ => return self.end_seeking(fx),
        };
        if self.intent != Intent::Run || self.has(Fault::SuccessorKilled) {
            return self.end_seeking(fx);
        }
        // It exited with 0, whether anybody could learn that or not: none leaves a successor by crashing.
        let Some(run) = self.run_of_dead().map(|run| Run { clean: true, ..run }) else { return };
        let (generation, pid) = (self.generation, successor.pid);
        fx.push(Effect::Report(Report::SuccessorFound { generation, pid, command: successor.command }));
        self.remember_settled(run, Cause::Asked, fx);
        self.restarts.after_run(now, run, Cause::Asked, &self.policy);
        self.seek_unrecorded(pid, fx);
    }

    /// The run of a gateway whose leader is dead.
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
    pub(super) fn escalate(&mut self, why: &str, fx: &mut Effects) {
        let generation = self.generation;
        let State::Stopping(stopping) = &mut self.state else { return };
        if let Tree::Draining { .. } = stopping.tree {
            stopping.tree = Tree::Killing { told: 0 };
            fx.push(Effect::Report(Report::StopEscalated { generation, why: why.to_owned() }));
            fx.push(Effect::KillTree { generation });
        }
    }

    pub(super) fn on_leader_exited(&mut self, now: Moment, death: ExitStatus, toll: ExitUsage, fx: &mut Effects) {
        let generation = self.generation;
        self.tell_hung_and_dead(fx);
        let (child, up, why) = match &self.state {
            State::Starting { child, .. } => (*child, None, StopReason::Died),
            State::Running { child, started, liveness, .. } => {
                (*child, Some((*started, liveness.clone())), StopReason::Died)
            }
            State::Examining(examining) => (examining.child, examining.up(), StopReason::Died),
            State::Stopping(stopping) => match stopping.leader {
                Leader::Alive => (stopping.child, None, stopping.why),
                Leader::Dead { .. } => return,
            },
            State::Idle
            | State::Leasing { .. }
            | State::Standby(_)
            | State::Adopting { .. }
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning
            | State::Exited => return,
        };
        let uptime = now.saturating_sub(child.spawned);
        let answered = up.is_some() || self.has_answered(&child);
        let cause = self.cause(why, death, answered, toll.oom_killed);
        self.tell_exit(Exited { generation, pid: child.pid, death, uptime, toll, cause }, fx);
        fx.push(Effect::Remember { generation, fact: Fact::Died(death) });
        let drained = matches!(&self.state, State::Stopping(Stopping { tree: Tree::Draining { .. }, .. }));
        let dead = Leader::Dead { death, at: now, drained, reason: cause };
        let State::Stopping(stopping) = &mut self.state else {
            let may_be_clean = match death {
                ExitStatus::Code(code) => code == 0,
                // Nobody learns how one ended that was adopted.
                ExitStatus::Unknown => !self.has(Fault::AdoptedHasNoSuccessor),
                ExitStatus::Signal { .. } => false,
            };
            let may_have_successor = may_be_clean && up.is_some() && self.intent == Intent::Run;
            let tree = if may_have_successor { Tree::Seeking } else { Tree::Killing { told: 0 } };
            self.enter_stopping(now, child, up, why, dead, tree);
            if self.has(Fault::LeaderExitIsTreeGone) {
                return self.settle(now, fx);
            }
            if may_have_successor {
                return self.probe(now, ProbeScope::Port, fx);
            }
            fx.push(Effect::KillTree { generation });
            return;
        };
        stopping.leader = dead;
        match stopping.tree {
            Tree::Draining { .. } | Tree::Stubborn { .. } => {
                stopping.tree = Tree::Killing { told: 0 };
                fx.push(Effect::KillTree { generation });
            }
            Tree::Seeking | Tree::Killing { .. } => {}
            Tree::Gone => self.settle(now, fx),
        }
    }

    /// Why a gateway ended, in words. `answered` says whether it ever did.
    fn cause(&self, why: StopReason, death: ExitStatus, answered: bool, oom_killed: bool) -> &'static str {
        match (&self.intent, why, death) {
            (Intent::Stop(_) | Intent::StopNow(_), ..) => "stop requested",
            (Intent::Restart(_), ..) => "restart requested",
            (_, StopReason::Asked, _) => "requested",
            (_, StopReason::Hung, _) => "hung",
            (_, StopReason::MemoryLimit, _) => "over its limit of memory",
            (_, StopReason::Orphaned, _) => LOST,
            (_, StopReason::Died, _) if oom_killed => "killed by the kernel for want of memory",
            (_, StopReason::Died, ExitStatus::Unknown) => "ended, adopted: nobody could learn how",
            (_, StopReason::Died, ExitStatus::Code(0)) if answered => "exited with 0 unasked",
            (_, StopReason::Died, ExitStatus::Code(0)) => "exited with 0 before it answered",
            (_, StopReason::Died, ExitStatus::Code(REFUSAL)) => "refused to start",
            (_, StopReason::Died, ExitStatus::Code(_) | ExitStatus::Signal { .. }) => "crashed",
        }
    }

    pub(super) fn on_tree_gone(&mut self, now: Moment, end: TreeEnd, fx: &mut Effects) {
        let generation = self.generation;
        let pause = if self.has(Fault::StubbornTreeLeft) { Moment::MAX } else { KILL_AGAIN };
        let State::Stopping(stopping) = &mut self.state else { return };
        let Tree::Killing { told } = stopping.tree else { return };
        let survivors = end.survivors;
        let left = end.left.join("; ");
        let named = if left.is_empty() { " (uninterruptible sleep?)".to_owned() } else { format!(": {left}") };
        // One that cannot be killed is told of once, not at every attempt.
        if end.members.max(survivors) > 0 && (survivors == 0 || survivors != told) {
            fx.push(Effect::Report(Report::TreeKilled { generation, end }));
        }
        match stopping.leader {
            Leader::Alive if survivors > 0 => {
                stopping.tree = Tree::Stubborn { again: now.saturating_add(pause), told: survivors }
            }
            Leader::Alive | Leader::Dead { .. } => stopping.tree = Tree::Gone,
        }
        let leader_dead = matches!(stopping.leader, Leader::Dead { .. });
        let child = stopping.child;
        match &self.intent {
            Intent::Detach(by) if survivors > 0 && !leader_dead => {
                let reason = format!("left as asked by {by}; gateway pid {} survived SIGKILL and was left", child.pid);
                self.exit(exit::OK, reason, fx);
            }
            Intent::Stop(by) | Intent::StopNow(by) if survivors > 0 => {
                if !leader_dead {
                    let uptime = now.saturating_sub(child.spawned);
                    let cause = "survived SIGKILL";
                    let (pid, death, toll) = (child.pid, ExitStatus::Unknown, ExitUsage::default());
                    self.tell_exit(Exited { generation, pid, death, uptime, toll, cause }, fx);
                    fx.push(Effect::Remember { generation, fact: Fact::Died(death) });
                }
                let reason = format!(
                    "stopped as asked by {by}, but {survivors} of the gateway's processes survived SIGKILL{named}; look at \
                     their stack in /proc before starting again"
                );
                self.exit(exit::FAILURE, reason, fx);
            }
            _ if leader_dead => self.settle(now, fx),
            _ => {}
        }
    }

    /// What came to light when the tree itself was long gone.
    pub(super) fn tell_strays(&self, generation: Generation, end: TreeEnd, fx: &mut Effects) {
        if end.members.max(end.survivors) > 0 && !matches!(self.state, State::Exited) {
            fx.push(Effect::Report(Report::TreeKilled { generation, end }));
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
        self.enter_stopping(now, child, up, StopReason::Orphaned, dead, Tree::Killing { told: 0 });
        fx.push(Effect::KillTree { generation: self.generation });
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

    /// Of an adopted gateway nobody learns the status: it counts as unclean if it was short.
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

    /// Nothing of it is left. What that means is decided once the operator's own command has run.
    pub(super) fn decide(&mut self, now: Moment, ending: Ending, fx: &mut Effects) {
        match self.policy.post_stop {
            Some(timeout) if !self.has(Fault::PostStopForgotten) => {
                self.call_post_stop(now, ending, timeout, fx);
            }
            Some(_) | None => self.conclude(now, &ending, fx),
        }
    }

    /// What the end of a run means.
    pub(super) fn conclude(&mut self, now: Moment, ending: &Ending, fx: &mut Effects) {
        let Ending { child, run, age, why, death, unasked, told, .. } = ending;
        let (run, age, why, death) = (*run, *age, *why, *death);
        let answered = run.started.is_some() || self.has_answered(child);
        let cause = match (why, death) {
            (StopReason::Died | StopReason::Orphaned, ExitStatus::Code(0))
                if answered && !self.has(Fault::CleanExitIsCrash) =>
            {
                Cause::CleanExit
            }
            (StopReason::MemoryLimit, _) => Cause::Memory,
            _ => Cause::Failed,
        };
        match self.intent.take() {
            Intent::Stop(by) | Intent::StopNow(by) => {
                // Whoever asked while the hook ran asked for no end: that was over.
                self.remember_settled(run, if *unasked { cause } else { Cause::Asked }, fx);
                self.exit(exit::OK, format!("stopped as asked by {by}; the gateway {told}"), fx);
            }
            Intent::Detach(by) => {
                self.remember_settled(run, cause, fx);
                self.exit(exit::OK, format!("left as asked by {by}; the gateway {told}"), fx);
            }
            Intent::Restart(_) if *unasked => {
                // It counts as what it was, and only the limit of unclean boots makes the next start wait.
                self.remember_settled(run, cause, fx);
                self.restarts.after_run(now, run, cause, &self.policy);
                self.restarts.grant_trial();
                self.start_at_gate(now, fx);
            }
            Intent::Restart(_) if self.has(Fault::RequestSpendsBudget) => self.plan(now, run, Cause::Failed, told, fx),
            Intent::Restart(_) => self.plan(now, run, Cause::Asked, told, fx),
            Intent::Run => match (why, death) {
                (StopReason::Died, _) if self.is_deterministic(death, age) => self.give_up_on(now, run, told, fx),
                (StopReason::Died | StopReason::Orphaned, _)
                    if let Some(pending) = self.defer_exit(now, ending, cause) =>
                {
                    self.go_on_deferred(now, pending, told, fx);
                }
                (StopReason::Died, ExitStatus::Code(REFUSAL)) if !self.has(Fault::RefusalRetried) => {
                    self.remember_settled(run, Cause::Failed, fx);
                    self.look_at_port(now, ProbePurpose::Refusal(run), fx);
                }
                (StopReason::Died, ExitStatus::Code(0)) if !answered => {
                    self.remember_settled(run, Cause::Failed, fx);
                    self.look_at_port(now, ProbePurpose::Unstarted(run), fx);
                }
                (
                    StopReason::Died
                    | StopReason::Hung
                    | StopReason::Asked
                    | StopReason::MemoryLimit
                    | StopReason::Orphaned,
                    _,
                ) => {
                    self.plan(now, run, cause, told, fx);
                }
            },
        }
    }

    fn plan(&mut self, now: Moment, run: Run, cause: Cause, told: &str, fx: &mut Effects) {
        self.remember_settled(run, cause, fx);
        let plan = self.restarts.after_run(now, run, cause, &self.policy);
        self.follow_plan(now, plan, told, fx);
    }
}
