//! Who is told of an incident, and how.

use super::paths;
use super::process_context::ProcessContext;
use super::usage_error::UsageError;
use crate::cli::Options;
use crate::host::webhook::{TargetSource, Template};
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// A channel that reconnects by itself does so within a few minutes.
const PATIENCE: Duration = Duration::from_mins(5);
const COMMAND_TIMEOUT: Duration = Duration::from_secs(30);
/// The shortest period of the free services is a minute.
const HEARTBEAT_INTERVAL: Duration = Duration::from_mins(1);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AlertSettings {
    pub notify: Option<TargetSource>,
    pub template: Template,
    /// How long a finding on a running gateway has to last.
    pub patience: Duration,
    /// A line for the shell, and how long it may take.
    pub on_event: Option<(OsString, Duration)>,
    /// How often each URL is requested.
    pub heartbeat: Option<(TargetSource, Duration)>,
    pub metrics_file: Option<PathBuf>,
    pub warnings: Vec<String>,
}

impl AlertSettings {
    pub(super) fn resolve(options: &Options, context: &ProcessContext, errors: &mut Vec<UsageError>) -> Self {
        let mut warnings = Vec::new();
        let mut source = |option: &'static str, value: Option<&OsString>| {
            let source = TargetSource::parse(value?, |path| paths::resolve(path, context));
            source.map_err(|error| errors.push(UsageError::Webhook { option, error })).ok()
        };
        let notify = source("--notify", options.notify.as_ref());
        let heartbeat = source("--heartbeat-url", options.heartbeat_url.as_ref());
        let mut unused = |option: &str, is_given: bool, needs: &str, has: bool| {
            if is_given && !has {
                warnings.push(format!("{option} is given without {needs}, and has no effect"));
            }
        };
        let (has_notify, has_command) = (options.notify.is_some(), options.on_event.is_some());
        unused("--notify-format", options.notify_format.is_some(), "--notify", has_notify);
        unused("--notify-after", options.notify_after.is_some(), "--notify or --on-event", has_notify || has_command);
        unused("--on-event-timeout", options.on_event_timeout.is_some(), "--on-event", has_command);
        let has_heartbeat = options.heartbeat_url.is_some();
        unused("--heartbeat-interval", options.heartbeat_interval.is_some(), "--heartbeat-url", has_heartbeat);
        let timeout = options.on_event_timeout.unwrap_or(COMMAND_TIMEOUT);
        let interval = options.heartbeat_interval.unwrap_or(HEARTBEAT_INTERVAL);
        Self {
            notify,
            template: options.notify_format.unwrap_or_default(),
            patience: options.notify_after.unwrap_or(PATIENCE),
            on_event: options.on_event.clone().map(|command| (command, timeout)),
            heartbeat: heartbeat.map(|source| (source, interval)),
            metrics_file: options.metrics_file.as_ref().map(|path| paths::resolve(path, context)),
            warnings,
        }
    }

    /// Whether anything of it is used.
    #[must_use]
    pub fn is_used(&self) -> bool {
        self.has_channel() || self.heartbeat.is_some() || self.metrics_file.is_some()
    }

    /// Whether anything is told of an incident.
    #[must_use]
    pub fn has_channel(&self) -> bool {
        self.notify.is_some() || self.on_event.is_some()
    }
}
