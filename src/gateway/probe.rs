//! One look at the gateway's port.
//!
//! A look tries a plain TCP connect first, so that a free port costs no HTTP client, then asks `/healthz` and
//! `/startupz` over one connection, and of a gateway of ours that serves `/readyz` as well. It keeps nothing open between
//! two looks: the client lives as long as the look.
//! While the gateway answers, the connect is left out: a TLS listener would report each as a failed handshake.

mod connect;
mod http;
mod owner;
mod tls;
mod verdict;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use reqwest::Client;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};

use self::connect::Knock;
use self::http::{Door, Failure};
use self::verdict::Glimpse;
use crate::core::{Observation, Owner, Phase, Readiness, Verdict};
use crate::gateway::endpoint::Endpoint;
use crate::gateway::state_lock::{self, StateOwner};

/// How long the answer of one address is waited for alone before the next one is asked as well. A gateway that listens
/// on both loopbacks is then asked once, and a mute stranger on one of them does not hide it on the other.
const HEAD_START: Duration = Duration::from_millis(200);

/// No look takes longer, whatever is asked for: a deadline beyond the end of the clock would be none.
const TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// The part of a look's time that `/readyz` may take beside it: one in so many. What it says is shown and decides nothing,
/// so a gateway that has just been found to serve is not to be told of much later for it.
const READINESS_PART: u32 = 5;

/// What a look is to find out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Whether a gateway answers.
    Answers,
    /// The same, and which process holds the port.
    AnswersAndOwner {
        /// Our own child, if there is one: once it serves it is also asked whether it is ready. Without one it is a look
        /// before a spawn: a gateway that one of our own kind has started counts as ours, and on a free port one is
        /// looked for that only boots.
        leader: Option<i32>,
    },
}

impl Look {
    fn is_about_ours(self) -> bool {
        matches!(self, Self::AnswersAndOwner { leader: Some(_) })
    }
}

/// Looks at one endpoint.
#[derive(Debug)]
pub struct Prober {
    endpoint: Endpoint,
    timeout: Duration,
    /// Where a gateway that boots leaves its lock.
    state_dir: Option<PathBuf>,
    /// What the instance ids of our gateways begin with.
    key: Option<String>,
    /// The last look met a gateway.
    answering: AtomicBool,
    /// One slot an address, for the one kind of client that is dear to build: it reads the system's roots.
    verifying: Vec<OnceLock<Client>>,
}

impl Prober {
    /// A prober whose looks take `timeout` at the most, connect and requests together. Opens and builds nothing yet.
    #[must_use]
    pub fn new(endpoint: Endpoint, timeout: Duration) -> Self {
        let verifying = endpoint.addresses.iter().map(|_| OnceLock::new()).collect();
        let (timeout, answering) = (timeout.min(TIMEOUT_MAX), AtomicBool::new(false));
        Self { endpoint, timeout, state_dir: None, key: None, answering, verifying }
    }

    /// Has a look before a spawn see the gateway that holds this state directory and does not listen yet.
    #[must_use]
    pub fn with_state_dir(self, state_dir: PathBuf) -> Self {
        Self { state_dir: Some(state_dir), ..self }
    }

    /// Has a look before a spawn tell the gateways of this key, see [`super::process::key_of`], from strangers.
    #[must_use]
    pub fn with_key(self, key: String) -> Self {
        Self { key: Some(key), ..self }
    }

    /// Where it looks.
    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The gateway that answered is gone: the next look is more likely to find a free port than another one.
    pub fn forget(&self) {
        self.answering.store(false, Ordering::Relaxed);
    }

