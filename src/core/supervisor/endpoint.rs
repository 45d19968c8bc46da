//! Where the gateway is looked for: before a spawn where its settings say, then where the living process serves.

use super::state::TreePhase;
use super::{Effect, Effects, Observation, Report, State, Supervisor};
use crate::endpoint::Moved;
use crate::fault::Fault;
use crate::prelude::*;
use crate::{Owner, Verdict};
use alloc::borrow::Cow;

impl Supervisor {
    /// Takes in where an answer came from. That of another process is judged as such; any other one at an endpoint that is
    /// not followed says no more than that the gateway is not at its own.
    pub(super) fn follow<'a>(&mut self, sighting: &'a Observation, fx: &mut Effects) -> Cow<'a, Observation> {
        let Some(moved) = &sighting.moved else { return Cow::Borrowed(sighting) };
        if !self.may_follow(sighting) {
            return match sighting.owner {
                Owner::Other(_) => Cow::Borrowed(sighting),
                Owner::Ours(_) | Owner::Unseen | Owner::Hidden { .. } => {
                    Cow::Owned(Observation { verdict: Verdict::Free, owner: Owner::Unseen, ..sighting.clone() })
                }
            };
        }
        let Moved { to, why } = moved.clone();
        let from = core::mem::replace(&mut self.policy.endpoint, to.clone());
        fx.push(Effect::Follow(moved.clone()));
        // Another bind mode may be reached at the same address.
        if from.to_string() != to.to_string() {
            fx.push(Effect::Report(Report::EndpointChanged { from, to, why }));
        }
        Cow::Borrowed(sighting)
    }

    /// Before a spawn there is only what the settings say. A gateway that lives is followed if it answers there: of
    /// another process the answer says nothing about ours.
    fn may_follow(&self, sighting: &Observation) -> bool {
        let lives = match &self.state {
            State::Starting { .. } | State::Running { .. } | State::Examining(_) => true,
            // Its successor is looked for where the settings say.
            State::Stopping(stopping) => !matches!(stopping.tree, TreePhase::Seeking { .. }),
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
            | State::Sweeping { .. }
            | State::Exited => false,
        };
        let answers = matches!(sighting.verdict, Verdict::Gateway(_) | Verdict::Draining);
        let is_strange = matches!(sighting.owner, Owner::Other(_)) && !self.has(Fault::StrangerFollowed);
        !lives || answers && !is_strange && !self.has(Fault::MoveNotFollowed)
    }
}
