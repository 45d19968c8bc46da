//! Records of one supervisor that the judge once condemned, though the protocol was right.

use crate::fake_shell::Broken;
use crate::trial::{Input, Trial};
use openclaw_supervise_core::event::PauseRequest;
use openclaw_supervise_core::lease::Basis;
use openclaw_supervise_core::{
    Acquired, Effect, Event, ExitStatus, ExitUsage, Fingerprint, History, LeaseAnswer, Moment, Observation, Owner,
    Phase, Policy, Recovered, Request, Requester, Supervisor, TreeEnd, Verdict,
};
use std::time::Duration;

const CRASH: ExitStatus = ExitStatus::Code(1);
const SERVES: Verdict = Verdict::Gateway(Phase::Started);

fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn by(how: &str) -> Requester {
    Requester { how: how.to_owned(), pid: Some(77), uid: None, command: None, inside: None }
}

/// A supervisor that is judged, with a shell that answers at once.
struct Record {
    trial: Trial,
    at: Moment,
    /// What the port and the gateway answer.
    verdict: Verdict,
    basis: Basis,
    /// What an earlier supervisor has left is looked for in vain.
    is_clearing: bool,
}

impl Record {
    fn new(policy: &Policy) -> Self {
        let trial = Trial::new(Supervisor::new(policy.clone()), policy);
        Self { trial, at: s(1000), verdict: Verdict::Free, basis: Basis::Lock, is_clearing: false }
    }

    fn started(policy: &Policy) -> Self {
        let mut record = Self::new(policy);
        record.send(Event::Start);
        record
    }

    fn send(&mut self, event: Event) {
        let first = match self.trial.take(self.at, Input::Event(event)) {
            Ok(first) => first,
            Err(Broken { promise, what }) => panic!("{promise}: {what}\n{}", self.trial.story()),
        };
        let effects: Vec<_> = self.trial.effects[first..].iter().map(|(_, effect)| effect.clone()).collect();
        for event in effects.iter().filter_map(|effect| self.answer(effect)).collect::<Vec<_>>() {
            self.at += Duration::from_millis(1);
            self.send(event);
        }
    }

    fn answer(&self, effect: &Effect) -> Option<Event> {
        let observation = |verdict| Observation {
            verdict,
            owner: Owner::Unseen,
            detail: String::new(),
            readiness: None,
            moved: None,
        };
        Some(match *effect {
            Effect::Lease { ticket, .. } => {
                let recovered = self.is_clearing.then(|| Recovered { pid: None, why: "its lock is free".to_owned() });
                let (basis, past) = (self.basis, History::default());
                let acquired = Acquired { epoch: 1, basis, recovered, past, trouble: None };
                Event::Leased { ticket, answer: LeaseAnswer::Acquired(Box::new(acquired)) }
            }
            Effect::Probe { ticket, .. } => Event::Probed { ticket, sighting: observation(self.verdict) },
            Effect::Record { generation } => Event::Recorded { generation },
            Effect::Confirm { ticket } => Event::Confirmed { ticket },
            Effect::Spawn { generation, .. } => {
                let pid = 100 + i32::try_from(generation).unwrap_or(0);
                Event::Spawned { generation, pid, fingerprint: Fingerprint::default() }
            }
            Effect::KillTree { generation, .. } => Event::TreeGone { generation, end: TreeEnd::default() },
            _ => return None,
        })
    }

    /// Lets time pass: a tick at every deadline.
    fn wait(&mut self, time: Duration) {
        let end = self.at + time;
        while let Some(due) = self.trial.core.deadline().filter(|due| *due <= end) {
            self.at = self.at.max(due);
            self.send(Event::Tick);
        }
        self.at = self.at.max(end);
    }

    fn request(&mut self, request: Request) {
        self.send(Event::Requested { request, by: by("a test") });
    }

    fn pause(&mut self, period: Duration) {
        let pause = Some(PauseRequest { period, reason: String::new() });
        self.send(Event::PauseRequested { pause, by: by("pause") });
    }

