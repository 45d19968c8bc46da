//! Other programs: their output within a bounded time, and which of them is this one.

use crate::platform::output::{Output, OutputError, output_blocking};
use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// The time that a program may take.
const TIME_MAX: Duration = Duration::from_secs(2);

/// The time that a change may take, such as a daemon-reload of many units.
const CHANGE_TIME_MAX: Duration = Duration::from_mins(1);

/// In bytes: more than `systemctl show` prints for all units of a large machine.
const OUTPUT_MAX: usize = 4 * 1024 * 1024;

/// Why a program has no output.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(in super::super) enum ProgramError {
    #[error("{0} is not installed")]
    Missing(String),
    #[error("{0} did not answer within 2 s")]
    TimedOut(String),
    /// Also where it cannot be started.
    #[error("{0} printed nothing")]
    Silent(String),
}

/// What a program prints to its standard output. Its exit code is ignored.
pub(in super::super) fn output(command: Command) -> Result<String, ProgramError> {
    let name = command.get_program().to_string_lossy().into_owned();
    match output_blocking(command, OUTPUT_MAX, TIME_MAX) {
        Ok(Output { text, .. }) if !text.trim_ascii().is_empty() => Ok(String::from_utf8_lossy(&text).into_owned()),
        Err(OutputError::NotStarted { error, .. }) if error.kind() == io::ErrorKind::NotFound => {
            Err(ProgramError::Missing(name))
        }
        Err(OutputError::TimedOut(_)) => Err(ProgramError::TimedOut(name)),
        Ok(_) | Err(OutputError::NotStarted { .. } | OutputError::Unreadable(_)) => Err(ProgramError::Silent(name)),
    }
}

/// Runs a program that changes something; the error is what it printed.
pub(in super::super) fn success(command: Command) -> Result<(), String> {
    match output_blocking(command, OUTPUT_MAX, CHANGE_TIME_MAX) {
        Ok(Output { status, .. }) if status.success() => Ok(()),
        Ok(Output { status, errors, .. }) => {
            let errors = String::from_utf8_lossy(&errors).trim().replace('\n', " ");
            Err(if errors.is_empty() { status.to_string() } else { errors })
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Whether an argument is the path of this program, also under a release's name such as `openclaw-supervise-0.1.0`.
pub(in super::super) fn is_ours(word: impl AsRef<OsStr>) -> bool {
    let path = Path::new(word.as_ref());
    let is_unit = path.extension().is_some_and(|extension| extension == "service");
    let name = path.file_name().and_then(OsStr::to_str);
    !is_unit && name.is_some_and(|name| name.starts_with("openclaw-supervise"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn the_output_is_returned_whatever_the_exit_code() {
        assert_eq!(output(shell("echo a; exit 3")), Ok("a\n".to_owned()));
        assert_eq!(output(shell("exit 0")), Err(ProgramError::Silent("sh".to_owned())));
        let missing = Command::new("/nowhere/to/be/found");
        assert_eq!(output(missing), Err(ProgramError::Missing("/nowhere/to/be/found".to_owned())));
    }

    #[test]
    fn a_program_that_hangs_is_killed_and_its_children_are_not_waited_for() {
        assert_eq!(output(shell("echo a; sleep 5 & wait")), Err(ProgramError::TimedOut("sh".to_owned())));
    }

    #[test]
    fn a_release_is_this_program_and_its_unit_file_is_not() {
        let known = |word| is_ours(OsStr::new(word));
        assert!(known("/opt/openclaw-supervise") && known("openclaw-supervise-0.1.0"));
        assert!(!known("openclaw-supervise.service") && !known("/usr/bin/node") && !known(""));
    }
}
