//! `doctor`: checks the installation for what will fail, and prints the line that prevents it. It changes nothing.
//!
//! `facts` asks systemd, launchd, the store and the kernel; `checks` are pure functions from facts to findings.

mod checks;
mod facts;
mod finding;

#[cfg(any(test, feature = "fuzzing"))]
pub use facts::systemd::read_any;

use crate::core::{Endpoint, Observation, Verdict, exit};
use crate::gateway::probe::{Look, Prober};
use crate::platform::{proc, system_calls};
use crate::settings::DoctorSettings;
use crate::store::BasisChoice;
use checks::gateway::{GatewayFacts, PortUnit};
use checks::services::PortService;
use facts::openclaw::{NodeFacts, OpenclawPackage};
use facts::program::ProgramError;
use facts::settings::{SettingsFacts, SettingsOrigin};
use facts::store::StoreFacts;
use facts::systemd::{ManagerFacts, SystemdManager, UnitFacts};
use finding::Finding;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Writes the findings and returns the exit code.
pub async fn run(settings: &DoctorSettings, out: &mut impl io::Write) -> io::Result<u8> {
    let findings = diagnose(settings).await;
    let text = if settings.json { finding::as_json(&findings).to_string() } else { finding::as_text(&findings) };
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Without a reader the exit code still tells.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(if finding::has_failed(&findings) { exit::FAILURE } else { exit::OK }),
    }
}

async fn diagnose(settings: &DoctorSettings) -> Vec<Finding> {
    let managers = if cfg!(target_os = "macos") { Vec::new() } else { facts::systemd::gather().to_vec() };
    let units: Vec<&UnitFacts> = managers.iter().flat_map(|manager| manager.units.iter().flatten()).collect();
    let services = services(&managers, &units);
    let port = settings.endpoint.port;
    let ours: Vec<&UnitFacts> = units.iter().copied().filter(|unit| unit.runs_us()).collect();
    let is_on_port =
        |unit: &UnitFacts| services.iter().any(|service| service.unit == unit && service.port == Some(port));
    let asked = StoreFacts::gather(&settings.subject.store_dir).await;
    let chosen = checks::unit::choose(&ours, asked.running(), is_on_port);
    let pid = asked.running().or_else(|| chosen.and_then(UnitFacts::main_pid));
    let examined = settings_facts(settings, chosen, pid, &managers);
    let gateway = gateway_facts(settings, &examined, asked, chosen).await;
    let pid = gateway.store.running().or(pid);

    let mut findings = slow_managers(&managers);
    findings.extend(match chosen {
        Some(unit) => check_unit(unit, &examined),
        None if cfg!(target_os = "macos") => {
            checks::launchd::check(&facts::launchd::gather(), examined.settings.as_deref().ok())
        }
        None => vec![checks::services::no_unit(&available(&managers), examined.process_manager)],
    });
    // A gateway that runs may serve elsewhere than its settings say.
    let running = gateway.store.url.as_deref().and_then(|url| settings.endpoint.at(url));
    let served = running.as_ref().or(examined.settings.as_deref().ok().map(|settings| &settings.endpoint));
    let served = served.map_or(port, |endpoint| endpoint.port);
    if !available(&managers).is_empty() {
        let ours = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("openclaw-supervise"));
        findings.extend(checks::services::openclaws(&services, served, &ours));
        findings.extend(chosen.and_then(|unit| checks::services::duplicate(&services, unit)));
    }
    findings.push(checks::kernel::system_calls(system_calls::shortfall()));
    findings.extend(check_container(&examined, chosen.is_some(), settings));
    findings.extend(check_openclaw(&examined, chosen, pid));
    findings.extend(checks::gateway::check(&gateway));
    if examined.origin != SettingsOrigin::Ourselves {
        let service = chosen.map_or_else(|| "the supervisor".to_owned(), |unit| unit.id().to_owned());
        findings.extend(checks::gateway::agreement(served, port, &service));
    }
    findings
}

/// The managers that answered.
fn available(managers: &[ManagerFacts]) -> Vec<SystemdManager> {
    managers.iter().filter(|manager| manager.units.is_ok()).map(|manager| manager.manager).collect()
}

