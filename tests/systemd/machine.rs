//! A virtual machine of namespaces: systemd as PID 1, and the shipped unit in front of the stand-in gateway.

use crate::support::diary::Diary;
use crate::support::process::{self, Process};
use crate::support::root::needs_root;
use crate::support::supervisor::PROGRAM;
use crate::support::{Scene, fake_gateway, let_pass, wait_for};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Duration;

/// The timeout of every wait. There are more machines than processors.
const PATIENCE: Duration = Duration::from_mins(1);

const BETWEEN_LOOKS: Duration = Duration::from_millis(50);

pub(crate) const SHIPPED: &str = "openclaw-supervise";

/// The scope of a service.
#[derive(Debug, Clone, Copy)]
enum Scope {
    Machine,
    /// Of root's user manager.
    User,
}

impl Scope {
    fn folder(self) -> &'static str {
        match self {
            Self::Machine => "etc/systemd/system",
            Self::User => "etc/systemd/user",
        }
    }

    fn systemctl(self) -> &'static [&'static str] {
        match self {
            Self::Machine => &["systemctl", "--no-pager"],
            Self::User => &[USER_RUNTIME, "systemctl", "--user", "--no-pager"],
        }
    }
}

const USER_RUNTIME: &str = "XDG_RUNTIME_DIR=/run/user/0";

/// A user manager without a login session.
const USER_MANAGER: &str = "[Service]
Type=notify
ExecStart=/lib/systemd/systemd --user --log-target=null
Environment=XDG_RUNTIME_DIR=/run/user/0 XDG_CONFIG_HOME=/run/user/0/config
RuntimeDirectory=user/0
Delegate=yes
";

/// OpenClaw's own unit for a wrapper: without notify, and with a bounded stop.
const WRAPPED: &str = "[Service]
ExecStart=/usr/local/bin/openclaw-supervise gateway --port ${OPENCLAW_GATEWAY_PORT}
Restart=always
RestartSec=5
RestartPreventExitStatus=78
TimeoutStopSec=330
TimeoutStartSec=30
SuccessExitStatus=0 143
OOMPolicy=continue
KillMode=mixed
";

/// The home of the machine's user, with the real OpenClaw.
const HOME: &str = "/srv/home";

/// Its user manager, as after a login.
const ACCOUNT_MANAGER: &str = "[Service]
Type=notify
ExecStart=/lib/systemd/systemd --user --log-target=null
Environment=XDG_RUNTIME_DIR=/run/user/0 HOME=/srv/home
RuntimeDirectory=user/0
Delegate=yes
";

/// Short timeouts for the stand-in gateway, as variables, so that the unit's own command line is used.
const QUICK: &[&str] = &[
    "LOG_FORMAT=json",
    "PROBE_INTERVAL=50ms",
    "PROBE_TIMEOUT=1s",
    "HANG_AFTER=600ms",
    "HUNG_STOP_TIMEOUT=200ms",
    "BACKOFF_MAX=200ms",
    "BOOT_LIMIT=0",
];

/// Shut down on drop, by the script.
pub(crate) struct Machine {
    driver: Child,
    /// systemd's pid on the host.
    init: i32,
    scene: Scene,
}

impl Machine {
    /// Boots one. Its stand-in gateways follow `script`.
    pub(crate) fn boot(script: &str) -> Self {
        needs_root("a systemd of its own");
        let scene = Scene::new(script);
        let sources = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut command = Command::new(sources.join("tests/systemd/machine.sh"));
        command.arg(scene.root()).arg(PROGRAM).arg(fake_gateway());
        command.arg(sources.join("contrib/systemd/openclaw-supervise.service"));
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut driver = command.spawn().expect("the script can be started");
        let mut said = String::new();
        for line in BufReader::new(driver.stdout.take().expect("it is a pipe")).lines() {
            let line = line.expect("the script writes text");
            if let Some(init) = line.strip_prefix("up ") {
                return Self { driver, init: init.parse().expect("a pid"), scene };
            }
            said = said + &line + "\n";
        }
        driver.wait().ok();
        panic!("this test boots a systemd of its own, and cannot do so here:\n{said}");
    }

