//! The command line as it was typed. clap alone parses it; [`crate::settings`] gives it its meaning.
//!
//! An option counts after the verb, then before it, then from its variable. clap's own `env` knows one level of options
//! and the environment of this process; ours has two, and `doctor` reads the units of other processes. So what was typed
//! and the variables of what was not are parsed once more as one row of options, see [`Cli::read`].

mod value;

pub use value::{Host, MemoryMax, StopTimeout, is_profile};

use crate::core::policy::OnStoreLost;
use crate::host::telemetry::Format;
use crate::store::BasisChoice;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Args, Command, CommandFactory, FromArgMatches, Parser, Subcommand, ValueEnum, value_parser};
use std::ffi::OsString;
use std::time::Duration;
use value::{duration, host, memory_max, not_blank, positive_duration, profile, stop_timeout};

/// Keep exactly one OpenClaw gateway alive
#[derive(Debug, Clone, Parser)]
#[command(
    name = "openclaw-supervise",
    version,
    args_override_self = true,
    disable_help_subcommand = true,
    subcommand_value_name = "VERB",
    subcommand_help_heading = "Verbs",
    override_usage = "openclaw-supervise [OPTIONS] [VERB]\n       openclaw-supervise [OPTIONS] [run] -- COMMAND [ARG]...",
    after_help = "Without a verb: run. Durations: 500ms, 30s, 5m, 1h. An empty variable counts as unset."
)]
pub struct Cli {
    #[command(flatten)]
    pub options: Options,
    #[command(subcommand)]
    pub verb: Option<Verb>,
    /// The options as they were typed, for a service that is to be run with them: `--port`, `18789`.
    #[arg(skip)]
    pub typed: Vec<(String, OsString)>,
}

#[derive(Debug, Clone, Subcommand)]
#[command(defer = true)] // each has a table of all options, and one of them is needed
pub enum Verb {
    /// Supervise a gateway [default verb]
    #[command(args_override_self = true)]
    Run {
        #[command(flatten)]
        options: Options,
        /// Command of the gateway [default: openclaw gateway run, with openclaw from PATH, and with --port if that is given]
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Supervise `openclaw gateway ARG...`, as the --wrapper of an OpenClaw service does
    #[command(disable_help_flag = true)]
    Gateway {
        /// Arguments for the gateway, passed on unread; options of the supervisor go before the verb
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "ARG")]
        args: Vec<OsString>,
    },
    /// Probe the gateway once; exit 0 if it is as asked, else 1
    #[command(args_override_self = true)]
    Probe {
        #[command(flatten)]
        options: Options,
        #[command(flatten)]
        question: ProbeFlags,
        /// Repeat the probe until it succeeds, for at most this long [default: probe once]
        #[arg(long, value_name = "DURATION", value_parser = duration, help_heading = "Probe")]
        wait: Option<Duration>,
        /// Print the verdict as one JSON object
        #[arg(long, help_heading = "Probe")]
        json: bool,
    },
    /// Show what is running, what happened last and what comes next; exit 0 if healthy, 3 if not running, else 4
    #[command(args_override_self = true)]
    Status {
        #[command(flatten)]
        options: Options,
        /// Print one JSON object
        #[arg(long, help_heading = "Status")]
        json: bool,
    },
    /// Check the installation; exit 1 if any check fails
    #[command(args_override_self = true)]
    Doctor {
        #[command(flatten)]
        options: Options,
        /// Print one JSON object
        #[arg(long, help_heading = "Doctor")]
        json: bool,
    },
    /// Install, enable and start the service
    #[command(args_override_self = true)]
    Install {
        #[command(flatten)]
        service: ServiceOptions,
        #[command(flatten)]
        options: Options,
        /// Command of the gateway, as for `run`
        #[arg(last = true, value_name = "COMMAND")]
        command: Vec<OsString>,
    },
    /// Stop, disable and remove the service
    #[command(args_override_self = true)]
    Uninstall {
        #[command(flatten)]
        service: ServiceOptions,
        /// Profile that the service was installed with
        #[arg(long, value_name = "NAME", value_parser = profile, help_heading = "Service")]
        profile: Option<String>,
    },
    /// Show the recorded events, oldest first
    #[command(args_override_self = true)]
    Events {
        #[command(flatten)]
        options: Options,
        /// Print one JSON object per line
        #[arg(long, help_heading = "Events")]
        json: bool,
        /// Show the last N events
        #[arg(short = 'n', value_name = "N", default_value_t = 50, help_heading = "Events")]
        count: u32,
        /// Keep printing new events until interrupted
        #[arg(long, help_heading = "Events")]
        follow: bool,
    },
    /// Restart the gateway and wait until it is up
    #[command(args_override_self = true)]
    Restart {
        #[command(flatten)]
        options: Options,
        /// Wait this long for the new gateway [default: --stop-timeout + --startup-timeout + the hooks' timeouts + 30s]
        #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Request")]
        timeout: Option<Duration>,
    },
    /// Stop the gateway and the supervisor, and wait until both have exited
    #[command(args_override_self = true)]
    Stop {
        #[command(flatten)]
        options: Options,
        /// Wait this long for the exit [default: --stop-timeout + --post-stop-timeout + 30s]
        #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Request")]
        timeout: Option<Duration>,
    },
    /// Start the gateway now instead of waiting for the next scheduled attempt
    #[command(args_override_self = true)]
    RetryNow {
        #[command(flatten)]
        options: Options,
        /// Wait this long for the answer [default: 10s]
        #[arg(long, value_name = "DURATION", value_parser = positive_duration, help_heading = "Request")]
        timeout: Option<Duration>,
    },
    /// Demonstrate supervision on a stand-in gateway: kill, freeze, restart and stop it
    Demo(Demo),
    /// Run the gateway that `demo` supervises
    #[command(hide = true)]
    DemoGateway(StandIn),
    /// Run a child process of that gateway
    #[command(hide = true)]
    DemoHelper,
}

