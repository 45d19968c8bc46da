//! Whatever happens to the store, the gateway is started once and kept, and what can be recorded is.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs::{self, DirBuilder, OpenOptions};
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;
use support::jail::{Jail, gateways};
use support::ledger::Ledger;
use support::process::Process;
use support::supervisor::{Line, PROGRAM, Supervisor};
use support::{PATIENCE, Scene, wait_for};

/// Bytes that are nothing, the same in every run.
fn garbage(count: usize) -> Vec<u8> {
    (0..count).map(|index| u8::try_from(index * 131 % 251).unwrap()).collect()
}

/// A scene whose supervisor was killed, with its gateway alive.
fn with_a_killed_supervisor() -> (Scene, Process) {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    Ledger::of(&scene).wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 1);
    first.signal(Signal::SIGKILL);
    assert_eq!(first.wait_exit(), None);
    (scene, gateway)
}

/// A scene with one run on record that was ended as it should be.
fn with_a_record() -> Scene {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    first.wait_started();
    stop(&scene, &mut first);
    scene
}

/// Stops it and asserts that nothing is left.
fn stop(scene: &Scene, supervisor: &mut Supervisor) {
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_eq!(scene.processes(), [], "{}", supervisor.story());
}

fn assert_duplicate_ends(scene: &Scene, when: &str) {
    let mut duplicate = scene.start();
    assert_eq!(duplicate.wait_exit(), Some(78), "{when}\n{}", duplicate.story());
}

/// Makes it restart its gateway, which has to be recorded.
fn restart(supervisor: &mut Supervisor) -> Process {
    supervisor.signal(Signal::SIGHUP);
    supervisor.wait_started()
}

fn names_in(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("the folder is there");
    let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn was_moved_aside(scene: &Scene) -> bool {
    names_in(&scene.store_dir()).iter().any(|name| name.contains("damaged"))
}

/// Every case in a scene of its own, at the same time.
fn each<T: Sync>(cases: &[T], test: impl Fn(&T) + Sync) {
    let test = &test;
    thread::scope(|scope| {
        for case in cases {
            scope.spawn(move || test(case));
        }
    });
}

#[test]
fn empty_and_malformed_rows_stop_no_start() {
    let nothing_in_leases = "UPDATE state_leases SET owner = NULL, pid = NULL, start_time = NULL, boot_id = NULL, \
                             pid_namespace = NULL, host = NULL, address = NULL, port = NULL, epoch = NULL, \
                             acquired_at = NULL, heartbeat_at = NULL, beat = NULL, released_at = NULL, version = NULL";
    let nonsense_in_leases = "UPDATE state_leases SET owner = x'ff00', pid = -1, start_time = 'soon', boot_id = 7, \
                              pid_namespace = x'', host = -1.5, address = 9, port = 'x', epoch = 9223372036854775807, \
                              acquired_at = -9223372036854775808, heartbeat_at = 'x', beat = 9223372036854775807, \
                              version = x'00'";
    let nothing_in_generations = "UPDATE generations SET instance = NULL, owner = NULL, command = NULL, boot_id = NULL, \
                                  pid = NULL, start_time = NULL, process_group = NULL, members = NULL, \
                                  intent_at = NULL, intent_boot_ms = NULL, started_at = NULL, started_boot_ms = NULL, \
                                  settled_at = NULL, cause = NULL, clean = NULL";
    let nonsense_in_generations = "UPDATE generations SET instance = x'00ff', owner = 1, command = x'80', pid = 1, \
                                   start_time = -1, process_group = 0, members = '[[1,2],[0,0],[-1,\"x\"],{}]', \
                                   intent_at = 'x', intent_boot_ms = -9223372036854775808, \
                                   started_at = 9223372036854775807, stable_at = x'01', \
                                   healthy_until = -9223372036854775808, died_at = 'y', died_code = 'z'";
    let cases = [
        nothing_in_leases,
        nonsense_in_leases,
        nothing_in_generations,
        nonsense_in_generations,
        "UPDATE generations SET number = 9223372036854775807",
        "UPDATE generations SET number = -5, pid = 0",
        "UPDATE generations SET settled_at = -9223372036854775808, cause = x'00', clean = 'no', intent_at = 0",
        "UPDATE events SET at_ms = NULL, name = NULL, generation = NULL, fields = NULL",
        "UPDATE events SET id = id + 9223372036854775000, at_ms = 'x', name = x'ff', generation = -1, fields = '{'",
        "DELETE FROM state_leases; DELETE FROM generations; DELETE FROM events",
        "DROP TABLE generations",
        "DROP TABLE state_leases",
    ];
    each(&cases, |sql| {
        let (scene, gateway) = with_a_killed_supervisor();
        gateway.kill();
        Ledger::of(&scene).run(sql);
        let mut second = scene.start();
        let next = second.wait_started();
        assert_eq!(gateways(&scene), [next], "{sql}\n{}", second.story());
        assert!(!was_moved_aside(&scene), "{sql}: a row is no damage\n{}", second.story());
        assert_duplicate_ends(&scene, sql);
        let last = restart(&mut second);
        assert_eq!(gateways(&scene), [last], "{sql}\n{}", second.story());
        stop(&scene, &mut second);
        assert_eq!(scene.diary().starts().len(), 3, "{sql}");
    });
}

type Spoil = fn(&Path);

/// Overwrites a part of a file.
fn overwrite(path: &Path, at: u64, count: usize) {
    let file = OpenOptions::new().write(true).open(path).expect("the file is there");
    file.write_all_at(&garbage(count), at).expect("it can be written");
}

fn cut(path: &Path, part: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("the file is there");
    let length = file.metadata().unwrap().len();
    assert!(length > part, "{} has {length} bytes", path.display());
    file.set_len(length * part / 8).expect("it can be cut");
}

fn log_of(database: &Path) -> PathBuf {
    database.with_extension("sqlite-wal")
}

/// Brings the log into the database: only then does all of it count.
fn into_the_database(database: &Path) {
    let conn = rusqlite::Connection::open(database).expect("it can be opened");
    conn.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(())).expect("it can be checkpointed");
}

