//! One gateway of the simulated world: what it is like, and which processes belong to it.

use crate::dice::Dice;
use openclaw_supervise_core::{ExitStatus, Generation, Moment, Phase, Policy, Verdict};
use std::time::Duration;

/// What the gateway's listener shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    Closed,
    Warming,
    Serving,
    Draining,
    Frozen,
    /// Answers, but nonsense: half of its handlers are broken.
    Nonsense,
}

/// What becomes of it, once it is up or before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Lives,
    /// Ends by itself, at that age.
    Dies(Duration, ExitStatus),
    /// Shows something else from that age on, and recovers after the second time, if it ever does.
    Turns(Duration, Show, Option<Duration>),
    /// Restarts in place: drains, closes, warms up, serves.
    RestartsInPlace(Duration),
    /// Leaves a detached successor, which serves before it exits itself.
    Succeeds(Duration),
}

/// What the gateways of some worlds do again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Habit {
    /// Exit with 0, mostly as planned.
    Restless,
    /// Die early of one signal.
    Crashing,
    /// Exit with 78.
    Refusing,
    /// Leave successors.
    Succeeding,
}

impl Habit {
    pub(crate) fn fate(self, dice: &mut Dice) -> Fate {
        match self {
            Self::Restless => Fate::Dies(dice.ms(0, 90_000), ExitStatus::Code(0)),
            Self::Crashing => Fate::Dies(dice.ms(0, 33_000), ExitStatus::Signal { number: 11, core_dumped: true }),
            Self::Refusing => Fate::Dies(dice.ms(0, 5000), ExitStatus::Code(78)),
            Self::Succeeding => Fate::Succeeds(dice.ms(0, 90_000)),
        }
    }
}

/// How much memory its tree has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    Steady,
    /// Over the limit from that age on.
    Leaks(Duration),
    /// Over it from the first age to the second.
    Peaks(Duration, Duration),
}

/// What it does on SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    /// Drains for so long, then exits so.
    Drains(Duration, ExitStatus),
    /// Begins to drain and falls silent.
    DrainsAndFreezes,
    /// Closes the port at once, then takes its time.
    Closes(Duration, ExitStatus),
    /// Nothing, for ever.
    Ignores,
}

#[derive(Debug, Clone)]
pub(crate) struct Temper {
    /// When it opens its port, and when it serves.
    pub(crate) opens: Duration,
    pub(crate) boots: Duration,
    /// A release that knows no phases, and says of a duplicate with 0 that it did not start.
    pub(crate) old: bool,
    pub(crate) fate: Fate,
    pub(crate) manner: Manner,
    /// Whether a frozen one hears SIGTERM.
    pub(crate) deaf: bool,
    /// How much of a processor its event loop uses while it does not serve, in percent.
    pub(crate) works: u32,
    pub(crate) memory: Memory,
    /// Whether another process than the one that was started listens.
    pub(crate) launched: bool,
    /// Children that outlive it.
    pub(crate) daemons: u32,
    /// How long after SIGKILL its leader, or one of its children, sleeps uninterruptibly.
    pub(crate) stuck: Option<(bool, Duration)>,
}

/// The limit, where there is one.
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

