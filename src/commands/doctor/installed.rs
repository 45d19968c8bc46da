//! The supervisors of this program on this machine, whatever account they belong to: those of service managers, and running ones,
//! which their port claims name.

use super::facts::launchd;
use super::facts::service_manager::{SystemdManager, user_name};
use super::facts::settings::SettingsFacts;
use super::facts::systemd::{self, UnitFacts};
use crate::core::Endpoint;
use crate::platform::claim;
use crate::settings::Settings;
use nix::unistd::{Uid, User};
use std::path::PathBuf;

/// One of them.
#[derive(Debug, Clone)]
pub(in crate::commands) struct Installed {
    /// The unit or the job; `None` if no manager is known.
    pub(in crate::commands) unit: Option<InstalledUnit>,
    pub(in crate::commands) user: Option<String>,
    pub(in crate::commands) pid: Option<i32>,
    /// Its store, configuration and endpoint. `None` if this account may not see them.
    pub(in crate::commands) target: Option<InstalledTarget>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) struct InstalledTarget {
    pub(in crate::commands) store_dir: PathBuf,
    pub(in crate::commands) config_path: PathBuf,
    pub(in crate::commands) endpoint: Endpoint,
}

/// A service and its state, in the words of its manager.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) struct InstalledUnit {
    pub(in crate::commands) name: String,
    pub(in crate::commands) manager: String,
    pub(in crate::commands) load: Option<String>,
    pub(in crate::commands) active: Option<String>,
    pub(in crate::commands) sub: Option<String>,
    pub(in crate::commands) result: Option<String>,
    pub(in crate::commands) file: Option<String>,
}

impl From<Settings> for InstalledTarget {
    fn from(settings: Settings) -> Self {
        let Settings { store_dir, config_path, endpoint, .. } = settings;
        Self { store_dir, config_path, endpoint }
    }
}

/// All of them. It waits for the managers, for 2 s each call at most.
pub(in crate::commands) fn all() -> Vec<Installed> {
    let mut found = if cfg!(target_os = "macos") { jobs() } else { units() };
    let is_known = |one: &Installed| {
        found.iter().any(|unit| one.target.is_some() && unit.target == one.target || unit.pid == one.pid)
    };
    let more: Vec<_> = running().into_iter().filter(|one| !is_known(one)).collect();
    found.extend(more);
    found
}

fn units() -> Vec<Installed> {
    if !systemd::is_init() {
        return Vec::new();
    }
    let managers = systemd::gather();
    let installed = |unit: &UnitFacts| {
        let get = |name: &str| unit.get(name).map(str::to_owned);
        let manager = managers.iter().find(|manager| manager.manager == unit.manager);
        let facts = manager.and_then(|manager| SettingsFacts::of_unit(unit, manager));
        let user = match &unit.manager {
            SystemdManager::System => get("User").or_else(|| Some("root".to_owned())),
            SystemdManager::User => user_name(),
            SystemdManager::Account(user) => Some(user.clone()),
        };
        Installed {
            unit: Some(InstalledUnit {
                name: unit.id().to_owned(),
                manager: unit.manager.name(),
                load: get("LoadState"),
                active: get("ActiveState"),
                sub: get("SubState"),
                result: get("Result"),
                file: get("UnitFileState"),
            }),
            user,
            pid: unit.main_pid(),
            target: facts.and_then(|facts| facts.settings.ok()).map(|settings| (*settings).into()),
        }
    };
    let units = managers.iter().flat_map(|manager| manager.units.iter().flatten());
    units.filter(|unit| unit.runs_us()).map(installed).collect()
}

fn jobs() -> Vec<Installed> {
    let installed = |job: launchd::LaunchdJob| Installed {
        unit: Some(InstalledUnit {
            name: job.label().to_owned(),
            manager: "launchd".to_owned(),
            load: None,
            active: job.state(),
            sub: None,
            result: None,
            file: Some(job.path.display().to_string()),
        }),
        user: user_name(),
        pid: None,
        target: None,
    };
    launchd::gather().into_iter().filter(launchd::LaunchdJob::runs_us).map(installed).collect()
}

fn running() -> Vec<Installed> {
    let claims = claim::ports().into_iter().filter_map(|port| claim::peek(port).ok().flatten());
    let processes = claims.filter_map(|claimant| Some((claimant.by?, claimant.uid?)));
    let installed = |(pid, uid)| {
        let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
        let facts = SettingsFacts::of_process(pid);
        Installed {
            unit: None,
            user: known.map(|user| user.name).or_else(|| Some(format!("uid {uid}"))),
            pid: Some(pid),
            target: facts.and_then(|facts| facts.settings.ok()).map(|settings| (*settings).into()),
        }
    };
    processes.map(installed).collect()
}