#[test]
fn a_corrupt_database_is_moved_aside_and_the_gateway_found_by_its_instance_id() {
    let cases: [(&str, Spoil); 4] = [
        ("a header of nothing", |path| {
            into_the_database(path);
            overwrite(path, 0, 100);
        }),
        ("a text", |path| {
            into_the_database(path);
            fs::write(path, "not a database, and long enough to be read as one\n".repeat(200)).unwrap();
        }),
        ("pages of nothing", |path| {
            into_the_database(path);
            overwrite(path, 100, 900);
        }),
        ("a half", |path| {
            into_the_database(path);
            cut(path, 4);
        }),
    ];
    each(&cases, |(what, spoil)| {
        let (scene, gateway) = with_a_killed_supervisor();
        spoil(Ledger::of(&scene).path());
        let mut second = scene.start();
        let moved = second.wait_event("store.moved_aside");
        let to = PathBuf::from(moved.text("to"));
        assert!(to.exists() && was_moved_aside(&scene), "{what}: {moved:?}");
        assert_eq!(second.wait_event("gateway.adopted").process(), gateway, "{what}");
        assert_eq!(second.count("store.moved_aside"), 1, "{what}");
        assert_duplicate_ends(&scene, what);
        assert_eq!(scene.diary().starts().len(), 1, "{what}\n{}", scene.diary().text());
        stop(&scene, &mut second);
        // The new one is a database, and has what happened since.
        Ledger::of(&scene).wait_number("SELECT count(*) FROM generations WHERE settled_at IS NOT NULL", 1);
    });
}

#[test]
fn a_torn_log_costs_records_and_no_gateway() {
    let cases: [(&str, Spoil); 5] = [
        ("nothing of it", |log| fs::write(log, "").unwrap()),
        ("an eighth", |log| cut(log, 1)),
        ("seven eighths", |log| cut(log, 7)),
        ("its head", |log| overwrite(log, 0, 32)),
        ("its middle", |log| overwrite(log, 5000, 3000)),
    ];
    each(&cases, |(what, spoil)| {
        let (scene, gateway) = with_a_killed_supervisor();
        spoil(&log_of(Ledger::of(&scene).path()));
        let mut second = scene.start();
        assert_eq!(second.wait_event("gateway.adopted").process(), gateway, "{what}\n{}", second.story());
        assert_eq!(scene.diary().starts().len(), 1, "{what}");
        stop(&scene, &mut second);
    });
}

