//! While the gateway's process lives: is it coming up, is it still serving?

use super::state::{Boot, Child, EvidenceFound, Overuse, Poll, Repair, State, Was};
use super::{Effect, Effects, Moment, Observation, ProbeScope, Report, Supervisor, Usage};
use crate::fault::{Fault, Planted};
use crate::history::Fact;
use crate::liveness::{Extension, FAILED_PROBES_MIN, HealthFinding, Hung, Liveness};
use crate::prelude::*;
use crate::stall::Stall;
use crate::{BlockedWrite, Depth, Excess, Generation, Notice, Owner, Phase, Policy, Verdict};
use core::time::Duration;

/// The first wait between two looks at a gateway that boots.
pub(super) const STARTUP_POLL_MIN: Duration = Duration::from_millis(50);

/// The longest. A boot takes 5 to 300 s; a second more or less of knowing it does not matter.
const STARTUP_POLL_MAX: Duration = Duration::from_secs(1);

/// One look in so many asks for the owner of the listener even if all is well: about once a minute.
const OWNER_LOOKS: u64 = 12;

/// How many samples in a row must be over `--memory-max`: a peak is no leak.
const SAMPLES_OVER: u32 = 3;

impl Supervisor {
    pub(super) fn tick_starting(&mut self, now: Moment, fx: &mut Effects) {
        let State::Starting { child, poll, boot } = &mut self.state else { return };
        let is_over = boot.deadline(&self.policy).is_some_and(|at| at <= now) && self.paused.is_none();
        let (generation, budget) = (self.generation, self.policy.startup_timeout);
        if is_over && !boot.is_alive(now, &self.policy) {
            if let Some(stall) = boot.stall(now, &self.policy) {
                let told = boot.stalls.retell(now);
                return tell_stall(generation, stall, told, budget, fx);
            }
            let (child, poll, boot) = (*child, *poll, boot.clone());
            let hung =
                Hung { last_good: Duration::ZERO, failed_probes: boot.failed, why: "it never came up", limit: budget };
            fx.push(Effect::Report(Report::StartupTimedOut { generation, budget }));
            return self.examine(now, child, poll, Was::Booting(boot), hung, fx);
        }
        if is_over {
            boot.degraded = true;
            let detail = self.told.as_ref().map_or_else(String::new, |sighting| sighting.detail.clone());
            fx.push(Effect::Report(Report::LivenessDegraded { generation, detail }));
        }
        if poll.wake(&self.policy) <= now {
            // The next sample may come too late for the end of its time.
            let next = now.saturating_add(self.policy.probe_interval).saturating_add(self.policy.probe_timeout);
            let is_last = boot.deadline(&self.policy).is_some_and(|at| at <= next) || boot.stalls.is_blocked();
            let depth = boot.stalls.depth(now);
            if is_last || !boot.stalls.has_samples() || self.ticket.is_multiple_of(OWNER_LOOKS) {
                self.measure(depth, fx);
            }
            self.probe(now, ProbeScope::Listener(generation), fx);
        }
    }

