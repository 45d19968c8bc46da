//! The gateway's process: its command, its environment, its first signal and its end.

use super::adopt::Found;
use super::death::{Shortage, Touch, Vigil};
use super::spawn::{self, Failure, Kind, Started};
use super::tree::{Orphans, Tree};
use crate::core::{Event, Generation, Remains, SpawnFailure, Usage};
use crate::platform::cgroup::Leaf;
use crate::platform::mark::Mark;
use crate::platform::process::{self, Handle};
use crate::platform::strike;
use crate::platform::usage;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

/// Names the gateway that a process descends from. It is set for the gateway alone and inherited by all that it starts.
pub const INSTANCE: &str = "OPENCLAW_SUPERVISE_INSTANCE";

/// How long to wait before another look at a process that cannot be watched now.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// What tells a gateway that somebody else owns its life: no detached successors, restarts end with exit 0.
pub(super) const OWNED: [(&str, &str); 2] =
    [("OPENCLAW_SUPERVISOR_MODE", "external"), ("OPENCLAW_SERVICE_REPAIR_POLICY", "external")];

/// How long after the death of a lone leader those are looked for that bear its id alone. A respawn takes 2 to 10 ms.
const SWEEP_AFTER: Duration = Duration::from_millis(100);

/// What would make a gateway believe that systemd or launchd owns it, or let it talk to our own manager in our name.
/// With `OPENCLAW_SERVICE_MARKER` a starting gateway even kills others on its port.
const HINTS: [&str; 19] = [
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
    super::hooks::HOOK,
    "OPENCLAW_SYSTEMD_UNIT",
    "OPENCLAW_WRAPPER",
    "SYSTEMD_EXEC_PID",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "XPC_SERVICE_NAME",
];

/// Keeps a gateway from leaving a detached successor after an update: it restarts in place then.
const NO_RESPAWN: &str = "OPENCLAW_NO_RESPAWN";

/// The gateway that is to be.
#[derive(Debug, Clone, Copy)]
pub struct Birth<'a> {
    /// Its number.
    pub generation: Generation,
    /// Its instance id.
    pub instance: &'a str,
    /// Whether it knows no handoff and must be kept from leaving a successor.
    pub no_respawn: bool,
}

/// How to start a gateway.
#[derive(Debug, Clone)]
pub struct Launch {
    /// What [`key_of`] makes of our lease key. The instance ids of all our gateways begin with it, which proves of each
    /// that a supervisor of this configuration started it.
    pub key: String,
    /// The program, as an absolute path.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// The gateway's configuration file.
    pub config: PathBuf,
    /// The settings that were given to us, as the variables in which the gateway looks for them.
    pub exports: Vec<(&'static str, OsString)>,
}

impl Launch {
    /// The command as text, to be recorded with a gateway and compared with that of a later launch.
    #[must_use]
    pub fn text(&self) -> String {
        let words = std::iter::once(self.program.as_os_str()).chain(self.arguments.iter().map(OsString::as_os_str));
        words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    fn command(&self, birth: Birth<'_>) -> Command {
        let mut command = Command::new(&self.program);
        command.args(&self.arguments);
        scrub(&mut command);
        command.envs(OWNED).env(INSTANCE, birth.instance).envs(self.exports.iter().map(|(name, value)| (name, value)));
        if birth.no_respawn {
            command.env(NO_RESPAWN, "1");
        }
        command
    }
}

/// Keeps from a child what speaks of us alone.
pub(super) fn scrub(command: &mut Command) {
    for hint in HINTS {
        command.env_remove(hint);
    }
}

/// The process that a gateway is.
#[derive(Debug)]
enum Leader {
    /// We started it and have not reaped it.
    Child(Arc<Handle>),
    /// Another supervisor started it.
    Adopted(Arc<Handle>),
    /// It has ended, and only others of its tree may be left.
    Gone,
}

impl Leader {
    fn handle(&self) -> Option<&Arc<Handle>> {
        match self {
            Self::Child(handle) | Self::Adopted(handle) => Some(handle),
            Self::Gone => None,
        }
    }
}

/// When processes that bear the instance id outside the leader's family are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Before `TreeGone`: nobody may be there to look for them later.
    Now,
    /// If nothing is left below us, after `TreeGone`: the next gateway need not wait for a look at every process.
    Later,
}

/// A gateway that we own: started by us and not reaped yet, or adopted.
#[derive(Debug)]
pub struct Gateway {
    generation: Generation,
    instance: String,
    leader: Leader,
    tree: Tree,
    leaf: Option<Arc<Leaf>>,
    touch: Touch,
    shortage: Shortage,
}

impl Gateway {
    /// Starts one, with our own standard streams, and sends `LeaderExited` to `events` when its process ends. `instance`
    /// comes from [`new_instance`].
    ///
    /// # Errors
    /// Says whether the program or the machine was at fault.
    pub fn spawn(
        birth: Birth<'_>,
        launch: &Launch,
        orphans: Orphans,
        events: &Sender<Event>,
    ) -> Result<Self, SpawnFailure> {
        let Birth { generation, instance, .. } = birth;
        let started = spawn::start(&mut launch.command(birth), Kind::Gateway, instance);
        let started = started.map_err(|failure| match failure {
            Failure::Spawn(error) => explain(&error, launch),
            Failure::Watch(error) => {
                SpawnFailure::Resources(format!("cannot watch the gateway: {error}; it will be tried again"))
            }
        })?;
        spawn::warn_if_blind(&started, orphans);
        let Started { leader, watch, leaf, mark } = started;
        let shortage = Shortage::of(leaf.clone());
        let (tree, touch) = (Tree::new(&leader, entry(instance), orphans).with(leaf.clone(), mark), Touch::default());
        let vigil =
            Vigil { generation, leader: Arc::clone(&leader), watch, touch: touch.clone(), shortage: shortage.clone() };
        tokio::spawn(vigil.report_exit(events.clone()));
        Ok(Self {
            generation,
            instance: instance.to_owned(),
            leader: Leader::Child(leader),
            tree,
            leaf,
            touch,
            shortage,
        })
    }

