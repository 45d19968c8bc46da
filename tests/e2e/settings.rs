//! The port that the gateway's own files name is that of each new gateway, without an option and without a kill.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs;
use support::Scene;
use support::ledger::Ledger;
use support::port::Port;
use support::supervisor::{Launch, Said};

/// The default command, with `openclaw` on PATH. The stand-in takes its port from the command line or the environment.
fn launch(scene: &Scene) -> Launch<'_> {
    let path = format!("{}:/usr/bin:/bin", scene.root().join("bin").display());
    scene.launch().words(&[]).without("--port").env("PATH", &path)
}

fn write(scene: &Scene, name: &str, text: &str) {
    fs::write(scene.state_dir().join(name), text).expect("the state directory can be written");
}

fn where_it_serves(scene: &Scene) -> String {
    Said::by(scene, &["probe"]).expect(0);
    Said::by(scene, &["status", "--json"]).expect(0).json()["supervisor"]["url"].to_string()
}

#[test]
fn each_new_gateway_gets_the_port_that_its_files_name_now() {
    let scene = Scene::new("healthy");
    let _openclaw = scene.openclaw();
    let (second, third) = (Port::reserve(), Port::reserve());
    write(&scene, ".env", &format!("# mine\nOPENCLAW_GATEWAY_PORT={}\n", scene.port()));
    write(&scene, "openclaw.json", "{gateway: {port: 1}}");
    let mut supervisor = launch(&scene).start();
    supervisor.wait_started();
    assert_eq!(where_it_serves(&scene), format!("\"{}\"", scene.url()));

    let vars = format!("{{$include: './port.json5', env: {{vars: {{OPENCLAW_GATEWAY_PORT: '{}'}}}}}}", second.number());
    write(&scene, "openclaw.json", &vars);
    write(&scene, "port.json5", "{gateway: {port: 1}}");
    fs::remove_file(scene.state_dir().join(".env")).expect("it is there");
    supervisor.signal(Signal::SIGHUP);
    supervisor.wait_started();
    assert_eq!(where_it_serves(&scene), format!("\"ws://127.0.0.1:{}\"", second.number()));

    // Half a config is no reason to look elsewhere, and none to wait.
    write(&scene, "openclaw.json", &vars[..9]);
    supervisor.signal(Signal::SIGHUP);
    supervisor.wait_started();
    assert_eq!(where_it_serves(&scene), format!("\"ws://127.0.0.1:{}\"", second.number()));

    write(&scene, "openclaw.json", &vars.replace(&second.number().to_string(), &third.number().to_string()));
    supervisor.signal(Signal::SIGHUP);
    let last = supervisor.wait_started();
    assert_eq!(where_it_serves(&scene), format!("\"ws://127.0.0.1:{}\"", third.number()));
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    let starts = scene.diary().starts();
    assert_eq!((starts.len(), starts.last().map(|start| start.process)), (4, Some(last)));
    for event in ["gateway.hung", "startup.timed_out", "stop.escalated"] {
        assert_eq!(supervisor.count(event), 0, "{}", supervisor.story());
    }
}

#[test]
fn a_gateway_with_the_port_of_its_files_is_adopted_as_one_of_the_same_settings() {
    let scene = Scene::new("healthy");
    let _openclaw = scene.openclaw();
    write(&scene, ".env", &format!("OPENCLAW_GATEWAY_PORT={}", scene.port()));
    let mut first = launch(&scene).start();
    let gateway = first.wait_started();
    Ledger::of(&scene).wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 1);
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    let mut second = launch(&scene).start();
    let adopted = second.wait_event("gateway.adopted");
    assert_eq!(adopted.process(), gateway);
    assert!(!second.story().contains("another OPENCLAW_GATEWAY_PORT"), "{}", second.story());
    second.signal(Signal::SIGTERM);
    second.expect_exit(0);
}
