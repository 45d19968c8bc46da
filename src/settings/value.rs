//! One option's value: from the flag after the verb, else the flag before it, else the environment.

use super::{Mistake, World, paths};
use crate::cli::Options;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Longer times are slips of the pen, and `Moment + Duration` must not overflow.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// A gateway has ten times as much before it serves: with less than this it would be restarted for ever.
const SMALLEST_KB: u64 = 64 * 1024;

/// What an option needs of its duration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Zero {
    /// 0 means "do not wait".
    Allowed,
    /// 0 makes no sense.
    Refused,
}

/// A value and where it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Given {
    /// As it was written.
    pub(super) value: OsString,
    flag: &'static str,
    variable: Option<String>,
}

impl Given {
    /// A value that followed `flag` on the command line.
    pub(super) fn flag(flag: &'static str, value: &OsStr) -> Self {
        Self { value: value.to_owned(), flag, variable: None }
    }

    /// The value as text, with white space around it taken off, if it is text.
    pub(super) fn text(&self) -> Option<&str> {
        self.value.to_str().map(str::trim)
    }

    /// `FLAG "VALUE" WHAT IS WRONG`.
    pub(super) fn mistake(&self, wrong: impl fmt::Display) -> Mistake {
        let value = self.value.to_string_lossy();
        match &self.variable {
            None => Mistake::Usage(format!("{} {value:?} {wrong}", self.flag)),
            Some(variable) => Mistake::Usage(format!("{} (from {variable}) {value:?} {wrong}", self.flag)),
        }
    }
}

/// The name of an option and the way to its value.
pub(super) type Pick = fn(&Options) -> Option<&OsString>;

/// All places where a value can be written, and the mistakes that were found in them.
pub(super) struct Source<'a> {
    layers: Vec<&'a Options>,
    world: &'a World,
    /// What was wrong so far.
    pub(super) mistakes: Vec<Mistake>,
}

impl<'a> Source<'a> {
    /// `layers`: the options after the verb, then those before it.
    pub(super) fn new(layers: Vec<&'a Options>, world: &'a World, mistakes: Vec<Mistake>) -> Self {
        Self { layers, world, mistakes }
    }

    /// The value of the flag alone.
    pub(super) fn flag(&self, flag: &'static str, pick: Pick) -> Option<Given> {
        self.layers.iter().copied().find_map(pick).map(|value| Given::flag(flag, value))
    }

    /// The value of the flag, else of its `OPENCLAW_SUPERVISE_` variable.
    pub(super) fn given(&self, flag: &'static str, pick: Pick) -> Option<Given> {
        self.flag(flag, pick).or_else(|| {
            let variable = variable_of(flag);
            let value = self.world.variable(&variable)?;
            Some(Given { value, flag, variable: Some(variable) })
        })
    }

    /// A duration, or its default.
    pub(super) fn duration(&mut self, flag: &'static str, pick: Pick, default: Duration, zero: Zero) -> Duration {
        let Some(given) = self.given(flag, pick) else { return default };
        self.parse_duration(&given, zero).unwrap_or(default)
    }

    /// `--stop-timeout`: a duration or `auto`.
    pub(super) fn duration_or_auto(&mut self, flag: &'static str, pick: Pick, auto: Duration) -> Duration {
        let Some(given) = self.given(flag, pick) else { return auto };
        if given.text() == Some("auto") {
            return auto;
        }
        match parse_duration(&given, Zero::Allowed) {
            Ok(duration) => duration,
            Err(wrong) => {
                self.mistakes.push(given.mistake(format!("{wrong}, or auto")));
                auto
            }
        }
    }

    /// The duration that `given` names.
    pub(super) fn parse_duration(&mut self, given: &Given, zero: Zero) -> Option<Duration> {
        parse_duration(given, zero).map_err(|wrong| self.mistakes.push(given.mistake(wrong))).ok()
    }

    /// `--memory-max`: a size in KiB, or none for `off` and where nothing was given.
    pub(super) fn size_or_off(&mut self, flag: &'static str, pick: Pick) -> Option<u64> {
        let given = self.given(flag, pick).filter(|given| given.text() != Some("off"))?;
        parse_size(&given).map_err(|wrong| self.mistakes.push(given.mistake(wrong))).ok()
    }

    /// A path, made absolute.
    pub(super) fn path(&mut self, given: &Given, world: &World) -> PathBuf {
        if given.text() == Some("") {
            self.mistakes.push(given.mistake("is empty; give a path or leave it out"));
        }
        paths::resolve(&given.value, world)
    }

    /// A whole number within `least..=most`, or its default.
    pub(super) fn number(&mut self, flag: &'static str, pick: Pick, default: u32, least: u32, most: u32) -> u32 {
        match self.given(flag, pick) {
            Some(given) => self.parse_number(&given, default, least, most),
            None => default,
        }
    }

    /// The number that `given` names, or the default.
    pub(super) fn parse_number(&mut self, given: &Given, default: u32, least: u32, most: u32) -> u32 {
        let number = given.text().and_then(digits).filter(|number| (least..=most).contains(number));
        number.unwrap_or_else(|| {
            self.mistakes.push(given.mistake(format!("is not a whole number from {least} to {most}")));
            default
        })
    }

    /// One of a few words, if it was given.
    pub(super) fn choice<T: Copy>(&mut self, flag: &'static str, pick: Pick, words: &[(&str, T)]) -> Option<T> {
        let given = self.given(flag, pick)?;
        let found = words.iter().find(|(word, _)| given.text() == Some(word)).map(|(_, choice)| *choice);
        if found.is_none() {
            let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
            self.mistakes.push(given.mistake(format!("is none of {}", words.join(", "))));
        }
        found
    }
}

