//! Processes of our own: creating, naming, signalling, watching and reaping them.
//!
//! A pid is a name that the kernel gives away again, and this kernel has no other one to offer. A child's pid is its
//! own until we reap it. Of any other process the start time is compared right before each signal. If it ends between
//! the comparison and kill(2) and its pid is reused at once, the signal hits the new process. The kernel allocates pids
//! in turn, so this takes a whole round of them within microseconds.

use super::cgroup::Leaf;
use super::rlimit_tag::RlimitTag;
use super::usage::time;
use crate::platform::child::positive;
pub use crate::platform::child::{Turn, claim, claimed, is_claimed, is_zombie_child, reap, reap_unclaimed, unclaim};
use rustix::event::kqueue::{Event, EventFilter, EventFlags, ProcessEvents, kevent, kqueue};
use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions};
use std::future::{Ready, ready};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Command, ExitStatus, Stdio};
use std::ptr;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// The pauses between two looks for the zombie of a process that is on its way out: they double from the one to the
/// other.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(100)];

/// One process, named by its pid and its start time.
#[derive(Debug)]
pub struct Handle {
    pid: Pid,
    start_time: u64,
}

impl Handle {
    /// Takes hold of the process that has this pid now.
    ///
    /// # Errors
    /// ESRCH if there is none; EPERM if it is another user's.
    pub fn open(pid: i32) -> io::Result<Self> {
        let name = positive(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { pid: name, start_time: super::proc::stat(pid)?.start_time })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Its start time, as in [`super::proc::Stat`].
    #[must_use]
    pub fn start_time(&self) -> u64 {
        self.start_time
    }

    /// SIGTERM.
    ///
    /// # Errors
    /// ESRCH once it has ended and was reaped; EPERM.
    pub fn terminate(&self) -> io::Result<()> {
        self.signal(Signal::TERM)
    }

    /// SIGCONT: a stopped process acts on no other signal but SIGKILL.
    ///
    /// # Errors
    /// As [`Handle::terminate`].
    pub fn resume(&self) -> io::Result<()> {
        self.signal(Signal::CONT)
    }

    /// SIGKILL. It ends a stopped process as well.
    ///
    /// # Errors
    /// As [`Handle::terminate`].
    pub fn kill(&self) -> io::Result<()> {
        self.signal(Signal::KILL)
    }

    /// Nothing: no name of a group is safe here, unless it is that of a child.
    ///
    /// # Errors
    /// Always.
    pub fn kill_group(&self) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn signal(&self, signal: Signal) -> io::Result<()> {
        if super::proc::stat(self.pid())?.start_time != self.start_time {
            return Err(Errno::SRCH.into());
        }
        Ok(rustix::process::kill_process(self.pid, signal)?)
    }

    /// A watch for the end of the process. It needs the reactor of a tokio runtime.
    ///
    /// # Errors
    /// EMFILE.
    pub fn watch(&self) -> io::Result<EndWatch> {
        let queue = kqueue()?;
        let filter = EventFilter::Proc { pid: self.pid, flags: ProcessEvents::EXIT };
        let end = Event::new(filter, EventFlags::ADD | EventFlags::ONESHOT, ptr::null_mut());
        // SAFETY: the event names a process, no descriptor.
        match unsafe { kevent(&queue, &[end], &mut [] as &mut [Event], Some(Duration::ZERO)) } {
            Ok(_) => {}
            // It is a zombie, or about to become one.
            Err(Errno::SRCH) => return Ok(EndWatch { queue: None }),
            Err(error) => return Err(error.into()),
        }
        // A kqueue can be watched for reading alone.
        // SAFETY: the `OwnedFd` is open, belongs to the `AsyncFd` alone, and is not closed or replaced before
        // that one is dropped.
        let queue = unsafe { AsyncFd::register_with_interest(queue, Interest::READABLE) }?;
        Ok(EndWatch { queue: Some(queue) })
    }

    /// How our child ended, if it has. It stays a zombie, so that its pid, and with it the number of its process
    /// group and session, cannot name anything else until [`reap`].
    ///
    /// # Errors
    /// ECHILD if it is not a child of ours.
    pub fn exit(&self) -> io::Result<Option<Exit>> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
        let Some(end) = rustix::process::waitid(WaitId::Pid(self.pid), options)? else { return Ok(None) };
        // wait(2)'s encoding: the code in the second byte, or the signal in the first with 0x80 for a core file. Here
        // the kernel tells bits of the code that wait(2) never shows, and only to the first caller.
        let status = ExitStatus::from_raw(match (end.exit_status(), end.terminating_signal()) {
            (Some(code), _) => (code & 0xff) << 8,
            (None, signal) => signal.unwrap_or(0) & 0x7f | if end.dumped() { 0x80 } else { 0 },
        });
        let usage = self.usage();
        Ok(Some(Exit {
            status,
            max_rss_kb: usage.map(|usage| usage.ri_lifetime_max_phys_footprint / 1024),
            cpu: usage.and_then(|usage| time(usage.ri_user_time, usage.ri_system_time)),
        }))
    }

