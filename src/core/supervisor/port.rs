//! Before a spawn: is the port free, and what did the last exit mean?

use super::state::{Poll, ProbePurpose, State, WaitingFor};
use super::{Effect, Effects, Exited, Moment, Observation, ProbeScope, Report, Run, Supervisor, Watch};
use crate::conflict::PortRuling;
use crate::fault::Fault;
use crate::policy::OnConflict;
use crate::prelude::*;
use crate::restart_policy::Cause;
use crate::units::{human, user};
use crate::{Endpoint, Owner, Phase, Verdict, exit};

/// What an exit with 0 means that has left nothing behind.
const UNSTARTED: &str = "exited with 0 before it ever answered (if COMMAND has another program start it in the background, run \
                         the gateway itself, in the foreground)";

/// Why even a requested start has to wait.
pub(super) const GATED: &str = "after one more crash OpenClaw would start with all channels disabled, see --boot-limit";

impl Supervisor {
    pub(super) fn look_at_port(&mut self, now: Moment, judging: ProbePurpose, fx: &mut Effects) {
        // Where the start would have to wait, what the port shows now would be old by then.
        let is_held = self.is_unconfirmed();
        let held = if is_held { Some(Moment::MAX) } else { self.paused_until() };
        let poll = Poll::Due(held.unwrap_or(now));
        // In a pause its port may be in use by what the operator tries; and it would be long ago that the hook ran.
        let judging = match judging {
            ProbePurpose::Prepared if self.is_paused() => ProbePurpose::Nothing,
            judging => judging,
        };
        self.state = State::Probing { poll, watch: Watch::default(), judging };
        if held.is_none() {
            self.probe(now, ProbeScope::Port, fx);
        } else if self.is_paused() && !self.has(Fault::PauseNotTold) {
            self.tell_waiting(fx);
        }
    }

    pub(super) fn judge_port(&mut self, now: Moment, sighting: &Observation, fx: &mut Effects) {
        // Only a supervisor of this gateway marks it so, and there is no other one: the lease is ours.
        if let Some(pid) = self.marked(sighting) {
            self.count_judged(now);
            return self.seek_unrecorded(now, pid, fx);
        }
        let State::Probing { poll, watch, judging } = &mut self.state else { return };
        let contended = watch.contended();
        let ruling = watch.rule(now, sighting.verdict, &self.policy);
        if watch.contended() && !contended {
            let holder = sighting.holder().cloned();
            let (kind, holder_uid) = (sighting.verdict.name(), sighting.holder_uid());
            fx.push(Effect::Report(Report::ConflictDetected { kind, holder, holder_uid }));
        }
        match ruling {
            PortRuling::Wait(at) => *poll = Poll::Due(at),
            PortRuling::Conflict => self.yield_port(now, sighting, fx),
            PortRuling::Blind => {
                let reason = format!(
                    "could not look at {} for {}, so nothing was started: {}; free the resource and start again",
                    self.policy.endpoint,
                    human(self.policy.conflict_timeout),
                    sighting.detail
                );
                self.exit(now, exit::FAILURE, reason, fx);
            }
            PortRuling::Clear => {
                let judging = core::mem::replace(judging, ProbePurpose::Nothing);
                if contended {
                    fx.push(Effect::Report(Report::ConflictResolved));
                }
                self.enter_free_port(now, judging, contended, fx);
            }
        }
    }

    /// The process on the port explains the last exit, which counts all the same.
    fn count_judged(&mut self, now: Moment) {
        if let State::Probing { judging: ProbePurpose::Refusal(run) | ProbePurpose::Unstarted(run), .. } = &self.state {
            self.restarts.after_run(now, *run, Cause::Failed, &self.policy);
        }
    }

    /// Another process has the port and keeps it.
    fn yield_port(&mut self, now: Moment, sighting: &Observation, fx: &mut Effects) {
        let reason = conflict_reason(sighting, &self.policy.endpoint);
        match self.policy.on_conflict {
            OnConflict::Exit => self.exit(now, self.policy.conflict_exit_code, reason, fx),
            OnConflict::Standby => {
                self.count_judged(now);
                let serves = matches!(sighting.verdict, Verdict::Gateway(_));
                let pid = sighting.holder().filter(|_| serves).map(|holder| holder.pid);
                self.enter_standby(now, WaitingFor::Gateway { pid }, reason, fx);
            }
        }
    }

