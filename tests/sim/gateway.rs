//! A simulated gateway: its planned faults and its processes.

use crate::dice::Dice;
use crate::world::moves::Place;
use openclaw_supervise_core::{ExitStatus, Generation, Installers, Moment, Phase, Policy, Verdict};
use std::time::Duration;

/// What the gateway's listener shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    Closed,
    Warming,
    Serving,
    Draining,
    Frozen,
    /// Answers with something that no gateway would send: half of its handlers are broken.
    Nonsense,
    /// Sits in a write to its output that nothing reads.
    Blocked,
    /// Could answer and gets no processor.
    Starved,
}

/// What goes wrong with a gateway, if anything; ages count from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum GatewayFault {
    None,
    /// Exits by itself at this age.
    Exits(Duration, ExitStatus),
    /// Shows something else from this age on, and recovers after the second time; `None` if it never does.
    Misbehaves(Duration, Show, Option<Duration>),
    /// Restarts in place: drains, closes, warms up, serves.
    RestartsInPlace(Duration),
    /// Leaves a detached successor, which serves before it exits itself.
    LeavesSuccessor(Duration),
}

/// A fault that most gateways of a world repeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RepeatedFault {
    /// Exit with 0, mostly as planned.
    CleanExit,
    /// Die early of one signal.
    Crash,
    /// Exit with 78.
    Refusal,
    /// Leave successors.
    Successor,
}

impl RepeatedFault {
    pub(crate) fn fault(self, dice: &mut Dice) -> GatewayFault {
        match self {
            Self::CleanExit => GatewayFault::Exits(dice.ms(0, 90_000), ExitStatus::Code(0)),
            Self::Crash => {
                GatewayFault::Exits(dice.ms(0, 33_000), ExitStatus::Signal { number: 11, core_dumped: true })
            }
            Self::Refusal => GatewayFault::Exits(dice.ms(0, 5000), ExitStatus::Code(78)),
            Self::Successor => GatewayFault::LeavesSuccessor(dice.ms(0, 90_000)),
        }
    }
}

/// How much memory the tree of a gateway uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    Steady,
    /// Over the limit from this age on.
    Leaks(Duration),
    /// Over it from the first age to the second.
    Peaks(Duration, Duration),
}

/// What a gateway does on SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnSigterm {
    /// Drains for this time, then exits with this status.
    Drains(Duration, ExitStatus),
    /// Begins to drain, then stops answering.
    DrainsAndFreezes,
    /// Closes the port at once, exits after this time.
    Closes(Duration, ExitStatus),
    /// Never exits.
    Ignores,
}

/// What the process that was started does, where its child is the gateway.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Launcher {
    /// Passes SIGTERM on, and exits with the gateway.
    Forwards,
    /// Keeps SIGTERM to itself, and exits with the gateway.
    Deaf,
    /// Dies of SIGTERM.
    Dies,
    /// Exits at this age, and leaves the gateway in the background.
    Leaves(Duration, ExitStatus),
}

