//! One phase in the life of a supervisor, with one of its system calls failed or delayed, and what was seen from outside.

use super::calls;
use super::notifier::{Door, Failure, Hit, Notifier, Plan};
use crate::support::bystander::Bystander;
use crate::support::jail::gateways;
use crate::support::ledger::Ledger;
use crate::support::process::{Process, describe};
use crate::support::supervisor::{Line, Said, Supervisor, Verb};
use crate::support::{Scene, http, let_pass};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::fmt;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Start,
    Duplicate,
    Respawn,
    Adoption,
    Hang,
    Restart,
    Stop,
}

pub(crate) const PHASES: [Phase; 7] =
    [Phase::Start, Phase::Duplicate, Phase::Respawn, Phase::Adoption, Phase::Hang, Phase::Restart, Phase::Stop];

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{self:?}").to_lowercase())
    }
}

/// How the supervisor under the failure went on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum End {
    /// It did what the phase is about, and ended with 0 when it was stopped.
    Done,
    /// It ended by itself.
    Exit(i32),
    /// By a signal.
    Killed(i32),
    /// It did neither.
    Stuck,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Done => f.write_str("done"),
            Self::Exit(code) => write!(f, "exit {code}"),
            Self::Killed(signal) => write!(f, "signal {signal}"),
            Self::Stuck => f.write_str("stuck"),
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) end: End,
    /// `None` if the phase was over before that call.
    pub(crate) hit: Option<Hit>,
    /// The promises that were broken.
    pub(crate) broken: Vec<String>,
    /// Until the end of the phase.
    pub(crate) took: Duration,
    pub(crate) counts: BTreeMap<String, u32>,
    /// What the processes wrote.
    pub(crate) story: String,
}

/// A phase takes so long at most; the waits of the program within it are 10 s and less. Beside a lock that cannot be taken
/// the heartbeat of another owner is watched for 30 s.
const BOUND: Duration = Duration::from_secs(25);
const BOUND_OF_A_LEASE: Duration = Duration::from_mins(1);

/// For what follows the goal, such as records and notices, in which calls still count.
const AFTERWARDS: Duration = Duration::from_millis(250);

/// Between two looks.
const TICK: Duration = Duration::from_millis(10);

/// What a phase was waited for with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// Its goal was reached.
    Reached,
    /// The supervisor ended.
    Ended(ExitStatus),
    /// The bound has passed.
    Neither,
}

/// The world of one case.
struct World {
    phase: Phase,
    scene: Scene,
    plan: Option<Plan>,
    broken: Vec<String>,
    story: String,
}

/// Runs one phase. Without a plan nothing fails and every call is counted.
pub(crate) fn run(phase: Phase, plan: Option<&Plan>, bystander: &mut Bystander) -> Outcome {
    let scene = Scene::new("boot=20ms kid=setsid kid=daemon");
    let mut world = World { phase, scene, plan: plan.cloned(), broken: Vec::new(), story: String::new() };
    let (end, notifier, took) = world.play();
    if bystander.has_ended() {
        world.broken.push("P2: a process that is none of ours was ended".to_owned());
    }
    let text = world.scene.diary().text();
    if text.contains("TWO ") || text.contains("BUSY ") {
        world.broken.push("P1: two gateways at a time".to_owned());
    }
    world.story.push_str(&text);
    let (hit, counts) = (notifier.hit(), notifier.counts());
    Outcome { end, hit, broken: world.broken, took, counts, story: world.story }
}

