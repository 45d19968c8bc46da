//! Which reports become a message to a person: one when an incident opens, one when it ends, and one more only if it gets
//! worse in between. A fold over the event log, beside the state machine, which knows nothing of it.
//!
//! An incident ends when the gateway has been well for a while. That while doubles with each incident that follows another
//! within [`FLAP_WINDOW`], so that a gateway that comes and goes gives a handful of messages and not one for each round.

#[cfg(test)]
mod tests;

use super::report::{Exited, Report, human};
use super::{Generation, Moment, Verdict};
use crate::policy::OnStoreLost;
use crate::prelude::*;
use core::time::Duration;

/// So many failures, none of them after a stable run, are a crash loop. OpenClaw counts to three as well before it switches its
/// channels off.
const FAILURES: usize = 3;

/// How long a gateway must be well before its first incident counts as over, unless it counts as stable earlier, and the
/// longest that this grows to.
const SETTLE_MIN: Duration = Duration::from_secs(10);
const SETTLE_MAX: Duration = Duration::from_mins(30);

/// An incident that begins within this time after the last one is the same trouble.
const FLAP_WINDOW: Duration = Duration::from_hours(1);

/// Ends that someone asked for, or that say nothing against the gateway, as `gateway.exited` names them.
const HARMLESS: [&str; 6] = [
    "the lease was lost",
    "stop requested",
    "restart requested",
    "requested",
    // `handoff.missing` says later whether it had planned that.
    "exited with code 0 without a request",
    // It has its own message.
    "over its memory limit",
];

const OUT_OF_MEMORY: &str = "killed by the kernel OOM killer";

/// What an incident is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertKind {
    /// A channel is not connected.
    ChannelDown,
    /// It lives and is not well.
    Unhealthy,
    /// It reached its memory limit, or that of the machine.
    Memory,
    /// It did not answer, or did not start in time.
    Hang,
    /// It fails again and again.
    CrashLoop,
    /// The store does not confirm the lease, so that the gateway was ended.
    StoreLost,
    /// Another program or supervisor is in its place.
    Conflict,
    /// The configuration or the installation was refused: the supervisor has ended.
    Refused,
    /// The restart budget is spent: the supervisor has ended.
    GaveUp,
    /// The supervisor has ended for another reason.
    Failed,
}

impl AlertKind {
    pub const ALL: [Self; 10] = [
        Self::ChannelDown,
        Self::Unhealthy,
        Self::Memory,
        Self::Hang,
        Self::CrashLoop,
        Self::StoreLost,
        Self::Conflict,
        Self::Refused,
        Self::GaveUp,
        Self::Failed,
    ];

    /// Its name in JSON.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::ChannelDown => "channel_down",
            Self::Unhealthy => "unhealthy",
            Self::Memory => "memory",
            Self::Hang => "hang",
            Self::CrashLoop => "crash_loop",
            Self::StoreLost => "store_lost",
            Self::Conflict => "conflict",
            Self::Refused => "refused",
            Self::GaveUp => "gave_up",
            Self::Failed => "failed",
        }
    }

    /// Whether the supervisor ends with it.
    #[must_use]
    pub fn is_final(self) -> bool {
        matches!(self, Self::Conflict | Self::Refused | Self::GaveUp | Self::Failed)
    }

    /// Whether the gateway runs meanwhile.
    fn is_of_service(self) -> bool {
        matches!(self, Self::ChannelDown | Self::Unhealthy)
    }
}

/// Why a message is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AlertPhase {
    Opened,
    /// It got worse and needs an operator now.
    Escalated,
    /// It is over: the gateway is well again.
    Recovered,
    /// It is over: an operator stopped the supervisor.
    Stopped,
}

/// An incident that was told and has not ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenAlert {
    pub kind: AlertKind,
    pub since: Moment,
    /// Which it is: the same for all its messages.
    pub id: u64,
}

/// One message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alert {
    pub incident: OpenAlert,
    pub phase: AlertPhase,
    pub generation: Option<Generation>,
    /// What happened, in one sentence.
    pub what: String,
    /// Which process is behind it, where that is another one than the gateway.
    pub who: Option<String>,
    /// What the supervisor does next.
    pub next: String,
    /// The file with the evidence.
    pub evidence: Option<String>,
    /// Of the supervisor, if it has ended.
    pub exit_code: Option<u8>,
}

/// What survives the supervisor, so that a restart of it neither repeats a message nor forgets an incident.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AlertMemory {
    /// What happened to the process.
    pub gateway: Option<OpenAlert>,
    /// What happened to what it serves.
    pub service: Option<OpenAlert>,
    /// How many incidents followed one another.
    pub flaps: u32,
    pub last_end: Option<Moment>,
}

