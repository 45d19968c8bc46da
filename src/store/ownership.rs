//! The lease while it is ours: writes to the database, and notices the loss of the lease.

use super::clock::{Patience, milliseconds};
use super::context::Context;
use super::error::{StoreError, StoreErrorKind};
use super::folder::{self, FileId};
use super::image::DatabaseImage;
use super::lease::{self, LeaseRow};
use super::lock::{self, Lock, LockAttempt};
use super::messages::News;
use super::schema::{Checkpoint, Database};
use super::write_buffer::WriteBuffer;
use crate::core::Holder;
use crate::core::lease::{Basis, CONFIRMED_FOR, DOUBTED_FOR, Life, UNDOUBTED_WITHIN};
use crate::platform::claim::Claim;
use crate::platform::folder::Folder;
use rusqlite::Transaction;
use std::io;
use std::mem;
use std::time::Duration;

/// Between two attempts on a lock that may be free in an instant.
const STEP: Duration = Duration::from_millis(5);

#[derive(Default)]
pub(super) enum Ownership {
    #[default]
    None,
    Held(Box<HeldLease>),
    /// Lock and claim are kept until this process exits.
    Lost {
        _kept: Box<HeldLease>,
    },
}

/// What the owner of the lease holds.
pub(super) struct HeldLease {
    /// Dropped first: the lock must not be free while the database is open.
    link: Link,
    /// `None` on a file system without locks.
    lock: Option<Lock>,
    claim: Option<Claim>,
    /// The row names an earlier place of the gateway.
    has_moved: bool,
    pub(super) basis: Basis,
    /// `None` until a row of ours is written.
    epoch: Option<u64>,
    /// In milliseconds of the boot clock.
    pub(super) next_beat: i64,
    /// The database that was written last.
    file: Option<FileId>,
    /// The last look missed our files.
    is_missed: bool,
    /// Until then the row is left alone, in milliseconds of the boot clock; 0 if it is not doubted.
    doubted_until: i64,
}

enum Link {
    Open(Database),
    Closed,
    /// Unusable, which has been reported.
    Down,
}

enum RowOwner {
    Us {
        epoch: u64,
    },
    /// `None` if the owner cannot be seen.
    Other(Option<Holder>),
}

/// What came of a write.
enum Written {
    Ours(Database, u64),
    /// The row is another owner's: nothing was written.
    Others(Option<Holder>),
}

impl HeldLease {
    pub(super) fn new(lock: Option<Lock>, claim: Option<Claim>, basis: Basis, next_beat: i64) -> Self {
        let (link, file, is_missed) = (Link::Closed, None, false);
        Self { link, lock, claim, has_moved: false, basis, epoch: None, next_beat, file, is_missed, doubted_until: 0 }
    }

    /// A transaction that began then has found or made the row ours. An owner that was away looks again, see
    /// [`DOUBTED_FOR`].
    pub(super) fn confirm(&mut self, context: &Context, began: i64) {
        let now = (context.clocks.boot)();
        let is_older = |since: i64, than: Duration| now.saturating_sub(since) >= milliseconds(than);
        let is_doubtful = if self.doubted_until == 0 {
            is_older(context.confirmed().unwrap_or(began), CONFIRMED_FOR)
        } else {
            is_older(began, UNDOUBTED_WITHIN)
        };
        if self.basis == Basis::Heartbeat && is_doubtful {
            self.doubted_until = context.after(DOUBTED_FOR);
            self.next_beat = self.doubted_until;
            return;
        }
        self.doubted_until = 0;
        if context.beats(self.basis) {
            context.confirm(began);
        }
    }

    pub(super) fn connect(&mut self, database: Database, epoch: u64) {
        self.file = database.id();
        self.epoch = Some(epoch);
        self.link = Link::Open(database);
    }

    /// Continues without the database. Returns whether that is new and has to be reported.
    pub(super) fn disconnect(&mut self) -> bool {
        !matches!(mem::replace(&mut self.link, Link::Down), Link::Down)
    }

    /// What can be judged from here, as for [`crate::core::lease::rule`]: without a lock of our own, no lock.
    pub(super) fn sees(&self, sees: Basis) -> Basis {
        if self.has_lock() { sees } else { Basis::Heartbeat }
    }

    /// Whether the lease is certainly ours: without a lock only the row can tell.
    pub(super) fn is_certain(&self) -> bool {
        self.basis == Basis::Lock || matches!(self.link, Link::Open(_)) && self.doubted_until == 0
    }

