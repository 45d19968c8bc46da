//! The status reply.

use super::standby::QUIET;
use super::state::{
    Child, Installing, Poll, ProbePurpose, Rival, Standby, State, StopReason, Stopping, TreePhase, WaitingFor,
};
use super::{Intent, Moment, Supervisor};
use crate::prelude::*;
use crate::status::{GatewayStatus, Next, Status};
use crate::{Generation, Hook};
use core::time::Duration;

/// What follows a drain: a kill may take 10 s, the look for strays 2 s and the last records 2 s, on a busy machine.
const END_TIME_MAX: Duration = Duration::from_secs(20);

impl Supervisor {
    /// What there is and what comes next, as seen at `now`.
    #[must_use]
    pub fn status(&self, now: Moment) -> Status {
        let is_stable = matches!(self.state, State::Running { stable: true, .. });
        Status {
            state: self.state_name(),
            gateway: self.gateway_status(now),
            generation: self.youngest(),
            epoch: self.lease,
            endpoint: self.policy.endpoint.clone(),
            owner: self.owner_ahead(),
            probe: self.told.as_ref().map(|sighting| (sighting.verdict, sighting.detail.clone())),
            memory_restarts: self.memory_restarts,
            restarts: self.restarts.spent_at(now, &self.policy),
            max_restarts: self.policy.max_restarts,
            restart_window: self.policy.restart_window,
            restart_free: self.restarts.free_in(now, &self.policy),
            stop_timeout: self.policy.stop_timeout,
            output: self.output.clone(),
            strays: self.strays.clone(),
            cut_short: if is_stable { Vec::new() } else { self.cut_short.clone() },
            restart_waits: self.merged.waiting.as_ref().map(|(_, at)| at.saturating_sub(now)),
            restart_paced: self.restart_gate(now).map(|(at, why)| (at.saturating_sub(now), why)),
            ends_within: self.ends_within(now),
            paused: self
                .paused
                .as_ref()
                .map(|paused| (paused.until.saturating_sub(now), paused.reason.clone(), paused.by.clone())),
            next: self.next(now),
        }
    }

    /// An upper bound, for a supervisor that wants our place.
    fn ends_within(&self, now: Moment) -> Option<Duration> {
        if !self.is_ending() && !self.state.is_over() {
            return None;
        }
        let until = match &self.state {
            State::Stopping(Stopping { tree: TreePhase::Draining { until, .. }, .. }) => *until,
            State::Hooking(hooking) => hooking.deadline(),
            State::Idle
            | State::Leasing { .. }
            | State::Clearing(_)
            | State::Standby(_)
            | State::Adopting(_)
            | State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Spawning(_)
            | State::Starting { .. }
            | State::Running { .. }
            | State::Examining(_)
            | State::Stopping(_)
            | State::Sweeping { .. }
            | State::Exited => now,
        };
        let hook = self.policy.post_stop.unwrap_or_default();
        Some(until.saturating_sub(now).saturating_add(hook).saturating_add(END_TIME_MAX))
    }

    /// A start has its number before there is a gateway, and a client that requests a restart waits for a greater number.
    fn youngest(&self) -> Generation {
        let is_to_come = matches!(self.state, State::Spawning(_));
        self.generation.saturating_sub(u64::from(is_to_come))
    }

    fn owner_ahead(&self) -> Option<i32> {
        let State::Standby(Standby { behind: WaitingFor::Owner { pid }, quiet_since: None, .. }) = &self.state else {
            return None;
        };
        *pid
    }

