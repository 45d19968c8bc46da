//! COMMAND: the program to be found, and those of its options that say where its gateway will listen.

use super::config::Bind;
use super::port;
use super::process_context::ProcessContext;
use crate::cli::{is_profile, verb_like};
use crate::gateway::openclaw::is_openclaw;
use crate::platform::refusal::is_refusal;
use rustix::fs::{Access, access};
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// What COMMAND's own options say. The last one of a kind counts, as in the gateway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct CommandOptions {
    pub(super) port: Option<u16>,
    pub(super) bind: Option<Bind>,
    pub(super) profile: Option<String>,
    /// What the gateway will not take, one line each.
    pub(super) problems: Vec<String>,
}

/// Why there is no program to run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("COMMAND is an empty word; name the program to run")]
    Empty,
    #[error("{0} is not executable; chmod +x it, or start its interpreter: run -- node {0}")]
    NotExecutable(String),
    #[error("{0} is not a regular file; name another program: openclaw-supervise run -- COMMAND")]
    NotAFile(String),
    #[error("{0} does not exist; install it, or name another program: openclaw-supervise run -- COMMAND")]
    Missing(String),
    #[error("cannot examine {0}: {1}; its file system or the memory may be the reason, so another start may help")]
    NotExamined(String, String),
    #[error("cannot look for {0}: PATH is not set; set it, or give the absolute path of the program")]
    NoPath(String),
    #[error("there is no program {0} in PATH; without -- it is a verb: openclaw-supervise {1}")]
    OwnVerb(String, String),
    #[error("COMMAND is the option {0}; options go before --, and the gateway's program behind it")]
    OwnOption(String),
    #[error(
        "cannot find {program} in PATH ({path}); install it, or name another program: openclaw-supervise run -- COMMAND"
    )]
    NotOnPath { program: String, path: String },
}

/// Reads COMMAND, program included. `--port` counts behind any program; `--bind` and `--profile` are too common
/// elsewhere and count only behind OpenClaw's own program.
pub(super) fn read(command: &[OsString]) -> CommandOptions {
    let openclaw = command.iter().position(|word| is_openclaw(word));
    let mut options = CommandOptions::default();
    let mut words = command.iter().skip(openclaw.map_or(1, |at| at + 1));
    let mut in_gateway = false;
    while let Some(word) = words.next() {
        if word == "--" && openclaw.is_some() {
            break;
        }
        let text = word.to_str().unwrap_or_default();
        let (name, inline) = match text.split_once('=') {
            Some((name, value)) => (name, Some(OsStr::new(value))),
            None => (text, None),
        };
        let mut value = || inline.or_else(|| words.next().map(OsString::as_os_str)).unwrap_or_default();
        match (name, openclaw.is_some()) {
            ("--port", _) => options.take_port(value()),
            ("--bind", true) => options.take_bind(value()),
            ("--profile", true) => options.take_profile(value()),
            // Behind `gateway` it is an option of the gateway's own, and selects no profile.
            ("--dev", true) if !in_gateway && inline.is_none() => options.profile = Some("dev".to_owned()),
            _ => in_gateway |= text == "gateway",
        }
    }
    options
}

impl CommandOptions {
    fn take_port(&mut self, value: &OsStr) {
        match value.to_str().map(str::trim).and_then(|text| port::parse(text.strip_prefix('+').unwrap_or(text))) {
            Some(port) => self.port = Some(port),
            None => self.refuse("--port", value, "a port from 1 to 65535"),
        }
    }

    fn take_bind(&mut self, value: &OsStr) {
        match value.to_str().map(str::trim).and_then(Bind::parse) {
            Some(bind) => self.bind = Some(bind),
            None => self.refuse("--bind", value, "one of loopback, lan, tailnet, auto, custom"),
        }
    }

    fn take_profile(&mut self, value: &OsStr) {
        match value.to_str().map(str::trim).filter(|name| is_profile(name)) {
            Some(name) => self.profile = Some(name.to_owned()),
            None => self.refuse("--profile", value, "a profile (letters, digits, _ and -, 64 at most)"),
        }
    }

    fn refuse(&mut self, option: &'static str, value: &OsStr, expected: &'static str) {
        self.problems.push(format!("COMMAND's {option} {:?} is not {expected}", value.to_string_lossy()));
    }
}

