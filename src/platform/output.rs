//! The output of a short-lived program, bounded in time and in bytes.

use super::clock;
use super::descent::descendants_of;
use super::kill::kill_group_of_child;
use super::proc;
use super::process::{Handle, Setup, Spawned, claim, reap, spawn, unclaim};
use super::thread::BlockingCall;
use super::working_directory;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::process::{Command, ExitStatus};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

/// How long a killed program is waited for: nothing of it may outlive us, and to free 300 MB takes a while.
const KILL_TIME: Duration = Duration::from_millis(200);

/// What a program printed, and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Output {
    /// Its exit status.
    pub status: ExitStatus,
    /// All of its standard output.
    pub text: Vec<u8>,
    /// Its standard error, up to the limit.
    pub errors: Vec<u8>,
}

/// Why there is no output.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// It could not be started.
    #[error("cannot execute {program}: {error}")]
    NotStarted {
        /// As the command names it.
        program: String,
        /// That of clone3(2) or execve(2).
        error: io::Error,
    },
    /// It printed more than the limit, or could not be read.
    #[error("cannot read its answer: {0}")]
    Unreadable(#[from] io::Error),
    /// It was killed.
    #[error("no answer within {}s", .0.as_secs())]
    TimedOut(Duration),
}

/// Runs a program until it exits, in a session of its own and without an input. Dropping the future kills it, with its
/// descendants. Of `command`, its program, arguments and environment count; `limit` is in bytes.
///
/// # Errors
/// See [`OutputError`].
pub async fn output(mut command: Command, limit: usize, time: Duration) -> Result<Output, OutputError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let not_started = |error| OutputError::NotStarted { program: program.clone(), error };
    let input = File::open("/dev/null")?;
    let ((text, text_end), (errors, errors_end)) = (io::pipe()?, io::pipe()?);
    let streams = [Some(input.as_fd()), Some(text_end.as_fd()), Some(errors_end.as_fd())];
    if working_directory::is_gone() {
        let _late = BlockingCall::default().run(time, working_directory::ensure).await;
    }
    let setup = Setup { streams, ..Setup::default() };
    let Spawned { handle, exec, .. } = spawn(&mut command, setup).map_err(not_started)?;
    let running = Running::claim(handle);
    // Or there would be no end of file.
    drop((command, text_end, errors_end));
    let (text, errors) = (Receiver::from_owned_fd(text.into())?, Receiver::from_owned_fd(errors.into())?);
    let watch = running.0.watch()?;
    let whole = async {
        exec.done().await.map_err(not_started)?;
        let (mut printed, mut complaints) = (Vec::new(), Vec::new());
        let ends = async {
            tokio::try_join!(
                read(&text, &mut printed, limit, TooMuch::Fails),
                read(&errors, &mut complaints, limit, TooMuch::Dropped)
            )
        };
        let early = tokio::select! {
            read = ends => {
                read?;
                None
            }
            exit = watch.exit(&running.0) => Some(exit?),
        };
        let exit = match early {
            // Its descendants may hold the pipes open, but their output is not wanted.
            Some(exit) => {
                drain(&text, &mut printed, limit, TooMuch::Fails)?;
                drain(&errors, &mut complaints, limit, TooMuch::Dropped)?;
                exit
            }
            None => watch.exit(&running.0).await?,
        };
        Ok(Output { status: exit.status, text: printed, errors: complaints })
    };
    let result = timeout(time, whole).await.unwrap_or(Err(OutputError::TimedOut(time)));
    running.end().await;
    result
}

/// The same for a caller without a runtime. It blocks.
///
/// # Errors
/// See [`OutputError`].
pub fn output_blocking(command: Command, limit: usize, time: Duration) -> Result<Output, OutputError> {
    // On a thread of its own: there may be a runtime on this one.
    let run = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(output(command, limit, time))
    };
    thread::scope(|scope| {
        let running = thread::Builder::new().spawn_scoped(scope, run)?;
        running.join().unwrap_or_else(|_| Err(io::Error::other("a panic").into()))
    })
}

/// A program at work, claimed. Dropping it kills it with its descendants.
struct Running(Arc<Handle>);

impl Running {
    fn claim(handle: Handle) -> Self {
        claim(handle.pid());
        Self(Arc::new(handle))
    }

