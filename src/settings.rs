//! What one invocation means: the command line, the environment and the gateway's config brought together, checked,
//! and every mistake in them reported at once.

mod args;
mod command;
mod config;
mod listener;
mod mistake;
mod paths;
mod port;
mod timing;
mod value;

pub use mistake::{Mistake, Mistakes};

use crate::cli::{Cli, Options, Probe, Verb};
use crate::core::Policy;
use crate::gateway::endpoint::Endpoint;
use crate::host::telemetry::Format;
use args::Parsed;
use config::Config;
use paths::{Pinned, Selection};
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::IsTerminal;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use value::{Source, Zero};

/// Looks a variable of the environment up.
pub type Environment = dyn Fn(&str) -> Option<OsString>;

/// Everything outside the command line that settings depend on.
pub struct World {
    /// The environment.
    pub env: Box<Environment>,
    /// The user's home directory when no variable names it.
    pub home: fn() -> Option<PathBuf>,
    /// What relative paths start from.
    pub cwd: PathBuf,
    /// Whether stderr is a terminal.
    pub terminal: bool,
    /// Whether we are process 1, and with that a container's whole life.
    pub pid1: bool,
    /// This machine's address in a tailnet.
    pub tailnet: fn() -> Option<Ipv4Addr>,
}

impl World {
    /// The one that this process is in.
    #[must_use]
    pub fn of_process() -> Self {
        Self {
            env: Box::new(|name| std::env::var_os(name)),
            home: std::env::home_dir,
            cwd: std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")),
            terminal: std::io::stderr().is_terminal(),
            pid1: std::process::id() == 1,
            tailnet: listener::tailnet_address,
        }
    }

    /// A variable that is set to something: an empty one counts as unset. White space around a text is dropped.
    fn variable(&self, name: &str) -> Option<OsString> {
        let value = (self.env)(name)?;
        let value = value.to_str().map(|text| OsString::from(text.trim())).unwrap_or(value);
        Some(value).filter(|value| !value.is_empty())
    }
}

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// How.
    pub format: Format,
    /// The least severe level that is logged.
    pub level: tracing::Level,
}

/// What `run` and `gateway` need to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The gateway's program as an absolute path, then its arguments.
    pub command: Vec<OsString>,
    /// The gateway's variables that flags of ours set; those that came from the environment are there anyway.
    pub exports: Vec<(&'static str, OsString)>,
    /// Where the gateway listens.
    pub endpoint: Endpoint,
    /// The gateway's state directory, absolute.
    pub state_dir: PathBuf,
    /// The gateway's config file, absolute; it need not exist.
    pub config_path: PathBuf,
    /// Our own directory, absolute.
    pub store_dir: PathBuf,
    /// The numbers of the core.
    pub policy: Policy,
    /// What is logged, and how.
    pub log: LogSettings,
    /// What is odd, one sentence each; not a reason to stop.
    pub warnings: Vec<String>,
}

/// What `probe` asks the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Does it serve?
    Live,
    /// Is it ready for work?
    Ready,
    /// Has it come up completely?
    Started,
}

impl Question {
    /// The word of the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Started => "started",
        }
    }
}

/// What `probe` needs to know.
#[derive(Debug, Clone)]
pub struct ProbeSettings {
    /// Where the gateway listens.
    pub endpoint: Endpoint,
    /// What to ask.
    pub question: Question,
    /// How long to ask again; without it the question is asked once.
    pub wait: Option<Duration>,
    /// The time between two questions.
    pub probe_interval: Duration,
    /// How long one probe may take.
    pub probe_timeout: Duration,
    /// Whether the verdict is printed as JSON.
    pub json: bool,
    /// What is logged, and how.
    pub log: LogSettings,
    /// What is odd, one sentence each; not a reason to stop.
    pub warnings: Vec<String>,
}

/// What an invocation asks for.
#[derive(Debug, Clone)]
pub enum Invocation {
    /// Print this text on stdout: help or version.
    Print(String),
    /// Supervise a gateway.
    Run(Box<Settings>),
    /// Look at one.
    Probe(Box<ProbeSettings>),
}

/// Reads a whole invocation; `args` begins with the program's name.
pub fn read(args: impl IntoIterator<Item = OsString>, world: &World) -> Result<Invocation, Mistakes> {
    let (parsed, mistakes) = args::parse(args);
    match parsed {
        Parsed::Cli(cli) => resolve(&cli, world, mistakes),
        Parsed::Print(text) => Mistakes::check(mistakes).map(|()| Invocation::Print(text)),
        // The rest of the words is lost, but not what the environment and the config have to say.
        Parsed::Unclear => resolve(&Cli::default(), world, mistakes),
    }
}

