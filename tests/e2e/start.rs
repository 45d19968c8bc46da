//! A gateway counts as started when it says so, and gets exactly the documented environment.

#![cfg(target_os = "linux")]

use crate::support;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;
use support::http;
use support::supervisor::{PROGRAM, Supervisor};
use support::{Scene, fake_gateway, process};

#[test]
fn started_is_said_only_after_startupz_says_started() {
    let scene = Scene::new("boot=200ms warm=400ms");
    let mut supervisor = scene.start();
    let spawned = supervisor.wait_event("gateway.spawned");
    let started = supervisor.wait_event("gateway.started");
    assert_eq!(http::startup_status(scene.port()).as_deref(), Some("started"));
    assert_eq!(spawned.number("pid"), started.number("pid"));
    assert_eq!(spawned.number("generation"), started.number("generation"));
    assert_eq!(scene.diary().starts()[0].process, started.process());
    let boot = Duration::from_millis(started.number("boot_ms").unsigned_abs());
    supervisor.assert_took("the boot", boot, &(Duration::from_millis(600)..Duration::from_secs(15)));
}

#[test]
fn a_release_without_startupz_counts_as_started_when_it_is_live() {
    let scene = Scene::new("old boot=100ms");
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    assert_eq!(scene.diary().starts()[0].process, gateway);
}

#[test]
fn a_gateway_that_is_never_ready_is_started_all_the_same_and_left_alone() {
    let scene = Scene::new("unready");
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    scene.diary().wait_requests(gateway.pid, 20);
    assert!(gateway.is_alive());
    assert_eq!(supervisor.count("gateway.hung") + supervisor.count("liveness.missed"), 0, "{}", supervisor.story());
}

#[test]
fn the_gateway_leads_a_session_of_its_own() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    let start = &scene.diary().starts()[0];
    assert_eq!((start.session, start.group), (gateway.pid, gateway.pid));
}

/// What makes a gateway believe that a native service manager owns it, and what the manager meant for us alone.
const NOT_FOR_THE_CHILD: &[&str] = &[
    "OPENCLAW_SYSTEMD_UNIT",
    "INVOCATION_ID",
    "SYSTEMD_EXEC_PID",
    "JOURNAL_STREAM",
    "OPENCLAW_LAUNCHD_LABEL",
    "LAUNCH_JOB_LABEL",
    "LAUNCH_JOB_NAME",
    "XPC_SERVICE_NAME",
    "OPENCLAW_SERVICE_MARKER",
    "OPENCLAW_SERVICE_KIND",
    "OPENCLAW_WRAPPER",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
    "LISTEN_PID",
    "LISTEN_FDS",
    "LISTEN_FDNAMES",
];

#[test]
fn the_gateway_is_told_of_an_external_supervisor_and_of_no_other() {
    let scene = Scene::new("healthy");
    let mut launch = scene.launch().env("KEPT", "as it was").env("OPENCLAW_SUPERVISE_INSTANCE", "outer");
    launch = launch.env("NOTIFY_SOCKET", "/nonexistent/notify");
    for name in NOT_FOR_THE_CHILD {
        launch = launch.env(name, "1");
    }
    let mut supervisor = launch.start();
    let gateway = supervisor.wait_started();
    let environment = scene.diary().environment(gateway.pid);
    for name in NOT_FOR_THE_CHILD.iter().chain(&["NOTIFY_SOCKET"]) {
        assert!(!environment.contains_key(*name), "{name} came down to the gateway");
    }
    assert_eq!(environment["OPENCLAW_SUPERVISOR_MODE"], "external");
    assert_eq!(environment["OPENCLAW_SERVICE_REPAIR_POLICY"], "external");
    assert_eq!(environment["KEPT"], "as it was");
    let instance = &environment["OPENCLAW_SUPERVISE_INSTANCE"];
    assert!(instance.len() >= 16 && instance != "outer", "{instance:?} is no fresh id");
}

#[test]
fn each_start_has_its_own_instance_id() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    let first = supervisor.wait_started();
    first.kill();
    let second = supervisor.wait_started();
    let id = |pid| scene.diary().environment(pid)["OPENCLAW_SUPERVISE_INSTANCE"].clone();
    assert_ne!(id(first.pid), id(second.pid));
}

#[test]
fn every_setting_that_was_given_reaches_the_gateway() {
    let scene = Scene::new("healthy");
    let state = scene.root().join("elsewhere").display().to_string();
    let config = scene.root().join("own.json").display().to_string();
    fs::create_dir(&state).expect("a folder can be made");
    fs::write(&config, "{}").expect("a file can be written");
    let launch = scene.launch().option("--state-dir", &state).option("--config", &config).option("--profile", "work");
    let mut supervisor = launch.start();
    let gateway = supervisor.wait_started();
    let environment = scene.diary().environment(gateway.pid);
    assert_eq!(environment["OPENCLAW_STATE_DIR"], state);
    assert_eq!(environment["OPENCLAW_CONFIG_PATH"], config);
    assert_eq!(environment["OPENCLAW_PROFILE"], "work");
    assert_eq!(environment["OPENCLAW_GATEWAY_PORT"], scene.port().to_string());
}

