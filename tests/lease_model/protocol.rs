//! The steps of a supervisor, each as atomic as the kernel or the store makes it, and what can happen to it between them.

use crate::plant::{EPOCH, GIVEN_BACK, ITSELF, ONE_EPOCH, Plant, REFUSED, STALE, TWO_GATEWAYS, TWO_OWNERS};
use crate::search::{Cause, Model, Next};
use crate::world::{FRESH_BEATS, Goal, Owner, Phase, Record, Row, Setting, UNCHANGED_BEATS, WINDOW_BEATS, World};
use openclaw_supervise_core::lease::{self, Basis, Ruling, rule};

pub(crate) struct Protocol {
    pub(crate) setting: Setting,
    pub(crate) plant: Option<Plant>,
}

type Found = Vec<Next<World>>;
type Outcome = Result<World, &'static str>;

fn own(found: &mut Found, who: u8, what: &'static str, state: Outcome) {
    found.push(Next { cause: Cause::Protocol, what, who: Some(who), state });
}

fn may(found: &mut Found, who: u8, what: &'static str, state: Outcome) {
    found.push(Next { cause: Cause::Chance, what, who: Some(who), state });
}

impl Protocol {
    fn has(&self, plant: Plant) -> bool {
        self.plant == Some(plant)
    }

    fn beats(&self, side: u8) -> bool {
        self.setting.sees(side) == Basis::Heartbeat
    }

    /// What it goes by in a row; a planted mistake takes every owner for one of its own kind.
    fn basis_of(&self, row: Row, side: u8) -> Basis {
        let ours = match self.setting.sees(side) {
            Basis::Lock => self.has(Plant::LockJudgesAll),
            Basis::Heartbeat => self.has(Plant::SilenceJudgesAll),
        };
        if ours { self.setting.sees(side) } else { self.setting.sees(row.owner.side) }
    }

    /// The index of the place whose gateways a side can see.
    fn place(&self, side: u8) -> u8 {
        if self.setting.one_pid_namespace { 0 } else { side }
    }

    fn gateway(&self, world: &World, side: u8) -> bool {
        world.gateways[usize::from(self.place(side))]
    }

    fn with_gateway(&self, mut world: World, side: u8, lives: bool) -> World {
        world.gateways[usize::from(self.place(side))] = lives;
        world
    }

    fn ruling(&self, world: &World, side: u8, locked: bool) -> Ruling {
        let me = world.at(side);
        let row = world.row.map(|row| lease::Row {
            released: row.released && !self.has(Plant::ForgetsRelease),
            life: world.life(&self.setting, side, row.owner),
            beat: u64::from(row.beat),
            basis: self.basis_of(row, side),
        });
        let unchanged = (me.phase == Phase::Observing && me.age >= UNCHANGED_BEATS).then_some(u64::from(me.sample));
        rule(self.setting.sees(side), locked, row.as_ref(), unchanged)
    }

    fn lock(&self, world: World, side: u8, found: &mut Found) {
        let other = world.at(1 - side).phase;
        let free = !(self.setting.one_lock && world.is_locked_by(1 - side)) || self.has(Plant::SkipsLock);
        if self.ruling(&world, side, free) != Ruling::Contended || free {
            let mut next = world.enter(side, Phase::Locked);
            next.sides[usize::from(side)].folder = world.folder;
            own(found, side, "takes the lock", Ok(next));
        } else if other == Phase::Peeking {
            own(found, side, "finds the lock held", Err(REFUSED));
        } else {
            own(found, side, "finds the lock held", Ok(world.enter(side, Phase::Standby)));
        }
    }

    fn read(&self, world: World, side: u8, found: &mut Found) {
        let mut next = world.enter(side, Phase::Read);
        if self.has(Plant::SkipsReread) {
            // What it will go by: free, with the epoch that is next, or not (0).
            let free = matches!(self.ruling(&world, side, true), Ruling::Take { .. });
            next.sides[usize::from(side)].epoch = u8::from(free) * (world.row.map_or(0, |row| row.epoch) + 1);
        }
        own(found, side, "reads the row", Ok(next));
    }

    fn claim(&self, world: World, side: u8, found: &mut Found) {
        if self.setting.one_net && world.at(1 - side).phase.has_claim() {
            own(found, side, "finds the port claimed", Ok(world.enter(side, Phase::YieldingLock)));
        } else {
            let mut next = world.enter(side, Phase::Claimed);
            next.sides[usize::from(side)].epoch = world.at(side).epoch; // 0 but for `SkipsReread`
            own(found, side, "claims the port", Ok(next));
        }
    }

