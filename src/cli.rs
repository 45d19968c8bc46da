//! The command line as it is written. What it means is decided in [`crate::settings`], where the environment, the
//! gateway's config and all mistakes come together; so every value is taken as it stands.

use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::time::Duration;

/// Keeps exactly one OpenClaw gateway alive.
#[derive(Debug, Clone, Default, Parser)]
#[command(
    name = "openclaw-supervise",
    version,
    args_override_self = true,
    disable_help_subcommand = true,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    after_help = "Without a verb: run. Durations: 500ms, 30s, 5m, 1h. An empty variable counts as unset."
)]
pub struct Cli {
    /// The options before the verb.
    #[command(flatten)]
    pub options: Options,
    /// What to do; nothing means `run`.
    #[command(subcommand)]
    pub verb: Option<Verb>,
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
#[command(defer = true)] // each has a table of all options, and one of them is needed
pub enum Verb {
    /// Supervise a gateway
    #[command(args_override_self = true)]
    Run(Run),
    /// The same as `run -- openclaw gateway ARG...`: the --wrapper form of an OpenClaw service
    #[command(disable_help_flag = true)]
    Gateway(Gateway),
    /// Look at the gateway once: exit 0 when it is as asked, else 1
    #[command(args_override_self = true)]
    Probe(Probe),
    /// Tell how supervisor and gateway are: exit 0 when the gateway is healthy, 3 when none runs, else 4
    #[command(args_override_self = true)]
    Status(Status),
    /// Tell what will go wrong, and the line that prevents it: exit 0 when nothing must, else 1
    #[command(args_override_self = true)]
    Doctor(Doctor),
    /// Write the service that runs us, enable and start it
    #[command(args_override_self = true)]
    Install(Install),
    /// Stop that service and remove it
    #[command(args_override_self = true)]
    Uninstall(Uninstall),
    /// Show what was recorded, oldest first
    #[command(args_override_self = true)]
    Events(Events),
    /// Ask the running supervisor for a new gateway, and wait until it is up
    #[command(args_override_self = true)]
    Restart(Ask),
    /// Ask the running supervisor to end its gateway and itself, and wait until it has
    #[command(args_override_self = true)]
    Stop(Ask),
    /// Ask the running supervisor not to wait any longer for its next attempt
    #[command(args_override_self = true)]
    RetryNow(Ask),
    /// See it work: a stand-in gateway is started, killed, frozen, restarted and stopped before your eyes
    Demo(Demo),
    /// The gateway that `demo` supervises
    #[command(hide = true)]
    DemoGateway(StandIn),
    /// What that gateway starts
    #[command(hide = true)]
    DemoHelper,
}

/// The words after `run`.
#[derive(Debug, Clone, Default, Args)]
pub struct Run {
    /// The options after the verb, which win over those before it.
    #[command(flatten)]
    pub options: Options,
    /// The gateway's command [default: openclaw gateway run --port <PORT>, openclaw found on PATH]
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// The words after `gateway`.
#[derive(Debug, Clone, Default, Args)]
pub struct Gateway {
    /// Belongs to the gateway as it stands, options included; ours go before the verb or into the environment
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
    pub args: Vec<OsString>,
}

/// The words after `probe`.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
pub struct Probe {
    /// The options after the verb, which win over those before it.
    #[command(flatten)]
    pub options: Options,
    /// Does it serve? [default]
    #[arg(long, help_heading = "Probe")]
    pub live: bool,
    /// Is it ready for work? A broken channel account makes it unready for ever
    #[arg(long, help_heading = "Probe")]
    pub ready: bool,
    /// Has it come up completely?
    #[arg(long, help_heading = "Probe")]
    pub started: bool,
    /// Does a supervisor look after it? For a runtime that would end us: a gateway that is away is being seen to
    #[arg(long, help_heading = "Probe")]
    pub supervised: bool,
    /// Ask again until it is so, for at most this long [default: ask once]
    #[arg(long, value_name = "DURATION", help_heading = "Probe")]
    pub wait: Option<OsString>,
    /// Print the verdict as one JSON object
    #[arg(long, help_heading = "Probe")]
    pub json: bool,
}

/// The words after `status`.
#[derive(Debug, Clone, Default, Args)]
pub struct Status {
    /// The options after the verb, which win over those before it.
    #[command(flatten)]
    pub options: Options,
    /// Print one JSON object
    #[arg(long, help_heading = "Status")]
    pub json: bool,
}

/// Which service `install` and `uninstall` are about.
#[derive(Debug, Clone, Default, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
pub struct Service {
    /// A service of this user [default, but for root]
    #[arg(long, help_heading = "Service")]
    pub user: bool,
    /// A service of the machine [default for root]
    #[arg(long, help_heading = "Service")]
    pub system: bool,
    /// The account that a service of the machine runs under [default: who called sudo, else who asks]
    #[arg(long, value_name = "USER", help_heading = "Service")]
    pub run_as: Option<OsString>,
    /// Tell what would be written and called, and do nothing
    #[arg(long, help_heading = "Service")]
    pub dry_run: bool,
    /// Take over a file that `install` did not write, or that was edited since
    #[arg(long, help_heading = "Service")]
    pub force: bool,
}

/// The words after `install`.
#[derive(Debug, Clone, Default, Args)]
pub struct Install {
    /// Which service.
    #[command(flatten)]
    pub service: Service,
    /// The options that the service runs us with.
    #[command(flatten)]
    pub options: Options,
    /// The gateway's command, as for `run`
    #[arg(last = true, value_name = "COMMAND")]
    pub command: Vec<OsString>,
}

/// The words after `uninstall`.
#[derive(Debug, Clone, Default, Args)]
pub struct Uninstall {
    /// Which service.
    #[command(flatten)]
    pub service: Service,
    /// The profile that it was installed with
    #[arg(long, value_name = "NAME", help_heading = "Service")]
    pub profile: Option<OsString>,
}

/// The words after `doctor`.
#[derive(Debug, Clone, Default, Args)]
pub struct Doctor {
    /// The options after the verb, which win over those before it.
    #[command(flatten)]
    pub options: Options,
    /// Print one JSON object
    #[arg(long, help_heading = "Doctor")]
    pub json: bool,
}

/// The words after `events`.
#[derive(Debug, Clone, Default, Args)]
pub struct Events {
    /// The options after the verb, which win over those before it.
    #[command(flatten)]
    pub options: Options,
    /// Print the objects of the log, one a line
    #[arg(long, help_heading = "Events")]
    pub json: bool,
    /// How many of the last ones to show [default: 50]
    #[arg(short = 'n', value_name = "N", allow_negative_numbers = true, help_heading = "Events")]
    pub count: Option<OsString>,
    /// Go on with what happens from now on, until interrupted
    #[arg(long, help_heading = "Events")]
    pub follow: bool,
}

/// The words after `restart`, `stop` and `retry-now`.
#[derive(Debug, Clone, Default, Args)]
pub struct Ask {
    /// The options after the verb, which win over those before it.
    #[command(flatten)]
    pub options: Options,
    /// How long to wait for the outcome [default: --stop-timeout and 30s, for a restart --startup-timeout as well; retry-now: 10s]
    #[arg(long, value_name = "DURATION", help_heading = "Request")]
    pub timeout: Option<OsString>,
}

/// The words after `demo`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Args)]
pub struct Demo {
    /// Without pauses, for scripts
    #[arg(long, help_heading = "Demo")]
    pub fast: bool,
}

/// The words after `demo-gateway`, which the demo writes and nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct StandIn {
    /// Where it listens.
    #[arg(long)]
    pub port: u16,
    /// How long it says that it is starting.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub boot: Duration,
    /// How long it says that it is draining.
    #[arg(long, value_parser = humantime::parse_duration)]
    pub drain: Duration,
}

/// The options that stand before or after a verb.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args)]
#[expect(clippy::doc_markdown, reason = "these are help texts, where a backtick is noise")]
pub struct Options {
    /// Port of the gateway [default: COMMAND's, the variable's, the config's, the profile's, else 18789] [env: OPENCLAW_GATEWAY_PORT]
    #[arg(long, value_name = "PORT", allow_negative_numbers = true, help_heading = "Gateway")]
    pub port: Option<OsString>,
    /// IP address where the gateway answers, or localhost [default: what gateway.bind means] [env: OPENCLAW_SUPERVISE_HOST]
    #[arg(long, value_name = "ADDRESS", help_heading = "Gateway")]
    pub host: Option<OsString>,
    /// State directory of the gateway [default: ~/.openclaw] [env: OPENCLAW_STATE_DIR]
    #[arg(long, value_name = "DIR", help_heading = "Gateway")]
    pub state_dir: Option<OsString>,
    /// Config file of the gateway [default: <state-dir>/openclaw.json] [env: OPENCLAW_CONFIG_PATH]
    #[arg(long, value_name = "FILE", help_heading = "Gateway")]
    pub config: Option<OsString>,
    /// Profile: state in ~/.openclaw-NAME, a port of its own [default: none] [env: OPENCLAW_PROFILE, for the port alone]
    #[arg(long, value_name = "NAME", help_heading = "Gateway")]
    pub profile: Option<OsString>,
    /// Where the supervisor keeps its own records [default: <state-dir>/supervise] [env: OPENCLAW_SUPERVISE_STORE_DIR]
    #[arg(long, value_name = "DIR", help_heading = "Gateway")]
    pub store_dir: Option<OsString>,

