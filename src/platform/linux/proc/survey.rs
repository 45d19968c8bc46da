//! Looks at many processes, each asked for something that only its memory tells.

use super::reader::{self, Desk, Keeper, Lack, Order, Work, lock};
use super::walk::{Walk, list, open, open_folder, read_stat};
use super::{CHUNK, Seen, Stat, is_foreign, is_shortage};
use crate::platform::environment::Environment;
use rustix::buffer::spare_capacity;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

/// Between two looks at who is being asked. Whoever has not answered from one to the next is left alone.
const PATIENCE: Duration = Duration::from_millis(20);

/// From so many processes on two threads share the work: a thread of its own costs as much as ten or twenty processes.
const LARGE: u64 = 256;

/// Every process that can be seen, by pid, each with what `answer` makes of its environment: nothing for who is not to
/// be asked, has none that can be read, or keeps us waiting. One that ends in the meantime is left out, and so are threads
/// of the kernel and who keeps us waiting from the first.
///
/// # Errors
/// EMFILE and the like, or too many who keep us waiting: then nothing is known, rather than that nobody is there.
pub fn survey<T: Send + 'static>(
    is_asked: impl Fn(&Stat) -> bool + Send + Sync + 'static,
    answer: impl Fn(&Environment) -> T + Send + Sync + 'static,
) -> io::Result<Seen<T>> {
    let mut found = Survey::new(None, "environ", is_asked, digest(answer))?.run()?;
    found.sort_unstable_by_key(|(process, _)| process.pid);
    Ok(found)
}

impl Walk {
    /// The same of the next few processes; nothing where there are no more.
    ///
    /// # Errors
    /// As [`survey`].
    pub fn advance<T: Send + 'static>(
        &mut self,
        is_asked: impl Fn(&Stat) -> bool + Send + Sync + 'static,
        answer: impl Fn(&Environment) -> T + Send + Sync + 'static,
    ) -> io::Result<Option<Seen<T>>> {
        let mut pids = Vec::new();
        if is_foreign() || !list(&self.folder, &mut pids)? && pids.is_empty() {
            return Ok(None);
        }
        Survey::new(Some(pids), "environ", is_asked, digest(answer))?.run().map(Some)
    }
}

/// Every process that can be seen. One that ends during the walk is left out, and so are threads of the kernel and who
/// keeps us waiting.
///
/// # Errors
/// As [`survey`].
pub fn processes() -> io::Result<Vec<Stat>> {
    Ok(survey(|_| false, |_| ())?.into_iter().map(|(process, _)| process).collect())
}

/// Reads an environment in the same place as the one before.
fn digest<T>(answer: impl Fn(&Environment) -> T) -> impl Fn(&mut Vec<u8>) -> T {
    move |bytes| {
        let environment = Environment::new(mem::take(bytes));
        let answer = answer(&environment);
        *bytes = environment.into_bytes();
        answer
    }
}

/// What `digest` makes of this file of a process; nothing where it cannot be read.
pub(super) fn ask<T: Send + 'static>(
    pid: i32,
    file: &'static str,
    digest: impl Fn(&mut Vec<u8>) -> T + Send + Sync + 'static,
) -> Option<T> {
    Survey::new(Some(vec![pid]), file, |_| true, digest).and_then(Survey::run).ok()?.pop()?.1
}

/// Makes an answer of the bytes of a file, and may take them.
type Digest<T> = Box<dyn Fn(&mut Vec<u8>) -> T + Send + Sync>;

struct Survey<T> {
    folder: OwnedFd,
    file: &'static str,
    is_asked: Box<dyn Fn(&Stat) -> bool + Send + Sync>,
    digest: Digest<T>,
    /// Those who keep a thread already.
    keepers: Vec<Keeper>,
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
    found: Seen<T>,
    error: Option<io::Error>,
    at_work: usize,
}

/// How a thread goes on.
enum Next {
    More,
    End,
    Abandoned,
}

