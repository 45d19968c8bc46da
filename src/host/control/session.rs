//! One client: its request, and what it is told.

use super::answer::{self, Ask};
use super::line::{Lines, hung_up, write};
use super::{Broadcast, Facts, Query, StatusReply};
use crate::core::Requester;
use crate::platform::proc;
use std::io;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// How long a client may take for its request, and for each line that it is to read.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);

/// More than any request needs.
pub(super) const REQUEST_LENGTH_MAX: usize = 4096;

/// What all clients share.
pub(super) struct Office<M> {
    pub(super) messages: mpsc::Sender<M>,
    pub(super) facts: Facts,
    pub(super) broadcast: Broadcast,
}

/// Serves one client until it has what it asked for, hangs up, or is too slow.
pub(super) async fn serve(stream: &UnixStream, peer: UCred, office: &Office<impl From<Query>>) -> io::Result<()> {
    let request = timeout(PATIENCE, Lines::new(REQUEST_LENGTH_MAX).next(stream)).await;
    let ask = match request {
        Err(_) => Err(format!("no line came within {}s", PATIENCE.as_secs())),
        Ok(Err(error)) if error.kind() == io::ErrorKind::InvalidData => {
            Err(format!("a request is one line of at most {REQUEST_LENGTH_MAX} bytes"))
        }
        Ok(Err(error)) => return Err(error),
        Ok(Ok(None)) => return Ok(()),
        Ok(Ok(Some(line))) => Ask::parse(&line),
    };
    match ask {
        Err(why) => say(stream, &answer::error(&why)).await,
        Ok(Ask::Status) => tell_status(stream, office).await,
        Ok(Ask::Watch) => stay(stream, office, None).await,
        Ok(ask @ Ask::Do(request)) => {
            let how = format!("control socket: {}", ask.name());
            stay(stream, office, Some(Query::Request { request, by: requester(how, peer) })).await
        }
    }
}

fn requester(how: String, peer: UCred) -> Requester {
    // A client in a pid namespace that we cannot see into has pid 0.
    let pid = peer.pid().filter(|pid| *pid > 0);
    Requester { how, pid, uid: Some(peer.uid()), command: pid.and_then(proc::command_of) }
}

async fn tell_status(stream: &UnixStream, office: &Office<impl From<Query>>) -> io::Result<()> {
    let (sender, answer) = oneshot::channel();
    let status = async {
        office.messages.send(Query::Status(sender).into()).await.ok()?;
        answer.await.ok()
    };
    let line = match timeout(PATIENCE, status).await {
        Ok(Some(status)) => answer::line(&StatusReply::new(status, &office.facts)),
        Ok(None) => answer::error("the supervisor is ending"),
        Err(_) => answer::error(&format!("the supervisor did not answer within {}s", PATIENCE.as_secs())),
    };
    say(stream, &line).await
}

/// Hands the request on, if there is one, and repeats every report from then on.
async fn stay(stream: &UnixStream, office: &Office<impl From<Query>>, query: Option<Query>) -> io::Result<()> {
    // Before the request: what comes of it must not be missed.
    let mut reports = office.broadcast.subscribe();
    if let Some(query) = query {
        match timeout(PATIENCE, office.messages.send(query.into())).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return say(stream, &answer::error("the supervisor is ending")).await,
            Err(_) => return say(stream, &answer::error("the supervisor is too busy; ask again")).await,
        }
    }
    say(stream, &answer::accepted()).await?;
    loop {
        let report = tokio::select! {
            report = reports.recv() => report,
            () = hung_up(stream) => return Ok(()),
        };
        match report {
            Ok(Some(report)) => say(stream, &format!("{report}\n")).await?,
            Ok(None) | Err(RecvError::Closed) => return Ok(()),
            Err(RecvError::Lagged(lost)) => {
                return say(stream, &answer::error(&format!("you read too slowly; {lost} reports are lost"))).await;
            }
        }
    }
}

/// Writes a line, if the client takes it in time.
async fn say(stream: &UnixStream, line: &str) -> io::Result<()> {
    timeout(PATIENCE, write(stream, line.as_bytes())).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}
