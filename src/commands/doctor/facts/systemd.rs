//! The units of systemd that start this program or OpenClaw, as `systemctl show` prints them: those of the system manager
//! and of the user manager.

use super::command_line::{exec_start, exec_words, shell_words};
use super::program::{self, ProgramError, is_ours};
use super::service_manager::{SystemdManager, accounts, name_of};
use super::unit_files;
use crate::commands::doctor::finding::{Advice, Remedy};
use crate::gateway::openclaw;
use crate::host::clock;
use crate::host::manager::time_span;
use nix::unistd::User;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The properties that are asked for.
const PROPERTIES: [&str; 37] = [
    "Id",
    "LoadState",
    "ActiveState",
    "SubState",
    "Result",
    "ExecMainCode",
    "ExecMainStatus",
    "StateChangeTimestampMonotonic",
    "ActiveEnterTimestampMonotonic",
    "Transient",
    "ConditionResult",
    "UnitFileState",
    "FragmentPath",
    "DropInPaths",
    "NeedDaemonReload",
    "MainPID",
    "ControlGroup",
    "User",
    "ExecStart",
    "Environment",
    "Type",
    "NotifyAccess",
    "KillMode",
    "SendSIGKILL",
    "Delegate",
    "WatchdogUSec",
    "TimeoutStopUSec",
    "Restart",
    "RestartUSec",
    "RestartPreventExitStatus",
    "SuccessExitStatus",
    "StartLimitBurst",
    "StartLimitIntervalUSec",
    "OOMPolicy",
    "LimitNOFILESoft",
    "WantedBy",
    "EnvironmentFiles",
];

/// The `PATH` of a system service that sets none, see "Environment Variables" in systemd.exec(5).
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// A service with its properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct UnitFacts {
    pub(in super::super) manager: SystemdManager,
    properties: BTreeMap<String, String>,
}

impl UnitFacts {
    /// A property; `None` if it is empty, or this version of systemd has none of that name.
    pub(in super::super) fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    pub(in super::super) fn time(&self, name: &str) -> Option<Duration> {
        self.get(name).and_then(time_span::parse)
    }

    pub(in super::super) fn id(&self) -> &str {
        self.get("Id").unwrap_or("unnamed unit")
    }

    pub(in super::super) fn main_pid(&self) -> Option<i32> {
        self.get("MainPID")?.parse().ok().filter(|pid| *pid > 0)
    }

