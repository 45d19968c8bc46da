//! `doctor`: says why the gateway is down, checks the installation for what will fail, and prints the line that mends it. It
//! changes nothing without `--fix`.
//!
//! `facts` asks systemd, launchd, the store and the kernel; `checks` are pure functions from facts to findings.

mod checks;
mod facts;
mod finding;
mod fix;
pub(super) mod installed;
pub(super) mod service;

#[cfg(any(test, feature = "fuzzing"))]
pub use facts::systemd::read_any;

use super::install;
use super::terminal::Terminal;
use crate::core::report::human;
use crate::core::{Endpoint, Observation, Verdict, exit};
use crate::gateway::probe::{Look, Prober};
use crate::host::{clock, manager};
use crate::platform::thread::BlockingCall;
use crate::platform::{group_limits, machine, proc, system_calls};
use crate::settings::{DoctorSettings, Settings};
use crate::store::BasisChoice;
use checks::MOUNT_FIX;
use checks::gateway::{GatewayFacts, HolderFacts, PortUnit};
use checks::services::PortService;
use facts::container::MIB;
use facts::openclaw::{NodeFacts, OpenclawPackage};
use facts::program::ProgramError;
use facts::service_manager::{self, SystemdManager};
use facts::settings::{SettingsFacts, SettingsOrigin};
use facts::store::{LeaseFacts, SocketFacts, StoreFacts};
use facts::systemd::{ManagerFacts, UnitFacts};
use finding::{Finding, Level};
use nix::unistd::User;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Writes the findings and returns the exit code. With `--fix` it mends first, and checks again.
pub async fn run(settings: &DoctorSettings, out: &mut impl io::Write) -> io::Result<u8> {
    let mut diagnosis = diagnose_in_time(settings).await;
    let mut actions = None;
    if let Some(fix) = settings.fix {
        let done = fix::run(&diagnosis.findings, diagnosis.unit.as_ref(), fix.dry_run);
        if !fix.dry_run {
            diagnosis = diagnose_in_time(settings).await;
        }
        actions = Some(done);
    }
    let findings = &diagnosis.findings;
    let text = if settings.json {
        let mut object = finding::as_json(findings);
        if let Some(actions) = &actions {
            object["actions"] = fix::as_json(actions);
        }
        object.to_string()
    } else {
        let text = finding::as_text(findings, &Terminal::of(&io::stdout()));
        actions.as_ref().map_or(text.clone(), |actions| format!("{}\n\n{text}", fix::as_text(actions)))
    };
    let has_failed = finding::has_failed(findings) || actions.iter().flatten().any(fix::Action::has_failed);
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // Without a reader the exit code still tells.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(if has_failed { exit::FAILURE } else { exit::OK }),
    }
}

/// The findings, and the unit that they are about.
struct Diagnosis {
    findings: Vec<Finding>,
    unit: Option<UnitFacts>,
}

/// Many times what it takes. A file of another service may be on a file server that is gone.
const TIME_MAX: Duration = Duration::from_mins(1);

async fn diagnose_in_time(settings: &DoctorSettings) -> Diagnosis {
    let copy = settings.clone();
    let look = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        io::Result::Ok(runtime.block_on(Box::pin(diagnose(&copy))))
    };
    match BlockingCall::default().run(TIME_MAX, look).await.flatten() {
        Ok(diagnosis) => diagnosis,
        Err(error) if error.kind() == io::ErrorKind::TimedOut => {
            let finding = Finding::fail(
                "doctor",
                format!("the checks have not ended within {}", human(TIME_MAX)),
                "a file that a service here uses does not answer; it is most likely on a network file system with a dead server",
                MOUNT_FIX,
            );
            Diagnosis { findings: vec![finding], unit: None }
        }
        // No thread, or no descriptors, which is among what it finds.
        Err(_) => diagnose(settings).await,
    }
}

