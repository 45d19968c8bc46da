//! Signals, who sent them, and what they ask for.
//!
//! None is ever forwarded to the gateway: SIGUSR1 and SIGUSR2 swapped their meaning between OpenClaw releases, and
//! each kills or opens a debugger on some.

use crate::core::{Request, Requester};
use crate::platform::{disposition, proc};
use futures_util::StreamExt;
use nix::sys::signal::SigSet;
use signal_hook::consts::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::exfiltrator::origin::{Origin, WithOrigin};
use signal_hook_tokio::SignalsInfo;
use std::fs::File;
use std::io;

/// One signal, understood.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Signal {
    /// A child changed its state: there may be something to reap.
    Child,
    /// Somebody wants something.
    Operator {
        /// Its name.
        name: &'static str,
        /// What it asks for.
        request: Request,
        /// Who sent it.
        by: Requester,
    },
}

/// What we answer to.
const HANDLED: [i32; 7] = [SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];

/// Holds back every signal that we will answer to until [`Signals::install`] can take it in. To be called before
/// anything else: the kernel drops a signal without a handler that reaches PID 1, see `pid_namespaces(7)`, but never a
/// blocked one.
pub fn hold() {
    // It fails only for an argument that this is not.
    let _infallible = handled().thread_block();
}

/// Lets in what [`hold`] kept back, for a command that is ended by signals as any other program is.
pub fn release() {
    let _infallible = handled().thread_unblock();
}

fn handled() -> SigSet {
    HANDLED.into_iter().filter_map(|number| nix::sys::signal::Signal::try_from(number).ok()).collect()
}

/// The stream of signals that reach this process.
pub struct Signals {
    stream: SignalsInfo<WithOrigin>,
    hangup: Request,
}

impl Signals {
    /// Installs the handlers, then lets in what [`hold`] kept back. To be called before the first spawn: a child
    /// inherits the mask.
    ///
    /// # Errors
    /// EMFILE.
    pub fn install() -> io::Result<Self> {
        let mut all = HANDLED.to_vec();
        // Who starts us under nohup(1) does not want to hear of the terminal again.
        if disposition::is_ignored(SIGHUP) {
            all.retain(|signal| *signal != SIGHUP);
        }
        let stream = SignalsInfo::with_exfiltrator(all, WithOrigin::default())?;
        release();
        Ok(Self { stream, hangup: on_hangup() })
    }

    /// The next one. Cancel-safe: a signal that was not handed out stays in its slot.
    pub async fn next(&mut self) -> Option<Signal> {
        self.stream.next().await.map(|origin| understand(&origin, self.hangup))
    }
}

fn understand(origin: &Origin, hangup: Request) -> Signal {
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

/// What SIGHUP means. With a controlling terminal it says that this one went away, and with it whoever could have asked
/// for a restart. To be found out at the start: the kernel takes the terminal from us before it sends the signal.
fn on_hangup() -> Request {
    // It fails with ENXIO for a process without a controlling terminal, see tty(4).
    if File::open("/dev/tty").is_ok() { Request::Stop } else { Request::Restart }
}
