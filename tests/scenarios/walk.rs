//! Random walks: a lawful but hostile shell against the promises of the core.
//!
//! Lawful: every effect but a probe is answered in bounded time, a process exists before it ends, ticks come at the
//! deadline. Hostile: any verdict, any death, any order, lost answers, stale events, requests and jumps at any time.

use crate::fake_shell::{Answer, Broken, FakeShell, World as Outside, after, never};
use crate::world::{acquired, by, s, sighting, stranger, tree_end};
use openclaw_supervise_core::handoff::{HandoffVerdict, Support};
use openclaw_supervise_core::supervisor::TOLD_WAIT_MIN;
use openclaw_supervise_core::{
    Call, Depth, Effect, Event, ExitStatus, ExitUsage, Fact, Fingerprint, Generation, HangContext, History, HookEnd,
    Installers, LeaseAnswer, LeaseRequest, Moment, Notice, Observation, Outcome, Owner, Phase, Policy, ProbeScope,
    Remains, Report, Request, Settled, SpawnFailure, Supervisor, TreeEnd, Usage, Verdict,
};
use std::collections::BTreeMap;
use std::time::Duration;

const WALKS: u64 = 5000;
const STEPS: usize = 300;

/// The longest that the shell takes for a spawn, and for a kill of a whole tree.
const SPAWN_MAX: u64 = 1_000;
const KILL_MAX: u64 = 3_000;

/// The longest wait for the sweep for stray processes.
const SWEEP_MAX: u64 = 2_000;

struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most.max(1)
    }

    fn once_in(&mut self, many: u64) -> bool {
        self.below(many) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::try_from(self.below(from.len() as u64)).unwrap_or(0)]
    }

    fn ms(&mut self, most: u64) -> Duration {
        Duration::from_millis(self.below(most + 1))
    }
}

struct Walk {
    seed: u64,
    dice: Dice,
    policy: Policy,
    core: Supervisor,
    now: Moment,
    pending: BTreeMap<(Moment, usize), Event>,
    history: Vec<(Moment, Event)>,
    effects: Vec<Effect>,
    shell: FakeShell,
    // What the promises are checked against.
    spawns: Vec<Moment>,
    free_of_charge: Vec<Moment>,
    unclean: Vec<Moment>,
    came_up: Option<Moment>,
    excused: bool,
    open_ends: u32,
    stop_by: Option<Moment>,
    detached: bool,
    told: Option<Notice>,
    over: Option<Outcome>,
    hook_runs: bool,
    idle_ticks: u32,
}

