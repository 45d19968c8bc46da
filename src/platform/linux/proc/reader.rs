//! Threads for reads of `/proc` that another process can hold up.
//!
//! A read of the environment or the arguments of a process waits for two locks of it, one that is held during an
//! execve(2) and one of its memory map, and for the memory itself. Newer kernels (6.18.44 is one) take the first one for
//! `/proc/PID/stat` and `wchan` too. A process that sleeps uninterruptibly while it holds one, over a network file system
//! for example, blocks its readers for as long as it likes, and nothing tells beforehand or ends such a read. So a
//! worker reads, and where it gets stuck it is left behind with its read.

use super::files::letter_of;
use crate::platform::clock;
use crate::platform::stat::Stat;
use nix::sys::signal::SigSet;
use std::cell::RefCell;
use std::io;
use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, Thread, ThreadId};
use std::time::Duration;
use tokio::sync::mpsc;

/// The interval between two looks at a worker. One that sleeps in the same read at both is left behind.
pub(super) const PATIENCE: Duration = Duration::from_millis(20);

/// How long a read is stuck before it is told. On a busy machine a process that is preempted in a page fault holds the
/// lock of its memory map for tens of milliseconds (the reader sleeps in `__access_remote_vm`), and nothing is wrong.
const QUIET: Duration = Duration::from_secs(1);

/// How many workers may be stuck. Beyond it every read fails until one of them returns.
const STUCK_MAX: usize = 16;

/// How many idle workers are kept.
const IDLE_MAX: usize = 2;

/// Enough to kill a tree: lists are on the heap.
const STACK: usize = 128 * 1024;

/// What a worker does.
pub(super) trait ReaderWork: Send + Sync {
    /// Whatever may block for ever goes through [`ReaderThread::read`].
    fn run(&self, worker: &ReaderThread);
}

#[derive(Default)]
struct Pool {
    idle: Vec<Arc<ReaderThread>>,
    stuck: Vec<StuckRead>,
    /// Those of them that are not told yet, and since when on the monotonic clock.
    untold: Vec<(StuckRead, Duration)>,
    /// The threads that were left behind, until they end.
    left: Vec<ThreadId>,
}

static POOL: Mutex<Pool> =
    Mutex::new(Pool { idle: Vec::new(), stuck: Vec::new(), untold: Vec::new(), left: Vec::new() });

thread_local! {
    /// The worker on this thread.
    static CURRENT: RefCell<Option<Arc<ReaderThread>>> = const { RefCell::new(None) };
}

/// Nothing here is left half done by a panic.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A read that a process holds up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StuckRead {
    pub(super) pid: i32,
    /// What `/proc/PID/stat` said, if that could be read.
    pub(super) process: Option<Stat>,
}

/// The reads that are stuck now.
pub(super) fn stuck_reads() -> Vec<StuckRead> {
    lock(&POOL).stuck.clone()
}

/// Whether a read of `/proc/PID/stat` of this process is stuck.
#[must_use]
pub fn is_stuck(pid: i32) -> bool {
    lock(&POOL).stuck.contains(&StuckRead { pid, process: None })
}

/// Whether this thread was left behind: what it knows of other processes is out of date.
#[must_use]
pub fn is_left_behind() -> bool {
    was_left_behind(thread::current().id())
}

/// Whether that thread was left behind, and has not ended.
#[must_use]
pub fn was_left_behind(thread: ThreadId) -> bool {
    lock(&POOL).left.contains(&thread)
}

/// A read about a process that may get stuck. On the thread of a worker that one is left behind with it then.
///
/// # Errors
/// `TimedOut` where such a read is stuck; those of the read.
pub(in crate::platform) fn guarded<T>(pid: i32, read: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let about = StuckRead { pid, process: None };
    if lock(&POOL).stuck.contains(&about) {
        return Err(io::ErrorKind::TimedOut.into());
    }
    let worker = CURRENT.with_borrow(Clone::clone);
    match worker {
        Some(worker) => worker.read(about, read).unwrap_or_else(|| Err(io::ErrorKind::TimedOut.into())),
        None => read(),
    }
}

/// Why no worker can be had.
#[derive(Debug)]
pub(super) enum Unavailable {
    /// Too many are stuck already.
    Stuck(io::Error),
    /// EAGAIN of `pthread_create(3)`.
    Threads(io::Error),
}

impl Pool {
    /// Has an idle worker look for what is to be told, if there is one.
    fn wake(&self) -> bool {
        let idle = self.idle.iter().find_map(|worker| worker.thread.get());
        idle.inspect(|(thread, _)| thread.unpark()).is_some()
    }