    /// What the take leaves, under whichever phase the supervisor is in then.
    fn write_row(&self, mut world: World, side: u8, epoch: u8, recovered: bool) -> Outcome {
        let owner = world.owner(side);
        if let Some(row) = world.row {
            if row.epoch >= epoch {
                return Err(EPOCH);
            }
            if recovered && row.released {
                return Err(GIVEN_BACK);
            }
            if recovered && row.owner == owner {
                return Err(ITSELF);
            }
        }
        let beat = if self.has(Plant::ResetsCounter) { 0 } else { world.row.map_or(0, |row| row.beat) + 1 };
        world.row = Some(Row { owner, epoch, released: false, beat });
        Ok(world)
    }

    fn own_row(world: &World, side: u8) -> Option<Row> {
        world.row.filter(|row| row.owner == world.owner(side) && !row.released)
    }

    fn taken(world: World, side: u8, epoch: u8) -> World {
        let mut next = world.enter(side, Phase::Taken);
        next.sides[usize::from(side)].epoch = epoch;
        next
    }

    /// The IMMEDIATE transaction: reads, decides, writes.
    fn transact(&self, world: World, side: u8, found: &mut Found) {
        let epoch = world.row.map_or(0, |row| row.epoch) + 1;
        let me = world.at(side);
        if world.is_astray(side) && !self.has(Plant::TrustsFolder) {
            own(found, side, "finds its lock file replaced", Ok(world.enter(side, Phase::Yielding)));
            return;
        }
        if let Some(row) = Self::own_row(&world, side).filter(|_| !self.has(Plant::ForgetsItself)) {
            own(found, side, "finds its own row", Ok(Self::taken(world, side, row.epoch)));
        } else if self.has(Plant::SkipsReread) && me.phase == Phase::Claimed && me.epoch > 0 {
            let next = self.write_row(world, side, me.epoch, false);
            own(found, side, "takes the lease", next.map(|next| Self::taken(next, side, me.epoch)));
        } else {
            match self.ruling(&world, side, true) {
                Ruling::Take { recovered } => {
                    let what = if recovered.is_some() { "recovers the lease" } else { "takes the lease" };
                    let next = self.write_row(world, side, epoch, recovered.is_some());
                    own(found, side, what, next.map(|next| Self::taken(next, side, epoch)));
                    if let Some(unheard) = world.unheard.checked_sub(1) {
                        let next = next.map(|next| World { unheard, ..next });
                        may(found, side, "takes the lease and does not hear of it", next);
                    }
                }
                Ruling::Contended => {
                    own(found, side, "finds a living owner", Ok(world.enter(side, Phase::Yielding)));
                }
                Ruling::Observe { beat } => self.sample(world, side, beat, found),
                Ruling::Unjudged => {
                    own(found, side, "cannot judge the owner and exits with 78", Ok(world.enter(side, Phase::Down)));
                }
            }
        }
        // Whose store is broken cannot be seen from the other side.
        if !self.beats(side) && self.setting.sees(0) == self.setting.sees(1) {
            may(found, side, "takes the lease without a row: the store is broken", Ok(Self::taken(world, side, 0)));
        }
    }

    fn sample(&self, mut world: World, side: u8, beat: u64, found: &mut Found) {
        world.asked = world.row.is_some_and(|row| self.setting.sees(row.owner.side) == Basis::Lock);
        let beat = u8::try_from(beat).unwrap();
        let me = world.at(side);
        if me.phase != Phase::Observing || me.sample != beat {
            let mut next = world.enter(side, Phase::Observing);
            next.sides[usize::from(side)].sample = beat;
            own(found, side, "notes the counter", Ok(next));
            if me.phase == Phase::Observing {
                may(found, side, "sees the counter move and exits with 78", Ok(world.enter(side, Phase::Down)));
            }
        }
    }

    /// A transaction that goes through only under our own epoch, and counts as a beat.
    fn confirm(&self, world: World, side: u8, blindly: bool) -> Option<World> {
        let mut next = world;
        if world.is_astray(side) {
            return Some(next); // the replaced folder's file is still open, and has no other writer
        }
        let row = next.row.as_mut().filter(|_| blindly || world.is_owner(side))?;
        row.beat += u8::from(self.beats(side) && !self.has(Plant::ConfirmsQuietly));
        Some(next)
    }

