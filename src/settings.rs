//! What an invocation means: the command line, the environment and the gateway's config resolved, and everything that
//! clap cannot know checked and reported together.

mod alert_settings;
mod command;
mod common;
mod config;
mod document;
mod dot_env;
mod hooks;
mod install;
mod listener;
mod paths;
mod policy;
mod port;
mod process_context;
mod query_settings;
mod run_settings;
mod source_file;
mod sources;
mod target;
mod usage_error;

pub use alert_settings::AlertSettings;
pub use command::CommandError;
pub use document::log_file_of;
pub use install::{SECRETS, Scope, ServiceSettings};
pub use policy::{LogSettings, termination_log};
pub use process_context::{Environment, ProcessContext};
pub use query_settings::{
    DoctorSettings, EventsSettings, ExplainSettings, Fix, LogsSettings, MetricsSettings, NotifySettings, PauseSettings,
    ProbeSettings, Question, RequestSettings, StatusSettings, Subject,
};
pub use run_settings::Settings;
pub use usage_error::{UsageError, UsageErrors};

use crate::cli::{self, Cli, CompletionShell, Demo, StandIn, Verb};
use crate::core::Request;
use crate::core::event::PauseRequest;
use crate::gateway::verb::other_verb;
use common::Common;
use std::ffi::OsString;
use std::path::PathBuf;

/// What an invocation asks for.
#[derive(Debug, Clone)]
pub enum Invocation {
    /// `run` and `gateway`.
    Run(Box<Settings>),
    Probe(Box<ProbeSettings>),
    Status(Box<StatusSettings>),
    Doctor(Box<DoctorSettings>),
    Install(Box<ServiceSettings>),
    Uninstall(Box<ServiceSettings>),
    Events(Box<EventsSettings>),
    Notify(Box<NotifySettings>),
    Explain(Box<ExplainSettings>),
    Metrics(Box<MetricsSettings>),
    /// `restart`, `stop`, `retry-now` and `start-now`.
    Request(Box<RequestSettings>),
    /// `pause` and `resume`.
    Pause(Box<PauseSettings>),
    Demo(Demo),
    Completions(CompletionShell),
    /// The page of a verb, or of the program.
    ManPage(Option<String>),
    /// All pages, into this directory.
    ManPages(PathBuf),
    Version,
    Logs(Box<LogsSettings>),
    DemoGateway(StandIn),
    DemoHelper,
}

/// Parses and resolves a command line, the program's name first. `doctor` reads those of other processes.
pub fn read(args: impl IntoIterator<Item = OsString>, context: &ProcessContext) -> Result<Invocation, UsageErrors> {
    let cli =
        Cli::read(args, |name| context.variable(name)).map_err(|error| UsageError::CommandLine(cli::line(&error)))?;
    resolve(&cli, context)
}

/// A search of the machine is for those who have named nothing.
fn names_store(context: &ProcessContext) -> bool {
    const VARIABLES: [&str; 4] =
        ["OPENCLAW_STATE_DIR", "OPENCLAW_CONFIG_PATH", "OPENCLAW_PROFILE", "OPENCLAW_SUPERVISE_STORE_DIR"];
    VARIABLES.iter().any(|name| context.variable(name).is_some_and(|value| !value.is_empty()))
}

