//! Signals, who sent them, and what they ask for.
//!
//! None is ever forwarded to the gateway: SIGUSR1 and SIGUSR2 swapped their meaning between OpenClaw releases, and
//! each kills or opens a debugger on some.

use crate::core::{Request, Requester};
use crate::platform::{disposition, proc};
use futures_util::StreamExt;
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
        /// What it asks for; nothing where it cannot be granted.
        request: Option<Request>,
        /// Who sent it.
        by: Requester,
    },
}

/// The stream of signals that reach this process.
pub struct Signals(SignalsInfo<WithOrigin>);

impl Signals {
    /// Installs the handlers. To be called before the first spawn, and as PID 1 before anything else: there the
    /// default disposition is to ignore, see `pid_namespaces(7)`.
    ///
    /// # Errors
    /// EMFILE.
    pub fn install() -> io::Result<Self> {
        let mut all = vec![SIGCHLD, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2];
        // Who starts us under nohup(1) does not want to hear of the terminal again.
        if !disposition::is_ignored(SIGHUP) {
            all.push(SIGHUP);
        }
        Ok(Self(SignalsInfo::with_exfiltrator(all, WithOrigin::default())?))
    }

    /// The next one. Cancel-safe: a signal that was not handed out stays in its slot.
    pub async fn next(&mut self) -> Option<Signal> {
        self.0.next().await.map(|origin| understand(&origin))
    }
}

fn understand(origin: &Origin) -> Signal {
    let (name, request) = match origin.signal {
        SIGTERM => ("SIGTERM", Some(Request::Stop)),
        SIGINT => ("SIGINT", Some(Request::Stop)),
        // The terminal went away, and with it whoever could have asked for a restart.
        SIGHUP if has_terminal() => ("SIGHUP", Some(Request::Stop)),
        SIGHUP => ("SIGHUP", Some(Request::Restart)),
        SIGUSR1 => ("SIGUSR1", Some(Request::Restart)),
        SIGUSR2 => ("SIGUSR2", Some(Request::Restart)),
        // When PID 1 ends, the kernel kills the whole pid namespace: nothing could be left behind.
        SIGQUIT if std::process::id() == 1 => ("SIGQUIT", None),
        SIGQUIT => ("SIGQUIT", Some(Request::Detach)),
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

/// Opening `/dev/tty` fails with ENXIO for a process without a controlling terminal, see tty(4).
fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}
