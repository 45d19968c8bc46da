//! `install` and `uninstall` with a scratch home and a fake systemctl that records its calls. tests/systemd.rs uses the real
//! one.

#![cfg(target_os = "linux")]
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod scope;

use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, Uid, mkfifo};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

const PROGRAM: &str = env!("CARGO_BIN_EXE_openclaw-supervise");

/// Answers queries, and records every other call.
const SYSTEMCTL: &str = r#"root=${0%/bin/*}
for unit; do :; done
case "$*" in
*'show --property=Version') exit 0 ;;
*'show --property=ActiveState,'*)
    if [ -e "$root/shown/$unit" ]; then cat "$root/shown/$unit"
    elif [ -e "$root/active/$unit" ]; then echo ActiveState=active
    else echo ActiveState=inactive; fi
    exit 0 ;;
esac
echo "systemctl $*" >>"$root/calls"
case "$*" in
*'enable --now '*) : >"$root/active/$unit" ;;
*'disable --now '* | *'stop '*) rm -f "$root/active/$unit" ;;
esac"#;

/// A home directory, and a PATH with scripts as programs.
struct Home {
    root: PathBuf,
}

struct Run {
    code: i32,
    out: String,
    err: String,
}

impl Home {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name = format!("ocs-install-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let home = Self { root: std::env::temp_dir().join(name) };
        fs::create_dir_all(home.root.join("bin")).unwrap();
        fs::create_dir_all(home.root.join("home")).unwrap();
        fs::create_dir_all(home.root.join("active")).unwrap();
        fs::create_dir_all(home.root.join("shown")).unwrap();
        home.script("systemctl", SYSTEMCTL);
        for program in ["openclaw", "node"] {
            home.script(program, "exit 1");
        }
        home.script("loginctl", "echo no");
        home
    }

    fn script(&self, name: &str, body: &str) {
        let path = self.root.join("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{body}\n")).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    fn run(&self, line: &[&str]) -> Run {
        self.run_with(line, &[])
    }

    fn run_with(&self, line: &[&str], variables: &[(&str, &str)]) -> Run {
        let mut command = Command::new(PROGRAM);
        command.args(line).env_clear().env("HOME", self.root.join("home")).current_dir(&self.root);
        command.env("PATH", format!("{}:/usr/bin:/bin", self.root.join("bin").display()));
        let output = command.envs(variables.iter().copied()).output().unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        Run { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
    }

    fn install(&self, words: &[&str]) -> Run {
        self.run(&[&["install", "--user"], words].concat())
    }

    fn uninstall(&self, words: &[&str]) -> Run {
        self.run(&[&["uninstall", "--user"], words].concat())
    }

    fn unit(&self) -> PathBuf {
        self.root.join("home/.config/systemd/user/openclaw-supervise.service")
    }

    /// OpenClaw's own unit, neither enabled nor running.
    fn openclaws_unit(&self, name: &str) -> PathBuf {
        let path = self.unit().with_file_name(format!("{name}.service"));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "[Service]\nExecStart=/usr/bin/node openclaw.mjs gateway --port 18789\n").unwrap();
        path
    }

    fn activate(&self, unit: &str) {
        fs::write(self.root.join("active").join(unit), "").unwrap();
    }

    /// Sets the output of `systemctl show` for a unit.
    fn show(&self, unit: &str, text: &str) {
        fs::write(self.root.join("shown").join(unit), text).unwrap();
    }

    fn calls(&self) -> Vec<String> {
        let text = fs::read_to_string(self.root.join("calls")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Every file and folder of the home.
    fn tree(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        fn walk(folder: &Path, into: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                into.insert(path.clone(), fs::read(&path).unwrap_or_default());
                if path.is_dir() {
                    walk(&path, into);
                }
            }
        }
        let mut tree = BTreeMap::new();
        walk(&self.root.join("home"), &mut tree);
        tree
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).unwrap();
    }
}

impl Run {
    #[track_caller]
    fn expect(&self, code: i32, words: &str) {
        let all = format!("{}{}", self.out, self.err);
        assert!(self.code == code && all.contains(words), "{} and not {code} with {words:?}:\n{all}", self.code);
    }
}

