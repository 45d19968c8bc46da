//! What a step may do, must do, and must leave behind.

use super::lease::STORE_LOST;
use super::{
    Duty, Effect, Ending, Event, Generation, Health, Judge, KILL_MAX, Moment, NEWS_MAX, Observation, Owned, Owner,
    ProbeScope, Request, SPAWN_MAX, TICK_LATE_MAX, Turn, Verdict, Wish, must,
};
use crate::fake_shell::Broken;
use openclaw_supervise_core::{Outcome, Phase, Report, exit};
use std::time::Duration;

type Judgement = Result<(), Broken>;
pub(super) type Answer<'a> = Option<(ProbeScope, &'a Observation)>;

/// So many ticks within one second are a machine that spins; a boot is polled 20 times in its first second.
const TICKS_MAX: usize = 60;

/// The answer to a kill that takes this long is lost.
const KILL_LOST: Duration = Duration::from_secs(30);

/// The longest pause before another try at a leader that survived SIGKILL.
const KILL_AGAIN_MAX: Duration = Duration::from_secs(10);

/// The longest that an exit waits for a look for strays.
const SWEEP_MAX: Duration = Duration::from_secs(2);

/// How long after a proof we may still be waiting for the answer or the tick that acts on it.
const ACT_MAX: Duration = Duration::from_secs(1);

fn proves_start(generation: Generation, answer: Answer<'_>) -> bool {
    answer.is_some_and(|(ask, sighting)| {
        ask == ProbeScope::Listener(generation)
            && matches!(sighting.verdict, Verdict::Gateway(Phase::Started | Phase::Unknown))
            && !matches!(sighting.owner, Owner::Other(_))
    })
}

impl Judge {
    pub(super) fn judge_effect(&mut self, turn: &Turn<'_>, effect: &Effect, answer: Answer<'_>) -> Judgement {
        match effect {
            Effect::Probe { ticket, ask } => self.judge_probe(turn.at, *ticket, *ask),
            Effect::Lease { ticket, ask } => self.judge_lease(turn.at, *ticket, *ask),
            Effect::Adopt { generation } => self.judge_adopt(turn.at, *generation, answer),
            Effect::Watch { pid } => self.judge_watch(*pid),
            Effect::Remember { generation, fact } => self.judge_fact(*generation, *fact),
            Effect::ClearHooks { heir } => self.judge_clear_hooks(turn, *heir),
            Effect::Record { generation } => self.judge_record_asked(turn.at, *generation, answer),
            Effect::Confirm { ticket } => self.judge_confirm(turn.at, *ticket, answer),
            Effect::FinishSweep => {
                self.sweeping = Some((turn.at, answer.is_some()));
                Ok(())
            }
            Effect::Spawn { generation, no_respawn } => {
                self.judge_no_respawn(*no_respawn)?;
                self.judge_spawn(turn.at, *generation)
            }
            Effect::Negotiate => self.judge_negotiate(),
            Effect::Consume { ticket, generation, pid } => self.judge_consume(turn.at, *ticket, *generation, *pid),
            Effect::Measure { generation, tree } => self.judge_measure(*generation, *tree),
            Effect::Examine { generation, .. } => self.judge_examine(turn.at, *generation),
            Effect::Notify(_) => Ok(()),
            Effect::Terminate { generation } => self.judge_terminate(turn.at, *generation),
            Effect::KillTree { generation } => self.judge_kill(turn.at, *generation),
            Effect::Hook { ticket, call } => self.judge_call(turn.at, *ticket, call, answer),
            Effect::EndHook { ticket } => self.judge_hook_signal(turn, *ticket, false),
            Effect::KillHook { ticket } => self.judge_hook_signal(turn, *ticket, true),
            Effect::Report(report) => self.judge_report(turn, report, answer),
            Effect::Exit(outcome) => self.judge_exit(turn.at, outcome, answer.is_some()),
        }
    }

    fn judge_probe(&mut self, at: Moment, ticket: u64, ask: ProbeScope) -> Judgement {
        must(ticket == self.ticket + 1, "P10", "tickets count up")?;
        must(self.lease.held, "lease", "a look at the port without the lease")?;
        self.leave_clearing(at)?;
        let of = match ask {
            ProbeScope::Port => None,
            ProbeScope::Listener(generation) | ProbeScope::Liveness(generation) => Some(generation),
        };
        let seeks = ask == ProbeScope::Port && self.owned.as_ref().is_some_and(Owned::may_have_successor);
        let right = of == self.owned.as_ref().map(|owned| owned.generation);
        must(right || seeks, "P2", "a probe asks for what there is")?;
        let alone = self.asked.is_none_or(|(_, since)| at >= since + self.policy.probe_timeout);
        must(alone || self.lease.asks_again(), "loop", "two probes are under way at once")?;
        (self.ticket, self.probe, self.asked) = (ticket, ticket, Some((ask, at)));
        Ok(())
    }