async fn diagnose(settings: &DoctorSettings) -> Diagnosis {
    let managers = if cfg!(target_os = "macos") { Vec::new() } else { facts::systemd::gather() };
    let units: Vec<&UnitFacts> = managers.iter().flat_map(|manager| manager.units.iter().flatten()).collect();
    let services = services(&managers, &units);
    let port = settings.endpoint.port;
    let ours: Vec<&UnitFacts> = units.iter().copied().filter(|unit| unit.runs_us()).collect();
    let is_on_port =
        |unit: &UnitFacts| services.iter().any(|service| service.unit == unit && service.port == Some(port));
    let mut asked = StoreFacts::gather(&settings.subject.store_dir).await;
    // A supervisor that runs is of more interest than a default that was never used.
    let is_unused = asked.lease == LeaseFacts::Unused && asked.socket == SocketFacts::Absent;
    if is_unused
        && !settings.is_target_named
        && !ours.iter().any(|unit| unit.is_active())
        && let Some(dir) = facts::store::claimed().await
    {
        asked = StoreFacts::gather(&dir).await;
    }
    let has_record = asked.lease != LeaseFacts::Unused;
    let is_of_record = |unit: &UnitFacts| {
        has_record
            && services.iter().any(|service| service.unit == unit && service.store_dir.as_ref() == Some(&asked.dir))
    };
    let is_asked_for = |unit: &UnitFacts| is_of_record(unit) || settings.is_target_named && is_on_port(unit);
    let chosen = checks::unit::choose(&ours, asked.running(), is_asked_for, is_on_port);
    let pid = asked.running().or_else(|| chosen.and_then(UnitFacts::main_pid));
    let examined = settings_facts(settings, chosen, pid, &managers);
    let gateway = gateway_facts(settings, &examined, asked, chosen).await;
    let pid = gateway.store.running().or(pid);

    let mut findings = now(&examined, &gateway, chosen);
    findings.extend(slow_managers(&managers));
    let (offline, silent) =
        if cfg!(target_os = "macos") { (Vec::new(), Vec::new()) } else { facts::unit_files::offline() };
    let is_last = |at| at + 1 == facts::unit_files::SILENT_MAX;
    findings.extend(silent.iter().enumerate().map(|(at, home)| checks::services::silent_home(home, is_last(at))));
    findings.extend(offline.iter().map(|unit| checks::services::offline(unit, chosen.is_none())));
    findings.extend(match chosen {
        Some(unit) => check_unit(unit, &examined),
        None if !offline.is_empty() => Vec::new(),
        None if cfg!(target_os = "macos") => {
            checks::launchd::check(&facts::launchd::gather(), examined.settings.as_deref().ok())
        }
        None => vec![checks::services::no_unit(&available(&managers), examined.process_manager)],
    });
    // A gateway that runs may serve elsewhere than its settings say.
    let served = gateway.port;
    if !available(&managers).is_empty() {
        let program = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("openclaw-supervise"));
        findings.extend(checks::services::openclaws(&services, served, &program));
        findings.extend(chosen.and_then(|unit| checks::services::duplicate(&services, unit)));
        findings.extend(chosen.iter().flat_map(|unit| checks::services::others(&ours, unit)));
    }
    findings.push(checks::kernel::system_calls(system_calls::shortfall()));
    findings.extend(check_container(&examined, chosen.is_some(), settings));
    findings.extend(check_machine(settings, &examined, &gateway, pid));
    findings.extend(check_openclaw(&examined, chosen, pid, &gateway));
    // The settings of another account say nothing about this one's.
    if examined.origin != SettingsOrigin::Ourselves && (settings.is_target_named || examined.other_user.is_none()) {
        let service = chosen.map_or_else(|| "the supervisor".to_owned(), |unit| unit.id().to_owned());
        findings.extend(checks::gateway::agreement(served, port, &service));
    }
    Diagnosis { findings, unit: chosen.cloned() }
}

/// What holds now: of the service, the supervisor, the gateway and its port.
fn now(examined: &SettingsFacts, gateway: &GatewayFacts, chosen: Option<&UnitFacts>) -> Vec<Finding> {
    let ended = gateway.store.past.ended.as_ref();
    let loaded = chosen.filter(|unit| unit.get("LoadState").is_none_or(|state| state == "loaded"));
    let service = loaded.map(|unit| checks::unit_state::check(unit, ended));
    let is_told = service.as_ref().is_some_and(|finding| {
        let is_stop = ended.is_none_or(|ended| ended.code == exit::OK);
        finding.level == Level::Fail || finding.level == Level::Warn && is_stop
    });
    let advice = checks::outage::OutageAdvice {
        start: start_command(chosen, examined),
        store_option: gateway.store_option.clone(),
        is_told,
        now_ms: clock::wall_ms(),
    };
    let mut findings: Vec<Finding> = service.into_iter().collect();
    findings.extend(checks::outage::check(&gateway.store, &advice));
    findings.extend(checks::gateway::check(gateway));
    findings
}

fn shell_word(path: &Path) -> String {
    let text = path.to_string_lossy();
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "_-./@+:".contains(letter);
    if text.chars().all(is_plain) { text.into_owned() } else { format!("'{}'", text.replace('\'', r"'\''")) }
}