pub fn resolve(cli: &Cli, context: &ProcessContext) -> Result<Invocation, UsageErrors> {
    let command = match &cli.verb {
        Some(Verb::Run { command, .. } | Verb::Install { command, .. }) => command.clone(),
        Some(Verb::Gateway { args }) => {
            ["openclaw", "gateway"].into_iter().map(OsString::from).chain(args.iter().cloned()).collect()
        }
        _ => Vec::new(),
    };
    if let Some(verb) = other_verb(&command) {
        return Err(UsageError::from(verb).into());
    }
    let is_target_named = || {
        const TARGET: [&str; 6] = ["--port", "--host", "--state-dir", "--config", "--profile", "--store-dir"];
        cli.typed.iter().any(|(option, _)| TARGET.contains(&option.as_str()))
    };
    let common = || Common::resolve(&cli.options, command.clone(), context);
    let request =
        |request, timeout, starts| common().request(request, timeout, starts).map(Box::new).map(Invocation::Request);
    let retry = |force| if force { Request::RetryForced } else { Request::Retry };
    Ok(match &cli.verb {
        None | Some(Verb::Run { .. } | Verb::Gateway { .. }) => Invocation::Run(run_settings::resolve(common())?),
        Some(Verb::Probe { question, wait, json, .. }) => {
            let is_endpoint_named = cli.typed.iter().any(|(option, _)| option == "--port" || option == "--host");
            let settings = common().probe(*question, *wait, *json, is_endpoint_named)?;
            Invocation::Probe(Box::new(settings))
        }
        Some(Verb::Status { json, watch, .. }) => {
            Invocation::Status(Box::new(common().status(*json, *watch, is_target_named() || names_store(context))?))
        }
        Some(Verb::Doctor { json, fix, dry_run, .. }) => {
            let fix = fix.then_some(Fix { dry_run: *dry_run });
            Invocation::Doctor(Box::new(common().doctor(*json, fix, is_target_named())?))
        }
        Some(Verb::Install { service, .. }) => Invocation::Install(Box::new(install::install(cli, service, common())?)),
        Some(Verb::Uninstall { service, .. }) => {
            Invocation::Uninstall(Box::new(install::uninstall(cli, service, context)?))
        }
        Some(Verb::Events { lines, since, level, follow, json, .. }) => {
            let (subject, follow, json) = (common().about()?, *follow, *json);
            let (lines, since, level) = (*lines, *since, *level);
            Invocation::Events(Box::new(EventsSettings { subject, lines, since, level, follow, json }))
        }
        Some(Verb::Explain { subject: decision, json, .. }) => {
            let (subject, decision, json) = (common().about()?, decision.clone(), *json);
            let typed = cli.typed.iter().flat_map(|(option, value)| [option.clone(), cli::shell_word(value)]);
            let typed = typed.collect::<Vec<_>>().join(" ");
            Invocation::Explain(Box::new(ExplainSettings { subject, decision, typed, json }))
        }
        Some(Verb::Restart { timeout, force: true, .. }) => request(Request::RestartForced, *timeout, false)?,
        Some(Verb::Restart { timeout, force: false, .. }) => request(Request::Restart, *timeout, false)?,
        Some(Verb::Stop { timeout, .. }) => request(Request::Stop, *timeout, false)?,
        Some(Verb::RetryNow { timeout, force, .. }) => request(retry(*force), *timeout, false)?,
        Some(Verb::StartNow { timeout, force, .. }) => request(retry(*force), *timeout, true)?,
        Some(Verb::Pause { period, reason, .. }) => {
            let pause = PauseRequest { period: *period, reason: reason.clone() };
            Invocation::Pause(Box::new(common().pause(Some(pause))?))
        }
        Some(Verb::Resume { .. }) => Invocation::Pause(Box::new(common().pause(None)?)),
        Some(Verb::Notify { failed_unit, .. }) => Invocation::Notify(Box::new(common().notify(failed_unit.clone())?)),
        Some(Verb::Metrics { prometheus, .. }) => Invocation::Metrics(Box::new(common().metrics(*prometheus)?)),
        Some(Verb::Demo(_)) if !cli.typed.is_empty() => return Err(UsageError::DemoWithOptions.into()),
        Some(Verb::Demo(demo)) => Invocation::Demo(*demo),
        Some(Verb::Completions { shell }) => Invocation::Completions(*shell),
        Some(Verb::Man { dir: Some(dir), .. }) => Invocation::ManPages(PathBuf::from(dir)),
        Some(Verb::Man { verb, dir: None }) => Invocation::ManPage(verb.clone()),
        Some(Verb::Logs { .. }) => Invocation::Logs(Box::new(common().logs()?)),
        Some(Verb::Version) => Invocation::Version,
        Some(Verb::DemoGateway(stand_in)) => Invocation::DemoGateway(*stand_in),
        Some(Verb::DemoHelper) => Invocation::DemoHelper,
    })
}
