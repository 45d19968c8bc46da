//! Records of one supervisor that the judge once condemned, though the protocol was right.

use crate::fake_shell::Broken;
use crate::trial::{Input, Trial};
use openclaw_supervise_core::event::PauseRequest;
use openclaw_supervise_core::lease::{Basis, LOST_DRAIN};
use openclaw_supervise_core::policy::OnConflict;
use openclaw_supervise_core::{
    Acquired, Effect, Event, ExitStatus, ExitUsage, Fingerprint, History, Holder, LeaseAnswer, Moment, Observation,
    Owner, Phase, Policy, Recovered, Remains, Report, Request, Requester, Supervisor, TreeEnd, Verdict,
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

fn ours(pid: i32) -> Owner {
    Owner::Ours(Holder { pid, command: "openclaw-gateway".to_owned(), uid: None })
}

/// A supervisor that is judged, with a shell that answers at once.
struct Record {
    trial: Trial,
    at: Moment,
    /// What the port and the gateway answer, and as which process; nothing if it is mute.
    verdict: Verdict,
    owner: Owner,
    is_mute: bool,
    /// What is found of an earlier gateway.
    remains: Remains,
    basis: Basis,
    /// What an earlier supervisor has left is looked for in vain.
    is_clearing: bool,
}

impl Record {
    fn new(policy: &Policy) -> Self {
        let trial = Trial::new(Supervisor::new(policy.clone()), policy);
        Self {
            trial,
            at: s(1000),
            verdict: Verdict::Free,
            owner: Owner::Unseen,
            is_mute: false,
            remains: Remains::Nothing { pid: None },
            basis: Basis::Lock,
            is_clearing: false,
        }
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
        Some(match *effect {
            Effect::Lease { ticket, .. } => {
                let recovered = self.is_clearing.then(|| Recovered { pid: None, why: "its lock is free".to_owned() });
                let (basis, past) = (self.basis, History::default());
                let acquired = Acquired { epoch: 1, basis, recovered, past, trouble: None };
                Event::Leased { ticket, answer: LeaseAnswer::Acquired(Box::new(acquired)) }
            }
            Effect::Probe { .. } if self.is_mute => return None,
            Effect::Probe { ticket, .. } => Event::Probed { ticket, sighting: self.sighting() },
            Effect::Adopt { generation } => Event::Adopted { generation, remains: self.remains.clone() },
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

    fn sighting(&self) -> Observation {
        let owner = if self.verdict == Verdict::Free { Owner::Unseen } else { self.owner.clone() };
        Observation { verdict: self.verdict, owner, detail: String::new(), readiness: None, moved: None }
    }

    /// Answers the last probe of one that was mute.
    fn tell(&mut self, verdict: Verdict) {
        self.verdict = verdict;
        let (ticket, sighting) = (self.trial.judge.ticket(), self.sighting());
        self.send(Event::Probed { ticket, sighting });
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

/// Seed 3182598: it restarts in place, and that has the time of a boot, however it answered before.
#[test]
fn one_that_drained_answered_badly_and_closed_its_port_has_the_time_of_a_boot() {
    let mut record = Record::started(&Policy { startup_timeout: s(4), ..Policy::default() });
    record.verdict = SERVES;
    record.wait(s(3));
    for (verdict, time) in [(Verdict::Draining, 20), (Verdict::Foreign, 10), (Verdict::Free, 30)] {
        record.verdict = verdict;
        record.wait(s(time));
    }
    assert_eq!(record.count(|effect| matches!(effect, Effect::Examine { .. })), 1);
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

/// Seed 3965008: the answer came when the time of the drain was over.
#[test]
fn a_stop_is_passed_on_in_the_step_in_which_a_lost_lease_ends_the_gateway() {
    let mut record = Record::new(&Policy::default());
    record.owner = ours(150);
    record.send(Event::Start);
    record.verdict = SERVES;
    record.wait(s(1));
    record.is_mute = true;
    record.send(Event::LeaseLost { owner: None, why: "it was taken by hand".to_owned() });
    record.wait(s(1));
    record.send(Event::LeaderExited { generation: 1, death: ExitStatus::Code(0), toll: ExitUsage::default() });
    record.at += LOST_DRAIN;
    record.tell(SERVES);
    assert_eq!(record.count(|effect| matches!(effect, Effect::TerminateListener { .. })), 1);
}

/// Seed 3232605.
#[test]
fn a_start_after_two_times_in_standby_waits_from_the_first_of_them() {
    let policy = Policy { on_conflict: OnConflict::Standby, max_restarts: 0, ..Policy::default() };
    let mut record = Record::started(&policy);
    record.verdict = Verdict::Foreign;
    record.owner = Owner::Other(Holder { pid: 4242, command: "node other.mjs".to_owned(), uid: None });
    record.send(Event::LeaderExited { generation: 1, death: ExitStatus::Code(78), toll: ExitUsage::default() });
    for times in 1..=2 {
        record.is_mute = false;
        while record.count(|effect| matches!(effect, Effect::Report(Report::StandbyEntered { .. }))) < times {
            record.wait(s(1));
        }
        record.is_mute = true;
        while record.count(|effect| matches!(effect, Effect::Report(Report::StandbyLeft { .. }))) < times {
            record.wait(s(1));
            record.tell(Verdict::Free);
        }
        record.tell(if times == 1 { Verdict::Foreign } else { Verdict::Free });
    }
    assert_eq!((record.spawns(), record.trial.judge.is_over()), (1, false));
}

/// Seed 4415160.
#[test]
fn a_gateway_of_ours_that_cannot_be_found_is_reported_as_the_one_that_holds_the_port() {
    let mut record = Record::new(&Policy::default());
    (record.verdict, record.owner) = (SERVES, ours(102));
    record.send(Event::Start);
    let alive = record.trial.take(record.at, Input::Alive(1, 3));
    assert!(alive.is_ok());
    record.wait(s(60));
    assert!(record.trial.judge.is_over());
}

/// Seed 2235294.
#[test]
fn a_gateway_that_is_found_is_the_start_that_was_forced() {
    let mut record = Record::new(&Policy::default());
    record.is_mute = true;
    record.send(Event::Start);
    record.pause(s(10));
    record.request(Request::RetryForced);
    record.is_mute = false;
    (record.verdict, record.owner) = (Verdict::Booting, ours(101));
    record.remains = Remains::Leader { pid: 101, differs: None };
    record.wait(s(20));
    record.exit(ExitStatus::Unknown);
    record.wait(s(2));
    assert_eq!(record.spawns(), 1);
}
