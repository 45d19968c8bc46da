//! P11: a gateway that something keeps from answering is not ended for that: not while it is blocked in a write to its own
//! output, and not before its last window where it gets no processor.

use super::{Effect, Event, Judge, Moment, Owned, Turn, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::stall::Stall;
use openclaw_supervise_core::{Policy, Report, Usage};
use std::time::Duration;

type Judgement = Result<(), Broken>;

/// An event loop that uses less than this fraction (1/20) of one CPU is idle. One that waits for less than that (1/2), or
/// uses as much as that (1/10), is not starved.
const WORKING_PART: u32 = 20;
const WAITING_PART: u32 = 2;
const STARVED_PART: u32 = 10;

/// The windows of a starved gateway, and of one that goes from write to write.
const STARVED_MAX: u32 = 10;

/// A block that lasts is reported again after this time.
const RETOLD: Duration = Duration::from_hours(1);

/// The probes that must have failed in a row.
const FAILED_MIN: u32 = 3;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Blocked,
    Busy,
    Starved,
}

/// The first and the last sample of a window, and what earlier windows were given for.
#[derive(Debug, Clone, Default)]
pub(super) struct Stalls {
    samples: Option<[(Moment, Usage); 2]>,
    starved: u32,
    /// Those that it had because it was blocked in a write, though its writes go on.
    writing: u32,
    blocked: bool,
    told: Option<Moment>,
}

impl Stalls {
    pub(super) fn begin(&mut self, since: Moment) {
        let Some([first, last]) = self.samples.take() else { return };
        if last.0 >= since {
            self.samples = Some([if first.0 >= since { first } else { last.clone() }, last]);
        }
    }

    /// It answers.
    pub(super) fn clear(&mut self) {
        (self.starved, self.writing, self.blocked, self.told) = (0, 0, false, None);
    }

    fn tells(&self, at: Moment) -> bool {
        self.told.is_none_or(|told| at >= told + RETOLD)
    }

    /// Whether it gets from one write to the next at least once a second.
    fn writes_on(&self) -> bool {
        let Some([(began, before), (at, after)]) = &self.samples else { return false };
        let turns = after.turns.zip(before.turns).map_or(0, |(after, before)| after - before);
        turns > 0 && u128::from(turns) * 1000 >= at.saturating_sub(*began).as_millis()
    }

    fn kind(&self, may_work: bool) -> Option<Kind> {
        let [(began, before), (at, after)] = self.samples.as_ref()?;
        let wall = at.saturating_sub(*began);
        let is_part = |time: fn(&Usage) -> Option<Duration>, part: u32| {
            let time = time(after).zip(time(before)).map(|(after, before)| after.saturating_sub(before));
            wall > Duration::ZERO && time.is_some_and(|time| time * part >= wall)
        };
        if after.blocked.is_some() && !(self.writes_on() && self.writing >= STARVED_MAX) {
            return Some(Kind::Blocked);
        }
        if may_work && is_part(|usage| usage.cpu, WORKING_PART) {
            return Some(Kind::Busy);
        }
        let counted = before.waited.is_some() && after.waited.is_some();
        let waits = if counted {
            is_part(|usage| usage.waited, WAITING_PART)
        } else {
            after.runnable && is_part(|usage| usage.pressure, WAITING_PART)
        };
        (waits && !is_part(|usage| usage.cpu, STARVED_PART) && self.starved < STARVED_MAX).then_some(Kind::Starved)
    }
}

impl Owned {
    fn is_up(&self) -> bool {
        self.started.is_some()
    }

    fn failed(&self) -> u32 {
        if self.is_up() { self.health.failed() } else { self.life.missed }
    }

    /// Its window, or its boot, has the whole time again.
    pub(super) fn begin_window(&mut self, at: Moment) {
        self.health.begin(at);
        self.stalls.begin(at);
        (self.armed, self.life.missed) = (at, 0);
    }

    fn stall(&self) -> Option<Kind> {
        let may_work = self.is_up() && self.health.serves() && !self.health.is_extended();
        (self.failed() >= FAILED_MIN).then(|| self.stalls.kind(may_work)).flatten()
    }

    /// Whether its window has run out, or its time for a boot.
    fn is_due(&self, at: Moment, policy: &Policy) -> bool {
        if self.is_up() {
            return self.health.proven(policy).is_some_and(|proven| proven <= at);
        }
        let over = at >= self.armed.saturating_add(policy.startup_timeout);
        over && self.life.lapses(policy).is_some_and(|over| over <= at)
    }
}

