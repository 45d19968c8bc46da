//! The command of a process as one line of a log.

mod secret;
#[cfg(test)]
mod tests;

use secret::Censor;

/// The longest that is shown, in characters.
const LENGTH_MAX: usize = 160;

/// How many bytes a character has at most.
const UTF8_LENGTH_MAX: usize = 4;

/// The arguments with blanks between them and without secrets, nothing where there are none. A process that sets its
/// title (the gateway does) leaves NULs or blanks behind it, which show as empty arguments.
pub(super) fn of_arguments<'a>(arguments: impl IntoIterator<Item = &'a [u8]>) -> Option<String> {
    let (mut censor, mut text) = (Censor::new(), String::new());
    for argument in arguments.into_iter().filter(|argument| !argument.is_empty()) {
        // What is beyond that is cut off anyway.
        if text.len() > LENGTH_MAX * UTF8_LENGTH_MAX {
            break;
        }
        text.push_str(&censor.pass(argument));
        text.push(' ');
    }
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
