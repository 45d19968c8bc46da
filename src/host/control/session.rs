//! One client: its request and the answer.

use super::answer::{self, Ask};
use super::broadcast::{Broadcast, Reports};
use super::line::{Lines, hung_up, write};
use super::metrics::MetricsReply;
use super::slots::Slot;
use super::status::{Facts, StatusReply};
use crate::core::event::PauseRequest;
use crate::core::{Request, Requester, Status, Tally};
use crate::host::webhook::Delivered;
use crate::platform::proc;
use serde_json::json;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::net::unix::UCred;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{mpsc, oneshot};
use tokio::time::error::Elapsed;
use tokio::time::timeout;

/// How long a client may take for its request, and for each line that it is to read.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long a test message may take on all channels together, one after the other.
const CHANNELS_TIME_MAX: Duration = Duration::from_mins(2);

/// More than any request needs.
const REQUEST_LENGTH_MAX: usize = 4096;

/// The last line for a client that gives way.
const CROWDED: &str = "there are too many clients, and you gave way to a newer one; ask again later";

/// The answer of a supervisor after the end of its loop.
pub const ENDING: &str = "the supervisor is ending";

/// What a client wants from the loop.
#[derive(Debug)]
pub enum Query {
    /// What are you doing? The answer goes into the channel.
    Status(oneshot::Sender<Status>),
    /// The same, with what was counted and when the gateway was started, in milliseconds since 1970.
    Metrics(oneshot::Sender<(Status, Tally, Option<i64>)>),
    /// Pause the supervision, or (`None`) go on.
    Pause {
        /// For how long, and why.
        pause: Option<PauseRequest>,
        /// Who asked.
        by: Requester,
    },
    /// Send a test notification on each channel.
    TestChannels(oneshot::Sender<Vec<Delivered>>),
    /// Do this.
    Request {
        /// What.
        request: Request,
        /// Who asked.
        by: Requester,
    },
}

/// Whether the process with this pid is part of what a request ends. Runs on a worker.
pub type IsInside = Arc<dyn Fn(i32) -> bool + Send + Sync>;

/// What all clients share.
pub(super) struct Shared<M> {
    pub(super) messages: mpsc::Sender<M>,
    pub(super) facts: Facts,
    pub(super) is_inside: IsInside,
    pub(super) broadcast: Broadcast,
}

/// Serves one client until it has what it asked for, hangs up, or is too slow.
pub(super) async fn serve(
    stream: &UnixStream,
    peer: UCred,
    shared: &Shared<impl From<Query>>,
    slot: Slot,
) -> io::Result<()> {
    let mut lines = Lines::new(REQUEST_LENGTH_MAX);
    let request = tokio::select! {
        request = timeout(PATIENCE, lines.next(stream)) => request,
        () = slot.lost() => return say(stream, &answer::error(CROWDED)).await,
    };
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
        Ok(Ask::Status) => tell_status(stream, shared).await,
        Ok(Ask::TestChannels) => test_channels(stream, shared).await,
        Ok(Ask::Metrics) => tell_metrics(stream, shared).await,
        Ok(Ask::Watch) => {
            let reports = shared.broadcast.subscribe();
            let listening = shared.broadcast.watchers.enter(false, Duration::ZERO).await;
            drop(slot);
            watch(stream, &answer::accepted(false, None), reports, &listening).await
        }
        Ok(Ask::Do(request)) => {
            let paced = if matches!(request, Request::Restart | Request::RestartForced) {
                pace_of_restarts(shared, request).await
            } else {
                None
            };
            let query = |by| Query::Request { request, by };
            forward(stream, shared, (request.name(), paced), query, peer, slot).await
        }
        Ok(Ask::Pause(pause)) => {
            let name = if pause.is_some() { "pause" } else { "resume" };
            forward(stream, shared, (name, None), |by| Query::Pause { pause, by }, peer, slot).await
        }
    }
}

async fn tell_status(stream: &UnixStream, shared: &Shared<impl From<Query>>) -> io::Result<()> {
    let reply = timeout(PATIENCE, ask_status(shared)).await;
    let line = reply.map(|status| Some(answer::line(&StatusReply::new(status?, &shared.facts))));
    say_or_fail(stream, line).await
}

async fn tell_metrics(stream: &UnixStream, shared: &Shared<impl From<Query>>) -> io::Result<()> {
    let ask = async {
        let (sender, answer) = oneshot::channel();
        shared.messages.send(Query::Metrics(sender).into()).await.ok()?;
        answer.await.ok()
    };
    let line = timeout(PATIENCE, ask).await.map(|answer| {
        let (status, tally, start) = answer?;
        Some(answer::line(&MetricsReply::new(&status, &tally, start, &shared.facts)))
    });
    say_or_fail(stream, line).await
}