    /// The shipped unit with settings for the tests; not started.
    pub(crate) fn shipped(&self, settings: &[&str]) -> Unit<'_> {
        self.unit(Scope::Machine, SHIPPED, settings)
    }

    /// A copy of the unit under another name.
    pub(crate) fn copy(&self, name: &'static str, settings: &[&str]) -> Unit<'_> {
        self.install(Scope::Machine, name);
        self.unit(Scope::Machine, name, settings)
    }

    /// The shipped template for a user: `openclaw-supervise@alice`.
    pub(crate) fn of_account(&self, settings: &[&str]) -> Unit<'_> {
        let name = "openclaw-supervise@.service";
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd").join(name);
        let copied = fs::copy(shipped, self.root().join(Scope::Machine.folder()).join(name));
        assert!(copied.is_ok(), "{copied:?}");
        let root = self.scene.root().display().to_string();
        for words in [
            &["sh", "-c", "echo alice:x:1234:1234::/srv/alice:/bin/sh >>/etc/passwd; echo alice:x:1234: >>/etc/group"]
                [..],
            &["mkdir", "-p", "/srv/alice"],
            &["chown", "-R", "1234:1234", "/srv/alice", &root],
        ] {
            let output = self.run(words);
            assert!(output.status.success(), "{words:?}: {output:?}");
        }
        self.unit(Scope::Machine, "openclaw-supervise@alice", settings)
    }

    /// Installs `tell-me@NAME.service` in both scopes, which records its instance names.
    pub(crate) fn listener(&self) {
        let told = self.scene.root().join("told");
        let text = format!("[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo %i >>{}'\n", told.display());
        for scope in [Scope::Machine, Scope::User] {
            let path = self.root().join(scope.folder()).join("tell-me@.service");
            fs::write(path, &text).expect("the overlay can be written");
        }
    }

    /// Installs the shipped unit for notifications. It appends its messages to a file.
    pub(crate) fn notifier(&self) -> PathBuf {
        let name = "openclaw-supervise-notify@.service";
        let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("contrib/systemd").join(name);
        let copied = fs::copy(shipped, self.root().join(Scope::Machine.folder()).join(name));
        assert!(copied.is_ok(), "{copied:?}");
        let told = self.scene.root().join("notified");
        let own = [
            "[Service]".to_owned(),
            "Environment=OPENCLAW_SUPERVISE_NOTIFY=".to_owned(),
            format!("Environment=\"OPENCLAW_SUPERVISE_ON_EVENT=cat >>{}\"", told.display()),
            format!("Environment=OPENCLAW_STATE_DIR={}", self.scene.state_dir().display()),
        ];
        self.drop_in(Scope::Machine, name, &own.join("\n"));
        told
    }

    /// The recorded names.
    pub(crate) fn heard(&self) -> Vec<String> {
        let text = fs::read_to_string(self.scene.root().join("told")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The service that `install` writes for root: `openclaw-supervise@root`.
    pub(crate) fn of_root(&self) -> Unit<'_> {
        self.unit(Scope::Machine, "openclaw-supervise@root", &[])
    }

    /// A folder with the same path on the host and in the machine.
    pub(crate) fn shared(&self) -> String {
        self.scene.root().display().to_string()
    }

    /// A service that does nothing, under this name.
    pub(crate) fn idle(&self, name: &'static str) -> Unit<'_> {
        let path = self.root().join(Scope::Machine.folder()).join(format!("{name}.service"));
        fs::write(path, "[Service]\nExecStart=sleep infinity\n").expect("the overlay can be written");
        let unit = Unit { machine: self, scope: Scope::Machine, name };
        unit.expect(&["daemon-reload"]);
        unit
    }

    /// The shipped unit under a user manager.
    pub(crate) fn of_user(&self, settings: &[&str]) -> Unit<'_> {
        let path = self.root().join(Scope::Machine.folder()).join("user@.service");
        fs::write(path, USER_MANAGER).expect("the overlay can be written");
        let started = self.systemctl(&["start", "user@0"]);
        assert!(started.status.success(), "{started:?}");
        self.install(Scope::User, SHIPPED);
        self.unit(Scope::User, SHIPPED, settings)
    }

    /// Gives the machine's user an empty home, a user manager, and the real OpenClaw on PATH as npm links it, before its Node.
    pub(crate) fn adopt_openclaw(&self, node: &str, program: &str) {
        assert!(
            self.run(&["test", "-x", program]).status.success(),
            "{program} is not in the machine: keep the target folder on the file system of /"
        );
        let path = self.root().join(Scope::Machine.folder()).join("user@.service");
        fs::write(path, ACCOUNT_MANAGER).expect("the overlay can be written");
        let rename_home = format!("s,^\\(root:.*:\\)[^:]*\\(:[^:]*\\)$,\\1{HOME}\\2,");
        for words in [
            &["mkdir", "-p", HOME][..],
            &["sed", "-i", &rename_home, "/etc/passwd"],
            &["ln", "-sf", node, "/usr/local/bin/node"],
            &["ln", "-sf", program, "/usr/local/bin/openclaw"],
            &["systemctl", "start", "user@0"],
        ] {
            let output = self.run(words);
            assert!(output.status.success(), "{words:?}: {output:?}");
        }
    }

    /// Runs a command as that user.
    pub(crate) fn run_at_home(&self, words: &[&str]) -> Output {
        let home = format!("HOME={HOME}");
        self.run(&[&[home.as_str(), USER_RUNTIME], words].concat())
    }

    /// A service of that user.
    pub(crate) fn own_service(&self, name: &'static str) -> Unit<'_> {
        Unit { machine: self, scope: Scope::User, name }
    }

    /// The path of its unit file on the host.
    pub(crate) fn own_unit_file(&self, name: &str) -> PathBuf {
        self.root().join(HOME.trim_start_matches('/')).join(format!(".config/systemd/user/{name}.service"))
    }

    pub(crate) fn port(&self) -> u16 {
        self.scene.port()
    }

    /// OpenClaw's own service with this program as its wrapper.
    pub(crate) fn wrapped(&self, settings: &[&str]) -> Unit<'_> {
        let name = "openclaw-gateway";
        let path = self.root().join(Scope::Machine.folder()).join(format!("{name}.service"));
        fs::write(path, WRAPPED).expect("the overlay can be written");
        self.unit(Scope::Machine, name, settings)
    }

    fn install(&self, scope: Scope, name: &str) {
        let shipped = self.root().join(Scope::Machine.folder()).join(format!("{SHIPPED}.service"));
        let copied = fs::copy(shipped, self.root().join(scope.folder()).join(format!("{name}.service")));
        assert!(copied.is_ok(), "{copied:?}");
    }

    fn unit(&self, scope: Scope, name: &'static str, settings: &[&str]) -> Unit<'_> {
        let unit = Unit { machine: self, scope, name };
        let scene = self.scene.command("true");
        let own = scene.get_envs().filter_map(|(key, value)| Some((key.to_str()?, value?.to_str()?)));
        let mut lines = vec!["[Service]".to_owned(), format!("StandardError=append:{}", unit.log().display())];
        lines.extend(own.map(|(key, value)| format!("Environment=\"{key}={value}\"")));
        lines.push(format!("Environment=OPENCLAW_GATEWAY_PORT={}", self.scene.port()));
        lines.extend(QUICK.iter().map(|option| format!("Environment=OPENCLAW_SUPERVISE_{option}")));
        lines.extend(settings.iter().map(|&setting| setting.to_owned()));
        self.drop_in(scope, &format!("{name}.service"), &lines.join("\n"));
        // systemd unloads an inactive unit without references, and its result with it.
        let target = match scope {
            Scope::Machine => "bare.target",
            Scope::User => "basic.target",
        };
        self.drop_in(scope, target, &format!("[Unit]\nWants={name}.service"));
        unit.expect(&["daemon-reload"]);
        unit
    }

    fn drop_in(&self, scope: Scope, unit: &str, text: &str) {
        let folder = self.root().join(scope.folder()).join(format!("{unit}.d"));
        let written =
            fs::create_dir_all(&folder).and_then(|()| fs::write(folder.join("test.conf"), format!("{text}\n")));
        assert!(written.is_ok(), "{written:?}");
    }

    /// Runs a command in the machine; variables may precede it.
    pub(crate) fn run(&self, words: &[&str]) -> Output {
        let mut command = Command::new("nsenter");
        command.args(["--all", "--target", &self.init.to_string(), "--", "env", "-i", "LC_ALL=C"]);
        command.arg("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin").args(words);
        command.stdin(Stdio::null()).output().expect("nsenter can be started")
    }

    pub(crate) fn systemctl(&self, words: &[&str]) -> Output {
        self.run(&[Scope::Machine.systemctl(), words].concat())
    }

    /// Starts the journal; what a unit writes to it is read with [`Self::journalctl`].
    pub(crate) fn keep_journal(&self) {
        let started = self.systemctl(&["start", "systemd-journald.service"]);
        assert!(started.status.success(), "{started:?}");
    }

    /// The messages in the journal that these words select.
    pub(crate) fn journalctl(&self, words: &[&str]) -> String {
        let output = self.run(&[&["journalctl", "--no-pager", "--quiet", "--output=cat"], words].concat());
        assert!(output.status.success(), "{output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    pub(crate) fn diary(&self) -> Diary {
        self.scene.diary()
    }

    /// Every process of this test, with its pid on the host.
    pub(crate) fn processes(&self) -> Vec<Process> {
        let is_inside = |process: &Process| {
            let space = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/pid")).ok();
            space(process.pid) == space(self.init)
        };
        self.scene.processes().into_iter().filter(is_inside).collect()
    }

    pub(crate) fn gateways(&self) -> Vec<Process> {
        let is_gateway = |process: &Process| {
            let command = fs::read(format!("/proc/{}/cmdline", process.pid)).unwrap_or_default();
            command.starts_with(b"/usr/local/bin/openclaw\0gateway\0run\0")
        };
        self.processes().into_iter().filter(is_gateway).collect()
    }

    /// The only gateway.
    pub(crate) fn gateway(&self) -> Process {
        let gateways = self.gateways();
        assert_eq!(gateways.len(), 1, "{}", process::describe(&self.processes()));
        gateways[0]
    }

    /// The path of its root folder on the host.
    fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.init))
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // End of file on stdin makes the script clean up.
        drop(self.driver.stdin.take());
        self.driver.wait().ok();
    }
}

