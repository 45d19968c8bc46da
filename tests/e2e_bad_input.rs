//! What cannot work is refused before anything is started, all of it at once, with the exit code of its kind.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
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
fn all_mistakes_of_a_command_line_are_told_at_once() {
    let scene = Scene::new("healthy");
    let words = [
        "run",
        "--no-such-flag",
        "--probe-interval",
        "banana",
        "--startup-timeout",
        "5 parsecs",
        "--port",
        "none",
        "--max-restarts",
        "many",
        "--",
        "/bin/true",
    ];
    let (code, _, stderr) = run(&scene, &words);
    assert_eq!(code, Some(2), "{stderr}");
    for wrong in ["--no-such-flag", "banana", "5 parsecs", "none", "many"] {
        let lines = stderr.lines().filter(|line| line.contains(wrong)).count();
        assert_eq!(lines, 1, "{wrong:?} has no line of its own in\n{stderr}");
    }
}

#[test]
fn two_ports_that_differ_are_a_mistake() {
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

#[test]
fn a_config_that_does_not_parse_is_told_before_anything_is_started() {
    let scene = Scene::new("healthy");
    let config = scene.state_dir().join("openclaw.json");
    fs::write(&config, "{ gateway: { port: ").expect("a file can be written");
    let mut supervisor = scene.start();
    supervisor.expect_exit(78);
    assert!(told(&supervisor).contains(&config.display().to_string()), "{}", supervisor.story());
    assert_eq!(scene.diary().starts().len(), 0);
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
    // Below a regular file nobody can make a folder, not even root.
    let dir = file.join("state").display().to_string();
    let mut supervisor = scene.launch().option("--state-dir", &dir).start();
    supervisor.expect_exit(1);
    assert!(told(&supervisor).contains(&dir), "{}", supervisor.story());
    assert_eq!(scene.diary().starts().len(), 0);
}

#[test]
fn a_state_folder_where_the_file_system_makes_none_is_told() {
    let scene = Scene::new("healthy");
    // To root access(2) allows it; proc(5) makes no folder for anybody.
    let dir = "/proc/openclaw-state";
    let mut supervisor = scene.launch().option("--state-dir", dir).start();
    supervisor.expect_exit(1);
    assert!(told(&supervisor).contains(dir), "{}", supervisor.story());
    assert_eq!(scene.diary().starts().len(), 0);
}

#[test]
fn help_and_version_are_no_mistakes() {
    let scene = Scene::new("healthy");
    let (code, stdout, stderr) = run(&scene, &["--help"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert!(stdout.contains("openclaw-supervise") && stdout.contains("--hang-after"), "{stdout}");
    let (code, stdout, stderr) = run(&scene, &["--version"]);
    assert_eq!((code, stderr.as_str()), (Some(0), ""));
    assert_eq!(stdout.trim_end(), format!("openclaw-supervise {}", env!("CARGO_PKG_VERSION")));
}
