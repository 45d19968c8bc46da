//! An owner keeps the lease without a usable database.

use crate::kit::{NOW, Running, Scene, acquired, elsewhere, quick};
use openclaw_supervise::core::restart_policy::{Cause, Run};
use openclaw_supervise::core::{Acquired, Contested, ExitStatus, Fact, LeaseAnswer, LeaseRequest, Report, Settled};
use openclaw_supervise::store::{Clocks, StoreReader};
use std::fs;
use std::process::Command;

/// In another process: closing a descriptor of a database drops the locks that this process has on it.
fn shell(script: &str, scene: &Scene) {
    let status = Command::new("sh").args(["-ec", script]).current_dir(scene.dir()).status().unwrap();
    assert!(status.success(), "{script}");
}

const GARBAGE: &str = "head -c 65536 /dev/zero | tr '\\0' x >";

#[test]
fn only_the_owner_of_the_lock_moves_a_corrupt_database_aside() {
    for content in [&[b'x'; 5000][..], b"SQLite format 3\0 and then nothing that is true", &[0; 4096]] {
        let scene = Scene::new();
        let lock = scene.foreign_lock();
        let path = scene.file("supervise.sqlite");
        fs::write(&path, content).unwrap();
        let mut store = scene.start();
        assert_eq!(store.take(), LeaseAnswer::Contended { owner: None, what: Contested::Lease });
        assert_eq!(store.peek(), LeaseAnswer::Contended { owner: None, what: Contested::Lease });
        assert!(StoreReader::open(scene.dir()).is_err());
        assert_eq!(fs::read(&path).unwrap(), content);
        drop(lock);
        let answer = store.acquire();
        assert_eq!((answer.epoch, answer.trouble), (1, None));
        let [Report::StoreMovedAside { to, why }] = &store.reports[..] else { panic!("{:?}", store.reports) };
        assert!(why.contains("cannot open"), "{why}");
        assert_eq!(fs::read(to).unwrap(), content);
        store.intended(1);
        assert_eq!(scene.reader().youngest().unwrap().unwrap().generation, 1);
    }
}

#[test]
fn corruption_at_run_time_costs_the_history_but_not_the_lease_or_the_current_record() {
    let scene = Scene::new();
    let mut store = scene.owner();
    store.intended(1);
    store.store().remember(1, Fact::Settled(Settled::NeverStarted), NOW);
    store.intended(2);
    store.store().spawned(2, 70, 700);
    store.sync();
    let before = scene.reader().lease().unwrap().unwrap().row;
    // Another connection writes, so that the owner cannot rely on its cache.
    scene.sql().execute_batch("UPDATE state_leases SET host = 'x'").unwrap();
    shell(&format!("{GARBAGE} supervise.sqlite; {GARBAGE} supervise.sqlite-wal"), &scene);
    store.report("a.b");
    store.sync();
    assert!(matches!(&store.reports[..], [Report::StoreMovedAside { .. }]), "{:?}", store.reports);
    let Report::StoreMovedAside { to, .. } = &store.reports[0] else { panic!("{:?}", store.reports) };
    assert!(fs::exists(to).unwrap());
    let reader = scene.reader();
    let row = reader.lease().unwrap().unwrap().row;
    assert_eq!((row.identity.owner, row.epoch), (before.identity.owner, before.epoch));
    let record = reader.youngest().unwrap().unwrap();
    assert_eq!((record.generation, record.pid, &*record.instance), (2, Some(70), "instance-2"));
    assert_eq!(reader.events_last(9).unwrap().len(), 1);
}

