//! The gateway's process: its command, its environment, its start, its signals and its exit.
//!
//! Nothing here blocks: what reads `/proc` about other processes runs on a worker ([`proc::run`]).

use super::adopt::Found;
use super::exit_watch::{ExitWatch, OomWatch, SignalsSent};
use super::launch;
pub use super::launch::{Birth, INSTANCE, Launch, key_of};
use super::sample::{self, Sampling};
use super::spawn::{self, ProcessKind, SpawnError, Started};
pub use super::spawn::{Streams, prepare};
use super::tree::{Orphans, Tree};
use crate::core::{Event, Generation, Installers, SpawnFailure, TreeRecord, Usage};
use crate::platform::cgroup::Leaf;
use crate::platform::proc;
use crate::platform::process::{self, Handle};
use crate::platform::refusal::is_refusal;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc::Sender;
use tokio::task::JoinHandle;

/// The pause before another look at a process that cannot be watched now.
const WATCH_RETRY: Duration = Duration::from_secs(1);

/// How long after the exit of a lone leader processes are looked for that its id alone shows. A respawn takes 2 to 10 ms.
const SWEEP_AFTER: Duration = Duration::from_millis(100);

/// When processes with the instance id outside the leader's family are looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sweep {
    /// Before `TreeGone`: we may exit after it.
    Now,
    /// If nothing is left below us, after `TreeGone`: the next gateway need not wait for a look at every process.
    Later,
}

/// How a tree is killed.
#[derive(Debug, Clone)]
pub struct Kill {
    /// When strays of it are looked for.
    pub sweep: Sweep,
    /// How long its members have to end by SIGTERM.
    pub grace: Duration,
    /// Whether processes are killed that were created outside and bear its id, or that have a unit of their own.
    pub strays: bool,
    /// What becomes of installers.
    pub installers: Installers,
    /// The folder of OpenClaw's package.
    pub package: Option<PathBuf>,
}

impl From<Sweep> for Kill {
    fn from(sweep: Sweep) -> Self {
        Self { sweep, grace: Duration::ZERO, strays: false, installers: Installers::AsOthers, package: None }
    }
}

/// The process that leads the tree of a gateway after the exit of its leader.
#[derive(Debug)]
pub struct Heir {
    leader: Arc<Handle>,
    known: TreeRecord,
}

/// What is learnt of a gateway by others.
#[derive(Debug)]
pub struct Notes(SharedTree);

impl Notes {
    /// This process of it listens. A launcher may have given it a systemd unit of its own: it is no stray for that.
    pub async fn add_listener(self, pid: i32) {
        let Self(tree) = self;
        let look = proc::run(move || {
            let mut copy = tree.copy();
            copy.learn_unit_of(pid);
            tree.lock().absorb(copy);
        });
        // Without it the next look at the listener adds it.
        let _stuck = look.await;
    }
}

/// A gateway that we own: started by us and not reaped yet, or adopted.
#[derive(Debug)]
pub struct Gateway {
    generation: Generation,
    instance: String,
    /// `None` if it is gone, and only other members of its tree may be left.
    leader: Option<Arc<Handle>>,
    tree: SharedTree,
    leaf: Option<Arc<Leaf>>,
    signals: SignalsSent,
    oom: OomWatch,
}

/// The tree of a gateway. A worker has a copy of it, and adds what it has seen: nothing is locked during a read.
#[derive(Debug, Clone)]
struct SharedTree(Arc<Mutex<Tree>>);

impl SharedTree {
    fn new(tree: Tree) -> Self {
        Self(Arc::new(Mutex::new(tree)))
    }

    fn lock(&self) -> MutexGuard<'_, Tree> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn copy(&self) -> Tree {
        self.lock().clone()
    }

    fn remember(&self, look: impl FnOnce(&mut Tree) -> Vec<i32>) -> Vec<i32> {
        let mut copy = self.copy();
        let stopped = look(&mut copy);
        self.lock().absorb(copy);
        stopped
    }

    fn record(&self) -> TreeRecord {
        let mut copy = self.copy();
        let record = copy.record();
        *self.lock() = copy;
        record
    }
}

