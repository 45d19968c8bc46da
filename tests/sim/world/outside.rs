//! What comes from outside: strangers, operators, the fates of gateways.

use super::{Bound, Happening, STRANGER, World};
use crate::fake_shell::Broken;
use crate::gateway::{Fate, Life, Show, Temper};
use crate::judge::NEWS_MAX;
use crate::trial::Input;
use openclaw_supervise_core::{Event, ExitStatus, ExitUsage, Generation, Phase, Request, Requester, Verdict};
use std::time::Duration;

impl World<'_> {
    /// What will come from outside, and when.
    pub(super) fn plan_trouble(&mut self) {
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
            let request = if self.dice.once_in(3) { Request::Retry } else { Request::Restart };
            let when = self.dice.s(0, horizon);
            self.later(when, Happening::Operator(request));
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
        self.plan_crew(horizon);
        self.calm_at = self.now + Duration::from_secs(horizon);
    }

    /// Supervisors that are killed in their sleep or robbed, and others that are started beside them.
    fn plan_crew(&mut self, horizon: u64) {
        for _ in 0..self.dice.pick(&[0, 0, 0, 1, 2]) {
            let when = self.dice.s(0, horizon);
            self.later(when, Happening::Kill);
        }
        for _ in 0..self.dice.pick(&[0, 0, 0, 1, 2]) {
            let when = if self.dice.once_in(3) { self.dice.ms(0, 1000) } else { self.dice.s(0, horizon) };
            self.starting += 1;
            self.later(when, Happening::Begin);
        }
        if self.dice.once_in(16) {
            let when = self.dice.s(0, horizon);
            self.later(when, Happening::Steal);
        }
    }

    pub(super) fn stranger(&mut self) -> (Verdict, Duration) {
        let kinds = [
            Verdict::Gateway(Phase::Started),
            Verdict::Gateway(Phase::Starting),
            Verdict::Draining,
            Verdict::Booting,
            Verdict::Silent,
            Verdict::Foreign,
        ];
        (self.dice.pick(&kinds), if self.dice.once_in(3) { self.dice.s(0, 400) } else { self.dice.s(0, 20) })
    }

    pub(super) fn stranger_comes(&mut self, kind: Verdict, stay: Duration) {
        if self.bound.is_some() || self.calm {
            return;
        }
        self.bound = Some(Bound::Stranger(kind));
        if self.dice.once_in(3) {
            let (when, turn) = (self.dice.ms(0, 60_000), self.stranger().0);
            self.later(when.min(stay), Happening::StrangerTurns(turn));
        }
        self.later(stay, Happening::StrangerLeaves);
    }

    pub(super) fn stranger_leaves(&mut self) {
        self.bound = self.bound.filter(|bound| !matches!(bound, Bound::Stranger(_)));
        self.depart(STRANGER);
    }

    pub(super) fn ask_for(&mut self, sup: usize, request: Request) -> Result<(), Broken> {
        let how = match request {
            Request::Stop => "SIGTERM",
            Request::Restart => "SIGHUP",
            Request::Detach => "SIGQUIT",
            Request::Retry => "retry-now",
        };
        let by = Requester { how: how.to_owned(), pid: Some(77), uid: None, command: None };
        let paused_until = self.sups[sup].paused_until;
        if self.sups[sup].up && paused_until > self.now {
            self.at(paused_until, Happening::Deliver(sup, Event::Requested { request, by }));
            return Ok(());
        }
        self.send(sup, Event::Requested { request, by })
    }

    pub(super) fn held(&mut self, sup: usize, generation: Generation) -> Option<usize> {
        self.lives.iter().position(|life| life.held == Some(sup) && life.generation == generation)
    }

    pub(super) fn meet_fate(&mut self, id: usize) {
        if self.calm {
            return;
        }
        let Life { leader: true, termed: false, temper, .. } = &self.lives[id] else { return };
        match temper.fate {
            Fate::Lives => {}
            Fate::Dies(_, death) => self.later(Duration::ZERO, Happening::Dies(id, death)),
            Fate::Succeeds(_) => self.succeed(id),
            Fate::Turns(_, show, back) => {
                self.later(Duration::ZERO, Happening::Shows(id, show));
                if let Some(back) = back {
                    self.later(back, Happening::Shows(id, Show::Serving));
                }
            }
            Fate::RestartsInPlace(_) => {
                let mut when = Duration::ZERO;
                let long = self.policy.startup_timeout.as_secs();
                for show in [Show::Draining, Show::Closed, Show::Warming, Show::Serving] {
                    self.later(when, Happening::Shows(id, show));
                    when += if self.dice.once_in(4) { self.dice.s(0, long) } else { self.dice.ms(0, 9000) };
                }
            }
        }
    }

    /// An update, as older releases restart after it: a detached process has the port before the old one exits.
    fn succeed(&mut self, id: usize) {
        // Nobody has taken hold of a heir who leaves another one at once.
        let settled = self.lives[id].origin.is_none() && self.lives[id].show == Show::Serving;
        if self.bound != Some(Bound::Gateway(id)) || !settled {
            return;
        }
        let heir = self.lives.len();
        let mut temper = Temper::any(&mut self.dice, &self.policy);
        (temper.opens, temper.boots) = (Duration::ZERO, Duration::ZERO);
        (temper.daemons, temper.stuck) = (0, None);
        self.schedule_fate(heir, temper.fate);
        let (pid, generation) = (110 + i32::try_from(heir % 3).unwrap_or(0), Generation::MAX);
        let born = Life::new(usize::MAX, generation, pid, self.now, temper);
        // Of whom nobody can know, nobody can know whom it leaves.
        let (show, excused) = (Show::Serving, self.lives[id].excused);
        self.lives.push(Life { held: None, show, excused, origin: Some(id), known: self.now, ..born });
        self.lives[id].daemons += 1;
        self.lives[id].show = Show::Closed;
        self.bound = Some(Bound::Gateway(heir));
        let delay = self.dice.ms(0, 500);
        self.later(delay, Happening::Dies(id, ExitStatus::Code(0)));
    }

    /// A successor is a gateway of its own from now on, with all that the old one left.
    pub(super) fn inherit(&mut self, heir: usize) -> Result<(), Broken> {
        let Some(origin) = self.lives[heir].origin.take() else { return Ok(()) };
        let rest = std::mem::take(&mut self.lives[origin].daemons).saturating_sub(1);
        let stuck = std::mem::take(&mut self.lives[origin].stuck_child);
        self.lives[heir].daemons += rest + u32::from(stuck);
        self.tell_alive(origin)
    }

    /// A gateway opens, closes or changes what it says.
    pub(super) fn show(&mut self, id: usize, show: Show) {
        let bound = self.bound;
        let now = self.now;
        let life = &mut self.lives[id];
        life.work(now);
        if !life.leader || life.termed && !matches!(show, Show::Draining | Show::Frozen | Show::Closed) {
            return;
        }
        let ours = bound == Some(Bound::Gateway(id));
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
            self.bound = Some(Bound::Gateway(id));
        } else if !ours && show != Show::Draining && show != Show::Frozen {
            // It finds its port taken: newer releases say 78, older ones "I did not start".
            let (delay, code) = (self.dice.ms(1, 5000), if old { 0 } else { 78 });
            self.later(delay, Happening::Dies(id, ExitStatus::Code(code)));
        }
    }

    pub(super) fn die(&mut self, id: usize, death: ExitStatus) -> Result<(), Broken> {
        let delay = self.news_delay();
        let now = self.now;
        let planned = death == ExitStatus::Code(0) && !self.lives[id].termed && !self.dice.once_in(3);
        let life = &mut self.lives[id];
        if !life.leader {
            return Ok(());
        }
        life.leader = false;
        (life.died, life.planned) = (Some(now), planned);
        let Life { generation, held, parent, known, origin, .. } = *life;
        self.bound = self.bound.filter(|bound| *bound != Bound::Gateway(id));
        if let Some(origin) = origin {
            self.lives[id].origin = None;
            self.lives[origin].daemons = self.lives[origin].daemons.saturating_sub(1);
            return self.tell_alive(origin);
        }
        let Some(sup) = held else { return Ok(()) };
        let (death, max_rss_kb) = if parent == sup { (death, Some(1)) } else { (ExitStatus::Unknown, None) };
        let toll = ExitUsage { max_rss_kb, ..ExitUsage::default() };
        let news = Event::LeaderExited { generation, death, toll };
        self.at((now + delay).max(known), Happening::Deliver(sup, news));
        self.tell_alive(id)
    }

    pub(super) fn clear(&mut self, id: usize) -> Result<(), Broken> {
        if let Some(heir) = self.lives.iter().position(|life| life.origin == Some(id)) {
            (self.lives[heir].leader, self.lives[heir].origin) = (false, None);
            self.bound = self.bound.filter(|bound| *bound != Bound::Gateway(heir));
        }
        (self.lives[id].daemons, self.lives[id].stuck_child) = (0, false);
        self.tell_alive(id)
    }

    /// The judge of whoever looks after a gateway knows what of it lives.
    pub(super) fn tell_alive(&mut self, id: usize) -> Result<(), Broken> {
        let life = &self.lives[id];
        let Some(sup) = life.held else { return Ok(()) };
        let input = Input::Alive(life.generation, life.alive());
        self.sups[sup].trial.take(self.now, input).map(|_| ())
    }

    pub(super) fn news_delay(&mut self) -> Duration {
        let most = NEWS_MAX.as_secs() * 1000;
        if self.dice.once_in(10) { self.dice.ms(0, most) } else { self.dice.ms(0, 20) }
    }
}
