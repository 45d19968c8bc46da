//! Where the settings say that the gateway is, and the claim on its port when it moves.

use crate::core::{Endpoint, Holder, MoveReason, Moved, Observation, Owner, Verdict};
use crate::gateway::endpoint::{Resolved, Resolver};
use crate::gateway::probe::{Look, Prober};
use crate::gateway::process::Launch;
use crate::platform::claim::{self, Claim, ClaimOutcome, Claimant, Server};
use crate::platform::proc;
use crate::platform::thread::BlockingCall;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::task::JoinHandle;

/// How long reading the settings may take. What hangs is a file system, and the gateway may serve all the same.
const READ_TIME_MAX: Duration = Duration::from_secs(2);

/// Between two attempts on a claim that is about to be served.
const CLAIM_PAUSE: Duration = Duration::from_millis(5);

pub struct Whereabouts {
    settings: SettingsReader,
    store_dir: PathBuf,
    /// Names us to those who look at the claim.
    serving: Option<JoinHandle<()>>,
}

/// The settings, as they are read beside the loop.
#[derive(Clone)]
struct SettingsReader {
    resolver: Resolver,
    reading: BlockingCall,
    known: Arc<Mutex<Known>>,
}

struct Known {
    /// What they said when the core followed them last. While they do not change, a gateway that serves elsewhere is
    /// expected there the next time too.
    heeded: Endpoint,
    files: Vec<PathBuf>,
    exports: Vec<(&'static str, OsString)>,
    /// The endpoint with a port that is only a guess.
    guess: Option<Endpoint>,
    /// Warnings that were logged.
    told: BTreeSet<String>,
    /// Taken for a move that the core has not decided yet.
    claim: Option<(u16, Claim)>,
}

impl Whereabouts {
    /// `endpoint` and the warnings `told` are what the settings said at first.
    #[must_use]
    pub fn new(resolver: Resolver, endpoint: Endpoint, told: &[String], store_dir: PathBuf) -> Self {
        let told = told.iter().cloned().collect();
        let known = Known { heeded: endpoint, files: Vec::new(), exports: Vec::new(), guess: None, told, claim: None };
        let settings =
            SettingsReader { resolver, reading: BlockingCall::default(), known: Arc::new(Mutex::new(known)) };
        Self { settings, store_dir, serving: None }
    }

    /// The files that the settings were last read from.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        self.settings.known().files.clone()
    }

    /// `launch` with the variables that the settings export as they were last read.
    pub(super) fn complete(&self, launch: &Launch) -> Launch {
        self.settings.complete(launch)
    }

    /// The same with the settings of now.
    pub(super) fn read_and_complete(&self, launch: Arc<Launch>) -> impl Future<Output = Launch> + Send + use<> {
        let settings = self.settings.clone();
        async move {
            settings.read().await;
            settings.complete(&launch)
        }
    }

    /// The endpoint that the settings name now; `None` if they cannot be read in time.
    pub(super) fn read(&self) -> impl Future<Output = Option<Endpoint>> + Send + use<> {
        let settings = self.settings.clone();
        async move { settings.read().await }
    }

    /// Looks at the port on which the next gateway will listen.
    pub(super) fn look_before_spawn(&self, prober: Arc<Prober>) -> impl Future<Output = Observation> + Send + use<> {
        let settings = self.settings.clone();
        async move {
            let ask = Look::AnswersAndOwner { leader: None };
            let (read, seen) = tokio::join!(settings.read(), prober.look(ask));
            let seen = settings.judge_guess(&prober, seen).await;
            let Some(to) = read.filter(|to| settings.is_news(to, prober.endpoint())) else { return seen };
            let seen = prober.at(to.clone()).look(ask).await;
            let seen = if to.port == prober.endpoint().port { seen } else { settings.claim(to.port, seen).await };
            Observation { moved: Some(Moved { to, why: MoveReason::Settings }), ..seen }
        }
    }

    /// The core follows. Returns the claim on another port than `before`, if it can be had.
    pub(super) fn follow(&mut self, moved: &Moved, before: u16) -> Option<Claim> {
        let (mut known, port) = (self.settings.known(), moved.to.port);
        if moved.why == MoveReason::Settings {
            known.heeded = moved.to.clone();
        }
        let claimed = known.claim.take().filter(|(claimed, _)| *claimed == port);
        drop(known);
        if port == before {
            return None;
        }
        let outcome = claimed.map_or_else(|| claim::take(port), |(_, claim)| Ok(ClaimOutcome::Taken(claim)));
        match outcome {
            Ok(ClaimOutcome::Taken(claim)) => {
                claim.server().into_iter().for_each(|server| self.serve(server));
                Some(claim)
            }
            Ok(ClaimOutcome::Held(claimant)) if is_ours(claimant) => None,
            Ok(ClaimOutcome::Held(claimant)) if !claimant.is_trusted() => {
                self.settings.tell(&claimant.warning(port));
                None
            }
            Ok(ClaimOutcome::Held(_) | ClaimOutcome::Changing) => {
                tracing::warn!("the gateway serves on port {port}, which another supervisor has claimed");
                None
            }
            Err(error) => {
                self.settings.tell(&unclaimed(port, &error));
                None
            }
        }
    }