impl Gateway {
    /// Starts one. Then it sends to `events`: `Spawned` when the program is executed, or
    /// `SpawnFailed`; and `LeaderExited` when its process exits.
    ///
    /// # Errors
    /// There is no process.
    pub fn spawn(
        birth: Birth<'_>,
        launch: &Launch,
        streams: &Streams,
        orphans: Orphans,
        events: &Sender<impl From<Event> + Send + 'static>,
    ) -> Result<Self, SpawnFailure> {
        let Birth { generation, instance, fingerprint, .. } = birth;
        let started = spawn::start(&mut launch.command(birth), None, streams, ProcessKind::Gateway, instance);
        let started = started.map_err(|failure| match failure {
            SpawnError::Spawn(error) => explain(&error, &launch.program),
            SpawnError::Watch(error) => {
                SpawnFailure::Resources(format!("cannot watch the gateway: {error}; it will be tried again"))
            }
        })?;
        spawn::warn_if_blind(&started, orphans);
        let Started { leader, watch, exec, leaf, tag } = started;
        let (oom, signals) = (OomWatch::of(leaf.clone()), SignalsSent::default());
        let tree = Tree::new(&leader, launch::entry(instance), orphans).with(leaf.clone(), tag).led_by(&leader);
        let exit_watch =
            ExitWatch { generation, leader: Arc::clone(&leader), watch, signals: signals.clone(), oom: oom.clone() };
        let (pid, program, events) = (leader.pid(), launch.program.clone(), events.clone());
        tokio::spawn(async move {
            let executed = spawn::executed(exec, pid).await;
            let is_executed = executed.is_ok();
            let event = match executed {
                Ok(()) => Event::Spawned { generation, pid, fingerprint },
                Err(error) => Event::SpawnFailed { generation, failure: explain(&error, &program) },
            };
            // A closed channel means that the loop has ended.
            let _closed = events.send(event.into()).await;
            if is_executed {
                exit_watch.report_exit(events).await;
            }
        });
        let (instance, tree) = (instance.to_owned(), SharedTree::new(tree));
        Ok(Self { generation, instance, leader: Some(leader), tree, leaf, signals, oom })
    }

    /// Takes over what was found of a gateway that another supervisor started. If its leader lives, `LeaderExited` goes to
    /// `events` when it exits, even if that is before this call.
    ///
    /// # Errors
    /// EMFILE. Nothing is held then, and it can be looked for again.
    pub fn adopt(
        generation: Generation,
        found: Found,
        events: &Sender<impl From<Event> + Send + 'static>,
    ) -> io::Result<Self> {
        let Found { instance, leader, leaf, tree, .. } = found;
        let (signals, oom) = (SignalsSent::default(), OomWatch::of(leaf.clone()));
        if let Some(leader) = &leader {
            let watch = leader.watch()?;
            // It is our child all the same if we are the reaper of what its supervisor left.
            process::claim(leader.pid());
            let (signals, oom) = (signals.clone(), oom.clone());
            let exit_watch = ExitWatch { generation, leader: Arc::clone(leader), watch, signals, oom };
            tokio::spawn(exit_watch.report_departure(events.clone()));
        }
        Ok(Self { generation, instance, leader, tree: SharedTree::new(tree), leaf, signals, oom })
    }

