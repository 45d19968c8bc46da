//! How fast the tree of a gateway is killed, and whether all of it is.

use crate::measure::Failure;
use crate::say;
use crate::stand_in::Kind;
use crate::start::{Respawns, end, respawns};
use crate::table::{Row, median};
use crate::world::{Process, World, milliseconds};
use nix::sys::signal::Signal::{SIGKILL, SIGTERM};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::fs;
use std::io;
use std::process::{Child, Command, Stdio};

/// The members of the timed tree, without its leader.
const MEMBERS: usize = 200;

/// The members of a tree of the soak, without the leader and a chain that keeps forking.
const SOAKED: usize = 12;

/// Unrelated processes.
const CROWD: usize = 2000;

/// How often the survivors are counted: a single walk may still see a dying link of a chain.
const LOOKS: usize = 5;

/// The interval of progress messages in the soak.
const SOAK_STEP: usize = 100;

/// A short drain, since the gateway ignores SIGTERM.
const SHORT_DRAIN: [&str; 2] = ["--stop-timeout", "20ms"];

/// A gateway with all its children running.
fn hostile(world: &World, kind: &str, members: usize) -> Result<(Process, Pid, Vec<i32>), Failure> {
    gathered(world.place()?.supervisor(&SHORT_DRAIN, &[kind, &members.to_string()])?, kind, members)
}

/// A gateway with one child and without a control group.
fn hostile_without_group(world: &World) -> Result<(Process, Pid), Failure> {
    let (supervisor, leader, _) =
        gathered(world.place()?.supervisor_without_group(&SHORT_DRAIN, &["hostile", "1"])?, "hostile", 1)?;
    let group_of = |pid: u32| fs::read_to_string(format!("/proc/{pid}/cgroup"));
    if group_of(u32::try_from(leader.as_raw())?)? != group_of(supervisor.pid())? {
        return Err("the gateway has a control group of its own all the same".into());
    }
    Ok((supervisor, leader))
}

fn gathered(supervisor: Process, kind: &str, members: usize) -> Result<(Process, Pid, Vec<i32>), Failure> {
    let leader = Pid::from_raw(supervisor.next(Kind::Gateway)?.pid);
    let mut kids = Vec::new();
    for _ in 0..members + usize::from(kind == "raging") {
        kids.push(supervisor.next(Kind::Kid)?.pid);
    }
    supervisor.event("gateway.started")?;
    Ok((supervisor, leader, kids))
}

/// From the decision to kill two hundred hostile processes until they are gone.
pub(crate) fn kills(world: &World, runs: usize) -> Result<[Row; 3], Failure> {
    let (mut orphaned, mut whole, mut left) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let (mut supervisor, leader, kids) = hostile(world, "hostile", MEMBERS)?;
        kill(leader, SIGKILL)?;
        let (decided, _) = supervisor.event_at("gateway.exited")?;
        let (gone, _) = supervisor.event_at("tree.killed")?;
        orphaned.push(milliseconds(decided, gone));
        left.push(count(supervisor.survivors()?.iter().filter(|pid| kids.contains(pid)).count())?);
        supervisor.signal(SIGTERM)?;
        supervisor.wait()?;

        let (mut supervisor, ..) = hostile(world, "hostile", MEMBERS)?;
        supervisor.signal(SIGTERM)?;
        let (decided, _) = supervisor.event_at("stop.escalated")?;
        let (gone, _) = supervisor.event_at("tree.killed")?;
        whole.push(milliseconds(decided, gone));
        supervisor.wait()?;
        left.push(count(supervisor.survivors()?.len())?);
    }
    let kinds = "processes of eight hostile kinds in turn";
    Ok([
        Row::new("kill of 200", format!("gateway.exited to tree.killed: {kinds}"), "ms", orphaned).goal(250.0),
        Row::new("kill of 1 + 200", format!("stop.escalated to tree.killed: {kinds}"), "ms", whole).goal(250.0),
        Row::new("survivors", "of them, by a look at all processes", "", left).goal(0.0),
    ])
}

