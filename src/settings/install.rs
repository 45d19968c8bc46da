//! What `install` and `uninstall` need: the scope and user of the service, and the command line that it runs.

use super::common::Common;
use super::policy::{self, LogSettings};
use super::process_context::ProcessContext;
use super::usage_error::{UsageError, UsageErrors};
use super::{command, run_settings};
use crate::cli::{Cli, ServiceOptions};
use crate::core::Policy;
use nix::unistd::{Uid, User};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// A service of the calling user.
    User,
    /// A system service that runs as `user`.
    Machine { user: String },
}

#[derive(Debug, Clone)]
pub struct ServiceSettings {
    pub scope: Scope,
    /// The profile, which is part of the service's name.
    pub profile: Option<String>,
    /// The words of the service's command line after the program.
    pub words: Vec<OsString>,
    /// The program of COMMAND, if it was given.
    pub program: Option<OsString>,
    /// The calling user's home.
    pub home: PathBuf,
    /// The calling user's configuration directory.
    pub config_home: PathBuf,
    /// PATH of the service.
    pub path: OsString,
    /// The name of OpenClaw's own unit, if this shell sets it.
    pub openclaws_unit: Option<String>,
    /// Variables of this shell that `run` would read and a service does not have.
    pub left_out: Vec<String>,
    /// The port of the service's gateway, if it is known here.
    pub port: Option<u16>,
    /// How long its gateway may boot.
    pub startup_timeout: Duration,
    pub notes: Vec<String>,
    /// Why `run` would not start here; only a dry run continues in spite of it.
    pub obstacles: Vec<String>,
    pub dry_run: bool,
    /// Whether to replace or remove a file that is not ours, or was edited.
    pub force: bool,
    pub log: LogSettings,
}

/// The gateway's own variables as far as `run` reads them.
const GATEWAY_VARIABLES: [&str; 4] =
    ["OPENCLAW_GATEWAY_PORT", "OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH", "OPENCLAW_PROFILE"];

/// Options with a path as their value. A service starts in another directory than this shell.
const PATHS: [&str; 5] = ["--state-dir", "--config", "--store-dir", "--log-file", "--metrics-file"];

/// Their value is a secret, unless it is `@` and a file.
pub const SECRETS: [&str; 2] = ["--notify", "--heartbeat-url"];

/// The options of other verbs that mean something to `uninstall`.
const OF_UNINSTALL: [&str; 3] = ["--profile", "--log-format", "--log-level"];

/// Accepts what `run` would accept.
pub(super) fn install(
    cli: &Cli,
    service: &ServiceOptions,
    mut common: Common<'_>,
) -> Result<ServiceSettings, UsageErrors> {
    let mut settings = resolve(cli, service, &common.command, common.context, &mut common.errors);
    for (option, _) in cli.typed.iter().filter(|(_, value)| !value.as_bytes().starts_with(b"@")) {
        let secret = SECRETS.into_iter().find(|secret| secret == option);
        common.errors.extend(secret.map(UsageError::SecretInService));
    }
    settings.words = run_words(cli, &common.command, &common.context.cwd);
    if settings.scope == Scope::User {
        match run_settings::resolve(common) {
            Ok(run) => {
                // What the variables of this shell say does not hold for the service.
                let port = Some(run.endpoint.port).filter(|_| settings.left_out.is_empty());
                settings.port = settings.port.or(port);
                settings.notes.extend(run.warnings);
            }
            Err(errors) => settings.obstacles = obstacles(errors, service.dry_run)?,
        }
    } else {
        // The state of another user is not ours to look at.
        UsageErrors::check(common.errors)?;
    }
    if matches!(&settings.scope, Scope::Machine { user } if user == "root") {
        let note = "the gateway and its agents will run as root; an account of its own is safer: --run-as USER";
        settings.notes.push(note.to_owned());
    }
    Ok(settings)
}