impl Walk {
    fn new(seed: u64) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let policy = Policy {
            seed,
            max_restarts: u32::try_from(dice.below(7)).unwrap_or(0),
            restart_window: s(60 + dice.below(3600)),
            boot_limit: u32::try_from(dice.below(4)).unwrap_or(0),
            boot_window: s(dice.below(600)),
            backoff_max: s(dice.below(300)),
            stable_after: s(10 + dice.below(200)),
            stop_timeout: s(dice.below(400)),
            hung_stop_timeout: s(dice.below(20)),
            startup_timeout: s(1 + dice.below(300)),
            hang_after: s(dice.below(90)),
            pre_start: dice.once_in(2).then(|| s(dice.below(30))),
            post_stop: dice.once_in(2).then(|| s(dice.below(30))),
            memory_max_kb: dice.once_in(3).then_some(1000),
            ..Policy::default()
        };
        Self {
            seed,
            dice,
            core: Supervisor::new(policy.clone()),
            policy,
            now: s(1000),
            pending: BTreeMap::new(),
            history: Vec::new(),
            effects: Vec::new(),
            shell: FakeShell::default(),
            spawns: Vec::new(),
            free_of_charge: Vec::new(),
            unclean: Vec::new(),
            came_up: None,
            excused: false,
            open_ends: 0,
            stop_by: None,
            detached: false,
            told: None,
            over: None,
            hook_runs: false,
            idle_ticks: 0,
        }
    }

    /// Whether the last thing told is a start that the manager does not wait for.
    fn waits_long(&self) -> bool {
        let told = self.effects.iter().rev().find_map(|effect| match effect {
            Effect::Report(Report::RestartScheduled { delay, .. }) => Some(*delay),
            _ => None,
        });
        told.is_some_and(|delay| delay >= TOLD_WAIT_MIN)
    }

    fn must(&self, kept: bool, promise: &str) {
        assert!(kept, "seed {} at {:?}: {promise}\n{:?}\n{:#?}", self.seed, self.now, self.core, self.history.last());
    }

    fn later(&mut self, delay: Duration, event: Event) {
        let key = (self.now + delay, self.history.len() * 16 + self.pending.len());
        self.pending.insert(key, event);
    }

    fn send(&mut self, event: Event) {
        self.note(&event);
        let (was_over, was_free) = (self.over.is_some(), self.is_youngest_free(&event));
        let ticked = event == Event::Tick;
        self.history.push((self.now, event.clone()));
        let mut fx = Vec::new();
        self.core.step(self.now, event, &mut fx);
        self.must(!was_over || fx.is_empty(), "nothing comes after the exit");
        self.idle_ticks = if ticked && fx.is_empty() { self.idle_ticks + 1 } else { 0 };
        self.must(self.idle_ticks < 3, "a tick at the deadline changes something");
        let mut shell = std::mem::take(&mut self.shell);
        self.effects.extend(fx.iter().cloned());
        for effect in &fx {
            self.check(&shell, effect, was_free);
            match shell.perform(effect, self) {
                Ok(answer) => answer.into_iter().for_each(|(delay, event)| self.later(delay, event)),
                Err(Broken { promise, what }) => self.must(false, &format!("{promise}: {what}: {effect:?}")),
            }
        }
        self.shell = shell;
        self.check_deadline(ticked);
    }

    fn is_youngest_free(&self, event: &Event) -> bool {
        matches!(event, Event::Probed { ticket, sighting } if *ticket == self.shell.probe && sighting.verdict == Verdict::Free)
    }

    /// Follows what the event says of the world.
    fn note(&mut self, event: &Event) {
        match event {
            Event::Spawned { generation, .. } if self.shell.spawning == Some(*generation) => {
                self.open_ends += 1;
                self.came_up = None;
            }
            Event::LeaderExited { generation, death, .. } if self.shell.leader == Some(*generation) => {
                if *death != ExitStatus::Code(0) {
                    self.unclean.push(self.came_up.unwrap_or(self.now));
                }
                if self.came_up.is_some_and(|up| self.now >= up + self.policy.stable_after) {
                    self.free_of_charge.push(self.now);
                }
            }
            Event::Requested { request: Request::Stop, .. } if self.stop_by.is_none() => {
                self.excused = true;
                let hook = self.policy.post_stop.max(self.policy.pre_start).map_or(Duration::ZERO, |time| time + s(21));
                let slack = Duration::from_millis(SPAWN_MAX + 4 * KILL_MAX + SWEEP_MAX) + s(6) + hook;
                self.stop_by = Some(self.now + self.policy.stop_timeout + slack);
            }
            Event::Requested { request: Request::Restart, .. } => {
                self.excused = true;
                self.free_of_charge.push(self.now);
            }
            Event::Requested { request: Request::Detach, .. } => self.detached = true,
            _ => {}
        }
        self.shell.note(event);
    }

    /// Promises beyond the contract of the shell.
    fn check(&mut self, shell: &FakeShell, effect: &Effect, after_free: bool) {
        match effect {
            Effect::Record { .. } => self.check_start(after_free),
            Effect::Spawn { .. } => {
                self.must(self.stop_by.is_none(), "no spawn after a stop");
                self.excused = false;
            }
            Effect::Terminate { .. } => {
                self.must(self.excused, "a gateway is stopped only for a request, a hang or its memory");
            }
            Effect::Report(Report::GatewayHung { .. } | Report::MemoryExceeded { .. }) => self.excused = true,
            Effect::Report(Report::GatewayStarted { .. }) => {
                self.must(self.came_up.is_none(), "one start is reported per generation");
                self.came_up = Some(self.now);
            }
            Effect::Report(Report::GatewayExited(_)) => {
                self.must(self.open_ends > 0, "no end without a spawn");
                self.open_ends -= 1;
            }
            Effect::Report(Report::HookStarted { .. }) => {
                let begins = !std::mem::replace(&mut self.hook_runs, true);
                self.must(begins, "a hook runs alone");
            }
            Effect::Report(Report::HookFinished { .. }) => {
                let ends = std::mem::take(&mut self.hook_runs);
                self.must(ends, "a hook ends once");
            }
            Effect::Adopt { .. } | Effect::AskOwner { .. } | Effect::Watch { .. } => {
                self.must(false, "there is no predecessor and no other owner");
            }
            // What an update put off, or a gateway had planned itself, costs nothing.
            Effect::Remember { fact: Fact::Settled(Settled::Postponed) | Fact::Planned, .. } => {
                self.free_of_charge.push(self.now);
            }
            Effect::Notify(notice) => {
                self.must(self.told != Some(Notice::Stopping), "no notice after STOPPING");
                self.must(
                    *notice != Notice::Ready || self.came_up.is_some() || self.waits_long(),
                    "READY only for a gateway that has come up, or a start that is far off",
                );
                self.told = Some(*notice);
            }
            Effect::Exit(outcome) => self.check_exit(shell, outcome),
            Effect::Lease { .. }
            | Effect::SeekHeir { .. }
            | Effect::TerminateListener { .. }
            | Effect::ClearHooks { .. }
            | Effect::Follow(_)
            | Effect::Confirm { .. }
            | Effect::FinishSweep
            | Effect::Remember { .. }
            | Effect::Probe { .. }
            | Effect::Negotiate
            | Effect::Consume { .. }
            | Effect::Measure { .. }
            | Effect::Examine { .. }
            | Effect::KillTree { .. }
            | Effect::Hook { .. }
            | Effect::EndHook { .. }
            | Effect::KillHook { .. }
            | Effect::Report(_) => {}
        }
    }

    fn check_start(&mut self, after_free: bool) {
        self.must(after_free, "a spawn follows the youngest probe, and that found the port free");
        self.must(self.stop_by.is_none(), "no start after a stop");
        let (limit, window) = (self.policy.boot_limit as usize, self.policy.boot_window);
        let unclean = self.unclean.iter().filter(|at| **at + window >= self.now).count();
        self.must(limit == 0 || unclean <= limit, "no boot finds more unclean ones than the limit behind it");
        let window = self.policy.restart_window;
        let recent = |times: &[Moment]| times.iter().filter(|at| **at + window > self.now).count();
        // One exit may be followed by a start before its verdict.
        let allowed = self.policy.max_restarts as usize + recent(&self.free_of_charge) + 1;
        self.must(recent(&self.spawns) <= allowed, "spawns are bounded by the budget");
        self.spawns.push(self.now);
    }

    fn check_exit(&mut self, shell: &FakeShell, outcome: &Outcome) {
        let line = &outcome.reason;
        self.must(self.told == Some(Notice::Stopping), "STOPPING comes before the exit");
        self.must(!line.trim().is_empty() && !line.contains('\n'), "an exit comes with one line");
        self.must([0, 1, 69, 78].contains(&outcome.code), "a documented code");
        if !self.detached {
            self.must(self.open_ends == 0, "every spawn has its end on record");
            self.must(outcome.code != 0 || shell.tree.is_none(), "nothing is left behind a clean exit");
        }
        self.must(outcome.code != 0 || self.detached || self.stop_by.is_some(), "0 only on request");
        self.over = Some(outcome.clone());
    }

    fn check_deadline(&self, ticked: bool) {
        if let Some(deadline) = self.core.deadline() {
            self.must(self.over.is_none(), "no deadline after the exit");
            self.must(!ticked || deadline >= self.now, "no deadline of the past after a tick");
        } else {
            let owed = self.over.is_some() || !self.pending.is_empty();
            self.must(owed, "without a deadline an answer is owed");
        }
        if let (Some(by), None) = (self.stop_by, &self.over) {
            self.must(self.now <= by, "a stop ends within the stop timeout and a bounded kill");
        }
    }

    fn look(&mut self, ask: ProbeScope) -> Observation {
        let usual = match ask {
            ProbeScope::Port => Verdict::Free,
            ProbeScope::Listener(_) if self.dice.once_in(2) => Verdict::Free,
            ProbeScope::Listener(_) | ProbeScope::Liveness(_) => Verdict::Gateway(Phase::Started),
        };
        let odd = [
            Verdict::Free,
            Verdict::Gateway(Phase::Starting),
            Verdict::Draining,
            Verdict::Silent,
            Verdict::Foreign,
            Verdict::Malformed,
            Verdict::Inconclusive,
        ];
        let verdict = if self.dice.once_in(5) { self.dice.pick(&odd) } else { usual };
        let owner = if self.dice.once_in(8) { stranger() } else { Owner::Unseen };
        sighting(verdict, owner)
    }

    /// A random disturbance.
    fn mischief(&mut self) {
        let (ticket, generation) = (self.shell.ticket, self.shell.generation);
        let deaths = [0, 1, 78, 134].map(ExitStatus::Code);
        match self.dice.below(27) {
            0..8 => {
                if let Some(generation) = self.shell.leader {
                    let death = self.dice.pick(&deaths);
                    self.send(Event::LeaderExited { generation, death, toll: ExitUsage::default() });
                }
            }
            8..11 => self.send(Event::Requested { request: Request::Restart, by: by("SIGHUP") }),
            11 if self.dice.once_in(6) => self.send(Event::Requested { request: Request::Stop, by: by("SIGTERM") }),
            12 if self.dice.once_in(9) => self.send(Event::Requested { request: Request::Detach, by: by("SIGQUIT") }),
            13 => self.send(Event::ClockJumped { by: s(3600) }),
            14 => {
                self.send(Event::Probed { ticket: ticket + 1, sighting: sighting(Verdict::Free, Owner::Unseen) });
            }
            15 if ticket > 0 => {
                self.send(Event::Probed { ticket: ticket - 1, sighting: sighting(Verdict::Free, Owner::Unseen) });
            }
            16 => self.send(Event::TreeGone { generation: generation + 1, end: tree_end(0) }),
            17 => self.send(Event::Spawned { generation: generation + 1, pid: 6, fingerprint: Fingerprint::default() }),
            18 if generation > 1 => {
                let (generation, death) = (generation - 1, self.dice.pick(&deaths));
                self.send(Event::LeaderExited { generation, death, toll: ExitUsage::default() });
            }
            19 => self.send(Event::Tick),
            20 => {
                self.free_of_charge.push(self.now);
                self.send(Event::Requested { request: Request::Retry, by: by("retry-now") });
            }
            21 => self.send(Event::Departed { pid: 4242 }),
            22 => self.send(Event::Adopted { generation, remains: Remains::Leader { pid: 6, differs: None } }),
            23 if self.dice.once_in(2) => {
                self.send(Event::HookEnded { ticket: ticket + 1, end: HookEnd::Ended(ExitStatus::Code(0)) });
            }
            23 => self.send(Event::Leased { ticket: ticket + 1, answer: acquired(History::default()) }),
            24 => self.send(Event::Examined { generation, evidence: Some("late".to_owned()), conclusion: None }),
            25 => self.send(Event::Measured { generation, sample: Usage::default() }),
            _ => self.send(Event::Start),
        }
    }

    /// Handles what is due first.
    fn go_on(&mut self) {
        let news = self.pending.first_key_value().map(|(key, _)| key.0);
        let deadline = self.core.deadline();
        let Some(next) = [news, deadline].into_iter().flatten().min() else { return };
        let nap = self.dice.ms(60_000);
        if self.stop_by.is_none() && self.dice.once_in(4) && self.now + nap < next {
            self.now += nap;
            return self.mischief();
        }
        let late = if self.stop_by.is_none() && self.dice.once_in(40) { self.dice.ms(30_000) } else { Duration::ZERO };
        self.now = self.now.max(next) + late;
        if news == Some(next) && (deadline != Some(next) || self.dice.once_in(2)) {
            if let Some((_, event)) = self.pending.pop_first()
                && (!matches!(event, Event::LeaderExited { .. }) || self.shell.is_news(&event))
            {
                self.send(event);
            }
        } else {
            self.send(Event::Tick);
        }
    }

    fn run(mut self) -> Self {
        self.send(Event::Start);
        for _ in 0..STEPS {
            if self.over.is_none() {
                self.go_on();
            }
        }
        self.send(Event::Requested { request: Request::Stop, by: by("SIGTERM") });
        for steps in 0.. {
            if self.over.is_some() {
                break;
            }
            self.must(steps < 2_000, "a stop ends in a bounded number of steps");
            self.go_on();
        }
        self.mischief();
        self
    }
}

