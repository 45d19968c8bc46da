//! `run` and `gateway`: supervise one gateway.

use crate::app::alerter::{Alerter, Channels, Office};
use crate::app::{App, ControlServer, Diagnostics, End, Input, Reporter, Shell, Whereabouts};
use crate::core::policy::OnStoreLost;
use crate::core::{Event, Outcome, Policy, Report, Supervisor, exit};
use crate::gateway::heap::NODE_OPTIONS;
use crate::gateway::hooks::Hooks;
use crate::gateway::incident::Surroundings;
use crate::gateway::insiders::Insiders;
use crate::gateway::openclaw::Openclaw;
use crate::gateway::probe::Prober;
use crate::gateway::process::{self, Launch};
use crate::gateway::tree::Orphans;
use crate::host::control::{self, Facts};
use crate::host::manager::StopBudget;
use crate::host::signals::Signals;
use crate::host::webhook::Origin;
use crate::host::{clock, journal, manager};
use crate::platform::process::become_subreaper;
use crate::platform::system_calls::Shortfall;
use crate::platform::{descriptors, machine, proc, standard_streams, system_calls, working_directory};
use crate::settings::Settings;
use crate::store::{self, Clocks, Limits, Place, Store, StoreError};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// How many messages may wait for the loop. Each gateway has at most one probe, one kill and one exit under
/// way, and the store answers one question at a time, so more than a handful never do.
const MESSAGES_WAITING_MAX: usize = 64;

/// When the service manager is asked for its patience: the first gateway has the machine for itself, and dies of SIGTERM at
/// once during the first second of its boot.
const ASK_MANAGER_AFTER: Duration = Duration::from_secs(1);

/// Why the supervisor could not begin.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// No signal handlers.
    #[error("cannot install the signal handlers: {0}; nothing was started; raise the limit on open files")]
    Signals(io::Error),
    /// No place for our own records, or no thread for them.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// No subreaper.
    #[error(
        "cannot become the reaper of orphaned gateway processes: {0}; nothing was started; use Linux 3.4 or later, and a \
         sandbox that allows prctl(PR_SET_CHILD_SUBREAPER)"
    )]
    Subreaper(io::Error),
}

impl RunError {
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Store(error) if error.is_usage() => exit::USAGE,
            Self::Store(error) if error.is_refusal() => exit::EX_CONFIG,
            Self::Subreaper(_) => exit::EX_CONFIG,
            Self::Signals(_) | Self::Store(_) => exit::FAILURE,
        }
    }
}

