//! Takes the lease, or looks at it: the lock, the claim on the port and the row, in this order.

use super::clock::Patience;
use super::context::Context;
use super::error::{StoreError, StoreErrorKind};
use super::identity::{self, Identity};
use super::image::{self, DatabaseImage, FileKind};
use super::lease::{self, LeaseRow};
use super::lock::{self, Lock, LockAttempt};
use super::messages::{BasisChoice, News};
use super::ownership::HeldLease;
use super::record::GenerationRecord;
use super::schema::Database;
use super::write_buffer::WriteBuffer;
use super::{folder, history};
use crate::core::lease::{Basis, Ruling, rule};
use crate::core::{Acquired, Contested, History, Holder, LeaseAnswer, LeftRecord, Moment, Recovered, Report};
use crate::platform::folder::Folder;
use crate::platform::{claim, filesystem};
use rusqlite::{Connection, Transaction};
use std::time::Duration;

/// Between two attempts on a lock or a claim that may be free in an instant.
const STEP: Duration = Duration::from_millis(5);

/// How long a new owner may take from making its database to its row in it.
const BEGINNING: Duration = Duration::from_secs(1);

/// The result of the transaction on the row.
enum RowOutcome {
    Taken(Box<TakenRow>),
    Refused(LeaseAnswer),
}

struct TakenRow {
    epoch: u64,
    known: Predecessors,
}

/// What the store knows of our predecessors.
struct Predecessors {
    recovered: Option<Recovered>,
    past: History,
    left: Option<(GenerationRecord, LeftRecord)>,
}

/// Takes the lease. `unchanged`: the counter of the owner, if it has been still for long enough.
pub(super) fn take(
    context: &Context,
    buffer: &mut WriteBuffer,
    unchanged: Option<u64>,
    now: Moment,
) -> Result<(Box<HeldLease>, Acquired, Option<LeftRecord>), LeaseAnswer> {
    let warning = folder::prepare(&context.place.dir).map_err(|error| failed(&error))?;
    context.warn_of_modes(warning);
    let patience = Patience::new(context.limits.contention);
    let (lock, basis) = take_lock(context, patience)?;
    let claim = take_claim(context, patience)?;
    let server = claim.as_ref().and_then(|claim| claim.server().ok());
    let mut held = Box::new(HeldLease::new(lock, claim, basis, context.after(context.limits.beat)));
    let (acquired, left) = match take_row_or_recreate(context, &mut held, unchanged, now) {
        Ok(RowOutcome::Refused(answer)) => return Err(answer),
        Ok(RowOutcome::Taken(taken)) => {
            let TakenRow { epoch, known: Predecessors { recovered, past, left } } = *taken;
            let (record, left) = left.unzip();
            buffer.begin(record);
            (Acquired { epoch, basis, recovered, past, trouble: None }, left)
        }
        Err(error) if matches!(error.kind(), StoreErrorKind::Refused | StoreErrorKind::OtherKind) => {
            return Err(failed(&error));
        }
        Err(error) if basis == Basis::Heartbeat => {
            let why = "locks are unreliable on this file system, and the lease record cannot be used";
            return Err(answer(&error, format!("{why}: {error}")));
        }
        Err(error) => {
            let trouble = error.to_string();
            context.tell(match error.kind() {
                StoreErrorKind::Busy => News::Report(Report::LeaseTimedOut { why: trouble.clone() }),
                _ => News::Failed(trouble.clone()),
            });
            held.disconnect();
            let known = remember(context, basis, unchanged, now).transpose()?;
            let (recovered, past, left) =
                known.map_or_else(Default::default, |Predecessors { recovered, past, left }| {
                    let (record, left) = left.unzip();
                    buffer.begin_unwritten(record);
                    (recovered, past, left)
                });
            (Acquired { epoch: 0, basis, recovered, past, trouble: Some(trouble) }, left)
        }
    };
    if let Some(server) = server {
        context.tell(News::Claimed(server));
    }
    Ok((held, acquired, left))
}

/// What we hold the lease on.
fn basis(context: &Context) -> Basis {
    if context.place.basis == BasisChoice::Heartbeat { Basis::Heartbeat } else { sees(context) }
}

/// The basis that can be judged from here, see [`rule`].
fn sees(context: &Context) -> Basis {
    match (context.place.basis, filesystem::without_dependable_locks(&context.place.dir)) {
        (BasisChoice::Auto | BasisChoice::Heartbeat, Ok(Some(_))) => Basis::Heartbeat,
        (BasisChoice::Lock, _) | (_, Ok(None) | Err(_)) => Basis::Lock,
    }
}

