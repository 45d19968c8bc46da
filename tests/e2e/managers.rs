//! Under the process managers that are neither systemd nor launchd: each is named, and a stop is over before its SIGKILL.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use support::jail::{Jail, gateways};
use support::process::Process;
use support::supervisor::PROGRAM;
use support::{PATIENCE, Scene, package, wait_for};

/// A service that runs the supervisor, in a folder of the scene, with a gateway that does not end its drain.
struct Service {
    scene: Scene,
    manager: Option<Child>,
}

impl Service {
    fn new() -> Self {
        let scene = Scene::new("healthy drain=60s");
        let run = scene.root().join("service/run");
        fs::create_dir(scene.root().join("service")).expect("a folder can be made");
        let words: Vec<String> = scene.gateway_words();
        let options = format!("--port {} --probe-interval 50ms --boot-limit 0", scene.port());
        fs::write(&run, format!("#!/bin/sh\nexec {PROGRAM} run {options} -- {}\n", words.join(" "))).expect("a script");
        fs::set_permissions(&run, fs::Permissions::from_mode(0o755)).expect("it can be made executable");
        Self { scene, manager: None }
    }

    fn write(&self, name: &str, text: &str) -> String {
        let path = self.scene.root().join(name);
        fs::write(&path, text).expect("a file can be written");
        path.display().to_string()
    }

    fn run(&self) -> String {
        self.scene.root().join("service/run").display().to_string()
    }

    fn start(&mut self, mut manager: Command) {
        manager.stdout(Stdio::null()).stderr(Stdio::null());
        self.manager = Some(manager.spawn().expect("the manager starts"));
    }

    fn signal(&self, signal: Signal) {
        let manager = self.manager.as_ref().expect("it was started");
        kill(Pid::from_raw(manager.id().cast_signed()), signal).expect("it was not reaped");
    }