/// What two thousand unrelated processes add to the kill of a small tree and to the respawn of a gateway without one.
pub(crate) fn crowd(world: &World, runs: usize) -> Result<[Row; 8], Failure> {
    let [young, young_without_group] = younger(world, runs)?;
    let (stops, alone) = (stops(world, runs)?, respawns(world, runs)?);
    let crowd = Crowd::gather()?;
    let (stops_in_crowd, in_crowd) = (self::stops(world, runs)?, respawns(world, runs)?);
    drop(crowd);
    let walk = median(&stops_in_crowd) - median(&stops);
    let walk_of_younger = median(&young) - median(&stops);
    let walk_without_group = median(&young_without_group) - median(&stops);
    // Every spawn is slower among many processes.
    let cost = |respawns: &Respawns| median(&respawns.figures) - median(&respawns.floor);
    let sweep = cost(&in_crowd) - cost(&alone);
    let stop = "gateway.exited to tree.killed with one child left; floor: the same without the 2,000";
    let respawn = "SIGKILL of a lone stable gateway to the next one's first instruction; floor: kill, wait, spawn";
    Ok([
        Row::new("stop among 2,000 others", stop, "ms", stops_in_crowd).above(stops.clone()),
        Row::single("walk", "what the 2,000 add to that", walk, "ms", Some(20.0)),
        Row::new("stop among 2,000 younger", "the same, each of them younger than the gateway", "ms", young)
            .above(stops.clone()),
        Row::single("walk: younger", "what these add", walk_of_younger, "ms", Some(20.0)),
        Row::new("the same, no group", "of a gateway without a control group", "ms", young_without_group).above(stops),
        Row::single("walk: younger, no group", "what these add", walk_without_group, "ms", Some(20.0)),
        Row::new("respawn among 2,000 others", respawn, "ms", in_crowd.figures).above(in_crowd.floor),
        Row::single("sweep", "what they add to a respawn above its floor", sweep, "ms", Some(1.0)),
    ])
}

/// From the exit of a leader to that of the one child that it left.
fn stops(world: &World, runs: usize) -> Result<Vec<f64>, Failure> {
    let one = |_| {
        let (supervisor, leader, _) = hostile(world, "hostile", 1)?;
        stop(supervisor, leader)
    };
    (0..runs).map(one).collect()
}

fn stop(mut supervisor: Process, leader: Pid) -> Result<f64, Failure> {
    kill(leader, SIGKILL)?;
    let (ended, _) = supervisor.event_at("gateway.exited")?;
    let (gone, _) = supervisor.event_at("tree.killed")?;
    supervisor.signal(SIGTERM)?;
    supervisor.wait()?;
    Ok(milliseconds(ended, gone))
}

/// The same among two thousand processes that are younger than the gateways, with and without control groups.
fn younger(world: &World, runs: usize) -> Result<[Vec<f64>; 2], Failure> {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let (supervisor, leader, _) = hostile(world, "hostile", 1)?;
        with.push((supervisor, leader));
        without.push(hostile_without_group(world)?);
    }
    let crowd = Crowd::gather()?;
    let stop_all = |tree: Vec<(Process, Pid)>| tree.into_iter().map(|(supervisor, leader)| stop(supervisor, leader));
    let figures = [stop_all(with).collect::<Result<_, _>>()?, stop_all(without).collect::<Result<_, _>>()?];
    drop(crowd);
    Ok(figures)
}

/// Trees of every kind, one after the other, killed by a stop and by the death of the leader in turn. Fails if any process
/// survives.
pub(crate) fn soak(world: &World, runs: usize) -> Result<(), Failure> {
    let (mut survivors, mut members) = (0, 0);
    for run in 1..=runs {
        let (mut supervisor, leader, kids) = hostile(world, "raging", SOAKED)?;
        if run % 2 == 0 {
            kill(leader, SIGKILL)?;
            supervisor.event("tree.killed")?;
            survivors += supervisor.survivors()?.iter().filter(|pid| kids.contains(pid)).count();
        }
        end(&mut supervisor)?;
        members += kids.len();
        let mut most = 0;
        for _ in 0..LOOKS {
            most = most.max(supervisor.survivors()?.len());
        }
        survivors += most;
        if run % SOAK_STEP == 0 || run == runs {
            say(&format!("{run} trees, {members} processes and as many storms: {survivors} survivors"))?;
        }
    }
    if survivors == 0 { Ok(()) } else { Err(format!("{survivors} processes survived").into()) }
}

fn count(number: usize) -> Result<f64, Failure> {
    Ok(u32::try_from(number).map(f64::from)?)
}

/// Idle, unrelated processes.
struct Crowd(Vec<Child>);

impl Crowd {
    fn gather() -> io::Result<Self> {
        let mut crowd = Self(Vec::new());
        for _ in 0..CROWD {
            let mut sleeper = Command::new("sleep");
            sleeper.arg("600").stdin(Stdio::null()).stdout(Stdio::null());
            crowd.0.push(sleeper.spawn()?);
        }
        Ok(crowd)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for sleeper in &mut self.0 {
            // ESRCH: it has exited.
            let _gone = sleeper.kill();
            let _gone = sleeper.wait();
        }
    }
}
