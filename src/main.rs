//! The program: reads the command line, runs one command, and is the only one that exits.

use openclaw_supervise::cli::{self, Cli, Demo, Verb};
use openclaw_supervise::commands::{self, man::ManError, status::NOT_HEALTHY, terminal::Terminal};
use openclaw_supervise::core::{Report, exit};
use openclaw_supervise::gateway::probe::Prober;
use openclaw_supervise::host::notify::Notifier;
use openclaw_supervise::host::termination_log::TerminationLog;
use openclaw_supervise::host::{clock, log_file, manager, signals, stderr, telemetry};
use openclaw_supervise::platform::{heap, system_calls};
use openclaw_supervise::settings::{
    self, Invocation, ProbeSettings, ProcessContext, ServiceSettings, Settings, Subject, UsageError, UsageErrors,
};
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

/// How long the settings may take to be read before a start is given up: as long as the store may take for the
/// lease.
const START_TIME_MAX: Duration = Duration::from_secs(30);

/// The same for a command that a person waits for.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

/// How often it is looked for a signal that asks to stop meanwhile. Settings take milliseconds.
const SIGNAL_EVERY: Duration = Duration::from_secs(2);

/// Many times what a message takes.
const GUARD_STACK: usize = 128 * 1024;

fn main() -> ExitCode {
    signals::hold();
    heap::share();
    system_calls::prepare();
    let context = ProcessContext::of_this_process();
    let code = match Cli::read(std::env::args_os(), |name| context.variable(name)) {
        Ok(cli) => match resolve(&cli, &context) {
            Ok((invocation, guard)) => invoke(invocation, guard),
            Err(errors) => {
                last_words(&cli, &context).write(errors.exit_code(), &errors.to_string());
                refuse(&errors.to_string(), errors.exit_code())
            }
        },
        Err(error) if error.use_stderr() => {
            let error = UsageErrors::from(UsageError::CommandLine(cli::line(&error)));
            // Of a command that runs beside the supervisor of a container, the kubelet has nothing to show.
            if manager::container().is_some_and(|container| container.ends_with_us) {
                TerminationLog::Auto.write(error.exit_code(), &error.to_string());
            }
            refuse(&error.to_string(), error.exit_code())
        }
        Err(help) => print(&wrapped(&help)),
    };
    flush();
    ExitCode::from(code)
}

fn flush() {
    log_file::flush();
    stderr::flush();
}

/// Where the reason of a failed start goes beside stderr.
fn last_words(cli: &Cli, context: &ProcessContext) -> TerminationLog {
    match cli.verb {
        None | Some(Verb::Run { .. } | Verb::Gateway { .. }) => settings::termination_log(&cli.options, context),
        Some(_) => TerminationLog::Off,
    }
}

/// While it lives, a hang is given up after its time.
type Guard = mpsc::Sender<()>;

/// A look at a path of the settings does not return while its file system hangs, and not even a signal ends it.
fn resolve(cli: &Cli, context: &ProcessContext) -> Result<(Invocation, Guard), UsageErrors> {
    let (guard, answer) = mpsc::channel::<()>();
    let (limit, code) = match cli.verb {
        Some(Verb::Status { .. }) => (ANSWER_TIME_MAX, NOT_HEALTHY),
        None | Some(Verb::Run { .. } | Verb::Gateway { .. }) => (START_TIME_MAX, exit::FAILURE),
        Some(_) => (ANSWER_TIME_MAX, exit::FAILURE),
    };
    let last_words = last_words(cli, context);
    let watch = move || {
        let mut waited = Duration::ZERO;
        while waited < limit && (waited.is_zero() || !signals::is_stop_pending()) {
            match answer.recv_timeout(SIGNAL_EVERY) {
                Err(RecvTimeoutError::Timeout) => waited += SIGNAL_EVERY,
                Ok(()) | Err(RecvTimeoutError::Disconnected) => return,
            }
        }
        let what = hangs("the state, store, configuration or program path", waited);
        last_words.write(code, &what);
        refuse(&format!("openclaw-supervise: {what}"), code);
        end(code);
    };
    // Without the thread it is as it would be without a hang.
    let _unguarded = thread::Builder::new().name("settings".to_owned()).stack_size(GUARD_STACK).spawn(watch);
    Ok((settings::resolve(cli, context)?, guard))
}

