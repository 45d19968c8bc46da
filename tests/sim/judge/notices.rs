//! What the service manager and the log are told of a gateway: each turn once, and the truth.

use super::steps::Answer;
use super::{Effect, Generation, Judge, Owner, ProbeScope, Turn, Verdict, Wish, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::{Notice, Phase, Report};

type Judgement = Result<(), Broken>;

/// The end of a service manager.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Manager {
    last: Option<Notice>,
    /// The gateway that it was last told to be ready.
    readied: Option<Generation>,
}

/// Whether this is a good answer of that gateway.
fn serves(generation: Generation, answer: Answer<'_>) -> bool {
    answer.is_some_and(|(ask, sighting)| {
        matches!(ask, ProbeScope::Listener(of) | ProbeScope::Liveness(of) if of == generation)
            && matches!(sighting.verdict, Verdict::Gateway(Phase::Started | Phase::Unknown))
            && !matches!(sighting.owner, Owner::Other(_))
    })
}

impl Judge {
    /// The gateway that has come up and is neither being ended nor about to be.
    fn up(&self) -> Option<Generation> {
        let up = self.owned.as_ref().filter(|owned| owned.started.is_some() && !owned.ending());
        up.filter(|owned| owned.examining.is_none()).map(|owned| owned.generation)
    }

    /// What the service manager is told with this step, and what it must know after it.
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
        must(last != Some(Notice::Stopping), "P9", "whoever ends has nothing more to say to the service manager")?;
        match notice {
            Notice::Ready if self.lease.stands_by() => {
                must(last != Some(Notice::Ready), "P9", "READY again for standing by")?;
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
                must(ready && self.is_replaced_on_purpose(), "P9", "RELOADING without a ready gateway and a plan")?;
            }
            Notice::Stopping => {
                let exits = turn.fx.iter().any(|effect| matches!(effect, Effect::FinishSweep | Effect::Exit(_)));
                must(exits || self.wish >= Wish::Detach, "P9", "STOPPING without an end")?;
            }
        }
        self.manager.last = Some(notice);
        Ok(())
    }

    /// The gateway whose end was decided just now.
    fn new_ending(&self) -> Option<Generation> {
        self.owned.as_ref().filter(|owned| owned.decided).map(|owned| owned.generation)
    }

    fn is_replaced_on_purpose(&self) -> bool {
        self.wish == Wish::Restart || self.owned.as_ref().is_some_and(super::Owned::is_over_limit)
    }

    /// From here on no gateway of ours is what the service manager knows of.
    pub(super) fn forget_ready(&mut self) {
        self.manager.readied = None;
    }

    fn judge_manager(&self, turn: &Turn<'_>, answer: Answer<'_>) -> Judgement {
        let Manager { last, readied } = self.manager;
        let ends = self.ends() || self.wish >= Wish::Detach;
        must(!ends || last == Some(Notice::Stopping), "P9", "an end without STOPPING")?;
        let stands = |effect: &Effect| matches!(effect, Effect::Report(Report::StandbyEntered { .. }));
        let waits = self.lease.stands_by() && turn.fx.iter().any(stands);
        must(!waits || last == Some(Notice::Ready), "P9", "standing by without READY")?;
        let up = self.up().filter(|generation| serves(*generation, answer));
        must(up.is_none() || readied == up, "P9", "a gateway serves and READY is not told")?;
        let planned = readied.is_some() && readied == self.new_ending() && self.is_replaced_on_purpose();
        must(!planned || last == Some(Notice::Reloading), "P9", "a ready gateway is replaced without RELOADING")
    }

    /// What `/readyz` says is told when it changes, and of our own gateway alone.
    pub(super) fn judge_readiness(&mut self, turn: &Turn<'_>, answer: Answer<'_>) -> Judgement {
        let told = turn.fx.iter().filter_map(|effect| match effect {
            Effect::Report(Report::ReadinessChanged { generation, readiness }) => Some((*generation, readiness)),
            _ => None,
        });
        let told: Vec<_> = told.collect();
        let seen = self.up().and_then(|generation| {
            let (_, sighting) = answer.filter(|(_, sighting)| !matches!(sighting.owner, Owner::Other(_)))?;
            Some((generation, sighting.readiness.as_ref()?))
        });
        let news = seen.filter(|(_, readiness)| {
            let known = self.owned.as_mut().and_then(|owned| owned.ready.replace(readiness.ready));
            known != Some(readiness.ready)
        });
        must(told == Vec::from_iter(news), "P9", "a change of readiness is told once, when it is seen")
    }
}
