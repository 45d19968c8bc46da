//! Threads that wait for others' memory in our place.
//!
//! Whoever reads the environment or the arguments of a process waits for two locks of it, one that is held during an
//! execve(2) and one on its memory, and for the memory itself. Newer kernels (6.18.44 is one) take the first one for
//! `/proc/PID/stat` and `wchan` too. A process that sleeps uninterruptibly in the wrong place, over a network file system
//! for one, keeps him waiting for as long as it likes, and there is no way to know beforehand or to give up. So a thread
//! asks, which can be abandoned.

use super::{Stat, letter_of};
use nix::sys::signal::SigSet;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread};

/// How many threads may be kept by processes. Beyond it nothing is known of anybody before one of them lets go.
const KEPT_MAX: usize = 16;

/// How many threads are there for the next ones who want to know something.
const IDLE_MAX: usize = 2;

/// It holds one line and one list of names; what is longer is on the heap.
const STACK: usize = 128 * 1024;

/// What a thread is to do.
pub(super) trait Work: Send + Sync {
    /// Does its part of it. Whatever may take for ever is done through [`Desk::ask`].
    fn run(&self, desk: &Desk);
}

#[derive(Default)]
struct Crew {
    idle: Vec<Arc<Desk>>,
    keepers: Vec<Keeper>,
}

static CREW: Mutex<Crew> = Mutex::new(Crew { idle: Vec::new(), keepers: Vec::new() });

/// Nothing here is left half done by a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A process that keeps a thread.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Keeper {
    pub(super) pid: i32,
    /// What is known of it, if it could be asked for that.
    pub(super) process: Option<Stat>,
}

/// Those that do so now.
pub(super) fn keepers() -> Vec<Keeper> {
    lock(&CREW).keepers.clone()
}

/// Why nobody can ask.
#[derive(Debug)]
pub(super) enum Lack {
    /// Too many threads are kept already.
    Kept(io::Error),
    /// The system gives us no more threads.
    Threads,
}

/// A thread's place, seen from both sides.
#[derive(Default)]
pub(super) struct Desk {
    /// The thread and its number, once it runs.
    who: OnceLock<(Thread, i32)>,
    at: Mutex<At>,
}

/// What it is at.
#[derive(Default)]
struct At {
    order: Option<Arc<dyn Work>>,
    orders: u64,
    question: Option<Keeper>,
    questions: u64,
    /// Who is being looked at.
    pids: Vec<i32>,
    is_abandoned: bool,
}

/// One order, seen by who gave it.
pub(super) struct Order {
    desk: Arc<Desk>,
    number: u64,
    /// The question that was under way at the last look.
    seen: Option<u64>,
}

impl Order {
    /// Gives it to a thread.
    pub(super) fn give(work: Arc<dyn Work>) -> Result<Self, Lack> {
        let idle = {
            let mut crew = lock(&CREW);
            if crew.keepers.len() >= KEPT_MAX {
                let why = format!("{KEPT_MAX} processes keep whoever wants to read their memory waiting");
                return Err(Lack::Kept(io::Error::other(why)));
            }
            crew.idle.pop()
        };
        let is_new = idle.is_none();
        let desk = idle.unwrap_or_default();
        let number = desk.take(work);
        if is_new {
            let own = Arc::clone(&desk);
            let thread = thread::Builder::new().name("reader".to_owned()).stack_size(STACK);
            thread.spawn(move || own.attend()).map_err(|_| Lack::Threads)?;
        }
        Ok(Self { desk, number, seen: None })
    }

    /// Whether a process has kept the thread since the last look, and it sleeps: one that only waits for its turn on a
    /// busy machine is not given up. Gives back that process and who was to be looked at beside it.
    pub(super) fn is_kept(&mut self) -> Option<(Keeper, Vec<i32>)> {
        let mut at = lock(&self.desk.at);
        let question = at.question.filter(|_| at.orders == self.number)?;
        if self.seen.replace(at.questions) != Some(at.questions) || !self.desk.sleeps() {
            return None;
        }
        lock(&CREW).keepers.push(question);
        at.is_abandoned = true;
        let mut others = mem::take(&mut at.pids);
        others.retain(|&pid| pid != question.pid);
        Some((question, others))
    }
}

impl Desk {
    fn take(&self, work: Arc<dyn Work>) -> u64 {
        let mut at = lock(&self.at);
        at.order = Some(work);
        at.orders += 1;
        if let Some((thread, _)) = self.who.get() {
            thread.unpark();
        }
        at.orders
    }

    fn attend(self: Arc<Self>) {
        // They are for the loop.
        let _infallible = SigSet::all().thread_block();
        // Nobody else has set it.
        let _first = self.who.set((thread::current(), nix::unistd::gettid().as_raw()));
        loop {
            let order = lock(&self.at).order.take();
            let Some(work) = order else {
                thread::park();
                continue;
            };
            work.run(&self);
            drop(work);
            if lock(&self.at).is_abandoned {
                return;
            }
            let mut crew = lock(&CREW);
            if crew.idle.len() >= IDLE_MAX {
                return;
            }
            crew.idle.push(Arc::clone(&self));
        }
    }

    /// Writes down who is looked at from now on.
    pub(super) fn begin(&self, pids: &[i32]) {
        let known = &mut lock(&self.at).pids;
        known.clear();
        known.extend_from_slice(pids);
    }

    /// Does what this process may keep us waiting for. Nothing where nobody waits for the answer any more.
    pub(super) fn ask<T>(&self, about: Keeper, read: impl FnOnce() -> io::Result<T>) -> Option<io::Result<T>> {
        {
            let mut at = lock(&self.at);
            at.question = Some(about);
            at.questions += 1;
        }
        let answer = read();
        let mut at = lock(&self.at);
        at.question = None;
        if !at.is_abandoned {
            return Some(answer);
        }
        let mut crew = lock(&CREW);
        let keeper = crew.keepers.iter().position(|&keeper| keeper == about);
        keeper.map(|index| crew.keepers.swap_remove(index));
        None
    }

    fn sleeps(&self) -> bool {
        let Some((_, tid)) = self.who.get() else { return false };
        letter_of(&format!("/proc/self/task/{tid}/stat")).is_none_or(|letter| letter != 'R')
    }
}