impl Outside for Walk {
    fn admits(&mut self, _effect: &Effect) -> Result<bool, Broken> {
        Ok(true)
    }

    fn lease(&mut self, _ticket: u64, _request: LeaseRequest) -> Answer<LeaseAnswer> {
        after(self.dice.ms(6_000), acquired(History::default()))
    }

    fn adopt(&mut self, _generation: Generation) -> Answer<Remains> {
        never()
    }

    fn watch(&mut self, _pid: i32) -> Answer<()> {
        never()
    }

    fn probe(&mut self, _ticket: u64, scope: ProbeScope) -> Answer<Observation> {
        if self.dice.once_in(30) {
            return never();
        }
        let seen = self.look(scope);
        after(self.dice.ms(6_000), seen)
    }

    fn record(&mut self, _generation: Generation) -> Answer<()> {
        if self.dice.once_in(20) { never() } else { after(self.dice.ms(12_000), ()) }
    }

    fn finish_sweep(&mut self) -> Answer<()> {
        if self.dice.once_in(4) { never() } else { after(self.dice.ms(300), ()) }
    }

    fn spawn(&mut self, _generation: Generation) -> Answer<Result<(i32, Fingerprint), SpawnFailure>> {
        let spawned = match self.dice.below(12) {
            0 => Err(SpawnFailure::Resources("EAGAIN".to_owned())),
            1 => Err(SpawnFailure::Program("not found".to_owned())),
            _ => Ok((5, Fingerprint::default())),
        };
        after(self.dice.ms(SPAWN_MAX), spawned)
    }

