//! The gateway's process: its command, its environment, its first signal and its end.

use super::tree::{Orphans, Tree};
use crate::core::{Death, Event, Generation, SpawnFailure};
use crate::platform::process::{self, Exit, Handle, Watch};
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;

/// Names the gateway that a process descends from. It is set for the gateway alone and inherited by all that it starts.
pub const INSTANCE: &str = "OPENCLAW_SUPERVISE_INSTANCE";

/// What tells a gateway that somebody else owns its life: no detached successors, restarts end with exit 0.
const OWNED: [(&str, &str); 2] =
    [("OPENCLAW_SUPERVISOR_MODE", "external"), ("OPENCLAW_SERVICE_REPAIR_POLICY", "external")];

/// What would make a gateway believe that systemd or launchd owns it, or let it talk to our own manager in our name.
/// With `OPENCLAW_SERVICE_MARKER` a starting gateway even kills others on its port.
const HINTS: [&str; 18] = [
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LAUNCH_JOB_LABEL",
    "LAUNCH_JOB_NAME",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "LISTEN_PIDFDID",
    "NOTIFY_SOCKET",
    "OPENCLAW_LAUNCHD_LABEL",
    "OPENCLAW_SERVICE_KIND",
    "OPENCLAW_SERVICE_MARKER",
    "OPENCLAW_SYSTEMD_UNIT",
    "OPENCLAW_WRAPPER",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "XPC_SERVICE_NAME",
];

/// How to start a gateway.
#[derive(Debug, Clone)]
pub struct Launch {
    /// The program, as an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The settings that were given to us, as the variables in which the gateway looks for them.
    pub exports: Vec<(&'static str, OsString)>,
}

impl Launch {
    fn command(&self, instance: &str) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        for hint in HINTS {
            command.env_remove(hint);
        }
        command.envs(OWNED).env(INSTANCE, instance).envs(self.exports.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A gateway process that we started and have not reaped.
#[derive(Debug)]
pub struct Gateway {
    generation: Generation,
    leader: Arc<Handle>,
    tree: Tree,
}

impl Gateway {
    /// Starts one, with our own standard streams, and sends `LeaderExited` to `events` when its process ends.
    ///
    /// # Errors
    /// Says whether the program or the machine was at fault.
    pub fn spawn(
        generation: Generation,
        launch: &Launch,
        orphans: Orphans,
        events: &Sender<Event>,
    ) -> Result<Self, SpawnFailure> {
        let instance = random_id();
        let started = process::spawn_in_own_session(&mut launch.command(&instance));
        let leader = Arc::new(started.map_err(|error| explain(&error, launch))?);
        let watch = leader.watch().map_err(|error| {
            // Without it nobody would learn of its end.
            let _gone = leader.kill();
            process::reap(leader.pid());
            SpawnFailure::Resources(format!("cannot watch the gateway: {error}; it will be tried again"))
        })?;
        let tree = Tree::new(&leader, format!("{INSTANCE}={instance}"), orphans);
        tokio::spawn(report_exit(generation, Arc::clone(&leader), watch, events.clone()));
        Ok(Self { generation, leader, tree })
    }

    /// Its number.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The process id of its leader.
    #[must_use]
    pub fn pid(&self) -> i32 {
        self.leader.pid()
    }

    /// SIGTERM to the leader alone, after a look at who belongs to it.
    ///
    /// # Errors
    /// What the kernel said; a leader that has ended already is no error.
    pub fn terminate(&mut self) -> io::Result<()> {
        self.tree.remember();
        match self.leader.terminate() {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
            _ => Ok(()),
        }
    }

    /// Ends the whole tree and sends `TreeGone`. `elapsed` tells how long that has been going on.
    pub fn kill_tree(&self, elapsed: impl Fn() -> Duration + Send + 'static, events: &Sender<Event>) {
        let (generation, tree, events) = (self.generation, self.tree.clone(), events.clone());
        tokio::spawn(async move {
            let end = tree.kill(elapsed).await;
            let _closed = events.send(Event::TreeGone { generation, end }).await;
        });
    }

    /// Lets the kernel forget the leader: from here on its pid may name another process.
    pub fn release(self) {
        process::reap(self.leader.pid());
    }
}

async fn report_exit(generation: Generation, leader: Arc<Handle>, watch: Watch, events: Sender<Event>) {
    let (death, max_rss_kb) = match watch.exit(&leader).await {
        Ok(Exit { status, max_rss_kb }) => (death(status), max_rss_kb),
        Err(error) => {
            tracing::error!(pid = leader.pid(), %error, "cannot learn how the gateway ended");
            (Death::Unknown, None)
        }
    };
    // A closed channel means that the loop has ended and nobody waits for the news.
    let _closed = events.send(Event::LeaderExited { generation, death, max_rss_kb }).await;
}

fn death(status: ExitStatus) -> Death {
    match (status.code(), status.signal()) {
        (Some(code), _) => Death::Code(code),
        (None, Some(number)) => Death::Signal { number, core_dumped: status.core_dumped() },
        (None, None) => Death::Unknown,
    }
}

fn explain(error: &io::Error, launch: &Launch) -> SpawnFailure {
    let program = launch.program.display();
    match error.raw_os_error() {
        Some(libc::EAGAIN | libc::ENOMEM | libc::EMFILE | libc::ENFILE | libc::ETXTBSY) => {
            SpawnFailure::Resources(format!("cannot start {program} now: {error}; it will be tried again"))
        }
        _ => SpawnFailure::Program(format!(
            "cannot execute {program}: {error}; check the path, its permissions and the interpreter in its first line"
        )),
    }
}

/// 128 bits that no other gateway has: `RandomState` is seeded by the system.
fn random_id() -> String {
    let word = || RandomState::new().build_hasher().finish();
    format!("{:016x}{:016x}", word(), word())
}