/// What starts the supervisor where it belongs.
fn start_command(unit: Option<&UnitFacts>, examined: &SettingsFacts) -> String {
    match (unit, examined.process_manager, &examined.container) {
        (Some(unit), ..) => format!("{} start {}", unit.manager.systemctl(), unit.id()),
        (None, Some(manager), _) => format!("start its service of {}", manager.name()),
        (None, None, Some(_)) => "restart the container".to_owned(),
        (None, None, None) if cfg!(target_os = "macos") => {
            format!("launchctl kickstart gui/{}/ai.openclaw.supervise", rustix::process::getuid().as_raw())
        }
        (None, None, None) => "openclaw-supervise run, or openclaw-supervise install".to_owned(),
    }
}

/// The managers that answered.
fn available(managers: &[ManagerFacts]) -> Vec<SystemdManager> {
    managers.iter().filter(|manager| manager.units.is_ok()).map(|manager| manager.manager.clone()).collect()
}

/// One that is not running is no finding.
fn slow_managers(managers: &[ManagerFacts]) -> Vec<Finding> {
    let slow = managers.iter().filter_map(|manager| match &manager.units {
        Err(error @ ProgramError::TimedOut(_)) => Some((&manager.manager, error)),
        _ => None,
    });
    let slow = slow.map(|(manager, error)| {
        let why = format!("the units of the {} are unknown", manager.name());
        Finding::warn("unit", error.to_string(), why, format!("{} status", manager.systemctl()))
    });
    let unread = managers.iter().filter(|manager| !manager.has_files).map(|manager| {
        let found = format!("the unit files of the {} do not answer", manager.manager.name());
        let why =
            "a disabled unit would not be found; they are most likely on a network file system with a dead server";
        Finding::warn("unit", found, why, MOUNT_FIX)
    });
    slow.chain(unread).collect()
}

/// The units with the ports of their gateways.
fn services<'a>(managers: &[ManagerFacts], units: &[&'a UnitFacts]) -> Vec<PortService<'a>> {
    let of = |unit: &'a UnitFacts| {
        let settings =
            unit.runs_us().then(|| unit_settings(unit, managers)).flatten().and_then(|unit| unit.settings.ok());
        let (port, store_dir) = settings.map(|settings| (settings.endpoint.port, settings.store_dir)).unzip();
        let manager = || managers.iter().find(|manager| manager.manager == unit.manager);
        let configured = || SettingsFacts::port_of_gateway(unit, manager().filter(|_| unit.runs_gateway())?);
        PortService { unit, port: port.or_else(|| checks::services::port_of(unit)).or_else(configured), store_dir }
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
    let linger = match &unit.manager {
        SystemdManager::System => None,
        SystemdManager::User => service_manager::user_name().and_then(|user| lingers(&user)),
        SystemdManager::Account(user) => lingers(user),
    };
    let mut findings = checks::unit::identity(unit, linger);
    let renewal = unit.get("FragmentPath").and_then(|path| install::renewal(Path::new(path)));
    findings.extend(renewal.map(checks::unit::outdated));
    if unit.get("LoadState").is_none_or(|state| state == "loaded") {
        let path = unit.command().map(|(path, _)| path).unwrap_or_default();
        let replaced = unit.main_pid().and_then(|pid| checks::unit::was_replaced(pid, &path));
        findings.push(checks::unit::program(unit, &checks::unit::program_file(unit), replaced));
        findings.extend(checks::directives::check(unit, examined.settings.as_deref().ok()));
    }
    findings
}

