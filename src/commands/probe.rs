//! `probe`: one look for scripts and for the exec probes of container runtimes.

mod supervisor;

use std::io;
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, sleep_until};

use crate::core::report::user;
use crate::core::{Endpoint, Observation, Owner, Phase, Readiness, Verdict};
use crate::gateway::probe::{Look, Prober};
use crate::settings::{ProbeSettings, Question};
use supervisor::Presence;

/// The first pause between two looks; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(50);

/// How long the store may keep a probe from its port: a health check of a container has a few seconds in all.
const STORE_TIME_MAX: Duration = Duration::from_secs(2);
const PAUSE_MAX: Duration = Duration::from_millis(250);

/// What one round found.
enum CheckResult {
    Gateway { ok: bool, detail: String, sighting: Observation },
    Supervisor(Presence),
}

impl CheckResult {
    fn ok(&self) -> bool {
        match self {
            Self::Gateway { ok, .. } | Self::Supervisor(Presence { ok, .. }) => *ok,
        }
    }
}

/// Where to look: at what was named on the command line, else where the supervisor that runs has its gateway, else where
/// the environment and the config say.
pub async fn place(settings: &ProbeSettings) -> Endpoint {
    let own = settings.endpoint.clone();
    if settings.is_endpoint_named || settings.question == Question::Supervised {
        return own;
    }
    if !super::store_answers(&settings.store_dir, STORE_TIME_MAX).await {
        return own;
    }
    let url = supervisor::url(&settings.store_dir).await;
    url.and_then(|url| own.at(&url)).unwrap_or(own)
}

/// Looks, again and again for as long as `wait` if need be, prints the last finding and returns whether the condition
/// holds. `store_dir` is that of the supervisor that is asked about.
pub async fn run(
    prober: &Prober,
    store_dir: &Path,
    condition: Question,
    wait: Option<Duration>,
    json: bool,
    out: &mut impl io::Write,
) -> io::Result<bool> {
    // A wait too long for the clock has no end.
    let deadline = Instant::now().checked_add(wait.unwrap_or_default());
    let mut pause = PAUSE_MIN;
    let finding = loop {
        let finding = check(prober, store_dir, condition).await;
        let now = Instant::now();
        if finding.ok() || deadline.is_some_and(|deadline| now >= deadline) {
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
        _ => Ok(finding.ok()),
    }
}

async fn check(prober: &Prober, store_dir: &Path, condition: Question) -> CheckResult {
    if condition == Question::Supervised {
        return CheckResult::Supervisor(supervisor::look(store_dir, prober.endpoint().port).await);
    }
    let sighting = prober.look(Look::AnswersAndOwner { leader: None }).await;
    let is_gateway = matches!(sighting.verdict, Verdict::Gateway(_) | Verdict::Draining);
    let (ok, detail) = match condition {
        Question::Started => {
            let ok = matches!(sighting.verdict, Verdict::Gateway(Phase::Started | Phase::Unknown));
            (ok, sighting.detail.clone())
        }
        Question::Ready if is_gateway => match prober.ready().await {
            Ok(Readiness { ready, detail }) => (ready, detail),
            Err(why) => (false, why),
        },
        Question::Live | Question::Ready | Question::Supervised => (is_gateway, sighting.detail.clone()),
    };
    CheckResult::Gateway { ok, detail, sighting }
}

fn as_text(finding: &CheckResult) -> String {
    match finding {
        CheckResult::Supervisor(Presence { verdict, detail, pid: None, .. }) => format!("{verdict}: {detail}"),
        CheckResult::Supervisor(Presence { verdict, detail, pid: Some(pid), .. }) => {
            format!("{verdict}: {detail} (pid {pid})")
        }
        CheckResult::Gateway { sighting, detail, .. } => match &sighting.owner {
            Owner::Unseen => format!("{}: {detail}", sighting.verdict),
            Owner::Hidden { uid } => format!("{}: {detail} (a process of {})", sighting.verdict, user(*uid)),
            Owner::Ours(holder) | Owner::Other(holder) => {
                format!("{}: {detail} (pid {}, {})", sighting.verdict, holder.pid, holder.command)
            }
        },
    }
}

fn as_json(prober: &Prober, condition: Question, finding: &CheckResult) -> Value {
    let (sighting, ok, detail) = match finding {
        CheckResult::Supervisor(Presence { verdict, ok, detail, pid }) => {
            return json!({ "verdict": verdict, "ok": ok, "condition": condition.name(), "pid": pid, "detail": detail });
        }
        CheckResult::Gateway { sighting, ok, detail } => (sighting, ok, detail),
    };
    let holder = sighting.holder();
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
        Verdict::Free
        | Verdict::Booting
        | Verdict::Silent
        | Verdict::Foreign
        | Verdict::Malformed
        | Verdict::Inconclusive => None,
    }
}
