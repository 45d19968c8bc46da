//! Faults from outside: unrelated listeners, operators, and the faults of gateways.

use super::{Bound, FOREIGN_PID, World, WorldEvent};
use crate::fake_shell::Broken;
use crate::gateway::{FaultPlan, GatewayFault, Show, SimGateway};
use crate::judge::NEWS_MAX;
use crate::trial::Input;
use openclaw_supervise_core::{Event, ExitStatus, ExitUsage, Generation, Phase, Request, Requester, Verdict};
use std::time::Duration;

impl World<'_> {
    /// Schedules what comes from outside.
    pub(super) fn plan_trouble(&mut self) {
        let horizon = self.dice.pick(&[30, 120, 120, 600, 600, 3600]);
        if self.dice.once_in(4) {
            self.later(Duration::ZERO, WorldEvent::ListenerComes(Verdict::Foreign, Duration::ZERO));
            let (kind, stay) = self.foreign_listener();
            self.later(Duration::ZERO, WorldEvent::ListenerComes(kind, stay));
        }
        let busy = self.trouble < 1000;
        for _ in 0..if busy { self.dice.below(4) } else { self.dice.below(2) } {
            let (kind, stay) = self.foreign_listener();
            let when = self.dice.s(0, horizon);
            self.later(when, WorldEvent::ListenerComes(kind, stay));
        }
        for _ in 0..self.dice.below(if busy { 4 } else { 2 }) {
            let request = if self.dice.once_in(3) { Request::Retry } else { Request::Restart };
            let when = self.dice.s(0, horizon);
            self.later(when, WorldEvent::Operator(request));
        }
        for _ in 0..if busy { self.dice.below(3) } else { 0 } {
            let (when, by, all) = (self.dice.s(0, horizon), self.dice.ms(100, 100_000), self.dice.once_in(2));
            self.later(when, WorldEvent::Pause(by, all));
            let (when, by) = (self.dice.s(0, horizon), self.dice.ms(0, 4_000_000));
            self.later(when, WorldEvent::Jump(by));
        }
        for _ in 0..if self.is_watched() && busy { self.dice.below(3) } else { 0 } {
            let by = match self.dice.below(3) {
                0 => self.dice.s(5, 25),
                1 => self.dice.s(20, 60),
                _ => self.dice.s(20, 900),
            };
            let when = self.dice.s(0, horizon);
            self.later(when, WorldEvent::Cut(by));
        }
        if self.dice.once_in(8) {
            let (when, request) = (self.dice.s(0, horizon), self.dice.pick(&[Request::Stop, Request::Detach]));
            self.later(when, WorldEvent::Operator(request));
        }
        self.plan_requests(horizon);
        self.plan_pauses(horizon);
        self.plan_supervisors(horizon);
        self.plan_moves(horizon);
        self.calm_at = self.now + Duration::from_secs(horizon);
    }

    /// Schedules kills of idle supervisors, starts of additional ones and the theft of a lease.
    fn plan_supervisors(&mut self, horizon: u64) {
        for _ in 0..self.dice.pick(&[0, 0, 0, 1, 2]) {
            let when = self.dice.s(0, horizon);
            self.later(when, WorldEvent::Kill);
        }
        for _ in 0..self.dice.pick(&[0, 0, 0, 1, 2]) {
            let when = if self.dice.once_in(3) { self.dice.ms(0, 1000) } else { self.dice.s(0, horizon) };
            self.starting += 1;
            self.later(when, WorldEvent::Begin);
        }
        if self.dice.once_in(16) {
            let when = self.dice.s(0, horizon);
            self.later(when, WorldEvent::Steal);
        }
    }

    pub(super) fn foreign_listener(&mut self) -> (Verdict, Duration) {
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

    pub(super) fn listener_comes(&mut self, kind: Verdict, stay: Duration) {
        let port = self.stranger_port();
        if self.bound.contains_key(&port) || self.stranger().is_some() || self.calm {
            return;
        }
        self.bound.insert(port, Bound::Foreign(kind));
        if self.dice.once_in(3) {
            let (when, turn) = (self.dice.ms(0, 60_000), self.foreign_listener().0);
            self.later(when.min(stay), WorldEvent::ListenerTurns(turn));
        }
        self.later(stay, WorldEvent::ListenerLeaves);
    }

    pub(super) fn listener_leaves(&mut self) {
        self.bound.retain(|_, bound| !matches!(bound, Bound::Foreign(_)));
        self.notify_departure(FOREIGN_PID);
    }

    pub(super) fn ask_for(&mut self, sup: usize, request: Request) -> Result<(), Broken> {
        let how = match request {
            Request::Stop => "SIGTERM",
            Request::Restart => "SIGHUP",
            Request::Detach => "SIGQUIT",
            Request::Retry => "retry-now",
            Request::RestartForced => "restart --force",
            Request::RetryForced => "retry-now --force",
        };
        let by = Requester { how: how.to_owned(), pid: Some(77), uid: None, command: None, inside: None };
        let paused_until = self.sups[sup].paused_until;
        if self.sups[sup].up && paused_until > self.now {
            self.at(paused_until, WorldEvent::Deliver(sup, Event::Requested { request, by }));
            return Ok(());
        }
        self.maybe_start_again(request);
        self.send(sup, Event::Requested { request, by })
    }

    pub(super) fn held(&mut self, sup: usize, generation: Generation) -> Option<usize> {
        self.gateways.iter().position(|gateway| gateway.held == Some(sup) && gateway.generation == generation)
    }

    pub(super) fn begin_fault(&mut self, id: usize) {
        if self.calm {
            return;
        }
        let SimGateway { leader: true, terminated: false, killed: false, plan, .. } = &self.gateways[id] else {
            return;
        };
        match plan.fault {
            GatewayFault::None => {}
            GatewayFault::Exits(_, death) => self.later(Duration::ZERO, WorldEvent::Dies(id, death)),
            GatewayFault::LeavesSuccessor(_) => self.succeed(id),
            GatewayFault::Misbehaves(_, show, back) => {
                self.later(Duration::ZERO, WorldEvent::Shows(id, show));
                if let Some(back) = back {
                    self.later(back, WorldEvent::Shows(id, Show::Serving));
                }
            }
            GatewayFault::RestartsInPlace(_) => {
                let mut when = Duration::ZERO;
                let long = self.policy.startup_timeout.as_secs();
                for show in [Show::Draining, Show::Closed, Show::Warming, Show::Serving] {
                    self.later(when, WorldEvent::Shows(id, show));
                    when += if self.dice.once_in(4) { self.dice.s(0, long) } else { self.dice.ms(0, 9000) };
                }
            }
        }
    }

    /// A restart after an update, as older releases do it: a detached process takes the port before the old one exits.
    fn succeed(&mut self, id: usize) {
        // A successor that is not adopted yet leaves no other successor.
        let settled = self.gateways[id].origin.is_none() && self.gateways[id].show == Show::Serving;
        let place = self.gateways[id].place;
        if self.bound_at(place.port) != Some(Bound::Gateway(id)) || !settled {
            return;
        }
        let successor = self.gateways.len();
        let mut plan = FaultPlan::any(&mut self.dice, &self.policy);
        (plan.opens, plan.boots) = (Duration::ZERO, Duration::ZERO);
        (plan.daemons, plan.stuck, plan.launcher, plan.installer) = (0, None, None, None);
        self.schedule_fault(successor, plan.fault);
        let (pid, generation) = (110 + i32::try_from(successor % 3).unwrap_or(0), Generation::MAX);
        let born = SimGateway::new(usize::MAX, generation, pid, self.now, plan, place);
        // The successor of a gateway that no promise covers is not covered either.
        let (show, excused) = (Show::Serving, self.gateways[id].excused);
        let served_since = Some(self.now);
        self.gateways.push(SimGateway {
            held: None,
            show,
            served_since,
            excused,
            origin: Some(id),
            known: self.now,
            ..born
        });
        self.gateways[id].daemons += 1;
        (self.gateways[id].show, self.gateways[id].served_since) = (Show::Closed, None);
        self.bound.insert(place.port, Bound::Gateway(successor));
        let delay = self.dice.ms(0, 500);
        self.later(delay, WorldEvent::Dies(id, ExitStatus::Code(0)));
    }

    /// Turns a successor into a gateway of its own, with the remaining tree of the old one.
    pub(super) fn promote_successor(&mut self, successor: usize) -> Result<(), Broken> {
        let Some(origin) = self.gateways[successor].origin.take() else { return Ok(()) };
        let rest = std::mem::take(&mut self.gateways[origin].daemons).saturating_sub(1);
        let stuck = std::mem::take(&mut self.gateways[origin].stuck_child);
        let old = &mut self.gateways[origin];
        let (work, installs, until) = (old.plan.installer, std::mem::take(&mut old.installs), old.installs_until);
        let new = &mut self.gateways[successor];
        (new.plan.installer, new.installs, new.installs_until) = (work, installs, until);
        self.gateways[successor].daemons += rest + u32::from(stuck);
        self.tell_alive(origin)
    }

    /// Opens or closes the port of a gateway, or changes what it answers.
    pub(super) fn show(&mut self, id: usize, show: Show) {
        let now = self.now;
        let opens = self.gateways[id].show == Show::Closed && show != Show::Closed;
        if opens {
            self.gateways[id].place = self.moves.place();
        }
        let port = self.gateways[id].place.port;
        let bound = self.bound_at(port);
        let gateway = &mut self.gateways[id];
        gateway.work(now);
        if !gateway.leader
            || gateway.terminated
                && !matches!(show, Show::Draining | Show::Frozen | Show::Closed | Show::Blocked | Show::Starved)
        {
            return;
        }
        let ours = bound == Some(Bound::Gateway(id));
        if gateway.away {
            gateway.show = show;
            return;
        }
        if show == Show::Closed || ours || bound.is_none() {
            gateway.show = show;
            let serves = show == Show::Serving;
            gateway.served_since = if serves { gateway.served_since.or(Some(now)) } else { None };
        }
        let old = gateway.plan.old;
        if show == Show::Closed {
            self.unbind(id);
            if ours && self.dice.once_in(4) {
                // An unrelated process takes the port.
                let ((kind, stay), when) = (self.foreign_listener(), self.dice.ms(0, 5000));
                // It may keep it for good.
                let stay = if !self.hidden && self.dice.once_in(3) { Duration::from_hours(24) } else { stay };
                self.later(when, WorldEvent::ListenerComes(kind, stay));
            }
        } else if bound.is_none() {
            self.bound.insert(port, Bound::Gateway(id));
        } else if !ours && show != Show::Draining && show != Show::Frozen {
            // Its port is taken: newer releases exit with 78, older ones with 0.
            let (delay, code) = (self.dice.ms(1, 5000), if old { 0 } else { 78 });
            self.later(delay, WorldEvent::Dies(id, ExitStatus::Code(code)));
        }
    }

    pub(super) fn die(&mut self, id: usize, death: ExitStatus) -> Result<(), Broken> {
        let delay = self.news_delay();
        let now = self.now;
        let planned = death == ExitStatus::Code(0) && !self.gateways[id].terminated && !self.dice.once_in(3);
        let gateway = &mut self.gateways[id];
        if !gateway.leader {
            return Ok(());
        }
        let is_left = gateway.is_left();
        (gateway.leader, gateway.launcher_lives, gateway.served_since) = (false, false, None);
        (gateway.died, gateway.planned) = (Some(now), planned);
        let SimGateway { generation, held, parent, known, origin, .. } = *gateway;
        self.unbind(id);
        if let Some(origin) = origin {
            self.gateways[id].origin = None;
            for row in self.store.rows.values_mut().filter(|row| row.gateway == Some(id)) {
                row.gateway = Some(origin);
            }
            self.gateways[origin].daemons = self.gateways[origin].daemons.saturating_sub(1);
            return self.tell_alive(origin);
        }
        let Some(sup) = held.filter(|_| !is_left) else { return self.tell_alive(id) };
        let (death, max_rss_kb) = if parent == sup { (death, Some(1)) } else { (ExitStatus::Unknown, None) };
        let toll = ExitUsage { max_rss_kb, ..ExitUsage::default() };
        let news = Event::LeaderExited { generation, death, toll };
        self.at((now + delay).max(known), WorldEvent::Deliver(sup, news));
        self.tell_alive(id)
    }

    /// The process that was started exits. Its gateway serves on, or has not come up yet.
    pub(super) fn launcher_exits(&mut self, id: usize, death: ExitStatus) -> Result<(), Broken> {
        let delay = self.news_delay();
        let gateway = &mut self.gateways[id];
        if !std::mem::take(&mut gateway.launcher_lives) {
            return Ok(());
        }
        let SimGateway { generation, held, parent, known, .. } = *gateway;
        let Some(sup) = held else { return Ok(()) };
        let death = if parent == sup { death } else { ExitStatus::Unknown };
        let news = Event::LeaderExited { generation, death, toll: ExitUsage::default() };
        self.at((self.now + delay).max(known), WorldEvent::Deliver(sup, news));
        self.tell_alive(id)
    }

    pub(super) fn clear(&mut self, id: usize) -> Result<(), Broken> {
        if let Some(successor) = self.gateways.iter().position(|gateway| gateway.origin == Some(id)) {
            (self.gateways[successor].leader, self.gateways[successor].origin) = (false, None);
            self.unbind(successor);
        }
        (self.gateways[id].daemons, self.gateways[id].stuck_child) = (0, false);
        self.tell_alive(id)
    }

    /// Tells the judge of the gateway's supervisor how many processes of it live.
    pub(super) fn tell_alive(&mut self, id: usize) -> Result<(), Broken> {
        let gateway = &self.gateways[id];
        let Some(sup) = gateway.held else { return Ok(()) };
        let input = Input::Alive(gateway.generation, gateway.alive());
        self.sups[sup].trial.take(self.now, input).map(|_| ())
    }

    pub(super) fn news_delay(&mut self) -> Duration {
        let most = NEWS_MAX.as_secs() * 1000;
        if self.dice.once_in(10) { self.dice.ms(0, most) } else { self.dice.ms(0, 20) }
    }
}
