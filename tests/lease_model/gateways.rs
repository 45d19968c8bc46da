//! Never two gateways: an owner by heartbeat with its gateway on one machine, an observer on another, and the counter in
//! their row. Each clock runs up to 1 % fast or slow, a call to the store hangs anywhere and for any time, and the owner's
//! machine or process stands still once.
//!
//! After the observer has taken the lease it is the owner, so that one change of owner stands for all of them.

use crate::plant::TWO_GATEWAYS;
use crate::search::{Cause, Model, Next};
use openclaw_supervise_core::lease::{BEAT, CONFIRMED_FOR, FRESH_FOR, KILLED_BY, LOST_DRAIN, UNCHANGED_FOR};
use std::time::Duration;

/// A step of time, in milliseconds: as coarse as the bounds below allow.
const UNIT: u64 = 660;

/// How late a timer may be, and how long the kill of a tree may take, in units.
const LATE: u8 = 1;
const KILL: u8 = 1;

/// The real time at the earliest, and at the latest, when a clock that is off by 1 % has measured this.
#[expect(clippy::cast_possible_truncation, reason = "no duration of the protocol is 255 units long")]
const fn earliest(measured: Duration) -> u8 {
    (measured.as_millis() as u64 * 99 / 100 / UNIT) as u8
}

#[expect(clippy::cast_possible_truncation, reason = "no duration of the protocol is 255 units long")]
const fn latest(measured: Duration) -> u8 {
    (measured.as_millis() as u64 * 101 / 100).div_ceil(UNIT) as u8
}

/// From here on no age matters any more.
const OLDEST: u8 = latest(UNCHANGED_FOR) + 1;

pub(crate) const OUTLIVES: &str = "a gateway lives on though its supervisor has been awake for long enough to end it";