    fn negotiate(&mut self) -> Answer<Support> {
        let support = match self.dice.below(4) {
            0 => Support::Unsupported("exit code 1".to_owned()),
            1 => Support::TimedOut("no answer".to_owned()),
            _ => Support::Supported,
        };
        after(self.dice.ms(31_000), support)
    }

    fn consume(&mut self, _generation: Generation, _pid: i32) -> Answer<HandoffVerdict> {
        let verdict = match self.dice.below(6) {
            0 => HandoffVerdict::Missing,
            1 => HandoffVerdict::Rejected("expired".to_owned()),
            2 => HandoffVerdict::TimedOut("30 s".to_owned()),
            3 => HandoffVerdict::Unsupported("exit code 1".to_owned()),
            _ => HandoffVerdict::Accepted("SIGUSR2".to_owned()),
        };
        let delay = self.dice.ms(61_000);
        if self.dice.once_in(20) { never() } else { after(delay, verdict) }
    }

    fn measure(&mut self, _generation: Generation, _depth: Depth, _tree: bool) -> Answer<Usage> {
        let cpu = (!self.dice.once_in(9)).then(|| self.now / self.dice.pick(&[1, 15, 25, 1000]));
        let tree_rss_kb = (!self.dice.once_in(9)).then(|| self.dice.below(1500));
        after(Duration::ZERO, Usage { cpu, tree_rss_kb, ..Usage::default() })
    }

