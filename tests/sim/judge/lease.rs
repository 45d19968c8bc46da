//! Who is in charge: nothing is touched without the lease, and whoever waits for it waits quietly.

use super::{Effect, Event, Judge, Moment, Observation, PortWatch, ProbeScope, Turn, Verdict, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::lease::UNCHANGED_FOR;
use openclaw_supervise_core::policy::OnConflict;
use openclaw_supervise_core::{Generation, LeaseAnswer, LeaseRequest, Report};
use std::collections::VecDeque;
use std::time::Duration;

/// How long nobody must have been there before somebody who stands by takes over.
const QUIET: Duration = Duration::from_secs(15);

/// The store answers within this time, or never.
pub(super) const STORE_LOST: Duration = Duration::from_secs(30);

/// So many questions about the lease within one second are a machine that spins.
const ASKS_MAX: usize = 10;

/// What one event obliges to, at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Debt {
    /// Somebody living is in charge: go, or stand by.
    Yield,
    /// The lease is lost or cannot be had: go.
    Go,
    /// Take hold of what a predecessor left.
    Adopt(Generation),
    /// Look at the port.
    Look,
    /// Whoever was watched has ended: see who is there.
    ProbeScope,
}

#[derive(Debug, Clone, Copy, Default)]
struct Waiting {
    watching: Option<i32>,
    quiet: Option<Moment>,
    /// A gateway of ours was seen.
    ours: bool,
    /// Somebody asked not to wait.
    hurried: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct LeaseState {
    /// When somebody last asked not to wait.
    hurried: Option<Moment>,
    pub(super) begun: bool,
    pub(super) held: bool,
    /// It was ours and is somebody else's.
    pub(super) lost: bool,
    pub(super) asked: Option<(u64, Moment)>,
    /// A counter, and since when it has been the same.
    seen: Option<(u64, Moment)>,
    waiting: Option<Waiting>,
    debt: Option<Debt>,
    asks: VecDeque<Moment>,
}

impl LeaseState {
    /// Somebody does not want to wait.
    pub(super) fn hurry(&mut self, at: Moment) {
        self.hurried = Some(at);
        if let Some(waiting) = &mut self.waiting {
            waiting.hurried = true;
        }
    }

    pub(super) fn rearm(&mut self, at: Moment) {
        self.asked = self.asked.map(|(ticket, _)| (ticket, at));
        self.seen = self.seen.map(|(beat, _)| (beat, at));
        if let Some(waiting) = &mut self.waiting {
            waiting.quiet = waiting.quiet.map(|_| at);
        }
    }

    pub(super) fn stands_by(&self) -> bool {
        self.waiting.is_some()
    }

    /// Waits for the end of a process, at no cost.
    pub(super) fn watches(&self) -> Option<i32> {
        self.waiting.and_then(|waiting| waiting.watching)
    }

    /// Somebody else is in charge, as this step has learnt.
    pub(super) fn yields(&self) -> bool {
        self.debt == Some(Debt::Yield)
    }

    /// Whoever was watched has ended, as this step has learnt: an answer that is under way may be older than that.
    pub(super) fn asks_again(&self) -> bool {
        self.debt == Some(Debt::ProbeScope)
    }

