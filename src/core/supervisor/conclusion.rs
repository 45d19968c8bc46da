//! What the end of a gateway means, once nothing of it is left.

use super::hooks::Ending;
use super::stopping::{REFUSAL, StopReason};
use super::{Effects, Intent, Moment, ProbePurpose, Run, Supervisor};
use crate::event::ExitStatus;
use crate::exit;
use crate::fault::Fault;
use crate::prelude::*;
use crate::restart_policy::Cause;

impl Supervisor {
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
                self.exit(now, exit::OK, format!("stopped as asked by {by}; the gateway {told}"), fx);
            }
            Intent::Detach(by) => {
                self.remember_settled(run, cause, fx);
                self.exit(now, exit::OK, format!("left as asked by {by}; the gateway {told}"), fx);
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
