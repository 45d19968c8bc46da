//! The world around a port: supervisors, gateways, strangers, an operator, a machine; and the shell between them.
//!
//! The shell is lawful (every spawn and kill is answered, a probe within its timeout unless it is lost) and as unordered
//! as the real one: the news of a death, of a dead tree and of a probe travel on their own.

#[path = "world/hooks.rs"]
mod hooks;
#[path = "world/outside.rs"]
mod outside;
#[path = "world/shell.rs"]
mod shell;
#[path = "world/store.rs"]
mod store;
#[path = "world/supervisors.rs"]
mod supervisors;

use crate::dice::Dice;
use crate::fake_shell::{Broken, FakeShell};
use crate::gateway::{Habit, Life, MEMORY_MAX_KB, Show};
use crate::judge::{KILL_MAX, TICK_LATE_MAX};
use crate::trial::{Input, Maker, Trial};
use hooks::HookRun;
use openclaw_supervise_core::policy::OnConflict;
use openclaw_supervise_core::{
    Event, ExitStatus, ExitUsage, Fingerprint, Generation, HookEnd, LeaseRequest, Moment, Phase, Policy, ProbeScope,
    Request, Verdict,
};
use std::collections::BTreeMap;
use std::time::Duration;
use store::Store;
use supervisors::Kills;

/// More inputs than this make a walk no better.
const STEPS_MAX: usize = 1200;

/// Once the faults have stopped, supervisors that are still to be started come within this time.
const SOON: Duration = Duration::from_secs(20);

/// The longest that a hook takes beyond its time, with the rest of an older one.
const HOOK_MAX: Duration = Duration::from_secs(40);

/// The longest that evidence is waited for.
const EVIDENCE_MAX: Duration = Duration::from_secs(5);

/// The most that an outer manager leaves a gateway to stop.
const STOP_BUDGET_MAX: Duration = Duration::from_mins(1);

/// The process id of whoever is a stranger on the port.
const STRANGER: i32 = 4242;

/// Whoever can hold the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Gateway(usize),
    Stranger(Verdict),
}

/// Something that will happen. Those with a supervisor first happen to it alone, if it still runs by then.
#[derive(Debug, Clone)]
enum Happening {
    Deliver(usize, Event),
    /// A probe looks at the port.
    Look(usize, u64, ProbeScope),
    /// The store tries to take the lease.
    Lease(usize, u64, LeaseRequest),
    /// An earlier gateway is looked for.
    Seek(usize, Generation),
    /// The start of a gateway is written down.
    Record(usize, Generation, Moment),
    /// The store looks whether the lease is still that of its owner.
    Confirm(usize, u64),
    /// A process is created, after its start was written down.
    Fork(usize, Generation),
    /// A supervisor is started.
    Begin,
    /// One is killed.
    Kill,
    /// The lease is taken away.
    Steal,
    /// A gateway begins what it is fated to do. Does not happen any more once the faults have stopped.
    Fated(usize),
    Shows(usize, Show),
    Dies(usize, ExitStatus),
    /// The other processes of a tree are gone.
    Clears(usize),
    /// A hook is started, once nothing of an older one is left.
    HookBegins(usize),
    /// Nothing of it is left.
    HookEnds(usize, HookEnd),
    StrangerComes(Verdict, Duration),
    StrangerTurns(Verdict),
    StrangerLeaves,
    Operator(Request),
    /// One supervisor alone, or the whole machine, stands still.
    Pause(Duration, bool),
    Jump(Duration),
}

impl Happening {
    fn addressee(&self) -> Option<usize> {
        match self {
            Self::Deliver(sup, _)
            | Self::Look(sup, ..)
            | Self::Lease(sup, ..)
            | Self::Seek(sup, _)
            | Self::Record(sup, ..)
            | Self::Confirm(sup, _)
            | Self::Fork(sup, _) => Some(*sup),
            _ => None,
        }
    }
}

/// One supervisor and its judge.
pub(crate) struct Sup {
    pub(crate) trial: Trial,
    shell: FakeShell,
    pid: i32,
    up: bool,
    tick_late: Duration,
    paused_until: Moment,
    /// The lease was taken away from it, by hand where `stolen` says so.
    robbed: bool,
    stolen: bool,
}

