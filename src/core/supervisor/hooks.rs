//! While a hook runs: the pre-start hook before a spawn, the post-stop hook after an end.
//!
//! A hook stands between two gateways, never beside one. Nothing follows before all that it started is gone.

use super::state::{Cut, Ending, HookPhase, Hooking, ProbePurpose, Repair, State, Then};
use super::{Effect, Effects, Generation, Intent, Moment, Outcome, Plan, Report, Run, Supervisor};
use crate::ExitStatus;
use crate::exit;
use crate::fault::Fault;
use crate::history::{Fact, Settled};
use crate::hook::{Call, GRACE, Hook, HookEnd, KILL_TIME_MAX};
use crate::prelude::*;
use crate::report::human;
use crate::restart_policy::Cause;
use core::time::Duration;

impl Hooking {
    pub(super) fn deadline(&self) -> Moment {
        match self.phase {
            HookPhase::Running { until } | HookPhase::Ending { until, .. } | HookPhase::Killing { until, .. } => until,
        }
    }

    pub(super) fn hook(&self) -> Hook {
        self.call.hook()
    }

    fn cut(&self) -> Option<Cut> {
        match self.phase {
            HookPhase::Running { .. } => None,
            HookPhase::Ending { cut, .. } | HookPhase::Killing { cut, .. } => Some(cut),
        }
    }
}

impl Supervisor {
    /// Calls the hook of a start that was decided. The number is used up by a process or by a failure, not by the call.
    pub(super) fn call_pre_start(&mut self, now: Moment, timeout: Duration, fx: &mut Effects) {
        let call = Call::PreStart { generation: self.generation + 1 };
        self.call_hook(now, call, timeout, Then::Start, fx);
    }

    /// Calls the hook of a gateway that is gone, then judges its end.
    pub(super) fn call_post_stop(&mut self, now: Moment, ending: Ending, timeout: Duration, fx: &mut Effects) {
        let call = Call::PostStop {
            generation: self.generation,
            pid: ending.child.pid,
            reason: ending.reason,
            death: ending.death,
        };
        self.call_hook(now, call, timeout, Then::Conclude(Box::new(ending)), fx);
    }

    /// Whether a refused configuration may be repaired: once until a gateway has come up.
    pub(super) fn may_repair(&self) -> bool {
        self.policy.repair.is_some() && (self.repair == Repair::Untried || self.has(Fault::RepairedForEver))
    }

    /// Whether it has been, and no gateway has come up since.
    pub(super) fn was_repaired(&self) -> bool {
        self.policy.repair.is_some() && self.repair != Repair::Untried
    }

    /// Has OpenClaw repair what it refused.
    pub(super) fn call_repair(&mut self, now: Moment, run: Run, fx: &mut Effects) {
        self.repair = Repair::Fresh;
        let timeout = self.policy.repair.unwrap_or_default();
        self.call_hook(now, Call::Repair { generation: self.generation }, timeout, Then::Retry(run), fx);
    }

    fn go_on_repaired(&mut self, now: Moment, run: Run, cut: Option<Cut>, end: &HookEnd, fx: &mut Effects) {
        // A stop may have cut it short, or have come when its time was already over.
        if !matches!(self.intent, Intent::Run | Intent::Restart(_)) {
            return self.go_on_unborn(now, "was not started", fx);
        }
        let why = match cut {
            Some(Cut::TimedOut | Cut::Unwanted) => {
                format!("took longer than {}", human(self.timeout_of(Hook::Repair)))
            }
            None if end.is_success() => {
                // What the refusal cost counts, and the start that follows is one like any other: where the budget is
                // spent there is none. It waits for nothing but the limit of unclean boots, for it is not the same start.
                let death = "exited with 78, and its configuration was repaired after that";
                let plan = self.restarts.after_run(now, run, Cause::Failed, &self.policy);
                return if matches!(plan, Plan::GiveUp { .. }) && !self.has(Fault::RepairUnpaid) {
                    self.follow_plan(now, plan, death, fx);
                } else {
                    self.look_at_port(now, ProbePurpose::Nothing, fx);
                };
            }
            None => end.to_string(),
        };
        let reason = format!(
            "the gateway exited with 78 and cannot start with its configuration, and its repair ('openclaw doctor --fix') \
             {why}; their own messages {}; mend the configuration, then start again",
            self.messages()
        );
        self.exit(now, exit::EX_CONFIG, reason, fx);
    }

