//! `status`: supervisor and gateway as they are now, as a sentence and a table.

mod elsewhere;
mod observe;
mod past;
mod sentence;
mod shown;
#[cfg(test)]
mod tests;
mod text;
mod unit;
mod watch;

use super::terminal::Terminal;
use crate::settings::StatusSettings;
pub use shown::NOT_HEALTHY;
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use text::printed;

/// Prints the status and returns the exit code.
pub async fn run(settings: &StatusSettings, out: &mut (impl io::Write + IsTerminal + AsFd)) -> io::Result<u8> {
    let terminal = Terminal::of(out);
    let (settings, shown) = Box::pin(elsewhere::find(settings, &terminal)).await;
    if settings.watch {
        return watch::run(&settings, shown, out).await;
    }
    match writeln!(out, "{}", printed(&shown, settings.json, &terminal)?).and_then(|()| out.flush()) {
        // A closed pipe still gets the exit code.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error),
        _ => Ok(shown.health.exit_code()),
    }
}
