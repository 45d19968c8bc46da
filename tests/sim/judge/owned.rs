//! The current gateway, as the judge sees it.

use super::alive::Life;
use super::health::Health;
use super::proof::Examination;
use super::stalls::Stalls;
use openclaw_supervise_core::{ExitStatus, Generation, Moment, Observation, Owner, Verdict};
use std::time::Duration;

/// When it was asked to stop, and its stop timeout.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ending {
    pub(super) at: Moment,
    pub(super) grace: Duration,
}

/// The youngest gateway, from `Spawned` until no process of it is left.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent observations of one process; any combination happens")]
pub(super) struct Owned {
    pub(super) generation: Generation,
    pub(super) pid: i32,
    pub(super) spawned: Moment,
    pub(super) armed: Moment,
    pub(super) started: Option<Moment>,
    pub(super) adopted: bool,
    pub(super) listening: bool,
    /// The process that was started has exited, and what it has left is being looked for.
    pub(super) launcher: Option<(ExitStatus, Moment)>,
    pub(super) follows: u8,
    /// The process that listens may not have heard of the SIGTERM.
    pub(super) unheard: bool,
    /// It has answered a probe; `listener` is the process that did.
    pub(super) answered: bool,
    pub(super) listener: Option<i32>,
    pub(super) end_reported: bool,
    pub(super) terminated: Option<Ending>,
    /// It was stopped because the store did not confirm the lease.
    pub(super) withdrawn: bool,
    /// It was stopped on request.
    pub(super) requested: bool,
    /// This step decided to stop it.
    pub(super) decided: bool,
    pub(super) killed: bool,
    /// Its drain was cut short.
    pub(super) escalated: bool,
    pub(super) death: Option<(ExitStatus, Moment)>,
    /// It exited within its stop timeout.
    pub(super) drained: bool,
    /// It exited while no supervisor ran.
    pub(super) lost: bool,
    pub(super) gone: bool,
    /// When the last kill of it ended.
    pub(super) survived: Option<Moment>,
    pub(super) health: Health,
    pub(super) life: Life,
    pub(super) stalls: Stalls,
    pub(super) examining: Option<Examination>,
    /// The collection of evidence on its memory; reported once it is ended for that.
    pub(super) weighing: Option<Examination>,
    /// Consecutive samples over the memory limit.
    pub(super) excess: u32,
    /// The last answer of its `/readyz`.
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
            adopted: false,
            listening: false,
            launcher: None,
            follows: 0,
            unheard: false,
            answered: false,
            listener: None,
            end_reported: false,
            terminated: None,
            withdrawn: false,
            requested: false,
            decided: false,
            killed: false,
            escalated: false,
            death: None,
            drained: false,
            lost: false,
            gone: false,
            survived: None,
            health: Health::new(at),
            life: Life::new(),
            stalls: Stalls::default(),
            examining: None,
            weighing: None,
            excess: 0,
            ready: None,
        }
    }

    /// Whether it exited unasked, with 0 or with an unknown status.
    pub(super) fn may_have_successor(&self) -> bool {
        let clean = matches!(self.death, Some((ExitStatus::Code(0) | ExitStatus::Unknown, _)));
        clean && self.started.is_some() && self.terminated.is_none() && !self.killed && !self.lost
    }

    pub(super) fn note_answer(&mut self, sighting: &Observation) {
        let good = matches!(sighting.verdict, Verdict::Gateway(_) | Verdict::Draining | Verdict::Foreign);
        match &sighting.owner {
            Owner::Ours(holder) if good => (self.answered, self.listener) = (true, Some(holder.pid)),
            Owner::Unseen | Owner::Hidden { .. } if good => self.answered = true,
            Owner::Ours(_) | Owner::Unseen | Owner::Hidden { .. } | Owner::Other(_) => {}
        }
    }

    pub(super) fn ending(&self) -> bool {
        self.terminated.is_some() || self.death.is_some()
    }
}
