//! The command line as it was typed. clap alone parses it; [`crate::settings`] gives it its meaning.
//!
//! An option counts after the verb, then before it, then from its variable. clap's own `env` knows one level of options
//! and the environment of this process; ours has two, and `doctor` reads the units of other processes. So what was typed
//! and the variables of what was not are parsed once more as one row of options, see [`Cli::read`].

mod advice;
mod error;
mod help;
mod notes;
mod options;
mod time;
mod value;
mod verb;

pub use advice::shell_word;
pub use error::line;
pub use help::{SHARED, codes};
pub use notes::{NOTES, VerbNotes};
pub use options::{ConflictMode, Options, RepairMode, variable_of};
pub use time::Since;
pub use value::{DecisionSubject, Host, MemoryMax, StopTimeout, is_profile};
pub use verb::{CompletionShell, Demo, ProbeFlags, ServiceOptions, StandIn, Verb};

use clap::builder::StyledStr;
use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser};
use help::Extent;
use options::WITHOUT_VARIABLE;
use std::ffi::OsString;

/// Keep exactly one OpenClaw gateway alive
#[derive(Debug, Clone, Parser)]
#[command(
    name = "openclaw-supervise",
    version,
    args_override_self = true,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    override_usage = "openclaw-supervise [OPTIONS] [VERB]\n       openclaw-supervise [OPTIONS] [run] -- COMMAND..."
)]
pub struct Cli {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// The options as they were typed, for a service that is to be run with them: `--port`, `18789`.
    #[arg(skip)]
    pub typed: Vec<(String, OsString)>,
}

impl Cli {
    /// Parses a command line, the program's name first, and the variables of the options that were not typed.
    /// `variable` gives `None` for one that is unset or empty.
    pub fn read(
        args: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, clap::Error> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        name_the_verb(&mut args);
        let parsed = Self::command().try_get_matches_from(&args);
        let matches = parsed.map_err(|error| advice::advise(error, &args, Self::command()))?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if let Some(Verb::Gateway { args: of_gateway }) = &mut cli.verb {
            restore_hyphens(of_gateway, &args);
        }
        let verb = matches.subcommand().map(|(_, verb)| verb);
        // The demo is to be the same everywhere.
        let is_demo = matches!(cli.verb, Some(Verb::Demo(_) | Verb::DemoGateway(_) | Verb::DemoHelper));
        let command = Options::augment_args(Command::new("openclaw-supervise").no_binary_name(true));
        let mut words = Vec::new();
        for option in command.get_arguments() {
            let (id, Some(flag)) = (option.get_id().as_str(), option.get_long()) else { continue };
            if let Some(value) = verb.and_then(|verb| raw(verb, id)).or_else(|| raw(&matches, id)) {
                words.push(word(flag, &value));
                cli.typed.push((format!("--{flag}"), value));
            } else if !is_demo
                && !WITHOUT_VARIABLE.contains(&flag)
                && let Some(value) = variable(&variable_of(flag))
            {
                words.push(word(flag, &value));
            }
        }
        // What was typed has been parsed before, so an error is that of a variable.
        let matches = command.try_get_matches_from(words).map_err(error::name_the_variable)?;
        cli.options = Options::from_arg_matches(&matches)?;
        Ok(cli)
    }
}
/// The table of the program and of every verb, with all that their help says.
#[must_use]
pub fn command() -> Command {
    help::dressed(Cli::command(), Extent::Whole, usize::MAX)
}

/// Whether it is a verb, or nearly one.
#[must_use]
pub fn verb_like(word: &str) -> Option<String> {
    let is_near = |verb: &str| verb == word || (word.len() > 3 && strsim::osa_distance(verb, word) <= 1);
    let program = Cli::command();
    let verbs = program.get_subcommands().filter(|verb| !verb.is_hide_set());
    let mut names = verbs.flat_map(Command::get_name_and_visible_aliases);
    names.find(|name| is_near(name)).map(str::to_owned)
}

/// The help that a command line asks for, the program's name first.
#[must_use]
pub fn help(args: &[OsString], columns: usize) -> Option<StyledStr> {
    help::text(Cli::command(), args, columns)
}

/// A COMMAND without a verb is that of `run`. With a COMMAND of the program's own, clap would no longer tell which verb a
/// mistyped one is similar to.
fn name_the_verb(args: &mut Vec<OsString>) {
    let Some(end) = args.iter().position(|word| word == "--") else { return };
    let before = args.get(..end).unwrap_or_default();
    // A parse takes half a millisecond, and the verb is nearly always there.
    if !before.iter().any(|word| word == "run") && Cli::try_parse_from(before).is_ok_and(|cli| cli.verb.is_none()) {
        args.insert(end, OsString::from("run"));
    }
}

/// clap swallows a `--` directly behind `gateway`, where it belongs to the gateway.
fn restore_hyphens(of_gateway: &mut Vec<OsString>, args: &[OsString]) {
    let before = args.len().checked_sub(of_gateway.len() + 1).and_then(|at| args.get(at));
    if before.is_some_and(|before| before == "--") {
        of_gateway.insert(0, OsString::from("--"));
    }
}

/// The value of an option as it was typed last. Some verbs do not have it.
fn raw(matches: &ArgMatches, id: &str) -> Option<OsString> {
    matches.try_get_raw(id).ok().flatten()?.next_back().map(OsString::from)
}

fn word(flag: &str, value: &OsString) -> OsString {
    let mut word = OsString::from(format!("--{flag}="));
    word.push(value);
    word
}
