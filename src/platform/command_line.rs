//! The command of a process as one line of a log.

/// The longest that is shown, in characters.
const LENGTH_MAX: usize = 160;

/// The arguments with blanks between them, nothing where there are none. A process that sets its title (the gateway
/// does) leaves NULs or blanks behind it, which show as empty arguments.
pub(super) fn of_arguments<'a>(arguments: impl IntoIterator<Item = &'a [u8]>) -> Option<String> {
    let words: Vec<_> = arguments.into_iter().filter(|word| !word.is_empty()).map(String::from_utf8_lossy).collect();
    let text = words.join(" ");
    let text = text.trim();
    (!text.is_empty()).then(|| printable(text))
}

/// The name of a process that has no arguments to show.
pub(super) fn of_name(name: &[u8]) -> String {
    printable(&format!("[{}]", String::from_utf8_lossy(name)))
}

fn printable(text: &str) -> String {
    let mut short: String = text.chars().take(LENGTH_MAX).map(|c| if c.is_control() { '?' } else { c }).collect();
    if text.chars().count() > LENGTH_MAX {
        short.push_str("...");
    }
    short
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_command_is_cut_and_kept_on_one_line() {
        assert_eq!(of_arguments([&b"a\nb"[..], b"", b"c"]).unwrap(), "a?b c");
        assert_eq!(of_arguments(["x".repeat(1000).as_bytes()]).unwrap().len(), LENGTH_MAX + 3);
        assert_eq!(of_name(b"a\x1b"), "[a?]");
    }

    #[test]
    fn what_was_left_blank_is_no_command() {
        assert_eq!(of_arguments([&b""[..], b"  ", b""]), None);
    }
}