/// `--probe-timeout` is `OPENCLAW_SUPERVISE_PROBE_TIMEOUT`.
fn variable_of(flag: &str) -> String {
    let name = flag.trim_start_matches('-').to_ascii_uppercase().replace('-', "_");
    format!("OPENCLAW_SUPERVISE_{name}")
}

/// Digits only: `parse` would also take a sign.
pub(super) fn digits(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn parse_duration(given: &Given, zero: Zero) -> Result<Duration, &'static str> {
    let text = given.text().unwrap_or_default();
    let Ok(duration) = humantime::parse_duration(text) else {
        return Err("is not a duration; write it like 500ms, 30s, 5m or 1h");
    };
    if duration > LONGEST {
        return Err("is longer than a year; write it like 500ms, 30s, 5m or 1h");
    }
    if duration.is_zero() && zero == Zero::Refused {
        return Err("must be more than zero; write it like 500ms, 30s, 5m or 1h");
    }
    Ok(duration)
}

/// A size in KiB, as systemd reads that of `MemoryMax=`: bytes, or K, M, G, T for the powers of 1024, see
/// systemd.resource-control(5). `KiB` and the like mean the same; `MB` would mean another number to many.
fn parse_size(given: &Given) -> Result<u64, &'static str> {
    const WRONG: &str = "is not a size; write it like 1500M or 2G, in powers of 1024, or off";
    let text = given.text().unwrap_or_default();
    let number = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let power = match text.get(number.len()..).unwrap_or_default() {
        "" => 0,
        "K" | "KiB" => 1,
        "M" | "MiB" => 2,
        "G" | "GiB" => 3,
        "T" | "TiB" => 4,
        _ => return Err(WRONG),
    };
    if number.is_empty() || !number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(WRONG);
    }
    let bytes = number.parse::<u64>().ok().and_then(|number| number.checked_mul(1024_u64.pow(power)));
    let Some(bytes) = bytes else { return Err("is more memory than there can be; write it like 1500M or 2G, or off") };
    let kb = bytes / 1024;
    if kb < SMALLEST_KB {
        return Err(
            "is less than 64M, with which no gateway comes up: it would be restarted for ever; give it more, or off",
        );
    }
    Ok(kb)
}

#[cfg(test)]
#[expect(clippy::panic, reason = "a test may panic")]
mod tests {
    use super::*;

    #[test]
    fn a_duration_needs_a_unit_and_has_bounds() {
        for (text, expected) in [
            ("500ms", Some(Duration::from_millis(500))),
            (" 30s ", Some(Duration::from_secs(30))),
            ("5m", Some(Duration::from_mins(5))),
            ("1h 30m", Some(Duration::from_mins(90))),
            ("366d", Some(LONGEST)),
            ("367d", None),
            ("584542046090years", None),
            ("30", None),
            ("-1s", None),
            ("1.5.2s", None),
            ("", None),
            ("auto", None),
        ] {
            let given = Given::flag("--wait", OsStr::new(text));
            assert_eq!(parse_duration(&given, Zero::Allowed).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn zero_is_a_duration_only_where_it_makes_sense() {
        let given = Given::flag("--wait", OsStr::new("0s"));
        assert_eq!(parse_duration(&given, Zero::Allowed), Ok(Duration::ZERO));
        assert!(parse_duration(&given, Zero::Refused).is_err());
    }

    #[test]
    fn a_size_is_bytes_or_a_power_of_1024_and_enough_for_a_gateway() {
        for (text, expected) in [
            ("64M", Ok(65_536)),
            ("1500M", Ok(1_536_000)),
            (" 2G ", Ok(2_097_152)),
            ("2GiB", Ok(2_097_152)),
            ("800MiB", Ok(819_200)),
            ("1048576K", Ok(1_048_576)),
            ("1048576KiB", Ok(1_048_576)),
            ("1T", Ok(1 << 30)),
            ("1TiB", Ok(1 << 30)),
            ("2147483648", Ok(2_097_152)),
            ("067108864", Ok(65_536)),
            ("67108863", Err("is less than 64M")),
            ("63M", Err("is less than 64M")),
            ("500", Err("is less than 64M")),
            ("0", Err("is less than 64M")),
            ("16777216T", Err("is more memory than")),
            ("99999999999999999999", Err("is more memory than")),
            ("800MB", Err("is not a size")),
            ("2g", Err("is not a size")),
            ("2Gi", Err("is not a size")),
            ("1.5G", Err("is not a size")),
            ("2 G", Err("is not a size")),
            ("1G500M", Err("is not a size")),
            ("+2G", Err("is not a size")),
            ("-2G", Err("is not a size")),
            ("80%", Err("is not a size")),
            ("G", Err("is not a size")),
            ("infinity", Err("is not a size")),
            ("OFF", Err("is not a size")),
            ("٣G", Err("is not a size")),
            ("", Err("is not a size")),
        ] {
            let got = parse_size(&Given::flag("--memory-max", OsStr::new(text)));
            match (got, expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, expected, "{text:?}"),
                (Err(got), Err(expected)) => assert!(got.starts_with(expected), "{text:?} {got}"),
                (got, _) => panic!("{text:?}: {got:?}"),
            }
        }
    }

    #[test]
    fn a_number_is_digits_alone() {
        for (text, expected) in [("7", Some(7)), ("007", Some(7)), ("+7", None), ("-7", None), ("", None), ("7x", None)]
        {
            assert_eq!(digits(text), expected, "{text:?}");
        }
    }

    #[test]
    fn the_variable_is_the_flag_in_capitals() {
        assert_eq!(variable_of("--hung-stop-timeout"), "OPENCLAW_SUPERVISE_HUNG_STOP_TIMEOUT");
    }
}
