//! One store: its lease, the supervisor behind its socket, and the gateway on record.

use crate::commands::record::{Entry, LastOwner, StoreRecord};
use crate::core::lease::Life;
use crate::host::control::{self, Connection, ConnectionError, StatusReply};
use crate::platform::claim;
use crate::store;
use nix::unistd::User;
use serde_json::Value;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

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

/// The last line of a supervisor that ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct Ended {
    pub(in super::super) at_ms: i64,
    pub(in super::super) code: u8,
    pub(in super::super) reason: String,
}

/// What the events on record say about now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in super::super) struct Past {
    /// How the last supervisor ended, if none was started since.
    pub(in super::super) ended: Option<Ended>,
    /// When and why one gave up, if no gateway came up since.
    pub(in super::super) gave_up: Option<(i64, String)>,
    /// Since when the gateway is not ready, and what it says now.
    pub(in super::super) unready: Option<(i64, String)>,
    /// When the last event was recorded.
    pub(in super::super) newest: Option<i64>,
}

/// The most events that are read: a day of a gateway that fails all the time.
const EVENTS_MAX: u32 = 1000;

impl Past {
    fn of(entries: &[Entry]) -> Self {
        let mut this = Self { newest: entries.iter().map(|entry| entry.at_ms).max(), ..Self::default() };
        for entry in entries {
            let text = |member: &str| entry.fields.get(member).and_then(Value::as_str).unwrap_or_default().to_owned();
            match entry.name.as_str() {
                "supervisor.started" => this.ended = None,
                "supervisor.stopped" => {
                    let code = entry.fields.get("exit_code").and_then(Value::as_u64);
                    let code = code.and_then(|code| u8::try_from(code).ok()).unwrap_or_default();
                    this.ended = Some(Ended { at_ms: entry.at_ms, code, reason: text("reason") });
                }
                "restart.gave_up" => this.gave_up = Some((entry.at_ms, text("why"))),
                "gateway.started" | "gateway.adopted" => this.gave_up = None,
                "gateway.spawned" | "gateway.exited" => this.unready = None,
                "readiness.changed" if entry.fields.get("ready") == Some(&Value::Bool(true)) => this.unready = None,
                "readiness.changed" => {
                    let since = this.unready.take().map_or(entry.at_ms, |(since, _)| since);
                    this.unready = Some((since, text("detail")));
                }
                _ => {}
            }
        }
        this
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct StoreFacts {
    pub(in super::super) dir: PathBuf,
    pub(in super::super) socket: SocketFacts,
    pub(in super::super) lease: LeaseFacts,
    /// What the supervisor says: the owner, else the first one in standby.
    pub(in super::super) reply: Option<Box<StatusReply>>,
    /// The leader of the youngest gateway on record, if it is alive.
    pub(in super::super) gateway: Option<i32>,
    /// The owner that did not release the lease and is gone, and how that shows.
    pub(in super::super) lost: Option<(Option<i32>, &'static str)>,
    /// Where the last owner's gateway listened: the host as in a URL, and the port.
    pub(in super::super) place: Option<(String, u16)>,
    pub(in super::super) past: Past,
    /// The socket's file of a supervisor that is gone.
    pub(in super::super) stale_socket: Option<PathBuf>,
    /// The mode of the directory, and its owner.
    pub(in super::super) mode: Option<(u32, u32)>,
}

impl StoreFacts {
    pub(in super::super) async fn gather(store_dir: &Path) -> Self {
        let (mut socket, mut reply) = socket(store_dir).await;
        if socket == SocketFacts::Absent
            && let Some((pid, standby)) = Connection::standbys(store_dir).await.into_iter().next()
        {
            socket = if standby.supervisor.state == "silent" {
                SocketFacts::Failed { pid, why: ConnectionError::Silent { pid }.to_string() }
            } else {
                SocketFacts::Answers { pid, state: standby.supervisor.state.clone() }
            };
            reply = Some(Box::new(standby)).filter(|reply| reply.supervisor.state != "silent");
        }
        if let SocketFacts::Forbidden(user) = &socket {
            return Self::forbidden(store_dir, user);
        }
        let record = StoreRecord::open(store_dir);
        let opened = record.as_ref().ok().and_then(Option::as_ref);
        let owner = opened.and_then(StoreRecord::owner);
        let gateway = opened.and_then(StoreRecord::gateway);
        let lease = match &record {
            Err(why) => LeaseFacts::Unreadable(why.clone()),
            Ok(_) => match lease(owner.as_ref()) {
                // The record does not name its owner, or that of another machine.
                LeaseFacts::Unused | LeaseFacts::Free if store::is_locked(store_dir) == Some(true) => {
                    LeaseFacts::Held { pid: None, life: Life::Unknown }
                }
                lease => lease,
            },
        };
        let is_free = matches!(lease, LeaseFacts::Unused | LeaseFacts::Free);
        let lost = owner.as_ref().filter(|owner| is_free && !owner.released).and_then(|owner| match owner.life {
            Life::Gone(why) => Some((owner.pid, why)),
            Life::Alive | Life::Unknown => None,
        });
        Self {
            // Where there is no record it may be that of another program.
            stale_socket: stale_socket(store_dir)
                .filter(|_| lease == LeaseFacts::Free && socket == SocketFacts::Absent),
            dir: store_dir.to_owned(),
            socket,
            lease,
            reply,
            gateway: gateway.filter(|gateway| gateway.life == Life::Alive).and_then(|gateway| gateway.pid),
            lost,
            place: owner.and_then(|owner| owner.place),
            past: opened
                .and_then(|record| record.last(EVENTS_MAX).ok())
                .map(|last| Past::of(&last))
                .unwrap_or_default(),
            mode: fs::metadata(store_dir)
                .ok()
                .filter(fs::Metadata::is_dir)
                .map(|meta| (meta.mode() & 0o7777, meta.uid())),
        }
    }

    /// A store that only `user` may access.
    pub(in super::super) fn forbidden(store_dir: &Path, user: &str) -> Self {
        let (socket, lease) = (SocketFacts::Forbidden(user.to_owned()), LeaseFacts::Forbidden(user.to_owned()));
        Self { dir: store_dir.to_owned(), ..Self::empty(socket, lease) }
    }

    pub(in super::super) fn empty(socket: SocketFacts, lease: LeaseFacts) -> Self {
        Self {
            dir: PathBuf::new(),
            socket,
            lease,
            reply: None,
            gateway: None,
            lost: None,
            place: None,
            past: Past::default(),
            stale_socket: None,
            mode: None,
        }
    }

    /// The pid of a live supervisor.
    pub(in super::super) fn running(&self) -> Option<i32> {
        match (&self.socket, &self.lease) {
            (SocketFacts::Answers { pid: Some(pid), .. } | SocketFacts::Failed { pid: Some(pid), .. }, _)
            | (_, LeaseFacts::Held { pid: Some(pid), life: Life::Alive }) => Some(*pid),
            _ => None,
        }
    }

    /// The URL of the gateway, as its supervisor knows it: a port in the gateway's command stands in no file.
    pub(in super::super) fn url(&self) -> Option<&str> {
        self.reply.as_ref().map(|reply| reply.supervisor.url.as_str())
    }
}

/// How long a supervisor may take to name its directory: its loop never waits.
const FOLDER_TIME_MAX: Duration = Duration::from_millis(500);

/// The store of a supervisor that runs here, whatever its settings: it claims a port, and says for which directory.
pub(in super::super) async fn claimed() -> Option<PathBuf> {
    for port in claim::ports() {
        let is_trusted = claim::peek(port).ok().flatten().is_some_and(|claimant| claimant.is_trusted());
        if is_trusted && let Some(dir) = claim::folder_of(port, FOLDER_TIME_MAX).await.ok().flatten() {
            return Some(dir);
        }
    }
    None
}

/// The file is enough: the next owner makes its own.
fn stale_socket(store_dir: &Path) -> Option<PathBuf> {
    let path = store_dir.join(control::NAME);
    fs::symlink_metadata(&path).is_ok_and(|meta| meta.file_type().is_socket()).then_some(path)
}

async fn socket(store_dir: &Path) -> (SocketFacts, Option<Box<StatusReply>>) {
    match Connection::status(store_dir).await {
        Ok((connection, reply)) => {
            let pid = connection.pid().or(reply.supervisor.pid);
            (SocketFacts::Answers { pid, state: reply.supervisor.state.clone() }, Some(Box::new(reply)))
        }
        Err(ConnectionError::Absent) => (SocketFacts::Absent, None),
        Err(ConnectionError::Forbidden) if let Some(user) = other_owner(store_dir) => {
            (SocketFacts::Forbidden(user), None)
        }
        Err(ConnectionError::Silent { pid }) => {
            let why = ConnectionError::Silent { pid }.to_string();
            (SocketFacts::Failed { pid, why }, None)
        }
        Err(error) => (SocketFacts::Failed { pid: None, why: error.to_string() }, None),
    }
}

/// The user that a store belongs to, or what can be seen of its path, if that is not this one.
fn other_owner(store_dir: &Path) -> Option<String> {
    let uid = store_dir.ancestors().find_map(|place| fs::metadata(place).ok())?.uid();
    let name = || User::from_uid(uid.into()).ok().flatten().map_or_else(|| format!("uid {uid}"), |user| user.name);
    (uid != rustix::process::geteuid().as_raw()).then(name)
}

fn lease(owner: Option<&LastOwner>) -> LeaseFacts {
    match owner {
        None => LeaseFacts::Unused,
        Some(owner) if owner.released || matches!(owner.life, Life::Gone(_)) => LeaseFacts::Free,
        Some(owner) => LeaseFacts::Held { pid: owner.pid, life: owner.life },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn past(events: &[(&str, Value)]) -> Past {
        let entry = |(at, (name, fields)): (i64, &(&str, Value))| Entry {
            id: at,
            at_ms: at,
            name: (*name).to_owned(),
            level: None,
            message: None,
            fields: fields.as_object().cloned().unwrap_or_default(),
        };
        Past::of(&(1..).zip(events).map(entry).collect::<Vec<_>>())
    }

    #[test]
    fn only_what_still_holds_is_told_of_the_past() {
        let stopped = ("supervisor.stopped", json!({"exit_code": 69, "reason": "spent"}));
        let gave_up = ("restart.gave_up", json!({"why": "six of six"}));
        let unready = |detail: &str| ("readiness.changed", json!({"ready": false, "detail": detail}));
        let bare = |name| (name, json!({}));
        let end = past(&[gave_up.clone(), stopped.clone()]);
        assert_eq!(end.ended, Some(Ended { at_ms: 2, code: 69, reason: "spent".to_owned() }));
        assert_eq!((end.gave_up, end.newest), (Some((1, "six of six".to_owned())), Some(2)));
        let again = past(&[gave_up.clone(), stopped, bare("supervisor.started")]);
        assert_eq!((again.ended, again.gave_up.is_some()), (None, true));
        assert_eq!(past(&[gave_up, bare("gateway.started")]).gave_up, None);
        let both = past(&[bare("gateway.spawned"), unready("a"), unready("b")]);
        assert_eq!(both.unready, Some((2, "b".to_owned())), "since the first, with the last detail");
        for over in [("readiness.changed", json!({"ready": true})), bare("gateway.exited")] {
            assert_eq!(past(&[unready("a"), over]).unready, None);
        }
    }
}
