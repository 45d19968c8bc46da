//! What waits for a word: exits with 0, updates, and deaths that are like one another.

use super::pace::Class;
use super::steps::Answer;
use super::{
    Duty, Effect, Ended, Event, ExitStatus, Fingerprint, Generation, Judge, Moment, Over, Owner, PortWatch, Turn, Wish,
    must,
};
use crate::fake_shell::Broken;
use openclaw_supervise_core::handoff::{ASK_BY, HandoffVerdict, Support};
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::{PastRun, Report, Settled, SpawnFailure};
use std::collections::VecDeque;
use std::time::Duration;

type Judgement = Result<(), Broken>;

/// So many exits may wait.
const WAITING_MAX: usize = 8;

/// A word that has not come by then never will.
const WORD_LOST: Duration = Duration::from_secs(100);

/// An exit that is older than this is not asked about.
const FRESH: Duration = Duration::from_secs(55);

/// How much later than it is due we may be woken.
const WAKE_MAX: Duration = Duration::from_secs(1);

/// Signals of a broken program, on Linux.
const FATAL: [i32; 6] = [4, 5, 6, 7, 11, 31];
const FAST: Duration = Duration::from_secs(30);
const EQUAL_MAX: u32 = 3;

const UPDATE_MAX: Duration = Duration::from_mins(10);

/// What the start after an exit has cost so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cost {
    Nothing,
    /// The gateway had been up for long: it costs nothing whatever the word.
    Never,
    /// It was one of several.
    Restart,
}

/// An exit of which it is not known yet whether it was planned.
#[derive(Debug, Clone, Copy)]
pub(super) struct Exit {
    generation: Generation,
    pid: i32,
    died: Moment,
    pub(super) settled: Moment,
    pub(super) cost: Cost,
    /// Nobody learnt how it ended: until the word it is a failure, and unclean where this says since when.
    pub(super) unknown: bool,
    pub(super) unclean: Option<Moment>,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Handoffs {
    exits: VecDeque<Exit>,
    asked: Option<(u64, Moment)>,
    support: Option<bool>,
    /// That was found out for the present program.
    known: bool,
    inquiring: bool,
    /// The word of this step, until it is told.
    word: Option<(Generation, HandoffVerdict)>,
    /// What it says was planned, until that is on record.
    planned: Option<Generation>,
}

impl Handoffs {
    pub(super) fn awaits(&self, ticket: u64) -> bool {
        self.asked.is_some_and(|(asked, _)| asked == ticket)
    }

    pub(super) fn negotiating(&self) -> bool {
        self.inquiring
    }

    pub(super) fn rearm(&mut self, at: Moment) {
        self.asked = self.asked.map(|(ticket, _)| (ticket, at));
    }
}

impl Judge {
    pub(super) fn exits_wait(&self) -> bool {
        !self.handoffs.exits.is_empty()
    }

    /// Whether the meaning of this end is put off.
    pub(super) fn waits_for_word(&self, pid: i32, over: &Over) -> bool {
        let may_be = matches!(over.death, ExitStatus::Code(0) | ExitStatus::Unknown) && !over.ended_by_us;
        let clean = may_be && over.settled < over.died + FRESH && over.answered;
        let mute = self.handoffs.known && self.handoffs.support == Some(false);
        clean && pid > 0 && self.policy.handoff && !mute && self.handoffs.exits.len() < WAITING_MAX
    }

    /// Whether the next start depends on the word about the last exit.
    pub(super) fn holds(&self) -> bool {
        let last = self.handoffs.exits.back().is_some_and(|exit| exit.generation == self.generation);
        last && self.pace.pending.is_some() && self.owned.is_none() && !self.adopting && self.wish == Wish::Run
    }

    pub(super) fn put_off(&mut self, pid: i32, over: &Over, cost: Cost) {
        let (generation, died, settled) = (self.generation, over.died, over.settled);
        let (unknown, unclean) = (over.death == ExitStatus::Unknown, over.unclean());
        self.handoffs.exits.push_back(Exit { generation, pid, died, settled, cost, unknown, unclean });
    }

    pub(super) fn judge_negotiate(&mut self) -> Judgement {
        let serves = self.owned.as_ref().is_some_and(|owned| owned.started.is_some() && !owned.ending());
        must(self.policy.handoff && serves, "handoff", "a question about handoffs beside a boot")?;
        must(!self.handoffs.inquiring && !self.handoffs.known, "handoff", "what is known is asked for again")?;
        self.handoffs.inquiring = true;
        Ok(())
    }