#[test]
fn the_unit_is_the_shipped_one_with_our_path_and_that_of_openclaw() {
    let home = Home::new();
    home.install(&["--port", "19001", "--hang-after=90s"]).expect(0, "wrote");
    let text = fs::read_to_string(home.unit()).unwrap();
    assert!(text.contains(&format!("\nExecStart={PROGRAM} run --port 19001 --hang-after 90s\n")), "{text}");
    let path = format!("\nEnvironment=PATH={}:/usr/local/sbin", home.root.join("bin").display());
    assert!(text.contains(&path), "{text}");
    for line in ["Type=notify", "KillMode=mixed", "Delegate=yes", "Conflicts=openclaw-gateway.service"] {
        assert!(text.lines().any(|found| found == line), "{line}");
    }
    assert_eq!(fs::metadata(home.unit()).unwrap().permissions().mode() & 0o777, 0o644);
    let unit = "openclaw-supervise.service";
    assert_eq!(
        home.calls(),
        ["systemctl --user daemon-reload".to_owned(), format!("systemctl --user enable --now {unit}")]
    );
}

#[test]
fn a_dry_run_prints_the_file_and_the_commands_and_changes_nothing() {
    let home = Home::new();
    let before = home.tree();
    let run = home.install(&["--dry-run"]);
    run.expect(0, "would write");
    run.expect(0, "would run  systemctl --user enable --now openclaw-supervise.service");
    run.expect(0, "\nType=notify\n");
    home.uninstall(&["--dry-run"]).expect(0, "would remove");
    assert_eq!((home.tree(), home.calls()), (before, vec![]));
}

#[test]
fn uninstall_leaves_no_trace() {
    let home = Home::new();
    // The state directory belongs to `run`, not to the service.
    fs::create_dir_all(home.root.join("home/.openclaw/supervise")).unwrap();
    let before = home.tree();
    home.install(&[]).expect(0, "wrote");
    assert_ne!(home.tree(), before);
    home.uninstall(&[]).expect(0, "removed");
    assert_eq!(home.tree(), before);
    assert!(home.calls().contains(&"systemctl --user disable --now openclaw-supervise.service".to_owned()));
    home.uninstall(&[]).expect(0, "not found");
}

#[test]
fn a_second_install_changes_nothing_and_another_option_does() {
    let home = Home::new();
    home.install(&[]).expect(0, "wrote");
    home.install(&[]).expect(0, "unchanged");
    home.install(&["--port", "19002"]).expect(0, "wrote");
    assert!(fs::read_to_string(home.unit()).unwrap().contains("--port 19002"));
}

#[test]
fn a_foreign_or_edited_file_is_left_alone_without_force() {
    let home = Home::new();
    let folder = home.unit().parent().unwrap().to_owned();
    fs::create_dir_all(folder).unwrap();
    fs::write(home.unit(), "[Service]\nExecStart=/bin/true\n").unwrap();
    let before = home.tree();
    home.install(&[]).expect(1, "was not written by 'openclaw-supervise install'");
    home.uninstall(&[]).expect(1, "--force");
    assert_eq!((home.tree(), home.calls()), (before, vec![]));
    home.install(&["--force"]).expect(0, "wrote");
    let edited = fs::read_to_string(home.unit()).unwrap().replace("RestartSec=5", "RestartSec=6");
    fs::write(home.unit(), edited).unwrap();
    home.install(&[]).expect(1, "or was edited since");
    home.uninstall(&["--force"]).expect(0, "removed");
}

