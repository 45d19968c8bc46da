//! Requests, and what they mean in each state.

use super::state::{EvidenceFound, Examining, Poll, ProbePurpose, Rival, State};
use super::{Effect, Effects, Intent, Moment, Report, Request, Requester, Supervisor, TWICE, port};
use crate::effect::Installers;
use crate::fault::Fault;
use crate::prelude::*;
use crate::restart_policy::Cause;
use crate::{Hook, exit};
use core::time::Duration;

impl Supervisor {
    pub(super) fn on_requested(&mut self, now: Moment, request: Request, by: Requester, fx: &mut Effects) {
        if self.state.is_over() {
            return;
        }
        let report = match request {
            Request::Stop => Report::StopRequested { by: by.clone() },
            Request::Restart | Request::RestartForced => Report::RestartRequested { by: by.clone() },
            Request::Retry | Request::RetryForced => Report::RetryRequested { by: by.clone() },
            Request::Detach => Report::DetachRequested { by: by.clone() },
        };
        let wanted = match request {
            Request::Stop => Intent::Stop(by),
            Request::Restart | Request::RestartForced => Intent::Restart(by),
            Request::Detach => Intent::Detach(by),
            Request::Retry | Request::RetryForced => {
                fx.push(Effect::Report(report));
                if self.intent == Intent::Run {
                    self.merged.forced |= request == Request::RetryForced && self.is_start_to_come();
                    // That a restart waits has no reason any more: see `hasten_merged`.
                    self.restarts.forget_asked();
                    self.hasten(now, fx);
                    // The run that it starts after was not asked to end.
                    self.restarts.forget_asked();
                }
                return;
            }
        };
        if request == Request::Restart && self.has(Fault::RestartSoftensStop) {
            self.intent = Intent::Run;
        }
        if let Intent::Restart(by) = &wanted {
            if request == Request::RestartForced && !self.is_ending() {
                self.restarts.forget_asked();
                self.merged.forced |= self.is_start_to_come()
                    || matches!(
                        self.state,
                        State::Starting { .. } | State::Running { .. } | State::Examining(_) | State::Adopting(_)
                    );
            }
            if self.merge_restart(now, by, fx) {
                return;
            }
        }
        if !self.intent.harden(wanted) {
            if request == Request::Stop && !self.has(Fault::SecondStopIgnored) {
                if self.intent.hurry() {
                    self.escalate(now, TWICE, fx);
                }
                self.shorten_search(now, fx);
                self.shorten_clearing(now, fx);
                self.shorten_spawning(now);
                if matches!(self.state, State::Leasing { .. }) {
                    self.intend_without_gateway(now, fx);
                }
                self.kill_hook(now, fx);
            }
            return;
        }
        fx.push(Effect::Report(report));
        if matches!(self.intent, Intent::Stop(_) | Intent::StopNow(_) | Intent::Detach(_)) {
            self.tell_stopping(fx);
        }
        self.follow_intent(now, fx);
    }

    /// Acts on a new intent as far as the state allows; `Adopting`, `Spawning` and `Stopping` come back to it by
    /// themselves.
    pub(super) fn follow_intent(&mut self, now: Moment, fx: &mut Effects) {
        match &self.state {
            State::Stopping(_) => {
                if let Intent::Stop(_) | Intent::StopNow(_) = self.intent {
                    self.shorten_drain(now, self.policy.stop_timeout);
                    self.end_seeking(now, fx);
                }
            }
            State::Hooking(_) => self.intend_while_hooking(now, fx),
            State::Clearing(_) if self.is_ending() => self.shorten_clearing(now, fx),
            State::Spawning(_) if self.is_ending() => {
                if self.take_back_spawn(fx) {
                    self.go_on_unborn(now, "was not started", fx);
                } else {
                    self.shorten_spawning(now);
                }
            }
            State::Adopting(_) => {
                if self.is_ending() {
                    self.shorten_search(now, fx);
                }
            }
            State::Starting { .. } | State::Running { .. } => self.end_present(now, fx),
            State::Examining(examining) => match self.intent {
                Intent::Run => {}
                Intent::Detach(_) => self.end_present(now, fx),
                // It hangs, and the evidence is not waited for.
                Intent::Restart(_) | Intent::Stop(_) | Intent::StopNow(_) => {
                    let examining = examining.clone();
                    if let Intent::Restart(_) = self.intent {
                        self.tell_reloading(fx);
                    }
                    self.terminate_hung(now, &examining, EvidenceFound::default(), fx);
                    self.follow_intent(now, fx);
                }
            },
            State::Leasing { .. } => {
                if !self.await_lease(now) {
                    self.intend_without_gateway(now, fx);
                }
            }
            State::Idle
            | State::Clearing(_)
            | State::Standby(_)
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Spawning(_) => self.intend_without_gateway(now, fx),
            State::Sweeping { .. } | State::Exited => {}
        }
    }

    pub(super) fn intend_without_gateway(&mut self, now: Moment, fx: &mut Effects) {
        let (is_known, beside) = self.beside_stop();
        let (code, reason) = match &self.intent {
            Intent::Run => return,
            Intent::Restart(_) => {
                self.intent = Intent::Run;
                if let State::BackingOff { .. } | State::Awaiting(_) = self.state
                    && !self.merged.forced
                {
                    self.restarts.note_hurried(now);
                }
                return self.hasten(now, fx);
            }
            Intent::Stop(by) | Intent::StopNow(by) => {
                let code = if is_known { exit::OK } else { exit::FAILURE };
                (code, format!("stopped as asked by {by}; {beside}"))
            }
            Intent::Detach(by) => (exit::OK, format!("left as asked by {by}; {beside}")),
        };
        self.exit(now, code, reason, fx);
    }

