//! What the record says of the past, folded from its last events: the last end, restart, incident and stop, and their causes.

use crate::commands::record::Entry;
use crate::commands::terminal::span;
use crate::core::report::{Severity, human};
use crate::host::clock;
use nix::unistd::{Uid, User};
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::time::Duration;

/// How many events are read: a crash loop writes about ten for each gateway.
pub(super) const EVENTS_READ: u32 = 400;

/// A wall clock time in milliseconds since 1970; RFC 3339 in JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct WallTime(pub(super) i64);

impl Serialize for WallTime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&clock::stamp_of(self.0))
    }
}

/// The end of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LastExit {
    pub(super) generation: u64,
    pub(super) pid: Option<i64>,
    pub(super) at: WallTime,
    pub(super) code: Option<i64>,
    pub(super) signal: Option<i64>,
    pub(super) uptime_ms: Option<u64>,
    /// As in `gateway.exited`, see docs/EVENTS.md.
    pub(super) cause: String,
    /// The line of its output that says why, read back from where that went.
    pub(super) output: Option<String>,
}

/// How the latest gateway came to follow another one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LastRestart {
    /// That of the new gateway.
    pub(super) generation: u64,
    pub(super) at: WallTime,
    /// Completes "restarted": `after 60 s without an answer`.
    pub(super) cause: String,
    /// The requester, if it was requested.
    pub(super) by: Option<String>,
}

/// A gateway for which evidence was to be saved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LastIncident {
    pub(super) generation: u64,
    pub(super) at: WallTime,
    pub(super) event: String,
    pub(super) why: Option<String>,
    pub(super) evidence: Option<String>,
    pub(super) conclusion: Option<String>,
}

/// The end of the last supervisor, if it was recorded and none has started since.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LastStop {
    pub(super) at: WallTime,
    pub(super) exit_code: i64,
    pub(super) reason: String,
    pub(super) by: Option<String>,
}

/// Another process on the port, or another supervisor in charge.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct LastConflict {
    pub(super) at: WallTime,
    pub(super) kind: String,
    pub(super) pid: Option<i64>,
    pub(super) command: Option<String>,
    pub(super) user: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub(super) struct RecordedPast {
    pub(super) exit: Option<LastExit>,
    pub(super) restart: Option<LastRestart>,
    pub(super) incident: Option<LastIncident>,
    pub(super) stop: Option<LastStop>,
    /// Unresolved so far.
    pub(super) conflict: Option<LastConflict>,
    /// Since when no gateway serves; `None` if the latest one is up.
    pub(super) down_since: Option<WallTime>,
    /// Since when the latest gateway has failed its probes, or answered as none.
    pub(super) unhealthy_since: Option<WallTime>,
    /// Since when `/readyz` of the latest gateway names failing checks.
    pub(super) unready_since: Option<WallTime>,
    /// Whether the start that is waited for follows so many failures.
    #[serde(skip)]
    pub(super) is_crash_loop: bool,
    /// Whether a gateway was started of which no end is on record.
    #[serde(skip)]
    may_live: bool,
    #[serde(skip)]
    requester: Option<String>,
    /// How long before the present hang the last answer came.
    #[serde(skip)]
    silence: Option<Duration>,
}

