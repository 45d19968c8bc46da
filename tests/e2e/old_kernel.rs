//! On kernels and in sandboxes that lack system calls of Linux 4.5 to 5.9 everything works, and what is worse is told once.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use std::process::Stdio;
use support::bystander::Bystander;
use support::jail::{Jail, first_process, gateways};
use support::ledger::Ledger;
use support::process::zombies_of;
use support::root::needs_root;
use support::supervisor::{PROGRAM, Supervisor};
use support::{PATIENCE, Scene, fake_gateway, wait_for};

const MACHINES: [&str; 4] = ["linux-3.4", "linux-4.4", "docker-19", "sandbox"];

const HOSTILE: &str = "kid=plain kid=setsid kid=daemon kid=deaf kid=wiped kid=ignoring";

fn start(scene: &Scene, machine: &str) -> Supervisor {
    scene.launch().on_machine(machine).option("--probe-timeout", "100ms").start()
}

/// Warnings about missing system calls.
fn told(supervisor: &Supervisor) -> Vec<String> {
    let warnings = supervisor.events().into_iter().filter(|event| event.name() == "log");
    let warnings = warnings.map(|event| event.text("message").to_owned());
    warnings.filter(|message| message.contains("system calls are missing")).collect()
}

#[test]
fn a_crash_and_a_hang_are_seen_at_once_and_what_is_missing_is_told_once() {
    for machine in MACHINES {
        let scene = Scene::new("healthy");
        let mut supervisor = start(&scene, machine);
        let first = supervisor.wait_started();
        first.signal(Signal::SIGABRT);
        let exited = supervisor.wait_event("gateway.exited");
        assert_eq!(exited.number("pid"), i64::from(first.pid), "{machine}");
        assert_eq!(exited.number("signal"), 6, "{machine}: its status is not lost");
        let second = supervisor.wait_started();
        scene.diary().command(second.pid, "freeze");
        supervisor.wait_event("gateway.hung");
        let third = supervisor.wait_started();
        assert!(!second.is_alive() && third.is_alive(), "{machine}");
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        assert_eq!(scene.processes(), [], "{machine}");
        let told = told(&supervisor);
        assert_eq!(told.len(), 1, "{machine}\n{}", supervisor.story());
        let wrong = ["check the path", "its permissions", "os error"];
        assert!(!wrong.iter().any(|advice| supervisor.story().contains(advice)), "{machine}\n{}", supervisor.story());
    }
}

#[test]
fn an_exit_code_is_read_without_pidfds() {
    for machine in MACHINES {
        let scene = Scene::new("exit=3@300ms; healthy");
        let mut supervisor = start(&scene, machine);
        assert_eq!(supervisor.wait_event("gateway.exited").number("code"), 3, "{machine}");
        supervisor.wait_started();
    }
}

#[test]
fn a_stop_ends_a_hostile_tree_and_nothing_else() {
    for machine in MACHINES {
        let scene = Scene::new(HOSTILE);
        let mut bystander = Bystander::namesake(&scene);
        let mut supervisor = start(&scene, machine);
        supervisor.wait_started();
        scene.diary().wait_kids(6);
        let kids = scene.diary().kids();
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        let left: Vec<_> = kids.iter().filter(|kid| kid.process.is_alive()).collect();
        assert!(left.is_empty(), "{machine}: {left:?}\n{}", supervisor.story());
        bystander.assert_alive();
    }
}

#[test]
fn without_clone3_a_gateway_enters_its_control_group_by_itself() {
    needs_root("control groups");
    for machine in MACHINES {
        let scene = Scene::new("kid=wiped");
        let mut supervisor = start(&scene, machine);
        let gateway = supervisor.wait_started();
        let group = std::fs::read_to_string(format!("/proc/{}/cgroup", gateway.pid)).unwrap();
        assert!(group.contains("/openclaw-gateway-"), "{machine}: {group}");
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        let killed = supervisor.last("tree.killed");
        assert!(killed.value()["found_by"].to_string().contains("cgroup"), "{machine}: {}", killed.value());
    }
}

