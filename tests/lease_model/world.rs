//! What there is: two supervisors, their files, their gateways.

use openclaw_supervise_core::lease::{BEAT, Basis, FRESH_FOR, Life, UNCHANGED_FOR};
use std::fmt;
use std::time::Duration;

/// Time goes on by one beat at a time. Every bound of the protocol says "at least" or "at most", never "more" or
/// "less": for such rules whole numbers show everything that fractions would (digital clocks: Henzinger, Manna and
/// Pnueli, ICALP 1992).
#[expect(clippy::cast_possible_truncation, reason = "no duration of the protocol is 255 beats long")]
const fn beats(duration: Duration) -> u8 {
    assert!(duration.as_secs().is_multiple_of(BEAT.as_secs()) && duration.as_secs() / BEAT.as_secs() < 255);
    (duration.as_secs() / BEAT.as_secs()) as u8
}

pub(crate) const UNCHANGED_BEATS: u8 = beats(UNCHANGED_FOR);
pub(crate) const FRESH_BEATS: u8 = beats(FRESH_FOR);

/// An owner that was not held up for this long between its look at the clock and the act is still the owner.
pub(crate) const WINDOW_BEATS: u8 = UNCHANGED_BEATS - FRESH_BEATS;

/// Where the two supervisors stand towards each other. What they always share is the row.
#[derive(Debug, Clone, Copy)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is one independent fact of a place, and all combinations exist"
)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) basis: Basis,
    /// What the second one sees, if that is something else: the same folder through another file system.
    pub(crate) other_basis: Option<Basis>,
    /// Whether the lock of the one keeps the other out.
    pub(crate) one_lock: bool,
    /// Whether they are of one pid namespace: they see each other's processes.
    pub(crate) one_pid_namespace: bool,
    /// Whether they are of one network namespace: they share the port's claim.
    pub(crate) one_net: bool,
    /// Whether a gateway survives the SIGKILL of its supervisor: not if that was PID 1 of a pid namespace.
    pub(crate) gateway_survives: bool,
    /// Whether a pre-start hook, or a stranger while the lease is being taken, may replace the store's folder, lock file
    /// and all.
    pub(crate) folder_replaced: bool,
    /// How often a supervisor is started on each side.
    pub(crate) starts: u8,
}

impl Setting {
    /// The basis that a side can judge, and on which it holds the lease.
    pub(crate) fn sees(&self, side: u8) -> Basis {
        self.other_basis.filter(|_| side == 1).unwrap_or(self.basis)
    }
}

/// Where a supervisor is. Each is the moment before its next step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Phase {
    Down,
    Starting,
    Locked,
    Read,
    Claimed,
    /// Watches the counter, with lock and claim in its hands.
    Observing,
    /// Releases the claim, then the lock: another owner lives.
    Yielding,
    YieldingLock,
    Standby,
    /// Has the lock only to see whether it is free; a planted mistake.
    Peeking,
    /// The row is ours. Looks for a gateway that was left.
    Taken,
    Idle,
    /// The intent is committed.
    Intended,
    /// It was young enough when we looked at the clock.
    Cleared,
    /// The gateway is there, its pid not yet on record.
    Spawned,
    Running,
    /// Is about to signal the gateway.
    Poised(Goal),
    Leaving,
    Released,
    Unclaimed,
    /// Another supervisor owns the row.
    Lost,
}

/// What a gateway is ended for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Goal {
    Restart,
    Stop,
}

impl Phase {
    pub(crate) fn has_lock(self) -> bool {
        !matches!(self, Self::Down | Self::Starting | Self::Standby)
    }

    pub(crate) fn has_claim(self) -> bool {
        self.has_lock()
            && !matches!(self, Self::Locked | Self::Read | Self::YieldingLock | Self::Peeking | Self::Unclaimed)
    }

    /// Whether it believes that the lease is its own.
    pub(crate) fn owns(self) -> bool {
        match self {
            Self::Taken
            | Self::Idle
            | Self::Intended
            | Self::Cleared
            | Self::Spawned
            | Self::Running
            | Self::Poised(_)
            | Self::Leaving => true,
            Self::Down
            | Self::Starting
            | Self::Locked
            | Self::Read
            | Self::Claimed
            | Self::Observing
            | Self::Yielding
            | Self::YieldingLock
            | Self::Standby
            | Self::Peeking
            | Self::Released
            | Self::Unclaimed
            | Self::Lost => false,
        }
    }

    /// Whether it will own the lease or come back to it, without interference.
    pub(crate) fn wants(self) -> bool {
        !matches!(self, Self::Down | Self::Leaving | Self::Released | Self::Unclaimed | Self::Lost)
    }

    /// From which age on nothing depends on the age any more.
    fn oldest(self, basis: Basis) -> u8 {
        match (self, basis) {
            (Self::Standby, _) => 1,
            (Self::Observing, _) => UNCHANGED_BEATS,
            (Self::Running | Self::Intended, Basis::Heartbeat) => FRESH_BEATS + 1,
            (Self::Cleared, Basis::Heartbeat) => WINDOW_BEATS,
            _ => 0,
        }
    }
}

