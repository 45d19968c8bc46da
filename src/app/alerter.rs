//! Tells people and services of incidents, on a thread of its own that is started only where that is asked for.
//!
//! The loop puts reports into a bounded queue and never waits. What is told is decided by `core::alert`; here it is delivered:
//! each URL and the command has a line of its own, so that one that stalls delays no other.

mod delivery;
mod heartbeat;
mod memory;
mod metrics_file;

pub use delivery::Channels;

use super::input::Input;
use crate::core::alert::{Alert, Alerts};
use crate::core::{Moment, Report};
use crate::host::clock;
use crate::host::control::Facts;
use crate::host::webhook::{Delivered, Notification, Origin};
use crate::platform::random;
use crate::settings::AlertSettings;
use memory::AlertFile;
use metrics_file::MetricsFile;
use std::future::pending;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep, timeout};

/// A busy hour has a few dozen reports that concern an incident.
const REPORTS_WAITING_MAX: usize = 256;

/// The stack of a thread that sets up TLS.
const STACK: usize = 512 * 1024;

/// How long the last messages may take when the supervisor ends: after a failure, and after a stop, which someone waits for.
const LAST_WORDS: Duration = Duration::from_secs(5);
const LAST_WORDS_OF_STOP: Duration = Duration::from_secs(2);

enum Task {
    Report(Moment, Box<Report>),
    /// Send a test message, and say what came back.
    Test(oneshot::Sender<Vec<Delivered>>),
    /// Everything is told: answered when it is delivered.
    Finish(oneshot::Sender<()>),
}

/// The loop's end of it.
#[derive(Debug, Clone)]
pub struct Alerter {
    tasks: mpsc::Sender<Task>,
    lost: Arc<AtomicU64>,
}

/// What it works with.
pub struct Office {
    pub settings: AlertSettings,
    pub channels: Channels,
    pub origin: Origin,
    pub store_dir: PathBuf,
    pub stable_after: Duration,
    pub facts: Facts,
    /// Where the loop is asked for its status.
    pub inputs: mpsc::Sender<Input>,
}

impl Alerter {
    /// Starts the thread. `None` if there is nothing to do, or no thread: then a warning says so.
    #[must_use]
    pub fn start(office: Office) -> Option<Self> {
        if !office.settings.is_used() {
            return None;
        }
        let (tasks, waiting) = mpsc::channel(REPORTS_WAITING_MAX);
        let work = move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return tracing::warn!("no notification is sent: no event loop: {error}"),
            };
            runtime.block_on(office.work(waiting));
            // A look-up of a name that hangs is not waited for.
            runtime.shutdown_background();
        };
        match thread::Builder::new().name("alerts".to_owned()).stack_size(STACK).spawn(work) {
            Ok(_detached) => Some(Self { tasks, lost: Arc::default() }),
            Err(error) => {
                tracing::warn!(
                    "no notification is sent: no thread can be started: {error}; raise the limit on processes"
                );
                None
            }
        }
    }

    /// Passes a report on, or drops it where the thread does not keep up. It never waits.
    pub(super) fn see(&self, report: &Report) {
        if !Alerts::concerns(report) {
            return;
        }
        let is_taken = self.tasks.try_send(Task::Report(clock::now(), Box::new(report.clone()))).is_ok();
        if !is_taken && self.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            tracing::warn!("the thread of the notifications does not keep up; some events are not told");
        }
    }

    /// Sends a test message on each channel.
    pub(super) fn test(&self, answer: oneshot::Sender<Vec<Delivered>>) {
        // Of a full queue the client hears that nothing came.
        let _full = self.tasks.try_send(Task::Test(answer));
    }

    /// Waits until the last messages are delivered, for a short time.
    pub async fn finish(&self, exit_code: u8) {
        let time = if exit_code == 0 { LAST_WORDS_OF_STOP } else { LAST_WORDS };
        let (done, finished) = oneshot::channel();
        let finish = async {
            if self.tasks.send(Task::Finish(done)).await.is_ok() {
                // An error is the end of the thread.
                let _ended = finished.await;
            }
        };
        if timeout(time, finish).await.is_err() {
            tracing::warn!("the last notification was not taken within {}s, and is given up", time.as_secs());
        }
    }
}

/// Whether the supervisor of this store has told that it ended, and none has been well since.
pub async fn has_told_its_end(store_dir: PathBuf) -> bool {
    let told = AlertFile::of(store_dir).read().await;
    told.gateway.is_some_and(|open| open.kind.is_final())
}

impl Office {
    async fn work(self, mut tasks: mpsc::Receiver<Task>) {
        let Self { settings, channels, origin, store_dir, stable_after, facts, inputs } = self;
        let memory = AlertFile::of(store_dir);
        let known = memory.read().await;
        let mut alerts = Alerts::new(settings.patience, stable_after, random::bits(), known);
        let (mut change, mut metrics) = (None, None);
        if let Some(path) = settings.metrics_file {
            let (tell, changes) = mpsc::channel(1);
            metrics = Some(tokio::spawn(MetricsFile::new(path, facts, inputs.clone()).run(changes)));
            change = Some(tell);
        }
        let heartbeat = settings.heartbeat.as_ref().map(|(source, _)| source.clone());
        let beat = settings.heartbeat.map(|(source, interval)| {
            let (wake, woken) = mpsc::channel(1);
            tokio::spawn(heartbeat::run(channels.webhooks(), source, interval, inputs.clone(), woken));
            wake
        });
        let mut lines = delivery::DeliveryQueues::new(channels.clone(), memory);
        loop {
            let due = alerts.deadline().map(|due| due.saturating_sub(clock::now()));
            let mut told = Vec::new();
            let tick = async {
                match due {
                    Some(due) => sleep(due).await,
                    None => pending().await,
                }
            };
            tokio::select! {
                task = tasks.recv() => match task {
                    Some(Task::Report(at, report)) => {
                        if let Some(change) = &change {
                            // One that is waiting is enough.
                            let _full = change.try_send(());
                        }
                        if let (Report::GatewayStarted { .. }, Some(beat)) = (&*report, &beat) {
                            let _full = beat.try_send(());
                        }
                        alerts.see(at, &report, &mut told);
                    }
                    Some(Task::Test(answer)) => {
                        let (channels, heartbeat) = (channels.clone(), heartbeat.clone());
                        let message = Notification::test(&origin, clock::wall_ms());
                        tokio::spawn(async move {
                            // The client may have gone.
                            let _gone = answer.send(channels.try_all(&message, heartbeat.as_ref()).await);
                        });
                    }
                    Some(Task::Finish(done)) => {
                        drop(change);
                        lines.finish().await;
                        if let Some(metrics) = metrics {
                            let _panicked = metrics.await;
                        }
                        // The loop may have given up.
                        let _late = done.send(());
                        return;
                    }
                    None => return,
                },
                () = tick => alerts.tick(clock::now(), &mut told),
            }
            for alert in told {
                let message = message_of(&alert, &origin);
                lines.deliver(message, alerts.memory().clone()).await;
            }
        }
    }
}

fn message_of(alert: &Alert, origin: &Origin) -> Notification {
    let (now, now_ms) = (clock::now(), clock::wall_ms());
    Notification::of(alert, origin, now_ms, |at| clock::wall_of(at, now, now_ms))
}