    /// The same as dropping it, but without a wait.
    async fn end(self) {
        let handle = Arc::clone(&self.0);
        if matches!(handle.has_ended(), Ok(false)) {
            let _unseen = proc::run(move || kill_with_descendants(&handle)).await;
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let handle = Arc::clone(&self.0);
        if matches!(handle.has_ended(), Ok(false)) {
            // On another thread: the looks at its descendants may block.
            let (done, killed) = mpsc::channel();
            let thread = thread::Builder::new().spawn(move || {
                kill_with_descendants(&handle);
                // After the timeout the receiver is gone.
                let _late = done.send(());
            });
            if thread.is_ok() {
                let _in_time = killed.recv_timeout(KILL_TIME);
            }
            let _gone = self.0.kill();
        } else {
            let _gone = kill_group_of_child(self.0.pid());
        }
        // If it is still exiting, it is reaped at SIGCHLD.
        unclaim(self.0.pid());
        reap(self.0.pid());
    }
}

/// OpenClaw's command line runs itself once more, in another session.
fn kill_with_descendants(handle: &Handle) {
    let below = descendants_of(handle.pid());
    let _gone = kill_group_of_child(handle.pid());
    let _gone = handle.kill();
    for process in &below {
        let _gone = process.kill();
    }
    let begun = clock::monotonic();
    for process in below.iter().chain([handle]) {
        let _ended = process.ends_within(KILL_TIME.saturating_sub(clock::monotonic().saturating_sub(begun)));
    }
}

/// What happens to bytes beyond the limit.
#[derive(Debug, Clone, Copy)]
enum TooMuch {
    Fails,
    Dropped,
}

/// Reads until every write end is closed.
async fn read(pipe: &Receiver, text: &mut Vec<u8>, limit: usize, too_much: TooMuch) -> io::Result<()> {
    loop {
        pipe.readable().await?;
        if drain(pipe, text, limit, too_much)? {
            return Ok(());
        }
    }
}

/// Reads what has been written so far. Returns whether every write end is closed.
fn drain(pipe: &Receiver, text: &mut Vec<u8>, limit: usize, too_much: TooMuch) -> io::Result<bool> {
    let mut chunk = [0; 4096];
    loop {
        match pipe.try_read(&mut chunk) {
            Ok(0) => return Ok(true),
            Ok(more) => text.extend_from_slice(&chunk[..more]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(error),
        }
        match too_much {
            TooMuch::Fails if text.len() > limit => {
                return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("over {limit} bytes")));
            }
            TooMuch::Fails => {}
            TooMuch::Dropped => text.truncate(limit),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, limit: usize) -> Result<Output, OutputError> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        output_blocking(command, limit, Duration::from_secs(20))
    }

    #[test]
    fn both_streams_are_read_to_their_end_whatever_the_exit_code() {
        let said = shell("echo a; echo b >&2; exit 3", 100).unwrap();
        assert_eq!((said.status.code(), &said.text[..], &said.errors[..]), (Some(3), &b"a\n"[..], &b"b\n"[..]));
    }

    #[test]
    fn a_descendant_that_holds_the_pipe_is_not_waited_for_and_a_flood_is_an_error() {
        assert_eq!(shell("echo a; setsid sleep 60 &", 100).unwrap().text, b"a\n");
        let error = shell("while :; do echo aaaaaaaa; done", 10_000).unwrap_err();
        assert!(matches!(error, OutputError::Unreadable(_)), "{error}");
        assert_eq!(shell("echo abc >&2", 2).unwrap().errors, b"ab");
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children_and_a_missing_one_is_named() {
        let mut command = Command::new("sh");
        command.args(["-c", "setsid sleep 61 & exec sleep 62"]);
        let error = output_blocking(command, 100, Duration::from_millis(200)).unwrap_err();
        assert!(matches!(error, OutputError::TimedOut(_)), "{error}");
        let left = proc::processes().unwrap().into_iter().filter(|process| !process.is_dead());
        let commands: Vec<_> = left.filter_map(|process| proc::command_of(process.pid)).collect();
        assert!(!commands.iter().any(|command| command == "sleep 61" || command == "sleep 62"), "{commands:?}");
        let error = output_blocking(Command::new("/nowhere"), 100, Duration::from_secs(20)).unwrap_err();
        assert!(error.to_string().starts_with("cannot execute /nowhere: No such file"), "{error}");
    }
}
