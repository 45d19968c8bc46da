//! What outlives a supervisor: the records of gateways, the lease, and the log.

use crate::fake_shell::{Broken, must};
use openclaw_supervise_core::restart_policy::Cause;
use openclaw_supervise_core::{
    Effect, ExitStatus, Fact, Generation, History, Moment, PastRun, Report, Settled, Unfinished,
};
use std::collections::{BTreeMap, BTreeSet};

/// One gateway on record.
#[derive(Debug, Clone, Default)]
pub(super) struct Row {
    /// The gateway, as the mark in its environment shows.
    pub(super) gateway: Option<usize>,
    /// `None` until its process id is on record.
    pub(super) pid: Option<i32>,
    spawned: Moment,
    started: Option<Moment>,
    stable: Option<Moment>,
    died: Option<(ExitStatus, Moment)>,
    settled: Option<Settled>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Reported {
    Started,
    Exited,
}

/// The lease and its heartbeat.
#[derive(Debug, Clone, Default)]
pub(super) struct Lease {
    pub(super) owner: Option<usize>,
    pub(super) epoch: u64,
    /// The last owner did not release it.
    pub(super) stale: bool,
    /// Whose lease a person gave to a supervisor elsewhere, which holds it as long as that one lives.
    pub(super) robbed: Option<usize>,
    pub(super) beat: u64,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Store {
    pub(super) rows: BTreeMap<Generation, Row>,
    pub(super) lease: Lease,
    /// It was lost and recreated at least once.
    pub(super) lost: bool,
    reported: BTreeSet<(Reported, Generation)>,
    /// Reported by a supervisor that was killed before it could record it.
    half_reported: BTreeSet<(Reported, Generation)>,
}

impl Store {
    /// The history that a new owner reads.
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

    /// Records a gateway that is about to start, or was found by its mark alone.
    pub(super) fn intend(&mut self, generation: Generation, now: Moment) -> Result<(), Broken> {
        let settled = self.rows.values().all(|row| row.settled.is_some());
        must(settled, "P9", "a start is recorded before the last exit")?;
        let youngest = self.rows.last_key_value().is_none_or(|(youngest, _)| *youngest < generation);
        must(youngest, "P9", "a generation that another gateway of this store had")?;
        self.rows.insert(generation, Row { spawned: now, ..Row::default() });
        Ok(())
    }

    /// The same, unless it is on record already.
    pub(super) fn intend_once(&mut self, generation: Generation, now: Moment) -> Result<(), Broken> {
        if self.rows.contains_key(&generation) { Ok(()) } else { self.intend(generation, now) }
    }

    pub(super) fn remember(&mut self, generation: Generation, fact: Fact, now: Moment) -> Result<(), Broken> {
        if let Fact::Settled(Settled::NeverStarted | Settled::Postponed) = fact {
            // Its pre-start hook failed, or the start was cancelled: there is no record of it yet.
            self.intend_once(generation, now)?;
        }
        let Some(row) = self.rows.get_mut(&generation) else {
            return must(false, "P9", "a fact about a gateway that is not on record");
        };
        let again = match fact {
            Fact::Started => row.started.replace(now).is_some(),
            Fact::Stable => row.stable.replace(now).is_some(),
            Fact::Died(death) => row.died.replace((death, now)).is_some(),
            // The next supervisor may look for it again before it is settled.
            Fact::Unseen => row.settled.is_some(),
            Fact::Settled(settled) => row.settled.replace(settled).is_some(),
            Fact::Succeeded(run) => {
                let heir = Row { gateway: row.gateway, spawned: now, ..Row::default() };
                let again = row.settled.replace(Settled::Ran(run, Cause::Asked)).is_some();
                self.rows.insert(generation + 1, heir);
                again
            }
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

    /// The log of all supervisors has each start and each exit once.
    pub(super) fn note_report(&mut self, report: &Report) -> Result<(), Broken> {
        let reported = match report {
            Report::GatewayStarted { generation, .. } => (Reported::Started, *generation),
            Report::GatewayExited(exited) => (Reported::Exited, exited.generation),
            _ => return Ok(()),
        };
        let first = self.reported.insert(reported) || self.half_reported.remove(&reported);
        must(first, "P9", "two supervisors report the same start or exit")
    }

    /// The supervisor was killed before it performed these.
    pub(super) fn lose_effects(&mut self, effects: &[(usize, Effect)]) {
        for (_, effect) in effects {
            let reported = match effect {
                Effect::Remember { generation, fact: Fact::Started } => (Reported::Started, *generation),
                Effect::Remember { generation, fact: Fact::Died(_) } => (Reported::Exited, *generation),
                _ => continue,
            };
            if self.reported.contains(&reported) {
                self.half_reported.insert(reported);
            }
        }
    }

    /// Loses every record.
    pub(super) fn lose(&mut self) {
        self.rows.clear();
        self.reported.clear();
        self.half_reported.clear();
        self.lost = true;
    }

    /// The gateway whose exit is not settled.
    pub(super) fn unfinished(&self) -> Option<usize> {
        self.rows.last_key_value().filter(|(_, row)| row.settled.is_none()).and_then(|(_, row)| row.gateway)
    }

    pub(super) fn unsettled(&self) -> bool {
        self.rows.values().any(|row| row.settled.is_none())
    }
}