    pub(super) fn has_moved(&self) -> bool {
        self.has_moved
    }

    pub(super) fn has_lock(&self) -> bool {
        self.lock.is_some()
    }

    /// Whether the database cannot be used.
    pub(super) fn is_down(&self) -> bool {
        matches!(self.link, Link::Down)
    }

    fn lock_is_in_place(&self) -> io::Result<bool> {
        self.lock.as_ref().map_or(Ok(true), Lock::is_in_place)
    }

    /// An error says that the path cannot be looked at: a dead server, a stale handle, a failing disk.
    fn is_in_place(&self) -> io::Result<bool> {
        let database = match &self.link {
            Link::Open(database) => database.is_in_place()?,
            Link::Closed | Link::Down => true,
        };
        Ok(database && self.lock_is_in_place()?)
    }
}

impl Ownership {
    pub(super) fn held(&self) -> Option<&HeldLease> {
        match self {
            Self::Held(held) => Some(held),
            Self::None | Self::Lost { .. } => None,
        }
    }

    /// The gateway has moved. Without a claim on its new port that on the old one is kept.
    pub(super) fn note_move(&mut self, claim: Option<Claim>) {
        if let Self::Held(held) = self {
            held.has_moved = true;
            held.claim = claim.or(held.claim.take());
        }
    }

    /// Follows a directory or a database that was replaced. Only called before something that has to be recorded: the
    /// replacement may still be going on.
    pub(super) fn follow(&mut self, context: &Context) {
        *self = match mem::take(self) {
            Self::Held(held) if held.is_in_place().is_ok_and(|is| !is) => follow(context, held),
            other => other,
        };
    }

    /// Answers an observer that cannot see our lock, see [`folder::QUESTION`].
    pub(super) fn answer(&mut self, context: &Context, buffer: &mut WriteBuffer) {
        let dir = &context.place.dir;
        if self.held().is_some() && dir.join(folder::QUESTION).exists() {
            let _asked_again = Folder::open(dir).map(|folder| folder.remove(folder::QUESTION));
            self.write(context, buffer, true);
        }
    }

    /// Looks whether our files are in place, and follows at the second look that misses them: the first may fall into a
    /// restore that is going on. A store that could not be used is tried again.
    pub(super) fn look(&mut self, context: &Context, buffer: &mut WriteBuffer) {
        let Self::Held(held) = self else { return };
        match held.is_in_place() {
            Ok(true) => {
                held.is_missed = false;
                if !context.place.socket.exists() {
                    context.tell(News::Moved);
                }
                if held.is_down() {
                    self.write(context, buffer, false);
                }
            }
            Ok(false) => {
                if mem::replace(&mut held.is_missed, true) {
                    self.follow(context);
                    self.write(context, buffer, false);
                }
            }
            // It tells of it.
            Err(_) => self.write(context, buffer, false),
        }
    }

    /// Checks that the lease is still ours and writes the buffer; increments the heartbeat if `beat`.
    pub(super) fn write(&mut self, context: &Context, buffer: &mut WriteBuffer, beat: bool) {
        let began = (context.clocks.boot)();
        *self = match mem::take(self) {
            Self::Held(held) if began < held.doubted_until => Self::Held(held),
            Self::Held(mut held) => match held.is_in_place() {
                Ok(true) => write(context, buffer, held, beat, began),
                Ok(false) => {
                    // Others see another row: this one confirms nothing.
                    if context.beats(held.basis) {
                        go_down(context, &mut held, format!("{} was replaced or removed", context.place.dir.display()));
                    }
                    Self::Held(held)
                }
                Err(error) => {
                    go_down(context, &mut held, format!("cannot look at {}: {error}", context.place.dir.display()));
                    Self::Held(held)
                }
            },
            other => other,
        };
    }

    /// Moves the log into the database now, so that no later commit waits for the disk.
    pub(super) fn checkpoint(&mut self, context: &Context, buffer: &mut WriteBuffer) {
        if let Self::Held(held) = &*self
            && let Link::Open(database) = &held.link
            && held.basis == Basis::Lock
            && database.checkpoint(Checkpoint::Passive).is_ok()
        {
            // The first commit after a checkpoint does wait.
            self.write(context, buffer, true);
        }
    }