    fn lost(&self, world: World, side: u8, found: &mut Found) {
        let next = world.enter(side, Phase::Lost);
        let deposed = if self.beats(side) { Ok(next) } else { Err("an owner that holds its lock is deposed") };
        own(found, side, "finds another in the row", deposed);
    }

    fn adopt(&self, world: World, side: u8, found: &mut Found) {
        let place = self.place(side);
        let finds = match self.plant {
            Some(Plant::WantsPid) => world.record == Record::Pid(place),
            Some(Plant::LooksForYoungest) => [Record::Pid(place), Record::Intent(place)].contains(&world.record),
            _ => true,
        };
        if finds && self.gateway(&world, side) {
            own(found, side, "adopts the gateway", Ok(world.enter(side, Phase::Running)));
        } else {
            own(found, side, "finds no gateway", Ok(world.enter(side, Phase::Idle)));
        }
    }

    /// After a hook: the lock has to be the one that others find.
    fn relock(&self, world: World, side: u8, found: &mut Found) {
        if self.setting.one_lock && world.is_locked_by(1 - side) {
            own(found, side, "finds another in the new folder", Ok(world.enter(side, Phase::Lost)));
        } else {
            let epoch = world.at(side).epoch.max(world.row.map_or(0, |row| row.epoch)) + 1;
            let next = self.write_row(world, side, epoch, false).map(|next| {
                let mut next = Self::taken(next, side, epoch).enter(side, Phase::Idle);
                next.sides[usize::from(side)].folder = next.folder;
                next
            });
            own(found, side, "takes the lock of the new folder", next);
        }
    }

    fn intend(&self, world: World, side: u8, found: &mut Found) {
        if world.is_astray(side) && !self.has(Plant::TrustsFolder) {
            self.relock(world, side, found);
            return;
        }
        if self.setting.folder_replaced && world.folder == 0 {
            let next = World { folder: 1, row: None, record: Record::Nothing, ..world };
            may(found, side, "runs a hook that replaces the folder", Ok(next));
        }
        if world.at(side).epoch > 0 {
            match self.confirm(world, side, self.has(Plant::IntendsBlindly)) {
                Some(mut next) => {
                    next.record = Record::Intent(self.place(side));
                    own(found, side, "writes down that it will spawn", Ok(next.enter(side, Phase::Intended)));
                }
                None => self.lost(world, side, found),
            }
        }
        if !self.beats(side) || self.has(Plant::SpawnsUnrecorded) {
            let what = "goes on without a record: the store is broken";
            may(found, side, what, Ok(world.enter(side, Phase::Cleared)));
        }
        // Without a row nothing can be written: going on is all that there is.
        if world.at(side).epoch == 0 {
            own(found, side, "has no row to write to", Ok(world.enter(side, Phase::Cleared)));
        }
    }

    fn look_at_clock(&self, world: World, side: u8, found: &mut Found) {
        if world.at(side).age <= FRESH_BEATS || self.has(Plant::IgnoresClock) {
            own(found, side, "finds its confirmation fresh", Ok(world.enter(side, Phase::Cleared)));
        } else {
            own(found, side, "finds its confirmation old", Ok(world.enter(side, Phase::Idle)));
        }
    }