impl Judge {
    pub(super) fn note_stall(&mut self, at: Moment, sample: &Usage) {
        let Some(owned) = self.owned.as_mut().filter(|owned| !owned.ending() && owned.examining.is_none()) else {
            return;
        };
        let anew = owned.is_up() && owned.health.failed() == 0;
        let blocked = owned.stalls.blocked;
        let last = (at, sample.clone());
        let deep = |usage: &Usage| usage.waited.is_some() || usage.pressure.is_some();
        owned.stalls.samples = match owned.stalls.samples.take() {
            Some([first, _]) if !anew && (deep(&first.1) || !deep(&last.1)) => Some([first, last]),
            Some(_) | None => Some([last.clone(), last]),
        };
        if blocked {
            owned.stalls.blocked = sample.blocked.is_some();
            if !owned.stalls.writes_on() {
                owned.begin_window(at);
            }
        }
    }

    /// A step that decides that a gateway hangs or never came up.
    pub(super) fn judge_excuse(&self) -> Judgement {
        let excuse = self.owned.as_ref().and_then(Owned::stall);
        must(excuse != Some(Kind::Busy), "P3", "the window of a gateway whose event loop works is not extended")?;
        must(excuse != Some(Kind::Blocked), "P11", "a gateway is ended that is blocked in a write to its output")?;
        must(excuse.is_none(), "P11", "a gateway is ended that gets no processor, before its last window")
    }

    /// Judges the extension of a window.
    pub(super) fn judge_extension(&mut self, at: Moment, stall: &Stall, by: Duration) -> Judgement {
        let policy = self.policy.clone();
        let Some(owned) = self.owned.as_mut().filter(|owned| !owned.ending() && owned.examining.is_none()) else {
            return must(false, "hang", "an extension for a gateway that is not there");
        };
        let due = owned.is_due(at, &policy);
        let (found, expected) = match stall {
            Stall::Busy(_) => (Kind::Busy, None),
            Stall::Starved { left, .. } => (Kind::Starved, Some(*left)),
            Stall::Blocked(_) => return must(false, "hang", "an extension for a block, which has a report of its own"),
        };
        let works = owned.stall() == Some(Kind::Busy) && found != Kind::Busy;
        must(!works, "P3", "the window of a gateway whose event loop works is extended for something else")?;
        let why = "an extension for another reason than was seen, before the window is over, or once too often";
        must(due && owned.stall() == Some(found), "hang", why)?;
        let long = if found == Kind::Busy {
            owned.health.extend(at, &policy)
        } else {
            owned.stalls.starved += 1;
            owned.begin_window(at);
            if owned.is_up() { owned.health.budget(&policy) } else { policy.startup_timeout }
        };
        must(by == long, "hang", "an extension of other than one window, or during a boot behind a closed port")?;
        let left = STARVED_MAX.saturating_sub(owned.stalls.starved);
        must(expected.is_none_or(|told| told == left), "P9", "another number of windows is left than is reported")
    }

    /// A blocked gateway has its window again without an end, and is reported when it is found and from time to time.
    pub(super) fn judge_block(&mut self, turn: &Turn<'_>, answered: bool) -> Judgement {
        let at = turn.at;
        let policy = self.policy.clone();
        let reported = |effect: &&Effect| matches!(effect, Effect::Report(Report::LivenessBlocked { .. }));
        let reported = turn.fx.iter().filter(reported).count();
        let ends = |effect: &Effect| {
            matches!(effect, Effect::Terminate { .. } | Effect::Report(Report::LivenessExtended { .. }))
        };
        let ends = turn.fx.iter().any(ends) || self.fence.waits() || self.is_paused();
        let Some(owned) = self.owned.as_mut().filter(|owned| !owned.ending() && owned.examining.is_none()) else {
            return must(reported == 0, "P9", "a block is reported of a gateway that is not there");
        };
        let looked = *turn.event == Event::Tick || answered && owned.is_up();
        if looked && !ends && owned.is_due(at, &policy) && owned.stall() == Some(Kind::Blocked) {
            owned.stalls.blocked = true;
            owned.stalls.writing += u32::from(owned.stalls.writes_on());
            owned.begin_window(at);
        } else if !matches!(turn.event, Event::Measured { .. }) {
            return must(reported == 0, "P9", "a block is reported at no occasion");
        }
        let due = owned.stalls.blocked && owned.stalls.tells(at);
        must(reported == usize::from(due), "P11", "a blocked gateway is not reported when it is due")?;
        if due {
            owned.stalls.told = Some(at);
        }
        Ok(())
    }
}
