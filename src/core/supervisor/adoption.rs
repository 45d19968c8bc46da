//! What a predecessor left: a gateway that goes on, the rest of one, or only its record.

use super::recovery::SEARCH_TIME_MAX;
use super::state::{Adopting, Boot, Child, Ending, Overuse, Poll, Search, State, StopReason};
use super::stop::LOST;
use super::{Effect, Effects, Exited, Intent, Moment, Report, Run, Supervisor};
use crate::ExitStatus;
use crate::ExitUsage;
use crate::event::Remains;
use crate::fault::Fault;
use crate::history::{Fact, Settled, Unfinished};
use crate::liveness::Liveness;
use crate::prelude::*;
use crate::restart_policy::Cause;
use crate::{Observation, Owner, Verdict, exit};
use core::time::Duration;

/// The pause before the next look where a mark was seen and could not be followed.
const UNRECORDED_PAUSE: Duration = Duration::from_secs(1);
const MARK_GONE: &str = "a process with our mark was on the port and could not be found again";

impl Supervisor {
    /// Looks for the gateway of the record.
    pub(super) fn seek_left(&mut self, now: Moment, left: Unfinished, fx: &mut Effects) {
        self.generation = left.generation;
        self.restarts.begin(left.spawned);
        self.state = State::Adopting(Adopting { left: Some(left), search: Search::new(now) });
        fx.push(Effect::Adopt { generation: left.generation });
    }

    /// Looks for a gateway that bears our mark although no record speaks of it: the store was lost.
    pub(super) fn seek_unrecorded(&mut self, now: Moment, marked: i32, fx: &mut Effects) {
        self.generation += 1;
        self.forget_merged();
        self.lost_mark = Some(marked);
        self.state = State::Adopting(Adopting { left: None, search: Search::new(now) });
        fx.push(Effect::Adopt { generation: self.generation });
    }

    /// The process that holds the port, or is about to, where it bears our mark and has not been looked for in vain.
    pub(super) fn marked(&self, sighting: &Observation) -> Option<i32> {
        match &sighting.owner {
            Owner::Ours(holder) if sighting.verdict != Verdict::Free && self.lost_mark != Some(holder.pid) => {
                Some(holder.pid)
            }
            Owner::Ours(_) | Owner::Other(_) | Owner::Unseen | Owner::Hidden { .. } => None,
        }
    }

    /// Descriptors or memory are short, or `/proc` cannot be read: it is tried again.
    pub(super) fn on_adopt_failed(&mut self, now: Moment, why: String, fx: &mut Effects) {
        let is_ending = self.is_ending() && !self.has(Fault::AdoptingIgnoresStop);
        let State::Adopting(adopting) = &mut self.state else { return };
        adopting.search.fail(now, why);
        if is_ending {
            let adopting = adopting.clone();
            self.give_up_search(now, &adopting, fx);
        }
    }

    pub(super) fn tick_adopting(&mut self, now: Moment, fx: &mut Effects) {
        let State::Adopting(adopting) = &mut self.state else { return };
        if adopting.search.is_over(now) {
            let adopting = adopting.clone();
            self.give_up_search(now, &adopting, fx);
        } else if adopting.search.ask_again(now) {
            fx.push(Effect::Adopt { generation: self.generation });
        }
    }

    /// A stop or a detach waits for one more answer, and not for long; a second stop not even so long where the last try
    /// failed.
    pub(super) fn shorten_search(&mut self, now: Moment, fx: &mut Effects) {
        let is_hurried = matches!(self.intent, Intent::StopNow(_));
        let is_deaf = self.has(Fault::AdoptingIgnoresStop);
        let State::Adopting(adopting) = &mut self.state else { return };
        if is_deaf {
            adopting.search.wait_for_ever();
        } else if is_hurried && adopting.search.trouble().is_some() {
            let adopting = adopting.clone();
            self.give_up_search(now, &adopting, fx);
        } else {
            adopting.search.shorten(now);
            self.tick_adopting(now, fx);
        }
    }

    /// Ends without the answer. What may be there is left alone: nothing proves that it is ours.
    fn give_up_search(&mut self, now: Moment, adopting: &Adopting, fx: &mut Effects) {
        let why = adopting.search.trouble().unwrap_or("no answer came");
        let left = format!("an earlier gateway could not be looked for ({why}) and may still be running");
        let next = match adopting.left {
            Some(_) => "raise the limit on open files or free memory, then start again: it is looked for first",
            // The store was lost: only its mark shows it.
            None => "raise the limit on open files or free memory, and look for its processes before starting again",
        };
        let (code, reason) = match &self.intent {
            Intent::Detach(by) => (exit::OK, format!("left as asked by {by}; {left}")),
            Intent::Stop(by) | Intent::StopNow(by) => {
                (exit::FAILURE, format!("stopped as asked by {by}, but {left}; to end it, {next}"))
            }
            Intent::Run | Intent::Restart(_) => {
                let time = crate::report::human(SEARCH_TIME_MAX);
                (exit::FAILURE, format!("nothing was started: for {time} {left}; {next}"))
            }
        };
        self.exit(now, code, reason, fx);
    }