#[test]
fn a_locked_database_is_waited_for_and_then_done_without() {
    let scene = Scene::new();
    let mut before = scene.owner();
    for generation in 1..=5 {
        before.intended(generation);
    }
    before.crash();
    let other = scene.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let mut store = scene.start();
    store.instance = "ours";
    let answer = store.acquire();
    let trouble = answer.trouble.unwrap();
    assert!(trouble.contains("another program holds a lock on it"), "{trouble}");
    assert_eq!((answer.epoch, answer.past.generation), (0, 5));
    assert_eq!(store.reports, [Report::LeaseTimedOut { why: trouble }]);
    store.intended(6);
    store.store().spawned(6, 80, 800);
    store.report("a.b");
    store.sync();
    other.execute_batch("ROLLBACK").unwrap();
    store.sync();
    assert_eq!(store.reports[1..], [Report::StoreAvailable]);
    let reader = scene.reader();
    let record = reader.youngest().unwrap().unwrap();
    assert_eq!((record.generation, record.pid), (6, Some(80)), "no number is used for two gateways");
    assert_eq!(reader.lease().unwrap().unwrap().row.epoch, 2);
    assert_eq!(reader.past(NOW).unwrap().left.unwrap().generation, 6);
    assert_eq!(reader.events_last(9).unwrap().len(), 1);
    store.intended(7);
    assert_eq!(scene.reader().youngest().unwrap().unwrap().generation, 7);
    drop(store.server.take());
    assert!(store.close(true));
}

#[test]
fn a_database_that_is_locked_later_is_reported_once_and_caught_up_with() {
    let scene = Scene::new();
    let mut store = scene.owner();
    let other = scene.sql();
    for round in 1..=2 {
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        store.intended(round);
        store.report("a.b");
        store.sync();
        other.execute_batch("ROLLBACK").unwrap();
        store.sync();
        let [.., Report::StoreUnavailable { why }, Report::StoreAvailable] = &store.reports[..] else {
            panic!("{:?}", store.reports)
        };
        assert!(why.contains("locked"), "{why}");
        assert_eq!(u64::try_from(store.reports.len()), Ok(round * 2));
        assert_eq!(scene.reader().youngest().unwrap().unwrap().generation, round);
    }
}

#[test]
fn up_to_a_thousand_unwritten_events_are_buffered() {
    let scene = Scene::new();
    let mut store = scene.owner();
    let other = scene.sql();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    store.sync();
    let start = Clocks::system().now().wall_ms;
    for number in 0..1100 {
        store.store().report(start + number, "c.d", None, "{}".to_owned());
        if number % 200 == 0 {
            store.sync();
        }
    }
    store.sync();
    other.execute_batch("ROLLBACK").unwrap();
    store.sync();
    let rows = scene.reader().events_last(u32::MAX).unwrap();
    assert_eq!((rows.len(), rows[0].at_ms), (1000, start + 100), "the oldest were dropped");
}

#[test]
fn a_full_disk_is_reported_once_and_caught_up_with() {
    let setup = "mount -t tmpfs -o size=256k,mode=0700 none \"$1\"";
    elsewhere("trouble::a_full_disk_is_reported_once_and_caught_up_with", &["-m"], setup, |scene| {
        let mut store = scene.owner();
        store.intended(1);
        shell("head -c 1000000 /dev/zero > filler || :", scene);
        for number in 0..40 {
            store.store().report(number, "a.b", None, format!("{{\"a\":\"{}\"}}", "x".repeat(2000)));
        }
        store.intended(2);
        let [Report::StoreUnavailable { why }] = &store.reports[..] else { panic!("{:?}", store.reports) };
        assert!(why.contains("full") || why.contains("disk I/O"), "{why}");
        store.sync();
        assert_eq!(store.reports.len(), 1);
        fs::remove_file(scene.file("filler")).unwrap();
        store.sync();
        assert_eq!(store.reports[1..], [Report::StoreAvailable]);
        assert_eq!(scene.reader().youngest().unwrap().unwrap().generation, 2);
        assert_eq!(scene.reader().events_last(99).unwrap().len(), 40);
    });
}

#[test]
fn a_disk_that_is_full_from_the_start_does_not_keep_the_gateway_down() {
    let setup = "mount -t tmpfs -o size=64k,mode=0700 none \"$1\"; head -c 65536 /dev/zero > \"$1/output.log\" || :";
    let test = "trouble::a_disk_that_is_full_from_the_start_does_not_keep_the_gateway_down";
    elsewhere(test, &["-m"], setup, |scene| {
        let mut store = scene.start();
        let trouble = store.acquire().trouble.unwrap();
        assert!(matches!(&store.reports[..], [Report::StoreUnavailable { why }] if *why == trouble));
        assert_eq!(scene.start().take(), LeaseAnswer::Contended { owner: None, what: Contested::Lease });
        store.intended(1);
        let mount = Command::new("mount").args(["-o", "remount,size=1m"]).arg(scene.dir()).status().unwrap();
        assert!(mount.success());
        store.sync();
        assert_eq!(store.reports[1..], [Report::StoreAvailable]);
        assert_eq!(scene.reader().youngest().unwrap().unwrap().generation, 1);
    });
}

