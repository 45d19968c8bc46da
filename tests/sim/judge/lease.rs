//! The lease: no effect without it, and standby until it is free.

use super::{Effect, Event, Judge, Moment, Observation, Owned, PortWatch, ProbeScope, Turn, Verdict, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::lease::UNCHANGED_FOR;
use openclaw_supervise_core::policy::OnConflict;
use openclaw_supervise_core::{Generation, LeaseAnswer, LeaseRequest, OwnerPlan, Report};
use std::collections::VecDeque;
use std::time::Duration;

/// How long lease and port must have been free before a standby supervisor takes over.
const QUIET: Duration = Duration::from_secs(15);

/// How long a watched process is not looked at.
const WATCHED_MAX: Duration = Duration::from_mins(5);

/// The answer of an owner is lost after this time.
const PLAN_LOST: Duration = Duration::from_secs(3);

/// The longest pause between two attempts on the lease of an owner that is stopping.
const RETRY_MAX: Duration = Duration::from_secs(1);

/// An answer of the store is lost after this time.
pub(super) const STORE_LOST: Duration = Duration::from_secs(30);

/// More requests for the lease than this in one second are a busy loop.
const ASKS_MAX: usize = 10;

/// What an event about the lease requires in the same step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeaseDuty {
    /// A live supervisor has the lease: exit or stand by.
    Yield,
    /// It has to be asked whether it is stopping.
    AskOwner,
    /// It is stopping: neither exit nor take anything.
    Wait,
    /// Another supervisor has it, and a stop waited for the answer: exit.
    StandAside,
    /// The lease is lost or cannot be taken: exit.
    Go,
    /// It is refused: exit, and say that another start will not help.
    GoForGood,
    /// Adopt what a predecessor left.
    Adopt(Generation),
    /// Probe the port.
    Look,
    /// The watched process has exited: check lease and port.
    ProbeScope,
}

#[derive(Debug, Clone, Copy, Default)]
struct Waiting {
    watching: Option<i32>,
    quiet: Option<Moment>,
    /// A probe found a gateway of ours.
    ours: bool,
    /// A restart or retry was requested.
    wait_skipped: bool,
}

#[derive(Debug, Clone, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are told apart in time, and several hold at once")]
pub(super) struct LeaseState {
    pub(super) begun: bool,
    pub(super) held: bool,
    /// It was ours and was lost, and when.
    pub(super) lost: bool,
    pub(super) lost_at: Option<Moment>,
    pub(super) asked: Option<(u64, Moment)>,
    /// The owner is being asked whether it is stopping, since then.
    pub(super) owner_asked: Option<(u64, Moment)>,
    /// The owner that is stopping, and when it has to be gone.
    stopping: Option<(Option<i32>, Moment)>,
    /// The owner that the store named last.
    owner: Option<i32>,
    /// The heartbeat counter of the owner, and since when it has not changed.
    seen: Option<(u64, Moment)>,
    waiting: Option<Waiting>,
    duty: Option<LeaseDuty>,
    /// The store could not say what is on record.
    unread: bool,
    asks: VecDeque<Moment>,
}

impl LeaseState {
    /// A request to retry at once.
    pub(super) fn skip_wait(&mut self) {
        if let Some(waiting) = &mut self.waiting {
            waiting.wait_skipped = true;
        }
    }

    pub(super) fn rearm(&mut self, at: Moment) {
        self.asked = self.asked.map(|(ticket, _)| (ticket, at));
        self.owner_asked = self.owner_asked.map(|(ticket, _)| (ticket, at));
        self.seen = self.seen.map(|(beat, _)| (beat, at));
        if let Some(waiting) = &mut self.waiting {
            waiting.quiet = waiting.quiet.map(|_| at);
        }
    }

    pub(super) fn stands_by(&self) -> bool {
        self.waiting.is_some()
    }

    /// Whether the store is about to say what is on record.
    pub(super) fn may_bring_gateway(&self) -> bool {
        self.asked.is_some() && self.waiting.is_none()
    }

    pub(super) fn is_unread(&self) -> bool {
        self.unread
    }

    /// The process whose exit it waits for.
    pub(super) fn watches(&self) -> Option<i32> {
        self.waiting.and_then(|waiting| waiting.watching)
    }

    /// Whether this step showed that another supervisor has the lease or the port.
    pub(super) fn yields(&self) -> bool {
        self.duty == Some(LeaseDuty::Yield)
    }

    /// Whether this step showed that the watched process has exited: an answer under way may be older than that.
    pub(super) fn asks_again(&self) -> bool {
        self.duty == Some(LeaseDuty::ProbeScope)
    }