    /// Takes hold of what was found of a gateway that another supervisor started. If its leader lives, `LeaderExited`
    /// goes to `events` when that one ends, be it before this call.
    ///
    /// # Errors
    /// EMFILE. Nothing is held then, and it can be looked for again.
    pub fn adopt(generation: Generation, found: Found, events: &Sender<Event>) -> io::Result<Self> {
        let Found { instance, leader, remains, members } = found;
        let leaf = Leaf::find(&Kind::Gateway.leaf_name(&instance), leader.as_ref().map(Handle::pid)).map(Arc::new);
        let (touch, shortage) = (Touch::default(), Shortage::of(leaf.clone()));
        // Under another supervisor's limits it has another one.
        let is_its_own = |mark: &Mark| leader.as_ref().is_some_and(|leader| mark.is_on(leader.pid()));
        let mark = Kind::Gateway.mark_of(&instance).filter(is_its_own);
        let (leader, tree) = match leader {
            Some(leader) => {
                let leader = Arc::new(leader);
                let tree = if strike::is_child(leader.pid()) {
                    // A successor that a gateway of ours has left: the orphans of both come to us.
                    Tree::inherited_by(&leader, entry(&instance), &members)
                } else {
                    Tree::adopted(&leader, entry(&instance), &members)
                };
                let watch = leader.watch()?;
                // It is our child all the same where we are the reaper of what its supervisor left.
                process::claim(leader.pid());
                let (touch, shortage) = (touch.clone(), shortage.clone());
                let vigil = Vigil { generation, leader: Arc::clone(&leader), watch, touch, shortage };
                tokio::spawn(vigil.report_departure(events.clone()));
                (Leader::Adopted(leader), tree)
            }
            None => (Leader::Gone, Tree::orphaned(former_leader(&remains), entry(&instance), &members)),
        };
        let mut tree = tree.with(leaf.clone(), mark);
        tree.remember();
        Ok(Self { generation, instance, leader, tree, leaf, touch, shortage })
    }

    /// Its number.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The id that its processes bear in their environment.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The process id of its leader; none where that one was gone before we came.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.leader.handle().map(|leader| leader.pid())
    }

    /// The start time of its leader, which names it together with the pid.
    #[must_use]
    pub fn start_time(&self) -> Option<u64> {
        self.leader.handle().map(|leader| leader.start_time())
    }

    /// The pids and start times of its processes now, for the record. It looks at them alone, not at all processes.
    pub fn snapshot(&mut self) -> Vec<(i32, u64)> {
        self.tree.snapshot()
    }

    /// Its process, if that is not known to be gone.
    pub(super) fn leader(&self) -> Option<Arc<Handle>> {
        self.leader.handle().cloned()
    }

    /// All that belongs to it, to be looked at from elsewhere.
    pub(super) fn tree(&self) -> Tree {
        self.tree.clone()
    }

    /// SIGTERM to the leader alone. All who belong to it are looked at before, and those of them that job control has
    /// stopped are resumed: they have to hear what it tells them. Who shows nothing but its id is looked at afterwards: to
    /// read that may take its time.
    ///
    /// # Errors
    /// What the kernel said; a leader that has ended already is no error.
    pub fn terminate(&mut self) -> io::Result<()> {
        self.touch.leave(Touch::TERMINATED);
        let mut stopped = self.tree.remember_soon();
        let told = self.leader.handle().map_or(Ok(()), |leader| leader.terminate());
        stopped.extend(self.tree.remember());
        stopped.sort_unstable();
        stopped.dedup();
        self.tree.resume(&stopped);
        match told {
            Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
            _ => Ok(()),
        }
    }

