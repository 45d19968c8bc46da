//! What the verbs need that look at a gateway or talk to a running supervisor.

use super::alert_settings::AlertSettings;
use super::common::Common;
use super::policy::LogSettings;
use super::run_settings::{self, Settings};
use super::usage_error::UsageErrors;
use crate::cli::{DecisionSubject, Options, ProbeFlags, Since, shell_word};
use crate::core::event::PauseRequest;
use crate::core::report::Severity;
use crate::core::{Endpoint, Policy, Request};
use crate::gateway::endpoint::Resolved;
use crate::host::metrics::Exposition;
use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

/// What `restart` and `stop` wait beyond the gateway's own timeouts.
const MARGIN: Duration = Duration::from_secs(30);

/// How long `retry-now` waits.
const RETRY_TIMEOUT: Duration = Duration::from_secs(10);

/// Which supervisor it is about, and how to talk to the operator.
#[derive(Debug, Clone)]
pub struct Subject {
    pub store_dir: PathBuf,
    pub config_path: PathBuf,
    pub log: LogSettings,
    pub warnings: Vec<String>,
    /// The options by which another command finds the same store, with a blank before each.
    pub options: String,
}

#[derive(Debug, Clone)]
pub struct StatusSettings {
    pub subject: Subject,
    pub endpoint: Endpoint,
    pub probe_timeout: Duration,
    pub json: bool,
    pub watch: bool,
    /// Whether the command line or a variable says which gateway or store it is about.
    pub is_target_named: bool,
}

/// What `doctor --fix` may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fix {
    pub dry_run: bool,
}

#[derive(Debug, Clone)]
pub struct DoctorSettings {
    pub subject: Subject,
    pub endpoint: Endpoint,
    pub probe_timeout: Duration,
    /// What `run` would make of the same options and environment.
    pub run: Result<Box<Settings>, UsageErrors>,
    /// Whether the command line names a port, a profile or a directory, so that the service of that one is meant.
    pub is_target_named: bool,
    /// `--fix`
    pub fix: Option<Fix>,
    pub json: bool,
}

/// `logs`, which is no verb of ours.
#[derive(Debug, Clone)]
pub struct LogsSettings {
    pub subject: Subject,
    /// Files that show a service, each with the command that shows its output.
    pub units: Vec<(PathBuf, String)>,
    pub is_container: bool,
}

#[derive(Debug, Clone)]
pub struct EventsSettings {
    pub subject: Subject,
    /// How many of the last events to show; `None` for all since then, or the usual number.
    pub lines: Option<u32>,
    pub since: Option<Since>,
    pub level: Option<Severity>,
    pub follow: bool,
    pub json: bool,
}

#[derive(Debug, Clone)]
pub struct NotifySettings {
    pub subject: Subject,
    pub alerts: AlertSettings,
    /// The gateway's variables that options of ours set.
    pub exports: Vec<(&'static str, OsString)>,
    /// A systemd unit that failed; `None` for a test message.
    pub failed_unit: Option<String>,
}

#[derive(Debug, Clone)]
pub struct ExplainSettings {
    pub subject: Subject,
    pub decision: DecisionSubject,
    /// The options that were typed, as a shell reads them, for a command about the same supervisor.
    pub typed: String,
    pub json: bool,
}

#[derive(Debug, Clone)]
pub struct MetricsSettings {
    pub subject: Subject,
    pub exposition: Exposition,
}

#[derive(Debug, Clone)]
pub struct RequestSettings {
    pub subject: Subject,
    pub port: u16,
    pub request: Request,
    /// How long to wait for the outcome.
    pub timeout: Duration,
    /// The same where the outcome is a gateway that takes the place of another one.
    pub replacement_timeout: Duration,
    /// `start-now`: where no supervisor runs, its service is started.
    pub starts_service: bool,
}

#[derive(Debug, Clone)]
pub struct PauseSettings {
    pub subject: Subject,
    pub port: u16,
    /// `None`: the pause is ended.
    pub pause: Option<PauseRequest>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    Live,
    Ready,
    Started,
    Supervised,
}

impl Question {
    /// Its name on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Live => "live",
            Self::Ready => "ready",
            Self::Started => "started",
            Self::Supervised => "supervised",
        }
    }
}

impl From<ProbeFlags> for Question {
    /// clap lets one of them through at most.
    fn from(flags: ProbeFlags) -> Self {
        match flags {
            ProbeFlags { ready: true, .. } => Self::Ready,
            ProbeFlags { started: true, .. } => Self::Started,
            ProbeFlags { supervised: true, .. } => Self::Supervised,
            ProbeFlags { .. } => Self::Live,
        }
    }
}

#[derive(Debug, Clone)]
pub struct ProbeSettings {
    pub endpoint: Endpoint,
    /// Whether the command line names the endpoint, so that no supervisor is asked for another one.
    pub is_endpoint_named: bool,
    pub store_dir: PathBuf,
    pub question: Question,
    /// How long to repeat the probe; `None` for a single one.
    pub wait: Option<Duration>,
    pub probe_timeout: Duration,
    pub json: bool,
    pub log: LogSettings,
    pub warnings: Vec<String>,
}

