//! Hooks: the operator's own commands before a gateway's start and after its end.
//!
//! A hook is started as a gateway is, in a session and a control group of its own, with an rlimit tag and an id in its
//! environment. Its whole tree is killed when it ends: the next gateway must not meet a half-done backup. It may outlive
//! a killed supervisor; the next one finds it by its control group and its id, and kills it first.
//!
//! A hook in uninterruptible sleep is abandoned and may end beside a gateway. So being our child alone does not make a
//! process a member of a hook's tree.

use super::exit_watch;
pub use super::launch::HOOK;
use super::launch::{INSTANCE, scrub};
use super::openclaw::Openclaw;
use super::spawn::{self, ProcessKind, SpawnError, Started, Streams};
use super::tree::{Orphans, Tree, is_of_user};
use crate::core::hook::{Call, Hook, HookEnd};
use crate::core::{Event, ExitStatus, Moment, TreeEnd};
use crate::platform::cgroup::{self, Leaf};
use crate::platform::environment::ProcessEnvironment;
use crate::platform::proc;
use crate::platform::process::{EndWatch, Handle, unclaim};
use crate::platform::rlimit_tag::RlimitTag;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;
use tokio::sync::mpsc::Sender;

const GENERATION: &str = "OPENCLAW_SUPERVISE_GENERATION";
const PID: &str = "OPENCLAW_SUPERVISE_PID";
const REASON: &str = "OPENCLAW_SUPERVISE_REASON";
const CODE: &str = "OPENCLAW_SUPERVISE_CODE";
const SIGNAL: &str = "OPENCLAW_SUPERVISE_SIGNAL";

/// The variables that a hook may get. Those without a value are removed, even if our own environment has them.
const TOLD: [&str; 5] = [GENERATION, PID, REASON, CODE, SIGNAL];

/// OpenClaw's contract for embedding hosts: run once after an exit with 78.
const REPAIR: [&str; 4] = ["doctor", "--fix", "--yes", "--non-interactive"];

/// The pauses before the searches for what a dead supervisor left: between fork(2) and execve(2) a process does not
/// carry its id yet, and in the middle of execve(2) it has no environment at all.
const LOOKS: [Duration; 4] =
    [Duration::ZERO, Duration::from_millis(10), Duration::from_millis(40), Duration::from_millis(100)];

/// The operator's commands, each a line for the shell.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Commands {
    /// Before a start.
    pub pre_start: Option<OsString>,
    /// After an end.
    pub post_stop: Option<OsString>,
}

impl Commands {
    fn of(&self, hook: Hook) -> Option<&OsStr> {
        match hook {
            Hook::PreStart => self.pre_start.as_deref(),
            Hook::PostStop => self.post_stop.as_deref(),
            // OpenClaw's own, and no line for the shell.
            Hook::Repair => None,
        }
    }

    fn is_empty(&self) -> bool {
        self.pre_start.is_none() && self.post_stop.is_none()
    }
}

/// How to call the hooks.
#[derive(Debug, Clone)]
pub struct Hooks {
    /// Prefix of the ids of all our calls. While we own the lease, no other supervisor with hooks visible from here has
    /// it: a process that carries it and is not ours was left by a dead supervisor.
    pub key: String,
    /// What to run.
    pub commands: Commands,
    /// The `openclaw doctor` that repairs a configuration that the gateway refused.
    pub openclaw: Option<Openclaw>,
    /// Our settings, as the variables of the gateway.
    pub exports: Vec<(&'static str, OsString)>,
    /// The monotonic clock.
    pub clock: fn() -> Moment,
}

/// A hook that was called. It is dead once its `HookEnded` was sent.
#[derive(Debug)]
pub struct RunningHook {
    ticket: u64,
    /// Owned by the task that waits for its exit, until it is reaped.
    leader: Weak<Handle>,
}

impl RunningHook {
    /// The ticket of its call.
    #[must_use]
    pub fn ticket(&self) -> u64 {
        self.ticket
    }