    pub(super) fn judge_boot(&mut self, now: Moment, sighting: &Observation, fx: &mut Effects) {
        let generation = self.generation;
        let interval = self.policy.probe_interval;
        let State::Starting { child, poll, boot } = &mut self.state else { return };
        child.note_answer(sighting);
        let up = Effect::Remember { generation, fact: Fact::Started };
        let planted = self.policy.planted;
        let ours = !matches!(sighting.owner, Owner::Other(_)) || planted.is(Fault::OwnerNotChecked);
        match sighting.verdict {
            Verdict::Foreign if planted.is(Fault::ForeignIsGateway) => {
                let (child, poll, liveness) = (*child, Poll::Due(now.saturating_add(interval)), Liveness::new(now));
                fx.push(Effect::Report(Report::GatewayStarted { generation, pid: child.pid, boot: now }));
                fx.push(up);
                self.state =
                    State::Running { child, poll, started: now, liveness, stable: false, overuse: Overuse::Samples(0) };
                return;
            }
            Verdict::Gateway(Phase::Started | Phase::Unknown) if ours => {
                let (child, age) = (*child, now.saturating_sub(child.spawned));
                if !boot.listening {
                    fx.push(Effect::Report(Report::GatewayListening { generation, pid: child.pid }));
                }
                if boot.degraded {
                    let after = now.saturating_sub(child.spawned);
                    fx.push(Effect::Report(Report::LivenessRecovered { generation, after }));
                }
                fx.push(Effect::Report(Report::GatewayStarted { generation, pid: child.pid, boot: age }));
                fx.push(up);
                let poll = Poll::Due(now.saturating_add(interval));
                let liveness = Liveness::new(now);
                self.state =
                    State::Running { child, poll, started: now, liveness, stable: false, overuse: Overuse::Samples(0) };
                self.leads_itself |= child.listener == Some(child.pid) && !child.adopted && self.follows == 0;
                return self.come_up(now, fx);
            }
            Verdict::Gateway(_) | Verdict::Draining => {
                if ours {
                    boot.resume(now);
                } else {
                    boot.miss();
                }
                if ours && !boot.listening {
                    boot.listening = true;
                    if planted.is(Fault::ReadyTooEarly) {
                        fx.push(Effect::Notify(Notice::Ready));
                    }
                    fx.push(Effect::Report(Report::GatewayListening { generation, pid: child.pid }));
                }
            }
            Verdict::Foreign if ours => boot.answer(Some(now)),
            Verdict::Free | Verdict::Booting | Verdict::Silent | Verdict::Foreign | Verdict::Malformed => boot.miss(),
            Verdict::Inconclusive => {}
        }
        // The wait grows with the age of the boot: a quick one is seen at once, a slow one costs few probes.
        let age = now.saturating_sub(child.spawned);
        let pause = (age / 8).clamp(STARTUP_POLL_MIN, STARTUP_POLL_MAX).min(interval);
        *poll = poll.next(now, pause);
    }

    /// It serves.
    fn come_up(&mut self, now: Moment, fx: &mut Effects) {
        self.repair = Repair::Untried;
        if self.tell_ready(fx) {
            self.negotiate(fx);
        }
        self.tick_handoffs(now, fx);
    }

    pub(super) fn tick_running(&mut self, now: Moment, fx: &mut Effects) {
        if let State::Running { overuse: Overuse::Proven { until, .. }, .. } = &self.state
            && *until <= now
        {
            return self.end_for_memory(now, EvidenceFound::default(), fx);
        }
        self.check_hung(now, fx);
        let State::Running { poll, liveness, .. } = &self.state else { return };
        if poll.wake(&self.policy) <= now {
            let generation = self.generation;
            // A stranger may have slipped in between two good answers, and it may be the one that drains or starts.
            let is_odd = !liveness.is_healthy() || !liveness.is_serving();
            let doubtful = is_odd || self.ticket.is_multiple_of(OWNER_LOOKS);
            let ask = if doubtful { ProbeScope::Listener(generation) } else { ProbeScope::Liveness(generation) };
            // While all is well, a look at the rest about once a minute is enough.
            let depth = liveness.depth(now);
            let usual = self.policy.memory_max_kb.is_some() || self.ticket.is_multiple_of(OWNER_LOOKS);
            if let Some(depth) = depth.or(usual.then_some(Depth::Usual)) {
                self.measure(depth, fx);
            }
            self.probe(now, ask, fx);
        }
    }

