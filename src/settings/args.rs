//! Parses the command line as often as it takes to find every mistake in it: clap stops at the first one, so that one
//! is noted and taken out, and the rest is parsed again.

use super::Mistake;
use crate::cli::{Cli, Verb};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Command, CommandFactory, Parser};
use std::ffi::{OsStr, OsString};
use std::ops::Range;

/// What the command line turned out to be.
#[derive(Debug)]
pub(super) enum Parsed {
    /// A text for stdout: help or version.
    Print(String),
    /// Something to do.
    Cli(Box<Cli>),
    /// Not even its rest could be understood.
    Unclear,
}

/// Parses `args`, the program's name first.
pub(super) fn parse(args: impl IntoIterator<Item = OsString>) -> (Parsed, Vec<Mistake>) {
    let mut args: Vec<OsString> = args.into_iter().collect();
    let mut mistakes = Vec::new();
    // Each round takes at least one word out.
    for _ in 0..=args.len() {
        name_the_verb(&mut args);
        let error = match Cli::try_parse_from(&args) {
            Ok(mut cli) => {
                restore_hyphens(&mut cli, &args);
                return (Parsed::Cli(Box::new(cli)), mistakes);
            }
            Err(error) => error,
        };
        if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) {
            return (Parsed::Print(error.render().to_string()), mistakes);
        }
        let fault = Fault::of(&error, &args);
        mistakes.push(Mistake::Usage(fault.message));
        if fault.words.is_empty() {
            break;
        }
        args.drain(fault.words);
    }
    (Parsed::Unclear, mistakes)
}

/// No verb means `run`, and so it does before a command behind `--`, where clap would look for a verb.
fn name_the_verb(args: &mut Vec<OsString>) {
    let Some(end) = args.iter().position(|word| word == "--") else { return };
    let before = args.get(..end).unwrap_or_default();
    // To parse is half a millisecond's work, and the verb is nearly always there.
    if !before.iter().any(|word| word == "run") && Cli::try_parse_from(before).is_ok_and(|cli| cli.verb.is_none()) {
        args.insert(end, OsString::from("run"));
    }
}

/// Clap swallows a `--` directly behind `gateway`, where it belongs to the gateway.
fn restore_hyphens(cli: &mut Cli, args: &[OsString]) {
    if let Some(Verb::Gateway(gateway)) = &mut cli.verb {
        let at = args.len().saturating_sub(gateway.args.len() + 1);
        if is(args, at, "--") && is(args, at.saturating_sub(1), "gateway") {
            gateway.args.insert(0, OsString::from("--"));
        }
    }
}

/// One mistake, and which words have to go for the rest to be parsed.
struct Fault {
    message: String,
    words: Range<usize>,
}

impl Fault {
    fn of(error: &clap::Error, args: &[OsString]) -> Self {
        let context = |kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.clone()),
            Some(ContextValue::Strings(texts)) => texts.first().cloned(),
            _ => None,
        };
        let end = args.iter().position(|word| word == "--").unwrap_or(args.len());
        let subject = context(ContextKind::InvalidArg).or_else(|| context(ContextKind::InvalidSubcommand));
        let Some(subject) = subject else { return Self::without_place(error) };
        // `--port <PORT>` in clap's words.
        let word = subject.split_whitespace().next().unwrap_or_default();
        let hint = |kind| context(kind).map_or_else(String::new, |hint| format!("; did you mean {hint}?"));
        if error.kind() == ErrorKind::InvalidValue {
            let bare = (1..end).find(|at| is(args, *at, word) && args.get(at + 1).is_none_or(is_option));
            return bare.map_or_else(
                || Self::without_place(error),
                |at| Self { message: format!("{word} needs a value"), words: at..at + 1 },
            );
        }
        if word.starts_with('-') {
            let Some(at) = (1..end).find(|at| begins(args, *at, word)) else { return Self::without_place(error) };
            if error.kind() == ErrorKind::TooManyValues {
                return Self { message: format!("{word} takes no value"), words: at..at + 1 };
            }
            // `--hang-after -5s` is one mistake, not an option and a lack of a value.
            if word.as_bytes().get(1).is_some_and(u8::is_ascii_digit) && is_value(args, at) {
                let flag = args.get(at - 1).map(|flag| flag.to_string_lossy()).unwrap_or_default();
                let value = args.get(at).map(|value| value.to_string_lossy()).unwrap_or_default();
                return Self { message: format!("{flag} {value:?} is negative"), words: at - 1..at + 1 };
            }
            let message = format!("unknown option {word}{}", hint(ContextKind::SuggestedArg));
            let takes_next = is(args, at, word) && at + 1 < end && args.get(at + 1).is_some_and(may_be_value);
            return Self { message, words: at..at + 1 + usize::from(takes_next) };
        }
        // The first one that is no option's value.
        let found = (1..end).find(|at| is(args, *at, word) && !is_value(args, *at));
        let Some(at) = found else {
            let message = "only the verb run takes a command behind `--`: openclaw-supervise run -- COMMAND".to_owned();
            return Self { message, words: end..args.len() };
        };
        let run = args.iter().take(at).any(|word| word == "run");
        if run || end < args.len() {
            let message = if run {
                format!("unexpected argument {word:?}; the gateway's command goes behind `--`: run -- {word} ...")
            } else {
                format!("unknown verb {word:?} before `--`; the gateway's command goes behind it: run -- COMMAND")
            };
            // What follows is the rest of the same command.
            return Self { message, words: at..args.len() };
        }
        let hint = hint(ContextKind::SuggestedSubcommand);
        Self { message: format!("unexpected argument {word:?}{hint}; see --help"), words: at..at + 1 }
    }

    fn without_place(error: &clap::Error) -> Self {
        let text = error.render().to_string();
        let line = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        Self { message: format!("{line}; see --help"), words: 0..0 }
    }
}

