//! Other services for the same gateway: OpenClaw's own, and ours of the other scope. Looked for by their files, since a
//! user's manager can be asked by that user alone.

use super::error::Error;
use super::manager::{is_active, user_name};
use super::unit::{self, MACHINE_FOLDER};
use super::{job, record};
use crate::settings::{Scope, ServiceSettings};
use nix::unistd::User;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

/// What of OpenClaw is there besides, and not in the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Beside {
    /// Neither enabled nor running.
    Idle(PathBuf),
    /// For another gateway, at that port.
    Elsewhere(PathBuf, u16),
}

/// Refuses to go on beside another service for this gateway. One of OpenClaw's that is neither enabled nor running is
/// only told: ours names it in its Conflicts=. So is one that serves on another port.
pub(super) fn check(settings: &ServiceSettings, program: &Path) -> Result<Vec<Beside>, Error> {
    let mut beside = Vec::new();
    for (path, manager) in openclaws(settings) {
        // Not `exists`: a link into nowhere is no service.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let counts = manager.is_none_or(|manager| is_enabled(&path) || is_active(&manager, &name));
        let other = port_of(&text).filter(|port| settings.port.is_some_and(|ours| ours != *port));
        if !counts {
            beside.push(Beside::Idle(path));
        } else if let Some(port) = other {
            beside.push(Beside::Elsewhere(path, port));
        } else if starts_us(&text) {
            return Err(Error::Wrapped(path));
        } else {
            return Err(Error::Rival(path, program.to_owned()));
        }
    }
    match twin(settings) {
        Some(Twin { path, order }) => Err(Error::Twin(path, order)),
        None => Ok(beside),
    }
}

/// The port in a unit or a job of OpenClaw's: its command's, else that of its variable.
fn port_of(text: &str) -> Option<u16> {
    let lines = text.lines().filter(|line| !line.trim_start().starts_with(['#', ';']));
    let words = lines.flat_map(|line| line.split(|c: char| c.is_whitespace() || "\"'<>=".contains(c)));
    let is_tag = |word: &str| matches!(word.trim_start_matches('/'), "" | "string" | "key");
    let words: Vec<&str> = words.filter(|word| !is_tag(word)).collect();
    let behind = |name: &str| {
        let pairs = words.iter().zip(words.iter().skip(1)).rev();
        pairs.filter(|(word, _)| **word == name).find_map(|(_, port)| port.parse::<u16>().ok())
    };
    behind("--port").or_else(|| behind("OPENCLAW_GATEWAY_PORT"))
}

/// A unit or a job, and who can be asked about it.
type Place = (PathBuf, Option<Vec<String>>);

/// Where services of OpenClaw's are for the same gateway. A job of launchd counts as soon as it is there: it is started at
/// the next login.
fn openclaws(settings: &ServiceSettings) -> Vec<Place> {
    if cfg!(target_os = "macos") {
        return vec![(job::rival(settings), None)];
    }
    let manager = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>();
    let of_user = |home: &Path, manager: &Vec<String>| (home.join(".config/systemd/user"), manager.clone());
    let mut folders = vec![(PathBuf::from(MACHINE_FOLDER), manager(&["systemctl"]))];
    match &settings.scope {
        Scope::User => {
            let own = manager(&["systemctl", "--user"]);
            let (by_home, by_config) = (of_user(&settings.home, &own), unit::folder(settings));
            // OpenClaw does not heed XDG_CONFIG_HOME.
            folders.extend((by_home.0 != by_config).then_some((by_config, own)));
            folders.push(by_home);
        }
        Scope::Machine { user } => {
            let theirs = manager(&["systemctl", "--user", &format!("--machine={user}@")]);
            folders.extend(home_of(user).map(|home| of_user(&home, &theirs)));
        }
    }
    let names = unit::rivals(settings);
    folders
        .into_iter()
        .flat_map(|(folder, manager)| {
            names.iter().map(|name| (folder.join(name), Some(manager.clone()))).collect::<Vec<_>>()
        })
        .collect()
}

/// Whether a link starts it with a target.
fn is_enabled(path: &Path) -> bool {
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { return false };
    record::links(folder, name).next().is_some()
}

/// Whether a unit or a job of OpenClaw's has this program in front, as its `--wrapper` does.
fn starts_us(text: &str) -> bool {
    text.lines().any(|line| {
        (line.starts_with("ExecStart=") || line.contains("<string>")) && line.contains("openclaw-supervise")
    })
}

/// A service of ours for the same gateway of the other scope.
struct Twin {
    /// Its file, or a link that starts it, or its name.
    path: PathBuf,
    /// What removes it.
    order: String,
}

/// Where units of a manager are, and links that enable them, whoever made them.
const MACHINE_LINKS: [&str; 2] = [MACHINE_FOLDER, "/run/systemd/system"];

/// The same for the managers of all users.
const USERS_LINKS: &str = "/etc/systemd/user";

/// The service of ours that the other scope has: one that `install` wrote, or one of a package that is on.
fn twin(settings: &ServiceSettings) -> Option<Twin> {
    if cfg!(target_os = "macos") {
        return None;
    }
    let profile = settings.profile.as_ref().map(|profile| format!(" --profile {profile}")).unwrap_or_default();
    let link = |folder: &Path, name: &str| record::links(folder, OsStr::new(name)).next();
    match &settings.scope {
        Scope::User => {
            let user = user_name();
            let order = format!("'sudo openclaw-supervise uninstall --system --run-as {user}{profile}'");
            let other = ServiceSettings { scope: Scope::Machine { user }, ..settings.clone() };
            if let Some(path) = unit::places(&other).pop().filter(|path| path.exists()) {
                return Some(Twin { path, order });
            }
            let name = unit::name(&other);
            let on = MACHINE_LINKS.iter().find_map(|folder| link(Path::new(folder), &name));
            let path = on.or_else(|| is_active(&["systemctl"], &name).then(|| PathBuf::from(&name)))?;
            Some(Twin { path, order: format!("'sudo systemctl disable --now {name}'") })
        }
        Scope::Machine { user } => {
            let config_home = home_of(user)?.join(".config");
            let other = ServiceSettings { scope: Scope::User, config_home, ..settings.clone() };
            if let Some(path) = unit::places(&other).pop().filter(|path| path.exists()) {
                return Some(Twin { path, order: format!("'openclaw-supervise uninstall --user{profile}' as {user}") });
            }
            let name = unit::name(&other);
            if let Some(path) = link(Path::new(USERS_LINKS), &name) {
                return Some(Twin { path, order: format!("'sudo systemctl --global disable {name}'") });
            }
            let manager = ["systemctl", "--user", &format!("--machine={user}@")];
            let on = link(&unit::folder(&other), &name);
            let is_on = || has_manager(user) && is_active(&manager, &name);
            let path = on.or_else(|| is_on().then(|| PathBuf::from(&name)))?;
            Some(Twin { path, order: format!("'systemctl --user disable --now {name}' as {user}") })
        }
    }
}

/// Whether a user's own manager runs; without one to ask, systemctl waits for long.
fn has_manager(user: &str) -> bool {
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
    fn the_port_of_a_service_is_its_commands_else_that_of_its_variable() {
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
    fn a_service_that_has_this_program_in_front_is_known() {
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
