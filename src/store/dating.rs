//! When the recorded gateways ran, as far as that can be told after a reboot and with a clock that may have been wrong.
//!
//! Within one boot the boot clock dates everything, whatever the wall clock did. Only the distance between two boots needs
//! the wall clock, and one reading of it: the last one of the earlier boot, which NTP had the most time to correct. A
//! machine without a battery clock begins at 1970 or at its last shutdown, another was in 2036 once. So a reading counts
//! only if it lies after [`WALL_MIN`] and before everything that followed. What cannot be dated is in no window.

use super::clock::{Clocks, Stamp};
use crate::core::Moment;
use std::time::Duration;

/// 2026-01-01: no earlier release wrote a record, so a clock that showed less was not set. In milliseconds since 1970.
const WALL_MIN: i64 = 1_767_225_600_000;

/// Older than any window, for a gateway that must have a place in time and has none.
const UNDATED_AGE: Duration = Duration::from_hours(30 * 24);

/// What one record says of time.
#[derive(Debug, Clone)]
pub(super) struct Readings<'a> {
    /// The boot in which the boot clock of its stamps is valid.
    pub(super) boot_id: Option<&'a str>,
    /// When it began; without that it has no place in time.
    pub(super) first: Option<Stamp>,
    pub(super) later: [Option<Stamp>; 5],
}

impl Readings<'_> {
    fn stamps(&self) -> impl Iterator<Item = Stamp> {
        [self.first].into_iter().chain(self.later).flatten()
    }
}

/// Places the stamps of one record in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dating {
    now: Moment,
    /// What the wall clock shows now.
    wall_now: i64,
    /// What a right wall clock would have shown when the boot clock of the record was 0. `None` if that cannot be told.
    origin: Option<i64>,
    /// What followed it began then, on the same scale.
    latest: i64,
}

