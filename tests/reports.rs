//! Every report, as the event log has it: name, severity, JSON members and sentence.
//!
//! `INSTA_UPDATE=always cargo test --test reports` takes new snapshots.

use openclaw_supervise::core::policy::OnStoreLost;
use openclaw_supervise::core::report::{Exited, HungReport};
use openclaw_supervise::core::restart_policy::PaceFacts;
use openclaw_supervise::core::stall::Stall;
use openclaw_supervise::core::{
    BlockedWrite, Conclusion, Contested, Endpoint, Excess, ExitStatus, ExitUsage, Holder, Hook, HookEnd, IncidentCause,
    Layer, MoveReason, Readiness, Recovered, Report, Requester, TreeEnd, Verdict,
};
use openclaw_supervise::host::telemetry::Record;
use std::collections::BTreeSet;
use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

fn text(text: &str) -> String {
    text.to_owned()
}

fn holder() -> Holder {
    Holder { pid: 900, command: text("node gateway"), uid: Some(1000) }
}

fn by() -> Requester {
    Requester { how: text("SIGTERM"), pid: Some(7), uid: Some(1000), command: Some(text("kill 1")), inside: None }
}

fn pace() -> PaceFacts {
    PaceFacts {
        failures: 2,
        restarts: 3,
        max_restarts: 6,
        restart_window: SECOND * 3600,
        unclean_boots: 2,
        boot_limit: 2,
        boot_window: SECOND * 300,
        backoff_max: SECOND * 300,
    }
}

fn supervisor() -> Vec<Report> {
    let unknown = Requester { how: text("SIGTERM"), pid: None, uid: None, command: None, inside: None };
    vec![
        Report::SupervisorStarted { version: "0.1.0", pid: 1, manager: "systemd", output: text("OUTPUT") },
        Report::SupervisorStarted { version: "0.1.0", pid: 1, manager: "unknown", output: text("above") },
        Report::SupervisorStopped { exit_code: 0, reason: text("REASON") },
        Report::SupervisorStopped { exit_code: 69, reason: text("REASON") },
        Report::SignalReceived { signal: "SIGTERM", by: by() },
        Report::SignalReceived { signal: "SIGTERM", by: unknown },
        Report::ClockJumped { by: SECOND * 90 },
        Report::RestartRequested { by: by() },
        Report::RestartMerged {
            by: Requester { inside: Some(true), ..by() },
            requests: 2,
            delay: Some(SECOND * 90),
            why: text("2 restarts on request within 5m"),
        },
        Report::RestartMerged { by: by(), requests: 1, delay: None, why: text("one is under way already") },
        Report::SupervisionPaused { period: SECOND, reason: text("WHY"), by: text("BY") },
        Report::SupervisionResumed { why: text("WHY") },
        Report::PauseRefused { why: "WHY" },
        Report::RetryRequested { by: by() },
        Report::StopRequested { by: by() },
        Report::DetachRequested { by: by() },
        Report::DetachRefused { why: "WHY" },
        Report::RestartScheduled { delay: SECOND, why: text("WHY"), after_failure: false, pace: Box::new(pace()) },
        Report::RestartScheduled {
            delay: SECOND,
            why: text("WHY"),
            after_failure: true,
            pace: Box::new(PaceFacts { failures: 2, ..pace() }),
        },
        Report::RestartScheduled {
            delay: SECOND * 90,
            why: text("WHY"),
            after_failure: true,
            pace: Box::new(PaceFacts { failures: 3, ..pace() }),
        },
        Report::RestartGaveUp { restarts: 6, max_restarts: 6, window: SECOND * 3600, why: text("WHY") },
    ]
}

