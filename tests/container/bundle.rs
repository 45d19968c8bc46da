//! An OCI bundle and its container under runc.

use crate::support::package;
use crate::support::process::Process;
use crate::support::{Scene, let_pass, wait_for};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

/// Each container has its own loopback.
pub(crate) const PORT: u16 = 18_789;

const PATIENCE: Duration = Duration::from_mins(1);

/// The uid and gid in the container.
const USER: u32 = 1000;

/// The flag that makes a program static. What it is linked from is the same.
const STATIC: [&str; 4] = ["-C", "target-feature=+crt-static", "-C", "strip=debuginfo"];

/// The static program and the static stand-in, linked once from the libraries that `cargo test` has compiled: to compile
/// them again takes a minute.
fn programs() -> &'static [PathBuf; 2] {
    static BUILT: OnceLock<[PathBuf; 2]> = OnceLock::new();
    BUILT.get_or_init(|| {
        let test = std::env::current_exe().expect("a test has a path");
        let compiled = test.ancestors().nth(3).expect("tests lie in <build folder>/<profile>/deps");
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("static");
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["rustc", "--quiet", "--locked", "--message-format=json", "--example", "fake-gateway"]);
        cargo.arg("--target-dir").arg(&folder).env("CARGO_BUILD_BUILD_DIR", compiled).arg("--").args(STATIC);
        // What cargo tells a test of its package: with it build scripts, which run without, count as out of date.
        for (name, _) in std::env::vars_os() {
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|ours| name.to_string_lossy().starts_with(ours)) {
                cargo.env_remove(name);
            }
        }
        let units = run(cargo.current_dir(env!("CARGO_MANIFEST_DIR")));
        let program = folder.join("openclaw-supervise");
        run(link(&units).arg("-o").arg(&program));
        [program, folder.join("debug/examples/fake-gateway")]
    })
}

/// The command that links the program from the libraries among these units.
fn link(units: &str) -> Command {
    let units: Vec<Value> = units.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    rustc.args(["--edition", "2024", "--crate-name", "openclaw_supervise", "--cap-lints", "allow"]).args(STATIC);
    // Those that src/main.rs names; they know their own.
    for name in ["clap", "openclaw_supervise", "tokio", "tracing"] {
        let unit = units.iter().find(|unit| unit["target"]["name"] == name).expect("the stand-in needs it");
        let mut files = texts(&unit["filenames"]).map(Path::new);
        let library = files.find(|file| file.extension().is_some_and(|end| end == "rlib")).expect("it is compiled");
        rustc.arg("--extern").arg(format!("{name}={}", library.display()));
        let folder = library.parent().expect("it lies in a folder");
        rustc.arg("-L").arg(format!("dependency={}", folder.display()));
    }
    for path in units.iter().flat_map(|unit| texts(&unit["linked_paths"])) {
        rustc.args(["-L", path]);
    }
    rustc.arg("src/main.rs").env("CARGO_PKG_VERSION", env!("CARGO_PKG_VERSION"));
    rustc.current_dir(env!("CARGO_MANIFEST_DIR"));
    rustc
}

