//! Two supervisors in two pid namespaces share a store: neither sees the other's process, and exactly one owns the gateway.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::process::Stdio;
use support::jail::{Jail, first_process, gateways};
use support::ledger::Ledger;
use support::process::Process;
use support::root::needs_root;
use support::supervisor::{PROGRAM, Said, Supervisor};
use support::{PATIENCE, Scene, wait_for};

/// As PID 1 it would stand by.
fn start(scene: &Scene, jail: &Jail) -> Supervisor {
    Supervisor::spawn(jail.around(&scene.launch().option("--on-conflict", "exit").command()))
}

/// No owner may be named: a pid of the other namespace is another process here.
fn assert_yields_to_unseen_owner(scene: &Scene, jail: &Jail, to: &str) {
    let mut second = start(scene, jail);
    second.expect_exit(78);
    assert_eq!(second.last("lease.contended").text("what"), to, "{}", second.story());
    let conflict = second.last("conflict.detected");
    assert!(conflict.value()["holder_pid"].is_null(), "{conflict:?}");
    let reason = second.last("supervisor.stopped");
    assert!(!reason.text("reason").contains("pid "), "{reason:?}");
}

fn assert_taken_over(scene: &Scene, jail: &Jail, mut first: Supervisor) {
    let gateway = gateways(scene);
    assert_eq!(gateway.len(), 1, "{}", first.story());
    // The rest of its namespace dies with it, see pid_namespaces(7).
    first_process(first.pid()).kill();
    first.wait_exit();
    let mut second = start(scene, jail);
    second.wait_event("lease.stale_recovered");
    let took = second.age();
    assert!(took.as_secs() < 5, "free means gone, at once, and not after {took:?}\n{}", second.story());
    second.wait_event("gateway.started");
    assert_eq!(second.count("gateway.adopted"), 0, "{}", second.story());
    let now = gateways(scene);
    assert!(now.len() == 1 && now != gateway, "{now:?} after {gateway:?}\n{}", second.story());
    let inside = first_process(second.pid());
    inside.signal(Signal::SIGTERM);
    second.expect_exit(0);
    wait_for("the end of all", PATIENCE, || second.story(), || scene.processes().is_empty().then_some(()));
    let ledger = Ledger::of(scene);
    assert_eq!(ledger.number("SELECT count(*) FROM generations WHERE settled_at IS NOT NULL"), 2);
}

#[test]
fn with_one_network() {
    let scene = Scene::new("healthy");
    let jail = Jail::with_pids();
    let mut first = start(&scene, &jail);
    first.wait_event("gateway.started");
    assert_eq!(Ledger::of(&scene).number("SELECT pid FROM state_leases"), 1, "it is number 1 in there");
    assert_yields_to_unseen_owner(&scene, &jail, "lease");
    assert_eq!(gateways(&scene).len(), 1);
    assert_taken_over(&scene, &jail, first);
}

#[test]
fn with_two_networks_in_which_no_port_claim_meets_the_other() {
    let scene = Scene::new("healthy");
    let jail = Jail::with_pids().and_network();
    let mut first = start(&scene, &jail);
    first.wait_event("gateway.started");
    assert_yields_to_unseen_owner(&scene, &jail, "lease");
    assert_eq!(gateways(&scene).len(), 1);
    assert_taken_over(&scene, &jail, first);
}

#[test]
fn with_two_stores_and_one_network_the_port_claim_decides_and_names_no_owner() {
    let scene = Scene::new("boot=1500ms");
    let jail = Jail::with_pids();
    let mut first = start(&scene, &jail);
    first.wait_event("gateway.spawned");
    let other = scene.root().join("other-state").display().to_string();
    let launch = scene.launch().option("--on-conflict", "exit").option("--state-dir", &other);
    let mut second = Supervisor::spawn(jail.around(&launch.command()));
    second.expect_exit(78);
    assert_eq!(second.last("lease.contended").text("what"), "port claim");
    assert!(second.last("conflict.detected").value()["holder_pid"].is_null(), "{}", second.story());
    first.wait_event("gateway.started");
    assert_eq!(gateways(&scene).len(), 1);
}