/// How long what a dead owner held may stay held. The child that it was creating closes it first of all, as soon as it gets a
/// processor.
const INHERITED_MAX: Duration = Duration::from_secs(2);

/// Waits a moment for a holder that is about to exit, is writing its row, or only looks at the lock, and longer for a child of
/// an owner that was killed.
fn take_lock(context: &Context, patience: Patience) -> Result<(Option<Lock>, Basis), LeaseAnswer> {
    let (dir, basis) = (&context.place.dir, basis(context));
    let inherited = Patience::new(INHERITED_MAX);
    loop {
        match lock::take(dir).map_err(|error| failed(&error))? {
            LockAttempt::Taken(lock, warning) => {
                context.warn_of_modes(warning);
                return Ok((Some(lock), basis));
            }
            LockAttempt::Held => {}
            LockAttempt::Unsupported(_) if context.place.basis != BasisChoice::Lock => {
                return Ok((None, Basis::Heartbeat));
            }
            LockAttempt::Unsupported(error) => {
                let path = folder::lock_of(dir);
                let why = format!("cannot lock {}: {error}; choose a directory on a local file system", path.display());
                return Err(LeaseAnswer::Refused(why));
            }
        }
        let owner = lease::living_owner(dir, &context.us, sees(context));
        let is_inherited = || lease::is_left(dir, &context.us, sees(context)) && inherited.pause(STEP);
        if owner.is_some() || !patience.pause(STEP) && !is_inherited() {
            return Err(LeaseAnswer::Contended { owner, what: Contested::Lease });
        }
    }
}

/// The claim on the port excludes supervisors with another store directory.
fn take_claim(context: &Context, patience: Patience) -> Result<Option<claim::Claim>, LeaseAnswer> {
    let port = context.place.port;
    let inherited = Patience::new(INHERITED_MAX);
    loop {
        let held = match claim::take(port) {
            Ok(claim::ClaimOutcome::Taken(claim)) => return Ok(Some(claim)),
            Ok(claim::ClaimOutcome::Held(_)) if context.place.is_guess => return Ok(None),
            Ok(claim::ClaimOutcome::Held(held)) if held.by.is_some_and(identity::is_gone) && inherited.pause(STEP) => {
                continue;
            }
            Ok(claim::ClaimOutcome::Held(held)) => held,
            Ok(claim::ClaimOutcome::Changing) if patience.pause(STEP) => continue,
            // A supervisor listens at once.
            Ok(claim::ClaimOutcome::Changing) => {
                context.warn(Some(claim::by_table(port).warning(port)));
                return Ok(None);
            }
            Err(error) => {
                context.warn(Some(format!(
                    "cannot claim port {port}: {error}; a supervisor with another store directory will not notice this one"
                )));
                return Ok(None);
            }
        };
        if held.is_trusted() {
            let owner = held.by.and_then(identity::holder);
            return Err(LeaseAnswer::Contended { owner, what: Contested::PortClaim });
        }
        context.warn(Some(held.warning(port)));
        return Ok(None);
    }
}

/// A corrupt database is moved aside and recreated, if the lock is ours.
fn take_row_or_recreate(
    context: &Context,
    held: &mut HeldLease,
    unchanged: Option<u64>,
    now: Moment,
) -> Result<RowOutcome, StoreError> {
    let patience = Patience::new(context.limits.wait);
    match take_row(context, held, unchanged, now, patience) {
        Err(error) if error.kind() == StoreErrorKind::Corrupt && held.has_lock() => {
            context.move_aside(&error)?;
            take_row(context, held, unchanged, now, patience)
        }
        outcome => outcome,
    }
}

/// Reads the row, decides, and writes it in one transaction.
fn take_row(
    context: &Context,
    held: &mut HeldLease,
    unchanged: Option<u64>,
    now: Moment,
    patience: Patience,
) -> Result<RowOutcome, StoreError> {
    if let Some(answer) = look_before_opening(context, held, unchanged) {
        return Ok(RowOutcome::Refused(answer));
    }
    let (database, warning) = Database::open(&context.place.dir, held.basis, patience)?;
    context.warn_of_modes(warning);
    let tx = database.begin(patience)?;
    let outcome = decide(context, &tx, held, unchanged, now).map_err(database.error("read"))?;
    match &outcome {
        RowOutcome::Refused(_) => drop(tx),
        RowOutcome::Taken(taken) => {
            tx.commit().map_err(database.error("write"))?;
            database.settle()?;
            held.connect(database, taken.epoch);
        }
    }
    Ok(outcome)
}