#[expect(clippy::struct_excessive_bools, reason = "what a world is like; every mix of it is to be tried")]
pub(crate) struct World<'a> {
    dice: Dice,
    pub(crate) policy: Policy,
    make: Maker<'a>,
    /// In the order in which they were started.
    pub(crate) sups: Vec<Sup>,
    /// The one whose turn it is.
    pub(crate) acting: usize,
    now: Moment,
    queue: BTreeMap<(Moment, u64), Happening>,
    sequence: u64,
    lives: Vec<Life>,
    hook_runs: Vec<HookRun>,
    bound: Option<Bound>,
    store: Store,
    /// How many are about to be started.
    starting: u32,
    /// When the last one was.
    begun: Moment,
    kills: Kills,
    performed: u64,
    steps: usize,
    /// The faults have stopped.
    calm: bool,
    /// Everybody is asked to end.
    ending: bool,
    /// Nobody can see who owns a socket.
    hidden: bool,
    /// The store lies where only a heartbeat shows whether an owner lives.
    remote: bool,
    /// Descriptors are short: an earlier gateway can hardly be looked for.
    scarce: bool,
    /// The store gets lost now and then.
    fragile: bool,
    /// What its gateways do again and again.
    habit: Option<Habit>,
    /// Their command line can be asked about a planned restart.
    knows_handoffs: bool,
    /// Stands for their configuration and program.
    fingerprint: Fingerprint,
    /// How much goes wrong: one probe in so many, one spawn, one operator.
    trouble: u64,
    calm_at: Moment,
}

/// Numbers as operators set them: the defaults, or any.
fn policy(seed: u64, dice: &mut Dice) -> Policy {
    let known = Policy { seed, ..Policy::default() };
    if dice.once_in(4) {
        return known;
    }
    Policy {
        startup_timeout: dice.s(2, 120),
        probe_interval: dice.s(1, 10),
        probe_timeout: dice.s(1, 5),
        hang_after: dice.s(1, 60),
        stop_timeout: if dice.once_in(3) { known.stop_timeout } else { dice.s(0, 60) },
        hung_stop_timeout: dice.s(0, 60),
        max_restarts: dice.small(8),
        restart_window: dice.s(60, 3600),
        backoff_max: if dice.once_in(2) { known.backoff_max } else { dice.ms(1, 60_000) },
        stable_after: dice.s(1, 120),
        boot_limit: dice.small(4),
        boot_window: dice.s(1, 300),
        conflict_timeout: dice.s(0, 60),
        conflict_exit_code: dice.pick(&[78, 78, 78, 75]),
        pre_start: dice.once_in(3).then(|| dice.s(0, 30)),
        post_stop: dice.once_in(3).then(|| dice.s(0, 30)),
        repair: dice.once_in(3).then(|| dice.s(0, 300)),
        handoff: !dice.once_in(3),
        memory_max_kb: dice.once_in(3).then_some(MEMORY_MAX_KB),
        on_conflict: if dice.once_in(3) { OnConflict::Standby } else { OnConflict::Exit },
        ..known
    }
}

impl<'a> World<'a> {
    pub(crate) fn new(seed: u64, make: Maker<'a>) -> Self {
        let mut dice = Dice::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let policy = policy(seed, &mut dice);
        let refusing = if policy.repair.is_some() { Habit::Refusing } else { Habit::Crashing };
        let mut world = Self {
            policy,
            make,
            sups: Vec::new(),
            acting: 0,
            now: Duration::from_secs(1000),
            queue: BTreeMap::new(),
            sequence: 0,
            lives: Vec::new(),
            hook_runs: Vec::new(),
            bound: None,
            store: Store::default(),
            starting: 1,
            begun: Moment::ZERO,
            kills: Kills::any(&mut dice),
            performed: 0,
            steps: 0,
            calm: false,
            ending: false,
            hidden: dice.once_in(6),
            remote: dice.once_in(6),
            scarce: dice.once_in(10),
            fragile: dice.once_in(10),
            habit: dice.once_in(3).then(|| {
                dice.pick(&[
                    Habit::Restless,
                    Habit::Restless,
                    Habit::Crashing,
                    refusing,
                    Habit::Refusing,
                    Habit::Succeeding,
                ])
            }),
            knows_handoffs: !dice.once_in(4),
            fingerprint: Fingerprint::default(),
            trouble: dice.pick(&[15, 40, 40, 100_000]),
            calm_at: Moment::ZERO,
            dice,
        };
        world.plan_trouble();
        world
    }