    /// How long a boot may take before it counts as hung [default: 300s] [env: OPENCLAW_SUPERVISE_STARTUP_TIMEOUT]
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    pub startup_timeout: Option<OsString>,
    /// Time between two looks at a running gateway [default: 5s] [env: OPENCLAW_SUPERVISE_PROBE_INTERVAL]
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    pub probe_interval: Option<OsString>,
    /// How long one look waits for its answer [default: 5s] [env: OPENCLAW_SUPERVISE_PROBE_TIMEOUT]
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    pub probe_timeout: Option<OsString>,
    /// How long no look may have been good before the gateway counts as hung [default: 60s] [env: OPENCLAW_SUPERVISE_HANG_AFTER]
    #[arg(long, value_name = "DURATION", help_heading = "Health")]
    pub hang_after: Option<OsString>,
    /// Most memory the gateway and all its children may have resident, such as 1500M or 2G; more of it three times in a row means a restart, with a drain [default: off] [env: OPENCLAW_SUPERVISE_MEMORY_MAX]
    #[arg(long, value_name = "SIZE|off", allow_negative_numbers = true, help_heading = "Health")]
    pub memory_max: Option<OsString>,

    /// How long the gateway may drain after SIGTERM [default: auto = 328s, or less where systemd, launchd or a container gives us less] [env: OPENCLAW_SUPERVISE_STOP_TIMEOUT]
    #[arg(long, value_name = "DURATION|auto", help_heading = "Stop")]
    pub stop_timeout: Option<OsString>,
    /// The same for a gateway that hangs [default: 10s] [env: OPENCLAW_SUPERVISE_HUNG_STOP_TIMEOUT]
    #[arg(long, value_name = "DURATION", help_heading = "Stop")]
    pub hung_stop_timeout: Option<OsString>,

