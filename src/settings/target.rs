//! Which gateway an invocation is about: its state, its config and its endpoint.

use super::command::CommandOptions;
use super::paths::{Pinned, Selection};
use super::process_context::ProcessContext;
use super::sources::Sources;
use super::usage_error::UsageError;
use super::{command, paths, port};
use crate::cli::Options;
use crate::gateway::endpoint::Resolved;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::Arc;

pub(super) struct Target {
    pub(super) sources: Sources,
    pub(super) resolved: Resolved,
    /// Whether one of the files seems to be half-written.
    pub(super) is_half_written: bool,
    /// The gateway's variables that options of ours set.
    pub(super) exports: Vec<(&'static str, OsString)>,
    pub(super) state_dir: PathBuf,
    pub(super) config_path: PathBuf,
    /// About the choice of the gateway; those about its endpoint are in `resolved`.
    pub(super) warnings: Vec<String>,
}

impl Target {
    /// Follows the gateway's own rules. `errors` gets what contradicts COMMAND.
    pub(super) fn resolve(
        options: &Options,
        command: &[OsString],
        context: &ProcessContext,
        errors: &mut Vec<UsageError>,
    ) -> Self {
        let command = command::read(command);
        check(options, &command, errors);
        let mut warnings = Vec::new();
        let (mut selection, mut exports) = select(options, command.profile.as_deref(), context, &mut warnings);
        let is_port = |value: &OsString| command.port.is_some() || port::of_variable(value).is_some();
        if let Some(value) = selection.gateway_port.take_if(|value| !is_port(value)) {
            let value = value.to_string_lossy();
            warnings.push(format!("OPENCLAW_GATEWAY_PORT {value:?} is not a port; the gateway gets an empty one"));
            // Kubernetes sets `tcp://...` for a service `openclaw-gateway`. Without the variable the `.env` files would count.
            selection.gateway_port = Some(OsString::new());
            exports.push(("OPENCLAW_GATEWAY_PORT", OsString::new()));
        }
        let (state_dir, config_path) = (selection.state_dir(context), selection.config(context));
        let selected = selection.changes_since(&Selection::from_environment(context));
        let context = context.with(selected.into_iter().map(|(name, value)| (name.to_owned(), value)));
        let sources = Sources { context, port: options.port, host: options.host, command, known: Arc::default() };
        let (resolved, is_half_written) = sources.read();
        Self { sources, resolved, is_half_written, exports, state_dir, config_path, warnings }
    }
}

fn check(options: &Options, of_command: &CommandOptions, errors: &mut Vec<UsageError>) {
    let mut compare = |option, typed: Option<String>, of_command: Option<String>| {
        if let (Some(typed), Some(of_command)) = (typed, of_command)
            && typed != of_command
        {
            errors.push(UsageError::Contradiction { option, typed, of_command });
        }
    };
    let text = |port: Option<u16>| port.map(|port| port.to_string());
    compare("port", text(options.port), text(of_command.port));
    compare("profile", options.profile.clone(), of_command.profile.clone());
}

/// The gateway's own variables as it will find them, and those of them that options of ours set.
fn select(
    options: &Options,
    of_command: Option<&str>,
    context: &ProcessContext,
    warnings: &mut Vec<String>,
) -> (Selection, Vec<(&'static str, OsString)>) {
    let inherited = Selection::from_environment(context);
    let mut selection = inherited.clone();
    let pinned = Pinned { state_dir: options.state_dir.is_some(), config: options.config.is_some() };
    let absolute = |path: &OsString| paths::resolve(path, context).into_os_string();
    selection.state_dir = options.state_dir.as_ref().map(absolute).or(selection.state_dir);
    selection.config = options.config.as_ref().map(absolute).or(selection.config);
    selection.gateway_port = options.port.map(|port| port.to_string().into()).or(selection.gateway_port);
    if let Some(name) = &options.profile {
        selection.switch_to(name, pinned, context);
    } else if let (Some(profile), None, None) = (&inherited.profile, of_command, &selection.state_dir)
        && port::of_profile(profile).is_some()
    {
        let profile = profile.to_string_lossy();
        warnings.push(format!(
            "OPENCLAW_PROFILE={profile} selects a port but no state directory, as in the gateway; for both give \
             --profile {profile}"
        ));
    }
    let exports = selection.changes_since(&inherited);
    if let Some(name) = of_command {
        // The gateway does this itself, whatever our options have set.
        selection.switch_to(name, Pinned::default(), context);
    }
    (selection, exports)
}
