//! What is wrong with a command line, in one line.

use super::options::variable_of;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What is wrong, and the nearest spelling, in one line: the log of a service has one record a line.
#[must_use]
pub fn line(error: &clap::Error) -> String {
    let text = error.to_string();
    // Below that are the usage and where to look for help.
    let lines =
        text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    // Of what is no option for us, clap says how to make it a word of COMMAND.
    let parts = lines.map(str::trim).filter(|line| !line.is_empty() && !line.contains("as a value, use '--"));
    let mut parts: Vec<_> = parts.map(|part| part.trim_start_matches("error: ").trim_start_matches("tip: ")).collect();
    let is_unknown = matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand);
    if is_unknown && parts.len() < 2 {
        parts.push("see --help");
    }
    parts.join("; ").replace(":; ", ": ")
}

/// clap knows nothing of variables, and takes their options for typed ones.
pub(super) fn name_the_variable(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) {
        let flag = option.trim_start_matches('-').split(' ').next().unwrap_or_default();
        let tip = format!("the value comes from the environment variable {}", variable_of(flag));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}