impl Common<'_> {
    pub(super) fn probe(
        self,
        flags: ProbeFlags,
        wait: Option<Duration>,
        json: bool,
        is_endpoint_named: bool,
    ) -> Result<ProbeSettings, UsageErrors> {
        UsageErrors::check(self.errors)?;
        let Resolved { endpoint, warnings, .. } = self.target.resolved;
        Ok(ProbeSettings {
            endpoint,
            is_endpoint_named,
            store_dir: self.store_dir,
            question: flags.into(),
            wait,
            probe_timeout: self.policy.probe_timeout,
            json,
            log: self.log,
            warnings: self.target.warnings.into_iter().chain(warnings).collect(),
        })
    }

    pub(super) fn status(
        mut self,
        json: bool,
        watch: bool,
        is_target_named: bool,
    ) -> Result<StatusSettings, UsageErrors> {
        let mut subject = self.subject()?;
        let Resolved { endpoint, warnings, .. } = self.target.resolved;
        subject.warnings.extend(warnings);
        Ok(StatusSettings { subject, endpoint, probe_timeout: self.policy.probe_timeout, json, watch, is_target_named })
    }

    /// What is wrong around it is a finding; only an error of the command line ends it.
    pub(super) fn doctor(
        mut self,
        json: bool,
        fix: Option<Fix>,
        is_target_named: bool,
    ) -> Result<DoctorSettings, UsageErrors> {
        // The warnings are among the findings.
        let subject = Subject { warnings: Vec::new(), ..self.subject()? };
        let (endpoint, probe_timeout) = (self.target.resolved.endpoint.clone(), self.policy.probe_timeout);
        let run = run_settings::resolve(self);
        Ok(DoctorSettings { subject, endpoint, probe_timeout, run, is_target_named, fix, json })
    }

    pub(super) fn logs(mut self) -> Result<LogsSettings, UsageErrors> {
        let profile = self.options.profile.as_ref().map(|name| format!("-{name}")).unwrap_or_default();
        let name = format!("openclaw-supervise{profile}");
        let home = (self.context.home)().unwrap_or_default();
        let of_user = home.join(format!(".config/systemd/user/{name}.service"));
        let of_machine = PathBuf::from(format!("/etc/systemd/system/{name}@.service"));
        let units =
            vec![(of_user, format!("journalctl --user -u {name}")), (of_machine, format!("journalctl -u '{name}@*'"))];
        let is_container = self.context.container.is_some();
        Ok(LogsSettings { subject: self.subject()?, units, is_container })
    }

    /// The rest is that of the command line.
    pub(super) fn about(mut self) -> Result<Subject, UsageErrors> {
        self.subject()
    }

    pub(super) fn notify(mut self, failed_unit: Option<String>) -> Result<NotifySettings, UsageErrors> {
        let mut subject = self.subject()?;
        subject.warnings.extend(self.alerts.warnings.iter().cloned());
        Ok(NotifySettings { subject, alerts: self.alerts, exports: self.target.exports, failed_unit })
    }

    pub(super) fn metrics(mut self, is_prometheus: bool) -> Result<MetricsSettings, UsageErrors> {
        let exposition = if is_prometheus { Exposition::Prometheus } else { Exposition::OpenMetrics };
        Ok(MetricsSettings { subject: self.subject()?, exposition })
    }

    pub(super) fn pause(mut self, pause: Option<PauseRequest>) -> Result<PauseSettings, UsageErrors> {
        Ok(PauseSettings { subject: self.subject()?, port: self.target.resolved.endpoint.port, pause })
    }

    pub(super) fn request(
        mut self,
        request: Request,
        timeout: Option<Duration>,
        starts_service: bool,
    ) -> Result<RequestSettings, UsageErrors> {
        let (subject, port) = (self.subject()?, self.target.resolved.endpoint.port);
        let Policy { stop_timeout, startup_timeout, pre_start, post_stop, .. } = self.policy;
        let stop = stop_timeout + post_stop.unwrap_or_default() + MARGIN;
        let replacement_timeout = timeout.unwrap_or(stop + pre_start.unwrap_or_default() + startup_timeout);
        let timeout = timeout.unwrap_or(match request {
            Request::Restart | Request::RestartForced => replacement_timeout,
            Request::Stop | Request::Detach => stop,
            Request::Retry | Request::RetryForced => RETRY_TIMEOUT,
        });
        Ok(RequestSettings { subject, port, request, timeout, replacement_timeout, starts_service })
    }

    fn subject(&mut self) -> Result<Subject, UsageErrors> {
        UsageErrors::check(std::mem::take(&mut self.errors))?;
        let (store_dir, config_path) = (self.store_dir.clone(), self.target.config_path.clone());
        let options = self.store_options();
        Ok(Subject { store_dir, config_path, log: self.log, warnings: self.target.warnings.clone(), options })
    }

    fn store_options(&self) -> String {
        let Options { store_dir, state_dir, profile, .. } = self.options;
        let option = |flag: &str, value: &str| format!(" --{flag} {}", shell_word(value.as_ref()));
        match (store_dir, state_dir, profile) {
            (Some(_), ..) => option("store-dir", &self.store_dir.to_string_lossy()),
            (None, Some(_), _) => option("state-dir", &self.target.state_dir.to_string_lossy()),
            (None, None, Some(profile)) => option("profile", profile),
            (None, None, None) => String::new(),
        }
    }
}
