//! What the end-to-end tests share: a scratch folder with a port, a supervisor in it, the stand-in gateway's diary.
//!
//! A [`Scene`] is one test's world. Whatever was started in it carries the folder's name in its environment or among its
//! arguments, and ends with it: processes are found by that mark, never by their name.

#![expect(clippy::disallowed_methods, reason = "tests wait by the clock, with a bound")]
#![expect(clippy::expect_used, clippy::unwrap_used, reason = "a test that cannot go on says so by a panic")]

pub(crate) mod bystander;
pub(crate) mod diary;
#[cfg(target_os = "linux")]
mod folder;
pub(crate) mod groups;
pub(crate) mod http;
pub(crate) mod jail;
pub(crate) mod ledger;
#[cfg(target_os = "linux")]
pub(crate) mod mute;
pub(crate) mod openclaw;
pub(crate) mod package;
pub(crate) mod port;
pub(crate) mod process;
pub(crate) mod real;
pub(crate) mod root;
#[cfg(target_os = "linux")]
pub(crate) mod shared;
pub(crate) mod supervisor;
pub(crate) mod webhook;

use diary::Diary;
use port::Port;
use process::Process;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};
use supervisor::Launch;

/// How long a test waits for what must happen. Generous: a loaded machine is not a defect.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks.
const TICK: Duration = Duration::from_millis(5);

/// Waits until `look` brings something. The panic says what was waited for, and `story` tells what there was instead.
pub(crate) fn wait_for<T>(
    what: &str,
    bound: Duration,
    story: impl Fn() -> String,
    mut look: impl FnMut() -> Option<T>,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < bound, "waited {bound:?} in vain for {what}\n{}", story());
        std::thread::sleep(TICK);
    }
}

/// Lets time go by where that is what happens, as while a machine sleeps; never in place of a wait for something.
pub(crate) fn let_pass(time: Duration) {
    std::thread::sleep(time);
}

/// One test's world.
pub(crate) struct Scene {
    root: PathBuf,
    port: Port,
    script: String,
}

impl Scene {
    /// A new folder and a free port; the stand-in gateway will follow `script`.
    pub(crate) fn new(script: &str) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        // Short: the path of a Unix socket has room for 107 bytes.
        let name = format!("ocs-{}-{}", std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        let root = std::env::temp_dir().join(name);
        fs::create_dir_all(root.join("state")).expect("a scratch folder can be made");
        Self { root, port: Port::reserve(), script: script.to_owned() }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.root.join("state")
    }

    pub(crate) fn store_dir(&self) -> PathBuf {
        self.state_dir().join("supervise")
    }

    pub(crate) fn port(&self) -> u16 {
        self.port.number()
    }

    /// `ws://127.0.0.1:PORT`
    pub(crate) fn url(&self) -> String {
        format!("ws://127.0.0.1:{}", self.port())
    }

    /// What the stand-in gateways of this scene have written down.
    pub(crate) fn diary(&self) -> Diary {
        Diary::new(self.root.clone())
    }

    /// A command in this scene's own, clean environment.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command.env_clear();
        command.env("PATH", "/usr/local/bin:/usr/bin:/bin").env("HOME", &self.root);
        command.env("OPENCLAW_STATE_DIR", self.state_dir());
        command.env("FAKE_GATEWAY_DIR", &self.root).env("FAKE_GATEWAY_SCRIPT", &self.script);
        command.current_dir(&self.root).stdin(Stdio::null());
        command
    }

    /// The words that start the stand-in gateway on this scene's port.
    pub(crate) fn gateway_words(&self) -> Vec<String> {
        let program = fake_gateway().display().to_string();
        let port = self.port().to_string();
        [&program, "gateway", "run", "--port", &port].map(str::to_owned).to_vec()
    }

    /// A program named `openclaw` in this scene, whose gateway is the stand-in.
    pub(crate) fn openclaw(&self) -> openclaw::Openclaw {
        openclaw::Openclaw::install(&self.root)
    }

    /// A supervisor to be started here, in front of the stand-in gateway.
    pub(crate) fn launch(&self) -> Launch<'_> {
        Launch::new(self)
    }

    /// Starts one with the usual settings.
    pub(crate) fn start(&self) -> supervisor::Supervisor {
        self.launch().start()
    }

    /// Starts an unsupervised stand-in with its own script and diary, and waits until it listens.
    pub(crate) fn stranger(&self, script: &str) -> Stranger {
        let stranger = self.stranger_unready(script);
        stranger.diary.wait_line("LISTEN");
        stranger
    }

    /// As above, without the wait.
    pub(crate) fn stranger_unready(&self, script: &str) -> Stranger {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let dir = self.root.join(format!("stranger-{}", COUNT.fetch_add(1, Ordering::Relaxed)));
        fs::create_dir_all(&dir).expect("a scratch folder can be made");
        let words = self.gateway_words();
        let mut command = self.command(&words[0]);
        command.args(&words[1..]).env("FAKE_GATEWAY_DIR", &dir).env("FAKE_GATEWAY_SCRIPT", script);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("the stand-in gateway starts");
        Stranger { diary: Diary::new(dir), child }
    }

    /// Every process that carries this scene's mark.
    pub(crate) fn processes(&self) -> Vec<Process> {
        process::of_folder(&self.root.display().to_string())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        // Without it a storm that could not be killed ends by itself.
        fs::remove_file(self.root.join("gateway.log")).ok();
        let start = Instant::now();
        loop {
            let left = self.processes();
            if left.is_empty() || start.elapsed() > PATIENCE {
                break;
            }
            for process in left {
                process.kill();
            }
            std::thread::sleep(TICK);
        }
        groups::remove(&self.root);
        // A file that is still being written to can make this fail; the folder is in the temporary directory anyway.
        fs::remove_dir_all(&self.root).ok();
    }
}

/// A stand-in gateway without a supervisor.
pub(crate) struct Stranger {
    pub(crate) diary: Diary,
    child: Child,
}

impl Stranger {
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).expect("a pid fits")
    }

    pub(crate) fn process(&self) -> Process {
        Process::find(self.pid()).expect("the stranger lives")
    }

    pub(crate) fn is_alive(&mut self) -> bool {
        self.try_wait().is_none()
    }

    pub(crate) fn try_wait(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Ends it and reaps it.
    pub(crate) fn end(&mut self) {
        self.child.kill().expect("it is our child");
        self.child.wait().expect("it is our child");
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        self.end();
    }
}

/// The stand-in gateway is an example of this package, built beside the test.
pub(crate) fn fake_gateway() -> PathBuf {
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test.ancestors().nth(2).expect("tests lie in <profile>/deps");
    let path = profile.join("examples/fake-gateway");
    assert!(path.exists(), "{} is missing: run `cargo build --example fake-gateway`", path.display());
    path
}