    /// Whether this step showed that no start can take the lease.
    pub(super) fn is_refused(&self) -> bool {
        self.duty == Some(LeaseDuty::GoForGood)
    }

    /// Whether this step showed that the lease cannot be taken.
    pub(super) fn fails(&self, at: Moment) -> bool {
        self.duty == Some(LeaseDuty::Go) || self.asked.is_some_and(|(_, since)| at >= since + STORE_LOST)
    }
}

impl Judge {
    pub(super) fn note_lease_event(&mut self, at: Moment, event: &Event) {
        self.lease.duty = None;
        match event {
            Event::Start => self.lease.begun = true,
            Event::Leased { ticket, answer } if self.lease.asked.is_some_and(|(asked, _)| asked == *ticket) => {
                self.lease.asked = None;
                self.note_lease(at, answer);
            }
            Event::OwnerAsked { ticket, plan } if self.lease.owner_asked.is_some_and(|(asked, _)| asked == *ticket) => {
                self.lease.owner_asked = None;
                self.lease.duty = Some(match plan {
                    OwnerPlan::Ends(within) => {
                        self.lease.stopping = Some((self.lease.owner, at + *within));
                        LeaseDuty::Wait
                    }
                    OwnerPlan::Stays | OwnerPlan::Unknown => LeaseDuty::Yield,
                });
            }
            Event::Tick if self.lease.owner_asked.is_some_and(|(_, since)| at >= since + PLAN_LOST) => {
                (self.lease.owner_asked, self.lease.duty) = (None, Some(LeaseDuty::Yield));
            }
            Event::LeaseLost { .. } if self.lease.held => {
                (self.lease.held, self.lease.lost, self.lease.duty) = (false, true, Some(LeaseDuty::Go));
                self.lease.lost_at = Some(at);
            }
            Event::HooksCleared { trouble }
                if self.clearing && (trouble.is_none() || self.goal >= super::Goal::Detach) =>
            {
                self.clearing = false;
                self.lease.duty = Some(self.left.map_or(LeaseDuty::Look, |left| LeaseDuty::Adopt(left.generation)));
            }
            Event::HooksCleared { .. } if self.clearing => self.search.failed = true,
            Event::Departed { pid } if self.lease.watches() == Some(*pid) => {
                if let Some(waiting) = &mut self.lease.waiting {
                    waiting.watching = None;
                }
                self.lease.duty = Some(LeaseDuty::ProbeScope);
            }
            _ => {}
        }
    }

    fn note_lease(&mut self, at: Moment, answer: &LeaseAnswer) {
        if let LeaseAnswer::Acquired(acquired) = answer
            && self.lease.waiting.is_none()
        {
            self.recall_streak(&acquired.past.runs);
        }
        let lease = &mut self.lease;
        let seen = lease.seen.take();
        if let LeaseAnswer::Unclear { beat, .. } = answer {
            lease.seen = seen.filter(|(before, _)| before == beat).or(Some((*beat, at)));
        }
        if let Some(waiting) = &mut lease.waiting {
            let free = *answer == LeaseAnswer::Free;
            waiting.watching = waiting.watching.filter(|_| free);
            waiting.quiet = if free { waiting.quiet.or(Some(at)) } else { None };
            return;
        }
        lease.duty = match answer {
            LeaseAnswer::Acquired(acquired) => {
                lease.held = true;
                lease.unread = acquired.trouble.is_some() && acquired.past.generation == 0;
                self.fence.enter_lease(at, acquired.basis);
                let past = &acquired.past;
                self.generation = self.generation.max(past.generation);
                self.left = past.left;
                self.pace.recall(&past.runs);
                if self.policy.attended {
                    self.pace.quick.forget();
                }
                if let Some(left) = past.left {
                    self.pace.count(left.spawned);
                    self.pace.recall_crash_loop(false);
                }
                Some(past.left.map_or(LeaseDuty::Look, |left| LeaseDuty::Adopt(left.generation)))
            }
            LeaseAnswer::Contended { .. } | LeaseAnswer::Unclear { .. } if self.goal >= super::Goal::Stop => {
                Some(LeaseDuty::StandAside)
            }
            LeaseAnswer::Contended { owner, .. } => {
                lease.owner = owner.as_ref().map(|owner| owner.pid);
                let same =
                    lease.stopping.filter(|(owner, _)| owner.zip(lease.owner).is_none_or(|(one, other)| one == other));
                Some(match same {
                    Some((_, gone_by)) if at < gone_by => LeaseDuty::Wait,
                    Some(_) => LeaseDuty::Yield,
                    None if self.policy.on_conflict == OnConflict::Standby => LeaseDuty::Yield,
                    None => LeaseDuty::AskOwner,
                })
            }
            LeaseAnswer::Unclear { beat, .. } => seen.filter(|(before, _)| before != beat).map(|_| LeaseDuty::Yield),
            LeaseAnswer::Failed(_) => Some(LeaseDuty::Go),
            LeaseAnswer::Refused(_) => Some(LeaseDuty::GoForGood),
            LeaseAnswer::Unjudged { .. } => Some(LeaseDuty::Yield),
            LeaseAnswer::Free => None,
        };
    }

