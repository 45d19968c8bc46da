//! The init of a container, as small ones are: it starts one command, hands its signals on, reaps whatever ends, and exits
//! as the command does.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::io;
use std::process::{Command, ExitCode};

const FORWARDED: [Signal; 6] =
    [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP, Signal::SIGUSR1, Signal::SIGUSR2, Signal::SIGQUIT];

pub(crate) fn live(words: &[String]) -> io::Result<ExitCode> {
    let Some((program, rest)) = words.split_first() else { return Ok(ExitCode::from(2)) };
    // Started before anything is blocked: a mask is inherited.
    let child = Command::new(program).args(rest).spawn()?;
    let child = Pid::from_raw(i32::try_from(child.id()).map_err(io::Error::other)?);
    let mut heard = SigSet::empty();
    heard.extend(FORWARDED.into_iter().chain([Signal::SIGCHLD]));
    heard.thread_block()?;
    loop {
        // Before the first wait as well: it may have ended already.
        if let Some(code) = reap(child)? {
            return Ok(ExitCode::from(code));
        }
        match heard.wait()? {
            Signal::SIGCHLD => {}
            signal => kill(child, signal)?,
        }
    }
}

/// Reaps all that have ended. The exit code of the command, once it is among them.
fn reap(child: Pid) -> io::Result<Option<u8>> {
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == child => return Ok(u8::try_from(code).ok()),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == child => {
                return Ok(u8::try_from(128 + signal as i32).ok());
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(None),
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}
