//! `doctor` finds what will fail, and the line that prevents it. systemd is a stand-in here that shows canned units;
//! `systemd.rs` asks a real one.

#![cfg(target_os = "linux")]
#![expect(clippy::expect_used, reason = "a test that cannot go on says so by a panic")]

mod outage;
use crate::support;

use serde_json::Value;
use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;
use support::Scene;
use support::jail::{Jail, first_process};
use support::root::needs_root;
use support::supervisor::{PROGRAM, Supervisor};

/// What systemd shows of the shipped unit besides its own settings.
const STATE: &str = "\
Id=openclaw-supervise.service
LoadState=loaded
ActiveState=inactive
UnitFileState=enabled
NeedDaemonReload=no
MainPID=0
SendSIGKILL=yes
StartLimitBurst=5
LimitNOFILESoft=1024
Result=success
ActiveEnterTimestampMonotonic=1
";

/// The settings of the shipped unit as systemd shows them: `ASec=` becomes `AUSec=`.
fn shipped() -> String {
    let unit = include_str!("../../contrib/systemd/openclaw-supervise.service");
    let body = unit.split("\n[Install]").next().unwrap_or_default();
    let settings = body.lines().filter(|line| !line.starts_with(['#', '['])).filter_map(|line| line.split_once('='));
    let told =
        settings.filter(|(name, _)| !name.starts_with("Exec")).map(|(name, value)| match name.strip_suffix("Sec") {
            Some(name) if value == "0" => format!("{name}USec=0\n"),
            Some(name) => format!("{name}USec={value}s\n"),
            None => format!("{name}={value}\n"),
        });
    told.collect()
}

/// Prints the files `machine` and `user`, and logs its arguments.
const SYSTEMCTL: &str = r#"#!/bin/sh
PATH=/usr/bin:/bin
echo "$*" >> "$0.log"
case " $* " in *" --user "*) whose=user ;; *) whose=machine ;; esac
[ -e "$0.$whose" ] || exit 1
case " $* " in
*" show-environment "*) echo LANG=C ;;
*" list-unit-files "*) echo "openclaw-supervise.service enabled enabled" ;;
*" show "*) cat "$0.$whose" ;;
esac
"#;

/// A scene with stand-ins for OpenClaw's package, Node.js and systemd.
struct Ward {
    scene: Scene,
}

impl Ward {
    fn new(script: &str) -> Self {
        let this = Self { scene: Scene::new(script) };
        this.scene.openclaw();
        fs::write(
            this.bin().join("package.json"),
            r#"{"name": "openclaw", "version": "2026.9.6", "engines": {"node": ">=24.16.0 <25 || >=26.1.0"}}"#,
        )
        .expect("the folder can be written");
        this.program("node", "#!/bin/sh\necho v24.16.1\n");
        this
    }

    /// With the shipped unit and other values of these properties.
    fn with_unit(changes: &[(&str, &str)]) -> Self {
        let this = Self::new("");
        this.show("machine", &this.unit(changes));
        this
    }

    fn bin(&self) -> PathBuf {
        self.scene.root().join("bin")
    }

    /// Written by another process: a fork in a test that runs at the same time would inherit a descriptor of ours that is
    /// open for writing, and execve(2) fails with ETXTBSY.
    fn program(&self, name: &str, text: &str) {
        let script = r#"printf %s "$2" >"$1" && chmod 755 "$1""#;
        let written = Command::new("/bin/sh").args(["-c", script, "sh"]).arg(self.bin().join(name)).arg(text).status();
        assert!(written.expect("there is a shell").success());
    }

    /// Has the system or the user manager show this.
    fn show(&self, whose: &str, text: &str) {
        self.program("systemctl", SYSTEMCTL);
        // The unit file has the arguments of the last `ExecStart`.
        let command = text.lines().rev().find_map(|line| line.strip_prefix("ExecStart=")?.split_once("argv[]="));
        let words = command.and_then(|(_, rest)| rest.split_once(" ; ")).map_or("", |(words, _)| words);
        let file = self.bin().join(format!("{whose}.service"));
        let told = format!("{text}FragmentPath={}\n", file.display());
        let written = fs::write(file, format!("[Service]\nExecStart={words}\n"))
            .and_then(|()| fs::write(self.bin().join(format!("systemctl.{whose}")), told));
        written.expect("the folder can be written");
    }