#[test]
fn a_gateway_in_a_network_of_its_own_is_told_of_and_not_killed_once_it_listens() {
    for (script, expected, timeouts) in [("healthy", "liveness.degraded", 0), ("boot=60s", "startup.timed_out", 1)] {
        let scene = Scene::new(script);
        let own = scene.gateway_words();
        let network = ["unshare", "--net", "sh", "-c", "ip link set lo up && exec \"$@\"", "sh"];
        let words: Vec<_> = network.into_iter().chain(own.iter().map(String::as_str)).collect();
        let mut supervisor = scene.launch().words(&words).option("--startup-timeout", "2s").start();
        let told = supervisor.wait_event(expected);
        assert_eq!(supervisor.count("startup.timed_out"), timeouts, "{}", supervisor.story());
        if timeouts == 0 {
            assert!(told.text("detail").contains("in another network namespace"), "{}", supervisor.story());
            supervisor.signal(Signal::SIGTERM);
            supervisor.expect_exit(0);
            assert_eq!((scene.diary().starts().len(), supervisor.count("stop.escalated")), (1, 0));
        }
    }
}

/// Without `/proc`, and with that of a namespace which is not above ours: no pid in it is one that it may use.
#[test]
fn a_gateway_and_its_process_group_end_whatever_proc_shows() {
    let inner = "unshare --pid --fork sh -c 'mount -t proc proc /proc && exec tail -f /dev/null' & until [ ! -e /proc/self ]; do :; done";
    for setup in ["umount --lazy /proc", inner] {
        let scene = Scene::new("");
        let words = ["sh", "-c", "trap '' TERM; sleep 600 & sleep 601; :"];
        let launch = scene.launch().words(&words).option("--stop-timeout", "300ms").option("--on-conflict", "exit");
        let jail = Jail::with_mounts("true").and_no_groups().and(&format!("{{ {setup}; }}"));
        let mut supervisor = Supervisor::spawn(jail.around(&launch.command()));
        supervisor.wait_event("gateway.spawned");
        let is_there = |words: &[u8]| scene.processes().iter().any(|process| has_words(process, words));
        let are_there = || (is_there(b"sleep\x00600\0") && is_there(b"sleep\x00601\0")).then_some(());
        wait_for("the group", PATIENCE, || supervisor.story(), are_there);
        // The jail became it.
        supervisor.signal(Signal::SIGTERM);
        supervisor.wait_event("stop.escalated");
        supervisor.expect_exit(0);
        let left: Vec<_> = scene.processes().into_iter().filter(|process| has_words(process, b"sleep\x0060")).collect();
        assert_eq!(left, [], "{}", supervisor.story());
    }
}

fn has_words(process: &Process, words: &[u8]) -> bool {
    fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default().starts_with(words)
}

fn status(scene: &Scene, code: i32) -> (Value, String) {
    let port = scene.port().to_string();
    let told = Said::by(scene, &["status", "--port", &port, "--json"]).expect(code).json();
    (told, Said::by(scene, &["status", "--port", &port]).expect(code).out)
}

#[test]
fn status_tells_an_owner_that_it_cannot_ask_or_see_and_never_calls_its_lease_free() {
    let scene = Scene::new("healthy");
    let jail = Jail::with_pids().and_network();
    let mut first = start(&scene, &jail);
    first.wait_event("gateway.started");
    // It answers, and neither its processes nor its port are ours.
    let (told, text) = status(&scene, 4);
    assert_eq!((&told["answered_by"], &told["health"]), (&"supervisor".into(), &"unknown".into()), "{told:#}");
    assert!(told["elsewhere"].is_object() && text.contains("pid 1 in another pid namespace"), "{told:#}\n{text}");
    // As on another machine: no socket.
    fs::remove_file(scene.store_dir().join("control.sock")).unwrap();
    let (told, text) = status(&scene, 4);
    assert_eq!((&told["supervisor"]["state"], &told["health"]), (&"elsewhere".into(), &"unknown".into()), "{told:#}");
    assert_eq!((&told["lease"]["held"], &told["lease"]["owner_pid"]), (&true.into(), &1.into()), "{told:#}");
    assert_eq!((&told["last"]["supervisor"], &told["last"]["gateway"]), (&Value::Null, &Value::Null), "{told:#}");
    for part in
        ["elsewhere: pid 1 in another pid namespace, since ", "it holds the lock", "held by pid 1 ", "no end on record"]
    {
        assert!(text.contains(part), "{part:?} is missing in {text}");
    }
    assert!(!text.contains("not running") && !text.contains("free, ") && !text.contains(" ended "), "{text}");
    let said = Said::by(&scene, &["stop"]).expect(1);
    said.assert_says(&["runs elsewhere (pid 1 on ", "it holds the lock and cannot be asked from here"]);
    // Its lock is free, and with PID 1 its gateway is gone.
    first_process(first.pid()).kill();
    first.wait_exit();
    let (told, text) = status(&scene, 3);
    assert_eq!((&told["supervisor"]["state"], &told["lease"]["held"]), (&"none".into(), &false.into()), "{told:#}");
    assert!(text.contains("its lock is free"), "{text}");
}

