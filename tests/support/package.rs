//! Programs of the distribution and of npm that tests need, installed where they are missing.

use super::root::needs_root;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

/// Installs a package of the distribution, unless its program is there. One that starts no daemon by that.
pub(crate) fn need(program: &str, package: &str) {
    needs_root(package);
    let script = format!(
        "command -v {program} >/dev/null || {{ apt-get update &&
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends {package}; }} >/dev/null 2>&1"
    );
    let lock = std::env::temp_dir().join("ocs-systemd.lock");
    let installed = Command::new("flock").arg(lock).args(["sh", "-c", &script]).status().expect("flock can be started");
    assert!(installed.success(), "this test needs the package {package}, which apt-get could not install");
}

/// A folder below the target folder that `script` fills once.
fn filled(name: &str, script: &str) -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent().expect("it lies in the target folder");
    let lock = File::create(target.join(format!("{name}.lock"))).expect("the target folder can be written");
    lock.lock().expect("a lock can be had");
    let (home, mark) = (target.join(name), target.join(name).join("complete"));
    if !mark.exists() {
        fs::remove_dir_all(&home).ok();
        fs::create_dir_all(&home).expect("the target folder can be written");
        let output = Command::new("sh").args(["-euc", script]).current_dir(&home).output().expect("sh can be started");
        let told = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "this test needs {name}, which could not be installed:\n{told}");
        fs::write(mark, "").expect("the installation can be marked");
    }
    home
}

/// supervisord, and the folder of its modules for `PYTHONPATH`. Unpacked alone: its package would start a daemon.
pub(crate) fn supervisord() -> (PathBuf, PathBuf) {
    let script = "apt-get download supervisor >&2 || { apt-get update >&2; apt-get download supervisor >&2; }
        dpkg-deb -x supervisor_*.deb . && python3 -c 'import importlib.metadata'";
    let home = filled("supervisord", script);
    (home.join("usr/bin/supervisord"), home.join("usr/lib/python3/dist-packages"))
}

/// `pm2-runtime`.
pub(crate) fn pm2() -> PathBuf {
    filled("pm2", "npm install pm2@7.0.4 --ignore-scripts --no-audit --no-fund >&2")
        .join("node_modules/.bin/pm2-runtime")
}
