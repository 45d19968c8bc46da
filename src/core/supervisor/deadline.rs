//! Deadlines, ticks and jumps of the clock. Every state has a deadline but those before the start and after the end: each
//! answer of the shell may be lost.

use super::state::{Adopting, Clearing, EvidenceFound, Overuse, Poll, ProbePurpose, State};
use super::{Duration, Effect, Effects, JUMP_MIN, LATE, Moment, Policy, ProbeScope, Report, Supervisor, lease, sooner};
use crate::fault::Fault;

/// A probe answers within its timeout; one that is this much over it will never answer.
const ANSWER_LOST: Duration = Duration::from_secs(5);

impl Poll {
    /// When to send the next probe: at its time, or when the answer to the last one is so late that it is lost.
    pub(super) fn wake(self, policy: &Policy) -> Moment {
        match self {
            Self::Due(at) => at,
            Self::Asked { at, .. } if policy.planted.is(Fault::DeadlineInThePast) => at,
            Self::Asked { .. } if policy.planted.is(Fault::LostProbeForgotten) => Moment::MAX,
            Self::Asked { at, .. } => at.saturating_add(policy.probe_timeout).saturating_add(ANSWER_LOST),
        }
    }

    /// Gives an answer that is under way its time again.
    pub(super) fn rearm(&mut self, now: Moment) {
        if let Self::Asked { at, .. } = self {
            *at = now;
        }
    }

    /// Whether this is the answer that is waited for.
    pub(super) fn answered_by(self, answer: u64) -> bool {
        matches!(self, Self::Asked { ticket, .. } if ticket == answer)
    }

    /// The next probe: one interval after the last one was sent, and not before now.
    pub(super) fn next(self, now: Moment, interval: Duration) -> Self {
        match self {
            Self::Due(at) => Self::Due(at),
            Self::Asked { at, .. } => Self::Due(now.max(at.saturating_add(interval))),
        }
    }
}

impl Supervisor {
    /// How long past its deadline this step is, if it is [`LATE`]. Of several events that come after it only the first one is
    /// late.
    pub(super) fn stood_still(&mut self, now: Moment) -> Option<Duration> {
        let late = now.saturating_sub(self.deadline()?.max(self.awake_since));
        if late < LATE || self.has(Fault::LateStepTrusted) {
            return None;
        }
        self.awake_since = now;
        Some(late)
    }

