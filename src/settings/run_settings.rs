//! What `run` and `gateway` need to know.

use super::alert_settings::AlertSettings;
use super::command;
use super::common::Common;
use super::paths::{self, NotWritable};
use super::policy::{self, LogSettings};
use super::process_context::ProcessContext;
use super::target::Target;
use super::usage_error::{UsageError, UsageErrors};
use crate::cli::{Options, StopTimeout, is_profile};
use crate::core::report::human;
use crate::core::{Endpoint, Policy};
use crate::gateway::endpoint::{Resolved, Resolver};
use crate::gateway::heap::Heap;
use crate::gateway::hooks::Commands;
use crate::gateway::openclaw;
use crate::host::manager::{DRAIN_WHOLE, ProcessManager};
use crate::host::telemetry::LogFile;
use crate::host::termination_log::TerminationLog;
use crate::platform::random;
use crate::store::BasisChoice;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Clone)]
pub struct Settings {
    /// The gateway's program as an absolute path, then its arguments.
    pub command: Vec<OsString>,
    /// Its program as it was given, before it was found.
    pub program_word: OsString,
    /// The gateway's variables that options of ours set; those from the environment are inherited anyway.
    pub exports: Vec<(&'static str, OsString)>,
    pub endpoint: Endpoint,
    /// Whether its port is a guess, see [`Resolved`].
    pub is_guess: bool,
    /// Resolves `endpoint` again.
    pub resolver: Resolver,
    /// The gateway's state directory, absolute.
    pub state_dir: PathBuf,
    /// The gateway's config file, absolute; it need not exist.
    pub config_path: PathBuf,
    /// The supervisor's own directory, absolute.
    pub store_dir: PathBuf,
    pub policy: Policy,
    /// Whether a service manager that gives us less time for a stop is heeded.
    pub stop_timeout_is_auto: bool,
    pub heap: Heap,
    pub hooks: Commands,
    pub alerts: AlertSettings,
    pub lease: BasisChoice,
    pub log: LogSettings,
    pub log_file: Option<LogFile>,
    pub termination_log: TerminationLog,
    pub warnings: Vec<String>,
}

pub(super) fn resolve(common: Common<'_>) -> Result<Box<Settings>, UsageErrors> {
    let Common { options, context, mut command, target, hooks, alerts, policy, log, store_dir, mut errors } = common;
    if command.is_empty() {
        command = ["openclaw", "gateway", "run"].map(OsString::from).to_vec();
        // The gateway finds all other ports by itself, wherever they move.
        let port = options.port.map(|port| [OsString::from("--port"), port.to_string().into()]);
        command.extend(port.into_iter().flatten());
    }
    let handoff = openclaw::is_gateway(&command);
    if policy.repair.is_some() && !handoff {
        errors.push(UsageError::RepairWithoutOpenclaw);
    }
    let heap = heap(options, &command, &target, context);
    let program_word = command.first().cloned().unwrap_or_default();
    if let Some(program) = command.first_mut() {
        match command::find(program, context) {
            Ok(path) => *program = path.into_os_string(),
            Err(error) => errors.push(UsageError::Command(error)),
        }
    }
    let mut check = |what, option, folder: &Path| match paths::check_writable(folder) {
        Ok(()) => true,
        Err(NotWritable { why, is_refused }) => {
            errors.push(UsageError::Folder { what, folder: folder.display().to_string(), why, is_refused, option });
            false
        }
    };
    // A store inside a state directory that cannot be written fails for the same reason.
    if check("state directory", "--state-dir", &target.state_dir) || !store_dir.starts_with(&target.state_dir) {
        check("store directory", "--store-dir", &store_dir);
    }
    UsageErrors::check(errors)?;
    let is_auto = options.stop_timeout.unwrap_or(StopTimeout::Auto) == StopTimeout::Auto;
    let cut = context.process_manager.filter(|_| is_auto).and_then(|manager| cut_short(manager, policy.stop_timeout));
    let resolved = if target.is_half_written { target.sources.read_until_whole() } else { target.resolved };
    let Resolved { endpoint, is_guess, warnings, .. } = resolved;
    Ok(Box::new(Settings {
        command,
        program_word,
        resolver: target.sources.resolver(),
        exports: target.exports,
        policy: Policy {
            measures_tree: alerts.metrics_file.is_some(),
            handoff,
            endpoint: endpoint.clone(),
            seed: random::bits(),
            ..policy
        },
        stop_timeout_is_auto: is_auto && context.container.is_none(),
        hooks: hooks.commands,
        warnings: target
            .warnings
            .into_iter()
            .chain(warnings)
            .chain(heap.warning.clone())
            .chain(hooks.warnings)
            .chain(alerts.warnings.iter().cloned())
            .chain(cut)
            .collect(),
        heap,
        alerts,
        lease: options.lease.unwrap_or_default(),
        endpoint,
        is_guess,
        state_dir: target.state_dir,
        config_path: target.config_path,
        store_dir,
        log,
        log_file: policy::log_file(options, context),
        termination_log: policy::termination_log(options, context),
    }))
}

fn heap(options: &Options, command: &[OsString], target: &Target, context: &ProcessContext) -> Heap {
    let profile = options.profile.as_deref().or(target.sources.command.profile.as_deref());
    let node_options = target.resolved.node_options.as_deref();
    Heap::resolve(options.max_heap.unwrap_or_default(), command, node_options, &openclaws_services(profile, context))
}

/// The files of the service that `openclaw gateway install` writes. None need exist.
fn openclaws_services(profile: Option<&str>, context: &ProcessContext) -> Vec<PathBuf> {
    let Some(home) = context.variable("HOME").map(PathBuf::from).or_else(context.home) else { return Vec::new() };
    let inherited = context.variable("OPENCLAW_PROFILE").and_then(|name| name.into_string().ok());
    let profile = profile.map(str::to_owned).or(inherited).filter(|name| is_profile(name) && name != "default");
    let unit = profile.as_ref().map(|name| format!("-{name}")).unwrap_or_default();
    let job = profile.unwrap_or_else(|| "gateway".to_owned());
    vec![
        home.join(format!(".config/systemd/user/openclaw-gateway{unit}.service")),
        home.join(format!("Library/LaunchAgents/ai.openclaw.{job}.plist")),
    ]
}

/// What to tell if a process manager does not wait for a whole drain.
fn cut_short(manager: ProcessManager, drain: Duration) -> Option<String> {
    let limit = manager.stop_limit().filter(|_| drain < DRAIN_WHOLE)?;
    Some(format!(
        "{} may send SIGKILL {} after a stop, so a gateway may drain for {}; `openclaw-supervise doctor` says what to set",
        manager.name(),
        human(limit),
        human(drain)
    ))
}