#[test]
fn only_the_owner_moves_a_corrupt_database_aside() {
    let scene = Scene::new("healthy");
    let mut owner = scene.start();
    owner.wait_started();
    let ledger = Ledger::of(&scene);
    ledger.wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 1);
    overwrite(ledger.path(), 0, 100);
    // The owner has it open and may write to it.
    let file = |path: &Path| fs::metadata(path).map(|meta| meta.ino()).ok();
    let damaged = file(ledger.path());
    for _ in 0..3 {
        assert_duplicate_ends(&scene, "beside a damaged database");
        assert!(!was_moved_aside(&scene), "{:?}", names_in(&scene.store_dir()));
        assert_eq!(file(ledger.path()), damaged);
    }
    let next = restart(&mut owner);
    assert_eq!(gateways(&scene), [next], "{}", owner.story());
    assert_duplicate_ends(&scene, "after the owner has gone on");
    stop(&scene, &mut owner);
}

#[test]
fn a_read_only_folder_is_one_clear_error() {
    let recorded = with_a_record();
    for scene in [Scene::new("healthy"), recorded] {
        let before = scene.diary().starts().len();
        let dir = scene.store_dir();
        fs::create_dir_all(&dir).unwrap();
        let mount = format!("mount --bind '{0}' '{0}' && mount -o remount,bind,ro '{0}'", dir.display());
        let mut supervisor = Supervisor::spawn(Jail::with_mounts(&mount).around(&scene.launch().command()));
        supervisor.expect_exit(78);
        let told: Vec<_> = supervisor.lines().iter().filter_map(error_of).collect();
        assert_eq!(told.len(), 1, "one line\n{}", supervisor.story());
        assert!(told[0].contains(&dir.display().to_string()) && told[0].contains("--store-dir"), "{told:?}");
        assert_eq!(scene.diary().starts().len(), before);
    }
}

/// What a line says about why nothing can be done.
fn error_of(line: &Line) -> Option<String> {
    match line {
        Line::Text(text) => Some(text.clone()),
        Line::Event(event) if event.name() == "supervisor.stopped" => Some(event.text("reason").to_owned()),
        Line::Event(_) => None,
    }
}

#[test]
fn a_full_disk_is_reported_once_and_buffered_records_are_written_when_there_is_space() {
    let scene = Scene::new("healthy");
    let (dir, room) = (scene.store_dir(), scene.root().join("room"));
    fs::create_dir_all(&dir).unwrap();
    // Space is freed inside the namespace: this file system is not visible outside.
    let setup = format!(
        "mount -t tmpfs -o size=128k,mode=700 tmpfs '{0}' && {{ cat /dev/zero > '{0}/filler' 2>/dev/null || true; }} && \
         {{ (while [ ! -e '{1}' ]; do sleep 0.02; done; rm '{0}/filler'; rm '{1}') & }}",
        dir.display(),
        room.display()
    );
    let mut supervisor = Supervisor::spawn(Jail::with_mounts(&setup).around(&scene.launch().command()));
    supervisor.wait_event("store.unavailable");
    supervisor.wait_started();
    restart(&mut supervisor);
    assert_eq!(supervisor.count("store.unavailable"), 1, "{}", supervisor.story());
    fs::write(&room, "").unwrap();
    wait_for("the room", PATIENCE, || supervisor.story(), || (!room.exists()).then_some(()));
    let last = restart(&mut supervisor);
    assert_eq!(gateways(&scene), [last]);
    assert_eq!((supervisor.count("store.unavailable"), supervisor.count("store.available")), (1, 1));
    let number = |sql: &str| Ledger::copied_from(supervisor.pid(), &scene).number(sql);
    let recorded = || (number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL") == 3).then_some(());
    wait_for("three records", PATIENCE, || supervisor.story(), recorded);
    assert_eq!(number("SELECT count(*) FROM events WHERE name = 'gateway.started'"), 3);
    assert_eq!(number("SELECT count(*) FROM state_leases WHERE epoch > 0 AND released_at IS NULL"), 1);
    stop(&scene, &mut supervisor);
}

#[test]
fn a_locked_database_delays_a_start_by_five_seconds_at_most() {
    let scene = with_a_record();
    let ledger = Ledger::of(&scene);
    let earlier = |what: &str| ledger.number(&format!("SELECT {what} FROM generations WHERE number = 1"));
    let before = (earlier("intent_at"), earlier("pid"), earlier("settled_at"));
    let blockade = ledger.block();
    let mut second = scene.start();
    second.wait_event("lease.timed_out");
    let told = second.age();
    second.assert_took("the wait", told, &(Duration::from_secs(3)..Duration::from_secs(9)));
    let gateway = second.wait_started();
    assert_eq!(gateways(&scene), [gateway]);
    assert_duplicate_ends(&scene, "while the database is locked");
    drop(blockade);
    let next = restart(&mut second);
    assert_eq!(gateways(&scene), [next]);
    assert_eq!(second.count("store.available"), 1, "{}", second.story());
    ledger.wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 3);
    assert_eq!((earlier("intent_at"), earlier("pid"), earlier("settled_at")), before, "the earlier record stays");
    let recorded = "SELECT max(pid) FROM generations WHERE number = 2";
    assert_eq!(ledger.number(recorded), i64::from(gateway.pid));
    stop(&scene, &mut second);
    ledger.wait_number("SELECT count(*) FROM generations WHERE settled_at IS NULL", 0);
    let told = "SELECT count(*) FROM events WHERE name = 'gateway.started' AND generation IN (1, 2, 3)";
    assert_eq!(ledger.number(told), 3);
}

