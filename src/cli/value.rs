//! The values of options. What these functions return as an error stands behind clap's `invalid value '...' for '...': `.

use crate::core::event::PAUSE_MAX;
use crate::core::report::Severity;
use crate::gateway::heap::HeapChoice;
use crate::host::telemetry::Format;
use crate::host::webhook::Template;
use crate::store::BasisChoice;
use clap::ValueEnum;
use clap::builder::{OsStringValueParser, PossibleValue, TypedValueParser};
use std::ffi::OsString;
use std::net::IpAddr;
use std::time::Duration;

/// Longer times are slips of the pen, and `Moment + Duration` must not overflow.
const LONGEST: Duration = Duration::from_hours(366 * 24);

/// A gateway uses ten times as much before it serves: with less than this it would be restarted for ever.
const SMALLEST_KB: u64 = 64 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopTimeout {
    Auto,
    Fixed(Duration),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryMax {
    Off,
    Kb(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Host {
    /// Both loopback addresses.
    Localhost,
    Address(IpAddr),
}

impl ValueEnum for BasisChoice {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Lock, Self::Heartbeat]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Auto => "auto",
            Self::Lock => "lock",
            Self::Heartbeat => "heartbeat",
        }))
    }
}

impl ValueEnum for Template {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Auto, Self::Json, Self::Slack, Self::Discord, Self::Ntfy]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()))
    }
}

impl ValueEnum for Format {
    fn value_variants<'a>() -> &'a [Self] {
        &[Self::Text, Self::Json]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(match self {
            Self::Text => "text",
            Self::Json => "json",
        }))
    }
}

/// What is to be explained.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DecisionSubject {
    Last,
    Generation(u64),
    /// The last one, or that of this file.
    Incident(Option<String>),
}

pub(super) fn decision_subject(text: &str) -> Result<DecisionSubject, &'static str> {
    match text.trim() {
        "last" => Ok(DecisionSubject::Last),
        "incident" => Ok(DecisionSubject::Incident(None)),
        text => match text.parse() {
            Ok(generation @ 1..) => Ok(DecisionSubject::Generation(generation)),
            _ if text.strip_suffix(".json").is_some() => {
                let name = text.rsplit('/').next().unwrap_or(text);
                Ok(DecisionSubject::Incident(Some(name.to_owned())))
            }
            _ => Err("not last, incident, the number of a gateway, or the file of an incident"),
        },
    }
}

/// Other programs say `warning` and `err`.
pub(super) fn severity(text: &str) -> Result<Severity, &'static str> {
    match text.trim() {
        "warning" => Ok(Severity::Warning),
        "err" => Ok(Severity::Error),
        name => Severity::named(name).ok_or("expected info, warn or error"),
    }
}

pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    match humantime::parse_duration(text.trim()) {
        Ok(duration) if duration > LONGEST => Err("longer than a year"),
        Ok(duration) => Ok(duration),
        Err(_) => Err("not a duration; write it like 500ms, 30s, 5m or 1h"),
    }
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, &'static str> {
    match duration(text)? {
        Duration::ZERO => Err("must be more than zero"),
        duration => Ok(duration),
    }
}

/// Of a pause.
pub(super) fn pause_period(text: &str) -> Result<Duration, &'static str> {
    match positive_duration(text)? {
        period if period > PAUSE_MAX => Err("must be at most 24h"),
        period => Ok(period),
    }
}

pub(super) fn stop_timeout(text: &str) -> Result<StopTimeout, String> {
    if text.trim() == "auto" {
        return Ok(StopTimeout::Auto);
    }
    duration(text).map(StopTimeout::Fixed).map_err(|why| format!("{why}, or auto"))
}

/// A size as systemd reads that of `MemoryMax=`: bytes, or K, M, G, T for the powers of 1024, see
/// systemd.resource-control(5). `KiB` and the like mean the same; `MB` would mean another number to many.
pub(super) fn memory_max(text: &str) -> Result<MemoryMax, &'static str> {
    const WRONG: &str = "not a size; write it like 1500M or 2G, in powers of 1024, or off";
    let text = text.trim();
    if text == "off" {
        return Ok(MemoryMax::Off);
    }
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
    match bytes.map(|bytes| bytes / 1024) {
        None => Err("more memory than there can be; write it like 1500M or 2G, or off"),
        Some(kb) if kb < SMALLEST_KB => Err("less than 64M, with which no gateway starts; give it more, or off"),
        Some(kb) => Ok(MemoryMax::Kb(kb)),
    }
}