    /// Nothing of an earlier gateway is in the way, and nobody else.
    pub(super) fn may_start(&self, answer: Answer<'_>) -> Judgement {
        must(self.left.is_none() && !self.adopting, "P1", "a start beside what a predecessor left")?;
        must(self.ended.is_none() && self.unborn.is_none(), "P9", "a start before the last end is on record")?;
        let free = answer.is_some_and(|(ask, sighting)| ask == ProbeScope::Port && sighting.verdict == Verdict::Free);
        must(free, "P1", "a start without an answer that the port is free")
    }

    fn owns(&self, generation: Generation) -> Option<&Owned> {
        self.owned.as_ref().filter(|owned| owned.generation == generation && !owned.gone)
    }

    fn judge_terminate(&mut self, at: Moment, generation: Generation) -> Judgement {
        let Some(owned) = self.owns(generation) else {
            return Err(Broken::new("P2", format!("SIGTERM to gateway {generation}, which is not ours")));
        };
        must(self.lease.held, "P2", "SIGTERM without the lease")?;
        must(owned.death.is_none(), "P2", "SIGTERM to a leader that is dead")?;
        if owned.held {
            // It was decided when the store was asked; the drain begins now.
            self.judge_act(at)?;
            if let Some(owned) = &mut self.owned {
                (owned.held, owned.terminated) = (false, owned.terminated.map(|ending| Ending { at, ..ending }));
                owned.health.rearm(at);
            }
            return Ok(());
        }
        must(owned.terminated.is_none(), "P2", "SIGTERM twice")?;
        self.judge_act(at)?;
        self.decide_to_end(at)
    }

    fn judge_kill(&mut self, at: Moment, generation: Generation) -> Judgement {
        let Some(owned) = self.owns(generation) else {
            return Err(Broken::new("P2", format!("SIGKILL to gateway {generation}, which is not ours")));
        };
        must(self.lease.held, "P2", "SIGKILL without the lease")?;
        let lost = self.killed_at.is_some_and(|since| at >= since + KILL_LOST);
        must(!self.killing || lost, "P2", "two kills of one tree at once")?;
        let over = self.may_escalate(at, owned);
        let why = "SIGKILL to a gateway whose time is not over";
        must(owned.death.is_some() || owned.killed || owned.escalated || over, "P3", why)?;
        self.judge_act(at)?;
        (self.killing, self.killed_at) = (true, Some(at));
        if let Some(owned) = &mut self.owned {
            if owned.may_have_successor() {
                self.asked = None;
            }
            owned.killed = true;
        }
        Ok(())
    }

    /// Whether the time of a drain is over.
    fn may_escalate(&self, at: Moment, owned: &Owned) -> bool {
        owned.terminated.is_some_and(|ending| {
            let silent = owned.health.silent(&self.policy).is_some_and(|silent| silent <= at);
            // Whoever asks for a stop allows it the stop timeout and no more.
            let stopped = self.stop.is_some_and(|(since, grace)| at >= since.saturating_add(grace));
            at >= ending.at.saturating_add(ending.grace) || silent || stopped || self.wish == Wish::StopNow
        })
    }

    /// After the decision only a look for strays goes on, for a short time.
    pub(super) fn judge_sweep(&mut self, turn: &Turn<'_>, decided: Moment, answered: bool) -> Judgement {
        self.last = turn.at;
        for effect in turn.fx {
            match effect {
                Effect::Report(Report::TreeKilled { .. }) if !self.over => {}
                Effect::Exit(outcome) => self.judge_exit(decided, outcome, answered)?,
                _ => return must(false, "exit", "something is done after the decision to end"),
            }
        }
        let finished = *turn.event == Event::SweepFinished;
        must(!finished || self.over, "exit", "the end of a look for strays is no news")?;
        let late = turn.at > decided + SWEEP_MAX + self.standstill + TICK_LATE_MAX;
        must(self.over || !late, "exit", "a look for strays holds up the exit for too long")
    }