    /// The reads that have been stuck for long enough to be told, and how long the next one has until then.
    fn take_overdue(&mut self, now: Duration) -> (Vec<StuckRead>, Option<Duration>) {
        let age = |since: Duration| now.saturating_sub(since);
        let overdue = self.untold.extract_if(.., |(_, since)| age(*since) >= QUIET).map(|(read, _)| read).collect();
        let next = self.untold.iter().map(|(_, since)| QUIET.saturating_sub(age(*since))).min();
        (overdue, next)
    }
}

/// Waits as an idle worker waits: until it is given work, or the next stuck read is to be told.
fn wait() {
    let (overdue, next) = lock(&POOL).take_overdue(clock::monotonic());
    for StuckRead { pid, .. } in overdue {
        let state = state_of(pid).unwrap_or_default();
        tracing::warn!(pid, state, "reading /proc/PID blocks; skipping this process until the read returns");
    }
    match next {
        Some(time) => thread::park_timeout(time),
        None => thread::park(),
    }
}

/// For a worker that is only to be idle.
struct Nothing;

impl ReaderWork for Nothing {
    fn run(&self, _worker: &ReaderThread) {}
}

/// A thread, seen from both sides.
#[derive(Default)]
pub(super) struct ReaderThread {
    /// The thread and its tid, once it runs.
    thread: OnceLock<(Thread, i32)>,
    status: Mutex<Activity>,
}

#[derive(Default)]
struct Activity {
    work: Option<Arc<dyn ReaderWork>>,
    assignments: u64,
    read: Option<StuckRead>,
    reads: u64,
    /// The processes that are being read.
    pids: Vec<i32>,
    is_left_behind: bool,
}

/// What a worker was given to do, for the thread or task that waits for it.
pub(super) struct Assignment {
    worker: Arc<ReaderThread>,
    number: u64,
    /// The read that was under way at the last look.
    seen: Option<u64>,
}

impl Assignment {
    pub(super) fn give(work: Arc<dyn ReaderWork>) -> Result<Self, Unavailable> {
        let idle = {
            let mut pool = lock(&POOL);
            if pool.stuck.len() >= STUCK_MAX {
                let why = format!("{STUCK_MAX} reads of /proc are stuck, each waiting for another process");
                return Err(Unavailable::Stuck(io::Error::other(why)));
            }
            pool.idle.pop()
        };
        let is_new = idle.is_none();
        let worker = idle.unwrap_or_default();
        let number = worker.take(work);
        if is_new {
            let own = Arc::clone(&worker);
            let thread = thread::Builder::new().name("reader".to_owned()).stack_size(STACK);
            thread.spawn(move || own.attend()).map_err(Unavailable::Threads)?;
        }
        Ok(Self { worker, number, seen: None })
    }

    /// Leaves the worker behind if it has slept in one read since the last look: one that only waits for a processor is
    /// given time. Returns that read, and the processes that it had still to read.
    pub(super) fn leave_if_stuck(&mut self) -> Option<(StuckRead, Vec<i32>)> {
        let mut status = lock(&self.worker.status);
        let read = status.read.filter(|_| status.assignments == self.number)?;
        if self.seen.replace(status.reads) != Some(status.reads) || !self.worker.sleeps() {
            return None;
        }
        let has_idle = {
            let mut pool = lock(&POOL);
            pool.stuck.push(read);
            pool.untold.push((read, clock::monotonic()));
            pool.left.extend(self.worker.thread.get().map(|(thread, _)| thread.id()));
            pool.wake()
        };
        status.is_left_behind = true;
        let mut others = mem::take(&mut status.pids);
        others.retain(|&pid| pid != read.pid);
        drop(status);
        tracing::debug!(pid = read.pid, "reading /proc/PID takes long; skipping this process until the read returns");
        if !has_idle {
            // There is at most a thread too little: then it is not told.
            let _unavailable = Self::give(Arc::new(Nothing));
        }
        Some((read, others))
    }
}

impl ReaderThread {
    fn take(&self, work: Arc<dyn ReaderWork>) -> u64 {
        let mut status = lock(&self.status);
        status.work = Some(work);
        status.assignments += 1;
        if let Some((thread, _)) = self.thread.get() {
            thread.unpark();
        }
        status.assignments
    }

    fn attend(self: Arc<Self>) {
        // Signals are for the loop.
        let _infallible = SigSet::all().thread_block();
        // This is the only call.
        let _first = self.thread.set((thread::current(), nix::unistd::gettid().as_raw()));
        CURRENT.set(Some(Arc::clone(&self)));
        loop {
            let work = lock(&self.status).work.take();
            let Some(work) = work else {
                wait();
                continue;
            };
            work.run(&self);
            drop(work);
            if lock(&self.status).is_left_behind {
                lock(&POOL).left.retain(|left| *left != thread::current().id());
                return;
            }
            let mut pool = lock(&POOL);
            if pool.idle.len() >= IDLE_MAX {
                return;
            }
            pool.idle.push(Arc::clone(&self));
        }
    }

