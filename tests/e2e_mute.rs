//! A dead file system holds up neither a look at all processes nor the loop: not through a process whose reads block,
//! and not through the program of a gateway.

#![cfg(target_os = "linux")]
#![expect(clippy::disallowed_methods, reason = "a test measures by the clock, with a bound")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use nix::sys::signal::Signal;
use openclaw_supervise::gateway::tree::{Orphans, Tree};
use openclaw_supervise::platform::{proc, process};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use support::mute::{Mute, is_alive};
use support::shared::{Mount, mount_at};
use support::supervisor::{PROGRAM, Said};
use support::{PATIENCE, Scene, wait_for};

/// The bound of an operation that must not wait, on a loaded machine too.
const SOON: Duration = Duration::from_secs(3);

/// A process that is started while another test starts one that gets stuck would get stuck too.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The processes with this entry, by a scan of all, and how many of `kept` it could read.
fn look(entry: &'static str, kept: &[i32]) -> (Vec<i32>, usize) {
    let begun = Instant::now();
    let all = proc::survey(|_| true, move |environment| environment.has(entry)).unwrap();
    assert!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
    let bearers = all.iter().filter(|(_, bears)| *bears == Some(true)).map(|(process, _)| process.pid).collect();
    let read = all.iter().filter(|(process, bears)| kept.contains(&process.pid) && bears.is_some());
    (bearers, read.count())
}

#[test]
fn a_process_whose_reads_block_is_skipped_until_they_return_and_the_others_are_read() {
    let _turn = turn();
    let mut mute = Mute::new();
    let kept = [mute.keep(), mute.keep()];
    let mut bearer = Command::new("sleep").arg("600").env("MUTE", "1").stdin(Stdio::null()).spawn().unwrap();
    let pid = i32::try_from(bearer.id()).unwrap();
    for _ in 0..3 {
        assert_eq!(look("MUTE=1", &kept), (vec![pid], 0));
    }
    let begun = Instant::now();
    for pid in kept {
        assert!(proc::command_of(pid).unwrap().starts_with('['));
        assert!(!proc::environ_has(pid, "MUTE=1") && proc::environment_of(pid).is_none());
    }
    assert!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
    mute.let_go();
    let is_read = |pid: &i32| proc::environment_of(*pid).is_some();
    wait_for("the others", PATIENCE, String::new, || kept.iter().all(is_read).then_some(()));
    bearer.kill().unwrap();
    bearer.wait().unwrap();
}

#[test]
fn with_all_readers_blocked_a_scan_fails_until_one_read_returns() {
    let _turn = turn();
    let mut mute = Mute::new();
    let kept = [(); 20].map(|()| mute.keep());
    let me = i32::try_from(std::process::id()).unwrap();
    let begun = Instant::now();
    for _ in 0..2 {
        let error = proc::processes().unwrap_err();
        assert!(error.to_string().contains("stuck"), "{error}");
        assert!(proc::environment_of(me).is_none() && proc::command_of(me).unwrap().starts_with('['));
    }
    assert!(begun.elapsed() < 2 * SOON, "it took {:?}", begun.elapsed());
    mute.let_go();
    wait_for("an answer", PATIENCE, String::new, || proc::environment_of(me).map(|_| ()));
    wait_for("all answers", PATIENCE, String::new, || (look("MUTE=2", &kept).1 == kept.len()).then_some(()));
}

#[test]
fn neither_a_stop_nor_an_exit_waits_for_blocked_reads() {
    let _turn = turn();
    for script in ["drain=100ms", "deaf"] {
        let scene = Scene::new(script);
        let mut supervisor = scene.launch().option("--stop-timeout", "500ms").start();
        supervisor.wait_event("gateway.started");
        let mut mute = Mute::new();
        // Younger than the gateway: each might have its instance id.
        let kept = [mute.keep(), mute.keep()];
        let begun = Instant::now();
        supervisor.signal(Signal::SIGTERM);
        supervisor.wait_event("stop.requested");
        let heard = begun.elapsed();
        supervisor.expect_exit(0);
        let ended = begun.elapsed();
        assert!(heard < SOON && ended < 2 * SOON, "{heard:?}, {ended:?}\n{}", supervisor.story());
        assert!(kept.iter().all(|&pid| is_alive(pid)), "unrelated processes are left alone");
        // The scan for leftovers reads the environments too.
        mute.let_go();
        assert_eq!(scene.processes(), [], "{}", supervisor.story());
    }
}

