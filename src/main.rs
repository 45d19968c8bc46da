//! The program: reads the command line, runs one command, and is the only one that exits.

use openclaw_supervise::cli::Demo;
use openclaw_supervise::commands;
use openclaw_supervise::core::{Report, exit};
use openclaw_supervise::gateway::probe::Prober;
use openclaw_supervise::host::notify::Notifier;
use openclaw_supervise::host::{clock, signals, stderr, telemetry};
use openclaw_supervise::platform::heap;
use openclaw_supervise::settings::{
    self, Invocation, LogSettings, ProbeSettings, ServiceSettings, Settings, Subject, World,
};
use std::fmt::Display;
use std::io::{self, Write};
use std::process::ExitCode;

fn main() -> ExitCode {
    signals::hold();
    heap::share();
    let code = match settings::read(std::env::args_os(), &World::of_process()) {
        Ok(Invocation::Print(text)) => print(&text),
        Ok(Invocation::Run(settings)) => run(*settings),
        Ok(Invocation::Probe(settings)) => probe(&settings),
        Ok(Invocation::Status(settings)) => ask(&settings.subject, commands::status::run(&settings, &mut io::stdout())),
        Ok(Invocation::Doctor(settings)) => ask(&settings.subject, commands::doctor::run(&settings, &mut io::stdout())),
        Ok(Invocation::Events(settings)) => ask(&settings.subject, commands::events::run(&settings, &mut io::stdout())),
        Ok(Invocation::Ask(settings)) => ask(&settings.subject, commands::ask::run(&settings, &mut io::stdout())),
        Ok(Invocation::Install(settings)) => serve(&settings, commands::install::install),
        Ok(Invocation::Uninstall(settings)) => serve(&settings, commands::install::uninstall),
        Ok(Invocation::Demo(demo)) => show(demo),
        Ok(Invocation::StandIn(stand_in)) => in_runtime(QUIET, commands::demo::gateway::serve(stand_in)),
        Ok(Invocation::Helper) => commands::demo::gateway::help(),
        Err(mistakes) => {
            complain(&mistakes);
            Notifier::from_environment().notify_status(&mistakes.to_string());
            mistakes.exit_code()
        }
    };
    stderr::flush();
    ExitCode::from(code)
}

/// For commands that have more to show than events.
const QUIET: LogSettings = LogSettings { format: telemetry::Format::Text, level: tracing::Level::WARN };

fn show(demo: Demo) -> u8 {
    in_runtime(QUIET, async move {
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

/// A signal ends it, and the programs that it calls, as any other program.
fn serve(settings: &ServiceSettings, verb: Serve) -> u8 {
    signals::release();
    telemetry::install(settings.log.format, settings.log.level);
    verb(settings, &mut io::stdout()).unwrap_or_else(|error| {
        tracing::error!("{error}");
        error.exit_code()
    })
}

fn run(settings: Settings) -> u8 {
    let log = settings.log;
    in_runtime(log, async {
        match commands::run::run(settings).await {
            Ok(outcome) => outcome.code,
            Err(error) => {
                let report = Report::SupervisorStopped { exit_code: exit::FAILURE, reason: error.to_string() };
                telemetry::Record::new(&report, clock::wall_ms()).emit();
                Notifier::from_environment().notify_status(&error.to_string());
                exit::FAILURE
            }
        }
    })
}

fn probe(settings: &ProbeSettings) -> u8 {
    signals::release();
    let log = settings.log;
    in_runtime(log, async {
        for warning in &settings.warnings {
            tracing::warn!("{warning}");
        }
        let ProbeSettings { question, wait, json, ref store_dir, .. } = *settings;
        let prober = Prober::new(commands::probe::place(settings).await, settings.probe_timeout);
        match commands::probe::run(&prober, store_dir, question, wait, json, &mut io::stdout()).await {
            Ok(true) => exit::OK,
            Ok(false) => exit::FAILURE,
            Err(error) => {
                tracing::error!("cannot write the verdict to stdout: {error}; give it a place with room");
                exit::FAILURE
            }
        }
    })
}

/// Runs a command that speaks to a person about a supervisor. A signal ends it as it does any other program.
fn ask(subject: &Subject, command: impl Future<Output = io::Result<u8>>) -> u8 {
    signals::release();
    in_runtime(subject.log, async {
        for warning in &subject.warnings {
            tracing::warn!("{warning}");
        }
        command.await.unwrap_or_else(|error| {
            tracing::error!("cannot write to stdout: {error}; give it a place with room");
            exit::FAILURE
        })
    })
}

/// One thread: the work is waiting, and a second one would only cost memory and wake-ups.
fn in_runtime(log: LogSettings, work: impl Future<Output = u8>) -> u8 {
    telemetry::install(log.format, log.level);
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

fn print(text: &str) -> u8 {
    // `--help | head` closes the pipe early, and that is no failure.
    let _closed = io::stdout().lock().write_all(text.as_bytes());
    exit::OK
}

fn complain(error: &dyn Display) {
    // Where stderr is closed nobody can be told.
    let _closed = writeln!(io::stderr().lock(), "{error}");
}