    /// How many restarts may follow short runs within --restart-window [default: 6] [env: OPENCLAW_SUPERVISE_MAX_RESTARTS]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Restart")]
    pub max_restarts: Option<OsString>,
    /// The window in which --max-restarts counts [default: 1h] [env: OPENCLAW_SUPERVISE_RESTART_WINDOW]
    #[arg(long, value_name = "DURATION", help_heading = "Restart")]
    pub restart_window: Option<OsString>,
    /// Longest delay before a restart [default: 5m] [env: OPENCLAW_SUPERVISE_BACKOFF_MAX]
    #[arg(long, value_name = "DURATION", help_heading = "Restart")]
    pub backoff_max: Option<OsString>,
    /// How long a gateway must have been healthy for an immediate, uncounted restart [default: 2m] [env: OPENCLAW_SUPERVISE_STABLE_AFTER]
    #[arg(long, value_name = "DURATION", help_heading = "Restart")]
    pub stable_after: Option<OsString>,
    /// A start waits while more unclean boots than this lie within --boot-window; 0 = no limit [default: 2] [env: OPENCLAW_SUPERVISE_BOOT_LIMIT]
    #[arg(long, value_name = "N", allow_negative_numbers = true, help_heading = "Restart")]
    pub boot_limit: Option<OsString>,
    /// The window in which --boot-limit counts [default: 300s] [env: OPENCLAW_SUPERVISE_BOOT_WINDOW]
    #[arg(long, value_name = "DURATION", help_heading = "Restart")]
    pub boot_window: Option<OsString>,

