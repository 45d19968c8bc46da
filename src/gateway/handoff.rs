//! OpenClaw's own command line, asked about its gateway's exits: `gateway restart-handoff`, version 1 of its contract for
//! external supervisors.
//!
//! Each question is a cold start of Node, 2 to 9 s and 305 MB, so what can be asked is found out once for a program and
//! its modification time.

use super::openclaw::Openclaw;
use super::tree::descendants_of;
use crate::core::Event;
use crate::core::handoff::{ANSWER_MAX, Support, Word};
use crate::platform::process::{Handle, claim, reap, spawn_in_own_session, unclaim};
use crate::platform::strike;
use serde_json::Value;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;
use thiserror::Error;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Mutex;
use tokio::sync::mpsc::Sender;
use tokio::time::timeout;

/// The version that we speak.
const PROTOCOL: &str = "openclaw.gateway.restart-handoff";
const VERSION: u64 = 1;

/// An answer has some 200 bytes.
const ANSWER_LENGTH_MAX: usize = 64 * 1024;

/// Where the command names no `openclaw`, nobody can be asked.
const NOBODY: &str = "the gateway's command names no 'openclaw ... gateway'";

/// The command line that can be asked.
#[derive(Debug, Clone)]
pub struct Handoff {
    openclaw: Option<Arc<Openclaw>>,
    /// What was found out, and of which files. It is held while that is asked for, so that two never ask at once.
    known: Arc<Mutex<Option<(u64, Support)>>>,
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

/// What it printed, and how it ended.
struct Answer {
    status: ExitStatus,
    text: Vec<u8>,
}

impl Handoff {
    /// That of this OpenClaw, if the gateway's command names one.
    #[must_use]
    pub fn of(openclaw: Option<Openclaw>) -> Self {
        Self { openclaw: openclaw.map(Arc::new), known: Arc::default() }
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
        let files = openclaw.fingerprint();
        if let Some((_, support)) = known.as_ref().filter(|(known, _)| *known == files) {
            return support.clone();
        }
        let support = match ask(openclaw, &["capabilities"]).await {
            Ok(answer) => read_capabilities(&answer),
            Err(Silence::TimedOut) => return Support::TimedOut,
            Err(silence) => Support::Unsupported(silence.to_string()),
        };
        *known = Some((files, support.clone()));
        support
    }

    async fn word_on(&self, pid: i32) -> Word {
        let Some(openclaw) = &self.openclaw else { return Word::Unsupported(NOBODY.to_owned()) };
        match self.support().await {
            Support::Unsupported(why) => Word::Unsupported(why),
            Support::TimedOut => Word::TimedOut(Silence::TimedOut.to_string()),
            Support::Supported => match ask(openclaw, &["consume", "--expected-pid", &pid.to_string()]).await {
                Ok(answer) => read_word(&answer),
                Err(silence) => Word::TimedOut(silence.to_string()),
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

/// The object of an answer of our protocol and version. Words of others may stand before it.
fn read_object(text: &[u8]) -> Option<Value> {
    let begin = text.iter().position(|&byte| byte == b'{')?;
    let value: Value = serde_json::from_slice(text.get(begin..)?).ok()?;
    let is_ours =
        value.get("protocol")?.as_str() == Some(PROTOCOL) && value.get("protocolVersion")?.as_u64() == Some(VERSION);
    is_ours.then_some(value)
}

/// Older releases exit with 1 and print nothing here.
fn read_capabilities(answer: &Answer) -> Support {
    let object = read_object(&answer.text).filter(|object| object["ok"] == true && answer.status.success());
    let has =
        |object: &Value| object["operations"].as_array().is_some_and(|all| all.iter().any(|one| one == "consume"));
    match object {
        Some(object) if has(&object) => Support::Supported,
        Some(_) => Support::Unsupported("its command line offers no 'consume'".to_owned()),
        None => Support::Unsupported(format!(
            "'restart-handoff capabilities' ended with {} and without an answer of version {VERSION}",
            ending(answer.status)
        )),
    }
}

fn read_word(answer: &Answer) -> Word {
    let Some(object) = read_object(&answer.text) else {
        return Word::TimedOut(format!("'restart-handoff consume' ended with {} and no answer", ending(answer.status)));
    };
    let text = |value: &Value, name: &str| value[name].as_str().unwrap_or("unnamed").to_owned();
    match object["status"].as_str() {
        Some("accepted") => Word::Accepted(text(&object["handoff"], "reason")),
        Some("none") => Word::Missing,
        Some("rejected") => Word::Rejected(text(&object, "reason")),
        _ => Word::TimedOut(format!("'restart-handoff consume' failed: {}", text(&object, "reason"))),
    }
}

fn ending(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, signal) => format!("signal {}", signal.unwrap_or(0)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: i32, text: &str) -> Answer {
        Answer { status: ExitStatus::from_raw(code << 8), text: text.as_bytes().to_vec() }
    }

    fn object(rest: &str) -> String {
        format!(r#"{{"protocol":"{PROTOCOL}","protocolVersion":1,{rest}}}"#)
    }

    #[test]
    fn only_an_answer_of_our_version_that_offers_consume_is_support() {
        let good = object(r#""ok":true,"operations":["consume"]"#);
        assert_eq!(read_capabilities(&answer(0, &good)), Support::Supported);
        assert_eq!(read_capabilities(&answer(0, &format!("a warning\n{good}\n"))), Support::Supported);
        for (code, text) in [
            (1, good.clone()),
            (1, String::new()),
            (0, object(r#""ok":false,"operations":["consume"]"#)),
            (0, object(r#""ok":true,"operations":[]"#)),
            (0, good.replace(r#"Version":1"#, r#"Version":2"#)),
            (0, "<html>".to_owned()),
        ] {
            assert!(matches!(read_capabilities(&answer(code, &text)), Support::Unsupported(_)), "{code} {text}");
        }
    }

    #[test]
    fn each_word_of_the_contract_is_understood() {
        for (code, rest, expected) in [
            (0, r#""ok":true,"status":"accepted","handoff":{"reason":"SIGUSR2"}"#, Word::Accepted("SIGUSR2".into())),
            (0, r#""ok":true,"status":"accepted","handoff":{}"#, Word::Accepted("unnamed".into())),
            (0, r#""ok":true,"status":"none","reason":"missing""#, Word::Missing),
            (0, r#""ok":true,"status":"rejected","reason":"expired""#, Word::Rejected("expired".into())),
        ] {
            assert_eq!(read_word(&answer(code, &object(rest))), expected);
        }
        let failed = read_word(&answer(1, &object(r#""ok":false,"status":"error","reason":"store-unavailable""#)));
        assert!(matches!(&failed, Word::TimedOut(why) if why.contains("store-unavailable")), "{failed:?}");
        assert!(matches!(read_word(&answer(0, "")), Word::TimedOut(_)));
    }
}
