//! The records that are not written yet, and those that another database would need.

use super::clock::{Clocks, Stamp};
use super::events::{self, NewEvent};
use super::history;
use super::messages::SpawnIntent;
use super::record::{Change, GenerationRecord};
use crate::core::handoff::PENDING_MAX;
use crate::core::{Fact, Generation};
use crate::platform::machine;
use rusqlite::Transaction;
use std::collections::{BTreeMap, VecDeque};

/// The bounds while nothing can be written. The oldest are dropped.
const EVENTS_MAX: usize = 1000;
const RECORDS_MAX: usize = 64;

/// Settled gateways that are kept: each may still turn out to have planned its exit.
const RECENT_MAX: usize = PENDING_MAX + 1;

#[derive(Debug)]
pub(super) struct WriteBuffer {
    owner: String,
    clocks: Clocks,
    records: BTreeMap<Generation, BufferedRecord>,
    events: VecDeque<NewEvent>,
    numbering: Numbering,
    /// Events written since the last pruning; `None` before the first one.
    unpruned: Option<u32>,
}

#[derive(Debug)]
struct BufferedRecord {
    record: GenerationRecord,
    is_changed: bool,
}

/// How our generation numbers map to those of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbering {
    /// The database was unreadable when we began to count, or was replaced. None of its numbers may be used twice.
    Unknown,
    /// Ours plus this offset.
    After(u64),
}

impl WriteBuffer {
    pub(super) fn new(owner: String, clocks: Clocks) -> Self {
        let (records, events) = (BTreeMap::new(), VecDeque::new());
        Self { owner, clocks, records, events, numbering: Numbering::Unknown, unpruned: None }
    }

    /// Starts from a readable database. `left`: the gateway that may still be running.
    pub(super) fn begin(&mut self, left: Option<GenerationRecord>) {
        self.numbering = Numbering::After(0);
        self.records =
            left.into_iter().map(|record| (record.generation, BufferedRecord { record, is_changed: false })).collect();
    }

    /// The same, read from a database that cannot be written yet: it may be replaced until it can.
    pub(super) fn begin_unwritten(&mut self, left: Option<GenerationRecord>) {
        self.begin(left);
        self.numbering = Numbering::Unknown;
    }

    /// From now on another database is written, which needs all records.
    pub(super) fn rewrite_all(&mut self) {
        self.numbering = Numbering::Unknown;
        self.unpruned = None;
        for buffered in self.records.values_mut() {
            buffered.is_changed = true;
        }
    }

    pub(super) fn intend(&mut self, intent: SpawnIntent, at: Stamp) {
        let record = GenerationRecord {
            generation: intent.generation,
            instance: intent.instance,
            owner: self.owner.clone(),
            command: intent.command,
            boot_id: self.clocks.boot_id.clone(),
            pid_namespace: machine::pid_namespace(),
            intent: Some(at),
            ..GenerationRecord::default()
        };
        self.records.insert(intent.generation, BufferedRecord { record, is_changed: true });
    }

    pub(super) fn change(&mut self, generation: Generation, change: Change, at: Stamp) {
        // A new record with only this fact would overwrite the complete row.
        if matches!(change, Change::Fact(Fact::Planned, _)) && !self.records.contains_key(&generation) {
            return;
        }
        let buffered = self.records.entry(generation).or_insert_with(|| {
            let record = GenerationRecord {
                generation,
                owner: self.owner.clone(),
                boot_id: self.clocks.boot_id.clone(),
                ..GenerationRecord::default()
            };
            BufferedRecord { record, is_changed: true }
        });
        let before = buffered.record.clone();
        let is_succeeded = matches!(change, Change::Fact(Fact::Succeeded(_), _));
        if matches!(change, Change::Spawned { .. } | Change::Adopted { .. }) {
            buffered.record.pid_namespace = machine::pid_namespace();
        }
        buffered.record.apply(change, at, &self.clocks, &self.owner);
        buffered.is_changed |= buffered.record != before;
        if is_succeeded {
            // Its successor has inherited the id. Both are written in one transaction: one of the two is always open.
            let GenerationRecord { instance, command, tree, .. } = before;
            let heir = SpawnIntent { generation: generation + 1, instance, command };
            self.intend(heir, at);
            self.change(generation + 1, Change::Tree(tree), at);
        }
        while self.records.len() > RECORDS_MAX {
            self.records.pop_first();
        }
    }

    pub(super) fn report(&mut self, entry: NewEvent) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(entry);
    }

    /// Whether the youngest gateway is about to start or to come up.
    pub(super) fn is_booting(&self) -> bool {
        let youngest = self.records.last_key_value().map(|(_, buffered)| &buffered.record);
        youngest.is_some_and(|record| record.started.is_none() && record.died.is_none() && record.settled.is_none())
    }

    pub(super) fn has_changes(&self) -> bool {
        !self.events.is_empty() || self.records.values().any(|buffered| buffered.is_changed)
    }

    /// Writes what has changed. It counts as unwritten until [`WriteBuffer::written`], because the commit may fail.
    pub(super) fn write(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        let offset = self.settle_numbering(tx)?;
        for buffered in self.records.values().filter(|buffered| buffered.is_changed) {
            history::write(tx, &buffered.record, offset)?;
        }
        for entry in &self.events {
            events::insert(tx, entry, offset)?;
        }
        let count = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        if self.unpruned.is_none_or(|before| before.saturating_add(count) >= events::PRUNE_EVERY) {
            events::prune(tx, self.clocks.now().wall_ms)?;
        }
        Ok(())
    }

    /// After the commit. Forgets the records that will not change any more.
    pub(super) fn written(&mut self) {
        let count = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        self.unpruned = match self.unpruned {
            Some(before) if before.saturating_add(count) < events::PRUNE_EVERY => Some(before + count),
            _ => Some(0),
        };
        self.events.clear();
        let recent = self.records.keys().rev().nth(RECENT_MAX - 1).copied();
        self.records.retain(|generation, buffered| {
            buffered.is_changed = false;
            recent.is_none_or(|recent| *generation >= recent) || buffered.record.settled.is_none()
        });
    }

    fn settle_numbering(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<u64> {
        if let Numbering::After(offset) = self.numbering {
            return Ok(offset);
        }
        // A record without an end is over: it is older than ours, or it is ours and about to be written.
        history::close_all(tx)?;
        let Some((first, buffered)) = self.records.first_key_value() else { return Ok(0) };
        let there = history::read(tx, *first)?;
        let offset = match there {
            Some(there) if there.instance == buffered.record.instance => 0,
            _ => history::youngest(tx)?.saturating_sub(first.saturating_sub(1)),
        };
        self.numbering = Numbering::After(offset);
        Ok(offset)
    }
}