/// A finding on a running gateway that is told if it lasts.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Suspicion {
    kind: AlertKind,
    since: Moment,
    what: String,
}

#[derive(Debug)]
pub struct Alerts {
    memory: AlertMemory,
    /// How long a finding on a running gateway has to last.
    patience: Duration,
    stable_after: Duration,
    /// Failures since the last stable run.
    failures: Vec<Moment>,
    last_failure: String,
    /// Since when the gateway has been well.
    well: Option<Moment>,
    /// Since when all that it serves has been.
    ready: Option<Moment>,
    pending: Option<Suspicion>,
    /// The port or the lease is held by another process: whether a supervisor, and which.
    conflict: Option<(bool, String)>,
    gave_up: bool,
    /// The gateway was adopted, and has not answered yet.
    is_adopted: bool,
    is_ending: bool,
    generation: Option<Generation>,
    next_id: u64,
}

impl Alerts {
    /// `seed`: what the ids of incidents begin with, so that those of two supervisors differ.
    #[must_use]
    pub fn new(patience: Duration, stable_after: Duration, seed: u64, memory: AlertMemory) -> Self {
        Self {
            memory,
            patience,
            stable_after,
            failures: Vec::new(),
            last_failure: String::new(),
            well: None,
            ready: None,
            pending: None,
            conflict: None,
            gave_up: false,
            is_adopted: false,
            is_ending: false,
            generation: None,
            next_id: seed,
        }
    }

    #[must_use]
    pub fn memory(&self) -> &AlertMemory {
        &self.memory
    }

    /// Whether a report can change anything here. Floods of others need not be passed on.
    #[must_use]
    pub fn concerns(report: &Report) -> bool {
        matches!(
            report,
            Report::GatewaySpawned { .. }
                | Report::GatewayAdopted { .. }
                | Report::GatewayStarted { .. }
                | Report::VerdictChanged { to: Verdict::Gateway(_), .. }
                | Report::StartupTimedOut { .. }
                | Report::LivenessMissed { .. }
                | Report::LivenessDegraded { .. }
                | Report::LivenessRecovered { .. }
                | Report::LivenessBlocked { .. }
                | Report::ReadinessChanged { .. }
                | Report::MemoryExceeded { .. }
                | Report::GatewayHung(_)
                | Report::GatewayExited(_)
                | Report::HandoffMissing { .. }
                | Report::RestartScheduled { .. }
                | Report::RestartGaveUp { .. }
                | Report::ConflictDetected { .. }
                | Report::ConflictResolved
                | Report::StandbyEntered { .. }
                | Report::StandbyLeft { .. }
                | Report::LeaseLost { .. }
                | Report::LeaseUnconfirmed { .. }
                | Report::SupervisorStopped { .. }
        )
    }

