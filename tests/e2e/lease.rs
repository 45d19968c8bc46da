//! Of several supervisors of one gateway exactly one owns the lease, from before the first spawn until its exit.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use support::ledger::Ledger;
use support::process::Process;
use support::root::needs_root;
use support::supervisor::{Said, Supervisor};
use support::{Scene, let_pass};

/// P7: one line names the owner.
fn assert_owner_named(duplicate: &Supervisor, owner: &Supervisor) {
    let conflict = duplicate.last("conflict.detected");
    assert_eq!(conflict.number("holder_pid"), i64::from(owner.pid()), "{}", duplicate.story());
    assert!(conflict.text("holder_command").contains("openclaw-supervise"));
    let reason = duplicate.last("supervisor.stopped");
    let reason = reason.text("reason");
    assert!(reason.contains(&format!("pid {}", owner.pid())) && reason.contains("status"), "{reason}");
}

#[test]
fn a_second_supervisor_with_another_state_folder_ends_too_even_while_the_first_one_boots() {
    let scene = Scene::new("boot=1500ms");
    let mut first = scene.start();
    first.wait_event("gateway.spawned");
    let other = scene.root().join("other-state").display().to_string();
    let mut second = scene.launch().option("--state-dir", &other).start();
    second.expect_exit(78);
    assert_eq!(second.last("lease.contended").text("what"), "port claim");
    assert_owner_named(&second, &first);
    let gateway = first.wait_started();
    assert_eq!(scene.diary().starts().len(), 1);
    assert!(scene.diary().signals(gateway.pid).is_empty());
}

#[test]
fn a_second_supervisor_of_the_same_config_on_another_port_ends_too() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    let elsewhere = Scene::new("healthy");
    let port = elsewhere.port().to_string();
    let words = [scene.gateway_words()[..4].to_vec(), vec![port.clone()]].concat();
    let words: Vec<_> = words.iter().map(String::as_str).collect();
    let mut second = scene.launch().option("--port", &port).words(&words).start();
    second.expect_exit(78);
    assert_eq!(second.last("lease.contended").text("what"), "lease");
    assert_owner_named(&second, &first);
    assert!(gateway.is_alive());
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn of_many_starters_at_once_exactly_one_spawns() {
    let scene = Scene::new("boot=300ms");
    let mut all: Vec<_> = (0..8).map(|_| scene.start()).collect();
    let started = all.iter().map(Supervisor::pid).collect::<Vec<_>>();
    scene.diary().wait_line("LISTEN");
    let owner = support::process::stat(scene.diary().starts()[0].process.pid).map(|stat| stat.parent);
    let owner = owner.expect("the gateway lives");
    assert!(started.contains(&owner), "{owner} is none of {started:?}");
    for supervisor in all.iter_mut().filter(|supervisor| supervisor.pid() != owner) {
        supervisor.expect_exit(78);
    }
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn a_released_lease_is_acquired_without_a_recovery() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    first.wait_started();
    let epoch = first.last("lease.acquired").number("epoch");
    first.signal(Signal::SIGTERM);
    first.expect_exit(0);
    assert_eq!(first.last("lease.released").number("epoch"), epoch);
    let mut second = scene.start();
    second.wait_started();
    assert_eq!(second.count("lease.stale_recovered"), 0, "{}", second.story());
    assert!(second.last("lease.acquired").number("epoch") > epoch);
}

#[test]
fn a_lease_whose_owner_was_killed_is_free_at_once() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    gateway.kill();
    let mut second = scene.start();
    let recovered = second.wait_event("lease.stale_recovered");
    assert_eq!(recovered.number("owner_pid"), i64::from(first.pid()));
    assert_ne!(second.wait_started(), gateway);
}

#[test]
fn a_lock_that_a_child_of_a_killed_owner_has_not_closed_yet_is_waited_for() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    // As that child would, until it gets a processor.
    let lock = File::open(scene.store_dir().join("lease.lock")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::NonBlockingLockExclusive).unwrap();
    let mut second = scene.start();
    second.wait_event("lease.acquire_started");
    let_pass(Duration::from_millis(600));
    drop(lock);
    assert_eq!(second.wait_event("gateway.adopted").process(), gateway, "{}", second.story());
    second.signal(Signal::SIGTERM);
    second.expect_exit(0);
}