#[test]
fn a_masked_unit_and_a_dangling_link_count_as_foreign() {
    for target in ["/dev/null", "/nonexistent/unit"] {
        let home = Home::new();
        fs::create_dir_all(home.unit().parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(target, home.unit()).unwrap();
        home.install(&[]).expect(1, "was not written by");
        home.uninstall(&[]).expect(1, "was not written by");
        assert_eq!(fs::read_link(home.unit()).unwrap(), Path::new(target));
    }
}

#[test]
fn a_running_service_of_openclaw_fails_the_installation() {
    let home = Home::new();
    let own = home.openclaws_unit("openclaw-gateway");
    home.activate("openclaw-gateway.service");
    let before = home.tree();
    let run = home.install(&[]);
    run.expect(1, "'openclaw gateway stop' and 'openclaw gateway uninstall'");
    run.expect(1, &format!("openclaw gateway install --wrapper {PROGRAM} --force"));
    home.install(&["--profile", "default"]).expect(1, "openclaw gateway uninstall");
    home.run_with(&["install", "--user"], &[("XDG_CONFIG_HOME", "/nonexistent")])
        .expect(1, "openclaw gateway uninstall");
    assert_eq!((home.tree(), home.calls()), (before, vec![]));
    // Another profile is another gateway.
    home.install(&["--profile", "work"]).expect(0, "openclaw-supervise-work.service");
    let text = fs::read_to_string(home.unit().with_file_name("openclaw-supervise-work.service")).unwrap();
    assert!(text.contains("Conflicts=openclaw-gateway-work.service") && text.contains("run --profile work"), "{text}");
    fs::write(own, "[Service]\nExecStart=/usr/local/bin/openclaw-supervise gateway --port 18789\n").unwrap();
    home.install(&[]).expect(1, "already starts this program");
}

#[test]
fn an_enabled_service_of_openclaw_counts_under_any_of_its_names() {
    for (name, variables) in [
        ("openclaw-gateway", &[][..]),
        ("clawdbot-gateway", &[]),
        ("mine", &[("OPENCLAW_SYSTEMD_UNIT", "mine")]),
        ("mine", &[("OPENCLAW_SYSTEMD_UNIT", "mine.service")]),
    ] {
        let home = Home::new();
        let own = home.openclaws_unit(name);
        let wants = own.with_file_name("default.target.wants");
        fs::create_dir(&wants).unwrap();
        std::os::unix::fs::symlink(&own, wants.join(own.file_name().unwrap())).unwrap();
        home.run_with(&["install", "--user"], variables).expect(1, name);
        fs::remove_dir_all(&wants).unwrap();
        let run = home.run_with(&["install", "--user"], variables);
        run.expect(0, &format!("{name}.service exists, neither enabled nor running"));
        assert!(home.unit().exists());
    }
}

#[test]
fn a_profile_in_the_command_names_the_service_too() {
    let home = Home::new();
    home.install(&["--", "openclaw", "--profile", "work", "gateway", "run"])
        .expect(0, "openclaw-supervise-work.service");
    assert!(!home.unit().exists());
    home.uninstall(&["--profile", "work"]).expect(0, "removed");
}

#[test]
fn relative_paths_are_made_absolute() {
    let home = Home::new();
    home.script("gateway", "exit 1");
    home.install(&["--state-dir", "state", "--", "bin/gateway", "x y"]).expect(0, "wrote");
    let text = fs::read_to_string(home.unit()).unwrap();
    let root = home.root.display();
    let expected = format!("\nExecStart={PROGRAM} run --state-dir {root}/state -- {root}/bin/gateway \"x y\"\n");
    assert!(text.contains(&expected), "{expected}{text}");
}

#[test]
fn without_root_a_system_service_names_the_sudo_command() {
    let home = Home::new();
    // Where an unprivileged user can execute it.
    let program = home.root.join("bin/openclaw-supervise");
    fs::copy(PROGRAM, &program).unwrap();
    let run = |words: &[&str], user: Option<u32>| {
        let mut command = Command::new(&program);
        command.args(words).env_clear().env("HOME", home.root.join("home")).env("PATH", home.root.join("bin"));
        if let Some(user) = user.filter(|_| Uid::effective().is_root()) {
            command.uid(user);
        }
        let output = command.output().unwrap();
        (output.status.code().unwrap(), String::from_utf8(output.stderr).unwrap())
    };
    for verb in ["install", "uninstall"] {
        let words = [verb, "--system", "--run-as", "alice"];
        let (code, said) = run(&words, Some(65534));
        let expected = format!("run 'sudo {} {verb} --system ...'", program.display());
        assert!(code == 1 && said.contains(&expected) && said.contains("nothing was changed"), "{code}: {said}");
    }
}

#[test]
fn settings_that_run_would_reject_are_not_installed() {
    let home = Home::new();
    for (words, code, why) in [
        (&["--port", "0x"][..], 2, "--port"),
        (&["--profile", "a/b"], 2, "--profile"),
        (&["--", "no-such-gateway"], 78, "no-such-gateway"),
        (&["--system", "--run-as", "alice"], 2, "cannot be used with"),
        (&["--run-as", "alice"], 2, "cannot be used with"),
        (&["--", "openclaw", "gateway", "a\nExecStart=b"], 1, "cannot be written to a service file"),
    ] {
        home.install(words).expect(code, why);
        assert!(!home.unit().exists() && home.calls().is_empty(), "{words:?}");
    }
}

#[test]
fn an_unreachable_manager_is_quoted_and_nothing_is_changed() {
    let home = Home::new();
    let before = home.tree();
    home.script("systemctl", "echo 'Failed to connect to bus: No medium found' >&2; exit 1");
    let run = home.install(&[]);
    run.expect(1, "'systemctl --user show --property=Version' failed: Failed to connect to bus: No medium found");
    run.expect(1, "XDG_RUNTIME_DIR is not set");
    let run = home.run_with(&["install", "--user"], &[("XDG_RUNTIME_DIR", "/run/user/1")]);
    run.expect(1, "loginctl enable-linger");
    assert!(!run.err.contains("XDG_RUNTIME_DIR"), "{}", run.err);
    assert_eq!(home.tree(), before);
    home.script("systemctl", SYSTEMCTL);
    home.install(&[]).expect(0, "wrote");
    let installed = home.tree();
    home.script("systemctl", "echo 'Failed to connect to bus: No medium found' >&2; exit 1");
    home.uninstall(&[]).expect(1, "nothing was changed");
    assert_eq!(home.tree(), installed);
}

#[test]
fn without_a_manager_nothing_is_installed_but_leftovers_can_be_removed() {
    let home = Home::new();
    let before = home.tree();
    home.install(&[]).expect(0, "wrote");
    let wants = home.unit().with_file_name("default.target.wants");
    fs::create_dir(&wants).unwrap();
    std::os::unix::fs::symlink(home.unit(), wants.join("openclaw-supervise.service")).unwrap();
    let alone = [("PATH", home.root.join("none").display().to_string())];
    let alone = [(alone[0].0, alone[0].1.as_str())];
    let words = ["install", "--user", "--", "/bin/true"];
    home.run_with(&words, &alone).expect(1, "systemctl not found on PATH");
    home.run_with(&["uninstall", "--user"], &alone).expect(0, "removed");
    assert_eq!(home.tree(), before);
}

#[test]
fn a_failed_manager_call_is_quoted_with_what_was_changed_before() {
    let home = Home::new();
    home.script(
        "systemctl",
        &SYSTEMCTL.replace(
            "echo \"systemctl",
            "case \"$*\" in *enable*) echo 'no start' >&2; exit 1;; esac; echo \"systemctl",
        ),
    );
    let run = home.install(&[]);
    run.expect(
        1,
        "'systemctl --user enable --now openclaw-supervise.service' failed: no start; the files were written",
    );
    assert!(home.unit().exists());
    home.script("systemctl", SYSTEMCTL);
    home.install(&[]).expect(0, "unchanged");
    home.uninstall(&[]).expect(0, "removed");
}

#[test]
fn a_signal_ends_an_installation_that_waits_for_the_manager() {
    let home = Home::new();
    let fifo = home.root.join("waits");
    mkfifo(&fifo, Mode::S_IRWXU).unwrap();
    home.script(
        "systemctl",
        "case \"$*\" in *enable*) echo $$ >\"${0%/bin/*}/waits\"; exec sleep 60 ;; *ActiveState*) exit 3 ;; esac",
    );
    let mut command = Command::new(PROGRAM);
    command.args(["install", "--user"]).env_clear().env("HOME", home.root.join("home")).stdout(Stdio::null());
    command.env("PATH", format!("{}:/usr/bin:/bin", home.root.join("bin").display()));
    let mut child = command.spawn().unwrap();
    let systemctl = Pid::from_raw(fs::read_to_string(fifo).unwrap().trim().parse().unwrap());
    let ours = Pid::from_raw(child.id().try_into().unwrap());
    // It waits for systemctl, so it must not block the signal.
    kill(ours, Signal::SIGTERM).unwrap();
    let blocked = fs::read_to_string(format!("/proc/{systemctl}/status")).unwrap();
    let blocked = blocked.lines().find_map(|line| line.strip_prefix("SigBlk:")).unwrap().trim().to_owned();
    kill(systemctl, Signal::SIGKILL).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(Signal::SIGTERM as i32));
    assert_eq!(u64::from_str_radix(&blocked, 16).unwrap(), 0, "systemctl inherits no blocked signal");
}