/// The absolute path of the program.
pub(super) fn find(program: &OsStr, context: &ProcessContext) -> Result<PathBuf, CommandError> {
    let path = context.variable("PATH");
    // A relative folder on PATH gives a relative path, which must not depend on where the child is started.
    which::which_in(program, path.as_ref(), &context.cwd)
        .map(|found| context.cwd.join(found))
        .map_err(|_| why_not_found(program, path.as_deref(), context))
}

fn why_not_found(program: &OsStr, path: Option<&OsStr>, context: &ProcessContext) -> CommandError {
    let shown = program.to_string_lossy().into_owned();
    if shown.is_empty() {
        return CommandError::Empty;
    }
    if Path::new(program).components().count() > 1 {
        let tried = context.cwd.join(program);
        let shown = tried.display().to_string();
        return if let Some(error) = not_examined(&tried) {
            error
        } else if tried.is_file() {
            CommandError::NotExecutable(shown)
        } else if tried.exists() {
            CommandError::NotAFile(shown)
        } else {
            CommandError::Missing(shown)
        };
    }
    if shown.starts_with('-') {
        return CommandError::OwnOption(shown);
    }
    if let Some(verb) = verb_like(&shown) {
        return CommandError::OwnVerb(shown, verb);
    }
    let Some(path) = path else { return CommandError::NoPath(shown) };
    let places = || std::env::split_paths(path).map(|folder| context.cwd.join(folder).join(program));
    if let Some(error) = places().find_map(|at| not_examined(&at)) {
        return error;
    }
    match places().find(|at| at.is_file()) {
        Some(found) => CommandError::NotExecutable(found.display().to_string()),
        None => CommandError::NotOnPath { program: shown, path: path.to_string_lossy().into_owned() },
    }
}

/// Set if the first look failed for a reason that may pass, such as EIO, ESTALE or ENOMEM, or has passed by now.
fn not_examined(path: &Path) -> Option<CommandError> {
    let why = match access(path, Access::EXEC_OK) {
        Ok(()) if path.is_file() => "the first look failed".to_owned(),
        Err(error) if !is_refusal(&error.into()) => std::io::Error::from(error).to_string(),
        Ok(()) | Err(_) => return None,
    };
    Some(CommandError::NotExamined(path.display().to_string(), why))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(line: &str) -> CommandOptions {
        read(&line.split_whitespace().map(OsString::from).collect::<Vec<_>>())
    }

    #[test]
    fn the_last_port_of_command_counts() {
        for (line, port) in [
            ("openclaw gateway run --port 19000", Some(19000)),
            ("openclaw gateway run --port=19000", Some(19000)),
            ("openclaw gateway --port 1 --port=2", Some(2)),
            ("node /opt/openclaw.mjs gateway --port 7", Some(7)),
            ("python3 gateway.py --port 8", Some(8)),
            ("openclaw gateway -- --port 9", None),
            ("openclaw gateway run", None),
            ("openclaw gateway --portal 9", None),
            ("openclaw gateway --port=+9", Some(9)),
            ("--port 9", None),
        ] {
            let options = options(line);
            assert_eq!((options.port, options.problems.as_slice()), (port, [].as_slice()), "{line}");
        }
    }

    #[test]
    fn a_wrong_port_of_command_is_a_problem() {
        for line in ["openclaw gateway --port none", "x --port", "x --port=0", "x --port 65536", "x --port --bind"] {
            assert_eq!(options(line).problems.len(), 1, "{line}");
        }
    }

    #[test]
    fn bind_and_profile_count_behind_openclaw_alone() {
        let ours = options("env A=b /usr/bin/openclaw --profile work gateway --bind=lan");
        assert_eq!((ours.profile.as_deref(), ours.bind), (Some("work"), Some(Bind::Lan)));
        assert_eq!(options("cloud --profile x --bind y"), CommandOptions::default());
        let wrapped = options("cloud --profile other openclaw gateway --profile work");
        assert_eq!(wrapped.profile.as_deref(), Some("work"));
    }

    #[test]
    fn dev_is_a_profile_only_before_the_word_gateway() {
        assert_eq!(options("openclaw --dev gateway run").profile.as_deref(), Some("dev"));
        assert_eq!(options("openclaw gateway --dev").profile, None);
    }

    #[test]
    fn a_wrong_bind_or_profile_is_a_problem() {
        assert_eq!(options("openclaw gateway --bind all --profile a/b").problems.len(), 2);
    }
}