/// Gives a parsed command line its meaning. `mistakes` are those of the parsing, to be reported with all others.
pub fn resolve(cli: &Cli, world: &World, mistakes: Vec<Mistake>) -> Result<Invocation, Mistakes> {
    let of_verb: Option<&Options> = match &cli.verb {
        Some(Verb::Run(run)) => Some(&run.options),
        Some(Verb::Probe(probe)) => Some(&probe.options),
        Some(Verb::Gateway(_)) | None => None,
    };
    let layers = of_verb.into_iter().chain([&cli.options]).collect();
    let mut source = Source::new(layers, world, mistakes);
    let timing = timing::resolve(&mut source, world.pid1);
    let log = log_settings(&mut source, world.terminal);
    let given = match &cli.verb {
        Some(Verb::Run(run)) => run.command.clone(),
        Some(Verb::Gateway(gateway)) => {
            ["openclaw", "gateway"].into_iter().map(OsString::from).chain(gateway.args.iter().cloned()).collect()
        }
        Some(Verb::Probe(_)) | None => Vec::new(),
    };
    let target = Target::resolve(&mut source, &given, world);
    match &cli.verb {
        Some(Verb::Probe(probe)) => probe_settings(probe, source, target, &timing, log),
        _ => run_settings(given, source, target, &timing, log, world),
    }
}

fn probe_settings(
    probe: &Probe,
    mut source: Source<'_>,
    target: Target,
    timing: &Policy,
    log: LogSettings,
) -> Result<Invocation, Mistakes> {
    let asked: Vec<(&str, Question)> = [
        (probe.live, "--live", Question::Live),
        (probe.ready, "--ready", Question::Ready),
        (probe.started, "--started", Question::Started),
    ]
    .into_iter()
    .filter_map(|(asked, flag, question)| asked.then_some((flag, question)))
    .collect();
    if asked.len() > 1 {
        let flags: Vec<&str> = asked.iter().map(|(flag, _)| *flag).collect();
        source.mistakes.push(Mistake::Usage(format!("{} exclude each other; give one", flags.join(" and "))));
    }
    let wait = probe.wait.as_ref().map(|value| value::Given::flag("--wait", value));
    let wait = wait.and_then(|given| source.parse_duration(&given, Zero::Allowed));
    Mistakes::check(source.mistakes)?;
    Ok(Invocation::Probe(Box::new(ProbeSettings {
        endpoint: target.endpoint,
        question: asked.first().map_or(Question::Live, |(_, question)| *question),
        wait,
        probe_interval: timing.probe_interval,
        probe_timeout: timing.probe_timeout,
        json: probe.json,
        log,
        warnings: target.warnings,
    })))
}

fn run_settings(
    given: Vec<OsString>,
    mut source: Source<'_>,
    target: Target,
    timing: &Policy,
    log: LogSettings,
    world: &World,
) -> Result<Invocation, Mistakes> {
    let mut command = if given.is_empty() {
        let port = target.endpoint.port.to_string();
        ["openclaw", "gateway", "run", "--port", &port].map(OsString::from).to_vec()
    } else {
        given
    };
    if let Some(program) = command.first_mut() {
        match command::find(program, world) {
            Ok(path) => *program = path.into_os_string(),
            Err(mistake) => source.mistakes.push(mistake),
        }
    }
    let store_dir = match source.given("--store-dir", |options| options.store_dir.as_ref()) {
        Some(given) => source.path(&given, world),
        None => target.state_dir.join("supervise"),
    };
    let mut check = |what: &str, flag: &str, folder: &Path| match paths::check_writable(folder) {
        Ok(()) => true,
        Err(why) => {
            let folder = folder.display();
            let advice = format!("give it to this user, or name another with {flag}");
            source.mistakes.push(Mistake::Folder(format!("cannot write the {what} {folder} ({why}): {advice}")));
            false
        }
    };
    // A store inside a state directory that cannot be written fails for the same reason: once is enough.
    if check("state directory", "--state-dir", &target.state_dir) || !store_dir.starts_with(&target.state_dir) {
        check("store directory", "--store-dir", &store_dir);
    }
    Mistakes::check(source.mistakes)?;
    Ok(Invocation::Run(Box::new(Settings {
        command,
        exports: target.exports,
        policy: Policy {
            url: target.endpoint.to_string(),
            seed: RandomState::new().build_hasher().finish(),
            ..timing.clone()
        },
        endpoint: target.endpoint,
        state_dir: target.state_dir,
        config_path: target.config_path,
        store_dir,
        log,
        warnings: target.warnings,
    })))
}