fn is(args: &[OsString], at: usize, word: &str) -> bool {
    args.get(at).is_some_and(|candidate| candidate == word)
}

/// `word`, `word=...`, or a cluster of short flags with `word` in it.
fn begins(args: &[OsString], at: usize, word: &str) -> bool {
    let Some(candidate) = args.get(at).and_then(|candidate| candidate.to_str()) else { return false };
    if word.starts_with("--") {
        return candidate.strip_prefix(word).is_some_and(|rest| rest.is_empty() || rest.starts_with('='));
    }
    let cluster = candidate.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
    cluster.zip(word.strip_prefix('-')).is_some_and(|(letters, letter)| letters.contains(letter))
}

fn is_option(word: &OsString) -> bool {
    word.as_encoded_bytes().starts_with(b"-")
}

/// Whether the word behind an unknown option is likely its value.
fn may_be_value(word: &OsString) -> bool {
    !is_option(word) && !Cli::command().get_subcommands().any(|verb| word == verb.get_name())
}

/// Whether `word` is an option that takes the next word for its value.
fn takes_value(word: &OsStr) -> bool {
    let mut command = Cli::command();
    command.build();
    let of_verbs = command.get_subcommands().flat_map(Command::get_arguments);
    let mut options = command.get_arguments().chain(of_verbs).filter(|option| option.get_action().takes_values());
    let Some(word) = word.to_str() else { return false };
    options.any(|option| match (word.strip_prefix("--"), word.strip_prefix('-')) {
        (Some(name), _) => option.get_long() == Some(name),
        (None, Some(letter)) => option.get_short().is_some_and(|short| letter.chars().eq([short])),
        (None, None) => false,
    })
}

/// Whether the word before `at` takes this one for its value.
fn is_value(args: &[OsString], at: usize) -> bool {
    at.checked_sub(1).and_then(|before| args.get(before)).is_some_and(|before| takes_value(before))
}

#[cfg(test)]
#[expect(clippy::panic, reason = "a test may panic")]
mod tests {
    use super::*;
    use std::iter::once;