    pub(super) fn note_support(&mut self, support: &Support) {
        let known = match support {
            Support::Supported => true,
            Support::Unsupported(_) => false,
            Support::TimedOut(_) => return self.handoffs.inquiring = false,
        };
        (self.handoffs.support, self.handoffs.known, self.handoffs.inquiring) = (Some(known), true, false);
    }

    pub(super) fn judge_no_respawn(&self, no_respawn: bool) -> Judgement {
        let mute = self.policy.handoff && self.handoffs.support == Some(false);
        must(no_respawn == mute, "handoff", "a successor is forbidden where handoffs are known, or the other way round")
    }

    pub(super) fn judge_consume(&mut self, at: Moment, ticket: u64, generation: Generation, pid: i32) -> Judgement {
        must(ticket == self.ticket + 1, "P10", "tickets count up")?;
        must(self.handoffs.asked.is_none(), "handoff", "two exits are asked about at once")?;
        let Some(exit) = self.handoffs.exits.front() else {
            return must(false, "handoff", "a question about an exit that waits for nothing");
        };
        must((exit.generation, exit.pid) == (generation, pid), "handoff", "a question about another exit")?;
        let serves = self.owned.as_ref().is_some_and(|owned| owned.started.is_some() && !owned.ending());
        let held_up = serves || self.holds() || at >= exit.died + ASK_BY;
        must(held_up, "handoff", "an exit is asked about beside a boot")?;
        (self.ticket, self.handoffs.asked) = (ticket, Some((ticket, at)));
        Ok(())
    }

    pub(super) fn note_word(&mut self, at: Moment, ticket: u64, word: &HandoffVerdict) {
        if !self.handoffs.awaits(ticket) {
            return;
        }
        if let HandoffVerdict::Unsupported(_) = word {
            (self.handoffs.support, self.handoffs.known) = (Some(false), true);
        }
        self.settle_exit(at, word);
    }

    fn settle_exit(&mut self, at: Moment, word: &HandoffVerdict) {
        self.handoffs.asked = None;
        let Some(exit) = self.handoffs.exits.pop_front() else { return };
        let planned = matches!(word, HandoffVerdict::Accepted(_));
        self.handoffs.word = Some((exit.generation, word.clone()));
        self.handoffs.planned = planned.then_some(exit.generation);
        let decides = self.holds();
        self.pace.settle_exit(at, &exit, planned);
        if !planned {
            self.pace.deny(at);
        }
        // It was one of several and is the first now: it may be started before its own word.
        if let Some(last) = self.handoffs.exits.back_mut().filter(|_| planned && decides) {
            last.cost = Cost::Nothing;
            self.pace.pending = Some(Class::Open { again: true });
        }
    }

    /// What is told of an exit is the word that came, or that none came in time.
    pub(super) fn judge_word(&mut self, turn: &Turn<'_>, report: &Report) -> Judgement {
        if let Report::HandoffUnsupported { generation: None, .. } | Report::HandoffTimedOut { generation: None, .. } =
            report
        {
            return must(matches!(turn.event, Event::Negotiated { .. }), "P9", "an answer that nobody gave");
        }
        let lost = self.handoffs.asked.is_some_and(|(_, asked)| turn.at >= asked + WORD_LOST);
        if lost && self.handoffs.word.is_none() {
            self.settle_exit(turn.at, &HandoffVerdict::TimedOut(String::new()));
        }
        let Some((about, word)) = self.handoffs.word.take() else {
            return must(false, "P9", "a word that nobody gave");
        };
        let right = match report {
            Report::HandoffAccepted { generation, .. } => {
                matches!(word, HandoffVerdict::Accepted(_)) && *generation == about
            }
            Report::HandoffMissing { generation } => word == HandoffVerdict::Missing && *generation == about,
            Report::HandoffRejected { generation, .. } => {
                matches!(word, HandoffVerdict::Rejected(_)) && *generation == about
            }
            Report::HandoffUnsupported { generation, .. } => {
                matches!(word, HandoffVerdict::Unsupported(_)) && *generation == Some(about)
            }
            Report::HandoffTimedOut { generation, .. } => {
                matches!(word, HandoffVerdict::TimedOut(_)) && *generation == Some(about)
            }
            _ => false,
        };
        must(right, "P9", "another word is told than was given")
    }

    pub(super) fn judge_planned(&mut self, generation: Generation) -> Judgement {
        let said = self.handoffs.planned.take() == Some(generation);
        must(said, "P4", "an exit counts as planned, and nobody said so")
    }