    /// What there is beside a stop that has no gateway to end, and whether all of it is known.
    fn beside_stop(&self) -> (bool, String) {
        match &self.state {
            State::Leasing { owner: Some(Rival { holder, what, gone_by: None }), .. } => {
                let named = holder.as_ref().map_or_else(
                    || "a supervisor that cannot be seen from here".to_owned(),
                    |holder| format!("pid {} ({})", holder.pid, holder.command),
                );
                (true, format!("nothing was started: {named} holds the {}, and its gateway was left", what.name()))
            }
            State::Leasing { poll: Poll::Asked { .. }, .. } => {
                let unknown = "the store has not answered yet, and an earlier gateway on record there may still be running; \
                               to end it, start again, then stop: it is looked for first";
                (false, unknown.to_owned())
            }
            State::Leasing { .. } => {
                (true, "nothing was started, and the gateway of the supervisor that is in charge was left".to_owned())
            }
            State::Standby(_) => (true, "no gateway of this supervisor was running".to_owned()),
            State::Idle | State::Clearing(_) | State::Probing { .. }
                if let (Some(why), false) = (&self.unread, self.spawned) =>
            {
                let left =
                    "so that an earlier gateway may still be running; make the store readable, start again, then stop";
                (false, format!("the store cannot be read ({why}), {left}"))
            }
            State::Idle
            | State::Clearing(_)
            | State::Adopting(_)
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Starting { .. }
            | State::Running { .. }
            | State::Examining(_)
            | State::Stopping(_)
            | State::Sweeping { .. }
            | State::Exited => (true, "no gateway was running".to_owned()),
        }
    }

    /// Acts on an intent while a gateway is there.
    fn end_present(&mut self, now: Moment, fx: &mut Effects) {
        let (State::Starting { child, .. } | State::Running { child, .. } | State::Examining(Examining { child, .. })) =
            &self.state
        else {
            return;
        };
        match &self.intent {
            Intent::Run => {}
            Intent::Detach(by) => {
                if self.has(Fault::DetachKills) {
                    fx.push(Effect::KillTree {
                        generation: self.generation,
                        grace: Duration::ZERO,
                        strays: false,
                        installers: Installers::AsOthers,
                    });
                }
                let reason = format!("left as asked by {by}; gateway pid {} goes on without a supervisor", child.pid);
                self.exit(now, exit::OK, reason, fx);
            }
            Intent::Restart(_) => {
                self.tell_reloading(fx);
                self.begin_stop(now, fx);
            }
            Intent::Stop(_) => self.begin_stop(now, fx),
            Intent::StopNow(_) => {
                self.begin_stop(now, fx);
                self.escalate(now, TWICE, fx);
            }
        }
    }

    /// Whether the next start is to wait for nothing.
    pub(super) fn is_forced(&self) -> bool {
        self.merged.forced && !self.has(Fault::ForceIgnored)
    }

    /// Whether a gateway is to be started that a forced request can hasten.
    fn is_start_to_come(&self) -> bool {
        match &self.state {
            State::Probing { .. } | State::BackingOff { .. } | State::Awaiting(_) | State::Stopping(_) => true,
            // A start that is under way waits for nothing more.
            State::Hooking(hooking) => hooking.hook() != Hook::PreStart,
            State::Starting { .. } | State::Running { .. } | State::Examining(_) | State::Adopting(_) => {
                self.merged.waiting.is_some()
            }
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Spawning(_)
            | State::Sweeping { .. }
            | State::Exited => false,
        }
    }

    /// `retry-now`, or a restart while no gateway runs: starts without the planned wait. Only the limit of unclean boots
    /// still applies.
    pub(super) fn hasten(&mut self, now: Moment, fx: &mut Effects) {
        self.restarts.grant_trial();
        match &self.state {
            State::BackingOff { .. } | State::Awaiting(_) => self.start_at_gate(now, fx),
            // Whatever the last exit meant: a person wants another try.
            State::Probing { judging: ProbePurpose::Refusal(run) | ProbePurpose::Unstarted(run), .. } => {
                let run = *run;
                let plan = self.restarts.after_run(now, run, Cause::Asked, &self.policy);
                self.follow_plan(now, plan, "was asked to start again", fx);
            }
            State::Standby(_) => self.hasten_standby(now, fx),
            // That the budget is spent may only show once a predecessor's gateway has been dealt with.
            State::Clearing(_) => self.policy.attended = true,
            // The start that was asked for is under way, or there is nothing to wait for.
            State::Idle
            | State::Leasing { .. }
            | State::Adopting(_)
            | State::Probing { judging: ProbePurpose::Nothing | ProbePurpose::Prepared, .. }
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Starting { .. }
            | State::Running { .. }
            | State::Examining(_)
            | State::Stopping(_)
            | State::Sweeping { .. }
            | State::Exited => {}
        }
    }

    /// Starts as soon as the limit of unclean boots allows.
    pub(super) fn start_at_gate(&mut self, now: Moment, fx: &mut Effects) {
        if self.is_forced() {
            return self.start_at(now, now, super::FORCED, fx);
        }
        let gate = self.restarts.gate(now, &self.policy);
        // A request never puts off what is planned.
        let planned = if let State::BackingOff { until, .. } = &self.state { *until } else { Moment::MAX };
        match self.restarts.start_gate(now, &self.policy).map(|paced| paced.min(planned)) {
            Some(paced) if paced > gate => {
                let why = self.restarts.pace_reason(now, &self.policy);
                self.start_at(now, paced, &why, fx);
            }
            Some(_) | None => self.start_at(now, gate, if gate > now { port::GATED } else { "as asked" }, fx),
        }
    }
}