    /// Whether a control group belongs to it.
    pub(in super::super) fn holds(&self, cgroup: &str) -> bool {
        let rest = self.get("ControlGroup").and_then(|own| cgroup.strip_prefix(own));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    pub(in super::super) fn is_active(&self) -> bool {
        matches!(self.get("ActiveState"), Some("active" | "activating" | "reloading" | "deactivating"))
    }

    /// Whether it cannot be started by anything.
    pub(in super::super) fn is_masked(&self) -> bool {
        self.get("LoadState") == Some("masked")
            || self.get("UnitFileState").is_some_and(|state| state.starts_with("masked"))
    }

    /// Whether it exists only until the next boot, as those of systemd-run(1).
    pub(in super::super) fn is_transient(&self) -> bool {
        self.get("Transient") == Some("yes") || self.get("UnitFileState") == Some("transient")
    }

    /// A time of systemd's, on the kernel's monotonic clock, in milliseconds since 1970. `None` if it never came.
    pub(in super::super) fn moment(&self, property: &str) -> Option<i64> {
        let at = self.get(property)?.parse().ok().filter(|at| *at > 0).map(Duration::from_micros)?;
        let ago = clock::of_the_kernel(clock::now()).saturating_sub(at);
        Some(clock::wall_ms().saturating_sub(i64::try_from(ago.as_millis()).ok()?))
    }

    pub(in super::super) fn is_enabled(&self) -> bool {
        matches!(self.get("UnitFileState"), Some("enabled" | "enabled-runtime" | "linked" | "linked-runtime"))
    }

    /// The program and the arguments of its first `ExecStart=`, split at spaces because `systemctl show` omits the quotes.
    pub(in super::super) fn command(&self) -> Option<(PathBuf, Vec<String>)> {
        let (path, words) = self.shown_command()?;
        Some((resolve(Path::new(path)), words.split_whitespace().map(str::to_owned).collect()))
    }

    fn shown_command(&self) -> Option<(&str, &str)> {
        let (_, rest) = self.get("ExecStart")?.split_once("path=")?;
        let (path, rest) = rest.split_once(" ;")?;
        let (_, rest) = rest.split_once("argv[]=")?;
        let (words, _) = rest.split_once(" ; ignore_errors=")?;
        Some((path, words))
    }

    /// The arguments from the unit files. `None` if these cannot be read, or differ from what systemd has loaded.
    pub(in super::super) fn words(&self) -> Option<Vec<String>> {
        let (_, shown) = self.shown_command()?;
        let drop_ins = self.get("DropInPaths").unwrap_or_default().split_whitespace();
        let files = [self.get("FragmentPath")?].into_iter().chain(drop_ins);
        let texts: Vec<String> = files.map(|file| unit_files::text(Path::new(file))).collect::<Option<_>>()?;
        let words = exec_words(&exec_start(&texts)?, &|specifier| self.specifier(specifier))?;
        (words.join(" ") == shown).then_some(words)
    }

    /// The value of a specifier, see systemd.unit(5).
    fn specifier(&self, letter: char) -> Option<String> {
        let name = self.id().strip_suffix(".service")?;
        let (prefix, instance) = name.split_once('@').unwrap_or((name, ""));
        Some(match letter {
            'n' => self.id().to_owned(),
            'N' => name.to_owned(),
            'p' => prefix.to_owned(),
            'i' => instance.to_owned(),
            // The home of the user who runs the manager, not of `User=`.
            'h' => self.manager.home()?.to_str()?.to_owned(),
            _ => return None,
        })
    }

    /// The last value of a setting in those of its files that can be read.
    pub(in super::super) fn written(&self, setting: &str) -> Option<String> {
        let drop_ins = self.get("DropInPaths").unwrap_or_default().split_whitespace();
        let texts =
            self.get("FragmentPath").into_iter().chain(drop_ins).filter_map(|path| unit_files::text(Path::new(path)));
        let lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let value =
            |line: &String| Some(line.trim().strip_prefix(setting)?.trim_start().strip_prefix('=')?.trim().to_owned());
        lines.iter().rev().find_map(value)
    }

    /// Whether its command has this program in it, under any name. A masked unit has none.
    pub(in super::super) fn runs_us(&self) -> bool {
        let Some((path, words)) = self.command() else {
            return self.is_masked() && is_ours(self.id().trim_end_matches(".service"));
        };
        is_ours(&path) || words.iter().any(is_ours) || unit_files::leads_to_us(&path)
    }

    /// Whether its command starts an OpenClaw gateway, without this program.
    pub(in super::super) fn runs_gateway(&self) -> bool {
        let words = self.command().map(|(_, words)| words).unwrap_or_default();
        // They may be the line of a shell, with its quotes.
        let words: Vec<&str> = words.iter().map(|word| word.trim_matches(['"', '\'', ';'])).collect();
        let verb = words.iter().rposition(|word| *word == "gateway").and_then(|at| words.get(at + 1));
        // Not `openclaw gateway status`, or another verb that ends at once.
        let serves =
            verb.is_none_or(|verb| *verb == "run" || !verb.starts_with(|first: char| first.is_ascii_lowercase()));
        serves && !self.runs_us() && openclaw::is_gateway(&words.into_iter().map(OsString::from).collect::<Vec<_>>())
    }

    /// `Environment=`, overridden by those `EnvironmentFile=` that can be read.
    pub(in super::super) fn variables(&self) -> BTreeMap<String, OsString> {
        let mut all = variables(&shell_words(self.get("Environment").unwrap_or_default()));
        let files = self.get("EnvironmentFiles").unwrap_or_default().split_whitespace();
        for text in files.filter(|word| word.starts_with('/')).filter_map(|file| unit_files::text(Path::new(file))) {
            let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
            all.extend(variables(&lines.map(|line| shell_words(line).join(" ")).collect::<Vec<_>>()));
        }
        all
    }

    /// How to change one of its settings.
    pub(in super::super) fn line(&self, section: &'static str, line: &str) -> Advice {
        self.lines(section, &[line])
    }

    pub(in super::super) fn lines(&self, section: &'static str, lines: &[&str]) -> Advice {
        let text =
            format!("{} (in [{section}], with `{} edit {}`)", lines.join(" and "), self.manager.systemctl(), self.id());
        Advice::with(text, Remedy::Directives { section, lines: lines.iter().map(|&line| line.to_owned()).collect() })
    }
}

/// Where systemd finds a program that a unit names without a directory: in the search path of its build.
fn resolve(program: &Path) -> PathBuf {
    if program.is_absolute() {
        return program.to_owned();
    }
    let mut places = std::env::split_paths(DEFAULT_PATH).map(|folder| folder.join(program));
    places.find(|place| place.is_file()).unwrap_or_else(|| Path::new("/usr/local/bin").join(program))
}

/// What one manager reported.
#[derive(Debug, Clone)]
pub(in super::super) struct ManagerFacts {
    pub(in super::super) manager: SystemdManager,
    /// The services that start this program or OpenClaw.
    pub(in super::super) units: Result<Vec<UnitFacts>, ProgramError>,
    /// The environment of every service.
    pub(in super::super) variables: BTreeMap<String, OsString>,
    /// Whether its unit files were read; a disabled unit is found only there.
    pub(in super::super) has_files: bool,
}

/// Asks the system manager, our user manager and, as root, those of other users.
pub(in super::super) fn gather() -> Vec<ManagerFacts> {
    let managers = [SystemdManager::System, SystemdManager::User].into_iter().chain(accounts());
    let facts = managers.map(|manager| {
        let names = unit_files::names(&manager);
        let has_files = names.is_some();
        let units = units(&manager, names.unwrap_or_default());
        let variables = if units.is_ok() { environment(&manager) } else { BTreeMap::new() };
        ManagerFacts { manager, units, variables, has_files }
    });
    facts.collect()
}

/// Where it is not there is nothing to ask, and a systemctl reads all unit files before it says so, see `sd_booted(3)`.
pub(in super::super) fn is_init() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

fn systemctl(manager: &SystemdManager, words: &[&str]) -> Result<String, ProgramError> {
    program::output(command(manager, words))
}

/// Has it read its files again.
///
/// # Errors
/// What systemctl printed.
pub(in super::super) fn reload(manager: &SystemdManager) -> Result<(), String> {
    program::success(command(manager, &["daemon-reload"]))
}

/// A call of systemctl that speaks to this manager, and prints what can be parsed.
pub(in super::super) fn command(manager: &SystemdManager, words: &[&str]) -> Command {
    let mut command = Command::new("systemctl");
    command.args(["--no-pager", "--no-ask-password"]);
    match manager {
        SystemdManager::System => {}
        SystemdManager::User => {
            command.arg("--user");
            // Unset outside a login session, where the manager may run because of lingering.
            let runtime = PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw()));
            if std::env::var_os("XDG_RUNTIME_DIR").is_none() && runtime.exists() {
                command.env("XDG_RUNTIME_DIR", runtime);
            }
        }
        // Its socket takes root's connection; `--machine=` would need a system bus.
        SystemdManager::Account(user) => {
            command.arg("--user").env_remove("DBUS_SESSION_BUS_ADDRESS");
            if let Some(user) = User::from_name(user).ok().flatten() {
                command.env("XDG_RUNTIME_DIR", format!("/run/user/{}", user.uid));
            }
        }
    }
    command.args(words);
    command.env("LC_ALL", "C").env("SYSTEMD_COLORS", "0");
    command
}