impl World {
    fn play(&mut self) -> (End, Notifier, Duration) {
        // The supervisor before the one whose calls are answered.
        let mut first = match self.phase {
            Phase::Duplicate | Phase::Adoption => Some(self.scene.start()),
            _ => None,
        };
        let mut gateway = first.as_mut().map(Supervisor::wait_started);
        if let (Some(first), Phase::Adoption) = (first.as_mut(), self.phase) {
            self.scene.diary().wait_kids(2);
            Ledger::of(&self.scene).wait_number("SELECT count(*) FROM generations WHERE started_at IS NOT NULL", 1);
            first.signal(Signal::SIGKILL);
            first.wait_exit();
        }
        let is_whole = matches!(self.phase, Phase::Start | Phase::Duplicate | Phase::Adoption);
        let door = Door::open(self.scene.root()).expect("a socket in a scratch folder");
        let calls: Vec<_> = self.plan.iter().filter_map(|plan| plan.call.split(' ').next()).collect();
        let words = door.words(&calls);
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let mut started = Instant::now();
        let mut supervisor = Supervisor::spawn(self.scene.launch().behind(&words));
        let notifier = door.answer(self.scene.root(), self.plan.clone(), is_whole);
        let mut verb = None;
        if !is_whole {
            gateway = Some(supervisor.wait_started());
            self.scene.diary().wait_kids(2);
            notifier.begin();
            started = Instant::now();
            verb = self.disturb(&supervisor, gateway);
        }
        let before = gateway;
        let status = self.wait(&mut supervisor, before, started);
        let took = started.elapsed();
        if status == Seen::Reached {
            let_pass(AFTERWARDS);
        }
        notifier.end();
        if let Some(verb) = verb {
            self.judge_verb(&verb.end());
        }
        let end = self.settle(&mut supervisor, status, before);
        self.story.push_str(&supervisor.story());
        if let (Some(first), Phase::Duplicate) = (first.as_mut(), self.phase) {
            self.judge_first(first, before);
        }
        if let (Phase::Adoption | Phase::Duplicate, Some(first)) = (self.phase, &first) {
            self.story.insert_str(0, &first.story());
        }
        (end, notifier, took)
    }

    /// What the phase begins with.
    fn disturb(&self, supervisor: &Supervisor, gateway: Option<Process>) -> Option<Verb> {
        let gateway = gateway?;
        match self.phase {
            Phase::Start | Phase::Duplicate | Phase::Adoption => {}
            Phase::Respawn => gateway.kill(),
            Phase::Hang => self.scene.diary().command(gateway.pid, "freeze"),
            Phase::Restart => return Some(Verb::start(&self.scene, &["restart", "--timeout", "15s"])),
            Phase::Stop => supervisor.signal(Signal::SIGTERM),
        }
        None
    }

    fn wait(&self, supervisor: &mut Supervisor, before: Option<Process>, since: Instant) -> Seen {
        let is_lease = self.plan.as_ref().is_some_and(|plan| plan.call == "flock lock");
        let delay = match self.plan.as_ref().map(|plan| plan.failure) {
            Some(Failure::Delay(time)) => time,
            _ => Duration::ZERO,
        };
        let bound = delay + if is_lease { BOUND_OF_A_LEASE } else { BOUND };
        while since.elapsed() < bound {
            if let Some(status) = supervisor.try_exit() {
                return Seen::Ended(status);
            }
            if self.is_reached(supervisor, before) {
                return Seen::Reached;
            }
            let_pass(TICK);
        }
        Seen::Neither
    }

    fn is_reached(&self, supervisor: &Supervisor, before: Option<Process>) -> bool {
        let is_up = || http::startup_status(self.scene.port()).is_some_and(|status| status == "started");
        let is_new = || self.scene.diary().starts().last().is_some_and(|last| Some(last.process) != before);
        match self.phase {
            Phase::Start | Phase::Respawn | Phase::Hang => is_new() && is_up(),
            // What was refused is told by the verb.
            Phase::Restart => is_up() && (is_new() || supervisor.age() > BOUND / 2),
            // A line of the log may be lost.
            Phase::Adoption => {
                is_up() && (is_new() || supervisor.count("gateway.adopted") > 0 || self.is_managed(supervisor))
            }
            Phase::Duplicate | Phase::Stop => false,
        }
    }

    fn is_managed(&self, supervisor: &Supervisor) -> bool {
        supervisor.age() > BOUND / 2 && Said::by(&self.scene, &["status"]).code == Some(0)
    }

