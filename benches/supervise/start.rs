//! The times of a start, a restart and a refused start.

use crate::measure::Failure;
use crate::stand_in::Kind;
use crate::table::Row;
use crate::world::{Place, Process, World, milliseconds, now};
use nix::sys::signal::Signal::{SIGKILL, SIGTERM, SIGUSR2};
use nix::sys::signal::kill;
use nix::unistd::Pid;
use std::time::Duration;

/// Makes a gateway stable at once, so that its restart is neither delayed nor counted.
const STABLE_AT_ONCE: [&str; 6] = ["--stable-after", "1ms", "--boot-limit", "0", "--probe-interval", "100ms"];

/// Time for at least one more probe after the one that found the gateway started.
const UNTIL_STABLE: Duration = Duration::from_millis(250);

/// The exit code of a start beside another gateway.
pub(crate) const DUPLICATE: i32 = 78;

/// From the start of the supervisor to the gateway's first instruction, in an empty and in a used folder.
pub(crate) fn start(world: &World, runs: usize) -> Result<[Row; 2], Failure> {
    let (mut fresh, mut again, mut floor) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let place = world.place()?;
        let bare = place.gateway()?;
        let first = bare.next(Kind::Gateway)?;
        floor.push(milliseconds(bare.begun, first.at));
        drop(bare);

        for figures in [&mut fresh, &mut again] {
            let mut supervisor = place.supervisor(&[], &[])?;
            let first = supervisor.next(Kind::Gateway)?;
            figures.push(milliseconds(supervisor.begun, first.at));
            supervisor.event("gateway.started")?;
            end(&mut supervisor)?;
        }
    }
    let note = "exec of the supervisor to the gateway's first instruction; floor: spawn of the gateway alone";
    Ok([
        Row::new("start, empty folder", note, "ms", fresh).above(floor.clone()).goal(6.0),
        Row::new("start, used folder", "the same beside the records of earlier starts", "ms", again)
            .above(floor)
            .goal(6.0),
    ])
}

/// From the SIGKILL of a stable gateway to the first instruction of the next one.
pub(crate) fn respawn(world: &World, runs: usize) -> Result<Row, Failure> {
    let Respawns { figures, floor } = respawns(world, runs)?;
    let note = "SIGKILL of a stable gateway to the next one's first instruction; floor: kill, wait, spawn";
    Ok(Row::new("respawn", note, "ms", figures).above(floor).goal(2.5))
}

/// Respawns with and without a supervisor, alternately.
pub(crate) struct Respawns {
    pub(crate) figures: Vec<f64>,
    pub(crate) floor: Vec<f64>,
}

pub(crate) fn respawns(world: &World, runs: usize) -> Result<Respawns, Failure> {
    let (mut figures, mut floor) = (Vec::new(), Vec::new());
    let (place, bare_place) = (world.place()?, world.place()?);
    let mut supervisor = place.supervisor(&STABLE_AT_ONCE, &[])?;
    let mut current = supervisor.next(Kind::Gateway)?;
    for _ in 0..runs {
        supervisor.event("gateway.started")?;
        supervisor.pass(UNTIL_STABLE)?;
        floor.push(respawn_bare(&bare_place)?);

        let killed = now();
        kill(Pid::from_raw(current.pid), SIGKILL)?;
        current = supervisor.next(Kind::Gateway)?;
        figures.push(milliseconds(killed, current.at));
        let plan = supervisor.event("restart.scheduled")?;
        if plan["delay_ms"] != 0 {
            return Err(format!("the restart was delayed: {plan}").into());
        }
    }
    end(&mut supervisor)?;
    Ok(Respawns { figures, floor })
}

fn respawn_bare(place: &Place) -> Result<f64, Failure> {
    let mut first = place.gateway()?;
    first.next(Kind::Listening)?;
    let killed = now();
    first.signal(SIGKILL)?;
    first.wait()?;
    let second = place.gateway()?;
    Ok(milliseconds(killed, second.next(Kind::Gateway)?.at))
}

/// From the last instruction of a gateway that exits with 0 for a planned restart to the first one of the next. OpenClaw's CLI
/// is asked about the exit afterwards.
pub(crate) fn planned(world: &World, runs: usize) -> Result<Row, Failure> {
    let (mut figures, mut floor) = (Vec::new(), Vec::new());
    let (place, bare_place) = (world.place()?, world.place()?);
    let mut supervisor = place.supervised_openclaw(&STABLE_AT_ONCE)?;
    let mut current = supervisor.next(Kind::Gateway)?;
    supervisor.event("gateway.started")?;
    for _ in 0..runs {
        supervisor.pass(UNTIL_STABLE)?;
        floor.push(planned_bare(&bare_place)?);

        kill(Pid::from_raw(current.pid), SIGUSR2)?;
        let left = supervisor.next(Kind::Leaving)?;
        current = supervisor.next(Kind::Gateway)?;
        figures.push(milliseconds(left.at, current.at));
        let plan = supervisor.event("restart.scheduled")?;
        if plan["delay_ms"] != 0 {
            return Err(format!("the restart was delayed: {plan}").into());
        }
        supervisor.event("handoff.accepted")?;
    }
    end(&mut supervisor)?;
    let note =
        "exit with 0 by plan to the next one's first instruction, its handoff accepted; floor: exit, wait, spawn";
    Ok(Row::new("planned respawn", note, "ms", figures).above(floor).goal(10.0))
}

fn planned_bare(place: &Place) -> Result<f64, Failure> {
    let mut first = place.openclaw()?;
    first.next(Kind::Listening)?;
    first.signal(SIGUSR2)?;
    let left = first.next(Kind::Leaving)?;
    first.wait()?;
    let second = place.openclaw()?;
    Ok(milliseconds(left.at, second.next(Kind::Gateway)?.at))
}

/// From the start of a supervisor beside a healthy gateway to its exit: in the same state directory and in
/// another one, alternately.
pub(crate) fn duplicate(world: &World, runs: usize) -> Result<Row, Failure> {
    let (mut figures, mut floor, mut spawns) = (Vec::new(), Vec::new(), 0);
    let place = world.place()?;
    let elsewhere = place.beside(&world.place()?);
    let mut owner = place.supervisor(&[], &[])?;
    owner.event("gateway.started")?;
    for home in [&place, &elsewhere].into_iter().cycle().take(runs) {
        let mut bare = home.nothing()?;
        bare.wait()?;
        floor.push(milliseconds(bare.begun, now()));

        let mut second = home.supervisor(&[], &[])?;
        let status = second.wait()?;
        figures.push(milliseconds(second.begun, now()));
        spawns += second.count_rest(Kind::Gateway)?;
        if status.code() != Some(DUPLICATE) {
            return Err(format!("a duplicate ended with {status}").into());
        }
    }
    end(&mut owner)?;
    let note = format!(
        "start beside a healthy gateway to exit 78, {spawns} spawns; floor: spawn and wait of a program that does nothing"
    );
    Ok(Row::new("duplicate", note, "ms", figures).above(floor).goal(20.0))
}

/// Stops a supervisor with SIGTERM.
pub(crate) fn end(supervisor: &mut Process) -> Result<(), Failure> {
    supervisor.signal(SIGTERM)?;
    let status = supervisor.wait()?;
    if status.success() { Ok(()) } else { Err(format!("the supervisor ended with {status}").into()) }
}
