//! The lease has one owner at a time.

use crate::kit::{NOW, Other, Running, Scene, acquired, elsewhere, is_me, me, quick};
use crate::root::needs_root;
use openclaw_supervise::core::lease::Life;
use openclaw_supervise::core::{Contested, LeaseAnswer, LeaseRequest, Report};
use openclaw_supervise::platform::claim::{self, ClaimOutcome, Claimant};
use openclaw_supervise::store::{BasisChoice, Clocks, StoreReader};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Barrier;
use std::thread;
use std::time::Duration;

#[test]
fn a_released_lease_is_free_and_another_one_is_recovered() {
    let scene = Scene::new();
    let mut first = scene.start();
    let answer = first.acquire();
    assert_eq!((answer.epoch, answer.recovered, answer.trouble), (1, None, None));
    assert_eq!(
        claim::peek(scene.place.port).unwrap(),
        Some(Claimant { by: Some(me()), uid: Some(rustix::process::geteuid().as_raw()) })
    );
    for name in ["", "lease.lock", "supervise.sqlite", "supervise.sqlite-wal"] {
        assert_eq!(fs::metadata(scene.file(name)).unwrap().mode() & 0o077, 0, "{name}");
    }
    assert!(first.server.take().is_some());
    assert!(first.close(true));
    assert_eq!(claim::peek(scene.place.port).unwrap(), None);

    let mut second = scene.start();
    let answer = second.acquire();
    assert_eq!((answer.epoch, answer.recovered), (2, None));
    drop(second.server.take());
    assert!(!second.close(false), "not asked to");

    let mut third = scene.start();
    let answer = third.acquire();
    let recovered = answer.recovered.unwrap();
    assert_eq!((answer.epoch, recovered.pid), (3, Some(me())));
    assert!(recovered.why.contains("lock"), "{recovered:?}");
    assert_eq!((third.reports, third.warnings), (vec![], vec![]));
}

#[test]
fn a_second_owner_is_refused_at_once_with_the_pid_of_the_first() {
    let scene = Scene::new();
    let mut first = scene.owner();
    let mut second = scene.start();
    for answer in [second.take(), second.peek()] {
        assert!(matches!(answer, LeaseAnswer::Contended { owner, what: Contested::Lease } if is_me(owner.as_ref())));
    }
    drop(first.server.take());
    assert!(first.close(true));
    assert_eq!(second.peek(), LeaseAnswer::Free);
    assert_eq!(second.acquire().epoch, 2);
    assert!(second.close(true));
}

#[test]
fn another_directory_with_the_same_port_is_refused_too() {
    let scene = Scene::new();
    let mut first = scene.owner();
    let mut place = scene.place.clone();
    place.dir = scene.root().join("other");
    let mut second = Running::start(place.clone(), Clocks::system(), quick());
    for answer in [second.take(), second.peek()] {
        assert!(
            matches!(answer, LeaseAnswer::Contended { owner, what: Contested::PortClaim } if is_me(owner.as_ref()))
        );
    }
    drop(first.server.take());
    assert!(first.close(true));
    second.acquire();
    let mut third = Running::start(place, Clocks::system(), quick());
    assert!(matches!(third.peek(), LeaseAnswer::Contended { .. }), "the lock was given back with the first refusal");
}

#[test]
fn claim_and_row_go_with_a_gateway_that_moves() {
    let scene = Scene::new();
    let mut store = scene.owner();
    let elsewhere = Scene::new().place.port;
    let ClaimOutcome::Taken(claim) = claim::take(elsewhere).unwrap() else { panic!("it was free") };
    drop(store.server.take());
    store.store().move_to("10.1.2.3".to_owned(), elsewhere, Some(claim));
    store.intended(1);
    let place = || scene.reader().lease().unwrap().unwrap().row.place;
    assert_eq!(place(), Some(("10.1.2.3".to_owned(), elsewhere)));
    assert_eq!(
        claim::peek(elsewhere).unwrap(),
        Some(Claimant { by: Some(me()), uid: Some(rustix::process::geteuid().as_raw()) })
    );
    assert_eq!(claim::peek(scene.place.port).unwrap(), None);
    // Another scheme or address on the same port needs no other claim.
    store.store().move_to("127.0.0.1".to_owned(), elsewhere, None);
    store.intended(2);
    assert_eq!(place(), Some(("127.0.0.1".to_owned(), elsewhere)));
    assert_eq!(
        claim::peek(elsewhere).unwrap(),
        Some(Claimant { by: Some(me()), uid: Some(rustix::process::geteuid().as_raw()) })
    );
    assert!(store.close(true));
    assert_eq!(claim::peek(elsewhere).unwrap(), None);
}

