//! Which gateway an invocation is about: its state, its config and its endpoint.

use super::command::CommandOptions;
use super::config::{Config, ConfigError};
use super::paths::{Pinned, Selection};
use super::process_context::ProcessContext;
use super::usage_error::UsageError;
use super::{command, listener, paths, port};
use crate::cli::Options;
use crate::core::Endpoint;
use std::ffi::OsString;
use std::path::PathBuf;

pub(super) struct Target {
    pub(super) endpoint: Endpoint,
    /// The gateway's variables that options of ours set.
    pub(super) exports: Vec<(&'static str, OsString)>,
    pub(super) state_dir: PathBuf,
    pub(super) config_path: PathBuf,
    /// Why the config cannot be used.
    pub(super) config_errors: Vec<ConfigError>,
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
        let of_command = command::read(command);
        check(options, &of_command, errors);
        let mut warnings = Vec::new();
        let (selection, exports) = select(options, of_command.profile.as_deref(), context, &mut warnings);
        let (state_dir, config_path) = (selection.state_dir(context), selection.config(context));
        let (config, config_errors) = match Config::read(&config_path, &context.env) {
            Ok(config) => (config, Vec::new()),
            Err(errors) => (Config::default(), errors),
        };
        warnings.extend(config.warnings.iter().cloned());
        let variable = selection.gateway_port.as_deref().filter(|_| options.port.or(of_command.port).is_none());
        if let Some(value) = variable.filter(|value| port::of_variable(value).is_none()) {
            let value = value.to_string_lossy();
            warnings.push(format!("OPENCLAW_GATEWAY_PORT {value:?} is not a port; ignoring it, as the gateway does"));
        }
        let port = port::Candidates {
            flag: options.port,
            command: of_command.port,
            variable,
            config: config.port,
            profile: selection.profile.as_deref(),
        }
        .choose();
        let endpoint = listener::endpoint(options.host, of_command.bind, &config, port, context, &mut warnings);
        errors.extend(of_command.errors.into_iter().map(UsageError::CommandOption));
        Self { endpoint, exports, state_dir, config_path, config_errors, warnings }
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
