//! A gateway that is alive is not replaced, however ill it is.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs;
use std::io::{PipeReader, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::Scene;
use support::process::Process;
use support::root::needs_root;
use support::supervisor::{Event, Launch, Said, Supervisor};

/// The window after which a gateway counts as hung here.
const HANG_AFTER: Duration = Duration::from_secs(1);

fn launch(scene: &Scene) -> Launch<'_> {
    scene.launch().option("--hang-after", "1s").option("--probe-interval", "50ms").option("--probe-timeout", "150ms")
}

fn assert_untouched(supervisor: &Supervisor, scene: &Scene, gateway: Process) {
    assert_eq!(supervisor.count("gateway.hung"), 0, "{}", supervisor.story());
    assert_eq!(scene.diary().starts().len(), 1);
    assert!(scene.diary().signals(gateway.pid).is_empty() && gateway.is_alive());
}

/// Has a gateway answer in this way for a few windows: it is told of once, and left alone.
fn assert_told(illness: &str, detail: &str, status: i32) {
    let scene = Scene::new("healthy");
    let mut supervisor = launch(&scene).start();
    let gateway = supervisor.wait_started();
    scene.diary().command(gateway.pid, illness);
    let told = supervisor.wait_event("liveness.degraded");
    assert!(told.text("detail").contains(detail), "{}", told.value());
    support::let_pass(HANG_AFTER * 4);
    let state = scene.state_dir().display().to_string();
    let status = Said::by(&scene, &["status", "--state-dir", &state]).expect(status);
    status.assert_says(&["not healthy", "it is alive and not healthy", detail]);
    scene.diary().command(gateway.pid, "answers-every=1");
    supervisor.wait_event("liveness.recovered");
    assert_untouched(&supervisor, &scene, gateway);
    assert_eq!(supervisor.count("liveness.degraded"), 1, "{}", supervisor.story());
}

#[test]
fn a_gateway_that_is_unavailable_is_told_of_and_left_alone() {
    assert_told("unavailable", "503", 4);
}

#[test]
fn a_gateway_that_answers_html_on_every_path_is_told_of_and_left_alone() {
    assert_told("html", "text/html", 4);
}

#[test]
fn a_gateway_that_redirects_is_told_of_and_left_alone() {
    assert_told("redirect", "302", 4);
}

#[test]
fn a_gateway_that_answers_later_than_a_probe_waits_is_told_of_and_left_alone() {
    // The probe of `status` waits longer.
    assert_told("late=400ms", "later than a probe waits", 0);
}

#[test]
fn a_gateway_that_answers_later_than_its_whole_window_is_replaced() {
    let scene = Scene::new("healthy");
    let mut supervisor = launch(&scene).start();
    let gateway = supervisor.wait_started();
    scene.diary().command(gateway.pid, "late=5s");
    supervisor.wait_event("gateway.hung");
    supervisor.wait_started();
    assert_eq!(supervisor.count("liveness.degraded"), 0, "{}", supervisor.story());
}

#[test]
fn a_gateway_that_is_ill_from_its_first_second_outlives_its_startup_timeout() {
    let scene = Scene::new("unavailable");
    let mut supervisor = launch(&scene).option("--startup-timeout", "1s").start();
    let gateway = supervisor.wait_event("gateway.spawned").process();
    supervisor.wait_event("liveness.degraded");
    support::let_pass(HANG_AFTER * 3);
    scene.diary().command(gateway.pid, "answers-every=1");
    supervisor.wait_event("liveness.recovered");
    supervisor.wait_started();
    assert_untouched(&supervisor, &scene, gateway);
    assert_eq!(supervisor.count("startup.timed_out"), 0, "{}", supervisor.story());
}

/// How much fits into no pipe, so that the gateway blocks in the middle of it.
const PRINT: &str = "print=4M";
const PRINTED: usize = 4 << 20;

/// A supervisor whose stdout is a pipe that nothing reads yet.
fn unread(scene: &Scene, launch: &Launch<'_>) -> (Supervisor, PipeReader) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = launch.command();
    command.current_dir(scene.root()).stdout(writer);
    (Supervisor::spawn(command), reader)
}

fn read(mut reader: &PipeReader, mut size: usize) {
    let mut bytes = vec![0; 64 * 1024];
    while size > 0 {
        size -= reader.read(&mut bytes[..size.min(64 * 1024)]).unwrap();
    }
}

