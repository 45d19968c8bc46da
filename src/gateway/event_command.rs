//! The operator's command for incidents. It is started and ended as a hook is, beside a gateway, and its output is kept for an
//! error message alone.

use super::hooks::{Hooks, Living, end_of, entry};
use super::spawn::{self, ProcessKind, SpawnError, Started};
use super::tree::{Orphans, Tree};
use crate::core::ExitStatus;
use crate::core::hook::{GRACE, KILL_TIME_MAX};
use crate::core::report::human;
use crate::platform::process::Turn;
use crate::platform::thread::BlockingCall;
use crate::platform::working_directory;
use rustix::io::ioctl_fionbio;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::time::timeout;

/// What is kept of its output. The rest is read and dropped, so that it never waits for us.
const OUTPUT_LENGTH_MAX: usize = 4096;

/// What is shown of that, in characters.
const SHOWN_LENGTH_MAX: usize = 160;

const NAME: &str = "on-event";

/// Why an event command has not done its work.
#[derive(Debug, thiserror::Error)]
pub enum EventCommandError {
    #[error("cannot be started: {0}")]
    NotStarted(#[from] io::Error),
    #[error("ended with {0}{1}")]
    Failed(ExitStatus, String),
    #[error("was killed after {}{said}", human(*.limit))]
    TimedOut { limit: Duration, said: String },
}

impl Hooks {
    /// Runs a line for the shell with this input, and ends all that it has started. To be called in a runtime.
    ///
    /// # Errors
    /// See [`EventCommandError`].
    pub async fn run_event_command(
        &self,
        line: &OsStr,
        input: &[u8],
        limit: Duration,
    ) -> Result<(), EventCommandError> {
        if working_directory::is_gone() {
            let _late = BlockingCall::default().run(limit, working_directory::ensure).await;
        }
        let id = self.new_id();
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(line);
        self.prepare(&mut command, &id);
        let input = filled_pipe(input)?;
        let (output, output_end) = io::pipe()?;
        let output_end = OwnedFd::from(output_end);
        let streams = [Some(File::from(output_end.try_clone()?)), Some(File::from(output_end))];
        let (started, living) = {
            // Until it is claimed, the thread of the loop must not reap it.
            let _turn = Turn::begin();
            let started = spawn::start(&mut command, Some(input.as_fd()), &streams, ProcessKind::Hook, &id);
            let started = started.map_err(|failure| match failure {
                SpawnError::Spawn(error) | SpawnError::Watch(error) => error,
            })?;
            let living = Living::of(&id, started.tag);
            (started, living)
        };
        // Or there would be no end of file.
        drop((command, input, streams));
        let Started { leader, watch, exec, leaf, tag } = started;
        let reading = tokio::spawn(head(Receiver::from_owned_fd(output.into())?));
        let executed = spawn::executed(exec, leader.pid()).await;
        let tree = Tree::new(&leader, entry(&id), Orphans::Mixed).with(leaf.clone(), tag);
        let mut end = Box::pin(end_of(NAME, &leader, &watch, tree, self.clock));
        let mut death = timeout(limit, &mut end).await.ok();
        let is_late = death.is_none();
        if is_late {
            let _gone = leader.terminate().and_then(|()| leader.resume());
            death = timeout(GRACE, &mut end).await.ok();
        }
        if death.is_none() {
            let _gone = leader.kill();
            death = timeout(KILL_TIME_MAX, &mut end).await.ok();
        }
        drop(end);
        spawn::retire(leaf.as_ref());
        drop(living);
        let said = match timeout(Duration::from_millis(100), reading).await {
            Ok(Ok(said)) if !said.is_empty() => format!(": {said}"),
            _ => String::new(),
        };
        executed?;
        match death {
            Some(ExitStatus::Code(0)) if !is_late => Ok(()),
            Some(death) if !is_late => Err(EventCommandError::Failed(death, said)),
            Some(_) | None => Err(EventCommandError::TimedOut { limit, said }),
        }
    }
}

/// The read end of a pipe that holds all of it: 64 KiB, or a page where this user has too many pipes (pipe(7)).
fn filled_pipe(content: &[u8]) -> io::Result<Arc<File>> {
    let (reader, mut writer) = io::pipe()?;
    ioctl_fionbio(&writer, true)?;
    writer.write_all(content)?;
    Ok(Arc::new(File::from(OwnedFd::from(reader))))
}

/// The first line of what it prints. Reads until every write end is closed.
async fn head(pipe: Receiver) -> String {
    let (mut kept, mut chunk) = (Vec::new(), [0; 4096]);
    while pipe.readable().await.is_ok() {
        match pipe.try_read(&mut chunk) {
            Ok(0) => break,
            Ok(more) => {
                let room = OUTPUT_LENGTH_MAX.saturating_sub(kept.len()).min(more);
                kept.extend_from_slice(&chunk[..room]);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    let text = String::from_utf8_lossy(&kept);
    let line = text.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    line.trim().chars().take(SHOWN_LENGTH_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
