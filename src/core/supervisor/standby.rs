//! Standby behind another owner: wait for its end at no cost, and take over only if it does not come back.

use super::state::{Poll, ProbePurpose, Seen, Standby, State, WaitingFor};
use super::{Effect, Effects, Moment, Observation, ProbeScope, Report, Supervisor};
use crate::event::LeaseAnswer;
use crate::fault::Fault;
use crate::lease::UNCHANGED_FOR;
use crate::prelude::*;
use crate::{LeaseRequest, Owner, Verdict};
use core::time::Duration;

/// How long no owner must have been seen: one that is being restarted is not gone.
pub(super) const QUIET: Duration = Duration::from_secs(15);

/// The pause between two looks while it is quiet.
const QUIET_PAUSE: Duration = Duration::from_secs(3);

/// The pause between two looks at an owner that has no process to watch.
const BLIND_PAUSE: Duration = Duration::from_secs(15);

/// The same for one that is watched: the news of its end may be lost.
const WATCHED_PAUSE: Duration = Duration::from_mins(5);

const TRY_NOW: &str = "asked to try now";

impl Standby {
    pub(super) fn deadline(&self) -> Moment {
        match self.poll {
            Poll::Due(at) => at,
            Poll::Asked { at, .. } => at.saturating_add(super::lease::LEASE_LOST),
        }
    }

    pub(super) fn rearm(&mut self, now: Moment) {
        self.poll.rearm(now);
        self.quiet_since = self.quiet_since.map(|_| now);
        if let Some(seen) = &mut self.seen {
            seen.since = now;
        }
    }
}

impl Supervisor {
    pub(super) fn enter_standby(&mut self, now: Moment, behind: WaitingFor, why: String, fx: &mut Effects) {
        fx.push(Effect::Report(Report::StandbyEntered { why }));
        self.tell_standing_by(fx);
        self.merged.forced = false;
        self.stand_behind(now, behind, fx);
    }

    fn stand_behind(&mut self, now: Moment, behind: WaitingFor, fx: &mut Effects) {
        let gone = if let State::Standby(standby) = &self.state { standby.gone } else { None };
        let mut behind = behind;
        let (WaitingFor::Owner { pid } | WaitingFor::Gateway { pid }) = &mut behind;
        *pid = pid.filter(|pid| Some(*pid) != gone);
        let pause = if let Some(pid) = *pid {
            fx.push(Effect::Watch { pid });
            if self.has(Fault::DepartureTrusted) { Duration::MAX } else { WATCHED_PAUSE }
        } else {
            BLIND_PAUSE
        };
        let poll = Poll::Due(now.saturating_add(pause));
        self.state = State::Standby(Standby { behind, poll, quiet_since: None, gone, seen: None, hasty: false });
    }

    pub(super) fn on_departed(&mut self, now: Moment, gone: i32, fx: &mut Effects) {
        let State::Standby(standby) = &mut self.state else { return };
        let (WaitingFor::Owner { pid } | WaitingFor::Gateway { pid }) = &mut standby.behind;
        if *pid == Some(gone) {
            *pid = None;
            standby.gone = Some(gone);
            let behind = standby.behind;
            self.look_around(now, behind, fx);
        }
    }

    /// Checks whether the owner is still there.
    pub(super) fn look_around(&mut self, now: Moment, behind: WaitingFor, fx: &mut Effects) {
        match behind {
            WaitingFor::Owner { .. } => self.ask_lease(now, LeaseRequest::Peek, fx),
            WaitingFor::Gateway { .. } => self.probe(now, ProbeScope::Port, fx),
        }
    }

    pub(super) fn judge_peek(&mut self, now: Moment, answer: LeaseAnswer, seen: Option<Seen>, fx: &mut Effects) {
        match answer {
            LeaseAnswer::Free => self.note_quiet(now, fx),
            LeaseAnswer::Unclear { beat, .. } => self.compare_beat(now, beat, seen, fx),
            LeaseAnswer::Contended { owner, .. } => {
                self.stand_behind(now, WaitingFor::Owner { pid: owner.map(|owner| owner.pid) }, fx);
            }
            // A peek that could not be made says nothing.
            LeaseAnswer::Unjudged { .. }
            | LeaseAnswer::Failed(_)
            | LeaseAnswer::Refused(_)
            | LeaseAnswer::Acquired(_) => {
                self.stand_behind(now, WaitingFor::Owner { pid: None }, fx);
            }
        }
    }

    /// Of an owner that cannot be seen only the counter shows whether it is still there.
    fn compare_beat(&mut self, now: Moment, beat: u64, seen: Option<Seen>, fx: &mut Effects) {
        let seen = seen.filter(|seen| seen.beat == beat).unwrap_or(Seen { beat, since: now });
        if now >= seen.since.saturating_add(UNCHANGED_FOR) {
            let why = "the owner's heartbeat has stood still for 30s".to_owned();
            fx.push(Effect::Report(Report::StandbyLeft { why }));
            return self.take_lease(now, Some(seen), Some(beat), fx);
        }
        self.stand_behind(now, WaitingFor::Owner { pid: None }, fx);
        if let State::Standby(standby) = &mut self.state {
            standby.seen = Some(seen);
        }
    }

    pub(super) fn judge_neighbour(
        &mut self,
        now: Moment,
        behind: WaitingFor,
        sighting: &Observation,
        fx: &mut Effects,
    ) {
        match (sighting.verdict, &sighting.owner) {
            (Verdict::Free, _) => self.note_quiet(now, fx),
            // A gateway of ours that another supervisor started: judge_port adopts it.
            _ if self.marked(sighting).is_some() => self.leave_standby(now, behind, "a gateway of ours is there", fx),
            (Verdict::Gateway(_), Owner::Other(holder) | Owner::Ours(holder)) => {
                self.stand_behind(now, WaitingFor::Gateway { pid: Some(holder.pid) }, fx);
            }
            _ => self.stand_behind(now, WaitingFor::Gateway { pid: None }, fx),
        }
    }

    fn note_quiet(&mut self, now: Moment, fx: &mut Effects) {
        let eager = self.has(Fault::StandbyTooEager);
        let State::Standby(standby) = &mut self.state else { return };
        let behind = standby.behind;
        if standby.hasty {
            return self.leave_standby(now, behind, TRY_NOW, fx);
        }
        let over = standby.quiet_since.get_or_insert(now).saturating_add(QUIET);
        if over <= now || eager {
            self.leave_standby(now, behind, "no other supervisor or gateway seen for 15s", fx);
        } else {
            standby.poll = Poll::Due(over.min(now.saturating_add(QUIET_PAUSE)));
        }
    }

    /// `retry-now` does not wait for the quiet to last: lease and port are looked at again before anything is started.
    pub(super) fn hasten_standby(&mut self, now: Moment, fx: &mut Effects) {
        let State::Standby(standby) = &mut self.state else { return };
        match standby.poll {
            Poll::Due(_) => {
                let behind = standby.behind;
                self.leave_standby(now, behind, TRY_NOW, fx);
            }
            // The answer to the question that is under way decides.
            Poll::Asked { .. } => standby.hasty = true,
        }
    }

    fn leave_standby(&mut self, now: Moment, behind: WaitingFor, why: &str, fx: &mut Effects) {
        fx.push(Effect::Report(Report::StandbyLeft { why: why.to_owned() }));
        match behind {
            WaitingFor::Owner { .. } => self.begin_leasing(now, fx),
            WaitingFor::Gateway { .. } => self.look_at_port(now, ProbePurpose::Nothing, fx),
        }
    }
}
