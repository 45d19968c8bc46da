//! The simulated world: supervisors, gateways, unrelated listeners, an operator, a machine, and the shell.
//!
//! The shell keeps its contract (it answers every spawn and kill, and a probe within its timeout unless the answer is
//! lost). As in the real one, events arrive out of order: an exit, a dead tree and a probe result have delays of their
//! own.

#[path = "world/hooks.rs"]
mod hooks;
#[path = "world/moves.rs"]
pub(crate) mod moves;
#[path = "world/outside.rs"]
mod outside;
#[path = "world/requests.rs"]
mod requests;
#[path = "world/shell.rs"]
mod shell;
#[path = "world/store.rs"]
mod store;
#[path = "world/supervisors.rs"]
mod supervisors;

use crate::dice::Dice;
use crate::fake_shell::{Broken, FakeShell};
use crate::gateway::{MEMORY_MAX_KB, RepeatedFault, Show, SimGateway};
use crate::judge::{KILL_MAX, TICK_LATE_MAX};
use crate::trial::{Input, Maker, Trial};
use hooks::HookRun;
use moves::{Moves, Place};
use openclaw_supervise_core::policy::{OnConflict, OnStoreLost};
use openclaw_supervise_core::{
    Event, ExitStatus, ExitUsage, Fingerprint, Generation, HookEnd, LeaseRequest, Moment, Phase, Policy, ProbeScope,
    Request, Verdict,
};
use requests::PERIOD_MAX;
use std::collections::BTreeMap;
use std::time::Duration;
use store::Store;
use supervisors::Kills;

/// The most inputs of one run before the faults stop.
const STEPS_MAX: usize = 1200;

/// Once the faults have stopped, supervisors that are still to be started start within this time.
const SOON: Duration = Duration::from_secs(20);

/// The longest that a hook runs past its timeout, including the cleanup of an older one.
const HOOK_MAX: Duration = Duration::from_secs(40);

/// The longest wait for evidence.
const EVIDENCE_MAX: Duration = Duration::from_secs(5);

/// The longest stop timeout that an outer service manager grants.
const STOP_BUDGET_MAX: Duration = Duration::from_mins(1);

/// How long after a suspension a supervisor may take to end a gateway whose lease is not certain any more.
const WAKING: Duration = Duration::from_secs(4);

/// The process id of the unrelated process on the port.
const FOREIGN_PID: i32 = 4242;

/// What can hold the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Gateway(usize),
    Foreign(Verdict),
}

/// A scheduled event. One that names a supervisor is dropped if that supervisor no longer runs, and waits while it is
/// paused.
#[derive(Debug, Clone)]
#[expect(clippy::large_enum_variant, reason = "the queue boxes each")]
enum WorldEvent {
    Deliver(usize, Event),
    /// A probe checks the port.
    Look(usize, u64, ProbeScope),
    /// The store tries to take the lease.
    Lease(usize, u64, LeaseRequest),
    /// The shell searches for an earlier gateway.
    Seek(usize, Generation),
    /// The store records the start of a gateway.
    Record(usize, Generation, Moment),
    /// The store checks that the lease still belongs to its owner.
    Confirm(usize, u64),
    /// The store makes the counter of the lease go on. One that hangs began then, when the machine had slept for so long.
    Beat(usize, Option<(Moment, Duration)>),
    /// The calls of a supervisor to the store do not return for this time.
    Cut(Duration),
    /// A process is created; its start is on record by then.
    Fork(usize, Generation),
    /// A supervisor starts.
    Begin,
    /// A supervisor is killed.
    Kill,
    /// The lease is taken away.
    Steal,
    /// A gateway's planned fault begins, unless the faults have stopped.
    FaultBegins(usize),
    Shows(usize, Show),
    Dies(usize, ExitStatus),
    /// The process that was started exits, and its child does not.
    LauncherExits(usize, ExitStatus),
    /// All processes of a tree except its leader are gone.
    Clears(usize),
    /// A hook starts, once no process of an older one is left.
    HookBegins(usize),
    /// No process of it is left.
    HookEnds(usize, HookEnd),
    ListenerComes(Verdict, Duration),
    ListenerTurns(Verdict),
    ListenerLeaves,
    Operator(Request),
    /// The supervision is paused for this time, or resumed.
    Supervision(Option<Duration>),
    SettingsChange,
    /// One supervisor, or (`true`) the whole machine, is suspended.
    Pause(Duration, bool),
    Jump(Duration),
}

