//! `openclaw gateway restart-handoff`, version 1 of OpenClaw's contract for external supervisors: tells whether a gateway's
//! exit was a planned restart.
//!
//! Each call is a cold start of Node, 2 to 9 s and 305 MB, so its capabilities are cached beside the store for each state of
//! the program's files.

mod answer;
mod memory;

use self::answer::{Answer, read_capabilities, read_word};
use self::memory::{Capability, Memory};
use super::openclaw::Openclaw;
use super::tree::descendants_of;
use crate::core::Event;
use crate::core::handoff::{ANSWER_MAX, HandoffVerdict, Support};
use crate::platform::kill;
use crate::platform::process::{Handle, claim, reap, spawn_in_own_session, unclaim};
use std::io;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Mutex;
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

/// A real answer has about 200 bytes.
const ANSWER_LENGTH_MAX: usize = 64 * 1024;

const NO_CLI: &str = "the gateway's command names no 'openclaw ... gateway'";

#[derive(Debug, Clone)]
pub struct Handoff {
    openclaw: Option<Arc<Openclaw>>,
    /// Locked during the call, so that two never run at once.
    capability: Arc<Mutex<Option<Capability>>>,
    memory: Arc<Memory>,
}

#[derive(Debug, Error)]
enum CallError {
    #[error("cannot execute {program}: {error}")]
    NotStarted { program: String, error: io::Error },
    #[error("cannot read its answer: {0}")]
    Unreadable(#[from] io::Error),
    #[error("no answer within {}s", ANSWER_MAX.as_secs())]
    TimedOut,
}

impl Handoff {
    /// `None` if the gateway's command names no OpenClaw. The capabilities are cached in `folder`.
    #[must_use]
    pub fn of(openclaw: Option<Openclaw>, folder: &Path) -> Self {
        let memory = Arc::new(Memory::in_folder(folder));
        Self { openclaw: openclaw.map(Arc::new), capability: Arc::default(), memory }
    }

    /// What is known without a call, from an earlier supervisor. `None` if a call is needed or running. Blocks on the file
    /// system.
    #[must_use]
    pub fn recall(&self) -> Option<Support> {
        let Some(openclaw) = &self.openclaw else { return Some(Support::Unsupported(NO_CLI.to_owned())) };
        let mut capability = self.capability.try_lock().ok()?;
        if capability.is_none() {
            *capability = self.memory.read();
        }
        capability.as_ref().filter(|known| holds_for(known, openclaw)).map(Capability::support)
    }

    /// Asks whether the CLI supports our version of the contract, then sends `Negotiated`.
    pub fn negotiate(&self, events: &Sender<Event>) {
        let (this, events) = (self.clone(), events.clone());
        tokio::spawn(async move {
            let support = this.support().await;
            // A closed channel means that the loop has ended.
            let _closed = events.send(Event::Negotiated { support }).await;
        });
    }

    /// Consumes the handoff of the gateway that had this pid, then sends `Consumed`.
    pub fn consume(&self, ticket: u64, pid: i32, events: &Sender<Event>) {
        let (this, events) = (self.clone(), events.clone());
        tokio::spawn(async move {
            let word = this.word_on(pid).await;
            let _closed = events.send(Event::Consumed { ticket, word }).await;
        });
    }

    async fn support(&self) -> Support {
        let Some(openclaw) = &self.openclaw else { return Support::Unsupported(NO_CLI.to_owned()) };
        let mut capability = self.capability.lock().await;
        if let Some(known) = capability.as_ref().filter(|known| holds_for(known, openclaw)) {
            return known.support();
        }
        let (line, files, config) = (openclaw.line(), openclaw.fingerprint(), openclaw.config_fingerprint());
        let support = match call(openclaw, &["capabilities"]).await {
            Ok(answer) => read_capabilities(&answer),
            Err(error) => Support::TimedOut(error.to_string()),
        };
        let lack = match &support {
            Support::Supported => None,
            Support::Unsupported(why) => Some(why.clone()),
            // It says nothing about the release, so the next caller asks again.
            Support::TimedOut(_) => return support,
        };
        let found = Capability { line, files, config, lack };
        self.memory.keep(&found);
        *capability = Some(found);
        support
    }

