//! What one invocation means: the command line, the environment and the gateway's config brought together, checked,
//! and every mistake in them reported at once.

mod args;
mod command;
mod config;
mod hooks;
mod inquiry;
mod install;
mod listener;
mod mistake;
mod paths;
mod port;
mod target;
mod timing;
mod value;
mod world;

pub use inquiry::{AskSettings, DoctorSettings, EventsSettings, StatusSettings, Subject, Wish};
pub use install::{Scope, ServiceSettings};
pub use mistake::{Mistake, Mistakes};
pub use world::{Environment, World};

use crate::cli::{Cli, Demo, Options, Probe, StandIn, Verb};
use crate::core::Policy;
use crate::gateway::endpoint::Endpoint;
use crate::gateway::hooks::Commands;
use crate::gateway::openclaw;
use crate::host::telemetry::Format;
use args::Parsed;
use hooks::Hooks;
use inquiry::Common;
use std::ffi::OsString;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::Duration;
use target::Target;
use timing::{lease_basis, log_settings};
use value::{Source, Zero};

/// What is logged, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// How.
    pub format: Format,
    /// The least severe level that is logged.
    pub level: tracing::Level,
}

/// What shows whether another owner lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeaseBasis {
    /// By the file system: its locks where they can be trusted.
    Auto,
    /// The kernel lock.
    Lock,
    /// The heartbeat in the row.
    Heartbeat,
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
    /// Whether an outer manager that gives us less time for a stop is heeded.
    pub stop_timeout_is_auto: bool,
    /// The operator's commands.
    pub hooks: Commands,
    /// What shows whether another owner lives.
    pub lease: LeaseBasis,
    /// What is logged, and how.
    pub log: LogSettings,
    /// What is odd, one sentence each; not a reason to stop.
    pub warnings: Vec<String>,
}

/// What `probe` asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// Does it serve?
    Live,
    /// Is it ready for work?
    Ready,
    /// Has it come up completely?
    Started,
    /// Does a supervisor look after it?
    Supervised,
}

impl Question {
    /// The word of the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Started => "started",
            Self::Supervised => "supervised",
        }
    }
}

/// What `probe` needs to know.
#[derive(Debug, Clone)]
pub struct ProbeSettings {
    /// Where the gateway listens.
    pub endpoint: Endpoint,
    /// Whether the command line says so: then no supervisor is asked for another place.
    pub is_place_named: bool,
    /// The supervisor's own directory.
    pub store_dir: PathBuf,
    /// What to ask.
    pub question: Question,
    /// How long to ask again; without it the question is asked once.
    pub wait: Option<Duration>,
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
    /// Tell how supervisor and gateway are.
    Status(Box<StatusSettings>),
    /// Tell what will go wrong.
    Doctor(Box<DoctorSettings>),
    /// Install the service.
    Install(Box<ServiceSettings>),
    /// Remove it.
    Uninstall(Box<ServiceSettings>),
    /// Show what was recorded.
    Events(Box<EventsSettings>),
    /// Ask a running supervisor for something.
    Ask(Box<AskSettings>),
    /// Show what supervising means.
    Demo(Demo),
    /// Be the gateway of the demo.
    StandIn(StandIn),
    /// Be a helper of that gateway.
    Helper,
}

/// Reads a whole invocation; `args` begins with the program's name.
pub fn read(args: impl IntoIterator<Item = OsString>, world: &World) -> Result<Invocation, Mistakes> {
    let args: Vec<_> = args.into_iter().collect();
    let (parsed, mistakes) = args::parse(args.iter().cloned());
    match parsed {
        Parsed::Cli(cli) => match resolve(&cli, world, mistakes)? {
            Invocation::Install(mut service) => {
                service.words = install::run_words(&args, &world.cwd);
                Ok(Invocation::Install(service))
            }
            other => Ok(other),
        },
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
        Some(Verb::Status(status)) => Some(&status.options),
        Some(Verb::Doctor(doctor)) => Some(&doctor.options),
        Some(Verb::Install(install)) => Some(&install.options),
        Some(Verb::Events(events)) => Some(&events.options),
        Some(Verb::Restart(ask) | Verb::Stop(ask) | Verb::RetryNow(ask)) => Some(&ask.options),
        Some(Verb::Gateway(_) | Verb::Uninstall(_)) | None => None,
        Some(Verb::Demo(demo)) => return apart(cli, Invocation::Demo(*demo), mistakes),
        Some(Verb::DemoGateway(stand_in)) => return apart(cli, Invocation::StandIn(*stand_in), mistakes),
        Some(Verb::DemoHelper) => return apart(cli, Invocation::Helper, mistakes),
    };
    let layers = of_verb.into_iter().chain([&cli.options]).collect();
    let mut source = Source::new(layers, world, mistakes);
    let hooks = Hooks::resolve(&mut source);
    let timing =
        Policy { pre_start: hooks.pre_start, post_stop: hooks.post_stop, ..timing::resolve(&mut source, world) };
    let lease = lease_basis(&mut source);
    let log = log_settings(&mut source, world.terminal);
    let given = match &cli.verb {
        Some(Verb::Run(run)) => run.command.clone(),
        Some(Verb::Install(install)) => install.command.clone(),
        Some(Verb::Gateway(gateway)) => {
            ["openclaw", "gateway"].into_iter().map(OsString::from).chain(gateway.args.iter().cloned()).collect()
        }
        _ => Vec::new(),
    };
    let target = Target::resolve(&mut source, &given, world);
    let common = Common { source, target, timing, log, world };
    match &cli.verb {
        Some(Verb::Probe(probe)) => probe_settings(probe, common),
        Some(Verb::Status(status)) => common.status(status),
        Some(Verb::Doctor(doctor)) => common.doctor(doctor, lease, hooks),
        Some(Verb::Install(install)) => {
            common.service(cli, &install.service, given, lease, hooks).map(Invocation::Install)
        }
        Some(Verb::Uninstall(uninstall)) => {
            common.service(cli, &uninstall.service, given, lease, hooks).map(Invocation::Uninstall)
        }
        Some(Verb::Events(events)) => common.events(events),
        Some(Verb::Restart(ask)) => common.ask(ask, Wish::Restart),
        Some(Verb::Stop(ask)) => common.ask(ask, Wish::Stop),
        Some(Verb::RetryNow(ask)) => common.ask(ask, Wish::RetryNow),
        _ => run_settings(given, lease, hooks, common).map(Invocation::Run),
    }
}