impl<T: Send + 'static> Survey<T> {
    /// Of these processes or of all.
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
            names: Mutex::new(Names { pids, may_be_more }),
            progress: Mutex::new(Progress { found: Vec::new(), error: None, at_work: 0 }),
            changed: Condvar::new(),
        })
    }

    fn run(self) -> io::Result<Seen<T>> {
        // Where a process keeps a thread already, others are not risked two at a time.
        let is_shared = lock(&self.names).may_be_more && is_large() && self.keepers.is_empty();
        let survey = Arc::new(self);
        let mut orders = Vec::new();
        if is_shared {
            // Where one cannot be had, the other one does it all.
            orders.extend(survey.order().ok());
            orders.extend(survey.order().ok());
        }
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
            // None was ordered yet, or all are kept.
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
            Err(Lack::Threads) => {
                // It is we who ask: in a storm of forks that has used up the threads, the answers matter more.
                lock(&self.progress).at_work += 1;
                Work::run(self.as_ref(), &Desk::default());
            }
            Err(Lack::Kept(error)) => self.fail(error),
        }
    }

    fn fail(&self, error: io::Error) {
        *lock(&self.names) = Names { pids: Vec::new(), may_be_more: false };
        lock(&self.progress).error = Some(error);
    }

    /// Goes on without the processes that keep a thread.
    fn leave_alone(&self, orders: &mut Vec<Order>) {
        orders.retain_mut(|order| {
            let Some((keeper, others)) = order.is_kept() else { return true };
            lock(&self.names).pids.extend(others);
            {
                let mut progress = lock(&self.progress);
                progress.found.extend(keeper.process.map(|process| (process, None)));
                progress.at_work -= 1;
            }
            let (pid, state) = (keeper.pid, state_of(keeper.pid).unwrap_or_default());
            tracing::warn!(
                pid,
                state,
                "a process keeps whoever wants to read its memory waiting; it will not be asked again before it lets go"
            );
            false
        });
    }

    /// The next few pids, none at the end.
    fn next(&self) -> io::Result<Vec<i32>> {
        let mut names = lock(&self.names);
        while names.pids.is_empty() && names.may_be_more {
            // For the case of an error.
            names.may_be_more = false;
            let mut listed = Vec::new();
            names.may_be_more = list(&self.folder, &mut listed)?;
            names.pids = listed;
        }
        Ok(mem::take(&mut names.pids))
    }

    /// Looks at the next few processes. Says whether anybody waits for more.
    fn look(&self, desk: &Desk, found: &mut Seen<T>, bytes: &mut Vec<u8>) -> io::Result<Next> {
        let pids = self.next()?;
        if pids.is_empty() {
            return Ok(Next::End);
        }
        desk.begin(&pids);
        for pid in pids {
            if self.keepers.contains(&Keeper { pid, process: None }) {
                continue;
            }
            let process = match desk.ask(Keeper { pid, process: None }, || read_stat(&self.folder, pid)) {
                None => return Ok(Next::Abandoned),
                Some(Ok(Some(process))) => process,
                Some(Err(error)) if is_shortage(&error) => return Err(error),
                Some(Ok(None) | Err(_)) => continue,
            };
            let mut answer = None;
            if self.may_ask(&process) {
                match desk.ask(Keeper { pid, process: Some(process) }, || self.read(pid, bytes)) {
                    None => return Ok(Next::Abandoned),
                    Some(Err(error)) if is_shortage(&error) => return Err(error),
                    Some(read) => answer = read.ok().map(|()| (self.digest)(bytes)),
                }
            }
            found.push((process, answer));
        }
        // In one go: whoever is abandoned has told nothing of those that the next one looks at again.
        lock(&self.progress).found.append(found);
        Ok(Next::More)
    }

    fn may_ask(&self, process: &Stat) -> bool {
        let is_keeper = |keeper: &Keeper| {
            keeper.pid == process.pid && keeper.process.is_some_and(|known| known.start_time == process.start_time)
        };
        (self.is_asked)(process) && !self.keepers.iter().any(is_keeper)
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
        let (mut found, mut bytes) = (Vec::new(), Vec::new());
        loop {
            match self.look(desk, &mut found, &mut bytes) {
                Ok(Next::More) => {}
                Ok(Next::End) => break,
                // We are not counted any more.
                Ok(Next::Abandoned) => return,
                Err(error) => {
                    self.fail(error);
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

/// What it is doing, from a file that nobody has to wait for.
fn state_of(pid: i32) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("State:")).map(|state| state.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::process::{Child, Command, Stdio};

    /// Ended with this value.
    struct Crowd(Vec<Child>);

    impl Drop for Crowd {
        fn drop(&mut self) {
            for child in &mut self.0 {
                child.kill().ok();
                child.wait().ok();
            }
        }
    }

    #[test]
    fn on_a_large_machine_two_threads_see_every_process_once_with_its_own_answer() {
        let mut crowd = Crowd(Vec::new());
        for number in 0..LARGE {
            let mut command = Command::new("sleep");
            command.arg("60").env("CROWD", number.to_string()).stdin(Stdio::null());
            crowd.0.push(command.spawn().expect("sleep can be started"));
        }
        assert!(is_large());
        let pids: BTreeSet<_> = crowd.0.iter().map(|child| child.id().cast_signed()).collect();
        let answer = |environment: &Environment| environment.get("CROWD").map(<[u8]>::to_vec);
        let read = || {
            let all = survey(|process| process.pid % 2 == 0, answer).expect("/proc can be read");
            assert!(all.is_sorted_by(|one, other| one.0.pid < other.0.pid), "each once");
            let ours = all.into_iter().filter(|(process, _)| pids.contains(&process.pid));
            let ours: Vec<_> = ours.map(|(process, answer)| (process.pid, answer.flatten())).collect();
            assert_eq!(ours.len(), crowd.0.len(), "all of them are there");
            ours
        };
        // In the middle of an execve(2) a process has no environment.
        let mut found = read();
        while found.iter().any(|(pid, number)| pid % 2 == 0 && number.is_none()) {
            std::thread::yield_now();
            found = read();
        }
        for (pid, number) in found {
            let child = crowd.0.iter().position(|child| child.id().cast_signed() == pid);
            let expected = child.filter(|_| pid % 2 == 0).map(|child| child.to_string().into_bytes());
            assert_eq!(number, expected, "{pid}");
        }
    }
}
