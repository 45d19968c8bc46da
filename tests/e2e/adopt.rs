//! A killed supervisor leaves a healthy gateway, and the next supervisor adopts it without a restart.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs::{self, Permissions};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;
use support::bystander::Bystander;
use support::jail::Jail;
use support::ledger::Ledger;
use support::process::stat;
use support::root::needs_root;
use support::supervisor::Supervisor;
use support::{PATIENCE, Scene, fake_gateway, wait_for};

/// Waits until the start of the gateway is on record: the store's thread writes it asynchronously.
fn wait_recorded(scene: &Scene) {
    Ledger::of(scene).wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 1);
}

fn kill(supervisor: &mut Supervisor) {
    supervisor.signal(Signal::SIGKILL);
    assert_eq!(supervisor.wait_exit(), None);
}

#[test]
fn the_gateway_of_a_killed_supervisor_is_adopted_and_ended_with_all_of_its_tree() {
    let scene = Scene::new("kid=plain kid=setsid kid=daemon kid=deaf");
    let mut first = scene.start();
    let gateway = first.wait_started();
    scene.diary().wait_kids(4);
    wait_recorded(&scene);
    kill(&mut first);
    assert!(gateway.is_alive());
    let mut second = scene.start();
    assert_eq!(second.wait_event("gateway.adopted").process(), gateway);
    scene.diary().wait_requests(gateway.pid, 5);
    assert_eq!(scene.diary().starts().len(), 1);
    assert_eq!(second.count("gateway.started"), 0, "it was told by the first one\n{}", second.story());
    second.signal(Signal::SIGTERM);
    second.expect_exit(0);
    assert_eq!(scene.processes(), []);
    let ledger = Ledger::of(&scene);
    assert_eq!(ledger.number("SELECT count(*) FROM generations WHERE settled_at IS NOT NULL"), 1);
}

#[test]
fn the_gateway_of_a_detached_supervisor_is_adopted_and_replaced_when_it_dies() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    first.signal(Signal::SIGQUIT);
    first.expect_exit(0);
    assert!(gateway.is_alive() && scene.diary().signals(gateway.pid).is_empty());
    let mut second = scene.start();
    assert_eq!(second.wait_event("gateway.adopted").process(), gateway);
    assert_eq!(second.count("lease.stale_recovered"), 0, "the lease was given back");
    gateway.kill();
    let exited = second.wait_event("gateway.exited");
    assert!(
        exited.value()["code"].is_null() && exited.value()["signal"].is_null(),
        "an adopted gateway has no exit status: {exited:?}"
    );
    assert_ne!(second.wait_started(), gateway);
    assert_eq!(scene.diary().starts().len(), 2);
}

#[test]
fn a_gateway_that_was_still_booting_is_adopted_and_reported_started_once() {
    let scene = Scene::new("boot=1500ms");
    let mut first = scene.start();
    first.wait_event("gateway.spawned");
    kill(&mut first);
    let mut second = scene.start();
    let gateway = second.wait_event("gateway.adopted").process();
    assert_eq!(second.wait_started(), gateway);
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn an_adopted_gateway_that_hangs_is_replaced() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    wait_recorded(&scene);
    kill(&mut first);
    gateway.signal(Signal::SIGSTOP);
    let mut second = scene.start();
    assert_eq!(second.wait_event("gateway.adopted").process(), gateway);
    second.wait_event("gateway.hung");
    assert_ne!(second.wait_started(), gateway);
    assert!(!gateway.is_alive());
}

#[test]
fn an_exit_while_no_supervisor_ran_is_reported_and_the_leftovers_are_killed_before_the_next_start() {
    let scene = Scene::new("kid=setsid kid=daemon; healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    scene.diary().wait_kids(2);
    kill(&mut first);
    gateway.kill();
    let mut second = scene.start();
    let exited = second.wait_event("gateway.exited");
    assert_eq!(exited.number("pid"), i64::from(gateway.pid));
    assert_eq!(exited.text("cause"), "ended while no supervisor ran");
    let next = second.wait_started();
    for kid in scene.diary().kids() {
        assert!(!kid.process.is_alive(), "{} outlived its gateway\n{}", kid.kind, second.story());
    }
    assert!(next.is_alive());
    let told: Vec<_> = second.events().iter().map(|event| event.name().to_owned()).collect();
    let at = |name: &str| told.iter().position(|told| told == name);
    assert!(at("tree.killed") < at("gateway.spawned"), "{}", second.story());
}

/// Its orphans are not reparented to us, so only the control group identifies them.
#[test]
fn a_daemon_without_an_environment_that_an_adopted_gateway_starts_ends_with_it() {
    let scene = Scene::new("healthy");
    let (kid, root) = (fake_gateway().display().to_string(), scene.root().display().to_string());
    let script = format!(
        "{{ until test -e go; do sleep 0.01; done; exec {kid} kid lost {root}; }} >/dev/null 2>&1 & exec \"$@\""
    );
    let words = scene.gateway_words();
    let words: Vec<_> = ["/bin/sh", "-c", &script, "sh"].into_iter().chain(words.iter().map(String::as_str)).collect();
    let jail = Jail::open().and_no_groups();
    let start = || Supervisor::spawn(jail.around(&scene.launch().words(&words).command()));
    let mut first = start();
    let gateway = first.wait_started();
    wait_recorded(&scene);
    kill(&mut first);
    let mut second = start();
    assert_eq!(second.wait_event("gateway.adopted").process(), gateway);
    fs::write(scene.root().join("go"), "").expect("a file can be written");
    scene.diary().wait_kids(1);
    let daemon = scene.diary().kids()[0].process;
    let is_orphan = || {
        let parent = stat(daemon.pid)?.parent;
        (gateway.tree().iter().all(|member| member.pid != parent) && parent != second.pid()).then_some(())
    };
    wait_for("an orphan", PATIENCE, || second.story(), is_orphan);
    second.signal(Signal::SIGTERM);
    second.expect_exit(0);
    assert!(!daemon.is_alive(), "{}", second.story());
    let killed = second.last("tree.killed");
    assert_eq!(killed.value()["found_by"].to_string().contains("cgroup"), jail.has_groups(), "{}", killed.value());
}

#[test]
fn without_a_store_a_gateway_is_still_found_by_its_instance_id() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    kill(&mut first);
    fs::remove_dir_all(scene.store_dir()).expect("the store can be removed");
    let mut second = scene.start();
    assert_eq!(second.wait_event("gateway.adopted").process(), gateway);
    assert_eq!(scene.diary().starts().len(), 1);
    second.signal(Signal::SIGTERM);
    second.expect_exit(0);
    assert_eq!(scene.processes(), []);
}

