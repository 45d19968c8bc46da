//! The managers of systemd: that of the system, and one for each user.

use nix::unistd::User;
use std::fs;
use std::path::PathBuf;

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::commands) enum SystemdManager {
    System,
    User,
    /// The user manager of this other account, for root.
    Account(String),
}

impl SystemdManager {
    pub(in super::super) fn systemctl(&self) -> String {
        match self {
            Self::System => "systemctl".to_owned(),
            Self::User => "systemctl --user".to_owned(),
            Self::Account(user) => format!("systemctl --user --machine={user}@"),
        }
    }

    /// The command that shows the log of a unit.
    pub(in super::super) fn journalctl(&self, unit: &str) -> String {
        match self {
            Self::System => format!("journalctl -u {unit}"),
            Self::User => format!("journalctl --user -u {unit}"),
            Self::Account(user) => {
                let uid =
                    User::from_name(user).ok().flatten().map_or_else(|| user.clone(), |user| user.uid.to_string());
                format!("journalctl _UID={uid} _SYSTEMD_USER_UNIT={unit}")
            }
        }
    }

    /// The home of the account that runs it.
    pub(in super::super) fn home(&self) -> Option<PathBuf> {
        match self {
            Self::System => Some(PathBuf::from("/root")),
            Self::User => std::env::home_dir(),
            Self::Account(user) => User::from_name(user).ok().flatten().map(|user| user.dir),
        }
    }

    pub(in super::super) fn name(&self) -> String {
        match self {
            Self::System => "system manager".to_owned(),
            Self::User => "user manager".to_owned(),
            Self::Account(user) => format!("user manager of {user}"),
        }
    }
}

/// The most user managers of others that are asked.
const ACCOUNTS_MAX: usize = 32;

/// The other accounts with a user manager, if we are root.
pub(super) fn accounts() -> Vec<SystemdManager> {
    if !rustix::process::geteuid().is_root() {
        return Vec::new();
    }
    let folders = fs::read_dir("/run/user").into_iter().flatten().flatten();
    let with_manager = folders.filter(|folder| folder.path().join("systemd/private").exists());
    let uids = with_manager.filter_map(|folder| folder.file_name().to_str()?.parse::<u32>().ok());
    let mut uids: Vec<_> = uids.filter(|uid| *uid != 0).collect();
    uids.sort_unstable();
    let names = uids.into_iter().filter_map(|uid| Some(User::from_uid(uid.into()).ok()??.name));
    names.take(ACCOUNTS_MAX).map(SystemdManager::Account).collect()
}

/// The unit of a unit file; of a template, the instance of this user.
pub(super) fn name_of(file: &str) -> Option<String> {
    let stem = file.strip_suffix(".service")?;
    match stem.strip_suffix('@') {
        Some(template) => Some(format!("{template}@{}.service", user_name()?)),
        None => Some(file.to_owned()),
    }
}

/// The name of our effective user.
pub(in super::super) fn user_name() -> Option<String> {
    User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_template_stands_for_the_instance_of_this_user() {
        let user = user_name().unwrap();
        assert_eq!(name_of("openclaw-supervise@.service"), Some(format!("openclaw-supervise@{user}.service")));
        assert_eq!(name_of("openclaw-gateway.service").as_deref(), Some("openclaw-gateway.service"));
        assert_eq!(name_of("openclaw.timer"), None);
    }
}