/// Which gateway it is about.
struct Target {
    endpoint: Endpoint,
    exports: Vec<(&'static str, OsString)>,
    state_dir: PathBuf,
    config_path: PathBuf,
    warnings: Vec<String>,
}

impl Target {
    fn resolve(source: &mut Source<'_>, command: &[OsString], world: &World) -> Self {
        let said = command::read(command);
        source.mistakes.extend(said.mistakes);
        let mut warnings = Vec::new();
        let flag_port = flag_port(source, said.port);
        let (selection, exports) = select(source, said.profile.as_deref(), flag_port, world, &mut warnings);
        let (state_dir, config_path) = (selection.state_dir(world), selection.config(world));
        let config = Config::read(&config_path, &world.env).unwrap_or_else(|errors| {
            source.mistakes.extend(errors.iter().map(|error| Mistake::Config(error.to_string())));
            Config::default()
        });
        warnings.extend(config.warnings.iter().cloned());
        let variable = selection.gateway_port.as_deref().filter(|_| flag_port.or(said.port).is_none());
        if let Some(value) = variable.filter(|value| port::of_variable(value).is_none()) {
            let value = value.to_string_lossy();
            warnings.push(format!("OPENCLAW_GATEWAY_PORT {value:?} is no port: ignored, as the gateway ignores it"));
        }
        let port = port::Candidates {
            flag: flag_port,
            command: said.port,
            variable,
            config: config.port,
            profile: selection.profile.as_deref(),
        }
        .choose();
        let host = source.given("--host", |options| options.host.as_ref()).and_then(|given| {
            let host = listener::parse_host(given.text().unwrap_or_default());
            host.map_err(|wrong| source.mistakes.push(given.mistake(wrong))).ok()
        });
        let endpoint = listener::endpoint(host, said.bind, &config, port, world, &mut warnings);
        Self { endpoint, exports, state_dir, config_path, warnings }
    }
}

/// `--port`, which COMMAND's own must not contradict.
fn flag_port(source: &mut Source<'_>, of_command: Option<u16>) -> Option<u16> {
    let given = source.flag("--port", |options| options.port.as_ref())?;
    let Some(port) = given.text().and_then(port::parse) else {
        source.mistakes.push(given.mistake("is not a port from 1 to 65535"));
        return None;
    };
    if let Some(other) = of_command.filter(|other| *other != port) {
        source.mistakes.push(given.mistake(format!("contradicts COMMAND's --port {other}; give one of them")));
    }
    Some(port)
}

/// The gateway's own variables as it will meet them, and those of them that flags of ours set.
fn select(
    source: &mut Source<'_>,
    of_command: Option<&str>,
    port: Option<u16>,
    world: &World,
    warnings: &mut Vec<String>,
) -> (Selection, Vec<(&'static str, OsString)>) {
    let inherited = Selection::of(world);
    let mut selection = inherited.clone();
    let state_dir = source.flag("--state-dir", |options| options.state_dir.as_ref());
    let config = source.flag("--config", |options| options.config.as_ref());
    let pinned = Pinned { state_dir: state_dir.is_some(), config: config.is_some(), port: port.is_some() };
    for (given, place) in [(state_dir, &mut selection.state_dir), (config, &mut selection.config)] {
        if let Some(given) = given {
            *place = Some(source.path(&given, world).into_os_string());
        }
    }
    if let Some(port) = port {
        selection.gateway_port = Some(OsString::from(port.to_string()));
    }
    if let Some(given) = source.flag("--profile", |options| options.profile.as_ref()) {
        match given.text().filter(|name| paths::is_profile(name)) {
            None => source.mistakes.push(given.mistake("is not a profile: letters, digits, _ and - only, 64 at most")),
            Some(name) => {
                if let Some(other) = of_command.filter(|other| *other != name) {
                    let wrong = format!("contradicts COMMAND's profile {other}; give one of them");
                    source.mistakes.push(given.mistake(wrong));
                }
                selection.switch_to(name, pinned, world);
            }
        }
    } else if let (Some(profile), None, None) = (&inherited.profile, of_command, &selection.state_dir)
        && port::of_profile(profile).is_some()
    {
        let profile = profile.to_string_lossy();
        warnings.push(format!(
            "OPENCLAW_PROFILE={profile} alone selects no state directory, as in the gateway; say --profile {profile}"
        ));
    }
    let exports = selection.changes_since(&inherited);
    if let Some(name) = of_command {
        // The gateway does this itself, whatever flags of ours set before it.
        selection.switch_to(name, Pinned::default(), world);
    }
    (selection, exports)
}

fn log_settings(source: &mut Source<'_>, terminal: bool) -> LogSettings {
    let formats = [("text", Format::Text), ("json", Format::Json)];
    let levels = [
        ("error", tracing::Level::ERROR),
        ("warn", tracing::Level::WARN),
        ("info", tracing::Level::INFO),
        ("debug", tracing::Level::DEBUG),
        ("trace", tracing::Level::TRACE),
    ];
    let default = if terminal { Format::Text } else { Format::Json };
    LogSettings {
        format: source.choice("--log-format", |options| options.log_format.as_ref(), &formats).unwrap_or(default),
        level: source
            .choice("--log-level", |options| options.log_level.as_ref(), &levels)
            .unwrap_or(tracing::Level::INFO),
    }
}