    fn unit(&self, changes: &[(&str, &str)]) -> String {
        let (root, port) = (self.scene.root().display(), self.scene.port());
        let mut text = format!(
            "{STATE}{}ExecStart={{ path={PROGRAM} ; argv[]={PROGRAM} run --port {port} ; ignore_errors=no ; pid=0 }}\n\
             Environment=PATH={root}/bin:/usr/bin:/bin OPENCLAW_STATE_DIR={root}/state HOME={root}\n",
            shipped()
        );
        for (name, value) in changes {
            // The last line of a name applies.
            text = text + name + "=" + value + "\n";
        }
        text
    }

    fn command(&self, words: &[&str]) -> Command {
        let mut command = self.scene.command(PROGRAM);
        command.env("PATH", self.bin()).args(["doctor", "--port", &self.scene.port().to_string()]).args(words);
        command
    }

    fn ask(&self) -> Diagnosis {
        Diagnosis::of(&self.command(&["--json"]).output().expect("the program starts"))
    }
}

/// Its output as JSON.
#[derive(Debug)]
struct Diagnosis {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Diagnosis {
    fn of(output: &Output) -> Self {
        assert!(output.stderr.is_empty(), "{output:?}");
        let value: Value = serde_json::from_slice(&output.stdout).expect("it is one object");
        let findings = value["findings"].as_array().expect("the findings are a list").clone();
        let this = Self { code: output.status.code(), findings };
        let failed = this.findings.iter().any(|finding| finding["level"] == "fail");
        assert_eq!(this.code, Some(i32::from(failed)), "{this:#?}");
        this
    }

    /// The worst finding of a check.
    fn worst(&self, check: &str) -> &Value {
        let rank = |finding: &&Value| ["ok", "warn", "fail"].iter().position(|level| finding["level"] == *level);
        let worst = self.findings.iter().filter(|finding| finding["check"] == check).max_by_key(rank);
        worst.unwrap_or_else(|| panic!("there is no {check}: {self:#?}"))
    }