#[test]
fn a_gateway_is_adopted_though_the_database_is_locked_and_has_one_record_in_the_end() {
    let (scene, gateway) = with_a_killed_supervisor();
    let ledger = Ledger::of(&scene);
    let blockade = ledger.block();
    let mut second = scene.start();
    assert_eq!(second.wait_event("gateway.adopted").process(), gateway);
    drop(blockade);
    stop(&scene, &mut second);
    assert_eq!(ledger.number("SELECT count(*) FROM generations"), 1);
    assert_eq!(ledger.number("SELECT count(*) FROM generations WHERE number = 1 AND settled_at IS NOT NULL"), 1);
    assert_eq!(scene.diary().starts().len(), 1);
}

const DAY_MS: i64 = 24 * 3_600_000;

#[test]
fn a_clock_step_between_two_supervisors_makes_no_start_wait_longer_than_the_window() {
    let other_boot = "boot_id = 'of-another-boot'";
    let cases = [(DAY_MS, "pid = pid"), (-DAY_MS, "pid = pid"), (DAY_MS, other_boot), (-DAY_MS, other_boot)];
    each(&cases, |(step, boot)| {
        let scene = Scene::new("exit=1@50ms;exit=1@50ms;exit=1@50ms;healthy");
        let mut first = scene.start();
        let gateway = first.wait_started();
        Ledger::of(&scene).wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 1);
        first.signal(Signal::SIGKILL);
        first.wait_exit();
        gateway.kill();
        let stamps = ["intent_at", "started_at", "stable_at", "healthy_until", "died_at", "settled_at"];
        let shifted = stamps.map(|stamp| format!("{stamp} = {stamp} + {step}")).join(", ");
        let ledger = Ledger::of(&scene);
        ledger.change(&format!("UPDATE generations SET {boot}, {shifted}"));
        ledger.change(&format!("UPDATE state_leases SET {boot}, acquired_at = acquired_at + {step}"));
        ledger.change(&format!("UPDATE events SET at_ms = at_ms + {step}"));
        let mut second = scene.launch().option("--boot-limit", "1").option("--boot-window", "3s").start();
        let next = second.wait_started();
        let age = second.age();
        second.assert_took("the start", age, &(Duration::ZERO..Duration::from_secs(8)));
        assert_eq!(gateways(&scene), [next], "{step} {boot}\n{}", second.story());
        let lines = second.lines();
        let panicked = lines.iter().any(|line| matches!(line, Line::Text(text) if text.contains("panic")));
        assert!(!panicked, "{}", second.story());
        stop(&scene, &mut second);
    });
}

