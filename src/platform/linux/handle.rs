//! A hold on a process: a pid is a name that the kernel gives away again, a pidfd is not. See `pidfd_open(2)`, and
//! [`by_pid`] for a kernel without it.

use super::by_pid::{self, Pause};
use super::proc::{self, is_foreign, stat};
use super::system_calls::has_pidfds;
use crate::platform::child::{self, positive};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{PidfdFlags, Signal, WaitId, WaitIdOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// One process, whatever becomes of its pid.
#[derive(Debug)]
pub struct Handle {
    pid: i32,
    start_time: u64,
    /// `None` without pidfds.
    fd: Option<OwnedFd>,
}

impl Handle {
    /// Takes hold of the process that has this pid now.
    ///
    /// # Errors
    /// ESRCH if there is none; EMFILE and the like; `TimedOut` if the read of its start time is stuck.
    pub fn open(pid: i32) -> io::Result<Self> {
        let name = positive(pid).ok_or(io::ErrorKind::InvalidInput)?;
        if !has_pidfds() {
            return Ok(Self { pid, start_time: by_pid::start_time(name)?, fd: None });
        }
        let fd = rustix::process::pidfd_open(name, PidfdFlags::empty())?;
        // Read after the open. If the caller saw the same start time under this pid before, the descriptor is that process:
        // the pid cannot have been reused in between.
        let start_time = if is_foreign() { 0 } else { stat(pid)?.start_time };
        Ok(Self { pid, start_time, fd: Some(fd) })
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.pid
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
        self.send(Signal::TERM)
    }

    /// SIGCONT: a stopped process acts on no other signal but SIGKILL.
    ///
    /// # Errors
    /// As [`Handle::terminate`].
    pub fn resume(&self) -> io::Result<()> {
        self.send(Signal::CONT)
    }

    /// SIGKILL. It ends a stopped process as well.
    ///
    /// # Errors
    /// As [`Handle::terminate`].
    pub fn kill(&self) -> io::Result<()> {
        self.send(Signal::KILL)
    }

    fn send(&self, signal: Signal) -> io::Result<()> {
        match &self.fd {
            Some(fd) => Ok(rustix::process::pidfd_send_signal(fd, signal)?),
            None => by_pid::send(self.pid, self.start_time, signal),
        }
    }

    /// SIGKILL to the process group with the pid of this process as its id, alive or not: while the descriptor
    /// is open that id names no other group here.
    ///
    /// # Errors
    /// ESRCH if there is no such group; EINVAL before Linux 6.9; `Unsupported` without pidfds.
    pub fn kill_group(&self) -> io::Result<()> {
        const SIGNAL_PROCESS_GROUP: libc::c_uint = 1 << 2;
        let fd = self.fd.as_ref().ok_or(io::ErrorKind::Unsupported)?.as_raw_fd();
        let none = std::ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open, and a null pointer stands for the siginfo of kill(2).
        let result =
            unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, libc::SIGKILL, none, SIGNAL_PROCESS_GROUP) };
        if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// A watch for the end of the process. It needs the reactor of a tokio runtime.
    ///
    /// # Errors
    /// EMFILE.
    pub fn watch(&self) -> io::Result<EndWatch> {
        let Some(fd) = &self.fd else { return Ok(EndWatch { fd: None }) };
        let fd = fd.try_clone()?;
        // SAFETY: the `OwnedFd` is open, belongs to the `AsyncFd` alone, and is not closed or replaced before that one
        // is dropped.
        let fd = unsafe { AsyncFd::register(fd) }?;
        Ok(EndWatch { fd: Some(fd) })
    }

    /// How our child ended, if it has. It stays a zombie, so that its pid, and with it the number of its process
    /// group and session, cannot name anything else until [`reap`].
    ///
    /// # Errors
    /// ECHILD if it is not a child of ours.
    pub fn exit(&self) -> io::Result<Option<Exit>> {
        let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        let (kind, id) = match &self.fd {
            Some(fd) => (libc::P_PIDFD, fd.as_raw_fd()),
            // The pid of a child is its own until it is reaped.
            None => (libc::P_PID, self.pid),
        };
        // SAFETY: both structs are plain data for which all zeroes are valid. The system call (waitid(2), "C library/
        // kernel differences": its fifth argument takes the resource usage, which the libc wrapper leaves out) writes
        // to them and to nothing else, and both outlive it.
        let (result, info, usage) = unsafe {
            let mut info: libc::siginfo_t = std::mem::zeroed();
            let mut usage: libc::rusage = std::mem::zeroed();
            let result = libc::syscall(libc::SYS_waitid, kind, id, &raw mut info, options, &raw mut usage);
            (result, info, usage)
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: waitid filled the SIGCHLD fields, or left the zeroes of no news.
        let (pid, status) = unsafe { (info.si_pid(), info.si_status()) };
        if pid == 0 {
            return Ok(None);
        }
        // wait(2)'s encoding: the code in the second byte, or the signal in the first with 0x80 for a core file.
        let status = ExitStatus::from_raw(match info.si_code {
            libc::CLD_EXITED => (status & 0xff) << 8,
            libc::CLD_DUMPED => status | 0x80,
            _ => status,
        });
        let cpu = duration(usage.ru_utime).zip(duration(usage.ru_stime)).map(|(user, system)| user + system);
        Ok(Some(Exit { status, max_rss_kb: u64::try_from(usage.ru_maxrss).ok(), cpu }))
    }

    /// Whether it has ended, be it a child of ours or not, reaped or not.
    ///
    /// # Errors
    /// What poll(2) said.
    pub fn has_ended(&self) -> io::Result<bool> {
        self.ends_within(Duration::ZERO)
    }

    /// Whether it has by the end of this time, for which the caller blocks.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn ends_within(&self, wait: Duration) -> io::Result<bool> {
        let Some(fd) = &self.fd else { return by_pid::ends_within(self.pid, self.start_time, wait) };
        let mut fds = [PollFd::new(fd, PollFlags::IN)];
        let wait = Timespec::try_from(wait).map_err(io::Error::other)?;
        Ok(poll(&mut fds, Some(&wait))? > 0)
    }

    /// Removes the zombie, if this is a dead child of ours. No other process that has its pid by now can be meant.
    pub fn reap(&self) {
        let Some(fd) = &self.fd else { return by_pid::reap(self.pid, self.start_time) };
        // ECHILD: it is not a child of ours, or is gone already.
        let _ignored =
            rustix::process::waitid(WaitId::PidFd(fd.as_fd()), WaitIdOptions::EXITED | WaitIdOptions::NOHANG);
    }
}