/// One service of a machine.
pub(crate) struct Unit<'a> {
    machine: &'a Machine,
    scope: Scope,
    name: &'static str,
}

impl Unit<'_> {
    fn systemctl(&self, words: &[&str]) -> Output {
        self.machine.run(&[self.scope.systemctl(), words].concat())
    }

    fn expect(&self, words: &[&str]) {
        let output = self.systemctl(words);
        assert!(output.status.success(), "{words:?}: {output:?}\n{}", self.story());
    }

    /// Runs a systemctl verb and waits for it. Returns whether it succeeded.
    pub(crate) fn order(&self, verb: &str) -> bool {
        self.systemctl(&[verb, self.name]).status.success()
    }

    /// The same, and asserts success.
    pub(crate) fn order_well(&self, verb: &str) {
        self.expect(&[verb, self.name]);
    }

    /// The same with `--no-block`.
    pub(crate) fn order_only(&self, verb: &str) {
        self.expect(&[verb, "--no-block", self.name]);
    }

    /// A property from `systemctl show`.
    pub(crate) fn property(&self, name: &str) -> String {
        let output = self.systemctl(&["show", "--value", "--property", name, self.name]);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    }

    pub(crate) fn state(&self) -> String {
        self.property("ActiveState")
    }

    pub(crate) fn status_text(&self) -> String {
        self.property("StatusText")
    }

    pub(crate) fn wait_state(&self, state: &str) {
        self.wait_for(&format!("the state {state}"), || self.state() == state);
    }

    /// Waits until the status text says that this gateway serves.
    pub(crate) fn wait_serving(&self, generation: u64) {
        self.wait_for(&format!("gateway {generation} to serve"), || self.says_serving(generation));
    }

    /// The same, and asserts that the unit is in one of these states until then.
    pub(crate) fn wait_serving_through(&self, generation: u64, states: &[&str]) {
        self.wait_for(&format!("gateway {generation} to serve"), || {
            let state = self.state();
            assert!(states.contains(&state.as_str()), "it is {state}\n{}", self.story());
            self.says_serving(generation)
        });
    }

    /// Whether the status text says that this gateway serves.
    pub(crate) fn says_serving(&self, generation: u64) -> bool {
        let text = self.status_text();
        text.starts_with(&format!("gateway {generation} (pid ")) && text.ends_with(") is healthy")
    }

    pub(crate) fn wait_for(&self, what: &str, holds: impl Fn() -> bool) {
        let look = || {
            let found = holds().then_some(());
            // Each check starts two programs.
            let_pass(BETWEEN_LOOKS);
            found
        };
        wait_for(what, PATIENCE, || self.story(), look);
    }

    /// The supervisor's pid on the host: the only process in the unit's own control group.
    pub(crate) fn supervisor(&self) -> Process {
        let path = self.cgroup().join("cgroup.procs");
        let text = fs::read_to_string(path).unwrap_or_default();
        let pids: Vec<i32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        assert_eq!(pids.len(), 1, "{text}\n{}", self.story());
        Process::find(pids[0]).expect("it lives")
    }

    /// Its control group while it runs.
    pub(crate) fn cgroup(&self) -> PathBuf {
        let path = self.property("ControlGroup");
        assert!(path.ends_with(".service"), "{path:?}\n{}", self.story());
        self.machine.root().join("sys/fs/cgroup").join(path.trim_start_matches('/'))
    }

    /// Whether the supervisor has reported an event of that name.
    pub(crate) fn has_reported(&self, event: &str) -> bool {
        let name = format!("\"{event}\"");
        fs::read_to_string(self.log()).unwrap_or_default().lines().any(|line| line.contains(&name))
    }

    /// Whether a log line contains `text`.
    pub(crate) fn has_said(&self, text: &str) -> bool {
        fs::read_to_string(self.log()).unwrap_or_default().contains(text)
    }

    fn log(&self) -> PathBuf {
        self.machine.scene.root().join(format!("{}.log", self.name))
    }

    /// Status and logs for a panic message.
    pub(crate) fn story(&self) -> String {
        let status = self.systemctl(&["status", "--full", self.name]);
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        let status = String::from_utf8_lossy(&status.stdout).into_owned();
        format!("--- {}\n{status}--- its stderr\n{log}", self.name)
    }
}