    fn assert_is(&self, check: &str, level: &str, parts: &[&str]) {
        let worst = self.worst(check);
        assert_eq!(worst["level"], level, "{check}: {self:#?}");
        let text = worst.to_string();
        assert!(parts.iter().all(|part| text.contains(part)), "{parts:?}: {worst:#}");
    }
}

/// The checks of the unit.
const OF_UNIT: [&str; 15] = [
    "unit",
    "at boot",
    "program",
    "notify",
    "stop time",
    "kill mode",
    "delegate",
    "watchdog",
    "restart",
    "exit codes",
    "successes",
    "start limit",
    "out of memory",
    "second service",
    "open files",
];

#[test]
fn the_shipped_unit_has_no_findings_and_nothing_is_changed() {
    let ward = Ward::with_unit(&[]);
    let diagnosis = ward.ask();
    assert_eq!(diagnosis.code, Some(0));
    for check in OF_UNIT.into_iter().chain(["settings", "openclaw", "node", "supervisor", "lease", "port", "state"]) {
        diagnosis.assert_is(check, "ok", &[]);
    }
    diagnosis.assert_is("openclaw", "ok", &["2026.9.6"]);
    diagnosis.assert_is("node", "ok", &["24.16.1"]);
    assert_eq!(fs::read_dir(ward.scene.state_dir()).map(Iterator::count).ok(), Some(0));
    let asked = fs::read_to_string(ward.bin().join("systemctl.log")).expect("it was asked");
    let harmless = |line: &str| {
        let mut words = line.split(' ').filter(|word| !word.starts_with("--"));
        words.next().is_some_and(|word| ["show", "list-unit-files", "show-environment"].contains(&word))
    };
    assert!(asked.lines().all(harmless), "{asked}");
}

#[test]
fn each_bad_line_of_a_unit_is_found_with_its_replacement() {
    for (name, value, check, level, parts) in [
        ("KillMode", "control-group", "kill mode", "fail", &["KillMode=mixed (in [Service]"][..]),
        ("KillMode", "process", "kill mode", "warn", &["KillMode=mixed"]),
        ("RestartPreventExitStatus", "", "exit codes", "fail", &["RestartPreventExitStatus=78"]),
        ("Restart", "no", "restart", "fail", &["Restart=always"]),
        ("TimeoutStopUSec", "30s", "stop time", "warn", &["TimeoutStopSec=360"]),
        ("Delegate", "no", "delegate", "warn", &["Delegate=yes"]),
        ("WatchdogUSec", "0", "watchdog", "warn", &["WatchdogSec=60"]),
        ("OOMPolicy", "stop", "out of memory", "warn", &["OOMPolicy=continue"]),
        ("NeedDaemonReload", "yes", "daemon-reload", "warn", &["systemctl daemon-reload"]),
        ("UnitFileState", "disabled", "at boot", "warn", &["systemctl enable --now openclaw-supervise.service"]),
        ("LoadState", "masked", "unit", "fail", &["systemctl unmask"]),
        ("LimitNOFILESoft", "256", "open files", "warn", &["LimitNOFILE=65536"]),
    ] {
        let diagnosis = Ward::with_unit(&[(name, value)]).ask();
        diagnosis.assert_is(check, level, parts);
        let others =
            diagnosis.findings.iter().filter(|finding| finding["check"] != check && finding["level"] == "fail");
        assert_eq!(others.count(), 0, "{name}={value}: {diagnosis:#?}");
    }
}

#[test]
fn a_stop_timeout_that_systemd_does_not_wait_for_fails() {
    let ward = Ward::with_unit(&[]);
    let unit = ward.unit(&[("Type", "simple"), ("NotifyAccess", "none"), ("WatchdogUSec", "0")]);
    ward.show("machine", &unit.replace(" run --port", " run --stop-timeout 10min --port"));
    ward.ask().assert_is("stop time", "fail", &["TimeoutStopSec=6m", "10m", "TimeoutStopSec=360"]);
}

#[test]
fn the_unit_has_to_find_openclaw_and_a_node_that_it_takes() {
    let ward = Ward::with_unit(&[("Environment", "PATH=/nowhere HOME=/tmp")]);
    ward.ask().assert_is("settings", "fail", &["cannot find openclaw in PATH (/nowhere)", "Environment=PATH="]);
    let ward = Ward::with_unit(&[]);
    ward.program("node", "#!/bin/sh\necho v20.11.0\n");
    ward.ask().assert_is("node", "fail", &["20.11.0", ">=24.16.0"]);
}

#[test]
fn a_missing_program_fails_and_another_port_is_found() {
    let gone = "{ path=/nowhere/openclaw-supervise ; argv[]=openclaw-supervise run --port 4567 ; ignore_errors=no ; }";
    let diagnosis = Ward::with_unit(&[("ExecStart", gone)]).ask();
    diagnosis.assert_is("program", "fail", &["/nowhere/openclaw-supervise", "install -m 755"]);
    diagnosis.assert_is("port", "warn", &["openclaw-supervise.service serves port 4567"]);
}

#[test]
fn openclaws_own_service_for_the_port_fails_unless_it_starts_us() {
    let ward = Ward::with_unit(&[]);
    let port = ward.scene.port();
    let own = |command: &str| {
        let exec = format!("{{ path=/usr/bin/x ; argv[]={command} gateway --port {port} ; ignore_errors=no ; }}");
        ward.unit(&[("Id", "openclaw-gateway.service"), ("ExecStart", &exec), ("LoadState", "loaded")])
    };
    ward.show("user", &own("node /opt/openclaw.mjs"));
    let lines = ["systemctl --user disable --now openclaw-gateway.service", "openclaw gateway install --wrapper"];
    ward.ask().assert_is("second service", "fail", &lines);
    // The only unit there is, and ours.
    fs::remove_file(ward.bin().join("systemctl.machine")).expect("it is there");
    ward.show("user", &own(PROGRAM));
    let diagnosis = ward.ask();
    diagnosis.assert_is("second service", "ok", &["openclaw-gateway.service", "starts this supervisor"]);
    diagnosis.assert_is("unit", "ok", &["openclaw-gateway.service"]);
}

#[test]
fn a_user_unit_without_lingering_is_found() {
    for (answer, level) in [("yes", "ok"), ("no", "warn")] {
        let ward = Ward::new("");
        ward.show("user", &ward.unit(&[]));
        ward.program("loginctl", &format!("#!/bin/sh\necho {answer}\n"));
        ward.ask().assert_is("linger", level, &[]);
    }
}

#[test]
fn without_systemd_its_checks_are_left_out() {
    for systemctl in [None, Some("#!/bin/sh\necho 'System has not been booted with systemd' >&2\nexit 1\n")] {
        let ward = Ward::new("");
        if let Some(text) = systemctl {
            ward.program("systemctl", text);
        }
        let diagnosis = ward.ask();
        assert_eq!(diagnosis.code, Some(0), "{diagnosis:#?}");
        diagnosis.assert_is("unit", "ok", &["systemd is not running"]);
        diagnosis.assert_is("settings", "ok", &["as you would start it here", "/bin/openclaw, ws://"]);
        assert!(diagnosis.findings.iter().all(|finding| finding["check"] != "kill mode"), "{diagnosis:#?}");
    }
}

#[test]
fn a_systemctl_that_hangs_is_not_waited_for() {
    let ward = Ward::new("");
    ward.program("systemctl", "#!/bin/sh\nexec /bin/sleep 60\n");
    let mut command = ward.command(&["--json"]);
    command.env("PATH", format!("{}:/usr/bin:/bin", ward.bin().display()));
    let child = command.stdout(std::process::Stdio::piped()).stderr(std::process::Stdio::piped()).spawn();
    let child = child.expect("the program starts");
    let (sender, answers) = std::sync::mpsc::channel();
    std::thread::spawn(move || sender.send(child.wait_with_output()));
    let output = answers.recv_timeout(Duration::from_secs(20)).expect("it ends").expect("it is our child");
    Diagnosis::of(&output).assert_is("unit", "warn", &["systemctl did not answer within 2 s"]);
}

#[test]
fn a_running_supervisor_its_lease_and_its_gateway_are_ok() {
    let ward = Ward::new("healthy");
    let mut supervisor = ward.scene.start();
    supervisor.wait_started();
    let diagnosis = ward.ask();
    for check in ["supervisor", "lease", "port"] {
        diagnosis.assert_is(check, "ok", &[]);
    }
    let pid = format!("(pid {})", supervisor.pid());
    diagnosis.assert_is("supervisor", "ok", &["running", &pid]);
    diagnosis.assert_is("lease", "ok", &["held", &pid]);
    // The short stop timeout of the supervisor, not the one of doctor.
    diagnosis.assert_is("settings", "ok", &[&format!("as pid {} was started", supervisor.pid())]);
    diagnosis.assert_is("stop time", "warn", &["stop timeout 10s"]);
}

#[test]
fn in_a_container_the_settings_of_process_1_apply_and_the_grace_period_is_computed() {
    let ward = Ward::new("healthy");
    let launch = ward.scene.launch().without("--stop-timeout");
    let mut supervisor = Supervisor::spawn(Jail::with_pids().around(&launch.command()));
    supervisor.wait_event("gateway.started");
    // As by `docker exec`.
    let inner = ward.command(&["--json"]);
    let mut command = Command::new("nsenter");
    command.args(["--target", &first_process(supervisor.pid()).pid.to_string(), "--pid", "--mount", "--"]);
    command.arg(inner.get_program()).args(inner.get_args()).env_clear();
    command.envs(inner.get_envs().filter_map(|(name, value)| Some((name, value?))));
    // nsenter is looked up there.
    command.env("PATH", format!("{}:/usr/bin:/bin", ward.bin().display()));
    let diagnosis = Diagnosis::of(&command.output().expect("nsenter(1) of util-linux starts"));
    diagnosis.assert_is("container", "ok", &["process 1 is ", "openclaw-supervise run"]);
    diagnosis.assert_is("settings", "ok", &["as pid 1 was started"]);
    let numbers = ["stop timeout 8s", "stop_grace_period: 337s", "terminationGracePeriodSeconds: 337"];
    diagnosis.assert_is("stop time", "warn", &numbers);
    for check in ["supervisor", "lease", "port"] {
        diagnosis.assert_is(check, "ok", &[]);
    }
}

#[test]
fn the_service_of_another_user_is_recognised_and_missing_permissions_are_found() {
    needs_root("another user");
    let ward = Ward::new("");
    let gateway = ward.scene.stranger("healthy");
    ward.show("machine", &ward.unit(&[("User", "root"), ("ActiveState", "active")]));
    let command = ward.command(&["--json"]);
    // Where every user may read it.
    let program = ward.bin().join("openclaw-supervise");
    fs::copy(PROGRAM, &program).expect("the folder can be written");
    let mut asked = Command::new(program);
    asked.args(command.get_args()).envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    asked.env("OPENCLAW_STATE_DIR", "/nonexistent").uid(65534);
    let diagnosis = Diagnosis::of(&asked.output().expect("only root becomes another user"));
    for (check, words) in [
        ("supervisor", "belongs to user root"),
        ("lease", "belongs to user root"),
        ("port", "openclaw-supervise.service is running"),
    ] {
        diagnosis.assert_is(check, "warn", &[words]);
    }
    assert!(!format!("{diagnosis:?}").contains(&format!("kill {}", gateway.pid())), "{diagnosis:#?}");
}

#[test]
fn the_gateway_of_a_killed_supervisor_is_recognised() {
    let ward = Ward::new("healthy");
    let mut supervisor = ward.scene.start();
    supervisor.wait_started();
    supervisor.signal(nix::sys::signal::Signal::SIGKILL);
    supervisor.wait_exit();
    let diagnosis = ward.ask();
    diagnosis.assert_is("port", "warn", &["no supervisor is running"]);
    diagnosis.assert_is("lease", "ok", &["free"]);
}

#[test]
fn another_process_on_the_port_is_named() {
    for script in ["healthy", "foreign"] {
        let ward = Ward::new("");
        let stranger = ward.scene.stranger(script);
        ward.ask().assert_is("port", "fail", &[&format!("pid {}", stranger.pid()), "exits with 78"]);
    }
}

#[test]
fn an_empty_environment_is_enough() {
    let ward = Ward::new("");
    let output = Command::new(PROGRAM)
        .env_clear()
        .args(["doctor", "--json", "--port", &ward.scene.port().to_string(), "--state-dir"])
        .arg(ward.scene.state_dir())
        .output()
        .expect("the program starts");
    let diagnosis = Diagnosis::of(&output);
    diagnosis.assert_is("settings", "fail", &["PATH is not set"]);
    diagnosis.assert_is("port", "ok", &["free"]);
}

#[test]
fn a_secret_among_the_arguments_is_not_shown() {
    let ward = Ward::with_unit(&[]);
    let unit = ward.unit(&[("ActiveState", "inactive")]);
    let words = format!(" run --port {} -- openclaw gateway run --token hunter2", ward.scene.port());
    ward.show("machine", &unit.replace(&format!(" run --port {}", ward.scene.port()), &words));
    let diagnosis = ward.ask();
    diagnosis.assert_is("settings", "ok", &["as openclaw-supervise.service would start", "/bin/openclaw"]);
    assert!(!format!("{diagnosis:?}").contains("hunter2"), "{diagnosis:#?}");
}

#[test]
fn an_unreadable_config_is_a_warning_and_a_wrong_option_an_error() {
    let ward = Ward::new("");
    fs::write(ward.scene.state_dir().join("openclaw.json"), "{ gateway").expect("the folder can be written");
    let told = ["openclaw.json:1: is not JSON5", "assuming that the gateway listens on ws://127.0.0.1:"];
    ward.ask().assert_is("settings", "warn", &told);
    let output = ward.command(&["--hang-after", "soon"]).output().expect("the program starts");
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(2), true), "{output:?}");
}

#[test]
fn each_finding_has_all_its_fields_and_its_reason() {
    let ward = Ward::with_unit(&[("KillMode", "control-group")]);
    for finding in ward.ask().findings {
        let keys: Vec<_> = finding.as_object().expect("it is an object").keys().map(String::as_str).collect();
        assert_eq!(keys, ["check", "level", "found", "since", "until", "why", "fix"]);
        let advised = finding["why"].is_string() && finding["fix"].is_string();
        assert!(finding["level"] == "ok" || advised, "{finding}");
    }
    let output = ward.command(&[]).output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("FAIL  kill mode       KillMode=control-group - a stop sends SIGTERM to "), "{text}");
    assert!(text.contains("fix: KillMode=mixed (in [Service], with `systemctl edit openclaw-supervise.service`)"));
    assert!(text.trim_end().lines().last().is_some_and(|line| line.starts_with("1 FAIL, ")), "{text}");
    assert!(Path::new(PROGRAM).is_absolute() && text.contains(PROGRAM), "{text}");
    assert!(text.starts_with("FAIL") && !text.contains('\x1b'), "{text}");
    let output = ward.command(&[]).env("COLUMNS", "60").output().expect("the program starts");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.lines().all(|line| line.chars().count() <= 60), "{text}");
}