fn assert_blocked(event: &Event) {
    assert_eq!(event.text("stream"), "stdout", "{}", event.value());
    assert!(event.text("file").starts_with("pipe:["), "{}", event.value());
    assert_eq!(event.number("reader_pid"), i64::from(std::process::id()), "{}", event.value());
    assert!(event.text("reader_command").contains("e2e"), "{}", event.value());
}

#[test]
fn a_gateway_whose_output_nobody_reads_is_told_of_with_the_reader_and_serves_again_when_that_reads() {
    let scene = Scene::new("healthy");
    let (mut supervisor, reader) = unread(&scene, &launch(&scene));
    let gateway = supervisor.wait_started();
    scene.diary().command(gateway.pid, PRINT);
    assert_blocked(&supervisor.wait_event("liveness.blocked"));
    support::let_pass(HANG_AFTER * 4);
    let state = scene.state_dir().display().to_string();
    let status = Said::by(&scene, &["status", "--state-dir", &state]).expect(4);
    status.assert_says(&["it is alive but blocked", &format!("pid {}", std::process::id())]);
    assert_untouched(&supervisor, &scene, gateway);
    read(&reader, PRINTED);
    supervisor.wait_event("liveness.recovered");
    assert_untouched(&supervisor, &scene, gateway);
    assert_eq!(supervisor.count("liveness.blocked"), 1, "{}", supervisor.story());
}

#[test]
fn one_that_prints_without_end_to_a_slow_reader_is_replaced_in_the_end() {
    let scene = Scene::new("healthy");
    let (mut supervisor, reader) = unread(&scene, &launch(&scene));
    let gateway = supervisor.wait_started();
    scene.diary().command(gateway.pid, "print=64M");
    std::thread::scope(|scope| {
        let slow = scope.spawn(|| {
            let take_some = || {
                read(&reader, 8 * 1024);
                support::let_pass(Duration::from_millis(20));
                (!gateway.is_alive()).then_some(())
            };
            support::wait_for("its end", support::PATIENCE * 3, String::new, take_some);
        });
        supervisor.wait_event("liveness.blocked");
        supervisor.patience = support::PATIENCE * 2;
        supervisor.wait_event("gateway.hung");
        slow.join().unwrap();
    });
    read(&reader, 1);
    supervisor.wait_started();
}

