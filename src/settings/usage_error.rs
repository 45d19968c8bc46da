//! What can be wrong with an invocation that clap has parsed: contradictions, the environment, the gateway's command,
//! and directories. All of it is reported together.

use super::command::CommandError;
use crate::core::exit;
use crate::gateway::verb::OtherVerb;
use crate::host::webhook::SourceError;
use std::fmt;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// clap's message, for `doctor`, which reads the command lines of other processes.
    #[error("{0}")]
    CommandLine(String),
    #[error("--{option} {typed} contradicts COMMAND's --{option} {of_command}; give one of them")]
    Contradiction { option: &'static str, typed: String, of_command: String },
    #[error(
        "--repair doctor needs a COMMAND that runs `openclaw ... gateway`: it calls the doctor of that openclaw; use --repair off"
    )]
    RepairWithoutOpenclaw,
    #[error("`openclaw {typed}` runs no gateway, so nothing was started; {advice}")]
    NotAGateway { typed: String, advice: String },
    #[error(
        "uninstall does nothing with {0}, so nothing was changed: it removes the service of --profile NAME, or the one without \
         a profile; leave {0} out"
    )]
    UninstallWithOption(String),
    #[error("demo uses its own settings; give it no option but --fast")]
    DemoWithOptions,
    #[error("{option}: {error}")]
    Webhook { option: &'static str, error: SourceError },
    #[error(
        "{0} with a URL would put its secret into a service file and into `ps`; write the URL into a file with mode 0600 and \
         give {0} @FILE"
    )]
    SecretInService(&'static str),
    #[error("--run-as is for a system service; give --system as well")]
    RunAsWithoutSystem,
    #[error("cannot tell which user's gateway to install; give --run-as USER")]
    NoAccount,
    #[error("the account {0:?} cannot be part of a service name (letters, digits, '.', - and _); use another --run-as")]
    AccountName(String),
    #[error("--profile {0:?} cannot be part of a service name (letters, digits, - and _)")]
    ProfileName(String),
    #[error("no home directory to install into; set HOME")]
    NoHome,
    #[error(transparent)]
    Command(#[from] CommandError),
    #[error("cannot write the {what} {folder}: {why}; make it writable for this user or choose another with {option}")]
    Folder {
        what: &'static str,
        folder: String,
        why: String,
        /// Whether that lasts until an operator changes it.
        is_refused: bool,
        option: &'static str,
    },
}

impl UsageError {
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::CommandLine(_)
            | Self::Contradiction { .. }
            | Self::RepairWithoutOpenclaw
            | Self::NotAGateway { .. }
            | Self::UninstallWithOption(_)
            | Self::DemoWithOptions
            | Self::RunAsWithoutSystem
            | Self::Webhook { .. }
            | Self::SecretInService(_)
            | Self::NoAccount
            | Self::AccountName(_)
            | Self::ProfileName(_)
            | Self::NoHome
            | Self::Command(CommandError::OwnVerb(..) | CommandError::OwnOption(_)) => exit::USAGE,
            Self::Command(CommandError::NotExamined(..)) | Self::Folder { is_refused: false, .. } => exit::FAILURE,
            Self::Command(_) | Self::Folder { is_refused: true, .. } => exit::EX_CONFIG,
        }
    }
}

impl From<OtherVerb> for UsageError {
    fn from(OtherVerb { typed, meant, ours }: OtherVerb) -> Self {
        let advice = match (meant, ours) {
            (Some(meant), Some(ours)) => format!("for {meant}, type: openclaw-supervise {ours}"),
            (Some(meant), None) => format!("for {meant}, type: openclaw gateway {meant}"),
            (None, Some(ours)) => format!("type: openclaw-supervise {ours} (or openclaw {typed}, by itself)"),
            (None, None) => format!("type: openclaw {typed}, without openclaw-supervise"),
        };
        Self::NotAGateway { typed, advice }
    }
}

/// Everything that is wrong with one invocation; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageErrors(Vec<UsageError>);

impl UsageErrors {
    /// `Err` with all of them, if there are any.
    pub(super) fn check(mut errors: Vec<UsageError>) -> Result<(), Self> {
        // Behind a wrong command line, PATH may be another's: of the gateway that is not meant, or of the one before `--`.
        if errors.iter().any(|error| error.exit_code() == exit::USAGE) {
            errors.retain(|error| {
                !matches!(error, UsageError::Command(CommandError::NotOnPath { .. } | CommandError::NoPath(_)))
            });
        }
        if errors.is_empty() { Ok(()) } else { Err(Self(errors)) }
    }

    /// In the order in which they were found.
    #[must_use]
    pub fn all(&self) -> &[UsageError] {
        &self.0
    }

    /// The exit code of the gravest class: usage 2, then command and refused directories 78, then 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let has = |code| self.0.iter().any(|error| error.exit_code() == code);
        [exit::USAGE, exit::EX_CONFIG].into_iter().find(|code| has(*code)).unwrap_or(exit::FAILURE)
    }
}

impl From<UsageError> for UsageErrors {
    fn from(error: UsageError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for UsageErrors {
    /// One line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            // A path or a parser's message may hold a line end.
            let line = error.to_string().replace(|c: char| c.is_control(), " ");
            write!(f, "openclaw-supervise: error: {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for UsageErrors {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_class_gives_the_exit_code() {
        let of_folder = |is_refused| {
            let text = || "f".to_owned();
            UsageError::Folder { what: "f", folder: text(), why: text(), is_refused, option: "f" }
        };
        let folder = of_folder(false);
        let program = UsageError::Command(CommandError::Empty);
        let unseen = UsageError::Command(CommandError::NotExamined("p".to_owned(), "EIO".to_owned()));
        for (errors, code) in [
            (vec![folder.clone(), program.clone(), UsageError::NoHome], 2),
            (vec![folder.clone(), program], 78),
            (vec![folder, unseen], 1),
            (vec![of_folder(true)], 78),
        ] {
            assert_eq!(UsageErrors(errors.clone()).exit_code(), code, "{errors:?}");
        }
    }

    #[test]
    fn each_error_is_one_line_even_when_its_text_has_line_ends() {
        let errors = UsageErrors(vec![UsageError::CommandLine("a\nb".to_owned()), UsageError::NoAccount]);
        let expected = "openclaw-supervise: error: a b\nopenclaw-supervise: error: cannot tell";
        assert!(errors.to_string().starts_with(expected), "{errors}");
    }
}