    fn later(&mut self, delay: Duration, happening: Happening) {
        self.at(self.now.saturating_add(delay), happening);
    }

    fn at(&mut self, at: Moment, happening: Happening) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), happening);
    }

    /// One thing happens.
    fn happen(&mut self, happening: Happening) -> Result<(), Broken> {
        if let Some(sup) = happening.addressee() {
            let Sup { up, paused_until, .. } = self.sups[sup];
            if !up {
                return Ok(());
            }
            if paused_until > self.now {
                self.at(paused_until, happening);
                return Ok(());
            }
        }
        match happening {
            Happening::Deliver(sup, event) => self.deliver(sup, event)?,
            Happening::Look(sup, ticket, ask) => self.look(sup, ticket, ask),
            Happening::Lease(sup, ticket, ask) => self.try_lease(sup, ticket, ask)?,
            Happening::Seek(sup, generation) => self.seek(sup, generation)?,
            Happening::Record(sup, generation, at) => self.write_record(sup, generation, at)?,
            Happening::Confirm(sup, ticket) => self.confirm_lease(sup, ticket),
            Happening::Fork(sup, generation) => self.fork(sup, generation)?,
            Happening::Begin => self.begin()?,
            Happening::Kill => {
                if let Some(sup) = self.any_up().filter(|_| !self.calm) {
                    self.kill_supervisor(sup)?;
                }
            }
            Happening::Steal => self.steal_lease(),
            Happening::Fated(id) => self.meet_fate(id),
            Happening::Shows(id, show) => self.show(id, show),
            Happening::Dies(id, death) => self.die(id, death)?,
            Happening::Clears(id) => self.clear(id)?,
            Happening::HookBegins(id) => self.begin_hook_run(id)?,
            Happening::HookEnds(id, end) => self.end_hook_run(id, end),
            Happening::StrangerComes(kind, stay) => self.stranger_comes(kind, stay),
            Happening::StrangerTurns(kind) => {
                if let Some(Bound::Stranger(present)) = &mut self.bound {
                    *present = kind;
                }
            }
            Happening::StrangerLeaves => self.stranger_leaves(),
            Happening::Operator(request) => {
                if let Some(sup) = self.any_up() {
                    self.ask_for(sup, request)?;
                }
            }
            Happening::Pause(by, all) => self.pause(by, all)?,
            Happening::Jump(by) => {
                for sup in 0..self.sups.len() {
                    self.later(Duration::ZERO, Happening::Deliver(sup, Event::ClockJumped { by }));
                }
            }
        }
        Ok(())
    }

    fn deliver(&mut self, sup: usize, event: Event) -> Result<(), Broken> {
        // A second death of the present gateway is nothing that any shell sends.
        let again = matches!(
            event,
            Event::LeaderExited { .. } | Event::TreeGone { .. } | Event::Spawned { .. } | Event::Adopted { .. }
        );
        let shell = &self.sups[sup].shell;
        let old = event.generation() < Some(shell.generation);
        if again && !old && !shell.is_news(&event) {
            return Ok(());
        }
        // A sample is taken in on the spot.
        let once = matches!(
            event,
            Event::LeaseLost { .. } | Event::Measured { .. } | Event::Negotiated { .. } | Event::StopBudget { .. }
        );
        if !once && self.dice.once_in(self.trouble.max(20)) {
            // Heard twice: a copy that comes when it is no news any more.
            let delay = self.dice.ms(0, 90_000);
            self.later(delay, Happening::Deliver(sup, event.clone()));
        }
        self.send(sup, event)
    }

    /// Time passes without a step of one supervisor, or of anybody.
    fn pause(&mut self, by: Duration, all: bool) -> Result<(), Broken> {
        if self.calm {
            return Ok(());
        }
        if !all {
            let Some(sup) = self.any_up().filter(|sup| self.sups[*sup].paused_until <= self.now) else { return Ok(()) };
            self.sups[sup].trial.take(self.now, Input::StoodStill(by))?;
            self.sups[sup].paused_until = self.now + by;
            if self.store.lease.owner == Some(sup) {
                self.store.lease.freeze(self.now, self.now + by);
            }
            return Ok(());
        }
        for sup in self.sups.iter_mut().filter(|sup| sup.up) {
            sup.trial.take(self.now, Input::StoodStill(by))?;
            sup.paused_until += by;
        }
        let moved = std::mem::take(&mut self.queue);
        self.queue = moved.into_iter().map(|((at, number), happening)| ((at + by, number), happening)).collect();
        self.calm_at += by;
        self.lives.iter_mut().for_each(|life| life.stand_still(by));
        if self.store.lease.owner.is_some() {
            self.store.lease.freeze(self.now, self.now + by);
        }
        self.now += by;
        Ok(())
    }

    /// Whatever comes first: something in the world, or the deadline of a core.
    fn go_on(&mut self) -> Result<(), Broken> {
        let event = self.queue.first_key_value().map(|(key, _)| key.0);
        let tick = self.next_tick();
        let Some(next) = event.into_iter().chain(tick.map(|(at, _)| at)).min() else {
            return Err(Broken::new("owed", "nothing will ever happen again"));
        };
        if next == Moment::MAX {
            return Err(Broken::new("owed", "the next step is at the end of time"));
        }
        self.now = self.now.max(next);
        if let Some((at, sup)) = tick
            && at == next
            && (event != Some(next) || self.dice.once_in(2))
        {
            let most = TICK_LATE_MAX.as_secs() * 1000;
            self.sups[sup].tick_late = if self.dice.once_in(30) { self.dice.ms(0, most) } else { self.dice.ms(0, 3) };
            return self.send(sup, Event::Tick);
        }
        match self.queue.pop_first() {
            Some((_, happening)) => self.happen(happening),
            None => Ok(()),
        }
    }

    fn next_tick(&self) -> Option<(Moment, usize)> {
        let due = self.sups.iter().enumerate().filter(|(_, sup)| sup.up).filter_map(|(number, sup)| {
            let deadline = sup.trial.core.deadline()?.saturating_add(sup.tick_late);
            Some((deadline.max(self.now).max(sup.paused_until), number))
        });
        due.min()
    }

    /// From here on nothing new goes wrong.
    fn calm_down(&mut self) {
        self.calm = true;
        let old = std::mem::take(&mut self.queue);
        let stays = |happening: &Happening| {
            !matches!(
                happening,
                Happening::Operator(_)
                    | Happening::Jump(_)
                    | Happening::Pause(..)
                    | Happening::Kill
                    | Happening::Steal
                    | Happening::StrangerTurns(_)
            )
        };
        for ((at, number), happening) in old.into_iter().filter(|(_, happening)| stays(happening)) {
            // Who is to be started is started soon: nothing is over before.
            let at = if matches!(happening, Happening::Begin) { at.min(self.now + SOON) } else { at };
            self.queue.insert((at, number), happening);
        }
    }

    fn over(&self) -> bool {
        self.starting == 0 && self.sups.iter().all(|sup| !sup.up)
    }

    /// A gateway that was told to have come up really serves, on the port, under the supervisor that has the lease;
    /// everybody else stands by.
    fn converged(&self) -> bool {
        // One of ours counts too that nobody can see to be ours: the store is lost, and so is the view of its owner.
        let vain = self.sups.iter().any(|sup| sup.up && sup.trial.judge.looked_in_vain());
        let mut unheld = self.lives.iter().filter(|life| life.leader && life.held.is_none());
        let unseen = (self.hidden || vain) && unheld.any(|life| self.store.lost || life.excused);
        let stranger = matches!(self.bound, Some(Bound::Stranger(_))) || unseen;
        let owned = self.store.lease.owner.is_some_and(|owner| self.serves(owner));
        let up = || self.sups.iter().enumerate().filter(|(_, sup)| sup.up);
        self.starting == 0
            && up().next().is_some()
            && up().all(|(number, sup)| {
                let waits = sup.trial.judge.stands_by() && (owned || stranger);
                waits || owned && self.store.lease.owner == Some(number)
            })
    }

    fn serves(&self, sup: usize) -> bool {
        let serving = self.sups[sup].trial.judge.serving();
        self.lives.iter().enumerate().any(|(id, life)| {
            let well = matches!(life.verdict(), Verdict::Gateway(Phase::Started | Phase::Unknown));
            life.held == Some(sup) && Some(life.generation) == serving && self.bound == Some(Bound::Gateway(id)) && well
        })
    }

    /// How long it may take from the last fault to a gateway that serves.
    fn convergence_max(&self) -> Duration {
        let policy = &self.policy;
        let stages = [
            policy.startup_timeout * 4,
            policy.hang_after * 2
                + policy.startup_timeout
                + EVIDENCE_MAX * 4
                + (policy.probe_interval + policy.probe_timeout) * 24,
            policy.stop_timeout.max(STOP_BUDGET_MAX) * 2,
            policy.hung_stop_timeout,
            policy.conflict_timeout,
            policy.backoff_max * 3,
            policy.boot_window * 2,
            KILL_MAX * 4,
            // A stranger or a drain of one goes within 400 s, whoever was stuck within 40 s.
            Duration::from_mins(10),
            // The lease of somebody whom only a heartbeat shows, and a time in standby.
            Duration::from_mins(3),
            policy.pre_start.map_or(Duration::ZERO, |timeout| (timeout + HOOK_MAX) * 4),
            policy.post_stop.map_or(Duration::ZERO, |timeout| (timeout + HOOK_MAX) * 4),
            policy.repair.map_or(Duration::ZERO, |timeout| (timeout + HOOK_MAX) * 2),
        ];
        stages.into_iter().sum()
    }

    /// What every supervisor lived through, one after the other.
    pub(crate) fn story(&self) -> String {
        let stories = self.sups.iter().enumerate().map(|(number, sup)| {
            let acts = if number == self.acting { ", the last to act" } else { "" };
            format!("supervisor {number}{acts}, {} inputs:\n{}", sup.trial.log.len(), sup.trial.story())
        });
        stories.collect::<Vec<_>>().join("\n")
    }

    /// A whole story: trouble, calm, and a request that ends it.
    pub(crate) fn run(&mut self) -> Result<(), Broken> {
        self.begin()?;
        while !self.over() && self.now < self.calm_at && self.steps < STEPS_MAX {
            self.go_on()?;
        }
        self.calm_down();
        let calm_since = self.now;
        while !self.over() && !self.converged() {
            if self.now > self.begun.max(calm_since) + self.convergence_max() {
                return Err(Broken::new("liveness", "the faults have stopped, and still no gateway serves"));
            }
            self.go_on()?;
        }
        self.ending = true;
        let request = if self.dice.once_in(6) { Request::Detach } else { Request::Stop };
        for sup in 0..self.sups.len() {
            if self.sups[sup].up {
                self.ask_for(sup, request)?;
            }
        }
        for steps in 0.. {
            if self.over() {
                break;
            }
            if steps > 2000 {
                return Err(Broken::new("P5", "a request to end does not end it"));
            }
            self.go_on()?;
        }
        for sup in 0..self.sups.len() {
            if self.sups[sup].trial.judge.is_over() {
                let generation = self.sups[sup].trial.judge.generation();
                self.send(sup, Event::Tick)?;
                self.send(
                    sup,
                    Event::LeaderExited { generation, death: ExitStatus::Unknown, toll: ExitUsage::default() },
                )?;
                self.ask_for(sup, Request::Stop)?;
            }
        }
        Ok(())
    }
}

/// Runs one seed.
pub(crate) fn run(seed: u64, make: Maker<'_>) -> (World<'_>, Result<(), Broken>) {
    let mut world = World::new(seed, make);
    let mut end = world.run();
    if end.is_ok() && seed.is_multiple_of(4) {
        end = world.sups.iter().try_for_each(|sup| sup.trial.replays(make(&sup.trial.policy)));
    }
    (world, end)
}