    /// Ends what lives, and judges it.
    fn settle(&mut self, supervisor: &mut Supervisor, status: Seen, before: Option<Process>) -> End {
        let expected = match self.phase {
            Phase::Start | Phase::Duplicate | Phase::Adoption | Phase::Stop => 1,
            Phase::Respawn | Phase::Hang | Phase::Restart => 2,
        };
        let served = self.scene.diary().text().lines().filter(|line| line.starts_with("LISTEN ")).count();
        if served > expected {
            self.broken.push(format!("P3: {served} gateways served in place of {expected}"));
        }
        match status {
            Seen::Neither => {
                self.broken.push("bound: it neither went on nor ended".to_owned());
                supervisor.signal(Signal::SIGTERM);
                if !ends_soon(supervisor) {
                    self.broken.push("P5: nor did it end when it was stopped".to_owned());
                }
                End::Stuck
            }
            Seen::Reached => {
                if self.phase == Phase::Adoption && gateways(&self.scene).first().copied() != before {
                    self.broken.push("P3: the healthy gateway was not adopted".to_owned());
                }
                supervisor.signal(Signal::SIGTERM);
                if !ends_soon(supervisor) {
                    self.broken.push("P5: it did not end when it was stopped".to_owned());
                    return End::Stuck;
                }
                match supervisor.wait_exit() {
                    Some(0) => self.nothing_is_left("after the stop"),
                    None if self.is_about_memory() => self.converge(before),
                    code => self.broken.push(format!("exit: the stop ended with {code:?}")),
                }
                self.judge_lines(supervisor, Some(0));
                End::Done
            }
            Seen::Ended(status) => self.judge_exit(supervisor, status, before),
        }
    }

    fn judge_exit(&mut self, supervisor: &mut Supervisor, status: ExitStatus, before: Option<Process>) -> End {
        // For the last of its lines.
        supervisor.wait_exit();
        let code = status.code();
        self.judge_lines(supervisor, code);
        let is_stop = self.phase == Phase::Stop;
        match code {
            Some(0) if !is_stop => self.broken.push("exit: 0 without a stop".to_owned()),
            Some(2 | 69 | 78) if self.phase != Phase::Duplicate && self.passes() => {
                self.broken.push(format!("exit: {code:?} for what passes"));
            }
            Some(0 | 1 | 69 | 78) => {}
            // Where there is no memory, Rust aborts.
            None if status.signal() == Some(libc::SIGABRT) && self.is_about_memory() => {}
            _ => self.broken.push(format!("exit: {status}")),
        }
        let is_allowed = |process: &Process| match self.phase {
            Phase::Duplicate => true,
            // What it did not adopt is none of its processes.
            Phase::Adoption => {
                before.is_some_and(Process::is_alive) && *process != Process::find(supervisor.pid()).unwrap_or(*process)
            }
            _ => false,
        };
        let left: Vec<_> = self.scene.processes().into_iter().filter(|process| !is_allowed(process)).collect();
        if code.is_some() && !left.is_empty() && self.phase != Phase::Adoption {
            self.broken.push(format!("P6: left behind: {}", describe(&left)));
        }
        if self.phase == Phase::Adoption && !before.is_some_and(Process::is_alive) {
            self.broken.push("P3: the healthy gateway was ended".to_owned());
        }
        if self.phase == Phase::Start && code.is_some() && self.scene.diary().text().contains("LISTEN ") {
            self.broken.push("P3: the supervisor ended, and its healthy gateway with it".to_owned());
        }
        if self.phase != Phase::Duplicate {
            self.converge(before);
        }
        status.signal().map_or(End::Exit(code.unwrap_or(-1)), End::Killed)
    }

    /// The next start has one healthy gateway, and a stop leaves nothing.
    fn converge(&mut self, before: Option<Process>) {
        let kept = before.filter(|gateway| gateway.is_alive() && self.phase != Phase::Hang);
        let mut next = self.scene.start();
        let since = Instant::now();
        let is_up = || http::startup_status(self.scene.port()).is_some_and(|status| status == "started");
        let has_one = |next: &Supervisor| next.count("gateway.started") + next.count("gateway.adopted") > 0 && is_up();
        while since.elapsed() < BOUND && !has_one(&next) && next.try_exit().is_none() {
            let_pass(TICK);
        }
        if !has_one(&next) || gateways(&self.scene).len() != 1 || next.try_exit().is_some() {
            self.broken.push("P8: the next start has no gateway".to_owned());
        } else if kept.is_some_and(|gateway| !gateway.is_alive()) {
            self.broken.push("P3: the next start ended a healthy gateway".to_owned());
        }
        if next.try_exit().is_none() {
            next.signal(Signal::SIGTERM);
            if !ends_soon(&mut next) || next.wait_exit() != Some(0) {
                self.broken.push("P5: the next supervisor did not end when it was stopped".to_owned());
            }
            self.nothing_is_left("after the stop of the next one");
        }
        self.story.push_str(&next.story());
    }