#[test]
fn a_service_that_cannot_be_stopped_keeps_its_files() {
    let home = Home::new();
    home.install(&[]).expect(0, "wrote");
    home.script("systemctl", &SYSTEMCTL.replace("rm -f", "exit 1 #"));
    home.uninstall(&[]).expect(1, "openclaw-supervise.service is still running");
    assert!(home.unit().exists());
}

#[test]
fn a_service_with_old_settings_is_mentioned_and_not_restarted() {
    let home = Home::new();
    let first = home.install(&[]);
    assert!(!first.out.contains(" restart "), "{}", first.out);
    let run = home.install(&["--port", "19002"]);
    run.expect(0, "systemctl --user restart openclaw-supervise.service");
    assert!(!home.calls().iter().any(|call| call.contains(" restart ")), "{:?}", home.calls());
}

#[test]
fn drop_ins_and_the_store_are_kept_and_named() {
    let home = Home::new();
    let folder = home.unit().with_file_name("openclaw-supervise.service.d");
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("mine.conf"), "[Service]\nNice=1\n").unwrap();
    fs::create_dir_all(home.root.join("home/.openclaw/supervise")).unwrap();
    let before = home.tree();
    home.install(&[]).expect(0, "wrote");
    let run = home.uninstall(&[]);
    run.expect(0, &format!("kept       {}/mine.conf", folder.display()));
    run.expect(0, &format!("kept       {}/home/.openclaw/supervise", home.root.display()));
    assert_eq!(home.tree(), before);
}

