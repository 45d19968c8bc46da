//! One gateway under one supervisor, from its start to its stop, with one supervisor's death in between.

use super::behaviour::Behaviour;
use super::look::{self, PATIENCE, ending, millis, remarks, seconds};
use super::release::{Installed, RestartSignal};
use super::support::process::{Process, describe};
use super::support::supervisor::{Event, Said, Supervisor};
use super::support::{Scene, port, wait_for};
use super::table::Column;
use nix::sys::signal::Signal;
use std::time::{Duration, Instant};

/// A crash would have been followed by a backoff of at least 500 ms.
const AT_ONCE: Duration = Duration::from_millis(450);

/// Measures all in sequence: each step needs the state that the previous one leaves.
pub(crate) fn measure(column: &mut Column, installed: &Installed) {
    column.measure(Behaviour::Engines, || ((), installed.engines().to_owned()));
    // A missing answer leaves the rest of the column unreached, which the table shows.
    let _: Option<()> = one_life(column, installed);
    column.measure(Behaviour::StopInBoot, || ((), stop_in_boot(installed)));
}

fn one_life(column: &mut Column, installed: &Installed) -> Option<()> {
    let scene = Scene::new("");
    let (mut supervisor, first) = column.measure(Behaviour::Start, || start(&scene, installed))?;
    for (row, state) in [(Behaviour::DuplicateSameState, None), (Behaviour::DuplicateOtherState, Some("other-state"))] {
        column.measure(row, || ((), duplicate(&scene, installed, state, first)));
    }
    let second = column.measure(Behaviour::Crash, || crash(&mut supervisor, first))?;
    let signal = installed.release.restart_signal;
    let before = supervisor.events().len();
    let third = column.measure(Behaviour::OwnRestart, || own_restart(&mut supervisor, &scene, second, signal))?;
    column.measure(Behaviour::Handoff, || ((), handoff(&supervisor, before)));
    let fourth = column.measure(Behaviour::PlannedRestart, || planned_restart(&mut supervisor, third))?;
    let fifth = column.measure(Behaviour::Hang, || hang(&mut supervisor, fourth))?;
    let mut next = column.measure(Behaviour::Adoption, || adoption(&scene, installed, supervisor, fifth))?;
    let sixth = column.measure(Behaviour::RestartVerb, || restart_verb(&scene, &mut next, fifth))?;
    column.measure(Behaviour::Stop, || ((), stop(&scene, &mut next, sixth)))
}

fn start(scene: &Scene, installed: &Installed) -> ((Supervisor, Process), String) {
    let mut supervisor = look::start(look::launch(scene, installed));
    let spawned = supervisor.wait_event("gateway.spawned");
    let listening = supervisor.wait_event("gateway.listening");
    let started = supervisor.wait_event("gateway.started");
    let phases = [&listening, &started].map(|event| seconds(event.seen.duration_since(spawned.seen)));
    let [listens, serves] = phases;
    let path = look::startup_path(scene.port());
    let text = format!("listening {listens}, started {serves}; `/startupz` {path}");
    ((supervisor, started.process()), text)
}

/// A second supervisor ends with 78 and starts nothing.
fn duplicate(scene: &Scene, installed: &Installed, state: Option<&str>, gateway: Process) -> String {
    let mut launch = look::launch(scene, installed);
    if let Some(state) = state {
        launch = launch.option("--state-dir", &scene.root().join(state).display().to_string());
    }
    let mut second = look::start(launch);
    second.expect_exit(78);
    let took = second.age();
    assert_eq!(second.count("gateway.spawned"), 0, "it started a gateway\n{}", second.story());
    assert!(gateway.is_alive() && look::is_healthy(scene.port()), "the gateway was harmed\n{}", second.story());
    format!("78 in {}, 0 spawns", millis(took))
}

fn assert_gone(tree: &[Process], supervisor: &Supervisor) {
    let alive: Vec<_> = tree.iter().copied().filter(|process| process.is_alive()).collect();
    assert!(alive.is_empty(), "{} of the old tree are left: {}\n{}", alive.len(), describe(&alive), supervisor.story());
}

/// The exit of one gateway and the start of the next, with their times.
fn replacement(supervisor: &mut Supervisor, old: Process, tree: &[Process]) -> (Process, Event, Duration, Duration) {
    let exited = supervisor.wait_event("gateway.exited");
    let spawned = supervisor.wait_event("gateway.spawned");
    assert_gone(tree, supervisor);
    let started = supervisor.wait_event("gateway.started");
    let new = started.process();
    assert_ne!(new, old, "the old one started again\n{}", supervisor.story());
    let gap = spawned.seen.duration_since(exited.seen);
    (new, exited.clone(), gap, started.seen.duration_since(exited.seen))
}