/// An invocation that looks at no setting, so that the demo is the same everywhere.
fn apart(cli: &Cli, invocation: Invocation, mut mistakes: Vec<Mistake>) -> Result<Invocation, Mistakes> {
    if cli.options != Options::default() {
        mistakes.push(Mistake::Usage("demo brings its own settings; give it no option but --fast".to_owned()));
    }
    Mistakes::check(mistakes).map(|()| invocation)
}

fn probe_settings(probe: &Probe, common: Common<'_>) -> Result<Invocation, Mistakes> {
    let Common { mut source, target, timing, log, world } = common;
    let asked: Vec<(&str, Question)> = [
        (probe.live, "--live", Question::Live),
        (probe.ready, "--ready", Question::Ready),
        (probe.started, "--started", Question::Started),
        (probe.supervised, "--supervised", Question::Supervised),
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
    let is_place_named = source.flag("--port", |options| options.port.as_ref()).is_some()
        || source.flag("--host", |options| options.host.as_ref()).is_some();
    let store_dir = store_dir(&mut source, &target, world);
    Mistakes::check(source.mistakes)?;
    // A gateway outlives a slip in its config; a liveness probe must not end it for that.
    let errors = target.config_errors.iter().map(|error| format!("{error}; probing with its defaults"));
    let warnings = target.warnings.into_iter().chain(errors).collect();
    Ok(Invocation::Probe(Box::new(ProbeSettings {
        endpoint: target.endpoint,
        is_place_named,
        store_dir,
        question: asked.first().map_or(Question::Live, |(_, question)| *question),
        wait,
        probe_timeout: timing.probe_timeout,
        json: probe.json,
        log,
        warnings,
    })))
}

fn run_settings(
    given: Vec<OsString>,
    lease: LeaseBasis,
    hooks: Hooks,
    common: Common<'_>,
) -> Result<Box<Settings>, Mistakes> {
    let Common { mut source, target, timing, log, world } = common;
    let mut command = if given.is_empty() {
        let port = target.endpoint.port.to_string();
        ["openclaw", "gateway", "run", "--port", &port].map(OsString::from).to_vec()
    } else {
        given
    };
    source.mistakes.extend(target.config_errors.iter().map(|error| Mistake::Config(error.to_string())));
    let handoff = openclaw::is_gateway(&command);
    if let Some(given) = source.given("--repair", |options| options.repair.as_ref()).filter(|_| !handoff)
        && timing.repair.is_some()
    {
        source.mistakes.push(given.mistake(
            "needs a COMMAND that names an 'openclaw ... gateway', whose doctor can be called; name that program in \
             COMMAND, or leave --repair off",
        ));
    }
    if let Some(program) = command.first_mut() {
        match command::find(program, world) {
            Ok(path) => *program = path.into_os_string(),
            Err(mistake) => source.mistakes.push(mistake),
        }
    }
    let store_dir = store_dir(&mut source, &target, world);
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
    let stop_timeout_is_auto = timing::is_stop_timeout_auto(&mut source) && !world.pid1;
    Mistakes::check(source.mistakes)?;
    Ok(Box::new(Settings {
        command,
        exports: target.exports,
        policy: Policy {
            handoff,
            url: target.endpoint.to_string(),
            seed: RandomState::new().build_hasher().finish(),
            ..timing
        },
        stop_timeout_is_auto,
        hooks: hooks.commands,
        lease,
        endpoint: target.endpoint,
        state_dir: target.state_dir,
        config_path: target.config_path,
        store_dir,
        log,
        warnings: target.warnings.into_iter().chain(hooks.warnings).collect(),
    }))
}

/// Our own directory.
fn store_dir(source: &mut Source<'_>, target: &Target, world: &World) -> PathBuf {
    match source.given("--store-dir", |options| options.store_dir.as_ref()) {
        Some(given) => source.path(&given, world),
        None => target.state_dir.join("supervise"),
    }
}
