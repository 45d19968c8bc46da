//! Exits with 0 that wait for a handoff verdict, starts that wait for an update, and crash loops.

use super::pace::Class;
use super::steps::Answer;
use super::{
    Duty, Effect, Ended, EndedRun, Event, ExitStatus, Fingerprint, Generation, Goal, Judge, Moment, Owner, PortWatch,
    Turn, must,
};
use crate::fake_shell::Broken;
use openclaw_supervise_core::handoff::{ASK_BY, HandoffVerdict, Support};
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::{PastRun, Report, Settled, SpawnFailure};
use std::collections::VecDeque;
use std::time::Duration;

type Judgement = Result<(), Broken>;

/// The most exits that may wait for a verdict.
const WAITING_MAX: usize = 8;

/// A verdict that takes longer than this is lost.
const VERDICT_LOST: Duration = Duration::from_secs(100);

/// The verdict on an exit is asked for within this time.
const FRESH: Duration = Duration::from_secs(55);

/// How late the core may be woken.
const WAKE_MAX: Duration = Duration::from_secs(1);

/// Signals of a broken program, on Linux.
const FATAL: [i32; 6] = [4, 5, 6, 7, 11, 31];
const FAST: Duration = Duration::from_secs(30);
const EQUAL_MAX: u32 = 3;

/// What the start after an exit has cost of the restart budget so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cost {
    Nothing,
    /// The gateway was stable: it costs nothing, whatever the verdict.
    Never,
    /// There was more than one of late.
    Restart,
}

/// An exit that may have been planned; its verdict is not known yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exit {
    generation: Generation,
    pid: i32,
    died: Moment,
    pub(super) settled: Moment,
    pub(super) cost: Cost,
    /// The exit status is unknown: a failure until the verdict, and an unclean boot since `unclean`.
    pub(super) unknown: bool,
    pub(super) unclean: Option<Moment>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Handoffs {
    exits: VecDeque<Exit>,
    asked: Option<(u64, Moment)>,
    support: Option<bool>,
    /// `support` holds for the current program.
    known: bool,
    negotiates: bool,
    /// The verdict of this step, until it is reported.
    verdict: Option<(Generation, HandoffVerdict)>,
    /// The exit that it accepts, until that is recorded.
    planned: Option<Generation>,
}

impl Handoffs {
    pub(super) fn awaits(&self, ticket: u64) -> bool {
        self.asked.is_some_and(|(asked, _)| asked == ticket)
    }

    pub(super) fn negotiating(&self) -> bool {
        self.negotiates
    }

    pub(super) fn rearm(&mut self, at: Moment) {
        self.asked = self.asked.map(|(ticket, _)| (ticket, at));
    }
}

impl Judge {
    /// Whether this exit waits for a verdict.
    pub(super) fn waits_for_verdict(&self, pid: i32, over: &EndedRun) -> bool {
        let may_be = matches!(over.death, ExitStatus::Code(0) | ExitStatus::Unknown) && !over.ended_by_us;
        let clean = may_be && over.settled < over.died + FRESH && over.answered;
        let mute = self.handoffs.known && self.handoffs.support == Some(false);
        clean && pid > 0 && self.policy.handoff && !mute && self.handoffs.exits.len() < WAITING_MAX
    }

    /// Whether the next start waits for the verdict on the last exit.
    pub(super) fn holds(&self) -> bool {
        let last = self.handoffs.exits.back().is_some_and(|exit| exit.generation == self.generation);
        last && self.pace.pending.is_some() && self.owned.is_none() && !self.adopting && self.goal == Goal::Run
    }

    pub(super) fn put_off(&mut self, pid: i32, over: &EndedRun, cost: Cost) {
        let (generation, died, settled) = (self.generation, over.died, over.settled);
        let (unknown, unclean) = (over.death == ExitStatus::Unknown, over.unclean());
        self.handoffs.exits.push_back(Exit { generation, pid, died, settled, cost, unknown, unclean });
    }

    pub(super) fn judge_negotiate(&mut self) -> Judgement {
        let serves = self.owned.as_ref().is_some_and(|owned| owned.started.is_some() && !owned.ending());
        must(self.policy.handoff && serves, "handoff", "handoff support is asked for during a boot")?;
        must(!self.handoffs.negotiates && !self.handoffs.known, "handoff", "known handoff support is asked for again")?;
        self.handoffs.negotiates = true;
        Ok(())
    }

    pub(super) fn note_support(&mut self, support: &Support) {
        let known = match support {
            Support::Supported => true,
            Support::Unsupported(_) => false,
            Support::TimedOut(_) => return self.handoffs.negotiates = false,
        };
        (self.handoffs.support, self.handoffs.known, self.handoffs.negotiates) = (Some(known), true, false);
    }

    pub(super) fn judge_no_respawn(&self, no_respawn: bool) -> Judgement {
        let mute = self.policy.handoff && self.handoffs.support == Some(false);
        must(no_respawn == mute, "handoff", "successors must be forbidden if and only if handoffs are unsupported")
    }

