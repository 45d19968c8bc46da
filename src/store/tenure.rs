//! The time for which the lease is ours: writing, and noticing that it is ours no longer.

use super::acquire::named;
use super::clock::Patience;
use super::error::{Kind, StoreError};
use super::folder::{self, FileId};
use super::lock::{self, Lock};
use super::schema::{Checkpoint, Database};
use super::worker::Worker;
use super::{News, lease};
use crate::core::lease::{Basis, Life};
use crate::core::{Holder, Report};
use crate::platform::claim::Claim;
use rusqlite::Transaction;
use std::mem;
use std::time::Duration;

/// Between two attempts on a lock that may be free in an instant.
const STEP: Duration = Duration::from_millis(5);

/// How we stand to the lease.
#[derive(Default)]
pub(super) enum Tenure {
    /// It is not ours.
    #[default]
    None,
    /// It is.
    Held(Box<Held>),
    /// It was. Lock and claim go with this process, which has nothing to do but to end.
    Lost { _kept: Box<Held> },
}

/// What an owner has.
pub(super) struct Held {
    /// Dropped first: nobody else may have the lock as long as the database is open.
    link: Link,
    /// None on a file system without locks.
    lock: Option<Lock>,
    _claim: Option<Claim>,
    pub(super) basis: Basis,
    /// None as long as no row of ours was written.
    epoch: Option<u64>,
    /// On the boot clock.
    pub(super) next_beat: i64,
    /// The database that was written to last.
    file: Option<FileId>,
}

/// The way to the database.
enum Link {
    /// It works.
    Open(Database),
    /// It was closed on purpose.
    Closed,
    /// It does not work, which has been told.
    Down,
}

/// Whose lease a database says it is.
enum Whose {
    Ours { epoch: u64 },
    Theirs(Option<Holder>),
}

impl Held {
    pub(super) fn new(lock: Option<Lock>, claim: Option<Claim>, basis: Basis, next_beat: i64) -> Self {
        Self { link: Link::Closed, lock, _claim: claim, basis, epoch: None, next_beat, file: None }
    }

    pub(super) fn connect(&mut self, database: Database, epoch: u64) {
        self.file = database.id();
        self.epoch = Some(epoch);
        self.link = Link::Open(database);
    }

    /// Goes on without the database. Whether that has to be told: it was known already otherwise.
    pub(super) fn disconnect(&mut self) -> bool {
        !matches!(mem::replace(&mut self.link, Link::Down), Link::Down)
    }

    /// Whether an answer of ours says that the lease is ours: elsewhere than under a lock only the row can say so.
    pub(super) fn can_vouch(&self) -> bool {
        self.basis == Basis::Lock || matches!(self.link, Link::Open(_))
    }

    pub(super) fn has_lock(&self) -> bool {
        self.lock.is_some()
    }

    fn lock_is_in_place(&self) -> bool {
        self.lock.as_ref().is_none_or(Lock::is_in_place)
    }

    fn is_in_place(&self) -> bool {
        let database = match &self.link {
            Link::Open(database) => database.is_in_place(),
            Link::Closed | Link::Down => true,
        };
        database && self.lock_is_in_place()
    }
}

impl Worker {
    /// Goes with a folder or a database that somebody put into the place of ours. Only before something that has to be
    /// on record: who replaces a folder may not be done yet.
    pub(super) fn follow(&mut self) {
        self.tenure = match mem::take(&mut self.tenure) {
            Tenure::Held(held) if !held.is_in_place() => self.follow_from(held),
            tenure => tenure,
        };
    }

    fn follow_from(&self, mut held: Box<Held>) -> Tenure {
        if let Link::Open(_) = held.link {
            held.link = Link::Closed;
        }
        let dir = self.place.dir.display();
        if held.lock_is_in_place() {
            self.warn(Some(format!("the database in {dir} was replaced; records go on in the new one")));
            return Tenure::Held(held);
        }
        match self.lock_anew() {
            Ok(lock::Attempt::Taken(lock, warning)) => {
                held.lock = Some(lock);
                self.warn(warning);
                self.warn(Some(format!("the folder {dir} was replaced; lock and records go on in the new one")));
                self.tell(News::Moved);
            }
            Ok(lock::Attempt::Held) => {
                let owner = lease::living_owner(&self.place.dir, &self.us, held.basis);
                let why = "the store folder was replaced, and another supervisor has the lock in the new one";
                return self.lose(held, owner, why);
            }
            Ok(lock::Attempt::Unsupported(error)) => self.go_down(&mut held, format!("cannot lock in {dir}: {error}")),
            Err(error) => self.go_down(&mut held, error.to_string()),
        }
        Tenure::Held(held)
    }

    fn lock_anew(&self) -> Result<lock::Attempt, StoreError> {
        let patience = Patience::new(self.limits.contention);
        let warning = folder::prepare(&self.place.dir)?;
        self.warn(warning);
        loop {
            match lock::take(&self.place.dir)? {
                lock::Attempt::Held if patience.pause(STEP) => {}
                attempt => return Ok(attempt),
            }
        }
    }

    /// Writes what is new, after a look whether the lease still is ours, and makes the counter go on if asked to.
    pub(super) fn write(&mut self, beat: bool) {
        self.tenure = match mem::take(&mut self.tenure) {
            Tenure::Held(held) if held.is_in_place() => self.write_as(held, beat),
            tenure => tenure,
        };
    }

