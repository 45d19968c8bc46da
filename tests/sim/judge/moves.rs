//! P11: a gateway of ours is followed wherever it answers, before a spawn its settings are, and a stranger never is.

use super::steps::Answer;
use super::{Effect, Judge, Owner, ProbeScope, Turn, Verdict, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::{Moved, Report};

/// What has to be followed in this step.
fn due(answer: Answer<'_>) -> Option<&Moved> {
    let (ask, sighting) = answer?;
    let moved = sighting.moved.as_ref()?;
    let answers = matches!(sighting.verdict, Verdict::Gateway(_) | Verdict::Draining);
    let ours = answers && !matches!(sighting.owner, Owner::Other(_));
    (ask == ProbeScope::Port || ours).then_some(moved)
}

impl Judge {
    pub(super) fn judge_follow(moved: &Moved, answer: Answer<'_>) -> Result<(), Broken> {
        must(due(answer) == Some(moved), "P11", "something else is followed than our gateway and its settings")
    }

    pub(super) fn judge_move(turn: &Turn<'_>, answer: Answer<'_>) -> Result<(), Broken> {
        // Where the lease is unconfirmed, the answer is dropped.
        let unconfirmed = |effect: &Effect| matches!(effect, Effect::Report(Report::LeaseUnconfirmed { .. }));
        let follows = |effect: &Effect| matches!(effect, Effect::Follow(_)) || unconfirmed(effect);
        let follows = turn.fx.iter().any(follows);
        must(due(answer).is_none() || follows, "P11", "our gateway, or its settings, are not followed")
    }
}