    fn state_name(&self) -> &'static str {
        match &self.state {
            State::Idle | State::Leasing { .. } | State::Clearing(_) => "leasing",
            State::Standby(_) => "standby",
            State::Adopting(_) => "adopting",
            State::Probing { .. } => "probing",
            State::BackingOff { .. } => "backing_off",
            State::Awaiting(_) => "awaiting_word",
            State::Hooking(hooking) => match hooking.hook() {
                Hook::PreStart => "pre_start",
                Hook::PostStop => "post_stop",
                Hook::Repair => "repairing",
            },
            State::Spawning(_) => "spawning",
            State::Starting { .. } => "starting",
            State::Running { .. } => "running",
            State::Examining(_) => "examining",
            State::Stopping(_) | State::Sweeping { .. } => "stopping",
            State::Exited => "exited",
        }
    }

    fn gateway_status(&self, now: Moment) -> Option<GatewayStatus> {
        let (child, started, healthy): (&Child, _, _) = match &self.state {
            State::Starting { child, .. } => (child, None, false),
            State::Running { child, started, liveness, .. } => (child, Some(*started), liveness.is_healthy()),
            State::Examining(examining) => (&examining.child, examining.started(), false),
            State::Stopping(stopping) if stopping.leader_lives() => (&stopping.child, stopping.started(), false),
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
            | State::Stopping(_)
            | State::Sweeping { .. }
            | State::Exited => return None,
        };
        Some(GatewayStatus {
            pid: child.pid,
            age: now.saturating_sub(child.spawned),
            up: started.map(|started| now.saturating_sub(started)),
            healthy,
            condition: self.condition(),
            adopted: child.adopted,
            readiness: self.readiness.clone(),
            sample: self.trail.last_sample(),
        })
    }

    /// What is wrong with a gateway that is not replaced for it, as a predicate.
    fn condition(&self) -> Option<String> {
        let (is_degraded, stalled) = match &self.state {
            State::Starting { boot, .. } => (boot.degraded && boot.alive.is_some(), boot.stalls.condition()),
            State::Running { liveness, .. } => (liveness.is_degraded(), liveness.condition()),
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
            | State::Exited => return None,
        };
        let seen = self.trail.last_foreign().filter(|_| is_degraded);
        let degraded = || Some(format!("is alive and not healthy: {}", seen?));
        let kept =
            || self.is_unconfirmed().then(|| format!("is kept on an unconfirmed lease: {}", self.store_trouble()));
        stalled.or_else(degraded).or_else(kept)
    }

    #[expect(clippy::too_many_lines, reason = "one row for each state")]
    fn next(&self, now: Moment) -> Next {
        let policy = &self.policy;
        let within = |at: Moment| (at != Moment::MAX).then(|| at.saturating_sub(now));
        let at = |poll: &Poll| match poll {
            Poll::Due(at) => within(*at),
            Poll::Asked { .. } => None,
        };
        let condition = self.condition().map(|condition| format!("it {condition}"));
        let installing =
            if let State::Stopping(Stopping { installing: Some(Installing { named, .. }), .. }) = &self.state {
                Some(format!("what installs OpenClaw is to finish first, see --update-timeout: {named}"))
            } else {
                None
            };
        let owner = self.owner_ahead().map(|pid| format!("another supervisor holds the lease (pid {pid})"));
        let paused = self.pause_reason();
        let (action, within, why) = match &self.state {
            State::Probing { .. }
            | State::BackingOff { .. }
            | State::Awaiting(_)
            | State::Starting { .. }
            | State::Running { .. }
                if let Some(why) = paused.as_deref() =>
            {
                ("resume the supervision", self.paused_until().and_then(within), why)
            }
            State::Leasing { owner: Some(Rival { gone_by: Some(gone_by), .. }), .. } => {
                ("take the lease", within(*gone_by), "its owner is stopping; waiting for its end")
            }
            State::Idle | State::Leasing { seen: None, .. } => {
                ("take the lease", None, "looking for another supervisor")
            }
            State::Leasing { poll, .. } => (
                "check the lease again",
                at(poll),
                "its owner is not visible from here; a heartbeat would show that it is alive",
            ),
            State::Clearing(clearing) => {
                let why = clearing.search.trouble().unwrap_or("an earlier supervisor may have left one running");
                ("kill the hooks of an earlier supervisor", None, why)
            }
            State::Standby(standby) => {
                let why = match (standby.behind, standby.quiet_since) {
                    (_, Some(_)) => "no other supervisor seen; one that restarts has 15s to come back",
                    (WaitingFor::Owner { .. }, None) => {
                        owner.as_deref().unwrap_or("another supervisor holds the lease; it is not visible from here")
                    }
                    (WaitingFor::Gateway { .. }, None) => "a gateway without a supervisor uses the port",
                };
                // A look before the quiet is over takes nothing over.
                let at = standby.quiet_since.and_then(|since| within(since.saturating_add(QUIET)));
                ("take over", at, why)
            }
            State::Adopting(adopting) => match adopting.search.trouble() {
                Some(why) => ("look for an earlier gateway again", within(adopting.search.deadline()), why),
                None => ("adopt or clean up an earlier gateway", None, "an earlier supervisor left it"),
            },
            State::Probing { .. } if self.is_unconfirmed() => (
                "start a gateway",
                self.confirmation_deadline().and_then(within),
                "as soon as the store confirms the lease; it gives up then",
            ),
            State::Probing { poll, judging: ProbePurpose::Nothing | ProbePurpose::Prepared, .. } => {
                ("start a gateway", at(poll), "as soon as the port is free")
            }
            State::Probing { poll, .. } => {
                ("decide what the last exit meant", at(poll), "another process may have the port")
            }
            State::BackingOff { until, why } => ("start a gateway", within(*until), why.as_str()),
            State::Awaiting(_) => (
                "decide what the last exit meant",
                self.handoffs.deadline().and_then(within),
                "the restart budget is spent, and only a planned exit is followed by a start; \
                 'openclaw-supervise retry-now' does not wait",
            ),
            State::Hooking(hooking) => {
                let within = within(hooking.deadline());
                match hooking.hook() {
                    Hook::PreStart => ("start a gateway", within, "the pre-start hook runs"),
                    Hook::Repair => ("start a gateway once more", within, "OpenClaw is repairing its configuration"),
                    Hook::PostStop => ("decide what the last exit meant", within, "the post-stop hook runs"),
                }
            }
            State::Spawning(_) => ("start a gateway", None, "the port is free"),
            State::Starting { .. } | State::Running { .. } if self.merged_deadline().is_some() => {
                let at = self.merged_deadline().and_then(within);
                (
                    "restart the gateway",
                    at,
                    "it was asked for, and the gateway is to become stable first, see --boot-limit",
                )
            }
            State::Starting { poll, .. } | State::Running { poll, .. } if condition.is_some() => {
                ("probe the gateway", at(poll), condition.as_deref().unwrap_or_default())
            }
            State::Starting { boot, .. } => {
                ("replace the gateway if it has not started", boot.deadline(policy).and_then(within), "it is starting")
            }
            State::Running { liveness, .. } if !liveness.is_healthy() => (
                "replace the gateway unless it answers",
                // None before enough probes have failed.
                liveness.deadline(policy).and_then(within),
                "its last probes failed",
            ),
            State::Running { poll, .. } => ("probe the gateway", at(poll), "it is healthy"),
            State::Examining(examining) => {
                ("replace the gateway", within(examining.until), "it hangs; collecting evidence")
            }
            State::Stopping(Stopping { tree: TreePhase::Draining { until, .. }, why, .. }) => {
                ("kill what is left of the gateway", within(*until), self.drain_reason(*why))
            }
            State::Stopping(Stopping { installing: Some(Installing { since, .. }), .. }) if !self.is_ending() => {
                let until = since.saturating_add(policy.update_timeout);
                ("start a gateway", within(until), installing.as_deref().unwrap_or_default())
            }
            State::Stopping(stopping) => {
                ("kill what is left of the gateway", within(stopping.deadline(policy)), "it is being stopped")
            }
            State::Sweeping { .. } | State::Exited => ("nothing", None, "the supervisor has ended"),
        };
        let (of, then) = self.drain(now).unzip();
        Next { action, within, of, then, why: why.to_owned() }
    }

    /// How long the drain that is under way may take in all, and what follows it.
    fn drain(&self, now: Moment) -> Option<(Duration, String)> {
        let State::Stopping(Stopping { tree: TreePhase::Draining { until, grace }, .. }) = &self.state else {
            return None;
        };
        let then = match self.intent {
            Intent::Run | Intent::Restart(_) => format!("gateway {}", self.generation.saturating_add(1)),
            Intent::Detach(_) | Intent::Stop(_) | Intent::StopNow(_) => "the supervisor exits".to_owned(),
        };
        Some(((*grace).max(until.saturating_sub(now)), then))
    }

    fn drain_reason(&self, why: StopReason) -> &'static str {
        match (&self.intent, why) {
            (Intent::Stop(_) | Intent::StopNow(_), _) => "it drains: a stop was requested",
            (_, StopReason::LeaseLost) => "it drains: another supervisor has the lease",
            (_, StopReason::Unconfirmed) => "it drains: the store does not confirm the lease",
            (_, StopReason::Hung) => "it drains: it hangs",
            (_, StopReason::MemoryLimit) => "it drains: it uses more than --memory-max",
            (Intent::Detach(_), _) => "it drains: a detach was requested",
            (Intent::Restart(_) | Intent::Run, StopReason::Asked | StopReason::Died | StopReason::Orphaned) => {
                "it drains: a restart was requested"
            }
        }
    }
}
