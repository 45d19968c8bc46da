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

/// One names its port, the other one takes it from the configuration of its user; neither has a name of OpenClaw.
#[test]
fn doctor_finds_a_second_service_of_any_name_if_its_gateway_would_have_our_port() {
    let machine = Machine::boot("healthy");
    let unit = machine.shipped(&[]);
    let variables = variables(&unit);
    let variables: Vec<&str> = variables.iter().map(String::as_str).collect();
    let port = variables.iter().find_map(|word| word.strip_prefix("OPENCLAW_GATEWAY_PORT=")).unwrap_or_default();
    let write = |name: &str, exec: &str| {
        let text = format!("[Service]\nExecStart={exec}\n[Install]\nWantedBy=bare.target\n");
        let script = "printf %s \"$2\" >\"/etc/systemd/system/$1\" && systemctl enable \"$1\"";
        assert!(machine.run(&["sh", "-c", script, "sh", name, &text]).status.success());
    };
    write("assistant.service", &format!("/bin/sh -c \"exec openclaw gateway run --port {port}\""));
    write("elsewhere.service", "/usr/local/bin/openclaw gateway run --port 1");
    write("status.service", "/usr/local/bin/openclaw gateway status");
    let script =
        "mkdir -p /root/.openclaw && printf '{\"gateway\":{\"port\":%s}}' \"$1\" >/root/.openclaw/openclaw.json";
    assert!(machine.run(&["sh", "-c", script, "sh", port]).status.success());
    write("configured.service", "/usr/local/bin/openclaw gateway");
    let (code, findings) = ask(&machine, &variables);
    assert_eq!(code, Some(1), "{findings:#?}");
    let second = findings.iter().filter(|finding| finding["check"] == "second service");
    let second: Vec<(&str, &str)> =
        second.filter_map(|finding| Some((finding["level"].as_str()?, finding["found"].as_str()?))).collect();
    let same = |name: &str| format!("{name} (system manager) is enabled for the same port {port}");
    let [assistant, configured] = ["assistant.service", "configured.service"].map(same);
    let expected = [("fail", assistant.as_str()), ("fail", &configured), ("ok", "elsewhere.service serves port 1")];
    for line in expected {
        assert!(second.contains(&line), "{line:?}: {findings:#?}");
    }
    assert_eq!(second.len(), 3, "{second:?}");
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
    unit.order_well("start");
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

/// Found under any name, whatever keeps it from starting.
#[test]
fn doctor_fails_for_a_unit_that_failed_with_the_recorded_reason_and_names_the_other_units_of_ours() {
    let machine = Machine::boot("exit=78@50ms");
    let unit = machine.shipped(&[]);
    let script = r#"printf '[Service]\nExecStart=/usr/bin/env /usr/local/bin/openclaw-supervise run --port 1\n' >"$0""#;
    for name in ["assistant", "keeper"] {
        let path = format!("/etc/systemd/system/{name}.service");
        assert!(machine.run(&["sh", "-c", script, &path]).status.success());
    }
    let masked = ["ln", "-s", "/dev/null", "/etc/systemd/system/openclaw-supervise-old.service"];
    assert!(machine.run(&masked).status.success());
    // A link by which the kernel would wait for a writer.
    assert!(machine.run(&["mkfifo", "/etc/systemd/system/fifo.service"]).status.success());
    assert!(machine.systemctl(&["daemon-reload"]).status.success());
    unit.order("start");
    unit.wait_state("failed");
    let (code, findings) = ask(&machine, &[]);
    assert_eq!((code, of_level(&findings, "fail")), (Some(1), vec!["service"]), "{findings:#?}");
    let failed = find(&findings, "service").to_string();
    for part in
        ["exit code 78", "Result=exit-code", "cannot start with its configuration", "systemctl start", "\"since\":\"20"]
    {
        assert!(failed.contains(part), "{part}: {findings:#?}");
    }
    let others: Vec<_> = findings.iter().filter(|finding| finding["check"] == "other unit").collect();
    for (name, state) in [("assistant", "static"), ("keeper", "static"), ("openclaw-supervise-old", "masked")] {
        let is_it = |finding: &&&Value| {
            let found = finding["found"].to_string();
            found.contains(&format!("{name}.service")) && found.ends_with(&format!("it is {state}\""))
        };
        assert!(others.iter().any(|finding| is_it(&finding)), "{name}: {findings:#?}");
    }
}

/// The first line of a file that `install` writes, see `commands/install/managed_file.rs`.
fn signed(body: &str) -> String {
    let digest = openclaw_supervise::platform::hash::fnv1a(body.bytes());
    format!(
        "# written by 'openclaw-supervise install', digest {digest:016x}; settings go into a drop-in: systemctl edit\n{body}"
    )
}

#[test]
fn doctor_mends_a_unit_with_a_drop_in_of_its_own_and_a_dry_run_only_shows_it() {
    let machine = Machine::boot("healthy");
    assert!(machine.run(&["rm", "/etc/systemd/system/openclaw-supervise.service"]).status.success());
    let write = |path: &str, text: &str| {
        let script = r#"printf %s "$1" >"$0""#;
        assert!(machine.run(&["sh", "-c", script, path, text]).status.success(), "{path}");
    };
    let text = "[Service]\nExecStart=/usr/local/bin/openclaw-supervise run\n[Install]\nWantedBy=bare.target\n";
    write("/etc/systemd/system/keeper.service", text);
    assert!(machine.systemctl(&["daemon-reload"]).status.success());
    let path = "/etc/systemd/system/keeper.service.d/doctor.conf";
    let output = machine.run(&["openclaw-supervise", "doctor", "--fix", "--dry-run"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    for part in [&*format!("would write    {path}"), "    + KillMode=mixed", "would run      systemctl daemon-reload"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
    assert!(!machine.run(&["test", "-e", path]).status.success(), "{shown}");
    let mend = || {
        let output = machine.run(&["openclaw-supervise", "doctor", "--fix", "--json"]);
        let value: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        (
            value["actions"].as_array().cloned().unwrap_or_default(),
            value["findings"].as_array().cloned().unwrap_or_default(),
        )
    };
    let (actions, findings) = mend();
    assert_eq!(actions.len(), 2, "{actions:#?}");
    assert!(actions.iter().all(|action| action["outcome"] == "done"), "{actions:#?}");
    for check in OF_UNIT.into_iter().chain(["start limit"]) {
        assert_eq!(find(&findings, check)["level"], "ok", "{check}: {findings:#?}");
    }
    assert_eq!(mend().0, Vec::<Value>::new(), "nothing is left to mend");
    assert!(!machine.run(&["grep", "-q", "KillMode", "/etc/systemd/system/keeper.service"]).status.success());
}

#[test]
fn doctor_renews_a_unit_of_an_earlier_version_and_keeps_the_one_before() {
    let machine = Machine::boot("healthy");
    let path = "/etc/systemd/system/openclaw-supervise.service";
    let shipped = include_str!("../../contrib/systemd/openclaw-supervise.service");
    let body = shipped.split_once("\n[Unit]\n").map(|(_, body)| format!("[Unit]\n{body}")).unwrap_or_default();
    let start = "ExecStart=/usr/local/bin/openclaw-supervise run --port 4\nEnvironment=PATH=/usr/local/bin:/usr/bin\n";
    let now = body.replace("ExecStart=openclaw-supervise run\n", start);
    let earlier = signed(&now.replace("Delegate=yes\n", "").replace("KillMode=mixed\n", ""));
    let script = r#"printf %s "$1" >"$0""#;
    assert!(machine.run(&["sh", "-c", script, path, &earlier]).status.success());
    assert!(machine.systemctl(&["daemon-reload"]).status.success());
    let output = machine.run(&["openclaw-supervise", "doctor", "--fix", "--port", "4"]);
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(shown.contains(&format!("wrote          {path} (the earlier one: {path}.bak)")), "{shown}");
    let read = |path: &str| String::from_utf8_lossy(&machine.run(&["cat", path]).stdout).into_owned();
    assert_eq!((read(path), read(&format!("{path}.bak"))), (signed(&now), earlier), "{shown}");
    assert!(!shown.contains("doctor.conf") && !shown.contains("kill mode       KillMode=control-group"), "{shown}");
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
