//! One probe of the gateway's port.
//!
//! A plain TCP connect comes first, so that a free port costs no HTTP client; then `/healthz` and `/startupz` over one
//! connection, and `/readyz` if the gateway is ours and serves. The client and its connections end with the probe.
//! While the gateway answers, the plain connect is left out: a TLS listener would log each one as a failed handshake.

mod connect;
mod http;
mod late;
mod outcome;
mod owner;
mod search;
mod tls;
mod verdict;

use self::connect::{Connect, connect};
use self::http::{AfterReply, ProbeClient, RequestError};
use self::late::LateAnswer;
use self::outcome::AddressOutcome;
use self::owner::{Mark, Served};
use crate::core::{Endpoint, Observation, Owner, Phase, Readiness, Verdict};
use crate::gateway::state_lock::{self, StateOwner};
use crate::platform::thread::BlockingCall;
use reqwest::Client;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, timeout};

/// How long one address has to reply before the next one is asked as well: a gateway that listens on both loopbacks is
/// asked once, and a silent program on one of them does not hide a gateway on the other.
const HEAD_START: Duration = Duration::from_millis(200);

/// Upper bound of `timeout`: a deadline beyond the range of the clock would overflow.
const TIMEOUT_MAX: Duration = Duration::from_hours(24);

/// `/readyz` gets this fraction of the timeout. Readiness decides nothing, so it must not delay the verdict for long.
const READINESS_FRACTION: u32 = 5;

/// How long the search in `/proc` and the state directory may take.
const LOOKUP_TIME_MAX: Duration = Duration::from_secs(1);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Look {
    /// Finds the process that holds the port only if that answers, but not as a gateway does: our own child or another?
    Answers {
        /// As below.
        leader: Option<i32>,
    },
    /// Also finds the process that holds the port.
    AnswersAndOwner {
        /// Our own child: once it serves, its readiness is asked for as well. `None` before a spawn: then a gateway that
        /// another supervisor of ours has started counts as ours, and on a free port the state lock shows one that boots.
        leader: Option<i32>,
    },
}

impl Look {
    fn is_of_child(self) -> bool {
        matches!(self, Self::AnswersAndOwner { leader: Some(_) })
    }
}

/// Probes one endpoint.
#[derive(Debug)]
pub struct Prober {
    endpoint: Endpoint,
    timeout: Duration,
    state_dir: Option<PathBuf>,
    mark: Option<Mark>,
    /// Whether the last probe found a gateway.
    answering: AtomicBool,
    /// One slot per address. Only verifying clients are kept: building one reads the system's roots.
    verifying: Vec<OnceLock<Client>>,
    lookup: BlockingCall,
    searching: BlockingCall,
    served: Mutex<Served>,
    /// How long an answer is waited for that a probe did not get in time.
    patience: Duration,
    late: LateAnswer,
}

impl Prober {
    /// `timeout` bounds the connect and the requests of one probe together. Opens nothing yet.
    #[must_use]
    pub fn new(endpoint: Endpoint, timeout: Duration) -> Self {
        let verifying = endpoint.addresses.iter().map(|_| OnceLock::new()).collect();
        Self {
            endpoint,
            timeout: timeout.min(TIMEOUT_MAX),
            state_dir: None,
            mark: None,
            answering: AtomicBool::new(false),
            verifying,
            lookup: BlockingCall::default(),
            searching: BlockingCall::default(),
            served: Mutex::default(),
            patience: Duration::ZERO,
            late: LateAnswer::default(),
        }
    }

    /// The same for another endpoint of the same gateway.
    #[must_use]
    pub fn at(&self, endpoint: Endpoint) -> Self {
        let (state_dir, mark) = (self.state_dir.clone(), self.mark.clone());
        let (served, patience) = (Mutex::new(self.served()), self.patience);
        Self { state_dir, mark, served, patience, ..Self::new(endpoint, self.timeout) }
    }

    /// Makes a probe before a spawn see a gateway that holds this state directory and does not listen yet.
    #[must_use]
    pub fn with_state_dir(self, state_dir: PathBuf) -> Self {
        Self { state_dir: Some(state_dir), ..self }
    }