#[test]
fn of_a_socket_no_process_is_blamed_that_writes_to_it_itself() {
    let scene = Scene::new("healthy");
    let (_reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
    let mut command = launch(&scene).command();
    command.current_dir(scene.root()).stdout(std::os::fd::OwnedFd::from(writer));
    let mut supervisor = Supervisor::spawn(command);
    let gateway = supervisor.wait_started();
    scene.diary().command(gateway.pid, PRINT);
    let told = supervisor.wait_event("liveness.blocked");
    assert!(told.text("file").starts_with("socket:["), "{}", told.value());
    assert!(told.value()["reader_pid"].is_null(), "{}", told.value());
    assert_untouched(&supervisor, &scene, gateway);
}

#[test]
fn behind_a_launcher_the_process_that_listens_is_looked_at() {
    let scene = Scene::new("healthy");
    let words = scene.gateway_words().join(" ");
    let script = format!("{words} & wait");
    let (mut supervisor, reader) = unread(&scene, &launch(&scene).words(&["/bin/sh", "-c", &script]));
    let shell = supervisor.wait_started();
    let gateway = scene.diary().starts()[0].process;
    assert_ne!(shell, gateway);
    scene.diary().command(gateway.pid, PRINT);
    assert_blocked(&supervisor.wait_event("liveness.blocked"));
    support::let_pass(HANG_AFTER * 3);
    assert_untouched(&supervisor, &scene, gateway);
    read(&reader, PRINTED);
    supervisor.wait_event("liveness.recovered");
    // A real hang of it is found, and it is the one that is examined.
    gateway.signal(Signal::SIGSTOP);
    let hung = supervisor.wait_event("gateway.hung");
    let evidence: serde_json::Value = serde_json::from_slice(&fs::read(hung.text("evidence")).unwrap()).unwrap();
    assert_eq!((&evidence["pid"], &evidence["listener"]), (&shell.pid.into(), &gateway.pid.into()));
    let state = evidence["process"]["status"]["State"].as_str().unwrap_or_default();
    assert!(state.starts_with('T'), "{evidence}");
}

#[test]
fn a_reader_in_the_gateways_own_tree_that_hangs_is_replaced_with_it() {
    let scene = Scene::new("healthy");
    let script = format!("{} | sleep 600", scene.gateway_words().join(" "));
    let mut supervisor = launch(&scene).words(&["/bin/sh", "-c", &script]).start();
    supervisor.wait_started();
    let gateway = scene.diary().starts()[0].process;
    scene.diary().command(gateway.pid, PRINT);
    supervisor.wait_event("gateway.hung");
    supervisor.wait_started();
    assert!(!gateway.is_alive());
    assert_eq!(supervisor.count("liveness.blocked"), 0, "{}", supervisor.story());
}

/// A control group with a hundredth of a processor, of the version that has the CPU controller here.
struct Throttled(PathBuf);

impl Throttled {
    fn new() -> Self {
        needs_root("a control group with a CPU limit");
        let name = format!("openclaw-test-{}-{:?}", std::process::id(), std::thread::current().id());
        let name = name.replace(['(', ')'], "");
        let first = Path::new("/sys/fs/cgroup/cpu");
        let (parent, file, limit) = if first.exists() {
            (first, "cpu.cfs_quota_us", "1000")
        } else {
            (Path::new("/sys/fs/cgroup"), "cpu.max", "1000 100000")
        };
        let group = Self(parent.join(name));
        fs::create_dir(&group.0).expect("this needs a writable control group with the CPU controller");
        fs::write(group.0.join(file), limit).expect("this needs the CPU controller");
        group
    }

    fn enter(&self, gateway: Process) {
        fs::write(self.0.join("cgroup.procs"), gateway.pid.to_string()).unwrap();
    }

    fn lift(&self) {
        let first = self.0.join("cpu.cfs_quota_us");
        if first.exists() { fs::write(first, "-1") } else { fs::write(self.0.join("cpu.max"), "max") }.unwrap();
    }
}

impl Drop for Throttled {
    fn drop(&mut self) {
        for pid in fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default().lines() {
            let pid = pid.parse().map(nix::unistd::Pid::from_raw);
            pid.map(|pid| nix::sys::signal::kill(pid, Signal::SIGKILL)).ok();
        }
        support::wait_for("an empty group", support::PATIENCE, String::new, || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn a_gateway_that_gets_no_processor_is_given_time_and_serves_again_when_it_gets_one() {
    let scene = Scene::new("healthy");
    let group = Throttled::new();
    let mut supervisor = launch(&scene).start();
    let gateway = supervisor.wait_started();
    group.enter(gateway);
    scene.diary().command(gateway.pid, "burn=500ms");
    let extended = supervisor.wait_event_with("liveness.extended", |event| event.text("why") == "starved");
    assert!(extended.number("waited_ms") > 0 && extended.number("throttled_ms") > 0, "{}", extended.value());
    assert_eq!(extended.number("left"), 9, "{}", extended.value());
    support::let_pass(HANG_AFTER * 3);
    assert_untouched(&supervisor, &scene, gateway);
    group.lift();
    supervisor.wait_event("liveness.recovered");
    assert_untouched(&supervisor, &scene, gateway);
}

#[test]
fn a_gateway_that_gets_no_processor_is_replaced_after_its_last_window() {
    let scene = Scene::new("healthy");
    let group = Throttled::new();
    let mut supervisor = launch(&scene).start();
    supervisor.patience = support::PATIENCE * 3;
    let gateway = supervisor.wait_started();
    group.enter(gateway);
    scene.diary().command(gateway.pid, "burn=100s");
    let hung = supervisor.wait_event("gateway.hung");
    let evidence: serde_json::Value = serde_json::from_slice(&fs::read(hung.text("evidence")).unwrap()).unwrap();
    let last = evidence["samples"].as_array().and_then(|samples| samples.last()).cloned().unwrap_or_default();
    assert!(last["waited_ms"].as_u64() > Some(1000) && last["throttled_ms"].as_u64() > Some(1000), "{evidence}");
    let starved = supervisor.events().into_iter().filter(|event| event.name() == "liveness.extended");
    let left: Vec<_> =
        starved.filter(|event| event.text("why") == "starved").map(|event| event.number("left")).collect();
    assert_eq!(left, (0..10).rev().collect::<Vec<_>>(), "{}", supervisor.story());
}