#[test]
fn a_versioned_node_a_shell_variable_and_a_user_without_linger_are_mentioned() {
    let home = Home::new();
    let folder = home.root.join("home/.nvm/versions/node/v24/bin");
    fs::create_dir_all(&folder).unwrap();
    fs::rename(home.root.join("bin/node"), folder.join("node")).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["install", "--user"]).env_clear().env("HOME", home.root.join("home"));
    command.env("OPENCLAW_SUPERVISE_HANG_AFTER", "90s");
    command.env("PATH", format!("{}:{}:/usr/bin:/bin", folder.display(), home.root.join("bin").display()));
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    for words in
        ["which belongs to one version of Node", "does not inherit OPENCLAW_SUPERVISE_HANG_AFTER", "enable-linger"]
    {
        assert!(said.contains(words), "{words}\n{said}");
    }
}

#[test]
fn a_system_service_is_a_template_and_a_drop_in() {
    let home = Home::new();
    let run = home.run(&["install", "--system", "--run-as", "alice", "--dry-run", "--port", "19003"]);
    run.expect(0, "would write /etc/systemd/system/openclaw-supervise@.service:");
    run.expect(0, "would write /etc/systemd/system/openclaw-supervise@alice.service.d/install.conf:");
    run.expect(0, &format!("\n[Service]\nExecStart=\nExecStart={PROGRAM} run --port 19003\n"));
    run.expect(0, "\nUser=%i\n");
    run.expect(0, "would run  systemctl enable --now openclaw-supervise@alice.service");
    assert!(!Path::new("/etc/systemd/system/openclaw-supervise@.service").exists());
    let refused = home.run(&["install", "--system", "--run-as", "no-such-account-here"]);
    let why = if Uid::effective().is_root() { "this machine has no user" } else { "system services need root" };
    refused.expect(1, why);
    refused.expect(1, "nothing was changed");
    assert!(home.calls().is_empty() && !Path::new("/etc/systemd/system/openclaw-supervise@.service").exists());
}

#[test]
fn files_of_another_user_are_neither_written_to_nor_waited_for() {
    assert!(Uid::effective().is_root(), "needs root: another user; run `sudo -E cargo test`");
    let home = Home::new();
    let theirs = home.root.join("theirs");
    fs::create_dir(&theirs).unwrap();
    std::os::unix::fs::chown(&theirs, Some(65_533), None).unwrap();
    let config = theirs.join("new/.config").display().to_string();
    for verb in ["install", "uninstall"] {
        let run = home.run_with(&[verb, "--user"], &[("XDG_CONFIG_HOME", &config)]);
        assert!(run.code == 1 && run.err.contains("XDG_CONFIG_HOME"), "{verb}: {}", run.err);
    }
    assert_eq!((fs::read_dir(&theirs).unwrap().count(), home.calls()), (0, Vec::new()));
    fs::create_dir_all(home.unit().parent().unwrap()).unwrap();
    mkfifo(&home.unit(), Mode::S_IRWXU).unwrap();
    let run = home.install(&[]);
    assert!(run.code == 1 && run.err.contains("was not written by"), "{}", run.err);
}
