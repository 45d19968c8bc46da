//! `restart`, `stop`, `retry-now` and `start-now`: one request to the running supervisor, and its outcome.

use super::outcome::{NOT_RUNNING, RequestOutcome, print};
use super::progress;
use super::record::{LastOwner, OwnerSeen, StoreRecord};
use super::start;
use super::terminal::span;
use crate::core::report::human;
use crate::core::{Request, exit};
use crate::host::clock;
use crate::host::control::{Connection, ConnectionError, PausedReply, StatusReply, asking};
use crate::host::manager::{self, ProcessManager};
use crate::platform::proc;
use crate::settings::{RequestSettings, Subject};
use serde_json::Value;
use std::io;
use std::time::Duration;
use tokio::time::{sleep, timeout};

/// Between two checks of a process that is about to exit.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// What `--force` risks, see "Crash-loop breaker" in OpenClaw's docs/gateway/restart-recovery.md.
const RISK: &str = "--force: with 3 unclean boots within 5 minutes OpenClaw's own crash-loop breaker trips: the gateway comes up with \
                    all channels off until those 5 minutes have passed";

/// The supervisor as it was before the request.
#[derive(Debug, Clone, Default)]
struct Before {
    pid: Option<i32>,
    start_time: Option<u64>,
    generation: u64,
    state: String,
    manager: String,
    /// A requested restart waits for its pace.
    restart_waits: bool,
    /// Until when the supervision is paused.
    paused: Option<PausedReply>,
    /// See [`Subject::options`].
    options: String,
}

/// Asks, waits for the outcome, prints it as one line and returns the exit code. A stop under a service manager first
/// prints how to keep the service down.
pub async fn run(settings: &RequestSettings, out: &mut impl io::Write) -> io::Result<u8> {
    let outcome = match before(&settings.subject).await {
        Ok(before) => {
            if let Some(hint) = hint(settings.request, &before).await {
                print(&hint, out)?;
            }
            if matches!(settings.request, Request::RestartForced | Request::RetryForced) {
                print(RISK, out)?;
            }
            let limit = if before.restart_waits { settings.replacement_timeout } else { settings.timeout };
            let outcome = timeout(limit, pursue(settings, &before, out)).await;
            outcome.unwrap_or_else(|_| Ok(RequestOutcome::bad(too_late(settings, limit))))?
        }
        Err(error) => failure(settings, &error).await,
    };
    print(&outcome.text, out)?;
    Ok(outcome.code)
}

async fn before(subject: &Subject) -> Result<Before, ConnectionError> {
    let (connection, StatusReply { supervisor, generation, restarts, paused, .. }) =
        Connection::status(&subject.store_dir).await?;
    let pid = connection.pid();
    Ok(Before {
        pid,
        start_time: pid.and_then(|pid| proc::stat(pid).ok()).map(|stat| stat.start_time),
        generation: generation.unwrap_or(0),
        state: supervisor.state,
        manager: supervisor.manager.unwrap_or_default(),
        restart_waits: restarts.waiting_ms.is_some(),
        paused,
        options: subject.options.clone(),
    })
}

