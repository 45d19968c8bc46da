//! The core's policy and the log, from options that need nothing else.

use super::hooks::HookSettings;
use super::paths;
use super::process_context::ProcessContext;
use crate::cli::{ConflictMode, MemoryMax, Options, RepairMode, StopTimeout};
use crate::core::Policy;
use crate::core::policy::OnConflict;
use crate::host::manager::{self, DRAIN_WHOLE, ProcessManager};
use crate::host::telemetry::{Format, LogFile};
use crate::host::termination_log::TerminationLog;
use std::time::Duration;

/// The startup budget of a gateway: OpenClaw's doctor does the same migrations, and a cold start of Node comes on top.
const REPAIR_TIME_MAX: Duration = Duration::from_mins(5);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    pub format: Format,
    /// The least severe level that is logged.
    pub level: tracing::Level,
}

/// URL, seed and handoff stay those of the defaults.
pub(super) fn resolve(options: &Options, hooks: &HookSettings, context: &ProcessContext) -> Policy {
    let default = Policy::default();
    Policy {
        startup_timeout: options.startup_timeout.unwrap_or(default.startup_timeout),
        probe_interval: options.probe_interval.unwrap_or(default.probe_interval),
        probe_timeout: options.probe_timeout.unwrap_or(default.probe_timeout),
        hang_after: options.hang_after.unwrap_or(default.hang_after),
        stop_timeout: match options.stop_timeout.unwrap_or(StopTimeout::Auto) {
            StopTimeout::Auto => automatic_stop_timeout(context),
            StopTimeout::Fixed(duration) => duration,
        },
        hung_stop_timeout: options.hung_stop_timeout.unwrap_or(default.hung_stop_timeout),
        max_restarts: options.max_restarts.unwrap_or(default.max_restarts),
        restart_window: options.restart_window.unwrap_or(default.restart_window),
        backoff_max: options.backoff_max.unwrap_or(default.backoff_max),
        stable_after: options.stable_after.unwrap_or(default.stable_after),
        boot_limit: options.boot_limit.unwrap_or(default.boot_limit),
        boot_window: options.boot_window.unwrap_or(default.boot_window),
        conflict_timeout: options.conflict_timeout.unwrap_or(default.conflict_timeout),
        conflict_exit_code: options.conflict_exit_code.unwrap_or(default.conflict_exit_code),
        on_conflict: match options.on_conflict.unwrap_or(ConflictMode::Auto) {
            ConflictMode::Auto if is_restarted_anyway(context) => OnConflict::Standby,
            ConflictMode::Auto | ConflictMode::Exit => OnConflict::Exit,
            ConflictMode::Standby => OnConflict::Standby,
        },
        on_store_lost: options.on_store_lost,
        update_timeout: options.update_timeout.unwrap_or(default.update_timeout),
        kill_strays: options.kill_strays.unwrap_or(default.kill_strays),
        pre_start: hooks.pre_start,
        post_stop: hooks.post_stop,
        memory_max_kb: match options.memory_max.unwrap_or(MemoryMax::Off) {
            MemoryMax::Off => None,
            MemoryMax::Kb(kb) => Some(kb),
        },
        repair: match options.repair.unwrap_or(RepairMode::Off) {
            RepairMode::Off => None,
            RepairMode::Doctor => Some(REPAIR_TIME_MAX),
        },
        attended: context.terminal,
        ..default
    }
}

/// Whether what runs us starts us again whatever our exit code, which would be a loop.
fn is_restarted_anyway(context: &ProcessContext) -> bool {
    let ends_container = context.container.as_ref().is_some_and(|container| container.ends_with_us);
    ends_container || context.launchd || context.process_manager.is_some()
}

fn automatic_stop_timeout(context: &ProcessContext) -> Duration {
    let container = context.container.as_ref().map(|container| container.grace);
    let limit = context.process_manager.and_then(ProcessManager::stop_limit);
    // The ExitTimeOut of the gateway's own property list is 20.
    let launchd = context.launchd.then_some(Duration::from_secs(15));
    let drains = [container, limit].map(|grace| grace.map(manager::drain_in_grace));
    drains.into_iter().chain([launchd]).flatten().fold(DRAIN_WHOLE, Duration::min)
}

pub(super) fn log_settings(options: &Options, context: &ProcessContext) -> LogSettings {
    let default = if context.terminal || context.journal { Format::Text } else { Format::Json };
    LogSettings {
        format: options.log_format.unwrap_or(default),
        level: options.log_level.unwrap_or(tracing::Level::INFO),
    }
}

pub(super) fn log_file(options: &Options, context: &ProcessContext) -> Option<LogFile> {
    let path = paths::resolve(options.log_file.as_ref()?, context);
    Some(LogFile { path, format: options.log_format.unwrap_or(Format::Json) })
}

/// Known without any other setting: it is for what is wrong with them, too.
#[must_use]
pub fn termination_log(options: &Options, context: &ProcessContext) -> TerminationLog {
    match &options.termination_log {
        None => TerminationLog::Auto,
        Some(word) if word == "auto" => TerminationLog::Auto,
        Some(word) if word == "off" => TerminationLog::Off,
        Some(path) => TerminationLog::File(paths::resolve(path, context)),
    }
}
