//! What `install` and `uninstall` need: where the service is to be, and the words that it runs us with.

use super::inquiry::Common;
use super::{Hooks, LeaseBasis, LogSettings, Mistake, Mistakes, World, command, port, run_settings};
use crate::cli::{Cli, Options, Service, Verb};
use nix::unistd::{Uid, User};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Whose service it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Of the user who asks.
    User,
    /// Of the machine, in the name of this user.
    Machine {
        /// As above.
        user: String,
    },
}

/// What `install` and `uninstall` need to know.
#[derive(Debug, Clone)]
pub struct ServiceSettings {
    /// Whose.
    pub scope: Scope,
    /// The profile, which gives the service a name of its own.
    pub profile: Option<String>,
    /// The words after the program's name that the service runs us with.
    pub words: Vec<OsString>,
    /// The first word of a command of the operator's own.
    pub program: Option<OsString>,
    /// The home of the user who asks.
    pub home: PathBuf,
    /// Where that user's configuration is.
    pub config_home: PathBuf,
    /// What is run is found here.
    pub path: OsString,
    /// The name that this shell gives OpenClaw's own unit.
    pub openclaws_unit: Option<String>,
    /// Variables of this shell that mean something to us, and that a service does not have.
    pub left_out: Vec<String>,
    /// The port that the service will serve on, where that can be told from here.
    pub port: Option<u16>,
    /// What is to be said of the service that was meant.
    pub notes: Vec<String>,
    /// Why `run` would not start here; of a dry run alone, which goes on all the same.
    pub obstacles: Vec<String>,
    /// Only tell what would be done.
    pub dry_run: bool,
    /// Take a file over that is not ours, or was edited.
    pub force: bool,
    /// What is logged, and how.
    pub log: LogSettings,
}

/// Variables that `run` would heed; those of the gateway as far as we read them.
const HEEDED: [&str; 4] = ["OPENCLAW_GATEWAY_PORT", "OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH", "OPENCLAW_PROFILE"];

impl Common<'_> {
    /// Settles where the service is to be. What `run` would not take is not installed either.
    pub(super) fn service(
        mut self,
        cli: &Cli,
        service: &Service,
        given: Vec<OsString>,
        lease: LeaseBasis,
        hooks: Hooks,
    ) -> Result<Box<ServiceSettings>, Mistakes> {
        let (world, log) = (self.world, self.log);
        let mut mistakes = Vec::new();
        let (scope, mut notes) = scope(service, world, &mut mistakes);
        let profile = profile(cli, &given, &mut mistakes);
        let home = (world.home)().unwrap_or_else(|| {
            mistakes.push(Mistake::Usage("there is no home directory to install into; set HOME".to_owned()));
            PathBuf::new()
        });
        let program = given.first().cloned();
        let is_installed = matches!(cli.verb, Some(Verb::Install(_)));
        let left_out = left_out(world);
        let (mut port, mut obstacles) = (port_of(cli, &given), Vec::new());
        if is_installed {
            self.source.mistakes.extend(mistakes);
            if scope == Some(Scope::User) {
                match run_settings(given, lease, hooks, self) {
                    // What this shell says is not the service's.
                    Ok(run) => port = port.or(Some(run.endpoint.port).filter(|_| left_out.is_empty())),
                    Err(mistakes) => obstacles = surmounted(mistakes, service.dry_run)?,
                }
            } else {
                // The state of another user is not ours to look at.
                Mistakes::check(self.source.mistakes)?;
            }
            notes.extend(scope.as_ref().and_then(note_on_root));
        } else {
            Mistakes::check(mistakes)?;
        }
        // A relative one is to be ignored, see the XDG Base Directory Specification.
        let named = world.variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
        let config_home = named.unwrap_or_else(|| home.join(".config"));
        Ok(Box::new(ServiceSettings {
            scope: scope.unwrap_or(Scope::User),
            profile,
            words: Vec::new(),
            program,
            home,
            config_home,
            path: world.variable("PATH").unwrap_or_default(),
            openclaws_unit: openclaws_unit(world),
            left_out,
            port,
            notes,
            obstacles,
            dry_run: service.dry_run,
            force: service.force,
            log,
        }))
    }
}