    /// The lease cannot be had, as this step has learnt.
    pub(super) fn fails(&self, at: Moment) -> bool {
        self.debt == Some(Debt::Go) || self.asked.is_some_and(|(_, since)| at >= since + STORE_LOST)
    }
}

impl Judge {
    pub(super) fn note_lease_event(&mut self, at: Moment, event: &Event) {
        self.lease.debt = None;
        match event {
            Event::Start => self.lease.begun = true,
            Event::Leased { ticket, answer } if self.lease.asked.is_some_and(|(asked, _)| asked == *ticket) => {
                self.lease.asked = None;
                self.note_lease(at, answer);
            }
            Event::LeaseLost { .. } if self.lease.held => {
                (self.lease.held, self.lease.lost, self.lease.debt) = (false, true, Some(Debt::Go));
            }
            Event::HooksCleared { trouble }
                if self.clearing && (trouble.is_none() || self.wish >= super::Wish::Detach) =>
            {
                self.clearing = false;
                self.lease.debt = Some(self.left.map_or(Debt::Look, |left| Debt::Adopt(left.generation)));
            }
            Event::HooksCleared { .. } if self.clearing => self.search.failed = true,
            Event::Departed { pid } if self.lease.watches() == Some(*pid) => {
                if let Some(waiting) = &mut self.lease.waiting {
                    waiting.watching = None;
                }
                self.lease.debt = Some(Debt::ProbeScope);
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
        lease.debt = match answer {
            LeaseAnswer::Acquired(acquired) => {
                lease.held = true;
                self.fence.enter_lease(acquired.basis);
                let past = &acquired.past;
                self.generation = self.generation.max(past.generation);
                self.left = past.left;
                self.pace.recall(&past.runs);
                if let Some(left) = past.left {
                    self.pace.count(left.spawned);
                    self.pace.warn(false);
                }
                Some(past.left.map_or(Debt::Look, |left| Debt::Adopt(left.generation)))
            }
            LeaseAnswer::Contended { .. } => Some(Debt::Yield),
            LeaseAnswer::Unclear { beat, .. } => seen.filter(|(before, _)| before != beat).map(|_| Debt::Yield),
            LeaseAnswer::Failed(_) => Some(Debt::Go),
            LeaseAnswer::Free => None,
        };
    }

    /// A look at the port of somebody who stands by.
    pub(super) fn note_neighbour(&mut self, at: Moment, sighting: &Observation, ours: bool) {
        let Some(waiting) = &mut self.lease.waiting else { return };
        waiting.watching = waiting.watching.filter(|_| sighting.verdict == Verdict::Free);
        waiting.quiet = if sighting.verdict == Verdict::Free { waiting.quiet.or(Some(at)) } else { None };
        waiting.ours = ours;
    }

    pub(super) fn judge_lease(&mut self, at: Moment, ticket: u64, ask: LeaseRequest) -> Result<(), Broken> {
        must(ticket == self.ticket + 1, "P10", "tickets count up")?;
        must(self.lease.begun && !self.lease.held, "lease", "a question about a lease that we hold")?;
        let lost = |(_, since)| at >= since + STORE_LOST;
        let alone = self.lease.asked.is_none_or(lost) || self.lease.asks_again();
        must(alone, "loop", "two questions about the lease at once")?;
        let asks = &mut self.lease.asks;
        asks.push_back(at);
        let first = if asks.len() > ASKS_MAX { asks.pop_front() } else { None };
        let calm = first.is_none_or(|first| at > first + Duration::from_secs(1));
        must(calm, "loop", "the lease is asked for again and again")?;
        match ask {
            LeaseRequest::Peek => must(self.lease.stands_by(), "lease", "only who stands by has a look")?,
            LeaseRequest::Take { unchanged } => {
                must(!self.lease.stands_by(), "standby", "who stands by takes nothing")?;
                let still = |beat| self.lease.seen.is_some_and(|(b, since)| b == beat && at >= since + UNCHANGED_FOR);
                let why = "an owner is taken for gone who had no time to show that he lives";
                must(unchanged.is_none_or(still), "lease", why)?;
            }
        }
        (self.ticket, self.lease.asked) = (ticket, Some((ticket, at)));
        Ok(())
    }

    pub(super) fn judge_watch(&mut self, pid: i32) -> Result<(), Broken> {
        let Some(waiting) = &mut self.lease.waiting else {
            return Err(Broken::new("standby", "only who stands by watches somebody"));
        };
        waiting.watching = Some(pid);
        Ok(())
    }

    pub(super) fn judge_standby(&mut self, at: Moment, report: &Report) -> Result<(), Broken> {
        if let Report::StandbyEntered { .. } = report {
            let conflict = self.lease.yields() || self.duty == Some(super::Duty::Conflict);
            must(conflict && !self.lease.stands_by(), "standby", "standing by without anybody in lease")?;
            must(self.policy.on_conflict == OnConflict::Standby, "standby", "standing by though nobody wants it")?;
            self.lease.waiting = Some(Waiting::default());
            self.forget_ready();
            self.pace.stand_by(at);
        } else {
            let Some(waiting) = self.lease.waiting.take() else {
                return Err(Broken::new("standby", "an end of what had not begun"));
            };
            let quiet = waiting.quiet.is_some_and(|since| at >= since + QUIET);
            let still = self.lease.seen.is_some_and(|(_, since)| at >= since + UNCHANGED_FOR);
            // A person who asks does not want to wait; lease and port are looked at again all the same.
            let asked = waiting.hurried;
            must(quiet || still || waiting.ours || asked, "standby", "taking over though an owner may come back")?;
            // Whoever begins anew watches the counter anew.
            self.lease.seen = self.lease.seen.filter(|_| self.lease.hurried != Some(at));
        }
        (self.port, self.asked, self.duty) = (PortWatch::default(), None, None);
        Ok(())
    }

    /// Whether hooks of a predecessor may be left, as this answer tells.
    fn may_leave_hooks(&self, event: &Event) -> Option<bool> {
        let Event::Leased { answer: LeaseAnswer::Acquired(acquired), .. } = event else { return None };
        let heir = acquired.recovered.is_some() || acquired.trouble.is_some();
        let is_ours = matches!(self.lease.debt, Some(Debt::Adopt(_) | Debt::Look));
        (is_ours && (heir || self.policy.pre_start.is_some() || self.policy.post_stop.is_some())).then_some(heir)
    }

    /// What the news of this step oblige to.
    pub(super) fn judge_lease_turn(&self, turn: &Turn<'_>) -> Result<(), Broken> {
        let any = |wanted: &dyn Fn(&Effect) -> bool| turn.fx.iter().any(wanted);
        if let Some(may) = self.may_leave_hooks(turn.event) {
            let clears = any(&|effect| matches!(effect, Effect::ClearHooks { heir } if *heir == may));
            must(clears, "P1", "the hooks of a predecessor are not ended first")?;
        }
        match self.lease.debt {
            Some(Debt::Yield) if self.policy.on_conflict == OnConflict::Standby => {
                let stands = any(&|effect| matches!(effect, Effect::Report(Report::StandbyEntered { .. })));
                must(stands, "lease", "somebody else is in lease, and we do not stand by")?;
            }
            // A hook is killed first.
            Some(Debt::Go) if self.lease.lost && self.hook_dies() => {}
            Some(Debt::Yield | Debt::Go) => must(self.ends(), "lease", "somebody else is in lease, and we stay")?,
            // Hooks are ended first.
            Some(Debt::Adopt(_) | Debt::Look) if self.clearing => {}
            Some(Debt::Adopt(left)) => {
                let sought = any(&|effect| matches!(effect, Effect::Adopt { generation } if *generation == left));
                must(sought, "P8", "what a predecessor left is not looked for")?;
            }
            Some(Debt::Look) => {
                let looks = any(&|effect| matches!(effect, Effect::Probe { ask: ProbeScope::Port, .. }));
                must(looks || self.ends(), "P1", "the lease is had and nobody looks at the port")?;
            }
            Some(Debt::ProbeScope) => {
                let asks = any(&|effect| {
                    matches!(
                        effect,
                        Effect::Lease { ask: LeaseRequest::Peek, .. } | Effect::Probe { ask: ProbeScope::Port, .. }
                    )
                });
                must(asks, "standby", "the end of the owner is no news")?;
            }
            None => {}
        }
        let quiet = self.lease.waiting.is_some_and(|waiting| waiting.quiet.is_some());
        let asked = self.lease.asked.is_some() || self.asked.is_some();
        let rests = self.lease.watches().is_some() && !quiet && !asked;
        must(
            !rests || turn.after.is_none() || self.exits_wait() || self.ends(),
            "standby",
            "watching somebody costs nothing",
        )
    }
}