    /// A probe of the port in standby.
    pub(super) fn note_neighbour(&mut self, at: Moment, sighting: &Observation, ours: bool) {
        let Some(waiting) = &mut self.lease.waiting else { return };
        waiting.watching = waiting.watching.filter(|_| sighting.verdict == Verdict::Free);
        waiting.quiet = if sighting.verdict == Verdict::Free { waiting.quiet.or(Some(at)) } else { None };
        waiting.ours = ours;
    }

    pub(super) fn judge_lease(&mut self, at: Moment, ticket: u64, ask: LeaseRequest) -> Result<(), Broken> {
        must(ticket == self.ticket + 1, "P10", "tickets count up")?;
        must(self.lease.begun && !self.lease.held, "lease", "a request for a lease that we hold")?;
        let lost = |(_, since)| at >= since + STORE_LOST;
        let alone = self.lease.asked.is_none_or(lost) || self.lease.asks_again();
        must(alone, "loop", "two requests for the lease at once")?;
        let asks = &mut self.lease.asks;
        asks.push_back(at);
        let first = if asks.len() > ASKS_MAX { asks.pop_front() } else { None };
        let calm = first.is_none_or(|first| at > first + Duration::from_secs(1));
        must(calm, "loop", "a busy loop of requests for the lease")?;
        match ask {
            LeaseRequest::Peek => must(self.lease.stands_by(), "lease", "a peek at the lease outside of standby")?,
            LeaseRequest::Take { unchanged } => {
                must(!self.lease.stands_by(), "standby", "a supervisor in standby takes the lease")?;
                let still = |beat| self.lease.seen.is_some_and(|(b, since)| b == beat && at >= since + UNCHANGED_FOR);
                let why = "an owner is taken for dead before its heartbeat has expired";
                must(unchanged.is_none_or(still), "lease", why)?;
            }
        }
        (self.ticket, self.lease.asked) = (ticket, Some((ticket, at)));
        Ok(())
    }

    pub(super) fn judge_ask_owner(&mut self, at: Moment, ticket: u64) -> Result<(), Broken> {
        must(ticket == self.ticket + 1, "P10", "tickets count up")?;
        must(self.lease.duty == Some(LeaseDuty::AskOwner), "lease", "the owner is asked without need")?;
        (self.ticket, self.lease.owner_asked, self.lease.stopping) = (ticket, Some((ticket, at)), None);
        Ok(())
    }

    pub(super) fn judge_watch(&mut self, pid: i32) -> Result<(), Broken> {
        let Some(waiting) = &mut self.lease.waiting else {
            return Err(Broken::new("standby", "a process is watched outside of standby"));
        };
        waiting.watching = Some(pid);
        Ok(())
    }

    pub(super) fn judge_standby(&mut self, turn: &Turn<'_>, report: &Report) -> Result<(), Broken> {
        let at = turn.at;
        if let Report::StandbyEntered { .. } = report {
            let conflict = self.lease.yields() || self.duty == Some(super::Duty::Conflict);
            must(conflict && !self.lease.stands_by(), "standby", "standby without a conflict")?;
            must(self.policy.on_conflict == OnConflict::Standby, "standby", "standby though it is not configured")?;
            self.lease.waiting = Some(Waiting::default());
            self.forget_ready();
            self.pace.stand_by(at);
        } else {
            let Some(waiting) = self.lease.waiting.take() else {
                return Err(Broken::new("standby", "standby ends that had not begun"));
            };
            let quiet = waiting.quiet.is_some_and(|since| at >= since + QUIET);
            let still = self.lease.seen.is_some_and(|(_, since)| at >= since + UNCHANGED_FOR);
            // A request waives the wait; lease and port are checked again all the same.
            let asked = waiting.wait_skipped;
            must(quiet || still || waiting.ours || asked, "standby", "a takeover while the owner may come back")?;
            // After a request the wait for a heartbeat starts again.
            self.lease.seen = self.lease.seen.filter(|_| !matches!(turn.event, Event::Requested { .. }));
        }
        (self.port, self.asked, self.duty) = (PortWatch::default(), None, None);
        Ok(())
    }

