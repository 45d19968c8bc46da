//! Requests a URL while the gateway is healthy, so that a service elsewhere alarms when nothing comes any more.

use super::super::input::Input;
use super::delivery::targets;
use crate::core::Status;
use crate::host::control::Query;
use crate::host::webhook::{TargetSource, Webhooks};
use crate::platform::random;
use std::time::Duration;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, sleep_until, timeout};

/// The first look after the start, and the longest time between two while the gateway is not healthy.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How long the loop may take to answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// Runs until the runtime ends. `woken` hears of each gateway that is up.
pub(super) async fn run(
    webhooks: Webhooks,
    source: TargetSource,
    interval: Duration,
    inputs: mpsc::Sender<Input>,
    mut woken: mpsc::Receiver<()>,
) {
    let mut trouble = None;
    let mut due = Instant::now() + LOOK_EVERY.min(interval);
    loop {
        tokio::select! {
            () = sleep_until(due) => {}
            woken = woken.recv() => if woken.is_none() { return },
        }
        // A loop that does not answer is no healthy supervisor.
        let is_healthy = status(&inputs)
            .await
            .is_some_and(|status| status.state == "running" && status.gateway.is_some_and(|gateway| gateway.healthy));
        let began = Instant::now();
        if is_healthy {
            // Many supervisors that started at the same time, after a power failure, do not ask at the same time.
            jitter(interval / 20).await;
            let now = beat(&webhooks, &source).await.err();
            tell(trouble.as_ref(), now.as_ref());
            trouble = now;
            due = began + interval;
        } else {
            due = began + LOOK_EVERY.min(interval);
        }
    }
}

async fn beat(webhooks: &Webhooks, source: &TargetSource) -> Result<(), String> {
    for target in targets(source).await? {
        webhooks.ping(&target).await.map_err(|error| format!("{target}: {error}"))?;
    }
    Ok(())
}

/// Tells the first failure in a row, and its end.
fn tell(before: Option<&String>, now: Option<&String>) {
    match (before, now) {
        (None, Some(error)) => {
            tracing::warn!("cannot send the heartbeat: {error}; it is tried again each time it is due");
        }
        (Some(_), None) => tracing::info!("the heartbeat is sent again"),
        (Some(_), Some(_)) | (None, None) => {}
    }
}

/// The status of the loop; `None` if it does not answer.
pub(super) async fn status(inputs: &mpsc::Sender<Input>) -> Option<Status> {
    let (sender, answer) = oneshot::channel();
    let ask = async {
        inputs.send(Query::Status(sender).into()).await.ok()?;
        answer.await.ok()
    };
    timeout(ANSWER_TIME_MAX, ask).await.ok().flatten()
}

/// Waits a random part of this time.
async fn jitter(longest: Duration) {
    let part = u32::try_from(random::bits() % 1000).unwrap_or(0);
    sleep(longest * part / 1000).await;
}