    fn parsed(line: &str) -> (Parsed, Vec<String>) {
        let words = once("openclaw-supervise").chain(line.split_whitespace()).map(OsString::from);
        let (parsed, mistakes) = parse(words);
        (parsed, mistakes.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn every_mistake_of_the_command_line_is_found() {
        for (line, found) in [
            ("--bogus", vec!["unknown option --bogus"]),
            ("--bogus=1 run --worse", vec!["unknown option --bogus", "unknown option --worse"]),
            ("--bogus 1 run --worse", vec!["unknown option --bogus", "unknown option --worse"]),
            ("--prot 1", vec!["unknown option --prot; did you mean --port?"]),
            ("probe --json=1 --wait", vec!["--json takes no value", "--wait needs a value"]),
            ("run -x -yz", vec!["unknown option -x", "unknown option -y"]),
            ("prob", vec!["unexpected argument \"prob\"; did you mean probe?"]),
            ("launch", vec!["unexpected argument \"launch\"; see --help"]),
            ("probe a b", vec!["unexpected argument \"a\"", "unexpected argument \"b\""]),
            ("--host a run a b --port 1", vec!["unexpected argument \"a\"; the gateway's command goes behind `--`"]),
            ("run --port --host 1", vec!["--port needs a value"]),
            ("run --port", vec!["--port needs a value"]),
            ("--bogus strat -- x --y", vec!["unknown option --bogus"]),
            ("strat -- x --y", vec!["unknown verb \"strat\" before `--`"]),
            ("probe -- x --y", vec!["only the verb run takes a command"]),
        ] {
            let (_, mistakes) = parsed(line);
            assert_eq!(mistakes.len(), found.len(), "{line}: {mistakes:?}");
            for (mistake, begin) in mistakes.iter().zip(found) {
                assert!(mistake.starts_with(begin), "{line}: {mistake}");
            }
        }
    }

    #[test]
    fn everything_behind_gateway_belongs_to_the_gateway() {
        for tail in [
            "",
            "run --port 19000 --bogus",
            "--port 19000",
            "--port=1 run",
            "--help",
            "--version",
            "-h",
            "run -- --x",
            "-- x",
            "--",
            "gateway -- x",
            "-- --",
            "run --json probe gateway",
        ] {
            let (parsed, mistakes) = parsed(&format!("--host ::1 gateway {tail}"));
            assert!(mistakes.is_empty(), "{tail}: {mistakes:?}");
            let Parsed::Cli(cli) = parsed else { panic!("{tail}: {parsed:?}") };
            let Some(Verb::Gateway(gateway)) = cli.verb else { panic!("{tail}: {:?}", cli.verb) };
            let expected: Vec<OsString> = tail.split_whitespace().map(OsString::from).collect();
            assert_eq!(gateway.args, expected, "{tail}");
            assert_eq!(cli.options.port, None, "{tail}");
        }
    }

    #[test]
    fn everything_behind_two_hyphens_belongs_to_the_command() {
        let (parsed, mistakes) = parsed("run --port 1 -- openclaw --bogus -- --port 2");
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let Parsed::Cli(cli) = parsed else { panic!("{parsed:?}") };
        let Some(Verb::Run(run)) = cli.verb else { panic!("{:?}", cli.verb) };
        assert_eq!(run.command, ["openclaw", "--bogus", "--", "--port", "2"]);
        assert_eq!(run.options.port, Some(OsString::from("1")));
    }

    #[test]
    fn a_command_without_a_verb_is_run() {
        for (line, port) in [("-- openclaw -x", None), ("--port 1 -- openclaw -x", Some("1"))] {
            let (parsed, mistakes) = parsed(line);
            assert!(mistakes.is_empty(), "{line}: {mistakes:?}");
            let Parsed::Cli(cli) = parsed else { panic!("{line}: {parsed:?}") };
            let Some(Verb::Run(run)) = cli.verb else { panic!("{line}: {:?}", cli.verb) };
            assert_eq!((run.command, cli.options.port), (vec!["openclaw".into(), "-x".into()], port.map(Into::into)));
        }
    }

    #[test]
    fn the_last_of_two_equal_flags_counts() {
        let (parsed, mistakes) = parsed("run --port 1 --port 2");
        assert!(mistakes.is_empty(), "{mistakes:?}");
        let Parsed::Cli(cli) = parsed else { panic!("{parsed:?}") };
        assert!(matches!(cli.verb, Some(Verb::Run(run)) if run.options.port == Some(OsString::from("2"))));
    }

    #[test]
    fn help_and_version_are_texts_for_stdout() {
        for line in ["--help", "-h", "run --help", "probe --help", "--version", "-V"] {
            let (parsed, mistakes) = parsed(line);
            assert!(mistakes.is_empty(), "{line}: {mistakes:?}");
            assert!(
                matches!(&parsed, Parsed::Print(text) if text.contains("openclaw-supervise")),
                "{line}: {parsed:?}"
            );
        }
    }

    #[test]
    fn the_help_of_every_option_names_its_default_and_its_variable() {
        for option in Cli::command().get_arguments().filter(|option| option.get_action().takes_values()) {
            let name = option.get_long().unwrap_or_default();
            let help = option.get_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("[default: "), "--{name}: {help}");
            let own = format!("[env: OPENCLAW_SUPERVISE_{}]", name.to_ascii_uppercase().replace('-', "_"));
            let gateways = matches!(name, "port" | "state-dir" | "config" | "profile");
            assert!(help.contains(&own) || gateways && help.contains("[env: OPENCLAW_"), "--{name}: {help}");
        }
    }
}
