//! Notices to the service manager and the log: each change once, and true.

use super::steps::Answer;
use super::{Effect, Generation, Goal, Judge, Owner, ProbeScope, Turn, Verdict, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::supervisor::TOLD_WAIT_MIN;
use openclaw_supervise_core::{Notice, Phase, Report};

type Judgement = Result<(), Broken>;

/// What the service manager has been told.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manager {
    last: Option<Notice>,
    /// The gateway of the last READY.
    readied: Option<Generation>,
}

/// Whether this is a good answer from that gateway.
fn serves(generation: Generation, answer: Answer<'_>) -> bool {
    answer.is_some_and(|(ask, sighting)| {
        matches!(ask, ProbeScope::Listener(of) | ProbeScope::Liveness(of) if of == generation)
            && matches!(sighting.verdict, Verdict::Gateway(Phase::Started | Phase::Unknown))
            && !matches!(sighting.owner, Owner::Other(_))
    })
}

impl Manager {
    /// No gateway has come up since the start, or since standby.
    pub(super) fn is_unready(self) -> bool {
        self.readied.is_none()
    }
}

/// Whether a start was planned that is far off: the manager does not wait for it.
fn is_long_wait(turn: &Turn<'_>) -> bool {
    let is_long = |effect: &Effect| matches!(effect, Effect::Report(Report::RestartScheduled { delay, .. }) if *delay >= TOLD_WAIT_MIN);
    turn.fx.iter().any(is_long)
}

/// Whether a pause ends in this step.
fn resumes(turn: &Turn<'_>) -> bool {
    turn.fx.iter().any(|effect| matches!(effect, Effect::Report(Report::SupervisionResumed { .. })))
}

impl Judge {
    /// The gateway that has come up and is neither being stopped nor about to be.
    fn up(&self) -> Option<Generation> {
        let up = self.owned.as_ref().filter(|owned| owned.started.is_some() && !owned.ending());
        up.filter(|owned| owned.examining.is_none()).map(|owned| owned.generation)
    }

    /// Judges the notices of this step, and what the service manager must know after it.
    pub(super) fn judge_notices(&mut self, turn: &Turn<'_>, answer: Answer<'_>) -> Judgement {
        for effect in turn.fx {
            if let Effect::Notify(notice) = effect {
                self.judge_notice(turn, *notice, answer)?;
            }
        }
        self.judge_manager(turn, answer)
    }

    fn judge_notice(&mut self, turn: &Turn<'_>, notice: Notice, answer: Answer<'_>) -> Judgement {
        let Manager { last, readied } = self.manager;
        must(last != Some(Notice::Stopping), "P9", "a notice to the service manager after STOPPING")?;
        match notice {
            Notice::Ready if self.lease.stands_by() => {
                must(last != Some(Notice::Ready), "P9", "READY twice for standby")?;
            }
            Notice::Ready if is_long_wait(turn) => {
                must(last != Some(Notice::Ready), "P9", "READY twice for one wait")?;
            }
            Notice::Ready if (self.is_paused() || resumes(turn)) && self.up().is_none() => {
                must(last != Some(Notice::Ready), "P9", "READY twice for one pause")?;
            }
            Notice::Ready => {
                let Some(generation) = self.up().filter(|generation| serves(*generation, answer)) else {
                    return must(false, "P9", "READY without a good answer of our gateway");
                };
                must(readied != Some(generation), "P9", "READY twice for one gateway")?;
                self.manager.readied = Some(generation);
            }
            Notice::Reloading => {
                let ready = last == Some(Notice::Ready) && readied.is_some() && readied == self.new_ending();
                must(
                    ready && self.is_replaced_on_purpose(),
                    "P9",
                    "RELOADING without a ready gateway or a planned restart",
                )?;
            }
            Notice::Stopping => {
                let exits = turn.fx.iter().any(|effect| matches!(effect, Effect::FinishSweep | Effect::Exit(_)));
                must(
                    exits || self.goal >= Goal::Detach || self.lease.lost,
                    "P9",
                    "STOPPING without a stop or an exit",
                )?;
            }
        }
        self.manager.last = Some(notice);
        Ok(())
    }

    /// The gateway that this step decided to stop.
    fn new_ending(&self) -> Option<Generation> {
        self.owned.as_ref().filter(|owned| owned.decided).map(|owned| owned.generation)
    }

    fn is_replaced_on_purpose(&self) -> bool {
        let is_withdrawn = self.owned.as_ref().is_some_and(|owned| owned.withdrawn);
        self.goal == Goal::Restart && !is_withdrawn || self.owned.as_ref().is_some_and(super::Owned::is_over_limit)
    }

    pub(super) fn is_manager_told(&self) -> bool {
        matches!(self.manager.last, Some(Notice::Ready | Notice::Stopping))
    }

    /// The service manager no longer knows of a ready gateway.
    pub(super) fn forget_ready(&mut self) {
        self.manager.readied = None;
    }

    fn judge_manager(&self, turn: &Turn<'_>, answer: Answer<'_>) -> Judgement {
        let Manager { last, readied } = self.manager;
        let ends = self.ends() || self.goal >= Goal::Detach;
        must(!ends || last == Some(Notice::Stopping), "P9", "an exit without STOPPING")?;
        let stands = |effect: &Effect| matches!(effect, Effect::Report(Report::StandbyEntered { .. }));
        let waits = self.lease.stands_by() && turn.fx.iter().any(stands);
        must(!waits || last == Some(Notice::Ready), "P9", "standby without READY")?;
        must(
            !is_long_wait(turn) || ends || last == Some(Notice::Ready),
            "P9",
            "the manager waits for a start that is far off",
        )?;
        let up = self.up().filter(|generation| serves(*generation, answer));
        must(up.is_none() || readied == up, "P9", "a gateway serves and READY is not sent")?;
        let planned = readied.is_some() && readied == self.new_ending() && self.is_replaced_on_purpose();
        must(!planned || last == Some(Notice::Reloading), "P9", "a ready gateway is restarted without RELOADING")
    }

    /// A change of `/readyz` is reported, for our own gateway only.
    pub(super) fn judge_readiness(&mut self, turn: &Turn<'_>, answer: Answer<'_>) -> Judgement {
        let reported = turn.fx.iter().filter_map(|effect| match effect {
            Effect::Report(Report::ReadinessChanged { generation, readiness }) => Some((*generation, readiness)),
            _ => None,
        });
        let reported: Vec<_> = reported.collect();
        let seen = self.up().and_then(|generation| {
            let (_, sighting) = answer.filter(|(_, sighting)| !matches!(sighting.owner, Owner::Other(_)))?;
            Some((generation, sighting.readiness.as_ref()?))
        });
        let news = seen.filter(|(_, readiness)| {
            let known = self.owned.as_mut().and_then(|owned| owned.ready.replace(readiness.ready));
            known != Some(readiness.ready)
        });
        must(reported == Vec::from_iter(news), "P9", "a change of readiness is reported once, when it is seen")
    }
}
