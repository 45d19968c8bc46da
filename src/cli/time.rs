//! Points in time as an engineer types them. Which one is meant depends on the clock and the zone of the reader, see
//! [`Since::resolve`].

use super::value::duration;
use jiff::civil::{Date, DateTime, Time};
use jiff::tz::TimeZone;
use jiff::{Timestamp, ToSpan};
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Since {
    Ago(Duration),
    At(Timestamp),
    Local(DateTime),
    /// So many days before today.
    Day(i64, Time),
    /// The last time that a clock on the wall showed this.
    Clock(Time),
}

impl Since {
    /// In milliseconds since 1970.
    #[must_use]
    pub fn resolve(self, now_ms: i64, zone: &TimeZone) -> i64 {
        let now = Timestamp::from_millisecond(now_ms).unwrap_or_default();
        let today = zone.to_datetime(now).date();
        let local = |at: DateTime| zone.to_timestamp(at).map_or(i64::MIN, Timestamp::as_millisecond);
        let before = |days: i64| today.checked_sub(days.days()).unwrap_or(today);
        match self {
            Self::Ago(time) => now_ms.saturating_sub(i64::try_from(time.as_millis()).unwrap_or(i64::MAX)),
            Self::At(at) => at.as_millisecond(),
            Self::Local(at) => local(at),
            Self::Day(days, time) => local(before(days).to_datetime(time)),
            Self::Clock(time) => {
                let at = local(today.to_datetime(time));
                if at <= now_ms { at } else { local(before(1).to_datetime(time)) }
            }
        }
    }
}

pub(super) fn since(text: &str) -> Result<Since, &'static str> {
    const FORMS: &str =
        "not a time; write it like 2h, 30m, 02:14, yesterday, '2026-11-30 02:14' or 2026-11-30T02:14:00Z";
    let text = text.trim();
    let ago = text.strip_suffix("ago").unwrap_or(text).trim_start_matches('-').trim();
    if let Ok(time) = duration(ago) {
        return Ok(Since::Ago(time));
    }
    if let Ok(at) = text.parse::<Timestamp>() {
        return Ok(Since::At(at));
    }
    if let Some(at) = text.strip_prefix('@').and_then(|seconds| Timestamp::from_second(seconds.parse().ok()?).ok()) {
        return Ok(Since::At(at));
    }
    let (day, time) = text.split_once([' ', 'T']).unwrap_or((text, ""));
    let days = match day {
        "today" => Some(0),
        "yesterday" => Some(1),
        _ => None,
    };
    match (days, clock(time), day.parse::<Date>()) {
        (Some(days), Some(time), _) => Ok(Since::Day(days, time)),
        (None, Some(time), Ok(date)) if day.contains('-') => Ok(Since::Local(date.to_datetime(time))),
        _ => clock(text).filter(|_| !text.is_empty()).map(Since::Clock).ok_or(FORMS),
    }
}

/// `02:14` or `02:14:07`; midnight if there is none.
fn clock(text: &str) -> Option<Time> {
    let mut parts = text.split(':');
    let mut next = || parts.next().map(|part| part.parse::<i8>().ok().filter(|_| part.len() <= 2));
    if text.is_empty() {
        return Some(Time::midnight());
    }
    let (hour, minute, second) = (next()??, next()??, next().unwrap_or(Some(0))?);
    if parts.next().is_some() {
        return None;
    }
    Time::new(hour, minute, second, 0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood_as_an_engineer_types_them() {
        let zone = TimeZone::posix("CET-1").unwrap();
        let ms = |stamp: &str| stamp.parse::<Timestamp>().unwrap().as_millisecond();
        let now = ms("2026-11-30T23:30:00Z"); // half past midnight on 1 December
        for (text, expected) in [
            ("2h", "2026-11-30T21:30:00Z"),
            ("30m", "2026-11-30T23:00:00Z"),
            ("2h ago", "2026-11-30T21:30:00Z"),
            ("-90s", "2026-11-30T23:28:30Z"),
            ("1day", "2026-11-29T23:30:00Z"),
            ("00:14", "2026-11-30T23:14:00Z"),
            ("02:14", "2026-11-30T01:14:00Z"),
            ("23:50:30", "2026-11-30T22:50:30Z"),
            ("today", "2026-11-30T23:00:00Z"),
            ("yesterday", "2026-11-29T23:00:00Z"),
            ("yesterday 02:14", "2026-11-30T01:14:00Z"),
            ("2026-11-29", "2026-11-28T23:00:00Z"),
            ("2026-11-29 02:14", "2026-11-29T01:14:00Z"),
            ("2026-11-29T02:14:07", "2026-11-29T01:14:07Z"),
            ("2026-11-29T02:14:07Z", "2026-11-29T02:14:07Z"),
            ("2026-11-29T02:14:07.5+02:00", "2026-11-29T00:14:07.5Z"),
            ("@1780000000", "2026-05-28T20:26:40Z"),
        ] {
            let since = since(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!(since.resolve(now, &zone), ms(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "soon",
            "2",
            "25:00",
            "02:14:07:01",
            "02:60",
            "2026-13-01",
            "tomorrow",
            "2026",
            "12-01",
            "@x",
            ":",
            "2:",
        ] {
            assert!(since(text).is_err(), "{text}: {:?}", since(text));
        }
    }
}
