//! What one look at the gateway's port saw.

use super::Moved;
use crate::prelude::*;
use core::fmt;
use serde::{Deserialize, Serialize};

/// How far a gateway that answers has come, from `/startupz`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Phase {
    /// `/startupz` answered 503 `starting`.
    Starting,
    /// `/startupz` answered 200 `started`.
    Started,
    /// `/startupz` gave no such JSON: a release before 2026.8, where `/healthz` is all there is.
    Unknown,
}

/// The verdict of one probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Verdict {
    /// Connections to the port are refused.
    Free,
    /// As [`Verdict::Free`], but a living gateway holds the state directory's lock: it boots, or ends. Looked for only
    /// before a spawn.
    Booting,
    /// `/healthz` answered 200 with `ok: true` and `status: "live"`.
    Gateway(Phase),
    /// As [`Verdict::Gateway`], and `/startupz` answered 503 `draining`.
    Draining,
    /// Connections are accepted but not answered in time: a frozen or very busy gateway, or no HTTP server.
    Silent,
    /// A complete HTTP answer, whatever its status and body, but not that of a healthy gateway. From our own gateway it is a
    /// sign of life: its event loop turns.
    Foreign,
    /// Bytes that are no HTTP answer, or a TLS handshake that failed.
    Malformed,
    /// The probe itself could not run (no descriptors, no memory): it says nothing about the port.
    Inconclusive,
}

impl Verdict {
    /// The word of the event log.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Free => "free",
            Self::Booting => "booting",
            Self::Gateway(_) => "gateway",
            Self::Draining => "draining",
            Self::Silent => "silent",
            Self::Foreign => "foreign",
            Self::Malformed => "malformed",
            Self::Inconclusive => "inconclusive",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A process that holds the port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Its process id.
    pub pid: i32,
    /// Its command line, or its name where it has none.
    pub command: String,
    /// Its user id, where it can be seen.
    pub uid: Option<u32>,
}

/// The process that listens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Owner {
    /// Not looked for, no listener, or not visible from here (hidepid, another pid namespace).
    Unseen,
    /// As [`Owner::Unseen`], but the socket belongs to this other user. It may be our child all the same: COMMAND may switch
    /// users.
    Hidden {
        /// Its user id.
        uid: u32,
    },
    /// The child that the probe was about, or a descendant of it.
    Ours(Holder),
    /// Another process.
    Other(Holder),
}

/// What `/readyz` says. It is shown, and decides nothing: one broken channel account keeps it at 503.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether all is well.
    pub ready: bool,
    /// What is not, or how the answer came about.
    pub detail: String,
}

/// All that one probe brings back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Observation {
    /// What is there.
    pub verdict: Verdict,
    /// The listener, if the probe looked for it.
    pub owner: Owner,
    /// One lower-case phrase that tells how the verdict came about, such as `GET /healthz answered 200 text/html`.
    pub detail: String,
    /// What `/readyz` says, where it was asked.
    pub readiness: Option<Readiness>,
    /// Where all this was seen, if not at the endpoint that the core knows.
    pub moved: Option<Moved>,
}

impl Observation {
    /// The process that holds the port, where it was seen.
    #[must_use]
    pub fn holder(&self) -> Option<&Holder> {
        match &self.owner {
            Owner::Unseen | Owner::Hidden { .. } => None,
            Owner::Ours(holder) | Owner::Other(holder) => Some(holder),
        }
    }

    /// The user of that process, which may be known where the process is not.
    #[must_use]
    pub fn holder_uid(&self) -> Option<u32> {
        match self.owner {
            Owner::Hidden { uid } => Some(uid),
            Owner::Ours(_) | Owner::Other(_) | Owner::Unseen => self.holder().and_then(|holder| holder.uid),
        }
    }
}