/// A mistake in this part of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {
    /// A confirmation counts from the moment when the call returns.
    CountsFromReturn,
    /// The age is looked at when a call of the store returns.
    AsksStoreThread,
    /// A gateway has the time that it wants for its drain.
    DrainsInFull,
    /// The clock stands still while the machine sleeps.
    SleepsOver,
    /// Waking up, the owner waits for the store first.
    WaitsAfterSleep,
    /// The observer waits for as long as the owner does.
    ObservesBriefly,
    /// A gateway that has ended is started again without a new confirmation.
    StartsUnconfirmed,
    /// Who learns that another has the lease leaves its gateway running.
    KeepsOnLoss,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Gateway {
    None,
    Runs,
    Drains,
    /// SIGKILL is sent; its tree is gone after this many units.
    Killed(u8),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Write {
    /// Not committed yet.
    Begun,
    Committed,
    /// Another owner was in the row.
    Rejected,
}

/// How the owner stands still.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Still {
    /// It never has.
    Never,
    /// Suspended, or stopped by a signal: its boot-time clock goes on.
    Asleep,
    /// A paused virtual machine: its clocks stand still as well.
    Paused,
    /// For so many units it has been awake again. `paused`: nothing in it tells of the pause.
    Awake { since: u8, paused: bool },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Hosts {
    /// The age of the owner's last confirmation, as it counts it, and of the write that is under way.
    confirmed: u8,
    write: Option<(Write, u8)>,
    gateway: Gateway,
    still: Still,
    /// It knows that another has the lease.
    lost: bool,
    /// For how long the observer has seen the same counter, and whether the counter still is that one.
    seen: u8,
    is_same: bool,
    /// The observer has taken the lease and runs a gateway.
    taken: bool,
}

pub(crate) struct Heartbeat {
    pub(crate) mistake: Option<Mistake>,
}

type Found = Vec<Next<Hosts>>;

impl Hosts {
    fn is_awake(&self) -> bool {
        !matches!(self.still, Still::Asleep | Still::Paused)
    }

    /// Whether it has had the time to act since it woke up.
    fn is_settled(&self, slack: u8) -> bool {
        match self.still {
            Still::Never => true,
            Still::Asleep | Still::Paused => false,
            Still::Awake { since, .. } => since >= slack,
        }
    }

    fn was_paused(&self) -> bool {
        matches!(self.still, Still::Paused | Still::Awake { paused: true, .. })
    }
}

impl Heartbeat {
    fn has(&self, mistake: Mistake) -> bool {
        self.mistake == Some(mistake)
    }

    /// Whether the owner looks at the age of its confirmation now.
    fn looks(&self, hosts: &Hosts) -> bool {
        let waits = self.has(Mistake::WaitsAfterSleep) && !matches!(hosts.still, Still::Never) && hosts.write.is_some();
        hosts.is_awake() && !waits && !(self.has(Mistake::AsksStoreThread) && hosts.write.is_some())
    }

    fn owner(&self, hosts: Hosts, found: &mut Found) {
        let mut own = |what, state| found.push(Next { cause: Cause::Protocol, what, who: Some(0), state: Ok(state) });
        if self.looks(&hosts) {
            match hosts.gateway {
                Gateway::Runs if hosts.confirmed >= earliest(CONFIRMED_FOR) => {
                    own(
                        "tells its gateway to end: the lease is unconfirmed",
                        Hosts { gateway: Gateway::Drains, ..hosts },
                    );
                }
                Gateway::Drains if hosts.confirmed >= earliest(KILLED_BY) && !self.has(Mistake::DrainsInFull) => {
                    own("kills its gateway", Hosts { gateway: Gateway::Killed(KILL), ..hosts });
                }
                Gateway::None
                    if !hosts.lost
                        && (hosts.confirmed <= latest(FRESH_FOR) || self.has(Mistake::StartsUnconfirmed)) =>
                {
                    own("starts a gateway", Hosts { gateway: Gateway::Runs, ..hosts });
                }
                _ => {}
            }
        }
        if hosts.gateway == Gateway::Drains {
            own("sees its gateway end", Hosts { gateway: Gateway::None, ..hosts });
        }
        match hosts.write {
            None if hosts.is_awake() && !hosts.lost && hosts.confirmed >= earliest(BEAT) => {
                own("begins to write", Hosts { write: Some((Write::Begun, 0)), ..hosts });
            }
            // The server may do it while its client stands still.
            Some((Write::Begun, _)) if hosts.taken => {
                own("has its write rejected", Hosts { write: Some((Write::Rejected, 0)), ..hosts });
            }
            Some((Write::Begun, age)) => {
                own("has its counter go on", Hosts { write: Some((Write::Committed, age)), is_same: false, ..hosts });
            }
            Some((Write::Committed, age)) if hosts.is_awake() => {
                let age = if self.has(Mistake::CountsFromReturn) { 0 } else { age };
                own("hears of its confirmation", Hosts { write: None, confirmed: hosts.confirmed.min(age), ..hosts });
            }
            Some((Write::Rejected, _)) if hosts.is_awake() => {
                let keeps = hosts.gateway == Gateway::None || self.has(Mistake::KeepsOnLoss);
                let gateway = if keeps { hosts.gateway } else { Gateway::Killed(latest(LOST_DRAIN) + LATE + KILL) };
                own("hears of the new owner", Hosts { write: None, lost: true, gateway, ..hosts });
            }
            Some((Write::Committed | Write::Rejected, _)) | None => {}
        }
    }

    fn observer(&self, hosts: Hosts, found: &mut Found) {
        let patience = if self.has(Mistake::ObservesBriefly) { CONFIRMED_FOR } else { UNCHANGED_FOR };
        let mut own = |what, state| found.push(Next { cause: Cause::Protocol, what, who: Some(1), state: Ok(state) });
        if hosts.taken {
        } else if !hosts.is_same {
            own("sees the counter move", Hosts { seen: 0, is_same: true, ..hosts });
        } else if hosts.seen >= earliest(patience) {
            own("takes the lease and starts a gateway", Hosts { taken: true, seen: 0, ..hosts });
        }
    }

    fn stand_still(hosts: Hosts, found: &mut Found) {
        let mut may = |what, still| {
            found.push(Next { cause: Cause::Chance, what, who: Some(0), state: Ok(Hosts { still, ..hosts }) });
        };
        match hosts.still {
            Still::Never => {
                may("is suspended or stopped", Still::Asleep);
                may("is paused with its machine", Still::Paused);
            }
            Still::Asleep => may("wakes up", Still::Awake { since: 0, paused: false }),
            // Nothing is due by its clocks that was not due before.
            Still::Paused => may("goes on", Still::Awake { since: BOUND, paused: true }),
            Still::Awake { .. } => {}
        }
    }

    /// Time goes on, unless the owner has to act before that.
    fn pass(&self, hosts: Hosts, found: &mut Found) {
        let due = |bound: Duration, slack| hosts.confirmed >= latest(bound) + slack && hosts.is_settled(slack);
        let acts = match hosts.gateway {
            Gateway::Runs => due(CONFIRMED_FOR, LATE),
            Gateway::Drains => due(KILLED_BY, LATE) && !self.has(Mistake::DrainsInFull),
            Gateway::None | Gateway::Killed(_) => false,
        };
        if acts && self.looks(&hosts) {
            return;
        }
        let older = |age: u8| (age + 1).min(OLDEST);
        let runs = match hosts.still {
            Still::Never | Still::Awake { .. } => true,
            Still::Asleep => !self.has(Mistake::SleepsOver),
            Still::Paused => false,
        };
        let mut next = Hosts { seen: older(hosts.seen) * u8::from(!hosts.taken), ..hosts };
        if runs {
            next.confirmed = older(hosts.confirmed);
            next.write = hosts.write.map(|(write, age)| (write, older(age) * u8::from(write != Write::Rejected)));
        }
        if hosts.is_awake() {
            next.gateway = match hosts.gateway {
                Gateway::Killed(1) => Gateway::None,
                Gateway::Killed(left) => Gateway::Killed(left - 1),
                gateway => gateway,
            };
        }
        if let Still::Awake { since, .. } = &mut next.still {
            *since = (*since + 1).min(BOUND);
        }
        found.push(Next { cause: Cause::Time, what: "0.66 s pass", who: None, state: Ok(next) });
    }

    fn judge(hosts: &Hosts) -> Result<(), &'static str> {
        if hosts.gateway == Gateway::None || !hosts.is_awake() {
            return Ok(());
        }
        // Of a pause its own clock knows nothing: by that clock the gateway ends in time all the same.
        let old = hosts.confirmed > latest(KILLED_BY) + LATE + KILL && hosts.is_settled(BOUND) && !hosts.lost;
        if old || hosts.lost && hosts.gateway == Gateway::Runs {
            return Err(OUTLIVES);
        }
        let excused = hosts.was_paused() || !hosts.is_settled(BOUND);
        if hosts.taken && !excused { Err(TWO_GATEWAYS) } else { Ok(()) }
    }
}