    /// The gateway, which serves nothing by then, ends.
    fn exit(&mut self, death: ExitStatus) {
        self.verdict = Verdict::Free;
        let generation = self.trial.core.generation();
        self.send(Event::LeaderExited { generation, death, toll: ExitUsage::default() });
    }

    fn count(&self, wanted: fn(&Effect) -> bool) -> usize {
        self.trial.effects.iter().filter(|(_, effect)| wanted(effect)).count()
    }

    fn spawns(&self) -> usize {
        self.count(|effect| matches!(effect, Effect::Spawn { .. }))
    }
}

/// Seeds 806112 and 2734518.
#[test]
fn a_forced_restart_that_a_pause_puts_off_is_forced_all_the_same() {
    let mut record = Record::started(&Policy { boot_limit: 1, ..Policy::default() });
    record.exit(CRASH);
    record.wait(s(3));
    record.pause(s(20));
    record.request(Request::RestartForced);
    record.wait(s(21));
    record.exit(CRASH);
    record.wait(s(1));
    assert_eq!(record.spawns(), 3);
}

/// Seed 1219215.
#[test]
fn a_forced_retry_in_the_step_that_ends_a_gateway_for_its_lease_forces_the_next_start() {
    let mut record = Record::new(&Policy { boot_limit: 1, ..Policy::default() });
    record.basis = Basis::Heartbeat;
    record.send(Event::Start);
    record.exit(CRASH);
    record.wait(s(3));
    record.verdict = SERVES;
    record.wait(s(1));
    record.send(Event::LeaseConfirmed { age: Duration::ZERO });
    record.at += s(20);
    record.request(Request::RetryForced);
    record.exit(CRASH);
    record.send(Event::LeaseConfirmed { age: Duration::ZERO });
    record.wait(s(1));
    assert_eq!(record.spawns(), 3);
}

/// Seed 1710674.
#[test]
fn a_boot_that_drained_answers_badly_and_falls_silent_has_the_window_of_a_hang() {
    let mut record = Record::started(&Policy { startup_timeout: s(20), ..Policy::default() });
    for (verdict, time) in [(Verdict::Draining, 3), (Verdict::Foreign, 8), (Verdict::Free, 30)] {
        record.verdict = verdict;
        record.wait(s(time));
    }
    assert_eq!(record.count(|effect| matches!(effect, Effect::Terminate { .. })), 0);
}

/// Seeds 1808818 and 4722824.
#[test]
fn hooks_that_are_given_up_in_a_pause_hold_nothing_up_after_it() {
    let mut record = Record::new(&Policy::default());
    record.is_clearing = true;
    record.send(Event::Start);
    record.wait(s(1));
    record.pause(s(200));
    record.wait(s(80));
    record.send(Event::LeaseConfirmed { age: Duration::ZERO });
    record.send(Event::ClockJumped { by: s(100) });
    record.wait(s(80));
    assert_eq!(record.spawns(), 1);
}

/// Seed 1262904: a second request came before the tick.
#[test]
fn a_restart_that_waited_for_a_gateway_that_serves_nothing_is_due_though_it_serves_by_then() {
    let mut record = Record::started(&Policy::default());
    for _ in 0..3 {
        record.request(Request::Restart);
        record.exit(ExitStatus::Code(0));
        record.wait(s(2));
    }
    record.request(Request::Restart);
    record.exit(ExitStatus::Code(0));
    record.wait(Duration::from_millis(1900));
    // It makes the delay longer, and puts off nothing that is planned.
    record.request(Request::Restart);
    record.wait(Duration::from_millis(200));
    assert_eq!(record.spawns(), 5);
    record.request(Request::Restart);
    record.verdict = SERVES;
    record.wait(Duration::from_millis(500));
    record.at += s(4);
    record.request(Request::Restart);
    assert_eq!(record.count(|effect| matches!(effect, Effect::Terminate { .. })), 5);
}