impl RecordedPast {
    /// `entries`: oldest first.
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut past = Self::default();
        for entry in entries {
            past.add(entry);
        }
        past
    }

    fn add(&mut self, entry: &Entry) {
        let at = WallTime(entry.at_ms);
        let text = |name: &str| entry.fields.get(name).and_then(Value::as_str).map(str::to_owned);
        let number = |name: &str| entry.fields.get(name).and_then(Value::as_i64);
        let generation = entry.fields.get("generation").and_then(Value::as_u64).unwrap_or(0);
        let milliseconds = |name: &str| entry.fields.get(name).and_then(Value::as_u64);
        self.note_incident(entry, generation);
        match entry.name.as_str() {
            // A stop that a new supervisor follows was one to start again.
            "supervisor.started" => {
                self.requester = self.stop.take().and_then(|stop| stop.by);
                self.conflict = None;
                if !self.may_live {
                    self.down_since.get_or_insert(at);
                }
            }
            "supervisor.stopped" => {
                let (exit_code, reason) = (number("exit_code").unwrap_or(1), text("reason").unwrap_or_default());
                self.stop = Some(LastStop { at, exit_code, reason, by: self.requester.take() });
                self.down_since.get_or_insert(at);
            }
            "stop.requested" | "restart.requested" | "detach.requested" | "retry.requested" => {
                self.requester = text("by").map(|by| requester(&by, number("by_uid")));
            }
            "conflict.detected" => {
                self.conflict = Some(LastConflict {
                    at,
                    kind: text("kind").unwrap_or_default(),
                    pid: number("holder_pid"),
                    command: text("holder_command"),
                    user: number("holder_uid").map(user_of),
                });
            }
            "conflict.resolved" => self.conflict = None,
            "gateway.hung" => self.silence = milliseconds("last_good_ms").map(Duration::from_millis),
            "gateway.exited" => {
                self.may_live = false;
                self.exit = Some(LastExit {
                    generation,
                    pid: number("pid"),
                    at,
                    code: number("code"),
                    signal: number("signal"),
                    uptime_ms: milliseconds("uptime_ms"),
                    cause: text("cause").unwrap_or_default(),
                    output: None,
                });
                (self.unready_since, self.unhealthy_since) = (None, None);
                self.down_since.get_or_insert(at);
            }
            "restart.scheduled" => self.is_crash_loop = entry.level == Some(Severity::Error),
            "handoff.accepted" => self.learn_plan(generation),
            "liveness.missed" | "liveness.degraded" | "liveness.blocked" => {
                self.unhealthy_since.get_or_insert(at);
            }
            "liveness.recovered" => self.unhealthy_since = None,
            "gateway.spawned" => {
                (self.conflict, self.may_live) = (None, true);
                self.note_start(generation, at);
            }
            // An adopted one goes on.
            "gateway.started" | "gateway.adopted" => {
                (self.conflict, self.down_since, self.unhealthy_since) = (None, None, None);
                self.may_live = true;
                self.note_start(generation, at);
                self.requester = None;
            }
            "readiness.changed" => {
                let is_ready = entry.fields.get("ready").and_then(Value::as_bool) == Some(true);
                self.unready_since = if is_ready { None } else { self.unready_since.or(Some(at)) };
            }
            _ => {}
        }
    }

    fn note_incident(&mut self, entry: &Entry, generation: u64) {
        let text = |name: &str| entry.fields.get(name).and_then(Value::as_str).map(str::to_owned);
        if entry.fields.contains_key("evidence") || entry.name == "gateway.hung" {
            self.incident = Some(LastIncident {
                generation,
                at: WallTime(entry.at_ms),
                event: entry.name.clone(),
                why: text("why"),
                evidence: text("evidence"),
                conclusion: text("conclusion"),
            });
        }
    }

    /// The requester of what is under way.
    pub(super) fn requester(&self) -> Option<&str> {
        self.requester.as_deref()
    }

    fn note_start(&mut self, generation: u64, at: WallTime) {
        match (&mut self.restart, &self.exit) {
            (Some(restart), _) if restart.generation == generation => restart.at = at,
            (_, Some(exit)) if exit.generation < generation => {
                let (cause, by) = (cause_of(exit, self.silence.take()), self.requester.take());
                self.restart = Some(LastRestart { generation, at, cause, by });
            }
            _ => {}
        }
    }

    /// That the gateway before the present one had planned its end is known once the present one serves.
    fn learn_plan(&mut self, generation: u64) {
        if let (Some(restart), Some(exit)) = (&mut self.restart, &self.exit)
            && exit.generation == generation
            && restart.generation > generation
        {
            "as OpenClaw had planned".clone_into(&mut restart.cause);
        }
    }
}

