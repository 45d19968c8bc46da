//! The settings of the supervisor that `doctor` examines: of its process, else of its unit, else of the command line of
//! `doctor`.

use super::program::is_ours;
use super::service_manager::SystemdManager;
use super::systemd::{ManagerFacts, UnitFacts};
use crate::host::manager::{self, Container, ProcessManager};
use crate::platform::proc;
use crate::settings::{self, Invocation, ProcessContext, SECRETS, Settings, UsageErrors};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum SettingsOrigin {
    /// A running supervisor.
    Process(i32),
    /// A unit that is not running.
    Unit(String),
    /// The command line and the environment of `doctor`.
    Ourselves,
}

#[derive(Debug, Clone)]
pub(in super::super) struct SettingsFacts {
    pub(in super::super) origin: SettingsOrigin,
    pub(in super::super) settings: Result<Box<Settings>, UsageErrors>,
    /// `PATH`
    pub(in super::super) path: Option<OsString>,
    /// Whether the arguments are known only from `systemctl show`, which omits quotes.
    pub(in super::super) is_guessed: bool,
    /// The user who runs it, if that is not our own: then our permissions say nothing.
    pub(in super::super) other_user: Option<String>,
    /// Where it runs; `None` if it does not.
    pub(in super::super) container: Option<Container>,
    pub(in super::super) process_manager: Option<ProcessManager>,
    /// The options with a secret that stands in the command line, where every user sees it, see ps(1).
    pub(in super::super) bared: Vec<&'static str>,
}

impl SettingsFacts {
    pub(in super::super) fn of_ourselves(settings: Result<Box<Settings>, UsageErrors>) -> Self {
        let variable = std::env::var_os;
        Self {
            origin: SettingsOrigin::Ourselves,
            settings,
            path: variable("PATH"),
            is_guessed: false,
            other_user: None,
            container: manager::container().cloned(),
            process_manager: manager::process_manager(),
            // Of this command, which ends at once.
            bared: Vec::new(),
        }
    }

    /// `None` if the process may not be inspected, or runs another subcommand.
    pub(in super::super) fn of_process(pid: i32) -> Option<Self> {
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let words = line.strip_suffix(b"\0")?.split(|&byte| byte == 0);
        let words: Vec<_> = words.map(|word| OsString::from_vec(word.to_vec())).collect();
        let environment = proc::environment_of(pid)?;
        let cwd = fs::read_link(format!("/proc/{pid}/cwd")).ok()?;
        let user = proc::uid_of(pid).filter(|uid| *uid != rustix::process::geteuid().as_raw());
        let other_user = user.map(|uid| {
            let known = nix::unistd::User::from_uid(uid.into()).ok().flatten();
            known.map_or_else(|| format!("user {uid}"), |user| user.name)
        });
        let variable = move |name: &str| environment.get(name).map(|value| OsString::from_vec(value.to_vec()));
        Self::read(SettingsOrigin::Process(pid), words, variable, cwd, other_user)
    }

    /// As the unit would start.
    pub(in super::super) fn of_unit(unit: &UnitFacts, manager: &ManagerFacts) -> Option<Self> {
        Self::of_unit_behind(&[], unit, manager)
    }

    /// The port of the gateway that a unit starts without this program: it would be ours in front of it.
    pub(in super::super) fn port_of_gateway(unit: &UnitFacts, manager: &ManagerFacts) -> Option<u16> {
        let facts = Self::of_unit_behind(&["openclaw-supervise", "run", "--"], unit, manager);
        facts?.settings.ok().map(|settings| settings.endpoint.port)
    }

