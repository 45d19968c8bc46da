//! What every verb with options needs.

use super::alert_settings::AlertSettings;
use super::hooks::HookSettings;
use super::paths;
use super::policy::{self, LogSettings};
use super::process_context::ProcessContext;
use super::target::Target;
use super::usage_error::UsageError;
use crate::cli::Options;
use crate::core::Policy;
use std::ffi::OsString;
use std::path::PathBuf;

pub(super) struct Common<'a> {
    pub(super) options: &'a Options,
    pub(super) context: &'a ProcessContext,
    /// COMMAND as it was typed; empty if it was not.
    pub(super) command: Vec<OsString>,
    pub(super) target: Target,
    pub(super) hooks: HookSettings,
    pub(super) alerts: AlertSettings,
    pub(super) policy: Policy,
    pub(super) log: LogSettings,
    /// The supervisor's own directory.
    pub(super) store_dir: PathBuf,
    pub(super) errors: Vec<UsageError>,
}

impl<'a> Common<'a> {
    pub(super) fn resolve(options: &'a Options, command: Vec<OsString>, context: &'a ProcessContext) -> Self {
        let mut errors = Vec::new();
        let target = Target::resolve(options, &command, context, &mut errors);
        let hooks = HookSettings::resolve(options);
        let alerts = AlertSettings::resolve(options, context, &mut errors);
        let policy = policy::resolve(options, &hooks, context);
        let log = policy::log_settings(options, context);
        let store_dir = match &options.store_dir {
            Some(path) => paths::resolve(path, context),
            None => target.state_dir.join("supervise"),
        };
        Self { options, context, command, target, hooks, alerts, policy, log, store_dir, errors }
    }
}