    /// Makes a probe before a spawn recognise the gateways of this key, see [`super::process::key_of`].
    #[must_use]
    pub fn with_key(self, key: String) -> Self {
        Self { mark: Some(Mark::new(key)), ..self }
    }

    /// Makes it recognise them where they have this user, too.
    pub fn expect_user(&self, uid: Option<u32>) {
        if let (Some(mark), Some(uid)) = (&self.mark, uid) {
            mark.set_user(uid);
        }
    }

    /// Makes an answer of our child count as one that comes within this time.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience: patience.min(TIMEOUT_MAX), ..self }
    }

    #[must_use]
    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// To be called when the gateway that answered is gone: the next probe starts with the plain connect again.
    pub fn forget(&self) {
        self.answering.store(false, Ordering::Relaxed);
        self.late.forget();
        self.note_served(Served::Never);
    }

    /// To be called when the gateway has just answered here.
    pub fn expect_answer(&self) {
        self.answering.store(true, Ordering::Relaxed);
    }

    fn served(&self) -> Served {
        *self.served.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_served(&self, served: Served) {
        *self.served.lock().unwrap_or_else(PoisonError::into_inner) = served;
    }

    pub async fn look(&self, ask: Look) -> Observation {
        let deadline = Instant::now() + self.timeout;
        let (outcomes, client) = self.observe(ask, deadline).await;
        let (address, verdict, detail) = outcome::strongest(outcomes);
        self.answering.store(outcome::is_gateway(verdict), Ordering::Relaxed);
        if verdict != Verdict::Silent {
            self.late.forget();
        }
        let late =
            address.filter(|_| ask.is_of_child() && verdict == Verdict::Silent).and_then(|at| self.late_answer(at));
        let (verdict, detail) = late.map_or((verdict, detail), |detail| (Verdict::Foreign, detail));
        let (verdict, owner, detail) = match (ask, verdict, address) {
            (Look::AnswersAndOwner { leader: None }, Verdict::Free, free) => self.check_free_port(free, detail).await,
            (_, Verdict::Free | Verdict::Inconclusive, _) | (.., None) => (verdict, Owner::Unseen, detail),
            (Look::AnswersAndOwner { leader }, _, Some(address))
            | (Look::Answers { leader }, Verdict::Foreign, Some(address)) => {
                (verdict, self.find_owner(address, leader).await, detail)
            }
            (Look::Answers { .. }, ..) => (verdict, Owner::Unseen, detail),
        };
        let serves = matches!(verdict, Verdict::Gateway(Phase::Started | Phase::Unknown));
        let readiness = match client {
            Some(client) if serves && ask.is_of_child() && !matches!(owner, Owner::Other(_)) => {
                self.ask_readiness(&client, deadline).await
            }
            _ => None,
        };
        Observation { verdict, owner, detail, readiness, moved: None }
    }

    fn late_answer(&self, address: SocketAddr) -> Option<String> {
        let index = self.endpoint.addresses.iter().position(|known| *known == address)?;
        let client = || self.client_for(index).ok();
        (!self.patience.is_zero()).then(|| self.late.take_or_ask(client, self.patience)).flatten()
    }

    async fn ask_readiness(&self, client: &ProbeClient, deadline: Instant) -> Option<Readiness> {
        let soon = Instant::now() + self.timeout / READINESS_FRACTION;
        let reply = client.get("/readyz", AfterReply::Close, soon.min(deadline)).await;
        reply.ok().and_then(|reply| verdict::readiness(&reply))
    }

    async fn find_owner(&self, address: SocketAddr, leader: Option<i32>) -> Owner {
        let mark = self.mark.clone();
        let found = self.lookup.run(LOOKUP_TIME_MAX, move || owner::find(address, leader, mark.as_ref())).await;
        found.unwrap_or(Owner::Unseen)
    }

    /// The verdict before a spawn where the port is only a guess: what another program does there does not matter, unless it
    /// holds our state directory.
    pub async fn judge_guess(&self, seen: Observation) -> Observation {
        let answers = match seen.verdict {
            Verdict::Gateway(_) | Verdict::Draining | Verdict::Silent | Verdict::Foreign | Verdict::Malformed => true,
            Verdict::Free | Verdict::Booting | Verdict::Inconclusive => false,
        };
        if !answers || matches!(seen.owner, Owner::Ours(_)) {
            return seen;
        }
        let (verdict, owner, detail) = self.check_free_port(None, seen.detail.clone()).await;
        let judged = Observation { verdict, owner, detail, ..seen.clone() };
        let pid = |seen: &Observation| seen.holder().map(|holder| holder.pid);
        if judged.verdict != Verdict::Free && pid(&judged) == pid(&seen) { seen } else { judged }
    }

    /// The verdict on a port without a listener: free, in use all the same, or about to be used by a gateway that boots.
    async fn check_free_port(&self, free: Option<SocketAddr>, detail: String) -> (Verdict, Owner, String) {
        if let Some(address) = free.filter(|address| connect::is_taken(*address)) {
            let detail = format!("{detail}, but a socket that does not listen is bound to {address}");
            return (Verdict::Silent, self.find_owner(address, None).await, detail);
        }
        let Some(state_dir) = self.state_dir.clone() else { return (Verdict::Free, Owner::Unseen, detail) };
        let mark = self.mark.clone();
        let lookup = move || {
            let lock = state_lock::owner(&state_dir)?;
            // The process may end in between.
            Some((lock, owner::identify(lock.pid, mark.as_ref())?))
        };
        match self.lookup.run(LOOKUP_TIME_MAX, lookup).await {
            Ok(None) => (Verdict::Free, Owner::Unseen, detail),
            Ok(Some((StateOwner { pid, port }, owner))) => {
                let port = port.map_or(String::new(), |port| format!(" for port {port}"));
                let detail = format!("{detail}, but pid {pid} holds gateway.state.lock of the state directory{port}");
                (Verdict::Booting, owner, detail)
            }
            Err(error) => {
                let detail = format!("{detail}, but cannot read gateway.state.lock of the state directory: {error}");
                (Verdict::Inconclusive, Owner::Unseen, detail)
            }
        }
    }

    /// Asks `/readyz` alone, with the whole timeout.
    ///
    /// # Errors
    /// Why the readiness is not known.
    pub async fn ready(&self) -> Result<Readiness, String> {
        let deadline = Instant::now() + self.timeout;
        let mut last = String::new();
        for (index, address) in self.endpoint.addresses.iter().enumerate() {
            let client = match connect(*address, deadline).await {
                Connect::Accepted => self.client_for(index),
                other => {
                    last = other.detail(self.timeout);
                    continue;
                }
            };
            let reply = match client {
                Ok(client) => client.get("/readyz", AfterReply::Close, deadline).await,
                Err(error) => Err(error),
            };
            match reply {
                Ok(reply) => {
                    let other = || format!("GET /readyz answered {}", reply.describe());
                    return verdict::readiness(&reply).ok_or_else(other);
                }
                Err(error) => last = error.detail("/readyz", self.timeout),
            }
        }
        Err(last)
    }

    /// The outcomes of as many addresses as it takes to find a gateway, and the client of that one.
    async fn observe(&self, ask: Look, deadline: Instant) -> (Vec<(SocketAddr, AddressOutcome)>, Option<ProbeClient>) {
        let (accepting, mut outcomes) = if self.answering.load(Ordering::Relaxed) {
            ((0..self.endpoint.addresses.len()).collect(), Vec::new())
        } else {
            self.connect_all(deadline).await
        };
        let mut clients = Vec::new();
        for index in accepting {
            match self.client_for(index) {
                Ok(client) => clients.push(client),
                Err(error) => outcomes.push((self.endpoint.addresses[index], error.outcome("/healthz", self.timeout))),
            }
        }
        let after = if ask.is_of_child() { AfterReply::KeepAlive } else { AfterReply::Close };
        let client = ask_in_turn(clients, &mut outcomes, after, deadline, self.timeout).await;
        (outcomes, client)
    }

    /// The indices of the addresses that accept, in order, and the outcomes of the others.
    async fn connect_all(&self, deadline: Instant) -> (Vec<usize>, Vec<(SocketAddr, AddressOutcome)>) {
        let mut connects = JoinSet::new();
        for (index, &address) in self.endpoint.addresses.iter().enumerate() {
            connects.spawn(async move { (index, address, connect(address, deadline).await) });
        }
        let (mut accepting, mut outcomes) = (Vec::new(), Vec::new());
        while let Some(done) = connects.join_next().await {
            match done {
                Ok((index, _, Connect::Accepted)) => accepting.push(index),
                Ok((_, address, other)) => outcomes.push((address, other.outcome(self.timeout))),
                Err(error) => outcomes.push((self.endpoint.addresses[0], failed_task(&error))),
            }
        }
        accepting.sort_unstable();
        (accepting, outcomes)
    }

    fn client_for(&self, index: usize) -> Result<ProbeClient, RequestError> {
        let address = self.endpoint.addresses[index];
        if !self.endpoint.tls {
            return Ok(ProbeClient::new(address, "http", None, tls::lenient_client()?));
        }
        if tls::is_local(address.ip()) {
            return Ok(ProbeClient::new(address, "https", None, tls::lenient_client()?));
        }
        let name = tls::name_of(&self.endpoint.host);
        let slot = &self.verifying[index];
        let client = if let Some(client) = slot.get() {
            client.clone()
        } else {
            let client = tls::verifying_client(name, address)?;
            slot.get_or_init(|| client).clone()
        };
        Ok(ProbeClient::new(address, "https", name, client))
    }
}

