//! Before a hung gateway is killed, evidence is saved.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::Scene;
use support::supervisor::{Launch, Supervisor};

const SECRETS: [&str; 2] = ["hunter2-in-the-environment", "hunter3-among-the-arguments"];

fn launch(scene: &Scene) -> Launch<'_> {
    let mut words = scene.gateway_words();
    words.extend(["--token", SECRETS[1]].map(str::to_owned));
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    scene.launch().words(&words).option("--probe-timeout", "100ms").env("OPENCLAW_GATEWAY_TOKEN", SECRETS[0])
}

fn evidence_of(supervisor: &mut Supervisor) -> (PathBuf, Value) {
    let hung = supervisor.wait_event("gateway.hung");
    let path = PathBuf::from(hung.text("evidence"));
    let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{error}: {}", supervisor.story()));
    assert!(!SECRETS.iter().any(|secret| text.contains(secret)), "{text}");
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
    assert_eq!(evidence["missing"], serde_json::json!([]), "{evidence}");
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
    // Each probe left a connection that was never accepted.
    assert!(evidence["port"]["listeners"][0]["waiting"].as_u64().is_some_and(|waiting| waiting > 0), "{evidence}");
    // Our ends are closed.
    assert!(evidence["port"]["connections"]["CLOSE_WAIT"].as_u64().is_some_and(|count| count > 0), "{evidence}");
    assert!(evidence["process"].get("kernel_stack").is_some() && evidence.get("cgroup").is_some(), "{evidence}");
    assert!(evidence["machine"]["memory_available_kb"].as_u64() > Some(0), "{evidence}");
    assert!(evidence["disk"]["state_dir"]["free_kb"].is_u64(), "{evidence}");
    let tree = evidence["tree"].as_array().expect("a list");
    assert!(tree.len() >= 2 && tree.iter().any(|member| member["pid"] == gateway.pid), "{evidence}");
    assert!(tree.iter().all(|member| member["command"].is_string() && member["age_ms"].is_u64()), "{evidence}");
    let leader = tree.iter().find(|member| member["pid"] == gateway.pid).expect("it was found above");
    assert!(leader["command"].as_str().is_some_and(|command| command.contains("--token ***")), "{leader}");
    assert_eq!(evidence["conclusion_cause"], "stopped", "{evidence}");
    let conclusion = evidence["conclusion"].as_str().expect("a line");
    assert!(conclusion.starts_with("stopped by a signal") && !conclusion.contains('\n'), "{conclusion}");
    assert_eq!(evidence.as_object().and_then(|parts| parts.keys().next_back()).map(String::as_str), Some("conclusion"));
    let events = supervisor.events();
    let hung = events.iter().find(|event| event.name() == "gateway.hung").expect("it was waited for");
    assert_eq!((hung.text("conclusion"), hung.number("limit_ms")), (conclusion, 600), "{}", hung.value());
    let probes = hung.value()["probes"].as_array().map_or(0, Vec::len);
    assert!((3..=8).contains(&probes), "{}", hung.value());
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
fn the_oldest_files_make_room_for_a_new_one() {
    let scene = Scene::new("healthy");
    let mut supervisor = launch(&scene).start();
    let gateway = supervisor.wait_started();
    let folder = folder_of(&scene);
    fs::create_dir(&folder).expect("the store's folder is there");
    let old: Vec<_> = (0..25).map(|minute| folder.join(format!("2026-01-01T00-{minute:02}-00.000Z.json"))).collect();
    for path in &old {
        fs::write(path, "{}").expect("the folder was made");
    }
    gateway.signal(Signal::SIGSTOP);
    let (path, _) = evidence_of(&mut supervisor);
    assert_eq!((mode_of(&path), mode_of(&folder)), (0o600, 0o700));
    let is_kept: Vec<_> = old.iter().map(|path| path.exists()).collect();
    assert_eq!(is_kept, [[false; 6].as_slice(), &[true; 19]].concat());
}

#[test]
fn without_saved_evidence_the_gateway_is_replaced_all_the_same() {
    let scene = Scene::new("healthy");
    let mut supervisor = launch(&scene).start();
    let gateway = supervisor.wait_started();
    fs::write(folder_of(&scene), "in the way").expect("the store's folder is there");
    gateway.signal(Signal::SIGSTOP);
    let missed = supervisor.wait_event("liveness.missed");
    let hung = supervisor.wait_event("gateway.hung");
    assert!(hung.value()["evidence"].is_null(), "{}", hung.value());
    // The 600 ms of --hang-after, without the 5 s for the evidence.
    supervisor.assert_took("the verdict", hung.seen - missed.seen, &(Duration::ZERO..Duration::from_secs(4)));
    assert!(supervisor.story().contains("cannot save what was found"), "{}", supervisor.story());
    supervisor.wait_event("gateway.exited");
    assert_ne!(supervisor.wait_started(), gateway);
}
