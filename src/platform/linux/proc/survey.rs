//! Reads `/proc/PID/stat` of many processes, and a file about the memory of some of them.

use super::files::{CHUNK, is_foreign, is_shortage};
use super::reader::{self, Assignment, PATIENCE, ReaderThread, ReaderWork, StuckRead, Unavailable, lock};
use super::walk::{Walk, list, open, open_folder, read_stat};
use crate::platform::environment::ProcessEnvironment;
use crate::platform::stat::{Stat, Surveyed};
use rustix::buffer::spare_capacity;
use std::fs;
use std::io;
use std::mem;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// From so many processes on two threads share the work: a thread of its own costs as much as ten or twenty processes.
const LARGE: u64 = 256;

/// Every visible process, by pid, each with what `answer` makes of its environment: `None` if it is not asked for, or
/// cannot be read, or the read is stuck. A process that ends in the meantime is left out, and so are threads of the kernel
/// and processes with a blocking `/proc/PID/stat`.
///
/// # Errors
/// EMFILE and the like, or too many stuck reads: an incomplete list would pass for a complete one.
pub fn survey<T: Send + 'static>(
    is_asked: impl Fn(&Stat) -> bool + Send + Sync + 'static,
    answer: impl Fn(&ProcessEnvironment) -> T + Send + Sync + 'static,
) -> io::Result<Surveyed<T>> {
    let mut found = Survey::new(None, "environ", is_asked, digest(answer))?.run()?;
    found.sort_unstable_by_key(|(process, _)| process.pid);
    Ok(found)
}

impl Walk {
    /// The same of the next few processes; `None` if there are no more.
    ///
    /// # Errors
    /// As [`survey`].
    pub fn advance<T: Send + 'static>(
        &mut self,
        is_asked: impl Fn(&Stat) -> bool + Send + Sync + 'static,
        answer: impl Fn(&ProcessEnvironment) -> T + Send + Sync + 'static,
    ) -> io::Result<Option<Surveyed<T>>> {
        let mut pids = Vec::new();
        if is_foreign() || !list(&self.folder, &mut pids)? && pids.is_empty() {
            return Ok(None);
        }
        Survey::new(Some(pids), "environ", is_asked, digest(answer))?.run().map(Some)
    }
}

/// Every visible process, with the omissions of [`survey`].
///
/// # Errors
/// As [`survey`].
pub fn processes() -> io::Result<Vec<Stat>> {
    Ok(survey(|_| false, |_| ())?.into_iter().map(|(process, _)| process).collect())
}

/// Reads an environment in the same place as the one before.
fn digest<T>(answer: impl Fn(&ProcessEnvironment) -> T) -> impl Fn(&mut Vec<u8>) -> T {
    move |bytes| {
        let environment = ProcessEnvironment::new(mem::take(bytes));
        let answer = answer(&environment);
        *bytes = environment.into_bytes();
        answer
    }
}

/// What `digest` makes of this file of a process; `None` if it cannot be read.
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
    /// The reads that were stuck already.
    stuck: Vec<StuckRead>,
    names: Mutex<Names>,
    progress: Mutex<Progress<T>>,
    changed: Condvar,
}

/// The processes that are not read yet.
struct Names {
    pids: Vec<i32>,
    may_be_more: bool,
}

struct Progress<T> {
    found: Surveyed<T>,
    error: Option<io::Error>,
    at_work: usize,
}