/// Asks one address after the other, each after the head start of the previous one. Returns the client of the first
/// gateway.
async fn ask_in_turn(
    clients: Vec<ProbeClient>,
    outcomes: &mut Vec<(SocketAddr, AddressOutcome)>,
    after: AfterReply,
    deadline: Instant,
    budget: Duration,
) -> Option<ProbeClient> {
    let mut clients = clients.into_iter();
    let mut running = JoinSet::new();
    let mut next = clients.next();
    let mut first = None;
    loop {
        if let Some(client) = next.take() {
            first.get_or_insert(client.address());
            running.spawn(async move {
                let outcome = ask(&client, after, deadline, budget).await;
                (client, outcome)
            });
            next = clients.next();
        }
        let done = if next.is_some() {
            match timeout(HEAD_START, running.join_next()).await {
                Ok(done) => done,
                Err(_) => continue,
            }
        } else {
            running.join_next().await
        };
        match (done, first) {
            (Some(Ok((client, outcome))), _) => {
                let found = outcome.is_gateway();
                outcomes.push((client.address(), outcome));
                if found {
                    return Some(client);
                }
            }
            (Some(Err(error)), Some(address)) => outcomes.push((address, failed_task(&error))),
            (Some(Err(_)), None) | (None, _) => return None,
        }
    }
}

