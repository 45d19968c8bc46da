//! `install` and `uninstall` with a scratch home and managers that write down what they are asked. tests/systemd.rs has the
//! real one.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

const PROGRAM: &str = env!("CARGO_BIN_EXE_openclaw-supervise");

/// A home, and a PATH with scripts in place of programs.
struct Home {
    root: PathBuf,
}

/// What a run came to.
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
        fs::create_dir_all(home.root.join("home/.config")).unwrap();
        for program in ["systemctl", "openclaw", "node"] {
            home.script(program, "echo \"$(basename \"$0\") $*\" >>\"${0%/bin/*}/calls\"");
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
        let mut command = Command::new(PROGRAM);
        command.args(line).env_clear().env("HOME", self.root.join("home"));
        command.env("PATH", format!("{}:/usr/bin:/bin", self.root.join("bin").display()));
        let output = command.output().unwrap();
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
fn the_unit_is_the_shipped_one_with_our_path_and_openclaws() {
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
fn a_dry_run_shows_the_file_and_the_calls_and_does_nothing() {
    let home = Home::new();
    let before = home.tree();
    let run = home.install(&["--dry-run"]);
    run.expect(0, "would write");
    run.expect(0, "would call systemctl --user enable --now openclaw-supervise.service");
    run.expect(0, "\nType=notify\n");
    home.uninstall(&["--dry-run"]).expect(0, "would remove");
    assert_eq!((home.tree(), home.calls()), (before, vec![]));
}

#[test]
fn uninstall_leaves_no_trace() {
    let home = Home::new();
    // The state folder is looked at by every `run`, and is not the service's.
    fs::create_dir_all(home.root.join("home/.openclaw/supervise")).unwrap();
    let before = home.tree();
    home.install(&[]).expect(0, "wrote");
    assert_ne!(home.tree(), before);
    home.uninstall(&[]).expect(0, "removed");
    assert_eq!(home.tree(), before);
    assert!(home.calls().contains(&"systemctl --user disable --now openclaw-supervise.service".to_owned()));
    home.uninstall(&[]).expect(0, "not there");
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
fn a_file_of_somebody_else_and_one_that_was_edited_are_left_alone_without_force() {
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
fn openclaws_own_service_is_not_fought() {
    let home = Home::new();
    let own = home.unit().with_file_name("openclaw-gateway.service");
    fs::create_dir_all(own.parent().unwrap()).unwrap();
    fs::write(&own, "[Service]\n").unwrap();
    let before = home.tree();
    let run = home.install(&[]);
    run.expect(1, "openclaw gateway uninstall");
    run.expect(1, &format!("openclaw gateway install --wrapper {PROGRAM} --force"));
    assert_eq!((home.tree(), home.calls()), (before, vec![]));
    // That of another profile is another gateway.
    home.install(&["--profile", "work"]).expect(0, "openclaw-supervise-work.service");
    let text = fs::read_to_string(home.unit().with_file_name("openclaw-supervise-work.service")).unwrap();
    assert!(text.contains("Conflicts=openclaw-gateway-work.service") && text.contains("run --profile work"), "{text}");
}

#[test]
fn what_run_would_not_take_is_not_installed() {
    let home = Home::new();
    for (words, code, why) in [
        (&["--port", "0x"][..], 2, "--port"),
        (&["--profile", "a/b"], 2, "--profile"),
        (&["--", "no-such-gateway"], 78, "no-such-gateway"),
        (&["--system", "--run-as", "alice"], 2, "exclude each other"),
        (&["--run-as", "alice"], 2, "give --system"),
        (&["--", "openclaw", "gateway", "a\nExecStart=b"], 1, "cannot stand in a service file"),
    ] {
        home.install(words).expect(code, why);
        assert!(!home.unit().exists() && home.calls().is_empty(), "{words:?}");
    }
}

#[test]
fn without_a_manager_nothing_is_written_and_one_that_refuses_is_quoted() {
    let home = Home::new();
    home.script("systemctl", "echo 'Failed to connect to bus: No medium found' >&2; exit 1");
    home.install(&[]).expect(1, "'systemctl --user daemon-reload' failed: Failed to connect to bus: No medium found");
    home.uninstall(&[]).expect(1, "No medium found");
    assert!(!home.unit().exists(), "it is removed all the same");
    fs::remove_file(home.root.join("bin/systemctl")).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["install", "--user"]).env_clear().env("HOME", home.root.join("home"));
    let output = command.env("PATH", home.root.join("bin")).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("there is no systemctl on PATH") && output.status.code() == Some(1), "{said}");
    assert!(!home.unit().exists());
}

#[test]
fn a_version_of_node_a_variable_of_the_shell_and_a_user_who_does_not_linger_are_told() {
    let home = Home::new();
    let folder = home.root.join("home/.nvm/versions/node/v24/bin");
    fs::create_dir_all(&folder).unwrap();
    fs::rename(home.root.join("bin/node"), folder.join("node")).unwrap();
    let mut command = Command::new(PROGRAM);
    command.args(["install", "--user"]).env_clear().env("HOME", home.root.join("home"));
    command.env("OPENCLAW_SUPERVISE_HANG_AFTER", "90s");
    command.env("PATH", format!("{}:{}:/usr/bin:/bin", folder.display(), home.root.join("bin").display()));
    let said = String::from_utf8(command.output().unwrap().stdout).unwrap();
    for words in ["which is of one version of Node", "OPENCLAW_SUPERVISE_HANG_AFTER of this shell", "enable-linger"] {
        assert!(said.contains(words), "{words}\n{said}");
    }
}

#[test]
fn a_service_of_the_machine_is_shown_as_a_template_and_a_drop_in() {
    let home = Home::new();
    let run = home.run(&["install", "--system", "--run-as", "alice", "--dry-run", "--port", "19003"]);
    run.expect(0, "would write /etc/systemd/system/openclaw-supervise@.service:");
    run.expect(0, "would write /etc/systemd/system/openclaw-supervise@alice.service.d/install.conf:");
    run.expect(0, &format!("\n[Service]\nExecStart=\nExecStart={PROGRAM} run --port 19003\n"));
    run.expect(0, "\nUser=%i\n");
    run.expect(0, "would call systemctl enable --now openclaw-supervise@alice.service");
    assert!(!Path::new("/etc/systemd/system/openclaw-supervise@.service").exists());
}