    /// Whether this answer says that hooks of a predecessor may be left.
    fn may_leave_hooks(&self, event: &Event) -> Option<bool> {
        let Event::Leased { answer: LeaseAnswer::Acquired(acquired), .. } = event else { return None };
        let recovered = acquired.recovered.is_some() || acquired.trouble.is_some();
        let is_ours = matches!(self.lease.duty, Some(LeaseDuty::Adopt(_) | LeaseDuty::Look));
        let hooks = [self.policy.pre_start, self.policy.post_stop, self.policy.repair];
        (is_ours && (recovered || hooks.iter().any(Option::is_some))).then_some(recovered)
    }

    /// What the event of this step requires.
    pub(super) fn judge_lease_turn(&self, turn: &Turn<'_>) -> Result<(), Broken> {
        let any = |wanted: &dyn Fn(&Effect) -> bool| turn.fx.iter().any(wanted);
        if let Some(may) = self.may_leave_hooks(turn.event) {
            let clears = any(&|effect| matches!(effect, Effect::ClearHooks { heir } if *heir == may));
            must(clears, "P1", "the hooks of a predecessor are not killed first")?;
        }
        match self.lease.duty {
            Some(LeaseDuty::AskOwner) => {
                must(self.lease.owner_asked.is_some(), "lease", "the owner is not asked whether it is stopping")?;
            }
            Some(LeaseDuty::Wait) => {
                must(!self.ends(), "lease", "a start beside an owner that is stopping ends, and nothing serves then")?;
            }
            Some(LeaseDuty::Yield) if self.policy.on_conflict == OnConflict::Standby => {
                let stands = any(&|effect| matches!(effect, Effect::Report(Report::StandbyEntered { .. })));
                must(stands, "lease", "another supervisor is in charge and we do not stand by")?;
            }
            // A hook is killed first.
            Some(LeaseDuty::Go) if self.lease.lost && self.hook_was_killed() => {}
            // So is the gateway; a process may be about to come to life.
            Some(LeaseDuty::Go) if self.lease.lost && (self.owned.is_some() || self.spawning) => {
                let ends = self.owned.as_ref().is_none_or(Owned::ending) || self.ends();
                must(ends, "lease", "the gateway of a lost lease goes on")?;
            }
            Some(LeaseDuty::Yield | LeaseDuty::StandAside | LeaseDuty::Go | LeaseDuty::GoForGood) => {
                must(self.ends(), "lease", "no exit without the lease")?;
            }
            // Hooks are killed first.
            Some(LeaseDuty::Adopt(_) | LeaseDuty::Look) if self.clearing => {}
            Some(LeaseDuty::Adopt(left)) => {
                let sought = any(&|effect| matches!(effect, Effect::Adopt { generation } if *generation == left));
                must(sought, "P8", "no search for the gateway of a predecessor")?;
            }
            Some(LeaseDuty::Look) => {
                let looks = any(&|effect| matches!(effect, Effect::Probe { ask: ProbeScope::Port, .. }));
                let may_look = !self.fence.is_unconfirmed() && !self.is_paused();
                must(looks || self.ends() || !may_look, "P1", "the lease is taken and the port is not probed")?;
            }
            Some(LeaseDuty::ProbeScope) => {
                let asks = any(&|effect| {
                    matches!(
                        effect,
                        Effect::Lease { ask: LeaseRequest::Peek, .. } | Effect::Probe { ask: ProbeScope::Port, .. }
                    )
                });
                must(asks, "standby", "the exit of the owner is ignored")?;
            }
            None => {}
        }
        // An answer that is under way may still be that it is gone.
        let never_had = !self.lease.held && !self.lease.lost;
        let waits = never_had && !self.ends() && self.lease.asked.is_none() && self.lease.owner_asked.is_none();
        let latest = RETRY_MAX + self.standstill + super::TICK_LATE_MAX;
        let late = self.lease.stopping.is_some_and(|(_, gone_by)| waits && turn.at > gone_by + latest);
        must(!late, "lease", "an owner that is stopping is waited for without end")?;
        let quiet = self.lease.waiting.is_some_and(|waiting| waiting.quiet.is_some());
        let asked = self.lease.asked.is_some() || self.asked.is_some();
        let rests = self.lease.watches().is_some() && !quiet && !asked && !self.is_watched();
        let looks = turn.after.is_some_and(|deadline| deadline <= turn.at + WATCHED_MAX);
        must(
            !rests || looks || self.over || self.ends(),
            "owed",
            "the end of a watched process is waited for without end",
        )
    }
}