/// Whether an owner that cannot be succeeded holds the lease. Its database is not opened, see [`DatabaseImage`]. One that was made on
/// another basis is replaced by ours. There an error is an answer too: beside such an owner our own lock proves nothing.
fn look_before_opening(context: &Context, held: &HeldLease, unchanged: Option<u64>) -> Option<LeaseAnswer> {
    let (dir, patience) = (&context.place.dir, Patience::new(BEGINNING));
    let blocked = |image: &DatabaseImage| {
        let rows = lease::rows_of(image)?;
        let judge = |row: &LeaseRow| judge(context, held.sees(sees(context)), Some(row), unchanged).err();
        let answer = rows.iter().find_map(|row| Some((row.basis, judge(row)?)));
        Ok((answer, rows.iter().any(|row| !row.released)))
    };
    if held.basis == Basis::Heartbeat
        && let Ok(Some(image)) = DatabaseImage::of_unshared(dir, held.basis)
        && image.basis == held.basis
    {
        return blocked(&image).ok()?.0.map(|(_, answer)| answer);
    }
    let replace = || loop {
        let Some(image) = DatabaseImage::of_other_kind(dir, held.basis)? else { return Ok(None) };
        let (answer, was_held) = blocked(&image)?;
        if let Some((basis, answer)) = answer {
            if basis == Basis::Lock {
                ask_owner(context);
            }
            return Ok(Some(answer));
        }
        // Where none holds it, one may have made it just now.
        if was_held || !patience.pause(BEGINNING) {
            return image.install(held.basis).map(|()| None);
        }
    };
    replace().unwrap_or_else(|error| Some(failed(&error)))
}

/// An owner by lock sees the file with its next look at its own files, and makes its counter go on.
fn ask_owner(context: &Context) {
    // Without it the owner counts as one that does not answer, and is left alone.
    let _unasked = Folder::open(&context.place.dir).map(|folder| folder.create_file(folder::QUESTION));
}

/// Whether the lease can be taken after the owner of this row, and why that one counts as gone.
fn judge(
    context: &Context,
    sees: Basis,
    row: Option<&LeaseRow>,
    unchanged: Option<u64>,
) -> Result<Option<Recovered>, LeaseAnswer> {
    // A row of our own is of an earlier attempt.
    let other = row.filter(|row| row.identity.owner != context.us.owner);
    let owner = || other.and_then(|row| row.holder(&context.us, sees));
    match rule(sees, true, other.map(|row| row.to_rule(&context.us, sees)).as_ref(), unchanged) {
        Ruling::Take { recovered } => {
            let pid = other.and_then(|row| row.identity.pid);
            Ok(recovered.map(|why| Recovered { pid, why: why.to_owned() }))
        }
        Ruling::Contended => Err(LeaseAnswer::Contended { owner: owner(), what: Contested::Lease }),
        Ruling::Observe { beat } => Err(LeaseAnswer::Unclear { beat, owner: owner() }),
        Ruling::Unjudged => Err(LeaseAnswer::Unjudged { why: unjudged(context, owner()) }),
    }
}

fn unjudged(context: &Context, owner: Option<Holder>) -> String {
    let owner =
        owner.map_or_else(|| "another supervisor".to_owned(), |owner| format!("pid {} ({})", owner.pid, owner.command));
    format!(
        "{owner} holds the lease in {} by a kernel lock that cannot be seen through this file system, and did not answer; \
         nothing was started; stop it, or if it is gone start and stop a supervisor where it ran; if that machine is gone \
         for good, remove {}; with --lease heartbeat on both sides this one can take over by itself",
        context.place.dir.display(),
        folder::database_of(&context.place.dir).display()
    )
}

fn decide(
    context: &Context,
    tx: &Transaction<'_>,
    held: &HeldLease,
    unchanged: Option<u64>,
    now: Moment,
) -> rusqlite::Result<RowOutcome> {
    let (basis, sees) = (held.basis, held.sees(sees(context)));
    let row = lease::read(tx, &context.place.key, basis)?;
    let recovered = match judge(context, sees, row.as_ref(), unchanged) {
        Ok(recovered) => recovered,
        Err(answer) => return Ok(RowOutcome::Refused(answer)),
    };
    let epoch = row.as_ref().map_or(0, |row| row.epoch).saturating_add(1);
    lease::write(tx, context.terms(basis), epoch, row.as_ref(), context.clocks.now().wall_ms)?;
    history::close_older(tx)?;
    let known = read_predecessors(context, tx, row.as_ref(), recovered, basis, now)?;
    Ok(RowOutcome::Taken(Box::new(TakenRow { epoch, known })))
}

