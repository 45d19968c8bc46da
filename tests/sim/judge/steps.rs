//! What a step may do and must do, and the deadline that it must leave.

use super::lease::STORE_LOST;
use super::pace::Forced;
use super::proof::Examination;
use super::stalls::Stalls;
use super::{
    Duty, Effect, Ending, Event, Generation, Goal, Health, Judge, KILL_MAX, LATE, Moment, NEWS_MAX, Observation, Owned,
    Owner, ProbeScope, Request, SPAWN_MAX, TICK_LATE_MAX, Turn, Verdict, must,
};
use crate::fake_shell::Broken;
use openclaw_supervise_core::{Outcome, Phase, Report, exit};
use std::time::Duration;

type Judgement = Result<(), Broken>;
pub(super) type Answer<'a> = Option<(ProbeScope, &'a Observation)>;

/// More ticks than this in one second are a busy loop; a boot is polled 20 times in its first second.
const TICKS_MAX: usize = 60;

/// The answer to a kill is lost after this time.
pub(super) const KILL_LOST: Duration = Duration::from_secs(30);

/// The same for a spawn. An answer that came while we stood still has the second time.
const SPAWN_LOST: Duration = Duration::from_secs(30);
const SPAWN_LAST: Duration = Duration::from_secs(5);

/// The longest pause before the next SIGKILL to a leader that survived one.
const KILL_AGAIN_MAX: Duration = Duration::from_secs(10);

/// The longest that an exit waits for the sweep for stray processes.
const SWEEP_MAX: Duration = Duration::from_secs(2);

/// How long a successor is looked at again while its process cannot be seen.
const SUCCESSOR_TIME: Duration = Duration::from_secs(5);

