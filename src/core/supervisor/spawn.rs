//! From the decision to start a gateway to its process, or to the news that there is none.

use super::state::{Boot, Child, Poll, Spawning, State};
use super::{Effect, Effects, Intent, Moment, Outcome, Report, SpawnFailure, Supervisor};
use crate::fault::Fault;
use crate::history::{Fact, Settled};
use crate::prelude::*;
use crate::{Fingerprint, exit};
use core::time::Duration;

/// A process is created in milliseconds, if the file system of its program answers.
const ANSWER_LOST: Duration = Duration::from_secs(30);

/// An answer that came while we stood still is taken in first.
const LAST_CHANCE: Duration = Duration::from_secs(5);

impl Spawning {
    fn new(now: Moment) -> Self {
        Self { until: now.saturating_add(ANSWER_LOST), overdue: false }
    }

    pub(super) fn rearm(&mut self, now: Moment) {
        *self = Self::new(now);
    }
}

impl Supervisor {
    /// The port is free, and all is prepared.
    pub(super) fn spawn(&mut self, now: Moment, fx: &mut Effects) {
        self.generation += 1;
        self.forget_merged();
        self.state = State::Spawning(Spawning::new(now));
        self.act(now, Effect::Spawn { generation: self.generation, no_respawn: self.forbids_successor() }, fx);
    }

    /// A release that knows no handoff would leave a detached successor.
    pub(super) fn forbids_successor(&self) -> bool {
        self.policy.handoff && self.handoffs.support() == Some(false)
    }

    /// A stop has no more time for a start that hangs than for a drain; a second one has none.
    pub(super) fn shorten_spawning(&mut self, now: Moment) {
        let most = if let Intent::StopNow(_) = self.intent { Duration::ZERO } else { self.policy.stop_timeout };
        if let State::Spawning(spawning @ Spawning { overdue: false, .. }) = &mut self.state {
            spawning.until = spawning.until.min(now.saturating_add(most));
        }
    }

    /// A start that does not come back cannot be made again: its process may be there.
    pub(super) fn tick_spawning(&mut self, now: Moment, fx: &mut Effects) {
        let State::Spawning(spawning) = &mut self.state else { return };
        if now < spawning.until {
            return;
        }
        if !core::mem::replace(&mut spawning.overdue, true) {
            spawning.until = now.saturating_add(LAST_CHANCE);
            return;
        }
        let left = format!(
            "the start of gateway {} has not come back (does the file system of its program hang?), and it may \
             still come up; check the mount, then start again: its record is there, and it is looked for first",
            self.generation
        );
        let reason = match &self.intent {
            Intent::Stop(by) | Intent::StopNow(by) => format!("stopped as asked by {by}, but {left}"),
            Intent::Detach(by) => format!("left as asked by {by}; {left}"),
            Intent::Run | Intent::Restart(_) => left,
        };
        self.exit(now, exit::FAILURE, reason, fx);
    }

    pub(super) fn on_spawned(&mut self, now: Moment, pid: i32, fingerprint: Fingerprint, fx: &mut Effects) {
        if !matches!(self.state, State::Spawning(_)) {
            return;
        }
        self.born = true;
        self.update = None;
        self.take_fingerprint(fingerprint);
        self.begin_trail();
        let (generation, attempt) = (self.generation, self.restarts.attempt());
        fx.push(Effect::Report(Report::GatewaySpawned { generation, pid, attempt }));
        let child = Child::new(pid, now, false);
        let poll = Poll::Due(now + super::health::STARTUP_POLL_MIN);
        let armed = if self.has(Fault::StartupBudgetIgnored) { Moment::MAX } else { now };
        self.state = State::Starting { child, poll, boot: Boot::new(armed) };
        if !self.has(Fault::StopLostWhileSpawning) {
            self.follow_intent(now, fx);
        }
    }

    pub(super) fn on_spawn_failed(&mut self, now: Moment, failure: &SpawnFailure, fx: &mut Effects) {
        if !matches!(self.state, State::Spawning(_)) {
            return;
        }
        let (SpawnFailure::Program(why) | SpawnFailure::Resources(why) | SpawnFailure::Updating(why)) = failure;
        let is_wanted = matches!(self.intent, Intent::Run | Intent::Restart(_));
        // A program that was there before is gone while it is replaced.
        let is_update = match failure {
            SpawnFailure::Updating(_) => true,
            SpawnFailure::Program(_) => self.born,
            SpawnFailure::Resources(_) => false,
        };
        if is_update && is_wanted && self.lost.is_none() && self.wait_for_update(now, self.generation, why, fx) {
            return;
        }
        fx.push(Effect::Report(Report::SpawnFailed { generation: self.generation, why: why.clone() }));
        if let Some(Outcome { code, reason }) = self.take_lost() {
            return self.exit(now, code, reason, fx);
        }
        fx.push(Effect::Remember { generation: self.generation, fact: Fact::Settled(Settled::NeverStarted) });
        match (&self.intent, failure) {
            // A program that was there before may be in the middle of an update; one that never was will not come.
            (Intent::Run | Intent::Restart(_), SpawnFailure::Program(_)) if !self.born => {
                self.exit(now, exit::EX_CONFIG, why.clone(), fx);
            }
            _ => self.go_on_unborn(now, &format!("could not be started: {why}"), fx),
        }
    }

    /// There is no gateway after all: what was asked for meanwhile comes first.
    pub(super) fn go_on_unborn(&mut self, now: Moment, why: &str, fx: &mut Effects) {
        match &self.intent {
            Intent::Stop(_) | Intent::StopNow(_) | Intent::Detach(_) => {
                self.state = State::Idle;
                self.follow_intent(now, fx);
            }
            Intent::Run | Intent::Restart(_) => {
                self.intent = Intent::Run;
                let plan = self.restarts.after_spawn_failure(now, &self.policy);
                self.follow_plan(now, plan, why, fx);
            }
        }
    }
}