    /// Whether it has ended, be it a child of ours or not, reaped or not.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn has_ended(&self) -> io::Result<bool> {
        match super::proc::stat(self.pid()) {
            Ok(stat) => Ok(stat.is_dead() || stat.start_time != self.start_time),
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Whether it has ended by the end of this time. Blocks the caller.
    ///
    /// # Errors
    /// What the kernel said.
    #[expect(clippy::disallowed_methods, reason = "nothing else waits for a process without an event loop")]
    pub fn ends_within(&self, wait: Duration) -> io::Result<bool> {
        for _ in 0..wait.as_millis() {
            if self.has_ended()? {
                return Ok(true);
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        self.has_ended()
    }

    /// Removes the zombie, if this is a dead child of ours.
    pub fn reap(&self) {
        // A child's pid is its own until it is reaped: with this start time it names no other process.
        if super::proc::stat(self.pid()).is_ok_and(|stat| stat.start_time == self.start_time) {
            reap(self.pid());
        }
    }

    /// What it has used, be it a zombie.
    fn usage(&self) -> Option<libc::rusage_info_v4> {
        let mut usage = MaybeUninit::<libc::rusage_info_v4>::zeroed();
        // SAFETY: it is the struct of this flavor, plain numbers, and nothing else is written to; the type of the
        // parameter is a historical mistake of the interface.
        unsafe {
            let result = libc::proc_pid_rusage(self.pid(), libc::RUSAGE_INFO_V4, usage.as_mut_ptr().cast());
            (result == 0).then(|| usage.assume_init())
        }
    }
}

/// Becomes ready when a process ends: a kqueue with `NOTE_EXIT`, or none if it had ended before.
#[derive(Debug)]
pub struct EndWatch {
    queue: Option<AsyncFd<OwnedFd>>,
}

impl EndWatch {
    /// Waits for our child's end.
    ///
    /// # Errors
    /// As [`Handle::exit`].
    pub async fn exit(&self, handle: &Handle) -> io::Result<Exit> {
        if let Some(queue) = &self.queue {
            drop(queue.readable().await?);
        }
        // The note comes, and a late registration fails, a moment before waitid(2) sees the zombie.
        let mut pause = PAUSES[0];
        loop {
            if let Some(exit) = handle.exit()? {
                return Ok(exit);
            }
            tokio::time::sleep(pause).await;
            pause = PAUSES[1].min(pause * 2);
        }
    }

    /// Waits for the end of any process.
    ///
    /// # Errors
    /// EPERM where it is another user's by now.
    pub async fn ended(&self, handle: &Handle) -> io::Result<()> {
        if let Some(queue) = &self.queue {
            drop(queue.readable().await?);
        }
        let mut pause = PAUSES[0];
        while !handle.has_ended()? {
            tokio::time::sleep(pause).await;
            pause = PAUSES[1].min(pause * 2);
        }
        Ok(())
    }
}

/// The end of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its code or signal.
    pub status: ExitStatus,
    /// Its peak physical footprint, in KiB: the memory that this kernel charges a process for. It tells the peak
    /// resident set only to the reaper.
    pub max_rss_kb: Option<u64>,
    /// CPU time of all its threads.
    pub cpu: Option<Duration>,
}

/// What a process is started with. There are neither leaves nor tags here.
#[derive(Debug, Clone, Copy, Default)]
pub struct Setup<'a> {
    /// The control group to be created in.
    pub leaf: Option<&'a Leaf>,
    /// A mark in its resource limits.
    pub tag: Option<RlimitTag>,
    /// Standard input, output and error; `None` if ours.
    pub streams: [Option<BorrowedFd<'a>>; 3],
}

/// A process that was started.
#[derive(Debug)]
pub struct Spawned {
    /// The process.
    pub handle: Handle,
    /// Why it is not in its leaf.
    pub outside: Option<io::Error>,
    /// The outcome of its execve(2).
    pub exec: Exec,
}

/// The outcome of an execve(2) that [`spawn`] has waited for.
#[derive(Debug)]
pub struct Exec(());

impl Exec {
    /// It was executed.
    ///
    /// # Errors
    /// None: [`spawn`] tells them.
    pub fn done(self) -> Ready<io::Result<()>> {
        let Self(()) = self;
        ready(Ok(()))
    }
}

/// Starts a command in a session of its own.
///
/// # Errors
/// What fork(2) or execve(2) said.
pub fn spawn(command: &mut Command, setup: Setup<'_>) -> io::Result<Spawned> {
    let outside = setup.leaf.map(|_| io::ErrorKind::Unsupported.into());
    let [input, output, errors] = setup.streams;
    let copy = |stream: BorrowedFd<'_>| stream.try_clone_to_owned().map(Stdio::from);
    if let Some(stream) = input {
        command.stdin(copy(stream)?);
    }
    if let Some(stream) = output {
        command.stdout(copy(stream)?);
    }
    if let Some(stream) = errors {
        command.stderr(copy(stream)?);
    }
    Ok(Spawned { handle: spawn_in_own_session(command)?, outside, exec: Exec(()) })
}

/// Starts a command in a session of its own and takes hold of it.
///
/// # Errors
/// What fork(2) or execve(2) said.
pub fn spawn_in_own_session(command: &mut Command) -> io::Result<Handle> {
    // SAFETY: setsid(2) and sigaction(2) are async-signal-safe, allocate nothing and touch no lock that the fork could have
    // copied. What our parent ignores would be inherited.
    unsafe {
        command.pre_exec(|| {
            // The last one of signal.h.
            for number in 1..=libc::SIGUSR2 {
                libc::signal(number, libc::SIG_DFL);
            }
            rustix::process::setsid().map(drop).map_err(io::Error::from)
        });
    }
    let child = command.spawn()?;
    let pid = child.id().cast_signed();
    let name = positive(pid).ok_or(io::ErrorKind::InvalidData)?;
    // It is not reaped yet, so the pid is its own.
    match Handle::open(pid) {
        // It ends already, and cannot be looked up until it is a zombie: the kernel is about to make it one.
        Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {
            let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
            rustix::process::waitid(WaitId::Pid(name), options)?;
            Handle::open(pid)
        }
        result => result,
    }
}

/// No: without subreapers that cannot be told so cheaply.
#[must_use]
pub fn is_all_that_is_left(_pid: i32) -> bool {
    false
}

/// Does nothing: on macOS orphans go to launchd. A daemon that left its session, with a parent that ended before
/// it was seen, can only be recognised by its environment; one that has wiped that too escapes.
///
/// # Errors
/// None.
pub fn become_subreaper() -> io::Result<()> {
    Ok(())
}
