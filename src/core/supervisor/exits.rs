//! What an exit means beyond its exit status: an unrequested exit with code 0 may have been a planned restart; the same
//! fast death again and again is deterministic; a program that is being replaced is an update, not a failure.

use super::state::{Ending, HeldExit, ProbePurpose, Repair, State, StopReason, Streak, Update};
use super::stop::{NOT_EXECUTABLE, NOT_FOUND, REFUSAL};
use super::{Effect, Effects, Generation, Intent, Moment, Outcome, Report, Supervisor, exit};
use crate::event::Fingerprint;
use crate::fault::Fault;
use crate::handoff::{ASKED_AGE_MAX, HandoffVerdict, Pending, Support};
use crate::history::{Fact, PastRun, Settled};
use crate::prelude::*;
use crate::restart_policy::{Cause, Run};
use crate::{ExitStatus, Policy};
use core::time::Duration;

/// Signals by which a program ends itself, or the kernel a program that is broken: ILL, TRAP, ABRT, BUS, SEGV, SYS.
#[cfg(not(target_os = "macos"))]
const FATAL: [i32; 6] = [4, 5, 6, 7, 11, 31];
#[cfg(target_os = "macos")]
const FATAL: [i32; 6] = [4, 5, 6, 10, 11, 12];

/// A death within this time after the spawn is fast.
const FAST: Duration = Duration::from_secs(30);

/// So many equal ones in a row, with the same configuration and program, are no accident: a refused migration ended in a
/// tight loop of signal 11 (openclaw #109831).
const EQUAL_MAX: u32 = 3;

/// The first pause of a start that waits for an update, doubled up to the last.
const UPDATE_PAUSE_MIN: Duration = Duration::from_secs(1);
const UPDATE_PAUSE_MAX: Duration = Duration::from_secs(30);

