//! Other services for the same gateway: OpenClaw's own, and ours in the other scope. Found by their files, since only the user
//! itself can ask a user manager.

use super::error::Error;
use super::manager::{is_active, user_name};
use super::unit::{self, MACHINE_FOLDER};
use super::{job, managed_file};
use crate::platform::regular_file;
use crate::settings::{Scope, ServiceSettings};
use nix::unistd::User;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};

/// A service of OpenClaw's that does not conflict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Harmless {
    /// Neither enabled nor running; ours names it in `Conflicts=`.
    Inactive(PathBuf),
    /// Of a gateway on this other port.
    OtherPort(PathBuf, u16),
}

/// Fails if another service starts this gateway. Returns the others, to be mentioned.
pub(super) fn check(settings: &ServiceSettings, program: &Path) -> Result<Vec<Harmless>, Error> {
    let mut harmless = Vec::new();
    for (path, manager) in openclaw_services(settings) {
        // Not `exists`: a dangling symlink is no service. A FIFO would be waited for.
        let Ok(text) = regular_file::head(&path, managed_file::SIZE_MAX) else { continue };
        let text = String::from_utf8_lossy(&text);
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let counts = manager.is_none_or(|manager| is_enabled(&path) || is_active(&manager, &name));
        let other = port_of(&text).filter(|port| settings.port.is_some_and(|ours| ours != *port));
        if !counts {
            harmless.push(Harmless::Inactive(path));
        } else if let Some(port) = other {
            harmless.push(Harmless::OtherPort(path, port));
        } else if starts_us(&text) {
            return Err(Error::AlreadyWrapped(path));
        } else {
            return Err(Error::OpenclawService(path, program.to_owned()));
        }
    }
    match own_other_scope(settings) {
        Some((path, removal)) => Err(Error::OtherScope(path, removal)),
        None => Ok(harmless),
    }
}

/// The port in a unit or job of OpenClaw's: `--port` of its command, else its variable.
fn port_of(text: &str) -> Option<u16> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
    let words = lines.flat_map(|line| line.split(|c: char| c.is_whitespace() || "\"'<>=".contains(c)));
    let is_tag = |word: &str| matches!(word.trim_start_matches('/'), "" | "string" | "key");
    let words: Vec<&str> = words.filter(|word| !is_tag(word)).collect();
    let after = |name: &str| {
        let pairs = words.iter().zip(words.iter().skip(1)).rev();
        pairs.filter(|(word, _)| **word == name).find_map(|(_, port)| port.parse::<u16>().ok())
    };
    after("--port").or_else(|| after("OPENCLAW_GATEWAY_PORT"))
}

/// The paths of OpenClaw's own services for the same gateway, each with the systemctl of its manager. A launchd job has none:
/// it counts as soon as it exists, since it starts at the next login.
fn openclaw_services(settings: &ServiceSettings) -> Vec<(PathBuf, Option<Vec<String>>)> {
    if cfg!(target_os = "macos") {
        return vec![(job::openclaw_path(settings), None)];
    }
    let manager = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let of_user = |home: &Path, manager: &Vec<String>| (home.join(".config/systemd/user"), manager.clone());
    let mut folders = vec![(PathBuf::from(MACHINE_FOLDER), manager(&["systemctl"]))];
    match &settings.scope {
        Scope::User => {
            let own = manager(&["systemctl", "--user"]);
            let (by_home, by_config) = (of_user(&settings.home, &own), unit::folder(settings));
            // OpenClaw ignores XDG_CONFIG_HOME.
            folders.extend((by_home.0 != by_config).then_some((by_config, own)));
            folders.push(by_home);
        }
        Scope::Machine { user } => {
            let theirs = manager(&["systemctl", "--user", &format!("--machine={user}@")]);
            folders.extend(home_of(user).map(|home| of_user(&home, &theirs)));
        }
    }
    let names = unit::openclaw_names(settings);
    folders
        .into_iter()
        .flat_map(|(folder, manager)| {
            names.iter().map(|name| (folder.join(name), Some(manager.clone()))).collect::<Vec<_>>()
        })
        .collect()
}

fn is_enabled(path: &Path) -> bool {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
    managed_file::enabling_links(folder, name).next().is_some()
}

/// Whether a unit or job of OpenClaw's starts this program, as with `--wrapper`.
fn starts_us(text: &str) -> bool {
    text.lines().any(|line| {
        (line.starts_with("ExecStart=") || line.contains("<string>")) && line.contains("openclaw-supervise")
    })
}