    fn ask(&self, words: &[&str]) -> Option<Value> {
        let output = self.scene.command(PROGRAM).args(words).output().expect("the program can be started");
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Waits until a gateway serves. What the supervisor says of itself then, and its gateway.
    fn serving(&self) -> (Value, Process) {
        let look = || {
            let status = self.ask(&["status", "--json"])?;
            let gateway = gateways(&self.scene).into_iter().next()?;
            (status["gateway"]["healthy"] == true).then(|| (status["supervisor"].clone(), gateway))
        };
        wait_for("a gateway", PATIENCE, || format!("{:?}", self.ask(&["status", "--json"])), look)
    }

    /// Waits until nothing of the supervisor and the gateway is left. Whether it ended in order.
    fn is_stopped_well(&self, gateway: Process) -> bool {
        let ended = || (!gateway.is_alive()).then_some(());
        wait_for("the end of the gateway", PATIENCE, || format!("{gateway:?}"), ended);
        let look = || {
            let output = self.scene.command(PROGRAM).args(["events", "--json"]).output().expect("the program starts");
            let text = String::from_utf8_lossy(&output.stdout).into_owned();
            text.lines().any(|line| line.contains("\"supervisor.stopped\"")).then_some(text)
        };
        let text = wait_for("the last event", PATIENCE, || format!("{:?}", self.ask(&["events"])), look);
        ["stop.requested", "stop.escalated", "tree.killed"].iter().all(|event| text.contains(event))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        if let Some(mut manager) = self.manager.take() {
            // It may have ended.
            manager.kill().ok();
            manager.wait().ok();
        }
    }
}

fn assert_named(supervisor: &Value, manager: &str, stop_timeout_ms: i64) {
    let got = (supervisor["manager"].as_str(), supervisor["stop_timeout_ms"].as_i64());
    assert_eq!(got, (Some(manager), Some(stop_timeout_ms)), "{supervisor}");
}

#[test]
fn a_forced_stop_of_runit_ends_the_gateway_before_its_sigkill() {
    package::need("runsv", "runit");
    let mut service = Service::new();
    let folder = service.scene.root().join("service");
    let mut runsv = service.scene.command("runsv");
    runsv.arg(&folder);
    service.start(runsv);
    let (supervisor, gateway) = service.serving();
    assert_named(&supervisor, "runit", 5600);
    let stopped = service.scene.command("sv").arg("force-stop").arg(&folder).output().expect("sv starts");
    assert!(String::from_utf8_lossy(&stopped.stdout).starts_with("ok: down"), "{stopped:?}");
    assert!(service.is_stopped_well(gateway));
}

#[test]
fn a_stop_of_s6_ends_the_gateway_before_its_timeout() {
    package::need("s6-supervise", "s6");
    let mut service = Service::new();
    service.write("service/timeout-kill", "4000\n");
    let folder = service.scene.root().join("service");
    let mut s6 = service.scene.command("s6-supervise");
    s6.arg(&folder);
    service.start(s6);
    let (supervisor, gateway) = service.serving();
    assert_named(&supervisor, "s6", 3200);
    service.scene.command("s6-svc").arg("-d").arg(&folder).status().expect("s6-svc starts");
    assert!(service.is_stopped_well(gateway));
}

/// As in s6-overlay: the container's runtime has less patience than s6.
#[test]
fn with_s6_as_process_1_of_a_container_the_grace_period_of_docker_counts() {
    package::need("s6-svscan", "s6");
    let mut service = Service::new();
    let folder = service.scene.root().join("services");
    fs::create_dir(&folder).expect("a folder can be made");
    fs::rename(service.scene.root().join("service"), folder.join("gateway")).expect("it can be moved");
    let mut s6 = service.scene.command("s6-svscan");
    s6.arg(&folder);
    service.start(Jail::with_pids().around(&s6));
    let (supervisor, _) = service.serving();
    assert_named(&supervisor, "s6", 8000);
}

#[test]
fn a_stop_of_supervisord_ends_the_gateway_before_its_stopwaitsecs() {
    let (program, modules) = package::supervisord();
    let mut service = Service::new();
    let root = service.scene.root().display().to_string();
    let text = format!(
        "[supervisord]\nnodaemon=true\nlogfile={root}/supervisord.log\npidfile={root}/supervisord.pid\n\
         [include]\nfiles = conf.d/*.conf\n"
    );
    let file = service.write("supervisord.conf", &text);
    fs::create_dir(Path::new(&root).join("conf.d")).expect("a folder can be made");
    service.write("conf.d/gateway.conf", &format!("[program:gateway]\ncommand={}\nstopwaitsecs=4\n", service.run()));
    let mut supervisord = service.scene.command(program);
    supervisord.args(["-n", "-c", &file]).env("PYTHONPATH", modules);
    service.start(supervisord);
    let (supervisor, gateway) = service.serving();
    assert_named(&supervisor, "supervisord", 3200);
    service.signal(Signal::SIGTERM);
    assert!(service.is_stopped_well(gateway));
}

#[test]
fn a_stop_of_pm2_ends_the_gateway_before_its_kill_timeout_and_its_channel_does_not_reach_the_gateway() {
    let program = package::pm2();
    let mut service = Service::new();
    let app = serde_json::json!({ "apps": [{
        "name": "gateway", "script": service.run(), "interpreter": "none", "kill_timeout": 4000, "treekill": false,
    }]});
    let file = service.write("ecosystem.json", &app.to_string());
    let mut pm2 = service.scene.command(program);
    pm2.args(["start", &file]).env("PM2_HOME", service.scene.root().join("pm2"));
    service.start(pm2);
    let (supervisor, gateway) = service.serving();
    assert_named(&supervisor, "pm2", 3200);
    let diary = service.scene.diary();
    let environment = diary.environment(gateway.pid);
    let inherited: Vec<_> = environment.keys().filter(|name| name.starts_with("NODE_CHANNEL")).collect();
    assert!(environment.contains_key("pm_id") && inherited.is_empty(), "{environment:?}");
    let sockets = diary.given(gateway.pid, "fd").into_iter().filter(|entry| entry.contains("socket:"));
    let others: Vec<_> =
        sockets.filter(|entry| !["0 ", "1 ", "2 "].iter().any(|stream| entry.starts_with(stream))).collect();
    assert!(others.is_empty(), "{others:?}");
    service.signal(Signal::SIGTERM);
    assert!(service.is_stopped_well(gateway));
}