impl Supervisor {
    /// Nothing of it is left. What that means is decided once the operator's own command has run.
    pub(super) fn decide(&mut self, now: Moment, ending: Ending, fx: &mut Effects) {
        if let Some(Outcome { code, reason }) = self.take_lost() {
            return self.exit(now, code, reason, fx);
        }
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
            // Another request may have come since.
            (StopReason::Unconfirmed | StopReason::Asked, _) => Cause::Asked,
            _ => Cause::Failed,
        };
        match self.intent.take() {
            Intent::Stop(by) | Intent::StopNow(by) => {
                // A request that came while the hook ran did not cause this end.
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
                self.restarts.note_asked(now, &run, &self.policy);
                self.restarts.grant_trial();
                self.start_at_gate(now, fx);
            }
            Intent::Restart(_) if self.has(Fault::RequestSpendsBudget) => self.plan(now, run, Cause::Failed, told, fx),
            Intent::Restart(_) => self.plan(now, run, Cause::Asked, told, fx),
            Intent::Run if self.is_spared(why) => self.plan(now, run, Cause::Asked, told, fx),
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
                // One that came up before may be in the middle of an update; one that never did will not be found.
                (StopReason::Died, ExitStatus::Code(code @ (NOT_FOUND | NOT_EXECUTABLE)))
                    if !answered && self.readied.is_none() && !self.has(Fault::NotFoundRetried) =>
                {
                    self.remember_settled(run, Cause::Failed, fx);
                    self.exit(now, exit::EX_CONFIG, self.unfound_reason(code), fx);
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
                    | StopReason::Orphaned
                    | StopReason::Unconfirmed
                    | StopReason::LeaseLost,
                    _,
                ) => {
                    self.plan(now, run, cause, told, fx);
                }
            },
        }
    }

    fn unfound_reason(&self, code: i32) -> String {
        let what = match code {
            NOT_FOUND => "its command, or the interpreter that this asks for, was not found (is Node.js on this PATH?)",
            _ => "its command cannot be executed",
        };
        format!(
            "the gateway exited with {code} before it ever answered: {what}; see the gateway's output {}; correct COMMAND or the \
             PATH of this service, then start again",
            self.messages()
        )
    }

    fn plan(&mut self, now: Moment, run: Run, cause: Cause, told: &str, fx: &mut Effects) {
        self.remember_settled(run, cause, fx);
        let plan = self.restarts.after_run(now, run, cause, &self.policy);
        self.follow_plan(now, plan, told, fx);
    }

    /// Finds out once whether the gateway's command line can be asked, after its first boot: not beside it.
    pub(super) fn negotiate(&mut self, fx: &mut Effects) {
        if self.policy.handoff && self.handoffs.begin_negotiation() {
            fx.push(Effect::Negotiate);
        }
    }

    pub(super) fn on_negotiated(&mut self, now: Moment, support: &Support, fx: &mut Effects) {
        if self.state.is_over() {
            return;
        }
        match support {
            Support::Supported => {
                self.handoffs.learn(true);
            }
            Support::Unsupported(why) => {
                if self.handoffs.learn(false) {
                    fx.push(Effect::Report(Report::HandoffUnsupported { generation: None, reason: why.clone() }));
                }
            }
            Support::TimedOut(why) => {
                self.handoffs.forget_negotiation();
                let reason = format!("the command line did not say whether it knows restart handoffs: {why}");
                fx.push(Effect::Report(Report::HandoffTimedOut { generation: None, reason }));
            }
        }
        self.tick_handoffs(now, fx);
    }

    /// Puts off what the end of a run means, if its gateway may have planned it and can be asked. `death` is that of an exit
    /// with 0, or unknown, for one that was adopted.
    pub(super) fn defer_exit(&mut self, now: Moment, ending: &Ending, cause: Cause) -> Option<Pending> {
        let Ending { child, run, death, .. } = *ending;
        // The row names the process that wrote it, which is the one that listens.
        let pid = child.listener.filter(|_| !self.has(Fault::LeaderAskedAbout)).unwrap_or(child.pid);
        let answered = run.started.is_some() || self.has_answered(&child);
        let is_possible = match death {
            ExitStatus::Code(0) => cause == Cause::CleanExit,
            ExitStatus::Unknown => !self.has(Fault::AdoptedExitIsCrash),
            ExitStatus::Code(_) | ExitStatus::Signal { .. } => false,
        };
        let is_fresh = now < run.ended.saturating_add(ASKED_AGE_MAX);
        let can_be_asked = self.policy.handoff && pid > 0 && !self.has(Fault::HandoffNotAsked);
        let pending = Pending { generation: self.generation, pid, run, cause, at: now };
        let is_deferred = is_possible && is_fresh && can_be_asked && answered && self.handoffs.defer(pending.clone());
        is_deferred.then_some(pending)
    }

    /// Goes on after an exit that waits for its handoff verdict.
    pub(super) fn go_on_deferred(&mut self, now: Moment, pending: Pending, told: &str, fx: &mut Effects) {
        self.remember_settled(pending.run, pending.cause, fx);
        match self.restarts.after_exit(now, pending.run, pending.cause, &self.policy) {
            Some(plan) => self.follow_plan(now, plan, told, fx),
            None => self.state = State::Awaiting(HeldExit { pending, told: told.to_owned() }),
        }
        self.tick_handoffs(now, fx);
    }

    /// Asks about the oldest exit once nothing is held up by it, or its time runs out.
    pub(super) fn tick_handoffs(&mut self, now: Moment, fx: &mut Effects) {
        if let Some(ticket) = self.handoffs.lost(now) {
            self.on_consumed(now, ticket, &HandoffVerdict::TimedOut("no answer came".to_owned()), fx);
        }
        let is_idle = matches!(self.state, State::Running { .. } | State::Awaiting(_));
        let Some(Pending { generation, pid, .. }) =
            self.handoffs.due(now, is_idle || self.has(Fault::HandoffBesideBoot))
        else {
            return;
        };
        let (generation, pid) = (*generation, *pid);
        self.ticket += 1;
        let ticket = self.ticket;
        self.handoffs.ask(ticket, now);
        fx.push(Effect::Consume { ticket, generation, pid });
    }

    pub(super) fn on_consumed(&mut self, now: Moment, ticket: u64, word: &HandoffVerdict, fx: &mut Effects) {
        let Some(Pending { generation, run, cause, at, .. }) = self.handoffs.settle(ticket) else { return };
        let about = Some(generation);
        let report = match word {
            HandoffVerdict::Accepted(reason) => Report::HandoffAccepted { generation, reason: reason.clone() },
            HandoffVerdict::Missing => Report::HandoffMissing { generation },
            HandoffVerdict::Rejected(reason) => Report::HandoffRejected { generation, reason: reason.clone() },
            HandoffVerdict::Unsupported(reason) => {
                self.handoffs.learn_by_word();
                Report::HandoffUnsupported { generation: about, reason: reason.clone() }
            }
            HandoffVerdict::TimedOut(reason) => Report::HandoffTimedOut { generation: about, reason: reason.clone() },
        };
        fx.push(Effect::Report(report));
        let is_planned = matches!(word, HandoffVerdict::Accepted(_)) || self.has(Fault::HandoffTakenForGranted);
        if is_planned {
            fx.push(Effect::Remember { generation, fact: Fact::Planned });
        }
        if is_planned {
            self.restarts.note_asked(at, &run, &self.policy);
        }
        let was_delayed = self.restarts.settle_exit(at, run, cause, is_planned);
        self.follow_word(now, generation, is_planned, was_delayed, fx);
        self.tick_handoffs(now, fx);
    }

    /// What the handoff verdict on this gateway means for a start that waits.
    fn follow_word(
        &mut self,
        now: Moment,
        generation: Generation,
        is_planned: bool,
        was_delayed: bool,
        fx: &mut Effects,
    ) {
        let is_last = generation == self.generation;
        match &self.state {
            // It waits for what was taken for a loop or a failure and is none.
            State::BackingOff { .. } if is_last && is_planned && was_delayed => self.start_at_gate(now, fx),
            State::Awaiting(_) if is_last && is_planned => self.start_at_gate(now, fx),
            State::Awaiting(held) if is_last => {
                let told = held.told.clone();
                let plan = self.restarts.after_no(now, &self.policy);
                self.follow_plan(now, plan, &told, fx);
            }
            State::Awaiting(held) => {
                let told = held.told.clone();
                if let Some(plan) = self.restarts.reconsider_exit(now, held.pending.at, &self.policy) {
                    self.follow_plan(now, plan, &told, fx);
                }
            }
            State::BackingOff { .. }
            | State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Adopting(_)
            | State::Probing { .. }
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

    /// Takes in what happened before us, oldest first: the same rules give the same state.
    pub(super) fn recall(&mut self, runs: &[PastRun]) {
        for past in runs {
            self.restarts.recall(core::slice::from_ref(past), &self.policy);
            let Settled::Ran(run, cause) = past.settled else { continue };
            // What was asked for says nothing of the next one.
            if cause == Cause::Asked || self.has(Fault::StreakForgotten) {
                continue;
            }
            if self.is_deterministic(past.death, run.ended.saturating_sub(past.spawned)) {
                self.restarts.require_trial(run.ended);
            }
        }
        if let Some(streak) = &mut self.streak {
            streak.recalled = true;
        }
    }

    /// Whether this is the last of [`EQUAL_MAX`] equal fast deaths in a row.
    pub(super) fn is_deterministic(&mut self, death: ExitStatus, age: Duration) -> bool {
        let ExitStatus::Signal { number, .. } = death else {
            self.streak = None;
            return false;
        };
        if !FATAL.contains(&number) || age >= FAST {
            self.streak = None;
            return false;
        }
        let before = self.streak.filter(|streak| streak.signal == number);
        let count = before.map_or(1, |streak| streak.count + 1);
        let recalled = before.is_some_and(|streak| streak.recalled);
        self.streak = Some(Streak { signal: number, count, recalled });
        count >= EQUAL_MAX && !self.has(Fault::FatalSignalRetried)
    }

    /// The configuration and the program's files, as they were when this process was started.
    pub(super) fn take_fingerprint(&mut self, fingerprint: Fingerprint) {
        let before = self.fingerprint.replace(fingerprint).unwrap_or(fingerprint);
        let repaired = self.repair == Repair::Fresh && !self.has(Fault::RepairRearmed);
        if repaired {
            self.repair = Repair::Tried;
        }
        if before.program != fingerprint.program {
            self.restarts.renew();
        }
        if before != fingerprint {
            self.streak = None;
            // A configuration that it refuses may be all that kept the command line from answering.
            if before.program != fingerprint.program || self.handoffs.support() == Some(false) {
                self.handoffs.renew();
            }
        }
        // A repair writes into the configuration: what it has changed is no news for which it is tried again.
        if before.program != fingerprint.program || before.config != fingerprint.config && !repaired {
            self.repair = Repair::Untried;
        }
        // A gateway may write into its configuration at each boot: that must not keep it from backing off.
        if before.config != fingerprint.config && self.has(Fault::ConfigEndsBackoff) {
            self.restarts.renew();
        }
    }

    /// Gives up early.
    pub(super) fn give_up_on(&mut self, now: Moment, run: Run, told: &str, fx: &mut Effects) {
        self.remember_settled(run, Cause::Failed, fx);
        let restarts = self.restarts.spent_at(now, &self.policy);
        self.restarts.after_run(now, run, Cause::Failed, &self.policy);
        self.restarts.require_trial(now);
        let (count, alike) = match self.streak {
            Some(Streak { count, recalled: true, .. }) => (count, "the first of them before this supervisor began"),
            Some(Streak { count, .. }) => (count, "with the same configuration and the same program"),
            None => (EQUAL_MAX, "with the same configuration and the same program"),
        };
        let why = format!(
            "gave up: {count} gateways in a row {told}, {alike}, so another would as well; see the gateway's output {}; \
             run 'openclaw doctor', or repair the installation, then start again",
            self.messages()
        );
        let Policy { max_restarts, restart_window: window, .. } = self.policy;
        fx.push(Effect::Report(Report::RestartGaveUp { restarts, max_restarts, window, why: why.clone() }));
        self.exit(now, exit::GAVE_UP, why, fx);
    }

    /// Waits for the end of an update. The start of this gateway, which did not come about, costs nothing. Says no when
    /// that has lasted for too long.
    pub(super) fn wait_for_update(&mut self, now: Moment, generation: Generation, why: &str, fx: &mut Effects) -> bool {
        let update = self.update.unwrap_or(Update { since: now, tries: 0 });
        if update.since.saturating_add(self.policy.update_timeout) <= now || self.has(Fault::UpdateCounted) {
            return false;
        }
        let pause = UPDATE_PAUSE_MIN.saturating_mul(1 << update.tries.min(5)).min(UPDATE_PAUSE_MAX);
        self.update = Some(Update { tries: update.tries + 1, ..update });
        fx.push(Effect::Report(Report::SpawnFailed { generation, why: why.to_owned() }));
        // Before the hook nothing was written down, and the number is free.
        if generation == self.generation {
            fx.push(Effect::Remember { generation, fact: Fact::Settled(Settled::Postponed) });
        }
        self.intent = Intent::Run;
        let why = "an update of OpenClaw seems to be under way, which is waited for and costs no budget";
        self.start_at(now, now.saturating_add(pause), why, fx);
        true
    }
}