impl LastRestart {
    /// Goes on after the cause. A start that was asked for does not make the crash before it the asker's.
    pub(super) fn requester(&self) -> String {
        let Some(by) = &self.by else { return String::new() };
        let of = if self.cause.ends_with("on request") { " of" } else { ", and started on request of" };
        format!("{of} {by}")
    }
}

/// Completes "restarted".
fn cause_of(exit: &LastExit, silence: Option<Duration>) -> String {
    match exit.cause.as_str() {
        "hung" => match silence {
            Some(silence) => format!("after {} without an answer", span(silence)),
            None => "after it had not come up in time".to_owned(),
        },
        "restart requested" | "requested" => "on request".to_owned(),
        "stop requested" => "after a stop on request".to_owned(),
        "over its memory limit" => "for using more than --memory-max".to_owned(),
        "killed by the kernel OOM killer" => "after the kernel had killed it: out of memory (OOM)".to_owned(),
        "crashed" => format!("after a crash{}", around(exit)),
        "exited with code 0 without a request" => "after it had exited with code 0".to_owned(),
        "refused to start" => "after it had refused to start (exit code 78)".to_owned(),
        other => format!("after its end{}: {other}", around(exit)),
    }
}

impl LastExit {
    /// Whether its output may say why.
    pub(super) fn is_failure(&self) -> bool {
        let is_told =
            ["hung", "over its memory limit", "killed by the kernel OOM killer"].contains(&self.cause.as_str());
        !is_told && !self.cause.contains("requested") && self.code != Some(0)
    }

    /// `gateway 3 crashed (exit code 1), 12 s after its start`.
    pub(super) fn sentence(&self) -> String {
        let Self { generation, uptime_ms, cause, .. } = self;
        let how = around(self);
        let does = match cause.as_str() {
            "hung" => format!("hung and was killed{how}"),
            "crashed" => format!("crashed{how}"),
            "stop requested" | "restart requested" | "requested" => format!("ended on request{how}"),
            "refused to start" => "refused to start (exit code 78)".to_owned(),
            "over its memory limit" => format!("was ended{how} for using more than --memory-max"),
            "killed by the kernel OOM killer" => "was killed by the kernel: out of memory (OOM)".to_owned(),
            "exited with code 0 without a request" => "exited with code 0 without a request".to_owned(),
            "" => format!("ended{how}"),
            other => format!("ended{how}: {other}"),
        };
        let after = uptime_ms.map(|ms| format!(", {} after its start", human(Duration::from_millis(ms))));
        format!("gateway {generation} {does}{}", after.unwrap_or_default())
    }
}

fn around(exit: &LastExit) -> String {
    match (exit.code, exit.signal) {
        (Some(code), _) => format!(" (exit code {code})"),
        (None, Some(signal)) => format!(" (signal {signal}{})", signal_name(signal)),
        (None, None) => String::new(),
    }
}

fn signal_name(number: i64) -> String {
    let signal = i32::try_from(number).ok().and_then(|number| nix::sys::signal::Signal::try_from(number).ok());
    signal.map_or_else(String::new, |signal| format!(", {}", signal.as_str()))
}

/// `by` as the log has it, with the name of the user: `pid 4242 (openclaw-supervise restart), user alice`.
fn requester(by: &str, uid: Option<i64>) -> String {
    let by = match by.strip_prefix("control socket: ").and_then(|rest| rest.split_once(" from ")) {
        Some((_, process)) => process,
        None => by,
    };
    match uid {
        Some(uid) => format!("{by}, user {}", user_of(uid)),
        None => by.to_owned(),
    }
}

