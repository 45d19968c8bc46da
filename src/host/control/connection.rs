//! The client: one request and its answer.

use super::line::{Lines, write};
use super::metrics::MetricsReply;
use super::socket::{Address, NAME, may_ask, standbys};
use super::status::{StatusReply, SupervisorReply};
use nix::unistd::Uid;
use serde::Deserialize;
use serde_json::{Value, json};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::time::timeout;

/// How long a supervisor may take to answer: its loop never waits for anything, so it is frozen or dead.
pub const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);

/// The most supervisors in standby that are asked.
const STANDBYS_MAX: usize = 16;

/// Far more than a report with a list of commands has.
const LINE_LENGTH_MAX: usize = 1024 * 1024;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// No socket, or no listener.
    #[error("no supervisor listens on its control socket")]
    Absent,
    /// This user may not.
    #[error("the control socket belongs to another user; ask as that user or as root")]
    Forbidden,
    /// It is listened on, but without an answer.
    #[error("the supervisor{} does not answer; is it stopped or frozen?", named(*.pid))]
    Silent {
        /// Its process id, where the kernel tells it.
        pid: Option<i32>,
    },
    /// The supervisor said no.
    #[error("the supervisor refused: {0}")]
    Refused(String),
    /// The conversation broke.
    #[error("the control socket failed: {0}; see the supervisor's log")]
    Broken(io::Error),
}

fn named(pid: Option<i32>) -> String {
    pid.map(|pid| format!(" (pid {pid})")).unwrap_or_default()
}

impl From<io::Error> for ConnectionError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused | io::ErrorKind::NotADirectory => Self::Absent,
            io::ErrorKind::PermissionDenied => Self::Forbidden,
            // The backlog is full: no accept(2) for a long time.
            io::ErrorKind::WouldBlock => Self::Silent { pid: None },
            _ => Self::Broken(error),
        }
    }
}

fn malformed(error: serde_json::Error) -> ConnectionError {
    ConnectionError::Broken(io::Error::new(io::ErrorKind::InvalidData, error))
}

/// A conversation with a supervisor.
#[derive(Debug)]
pub struct Connection {
    stream: UnixStream,
    lines: Lines,
    pid: Option<i32>,
}

impl Connection {
    /// Asks the supervisor of this store directory one thing, and returns its first line with the connection.
    ///
    /// # Errors
    /// See [`ConnectionError`]; it is silent after [`ANSWER_TIME_MAX`].
    pub async fn ask(store_dir: &Path, word: &str) -> Result<(Self, Value), ConnectionError> {
        Self::ask_line(store_dir, &json!({ "ask": word })).await
    }

    /// The same with a whole request, as `docs/CONTROL.md` has it.
    ///
    /// # Errors
    /// As [`Connection::ask`].
    pub async fn ask_line(store_dir: &Path, request: &Value) -> Result<(Self, Value), ConnectionError> {
        Self::ask_at(store_dir, NAME, request).await
    }

    async fn ask_at(store_dir: &Path, socket: &str, request: &Value) -> Result<(Self, Value), ConnectionError> {
        let mut connection = Self::open(store_dir, socket).await?;
        let pid = connection.pid;
        let answer = timeout(ANSWER_TIME_MAX, connection.ask_for(request)).await;
        match answer.unwrap_or(Err(ConnectionError::Silent { pid }))? {
            Some(answer) => Ok((connection, answer)),
            None => Err(ConnectionError::Broken(io::ErrorKind::UnexpectedEof.into())),
        }
    }

    /// Asks for its status.
    ///
    /// # Errors
    /// As [`Connection::ask`].
    pub async fn status(store_dir: &Path) -> Result<(Self, StatusReply), ConnectionError> {
        Self::status_at(store_dir, NAME).await
    }

    /// Asks for its metrics.
    ///
    /// # Errors
    /// As [`Connection::ask`].
    pub async fn metrics(store_dir: &Path) -> Result<MetricsReply, ConnectionError> {
        let (_, reply) = Self::ask(store_dir, "metrics").await?;
        MetricsReply::deserialize(reply).map_err(malformed)
    }

