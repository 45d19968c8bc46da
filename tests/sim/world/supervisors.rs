//! The supervisors of a world: how they start, end and are killed, and which of them has the lease.

use super::{STOP_BUDGET_MAX, Sup, WAKING, World, WorldEvent};
use crate::dice::Dice;
use crate::fake_shell::{Broken, FakeShell, must};
use crate::gateway::SimGateway;
use crate::trial::{Input, Trial};
use openclaw_supervise_core::lease::{BEAT, Basis, UNCHANGED_FOR};
use openclaw_supervise_core::{
    Acquired, Contested, Event, ExitStatus, Generation, Holder, LeaseAnswer, LeaseRequest, Moment, Policy, Recovered,
    Remains, Request, exit,
};
use std::time::Duration;

const KILLED: ExitStatus = ExitStatus::Signal { number: 9, core_dumped: false };

/// The most supervisors that are started, except after a kill.
const SUPERVISORS_MAX: usize = 10;

fn sup_pid(sup: usize) -> i32 {
    1000 + i32::try_from(sup).unwrap_or(0)
}

fn holder(pid: i32) -> Holder {
    Holder { pid, command: "openclaw-supervise run".to_owned(), uid: None }
}

impl World<'_> {
    /// Starts a supervisor.
    pub(super) fn begin(&mut self) -> Result<(), Broken> {
        self.starting -= 1;
        let sup = self.sups.len();
        let attended = self.dice.once_in(8);
        let policy = Policy { seed: self.policy.seed.wrapping_add(sup as u64 * 7919), attended, ..self.policy.clone() };
        let trial = Trial { is_strict: self.is_strict, ..Trial::new((self.make)(&policy), &policy) };
        self.sups.push(Sup {
            trial,
            shell: FakeShell::default(),
            pid: sup_pid(sup),
            up: true,
            tick_late: Duration::ZERO,
            paused_until: Moment::ZERO,
            cut_until: Moment::ZERO,
            watched: false,
            confirmed: Moment::ZERO,
            waking: Moment::ZERO,
            lease_lost: false,
            stolen: false,
            expected: self.moves.settings,
            heeded: self.moves.settings,
        });
        self.last_start = self.now;
        if self.dice.once_in(4) {
            let (when, timeout) = (self.dice.ms(0, 3000), self.dice.ms(0, 60_000).min(STOP_BUDGET_MAX));
            self.later(when, WorldEvent::Deliver(sup, Event::StopBudget { timeout }));
        }
        self.send(sup, Event::Start)
    }

    fn start_another(&mut self, after_kill: bool) {
        if !after_kill && self.sups.len() >= SUPERVISORS_MAX {
            return;
        }
        let when = match self.dice.below(4) {
            0 => Duration::ZERO,
            1 => self.dice.ms(0, 1000),
            2 => self.dice.s(0, 20),
            _ => self.dice.s(0, 400),
        };
        self.starting += 1;
        self.later(when, WorldEvent::Begin);
    }

    /// "Kill it and start it again", as scripts do.
    pub(super) fn maybe_start_again(&mut self, request: Request) {
        let room = self.sups.len() < SUPERVISORS_MAX && !self.calm;
        if request == Request::Stop && room && self.dice.once_in(3) {
            self.starting += 1;
            let when = self.dice.ms(0, 2000);
            self.later(when, WorldEvent::Begin);
        }
    }

    /// One of those that run; mostly the owner of the lease.
    pub(super) fn any_up(&mut self) -> Option<usize> {
        let up: Vec<_> = (0..self.sups.len()).filter(|sup| self.sups[*sup].up).collect();
        let owner = self.store.lease.owner.filter(|owner| up.contains(owner) && !self.dice.once_in(4));
        owner.or_else(|| (!up.is_empty()).then(|| self.dice.pick(&up)))
    }

    /// Whether the supervisor is killed at this effect.
    pub(super) fn kill_is_due(&mut self) -> bool {
        self.performed += 1;
        !self.calm && self.kills.pop_first_if(self.performed)
    }

    /// SIGKILL to a supervisor. Its gateway lives on, loses its leader, or dies with the control group.
    pub(super) fn kill_supervisor(&mut self, sup: usize) -> Result<(), Broken> {
        let lease = &mut self.store.lease;
        if lease.owner == Some(sup) {
            (lease.owner, lease.stale) = (None, true);
        }
        let held: Vec<_> = (0..self.gateways.len()).filter(|id| self.gateways[*id].held == Some(sup)).collect();
        self.remove(sup);
        self.orphan_hooks(sup);
        for id in held {
            // Its end is on record, and nothing leads to the rest of its tree.
            self.gateways[id].excused |= !self.gateways[id].leader && !self.is_recorded(id);
            match self.dice.below(10) {
                0 | 1 => {
                    self.die(id, KILLED)?;
                    self.gateways[id].installs = false;
                    self.clear(id)?;
                }
                2 | 3 => self.die(id, KILLED)?,
                _ => {}
            }
        }
        self.start_another(true);
        Ok(())
    }

    /// Whether the open record leads to this gateway, or to its successor and so to its tree.
    fn is_recorded(&self, id: usize) -> bool {
        let recorded = self.store.unfinished();
        recorded.is_some_and(|recorded| recorded == id || self.gateways[recorded].origin == Some(id))
    }

    /// Removes a supervisor that has exited or was killed.
    fn remove(&mut self, sup: usize) {
        self.sups[sup].up = false;
        for gateway in self.gateways.iter_mut().filter(|gateway| gateway.held == Some(sup)) {
            gateway.held = None;
        }
        self.notify_departure(sup_pid(sup));
    }

    /// Tells the supervisors that watch this process of its exit.
    pub(super) fn notify_departure(&mut self, pid: i32) {
        for sup in 0..self.sups.len() {
            let is_lost = !self.calm && self.chance().once_in(4);
            if self.sups[sup].up && self.sups[sup].shell.watched == Some(pid) && !is_lost {
                let news = self.news_delay();
                self.later(news, WorldEvent::Deliver(sup, Event::Departed { pid }));
            }
        }
    }

    /// A supervisor exits by itself.
    pub(super) fn end_supervisor(&mut self, sup: usize, code: u8) -> Result<(), Broken> {
        let owner = self.store.lease.owner == Some(sup);
        let stopped = self.sups[sup].trial.judge.stopped();
        must(!self.leaves_hook(sup), "P6", "a hook outlives its supervisor")?;
        if self.sups[sup].trial.judge.seeks() {
            // Its exit reason says so; what no open record names is left to the operator.
            for id in 0..self.gateways.len() {
                self.gateways[id].excused |= !self.is_recorded(id);
            }
        }
        self.orphan_hooks(sup);
        self.remove(sup);
        if owner && self.sups[sup].cut_until > self.now {
            // The store does not answer, so it cannot be released either.
            (self.store.lease.owner, self.store.lease.stale) = (None, true);
        } else if owner {
            (self.store.lease.owner, self.store.lease.stale) = (None, false);
            let left = self.gateways.iter().any(|gateway| gateway.alive() > 0 && !gateway.excused);
            let whole = !self.store.lost && !self.hidden;
            must(
                !(whole && stopped && code == exit::OK && left),
                "P6",
                "a stop leaves a process of an older supervisor",
            )?;
            let open = code == exit::GAVE_UP && self.store.unsettled();
            must(!open, "P9", "gave up without the last end on record")?;
        }
        let again = match code {
            exit::GAVE_UP => !self.dice.once_in(3),
            exit::OK => self.dice.once_in(if stopped { 5 } else { 2 }),
            _ => self.dice.once_in(3),
        };
        if again && !self.ending {
            self.start_another(false);
        }
        Ok(())
    }

    /// The store answers an attempt to take the lease.
    pub(super) fn try_lease(&mut self, sup: usize, ticket: u64, ask: LeaseRequest) -> Result<(), Broken> {
        let answer = self.answer_lease(sup, ask);
        if self.is_watched() && matches!(answer, LeaseAnswer::Acquired(_)) {
            (self.sups[sup].watched, self.sups[sup].confirmed) = (true, self.now);
            self.later(BEAT, WorldEvent::Beat(sup, None));
            self.send(sup, Event::LeaseConfirmed { age: Duration::ZERO })?;
        }
        let is_owner = matches!(answer, LeaseAnswer::Acquired(_));
        self.deliver(sup, Event::Leased { ticket, answer })?;
        if is_owner { self.recall_pause(sup) } else { Ok(()) }
    }

    fn answer_lease(&mut self, sup: usize, ask: LeaseRequest) -> LeaseAnswer {
        if !self.calm && self.dice.once_in(self.trouble * 4) {
            let why = "cannot create the store directory".to_owned();
            return if self.dice.once_in(2) { LeaseAnswer::Failed(why) } else { LeaseAnswer::Refused(why) };
        }
        let beat = self.store.lease.beat;
        let robbed = self.store.lease.robbed.filter(|robbed| self.sups[*robbed].up);
        if robbed.is_some() {
            return LeaseAnswer::Contended { owner: Some(holder(998)), what: Contested::Lease };
        }
        let unseen = self.remote && (self.store.lease.owner.is_some() || self.store.lease.stale);
        let still = matches!(ask, LeaseRequest::Take { unchanged } if unchanged == Some(beat));
        let owner = self.store.lease.owner;
        match (owner, ask) {
            _ if unseen && !still => LeaseAnswer::Unclear { beat, owner: owner.map(|owner| holder(sup_pid(owner))) },
            (Some(owner), _) if !unseen => self.contended(owner),
            (_, LeaseRequest::Peek) => LeaseAnswer::Free,
            (_, LeaseRequest::Take { .. }) => {
                if let Some(loser) = owner {
                    self.depose(loser, sup);
                }
                self.acquire(sup)
            }
        }
    }

    /// The heartbeat of an owner has stood still, because it was suspended or cut off. It hears of the new owner when the
    /// store answers it; what it runs is on another machine.
    fn depose(&mut self, loser: usize, sup: usize) {
        self.sups[loser].lease_lost = true;
        let (owner, why) = (Some(holder(sup_pid(sup))), "the heartbeat stood still".to_owned());
        let when = self.sups[loser].cut_until.max(self.now) + self.dice.ms(0, 2000);
        self.at(when, WorldEvent::Deliver(loser, Event::LeaseLost { owner, why }));
        for id in 0..self.gateways.len() {
            // Its gateways, and successors that they have left.
            let origin = self.gateways[id].origin.unwrap_or(id);
            let is_its_own = self.gateways[origin].held == Some(loser);
            let gateway = &mut self.gateways[id];
            if is_its_own && gateway.alive() > 0 {
                (gateway.away, gateway.excused) = (true, true);
                self.unbind(id);
                for row in self.store.rows.values_mut().filter(|row| row.gateway == Some(id)) {
                    row.gateway = None;
                }
            }
        }
    }

    /// The counter of the lease goes on, and the next time is planned.
    pub(super) fn beat(&mut self, sup: usize, began: Option<(Moment, Duration)>) -> Result<(), Broken> {
        if self.store.lease.owner != Some(sup) {
            return Ok(());
        }
        self.store.lease.beat += 1;
        let (began, slept) = began.unwrap_or((self.now, self.slept));
        let age = self.now.saturating_sub(began) + self.slept.saturating_sub(slept);
        self.sups[sup].confirmed = self.sups[sup].confirmed.max(self.now.saturating_sub(age));
        self.later(BEAT, WorldEvent::Beat(sup, None));
        self.send(sup, Event::LeaseConfirmed { age })
    }

    /// Under a heartbeat no gateway lives when another supervisor may start one, unless its own was suspended meanwhile.
    pub(super) fn judge_confirmations(&self) -> Result<(), Broken> {
        for (number, sup) in self.sups.iter().enumerate() {
            let due = (sup.confirmed + UNCHANGED_FOR).max(sup.waking);
            let is_idle = !sup.up || !sup.watched || sup.trial.judge.seeks();
            if is_idle || self.now <= due || sup.paused_until > self.now {
                continue;
            }
            // What is looked for cannot be ended. One that a predecessor left may just have been found.
            let lives = |(id, gateway): (usize, &SimGateway)| {
                let is_covered =
                    !gateway.killed && (!gateway.excused || gateway.away) && self.now > gateway.known + WAKING;
                let has_heir = self.gateways.iter().any(|heir| heir.origin == Some(id));
                gateway.held == Some(number) && gateway.alive() > 0 && is_covered && !has_heir
            };
            must(
                !self.gateways.iter().enumerate().any(lives),
                "lease",
                "a gateway lives 30 s after the last confirmation",
            )?;
        }
        Ok(())
    }

    fn contended(&mut self, owner: usize) -> LeaseAnswer {
        let named = match self.dice.below(6) {
            0 => None,
            // The row of an earlier owner: the current one has not written its own yet.
            1 => Some(holder(999)),
            _ => Some(holder(sup_pid(owner))),
        };
        LeaseAnswer::Contended {
            owner: named,
            what: self.dice.pick(&[Contested::Lease, Contested::Lease, Contested::PortClaim]),
        }
    }

    fn acquire(&mut self, sup: usize) -> LeaseAnswer {
        let mut trouble = None;
        if self.fragile && !self.calm && self.dice.once_in(4) {
            self.store.lose();
            self.gateways.iter_mut().for_each(SimGateway::forget);
            trouble = Some("the store was damaged".to_owned());
        }
        let lease = &mut self.store.lease;
        let recovered = lease.stale.then(|| Recovered { pid: None, why: "its lock is free".to_owned() });
        lease.beat += 1;
        (lease.owner, lease.stale) = (Some(sup), true);
        lease.epoch += 1;
        let epoch = lease.epoch;
        let basis = if self.remote { Basis::Heartbeat } else { Basis::Lock };
        LeaseAnswer::Acquired(Box::new(Acquired { epoch, basis, recovered, past: self.store.past(), trouble }))
    }

    /// A person gives the lease to a supervisor elsewhere.
    pub(super) fn steal_lease(&mut self) {
        let Some(owner) = self.store.lease.owner.filter(|_| !self.calm) else { return };
        (self.store.lease.owner, self.store.lease.stale) = (None, false);
        self.store.lease.robbed = Some(owner);
        (self.sups[owner].lease_lost, self.sups[owner].stolen) = (true, true);
        let news = self.news_delay();
        let lost = Event::LeaseLost { owner: Some(holder(998)), why: "it was taken by hand".to_owned() };
        self.later(news, WorldEvent::Deliver(owner, lost));
    }

    /// What is left of a gateway: a living leader, other processes of its tree, or nothing.
    pub(super) fn seek(&mut self, sup: usize, generation: Generation) -> Result<(), Broken> {
        if self.store.lease.owner != Some(sup) || !self.calm && self.dice.once_in(self.trouble) {
            return Ok(());
        }
        if self.scarce && !self.calm && !self.dice.once_in(4) {
            let (why, delay) = ("too many open files".to_owned(), self.dice.ms(0, 500));
            self.later(delay, WorldEvent::Deliver(sup, Event::AdoptFailed { generation, why }));
            return Ok(());
        }
        let row = self.store.rows.get(&generation);
        let marked = || {
            let alive = |id: &usize| self.gateways[*id].alive() > 0 && !self.gateways[*id].excused;
            let found: Vec<_> = (0..self.gateways.len()).filter(alive).collect();
            found.iter().copied().find(|id| self.gateways[*id].leader).or_else(|| found.first().copied())
        };
        let is_lost = |id: &usize| row.is_some_and(|row| row.pid.is_none()) && self.gateways[*id].excused;
        let id = if let Some(row) = row { row.gateway.filter(|id| !is_lost(id)) } else { marked() };
        let delay = self.dice.ms(0, 500);
        let recorded = row.and_then(|row| row.pid);
        // A process that was seen with our mark may be gone by now, or not be readable.
        let unrecorded = row.is_none();
        // Of several processes at least one is always found.
        let alone =
            id.is_some_and(|id| self.gateways[id].origin.is_some_and(|origin| self.gateways[origin].alive() == 1));
        let in_hand = id.is_some_and(|id| self.gateways[id].held == Some(sup));
        let blind = (unrecorded && self.store.lost || alone) && !in_hand && !self.calm && self.dice.once_in(4);
        let found = id.filter(|id| !blind && self.gateways[*id].alive() > 0);
        if let Some(id) = id {
            if found.is_none() && self.gateways[id].origin.is_some() {
                // Nothing leads to it any more.
                self.gateways[id].excused = true;
            }
            self.promote_successor(id)?;
        }
        let remains = match found {
            None => match recorded {
                // It may run on the machine of its supervisor, which is another one.
                Some(pid) if self.remote && self.dice.once_in(2) => Remains::Unseen { pid },
                pid => Remains::Nothing { pid },
            },
            Some(id) => {
                if unrecorded {
                    self.store.intend(generation, self.now)?;
                }
                // What a gateway left now counts under the generation of its successor.
                if self.gateways[id].held == Some(sup) && self.gateways[id].generation != generation {
                    self.sups[sup].trial.take(self.now, Input::Alive(self.gateways[id].generation, 0))?;
                }
                let gateway = &mut self.gateways[id];
                (gateway.held, gateway.generation, gateway.known) = (Some(sup), generation, self.now + delay);
                let leader = gateway.leader && !gateway.is_left();
                let (pid, alive) = (gateway.pid, gateway.alive());
                if let Some(row) = self.store.rows.get_mut(&generation) {
                    row.gateway = Some(id);
                    row.pid = leader.then_some(pid).or(row.pid);
                }
                self.sups[sup].trial.take(self.now, Input::Alive(generation, alive))?;
                if leader {
                    Remains::Leader { pid, differs: self.dice.once_in(4).then(|| "another command".to_owned()) }
                } else {
                    Remains::Orphans { pid: recorded }
                }
            }
        };
        self.later(delay, WorldEvent::Deliver(sup, Event::Adopted { generation, remains }));
        Ok(())
    }

    /// Whether a process with this id exists.
    pub(super) fn exists(&self, pid: i32) -> bool {
        let foreign_listener = self.stranger().is_some();
        (pid == super::FOREIGN_PID && foreign_listener) || self.sups.iter().any(|sup| sup.up && sup.pid == pid)
    }
}

/// Crash points: the effects of this world at which a supervisor is killed.
#[derive(Debug, Clone, Default)]
pub(super) struct Kills(Vec<u64>);

impl Kills {
    pub(super) fn any(dice: &mut Dice) -> Self {
        let many = dice.pick(&[0, 0, 1, 1, 2, 3]);
        let mut at = 0;
        let points = (0..many).map(|_| {
            at += 1 + dice.below(40);
            at
        });
        Self(points.collect())
    }

    fn pop_first_if(&mut self, performed: u64) -> bool {
        let before = self.0.len();
        self.0.retain(|at| *at != performed);
        self.0.len() < before
    }
}