    fn write_as(&mut self, mut held: Box<Held>, beat: bool) -> Tenure {
        let (database, was_down) = match mem::replace(&mut held.link, Link::Closed) {
            Link::Open(database) => (Some(database), false),
            Link::Closed => (None, false),
            Link::Down => (None, true),
        };
        let patience = Patience::new(if was_down { self.limits.again } else { self.limits.wait });
        let written = match self.transact(&held, database, beat, patience) {
            // The failed attempt has closed the database.
            Err(error) if error.kind() == Kind::Damaged && held.has_lock() => {
                self.put_aside(&error).and_then(|()| self.transact(&held, None, beat, patience))
            }
            written => written,
        };
        match written {
            Ok((database, Whose::Ours { epoch })) => {
                held.connect(database, epoch);
                self.ledger.written();
                if was_down {
                    self.report(Report::StoreAvailable);
                }
            }
            Ok((_, Whose::Theirs(owner))) => return self.lose(held, owner, "the record names another owner"),
            Err(_) if was_down => held.link = Link::Down,
            Err(error) => self.go_down(&mut held, error.to_string()),
        }
        Tenure::Held(held)
    }

    /// One transaction, on a database that is open or is opened for it, and closed again if anything fails.
    fn transact(
        &mut self,
        held: &Held,
        database: Option<Database>,
        beat: bool,
        patience: Patience,
    ) -> Result<(Database, Whose), StoreError> {
        let (database, was_open) = match database {
            Some(database) => (database, true),
            None => (self.open_again(held, patience)?, false),
        };
        let tx = database.begin(patience)?;
        let whose = self.write_in(&tx, held, beat).map_err(database.error("write"))?;
        if let Whose::Ours { .. } = whose {
            tx.commit().map_err(database.error("write"))?;
        } else {
            drop(tx);
        }
        if !was_open {
            database.settle()?;
        }
        Ok((database, whose))
    }

    fn open_again(&mut self, held: &Held, patience: Patience) -> Result<Database, StoreError> {
        let (database, warning) = Database::open(&self.place.dir, held.basis, patience)?;
        self.warn(warning);
        // An inode is used again; a file under the same number that is empty is another one.
        if held.file != database.id() || database.is_empty()? {
            self.ledger.begin_anew();
        }
        Ok(database)
    }

    fn write_in(&mut self, tx: &Transaction<'_>, held: &Held, beat: bool) -> rusqlite::Result<Whose> {
        let wall_ms = self.clocks.now().wall_ms;
        let whose = self.judge_ownership(tx, held, wall_ms)?;
        if let Whose::Ours { epoch } = whose {
            self.ledger.write(tx)?;
            // A look that found the lease to be ours is a sign of life too, or somebody might take over right after it.
            if beat || held.basis == Basis::Heartbeat {
                lease::beat(tx, self.terms(), epoch, wall_ms)?;
            }
        }
        Ok(whose)
    }

    /// Where locks work we have the lock, and a row that does not say so came from a copy, or was never written: it is
    /// put right, unless who it names lives. Elsewhere the row alone counts.
    fn judge_ownership(&self, tx: &Transaction<'_>, held: &Held, wall_ms: i64) -> rusqlite::Result<Whose> {
        let row = lease::read(tx, &self.place.key)?;
        let mut epoch = held.epoch.unwrap_or(0);
        if let Some(row) = &row {
            let is_ours = row.identity.owner == self.us.owner;
            if is_ours && Some(row.epoch) == held.epoch && !row.released {
                return Ok(Whose::Ours { epoch });
            }
            let lives = !row.released && row.identity.life(&self.us, held.basis) == Life::Alive;
            if !is_ours && held.epoch.is_some() && (held.basis == Basis::Heartbeat || lives) {
                return Ok(Whose::Theirs(named(row, &self.us, held.basis)));
            }
            epoch = epoch.max(row.epoch.saturating_add(1));
        }
        let epoch = epoch.max(1);
        lease::write(tx, self.terms(), epoch, row.as_ref(), wall_ms)?;
        Ok(Whose::Ours { epoch })
    }

    /// Does now what would make a later commit wait for the disk: brings the log into the database, and begins it anew.
    pub(super) fn tidy_up(&mut self) {
        if let Tenure::Held(held) = &self.tenure
            && let Link::Open(database) = &held.link
            && held.basis == Basis::Lock
            && database.checkpoint(Checkpoint::AsFarAsItGoes).is_ok()
        {
            self.write(true);
        }
    }

    fn lose(&self, held: Box<Held>, owner: Option<Holder>, why: &str) -> Tenure {
        self.tell(News::Lost { owner, why: why.to_owned() });
        Tenure::Lost { _kept: held }
    }

    fn go_down(&self, held: &mut Held, why: String) {
        if held.disconnect() {
            self.report(Report::StoreUnavailable { why });
        }
    }

    /// Writes what is left to write and ends. Whether the lease was given back, as asked.
    pub(super) fn close(&mut self, release: bool) -> bool {
        // Two waits at most, and somebody waits for both.
        self.limits.wait = self.limits.close / 3;
        if self.ledger.has_news() {
            self.write(false);
        }
        let Tenure::Held(held) = mem::take(&mut self.tenure) else { return false };
        let Link::Open(database) = &held.link else { return false };
        if !held.is_in_place() {
            return false;
        }
        let released = release && self.release(database, held.epoch.unwrap_or(0)).unwrap_or(false);
        // Without it the next start has a longer log to read, and nothing is lost.
        let _stays = database.checkpoint(Checkpoint::Whole);
        released
    }

    fn release(&self, database: &Database, epoch: u64) -> Result<bool, StoreError> {
        let tx = database.begin(Patience::new(self.limits.wait))?;
        let released = lease::release(&tx, self.terms(), epoch, self.clocks.now().wall_ms);
        let released = released.map_err(database.error("write"))?;
        tx.commit().map_err(database.error("write"))?;
        Ok(released)
    }
}
