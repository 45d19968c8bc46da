//! Other services for the same port: OpenClaw's own units, and further units of ours.

use crate::commands::doctor::facts::service_manager::SystemdManager;
use crate::commands::doctor::facts::systemd::UnitFacts;
use crate::commands::doctor::facts::unit_files::OfflineUnit;
use crate::commands::doctor::finding::Finding;
use crate::host::manager::ProcessManager;
use std::path::{Path, PathBuf};

/// A unit and the port of its gateway, if that is known.
#[derive(Debug, Clone)]
pub(in super::super) struct PortService<'a> {
    pub(in super::super) unit: &'a UnitFacts,
    pub(in super::super) port: Option<u16>,
    /// Of one that starts us, if it is known.
    pub(in super::super) store_dir: Option<PathBuf>,
}

/// The port in the arguments of a unit, else in its environment.
pub(in super::super) fn port_of(unit: &UnitFacts) -> Option<u16> {
    let words = unit.command().map(|(_, words)| words).unwrap_or_default();
    let inline = words.iter().rev().find_map(|word| word.strip_prefix("--port="));
    let apart =
        || words.iter().zip(words.iter().skip(1)).rev().find(|(word, _)| *word == "--port").map(|(_, port)| &**port);
    let variable = || unit.variables().get("OPENCLAW_GATEWAY_PORT").and_then(|port| port.to_str().map(str::to_owned));
    inline.or_else(apart).and_then(|port| port.parse().ok()).or_else(|| variable()?.trim().parse().ok())
}