    /// Takes in a report. Messages are appended.
    #[expect(clippy::too_many_lines, reason = "one row for each report")]
    pub fn see(&mut self, now: Moment, report: &Report, told: &mut Vec<Alert>) {
        self.tick(now, told);
        self.generation = report.generation().or(self.generation);
        match report {
            Report::GatewaySpawned { .. } | Report::GatewayAdopted { .. } => {
                (self.well, self.ready) = (None, None);
                self.is_adopted = matches!(report, Report::GatewayAdopted { .. });
            }
            // No `gateway.started` comes of one that was up before.
            Report::VerdictChanged { to: Verdict::Gateway(_), .. } => self.find_adopted(now),
            Report::GatewayStarted { .. } | Report::LivenessRecovered { .. } => {
                self.well = Some(now);
                self.calm(AlertKind::Unhealthy, now);
            }
            Report::LivenessMissed { .. } => self.well = None,
            Report::LivenessDegraded { .. } => {
                self.well = None;
                self.suspect(AlertKind::Unhealthy, now, report);
            }
            Report::ReadinessChanged { readiness, .. } if readiness.ready => {
                self.find_adopted(now);
                self.ready = Some(now);
                self.calm(AlertKind::ChannelDown, now);
            }
            Report::ReadinessChanged { .. } => {
                self.find_adopted(now);
                self.ready = None;
                self.suspect(AlertKind::ChannelDown, now, report);
            }
            Report::StartupTimedOut { .. } => {
                self.open(AlertKind::Hang, now, report, "it is killed and replaced", told);
            }
            Report::LivenessBlocked { .. } => {
                let next = "it is not replaced: the next one would wait there too";
                self.open(AlertKind::Hang, now, report, next, told);
            }
            Report::GatewayHung(hung) => {
                self.open(AlertKind::Hang, now, report, "it is killed and replaced", told);
                self.add_evidence(hung.evidence.as_ref(), told);
            }
            Report::MemoryExceeded { evidence, .. } => {
                self.open(AlertKind::Memory, now, report, "it drains, then another one is started", told);
                self.add_evidence(evidence.as_ref(), told);
            }
            Report::GatewayExited(exited) => self.exited(now, exited, report, told),
            Report::HandoffMissing { .. } => self.fail(now, report.to_string()),
            Report::RestartScheduled { delay, why, .. } if self.failures.len() >= FAILURES => {
                self.looped(now, format!("the next start is in {}: {why}", human(*delay)), told);
            }
            Report::RestartGaveUp { .. } => self.gave_up = true,
            Report::ConflictDetected { kind, .. } => {
                let is_supervisor = matches!(*kind, "lease" | "port claim");
                self.conflict = Some((is_supervisor, report.to_string()));
            }
            Report::LeaseLost { .. } => self.conflict = Some((true, report.to_string())),
            Report::ConflictResolved | Report::StandbyLeft { .. } => self.conflict = None,
            Report::StandbyEntered { .. } => {
                (self.well, self.ready, self.pending) = (None, None, None);
                // Behind another supervisor all is as it should be.
                if let Some((false, who)) = self.conflict.clone() {
                    let next = "it stands by, and starts a gateway once that one is gone".to_owned();
                    self.tell(AlertKind::Conflict, now, report.to_string(), Some(who), next, told);
                }
            }
            Report::LeaseUnconfirmed { action: OnStoreLost::Stop, .. } => {
                self.open(
                    AlertKind::StoreLost,
                    now,
                    report,
                    "a gateway is started once the store confirms the lease",
                    told,
                );
            }
            Report::SupervisorStopped { exit_code, reason } => self.stopped(now, *exit_code, reason, told),
            _ => {}
        }
    }

    /// What time alone brings.
    pub fn tick(&mut self, now: Moment, told: &mut Vec<Alert>) {
        if let Some(pending) = self.pending.take_if(|pending| pending.since.saturating_add(self.patience) <= now) {
            let Suspicion { kind, since, what } = pending;
            let next = "it is not replaced for that".to_owned();
            self.tell(kind, since, what, None, next, told);
        }
        if is_over(self.well, self.settle(), now) && self.memory.gateway.is_some() {
            let open = self.memory.gateway.take();
            self.end(now, open, AlertPhase::Recovered, "the gateway is healthy again", told);
            self.failures.clear();
        }
        let is_ready = is_over(self.well, self.settle(), now) && is_over(self.ready, self.settle(), now);
        if is_ready && self.pending.is_none() && self.memory.service.is_some() {
            let open = self.memory.service.take();
            self.end(now, open, AlertPhase::Recovered, "all channels are connected again", told);
        }
    }

