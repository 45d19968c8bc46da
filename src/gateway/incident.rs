//! What may tell why a gateway hangs, gathered while it is still there to be looked at.
//!
//! A look at a process that hangs may hang itself: `/proc/PID/cmdline` waits for the lock of the memory map, and disks may
//! be what it hangs on. So the looks are taken on a thread of their own, the harmless ones first; when the time is over,
//! what is there is what there is, and what is not there is named. Such a thread ends when what it waits for does.

use super::process::Gateway;
use super::tree::Tree;
use crate::core::{Generation, HangContext, Usage};
use crate::platform::process::Handle;
use crate::platform::{inspection, proc, usage};
use serde_json::{Map, Value, json};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long the looks may take, which is well within what the core waits for the evidence.
const TIME_MAX: Duration = Duration::from_secs(3);

/// Members of the tree that are described.
const MEMBERS_MAX: usize = 256;

/// The version of the file's layout, see docs/INCIDENTS.md.
const VERSION: u32 = 1;

/// Enough for the reading of small files.
const STACK: usize = 256 * 1024;

/// The parts that are looked for, in that order. `wait` becomes a part of `process`, and `commands` of `tree`.
const PARTS: [&str; 9] = ["machine", "port", PROCESS, "threads", "cgroup", TREE, "wait", "commands", "disk"];
const PROCESS: &str = "process";
const TREE: &str = "tree";

/// The gateway to be looked at.
#[derive(Debug)]
pub struct Subject {
    generation: Generation,
    leader: Option<Arc<Handle>>,
    tree: Tree,
}

impl Subject {
    /// That of a gateway, as it is now.
    #[must_use]
    pub fn of(gateway: &Gateway) -> Self {
        Self { generation: gateway.generation(), leader: gateway.leader(), tree: gateway.tree() }
    }
}

/// Where it listens, and the folders that it writes to.
#[derive(Debug, Clone)]
pub struct Surroundings {
    /// The port.
    pub port: u16,
    /// Each with a name for it.
    pub folders: Vec<(&'static str, PathBuf)>,
}

/// What is there already.
#[derive(Debug)]
struct Found {
    parts: Map<String, Value>,
    /// What is not.
    missing: Vec<&'static str>,
}

#[derive(Debug, Clone)]
struct Account(Arc<Mutex<Found>>);

impl Account {
    fn new(told: Vec<(&'static str, Value)>) -> Self {
        let parts = told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self(Arc::new(Mutex::new(Found { parts, missing: PARTS.to_vec() })))
    }

    fn lock(&self) -> MutexGuard<'_, Found> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, name: &str, value: Value) {
        self.lock().parts.insert(name.to_owned(), value);
    }

    /// A part for which nothing more is to come.
    fn finish(&self, name: &str) {
        self.lock().missing.retain(|missing| *missing != name);
    }

    fn complete(&self, name: &'static str, value: Value) {
        self.add(name, value);
        self.finish(name);
    }

    /// Adds the fields of an object to a part that is one.
    fn extend(&self, name: &str, fields: Value) {
        if let (Some(Value::Object(part)), Value::Object(fields)) = (self.lock().parts.get_mut(name), fields) {
            part.extend(fields);
        }
    }

    fn set_command(&self, index: usize, command: String) {
        if let Some(Value::Object(member)) = self.lock().parts.get_mut(TREE).and_then(|tree| tree.get_mut(index)) {
            member.insert("command".to_owned(), command.into());
        }
    }

