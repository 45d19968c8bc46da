//! Whether the gateway is supervised: what a container runtime has to know before it kills us. A gateway that is down is
//! being restarted; a hung supervisor is not.

use super::super::record::{LastOwner, StoreRecord};
use crate::core::lease::Life;
use crate::host::control::{Connection, ConnectionError};
use std::path::Path;

/// What was found out about the supervisor of a store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Presence {
    /// One word.
    pub(super) verdict: &'static str,
    pub(super) ok: bool,
    pub(super) detail: String,
    pub(super) pid: Option<i32>,
}

/// Asks it, and the record where it cannot be asked from here.
pub(super) async fn look(store_dir: &Path) -> Presence {
    match Connection::status(store_dir).await {
        Ok((connection, reply)) => {
            let detail = format!("its state is {}", reply.supervisor.state);
            Presence { verdict: "answers", ok: true, detail, pid: connection.pid() }
        }
        // One client too many has been told so.
        Err(ConnectionError::Refused(why)) => Presence { verdict: "answers", ok: true, detail: why, pid: None },
        Err(ConnectionError::Absent) => {
            of_record(StoreRecord::open(store_dir).ok().flatten().and_then(|record| record.owner()))
        }
        Err(error @ ConnectionError::Silent { pid }) => {
            Presence { verdict: "silent", ok: false, detail: error.to_string(), pid }
        }
        Err(error @ (ConnectionError::Forbidden | ConnectionError::Broken(_))) => {
            Presence { verdict: "unknown", ok: false, detail: error.to_string(), pid: None }
        }
    }
}

/// Without an answer. An owner in another container or on another machine cannot be asked or seen: then the supervisor
/// here stands by, and has no socket.
fn of_record(owner: Option<LastOwner>) -> Presence {
    let none = |detail: &str| Presence { verdict: "none", ok: false, detail: detail.to_owned(), pid: None };
    let Some(LastOwner { pid, host, life, released: false, .. }) = owner else {
        return none("no supervisor is in charge");
    };
    match life {
        Life::Unknown => {
            let place = host.unwrap_or_else(|| "another place".to_owned());
            Presence { verdict: "elsewhere", ok: true, detail: format!("a supervisor on {place} is in charge"), pid }
        }
        Life::Alive => {
            let detail = "it lives and has no control socket; its log says why".to_owned();
            Presence { verdict: "unheard", ok: true, detail, pid }
        }
        Life::Gone(why) => none(&format!("the last supervisor is gone: {why}")),
    }
}

/// Where the gateway of the supervisor that runs listens, for its command may say so and no file.
pub(super) async fn url(store_dir: &Path) -> Option<String> {
    Connection::status(store_dir).await.ok().map(|(_, reply)| reply.supervisor.url)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn owner(life: Life, released: bool) -> LastOwner {
        let host = Some("pod-1".to_owned());
        LastOwner { pid: Some(1), host, epoch: 3, since: None, released, life, place: None }
    }

    #[test]
    fn who_cannot_be_asked_counts_unless_he_is_known_to_be_gone() {
        for (owner, verdict, ok) in [
            (None, "none", false),
            (Some(owner(Life::Unknown, true)), "none", false),
            (Some(owner(Life::Alive, true)), "none", false),
            (Some(owner(Life::Unknown, false)), "elsewhere", true),
            (Some(owner(Life::Alive, false)), "unheard", true),
            (Some(owner(Life::Gone("its process has exited"), false)), "none", false),
        ] {
            let presence = of_record(owner.clone());
            assert_eq!((presence.verdict, presence.ok), (verdict, ok), "{owner:?}");
        }
    }
}
