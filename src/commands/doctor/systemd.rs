//! The services of systemd that have to do with us, as `systemctl show` tells them: of the machine's manager, and of the
//! user's own.

use super::command_line;
use super::program::{self, Trouble};
use crate::host::manager::time_span;
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// What is asked of each service.
const PROPERTIES: [&str; 29] = [
    "Id",
    "LoadState",
    "ActiveState",
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

/// What systemd gives to a service of the machine without a word about it.
const PATH_OF_MACHINE: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Whose services they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Manager {
    Machine,
    User,
}

impl Manager {
    /// How a person speaks to it.
    pub(super) fn systemctl(self) -> &'static str {
        match self {
            Self::Machine => "systemctl",
            Self::User => "systemctl --user",
        }
    }

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Machine => "the machine's systemd",
            Self::User => "the user's systemd",
        }
    }
}

/// One service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) manager: Manager,
    properties: BTreeMap<String, String>,
}

impl Unit {
    /// A property; nothing where this systemd does not know it, or it is empty.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }

    /// A time.
    pub(super) fn time(&self, name: &str) -> Option<Duration> {
        self.get(name).and_then(time_span::parse)
    }

    pub(super) fn id(&self) -> &str {
        self.get("Id").unwrap_or("a unit without a name")
    }

    pub(super) fn main_pid(&self) -> Option<i32> {
        self.get("MainPID")?.parse().ok().filter(|pid| *pid > 0)
    }

