//! A directory or a database that is replaced under its owner, as by a hook that restores a backup.

use crate::kit::{NOW, Running, Scene, elsewhere, is_me, me, quick};
use openclaw_supervise::core::{Contested, Fact, LeaseAnswer, Report};
use openclaw_supervise::store::{BasisChoice, Clocks, Limits, Place};
use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::process::Command;
use std::time::Duration;

fn run(program: &str, arguments: &[&std::path::Path]) {
    assert!(Command::new(program).args(arguments).status().unwrap().success());
}

#[test]
fn lock_row_and_current_record_move_to_the_new_directory() {
    let scene = Scene::new();
    let mut store = scene.owner();
    store.intended(1);
    store.store().spawned(1, 90, 900);
    store.sync();
    fs::rename(scene.dir(), scene.root().join("old")).unwrap();
    store.intended(2);
    assert_eq!(store.warnings.len(), 1, "{:?}", store.warnings);
    assert!(store.warnings[0].contains("was replaced"));
    let reader = scene.reader();
    assert!(!reader.lease().unwrap().unwrap().row.released);
    assert_eq!(reader.youngest().unwrap().unwrap().generation, 2);
    assert_eq!(reader.past(NOW).unwrap().left.unwrap().generation, 2);
    let mut place = scene.place.clone();
    place.port = 1;
    let answer = scene.start().take();
    assert!(
        matches!(&answer, LeaseAnswer::Contended { owner, what: Contested::Lease } if is_me(owner.as_ref())),
        "{answer:?}"
    );
    store.intended(3);
    assert_eq!((store.warnings.len(), store.reports.len()), (1, 0));
    drop(store.server.take());
    assert!(store.close(true));
    assert_eq!(scene.owner().reports.len(), 0);
}

#[test]
fn a_restored_backup_keeps_its_history_and_gets_our_gateway_under_its_own_number() {
    let scene = Scene::new();
    let mut before = scene.owner();
    for generation in 1..=4 {
        before.intended(generation);
    }
    drop(before.server.take());
    assert!(before.close(true));
    let backup = scene.root().join("backup");
    run("cp", &["-a".as_ref(), scene.dir(), &backup]);
    let mut store = scene.owner();
    for generation in 5..=6 {
        store.intended(generation);
    }
    fs::remove_dir_all(scene.dir()).unwrap();
    run("cp", &["-a".as_ref(), &backup, scene.dir()]);
    store.intended(7);
    let reader = scene.reader();
    let past = reader.past(NOW).unwrap();
    assert_eq!((past.generation, past.left.unwrap().generation), (7, 7));
    assert_eq!(reader.youngest().unwrap().unwrap().instance, "instance-7");
    assert_eq!(reader.lease().unwrap().unwrap().row.epoch, 2);
}

#[test]
fn another_store_with_a_longer_history_keeps_its_numbers() {
    let (scene, other) = (Scene::new(), Scene::new());
    let mut theirs = other.owner();
    for generation in 1..=9 {
        theirs.intended(generation);
    }
    drop(theirs.server.take());
    assert!(theirs.close(true));
    let mut store = scene.owner();
    store.instance = "ours";
    store.intended(1);
    fs::remove_dir_all(scene.dir()).unwrap();
    run("cp", &["-a".as_ref(), other.dir(), scene.dir()]);
    store.intended(2);
    let youngest = scene.reader().youngest().unwrap().unwrap();
    assert_eq!((youngest.generation, &*youngest.instance), (11, "ours-2"));
    assert_eq!(scene.reader().past(NOW).unwrap().left.unwrap().generation, 11);
}

#[test]
fn another_owner_of_the_new_directory_wins() {
    let scene = Scene::new();
    let mut store = scene.owner();
    fs::rename(scene.dir(), scene.root().join("old")).unwrap();
    let lock = scene.foreign_lock();
    store.intend(1);
    let (owner, why) = store.lost();
    assert!(owner.is_none() && why.contains("replaced"), "{why}");
    assert!(!store.close(true));
    drop(lock);
}

#[test]
fn nothing_is_recreated_before_something_has_to_be_recorded() {
    let scene = Scene::new();
    let mut store = scene.owner();
    let old = scene.root().join("old");
    fs::rename(scene.dir(), &old).unwrap();
    store.report("a.b");
    // The second answer comes after everything that the first request caused.
    store.peek();
    store.peek();
    assert!(!scene.dir().exists());
    fs::rename(&old, scene.dir()).unwrap();
    store.intended(1);
    assert_eq!(store.warnings, Vec::<String>::new());
    assert_eq!(scene.reader().events_last(9).unwrap().len(), 1, "kept until then");
    fs::rename(scene.dir(), &old).unwrap();
    assert!(!store.close(true));
    assert!(!scene.dir().exists());
}

#[test]
fn a_deleted_database_is_recreated() {
    let scene = Scene::new();
    let mut store = scene.owner();
    store.intended(1);
    for name in ["supervise.sqlite", "supervise.sqlite-wal", "supervise.sqlite-shm"] {
        fs::remove_file(scene.file(name)).unwrap();
    }
    store.intended(2);
    assert_eq!(store.warnings.len(), 1, "{:?}", store.warnings);
    assert_eq!(scene.reader().youngest().unwrap().unwrap().generation, 2);
    assert_eq!(scene.reader().lease().unwrap().unwrap().row.epoch, 1);
}

