//! The cost of the lease, and its purpose: one gateway, however many supervisors start.

use crate::measure::Failure;
use crate::stand_in::Kind;
use crate::start::{DUPLICATE, end};
use crate::table::Row;
use crate::world::{Place, Process, World, milliseconds, now, wait_until_left};
use nix::sys::signal::Signal::SIGKILL;
use openclaw_supervise::core::{LeaseAnswer, LeaseRequest};
use openclaw_supervise::store::{BasisChoice, Clocks, Limits, News, Place as StorePlace, SpawnIntent, Store};
use std::path::Path;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

/// Simultaneous starters.
const CROWD: usize = 100;

/// Crowds take long and vary little.
const CROWDS_MAX: usize = 5;

/// How long a supervisor that follows a dead one is watched for needless spawns.
const WATCHED: Duration = Duration::from_secs(6);

/// A hundred starters at once: with one state directory, and with a hundred that share a port.
pub(crate) fn crowds(world: &World, runs: usize) -> Result<[Row; 2], Failure> {
    let (mut together, mut apart) = (Vec::new(), Vec::new());
    for _ in 0..runs.min(CROWDS_MAX) {
        let place = world.place()?;
        together.push(crowd(&std::iter::repeat_n(&place, CROWD).collect::<Vec<_>>())?);
        let mut homes = vec![world.place()?];
        while let Some(first) = homes.first().filter(|_| homes.len() < CROWD) {
            homes.push(first.beside(&world.place()?));
        }
        apart.push(crowd(&homes.iter().collect::<Vec<_>>())?);
    }
    let note = "all of them let go at once, to the last exit: one gateway, 99 exits with 78";
    Ok([
        Row::new("100 starters, one state directory", note, "ms", together).goal(3000.0),
        Row::new("100 starters, 100 state directories, one port", note, "ms", apart).goal(3000.0),
    ])
}

/// From the release of all starters until one gateway and one supervisor are left. Anything else is an error.
fn crowd(places: &[&Place]) -> Result<f64, Failure> {
    let (gate, holder) = std::io::pipe()?;
    let mut starters = places.iter().map(|place| place.supervisor_behind(&gate)).collect::<Result<Vec<_>, _>>()?;
    for starter in &starters {
        starter.next(Kind::AtGate)?;
    }
    let begun = now();
    drop(holder);
    let ended = wait_until_left(&mut starters, 1)?;
    let last_exit = now();
    if let Some((_, status)) = ended.iter().find(|(_, status)| status.code() != Some(DUPLICATE)) {
        return Err(format!("one of {} starters ended with {status}", places.len()).into());
    }
    let has_ended = |index: usize| ended.iter().any(|(other, _)| *other == index);
    let mut spawns = 0;
    let mut first = 0;
    for (index, starter) in starters.iter_mut().enumerate() {
        if has_ended(index) {
            spawns += starter.count_rest(Kind::Gateway)?;
        } else {
            first = starter.next(Kind::Gateway)?.at;
            starter.event("gateway.started")?;
            end(starter)?;
            spawns += 1 + starter.count_rest(Kind::Gateway)?;
        }
    }
    if spawns == 1 {
        Ok(milliseconds(begun, last_exit.max(first)))
    } else {
        Err(format!("{} starters spawned {spawns} gateways", places.len()).into())
    }
}