impl WorldEvent {
    fn is_call_to_store(&self) -> bool {
        matches!(self, Self::Lease(..) | Self::Record(..) | Self::Confirm(..) | Self::Beat(..))
    }

    fn supervisor(&self) -> Option<usize> {
        match self {
            Self::Deliver(sup, _)
            | Self::Look(sup, ..)
            | Self::Lease(sup, ..)
            | Self::Seek(sup, _)
            | Self::Record(sup, ..)
            | Self::Confirm(sup, _)
            | Self::Beat(sup, ..)
            | Self::Fork(sup, _) => Some(*sup),
            _ => None,
        }
    }
}

/// One supervisor and its judge.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one process; any combination happens")]
pub(crate) struct Sup {
    pub(crate) trial: Trial,
    shell: FakeShell,
    pid: i32,
    up: bool,
    tick_late: Duration,
    paused_until: Moment,
    /// Its calls to the store return then.
    cut_until: Moment,
    /// It has taken a lease that the store has to confirm; when the write of the last confirmation began, less what was slept
    /// over since.
    watched: bool,
    confirmed: Moment,
    /// Until then it may be about to end its gateway, after a suspension.
    waking: Moment,
    /// It lost its lease to another supervisor, or (`stolen`) because a person removed it.
    lease_lost: bool,
    stolen: bool,
    /// Where it looks for its gateway, and what it has heeded of the settings.
    expected: Place,
    heeded: Place,
}

#[expect(clippy::struct_excessive_bools, reason = "independent settings; every combination is to be tried")]
pub(crate) struct World<'a> {
    dice: Dice,
    pub(crate) policy: Policy,
    make: Maker<'a>,
    /// Stale events and the replay are judged as well.
    is_strict: bool,
    /// In start order.
    pub(crate) sups: Vec<Sup>,
    /// The index of the supervisor that acts.
    pub(crate) acting: usize,
    now: Moment,
    /// Boxed: a tree moves its values about.
    queue: BTreeMap<(Moment, u64), Box<WorldEvent>>,
    sequence: u64,
    gateways: Vec<SimGateway>,
    hook_runs: Vec<HookRun>,
    /// What holds which port.
    bound: BTreeMap<u16, Bound>,
    moves: Moves,
    /// Gateways have an installer of OpenClaw in their tree now and then. It has dice of its own.
    installing: bool,
    store: Store,
    /// How many supervisors are yet to start.
    starting: u32,
    /// When the last one started.
    last_start: Moment,
    kills: Kills,
    performed: u64,
    steps: usize,
    /// The faults have stopped.
    calm: bool,
    /// Every supervisor was asked to stop or detach.
    ending: bool,
    /// The owner of a socket cannot be determined.
    hidden: bool,
    /// The store is on a file system without locks: the lease is kept by a heartbeat.
    remote: bool,
    /// How long the machine has slept.
    slept: Duration,
    /// File descriptors are short: most searches for an earlier gateway fail.
    scarce: bool,
    /// The store is lost now and then.
    fragile: bool,
    /// The fault that its gateways repeat.
    repeated_fault: Option<RepeatedFault>,
    /// The pause on record, by the clock on the wall.
    recorded_pause: Option<Moment>,
    /// Its release of OpenClaw answers questions about a planned restart (a handoff).
    knows_handoffs: bool,
    /// Of their configuration and program.
    fingerprint: Fingerprint,
    /// How rare faults are: about one probe, spawn or operator in so many is faulty.
    trouble: u64,
    calm_at: Moment,
}

