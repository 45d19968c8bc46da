//! What a command waits for: one line of its own on a terminal, redrawn every second. In a pipe there is none.

use super::terminal::{Terminal, columns_of, fitting, printable, span};
use crate::core::report::human;
use crate::host::clock;
use crate::host::control::{Connection, StatusReply};
use crate::platform::disposition::is_ignored;
use futures_util::StreamExt;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::low_level::emulate_default_handler;
use signal_hook_tokio::Signals;
use std::convert::Infallible;
use std::future::{Future, pending};
use std::io::{self, Write};
use std::path::Path;
use std::time::Duration;
use tokio::time::{sleep, timeout};

const TICK: Duration = Duration::from_secs(1);

/// Those that end a command, as far as its caller has not had them ignored.
const ENDING: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Runs `work` and shows the progress meanwhile. While no supervisor tells its phase, `waiting` says what is waited for since so
/// long.
pub(super) async fn beside<T>(
    store_dir: &Path,
    waiting: impl Fn(Duration) -> String,
    work: impl Future<Output = T>,
) -> T {
    let terminal = Terminal::of(&io::stderr());
    if !terminal.is_terminal() || !Terminal::of(&io::stdout()).is_terminal() {
        return work.await;
    }
    // Without it a signal leaves the line as it is.
    let mut signals = Signals::new(ENDING.into_iter().filter(|signal| !is_ignored(*signal))).ok();
    let ending = async {
        match &mut signals {
            Some(signals) => signals.next().await,
            None => pending().await,
        }
    };
    let mut line = RedrawnLine { out: io::stderr(), width: terminal.width(), shown: 0 };
    let ended_by = tokio::select! {
        biased;
        done = work => return done,
        signal = ending => signal,
        never = redraw(store_dir, waiting, &mut line) => match never {},
    };
    drop(line);
    // The process ends by it, as any other command does.
    let _never_fails = emulate_default_handler(ended_by.unwrap_or(SIGINT));
    pending().await
}

async fn redraw(
    store_dir: &Path,
    waiting: impl Fn(Duration) -> String,
    line: &mut RedrawnLine<impl Write>,
) -> Infallible {
    let begun = clock::now();
    loop {
        sleep(TICK).await;
        let status = timeout(TICK, Connection::status(store_dir)).await;
        let reply = status.ok().and_then(Result::ok).map(|(_, reply)| reply);
        if !is_background() {
            line.draw(&reply.as_ref().and_then(phase).unwrap_or_else(|| waiting(clock::now().saturating_sub(begun))));
        }
    }
}

/// A job in the background does not draw over what its user types.
fn is_background() -> bool {
    rustix::termios::tcgetpgrp(io::stderr()).is_ok_and(|group| group != rustix::process::getpgrp())
}

/// `None` where nothing is under way that takes time.
fn phase(reply: &StatusReply) -> Option<String> {
    let next = &reply.next;
    let generation = reply.generation.unwrap_or_default();
    let of_at_most = |spent_ms: u64, left_ms: u64| {
        let spent = span(Duration::from_millis(spent_ms));
        format!("{spent} of at most {}", human(Duration::from_secs((spent_ms + left_ms).div_ceil(1000))))
    };
    match (reply.supervisor.state.as_str(), next.in_ms) {
        ("stopping", Some(left)) => {
            let Some(of) = next.of_ms else { return Some(format!("killing what is left of gateway {generation}")) };
            // Of requests, only a second stop cuts a drain short. The line is to fit into 80 columns.
            let is_stop = next.why.as_deref().is_some_and(|why| why.ends_with("a stop was requested"));
            let pid = reply.gateway.as_ref().and_then(|gateway| gateway.pid);
            let then = match (&next.then, pid) {
                _ if is_stop => "; a second `stop` kills it at once".to_owned(),
                (Some(_), Some(pid)) => format!("; `kill -9 {pid}` ends it now"),
                (Some(then), None) => format!(", then {then}"),
                (None, _) => String::new(),
            };
            let spent = of_at_most(of.saturating_sub(left), left);
            Some(format!("draining gateway {generation}: {spent}{then}"))
        }
        ("starting", left) => {
            let age = reply.gateway.as_ref()?.age_ms?;
            let is_boot = next.action.as_deref() == Some("replace the gateway if it has not started");
            let spent = left.filter(|_| is_boot).map(|left| of_at_most(age, left));
            let spent = spent.unwrap_or_else(|| span(Duration::from_millis(age)));
            Some(format!("gateway {generation} is starting: {spent}"))
        }
        ("backing_off", Some(left)) => {
            let left = span(Duration::from_millis(left));
            Some(format!("the next start is in {left}: {}", next.why.as_deref().unwrap_or_default()))
        }
        _ => None,
    }
}