fn hangs(what: &str, time: Duration) -> String {
    format!(
        "{what} has not answered for {}s (does its file system hang?), so nothing was done; check the mount, or name another \
         with --state-dir, --store-dir or --config",
        time.as_secs()
    )
}

#[expect(clippy::disallowed_methods, reason = "the main thread is in a system call that does not return")]
fn end(code: u8) -> ! {
    flush();
    std::process::exit(code.into())
}

fn invoke(invocation: Invocation, guard: Guard) -> u8 {
    let out = &mut io::stdout();
    // A supervisor looks at its paths until its loop begins.
    let guard = Some(guard).filter(|_| matches!(invocation, Invocation::Run(_)));
    match invocation {
        Invocation::Run(settings) => run(*settings, guard),
        Invocation::Probe(settings) => probe(&settings),
        Invocation::Status(settings) => ask(&settings.subject, NOT_HEALTHY, commands::status::run(&settings, out)),
        Invocation::Doctor(settings) => ask(&settings.subject, exit::FAILURE, commands::doctor::run(&settings, out)),
        Invocation::Events(settings) => ask(&settings.subject, exit::FAILURE, commands::events::run(&settings, out)),
        Invocation::Explain(settings) => ask(&settings.subject, exit::FAILURE, commands::explain::run(&settings, out)),
        Invocation::Pause(settings) => ask(&settings.subject, exit::FAILURE, commands::pause::run(&settings, out)),
        Invocation::Request(settings) => ask(&settings.subject, exit::FAILURE, commands::ask::run(&settings, out)),
        Invocation::Notify(settings) => ask(&settings.subject, exit::FAILURE, commands::notify::run(&settings, out)),
        Invocation::Metrics(settings) => ask(&settings.subject, NOT_HEALTHY, commands::metrics::run(&settings, out)),
        Invocation::Install(settings) => serve(&settings, commands::install::install),
        Invocation::Uninstall(settings) => serve(&settings, commands::install::uninstall),
        Invocation::Logs(settings) => in_runtime(async move {
            refuse(&format!("openclaw-supervise: error: {}", commands::logs::advice(&settings).await), exit::USAGE)
        }),
        Invocation::Completions(shell) => make(commands::man::completions(shell, out)),
        Invocation::ManPage(verb) => make(commands::man::page(verb.as_deref(), out)),
        Invocation::ManPages(dir) => make(commands::man::pages(&dir)),
        Invocation::Version => print(concat!("openclaw-supervise ", env!("CARGO_PKG_VERSION"), "\n")),
        Invocation::Demo(demo) => show(demo),
        Invocation::DemoGateway(stand_in) => {
            telemetry::install_for_command(tracing::Level::WARN);
            in_runtime(commands::demo::gateway::serve(stand_in))
        }
        Invocation::DemoHelper => commands::demo::gateway::run_helper(),
    }
}

