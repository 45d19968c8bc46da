//! The programs that are asked: what they print, in a bounded time.

use std::io::{self, Read};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

/// How long one may take.
const TIME_MAX: Duration = Duration::from_secs(2);

/// More than all units of a large machine come to.
const ANSWER_MAX: u64 = 4 * 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// There is no such program.
    #[error("{0} is not installed")]
    Missing(String),
    /// It was still busy.
    #[error("{0} did not answer within 2 s")]
    Late(String),
    /// It said nothing, or could not be started.
    #[error("{0} gave no answer")]
    Mute(String),
}

/// What it prints. Its exit code says nothing that its words do not.
pub(super) fn ask(mut command: Command) -> Result<String, Trouble> {
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => Trouble::Missing(name.clone()),
        _ => Trouble::Mute(name.clone()),
    })?;
    let (sender, answers) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        // Nobody waits for it: what holds the pipe open beyond our patience must not hold us.
        std::thread::spawn(move || {
            let mut answer = Vec::new();
            let read = stdout.take(ANSWER_MAX).read_to_end(&mut answer);
            // Where we have lost our patience nobody receives it.
            let _late = sender.send(read.map(|_| answer));
        });
    }
    let answer = answers.recv_timeout(TIME_MAX);
    // ESRCH and ECHILD cannot be: it is our child, and nobody else reaps it.
    let _gone = child.kill();
    let _reaped = child.wait();
    match answer {
        Ok(Ok(answer)) if !answer.trim_ascii().is_empty() => Ok(String::from_utf8_lossy(&answer).into_owned()),
        Ok(_) => Err(Trouble::Mute(name)),
        Err(_) => Err(Trouble::Late(name)),
    }
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
    fn its_words_count_whatever_its_exit_code() {
        assert_eq!(ask(shell("echo a; exit 3")), Ok("a\n".to_owned()));
        assert_eq!(ask(shell("exit 0")), Err(Trouble::Mute("sh".to_owned())));
        let missing = Command::new("/nowhere/to/be/found");
        assert_eq!(ask(missing), Err(Trouble::Missing("/nowhere/to/be/found".to_owned())));
    }

    #[test]
    fn one_that_hangs_is_ended_and_its_children_are_not_waited_for() {
        assert_eq!(ask(shell("echo a; sleep 5 & wait")), Err(Trouble::Late("sh".to_owned())));
    }
}
