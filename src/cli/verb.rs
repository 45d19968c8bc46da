//! The verbs and the options of each.

use super::options::Options;
use super::time::{Since, since};
use super::value::{
    DecisionSubject, decision_subject, duration, not_blank, pause_period, positive_duration, profile, severity,
};
use crate::core::report::Severity;
use clap::{Args, Subcommand, ValueEnum, ValueHint};
use std::ffi::OsString;
use std::time::Duration;

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
    /// Probe the gateway, once or until it is as asked
    #[command(args_override_self = true)]
    Probe {
        #[command(flatten)]
        question: ProbeFlags,
        /// Repeat the probe until it succeeds, for at most this long [default: probe once]
        #[arg(long, value_name = "DURATION", value_parser = duration)]
        wait: Option<Duration>,
        /// Print the verdict as one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Show what is running, what happened last and what comes next
    #[command(args_override_self = true)]
    Status {
        /// Show it again and again: redrawn on a terminal, else one block for each change
        #[arg(long)]
        watch: bool,
        /// Print one JSON object, with --watch one for each change
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Check the installation, and say what to change
    #[command(args_override_self = true)]
    Doctor {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        /// Mend what is ours and safe (units that `install` wrote, a drop-in of our own, a stale socket, the mode of the store), then check again
        #[arg(long)]
        fix: bool,
        /// With --fix: show what would be changed, and change nothing
        #[arg(long, requires = "fix")]
        dry_run: bool,
        #[command(flatten)]
        options: Options,
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
        #[arg(long, value_name = "NAME", value_parser = profile)]
        profile: Option<String>,
    },
    /// Show the recorded events, oldest first
    #[command(args_override_self = true)]
    Events {
        /// Print one JSON object per line
        #[arg(long)]
        json: bool,
        /// Show the last N events [default: 50, or all with --since]
        #[arg(short = 'n', long, value_name = "N")]
        lines: Option<u32>,
        /// Show events from this time on: 2h (ago), 02:14, yesterday, '2026-11-30 02:14', or RFC 3339
        #[arg(long, value_name = "TIME", value_parser = since, allow_hyphen_values = true)]
        since: Option<Since>,
        /// Show events of this level and above: warn for what went wrong, error for what needs a person
        #[arg(long, value_name = "info|warn|error", value_parser = severity)]
        level: Option<Severity>,
        /// Keep printing new events until interrupted
        #[arg(short = 'f', long)]
        follow: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Explain why a gateway was restarted, ended or refused: the rule, its inputs, the last output, what came next
    #[command(args_override_self = true)]
    Explain {
        /// last = the last such decision, incident = the last hang or memory limit, a generation, or an incident's file
        #[arg(value_name = "last|incident|GENERATION|FILE", default_value = "last", value_parser = decision_subject)]
        subject: DecisionSubject,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Restart the gateway and wait until it is up
    #[command(args_override_self = true)]
    Restart {
        /// Restart now, past the pace of restarts on request and the wait for unclean boots to age
        #[arg(long)]
        force: bool,
        /// Wait this long for the new gateway [default: --stop-timeout + --startup-timeout + the hooks' timeouts + 30s]
        #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
        timeout: Option<Duration>,
        #[command(flatten)]
        options: Options,
    },
    /// Stop the gateway and the supervisor, and wait until both have exited
    #[command(args_override_self = true)]
    Stop {
        /// Wait this long for the exit [default: --stop-timeout + --post-stop-timeout + 30s]
        #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
        timeout: Option<Duration>,
        #[command(flatten)]
        options: Options,
    },
    /// Start the gateway now instead of waiting for the next scheduled attempt
    #[command(args_override_self = true)]
    RetryNow {
        /// Start now, past the wait for unclean boots to age
        #[arg(long)]
        force: bool,
        /// Wait this long for the answer [default: 10s]
        #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
        timeout: Option<Duration>,
        #[command(flatten)]
        options: Options,
    },
    /// Start the gateway now: like retry-now if a supervisor runs, else through its service
    #[command(args_override_self = true, visible_alias = "start")]
    StartNow {
        /// Start now, past the wait for unclean boots to age
        #[arg(long)]
        force: bool,
        /// Wait this long for the answer [default: 10s]
        #[arg(long, value_name = "DURATION", value_parser = positive_duration)]
        timeout: Option<Duration>,
        #[command(flatten)]
        options: Options,
    },
    /// Neither replace nor start the gateway for a while, to work on it by hand; stops work as ever
    #[command(args_override_self = true)]
    Pause {
        /// How long, at most 24h; it ends by itself
        #[arg(long = "for", value_name = "DURATION", value_parser = pause_period, default_value = "20m")]
        period: Duration,
        /// Why, for those who look
        #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
        reason: String,
        #[command(flatten)]
        options: Options,
    },
    /// End a pause
    #[command(args_override_self = true)]
    Resume {
        #[command(flatten)]
        options: Options,
    },
    /// Send a message through the configured notification channels
    #[command(args_override_self = true)]
    Notify {
        /// Send a test message, and show what came back
        #[arg(long, required_unless_present = "failed_unit")]
        test: bool,
        /// Tell that this systemd unit has failed, unless the supervisor in it has told that itself
        #[arg(long, value_name = "UNIT", conflicts_with = "test")]
        failed_unit: Option<String>,
        #[command(flatten)]
        options: Options,
    },
    /// Print the metrics of the running supervisor as text for Prometheus
    #[command(args_override_self = true)]
    Metrics {
        /// Print the older text format, as --metrics-file writes it and promtool checks it
        #[arg(long)]
        prometheus: bool,
        #[command(flatten)]
        options: Options,
    },
    /// Demonstrate supervision on a stand-in gateway: kill, freeze, restart and stop it
    Demo(Demo),
    /// Print the completions for a shell
    Completions {
        /// Shell that reads them
        shell: CompletionShell,
    },
    /// Print the manual page of the program or of a verb
    Man {
        /// Verb to print the page of [default: the program's own page]
        #[arg(conflicts_with = "dir")]
        verb: Option<String>,
        /// Write all pages into this directory instead
        #[arg(long, value_name = "DIR", value_parser = not_blank(), value_hint = ValueHint::DirPath)]
        dir: Option<OsString>,
    },
    /// Print the version
    Version,
    /// Say where the log is
    #[command(hide = true, alias = "log", disable_help_flag = true)]
    Logs {
        #[command(flatten)]
        options: Options,
        /// Options of journalctl(1) and the like
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        words: Vec<OsString>,
    },
    /// Run the gateway that `demo` supervises
    #[command(hide = true)]
    DemoGateway(StandIn),
    /// Run a child process of that gateway
    #[command(hide = true)]
    DemoHelper,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum CompletionShell {
    Bash,
    Zsh,
    Fish,
}

#[derive(Debug, Clone, Copy, Args)]
#[group(multiple = false)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
pub struct ProbeFlags {
    /// Is it serving? [default]
    #[arg(long)]
    pub live: bool,
    /// Is it ready for work? A channel that cannot connect keeps it unready
    #[arg(long)]
    pub ready: bool,
    /// Has it finished starting?
    #[arg(long)]
    pub started: bool,
    /// Is a supervisor running? For the liveness probe of a container: a supervisor restarts a gateway that is down
    #[arg(long)]
    pub supervised: bool,
}

#[derive(Debug, Clone, Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is one flag of the command line")]
pub struct ServiceOptions {
    /// User service [default, except for root]
    #[arg(long, conflicts_with_all = ["system", "run_as"])]
    pub user: bool,
    /// System service [default for root]
    #[arg(long)]
    pub system: bool,
    /// Account that a system service runs as [default: the user who called sudo, else the current one]
    #[arg(long, value_name = "USER")]
    pub run_as: Option<OsString>,
    /// Show what would be written and run, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Replace or remove a file that `install` did not write, or that was edited since
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
pub struct Demo {
    /// Run without pauses, for scripts
    #[arg(long)]
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
