//! Looks at many processes, each asked for something that only its memory tells.

use super::reader::{self, Desk, Lack, Order, Work, lock};
use super::walk::{list, open, open_folder, read_stat};
use super::{CHUNK, Stat, condition_of, is_foreign, is_shortage};
use crate::platform::environment::Environment;
use rustix::buffer::spare_capacity;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Between two looks at who is being asked. Whoever has not answered from one to the next is left alone.
const PATIENCE: Duration = Duration::from_millis(20);

/// From so many processes on two threads share the work: a thread of its own costs as much as ten or twenty processes.
const LARGE: u64 = 256;

/// Every process that can be seen, by pid, each with what `answer` makes of its environment: nothing for who is not to
/// be asked, has none that can be read, or keeps us waiting. As with [`super::processes`], threads of the kernel and who
/// ends in the meantime are left out.
///
/// # Errors
/// EMFILE and the like: then nothing is known, rather than that nobody is there.
pub fn survey<T: Send + 'static>(
    is_asked: impl Fn(&Stat) -> bool + Send + Sync + 'static,
    answer: impl Fn(&Environment) -> T + Send + Sync + 'static,
) -> io::Result<Vec<(Stat, Option<T>)>> {
    let digest = move |bytes: &mut Vec<u8>| {
        let environment = Environment::new(mem::take(bytes));
        let answer = answer(&environment);
        *bytes = environment.into_bytes();
        answer
    };
    let mut found = Survey::new(None, "environ", is_asked, digest)?.run()?;
    found.sort_unstable_by_key(|(process, _)| process.pid);
    Ok(found)
}

/// What `digest` makes of this file of a process; nothing where it cannot be read.
pub(super) fn ask<T: Send + 'static>(
    pid: i32,
    file: &'static str,
    digest: impl Fn(&mut Vec<u8>) -> T + Send + Sync + 'static,
) -> Option<T> {
    Survey::new(Some(vec![pid]), file, |_| true, digest).and_then(Survey::run).ok()?.pop()?.1
}

/// Whether one of these bears this `NAME=value`. What cannot be read holds nothing.
///
/// # Errors
/// As [`survey`].
pub fn any_environ_has(mut pids: Vec<i32>, entry: &str) -> io::Result<bool> {
    pids.reverse();
    if pids.is_empty() {
        return Ok(false);
    }
    let entry = entry.to_owned();
    let digest = move |bytes: &mut Vec<u8>| Environment::new(mem::take(bytes)).has(&entry);
    let found = Survey::new(Some(pids), "environ", |_| true, digest)?.run()?;
    Ok(found.into_iter().any(|(_, has)| has == Some(true)))
}

struct Survey<T> {
    folder: OwnedFd,
    file: &'static str,
    is_asked: Box<dyn Fn(&Stat) -> bool + Send + Sync>,
    digest: Box<dyn Fn(&mut Vec<u8>) -> T + Send + Sync>,
    /// Those who keep a thread already.
    keepers: Vec<(i32, u64)>,
    /// Whether nobody else is asked either.
    is_mute: AtomicBool,
    names: Mutex<Names>,
    progress: Mutex<Progress<T>>,
    changed: Condvar,
}

/// Who is still to be looked at.
struct Names {
    pids: Vec<i32>,
    may_be_more: bool,
}

struct Progress<T> {
    found: Vec<(Stat, Option<T>)>,
    error: Option<io::Error>,
    at_work: usize,
}

