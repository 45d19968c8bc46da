//! `demo`: shows a real supervisor at work.
//!
//! A script starts `openclaw-supervise run`, crashes, freezes, restarts and stops its gateway, and shows what the supervisor
//! logs. Only the gateway is a stand-in.

mod error;
pub mod gateway;
mod sandbox;
mod script;
mod supervisor;
mod terminal_ui;

pub use error::DemoError;

use super::terminal::Terminal;
use crate::cli::Demo;
use crate::host::clock;
use crate::host::signals::{Signal, Signals};
use nix::sys::signal::Signal as Number;
use sandbox::Sandbox;
use script::{Script, prefix};
use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use supervisor::SupervisorEvent;
use terminal_ui::{TerminalUi, Timing};

/// Runs the demo and cleans up, whether it finishes, fails or is stopped by a signal.
pub async fn run(demo: Demo, out: impl Write + IsTerminal + AsFd) -> Result<(), DemoError> {
    let mut signals = Signals::install().map_err(DemoError::Signals)?;
    let mut sandbox = Sandbox::create().map_err(DemoError::Sandbox)?;
    let terminal = Terminal::of(&out);
    let mut ui = TerminalUi::new(out, terminal, clock::now());
    let played = {
        let mut script = Script::new(&mut ui, &mut sandbox, demo.fast);
        tokio::select! {
            biased;
            () = stop_requested(&mut signals) => None,
            played = script.play() => Some(played),
        }
    };
    if played.is_none() {
        // Stdout may be closed as well.
        let _closed = ui.closing(true, "Stopped by you; killing everything.");
    }
    stop_supervisors(&mut sandbox, &mut signals, &mut ui).await;
    let left = sandbox.clean_up().await.map_err(DemoError::Cleanup)?;
    if left > 0 {
        return Err(DemoError::Unproven(format!("{left} processes of the demo survived SIGKILL")));
    }
    match played {
        Some(Err(DemoError::Output(error))) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Some(Err(error)) => Err(error),
        Some(Ok(timings)) => ignore_closed_pipe(show_result(&mut ui, &timings)),
        None => ignore_closed_pipe(ui.closing(true, "Processes left: 0. Scratch directory: removed.")),
    }
}

fn ignore_closed_pipe(shown: io::Result<()>) -> Result<(), DemoError> {
    match shown {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn show_result(ui: &mut TerminalUi<impl Write>, timings: &[Timing]) -> io::Result<()> {
    ui.table(timings)?;
    ui.closing(true, "Processes left: 0, counted in /proc. Scratch directory: removed.")
}

/// Any signal but SIGCHLD.
async fn stop_requested(signals: &mut Signals) {
    while !matches!(signals.next().await, Some(Signal::Operator { .. }) | None) {}
}

/// Stops every supervisor. Another signal skips the drain, as it does with a real one.
async fn stop_supervisors(sandbox: &mut Sandbox, signals: &mut Signals, ui: &mut TerminalUi<impl Write>) {
    while sandbox.supervisors.iter().any(|supervisor| !supervisor.has_ended()) {
        for supervisor in &sandbox.supervisors {
            // One that cannot be signalled is killed later.
            let _failed = supervisor.signal(Number::SIGTERM);
        }
        let show = |index: usize, event: &SupervisorEvent| {
            if let SupervisorEvent::Logged(line) = event {
                let _closed = ui.event(line, prefix(index));
            }
        };
        tokio::select! {
            biased;
            () = sandbox.wait_for_all(show) => return,
            () = stop_requested(signals) => {}
        }
    }
}
