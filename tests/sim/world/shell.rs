//! The shell of the simulated world: it carries effects out and brings back what came of them.

use super::{Bound, Happening, World};
use crate::gateway::{Fate, Life, Manner, Show, Temper};
use crate::judge::{KILL_MAX, SPAWN_MAX};
use crate::trial::{Broken, Input};
use openclaw_supervise::core::{
    Ask, Death, Effect, Event, Generation, Holder, Owner, Request, Sighting, SpawnFailure, TreeEnd, Verdict,
};
use std::time::Duration;

const KILLED: Death = Death::Signal { number: 9, core_dumped: false };

/// What an effect asks of the shell.
enum Act {
    Probe(u64, Ask),
    Spawn(Generation),
    Terminate(Generation),
    Kill(Generation),
    Exit,
}

fn act(effect: &Effect) -> Option<Act> {
    match *effect {
        Effect::Probe { ticket, ask } => Some(Act::Probe(ticket, ask)),
        Effect::Spawn { generation } => Some(Act::Spawn(generation)),
        Effect::Terminate { generation } => Some(Act::Terminate(generation)),
        Effect::KillTree { generation } => Some(Act::Kill(generation)),
        Effect::Exit(_) => Some(Act::Exit),
        Effect::Report(_) => None,
    }
}

impl World {
    /// One step of the core, and everything that it asks for.
    pub(super) fn send(&mut self, event: Event) -> Result<(), Broken> {
        let first = self.trial.take(self.now, Input::Event(event))?;
        let acts: Vec<_> = self.trial.effects[first..].iter().filter_map(|(_, effect)| act(effect)).collect();
        for act in acts {
            match act {
                Act::Probe(ticket, ask) => self.ask_port(ticket, ask),
                Act::Spawn(generation) => self.spawn(generation)?,
                Act::Terminate(generation) => self.terminate(generation),
                Act::Kill(generation) => self.kill(generation),
                Act::Exit => self.over = true,
            }
        }
        Ok(())
    }

    /// Somebody asks for something at the worst time.
    fn tempt_operator(&mut self) {
        if self.calm || !self.dice.once_in(self.trouble / 2) {
            return;
        }
        for _ in 0..=self.dice.below(3) {
            let requests =
                [Request::Restart, Request::Restart, Request::Restart, Request::Stop, Request::Stop, Request::Detach];
            let (when, request) = (self.dice.ms(0, 3000), self.dice.pick(&requests));
            self.later(when, Happening::Operator(request));
        }
    }

    fn ask_port(&mut self, ticket: u64, ask: Ask) {
        if !self.calm && self.dice.once_in(self.trouble) {
            return;
        }
        let most = if self.dice.once_in(8) { 900 } else { 5 };
        let delay = self.dice.ms(0, most);
        self.later(delay, Happening::Look(ticket, ask));
    }

    /// What a probe sees. A silent listener keeps it busy for the whole of its timeout.
    pub(super) fn look(&mut self, ticket: u64, ask: Ask) {
        let (mut verdict, mut owner) = match self.bound {
            None => (Verdict::Free, Owner::Unseen),
            Some(Bound::Stranger(verdict)) => {
                (verdict, Owner::Other(Holder { pid: 4242, command: "node other.mjs".to_owned(), uid: None }))
            }
            Some(Bound::Gateway(generation)) => {
                let life = self.lives.iter().find(|life| life.generation == generation);
                let verdict = life.map_or(Verdict::Free, Life::verdict);
                let pid = life.map_or(0, |life| life.pid);
                let holder = Holder { pid, command: "openclaw-gateway".to_owned(), uid: None };
                let ours = ask == Ask::Listener(generation);
                (verdict, if ours { Owner::Ours(holder) } else { Owner::Other(holder) })
            }
        };
        if !self.calm && self.dice.once_in(self.trouble) {
            verdict = Verdict::Inconclusive;
        }
        if self.hidden || matches!(ask, Ask::Liveness(_)) || matches!(verdict, Verdict::Free | Verdict::Inconclusive) {
            owner = Owner::Unseen;
        }
        let timeout = u64::try_from(self.policy.probe_timeout.as_millis()).unwrap_or(0);
        let delay = if verdict == Verdict::Silent {
            Duration::from_millis(timeout)
        } else if !self.calm && self.dice.once_in(self.trouble) {
            // So late that it may have been asked for again.
            self.dice.ms(timeout, timeout + 8000)
        } else if self.dice.once_in(10) {
            self.dice.ms(0, timeout)
        } else {
            self.dice.ms(0, 20)
        };
        let sighting = Sighting { verdict, owner, detail: String::new() };
        self.later(delay, Happening::Deliver(Event::Probed { ticket, sighting }));
    }