    /// Whether the act that comes now breaks the promise.
    fn act(&self, world: &World, side: u8) -> Result<(), &'static str> {
        let me = world.at(side);
        let excused = self.beats(side) && me.age >= WINDOW_BEATS && !self.has(Plant::PromisesTooMuch);
        if me.epoch > 0 && !world.is_astray(side) && !world.is_owner(side) && !excused { Err(STALE) } else { Ok(()) }
    }

    fn spawn(&self, world: World, side: u8, found: &mut Found) {
        let next = self.act(&world, side).and_then(|()| {
            let twice = self.gateway(&world, side);
            if twice { Err(TWO_GATEWAYS) } else { Ok(self.with_gateway(world, side, true).enter(side, Phase::Spawned)) }
        });
        own(found, side, "spawns a gateway", next);
    }

    fn record(&self, world: World, side: u8, found: &mut Found) {
        if !self.beats(side) {
            may(found, side, "cannot record its pid: the store is broken", Ok(world.enter(side, Phase::Running)));
        }
        if world.at(side).epoch == 0 {
            own(found, side, "has no row to write to", Ok(world.enter(side, Phase::Running)));
        } else if let Some(mut next) = self.confirm(world, side, false) {
            next.record = Record::Pid(self.place(side));
            own(found, side, "records its pid", Ok(next.enter(side, Phase::Running)));
        } else {
            self.lost(world, side, found);
        }
    }

    fn run(&self, world: World, side: u8, found: &mut Found) {
        let me = world.at(side);
        if self.beats(side) && me.age > 0 {
            match self.confirm(world, side, self.has(Plant::BeatsBlindly)) {
                Some(mut next) => {
                    // A beat has to be seen even where a confirmation is planted to be silent.
                    if let Some(row) = next.row.as_mut().filter(|_| self.has(Plant::ConfirmsQuietly)) {
                        row.beat += 1;
                    }
                    own(found, side, "beats", Ok(next.enter(side, Phase::Running)));
                }
                None => self.lost(world, side, found),
            }
        }
        if !self.gateway(&world, side) {
            own(found, side, "reaps the gateway", Ok(world.enter(side, Phase::Idle)));
            return;
        }
        if world.asked && !self.beats(side) && world.is_owner(side) {
            let mut next = World { asked: false, ..world };
            if let Some(row) = &mut next.row {
                row.beat += 1;
            }
            own(found, side, "answers", Ok(next));
        }
        if me.epoch == 0 && !self.beats(side) {
            let epoch = world.row.map_or(0, |row| row.epoch) + 1;
            let next = self.write_row(world, side, epoch, false);
            let next = next.map(|next| Self::taken(next, side, epoch).enter(side, Phase::Running));
            may(found, side, "writes its row late", next);
        }
        for (goal, what) in [(Goal::Restart, "is to restart the gateway"), (Goal::Stop, "is to stop")] {
            may(found, side, what, Ok(world.enter(side, Phase::Poised(goal))));
        }
        if self.setting.gateway_survives {
            may(found, side, "is to detach", Ok(world.enter(side, Phase::Leaving)));
        }
    }

    fn signal(&self, world: World, side: u8, goal: Goal, found: &mut Found) {
        let mut next = self.with_gateway(world, side, false);
        next.record = Record::Nothing;
        let after = if goal == Goal::Stop { Phase::Leaving } else { Phase::Idle };
        // In its own place it is its own gateway, with or without the lease.
        let done = if self.setting.one_pid_namespace { self.act(&world, side) } else { Ok(()) };
        own(found, side, "ends the gateway", done.map(|()| next.enter(side, after)));
    }

    fn release(&self, world: World, side: u8, found: &mut Found) {
        let mut next = world;
        if let Some(row) = next.row.as_mut().filter(|_| self.has(Plant::ReleasesBlindly) || world.is_owner(side)) {
            row.released = true;
        }
        own(found, side, "gives the lease back", Ok(next.enter(side, Phase::Released)));
    }

    fn stand_by(&self, world: World, side: u8, found: &mut Found) {
        if world.at(side).age > 0 {
            own(found, side, "tries again", Ok(world.enter(side, Phase::Starting)));
        }
        if self.has(Plant::PeeksByLocking) && !(self.setting.one_lock && world.is_locked_by(1 - side)) {
            let mut next = world.enter(side, Phase::Peeking);
            next.sides[usize::from(side)].folder = world.folder;
            may(found, side, "peeks", Ok(next));
        }
        may(found, side, "exits with 78", Ok(world.enter(side, Phase::Down)));
    }

    fn go(&self, world: World, side: u8, found: &mut Found) {
        let enter = |found: &mut Found, what, phase| own(found, side, what, Ok(world.enter(side, phase)));
        match world.at(side).phase {
            Phase::Down => {
                if world.at(side).start < self.setting.starts {
                    let mut next = world.enter(side, Phase::Starting);
                    next.sides[usize::from(side)].start += 1;
                    may(found, side, "is started", Ok(next));
                }
            }
            Phase::Starting => self.lock(world, side, found),
            Phase::Locked => self.read(world, side, found),
            Phase::Read => self.claim(world, side, found),
            Phase::Claimed | Phase::Observing => self.transact(world, side, found),
            Phase::Yielding => enter(found, "drops the claim", Phase::YieldingLock),
            Phase::YieldingLock | Phase::Peeking => enter(found, "drops the lock", Phase::Standby),
            Phase::Standby => self.stand_by(world, side, found),
            Phase::Taken => self.adopt(world, side, found),
            Phase::Idle => self.intend(world, side, found),
            Phase::Intended => self.look_at_clock(world, side, found),
            Phase::Cleared => self.spawn(world, side, found),
            Phase::Spawned => self.record(world, side, found),
            Phase::Running => self.run(world, side, found),
            Phase::Poised(goal) => self.signal(world, side, goal, found),
            Phase::Leaving => self.release(world, side, found),
            // Its own, that is: where both see one place, no living owner loses its lease.
            Phase::Lost
                if self.place(side) == side && self.gateway(&world, side) && !self.setting.one_pid_namespace =>
            {
                own(found, side, "ends the gateway of its lost lease", Ok(self.with_gateway(world, side, false)));
            }
            Phase::Released | Phase::Lost => enter(found, "drops the claim", Phase::Unclaimed),
            Phase::Unclaimed => enter(found, "drops the lock and exits", Phase::Down),
        }
    }

    fn suffer(&self, world: World, side: u8, found: &mut Found) {
        if world.at(side).phase != Phase::Down {
            let mut next = world.enter(side, Phase::Down);
            if !self.setting.gateway_survives {
                next = self.with_gateway(next, side, false);
            }
            may(found, side, "is killed", Ok(next));
        }
        let locking = matches!(world.at(side).phase, Phase::Locked | Phase::Read | Phase::Claimed);
        if locking && self.setting.folder_replaced && world.folder == 0 {
            let next = World { folder: 1, row: None, record: Record::Nothing, ..world };
            may(found, side, "has its folder replaced by a stranger", Ok(next));
        }
        if self.gateway(&world, side) && self.place(side) == side {
            may(found, side, "sees its gateway die", Ok(self.with_gateway(world, side, false)));
        }
    }

    /// What must hold in every state.
    fn judge(&self, world: &World) -> Result<(), &'static str> {
        // Who has just replaced the folder does nothing before it has looked at its lock.
        let owns =
            |side| world.at(side).phase.owns() && !(world.at(side).phase == Phase::Idle && world.is_astray(side));
        if owns(0) && owns(1) {
            let epochs = [world.at(0).epoch, world.at(1).epoch];
            if epochs[0] == epochs[1] && epochs[0] > 0 {
                return Err(ONE_EPOCH);
            }
            // One by heartbeat has lost it, which its fence tells.
            if [0, 1]
                .into_iter()
                .any(|side| !self.beats(side) && epochs[usize::from(side)] <= epochs[usize::from(1 - side)])
            {
                return Err(TWO_OWNERS);
            }
        }
        if self.setting.one_lock && world.is_locked_by(0) && world.is_locked_by(1) && !self.has(Plant::SkipsLock) {
            return Err("two hold the lock");
        }
        let promised =
            !self.beats(0) && !self.beats(1) && (!self.setting.gateway_survives || self.has(Plant::PromisesTooMuch));
        if promised && world.gateways == [true; 2] { Err(TWO_GATEWAYS) } else { Ok(()) }
    }
}

