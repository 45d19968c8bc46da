//! OpenClaw's own command line, asked about its gateway's exits: `gateway restart-handoff`, version 1 of its contract for
//! external supervisors.
//!
//! Each question is a cold start of Node, 2 to 9 s and 305 MB, so what can be asked is found out once for a program and
//! its modification time, and remembered beside the store.

mod answer;
mod memory;

use self::answer::{Answer, read_capabilities, read_word};
use self::memory::Memory;
use super::openclaw::Openclaw;
use super::tree::descendants_of;
use crate::core::Event;
use crate::core::handoff::{ANSWER_MAX, HandoffVerdict, Support};
use crate::platform::process::{Handle, claim, reap, spawn_in_own_session, unclaim};
use crate::platform::strike;
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

/// An answer has some 200 bytes.
const ANSWER_LENGTH_MAX: usize = 64 * 1024;

/// Where the command names no `openclaw`, nobody can be asked.
const NOBODY: &str = "the gateway's command names no 'openclaw ... gateway'";

/// The command line that can be asked.
#[derive(Debug, Clone)]
pub struct Handoff {
    openclaw: Option<Arc<Openclaw>>,
    /// What was found out. It is held while that is asked for, so that two never ask at once.
    known: Arc<Mutex<Option<Known>>>,
    memory: Arc<Memory>,
}

/// What was found out, and of which files.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Known {
    /// The command line that was asked.
    line: String,
    files: u64,
    config: u64,
    /// Why it cannot be asked, if that is so.
    lack: Option<String>,
}

impl Known {
    /// A command line that could not be asked may have had its reason in the configuration.
    fn holds_for(&self, openclaw: &Openclaw) -> bool {
        self.line == openclaw.line()
            && self.files == openclaw.fingerprint()
            && (self.lack.is_none() || self.config == openclaw.config_fingerprint())
    }

    fn support(&self) -> Support {
        self.lack.clone().map_or(Support::Supported, Support::Unsupported)
    }
}

/// Why there is no answer.
#[derive(Debug, Error)]
enum Silence {
    #[error("cannot execute {program}: {error}")]
    NotStarted { program: String, error: io::Error },
    #[error("cannot read its answer: {0}")]
    Unreadable(#[from] io::Error),
    #[error("no answer within {}s", ANSWER_MAX.as_secs())]
    TimedOut,
}

impl Handoff {
    /// That of this OpenClaw, if the gateway's command names one. What is found out is remembered in that folder.
    #[must_use]
    pub fn of(openclaw: Option<Openclaw>, folder: &Path) -> Self {
        let memory = Arc::new(Memory::in_folder(folder));
        Self { openclaw: openclaw.map(Arc::new), known: Arc::default(), memory }
    }

    /// What is known without a question: by an earlier supervisor, or because there is nobody to be asked.
    #[must_use]
    pub fn recall(&self) -> Option<Support> {
        let Some(openclaw) = &self.openclaw else { return Some(Support::Unsupported(NOBODY.to_owned())) };
        // Somebody asks just now.
        let mut known = self.known.try_lock().ok()?;
        if known.is_none() {
            *known = self.memory.read();
        }
        known.as_ref().filter(|known| known.holds_for(openclaw)).map(Known::support)
    }

    /// Finds out whether it speaks our version, then sends `Negotiated`.
    pub fn negotiate(&self, events: &Sender<Event>) {
        let (this, events) = (self.clone(), events.clone());
        tokio::spawn(async move {
            let support = this.support().await;
            // A closed channel means that the loop has ended and nobody waits for the answer.
            let _closed = events.send(Event::Negotiated { support }).await;
        });
    }

    /// Asks it about the exit of the gateway that had this process id, then sends `Consumed`.
    pub fn consume(&self, ticket: u64, pid: i32, events: &Sender<Event>) {
        let (this, events) = (self.clone(), events.clone());
        tokio::spawn(async move {
            let word = this.word_on(pid).await;
            let _closed = events.send(Event::Consumed { ticket, word }).await;
        });
    }

