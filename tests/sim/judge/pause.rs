//! A pause of the supervision: nothing is ended for its health or memory, nothing is started, and it ends by itself.

use super::{Effect, Event, Goal, Judge, Moment, TICK_LATE_MAX, Turn, must};
use crate::fake_shell::Broken;
use openclaw_supervise_core::Report;
use openclaw_supervise_core::event::PAUSE_MAX;
use openclaw_supervise_core::hook::Hook;
use openclaw_supervise_core::supervisor::TOLD_WAIT_MIN;
use std::time::Duration;

type Judgement = Result<(), Broken>;

impl Judge {
    pub(super) fn is_paused(&self) -> bool {
        self.paused_until.is_some()
    }

    /// The machine has slept: a pause is a time of the clock on the wall.
    pub(super) fn shorten_pause(&mut self, at: Moment, event: &Event) {
        if let Event::ClockJumped { by } = event {
            self.paused_until = self.paused_until.map(|until| until.saturating_sub(*by));
            self.shortened_at = at;
        }
    }

    /// What is planned for the end of the pause waits for that alone.
    pub(super) fn is_end_of_pause(&self, at: Moment) -> bool {
        self.paused_until == Some(at)
    }

    pub(super) fn judge_paused(&mut self, turn: &Turn<'_>, period: Duration) -> Judgement {
        let Event::PauseRequested { pause: Some(asked), .. } = turn.event else {
            return must(false, "pause", "a pause that was not requested");
        };
        must(period == asked.period.min(PAUSE_MAX), "pause", "a pause of another length")?;
        must(self.lease.held && self.goal < Goal::Detach, "pause", "a pause without the lease, or at the end")?;
        self.pace.unfloor(turn.at);
        self.paused_until = Some(turn.at.saturating_add(period));
        let is_idle = self.owned.is_none() && !self.spawning && !self.adopting && self.hook_run.is_none();
        if is_idle && !self.lease.stands_by() {
            // The answer of the port would be old at its end.
            (self.asked, self.prepared) = (None, false);
        }
        if let Some(owned) = self.owned.as_mut().filter(|owned| !owned.ending()) {
            if owned.examining.take().is_some() {
                Self::begin_anew(turn.at, owned);
            }
            (owned.weighing, owned.excess) = (None, 0);
        }
        Ok(())
    }

    pub(super) fn judge_resumed(&mut self, turn: &Turn<'_>) -> Judgement {
        let Some(until) = self.paused_until.take() else {
            return must(false, "pause", "the end of a pause that there was not");
        };
        let is_asked = matches!(turn.event, Event::PauseRequested { pause: None, .. });
        let is_over = *turn.event == Event::Tick && until <= turn.at;
        must(is_asked || is_over, "pause", "a pause ends before its time")?;
        self.pace.unfloor(turn.at);
        self.port.rearm(turn.at);
        self.waiting.resume(turn.at);
        if let Some(owned) = self.owned.as_mut().filter(|owned| !owned.ending()) {
            Self::begin_anew(turn.at, owned);
        }
        Ok(())
    }

    fn begin_anew(at: Moment, owned: &mut super::Owned) {
        owned.armed = at;
        owned.health.rearm(at);
        owned.life.rearm(at);
        owned.stalls.begin(at);
    }

    /// What is not done in a pause. A start that is under way goes on, and so does its hook.
    pub(super) fn judge_in_pause(&self, effect: &Effect) -> Judgement {
        if !self.is_paused() {
            return Ok(());
        }
        let for_health = matches!(
            effect,
            Effect::Examine { .. }
                | Effect::Report(
                    Report::GatewayHung(_)
                        | Report::StartupTimedOut { .. }
                        | Report::MemoryExceeded { .. }
                        | Report::LivenessExtended { .. }
                )
        );
        must(!for_health, "pause", "a gateway is judged for its health or memory in a pause")?;
        let starts = match effect {
            Effect::Record { .. } => true,
            Effect::Report(Report::HookStarted { hook, .. }) => matches!(hook, Hook::PreStart | Hook::Repair),
            _ => false,
        };
        must(!starts, "pause", "a start in a pause")
    }

    /// A pause is taken, and ends by itself at its time; no manager waits for its end.
    pub(super) fn judge_pause(&self, turn: &Turn<'_>) -> Judgement {
        let has = |is: fn(&Report) -> bool| {
            turn.fx.iter().any(|effect| matches!(effect, Effect::Report(report) if is(report)))
        };
        if let Event::PauseRequested { pause: Some(_), .. } = turn.event
            && self.lease.held
            && !self.lease.lost
            && !self.ends()
        {
            let is_taken = has(|report| matches!(report, Report::SupervisionPaused { .. }));
            let is_refused = has(|report| matches!(report, Report::PauseRefused { .. }));
            must(is_taken != is_refused, "pause", "a pause is neither taken nor refused, or both")?;
            must(is_taken == (self.goal < Goal::Detach), "pause", "a pause is refused without a reason")?;
        }
        let Some(until) = self.paused_until.filter(|_| !self.ends()) else { return Ok(()) };
        let is_asked = matches!(turn.event, Event::PauseRequested { pause: None, .. });
        must(!is_asked || self.lease.lost, "pause", "a pause that is ended goes on")?;
        must(*turn.event != Event::Tick || until > turn.at, "pause", "a pause does not end at its time")?;
        must(
            turn.at <= until.max(self.shortened_at) + self.standstill + TICK_LATE_MAX,
            "pause",
            "a pause goes on after its time",
        )?;
        must(
            turn.after.is_some_and(|after| after <= until.max(turn.at)),
            "pause",
            "no deadline for the end of a pause",
        )?;
        let is_idle = self.owned.is_none() && !self.spawning && !self.adopting && !self.clearing;
        let is_idle = is_idle && self.hook_run.is_none() && self.left.is_none() && self.lease.held && !self.holds();
        let is_long = until.saturating_sub(turn.at) >= TOLD_WAIT_MIN;
        must(!(is_idle && is_long) || self.is_manager_told(), "pause", "the manager waits for the end of a pause")
    }
}