/// As Node reads that of `--max-old-space-size` where it is a plain number: in MiB.
pub(super) fn max_heap(text: &str) -> Result<HeapChoice, String> {
    let text = text.trim();
    if text == "auto" {
        return Ok(HeapChoice::Auto);
    }
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match memory_max(&if is_plain { format!("{text}M") } else { text.to_owned() }) {
        Ok(MemoryMax::Off) => Ok(HeapChoice::Off),
        Ok(MemoryMax::Kb(kb)) => Ok(HeapChoice::Mib(kb / 1024)),
        Err(why) => Err(format!("{why}, or auto")),
    }
}

/// Names are not resolved: a resolver may hang.
pub(super) fn host(text: &str) -> Result<Host, &'static str> {
    let text = text.trim();
    if text.eq_ignore_ascii_case("localhost") {
        return Ok(Host::Localhost);
    }
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    match bare.parse::<IpAddr>() {
        Ok(address) if address.is_unspecified() => Err("not an address to connect to; use 127.0.0.1 or localhost"),
        Ok(address) => Ok(Host::Address(address)),
        Err(_) => Err("neither an IP address nor localhost; names are not resolved"),
    }
}

pub(super) fn profile(text: &str) -> Result<String, &'static str> {
    let name = text.trim();
    if is_profile(name) { Ok(name.to_owned()) } else { Err("a profile has letters, digits, _ and - only, 64 at most") }
}

/// Whether the gateway accepts `name` as a profile.
#[must_use]
pub fn is_profile(name: &str) -> bool {
    let tail = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    name.len() <= 64 && name.bytes().all(tail) && name.starts_with(|first: char| first.is_ascii_alphanumeric())
}

/// A path or a shell command.
pub(super) fn not_blank() -> impl TypedValueParser<Value = OsString> {
    OsStringValueParser::new().try_map(|value| {
        let is_blank = value.to_str().is_some_and(|text| text.trim().is_empty());
        if is_blank { Err("it is empty; leave the option out for its default") } else { Ok(value) }
    })
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
            assert_eq!(duration(text).ok(), expected, "{text:?}");
        }
    }

    #[test]
    fn zero_is_a_duration_only_where_it_makes_sense() {
        assert_eq!(duration("0s"), Ok(Duration::ZERO));
        assert!(positive_duration("0s").is_err());
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
            ("67108863", Err("less than 64M")),
            ("63M", Err("less than 64M")),
            ("500", Err("less than 64M")),
            ("0", Err("less than 64M")),
            ("16777216T", Err("more memory than")),
            ("99999999999999999999", Err("more memory than")),
            ("800MB", Err("not a size")),
            ("2g", Err("not a size")),
            ("2Gi", Err("not a size")),
            ("1.5G", Err("not a size")),
            ("2 G", Err("not a size")),
            ("1G500M", Err("not a size")),
            ("+2G", Err("not a size")),
            ("-2G", Err("not a size")),
            ("80%", Err("not a size")),
            ("G", Err("not a size")),
            ("infinity", Err("not a size")),
            ("OFF", Err("not a size")),
            ("٣G", Err("not a size")),
            ("", Err("not a size")),
        ] {
            match (memory_max(text), expected) {
                (Ok(got), Ok(expected)) => assert_eq!(got, MemoryMax::Kb(expected), "{text:?}"),
                (Err(got), Err(expected)) => assert!(got.starts_with(expected), "{text:?} {got}"),
                (got, _) => panic!("{text:?}: {got:?}"),
            }
        }
        assert_eq!(memory_max("off"), Ok(MemoryMax::Off));
    }

    #[test]
    fn a_host_is_an_address_to_connect_to() {
        for text in ["", "gateway.example", "0.0.0.0", "::", "127.0.0.1:80", "[::1", "300.1.1.1"] {
            assert!(host(text).is_err(), "{text:?}");
        }
        assert_eq!(host("LocalHost"), Ok(Host::Localhost));
        assert_eq!(host("[::1]"), Ok(Host::Address("::1".parse().unwrap())));
    }
}