    /// Looks once.
    pub async fn look(&self, ask: Look) -> Observation {
        let deadline = Instant::now() + self.timeout;
        let (seen, door) = self.observe(ask, deadline).await;
        let (address, verdict, detail) = verdict::strongest(seen);
        self.answering.store(verdict::is_gateway(verdict), Ordering::Relaxed);
        let (verdict, owner, detail) = match (ask, verdict, address) {
            (Look::AnswersAndOwner { leader: None }, Verdict::Free, free) => self.behind_a_free_port(free, detail),
            (Look::Answers, ..) | (_, Verdict::Free | Verdict::Inconclusive, _) | (.., None) => {
                (verdict, Owner::Unseen, detail)
            }
            (Look::AnswersAndOwner { leader }, _, Some(address)) => {
                (verdict, owner::find(address, leader, self.key.as_deref()), detail)
            }
        };
        let serves = matches!(verdict, Verdict::Gateway(Phase::Started | Phase::Unknown));
        let readiness = match door {
            Some(door) if serves && ask.is_about_ours() && !matches!(owner, Owner::Other(_)) => {
                self.readiness_beside(&door, deadline).await
            }
            _ => None,
        };
        Observation { verdict, owner, detail, readiness }
    }

    /// What `/readyz` says, if it says it soon.
    async fn readiness_beside(&self, door: &Door, deadline: Instant) -> Option<Readiness> {
        let soon = Instant::now() + self.timeout / READINESS_PART;
        let answer = door.get("/readyz", http::Connection::Close, soon.min(deadline)).await;
        answer.ok().and_then(|answer| verdict::readiness(&answer))
    }

    /// The verdict on a port that nobody listens on: free, taken all the same, or that of a gateway on its way to it.
    fn behind_a_free_port(&self, free: Option<SocketAddr>, detail: String) -> (Verdict, Owner, String) {
        if let Some(address) = free.filter(|address| connect::is_taken(*address)) {
            let detail = format!("{detail}, and {address} is taken by a socket that does not listen");
            return (Verdict::Silent, owner::find(address, None, self.key.as_deref()), detail);
        }
        let boots = self.state_dir.as_deref().and_then(state_lock::owner);
        // It may end between two looks.
        match boots.and_then(|boots| Some((boots, owner::name(boots.pid, self.key.as_deref())?))) {
            None => (Verdict::Free, Owner::Unseen, detail),
            Some((StateOwner { pid, port }, owner)) => {
                let place = port.map_or(String::new(), |port| format!(" for port {port}"));
                let detail = format!("{detail}, and pid {pid} holds gateway.state.lock of the state directory{place}");
                (Verdict::Booting, owner, detail)
            }
        }
    }

    /// Asks `/readyz` alone, with the whole time of a look. `Err` says how it came that nothing was said of readiness.
    pub async fn ready(&self) -> Result<Readiness, String> {
        let deadline = Instant::now() + self.timeout;
        let mut last = String::new();
        for (index, address) in self.endpoint.addresses.iter().enumerate() {
            let door = match connect::knock(*address, deadline).await {
                Knock::Accepts => self.door(index),
                refused => {
                    last = refused.detail(self.timeout);
                    continue;
                }
            };
            let answer = match door {
                Ok(door) => door.get("/readyz", http::Connection::Close, deadline).await,
                Err(failure) => Err(failure),
            };
            match answer {
                Ok(answer) => {
                    let other = || format!("GET /readyz answered {}", answer.describe());
                    return verdict::readiness(&answer).ok_or_else(other);
                }
                Err(failure) => last = failure.detail("/readyz", self.timeout),
            }
        }
        Err(last)
    }

    /// What the addresses show, no more of them than it takes to know, and the way to the gateway among them.
    async fn observe(&self, ask: Look, deadline: Instant) -> (Vec<(SocketAddr, Glimpse)>, Option<Door>) {
        let (open, mut seen) = if self.answering.load(Ordering::Relaxed) {
            ((0..self.endpoint.addresses.len()).collect(), Vec::new())
        } else {
            self.knock_everywhere(deadline).await
        };
        let mut doors = Vec::new();
        for index in open {
            match self.door(index) {
                Ok(door) => doors.push(door),
                Err(failure) => {
                    seen.push((self.endpoint.addresses[index], failure.glimpse("/healthz", self.timeout)));
                }
            }
        }
        let after = if ask.is_about_ours() { http::Connection::Keep } else { http::Connection::Close };
        let door = ask_in_turn(doors, &mut seen, after, deadline, self.timeout).await;
        (seen, door)
    }

