//! The real OpenClaw under a real systemd: in the service that it installs with this program as its wrapper, and in the one
//! that this program installs.

use crate::machine::{Machine, Unit};
use crate::support::let_pass;
use crate::support::real::RealGateway;
use serde_json::Value;
use std::fs;
use std::process::Output;
use std::time::Duration;

/// The name that OpenClaw gives its service.
const SERVICE: &str = "openclaw-gateway";

/// The name that we give ours.
const OURS: &str = "openclaw-supervise";

/// What the supervisor says of itself and of its gateway.
fn status(machine: &Machine) -> Value {
    let port = machine.port().to_string();
    let output = machine.run_at_home(&["openclaw-supervise", "status", "--json", "--port", &port]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// A boot takes a quarter of a minute, and a patient look is cheap.
fn wait_serving(machine: &Machine, unit: &Unit<'_>, generation: u64) {
    let serves = || {
        let status = status(machine);
        (status["health"] == "healthy" && status["generation"] == generation).then_some(status)
    };
    for _ in 0..4 {
        for _ in 0..100 {
            if serves().is_some() {
                return;
            }
            let_pass(Duration::from_millis(300));
        }
    }
    panic!("gateway {generation} does not serve: {}\n{}", status(machine), unit.story());
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_service_that_openclaw_installs_around_us_serves_recovers_and_stops_whole() {
    let real = RealGateway::install();
    let machine = Machine::boot("");
    let (words, port) = (real.words(machine.port()), machine.port().to_string());
    machine.adopt_openclaw(&words[0], &words[1]);
    let us = "/usr/local/bin/openclaw-supervise";
    let install = ["openclaw", "gateway", "install", "--wrapper", us, "--force", "--port", &port];
    let said = machine.run_at_home(&install);
    assert!(said.status.success(), "{}", text(&said));

    // What the README says of it, and the stop budget relies on.
    let written = fs::read_to_string(machine.own_unit_file(SERVICE)).unwrap_or_default();
    assert!(written.contains(&format!("\nExecStart={us} gateway --port {port}\n")), "{}\n{written}", text(&said));
    let unit = machine.own_service(SERVICE);
    let got = ["Type", "NotifyAccess", "KillMode", "Restart", "TimeoutStopUSec"].map(|name| unit.property(name));
    assert_eq!(got, ["simple", "none", "mixed", "always", "5min 30s"], "{written}");

    wait_serving(&machine, &unit, 1);
    // The gateway's own limit is 325 to 327 s, and 5 s less than the unit's would be a race with it.
    assert_eq!(status(&machine)["supervisor"]["stop_timeout_ms"], 328_000, "{}", unit.story());
    let (main, pid) = (unit.property("MainPID"), status(&machine)["gateway"]["pid"].to_string());
    let given = machine.run(&["cat", &format!("/proc/{pid}/environ")]);
    let given = String::from_utf8_lossy(&given.stdout).replace('\0', "\n");
    for hint in ["OPENCLAW_SERVICE_MARKER=", "OPENCLAW_SYSTEMD_UNIT=", "OPENCLAW_WRAPPER=", "INVOCATION_ID="] {
        assert!(written.contains(hint) || hint == "INVOCATION_ID=", "{hint} is not in {written}");
        assert!(!given.contains(&format!("\n{hint}")), "{hint} has reached the gateway:\n{given}");
    }
    assert!(given.contains("\nOPENCLAW_SUPERVISOR_MODE=external\n"), "{given}");

    assert!(machine.run(&["kill", "-KILL", &pid]).status.success());
    wait_serving(&machine, &unit, 2);
    assert_eq!((unit.property("MainPID"), unit.property("NRestarts").as_str()), (main, "0"), "{}", unit.story());

    let cgroup = unit.cgroup();
    unit.order_well("stop");
    let got = ["ActiveState", "Result", "ExecMainStatus"].map(|name| unit.property(name));
    assert_eq!(got, ["inactive", "success", "0"], "{}", unit.story());
    assert!(!cgroup.exists(), "{}", unit.story());
}

#[test]
fn what_we_install_serves_drains_on_restart_outlives_our_death_and_leaves_nothing() {
    let real = RealGateway::install();
    let machine = Machine::boot("");
    let (words, port) = (real.words(machine.port()), machine.port().to_string());
    machine.adopt_openclaw(&words[0], &words[1]);
    // The command that the README has for a gateway without a configuration.
    let gateway = ["openclaw"].into_iter().chain(words[2..].iter().map(String::as_str)).collect::<Vec<_>>();
    let install = [&["openclaw-supervise", "install", "--user", "--"], &gateway[..]].concat();
    let said = machine.run_at_home(&install);
    let unit = machine.own_service(OURS);
    assert!(said.status.success(), "{}\n{}\n{}", text(&said), unit.status_text(), unit.story());
    wait_serving(&machine, &unit, 1);
    assert_eq!((unit.state().as_str(), unit.property("UnitFileState").as_str()), ("active", "enabled"));
    let doctor = machine.run_at_home(&["openclaw-supervise", "doctor"]);
    assert!(doctor.status.success(), "{}\n{}", text(&doctor), unit.story());

    // Both are new after it, and the old gateway ended by itself.
    unit.order_well("restart");
    wait_serving(&machine, &unit, 2);
    let events = text(&machine.run_at_home(&["openclaw-supervise", "events", "--json", "--port", &port]));
    let ended = events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let ended: Vec<_> = ended.filter(|event| event["event"] == "gateway.exited").collect();
    assert_eq!((ended.len(), &ended[0]["code"]), (1, &Value::from(0)), "{events}");

    // SIGKILL of the supervisor: systemd clears the unit, and one gateway follows.
    let main = unit.property("MainPID");
    assert!(machine.run(&["kill", "-KILL", &main]).status.success());
    wait_serving(&machine, &unit, 3);
    assert_eq!(unit.property("NRestarts"), "1", "{}", unit.story());

    let cgroup = unit.cgroup();
    let said = machine.run_at_home(&["openclaw-supervise", "uninstall", "--user"]);
    assert!(said.status.success(), "{}\n{}", text(&said), unit.story());
    assert!(!cgroup.exists() && !machine.own_unit_file(OURS).exists(), "{}", text(&said));
    assert_eq!(unit.property("LoadState"), "not-found");
}
