//! `openclaw gateway restart-handoff`, version 1 of OpenClaw's contract for external supervisors: tells whether a gateway's
//! exit was a planned restart.
//!
//! Each call is a cold start of Node, 2 to 9 s and 305 MB, so its capabilities are cached beside the store for each state of
//! the program's files.

mod answer;
mod memory;

#[cfg(any(test, feature = "fuzzing"))]
pub use answer::read_any;

use self::answer::{read_capabilities, read_word};
use self::memory::{Capability, Memory};
use super::openclaw::Openclaw;
use crate::core::Event;
use crate::core::handoff::{ANSWER_MAX, HandoffVerdict, Support};
use crate::platform::output::{Output, OutputError, output};
use crate::platform::thread::BlockingCall;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::sync::mpsc::Sender;

/// A real answer has about 200 bytes.
const ANSWER_LENGTH_MAX: usize = 64 * 1024;

/// How long the looks at the files of the program may take.
const FILES_TIME_MAX: Duration = Duration::from_secs(10);

const NO_CLI: &str = "the gateway's command names no 'openclaw ... gateway'";

#[derive(Debug, Clone)]
pub struct Handoff {
    openclaw: Option<Arc<Openclaw>>,
    /// Locked during the call, so that two never run at once.
    capability: Arc<Mutex<Option<Capability>>>,
    memory: Arc<Memory>,
}

impl Handoff {
    /// `None` if the gateway's command names no OpenClaw. The capabilities are cached in `folder`.
    #[must_use]
    pub fn of(openclaw: Option<Openclaw>, folder: &Path) -> Self {
        let memory = Arc::new(Memory::in_folder(folder));
        Self { openclaw: openclaw.map(Arc::new), capability: Arc::default(), memory }
    }

    /// Its program is another one now.
    pub fn set_openclaw(&mut self, openclaw: Option<Openclaw>) {
        self.openclaw = openclaw.map(Arc::new);
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
        let known = capability.as_ref()?;
        let (files, config) = (openclaw.fingerprint(), openclaw.config_fingerprint());
        known.holds_for(&openclaw.line(), files, config).then(|| known.support())
    }

    /// Asks whether the CLI supports our version of the contract, then sends `Negotiated`.
    pub fn negotiate(&self, events: &Sender<impl From<Event> + Send + 'static>) {
        let (this, events) = (self.clone(), events.clone());
        tokio::spawn(async move {
            let support = this.support().await;
            // A closed channel means that the loop has ended.
            let _closed = events.send(Event::Negotiated { support }.into()).await;
        });
    }

    /// Consumes the handoff of the gateway that had this pid, then sends `Consumed`.
    pub fn consume(&self, ticket: u64, pid: i32, events: &Sender<impl From<Event> + Send + 'static>) {
        let (this, events) = (self.clone(), events.clone());
        tokio::spawn(async move {
            let word = this.word_on(pid).await;
            let _closed = events.send(Event::Consumed { ticket, word }.into()).await;
        });
    }

    async fn support(&self) -> Support {
        let Some(openclaw) = &self.openclaw else { return Support::Unsupported(NO_CLI.to_owned()) };
        let mut capability = self.capability.lock().await;
        let (program, command) = (Arc::clone(openclaw), openclaw.line());
        let prints = move || (program.fingerprint(), program.config_fingerprint());
        let (files, config) = match BlockingCall::default().run(FILES_TIME_MAX, prints).await {
            Ok(prints) => prints,
            Err(error) => return Support::TimedOut(format!("the files of the program cannot be looked at: {error}")),
        };
        if let Some(known) = capability.as_ref().filter(|known| known.holds_for(&command, files, config)) {
            return known.support();
        }
        let support = match call(openclaw, &["capabilities"]).await {
            Ok(answer) => read_capabilities(&answer),
            Err(error) => Support::TimedOut(error.to_string()),
        };
        let why = match &support {
            Support::Supported => None,
            Support::Unsupported(why) => Some(why.clone()),
            // It says nothing about the release, so the next caller asks again.
            Support::TimedOut(_) => return support,
        };
        let found = Capability { command, config, files, restart_handoff: why.is_none(), why };
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

async fn call(openclaw: &Openclaw, question: &[&str]) -> Result<Output, OutputError> {
    let command = openclaw.command(&[&["gateway", "restart-handoff"], question, &["--json"]].concat());
    output(command, ANSWER_LENGTH_MAX, ANSWER_MAX).await
}