    fn of_unit_behind(prefix: &[&str], unit: &UnitFacts, manager: &ManagerFacts) -> Option<Self> {
        let mut variables = manager.variables.clone();
        let account = match &unit.manager {
            SystemdManager::Account(user) => Some(user.as_str()),
            SystemdManager::System | SystemdManager::User => None,
        };
        let user = unit.get("User").or(account).and_then(|name| nix::unistd::User::from_name(name).ok().flatten());
        let other_user = user.as_ref().filter(|user| user.uid != nix::unistd::geteuid()).map(|user| user.name.clone());
        let home = user.map(|user| user.dir).or_else(std::env::home_dir).unwrap_or_else(|| PathBuf::from("/"));
        variables.entry("HOME".to_owned()).or_insert_with(|| home.clone().into());
        variables.extend(unit.variables());
        let known = unit.words();
        let is_guessed = known.is_none();
        let words = known.or_else(|| unit.command().map(|(_, words)| words))?;
        let words = prefix.iter().map(OsString::from).chain(words.iter().flat_map(|word| expand(word, &variables)));
        let words = words.collect();
        let variable = move |name: &str| variables.get(name).cloned();
        let plan = Self::read(SettingsOrigin::Unit(unit.id().to_owned()), words, variable, home, other_user)?;
        Some(Self { is_guessed, ..plan })
    }

    fn read(
        origin: SettingsOrigin,
        words: Vec<OsString>,
        variable: impl Fn(&str) -> Option<OsString> + Send + Sync + 'static,
        cwd: PathBuf,
        other_user: Option<String>,
    ) -> Option<Self> {
        // Our name may follow that of a launcher, such as env(1).
        let words: Vec<_> = words.into_iter().skip_while(|word| !is_ours(word)).collect();
        if words.is_empty() {
            return None;
        }
        let path = variable("PATH");
        let (container, process_manager) = match &origin {
            SettingsOrigin::Process(pid) => (Container::of(*pid, &variable), ProcessManager::of(*pid, &variable)),
            SettingsOrigin::Unit(_) | SettingsOrigin::Ourselves => (None, None),
        };
        let context = ProcessContext {
            env: Arc::new(variable),
            cwd,
            terminal: false,
            journal: false,
            container: container.clone(),
            process_manager,
            ..ProcessContext::of_this_process()
        };
        let bared = bared(&words);
        let settings = match settings::read(words, &context) {
            Ok(Invocation::Run(settings)) => Ok(settings),
            Err(errors) => Err(errors),
            // Another subcommand, which has no gateway.
            Ok(_) => return None,
        };
        Some(Self { origin, settings, path, is_guessed: false, other_user, container, process_manager, bared })
    }
}

fn bared(words: &[OsString]) -> Vec<&'static str> {
    let words: Vec<_> = words.iter().take_while(|word| *word != "--").map(|word| word.as_bytes()).collect();
    let is_bared = |option: &&str| {
        let apart = words.iter().zip(words.iter().skip(1)).filter(|(word, _)| **word == option.as_bytes());
        let inline = words.iter().filter_map(|word| word.strip_prefix(option.as_bytes())?.strip_prefix(b"="));
        apart.map(|(_, value)| *value).chain(inline).any(|value| !value.starts_with(b"@"))
    };
    SECRETS.into_iter().filter(is_bared).collect()
}

/// Replaces the variables in an argument, see "Command lines" in systemd.service(5): `${A}` never splits, a lone `$A` is
/// split at white space, `$$` is a dollar sign.
fn expand(word: &str, variables: &BTreeMap<String, OsString>) -> Vec<OsString> {
    let value = |name: &str| variables.get(name).and_then(|value| value.to_str()).unwrap_or_default();
    if let Some(name) = word.strip_prefix('$').filter(|name| !name.starts_with(['{', '$'])) {
        return value(name).split_whitespace().map(OsString::from).collect();
    }
    let (mut text, mut rest) = (String::new(), word);
    while let Some((before, after)) = rest.split_once('$') {
        text += before;
        rest = match (after.strip_prefix('$'), after.strip_prefix('{').and_then(|name| name.split_once('}'))) {
            (Some(after), _) => {
                text.push('$');
                after
            }
            (None, Some((name, after))) => {
                text += value(name);
                after
            }
            (None, None) => {
                text.push('$');
                after
            }
        };
    }
    vec![(text + rest).into()]
}

