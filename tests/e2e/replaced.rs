//! A state directory that is removed or replaced under a supervisor: the gateway serves on, `status` tells the truth, and
//! socket, lease and records come back within a minute.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use rustix::fs::{FlockOperation, flock};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;
use support::ledger::Ledger;
use support::process::Process;
use support::supervisor::{Said, Supervisor};
use support::{Scene, wait_for};

/// Within a minute, and what a loaded machine may add.
const WITHIN: Duration = Duration::from_secs(70);

/// A scene with a gateway that serves, by a supervisor that knows its state directory from the command line.
fn serving() -> (Scene, Supervisor, Process) {
    let scene = Scene::new("healthy");
    let mut owner = scene.start();
    let gateway = owner.wait_started();
    Ledger::of(&scene).wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 1);
    (scene, owner, gateway)
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").args(["-a", "--"]).args([from, to]).status().unwrap().success());
}

/// Nothing names the port: the config is gone with the state directory.
fn status(scene: &Scene) -> serde_json::Value {
    Said::by(scene, &["status", "--json"]).expect(0).json()
}

/// Until the socket is back, the port claim shows that there is a supervisor.
fn assert_told_meanwhile(scene: &Scene, owner: &Supervisor, what: &str) {
    let told = status(scene);
    assert_eq!(told["supervisor"]["state"], "unreachable", "{what}: {told:#}");
    assert_eq!(told["supervisor"]["pid"], owner.pid(), "{what}: {told:#}");
    assert_ne!(told["lease"]["held"], false, "{what}: {told:#}");
    for verb in ["restart", "stop", "retry-now"] {
        let said = Said::by(scene, &[verb]).expect(1);
        said.assert_says(&[&format!("pid {}", owner.pid()), "no control socket"]);
    }
    assert_eq!(Said::by(scene, &["probe", "--supervised"]).code, Some(0), "{what}");
}

fn assert_comes_back(scene: &Scene, owner: &mut Supervisor, gateway: &Process, what: &str) {
    let answers = || (status(scene)["answered_by"] == "supervisor").then_some(());
    wait_for("the socket", WITHIN, || format!("{what}\n{}", owner.story()), answers);
    let ledger = Ledger::of(scene);
    ledger.wait_number(&format!("SELECT count(*) FROM generations WHERE pid = {}", gateway.pid), 1);
    ledger.wait_number(&format!("SELECT count(*) FROM state_leases WHERE pid = {}", owner.pid()), 1);
    assert_eq!(fs::metadata(scene.store_dir()).unwrap().permissions().mode() & 0o777, 0o700, "{what}");
    let mut duplicate = scene.start();
    duplicate.expect_exit(78);
    assert_eq!(duplicate.last("lease.contended").text("what"), "lease", "{what}");
    assert!(gateway.is_alive() && scene.diary().signals(gateway.pid).is_empty(), "{what}\n{}", owner.story());
    Said::by(scene, &["stop"]).expect(0);
    owner.expect_exit(0);
    ledger.wait_number("SELECT count(*) FROM state_leases WHERE released_at IS NOT NULL", 1);
}

type Replace = fn(&Scene);

#[test]
fn socket_lease_and_records_come_back_wherever_the_directory_went() {
    let cases: [(&str, Replace); 5] = [
        ("the state directory is removed", |scene| fs::remove_dir_all(scene.state_dir()).unwrap()),
        ("the store directory is removed", |scene| fs::remove_dir_all(scene.store_dir()).unwrap()),
        ("an empty one takes its place", |scene| {
            fs::rename(scene.state_dir(), scene.root().join("away")).unwrap();
            fs::create_dir(scene.state_dir()).unwrap();
        }),
        ("a copy takes its place", |scene| {
            fs::rename(scene.state_dir(), scene.root().join("away")).unwrap();
            copy(&scene.root().join("away"), &scene.state_dir());
            // A copied socket is a file that nothing listens on.
            assert!(scene.store_dir().join("control.sock").exists());
        }),
        ("a link to another one takes its place", |scene| {
            fs::rename(scene.state_dir(), scene.root().join("away")).unwrap();
            fs::create_dir(scene.root().join("target")).unwrap();
            std::os::unix::fs::symlink("target", scene.state_dir()).unwrap();
        }),
    ];
    thread::scope(|scope| {
        scope.spawn(a_socket_that_is_removed_comes_back);
        scope.spawn(an_owner_that_has_locked_the_new_directory_and_has_no_socket_yet_is_known_by_its_claim);
        for (what, replace) in cases {
            scope.spawn(move || {
                let (scene, mut owner, gateway) = serving();
                replace(&scene);
                assert_told_meanwhile(&scene, &owner, what);
                assert_comes_back(&scene, &mut owner, &gateway, what);
            });
        }
    });
}

