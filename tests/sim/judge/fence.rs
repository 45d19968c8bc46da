//! Irreversible acts wait for the store: a spawn for its record and, under a heartbeat lease, every act for a fresh
//! confirmation.

use super::steps::Answer;
use super::{Ending, Event, Generation, Goal, Judge, Moment, TICK_LATE_MAX, Turn, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::lease::{Basis, FRESH_FOR, RECORD_MAX, UNCHANGED_FOR};
use std::time::Duration;

type Judgement = Result<(), Broken>;

#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Fence {
    pub(super) is_heartbeat: bool,
    /// The waiting spawn, and whether it is recorded.
    record: Option<(Generation, bool)>,
    /// Since when an act waits.
    since: Option<Moment>,
    /// The youngest request for a confirmation: its ticket, its time, and how long the machine was suspended since.
    ticket: u64,
    asked: Option<(Moment, Duration)>,
    /// The current event confirms it in time.
    confirmed: bool,
    /// A start was allowed when its hook was ordered.
    free: bool,
    /// How long acts have waited in total.
    waited: Duration,
}

impl Fence {
    pub(super) fn enter_lease(&mut self, basis: Basis) {
        self.is_heartbeat = basis == Basis::Heartbeat;
    }

    pub(super) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Whether an act waits, so that no other is due.
    pub(super) fn waits(&self) -> bool {
        self.since.is_some()
    }

    pub(super) fn records(&self, generation: Generation) -> bool {
        self.record == Some((generation, false))
    }

    pub(super) fn awaits(&self, ticket: u64) -> bool {
        self.ticket == ticket && self.asked.is_some()
    }

    /// How much longer a stop may take because acts waited.
    pub(super) fn held_up(&self, at: Moment) -> Duration {
        self.waited + self.since.map_or(Duration::ZERO, |since| at.saturating_sub(since))
    }

    pub(super) fn rearm(&mut self, at: Moment) {
        self.waited = self.held_up(at);
        self.since = self.since.map(|_| at);
    }

    pub(super) fn take_back(&mut self) {
        (self.record, self.since, self.asked) = (None, None, None);
    }

    pub(super) fn note(&mut self, at: Moment, event: &Event) {
        self.confirmed = false;
        match event {
            Event::Recorded { generation } if self.records(*generation) => self.record = Some((*generation, true)),
            Event::Confirmed { ticket } if *ticket == self.ticket => {
                if let Some((asked, slept)) = self.asked.take() {
                    self.confirmed = at.saturating_sub(asked).saturating_add(slept) <= FRESH_FOR;
                }
            }
            Event::ClockJumped { by } => {
                self.asked = self.asked.map(|(asked, slept)| (asked, slept.saturating_add(*by)));
            }
            _ => {}
        }
    }
}

impl Judge {
    /// Judges the request for a spawn record: all conditions of the spawn must hold now.
    pub(super) fn judge_record_asked(&mut self, at: Moment, generation: Generation, answer: Answer<'_>) -> Judgement {
        must(self.lease.held, "P1", "a spawn without the lease")?;
        must(!self.unfound, "P4", "a command that was not found is started again")?;
        let prepared = self.prepared || self.policy.pre_start.is_none();
        must(prepared, "P1", "a spawn without a successful pre-start hook")?;
        self.may_start(answer)?;
        must(self.hook_run.is_none(), "P1", "a spawn while a hook runs")?;
        self.prepared = false;
        must(self.owned.is_none() && !self.spawning, "P1", "a spawn while a gateway is not gone")?;
        let left = self.alive.iter().find(|(old, alive)| **alive > 0 && !self.reported_survivors.contains(old));
        must(left.is_none(), "P1", "a spawn while processes of an older tree are left")?;
        must(generation == self.generation + 1, "P2", "generations count up")?;
        must(self.goal <= Goal::Restart, "P5", "a spawn after a stop or a detach")?;
        self.pace.spawn(at)?;
        self.generation = generation;
        self.spawning = true;
        (self.port, self.duty) = (super::PortWatch::default(), None);
        (self.fence.record, self.fence.since) = (Some((generation, false)), Some(at));
        Ok(())
    }