/// Becomes ready when a process ends: a pidfd is readable from then on. `None` without pidfds.
#[derive(Debug)]
pub struct EndWatch {
    fd: Option<AsyncFd<OwnedFd>>,
}

impl EndWatch {
    /// Waits for our child's end.
    ///
    /// # Errors
    /// As [`Handle::exit`].
    pub async fn exit(&self, handle: &Handle) -> io::Result<Exit> {
        let Some(fd) = &self.fd else {
            let mut pause = Pause::begin();
            loop {
                let ended = child::ended();
                match handle.exit()? {
                    Some(exit) => return Ok(exit),
                    None => pause.wait(ended).await,
                }
            }
        };
        loop {
            let mut ready = fd.readable().await?;
            if let Some(exit) = handle.exit()? {
                return Ok(exit);
            }
            ready.clear_ready();
        }
    }

    /// Waits for the end of any process.
    ///
    /// # Errors
    /// What poll(2) said.
    pub async fn ended(&self, handle: &Handle) -> io::Result<()> {
        let Some(fd) = &self.fd else {
            let (pid, start_time, mut pause) = (handle.pid, handle.start_time, Pause::begin());
            loop {
                let ended = child::ended();
                // On a worker: the process may hold up reads about it.
                if proc::run(move || by_pid::has_ended(pid, start_time)).await.flatten()? {
                    return Ok(());
                }
                pause.wait(ended).await;
            }
        };
        loop {
            let mut ready = fd.readable().await?;
            if handle.has_ended()? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }
}

/// The end of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Exit {
    /// Its code or signal.
    pub status: ExitStatus,
    /// Its peak resident set, in KiB, or that of a process that it has waited for, if that was larger: see the resource
    /// usage in wait4(2).
    pub max_rss_kb: Option<u64>,
    /// CPU time of all its threads and of the processes that it has waited for.
    pub cpu: Option<Duration>,
}

fn duration(time: libc::timeval) -> Option<Duration> {
    let (seconds, micros) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_usec).ok()?);
    Some(Duration::from_secs(seconds) + Duration::from_micros(micros))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    /// As on a kernel without pidfds.
    fn without_pidfd(pid: i32) -> Handle {
        Handle { pid, start_time: stat(pid).unwrap().start_time, fd: None }
    }

    #[tokio::test]
    #[expect(clippy::zombie_processes, reason = "the handle reaps them")]
    async fn an_end_is_seen_without_pidfds_and_without_sigchld() {
        for (script, code) in [("exit 7", 7), ("sleep 0.2; exit 9", 9)] {
            let child = Command::new("sh").args(["-c", script]).spawn().unwrap();
            let pid = child.id().cast_signed();
            child::claim(pid);
            let handle = without_pidfd(pid);
            let exit = handle.watch().unwrap().exit(&handle).await.unwrap();
            assert!(exit.status.code() == Some(code) && exit.max_rss_kb.is_some(), "{exit:?}");
            assert!(handle.has_ended().unwrap(), "it is a zombie");
            handle.watch().unwrap().ended(&handle).await.unwrap();
            handle.reap();
            child::unclaim(pid);
            assert_eq!(handle.exit().unwrap_err().raw_os_error(), Some(libc::ECHILD));
        }
    }
}
