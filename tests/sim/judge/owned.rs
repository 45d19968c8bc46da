//! The gateway that a judge knows of.

use super::health::Health;
use super::proof::Examination;
use openclaw_supervise_core::{ExitStatus, Generation, Moment, Observation, Owner, Verdict};
use std::time::Duration;

/// How it was asked to end.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    pub(super) at: Moment,
    pub(super) grace: Duration,
}

/// The youngest gateway, from `Spawned` until nothing is left of it.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "what was seen of one process; any mix of it is a thing to judge")]
pub(super) struct Owned {
    pub(super) generation: Generation,
    pub(super) pid: i32,
    pub(super) spawned: Moment,
    pub(super) armed: Moment,
    pub(super) started: Option<Moment>,
    pub(super) listening: bool,
    /// It has answered, and as which process.
    pub(super) answered: bool,
    pub(super) listener: Option<i32>,
    pub(super) told_end: bool,
    pub(super) terminated: Option<Ending>,
    /// That was decided with this step.
    pub(super) decided: bool,
    /// Its SIGTERM waits for the store.
    pub(super) held: bool,
    pub(super) killed: bool,
    /// Its drain was cut short.
    pub(super) escalated: bool,
    pub(super) death: Option<(ExitStatus, Moment)>,
    /// It ended by itself in the time that it was given.
    pub(super) drained: bool,
    /// It died while no supervisor ran.
    pub(super) lost: bool,
    pub(super) gone: bool,
    /// When the last kill of it was over.
    pub(super) survived: Option<Moment>,
    pub(super) health: Health,
    pub(super) examining: Option<Examination>,
    /// Samples in a row that were over the limit of memory.
    pub(super) excess: u32,
    /// What its `/readyz` said last.
    pub(super) ready: Option<bool>,
}

impl Owned {
    pub(super) fn new(generation: Generation, pid: i32, at: Moment) -> Self {
        Self {
            generation,
            pid,
            spawned: at,
            armed: at,
            started: None,
            listening: false,
            answered: false,
            listener: None,
            told_end: false,
            terminated: None,
            decided: false,
            held: false,
            killed: false,
            escalated: false,
            death: None,
            drained: false,
            lost: false,
            gone: false,
            survived: None,
            health: Health::new(at),
            examining: None,
            excess: 0,
            ready: None,
        }
    }

    /// It exited with 0, as far as can be known, and nobody had asked.
    pub(super) fn may_have_successor(&self) -> bool {
        let clean = matches!(self.death, Some((ExitStatus::Code(0) | ExitStatus::Unknown, _)));
        clean && self.started.is_some() && self.terminated.is_none() && !self.killed && !self.lost
    }

    pub(super) fn note_answer(&mut self, sighting: &Observation) {
        let good = matches!(sighting.verdict, Verdict::Gateway(_) | Verdict::Draining);
        match &sighting.owner {
            Owner::Ours(holder) if good => (self.answered, self.listener) = (true, Some(holder.pid)),
            Owner::Unseen if good => self.answered = true,
            Owner::Ours(_) | Owner::Unseen | Owner::Other(_) => {}
        }
    }

    pub(super) fn ending(&self) -> bool {
        self.terminated.is_some() || self.death.is_some()
    }
}
