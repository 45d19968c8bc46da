//! The search for a gateway that a predecessor left.

use crate::core::event::Remains;
use crate::core::{LeftRecord, Owner, TreeRecord, Verdict};
use crate::gateway::adopt::{self, Found};
use crate::gateway::probe::{Look, Prober};
use crate::gateway::process::Launch;
use std::io;
use tokio::sync::Mutex;

/// Looks for the gateway of a record, or for one without a record. Then `instance` and `tree` are what is known of the gateway
/// that may have left it.
pub(super) async fn find(
    left: Option<LeftRecord>,
    launch: &Launch,
    prober: &Prober,
    instance: &str,
    tree: &Mutex<TreeRecord>,
) -> io::Result<Found> {
    let look = async || prober.look(Look::AnswersAndOwner { leader: None }).await;
    let is_named = left.as_ref().is_some_and(|left| left.pid.is_some());
    let holder = match if is_named { Owner::Unseen } else { look().await.owner } {
        Owner::Ours(holder) => Some(holder.pid),
        Owner::Other(_) | Owner::Unseen | Owner::Hidden { .. } => None,
    };
    let Some(left) = left else {
        // Without the lock: another look at the members need not wait.
        let known = tree.lock().await.clone();
        return adopt::find_by_key(launch, holder, instance, &known).await;
    };
    let found = adopt::find(&left, launch, holder).await?;
    if !is_named || !matches!(found.remains(), Remains::Orphans { .. }) {
        return Ok(found);
    }
    // A gateway that serves is no orphan.
    let seen = look().await;
    match seen.holder().filter(|_| matches!(seen.verdict, Verdict::Gateway(_))) {
        Some(server) => adopt::find(&left, launch, Some(server.pid)).await,
        None => Ok(found),
    }
}