    pub(super) fn judge_consume(&mut self, at: Moment, ticket: u64, generation: Generation, pid: i32) -> Judgement {
        must(ticket == self.ticket + 1, "P10", "tickets count up")?;
        must(self.handoffs.asked.is_none(), "handoff", "two verdicts are asked for at once")?;
        let Some(exit) = self.handoffs.exits.front() else {
            return must(false, "handoff", "a verdict is asked for and no exit waits for one");
        };
        must((exit.generation, exit.pid) == (generation, pid), "handoff", "the verdict on another exit is asked for")?;
        let serves = self.owned.as_ref().is_some_and(|owned| owned.started.is_some() && !owned.ending());
        let held_up = serves || self.holds() || at >= exit.died + ASK_BY;
        must(held_up, "handoff", "a verdict is asked for during a boot")?;
        (self.ticket, self.handoffs.asked) = (ticket, Some((ticket, at)));
        Ok(())
    }

    pub(super) fn note_verdict(&mut self, at: Moment, ticket: u64, verdict: &HandoffVerdict) {
        if !self.handoffs.awaits(ticket) {
            return;
        }
        if let HandoffVerdict::Unsupported(_) = verdict {
            (self.handoffs.support, self.handoffs.known) = (Some(false), true);
        }
        self.settle_exit(at, verdict);
    }

    fn settle_exit(&mut self, at: Moment, verdict: &HandoffVerdict) {
        self.handoffs.asked = None;
        let Some(exit) = self.handoffs.exits.pop_front() else { return };
        let planned = matches!(verdict, HandoffVerdict::Accepted(_));
        self.handoffs.verdict = Some((exit.generation, verdict.clone()));
        self.handoffs.planned = planned.then_some(exit.generation);
        let decides = self.holds();
        self.pace.settle_exit(at, &exit, planned);
        if !planned {
            self.pace.deny(at);
        }
        // With the other one planned, this is the first of late: the next start need not wait for its verdict.
        if let Some(last) = self.handoffs.exits.back_mut().filter(|_| planned && decides) {
            last.cost = Cost::Nothing;
            self.pace.pending = Some(Class::Open { again: true });
        }
    }

    /// A person wants the start that waits for a verdict: whatever this will be, it costs nothing.
    pub(super) fn start_without_verdict(&mut self) {
        if self.holds()
            && self.goal == Goal::Run
            && let Some(last) = self.handoffs.exits.back_mut()
        {
            last.cost = Cost::Never;
        }
    }

    /// The reported verdict is the one that came, or that none came in time.
    pub(super) fn judge_verdict(&mut self, turn: &Turn<'_>, report: &Report) -> Judgement {
        if let Report::HandoffUnsupported { generation: None, .. } | Report::HandoffTimedOut { generation: None, .. } =
            report
        {
            return must(
                matches!(turn.event, Event::Negotiated { .. }),
                "P9",
                "an answer about handoff support that did not come",
            );
        }
        let lost = self.handoffs.asked.is_some_and(|(_, asked)| turn.at >= asked + VERDICT_LOST);
        if lost && self.handoffs.verdict.is_none() {
            self.settle_exit(turn.at, &HandoffVerdict::TimedOut(String::new()));
        }
        let Some((about, verdict)) = self.handoffs.verdict.take() else {
            return must(false, "P9", "a verdict that did not come");
        };
        let right = match report {
            Report::HandoffAccepted { generation, .. } => {
                matches!(verdict, HandoffVerdict::Accepted(_)) && *generation == about
            }
            Report::HandoffMissing { generation } => verdict == HandoffVerdict::Missing && *generation == about,
            Report::HandoffRejected { generation, .. } => {
                matches!(verdict, HandoffVerdict::Rejected(_)) && *generation == about
            }
            Report::HandoffUnsupported { generation, .. } => {
                matches!(verdict, HandoffVerdict::Unsupported(_)) && *generation == Some(about)
            }
            Report::HandoffTimedOut { generation, .. } => {
                matches!(verdict, HandoffVerdict::TimedOut(_)) && *generation == Some(about)
            }
            _ => false,
        };
        must(right, "P9", "another verdict is reported than came")
    }

    pub(super) fn judge_planned(&mut self, generation: Generation) -> Judgement {
        let said = self.handoffs.planned.take() == Some(generation);
        must(said, "P4", "an exit counts as planned without an accepted handoff")
    }

