//! Starts wait for the store: a spawn for its record and, under a heartbeat lease, spawns and hooks for a fresh
//! confirmation. A signal to our own gateway waits for nothing.

use super::steps::Answer;
use super::{Effect, Ending, Event, Generation, Goal, Judge, Moment, Owned, TICK_LATE_MAX, Turn, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::Report;
use openclaw_supervise_core::lease::{
    Basis, CONFIRMED_FOR, FRESH_FOR, KILLED_BY, LOST_DRAIN, RECORD_MAX, RETURN_MAX, UNCHANGED_FOR,
};
use openclaw_supervise_core::policy::OnStoreLost;
use std::time::Duration;

type Judgement = Result<(), Broken>;

#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent facts; any combination happens")]
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
    /// When the write of the last confirmation began, less what was slept over since; since when it has been reported to be
    /// too old.
    vouched: Moment,
    /// The store was reported to be unavailable.
    unavailable: bool,
    unconfirmed: Option<Moment>,
}

impl Fence {
    pub(super) fn enter_lease(&mut self, at: Moment, basis: Basis) {
        self.is_heartbeat = basis == Basis::Heartbeat;
        if self.vouched == Moment::ZERO {
            self.vouched = at;
        }
    }

    /// Whether the wait for a confirmation may be given up.
    pub(super) fn gave_up(&self, at: Moment) -> bool {
        self.unconfirmed.is_some_and(|since| at >= since + RETURN_MAX)
    }

    pub(super) fn ticket(&self) -> u64 {
        self.ticket
    }

    /// Whether an act waits, so that no other is due.
    pub(super) fn waits(&self) -> bool {
        self.since.is_some()
    }

    /// Whether nothing may be started.
    pub(super) fn is_unconfirmed(&self) -> bool {
        self.unconfirmed.is_some()
    }