    /// All that is there by now.
    fn take(&self) -> Value {
        let mut found = self.lock();
        let (mut parts, missing) = (std::mem::take(&mut found.parts), std::mem::take(&mut found.missing));
        parts.insert("complete".to_owned(), missing.is_empty().into());
        parts.insert("missing".to_owned(), missing.into());
        Value::Object(parts)
    }
}

/// Gathers all there is, for [`TIME_MAX`] at the most. `at` is when that began, for people.
pub async fn gather(subject: Subject, case: &HangContext, surroundings: Surroundings, at: String) -> Value {
    let pid = subject.leader.as_ref().map(|leader| leader.pid());
    let account = Account::new(told(subject.generation, pid, case, at));
    let (done, over) = oneshot::channel();
    let seen = account.clone();
    let looks = move || {
        look(&seen, subject, &surroundings);
        // Nobody waits for it any more where the time is over.
        let _late = done.send(());
    };
    // Not one of the runtime's threads, which its end waits for.
    let thread = thread::Builder::new().name("incident".to_owned()).stack_size(STACK);
    match thread.spawn(looks) {
        Ok(_detached) => {
            let _in_time = timeout(TIME_MAX, over).await;
        }
        Err(error) => account.add("error", json!(format!("no thread to look around with: {error}"))),
    }
    account.take()
}

/// What is known without a look.
fn told(generation: Generation, pid: Option<i32>, case: &HangContext, at: String) -> Vec<(&'static str, Value)> {
    let probes = case
        .looks
        .iter()
        .map(|look| json!({ "ago_ms": milliseconds(look.ago), "verdict": look.verdict.name(), "detail": look.detail }));
    let samples = case.samples.iter().map(|(ago, Usage { cpu, rss_kb, tree_rss_kb })| {
        let cpu_ms = cpu.map(milliseconds);
        json!({ "ago_ms": milliseconds(*ago), "cpu_ms": cpu_ms, "rss_kb": rss_kb, "tree_rss_kb": tree_rss_kb })
    });
    vec![
        ("version", VERSION.into()),
        ("at", at.into()),
        ("generation", generation.into()),
        ("pid", pid.into()),
        ("why", case.why.into()),
        ("last_good_ms", case.last_good.map(milliseconds).into()),
        ("failed_probes", case.failed_probes.into()),
        ("age_ms", milliseconds(case.age).into()),
        ("probes", probes.collect()),
        ("samples", samples.collect()),
    ]
}

/// All looks, those that can hang last.
fn look(account: &Account, subject: Subject, surroundings: &Surroundings) {
    let Subject { leader, mut tree, .. } = subject;
    account.complete("machine", inspection::machine());
    account.complete("port", inspection::port(surroundings.port));
    let of_leader = |read: fn(i32) -> Value| leader.as_deref().map_or(Value::Null, |leader| attest(leader, read));
    account.complete(PROCESS, of_leader(inspection::process));
    account.complete("threads", of_leader(inspection::threads));
    account.complete("cgroup", of_leader(inspection::group));
    let known = tree.snapshot().into_iter().take(MEMBERS_MAX);
    let (members, described): (Vec<_>, Vec<_>) =
        known.filter_map(|(pid, start_time)| Some(((pid, start_time), member(pid, start_time)?))).unzip();
    account.complete(TREE, described.into());
    account.extend(PROCESS, of_leader(inspection::wait));
    account.finish("wait");
    add_commands(account, &members, leader.as_deref());
    account.finish("commands");
    let folders = surroundings.folders.iter();
    let free = folders.map(|(name, path)| ((*name).to_owned(), free_of(path).unwrap_or_else(|error| json!(error))));
    account.complete("disk", Value::Object(free.collect()));
}

/// What is read under the pid of this process, if that was its own all the while: who has not ended by now had not before.
fn attest(process: &Handle, read: fn(i32) -> Value) -> Value {
    let value = read(process.pid());
    if matches!(process.has_ended(), Ok(false)) {
        return value;
    }
    json!({ "error": "it ended while it was looked at" })
}

/// Each is there as soon as it is known. That of the leader, which hangs, may never be: it comes last.
fn add_commands(account: &Account, members: &[(i32, u64)], leader: Option<&Handle>) {
    let mut members: Vec<_> = members.iter().enumerate().collect();
    members.sort_by_key(|(_, (pid, _))| leader.is_some_and(|leader| leader.pid() == *pid));
    for (index, &(pid, start_time)) in members {
        if let Some(command) = proc::command_of(pid)
            && is_still(pid, start_time)
        {
            account.set_command(index, command);
        }
    }
}

fn is_still(pid: i32, start_time: u64) -> bool {
    proc::stat(pid).is_ok_and(|process| process.start_time == start_time)
}

fn free_of(path: &std::path::Path) -> Result<Value, String> {
    let stat = rustix::fs::statvfs(path).map_err(|error| io::Error::from(error).to_string())?;
    let free_kb = stat.f_bavail.saturating_mul(stat.f_frsize) / 1024;
    Ok(json!({ "path": path, "free_kb": free_kb, "free_files": stat.f_favail }))
}

/// One member of the tree, unless its number is somebody else's by now.
fn member(pid: i32, start_time: u64) -> Option<Value> {
    let stat = proc::stat(pid).ok()?;
    let rss_kb = usage::of(pid).ok().map(|usage| usage.rss_kb);
    let condition = proc::condition_of(pid);
    // Looked at again afterwards: a number that is given away is not given back to the same process.
    let described = json!({
        "pid": pid,
        "ppid": stat.parent,
        "condition": condition,
        "rss_kb": rss_kb,
        "age_ms": inspection::age_ms(start_time),
    });
    (stat.start_time == start_time && is_still(pid, start_time)).then_some(described)
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gateway::tree::Orphans;
    use crate::platform::process::{reap, spawn_in_own_session};
    use std::process::Command;

    fn subject(command: &mut Command) -> Subject {
        let leader = Arc::new(spawn_in_own_session(command).unwrap());
        let tree = Tree::new(&leader, "A=1".to_owned(), Orphans::Mixed);
        Subject { generation: 1, leader: Some(leader), tree }
    }

    fn wait_for_end(leader: &Handle) {
        while !leader.has_ended().unwrap() {
            thread::yield_now();
        }
    }

    fn seen(subject: Subject) -> Value {
        let folders = vec![("here", std::env::temp_dir()), ("nowhere", PathBuf::from("/nonexistent"))];
        let account = Account::new(Vec::new());
        look(&account, subject, &Surroundings { port: 1, folders });
        account.take()
    }

    #[test]
    fn every_part_is_there_and_a_command_belongs_to_its_process() {
        let subject = subject(Command::new("sleep").arg("60"));
        let leader = subject.leader.clone().unwrap();
        let found = seen(subject);
        leader.kill().unwrap();
        wait_for_end(&leader);
        reap(leader.pid());
        assert_eq!((&found["complete"], &found["missing"]), (&json!(true), &json!([])), "{found}");
        for part in ["machine", "port", PROCESS, "threads", "cgroup", TREE, "disk"] {
            assert!(found.get(part).is_some(), "{part}");
        }
        assert_eq!((&found[TREE][0]["pid"], &found[TREE][0]["command"]), (&json!(leader.pid()), &json!("sleep 60")));
        assert!(found["disk"]["here"]["free_kb"].is_u64() && found["disk"]["nowhere"].is_string(), "{found}");
    }

    #[test]
    fn nothing_is_told_of_a_process_that_has_ended() {
        let subject = subject(&mut Command::new("true"));
        let leader = subject.leader.clone().unwrap();
        wait_for_end(&leader);
        reap(leader.pid());
        let found = seen(subject);
        assert_eq!(found[TREE], json!([]));
        let error = json!({ "error": "it ended while it was looked at" });
        assert_eq!((&found["threads"], &found["process"]["error"]), (&error, &error["error"]));
    }

    #[test]
    fn a_later_process_of_the_same_number_is_no_member() {
        let me = i32::try_from(std::process::id()).unwrap();
        let start_time = proc::stat(me).unwrap().start_time;
        assert!(member(me, start_time).is_some());
        assert!(member(me, start_time + 1).is_none());
        let account = Account::new(vec![(TREE, json!([{}]))]);
        add_commands(&account, &[(me, start_time + 1)], None);
        assert_eq!(account.take()[TREE], json!([{}]));
    }

    #[test]
    fn what_is_found_in_time_is_kept_and_the_rest_is_named() {
        let account = Account::new(vec![("pid", json!(7))]);
        for part in ["machine", "port", "threads", "cgroup"] {
            account.complete(part, json!({}));
        }
        account.complete(PROCESS, json!({ "wchan": "" }));
        account.complete(TREE, json!([{ "pid": 7 }, { "pid": 8 }]));
        account.extend(PROCESS, json!({ "syscall": "0" }));
        account.finish("wait");
        account.set_command(1, "node".to_owned());
        let found = account.take();
        assert_eq!((&found["complete"], &found["missing"]), (&json!(false), &json!(["commands", "disk"])));
        assert_eq!(found[TREE], json!([{ "pid": 7 }, { "pid": 8, "command": "node" }]));
        assert_eq!(found[PROCESS], json!({ "wchan": "", "syscall": "0" }));
        // The thread goes on, and changes nothing any more.
        account.set_command(0, "late".to_owned());
        account.complete("disk", json!({}));
        assert_eq!(found.get("disk"), None);
    }
}