/// By then, after a sleep, the gateway is gone: at once, or with the drain of a lease that turns out to be lost.
const BOUND: u8 = LATE + latest(LOST_DRAIN) + LATE + KILL + 1;

impl Model for Heartbeat {
    type State = Hosts;

    /// The lease is taken, a gateway runs, and the observer has just seen the counter.
    fn first(&self) -> Hosts {
        Hosts {
            confirmed: 0,
            write: None,
            gateway: Gateway::Runs,
            still: Still::Never,
            lost: false,
            seen: 0,
            is_same: true,
            taken: false,
        }
    }

    fn next(&self, hosts: &Hosts, found: &mut Found) {
        self.owner(*hosts, found);
        self.observer(*hosts, found);
        Self::stand_still(*hosts, found);
        self.pass(*hosts, found);
        for next in found {
            next.state = next.state.and_then(|hosts| Self::judge(&hosts).map(|()| hosts));
        }
    }

    fn tell(&self, _before: &Hosts, step: &Next<Hosts>) -> String {
        let who = step.who.map_or("", |side| ["the owner ", "the observer "][usize::from(side)]);
        match step.state {
            Ok(after) => format!("{:<60} {after:?}", format!("{who}{}", step.what)),
            Err(what) => format!("{:<60} {what}", format!("{who}{}", step.what)),
        }
    }

    fn waits(&self, hosts: &Hosts) -> bool {
        !hosts.taken
    }

    fn served(&self, hosts: &Hosts) -> bool {
        hosts.taken
    }
}