    async fn support(&self) -> Support {
        let Some(openclaw) = &self.openclaw else { return Support::Unsupported(NOBODY.to_owned()) };
        let mut known = self.known.lock().await;
        if let Some(known) = known.as_ref().filter(|known| known.holds_for(openclaw)) {
            return known.support();
        }
        let (line, files, config) = (openclaw.line(), openclaw.fingerprint(), openclaw.config_fingerprint());
        let support = match ask(openclaw, &["capabilities"]).await {
            Ok(answer) => read_capabilities(&answer),
            Err(silence) => Support::TimedOut(silence.to_string()),
        };
        let lack = match &support {
            Support::Supported => None,
            Support::Unsupported(why) => Some(why.clone()),
            // That says nothing of the release, and the next one who wants to know asks again.
            Support::TimedOut(_) => return support,
        };
        let found = Known { line, files, config, lack };
        self.memory.keep(&found);
        *known = Some(found);
        support
    }

    async fn word_on(&self, pid: i32) -> HandoffVerdict {
        let Some(openclaw) = &self.openclaw else { return HandoffVerdict::Unsupported(NOBODY.to_owned()) };
        match self.support().await {
            Support::Unsupported(why) => HandoffVerdict::Unsupported(why),
            Support::TimedOut(why) => HandoffVerdict::TimedOut(why),
            Support::Supported => match ask(openclaw, &["consume", "--expected-pid", &pid.to_string()]).await {
                Ok(answer) => read_word(&answer),
                Err(silence) => HandoffVerdict::TimedOut(silence.to_string()),
            },
        }
    }
}

async fn ask(openclaw: &Openclaw, question: &[&str]) -> Result<Answer, Silence> {
    let (answer, theirs) = io::pipe()?;
    let running = {
        let mut command = openclaw.command(&[&["gateway", "restart-handoff"], question, &["--json"]].concat());
        command.stdin(Stdio::null()).stderr(Stdio::null()).stdout(theirs);
        let program = openclaw.program().display().to_string();
        // With the command our copy of the pipe's other end goes, or the answer would have no end.
        Running::claim(spawn_in_own_session(&mut command).map_err(|error| Silence::NotStarted { program, error })?)
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
            // What it has started may hold the pipe open, and has nothing to say.
            exit = watch.exit(&running.0) => {
                let exit = exit?;
                drain(&answer, &mut text)?;
                exit
            }
        };
        Ok(Answer { status: exit.status, text })
    };
    timeout(ANSWER_MAX, whole).await.unwrap_or(Err(Silence::TimedOut))
}

/// How long a killed one is waited for: at our own end nothing of it is to be left, and 300 MB take their time to go.
const KILL_TIME: Duration = Duration::from_millis(200);

/// A command line at work: it ends with whoever waits for it, and with it all that it has started.
struct Running(Handle);

impl Running {
    fn claim(handle: Handle) -> Self {
        claim(handle.pid());
        Self(handle)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended, as it should, or it has to now; its pid is its own until it is reaped. OpenClaw's command line runs
        // itself once more, in another session.
        let below = if matches!(self.0.has_ended(), Ok(true)) { Vec::new() } else { descendants_of(self.0.pid()) };
        let _gone = strike::kill_group_of_child(self.0.pid());
        let _gone = self.0.kill();
        for process in &below {
            let _gone = process.kill();
        }
        for process in below.iter().chain([&self.0]) {
            let _ended = process.ends_within(KILL_TIME);
        }
        reap(self.0.pid());
        // One that is ending still is reaped with the children that nobody waits for.
        unclaim(self.0.pid());
    }
}

/// Takes in what is written until all who can write are gone.
async fn read(pipe: &Receiver, text: &mut Vec<u8>) -> io::Result<()> {
    loop {
        pipe.readable().await?;
        if drain(pipe, text)? == Pipe::Closed {
            return Ok(());
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Pipe {
    Open,
    Closed,
}

/// Takes in what has been written.
fn drain(pipe: &Receiver, text: &mut Vec<u8>) -> io::Result<Pipe> {
    let mut chunk = [0; 4096];
    loop {
        match pipe.try_read(&mut chunk) {
            Ok(0) => return Ok(Pipe::Closed),
            Ok(more) => text.extend_from_slice(&chunk[..more]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Pipe::Open),
            Err(error) => return Err(error),
        }
        if text.len() > ANSWER_LENGTH_MAX {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("over {ANSWER_LENGTH_MAX} bytes")));
        }
    }
}