/// Below a small init, so that the pid namespace outlives it.
fn start_below_init(scene: &Scene, jail: &Jail) -> Supervisor {
    let inner = scene.launch().command();
    let mut command = scene.command(support::fake_gateway());
    command.arg("as-init").arg(inner.get_program()).args(inner.get_args());
    Supervisor::spawn(jail.around(&command))
}

/// Kills the supervisor below the init of this `unshare`, and leaves its gateway.
fn leave_gateway(unshare: i32) {
    let init = first_process(unshare);
    let below = fs::read_to_string(format!("/proc/{0}/task/{0}/children", init.pid)).unwrap();
    let supervisor = Process::find(below.split_whitespace().next().unwrap().parse().unwrap()).unwrap();
    // The init exits as the supervisor does: it must not see that.
    init.signal(Signal::SIGSTOP);
    supervisor.kill();
}

/// Its record has pids of that namespace, also once the lease has another owner.
#[test]
fn the_gateway_of_another_pid_namespace_is_adopted_even_if_a_start_out_here_died_before_it_looked() {
    for dies_between in [false, true] {
        let scene = Scene::new("healthy");
        let mut first = start_below_init(&scene, &Jail::with_pids());
        first.wait_event("gateway.started");
        Ledger::of(&scene).wait_number("SELECT count(*) FROM generations WHERE pid IS NOT NULL", 1);
        let gateway = gateways(&scene);
        leave_gateway(first.pid());
        if dies_between {
            let mut between = scene.launch().env("OPENCLAW_SUPERVISE_TEST_KILL_AT", "Leased+1").start();
            assert_eq!(between.wait_exit(), None, "{}", between.story());
        }
        let mut second = scene.start();
        let adopted = second.wait_event("gateway.adopted");
        assert_eq!(adopted.number("pid"), i64::from(gateway[0].pid), "{}", second.story());
        second.signal(Signal::SIGTERM);
        second.expect_exit(0);
        assert!(!gateway[0].is_alive() && scene.diary().starts().len() == 1, "{}", second.story());
    }
}

#[test]
fn a_gateway_is_adopted_from_another_time_namespace_in_which_all_start_times_differ() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    first.wait_event("gateway.started");
    let gateway = gateways(&scene);
    Process::find(first.pid()).unwrap().kill();
    first.wait_exit();
    let mut second = start(&scene, &Jail::with_time());
    let adopted = second.wait_event("gateway.adopted");
    assert_eq!(adopted.number("pid"), i64::from(gateway[0].pid), "{}", second.story());
    first_process(second.pid()).signal(Signal::SIGTERM);
    second.expect_exit(0);
    assert!(!gateway[0].is_alive(), "{}", second.story());
}