    async fn word_on(&self, pid: i32) -> HandoffVerdict {
        let Some(openclaw) = &self.openclaw else { return HandoffVerdict::Unsupported(NO_CLI.to_owned()) };
        match self.support().await {
            Support::Unsupported(why) => HandoffVerdict::Unsupported(why),
            Support::TimedOut(why) => HandoffVerdict::TimedOut(why),
            Support::Supported => match call(openclaw, &["consume", "--expected-pid", &pid.to_string()]).await {
                Ok(answer) => read_word(&answer),
                Err(error) => HandoffVerdict::TimedOut(error.to_string()),
            },
        }
    }
}

async fn call(openclaw: &Openclaw, question: &[&str]) -> Result<Answer, CallError> {
    let (answer, theirs) = io::pipe()?;
    let running = {
        let mut command = openclaw.command(&[&["gateway", "restart-handoff"], question, &["--json"]].concat());
        command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(theirs);
        let program = openclaw.program().display().to_string();
        // Dropping the command closes our copy of the pipe's write end; the answer would not end otherwise.
        Cli::claim(spawn_in_own_session(&mut command).map_err(|error| CallError::NotStarted { program, error })?)
    };
    let answer = Receiver::from_owned_fd(answer.into())?;
    let watch = running.0.watch()?;
    let whole = async {
        let mut text = Vec::new();
        let exit = tokio::select! {
            read = read(&answer, &mut text) => {
                read?;
                watch.exit(&running.0).await?
            }
            // Its descendants may hold the pipe open, but write nothing.
            exit = watch.exit(&running.0) => {
                let exit = exit?;
                drain(&answer, &mut text)?;
                exit
            }
        };
        Ok(Answer { status: exit.status, text })
    };
    timeout(ANSWER_MAX, whole).await.unwrap_or(Err(CallError::TimedOut))
}

/// A failed call may have had its reason in the configuration.
fn holds_for(known: &Capability, openclaw: &Openclaw) -> bool {
    known.line == openclaw.line()
        && known.files == openclaw.fingerprint()
        && (known.lack.is_none() || known.config == openclaw.config_fingerprint())
}

/// How long to wait for a killed CLI: nothing of it may outlive us, and freeing 300 MB takes a while.
const KILL_TIME: Duration = Duration::from_millis(200);

/// A running CLI. Dropping it kills the process and its descendants.
struct Cli(Handle);

impl Cli {
    fn claim(handle: Handle) -> Self {
        claim(handle.pid());
        Self(handle)
    }
}

impl Drop for Cli {
    fn drop(&mut self) {
        // The pid is not reused before it is reaped. OpenClaw's CLI runs itself once more, in another session.
        let below = if matches!(self.0.has_ended(), Ok(true)) { Vec::new() } else { descendants_of(self.0.pid()) };
        let _gone = kill::kill_group_of_child(self.0.pid());
        let _gone = self.0.kill();
        for process in &below {
            let _gone = process.kill();
        }
        for process in below.iter().chain([&self.0]) {
            let _ended = process.ends_within(KILL_TIME);
        }
        reap(self.0.pid());
        // If it is still exiting, the SIGCHLD handler reaps it.
        unclaim(self.0.pid());
    }
}

/// Reads until every write end is closed.
async fn read(pipe: &Receiver, text: &mut Vec<u8>) -> io::Result<()> {
    loop {
        pipe.readable().await?;
        if drain(pipe, text)? == PipeState::Closed {
            return Ok(());
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum PipeState {
    Open,
    Closed,
}

/// Reads what has been written so far.
fn drain(pipe: &Receiver, text: &mut Vec<u8>) -> io::Result<PipeState> {
    let mut chunk = [0; 4096];
    loop {
        match pipe.try_read(&mut chunk) {
            Ok(0) => return Ok(PipeState::Closed),
            Ok(more) => text.extend_from_slice(&chunk[..more]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(PipeState::Open),
            Err(error) => return Err(error),
        }
        if text.len() > ANSWER_LENGTH_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("over {ANSWER_LENGTH_MAX} bytes")));
        }
    }
}
