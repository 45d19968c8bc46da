//! `pause` and `resume`: the supervision has its hands off the gateway for a while.

use super::ask;
use super::outcome::{NOT_RUNNING, RequestOutcome, print};
use crate::core::event::PauseRequest;
use crate::core::report::human;
use crate::host::clock;
use crate::host::control::{Connection, ConnectionError};
use crate::settings::PauseSettings;
use crate::store::RecordedPause;
use serde_json::{Value, json};
use std::io;
use std::time::Duration;
use tokio::time::timeout;

/// The answer comes with the next turn of the supervisor's loop.
const TIME_MAX: Duration = Duration::from_secs(10);

/// Asks, prints the outcome as one line and returns the exit code.
pub async fn run(settings: &PauseSettings, out: &mut impl io::Write) -> io::Result<u8> {
    let outcome = timeout(TIME_MAX, pursue(settings)).await;
    let outcome = outcome.unwrap_or_else(|_| RequestOutcome::bad("the supervisor has not said that it does"));
    print(&outcome.text, out)?;
    Ok(outcome.code)
}

async fn pursue(settings: &PauseSettings) -> RequestOutcome {
    let store_dir = &settings.subject.store_dir;
    let status = match Connection::status(store_dir).await {
        Ok((_, status)) => status,
        Err(error) => return unanswered(settings, &error).await,
    };
    let line = match &settings.pause {
        Some(PauseRequest { period, reason }) => {
            json!({ "ask": "pause", "for_ms": u64::try_from(period.as_millis()).unwrap_or(u64::MAX), "reason": reason })
        }
        None if status.paused.is_none() => return RequestOutcome::good("the supervision was not paused"),
        None => json!({ "ask": "resume" }),
    };
    let mut connection = match Connection::ask_line(store_dir, &line).await {
        Ok((connection, _)) => connection,
        Err(error) => return unanswered(settings, &error).await,
    };
    let state = match &status.gateway {
        Some(gateway) => format!("gateway {} (pid {}) goes on", gateway.generation, gateway.pid.unwrap_or_default()),
        None => "no gateway runs".to_owned(),
    };
    loop {
        match connection.next().await {
            Ok(Some(report)) => {
                if let Some(outcome) = judge(&report, &state, &settings.subject.options) {
                    return outcome;
                }
            }
            // A client of the gateway's own tree hears nothing more.
            Ok(None) => return RequestOutcome::good("accepted"),
            Err(error) => return RequestOutcome::bad(error.to_string()),
        }
    }
}

fn judge(report: &Value, state: &str, options: &str) -> Option<RequestOutcome> {
    match report["event"].as_str().unwrap_or_default() {
        "supervision.paused" => {
            let period = Duration::from_millis(report["for_ms"].as_u64().unwrap_or_default());
            Some(RequestOutcome::good(format!(
                "paused until {}, for {}: {state}, and is neither replaced nor started; `openclaw-supervise resume{options}` ends it",
                clock::time_in(period),
                human(period)
            )))
        }
        "supervision.resumed" => Some(RequestOutcome::good(format!("resumed: {state}"))),
        "supervision.pause_refused" => {
            Some(RequestOutcome::bad(format!("cannot pause: {}", report["why"].as_str().unwrap_or_default())))
        }
        "supervisor.stopped" => Some(RequestOutcome::bad("the supervisor exited")),
        _ => None,
    }
}

/// Without a supervisor, the pause on record is ended for the next one.
async fn unanswered(settings: &PauseSettings, error: &ConnectionError) -> RequestOutcome {
    let store_dir = &settings.subject.store_dir;
    let outcome = ask::unanswered(&settings.subject, settings.port, error).await;
    if settings.pause.is_none() && outcome.code == NOT_RUNNING && RecordedPause::remove(store_dir).is_ok_and(|was| was)
    {
        return RequestOutcome::good("no supervisor is running; the pause on record is ended for the next one");
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_done_once_the_supervisor_says_so() {
        let code = |report: Value| judge(&report, "no gateway runs", "").map(|outcome| outcome.code);
        assert_eq!(code(json!({"event": "supervision.paused", "for_ms": 60_000})), Some(0));
        assert_eq!(code(json!({"event": "supervision.resumed"})), Some(0));
        assert_eq!(code(json!({"event": "supervision.pause_refused", "why": "x"})), Some(1));
        assert_eq!(code(json!({"event": "gateway.exited"})), None);
    }
}
