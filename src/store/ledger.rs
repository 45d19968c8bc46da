//! What the store has to write, and what it would have to write again into another database.

use super::clock::{Clocks, Stamp};
use super::record::{Change, GenerationRecord};
use super::{Intent, events, history};
use crate::core::handoff::PENDING_MAX;
use crate::core::{Fact, Generation};
use rusqlite::Transaction;
use std::collections::{BTreeMap, VecDeque};

/// What is kept while nothing can be written. Then the oldest are dropped.
const EVENTS_MAX: usize = 1000;
const RECORDS_MAX: usize = 64;

/// Gateways that are kept in mind though they are over: of each of these a word may come that it had planned its end.
const RECENT_MAX: usize = PENDING_MAX + 1;

/// All of it, in memory.
#[derive(Debug)]
pub(super) struct Ledger {
    owner: String,
    clocks: Clocks,
    records: BTreeMap<Generation, Line>,
    events: VecDeque<events::Entry>,
    numbering: Numbering,
    /// Events that were written since the last look for old ones; none if there was no look yet.
    unpruned: Option<u32>,
}

#[derive(Debug)]
struct Line {
    record: GenerationRecord,
    is_new: bool,
}

/// How our numbers of gateways stand to those of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Numbering {
    /// The database has its own, which we have not seen when we began to count: it was not readable, or it is another
    /// one now. No number of it may be used for a second gateway.
    Unknown,
    /// Ours and so many more.
    After(u64),
}

impl Ledger {
    pub(super) fn new(owner: String, clocks: Clocks) -> Self {
        let (records, events) = (BTreeMap::new(), VecDeque::new());
        Self { owner, clocks, records, events, numbering: Numbering::Unknown, unpruned: None }
    }

    /// Begins with what a readable database says of the gateway that may be left.
    pub(super) fn begin(&mut self, left: Option<GenerationRecord>) {
        self.numbering = Numbering::After(0);
        self.records = left.into_iter().map(|record| (record.generation, Line { record, is_new: false })).collect();
    }

    /// From now on another database is written to.
    pub(super) fn begin_anew(&mut self) {
        self.numbering = Numbering::Unknown;
        self.unpruned = None;
        for line in self.records.values_mut() {
            line.is_new = true;
        }
    }

    pub(super) fn intend(&mut self, intent: Intent, at: Stamp) {
        let record = GenerationRecord {
            generation: intent.generation,
            instance: intent.instance,
            owner: self.owner.clone(),
            command: intent.command,
            boot_id: self.clocks.boot_id.clone(),
            intent: Some(at),
            ..GenerationRecord::default()
        };
        self.records.insert(intent.generation, Line { record, is_new: true });
    }

    pub(super) fn change(&mut self, generation: Generation, change: Change, at: Stamp) {
        // A record that begins with its last fact would take the place of all that was written before.
        if matches!(change, Change::Fact(Fact::Planned, _)) && !self.records.contains_key(&generation) {
            return;
        }
        let line = self.records.entry(generation).or_insert_with(|| {
            let record = GenerationRecord {
                generation,
                owner: self.owner.clone(),
                boot_id: self.clocks.boot_id.clone(),
                ..GenerationRecord::default()
            };
            Line { record, is_new: true }
        });
        let before = line.record.clone();
        line.record.apply(change, at, &self.clocks, &self.owner);
        line.is_new |= line.record != before;
        while self.records.len() > RECORDS_MAX {
            self.records.pop_first();
        }
    }

    pub(super) fn report(&mut self, entry: events::Entry) {
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(entry);
    }

    pub(super) fn has_news(&self) -> bool {
        !self.events.is_empty() || self.records.values().any(|line| line.is_new)
    }

    /// Writes all that is new. It stays new until [`Ledger::written`]: the transaction may fail yet.
    pub(super) fn write(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<()> {
        let offset = self.settle_numbering(tx)?;
        for line in self.records.values().filter(|line| line.is_new) {
            history::write(tx, &line.record, offset)?;
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

    /// The transaction is through. What nothing more will be told of is forgotten.
    pub(super) fn written(&mut self) {
        let count = u32::try_from(self.events.len()).unwrap_or(u32::MAX);
        self.unpruned = match self.unpruned {
            Some(before) if before.saturating_add(count) < events::PRUNE_EVERY => Some(before + count),
            _ => Some(0),
        };
        self.events.clear();
        let recent = self.records.keys().rev().nth(RECENT_MAX - 1).copied();
        self.records.retain(|generation, line| {
            line.is_new = false;
            recent.is_none_or(|recent| *generation >= recent) || line.record.settled.is_none()
        });
    }

    fn settle_numbering(&mut self, tx: &Transaction<'_>) -> rusqlite::Result<u64> {
        if let Numbering::After(offset) = self.numbering {
            return Ok(offset);
        }
        // Whatever has no end there is over: it was started before ours, or it is ours and is written in an instant.
        history::close_all(tx)?;
        let Some((first, line)) = self.records.first_key_value() else { return Ok(0) };
        let there = history::read(tx, *first)?;
        let offset = match there {
            Some(there) if there.instance == line.record.instance => 0,
            _ => history::youngest(tx)?.saturating_sub(first.saturating_sub(1)),
        };
        self.numbering = Numbering::After(offset);
        Ok(offset)
    }
}