    /// The indices of the addresses that accept, in their order, and what the others show.
    async fn knock_everywhere(&self, deadline: Instant) -> (Vec<usize>, Vec<(SocketAddr, Glimpse)>) {
        let mut knocks = JoinSet::new();
        for (index, &address) in self.endpoint.addresses.iter().enumerate() {
            knocks.spawn(async move { (index, address, connect::knock(address, deadline).await) });
        }
        let (mut open, mut seen) = (Vec::new(), Vec::new());
        while let Some(done) = knocks.join_next().await {
            match done {
                Ok((index, _, Knock::Accepts)) => open.push(index),
                Ok((_, address, knock)) => seen.push((address, knock.glimpse(self.timeout))),
                Err(error) => seen.push((self.endpoint.addresses[0], broken(&error))),
            }
        }
        open.sort_unstable();
        (open, seen)
    }

    /// The way to ask one address.
    fn door(&self, index: usize) -> Result<Door, Failure> {
        let address = self.endpoint.addresses[index];
        if !self.endpoint.tls {
            return Ok(Door::new(address, "http", None, tls::lenient_client()?));
        }
        if tls::is_local(address.ip()) {
            return Ok(Door::new(address, "https", None, tls::lenient_client()?));
        }
        let name = tls::name_of(&self.endpoint.host);
        let slot = &self.verifying[index];
        let client = if let Some(client) = slot.get() {
            client.clone()
        } else {
            let client = tls::verifying_client(name, address)?;
            slot.get_or_init(|| client).clone()
        };
        Ok(Door::new(address, "https", name, client))
    }
}

/// Asks one address after the other, each after the head start of the one before it, until one is a gateway: the way to
/// that one is returned.
async fn ask_in_turn(
    doors: Vec<Door>,
    seen: &mut Vec<(SocketAddr, Glimpse)>,
    after: http::Connection,
    deadline: Instant,
    budget: Duration,
) -> Option<Door> {
    let mut doors = doors.into_iter();
    let mut asks = JoinSet::new();
    let mut next = doors.next();
    let mut first = None;
    loop {
        if let Some(door) = next.take() {
            first.get_or_insert(door.address());
            asks.spawn(async move {
                let glimpse = ask(&door, after, deadline, budget).await;
                (door, glimpse)
            });
            next = doors.next();
        }
        let done = if next.is_some() {
            match timeout(HEAD_START, asks.join_next()).await {
                Ok(done) => done,
                Err(_) => continue,
            }
        } else {
            asks.join_next().await
        };
        match (done, first) {
            (Some(Ok((door, glimpse))), _) => {
                let found = glimpse.is_gateway();
                seen.push((door.address(), glimpse));
                if found {
                    return Some(door);
                }
            }
            (Some(Err(error)), Some(address)) => seen.push((address, broken(&error))),
            (Some(Err(_)), None) | (None, _) => return None,
        }
    }
}

/// Puts both questions to one address; what becomes of the connection then is up to `after`.
async fn ask(door: &Door, after: http::Connection, deadline: Instant, budget: Duration) -> Glimpse {
    let (path, failure) = match door.get("/healthz", http::Connection::Keep, deadline).await {
        Ok(health) if !verdict::is_live(&health) => return verdict::foreign(&health),
        Ok(_) => match door.get("/startupz", after, deadline).await {
            Ok(startup) => return verdict::phase(&startup),
            // It was a gateway a moment ago, so a broken answer is that of a gateway in trouble.
            Err(Failure::Garbled(why)) => ("/startupz", Failure::Broken(why)),
            Err(failure) => ("/startupz", failure),
        },
        Err(failure) => ("/healthz", failure),
    };
    if !matches!(failure, Failure::Refused) {
        return failure.glimpse(path, budget);
    }
    // Refused where somebody accepted before: gone for good, or between two listeners?
    match connect::knock(door.address(), deadline).await {
        Knock::Refused => Knock::Refused.glimpse(budget),
        _ => Glimpse::Seen(Verdict::Silent, format!("GET {path}: refused, and accepted again right after")),
    }
}

/// A task of ours that did not come to its end.
fn broken(error: &JoinError) -> Glimpse {
    Glimpse::Seen(Verdict::Inconclusive, format!("the probe failed: {error}"))
}