    fn examine(&mut self, _generation: Generation, _case: &HangContext) -> Answer<Option<String>> {
        if self.dice.once_in(4) { never() } else { after(self.dice.ms(9000), None) }
    }

    fn terminate(&mut self, _generation: Generation) -> Answer<ExitStatus> {
        if self.dice.once_in(2) {
            return never();
        }
        after(self.dice.ms(400_000), self.dice.pick(&[ExitStatus::Code(0), ExitStatus::Code(143)]))
    }

    fn kill_tree(&mut self, generation: Generation, _installers: Installers) -> Answer<TreeEnd> {
        let survivors = u32::from(self.dice.once_in(6));
        if survivors == 0 {
            let (delay, death) = (self.dice.ms(KILL_MAX), ExitStatus::Signal { number: 9, core_dumped: false });
            self.later(delay, Event::LeaderExited { generation, death, toll: ExitUsage::default() });
        }
        after(self.dice.ms(KILL_MAX), tree_end(survivors))
    }

    fn hook(&mut self, _ticket: u64, _call: &Call) -> Answer<HookEnd> {
        let (delay, code) = (self.dice.ms(30_000), self.dice.pick(&[0, 0, 0, 1]));
        after(delay, HookEnd::Ended(ExitStatus::Code(code)))
    }

