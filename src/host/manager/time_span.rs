//! Time spans as systemd writes them, see `systemd.time(7)`.

use std::time::Duration;

/// Units and their microseconds, in the order in which systemd prints them: `1min 30s`.
const UNITS: [(&str, u64); 9] = [
    // A year of 365.25 days, and a twelfth of it.
    ("y", 31_557_600_000_000),
    ("month", 2_629_800_000_000),
    ("w", 604_800_000_000),
    ("d", 86_400_000_000),
    ("h", 3_600_000_000),
    ("min", 60_000_000),
    ("s", 1_000_000),
    ("ms", 1_000),
    ("us", 1),
];

/// `infinity` is [`Duration::MAX`].
#[must_use]
pub fn parse(text: &str) -> Option<Duration> {
    match text.trim() {
        "" => None,
        "infinity" => Some(Duration::MAX),
        "0" => Some(Duration::ZERO),
        text => text.split_whitespace().try_fold(Duration::ZERO, |sum, word| sum.checked_add(part(word)?)),
    }
}

/// One part of a span: `30s`, or `1.500s`.
fn part(word: &str) -> Option<Duration> {
    let at = word.find(|c: char| !c.is_ascii_digit() && c != '.')?;
    let (number, unit) = word.split_at(at);
    let (_, size) = UNITS.into_iter().find(|(name, _)| *name == unit)?;
    let (whole, decimals) = number.split_once('.').unwrap_or((number, "0"));
    // systemd prints no more than microseconds.
    let decimals = decimals.get(..6).unwrap_or(decimals);
    let scale = 10_u64.checked_pow(u32::try_from(decimals.len()).ok()?)?;
    let fraction = decimals.parse::<u64>().ok()?.checked_mul(size)? / scale;
    Some(Duration::from_micros(whole.parse::<u64>().ok()?.checked_mul(size)?.checked_add(fraction)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_the_sum_of_its_parts() {
        for (text, expected) in [
            ("5min 30s", Some(Duration::from_secs(330))),
            ("1min 30s\n", Some(Duration::from_secs(90))),
            ("12s", Some(Duration::from_secs(12))),
            ("1.500s", Some(Duration::from_millis(1500))),
            ("1min 2.250000s", Some(Duration::from_millis(62_250))),
            ("250ms", Some(Duration::from_millis(250))),
            ("17us", Some(Duration::from_micros(17))),
            ("1h", Some(Duration::from_hours(1))),
            ("1w 1d", Some(Duration::from_hours(8 * 24))),
            ("1month", Some(Duration::from_mins(43_830))),
            ("0", Some(Duration::ZERO)),
            ("infinity", Some(Duration::MAX)),
            ("", None),
            ("330", None),
            ("5minutes", None),
            ("s", None),
            (".s", None),
            ("-5s", None),
            ("1min n/a", None),
            ("99999999999999999999s", None),
            ("18446744073709551615h", None),
        ] {
            assert_eq!(parse(text), expected, "{text:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics(text in ".{0,40}|([0-9.]{0,25}(y|h|min|s|ms|us) ?){0,5}") {
            let _parsed = parse(&text);
        }
    }
}