/// Whether the services of a user outlive its last logout, see loginctl(1).
fn lingers(user: &str) -> Option<bool> {
    if Path::new("/var/lib/systemd/linger").join(user).exists() {
        return Some(true);
    }
    let mut command = Command::new("loginctl");
    command.args(["show-user", "-p", "Linger", "--value", "--", user]).env("LC_ALL", "C");
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
    let heap = known.and_then(|known| known.heap.mib?.checked_mul(MIB));
    let container = facts::container::gather(pid, examined.container.as_ref(), heap, limit, stop);
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

fn check_machine(
    settings: &DoctorSettings,
    examined: &SettingsFacts,
    gateway: &GatewayFacts,
    pid: Option<i32>,
) -> Vec<Finding> {
    let state_dir =
        examined.settings.as_deref().or(settings.run.as_deref()).ok().map(|known| known.state_dir.as_path());
    let dirs: Vec<&Path> = state_dir.into_iter().chain([gateway.store.dir.as_path()]).collect();
    let here = pid.or_else(|| Some(std::process::id().cast_signed()));
    let serving = gateway.store.reply.as_ref().and_then(|reply| reply.gateway.as_ref()?.pid).or(gateway.store.gateway);
    let facts = facts::machine::gather(here, serving, &dirs, gateway.store.past.newest);
    checks::machine::check(&facts, examined.container.is_some())
}

fn check_openclaw(
    examined: &SettingsFacts,
    unit: Option<&UnitFacts>,
    pid: Option<i32>,
    gateway: &GatewayFacts,
) -> Vec<Finding> {
    let mut findings = checks::openclaw::settings(examined);
    findings.extend(checks::openclaw::bared(examined));
    if let Ok(settings) = &examined.settings {
        let found = OpenclawPackage::of(settings);
        let age = gateway.store.reply.as_ref().and_then(|reply| i64::try_from(reply.gateway.as_ref()?.age_ms?).ok());
        let started = age.map(|age| clock::wall_ms().saturating_sub(age));
        findings.extend(
            found
                .as_ref()
                .zip(started)
                .and_then(|(package, at)| checks::openclaw::update(package, at, &gateway.store_option)),
        );
        findings.push(checks::openclaw::launcher(&settings.command, settings.policy.handoff));
        findings.push(heap_limit(settings, pid, gateway));
        let node =
            if found.is_some() { NodeFacts::find(settings, examined.path.as_deref()) } else { NodeFacts::Missing };
        findings.extend(checks::openclaw::runtime(found.as_ref(), &node));
    }
    let of_unit = unit.filter(|_| pid.is_none()).and_then(|unit| unit.get("LimitNOFILESoft"));
    let (soft, fix) = match unit {
        Some(unit) => (of_unit.and_then(|limit| limit.parse().ok()), unit.line("Service", "LimitNOFILE=65536")),
        None => (None, "ulimit -n 65536".into()),
    };
    let soft = soft.or_else(|| if of_unit.is_some() { None } else { facts::openclaw::soft_limit(pid) });
    findings.push(checks::openclaw::open_files(soft, fix));
    findings
}

/// Of the gateway that runs, as its supervisor says, else of the next one.
fn heap_limit(settings: &Settings, pid: Option<i32>, gateway: &GatewayFacts) -> Finding {
    let running = gateway.store.reply.as_ref().map(|reply| &reply.supervisor);
    let running = running.and_then(|supervisor| Some((supervisor.heap_mib, supervisor.heap_source.clone()?)));
    let (mib, source) = running.unwrap_or_else(|| (settings.heap.mib, settings.heap.source.clone()));
    let limit = pid.and_then(|pid| group_limits::of(pid).memory);
    let memory = machine::memory().map(|total| limit.map_or(total, |limit| limit.min(total)) / MIB);
    checks::openclaw::heap_limit(mib, &source, memory)
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
        (Some(user), place) => StoreFacts::forbidden(place.unwrap_or(&settings.subject.store_dir), user),
        (None, Some(place)) if place != asked.dir => StoreFacts::gather(place).await,
        _ => asked,
    };
    let planned_endpoint = planned.map_or(&settings.endpoint, |planned| &planned.endpoint);
    let running = store.url().and_then(|url| planned_endpoint.at(url));
    // The record knows a port that stood in the gateway's command; a command line or a unit that names one is newer.
    let is_default = examined.origin == SettingsOrigin::Ourselves && !settings.is_target_named || planned.is_none();
    let recorded =
        store.place.clone().filter(|_| is_default).and_then(|(host, port)| {
            planned_endpoint.at(&Endpoint { host, port, ..planned_endpoint.clone() }.to_string())
        });
    let endpoint = running.or(recorded).unwrap_or_else(|| planned_endpoint.clone());
    let state_dir = planned.or(settings.run.as_deref().ok()).map(|planned| planned.state_dir.as_path());
    let observation = probe(&endpoint, settings, state_dir).await;
    let holder = HolderFacts {
        user: observation.holder_uid().and_then(|uid| Some(User::from_uid(uid.into()).ok()??.name)),
        service: observation.holder().and_then(|holder| manager::service_of(holder.pid)),
    };
    let unit = port_unit(&observation, examined, unit);
    let is_default = !settings.is_target_named && store.dir == settings.subject.store_dir;
    let store_option = if is_default { String::new() } else { format!(" --store-dir {}", shell_word(&store.dir)) };
    GatewayFacts { url: endpoint.to_string(), port: endpoint.port, observation, store, unit, holder, store_option }
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