/// Supervises until there is nothing more to do. The log must stand. Up to the call of `begun` this thread may wait for a file
/// system, and after it no more.
pub async fn run(settings: Settings, begun: impl FnOnce()) -> Result<Outcome, RunError> {
    let signals = Signals::install().map_err(RunError::Signals)?;
    descriptors::keep_from_children();
    // That access(2) would allow it was checked with the settings; some file systems say no all the same.
    store::make_folder(&settings.store_dir)?;
    standard_streams::set_folder(settings.store_dir.clone());
    working_directory::set_fallback(settings.state_dir.clone());
    become_subreaper().map_err(RunError::Subreaper)?;
    let (sender, inputs) = mpsc::channel(MESSAGES_WAITING_MAX);
    let key = lease_key(&settings.config_path);
    let place = Place {
        dir: settings.store_dir.clone(),
        key: key.clone(),
        port: settings.policy.endpoint.port,
        is_guess: settings.is_guess,
        host: settings.policy.endpoint.host.clone(),
        socket: settings.store_dir.join(control::NAME),
        standby_socket: settings.store_dir.join(control::standby_name()),
        basis: settings.lease,
        is_watched: settings.policy.on_store_lost == Some(OnStoreLost::Stop),
    };
    // A full channel makes the store wait, and only the store.
    let news = sender.clone();
    let tell = move |told| {
        let _closed = news.blocking_send(Input::News(told));
    };
    let store = Store::open(place, Clocks::system(), Limits::default(), tell)?;
    let hooks = Hooks {
        key: hooks_key(&key, &settings.store_dir),
        commands: settings.hooks.clone(),
        openclaw: None,
        exports: settings.exports.clone(),
        clock: clock::now,
    };
    let facts = facts(&settings);
    let alerter =
        settings.alerts.is_used().then(|| alerter(&settings, &facts, hooks.clone(), sender.clone())).flatten();
    let reporter = Reporter::new(store.clone()).with_alerter(alerter.clone());
    reporter.report(&Report::SupervisorStarted {
        version: env!("CARGO_PKG_VERSION"),
        pid: std::process::id(),
        manager: manager::name(),
        output: settings.policy.messages.clone(),
    });
    for warning in &settings.warnings {
        tracing::warn!("{warning}");
    }
    warn_of_machine();
    let app = assemble(settings, facts, hooks, &key, &store, (sender, inputs), &reporter);
    begun();
    let End { outcome, lease } = app.run(signals).await;
    let stopped = Report::SupervisorStopped { exit_code: outcome.code, reason: outcome.reason.clone() };
    let released = lease.map(|epoch| Report::LeaseReleased { epoch });
    let (released, stopped) = (released.as_ref().map(|released| reporter.record(released)), reporter.record(&stopped));
    let is_closed = store.close(lease.is_some());
    match released {
        Some(released) if is_closed => reporter.tell(&released),
        Some(_) => tracing::warn!(
            "the store did not take the last records in time; the next start will report an unclean shutdown"
        ),
        None => {}
    }
    reporter.tell(&stopped);
    reporter.finish().await;
    if let Some(alerter) = alerter {
        alerter.finish(outcome.code).await;
    }
    Ok(outcome)
}

/// What the kernel or the sandbox lacks.
fn warn_of_machine() {
    if let Some(shortfall) = system_calls::shortfall() {
        let Shortfall { found, why, fix } = shortfall;
        tracing::warn!("system calls are missing here ({found}): {why}; {fix}");
    }
    if proc::is_foreign() {
        tracing::warn!(
            "/proc lists the processes of another pid namespace, so neither processes that a gateway leaves behind \
             nor an earlier gateway can be found; mount this namespace's own /proc"
        );
    }
}

fn alerter(settings: &Settings, facts: &Facts, hooks: Hooks, inputs: mpsc::Sender<Input>) -> Option<Alerter> {
    let alerts = settings.alerts.clone();
    let origin = Origin {
        host: machine::host_name().unwrap_or_default(),
        config: settings.config_path.to_string_lossy().into_owned(),
        store_dir: settings.store_dir.to_string_lossy().into_owned(),
        manager: manager::name(),
        output: manager::output::where_shown(manager::name(), settings.policy.handoff),
        start: manager::start_command(),
    };
    let channels = Channels::new(alerts.notify.clone(), alerts.template, alerts.on_event.clone(), hooks);
    let store_dir = settings.store_dir.clone();
    let stable_after = settings.policy.stable_after;
    let facts = facts.clone();
    Alerter::start(Office { settings: alerts, channels, origin, store_dir, stable_after, facts, inputs })
}

/// Made once: `started_at` is now.
fn facts(settings: &Settings) -> Facts {
    Facts {
        manager: manager::name(),
        started_at: clock::stamp(),
        config: settings.config_path.clone(),
        store_dir: settings.store_dir.clone(),
        heap_mib: settings.heap.mib,
        heap_source: settings.heap.source.clone(),
    }
}

