//! P11 with the real gateway: its port, TLS and bind mode change in `openclaw.json` while it runs. It heeds that by itself,
//! and is never ended for it.

use crate::support::Scene;
use crate::support::port::Port;
use crate::support::real::RealGateway;
use crate::support::supervisor::{Said, Supervisor};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

/// Cold disks and busy machines.
const PATIENCE: Duration = Duration::from_mins(4);

fn configure(scene: &Scene, gateway: &Value) {
    let (path, text) = (scene.state_dir().join("openclaw.json"), json!({ "gateway": gateway }).to_string());
    let written = path.with_extension("new");
    fs::write(&written, text).and_then(|()| fs::rename(written, path)).expect("the state folder can be written");
}

/// What it does about a changed config is its own affair: it may restart in place, or exit with 0 to be started again.
fn assert_follows(supervisor: &mut Supervisor, scene: &Scene, url: &str) {
    supervisor.wait_event_with("endpoint.changed", |event| event.text("to") == url);
    crate::support::wait_for(
        url,
        PATIENCE,
        || supervisor.story(),
        || {
            let said = Said::by(scene, &["status", "--json"]);
            (said.code == Some(0) && said.json()["supervisor"]["url"] == url).then_some(())
        },
    );
}

#[test]
fn the_real_gateway_is_followed_when_its_config_changes_where_it_serves() {
    let real = RealGateway::install();
    let (scene, other) = (Scene::new(""), Port::reserve());
    let at = |port: u16, bind: &str, tls: bool| {
        let auth = json!({ "mode": "token", "token": "not-a-secret" });
        json!({ "mode": "local", "port": port, "bind": bind, "auth": auth, "tls": { "enabled": tls } })
    };
    configure(&scene, &at(scene.port(), "loopback", false));
    let words = real.words(scene.port());
    // Without options: only the config says where it serves. And behind a shell, as many start it.
    let shell = ["/bin/sh", "-c", "\"$@\"; exit $?", "sh"].into_iter();
    let words: Vec<_> = shell.chain(words[..4].iter().map(String::as_str)).collect();
    let config = scene.state_dir().join("openclaw.json").display().to_string();
    let mut launch = scene.launch().words(&words).env("OPENCLAW_CONFIG_PATH", &config);
    for name in ["--port", "--backoff-max", "--boot-limit", "--startup-timeout"] {
        launch = launch.without(name);
    }
    let launch = launch.option("--probe-interval", "1s").option("--hang-after", "30s");
    let mut supervisor = launch.option("--stop-timeout", "60s").start();
    supervisor.patience = PATIENCE;
    supervisor.wait_started();
    // There with TLS, and back without it and on all addresses.
    for (port, bind, tls) in [(other.number(), "loopback", true), (scene.port(), "lan", false)] {
        configure(&scene, &at(port, bind, tls));
        let scheme = if tls { "wss" } else { "ws" };
        assert_follows(&mut supervisor, &scene, &format!("{scheme}://127.0.0.1:{port}"));
    }
    for event in ["gateway.hung", "startup.timed_out", "stop.escalated", "restart.gave_up"] {
        assert_eq!(supervisor.count(event), 0, "{event}\n{}", supervisor.story());
    }
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}