/// Redrawn without escape sequences, which not every terminal has.
struct RedrawnLine<W: Write> {
    out: W,
    /// In columns.
    width: usize,
    /// How many columns of it are in use.
    shown: usize,
}

impl<W: Write> RedrawnLine<W> {
    /// A terminal that is gone gets no progress, and the command still gets its outcome.
    fn draw(&mut self, text: &str) {
        // A character in the last column would wrap.
        let text = printable(text);
        let text = &text[..fitting(&text, self.width.saturating_sub(1))];
        let length = columns_of(text);
        let rest = self.shown.saturating_sub(length);
        self.shown = length;
        write!(self.out, "\r{text}{:rest$}\r", "").and_then(|()| self.out.flush()).ok();
    }
}

impl<W: Write> Drop for RedrawnLine<W> {
    fn drop(&mut self) {
        if self.shown > 0 {
            self.draw("");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn of(reply: Value) -> Option<String> {
        phase(&serde_json::from_value(reply).unwrap())
    }

    #[test]
    fn a_drain_has_its_deadline_and_what_cuts_it_short_if_something_does() {
        let drain = |why: &str, then: &str, gateway: Value| {
            let next = json!({"in_ms": 316_000, "of_ms": 328_000, "why": why, "then": then});
            of(json!({"supervisor": {"state": "stopping"}, "generation": 3, "gateway": gateway, "next": next})).unwrap()
        };
        let gateway = || json!({"generation": 3, "pid": 4_194_304});
        let told = drain("it drains: a restart was requested", "gateway 4", gateway());
        assert_eq!(told, "draining gateway 3: 12 s of at most 5m28s; `kill -9 4194304` ends it now");
        assert!(told.len() < 80);
        assert_eq!(
            drain("it drains: a restart was requested", "gateway 4", Value::Null),
            "draining gateway 3: 12 s of at most 5m28s, then gateway 4"
        );
        assert_eq!(
            drain("it drains: a stop was requested", "the supervisor exits", gateway()),
            "draining gateway 3: 12 s of at most 5m28s; a second `stop` kills it at once"
        );
    }

    #[test]
    fn a_boot_a_kill_and_a_backoff_are_phases_and_a_gateway_that_serves_is_none() {
        let boot = json!({"in_ms": 296_000, "action": "replace the gateway if it has not started"});
        let gateway = json!({"generation": 4, "age_ms": 4000});
        let phases = [
            (
                json!({"supervisor": {"state": "starting"}, "generation": 4, "gateway": gateway, "next": boot}),
                Some("gateway 4 is starting: 4 s of at most 5m"),
            ),
            (
                json!({"supervisor": {"state": "stopping"}, "generation": 4, "next": {"in_ms": 900}}),
                Some("killing what is left of gateway 4"),
            ),
            (
                json!({"supervisor": {"state": "backing_off"}, "next": {"in_ms": 7000, "why": "it crashed"}}),
                Some("the next start is in 7 s: it crashed"),
            ),
            (json!({"supervisor": {"state": "running"}, "next": {"in_ms": 900}}), None),
        ];
        for (reply, expected) in phases {
            assert_eq!(of(reply).as_deref(), expected);
        }
    }

    #[test]
    fn a_shorter_line_covers_the_one_before_none_wraps_and_nothing_is_left() {
        let mut out = Vec::new();
        let mut line = RedrawnLine { out: &mut out, width: 8, shown: 0 };
        line.draw("one two three");
        line.draw("a\x1bb");
        line.draw("日本語日本語");
        drop(line);
        let drawn = "\rone two\r\ra b    \r\r日本語\r\r      \r";
        assert_eq!(String::from_utf8(out).unwrap(), drawn);
    }
}