    /// Writes the buffer and ends the ownership. Returns whether the lease was released.
    pub(super) fn close(&mut self, context: &mut Context, buffer: &mut WriteBuffer, release: bool) -> bool {
        // The caller waits for at most two of these.
        context.limits.wait = context.limits.close / 3;
        if buffer.has_changes() {
            self.write(context, buffer, false);
        }
        let Self::Held(held) = mem::take(self) else { return false };
        let Link::Open(database) = &held.link else { return false };
        if held.doubted_until != 0 || !held.is_in_place().unwrap_or(false) {
            return false;
        }
        let released = release && release_row(context, database, &held).unwrap_or(false);
        // A failure costs only a longer log at the next start.
        let _stays = database.checkpoint(Checkpoint::Truncate);
        released
    }
}

fn follow(context: &Context, mut held: Box<HeldLease>) -> Ownership {
    if let Link::Open(_) = held.link {
        held.link = Link::Closed;
    }
    let dir = context.place.dir.display();
    if held.lock_is_in_place().unwrap_or(false) {
        context.warn(Some(format!("the database in {dir} was replaced; writing to the new one")));
        return Ownership::Held(held);
    }
    // A network file system that was unmounted: other machines go on with the row that is there, not with one here.
    if held.basis == Basis::Heartbeat && held.file.is_some_and(|file| !file.shares_device(&context.place.dir)) {
        go_down(context, &mut held, format!("{dir} is on another file system now"));
        return Ownership::Held(held);
    }
    match lock_again(context) {
        Ok(LockAttempt::Taken(lock, warning)) => {
            held.lock = Some(lock);
            context.warn_of_modes(warning);
            context.warn(Some(format!("the directory {dir} was replaced; locked the new one and writing to it")));
            context.tell(News::Moved);
        }
        Ok(LockAttempt::Held) => {
            let owner = lease::living_owner(&context.place.dir, &context.us, held.basis);
            let why = "the store directory was replaced, and another supervisor holds the lock in the new one";
            return lose(context, held, owner, why);
        }
        Ok(LockAttempt::Unsupported(error)) => go_down(context, &mut held, format!("cannot lock in {dir}: {error}")),
        Err(error) => go_down(context, &mut held, error.to_string()),
    }
    Ownership::Held(held)
}

fn lock_again(context: &Context) -> Result<LockAttempt, StoreError> {
    let patience = Patience::new(context.limits.contention);
    let warning = folder::prepare(&context.place.dir)?;
    context.warn_of_modes(warning);
    loop {
        match lock::take(&context.place.dir)? {
            LockAttempt::Held if patience.pause(STEP) => {}
            attempt => return Ok(attempt),
        }
    }
}

fn write(context: &Context, buffer: &mut WriteBuffer, mut held: Box<HeldLease>, beat: bool, began: i64) -> Ownership {
    let (database, was_down) = match mem::replace(&mut held.link, Link::Closed) {
        Link::Open(database) => (Some(database), false),
        Link::Closed => (None, false),
        Link::Down => (None, true),
    };
    let patience = Patience::new(if was_down { context.limits.again } else { context.limits.wait });
    let written = match transact(context, buffer, &held, database, beat, patience) {
        // The failed attempt has closed the database.
        Err(error) if error.kind() == StoreErrorKind::Corrupt && held.has_lock() => {
            context.move_aside(&error).and_then(|()| transact(context, buffer, &held, None, beat, patience))
        }
        written => written,
    };
    match written {
        Ok(Written::Ours(database, epoch)) => {
            held.connect(database, epoch);
            held.has_moved = false;
            buffer.written();
            if was_down {
                context.tell(News::Returned);
            }
            held.confirm(context, began);
        }
        Ok(Written::Others(owner)) => return lose(context, held, owner, "the lease record names another owner"),
        Err(_) if was_down => held.link = Link::Down,
        Err(error) => go_down(context, &mut held, error.to_string()),
    }
    Ownership::Held(held)
}

/// Writes in one transaction. An error closes the database.
fn transact(
    context: &Context,
    buffer: &mut WriteBuffer,
    held: &HeldLease,
    database: Option<Database>,
    beat: bool,
    patience: Patience,
) -> Result<Written, StoreError> {
    let was_open = database.is_some();
    if !was_open && let Some(row) = owner_of_other_kind(context, held)? {
        return Ok(Written::Others(row.holder(&context.us, held.basis)));
    }
    let database = match database {
        Some(database) => database,
        None => open_again(context, buffer, held, patience)?,
    };
    let tx = database.begin(patience)?;
    let epoch = match write_in(context, buffer, &tx, held, beat).map_err(database.error("write"))? {
        RowOwner::Us { epoch } => epoch,
        RowOwner::Other(owner) => return Ok(Written::Others(owner)),
    };
    tx.commit().map_err(database.error("write"))?;
    if !was_open {
        database.settle()?;
    }
    Ok(Written::Ours(database, epoch))
}