#[test]
fn a_row_whose_pid_was_reused_is_stale_and_that_process_lives_on() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    first.signal(Signal::SIGKILL);
    first.wait_exit();
    gateway.kill();
    let mut innocent = Command::new("sleep").arg("600").spawn().expect("sleep starts");
    let pid = innocent.id();
    let ledger = Ledger::of(&scene);
    ledger.change(&format!("UPDATE state_leases SET pid = {pid}"));
    ledger.change(&format!("UPDATE generations SET pid = {pid}"));
    let mut second = scene.start();
    second.wait_event("lease.stale_recovered");
    assert_ne!(second.wait_started(), gateway);
    assert_eq!(second.count("gateway.adopted"), 0, "{}", second.story());
    second.signal(Signal::SIGTERM);
    second.expect_exit(0);
    assert!(Process::find(i32::try_from(pid).unwrap()).is_some(), "the bystander lives");
    innocent.kill().expect("it is our child");
    innocent.wait().expect("it is our child");
}

#[test]
fn a_supervisor_stopped_by_sigstop_stays_the_owner_and_kills_nothing_when_it_continues() {
    let scene = Scene::new("healthy");
    let mut first = scene.start();
    let gateway = first.wait_started();
    first.signal(Signal::SIGSTOP);
    let mut second = scene.start();
    second.expect_exit(78);
    assert_owner_named(&second, &first);
    // Longer than every timeout of the gateway: --hang-after is 600 ms here.
    let_pass(Duration::from_secs(11));
    first.signal(Signal::SIGCONT);
    first.wait_event("clock.jumped");
    scene.diary().wait_requests(gateway.pid, 3);
    assert!(gateway.is_alive());
    assert_eq!(first.count("gateway.hung"), 0, "{}", first.story());
    assert_eq!(scene.diary().starts().len(), 1);
    assert!(scene.diary().signals(gateway.pid).is_empty());
}

/// The claim of another user on the port of a scene, as any user can take it.
struct Stranger(Child);

impl Stranger {
    const UID: u32 = 65_533;

    fn claim(scene: &Scene, kind: &str) -> Self {
        needs_root("another user");
        let script = "
            import socket, sys, time
            name, kind = '\\0openclaw-supervise/' + sys.argv[1], sys.argv[2]
            claim = socket.socket(socket.AF_UNIX)
            claim.bind(name)
            if kind != 'mute':
                claim.listen(0 if kind == 'full' else 100)
            waiting = []
            for _ in range(3 if kind == 'full' else 0):
                waiting.append(socket.socket(socket.AF_UNIX))
                waiting[-1].setblocking(False)
                waiting[-1].connect_ex(name)
            print('ready', flush=True)
            while kind == 'liar':
                client = claim.accept()[0]
                try:
                    client.send(b'/etc')
                except OSError:
                    pass
            time.sleep(60)";
        let script: Vec<_> = script.lines().map(|line| line.strip_prefix("            ").unwrap_or(line)).collect();
        let mut command = scene.command("python3");
        command.args(["-c", &script.join("\n"), &scene.port().to_string(), kind]).stdout(Stdio::piped());
        let mut child = command.uid(Self::UID).gid(Self::UID).current_dir("/").spawn().expect("python3 starts");
        let mut line = String::new();
        BufReader::new(child.stdout.as_mut().expect("it is piped")).read_line(&mut line).expect("it prints");
        assert_eq!(line, "ready\n", "{kind}");
        Self(child)
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.0.kill().expect("it is our child");
        self.0.wait().expect("it is our child");
    }
}

#[test]
fn the_claim_of_another_user_keeps_no_gateway_from_its_start_and_is_told_with_its_user() {
    for (kind, told) in [
        ("listener", format!("claimed by uid {} (pid ", Stranger::UID)),
        ("liar", format!("claimed by uid {} (pid ", Stranger::UID)),
        ("mute", format!("claimed by uid {} (pid ", Stranger::UID)),
        ("full", format!("claimed by uid {} (pid ", Stranger::UID)),
    ] {
        let scene = Scene::new("healthy");
        let _stranger = Stranger::claim(&scene, kind);
        let port = scene.port().to_string();
        let before = Said::by(&scene, &["status", "--port", &port, "--json"]).expect(3).json();
        assert_eq!(before["supervisor"]["state"], "none", "{kind}: {before:#}");
        let mut supervisor = scene.start();
        supervisor.wait_started();
        let warnings =
            supervisor.events().iter().filter(|event| event.value()["message"].to_string().contains(&told)).count();
        assert_eq!((warnings, supervisor.count("lease.contended")), (1, 0), "{kind}: {}", supervisor.story());
        Said::by(&scene, &["stop"]).expect(0);
        supervisor.expect_exit(0);
    }
}