    /// Judges the request to confirm the lease for a waiting act.
    pub(super) fn judge_confirm(&mut self, at: Moment, ticket: u64, answer: Answer<'_>) -> Judgement {
        must(self.fence.is_heartbeat && self.lease.held, "P2", "a lock needs no confirmation")?;
        must(ticket == self.fence.ticket + 1, "P10", "tickets count up")?;
        must(self.fence.record.is_none_or(|(_, recorded)| recorded), "P8", "a spawn proceeds without its record")?;
        (self.fence.ticket, self.fence.asked) = (ticket, Some((at, Duration::ZERO)));
        if self.fence.since.is_some() {
            return Ok(());
        }
        self.fence.since = Some(at);
        if self.hook_run.is_some() {
            self.fence.free = self.may_start(answer).is_ok();
        } else if let Some(owned) = self.owned.as_ref() {
            if owned.ending() {
                // The search for a successor is over.
                self.asked = self.asked.filter(|_| !owned.may_have_successor());
            } else {
                self.decide_to_end(at)?;
                if let Some(owned) = &mut self.owned {
                    owned.held = true;
                }
            }
        }
        Ok(())
    }

    /// Judges an irreversible act.
    pub(super) fn judge_act(&mut self, at: Moment) -> Judgement {
        let confirmed = !self.fence.is_heartbeat || self.fence.confirmed;
        must(confirmed, "P2", "an act on a lease that is unconfirmed, or whose confirmation has expired")?;
        self.fence.waited = self.fence.held_up(at);
        (self.fence.since, self.fence.record, self.fence.asked) = (None, None, None);
        Ok(())
    }

    pub(super) fn judge_spawn(&mut self, at: Moment, generation: Generation) -> Judgement {
        let Some((of, recorded)) = self.fence.record else {
            return must(false, "P8", "a spawn without a requested record");
        };
        must(of == generation && self.spawning, "P2", "a spawn under another generation")?;
        must(self.goal <= Goal::Restart, "P5", "a spawn after a stop or a detach")?;
        let in_time = self.fence.since.is_some_and(|since| at < since + RECORD_MAX);
        must(recorded || !in_time && !self.fence.is_heartbeat, "P8", "a spawn without its record")?;
        self.judge_act(at)
    }

    /// Whether the start was allowed when it was decided.
    pub(super) fn may_call(&self, answer: Answer<'_>) -> Judgement {
        if self.fence.waits() {
            return must(self.fence.free, "P1", "a start without a probe that found the port free");
        }
        self.may_start(answer)
    }

    /// Judges giving up the lease because the store does not confirm it.
    pub(super) fn judge_loss(&mut self, at: Moment) -> Judgement {
        if self.lease.lost {
            return Ok(());
        }
        let since = self.fence.since.filter(|_| self.fence.is_heartbeat);
        let long = since.is_some_and(|since| at >= since + UNCHANGED_FOR);
        must(long, "lease", "a lease is given up while it may still be confirmed")?;
        (self.lease.held, self.lease.lost) = (false, true);
        Ok(())
    }

    /// Each wait is bounded.
    pub(super) fn judge_fence(&self, turn: &Turn<'_>) -> Judgement {
        let Some(since) = self.fence.since.filter(|_| !self.ends()) else { return Ok(()) };
        let patience = if self.fence.is_heartbeat { UNCHANGED_FOR } else { RECORD_MAX };
        let late = turn.at > since + patience + self.standstill + TICK_LATE_MAX;
        must(!late, "owed", "an act waits for the store without a bound")
    }

    /// Whether the lease was lost or given up.
    pub(crate) fn lost_lease(&self) -> bool {
        self.lease.lost
    }

    pub(crate) fn confirm_ticket(&self) -> u64 {
        self.fence.ticket()
    }

    /// Judges the decision to send SIGTERM.
    pub(super) fn decide_to_end(&mut self, at: Moment) -> Judgement {
        let Some(owned) = &self.owned else { return Ok(()) };
        let policy = &self.policy;
        let asked = matches!(self.goal, Goal::Restart | Goal::Stop | Goal::StopNow);
        let proven = owned.is_examined(at) || owned.is_over_limit();
        must(asked || proven, "P3", "SIGTERM without a request, a memory limit, or a proven hang with evidence")?;
        must(!owned.hang_unreported(), "P9", "a gateway is stopped for a hang that was not reported")?;
        let hung = owned.examining.is_some();
        let grace = if hung { policy.hung_stop_timeout } else { policy.stop_timeout };
        self.asked = None;
        if let Some(owned) = &mut self.owned {
            (owned.terminated, owned.decided) = (Some(Ending { at, grace }), true);
            owned.health.rearm(at);
            owned.unheard = owned.launcher.is_some() || owned.listener.is_some_and(|listener| listener != owned.pid);
        }
        Ok(())
    }
}
