//! `demo`: a real supervisor at work before a person's eyes.
//!
//! The director starts `openclaw-supervise run` as a person would, does to it and to its gateway what happens to them in
//! life, and shows what the supervisor logs. Only the gateway is a stand-in.

mod director;
pub mod gateway;
mod screen;
mod stage;
mod supervisor;

use crate::cli::Demo;
use crate::host::clock;
use crate::host::signals::{Signal, Signals};
use director::{Director, mark};
use nix::sys::signal::Signal as Number;
use screen::{Row, Screen};
use stage::Stage;
use std::io::{self, IsTerminal, Write};
use std::time::Duration;
use supervisor::{News, Supervisor};

/// How long one step may take. A slow machine needs a fraction of it.
const STEP_WITHIN: Duration = Duration::from_secs(12);

/// Why the demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// No signal handlers.
    #[error("cannot install the signal handlers: {0}; nothing was started; raise the limit on open files")]
    Signals(io::Error),
    /// No scratch directory, or no port.
    #[error("cannot set the stage for the demo: {0}; check TMPDIR and that 127.0.0.1 has a free port")]
    Stage(io::Error),
    /// No supervisor.
    #[error("cannot start the supervisor: {0}; check that this program's file is still where it was")]
    Start(io::Error),
    /// The log does not name a gateway that lives.
    #[error("the supervisor names no gateway of its own: {0:?}; please report this")]
    Gateway(String),
    /// The director could not do what it wanted.
    #[error("cannot {0}: {1}; run the demo again")]
    Act(&'static str, io::Error),
    /// An event that should have come.
    #[error("the step {step} did not happen within {}s: no {event}; run the demo again on a quieter machine", STEP_WITHIN.as_secs())]
    Missing {
        /// Of which chapter.
        step: &'static str,
        /// Which one.
        event: &'static str,
    },
    /// The supervisor was gone too early, or did not exit as it should have.
    #[error("the supervisor ended with {code} in the step {step}, before {event}; its last lines above say why")]
    Ended {
        /// Of which chapter.
        step: &'static str,
        /// What was waited for.
        event: &'static str,
        /// Its exit code; 128 and more stand for a signal.
        code: i32,
    },
    /// The demo's own proof failed.
    #[error("{0}; please report this")]
    Unproven(String),
    /// Nobody reads any more.
    #[error("cannot show the demo: {0}")]
    Screen(#[from] io::Error),
    /// Something of the demo is left.
    #[error("cannot clear up after the demo: {0}")]
    Clear(io::Error),
}

/// How the demo's time is spent.
#[derive(Debug, Clone, Copy)]
struct Pace {
    /// Before something is done, and after what followed from it.
    read: Duration,
    digest: Duration,
    boot: Duration,
    drain: Duration,
}

impl Pace {
    fn of(demo: Demo) -> Self {
        let ms = Duration::from_millis;
        if demo.fast {
            Self { read: ms(0), digest: ms(0), boot: ms(200), drain: ms(100) }
        } else {
            Self { read: ms(1600), digest: ms(800), boot: ms(1500), drain: ms(700) }
        }
    }
}

/// Plays the demo to `out` and clears up, however it ends: by itself, by a signal, by a step that did not happen.
pub async fn run(demo: Demo, out: impl Write + IsTerminal) -> Result<(), Trouble> {
    let mut signals = Signals::install().map_err(Trouble::Signals)?;
    let mut stage = Stage::set().map_err(Trouble::Stage)?;
    let colour = out.is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut screen = Screen::new(out, colour, clock::now());
    let played = {
        let mut director = Director::new(&mut screen, &mut stage, Pace::of(demo));
        tokio::select! {
            biased;
            () = stop_requested(&mut signals) => None,
            played = director.play() => Some(played),
        }
    };
    if played.is_none() {
        // The reader may be gone as well; that changes nothing.
        let _closed = screen.closing(true, "Stopped by you; ending everything.");
    }
    end(&mut stage, &mut signals, &mut screen).await;
    let left = stage.clear().await.map_err(Trouble::Clear)?;
    if left > 0 {
        return Err(Trouble::Unproven(format!("{left} processes of the demo survived SIGKILL")));
    }
    match played {
        Some(Err(Trouble::Screen(error))) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Some(Err(trouble)) => Err(trouble),
        Some(Ok(rows)) => readable(show_proof(&mut screen, &rows)),
        None => readable(screen.closing(true, "Processes left: 0. Scratch directory: removed.")),
    }
}

/// A reader that went away is no failure.
fn readable(shown: io::Result<()>) -> Result<(), Trouble> {
    match shown {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

fn show_proof(screen: &mut Screen<impl Write>, rows: &[Row]) -> io::Result<()> {
    screen.table(rows)?;
    screen.closing(true, "Processes left: 0, counted in /proc. Scratch directory: removed.")
}

/// Any signal that asks for something ends the demo.
async fn stop_requested(signals: &mut Signals) {
    while !matches!(signals.next().await, Some(Signal::Operator { .. }) | None) {}
}

/// Asks every supervisor to stop; one more signal from the person skips the drain, as it would in life.
async fn end(stage: &mut Stage, signals: &mut Signals, screen: &mut Screen<impl Write>) {
    let pids: Vec<i32> = stage.supervisors.iter().filter(|one| !one.has_ended()).map(Supervisor::pid).collect();
    let ask = |stage: &Stage| {
        for supervisor in &stage.supervisors {
            // One that cannot be asked is killed later.
            let _refused = supervisor.signal(Number::SIGTERM);
        }
    };
    if pids.is_empty() {
        return;
    }
    ask(stage);
    loop {
        let show = |index: usize, news: &News| {
            if let News::Said(heard) = news {
                let _closed = screen.event(heard, mark(index));
            }
        };
        tokio::select! {
            biased;
            () = stage.wait_for_all(show) => return,
            () = stop_requested(signals) => {}
        }
        ask(stage);
    }
}
