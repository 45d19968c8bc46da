//! `run` and `gateway`: supervise one gateway.

use crate::app::App;
use crate::core::{Outcome, Report, Supervisor};
use crate::gateway::probe::Prober;
use crate::gateway::process::Launch;
use crate::host::signals::Signals;
use crate::host::{journal, manager, telemetry};
use crate::platform::process;
use crate::settings::Settings;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Why the supervisor could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No signal handlers.
    #[error("cannot install the signal handlers: {0}; nothing was started; raise the limit on open files")]
    Signals(io::Error),
    /// No place for our own records.
    #[error(
        "cannot make the store directory {0}: {1}; nothing was started; give it to this user or name another with --store-dir"
    )]
    Store(PathBuf, io::Error),
    /// No subreaper.
    #[error("cannot become the reaper of orphaned gateway processes: {0}; nothing was started; use Linux 3.4 or later")]
    Subreaper(io::Error),
}

/// Supervises until there is nothing more to do. The log must stand.
pub async fn run(settings: Settings) -> Result<Outcome, RunError> {
    let signals = Signals::install().map_err(RunError::Signals)?;
    make_store(&settings.store_dir)?;
    process::become_subreaper().map_err(RunError::Subreaper)?;
    telemetry::emit(&Report::SupervisorStarted {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        manager: manager::name(),
    });
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    let prober = Prober::new(settings.endpoint, settings.policy.probe_timeout);
    journal::begin(&settings.policy);
    let core = Supervisor::new(settings.policy);
    let mut command = settings.command.into_iter();
    let launch = Launch {
        program: command.next().unwrap_or_default().into(),
        arguments: command.collect(),
        exports: settings.exports,
    };
    let outcome = App::new(core, launch, prober).run(signals).await;
    telemetry::emit(&Report::SupervisorStopped { exit_code: outcome.code, reason: outcome.reason.clone() });
    Ok(outcome)
}

/// Makes our own directory, and the gateway's state directory above it, for this user alone. That access(2) would allow
/// it was checked with the settings; some file systems say no all the same.
fn make_store(path: &Path) -> Result<(), RunError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| RunError::Store(path.to_owned(), error))
}
