//! What can be wrong with an invocation.

use crate::core::exit;
use std::fmt;

/// One thing that is wrong with an invocation, by what it means for the caller.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Mistake {
    /// The command line or a variable cannot be understood, or contradicts itself.
    #[error("{0}")]
    Usage(String),
    /// The gateway's config cannot be read.
    #[error("{0}")]
    Config(String),
    /// The gateway's command is not there or cannot be executed.
    #[error("{0}")]
    Command(String),
    /// A directory that has to be written cannot be written.
    #[error("{0}")]
    Folder(String),
}

impl Mistake {
    /// What an invocation ends with for it.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) => exit::USAGE,
            Self::Config(_) | Self::Command(_) => exit::EX_CONFIG,
            Self::Folder(_) => exit::FAILURE,
        }
    }
}

/// Everything that is wrong with one invocation; never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistakes(Vec<Mistake>);

impl Mistakes {
    /// `Err` with all of them, if there are any.
    pub(super) fn check(mistakes: Vec<Mistake>) -> Result<(), Self> {
        if mistakes.is_empty() { Ok(()) } else { Err(Self(mistakes)) }
    }

    /// Each of them, in the order in which they were found.
    #[must_use]
    pub fn all(&self) -> &[Mistake] {
        &self.0
    }

    /// The exit code of the gravest class: usage 2, then configuration and command 78, then folders 1.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        let codes: Vec<u8> = self.0.iter().map(Mistake::exit_code).collect();
        [exit::USAGE, exit::EX_CONFIG].into_iter().find(|code| codes.contains(code)).unwrap_or(exit::FAILURE)
    }
}

impl fmt::Display for Mistakes {
    /// One line each.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, mistake) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            // A path or a parser's message may hold a line end; a mistake has to stay one line.
            let line = mistake.to_string().replace(|c: char| c.is_control(), " ");
            write!(f, "openclaw-supervise: {line}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gravest_class_gives_the_exit_code() {
        let usage = Mistake::Usage("u".to_owned());
        let config = Mistake::Config("c".to_owned());
        let command = Mistake::Command("m".to_owned());
        let folder = Mistake::Folder("f".to_owned());
        for (mistakes, code) in [
            (vec![folder.clone(), config.clone(), usage], 2),
            (vec![folder.clone(), config], 78),
            (vec![folder.clone(), command], 78),
            (vec![folder], 1),
        ] {
            assert_eq!(Mistakes(mistakes.clone()).exit_code(), code, "{mistakes:?}");
        }
    }

    #[test]
    fn each_mistake_is_one_line_even_when_its_text_has_line_ends() {
        let mistakes = Mistakes(vec![Mistake::Usage("a\nb".to_owned()), Mistake::Config("c".to_owned())]);
        assert_eq!(mistakes.to_string(), "openclaw-supervise: a b\nopenclaw-supervise: c");
    }
}