async fn pursue(settings: &RequestSettings, before: &Before, out: &mut impl io::Write) -> io::Result<RequestOutcome> {
    let (request, store_dir) = (settings.request, settings.subject.store_dir.as_path());
    if let Some(paused) = &before.paused
        // A restart of nothing would only wait.
        && (is_retry(request) || request != Request::Stop && is_waiting(&before.state))
    {
        return Ok(RequestOutcome::paused(paused, &settings.subject.options));
    }
    if is_retry(request) && !is_waiting(&before.state) && !before.restart_waits {
        return Ok(RequestOutcome::good(format!(
            "nothing was waiting: the supervisor is {}",
            before.state.replace('_', " ")
        )));
    }
    let (mut connection, answer) = match Connection::ask_line(store_dir, &asking(request)).await {
        Ok((connection, answer)) if answer["accepted"] == true => (connection, answer),
        Ok((_, answer)) => {
            let told = format!("unexpected answer of a supervisor of another version: {answer}");
            return Ok(RequestOutcome::bad(told));
        }
        Err(error) => return Ok(failure(settings, &error).await),
    };
    if let Some(within) = answer["paced"]["in_ms"].as_u64() {
        let within = Duration::from_millis(within);
        let verb = if before.paused.is_some() { "resume" } else { "restart --force" };
        let now = format!("{verb}{}", settings.subject.options);
        print(&merged(within, answer["paced"]["why"].as_str().unwrap_or_default(), &now), out)?;
        if answer["inside"] == true || within > settings.timeout {
            return Ok(RequestOutcome::good("accepted; its outcome is not waited for"));
        }
    }
    // The end of the tree may wait for this process, which is in it.
    if answer["inside"] == true {
        return Ok(RequestOutcome::good(format!(
            "accepted; you are part of what ends, so the outcome of the {} is not waited for",
            request.name()
        )));
    }
    let waiting = |spent| format!("waiting for the outcome of the {}: {}", request.name(), span(spent));
    Ok(progress::beside(store_dir, waiting, hear(settings, before, &mut connection)).await)
}

/// When a request is served that came too fast.
fn merged(within: Duration, why: &str, now: &str) -> String {
    let time = clock::time_in(within);
    format!(
        "restart merged; at {time} at the latest, in {}, because of {why}; now: openclaw-supervise {now}",
        human(within)
    )
}

/// Waits for the outcome.
async fn hear(settings: &RequestSettings, before: &Before, connection: &mut Connection) -> RequestOutcome {
    let request = settings.request;
    let mut heard = false;
    loop {
        match connection.next().await {
            Ok(Some(report)) => {
                heard |= report["event"] == "stop.requested";
                if let Some(outcome) = judge(request, before, &report) {
                    if request == Request::Stop && outcome.code == exit::OK {
                        // The caller may start the next one at once, which must not find this one.
                        before.end().await;
                    }
                    return outcome;
                }
            }
            // It is exiting, and its last report did not reach us.
            Ok(None) | Err(_) if heard && request == Request::Stop => {
                before.end().await;
                return RequestOutcome::good("the supervisor exited");
            }
            Ok(None) => return RequestOutcome::bad(format!("the supervisor exited during the {}", request.name())),
            Err(error) => return failure(settings, &error).await,
        }
    }
}

fn is_retry(request: Request) -> bool {
    matches!(request, Request::Retry | Request::RetryForced)
}

/// The states in which there is something to wait for.
fn is_waiting(state: &str) -> bool {
    matches!(state, "leasing" | "standby" | "probing" | "backing_off" | "awaiting_word")
}

