//! The end of a gateway: how it came, what it used until then, and whether we had a part in it.

use crate::core::{Event, ExitStatus, ExitUsage, Generation};
use crate::platform::cgroup::{Leaf, OomCount};
use crate::platform::process::{Exit, Handle, Watch};
use std::os::unix::process::ExitStatusExt;
use std::process;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::mpsc::Sender;

/// An exit status in the core's words.
pub(super) fn of(status: process::ExitStatus) -> ExitStatus {
    match (status.code(), status.signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, Some(number)) => ExitStatus::Signal { number, core_dumped: status.core_dumped() },
        (None, None) => ExitStatus::Unknown,
    }
}

/// Whether we have had a part in the end of a gateway.
#[derive(Debug, Clone, Default)]
pub(super) struct Touch(Arc<AtomicU8>);

impl Touch {
    pub(super) const NONE: u8 = 0;
    pub(super) const TERMINATED: u8 = 1;
    pub(super) const KILLED: u8 = 2;

    pub(super) fn leave(&self, touch: u8) {
        self.0.fetch_max(touch, Ordering::Relaxed);
    }

    pub(super) fn is(&self, touch: u8) -> bool {
        self.0.load(Ordering::Relaxed) == touch
    }
}

/// Who the kernel has killed for want of memory since somebody last looked at the gateway.
///
/// The count is of the gateway alone only where its control group has one; else also of its neighbours, be they in the
/// same container or on the same machine. So what was counted before the last look, which was at a gateway that lived,
/// has not killed it.
#[derive(Debug, Clone)]
pub(super) struct Shortage {
    leaf: Option<Arc<Leaf>>,
    before: Arc<Mutex<OomCount>>,
}

impl Shortage {
    pub(super) fn of(leaf: Option<Arc<Leaf>>) -> Self {
        let before = OomCount::read(leaf.as_deref());
        Self { leaf, before: Arc::new(Mutex::new(before)) }
    }

    /// The gateway lives.
    pub(super) fn look(&self) {
        *self.before.lock().unwrap_or_else(PoisonError::into_inner) = OomCount::read(self.leaf.as_deref());
    }

    fn has_struck(&self) -> bool {
        let before = *self.before.lock().unwrap_or_else(PoisonError::into_inner);
        OomCount::read(self.leaf.as_deref()).is_above(before)
    }
}

/// What the end of a gateway is waited for with.
pub(super) struct Vigil {
    pub(super) generation: Generation,
    pub(super) leader: Arc<Handle>,
    pub(super) watch: Watch,
    pub(super) touch: Touch,
    pub(super) shortage: Shortage,
}

impl Vigil {
    /// Sends `LeaderExited` when our child has ended.
    pub(super) async fn report_exit(self, events: Sender<Event>) {
        let exit = self.watch.exit(&self.leader).await;
        let exit = exit.inspect_err(|error| {
            tracing::error!(pid = self.leader.pid(), %error, "cannot learn how the gateway ended");
        });
        self.report(exit.ok(), events).await;
    }

    /// The same of a process that is not our child: only its parent learns how it ended.
    pub(super) async fn report_departure(self, events: Sender<Event>) {
        if let Err(error) = self.watch.ended(&self.leader).await {
            tracing::error!(pid = self.leader.pid(), %error, "cannot watch the adopted gateway any more");
        }
        // As PID 1 we have become its parent when the supervisor that started it died.
        let exit = self.leader.exit().ok().flatten();
        self.report(exit, events).await;
    }

    async fn report(self, exit: Option<Exit>, events: Sender<Event>) {
        let Self { generation, touch, shortage, .. } = self;
        let death = exit.map_or(ExitStatus::Unknown, |exit| of(exit.status));
        let is_killed = matches!(death, ExitStatus::Signal { number: libc::SIGKILL, .. });
        let oom_killed = is_killed && !touch.is(Touch::KILLED) && shortage.has_struck();
        let (max_rss_kb, cpu) = exit.map_or((None, None), |exit| (exit.max_rss_kb, exit.cpu));
        let toll = ExitUsage { max_rss_kb, cpu, oom_killed };
        // A closed channel means that the loop has ended and nobody waits for the news.
        let _closed = events.send(Event::LeaderExited { generation, death, toll }).await;
    }
}
