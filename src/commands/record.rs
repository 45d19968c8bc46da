//! What `status`, `events` and `explain` read from the store. No other command knows its schema.

use crate::core::Settled;
use crate::core::lease::Life;
use crate::core::report::Severity;
use crate::host::clock;
use crate::platform::claim::{self, Claimant};
use crate::platform::{machine, proc};
use crate::store::{self, EventRow, GenerationRecord, LeaseOwner, StoreError, StoreReader};
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// An entry of the event log.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Entry {
    pub(super) id: i64,
    pub(super) at_ms: i64,
    pub(super) name: String,
    /// `None` in a record of a version that did not keep it, as below.
    pub(super) level: Option<Severity>,
    /// The sentence.
    pub(super) message: Option<String>,
    /// As in the log; the generation, if any, first.
    pub(super) fields: Map<String, Value>,
}

impl Entry {
    pub(super) fn generation(&self) -> Option<u64> {
        self.number("generation")
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.fields.get(name)?.as_u64()
    }

    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.fields.get(name)?.as_str()
    }

    /// A member that is a list of texts.
    pub(super) fn texts(&self, name: &str) -> Vec<&str> {
        let list = self.fields.get(name).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(Value::as_str).collect()
    }

    /// For a person: its sentence, else its members.
    pub(super) fn sentence(&self) -> String {
        self.message.clone().unwrap_or_else(|| {
            let word = |value: &Value| match value.as_str() {
                Some(text)
                    if !text.is_empty() && text.chars().all(|c| c.is_ascii_graphic() && c != '"' && c != '=') =>
                {
                    text.to_owned()
                }
                _ => value.to_string(),
            };
            let members = self.fields.iter().map(|(name, value)| format!("{name}={}", word(value)));
            members.collect::<Vec<_>>().join(" ")
        })
    }

    /// The object that the log had.
    pub(super) fn object(&self) -> Value {
        let mut object = Map::new();
        object.insert("event".to_owned(), self.name.as_str().into());
        object.insert("at".to_owned(), clock::stamp_of(self.at_ms).into());
        object.extend(self.level.map(|level| ("level".to_owned(), level.name().into())));
        object.extend(self.message.as_ref().map(|message| ("message".to_owned(), message.as_str().into())));
        object.extend(self.fields.clone());
        Value::Object(object)
    }
}

/// The supervisor that took the lease last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct LastOwner {
    pub(super) pid: Option<i32>,
    pub(super) host: Option<String>,
    pub(super) epoch: u64,
    pub(super) since: Option<i64>,
    /// Where heartbeats show that it lives.
    pub(super) heartbeat_at: Option<i64>,
    pub(super) released: bool,
    pub(super) life: Life,
    /// Whether its pid is one of our own boot and pid namespace.
    pub(super) is_here: bool,
    /// Where its gateway listens: the host as in a URL, and the port.
    pub(super) place: Option<(String, u16)>,
}

/// The latest gateway.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RecordedGateway {
    pub(super) generation: u64,
    pub(super) pid: Option<i32>,
    /// Since its start was decided.
    pub(super) age: Option<Duration>,
    /// Whether its process lives, as far as that can be seen from here.
    pub(super) life: Life,
    /// Such as `with exit code 1`; `None` if no end is recorded.
    pub(super) end: Option<String>,
    pub(super) ended_at: Option<i64>,
}

/// What shows of a supervisor that does not answer on its socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum OwnerSeen {
    /// No lock, no claim, and nothing of it in the record.
    Nowhere,
    /// Its process lives here.
    Here,
    /// It lives on another machine or in another pid namespace: certainly if it holds the lock, else as far as its record
    /// tells.
    Elsewhere { is_locked: bool },
    /// It holds the lock, and the record does not name it.
    Unnamed,
    /// It claims this port for this directory, and the record there does not name it. `is_locked`: it has the lock there again,
    /// or already.
    ClaimOnly { pid: Option<i32>, port: u16, is_locked: bool },
    /// The port is claimed by a supervisor with another directory; `None` if it does not name that.
    OtherStore { pid: Option<i32>, port: u16, dir: Option<PathBuf> },
}

/// How long a supervisor may take to name its directory: its loop never waits.
const FOLDER_TIME_MAX: Duration = Duration::from_millis(500);

