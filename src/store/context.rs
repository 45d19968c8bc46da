//! What every step on the store's thread needs: the settings, the clocks, and the way to report.

use super::clock::{Clocks, milliseconds};
use super::error::StoreError;
use super::folder;
use super::identity::Identity;
use super::lease::Terms;
use super::messages::{Limits, News, Place};
use crate::core::Report;
use crate::core::lease::Basis;
use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
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
    /// When the write of the last confirmation began, in milliseconds of the boot clock; 0 before the first.
    pub(super) confirmed: Arc<AtomicI64>,
}

/// The loop is told of a confirmation if the last one is this old, in milliseconds. It sees the others when it turns.
const TOLD_AFTER: i64 = 1000;

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

    pub(super) fn terms(&self, basis: Basis) -> Terms<'_> {
        Terms { key: &self.place.key, us: &self.us, basis, address: &self.place.host, port: self.place.port }
    }

    /// Whether an owner has to confirm its lease regularly.
    pub(super) fn beats(&self, basis: Basis) -> bool {
        basis == Basis::Heartbeat || self.place.is_watched
    }

    /// When the last confirmation began, if there was one.
    pub(super) fn confirmed(&self) -> Option<i64> {
        Some(self.confirmed.load(Ordering::Relaxed)).filter(|began| *began > 0)
    }

    /// The row was ours in a transaction that is durable by now. What counts is when it began: another supervisor may have
    /// seen the counter at any time since.
    pub(super) fn confirm(&self, began: i64) {
        let before = self.confirmed.swap(began, Ordering::Relaxed);
        if began.saturating_sub(before) >= TOLD_AFTER {
            self.tell(News::Beaten);
        }
    }

    /// In so long, in milliseconds of the boot clock.
    pub(super) fn after(&self, pause: Duration) -> i64 {
        (self.clocks.boot)().saturating_add(milliseconds(pause))
    }

    /// Moves the corrupt database aside. Only the owner of the lock may do this.
    pub(super) fn move_aside(&self, error: &StoreError) -> Result<(), StoreError> {
        let to = folder::move_aside(&self.place.dir, self.clocks.now().wall_ms)?;
        self.report(Report::StoreMovedAside { to: to.display().to_string(), why: error.to_string() });
        Ok(())
    }
}