/// It is accepted at once; what came of it is one object in the second line.
async fn test_channels(stream: &UnixStream, shared: &Shared<impl From<Query>>) -> io::Result<()> {
    say(stream, &answer::accepted(false, None)).await?;
    let ask = async {
        let (sender, answer) = oneshot::channel();
        shared.messages.send(Query::TestChannels(sender).into()).await.ok()?;
        answer.await.ok()
    };
    let line = match timeout(CHANNELS_TIME_MAX, ask).await {
        Ok(delivered) => answer::line(&json!({ "channels": delivered.unwrap_or_default() })),
        Err(_) => answer::error(&format!("the channels did not answer within {}s", CHANNELS_TIME_MAX.as_secs())),
    };
    say(stream, &line).await
}

/// `None`: the loop has ended.
async fn say_or_fail(stream: &UnixStream, line: Result<Option<String>, Elapsed>) -> io::Result<()> {
    let line = match line {
        Ok(Some(line)) => line,
        Ok(None) => answer::error(ENDING),
        Err(_) => answer::error(&format!("the supervisor did not answer within {}s", PATIENCE.as_secs())),
    };
    say(stream, &line).await
}

/// Forwards the request and sends every report on it. A client that is part of what ends gets none, because the end may
/// wait for that client. The answer comes first: the request may end the client.
async fn forward(
    stream: &UnixStream,
    shared: &Shared<impl From<Query>>,
    (name, paced): (&str, Option<(Duration, String)>),
    query: impl FnOnce(Requester) -> Query,
    peer: UCred,
    asking: Slot,
) -> io::Result<()> {
    // A client in a pid namespace that we cannot see into has pid 0.
    let pid = peer.pid().filter(|pid| *pid > 0);
    let (command, inside) = identify(pid, &shared.is_inside).await;
    let how = format!("control socket: {name}");
    let by = Requester { how, pid, uid: Some(peer.uid()), command, inside };
    let is_inside = inside == Some(true);
    let accepted = answer::accepted(is_inside, paced);
    let place = match timeout(PATIENCE, shared.messages.reserve()).await {
        Ok(Ok(place)) => place,
        Ok(Err(_)) => return say(stream, &answer::error(ENDING)).await,
        Err(_) => return say(stream, &answer::error("the supervisor is too busy; ask again")).await,
    };
    if is_inside {
        say(stream, &accepted).await?;
        place.send(query(by).into());
        return Ok(());
    }
    // Before the request, so that no report on it is missed.
    let reports = shared.broadcast.subscribe();
    place.send(query(by).into());
    let listening = shared.broadcast.watchers.enter(true, Duration::ZERO).await;
    drop(asking);
    watch(stream, &accepted, reports, &listening).await
}

/// The command of a process, and whether it belongs to what is supervised; `None` where that cannot be told any more.
pub async fn identify(pid: Option<i32>, is_inside: &IsInside) -> (Option<String>, Option<bool>) {
    let Some(pid) = pid else { return (None, None) };
    let is_inside = Arc::clone(is_inside);
    let look = move || (proc::command_of(pid), proc::stat(pid).is_ok().then(|| is_inside(pid)));
    proc::run(look).await.unwrap_or_default()
}

/// In how long a restart that is requested now is served at the latest, and why not at once.
async fn pace_of_restarts(shared: &Shared<impl From<Query>>, request: Request) -> Option<(Duration, String)> {
    let status = timeout(PATIENCE, ask_status(shared)).await.ok()??;
    // A forced one waits for the end of a pause alone.
    status.restart_paced.filter(|_| request == Request::Restart || status.paused.is_some())
}

/// `None` at the end of the loop.
async fn ask_status(shared: &Shared<impl From<Query>>) -> Option<Status> {
    let (sender, answer) = oneshot::channel();
    shared.messages.send(Query::Status(sender).into()).await.ok()?;
    answer.await.ok()
}

/// Sends every report from now on, until a newer client takes the slot.
async fn watch(stream: &UnixStream, accepted: &str, reports: Reports, listening: &Slot) -> io::Result<()> {
    tokio::select! {
        told = tell_reports(stream, accepted, reports) => told,
        () = listening.lost() => {
            // One that does not read is not waited for.
            let _full = stream.try_write(answer::error(CROWDED).as_bytes());
            Ok(())
        }
    }
}

async fn tell_reports(stream: &UnixStream, accepted: &str, mut reports: Reports) -> io::Result<()> {
    say(stream, accepted).await?;
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