/// `... | head` closes the pipe early, which is not a failure.
fn make(made: Result<(), ManError>) -> u8 {
    match made {
        Ok(()) => exit::OK,
        Err(ManError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => exit::OK,
        Err(error) => refuse(&format!("openclaw-supervise: error: {error}"), error.exit_code()),
    }
}

fn show(demo: Demo) -> u8 {
    telemetry::install_for_command(tracing::Level::WARN);
    in_runtime(async move {
        match commands::demo::run(demo, io::stdout()).await {
            Ok(()) => exit::OK,
            Err(error) => {
                tracing::error!("{error}");
                exit::FAILURE
            }
        }
    })
}

/// A verb that writes or removes a service.
type Serve = fn(&ServiceSettings, &mut io::Stdout) -> Result<u8, commands::install::Error>;

/// A signal ends it, and the programs that it runs, as it does any other program.
fn serve(settings: &ServiceSettings, verb: Serve) -> u8 {
    signals::release();
    telemetry::install_for_command(settings.log.level);
    verb(settings, &mut io::stdout()).unwrap_or_else(|error| {
        tracing::error!("{error}");
        error.exit_code()
    })
}

fn run(settings: Settings, guard: Option<Guard>) -> u8 {
    let (log, last_words) = (settings.log, settings.termination_log.clone());
    telemetry::install(log.format, log.level, settings.log_file.clone());
    in_runtime(async {
        match commands::run::run(settings, move || drop(guard)).await {
            Ok(outcome) => {
                if outcome.code != exit::OK {
                    last_words.write(outcome.code, &outcome.reason);
                }
                outcome.code
            }
            Err(error) => {
                last_words.write(error.exit_code(), &error.to_string());
                let report = Report::SupervisorStopped { exit_code: error.exit_code(), reason: error.to_string() };
                telemetry::Record::new(&report, clock::wall_ms()).emit();
                Notifier::from_environment().notify_status(&error.to_string());
                error.exit_code()
            }
        }
    })
}

fn probe(settings: &ProbeSettings) -> u8 {
    signals::release();
    telemetry::install_for_command(settings.log.level);
    in_runtime(async {
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        let ProbeSettings { question, wait, json, ref store_dir, .. } = *settings;
        let prober = Prober::new(commands::probe::place(settings).await, settings.probe_timeout);
        match commands::probe::run(&prober, store_dir, question, wait, json, &mut io::stdout()).await {
            Ok(true) => exit::OK,
            Ok(false) => exit::FAILURE,
            Err(error) => {
                tracing::error!("cannot write the verdict to stdout: {error}");
                exit::FAILURE
            }
        }
    })
}

/// Runs a command that tells an operator about a supervisor. A signal ends it as it does any other program.
/// `unknown` is the exit code where nothing can be told.
fn ask(subject: &Subject, unknown: u8, command: impl Future<Output = io::Result<u8>>) -> u8 {
    signals::release();
    telemetry::install_for_command(subject.log.level);
    in_runtime(async {
        for warning in &subject.warnings {
            tracing::warn!("{warning}");
        }
        if !commands::store_answers(&subject.store_dir, ANSWER_TIME_MAX).await {
            tracing::error!("{}", hangs("the store directory", ANSWER_TIME_MAX));
            return unknown;
        }
        command.await.unwrap_or_else(|error| {
            tracing::error!("cannot write to stdout: {error}");
            exit::FAILURE
        })
    })
}

/// One thread: the work is waiting, and a second thread would only cost memory and wake-ups.
fn in_runtime(work: impl Future<Output = u8>) -> u8 {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime.block_on(work),
        Err(error) => {
            tracing::error!(
                "cannot set up the event loop: {error}; nothing was started; raise the limit on open files"
            );
            exit::FAILURE
        }
    }
}

/// The help for the terminal that it goes to.
fn wrapped(help: &clap::Error) -> String {
    let terminal = Terminal::of(&io::stdout());
    let args: Vec<_> = std::env::args_os().collect();
    match cli::help(&args, terminal.width()) {
        Some(text) if terminal.has_colour() => text.ansi().to_string(),
        Some(text) => text.to_string(),
        None => help.to_string(),
    }
}

fn print(text: &str) -> u8 {
    // `--help | head` closes the pipe early, which is not a failure.
    let _closed = io::stdout().lock().write_all(text.as_bytes());
    exit::OK
}

/// Reports an invocation that cannot be carried out, on stderr and to the service manager.
fn refuse(message: &str, code: u8) -> u8 {
    let priority = telemetry::priority(tracing::Level::ERROR);
    for line in message.lines() {
        // Where stderr is closed, the service manager alone learns it.
        let _closed = writeln!(io::stderr().lock(), "{priority}{line}");
    }
    Notifier::from_environment().notify_status(message);
    code
}
