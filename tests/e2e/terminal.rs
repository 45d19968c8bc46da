//! The terminal and the standard streams. SIGHUP says that the terminal went away where there is one, asks for a restart
//! where there is none, and means nothing under nohup. No job control stops a supervisor, and no limit on file sizes ends
//! it.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use crate::support;

use nix::fcntl::OFlag;
use nix::pty::{PtyMaster, grantpt, posix_openpt, ptsname_r, unlockpt};
use nix::sys::signal::Signal;
use std::fs;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use support::process::{Process, stat};
use support::supervisor::{PROGRAM, Said, Supervisor};
use support::{PATIENCE, Scene, fake_gateway, http, wait_for};

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

/// A terminal, and what a shell does to have it as its own.
fn terminal() -> (PtyMaster, String) {
    let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC).unwrap();
    grantpt(&master).unwrap();
    unlockpt(&master).unwrap();
    // A session leader without a terminal gets the first one that it opens, see tty_ioctl(4).
    let open = format!("exec 3<>{}", ptsname_r(&master).unwrap());
    (master, open)
}

/// Waits until the terminal shows this, and returns all that it has shown.
fn shown(master: &PtyMaster) -> impl FnMut(&str) -> String + use<> {
    let mut master = fs::File::from(master.as_fd().try_clone_to_owned().unwrap());
    let (sender, parts) = mpsc::channel();
    std::thread::spawn(move || {
        let mut chunk = [0; 4096];
        while let Ok(length @ 1..) = master.read(&mut chunk) {
            sender.send(String::from_utf8_lossy(&chunk[..length]).into_owned()).ok();
        }
    });
    let mut seen = String::new();
    move |text| {
        let look = || {
            seen.extend(parts.try_iter());
            seen.contains(text).then(|| seen.clone())
        };
        wait_for(text, PATIENCE, String::new, look)
    }
}

#[test]
fn the_end_of_the_terminal_is_a_stop() {
    let scene = Scene::new("healthy");
    let (master, open) = terminal();
    let mut supervisor = start_after(&scene, &open);
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

/// `stty tostop` stops a background job that writes to its terminal.
#[test]
fn no_job_control_stops_a_supervisor() {
    let scene = Scene::new("healthy");
    let (master, open) = terminal();
    let _shell = start_after(&scene, &format!("{open}; stty tostop <&3; set -m; \"$@\" 2>&3 & wait; exit"));
    let mut wait_shown = shown(&master);
    let seen = wait_shown("gateway.started");
    let pid = seen.split("\"pid\":").nth(1).and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next());
    let supervisor = Process::find(pid.unwrap().parse().unwrap()).unwrap();
    for signal in [Signal::SIGTTOU, Signal::SIGTTIN, Signal::SIGTSTP] {
        supervisor.signal(signal);
    }
    wait_shown("SIGTSTP (Ctrl-Z) is not followed");
    assert_ne!(stat(supervisor.pid).unwrap().state, "T");
    supervisor.signal(Signal::SIGTERM);
    wait_shown("supervisor.stopped");
}

/// A script's `openclaw-supervise &`: Ctrl-C is for the script, `kill -INT` for us.
#[test]
fn of_the_signals_of_the_keyboard_that_a_shell_had_us_ignore_only_those_of_a_process_count() {
    let scene = Scene::new("healthy");
    let (mut master, open) = terminal();
    let mut supervisor = start_after(&scene, &format!("{open}; trap '' INT QUIT"));
    supervisor.wait_started();
    let mut wait_shown = shown(&master);
    for (key, echo) in [(b"\x03", "^C"), (b"\x1c", "^\\")] {
        master.write_all(key).unwrap();
        // It is echoed after the signal.
        wait_shown(echo);
    }
    supervisor.signal(Signal::SIGINT);
    supervisor.expect_exit(0);
    assert_eq!(supervisor.count("signal.received"), 1, "{}", supervisor.story());
}

#[test]
fn a_command_that_waits_shows_its_progress_and_leaves_nothing_of_it_on_the_line() {
    let scene = Scene::new("drain=3s");
    let mut supervisor = scene.start();
    supervisor.wait_started();
    let (master, open) = terminal();
    let mut wait_shown = shown(&master);
    let mut command = scene.command(fake_gateway());
    command.args(["in-session", "/bin/sh", "-c", &format!("{open}; exec \"$@\" >&3 2>&3"), "sh", PROGRAM, "stop"]);
    let mut asking = command.stdin(Stdio::null()).spawn().unwrap();
    wait_shown("draining gateway 1: ");
    let seen = wait_shown("the supervisor exited");
    assert!(seen.contains("; a second `stop` kills it at once"), "{seen:?}");
    assert!(seen.split('\r').any(|part| part.starts_with("the supervisor exited")), "{seen:?}");
    assert!(asking.wait().unwrap().success());
    supervisor.expect_exit(0);
}

