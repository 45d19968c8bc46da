//! `doctor` on the shipped unit and on one with bad lines, under a real systemd.

use crate::machine::{Machine, Unit};
use serde_json::Value;

/// The exit code and the findings.
fn ask(machine: &Machine, variables: &[&str]) -> (Option<i32>, Vec<Value>) {
    let output = machine.run(&[variables, &["openclaw-supervise", "doctor", "--json"]].concat());
    let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.code(), value["findings"].as_array().cloned().unwrap_or_default())
}

fn of_level<'a>(findings: &'a [Value], level: &str) -> Vec<&'a str> {
    findings
        .iter()
        .filter(|finding| finding["level"] == level)
        .filter_map(|finding| finding["check"].as_str())
        .collect()
}

fn find<'a>(findings: &'a [Value], check: &str) -> &'a Value {
    let found = findings.iter().find(|finding| finding["check"] == check);
    found.unwrap_or_else(|| panic!("there is no {check}: {findings:#?}"))
}

/// The environment that selects the gateway of the unit.
fn variables(unit: &Unit<'_>) -> Vec<String> {
    let all = unit.property("Environment");
    let ours = |word: &&str| word.starts_with("OPENCLAW_STATE_DIR=") || word.starts_with("OPENCLAW_GATEWAY_PORT=");
    all.split_whitespace().filter(ours).map(str::to_owned).collect()
}

/// The findings about the unit.
const OF_UNIT: [&str; 11] = [
    "unit",
    "program",
    "notify",
    "stop time",
    "kill mode",
    "delegate",
    "watchdog",
    "restart",
    "exit codes",
    "successes",
    "out of memory",
];

#[test]
fn doctor_finds_no_fault_with_the_shipped_unit_before_its_start_and_while_it_runs() {
    let machine = Machine::boot("healthy");
    let unit = machine.shipped(&[]);
    let variables = variables(&unit);
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    for state in ["inactive", "active"] {
        let (code, findings) = ask(&machine, &variables);
        assert_eq!((code, of_level(&findings, "fail")), (Some(0), vec![]), "{state}: {findings:#?}");
        for check in OF_UNIT.into_iter().chain(["start limit", "supervisor", "lease", "port", "settings"]) {
            assert_eq!(find(&findings, check)["level"], "ok", "{state} {check}: {findings:#?}");
        }
        let found = find(&findings, "unit")["found"].to_string();
        let parts = ["openclaw-supervise.service (system manager)", state, "/etc/systemd/system/", "test.conf"];
        assert!(parts.iter().all(|part| found.contains(part)), "{found}");
        if state == "inactive" {
            unit.order_well("start");
        }
    }
}

#[test]
fn doctor_finds_the_bad_lines_of_a_unit_and_says_what_to_write() {
    let machine = Machine::boot("healthy");
    machine.shipped(&["KillMode=control-group", "TimeoutStopSec=30", "RestartPreventExitStatus="]);
    let (code, findings) = ask(&machine, &[]);
    assert_eq!((code, of_level(&findings, "fail")), (Some(1), vec!["kill mode", "exit codes"]), "{findings:#?}");
    for (check, level, line) in [
        ("kill mode", "fail", "KillMode=mixed"),
        ("exit codes", "fail", "RestartPreventExitStatus=78"),
        ("stop time", "warn", "TimeoutStopSec=360"),
    ] {
        let finding = find(&findings, check);
        let fix = format!("{line} (in [Service], with `systemctl edit openclaw-supervise.service`)");
        assert_eq!(
            (finding["level"].as_str(), finding["fix"].as_str()),
            (Some(level), Some(fix.as_str())),
            "{finding}"
        );
    }
}

#[test]
fn doctor_fails_where_a_stop_of_the_unit_would_cut_the_drain_off() {
    let machine = Machine::boot("healthy");
    let times = ["TimeoutStopSec=30", "Environment=OPENCLAW_SUPERVISE_STOP_TIMEOUT=6min"];
    machine.shipped(&[&["Type=simple", "NotifyAccess=none", "WatchdogSec=0"][..], &times].concat());
    let (code, findings) = ask(&machine, &[]);
    assert_eq!((code, of_level(&findings, "fail")), (Some(1), vec!["stop time"]), "{findings:#?}");
}

#[test]
fn doctor_finds_the_unit_of_a_user_and_the_missing_linger() {
    let machine = Machine::boot("healthy");
    let unit = machine.of_user(&[]);
    unit.order_well("enable");
    let variables = variables(&unit);
    let (code, findings) = ask(&machine, &variables.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!((code, of_level(&findings, "fail")), (Some(0), vec![]), "{findings:#?}");
    let found = find(&findings, "unit")["found"].to_string();
    assert!(found.contains("openclaw-supervise.service (user manager)"), "{found}");
    for (check, level) in [("at boot", "ok"), ("linger", "warn"), ("watchdog", "ok"), ("kill mode", "ok")] {
        assert_eq!(find(&findings, check)["level"], level, "{check}: {findings:#?}");
    }
}

#[test]
fn doctor_finds_no_fault_with_the_gateway_of_a_user_whichever_user_runs_it() {
    let machine = Machine::boot("healthy");
    let unit = machine.of_account(&[]);
    assert!(machine.run(&["rm", "/etc/systemd/system/openclaw-supervise.service"]).status.success());
    unit.order_well("enable");
    unit.order_well("start");
    // Neither root's store nor its environment has it.
    let (code, findings) = ask(&machine, &[]);
    assert_eq!((code, of_level(&findings, "fail")), (Some(0), vec![]), "{findings:#?}");
    for check in ["unit", "supervisor", "lease", "port", "settings", "second service"] {
        assert_eq!(find(&findings, check)["level"], "ok", "{check}: {findings:#?}");
    }
    for (check, words) in [
        ("unit", "openclaw-supervise@alice.service".to_owned()),
        ("supervisor", format!("(pid {})", unit.property("MainPID"))),
        ("port", format!(":{}", machine.port())),
    ] {
        assert!(find(&findings, check)["found"].to_string().contains(&words), "{check}: {findings:#?}");
    }
}

#[test]
fn doctor_reads_the_words_of_a_command_as_systemd_does() {
    let machine = Machine::boot("healthy");
    let start =
        r#"ExecStart=openclaw-supervise run --pre-start "/bin/echo 'a b' 50%% $$HOME \"c\"" -- openclaw gateway "x y""#;
    let unit = machine.shipped(&["ExecStart=", start]);
    let (code, findings) = ask(&machine, &[]);
    assert_eq!((code, of_level(&findings, "fail")), (Some(0), vec![]), "{findings:#?}\n{}", unit.story());
    assert_eq!(find(&findings, "settings")["level"], "ok", "{findings:#?}");
}
