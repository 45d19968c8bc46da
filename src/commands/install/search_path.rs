//! The PATH of the service, and what is to be said of the places that it and the service lead to.

use super::manager::find;
use crate::settings::{Scope, ServiceSettings};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

const USUAL: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// Folders that are made anew for each shell.
const OF_ONE_SHELL: &str = "fnm_multishells";

/// The folders of OpenClaw and of its Node, then the usual ones; and what is to be said of that.
pub(super) fn search_path(settings: &ServiceSettings) -> (OsString, Vec<String>) {
    let (mut folders, mut remarks) = (Vec::new(), Vec::new());
    let openclaw = settings.program.clone().unwrap_or_else(|| OsString::from("openclaw"));
    for program in [openclaw.as_os_str(), OsStr::new("node")] {
        let found = find(settings, program);
        let Some(folder) = found.as_deref().and_then(Path::parent).map(lasting) else {
            remarks.push(format!("{} is not on this PATH; name its folder in a drop-in", program.to_string_lossy()));
            continue;
        };
        if folders.contains(&folder) {
            continue;
        }
        if names_a_version(&folder) {
            let folder = folder.display();
            remarks.push(format!("PATH names {folder}, which is of one version of Node: install again after a switch"));
        }
        remarks.extend(closed(settings, &folder));
        folders.push(folder);
    }
    folders.extend(USUAL.map(PathBuf::from).into_iter().filter(|usual| !folders.contains(usual)).collect::<Vec<_>>());
    (std::env::join_paths(folders).unwrap_or_else(|_| settings.path.clone()), remarks)
}

/// What is odd about the place of this program.
pub(super) fn remarks_on(settings: &ServiceSettings, program: &Path) -> Vec<String> {
    let mut remarks: Vec<String> = closed(settings, program).into_iter().collect();
    let is_build = program.components().any(|part| part.as_os_str() == "target");
    let is_passing = ["/tmp", "/var/tmp", "/dev/shm"].iter().any(|folder| program.starts_with(folder));
    if is_build || is_passing || program.starts_with(std::env::temp_dir()) {
        let program = program.display();
        remarks.push(format!("{program} may be cleared away; put the program into /usr/local/bin and install again"));
    }
    remarks
}

/// The folder that is there tomorrow.
fn lasting(folder: &Path) -> PathBuf {
    let is_passing = folder.components().any(|part| part.as_os_str() == OF_ONE_SHELL);
    is_passing.then(|| fs::canonicalize(folder).ok()).flatten().unwrap_or_else(|| folder.to_owned())
}

/// `v24.1.0` and the like, as the version managers name their folders.
fn names_a_version(folder: &Path) -> bool {
    folder.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        let number = part.trim_start_matches(|c: char| !c.is_ascii_digit());
        let is_numeric = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let is_bare = part.starts_with('v') && part.len() > 1;
        !number.is_empty() && is_numeric && (number.contains('.') || is_bare)
    })
}

/// Another account cannot pass a folder that only its owner can.
fn closed(settings: &ServiceSettings, place: &Path) -> Option<String> {
    let Scope::Machine { user } = &settings.scope else { return None };
    let is_closed = |at: &&Path| fs::metadata(at).is_ok_and(|meta| meta.permissions().mode() & 0o001 == 0);
    let at = place.ancestors().find(is_closed)?;
    Some(format!("{} is not open to everybody; see that {user} can use {}", at.display(), place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_one_version_is_known_by_its_name() {
        for (folder, expected) in [
            ("/home/alice/.nvm/versions/node/v24.1.0/bin", true),
            ("/home/alice/.volta/tools/image/node/22.12.0/bin", true),
            ("/opt/node-v24.1.0/bin", true),
            ("/home/alice/.nvm/versions/node/v24/bin", true),
            ("/usr/local/bin", false),
            ("/usr/lib/x86_64-linux-gnu", false),
            ("/home/alice2/.local/bin", false),
            ("/opt/homebrew/bin", false),
        ] {
            assert_eq!(names_a_version(Path::new(folder)), expected, "{folder}");
        }
    }
}
