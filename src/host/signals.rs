//! Signals, their senders and the requests that they stand for.
//!
//! None is forwarded to the gateway: SIGUSR1 and SIGUSR2 swapped their meaning between OpenClaw releases, and each kills the
//! gateway or opens a debugger in some.

use crate::core::{Request, Requester};
use crate::platform::{disposition, proc};
use futures_util::StreamExt;
use nix::sys::signal::SigSet;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::exfiltrator::origin::{Origin, WithOrigin};
use signal_hook_tokio::SignalsInfo;
use std::fs::File;
use std::io;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// SIGCHLD: there may be a child to reap.
    Child,
    Operator {
        name: &'static str,
        request: Request,
        by: Requester,
    },
}

const HANDLED: [i32; 7] = [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Blocks every handled signal until [`Signals::install`]. To be called first in `main`: for PID 1 the kernel discards a
/// signal without a handler, see `pid_namespaces(7)`, but keeps a blocked one pending.
pub fn hold() {
    // Fails only for an invalid `how`.
    let _infallible = handled().thread_block();
}

/// Undoes [`hold`] for a command that keeps the default actions.
pub fn release() {
    let _infallible = handled().thread_unblock();
}

fn handled() -> SigSet {
    HANDLED.into_iter().filter_map(|number| nix::sys::signal::Signal::try_from(number).ok()).collect()
}

/// The stream of handled signals.
pub struct Signals {
    stream: SignalsInfo<WithOrigin>,
    hangup: Request,
}

impl Signals {
    /// Installs the handlers and unblocks the signals. To be called before the first spawn, since a child inherits the mask.
    ///
    /// # Errors
    /// EMFILE.
    pub fn install() -> io::Result<Self> {
        // nohup(1) ignores SIGHUP, and a shell without job control the other two for a command in the background. What is
        // ignored stays so in the gateway, too: execve(2) resets handlers alone.
        let is_left = |signal: &i32| [SIGHUP, SIGINT, SIGQUIT].contains(signal) && disposition::is_ignored(*signal);
        let all: Vec<i32> = HANDLED.into_iter().filter(|signal| !is_left(signal)).collect();
        let stream = SignalsInfo::with_exfiltrator(all, WithOrigin::default())?;
        release();
        Ok(Self { stream, hangup: hangup_request() })
    }

    /// Cancel-safe: a signal that was not returned stays pending.
    pub async fn next(&mut self) -> Option<Signal> {
        self.stream.next().await.map(|origin| interpret(&origin, self.hangup))
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
        command: process.and_then(|process| proc::command_of(process.pid)),
    }
}

/// With a controlling terminal SIGHUP means that the terminal was closed, so it stops; without one it asks for a restart. To
/// be determined at the start: the kernel detaches the terminal before it sends the signal.
fn hangup_request() -> Request {
    // Fails with ENXIO without a controlling terminal, see tty(4).
    if File::open("/dev/tty").is_ok() { Request::Stop } else { Request::Restart }
}
