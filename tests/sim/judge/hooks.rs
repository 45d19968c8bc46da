//! Hooks run between two gateways, each has a timeout, and each that starts finishes once.

use super::steps::Answer;
use super::{Effect, EndedRun, Event, Generation, Goal, Judge, Moment, Turn, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::hook::{GRACE, KILL_TIME_MAX};
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::{Call, ExitStatus, Hook, HookEnd, Report, Request};
use std::time::Duration;

type Judgement = Result<(), Broken>;

/// The end of a gateway whose post-stop hook has not finished.
#[derive(Debug, Clone, Copy)]
pub(super) struct PendingEnd {
    pub(super) over: EndedRun,
    pub(super) pid: i32,
    /// The process that OpenClaw's record of a planned exit names.
    pub(super) asked_by: i32,
    /// No request had caused it.
    pub(super) unasked: bool,
}

/// A running hook.
#[derive(Debug, Clone, Copy)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations of one call; any combination happens")]
pub(super) struct HookRun {
    ticket: u64,
    hook: Hook,
    generation: Generation,
    /// When it was started, sent SIGTERM or sent SIGKILL; its current timeout counts from here.
    since: Moment,
    called: bool,
    timed_out: bool,
    ended: bool,
    killed: bool,
}

impl HookRun {
    fn patience(&self, timeout: Duration) -> Duration {
        match (self.killed, self.ended) {
            (true, _) => KILL_TIME_MAX,
            (false, true) => GRACE,
            (false, false) => timeout,
        }
    }
}

impl Judge {
    pub(super) fn awaits_hook(&self, ticket: u64) -> bool {
        !self.ends() && self.hook_run.is_some_and(|hook_run| hook_run.ticket == ticket)
    }

    /// Whether it was sent SIGKILL.
    pub(super) fn hook_was_killed(&self) -> bool {
        self.hook_run.is_some_and(|hook_run| hook_run.killed)
    }

    /// Whether a hook before a start runs.
    pub(super) fn prepares(&self) -> bool {
        self.hook_run.is_some_and(|hook_run| hook_run.hook != Hook::PostStop)
    }

    pub(super) fn rearm_hook(&mut self, at: Moment) {
        if let Some(hook_run) = &mut self.hook_run {
            self.extra_stop_time += at.saturating_sub(hook_run.since);
            hook_run.since = at;
        }
    }

    /// How long hooks may delay a stop.
    pub(super) fn hook_time(&self) -> Duration {
        let post_stop = self.policy.post_stop.map_or(Duration::ZERO, |timeout| timeout + GRACE + KILL_TIME_MAX);
        let pre_start = self.policy.pre_start.or(self.policy.repair).map_or(Duration::ZERO, |_| GRACE + KILL_TIME_MAX);
        post_stop.max(pre_start).saturating_add(self.extra_stop_time)
    }

    fn timeout(&self, hook: Hook) -> Duration {
        let timeout = match hook {
            Hook::PreStart => self.policy.pre_start,
            Hook::PostStop => self.policy.post_stop,
            Hook::Repair => self.policy.repair,
        };
        timeout.unwrap_or_default()
    }

    /// When the current timeout of the running hook is over.
    pub(super) fn hook_due(&self) -> Option<Moment> {
        self.hook_run.map(|hook_run| hook_run.since.saturating_add(hook_run.patience(self.timeout(hook_run.hook))))
    }

    pub(super) fn judge_call(&mut self, at: Moment, ticket: u64, call: &Call, answer: Answer<'_>) -> Judgement {
        must(ticket == self.ticket + 1, "P10", "tickets count up")?;
        self.ticket = ticket;
        let free = self.may_call(answer);
        self.judge_act(at)?;
        let reported = self.hook_run.as_mut().is_some_and(|hook_run| {
            (hook_run.ticket, hook_run.since) = (ticket, at);
            hook_run.hook == call.hook()
                && hook_run.generation == call.generation()
                && !std::mem::replace(&mut hook_run.called, true)
        });
        must(reported, "P9", "a hook is called without its report")?;
        must(self.lease.held, "lease", "a hook is called without the lease")?;
        must(self.owned.is_none() && !self.spawning && !self.adopting, "P1", "a hook is called while a gateway runs")?;
        let left = self.alive.iter().find(|(old, alive)| **alive > 0 && !self.reported_survivors.contains(old));
        must(left.is_none(), "P1", "a hook is called while processes of a tree are left")?;
        match call {
            Call::PreStart { generation } => {
                must(self.policy.pre_start.is_some(), "P9", "a hook that is not configured")?;
                must(*generation == self.generation + 1, "P2", "generations count up")?;
                must(self.goal <= Goal::Restart, "P5", "a start is prepared after a stop or a detach")?;
                free?;
                self.pace.begin(at)?;
                (self.port, self.duty) = (super::PortWatch::default(), None);
                Ok(())
            }
            Call::Repair { generation } => {
                must(self.policy.repair.is_some(), "P9", "a repair that is not configured")?;
                must(*generation == self.generation, "P9", "a repair for another gateway")?;
                must(self.goal <= Goal::Restart, "P5", "a repair after a stop or a detach")?;
                free?;
                let refused = self.pace.refused && !self.port.contended;
                must(refused, "P4", "a repair though the gateway did not refuse to start")?;
                self.repair_changed_it = true;
                must(!std::mem::replace(&mut self.repaired, true), "P4", "a second repair without a gateway in between")
            }
            Call::PostStop { generation, pid, reason, death } => {
                let Some(pending_end) = self.pending_end.filter(|_| self.policy.post_stop.is_some()) else {
                    return must(false, "P9", "a post-stop hook for a gateway that has not ended");
                };
                let right = (*generation, *pid, *death) == (self.generation, pending_end.pid, pending_end.over.death);
                must(right, "P9", "a post-stop hook gets another generation, process or exit status")?;
                let same_reason =
                    self.cause.is_none_or(|(reported, cause)| reported != *generation || cause == *reason);
                must(same_reason, "P9", "a post-stop hook gets another reason than the log")
            }
        }
    }

    pub(super) fn judge_hook_signal(&mut self, turn: &Turn<'_>, ticket: u64, kills: bool) -> Judgement {
        let Some(hook_run) = self.hook_run.filter(|hook_run| hook_run.called && hook_run.ticket == ticket) else {
            return Err(Broken::new("P2", "a signal to a hook that is not running"));
        };
        must(!hook_run.killed && (kills || !hook_run.ended), "P2", "the same signal to a hook twice")?;
        let spent = turn.at >= hook_run.since.saturating_add(hook_run.patience(self.timeout(hook_run.hook)));
        let stop = matches!(turn.event, Event::Requested { request: Request::Stop | Request::Detach, .. });
        let unwanted = hook_run.hook != Hook::PostStop && stop && self.goal >= Goal::Detach;
        let wait_skipped = stop && self.goal == Goal::StopNow;
        if kills {
            must(
                spent && hook_run.ended || wait_skipped || self.lease.lost,
                "P3",
                "SIGKILL to a hook before its timeout",
            )?;
        } else {
            must(spent && hook_run.timed_out || unwanted, "P3", "SIGTERM to a hook before its timeout")?;
        }
        let since = turn.at;
        self.hook_run = Some(HookRun { since, ended: true, killed: kills, ..hook_run });
        Ok(())
    }

    pub(super) fn judge_hook_report(&mut self, turn: &Turn<'_>, report: &Report) -> Judgement {
        match report {
            Report::HookStarted { hook, generation } => {
                must(self.hook_run.is_none(), "P9", "two hooks at once")?;
                self.hook_run = Some(HookRun {
                    ticket: 0,
                    hook: *hook,
                    generation: *generation,
                    since: turn.at,
                    called: false,
                    timed_out: false,
                    ended: false,
                    killed: false,
                });
                Ok(())
            }
            Report::HookTimedOut { hook, timeout, .. } => {
                let right = *timeout == self.timeout(*hook);
                let Some(hook_run) =
                    self.hook_run.as_mut().filter(|hook_run| hook_run.hook == *hook && !hook_run.ended)
                else {
                    return must(false, "P9", "a timeout of a hook that is not running");
                };
                let first = !std::mem::replace(&mut hook_run.timed_out, true);
                must(
                    right && first && turn.at >= hook_run.since.saturating_add(*timeout),
                    "P9",
                    "a hook times out too early, twice or with the wrong timeout",
                )
            }
            Report::HookFinished { hook, generation, end, .. } => {
                let Some(hook_run) = self.hook_run.take() else {
                    return must(false, "P9", "a hook finishes that had not started");
                };
                must(
                    (hook_run.hook, hook_run.generation) == (*hook, *generation),
                    "P9",
                    "another hook is reported as finished",
                )?;
                let over = hook_run.killed && turn.at >= hook_run.since.saturating_add(KILL_TIME_MAX);
                let heard = match turn.event {
                    Event::HookEnded { ticket, end: reported } => *ticket == hook_run.ticket && reported == end,
                    // It was cancelled before the store had confirmed the lease.
                    _ if !hook_run.called => matches!(end, HookEnd::NotStarted(_)),
                    _ => over && *end == HookEnd::Ended(ExitStatus::Unknown),
                };
                must(heard, "P9", "a hook is reported as finished without its exit")?;
                self.finish(turn.at, hook_run, end);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn finish(&mut self, at: Moment, hook_run: HookRun, end: &HookEnd) {
        if self.lease.lost {
            return;
        }
        let interrupted = !hook_run.called || hook_run.ended && !hook_run.timed_out;
        if !hook_run.called {
            self.fence.take_back();
        }
        match hook_run.hook {
            Hook::PostStop => self.conclude(at),
            Hook::PreStart | Hook::Repair if interrupted => {}
            Hook::Repair if end.is_success() && !hook_run.timed_out => self.pace.repair(at),
            Hook::Repair => {}
            Hook::PreStart if end.is_success() && !hook_run.timed_out => self.prepared = true,
            Hook::PreStart
                if matches!(end, HookEnd::Postponed(_)) && !hook_run.timed_out && self.waits_for_update(at) =>
            {
                self.pace.hold();
            }
            Hook::PreStart => {
                self.generation = hook_run.generation;
                self.never_started = Some(hook_run.generation);
                self.pace.spawn_failed(at);
            }
        }
    }

    /// Classifies the end of a gateway, given the current goal.
    pub(super) fn conclude(&mut self, at: Moment) {
        let Some(PendingEnd { over, unasked, asked_by, .. }) = self.pending_end.take() else { return };
        let goal = self.goal;
        // The operator has a hand on it.
        let spared = self.is_paused() && goal == Goal::Run && !over.ended_by_us && !over.limited && !over.withdrawn;
        let asked = !unasked && goal == Goal::Restart || spared;
        let unasked = unasked && !spared;
        self.unfound &= !spared;
        if let Some(ended) = &mut self.ended {
            ended.cause = match over.death {
                _ if asked || over.withdrawn || !unasked && goal >= Goal::Stop => Cause::Asked,
                _ if over.limited => Cause::Memory,
                ExitStatus::Code(0) if !over.ended_by_us && over.answered => Cause::CleanExit,
                _ => Cause::Failed,
            };
        }
        let over = EndedRun { settled: at, asked, ..over };
        if unasked && goal == Goal::Run {
            self.note_streak(&over);
        }
        let waits = unasked && goal == Goal::Run && self.waits_for_verdict(asked_by, &over);
        let cost = self.pace.settle(&over, waits);
        if waits {
            self.put_off(asked_by, &over, cost);
        }
        if unasked && goal == Goal::Restart {
            self.pace.ask_before(at, self.lease.held);
        }
        if goal <= Goal::Restart {
            self.goal = Goal::Run;
        }
    }

    /// What this step must have done about hooks.
    pub(super) fn judge_hooks(&self, turn: &Turn<'_>) -> Judgement {
        must(
            self.ends() || self.pending_end.is_none() || self.hook_run.is_some(),
            "P9",
            "a gateway ends without its post-stop hook",
        )?;
        must(!self.ends() || self.hook_run.is_none(), "P6", "a hook is left running at the exit")?;
        let Some(hook_run) = self.hook_run else {
            let finished = turn.fx.iter().any(|effect| matches!(effect, Effect::Report(Report::HookFinished { .. })));
            return must(
                !(finished && self.lease.lost) || self.ends(),
                "lease",
                "the supervisor lost the lease and stays",
            );
        };
        must(hook_run.called || self.fence.waits(), "P9", "a hook is reported and not called")?;
        if let Event::Requested { .. } = turn.event {
            let unwanted = hook_run.hook != Hook::PostStop && self.goal >= Goal::Detach;
            must(!unwanted || hook_run.ended, "P5", "a pre-start hook or repair goes on after a stop or detach")?;
            let stop = matches!(turn.event, Event::Requested { request: Request::Stop, .. });
            must(!stop || self.goal < Goal::StopNow || hook_run.killed, "P5", "a second stop waits for a hook")?;
        }
        let heard = matches!(turn.event, Event::HookEnded { ticket, .. } if *ticket == hook_run.ticket);
        must(!heard, "P9", "the exit of a hook is ignored")
    }
}