    /// What must have been asked or told by now.
    pub(super) fn judge_handoffs(&self, turn: &Turn<'_>) -> Judgement {
        let Handoffs { exits, asked, word, planned, .. } = &self.handoffs;
        must(word.is_none(), "P9", "a word about an exit is not told")?;
        must(planned.is_none(), "P9", "a planned restart is not on record")?;
        let Some(exit) = exits.front().filter(|_| !self.ends()) else { return Ok(()) };
        let due = match asked {
            Some((_, asked)) => *asked + WORD_LOST,
            None => exit.died + ASK_BY,
        };
        let starts = turn.fx.iter().any(|effect| matches!(effect, Effect::Report(Report::GatewayStarted { .. })));
        must(!starts || asked.is_some(), "handoff", "the next gateway is up, and nobody asks about the last exit")?;
        if self.holds() {
            must(asked.is_some(), "handoff", "the next start waits for a word, and nobody asks for it")?;
            self.pace.may_hold(turn.at)?;
        }
        let missed = *turn.event == Event::Tick && due <= turn.at;
        must(!missed, "handoff", "an exit is not asked about, or its word waited for, in time")?;
        let woken = turn.after.is_some_and(|after| after <= due.max(turn.at) + WAKE_MAX);
        must(woken, "handoff", "nothing wakes us to ask about an exit")
    }

    /// A gateway has left somebody in its place.
    pub(super) fn judge_succession(
        &mut self,
        at: Moment,
        generation: Generation,
        pid: i32,
        answer: Answer<'_>,
    ) -> Judgement {
        let seen =
            answer.is_some_and(|(_, sighting)| matches!(&sighting.owner, Owner::Ours(holder) if holder.pid == pid));
        must(seen && self.duty == Some(Duty::Succeed), "P9", "a successor that nobody has seen")?;
        let Some(owned) = self.owned.take().filter(|owned| owned.generation == generation) else {
            return must(false, "P9", "the successor of another gateway");
        };
        let died = owned.death.map_or(at, |(_, died)| died);
        self.ended = Some(Ended { generation, started: owned.started, died, clean: true, cause: Cause::Asked });
        (self.port, self.lost_mark) = (PortWatch::default(), Some(pid));
        self.pace.succeed(at);
        Ok(())
    }

    /// The configuration or the program may be another one than for the gateway before.
    pub(super) fn note_fingerprint(&mut self, fingerprint: Fingerprint) {
        let mended = std::mem::take(&mut self.mended);
        let Some(before) = self.fingerprint.replace(fingerprint) else { return };
        if before != fingerprint {
            self.streak = None;
            self.handoffs.known &= self.handoffs.support != Some(false);
        }
        if before.program != fingerprint.program {
            (self.repaired, self.handoffs.known) = (false, false);
            self.pace.renew();
        } else if before.config != fingerprint.config {
            self.repaired &= mended;
        }
    }

    /// Whether a gateway died as those before it did.
    pub(super) fn note_streak(&mut self, over: &Over) {
        if over.ended_by_us || over.lost {
            return;
        }
        if self.is_fatal(over.death, over.age) {
            self.pace.doom();
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

    /// What died before us, by the same rules.
    pub(super) fn recall_streak(&mut self, runs: &[PastRun]) {
        for past in runs {
            let last = match past.settled {
                Settled::Ran(run, cause) if cause != Cause::Asked => {
                    self.is_fatal(past.death, run.ended.saturating_sub(past.spawned))
                }
                Settled::Ran(..) | Settled::NeverStarted | Settled::Postponed => false,
            };
            self.pace.warn(last);
        }
    }

    pub(super) fn note_spawn_failure(&mut self, at: Moment, failure: &SpawnFailure) {
        if !std::mem::take(&mut self.spawning) {
            return;
        }
        let replaced = match failure {
            SpawnFailure::Updating(_) => true,
            SpawnFailure::Program(_) => self.born,
            SpawnFailure::Resources(_) => false,
        };
        if replaced && self.waits_for_update(at) {
            self.postponed = Some(self.generation);
            self.pace.postpone();
        } else {
            self.pace.spawn_failed(at);
            self.unborn = Some(self.generation);
        }
    }

    /// Whether a start that an update prevents is put off.
    pub(super) fn waits_for_update(&mut self, at: Moment) -> bool {
        let patient = self.updating.is_none_or(|since| at < since + UPDATE_MAX);
        let waits = patient && self.wish <= Wish::Restart;
        if waits {
            self.updating.get_or_insert(at);
            self.wish = Wish::Run;
        }
        waits
    }
}
