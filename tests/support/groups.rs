//! The control groups that supervisors of a scene have left: one that is killed removes none, and no later one with the
//! same configuration comes to do it.

use openclaw_supervise::gateway::process::key_of;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How deep configurations lie in a scene.
const DEPTH: usize = 4;

/// How long is waited for those in it to be gone.
const BOUND: Duration = Duration::from_secs(2);

/// Removes the empty ones of every configuration that can lie below this folder.
pub(crate) fn remove(root: &Path) {
    let Some(own) = own() else { return };
    let mut keys = Vec::new();
    collect(root, DEPTH, &mut keys);
    let groups = fs::read_dir(own).into_iter().flatten().flatten();
    for group in groups {
        let name = group.file_name().to_string_lossy().into_owned();
        let id = ["openclaw-gateway-", "openclaw-hook-"].iter().find_map(|prefix| name.strip_prefix(prefix));
        if id.is_some_and(|id| keys.iter().any(|key| id.starts_with(key))) {
            remove_soon(&group.path());
        }
    }
}

/// The last process in it may be about to exit. A group that stays populated is left.
fn remove_soon(group: &Path) {
    let start = Instant::now();
    while fs::remove_dir(group).is_err_and(|error| error.kind() == ErrorKind::ResourceBusy) && start.elapsed() < BOUND {
        std::thread::sleep(super::TICK);
    }
}

/// The keys of this folder's configuration, be it there or not, and of all that could be one, here and below.
fn collect(folder: &Path, depth: usize, keys: &mut Vec<String>) {
    let folder = fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned());
    keys.push(key_of(&folder.join("openclaw.json").to_string_lossy()));
    for entry in fs::read_dir(&folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => collect(&entry.path(), depth - 1, keys),
            Ok(_) => keys.push(key_of(&entry.path().to_string_lossy())),
            Err(_) => {}
        }
    }
}

/// The folder of our own control group of the second version.
pub(crate) fn own() -> Option<PathBuf> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::/"))?.to_owned();
    let mounts = fs::read_to_string("/proc/self/mountinfo").ok()?;
    let mount = mounts.lines().rfind(|line| line.contains(" - cgroup2 "))?;
    Some(Path::new(mount.split(' ').nth(4)?).join(path))
}
