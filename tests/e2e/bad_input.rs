//! What cannot work is refused before anything is started, with the exit code of its kind. What the gateway reads is left
//! to the gateway.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Command, Output};
use support::supervisor::{Line, PROGRAM, Supervisor};
use support::{Scene, fake_gateway};

fn run(scene: &Scene, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command: Command = scene.command(PROGRAM);
    let Output { status, stdout, stderr } = command.args(words).output().expect("it runs");
    let text = |bytes| String::from_utf8(bytes).expect("it writes UTF-8");
    (status.code(), text(stdout), text(stderr))
}

/// The whole of what a run wrote.
fn told(supervisor: &Supervisor) -> String {
    let lines = supervisor.lines();
    let texts = lines.iter().map(|line| match line {
        Line::Event(event) => event.value().to_string(),
        Line::Text(text) => text.clone(),
    });
    texts.collect::<Vec<_>>().join("\n")
}

#[test]
fn what_clap_cannot_know_is_told_at_once() {
    let scene = Scene::new("healthy");
    let words = ["run", "--port", "1", "--", "/nonexistent/openclaw", "--port", "2"];
    let (code, _, stderr) = run(&scene, &words);
    assert_eq!(code, Some(2), "{stderr}");
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    for wrong in ["contradicts COMMAND's --port 2", "/nonexistent/openclaw does not exist"] {
        assert!(stderr.contains(wrong), "{wrong:?} is not told in\n{stderr}");
    }
}

#[test]
fn no_verb_acts_on_a_command_line_that_it_does_not_understand() {
    let scene = Scene::new("healthy");
    let unit = scene.root().join(".config/systemd/user/openclaw-supervise.service");
    fs::create_dir_all(unit.parent().expect("it has a folder")).expect("a folder can be made");
    fs::write(&unit, "[Service]\n").expect("a file can be written");
    let mut supervisor = scene.start();
    let gateway = supervisor.wait_started();
    for words in [
        &["uninstall", "--dryrun"][..],
        &["uninstall", "extra"],
        &["install", "--dry-run", "extra"],
        &["stop", "now"],
        &["restart", "--tiemout", "1s"],
        &["retry-now", "--", "x"],
        &["uninstall", "--profil", "work"],
        &["stop", "--tiemout", "5s"],
        &["run", "--max-restart", "3"],
    ] {
        let mut command: Command = scene.command(PROGRAM);
        let home = [("HOME", scene.root().to_owned()), ("OPENCLAW_STATE_DIR", scene.state_dir())];
        let output = command.args(words).envs(home).output().expect("it runs");
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0), "{words:?}: {stderr}");
        assert!(stderr.starts_with("openclaw-supervise: error: unexpected argument"), "{words:?}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{words:?}: {stderr}");
    }
    assert!(unit.exists() && gateway.is_alive(), "{}", supervisor.story());
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn a_command_that_is_certainly_no_gateway_is_not_started_and_another_one_is() {
    let scene = Scene::new("healthy");
    let openclaw = scene.openclaw().program().display().to_string();
    for words in [
        &["gateway", "status"][..],
        &["gateway", "--help"],
        &["--", &openclaw, "gateway", "--port", "1", "stop"],
        &["run", "--", "env", "A=b", &openclaw, "gateway", "restart"],
        &["install", "--user", "--", &openclaw, "doctor"],
    ] {
        let (code, stdout, stderr) = run(&scene, words);
        assert_eq!((code, stdout.as_str(), stderr.lines().count()), (Some(2), "", 1), "{words:?}: {stderr}");
        assert!(stderr.contains("runs no gateway") && stderr.contains("type: openclaw-supervise"), "{stderr}");
    }
    assert_eq!(scene.diary().starts().len(), 0);
    let words = [&openclaw, "gateway", "--port", &scene.port().to_string(), "--new-option", "status"];
    let mut supervisor = scene.launch().words(&words).start();
    supervisor.wait_started();
}

