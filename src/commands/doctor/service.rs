//! The service of the supervisor with a given store, for the verbs that name or start it.

use super::facts::launchd;
use super::facts::service_manager::SystemdManager;
use super::facts::settings::SettingsFacts;
use super::facts::systemd;
use std::path::Path;
use std::process::Command;

/// It, under the manager that runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::commands) enum Service {
    Unit { manager: SystemdManager, id: String },
    Job { domain: String, label: String },
}

/// Those of this program that would have this store. It waits for the managers, for 2 s each at most.
pub(in crate::commands) fn of_store(store_dir: &Path) -> Vec<Service> {
    if cfg!(target_os = "macos") {
        let jobs = launchd::gather().into_iter().filter(launchd::LaunchdJob::runs_us);
        return jobs
            .map(|job| {
                let domain = format!("gui/{}", rustix::process::getuid().as_raw());
                Service::Job { domain, label: job.label().to_owned() }
            })
            .collect();
    }
    if !systemd::is_init() {
        return Vec::new();
    }
    let managers = systemd::gather();
    let units = managers.iter().flat_map(|manager| {
        let ours = manager.units.iter().flatten().filter(|unit| unit.runs_us());
        ours.map(move |unit| (unit, SettingsFacts::of_unit(unit, manager)))
    });
    let has_store = |facts: &Option<SettingsFacts>| {
        facts.as_ref().and_then(|facts| facts.settings.as_ref().ok()).is_some_and(|found| found.store_dir == store_dir)
    };
    let units = units.filter(|(_, facts)| has_store(facts));
    units.map(|(unit, _)| Service::Unit { manager: unit.manager.clone(), id: unit.id().to_owned() }).collect()
}

impl Service {
    /// The commands that start it, whatever its last end was, each as it is typed.
    pub(in crate::commands) fn start_commands(&self) -> Vec<(String, Command)> {
        match self {
            Self::Unit { manager, id } => {
                let call =
                    |verb| (format!("{} {verb} {id}", manager.systemctl()), systemd::command(manager, &[verb, id]));
                ["reset-failed", "start"].map(call).into()
            }
            Self::Job { domain, label } => {
                let mut command = Command::new("launchctl");
                command.args(["kickstart", &format!("{domain}/{label}")]);
                vec![(format!("launchctl kickstart {domain}/{label}"), command)]
            }
        }
    }

    /// Whether this user may start it.
    pub(in crate::commands) fn may_start(&self) -> bool {
        !matches!(self, Self::Unit { manager: SystemdManager::System, .. }) || rustix::process::geteuid().is_root()
    }

    pub(in crate::commands) fn name(&self) -> &str {
        match self {
            Self::Unit { id, .. } => id,
            Self::Job { label, .. } => label,
        }
    }
}

#[cfg(test)]
pub(in crate::commands) mod tests {
    use super::*;

    pub(in crate::commands) fn unit(is_system: bool, id: &str) -> Service {
        let manager = if is_system { SystemdManager::System } else { SystemdManager::User };
        Service::Unit { manager, id: id.to_owned() }
    }

    #[test]
    fn a_unit_is_started_whatever_its_last_end_was() {
        let job = Service::Job { domain: "gui/501".to_owned(), label: "ai.openclaw.supervise".to_owned() };
        let lines = |service: &Service| service.start_commands().into_iter().map(|(line, _)| line).collect::<Vec<_>>();
        assert_eq!(lines(&job), ["launchctl kickstart gui/501/ai.openclaw.supervise"]);
        let expected = ["systemctl --user reset-failed x.service", "systemctl --user start x.service"];
        assert_eq!(lines(&unit(false, "x.service")), expected);
    }
}