    /// What it uses now; of its whole tree if `tree` is wanted. Nothing of one that has ended.
    #[must_use]
    pub fn measure(&self, tree: bool) -> Usage {
        let usage = self.leader.handle().and_then(|leader| {
            let usage = usage::of(leader.pid()).ok()?;
            // Asked for afterwards: if it lives, its pid was its own all the while.
            let is_its_own = usage.start_time == leader.start_time() && matches!(leader.has_ended(), Ok(false));
            is_its_own.then_some(usage)
        });
        if usage.is_some() {
            self.shortage.look();
        }
        Usage {
            cpu: usage.map(|usage| usage.cpu),
            rss_kb: usage.map(|usage| usage.rss_kb),
            tree_rss_kb: tree.then(|| self.tree.rss_kb().ok()).flatten(),
        }
    }

    /// Whether it was told to end. Who ends unasked is followed by another soon.
    #[must_use]
    pub fn was_terminated(&self) -> bool {
        !self.touch.is(Touch::NONE)
    }

    /// Ends the whole tree and sends `TreeGone`, and `StraysKilled` if others of it are found later. `elapsed` tells how
    /// long that has been going on. What is returned ends when nobody is looked for any more.
    pub fn kill_tree(
        &self,
        sweep: Sweep,
        elapsed: impl Fn() -> Duration + Send + Sync + 'static,
        events: &Sender<Event>,
    ) -> JoinHandle<()> {
        let (generation, tree, events) = (self.generation, self.tree.clone(), events.clone());
        self.touch.leave(Touch::KILLED);
        tokio::spawn(async move {
            let at_once = if sweep == Sweep::Later { tree.end_at_once(&elapsed) } else { None };
            let Some(end) = at_once else {
                let end = tree.kill(elapsed).await;
                let _closed = events.send(Event::TreeGone { generation, end }).await;
                return;
            };
            // A closed channel means that the loop has ended and nobody waits for the news.
            let _closed = events.send(Event::TreeGone { generation, end }).await;
            // On the same thread the next gateway is about to be started, and every look would come in between.
            tokio::time::sleep(SWEEP_AFTER).await;
            let end = tree.sweep(elapsed).await;
            if end.members.max(end.survivors) > 0 {
                let _closed = events.send(Event::StraysKilled { generation, end }).await;
            }
        })
    }

    /// Lets the kernel forget the leader: from here on its pid may name another process. Nothing but a dead child of
    /// ours is reaped.
    pub fn release(self) {
        if let Some(leader) = self.leader.handle() {
            process::unclaim(leader.pid());
            leader.reap();
        }
        spawn::retire(self.leaf.as_ref());
    }
}

fn former_leader(remains: &Remains) -> Option<i32> {
    match *remains {
        Remains::Leader { pid, .. } => Some(pid),
        Remains::Orphans { pid } | Remains::Nothing { pid } => pid,
    }
}

/// Ends a watch when it is dropped.
#[must_use = "dropping it ends the watch"]
#[derive(Debug)]
pub struct Departure(JoinHandle<()>);

impl Drop for Departure {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Sends `Departed` when this process, whosever it is, has ended, or at once if it is not there. It sends no signal.
pub fn watch_departure(pid: i32, events: &Sender<Event>) -> Departure {
    let events = events.clone();
    Departure(tokio::spawn(async move {
        departure(pid).await;
        // A closed channel means that the loop has ended and nobody waits for the news.
        let _closed = events.send(Event::Departed { pid }).await;
    }))
}

async fn departure(pid: i32) {
    loop {
        match Handle::open(pid) {
            Ok(handle) => match handle.watch() {
                Ok(watch) if watch.ended(&handle).await.is_ok() => return,
                _ => {}
            },
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) || error.kind() == io::ErrorKind::InvalidInput => {
                return;
            }
            Err(_) => {}
        }
        // It is there, and hidden from us, or we are out of descriptors.
        tokio::time::sleep(WATCH_RETRY).await;
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

/// The entry in the environment of everything that a gateway starts.
fn entry(instance: &str) -> String {
    format!("{INSTANCE}={instance}")
}

/// Removes what supervisors of this configuration that were killed have left of empty control groups.
pub fn clear_leaves(launch: &Launch) {
    Kind::Gateway.clear_leaves(&launch.key);
}

/// A new gateway's instance id: the key of its configuration, and digits that no other gateway has.
#[must_use]
pub fn new_instance(key: &str) -> String {
    spawn::new_id(key)
}

/// The key of a configuration: FNV-1a, 64 bits wide, of its lease key. It has to be the same in every release.
#[must_use]
pub fn key_of(lease_key: &str) -> String {
    const OFFSET_BASIS: u64 = 0xcbf2_9ce4_8422_2325;
    const PRIME: u64 = 0x0100_0000_01b3;
    let hash = lease_key.bytes().fold(OFFSET_BASIS, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(PRIME));
    format!("{hash:016x}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_published_hash() {
        for (text, hash) in [("", "cbf29ce484222325"), ("a", "af63dc4c8601ec8c"), ("foobar", "85944171f73967e8")] {
            assert_eq!(key_of(text), hash, "{text}");
        }
    }
}