fn read_predecessors(
    context: &Context,
    conn: &Connection,
    row: Option<&LeaseRow>,
    recovered: Option<Recovered>,
    basis: Basis,
    now: Moment,
) -> rusqlite::Result<Predecessors> {
    let (left, past) = (history::left(conn)?, history::past(conn, &context.clocks, now)?);
    let left = left.map(|record| {
        let left = place(&record, row, &context.us, basis);
        (record, left)
    });
    Ok(Predecessors { recovered, past, left })
}

/// What a database says that cannot be written: a full disk makes no crash undone, and no other owner go away. `None` if it
/// cannot be read either.
fn remember(
    context: &Context,
    basis: Basis,
    unchanged: Option<u64>,
    now: Moment,
) -> Option<Result<Predecessors, LeaseAnswer>> {
    let database = Database::open_unwritable(&context.place.dir, context.limits.again).ok()?;
    let conn = database.conn();
    let row = lease::read(conn, &context.place.key, database.basis).ok()?;
    let recovered = match judge(context, sees(context), row.as_ref(), unchanged) {
        Ok(recovered) => recovered,
        Err(answer) => return Some(Err(answer)),
    };
    read_predecessors(context, conn, row.as_ref(), recovered, basis, now).ok().map(Ok)
}

/// What is known of the gateway of a supervisor that is gone, or taken for gone. `row` is the last owner's, which need not have
/// touched that gateway: only the record tells in which namespace its pids are valid.
fn place(left: &GenerationRecord, row: Option<&LeaseRow>, us: &Identity, basis: Basis) -> LeftRecord {
    let row = row.filter(|row| row.identity.owner.as_ref() == Some(&left.owner));
    let namespace = left.pid_namespace.or(row.and_then(|row| row.identity.pid_namespace));
    let is_same_boot = left.boot_id.is_some() && left.boot_id == us.boot_id;
    let has_our_pids = is_same_boot && namespace.is_some() && namespace == us.pid_namespace;
    let is_elsewhere = match row {
        // Without a lock it is only taken for gone.
        Some(row) if basis == Basis::Heartbeat || row.basis == Basis::Heartbeat => !row.identity.is_here(us),
        Some(row) => row.identity.may_leave_unseen(us),
        None if is_same_boot => namespace.is_some() && !has_our_pids,
        None => basis == Basis::Heartbeat,
    };
    left.left_record(has_our_pids && !is_elsewhere, is_elsewhere)
}

/// Looks without taking. An error counts as free: an attempt to take the lease will report it.
pub(super) fn peek(context: &Context) -> LeaseAnswer {
    let (dir, sees) = (&context.place.dir, sees(context));
    if lock::is_held(dir).unwrap_or(false) {
        return LeaseAnswer::Contended { owner: lease::living_owner(dir, &context.us, sees), what: Contested::Lease };
    }
    if let Ok(Some(held)) = claim::peek(context.place.port)
        && held.is_trusted()
        && !context.place.is_guess
    {
        return LeaseAnswer::Contended { owner: held.by.and_then(identity::holder), what: Contested::PortClaim };
    }
    match image::kind(&folder::database_of(dir)) {
        Ok(Some(FileKind { basis: Basis::Lock, .. })) if sees == Basis::Lock => LeaseAnswer::Free,
        Ok(Some(_)) => peek_at_row(context, sees),
        Ok(None) | Err(_) => LeaseAnswer::Free,
    }
}

/// Without a lock only time distinguishes a dead owner from one on another machine.
fn peek_at_row(context: &Context, sees: Basis) -> LeaseAnswer {
    let Some(row) = lease::peek(&context.place.dir, &context.place.key, sees) else { return LeaseAnswer::Free };
    match judge(context, sees, Some(&row), None) {
        Ok(_) => LeaseAnswer::Free,
        // Its silence will prove nothing.
        Err(LeaseAnswer::Unclear { owner, .. }) if row.basis == Basis::Lock => {
            LeaseAnswer::Unjudged { why: unjudged(context, owner) }
        }
        Err(answer) => answer,
    }
}

fn failed(error: &StoreError) -> LeaseAnswer {
    answer(error, error.to_string())
}

fn answer(error: &StoreError, why: String) -> LeaseAnswer {
    if error.is_refusal() { LeaseAnswer::Refused(why) } else { LeaseAnswer::Failed(why) }
}
