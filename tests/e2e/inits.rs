//! Below the init of a container: the stop fits into the grace period of docker, and a conflict does not end the container.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use support::jail::{Jail, first_process};
use support::package;
use support::supervisor::{Launch, PROGRAM, Supervisor};
use support::{Scene, wait_for};

/// Starts a supervisor in a pid namespace of which `init` is process 1.
fn start(launch: &Launch<'_>, init: &[&str]) -> Supervisor {
    Supervisor::spawn(Jail::with_pids().around(&launch.behind(init)))
}

/// As `status --json` of a supervisor in the scene.
fn status(scene: &Scene) -> Value {
    let output = scene.command(PROGRAM).args(["status", "--json"]).output().expect("the program can be started");
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

/// A copy of tini under the name that docker and podman give their init.
fn tini_as(scene: &Scene, name: &str) -> String {
    let path = scene.root().join(name);
    fs::copy("/usr/bin/tini", &path).expect("tini is there");
    path.display().to_string()
}

#[test]
fn a_stop_fits_into_the_grace_period_of_docker_below_tini() {
    package::need("tini", "tini");
    let scene = Scene::new("healthy drain=60s");
    let mut supervisor = start(&scene.launch().without("--stop-timeout"), &["/usr/bin/tini", "-s", "--"]);
    supervisor.wait_event("gateway.started");
    let told = supervisor.last("supervisor.started");
    assert_eq!(told.text("manager"), "container", "{}", supervisor.story());
    first_process(supervisor.pid()).signal(Signal::SIGTERM);
    supervisor.patience = Duration::from_secs(10);
    supervisor.expect_exit(0);
    assert_eq!(supervisor.count("stop.escalated"), 1, "{}", supervisor.story());
    assert_eq!(scene.processes(), []);
}

#[test]
fn every_init_of_a_container_is_known_and_so_is_a_container_without_one() {
    for (program, package) in [("tini", "tini"), ("dumb-init", "dumb-init"), ("catatonit", "catatonit")] {
        package::need(program, package);
    }
    let run = |init: &[&str], variables: &[(&str, &str)]| {
        let scene = Scene::new("healthy");
        let launch = scene.launch().without("--stop-timeout");
        let launch = variables.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
        let own: Vec<String> = init
            .iter()
            .map(|word| word.strip_prefix("tini as ").map_or((*word).to_owned(), |name| tini_as(&scene, name)))
            .collect();
        let mut supervisor = start(&launch, &own.iter().map(String::as_str).collect::<Vec<_>>());
        supervisor.wait_event("gateway.started");
        let manager = supervisor.last("supervisor.started").text("manager").to_owned();
        let time = status(&scene)["supervisor"]["stop_timeout_ms"].as_i64();
        first_process(supervisor.pid()).kill();
        (manager, time)
    };
    let pod = [("KUBERNETES_SERVICE_HOST", "10.0.0.1")];
    for (init, variables, time) in [
        (&["/usr/bin/tini", "--"][..], &[][..], 8000),
        (&["/usr/bin/dumb-init", "--"], &[], 8000),
        (&["/usr/bin/catatonit", "--"], &[], 8000),
        (&["tini as docker-init", "--"], &[], 8000),
        (&["tini as podman-init", "--"], &[], 8000),
        // A pid namespace that the containers of a pod share.
        (&["tini as pause", "--"], &pod, 25_000),
        (&["/usr/bin/tini", "--"], &pod, 25_000),
        (&["/bin/sh", "-c", "\"$@\"; exit $?", "sh"], &[("container", "podman")], 8000),
    ] {
        assert_eq!(run(init, variables), ("container".to_owned(), Some(time)), "{init:?}");
    }
}

#[test]
fn below_an_init_that_exits_with_its_child_a_conflict_is_waited_for_and_below_a_shell_it_is_not() {
    package::need("tini", "tini");
    let scene = Scene::new("healthy");
    let _stranger = scene.stranger("healthy");
    let mut supervisor = start(&scene.launch(), &["/usr/bin/tini", "--"]);
    supervisor.wait_event("standby.entered");
    first_process(supervisor.pid()).signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    start(&scene.launch(), &["/bin/sh", "-c", "\"$@\"; exit $?", "sh"]).expect_exit(78);
}

#[test]
fn doctor_judges_the_place_of_the_supervisor_and_not_its_own() {
    package::need("tini", "tini");
    let scene = Scene::new("healthy");
    let bin = scene.root().join("bin");
    fs::create_dir(&bin).expect("a folder can be made");
    symlink(PROGRAM, bin.join("openclaw-supervise")).expect("a link can be made");
    let mut supervisor = start(&scene.launch().without("--stop-timeout"), &["/usr/bin/tini", "--"]);
    supervisor.wait_event("gateway.started");
    let first = first_process(supervisor.pid());
    let doctor = || {
        let mut inner = scene.command("nsenter");
        inner.args(["--target", &first.pid.to_string(), "--pid", "--mount", "--"]);
        inner.arg(Path::new(PROGRAM)).args(["doctor", "--json"]);
        let output = inner.output().expect("nsenter(1) of util-linux starts");
        let value: Value = serde_json::from_slice(&output.stdout).ok()?;
        value["findings"].as_array().cloned()
    };
    let findings = wait_for("the findings", support::PATIENCE, || supervisor.story(), doctor);
    let found = |check: &str| {
        let finding = findings.iter().find(|finding| finding["check"] == check);
        finding.map(|finding| (finding["level"].to_string(), finding["found"].to_string())).unwrap_or_default()
    };
    let (level, text) = found("container");
    assert!(level == "\"ok\"" && text.contains("process 1 is /usr/bin/tini"), "{text}");
    let (level, text) = found("stop time");
    assert!(level == "\"warn\"" && text.contains("stop timeout 8s"), "{text}");
}

#[test]
fn below_an_init_that_exits_with_its_child_a_detach_is_refused() {
    package::need("tini", "tini");
    let scene = Scene::new("healthy");
    let mut supervisor = start(&scene.launch(), &["/usr/bin/tini", "--"]);
    supervisor.wait_event("gateway.started");
    // tini hands it on.
    first_process(supervisor.pid()).signal(Signal::SIGQUIT);
    supervisor.wait_event("detach.refused");
    first_process(supervisor.pid()).signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}