    pub(super) fn judge_liveness(&mut self, now: Moment, sighting: &Observation, fx: &mut Effects) {
        let generation = self.generation;
        let State::Running { child, poll, liveness, started, stable, overuse } = &mut self.state else { return };
        child.note_answer(sighting);
        *poll = poll.next(now, self.policy.probe_interval);
        let planted = self.policy.planted;
        let verdict = match verdict_on_ours(sighting, planted) {
            Verdict::Draining if planted.is(Fault::DrainingIsHealthy) => Verdict::Gateway(Phase::Started),
            Verdict::Gateway(_) if planted.is(Fault::RecoveryMissed) && !liveness.is_healthy() => Verdict::Inconclusive,
            verdict => verdict,
        };
        let mut sample = None;
        match liveness.observe(now, verdict) {
            HealthFinding::Unchanged => {}
            HealthFinding::Missed => {
                fx.push(Effect::Report(Report::LivenessMissed { generation, detail: sighting.detail.clone() }));
                // What it uses from now on is compared with this.
                sample = liveness.depth(now);
            }
            HealthFinding::Degraded => {
                fx.push(Effect::Report(Report::LivenessDegraded { generation, detail: sighting.detail.clone() }));
            }
            HealthFinding::Recovered(after) => {
                fx.push(Effect::Report(Report::LivenessRecovered { generation, after }));
            }
        }
        // It is about to give its memory back.
        if !liveness.is_serving()
            && let Overuse::Proven { .. } = overuse
        {
            *overuse = Overuse::Samples(0);
        }
        if !*stable && liveness.healthy_until().saturating_sub(*started) >= self.policy.stable_after {
            *stable = true;
            fx.push(Effect::Remember { generation, fact: Fact::Stable });
        }
        if let Some(depth) = sample {
            self.measure(depth, fx);
        }
        if matches!(verdict, Verdict::Gateway(Phase::Started | Phase::Unknown)) {
            self.come_up(now, fx);
        }
        self.check_hung(now, fx);
    }

    fn check_hung(&mut self, now: Moment, fx: &mut Effects) {
        let generation = self.generation;
        let is_paused = self.is_paused() && !self.has(Fault::PausedHangKilled);
        let State::Running { child, poll, started, liveness, stable, overuse } = &mut self.state else { return };
        let Some(hung) = liveness.hung(now, &self.policy).filter(|_| !is_paused) else { return };
        // It is over its memory limit as well, and is ended for that.
        if let Overuse::Proven { .. } = overuse {
            return self.end_for_memory(now, EvidenceFound::default(), fx);
        }
        if let Some(Extension { stall, by }) = liveness.extend(now, &self.policy) {
            let told = liveness.retell(now);
            return tell_stall(generation, stall, told, by, fx);
        }
        let was = Was::Up { started: *started, liveness: liveness.clone(), stable: *stable };
        let (child, poll) = (*child, *poll);
        self.examine(now, child, poll, was, hung, fx);
    }

    /// Has a sample taken beside a probe, of the process that listens: a launcher need not be the gateway.
    fn measure(&self, depth: Depth, fx: &mut Effects) {
        let (State::Starting { child, .. } | State::Running { child, .. }) = &self.state else { return };
        let is_measured = self.policy.memory_max_kb.is_some() || self.policy.measures_tree;
        let tree = is_measured && matches!(self.state, State::Running { .. });
        fx.push(Effect::Measure { generation: self.generation, listener: child.listener, depth, tree });
    }

