//! The hooks of a world: quick, slow, failing, endless, deaf, or asleep when they are killed.

use super::{Happening, World};
use crate::dice::Dice;
use crate::judge::must;
use crate::trial::Broken;
use openclaw_supervise::core::hook::KILL_TIME_MAX;
use openclaw_supervise::core::{Call, Death, Event, Generation, Hook, HookEnd, Moment};
use std::time::Duration;

const TERMED: Death = Death::Signal { number: 15, core_dumped: false };
const KILLED: Death = Death::Signal { number: 9, core_dumped: false };

/// What a hook is like.
#[derive(Debug, Clone)]
struct Nature {
    /// How it ends by itself, if it does.
    ends: Option<(Duration, HookEnd)>,
    /// How long after SIGTERM it ends, if it hears it.
    hears: Option<Duration>,
    /// How long after SIGKILL nothing of it is left.
    dies: Duration,
}

impl Nature {
    fn mild(dice: &mut Dice) -> Self {
        let end = HookEnd::Ended(Death::Code(0));
        Self { ends: Some((dice.ms(0, 500), end)), hears: Some(Duration::ZERO), dies: dice.ms(0, 50) }
    }

    fn any(dice: &mut Dice, hook: Hook) -> Self {
        let ends = match dice.below(11) {
            0 => None,
            4 if hook == Hook::PreStart => {
                Some((dice.ms(0, 5), HookEnd::Postponed("package.json is missing".to_owned())))
            }
            1 => Some((dice.ms(0, 5), HookEnd::NotStarted("no such file".to_owned()))),
            2 => Some((dice.s(0, 60), HookEnd::Ended(Death::Code(0)))),
            3 => Some((dice.s(0, 20), HookEnd::Ended(Death::Code(1)))),
            _ => Some((dice.ms(0, 3000), HookEnd::Ended(Death::Code(0)))),
        };
        let hears = (!dice.once_in(4)).then(|| dice.ms(0, 7000));
        let dies = if dice.once_in(8) { dice.s(1, 40) } else { dice.ms(0, 100) };
        Self { ends, hears, dies }
    }
}

/// One call of a hook, and all that it started.
#[derive(Debug, Clone)]
pub(super) struct Errand {
    /// Who waits for it, until he is killed.
    sup: Option<usize>,
    ticket: u64,
    hook: Hook,
    generation: Generation,
    nature: Nature,
    /// When nothing of an older one is left, so that it can begin.
    begins: Moment,
    alive: bool,
    killed: Option<Moment>,
}