/// Lets time go by where that is what happens.
#[expect(clippy::disallowed_methods, reason = "a test may wait by the clock")]
fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// An owner with a gateway that serves, which looks for its files every few milliseconds.
fn looking_owner(scene: &Scene) -> Running {
    let limits = Limits { look: Duration::from_millis(20), ..quick() };
    let mut store = Running::start(scene.place.clone(), Clocks::system(), limits);
    store.acquire();
    fs::write(&scene.place.socket, "").unwrap();
    store.intended(1);
    store.store().spawned(1, 90, 900);
    store.store().remember(1, Fact::Started, NOW);
    store.sync();
    store
}

/// `expected`: the mode of the directory, which is ours to choose only if we made it.
fn assert_is_back(scene: &Scene, mut store: Running, what: &str, expected: u32) {
    store.wait_moved();
    assert!(
        store.warnings.last().is_some_and(|warning| warning.contains("was replaced")),
        "{what}: {:?}",
        store.warnings
    );
    store.sync();
    let mode = fs::metadata(scene.dir()).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, expected, "{what}");
    let reader = scene.reader();
    let (lease, youngest) = (reader.lease().unwrap().unwrap(), reader.youngest().unwrap().unwrap());
    assert!(lease.row.identity.pid == Some(me()) && !lease.row.released, "{what}: {lease:?}");
    assert!(youngest.pid == Some(90) && youngest.started.is_some(), "{what}: {youngest:?}");
    assert!(matches!(scene.start().take(), LeaseAnswer::Contended { what: Contested::Lease, .. }), "{what}");
    drop(store.server.take());
    assert!(store.close(true), "{what}");
}

#[test]
fn a_directory_that_is_lost_is_followed_though_nothing_has_to_be_recorded() {
    for (what, mode, replace) in [
        ("none", 0o700, (|_| {}) as fn(&Scene)),
        ("an empty one", 0o750, |scene| DirBuilder::new().mode(0o750).create(scene.dir()).unwrap()),
        ("a copy", 0o700, |scene| run("cp", &["-a".as_ref(), &scene.root().join("old"), scene.dir()])),
        ("a link to another one", 0o750, |scene| {
            DirBuilder::new().mode(0o750).create(scene.root().join("target")).unwrap();
            std::os::unix::fs::symlink(scene.root().join("target"), scene.dir()).unwrap();
        }),
    ] {
        let scene = Scene::new();
        let store = looking_owner(&scene);
        fs::rename(scene.dir(), scene.root().join("old")).unwrap();
        replace(&scene);
        assert_is_back(&scene, store, what, mode);
    }
}

#[test]
fn a_directory_above_that_is_removed_is_made_again() {
    let mut scene = Scene::new();
    scene.place.dir = scene.root().join("state/store");
    scene.place.socket = scene.file("control.sock");
    let store = looking_owner(&scene);
    fs::remove_dir_all(scene.root().join("state")).unwrap();
    assert_is_back(&scene, store, "the state directory", 0o700);
}

#[test]
fn nothing_is_recreated_while_a_gateway_boots_and_a_dangling_link_is_reported_once() {
    let scene = Scene::new();
    let mut store = looking_owner(&scene);
    store.intended(2);
    let old = scene.root().join("old");
    fs::rename(scene.dir(), &old).unwrap();
    // Several looks.
    let_pass(Duration::from_millis(200));
    assert!(!scene.dir().exists());
    std::os::unix::fs::symlink("nowhere", scene.dir()).unwrap();
    store.store().remember(2, Fact::Started, NOW);
    // The second answer comes after everything that the fact caused.
    store.peek();
    store.peek();
    assert!(matches!(store.reports[..], [Report::StoreUnavailable { .. }]), "{:?}", store.reports);
    fs::remove_file(scene.dir()).unwrap();
    fs::rename(&old, scene.dir()).unwrap();
    store.sync();
    assert!(matches!(store.reports[..], [_, Report::StoreAvailable]), "{:?}", store.reports);
    assert_eq!(scene.reader().youngest().unwrap().unwrap().generation, 2);
}

#[test]
fn a_missing_socket_is_told_until_it_is_there_again() {
    let scene = Scene::new();
    let mut store = looking_owner(&scene);
    fs::remove_file(&scene.place.socket).unwrap();
    store.wait_moved();
    store.wait_moved();
    assert_eq!(store.warnings, Vec::<String>::new());
}

#[test]
fn under_a_heartbeat_a_file_system_that_was_unmounted_is_not_followed() {
    let test = "replaced::under_a_heartbeat_a_file_system_that_was_unmounted_is_not_followed";
    elsewhere(test, &["-m"], "mkdir \"$1/state\"; mount -t tmpfs -o size=1m none \"$1/state\"", |scene| {
        let (state, place) = (scene.file("state"), scene.place.clone());
        let (dir, basis) = (state.join("store"), BasisChoice::Heartbeat);
        let place = Place { socket: dir.join("control.sock"), dir: dir.clone(), basis, ..place };
        let mut store = Running::start(place, Clocks::system(), quick());
        store.acquire();
        store.sync();
        assert!(Command::new("umount").arg("-l").arg(&state).status().unwrap().success());
        store.store().confirm(5);
        // The answer to this comes after that of the confirmation would.
        store.peek();
        assert!(!dir.exists(), "other machines would not see it");
    });
}
