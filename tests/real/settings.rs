//! The real gateway is found wherever its own files put it.

use crate::support::real::RealGateway;
use crate::support::supervisor::Said;
use crate::support::{Scene, http};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::time::Duration;

/// Cold disks and busy machines.
const PATIENCE: Duration = Duration::from_mins(4);

/// Files in the state directory. `@` stands for the port on which the gateway serves, and 1 and 2 for those that lose.
const CASES: [&[(&str, &str)]; 2] = [
    &[(".env", "export OPENCLAW_GATEWAY_PORT='@' # mine"), ("openclaw.json", "{gateway: {mode: 'local', port: 1}}")],
    &[
        ("openclaw.json", "{$include: ['a.json5', './b/c.json5'], gateway: {mode: 'local'}}"),
        ("a.json5", "{gateway: {port: 1}, env: {vars: {OPENCLAW_GATEWAY_PORT: '2'}}}"),
        ("b/c.json5", "{env: {vars: {$include: 'd.json5'}}} // relative to this file"),
        ("b/d.json5", "{OPENCLAW_GATEWAY_PORT: '@'}"),
    ],
];

/// Has each process of Node write down its limit, in MiB.
const REPORT_HEAP: &str = "const limit = require('v8').getHeapStatistics().heap_size_limit;
require('fs').appendFileSync(process.env.LIMITS, `${process.pid} ${limit / 1048576} ${process.argv[2]}\\n`);";

/// The gateway and the process as which it starts itself again have the heap that `status` shows; the young generation comes on
/// top of the old space.
fn assert_heap(status: &Value, limits: &str) {
    let heap = status["supervisor"]["heap_mib"].as_f64().unwrap_or_else(|| panic!("{status}"));
    let is_enough = |line: &&str| {
        let limit = line.split(' ').nth(1).and_then(|limit| limit.parse::<f64>().ok());
        limit.is_some_and(|limit| limit >= heap && limit <= heap * 1.25)
    };
    let pid = format!("{} ", status["gateway"]["pid"]);
    assert!(limits.lines().any(|line| line.starts_with(&pid)), "{limits}");
    let gateways: Vec<_> = limits.lines().filter(|line| line.ends_with(" gateway")).collect();
    assert!(!gateways.is_empty() && gateways.iter().all(is_enough), "{heap}: {limits}");
}

#[test]
fn the_real_gateway_is_found_wherever_its_own_files_put_it() {
    let real = RealGateway::install();
    for files in CASES {
        let scene = Scene::new("");
        for (name, text) in files {
            let path = scene.state_dir().join(name);
            fs::create_dir_all(path.parent().expect("it has a folder")).expect("a folder can be made");
            fs::write(path, text.replace('@', &scene.port().to_string())).expect("a file can be written");
        }
        let words = real.words_without_port();
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let launch = scene.launch().words(&words).without("--port").without("--boot-limit");
        let launch = launch.option("--probe-interval", "500ms").option("--hang-after", "60s");
        let (report, limits) = (scene.root().join("heap.cjs"), scene.root().join("limits"));
        fs::write(&report, REPORT_HEAP).expect("a file can be written");
        let launch = launch.env("NODE_OPTIONS", &format!("-r {}", report.display()));
        let launch = launch.env("LIMITS", &limits.display().to_string());
        let mut supervisor = launch.option("--startup-timeout", "240s").start();
        supervisor.patience = PATIENCE;
        supervisor.wait_started();
        assert_eq!(http::startup_status(scene.port()).as_deref(), Some("started"), "{files:?}");
        let status = Said::by(&scene, &["status", "--json"]).expect(0).json();
        assert_eq!(status["supervisor"]["url"], scene.url(), "{status}");
        Said::by(&scene, &["probe"]).expect(0);
        assert_heap(&status, &fs::read_to_string(&limits).unwrap_or_default());
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        assert_eq!(supervisor.count("gateway.spawned"), 1, "{}", supervisor.story());
    }
}
