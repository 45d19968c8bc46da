//! The tables of clap as a person reads them: the options of a verb before those that it shares with `run`, examples and
//! exit codes at the end. Only help, manual pages and completions are made from this; a start never builds it.

use super::notes::{NOTES, VerbNotes};
use super::options::Options;
use crate::core::exit;
use clap::builder::StyledStr;
use clap::builder::styling::{AnsiColor, Styles};
use clap::{Arg, Args, Command};
use std::ffi::OsString;

/// Wider lines are hard to read.
const COLUMNS_MAX: usize = 100;

/// The heading of these options, but for `run`.
pub const SHARED: &str = "Options shared with run";

/// Of the shared options, those that say which gateway is meant.
const GATEWAY: &str = "Gateway";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Extent {
    /// `-h`: what is typed every day, without the variables.
    Short,
    /// `--help`
    Whole,
}

/// The help that these words ask for, the program's name first; `None` if they ask for something else.
pub(super) fn text(program: Command, args: &[OsString], columns: usize) -> Option<StyledStr> {
    let is_whole = args.iter().any(|word| word == "--help" || word == "help");
    let extent = if is_whole { Extent::Whole } else { Extent::Short };
    let error = dressed(program, extent, columns.min(COLUMNS_MAX)).try_get_matches_from(args).err()?;
    (!error.use_stderr()).then(|| error.render().clone())
}

/// `program` with every verb's table built.
pub(super) fn dressed(program: Command, extent: Extent, columns: usize) -> Command {
    let blank = Options::augment_args(Command::new(""));
    let shared: Vec<String> = blank.get_arguments().map(|option| option.get_id().to_string()).collect();
    let mut program = program.term_width(columns).styles(styles());
    program.build();
    let program = program.mut_subcommands(|verb| dressed_verb(verb, &shared, extent));
    let program = program.mut_args(|option| dressed_option(option, &shared, extent, None, false));
    with_notes(program, "", extent)
}

fn dressed_verb(verb: Command, shared: &[String], extent: Extent) -> Command {
    let name = verb.get_name().to_owned();
    if name == "help" {
        return verb.about("Print the help of the program or of a verb");
    }
    let has = |id: &String| verb.get_arguments().any(|option| option.get_id().as_str() == id);
    // `uninstall` has a --profile of its own.
    let shared = if shared.iter().all(has) { shared } else { &[] };
    let is_run = name == "run";
    let heading = (!is_run).then_some(SHARED);
    let verb = verb.mut_args(|option| dressed_option(option, shared, extent, heading, is_run));
    with_notes(verb, &name, extent)
}

/// `heading` is that of the shared options, if they have one in common. Of `run`, `-h` has all of them.
fn dressed_option(option: Arg, shared: &[String], extent: Extent, heading: Option<&'static str>, is_run: bool) -> Arg {
    let option = option.next_line_help(extent == Extent::Whole);
    if option.get_id() == "help" && extent == Extent::Short {
        return option.help("Print this help; --help has all options and variables");
    }
    if !shared.iter().any(|id| option.get_id().as_str() == id) {
        return option.help_heading(None::<&str>);
    }
    let is_gateway = option.get_help_heading() == Some(GATEWAY);
    let option = if heading.is_some() { option.help_heading(heading) } else { option };
    if extent == Extent::Whole {
        return option;
    }
    let text = option.get_help().map(ToString::to_string).unwrap_or_default();
    // Without the variable.
    option.help(text.split(" [env: ").next().unwrap_or_default().to_owned()).hide(!is_gateway && !is_run)
}

fn with_notes(command: Command, verb: &str, extent: Extent) -> Command {
    let Some(notes) = NOTES.iter().find(|notes| notes.verb == verb) else { return command };
    let head = *styles().get_header();
    let examples = notes.examples.iter().map(|example| format!("  {example}\n"));
    let codes = codes(notes).into_iter().map(|(code, meaning)| format!("  {code:<4}{meaning}\n"));
    let (examples, codes): (String, String) = (examples.collect(), codes.collect());
    let mut text = format!("{head}Examples:{head:#}\n{examples}\n{head}Exit codes:{head:#}\n{codes}");
    if verb.is_empty() {
        let more = match extent {
            Extent::Short => "All options, with their variables: --help.",
            Extent::Whole => "An empty variable counts as unset.",
        };
        text = format!("{text}\nWithout a verb: run. Durations: 500ms, 30s, 5m, 1h. {more}\n");
    }
    command.after_help(StyledStr::from(text))
}

/// In order, with that of a wrong command line.
#[must_use]
pub fn codes(notes: &VerbNotes) -> Vec<(u8, &'static str)> {
    let mut codes = [notes.codes, &[(exit::USAGE, "wrong command line or environment; nothing was done")]].concat();
    codes.sort_unstable();
    codes
}

fn styles() -> Styles {
    let head = AnsiColor::Green.on_default().bold();
    let name = AnsiColor::Cyan.on_default();
    Styles::styled().header(head).usage(head).literal(name.bold()).placeholder(name)
}
