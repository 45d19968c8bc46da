//! The hooks of a world: fast, slow, failing, endless, ignoring SIGTERM, or in uninterruptible sleep when killed.

use super::{World, WorldEvent};
use crate::dice::Dice;
use crate::fake_shell::{Broken, must};
use openclaw_supervise_core::hook::KILL_TIME_MAX;
use openclaw_supervise_core::{Call, Event, ExitStatus, Generation, Hook, HookEnd, Moment};
use std::time::Duration;

const TERMED: ExitStatus = ExitStatus::Signal { number: 15, core_dumped: false };
const KILLED: ExitStatus = ExitStatus::Signal { number: 9, core_dumped: false };

/// How a hook behaves.
#[derive(Debug, Clone)]
struct HookPlan {
    /// How it ends by itself; `None` if it runs until a signal ends it.
    ends: Option<(Duration, HookEnd)>,
    /// How long after SIGTERM it ends; `None` if it ignores it.
    on_sigterm: Option<Duration>,
    /// How long after SIGKILL the last process of it is gone.
    dies: Duration,
}

impl HookPlan {
    fn healthy(dice: &mut Dice) -> Self {
        let end = HookEnd::Ended(ExitStatus::Code(0));
        Self { ends: Some((dice.ms(0, 500), end)), on_sigterm: Some(Duration::ZERO), dies: dice.ms(0, 50) }
    }

    fn any(dice: &mut Dice, hook: Hook) -> Self {
        let ends = match dice.below(11) {
            0 => None,
            4 if hook == Hook::PreStart => {
                Some((dice.ms(0, 5), HookEnd::Postponed("package.json is missing".to_owned())))
            }
            1 => Some((dice.ms(0, 5), HookEnd::NotStarted("no such file".to_owned()))),
            2 => Some((dice.s(0, 60), HookEnd::Ended(ExitStatus::Code(0)))),
            3 => Some((dice.s(0, 20), HookEnd::Ended(ExitStatus::Code(1)))),
            _ => Some((dice.ms(0, 3000), HookEnd::Ended(ExitStatus::Code(0)))),
        };
        let on_sigterm = (!dice.once_in(4)).then(|| dice.ms(0, 7000));
        let dies = if dice.once_in(8) { dice.s(1, 40) } else { dice.ms(0, 100) };
        Self { ends, on_sigterm, dies }
    }
}

/// One call of a hook and its processes.
#[derive(Debug, Clone)]
pub(super) struct HookRun {
    /// The supervisor that called it; `None` once that one is gone.
    sup: Option<usize>,
    ticket: u64,
    hook: Hook,
    generation: Generation,
    plan: HookPlan,
    /// When no process of an older hook is left, so that it can start.
    begins: Moment,
    alive: bool,
    killed: Option<Moment>,
}

