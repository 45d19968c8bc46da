//! The PATH of the service, with warnings about folders that may disappear or that its user cannot enter.

use crate::platform::regular_file;
use crate::settings::{Scope, ServiceSettings};
use nix::unistd::{Uid, User};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

const USUAL: [&str; 6] = if cfg!(target_os = "macos") { MACOS } else { LINUX };

const LINUX: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// As in the shipped plist: launchd's own PATH lacks Homebrew's folder.
const MACOS: [&str; 6] = ["/opt/homebrew/bin", "/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin"];

/// fnm creates such a folder for each shell.
const OF_ONE_SHELL: &str = "fnm_multishells";

/// Folders of npm and the version managers in a home directory.
const OF_HOME: [&str; 5] =
    [".npm-global/bin", ".local/bin", ".volta/bin", ".local/share/fnm/aliases/default/bin", ".local/share/pnpm"];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SearchPath {
    /// The folders of OpenClaw and of its Node, then the usual ones.
    pub(super) path: OsString,
    pub(super) warnings: Vec<String>,
    /// The program of the gateway, if it was not found.
    pub(super) missing: Option<String>,
}

impl SearchPath {
    pub(super) fn of(settings: &ServiceSettings) -> Self {
        let (mut folders, mut warnings, mut missing) = (Vec::new(), Vec::new(), None);
        let openclaw = settings.program.clone().unwrap_or_else(|| OsString::from("openclaw"));
        let searched = searched_folders(settings);
        for program in [openclaw.as_os_str(), OsStr::new("node")] {
            let found = which::which_in(program, std::env::join_paths(&searched).ok(), "/").ok();
            let Some(folder) = found.as_deref().and_then(Path::parent).map(lasting) else {
                let name = program.to_string_lossy();
                if program == openclaw {
                    missing = Some(name.into_owned());
                } else {
                    warnings.push(format!("{name} is not on PATH; add its folder in a drop-in"));
                }
                continue;
            };
            if folders.contains(&folder) {
                continue;
            }
            if names_a_version(&folder) {
                let folder = folder.display();
                warnings.push(format!(
                    "PATH contains {folder}, which belongs to one version of Node: install again after a switch"
                ));
            }
            warnings.extend(inaccessible(settings, &folder));
            folders.push(folder);
        }
        let usual = USUAL.map(PathBuf::from).into_iter().filter(|usual| !folders.contains(usual)).collect::<Vec<_>>();
        folders.extend(usual);
        let path = std::env::join_paths(folders).unwrap_or_else(|_| settings.path.clone());
        Self { path, warnings, missing }
    }
}

/// The folders to search: for a system service those of its user's home first, then those on this PATH that the user can enter.
fn searched_folders(settings: &ServiceSettings) -> Vec<PathBuf> {
    let on_path: Vec<PathBuf> = std::env::split_paths(&settings.path).collect();
    let Some(user) = RunAsUser::of(settings) else { return on_path };
    let own: Vec<PathBuf> = OF_HOME.iter().map(|folder| user.home.join(folder)).chain(nvm_node(&user.home)).collect();
    // For the caller's own account this PATH knows best which Node is meant.
    let (first, second) = if user.ids.0 == Uid::effective().as_raw() { (on_path, own) } else { (own, on_path) };
    let all = first.into_iter().chain(second).chain(USUAL.map(PathBuf::from));
    all.filter(|folder| user.first_barrier(folder).is_none()).collect()
}

/// A version or a name has some ten bytes.
const ALIAS_LENGTH_MAX: u64 = 256;

/// The folder of nvm's default Node, else of the newest one.
fn nvm_node(home: &Path) -> Option<PathBuf> {
    let versions = home.join(".nvm/versions/node");
    // The home may be that of another user.
    let wanted = regular_file::head(&home.join(".nvm/alias/default"), ALIAS_LENGTH_MAX).unwrap_or_default();
    let wanted = String::from_utf8(wanted).unwrap_or_default();
    let wanted = format!("v{}", wanted.trim().trim_start_matches('v'));
    let names = fs::read_dir(&versions).ok()?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let numbers = |name: &str| -> Vec<u32> {
        name.trim_start_matches('v').split('.').map(|number| number.parse().unwrap_or(0)).collect()
    };
    let is_wanted = |name: &str| name == wanted || name.starts_with(&format!("{wanted}."));
    let best = names.max_by_key(|name| (is_wanted(name), numbers(name)))?;
    Some(versions.join(best).join("bin"))
}

/// Warnings about the location of this program.
pub(super) fn warnings_about(settings: &ServiceSettings, program: &Path) -> Vec<String> {
    let mut warnings: Vec<String> = inaccessible(settings, program).into_iter().collect();
    if names_a_version(program) {
        let program = program.display();
        warnings.push(format!(
            "{program} belongs to one version; start it by a stable path, or install again after a switch"
        ));
    }
    let is_build = program.components().any(|part| part.as_os_str() == "target");
    let is_temporary = ["/tmp", "/var/tmp", "/dev/shm"].iter().any(|folder| program.starts_with(folder));
    if is_build || is_temporary || program.starts_with(std::env::temp_dir()) {
        let program = program.display();
        warnings.push(format!("{program} is in a temporary folder; copy it to /usr/local/bin and install again"));
    }
    warnings
}