fn crash(supervisor: &mut Supervisor, gateway: Process) -> (Process, String) {
    let tree = gateway.tree();
    gateway.kill();
    let (new, exited, gap, whole) = replacement(supervisor, gateway, &tree);
    let text = format!(
        "{}, tree of {} gone, next spawned after {}, started after {}",
        ending(&exited),
        tree.len(),
        millis(gap),
        seconds(whole)
    );
    (new, text)
}

/// Some restart in place, some exit with 0 for a successor. Neither is a crash.
fn own_restart(
    supervisor: &mut Supervisor,
    scene: &Scene,
    gateway: Process,
    signal: RestartSignal,
) -> (Process, String) {
    let (signal, name) = match signal {
        RestartSignal::Usr1 => (Signal::SIGUSR1, "SIGUSR1"),
        RestartSignal::Usr2 => (Signal::SIGUSR2, "SIGUSR2"),
    };
    let before = supervisor.events().len();
    let tree = gateway.tree();
    gateway.signal(signal);
    let sent = Instant::now();
    let port = scene.port();
    wait_for(
        "the restart's beginning",
        PATIENCE,
        || supervisor.story(),
        || (!gateway.is_alive() || !look::is_healthy(port)).then_some(()),
    );
    let closed = Instant::now();
    wait_for(
        "the restart's end",
        PATIENCE,
        || supervisor.story(),
        || (!gateway.is_alive() || look::is_healthy(port)).then_some(()),
    );
    let away = closed.elapsed();
    if gateway.is_alive() {
        // Time for a few more probes.
        let settled = Instant::now() + Duration::from_secs(5);
        wait_for(
            "five seconds of health",
            PATIENCE,
            || supervisor.story(),
            || {
                assert!(gateway.is_alive(), "it ended after its restart\n{}", supervisor.story());
                (Instant::now() > settled && look::is_healthy(port)).then_some(())
            },
        );
        for name in ["gateway.hung", "gateway.exited", "restart.scheduled", "startup.timed_out"] {
            let told = supervisor.events().iter().skip(before).any(|event| event.name() == name);
            assert!(!told, "an in-process restart led to {name}\n{}", supervisor.story());
        }
        let told = remarks(supervisor, before);
        return (gateway, format!("{name}: same pid, away {}; {told}", seconds(away)));
    }
    let (new, exited, gap, whole) = replacement(supervisor, gateway, &tree);
    assert_eq!(ending(&exited), "exit 0", "it ended otherwise\n{}", supervisor.story());
    assert!(gap < AT_ONCE, "the respawn took {gap:?}\n{}", supervisor.story());
    let drained = seconds(exited.seen.saturating_duration_since(sent));
    let text = format!(
        "{name}: exit 0 after {drained} ({}), next spawned after {}, started after {}",
        exited.text("cause"),
        millis(gap),
        seconds(whole)
    );
    (new, text)
}

/// The handoff verdict on the restart, once the next gateway has started. A restart in place has none.
fn handoff(supervisor: &Supervisor, before: usize) -> String {
    let ended = supervisor.events().iter().skip(before).any(|event| event.name() == "gateway.exited");
    if !ended {
        return "none: the restart was in-process".to_owned();
    }
    let told = || supervisor.events().into_iter().skip(before).find(|event| event.name().starts_with("handoff."));
    let event = wait_for("the word about a planned restart", PATIENCE, || supervisor.story(), told);
    let reason = event.value()["reason"].as_str().unwrap_or("no reason").to_owned();
    assert_eq!(
        event.name(),
        "handoff.accepted",
        "a restart of its own is not planned: {reason}\n{}",
        supervisor.story()
    );
    format!("{} ({reason})", event.name())
}

/// It spends neither budget nor backoff.
fn planned_restart(supervisor: &mut Supervisor, gateway: Process) -> (Process, String) {
    let before = supervisor.events().len();
    let tree = gateway.tree();
    supervisor.signal(Signal::SIGHUP);
    let asked = supervisor.wait_event("restart.requested");
    let (new, exited, gap, whole) = replacement(supervisor, gateway, &tree);
    let text = planned(supervisor, &exited, before, gap);
    let drained = seconds(exited.seen.duration_since(asked.seen));
    (new, format!("{text}, drained in {drained}, started after {}", seconds(whole)))
}