    /// What must have been asked or reported by now.
    pub(super) fn judge_handoffs(&self, turn: &Turn<'_>) -> Judgement {
        let Handoffs { exits, asked, verdict, planned, .. } = &self.handoffs;
        must(verdict.is_none(), "P9", "a verdict is not reported")?;
        must(planned.is_none(), "P9", "a planned restart is not recorded")?;
        let Some(exit) = exits.front().filter(|_| !self.ends()) else { return Ok(()) };
        let due = match asked {
            Some((_, asked)) => *asked + VERDICT_LOST,
            None => exit.died + ASK_BY,
        };
        let starts = turn.fx.iter().any(|effect| matches!(effect, Effect::Report(Report::GatewayStarted { .. })));
        must(
            !starts || asked.is_some(),
            "handoff",
            "the next gateway is up and the verdict on the last exit is not asked for",
        )?;
        if self.holds() {
            must(asked.is_some(), "handoff", "the next start waits for a verdict that is not asked for")?;
            self.pace.may_hold()?;
        }
        let missed = *turn.event == Event::Tick && due <= turn.at;
        must(!missed, "handoff", "a verdict is asked for, or given up, too late")?;
        let woken = turn.after.is_some_and(|after| after <= due.max(turn.at) + WAKE_MAX);
        must(woken, "handoff", "no deadline to ask for a verdict")
    }

    /// Judges the report that a gateway has left a successor.
    pub(super) fn judge_succession(
        &mut self,
        at: Moment,
        generation: Generation,
        pid: i32,
        answer: Answer<'_>,
    ) -> Judgement {
        let seen =
            answer.is_some_and(|(_, sighting)| matches!(&sighting.owner, Owner::Ours(holder) if holder.pid == pid));
        must(seen && self.duty == Some(Duty::Succeed), "P9", "a successor that no probe has seen")?;
        let Some(owned) = self.owned.take().filter(|owned| owned.generation == generation) else {
            return must(false, "P9", "the successor of another gateway");
        };
        let died = owned.death.map_or(at, |(_, died)| died);
        self.ended = Some(Ended { generation, started: owned.started, died, clean: true, cause: Cause::Asked });
        (self.port, self.missing_pid) = (PortWatch::default(), Some(pid));
        self.pace.succeed(at);
        Ok(())
    }

    /// Compares configuration and program with those of the gateway before.
    pub(super) fn note_fingerprint(&mut self, fingerprint: Fingerprint) {
        let repair_changed_it = std::mem::take(&mut self.repair_changed_it);
        let Some(before) = self.fingerprint.replace(fingerprint) else { return };
        if before != fingerprint {
            self.streak = None;
            self.handoffs.known &= self.handoffs.support != Some(false);
        }
        if before.program != fingerprint.program {
            (self.repaired, self.handoffs.known) = (false, false);
            self.pace.renew();
        } else if before.config != fingerprint.config {
            self.repaired &= repair_changed_it;
        }
    }

    /// Counts a crash loop.
    pub(super) fn note_streak(&mut self, over: &EndedRun) {
        if over.ended_by_us || over.lost {
            return;
        }
        if self.is_fatal(over.death, over.age) {
            self.pace.note_crash_loop();
        }
    }

    fn is_fatal(&mut self, death: ExitStatus, age: Duration) -> bool {
        let alike = match death {
            ExitStatus::Signal { number, .. } if FATAL.contains(&number) && age < FAST => number,
            ExitStatus::Signal { .. } | ExitStatus::Code(_) | ExitStatus::Unknown => {
                self.streak = None;
                return false;
            }
        };
        let count = self.streak.filter(|(signal, _)| *signal == alike).map_or(1, |(_, count)| count + 1);
        self.streak = Some((alike, count));
        count >= EQUAL_MAX
    }

    /// Counts the crashes before this supervisor, by the same rules.
    pub(super) fn recall_streak(&mut self, runs: &[PastRun]) {
        for past in runs {
            let last = match past.settled {
                Settled::Ran(run, cause) if cause != Cause::Asked => {
                    self.is_fatal(past.death, run.ended.saturating_sub(past.spawned))
                }
                Settled::Ran(..) | Settled::NeverStarted | Settled::Postponed => false,
            };
            self.pace.recall_crash_loop(last);
        }
    }

    pub(super) fn note_spawn_failure(&mut self, at: Moment, failure: &SpawnFailure) {
        if !std::mem::take(&mut self.spawning) {
            return;
        }
        let replaced = match failure {
            SpawnFailure::Updating(_) => true,
            SpawnFailure::Program(_) => self.has_run,
            SpawnFailure::Resources(_) => false,
        };
        if replaced && self.waits_for_update(at) {
            self.postponed = Some(self.generation);
            self.pace.postpone();
        } else {
            self.pace.spawn_failed(at);
            self.never_started = Some(self.generation);
        }
    }

    /// Whether a start that an update prevents is postponed.
    pub(super) fn waits_for_update(&mut self, at: Moment) -> bool {
        let most = self.policy.update_timeout;
        let patient = self.updating.is_none_or(|since| at < since + most);
        let waits = patient && self.goal <= Goal::Restart;
        if waits {
            self.updating.get_or_insert(at);
            self.goal = Goal::Run;
        }
        waits
    }
}
