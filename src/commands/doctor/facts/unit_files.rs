//! The unit files on the disk: systemctl lists by name or state, so a disabled unit of any name that starts this program is
//! found only here.

use super::command_line::{exec_start, exec_words};
use super::program::is_ours;
use super::service_manager::{SystemdManager, name_of};
use crate::platform::regular_file;
use crate::platform::thread::bounded;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// In bytes: many times what a unit file has.
const SIZE_MAX: u64 = 256 * 1024;

/// How long directories may take: those of a file server that is gone never answer.
const LOOK_TIME_MAX: Duration = Duration::from_secs(2);

/// Where system units are, see systemd.unit(5).
const OF_SYSTEM: [&str; 6] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/transient",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Where the units of all users are.
const OF_USERS: [&str; 4] =
    ["/etc/systemd/user", "/run/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user"];

/// The text of a unit file or an environment file. `None` if it cannot be read, or is no regular file: a FIFO would be waited
/// for.
pub(super) fn text(path: &Path) -> Option<String> {
    regular_file::head(path, SIZE_MAX).ok().map(|text| String::from_utf8_lossy(&text).into_owned())
}

/// Whether a program is this one behind a link.
pub(super) fn leads_to_us(program: &Path) -> bool {
    program.is_absolute() && fs::canonicalize(program).is_ok_and(is_ours)
}

/// The names of the units with files that start this program, drop-ins included, and of masked ones with its name. `None` if
/// the directories do not answer in time.
pub(super) fn names(manager: &SystemdManager) -> Option<BTreeSet<String>> {
    let folders = folders(manager);
    bounded(LOOK_TIME_MAX, move || folders.iter().flat_map(|folder| names_in(folder)).collect())
}

/// A unit of ours of a user without a running manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct OfflineUnit {
    pub(in super::super) path: PathBuf,
    pub(in super::super) user: String,
    pub(in super::super) is_enabled: bool,
}

/// The most accounts that are looked at.
const ACCOUNTS_MAX: usize = 256;

/// The most homes that are waited for in vain.
pub(in super::super) const SILENT_MAX: usize = 3;

/// In the home of this user and, for root, in those of all users of `/etc/passwd`, with the homes that do not answer in time. A
/// manager that runs tells more.
pub(in super::super) fn offline() -> (Vec<OfflineUnit>, Vec<PathBuf>) {
    let us = rustix::process::geteuid();
    let passwd = text(Path::new("/etc/passwd")).unwrap_or_default();
    let users = passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next()?, fields.nth(1)?.parse::<u32>().ok()?);
        Some((name.to_owned(), uid, PathBuf::from(fields.nth(2)?)))
    });
    let is_seen = |(_, uid, _): &(String, u32, PathBuf)| us.is_root() || *uid == us.as_raw();
    let is_offline =
        |(_, uid, _): &(String, u32, PathBuf)| !Path::new(&format!("/run/user/{uid}/systemd/private")).exists();
    let users = users.filter(is_seen).filter(is_offline).take(ACCOUNTS_MAX);
    let (mut units, mut silent) = (Vec::new(), Vec::new());
    for (user, _, home) in users {
        let folder = home.join(".config/systemd/user");
        match bounded(LOOK_TIME_MAX, move || offline_in(&folder, &user)) {
            Some(found) => units.extend(found),
            None => silent.push(home),
        }
        if silent.len() == SILENT_MAX {
            break;
        }
    }
    (units, silent)
}

fn offline_in(folder: &Path, user: &str) -> Vec<OfflineUnit> {
    let targets: Vec<PathBuf> =
        fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    let is_enabled = |name: &str| {
        let is_target = |path: &&PathBuf| path.extension().is_some_and(|kind| kind == "wants" || kind == "requires");
        targets.iter().filter(is_target).any(|target| target.join(name).is_symlink())
    };
    let mut names = names_in(folder);
    names.sort_unstable();
    names.dedup();
    let unit =
        |name: String| OfflineUnit { is_enabled: is_enabled(&name), path: folder.join(name), user: user.to_owned() };
    names.into_iter().map(unit).collect()
}

fn folders(manager: &SystemdManager) -> Vec<PathBuf> {
    if *manager == SystemdManager::System {
        return OF_SYSTEM.map(PathBuf::from).to_vec();
    }
    let mut folders = OF_USERS.map(PathBuf::from).to_vec();
    if *manager == SystemdManager::User {
        let config_home = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        folders.extend(config_home.map(|folder| folder.join("systemd/user")));
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        folders.extend(runtime.map(|folder| folder.join("systemd/transient")));
    }
    let own = [".config/systemd/user", ".local/share/systemd/user"];
    folders.extend(manager.home().into_iter().flat_map(|home| own.map(|folder| home.join(folder))));
    folders
}