    /// SIGTERM to its process, which may have been stopped.
    ///
    /// # Errors
    /// What the kernel said; a process that has ended is no error.
    pub fn terminate(&self) -> io::Result<()> {
        let leader = self.leader.upgrade();
        leader.map_or(Ok(()), |leader| unless_gone(leader.terminate().and_then(|()| leader.resume())))
    }

    /// SIGKILL to its process. The rest of its tree is killed once that has exited.
    ///
    /// # Errors
    /// As [`RunningHook::terminate`].
    pub fn kill(&self) -> io::Result<()> {
        self.leader.upgrade().map_or(Ok(()), |leader| unless_gone(leader.kill()))
    }
}

/// The ids and tags of the living hooks and event commands. One static list, since all threads of a process share its children.
static LIVING: Mutex<Vec<(String, Option<RlimitTag>)>> = Mutex::new(Vec::new());

/// Reserves an id and its tag until it is dropped.
pub(super) struct Living(String);

impl Living {
    pub(super) fn of(id: &str, mark: Option<RlimitTag>) -> Self {
        LIVING.lock().unwrap_or_else(PoisonError::into_inner).push((id.to_owned(), mark));
        Self(id.to_owned())
    }

    fn is_borne(mark: RlimitTag) -> bool {
        LIVING.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|(_, living)| *living == Some(mark))
    }

    fn has(id: &str) -> bool {
        LIVING.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|(living, _)| living == id)
    }
}

impl Drop for Living {
    fn drop(&mut self) {
        LIVING.lock().unwrap_or_else(PoisonError::into_inner).retain(|(living, _)| *living != self.0);
    }
}

fn unless_gone(sent: io::Result<()>) -> io::Result<()> {
    match sent {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => Err(error),
        _ => Ok(()),
    }
}

impl Hooks {
    /// Calls one. `HookEnded` goes to `events` once nothing of it is left.
    ///
    /// # Errors
    /// Why it could not be started.
    pub fn call(
        &self,
        ticket: u64,
        call: &Call,
        streams: &Streams,
        events: &Sender<impl From<Event> + Send + 'static>,
    ) -> Result<RunningHook, HookEnd> {
        let hook = call.hook();
        let id = self.new_id();
        let Some(mut command) = self.command(call, &id) else {
            return Err(HookEnd::NotStarted(format!("no {} hook is set", hook.name())));
        };
        let program = command.get_program().to_string_lossy().into_owned();
        let not_executed = move |error: io::Error| HookEnd::NotStarted(format!("cannot execute {program}: {error}"));
        let input = File::open("/dev/null").map_err(&not_executed)?;
        let started = spawn::start(&mut command, Some(input.as_fd()), streams, ProcessKind::Hook, &id);
        let started = started.map_err(|failure| match failure {
            SpawnError::Spawn(error) => not_executed(error),
            SpawnError::Watch(error) => {
                HookEnd::NotStarted(format!("cannot watch it: {error}; raise the limit on open files"))
            }
        })?;
        spawn::warn_if_blind(&started, Orphans::Mixed);
        let Started { leader, watch, exec, leaf, tag } = started;
        let tree = Tree::new(&leader, entry(&id), Orphans::Mixed).with(leaf.clone(), tag);
        let running = RunningHook { ticket, leader: Arc::downgrade(&leader) };
        let (clock, events, living) = (self.clock, events.clone(), Living::of(&id, tag));
        tokio::spawn(async move {
            let executed = spawn::executed(exec, leader.pid()).await;
            let death = end_of(hook.name(), &leader, &watch, tree, clock).await;
            spawn::retire(leaf.as_ref());
            drop((leader, living));
            let end = executed.map_or_else(not_executed, |()| HookEnd::Ended(death));
            // A closed channel means that the loop has ended.
            let _closed = events.send(Event::HookEnded { ticket, end }.into()).await;
        });
        Ok(running)
    }

    /// A new id. Its tag differs from those of abandoned hooks that still live.
    pub(super) fn new_id(&self) -> String {
        loop {
            let id = spawn::new_id(&self.key);
            if !ProcessKind::Hook.tag_of(&id).is_some_and(Living::is_borne) {
                return id;
            }
        }
    }

