//! The options that stand before or after a verb; their defaults are those of `core::Policy`.

use super::value::{Host, MemoryMax, StopTimeout};
use super::value::{duration, host, max_heap, memory_max, not_blank, positive_duration, profile, stop_timeout};
use crate::core::policy::OnStoreLost;
use crate::gateway::heap::HeapChoice;
use crate::host::telemetry::Format;
use crate::host::webhook::Template;
use crate::store::BasisChoice;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueEnum, ValueHint, value_parser};
use std::ffi::OsString;
use std::time::Duration;

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ConflictMode {
    Auto,
    Exit,
    Standby,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum RepairMode {
    Off,
    Doctor,
}

// A doc comment here would replace the sentence of each verb in its help.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[expect(clippy::doc_markdown, reason = "these are help texts, where a backtick is noise")]
pub struct Options {
    /// Port of the gateway [default: where COMMAND, the variable, the gateway's files or the profile put it, else 18789] [env: OPENCLAW_GATEWAY_PORT]
    #[arg(long, value_name = "PORT", value_parser = value_parser!(u16).range(1..), help_heading = "Gateway")]
    pub port: Option<u16>,
    /// IP address of the gateway, or localhost [default: as gateway.bind in the config says, else 127.0.0.1] [env: OPENCLAW_SUPERVISE_HOST]
    #[arg(long, value_name = "ADDRESS", value_parser = host, help_heading = "Gateway")]
    pub host: Option<Host>,
    /// State directory of the gateway [default: ~/.openclaw] [env: OPENCLAW_STATE_DIR]
    #[arg(long, value_name = "DIR", value_parser = not_blank(), help_heading = "Gateway", value_hint = ValueHint::DirPath)]
    pub state_dir: Option<OsString>,
    /// Config file of the gateway [default: <state-dir>/openclaw.json] [env: OPENCLAW_CONFIG_PATH]
    #[arg(long, value_name = "FILE", value_parser = not_blank(), help_heading = "Gateway", value_hint = ValueHint::FilePath)]
    pub config: Option<OsString>,
    /// Profile of the gateway, with its state in ~/.openclaw-NAME and its own port [default: none] [env: OPENCLAW_PROFILE, for the port only]
    #[arg(long, value_name = "NAME", value_parser = profile, help_heading = "Gateway")]
    pub profile: Option<String>,
    /// Directory of the supervisor's own records [default: <state-dir>/supervise] [env: OPENCLAW_SUPERVISE_STORE_DIR]
    #[arg(long, value_name = "DIR", value_parser = not_blank(), help_heading = "Gateway", value_hint = ValueHint::DirPath)]
    pub store_dir: Option<OsString>,

    /// Replace a gateway that has not started after this long [default: 300s] [env: OPENCLAW_SUPERVISE_STARTUP_TIMEOUT]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Health")]
    pub startup_timeout: Option<Duration>,
    /// Probe a running gateway this often [default: 5s] [env: OPENCLAW_SUPERVISE_PROBE_INTERVAL]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Health")]
    pub probe_interval: Option<Duration>,
    /// Wait this long for the answer to a probe [default: 5s] [env: OPENCLAW_SUPERVISE_PROBE_TIMEOUT]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Health")]
    pub probe_timeout: Option<Duration>,
    /// Replace the gateway after this long without a successful probe [default: 60s] [env: OPENCLAW_SUPERVISE_HANG_AFTER]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Health")]
    pub hang_after: Option<Duration>,
    /// Restart the gateway when it and its children use more memory than this in 3 consecutive samples, such as 1500M or 2G [default: off] [env: OPENCLAW_SUPERVISE_MEMORY_MAX]
    #[arg(long, value_name = "SIZE|off", value_parser = memory_max, help_heading = "Health")]
    pub memory_max: Option<MemoryMax>,
    /// Limit of the JavaScript heap of the gateway: Node's --max-old-space-size, in MiB or such as 6G; off = Node's default [default: auto = as OpenClaw's own service has it] [env: OPENCLAW_SUPERVISE_MAX_HEAP]
    #[arg(long, alias = "max-old-space-size", value_name = "MIB|auto|off", value_parser = max_heap, help_heading = "Health")]
    pub max_heap: Option<HeapChoice>,

    /// Let the gateway drain for this long after SIGTERM, then send SIGKILL [default: auto = 328s, or what the service manager or a container allows] [env: OPENCLAW_SUPERVISE_STOP_TIMEOUT]
    #[arg(long, value_name = "DURATION|auto", value_parser = stop_timeout, help_heading = "Stop")]
    pub stop_timeout: Option<StopTimeout>,
    /// Let a hung gateway drain for this long after SIGTERM, then send SIGKILL [default: 10s] [env: OPENCLAW_SUPERVISE_HUNG_STOP_TIMEOUT]
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Stop")]
    pub hung_stop_timeout: Option<Duration>,
    /// Kill with the gateway what was started outside its tree with its instance id, and what has a systemd unit of its own [default: false] [env: OPENCLAW_SUPERVISE_KILL_STRAYS]
    #[arg(
        long,
        value_name = "true|false",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        hide_possible_values = true,
        help_heading = "Stop"
    )]
    pub kill_strays: Option<bool>,

    /// Give up after this many restarts within --restart-window [default: 6] [env: OPENCLAW_SUPERVISE_MAX_RESTARTS]
    #[arg(long, value_name = "N", help_heading = "Restart")]
    pub max_restarts: Option<u32>,
    /// Count restarts over this long [default: 1h] [env: OPENCLAW_SUPERVISE_RESTART_WINDOW]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Restart")]
    pub restart_window: Option<Duration>,
    /// Delay a restart by at most this long [default: 5m] [env: OPENCLAW_SUPERVISE_BACKOFF_MAX]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Restart")]
    pub backoff_max: Option<Duration>,
    /// Restart without delay a gateway that was healthy for this long, and do not count it [default: 2m] [env: OPENCLAW_SUPERVISE_STABLE_AFTER]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Restart")]
    pub stable_after: Option<Duration>,
    /// Delay a start while more unclean boots than this are within --boot-window; 0 = no limit [default: 2] [env: OPENCLAW_SUPERVISE_BOOT_LIMIT]
    #[arg(long, value_name = "N", help_heading = "Restart")]
    pub boot_limit: Option<u32>,
    /// Count unclean boots over this long [default: 300s] [env: OPENCLAW_SUPERVISE_BOOT_WINDOW]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Restart")]
    pub boot_window: Option<Duration>,
    /// Repair a configuration that the gateway rejects (exit 78), once: doctor = run 'openclaw doctor --fix --yes --non-interactive', which may change its config and state [default: off] [env: OPENCLAW_SUPERVISE_REPAIR]
    #[arg(long, value_name = "off|doctor", hide_possible_values = true, help_heading = "Restart")]
    pub repair: Option<RepairMode>,
    /// Wait this long for an update of OpenClaw before a start, also for an installer that a dead gateway has left [default: 10m] [env: OPENCLAW_SUPERVISE_UPDATE_TIMEOUT]
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Restart")]
    pub update_timeout: Option<Duration>,

    /// Run this shell command before each start of the gateway; if it fails, do not start [default: none] [env: OPENCLAW_SUPERVISE_PRE_START]
    #[arg(long, value_name = "CMD", value_parser = not_blank(), help_heading = "Hooks")]
    pub pre_start: Option<OsString>,
    /// Kill that command after this long [default: 15s] [env: OPENCLAW_SUPERVISE_PRE_START_TIMEOUT]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Hooks")]
    pub pre_start_timeout: Option<Duration>,
    /// Run this shell command after each exit of the gateway, with the reason in its environment [default: none] [env: OPENCLAW_SUPERVISE_POST_STOP]
    #[arg(long, value_name = "CMD", value_parser = not_blank(), help_heading = "Hooks")]
    pub post_stop: Option<OsString>,
    /// Kill that command after this long [default: 15s] [env: OPENCLAW_SUPERVISE_POST_STOP_TIMEOUT]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Hooks")]
    pub post_stop_timeout: Option<Duration>,

    /// Exit or stand by when another supervisor or gateway is in place [default: auto = standby where an exit would end the container or is ignored, else exit] [env: OPENCLAW_SUPERVISE_ON_CONFLICT]
    #[arg(long, value_name = "auto|exit|standby", hide_possible_values = true, help_heading = "Conflict")]
    pub on_conflict: Option<ConflictMode>,
    /// Detect another supervisor by its kernel lock or by its heartbeat [default: auto = lock where the file system supports it] [env: OPENCLAW_SUPERVISE_LEASE]
    #[arg(long, value_name = "auto|lock|heartbeat", hide_possible_values = true, help_heading = "Conflict")]
    pub lease: Option<BasisChoice>,
    /// End or keep the gateway when the store has not confirmed the lease for 20s [default: stop under a heartbeat, keep under the kernel lock] [env: OPENCLAW_SUPERVISE_ON_STORE_LOST]
    #[arg(
        long,
        value_name = "stop|keep",
        value_parser = PossibleValuesParser::new(["stop", "keep"])
            .map(|value| if value == "stop" { OnStoreLost::Stop } else { OnStoreLost::Keep }),
        hide_possible_values = true,
        help_heading = "Conflict"
    )]
    pub on_store_lost: Option<OnStoreLost>,
    /// Wait this long for the port while its holder does not answer as a gateway [default: 30s] [env: OPENCLAW_SUPERVISE_CONFLICT_TIMEOUT]
    #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Conflict")]
    pub conflict_timeout: Option<Duration>,
    /// Exit code when another gateway has the port or the state [default: 78] [env: OPENCLAW_SUPERVISE_CONFLICT_EXIT_CODE]
    #[arg(long, value_name = "CODE", value_parser = value_parser!(u8), help_heading = "Conflict")]
    pub conflict_exit_code: Option<u8>,

    /// Post a message to this URL when an incident begins and when it ends; several URLs separated by blanks, or @FILE with one a line [default: none] [env: OPENCLAW_SUPERVISE_NOTIFY]
    #[arg(long, value_name = "URL|@FILE", value_parser = not_blank(), help_heading = "Notification")]
    pub notify: Option<OsString>,
    /// Form of these messages [default: auto = by the host of the URL, else json] [env: OPENCLAW_SUPERVISE_NOTIFY_FORMAT]
    #[arg(
        long,
        value_name = "auto|json|slack|discord|ntfy",
        hide_possible_values = true,
        help_heading = "Notification"
    )]
    pub notify_format: Option<Template>,
    /// Send a message about a running gateway once a channel was not connected, or the gateway not healthy, for this long [default: 5m] [env: OPENCLAW_SUPERVISE_NOTIFY_AFTER]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Notification")]
    pub notify_after: Option<Duration>,
    /// Run this shell command when an incident begins and when it ends, with the message as JSON on its standard input [default: none] [env: OPENCLAW_SUPERVISE_ON_EVENT]
    #[arg(long, value_name = "CMD", value_parser = not_blank(), help_heading = "Notification")]
    pub on_event: Option<OsString>,
    /// Kill that command after this long [default: 30s] [env: OPENCLAW_SUPERVISE_ON_EVENT_TIMEOUT]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Notification")]
    pub on_event_timeout: Option<Duration>,
    /// Request this URL while the gateway is healthy, for a service that alarms when the requests stop; or @FILE [default: none] [env: OPENCLAW_SUPERVISE_HEARTBEAT_URL]
    #[arg(long, value_name = "URL|@FILE", value_parser = not_blank(), help_heading = "Notification")]
    pub heartbeat_url: Option<OsString>,
    /// Request it this often [default: 60s] [env: OPENCLAW_SUPERVISE_HEARTBEAT_INTERVAL]
    #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Notification")]
    pub heartbeat_interval: Option<Duration>,

    /// Keep metrics in this file, for the textfile collector of node_exporter [default: none] [env: OPENCLAW_SUPERVISE_METRICS_FILE]
    #[arg(long, value_name = "FILE", value_parser = not_blank(), value_hint = ValueHint::FilePath, help_heading = "Metrics")]
    pub metrics_file: Option<OsString>,

    /// Format of the log [default: text on a terminal and in the journal, else json] [env: OPENCLAW_SUPERVISE_LOG_FORMAT]
    #[arg(long, value_name = "text|json", hide_possible_values = true, help_heading = "Log")]
    pub log_format: Option<Format>,
    /// Least severe level to log [default: info] [env: OPENCLAW_SUPERVISE_LOG_LEVEL]
    #[arg(
        long,
        value_name = "error|warn|info|debug|trace",
        value_parser = PossibleValuesParser::new(["error", "warn", "info", "debug", "trace"])
            .try_map(|level| level.parse::<tracing::Level>()),
        hide_possible_values = true,
        help_heading = "Log"
    )]
    pub log_level: Option<tracing::Level>,
    /// Write each line of the log to this file too, without the gateway's output, in JSON unless --log-format says otherwise [default: none] [env: OPENCLAW_SUPERVISE_LOG_FILE]
    #[arg(long, value_name = "FILE", value_parser = not_blank(), help_heading = "Log")]
    pub log_file: Option<OsString>,
    /// Write why it failed to this file, for Kubernetes [default: auto = /dev/termination-log in a container that has it] [env: OPENCLAW_SUPERVISE_TERMINATION_LOG]
    #[arg(long, value_name = "FILE|auto|off", value_parser = not_blank(), help_heading = "Log")]
    pub termination_log: Option<OsString>,
}
/// Options with a variable of the gateway's own, of a lower rank, see `settings::paths` and `settings::port`.
pub(super) const WITHOUT_VARIABLE: [&str; 4] = ["port", "state-dir", "config", "profile"];
/// `probe-timeout` is `OPENCLAW_SUPERVISE_PROBE_TIMEOUT`.
#[must_use]
pub fn variable_of(flag: &str) -> String {
    format!("OPENCLAW_SUPERVISE_{}", flag.to_ascii_uppercase().replace('-', "_"))
}