    fn judge_verb(&mut self, said: &Said) {
        let is_told = said.code == Some(0) || said.out.lines().chain(said.err.lines()).count() == 1;
        if !is_told || said.err.contains("panicked") {
            self.broken.push(format!("P7: the verb says neither yes nor why not: {said}"));
        }
    }

    fn judge_first(&mut self, first: &mut Supervisor, gateway: Option<Process>) {
        let is_served = http::startup_status(self.scene.port()).is_some_and(|status| status == "started");
        if !is_served || gateways(&self.scene).first().copied() != gateway || first.try_exit().is_some() {
            self.broken.push("P3: a duplicate disturbed the first one".to_owned());
            return;
        }
        if self.scene.diary().starts().len() != 1 {
            self.broken.push("P1: a duplicate started a gateway".to_owned());
        }
        first.signal(Signal::SIGTERM);
        if !ends_soon(first) {
            self.broken.push("P5: the first one did not end when it was stopped".to_owned());
        }
        self.nothing_is_left("after the stop of the first one");
    }

    /// A non-zero exit has one line of error, and a panic none.
    fn judge_lines(&mut self, supervisor: &Supervisor, code: Option<i32>) {
        let is_error = |line: &&Line| match line {
            Line::Event(event) if event.name() == "supervisor.stopped" => event.number("exit_code") != 0,
            Line::Event(event) => event.name() == "log" && event.value()["level"] == "error",
            Line::Text(text) => !text.starts_with("fake-gateway:"),
        };
        let lines = supervisor.lines();
        let errors: Vec<_> = lines.iter().filter(is_error).collect();
        let is_lost = self.plan.as_ref().is_some_and(|plan| plan.call.starts_with("write pipe"));
        match code {
            Some(0) | None => {}
            Some(_) if errors.len() == 1 || is_lost => {}
            Some(code) => self.broken.push(format!("P7: exit {code} with {} lines of error", errors.len())),
        }
        let is_panic = |line: &Line| matches!(line, Line::Text(text) if text.contains("panicked at"));
        // The standard library makes the stack for the signal handlers of each thread so.
        let is_out_of_memory = self.is_about_memory() && supervisor.story().contains("alternative stack");
        if lines.iter().any(is_panic) && !is_out_of_memory {
            self.broken.push("panic".to_owned());
        }
    }

    fn nothing_is_left(&mut self, when: &str) {
        let left = self.scene.processes();
        if !left.is_empty() {
            self.broken.push(format!("P6: left {when}: {}", describe(&left)));
        }
    }

    /// Whether another start may help: the errors of a lack that ends.
    fn passes(&self) -> bool {
        const PASSING: [i32; 10] = [
            libc::EAGAIN,
            libc::EDQUOT,
            libc::EINTR,
            libc::EIO,
            libc::EMFILE,
            libc::ENFILE,
            libc::ENOBUFS,
            libc::ENOMEM,
            libc::ENOSPC,
            libc::EBUSY,
        ];
        match self.plan.as_ref().map(|plan| plan.failure) {
            Some(Failure::Errno(errno)) => PASSING.contains(&errno),
            Some(Failure::Delay(_)) | None => true,
        }
    }

    fn is_about_memory(&self) -> bool {
        let call = self.plan.as_ref().map_or("", |plan| plan.call.split(' ').next().unwrap_or_default());
        ["mmap", "mprotect", "mremap", "munmap", "madvise"].contains(&call)
    }
}

fn ends_soon(supervisor: &mut Supervisor) -> bool {
    let since = Instant::now();
    while since.elapsed() < BOUND {
        if supervisor.try_exit().is_some() {
            return true;
        }
        let_pass(TICK);
    }
    false
}

/// `openat sqlite: ENOSPC`
pub(crate) fn describe_plan(plan: &Plan) -> String {
    match plan.failure {
        Failure::Errno(errno) => format!("{}: {}", plan.call, calls::errno_name(errno)),
        Failure::Delay(time) => format!("{}: slow by {time:?}", plan.call),
    }
}
