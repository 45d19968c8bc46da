//! The world around one supervisor: a port, gateways, strangers, an operator, a machine; and a shell between them.
//!
//! The shell is lawful (every spawn and kill is answered, a probe within its timeout unless it is lost) and as unordered
//! as the real one: the news of a death, of a dead tree and of a probe travel on their own.

#[path = "world/shell.rs"]
mod shell;

use crate::dice::Dice;
use crate::gateway::{Fate, Life, Show};
use crate::judge::{KILL_MAX, NEWS_MAX, TICK_LATE_MAX};
use crate::trial::{Broken, Input, Maker, Trial};
use openclaw_supervise::core::{Ask, Death, Event, Generation, Moment, Phase, Policy, Request, Requester, Verdict};
use std::collections::BTreeMap;
use std::time::Duration;

/// More inputs than this make a walk no better.
const STEPS_MAX: usize = 1200;

/// Whoever can hold the port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bound {
    Gateway(Generation),
    Stranger(Verdict),
}

/// Something that will happen.
#[derive(Debug, Clone)]
enum Happening {
    Deliver(Event),
    /// A probe looks at the port.
    Look(u64, Ask),
    /// A gateway begins what it is fated to do. Does not happen any more once the faults have stopped.
    Fated(Generation),
    Shows(Generation, Show),
    Dies(Generation, Death),
    /// The other processes of a tree are gone.
    Clears(Generation),
    StrangerComes(Verdict, Duration),
    StrangerTurns(Verdict),
    StrangerLeaves,
    Operator(Request),
    /// Our process alone, or the whole machine, stands still.
    Pause(Duration, bool),
    Jump(Duration),
}

pub(crate) struct World {
    dice: Dice,
    pub(crate) policy: Policy,
    pub(crate) trial: Trial,
    now: Moment,
    queue: BTreeMap<(Moment, u64), Happening>,
    sequence: u64,
    lives: Vec<Life>,
    bound: Option<Bound>,
    /// The faults have stopped.
    calm: bool,
    /// Nobody can see who owns a socket.
    hidden: bool,
    /// How much goes wrong: one probe in so many, one spawn, one operator.
    trouble: u64,
    tick_late: Duration,
    calm_at: Moment,
    pub(crate) over: bool,
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
        ..known
    }
}