    async fn status_at(store_dir: &Path, socket: &str) -> Result<(Self, StatusReply), ConnectionError> {
        let (connection, reply) = Self::ask_at(store_dir, socket, &json!({ "ask": "status" })).await?;
        Ok((connection, StatusReply::deserialize(reply).map_err(malformed)?))
    }

    /// Asks every supervisor in standby for its status, all at once. One that does not answer is `silent`; a socket that
    /// nothing listens on is left out. With each reply comes the pid that the kernel tells.
    pub async fn standbys(store_dir: &Path) -> Vec<(Option<i32>, StatusReply)> {
        let ask = |name: String| {
            let store_dir = store_dir.to_owned();
            tokio::spawn(async move {
                match Self::status_at(&store_dir, &name).await {
                    Ok((connection, reply)) => Some((connection.pid(), reply)),
                    Err(ConnectionError::Silent { pid }) => {
                        let supervisor = SupervisorReply { pid, state: "silent".to_owned(), ..Default::default() };
                        Some((pid, StatusReply { supervisor, ..StatusReply::default() }))
                    }
                    Err(_) => None,
                }
            })
        };
        let asked: Vec<_> = standbys(store_dir).into_iter().take(STANDBYS_MAX).map(ask).collect();
        let mut replies = Vec::new();
        for reply in asked {
            replies.extend(reply.await.ok().flatten());
        }
        replies
    }

    async fn open(store_dir: &Path, socket: &str) -> Result<Self, ConnectionError> {
        let stream = match Self::connect(&Address::of(store_dir, socket)?).await {
            Err(ConnectionError::Absent) if socket == NAME => Self::connect_without_file(store_dir).await,
            stream => stream,
        }?;
        // The process that called listen(2), even if it is stopped.
        let pid = stream.peer_cred().ok().and_then(|peer| peer.pid()).filter(|pid| *pid > 0);
        Ok(Self { stream, lines: Lines::new(LINE_LENGTH_MAX), pid })
    }

    async fn connect(address: &Address) -> Result<UnixStream, ConnectionError> {
        Ok(UnixStream::connect(address.path()).await?)
    }

    async fn connect_without_file(store_dir: &Path) -> Result<UnixStream, ConnectionError> {
        let address = Address::without_file(store_dir).map_err(|_| ConnectionError::Absent)?;
        let stream = Self::connect(&address).await?;
        let peer = stream.peer_cred()?.uid();
        // Root may ask the supervisor of the user that owns the directory.
        let owns_store = || Uid::effective().is_root() && fs::metadata(store_dir).is_ok_and(|dir| dir.uid() == peer);
        if may_ask(peer) || owns_store() { Ok(stream) } else { Err(ConnectionError::Absent) }
    }

    async fn ask_for(&mut self, request: &Value) -> Result<Option<Value>, ConnectionError> {
        let request = format!("{request}\n");
        // One that is turned away is closed already, and the answer is the refusal.
        let closed = write(&self.stream, request.as_bytes()).await.err();
        match (self.next().await, closed) {
            (Ok(None), Some(error)) => Err(error.into()),
            (answer, _) => answer,
        }
    }

    /// The next line; `None` at the end.
    ///
    /// # Errors
    /// The supervisor's own, or those of a conversation that broke.
    pub async fn next(&mut self) -> Result<Option<Value>, ConnectionError> {
        let line = match self.lines.next(&self.stream).await {
            Ok(line) => line,
            // It closed before it had read all of our request.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => None,
            Err(error) => return Err(ConnectionError::Broken(error)),
        };
        let Some(line) = line else { return Ok(None) };
        let value: Value = serde_json::from_slice(&line).map_err(malformed)?;
        match value.get("error").and_then(Value::as_str) {
            Some(why) => Err(ConnectionError::Refused(why.to_owned())),
            None => Ok(Some(value)),
        }
    }

    /// The supervisor's process id, where the kernel tells it.
    #[must_use]
    pub fn pid(&self) -> Option<i32> {
        self.pid
    }
}