/// Resolves a folder that exists only as long as one shell.
fn lasting(folder: &Path) -> PathBuf {
    let is_temporary = folder.components().any(|part| part.as_os_str() == OF_ONE_SHELL);
    is_temporary.then(|| fs::canonicalize(folder).ok()).flatten().unwrap_or_else(|| folder.to_owned())
}

/// Whether a component looks like `v24.1.0`, as the version managers name their folders.
fn names_a_version(folder: &Path) -> bool {
    folder.components().any(|part| {
        let part = part.as_os_str().to_string_lossy();
        let number = part.trim_start_matches(|c: char| !c.is_ascii_digit());
        let is_numeric = number.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
        let is_bare = part.starts_with('v') && part.len() > 1;
        !number.is_empty() && is_numeric && (number.contains('.') || is_bare)
    })
}

/// A warning if the user of a system service cannot reach `path`.
fn inaccessible(settings: &ServiceSettings, path: &Path) -> Option<String> {
    let Scope::Machine { user } = &settings.scope else { return None };
    let barrier = match RunAsUser::of(settings) {
        Some(user) => user.first_barrier(path),
        None => path.ancestors().find(|at| fs::metadata(at).is_ok_and(|meta| !may_pass(&meta, None))),
    };
    let at = barrier.filter(|_| user != "root")?;
    Some(format!("{} is not world-accessible; make sure that {user} can use {}", at.display(), path.display()))
}

/// The user of a system service.
struct RunAsUser {
    home: PathBuf,
    ids: (u32, u32),
}

impl RunAsUser {
    /// `None` for a user service, and if there is no such user.
    fn of(settings: &ServiceSettings) -> Option<Self> {
        let Scope::Machine { user } = &settings.scope else { return None };
        let user = User::from_name(user).ok().flatten()?;
        Some(Self { home: user.dir, ids: (user.uid.as_raw(), user.gid.as_raw()) })
    }

    /// The innermost component of `path` that the user cannot pass.
    fn first_barrier<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        let is_closed = |at: &&Path| fs::metadata(at).is_ok_and(|meta| !may_pass(&meta, Some(self.ids)));
        path.ancestors().find(is_closed)
    }
}

/// Whether the mode allows passing a folder or running a program. Ignores supplementary groups.
fn may_pass(meta: &fs::Metadata, ids: Option<(u32, u32)>) -> bool {
    let bit = match ids {
        Some((0, _)) => 0o111,
        Some((uid, _)) if meta.uid() == uid => 0o100,
        Some((_, gid)) if meta.gid() == gid => 0o010,
        _ => 0o001,
    };
    meta.permissions().mode() & bit != 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_usual_path_of_macos_is_that_of_the_shipped_plist() {
        let shipped = include_str!("../../../contrib/launchd/ai.openclaw.supervise.plist");
        assert!(shipped.contains(&format!("<string>{}</string>", MACOS.join(":"))));
    }

    #[test]
    fn the_default_node_of_nvm_is_found_else_the_newest() {
        let home = std::env::temp_dir().join(format!("ocs-nvm-{}", std::process::id()));
        let versions = home.join(".nvm/versions/node");
        for version in ["v9.11.2", "v22.1.0", "v22.12.0", "v24.1.0"] {
            fs::create_dir_all(versions.join(version)).unwrap();
        }
        fs::create_dir_all(home.join(".nvm/alias")).unwrap();
        let mut found = Vec::new();
        for alias in ["22", "v22.1.0", "node", "2"] {
            fs::write(home.join(".nvm/alias/default"), format!("{alias}\n")).unwrap();
            found.push(nvm_node(&home).unwrap());
        }
        let none = nvm_node(&home.join("nowhere"));
        fs::remove_dir_all(&home).unwrap();
        let expected = ["v22.12.0", "v22.1.0", "v24.1.0", "v24.1.0"];
        assert_eq!(found, expected.map(|version| versions.join(version).join("bin")));
        assert_eq!(none, None);
    }

    #[test]
    fn the_mode_of_a_folder_tells_who_may_pass_it() {
        let folder = std::env::temp_dir().join(format!("ocs-pass-{}", std::process::id()));
        fs::create_dir(&folder).unwrap();
        let own = fs::metadata(&folder).unwrap();
        let (uid, gid) = (own.uid(), own.gid());
        let mut found = Vec::new();
        for mode in [0o700, 0o750, 0o711] {
            fs::set_permissions(&folder, fs::Permissions::from_mode(mode)).unwrap();
            let meta = fs::metadata(&folder).unwrap();
            found.push([Some((uid, gid)), Some((4321, gid)), Some((4321, 4321)), None].map(|ids| may_pass(&meta, ids)));
        }
        fs::remove_dir(&folder).unwrap();
        assert_eq!(found, [[true, false, false, false], [true, true, false, false], [true, true, true, true]]);
    }

    #[test]
    fn a_folder_of_one_version_is_recognised_by_its_name() {
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