/// The folders of the system manager with links that enable units.
const MACHINE_LINKS: [&str; 2] = [MACHINE_FOLDER, "/run/systemd/system"];

/// The same for all user managers.
const USERS_LINKS: &str = "/etc/systemd/user";

/// Our service for the same gateway in the other scope, written by `install` or enabled from a package: its file, enabling
/// link or name, and the command that removes it.
fn own_other_scope(settings: &ServiceSettings) -> Option<(PathBuf, String)> {
    if cfg!(target_os = "macos") {
        return None;
    }
    let profile = settings.profile.as_ref().map(|profile| format!(" --profile {profile}")).unwrap_or_default();
    let link = |folder: &Path, name: &str| managed_file::enabling_links(folder, OsStr::new(name)).next();
    match &settings.scope {
        Scope::User => {
            let user = user_name();
            let removal = format!("'sudo openclaw-supervise uninstall --system --run-as {user}{profile}'");
            let other = ServiceSettings { scope: Scope::Machine { user }, ..settings.clone() };
            if let Some(path) = unit::paths(&other).pop().filter(|path| path.exists()) {
                return Some((path, removal));
            }
            let name = unit::name(&other);
            let on = MACHINE_LINKS.iter().find_map(|folder| link(Path::new(folder), &name));
            let path = on.or_else(|| is_active(&["systemctl"], &name).then(|| PathBuf::from(&name)))?;
            Some((path, format!("'sudo systemctl disable --now {name}'")))
        }
        Scope::Machine { user } => {
            let config_home = home_of(user)?.join(".config");
            let other = ServiceSettings { scope: Scope::User, config_home, ..settings.clone() };
            if let Some(path) = unit::paths(&other).pop().filter(|path| path.exists()) {
                return Some((path, format!("'openclaw-supervise uninstall --user{profile}' as {user}")));
            }
            let name = unit::name(&other);
            if let Some(path) = link(Path::new(USERS_LINKS), &name) {
                return Some((path, format!("'sudo systemctl --global disable {name}'")));
            }
            let manager = ["systemctl", "--user", &format!("--machine={user}@")];
            let on = link(&unit::folder(&other), &name);
            let is_on = || has_user_manager(user) && is_active(&manager, &name);
            let path = on.or_else(|| is_on().then(|| PathBuf::from(&name)))?;
            Some((path, format!("'systemctl --user disable --now {name}' as {user}")))
        }
    }
}

/// Without a running user manager, systemctl would wait for a long time.
fn has_user_manager(user: &str) -> bool {
    let user = User::from_name(user).ok().flatten();
    user.is_some_and(|user| Path::new(&format!("/run/user/{}/systemd/private", user.uid)).exists())
}

fn home_of(user: &str) -> Option<PathBuf> {
    User::from_name(user).ok().flatten().map(|user| user.dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_of_a_service_is_that_of_its_command_else_of_its_variable() {
        for (text, port) in [
            ("ExecStart=/usr/bin/node \"/x y/openclaw.mjs\" gateway --port 18789\n", Some(18789)),
            ("# --port 1\nExecStart=node gateway --port=4567\nEnvironment=OPENCLAW_GATEWAY_PORT=3\n", Some(4567)),
            ("ExecStart=node gateway\nEnvironment=\"OPENCLAW_GATEWAY_PORT=18790\"\n", Some(18790)),
            ("ExecStart=x gateway --port ${OPENCLAW_GATEWAY_PORT}\nEnvironment=OPENCLAW_GATEWAY_PORT=7\n", Some(7)),
            ("<string>--port</string>\n<string>19001</string>\n", Some(19001)),
            ("<key>OPENCLAW_GATEWAY_PORT</key>\n<string>19002</string>\n", Some(19002)),
            ("ExecStart=node gateway\n", None),
        ] {
            assert_eq!(port_of(text), port, "{text}");
        }
    }

    #[test]
    fn a_service_that_starts_this_program_is_recognised() {
        for (text, expected) in [
            ("[Service]\nExecStart=/usr/local/bin/openclaw-supervise gateway --port 1\n", true),
            ("[Service]\nExecStart=/usr/bin/node /x/openclaw.mjs gateway\n# not openclaw-supervise\n", false),
            ("<array>\n<string>/usr/local/bin/openclaw-supervise</string>\n</array>", true),
            ("", false),
        ] {
            assert_eq!(starts_us(text), expected, "{text}");
        }
    }
}