    fn judge_report(&mut self, turn: &Turn<'_>, report: &Report, answer: Answer<'_>) -> Judgement {
        let about = report.generation();
        match report {
            Report::GatewayStarted { generation, pid, .. } => {
                must(proves_start(*generation, answer), "P9", "started without a good answer of our own")?;
                let Some(owned) = self.owned.as_mut().filter(|owned| Some(owned.generation) == about) else {
                    return Err(Broken::new("P9", "a start of what does not live"));
                };
                let first = owned.started.is_none() && owned.pid == *pid && !owned.ending();
                must(first, "P9", "one start of one process")?;
                self.repaired = false;
                (owned.started, owned.examining) = (Some(turn.at), None);
                owned.health = Health::new(turn.at);
                Ok(())
            }
            Report::GatewayAdopted { pid, .. } => {
                let found = matches!(turn.event, Event::Adopted { .. });
                let ours =
                    self.owned.as_ref().is_some_and(|owned| Some(owned.generation) == about && owned.pid == *pid);
                must(found && ours, "P9", "the adoption of what was not found")
            }
            Report::LeaseLost { .. } => self.judge_loss(turn.at),
            Report::StopEscalated { .. } => {
                let over = self.owned.as_ref().is_some_and(|owned| self.may_escalate(turn.at, owned));
                if let Some(owned) = &mut self.owned {
                    owned.escalated = over;
                }
                must(over, "P3", "a drain is cut short whose time is not over")
            }
            Report::SuccessorFound { generation, pid, .. } => self.judge_succession(turn.at, *generation, *pid, answer),
            Report::HandoffAccepted { .. }
            | Report::HandoffMissing { .. }
            | Report::HandoffRejected { .. }
            | Report::HandoffUnsupported { .. }
            | Report::HandoffTimedOut { .. } => self.judge_word(turn, report),
            Report::StandbyEntered { .. } | Report::StandbyLeft { .. } => self.judge_standby(turn.at, report),
            Report::GatewayListening { .. } => {
                let first = self.owned.as_mut().is_some_and(|owned| !std::mem::replace(&mut owned.listening, true));
                must(first, "P9", "listening is told once")
            }
            Report::HookStarted { .. } | Report::HookTimedOut { .. } | Report::HookFinished { .. } => {
                self.judge_hook_report(turn, report)
            }
            Report::GatewayHung(_) => self.judge_hung(turn, report),
            Report::LivenessExtended { by, .. } => self.judge_extension(turn.at, *by),
            Report::GatewayExited(exited) => {
                let untold = self.owned.as_ref().is_some_and(Owned::hangs_untold);
                must(!untold, "P9", "a gateway dies while it is examined, and its hang is not told")?;
                self.cause = Some((exited.generation, exited.cause));
                // The run is settled already where this very event has ended it.
                let Some(owned) = self.owned.as_mut().filter(|owned| Some(owned.generation) == about) else {
                    let ends = matches!(turn.event, Event::LeaderExited { .. } | Event::Adopted { .. });
                    return must(ends, "P9", "an end without a gateway");
                };
                must(exited.pid == owned.pid, "P9", "the end of another process")?;
                must(!std::mem::replace(&mut owned.told_end, true), "P9", "a gateway that ends twice")
            }
            Report::TreeKilled { generation, end } => {
                if end.survivors > 0 {
                    self.told_survivors.insert(*generation);
                }
                Ok(())
            }
            Report::RestartScheduled { delay, .. } => {
                self.asked = None;
                let contended = std::mem::take(&mut self.port).contended;
                self.duty = None;
                if self.pardoned { Ok(()) } else { self.pace.schedule(turn.at, *delay, contended) }
            }
            _ => Ok(()),
        }
    }