#[cfg(test)]
mod tests {
    use super::super::systemd::tests::unit;
    use super::*;
    use std::ffi::OsStr;
    use std::time::Duration;

    fn settings_of(changes: &[(&str, &str)]) -> SettingsFacts {
        let manager = ManagerFacts {
            manager: SystemdManager::System,
            units: Ok(vec![]),
            variables: BTreeMap::new(),
            has_files: true,
        };
        SettingsFacts::of_unit(&unit(changes), &manager).unwrap()
    }

    #[test]
    fn the_environment_of_the_unit_applies_and_not_our_own() {
        let program = std::env::current_exe().unwrap();
        let exec = format!(
            "{{ path=/x ; argv[]=openclaw-supervise run --port ${{PORT}} -- {} $MORE ; ignore_errors=no ; }}",
            program.display()
        );
        let environment = "PATH=/nowhere PORT=4567 \"MORE=a b\" OPENCLAW_SUPERVISE_STOP_TIMEOUT=17s HOME=/tmp";
        let facts = settings_of(&[("ExecStart", &exec), ("Environment", environment)]);
        let settings = facts.settings.unwrap();
        assert_eq!((settings.endpoint.port, settings.stop_timeout_is_auto), (4567, false));
        assert_eq!(settings.policy.stop_timeout, Duration::from_secs(17));
        assert_eq!(settings.command[1..], ["a", "b"].map(OsString::from));
        assert_eq!(facts.path.as_deref(), Some(OsStr::new("/nowhere")));
    }

    #[test]
    fn an_argument_with_a_space_is_known_only_from_the_unit_files() {
        let program = std::env::current_exe().unwrap();
        let file = std::env::temp_dir().join(format!("doctor-words-{}", std::process::id()));
        let program = program.display();
        let line = format!(r#"openclaw-supervise run --pre-start "/bin/echo 50%% $$HOME" -- {program} "a b""#);
        fs::write(&file, format!("[Service]\nExecStart={line}\n")).unwrap();
        let told = format!("openclaw-supervise run --pre-start /bin/echo 50% $$HOME -- {program} a b");
        let exec = format!("{{ path=/x ; argv[]={told} ; ignore_errors=no ; }}");
        let path = file.display().to_string();
        let [known, guessed] = [path.as_str(), "/nowhere/x"]
            .map(|file| settings_of(&[("FragmentPath", file), ("ExecStart", &exec), ("Environment", "HOME=/tmp")]));
        fs::remove_file(file).unwrap();
        assert!(!known.is_guessed && guessed.is_guessed && guessed.settings.is_err());
        assert_eq!(known.settings.unwrap().command[1..], ["a b"].map(OsString::from));
    }

    #[test]
    fn a_secret_is_bared_by_a_command_line_and_not_by_a_file_or_the_gateways_own_words() {
        for (line, expected) in [
            ("x run --notify https://a/S", &["--notify"][..]),
            ("x run --heartbeat-url=https://a/S --notify=@/f", &["--heartbeat-url"]),
            ("x run --notify @/f --port 1 -- g --notify https://a", &[]),
            ("x run --notify", &[]),
        ] {
            let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            assert_eq!(bared(&words), expected, "{line}");
        }
    }

    #[test]
    fn variables_are_expanded_as_systemd_expands_them() {
        let variables = BTreeMap::from([("A".to_owned(), OsString::from("x y"))]);
        for (word, expected) in [
            ("$A", &["x", "y"][..]),
            ("${A}", &["x y"]),
            ("$$A", &["$A"]),
            ("a$${A}${A}b$", &["a${A}x yb$"]),
            ("plain", &["plain"]),
        ] {
            assert_eq!(expand(word, &variables), expected, "{word}");
        }
    }

    #[test]
    fn a_program_outside_the_path_of_the_unit_is_an_error() {
        let facts = settings_of(&[("Environment", "PATH=/nowhere HOME=/tmp")]);
        assert!(facts.settings.unwrap_err().to_string().contains("cannot find openclaw in PATH (/nowhere)"));
    }
}