    fn end_hook(&mut self, _ticket: u64) -> Answer<HookEnd> {
        after(self.dice.ms(20_000), HookEnd::Ended(ExitStatus::Unknown))
    }

    fn kill_hook(&mut self, ticket: u64) -> Answer<HookEnd> {
        self.end_hook(ticket)
    }
}

#[test]
fn no_walk_breaks_a_promise_and_every_walk_replays() {
    let mut codes = BTreeMap::new();
    for seed in 0..WALKS {
        let walk = Walk::new(seed).run();
        let mut again = Supervisor::new(walk.policy.clone());
        let mut effects = Vec::new();
        for (now, event) in &walk.history {
            again.step(*now, event.clone(), &mut effects);
        }
        assert_eq!(effects, walk.effects, "seed {seed}: the same events give the same effects");
        *codes.entry(walk.over.map_or(255, |outcome| outcome.code)).or_insert(0u32) += 1;
    }
    for code in [0, 69, 78] {
        assert!(codes.get(&code).is_some_and(|walks| *walks > 50), "the walks reach every kind of end: {codes:?}");
    }
}

#[test]
fn no_number_makes_the_machine_panic() {
    for extreme in [Duration::ZERO, Duration::from_nanos(1), Duration::MAX, s(u64::MAX)] {
        for seed in 0..100 {
            let policy = Policy {
                startup_timeout: extreme,
                stop_timeout: extreme,
                hung_stop_timeout: extreme,
                hang_after: extreme,
                probe_interval: extreme,
                probe_timeout: extreme,
                restart_window: extreme,
                backoff_max: extreme,
                stable_after: extreme,
                boot_window: extreme,
                conflict_timeout: extreme,
                pre_start: Some(extreme),
                post_stop: Some(extreme),
                ..Policy::default()
            };
            let mut core = Supervisor::new(policy);
            for (now, event) in Walk::new(seed).run().history {
                core.step(now, event, &mut Vec::new());
                assert!(core.deadline().is_none_or(|deadline| deadline >= s(1000)));
            }
        }
    }
}
