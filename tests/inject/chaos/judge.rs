//! What a run of chaos may not bring about.

use crate::support::Scene;
use crate::support::bystander::Bystander;
use crate::support::diary::Diary;
use crate::support::jail::gateways;
use crate::support::process::{Process, describe};
use crate::support::supervisor::{Line, Supervisor};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::process::ExitStatus;
use std::time::{Duration, Instant};

/// The stand-ins of the tests live for three minutes.
const AGE_MAX: Duration = Duration::from_secs(160);

pub(crate) struct Judge {
    diary: Diary,
    bystander: (Bystander, Instant),
    /// The gateways whose end has a cause that is not the supervisor.
    excused: BTreeSet<Process>,
    /// Since when each gateway has been seen.
    seen: BTreeMap<Process, Instant>,
    /// The pids of all gateways so far.
    starts: BTreeSet<i32>,
    /// Those that a SIGTERM reached.
    signalled: BTreeSet<i32>,
    /// How many lines of the diary were read.
    lines: usize,
    /// A request is under way: the gateway of now may end, and the next one.
    is_requested: bool,
    /// Port or disk were taken: a supervisor may give up.
    may_exit: bool,
    actions: Vec<String>,
    /// What the last supervisors that have ended said.
    stories: VecDeque<String>,
    slowest: Duration,
    calms: usize,
    exits: BTreeMap<String, usize>,
}

impl Judge {
    pub(crate) fn new(diary: Diary, bystander: Bystander) -> Self {
        Self {
            diary,
            bystander: (bystander, Instant::now()),
            excused: BTreeSet::new(),
            seen: BTreeMap::new(),
            starts: BTreeSet::new(),
            signalled: BTreeSet::new(),
            lines: 0,
            is_requested: false,
            may_exit: false,
            actions: Vec::new(),
            stories: VecDeque::new(),
            slowest: Duration::ZERO,
            calms: 0,
            exits: BTreeMap::new(),
        }
    }

    pub(crate) fn note(&mut self, action: &str) {
        self.actions.push(action.to_owned());
    }

    pub(crate) fn excuse(&mut self, gateway: Process) {
        self.excused.insert(gateway);
    }

    pub(crate) fn excuse_request(&mut self) {
        self.excused.extend(self.seen.keys());
        self.is_requested = true;
    }

    pub(crate) fn excuse_exits(&mut self) {
        self.may_exit = true;
    }

    /// Ends the run.
    #[track_caller]
    pub(crate) fn broken(&self, what: &str, story: &str) -> ! {
        let last: Vec<_> = self.actions.iter().rev().take(6).rev().cloned().collect();
        let stories = self.stories.iter().map(String::as_str).chain([story]).collect::<Vec<_>>().join("\n");
        panic!(
            "{what}\nthe last bursts, of {}:\n{}\n{stories}\n{}",
            self.actions.len(),
            last.join("\n"),
            self.diary.text()
        );
    }

    /// Looks at the living and the dead.
    pub(crate) fn look(&mut self, scene: &Scene, story: impl Fn() -> String) {
        // Before the text, which then has the last line of each that is gone.
        let living = gateways(scene);
        let text = self.diary.text();
        if text.lines().skip(self.lines).any(|line| line.starts_with("TWO ")) {
            self.broken("P1: two gateways at a time", &story());
        }
        for line in text.lines().skip(self.lines) {
            let mut words = line.split(' ');
            let (word, pid) = (words.next(), words.next().and_then(|pid| pid.parse::<i32>().ok()));
            match (word, pid) {
                (Some("START"), Some(pid)) => drop(self.starts.insert(pid)),
                (Some("SIGNAL"), Some(pid)) => drop(self.signalled.insert(pid)),
                // It found its port taken, or did what its script says.
                (Some("EXIT"), Some(pid)) if !self.signalled.contains(&pid) => {
                    self.excused.extend(self.seen.keys().filter(|gateway| gateway.pid == pid));
                }
                _ => {}
            }
        }
        self.lines = text.lines().count();
        // A child of a gateway looks like one until its execve(2).
        let living: Vec<_> = living.into_iter().filter(|one| self.starts.contains(&one.pid)).collect();
        for &gateway in &living {
            self.seen.entry(gateway).or_insert_with(Instant::now);
            if self.is_requested {
                self.excused.insert(gateway);
            }
        }
        let ended: Vec<_> = self.seen.keys().filter(|gateway| !living.contains(gateway)).copied().collect();
        for gateway in ended {
            let since = self.seen.remove(&gateway);
            let is_old = since.is_some_and(|since| since.elapsed() > AGE_MAX);
            if !self.excused.remove(&gateway) && !is_old && !gateway.is_alive() {
                self.broken(
                    &format!("P3: the gateway {} was ended, and nothing but us had done it harm", gateway.pid),
                    &story(),
                );
            }
        }
        if self.bystander.0.has_ended() {
            self.broken("P2: a process that is none of ours was ended", &story());
        }
    }

    /// All is well again, after this time.
    pub(crate) fn calm(&mut self, took: Duration) {
        self.slowest = self.slowest.max(took);
        self.calms += 1;
        (self.is_requested, self.may_exit) = (false, false);
        self.excused.clear();
    }

    pub(crate) fn renew_bystander(&mut self, elsewhere: &Scene) {
        if self.bystander.1.elapsed() > AGE_MAX / 2 {
            self.bystander = (Bystander::namesake(elsewhere), Instant::now());
        }
    }

    pub(crate) fn judge_exit(&mut self, one: &mut Supervisor, status: Option<ExitStatus>, was_alone: bool) {
        // For the last of its lines.
        let code = one.wait_exit();
        let is_error = |line: &&Line| match line {
            Line::Event(event) if event.name() == "supervisor.stopped" => event.number("exit_code") != 0,
            Line::Event(event) => event.name() == "log" && event.value()["level"] == "error",
            Line::Text(text) => !text.starts_with("fake-gateway:"),
        };
        let errors = one.lines().iter().filter(is_error).count();
        let stopped = one.events().into_iter().rfind(|event| event.name() == "supervisor.stopped");
        let reason = stopped.map_or_else(String::new, |event| event.text("reason").to_owned());
        self.stories.push_back(one.story());
        if self.stories.len() > 12 {
            self.stories.pop_front();
        }
        *self.exits.entry(format!("{code:?}")).or_default() += 1;
        match code {
            // It was killed.
            None => {}
            Some(0) if reason.contains("as asked") || reason.contains("detach") => {}
            // Another one owns the gateway.
            Some(78) if errors == 1 && (!was_alone || self.may_exit || reason.contains("pid")) => {}
            Some(1 | 78) if errors == 1 && self.may_exit => {}
            _ => self.broken(&format!("exit: {status:?} with {errors} lines of error: {reason}"), &one.story()),
        }
        if one.story().contains("panicked at") {
            self.broken("panic", &one.story());
        }
    }

    /// After the last stop.
    pub(crate) fn finish(&mut self, scene: &Scene, seed: u64, supervisors: usize) {
        if supervisors > 0 {
            self.broken("P5: a supervisor did not end when it was stopped", "");
        }
        let left = scene.processes();
        if !left.is_empty() {
            self.broken(&format!("P6: left behind: {}", describe(&left)), "");
        }
        let Self { actions, slowest, calms, exits, .. } = self;
        super::super::sweep::say(&format!(
            "chaos: seed {seed}, {} bursts, {calms} times back, after {slowest:?} at most; exits: {exits:?}",
            actions.len()
        ));
    }
}
