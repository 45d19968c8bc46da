//! `man` and `completions`: what a package ships, made from the one table of the command line.

use crate::cli::{self, CompletionShell, NOTES, SHARED};
use crate::core::exit;
use clap::{Arg, Command};
use clap_complete::aot;
use clap_mangen::Man;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

const PROGRAM: &str = "openclaw-supervise";

#[derive(Debug, thiserror::Error)]
pub enum ManError {
    #[error("there is no verb {0:?}; `openclaw-supervise help` lists them")]
    NoVerb(String),
    #[error("cannot write the manual page {0}: {1}; choose another --dir")]
    Page(PathBuf, io::Error),
    #[error("cannot write to stdout: {0}")]
    Output(#[from] io::Error),
}

impl ManError {
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::NoVerb(_) => exit::USAGE,
            Self::Page(..) | Self::Output(_) => exit::FAILURE,
        }
    }
}

pub fn completions(shell: CompletionShell, out: &mut impl Write) -> Result<(), ManError> {
    let (program, mut script) = (cli::command(), Vec::new());
    // Made anew: it takes no table that is built, and would complete hidden verbs as well.
    let own = |command: &Command| {
        let added = |option: &&Arg| ["help", "version"].contains(&option.get_id().as_str());
        let options = command.get_arguments().filter(|option| !added(option)).cloned();
        Command::new(command.get_name().to_owned())
            .about(command.get_about().cloned().unwrap_or_default())
            .visible_aliases(command.get_visible_aliases().map(str::to_owned).collect::<Vec<_>>())
            .args(options.collect::<Vec<_>>())
    };
    let verbs = verbs(&program).filter(|verb| verb.get_name() != "help").map(own).collect::<Vec<_>>();
    let mut command = own(&program).version(env!("CARGO_PKG_VERSION")).subcommands(verbs);
    let shell = match shell {
        CompletionShell::Bash => aot::Shell::Bash,
        CompletionShell::Zsh => aot::Shell::Zsh,
        CompletionShell::Fish => aot::Shell::Fish,
    };
    aot::generate(shell, &mut command, PROGRAM, &mut script);
    // For bash, clap_complete 4.6 writes the hyphen of a program in two ways, and would complete no verb's options.
    let script = String::from_utf8_lossy(&script).replace("openclaw__subcmd__supervise", "openclaw__supervise");
    Ok(out.write_all(script.as_bytes())?)
}

/// `help` is described by the others.
fn program() -> Command {
    cli::command().mut_subcommand("help", |help| help.hide(true))
}

/// Prints the page of the program or of one verb.
pub fn page(verb: Option<&str>, out: &mut impl Write) -> Result<(), ManError> {
    let program = program();
    let command = match verb {
        None => Some(&program),
        Some(name) => verbs(&program).find(|verb| verb.get_name() == name),
    };
    let command = command.ok_or_else(|| ManError::NoVerb(verb.unwrap_or_default().to_owned()))?;
    Ok(out.write_all(&rendered(command)?)?)
}

/// Writes all pages, and makes the directory if there is none.
pub fn pages(dir: &Path) -> Result<(), ManError> {
    let program = program();
    fs::create_dir_all(dir).map_err(|error| ManError::Page(dir.to_owned(), error))?;
    for command in verbs(&program).chain([&program]) {
        let path = dir.join(format!("{}.1", name_of(command)));
        fs::write(&path, rendered(command)?).map_err(|error| ManError::Page(path, error))?;
    }
    Ok(())
}

fn verbs(program: &Command) -> impl Iterator<Item = &Command> {
    program.get_subcommands().filter(|verb| !verb.is_hide_set())
}

/// `openclaw-supervise-status`
fn name_of(command: &Command) -> &str {
    command.get_display_name().unwrap_or(PROGRAM)
}

/// `clap_mangen` fills all lines of its own last section, and examples are lines.
fn rendered(command: &Command) -> io::Result<Vec<u8>> {
    let mut page = Vec::new();
    let is_program = command.get_name() == PROGRAM;
    let usage = command.clone().render_usage().to_string();
    let own = command.clone().override_usage(usage.trim_start_matches("Usage: ").to_owned());
    // Those of `run` are described once, in its page.
    let shares = |heading: Option<&str>| if is_program { heading.is_some() } else { heading == Some(SHARED) };
    let is_shared = command.get_arguments().any(|option| shares(option.get_help_heading()));
    let own = own.mut_args(|option| if shares(option.get_help_heading()) { option.hide(true) } else { option });
    let man = Man::new(own);
    // It leaves out a date that is empty, and the rest would move up.
    let title = name_of(command).to_uppercase();
    writeln!(page, ".TH {title} 1 \"\" \"{PROGRAM} {}\" \"User Commands\"", env!("CARGO_PKG_VERSION"))?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    if is_program {
        man.render_subcommands_section(&mut page)?;
    }
    man.render_options_section(&mut page)?;
    if is_shared {
        page.extend_from_slice(
            b".SH SHARED OPTIONS\nAll options of\n.BR openclaw\\-supervise\\-run (1)\nare accepted before or after the verb. \
              Give those that say which gateway is meant\n(\\-\\-profile, \\-\\-state\\-dir, \\-\\-config, \\-\\-port, \
              \\-\\-store\\-dir) as they were given to\n.BR run .\n",
        );
    }
    let verb = if is_program { "" } else { command.get_name() };
    for notes in NOTES.iter().filter(|notes| notes.verb == verb) {
        writeln!(page, ".SH EXIT STATUS")?;
        for (code, meaning) in cli::codes(notes) {
            writeln!(page, ".TP\n.B {code}\n{meaning}")?;
        }
        writeln!(page, ".SH EXAMPLES\n.nf")?;
        for example in notes.examples {
            writeln!(page, "{}", example.replace('-', "\\-"))?;
        }
        writeln!(page, ".fi")?;
    }
    let others = if is_program { "openclaw\\-supervise\\-run" } else { "openclaw\\-supervise" };
    writeln!(page, ".SH SEE ALSO\n.BR {others} (1)")?;
    Ok(page)
}