    /// Serves the present claim in place of the one before.
    pub(super) fn serve(&mut self, server: Server) {
        if let Some(before) = self.serving.replace(tokio::spawn(server.serve(self.store_dir.clone()))) {
            before.abort();
        }
    }
}

impl SettingsReader {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn read(&self) -> Option<Endpoint> {
        let resolver = self.resolver.clone();
        let Resolved { endpoint, is_guess, warnings, files, exports, .. } =
            self.reading.run(READ_TIME_MAX, move || resolver.resolve()).await.ok()?;
        {
            let mut known = self.known();
            (known.files, known.exports) = (files, exports);
            known.guess = is_guess.then(|| endpoint.clone());
        }
        for warning in warnings {
            self.tell(&warning);
        }
        Some(endpoint)
    }

    /// Where the port is only a guess, a program there does not keep the gateway from its start. It is told of.
    async fn judge_guess(&self, prober: &Prober, seen: Observation) -> Observation {
        let endpoint = prober.endpoint();
        if self.known().guess.as_ref() != Some(endpoint) {
            return seen;
        }
        let judged = prober.judge_guess(seen.clone()).await;
        if judged.verdict != seen.verdict {
            let holder =
                seen.holder().map_or_else(String::new, |holder| format!(" by pid {} ({})", holder.pid, holder.command));
            self.tell(&format!(
                "{endpoint} is in use{holder}, but that the gateway will listen there is only a guess: it is started and \
                 judges for itself; give --port to have the port looked at"
            ));
        }
        judged
    }

    /// What our own options set counts more.
    fn complete(&self, launch: &Launch) -> Launch {
        let exports = self.known().exports.iter().chain(&launch.exports).cloned().collect();
        Launch { exports, ..launch.clone() }
    }

    fn tell(&self, warning: &str) {
        if self.known().told.insert(warning.to_owned()) {
            tracing::warn!("{warning}");
        }
    }

    /// Whether the settings have changed and name another endpoint than the one that is looked at.
    fn is_news(&self, to: &Endpoint, present: &Endpoint) -> bool {
        let mut known = self.known();
        if to == present {
            known.heeded = to.clone();
        }
        let is_news = *to != known.heeded;
        if !is_news {
            known.claim = None;
        }
        is_news
    }

    /// Claims the port for the gateway that is to come. Another supervisor that has done so is about to start one.
    async fn claim(&self, port: u16, seen: Observation) -> Observation {
        let attempt = || {
            let mut known = self.known();
            if known.claim.as_ref().is_none_or(|(claimed, _)| *claimed != port) {
                match claim::take(port) {
                    Ok(ClaimOutcome::Taken(claim)) => known.claim = Some((port, claim)),
                    other => return Some(other),
                }
            }
            None
        };
        let mut outcome = attempt();
        if let Some(Ok(ClaimOutcome::Changing)) = outcome {
            tokio::time::sleep(CLAIM_PAUSE).await;
            outcome = attempt();
        }
        let Some(outcome) = outcome else { return seen };
        let by = match outcome {
            Ok(ClaimOutcome::Held(claimant)) if is_ours(claimant) => return seen,
            Ok(ClaimOutcome::Held(claimant)) if !claimant.is_trusted() => {
                self.tell(&claimant.warning(port));
                return seen;
            }
            Ok(ClaimOutcome::Held(Claimant { by, .. })) => by,
            // A supervisor listens at once, so this is none.
            Ok(ClaimOutcome::Taken(_) | ClaimOutcome::Changing) => return seen,
            Err(error) => {
                self.tell(&unclaimed(port, &error));
                return seen;
            }
        };
        if seen.verdict != Verdict::Free {
            return seen;
        }
        let owner = match by {
            Some(pid) => proc::run(move || proc::command_of(pid).zip(Some(proc::uid_of(pid))))
                .await
                .ok()
                .flatten()
                .map_or(Owner::Unseen, |(command, uid)| Owner::Other(Holder { pid, command, uid })),
            None => Owner::Unseen,
        };
        let detail = format!("{}, but another supervisor has claimed the port for its gateway", seen.detail);
        Observation { verdict: Verdict::Booting, owner, detail, ..seen }
    }
}

fn is_ours(claimant: Claimant) -> bool {
    claimant.by == Some(std::process::id().cast_signed())
}

fn unclaimed(port: u16, error: &std::io::Error) -> String {
    format!("cannot claim port {port}: {error}; a supervisor with another store directory will not notice this one")
}