impl Temper {
    pub(crate) fn mild(dice: &mut Dice, policy: &Policy) -> Self {
        let boots = dice.ms(1, 8000).min(policy.startup_timeout / 3);
        Self {
            opens: boots / 2,
            boots,
            old: false,
            fate: Fate::Lives,
            manner: Manner::Drains(dice.ms(10, 900).min(policy.stop_timeout / 2), ExitStatus::Code(0)),
            deaf: false,
            works: 0,
            memory: Memory::Steady,
            launched: false,
            daemons: dice.small(3),
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
        let manner = match dice.below(9) {
            0 => Manner::Ignores,
            1 => Manner::DrainsAndFreezes,
            2 => Manner::Closes(dice.s(0, 60), dice.pick(&deaths)),
            3 => Manner::Drains(dice.s(1, 400), dice.pick(&deaths)),
            _ => Manner::Drains(dice.ms(0, 3000), dice.pick(&deaths)),
        };
        Self {
            opens: if dice.once_in(3) { boots / 2 } else { boots },
            boots,
            old: dice.once_in(5),
            fate: Self::fate(dice, policy),
            manner,
            deaf: dice.once_in(2),
            works: dice.pick(&[0, 0, 3, 30, 100]),
            memory: Memory::any(dice, policy),
            launched: dice.once_in(4),
            daemons: if dice.once_in(3) { dice.small(5) } else { 0 },
            stuck: dice.once_in(12).then(|| (dice.once_in(2), dice.s(1, 40))),
        }
    }

    fn fate(dice: &mut Dice, policy: &Policy) -> Fate {
        let young = dice.ms(0, 15_000);
        let old = dice.s(5, 2 * policy.stable_after.as_secs() + 5);
        let age = if dice.once_in(2) { young } else { old };
        let number = dice.pick(&[6, 9, 11]);
        let back = dice.once_in(2).then(|| dice.s(1, 2 * policy.hang_after.as_secs() + 2));
        match dice.below(16) {
            0 | 1 => Fate::Dies(age, ExitStatus::Code(1)),
            2 => Fate::Dies(age, ExitStatus::Signal { number, core_dumped: number != 9 }),
            3 => Fate::Dies(young, ExitStatus::Code(78)),
            4 => Fate::Dies(young, ExitStatus::Code(0)),
            5 | 6 => Fate::Dies(old, ExitStatus::Code(0)),
            7 => Fate::Turns(age, Show::Frozen, back),
            8 => Fate::Turns(age, Show::Closed, back),
            9 => Fate::Turns(age, Show::Nonsense, back),
            10 => Fate::Turns(age, Show::Draining, back.map(|back| back * 4)),
            11 | 12 => Fate::RestartsInPlace(age),
            13 => Fate::Succeeds(age),
            _ => Fate::Lives,
        }
    }
}

/// A gateway that was spawned, and every process of its tree.
#[derive(Debug, Clone)]
#[expect(clippy::struct_excessive_bools, reason = "what is true of one process; any mix of it happens")]
pub(crate) struct Life {
    /// The supervisor that started it: to nobody else does the kernel tell how it ended.
    pub(crate) parent: usize,
    /// The supervisor that looks after it, and what that one calls it.
    pub(crate) held: Option<usize>,
    pub(crate) generation: Generation,
    pub(crate) pid: i32,
    pub(crate) born: Moment,
    /// CPU time that its event loop had used by then.
    pub(crate) used: (Moment, Duration),
    pub(crate) temper: Temper,
    pub(crate) show: Show,
    pub(crate) leader: bool,
    pub(crate) daemons: u32,
    /// A child of it that is in an uninterruptible sleep once killed.
    pub(crate) stuck_child: bool,
    pub(crate) termed: bool,
    /// It could not be killed and somebody was told, or nobody can know of it any more: the store was lost.
    pub(crate) excused: bool,
    /// When the supervisor has learnt that it exists: its end is not news before that.
    pub(crate) known: Moment,
    /// Its exit was a restart that it had planned.
    pub(crate) planned: bool,
    /// When its leader ended.
    pub(crate) died: Option<Moment>,
    /// A successor that nobody has taken hold of yet: the gateway that left it, as one of whose tree it counts.
    pub(crate) origin: Option<usize>,
}

impl Life {
    /// One that has just been started.
    pub(crate) fn new(parent: usize, generation: Generation, pid: i32, born: Moment, temper: Temper) -> Self {
        Self {
            parent,
            held: Some(parent),
            generation,
            pid,
            born,
            used: (born, Duration::ZERO),
            show: Show::Closed,
            leader: true,
            daemons: temper.daemons,
            stuck_child: temper.stuck.is_some_and(|(leader, _)| !leader),
            termed: false,
            excused: false,
            known: born,
            planned: false,
            died: None,
            origin: None,
            temper,
        }
    }

    /// The process that listens.
    pub(crate) fn listener(&self) -> i32 {
        self.pid + if self.temper.launched { 50 } else { 0 }
    }

    /// Its event loop uses what it uses, up to now.
    pub(crate) fn work(&mut self, now: Moment) -> Duration {
        let share = match self.show {
            Show::Warming | Show::Serving | Show::Draining => 1,
            Show::Closed | Show::Frozen | Show::Nonsense => self.temper.works,
        };
        let (since, used) = self.used;
        self.used = (now, used + now.saturating_sub(since) * share / 100);
        self.used.1
    }

    pub(crate) fn tree_rss_kb(&self, now: Moment) -> u64 {
        let age = now.saturating_sub(self.born);
        let over = match self.temper.memory {
            Memory::Steady => false,
            Memory::Leaks(from) => age >= from,
            Memory::Peaks(from, to) => (from..to).contains(&age),
        };
        if over { MEMORY_MAX_KB + 1 } else { MEMORY_MAX_KB }
    }

    /// The whole machine stood still.
    pub(crate) fn stand_still(&mut self, by: Duration) {
        self.known += by;
        self.born += by;
        self.used.0 += by;
    }

    pub(crate) fn alive(&self) -> u32 {
        u32::from(self.leader) + self.daemons + u32::from(self.stuck_child)
    }

    /// The store is lost, and with it what only the store knew of. A living gateway can be found by its mark.
    pub(crate) fn forget(&mut self) {
        self.excused |= !self.leader;
    }

    pub(crate) fn verdict(&self) -> Verdict {
        match self.show {
            _ if !self.leader => Verdict::Free,
            Show::Closed => Verdict::Free,
            Show::Warming if self.temper.old => Verdict::Silent,
            Show::Warming => Verdict::Gateway(Phase::Starting),
            Show::Serving | Show::Draining if self.temper.old => Verdict::Gateway(Phase::Unknown),
            Show::Serving => Verdict::Gateway(Phase::Started),
            Show::Draining => Verdict::Draining,
            Show::Frozen => Verdict::Silent,
            Show::Nonsense => Verdict::Foreign,
        }
    }
}
