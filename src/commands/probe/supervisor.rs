//! Whether the gateway is supervised: what a container runtime has to know before it kills us. A gateway that is down is
//! being restarted; a hung supervisor is not.

use super::super::record::{LastOwner, OwnerSeen, StoreRecord};
use crate::core::lease::Life;
use crate::host::control::{Connection, ConnectionError, StatusReply};
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
pub(super) async fn look(store_dir: &Path, port: u16) -> Presence {
    match Connection::status(store_dir).await {
        Ok((connection, reply)) => {
            let detail = format!("its state is {}", reply.supervisor.state);
            Presence { verdict: "answers", ok: true, detail, pid: connection.pid() }
        }
        // One client too many has been told so.
        Err(ConnectionError::Refused(why)) => Presence { verdict: "answers", ok: true, detail: why, pid: None },
        Err(ConnectionError::Absent) => {
            if let Some((_, StatusReply { supervisor, .. })) = Connection::standbys(store_dir).await.into_iter().next()
            {
                let (ok, detail) = (supervisor.state != "silent", format!("its state is {}", supervisor.state));
                return Presence { verdict: if ok { "answers" } else { "silent" }, ok, detail, pid: supervisor.pid };
            }
            let owner = StoreRecord::open(store_dir).ok().flatten().and_then(|record| record.owner());
            let port = owner.as_ref().and_then(|owner| owner.place.as_ref()).map_or(port, |(_, port)| *port);
            let seen = OwnerSeen::look(store_dir, owner.as_ref(), port).await;
            let trouble = seen.trouble(store_dir);
            match (seen, trouble) {
                (OwnerSeen::Unnamed, Some(detail)) => Presence { verdict: "unheard", ok: true, detail, pid: None },
                (OwnerSeen::ClaimOnly { pid, .. } | OwnerSeen::OtherStore { pid, dir: None, .. }, Some(detail)) => {
                    Presence { verdict: "unheard", ok: true, detail, pid }
                }
                _ => of_record(owner),
            }
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
        let (since, heartbeat_at, is_here, place) = (None, None, false, None);
        LastOwner { pid: Some(1), host, epoch: 3, since, heartbeat_at, released, life, is_here, place }
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
