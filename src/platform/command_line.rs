//! The command line of a process, for messages.

mod secret;
#[cfg(test)]
mod tests;

use secret::Redactor;

/// In characters; the rest is cut.
const LENGTH_MAX: usize = 160;

/// Bytes per character.
const UTF8_LENGTH_MAX: usize = 4;

/// The arguments joined by blanks, with secrets redacted. `None` if all are empty: a process that sets its title, as the
/// gateway does, leaves NULs or blanks behind it.
pub(super) fn of_arguments<'a>(arguments: impl IntoIterator<Item = &'a [u8]>) -> Option<String> {
    let (mut redactor, mut text) = (Redactor::new(), String::new());
    for argument in arguments.into_iter().filter(|argument| !argument.is_empty()) {
        if text.len() > LENGTH_MAX * UTF8_LENGTH_MAX {
            break;
        }
        text.push_str(&redactor.redact(argument));
        text.push(' ');
    }
    let text = text.trim();
    (!text.is_empty()).then(|| printable(text))
}

/// A line that another program wrote, with secrets redacted.
#[must_use]
pub fn redacted(line: &str) -> String {
    // Behind a blank a name has the next word for its value, and not all that follows.
    let text = Redactor::new().redact(format!(" {line}").as_bytes());
    text.strip_prefix(' ').unwrap_or(&text).to_owned()
}

/// For a process without arguments.
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