fn texts(list: &Value) -> impl Iterator<Item = &str> {
    list.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What a command prints that must succeed.
fn run(command: &mut Command) -> String {
    let output = command.output().expect("cargo and rustc can be started");
    assert!(output.status.success(), "{command:?}\n{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("it prints text")
}

/// A root folder with the two programs and the mount points, and nothing else.
pub(crate) fn root(scene: &Scene, name: &str) -> PathBuf {
    let root = scene.root().join(name).join("rootfs");
    for folder in ["proc", "dev", "sys", "tmp", "state", "usr/bin"] {
        fs::create_dir_all(root.join(folder)).expect("a scratch folder can be made");
    }
    let [program, gateway] = programs();
    for (from, to) in [(program, "openclaw-supervise"), (gateway, "openclaw")] {
        fs::copy(from, root.join("usr/bin").join(to)).expect("it was built");
    }
    // The test's own folder is mounted at the same path.
    let inside = root.join(scene.root().strip_prefix("/").expect("it is absolute"));
    fs::create_dir_all(inside).expect("a scratch folder can be made");
    root
}

pub(crate) struct Container<'a> {
    scene: &'a Scene,
    name: String,
    folder: PathBuf,
    runc: Child,
}

impl<'a> Container<'a> {
    /// Starts a container with the script of this scene.
    pub(crate) fn run(scene: &'a Scene, name: &str, settings: &[&str]) -> Self {
        package::need("runc", "runc");
        let folder = scene.root().join(name);
        root(scene, name);
        for place in [scene.root().to_owned(), scene.state_dir()] {
            chown(&place, Some(USER), Some(USER)).expect("root may do that");
            fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("root may do that");
        }
        fs::write(folder.join("config.json"), spec(scene, settings).to_string()).expect("a file can be written");
        let log = File::create(folder.join("log")).expect("a file can be written");
        let name = scene.root().join(name).display().to_string().trim_start_matches('/').replace('/', "-");
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(folder.join("runc")).args(["run", "--bundle"]).arg(&folder).arg(&name);
        runc.stdin(Stdio::null()).stdout(log.try_clone().expect("a descriptor is left")).stderr(log);
        let runc = runc.spawn().expect("runc can be started");
        Self { scene, name, folder, runc }
    }

    fn runc(&self, words: &[&str]) -> Command {
        let mut runc = Command::new("runc");
        runc.arg("--root").arg(self.folder.join("runc")).args(words).stdin(Stdio::null());
        runc
    }

    /// The exit code of `probe` in the container, as a health check runs it.
    pub(crate) fn probe(&self, question: &str) -> i32 {
        let words = ["exec", &self.name, "/usr/bin/openclaw-supervise", "probe", question];
        let output = self.runc(&words).output().expect("runc can be started");
        output.status.code().unwrap_or(-1)
    }

    pub(crate) fn signal(&self, name: &str) {
        let sent = self.runc(&["kill", &self.name, name]).output().expect("runc can be started");
        assert!(sent.status.success(), "{sent:?}\n{}", self.story());
    }

    /// The exit code of the container.
    pub(crate) fn wait_exit(&mut self) -> i32 {
        for _ in 0..PATIENCE.as_millis() / 20 {
            if let Some(status) = self.runc.try_wait().expect("it is our child") {
                return status.code().unwrap_or(-1);
            }
            let_pass(Duration::from_millis(20));
        }
        panic!("it does not end\n{}", self.story());
    }

    /// Its PID 1, in the pid namespace of the host.
    pub(crate) fn first(&self) -> Process {
        let look = || {
            let state = self.runc(&["state", &self.name]).output().ok()?;
            let state: Value = serde_json::from_slice(&state.stdout).ok()?;
            Process::find(i32::try_from(state["pid"].as_i64()?).ok()?)
        };
        wait_for("process 1", PATIENCE, || self.story(), look)
    }

    pub(crate) fn read_of_first(&self, file: &str) -> String {
        fs::read_to_string(format!("/proc/{}/{file}", self.first().pid)).expect("it lives")
    }

    /// Its only gateway.
    pub(crate) fn gateway(&self) -> Process {
        let gateways: Vec<_> = self.first().tree().into_iter().filter(is_gateway).collect();
        assert_eq!(gateways.len(), 1, "{gateways:?}\n{}", self.story());
        gateways[0]
    }

    pub(crate) fn events(&self) -> String {
        fs::read_to_string(self.folder.join("log")).unwrap_or_default()
    }

    /// The log line of the first event of that name.
    pub(crate) fn told(&self, event: &str) -> String {
        let name = format!("\"{event}\"");
        self.events().lines().find(|line| line.contains(&name)).unwrap_or_default().to_owned()
    }

    pub(crate) fn story(&self) -> String {
        format!("--- container {}\n{}\n{:?}", self.name, self.events(), self.scene.processes())
    }
}

fn is_gateway(process: &Process) -> bool {
    let command = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
    command.starts_with(b"/usr/bin/openclaw\0gateway\0run\0")
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        self.runc(&["delete", "--force", &self.name]).output().ok();
        self.runc.wait().ok();
    }
}

/// The configuration of `docker run --read-only --cap-drop ALL --security-opt no-new-privileges --user 1000`.
fn spec(scene: &Scene, settings: &[&str]) -> Value {
    let own = scene.command("true");
    let own = own.get_envs().filter_map(|(name, value)| Some(format!("{}={}", name.to_str()?, value?.to_str()?)));
    let mut env: Vec<String> = own.filter(|variable| !variable.starts_with("PATH=")).collect();
    env.extend(["PATH=/usr/bin".to_owned(), format!("OPENCLAW_GATEWAY_PORT={PORT}")]);
    let quick = ["LOG_FORMAT=json", "PROBE_INTERVAL=100ms", "BACKOFF_MAX=200ms", "BOOT_LIMIT=0"];
    env.extend(quick.iter().chain(settings).map(|setting| format!("OPENCLAW_SUPERVISE_{setting}")));
    let shared = scene.root();
    let namespaces: Vec<_> = ["pid", "network", "ipc", "uts", "mount"].map(|kind| json!({ "type": kind })).into();
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "user": { "uid": USER, "gid": USER },
            "args": ["/usr/bin/openclaw-supervise", "run"],
            "env": env,
            "cwd": "/",
            "noNewPrivileges": true,
        },
        "root": { "path": "rootfs", "readonly": true },
        "mounts": [
            { "destination": "/proc", "type": "proc", "source": "proc" },
            { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"] },
            { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "nodev", "mode=1777"] },
            { "destination": shared, "type": "bind", "source": shared, "options": ["rbind", "rw"] },
        ],
        "linux": { "namespaces": namespaces },
    })
}