/// The name of a user, or its uid.
pub(super) fn user_of(uid: i64) -> String {
    let known = u32::try_from(uid).ok().and_then(|uid| User::from_uid(Uid::from_raw(uid)).ok().flatten());
    known.map_or_else(|| uid.to_string(), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn past(rows: &[(i64, &str, Value)]) -> RecordedPast {
        let entry = |(at_ms, name, fields): &(i64, &str, Value)| Entry {
            id: 0,
            at_ms: *at_ms,
            name: (*name).to_owned(),
            level: None,
            message: None,
            fields: fields.as_object().unwrap().clone(),
        };
        RecordedPast::of(&rows.iter().map(entry).collect::<Vec<_>>())
    }

    #[test]
    fn a_restart_has_the_cause_of_the_end_before_it() {
        let exited = |cause: &str, more: Value| {
            let mut fields = json!({"generation": 1, "pid": 9, "cause": cause, "uptime_ms": 5000});
            fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            (2, "gateway.exited", fields)
        };
        let begun = (1, "gateway.started", json!({"generation": 1, "pid": 9}));
        let next = (3, "gateway.spawned", json!({"generation": 2, "pid": 10}));
        let up = (4, "gateway.started", json!({"generation": 2, "pid": 10}));
        let hung = (1, "gateway.hung", json!({"generation": 1, "last_good_ms": 60_400, "why": "x", "evidence": "/e"}));
        let asked = (
            1,
            "restart.requested",
            json!({"by": "control socket: restart from pid 7 (bash)", "by_uid": 0, "by_pid": 7}),
        );
        let retried = asked.clone();
        for (before, end, cause, by) in [
            (None, exited("crashed", json!({"code": 1})), "after a crash (exit code 1)", None),
            (None, exited("crashed", json!({"signal": 11})), "after a crash (signal 11, SIGSEGV)", None),
            (Some(hung), exited("hung", json!({"signal": 9})), "after 60 s without an answer", None),
            (
                Some(asked),
                exited("restart requested", json!({"code": 0})),
                "on request",
                Some("pid 7 (bash), user root"),
            ),
            (
                Some(retried),
                exited("crashed", json!({"code": 1})),
                "after a crash (exit code 1)",
                Some("pid 7 (bash), user root"),
            ),
        ] {
            let rows: Vec<_> =
                [Some(begun.clone()), before, Some(end), Some(next.clone())].into_iter().flatten().collect();
            let past = past(&rows);
            let restart = past.restart.unwrap();
            assert_eq!((restart.generation, restart.at), (2, WallTime(3)));
            assert_eq!((restart.cause.as_str(), restart.by.as_deref()), (cause, by));
            let joined = if cause == "on request" { " of " } else { ", and started on request of " };
            assert_eq!(restart.requester(), by.map(|by| format!("{joined}{by}")).unwrap_or_default(), "{cause}");
            assert_eq!(past.down_since, Some(WallTime(2)));
        }
        let planned = (5, "handoff.accepted", json!({"generation": 1, "reason": "update"}));
        let exit = exited("exited with code 0 without a request", json!({"code": 0}));
        let past = past(&[begun, exit, next, up, planned]);
        assert_eq!(past.restart.unwrap().cause, "as OpenClaw had planned");
        assert_eq!(past.down_since, None);
    }

    #[test]
    fn a_start_without_a_gateway_is_down_from_its_begin() {
        let begun = |at| (at, "supervisor.started", json!({"pid": 5}));
        let conflict = (3, "conflict.detected", json!({"kind": "foreign", "holder_pid": 8}));
        assert_eq!(past(&[begun(2), conflict.clone()]).down_since, Some(WallTime(2)));
        // One of an earlier supervisor that was killed may serve.
        let up = (1, "gateway.started", json!({"generation": 1, "pid": 9}));
        assert_eq!(past(&[up, begun(2), conflict]).down_since, None);
    }

    #[test]
    fn a_stop_is_that_of_the_last_supervisor_alone() {
        let stopped = (3, "supervisor.stopped", json!({"exit_code": 69, "reason": "gave up"}));
        let asked = (2, "stop.requested", json!({"by": "SIGTERM from pid 1 (systemd)"}));
        let rows = [asked, stopped, (4, "supervisor.started", json!({"pid": 5}))];
        let stop = past(&rows[..2]).stop.unwrap();
        assert_eq!((stop.exit_code, stop.by.as_deref()), (69, Some("SIGTERM from pid 1 (systemd)")));
        assert_eq!(past(&rows).stop, None);
        assert_eq!(past(&rows).down_since, Some(WallTime(3)));
    }
}