impl World {
    pub(crate) fn new(seed: u64, make: Maker<'_>) -> Self {
        let mut dice = Dice::new(seed.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let policy = policy(seed, &mut dice);
        let mut world = Self {
            trial: Trial::new(make(&policy), &policy),
            policy,
            now: Duration::from_secs(1000),
            queue: BTreeMap::new(),
            sequence: 0,
            lives: Vec::new(),
            bound: None,
            calm: false,
            hidden: dice.once_in(6),
            trouble: dice.pick(&[15, 40, 40, 100_000]),
            tick_late: Duration::ZERO,
            calm_at: Moment::ZERO,
            over: false,
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

    /// What will come from outside, and when.
    fn plan_trouble(&mut self) {
        let horizon = self.dice.pick(&[30, 120, 120, 600, 600, 3600]);
        if self.dice.once_in(4) {
            self.later(Duration::ZERO, Happening::StrangerComes(Verdict::Foreign, Duration::ZERO));
            let (kind, stay) = self.stranger();
            self.later(Duration::ZERO, Happening::StrangerComes(kind, stay));
        }
        let busy = self.trouble < 1000;
        for _ in 0..if busy { self.dice.below(4) } else { self.dice.below(2) } {
            let (kind, stay) = self.stranger();
            let when = self.dice.s(0, horizon);
            self.later(when, Happening::StrangerComes(kind, stay));
        }
        for _ in 0..self.dice.below(if busy { 4 } else { 2 }) {
            let when = self.dice.s(0, horizon);
            self.later(when, Happening::Operator(Request::Restart));
        }
        for _ in 0..if busy { self.dice.below(3) } else { 0 } {
            let (when, by, all) = (self.dice.s(0, horizon), self.dice.ms(100, 100_000), self.dice.once_in(2));
            self.later(when, Happening::Pause(by, all));
            let (when, by) = (self.dice.s(0, horizon), self.dice.ms(0, 4_000_000));
            self.later(when, Happening::Jump(by));
        }
        if self.dice.once_in(8) {
            let (when, request) = (self.dice.s(0, horizon), self.dice.pick(&[Request::Stop, Request::Detach]));
            self.later(when, Happening::Operator(request));
        }
        self.calm_at = self.now + Duration::from_secs(horizon);
    }

    fn stranger(&mut self) -> (Verdict, Duration) {
        let kinds = [
            Verdict::Gateway(Phase::Started),
            Verdict::Gateway(Phase::Starting),
            Verdict::Draining,
            Verdict::Draining,
            Verdict::Silent,
            Verdict::Foreign,
        ];
        (self.dice.pick(&kinds), if self.dice.once_in(3) { self.dice.s(0, 400) } else { self.dice.s(0, 20) })
    }

    fn life(&mut self, generation: Generation) -> Option<&mut Life> {
        self.lives.iter_mut().find(|life| life.generation == generation)
    }

    /// One thing happens.
    fn happen(&mut self, happening: Happening) -> Result<(), Broken> {
        match happening {
            Happening::Deliver(event) => self.deliver(event)?,
            Happening::Look(ticket, ask) => self.look(ticket, ask),
            Happening::Fated(generation) => self.meet_fate(generation),
            Happening::Shows(generation, show) => self.show(generation, show),
            Happening::Dies(generation, death) => self.die(generation, death)?,
            Happening::Clears(generation) => self.clear(generation)?,
            Happening::StrangerComes(kind, stay) => {
                if self.bound.is_none() && !self.calm {
                    self.bound = Some(Bound::Stranger(kind));
                    if self.dice.once_in(3) {
                        let (when, turn) = (self.dice.ms(0, 60_000), self.stranger().0);
                        self.later(when.min(stay), Happening::StrangerTurns(turn));
                    }
                    self.later(stay, Happening::StrangerLeaves);
                }
            }
            Happening::StrangerTurns(kind) => {
                if let Some(Bound::Stranger(present)) = &mut self.bound {
                    *present = kind;
                }
            }
            Happening::StrangerLeaves => self.bound = self.bound.filter(|bound| !matches!(bound, Bound::Stranger(_))),
            Happening::Operator(request) => self.ask_for(request)?,
            Happening::Pause(by, all) => self.pause(by, all)?,
            Happening::Jump(by) => self.send(Event::ClockJumped { by })?,
        }
        Ok(())
    }

    fn deliver(&mut self, event: Event) -> Result<(), Broken> {
        // A second death of the present gateway is nothing that any shell sends.
        let again = matches!(event, Event::LeaderExited { .. } | Event::TreeGone { .. } | Event::Spawned { .. });
        if again && !self.trial.judge.is_expected(&event, true) {
            return Ok(());
        }
        if self.dice.once_in(self.trouble.max(20)) {
            // Heard twice: a copy that comes when it is no news any more.
            let delay = self.dice.ms(0, 90_000);
            self.later(delay, Happening::Deliver(event.clone()));
        }
        self.send(event)
    }

    fn ask_for(&mut self, request: Request) -> Result<(), Broken> {
        let how = match request {
            Request::Stop => "SIGTERM",
            Request::Restart => "SIGHUP",
            Request::Detach => "SIGQUIT",
        };
        let by = Requester { how: how.to_owned(), pid: Some(77), uid: None, command: None };
        self.send(Event::Requested { request, by })
    }

    /// Time passes without a step of ours.
    fn pause(&mut self, by: Duration, all: bool) -> Result<(), Broken> {
        if self.calm {
            return Ok(());
        }
        self.trial.take(self.now, Input::StoodStill(by))?;
        let end = self.now + by;
        if all {
            let moved = std::mem::take(&mut self.queue);
            self.queue = moved.into_iter().map(|((at, number), happening)| ((at + by, number), happening)).collect();
            self.calm_at += by;
            self.lives.iter_mut().for_each(|life| life.known += by);
        } else {
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 < end) {
                let ((at, _), happening) = entry.remove_entry();
                match happening {
                    Happening::Deliver(_)
                    | Happening::Look(..)
                    | Happening::Operator(_)
                    | Happening::Jump(_)
                    | Happening::Pause(..) => self.at(end, happening),
                    other => {
                        self.now = self.now.max(at);
                        self.happen(other)?;
                    }
                }
            }
        }
        self.now = end;
        Ok(())
    }

    fn meet_fate(&mut self, generation: Generation) {
        if self.calm {
            return;
        }
        let Some(fate) = self.life(generation).filter(|life| life.leader && !life.termed).map(|life| life.temper.fate)
        else {
            return;
        };
        match fate {
            Fate::Lives => {}
            Fate::Dies(_, death) => self.later(Duration::ZERO, Happening::Dies(generation, death)),
            Fate::Turns(_, show, back) => {
                self.later(Duration::ZERO, Happening::Shows(generation, show));
                if let Some(back) = back {
                    self.later(back, Happening::Shows(generation, Show::Serving));
                }
            }
            Fate::RestartsInPlace(_) => {
                let mut when = Duration::ZERO;
                let long = self.policy.startup_timeout.as_secs();
                for show in [Show::Draining, Show::Closed, Show::Warming, Show::Serving] {
                    self.later(when, Happening::Shows(generation, show));
                    when += if self.dice.once_in(4) { self.dice.s(0, long) } else { self.dice.ms(0, 9000) };
                }
            }
        }
    }

    /// A gateway opens, closes or changes what it says.
    fn show(&mut self, generation: Generation, show: Show) {
        let bound = self.bound;
        let Some(life) = self.life(generation).filter(|life| life.leader) else { return };
        if life.termed && !matches!(show, Show::Draining | Show::Frozen | Show::Closed) {
            return;
        }
        let ours = bound == Some(Bound::Gateway(generation));
        if show == Show::Closed || ours || bound.is_none() {
            life.show = show;
        }
        let old = life.temper.old;
        if show == Show::Closed {
            self.bound = bound.filter(|_| !ours);
            if ours && self.dice.once_in(4) {
                // Somebody has waited for the port.
                let ((kind, stay), when) = (self.stranger(), self.dice.ms(0, 5000));
                // Who gets hold of it may well keep it.
                let stay = if !self.hidden && self.dice.once_in(3) { Duration::from_hours(24) } else { stay };
                self.later(when, Happening::StrangerComes(kind, stay));
            }
        } else if bound.is_none() {
            self.bound = Some(Bound::Gateway(generation));
        } else if !ours && show != Show::Draining && show != Show::Frozen {
            // It finds its port taken: newer releases say 78, older ones "I did not start".
            let (delay, code) = (self.dice.ms(1, 5000), if old { 0 } else { 78 });
            self.later(delay, Happening::Dies(generation, Death::Code(code)));
        }
    }

    fn die(&mut self, generation: Generation, death: Death) -> Result<(), Broken> {
        let news = self.news_delay();
        let now = self.now;
        let Some(life) = self.life(generation).filter(|life| life.leader) else { return Ok(()) };
        life.leader = false;
        let (alive, heard) = (life.alive(), (now + news).max(life.known));
        self.bound = self.bound.filter(|bound| *bound != Bound::Gateway(generation));
        let max_rss_kb = Some(1);
        self.at(heard, Happening::Deliver(Event::LeaderExited { generation, death, max_rss_kb }));
        self.trial.take(now, Input::Alive(generation, alive)).map(|_| ())
    }

    fn clear(&mut self, generation: Generation) -> Result<(), Broken> {
        let Some(life) = self.life(generation) else { return Ok(()) };
        (life.daemons, life.stuck_child) = (0, false);
        let alive = life.alive();
        self.trial.take(self.now, Input::Alive(generation, alive)).map(|_| ())
    }

    fn news_delay(&mut self) -> Duration {
        let most = NEWS_MAX.as_secs() * 1000;
        if self.dice.once_in(10) { self.dice.ms(0, most) } else { self.dice.ms(0, 20) }
    }

    /// Whatever comes first: something in the world, or the deadline of the core.
    fn go_on(&mut self) -> Result<(), Broken> {
        let event = self.queue.first_key_value().map(|(key, _)| key.0);
        let tick = self.trial.core.deadline().map(|deadline| deadline.saturating_add(self.tick_late).max(self.now));
        let Some(next) = event.into_iter().chain(tick).min() else {
            return Err(Broken::new("owed", "nothing will ever happen again"));
        };
        if next == Moment::MAX {
            return Err(Broken::new("owed", "the next step is at the end of time"));
        }
        self.now = self.now.max(next);
        if tick == Some(next) && (event != Some(next) || self.dice.once_in(2)) {
            let most = TICK_LATE_MAX.as_secs() * 1000;
            self.tick_late = if self.dice.once_in(30) { self.dice.ms(0, most) } else { self.dice.ms(0, 3) };
            return self.send(Event::Tick);
        }
        match self.queue.pop_first() {
            Some((_, happening)) => self.happen(happening),
            None => Ok(()),
        }
    }

    /// From here on nothing new goes wrong.
    fn calm_down(&mut self) {
        self.calm = true;
        let old = std::mem::take(&mut self.queue);
        let stays = |happening: &Happening| {
            !matches!(
                happening,
                Happening::Operator(_) | Happening::Jump(_) | Happening::Pause(..) | Happening::StrangerTurns(_)
            )
        };
        self.queue = old.into_iter().filter(|(_, happening)| stays(happening)).collect();
    }

    /// A gateway that was told to have come up really serves, on the port, under the present supervisor.
    fn converged(&self) -> bool {
        self.trial.judge.serving().is_some_and(|generation| {
            self.bound == Some(Bound::Gateway(generation))
                && self.lives.iter().any(|life| {
                    let serves = matches!(life.verdict(), Verdict::Gateway(Phase::Started | Phase::Unknown));
                    life.generation == generation && serves
                })
        })
    }

    /// How long it may take from the last fault to a gateway that serves.
    fn convergence_max(&self) -> Duration {
        let policy = &self.policy;
        let stages = [
            policy.startup_timeout * 3,
            policy.hang_after + (policy.probe_interval + policy.probe_timeout) * 24,
            policy.stop_timeout * 2,
            policy.hung_stop_timeout,
            policy.conflict_timeout,
            policy.backoff_max * 2,
            policy.boot_window * 2,
            KILL_MAX * 4,
            // A stranger or a drain of one goes within 400 s, whoever was stuck within 40 s.
            Duration::from_mins(10),
        ];
        stages.into_iter().sum()
    }

    /// A whole life: trouble, calm, and a request that ends it.
    pub(crate) fn run(&mut self) -> Result<(), Broken> {
        self.send(Event::Start)?;
        while !self.over && self.now < self.calm_at && self.trial.log.len() < STEPS_MAX {
            self.go_on()?;
        }
        self.calm_down();
        let by = self.now + self.convergence_max();
        while !self.over && !self.converged() {
            if self.now > by {
                return Err(Broken::new("liveness", "the faults have stopped, and still no gateway serves"));
            }
            self.go_on()?;
        }
        let request = if self.dice.once_in(6) { Request::Detach } else { Request::Stop };
        if !self.over {
            self.ask_for(request)?;
        }
        for steps in 0.. {
            if self.over {
                break;
            }
            if steps > 2000 {
                return Err(Broken::new("P5", "a request to end does not end it"));
            }
            self.go_on()?;
        }
        let generation = self.trial.judge.generation();
        self.send(Event::Tick)?;
        self.send(Event::LeaderExited { generation, death: Death::Unknown, max_rss_kb: None })?;
        self.ask_for(Request::Stop)
    }
}

/// Runs one seed.
pub(crate) fn run(seed: u64, make: Maker<'_>) -> (World, Result<(), Broken>) {
    let mut world = World::new(seed, make);
    let mut end = world.run();
    if end.is_ok() && seed.is_multiple_of(4) {
        end = world.trial.replays(make(&world.policy));
    }
    (world, end)
}