/// What a thread does next.
enum Batch {
    More,
    End,
    LeftBehind,
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
            stuck: reader::stuck_reads(),
            names: Mutex::new(Names { pids, may_be_more }),
            progress: Mutex::new(Progress { found: Vec::new(), error: None, at_work: 0 }),
            changed: Condvar::new(),
        })
    }

    fn run(self) -> io::Result<Surveyed<T>> {
        // Where a read is stuck already, other workers are not risked two at a time.
        let is_shared = lock(&self.names).may_be_more && is_large() && self.stuck.is_empty();
        let survey = Arc::new(self);
        let mut assignments = Vec::new();
        if is_shared {
            // If one cannot be had, the other one does it all.
            assignments.extend(survey.assign().ok());
            assignments.extend(survey.assign().ok());
        }
        loop {
            let progress = lock(&survey.progress);
            if progress.at_work > 0 {
                let waited = survey.changed.wait_timeout(progress, PATIENCE);
                let (progress, waited) = waited.unwrap_or_else(PoisonError::into_inner);
                let is_late = progress.at_work > 0 && waited.timed_out();
                drop(progress);
                if is_late {
                    survey.skip_stuck(&mut assignments);
                }
                continue;
            }
            drop(progress);
            if survey.is_over() {
                break;
            }
            // There is no worker yet, or all are stuck.
            survey.assign_or_do(&mut assignments);
        }
        let mut progress = lock(&survey.progress);
        progress.error.take().map_or_else(|| Ok(mem::take(&mut progress.found)), Err)
    }

    fn is_over(&self) -> bool {
        let names = lock(&self.names);
        names.pids.is_empty() && !names.may_be_more
    }

    /// Has a worker take part.
    fn assign(self: &Arc<Self>) -> Result<Assignment, Unavailable> {
        lock(&self.progress).at_work += 1;
        let assignment = Assignment::give(Arc::clone(self) as Arc<dyn ReaderWork>);
        if assignment.is_err() {
            lock(&self.progress).at_work -= 1;
        }
        assignment
    }

    fn assign_or_do(self: &Arc<Self>, assignments: &mut Vec<Assignment>) {
        match self.assign() {
            Ok(assignment) => assignments.push(assignment),
            Err(Unavailable::Threads(_)) => {
                // A storm of forks has used up the threads: the answers matter more than the risk to block.
                lock(&self.progress).at_work += 1;
                ReaderWork::run(self.as_ref(), &ReaderThread::default());
            }
            Err(Unavailable::Stuck(error)) => self.fail(error),
        }
    }

    fn fail(&self, error: io::Error) {
        *lock(&self.names) = Names { pids: Vec::new(), may_be_more: false };
        lock(&self.progress).error = Some(error);
    }

    /// Continues without the processes with stuck reads.
    fn skip_stuck(&self, assignments: &mut Vec<Assignment>) {
        assignments.retain_mut(|assignment| {
            let Some((read, others)) = assignment.leave_if_stuck() else { return true };
            lock(&self.names).pids.extend(others);
            {
                let mut progress = lock(&self.progress);
                progress.found.extend(read.process.map(|process| (process, None)));
                progress.at_work -= 1;
            }
            false
        });
    }

    /// The next few pids; empty at the end.
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

    /// Reads the next few processes. Returns whether the survey wants more.
    fn look(&self, worker: &ReaderThread, found: &mut Surveyed<T>, bytes: &mut Vec<u8>) -> io::Result<Batch> {
        let pids = self.next()?;
        if pids.is_empty() {
            return Ok(Batch::End);
        }
        worker.begin(&pids);
        for pid in pids {
            if self.stuck.contains(&StuckRead { pid, process: None }) {
                continue;
            }
            let process = match worker.read(StuckRead { pid, process: None }, || read_stat(&self.folder, pid)) {
                None => return Ok(Batch::LeftBehind),
                Some(Ok(Some(process))) => process,
                Some(Err(error)) if is_shortage(&error) => return Err(error),
                Some(Ok(None) | Err(_)) => continue,
            };
            let mut answer = None;
            if self.may_ask(&process) {
                match worker.read(StuckRead { pid, process: Some(process) }, || self.read(pid, bytes)) {
                    None => return Ok(Batch::LeftBehind),
                    Some(Err(error)) if is_shortage(&error) => return Err(error),
                    Some(read) => answer = read.ok().map(|()| (self.digest)(bytes)),
                }
            }
            found.push((process, answer));
        }
        // All at once: a worker that is left behind has told nothing about the processes that the next one looks at.
        lock(&self.progress).found.append(found);
        Ok(Batch::More)
    }

    fn may_ask(&self, process: &Stat) -> bool {
        let is_it = |read: &StuckRead| {
            read.pid == process.pid && read.process.is_some_and(|known| known.start_time == process.start_time)
        };
        (self.is_asked)(process) && !self.stuck.iter().any(is_it)
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

impl<T: Send + 'static> ReaderWork for Survey<T> {
    fn run(&self, worker: &ReaderThread) {
        let (mut found, mut bytes) = (Vec::new(), Vec::new());
        loop {
            match self.look(worker, &mut found, &mut bytes) {
                Ok(Batch::More) => {}
                Ok(Batch::End) => break,
                // We are not counted any more.
                Ok(Batch::LeftBehind) => return,
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
        let answer = |environment: &ProcessEnvironment| environment.get("CROWD").map(<[u8]>::to_vec);
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
