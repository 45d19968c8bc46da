//! `probe` as an exec probe of a container: in the gateway's environment, answering by its exit code.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]
#![expect(clippy::disallowed_methods, reason = "it times the program by its own clock")]

use crate::support;

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};
use support::Scene;
use support::supervisor::PROGRAM;

/// Exit code and output of a probe configured by the environment alone.
fn probe(scene: &Scene, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command: Command = scene.command(PROGRAM);
    command.arg("probe").args(words).env("OPENCLAW_GATEWAY_PORT", scene.port().to_string());
    let output = command.output().expect("the program starts");
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[test]
fn each_question_has_its_exit_code_and_one_line() {
    for (script, expected) in [
        ("healthy", [("--live", 0), ("--started", 0), ("--ready", 0)]),
        ("unready", [("--live", 0), ("--started", 0), ("--ready", 1)]),
        ("warm=60s", [("--live", 0), ("--started", 1), ("--ready", 1)]),
        ("foreign", [("--live", 1), ("--started", 1), ("--ready", 1)]),
    ] {
        let scene = Scene::new("");
        let gateway = scene.stranger(script);
        for (question, code) in expected {
            for json in [&[][..], &["--json"]] {
                let (got, out, err) = probe(&scene, &[&[question], json].concat());
                assert_eq!((got, err.as_str()), (Some(code), ""), "{script} {question} {out}");
                assert_eq!(out.lines().count(), 1, "{out}");
                assert!(out.contains(&gateway.pid().to_string()), "{out}");
            }
        }
    }
}

#[test]
fn without_a_gateway_it_creates_nothing_and_does_not_wait() {
    let scene = Scene::new("");
    for question in ["--live", "--ready", "--started"] {
        let (code, out, err) = probe(&scene, &[question]);
        assert_eq!((code, out.as_str(), err.as_str()), (Some(1), "free: connection refused\n", ""));
    }
    assert_eq!(fs::read_dir(scene.state_dir()).map(Iterator::count).ok(), Some(0));
    // In a container that has not been used yet there may be no such folder at all.
    fs::remove_dir(scene.state_dir()).expect("it is empty");
    assert_eq!(probe(&scene, &["--ready"]).0, Some(1));
    assert!(!scene.state_dir().exists());
}

#[test]
fn a_wait_ends_as_soon_as_the_condition_holds() {
    let scene = Scene::new("");
    let stranger = scene.stranger_unready("boot=1s warm=1s");
    let begin = Instant::now();
    let (code, out, err) = probe(&scene, &["--started", "--wait", "60s"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert_eq!(out.lines().count(), 1, "{out}");
    let took = begin.elapsed();
    // It probes at least four times a second.
    assert!((Duration::from_millis(1500)..Duration::from_secs(15)).contains(&took), "{took:?}");
    drop(stranger);
    assert_eq!(probe(&scene, &["--live", "--wait", "200ms"]).0, Some(1));
}

#[test]
fn the_endpoint_is_that_of_the_running_supervisor_unless_the_command_line_names_another() {
    let scene = Scene::new("healthy");
    let mut supervisor = scene.start();
    supervisor.wait_started();
    // A port that only the supervisor's command knows, as in the arguments of a container.
    let elsewhere = support::port::Port::reserve();
    let port = elsewhere.number().to_string();
    let ask = |words: &[&str]| {
        let mut command = scene.command(PROGRAM);
        command.arg("probe").args(words).env("OPENCLAW_GATEWAY_PORT", &port);
        command.output().expect("the program starts").status.code()
    };
    for question in ["--live", "--started", "--supervised"] {
        assert_eq!(ask(&[question]), Some(0), "{question}\n{}", supervisor.story());
        assert_eq!(ask(&[question, "--port", &port]), Some(i32::from(question != "--supervised")), "{question}");
    }
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_eq!(ask(&["--supervised"]), Some(1), "no supervisor runs any more");
}