/// A policy: the defaults, or random values in the allowed ranges.
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
        let mut policy = policy(seed, &mut dice);
        if seed % 16 == 3 {
            policy.update_timeout = Duration::from_secs(seed % 60);
        }
        let refusing = if policy.repair.is_some() { RepeatedFault::Refusal } else { RepeatedFault::Crash };
        let mut world = Self {
            policy,
            make,
            is_strict: seed.is_multiple_of(4),
            sups: Vec::new(),
            acting: 0,
            now: Duration::from_secs(1000),
            queue: BTreeMap::new(),
            sequence: 0,
            gateways: Vec::new(),
            hook_runs: Vec::new(),
            bound: BTreeMap::new(),
            installing: seed % 8 == 3,
            moves: Moves::any(seed),
            store: Store::default(),
            starting: 1,
            last_start: Moment::ZERO,
            kills: Kills::any(&mut dice),
            performed: 0,
            steps: 0,
            calm: false,
            ending: false,
            hidden: dice.once_in(6),
            remote: dice.once_in(4),
            slept: Duration::ZERO,
            scarce: dice.once_in(10),
            fragile: dice.once_in(10),
            repeated_fault: dice.once_in(3).then(|| {
                dice.pick(&[
                    RepeatedFault::CleanExit,
                    RepeatedFault::CleanExit,
                    RepeatedFault::Crash,
                    refusing,
                    RepeatedFault::Refusal,
                    RepeatedFault::Successor,
                ])
            }),
            recorded_pause: None,
            knows_handoffs: !dice.once_in(4),
            fingerprint: Fingerprint::default(),
            trouble: dice.pick(&[15, 40, 40, 100_000]),
            calm_at: Moment::ZERO,
            dice,
        };
        if world.hidden {
            world.moves.read_well();
        }
        if !world.remote {
            world.policy.on_store_lost =
                world.dice.pick(&[None, None, Some(OnStoreLost::Keep), Some(OnStoreLost::Stop)]);
        }
        world.plan_trouble();
        world
    }

    /// Whether owners have to confirm their lease.
    fn is_watched(&self) -> bool {
        self.remote || self.policy.on_store_lost == Some(OnStoreLost::Stop)
    }

    fn later(&mut self, delay: Duration, event: WorldEvent) {
        self.at(self.now.saturating_add(delay), event);
    }

    fn at(&mut self, at: Moment, event: WorldEvent) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), Box::new(event));
    }

    #[expect(clippy::too_many_lines, reason = "one row for each event")]
    fn handle(&mut self, event: WorldEvent) -> Result<(), Broken> {
        if let Some(sup) = event.supervisor() {
            let Sup { up, paused_until, cut_until, .. } = self.sups[sup];
            if !up {
                return Ok(());
            }
            let back = if event.is_call_to_store() { paused_until.max(cut_until) } else { paused_until };
            if back > self.now {
                let event = match event {
                    WorldEvent::Beat(sup, None) if paused_until <= self.now => {
                        WorldEvent::Beat(sup, Some((self.now, self.slept)))
                    }
                    event => event,
                };
                self.at(back, event);
                return Ok(());
            }
        }
        match event {
            WorldEvent::Deliver(sup, event) => self.deliver(sup, event)?,
            WorldEvent::Look(sup, ticket, ask) => self.look(sup, ticket, ask),
            WorldEvent::Lease(sup, ticket, ask) => self.try_lease(sup, ticket, ask)?,
            WorldEvent::Seek(sup, generation) => self.seek(sup, generation)?,
            WorldEvent::Record(sup, generation, at) => self.write_record(sup, generation, at)?,
            WorldEvent::Confirm(sup, ticket) => self.confirm_lease(sup, ticket),
            WorldEvent::Beat(sup, began) => self.beat(sup, began)?,
            WorldEvent::Cut(by) => {
                if let Some(sup) = self.any_up().filter(|_| !self.calm) {
                    self.sups[sup].cut_until = self.now + by;
                }
            }
            WorldEvent::Fork(sup, generation) => self.fork(sup, generation)?,
            WorldEvent::Begin => self.begin()?,
            WorldEvent::Kill => {
                if let Some(sup) = self.any_up().filter(|_| !self.calm) {
                    self.kill_supervisor(sup)?;
                }
            }
            WorldEvent::Steal => self.steal_lease(),
            WorldEvent::FaultBegins(id) => self.begin_fault(id),
            WorldEvent::Shows(id, show) => self.show(id, show),
            WorldEvent::Dies(id, death) => self.die(id, death)?,
            WorldEvent::LauncherExits(id, death) => self.launcher_exits(id, death)?,
            WorldEvent::Clears(id) => self.clear(id)?,
            WorldEvent::HookBegins(id) => self.begin_hook_run(id)?,
            WorldEvent::HookEnds(id, end) => self.end_hook_run(id, end),
            WorldEvent::ListenerComes(kind, stay) => self.listener_comes(kind, stay),
            WorldEvent::ListenerTurns(kind) => {
                for bound in self.bound.values_mut() {
                    if let Bound::Foreign(present) = bound {
                        *present = kind;
                    }
                }
            }
            WorldEvent::ListenerLeaves => self.listener_leaves(),
            WorldEvent::SettingsChange => self.change_settings(),
            WorldEvent::Operator(request) => {
                if let Some(sup) = self.any_up() {
                    self.ask_for(sup, request)?;
                }
            }
            WorldEvent::Supervision(period) => self.pause_supervision(period)?,
            WorldEvent::Pause(by, all) => self.pause(by, all)?,
            WorldEvent::Jump(by) => {
                self.slept += by;
                for sup in 0..self.sups.len() {
                    self.sups[sup].confirmed = self.sups[sup].confirmed.saturating_sub(by);
                    self.sups[sup].waking = self.now.max(self.sups[sup].paused_until) + WAKING;
                    self.later(Duration::ZERO, WorldEvent::Deliver(sup, Event::ClockJumped { by }));
                }
            }
        }
        Ok(())
    }

    fn deliver(&mut self, sup: usize, event: Event) -> Result<(), Broken> {
        // No shell reports the exit of the current gateway twice.
        let again = matches!(
            event,
            Event::LeaderExited { .. }
                | Event::HeirSought { .. }
                | Event::TreeGone { .. }
                | Event::Spawned { .. }
                | Event::Adopted { .. }
        );
        let shell = &self.sups[sup].shell;
        let old = event.generation() < Some(shell.generation);
        if again && !old && !shell.is_news(&event) {
            return Ok(());
        }
        // A sample is delivered at once.
        let once = matches!(
            event,
            Event::LeaseLost { .. } | Event::Measured { .. } | Event::Negotiated { .. } | Event::StopBudget { .. }
        );
        if !once && self.dice.once_in(self.trouble.max(20)) {
            // A late duplicate.
            let delay = self.dice.ms(0, 90_000);
            self.later(delay, WorldEvent::Deliver(sup, event.clone()));
        }
        self.send(sup, event)
    }

    /// Suspends one supervisor, or the whole machine.
    fn pause(&mut self, by: Duration, all: bool) -> Result<(), Broken> {
        if self.calm {
            return Ok(());
        }
        if !all {
            let Some(sup) = self.any_up().filter(|sup| self.sups[*sup].paused_until <= self.now) else { return Ok(()) };
            self.sups[sup].trial.take(self.now, Input::Suspended(by))?;
            self.sups[sup].paused_until = self.now + by;
            self.sups[sup].waking = self.now + by + WAKING;
            return Ok(());
        }
        for sup in self.sups.iter_mut().filter(|sup| sup.up) {
            sup.trial.take(self.now, Input::Suspended(by))?;
            sup.paused_until += by;
            sup.waking = sup.paused_until.max(self.now + by) + WAKING;
        }
        let moved = std::mem::take(&mut self.queue);
        let until = self.now + by;
        let shifted = moved.into_iter().map(|((at, number), event)| {
            // What has happened is told as soon as it can be.
            let is_exit = matches!(*event, WorldEvent::Deliver(_, Event::LeaderExited { .. }));
            ((if is_exit { at.max(until) } else { at + by }, number), event)
        });
        self.queue = shifted.collect();
        self.calm_at += by;
        self.gateways.iter_mut().for_each(|gateway| gateway.suspend(by));
        self.now += by;
        Ok(())
    }

    /// Handles what is due first: a scheduled event or the deadline of a core.
    fn advance(&mut self) -> Result<(), Broken> {
        let event = self.queue.first_key_value().map(|(key, _)| key.0);
        let tick = self.next_tick();
        let Some(next) = event.into_iter().chain(tick.map(|(at, _)| at)).min() else {
            return Err(Broken::new("owed", "no event and no deadline is left"));
        };
        if next == Moment::MAX {
            return Err(Broken::new("owed", "the next step is at the end of time"));
        }
        self.now = self.now.max(next);
        self.judge_confirmations()?;
        if let Some((at, sup)) = tick
            && at == next
            && (event != Some(next) || self.dice.once_in(2))
        {
            let most = TICK_LATE_MAX.as_secs() * 1000;
            self.sups[sup].tick_late = if self.dice.once_in(30) { self.dice.ms(0, most) } else { self.dice.ms(0, 3) };
            return self.send(sup, Event::Tick);
        }
        match self.queue.pop_first() {
            Some((_, event)) => self.handle(*event),
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

    /// Stops the faults: from here on nothing new goes wrong.
    fn calm_down(&mut self) {
        self.calm = true;
        for sup in &mut self.sups {
            sup.cut_until = sup.cut_until.min(self.now);
        }
        let old = std::mem::take(&mut self.queue);
        let stays = |event: &WorldEvent| {
            !matches!(
                event,
                WorldEvent::Operator(_)
                    | WorldEvent::Supervision(_)
                    | WorldEvent::Jump(_)
                    | WorldEvent::Pause(..)
                    | WorldEvent::Kill
                    | WorldEvent::Cut(_)
                    | WorldEvent::Steal
                    | WorldEvent::ListenerTurns(_)
                    | WorldEvent::Shows(_, Show::Nonsense | Show::Blocked | Show::Starved)
                    | WorldEvent::SettingsChange
            )
        };
        for id in 0..self.gateways.len() {
            // What keeps a gateway from being well without making it hang ends with the faults.
            if matches!(self.gateways[id].show, Show::Nonsense | Show::Blocked | Show::Starved) {
                self.later(Duration::ZERO, WorldEvent::Shows(id, Show::Serving));
            }
        }
        for ((at, number), event) in old.into_iter().filter(|(_, event)| stays(event)) {
            // The run cannot end before these have started, so they start soon.
            let soon = matches!(*event, WorldEvent::Begin) || event.is_call_to_store();
            let at = if soon { at.min(self.now + SOON) } else { at };
            self.queue.insert((at, number), event);
        }
    }

    fn over(&self) -> bool {
        self.starting == 0 && self.sups.iter().all(|sup| !sup.up)
    }

    /// The gateway that was reported as started serves on the port, under the supervisor that has the lease; all other
    /// supervisors stand by.
    fn converged(&self) -> bool {
        // Also one of our own gateways that cannot be recognised: the store is lost, and the socket owner is hidden.
        let vain = self.sups.iter().any(|sup| sup.up && sup.trial.judge.looked_in_vain());
        let mut unheld = self.gateways.iter().filter(|gateway| gateway.leader && gateway.held.is_none());
        let unseen = (self.hidden || vain) && unheld.any(|gateway| self.store.lost || gateway.excused);
        let foreign_listener = self.stranger().is_some() || unseen;
        let owned = self.store.lease.owner.is_some_and(|owner| self.serves(owner));
        let up = || self.sups.iter().enumerate().filter(|(_, sup)| sup.up);
        self.starting == 0
            && up().next().is_some()
            && up().all(|(number, sup)| {
                let waits = sup.trial.judge.stands_by() && (owned || foreign_listener);
                waits || owned && self.store.lease.owner == Some(number)
            })
    }

    fn serves(&self, sup: usize) -> bool {
        let serving = self.sups[sup].trial.judge.serving();
        self.gateways.iter().enumerate().any(|(id, gateway)| {
            let well = matches!(gateway.verdict(), Verdict::Gateway(Phase::Started | Phase::Unknown));
            gateway.held == Some(sup)
                && Some(gateway.generation) == serving
                && self.bound_at(gateway.place.port) == Some(Bound::Gateway(id))
                && self.sups[sup].expected == gateway.place
                && well
        })
    }

    /// The longest time from the last fault until a gateway serves.
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
            // An unrelated listener leaves within 400 s, a process in uninterruptible sleep within 40 s.
            Duration::from_mins(10),
            // The expiry of a heartbeat lease, and the wait in standby.
            Duration::from_mins(3),
            PERIOD_MAX,
            // The news of a watched process was lost.
            Duration::from_mins(5),
            policy.pre_start.map_or(Duration::ZERO, |timeout| (timeout + HOOK_MAX) * 4),
            policy.post_stop.map_or(Duration::ZERO, |timeout| (timeout + HOOK_MAX) * 4),
            policy.repair.map_or(Duration::ZERO, |timeout| (timeout + HOOK_MAX) * 2),
        ];
        stages.into_iter().sum()
    }

    /// The log of every supervisor, one after the other.
    pub(crate) fn story(&self) -> String {
        let stories = self.sups.iter().enumerate().map(|(number, sup)| {
            let acts = if number == self.acting { ", acted last" } else { "" };
            format!("supervisor {number}{acts}, {} inputs:\n{}", sup.trial.log.len(), sup.trial.story())
        });
        stories.collect::<Vec<_>>().join("\n")
    }

    /// Runs with faults, then without until the world converges, then stops or detaches all supervisors.
    pub(crate) fn run(&mut self) -> Result<(), Broken> {
        self.begin()?;
        while !self.over() && self.now < self.calm_at && self.steps < STEPS_MAX {
            self.advance()?;
        }
        self.calm_down();
        let calm_since = self.now;
        while !self.over() && !self.converged() {
            if self.now > self.last_start.max(calm_since) + self.convergence_max() {
                return Err(Broken::new("liveness", "no gateway serves although the faults have stopped"));
            }
            self.advance()?;
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
                return Err(Broken::new("P5", "a stop or detach request does not end it"));
            }
            self.advance()?;
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
    if end.is_ok() && world.is_strict {
        end = world.sups.iter().try_for_each(|sup| sup.trial.replays(make(&sup.trial.policy)));
    }
    (world, end)
}
