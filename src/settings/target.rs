//! Which gateway an invocation is about: its place, its config, its port.

use super::config::{Config, ConfigError};
use super::paths::{Pinned, Selection};
use super::value::Source;
use super::{World, command, listener, paths, port};
use crate::gateway::endpoint::Endpoint;
use std::ffi::OsString;
use std::path::PathBuf;

/// Which gateway it is about.
pub(super) struct Target {
    /// Where it listens.
    pub(super) endpoint: Endpoint,
    /// Its variables that flags of ours set.
    pub(super) exports: Vec<(&'static str, OsString)>,
    /// Its state directory.
    pub(super) state_dir: PathBuf,
    /// Its config file.
    pub(super) config_path: PathBuf,
    /// Why that cannot be used.
    pub(super) config_errors: Vec<ConfigError>,
    /// What is odd.
    pub(super) warnings: Vec<String>,
}

impl Target {
    /// Finds it out as the gateway itself would.
    pub(super) fn resolve(source: &mut Source<'_>, command: &[OsString], world: &World) -> Self {
        let said = command::read(command);
        source.mistakes.extend(said.mistakes);
        let mut warnings = Vec::new();
        let flag_port = flag_port(source, said.port);
        let (selection, exports) = select(source, said.profile.as_deref(), flag_port, world, &mut warnings);
        let (state_dir, config_path) = (selection.state_dir(world), selection.config(world));
        let (config, config_errors) = match Config::read(&config_path, &world.env) {
            Ok(config) => (config, Vec::new()),
            Err(errors) => (Config::default(), errors),
        };
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
        Self { endpoint, exports, state_dir, config_path, config_errors, warnings }
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
    let pinned = Pinned { state_dir: state_dir.is_some(), config: config.is_some() };
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
