//! One core under test: each input is recorded, each step is judged, and a record can be replayed.

use crate::fake_shell::Broken;
use crate::judge::{Judge, Turn};
use openclaw_supervise_core::{Effect, Event, Generation, Moment, Policy, Supervisor};
use std::fmt::Write;
use std::time::Duration;

/// An event for the core, or a fact that only the judge is told.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "nearly all of them are events")]
pub(crate) enum Input {
    Event(Event),
    /// How many processes of this gateway live.
    Alive(Generation, u32),
    /// The supervisor, or the whole machine, was suspended for this time.
    Suspended(Duration),
}

#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) at: Moment,
    pub(crate) input: Input,
    /// The distance of its ticket or generation to the youngest one, which holds when the record is shortened.
    age: u64,
}

/// The ticket or generation that an input refers to, and the youngest one.
fn numbers<'a>(input: &'a mut Input, judge: &Judge) -> Option<(&'a mut u64, u64)> {
    match input {
        Input::Event(Event::Confirmed { ticket }) => Some((ticket, judge.confirm_ticket())),
        Input::Event(
            Event::Probed { ticket, .. }
            | Event::Leased { ticket, .. }
            | Event::OwnerAsked { ticket, .. }
            | Event::HookEnded { ticket, .. }
            | Event::Consumed { ticket, .. },
        ) => Some((ticket, judge.ticket())),
        Input::Event(
            Event::Adopted { generation, .. }
            | Event::AdoptFailed { generation, .. }
            | Event::Recorded { generation }
            | Event::Spawned { generation, .. }
            | Event::SpawnFailed { generation, .. }
            | Event::LeaderExited { generation, .. }
            | Event::HeirSought { generation, .. }
            | Event::Measured { generation, .. }
            | Event::Examined { generation, .. }
            | Event::TreeGone { generation, .. }
            | Event::StraysKilled { generation, .. },
        )
        | Input::Alive(generation, _) => Some((generation, judge.generation())),
        Input::Event(
            Event::Start
            | Event::Tick
            | Event::LeaseLost { .. }
            | Event::LeaseConfirmed { .. }
            | Event::StoreFailed { .. }
            | Event::StoreReturned
            | Event::HooksCleared { .. }
            | Event::SweepFinished
            | Event::Departed { .. }
            | Event::Negotiated { .. }
            | Event::OutputMoved { .. }
            | Event::StopBudget { .. }
            | Event::Requested { .. }
            | Event::PauseRequested { .. }
            | Event::ClockJumped { .. },
        )
        | Input::Suspended(_) => None,
    }
}

/// Creates the core: as it is, or with a planted fault.
pub(crate) type Maker<'a> = &'a dyn Fn(&Policy) -> Supervisor;

pub(crate) struct Trial {
    pub(crate) policy: Policy,
    pub(crate) core: Supervisor,
    pub(crate) judge: Judge,
    pub(crate) log: Vec<Entry>,
    /// With the index of the log entry that caused each.
    pub(crate) effects: Vec<(usize, Effect)>,
    /// Stale events are judged as well, which takes a third of the time of a world.
    pub(crate) is_strict: bool,
}

impl Trial {
    pub(crate) fn new(core: Supervisor, policy: &Policy) -> Self {
        let judge = Judge::new(policy.clone());
        Self { policy: policy.clone(), core, judge, log: Vec::new(), effects: Vec::new(), is_strict: true }
    }

    /// Takes one input; gives the index of its first effect.
    pub(crate) fn take(&mut self, at: Moment, mut input: Input) -> Result<usize, Broken> {
        let first = self.effects.len();
        let entry = self.log.len();
        let age = numbers(&mut input, &self.judge).map_or(0, |(number, youngest)| youngest.saturating_sub(*number));
        self.log.push(Entry { at, input, age });
        let event = match &self.log[entry].input {
            Input::Alive(generation, alive) => {
                self.judge.note_alive(*generation, *alive);
                return Ok(first);
            }
            Input::Suspended(time) => {
                self.judge.note_suspension(*time);
                return Ok(first);
            }
            Input::Event(event) => event,
        };
        let before = self.core.deadline();
        // A late step has effects of its own, so only one in time can be required to change nothing.
        let frozen = (self.is_strict
            && self.judge.is_stale(at, event)
            && before.is_none_or(|before| at < before.saturating_add(Duration::from_secs(5))))
        .then(|| format!("{:?}", self.core));
        let mut fx = Vec::new();
        self.core.step(at, event.clone(), &mut fx);
        let changed = frozen.is_some_and(|frozen| !fx.is_empty() || frozen != format!("{:?}", self.core));
        let turn = Turn { at, event, fx: &fx, before, after: self.core.deadline() };
        let verdict = self.judge.judge(&turn);
        self.effects.extend(fx.into_iter().map(|effect| (entry, effect)));
        verdict?;
        if changed {
            return Err(Broken::new("stale", "a stale event changed something"));
        }
        Ok(first)
    }

