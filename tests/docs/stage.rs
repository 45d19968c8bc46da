//! Where a block is run: a scratch home, the built program, and stand-ins for what is outside.

use crate::pages::{Block, root, sources};
use crate::support::supervisor::{PROGRAM, Supervisor};
use crate::support::{Scene, wait_for};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// How long a block may take.
const PATIENCE: Duration = Duration::from_secs(90);

/// The port that the docs name in examples.
const EXAMPLE_PORT: &str = "18799";

/// `doctor` exits with 1 where it finds something, as it does in a scratch home: that is no mistake of the docs. For root
/// `install` means the machine; here it means the scratch home, and a service of the machine is a dry run.
const OURS: &str = r#"case " $* " in
" doctor "*) "$program" "$@" || [ $? = 1 ]; exit ;;
" install "*--system* | " uninstall "*--system*) set -- "$@" --dry-run ;;
" install "* | " uninstall "*) verb=$1; shift; set -- "$verb" --user "$@" ;;
esac
exec "$program" "$@""#;

/// Its gateway is the stand-in; other words of it are recorded.
const OPENCLAW: &str = r#"case "${1-} ${2-}" in
"gateway run" | "gateway --"* | "gateway restart-handoff") exec "$root/bin/openclaw" "$@" ;;
esac
record openclaw "$@""#;

/// It changes nothing of the machine: an installed file has to exist, and what is not known is not run.
const SUDO: &str = r#"record sudo "$@"
[ "$1" != -E ] || shift
case "$1" in
install) [ -f "$4" ] && [ "$5" = /usr/local/bin/ ] ;;
cargo | openclaw-supervise) exec "$@" ;;
*) exit 126 ;;
esac"#;

/// It answers `install`, which asks what there is.
const SYSTEMCTL: &str = r#"case "$*" in
*'show --property=Version') ;;
*show*) echo ActiveState=inactive ;;
*) record systemctl "$@" ;;
esac"#;

const JQ: &str = r#"record jq "$@"
cat >/dev/null"#;

/// Programs that only record their words.
const RECORDED: [&str; 5] = ["cargo", "docker", "kubectl", "loginctl", "launchctl"];

struct Stage {
    scene: Scene,
}

impl Stage {
    fn new() -> Self {
        let stage = Self { scene: Scene::new("") };
        stage.scene.openclaw();
        for (name, body) in
            [("openclaw-supervise", OURS), ("openclaw", OPENCLAW), ("sudo", SUDO), ("systemctl", SYSTEMCTL), ("jq", JQ)]
        {
            stage.script(&stage.shims().join(name), body);
        }
        for name in RECORDED {
            stage.script(&stage.shims().join(name), &format!("record {name} \"$@\""));
        }
        let checkout = stage.checkout();
        fs::create_dir_all(checkout.join("target/release")).unwrap();
        fs::create_dir_all(checkout.join("contrib/container")).unwrap();
        symlink(PROGRAM, checkout.join("target/release/openclaw-supervise")).unwrap();
        fs::create_dir_all(checkout.join(".ci")).unwrap();
        for entry in fs::read_dir(root().join(".ci")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            stage.script(&checkout.join(".ci").join(&name), &format!("record .ci/{name} \"$@\""));
        }
        stage
    }

    fn shims(&self) -> std::path::PathBuf {
        self.scene.root().join("shims")
    }

    fn checkout(&self) -> std::path::PathBuf {
        self.scene.root().join("checkout")
    }