/// One that is not running is no finding.
fn slow_managers(managers: &[ManagerFacts]) -> Vec<Finding> {
    let slow = managers.iter().filter_map(|manager| match &manager.units {
        Err(error @ ProgramError::TimedOut(_)) => Some((manager.manager, error)),
        _ => None,
    });
    slow.map(|(manager, error)| {
        let why = format!("the units of the {} are unknown", manager.name());
        Finding::warn("unit", error.to_string(), why, format!("{} status", manager.systemctl()))
    })
    .collect()
}

/// The units with the ports of their gateways.
fn services<'a>(managers: &[ManagerFacts], units: &[&'a UnitFacts]) -> Vec<PortService<'a>> {
    let of = |unit: &'a UnitFacts| {
        let settings =
            unit.runs_us().then(|| unit_settings(unit, managers)).flatten().and_then(|unit| unit.settings.ok());
        let port = settings.map(|settings| settings.endpoint.port);
        let manager = || managers.iter().find(|manager| manager.manager == unit.manager);
        let configured = || SettingsFacts::port_of_gateway(unit, manager().filter(|_| unit.runs_gateway())?);
        PortService { unit, port: port.or_else(|| checks::services::port_of(unit)).or_else(configured) }
    };
    units.iter().map(|unit| of(unit)).collect()
}

fn unit_settings(unit: &UnitFacts, managers: &[ManagerFacts]) -> Option<SettingsFacts> {
    SettingsFacts::of_unit(unit, managers.iter().find(|manager| manager.manager == unit.manager)?)
}

fn settings_facts(
    settings: &DoctorSettings,
    unit: Option<&UnitFacts>,
    pid: Option<i32>,
    managers: &[ManagerFacts],
) -> SettingsFacts {
    pid.and_then(SettingsFacts::of_process)
        .or_else(|| unit_settings(unit?, managers))
        .or_else(|| facts::container::entry_point().and_then(SettingsFacts::of_process))
        .unwrap_or_else(|| SettingsFacts::of_ourselves(settings.run.clone()))
}

fn check_unit(unit: &UnitFacts, examined: &SettingsFacts) -> Vec<Finding> {
    let linger = if unit.manager == SystemdManager::User { lingers() } else { None };
    let mut findings = checks::unit::identity(unit, linger);
    if unit.get("LoadState").is_none_or(|state| state == "loaded") {
        let path = unit.command().map(|(path, _)| path).unwrap_or_default();
        let replaced = unit.main_pid().and_then(|pid| checks::unit::was_replaced(pid, &path));
        findings.push(checks::unit::program(unit, &checks::unit::program_file(unit), replaced));
        findings.extend(checks::directives::check(unit, examined.settings.as_deref().ok()));
    }
    findings
}

/// Whether the services of our user outlive its last logout, see loginctl(1).
fn lingers() -> Option<bool> {
    let user = facts::systemd::user_name()?;
    if Path::new("/var/lib/systemd/linger").join(&user).exists() {
        return Some(true);
    }
    let mut command = Command::new("loginctl");
    command.args(["show-user", "-p", "Linger", "--value", "--", &user]).env("LC_ALL", "C");
    match facts::program::output(command) {
        Ok(answer) => Some(answer.trim() == "yes"),
        // It knows only users who are logged in or linger.
        Err(ProgramError::Silent(_)) => Some(false),
        Err(_) => None,
    }
}

fn check_container(examined: &SettingsFacts, has_unit: bool, settings: &DoctorSettings) -> Vec<Finding> {
    let known = examined.settings.as_deref().ok();
    let limit = known.and_then(|known| known.policy.memory_max_kb);
    // A unit bounds the stop itself.
    let stop = known.filter(|_| !has_unit).map(|known| known.policy.stop_timeout);
    let pid = match examined.origin {
        SettingsOrigin::Process(pid) => Some(pid),
        SettingsOrigin::Ourselves => Some(std::process::id().cast_signed()),
        SettingsOrigin::Unit(_) => None,
    };
    let node_options = examined.node_options.as_deref();
    let container = facts::container::gather(pid, examined.container.as_ref(), node_options, limit, stop);
    let mut findings = checks::container::check(&container);
    if let (Some(manager), Some(stop)) = (examined.process_manager, stop) {
        findings.extend(checks::process_manager::check(manager, stop));
    } else if let Some(stop) = stop.filter(|_| container.sign.is_none() && !cfg!(target_os = "macos")) {
        findings.push(checks::openclaw::stop_timeout(stop));
    }
    let store = known.map_or(settings.subject.store_dir.as_path(), |known| &known.store_dir);
    let network = facts::container::network_file_system(store);
    findings.push(checks::container::state(store, network, known.map_or(BasisChoice::Auto, |known| known.lease)));
    findings
}