    fn spawn(&mut self, generation: Generation) -> Result<(), Broken> {
        self.tempt_operator();
        let most = u64::try_from(SPAWN_MAX.as_millis()).unwrap_or(0);
        let delay = if self.dice.once_in(4) { self.dice.ms(0, most) } else { Duration::ZERO };
        if !self.calm && self.dice.once_in(self.trouble.min(1000)) {
            let failure = if self.dice.once_in(3) {
                SpawnFailure::Program("cannot execute openclaw".to_owned())
            } else {
                SpawnFailure::Resources("out of processes".to_owned())
            };
            self.later(delay, Happening::Deliver(Event::SpawnFailed { generation, failure }));
            return Ok(());
        }
        let temper = if self.calm || self.trouble > 1000 && self.dice.once_in(2) {
            Temper::mild(&mut self.dice, &self.policy)
        } else {
            Temper::any(&mut self.dice, &self.policy)
        };
        // Few numbers, so that they come again: a signal to a number is not a signal to a process.
        let pid = 100 + i32::try_from(generation % 3).unwrap_or(0);
        let known = self.now + delay;
        self.later(delay, Happening::Deliver(Event::Spawned { generation, pid }));
        if temper.opens < temper.boots {
            self.later(temper.opens, Happening::Shows(generation, Show::Warming));
        }
        self.later(temper.boots, Happening::Shows(generation, Show::Serving));
        match temper.fate {
            Fate::Lives => {}
            Fate::Dies(age, _) | Fate::Turns(age, ..) | Fate::RestartsInPlace(age) => {
                self.later(age, Happening::Fated(generation));
            }
        }
        let stuck_child = temper.stuck.is_some_and(|(leader, _)| !leader);
        let (show, daemons) = (Show::Closed, temper.daemons);
        let life = Life { generation, pid, temper, show, leader: true, daemons, stuck_child, termed: false, known };
        let alive = life.alive();
        self.lives.push(life);
        self.trial.take(self.now, Input::Alive(generation, alive)).map(|_| ())
    }

    fn terminate(&mut self, generation: Generation) {
        self.tempt_operator();
        let Some(life) = self.life(generation).filter(|life| life.leader) else { return };
        if life.show == Show::Frozen && life.temper.deaf {
            return;
        }
        let manner = life.temper.manner;
        life.termed = manner != Manner::Ignores;
        match manner {
            Manner::Ignores => {}
            Manner::Drains(time, death) => {
                self.show(generation, Show::Draining);
                self.later(time, Happening::Dies(generation, death));
            }
            Manner::DrainsAndFreezes => {
                self.show(generation, Show::Draining);
                let when = self.dice.ms(0, 10_000);
                self.later(when, Happening::Shows(generation, Show::Frozen));
            }
            Manner::Closes(time, death) => {
                self.show(generation, Show::Closed);
                self.later(time, Happening::Dies(generation, death));
            }
        }
    }

    /// SIGKILL to all of a tree. Whoever sleeps uninterruptibly dies when it wakes.
    fn kill(&mut self, generation: Generation) {
        self.tempt_operator();
        let (first, rest) = (self.dice.ms(0, 10), self.dice.ms(0, 50));
        let Some(life) = self.life(generation) else { return };
        let members = life.alive();
        let leader = life.leader;
        let stuck = life.temper.stuck.take();
        let (stuck_leader, slept) = stuck.unwrap_or_default();
        let leader_dies = if stuck_leader { slept } else { first };
        let rest_dies = if stuck_leader { rest } else { slept.max(rest) };
        let ends = if leader { leader_dies.max(rest_dies) } else { rest_dies };
        let stays = ends > KILL_MAX;
        if leader {
            self.later(leader_dies, Happening::Dies(generation, KILLED));
        }
        self.later(rest_dies, Happening::Clears(generation));
        let elapsed = ends.min(KILL_MAX);
        let survivors = u32::from(stays);
        let commands = (0..survivors).map(|_| "120 stuck".to_owned()).collect();
        let end = TreeEnd { members, escaped: 0, survivors, elapsed, commands };
        // Its own news, which may come before that of the leader's death.
        self.later(elapsed + Duration::from_millis(1), Happening::Deliver(Event::TreeGone { generation, end }));
    }
}