    fn script(&self, path: &Path, body: &str) {
        let root = self.scene.root().display();
        let head = format!(
            "#!/bin/sh\nroot='{root}'\nprogram='{PROGRAM}'\nrecord() {{ (IFS='\t'; echo \"$*\") >>\"$root/calls\"; }}\n"
        );
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, head + body + "\n").unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// A command in this home, with nothing of the test's own environment.
    fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = self.scene.command(program);
        command.env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.shims().display()));
        command.env("OPENCLAW_GATEWAY_PORT", self.scene.port().to_string()).env("TMPDIR", self.scene.root());
        command.current_dir(self.checkout());
        command
    }

    fn start(&self, block: &Block) -> Child {
        let text = block.text.replace(EXAMPLE_PORT, &self.scene.port().to_string());
        let log = |name: &str| Stdio::from(fs::File::create(self.scene.root().join(name)).unwrap());
        let mut shell = self.command("/bin/sh");
        shell.args(["-eu", "-c", &text]).stdout(log("out")).stderr(log("err")).process_group(0);
        shell.spawn().unwrap()
    }

    fn story(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.scene.root().join(name)).unwrap_or_default();
        format!("stdout:\n{}stderr:\n{}calls:\n{}", read("out"), read("err"), read("calls"))
    }

    fn wait(&self, shell: &mut Child) -> bool {
        wait_for("the end of a block", PATIENCE, || self.story(), || shell.try_wait().unwrap()).success()
    }
}

/// Runs it; what went wrong, with what it said.
pub(crate) fn run(block: &Block) -> Result<(), String> {
    let stage = Stage::new();
    let beside = (block.kind == "sh running").then(|| {
        let mut supervisor = Supervisor::spawn(stage.command(PROGRAM));
        supervisor.wait_started();
        supervisor
    });
    let mut shell = stage.start(block);
    if block.kind == "sh foreground" {
        let told = || fs::read_to_string(stage.scene.root().join("err")).unwrap_or_default();
        let started = || told().contains("\"gateway.started\"").then_some(()).or(shell.try_wait().unwrap().map(drop));
        wait_for("a gateway of a foreground block", PATIENCE, || stage.story(), started);
        // As Ctrl-C does; a shell that was interrupted says so by its own end.
        killpg(Pid::from_raw(shell.id().cast_signed()), Signal::SIGINT).map_err(|_| stage.story())?;
        stage.wait(&mut shell);
        let ended = || told().contains("\"supervisor.stopped\"").then_some(());
        wait_for("the supervisor's last line", PATIENCE, || stage.story(), ended);
        if !told().contains("\"exit_code\":0") {
            return Err(stage.story());
        }
    } else if !stage.wait(&mut shell) {
        return Err(stage.story());
    }
    drop(beside);
    let calls = fs::read_to_string(stage.scene.root().join("calls")).unwrap_or_default();
    calls.lines().try_for_each(|call| check(&call.split('\t').collect::<Vec<_>>()))
}

/// Whether what was recorded could be done.
fn check(words: &[&str]) -> Result<(), String> {
    let missing = |what: &str| Err(format!("there is no {what}: {}", words.join(" ")));
    let after = |option: &str| words.iter().position(|word| *word == option).and_then(|at| words.get(at + 1)).copied();
    for word in words.iter().filter(|word| word.starts_with("contrib/") && **word != "contrib/container/.env") {
        if !root().join(word).exists() {
            return missing(word);
        }
    }
    if words[0] != "cargo" {
        return Ok(());
    }
    let verb = words.get(1).copied().unwrap_or_default();
    if !["bench", "build", "clippy", "deb", "deny", "fmt", "fuzz", "install", "mutants", "test"].contains(&verb) {
        return missing(&format!("cargo {verb}"));
    }
    if let Some(bench) = after("--bench")
        && !root().join(format!("benches/{bench}")).exists()
    {
        return missing(bench);
    }
    if verb == "test"
        && let Some(test) = after("--test")
    {
        // Those of the core lie in a folder of their own.
        let files = ["tests/{}.rs", "tests/{}/main.rs", "tests/core/{}.rs"].map(|file| file.replace("{}", test));
        let Some(text) = files.iter().find_map(|file| fs::read_to_string(root().join(file)).ok()) else {
            return missing(test);
        };
        let all = sources(&format!("tests/{test}")).join("\n") + &text;
        let at = words.iter().position(|word| *word == test).unwrap();
        if let Some(filter) = words.get(at + 1).filter(|word| !word.starts_with('-'))
            && !all.lines().any(|line| (line.contains("fn ") || line.starts_with("mod ")) && line.contains(filter))
        {
            return missing(filter);
        }
    }
    if verb == "test"
        && let Some(path) = after("--lib")
        && !root().join(format!("src/{}.rs", path.replace("::", "/"))).exists()
    {
        return missing(path);
    }
    Ok(())
}
