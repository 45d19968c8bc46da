//! Time and generations.

use crate::prelude::*;
use core::time::Duration;

/// A reading of the monotonic clock, as the time since that clock's own zero. Only differences mean anything.
pub type Moment = Duration;

/// Counts the gateways of one store, from 1. Every event about a child and every effect on one
/// carries it, so that news of a past child can never touch the present one.
pub type Generation = u64;

/// A duration with two significant units at most: `350ms`, `6.1s`, `1m35s`, `1h30m`.
#[must_use]
pub fn human(duration: Duration) -> String {
    let ms = duration.as_millis();
    let seconds = duration.as_secs();
    match seconds {
        0 => format!("{ms}ms"),
        1..60 => format!("{seconds}.{}s", duration.subsec_millis() / 100).replace(".0s", "s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60).replace("m0s", "m"),
        _ => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60).replace("h0m", "h"),
    }
}

/// Whether a character drives a terminal instead of being shown: a control character, a separator of lines, or one that
/// reorders the text around it (Unicode's `Bidi_Control`), so that a line reads as what it does not say.
#[must_use]
pub fn is_unprintable(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A user known by its number alone. That of root is the same everywhere.
#[must_use]
pub fn user(uid: u32) -> String {
    if uid == 0 { "user root".to_owned() } else { format!("the user with uid {uid}") }
}

/// Memory in whole MiB, rounded up.
pub(crate) fn mebibytes(kb: u64) -> String {
    format!("{} MiB", kb.div_ceil(1024))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_people_say_them() {
        let table = [(0, "0ms"), (350, "350ms"), (1000, "1s"), (6130, "6.1s"), (59_990, "59.9s"), (60_000, "1m")];
        let longer = [(95_000, "1m35s"), (3_600_000, "1h"), (5_400_000, "1h30m"), (36_000_000, "10h")];
        for (ms, text) in table.into_iter().chain(longer) {
            assert_eq!(human(Duration::from_millis(ms)), text);
        }
    }

    #[test]
    fn root_has_a_name_everywhere() {
        assert_eq!((user(0).as_str(), user(1000).as_str()), ("user root", "the user with uid 1000"));
    }
}