#[test]
fn a_look_creates_no_files() {
    let scene = Scene::new();
    assert_eq!(scene.start().peek(), LeaseAnswer::Free);
    assert!(!scene.dir().exists());
    assert!(StoreReader::open(scene.dir()).unwrap().is_none());
}

#[test]
fn a_lock_that_is_held_for_an_instant_is_waited_for() {
    let scene = Scene::new();
    let lock = scene.foreign_lock();
    let mut store = scene.start();
    assert_eq!(store.take(), LeaseAnswer::Contended { owner: None, what: Contested::Lease });
    let limits = openclaw_supervise::store::Limits { contention: Duration::from_secs(20), ..quick() };
    let mut patient = Running::start(scene.place.clone(), Clocks::system(), limits);
    patient.store().ask(1, LeaseRequest::Take { unchanged: None }, NOW);
    drop(lock);
    let openclaw_supervise::store::News::Leased { answer, .. } = patient.next() else { panic!("an answer") };
    assert_eq!(acquired(answer).epoch, 1);
}

#[test]
fn of_many_concurrent_starts_one_wins_and_the_others_learn_its_pid() {
    let scene = Scene::new();
    let (ready, done) = (Barrier::new(20), Barrier::new(20));
    let answers: Vec<_> = thread::scope(|scope| {
        let start = || {
            let mut store = scene.start();
            ready.wait();
            let answer = store.take();
            done.wait();
            answer
        };
        let threads: Vec<_> = (0..20).map(|_| scope.spawn(start)).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    let (owners, others): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| matches!(answer, LeaseAnswer::Acquired(_)));
    assert_eq!(owners.len(), 1);
    for other in others {
        assert!(
            matches!(&other, LeaseAnswer::Contended { owner, what: Contested::Lease } if is_me(owner.as_ref())),
            "{other:?}"
        );
    }
}

#[test]
fn the_lease_of_a_killed_owner_is_recovered_with_its_pid() {
    if Other::be() {
        return;
    }
    let scene = Scene::new();
    let other = Other::start(&scene, &[], "lease::the_lease_of_a_killed_owner_is_recovered_with_its_pid");
    let pid = other.pid;
    let mut store = scene.start();
    let answer = store.take();
    assert!(matches!(&answer, LeaseAnswer::Contended { owner: Some(owner), .. } if owner.pid == pid), "{answer:?}");
    assert_eq!(scene.reader().lease().unwrap().unwrap().alive, Life::Alive);
    let _input = other.kill();
    assert!(matches!(scene.reader().lease().unwrap().unwrap().alive, Life::Gone(_)));
    let recovered = store.acquire().recovered.unwrap();
    assert_eq!((recovered.pid, &*recovered.why), (Some(pid), "its process no longer exists"));
}

#[test]
fn an_owner_in_another_pid_namespace_holds_the_lock_until_it_dies() {
    if Other::be() {
        return;
    }
    needs_root("a pid namespace");
    let scene = Scene::new();
    let test = "lease::an_owner_in_another_pid_namespace_holds_the_lock_until_it_dies";
    let other = Other::start(&scene, &["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"], test);
    let mut store = scene.start();
    assert_eq!(store.take(), LeaseAnswer::Contended { owner: None, what: Contested::Lease });
    assert_eq!(scene.reader().lease().unwrap().unwrap().alive, Life::Unknown);
    let pid = other.pid;
    let _input = other.kill();
    let mut answer = store.take();
    // It gets SIGKILL when its parent, which was killed, has exited.
    for _ in 0..50 {
        if matches!(answer, LeaseAnswer::Acquired(_)) {
            break;
        }
        answer = store.take();
    }
    assert_eq!(acquired(answer).recovered.unwrap().pid, Some(pid));
}

#[test]
fn an_invalid_row_has_no_owner() {
    for row in [
        "owner = NULL, pid = NULL, start_time = NULL, boot_id = NULL, pid_namespace = NULL, host = NULL, epoch = NULL, \
         beat = NULL, released_at = NULL, acquired_at = NULL, port = NULL",
        "owner = x'ff', pid = -1, start_time = 'x', boot_id = 7, pid_namespace = 1.5, host = x'00', epoch = -9, \
         beat = 'b', released_at = 'r', acquired_at = x'01', port = 'p', version = 7",
        "owner = 7, pid = 99999999999, start_time = -1, epoch = 'e', beat = -1, released_at = x'00'",
    ] {
        let scene = Scene::new();
        assert!(scene.owner().close(true));
        scene.sql().execute_batch(&format!("UPDATE state_leases SET {row}")).unwrap();
        let tenant = scene.reader().lease().unwrap().unwrap();
        assert!(!tenant.row.released && tenant.row.identity.pid.is_none(), "{tenant:?}");
        let mut store = scene.start();
        let answer = store.acquire();
        assert_eq!((answer.epoch, answer.recovered.unwrap().pid, answer.trouble), (1, None, None));
        assert!(store.close(true));
    }
}

#[test]
fn the_largest_epoch_does_not_prevent_a_start() {
    let scene = Scene::new();
    assert!(scene.owner().close(true));
    scene.sql().execute_batch("UPDATE state_leases SET epoch = 9223372036854775807").unwrap();
    let mut store = scene.owner();
    store.intended(1);
    assert_eq!(scene.reader().lease().unwrap().unwrap().row.epoch, i64::MAX.cast_unsigned());
}

#[test]
fn a_store_of_a_newer_version_is_refused_and_lock_and_claim_are_free_again() {
    let scene = Scene::new();
    assert!(scene.owner().close(true));
    scene.sql().execute_batch("PRAGMA user_version = 99; UPDATE state_leases SET version = '9.8.7'").unwrap();
    let before = fs::read(scene.file("supervise.sqlite")).unwrap();
    let mut store = scene.start();
    let LeaseAnswer::Refused(why) = store.take() else { panic!("a refusal") };
    assert!(why.contains("version 99 (written by openclaw-supervise 9.8.7)") && why.contains("install"), "{why}");
    assert_eq!(StoreReader::open(scene.dir()).unwrap_err().to_string(), why);
    assert_eq!(store.peek(), LeaseAnswer::Free);
    assert_eq!(fs::read(scene.file("supervise.sqlite")).unwrap(), before);
}

#[test]
fn a_directory_of_another_user_is_refused() {
    needs_root("another user");
    let scene = Scene::new();
    fs::create_dir(scene.dir()).unwrap();
    std::os::unix::fs::chown(scene.dir(), Some(12345), None).unwrap();
    let LeaseAnswer::Refused(why) = scene.start().take() else { panic!("a refusal") };
    assert!(why.contains("belongs to user 12345"), "{why}");
    assert_eq!(fs::read_dir(scene.dir()).unwrap().count(), 0);
}

#[test]
fn a_read_only_directory_can_be_locked_and_has_no_records() {
    let setup = "mount -t tmpfs -o size=1m,mode=0700 none \"$1\"";
    elsewhere("lease::a_read_only_directory_can_be_locked_and_has_no_records", &["-m"], setup, |scene| {
        assert!(scene.owner().close(true));
        let remount = |mode| {
            let mut mount = std::process::Command::new("mount");
            assert!(mount.args(["-o", mode]).arg(scene.dir()).status().unwrap().success());
        };
        remount("remount,ro");
        let mut store = scene.start();
        let answer = store.acquire();
        let trouble = answer.trouble.unwrap();
        assert!(trouble.contains("read-only"), "{trouble}");
        assert_eq!((answer.recovered, store.reports.len()), (None, 1));
        assert!(matches!(&store.reports[0], Report::StoreUnavailable { why } if *why == trouble));
        assert_eq!(scene.start().take(), LeaseAnswer::Contended { owner: None, what: Contested::Lease });
        store.intended(1);
        store.intended(2);
        assert_eq!(store.reports.len(), 1, "told once");
        assert_eq!(scene.reader().lease().unwrap().unwrap().row.epoch, 1);
        remount("remount,rw");
        store.intended(3);
        assert_eq!(store.reports[1..], [Report::StoreAvailable]);
        assert_eq!(scene.reader().youngest().unwrap().unwrap().generation, 3);
        drop(store.server.take());
        assert!(store.close(true));
        remount("remount,ro");
        fs::remove_file(scene.file("lease.lock")).unwrap_err();
        assert_eq!(scene.reader().lease().unwrap().unwrap().row.epoch, 2);
    });
}

#[test]
fn a_read_only_directory_without_a_lock_file_has_no_lease() {
    let test = "lease::a_read_only_directory_without_a_lock_file_has_no_lease";
    elsewhere(test, &["-m"], "mount -t tmpfs -o size=1m,ro,mode=0700 none \"$1\"", |scene| {
        let LeaseAnswer::Refused(why) = scene.start().take() else { panic!("a refusal") };
        assert!(why.contains("lease.lock") && why.contains("--store-dir"), "{why}");
    });
}

#[test]
fn an_explicit_basis_is_used() {
    let mut scene = Scene::new();
    scene.place.basis = BasisChoice::Lock;
    assert!(scene.owner().close(true));
    assert_eq!(scene.sql().pragma_query_value(None, "journal_mode", |row| row.get(0)), Ok("wal".to_owned()));
    scene.place.basis = BasisChoice::Heartbeat;
    assert!(scene.owner().close(true));
    assert_eq!(scene.sql().pragma_query_value(None, "journal_mode", |row| row.get(0)), Ok("delete".to_owned()));
}
