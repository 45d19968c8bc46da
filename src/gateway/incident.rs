//! The evidence of a hang, or of what has the memory, gathered while the gateway still runs.
//!
//! A read about a process that hangs may block: `/proc/PID/cmdline` waits for the lock of its memory map, and a disk may be
//! what it hangs on. So all reads are on a thread of their own, the harmless ones first. After the timeout the parts that
//! are there are kept, and the others are named. The thread ends when its read returns.

mod condition;

use super::process::Gateway;
use super::sample::is_member;
use super::tree::Tree;
use crate::core::{Conclusion, Generation, HangContext, Usage};
use crate::platform::process::Handle;
use crate::platform::{inspection, proc, usage};
use condition::{PROCESS, TREE};
use serde_json::{Map, Value, json};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

/// How long gathering may take; the core waits longer for the evidence.
const TIME_MAX: Duration = Duration::from_secs(3);

/// How many members of the tree are described.
const MEMBERS_MAX: usize = 256;

/// The version of the file's layout, see docs/INCIDENTS.md.
const VERSION: u32 = 1;

/// Enough to read small files.
const STACK: usize = 256 * 1024;

/// The parts, in the order in which they are read. `wait` becomes a part of `process`, and `commands` of `tree`.
const PARTS: [&str; 9] = ["machine", "port", PROCESS, "threads", "cgroup", TREE, "wait", "commands", "disk"];

/// The gateway that hangs.
#[derive(Debug)]
pub struct HungGateway {
    generation: Generation,
    leader: Option<Arc<Handle>>,
    tree: Tree,
}

impl HungGateway {
    /// This gateway, as it is now.
    #[must_use]
    pub fn of(gateway: &Gateway) -> Self {
        Self { generation: gateway.generation(), leader: gateway.leader(), tree: gateway.tree() }
    }
}

/// The port that it listens on, and the folders that it writes to.
#[derive(Debug, Clone)]
pub struct Surroundings {
    pub port: u16,
    /// Each with a name for the report.
    pub folders: Vec<(&'static str, PathBuf)>,
}

/// The parts that were read, and the names of the others.
#[derive(Debug)]
struct Parts {
    read: Map<String, Value>,
    missing: Vec<&'static str>,
}

#[derive(Debug, Clone)]
struct Incident(Arc<Mutex<Parts>>);

impl Incident {
    fn new(told: Vec<(&'static str, Value)>) -> Self {
        let parts = told.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
        Self(Arc::new(Mutex::new(Parts { read: parts, missing: PARTS.to_vec() })))
    }

    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, name: &str, value: Value) {
        self.lock().read.insert(name.to_owned(), value);
    }

    /// This part is complete.
    fn finish(&self, name: &str) {
        self.lock().missing.retain(|missing| *missing != name);
    }

    fn complete(&self, name: &'static str, value: Value) {
        self.add(name, value);
        self.finish(name);
    }

    /// Adds fields to a part that is an object.
    fn extend(&self, name: &str, fields: Value) {
        if let (Some(Value::Object(part)), Value::Object(fields)) = (self.lock().read.get_mut(name), fields) {
            part.extend(fields);
        }
    }

    fn set_command(&self, index: usize, command: String) {
        if let Some(Value::Object(member)) = self.lock().read.get_mut(TREE).and_then(|tree| tree.get_mut(index)) {
            member.insert("command".to_owned(), command.into());
        }
    }

