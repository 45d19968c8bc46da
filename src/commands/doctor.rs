//! `doctor`: tells before the night what will go wrong, and the line that prevents it. It changes nothing.

mod command_line;
mod container;
mod directives;
mod finding;
mod gateway;
mod launchd;
mod package;
mod plan;
mod program;
mod service;
mod store;
mod systemd;
mod unit;

use crate::core::{Observation, Verdict, exit};
use crate::gateway::endpoint::Endpoint;
use crate::gateway::probe::{Look, Prober};
use crate::platform::proc;
use crate::settings::{DoctorSettings, LeaseBasis};
use finding::Finding;
use gateway::{Facts, Keeper};
use package::{Node, Package};
use plan::{Origin, Plan};
use program::Trouble;
use service::Service;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use store::Store;
use systemd::{Manager, Told, Unit};

/// Looks everywhere, writes what it found and returns the exit code.
pub async fn run(settings: &DoctorSettings, out: &mut impl io::Write) -> io::Result<u8> {
    let findings = diagnose(settings).await;
    let text = if settings.json { finding::as_json(&findings).to_string() } else { finding::as_text(&findings) };
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // A reader that has gone away still learns it from the exit code.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(if finding::has_failed(&findings) { exit::FAILURE } else { exit::OK }),
    }
}

async fn diagnose(settings: &DoctorSettings) -> Vec<Finding> {
    let told = if cfg!(target_os = "macos") { Vec::new() } else { systemd::ask().to_vec() };
    let units: Vec<&Unit> = told.iter().flat_map(|told| told.units.iter().flatten()).collect();
    let services = services(&told, &units);
    let port = settings.endpoint.port;
    let ours: Vec<&Unit> = units.iter().copied().filter(|unit| unit.runs_us()).collect();
    let is_on_port = |unit: &Unit| services.iter().any(|service| service.unit == unit && service.port == Some(port));
    let asked = Store::ask(&settings.subject.store_dir).await;
    let chosen = unit::choose(&ours, asked.running(), is_on_port);
    let pid = asked.running().or_else(|| chosen.and_then(Unit::main_pid));
    let plan = plan(settings, chosen, pid, &told);
    let facts = look(settings, &plan, asked, chosen).await;
    let pid = facts.store.running().or(pid);

    let mut findings = troubles(&told);
    findings.extend(match chosen {
        Some(unit) => of_unit(unit, &plan),
        None if cfg!(target_os = "macos") => launchd::check(&launchd::gather(), plan.settings.as_deref().ok()),
        None => vec![service::none(&managers(&told))],
    });
    let counts = plan.settings.as_ref().map_or(port, |settings| settings.endpoint.port);
    if !managers(&told).is_empty() {
        let ours = std::env::current_exe().unwrap_or_else(|_| PathBuf::from("openclaw-supervise"));
        findings.extend(service::openclaws(&services, counts, &ours));
        findings.extend(chosen.and_then(|unit| service::doubles(&services, unit)));
    }
    findings.extend(of_surroundings(&plan, chosen.is_some(), settings));
    findings.extend(of_package(&plan, chosen, pid));
    findings.extend(gateway::check(&facts));
    if plan.origin != Origin::Ourselves {
        let whose = chosen.map_or_else(|| "the supervisor".to_owned(), |unit| unit.id().to_owned());
        findings.extend(gateway::agreement(counts, port, &whose));
    }
    findings
}

/// The managers that are there.
fn managers(told: &[Told]) -> Vec<Manager> {
    told.iter().filter(|told| told.units.is_ok()).map(|told| told.manager).collect()
}

/// A manager that hangs; one that is not there is no trouble.
fn troubles(told: &[Told]) -> Vec<Finding> {
    let late = told.iter().filter_map(|told| match &told.units {
        Err(trouble @ Trouble::Late(_)) => Some((told.manager, trouble)),
        _ => None,
    });
    late.map(|(manager, trouble)| {
        let why = format!("what {} has for us is not known", manager.name());
        Finding::warn("unit", trouble.to_string(), why, format!("{} status", manager.systemctl()))
    })
    .collect()
}

/// The units with the ports that they would serve.
fn services<'a>(told: &[Told], units: &[&'a Unit]) -> Vec<Service<'a>> {
    let of = |unit: &'a Unit| {
        let told = told.iter().find(|told| told.manager == unit.manager);
        let plan = told.filter(|_| unit.runs_us()).and_then(|told| Plan::of_unit(unit, told));
        let planned = plan.and_then(|plan| plan.settings.ok()).map(|settings| settings.endpoint.port);
        Service { unit, port: planned.or_else(|| service::port_of(unit)) }
    };
    units.iter().map(|unit| of(unit)).collect()
}

/// The settings that count.
fn plan(settings: &DoctorSettings, unit: Option<&Unit>, pid: Option<i32>, told: &[Told]) -> Plan {
    let of_unit = || {
        let unit = unit?;
        Plan::of_unit(unit, told.iter().find(|told| told.manager == unit.manager)?)
    };
    // In a container nothing else but process 1 can have been told what the image says.
    pid.and_then(Plan::of_process)
        .or_else(of_unit)
        .or_else(|| proc::command_of(1).filter(|init| container::is_ours(init)).and_then(|_| Plan::of_process(1)))
        .unwrap_or_else(|| Plan::of_ourselves(settings.run.clone()))
}