    /// Whether a process of this control group is in it.
    pub(super) fn holds(&self, cgroup: &str) -> bool {
        let rest = self.get("ControlGroup").and_then(|own| cgroup.strip_prefix(own));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    pub(super) fn is_active(&self) -> bool {
        matches!(self.get("ActiveState"), Some("active" | "activating" | "reloading" | "deactivating"))
    }

    pub(super) fn is_enabled(&self) -> bool {
        matches!(self.get("UnitFileState"), Some("enabled" | "enabled-runtime" | "linked" | "linked-runtime"))
    }

    /// The program of its first `ExecStart`, and the words of it: as they are told, without quotes.
    pub(super) fn command(&self) -> Option<(PathBuf, Vec<String>)> {
        let (path, words) = self.told_command()?;
        Some((resolve(Path::new(path)), words.split_whitespace().map(str::to_owned).collect()))
    }

    fn told_command(&self) -> Option<(&str, &str)> {
        let (_, rest) = self.get("ExecStart")?.split_once("path=")?;
        let (path, rest) = rest.split_once(" ;")?;
        let (_, rest) = rest.split_once("argv[]=")?;
        let (words, _) = rest.split_once(" ; ignore_errors=")?;
        Some((path, words))
    }

    /// The words themselves, from the files of the unit; nothing where these cannot be read, or say something else than
    /// what is told.
    pub(super) fn words(&self) -> Option<Vec<String>> {
        let (_, told) = self.told_command()?;
        let drop_ins = self.get("DropInPaths").unwrap_or_default().split_whitespace();
        let files = [self.get("FragmentPath")?].into_iter().chain(drop_ins);
        let texts: Vec<String> = files.map(fs::read_to_string).collect::<Result<_, _>>().ok()?;
        let line = command_line::line(&texts)?;
        let words = command_line::words(&line, &|specifier| self.specified(specifier))?;
        (words.join(" ") == told).then_some(words)
    }

    /// What a specifier of its files stands for, see systemd.unit(5).
    fn specified(&self, specifier: char) -> Option<String> {
        let name = self.id().strip_suffix(".service")?;
        let (prefix, instance) = name.split_once('@').unwrap_or((name, ""));
        Some(match specifier {
            'n' => self.id().to_owned(),
            'N' => name.to_owned(),
            'p' => prefix.to_owned(),
            'i' => instance.to_owned(),
            // Of the manager, whatever the user of the service.
            'h' if self.manager == Manager::Machine => "/root".to_owned(),
            'h' => std::env::home_dir()?.to_str()?.to_owned(),
            _ => return None,
        })
    }

    /// The last value of a setting in the files of the unit, where they can be read.
    pub(super) fn written(&self, setting: &str) -> Option<String> {
        let drop_ins = self.get("DropInPaths").unwrap_or_default().split_whitespace();
        let texts =
            self.get("FragmentPath").into_iter().chain(drop_ins).filter_map(|path| fs::read_to_string(path).ok());
        let lines: Vec<String> = texts.flat_map(|text| text.lines().map(str::to_owned).collect::<Vec<_>>()).collect();
        let value =
            |line: &String| Some(line.trim().strip_prefix(setting)?.trim_start().strip_prefix('=')?.trim().to_owned());
        lines.iter().rev().find_map(value)
    }

    /// Whether one of the words of its command is our program.
    pub(super) fn runs_us(&self) -> bool {
        let Some((path, words)) = self.command() else { return false };
        is_ours(path.as_os_str()) || words.iter().any(|word| is_ours(OsStr::new(word)))
    }

    /// Its variables: those of the unit, and over them those of the files that it names, where we may read them.
    pub(super) fn variables(&self) -> BTreeMap<String, OsString> {
        let mut all = variables(&split_words(self.get("Environment").unwrap_or_default()));
        let files = self.get("EnvironmentFiles").unwrap_or_default().split_whitespace();
        for text in files.filter(|word| word.starts_with('/')).filter_map(|file| fs::read_to_string(file).ok()) {
            let lines = text.lines().map(str::trim).filter(|line| !line.starts_with(['#', ';']));
            all.extend(variables(&lines.map(|line| split_words(line).join(" ")).collect::<Vec<_>>()));
        }
        all
    }

    /// The line that changes one of its settings, and where it goes.
    pub(super) fn line(&self, section: &str, line: &str) -> String {
        format!("{line} (below [{section}], in `{} edit {}`)", self.manager.systemctl(), self.id())
    }
}

/// Where systemd finds the program of a unit that names it without a folder: by the path that it was built with.
fn resolve(program: &Path) -> PathBuf {
    if program.is_absolute() {
        return program.to_owned();
    }
    let mut places = std::env::split_paths(PATH_OF_MACHINE).map(|folder| folder.join(program));
    places.find(|place| place.is_file()).unwrap_or_else(|| Path::new("/usr/local/bin").join(program))
}

/// Whether a word names our program, be it under the name of one release.
pub(super) fn is_ours(word: &OsStr) -> bool {
    let name = Path::new(word).file_name().and_then(OsStr::to_str);
    name.is_some_and(|name| name.starts_with("openclaw-supervise") && !Path::new(name).extension().is_some_and(is_unit))
}

fn is_unit(extension: &OsStr) -> bool {
    extension == "service"
}

/// What one manager told.
#[derive(Debug, Clone)]
pub(super) struct Told {
    pub(super) manager: Manager,
    /// The services that run us, or OpenClaw's own.
    pub(super) units: Result<Vec<Unit>, Trouble>,
    /// What it gives to every service.
    pub(super) variables: BTreeMap<String, OsString>,
}

/// Asks both managers.
pub(super) fn ask() -> [Told; 2] {
    [Manager::Machine, Manager::User].map(|manager| {
        let units = units(manager);
        let variables = if units.is_ok() { base(manager) } else { BTreeMap::new() };
        Told { manager, units, variables }
    })
}

fn systemctl(manager: Manager, words: &[&str]) -> Result<String, Trouble> {
    let mut command = Command::new("systemctl");
    command.args(["--no-pager", "--no-ask-password"]);
    if manager == Manager::User {
        command.arg("--user");
        // Without a login there is no such variable, and the manager may be there all the same.
        let runtime = PathBuf::from(format!("/run/user/{}", rustix::process::getuid().as_raw()));
        if std::env::var_os("XDG_RUNTIME_DIR").is_none() && runtime.exists() {
            command.env("XDG_RUNTIME_DIR", runtime);
        }
    }
    command.args(words);
    // The words are parsed.
    command.env("LC_ALL", "C").env("SYSTEMD_COLORS", "0");
    program::ask(command)
}

fn units(manager: Manager) -> Result<Vec<Unit>, Trouble> {
    // What is loaded is found by a pattern, what only lies there by its name.
    let files = systemctl(manager, &["list-unit-files", "--no-legend", "--plain", "openclaw*.service"]);
    let names = match files {
        Ok(text) => text.lines().filter_map(|line| name_of(line.split_whitespace().next()?)).collect(),
        Err(Trouble::Mute(_)) => Vec::new(),
        Err(trouble) => return Err(trouble),
    };
    let properties = PROPERTIES.join(",");
    let mut words = vec!["show", "-p", &properties, "--", "*.service"];
    words.extend(names.iter().map(String::as_str));
    Ok(parse(manager, &systemctl(manager, &words)?))
}

/// A unit file by the name that can be asked for; of a template, the instance of this user.
fn name_of(file: &str) -> Option<String> {
    let stem = file.strip_suffix(".service")?;
    match stem.strip_suffix('@') {
        Some(template) => Some(format!("{template}@{}.service", user_name()?)),
        None => Some(file.to_owned()),
    }
}

/// The name of the user that we run as.
pub(super) fn user_name() -> Option<String> {
    nix::unistd::User::from_uid(nix::unistd::geteuid()).ok().flatten().map(|user| user.name)
}

/// Blocks of `NAME=VALUE`, with an empty line between two units. Kept are those that have to do with us, each once.
fn parse(manager: Manager, text: &str) -> Vec<Unit> {
    let mut units: Vec<Unit> = Vec::new();
    for block in text.split("\n\n") {
        let lines = block.lines().filter_map(|line| line.split_once('='));
        let properties = lines.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect();
        let unit = Unit { manager, properties };
        let concerns_us = unit.runs_us() || unit.id().starts_with("openclaw");
        if concerns_us && unit.get("Id").is_some() && !units.iter().any(|known| known.id() == unit.id()) {
            units.push(unit);
        }
    }
    units
}

fn base(manager: Manager) -> BTreeMap<String, OsString> {
    let text = systemctl(manager, &["show-environment"]).unwrap_or_default();
    let mut all = variables(&text.lines().map(|line| split_words(line).concat()).collect::<Vec<_>>());
    if manager == Manager::Machine {
        all.entry("PATH".to_owned()).or_insert_with(|| PATH_OF_MACHINE.into());
    }
    all
}

fn variables(entries: &[String]) -> BTreeMap<String, OsString> {
    let entries = entries.iter().filter_map(|entry| entry.split_once('='));
    entries.map(|(name, value)| (name.to_owned(), OsString::from(value))).collect()
}

/// The words of a line as systemd writes it, with the quotes of a shell where they are needed.
pub(super) fn split_words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = line.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            ('$', None) if chars.peek() == Some(&'\'') => {}
            ('"' | '\'', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(end)) if c == end => quote = None,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// What systemd shows of a unit like the shipped one besides what stands in that.
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