/// How long after a proof its action may wait for an answer or a tick.
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
        self.judge_in_pause(effect)?;
        match effect {
            Effect::Probe { ticket, ask } => self.judge_probe(turn.at, *ticket, *ask),
            Effect::Lease { ticket, ask } => self.judge_lease(turn.at, *ticket, *ask),
            Effect::AskOwner { ticket, .. } => self.judge_ask_owner(turn.at, *ticket),
            Effect::Adopt { generation } => self.judge_adopt(turn.at, *generation, answer),
            Effect::Watch { pid } => self.judge_watch(*pid),
            Effect::Remember { generation, fact } => self.judge_fact(*generation, *fact),
            Effect::Follow(moved) => Self::judge_follow(moved, answer),
            Effect::ClearHooks { .. } => self.judge_clear_hooks(turn),
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
            Effect::Measure { generation, tree, .. } => self.judge_measure(*generation, *tree),
            Effect::Examine { generation, case } => self.judge_examine(turn.at, *generation, case),
            Effect::Notify(_) => Ok(()),
            Effect::Terminate { generation } => self.judge_terminate(turn.at, *generation),
            Effect::TerminateListener { generation, pid } => self.judge_forwarding(turn.at, *generation, *pid, answer),
            Effect::SeekHeir { generation, listener } => self.judge_seek_heir(turn, *generation, *listener),
            Effect::KillTree { generation, grace, installers, .. } => {
                self.judge_kill_of_installers(turn.at, *installers)?;
                self.judge_kill(turn.at, *generation, *grace)
            }
            Effect::Hook { ticket, call } => self.judge_call(turn.at, *ticket, call, answer),
            Effect::EndHook { ticket } => self.judge_hook_signal(turn, *ticket, false),
            Effect::KillHook { ticket } => self.judge_hook_signal(turn, *ticket, true),
            Effect::Report(report) => self.judge_report(turn, report, answer),
            Effect::Exit(outcome) => self.judge_exit(turn.at, outcome, answer.is_some()),
        }
    }

    fn judge_probe(&mut self, at: Moment, ticket: u64, ask: ProbeScope) -> Judgement {
        must(ticket == self.ticket + 1, "P10", "tickets count up")?;
        let drains = self.lease.lost && self.owned.is_some();
        must(self.lease.held || drains, "lease", "a probe of the port without the lease")?;
        self.leave_clearing(at)?;
        let of = match ask {
            ProbeScope::Port => None,
            ProbeScope::Listener(generation) | ProbeScope::Liveness(generation) => Some(generation),
        };
        let seeks = ask == ProbeScope::Port && self.owned.as_ref().is_some_and(Owned::may_have_successor);
        let right = of == self.owned.as_ref().map(|owned| owned.generation);
        must(right || seeks, "P2", "a probe of the wrong scope")?;
        let alone = self.asked.is_none_or(|(_, since)| at >= since + self.policy.probe_timeout);
        must(alone || self.lease.asks_again(), "loop", "two probes are under way at once")?;
        (self.ticket, self.probe, self.asked) = (ticket, ticket, Some((ask, at)));
        Ok(())
    }

    /// Whether no earlier gateway and no other process is in the way.
    pub(super) fn may_start(&self, answer: Answer<'_>) -> Judgement {
        must(self.left.is_none() && !self.adopting, "P1", "a start before the gateway of a predecessor is dealt with")?;
        must(self.ended.is_none() && self.never_started.is_none(), "P9", "a start before the last end is recorded")?;
        let free = answer.is_some_and(|(ask, sighting)| ask == ProbeScope::Port && sighting.verdict == Verdict::Free);
        must(free, "P1", "a start without a probe that found the port free")
    }

    fn owns(&self, generation: Generation) -> Option<&Owned> {
        self.owned.as_ref().filter(|owned| owned.generation == generation && !owned.gone)
    }

    fn judge_terminate(&mut self, at: Moment, generation: Generation) -> Judgement {
        let Some(owned) = self.owns(generation) else {
            return Err(Broken::new("P2", format!("SIGTERM to gateway {generation}, which is not ours")));
        };
        must(self.lease.held || self.lease.lost, "P2", "SIGTERM without the lease")?;
        // What a launcher has left is ended, and no longer looked for, in one step.
        must(owned.death.is_none_or(|(_, died)| died == at), "P2", "SIGTERM to a leader that is dead")?;
        must(owned.terminated.is_none(), "P2", "SIGTERM twice")?;
        self.decide_to_end(at)
    }

    fn judge_kill(&mut self, at: Moment, generation: Generation, grace: Duration) -> Judgement {
        let hurried = self.goal == Goal::StopNow || self.lease.lost;
        must(grace.is_zero() || !hurried, "P5", "a kill that has to be quick waits for SIGTERM")?;
        let lost = self.killed_at.is_some_and(|since| at >= since + KILL_LOST);
        // Its tree is gone, and the news of its own death may be lost.
        let missing =
            self.owned.as_ref().filter(|owned| owned.generation == generation && owned.death.is_none() && lost);
        let Some(owned) = self.owns(generation).or(missing) else {
            return Err(Broken::new("P2", format!("SIGKILL to gateway {generation}, which is not ours")));
        };
        must(self.lease.held || self.lease.lost, "P2", "SIGKILL without the lease")?;
        must(!self.killing || lost, "P2", "two kills of one tree at once")?;
        let over = self.may_escalate(at, owned);
        let why = "SIGKILL to a gateway before its stop timeout";
        must(owned.death.is_some() || owned.killed || owned.escalated || over, "P3", why)?;
        self.kills_lost += if self.killing { KILL_LOST } else { Duration::ZERO };
        (self.killing, self.killed_at) = (true, Some(at));
        if let Some(owned) = &mut self.owned {
            if owned.may_have_successor() {
                self.asked = None;
            }
            // The answer to this one is waited for as well.
            (owned.killed, owned.gone) = (true, false);
        }
        Ok(())
    }

    /// Whether the stop timeout of a drain is over.
    fn may_escalate(&self, at: Moment, owned: &Owned) -> bool {
        owned.terminated.is_some_and(|ending| {
            let silent = owned.health.silent(&self.policy).is_some_and(|silent| silent <= at);
            // A requested stop gets the stop timeout and no more.
            let stopped = self.stop.is_some_and(|(since, grace)| at >= since.saturating_add(grace));
            at >= ending.at.saturating_add(ending.grace) || silent || stopped || self.goal == Goal::StopNow
        })
    }

    /// Once the exit is decided only the sweep for stray processes runs, for a short time.
    pub(super) fn judge_sweep(&mut self, turn: &Turn<'_>, decided: Moment, answered: bool) -> Judgement {
        self.last = turn.at;
        for effect in turn.fx {
            match effect {
                Effect::Report(Report::TreeKilled { .. }) if !self.over => {}
                Effect::Exit(outcome) => self.judge_exit(decided, outcome, answered)?,
                _ => return must(false, "exit", "an effect after the decision to exit"),
            }
        }
        let finished = *turn.event == Event::SweepFinished;
        must(!finished || self.over, "exit", "the end of the sweep is ignored")?;
        let late = turn.at > decided + SWEEP_MAX + self.standstill + TICK_LATE_MAX;
        must(self.over || !late, "exit", "the sweep delays the exit for too long")
    }

    #[expect(clippy::too_many_lines, reason = "one row for each report")]
    fn judge_report(&mut self, turn: &Turn<'_>, report: &Report, answer: Answer<'_>) -> Judgement {
        let about = report.generation();
        match report {
            Report::GatewayStarted { generation, pid, .. } => {
                must(proves_start(*generation, answer), "P9", "started without a good answer from our gateway")?;
                let Some(owned) = self.owned.as_mut().filter(|owned| Some(owned.generation) == about) else {
                    return Err(Broken::new("P9", "a start of a gateway that does not run"));
                };
                let first = owned.started.is_none() && owned.pid == *pid && !owned.ending();
                must(first, "P9", "a start is reported once for each process")?;
                self.repaired = false;
                (owned.started, owned.examining) = (Some(turn.at), None);
                owned.health = Health::new(turn.at);
                owned.stalls = Stalls::default();
                Ok(())
            }
            Report::GatewayAdopted { pid, .. } => {
                let found = matches!(turn.event, Event::Adopted { .. });
                let ours =
                    self.owned.as_ref().is_some_and(|owned| Some(owned.generation) == about && owned.pid == *pid);
                must(found && ours, "P9", "the adoption of a gateway that was not found")
            }
            Report::LeaseLost { .. } => {
                self.forget_hang();
                must(self.lease.lost, "lease", "a lease is given up that is not lost")
            }
            Report::StoreUnavailable { .. } => self.judge_store(false),
            Report::StoreAvailable => self.judge_store(true),
            Report::LeaseUnconfirmed { .. } => self.judge_unconfirmed(turn.at),
            Report::StopEscalated { .. } => {
                let over = self.owned.as_ref().is_some_and(|owned| self.may_escalate(turn.at, owned));
                if let Some(owned) = &mut self.owned {
                    owned.escalated = over;
                    // A launcher ended in time, and what it had started did not.
                    owned.drained &= owned.end_reported;
                }
                must(over, "P3", "a drain is cut short before its timeout")
            }
            Report::SuccessorFound { generation, pid, .. } => self.judge_succession(turn.at, *generation, *pid, answer),
            Report::HandoffAccepted { .. }
            | Report::HandoffMissing { .. }
            | Report::HandoffRejected { .. }
            | Report::HandoffUnsupported { .. }
            | Report::HandoffTimedOut { .. } => self.judge_verdict(turn, report),
            Report::StandbyEntered { .. } | Report::StandbyLeft { .. } => self.judge_standby(turn, report),
            Report::GatewayListening { .. } => {
                let first = self.owned.as_mut().is_some_and(|owned| !std::mem::replace(&mut owned.listening, true));
                must(first, "P9", "listening is reported once")
            }
            Report::HookStarted { .. } | Report::HookTimedOut { .. } | Report::HookFinished { .. } => {
                self.judge_hook_report(turn, report)
            }
            Report::GatewayHung(_) => self.judge_hung(turn, report),
            Report::MemoryExceeded { evidence, .. } => self.judge_exceeded(turn, evidence.as_ref()),
            Report::LivenessMissed { .. } | Report::LivenessDegraded { .. } | Report::LivenessRecovered { .. } => {
                self.judge_standing(turn, report)
            }
            Report::LivenessExtended { stall, by, .. } => self.judge_extension(turn.at, stall, *by),
            Report::GatewayExited(exited) => {
                let unreported = self.owned.as_ref().is_some_and(Owned::hang_unreported);
                must(!unreported, "P9", "a gateway exits while evidence is collected, and its hang is not reported")?;
                self.cause = Some((exited.generation, exited.cause));
                let unfound = exited.cause == "the command or its interpreter was not found";
                self.unfound = unfound && self.manager.is_unready() && self.goal == Goal::Run;
                // If this event has ended the run, it is settled already.
                let Some(owned) = self.owned.as_mut().filter(|owned| Some(owned.generation) == about) else {
                    let ends = matches!(
                        turn.event,
                        Event::LeaderExited { .. }
                            | Event::HeirSought { .. }
                            | Event::TreeGone { .. }
                            | Event::Adopted { .. }
                            | Event::Tick
                    );
                    return must(ends, "P9", "an exit is reported without a gateway");
                };
                must(exited.pid == owned.pid, "P9", "the exit of another process is reported")?;
                must(!std::mem::replace(&mut owned.end_reported, true), "P9", "the exit of a gateway is reported twice")
            }
            Report::TreeKilled { generation, end } => {
                if end.survivors > 0 {
                    self.reported_survivors.insert(*generation);
                }
                if self.killing && *turn.event == Event::Tick {
                    // Nothing comes back of it, and what ends us does not wait for it any longer.
                    let leaves = self.goal >= Goal::Detach || self.lease.lost;
                    must(leaves && !self.kills_lost.is_zero(), "P1", "a kill that does not come back is given up")?;
                    self.note_tree_gone(turn.at, end);
                }
                Ok(())
            }
            Report::SupervisionPaused { period, .. } => self.judge_paused(turn, *period),
            Report::SupervisionResumed { .. } => self.judge_resumed(turn),
            Report::RestartRequested { .. } => self.judge_served(turn),
            Report::RetryRequested { .. } => {
                // For its lease the gateway is ended before the request is taken in.
                let forces = matches!(turn.event, Event::Requested { request: Request::RetryForced, .. });
                let is_ended = self.owned.as_ref().is_some_and(|owned| owned.decided);
                if forces && is_ended && self.goal == Goal::Run {
                    self.pace.force(Forced::Maybe);
                }
                Ok(())
            }
            Report::RestartScheduled { delay, .. } => {
                if matches!(turn.event, Event::Requested { request: Request::Restart, .. }) {
                    self.pace.quick.note(turn.at, !self.pace.ended_stable);
                } else if matches!(turn.event, Event::Adopted { .. }) {
                    // A request that came during the search hurries the start that follows it.
                    self.pace.quick.note(turn.at, false);
                }
                self.asked = None;
                let contended = std::mem::take(&mut self.port).contended;
                self.duty = None;
                let held = self.is_end_of_pause(turn.at + *delay);
                if self.may_pause { Ok(()) } else { self.pace.schedule(turn.at, *delay, contended, held) }
            }
            _ => Ok(()),
        }
    }

    fn judge_exit(&mut self, at: Moment, outcome: &Outcome, answered: bool) -> Judgement {
        let Outcome { code, reason } = outcome;
        must(!reason.trim().is_empty() && !reason.contains('\n'), "P7", "an exit has a reason of one line")?;
        self.over = true;
        if self.lease.lost {
            must(*code == self.policy.conflict_exit_code, "lease", "the wrong exit code for a lost lease")?;
            let ended = self.owned.as_ref().is_none_or(|owned| owned.killed || owned.gone);
            return must(ended || self.goal == Goal::Detach, "lease", "the gateway of a lost lease is left running");
        }
        if self.lease.is_refused() {
            return must(*code == exit::EX_CONFIG, "P7", "the wrong exit code for a store that is refused");
        }
        let detached = self.goal == Goal::Detach;
        let stopped = self.goal >= Goal::Stop;
        let left = self.alive.iter().filter(|(_, alive)| **alive > 0).map(|(generation, _)| *generation);
        let unreported: Vec<_> = left.filter(|left| !self.reported_survivors.contains(left)).collect();
        // One with our mark that could not be found keeps the port, and the reason names it.
        let is_named = self.missing_pid.is_some_and(|pid| reason.contains(&format!("pid {pid} ")));
        let reported = detached || is_named || self.searched_in_vain(at) || self.is_spawn_lost(at);
        must(reported || unreported.is_empty(), "P6", "processes are left and not reported")?;
        let ended = self.owned.as_ref().is_none_or(|owned| owned.end_reported);
        let unborn = self.is_spawn_lost(at);
        must(detached || ended && (!self.spawning || unborn), "P9", "an exit without the end of a spawn on record")?;
        // A gateway that survives a kill is settled by the supervisor that finds it gone.
        let survived = stopped && *code == exit::FAILURE || detached && !self.kills_lost.is_zero();
        must(survived || self.ended.is_none() && self.never_started.is_none(), "P9", "an end that is not recorded")?;
        if unborn {
            return must(*code == exit::FAILURE, "P7", "the wrong exit code beside a start that did not come back");
        }
        must(
            (*code == exit::OK || stopped) == (stopped || detached),
            "P7",
            "exit code 0 means a requested stop or detach",
        )?;
        match *code {
            exit::OK => Ok(()),
            exit::FAILURE if stopped => {
                let unread = self.lease.may_bring_gateway() || self.lease.fails(at) || self.lease.is_unread();
                let left =
                    self.owned.is_some() || !self.reported_survivors.is_empty() || self.searched_in_vain(at) || unread;
                must(left, "P7", "exit code 1 though no process is left")
            }
            exit::FAILURE => {
                let store = self.lease.fails(at) || self.fence.gave_up(at);
                let reason = self.duty == Some(Duty::Blind) || store || self.searched_in_vain(at);
                must(reason, "P7", "exit code 1 without a reason")
            }
            code if self.lease.yields() => {
                must(code == self.policy.conflict_exit_code, "P7", "the wrong exit code for a conflict")
            }
            exit::GAVE_UP if !stopped => {
                must(!self.holds(), "handoff", "gave up before the verdict on the last exit")?;
                self.pace.give_up(at)
            }
            _ if stopped => must(false, "P5", "a stop exits with 0, or with 1 if a process is left"),
            _ if self.duty == Some(Duty::Conflict) && answered => Ok(()),
            exit::EX_CONFIG => {
                let refused = self.pace.refused && self.duty == Some(Duty::MayStart) && !self.port.contended;
                let absent = !self.has_run && self.owned.is_none() && self.pace.pending.is_some();
                let unrepaired = refused && self.policy.repair.is_some() && !self.repaired;
                must(!unrepaired, "P7", "exit code 78 without the configured repair")?;
                must(
                    refused || absent || self.unfound,
                    "P7",
                    "exit code 78 without a conflict, a refusal or a missing program",
                )
            }
            _ => must(false, "P7", "an unknown exit code"),
        }
    }

    /// Whether a start has not come back for so long that it need not be waited for.
    fn is_spawn_lost(&self, at: Moment) -> bool {
        let patience = if self.goal >= Goal::Detach { SPAWN_LAST } else { SPAWN_LOST + SPAWN_LAST };
        self.spawning && self.spawned_at.is_some_and(|(since, _)| at >= since + patience)
    }

    /// Answers of the shell that are lost are not waited for without end.
    fn judge_lost_answers(&self, turn: &Turn<'_>) -> Judgement {
        let late = move |due: Moment| turn.at > due + self.standstill + TICK_LATE_MAX;
        let spawned = self.spawned_at.filter(|_| self.spawning && !self.fence.waits());
        let endless = spawned.is_some_and(|(_, since)| late(since + SPAWN_LOST + SPAWN_LAST + LATE));
        must(!endless, "owed", "a start that does not come back is waited for without end")?;
        let endless = self.killed_at.filter(|_| self.killing).is_some_and(|since| late(since + KILL_LOST));
        must(!endless, "owed", "a kill that does not come back is not done again")
    }

    /// A gateway answers where ours has just exited, and its process was not found.
    fn may_be_successor(&self, at: Moment, answer: Answer<'_>) -> bool {
        let unseen = answer.is_some_and(|(_, sighting)| {
            matches!((&sighting.owner, sighting.verdict), (Owner::Unseen, Verdict::Gateway(_)))
        });
        let left = |owned: &Owned| owned.death.is_some_and(|(_, died)| at < died + SUCCESSOR_TIME);
        unseen && self.goal == Goal::Run && self.owned.as_ref().is_some_and(left)
    }

    /// What an answer requires in the same step.
    pub(super) fn judge_answer(&self, turn: &Turn<'_>, answer: Answer<'_>) -> Judgement {
        let Some((ask, _)) = answer else { return Ok(()) };
        if self.ends() || self.must_hurry(turn) {
            return Ok(());
        }
        if ask == ProbeScope::Port && self.duty == Some(Duty::Succeed) {
            let kills = turn.fx.iter().any(|effect| matches!(effect, Effect::KillTree { .. }));
            must(!kills, "P3", "the successor of our gateway is killed")?;
            return must(self.adopting, "P8", "the successor of our gateway is not adopted");
        }
        if ask == ProbeScope::Port && self.may_be_successor(turn.at, answer) {
            let kills = turn.fx.iter().any(|effect| matches!(effect, Effect::KillTree { .. }));
            must(!kills, "P3", "what may be the successor of our gateway is killed without a second look")?;
        }
        if ask == ProbeScope::Port {
            must(self.duty != Some(Duty::Adopt), "P8", "a gateway of ours holds the port and is not adopted")?;
            let gone = matches!(self.duty, Some(Duty::Conflict | Duty::Blind));
            return must(!gone, "conflict", "another process keeps the port and we do not exit in time");
        }
        let missed = self
            .owned
            .as_ref()
            .is_some_and(|owned| owned.started.is_none() && !owned.ending() && proves_start(owned.generation, answer));
        must(!missed, "P9", "a gateway that has come up is not reported").and_then(|()| {
            let stale = turn.fx.iter().any(|effect| matches!(effect, Effect::Record { .. }));
            must(!stale, "P1", "a spawn although the probe found a gateway")
        })
    }

    /// What a request requires in the same step. `was` is the gateway before the step.
    pub(super) fn judge_request(&self, turn: &Turn<'_>, was: Option<&Owned>) -> Judgement {
        let Event::Requested { request, .. } = turn.event else { return Ok(()) };
        let harder = match request {
            Request::Restart | Request::RestartForced => self.goal == Goal::Restart,
            Request::Retry | Request::RetryForced => false,
            Request::Detach => self.goal == Goal::Detach,
            Request::Stop => self.goal >= Goal::Stop,
        };
        if !harder {
            return Ok(());
        }
        let signalled =
            turn.fx.iter().any(|effect| matches!(effect, Effect::Terminate { .. } | Effect::KillTree { .. }));
        let waits = self.fence.waits();
        match was {
            // It was ended first.
            Some(was) if *request == Request::Detach && !was.ending() && self.must_hurry(turn) => Ok(()),
            Some(was) if *request == Request::Detach && !was.ending() => {
                must(!signalled && self.ends(), "detach", "a detach exits and leaves the gateway alone")
            }
            Some(was) if !was.ending() => {
                must(signalled || waits, "request", "a request does not reach the gateway at once")
            }
            Some(_) if self.goal == Goal::StopNow && !self.ends() && !waits => {
                let waits = self.owned.as_ref().is_some_and(|owned| owned.death.is_none() && !owned.killed);
                must(!waits, "P5", "a second stop does not act at once")
            }
            None if *request == Request::Stop && self.goal == Goal::Stop && self.lease.may_bring_gateway() => {
                must(!self.ends(), "P6", "a stop does not wait for what is on record")
            }
            None if !matches!(request, Request::Restart | Request::RestartForced)
                && !self.spawning
                && !self.adopting
                && !self.clearing
                && self.hook_run.is_none() =>
            {
                must(self.ends(), "P5", "a stop waits although there is no gateway")
            }
            Some(_) | None => Ok(()),
        }
    }

    /// What must have been done by now.
    pub(super) fn judge_time(&mut self, turn: &Turn<'_>) -> Judgement {
        if self.ends() {
            return Ok(());
        }
        self.judge_lost_answers(turn)?;
        let killing =
            self.killed_at.filter(|_| self.killing).map_or(Duration::ZERO, |since| turn.at.saturating_sub(since));
        let lost = self.kills_lost + killing.saturating_sub(KILL_MAX);
        let now =
            turn.at.saturating_sub(self.suspended).saturating_sub(self.fence.held_up(turn.at)).saturating_sub(lost);
        let past = move |due: Moment| now > due.saturating_add(ACT_MAX + TICK_LATE_MAX);
        if let Some((since, grace)) = self.stop {
            let drained = since.saturating_add(grace).saturating_add(SPAWN_MAX);
            let idle = self.owned.as_ref().is_some_and(|owned| owned.death.is_none() && !owned.killed);
            must(!(idle && past(drained)), "P5", "a stop waits for longer than the stop timeout")?;
            // One kill may be under way, then a pause of 5 s, then the kill of the stop itself.
            let by = drained.saturating_add(KILL_MAX * 2 + NEWS_MAX + Duration::from_secs(5) + self.hook_time());
            must(!past(by), "P5", "a stop takes longer than the stop timeout and a bounded kill")?;
        }
        let due = self.owned.as_ref().and_then(|owned| self.due(owned)).or(self.hook_due());
        let due = due.filter(|_| !self.fence.waits());
        let awake = due.is_none_or(|due| {
            let latest = due.max(turn.at).saturating_add(ACT_MAX);
            turn.after.is_some_and(|after| after <= latest)
        });
        must(awake, "hang", "no deadline for the next signal to a gateway or a hook")?;
        let since = due.is_some_and(|due| due <= turn.at).then(|| *self.overdue.get_or_insert(turn.at));
        self.overdue = since;
        let why = "no action on a gateway that hangs, drains too long or silently, or survived a kill";
        must(!since.is_some_and(past), "hang", why)
    }

    /// When the next signal to the gateway is due without a request.
    fn due(&self, owned: &Owned) -> Option<Moment> {
        let policy = &self.policy;
        match (owned.terminated, owned.started) {
            _ if owned.death.is_some() || owned.gone || self.killing => None,
            _ if owned.killed => owned.survived.map(|at| at.saturating_add(KILL_AGAIN_MAX)),
            (Some(Ending { at, grace }), _) => {
                owned.health.silent(policy).into_iter().chain([at.saturating_add(grace)]).min()
            }
            (None, _) if self.is_paused() => None,
            (None, _) if let Some(examination) = owned.examining => Some(examination.until()),
            (None, None) => {
                let budget = owned.armed.saturating_add(policy.startup_timeout);
                if owned.life.is_degraded() {
                    owned.life.is_due(policy).map(|over| budget.max(over))
                } else {
                    Some(budget)
                }
            }
            (None, Some(_)) => {
                let weighed = owned.weighing.map(Examination::until);
                weighed.into_iter().chain(owned.health.proven(policy)).min()
            }
        }
    }

    /// There is always a deadline, for every answer may be lost, and no busy loop.
    pub(super) fn judge_rhythm(&mut self, turn: &Turn<'_>) -> Judgement {
        if *turn.event == Event::Tick {
            self.ticks.push_back(turn.at);
            if self.ticks.len() > TICKS_MAX {
                let first = self.ticks.pop_front();
                let calm = first.is_none_or(|first| turn.at > first + Duration::from_secs(1));
                must(calm, "loop", "a busy loop")?;
            }
        }
        let dying = self.owned.as_ref().is_some_and(|owned| owned.gone && owned.death.is_none());
        let Some(deadline) = turn.after else {
            return must(self.over || !self.lease.begun, "owed", "no deadline");
        };
        must(!self.over, "exit", "a deadline after the exit")?;
        // While a probe is open the next deadline is at the latest when its answer counts as lost.
        let probing = !self.killing && !self.spawning && !dying && !self.ends() && self.asked.is_some();
        let probing = probing && !self.fence.waits();
        let patience = self.policy.probe_timeout.saturating_add(Duration::from_secs(5));
        let polled = if self.lease.stands_by() { STORE_LOST } else { patience };
        must(!probing || deadline <= turn.at + polled, "owed", "a lost probe is never repeated")
    }
}
