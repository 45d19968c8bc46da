//! One store: its lease, the supervisor behind its socket, and the gateway on record.

use crate::commands::record::StoreRecord;
use crate::core::lease::Life;
use crate::host::control::{Connection, ConnectionError, StatusReply};
use crate::store;
use std::path::Path;

/// The answer on the control socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum SocketFacts {
    Answers {
        pid: Option<i32>,
        state: String,
    },
    /// No socket, or none that is listened on.
    Absent,
    /// Connected, but without a valid answer.
    Failed {
        pid: Option<i32>,
        why: String,
    },
    /// It belongs to this user, who alone may connect.
    Forbidden(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) enum LeaseFacts {
    /// Never taken.
    Unused,
    /// Released, or its owner is gone.
    Free,
    Held {
        pid: Option<i32>,
        life: Life,
    },
    Unreadable(String),
    /// It belongs to this user, who alone may read it.
    Forbidden(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct StoreFacts {
    pub(in super::super) socket: SocketFacts,
    pub(in super::super) lease: LeaseFacts,
    /// The URL of the gateway, as its supervisor knows it: a port in the gateway's command stands in no file.
    pub(in super::super) url: Option<String>,
    /// The leader of the youngest gateway on record, if it is alive.
    pub(in super::super) gateway: Option<i32>,
}

impl StoreFacts {
    pub(in super::super) async fn gather(store_dir: &Path) -> Self {
        let (socket, url) = socket(store_dir).await;
        let (lease, gateway) = match StoreRecord::open(store_dir) {
            Ok(None) => (LeaseFacts::Unused, None),
            Ok(Some(record)) => (
                lease(&record),
                record.gateway().filter(|gateway| gateway.life == Life::Alive).and_then(|gateway| gateway.pid),
            ),
            Err(why) => (LeaseFacts::Unreadable(why), None),
        };
        let lease = match lease {
            // The record does not name its owner, or that of another machine.
            LeaseFacts::Unused | LeaseFacts::Free if store::is_locked(store_dir) == Some(true) => {
                LeaseFacts::Held { pid: None, life: Life::Unknown }
            }
            lease => lease,
        };
        Self { socket, lease, url, gateway }
    }

    /// A store that only `user` may access.
    pub(in super::super) fn forbidden(user: &str) -> Self {
        let (socket, lease) = (SocketFacts::Forbidden(user.to_owned()), LeaseFacts::Forbidden(user.to_owned()));
        Self { socket, lease, url: None, gateway: None }
    }

    /// The pid of a live supervisor.
    pub(in super::super) fn running(&self) -> Option<i32> {
        match (&self.socket, &self.lease) {
            (SocketFacts::Answers { pid: Some(pid), .. } | SocketFacts::Failed { pid: Some(pid), .. }, _)
            | (_, LeaseFacts::Held { pid: Some(pid), life: Life::Alive }) => Some(*pid),
            _ => None,
        }
    }
}

async fn socket(store_dir: &Path) -> (SocketFacts, Option<String>) {
    match Connection::status(store_dir).await {
        Ok((connection, StatusReply { supervisor, .. })) => {
            let pid = connection.pid().or(supervisor.pid);
            (SocketFacts::Answers { pid, state: supervisor.state }, Some(supervisor.url))
        }
        Err(ConnectionError::Absent) => (SocketFacts::Absent, None),
        Err(ConnectionError::Silent { pid }) => {
            let why = ConnectionError::Silent { pid }.to_string();
            (SocketFacts::Failed { pid, why }, None)
        }
        Err(error) => (SocketFacts::Failed { pid: None, why: error.to_string() }, None),
    }
}

fn lease(record: &StoreRecord) -> LeaseFacts {
    match record.owner() {
        None => LeaseFacts::Unused,
        Some(owner) if owner.released || matches!(owner.life, Life::Gone(_)) => LeaseFacts::Free,
        Some(owner) => LeaseFacts::Held { pid: owner.pid, life: owner.life },
    }
}