    fn command(&self, call: &Call, id: &str) -> Option<Command> {
        let mut command = match (call.hook(), &self.openclaw) {
            (Hook::PreStart | Hook::PostStop, _) => {
                let mut shell = Command::new("/bin/sh");
                shell.arg("-c").arg(self.commands.of(call.hook())?);
                shell
            }
            (Hook::Repair, openclaw) => openclaw.as_ref()?.command(&REPAIR),
        };
        self.prepare(&mut command, id);
        command.envs(told(call));
        Some(command)
    }

    /// Sets its environment.
    pub(super) fn prepare(&self, command: &mut Command, id: &str) {
        scrub(command);
        command.env_remove(INSTANCE);
        for name in TOLD {
            command.env_remove(name);
        }
        command.envs(self.exports.iter().map(|(name, value)| (name, value))).env(HOOK, id);
    }

    /// Kills what is left of the hooks of a dead supervisor, with their whole trees, and waits for that. `is_heir`:
    /// whether one died, or may have.
    ///
    /// # Errors
    /// The processes cannot be listed: what is left is then unknown.
    pub async fn clear(&self, is_heir: bool) -> io::Result<()> {
        let looks = if is_heir && !self.commands.is_empty() { LOOKS.len() } else { 1 };
        for pause in LOOKS.into_iter().take(looks) {
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            // An event command of our own may run beside us.
            for (id, bearer) in self.left().await?.into_iter().filter(|(id, _)| !Living::has(id)) {
                let begun = (self.clock)();
                let clock = self.clock;
                let leaf = Leaf::find(&ProcessKind::Hook.leaf_name(&id), bearer).map(Arc::new);
                let tree = Tree::orphaned(None, entry(&id), &[]).with(leaf.clone(), None);
                let end = tree.kill(Duration::ZERO, move || clock().saturating_sub(begun)).await;
                spawn::retire(leaf.as_ref());
                tell_left(&end);
            }
        }
        Ok(())
    }

    /// Removes the empty control groups that hooks of earlier supervisors have left. To be called when the lease is ours.
    pub fn clear_leaves(&self) {
        ProcessKind::Hook.clear_leaves(&self.key);
    }

    /// The ids of the calls with processes left, each with a process that carries it. A member of the control group alone need
    /// not carry it.
    async fn left(&self) -> io::Result<BTreeMap<String, Option<i32>>> {
        let (prefix, key) = (ProcessKind::Hook.leaf_prefix(), self.key.clone());
        let bearers = proc::run(move || bearers(&key)).await.flatten()?;
        let leaves = cgroup::populated(&format!("{prefix}{}-", self.key)).into_iter();
        let inside = leaves.filter_map(|name| Some((name.strip_prefix(prefix)?.to_owned(), None)));
        Ok(inside.chain(bearers.into_iter().map(|(id, pid)| (id, Some(pid)))).collect())
    }
}

/// How it ended, once nothing of it is left.
pub(super) async fn end_of(
    name: &str,
    leader: &Handle,
    watch: &EndWatch,
    tree: Tree,
    clock: fn() -> Moment,
) -> ExitStatus {
    let death = match watch.exit(leader).await {
        Ok(exit) => exit_watch::of(exit.status),
        Err(error) => {
            tracing::error!(pid = leader.pid(), %error, "cannot learn how a hook ended");
            ExitStatus::Unknown
        }
    };
    let begun = clock();
    let end = tree.kill(Duration::ZERO, move || clock().saturating_sub(begun)).await;
    leader.reap();
    unclaim(leader.pid());
    if end.members > 0 {
        let TreeEnd { members, survivors, .. } = end;
        let commands = end.commands.join("; ");
        tracing::info!(hook = name, members, survivors, commands, "ended what the hook had left running");
    }
    death
}

fn tell_left(end: &TreeEnd) {
    let TreeEnd { members, survivors, .. } = *end;
    let commands = end.commands.join("; ");
    tracing::warn!(members, survivors, commands, "ended a hook that an earlier supervisor had left running");
}