impl World<'_> {
    /// Whether a hook runs that must be over before a start. Two do not count: a killed one in uninterruptible sleep,
    /// and one of a supervisor that lost its lease, of which the next owner need not know.
    pub(super) fn hook_runs(&self) -> bool {
        let ought = |killed: Moment| self.now < killed + KILL_TIME_MAX;
        let lease_lost = |hook_run: &HookRun| hook_run.sup.is_some_and(|sup| self.sups[sup].lease_lost);
        self.hook_runs
            .iter()
            .any(|hook_runs| hook_runs.alive && !lease_lost(hook_runs) && hook_runs.killed.is_none_or(ought))
    }

    /// Kills what the hooks of a predecessor left. Gives the time that it takes.
    pub(super) fn end_old_hooks(&mut self) -> Duration {
        let mut wait = Duration::ZERO;
        for old in 0..self.hook_runs.len() {
            let HookRun { alive: true, sup: None, killed, .. } = self.hook_runs[old] else { continue };
            if killed.is_none() {
                self.kill_hook_run(old);
            }
            let died = self.hook_runs[old].killed.map_or(self.now, |killed| killed + self.hook_runs[old].plan.dies);
            wait = wait.max(died.saturating_sub(self.now).min(KILL_TIME_MAX));
        }
        wait
    }

    pub(super) fn order_hook(&mut self, sup: usize, ticket: u64, call: &Call) {
        self.maybe_request();
        if !self.calm && self.dice.once_in(6) {
            let ((kind, stay), when) = (self.foreign_listener(), self.dice.ms(0, 4000));
            self.later(when, WorldEvent::ListenerComes(kind, stay));
        }
        let (hook, generation) = (call.hook(), call.generation());
        let plan = if self.calm || self.dice.once_in(3) {
            let healthy = HookPlan::healthy(&mut self.dice);
            // One without a fault keeps its timeout, however short.
            if self.calm {
                HookPlan { ends: Some((Duration::ZERO, HookEnd::Ended(ExitStatus::Code(0)))), ..healthy }
            } else {
                healthy
            }
        } else {
            HookPlan::any(&mut self.dice, hook)
        };
        let id = self.hook_runs.len();
        let wait = self.end_old_hooks();
        let begins = self.now + wait;
        let (sup, alive, killed) = (Some(sup), false, None);
        self.hook_runs.push(HookRun { sup, ticket, hook, generation, plan, begins, alive, killed });
        self.later(wait, WorldEvent::HookBegins(id));
    }

    pub(super) fn begin_hook_run(&mut self, id: usize) -> Result<(), Broken> {
        let HookRun { sup, killed, hook, generation, .. } = self.hook_runs[id];
        let Some(sup) = sup.filter(|sup| self.sups[*sup].up && killed.is_none()) else { return Ok(()) };
        if self.store.lease.owner != Some(sup) {
            // The shell checks the lease first.
            return Ok(());
        }
        must(!self.hook_runs(), "P1", "two hooks at once")?;
        let beside = self.gateways.iter().any(|gateway| gateway.alive() > 0 && !gateway.excused);
        must(!beside || self.store.lost, "P1", "a hook is called while a gateway of ours lives")?;
        let known = hook == Hook::PreStart || generation <= self.sups[sup].trial.judge.generation();
        must(known, "P9", "a post-stop hook for a gateway that was never started")?;
        self.hook_runs[id].alive = true;
        if let Some((delay, end)) = self.hook_runs[id].plan.ends.clone() {
            self.later(delay, WorldEvent::HookEnds(id, end));
        }
        Ok(())
    }

    fn hook_run_of(&self, sup: usize, ticket: u64) -> Option<usize> {
        self.hook_runs.iter().rposition(|hook_run| hook_run.sup == Some(sup) && hook_run.ticket == ticket)
    }

    pub(super) fn terminate_hook(&mut self, sup: usize, ticket: u64) {
        let Some(id) = self.hook_run_of(sup, ticket) else { return };
        self.maybe_request();
        let on_sigterm = self.hook_runs[id].plan.on_sigterm;
        if let Some(delay) = on_sigterm.filter(|_| self.hook_runs[id].alive) {
            let code = self.dice.once_in(3);
            let end = HookEnd::Ended(if code { ExitStatus::Code(0) } else { TERMED });
            self.later(delay, WorldEvent::HookEnds(id, end));
        }
    }

    /// Answers at once if the hook has not started yet.
    pub(super) fn kill_hook_of(&mut self, sup: usize, ticket: u64) -> Option<(Duration, HookEnd)> {
        let id = self.hook_run_of(sup, ticket)?;
        if self.hook_runs[id].alive {
            self.kill_hook_run(id);
            return None;
        }
        // Its cleanup of an older hook is still waited for.
        let end = HookEnd::NotStarted("it was not wanted any more".to_owned());
        let first = self.hook_runs[id].killed.replace(self.now).is_none();
        first.then(|| (self.hook_runs[id].begins.saturating_sub(self.now), end))
    }

    fn kill_hook_run(&mut self, id: usize) {
        self.hook_runs[id].killed.get_or_insert(self.now);
        let dies = self.hook_runs[id].plan.dies;
        self.later(dies, WorldEvent::HookEnds(id, HookEnd::Ended(KILLED)));
    }

    /// No process of a hook is left.
    pub(super) fn end_hook_run(&mut self, id: usize, end: HookEnd) {
        let hook_run = &mut self.hook_runs[id];
        if !std::mem::take(&mut hook_run.alive) {
            return;
        }
        let ticket = hook_run.ticket;
        if hook_run.hook == Hook::Repair && end.is_success() && !self.dice.once_in(3) {
            // A repair writes at least the time of its run into the configuration.
            self.fingerprint.config += 1;
        }
        if let Some(sup) = hook_run.sup {
            let news = if self.calm { Duration::ZERO } else { self.news_delay() };
            self.later(news, WorldEvent::Deliver(sup, Event::HookEnded { ticket, end }));
        }
    }

    /// A supervisor is gone. Its hook runs on, or dies with the control group.
    pub(super) fn orphan_hooks(&mut self, sup: usize) {
        for id in 0..self.hook_runs.len() {
            if self.hook_runs[id].sup == Some(sup) {
                self.hook_runs[id].sup = None;
                if self.hook_runs[id].alive && self.dice.once_in(3) {
                    self.kill_hook_run(id);
                }
            }
        }
    }

    /// Whether a supervisor leaves a hook behind, other than one in uninterruptible sleep after SIGKILL.
    pub(super) fn leaves_hook(&self, sup: usize) -> bool {
        let ought = |killed: Moment| self.now < killed + KILL_TIME_MAX;
        self.hook_runs.iter().any(|e| e.sup == Some(sup) && e.alive && e.killed.is_none_or(ought))
    }
}
