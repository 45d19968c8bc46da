//! P11: a gateway that serves elsewhere than it was expected is followed there, and never ended for it.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs;
use support::port::Port;
use support::process::Process;
use support::supervisor::{Said, Supervisor};
use support::{Scene, port};

/// Waits until the gateway is followed to `to`, and asserts that `status` and `probe` find it there.
fn assert_followed(supervisor: &mut Supervisor, scene: &Scene, to: &str) {
    let changed = supervisor.wait_event_with("endpoint.changed", |event| event.text("to") == to);
    assert_ne!(changed.text("from"), to);
    for words in [&["status", "--json"][..], &["probe", "--started", "--json"]] {
        let said = Said::by(scene, words).expect(0);
        said.assert_says(&[&format!(r#""url":"{to}""#)]);
    }
}

/// Asserts that the one gateway serves on and got no signal, for many probes more.
fn assert_left_alone(supervisor: &Supervisor, scene: &Scene, gateway: Process) {
    scene.diary().wait_requests(gateway.pid, 60);
    for event in ["gateway.hung", "startup.timed_out", "gateway.exited", "stop.escalated"] {
        assert_eq!(supervisor.count(event), 0, "{event}\n{}", supervisor.story());
    }
    assert!(scene.diary().signals(gateway.pid).is_empty() && gateway.is_alive());
}

fn local(port: u16) -> String {
    format!("127.0.0.1:{port}")
}

/// What the gateway's own command is where nothing names its port.
fn bare(scene: &Scene) -> Vec<String> {
    scene.gateway_words()[..3].to_vec()
}

fn configure(scene: &Scene, port: u16) {
    let config = format!(r#"{{"gateway":{{"mode":"local","port":{port}}}}}"#);
    fs::write(scene.state_dir().join("openclaw.json"), config).expect("the scratch folder can be written");
    scene.diary().place(&local(port));
}

#[test]
fn a_restart_in_place_onto_another_port_or_address_or_into_tls_and_back_is_followed() {
    let (scene, other) = (Scene::new("healthy"), Port::reserve());
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    let port = scene.port();
    for (place, url) in [
        (local(other.number()), format!("ws://127.0.0.1:{}", other.number())),
        (format!("{} tls", local(other.number())), format!("wss://127.0.0.1:{}", other.number())),
        (local(port), format!("ws://127.0.0.1:{port}")),
        (format!("127.0.0.2:{port} tls"), format!("wss://127.0.0.2:{port}")),
    ] {
        scene.diary().place(&place);
        scene.diary().command(gateway.pid, "cycle=100ms");
        assert_followed(&mut supervisor, &scene, &url);
        assert_left_alone(&supervisor, &scene, gateway);
    }
    assert_eq!(scene.diary().starts().len(), 1);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

#[test]
fn a_gateway_that_comes_up_elsewhere_than_its_settings_say_has_come_up() {
    for suffix in ["", " tls"] {
        let (scene, other) = (Scene::new("healthy"), Port::reserve());
        scene.diary().place(&format!("{}{suffix}", local(other.number())));
        let mut supervisor = scene.launch().option("--startup-timeout", "3s").start();
        let gateway = supervisor.wait_started();
        assert_left_alone(&supervisor, &scene, gateway);
        assert_eq!(supervisor.count("endpoint.changed"), 1, "{}", supervisor.story());
        // The next one is expected there, although the settings still say something else.
        gateway.kill();
        supervisor.wait_started();
        assert_eq!(supervisor.count("endpoint.changed"), 1, "{}", supervisor.story());
        assert!(port::is_free(scene.port()));
    }
}

#[test]
fn doctor_compares_the_config_with_the_port_that_is_served_not_with_the_one_that_was_named() {
    let (scene, other) = (Scene::new("healthy"), Port::reserve());
    configure(&scene, other.number());
    let mut supervisor = scene.start();
    supervisor.wait_started();
    assert_eq!(supervisor.count("endpoint.changed"), 1, "{}", supervisor.story());
    let said = Said::by(&scene, &["doctor"]);
    assert!(!said.out.contains("but the settings here say"), "{said}");
    said.assert_says(&[&format!("ws://127.0.0.1:{}", other.number())]);
}

#[test]
fn a_port_that_changed_in_the_config_is_looked_at_before_the_next_start() {
    let (scene, other) = (Scene::new("healthy"), Port::reserve());
    configure(&scene, scene.port());
    let words = bare(&scene);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut supervisor = scene.launch().without("--port").words(&words).start();
    supervisor.wait_started();
    configure(&scene, other.number());
    Said::by(&scene, &["restart"]).expect(0);
    let changed = supervisor.wait_event("endpoint.changed");
    assert_eq!(changed.text("why"), "the gateway's settings have changed", "{}", changed.value());
    let second = supervisor.wait_started();
    scene.diary().wait_requests(second.pid, 20);
    assert_eq!((supervisor.count("endpoint.changed"), supervisor.count("gateway.hung")), (1, 0));
    // The claim went with it: the old port is for another gateway, the new one is not.
    let state = scene.root().join("other").display().to_string();
    let launch = scene.launch().option("--state-dir", &state).words(&words);
    let mut duplicate = launch.option("--port", &other.number().to_string()).start();
    duplicate.expect_exit(78);
    assert_eq!(duplicate.count("gateway.spawned"), 0, "{}", duplicate.story());
    assert!(duplicate.last("lease.contended").text("what") == "port claim", "{}", duplicate.story());
}

#[test]
fn a_new_port_for_which_another_supervisor_is_about_to_start_a_gateway_is_a_conflict() {
    let (scene, neighbour) = (Scene::new("healthy"), Scene::new("boot=60s"));
    configure(&scene, scene.port());
    let words = bare(&scene);
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut supervisor = scene.launch().without("--port").words(&words).start();
    supervisor.wait_started();
    let mut other = neighbour.start();
    other.wait_event("gateway.spawned");
    configure(&scene, neighbour.port());
    supervisor.signal(Signal::SIGHUP);
    let conflict = supervisor.wait_event("conflict.detected");
    assert_eq!((conflict.text("kind"), conflict.number("holder_pid")), ("booting", i64::from(other.pid())));
    other.signal(Signal::SIGTERM);
    other.expect_exit(0);
    supervisor.wait_started();
    assert_eq!(scene.diary().starts().len(), 2);
}

#[test]
fn the_old_port_may_be_taken_by_another_supervisor() {
    let (scene, other) = (Scene::new("healthy"), Port::reserve());
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    scene.diary().place(&local(other.number()));
    scene.diary().command(gateway.pid, "cycle=100ms");
    supervisor.wait_event("endpoint.changed");
    let neighbour = Scene::new("healthy");
    let port = scene.port().to_string();
    let words = neighbour.gateway_words();
    let words: Vec<_> = words[..3].iter().map(String::as_str).chain(["--port", &port]).collect();
    let mut second = neighbour.launch().option("--port", &port).words(&words).start();
    second.wait_started();
    assert_left_alone(&supervisor, &scene, gateway);
}

#[test]
fn a_stranger_on_the_expected_port_is_no_hang_while_ours_serves_elsewhere() {
    for role in ["silent", "foreign", "healthy"] {
        let (scene, other) = (Scene::new("healthy"), Port::reserve());
        let mut supervisor = scene.launch().option("--probe-timeout", "300ms").start();
        let gateway = supervisor.wait_started();
        scene.diary().place(&local(other.number()));
        scene.diary().command(gateway.pid, "cycle=500ms");
        scene.diary().wait_line("MISHAP");
        support::wait_for(
            "a free port",
            support::PATIENCE,
            || supervisor.story(),
            || port::is_free(scene.port()).then_some(()),
        );
        let mut stranger = scene.stranger(role);
        supervisor.wait_event_with("endpoint.changed", |event| event.text("to").ends_with(&other.number().to_string()));
        assert_left_alone(&supervisor, &scene, gateway);
        assert!(stranger.is_alive() && stranger.diary.signals(stranger.pid()).is_empty(), "{role}");
    }
}

#[test]
fn a_stranger_elsewhere_does_not_hide_a_gateway_that_hangs() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--probe-timeout", "100ms").start();
    let gateway = supervisor.wait_started();
    let neighbour = Scene::new("healthy");
    let _stranger = neighbour.stranger("healthy");
    let config = format!(r#"{{"gateway":{{"port":{}}}}}"#, neighbour.port());
    fs::write(scene.state_dir().join("openclaw.json"), config).expect("the scratch folder can be written");
    scene.diary().command(gateway.pid, "close");
    supervisor.wait_event("gateway.hung");
    assert_eq!(supervisor.count("endpoint.changed"), 0, "{}", supervisor.story());
}

#[test]
fn a_gateway_that_an_agent_runs_does_not_stand_for_the_one_that_hangs_or_has_lost_its_port() {
    for mishap in ["freeze", "close"] {
        let (scene, other) = (Scene::new("healthy"), Port::reserve());
        let nested = Scene::new("");
        let own = scene.gateway_words();
        let both = format!(
            r#"FAKE_GATEWAY_DIR={} "$0" gateway run --port {} & exec "$0" "$@""#,
            nested.root().display(),
            other.number()
        );
        let words = ["/bin/sh", "-c", &both].into_iter().chain(own.iter().map(String::as_str));
        let launch = scene.launch().words(&words.collect::<Vec<_>>()).option("--probe-timeout", "100ms");
        let mut supervisor = launch.start();
        let gateway = supervisor.wait_started();
        nested.diary().wait_line("LISTEN");
        scene.diary().command(gateway.pid, mishap);
        supervisor.wait_event("gateway.hung");
        assert_eq!(supervisor.count("endpoint.changed"), 0, "{}", supervisor.story());
    }
}

#[test]
fn a_gateway_of_an_agent_that_was_followed_while_ours_booted_gives_way_to_ours() {
    let (scene, other) = (Scene::new("boot=1s"), Port::reserve());
    let nested = Scene::new("");
    let own = scene.gateway_words();
    let both = format!(
        r#"FAKE_GATEWAY_DIR={} FAKE_GATEWAY_SCRIPT= "$0" gateway run --port {} & exec "$0" "$@""#,
        nested.root().display(),
        other.number()
    );
    let words = ["/bin/sh", "-c", &both].into_iter().chain(own.iter().map(String::as_str));
    let launch = scene.launch().words(&words.collect::<Vec<_>>()).option("--probe-timeout", "100ms");
    let mut supervisor = launch.start();
    supervisor.wait_event_with("endpoint.changed", |event| event.text("to").ends_with(&other.number().to_string()));
    let gateway = supervisor.wait_started();
    supervisor.wait_event_with("endpoint.changed", |event| event.text("to") == scene.url());
    scene.diary().command(gateway.pid, "freeze");
    supervisor.wait_event("gateway.hung");
}

#[test]
fn a_port_that_is_only_a_guess_is_not_left_to_the_gateway_of_another_supervisor() {
    let (profile, guess) = Port::reserve_of_profile();
    let (scene, neighbour) = (Scene::new("healthy"), Scene::new("healthy"));
    let port = guess.number().to_string();
    let bare = bare(&scene);
    let bare: Vec<_> = bare.iter().map(String::as_str).collect();
    let words: Vec<_> = bare.iter().copied().chain(["--port", &port]).collect();
    let mut other = neighbour.launch().option("--port", &port).words(&words).start();
    other.wait_started();
    fs::write(scene.state_dir().join("openclaw.json"), "{gateway").expect("the scratch folder can be written");
    scene.diary().place(&local(scene.port()));
    let launch = || scene.launch().without("--port").env("OPENCLAW_PROFILE", &profile).words(&bare);
    let mut supervisor = launch().start();
    let gateway = supervisor.wait_started();
    assert!(supervisor.story().contains("is only a guess"), "{}", supervisor.story());
    assert_left_alone(&supervisor, &scene, gateway);
    let mut duplicate = launch().start();
    duplicate.expect_exit(78);
    assert_eq!(scene.diary().starts().len(), 1);
    other.signal(Signal::SIGTERM);
    other.expect_exit(0);
}

#[test]
fn a_gateway_that_hangs_where_it_has_moved_to_is_replaced() {
    let (scene, other) = (Scene::new("healthy"), Port::reserve());
    let mut supervisor = scene.launch().option("--probe-timeout", "100ms").start();
    let gateway = supervisor.wait_started();
    scene.diary().place(&local(other.number()));
    scene.diary().command(gateway.pid, "cycle=100ms");
    supervisor.wait_event("endpoint.changed");
    scene.diary().wait_requests(gateway.pid, 5);
    scene.diary().command(gateway.pid, "freeze");
    supervisor.wait_event("gateway.hung");
    supervisor.wait_started();
}

#[test]
fn a_gateway_that_moved_is_adopted_and_followed_by_the_next_supervisor() {
    let (scene, other) = (Scene::new("healthy"), Port::reserve());
    let mut first = scene.start();
    let gateway = first.wait_started();
    scene.diary().place(&local(other.number()));
    scene.diary().command(gateway.pid, "cycle=100ms");
    first.wait_event("endpoint.changed");
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    let mut second = scene.start();
    second.wait_event("gateway.adopted");
    assert_followed(&mut second, &scene, &format!("ws://127.0.0.1:{}", other.number()));
    assert_left_alone(&second, &scene, gateway);
    assert_eq!(scene.diary().starts().len(), 1);
}