    /// The port is free: start, unless the last exit says otherwise.
    fn enter_free_port(&mut self, now: Moment, judging: ProbePurpose, contended: bool, fx: &mut Effects) {
        match judging {
            ProbePurpose::Prepared if !contended => self.spawn(now, fx),
            // What the hook prepared is no longer so: it is called again.
            ProbePurpose::Nothing | ProbePurpose::Prepared => self.start(now, fx),
            // The port was taken when the gateway gave up, and is free now.
            ProbePurpose::Refusal(run) if contended => self.retry_after(now, run, "found its port taken", fx),
            ProbePurpose::Refusal(run) if self.may_repair() => self.call_repair(now, run, fx),
            ProbePurpose::Refusal(_) => {
                let reason = format!(
                    "the gateway exited with 78 and no other process is on {}: it cannot start with its configuration{}; \
                     see the gateway's output {}; run 'openclaw doctor', then start again",
                    self.policy.endpoint,
                    if self.was_repaired() { ", not even after its repair ('openclaw doctor --fix')" } else { "" },
                    self.messages()
                );
                self.exit(now, exit::EX_CONFIG, reason, fx);
            }
            ProbePurpose::Unstarted(run) => self.retry_after(now, run, UNSTARTED, fx),
        }
    }

    /// Starts the next gateway, unless what the store remembers says that it is too early.
    fn start(&mut self, now: Moment, fx: &mut Effects) {
        if self.is_forced() {
            self.merged.forced = false;
            return self.begin(now, fx);
        }
        let (gate, slot) = (self.restarts.gate(now, &self.policy), self.restarts.slot(&self.policy));
        if slot > now && slot >= gate {
            let why = format!(
                "gave up before: restart budget spent, or the same crash repeated; trying once every {} until a gateway \
                 stays up; 'openclaw-supervise retry-now' tries now",
                human(self.policy.backoff_max)
            );
            return self.start_at(now, slot, &why, fx);
        }
        if gate > now {
            return self.start_at(now, gate, GATED, fx);
        }
        // A restart through the service manager is a new supervisor.
        if !self.spawned
            && let Some(paced) = self.restarts.start_gate(now, &self.policy)
        {
            let why = self.restarts.pace_reason(now, &self.policy);
            return self.start_at(now, paced, &why, fx);
        }
        self.begin(now, fx);
    }

    fn begin(&mut self, now: Moment, fx: &mut Effects) {
        self.restarts.begin(now);
        self.spawned = true;
        match self.policy.pre_start {
            Some(timeout) => self.call_pre_start(now, timeout, fx),
            None => self.spawn(now, fx),
        }
    }

    fn retry_after(&mut self, now: Moment, run: Run, death: &str, fx: &mut Effects) {
        let plan = self.restarts.after_run(now, run, Cause::Failed, &self.policy);
        self.follow_plan(now, plan, death, fx);
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

fn conflict_reason(sighting: &Observation, endpoint: &Endpoint) -> String {
    // OpenClaw's own words, so that one search finds both.
    let known = format!("another gateway instance is already listening on {endpoint}");
    let holder = match &sighting.owner {
        Owner::Ours(holder) | Owner::Other(holder) => format!("pid {} ({})", holder.pid, holder.command),
        Owner::Hidden { uid } => format!("a process of {} (find it: sudo ss -ltnp)", user(*uid)),
        Owner::Unseen => "a process that cannot be seen from here (find it: sudo ss -ltnp)".to_owned(),
    };
    match sighting.verdict {
        Verdict::Booting => format!(
            "{known}, or means to: {holder} has been booting for longer than a gateway may; nothing was started; look at \
             its log, end it if it hangs, then start again"
        ),
        Verdict::Gateway(phase) => format!(
            "{known}: {holder} is {} and stays in control; nothing was started; stop it first, or give this one \
             another --port and --state-dir",
            if phase == Phase::Starting { "still warming up" } else { "healthy" }
        ),
        Verdict::Draining => format!(
            "{known}: {holder} has been draining for longer than a gateway may; nothing was started; end it, then \
             start again"
        ),
        Verdict::Silent => format!(
            "{known}, or another program that does not answer ({}): {holder}; nothing was started; stop it if it \
             hangs, or choose another --port",
            sighting.detail
        ),
        Verdict::Foreign | Verdict::Malformed | Verdict::Free | Verdict::Inconclusive => format!(
            "{known}, or another program is ({}): {holder}; nothing was started; stop it, or choose another --port",
            sighting.detail
        ),
    }
}