    /// Whether any answer of the store is news.
    pub(super) fn is_unavailable(&self) -> bool {
        self.unavailable
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
            Event::LeaseConfirmed { age } => {
                self.vouched = self.vouched.max(at.saturating_sub(*age));
                self.unconfirmed = self.unconfirmed.filter(|_| *age >= CONFIRMED_FOR);
            }
            Event::ClockJumped { by } => {
                self.vouched = self.vouched.saturating_sub(*by);
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
        must(self.fence.unconfirmed.is_none(), "lease", "a start although the lease is unconfirmed")?;
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
        must(self.hook_run.is_some(), "P6", "a signal to a gateway waits for the store")?;
        self.fence.free = self.may_start(answer).is_ok();
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
        self.spawned_at = Some((at, at));
        self.judge_act(at)
    }

    /// Whether the start was allowed when it was decided.
    pub(super) fn may_call(&self, answer: Answer<'_>) -> Judgement {
        if self.fence.waits() {
            return must(self.fence.free, "P1", "a start without a probe that found the port free");
        }
        self.may_start(answer)
    }

    /// Whether the lease is ours for only as long as the store confirms it.
    pub(super) fn is_watched(&self) -> bool {
        let asked = self.policy.on_store_lost == Some(OnStoreLost::Stop);
        self.lease.held && (self.fence.is_heartbeat || asked)
    }

    /// Whether a gateway of an unconfirmed lease has to end.
    fn stops_unconfirmed(&self) -> bool {
        let usual = if self.fence.is_heartbeat { OnStoreLost::Stop } else { OnStoreLost::Keep };
        self.is_watched() && self.policy.on_store_lost.unwrap_or(usual) == OnStoreLost::Stop
    }

    /// When SIGKILL is due to the tree of a gateway whose lease is unconfirmed or lost.
    fn kill_due(&self) -> Option<Moment> {
        let unconfirmed = self.fence.unconfirmed.filter(|_| self.stops_unconfirmed());
        self.lease.lost_at.map(|at| at + LOST_DRAIN).or(unconfirmed.map(|_| self.fence.vouched + KILLED_BY))
    }

    /// Whether the age of the confirmation requires something now.
    pub(super) fn is_confirmation_due(&self, at: Moment) -> bool {
        let old = self.is_watched() && self.fence.unconfirmed.is_none() && at >= self.fence.vouched + CONFIRMED_FOR;
        !self.ends() && (old || self.fence.gave_up(at) || self.kill_due().is_some_and(|due| at >= due))
    }

    /// The answer to a probe that is the first news after the lease has become unconfirmed comes too late: the start that
    /// it was for waits, or the gateway ends.
    pub(super) fn drop_late_answer(&mut self, at: Moment, event: &Event) {
        let old = self.is_watched() && self.fence.unconfirmed.is_none() && at >= self.fence.vouched + CONFIRMED_FOR;
        let is_moot = match &self.owned {
            Some(owned) => !owned.ending() && self.stops_unconfirmed(),
            None => !self.lease.stands_by(),
        };
        if matches!(event, Event::Probed { .. }) && old && is_moot && !self.ends() {
            self.asked = None;
        }
    }

    /// Whether a kill need not wait for anything in this step.
    pub(super) fn must_hurry(&self, turn: &Turn<'_>) -> bool {
        let reports = |effect: &Effect| matches!(effect, Effect::Report(Report::LeaseUnconfirmed { .. }));
        self.kill_due().is_some() || turn.fx.iter().any(reports)
    }

    /// A drain that has begun gets no more time than that.
    pub(super) fn shorten_end(&mut self, at: Moment) {
        let due = self.kill_due();
        if let (Some(due), Some(Owned { terminated: Some(ending), .. })) = (due, &mut self.owned) {
            ending.grace = ending.grace.min(due.max(at).saturating_sub(ending.at));
        }
    }

    /// Judges the reports of the store's trouble: one for each change.
    pub(super) fn judge_store(&mut self, is_available: bool) -> Judgement {
        let was = std::mem::replace(&mut self.fence.unavailable, !is_available);
        must(was == is_available, "lease", "trouble of the store is reported twice, or its end without it")
    }

    /// A gateway that is ended for the lease is not ended for a hang.
    pub(super) fn forget_hang(&mut self) {
        if let Some(owned) = &mut self.owned {
            owned.examining = None;
            owned.weighing = owned.weighing.filter(|_| owned.is_over_limit());
        }
    }

    /// Judges the report that the store does not confirm the lease.
    pub(super) fn judge_unconfirmed(&mut self, at: Moment) -> Judgement {
        let due = self.is_watched() && at >= self.fence.vouched + CONFIRMED_FOR;
        must(due && self.fence.unconfirmed.is_none(), "lease", "a lease counts as unconfirmed too early, or twice")?;
        self.fence.unconfirmed = Some(at);
        if self.stops_unconfirmed() {
            self.forget_hang();
        }
        if self.spawning && self.fence.waits() {
            // The start is taken back.
            (self.spawning, self.postponed) = (false, Some(self.generation));
            self.fence.take_back();
            self.pace.withdraw();
            if self.goal == Goal::Restart {
                self.goal = Goal::Run;
            }
        }
        if self.owned.is_none() && !self.lease.stands_by() {
            self.asked = None;
        }
        self.shorten_end(at);
        Ok(())
    }

    /// What a lease that is unconfirmed or lost requires by the end of the step.
    pub(super) fn judge_confirmation(&self, turn: &Turn<'_>) -> Judgement {
        let at = turn.at;
        if self.ends() {
            return Ok(());
        }
        let fresh = matches!(turn.event, Event::LeaseConfirmed { age } if *age < CONFIRMED_FOR);
        let due = self.is_watched() && at >= self.fence.vouched + CONFIRMED_FOR + TICK_LATE_MAX + self.standstill;
        must(!due || fresh || self.fence.unconfirmed.is_some(), "lease", "an unconfirmed lease is not reported")?;
        let Some(kill) = self.kill_due() else { return Ok(()) };
        let Some(owned) = self.owned.as_ref().filter(|owned| owned.death.is_none() && !owned.killed) else {
            return Ok(());
        };
        must(owned.ending(), "lease", "a gateway goes on without a confirmed lease")?;
        let awake = turn.after.is_some_and(|after| after <= kill.max(at));
        must(awake, "lease", "no deadline for the kill of a gateway without a confirmed lease")?;
        must(at < kill + TICK_LATE_MAX, "lease", "a gateway without a confirmed lease drains for too long")
    }

    /// Each wait is bounded.
    pub(super) fn judge_fence(&self, turn: &Turn<'_>) -> Judgement {
        let Some(since) = self.fence.since.filter(|_| !self.ends()) else { return Ok(()) };
        // A hook waits for as long as the store may be away.
        let patience = if self.fence.is_heartbeat { RETURN_MAX + UNCHANGED_FOR * 4 } else { RECORD_MAX };
        let late = turn.at > since + patience + self.standstill + TICK_LATE_MAX;
        must(!late, "owed", "an act waits for the store without a bound")
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
        let due = self.kill_due();
        let why = "SIGTERM without a request, a memory limit, a proven hang with evidence, or the loss of the lease";
        must(asked || proven || due.is_some(), "P3", why)?;
        must(!owned.hang_unreported(), "P9", "a gateway is stopped for a hang that was not reported")?;
        let hung = owned.examining.is_some() && due.is_none();
        let grace = if hung { policy.hung_stop_timeout } else { policy.stop_timeout };
        let grace = due.map_or(grace, |due| grace.min(due.max(at).saturating_sub(at)));
        self.asked = None;
        if let Some(owned) = &mut self.owned {
            owned.withdrawn = due.is_some();
            owned.requested = asked && !proven && owned.examining.is_none() && due.is_none();
            (owned.terminated, owned.decided) = (Some(Ending { at, grace }), true);
            owned.health.rearm(at);
            owned.unheard = owned.launcher.is_some() || owned.listener.is_some_and(|listener| listener != owned.pid);
        }
        Ok(())
    }
}
