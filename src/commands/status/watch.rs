//! `status --watch`: redrawn on a terminal; in a pipe a block, or with `--json` a line, for each change.

use super::observe::{EarlierLook, observe};
use super::shown::{Shown, UnitShown};
use super::text::printed;
use crate::commands::terminal::{Style, Terminal};
use crate::core::exit;
use crate::settings::StatusSettings;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::time::Duration;
use tokio::time::sleep;

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How many looks the state of the unit is good for: it costs a process.
const UNIT_LOOKS: u32 = 5;

/// Shows it until the reader is gone. A signal ends it as it does any other program.
pub(super) async fn run(
    settings: &StatusSettings,
    mut shown: Shown,
    out: &mut (impl io::Write + IsTerminal + AsFd),
) -> io::Result<u8> {
    let name = shown.found.first().map(|found| found.name.clone());
    let mut told = None;
    for look in 1_u32.. {
        // The window may have another size by now.
        let terminal = Terminal::of(out);
        if let Err(error) = show(&shown, settings, &terminal, &mut told, out) {
            return if error.kind() == io::ErrorKind::BrokenPipe { Ok(shown.health.exit_code()) } else { Err(error) };
        }
        sleep(LOOK_EVERY).await;
        if is_reader_gone(out) {
            return Ok(shown.health.exit_code());
        }
        let unit = shown.unit.take().filter(|_| look % UNIT_LOOKS != 0);
        let (known, found) =
            (EarlierLook { unit, exit: shown.last.past.exit.take() }, std::mem::take(&mut shown.found));
        shown = observe(settings, &terminal, &known).await;
        if let Some(name) = &name {
            shown.sentence = format!("{name}: {}", shown.sentence);
        }
        shown.found = found;
    }
    Ok(exit::OK)
}

fn show(
    shown: &Shown,
    settings: &StatusSettings,
    terminal: &Terminal,
    told: &mut Option<String>,
    out: &mut impl io::Write,
) -> io::Result<()> {
    let text = printed(shown, settings.json, terminal)?;
    if terminal.is_terminal() && !settings.json {
        let head = format!("{}, every {} s; Ctrl-C ends it", terminal.full(shown.at.0), LOOK_EVERY.as_secs());
        let head = terminal.paint(Style::Dim, &head);
        return redraw(&format!("{head}\n\n{text}"), terminal, out);
    }
    let now = gist(shown);
    if told.as_ref() == Some(&now) {
        return Ok(());
    }
    let is_first = told.replace(now).is_none();
    if settings.json {
        writeln!(out, "{text}")?;
    } else {
        let gap = if is_first { "" } else { "\n" };
        writeln!(out, "{gap}{}\n{text}", terminal.full(shown.at.0))?;
    }
    out.flush()
}

/// In one write, from the top: a terminal that is cleared first flickers. Each line clears what it does not cover (ECMA-48: EL,
/// ED), and what does not fit is left out, for a terminal that scrolls has another top.
fn redraw(text: &str, terminal: &Terminal, out: &mut impl io::Write) -> io::Result<()> {
    let lines: Vec<&str> = text.lines().take(terminal.height().saturating_sub(1)).collect();
    out.write_all(format!("\x1b[H{}\x1b[K\n\x1b[J", lines.join("\x1b[K\n")).as_bytes())?;
    out.flush()
}

/// All that makes a difference: no times that pass, no sizes.
fn gist(shown: &Shown) -> String {
    let gateway = shown.gateway.as_ref().map(|gateway| (gateway.generation, gateway.healthy, &gateway.condition));
    let unit = shown.unit.as_ref().map(|UnitShown { active, sub, .. }| (active, sub));
    let standbys: Vec<_> = shown.standbys.iter().map(|standby| (standby.pid, &standby.state)).collect();
    let supervisor = (&shown.supervisor.state, shown.supervisor.pid, &shown.supervisor.url, &shown.supervisor.strays);
    let next = (&shown.next.action, &shown.next.why, &shown.next.then);
    let rest = (shown.health, &shown.failing, shown.restarts.in_window, &shown.trouble, &shown.lease, &shown.last.past);
    format!("{supervisor:?} {gateway:?} {next:?} {unit:?} {standbys:?} {rest:?}")
}

/// Whether nothing reads a pipe any more: with nothing to write this shows in no other way, see poll(2).
fn is_reader_gone(out: &impl AsFd) -> bool {
    let mut pipe = [PollFd::new(out, PollFlags::empty())];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    poll(&mut pipe, Some(&now)).is_ok()
        && pipe.iter().any(|pipe| pipe.revents().intersects(PollFlags::ERR | PollFlags::HUP))
}
