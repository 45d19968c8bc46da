//! Before a spawn: whose is the port, and what did the last exit mean?

use super::{
    Ask, Child, Effect, Effects, Exited, Intent, Judging, Moment, Poll, Report, Run, Sighting, SpawnFailure, State,
    Supervisor, Watch,
};
use crate::core::conflict::Ruling;
use crate::core::fault::Fault;
use crate::core::restart_policy::Cause;
use crate::core::{Owner, Phase, Verdict, exit};

impl Supervisor {
    pub(super) fn look_at_port(&mut self, now: Moment, judging: Judging, fx: &mut Effects) {
        self.state = State::Probing { poll: Poll::Due(now), watch: Watch::default(), judging };
        self.probe(now, Ask::Port, fx);
    }

    pub(super) fn judge_port(&mut self, now: Moment, sighting: &Sighting, fx: &mut Effects) {
        let State::Probing { poll, watch, judging } = &mut self.state else { return };
        let contended = watch.contended();
        let ruling = watch.rule(now, sighting.verdict, &self.policy);
        if watch.contended() && !contended {
            let holder = sighting.holder().cloned();
            fx.push(Effect::Report(Report::ConflictDetected { kind: sighting.verdict, holder }));
        }
        match ruling {
            Ruling::Wait(at) => *poll = Poll::Due(at),
            Ruling::Conflict => {
                let reason = conflict_reason(sighting, &self.policy.url);
                self.exit(self.policy.conflict_exit_code, reason, fx);
            }
            Ruling::Blind => {
                let reason = format!(
                    "could not look at {} for {}, so nothing was started: {}; free the resource and start again",
                    self.policy.url,
                    crate::core::report::human(self.policy.conflict_timeout),
                    sighting.detail
                );
                self.exit(exit::FAILURE, reason, fx);
            }
            Ruling::Clear => {
                let judging = std::mem::replace(judging, Judging::Nothing);
                if contended {
                    fx.push(Effect::Report(Report::ConflictResolved));
                }
                self.enter_free_port(now, judging, contended, fx);
            }
        }
    }

    /// The port is free: start, unless the last exit says otherwise.
    fn enter_free_port(&mut self, now: Moment, judging: Judging, contended: bool, fx: &mut Effects) {
        match judging {
            Judging::Nothing => {
                self.generation += 1;
                self.state = State::Spawning;
                fx.push(Effect::Spawn { generation: self.generation });
            }
            // Somebody was there when the gateway gave up, and has left since.
            Judging::Refusal(run) if contended => self.retry_after(now, run, "found its port taken", fx),
            Judging::Refusal(_) => {
                let reason = format!(
                    "the gateway exited with 78 and nobody else is on {}: it cannot start with its configuration; \
                     its own messages stand above; run 'openclaw doctor', then start again",
                    self.policy.url
                );
                self.exit(exit::NO_USE, reason, fx);
            }
            Judging::Unstarted(run) => self.retry_after(now, run, "exited with 0 before it ever answered", fx),
        }
    }

    fn retry_after(&mut self, now: Moment, run: Run, death: &str, fx: &mut Effects) {
        let plan = self.restarts.after_run(now, run, Cause::Failed, &self.policy);
        self.follow_plan(now, plan, death, fx);
    }

    pub(super) fn on_spawned(&mut self, now: Moment, pid: i32, fx: &mut Effects) {
        if !matches!(self.state, State::Spawning) {
            return;
        }
        let (generation, attempt) = (self.generation, self.restarts.attempt());
        fx.push(Effect::Report(Report::GatewaySpawned { generation, pid, attempt }));
        let child = Child { pid, spawned: now };
        let poll = Poll::Due(now + super::running::STARTUP_POLL_MIN);
        let armed = if self.has(Fault::StartupBudgetIgnored) { Moment::MAX } else { now };
        self.state = State::Starting { child, poll, armed, failed: 0, listening: false };
        if !self.has(Fault::StopLostWhileSpawning) {
            self.follow_intent(now, fx);
        }
    }

    pub(super) fn on_spawn_failed(&mut self, now: Moment, failure: &SpawnFailure, fx: &mut Effects) {
        if !matches!(self.state, State::Spawning) {
            return;
        }
        let (SpawnFailure::Program(why) | SpawnFailure::Resources(why)) = failure;
        fx.push(Effect::Report(Report::SpawnFailed { generation: self.generation, why: why.clone() }));
        match (&self.intent, failure) {
            (Intent::Stop(_) | Intent::StopNow(_) | Intent::Detach(_), _) => {
                self.state = State::Idle;
                self.follow_intent(now, fx);
            }
            // A program that was there before may be in the middle of an update; one that never was will not come.
            (_, SpawnFailure::Program(_)) if self.generation == 1 => self.exit(exit::NO_USE, why.clone(), fx),
            (Intent::Run | Intent::Restart(_), _) => {
                self.intent = Intent::Run;
                let plan = self.restarts.after_spawn_failure(now, &self.policy);
                self.follow_plan(now, plan, &format!("could not be started: {why}"), fx);
            }
        }
    }

    /// Tells the one end of the present gateway.
    pub(super) fn tell_exit(&self, exited: Exited, fx: &mut Effects) {
        debug_assert_eq!(exited.generation, self.generation);
        if self.has(Fault::ExitToldTwice) {
            fx.push(Effect::Report(Report::GatewayExited(exited.clone())));
        }
        fx.push(Effect::Report(Report::GatewayExited(exited)));
    }
}

fn conflict_reason(sighting: &Sighting, url: &str) -> String {
    // OpenClaw's own words, so that one search finds both.
    let known = format!("another gateway instance is already listening on {url}");
    let holder = match &sighting.owner {
        Owner::Ours(holder) | Owner::Other(holder) => format!("pid {} ({})", holder.pid, holder.command),
        Owner::Unseen => "a process that cannot be seen from here".to_owned(),
    };
    match sighting.verdict {
        Verdict::Gateway(phase) => format!(
            "{known}: {holder} is {} and stays in control; nothing was started; stop it first, or give this one \
             another --port and --state-dir",
            if phase == Phase::Starting { "warming up" } else { "healthy" }
        ),
        Verdict::Draining => format!(
            "{known}: {holder} has been draining for longer than a gateway may; nothing was started; end it, then \
             start again"
        ),
        Verdict::Silent => format!(
            "{known}, or something that never answers ({}): held by {holder}; nothing was started; end it if it \
             hangs, or choose another --port",
            sighting.detail
        ),
        Verdict::Foreign | Verdict::Free | Verdict::Inconclusive => format!(
            "{known}, or something that is no gateway ({}): held by {holder}; nothing was started; stop it, or choose \
             another --port",
            sighting.detail
        ),
    }
}
