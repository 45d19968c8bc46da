//! What outlives a supervisor: the record of gateways, the lease, and what the log has been told.

use crate::fake_shell::{Broken, must};
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::{
    Effect, ExitStatus, Fact, Generation, History, Moment, PastRun, Report, Settled, Unfinished,
};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// How often an owner makes its counter go on.
const BEAT: Duration = Duration::from_secs(10);

/// One gateway on record.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    /// Which process it is: the mark in its environment tells.
    pub(super) life: Option<usize>,
    /// Its process id, once that is written down.
    pub(super) pid: Option<i32>,
    spawned: Moment,
    started: Option<Moment>,
    stable: Option<Moment>,
    died: Option<(ExitStatus, Moment)>,
    settled: Option<Settled>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    Started,
    Exited,
}

/// Who has the lease.
#[derive(Debug, Clone, Default)]
pub(super) struct Lease {
    pub(super) owner: Option<usize>,
    pub(super) epoch: u64,
    /// The last owner did not give it back.
    pub(super) stale: bool,
    beat: u64,
    /// Since when the counter goes on.
    since: Moment,
}

impl Lease {
    pub(super) fn beat(&self, now: Moment) -> u64 {
        let beats = now.saturating_sub(self.since).as_secs() / BEAT.as_secs();
        self.beat + beats
    }

    /// A new owner's counter is another one at once: two who saw the old one stand still must not both take over.
    pub(super) fn take(&mut self, now: Moment) {
        (self.beat, self.since) = (self.beat(now) + 1, now);
    }

    /// The counter stands still from now until then.
    pub(super) fn freeze(&mut self, now: Moment, until: Moment) {
        (self.beat, self.since) = (self.beat(now), until);
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    pub(super) rows: BTreeMap<Generation, Row>,
    pub(super) lease: Lease,
    /// It was lost and begun anew at least once.
    pub(super) lost: bool,
    told: BTreeSet<(Told, Generation)>,
    /// Told, and its teller was killed before that was on record.
    half_told: BTreeSet<(Told, Generation)>,
}

impl Store {
    /// What a new owner reads.
    pub(super) fn past(&self) -> History {
        let runs = self.rows.values().filter_map(|row| {
            Some(PastRun {
                spawned: row.spawned,
                settled: row.settled?,
                death: row.died.map_or(ExitStatus::Unknown, |(death, _)| death),
            })
        });
        let youngest = self.rows.last_key_value().filter(|(_, row)| row.settled.is_none());
        let left = youngest.map(|(generation, row)| Unfinished {
            generation: *generation,
            spawned: row.spawned,
            started: row.started,
            healthy_until: row.stable,
            died: row.died,
        });
        History {
            generation: self.rows.last_key_value().map_or(0, |(youngest, _)| *youngest),
            runs: runs.collect(),
            left,
        }
    }

    /// A gateway is about to be started, or was found by its mark alone.
    pub(super) fn intend(&mut self, generation: Generation, now: Moment) -> Result<(), Broken> {
        let settled = self.rows.values().all(|row| row.settled.is_some());
        must(settled, "P9", "a start is written down before the last end is on record")?;
        let youngest = self.rows.last_key_value().is_none_or(|(youngest, _)| *youngest < generation);
        must(youngest, "P9", "a number that another gateway of this store had")?;
        self.rows.insert(generation, Row { spawned: now, ..Row::default() });
        Ok(())
    }

    /// The same, unless it is on record already.
    pub(super) fn intend_once(&mut self, generation: Generation, now: Moment) -> Result<(), Broken> {
        if self.rows.contains_key(&generation) { Ok(()) } else { self.intend(generation, now) }
    }

    pub(super) fn remember(&mut self, generation: Generation, fact: Fact, now: Moment) -> Result<(), Broken> {
        if let Fact::Settled(Settled::NeverStarted | Settled::Postponed) = fact {
            // Its pre-start hook failed, or it was taken back: nothing was written down before.
            self.intend_once(generation, now)?;
        }
        let Some(row) = self.rows.get_mut(&generation) else {
            return must(false, "P9", "a fact about a gateway that is not on record");
        };
        let again = match fact {
            Fact::Started => row.started.replace(now).is_some(),
            Fact::Stable => row.stable.replace(now).is_some(),
            Fact::Died(death) => row.died.replace((death, now)).is_some(),
            Fact::Settled(settled) => row.settled.replace(settled).is_some(),
            Fact::Planned => match &mut row.settled {
                Some(Settled::Ran(run, cause)) => {
                    run.clean = true;
                    std::mem::replace(cause, Cause::Asked) == Cause::Asked
                }
                Some(Settled::NeverStarted | Settled::Postponed) | None => true,
            },
        };
        must(!again, "P9", "one fact is recorded twice")
    }

    /// The log: each start and each end is told once, whoever tells it.
    pub(super) fn hear(&mut self, report: &Report) -> Result<(), Broken> {
        let told = match report {
            Report::GatewayStarted { generation, .. } => (Told::Started, *generation),
            Report::GatewayExited(exited) => (Told::Exited, exited.generation),
            _ => return Ok(()),
        };
        let first = self.told.insert(told) || self.half_told.remove(&told);
        must(first, "P9", "two supervisors tell one start or one end")
    }

    /// These were not performed any more.
    pub(super) fn lose_effects(&mut self, effects: &[(usize, Effect)]) {
        for (_, effect) in effects {
            let told = match effect {
                Effect::Remember { generation, fact: Fact::Started } => (Told::Started, *generation),
                Effect::Remember { generation, fact: Fact::Died(_) } => (Told::Exited, *generation),
                _ => continue,
            };
            if self.told.contains(&told) {
                self.half_told.insert(told);
            }
        }
    }

    /// Everything on record is gone.
    pub(super) fn lose(&mut self) {
        self.rows.clear();
        self.told.clear();
        self.half_told.clear();
        self.lost = true;
    }

    /// The process of the gateway whose end is not on record.
    pub(super) fn unfinished(&self) -> Option<usize> {
        self.rows.last_key_value().filter(|(_, row)| row.settled.is_none()).and_then(|(_, row)| row.life)
    }

    pub(super) fn unsettled(&self) -> bool {
        self.rows.values().any(|row| row.settled.is_none())
    }
}