/// Whose service it is to be, and what is to be said of that.
fn scope(service: &Service, world: &World, mistakes: &mut Vec<Mistake>) -> (Option<Scope>, Vec<String>) {
    let mut refuse = |why: String| {
        mistakes.push(Mistake::Usage(why));
        (None, Vec::new())
    };
    if service.user && service.system {
        return refuse("--user and --system exclude each other; give one".to_owned());
    }
    let is_root = Uid::effective().is_root();
    // What root installs is the machine's, as with any other program.
    let is_implied = is_root && !service.user && !service.system;
    if !service.system && !is_implied {
        return match &service.run_as {
            Some(_) => refuse(
                "--run-as names the user of a service of the machine; give --system with it, and leave --user out"
                    .to_owned(),
            ),
            None => (Some(Scope::User), Vec::new()),
        };
    }
    let named = service.run_as.clone().or_else(|| world.variable("SUDO_USER"));
    let user = match named.map(|name| name.to_string_lossy().into_owned()) {
        Some(name) if is_account(&name) => name,
        Some(name) => {
            return refuse(format!(
                "the account {name:?} cannot be part of the name of a service: letters, digits, '.', - and _ can; \
                 name another with --run-as"
            ));
        }
        None => match User::from_uid(Uid::effective()) {
            Ok(Some(own)) if is_account(&own.name) => own.name,
            _ if is_root => "root".to_owned(),
            _ => return refuse("whose gateway is it to be? give --run-as USER, an account of this machine".to_owned()),
        },
    };
    let note = is_implied.then(|| {
        format!(
            "root means a service of the machine, here of {user}: as with --system; --user is for root's own manager"
        )
    });
    (Some(Scope::Machine { user }), note.into_iter().collect())
}

/// Agents do what their account may.
fn note_on_root(scope: &Scope) -> Option<String> {
    let is_roots = matches!(scope, Scope::Machine { user } if user == "root");
    is_roots.then(|| {
        "the gateway and its agents will act as root, who may do anything here: an account of its own is better, \
         --run-as USER"
            .to_owned()
    })
}

/// A dry run goes on without the gateway's command, and says what `install` would stop for.
fn surmounted(mistakes: Mistakes, dry_run: bool) -> Result<Vec<String>, Mistakes> {
    let is_absence = |mistake: &Mistake| matches!(mistake, Mistake::Command(_));
    if dry_run && mistakes.all().iter().all(is_absence) {
        return Ok(mistakes.all().iter().map(ToString::to_string).collect());
    }
    Err(mistakes)
}

/// The options of the verb.
fn of_verb(cli: &Cli) -> Option<&Options> {
    match &cli.verb {
        Some(Verb::Install(install)) => Some(&install.options),
        _ => None,
    }
}

/// The port that the command line names, COMMAND included.
fn port_of(cli: &Cli, command: &[OsString]) -> Option<u16> {
    let flag = of_verb(cli).and_then(|options| options.port.as_ref()).or(cli.options.port.as_ref());
    flag.and_then(|port| port::parse(port.to_str()?)).or_else(|| command::read(command).port)
}

/// That of the command line, COMMAND included: the one of this shell is not the service's. `default` is none, as it is
/// for the gateway.
fn profile(cli: &Cli, command: &[OsString], mistakes: &mut Vec<Mistake>) -> Option<String> {
    let of_verb = match &cli.verb {
        Some(Verb::Uninstall(uninstall)) => uninstall.profile.as_ref(),
        _ => of_verb(cli).and_then(|options| options.profile.as_ref()),
    };
    let of_flag = of_verb.or(cli.options.profile.as_ref()).map(|profile| profile.to_string_lossy().into_owned());
    let profile = of_flag.or_else(|| command::read(command).profile)?;
    if profile.eq_ignore_ascii_case("default") {
        return None;
    }
    if is_name(&profile) {
        return Some(profile);
    }
    mistakes.push(Mistake::Usage(format!(
        "--profile {profile:?} cannot be part of the name of a service: letters, digits, - and _ can"
    )));
    None
}

fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain)
}

/// Names of accounts may have dots, and those of instances as well.
fn is_account(name: &str) -> bool {
    !name.starts_with('.') && is_name(&name.replace('.', ""))
}

