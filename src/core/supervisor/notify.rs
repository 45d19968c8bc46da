//! What the service manager is told.

use super::{Effect, Effects, Supervisor};
use crate::Notice;
use crate::fault::Fault;

impl Supervisor {
    /// The present gateway has given a good answer. Once of each is enough.
    /// Says whether it was the first.
    pub(super) fn tell_ready(&mut self, fx: &mut Effects) -> bool {
        let is_first = self.readied.replace(self.generation) != Some(self.generation);
        if is_first || self.has(Fault::ReadyTwice) {
            self.notify(Notice::Ready, fx);
        }
        is_first
    }

    /// In standby the gateway of another owner serves, and we are ready to take over.
    pub(super) fn tell_standing_by(&mut self, fx: &mut Effects) {
        self.readied = None;
        if self.notice != Some(Notice::Ready) {
            self.notify(Notice::Ready, fx);
        }
    }

    /// A start is far off. `systemctl restart` would wait for it in vain; `STATUS` says what it waits for.
    pub(super) fn tell_waiting(&mut self, fx: &mut Effects) {
        let is_told = matches!(self.notice, Some(Notice::Ready | Notice::Stopping));
        if !is_told && !self.has(Fault::WaitNotTold) {
            self.notify(Notice::Ready, fx);
        }
    }

    /// A gateway that was told to be ready is replaced on purpose.
    pub(super) fn tell_reloading(&mut self, fx: &mut Effects) {
        if self.notice == Some(Notice::Ready) && self.readied == Some(self.generation) {
            self.notify(Notice::Reloading, fx);
        }
    }

    pub(super) fn tell_stopping(&mut self, fx: &mut Effects) {
        if self.notice != Some(Notice::Stopping) && !self.has(Fault::StoppingNotTold) {
            self.notify(Notice::Stopping, fx);
        }
    }

    fn notify(&mut self, notice: Notice, fx: &mut Effects) {
        self.notice = Some(notice);
        fx.push(Effect::Notify(notice));
    }
}
