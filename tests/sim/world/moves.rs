//! Where gateways listen: the settings of a world change, a gateway that restarts heeds them, and some are misread by us.

use super::{Bound, World, WorldEvent};
use crate::dice::Dice;
use crate::fake_shell::{Broken, must};
use crate::gateway::Show;
use openclaw_supervise_core::{Endpoint, Generation, Moment, MoveReason, Moved, Owner, Verdict};
use std::time::Duration;

/// The port of a world in which nothing moves.
pub(super) const HOME: Place = Place { port: 18789, tls: false };

/// The longest that a lost, late or inconclusive look holds the next one up.
const HELD_UP_MAX: Duration = Duration::from_secs(15);

/// How many of them may come in a row.
const HELD_UP_IN_A_ROW: u32 = 4;

/// A port of this machine, and whether TLS is spoken there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) port: u16,
    pub(crate) tls: bool,
}

impl Place {
    fn endpoint(self) -> Endpoint {
        Endpoint { tls: self.tls, ..Endpoint::local(self.port) }
    }
}

/// What a world with moves needs besides.
pub(super) struct Moves {
    /// Its own, so that the worlds without moves stay what they were.
    dice: Dice,
    /// What the gateway's settings say, as we read them.
    pub(super) settings: Place,
    /// We read them wrongly: the gateway listens on another port, or with TLS.
    misread: Option<Place>,
}

impl Moves {
    pub(super) fn any(seed: u64) -> Self {
        let mut dice = Dice::new(seed.wrapping_mul(0x9fb2_1c65_1e98_df25).wrapping_add(17));
        let misread = dice.once_in(8).then(|| dice.pick(&[Place { tls: true, ..HOME }, Place { port: 19000, ..HOME }]));
        Self { dice, settings: HOME, misread }
    }

    /// Where no sockets can be seen, a gateway whose settings are misread cannot be found.
    pub(super) fn read_well(&mut self) {
        self.misread = None;
    }

    /// Where a gateway listens that starts now.
    pub(super) fn place(&self) -> Place {
        self.misread.unwrap_or(self.settings)
    }
}

impl World<'_> {
    /// Schedules changes of the settings.
    pub(super) fn plan_moves(&mut self, horizon: u64) {
        let dice = &mut self.moves.dice;
        let many = dice.pick(&[0, 0, 0, 1, 2, 3]);
        let times: Vec<_> = (0..many).map(|_| dice.s(0, horizon)).collect();
        for when in times {
            self.later(when, WorldEvent::SettingsChange);
        }
    }

    /// Another port or scheme. The gateway may heed it at once, as one that watches its configuration does.
    pub(super) fn change_settings(&mut self) {
        let Moves { dice, settings, .. } = &mut self.moves;
        settings.port = dice.pick(&[HOME.port, 19000, 19001]);
        settings.tls = dice.once_in(3);
        let (restarts, drains, pause) = (dice.once_in(2), dice.once_in(2), dice.ms(0, 4000));
        if !restarts {
            return;
        }
        let shows =
            if drains { &[Show::Draining, Show::Closed, Show::Serving][..] } else { &[Show::Closed, Show::Serving] };
        for id in 0..self.gateways.len() {
            if self.gateways[id].leader && self.gateways[id].show == Show::Serving {
                for (show, when) in shows.iter().zip(0..) {
                    self.later(pause * when, WorldEvent::Shows(id, *show));
                }
            }
        }
    }

    pub(super) fn bound_at(&self, port: u16) -> Option<Bound> {
        self.bound.get(&port).copied()
    }

    /// Gives up the port of this gateway; says whether it had one.
    pub(super) fn unbind(&mut self, id: usize) -> bool {
        let before = self.bound.len();
        self.bound.retain(|_, bound| *bound != Bound::Gateway(id));
        self.bound.len() < before
    }

    /// The port of the unrelated process, and what it shows.
    pub(super) fn stranger(&self) -> Option<(u16, Verdict)> {
        self.bound.iter().find_map(|(port, bound)| match bound {
            Bound::Foreign(verdict) => Some((*port, *verdict)),
            Bound::Gateway(_) => None,
        })
    }

    /// Where the unrelated process listens: mostly where it is in the way.
    pub(super) fn stranger_port(&mut self) -> u16 {
        let port = self.moves.place().port;
        if self.moves.dice.once_in(8) { self.moves.dice.pick(&[HOME.port, 19000]) } else { port }
    }

    /// Before a spawn the shell looks where the settings say, if they have changed.
    pub(super) fn resolve(&mut self, sup: usize) -> Option<Moved> {
        let settings = self.moves.settings;
        let sup = &mut self.sups[sup];
        if settings == sup.expected {
            sup.heeded = settings;
        }
        (settings != sup.heeded).then(|| Moved { to: settings.endpoint(), why: MoveReason::Settings })
    }

    /// What a search beyond the expected port finds: the gateway, or a stranger where the settings say that it is.
    pub(super) fn search(&self, sup: usize, generation: Generation) -> Option<(Verdict, Owner, Moved)> {
        let expected = self.sups[sup].expected;
        let ask = openclaw_supervise_core::ProbeScope::Listener(generation);
        let found = |place: Place| {
            let (verdict, owner) = self.observe_port(sup, ask, place);
            let why = if place == self.moves.settings { MoveReason::Settings } else { MoveReason::Listens };
            let answers = matches!(verdict, Verdict::Gateway(_) | Verdict::Draining);
            (answers && place != expected).then(|| (verdict, owner, Moved { to: place.endpoint(), why }))
        };
        let own = self.gateways.iter().find(|gateway| gateway.held == Some(sup) && gateway.generation == generation);
        own.and_then(|own| found(own.place)).or_else(|| found(self.moves.settings))
    }

    pub(super) fn follow_move(&mut self, sup: usize, moved: &Moved) {
        let place = Place { port: moved.to.port, tls: moved.to.tls };
        self.sups[sup].expected = place;
        if moved.why == MoveReason::Settings {
            self.sups[sup].heeded = place;
        }
    }

    /// P11: what has served for so long was found by a look, wherever it serves.
    pub(super) fn judge_hang(&self, sup: usize, generation: Generation) -> Result<(), Broken> {
        let policy = &self.sups[sup].trial.policy;
        let looks = (policy.probe_interval + policy.probe_timeout + HELD_UP_MAX) * HELD_UP_IN_A_ROW;
        let since = self.gateways.iter().find(|gateway| gateway.held == Some(sup) && gateway.generation == generation);
        // One that was adopted has been looked at since then.
        let since = since.and_then(|gateway| Some(gateway.served_since?.max(gateway.known)));
        let enough = |since: Moment| self.now > since + policy.hang_after + looks;
        must(
            self.hidden || !since.is_some_and(enough),
            "P11",
            "a gateway that serves is taken for hung, or not started",
        )
    }
}