#[test]
fn the_gateway_inherits_our_stdio_and_no_other_descriptor() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    for number in 0..3 {
        let link = |pid: i32| fs::read_link(format!("/proc/{pid}/fd/{number}")).expect("it is open");
        assert_eq!(link(gateway.pid), link(supervisor.pid()), "descriptor {number}");
    }
    // Descriptors that this test inherited without close-on-exec are inherited by all.
    let entries = fs::read_dir("/proc/self/fd").expect("it can be listed");
    let ours: Vec<_> = entries.filter_map(|entry| fs::read_link(entry.ok()?.path()).ok()).collect();
    let walk = format!("/proc/{}/fd", gateway.pid);
    for entry in scene.diary().given(gateway.pid, "fd") {
        let (number, target) = entry.split_once(' ').expect("two words");
        let expected =
            number.len() == 1 && number < "3" || target == walk || ours.iter().any(|path| path == Path::new(target));
        assert!(expected, "descriptor {entry} came down to the gateway");
    }
}

#[test]
fn a_descriptor_and_the_channel_of_our_parent_reach_neither_gateway_nor_hook() {
    let scene = Scene::new("healthy");
    let channel = [("NODE_CHANNEL_FD", "3"), ("NODE_CHANNEL_SERIALIZATION_MODE", "json"), ("NODE_UNIQUE_ID", "1")];
    let launch = scene.launch().option("--pre-start", "ls -l /proc/$$/fd >descriptors; env >variables");
    let launch = channel.iter().fold(launch, |launch, (name, value)| launch.env(name, value));
    let behind = launch.behind(&["/bin/sh", "-c", "exec \"$@\" 3</etc/passwd 9</etc/passwd", "sh"]);
    let mut supervisor = Supervisor::spawn(behind);
    let gateway = supervisor.wait_started();
    let own = |number| fs::read_link(format!("/proc/{}/fd/{number}", supervisor.pid())).expect("it is open");
    assert_eq!([own(3), own(9)], ["/etc/passwd"; 2].map(Path::new), "the channel stays ours");
    let of_gateway = [scene.diary().given(gateway.pid, "fd"), scene.diary().given(gateway.pid, "env")].concat();
    let read = |name: &str| fs::read_to_string(scene.root().join(name)).expect("the hook wrote it");
    for (whose, text) in [("gateway", of_gateway.join("\n")), ("hook", read("descriptors") + &read("variables"))] {
        assert!(!text.contains("/etc/passwd") && !text.contains("NODE_"), "{whose}:\n{text}");
    }
}

#[test]
fn the_gateway_inherits_no_signal_mask_or_disposition_of_ours() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    let other = Scene::new("healthy");
    let plain = other.stranger("healthy");
    let given = |diary: &support::diary::Diary, pid| {
        let mut lines = diary.given(pid, "status");
        lines.retain(|line| ["SigBlk", "SigIgn", "SigCgt", "Umask"].iter().any(|name| line.starts_with(name)));
        lines.iter().map(|line| without_libc_signals(line)).collect::<Vec<_>>()
    };
    let expected = given(&plain.diary, plain.pid());
    assert_eq!(expected.len(), 4, "{expected:?}");
    assert_eq!(given(&scene.diary(), gateway.pid), expected);
}

/// glibc takes 32 and 33 for itself with a program's first thread, see nptl(7); what they did before is lost with that.
fn without_libc_signals(line: &str) -> String {
    let Some((name, mask)) = line.split_once(':') else { return line.to_owned() };
    u64::from_str_radix(mask.trim(), 16)
        .map_or_else(|_| line.to_owned(), |mask| format!("{name}: {:016x}", mask & !(0b11 << 31)))
}

#[test]
fn a_port_inside_the_command_counts() {
    let scene = Scene::new("healthy");
    let program = fake_gateway().display().to_string();
    let port = format!("--port={}", scene.port());
    let mut supervisor = scene.launch().without("--port").words(&[&program, "gateway", "run", &port]).start();
    let gateway = supervisor.wait_started();
    assert!(gateway.is_alive() && http::startup_status(scene.port()).is_some());
}

#[test]
fn the_wrapper_form_finds_openclaw_on_the_path_and_hands_its_words_on() {
    let scene = Scene::new("healthy");
    let bin = scene.root().join("bin");
    fs::create_dir(&bin).expect("a folder can be made");
    symlink(fake_gateway(), bin.join("openclaw")).expect("a link can be made");
    let mut command = scene.command(fake_gateway());
    command.args(["in-session", PROGRAM, "gateway", "--port", &scene.port().to_string()]);
    command.env("PATH", &bin).env("OPENCLAW_SUPERVISE_LOG_FORMAT", "json").stdout(std::process::Stdio::null());
    let mut supervisor = Supervisor::spawn(command);
    let gateway = supervisor.wait_started();
    let words = scene.diary().given(gateway.pid, "arg");
    assert_eq!(words[1..], ["gateway".to_owned(), "--port".to_owned(), scene.port().to_string()]);
    assert_eq!(process::stat(gateway.pid).map(|stat| stat.parent), Some(supervisor.pid()));
}
