//! A directory or a database that is replaced under its owner, as by a hook that restores a backup.

use crate::kit::{Scene, is_me};
use openclaw_supervise::core::{Contested, LeaseAnswer};
use std::fs;
use std::process::Command;

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
    assert_eq!(reader.past(crate::kit::NOW).unwrap().left.unwrap().generation, 2);
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
    let past = reader.past(crate::kit::NOW).unwrap();
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
    assert_eq!(scene.reader().past(crate::kit::NOW).unwrap().left.unwrap().generation, 11);
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