    pub(super) fn on_measured(&mut self, now: Moment, sample: Usage, fx: &mut Effects) {
        if self.holds().is_some() {
            self.trail.measure(now, sample.clone());
        }
        let generation = self.generation;
        let tree_rss_kb = sample.tree_rss_kb;
        let limit = self.policy.memory_max_kb;
        let needed = if self.has(Fault::MemoryPeakIsLeak) { 1 } else { SAMPLES_OVER };
        let (liveness, overuse) = match &mut self.state {
            State::Running { liveness, overuse, .. } => (liveness, overuse),
            // Its memory counts once it serves.
            State::Starting { boot, .. } => {
                if let Some(blocked) = boot.measure(now, sample) {
                    fx.push(Effect::Report(Report::LivenessBlocked { generation, blocked }));
                }
                return;
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
            | State::Exited => return,
        };
        if let Some(blocked) = liveness.measure(now, sample) {
            fx.push(Effect::Report(Report::LivenessBlocked { generation, blocked }));
        }
        // A sample that could not be taken says nothing.
        let (Some(limit_kb), Some(tree_rss_kb)) = (limit, tree_rss_kb) else { return };
        if self.paused.is_some() {
            return forget_overuse(overuse);
        }
        let Overuse::Samples(samples) = overuse else { return };
        // One that ends or restarts of its own accord is about to give memory back; what it keeps shows once it serves.
        *samples = if tree_rss_kb > limit_kb && liveness.is_serving() { *samples + 1 } else { 0 };
        if *samples >= needed {
            self.weigh(now, Excess { tree_rss_kb, limit_kb }, fx);
        }
    }
}

/// It is counted anew.
pub(super) fn forget_overuse(overuse: &mut Overuse) {
    *overuse = Overuse::Samples(0);
}

/// Reports what keeps a gateway from answering. `told` is a blocked write that is to be reported now.
fn tell_stall(generation: Generation, stall: Stall, told: Option<BlockedWrite>, by: Duration, fx: &mut Effects) {
    let extended = |stall| Effect::Report(Report::LivenessExtended { generation, stall, by });
    match stall {
        Stall::Blocked(_) => {
            fx.extend(told.map(|blocked| Effect::Report(Report::LivenessBlocked { generation, blocked })));
        }
        stall @ (Stall::Starved { .. } | Stall::Busy(_)) => fx.push(extended(stall)),
    }
}

impl Boot {
    /// It answers as a gateway does, with the time that the operator set for a boot, from now on if it had none left.
    fn resume(&mut self, now: Moment) {
        if self.alive.is_some() && self.degraded {
            self.armed = now;
        }
        self.answer(None);
    }

    fn answer(&mut self, alive: Option<Moment>) {
        (self.alive, self.missed) = (alive, 0);
        self.stalls.clear();
    }

    /// What keeps it from coming up, if it does not answer. Its time begins anew then.
    fn stall(&mut self, now: Moment, policy: &Policy) -> Option<Stall> {
        // One that answers has used up the time that the operator set. Its work is what a boot is made of.
        let stall = (self.missed >= FAILED_PROBES_MIN).then(|| self.stalls.judge(false, policy)).flatten()?;
        self.begin_window(now);
        Some(stall)
    }

    /// Takes in a sample. Returns a blocked write that is to be reported again.
    fn measure(&mut self, now: Moment, sample: Usage) -> Option<BlockedWrite> {
        let was_blocked = self.stalls.is_blocked();
        self.stalls.measure(now, sample, false);
        if was_blocked && !self.stalls.writes_on() {
            self.begin_window(now);
        }
        self.stalls.retell(now)
    }

    fn begin_window(&mut self, now: Moment) {
        (self.armed, self.missed) = (now, 0);
        self.stalls.begin(now);
    }

    /// Time has passed in which no answer could come.
    pub(super) fn rearm(&mut self, now: Moment) {
        self.begin_window(now);
        self.alive = self.alive.map(|_| now);
    }

    fn miss(&mut self) {
        (self.failed, self.missed) = (self.failed + 1, self.missed + 1);
    }
}

impl Child {
    /// Takes in an answer of its own.
    pub(super) fn note_answer(&mut self, sighting: &Observation) {
        if let Verdict::Gateway(_) | Verdict::Draining | Verdict::Foreign = sighting.verdict {
            match &sighting.owner {
                Owner::Ours(holder) => (self.answered, self.listener) = (true, Some(holder.pid)),
                Owner::Unseen | Owner::Hidden { .. } => self.answered = true,
                Owner::Other(_) => {}
            }
        }
    }
}

/// The verdict on a gateway that has been up: an answer of another process, which took the port meanwhile, is none of its
/// own. What cannot be seen (hidepid) counts as ours: the port was free before our child took it.
pub(super) fn verdict_on_ours(sighting: &Observation, planted: Planted) -> Verdict {
    let stranger = matches!(sighting.owner, Owner::Other(_)) && sighting.verdict != Verdict::Free;
    if stranger && !planted.is(Fault::StrangerAnswersForOurs)
        || sighting.verdict == Verdict::Foreign && planted.is(Fault::DegradedIsHung)
    {
        Verdict::Malformed
    } else {
        sighting.verdict
    }
}