    fn call_hook(&mut self, now: Moment, call: Call, timeout: Duration, then: Then, fx: &mut Effects) {
        // It has a number once the store allows it.
        let ticket = 0;
        fx.push(Effect::Report(Report::HookStarted { hook: call.hook(), generation: call.generation() }));
        let until = if self.has(Fault::HookTimeoutIgnored) { Moment::MAX } else { now.saturating_add(timeout) };
        let hook = Effect::Hook { ticket, call: call.clone() };
        self.state = State::Hooking(Hooking { ticket, call, began: now, phase: HookPhase::Running { until }, then });
        self.act(now, hook, fx);
    }

    /// Gives the hook that is about to be called the youngest ticket.
    pub(super) fn number_hook(&mut self) -> u64 {
        self.ticket += 1;
        if let State::Hooking(hooking) = &mut self.state {
            hooking.ticket = self.ticket;
        }
        self.ticket
    }

    fn timeout_of(&self, hook: Hook) -> Duration {
        let timeout = match hook {
            Hook::PreStart => self.policy.pre_start,
            Hook::PostStop => self.policy.post_stop,
            Hook::Repair => self.policy.repair,
        };
        timeout.unwrap_or_default()
    }

    pub(super) fn tick_hooking(&mut self, now: Moment, fx: &mut Effects) {
        let State::Hooking(hooking) = &self.state else { return };
        if now < hooking.deadline() {
            return;
        }
        match hooking.phase {
            HookPhase::Running { .. } => {
                let (hook, generation) = (hooking.hook(), hooking.call.generation());
                let timeout = self.timeout_of(hook);
                fx.push(Effect::Report(Report::HookTimedOut { hook, generation, timeout }));
                self.end_hook(now, Cut::TimedOut, fx);
            }
            HookPhase::Ending { .. } => self.kill_hook(now, fx),
            // It sleeps uninterruptibly, and dies when it wakes.
            HookPhase::Killing { .. } => self.finish_hook(now, &HookEnd::Ended(ExitStatus::Unknown), fx),
        }
    }

    fn end_hook(&mut self, now: Moment, cut: Cut, fx: &mut Effects) {
        let State::Hooking(hooking) = &mut self.state else { return };
        if let HookPhase::Running { .. } = hooking.phase {
            hooking.phase = HookPhase::Ending { until: now.saturating_add(GRACE), cut };
            let ticket = hooking.ticket;
            if !self.take_back_hook(now, fx) {
                fx.push(Effect::EndHook { ticket });
            }
        }
    }

    /// SIGKILL: its grace period is over, or a second stop was requested.
    pub(super) fn kill_hook(&mut self, now: Moment, fx: &mut Effects) {
        let State::Hooking(hooking) = &mut self.state else { return };
        if !matches!(hooking.phase, HookPhase::Killing { .. }) {
            let cut = hooking.cut().unwrap_or(Cut::Unwanted);
            hooking.phase = HookPhase::Killing { until: now.saturating_add(KILL_TIME_MAX), cut };
            let ticket = hooking.ticket;
            if !self.take_back_hook(now, fx) {
                fx.push(Effect::KillHook { ticket });
            }
        }
    }

    /// One that still waits for the store is not called at all.
    fn take_back_hook(&mut self, now: Moment, fx: &mut Effects) -> bool {
        let is_waiting = self.fence.take_back();
        if is_waiting {
            let why = "it was taken back before the store had confirmed the lease".to_owned();
            self.finish_hook(now, &HookEnd::NotStarted(why), fx);
        }
        is_waiting
    }

