//! Taking the lease, and looking whether somebody has it: the lock, the claim, the row, in this order.

use super::clock::Patience;
use super::damage::move_aside;
use super::error::{Kind, StoreError};
use super::identity::{self, Identity};
use super::lease::{self, LeaseRow, Terms};
use super::lock::{self, Lock};
use super::record::{GenerationRecord, LeftRecord};
use super::schema::Database;
use super::tenure::{Held, Tenure};
use super::worker::Worker;
use super::{BasisChoice, News, folder, history};
use crate::core::lease::{Basis, Life, Ruling, rule};
use crate::core::{Acquired, Contested, History, Holder, LeaseAnswer, Moment, Recovered, Report};
use crate::platform::{claim, filesystem};
use rusqlite::Transaction;
use std::time::Duration;

/// Between two attempts on a lock or a claim that may be free in an instant.
const STEP: Duration = Duration::from_millis(5);

/// What an unlocked store says.
enum Entry {
    Taken(Box<Taken>),
    Refused(LeaseAnswer),
}

struct Taken {
    epoch: u64,
    recovered: Option<Recovered>,
    past: History,
    left: Option<GenerationRecord>,
}

impl Worker {
    pub(super) fn take(&mut self, unchanged: Option<u64>, now: Moment) -> (LeaseAnswer, Option<LeftRecord>) {
        // Whoever asks again has nothing.
        self.tenure = Tenure::None;
        match self.try_take(unchanged, now) {
            Ok((acquired, left)) => (LeaseAnswer::Acquired(Box::new(acquired)), left),
            Err(answer) => (answer, None),
        }
    }

    fn try_take(&mut self, unchanged: Option<u64>, now: Moment) -> Result<(Acquired, Option<LeftRecord>), LeaseAnswer> {
        let warning = folder::prepare(&self.place.dir).map_err(|error| failed(&error))?;
        self.warn(warning);
        let patience = Patience::new(self.limits.contention);
        let (lock, basis) = self.lock(patience)?;
        let claim = self.claim(patience)?;
        let server = claim.as_ref().and_then(|claim| claim.server().ok());
        let mut held = Held::new(lock, claim, basis, self.next_beat());
        let answer = match self.enter_or_begin_anew(&mut held, unchanged, now) {
            Ok(Entry::Refused(answer)) => return Err(answer),
            Ok(Entry::Taken(taken)) => {
                let left = taken.left.as_ref().map(|left| left.left_record(&self.clocks));
                self.ledger.begin(taken.left);
                let Taken { epoch, recovered, past, .. } = *taken;
                (Acquired { epoch, recovered, past, trouble: None }, left)
            }
            Err(error) if error.kind() == Kind::Refused => return Err(failed(&error)),
            Err(error) if basis == Basis::Heartbeat => {
                let why = "locks cannot be trusted on this file system, and the record that tells owners apart fails";
                return Err(LeaseAnswer::Failed(format!("{why}: {error}")));
            }
            Err(error) => {
                let trouble = error.to_string();
                self.report(match error.kind() {
                    Kind::Busy => Report::LeaseTimedOut { why: trouble.clone() },
                    _ => Report::StoreUnavailable { why: trouble.clone() },
                });
                held.disconnect();
                let past = History::default();
                (Acquired { epoch: 0, recovered: None, past, trouble: Some(trouble) }, None)
            }
        };
        self.tenure = Tenure::Held(Box::new(held));
        if let Some(server) = server {
            self.tell(News::Claimed(server));
        }
        Ok(answer)
    }

    /// What decides here: where locks work, and as long as nobody chose otherwise, the lock.
    fn basis(&self) -> Basis {
        match self.place.basis {
            BasisChoice::Lock => Basis::Lock,
            BasisChoice::Heartbeat => Basis::Heartbeat,
            BasisChoice::Auto => match filesystem::without_dependable_locks(&self.place.dir) {
                Ok(Some(_)) => Basis::Heartbeat,
                Ok(None) | Err(_) => Basis::Lock,
            },
        }
    }

    /// Takes the lock. Its holder may be about to end, about to write his name down, or have a look only: that takes
    /// an instant, and is waited for.
    fn lock(&self, patience: Patience) -> Result<(Option<Lock>, Basis), LeaseAnswer> {
        let (dir, basis) = (&self.place.dir, self.basis());
        loop {
            match lock::take(dir).map_err(|error| failed(&error))? {
                lock::Attempt::Taken(lock, warning) => {
                    self.warn(warning);
                    return Ok((Some(lock), basis));
                }
                lock::Attempt::Held => {}
                lock::Attempt::Unsupported(_) if self.place.basis != BasisChoice::Lock => {
                    return Ok((None, Basis::Heartbeat));
                }
                lock::Attempt::Unsupported(error) => {
                    let path = folder::lock_of(dir);
                    let why =
                        format!("cannot lock {}: {error}; choose a folder on a local file system", path.display());
                    return Err(LeaseAnswer::Failed(why));
                }
            }
            let owner = lease::living_owner(dir, &self.us, basis);
            if owner.is_some() || !patience.pause(STEP) {
                return Err(LeaseAnswer::Contended { owner, what: Contested::Lease });
            }
        }
    }

    /// Takes the claim on the port, for those who start with another folder.
    fn claim(&self, patience: Patience) -> Result<Option<claim::Claim>, LeaseAnswer> {
        loop {
            let owner = match claim::take(self.place.port) {
                Ok(claim::Attempt::Taken(claim)) => return Ok(Some(claim)),
                Ok(claim::Attempt::Held(held)) => held.by.and_then(identity::holder),
                Ok(claim::Attempt::Changing) if patience.pause(STEP) => continue,
                Ok(claim::Attempt::Changing) => None,
                Err(error) => {
                    let port = self.place.port;
                    self.warn(Some(format!(
                        "cannot claim port {port}: {error}; a supervisor with another store folder will not see this one"
                    )));
                    return Ok(None);
                }
            };
            return Err(LeaseAnswer::Contended { owner, what: Contested::PortClaim });
        }
    }