#[test]
fn a_gateway_with_another_command_is_kept_and_the_difference_reported() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    kill(&mut first);
    let words = scene.gateway_words();
    let mut words: Vec<_> = words.iter().map(String::as_str).collect();
    words.push("--verbose");
    let mut second = scene.launch().words(&words).start();
    let adopted = second.wait_event("gateway.adopted");
    assert_eq!(adopted.process(), gateway);
    assert_eq!(adopted.text("differs"), "another command line", "{adopted:?}");
    second.signal(Signal::SIGHUP);
    second.patience = Duration::from_secs(30);
    assert_ne!(second.wait_started(), gateway, "a planned restart replaces it");
}

#[test]
fn a_stop_right_after_the_start_ends_the_gateway_that_a_predecessor_left() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    wait_recorded(&scene);
    kill(&mut first);
    // The answer of the store takes as long as the test likes.
    let blockade = Ledger::of(&scene).block();
    let mut second = scene.start();
    second.wait_event("lease.acquire_started");
    second.signal(Signal::SIGTERM);
    second.wait_event("stop.requested");
    drop(blockade);
    second.expect_exit(0);
    assert_eq!((second.count("gateway.adopted"), gateway.is_alive()), (1, false), "{}", second.story());
    assert_eq!(scene.processes(), []);
}

#[test]
fn a_second_stop_does_not_wait_for_the_record_and_says_that_a_gateway_may_be_left() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    wait_recorded(&scene);
    kill(&mut first);
    let _blockade = Ledger::of(&scene).block();
    let mut second = scene.start();
    second.wait_event("lease.acquire_started");
    second.signal(Signal::SIGTERM);
    second.wait_event("stop.requested");
    second.signal(Signal::SIGTERM);
    second.expect_exit(1);
    let reason = second.last("supervisor.stopped");
    assert!(reason.text("reason").contains("an earlier gateway on record there may still be running"), "{reason:?}");
    assert!(gateway.is_alive());
    gateway.kill();
}

/// The gateway of a supervisor as root may give up its rights, and any user may write the key of a configuration, which is a
/// hash of its path, into an environment.
#[test]
fn root_adopts_a_gateway_that_has_changed_its_user_and_leaves_a_process_of_that_user_that_only_bears_its_key() {
    needs_root("another user's processes");
    let scene = Scene::new("healthy");
    open_to_all(&scene);
    let own = scene.gateway_words();
    let dropped: Vec<_> = DROP.into_iter().chain(own.iter().map(String::as_str)).collect();
    let mut first = scene.launch().words(&dropped).start();
    let gateway = first.wait_started();
    let known = "SELECT count(*) FROM generations WHERE uid = 65534";
    Ledger::of(&scene).wait_number(known, 1);
    let instance = scene.diary().environment(gateway.pid)["OPENCLAW_SUPERVISE_INSTANCE"].clone();
    kill(&mut first);
    let mut second = scene.launch().words(&dropped).start();
    assert_eq!(second.wait_event("gateway.adopted").process(), gateway);
    second.signal(Signal::SIGTERM);
    second.expect_exit(0);
    assert!(!gateway.is_alive());

    // Another store knows of no gateway of that user.
    fs::remove_dir_all(scene.store_dir()).unwrap();
    let (key, _) = instance.split_once('-').unwrap();
    let mut command = scene.command("setpriv");
    command.args(&dropped[1..]).env("OPENCLAW_SUPERVISE_INSTANCE", format!("{key}-{}", "0".repeat(32)));
    let mut stranger = Bystander::start("a process of another user with our key", command);
    wait_for("its port", PATIENCE, String::new, || TcpStream::connect(("127.0.0.1", scene.port())).ok());
    let mut third = scene.launch().option("--on-conflict", "exit").start();
    third.expect_exit(78);
    let conflict = third.last("conflict.detected");
    assert_eq!(conflict.number("holder_pid"), i64::from(stranger.process().pid), "{}", third.story());
    assert_eq!((conflict.number("holder_uid"), third.count("gateway.adopted")), (65534, 0), "{}", third.story());
    stranger.assert_alive();
}

/// Makes the next words those of another user.
const DROP: [&str; 5] = ["setpriv", "--reuid", "65534", "--clear-groups", "--"];

fn open_to_all(scene: &Scene) {
    for dir in [scene.root().to_path_buf(), scene.state_dir()] {
        fs::set_permissions(dir, Permissions::from_mode(0o777)).unwrap();
    }
}
