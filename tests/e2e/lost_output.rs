//! The reader of our output is gone: the next gateway writes to a log file and lives, and so do our own lines.

#![cfg(target_os = "linux")]

use crate::support;

use nix::sys::signal::Signal;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use support::supervisor::{Launch, Said, Supervisor};
use support::{PATIENCE, Scene, wait_for};

/// A gateway that writes to its standard output first, and dies where that has no reader.
fn talkative(scene: &Scene) -> Launch<'_> {
    let script = format!("echo hello from the gateway; exec {}", scene.gateway_words().join(" "));
    scene.launch().words(&["sh", "-c", &script])
}

fn log_of(scene: &Scene) -> String {
    fs::read_to_string(scene.store_dir().join("output.log")).unwrap_or_default()
}

#[test]
fn a_gateway_whose_output_has_lost_its_reader_writes_to_a_log_file_and_lives() {
    let scene = Scene::new("healthy");
    let mut command = talkative(&scene).command();
    let (mut reader, writer) = std::io::pipe().unwrap();
    command.stdout(Stdio::from(writer));
    let mut supervisor = Supervisor::spawn(command);
    let first = supervisor.wait_started();
    let mut heard = [0; 22];
    reader.read_exact(&mut heard).unwrap();
    assert_eq!(&heard, b"hello from the gateway", "the reader has it as long as there is one");
    assert_eq!(log_of(&scene), "");
    drop(reader);
    first.kill();
    let moved = supervisor.wait_event("output.moved");
    assert!(moved.text("to").ends_with("/supervise/output.log"), "{}", supervisor.story());
    supervisor.wait_started();
    assert_eq!(log_of(&scene), "hello from the gateway\n", "{}", supervisor.story());
    let mode = fs::metadata(scene.store_dir().join("output.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    Said::by(&scene, &["status"]).assert_says(&["output", "/supervise/output.log"]);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
}

#[test]
fn our_own_lines_go_to_the_log_file_once_nothing_reads_our_stderr() {
    let scene = Scene::new("healthy");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = talkative(&scene).command();
    let mut child = command.stderr(Stdio::from(writer)).spawn().unwrap();
    drop((reader, command));
    scene.diary().wait_line("LISTEN");
    let look = || log_of(&scene).contains(r#""event":"gateway.started""#).then_some(());
    wait_for("our lines in the log file", PATIENCE, || log_of(&scene), look);
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{}", log_of(&scene));
    assert!(log_of(&scene).contains(r#""event":"supervisor.stopped""#), "{}", log_of(&scene));
}