    /// The settings of the shipped unit as systemd shows them: a time `ASec=` is told as `AUSec=`.
    fn shipped() -> String {
        let unit = include_str!("../../../contrib/systemd/openclaw-supervise.service");
        let body = unit.split("\n[Install]").next().unwrap_or_default();
        let settings =
            body.lines().filter(|line| !line.starts_with(['#', '['])).filter_map(|line| line.split_once('='));
        let told = settings.filter(|(name, _)| !name.starts_with("Exec")).map(|(name, value)| {
            match name.strip_suffix("Sec") {
                Some(name) if value == "0" => format!("{name}USec=0\n"),
                Some(name) => format!("{name}USec={value}s\n"),
                None => format!("{name}={value}\n"),
            }
        });
        told.collect()
    }

    /// The shipped unit with other values.
    pub(in crate::commands::doctor) fn unit(changes: &[(&str, &str)]) -> Unit {
        let lines: Vec<_> = changes.iter().map(|(name, value)| format!("{name}={value}\n")).collect();
        let lines = lines.concat();
        parse(Manager::Machine, &format!("{STATE}{}{lines}", shipped())).remove(0)
    }

    #[test]
    fn a_unit_is_what_systemctl_shows() {
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
    fn the_last_line_of_the_files_counts() {
        let file = std::env::temp_dir().join(format!("doctor-lines-{}", std::process::id()));
        fs::write(&file, "[Service]\nWatchdogSec=60\nWatchdogSecond=1\n  WatchdogSec = 5min\n#WatchdogSec=0\n")
            .unwrap();
        let unit = unit(&[("FragmentPath", "/nowhere/x"), ("DropInPaths", &file.display().to_string())]);
        let written = unit.written("WatchdogSec");
        fs::remove_file(file).unwrap();
        assert_eq!((written.as_deref(), unit.written("WatchdogSec")), (Some("5min"), None));
    }

    #[test]
    fn a_program_without_a_folder_is_where_systemd_looks_for_it() {
        let found = resolve(Path::new("sh"));
        assert!(found.is_absolute() && found.is_file(), "{}", found.display());
        assert_eq!(resolve(Path::new("/opt/x")), Path::new("/opt/x"));
        assert_eq!(resolve(Path::new("nowhere-to-be-found")), Path::new("/usr/local/bin/nowhere-to-be-found"));
    }

    #[test]
    fn a_file_of_variables_wins_over_the_unit_and_one_that_is_missing_is_none() {
        let file = std::env::temp_dir().join(format!("doctor-variables-{}", std::process::id()));
        fs::write(&file, "# A=comment\nA=\"x y\"\n B=2\n").unwrap();
        let files = format!("{} (ignore_errors=no) /nowhere/x (ignore_errors=yes)", file.display());
        let variables = unit(&[("Environment", "A=b C=d"), ("EnvironmentFiles", &files)]).variables();
        fs::remove_file(file).unwrap();
        let expected = [("A", "x y"), ("B", "2"), ("C", "d")].map(|(name, value)| (name.to_owned(), value.into()));
        assert_eq!(variables, BTreeMap::from(expected));
    }

    #[test]
    fn of_all_units_those_count_that_run_us_and_those_of_openclaw() {
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
        let units = parse(Manager::User, &text.join("\n"));
        let ids: Vec<_> = units.iter().map(|unit| (unit.id(), unit.runs_us())).collect();
        let expected = [("mine.service", true), ("wrapped.service", true), ("openclaw-gateway.service", false)];
        assert_eq!(ids, expected);
    }

    #[test]
    fn words_are_split_as_a_shell_would() {
        for (line, words) in [
            ("a  b", &["a", "b"][..]),
            (r#""a b" 'c d' e"f"#, &["a b", "c d", "ef"]),
            (r#"A="x y" B=$'z w'"#, &["A=x y", "B=z w"]),
            (r"a\ b", &["a b"]),
            (r#""""#, &[""]),
            ("", &[]),
        ] {
            assert_eq!(split_words(line), words, "{line}");
        }
    }

    #[test]
    fn a_template_is_asked_for_as_this_users_instance() {
        let user = user_name().unwrap();
        assert_eq!(name_of("openclaw-supervise@.service"), Some(format!("openclaw-supervise@{user}.service")));
        assert_eq!(name_of("openclaw-gateway.service").as_deref(), Some("openclaw-gateway.service"));
        assert_eq!(name_of("openclaw.timer"), None);
    }
}
