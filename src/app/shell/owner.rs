//! Asks the supervisor that has the lease or the claim on our port whether it is stopping.

use crate::core::Contested;
use crate::core::event::OwnerPlan;
use crate::host::control::{self, Connection, ConnectionError, ENDING};
use crate::platform::claim;
use crate::platform::thread::BlockingCall;
use std::path::PathBuf;
use std::time::Duration;
use tokio::time::timeout;

/// How long it may take to answer. One that is frozen is not waited for.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);

/// How long a supervisor lives after the end of its loop: it writes its last records.
const LAST_RECORDS_MAX: Duration = Duration::from_secs(5);

/// `store_dir` and `port` are our own.
pub(super) async fn ask(what: Contested, store_dir: PathBuf, port: u16) -> OwnerPlan {
    timeout(ANSWER_TIME_MAX, plan_of(what, store_dir, port)).await.unwrap_or(OwnerPlan::Unknown)
}

async fn plan_of(what: Contested, store_dir: PathBuf, port: u16) -> OwnerPlan {
    let folder = match what {
        Contested::Lease => Some(store_dir),
        Contested::PortClaim => claim::folder_of(port, ANSWER_TIME_MAX).await.ok().flatten(),
    };
    let Some(folder) = folder else { return OwnerPlan::Unknown };
    // A connect(2) walks the path on this thread: it has to answer.
    let socket = folder.join(control::NAME);
    if BlockingCall::default().run(ANSWER_TIME_MAX, move || socket.symlink_metadata().is_ok()).await.is_err() {
        return OwnerPlan::Unknown;
    }
    match Connection::status(&folder).await {
        Ok((_, status)) => match status.supervisor.ends_within_ms {
            Some(within) => OwnerPlan::Ends(Duration::from_millis(within)),
            None => OwnerPlan::Stays,
        },
        Err(ConnectionError::Refused(why)) if why == ENDING => OwnerPlan::Ends(LAST_RECORDS_MAX),
        Err(_) => OwnerPlan::Unknown,
    }
}
