//! The exit of a gateway: its status, its resource usage, and whether the OOM killer caused it.

use crate::core::{Event, ExitStatus, ExitUsage, Generation};
use crate::platform::cgroup::{Leaf, OomCount};
use crate::platform::process::{EndWatch, Exit, Handle};
use std::os::unix::process::ExitStatusExt;
use std::process;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::Sender;

/// An exit status as the core has it.
pub(super) fn of(status: process::ExitStatus) -> ExitStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(number)) => ExitStatus::Signal { number, core_dumped: status.core_dumped() },
        (None, None) => ExitStatus::Unknown,
    }
}

/// The strongest signal that we have sent to a gateway.
#[derive(Debug, Clone, Default)]
pub(super) struct SignalsSent(Arc<AtomicU8>);

impl SignalsSent {
    pub(super) const NONE: u8 = 0;
    pub(super) const TERM: u8 = 1;
    pub(super) const KILL: u8 = 2;

    pub(super) fn note(&self, signal: u8) {
        self.0.fetch_max(signal, Ordering::Relaxed);
    }

    pub(super) fn is(&self, signal: u8) -> bool {
        self.0.load(Ordering::Relaxed) == signal
    }
}

/// Whether the OOM killer has struck since the gateway was last seen alive.
///
/// Its count is that of the gateway alone only if its control group has one; otherwise that of the container or of the
/// machine. A kill that was counted before the gateway was last seen alive has not killed it.
#[derive(Debug, Clone)]
pub(super) struct OomWatch {
    leaf: Option<Arc<Leaf>>,
    before: Arc<Mutex<OomCount>>,
}

impl OomWatch {
    pub(super) fn of(leaf: Option<Arc<Leaf>>) -> Self {
        let before = OomCount::read(leaf.as_deref());
        Self { leaf, before: Arc::new(Mutex::new(before)) }
    }

    /// The gateway is alive.
    pub(super) fn rearm(&self) {
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = OomCount::read(self.leaf.as_deref());
    }

    fn has_struck(&self) -> bool {
        let before = *self.before.lock().unwrap_or_else(PoisonError::into_inner);
        OomCount::read(self.leaf.as_deref()).is_above(before)
    }
}

/// Waits for the exit of a gateway.
pub(super) struct ExitWatch {
    pub(super) generation: Generation,
    pub(super) leader: Arc<Handle>,
    pub(super) watch: EndWatch,
    pub(super) signals: SignalsSent,
    pub(super) oom: OomWatch,
}

impl ExitWatch {
    /// Sends `LeaderExited` when our child has exited.
    pub(super) async fn report_exit(self, events: Sender<impl From<Event> + Send + 'static>) {
        let exit = self.watch.exit(&self.leader).await;
        let exit = exit.inspect_err(|error| {
            tracing::error!(pid = self.leader.pid(), %error, "cannot read the exit status of the gateway");
        });
        self.report(exit.ok(), events).await;
    }

    /// The same for a process that is not our child: only its parent gets its exit status.
    pub(super) async fn report_departure(self, events: Sender<impl From<Event> + Send + 'static>) {
        if let Err(error) = self.watch.ended(&self.leader).await {
            tracing::error!(pid = self.leader.pid(), %error, "cannot watch the adopted gateway any more");
        }
        // As PID 1 we became its parent when the supervisor that started it died.
        let exit = self.leader.exit().ok().flatten();
        self.report(exit, events).await;
    }

    async fn report(self, exit: Option<Exit>, events: Sender<impl From<Event> + Send + 'static>) {
        let Self { generation, signals, oom, .. } = self;
        let death = exit.map_or(ExitStatus::Unknown, |exit| of(exit.status));
        let is_killed = matches!(death, ExitStatus::Signal { number: libc::SIGKILL, .. });
        let oom_killed = is_killed && !signals.is(SignalsSent::KILL) && oom.has_struck();
        let (max_rss_kb, cpu) = exit.map_or((None, None), |exit| (exit.max_rss_kb, exit.cpu));
        let toll = ExitUsage { max_rss_kb, cpu, oom_killed };
        // A closed channel means that the loop has ended.
        let _closed = events.send(Event::LeaderExited { generation, death, toll }.into()).await;
    }
}