/// Between its lock and its socket the record in the new directory names no owner.
fn an_owner_that_has_locked_the_new_directory_and_has_no_socket_yet_is_known_by_its_claim() {
    let (scene, mut owner, gateway) = serving();
    fs::remove_dir_all(scene.state_dir()).unwrap();
    // Its mode would stay as it is: it is not made by the owner.
    DirBuilder::new().recursive(true).mode(0o700).create(scene.store_dir()).unwrap();
    let lock = fs::File::create(scene.store_dir().join("lease.lock")).unwrap();
    flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
    let told = status(&scene);
    assert_eq!(told["supervisor"]["pid"], owner.pid(), "{told:#}");
    assert_eq!((&told["lease"]["held"], &told["health"]), (&true.into(), &"healthy".into()), "{told:#}");
    drop(lock);
    assert_comes_back(&scene, &mut owner, &gateway, "its directory was locked for an instant");
}

fn a_socket_that_is_removed_comes_back() {
    let (scene, mut owner, gateway) = serving();
    fs::remove_file(scene.store_dir().join("control.sock")).unwrap();
    let told = status(&scene);
    assert_eq!(
        (&told["supervisor"]["state"], &told["lease"]["held"]),
        (&"unreachable".into(), &true.into()),
        "{told:#}"
    );
    assert_comes_back(&scene, &mut owner, &gateway, "the socket is removed");
}

#[test]
fn another_supervisor_that_starts_in_the_new_directory_stands_by_and_takes_nothing() {
    let (scene, mut owner, gateway) = serving();
    fs::remove_dir_all(scene.state_dir()).unwrap();
    let mut standby = scene.launch().option("--on-conflict", "standby").start();
    standby.wait_event("standby.entered");
    assert_eq!(standby.last("lease.contended").text("what"), "port claim", "{}", standby.story());
    let told = wait_for(
        "the standby",
        WITHIN,
        || standby.story(),
        || Some(status(&scene)).filter(|told| told["standbys"][0]["pid"] == standby.pid()),
    );
    assert_eq!(told["supervisor"]["pid"], owner.pid(), "{told:#}");
    Said::by(&scene, &["stop"]).expect(1).assert_says(&["in standby", "kill "]);
    // The owner has its directory back, beside the other one's socket.
    wait_for("the socket", WITHIN, || owner.story(), || (status(&scene)["answered_by"] == "supervisor").then_some(()));
    assert_eq!(status(&scene)["standbys"][0]["pid"], standby.pid());
    standby.signal(Signal::SIGTERM);
    standby.expect_exit(0);
    assert_comes_back(&scene, &mut owner, &gateway, "beside a supervisor in standby");
}

#[test]
fn a_supervisor_with_another_store_is_named_and_not_taken_for_ours() {
    let (scene, mut owner, gateway) = serving();
    let (other, port) = (scene.root().join("other").display().to_string(), scene.port().to_string());
    let named =
        format!("(pid {}) with the store directory {} claims port {port}", owner.pid(), scene.store_dir().display());
    let said = Said::by(&scene, &["status", "--state-dir", &other, "--port", &port]).expect(0);
    said.assert_says(&["supervisor  not running", &named]);
    Said::by(&scene, &["stop", "--state-dir", &other, "--port", &port]).expect(3).assert_says(&[&named]);
    assert_eq!(Said::by(&scene, &["probe", "--supervised", "--state-dir", &other, "--port", &port]).code, Some(1));
    assert!(gateway.is_alive());
    owner.signal(Signal::SIGTERM);
    owner.expect_exit(0);
}