/// Who holds the lease in a database of the other kind that took the place of ours. One that has no such owner any more is
/// replaced.
fn owner_of_other_kind(context: &Context, held: &HeldLease) -> Result<Option<LeaseRow>, StoreError> {
    let Some(image) = DatabaseImage::of_other_kind(&context.place.dir, held.basis)? else { return Ok(None) };
    let is_new = |row: &LeaseRow| row.identity.owner != context.us.owner && Some(row.epoch) > held.epoch;
    let holds = |row: &LeaseRow| !row.released && !matches!(row.life(&context.us, held.basis), Life::Gone(_));
    match lease::rows_of(&image)?.into_iter().find(|row| is_new(row) && holds(row)) {
        Some(row) => Ok(Some(row)),
        None => image.install(held.basis).map(|()| None),
    }
}

fn open_again(
    context: &Context,
    buffer: &mut WriteBuffer,
    held: &HeldLease,
    patience: Patience,
) -> Result<Database, StoreError> {
    let (database, warning) = Database::open(&context.place.dir, held.basis, patience)?;
    context.warn_of_modes(warning);
    // Inode numbers are reused: an empty file with the same number is another file.
    if held.file != database.id() || database.is_empty()? {
        buffer.rewrite_all();
    }
    Ok(database)
}

fn write_in(
    context: &Context,
    buffer: &mut WriteBuffer,
    tx: &Transaction<'_>,
    held: &HeldLease,
    beat: bool,
) -> rusqlite::Result<RowOwner> {
    let wall_ms = context.clocks.now().wall_ms;
    let owner = row_owner(context, tx, held, wall_ms)?;
    if let RowOwner::Us { epoch } = owner {
        buffer.write(tx)?;
        if held.has_moved {
            lease::write_place(tx, context.terms(held.basis), epoch)?;
        }
        // A confirmation is a heartbeat too: otherwise another supervisor might take over right after it.
        if beat || held.basis == Basis::Heartbeat {
            lease::beat(tx, context.terms(held.basis), epoch, wall_ms)?;
        }
    }
    Ok(owner)
}

/// With a lock, a row that names another owner came from a copy or is outdated: it is corrected, unless that owner is
/// alive. With a heartbeat only the row counts.
fn row_owner(context: &Context, tx: &Transaction<'_>, held: &HeldLease, wall_ms: i64) -> rusqlite::Result<RowOwner> {
    let row = lease::read(tx, &context.place.key, held.basis)?;
    let mut epoch = held.epoch.unwrap_or(0);
    if let Some(row) = &row {
        let is_ours = row.identity.owner == context.us.owner;
        if is_ours && Some(row.epoch) == held.epoch && !row.released {
            return Ok(RowOwner::Us { epoch });
        }
        let lives = !row.released && row.life(&context.us, held.basis) == Life::Alive;
        // An earlier owner whose write had hung: it has not seen ours.
        let is_outdated = row.epoch < epoch;
        if !is_ours && held.epoch.is_some() && (held.basis == Basis::Heartbeat && !is_outdated || lives) {
            return Ok(RowOwner::Other(row.holder(&context.us, held.basis)));
        }
        epoch = epoch.max(row.epoch.saturating_add(1));
    }
    let epoch = epoch.max(1);
    lease::write(tx, context.terms(held.basis), epoch, row.as_ref(), wall_ms)?;
    Ok(RowOwner::Us { epoch })
}

fn lose(context: &Context, held: Box<HeldLease>, owner: Option<Holder>, why: &str) -> Ownership {
    context.tell(News::Lost { owner, why: why.to_owned() });
    Ownership::Lost { _kept: held }
}

fn go_down(context: &Context, held: &mut HeldLease, why: String) {
    if held.disconnect() {
        context.tell(News::Failed(why));
    }
}

fn release_row(context: &Context, database: &Database, held: &HeldLease) -> Result<bool, StoreError> {
    let tx = database.begin(Patience::new(context.limits.wait))?;
    let (terms, epoch) = (context.terms(held.basis), held.epoch.unwrap_or(0));
    let released = lease::release(&tx, terms, epoch, context.clocks.now().wall_ms);
    let released = released.map_err(database.error("write"))?;
    tx.commit().map_err(database.error("write"))?;
    Ok(released)
}