/// A redrawn line would stand between those of the gateway.
#[test]
fn a_supervisor_on_a_terminal_tells_how_long_a_boot_and_a_drain_may_take_and_what_cuts_them_short() {
    let scene = Scene::new("drain=60s");
    let (mut master, open) = terminal();
    let mut wait_shown = shown(&master);
    let mut supervisor = start_after(&scene, &format!("{open}; exec \"$@\" 2>&3"));
    wait_shown("gateway 1 may take up to 20s to start; Ctrl-C stops it");
    wait_shown("gateway.started");
    assert!(Said::by(&scene, &["restart", "--timeout", "10ms"]).out.contains("it continues"));
    wait_shown("gateway 1 may take up to 10s to drain; then gateway 2; Ctrl-C twice ends all now");
    master.write_all(b"\x03").unwrap();
    wait_shown("Ctrl-C again ends it now");
    master.write_all(b"\x03").unwrap();
    supervisor.expect_exit(0);
    wait_shown("stop.escalated");
}

/// systemctl returns once the gateway is up.
#[test]
fn an_installation_shows_what_it_waits_for_and_ctrl_c_leaves_nothing_of_it_on_the_line() {
    let scene = Scene::new("");
    scene.openclaw();
    let bin = scene.root().join("bin");
    let systemctl = "case \"$*\" in *'enable --now'*) while [ ! -e \"$0.go\" ]; do sleep 0.05; done ;; esac";
    for (name, body) in [("systemctl", systemctl), ("loginctl", "echo yes"), ("node", "exit 1")] {
        let script = r#"printf '#!/bin/sh\n%s\n' "$2" >"$1" && chmod 755 "$1""#;
        let written = Command::new("/bin/sh").args(["-c", script, "sh"]).arg(bin.join(name)).arg(body).status();
        assert!(written.unwrap().success());
    }
    let install = |open: &str| {
        let mut command = scene.command(fake_gateway());
        command.env("PATH", format!("{}:/usr/bin:/bin", bin.display()));
        command.args([
            "in-session",
            "/bin/sh",
            "-c",
            &format!("{open}; exec \"$@\" >&3 2>&3"),
            "sh",
            PROGRAM,
            "install",
        ]);
        command.args(["--user", "--startup-timeout", "90s"]).stdin(Stdio::null()).spawn().unwrap()
    };
    let line = "s of at most 1m30s; Ctrl-C leaves it to systemd";
    let (mut master, open) = terminal();
    let mut wait_shown = shown(&master);
    let mut interrupted = install(&open);
    wait_shown(line);
    master.write_all(b"\x03").unwrap();
    assert_eq!(interrupted.wait().unwrap().signal(), Some(2));
    let seen = wait_shown(" \r");
    assert!(seen.ends_with('\r'), "{seen:?}");
    let (master, open) = terminal();
    let mut wait_shown = shown(&master);
    let mut installing = install(&open);
    wait_shown(line);
    fs::write(bin.join("systemctl.go"), "").unwrap();
    assert!(installing.wait().unwrap().success());
    let seen = wait_shown("next  ");
    assert!(seen.split('\r').any(|part| part.starts_with("next  ")), "{seen:?}");
}

#[test]
fn standard_streams_that_are_closed_at_the_start_are_dev_null_for_us_and_the_gateway() {
    for (number, closed) in ["exec <&-", "exec >&-", "exec <&- >&- 2>&-"].into_iter().enumerate() {
        let scene = Scene::new("healthy");
        let mut supervisor = start_after(&scene, closed);
        let look = || http::startup_status(scene.port()).map(drop);
        wait_for("a gateway", PATIENCE, || supervisor.story(), look);
        let gateway = scene.diary().starts()[0].process;
        let closed = if number == 2 { 0..3 } else { number..number + 1 };
        for (pid, stream) in closed.flat_map(|stream| [(supervisor.pid(), stream), (gateway.pid, stream)]) {
            let target = fs::read_link(format!("/proc/{pid}/fd/{stream}")).unwrap();
            assert_eq!(target, Path::new("/dev/null"), "{stream} of {pid}");
        }
        supervisor.signal(Signal::SIGTERM);
        supervisor.expect_exit(0);
    }
}

/// Its own files cannot grow then, and its records have to wait.
#[test]
fn a_limit_on_the_size_of_files_ends_no_supervisor() {
    let scene = Scene::new("healthy");
    let mut supervisor = start_after(&scene, "ulimit -f 40");
    supervisor.wait_started();
    supervisor.signal(Signal::SIGTERM);
    supervisor.expect_exit(0);
    assert!(supervisor.count("store.unavailable") > 0, "{}", supervisor.story());
}