    /// Shell command to run before each start of a gateway; if it fails, that start is given up [default: none] [env: OPENCLAW_SUPERVISE_PRE_START]
    #[arg(long, value_name = "CMD", help_heading = "Hooks")]
    pub pre_start: Option<OsString>,
    /// How long that command may take [default: 15s] [env: OPENCLAW_SUPERVISE_PRE_START_TIMEOUT]
    #[arg(long, value_name = "DURATION", help_heading = "Hooks")]
    pub pre_start_timeout: Option<OsString>,
    /// Shell command to run after each end of a gateway, told how it ended [default: none] [env: OPENCLAW_SUPERVISE_POST_STOP]
    #[arg(long, value_name = "CMD", help_heading = "Hooks")]
    pub post_stop: Option<OsString>,
    /// How long that command may take [default: 15s] [env: OPENCLAW_SUPERVISE_POST_STOP_TIMEOUT]
    #[arg(long, value_name = "DURATION", help_heading = "Hooks")]
    pub post_stop_timeout: Option<OsString>,

    /// What to do once when the gateway refuses to start (exit 78): doctor = run 'openclaw doctor --fix --yes --non-interactive', which may change its config and state, and start again [default: off] [env: OPENCLAW_SUPERVISE_REPAIR]
    #[arg(long, value_name = "off|doctor", help_heading = "Restart")]
    pub repair: Option<OsString>,

    /// What to do beside a supervisor or a gateway that stays [default: auto = standby as PID 1 and under launchd, else exit] [env: OPENCLAW_SUPERVISE_ON_CONFLICT]
    #[arg(long, value_name = "auto|exit|standby", help_heading = "Conflict")]
    pub on_conflict: Option<OsString>,
    /// What shows that another supervisor lives: its lock, or its heartbeat where locks cannot be trusted [default: auto = by the file system] [env: OPENCLAW_SUPERVISE_LEASE]
    #[arg(long, value_name = "auto|lock|heartbeat", help_heading = "Conflict")]
    pub lease: Option<OsString>,
    /// How long to wait for a holder of the port that does not answer as a gateway [default: 30s] [env: OPENCLAW_SUPERVISE_CONFLICT_TIMEOUT]
    #[arg(long, value_name = "DURATION", help_heading = "Conflict")]
    pub conflict_timeout: Option<OsString>,
    /// Exit code when another gateway has the port or the state [default: 78] [env: OPENCLAW_SUPERVISE_CONFLICT_EXIT_CODE]
    #[arg(long, value_name = "CODE", allow_negative_numbers = true, help_heading = "Conflict")]
    pub conflict_exit_code: Option<OsString>,

    /// Form of the log on stderr [default: text on a terminal, else json] [env: OPENCLAW_SUPERVISE_LOG_FORMAT]
    #[arg(long, value_name = "text|json", help_heading = "Log")]
    pub log_format: Option<OsString>,
    /// Least severe level to log [default: info] [env: OPENCLAW_SUPERVISE_LOG_LEVEL]
    #[arg(long, value_name = "error|warn|info|debug|trace", help_heading = "Log")]
    pub log_level: Option<OsString>,
}