/// The services that are on and start a gateway without us, OpenClaw's own among them. `ours` is the path of this program.
pub(in super::super) fn openclaws(services: &[PortService<'_>], port: u16, ours: &Path) -> Vec<Finding> {
    let check = "second service";
    let own = services.iter().filter(|service| is_openclaws(service.unit) || service.unit.runs_gateway());
    let findings: Vec<Finding> = own
        .filter(|service| service.unit.is_active() || service.unit.is_enabled())
        .map(|service| {
            let (unit, systemctl) = (service.unit, service.unit.manager.systemctl());
            let id = unit.id();
            if unit.runs_us() {
                return Finding::ok(check, format!("{id} ({}) starts this supervisor", unit.manager.name()));
            }
            if let Some(other) = service.port.filter(|other| *other != port) {
                return Finding::ok(check, format!("{id} serves port {other}"));
            }
            let state = if unit.is_active() { "running" } else { "enabled" };
            let wrapper = format!(
                "; or let it start this supervisor: openclaw gateway install --wrapper {} --force",
                ours.display()
            );
            let wrapper = if is_openclaws(unit) { wrapper } else { String::new() };
            Finding::fail(
                check,
                format!("{id} ({}) is {state} for the same port {port}", unit.manager.name()),
                "the two compete for the port, and one of them exits with 78 at every start",
                format!("{systemctl} disable --now {id}{wrapper}"),
            )
        })
        .collect();
    if findings.is_empty() { vec![Finding::ok(check, "no other service starts a gateway")] } else { findings }
}

fn is_openclaws(unit: &UnitFacts) -> bool {
    unit.id().starts_with("openclaw-gateway")
}

/// Another unit of ours that is on for the port of the chosen one.
pub(in super::super) fn duplicate(services: &[PortService<'_>], chosen: &UnitFacts) -> Option<Finding> {
    let port = services.iter().find(|service| service.unit == chosen).map(|service| service.port);
    let is_duplicate = |service: &&PortService<'_>| {
        service.unit != chosen
            && service.unit.runs_us()
            && (service.unit.is_active() || service.unit.is_enabled())
            && Some(service.port) == port
    };
    let duplicate = services.iter().find(is_duplicate)?.unit;
    let fix = format!("{} disable --now {}", duplicate.manager.systemctl(), duplicate.id());
    Some(Finding::fail(
        "second service",
        format!("{} ({}) also starts this supervisor for the same port", duplicate.id(), duplicate.manager.name()),
        "one of the two supervisors exits with 78 at every start",
        fix,
    ))
}

/// The other units of ours, each with what keeps it from starting.
pub(in super::super) fn others(ours: &[&UnitFacts], chosen: &UnitFacts) -> Vec<Finding> {
    let is_other = |unit: &&&UnitFacts| {
        // An instance that is not on exists only because `systemctl show` was asked for it.
        let is_on = unit.is_active() || unit.is_enabled() || unit.get("ActiveState") == Some("failed");
        **unit != chosen && (is_on || !unit.id().contains('@'))
    };
    ours.iter().filter(is_other).map(|unit| other(unit)).collect()
}

fn other(unit: &UnitFacts) -> Finding {
    if unit.is_enabled() || unit.is_active() || unit.get("ActiveState") == Some("failed") {
        return super::unit_state::check(unit, None);
    }
    let state = if unit.is_masked() {
        "masked"
    } else if unit.is_transient() {
        "transient"
    } else {
        unit.get("UnitFileState").unwrap_or("not enabled")
    };
    Finding::ok(
        "other unit",
        format!("{} ({}) starts this supervisor too: it is {state}", unit.id(), unit.manager.name()),
    )
}

/// A home that is waited for in vain. `is_last`: those after it were not looked into.
pub(in super::super) fn silent_home(home: &Path, is_last: bool) -> Finding {
    let rest = if is_last { ", and the homes after it were not looked into" } else { "" };
    Finding::warn(
        "other unit",
        format!("{} does not answer, so its units are unknown{rest}", home.display()),
        "it is most likely on a network file system with a dead server",
        super::MOUNT_FIX,
    )
}

/// A unit of a user without a running manager. `is_only`: there is no other unit of ours.
pub(in super::super) fn offline(unit: &OfflineUnit, is_only: bool) -> Finding {
    let OfflineUnit { path, user, is_enabled } = unit;
    let found = format!("{} of {user} starts this supervisor", path.display());
    if !is_enabled {
        return Finding::ok_since("other unit", found, "it is not enabled, and no user manager runs for that account");
    }
    let (found, why) = (
        format!("{found} and is enabled, but no user manager runs for {user}"),
        "without lingering systemd starts the services of a user at a login, and stops them at the last logout",
    );
    let fix = format!("loginctl enable-linger {user}");
    if is_only { Finding::fail("linger", found, why, fix) } else { Finding::warn("linger", found, why, fix) }
}

/// `managers`: those that answered, none of which has a unit of ours. `other`: what runs us instead.
pub(in super::super) fn no_unit(managers: &[SystemdManager], other: Option<ProcessManager>) -> Finding {
    if let Some(other) = other {
        return Finding::ok("unit", format!("{} runs openclaw-supervise", other.name()));
    }
    if managers.is_empty() {
        return Finding::ok("unit", "systemd is not running");
    }
    Finding::warn(
        "unit",
        "no systemd unit starts openclaw-supervise",
        "nothing starts it at boot or restarts it after a crash",
        "openclaw-supervise install",
    )
}

#[cfg(test)]
mod tests {
    use super::super::tests::listing;
    use super::*;
    use crate::commands::doctor::facts::systemd::tests::unit;

    const GATEWAY: &str = "{ path=/usr/bin/node ; argv[]=node openclaw.mjs gateway --port 18789 ; ignore_errors=no ; }";
    const IN_SHELL: &str =
        "{ path=/bin/sh ; argv[]=/bin/sh -c exec openclaw gateway run --port 18789 ; ignore_errors=no ; }";
    const WRAPPED: &str =
        "{ path=/opt/openclaw-supervise ; argv[]=/opt/openclaw-supervise gateway --port 18789 ; ignore_errors=no ; }";

    #[test]
    fn a_service_with_a_gateway_is_a_second_service_whatever_its_name_unless_it_starts_us() {
        let elsewhere = GATEWAY.replace("18789", "19001");
        let cases = [
            ("enabled", &[][..]),
            ("profile", &[("Id", "openclaw-gateway-work.service")]),
            ("running", &[("UnitFileState", "disabled"), ("ActiveState", "active")]),
            ("disabled", &[("UnitFileState", "disabled")]),
            ("starts us", &[("ExecStart", WRAPPED)]),
            ("another port", &[("ExecStart", "{ path=/n ; argv[]=n gateway --port=19001 ; ignore_errors=no ; }")]),
            ("unknown port", &[("ExecStart", "{ path=/n ; argv[]=n gateway ; ignore_errors=no ; }")]),
            ("any name", &[("Id", "assistant.service")]),
            ("any name, in a shell", &[("Id", "assistant.service"), ("ExecStart", IN_SHELL)]),
            ("any name, another port", &[("Id", "assistant.service"), ("ExecStart", &elsewhere)]),
        ];
        let ours = unit(&[]);
        insta::assert_snapshot!(listing(cases.map(|(case, changes)| {
            let own = unit(&[&[("Id", "openclaw-gateway.service"), ("ExecStart", GATEWAY)], changes].concat());
            let services = [&ours, &own].map(|unit| PortService { unit, port: port_of(unit), store_dir: None });
            (case, openclaws(&services, 18789, Path::new("/opt/openclaw-supervise")))
        })));
    }

    #[test]
    fn the_port_is_the_last_of_the_arguments_else_that_of_the_environment() {
        let port = |words: &str, environment: &str| {
            let exec = format!("{{ path=/n ; argv[]=n {words} ; ignore_errors=no ; }}");
            port_of(&unit(&[("ExecStart", &exec), ("Environment", environment)]))
        };
        assert_eq!(port("--port 1 --port 2", "OPENCLAW_GATEWAY_PORT=3"), Some(2));
        assert_eq!(port("--port=4", ""), Some(4));
        assert_eq!(port("gateway", "A=b OPENCLAW_GATEWAY_PORT=3"), Some(3));
        assert_eq!(port("gateway --port ${OPENCLAW_GATEWAY_PORT}", "OPENCLAW_GATEWAY_PORT=3"), Some(3));
        assert_eq!(port("gateway", ""), None);
    }

    #[test]
    fn a_unit_without_a_user_manager_and_one_that_is_off_are_told() {
        let offline = |is_enabled, is_only| {
            let unit = OfflineUnit { path: "/home/bob/x.service".into(), user: "bob".to_owned(), is_enabled };
            vec![offline(&unit, is_only)]
        };
        let ours = unit(&[]);
        let off = |changes: &[(&str, &str)]| {
            let second = unit(&[&[("Id", "second.service"), ("UnitFileState", "disabled")], changes].concat());
            others(&[&ours, &second], &ours)
        };
        insta::assert_snapshot!(listing([
            ("not enabled", offline(false, true)),
            ("enabled", offline(true, false)),
            ("the only one", offline(true, true)),
            ("disabled", off(&[])),
            ("masked", off(&[("UnitFileState", "masked-runtime")])),
            ("transient", off(&[("Transient", "yes"), ("UnitFileState", "transient")])),
            ("failed", off(&[("ActiveState", "failed"), ("ExecMainCode", "1"), ("ExecMainStatus", "1")])),
            ("an instance that is not on", off(&[("Id", "a@root.service")])),
        ]));
    }

    #[test]
    fn a_second_unit_of_ours_for_the_same_port_and_no_unit_at_all_are_found() {
        let (first, mut second) = (unit(&[]), unit(&[("Id", "second.service")]));
        second.manager = SystemdManager::User;
        let duplicate = |port| {
            let services =
                [(&first, Some(1)), (&second, port)].map(|(unit, port)| PortService { unit, port, store_dir: None });
            duplicate(&services, &first).into_iter().collect()
        };
        insta::assert_snapshot!(listing([
            ("same port", duplicate(Some(1))),
            ("another port", duplicate(Some(2))),
            ("no systemd", vec![no_unit(&[], None)]),
            ("no unit", vec![no_unit(&[SystemdManager::System], None)]),
            ("no unit, and runit", vec![no_unit(&[SystemdManager::System], Some(ProcessManager::Runit))]),
        ]));
    }
}