impl Dating {
    /// Of each of these records, youngest first; `None` where it cannot be dated.
    pub(super) fn of(records: &[Readings<'_>], clocks: &Clocks, now: Moment) -> Vec<Option<Self>> {
        let (wall_now, boot_now) = ((clocks.wall)(), (clocks.boot)());
        let mut latest = wall_now;
        let mut dated = Vec::with_capacity(records.len());
        for boot in records.chunk_by(|one, other| one.boot_id.is_some() && one.boot_id == other.boot_id) {
            let on_boot_clock = || boot.iter().flat_map(Readings::stamps).filter_map(|stamp| stamp.boot_ms);
            let (first, last) = (on_boot_clock().min(), on_boot_clock().max());
            let is_this_boot = boot[0].boot_id.is_some() && boot[0].boot_id == clocks.boot_id.as_deref();
            let origin = match (first, last) {
                // In another time namespace the boot clock may run behind that of the record: time_namespaces(7).
                (Some(first), Some(last)) if is_this_boot && (0..=boot_now).contains(&first) && last <= boot_now => {
                    Some(wall_now.saturating_sub(boot_now))
                }
                (_, Some(last)) => origin_of(boot, last, latest),
                (_, None) => None,
            };
            for record in boot {
                let dating = Self { now, wall_now, origin, latest };
                dated.push(record.first.and_then(|first| dating.wall(first)).map(|_| dating));
            }
            latest = match (origin, first) {
                (Some(origin), Some(first)) => latest.min(origin.saturating_add(first)),
                (None, Some(_)) => latest,
                (_, None) => boot
                    .iter()
                    .filter_map(|record| record.first)
                    .map(|at| at.wall_ms)
                    .fold(latest, |latest, at| if (WALL_MIN..=latest).contains(&at) { at } else { latest }),
            };
        }
        dated
    }

    /// When it happened. `None` if that cannot be told.
    pub(super) fn moment(&self, stamp: Stamp) -> Option<Moment> {
        self.age(stamp).map(|age| self.now.saturating_sub(age))
    }

    pub(super) fn age(&self, stamp: Stamp) -> Option<Duration> {
        let ms = self.wall_now.saturating_sub(self.wall(stamp)?);
        Some(Duration::from_millis(u64::try_from(ms).unwrap_or(0)))
    }

    /// On the scale of `latest`.
    fn wall(&self, stamp: Stamp) -> Option<i64> {
        match stamp.boot_ms {
            Some(boot_ms) => Some(self.origin?.saturating_add(boot_ms)),
            // It happened after a later boot.
            None => Some(stamp.wall_ms).filter(|wall| (WALL_MIN..=self.latest).contains(wall)),
        }
    }
}

/// What the wall clock would have shown at the start of this boot, by the last reading with which nothing of it is later
/// than `latest`. `last` is its last stamp, on the boot clock.
fn origin_of(boot: &[Readings<'_>], last: i64, latest: i64) -> Option<i64> {
    let mut readings: Vec<(i64, i64)> = boot
        .iter()
        .flat_map(Readings::stamps)
        .filter(|stamp| stamp.wall_ms >= WALL_MIN)
        .filter_map(|stamp| Some((stamp.boot_ms?, stamp.wall_ms)))
        .collect();
    readings.sort_unstable();
    let origins = readings.into_iter().rev().map(|(boot_ms, wall_ms)| wall_ms.saturating_sub(boot_ms));
    origins.into_iter().find(|origin| origin.saturating_add(last) <= latest)
}

/// The moment of a stamp of a record that cannot be dated: beyond every window, and as long after `first` as it was.
pub(super) fn undated(now: Moment, first: Stamp, stamp: Stamp) -> Moment {
    let after = stamp.boot_ms.zip(first.boot_ms).map_or(0, |(stamp, first)| stamp.saturating_sub(first));
    let after = Duration::from_millis(u64::try_from(after).unwrap_or(0));
    now.saturating_sub(UNDATED_AGE).saturating_add(after).min(now)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::sync::Arc;

    const NOW: Moment = Duration::from_hours(100_000);
    /// 2026-11-30.
    const TODAY: i64 = 1_795_996_800_000;
    const MIN: i64 = 60_000;
    const YEAR: i64 = 365 * 24 * 60 * MIN;

    fn clocks(wall: i64, boot: i64) -> Clocks {
        Clocks { wall: Arc::new(move || wall), boot: Arc::new(move || boot), boot_id: Some("now".to_owned()) }
    }

    /// A gateway of that boot, spawned and dead at these readings of wall and boot clock, in minutes.
    fn record(boot_id: &str, spawned: (i64, i64), died: (i64, i64)) -> Readings<'_> {
        let stamp = |(wall_ms, boot): (i64, i64)| Some(Stamp { wall_ms, boot_ms: Some(boot * MIN) });
        Readings { boot_id: Some(boot_id), first: stamp(spawned), later: [None, None, None, stamp(died), None] }
    }

    /// The ages in minutes of spawn and death of each, youngest first.
    fn ages(records: &[Readings<'_>], clocks: &Clocks) -> Vec<Option<(u64, u64)>> {
        let minutes = |dating: &Dating, stamp| dating.age(stamp).unwrap().as_secs() / 60;
        let all = Dating::of(records, clocks, NOW).into_iter().zip(records);
        all.map(|(dating, record)| {
            let dating = dating?;
            Some((minutes(&dating, record.first.unwrap()), minutes(&dating, record.later[3].unwrap())))
        })
        .collect()
    }

    /// With the expected ages.
    type Case<'a> = (&'a str, Vec<Readings<'a>>, Clocks, Vec<Option<(u64, u64)>>);

    #[test]
    fn each_kind_of_wrong_clock_has_its_answer() {
        let at = |minutes: i64| TODAY + minutes * MIN;
        let right = record("old", (at(-20), 10), (at(-19), 11));
        let cases: [Case<'_>; 10] = [
            ("a right clock", vec![right.clone()], clocks(TODAY, 5 * MIN), vec![Some((20, 19))]),
            ("1970 now", vec![right.clone()], clocks(5 * MIN, 5 * MIN), vec![None]),
            ("the last shutdown now, saved before the crash", vec![right.clone()], clocks(at(-25), MIN), vec![None]),
            (
                "2036 then",
                vec![record("old", (at(0) + 10 * YEAR, 10), (at(1) + 10 * YEAR, 11))],
                clocks(TODAY, MIN),
                vec![None],
            ),
            ("1970 then", vec![record("old", (3 * MIN, 3), (4 * MIN, 4))], clocks(TODAY, MIN), vec![None]),
            (
                "1970 at its spawn, set before its death",
                vec![record("old", (3 * MIN, 3), (at(-9), 5))],
                clocks(TODAY, MIN),
                vec![Some((11, 9))],
            ),
            (
                "2036 at its spawn, set before its death",
                vec![record("old", (at(10 * 60 * 24 * 365), 3), (at(-9), 5))],
                clocks(TODAY, MIN),
                vec![Some((11, 9))],
            ),
            (
                "this boot, whatever the wall clock did",
                vec![record("now", (at(10 * 60 * 24 * 365), 3), (3, 5))],
                clocks(TODAY, 7 * MIN),
                vec![Some((4, 2))],
            ),
            (
                "this boot in a time namespace that is behind",
                vec![record("now", (at(-9), 300), (at(-8), 301))],
                clocks(TODAY, MIN),
                vec![Some((9, 8))],
            ),
            (
                "later than what followed it",
                vec![
                    record("b", (at(-40), 1), (at(-39), 2)),
                    record("a", (at(-30), 1), (at(-29), 2)),
                    record("0", (at(-60), 1), (at(-59), 2)),
                ],
                clocks(TODAY, MIN),
                vec![Some((40, 39)), None, Some((60, 59))],
            ),
        ];
        for (name, records, clocks, expected) in cases {
            assert_eq!(ages(&records, &clocks), expected, "{name}");
        }
    }

    #[test]
    fn what_has_no_place_in_time_keeps_its_durations_and_lies_in_no_window() {
        let stamp = |wall_ms, boot_ms| Stamp { wall_ms, boot_ms: Some(boot_ms) };
        let (first, later) = (stamp(7, 1000), stamp(i64::MAX, 61_000));
        let spawned = undated(NOW, first, first);
        assert!(spawned + Duration::from_hours(7 * 24) < NOW);
        assert_eq!(undated(NOW, first, later), spawned + Duration::from_mins(1));
        assert_eq!(undated(NOW, first, Stamp { boot_ms: None, ..later }), spawned);
        assert_eq!(undated(NOW, stamp(0, i64::MIN), stamp(0, i64::MAX)), NOW);
    }

    /// A history of boots with the true times, and a wall clock that is off by some error for a part of each.
    fn boots() -> impl Strategy<Value = Vec<(i64, i64, i64)>> {
        let wrong = prop_oneof![3 => Just(0_i64), 1 => -60 * YEAR..60 * YEAR, 1 => -90 * MIN..90 * MIN];
        proptest::collection::vec((MIN..600 * MIN, MIN..600 * MIN, wrong), 1..12)
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        /// Whatever the clocks of the earlier boots showed: nothing lies in the future, nothing before what preceded it, and a
        /// run lasts as long as it lasted.
        #[test]
        fn dated_runs_are_in_order_and_as_long_as_they_were(boots in boots(), error in -60 * YEAR..60 * YEAR) {
            let ids: Vec<_> = (0..boots.len()).map(|index| format!("boot {index}")).collect();
            let mut records = Vec::new();
            let mut time = TODAY;
            for (id, (gap, length, wrong)) in ids.iter().zip(&boots) {
                let (spawned, died) = (time + gap, time + gap + length);
                let stamp = |at: i64| Some(Stamp { wall_ms: at + wrong, boot_ms: Some(at - time) });
                let later = [stamp(died), None, None, None, None];
                records.push(Readings { boot_id: Some(id), first: stamp(spawned), later });
                time = died + gap;
            }
            records.reverse();
            let is_right = boots.iter().all(|(_, _, wrong)| *wrong == 0);
            for error in [0, error] {
                let dated = Dating::of(&records, &clocks(time + error, MIN), NOW);
                let mut after = Duration::ZERO;
                for (dating, record) in dated.iter().zip(&records) {
                    prop_assert!(dating.is_some() || error != 0 || !is_right);
                    let Some(dating) = dating else { continue };
                    let (died, spawned) = (record.later[0].unwrap(), record.first.unwrap());
                    let (youngest, oldest) = (dating.age(died).unwrap(), dating.age(spawned).unwrap());
                    prop_assert!(after <= youngest);
                    let lasted = died.boot_ms.unwrap() - spawned.boot_ms.unwrap();
                    prop_assert_eq!(oldest, youngest + Duration::from_millis(lasted.unsigned_abs()));
                    after = oldest;
                }
            }
        }

        #[test]
        fn no_stamps_break_it(words in proptest::collection::vec(any::<(i64, Option<i64>, u8)>(), 0..20), wall: i64, boot: i64) {
            let records: Vec<_> = words.iter().map(|(wall_ms, boot_ms, id)| {
                let later = Some(Stamp { wall_ms: boot_ms.unwrap_or(7), boot_ms: Some(*wall_ms) });
                Readings {
                    boot_id: [None, Some("now"), Some("old")][usize::from(id % 3)],
                    first: (id % 5 > 0).then_some(Stamp { wall_ms: *wall_ms, boot_ms: *boot_ms }),
                    later: [later, None, None, None, None],
                }
            }).collect();
            for (dating, record) in Dating::of(&records, &clocks(wall, boot), NOW).into_iter().zip(&records) {
                prop_assert!(record.first.is_some() || dating.is_none());
                for stamp in record.stamps() {
                    let moment = dating.map_or_else(|| Some(undated(NOW, stamp, stamp)), |dating| dating.moment(stamp));
                    prop_assert!(moment.is_none_or(|moment| moment <= NOW));
                }
            }
        }
    }
}