/// The variables that a hook gets.
fn told(call: &Call) -> Vec<(&'static str, String)> {
    let generation = (GENERATION, call.generation().to_string());
    match call {
        Call::PreStart { .. } | Call::Repair { .. } => vec![generation],
        Call::PostStop { pid, reason, death, .. } => {
            let how = match death {
                ExitStatus::Code(code) => Some((CODE, code.to_string())),
                ExitStatus::Signal { number, .. } => Some((SIGNAL, number.to_string())),
                ExitStatus::Unknown => None,
            };
            let pid = (*pid > 0).then(|| (PID, pid.to_string()));
            [Some(generation), Some((REASON, (*reason).to_owned())), how, pid].into_iter().flatten().collect()
        }
    }
}

/// The entry in the environment of everything that a hook starts.
pub(super) fn entry(id: &str) -> String {
    format!("{HOOK}={id}")
}

/// The ids that begin with this key, each with a process of our user that carries it: any other may write it, too.
fn bearers(key: &str) -> io::Result<BTreeMap<String, i32>> {
    let me = i32::try_from(std::process::id()).unwrap_or(0);
    let id = |environment: &ProcessEnvironment| String::from_utf8(environment.get(HOOK)?.to_vec()).ok();
    let all = proc::survey(move |process| process.pid != me && !process.is_dead(), id)?;
    let ids = all.into_iter().filter_map(|(process, id)| Some((id.flatten()?, process.pid)));
    Ok(ids.filter(|(id, pid)| is_of(id, key) && is_of_user(*pid, None)).collect())
}

fn is_of(id: &str, key: &str) -> bool {
    id.strip_prefix(key).is_some_and(|random| random.starts_with('-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stopped(pid: i32, death: ExitStatus) -> Call {
        Call::PostStop { generation: 7, pid, reason: "crashed", death }
    }

    #[test]
    fn what_there_is_nothing_to_say_of_is_not_told() {
        let signal = ExitStatus::Signal { number: 11, core_dumped: true };
        let ended = [(GENERATION, "7"), (REASON, "crashed")];
        for (call, more) in [
            (stopped(5, ExitStatus::Code(0)), &[(CODE, "0"), (PID, "5")][..]),
            (stopped(5, signal), &[(SIGNAL, "11"), (PID, "5")]),
            (stopped(0, ExitStatus::Unknown), &[]),
        ] {
            let expected: Vec<_> = ended.iter().chain(more).map(|(name, value)| (*name, (*value).to_owned())).collect();
            assert_eq!(told(&call), expected, "{call:?}");
        }
        assert_eq!(told(&Call::PreStart { generation: 1 }), [(GENERATION, "1".to_owned())]);
    }

    #[test]
    fn an_id_is_known_by_its_whole_key() {
        for (id, is_ours) in [("ab-0", true), ("ab-", true), ("ab", false), ("abc-0", false), ("", false)] {
            assert_eq!(is_of(id, "ab"), is_ours, "{id}");
        }
    }

    #[test]
    fn a_hook_is_told_nothing_that_only_our_own_environment_holds() {
        let hooks = Hooks {
            key: "k".to_owned(),
            commands: Commands { pre_start: Some(OsString::from("true")), post_stop: None },
            openclaw: None,
            exports: vec![("OPENCLAW_PROFILE", OsString::from("work"))],
            clock: || Duration::ZERO,
        };
        assert!(hooks.command(&Call::Repair { generation: 3 }, "k-1").is_none(), "no OpenClaw CLI to repair it");
        let command = hooks.command(&Call::PreStart { generation: 3 }, "k-1").unwrap();
        let value = |name: &str| {
            let found = command.get_envs().find(|(own, _)| *own == name);
            found.map(|(_, value)| value.map(|value| value.to_string_lossy().into_owned()))
        };
        for name in [PID, REASON, CODE, SIGNAL, INSTANCE, "NOTIFY_SOCKET", "OPENCLAW_SERVICE_MARKER"] {
            assert_eq!(value(name), Some(None), "{name}");
        }
        for (name, expected) in [(GENERATION, "3"), (HOOK, "k-1"), ("OPENCLAW_PROFILE", "work")] {
            assert_eq!(value(name), Some(Some(expected.to_owned())), "{name}");
        }
    }
}
