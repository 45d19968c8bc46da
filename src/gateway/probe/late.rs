//! An answer that comes after the timeout of a probe.
//!
//! It shows life, if not health: a gateway that is swapped out or very busy may need longer than a probe has, for each of
//! them. So one request at a time is waited for beside the probes, and the next probe that fails brings its answer back.

use super::http::{AfterReply, ProbeClient};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// One such request, if one is under way. It ends with this value.
#[derive(Debug, Default)]
pub(super) struct LateAnswer(Mutex<JoinSet<Option<String>>>);

impl LateAnswer {
    fn lock(&self) -> MutexGuard<'_, JoinSet<Option<String>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The answer to the last request, if it came since. Otherwise sees to it that one is under way, for `patience` at
    /// most.
    pub(super) fn take_or_ask(
        &self,
        client: impl FnOnce() -> Option<ProbeClient>,
        patience: Duration,
    ) -> Option<String> {
        let mut requests = self.lock();
        let answer = requests.try_join_next().and_then(Result::ok).flatten();
        if answer.is_some() || !requests.is_empty() {
            return answer;
        }
        if let Some(client) = client() {
            requests.spawn(ask(client, patience));
        }
        None
    }

    /// What is under way, or has come since, is of no use any more.
    pub(super) fn forget(&self) {
        let mut requests = self.lock();
        if !requests.is_empty() {
            *requests = JoinSet::new();
        }
    }
}

async fn ask(client: ProbeClient, patience: Duration) -> Option<String> {
    let began = Instant::now();
    let reply = client.get("/healthz", AfterReply::Close, began + patience).await.ok()?;
    let took = humantime::format_duration(Duration::from_millis(u64::try_from(began.elapsed().as_millis()).ok()?));
    Some(format!("GET /healthz answered {} only after {took}, later than a probe waits", reply.describe()))
}
