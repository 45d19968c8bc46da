//! Other services for the same gateway: OpenClaw's own, and ours of the other scope. Looked for by their files, since a
//! user's manager can be asked by that user alone.

use super::error::Error;
use super::manager::{is_active, user_name};
use super::unit::{self, MACHINE_FOLDER};
use super::{job, record};
use crate::settings::{Scope, ServiceSettings};
use nix::unistd::User;
use std::fs;
use std::path::{Path, PathBuf};

/// What of OpenClaw is there besides, and not in the way.
pub(super) struct Idle(pub(super) PathBuf);

/// Refuses to go on beside another service for this gateway. One of OpenClaw's that is neither enabled nor running is
/// only told: ours names it in its Conflicts=.
pub(super) fn check(settings: &ServiceSettings, program: &Path) -> Result<Vec<Idle>, Error> {
    let mut idle = Vec::new();
    for (path, manager) in openclaws(settings) {
        // Not `exists`: a link into nowhere is no service.
        let Ok(text) = fs::read_to_string(&path) else { continue };
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let counts = manager.is_none_or(|manager| is_enabled(&path) || is_active(&manager, &name));
        if !counts {
            idle.push(Idle(path));
        } else if starts_us(&text) {
            return Err(Error::Wrapped(path));
        } else {
            return Err(Error::Rival(path, program.to_owned()));
        }
    }
    match twin(settings).filter(|(path, _)| path.exists()) {
        Some((path, scope)) => Err(Error::Twin(path, scope)),
        None => Ok(idle),
    }
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

/// The service of ours for the same gateway that the other scope would have, and the order that removes it.
fn twin(settings: &ServiceSettings) -> Option<(PathBuf, String)> {
    if cfg!(target_os = "macos") {
        return None;
    }
    let profile = settings.profile.as_ref().map(|profile| format!(" --profile {profile}")).unwrap_or_default();
    match &settings.scope {
        Scope::User => {
            let user = user_name();
            let order = format!("'sudo openclaw-supervise uninstall --system --run-as {user}{profile}'");
            let other = ServiceSettings { scope: Scope::Machine { user }, ..settings.clone() };
            unit::places(&other).pop().map(|path| (path, order))
        }
        Scope::Machine { user } => {
            let config_home = home_of(user)?.join(".config");
            let other = ServiceSettings { scope: Scope::User, config_home, ..settings.clone() };
            unit::places(&other).pop().map(|path| (path, format!("'openclaw-supervise uninstall{profile}' as {user}")))
        }
    }
}

fn home_of(user: &str) -> Option<PathBuf> {
    User::from_name(user).ok().flatten().map(|user| user.dir)
}

#[cfg(test)]
mod tests {
    use super::*;

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