#[test]
fn a_directory_that_cannot_be_created_is_a_refusal() {
    let scene = Scene::new();
    let mut place = scene.place.clone();
    fs::write(scene.root().join("file"), "").unwrap();
    place.dir = scene.root().join("file/store");
    let LeaseAnswer::Refused(why) = Running::start(place, Clocks::system(), quick()).take() else {
        panic!("a refusal")
    };
    assert!(why.contains("file/store") && why.contains("--store-dir") && !why.contains('\n'), "{why}");
}

/// How the next start finds the disk, after a supervisor that was killed or has ended in order.
#[test]
fn history_that_can_be_read_counts_though_nothing_can_be_written() {
    let full = "head -c 4000000 /dev/zero > filler || :";
    let cases = [
        ("a full disk", full.to_owned(), true),
        ("a full disk after a reboot", format!("rm supervise.sqlite-shm; {full}"), true),
        ("a full disk after an orderly end", full.to_owned(), false),
        (
            "a full disk without inodes",
            format!("{full}; i=0; while echo > i$i; do i=$((i+1)); done 2>/dev/null; :"),
            true,
        ),
        ("a file system that was remounted read-only", "mount -o remount,ro .".to_owned(), true),
        ("the same after a reboot and an orderly end", "mount -o remount,ro .".to_owned(), false),
    ];
    let setup = "mount -t tmpfs -o size=512k,nr_inodes=64,mode=0700 none \"$1\"";
    let test = "trouble::history_that_can_be_read_counts_though_nothing_can_be_written";
    elsewhere(test, &["-m"], setup, |scene| {
        for (name, script, is_killed) in cases {
            let mut first = scene.owner();
            first.intended(1);
            let run = Run { started: None, healthy_until: NOW, ended: NOW, clean: false };
            first.store().remember(1, Fact::Died(ExitStatus::Code(3)), NOW);
            first.store().remember(1, Fact::Settled(Settled::Ran(run, Cause::Failed)), NOW);
            first.intended(2);
            first.store().spawned(2, 500, 5000);
            first.sync();
            if is_killed {
                // What the next start writes does not fit into the last block of the log.
                while fs::metadata(scene.file("supervise.sqlite-wal")).unwrap().len() % 4096 < 3100 {
                    first.report("a.b");
                    first.sync();
                }
                // The end of a thread closes the database, that of a process does not.
                shell("mkdir keep; cp supervise.sqlite* keep", scene);
                first.crash();
                shell("rm supervise.sqlite*; mv keep/* .; rmdir keep", scene);
            } else {
                assert!(first.close(true));
            }
            shell(&script, scene);
            let mut next = scene.start();
            let (answer, left) = next.ask(LeaseRequest::Take { unchanged: None }, NOW);
            let Acquired { past, trouble, recovered, .. } = acquired(answer);
            assert!(trouble.is_some(), "{name}");
            assert_eq!(recovered.is_some(), is_killed, "{name}");
            assert_eq!((past.generation, past.runs.len()), (2, 1), "{name}");
            assert_eq!(past.runs[0].death, ExitStatus::Code(3), "{name}");
            assert_eq!(past.left.unwrap().generation, 2, "{name}");
            assert_eq!(left.unwrap().pid, Some(500), "{name}");
            // Once there is room, the numbers go on and nothing is lost.
            shell("mount -o remount,rw .; rm -f filler i*", scene);
            next.intended(3);
            next.sync();
            assert_eq!(scene.reader().youngest().unwrap().unwrap().generation, 3, "{name}");
            let numbers = "SELECT count(*) FROM generations WHERE number IN (1, 2, 3)";
            assert_eq!(scene.sql().query_row(numbers, [], |row| row.get(0)), Ok(3), "{name}");
            assert!(next.close(true));
            shell("rm supervise.sqlite*", scene);
        }
    });
}