fn planned(supervisor: &Supervisor, exited: &Event, before: usize, gap: Duration) -> String {
    assert_eq!(ending(exited), "exit 0", "the drain ended otherwise\n{}", supervisor.story());
    assert!(gap < AT_ONCE, "the respawn took {gap:?}\n{}", supervisor.story());
    let events = supervisor.events();
    let mut spawned = events.iter().skip(before).filter(|event| event.name() == "gateway.spawned");
    let attempt = spawned.next().map(|event| event.number("attempt"));
    format!("exit 0 ({}), next spawned after {}, attempt {}", exited.text("cause"), millis(gap), attempt.unwrap_or(0))
}

fn hang(supervisor: &mut Supervisor, gateway: Process) -> (Process, String) {
    let tree = gateway.tree();
    gateway.signal(Signal::SIGSTOP);
    let frozen = Instant::now();
    let hung = supervisor.wait_event("gateway.hung");
    let (new, exited, _, whole) = replacement(supervisor, gateway, &tree);
    let text = format!(
        "hung told after {}, {}, started {} after that end",
        seconds(hung.seen.duration_since(frozen)),
        ending(&exited),
        seconds(whole)
    );
    (new, text)
}

/// The supervisor is killed; the next one adopts its gateway.
fn adoption(scene: &Scene, installed: &Installed, old: Supervisor, gateway: Process) -> (Supervisor, String) {
    drop(old);
    assert!(gateway.is_alive(), "the gateway died with its supervisor");
    let mut next = look::start(look::launch(scene, installed));
    let adopted = next.wait_event("gateway.adopted");
    let took = adopted.seen.duration_since(Instant::now().checked_sub(next.age()).expect("it was started before"));
    assert_eq!(adopted.process(), gateway, "it adopted another one\n{}", next.story());
    // Only a probe shows that it supervises the gateway.
    wait_for(
        "the adopted gateway's health",
        PATIENCE,
        || next.story(),
        || look::is_healthy(scene.port()).then_some(()),
    );
    assert_eq!(next.count("gateway.spawned"), 0, "it started another one\n{}", next.story());
    let differs = adopted.value()["differs"].as_str().map(|what| format!(", differs: {what}")).unwrap_or_default();
    (next, format!("adopted in {}, 0 spawns{differs}", millis(took)))
}

fn restart_verb(scene: &Scene, supervisor: &mut Supervisor, gateway: Process) -> (Process, String) {
    let tree = gateway.tree();
    let begin = Instant::now();
    // It waits for the outcome; the kit's timeout for a command is shorter than a boot may take.
    let said = Said::by(scene, &["restart", "--timeout", "15s"]);
    let (new, exited, gap, _) = replacement(supervisor, gateway, &tree);
    // Only the parent learns the exit status of an adopted one.
    assert!(gap < AT_ONCE, "the respawn took {gap:?}\n{}", supervisor.story());
    assert_eq!(exited.text("cause"), "restart requested", "{}", supervisor.story());
    let code = said.code.map_or_else(|| "no code".to_owned(), |code| code.to_string());
    let text = format!(
        "{}, next spawned after {}; the command: {code} after {}",
        ending(&exited),
        millis(gap),
        seconds(said.took.min(begin.elapsed()))
    );
    (new, text)
}

fn stop(scene: &Scene, supervisor: &mut Supervisor, gateway: Process) -> String {
    let tree = gateway.tree();
    let begin = Instant::now();
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    let took = begin.elapsed();
    assert_gone(&tree, supervisor);
    let left = scene.processes();
    assert!(left.is_empty(), "processes are left: {}\n{}", describe(&left), supervisor.story());
    assert!(port::is_free(scene.port()), "the port is still held\n{}", supervisor.story());
    let exited = supervisor.last("gateway.exited");
    let killed = supervisor.count("tree.killed");
    format!("0 in {}, gateway {}, nothing left, {killed} kills", seconds(took), ending(&exited))
}

/// Before its handlers are installed, SIGTERM kills a gateway: not a failure of the stop.
fn stop_in_boot(installed: &Installed) -> String {
    let scene = Scene::new("");
    let mut supervisor = look::start(look::launch(&scene, installed));
    let gateway = supervisor.wait_event("gateway.spawned").process();
    // Node runs by then, and the fastest release needs twice that to listen.
    wait_for("the boot", PATIENCE, || supervisor.story(), || (supervisor.age() > Duration::from_secs(1)).then_some(()));
    assert!(!look::is_healthy(scene.port()), "it has started already");
    stop(&scene, &mut supervisor, gateway)
}