/// The outcome that a report means for a request. `before.generation` is the latest gateway before it.
fn judge(request: Request, before: &Before, report: &Value) -> Option<RequestOutcome> {
    // A retry that hastens a restart has the outcome of that.
    let tries = is_retry(request) && !before.restart_waits;
    let generation = before.generation;
    let text = |key: &str| report[key].as_str().unwrap_or_default();
    let number = report["generation"].as_u64().unwrap_or(0);
    let milliseconds = |key: &str| Duration::from_millis(report[key].as_u64().unwrap_or(0));
    match (report["event"].as_str().unwrap_or_default(), request) {
        ("supervisor.stopped", Request::Stop) if report["exit_code"] == 0 => {
            Some(RequestOutcome::good(format!("the supervisor exited: {}", text("reason"))))
        }
        ("supervisor.stopped", _) => Some(RequestOutcome::bad(format!(
            "the supervisor exited with code {}: {}",
            report["exit_code"],
            text("reason")
        ))),
        (_, Request::Stop) => None,
        ("restart.gave_up", _) => Some(RequestOutcome::bad(format!("the supervisor gave up: {}", text("why")))),
        ("conflict.detected", _) => {
            let holder = match (report["holder_pid"].as_i64(), text("holder_command")) {
                (Some(pid), command) => format!("pid {pid} ({command})"),
                (None, _) => "a process that cannot be seen from here".to_owned(),
            };
            Some(RequestOutcome::bad(format!("the port is in use ({}) by {holder}; stop that process", text("kind"))))
        }
        ("gateway.started", _) if number > generation || tries => {
            let (pid, boot) = (&report["pid"], human(milliseconds("boot_ms")));
            Some(RequestOutcome::good(format!("gateway {number} (pid {pid}) is up after {boot}")))
        }
        ("gateway.spawned" | "gateway.adopted", _) if tries => {
            let verb = if text("event") == "gateway.spawned" { "started" } else { "adopted" };
            Some(RequestOutcome::good(format!("gateway {number} was {verb}, pid {}", report["pid"])))
        }
        ("gateway.spawn_failed", _) if tries => {
            Some(RequestOutcome::bad(format!("gateway {number} could not be started: {}", text("why"))))
        }
        ("restart.scheduled", _) if tries && report["delay_ms"].as_u64().unwrap_or(0) > 0 => {
            let delay = human(milliseconds("delay_ms"));
            let force = if request == Request::Retry {
                format!("; now: openclaw-supervise retry-now --force{}", before.options)
            } else {
                String::new()
            };
            Some(RequestOutcome::bad(format!("not yet; the next attempt is in {delay}: {}{force}", text("why"))))
        }
        _ => None,
    }
}

impl Before {
    /// Waits until the process is gone. One that cannot be seen from here counts as gone.
    async fn end(&self) {
        let is_there =
            |pid: i32| proc::stat(pid).is_ok_and(|stat| !stat.is_dead() && Some(stat.start_time) == self.start_time);
        while self.pid.is_some_and(is_there) {
            sleep(POLL_EVERY).await;
        }
    }
}

async fn failure(settings: &RequestSettings, error: &ConnectionError) -> RequestOutcome {
    let outcome = unanswered(&settings.subject, settings.port, error).await;
    if settings.starts_service && outcome.code == NOT_RUNNING {
        return start::service_of(&settings.subject, settings.replacement_timeout).await;
    }
    outcome
}

/// Why no supervisor answers, and what to do.
pub(super) async fn unanswered(subject: &Subject, port: u16, error: &ConnectionError) -> RequestOutcome {
    let Subject { store_dir, options, .. } = subject;
    let ConnectionError::Absent = error else { return RequestOutcome::bad(error.to_string()) };
    let standbys = Connection::standbys(store_dir).await;
    if let Some(pid) = standbys.first().and_then(|(pid, standby)| pid.or(standby.supervisor.pid)) {
        return RequestOutcome::bad(format!(
            "the supervisor here is in standby (pid {pid}) and owns no gateway; ask where the owner runs (see \
             `openclaw-supervise status{options}`), or end the standby with `kill {pid}`"
        ));
    }
    let owner = StoreRecord::open(store_dir).ok().flatten().and_then(|record| record.owner());
    let port = owner.as_ref().and_then(|owner| owner.place.as_ref()).map_or(port, |(_, port)| *port);
    let seen = OwnerSeen::look(store_dir, owner.as_ref(), port).await;
    let trouble = seen.trouble(store_dir).unwrap_or_default();
    let who = match (seen, owner) {
        (OwnerSeen::Nowhere | OwnerSeen::OtherStore { dir: Some(_), .. }, _) => {
            return start::not_running(subject, &trouble).await;
        }
        (OwnerSeen::ClaimOnly { pid: Some(pid), .. }, _)
        | (OwnerSeen::Here, Some(LastOwner { pid: Some(pid), .. })) => {
            format!("the supervisor (pid {pid}) is running: ")
        }
        (OwnerSeen::Elsewhere { .. }, Some(LastOwner { pid: Some(pid), host, .. })) => {
            let host = host.unwrap_or_else(|| "another machine".to_owned());
            format!("the supervisor runs elsewhere (pid {pid} on {host}): ")
        }
        _ => String::new(),
    };
    RequestOutcome::bad(format!("{who}{trouble}"))
}