    /// Puts a damaged database aside, for the lock is ours, and begins another one.
    fn enter_or_begin_anew(&self, held: &mut Held, unchanged: Option<u64>, now: Moment) -> Result<Entry, StoreError> {
        let patience = Patience::new(self.limits.wait);
        match self.enter(held, unchanged, now, patience) {
            Err(error) if error.kind() == Kind::Damaged && held.has_lock() => {
                self.put_aside(&error)?;
                self.enter(held, unchanged, now, patience)
            }
            entry => entry,
        }
    }

    pub(super) fn put_aside(&self, error: &StoreError) -> Result<(), StoreError> {
        let to = move_aside(&self.place.dir, self.clocks.now().wall_ms)?;
        self.report(Report::StoreMovedAside { to: to.display().to_string(), why: error.to_string() });
        Ok(())
    }

    /// The row: in one transaction it is read, judged, and ours.
    fn enter(
        &self,
        held: &mut Held,
        unchanged: Option<u64>,
        now: Moment,
        patience: Patience,
    ) -> Result<Entry, StoreError> {
        let (database, warning) = Database::open(&self.place.dir, held.basis, patience)?;
        self.warn(warning);
        let tx = database.begin(patience)?;
        let entry = self.judge(&tx, held.basis, unchanged, now).map_err(database.error("read"))?;
        match &entry {
            Entry::Refused(_) => drop(tx),
            Entry::Taken(taken) => {
                tx.commit().map_err(database.error("write"))?;
                database.settle()?;
                held.connect(database, taken.epoch);
            }
        }
        Ok(entry)
    }

    fn judge(
        &self,
        tx: &Transaction<'_>,
        basis: Basis,
        unchanged: Option<u64>,
        now: Moment,
    ) -> rusqlite::Result<Entry> {
        // What stands there in our own name is of an earlier attempt.
        let row = lease::read(tx, &self.place.key)?;
        let strangers = row.as_ref().filter(|row| row.identity.owner != self.us.owner);
        let owner = || strangers.and_then(|row| named(row, &self.us, basis));
        let ruling = rule(basis, true, strangers.map(|row| row.to_rule(&self.us, basis)).as_ref(), unchanged);
        let recovered = match ruling {
            Ruling::Contended => {
                return Ok(Entry::Refused(LeaseAnswer::Contended { owner: owner(), what: Contested::Lease }));
            }
            Ruling::Observe { beat } => return Ok(Entry::Refused(LeaseAnswer::Unclear { beat, owner: owner() })),
            Ruling::Take { recovered } => recovered,
        };
        let epoch = row.as_ref().map_or(0, |row| row.epoch).saturating_add(1);
        lease::write(tx, self.terms(), epoch, row.as_ref(), self.clocks.now().wall_ms)?;
        let left = history::close_older(tx)?;
        let past = history::past(tx, &self.clocks, now)?;
        let pid = strangers.and_then(|row| row.identity.pid);
        let recovered = recovered.map(|why| Recovered { pid, why: why.to_owned() });
        Ok(Entry::Taken(Box::new(Taken { epoch, recovered, past, left })))
    }

    pub(super) fn terms(&self) -> Terms<'_> {
        Terms { key: &self.place.key, us: &self.us, address: &self.place.host, port: self.place.port }
    }

    /// Looks without taking. What cannot be looked at counts as free: an attempt to take it will say what is wrong.
    pub(super) fn peek(&self) -> LeaseAnswer {
        let (dir, basis) = (&self.place.dir, self.basis());
        if lock::is_held(dir).unwrap_or(false) {
            return LeaseAnswer::Contended { owner: lease::living_owner(dir, &self.us, basis), what: Contested::Lease };
        }
        if let Ok(Some(held)) = claim::peek(self.place.port) {
            return LeaseAnswer::Contended { owner: held.by.and_then(identity::holder), what: Contested::PortClaim };
        }
        match basis {
            Basis::Lock => LeaseAnswer::Free,
            Basis::Heartbeat => self.peek_at_row(),
        }
    }

    /// Here only time tells an owner who is gone from one who lives elsewhere.
    fn peek_at_row(&self) -> LeaseAnswer {
        let Some(row) = lease::peek(&self.place.dir, &self.place.key) else { return LeaseAnswer::Free };
        let owner = named(&row, &self.us, Basis::Heartbeat);
        match rule(Basis::Heartbeat, true, Some(&row.to_rule(&self.us, Basis::Heartbeat)), None) {
            Ruling::Take { .. } => LeaseAnswer::Free,
            Ruling::Contended => LeaseAnswer::Contended { owner, what: Contested::Lease },
            Ruling::Observe { beat } => LeaseAnswer::Unclear { beat, owner },
        }
    }
}

fn failed(error: &StoreError) -> LeaseAnswer {
    LeaseAnswer::Failed(error.to_string())
}

/// The owner that a row names. What process of ours has the pid of one who lives elsewhere does not matter.
pub(super) fn named(row: &LeaseRow, us: &Identity, basis: Basis) -> Option<Holder> {
    match row.identity.life(us, basis) {
        Life::Alive => row.identity.holder(),
        Life::Gone(_) => None,
        Life::Unknown => {
            let host = row.identity.host.as_deref().unwrap_or("unknown");
            row.identity.pid.map(|pid| Holder { pid, command: format!("a supervisor on host {host}"), uid: None })
        }
    }
}
