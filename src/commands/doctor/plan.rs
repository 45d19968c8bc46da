//! The settings that count: those of the supervisor that runs, else those that its unit would give it, else those of the
//! one who asks.

use super::systemd::{Told, Unit};
use crate::platform::proc;
use crate::settings::{self, Invocation, Mistakes, Settings, World};
use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

/// Where settings come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Origin {
    /// The process of a supervisor.
    Process(i32),
    /// A unit that does not run.
    Unit(String),
    /// The command line and the environment of whoever asks.
    Ourselves,
}

/// The settings of a supervisor.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) origin: Origin,
    pub(super) settings: Result<Box<Settings>, Mistakes>,
    /// Where programs are looked for.
    pub(super) path: Option<OsString>,
    /// How much memory Node may use for its heap, in MiB.
    pub(super) node_options: Option<OsString>,
    /// Whether the words of the command are known from what systemd tells alone, in which one with a space is two.
    pub(super) is_guessed: bool,
    /// Another user than ours who runs it, so that what we may write says nothing.
    pub(super) other_user: Option<String>,
}

impl Plan {
    /// Of whoever asks.
    pub(super) fn of_ourselves(settings: Result<Box<Settings>, Mistakes>) -> Self {
        let variable = std::env::var_os;
        Self {
            origin: Origin::Ourselves,
            settings,
            path: variable("PATH"),
            node_options: variable("NODE_OPTIONS"),
            is_guessed: false,
            other_user: None,
        }
    }

    /// Of a process, where it can be seen.
    pub(super) fn of_process(pid: i32) -> Option<Self> {
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
        Self::read(Origin::Process(pid), words, variable, cwd, other_user)
    }

    /// Of a unit, as it would start.
    pub(super) fn of_unit(unit: &Unit, told: &Told) -> Option<Self> {
        let mut variables = told.variables.clone();
        let user = unit.get("User").and_then(|name| nix::unistd::User::from_name(name).ok().flatten());
        let other_user = user.as_ref().filter(|user| user.uid != nix::unistd::geteuid()).map(|user| user.name.clone());
        let home = user.map(|user| user.dir).or_else(std::env::home_dir).unwrap_or_else(|| PathBuf::from("/"));
        variables.entry("HOME".to_owned()).or_insert_with(|| home.clone().into());
        variables.extend(unit.variables());
        let known = unit.words();
        let is_guessed = known.is_none();
        let words = known.or_else(|| unit.command().map(|(_, words)| words))?;
        let words = words.iter().flat_map(|word| expand(word, &variables)).collect();
        let variable = move |name: &str| variables.get(name).cloned();
        let plan = Self::read(Origin::Unit(unit.id().to_owned()), words, variable, home, other_user)?;
        Some(Self { is_guessed, ..plan })
    }

    fn read(
        origin: Origin,
        words: Vec<OsString>,
        variable: impl Fn(&str) -> Option<OsString> + 'static,
        cwd: PathBuf,
        other_user: Option<String>,
    ) -> Option<Self> {
        // In front of our name there may be a program that starts us.
        let ours = |word: &OsString| {
            PathBuf::from(word)
                .file_name()
                .and_then(OsStr::to_str)
                .is_some_and(|name| name.starts_with("openclaw-supervise"))
        };
        let words: Vec<_> = words.into_iter().skip_while(|word| !ours(word)).collect();
        if words.is_empty() {
            return None;
        }
        let (path, node_options) = (variable("PATH"), variable("NODE_OPTIONS"));
        let world = World {
            env: Box::new(variable),
            cwd,
            terminal: false,
            pid1: origin == Origin::Process(1),
            ..World::of_process()
        };
        let settings = match settings::read(words, &world) {
            Ok(Invocation::Run(settings)) => Ok(settings),
            Err(mistakes) => Err(mistakes),
            // It runs another verb, and so no gateway.
            Ok(_) => return None,
        };
        Some(Self { origin, settings, path, node_options, is_guessed: false, other_user })
    }
}

/// A word of a command with its variables, see "Command lines" in systemd.service(5): `${A}` is one word wherever it
/// stands, `$A` alone is as many as there are in it, `$$` is a dollar sign.
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
    use crate::commands::doctor::systemd::Manager;
    use std::time::Duration;

    fn plan(changes: &[(&str, &str)]) -> Plan {
        let told = Told { manager: Manager::Machine, units: Ok(vec![]), variables: BTreeMap::new() };
        Plan::of_unit(&unit(changes), &told).unwrap()
    }

    #[test]
    fn the_variables_of_a_unit_count_and_not_our_own() {
        let program = std::env::current_exe().unwrap();
        let exec = format!(
            "{{ path=/x ; argv[]=openclaw-supervise run --port ${{PORT}} -- {} $MORE ; ignore_errors=no ; }}",
            program.display()
        );
        let environment = "PATH=/nowhere PORT=4567 \"MORE=a b\" OPENCLAW_SUPERVISE_STOP_TIMEOUT=17s HOME=/tmp";
        let plan = plan(&[("ExecStart", &exec), ("Environment", environment)]);
        let settings = plan.settings.unwrap();
        assert_eq!((settings.endpoint.port, settings.stop_timeout_is_auto), (4567, false));
        assert_eq!(settings.policy.stop_timeout, Duration::from_secs(17));
        assert_eq!(settings.command[1..], ["a", "b"].map(OsString::from));
        assert_eq!(plan.path.as_deref(), Some(OsStr::new("/nowhere")));
    }

    #[test]
    fn a_word_with_a_space_is_one_where_the_files_are_read_and_elsewhere_nothing_is_known() {
        let program = std::env::current_exe().unwrap();
        let file = std::env::temp_dir().join(format!("doctor-words-{}", std::process::id()));
        let program = program.display();
        let line = format!(r#"openclaw-supervise run --pre-start "/bin/echo 50%% $$HOME" -- {program} "a b""#);
        fs::write(&file, format!("[Service]\nExecStart={line}\n")).unwrap();
        let told = format!("openclaw-supervise run --pre-start /bin/echo 50% $$HOME -- {program} a b");
        let exec = format!("{{ path=/x ; argv[]={told} ; ignore_errors=no ; }}");
        let path = file.display().to_string();
        let plans = [path.as_str(), "/nowhere/x"]
            .map(|file| plan(&[("FragmentPath", file), ("ExecStart", &exec), ("Environment", "HOME=/tmp")]));
        fs::remove_file(file).unwrap();
        let [known, guessed] = plans;
        assert!(!known.is_guessed && guessed.is_guessed && guessed.settings.is_err());
        assert_eq!(known.settings.unwrap().command[1..], ["a b"].map(OsString::from));
    }

    #[test]
    fn a_dollar_sign_is_one_where_it_is_doubled() {
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
    fn what_the_unit_does_not_find_is_a_mistake() {
        let plan = plan(&[("Environment", "PATH=/nowhere HOME=/tmp")]);
        assert!(plan.settings.unwrap_err().to_string().contains("cannot find openclaw in PATH (/nowhere)"));
    }
}