impl OwnerSeen {
    /// Looks at the lock in this directory and the claims on ports. `port` is that of the gateway, as far as it is known.
    pub(super) async fn look(store_dir: &Path, owner: Option<&LastOwner>, port: u16) -> Self {
        let is_locked = store::is_locked(store_dir) == Some(true);
        match owner.filter(|owner| !owner.released).map(|owner| owner.life) {
            Some(Life::Alive) => Self::Here,
            Some(Life::Unknown) => Self::Elsewhere { is_locked },
            Some(Life::Gone(_)) | None => match Self::of_claims(store_dir, port).await {
                Self::ClaimOnly { pid, port, .. } => Self::ClaimOnly { pid, port, is_locked },
                Self::Nowhere | Self::OtherStore { .. } if is_locked => Self::Unnamed,
                seen => seen,
            },
        }
    }

    /// Where the directory was removed or replaced, its supervisor still claims a port, and says for which directory.
    async fn of_claims(store_dir: &Path, port: u16) -> Self {
        let trusted = |port| claim::peek(port).ok().flatten().filter(Claimant::is_trusted);
        let mut other = Self::Nowhere;
        for claimed in claim::ports().into_iter().filter(|claimed| *claimed != port).chain([port]) {
            let Some(Claimant { by: pid, .. }) = trusted(claimed) else { continue };
            let dir = claim::folder_of(claimed, FOLDER_TIME_MAX).await.ok().flatten();
            if dir.as_deref() == Some(store_dir) {
                return Self::ClaimOnly { pid, port: claimed, is_locked: false };
            }
            if claimed == port {
                other = Self::OtherStore { pid, port, dir };
            }
        }
        other
    }

    /// Why it cannot be asked, in words; `None` if there is none.
    pub(super) fn trouble(&self, store_dir: &Path) -> Option<String> {
        let here = store_dir.display();
        match self {
            Self::Nowhere => None,
            Self::Here => Some("it has no control socket; its log says why".to_owned()),
            Self::Elsewhere { is_locked: true } => Some("it holds the lock and cannot be asked from here".to_owned()),
            Self::Elsewhere { is_locked: false } => {
                Some("it has not released the lease and cannot be asked from here".to_owned())
            }
            Self::Unnamed => Some(format!("a supervisor holds the lock in {here} and has no control socket there yet")),
            Self::ClaimOnly { port, is_locked: true, .. } => {
                Some(format!("it claims port {port} and has no control socket in {here} yet"))
            }
            Self::ClaimOnly { port, is_locked: false, .. } => Some(format!(
                "it claims port {port}, and has no control socket in {here} now: the directory was removed or replaced; \
                 the socket is back within a minute"
            )),
            Self::OtherStore { pid, port, dir } => {
                let pid = pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default();
                Some(match dir {
                    Some(dir) => {
                        format!("a supervisor{pid} with the store directory {} claims port {port}", dir.display())
                    }
                    None => format!("a supervisor{pid} claims port {port} and has no control socket in {here}"),
                })
            }
        }
    }
}

/// An open store.
pub(super) struct StoreRecord(StoreReader);

impl StoreRecord {
    /// Opens it, if there is one.
    pub(super) fn open(store_dir: &Path) -> Result<Option<Self>, String> {
        StoreReader::open(store_dir).map(|reader| reader.map(Self)).map_err(|error| error.to_string())
    }

    /// The last `count` entries, oldest first.
    pub(super) fn last(&self, count: u32) -> Result<Vec<Entry>, String> {
        entries(self.0.events_last(count))
    }

    /// The first `limit` entries after the one with this id, oldest first.
    pub(super) fn after(&self, id: i64, limit: u32) -> Result<Vec<Entry>, String> {
        entries(self.0.events_after(id, limit))
    }

    /// What cannot be read is not known.
    pub(super) fn owner(&self) -> Option<LastOwner> {
        self.0.lease().ok().flatten().map(owner)
    }

    /// As above.
    pub(super) fn gateway(&self) -> Option<RecordedGateway> {
        let owner = self.0.lease().ok().flatten();
        self.0.youngest().ok().flatten().map(|record| self.judge(&record, owner.as_ref()))
    }

    fn judge(&self, record: &GenerationRecord, owner: Option<&LeaseOwner>) -> RecordedGateway {
        let died = record.died.map(|(death, at)| (format!("with {death}"), at.wall_ms));
        let end = match (died, record.settled) {
            (Some(died), _) => Some(died),
            (None, Some((Settled::NeverStarted | Settled::Postponed, at))) => {
                Some(("before it had a process".to_owned(), at.wall_ms))
            }
            // Nothing saw its end.
            (None, Some((Settled::Ran(..), _)) | None) => None,
        };
        RecordedGateway {
            generation: record.generation,
            pid: record.pid,
            age: self.0.age(record),
            life: match (&end, record.settled) {
                (Some(_), _) => Life::Gone("its end is on record"),
                (None, Some(_)) => Life::Unknown,
                (None, None) => life_of(record, owner),
            },
            ended_at: end.as_ref().map(|(_, at)| *at),
            end: end.map(|(how, _)| how),
        }
    }
}

