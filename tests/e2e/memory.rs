//! A gateway whose tree uses more memory than `--memory-max` is drained and replaced; a short peak does nothing, and a
//! limit below the normal usage does not loop.

#![cfg(target_os = "linux")]

use crate::support;

use serde_json::Value;
use std::fs;
use std::time::Duration;
use support::Scene;
use support::supervisor::{Event, Said};

/// A stand-in that touches 96 MiB, and a limit between that and its normal usage.
const LARGE_KB: i64 = 96 * 1024;
const LIMIT: &str = "64M";
const LIMIT_KB: i64 = 64 * 1024;

fn assert_exceeded(event: &Event) {
    assert_eq!(event.number("limit_kb"), LIMIT_KB, "{}", event.value());
    assert!((LARGE_KB..4 * LARGE_KB).contains(&event.number("tree_rss_kb")), "{}", event.value());
}

#[test]
fn a_large_gateway_is_drained_and_replaced_and_that_spends_no_budget_once_it_was_stable() {
    let scene = Scene::new("drain=500ms; healthy");
    let launch = scene.launch().option("--memory-max", LIMIT).option("--stable-after", "200ms");
    let mut supervisor = launch.option("--max-restarts", "0").start();
    let first = supervisor.wait_started();
    scene.diary().wait_requests(first.pid, 10);
    assert_eq!(supervisor.count("memory.exceeded"), 0, "{}", supervisor.story());
    scene.diary().command(first.pid, "touch=96M");
    assert_exceeded(&supervisor.wait_event("memory.exceeded"));
    let exited = supervisor.wait_event("gateway.exited");
    assert_eq!((exited.number("code"), exited.text("cause")), (0, "over its memory limit"));
    assert!(exited.number("max_rss_kb") >= LARGE_KB, "{}", exited.value());
    assert_eq!(scene.diary().signals(first.pid), ["SIGTERM"]);
    let second = supervisor.wait_started();
    assert_ne!(first, second);
    assert_eq!(supervisor.count("stop.escalated") + supervisor.count("gateway.hung"), 0, "{}", supervisor.story());
    let told = Said::by(&scene, &["status", "--json"]).expect(0).json();
    assert_eq!((&told["restarts"]["for_memory"], &told["restarts"]["in_window"]), (&1.into(), &0.into()), "{told:#}");
    scene.diary().wait_requests(second.pid, 10);
    assert_eq!(supervisor.count("memory.exceeded"), 1, "{}", supervisor.story());
}

#[test]
fn a_large_child_in_a_session_of_its_own_counts_and_goes_with_the_gateway() {
    let scene = Scene::new("kid=large; healthy");
    let mut supervisor = scene.launch().option("--memory-max", LIMIT).start();
    let first = supervisor.wait_started();
    let kid = scene.diary().kids()[0].process;
    let exceeded = supervisor.wait_event("memory.exceeded");
    assert_exceeded(&exceeded);
    let text = fs::read_to_string(exceeded.text("evidence")).expect("the evidence was saved");
    let evidence: Value = serde_json::from_str(&text).expect("it is JSON");
    let tree = evidence["tree"].as_array().expect("a list");
    let large = tree.iter().find(|member| member["pid"] == kid.pid).expect("it was there before the drain");
    assert!(large["rss_kb"].as_i64() >= Some(LARGE_KB) && large["command"].is_string(), "{evidence:#}");
    assert!(tree.iter().all(|member| member["rss_kb"].is_u64()), "{evidence:#}");
    let conclusion = exceeded.text("conclusion");
    assert_eq!(
        (&evidence["conclusion"], &evidence["limit_kb"]),
        (&conclusion.into(), &LIMIT_KB.into()),
        "{evidence:#}"
    );
    assert!(conclusion.contains(&format!("the largest of them pid {} (", kid.pid)), "{conclusion}");
    let exited = supervisor.wait_event("gateway.exited");
    assert!((1..LIMIT_KB).contains(&exited.number("max_rss_kb")), "{}", exited.value());
    assert_eq!(scene.diary().signals(first.pid), ["SIGTERM"]);
    supervisor.wait_started();
    assert!(!kid.is_alive(), "{}", supervisor.story());
}

#[test]
fn a_peak_that_is_shorter_than_three_samples_does_nothing() {
    let scene = Scene::new("healthy");
    let launch = scene.launch().option("--memory-max", LIMIT).option("--probe-interval", "1s");
    let mut supervisor = launch.option("--hang-after", "10s").start();
    let gateway = supervisor.wait_started();
    // At least one sample and at most two are taken meanwhile.
    scene.diary().command(gateway.pid, "touch=96M/1200ms");
    scene.diary().wait_line("MISHAP");
    scene.diary().wait_requests(gateway.pid, 4);
    assert_eq!(supervisor.count("memory.exceeded"), 0, "{}", supervisor.story());
    scene.diary().command(gateway.pid, "touch=96M");
    assert_exceeded(&supervisor.wait_event("memory.exceeded"));
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn gateways_that_are_all_too_large_are_paced_and_end_with_69() {
    let scene = Scene::new("touch=96M");
    let launch = scene.launch().option("--memory-max", LIMIT).option("--max-restarts", "2");
    let mut supervisor = launch.option("--backoff-max", "400ms").start();
    supervisor.expect_exit(69);
    assert_eq!((scene.diary().starts().len(), supervisor.count("memory.exceeded")), (3, 3), "{}", supervisor.story());
    for start in scene.diary().starts() {
        assert_eq!(scene.diary().signals(start.process.pid), ["SIGTERM"]);
    }
    let seen = |name: &str| -> Vec<_> {
        supervisor.events().iter().filter(|event| event.name() == name).map(|event| event.seen).collect()
    };
    for (exited, spawned) in seen("gateway.exited").iter().zip(seen("gateway.spawned").iter().skip(1)) {
        // Half of the delay is jitter, and the test reads the lines with some lag.
        let pause = spawned.duration_since(*exited);
        supervisor.assert_took("the pause", pause, &(Duration::from_millis(180)..Duration::from_secs(10)));
    }
}