pub(super) fn uninstall(
    cli: &Cli,
    service: &ServiceOptions,
    context: &ProcessContext,
) -> Result<ServiceSettings, UsageErrors> {
    if let Some((option, _)) = cli.typed.iter().find(|(option, _)| !OF_UNINSTALL.contains(&option.as_str())) {
        return Err(UsageError::UninstallWithOption(option.clone()).into());
    }
    let mut errors = Vec::new();
    let settings = resolve(cli, service, &[], context, &mut errors);
    UsageErrors::check(errors)?;
    Ok(settings)
}

fn resolve(
    cli: &Cli,
    service: &ServiceOptions,
    command: &[OsString],
    context: &ProcessContext,
    errors: &mut Vec<UsageError>,
) -> ServiceSettings {
    let (scope, notes) = scope(service, context).unwrap_or_else(|error| {
        errors.push(error);
        (Scope::User, Vec::new())
    });
    let home = (context.home)().unwrap_or_else(|| {
        errors.push(UsageError::NoHome);
        PathBuf::new()
    });
    let of_command = command::read(command);
    let profile = cli.options.profile.clone().or(of_command.profile);
    // `default` is no profile, as for the gateway.
    let profile = profile.filter(|name| !name.eq_ignore_ascii_case("default"));
    if let Some(name) = profile.as_ref().filter(|name| !is_name(name)) {
        errors.push(UsageError::ProfileName(name.clone()));
    }
    // A relative one is to be ignored, see the XDG Base Directory Specification.
    let config_home = context.variable("XDG_CONFIG_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    ServiceSettings {
        scope,
        profile,
        words: Vec::new(),
        program: command.first().cloned(),
        config_home: config_home.unwrap_or_else(|| home.join(".config")),
        home,
        path: context.variable("PATH").unwrap_or_default(),
        openclaws_unit: openclaws_unit(context),
        left_out: left_out(context),
        port: cli.options.port.or(of_command.port),
        startup_timeout: cli.options.startup_timeout.unwrap_or(Policy::default().startup_timeout),
        notes,
        obstacles: Vec::new(),
        dry_run: service.dry_run,
        force: service.force,
        log: policy::log_settings(&cli.options, context),
    }
}

/// The scope of the service, and notes on it.
fn scope(service: &ServiceOptions, context: &ProcessContext) -> Result<(Scope, Vec<String>), UsageError> {
    let is_root = Uid::effective().is_root();
    // What root installs is the machine's, as with any other program.
    let is_implied = is_root && !service.user && !service.system;
    if !service.system && !is_implied {
        return if service.run_as.is_some() {
            Err(UsageError::RunAsWithoutSystem)
        } else {
            Ok((Scope::User, Vec::new()))
        };
    }
    let named = service.run_as.clone().or_else(|| context.variable("SUDO_USER"));
    let user = match named.map(|name| name.to_string_lossy().into_owned()) {
        Some(name) if is_account(&name) => name,
        Some(name) => return Err(UsageError::AccountName(name)),
        None => match User::from_uid(Uid::effective()) {
            Ok(Some(own)) if is_account(&own.name) => own.name,
            _ if is_root => "root".to_owned(),
            _ => return Err(UsageError::NoAccount),
        },
    };
    let note = || format!("running as root: this is the system service for user {user} (same as --system)");
    Ok((Scope::Machine { user: user.clone() }, is_implied.then(note).into_iter().collect()))
}

/// A dry run continues without the gateway's program, and says what `install` would stop for.
fn obstacles(errors: UsageErrors, dry_run: bool) -> Result<Vec<String>, UsageErrors> {
    if dry_run && errors.all().iter().all(|error| matches!(error, UsageError::Command(_))) {
        return Ok(errors.all().iter().map(ToString::to_string).collect());
    }
    Err(errors)
}

fn is_name(text: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    !text.is_empty() && !text.starts_with('-') && text.chars().all(is_plain)
}

/// Account names may have dots, and so may those of systemd's instances.
fn is_account(name: &str) -> bool {
    !name.starts_with('.') && is_name(&name.replace('.', ""))
}