#[test]
fn a_usage_error_reaches_the_service_manager() {
    let scene = Scene::new("healthy");
    let path = scene.root().join("notify");
    let socket = UnixDatagram::bind(&path).expect("a socket can be made");
    socket.set_nonblocking(true).expect("it is ours");
    for (words, told) in [
        (&["--bogus"][..], "openclaw-supervise: error: unexpected argument '--bogus' found"),
        (
            &["--port", "1", "gateway", "--port", "2"],
            "openclaw-supervise: error: --port 1 contradicts COMMAND's --port 2",
        ),
    ] {
        let mut command: Command = scene.command(PROGRAM);
        let output = command.args(words).env("NOTIFY_SOCKET", &path).output().expect("it runs");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        let mut datagram = [0; 4096];
        let length = socket.recv(&mut datagram).expect("it was sent before the exit");
        let text = String::from_utf8_lossy(&datagram[..length]);
        assert!(text.starts_with(&format!("STATUS={told}")), "{text}");
        assert!(!text.contains("Usage:"), "{text}");
    }
}

#[test]
fn two_ports_that_differ_are_an_error() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().option("--port", "1").start();
    supervisor.expect_exit(2);
    let told = told(&supervisor);
    assert!(told.contains(&scene.port().to_string()) && told.contains("--port"), "{told}");
    assert_eq!(scene.diary().starts().len(), 0);
}

#[test]
fn a_wrong_variable_is_told_by_its_name() {
    let scene = Scene::new("healthy");
    let launch = scene.launch().without("--hang-after").env("OPENCLAW_SUPERVISE_HANG_AFTER", "soon");
    let mut supervisor = launch.start();
    supervisor.expect_exit(2);
    assert!(told(&supervisor).contains("OPENCLAW_SUPERVISE_HANG_AFTER"), "{}", supervisor.story());
}

/// The warnings about the gateway's files.
fn assumptions(supervisor: &Supervisor) -> Vec<String> {
    let lines = supervisor.lines();
    let texts = lines.iter().filter_map(|line| match line {
        Line::Event(event) if event.name() == "log" => Some(event.text("message").to_owned()),
        Line::Event(_) | Line::Text(_) => None,
    });
    texts.filter(|text| text.contains("assuming that the gateway listens on")).collect()
}

#[test]
fn a_config_that_cannot_be_read_is_told_once_and_left_to_the_gateway() {
    let scene = Scene::new("healthy");
    let at = |name: &str| scene.root().join(name).display().to_string();
    fs::write(at("broken"), "{ gateway: { port: ").expect("a file can be written");
    fs::write(at("bind"), "{ gateway: { bind: 'everywhere' } }").expect("a file can be written");
    fs::write(at("include"), "{ $include: './missing' }").expect("a file can be written");
    fs::create_dir(at("folder")).expect("a folder can be made");
    nix::unistd::mkfifo(Path::new(&at("fifo")), Mode::S_IRWXU).expect("a FIFO can be made");
    for name in ["broken", "bind", "include", "folder", "fifo"] {
        let config = at(name);
        let mut supervisor = scene.launch().option("--config", &config).start();
        supervisor.wait_started();
        let told = assumptions(&supervisor);
        assert_eq!(told.len(), 1, "{name}: {told:?}\n{}", supervisor.story());
        assert!(told[0].contains(&format!("{config}:")) && told[0].contains(&scene.url()), "{told:?}");
        let port = scene.port().to_string();
        for words in [&["probe", "--port", &port, "--config", &config][..], &["status", "--config", &config]] {
            let (code, _, stderr) = run(&scene, words);
            assert_eq!((code, stderr.lines().count()), (Some(0), 1), "{words:?}: {stderr}");
        }
        let (code, stdout, stderr) = run(&scene, &["doctor", "--config", &config]);
        assert!(matches!(code, Some(0 | 1)) && stderr.is_empty(), "{name}: {stderr}");
        assert!(!stdout.contains("FAIL  settings"), "{stdout}");
        let gateway = scene.gateway_words();
        let install = ["install", "--user", "--dry-run", "--config", &config, "--"];
        let install: Vec<&str> = install.into_iter().chain(gateway.iter().map(String::as_str)).collect();
        let (code, stdout, stderr) = run(&scene, &install);
        assert!(code == Some(0) && stdout.contains(&format!("note       {config}:")), "{name}: {stdout}{stderr}");
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
    }
    assert_eq!(scene.diary().starts().len(), 5);
}