impl Model for Protocol {
    type State = World;

    fn first(&self) -> World {
        World::new()
    }

    fn next(&self, world: &World, found: &mut Found) {
        for side in [0, 1] {
            self.go(*world, side, found);
            self.suffer(*world, side, found);
        }
        let later = world.age(&self.setting);
        found.push(Next { cause: Cause::Time, what: "10 s pass", who: None, state: Ok(later) });
        for next in found {
            next.state = next.state.map(World::renumber).and_then(|world| self.judge(&world).map(|()| world));
        }
    }

    fn tell(&self, before: &World, step: &Next<World>) -> String {
        let who = step.who.map_or(String::new(), |side| {
            let started = u8::from(step.what == "is started");
            format!("{} ", Owner { side, start: before.at(side).start + started })
        });
        match step.state {
            Ok(after) => format!("{:<44} {after}", who + step.what),
            Err(what) => format!("{:<44} {what}", who + step.what),
        }
    }

    fn waits(&self, world: &World) -> bool {
        world.sides.iter().any(|supervisor| supervisor.phase.wants())
    }

    fn served(&self, world: &World) -> bool {
        (0..)
            .zip(&world.sides)
            .any(|(side, supervisor)| supervisor.phase.owns() && (supervisor.epoch == 0 || world.is_owner(side)))
    }
}
