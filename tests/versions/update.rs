//! The restart that an update requests. Releases that detect no supervisor start a detached successor and exit with 0.
//!
//! No package is replaced: the test writes the restart intent of an update to where the release keeps it, and sends the
//! restart signal.

use super::behaviour::Behaviour;
use super::look::{self, PATIENCE, ending, remarks, seconds};
use super::release::{Installed, RestartSignal};
use super::support::process::{Process, stat};
use super::support::supervisor::{Event, Supervisor};
use super::support::{Scene, wait_for};
use super::table::Column;
use nix::sys::signal::Signal;
use rusqlite::{Connection, OpenFlags, params};
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The outcome is final after this time.
const SETTLED: Duration = Duration::from_secs(75);

/// Only observed: the required outcome depends on the release.
pub(crate) fn measure(column: &mut Column, installed: &Installed) {
    column.measure(Behaviour::UpdateRestart, || ((), restart(installed)));
}

fn restart(installed: &Installed) -> String {
    let scene = Scene::new("");
    // The old one stays without a listener while its successor boots: a short hang timeout would kill both.
    let mut supervisor = look::start(look::launch(&scene, installed).without("--hang-after"));
    let gateway = supervisor.wait_started();
    leave_intent(&scene.state_dir(), gateway.pid);
    let before = supervisor.events().len();
    gateway.signal(match installed.release.restart_signal {
        RestartSignal::Usr1 => Signal::SIGUSR1,
        RestartSignal::Usr2 => Signal::SIGUSR2,
    });
    let text = outcome(&mut supervisor, &scene, gateway, before);
    supervisor.signal(Signal::SIGTERM);
    let code = supervisor.wait_exit().map_or_else(|| "a signal".to_owned(), |code| code.to_string());
    let left = scene.processes().len();
    format!("{text}; then a stop: {code}, {left} left")
}

/// `gateway-restart` for that pid, because of `update.run`: a row since the state is a database, a file before.
fn leave_intent(state: &Path, pid: i32) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    let now = i64::try_from(now.as_millis()).expect("the clock is before the year 292277026");
    let row = || -> rusqlite::Result<usize> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let store = Connection::open_with_flags(state.join("state/openclaw.sqlite"), flags)?;
        store.busy_timeout(Duration::from_secs(5))?;
        let columns = "(intent_key, kind, pid, created_at, reason, updated_at_ms)";
        let sql = format!("INSERT OR REPLACE INTO gateway_restart_intent {columns} VALUES (?1, ?1, ?2, ?3, ?4, ?3)");
        store.execute(&sql, params!["gateway-restart", pid, now, "update.run"])
    };
    if row().is_err() {
        let text = format!(r#"{{"kind":"gateway-restart","pid":{pid},"createdAt":{now},"reason":"update.run"}}"#);
        fs::write(state.join("gateway-restart-intent.json"), text).expect("the state folder can be written");
    }
}

/// Waits until the old one has exited and another serves, or until no change is expected.
fn outcome(supervisor: &mut Supervisor, scene: &Scene, gateway: Process, before: usize) -> String {
    let begin = Instant::now();
    let settled = |supervisor: &Supervisor| {
        let over = |name: &str| supervisor.events().iter().skip(before).any(|event| event.name() == name);
        over("supervisor.stopped") || over("gateway.started") || over("gateway.adopted") || begin.elapsed() > SETTLED
    };
    wait_for("the end of the restart", PATIENCE, || supervisor.story(), || settled(supervisor).then_some(()));
    let took = seconds(begin.elapsed());
    let events = supervisor.events();
    let since = || events.iter().skip(before);
    let spawns = since().filter(|event| event.name() == "gateway.spawned").count();
    let ends: Vec<_> = since().filter(|event| event.name() == "gateway.exited").map(ending).collect();
    let old = match (gateway.is_alive(), ends.is_empty()) {
        (true, _) => "same pid".to_owned(),
        (false, false) => format!("old one: {}", ends.join(", ")),
        (false, true) => "old one gone, untold".to_owned(),
    };
    let told = remarks(supervisor, before);
    let killed = since().filter(|event| event.name() == "tree.killed").map(killed).collect::<String>();
    format!("{old}{killed}; {spawns} spawns; {}; {told} (after {took})", serving(scene, supervisor, gateway))
}

/// What the supervisor killed of the old one's tree, perhaps its detached successor.
fn killed(event: &Event) -> String {
    format!("; {} KILLED: {}", event.number("members"), event.value()["commands"])
}

/// The process that answers on the port, and its cgroup.
fn serving(scene: &Scene, supervisor: &Supervisor, old: Process) -> String {
    if !look::is_healthy(scene.port()) {
        return "no gateway serves".to_owned();
    }
    let leads = |process: &Process| stat(process.pid).is_some_and(|stat| stat.session == process.pid);
    let title = |process: &Process| fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    let is_gateway = |process: &Process| title(process).starts_with(b"openclaw") && leads(process);
    let gateways: Vec<_> =
        scene.processes().into_iter().filter(|process| *process != old && is_gateway(process)).collect();
    let child = |process: &Process| {
        let parent = stat(process.pid).map_or(0, |stat| stat.parent);
        if parent == supervisor.pid() { "a child of ours" } else { "no child of ours" }
    };
    match gateways.first() {
        Some(process) => format!("{} serves", child(process)),
        None if old.is_alive() => "the old one serves".to_owned(),
        None => "an unknown process serves".to_owned(),
    }
}