#[test]
fn odd_options_of_the_command_are_left_to_the_gateway() {
    let scene = Scene::new("exit=1@50ms");
    let openclaw = scene.openclaw().program().display().to_string();
    let words = [openclaw.as_str(), "gateway", "run", "--port", &scene.port().to_string(), "--bind", "0.0.0.0"];
    let mut supervisor = scene.launch().words(&words).start();
    supervisor.wait_event("gateway.exited");
    let told = assumptions(&supervisor);
    assert_eq!(told.len(), 1, "{}", supervisor.story());
    assert!(told[0].contains("COMMAND's --bind \"0.0.0.0\" is not one of"), "{told:?}");
}

#[test]
fn a_command_that_is_not_there_is_told_with_where_it_was_looked_for() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.launch().words(&["/nonexistent/openclaw", "gateway", "run"]).start();
    supervisor.expect_exit(78);
    assert!(told(&supervisor).contains("/nonexistent/openclaw"), "{}", supervisor.story());

    let bin = scene.root().join("empty-bin").display().to_string();
    fs::create_dir(&bin).expect("a folder can be made");
    let mut supervisor = scene.launch().words(&["openclaw", "gateway", "run"]).env("PATH", &bin).start();
    supervisor.expect_exit(78);
    let told = told(&supervisor);
    assert!(told.contains("openclaw") && told.contains(&bin), "{told}");
}

#[test]
fn a_command_that_is_not_executable_is_told() {
    let scene = Scene::new("healthy");
    let path = scene.root().join("plain-file");
    fs::copy(fake_gateway(), &path).expect("a file can be copied");
    fs::set_permissions(&path, Permissions::from_mode(0o644)).expect("a mode can be set");
    let name = path.display().to_string();
    let mut supervisor = scene.launch().words(&[&name, "gateway", "run"]).start();
    supervisor.expect_exit(78);
    assert!(told(&supervisor).contains(&name), "{}", supervisor.story());
    assert_eq!(scene.diary().starts().len(), 0);
}

#[test]
fn a_state_folder_that_cannot_be_made_is_told() {
    let scene = Scene::new("healthy");
    let file = scene.root().join("file");
    fs::write(&file, "").expect("a file can be written");
    // mkdir(2) below a regular file fails with ENOTDIR, for root too.
    let dir = file.join("state").display().to_string();
    let mut supervisor = scene.launch().option("--state-dir", &dir).start();
    supervisor.expect_exit(78);
    assert!(told(&supervisor).contains(&dir), "{}", supervisor.story());
    assert_eq!(scene.diary().starts().len(), 0);
}

#[test]
fn a_state_folder_where_the_file_system_makes_none_is_told() {
    let scene = Scene::new("healthy");
    // access(2) allows it to root, but no user can create a directory in proc(5).
    let dir = "/proc/openclaw-state";
    let mut supervisor = scene.launch().option("--state-dir", dir).start();
    supervisor.expect_exit(78);
    assert!(told(&supervisor).contains(dir), "{}", supervisor.story());
    assert_eq!(scene.diary().starts().len(), 0);
}

#[test]
fn help_and_version_are_not_errors() {
    let scene = Scene::new("healthy");
    let (code, stdout, stderr) = run(&scene, &["--help"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("openclaw-supervise") && stdout.contains("--hang-after"), "{stdout}");
    let (code, stdout, stderr) = run(&scene, &["--version"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout.trim_end(), format!("openclaw-supervise {}", env!("CARGO_PKG_VERSION")));
}