fn lease_and_port() -> Vec<Report> {
    vec![
        Report::LeaseAcquireStarted,
        Report::LeaseContended { owner: Some(holder()), what: Contested::Lease, ends_within: None },
        Report::LeaseContended { owner: None, what: Contested::PortClaim, ends_within: Some(Duration::from_secs(40)) },
        Report::LeaseRecovered(Recovered { pid: Some(900), why: text("WHY") }),
        Report::LeaseRecovered(Recovered { pid: None, why: text("WHY") }),
        Report::LeaseAcquired { epoch: 3 },
        Report::LeaseTimedOut { why: text("WHY") },
        Report::LeaseReleased { epoch: 3 },
        Report::LeaseLost { owner: Some(holder()), why: text("WHY") },
        Report::LeaseLost { owner: None, why: text("WHY") },
        Report::LeaseUnconfirmed { age: SECOND * 20, why: text("WHY"), action: OnStoreLost::Stop },
        Report::LeaseUnconfirmed { age: SECOND * 20, why: text("WHY"), action: OnStoreLost::Keep },
        Report::StoreMovedAside { to: text("PATH"), why: text("WHY") },
        Report::StoreUnavailable { why: text("WHY") },
        Report::StoreAvailable,
        Report::OutputMoved { to: Some(text("/STORE/output.log")) },
        Report::OutputMoved { to: None },
        Report::StandbyEntered { why: text("WHY") },
        Report::StandbyLeft { why: text("WHY") },
        Report::VerdictChanged { from: None, to: Verdict::Free, detail: text("DETAIL") },
        Report::VerdictChanged { from: Some(Verdict::Free), to: Verdict::Foreign, detail: text("DETAIL") },
        Report::VerdictChanged { from: Some(Verdict::Foreign), to: Verdict::Malformed, detail: text("DETAIL") },
        Report::ConflictDetected { kind: "foreign", holder: Some(holder()), holder_uid: Some(1000) },
        Report::ConflictDetected { kind: "foreign", holder: None, holder_uid: Some(0) },
        Report::ConflictDetected { kind: "lease", holder: None, holder_uid: None },
        Report::ConflictResolved,
        Report::EndpointChanged { from: Endpoint::local(18789), to: Endpoint::local(1), why: MoveReason::Settings },
        Report::EndpointChanged {
            from: Endpoint::local(1),
            to: Endpoint { tls: true, ..Endpoint::local(1) },
            why: MoveReason::Listens,
        },
    ]
}

fn starved(waited: Option<Duration>, throttled: Option<Duration>) -> Stall {
    Stall::Starved { waited, throttled, left: 9 }
}

fn blocked(reader: Option<Holder>) -> BlockedWrite {
    BlockedWrite { stream: text("stdout"), file: text("pipe:[7]"), reader }
}

fn gateway() -> Vec<Report> {
    let readiness = |ready, detail| Readiness { ready, detail: text(detail) };
    let conclusion = Conclusion { cause: IncidentCause::Stopped, text: text("CONCLUSION") };
    let hung = HungReport {
        generation: 3,
        last_good: Some(SECOND),
        failed_probes: 4,
        why: "WHY",
        limit: SECOND * 60,
        probes: vec![text("1s before: silent, DETAIL")],
        conclusion: conclusion.clone(),
        evidence: None,
    };
    let excess = Excess { tree_rss_kb: 2 << 20, limit_kb: 1 << 20 };
    let exceeded =
        |evidence| Report::MemoryExceeded { generation: 3, excess, conclusion: conclusion.clone(), evidence };
    let differs = Some(text("another command"));
    vec![
        Report::GatewaySpawned { generation: 3, pid: 42, attempt: 1 },
        Report::SpawnFailed { generation: 3, why: text("WHY") },
        Report::GatewayAdopted { generation: 3, pid: 42, age: SECOND, differs: None },
        Report::GatewayAdopted { generation: 3, pid: 42, age: SECOND, differs },
        Report::SuccessorFound { generation: 3, pid: 43, command: text("node") },
        Report::GatewayFollowed { generation: 1, pid: 44, launcher: 43, death: ExitStatus::Code(0) },
        Report::GatewayListening { generation: 3, pid: 42 },
        Report::GatewayStarted { generation: 3, pid: 42, boot: SECOND },
        Report::StartupTimedOut { generation: 3, budget: SECOND },
        Report::LivenessMissed { generation: 3, detail: text("DETAIL") },
        Report::LivenessDegraded { generation: 3, detail: text("DETAIL") },
        Report::LivenessRecovered { generation: 3, after: SECOND },
        Report::LivenessExtended { generation: 3, stall: Stall::Busy(SECOND), by: SECOND },
        Report::LivenessExtended { generation: 3, stall: starved(Some(SECOND), Some(SECOND / 2)), by: SECOND },
        Report::LivenessExtended { generation: 3, stall: starved(None, None), by: SECOND },
        Report::LivenessBlocked { generation: 3, blocked: blocked(Some(holder())) },
        Report::LivenessBlocked { generation: 3, blocked: blocked(None) },
        Report::ReadinessChanged { generation: 3, readiness: readiness(true, "DETAIL") },
        Report::ReadinessChanged { generation: 3, readiness: readiness(false, "not ready: channel:x") },
        Report::ReadinessChanged { generation: 3, readiness: readiness(false, "not ready: telegram, discord") },
        exceeded(None),
        exceeded(Some(text("PATH"))),
        Report::GatewayHung(Box::new(HungReport { evidence: Some(text("PATH")), ..hung.clone() })),
        Report::GatewayHung(Box::new(HungReport { last_good: None, ..hung })),
        Report::StopForwarded { generation: 3, pid: 44 },
        Report::StopEscalated { generation: 3, grace: SECOND * 328, why: text("WHY") },
    ]
}