/// What can be seen of its leader. Its pid is valid where the supervisor runs that started or adopted it last.
fn life_of(record: &GenerationRecord, owner: Option<&LeaseOwner>) -> Life {
    let is_same_boot = record.boot_id.is_some() && record.boot_id == machine::boot_id();
    let its_own = owner.filter(|owner| owner.row.identity.owner.as_ref() == Some(&record.owner));
    let is_here = its_own.map_or(is_same_boot, |owner| owner.is_here);
    let leads = |pid| proc::stat(pid).is_ok_and(|stat| !stat.is_dead() && Some(stat.start_time) == record.start_time);
    let may_live = |owner: &LeaseOwner| !matches!(owner.alive, Life::Gone(_)) || owner.may_leave_unseen;
    if is_here && record.pid.is_some_and(leads) {
        Life::Alive
    } else if !is_here && its_own.is_some_and(may_live) {
        Life::Unknown
    } else {
        Life::Gone("its process no longer exists")
    }
}

fn entries(rows: Result<Vec<EventRow>, StoreError>) -> Result<Vec<Entry>, String> {
    rows.map(|rows| rows.into_iter().map(entry).collect()).map_err(|error| error.to_string())
}

fn entry(row: EventRow) -> Entry {
    let mut fields = Map::new();
    // The column counts: a supervisor that found another number in the store gave it there.
    if let Some(generation) = row.generation {
        fields.insert("generation".to_owned(), generation.into());
    }
    let (mut level, mut message) = (None, None);
    for (name, value) in serde_json::from_str::<Map<String, Value>>(&row.fields).unwrap_or_default() {
        match (name.as_str(), &value) {
            ("level", Value::String(name)) => level = Severity::named(name),
            ("message", Value::String(text)) => message = Some(text.clone()),
            _ => drop(fields.entry(name).or_insert(value)),
        }
    }
    Entry { id: row.id, at_ms: row.at_ms, name: row.name, level, message, fields }
}

fn owner(tenant: LeaseOwner) -> LastOwner {
    let LeaseOwner { row, alive: life, is_here, heartbeat_at, .. } = tenant;
    LastOwner {
        pid: row.identity.pid,
        host: row.identity.host,
        epoch: row.epoch,
        since: row.acquired_at,
        heartbeat_at,
        is_here,
        released: row.released,
        life,
        place: row.place,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_of_the_column_counts_and_comes_first() {
        let row = |generation, fields: &str| EventRow {
            id: 1,
            at_ms: 2,
            name: "x".to_owned(),
            generation,
            fields: fields.to_owned(),
        };
        let text = |row| Value::Object(entry(row).fields).to_string();
        assert_eq!(text(row(Some(7), r#"{"pid":1,"generation":3}"#)), r#"{"generation":7,"pid":1}"#);
        assert_eq!(text(row(None, r#"{"pid":1}"#)), r#"{"pid":1}"#);
        assert_eq!(text(row(None, "nonsense")), "{}");
    }

    #[test]
    fn an_entry_has_its_sentence_or_its_members_and_is_the_object_that_the_log_had() {
        let entry = |fields: &str| {
            entry(EventRow { id: 1, at_ms: 5, name: "x".to_owned(), generation: Some(3), fields: fields.to_owned() })
        };
        let new = entry(r#"{"level":"warn","message":"it is so","generation":3,"why":"a b"}"#);
        assert_eq!((new.level, new.sentence().as_str()), (Some(Severity::Warning), "it is so"));
        let at = "1970-01-01T00:00:00.005Z";
        let object =
            format!(r#"{{"event":"x","at":"{at}","level":"warn","message":"it is so","generation":3,"why":"a b"}}"#);
        assert_eq!(new.object().to_string(), object);
        let old = entry(r#"{"generation":3,"why":"a b","a":"","b":"x=y","c":[1,"z"]}"#);
        assert_eq!((old.level, old.sentence().as_str()), (None, r#"generation=3 why="a b" a="" b="x=y" c=[1,"z"]"#));
        assert_eq!(
            old.object().to_string(),
            format!(r#"{{"event":"x","at":"{at}","generation":3,"why":"a b","a":"","b":"x=y","c":[1,"z"]}}"#)
        );
    }
}