    /// When [`Alerts::tick`] is due.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        let settled = |since: Option<Moment>| Some(since?.saturating_add(self.settle()));
        let patience = self.pending.as_ref().map(|pending| pending.since.saturating_add(self.patience));
        let gateway = self.memory.gateway.as_ref().and_then(|_| settled(self.well));
        let is_calm = self.memory.service.is_some() && self.pending.is_none();
        let service =
            settled(self.ready.filter(|_| is_calm)).zip(settled(self.well)).map(|(one, other)| one.max(other));
        [patience, gateway, service].into_iter().flatten().min()
    }

    fn settle(&self) -> Duration {
        let first = SETTLE_MIN.min(self.stable_after);
        first.saturating_mul(1 << self.memory.flaps.min(20)).min(SETTLE_MAX)
    }

    /// It answers.
    fn find_adopted(&mut self, now: Moment) {
        if core::mem::take(&mut self.is_adopted) {
            self.well = Some(now);
        }
    }

    fn suspect(&mut self, kind: AlertKind, now: Moment, report: &Report) {
        if self.memory.service.is_none() && self.pending.is_none() {
            self.pending = Some(Suspicion { kind, since: now, what: report.to_string() });
        }
    }

    fn calm(&mut self, kind: AlertKind, now: Moment) {
        self.pending.take_if(|pending| pending.kind == kind);
        // It is asked for its channels whenever it is probed, and only a change is told.
        if self.memory.service.as_ref().is_some_and(|open| open.kind == kind) {
            self.ready = Some(now);
        }
    }

    fn exited(&mut self, now: Moment, exited: &Exited, report: &Report, told: &mut Vec<Alert>) {
        let was_stable = is_over(self.well, self.stable_after, now);
        (self.well, self.ready, self.pending) = (None, None, None);
        if was_stable {
            self.failures.clear();
        }
        if exited.cause == OUT_OF_MEMORY {
            self.open(AlertKind::Memory, now, report, "another one is started", told);
        }
        if !HARMLESS.contains(&exited.cause) {
            self.fail(now, report.to_string());
        }
    }

    fn looped(&mut self, now: Moment, next: String, told: &mut Vec<Alert>) {
        let (count, first) = (self.failures.len(), self.failures.first().copied().unwrap_or(now));
        let span = human(now.saturating_sub(first));
        let what = format!("{count} failures in {span}, the last: {}", self.last_failure);
        self.tell(AlertKind::CrashLoop, now, what, None, next, told);
    }

    fn fail(&mut self, now: Moment, what: String) {
        self.failures.retain(|at| at.saturating_add(FLAP_WINDOW) > now);
        self.failures.push(now);
        self.last_failure = what;
    }

    fn stopped(&mut self, now: Moment, exit_code: u8, reason: &str, told: &mut Vec<Alert>) {
        (self.well, self.ready, self.pending) = (None, None, None);
        if exit_code == 0 {
            for open in [self.memory.gateway.take(), self.memory.service.take()] {
                self.end(now, open, AlertPhase::Stopped, reason, told);
            }
            return;
        }
        let kind = match (self.gave_up, &self.conflict, exit_code) {
            (true, ..) => AlertKind::GaveUp,
            (false, Some(_), _) => AlertKind::Conflict,
            (false, None, super::exit::EX_CONFIG) => AlertKind::Refused,
            (false, None, _) => AlertKind::Failed,
        };
        self.is_ending = true;
        let who = self.conflict.take().map(|(_, who)| who);
        let next = format!("nothing: the supervisor has ended with exit code {exit_code}");
        let before = told.len();
        self.tell(kind, now, reason.to_owned(), who, next, told);
        for alert in told.iter_mut().skip(before) {
            alert.exit_code = Some(exit_code);
        }
    }

    fn open(&mut self, kind: AlertKind, now: Moment, report: &Report, next: &str, told: &mut Vec<Alert>) {
        self.well = None;
        self.tell(kind, now, report.to_string(), None, next.to_owned(), told);
    }

    fn add_evidence(&self, evidence: Option<&String>, told: &mut [Alert]) {
        let of_it = |alert: &&mut Alert| self.memory.gateway.as_ref() == Some(&alert.incident);
        if let Some(alert) = told.last_mut().filter(of_it) {
            alert.evidence = evidence.cloned();
        }
    }

    /// Tells it unless an incident is open.
    fn tell(
        &mut self,
        kind: AlertKind,
        since: Moment,
        what: String,
        who: Option<String>,
        next: String,
        told: &mut Vec<Alert>,
    ) {
        let place = if kind.is_of_service() { &self.memory.service } else { &self.memory.gateway };
        let (phase, incident) = match place {
            // The first message told what the operator has to know, unless the supervisor has ended since.
            Some(open) if open.kind == kind || !self.is_ending => return,
            Some(open) => (AlertPhase::Escalated, OpenAlert { kind, ..open.clone() }),
            None => {
                let is_flap = self.memory.last_end.is_some_and(|end| end.saturating_add(FLAP_WINDOW) > since);
                self.memory.flaps = if is_flap { self.memory.flaps.saturating_add(1) } else { 0 };
                let id = self.next_id;
                self.next_id = self.next_id.wrapping_add(1);
                (AlertPhase::Opened, OpenAlert { kind, since, id })
            }
        };
        let place = if kind.is_of_service() { &mut self.memory.service } else { &mut self.memory.gateway };
        *place = Some(incident.clone());
        let generation = self.generation;
        told.push(Alert { incident, phase, generation, what, who, next, evidence: None, exit_code: None });
    }

    fn end(&mut self, now: Moment, open: Option<OpenAlert>, phase: AlertPhase, what: &str, told: &mut Vec<Alert>) {
        let Some(incident) = open else { return };
        self.memory.last_end = Some(now);
        let (what, generation) = (what.to_owned(), self.generation);
        let next = match phase {
            AlertPhase::Recovered => "the gateway is probed as usual",
            AlertPhase::Opened | AlertPhase::Escalated | AlertPhase::Stopped => "nothing until it is started again",
        };
        let (who, evidence, exit_code) = (None, None, None);
        told.push(Alert { incident, phase, generation, what, who, next: next.to_owned(), evidence, exit_code });
    }
}

fn is_over(since: Option<Moment>, time: Duration, now: Moment) -> bool {
    since.is_some_and(|since| since.saturating_add(time) <= now)
}
