//! Signals, their senders and the requests that they stand for.
//!
//! None is forwarded to the gateway: SIGUSR1 and SIGUSR2 swapped their meaning between OpenClaw releases, and each kills the
//! gateway or opens a debugger in some.

use crate::core::{Request, Requester};
use crate::platform::disposition;
use crate::platform::proc;
use crate::platform::standard_streams::has_terminal;
use futures_util::StreamExt;
use nix::sys::signal::SigSet;
use signal_hook::consts::{
    SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1, SIGUSR2, SIGXFSZ,
};
use signal_hook::iterator::exfiltrator::origin::{Origin, WithOrigin};
use signal_hook::low_level::siginfo::Cause;
use signal_hook_tokio::SignalsInfo;
use std::io;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// SIGCHLD: there may be a child to reap.
    Child,
    /// SIGTSTP: Ctrl-Z in our terminal.
    Suspend,
    /// A keyboard signal of a terminal for which a shell had us ignore it.
    Ignored,
    Operator {
        name: &'static str,
        request: Request,
        by: Requester,
    },
}

const HANDLED: [i32; 8] = [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGUSR1, SIGUSR2];

/// Blocked as long as we supervise: a stopped or dead supervisor leaves its gateway alone. A write to a terminal with `stty
/// tostop` from the background succeeds while SIGTTOU is blocked, see `termios(3)`, a read fails with EIO, and a write beyond
/// `RLIMIT_FSIZE` with EFBIG, see `setrlimit(2)`. What we start has none of them blocked.
const KEPT_AWAY: [i32; 3] = [SIGTTIN, SIGTTOU, SIGXFSZ];

/// Blocks every signal that we handle or keep away. To be called first in `main`: for PID 1 the kernel discards a signal
/// without a handler, see `pid_namespaces(7)`, but keeps a blocked one pending.
pub fn hold() {
    // Fails only for an invalid `how`.
    let _infallible = set(&HANDLED).thread_block();
    let _infallible = set(&KEPT_AWAY).thread_block();
}

/// Undoes [`hold`] for a command that keeps the default actions.
pub fn release() {
    let _infallible = set(&HANDLED).thread_unblock();
    let _infallible = set(&KEPT_AWAY).thread_unblock();
}

/// Whether a SIGTERM or SIGINT waits until [`hold`] is undone. Not known on macOS.
#[must_use]
pub fn is_stop_pending() -> bool {
    let us = std::process::id().cast_signed();
    [SIGTERM, SIGINT].into_iter().any(|signal| proc::has_pending(us, signal))
}

fn set(numbers: &[i32]) -> SigSet {
    numbers.iter().filter_map(|number| nix::sys::signal::Signal::try_from(*number).ok()).collect()
}

/// The stream of handled signals.
pub struct Signals {
    stream: SignalsInfo<WithOrigin>,
    hangup: Request,
    /// Those of the keyboard that were ignored at the start.
    ignored: Vec<i32>,
}

impl Signals {
    /// Installs the handlers and unblocks the signals. To be called before the first spawn, since a child inherits the mask.
    ///
    /// # Errors
    /// EMFILE.
    pub fn install() -> io::Result<Self> {
        // nohup(1) ignores SIGHUP, and a shell without job control the other two for a command in the background. What the
        // terminal sends then is for others; what a process sends to us is a request all the same. A shell that exits
        // sends SIGHUP like a process, so that one stays ignored.
        let all: Vec<i32> = HANDLED.into_iter().filter(|&it| it != SIGHUP || !disposition::is_ignored(it)).collect();
        let ignored = [SIGINT, SIGQUIT].into_iter().filter(|signal| disposition::is_ignored(*signal)).collect();
        let stream = SignalsInfo::with_exfiltrator(all, WithOrigin::default())?;
        let _infallible = set(&HANDLED).thread_unblock();
        Ok(Self { stream, hangup: hangup_request(), ignored })
    }

    /// Cancel-safe: a signal that was not returned stays pending.
    ///
    /// signal-hook-tokio panics if the read of its pipe fails. It cannot: that is a non-blocking pair of Unix sockets of
    /// which we hold both ends, and of its errors in recv(2) EAGAIN alone is left, which tokio waits for.
    pub async fn next(&mut self) -> Option<Signal> {
        let origin = self.stream.next().await?;
        let is_ours = !self.ignored.contains(&origin.signal) || matches!(origin.cause, Cause::Sent(_));
        Some(if is_ours { interpret(&origin, self.hangup) } else { Signal::Ignored })
    }
}

fn interpret(origin: &Origin, hangup: Request) -> Signal {
    let (name, request) = match origin.signal {
        SIGTERM => ("SIGTERM", Request::Stop),
        SIGINT => ("SIGINT", Request::Stop),
        SIGHUP => ("SIGHUP", hangup),
        SIGUSR1 => ("SIGUSR1", Request::Restart),
        SIGUSR2 => ("SIGUSR2", Request::Restart),
        SIGQUIT => ("SIGQUIT", Request::Detach),
        SIGTSTP => return Signal::Suspend,
        _ => return Signal::Child,
    };
    Signal::Operator { name, request, by: sender(name, origin) }
}

fn sender(name: &'static str, origin: &Origin) -> Requester {
    // Pid 0 stands for the kernel, or for a sender outside our pid namespace.
    let process = origin.process.filter(|process| process.pid > 0);
    Requester {
        how: name.to_owned(),
        pid: process.map(|process| process.pid),
        uid: process.map(|process| process.uid),
        // The read of it may block.
        command: None,
        inside: None,
    }
}

/// With a controlling terminal SIGHUP means that the terminal was closed, so it stops; without one it asks for a restart. To
/// be determined at the start: the kernel detaches the terminal before it sends the signal.
fn hangup_request() -> Request {
    if has_terminal() { Request::Stop } else { Request::Restart }
}