impl<T: Send + 'static> Survey<T> {
    /// Of these processes, the last one first, or of all.
    fn new(
        pids: Option<Vec<i32>>,
        file: &'static str,
        is_asked: impl Fn(&Stat) -> bool + Send + Sync + 'static,
        digest: impl Fn(&mut Vec<u8>) -> T + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let may_be_more = pids.is_none() && !is_foreign();
        let pids = pids.filter(|_| !is_foreign()).unwrap_or_default();
        Ok(Self {
            folder: open_folder()?,
            file,
            is_asked: Box::new(is_asked),
            digest: Box::new(digest),
            keepers: reader::keepers(),
            is_mute: AtomicBool::new(false),
            names: Mutex::new(Names { pids, may_be_more }),
            progress: Mutex::new(Progress { found: Vec::new(), error: None, at_work: 0 }),
            changed: Condvar::new(),
        })
    }

    fn run(self) -> io::Result<Vec<(Stat, Option<T>)>> {
        // Where a process keeps a thread already, others are not risked two at a time.
        let is_shared = lock(&self.names).may_be_more && is_large() && self.keepers.is_empty();
        let survey = Arc::new(self);
        let mut orders = Vec::new();
        if is_shared {
            orders.extend(survey.order().ok());
        }
        survey.order_or_do(&mut orders);
        loop {
            let progress = lock(&survey.progress);
            if progress.at_work > 0 {
                let waited = survey.changed.wait_timeout(progress, PATIENCE);
                let (progress, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                let is_late = progress.at_work > 0 && waited.timed_out();
                drop(progress);
                if is_late {
                    survey.leave_alone(&mut orders);
                }
                continue;
            }
            drop(progress);
            if survey.is_over() {
                break;
            }
            // The threads are kept, and some are left to be looked at.
            survey.order_or_do(&mut orders);
        }
        let mut progress = lock(&survey.progress);
        progress.error.take().map_or_else(|| Ok(mem::take(&mut progress.found)), Err)
    }

    fn is_over(&self) -> bool {
        let names = lock(&self.names);
        names.pids.is_empty() && !names.may_be_more
    }

    /// Has a thread take part.
    fn order(self: &Arc<Self>) -> Result<Order, Lack> {
        lock(&self.progress).at_work += 1;
        let order = Order::give(Arc::clone(self) as Arc<dyn Work>);
        if order.is_err() {
            lock(&self.progress).at_work -= 1;
        }
        order
    }

    fn order_or_do(self: &Arc<Self>, orders: &mut Vec<Order>) {
        match self.order() {
            Ok(order) => orders.push(order),
            Err(lack) => {
                // Without a thread it is we who ask: in a storm of forks that has used them up, the answers matter more.
                self.is_mute.store(matches!(lack, Lack::Kept), Ordering::Relaxed);
                lock(&self.progress).at_work += 1;
                Work::run(self.as_ref(), &Desk::default());
            }
        }
    }

    /// Goes on without the processes that keep a thread.
    fn leave_alone(&self, orders: &mut Vec<Order>) {
        orders.retain_mut(|order| {
            let Some((process, rest)) = order.is_kept() else { return true };
            lock(&self.names).pids.extend(rest);
            {
                let mut progress = lock(&self.progress);
                progress.found.push((process, None));
                progress.at_work -= 1;
            }
            let (pid, condition) = (process.pid, condition_of(process.pid).unwrap_or_default());
            tracing::warn!(
                pid,
                condition,
                "a process keeps whoever reads its memory waiting; its environment will not be looked at until it lets go"
            );
            false
        });
    }

    fn next(&self, desk: &Desk) -> io::Result<Option<i32>> {
        if let Some(pid) = desk.next() {
            return Ok(Some(pid));
        }
        let mut pids = {
            let mut names = lock(&self.names);
            while names.pids.is_empty() && names.may_be_more {
                // For the case of an error.
                names.may_be_more = false;
                let mut listed = Vec::new();
                names.may_be_more = list(&self.folder, &mut listed)?;
                listed.reverse();
                names.pids = listed;
            }
            mem::take(&mut names.pids)
        };
        let next = pids.pop();
        desk.leave(pids);
        Ok(next)
    }

    /// Looks at one process. Says whether anybody waits for the rest.
    fn look(&self, pid: i32, desk: &Desk, bytes: &mut Vec<u8>) -> io::Result<bool> {
        let process = match read_stat(&self.folder, pid) {
            Ok(Some(process)) => process,
            Err(error) if is_shortage(&error) => return Err(error),
            Ok(None) | Err(_) => return Ok(true),
        };
        let mut answer = None;
        if self.may_ask(&process) {
            match desk.ask(&process, || self.read(pid, bytes)) {
                None => return Ok(false),
                Some(Err(error)) if is_shortage(&error) => return Err(error),
                Some(read) => answer = read.ok().map(|()| (self.digest)(bytes)),
            }
        }
        lock(&self.progress).found.push((process, answer));
        Ok(true)
    }

    fn may_ask(&self, process: &Stat) -> bool {
        (self.is_asked)(process)
            && !self.is_mute.load(Ordering::Relaxed)
            && !self.keepers.contains(&(process.pid, process.start_time))
    }

    /// The kernel fills as much as there is room for: a short read was the last one.
    fn read(&self, pid: i32, bytes: &mut Vec<u8>) -> io::Result<()> {
        let file = open(&self.folder, pid, self.file)?;
        bytes.clear();
        loop {
            bytes.reserve(CHUNK);
            let room = bytes.capacity() - bytes.len();
            if rustix::io::read(&file, spare_capacity(bytes))? < room {
                return Ok(());
            }
        }
    }
}

impl<T: Send + 'static> Work for Survey<T> {
    fn run(&self, desk: &Desk) {
        let mut bytes = Vec::new();
        loop {
            let looked = match self.next(desk) {
                Ok(None) => break,
                Ok(Some(pid)) => self.look(pid, desk, &mut bytes),
                Err(error) => Err(error),
            };
            match looked {
                Ok(true) => {}
                // We are not counted any more.
                Ok(false) => return,
                Err(error) => {
                    desk.leave(Vec::new());
                    *lock(&self.names) = Names { pids: Vec::new(), may_be_more: false };
                    lock(&self.progress).error = Some(error);
                    break;
                }
            }
        }
        let mut progress = lock(&self.progress);
        progress.at_work -= 1;
        if progress.at_work == 0 {
            self.changed.notify_one();
        }
    }
}

/// The folder counts the processes of the machine, those that we cannot see included, without a look into it.
fn is_large() -> bool {
    fs::metadata("/proc").is_ok_and(|folder| folder.nlink() >= LARGE)
}
