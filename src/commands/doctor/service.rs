//! Other services for the same gateway: OpenClaw's own, and second ones of ours.

use super::finding::Finding;
use super::systemd::{Manager, Unit};
use std::path::Path;

/// A service that is there, and the port that it is for, if its unit says so.
#[derive(Debug, Clone, Copy)]
pub(super) struct Service<'a> {
    pub(super) unit: &'a Unit,
    pub(super) port: Option<u16>,
}

/// The port in a unit's command or variables.
pub(super) fn port_of(unit: &Unit) -> Option<u16> {
    let words = unit.command().map(|(_, words)| words).unwrap_or_default();
    let inline = words.iter().rev().find_map(|word| word.strip_prefix("--port="));
    let apart =
        || words.iter().zip(words.iter().skip(1)).rev().find(|(word, _)| *word == "--port").map(|(_, port)| &**port);
    let variable = || unit.variables().get("OPENCLAW_GATEWAY_PORT").and_then(|port| port.to_str().map(str::to_owned));
    inline.or_else(apart).and_then(|port| port.parse().ok()).or_else(|| variable()?.trim().parse().ok())
}

/// The gateway services of OpenClaw's own that do not start us. `ours` is how this program is called.
pub(super) fn openclaws(services: &[Service<'_>], port: u16, ours: &Path) -> Vec<Finding> {
    let check = "second service";
    let own = services.iter().filter(|service| is_openclaws(service.unit));
    let findings: Vec<Finding> = own
        .filter(|service| service.unit.is_active() || service.unit.is_enabled())
        .map(|service| {
            let (unit, systemctl) = (service.unit, service.unit.manager.systemctl());
            let id = unit.id();
            if unit.runs_us() {
                return Finding::ok(check, format!("{id} of {} starts us", unit.manager.name()));
            }
            if let Some(other) = service.port.filter(|other| *other != port) {
                return Finding::ok(check, format!("{id} is for port {other}"));
            }
            let state = if unit.is_active() { "runs" } else { "is enabled" };
            Finding::fail(
                check,
                format!("{id} of {} {state}, for the same port {port}", unit.manager.name()),
                "of two supervisors one ends with 78 at every start, and which of them is a matter of luck",
                format!(
                    "{systemctl} disable --now {id}; or have it start us: openclaw gateway install --wrapper {} --force",
                    ours.display()
                ),
            )
        })
        .collect();
    if findings.is_empty() { vec![Finding::ok(check, "no service of OpenClaw's own is on")] } else { findings }
}

fn is_openclaws(unit: &Unit) -> bool {
    unit.id().starts_with("openclaw-gateway")
}

/// Several units of ours that are on for one port.
pub(super) fn doubles(services: &[Service<'_>], chosen: &Unit) -> Option<Finding> {
    let port = services.iter().find(|service| service.unit == chosen).map(|service| service.port);
    let is_double = |service: &&Service<'_>| {
        service.unit != chosen
            && service.unit.runs_us()
            && (service.unit.is_active() || service.unit.is_enabled())
            && Some(service.port) == port
    };
    let double = services.iter().find(is_double)?.unit;
    let fix = format!("{} disable --now {}", double.manager.systemctl(), double.id());
    Some(Finding::fail(
        "second service",
        format!("{} of {} starts us as well, for the same port", double.id(), double.manager.name()),
        "of two supervisors one ends with 78 at every start",
        fix,
    ))
}

/// Where no unit runs us.
pub(super) fn none(managers: &[Manager]) -> Finding {
    if managers.is_empty() {
        return Finding::ok("unit", "no systemd here");
    }
    Finding::warn(
        "unit",
        "no unit of systemd runs this program",
        "nothing starts it at boot, or again after its own end",
        "openclaw-supervise install",
    )
}

#[cfg(test)]
mod tests {
    use super::super::finding::Level;
    use super::super::systemd::tests::unit;
    use super::*;

    const GATEWAY: &str = "{ path=/usr/bin/node ; argv[]=node openclaw.mjs gateway --port 18789 ; ignore_errors=no ; }";
    const WRAPPED: &str =
        "{ path=/opt/openclaw-supervise ; argv[]=/opt/openclaw-supervise gateway --port 18789 ; ignore_errors=no ; }";

    fn levels(changes: &[(&str, &str)]) -> Vec<Level> {
        let own = unit(&[&[("Id", "openclaw-gateway.service"), ("ExecStart", GATEWAY)], changes].concat());
        let ours = unit(&[]);
        let services = [&ours, &own].map(|unit| Service { unit, port: port_of(unit) });
        let findings = openclaws(&services, 18789, Path::new("/opt/openclaw-supervise"));
        findings.iter().map(|finding| finding.level).collect()
    }

    #[test]
    fn a_service_of_openclaws_own_that_is_on_is_one_too_many_unless_it_starts_us() {
        for (changes, level) in [
            (&[][..], Level::Fail),
            (&[("Id", "openclaw-gateway-work.service")], Level::Fail),
            (&[("UnitFileState", "disabled"), ("ActiveState", "active")], Level::Fail),
            (&[("UnitFileState", "disabled")], Level::Ok),
            (&[("ExecStart", WRAPPED)], Level::Ok),
            (&[("ExecStart", "{ path=/n ; argv[]=n gateway --port=19001 ; ignore_errors=no ; }")], Level::Ok),
            (&[("ExecStart", "{ path=/n ; argv[]=n gateway ; ignore_errors=no ; }")], Level::Fail),
        ] {
            assert_eq!(levels(changes), [level], "{changes:?}");
        }
    }

    #[test]
    fn how_to_hand_over_stands_there_both_ways() {
        let mut own = unit(&[("Id", "openclaw-gateway.service"), ("ExecStart", GATEWAY)]);
        own.manager = Manager::User;
        let finding = &openclaws(&[Service { unit: &own, port: None }], 1, Path::new("/opt/s"))[0];
        let expected = "systemctl --user disable --now openclaw-gateway.service; \
                        or have it start us: openclaw gateway install --wrapper /opt/s --force";
        assert_eq!(finding.fix.as_deref(), Some(expected));
    }

    #[test]
    fn the_port_is_the_last_of_the_command_else_that_of_the_variable() {
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
    fn two_units_of_ours_for_one_port_are_one_too_many() {
        let (first, second) = (unit(&[]), unit(&[("Id", "second.service")]));
        let doubled =
            |port| doubles(&[Service { unit: &first, port: Some(1) }, Service { unit: &second, port }], &first);
        assert_eq!(doubled(Some(1)).map(|finding| finding.level), Some(Level::Fail));
        assert_eq!(doubled(Some(2)), None);
    }

    #[test]
    fn without_systemd_there_is_nothing_to_look_at() {
        assert_eq!(none(&[]), Finding::ok("unit", "no systemd here"));
        assert_eq!(none(&[Manager::Machine]).level, Level::Warn);
    }
}
