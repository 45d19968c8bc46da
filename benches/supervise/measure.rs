//! The survivors of a stop, and the idle cost.

use crate::stand_in::{KIDS, Kind};
use crate::table::Row;
use crate::world::{Process, World, milliseconds, now};
use nix::sys::signal::Signal::SIGTERM;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

pub(crate) type Failure = Box<dyn std::error::Error>;

/// The observation time of an idle supervisor: two probes at the default interval.
const IDLE: Duration = Duration::from_secs(10);

/// From SIGTERM to the exit of the supervisor of a gateway with fifty children, and the survivors.
pub(crate) fn stop(world: &World, runs: usize) -> Result<[Row; 2], Failure> {
    let (mut figures, mut left) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let mut supervisor = world.place()?.supervisor(&[], &["kids"])?;
        for _ in 0..KIDS {
            supervisor.next(Kind::Kid)?;
        }
        supervisor.event("gateway.started")?;
        let asked = now();
        supervisor.signal(SIGTERM)?;
        supervisor.wait()?;
        figures.push(milliseconds(asked, now()));
        left.push(f64::from(u32::try_from(supervisor.survivors()?.len())?));
    }
    let note =
        "SIGTERM to the exit, over 20 plain processes, 10 deaf to SIGTERM, 10 in sessions of their own, 10 daemons";
    let time = Row::new("stop of 1 + 50", note, "ms", figures);
    Ok([time, Row::new("survivors", "of the 51 at the exit", "", left).goal(0.0)])
}

/// The cost of a supervisor that only probes.
pub(crate) fn idle(world: &World) -> Result<Vec<Row>, Failure> {
    let mut supervisor = world.place()?.supervisor(&[], &[])?;
    supervisor.event("gateway.started")?;
    // The first probe at the slow interval still allocates what later ones reuse.
    supervisor.pass(IDLE / 2 + Duration::from_secs(1))?;
    let (all, store) = (switches(&supervisor, None)?, switches(&supervisor, Some("store"))?);
    supervisor.pass(IDLE)?;
    let (all, store) = (switches(&supervisor, None)? - all, switches(&supervisor, Some("store"))? - store);
    let pss = field(&process_file(&supervisor, "smaps_rollup")?, "Pss:")?;
    let status = process_file(&supervisor, "status")?;
    let (anonymous, threads) = (field(&status, "RssAnon:")?, field(&status, "Threads:")?);
    supervisor.signal(SIGTERM)?;
    supervisor.wait()?;
    Ok(vec![
        Row::single("idle: PSS", "shared pages counted by their share", pss / 1024.0, "MiB", Some(4.0)),
        Row::single("idle: RssAnon", "memory that is its own", anonymous / 1024.0, "MiB", Some(0.7)),
        Row::single("idle: context switches", "in 10 s, with a look every 5 s", all, "", Some(12.0)),
        Row::single("idle: those of the store", "of its thread alone, with the lease held", store, "", Some(0.0)),
        Row::single("idle: threads", "", threads, "", None),
    ])
}

/// The context switches, voluntary or not, of the thread with this name or of all threads.
fn switches(process: &Process, name: Option<&str>) -> Result<f64, Failure> {
    let (mut sum, mut threads) = (0.0, 0_u32);
    for task in fs::read_dir(folder(process).join("task"))? {
        let task = task?.path();
        if name.is_some_and(|name| fs::read_to_string(task.join("comm")).is_ok_and(|comm| comm.trim() != name)) {
            continue;
        }
        threads += 1;
        let status = fs::read_to_string(task.join("status"))?;
        sum += field(&status, "voluntary_ctxt_switches:")? + field(&status, "nonvoluntary_ctxt_switches:")?;
    }
    if threads == 0 { Err(format!("no thread {name:?}").into()) } else { Ok(sum) }
}

fn folder(process: &Process) -> PathBuf {
    PathBuf::from(format!("/proc/{}", process.pid()))
}

fn process_file(process: &Process, name: &str) -> Result<String, Failure> {
    Ok(fs::read_to_string(folder(process).join(name))?)
}

/// The number after `name`.
fn field(text: &str, name: &str) -> Result<f64, Failure> {
    let rest = text.lines().find_map(|line| line.strip_prefix(name)).ok_or_else(|| format!("no {name} in /proc"))?;
    let number = rest.split_whitespace().next().ok_or_else(|| format!("{name} is empty"))?;
    Ok(number.parse()?)
}
