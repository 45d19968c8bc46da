//! What the verbs need that look at a supervisor or ask it for something. None of them minds a slip in the gateway's
//! config: what runs was started with an earlier one.

use super::hooks::Hooks;
use super::target::Target;
use super::value::{Given, Source, Zero};
use super::{Invocation, LeaseBasis, LogSettings, Mistake, Mistakes, Settings, World, run_settings, store_dir};
use crate::cli::{Ask, Doctor, Events, Status};
use crate::core::Policy;
use crate::gateway::endpoint::Endpoint;
use std::path::PathBuf;
use std::time::Duration;

/// How many entries `events` shows without `-n`.
const EVENTS_SHOWN: u32 = 50;

/// What `restart` and `stop` allow beyond the gateway's own times.
const MARGIN: Duration = Duration::from_secs(30);

/// How long `retry-now` waits.
const RETRY_TIME: Duration = Duration::from_secs(10);

/// Which supervisor it is about, and how to talk to the person who asks.
#[derive(Debug, Clone)]
pub struct Subject {
    /// The supervisor's own directory.
    pub store_dir: PathBuf,
    /// The gateway's config file.
    pub config_path: PathBuf,
    /// What is logged, and how.
    pub log: LogSettings,
    /// What is odd, one sentence each; not a reason to stop.
    pub warnings: Vec<String>,
}

/// What `status` needs to know.
#[derive(Debug, Clone)]
pub struct StatusSettings {
    /// Which supervisor.
    pub subject: Subject,
    /// Where the gateway listens.
    pub endpoint: Endpoint,
    /// How long a probe may take.
    pub probe_timeout: Duration,
    /// Whether the answer is printed as JSON.
    pub json: bool,
}

/// What `doctor` needs to know.
#[derive(Debug, Clone)]
pub struct DoctorSettings {
    /// Which supervisor.
    pub subject: Subject,
    /// Where the gateway listens.
    pub endpoint: Endpoint,
    /// How long a probe may take.
    pub probe_timeout: Duration,
    /// What `run` would make of the same options and environment.
    pub run: Result<Box<Settings>, Mistakes>,
    /// Whether the findings are printed as JSON.
    pub json: bool,
}

/// What `events` needs to know.
#[derive(Debug, Clone)]
pub struct EventsSettings {
    /// Which supervisor.
    pub subject: Subject,
    /// How many of the last entries are shown.
    pub count: u32,
    /// Whether to go on with new ones.
    pub follow: bool,
    /// Whether entries are printed as JSON.
    pub json: bool,
}

/// What can be asked of a running supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Another gateway.
    Restart,
    /// An end.
    Stop,
    /// No more waiting.
    RetryNow,
}

impl Wish {
    /// The word of the command line and of the control socket.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Stop => "stop",
            Self::RetryNow => "retry-now",
        }
    }
}

/// What `restart`, `stop` and `retry-now` need to know.
#[derive(Debug, Clone)]
pub struct AskSettings {
    /// Which supervisor.
    pub subject: Subject,
    /// What is asked.
    pub wish: Wish,
    /// How long to wait for the outcome.
    pub timeout: Duration,
}

/// What all verbs have found out so far.
pub(super) struct Common<'a> {
    pub(super) source: Source<'a>,
    pub(super) target: Target,
    pub(super) timing: Policy,
    pub(super) log: LogSettings,
    pub(super) world: &'a World,
}

impl Common<'_> {
    pub(super) fn status(mut self, status: &Status) -> Result<Invocation, Mistakes> {
        let (endpoint, probe_timeout) = (self.target.endpoint.clone(), self.timing.probe_timeout);
        let subject = self.subject("probing with its defaults")?;
        let json = status.json;
        Ok(Invocation::Status(Box::new(StatusSettings { subject, endpoint, probe_timeout, json })))
    }

    /// What is wrong with the surroundings is a finding; a command line that cannot be understood is a mistake.
    pub(super) fn doctor(mut self, doctor: &Doctor, lease: LeaseBasis, hooks: Hooks) -> Result<Invocation, Mistakes> {
        let (endpoint, probe_timeout) = (self.target.endpoint.clone(), self.timing.probe_timeout);
        // The warnings are among the findings.
        let subject = Subject { warnings: Vec::new(), ..self.subject("it is among the findings")? };
        let run = run_settings(Vec::new(), lease, hooks, self);
        let json = doctor.json;
        Ok(Invocation::Doctor(Box::new(DoctorSettings { subject, endpoint, probe_timeout, run, json })))
    }

    pub(super) fn events(mut self, events: &Events) -> Result<Invocation, Mistakes> {
        let count = events.count.as_ref().map(|count| Given::flag("-n", count));
        let count = count.map_or(EVENTS_SHOWN, |given| self.source.parse_number(&given, EVENTS_SHOWN, 0, u32::MAX));
        let subject = self.subject("it does not matter here")?;
        Ok(Invocation::Events(Box::new(EventsSettings { subject, count, follow: events.follow, json: events.json })))
    }

    pub(super) fn ask(mut self, ask: &Ask, wish: Wish) -> Result<Invocation, Mistakes> {
        let given = ask.timeout.as_ref().map(|timeout| Given::flag("--timeout", timeout));
        let given = given.and_then(|given| self.source.parse_duration(&given, Zero::Refused));
        let Policy { stop_timeout, startup_timeout, pre_start, post_stop, .. } = self.timing;
        let (pre_start, post_stop) = (pre_start.unwrap_or_default(), post_stop.unwrap_or_default());
        let timeout = given.unwrap_or(match wish {
            Wish::Restart => stop_timeout + post_stop + MARGIN + pre_start + startup_timeout,
            Wish::Stop => stop_timeout + post_stop + MARGIN,
            Wish::RetryNow => RETRY_TIME,
        });
        let subject = self.subject("it does not matter here")?;
        Ok(Invocation::Ask(Box::new(AskSettings { subject, wish, timeout })))
    }

    /// To be called last: it ends with every mistake that was found. `consequence` ends the warning about a config that
    /// cannot be read.
    fn subject(&mut self, consequence: &str) -> Result<Subject, Mistakes> {
        let store_dir = store_dir(&mut self.source, &self.target, self.world);
        let mistakes: Vec<Mistake> = std::mem::take(&mut self.source.mistakes);
        Mistakes::check(mistakes)?;
        let errors = self.target.config_errors.iter().map(|error| format!("{error}; {consequence}"));
        let warnings = self.target.warnings.iter().cloned().chain(errors).collect();
        Ok(Subject { store_dir, config_path: self.target.config_path.clone(), log: self.log, warnings })
    }
}
