//! What to type instead, where clap does not know: words of other programs, a COMMAND without `--`, options of other verbs.

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Command, Error};
use std::ffi::{OsStr, OsString};

/// Words that other programs have for our verbs.
const MEANT: &[(&str, &str)] = &[
    ("reload hup bounce", "restart"),
    ("kill halt shutdown quit down terminate", "stop"),
    ("ps info list ls show state", "status"),
    ("health healthcheck ping", "probe"),
    ("why", "explain"),
    ("mute silence maintenance suspend", "pause"),
    ("unpause continue unmute", "resume"),
    ("history audit", "events"),
    ("check diagnose verify repair fix", "doctor"),
    ("enable", "install"),
    ("disable remove delete", "uninstall"),
    ("up serve daemon supervise", "run"),
    ("completion", "completions"),
    ("manual", "man"),
];

/// The name of the verb that was meant with `word`.
fn meant(word: &str) -> Option<&'static str> {
    MEANT.iter().find(|(words, _)| words.split(' ').any(|known| known == word)).map(|(_, verb)| *verb)
}

/// The error with one piece of advice. `args`: the program's name first.
pub(super) fn advise(mut error: Error, args: &[OsString], mut program: Command) -> Error {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.clone()),
        _ => None,
    };
    let advice = match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let has_similar = error.get(ContextKind::SuggestedSubcommand).is_some();
            word(ContextKind::InvalidSubcommand).and_then(|word| for_verb(&word, has_similar, args, &program))
        }
        ErrorKind::UnknownArgument => {
            program.build();
            word(ContextKind::InvalidArg).and_then(|word| for_argument(&word, args, &program))
        }
        _ => None,
    };
    if let Some(advice) = advice {
        error.remove(ContextKind::SuggestedSubcommand);
        error.remove(ContextKind::SuggestedArg);
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![advice.into()]));
    }
    error
}

fn for_verb(word: &str, has_similar: bool, args: &[OsString], program: &Command) -> Option<String> {
    let at = args.iter().position(|arg| arg == word)?;
    let (before, rest) = (args.get(1..at)?, args.get(at + 1..)?);
    if let Some(verb) = meant(word) {
        let whole = [before, &[OsString::from(verb)], rest].concat();
        let parses = program.clone().no_binary_name(true).try_get_matches_from(&whole).is_ok();
        let kept = if parses { whole } else { [before, &[OsString::from(verb)]].concat() };
        return Some(format!("type: {}", line(&kept)));
    }
    // A path is no misspelt verb.
    if has_similar && !word.contains(['/', '.']) {
        return None;
    }
    if before.last().is_some_and(|before| before == "help") {
        return Some("openclaw-supervise help lists the verbs".to_owned());
    }
    let command = [before, &[OsString::from("--")], args.get(at..)?].concat();
    Some(format!(
        "openclaw-supervise help lists the verbs; a command of the gateway goes behind --: {}",
        line(&command)
    ))
}

fn for_argument(word: &str, args: &[OsString], program: &Command) -> Option<String> {
    let verb = args.iter().skip(1).find_map(|arg| program.find_subcommand(arg));
    let name = verb.map_or("openclaw-supervise", Command::get_name);
    if !word.starts_with('-') {
        let takes_command = ["run", "install"].contains(&name);
        let at = args.iter().position(|arg| arg == word).filter(|_| takes_command)?;
        let command = [args.get(1..at)?, &[OsString::from("--")], args.get(at..)?].concat();
        return Some(format!("a command of the gateway goes behind --: {}", line(&command)));
    }
    match word {
        "-v" | "-version" => return Some("for the version, type: openclaw-supervise --version".to_owned()),
        "-help" | "-?" => return Some("for the help, type: openclaw-supervise --help".to_owned()),
        _ => {}
    }
    let flag = word.split('=').next().unwrap_or_default();
    let is_it = |option: &Arg| {
        let long = option.get_long().is_some_and(|long| flag.strip_prefix("--") == Some(long));
        long || option.get_short().is_some_and(|short| flag == format!("-{short}"))
    };
    let has_it = |command: &&Command| command.get_arguments().any(is_it);
    if verb.is_some_and(|verb| has_it(&verb)) {
        return Some(format!("as an option of {name} it goes behind that verb"));
    }
    if has_it(&program) {
        return Some(format!("{name} takes no such option; it belongs to run"));
    }
    let visible = program.get_subcommands().filter(|verb| !verb.is_hide_set()).filter(has_it);
    let owners: Vec<&str> = visible.map(Command::get_name).collect();
    (!owners.is_empty()).then(|| format!("{name} takes no such option; it belongs to {}", owners.join(", ")))
}

fn line(words: &[OsString]) -> String {
    let words = words.iter().map(|word| shell_word(word));
    std::iter::once("openclaw-supervise".to_owned()).chain(words).collect::<Vec<_>>().join(" ")
}

/// A word as sh(1) reads it.
#[must_use]
pub fn shell_word(word: &OsStr) -> String {
    let text = word.to_string_lossy();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "_-./:=@%+,".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.into_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_means_one_verb() {
        let all: Vec<&str> = MEANT.iter().flat_map(|(words, _)| words.split(' ')).collect();
        for word in &all {
            assert_eq!(all.iter().filter(|other| *other == word).count(), 1, "{word}");
        }
    }

    #[test]
    fn a_word_with_blanks_or_quotes_is_quoted_for_the_shell() {
        for (word, shown) in
            [("--port=1", "--port=1"), ("", "''"), ("a b", "'a b'"), ("it's", r"'it'\''s'"), ("$x", "'$x'")]
        {
            assert_eq!(shell_word(OsStr::new(word)), shown);
        }
    }
}
