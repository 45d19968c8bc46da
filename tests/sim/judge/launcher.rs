//! A gateway behind a launcher: followed when that exits, and told to stop as well.

use super::steps::Answer;
use super::{Effect, Event, Generation, Goal, Judge, Moment, Observation, Owner, Turn, Verdict, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::{ExitStatus, Report};
use std::time::Duration;

/// The answer to a search is lost after this time.
const FOLLOW_LOST: Duration = Duration::from_secs(5);

/// How often one gateway is followed.
const FOLLOWS_MAX: u8 = 8;

impl Judge {
    /// The exit that this step settles: that of the gateway's process, or of a launcher that has left nothing to follow.
    pub(super) fn exit_of(&mut self, turn: &Turn<'_>) -> Option<(ExitStatus, Moment)> {
        let at = turn.at;
        let is_told = turn.fx.iter().any(|effect| matches!(effect, Effect::Report(Report::GatewayExited(_))));
        let owned = self.owned.as_mut().filter(|owned| owned.death.is_none())?;
        match turn.event {
            Event::LeaderExited { generation, death, .. }
                if owned.generation == *generation && owned.launcher.is_none() =>
            {
                let follows = turn.fx.iter().any(|effect| matches!(effect, Effect::SeekHeir { .. }));
                (!follows || is_told).then_some((*death, at))
            }
            Event::HeirSought { generation, pid: Some(pid) } if owned.generation == *generation => {
                if owned.launcher.take().is_some() {
                    owned.pid = *pid;
                }
                None
            }
            Event::HeirSought { generation, pid: None } if owned.generation == *generation => {
                owned.launcher.take().map(|(death, _)| (death, at))
            }
            // Two kills found nothing: the news of its exit is lost.
            Event::TreeGone { end, .. } if is_told && owned.launcher.is_none() && end.survivors == 0 => {
                Some((ExitStatus::Unknown, at))
            }
            // The search has taken too long, or the tree is killed meanwhile.
            _ if is_told => owned.launcher.take().map(|(death, _)| (death, at)),
            _ => None,
        }
    }

    /// A search for what a launcher has left.
    pub(super) fn judge_seek_heir(
        &mut self,
        turn: &Turn<'_>,
        generation: Generation,
        listener: Option<i32>,
    ) -> Result<(), Broken> {
        let Event::LeaderExited { death, .. } = turn.event else {
            return must(false, "P2", "a search without the exit of a launcher");
        };
        let Some(owned) = self.owned.as_mut().filter(|owned| owned.generation == generation) else {
            return must(false, "P2", "a search for what another gateway has left");
        };
        let launched = owned.listener.filter(|listener| *listener != owned.pid);
        must(listener == launched, "P2", "another process than the one that listens is followed")?;
        must(owned.follows < FOLLOWS_MAX && !owned.killed, "loop", "a launcher is followed without end")?;
        // The lease may end the search in the same step.
        owned.launcher = owned.death.is_none().then_some((*death, turn.at));
        owned.follows += 1;
        Ok(())
    }

    /// A gateway that serves is not given up because its launcher exits.
    pub(super) fn judge_launcher(&self, turn: &Turn<'_>) -> Result<(), Broken> {
        if let Some((_, since)) = self.owned.as_ref().and_then(|owned| owned.launcher) {
            let late = turn.at > since + FOLLOW_LOST + self.standstill + super::TICK_LATE_MAX;
            return must(!late, "owed", "the search for what a launcher has left has no end");
        }
        let Event::LeaderExited { generation, .. } = turn.event else { return Ok(()) };
        let Some(owned) = self.owned.as_ref().filter(|owned| owned.generation == *generation) else { return Ok(()) };
        let launched = owned.listener.is_some_and(|listener| listener != owned.pid);
        let serves = launched && owned.terminated.is_none() && owned.examining.is_none() && owned.follows < FOLLOWS_MAX;
        let given_up = serves && self.goal == Goal::Run && owned.death.is_some_and(|(_, at)| at == turn.at);
        must(!given_up, "P3", "a gateway is given up because its launcher has exited")
    }

    /// The second SIGTERM: only to a gateway that has not heard of the first.
    pub(super) fn judge_forwarding(
        &self,
        at: Moment,
        generation: Generation,
        pid: i32,
        answer: Answer<'_>,
    ) -> Result<(), Broken> {
        let Some(owned) = self.owned.as_ref().filter(|owned| owned.generation == generation && !owned.gone) else {
            return must(false, "P2", "SIGTERM to a process of another gateway");
        };
        let listens = pid == owned.listener.unwrap_or(owned.pid);
        // The lease may end the drain, and the search for what its launcher has left, in the same step.
        let drains = owned.terminated.is_some() && owned.death.is_none_or(|(_, died)| died == at) && !owned.killed;
        let is_due = is_served(answer, owned.listener) && owned.unheard;
        must(listens && drains && is_due, "P2", "a second SIGTERM without need")
    }

    /// A gateway that serves on after the SIGTERM to its launcher is told itself, once.
    pub(super) fn judge_unheard(&mut self, turn: &Turn<'_>, answer: Answer<'_>) -> Result<(), Broken> {
        let Some((_, sighting)) = answer else { return Ok(()) };
        let owned = self.owned.as_mut().filter(|owned| owned.unheard && !owned.killed && !owned.escalated);
        let Some(owned) = owned.filter(|owned| owned.terminated.is_some() && owned.death.is_none() && !owned.decided)
        else {
            return Ok(());
        };
        let is_its_own = answers_itself(sighting, owned.listener);
        let is_known = is_its_own
            && !matches!(
                sighting.verdict,
                Verdict::Silent | Verdict::Foreign | Verdict::Malformed | Verdict::Inconclusive
            );
        owned.unheard &= !is_known;
        let told = |effect: &Effect| matches!(effect, Effect::TerminateListener { .. } | Effect::Confirm { .. });
        let is_told = turn.fx.iter().any(told);
        must(
            is_told || !is_served(answer, owned.listener),
            "P3",
            "a gateway whose launcher was stopped does not hear of it",
        )
    }
}

/// Not for a stranger, nor for a successor.
fn answers_itself(sighting: &Observation, listener: Option<i32>) -> bool {
    match &sighting.owner {
        Owner::Other(_) => false,
        Owner::Ours(holder) => listener.is_none_or(|listener| listener == holder.pid),
        Owner::Unseen | Owner::Hidden { .. } => true,
    }
}

fn is_served(answer: Answer<'_>, listener: Option<i32>) -> bool {
    let serves =
        |sighting: &Observation| matches!(sighting.verdict, Verdict::Gateway(_)) && answers_itself(sighting, listener);
    answer.is_some_and(|(_, sighting)| serves(sighting))
}