    /// The same inputs give the same effects.
    pub(crate) fn replays(&self, mut core: Supervisor) -> Result<(), Broken> {
        let mut fx = Vec::new();
        let mut expected = self.effects.iter();
        for (number, Entry { at, input, .. }) in self.log.iter().enumerate() {
            let Input::Event(event) = input else { continue };
            core.step(*at, event.clone(), &mut fx);
            for effect in fx.drain(..) {
                if expected.next() != Some(&(number, effect)) {
                    return Err(Broken::new("P10", format!("entry {number} had other effects in the replay")));
                }
            }
        }
        if expected.next().is_some() { Err(Broken::new("P10", "fewer effects in the replay")) } else { Ok(()) }
    }

    /// The log, one line for each input and effect.
    pub(crate) fn story(&self) -> String {
        let mut story = String::new();
        let mut effects = self.effects.iter().peekable();
        for (number, Entry { at, input, .. }) in self.log.iter().enumerate() {
            let _infallible = writeln!(story, "{:>9.3}  {input:?}", at.as_secs_f64());
            while let Some((_, effect)) = effects.next_if(|(entry, _)| *entry == number) {
                let _infallible = writeln!(story, "           -> {effect:?}");
            }
        }
        story
    }
}

/// Replays a record; `None` if no shell could have sent these events.
pub(crate) fn replay(policy: &Policy, core: Supervisor, log: &[Entry]) -> Option<(Trial, Option<Broken>)> {
    let mut trial = Trial::new(core, policy);
    for Entry { at, input, age } in log {
        let mut input = input.clone();
        if let Some((number, youngest)) = numbers(&mut input, &trial.judge) {
            *number = youngest.checked_sub(*age)?;
        }
        if let Input::Event(event) = &input
            && !trial.judge.is_lawful(*at, event, trial.core.deadline())
        {
            return None;
        }
        if let Err(broken) = trial.take(*at, input) {
            return Some((trial, Some(broken)));
        }
    }
    Some((trial, None))
}

/// The most replays while a failing record is shortened.
const ATTEMPTS_MAX: u32 = 4000;

/// The record without some of its events and, if `shift`, without their time. The facts for the judge stay: without
/// them it would be wrong. `None` if nothing is left out.
fn without(log: &[Entry], from: usize, part: usize, shift: bool) -> Option<Vec<Entry>> {
    let to = (from + part).min(log.len());
    let (begins, ends) = (log.get(from)?.at, log.get(to).map_or(log.last()?.at, |entry| entry.at));
    let mut fewer = log[..from].to_vec();
    let kept = log[from..to].iter().filter(|entry| !matches!(entry.input, Input::Event(_))).cloned();
    fewer.extend(kept.map(|entry| Entry { at: if shift { begins } else { entry.at }, ..entry }));
    let gap = if shift { ends.saturating_sub(begins) } else { Duration::ZERO };
    fewer.extend(log[to..].iter().cloned().map(|entry| Entry { at: entry.at.saturating_sub(gap), ..entry }));
    (fewer.len() < log.len()).then_some(fewer)
}

/// Drops what the failure does not need: first half of the record at once, then smaller and smaller parts.
pub(crate) fn shrink(policy: &Policy, make: Maker<'_>, log: &[Entry], broken: &Broken) -> Trial {
    let fails = |log: &[Entry]| {
        replay(policy, make(policy), log)
            .filter(|(_, found)| found.as_ref().is_some_and(|b| b.promise == broken.promise))
    };
    let mut log = log.to_vec();
    let mut part = log.len() / 2;
    let mut attempts = 0;
    while part > 0 {
        let (mut from, mut dropped) = (0, false);
        while from < log.len() && attempts < ATTEMPTS_MAX {
            attempts += 1;
            let failing = [true, false].into_iter().find_map(|shift| fails(&without(&log, from, part, shift)?));
            if let Some((trial, _)) = failing {
                (log, dropped) = (trial.log, true);
            } else {
                from += part;
            }
        }
        if !dropped || part > 1 {
            part /= 2;
        }
    }
    match fails(&log) {
        Some((trial, _)) => trial,
        None => Trial::new(make(policy), policy),
    }
}