impl Launcher {
    fn any(dice: &mut Dice) -> Self {
        match dice.below(4) {
            0 => Self::Deaf,
            1 => Self::Dies,
            2 => Self::Leaves(dice.ms(0, 30_000), dice.pick(&[0, 0, 0, 1].map(ExitStatus::Code))),
            _ => Self::Forwards,
        }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct FaultPlan {
    /// When it opens its port, and when it serves.
    pub(crate) opens: Duration,
    pub(crate) boots: Duration,
    /// An older release: it reports no phases, and exits with 0 when its port is taken.
    pub(crate) old: bool,
    pub(crate) fault: GatewayFault,
    pub(crate) on_sigterm: OnSigterm,
    /// Ignores SIGTERM while frozen.
    pub(crate) deaf: bool,
    /// CPU use of its event loop while it does not answer, in percent of one CPU.
    pub(crate) works: u32,
    pub(crate) memory: Memory,
    /// The kernel counts how long a thread waits for a processor.
    pub(crate) counted: bool,
    /// A child listens, not the process that was started. `None` once that child is followed.
    pub(crate) launcher: Option<Launcher>,
    /// Children that outlive the leader.
    pub(crate) daemons: u32,
    /// How long an installer of OpenClaw's package in its tree works once the leader is gone.
    pub(crate) installer: Option<Duration>,
    /// How long its leader (`true`) or one of its children stays in uninterruptible sleep after SIGKILL.
    pub(crate) stuck: Option<(bool, Duration)>,
}

/// The limit on memory, where the policy has one.
pub(crate) const MEMORY_MAX_KB: u64 = 1_000_000;

impl Memory {
    fn any(dice: &mut Dice, policy: &Policy) -> Self {
        let age = dice.s(1, 2 * policy.stable_after.as_secs() + 60);
        match dice.below(6) {
            0 | 1 => Self::Leaks(age),
            2 | 3 => Self::Peaks(age, age + dice.ms(0, 30_000)),
            _ => Self::Steady,
        }
    }
}

impl FaultPlan {
    pub(crate) fn healthy(dice: &mut Dice, policy: &Policy) -> Self {
        let boots = dice.ms(1, 8000).min(policy.startup_timeout / 3);
        Self {
            opens: boots / 2,
            boots,
            old: false,
            fault: GatewayFault::None,
            on_sigterm: OnSigterm::Drains(dice.ms(10, 900).min(policy.stop_timeout / 2), ExitStatus::Code(0)),
            deaf: false,
            works: 0,
            memory: Memory::Steady,
            counted: true,
            launcher: None,
            daemons: dice.small(3),
            installer: None,
            stuck: None,
        }
    }

    pub(crate) fn any(dice: &mut Dice, policy: &Policy) -> Self {
        let deaths = [0, 1, 7, 143].map(ExitStatus::Code);
        let boots = match dice.below(8) {
            0 => dice.s(0, policy.startup_timeout.as_secs() * 2),
            1..4 => dice.ms(0, 300),
            _ => dice.ms(300, 20_000),
        };
        let on_sigterm = match dice.below(9) {
            0 => OnSigterm::Ignores,
            1 => OnSigterm::DrainsAndFreezes,
            2 => OnSigterm::Closes(dice.s(0, 60), dice.pick(&deaths)),
            3 => OnSigterm::Drains(dice.s(1, 400), dice.pick(&deaths)),
            _ => OnSigterm::Drains(dice.ms(0, 3000), dice.pick(&deaths)),
        };
        let launcher = dice.once_in(4).then(|| Launcher::any(dice));
        Self {
            opens: if dice.once_in(3) { boots / 2 } else { boots },
            boots,
            old: dice.once_in(5),
            fault: Self::fault(dice, policy),
            on_sigterm,
            deaf: dice.once_in(2),
            works: dice.pick(&[0, 0, 3, 30, 100]),
            memory: Memory::any(dice, policy),
            counted: !dice.once_in(4),
            launcher,
            daemons: if dice.once_in(3) { dice.small(5) } else { 0 },
            installer: None,
            // One that sleeps uninterruptibly would answer on the port after its end was reported.
            stuck: (launcher.is_none() && dice.once_in(12)).then(|| (dice.once_in(2), dice.s(1, 40))),
        }
    }

    fn fault(dice: &mut Dice, policy: &Policy) -> GatewayFault {
        let young = dice.ms(0, 15_000);
        let old = dice.s(5, 2 * policy.stable_after.as_secs() + 5);
        let age = if dice.once_in(2) { young } else { old };
        let number = dice.pick(&[6, 9, 11]);
        let back = dice.once_in(2).then(|| dice.s(1, 2 * policy.hang_after.as_secs() + 2));
        match dice.below(20) {
            0 | 1 => GatewayFault::Exits(age, ExitStatus::Code(1)),
            2 => GatewayFault::Exits(age, ExitStatus::Signal { number, core_dumped: number != 9 }),
            3 => GatewayFault::Exits(young, ExitStatus::Code(dice.pick(&[78, 78, 127]))),
            4 => GatewayFault::Exits(young, ExitStatus::Code(0)),
            5 | 6 => GatewayFault::Exits(old, ExitStatus::Code(0)),
            7 => GatewayFault::Misbehaves(age, Show::Frozen, back),
            8 => GatewayFault::Misbehaves(age, Show::Closed, back),
            9 => GatewayFault::Misbehaves(age, Show::Nonsense, back),
            10 => GatewayFault::Misbehaves(age, Show::Draining, back.map(|back| back * 4)),
            11 | 12 => GatewayFault::RestartsInPlace(age),
            13 => GatewayFault::LeavesSuccessor(age),
            14 | 15 => GatewayFault::Misbehaves(age, Show::Blocked, back.map(|back| back * 4)),
            16 | 17 => GatewayFault::Misbehaves(age, Show::Starved, back.map(|back| back * 8)),
            _ => GatewayFault::None,
        }
    }
}

/// A gateway and the processes of its tree.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one process; any combination happens")]
pub(crate) struct SimGateway {
    /// The supervisor that started it; the kernel reports the exit status only to the parent.
    pub(crate) parent: usize,
    /// The supervisor that supervises it, and the generation that it has there.
    pub(crate) held: Option<usize>,
    pub(crate) generation: Generation,
    pub(crate) pid: i32,
    pub(crate) born: Moment,
    /// When CPU time was last added up, and the CPU time of its event loop by then.
    pub(crate) used: (Moment, Duration),
    /// How long it had waited for a processor by then.
    pub(crate) waited: Duration,
    pub(crate) plan: FaultPlan,
    pub(crate) show: Show,
    /// Where it listens, or will.
    pub(crate) place: Place,
    /// Since when it has served without a break.
    pub(crate) served_since: Option<Moment>,
    pub(crate) leader: bool,
    /// The process that was started, where the gateway is its child.
    pub(crate) launcher_lives: bool,
    pub(crate) daemons: u32,
    /// An installer is at work, and when it finishes, once that is known.
    pub(crate) installs: bool,
    pub(crate) installs_until: Option<Moment>,
    /// A child that stays in uninterruptible sleep once killed.
    pub(crate) stuck_child: bool,
    pub(crate) terminated: bool,
    /// SIGKILL was sent to its tree.
    pub(crate) killed: bool,
    /// It is on another machine than all supervisors but its own: they see neither it nor its port.
    pub(crate) away: bool,
    /// No promise covers it any more: it survived SIGKILL and that was reported, or the store that knew of it was lost.
    pub(crate) excused: bool,
    /// When the supervisor learns that it exists; its exit is not reported earlier.
    pub(crate) known: Moment,
    /// Its exit was a restart that OpenClaw had planned.
    pub(crate) planned: bool,
    /// When its leader ended.
    pub(crate) died: Option<Moment>,
    /// For a successor that is not adopted yet: the gateway that left it. It counts as part of that one's tree.
    pub(crate) origin: Option<usize>,
}

impl SimGateway {
    pub(crate) fn new(
        parent: usize,
        generation: Generation,
        pid: i32,
        born: Moment,
        plan: FaultPlan,
        place: Place,
    ) -> Self {
        Self {
            parent,
            held: Some(parent),
            generation,
            pid,
            born,
            used: (born, Duration::ZERO),
            waited: Duration::ZERO,
            show: Show::Closed,
            place,
            served_since: None,
            leader: true,
            launcher_lives: plan.launcher.is_some(),
            daemons: plan.daemons,
            installs: plan.installer.is_some(),
            installs_until: None,
            stuck_child: plan.stuck.is_some_and(|(leader, _)| !leader),
            terminated: false,
            killed: false,
            away: false,
            excused: false,
            known: born,
            planned: false,
            died: None,
            origin: None,
            plan,
        }
    }

    /// The process that listens.
    pub(crate) fn listener(&self) -> i32 {
        self.pid + if self.plan.launcher.is_some() { 50 } else { 0 }
    }

    /// Whether the process that was started is gone, and its child not followed.
    pub(crate) fn is_left(&self) -> bool {
        self.plan.launcher.is_some() && !self.launcher_lives
    }

    /// The CPU time that its event loop has used by `now`.
    pub(crate) fn work(&mut self, now: Moment) -> Duration {
        let share = match self.show {
            Show::Warming | Show::Serving | Show::Draining => 1,
            Show::Closed | Show::Frozen | Show::Nonsense => self.plan.works,
            Show::Blocked => 0,
            Show::Starved => self.plan.works.min(9),
        };
        let (since, used) = self.used;
        if self.show == Show::Starved {
            self.waited += now.saturating_sub(since) * (100 - share) / 100;
        }
        self.used = (now, used + now.saturating_sub(since) * share / 100);
        self.used.1
    }

    pub(crate) fn tree_rss_kb(&self, now: Moment) -> u64 {
        let age = now.saturating_sub(self.born);
        let over = match self.plan.memory {
            Memory::Steady => false,
            Memory::Leaks(from) => age >= from,
            Memory::Peaks(from, to) => (from..to).contains(&age),
        };
        if over { MEMORY_MAX_KB + 1 } else { MEMORY_MAX_KB }
    }

    /// The whole machine was suspended.
    pub(crate) fn suspend(&mut self, by: Duration) {
        self.known += by;
        self.born += by;
        self.used.0 += by;
        self.served_since = self.served_since.map(|since| since + by);
    }

    /// What a kill does with its installer: `pid command` if that is left to finish, and its command if it is ended half-way.
    pub(crate) fn install(&mut self, now: Moment, installers: Installers) -> (Vec<String>, Vec<String>) {
        let Some(work) = self.plan.installer.filter(|_| self.installs) else { return <_>::default() };
        let until = *self.installs_until.get_or_insert(now + work);
        let is_at_work = until > now;
        // A tree that does not die is killed as a whole.
        if is_at_work && installers == Installers::Finish && self.plan.stuck.is_none() {
            return (vec!["121 npm install -g openclaw".to_owned()], Vec::new());
        }
        self.installs = false;
        let is_cut = is_at_work && installers != Installers::Finish;
        (Vec::new(), if is_cut { vec!["npm install -g openclaw".to_owned()] } else { Vec::new() })
    }

    pub(crate) fn alive(&self) -> u32 {
        u32::from(self.leader)
            + u32::from(self.launcher_lives)
            + self.daemons
            + u32::from(self.installs)
            + u32::from(self.stuck_child)
    }

    /// The store is lost, and with it what only the store knew. A living leader is still found by the mark in its
    /// environment.
    pub(crate) fn forget(&mut self) {
        self.excused |= !self.leader || self.is_left();
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self.show {
            _ if !self.leader => Verdict::Free,
            Show::Closed => Verdict::Free,
            Show::Warming if self.plan.old => Verdict::Silent,
            Show::Warming => Verdict::Gateway(Phase::Starting),
            Show::Serving | Show::Draining if self.plan.old => Verdict::Gateway(Phase::Unknown),
            Show::Serving => Verdict::Gateway(Phase::Started),
            Show::Draining => Verdict::Draining,
            Show::Frozen | Show::Blocked | Show::Starved => Verdict::Silent,
            Show::Nonsense => Verdict::Foreign,
        }
    }
}
