//! What is secret in a command line is shown nowhere.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use std::process::Stdio;
use support::supervisor::Said;
use support::{PATIENCE, Scene, wait_for};

const SECRET: &str = "QzX7Wm3Kp9";

/// The words of a stand-in gateway with secrets among them.
fn words(scene: &Scene) -> Vec<String> {
    let mut words = scene.gateway_words();
    let url = format!("https://me:{SECRET}@127.0.0.1/?token={SECRET}");
    words.extend(["--token", SECRET, "--auth", "none", &format!("--password={SECRET}"), &url].map(str::to_owned));
    words
}

#[test]
fn the_secrets_of_a_gateway_are_in_no_event_and_in_no_answer() {
    let scene = Scene::new("deaf kid=deaf");
    let words = words(&scene);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let launch = scene.launch().words(&words).option("--stop-timeout", "200ms");
    let mut supervisor = launch.option("--log-level", "trace").start();
    supervisor.wait_started();
    let mut told = Said::by(&scene, &["status", "--json"]).expect(0).out;
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    for verb in [&["events"][..], &["events", "--json"], &["status"]] {
        told += &Said::by(&scene, verb).out;
    }
    let killed = supervisor.last("tree.killed");
    let is_shown = killed.value().to_string().contains("--token *** --auth none --password=*** https://***@127");
    assert!(is_shown, "{}", killed.value());
    assert!(!supervisor.story().contains(SECRET), "{}", supervisor.story());
    assert!(!told.contains(SECRET), "{told}");
}

#[test]
fn those_of_a_stranger_on_the_port_are_not_shown_either() {
    let scene = Scene::new("healthy");
    let words = words(&scene);
    let mut command = scene.command(&words[0]);
    command.args(&words[1..]).env("FAKE_GATEWAY_SCRIPT", "foreign").stdout(Stdio::null()).stderr(Stdio::null());
    let mut stranger = command.spawn().unwrap();
    scene.diary().wait_line("LISTEN");
    let mut supervisor = scene.start();
    let conflict = supervisor.wait_event("conflict.detected");
    assert!(conflict.value().to_string().contains("--token *** --auth none"), "{}", conflict.value());
    supervisor.expect_exit(78);
    let probed = Said::by(&scene, &["probe", "--port", &scene.port().to_string(), "--json"]).out;
    stranger.kill().unwrap();
    wait_for("its end", PATIENCE, String::new, || stranger.try_wait().unwrap());
    assert!(!supervisor.story().contains(SECRET) && !probed.contains(SECRET), "{probed}\n{}", supervisor.story());
}
