//! How a process of ours comes into being.

use super::cgroup::Leaf;
use super::mark::Mark;
use super::process::Handle;
use crate::platform::child::positive;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use rustix::process::{Signal, WaitOptions};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;

/// What a process is given at its birth, and all that it starts inherits.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup<'a> {
    /// The control group that it is born into.
    pub leaf: Option<&'a Leaf>,
    /// A mark.
    pub mark: Option<Mark>,
}

/// A process that was started.
#[derive(Debug)]
pub struct Spawned {
    /// Itself.
    pub handle: Handle,
    /// Why it is not in the leaf that it was to be born into: it is in our own control group then.
    pub outside: Option<io::Error>,
}

/// Starts a command in a session of its own and takes hold of it. To be called once for a command.
///
/// # Errors
/// What fork(2) or execve(2) said. That the leaf cannot be entered is no error.
pub fn spawn(command: &mut Command, setup: Setup<'_>) -> io::Result<Spawned> {
    let Setup { leaf, mark } = setup;
    let door = leaf.map(Door::to).transpose();
    let (door, outside) = door.map_or_else(|error| (None, Some(error)), |door| (door, None));
    let inner = door.clone();
    // SAFETY: the hook makes system calls, and nothing else: no allocation, and no lock that the fork could have copied.
    unsafe {
        command.pre_exec(move || {
            if let Some(door) = &inner {
                door.pass();
            }
            // A gateway without a mark is better than none.
            let _marked = mark.map(Mark::put_on_us);
            rustix::process::setsid().map(drop).map_err(io::Error::from)
        });
    }
    let child = command.spawn();
    let passed = door.as_ref().and_then(Door::answer);
    let child = match child {
        Ok(child) => child.id().cast_signed(),
        Err(error) => {
            if let Some(Answer::Inside(pid)) = passed {
                // It has told why it could not become the command, and is ending.
                wait_for(pid);
            }
            return Err(error);
        }
    };
    let (pid, outside) = match passed {
        Some(Answer::Inside(pid)) => {
            // The one before the door has ended: std has seen both of them close the pipe for errors.
            wait_for(child);
            (pid, None)
        }
        Some(Answer::Refused(code)) => (child, Some(io::Error::from_raw_os_error(code))),
        None => (child, outside),
    };
    // Nobody else reaps it, so the pid is still its own.
    let handle = Handle::open(pid).inspect_err(|_| {
        // No descriptors. What cannot be held must not run.
        let _killed = positive(pid).map(|pid| rustix::process::kill_process(pid, Signal::KILL));
        wait_for(pid);
    })?;
    Ok(Spawned { handle, outside })
}

/// Waits for a child that is ending, and removes the zombie.
fn wait_for(pid: i32) {
    let Some(pid) = positive(pid) else { return };
    // The only other error is that it is no child of ours.
    while matches!(rustix::process::waitpid(Some(pid), WaitOptions::empty()), Err(Errno::INTR)) {}
}

/// Starts a command in a session of its own and takes hold of it.
///
/// # Errors
/// What fork(2) or execve(2) said.
pub fn spawn_in_own_session(command: &mut Command) -> io::Result<Handle> {
    spawn(command, Setup::default()).map(|spawned| spawned.handle)
}

/// The way into a leaf, for a child between fork(2) and execve(2).
///
/// Moving there by a write to `cgroup.procs` waits for every processor of the machine to pass a quiet state: on one that
/// was idle before, 10 ms of the median respawn. Being created there (`CLONE_INTO_CGROUP` in clone(2)) costs nothing of
/// the kind, but `Command` does not offer it, and does not show all that it would be asked to do. So its child makes a
/// copy of itself in the leaf, as a child of ours, and ends; the copy goes on with what `Command` has set up.
#[derive(Clone)]
struct Door {
    directory: Arc<OwnedFd>,
    // An eventfd: one word, which is there or is not. Nothing is left to wait for if the child ends before the door.
    answer: Arc<OwnedFd>,
}

/// What a child that came to the door has told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answer {
    /// This process is in the leaf, and is the command.
    Inside(i32),
    /// The kernel's error. The child went on as it was.
    Refused(i32),
}

/// From `linux/sched.h`; libc's own constant of the name does not hold the bit.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Added to an error, so that it is told from a pid.
const REFUSED: u64 = 1 << 32;

impl Door {
    fn to(leaf: &Leaf) -> io::Result<Self> {
        let answer = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { directory: leaf.directory(), answer: Arc::new(answer) })
    }

    /// Returns in the process that is to become the command.
    fn pass(&self) {
        // SAFETY: all of it is plain numbers, for which zeroes are valid.
        let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
        // The exit signal of the parent's choice comes with `CLONE_PARENT`, and must not be given beside it.
        arguments.flags = CLONE_INTO_CGROUP | u64::from(libc::CLONE_PARENT.cast_unsigned());
        arguments.cgroup = u64::try_from(self.directory.as_raw_fd()).unwrap_or(u64::MAX);
        // SAFETY: no memory is shared and no stack is given, so both return from the call as from a fork(2), with
        // `arguments` in a copy of its own. The C library's list of threads does not learn of the copy, which makes
        // system calls alone before it executes another program or ends.
        let result = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, size_of::<libc::clone_args>()) };
        match result {
            0 => {}
            pid if pid > 0 => {
                self.tell(pid.cast_unsigned());
                // SAFETY: no handler of exit(3) of the process that we are a copy of is run.
                unsafe { libc::_exit(0) }
            }
            _ => {
                let code = io::Error::last_os_error().raw_os_error().unwrap_or(libc::EINVAL);
                self.tell(REFUSED | u64::from(code.cast_unsigned()));
            }
        }
    }

    fn tell(&self, word: u64) {
        // An eventfd takes any word at once as long as nobody else has written.
        let _written = rustix::io::write(&self.answer, &word.to_ne_bytes());
    }

    fn answer(&self) -> Option<Answer> {
        let mut word = [0; 8];
        // EAGAIN: no child ever came to the door.
        rustix::io::read(&self.answer, &mut word).ok()?;
        let word = u64::from_ne_bytes(word);
        let value = i32::try_from(word & !REFUSED).ok()?;
        Some(if word & REFUSED == 0 { Answer::Inside(value) } else { Answer::Refused(value) })
    }
}