    /// A stop or a detach takes back the start that a pre-start hook was for. A gateway that has ended has ended: its
    /// post-stop hook goes on.
    pub(super) fn intend_while_hooking(&mut self, now: Moment, fx: &mut Effects) {
        let State::Hooking(hooking) = &self.state else { return };
        match (hooking.hook(), &self.intent) {
            (Hook::PreStart | Hook::Repair, Intent::StopNow(_)) => self.kill_hook(now, fx),
            (Hook::PreStart | Hook::Repair, Intent::Stop(_) | Intent::Detach(_)) => {
                self.end_hook(now, Cut::Unwanted, fx);
            }
            // The start that was asked for is under way.
            (Hook::PreStart | Hook::Repair, Intent::Restart(_)) => self.intent = Intent::Run,
            (Hook::PreStart | Hook::Repair, Intent::Run) | (Hook::PostStop, _) => {}
        }
    }

    /// The lease is gone: another supervisor is in charge of the gateway now.
    pub(super) fn exit_after_hook(&mut self, now: Moment, outcome: Outcome, fx: &mut Effects) {
        if let State::Hooking(hooking) = &mut self.state {
            hooking.then = Then::Exit(outcome);
        }
        self.kill_hook(now, fx);
    }

    pub(super) fn rearm_hook(&mut self, now: Moment) {
        let State::Hooking(hooking) = &self.state else { return };
        let timeout = self.timeout_of(hooking.hook());
        let State::Hooking(hooking) = &mut self.state else { return };
        match &mut hooking.phase {
            HookPhase::Running { until } => *until = now.saturating_add(timeout),
            HookPhase::Ending { until, .. } => *until = now.saturating_add(GRACE),
            HookPhase::Killing { until, .. } => *until = now.saturating_add(KILL_TIME_MAX),
        }
    }

    pub(super) fn on_hook_ended(&mut self, now: Moment, ticket: u64, end: &HookEnd, fx: &mut Effects) {
        if let State::Hooking(hooking) = &self.state
            && hooking.ticket == ticket
        {
            self.finish_hook(now, end, fx);
        }
    }

    fn finish_hook(&mut self, now: Moment, end: &HookEnd, fx: &mut Effects) {
        let State::Hooking(hooking) = &self.state else { return };
        let (cut, Hooking { call, began, then, .. }) = (hooking.cut(), hooking.clone());
        let (hook, generation, elapsed) = (call.hook(), call.generation(), now.saturating_sub(began));
        fx.push(Effect::Report(Report::HookFinished { hook, generation, end: end.clone(), elapsed }));
        match then {
            Then::Exit(Outcome { code, reason }) => self.exit(now, code, reason, fx),
            Then::Conclude(ending) => self.conclude(now, &ending, fx),
            Then::Start => self.go_on_prepared(now, generation, cut, end, fx),
            Then::Retry(run) => self.go_on_repaired(now, run, cut, end, fx),
        }
    }

    fn go_on_prepared(
        &mut self,
        now: Moment,
        generation: Generation,
        cut: Option<Cut>,
        end: &HookEnd,
        fx: &mut Effects,
    ) {
        let why = match cut {
            // It was interrupted, which is no failure of it.
            Some(Cut::Unwanted) => return self.go_on_unborn(now, "was not started", fx),
            None if end.is_success() || self.has(Fault::HookFailureIgnored) => {
                if self.has(Fault::PortTrustedAfterHook) {
                    return self.spawn(now, fx);
                }
                // Who came meanwhile is seen now.
                return self.look_at_port(now, ProbePurpose::Prepared, fx);
            }
            None => {
                if let HookEnd::Postponed(why) = end
                    && matches!(self.intent, Intent::Run | Intent::Restart(_))
                    && self.wait_for_update(now, generation, why, fx)
                {
                    return;
                }
                format!("was not started: its pre-start hook {end}")
            }
            Some(Cut::TimedOut) => {
                let timeout = human(self.timeout_of(Hook::PreStart));
                format!("was not started: its pre-start hook took longer than {timeout}")
            }
        };
        self.generation = generation;
        fx.push(Effect::Remember { generation, fact: Fact::Settled(Settled::NeverStarted) });
        self.go_on_unborn(now, &why, fx);
    }
}