/// `of_files`: the names of units with files that start this program.
fn units(manager: &SystemdManager, of_files: BTreeSet<String>) -> Result<Vec<UnitFacts>, ProgramError> {
    // `show` expands a pattern to loaded units only; the other unit files are given by name.
    let list = |pattern: &[&str]| {
        let words = [&["list-unit-files", "--no-legend", "--plain", "--type=service"], pattern].concat();
        match systemctl(manager, &words) {
            Ok(text) => Ok(text.lines().filter_map(|line| name_of(line.split_whitespace().next()?)).collect()),
            Err(ProgramError::Silent(_)) => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    };
    let mut names: Vec<String> = list(&["openclaw*.service"])?;
    names.extend(list(&["--state=enabled"])?);
    names.extend(of_files);
    names.sort_unstable();
    names.dedup();
    let properties = PROPERTIES.join(",");
    let mut words = vec!["show", "-p", &properties, "--", "*.service"];
    words.extend(names.iter().map(String::as_str));
    Ok(parse(manager, &systemctl(manager, &words)?))
}

/// Parses blocks of `NAME=VALUE`, one for each unit. Keeps those that start this program or OpenClaw.
fn parse(manager: &SystemdManager, text: &str) -> Vec<UnitFacts> {
    let mut units: Vec<UnitFacts> = Vec::new();
    for block in text.split("\n\n") {
        let lines = block.lines().filter_map(|line| line.split_once('='));
        let properties = lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        let unit = UnitFacts { manager: manager.clone(), properties };
        let is_relevant = unit.runs_us() || unit.id().starts_with("openclaw") || unit.runs_gateway();
        if is_relevant && unit.get("Id").is_some() && !units.iter().any(|known| known.id() == unit.id()) {
            units.push(unit);
        }
    }
    units
}

fn environment(manager: &SystemdManager) -> BTreeMap<String, OsString> {
    let text = systemctl(manager, &["show-environment"]).unwrap_or_default();
    let mut all = variables(&text.lines().map(|line| shell_words(line).concat()).collect::<Vec<_>>());
    if *manager == SystemdManager::System {
        all.entry("PATH".to_owned()).or_insert_with(|| DEFAULT_PATH.into());
    }
    all
}

fn variables(entries: &[String]) -> BTreeMap<String, OsString> {
    let entries = entries.iter().filter_map(|entry| entry.split_once('='));
    entries.map(|(name, value)| (name.to_owned(), OsString::from(value))).collect()
}

/// Any text of a unit file, or of `systemctl show`.
#[cfg(any(test, feature = "fuzzing"))]
pub fn read_any(text: &str) {
    for unit in parse(&SystemdManager::System, text) {
        let _facts = (unit.command(), unit.main_pid(), unit.time("TimeoutStopUSec"), unit.holds("/"));
    }
    let _variables = variables(&shell_words(text));
    let command = exec_start(&[text.to_owned()]);
    let _words = command.and_then(|command| exec_words(&command, &|letter| Some(letter.to_string())));
}

#[cfg(test)]
pub(in super::super) mod tests {
    use super::*;
    use std::fs;

    /// What systemd shows of the shipped unit besides its own settings.
    const STATE: &str = "\
MainPID=0
ExecStart={ path=/usr/local/bin/openclaw-supervise ; argv[]=openclaw-supervise run ; ignore_errors=no ; start_time=[n/a] ; \
stop_time=[n/a] ; pid=0 ; code=(null) ; status=0/0 }
ControlGroup=
LimitNOFILE=524288
LimitNOFILESoft=1024
SendSIGKILL=yes
Id=openclaw-supervise.service
LoadState=loaded
ActiveState=inactive
FragmentPath=/etc/systemd/system/openclaw-supervise.service
UnitFileState=enabled
NeedDaemonReload=no
StartLimitBurst=5
";

    /// The settings of the shipped unit as systemd shows them: `ASec=` becomes `AUSec=`.
    fn shipped() -> String {
        let unit = include_str!("../../../../contrib/systemd/openclaw-supervise.service");
        let body = unit.split("\n[Install]").next().unwrap_or_default();
        let settings =
            body.lines().filter(|line| !line.starts_with(['#', '['])).filter_map(|line| line.split_once('='));
        let shown = settings.filter(|(name, _)| !name.starts_with("Exec")).map(|(name, value)| {
            match name.strip_suffix("Sec") {
                Some(name) if value == "0" => format!("{name}USec=0\n"),
                Some(name) => format!("{name}USec={value}s\n"),
                None => format!("{name}={value}\n"),
            }
        });
        shown.collect()
    }

    /// The shipped unit with other values.
    pub(in crate::commands::doctor) fn unit(changes: &[(&str, &str)]) -> UnitFacts {
        let lines: Vec<_> = changes.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let lines = lines.concat();
        parse(&SystemdManager::System, &format!("{STATE}{}{lines}", shipped())).remove(0)
    }

    proptest::proptest! {
        #[test]
        fn no_text_breaks_it(text in ".{0,60}", line in "(ExecStart=|Id=openclaw|\\{ path=|argv\\[\\]=| ;|[-@:+!]|\\\\x?|[\"'% \\n\\\\]|[a-z0-9/]){0,40}") {
            read_any(&text);
            read_any(&line);
        }
    }

    #[test]
    fn the_output_of_systemctl_becomes_a_unit() {
        let unit = unit(&[("Environment", r#"A=b "C=d e" EMPTY="#)]);
        assert_eq!(unit.id(), "openclaw-supervise.service");
        assert_eq!(unit.time("TimeoutStopUSec"), Some(Duration::from_mins(6)));
        assert_eq!((unit.get("SuccessExitStatus"), unit.get("ControlGroup")), (Some("143"), None));
        let (path, words) = unit.command().unwrap();
        assert_eq!(
            (path.to_str(), words.join(" ")),
            (Some("/usr/local/bin/openclaw-supervise"), "openclaw-supervise run".to_owned())
        );
        let variables = unit.variables();
        assert_eq!((&variables["A"], &variables["C"], &variables["EMPTY"]), (&"b".into(), &"d e".into(), &"".into()));
    }

    #[test]
    fn a_unit_of_any_name_counts_if_its_command_is_a_gateway() {
        for (words, expected) in [
            ("/usr/bin/node /opt/openclaw/dist/index.js gateway --port 1", true),
            ("openclaw --profile gateway gateway run", true),
            ("/bin/sh -c \"exec openclaw gateway\"", true),
            ("openclaw gateway status", false),
            ("openclaw doctor", false),
            ("/usr/bin/gateway run", false),
        ] {
            let block = format!("Id=a.service\nExecStart={{ path=/x ; argv[]={words} ; ignore_errors=no ; }}\n");
            assert_eq!(parse(&SystemdManager::System, &block).len() == 1, expected, "{words}");
        }
    }

    #[test]
    fn the_last_assignment_in_the_unit_files_applies() {
        let file = std::env::temp_dir().join(format!("doctor-lines-{}", std::process::id()));
        fs::write(&file, "[Service]\nWatchdogSec=60\nWatchdogSecond=1\n  WatchdogSec = 5min\n#WatchdogSec=0\n")
            .unwrap();
        let unit = unit(&[("FragmentPath", "/nowhere/x"), ("DropInPaths", &file.display().to_string())]);
        let written = unit.written("WatchdogSec");
        fs::remove_file(file).unwrap();
        assert_eq!((written.as_deref(), unit.written("WatchdogSec")), (Some("5min"), None));
    }

    #[test]
    fn a_program_without_a_directory_is_looked_up_as_systemd_does() {
        let found = resolve(Path::new("sh"));
        assert!(found.is_absolute() && found.is_file(), "{}", found.display());
        assert_eq!(resolve(Path::new("/opt/x")), Path::new("/opt/x"));
        assert_eq!(resolve(Path::new("nowhere-to-be-found")), Path::new("/usr/local/bin/nowhere-to-be-found"));
    }

    #[test]
    fn an_environment_file_overrides_the_unit_and_a_missing_one_is_ignored() {
        let file = std::env::temp_dir().join(format!("doctor-variables-{}", std::process::id()));
        fs::write(&file, "# A=comment\nA=\"x y\"\n B=2\n").unwrap();
        let files = format!("{} (ignore_errors=no) /nowhere/x (ignore_errors=yes)", file.display());
        let variables = unit(&[("Environment", "A=b C=d"), ("EnvironmentFiles", &files)]).variables();
        fs::remove_file(file).unwrap();
        let expected = [("A", "x y"), ("B", "2"), ("C", "d")].map(|(name, value)| (name.to_owned(), value.into()));
        assert_eq!(variables, BTreeMap::from(expected));
    }

    #[test]
    fn only_units_that_start_this_program_or_openclaw_are_kept() {
        let exec =
            |path: &str, words: &str| format!("ExecStart={{ path={path} ; argv[]={words} ; ignore_errors=no ; }}");
        let text = [
            format!("Id=ssh.service\n{}\n", exec("/usr/sbin/sshd", "/usr/sbin/sshd -D")),
            format!("Id=mine.service\n{}\n", exec("/opt/openclaw-supervise-0.1.0", "openclaw-supervise-0.1.0")),
            format!("Id=wrapped.service\n{}\n", exec("/usr/bin/env", "/usr/bin/env /opt/openclaw-supervise run")),
            format!("Id=openclaw-gateway.service\n{}\n", exec("/usr/bin/node", "node openclaw.mjs gateway")),
            format!("Id=mine.service\n{}\n", exec("/opt/openclaw-supervise", "x")),
            format!("Id=edit.service\n{}\n", exec("/bin/vi", "/bin/vi openclaw-supervise.service")),
        ];
        let units = parse(&SystemdManager::User, &text.join("\n"));
        let ids: Vec<_> = units.iter().map(|unit| (unit.id(), unit.runs_us())).collect();
        let expected = [("mine.service", true), ("wrapped.service", true), ("openclaw-gateway.service", false)];
        assert_eq!(ids, expected);
    }
}