/// With the suffix, as OpenClaw takes it with or without.
fn openclaws_unit(context: &ProcessContext) -> Option<String> {
    let name = context.variable("OPENCLAW_SYSTEMD_UNIT")?.into_string().ok()?;
    let name = name.strip_suffix(".service").unwrap_or(&name);
    is_name(name).then(|| format!("{name}.service"))
}

fn left_out(context: &ProcessContext) -> Vec<String> {
    let ours = std::env::vars_os().filter_map(|(name, _)| name.into_string().ok());
    let mut names: Vec<_> = ours.filter(|name| name.starts_with("OPENCLAW_SUPERVISE_")).collect();
    names.extend(GATEWAY_VARIABLES.into_iter().filter(|name| context.variable(name).is_some()).map(str::to_owned));
    names.sort_unstable();
    names
}

/// A path that means the same from everywhere. `~` is expanded by us, whatever the directory.
fn absolute(path: &OsStr, cwd: &Path) -> OsString {
    let is_rooted = Path::new(path).is_absolute() || path.as_bytes().starts_with(b"~");
    if is_rooted { path.to_owned() } else { cwd.join(path).into_os_string() }
}

/// `run` with the options of `install` as they were typed, but with absolute paths.
fn run_words(cli: &Cli, command: &[OsString], cwd: &Path) -> Vec<OsString> {
    let mut words = vec![OsString::from("run")];
    for (option, value) in &cli.typed {
        let value = match value.as_bytes().strip_prefix(b"@") {
            Some(file) if SECRETS.contains(&option.as_str()) => {
                let mut value = OsString::from("@");
                value.push(absolute(OsStr::from_bytes(file), cwd));
                value
            }
            _ if PATHS.contains(&option.as_str()) => absolute(value, cwd),
            _ => value.clone(),
        };
        // An optional value follows its option after an equals sign alone.
        if value.as_bytes().starts_with(b"-") || option == "--kill-strays" {
            let mut word = OsString::from(format!("{option}="));
            word.push(value);
            words.push(word);
        } else {
            words.extend([OsString::from(option), value]);
        }
    }
    if let Some((program, arguments)) = command.split_first() {
        // A bare name is looked for on PATH.
        let is_path = program.as_bytes().contains(&b'/');
        let program = if is_path { absolute(program, cwd) } else { program.clone() };
        words.extend([OsString::from("--"), program].into_iter().chain(arguments.iter().cloned()));
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::Verb;

    #[test]
    fn the_service_is_run_with_the_options_of_install_but_its_own() {
        for (given, expected) in [
            ("ocs install", "run"),
            ("ocs install --user --port 1 --dry-run", "run --port 1"),
            ("ocs --port 1 install --system --run-as alice --force", "run --port 1"),
            ("ocs --hang-after 1s install --hang-after 2s", "run --hang-after 2s"),
            ("ocs --profile install install --run-as=bob", "run --profile install"),
            (
                "ocs install --state-dir=a --config ~/b --store-dir /c",
                "run --state-dir /here/a --config ~/b --store-dir /c",
            ),
            (
                "ocs install --notify @hooks --heartbeat-url @/h --metrics-file m.prom",
                "run --notify @/here/hooks --heartbeat-url @/h --metrics-file /here/m.prom",
            ),
            ("ocs install --pre-start=-x", "run --pre-start=-x"),
            ("ocs install -- bin/gw ./x", "run -- /here/bin/gw ./x"),
            (
                "ocs install --hang-after=9s -- openclaw gateway run --user",
                "run --hang-after 9s -- openclaw gateway run --user",
            ),
        ] {
            let variable = |name: &str| (name == "OPENCLAW_SUPERVISE_HANG_AFTER").then(|| OsString::from("3s"));
            let cli = Cli::read(given.split(' ').map(OsString::from), variable).unwrap();
            let Some(Verb::Install { command, .. }) = &cli.verb else { unreachable!("{given}") };
            let words = run_words(&cli, command, Path::new("/here"));
            let words: Vec<_> = words.iter().map(|word| word.to_string_lossy()).collect();
            assert_eq!(words.join(" "), expected);
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
