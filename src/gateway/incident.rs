//! What may tell why a gateway hangs, gathered while it is still there to be looked at.
//!
//! A look at a process that hangs may hang itself: `/proc/PID/cmdline` waits for the lock of the memory map, and disks may
//! be what it hangs on. So the looks are taken on a thread of their own, the harmless ones first, and what is there when
//! the time is over is what there is.

use super::process::Gateway;
use crate::core::{Case, Generation, Sample};
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

/// The gateway to be looked at.
#[derive(Debug)]
pub struct Subject {
    generation: Generation,
    leader: Option<Arc<Handle>>,
    members: Vec<(i32, u64)>,
}

impl Subject {
    /// That of a gateway, as it is now.
    #[must_use]
    pub fn of(gateway: &mut Gateway) -> Self {
        let members = gateway.snapshot();
        Self { generation: gateway.generation(), leader: gateway.leader(), members }
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

/// The parts that are there already.
type Parts = Arc<Mutex<Map<String, Value>>>;

/// Gathers all there is, for [`TIME_MAX`] at the most. `at` is when that began, for people.
pub async fn gather(subject: Subject, case: &Case, surroundings: Surroundings, at: String) -> Value {
    let parts = Parts::default();
    let pid = subject.leader.as_ref().map(|leader| leader.pid());
    for (name, value) in told(subject.generation, pid, case, at) {
        add(&parts, name, value);
    }
    let (done, over) = oneshot::channel();
    let seen = Arc::clone(&parts);
    let looks = move || {
        look(&seen, &subject, &surroundings);
        // Nobody waits for it any more where the time is over.
        let _late = done.send(());
    };
    // Not one of the runtime's threads, which its end waits for.
    let complete = match thread::Builder::new().name("incident".to_owned()).spawn(looks) {
        Ok(_detached) => timeout(TIME_MAX, over).await.is_ok_and(|over| over.is_ok()),
        Err(error) => {
            add(&parts, "error", json!(format!("no thread to look around with: {error}")));
            false
        }
    };
    add(&parts, "complete", complete.into());
    let parts = std::mem::take(&mut *lock(&parts));
    Value::Object(parts)
}

fn lock(parts: &Parts) -> MutexGuard<'_, Map<String, Value>> {
    parts.lock().unwrap_or_else(PoisonError::into_inner)
}

fn add(parts: &Parts, name: &str, value: Value) {
    lock(parts).insert(name.to_owned(), value);
}

/// What is known without a look.
fn told(generation: Generation, pid: Option<i32>, case: &Case, at: String) -> Vec<(&'static str, Value)> {
    let probes = case
        .looks
        .iter()
        .map(|look| json!({ "ago_ms": milliseconds(look.ago), "verdict": look.verdict.name(), "detail": look.detail }));
    let samples = case.samples.iter().map(|(ago, Sample { cpu, rss_kb, tree_rss_kb })| {
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
fn look(parts: &Parts, subject: &Subject, surroundings: &Surroundings) {
    add(parts, "machine", inspection::machine());
    add(parts, "port", inspection::port(surroundings.port));
    if let Some(leader) = &subject.leader {
        let (process, threads) = (inspection::process(leader.pid()), inspection::threads(leader.pid()));
        // If it is still there, all of that was about it, and not about a later process of that number.
        if matches!(leader.has_ended(), Ok(false)) {
            add(parts, "process", process);
            add(parts, "threads", threads);
        }
    }
    let folders = surroundings.folders.iter();
    let free = folders.map(|(name, path)| ((*name).to_owned(), free_of(path).unwrap_or_else(|error| json!(error))));
    add(parts, "disk", Value::Object(free.collect()));
    let members = subject.members.iter().take(MEMBERS_MAX);
    add(parts, "tree", members.filter_map(|&(pid, start_time)| member(pid, start_time)).collect());
}

fn free_of(path: &std::path::Path) -> Result<Value, String> {
    let stat = rustix::fs::statvfs(path).map_err(|error| io::Error::from(error).to_string())?;
    let free_kb = stat.f_bavail.saturating_mul(stat.f_frsize) / 1024;
    Ok(json!({ "path": path, "free_kb": free_kb, "free_files": stat.f_favail }))
}

/// One member of the tree, unless its number is somebody else's by now.
fn member(pid: i32, start_time: u64) -> Option<Value> {
    let stat = proc::stat(pid).ok().filter(|stat| stat.start_time == start_time)?;
    let rss_kb = usage::of(pid).ok().map(|usage| usage.rss_kb);
    let condition = proc::condition_of(pid);
    let command = proc::command_of(pid);
    Some(json!({ "pid": pid, "ppid": stat.parent, "condition": condition, "rss_kb": rss_kb, "command": command }))
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