    /// Its number.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// The id in the environment of its processes.
    #[must_use]
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The process id of its leader; `None` if that was gone when the gateway was adopted.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.leader.as_ref().map(|leader| leader.pid())
    }

    /// The start time of its leader, which names it together with the pid.
    #[must_use]
    pub fn start_time(&self) -> Option<u64> {
        self.leader.as_ref().map(|leader| leader.start_time())
    }

    /// Its processes, for the record; `None` if they cannot be read. It looks at them alone, not at all processes.
    pub fn known(&self) -> impl Future<Output = Option<TreeRecord>> + Send + use<> {
        let tree = self.tree.clone();
        async move { proc::run(move || tree.record()).await.ok() }
    }

    /// Takes what others learn of it.
    #[must_use]
    pub fn notes(&self) -> Notes {
        Notes(self.tree.clone())
    }

    /// Its process, if that is not known to be gone.
    pub(super) fn leader(&self) -> Option<Arc<Handle>> {
        self.leader.clone()
    }

    /// A copy of what is known of its tree.
    pub(super) fn tree(&self) -> Tree {
        self.tree.copy()
    }

    /// SIGTERM to the leader alone. The members are looked at before, and those of them that job control has stopped are
    /// resumed afterwards, so that they hear what the leader tells them. Members that nothing but their id shows are looked
    /// for afterwards: that is slow. The task ends when all of it is done.
    #[expect(clippy::must_use_candidate, reason = "the task is detached")]
    pub fn terminate(&self) -> JoinHandle<()> {
        self.signals.note(SignalsSent::TERM);
        let (generation, leader, tree) = (self.generation, self.leader.clone(), self.tree.clone());
        // A gateway that gets SIGTERM twice does not drain.
        let told = Arc::new(OnceLock::new());
        tokio::spawn(async move {
            let tell = move || {
                told.get_or_init(|| match leader.as_ref().map_or(Ok(()), |leader| leader.terminate()) {
                    Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
                        // The core's deadline for the drain ends it all the same.
                        tracing::warn!(generation, %error, "cannot send SIGTERM to the gateway");
                    }
                    _ => {}
                });
            };
            let tell_anyway = tell.clone();
            let job = move || {
                let mut stopped = tree.remember(Tree::remember_soon);
                if proc::is_left_behind() {
                    return;
                }
                tell();
                stopped.extend(tree.remember(Tree::remember));
                stopped.sort_unstable();
                stopped.dedup();
                tree.copy().resume(&stopped);
            };
            if proc::run(job).await.is_err() {
                tell_anyway();
            }
        })
    }

    /// SIGTERM to a member of its tree. The task is detached.
    pub fn terminate_member(&self, pid: i32) {
        let (generation, tree) = (self.generation, self.tree.clone());
        tokio::spawn(proc::run(move || {
            tree.remember(Tree::remember_soon);
            if proc::is_left_behind() {
                return;
            }
            if let Err(error) = tree.copy().terminate(pid) {
                tracing::warn!(generation, pid, %error, "cannot send SIGTERM to the process that listens");
            }
        }));
    }

    /// What leads the tree after its leader has exited, see [`Tree::heir`]. `None` if it cannot be told either.
    pub fn find_heir(&self, listener: Option<i32>) -> impl Future<Output = Option<Heir>> + Send + use<> {
        let tree = self.tree.clone();
        async move {
            let looked = proc::run(move || {
                let mut copy = tree.copy();
                copy.remember();
                let leader = copy.heir(listener)?;
                Some(Heir { leader, known: copy.record() })
            });
            looked.await.ok().flatten()
        }
    }

    /// Follows this process in place of its leader, which has exited and is reaped. Returns its pid; `None` if it cannot be
    /// watched. `LeaderExited` goes to `events` when it exits.
    pub fn follow(&mut self, heir: Heir, events: &Sender<impl From<Event> + Send + 'static>) -> Option<i32> {
        let Heir { leader: heir, known } = heir;
        let (pid, watch) = (heir.pid(), heir.watch().ok()?);
        // It is our child: nothing else may reap it.
        process::claim(pid);
        let mut tree = self.tree.lock();
        let (leaf, tag) = (tree.leaf.clone(), tree.tag);
        *tree = Tree::inherited_by(&heir, launch::entry(&self.instance), &known.members)
            .with(leaf, tag)
            .led_by(&heir)
            .known_by(&known);
        drop(tree);
        if let Some(leader) = self.leader.replace(Arc::clone(&heir)) {
            process::unclaim(leader.pid());
            leader.reap();
        }
        let (generation, signals, oom) = (self.generation, self.signals.clone(), self.oom.clone());
        let exit_watch = ExitWatch { generation, leader: heir, watch, signals, oom };
        tokio::spawn(exit_watch.report_departure(events.clone()));
        Some(pid)
    }

    /// What it uses now; `None` if nothing can be read. Of a leader that has exited nothing is known.
    pub fn measure(&self, sampling: Sampling) -> impl Future<Output = Option<Usage>> + Send + use<> {
        let (leader, oom, members) = (self.leader.clone(), self.oom.clone(), self.tree.clone());
        let job = move || {
            // Asked for afterwards: if it lives, its pid was its own all the while.
            let lives = |leader: &Handle| matches!(leader.has_ended(), Ok(false));
            let usage = leader.as_deref().and_then(|leader| {
                let usage = sample::read(leader, members.copy(), sampling);
                lives(leader).then_some(usage)
            });
            if usage.is_some() {
                oom.rearm();
            }
            let tree = sampling.tree.then(|| members.copy().memory().ok()).flatten();
            let (tree_rss_kb, tree_processes) = tree.map(|tree| (tree.rss_kb, tree.processes)).unzip();
            Usage { tree_rss_kb, tree_processes, ..usage.unwrap_or_default() }
        };
        async move { proc::run(job).await.ok() }
    }

    /// Whether it was told to end. If not, another gateway is likely to follow.
    #[must_use]
    pub fn was_terminated(&self) -> bool {
        !self.signals.is(SignalsSent::NONE)
    }

    /// Kills the whole tree and sends `TreeGone`, and `StraysKilled` if more of it is found later. `elapsed` tells how long
    /// that has been going on. The task ends when nothing is looked for any more.
    pub fn kill_tree(
        &self,
        kill: impl Into<Kill>,
        elapsed: impl Fn() -> Duration + Clone + Send + Sync + 'static,
        events: &Sender<impl From<Event> + Send + 'static>,
    ) -> JoinHandle<()> {
        let Kill { sweep, grace, strays, installers, package } = kill.into();
        let (generation, events) = (self.generation, events.clone());
        let tree = self.tree.copy().with_strays(!strays).with_installers(installers, package);
        self.signals.note(SignalsSent::KILL);
        tokio::spawn(async move {
            let at_once = if sweep == Sweep::Later { tree.end_at_once(&elapsed) } else { None };
            let Some(end) = at_once else {
                let end = tree.kill(grace, elapsed).await;
                let _closed = events.send(Event::TreeGone { generation, end }.into()).await;
                return;
            };
            let _closed = events.send(Event::TreeGone { generation, end }.into()).await;
            // The next gateway is about to be started, and needs the processor.
            tokio::time::sleep(SWEEP_AFTER).await;
            let end = tree.sweep(grace, elapsed).await;
            if end.members.max(end.survivors) > 0 || !end.strays.is_empty() {
                let _closed = events.send(Event::StraysKilled { generation, end }.into()).await;
            }
        })
    }

    /// Reaps the leader: from here on its pid may name another process. Nothing but a dead child of ours is reaped.
    pub fn release(self) {
        if let Some(leader) = &self.leader {
            process::unclaim(leader.pid());
            leader.reap();
        }
        spawn::retire(self.leaf.as_ref());
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

/// Sends `Departed` when this process has ended, whether it is ours or not, or at once if there is none. It gets no signal.
pub fn watch_departure(pid: i32, events: &Sender<impl From<Event> + Send + 'static>) -> Departure {
    let events = events.clone();
    Departure(tokio::spawn(async move {
        departure(pid).await;
        let _closed = events.send(Event::Departed { pid }.into()).await;
    }))
}

async fn departure(pid: i32) {
    loop {
        match proc::run(move || Handle::open(pid)).await.flatten() {
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

fn explain(error: &io::Error, program: &Path) -> SpawnFailure {
    let program = program.display();
    let is_lasting = match error.raw_os_error() {
        None | Some(libc::E2BIG | libc::EINVAL | libc::ENOEXEC) => true,
        // A shortage, a program that is being written, a file system that fails.
        Some(_) => is_refusal(error),
    };
    if is_lasting {
        SpawnFailure::Program(format!(
            "cannot execute {program}: {error}; check the path, its permissions and the interpreter in its first line"
        ))
    } else {
        SpawnFailure::Resources(format!("cannot start {program} now: {error}; it will be tried again"))
    }
}

/// Removes the empty control groups that killed supervisors of this configuration have left.
pub fn clear_leaves(launch: &Launch) {
    ProcessKind::Gateway.clear_leaves(&launch.key);
}

/// A new gateway's instance id: the key of its configuration, and random digits.
#[must_use]
pub fn new_instance(key: &str) -> String {
    spawn::new_id(key)
}