fn names_in(folder: &Path) -> Vec<String> {
    let entries = |folder: &Path| fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut names = Vec::new();
    for path in entries(folder) {
        let Some(name) = path.file_name().and_then(OsStr::to_str) else { continue };
        if let Some(unit) = name.strip_suffix(".d").filter(|unit| unit.ends_with(".service")) {
            let is_conf = |path: &PathBuf| path.extension().is_some_and(|extension| extension == "conf");
            if entries(&path).filter(is_conf).any(|drop_in| starts_us(&drop_in)) {
                names.extend(name_of(unit));
            }
        } else if matches!(path.extension().and_then(OsStr::to_str), Some("wants" | "requires")) {
            // The instances of a template have no files of their own.
            let links =
                entries(&path).filter(|link| link.file_name().is_some_and(|name| is_instance_of_ours(name, link)));
            names.extend(links.filter_map(|link| Some(link.file_name()?.to_str()?.to_owned())));
        } else if let Some(stem) = name.strip_suffix(".service") {
            let is_masked = || is_ours(stem) && fs::read_link(&path).is_ok_and(|to| to == Path::new("/dev/null"));
            if starts_us(&path) || is_masked() {
                names.extend(name_of(name));
            }
        }
    }
    names
}

fn is_instance_of_ours(name: &OsStr, link: &Path) -> bool {
    let is_instance =
        name.to_str().and_then(|name| name.strip_suffix(".service")).is_some_and(|stem| stem.contains('@'));
    is_instance && starts_us(link)
}

/// Whether the command of this unit file or drop-in has this program in it.
fn starts_us(file: &Path) -> bool {
    let Some(command) = text(file).and_then(|text| exec_start(&[text])) else { return false };
    let words = exec_words(&command, &|_| Some(String::new()));
    let words = words.unwrap_or_else(|| command.split_whitespace().map(str::to_owned).collect());
    let program = words.first().map(|word| Path::new(word.trim_start_matches(['-', '+', '!', '@', ':'])));
    words.iter().any(is_ours) || program.is_some_and(|program| is_ours(program) || leads_to_us(program))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_unit_is_found_by_its_command_whatever_its_name_and_a_fifo_is_not_waited_for() {
        let folder = std::env::temp_dir().join(format!("doctor-unit-files-{}", std::process::id()));
        let units = folder.join("units");
        for dir in ["by-drop-in.service.d", "bare.target.wants"] {
            fs::create_dir_all(units.join(dir)).unwrap();
        }
        let write = |name: &str, start: &str| {
            fs::write(units.join(name), format!("[Service]\nExecStart={start}\n")).unwrap();
        };
        let link = folder.join("watch");
        fs::write(folder.join("openclaw-supervise"), "").unwrap();
        symlink(folder.join("openclaw-supervise"), &link).unwrap();
        write("plain.service", "/opt/openclaw-supervise run");
        write("behind-env.service", "-/usr/bin/env A=b /opt/openclaw-supervise-0.1.0 run");
        write("linked.service", &format!("{} run", link.display()));
        write("other.service", "/usr/bin/node server.js");
        write("by-drop-in.service", "/usr/bin/node server.js");
        write("by-drop-in.service.d/a.conf", "\nExecStart=openclaw-supervise run");
        write("template@.service", "/opt/openclaw-supervise run");
        symlink(units.join("template@.service"), units.join("bare.target.wants/template@alice.service")).unwrap();
        symlink("/dev/null", units.join("openclaw-supervise.service")).unwrap();
        symlink("/dev/null", units.join("masked.service")).unwrap();
        nix::unistd::mkfifo(&units.join("fifo.service"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let names = names_in(&units);
        let offline = offline_in(&units, "alice");
        fs::remove_dir_all(folder).unwrap();
        let instance = offline.iter().find(|unit| unit.path.ends_with("template@alice.service")).unwrap();
        assert!(instance.is_enabled && instance.user == "alice", "{offline:?}");
        assert!(offline.iter().any(|unit| unit.path.ends_with("plain.service") && !unit.is_enabled), "{offline:?}");
        for (name, expected) in [
            ("plain.service", true),
            ("behind-env.service", true),
            ("linked.service", true),
            ("by-drop-in.service", true),
            ("template@alice.service", true),
            ("openclaw-supervise.service", true),
            ("other.service", false),
            ("masked.service", false),
        ] {
            assert_eq!(names.iter().any(|known| known == name), expected, "{name}: {names:?}");
        }
    }
}
