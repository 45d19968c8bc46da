//! Before a gateway is ended for its health, what may tell why is saved.

#![cfg(target_os = "linux")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use support::Scene;
use support::supervisor::{Launch, Supervisor};

const SECRET: &str = "hunter2-in-the-environment";

fn launch(scene: &Scene) -> Launch<'_> {
    scene.launch().option("--probe-timeout", "100ms").env("OPENCLAW_GATEWAY_TOKEN", SECRET)
}

fn evidence_of(supervisor: &mut Supervisor) -> (PathBuf, Value) {
    let hung = supervisor.wait_event("gateway.hung");
    let path = PathBuf::from(hung.text("evidence"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error}: {}", supervisor.story()));
    assert!(!text.contains(SECRET), "{text}");
    (path, serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}")))
}

fn folder_of(scene: &Scene) -> PathBuf {
    scene.state_dir().join("supervise/incidents")
}

fn mode_of(path: &Path) -> u32 {
    fs::metadata(path).unwrap_or_else(|error| panic!("{error}: {}", path.display())).mode() & 0o777
}

#[test]
fn a_stopped_gateway_is_described() {
    let scene = Scene::new("kid=setsid healthy");
    let mut supervisor = launch(&scene).start();
    let gateway = supervisor.wait_started();
    gateway.signal(Signal::SIGSTOP);
    let (path, evidence) = evidence_of(&mut supervisor);
    assert_eq!((mode_of(&path), mode_of(&folder_of(&scene))), (0o600, 0o700));
    assert_eq!(path.parent(), Some(folder_of(&scene).as_path()));
    assert_eq!((&evidence["pid"], &evidence["generation"]), (&gateway.pid.into(), &1.into()));
    assert_eq!((&evidence["version"], &evidence["complete"]), (&1.into(), &true.into()), "{evidence}");
    let verdicts: Vec<_> =
        evidence["probes"].as_array().expect("a list").iter().map(|probe| &probe["verdict"]).collect();
    assert!(verdicts.iter().filter(|verdict| **verdict == "silent").count() >= 3, "{evidence}");
    assert!(evidence["process"]["status"]["State"].as_str().is_some_and(|state| state.starts_with('T')), "{evidence}");
    assert!(evidence["process"]["open_files"].as_u64().is_some_and(|count| count > 0), "{evidence}");
    assert!(evidence["threads"].as_array().is_some_and(|threads| !threads.is_empty()), "{evidence}");
    assert!(
        evidence["samples"].as_array().is_some_and(|samples| samples[0]["rss_kb"].as_u64() > Some(0)),
        "{evidence}"
    );
    // Each of our probes left a connection that nobody has accepted.
    assert!(evidence["port"]["listeners"][0]["waiting"].as_u64().is_some_and(|waiting| waiting > 0), "{evidence}");
    assert!(evidence["machine"]["memory_available_kb"].as_u64() > Some(0), "{evidence}");
    assert!(evidence["disk"]["state_dir"]["free_kb"].is_u64(), "{evidence}");
    let tree = evidence["tree"].as_array().expect("a list");
    assert!(tree.len() >= 2 && tree.iter().any(|member| member["pid"] == gateway.pid), "{evidence}");
    assert!(tree.iter().all(|member| member["command"].is_string()), "{evidence}");
    supervisor.wait_event("gateway.exited");
    assert_ne!(supervisor.wait_started(), gateway);
}

#[test]
fn a_boot_over_its_budget_is_described_too() {
    let scene = Scene::new("boot=60s");
    let mut supervisor = launch(&scene).option("--startup-timeout", "500ms").start();
    let (_, evidence) = evidence_of(&mut supervisor);
    assert!(evidence["last_good_ms"].is_null() && evidence["failed_probes"].as_u64() > Some(0), "{evidence}");
    assert_eq!(evidence["why"], "it never came up");
}

#[test]
fn where_nothing_can_be_saved_the_gateway_is_replaced_all_the_same() {
    let scene = Scene::new("healthy");
    let mut supervisor = launch(&scene).start();
    let gateway = supervisor.wait_started();
    fs::write(folder_of(&scene), "in the way").expect("the store's folder is there");
    gateway.signal(Signal::SIGSTOP);
    let hung = supervisor.wait_event("gateway.hung");
    assert!(hung.value()["evidence"].is_null(), "{}", hung.value());
    assert!(supervisor.story().contains("cannot save what was found"), "{}", supervisor.story());
    supervisor.wait_event("gateway.exited");
    assert_ne!(supervisor.wait_started(), gateway);
}