/// With the suffix, as OpenClaw takes it with or without.
fn openclaws_unit(world: &World) -> Option<String> {
    let name = world.variable("OPENCLAW_SYSTEMD_UNIT")?.into_string().ok()?;
    let name = name.strip_suffix(".service").unwrap_or(&name);
    is_name(name).then(|| format!("{name}.service"))
}

fn left_out(world: &World) -> Vec<String> {
    let ours = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut names: Vec<_> = ours.filter(|name| name.starts_with("OPENCLAW_SUPERVISE_")).collect();
    names.extend(HEEDED.into_iter().filter(|name| world.variable(name).is_some()).map(str::to_owned));
    names.sort_unstable();
    names
}

/// Options whose value is a path. A service starts somewhere else than this shell is.
const PATHS: [&str; 3] = ["--state-dir", "--config", "--store-dir"];

/// A path that means the same from everywhere. `~` is ours to take as a home, wherever we are.
fn whole(path: &OsStr, cwd: &Path) -> OsString {
    let is_rooted = Path::new(path).is_absolute() || path.as_bytes().starts_with(b"~");
    if is_rooted { path.to_owned() } else { cwd.join(path).into_os_string() }
}

/// The words that `run` is to be called with: those of `install` without its own, and with whole paths.
pub(super) fn run_words(args: &[OsString], cwd: &Path) -> Vec<OsString> {
    let mut words = Vec::new();
    let mut rest = args.iter().skip(1);
    let mut verb = Some(OsString::from("run"));
    while let Some(word) = rest.next() {
        match word.to_str() {
            Some("--") => {
                words.extend(verb.take());
                words.push(word.clone());
                // A bare name is looked for on PATH.
                let is_path = |word: &OsStr| word.as_bytes().contains(&b'/');
                let program = rest.next().map(|word| if is_path(word) { whole(word, cwd) } else { word.clone() });
                words.extend(program.into_iter().chain(rest.by_ref().cloned()));
            }
            Some("--user" | "--system" | "--dry-run" | "--force") => {}
            Some("--run-as") => {
                rest.next();
            }
            Some(text) if text.starts_with("--run-as=") => {}
            // Each option of ours has a value.
            Some(text) if text.starts_with("--") => {
                let (option, value) =
                    text.split_once('=').map_or((text, None), |(option, value)| (option, Some(value)));
                let value = value.map(OsString::from).or_else(|| rest.next().cloned());
                words.push(OsString::from(option));
                words.extend(value.map(|value| if PATHS.contains(&option) { whole(&value, cwd) } else { value }));
            }
            _ => words.extend(verb.take().filter(|_| word == OsStr::new("install")).or_else(|| Some(word.clone()))),
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> String {
        let args: Vec<_> = line.split(' ').map(OsString::from).collect();
        let words: Vec<_> =
            run_words(&args, Path::new("/here")).iter().map(|word| word.to_string_lossy().into_owned()).collect();
        words.join(" ")
    }

    #[test]
    fn the_service_is_run_with_the_words_of_install_but_its_own() {
        for (given, expected) in [
            ("ocs install", "run"),
            ("ocs install --user --port 1 --dry-run", "run --port 1"),
            ("ocs --port 1 install --system --run-as alice --force", "--port 1 run"),
            ("ocs --profile install install --run-as=bob", "--profile install run"),
            (
                "ocs install --state-dir=a --config ~/b --store-dir /c",
                "run --state-dir /here/a --config ~/b --store-dir /c",
            ),
            ("ocs install -- bin/gw ./x", "run -- /here/bin/gw ./x"),
            (
                "ocs install --hang-after=9s -- openclaw gateway run --user",
                "run --hang-after 9s -- openclaw gateway run --user",
            ),
        ] {
            assert_eq!(words(given), expected);
        }
    }

    #[test]
    fn an_account_may_have_dots_in_its_name() {
        for (name, expected) in [
            ("john.doe", true),
            ("alice", true),
            ("a_b-9", true),
            (".", false),
            (".john", false),
            ("john doe", false),
            ("DOMAIN\\john", false),
            ("", false),
        ] {
            assert_eq!(is_account(name), expected, "{name}");
        }
    }

    #[test]
    fn a_name_of_a_service_is_plain() {
        for (text, expected) in
            [("work", true), ("a-b_9", true), ("", false), ("-x", false), ("a/b", false), ("a b", false)]
        {
            assert_eq!(is_name(text), expected, "{text}");
        }
    }
}