fn too_late(settings: &RequestSettings, limit: Duration) -> String {
    let (request, time, options) = (settings.request.name(), human(limit), &settings.subject.options);
    format!("the {request} has not finished within {time}; it continues: see `openclaw-supervise status{options}`")
}

/// How to keep a stopped supervisor down, if a service manager may restart it.
async fn hint(request: Request, before: &Before) -> Option<String> {
    let manager = before.manager.as_str();
    let command = match (request, manager) {
        (Request::Stop, "systemd") => manager::stop_command(before.pid).await,
        (Request::Stop, "launchd") => "launchctl bootout gui/UID/LABEL".to_owned(),
        (Request::Stop, other) => ProcessManager::stop_command(other)?.to_owned(),
        _ => return None,
    };
    Some(format!("{manager} may restart it; to keep it down: {command}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn code(request: Request, report: &Value) -> Option<u8> {
        judge(request, &Before { generation: 3, ..Before::default() }, report).map(|outcome| outcome.code)
    }

    #[test]
    fn a_restart_is_done_once_a_newer_gateway_is_up() {
        let started =
            |generation: u64| json!({"event": "gateway.started", "generation": generation, "pid": 1, "boot_ms": 5});
        assert_eq!(code(Request::Restart, &started(3)), None);
        assert_eq!(code(Request::Restart, &started(4)), Some(0));
        assert_eq!(code(Request::Restart, &json!({"event": "gateway.spawned", "generation": 4})), None);
        for event in ["supervisor.stopped", "restart.gave_up", "conflict.detected"] {
            assert_eq!(code(Request::Restart, &json!({"event": event, "exit_code": 0})), Some(1), "{event}");
        }
    }

    #[test]
    fn a_stop_is_done_once_the_supervisor_says_so_and_nothing_else_ends_it() {
        assert_eq!(code(Request::Stop, &json!({"event": "supervisor.stopped", "exit_code": 0})), Some(0));
        assert_eq!(code(Request::Stop, &json!({"event": "supervisor.stopped", "exit_code": 78})), Some(1));
        for event in ["gateway.exited", "conflict.detected", "restart.gave_up", "gateway.started", "stop.requested"] {
            assert_eq!(code(Request::Stop, &json!({"event": event, "generation": 9})), None, "{event}");
        }
    }

    #[test]
    fn a_retry_is_done_once_something_was_tried() {
        for (report, expected) in [
            (json!({"event": "gateway.spawned", "generation": 4}), Some(0)),
            (json!({"event": "gateway.adopted", "generation": 3}), Some(0)),
            (json!({"event": "gateway.spawn_failed", "generation": 4}), Some(1)),
            (json!({"event": "conflict.detected", "kind": "foreign"}), Some(1)),
            (json!({"event": "restart.scheduled", "delay_ms": 0}), None),
            (json!({"event": "restart.scheduled", "delay_ms": 900}), Some(1)),
            (json!({"event": "retry.requested"}), None),
            (json!({"event": "probe.verdict_changed"}), None),
        ] {
            assert_eq!(code(Request::Retry, &report), expected, "{report}");
        }
    }

    #[tokio::test]
    async fn only_a_stop_has_to_do_with_the_manager() {
        for (manager, request, hinted) in [
            ("systemd", Request::Stop, true),
            ("launchd", Request::Stop, true),
            ("pm2", Request::Stop, true),
            ("runit", Request::Restart, false),
            ("terminal", Request::Stop, false),
            ("systemd", Request::Restart, false),
        ] {
            let before = Before { manager: manager.to_owned(), ..Before::default() };
            assert_eq!(hint(request, &before).await.is_some_and(|hint| hint.contains(manager)), hinted, "{manager}");
        }
    }
}
