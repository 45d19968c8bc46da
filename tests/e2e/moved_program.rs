//! Where we were started, and what we start, is gone or elsewhere: the working directory, the program, its interpreter.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use support::supervisor::{Launch, Line, Supervisor};
use support::{Scene, fake_gateway};

/// A folder of the scene with the stand-in as this program.
fn install(scene: &Scene, folder: &str, program: &str) -> PathBuf {
    let folder = scene.root().join(folder);
    fs::create_dir_all(&folder).unwrap();
    write_script(&folder.join(program), &format!("#!/bin/sh\nexec {} \"$@\"\n", fake_gateway().display()));
    folder
}

fn write_script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

fn run<'a>(scene: &'a Scene, program: &str, path: &[&Path]) -> Launch<'a> {
    let path: Vec<_> = path.iter().map(|folder| folder.display().to_string()).collect();
    let port = scene.port().to_string();
    let words = [program, "gateway", "run", "--port", &port];
    scene.launch().words(&words).env("PATH", &format!("{}:/usr/bin:/bin", path.join(":")))
}

/// Kills the gateway; the next one is waited for.
fn replace(supervisor: &mut Supervisor) {
    let before = supervisor.last("gateway.started").process();
    before.kill();
    let after = supervisor.wait_started();
    assert_ne!(before, after);
}

fn logs(supervisor: &Supervisor, words: &str) -> bool {
    supervisor.lines().iter().any(|line| match line {
        Line::Event(event) => event.value()["message"].as_str().is_some_and(|message| message.contains(words)),
        Line::Text(text) => text.contains(words),
    })
}

#[test]
fn a_working_directory_that_is_removed_costs_no_gateway() {
    let scene = Scene::new("healthy");
    let folder = scene.root().join("worktree");
    fs::create_dir(&folder).unwrap();
    // It needs a working directory, as Node does.
    let script = format!("ls -d /proc/$$/cwd/. >/dev/null && exec {}", scene.gateway_words().join(" "));
    let mut command = scene.launch().words(&["sh", "-c", &script]).command();
    command.current_dir(&folder);
    let mut supervisor = Supervisor::spawn(command);
    supervisor.wait_started();
    fs::remove_dir(&folder).unwrap();
    replace(&mut supervisor);
    let starts = scene.diary().starts();
    let place = fs::read_link(format!("/proc/{}/cwd", starts.last().unwrap().process.pid)).unwrap();
    assert_eq!(place, scene.state_dir());
    assert!(logs(&supervisor, "the working directory of this supervisor is gone"), "{}", supervisor.story());
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

#[test]
fn a_start_in_a_directory_that_is_gone_already_costs_no_gateway() {
    let scene = Scene::new("healthy");
    let folder = scene.root().join("worktree");
    fs::create_dir(&folder).unwrap();
    let given = scene.launch().command();
    let mut command = scene.command("sh");
    command.args(["-c", "rmdir \"$PWD\"; exec \"$0\" \"$@\""]).arg(given.get_program()).args(given.get_args());
    command.current_dir(&folder).stdout(Stdio::null());
    let mut supervisor = Supervisor::spawn(command);
    let gateway = supervisor.wait_started();
    assert!(!folder.exists());
    assert_eq!(fs::read_link(format!("/proc/{}/cwd", gateway.pid)).unwrap(), scene.state_dir());
    assert!(logs(&supervisor, "the working directory of this supervisor is gone"), "{}", supervisor.story());
}

#[test]
fn a_program_that_has_moved_on_path_is_found_again_at_once() {
    let scene = Scene::new("healthy");
    let (old, new) = (install(&scene, "v24.1", "gw"), scene.root().join("v24.2"));
    let mut supervisor = run(&scene, "gw", &[&old, &new]).start();
    supervisor.wait_started();
    install(&scene, "v24.2", "gw");
    fs::remove_dir_all(&old).unwrap();
    replace(&mut supervisor);
    let words = format!("{}/gw; it was {}/gw", new.display(), old.display());
    assert!(logs(&supervisor, &words), "{}", supervisor.story());
    assert_eq!(supervisor.count("gateway.spawn_failed"), 0, "{}", supervisor.story());
}

#[test]
fn a_versioned_path_that_is_gone_is_looked_for_on_path() {
    let scene = Scene::new("healthy");
    let (old, new) = (install(&scene, "v24.1", "gw"), install(&scene, "current", "gw"));
    let program = old.join("gw").display().to_string();
    let mut supervisor = run(&scene, &program, &[&new]).start();
    supervisor.wait_started();
    fs::remove_dir_all(&old).unwrap();
    replace(&mut supervisor);
    assert!(logs(&supervisor, &format!("{}/gw; it was {program}", new.display())), "{}", supervisor.story());
}

#[test]
fn an_interpreter_that_is_not_there_is_named_and_ends_with_78() {
    for (first_line, words) in [
        ("#!/usr/bin/env nodexyz", "`nodexyz`, which is not on PATH"),
        ("#!/opt/node/25.5.0/bin/node", "its interpreter /opt/node/25.5.0/bin/node"),
        ("#!/bin/sh\r", "carriage return"),
    ] {
        let scene = Scene::new("healthy");
        let folder = scene.root().join("bin");
        fs::create_dir(&folder).unwrap();
        write_script(&folder.join("gw"), &format!("{first_line}\n"));
        let mut supervisor = run(&scene, "gw", &[&folder]).start();
        supervisor.expect_exit(78);
        let reason = supervisor.last("supervisor.stopped");
        assert!(reason.text("reason").contains(words), "{words}\n{}", supervisor.story());
        assert_eq!(supervisor.count("gateway.spawned"), 0);
    }
}

#[test]
fn a_command_that_exits_with_127_before_it_ever_answered_ends_with_78_at_once() {
    for (script, code, words) in [
        (
            "exec 2>/dev/null; exec nodexyz gateway",
            127,
            "its command, or the interpreter that this asks for, was not found",
        ),
        ("exec 2>/dev/null; exec /dev/null", 126, "cannot be executed"),
    ] {
        let scene = Scene::new("healthy");
        let mut supervisor = scene.launch().words(&["sh", "-c", script]).start();
        supervisor.expect_exit(78);
        assert_eq!(supervisor.last("gateway.exited").number("code"), code, "{}", supervisor.story());
        let reason = supervisor.last("supervisor.stopped");
        assert!(reason.text("reason").contains(words), "{}", supervisor.story());
        assert_eq!(supervisor.count("gateway.spawned"), 1);
    }
}

#[test]
fn a_gateway_that_came_up_before_is_tried_again_after_a_127() {
    let scene = Scene::new("healthy");
    let folder = scene.root().join("bin");
    fs::create_dir(&folder).unwrap();
    let inner = folder.join("inner");
    write_script(&inner, &format!("#!/bin/sh\nexec {} \"$@\"\n", fake_gateway().display()));
    write_script(&folder.join("gw"), "#!/bin/sh\nexec inner \"$@\"\n");
    let mut supervisor = run(&scene, "gw", &[&folder]).start();
    let first = supervisor.wait_started();
    fs::rename(&inner, folder.join("aside")).unwrap();
    first.kill();
    let exited = supervisor.wait_event_with("gateway.exited", |exited| exited.value()["code"] == 127);
    assert_eq!(exited.text("cause"), "the command or its interpreter was not found");
    fs::rename(folder.join("aside"), &inner).unwrap();
    supervisor.wait_started();
}