/// A supervisor process: the side it is on and how many were there before it. Stands for the random owner id.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Owner {
    pub(crate) side: u8,
    pub(crate) start: u8,
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", ["A", "B"][usize::from(self.side)], self.start)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Supervisor {
    pub(crate) phase: Phase,
    pub(crate) start: u8,
    /// The epoch under which it owns the lease; 0 = it took it without a row, as the store could not be used.
    pub(crate) epoch: u8,
    /// The folder whose lock it has.
    pub(crate) folder: u8,
    /// Beats since the confirmation, the look at the clock or the sample that this phase goes by.
    pub(crate) age: u8,
    /// The counter it saw last while observing.
    pub(crate) sample: u8,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Row {
    pub(crate) owner: Owner,
    pub(crate) epoch: u8,
    pub(crate) released: bool,
    pub(crate) beat: u8,
}

/// The youngest gateway on record, by where it was started.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Record {
    Nothing,
    Intent(u8),
    Pid(u8),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct World {
    /// How often the store's folder was replaced.
    pub(crate) folder: u8,
    pub(crate) row: Option<Row>,
    /// Whether the owner by a lock is asked for a sign of life.
    pub(crate) asked: bool,
    pub(crate) record: Record,
    /// Whether a gateway lives there, by pid namespace.
    pub(crate) gateways: [bool; 2],
    pub(crate) sides: [Supervisor; 2],
    /// How many more commits may go through without their writer hearing of it.
    pub(crate) unheard: u8,
}

impl World {
    pub(crate) fn new() -> Self {
        let down = Supervisor { phase: Phase::Down, start: 0, epoch: 0, folder: 0, age: 0, sample: 0 };
        Self {
            folder: 0,
            row: None,
            asked: false,
            record: Record::Nothing,
            gateways: [false; 2],
            sides: [down; 2],
            unheard: 1,
        }
    }

    pub(crate) fn owner(&self, side: u8) -> Owner {
        Owner { side, start: self.at(side).start }
    }

    pub(crate) fn at(&self, side: u8) -> Supervisor {
        self.sides[usize::from(side)]
    }

    /// Goes on to a phase; what the old one counted is over.
    pub(crate) fn enter(mut self, side: u8, phase: Phase) -> Self {
        let supervisor = &mut self.sides[usize::from(side)];
        *supervisor = Supervisor { phase, age: 0, sample: 0, ..*supervisor };
        if !phase.owns() {
            supervisor.epoch = 0;
        }
        if !phase.has_lock() {
            supervisor.folder = 0;
        }
        self
    }

    /// Whether the lock that a supervisor has is that of a folder which is not there any more.
    pub(crate) fn is_astray(&self, side: u8) -> bool {
        self.at(side).phase.has_lock() && self.at(side).folder != self.folder
    }

    /// Whether a lock that keeps the other out is the one that a starter would find.
    pub(crate) fn is_locked_by(&self, side: u8) -> bool {
        self.at(side).phase.has_lock() && !self.is_astray(side)
    }

    /// Whether the row names this supervisor under its epoch.
    pub(crate) fn is_owner(&self, side: u8) -> bool {
        let me = self.owner(side);
        self.row.is_some_and(|row| row.owner == me && row.epoch == self.at(side).epoch && !row.released)
    }

    /// What can be told from `observer`'s place about an owner.
    pub(crate) fn life(&self, setting: &Setting, observer: u8, owner: Owner) -> Life {
        if owner.side != observer && !setting.one_pid_namespace {
            Life::Unknown
        } else if self.owner(owner.side) == owner && self.at(owner.side).phase != Phase::Down {
            Life::Alive
        } else {
            Life::Gone("its process is gone")
        }
    }

    /// One beat later.
    pub(crate) fn age(mut self, setting: &Setting) -> Self {
        for (side, supervisor) in (0..).zip(&mut self.sides) {
            supervisor.age = (supervisor.age + 1).min(supervisor.phase.oldest(setting.sees(side)));
        }
        self
    }

    /// Only which counters are equal, and that a counter goes up, matters: small numbers say so as well as large ones.
    pub(crate) fn renumber(mut self) -> Self {
        let seen = [self.row.map_or(0, |row| row.beat), self.sides[0].sample, self.sides[1].sample];
        let rank = |beat: u8| {
            let below = |index: usize| seen[index] > 0 && seen[index] < beat && !seen[..index].contains(&seen[index]);
            if beat == 0 { 0 } else { 1 + u8::from(below(0)) + u8::from(below(1)) + u8::from(below(2)) }
        };
        if let Some(row) = &mut self.row {
            row.beat = rank(seen[0]);
        }
        self.sides[0].sample = rank(seen[1]);
        self.sides[1].sample = rank(seen[2]);
        self
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.row {
            None => f.write_str("no row")?,
            Some(row) => {
                let state = if row.released { "given back" } else { "held" };
                write!(f, "row {} epoch {} {state}", row.owner, row.epoch)?;
            }
        }
        for (place, _) in ["one", "two"].into_iter().zip(self.gateways).filter(|(_, live)| *live) {
            write!(f, "; gateway in place {place}")?;
        }
        for side in [0, 1] {
            let Supervisor { phase, age, sample, .. } = self.at(side);
            write!(f, "; {} {phase:?}", self.owner(side))?;
            match phase {
                Phase::Down | Phase::Standby => {}
                Phase::Observing if self.row.is_some_and(|row| row.beat != sample) => f.write_str(", counter moved")?,
                _ if age > 0 => write!(f, " for {} s", u64::from(age) * BEAT.as_secs())?,
                _ => {}
            }
        }
        Ok(())
    }
}
