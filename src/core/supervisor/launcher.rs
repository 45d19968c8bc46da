//! COMMAND may be a launcher (npm, npx, volta, sh): it starts the gateway and waits, or leaves it in the background and
//! exits. The process that listens is the gateway: it is followed when its launcher exits, and told to stop as well when
//! its launcher does not pass SIGTERM on.

use super::state::{Child, Examining, LauncherExit, Leader, Poll, State, Stopping, TreePhase};
use super::{Effect, Effects, Moment, Observation, Report, Supervisor};
use crate::fault::Fault;
use crate::{ExitStatus, ExitUsage, Owner, Verdict};
use core::time::Duration;

/// One look at every process takes milliseconds, and 150 ms on a busy machine.
const FOLLOW_TIME_MAX: Duration = Duration::from_secs(5);

/// A daemon may fork twice, and a script may start a script. More often than this is a loop.
const FOLLOWS_MAX: u8 = 8;

/// By then a launcher has passed SIGTERM on, and the gateway drains. A second SIGTERM would cut other drains than
/// OpenClaw's short.
const FORWARD_TIME_MAX: Duration = Duration::from_millis(700);

impl Child {
    /// The process that listens, if it is not the one that was started.
    fn launched(&self) -> Option<i32> {
        self.listener.filter(|listener| *listener != self.pid)
    }
}

impl Stopping {
    /// SIGTERM goes to the process that was started, which `has_exited` or not: soon it will show whether another one that
    /// listens has heard of it.
    pub(super) fn expect_forwarding(&mut self, now: Moment, interval: Duration, has_exited: bool) {
        self.unheard = has_exited || self.child.launched().is_some();
        if self.unheard {
            self.poll = Poll::Due(now.saturating_add(FORWARD_TIME_MAX.min(interval)));
        }
    }
}

impl Supervisor {
    /// The process that was started has exited. Has its gateway looked for, and says so, if that may live on: one that
    /// listens or, after an exit with 0 during the boot, any process that is left. Such a process is a mere helper where the
    /// process that was started has been the gateway before: it would be waited for in vain.
    pub(super) fn seek_heir(&mut self, now: Moment, death: ExitStatus, toll: ExitUsage, fx: &mut Effects) -> bool {
        let (child, is_booting) = match &self.state {
            State::Starting { child, .. } => (child, true),
            State::Running { child, .. }
            | State::Stopping(Stopping { child, leader: Leader::Alive, tree: TreePhase::Draining { .. }, .. }) => {
                (child, false)
            }
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Adopting(_)
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Hooking(_)
            | State::Spawning(_)
            | State::Examining(_)
            | State::Stopping(_)
            | State::Sweeping { .. }
            | State::Exited => return false,
        };
        let listener = child.launched();
        let is_daemon = is_booting && death == ExitStatus::Code(0) && child.listener.is_none() && !self.leads_itself;
        let may_live = listener.is_some() || is_daemon;
        if !may_live || self.follows >= FOLLOWS_MAX || self.has(Fault::LauncherExitIsGatewayExit) {
            return false;
        }
        self.follows += 1;
        self.launcher = Some(LauncherExit { death, toll, until: now.saturating_add(FOLLOW_TIME_MAX) });
        fx.push(Effect::SeekHeir { generation: self.generation, listener });
        true
    }

    /// The look for what a launcher has left is over: `pid` is the process that leads it.
    pub(super) fn on_heir_sought(&mut self, now: Moment, pid: Option<i32>, fx: &mut Effects) {
        let Some(LauncherExit { death, toll, .. }) = self.launcher.take() else { return };
        let (State::Starting { child, .. }
        | State::Running { child, .. }
        | State::Examining(Examining { child, .. })
        | State::Stopping(Stopping { child, .. })) = &mut self.state
        else {
            return;
        };
        let Some(pid) = pid else { return self.leader_gone(now, death, toll, fx) };
        let launcher = core::mem::replace(&mut child.pid, pid);
        let generation = self.generation;
        fx.push(Effect::Report(Report::GatewayFollowed { generation, pid, launcher, death }));
    }

    /// We stood still: an answer that is under way gets its time again.
    pub(super) fn rearm_heir(&mut self, now: Moment) {
        if let Some(launcher) = &mut self.launcher {
            launcher.until = now.saturating_add(FOLLOW_TIME_MAX);
        }
    }

    /// No answer came: what is left is nothing that could be followed.
    pub(super) fn tick_heir(&mut self, now: Moment, fx: &mut Effects) {
        if self.launcher.is_some_and(|launcher| launcher.until <= now) {
            self.on_heir_sought(now, None, fx);
        }
    }

    /// A gateway that goes on serving after its launcher was told to stop has not heard of it.
    pub(super) fn judge_forwarding(&mut self, now: Moment, sighting: &Observation, fx: &mut Effects) {
        let generation = self.generation;
        let State::Stopping(stopping) = &mut self.state else { return };
        let is_draining = matches!(stopping.tree, TreePhase::Draining { .. });
        if !stopping.unheard || !is_draining || self.policy.planted.is(Fault::StopNotForwarded) {
            return;
        }
        let is_another = match &sighting.owner {
            Owner::Other(_) => true,
            // Its successor, while it drains itself.
            Owner::Ours(holder) => stopping.child.listener.is_some_and(|listener| listener != holder.pid),
            Owner::Unseen | Owner::Hidden { .. } => false,
        };
        match sighting.verdict {
            _ if is_another => {}
            Verdict::Gateway(_) => {
                stopping.unheard = false;
                let pid = stopping.child.listener.unwrap_or(stopping.child.pid);
                fx.push(Effect::Report(Report::StopForwarded { generation, pid }));
                self.act(now, Effect::TerminateListener { generation, pid }, fx);
            }
            Verdict::Draining | Verdict::Free | Verdict::Booting => stopping.unheard = false,
            Verdict::Silent | Verdict::Foreign | Verdict::Malformed | Verdict::Inconclusive => {}
        }
    }
}