/// Asks one address for `/healthz` and `/startupz`.
async fn ask(client: &ProbeClient, after: AfterReply, deadline: Instant, budget: Duration) -> AddressOutcome {
    let (path, error) = match client.get("/healthz", AfterReply::KeepAlive, deadline).await {
        Ok(health) if !verdict::is_live(&health) => return verdict::foreign(&health),
        Ok(_) => match client.get("/startupz", after, deadline).await {
            Ok(startup) => return verdict::phase(&startup),
            // It was a gateway a moment ago, so a malformed reply is a failure of that gateway.
            Err(RequestError::Malformed(why)) => ("/startupz", RequestError::Broken(why)),
            Err(error) => ("/startupz", error),
        },
        Err(error) => ("/healthz", error),
    };
    if !matches!(error, RequestError::Refused) {
        return error.outcome(path, budget);
    }
    // Refused after an accept: gone, or between two listeners?
    match connect(client.address(), deadline).await {
        Connect::Refused => Connect::Refused.outcome(budget),
        _ => AddressOutcome::Seen(Verdict::Silent, format!("GET {path}: refused, then accepted again")),
    }
}

/// A task of ours panicked.
fn failed_task(error: &JoinError) -> AddressOutcome {
    AddressOutcome::Seen(Verdict::Inconclusive, format!("the probe failed: {error}"))
}