fn of_unit(unit: &Unit, plan: &Plan) -> Vec<Finding> {
    let linger = if unit.manager == Manager::User { lingers() } else { None };
    let mut findings = unit::identity(unit, linger);
    if unit.get("LoadState").is_none_or(|state| state == "loaded") {
        let path = unit.command().map(|(path, _)| path).unwrap_or_default();
        let replaced = unit.main_pid().and_then(|pid| unit::was_replaced(pid, &path));
        findings.push(unit::program(unit, &unit::look_at_program(unit), replaced));
        findings.extend(directives::check(unit, plan.settings.as_deref().ok()));
    }
    findings
}

/// Whether the services of our user outlive its last logout.
fn lingers() -> Option<bool> {
    let user = systemd::user_name()?;
    if Path::new("/var/lib/systemd/linger").join(&user).exists() {
        return Some(true);
    }
    let mut command = Command::new("loginctl");
    command.args(["show-user", "-p", "Linger", "--value", "--", &user]).env("LC_ALL", "C");
    match program::ask(command) {
        Ok(answer) => Some(answer.trim() == "yes"),
        // It knows nobody who is not logged in and does not linger.
        Err(Trouble::Mute(_)) => Some(false),
        Err(_) => None,
    }
}

fn of_surroundings(plan: &Plan, has_unit: bool, settings: &DoctorSettings) -> Vec<Finding> {
    let known = plan.settings.as_deref().ok();
    let limit = known.and_then(|known| known.policy.memory_max_kb);
    // A unit has its own word on that.
    let stop = known.filter(|_| !has_unit).map(|known| known.policy.stop_timeout);
    let facts = container::gather(plan.node_options.as_deref(), limit, stop);
    let mut findings = container::check(&facts);
    if let Some(stop) = stop.filter(|_| facts.sign.is_none() && !cfg!(target_os = "macos")) {
        findings.push(package::stop_timeout(stop));
    }
    let store = known.map_or(settings.subject.store_dir.as_path(), |known| &known.store_dir);
    findings.push(container::state(store, known.map_or(LeaseBasis::Auto, |known| known.lease)));
    findings
}

fn of_package(plan: &Plan, unit: Option<&Unit>, pid: Option<i32>) -> Vec<Finding> {
    let mut findings = package::settings(plan);
    if let Ok(settings) = &plan.settings {
        let found = Package::of(settings);
        let node = if found.is_some() { Node::find(settings, plan.path.as_deref()) } else { Node::Missing };
        findings.extend(package::runtime(found.as_ref(), &node));
    }
    let of_unit = unit.filter(|_| pid.is_none()).and_then(|unit| unit.get("LimitNOFILESoft"));
    let (soft, fix) = match unit {
        Some(unit) => (of_unit.and_then(|limit| limit.parse().ok()), unit.line("Service", "LimitNOFILE=65536")),
        None => (None, "ulimit -n 65536".to_owned()),
    };
    let soft = soft.or_else(|| if of_unit.is_some() { None } else { package::soft_limit(pid) });
    findings.push(package::open_files(soft, fix));
    findings
}

/// Looks at the port and into the store, those of the plan. `asked`: the store of whoever asks.
async fn look(settings: &DoctorSettings, plan: &Plan, asked: Store, unit: Option<&Unit>) -> Facts {
    let planned = plan.settings.as_deref().ok();
    let hidden = plan.other_user.as_deref().filter(|_| !rustix::process::geteuid().is_root());
    let store = match (hidden, planned.map(|planned| planned.store_dir.as_path())) {
        _ if asked.running().is_some() => asked,
        (Some(user), _) => Store::closed(user),
        (None, Some(place)) if place != settings.subject.store_dir => Store::ask(place).await,
        _ => asked,
    };
    let endpoint = planned.map_or(&settings.endpoint, |planned| &planned.endpoint);
    let endpoint = store.url.as_deref().and_then(|url| endpoint.at(url)).unwrap_or_else(|| endpoint.clone());
    let state_dir = planned.or(settings.run.as_deref().ok()).map(|planned| planned.state_dir.as_path());
    let sighting = probe(&endpoint, settings, state_dir).await;
    let keeper = keeper(&sighting, plan, unit);
    Facts { url: endpoint.to_string(), sighting, store, keeper }
}

/// Whether the unit has who holds the port.
fn keeper(sighting: &Observation, plan: &Plan, unit: Option<&Unit>) -> Keeper {
    let Some(unit) = unit.filter(|unit| unit.is_active()) else { return Keeper::Nobody };
    match sighting.holder() {
        Some(holder) if proc::cgroup_of(holder.pid).is_some_and(|group| unit.holds(&group)) => {
            Keeper::Unit(unit.id().to_owned())
        }
        None if plan.other_user.is_some() => Keeper::Perhaps(unit.id().to_owned()),
        _ => Keeper::Nobody,
    }
}

async fn probe(endpoint: &Endpoint, settings: &DoctorSettings, state_dir: Option<&Path>) -> Observation {
    let prober = Prober::new(endpoint.clone(), settings.probe_timeout);
    let prober = match state_dir {
        Some(state_dir) => prober.with_state_dir(state_dir.to_owned()),
        None => prober,
    };
    let sighting = prober.look(Look::AnswersAndOwner { leader: None }).await;
    if sighting.verdict == Verdict::Inconclusive {
        // Once more: what was missing for a moment may be there again.
        return prober.look(Look::AnswersAndOwner { leader: None }).await;
    }
    sighting
}
