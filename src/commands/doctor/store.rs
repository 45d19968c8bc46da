//! What one store tells: who has its lease, whether the supervisor behind its socket answers, and which gateway is on
//! record.

use super::gateway::{Lease, Supervisor};
use crate::commands::record::Record;
use crate::core::lease::Life;
use crate::host::control::{Connection, ConnectionError};
use serde_json::Value;
use std::path::Path;

/// All that it tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Store {
    pub(super) supervisor: Supervisor,
    pub(super) lease: Lease,
    /// Where the supervisor's gateway is: whoever supervises knows the port of the gateway's command, which stands in no
    /// file.
    pub(super) url: Option<String>,
    /// The gateway that lives by our records.
    pub(super) gateway: Option<i32>,
}

impl Store {
    /// Asks the socket and reads the records.
    pub(super) async fn ask(store_dir: &Path) -> Self {
        let (supervisor, url) = supervisor(store_dir).await;
        let (lease, gateway) = match Record::open(store_dir) {
            Ok(None) => (Lease::Unused, None),
            Ok(Some(record)) => {
                (lease(&record), record.gateway().filter(|gateway| gateway.alive).and_then(|gateway| gateway.pid))
            }
            Err(why) => (Lease::Unreadable(why), None),
        };
        Self { supervisor, lease, url, gateway }
    }

    /// One that is not ours to look at.
    pub(super) fn closed(user: &str) -> Self {
        let (supervisor, lease) = (Supervisor::Hidden(user.to_owned()), Lease::Hidden(user.to_owned()));
        Self { supervisor, lease, url: None, gateway: None }
    }

    /// The supervisor's process, if one lives.
    pub(super) fn running(&self) -> Option<i32> {
        match (&self.supervisor, &self.lease) {
            (Supervisor::Answers { pid: Some(pid), .. } | Supervisor::Trouble { pid: Some(pid), .. }, _)
            | (_, Lease::Held { pid: Some(pid), life: Life::Alive }) => Some(*pid),
            _ => None,
        }
    }
}

/// What the supervisor's socket says, and where its gateway is.
async fn supervisor(store_dir: &Path) -> (Supervisor, Option<String>) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    match Connection::ask(store_dir, "status").await {
        Ok((connection, status)) => {
            let pid = connection.pid().or_else(|| i32::try_from(status["supervisor"]["pid"].as_i64()?).ok());
            let state = text(&status["supervisor"]["state"]).unwrap_or_else(|| "it answers".to_owned());
            (Supervisor::Answers { pid, state }, text(&status["supervisor"]["url"]))
        }
        Err(ConnectionError::Absent) => (Supervisor::Absent, None),
        Err(ConnectionError::Silent { pid }) => {
            let why = ConnectionError::Silent { pid }.to_string();
            (Supervisor::Trouble { pid, why }, None)
        }
        Err(error) => (Supervisor::Trouble { pid: None, why: error.to_string() }, None),
    }
}

fn lease(record: &Record) -> Lease {
    match record.owner() {
        None => Lease::Unused,
        Some(owner) if owner.released || matches!(owner.life, Life::Gone(_)) => Lease::Free,
        Some(owner) => Lease::Held { pid: owner.pid, life: owner.life },
    }
}
