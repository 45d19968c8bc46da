//! The scope of the service, other services, and the path by which it starts this program.

use super::{Home, PROGRAM};
use crate::support::root::needs_root;
use nix::unistd::{Uid, User};
use std::fs;
use std::os::unix::fs::{chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

#[test]
fn a_dry_run_without_a_manager_or_openclaw_names_the_errors_of_a_real_one() {
    let home = Home::new();
    let before = home.tree();
    let nowhere = home.root.join("none").display().to_string();
    let alone = [("PATH", nowhere.as_str())];
    for (scope, file) in [("--user", "openclaw-supervise.service"), ("--system", "openclaw-supervise@.service")] {
        let run = home.run_with(&["install", scope, "--dry-run"], &alone);
        for words in [
            &format!("{file}:\n"),
            "\nType=notify\n",
            "would run  systemctl",
            "this would fail: systemctl not found on PATH",
            "this would fail: cannot find openclaw",
        ] {
            run.expect(0, words);
        }
        home.run_with(&["uninstall", scope, "--dry-run"], &alone).expect(0, "would remove");
    }
    home.run_with(&["install", "--user"], &alone).expect(78, "cannot find openclaw");
    home.run(&["install", "--system", "--run-as", "nobody-here", "--dry-run"])
        .expect(0, "this would fail: this machine has no user \"nobody-here\"");
    assert_eq!(home.tree(), before);
}

#[test]
fn root_means_a_system_service_and_the_better_choice_is_mentioned() {
    needs_root("what root means");
    let home = Home::new();
    let (implied, agents) = ("running as root: this is the system service for user", "agents will run as root");
    let roots = "openclaw-supervise@root.service.d/install.conf";
    let run = home.run(&["install", "--dry-run"]);
    for words in [implied, agents, roots, "--run-as USER"] {
        run.expect(0, words);
    }
    home.run(&["uninstall", "--dry-run"]).expect(0, roots);
    let run = home.run(&["install", "--system", "--dry-run"]);
    run.expect(0, roots);
    run.expect(0, agents);
    assert!(!run.out.contains(implied), "{}", run.out);
    // With sudo the caller is meant.
    let run = home.run_with(&["install", "--dry-run"], &[("SUDO_USER", "alice")]);
    run.expect(0, "openclaw-supervise@alice.service.d/install.conf");
    assert!(!run.out.contains(agents), "{}", run.out);
    let run = home.run(&["install", "--user", "--dry-run"]);
    run.expect(0, "would run  systemctl --user enable --now openclaw-supervise.service");
    assert!(!run.out.contains(agents), "{}", run.out);
    // A service that could not start is not written.
    home.run(&["install", "--system", "--", "no-such-gateway"]).expect(78, "cannot find no-such-gateway for root");
    assert!(home.calls().is_empty() && !Path::new("/etc/systemd/system/openclaw-supervise@root.service.d").exists());
}

#[test]
fn a_user_name_may_have_dots_and_one_that_no_unit_can_hold_is_rejected() {
    let home = Home::new();
    let system = |name: &str| home.run(&["install", "--system", "--dry-run", "--run-as", name]);
    system("john.doe").expect(0, "would run  systemctl enable --now openclaw-supervise@john.doe.service");
    system("john doe").expect(2, "the account \"john doe\" cannot be part of a service name");
    home.run_with(&["install", "--system", "--dry-run"], &[("SUDO_USER", "a\\b")]).expect(2, r#""a\\b""#);
}

#[test]
fn a_service_between_two_starts_counts_as_running() {
    let home = Home::new();
    home.openclaws_unit("openclaw-gateway");
    home.show("openclaw-gateway.service", "ActiveState=activating\n");
    home.install(&[]).expect(1, "openclaw gateway uninstall");
    home.show("openclaw-gateway.service", "ActiveState=failed\n");
    home.install(&[]).expect(0, "wrote");
    home.show("openclaw-supervise.service", "ActiveState=activating\n");
    home.uninstall(&[]).expect(1, "openclaw-supervise.service is still running");
    assert!(home.unit().exists());
}

#[test]
fn our_own_system_service_counts_however_it_was_enabled() {
    let home = Home::new();
    let user = User::from_uid(Uid::effective()).unwrap().unwrap().name;
    let unit = format!("openclaw-supervise@{user}.service");
    home.activate(&unit);
    home.install(&[]).expect(1, &format!("'sudo systemctl disable --now {unit}'"));
    assert!(!home.unit().exists());
}

#[test]
fn the_service_starts_the_program_by_the_link_that_the_caller_used() {
    let home = Home::new();
    let version = home.root.join("v1.2.3");
    let (program, link) = (version.join("openclaw-supervise"), home.root.join("bin/ocs"));
    fs::create_dir(&version).unwrap();
    fs::copy(PROGRAM, &program).unwrap();
    symlink(&program, &link).unwrap();
    let install = |program: &Path, name: &str| {
        let mut command = Command::new(program);
        command.arg0(name).args(["install", "--user"]).env_clear().env("HOME", home.root.join("home"));
        command.env("PATH", format!("{}:/usr/bin:/bin", home.root.join("bin").display())).current_dir(&home.root);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = fs::read_to_string(home.unit()).unwrap();
        let start = text.lines().find_map(|line| line.strip_prefix("ExecStart=")).unwrap().to_owned();
        (start, String::from_utf8(output.stdout).unwrap())
    };
    let (by_link, own) = (format!("{} run", link.display()), format!("{} run", program.display()));
    for name in [link.to_str().unwrap(), "ocs", "./bin/ocs"] {
        let (start, said) = install(&link, name);
        assert_eq!(start, by_link, "{name}");
        assert!(!said.contains("belongs to one version;"), "{said}");
    }
    // A path that leads elsewhere is not used.
    for name in [program.to_str().unwrap(), "sh", "/bin/sh", ""] {
        let (start, said) = install(&program, name);
        assert_eq!(start, own, "{name}");
        assert!(said.contains(&format!("{} belongs to one version;", program.display())), "{said}");
    }
}

#[test]
fn nothing_is_installed_into_the_home_of_another_user() {
    needs_root("the home of another user");
    let home = Home::new();
    chown(home.root.join("home"), Some(4321), None).unwrap();
    for verb in ["install", "uninstall"] {
        let run = home.run(&[verb, "--user"]);
        run.expect(1, &format!("the home directory {} does not belong to root", home.root.join("home").display()));
        assert_eq!(run.err.trim().lines().count(), 1, "{}", run.err);
    }
    home.install(&["--dry-run"]).expect(0, "this would fail: the home directory");
    assert!(home.calls().is_empty() && home.tree().is_empty());
}

#[test]
fn a_service_of_openclaw_for_another_port_is_left_alone() {
    let home = Home::new();
    let own = home.openclaws_unit("openclaw-gateway");
    home.activate("openclaw-gateway.service");
    let run = home.install(&["--port", "19001"]);
    run.expect(0, &format!("{} is for port 18789 and is left alone", own.display()));
    let text = fs::read_to_string(home.unit()).unwrap();
    assert!(!text.contains("Conflicts=") && !text.contains("openclaw-gateway"), "{text}");
    home.install(&["--port", "19001"]).expect(0, "unchanged");
    // The service does not inherit a port from this shell.
    for (words, variables) in [
        (&["install", "--user", "--port", "18789"][..], &[][..]),
        (&["install", "--user"], &[("OPENCLAW_GATEWAY_PORT", "19001")]),
    ] {
        home.run_with(words, variables).expect(1, "openclaw gateway uninstall");
    }
}

#[test]
fn a_service_that_another_file_starts_is_not_reported_as_removed() {
    let home = Home::new();
    home.install(&[]).expect(0, "wrote");
    let place = home.unit().display().to_string();
    let shown = |state: &str| format!("ActiveState=inactive\nUnitFileState={state}\nFragmentPath={place}\n");
    home.show("openclaw-supervise.service", &shown("enabled"));
    let elsewhere = [("XDG_CONFIG_HOME", "/nonexistent")];
    let run = home.run_with(&["uninstall", "--user"], &elsewhere);
    run.expect(1, &format!("openclaw-supervise.service is still enabled or running from {place}"));
    home.show("openclaw-supervise.service", &shown("disabled"));
    home.run_with(&["uninstall", "--user"], &elsewhere).expect(0, &format!("kept       {place}: not written by"));
    home.uninstall(&[]).expect(0, "removed");
}