    /// Records the processes that are read from now on.
    pub(super) fn begin(&self, pids: &[i32]) {
        let known = &mut lock(&self.status).pids;
        known.clear();
        known.extend_from_slice(pids);
    }

    /// Does a read that may get stuck; `None` if the worker was left behind with it.
    pub(super) fn read<T>(&self, about: StuckRead, read: impl FnOnce() -> io::Result<T>) -> Option<io::Result<T>> {
        {
            let mut status = lock(&self.status);
            if status.is_left_behind {
                return None;
            }
            status.read = Some(about);
            status.reads += 1;
        }
        let answer = read();
        let mut status = lock(&self.status);
        status.read = None;
        if !status.is_left_behind {
            return Some(answer);
        }
        let mut pool = lock(&POOL);
        let index = pool.stuck.iter().position(|&stuck| stuck == about);
        index.map(|index| pool.stuck.swap_remove(index));
        let index = pool.untold.iter().position(|(stuck, _)| *stuck == about);
        index.map(|index| pool.untold.swap_remove(index));
        None
    }

    fn sleeps(&self) -> bool {
        let Some((_, tid)) = self.thread.get() else { return false };
        letter_of(&format!("/proc/self/task/{tid}/stat")).is_none_or(|letter| letter != 'R')
    }
}

/// The state of a process, from a file that takes none of its locks.
fn state_of(pid: i32) -> Option<String> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("State:")).map(|state| state.trim().to_owned())
}

struct Closure<F, T> {
    job: F,
    answer: mpsc::Sender<T>,
}

impl<F: Fn() -> T + Send + Sync, T: Send> ReaderWork for Closure<F, T> {
    fn run(&self, worker: &ReaderThread) {
        let answer = (self.job)();
        if !lock(&worker.status).is_left_behind {
            // A closed channel means that nothing waits for the answer any more.
            let _closed = self.answer.try_send(answer);
        }
    }
}

/// Runs a job that reads about other processes on the thread of a worker. Where a read gets stuck, that worker is left
/// behind and the job is run anew by another one, in which every read about that process fails with `TimedOut`. So a
/// job must tolerate being run in part: see [`is_left_behind`].
///
/// # Errors
/// No worker can be had.
pub async fn run<T: Send + 'static>(job: impl Fn() -> T + Send + Sync + 'static) -> io::Result<T> {
    let (answer, mut answered) = mpsc::channel(1);
    let work: Arc<dyn ReaderWork> = Arc::new(Closure { job, answer });
    loop {
        let mut assignment = Assignment::give(Arc::clone(&work)).map_err(|unavailable| match unavailable {
            Unavailable::Stuck(error) | Unavailable::Threads(error) => error,
        })?;
        loop {
            tokio::select! {
                biased;
                Some(answer) = answered.recv() => return Ok(answer),
                () = tokio::time::sleep(PATIENCE) => {}
            }
            if assignment.leave_if_stuck().is_some() {
                break;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stuck_read_is_told_once_after_a_second_and_one_that_returned_before_is_not() {
        let read = |pid| StuckRead { pid, process: None };
        let ms = Duration::from_millis;
        let mut pool = Pool { untold: vec![(read(1), ms(100)), (read(2), ms(600))], ..Pool::default() };
        assert_eq!(pool.take_overdue(ms(400)), (vec![], Some(ms(700))));
        assert_eq!(pool.take_overdue(ms(1100)), (vec![read(1)], Some(ms(500))));
        assert_eq!(pool.take_overdue(ms(1100)), (vec![], Some(ms(500))));
        pool.untold.clear();
        assert_eq!(pool.take_overdue(ms(9000)), (vec![], None));
    }

    #[test]
    fn a_read_that_stays_stuck_is_left_behind_at_once_and_told_after_a_second() {
        // No process has this id: pid_max is 2^22 at most.
        let pid = i32::MAX;
        let (end, ended) = std::sync::mpsc::channel::<()>();
        let ended = Mutex::new(ended);
        let untold = || lock(&POOL).untold.iter().any(|(read, _)| read.pid == pid);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime");
        let job = move || guarded(pid, || lock(&ended).recv().map_err(io::Error::other));
        let answer = runtime.block_on(run(job)).expect("there are threads");
        assert_eq!(answer.map_err(|error| error.kind()), Err(io::ErrorKind::TimedOut));
        assert!(is_stuck(pid) && untold(), "it is not told yet");
        let begun = clock::monotonic();
        while untold() {
            assert!(clock::monotonic().saturating_sub(begun) < Duration::from_secs(30), "it is never told");
            thread::park_timeout(Duration::from_millis(10));
        }
        assert!(is_stuck(pid), "it is still skipped");
        drop(end);
        while is_stuck(pid) {
            assert!(clock::monotonic().saturating_sub(begun) < Duration::from_secs(30), "it never returns");
            thread::park_timeout(Duration::from_millis(10));
        }
    }
}