/// Brings the core and its wings together.
fn assemble(
    settings: Settings,
    facts: Facts,
    hooks: Hooks,
    key: &str,
    store: &Store,
    (sender, inputs): (mpsc::Sender<Input>, mpsc::Receiver<Input>),
    reporter: &Reporter,
) -> App {
    let node_options = settings.heap.node_options.map(|options| (NODE_OPTIONS, options));
    let mut command = settings.command.into_iter();
    let launch = Launch {
        key: process::key_of(key),
        program: command.next().unwrap_or_default().into(),
        arguments: command.collect(),
        config: facts.config.clone(),
        exports: settings.exports.into_iter().chain(node_options).collect(),
    };
    let openclaw = Openclaw::of(&launch);
    let hooks = Hooks { openclaw: openclaw.clone(), ..hooks };
    let diagnostics = Diagnostics {
        store_dir: facts.store_dir.clone(),
        surroundings: Surroundings {
            port: settings.policy.endpoint.port,
            folders: vec![("state_dir", settings.state_dir.clone()), ("store_dir", facts.store_dir.clone())],
        },
    };
    let whereabouts =
        Whereabouts::new(settings.resolver, settings.endpoint, &settings.warnings, facts.store_dir.clone());
    let prober = Prober::new(settings.policy.endpoint.clone(), settings.policy.probe_timeout)
        .with_patience(settings.policy.hang_after)
        .with_state_dir(settings.state_dir)
        .with_key(launch.key.clone());
    if settings.stop_timeout_is_auto {
        tokio::spawn(heed_manager(settings.policy.stop_timeout, sender.clone()));
    }
    let messages = manager::output::where_shown(manager::name(), settings.policy.handoff);
    let is_attended = settings.policy.attended;
    let policy = Policy { messages, ..settings.policy };
    journal::begin(&policy);
    let core = Supervisor::new(policy);
    let insiders = Insiders::new(&launch.key, &hooks.key, Orphans::survey());
    let is_inside = Arc::new(move |pid| insiders.contain(pid));
    let shell = Shell::new(launch, hooks, prober, diagnostics, store.clone(), whereabouts, sender.clone())
        .with_program_word(settings.program_word);
    let server = ControlServer::new(facts, is_inside, sender);
    App::new(core, shell, inputs, reporter.clone(), server).attended(is_attended)
}

/// Shortens the drain of a gateway to what the service manager leaves for it.
async fn heed_manager(longest: Duration, inputs: mpsc::Sender<Input>) {
    tokio::time::sleep(ASK_MANAGER_AFTER).await;
    match manager::stop_budget().await {
        StopBudget::Bounded { within, drain } => {
            let drain = drain.min(longest);
            tracing::info!(
                "the systemd unit stops within {}s (TimeoutStopSec), so a gateway may drain for {}s",
                within.as_secs(),
                drain.as_secs()
            );
            // A closed channel means that the loop has ended.
            let _closed = inputs.send(Event::StopBudget { timeout: drain }.into()).await;
        }
        StopBudget::Unknown => tracing::warn!(
            "systemctl does not tell this unit's TimeoutStopSec: a drain may take {}s, and systemd may end it before; set \
             --stop-timeout to five seconds less than that",
            longest.as_secs()
        ),
        StopBudget::Unbounded => {}
    }
}

/// What one lease is about: a gateway's config, under whatever name it is reached. It need not exist.
fn lease_key(config: &Path) -> String {
    let real = fs::canonicalize(config).or_else(|error| match (config.parent(), config.file_name()) {
        (Some(folder), Some(name)) => fs::canonicalize(folder).map(|folder| folder.join(name)),
        _ => Err(error),
    });
    real.unwrap_or_else(|_| config.to_owned()).to_string_lossy().into_owned()
}

/// Unique among supervisors with hooks visible from here, while we own the lease. A lease belongs to a store, and in a
/// container the same path is another store: hence its device, inode and pid namespace. Starts with the key of the
/// configuration.
fn hooks_key(lease_key: &str, store_dir: &Path) -> String {
    let store = fs::metadata(store_dir).map(|store| (store.dev(), store.ino())).unwrap_or_default();
    let place = process::key_of(&format!("{store:?}\0{:?}", machine::pid_namespace()));
    format!("{}{place}", process::key_of(lease_key))
}