fn ends() -> Vec<Report> {
    let (clean, signal) = (ExitStatus::Code(0), ExitStatus::Signal { number: 11, core_dumped: true });
    let exited = |death, toll| {
        Report::GatewayExited(Exited { generation: 3, pid: 42, death, uptime: SECOND, toll, cause: "CAUSE" })
    };
    let used = |max_rss_kb, cpu| ExitUsage { max_rss_kb, cpu, oom_killed: false };
    let killed = TreeEnd {
        members: 1,
        elapsed: Duration::from_millis(4),
        commands: vec![text("44 sh")],
        found_by: vec![(Layer::Cgroup, 1)],
        ..TreeEnd::default()
    };
    let left = TreeEnd { members: 9, escaped: 2, survivors: 1, left: vec![text("44 sh (D)")], ..killed.clone() };
    let hook = |hook, end| Report::HookFinished { hook, generation: 3, end, elapsed: SECOND };
    vec![
        exited(clean, used(None, None)),
        exited(ExitStatus::Code(1), used(Some(1 << 20), None)),
        exited(signal, used(Some(1 << 20), Some(SECOND))),
        exited(ExitStatus::Unknown, used(None, Some(SECOND))),
        Report::GatewayUnseen { generation: 3, pid: 42 },
        Report::TreeKilled { generation: 3, end: Box::new(killed) },
        Report::TreeKilled { generation: 3, end: Box::new(left) },
        Report::InstallerAwaited {
            generation: 3,
            installers: vec![text("44 npm install -g openclaw")],
            within: SECOND * 600,
        },
        Report::InstallerKilled { generation: 3, commands: vec![text("npm install -g openclaw")] },
        Report::StraysLeft { generation: 3, strays: vec![text("42 tmux (tmux.service)"), text("43 sh")] },
        Report::HandoffAccepted { generation: 3, reason: text("REASON") },
        Report::HandoffMissing { generation: 3 },
        Report::HandoffRejected { generation: 3, reason: text("REASON") },
        Report::HandoffUnsupported { generation: Some(3), reason: text("REASON") },
        Report::HandoffUnsupported { generation: None, reason: text("REASON") },
        Report::HandoffTimedOut { generation: None, reason: text("REASON") },
        Report::HookStarted { hook: Hook::PreStart, generation: 3 },
        hook(Hook::PostStop, HookEnd::Ended(clean)),
        hook(Hook::PostStop, HookEnd::Ended(signal)),
        hook(Hook::Repair, HookEnd::NotStarted(text("WHY"))),
        hook(Hook::Repair, HookEnd::Postponed(text("WHY"))),
        Report::HookTimedOut { hook: Hook::PreStart, generation: 3, timeout: SECOND },
    ]
}

#[test]
fn every_report_reads_as_it_did() {
    let reports = [supervisor(), lease_and_port(), gateway(), ends()].concat();
    let shown: BTreeSet<_> = reports.iter().map(Report::name).collect();
    assert_eq!(shown, Report::NAMES.iter().copied().collect(), "the samples above show every report");
    let lines = reports.iter().map(|report| {
        let members = Record::new(report, 0).members;
        format!("{} {:?} {members}\n    {report}\n", report.name(), report.severity())
    });
    insta::assert_snapshot!(lines.collect::<String>());
}