/// How long the execve(2) of a gateway may take before it counts as started.
const EXEC_TIME_MAX: Duration = Duration::from_secs(2);

#[test]
fn a_program_on_a_dead_file_system_delays_neither_an_answer_nor_a_stop() {
    let _turn = turn();
    let (scene, mut mute) = (Scene::new(""), Mute::new());
    let mut supervisor = scene.launch().option("--stop-timeout", "500ms").words(&[&mute.program()]).start();
    mute.wait_for_reader();
    let begun = Instant::now();
    let said = Said::by(&scene, &["status", "--json"]);
    assert_eq!(said.json()["supervisor"]["state"], "spawning", "{said}");
    supervisor.wait_event("gateway.spawned");
    supervisor.signal(Signal::SIGTERM);
    // SIGKILL does not end the wait for the file system: the exit code tells of the survivor.
    supervisor.expect_exit(1);
    assert!(begun.elapsed() < EXEC_TIME_MAX + 2 * SOON, "{}", supervisor.story());
    mute.let_go();
}

/// Answers at the latest when it is dropped: a thread that waits for it cannot be killed, and keeps its process.
struct Waking(Mount);

impl Drop for Waking {
    fn drop(&mut self) {
        self.0.answer();
    }
}

/// An executable script in a file system that can hang, with the gateway behind it.
fn script_in(mount: &Mount, scene: &Scene) -> String {
    let path = mount.path().join("gateway");
    let words = scene.gateway_words().join(" ");
    fs::write(&path, format!("#!/bin/sh\nexec {words}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    path.display().to_string()
}

#[test]
fn a_file_system_that_hangs_under_the_program_holds_up_no_answer_no_watchdog_and_no_stop() {
    let _turn = turn();
    let scene = Scene::new("healthy");
    let [mount] = mount_at([scene.root().join("mount")]);
    let manager = UnixDatagram::bind(scene.root().join("notify")).unwrap();
    let is_fed = || {
        let mut message = [0; 4096];
        manager.recv(&mut message).is_ok_and(|length| message[..length].windows(10).any(|word| word == b"WATCHDOG=1"))
    };
    let launch = scene.launch().words(&[&script_in(&mount, &scene)]).flags(&["--pre-start", "true"]);
    let launch = launch.env("NOTIFY_SOCKET", &scene.root().join("notify").display().to_string());
    let mut supervisor = launch.env("WATCHDOG_USEC", "300000").start();
    let mount = Waking(mount);
    let gateway = supervisor.wait_started();
    mount.0.hang();
    gateway.kill();
    supervisor.wait_event("gateway.exited");
    let state = |expected: &str| {
        let said = Said::by(&scene, &["status", "--json"]);
        (said.json()["supervisor"]["state"] == expected).then_some(())
    };
    // Its pre-start hook waits for the looks at the program.
    wait_for("the wait for the program", SOON, || supervisor.story(), || state("pre_start"));
    manager.set_nonblocking(true).unwrap();
    while manager.recv(&mut [0; 4096]).is_ok() {}
    for _ in 0..3 {
        wait_for("a ping", SOON, || supervisor.story(), || is_fed().then_some(()));
    }
    let begun = Instant::now();
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait_event("supervisor.stopped");
    assert!(begun.elapsed() < SOON, "{}", supervisor.story());
    mount.0.answer();
    supervisor.expect_exit(0);
    assert_eq!(scene.diary().starts().len(), 1);
}

/// As a home on a file server that is gone.
#[test]
fn a_home_that_does_not_answer_is_named_by_doctor_which_goes_on() {
    let _turn = turn();
    let scene = Scene::new("healthy");
    let [mount] = mount_at([scene.root().join("mount")]);
    let accounts = scene.root().join("passwd");
    let home = mount.path().display().to_string();
    let known = fs::read_to_string("/etc/passwd").unwrap();
    fs::write(&accounts, format!("{known}ocs-gone:x:64999:64999::{home}:/bin/sh\n")).unwrap();
    // In the mount namespace of this thread.
    rustix::mount::mount_bind(&accounts, "/etc/passwd").unwrap();
    let mount = Waking(mount);
    mount.0.hang();
    let (said, begun) = (scene.root().join("said"), Instant::now());
    let mut command = scene.command(PROGRAM);
    command.args(["doctor", "--json"]).stdout(fs::File::create(&said).unwrap()).stderr(Stdio::null());
    let mut doctor = command.spawn().unwrap();
    let told = || serde_json::from_str::<serde_json::Value>(&fs::read_to_string(&said).unwrap()).ok();
    let diagnosis = wait_for("a diagnosis", PATIENCE, String::new, told);
    assert!(begun.elapsed() < 3 * SOON, "it took {:?}", begun.elapsed());
    // A thread that waits for FUSE keeps its process.
    mount.0.answer();
    doctor.wait().unwrap();
    let findings = diagnosis["findings"].as_array().unwrap();
    let found = format!("{home} does not answer, so its units are unknown");
    assert!(findings.iter().any(|finding| finding["found"] == found.as_str()), "{diagnosis:#}");
    assert!(findings.iter().any(|finding| finding["check"] == "clock"), "{diagnosis:#}");
}

#[test]
fn a_start_that_waits_for_its_file_system_is_taken_back_by_a_stop_and_made_once_that_answers() {
    let _turn = turn();
    let scene = Scene::new("healthy");
    let [mount] = mount_at([scene.root().join("mount")]);
    let mut supervisor = scene.launch().words(&[&script_in(&mount, &scene)]).start();
    let mount = Waking(mount);
    for ends in [false, true] {
        let gateway = supervisor.wait_started();
        mount.0.hang();
        gateway.kill();
        supervisor.wait_event("gateway.exited");
        let is_spawning = || {
            let said = Said::by(&scene, &["status", "--json"]);
            (said.json()["supervisor"]["state"] == "spawning").then_some(())
        };
        wait_for("the wait for the program", SOON, || supervisor.story(), is_spawning);
        if ends {
            supervisor.signal(Signal::SIGTERM);
            supervisor.wait_event("supervisor.stopped");
        }
        mount.0.answer();
    }
    supervisor.expect_exit(0);
    assert_eq!(scene.diary().starts().len(), 2, "{}", supervisor.story());
}

#[test]
fn a_supervisor_that_is_killed_while_its_gateway_is_held_up_in_execve_leaves_no_lock() {
    let _turn = turn();
    let (scene, mut mute) = (Scene::new(""), Mute::new());
    let mut first = scene.launch().words(&[&mute.program()]).start();
    mute.wait_for_reader();
    // Then its child is on record.
    first.wait_event("gateway.spawned");
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    let mut second = scene.start();
    second.wait_event("lease.acquired");
    // The child of the first one is on record: it is not a second gateway beside the next one.
    let adopted = second.wait_event("gateway.adopted");
    assert!(is_alive(adopted.number("pid").try_into().unwrap()), "{}", second.story());
    mute.let_go();
    second.wait_started();
    second.signal(Signal::SIGTERM);
    second.expect_exit(0);
}

#[test]
fn a_member_that_blocks_the_reads_about_it_is_killed_unseen() {
    let _turn = turn();
    process::become_subreaper().unwrap();
    let mut mute = Mute::new();
    let stuck = mute.keep();
    let leader = process::spawn_in_own_session(Command::new("sleep").arg("600").stdin(Stdio::null())).unwrap();
    process::claim(leader.pid());
    let tree = Tree::new(&leader, "MUTE=3".to_owned(), Orphans::OursAlone);
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (end, longest) = runtime.block_on(async {
        let kill = tokio::spawn(tree.kill(Duration::ZERO, move || begun.elapsed()));
        let mut longest = Duration::ZERO;
        while !kill.is_finished() {
            let before = Instant::now();
            tokio::time::sleep(Duration::from_millis(1)).await;
            longest = longest.max(before.elapsed());
        }
        (kill.await.unwrap(), longest)
    });
    let took = begun.elapsed();
    assert!(took < 2 * SOON && longest < SOON / 3, "{took:?}, the loop stood still for {longest:?}");
    assert_eq!((end.members, end.survivors), (2, 1), "{end:?}");
    assert!(end.left[0].contains("uninterruptible"), "{end:?}");
    mute.let_go();
    wait_for("the end of the member", PATIENCE, String::new, || (!is_alive(stuck)).then_some(()));
    leader.reap();
}