    /// When the next [`Event::Tick`] is due, if nothing else happens before. To be asked for after every step. `None`
    /// before the start and after the end.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        if matches!(self.state, State::Idle) || self.state.is_over() {
            return self.own_deadline();
        }
        let own = if self.fence.is_waiting() { self.fence.deadline() } else { self.own_deadline() };
        let follow = self.launcher.map(|launcher| launcher.until);
        own.into_iter()
            .chain(self.handoffs.deadline())
            .chain(follow)
            .chain(self.confirmation_deadline())
            .chain(self.merged_deadline())
            .chain(self.paused_until())
            .min()
    }

    /// That of the state.
    fn own_deadline(&self) -> Option<Moment> {
        let policy = &self.policy;
        match &self.state {
            State::Idle | State::Exited => None,
            State::Leasing { poll: Poll::Due(at), .. } => Some(*at),
            State::Leasing { poll: Poll::Asked { at, .. }, owner, stop_by, .. } => {
                Some(sooner(at.saturating_add(lease::answer_lost(owner.as_ref())), *stop_by))
            }
            State::Clearing(clearing) => Some(clearing.search.deadline()),
            State::Standby(standby) => Some(standby.deadline()),
            State::Adopting(adopting) => Some(adopting.search.deadline()),
            State::Probing { poll, .. } => Some(poll.wake(policy)),
            State::BackingOff { until, .. } => Some(self.after_pause(*until)),
            State::Sweeping { until, .. } => Some(*until),
            State::Awaiting(_) => self.handoffs.deadline(),
            State::Hooking(hooking) => Some(hooking.deadline()),
            State::Spawning(_) if self.has(Fault::LostSpawnWaitedFor) => Some(Moment::MAX),
            State::Spawning(spawning) => Some(spawning.until),
            // Nothing is held against it in a pause.
            State::Starting { poll, .. } | State::Running { poll, .. } if self.is_paused() => Some(poll.wake(policy)),
            State::Starting { poll, boot, .. } => Some(sooner(poll.wake(policy), boot.deadline(policy))),
            State::Running { poll, liveness, overuse, .. } => {
                let weighed = match overuse {
                    Overuse::Samples(_) => None,
                    Overuse::Proven { until, .. } => Some(*until),
                };
                Some(sooner(sooner(poll.wake(policy), liveness.deadline(policy)), weighed))
            }
            State::Examining(examining) => Some(examining.until),
            State::Stopping(stopping) => Some(stopping.deadline(policy)),
        }
    }

    pub(super) fn on_tick(&mut self, now: Moment, fx: &mut Effects) {
        self.tick_pause(now, fx);
        self.tick_handoffs(now, fx);
        self.tick_heir(now, fx);
        if self.fence.is_waiting() {
            return self.tick_fence(now, fx);
        }
        match &self.state {
            State::Idle | State::Awaiting(_) | State::Exited => {}
            State::Clearing(_) => self.tick_clearing(now, fx),
            State::Adopting(_) => self.tick_adopting(now, fx),
            State::Spawning(_) => self.tick_spawning(now, fx),
            State::Sweeping { until, .. } => {
                if *until <= now {
                    self.finish_sweep(fx);
                }
            }
            State::Leasing { .. } => self.tick_leasing(now, fx),
            State::Standby(standby) => {
                if standby.deadline() <= now {
                    let behind = standby.behind;
                    self.look_around(now, behind, fx);
                }
            }
            State::Probing { poll, .. } => {
                if poll.wake(&self.policy) <= now {
                    self.probe(now, ProbeScope::Port, fx);
                }
            }
            State::BackingOff { until, .. } => {
                if self.after_pause(*until) <= now {
                    self.look_at_port(now, ProbePurpose::Nothing, fx);
                }
            }
            State::Hooking(_) => self.tick_hooking(now, fx),
            State::Starting { .. } => self.tick_starting(now, fx),
            State::Running { .. } => self.tick_running(now, fx),
            State::Examining(examining) => {
                if examining.until <= now {
                    let examining = examining.clone();
                    self.terminate_hung(now, &examining, EvidenceFound::default(), fx);
                }
            }
            State::Stopping(_) => self.tick_stopping(now, fx),
        }
    }

    /// Restarts every timeout: while the machine was suspended, no answer could come.
    pub(super) fn on_clock_jumped(&mut self, now: Moment, by: Duration, fx: &mut Effects) {
        if by < JUMP_MIN || matches!(self.state, State::Idle) || self.state.is_over() {
            return;
        }
        fx.push(Effect::Report(Report::ClockJumped { by }));
        if self.has(Fault::JumpNotRearmed) {
            return;
        }
        self.handoffs.rearm(now);
        self.fence.rearm(now);
        self.rearm_heir(now);
        let is_ending = self.is_ending();
        match &mut self.state {
            State::Starting { boot, .. } => boot.rearm(now),
            State::Running { liveness, .. } => liveness.rearm(now),
            State::Stopping(stopping) => stopping.rearm(now, is_ending),
            // A stop does not wait for a start for longer than it has to, whatever the clocks do.
            State::Spawning(spawning) if is_ending => spawning.overdue = false,
            State::Spawning(spawning) => spawning.rearm(now),
            State::Probing { watch, .. } => watch.rearm(now),
            State::Leasing { poll, seen, .. } => {
                poll.rearm(now);
                if let Some(seen) = seen {
                    seen.since = now;
                }
            }
            State::Standby(standby) => standby.rearm(now),
            State::Examining(_) => self.clear_hang(now),
            State::Hooking(_) => self.rearm_hook(now),
            State::Clearing(Clearing { search, .. }) | State::Adopting(Adopting { search, .. }) => {
                // A stop does not wait for a search longer than it has to.
                if !is_ending {
                    search.rearm(now);
                }
            }
            State::Idle | State::BackingOff { .. } | State::Awaiting(_) | State::Sweeping { .. } | State::Exited => {}
        }
    }
}

#[cfg(test)]
mod tests;
