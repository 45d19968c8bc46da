//! An overloaded machine is no reason to kill a working gateway.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use std::process::Child;
use std::thread;
use std::time::Duration;
use support::Scene;

/// How long the load lasts: twice the time after which a silent gateway hangs.
const BUSY: Duration = Duration::from_secs(10);

/// Two processes a processor, with the same nice value as the gateway. They end with the scene.
fn load(scene: &Scene) -> Vec<Child> {
    let processors = thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let start = |_| scene.command("/bin/sh").args(["-c", "while :; do :; done"]).spawn().expect("there is a shell");
    (0..2 * processors).map(start).collect()
}

#[test]
fn a_busy_machine_costs_no_gateway_its_life() {
    let scene = Scene::new("healthy");
    // A tenth of the default, which also gives each probe a tenth of its time.
    let launch = scene.launch().option("--probe-interval", "500ms").option("--probe-timeout", "500ms");
    let mut supervisor = launch.option("--hang-after", "5s").start();
    let gateway = supervisor.wait_started();
    let mut spinners = load(&scene);
    support::let_pass(BUSY);
    // A probe sends two requests and is slow here: a few prove that probes ran.
    scene.diary().wait_requests(gateway.pid, 10);
    for spinner in &mut spinners {
        assert_eq!(spinner.try_wait().expect("it is our child"), None, "it was busy all the time");
        spinner.kill().and_then(|()| spinner.wait()).expect("it is our child");
    }
    assert_eq!(supervisor.count("gateway.hung"), 0, "{}", supervisor.story());
    assert_eq!(scene.diary().starts().len(), 1);
    assert!(scene.diary().signals(gateway.pid).is_empty() && gateway.is_alive());
}