#[test]
fn no_end_is_recorded_of_a_gateway_that_goes_on_in_another_namespace() {
    let scene = Scene::new("healthy");
    let mut first = start_below_init(&scene, &Jail::with_pids().and_network());
    first.wait_event("gateway.started");
    let ledger = Ledger::of(&scene);
    ledger.wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 1);
    let gateway = gateways(&scene);
    leave_gateway(first.pid());
    wait_for(
        "the lock to be free",
        PATIENCE,
        || first.story(),
        || (status(&scene, 4).0["lease"]["held"] == false).then_some(()),
    );
    let (told, text) = status(&scene, 4);
    assert_eq!((&told["supervisor"]["state"], &told["health"]), (&"none".into(), &"unknown".into()), "{told:#}");
    assert!(text.contains("cannot be seen from here, no end on record"), "{text}");
    // Not with the `/proc` out here, in which it would be found by its id.
    let mut second = start(&scene, &Jail::with_pids());
    let unseen = second.wait_event("gateway.unseen");
    assert_eq!(unseen.number("generation"), 1);
    second.wait_event("gateway.started");
    assert_eq!((second.count("gateway.exited"), gateway[0].is_alive()), (0, true), "{}", second.story());
    ledger.wait_number("SELECT count(*) FROM generations WHERE number = 1 AND settled_at IS NOT NULL", 1);
    assert_eq!(ledger.number("SELECT count(*) FROM generations WHERE number = 1 AND died_at IS NOT NULL"), 0);
    first_process(second.pid()).signal(Signal::SIGTERM);
    second.expect_exit(0);
}

#[test]
fn status_on_another_machine_that_shares_the_files_names_the_owner_of_the_held_lock() {
    let scene = Scene::new("healthy");
    let mut owner = scene.start();
    owner.wait_event("gateway.started");
    fs::remove_file(scene.store_dir().join("control.sock")).unwrap();
    let boot = scene.root().join("boot-id");
    fs::write(&boot, "01234567-89ab-4cde-8f01-23456789abcd\n").unwrap();
    let other_boot = format!("mount --bind '{}' /proc/sys/kernel/random/boot_id", boot.display());
    let jail = Jail::with_pids().and_network().and(&other_boot);
    let mut status = scene.command(PROGRAM);
    status.args(["status", "--port", &scene.port().to_string()]);
    let output = jail.around(&status).stdout(Stdio::piped()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(4), "{text}");
    for part in [format!("elsewhere: pid {} ", owner.pid()), format!("held by pid {} ", owner.pid())] {
        assert!(text.contains(&part), "{part:?} is missing in {text}");
    }
    assert!(text.contains("no end on record") && !text.contains("not running"), "{text}");
    owner.signal(Signal::SIGTERM);
    owner.expect_exit(0);
}

#[test]
fn status_is_good_where_the_endpoint_answers_and_the_supervisor_cannot_be_asked() {
    let scene = Scene::new("healthy");
    let mut first = start(&scene, &Jail::with_pids());
    first.wait_event("gateway.started");
    fs::remove_file(scene.store_dir().join("control.sock")).unwrap();
    let (told, _) = status(&scene, 0);
    assert_eq!((&told["supervisor"]["state"], &told["health"]), (&"elsewhere".into(), &"healthy".into()), "{told:#}");
    first_process(first.pid()).signal(Signal::SIGTERM);
    first.expect_exit(0);
    let (told, _) = status(&scene, 3);
    assert_eq!(
        (&told["supervisor"]["state"], &told["last"]["gateway"]["end"]),
        (&"none".into(), &"with exit code 0".into())
    );
}

#[test]
fn a_gateway_is_adopted_from_another_time_namespace_and_back() {
    needs_root("a time namespace");
    let scene = Scene::new("healthy");
    let ahead = ["unshare", "--time", "--monotonic", "100000", "--boottime", "100000"];
    let plain = || scene.launch().command();
    let mut first = Supervisor::spawn(plain());
    let gateway = first.wait_started();
    Ledger::of(&scene).wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 1);
    for command in [scene.launch().behind(&ahead), plain()] {
        first.signal(Signal::SIGKILL);
        first.wait_exit();
        first = Supervisor::spawn(command);
        let adopted = first.wait_event("gateway.adopted");
        assert_eq!(adopted.process(), gateway, "{}", first.story());
        assert!(adopted.number("age_ms") < 60_000, "{:?}", adopted.value());
    }
    assert_eq!(scene.diary().starts().len(), 1);
}
