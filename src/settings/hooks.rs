//! The operator's own commands, and how long each may take.

use crate::cli::Options;
use crate::gateway::hooks::Commands;
use std::ffi::OsString;
use std::time::Duration;

/// How long a hook may take by default.
const TIMEOUT: Duration = Duration::from_secs(15);

#[derive(Debug, Default)]
pub(super) struct HookSettings {
    pub(super) commands: Commands,
    /// The timeout; `None` if there is no such hook.
    pub(super) pre_start: Option<Duration>,
    pub(super) post_stop: Option<Duration>,
    pub(super) warnings: Vec<String>,
}

impl HookSettings {
    pub(super) fn resolve(options: &Options) -> Self {
        let mut warnings = Vec::new();
        let mut time = |name: &str, command: Option<&OsString>, timeout: Option<Duration>| {
            if command.is_none() && timeout.is_some() {
                warnings.push(format!("--{name}-timeout is given without --{name}, and has no effect"));
            }
            command.map(|_| timeout.unwrap_or(TIMEOUT))
        };
        let pre_start = time("pre-start", options.pre_start.as_ref(), options.pre_start_timeout);
        let post_stop = time("post-stop", options.post_stop.as_ref(), options.post_stop_timeout);
        let commands = Commands { pre_start: options.pre_start.clone(), post_stop: options.post_stop.clone() };
        Self { commands, pre_start, post_stop, warnings }
    }
}