#[derive(Debug, Clone, Copy, Args)]
#[group(multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
pub struct ProbeFlags {
    /// Is it serving? [default]
    #[arg(long, help_heading = "Probe")]
    pub live: bool,
    /// Is it ready for work? A channel that cannot connect keeps it unready
    #[arg(long, help_heading = "Probe")]
    pub ready: bool,
    /// Has it finished starting?
    #[arg(long, help_heading = "Probe")]
    pub started: bool,
    /// Is a supervisor running? For the liveness probe of a container: a supervisor restarts a gateway that is down
    #[arg(long, help_heading = "Probe")]
    pub supervised: bool,
}

#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
pub struct ServiceOptions {
    /// User service [default, except for root]
    #[arg(long, conflicts_with_all = ["system", "run_as"], help_heading = "Service")]
    pub user: bool,
    /// System service [default for root]
    #[arg(long, help_heading = "Service")]
    pub system: bool,
    /// Account that a system service runs as [default: the user who called sudo, else the current one]
    #[arg(long, value_name = "USER", help_heading = "Service")]
    pub run_as: Option<OsString>,
    /// Show what would be written and run, and change nothing
    #[arg(long, help_heading = "Service")]
    pub dry_run: bool,
    /// Replace or remove a file that `install` did not write, or that was edited since
    #[arg(long, help_heading = "Service")]
    pub force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct Demo {
    /// Run without pauses, for scripts
    #[arg(long, help_heading = "Demo")]
    pub fast: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct StandIn {
    /// Port to listen on
    #[arg(long)]
    pub port: u16,
    /// Report "starting" for this long
    #[arg(long, value_parser = duration)]
    pub boot: Duration,
    /// Report "draining" for this long
    #[arg(long, value_parser = duration)]
    pub drain: Duration,
}

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

// The options that stand before or after a verb; their defaults are those of `core::Policy`. A doc comment here would
// replace the sentence of each verb in its help.
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
    #[arg(long, value_name = "DIR", value_parser = not_blank(), help_heading = "Gateway")]
    pub state_dir: Option<OsString>,
    /// Config file of the gateway [default: <state-dir>/openclaw.json] [env: OPENCLAW_CONFIG_PATH]
    #[arg(long, value_name = "FILE", value_parser = not_blank(), help_heading = "Gateway")]
    pub config: Option<OsString>,
    /// Profile of the gateway, with its state in ~/.openclaw-NAME and its own port [default: none] [env: OPENCLAW_PROFILE, for the port only]
    #[arg(long, value_name = "NAME", value_parser = profile, help_heading = "Gateway")]
    pub profile: Option<String>,
    /// Directory of the supervisor's own records [default: <state-dir>/supervise] [env: OPENCLAW_SUPERVISE_STORE_DIR]
    #[arg(long, value_name = "DIR", value_parser = not_blank(), help_heading = "Gateway")]
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

    /// Format of the log on stderr [default: text on a terminal, else json] [env: OPENCLAW_SUPERVISE_LOG_FORMAT]
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
}

/// Options with a variable of the gateway's own, of a lower rank, see `settings::paths` and `settings::port`.
const WITHOUT_VARIABLE: [&str; 4] = ["port", "state-dir", "config", "profile"];

impl Cli {
    /// Parses a command line, the program's name first, and the variables of the options that were not typed.
    /// `variable` gives `None` for one that is unset or empty.
    pub fn read(
        args: impl IntoIterator<Item = OsString>,
        variable: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, clap::Error> {
        let mut args: Vec<OsString> = args.into_iter().collect();
        name_the_verb(&mut args);
        let matches = Self::command().try_get_matches_from(&args)?;
        let mut cli = Self::from_arg_matches(&matches)?;
        if let Some(Verb::Gateway { args: of_gateway }) = &mut cli.verb {
            restore_hyphens(of_gateway, &args);
        }
        let verb = matches.subcommand().map(|(_, verb)| verb);
        // The demo is to be the same everywhere.
        let is_demo = matches!(cli.verb, Some(Verb::Demo(_) | Verb::DemoGateway(_) | Verb::DemoHelper));
        let command = Options::augment_args(Command::new("openclaw-supervise").no_binary_name(true));
        let mut words = Vec::new();
        for option in command.get_arguments() {
            let (id, Some(flag)) = (option.get_id().as_str(), option.get_long()) else { continue };
            if let Some(value) = verb.and_then(|verb| raw(verb, id)).or_else(|| raw(&matches, id)) {
                words.push(word(flag, &value));
                cli.typed.push((format!("--{flag}"), value));
            } else if !is_demo
                && !WITHOUT_VARIABLE.contains(&flag)
                && let Some(value) = variable(&variable_of(flag))
            {
                words.push(word(flag, &value));
            }
        }
        // What was typed has been parsed before, so an error is that of a variable.
        let matches = command.try_get_matches_from(words).map_err(name_the_variable)?;
        cli.options = Options::from_arg_matches(&matches)?;
        Ok(cli)
    }
}

/// What is wrong, and the nearest spelling, in one line: the log of a service has one record a line.
#[must_use]
pub fn line(error: &clap::Error) -> String {
    let text = error.to_string();
    // Below that are the usage and where to look for help.
    let lines =
        text.lines().take_while(|line| !line.starts_with("Usage:") && !line.starts_with("For more information"));
    // Of what is no option for us, clap says how to make it a word of COMMAND.
    let parts = lines.map(str::trim).filter(|line| !line.is_empty() && !line.contains("as a value, use '--"));
    let mut parts: Vec<_> = parts.map(|part| part.trim_start_matches("error: ").trim_start_matches("tip: ")).collect();
    let is_unknown = matches!(error.kind(), ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand);
    if is_unknown && parts.len() < 2 {
        parts.push("see --help");
    }
    parts.join("; ")
}

/// A COMMAND without a verb is that of `run`. With a COMMAND of the program's own, clap would no longer tell which verb a
/// mistyped one is similar to.
fn name_the_verb(args: &mut Vec<OsString>) {
    let Some(end) = args.iter().position(|word| word == "--") else { return };
    let before = args.get(..end).unwrap_or_default();
    // A parse takes half a millisecond, and the verb is nearly always there.
    if !before.iter().any(|word| word == "run") && Cli::try_parse_from(before).is_ok_and(|cli| cli.verb.is_none()) {
        args.insert(end, OsString::from("run"));
    }
}

/// clap swallows a `--` directly behind `gateway`, where it belongs to the gateway.
fn restore_hyphens(of_gateway: &mut Vec<OsString>, args: &[OsString]) {
    let before = args.len().checked_sub(of_gateway.len() + 1).and_then(|at| args.get(at));
    if before.is_some_and(|before| before == "--") {
        of_gateway.insert(0, OsString::from("--"));
    }
}

/// The value of an option as it was typed last. Some verbs do not have it.
fn raw(matches: &ArgMatches, id: &str) -> Option<OsString> {
    matches.try_get_raw(id).ok().flatten()?.next_back().map(OsString::from)
}

fn word(flag: &str, value: &OsString) -> OsString {
    let mut word = OsString::from(format!("--{flag}="));
    word.push(value);
    word
}

/// `probe-timeout` is `OPENCLAW_SUPERVISE_PROBE_TIMEOUT`.
fn variable_of(flag: &str) -> String {
    format!("OPENCLAW_SUPERVISE_{}", flag.to_ascii_uppercase().replace('-', "_"))
}

/// clap knows nothing of variables, and takes their options for typed ones.
fn name_the_variable(mut error: clap::Error) -> clap::Error {
    if let Some(ContextValue::String(option)) = error.get(ContextKind::InvalidArg) {
        let flag = option.trim_start_matches('-').split(' ').next().unwrap_or_default();
        let tip = format!("the value comes from the environment variable {}", variable_of(flag));
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    error
}
