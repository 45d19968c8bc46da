//! A process by its pid and start time, for a kernel without pidfds: see [`super::system_calls`].
//!
//! The start time is compared right before each signal. If the process ends between the comparison and kill(2) and its
//! pid is reused at once, the signal hits the new process; the kernel allocates pids in turn, so this takes a whole round
//! of them within microseconds. A child's pid is its own until we reap it.

use super::proc::stat;
use crate::platform::child::{self, positive};
use crate::platform::kill;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, test_kill_process};
use std::io;
use std::time::Duration;
use tokio::sync::futures::Notified;
use tokio::time::timeout;

/// Between two looks at a process: they double from the first to the second one.
const PAUSES: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(250)];

/// The start time of the process that has this pid now; 0 of a child that `/proc` does not show.
///
/// # Errors
/// ESRCH if there is none; EACCES or EPERM if it is hidden; EMFILE and the like.
pub(super) fn start_time(pid: Pid) -> io::Result<u64> {
    let number = pid.as_raw_nonzero().get();
    match stat(number) {
        Err(error) if is_unseen(&error) && kill::is_child(number) => Ok(0),
        Err(error) if is_unseen(&error) => {
            test_kill_process(pid)?;
            Err(Errno::ACCESS.into())
        }
        stat => Ok(stat?.start_time),
    }
}

/// # Errors
/// ESRCH if it is gone; EPERM.
pub(super) fn send(pid: i32, start_time: u64, signal: Signal) -> io::Result<()> {
    let name = positive(pid).ok_or(io::ErrorKind::InvalidInput)?;
    let is_there = match stat(pid) {
        Ok(process) => process.start_time == start_time,
        // Hidden, as with hidepid: see proc(5).
        Err(error) if is_unseen(&error) => kill::is_child(pid),
        Err(error) => return Err(error),
    };
    if is_there { Ok(rustix::process::kill_process(name, signal)?) } else { Err(Errno::SRCH.into()) }
}

/// Whether it has ended, reaped or not.
///
/// # Errors
/// EMFILE and the like; `TimedOut` if the read about it is stuck.
pub(super) fn has_ended(pid: i32, start_time: u64) -> io::Result<bool> {
    match stat(pid) {
        Ok(process) => Ok(process.is_dead() || process.start_time != start_time),
        Err(error) if is_unseen(&error) => {
            let Some(name) = positive(pid) else { return Ok(true) };
            kill::has_ended(name).or_else(|_| Ok(test_kill_process(name) == Err(Errno::SRCH)))
        }
        Err(error) => Err(error),
    }
}

/// Whether it has by the end of this time, for which the caller blocks.
///
/// # Errors
/// As [`has_ended`].
#[expect(clippy::disallowed_methods, reason = "nothing else waits for a process without an event loop")]
pub(super) fn ends_within(pid: i32, start_time: u64, wait: Duration) -> io::Result<bool> {
    let mut waited = Duration::ZERO;
    while !has_ended(pid, start_time)? {
        if waited >= wait {
            return Ok(false);
        }
        std::thread::sleep(PAUSES[0]);
        waited += PAUSES[0];
    }
    Ok(true)
}

/// Removes the zombie, if it is a dead child of ours.
pub(super) fn reap(pid: i32, start_time: u64) {
    if stat(pid).map_or(true, |process| process.start_time == start_time) {
        child::reap(pid);
    }
}

/// How long to wait until the next look at a process.
pub(super) struct Pause(Duration);

impl Pause {
    pub(super) fn begin() -> Self {
        Self(PAUSES[0])
    }

    /// Until the SIGCHLD for which `ended` was made before the last look. What has no SIGCHLD is found by a look now and then.
    pub(super) async fn wait(&mut self, ended: Notified<'_>) {
        let _either = timeout(self.0, ended).await;
        self.0 = PAUSES[1].min(self.0 * 2);
    }
}

/// Gone, or not shown to us.
fn is_unseen(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn sleeper() -> (Child, i32, u64) {
        let child = Command::new("sleep").arg("60").spawn().unwrap();
        let pid = child.id().cast_signed();
        (child, pid, start_time(positive(pid).unwrap()).unwrap())
    }

    #[test]
    fn no_signal_reaches_a_process_with_another_start_time() {
        let (mut child, pid, begun) = sleeper();
        for other in [begun - 1, begun + 1, 0] {
            assert_eq!(send(pid, other, Signal::KILL).unwrap_err().raw_os_error(), Some(libc::ESRCH));
            assert!(has_ended(pid, other).unwrap(), "the process that had this pid is gone");
            reap(pid, other);
        }
        assert!(child.try_wait().unwrap().is_none() && !has_ended(pid, begun).unwrap());
        assert!(!ends_within(pid, begun, Duration::from_millis(5)).unwrap());
        send(pid, begun, Signal::KILL).unwrap();
        assert!(ends_within(pid, begun, Duration::from_secs(20)).unwrap());
        reap(pid, begun + 1);
        assert!(kill::is_child(pid), "a zombie of another start time is not ours to reap");
        reap(pid, begun);
        assert!(!kill::is_child(pid) && has_ended(pid, begun).unwrap());
    }

    #[test]
    fn a_pid_that_names_none_is_told_from_one_that_is_hidden() {
        assert_eq!(start_time(Pid::from_raw(i32::MAX).unwrap()).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        for pid in [0, -1] {
            assert!(send(pid, 0, Signal::KILL).is_err() && has_ended(pid, 0).unwrap());
        }
    }
}