impl World<'_> {
    /// Whether a hook runs that somebody ought to have ended by now. One that sleeps uninterruptibly cannot be, and of
    /// one whose owner was taken for gone the next owner need not know.
    pub(super) fn hook_runs(&self) -> bool {
        let ought = |killed: Moment| self.now < killed + KILL_TIME_MAX;
        let robbed = |errand: &Errand| errand.sup.is_some_and(|sup| self.sups[sup].robbed);
        self.errands.iter().any(|errand| errand.alive && !robbed(errand) && errand.killed.is_none_or(ought))
    }

    /// What the hook of a predecessor left is ended before anything else. Says how long that takes.
    pub(super) fn clear_hooks(&mut self) -> Duration {
        let mut wait = Duration::ZERO;
        for old in 0..self.errands.len() {
            let Errand { alive: true, sup: None, killed, .. } = self.errands[old] else { continue };
            if killed.is_none() {
                self.kill_errand(old);
            }
            let died = self.errands[old].killed.map_or(self.now, |killed| killed + self.errands[old].nature.dies);
            wait = wait.max(died.saturating_sub(self.now).min(KILL_TIME_MAX));
        }
        wait
    }

    pub(super) fn order_hook(&mut self, sup: usize, ticket: u64, call: &Call) {
        self.tempt_operator();
        if !self.calm && self.dice.once_in(6) {
            let ((kind, stay), when) = (self.stranger(), self.dice.ms(0, 4000));
            self.later(when, Happening::StrangerComes(kind, stay));
        }
        let (hook, generation) = (call.hook(), call.generation());
        let nature = if self.calm || self.dice.once_in(3) {
            Nature::mild(&mut self.dice)
        } else {
            Nature::any(&mut self.dice, hook)
        };
        let id = self.errands.len();
        let wait = self.clear_hooks();
        let begins = self.now + wait;
        let (sup, alive, killed) = (Some(sup), false, None);
        self.errands.push(Errand { sup, ticket, hook, generation, nature, begins, alive, killed });
        self.later(wait, Happening::HookBegins(id));
    }

    pub(super) fn begin_errand(&mut self, id: usize) -> Result<(), Broken> {
        let Errand { sup, killed, hook, generation, .. } = self.errands[id];
        let Some(sup) = sup.filter(|sup| self.sups[*sup].up && killed.is_none()) else { return Ok(()) };
        if self.store.lease.owner != Some(sup) {
            // The shell looks at the lease first.
            return Ok(());
        }
        must(!self.hook_runs(), "P1", "two hooks at once")?;
        let beside = self.lives.iter().any(|life| life.alive() > 0 && !life.excused);
        must(!beside || self.store.lost, "P1", "a hook is called beside a living gateway of ours")?;
        let known = hook == Hook::PreStart || generation <= self.sups[sup].trial.judge.generation();
        must(known, "P9", "a post-stop hook of a gateway that never was")?;
        self.errands[id].alive = true;
        if let Some((delay, end)) = self.errands[id].nature.ends.clone() {
            self.later(delay, Happening::HookEnds(id, end));
        }
        Ok(())
    }

    fn errand_of(&self, sup: usize, ticket: u64) -> Option<usize> {
        self.errands.iter().rposition(|errand| errand.sup == Some(sup) && errand.ticket == ticket)
    }

    pub(super) fn end_hook(&mut self, sup: usize, ticket: u64) -> Result<(), Broken> {
        let Some(id) = self.errand_of(sup, ticket) else {
            return Err(Broken::new("P2", "SIGTERM to a hook of somebody else"));
        };
        self.tempt_operator();
        let hears = self.errands[id].nature.hears;
        if let Some(delay) = hears.filter(|_| self.errands[id].alive) {
            let code = self.dice.once_in(3);
            let end = HookEnd::Ended(if code { Death::Code(0) } else { TERMED });
            self.later(delay, Happening::HookEnds(id, end));
        }
        Ok(())
    }

    pub(super) fn kill_hook(&mut self, sup: usize, ticket: u64) -> Result<(), Broken> {
        let Some(id) = self.errand_of(sup, ticket) else {
            return Err(Broken::new("P2", "SIGKILL to a hook of somebody else"));
        };
        if self.errands[id].alive {
            self.kill_errand(id);
        } else if self.errands[id].killed.replace(self.now).is_none() {
            // It had not been started yet. The rest of an older one is waited for all the same.
            let end = HookEnd::NotStarted("it was not wanted any more".to_owned());
            let wait = self.errands[id].begins.saturating_sub(self.now);
            self.later(wait, Happening::Deliver(sup, Event::HookEnded { ticket, end }));
        }
        Ok(())
    }

    fn kill_errand(&mut self, id: usize) {
        self.errands[id].killed.get_or_insert(self.now);
        let dies = self.errands[id].nature.dies;
        self.later(dies, Happening::HookEnds(id, HookEnd::Ended(KILLED)));
    }

    /// Nothing of a hook is left.
    pub(super) fn end_errand(&mut self, id: usize, end: HookEnd) {
        let errand = &mut self.errands[id];
        if !std::mem::take(&mut errand.alive) {
            return;
        }
        let ticket = errand.ticket;
        if errand.hook == Hook::Repair && end.is_success() && !self.dice.once_in(3) {
            // Whatever else it does, it writes down when it ran.
            self.fingerprint.config += 1;
        }
        if let Some(sup) = errand.sup {
            let news = self.news_delay();
            self.later(news, Happening::Deliver(sup, Event::HookEnded { ticket, end }));
        }
    }

    /// A supervisor is gone. The hook that it had called runs on, or dies with its control group.
    pub(super) fn orphan_hooks(&mut self, sup: usize) {
        for id in 0..self.errands.len() {
            if self.errands[id].sup == Some(sup) {
                self.errands[id].sup = None;
                if self.errands[id].alive && self.dice.once_in(3) {
                    self.kill_errand(id);
                }
            }
        }
    }

    /// Whoever ends by himself leaves no hook behind, but for one that SIGKILL does not end.
    pub(super) fn leaves_hook(&self, sup: usize) -> bool {
        let ought = |killed: Moment| self.now < killed + KILL_TIME_MAX;
        self.errands.iter().any(|e| e.sup == Some(sup) && e.alive && e.killed.is_none_or(ought))
    }
}