fn check_openclaw(examined: &SettingsFacts, unit: Option<&UnitFacts>, pid: Option<i32>) -> Vec<Finding> {
    let mut findings = checks::openclaw::settings(examined);
    if let Ok(settings) = &examined.settings {
        let found = OpenclawPackage::of(settings);
        let node =
            if found.is_some() { NodeFacts::find(settings, examined.path.as_deref()) } else { NodeFacts::Missing };
        findings.extend(checks::openclaw::runtime(found.as_ref(), &node));
    }
    let of_unit = unit.filter(|_| pid.is_none()).and_then(|unit| unit.get("LimitNOFILESoft"));
    let (soft, fix) = match unit {
        Some(unit) => (of_unit.and_then(|limit| limit.parse().ok()), unit.line("Service", "LimitNOFILE=65536")),
        None => (None, "ulimit -n 65536".to_owned()),
    };
    let soft = soft.or_else(|| if of_unit.is_some() { None } else { facts::openclaw::soft_limit(pid) });
    findings.push(checks::openclaw::open_files(soft, fix));
    findings
}

/// The port and the store of the examined settings. `asked`: the store in the settings of `doctor`.
async fn gateway_facts(
    settings: &DoctorSettings,
    examined: &SettingsFacts,
    asked: StoreFacts,
    unit: Option<&UnitFacts>,
) -> GatewayFacts {
    let planned = examined.settings.as_deref().ok();
    let forbidden = examined.other_user.as_deref().filter(|_| !rustix::process::geteuid().is_root());
    let store = match (forbidden, planned.map(|planned| planned.store_dir.as_path())) {
        _ if asked.running().is_some() => asked,
        (Some(user), _) => StoreFacts::forbidden(user),
        (None, Some(place)) if place != settings.subject.store_dir => StoreFacts::gather(place).await,
        _ => asked,
    };
    let endpoint = planned.map_or(&settings.endpoint, |planned| &planned.endpoint);
    let endpoint = store.url.as_deref().and_then(|url| endpoint.at(url)).unwrap_or_else(|| endpoint.clone());
    let state_dir = planned.or(settings.run.as_deref().ok()).map(|planned| planned.state_dir.as_path());
    let observation = probe(&endpoint, settings, state_dir).await;
    let unit = port_unit(&observation, examined, unit);
    GatewayFacts { url: endpoint.to_string(), observation, store, unit }
}

fn port_unit(observation: &Observation, examined: &SettingsFacts, unit: Option<&UnitFacts>) -> PortUnit {
    let Some(unit) = unit.filter(|unit| unit.is_active()) else { return PortUnit::No };
    match observation.holder() {
        Some(holder) if proc::cgroup_of(holder.pid).is_some_and(|group| unit.holds(&group)) => {
            PortUnit::Yes(unit.id().to_owned())
        }
        None if examined.other_user.is_some() => PortUnit::Unknown(unit.id().to_owned()),
        _ => PortUnit::No,
    }
}

async fn probe(endpoint: &Endpoint, settings: &DoctorSettings, state_dir: Option<&Path>) -> Observation {
    let prober = Prober::new(endpoint.clone(), settings.probe_timeout);
    let prober = match state_dir {
        Some(state_dir) => prober.with_state_dir(state_dir.to_owned()),
        None => prober,
    };
    let observation = prober.look(Look::AnswersAndOwner { leader: None }).await;
    if observation.verdict == Verdict::Inconclusive {
        // Descriptors or memory may have been exhausted for a moment only.
        return prober.look(Look::AnswersAndOwner { leader: None }).await;
    }
    observation
}