#[test]
fn a_store_of_a_later_version_is_refused_in_one_line_and_not_touched() {
    let scene = with_a_record();
    let ledger = Ledger::of(&scene);
    ledger.run("PRAGMA user_version = 99");
    into_the_database(ledger.path());
    let (before, beside) = (fs::read(ledger.path()).unwrap(), names_in(&scene.store_dir()));
    let mut second = scene.start();
    second.expect_exit(78);
    let told: Vec<_> = second.lines().iter().filter_map(error_of).collect();
    assert_eq!(told.len(), 1, "one line\n{}", second.story());
    assert!(told[0].contains("schema version 99") && !told[0].contains('\n'), "{told:?}");
    assert_eq!(fs::read(ledger.path()).unwrap(), before);
    assert_eq!(names_in(&scene.store_dir()), beside);
    assert_eq!(scene.diary().starts().len(), 1, "that of the run before");
}

/// Copies a folder as a backup does.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").args(["-a", "--"]).args([from, to]).status().expect("cp starts");
    assert!(done.success(), "cp of {}", from.display());
}

#[test]
fn a_store_folder_that_is_replaced_under_a_supervisor_gets_its_lock_and_its_records() {
    each(&["a copy", "an empty one", "none"], |what| {
        let scene = with_a_record();
        let (dir, away) = (scene.store_dir(), scene.root().join("away"));
        let mut owner = scene.start();
        owner.wait_started();
        assert_duplicate_ends(&scene, "before");
        fs::rename(&dir, &away).unwrap();
        match *what {
            "a copy" => copy(&away, &dir),
            "none" => {}
            _ => DirBuilder::new().mode(0o700).create(&dir).unwrap(),
        }
        assert_duplicate_ends(&scene, what);
        let next = restart(&mut owner);
        assert_owned_here(&scene, &owner, next);
        let ledger = Ledger::of(&scene);
        assert_eq!(ledger.number("SELECT pid FROM state_leases"), i64::from(owner.pid()));
        assert_eq!(fs::metadata(&dir).unwrap().permissions().mode() & 0o777, 0o700);
        stop(&scene, &mut owner);
        ledger.wait_number("SELECT count(*) FROM state_leases WHERE released_at IS NOT NULL", 1);
    });
}

/// The folder that is there now has the record of this gateway, and its lock is held by this supervisor: a port claim
/// would mean nothing to one in another network namespace.
fn assert_owned_here(scene: &Scene, owner: &Supervisor, gateway: Process) {
    let ledger = Ledger::of(scene);
    let started = format!("SELECT count(*) FROM generations WHERE pid = {} AND started_at IS NOT NULL", gateway.pid);
    ledger.wait_number(&started, 1);
    assert_eq!(ledger.number("SELECT count(*) FROM generations WHERE settled_at IS NULL"), 1);
    let mut duplicate = scene.start();
    duplicate.expect_exit(78);
    let contended = duplicate.last("lease.contended");
    assert_eq!(contended.text("what"), "lease", "{}", duplicate.story());
    assert_eq!(contended.number("owner_pid"), i64::from(owner.pid()));
    assert_eq!(gateways(scene), [gateway], "{}", owner.story());
    // The control socket is in it, too.
    let asked = scene.command(PROGRAM).args(["status", "--json"]).output().expect("the program starts");
    let answer = String::from_utf8_lossy(&asked.stdout);
    assert!(answer.contains("\"answered_by\":\"supervisor\""), "{answer}");
}

#[test]
fn a_command_that_restores_the_state_folder_before_it_becomes_the_gateway_is_supervised_all_the_same() {
    let scene = with_a_record();
    let (state, backup) = (scene.state_dir(), scene.root().join("backup"));
    copy(&state, &backup);
    let hook = scene.root().join("restore-and-run");
    let text =
        format!("#!/bin/sh\nrm -rf '{0}' && cp -a '{1}' '{0}' && exec \"$@\"\n", state.display(), backup.display());
    fs::write(&hook, text).unwrap();
    fs::set_permissions(&hook, fs::Permissions::from_mode(0o755)).unwrap();
    let words = [vec![hook.display().to_string()], scene.gateway_words()].concat();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let launch = || scene.launch().words(&words).option("--state-dir", &state.display().to_string());
    let mut first = launch().start();
    let gateway = first.wait_started();
    assert_owned_here(&scene, &first, gateway);
    let last = restart(&mut first);
    assert_owned_here(&scene, &first, last);
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    let mut second = launch().start();
    assert_eq!(second.wait_event("gateway.adopted").process(), last);
    assert_eq!(scene.diary().starts().len(), 3, "one before, two since");
    stop(&scene, &mut second);
}
