//! `probe`: one look for scripts and for the exec probes of container runtimes.

use std::io;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::core::{Owner, Phase, Readiness, Sighting, Verdict};
use crate::gateway::probe::{Look, Prober};
use crate::settings::Question;

/// The first pause between two looks; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// What one round found.
struct Finding {
    ok: bool,
    detail: String,
    sighting: Sighting,
}

/// Looks, again and again for as long as `wait` if need be, prints the last finding and returns whether the condition
/// holds.
pub async fn run(
    prober: &Prober,
    condition: Question,
    wait: Option<Duration>,
    json: bool,
    out: &mut impl io::Write,
) -> io::Result<bool> {
    // A wait too long for the clock has no end.
    let deadline = Instant::now().checked_add(wait.unwrap_or_default());
    let mut pause = PAUSE_MIN;
    let finding = loop {
        let finding = check(prober, condition).await;
        let now = Instant::now();
        if finding.ok || deadline.is_some_and(|deadline| now >= deadline) {
            break finding;
        }
        let next = now + pause;
        sleep_until(deadline.map_or(next, |deadline| next.min(deadline))).await;
        pause = (pause * 2).min(PAUSE_MAX);
    };
    let text = if json { as_json(prober, condition, &finding).to_string() } else { as_text(&finding) };
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        // A reader that has gone away still learns the verdict from the exit code.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(finding.ok),
    }
}

async fn check(prober: &Prober, condition: Question) -> Finding {
    let sighting = prober.look(Look::AnswersAndOwner { leader: None }).await;
    let is_gateway = matches!(sighting.verdict, Verdict::Gateway(_) | Verdict::Draining);
    match condition {
        Question::Live => Finding { ok: is_gateway, detail: sighting.detail.clone(), sighting },
        Question::Started => {
            let ok = matches!(sighting.verdict, Verdict::Gateway(Phase::Started | Phase::Unknown));
            Finding { ok, detail: sighting.detail.clone(), sighting }
        }
        Question::Ready if is_gateway => {
            let (ok, detail) = match prober.ready().await {
                Ok(Readiness { ready, detail }) => (ready, detail),
                Err(why) => (false, why),
            };
            Finding { ok, detail, sighting }
        }
        Question::Ready => Finding { ok: false, detail: sighting.detail.clone(), sighting },
    }
}

fn as_text(finding: &Finding) -> String {
    let Finding { sighting, detail, .. } = finding;
    match &sighting.owner {
        Owner::Unseen => format!("{}: {detail}", sighting.verdict),
        Owner::Ours(holder) | Owner::Other(holder) => {
            format!("{}: {detail} (pid {}, {})", sighting.verdict, holder.pid, holder.command)
        }
    }
}

fn as_json(prober: &Prober, condition: Question, finding: &Finding) -> Value {
    let Finding { sighting, ok, detail } = finding;
    let holder = match &sighting.owner {
        Owner::Unseen => None,
        Owner::Ours(holder) | Owner::Other(holder) => Some(holder),
    };
    json!({
        "verdict": sighting.verdict.name(),
        "phase": phase_name(sighting.verdict),
        "ok": ok,
        "condition": condition.name(),
        "url": prober.endpoint().to_string(),
        "pid": holder.map(|holder| holder.pid),
        "command": holder.map(|holder| holder.command.as_str()),
        "detail": detail,
    })
}

fn phase_name(verdict: Verdict) -> Option<&'static str> {
    match verdict {
        Verdict::Gateway(Phase::Starting) => Some("starting"),
        Verdict::Gateway(Phase::Started) => Some("started"),
        Verdict::Gateway(Phase::Unknown) => Some("unknown"),
        Verdict::Draining => Some("draining"),
        Verdict::Free | Verdict::Booting | Verdict::Silent | Verdict::Foreign | Verdict::Inconclusive => None,
    }
}
