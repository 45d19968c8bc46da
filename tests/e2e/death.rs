//! Every exit of a gateway is reported with its cause, the run time and the resources used.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use std::os::unix::process::ExitStatusExt;
use support::supervisor::{Event, Supervisor};
use support::{PATIENCE, Scene, wait_for};

/// What makes a stand-in use 300 ms of CPU time and 64 MiB.
const WORK: &str = "touch=64M burn=300ms";

fn assert_worked(event: &Event) {
    let (cpu, memory) = (event.number("cpu_ms"), event.number("max_rss_kb"));
    assert!((300..5000).contains(&cpu) && (64 * 1024..128 * 1024).contains(&memory), "{}", event.value());
    assert!((cpu..20_000).contains(&event.number("uptime_ms")), "{}", event.value());
}

/// Starts a supervisor that gives up at the first death, and returns how that is told.
fn death_of(scene: &Scene) -> (Supervisor, Event) {
    let mut supervisor = scene.launch().option("--max-restarts", "0").start();
    let exited = supervisor.wait_event("gateway.exited");
    (supervisor, exited)
}

#[test]
fn every_exit_code_is_reported_with_the_resource_usage() {
    for code in [1, 3, 134, 255] {
        let scene = Scene::new(&format!("{WORK} exit={code}"));
        let (_supervisor, exited) = death_of(&scene);
        assert_eq!((exited.number("code"), exited.text("cause")), (code, "crashed"), "{}", exited.value());
        assert!(exited.value()["signal"].is_null() && exited.value()["core_dumped"].is_null(), "{}", exited.value());
        assert_worked(&exited);
    }
}

#[test]
fn a_fatal_signal_is_reported_with_the_resource_usage() {
    for signal in [Signal::SIGABRT, Signal::SIGSEGV, Signal::SIGKILL] {
        let name = signal.as_str();
        let scene = Scene::new(&format!("{WORK} die={}", name.trim_start_matches("SIG")));
        let (_supervisor, exited) = death_of(&scene);
        let told = (exited.number("signal"), &exited.value()["core_dumped"], exited.text("cause"));
        assert_eq!(told, (signal as i64, &false.into(), "crashed"), "{}", exited.value());
        assert!(exited.value()["code"].is_null(), "{}", exited.value());
        assert_worked(&exited);
    }
}

#[test]
fn a_core_dump_is_reported_where_the_kernel_writes_one() {
    let scene = Scene::new("core die=SEGV");
    // Whether there is a core dump depends on the machine: an unsupervised stand-in shows it.
    let mut alone = scene.stranger_unready("core die=SEGV");
    let end = wait_for("its end", PATIENCE, String::new, || alone.try_wait());
    assert_eq!(end.signal(), Some(Signal::SIGSEGV as i32));
    let (_supervisor, exited) = death_of(&scene);
    assert_eq!(exited.value()["core_dumped"], end.core_dumped(), "{}", exited.value());
}

#[test]
fn a_sigkill_from_outside_is_not_reported_as_out_of_memory() {
    let scene = Scene::new(&format!("{WORK}; healthy"));
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    scene.diary().wait_requests(gateway.pid, 2);
    gateway.kill();
    let exited = supervisor.wait_event("gateway.exited");
    assert_eq!((exited.number("signal"), exited.text("cause")), (9, "crashed"), "{}", exited.value());
    assert_worked(&exited);
}

#[test]
fn the_exit_of_a_planned_stop_is_reported_too() {
    let scene = Scene::new(WORK);
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    scene.diary().wait_requests(gateway.pid, 2);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    let exited = supervisor.last("gateway.exited");
    assert_eq!((exited.number("code"), exited.number("pid")), (0, i64::from(gateway.pid)), "{}", exited.value());
    assert_worked(&exited);
}
