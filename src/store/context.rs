//! What every step on the store's thread needs: the settings, the clocks, and the way to report.

use super::clock::Clocks;
use super::error::StoreError;
use super::folder;
use super::identity::Identity;
use super::lease::Terms;
use super::messages::{Limits, News, Place};
use crate::core::Report;
use std::cell::Cell;
use std::time::Duration;

pub(super) struct Context {
    pub(super) place: Place,
    /// Our own entry in the lease row.
    pub(super) us: Identity,
    pub(super) clocks: Clocks,
    pub(super) limits: Limits,
    pub(super) tell: Box<dyn Fn(News) + Send>,
    /// Whether it was told that permissions cannot be removed: what holds for one file holds for all of a volume.
    pub(super) told_of_modes: Cell<bool>,
}

impl Context {
    pub(super) fn tell(&self, news: News) {
        (self.tell)(news);
    }

    pub(super) fn report(&self, report: Report) {
        self.tell(News::Report(report));
    }

    pub(super) fn warn(&self, warning: Option<String>) {
        if let Some(warning) = warning {
            self.tell(News::Warning(warning));
        }
    }

    /// Tells the first of these warnings of [`folder::tighten`].
    pub(super) fn warn_of_modes(&self, warning: Option<String>) {
        if warning.is_some() && !self.told_of_modes.replace(true) {
            self.warn(warning);
        }
    }

    pub(super) fn terms(&self) -> Terms<'_> {
        Terms { key: &self.place.key, us: &self.us, address: &self.place.host, port: self.place.port }
    }

    /// In so long, in milliseconds of the boot clock.
    pub(super) fn after(&self, pause: Duration) -> i64 {
        let pause = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
        (self.clocks.boot)().saturating_add(pause)
    }

    /// Moves the corrupt database aside. Only the owner of the lock may do this.
    pub(super) fn move_aside(&self, error: &StoreError) -> Result<(), StoreError> {
        let to = folder::move_aside(&self.place.dir, self.clocks.now().wall_ms)?;
        self.report(Report::StoreMovedAside { to: to.display().to_string(), why: error.to_string() });
        Ok(())
    }
}
