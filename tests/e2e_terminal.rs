//! SIGHUP says that the terminal went away where there is one, asks for a restart where there is none, and means nothing
//! under nohup.

#![cfg(target_os = "linux")]

#[expect(dead_code, reason = "each test file uses its part of the kit")]
mod support;

use nix::fcntl::OFlag;
use nix::pty::{grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;
use std::process::{Command, Stdio};
use support::supervisor::Supervisor;
use support::{Scene, fake_gateway};

/// Starts a supervisor of `scene` in a session of its own by way of a shell that does `first` before it becomes us.
fn start_after(scene: &Scene, first: &str) -> Supervisor {
    let usual = scene.launch().command();
    let mut command = Command::new(fake_gateway());
    command.env_clear().envs(usual.get_envs().filter_map(|(name, value)| value.map(|value| (name, value))));
    command.args(["in-session", "/bin/sh", "-c", &format!("{first}; exec \"$@\""), "sh"]);
    // Behind its own `in-session`.
    command.args(usual.get_args().skip(1));
    command.stdin(Stdio::null()).stdout(Stdio::null()).current_dir(scene.root());
    Supervisor::spawn(command)
}

#[test]
fn the_end_of_the_terminal_is_a_stop() {
    let scene = Scene::new("healthy");
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    // A session leader without a terminal gets the first one that it opens, see tty_ioctl(4).
    let mut supervisor = start_after(&scene, &format!("exec 3<>{}", ptsname_r(&master).unwrap()));
    supervisor.wait_started();
    drop(master);
    let by = supervisor.wait_event("stop.requested");
    assert!(by.text("by").starts_with("SIGHUP"), "{}", by.value());
    supervisor.expect_exit(0);
    assert_eq!(scene.diary().starts().len(), 1);
}

#[test]
fn under_nohup_it_goes_on() {
    let scene = Scene::new("healthy");
    let mut supervisor = start_after(&scene, "trap '' HUP");
    let gateway = supervisor.wait_started();
    supervisor.signal(Signal::SIGHUP);
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert_eq!(supervisor.count("restart.requested"), 0, "{}", supervisor.story());
    assert!(!gateway.is_alive());
    assert_eq!(scene.diary().starts().len(), 1);
}