    fn judge_exit(&mut self, at: Moment, outcome: &Outcome, answered: bool) -> Judgement {
        let Outcome { code, reason } = outcome;
        must(!reason.trim().is_empty() && !reason.contains('\n'), "P7", "an exit comes with one line")?;
        self.over = true;
        if self.lease.lost {
            return must(*code == self.policy.conflict_exit_code, "lease", "whoever lost the lease says so");
        }
        let detached = self.wish == Wish::Detach;
        let stopped = self.wish >= Wish::Stop;
        let left = self.alive.iter().filter(|(_, alive)| **alive > 0).map(|(generation, _)| *generation);
        let untold: Vec<_> = left.filter(|left| !self.told_survivors.contains(left)).collect();
        let told = detached || self.searched_in_vain(at);
        must(told || untold.is_empty(), "P6", "processes are left and nobody was told")?;
        let ended = self.owned.as_ref().is_none_or(|owned| owned.told_end);
        must(detached || (ended && !self.spawning), "P9", "a spawn without an end on record")?;
        // What survives a kill is settled by whoever finds nothing of it any more.
        let survived = stopped && *code == exit::FAILURE;
        must(survived || self.ended.is_none() && self.unborn.is_none(), "P9", "an end that is not on record")?;
        must((*code == exit::OK || stopped) == (stopped || detached), "P7", "0 means: on request")?;
        match *code {
            exit::OK => Ok(()),
            exit::FAILURE if stopped => {
                let left = self.owned.is_some() || !self.told_survivors.is_empty() || self.searched_in_vain(at);
                must(left, "P7", "1 though nothing is left")
            }
            exit::FAILURE => {
                let reason = self.duty == Some(Duty::Blind) || self.lease.fails(at) || self.searched_in_vain(at);
                must(reason, "P7", "1 without a reason")
            }
            code if self.lease.yields() => must(code == self.policy.conflict_exit_code, "P7", "the code of a conflict"),
            exit::GAVE_UP if !stopped => {
                must(!self.holds(), "handoff", "gave up before the word about the last exit")?;
                self.pace.give_up(at)
            }
            _ if stopped => must(false, "P5", "a stop ends with 0, or 1 where something is left"),
            _ if self.duty == Some(Duty::Conflict) && answered => Ok(()),
            exit::EX_CONFIG => {
                let refused = self.pace.refused && self.duty == Some(Duty::MayStart) && !self.port.contended;
                let absent = !self.born && self.owned.is_none() && self.pace.pending.is_some();
                let unrepaired = refused && self.policy.repair.is_some() && !self.repaired;
                must(!unrepaired, "P7", "78 without the repair that was wanted")?;
                must(refused || absent, "P7", "78 without a conflict, a refusal or a missing program")
            }
            _ => must(false, "P7", "a code that nobody knows"),
        }
    }

    /// What an answer obliges to, at once.
    pub(super) fn judge_answer(&self, turn: &Turn<'_>, answer: Answer<'_>) -> Judgement {
        let Some((ask, _)) = answer else { return Ok(()) };
        if self.ends() {
            return Ok(());
        }
        if ask == ProbeScope::Port && self.duty == Some(Duty::Succeed) {
            let kills = turn.fx.iter().any(|effect| matches!(effect, Effect::KillTree { .. }));
            must(!kills, "P3", "a successor that our gateway left is ended")?;
            return must(self.adopting, "P8", "a successor that our gateway left is not kept");
        }
        if ask == ProbeScope::Port {
            must(self.duty != Some(Duty::Adopt), "P8", "a gateway of ours is on the port and is left alone")?;
            let gone = matches!(self.duty, Some(Duty::Conflict | Duty::Blind));
            return must(!gone, "conflict", "whoever stays on the port ends us, in bounded time");
        }
        let missed = self
            .owned
            .as_ref()
            .is_some_and(|owned| owned.started.is_none() && !owned.ending() && proves_start(owned.generation, answer));
        must(!missed, "P9", "a gateway that has come up is told of").and_then(|()| {
            let stale = turn.fx.iter().any(|effect| matches!(effect, Effect::Record { .. }));
            must(!stale, "P1", "a spawn on the answer about a gateway")
        })
    }