    pub(super) fn on_adopted(&mut self, now: Moment, remains: Remains, fx: &mut Effects) {
        let State::Adopting(Adopting { left, .. }) = self.state else { return };
        if !matches!(remains, Remains::Nothing { .. }) {
            self.lost_mark = None;
        }
        // What was reported when it ended is known.
        let is_told = left.is_some_and(|left| left.died.is_some());
        let remains = match remains {
            Remains::Unseen { pid } if is_told || self.has(Fault::UnseenIsEnded) => Remains::Nothing { pid: Some(pid) },
            remains => remains,
        };
        match remains {
            // It survived a kill, and its end was told of then.
            Remains::Leader { pid, .. } if let Some(Unfinished { died: Some(death), spawned, .. }) = left => {
                self.clear_orphans(now, Child::new(pid, spawned, true), left, death, fx);
            }
            Remains::Leader { pid, differs } => self.enter_adopted(now, pid, differs, left, fx),
            Remains::Orphans { pid } if !self.has(Fault::OrphansForgotten) => {
                let child = Child::new(pid.unwrap_or(0), left.map_or(now, |left| left.spawned), true);
                let death = self.tell_lost(now, child, left, fx);
                self.clear_orphans(now, child, left, death, fx);
            }
            Remains::Nothing { pid: None } if left.is_some() => {
                // Its supervisor was killed between writing its intent down and the spawn, or it is a successor that is
                // gone by now.
                let fact = Fact::Settled(Settled::NeverStarted);
                fx.push(Effect::Remember { generation: self.generation, fact });
                self.go_on_unborn(now, "was never started, or ended before it was found", fx);
            }
            Remains::Orphans { pid } | Remains::Nothing { pid } => {
                // Who was there a moment ago is not there now: the port will show what that means.
                let Some(left) = left else { return self.look_again(now, fx) };
                let child = Child::new(pid.unwrap_or(0), left.spawned, true);
                let end = self.tell_lost(now, child, Some(left), fx);
                self.settle_lost(now, left, child, end, fx);
            }
            Remains::Unseen { pid } => {
                let Some(left) = left else { return self.look_again(now, fx) };
                let generation = self.generation;
                fx.push(Effect::Report(Report::GatewayUnseen { generation, pid }));
                fx.push(Effect::Remember { generation, fact: Fact::Unseen });
                // For the pace of the next start it counts as ended now, in an unknown way.
                let child = Child::new(pid, left.spawned, true);
                self.settle_lost(now, left, child, (ExitStatus::Unknown, now), fx);
            }
        }
    }

    fn settle_lost(
        &mut self,
        now: Moment,
        left: Unfinished,
        child: Child,
        (death, at): (ExitStatus, Moment),
        fx: &mut Effects,
    ) {
        let started = left.started;
        let healthy_until = left.healthy_until.or(started).unwrap_or(at).min(at);
        let run = Run { started, healthy_until, ended: at, clean: false };
        let clean = self.ended_cleanly(&run, death);
        self.settle_run(now, Run { clean, ..run }, StopReason::Orphaned, death, child, fx);
    }

    /// Who was there a moment ago is not there now.
    fn look_again(&mut self, now: Moment, fx: &mut Effects) {
        self.start_at(now, now + UNRECORDED_PAUSE, MARK_GONE, fx);
        self.follow_intent(now, fx);
    }

    fn enter_adopted(
        &mut self,
        now: Moment,
        pid: i32,
        differs: Option<String>,
        left: Option<Unfinished>,
        fx: &mut Effects,
    ) {
        let spawned = left.map_or(now, |left| left.spawned);
        if left.is_none() {
            self.restarts.begin(now);
        }
        self.born = true;
        self.begin_trail();
        let child = Child::new(pid, spawned, true);
        let (generation, age) = (self.generation, now.saturating_sub(spawned));
        fx.push(Effect::Report(Report::GatewayAdopted { generation, pid, age, differs }));
        let poll = Poll::Due(now);
        self.state = match left.and_then(|left| Some((left.started?, left.healthy_until))) {
            Some((started, healthy_until)) if !self.has(Fault::AdoptedIsNew) => {
                let liveness = Liveness::resumed(now, healthy_until.unwrap_or(started));
                let stable = liveness.healthy_until().saturating_sub(started) >= self.policy.stable_after;
                State::Running { child, poll, started, liveness, stable, overuse: Overuse::Samples(0) }
            }
            _ => State::Starting { child, poll, boot: Boot::new(now) },
        };
        self.follow_intent(now, fx);
    }

    /// Reports the end of a gateway that died while no supervisor ran, unless its own one still reported it.
    fn tell_lost(
        &mut self,
        now: Moment,
        child: Child,
        left: Option<Unfinished>,
        fx: &mut Effects,
    ) -> (ExitStatus, Moment) {
        match left {
            Some(Unfinished { died: Some(told), .. }) => return told,
            // Nothing on record began, so nothing on record ends.
            None => return (ExitStatus::Unknown, now),
            Some(Unfinished { died: None, .. }) => {}
        }
        let uptime = now.saturating_sub(child.spawned);
        let (pid, death, cause) = (child.pid, ExitStatus::Unknown, LOST);
        let generation = self.generation;
        self.tell_exit(Exited { generation, pid, death, uptime, toll: ExitUsage::default(), cause }, fx);
        fx.push(Effect::Remember { generation, fact: Fact::Died(death) });
        (death, now)
    }

    /// Anything settled here follows a start of ours: a gateway that was never seen up by us began with the record.
    pub(super) fn settle_run(
        &mut self,
        now: Moment,
        run: Run,
        why: StopReason,
        death: ExitStatus,
        child: Child,
        fx: &mut Effects,
    ) {
        let age = run.ended.saturating_sub(child.spawned);
        let told = format!("ended with {death} after {}", crate::report::human(age));
        let unasked = self.intent == Intent::Run;
        self.decide(now, Ending { child, run, age, why, death, unasked, reason: LOST, told }, fx);
    }

    /// What the end of a run counts as goes on record before anything follows from it.
    pub(super) fn remember_settled(&self, run: Run, cause: Cause, fx: &mut Effects) {
        if !self.has(Fault::EndNotRecorded) {
            let fact = Fact::Settled(Settled::Ran(run, cause));
            fx.push(Effect::Remember { generation: self.generation, fact });
        }
    }
}