#[test]
fn the_gateway_of_a_killed_supervisor_is_adopted_and_its_end_is_seen() {
    for machine in MACHINES {
        let scene = Scene::new(&format!("{HOSTILE}; healthy"));
        let mut first = start(&scene, machine);
        let gateway = first.wait_started();
        scene.diary().wait_kids(6);
        let kids = scene.diary().kids();
        Ledger::of(&scene).wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 1);
        first.signal(Signal::SIGKILL);
        first.wait_exit();
        let mut second = start(&scene, machine);
        assert_eq!(second.wait_event("gateway.adopted").process(), gateway, "{machine}");
        gateway.kill();
        second.wait_event("gateway.exited");
        assert_ne!(second.wait_started(), gateway);
        let left: Vec<_> = kids.iter().filter(|kid| kid.process.is_alive()).collect();
        assert!(left.is_empty(), "{machine}: {left:?}\n{}", second.story());
        second.signal(Signal::SIGTERM);
        second.expect_exit(0);
    }
}

#[test]
fn a_duplicate_starts_nothing() {
    for machine in MACHINES {
        let scene = Scene::new("healthy");
        let mut owner = start(&scene, machine);
        owner.wait_started();
        start(&scene, machine).expect_exit(78);
        assert_eq!(scene.diary().starts().len(), 1, "{machine}");
    }
}

#[test]
fn a_standby_sees_the_end_of_the_owner() {
    let scene = Scene::new("healthy");
    let mut owner = start(&scene, "linux-4.4");
    let gateway = owner.wait_started();
    let mut standby = scene.launch().on_machine("linux-4.4").option("--on-conflict", "standby").start();
    standby.wait_event("standby.entered");
    owner.signal(Signal::SIGKILL);
    owner.wait_exit();
    assert_eq!(standby.wait_event("gateway.adopted").process(), gateway);
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn as_process_1_and_without_a_proc_of_its_own_it_reaps_restarts_and_ends_all() {
    for (machine, jail) in [
        ("linux-4.4", Jail::with_pids()),
        ("docker-19", Jail::with_pids().and_no_groups()),
        ("linux-4.4", Jail::with_pids_of_others().and_no_groups()),
    ] {
        let scene = Scene::new(&("kid=daemon ".repeat(20) + "; exit=3@200ms; healthy drain=200ms"));
        let mut supervisor = Supervisor::spawn(jail.around(&scene.launch().on_machine(machine).command()));
        supervisor.wait_event("gateway.started");
        gateways(&scene)[0].kill();
        assert_eq!(supervisor.wait_event("gateway.exited").number("signal"), 9, "{}", supervisor.story());
        assert_eq!(supervisor.wait_event("gateway.exited").number("code"), 3, "{}", supervisor.story());
        supervisor.wait_event("gateway.started");
        let first = first_process(supervisor.pid());
        let none = || zombies_of(first.pid).is_empty().then_some(());
        wait_for("the end of the last zombie", PATIENCE, || supervisor.story(), none);
        first.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        assert_eq!(supervisor.last("gateway.exited").number("code"), 0, "it drained");
        assert_eq!(scene.processes(), []);
    }
}

#[test]
fn doctor_names_what_is_missing() {
    for (machine, name, fix) in
        [("linux-4.4", "pidfd_open(2): ENOSYS", "Linux 5.4"), ("docker-19", "clone3(2): EPERM", "20.10.10")]
    {
        let scene = Scene::new("healthy");
        let mut command = scene.command(fake_gateway());
        command.args(["on-machine", machine, PROGRAM, "doctor"]).stderr(Stdio::null());
        let text = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let lines: Vec<_> = text.lines().skip_while(|line| !line.starts_with("WARN  kernel")).take(2).collect();
        assert!(lines.len() == 2 && lines[0].contains(name) && lines[1].contains(fix), "{machine}\n{text}");
    }
}

#[test]
fn a_storm_of_processes_is_killed_by_pid_alone() {
    for machine in MACHINES {
        let scene = Scene::new("kid=storm");
        let mut supervisor = start(&scene, machine);
        supervisor.wait_started();
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
        let none = || scene.processes().is_empty().then_some(());
        wait_for("the end of the storm", PATIENCE, || supervisor.story(), none);
    }
}