    /// What a request obliges to, at once. `was` is the gateway as it stood before.
    pub(super) fn judge_request(&self, turn: &Turn<'_>, was: Option<&Owned>) -> Judgement {
        let Event::Requested { request, .. } = turn.event else { return Ok(()) };
        let harder = match request {
            Request::Restart => self.wish == Wish::Restart,
            Request::Retry => false,
            Request::Detach => self.wish == Wish::Detach,
            Request::Stop => self.wish >= Wish::Stop,
        };
        if !harder {
            return Ok(());
        }
        let signalled =
            turn.fx.iter().any(|effect| matches!(effect, Effect::Terminate { .. } | Effect::KillTree { .. }));
        let waits = self.fence.waits();
        match was {
            Some(was) if *request == Request::Detach && !was.ending() => {
                must(!signalled && self.ends(), "detach", "a detach leaves the gateway and goes")
            }
            Some(was) if !was.ending() => must(signalled || waits, "request", "a request reaches the gateway at once"),
            Some(_) if self.wish == Wish::StopNow && !self.ends() && !waits => {
                let waits = self.owned.as_ref().is_some_and(|owned| owned.death.is_none() && !owned.killed);
                must(!waits, "P5", "a second stop waits for nothing")
            }
            None if *request != Request::Restart
                && !self.spawning
                && !self.adopting
                && !self.clearing
                && self.hook_run.is_none() =>
            {
                must(self.ends(), "P5", "with no gateway there is nothing to wait for")
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What must have happened by now.
    pub(super) fn judge_time(&mut self, turn: &Turn<'_>) -> Judgement {
        if self.ends() {
            return Ok(());
        }
        let now = turn.at.saturating_sub(self.stood_still).saturating_sub(self.fence.held_up(turn.at));
        let past = move |due: Moment| now > due.saturating_add(ACT_MAX + TICK_LATE_MAX);
        if let Some((since, grace)) = self.stop {
            let drained = since.saturating_add(grace).saturating_add(SPAWN_MAX);
            let idle = self.owned.as_ref().is_some_and(|owned| owned.death.is_none() && !owned.killed);
            must(!(idle && past(drained)), "P5", "a stop waits for longer than the stop timeout")?;
            // One kill may be under way, a pause of 5 s may follow it, then the kill of the stop itself.
            let by = drained.saturating_add(KILL_MAX * 2 + NEWS_MAX + Duration::from_secs(5) + self.hook_time());
            must(!past(by), "P5", "a stop takes longer than the stop timeout and a bounded kill")?;
        }
        let due = self.owned.as_ref().and_then(|owned| self.due(owned)).or(self.hook_due());
        let due = due.filter(|_| !self.fence.waits());
        let awake = due.is_none_or(|due| {
            let latest = due.max(turn.at).saturating_add(ACT_MAX);
            turn.after.is_some_and(|after| after <= latest)
        });
        must(awake, "hang", "nothing wakes us when a gateway or a hook is due for a signal")?;
        let since = due.is_some_and(|due| due <= turn.at).then(|| *self.overdue.get_or_insert(turn.at));
        self.overdue = since;
        let why = "a gateway that hangs, drains for too long or in silence, or survived a kill, is left alone";
        must(!since.is_some_and(past), "hang", why)
    }

    /// When the gateway is due for the next signal, if nobody asks for one.
    fn due(&self, owned: &Owned) -> Option<Moment> {
        let policy = &self.policy;
        match (owned.terminated, owned.started) {
            _ if owned.death.is_some() || owned.gone || self.killing => None,
            _ if owned.killed => owned.survived.map(|at| at.saturating_add(KILL_AGAIN_MAX)),
            (Some(Ending { at, grace }), _) => {
                owned.health.silent(policy).into_iter().chain([at.saturating_add(grace)]).min()
            }
            (None, _) if let Some(examination) = owned.examining => Some(examination.until()),
            (None, None) => Some(owned.armed.saturating_add(policy.startup_timeout)),
            (None, Some(_)) => owned.health.proven(policy),
        }
    }

    /// Something is always owed, and nothing spins.
    pub(super) fn judge_rhythm(&mut self, turn: &Turn<'_>) -> Judgement {
        if *turn.event == Event::Tick {
            self.ticks.push_back(turn.at);
            if self.ticks.len() > TICKS_MAX {
                let first = self.ticks.pop_front();
                let calm = first.is_none_or(|first| turn.at > first + Duration::from_secs(1));
                must(calm, "loop", "the machine spins")?;
            }
        }
        let dying = self.owned.as_ref().is_some_and(|owned| owned.gone && owned.death.is_none());
        let Some(deadline) = turn.after else {
            let watches = self.lease.watches().is_some();
            return must(self.over || watches || !self.lease.begun, "owed", "nothing is owed");
        };
        must(!self.over, "exit", "a deadline after the exit")?;
        // While a probe is owed the next deadline is never further away than its loss.
        let probing = !self.killing && !self.spawning && !dying && !self.ends() && self.asked.is_some();
        let probing = probing && !self.fence.waits();
        let patience = self.policy.probe_timeout.saturating_add(Duration::from_secs(5));
        let polled = if self.lease.stands_by() { STORE_LOST } else { patience };
        must(!probing || deadline <= turn.at + polled, "owed", "a lost answer is never asked for again")
    }
}
