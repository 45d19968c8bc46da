//! Gateways without a supervisor: how we treat them, and how they treat each other.

use super::behaviour::Behaviour;
use super::look::{self, Alone, PATIENCE, ending, millis};
use super::release::Installed;
use super::support::{Scene, port, wait_for};
use super::table::Column;
use nix::sys::signal::Signal;
use std::fs;
use std::time::Duration;

/// One gateway, and others that start beside it.
pub(crate) fn measure(column: &mut Column, installed: &Installed) {
    let scene = Scene::new("");
    let mut gateway = Alone::start(&scene, installed, "state", scene.port());
    column.measure(Behaviour::Unsupervised, || ((), beside(&scene, installed, &gateway)));
    for (row, state, other_port) in [
        (Behaviour::AloneDuplicate, "state", false),
        (Behaviour::AloneSamePort, "other-state", false),
        (Behaviour::AloneOtherPort, "state", true),
    ] {
        column.measure(row, || ((), second(&scene, installed, state, other_port, &mut gateway)));
    }
    column.measure(Behaviour::OtherPort, || ((), on_another_port(&scene, installed, &gateway)));
    gateway.stop();
    column.measure(Behaviour::UnknownKey, || ((), unknown_key(installed)));
}

/// It stays in control, and nothing is started.
fn beside(scene: &Scene, installed: &Installed, gateway: &Alone) -> String {
    look::wait_healthy(scene.port());
    let process = gateway.process().expect("it is healthy");
    let mut supervisor = look::start(look::launch(scene, installed));
    supervisor.expect_exit(78);
    let took = supervisor.age();
    assert_eq!(supervisor.count("gateway.spawned"), 0, "it started a gateway\n{}", supervisor.story());
    assert!(process.is_alive() && look::is_healthy(scene.port()), "it was harmed\n{}", supervisor.story());
    let conflict = supervisor.last("conflict.detected");
    assert_eq!(conflict.number("holder_pid"), i64::from(process.pid), "{}", supervisor.story());
    format!("78 in {}, 0 spawns, holder named, untouched", millis(took))
}

fn second(scene: &Scene, installed: &Installed, state: &str, other_port: bool, first: &mut Alone) -> String {
    let elsewhere = Scene::new("");
    let port = if other_port { elsewhere.port() } else { scene.port() };
    let mut second = Alone::start(scene, installed, state, port);
    let ended = second.wait_end_or(|| other_port && look::is_healthy(port));
    let text = ended.unwrap_or_else(|| "STARTS: two gateways on one state".to_owned());
    drop(second);
    match first.try_wait() {
        None => text,
        Some(_) => format!("{text}, and the first one is gone"),
    }
}

/// The state directory is in use, the port is not.
fn on_another_port(scene: &Scene, installed: &Installed, gateway: &Alone) -> String {
    let elsewhere = Scene::new("");
    let launch = look::launch(scene, installed).option("--port", &elsewhere.port().to_string());
    let words = installed.words(elsewhere.port());
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let launch = launch.words(&words).option("--startup-timeout", "20s").option("--max-restarts", "1");
    let mut supervisor = look::start(launch);
    let over = Duration::from_mins(1);
    let outcome = wait_for(
        "an end or a start",
        PATIENCE,
        || supervisor.story(),
        || {
            let last = supervisor
                .events()
                .into_iter()
                .rfind(|event| matches!(event.name(), "gateway.started" | "supervisor.stopped"));
            (last.is_some() || supervisor.age() > over).then_some(last)
        },
    );
    let took = look::seconds(supervisor.age());
    let text = match outcome {
        Some(event) if event.name() == "gateway.started" => format!("STARTS after {took}: two gateways on one state"),
        Some(event) => format!("{} in {took}", event.number("exit_code")),
        None => format!("neither started nor ended in {took}"),
    };
    let ends: Vec<_> =
        supervisor.events().iter().filter(|event| event.name() == "gateway.exited").map(ending).collect();
    let spawns = supervisor.count("gateway.spawned");
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait_exit();
    let harmed = if gateway.process().is_some() { "" } else { ", and the first one is gone" };
    let ends = if ends.is_empty() { String::new() } else { format!(" ({})", ends.join(", ")) };
    format!("{text}, {spawns} spawns{ends}{harmed}")
}

/// An error that a retry does not fix.
fn unknown_key(installed: &Installed) -> String {
    let scene = Scene::new("");
    fs::write(scene.state_dir().join("openclaw.json"), r#"{"noSuchKey":true}"#).expect("the scene can be written");
    let launch = look::launch(&scene, installed).option("--max-restarts", "1").option("--backoff-max", "1s");
    let mut supervisor = look::start(launch);
    let code = supervisor.wait_exit();
    let took = look::seconds(supervisor.age());
    let ends: Vec<_> =
        supervisor.events().iter().filter(|event| event.name() == "gateway.exited").map(ending).collect();
    assert!(port::is_free(scene.port()), "the port is still held\n{}", supervisor.story());
    let code = code.map_or_else(|| "a signal".to_owned(), |code| code.to_string());
    format!("{code} in {took}, gateways: {}", ends.join(", "))
}