/// From the start of a supervisor after the SIGKILL of its predecessor to `gateway.adopted`, and the gateways that were
/// spawned although one was alive.
pub(crate) fn adoption(world: &World, runs: usize) -> Result<[Row; 2], Failure> {
    let (mut figures, mut floor) = (Vec::new(), Vec::new());
    let place = world.place()?;
    let first = place.supervisor(&[], &[])?;
    let gateway = first.next(Kind::Gateway)?;
    first.event("gateway.started")?;
    // Dropping a supervisor kills the gateway that it has started.
    let mut all = vec![first];
    for _ in 0..runs {
        kill(all.last_mut())?;
        let mut bare = place.nothing()?;
        bare.wait()?;
        floor.push(milliseconds(bare.begun, now()));

        let next = place.supervisor(&[], &[])?;
        let (at, event) = next.event_at("gateway.adopted")?;
        figures.push(milliseconds(next.begun, at));
        if event["pid"] != gateway.pid {
            return Err(format!("not the gateway {} was adopted: {event}", gateway.pid).into());
        }
        all.push(next);
    }
    let mut last = all.pop().ok_or("no supervisor is left")?;
    last.pass(WATCHED)?;
    end(&mut last)?;
    let mut spawns = last.count_rest(Kind::Gateway)?;
    for supervisor in &all {
        spawns += supervisor.count_rest(Kind::Gateway)?;
    }
    if spawns > 0 {
        return Err(format!("{spawns} gateways were spawned beside the one that was there").into());
    }
    let note = "start after a SIGKILL of the supervisor to gateway.adopted; floor: spawn and wait of a program that does nothing";
    let spawns = f64::from(u32::try_from(spawns)?);
    let futile = Row::single("futile spawns", "after those kills, and 6 s later", spawns, "", Some(0.0));
    Ok([Row::new("adoption", note, "ms", figures).above(floor), futile])
}

fn kill(supervisor: Option<&mut Process>) -> Result<(), Failure> {
    let supervisor = supervisor.ok_or("no supervisor is left")?;
    supervisor.signal(SIGKILL)?;
    supervisor.wait().map(drop)
}

/// The time of the store alone: for the lease, in an empty and in a used folder, and for an intent.
pub(crate) fn store(world: &World, runs: usize) -> Result<[Row; 3], Failure> {
    let (mut fresh, mut again, mut intents) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..runs {
        let place = world.place()?;
        for figures in [&mut fresh, &mut again] {
            let (store, news) = open(&place.home().join("store"), place.port())?;
            let begun = now();
            store.ask(1, LeaseRequest::Take { unchanged: None }, Duration::ZERO);
            let generation = await_lease(&news)? + 1;
            figures.push(milliseconds(begun, now()));

            let begun = now();
            let (instance, command) = (format!("{generation:032}"), "openclaw gateway run".to_owned());
            store.intend(SpawnIntent { generation, instance, command });
            while !matches!(news.recv_timeout(crate::world::PATIENCE)?, News::Intended { .. }) {}
            intents.push(milliseconds(begun, now()));
            if !store.close(true) {
                return Err("the store did not close".into());
            }
        }
    }
    Ok([
        Row::new("store: lease, empty folder", "inside: asked for to granted", "ms", fresh),
        Row::new("store: lease, used folder", "inside: asked for to granted", "ms", again),
        Row::new("store: intent", "inside: told to written down", "ms", intents),
    ])
}

fn open(dir: &Path, port: u16) -> Result<(Store, Receiver<News>), Failure> {
    let (sender, news) = channel();
    let (host, key) = ("127.0.0.1".to_owned(), dir.display().to_string());
    let place = StorePlace {
        dir: dir.to_owned(),
        key,
        port,
        is_guess: false,
        host,
        socket: dir.join("control.sock"),
        standby_socket: dir.join("standby.sock"),
        basis: BasisChoice::Auto,
        is_watched: false,
    };
    let tell = move |news| {
        // The last log lines come after the sample.
        let _unheard = sender.send(news);
    };
    Ok((Store::open(place, Clocks::system(), Limits::default(), tell)?, news))
}

/// The latest generation on record.
fn await_lease(news: &Receiver<News>) -> Result<u64, Failure> {
    loop {
        match news.recv_timeout(crate::world::PATIENCE)? {
            News::Leased { answer: LeaseAnswer::Acquired(acquired), .. } if acquired.trouble.is_none() => {
                return Ok(acquired.past.generation);
            }
            News::Leased { answer, .. } => return Err(format!("no lease: {answer:?}").into()),
            _ => {}
        }
    }
}