    /// All parts that were read by now.
    fn take(&self) -> Value {
        let mut found = self.lock();
        let (mut parts, missing) = (std::mem::take(&mut found.read), std::mem::take(&mut found.missing));
        parts.insert("complete".to_owned(), missing.is_empty().into());
        parts.insert("missing".to_owned(), missing.into());
        Value::Object(parts)
    }
}

/// Gathers the evidence, for [`TIME_MAX`] at most. `at` is when that began, as a timestamp. What it comes down to is its last
/// member.
pub async fn gather(
    subject: HungGateway,
    case: &HangContext,
    surroundings: Surroundings,
    at: String,
) -> (Value, Conclusion) {
    let pid = subject.leader.as_ref().map(|leader| leader.pid());
    let incident = Incident::new(told(subject.generation, pid, case, at));
    let (done, over) = oneshot::channel();
    let (seen, listener) = (incident.clone(), case.listener);
    let looks = move || {
        look(&seen, subject, listener, &surroundings);
        // After the timeout the receiver is gone.
        let _late = done.send(());
    };
    // Not a thread of the runtime: its shutdown would wait for it.
    let thread = thread::Builder::new().name("incident".to_owned()).stack_size(STACK);
    match thread.spawn(looks) {
        Ok(_detached) => {
            let _in_time = timeout(TIME_MAX, over).await;
        }
        Err(error) => incident.add("error", json!(format!("cannot start a thread: {error}"))),
    }
    let mut found = incident.take();
    let conclusion = Conclusion::of(case, Some(&condition::of(&found)));
    if let Value::Object(parts) = &mut found {
        parts.insert("conclusion_cause".to_owned(), conclusion.cause.name().into());
        parts.insert("conclusion".to_owned(), conclusion.text.as_str().into());
    }
    (found, conclusion)
}

/// The parts that are known already.
fn told(generation: Generation, pid: Option<i32>, case: &HangContext, at: String) -> Vec<(&'static str, Value)> {
    let probes = case
        .looks
        .iter()
        .map(|look| json!({ "ago_ms": milliseconds(look.ago), "verdict": look.verdict.name(), "detail": look.detail }));
    let samples = case.samples.iter().map(|(ago, usage)| {
        let Usage {
            cpu,
            rss_kb,
            tree_rss_kb,
            tree_processes,
            major_faults,
            waited,
            turns,
            throttled,
            pressure,
            runnable,
            blocked,
        } = usage;
        json!({
            "ago_ms": milliseconds(*ago),
            "cpu_ms": cpu.map(milliseconds),
            "rss_kb": rss_kb,
            "tree_rss_kb": tree_rss_kb,
            "tree_processes": tree_processes,
            "major_faults": major_faults,
            "waited_ms": waited.map(milliseconds),
            "turns": turns,
            "throttled_ms": throttled.map(milliseconds),
            "pressure_ms": pressure.map(milliseconds),
            "runnable": runnable,
            "blocked": blocked.as_ref().map(ToString::to_string),
        })
    });
    vec![
        ("version", VERSION.into()),
        ("at", at.into()),
        ("generation", generation.into()),
        ("pid", pid.into()),
        ("listener", case.listener.into()),
        ("why", case.why.into()),
        ("last_good_ms", case.last_good.map(milliseconds).into()),
        ("failed_probes", case.failed_probes.into()),
        ("age_ms", milliseconds(case.age).into()),
        ("tree_rss_kb", case.excess.map(|excess| excess.tree_rss_kb).into()),
        ("limit_kb", case.excess.map(|excess| excess.limit_kb).into()),
        ("probes", probes.collect()),
        ("samples", samples.collect()),
    ]
}

/// Reads all parts, those that can block last.
fn look(incident: &Incident, subject: HungGateway, listener: Option<i32>, surroundings: &Surroundings) {
    let HungGateway { leader, mut tree, .. } = subject;
    // Behind a launcher the process that listens is the gateway.
    let listener = listener.filter(|&pid| leader.as_deref().is_some_and(|leader| is_member(pid, leader, &tree)));
    let gateway = listener.and_then(|pid| Handle::open(pid).ok()).map(Arc::new).or(leader.clone());
    incident.complete("machine", inspection::machine());
    incident.complete("port", inspection::port(surroundings.port));
    let of_gateway = |read: fn(i32) -> Value| gateway.as_deref().map_or(Value::Null, |gateway| attest(gateway, read));
    incident.complete(PROCESS, of_gateway(inspection::process));
    incident.complete("threads", of_gateway(inspection::threads));
    incident.complete("cgroup", of_gateway(inspection::group));
    let known = tree.snapshot().into_iter().take(MEMBERS_MAX);
    let (members, described): (Vec<_>, Vec<_>) =
        known.filter_map(|(pid, start_time)| Some(((pid, start_time), member(pid, start_time)?))).unzip();
    incident.complete(TREE, described.into());
    incident.extend(PROCESS, of_gateway(inspection::wait));
    incident.finish("wait");
    add_commands(incident, &members, leader.as_deref());
    incident.finish("commands");
    let folders = surroundings.folders.iter();
    let free = folders.map(|(name, path)| ((*name).to_owned(), free_of(path).unwrap_or_else(|error| json!(error))));
    incident.complete("disk", Value::Object(free.collect()));
}

/// What is read under the pid of this process, if that was its own all the while: it has not ended by now.
fn attest(process: &Handle, read: fn(i32) -> Value) -> Value {
    let value = read(process.pid());
    if matches!(process.has_ended(), Ok(false)) {
        return value;
    }
    json!({ "error": "it ended while it was looked at" })
}

/// Adds each command as soon as it is read. That of the leader, which hangs, may never be: it comes last.
fn add_commands(incident: &Incident, members: &[(i32, u64)], leader: Option<&Handle>) {
    let mut members: Vec<_> = members.iter().enumerate().collect();
    members.sort_by_key(|(_, (pid, _))| leader.is_some_and(|leader| leader.pid() == *pid));
    for (index, &(pid, start_time)) in members {
        if let Some(command) = proc::command_of(pid)
            && is_still(pid, start_time)
        {
            incident.set_command(index, command);
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

/// One member of the tree; `None` if its pid names another process by now.
fn member(pid: i32, start_time: u64) -> Option<Value> {
    let stat = proc::stat(pid).ok()?;
    let rss_kb = usage::of(pid).ok().map(|usage| usage.rss_kb);
    let condition = proc::condition_of(pid);
    // Checked again afterwards: a pid is not given to the same process twice.
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

    fn subject(command: &mut Command) -> HungGateway {
        let leader = Arc::new(spawn_in_own_session(command).unwrap());
        let tree = Tree::new(&leader, "A=1".to_owned(), Orphans::Mixed);
        HungGateway { generation: 1, leader: Some(leader), tree }
    }

    fn wait_for_end(leader: &Handle) {
        while !leader.has_ended().unwrap() {
            thread::yield_now();
        }
    }

    fn seen(subject: HungGateway) -> Value {
        let folders = vec![("here", std::env::temp_dir()), ("nowhere", PathBuf::from("/nonexistent"))];
        let incident = Incident::new(Vec::new());
        look(&incident, subject, None, &Surroundings { port: 1, folders });
        incident.take()
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
    fn a_later_process_of_the_same_pid_is_no_member() {
        let me = i32::try_from(std::process::id()).unwrap();
        let start_time = proc::stat(me).unwrap().start_time;
        assert!(member(me, start_time).is_some());
        assert!(member(me, start_time + 1).is_none());
        let incident = Incident::new(vec![(TREE, json!([{}]))]);
        add_commands(&incident, &[(me, start_time + 1)], None);
        assert_eq!(incident.take()[TREE], json!([{}]));
    }

    #[test]
    fn what_is_found_in_time_is_kept_and_the_rest_is_named() {
        let incident = Incident::new(vec![("pid", json!(7))]);
        for part in ["machine", "port", "threads", "cgroup"] {
            incident.complete(part, json!({}));
        }
        incident.complete(PROCESS, json!({ "wchan": "" }));
        incident.complete(TREE, json!([{ "pid": 7 }, { "pid": 8 }]));
        incident.extend(PROCESS, json!({ "syscall": "0" }));
        incident.finish("wait");
        incident.set_command(1, "node".to_owned());
        let found = incident.take();
        assert_eq!((&found["complete"], &found["missing"]), (&json!(false), &json!(["commands", "disk"])));
        assert_eq!(found[TREE], json!([{ "pid": 7 }, { "pid": 8, "command": "node" }]));
        assert_eq!(found[PROCESS], json!({ "wchan": "", "syscall": "0" }));
        // The thread keeps running and changes nothing.
        incident.set_command(0, "late".to_owned());
        incident.complete("disk", json!({}));
        assert_eq!(found.get("disk"), None);
    }
}
