//! The word to the service manager, see `sd_notify(3)`.
//!
//! It never blocks, and nothing that goes wrong here is a failure: what did not go out is told again later. Each turn says
//! all there is to say in one datagram, and nothing where nothing changed and nothing is due.
//!
//! `MAINPID` is never sent: we are the main process, whatever gateway there is.

use super::clock;
use crate::core::{Moment, Notice};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// How much time each `EXTEND_TIMEOUT_USEC` asks for. A manager whose `TimeoutStartSec` or `TimeoutStopSec` is over ends us
/// so long after the last one: two may get lost or come late, as on a machine that swaps, before it takes us for dead.
const EXTENSION: Duration = Duration::from_secs(30);

/// How often it is asked for: soon after a change, and then twice as late each time up to [`EXTEND_EVERY`]. systemd begins
/// to count anew when the process of `ExecReload` ends, which may be after our first word.
const EXTEND_SOON: Duration = Duration::from_millis(500);
const EXTEND_EVERY: Duration = Duration::from_secs(10);

/// The pause after a datagram that did not go out; it doubles up to [`RETRY_MAX`]. A manager that is busy has read its
/// queue after the first one, and one that is gone costs next to nothing.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// systemd reads no more than 4096 bytes of a datagram.
const STATUS_BYTES_MAX: usize = 2048;

/// The service manager's end, if there is one.
#[derive(Debug)]
pub struct Manager(Option<Line>);

impl Manager {
    /// As the environment names it: `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    #[must_use]
    pub fn from_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Self(None) };
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_default());
        let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let usec = number("WATCHDOG_USEC").filter(|usec| is_meant && *usec > 0);
        Self::open(&name, usec.map(Duration::from_micros))
    }

    /// The one at this name, which wants a sign of life in every such period.
    fn open(name: &OsStr, watchdog: Option<Duration>) -> Self {
        let line = Line::open(name, watchdog);
        Self(line.map_err(|error| tracing::warn!("the service manager will be told nothing: {error}")).ok())
    }

    /// Takes in one word of the core, to be said in the next turn.
    pub fn tell(&mut self, notice: Notice) {
        if let Some(line) = &mut self.0 {
            (line.notice, line.is_told) = (Some(notice), false);
        }
    }

    /// Says what there is to say. To be called before every wait. `is_overdue` says that the core has not done what was
    /// to be done long ago: then we are not alive. `sentence` is what there is to say of us.
    pub fn turn(&mut self, now: Moment, is_overdue: bool, sentence: impl FnOnce() -> String) {
        if let Some(line) = &mut self.0 {
            line.turn(now, is_overdue, &one_line(&sentence()));
        }
    }

    /// When [`Manager::turn`] is due, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.0.as_ref()?.wake
    }

    /// The last words: that we end, and why. There is one try, for nobody is left to wait for another.
    pub fn leave(&mut self, reason: &str) {
        self.say_at_once(&format!("STOPPING=1\nSTATUS={}", one_line(reason)));
    }

    /// Why nothing was begun.
    pub fn explain(&mut self, reason: &str) {
        self.say_at_once(&format!("STATUS={}", one_line(reason)));
    }

    fn say_at_once(&mut self, text: &str) {
        let sent = self.0.as_ref().map_or(Ok(()), |line| line.send(text));
        if let Err(error) = sent {
            tracing::debug!(%error, "the service manager could not be told why we end");
        }
    }
}

/// Why nobody is there to be told.
#[derive(Debug, thiserror::Error)]
enum LineError {
    #[error("NOTIFY_SOCKET={0:?} is no absolute path or @name of a socket ({1}); start us under systemd, or unset it")]
    Name(String, io::Error),
    #[error("no socket to reach it: {0}; raise the limit on open files")]
    Socket(io::Error),
}

/// The way to a service manager.
#[derive(Debug)]
struct Line {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
    /// What the core said last.
    notice: Option<Notice>,
    /// Whether that went out.
    is_told: bool,
    /// What went out of our state.
    status: String,
    /// When the last sign of life went out.
    fed: Option<Moment>,
    /// When more time was last asked for, and how long after that it is asked for again.
    extended: Option<(Moment, Duration)>,
    trouble: Trouble,
    wake: Option<Moment>,
}

/// What became of the last datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Trouble {
    /// There was none yet.
    Never,
    /// It is over; it was told of.
    History,
    /// They did not go out. The next one is tried then.
    Present { again: Moment, pause: Duration },
}

/// What one datagram holds.
#[derive(Debug, Default)]
struct Message {
    text: String,
    extends: bool,
    feeds: bool,
}

impl Line {
    fn open(name: &OsStr, watchdog: Option<Duration>) -> Result<Self, LineError> {
        let address = address(name).map_err(|error| LineError::Name(name.to_string_lossy().into_owned(), error))?;
        let socket = UnixDatagram::unbound().map_err(LineError::Socket)?;
        socket.set_nonblocking(true).map_err(LineError::Socket)?;
        Ok(Self {
            socket,
            address,
            watchdog,
            notice: None,
            is_told: true,
            status: String::new(),
            fed: None,
            extended: None,
            trouble: Trouble::Never,
            wake: None,
        })
    }

    fn turn(&mut self, now: Moment, is_overdue: bool, status: &str) {
        let is_paused = matches!(self.trouble, Trouble::Present { again, .. } if now < again);
        let message = if is_paused { Message::default() } else { self.message(now, is_overdue, status) };
        if !message.text.is_empty() {
            match self.send(message.text.trim_end()) {
                Ok(()) => self.note_sent(now, &message, status),
                Err(error) => self.note_unsent(now, &error),
            }
        }
        self.wake = if is_overdue { None } else { self.next(now) };
    }

    fn message(&self, now: Moment, is_overdue: bool, status: &str) -> Message {
        let is_due = |last: Moment, pace: Duration| last.saturating_add(pace) <= now;
        let is_news = !self.is_told;
        let extension_is_due = self.extended.is_none_or(|(last, pause)| is_news || is_due(last, pause));
        let extends = !is_overdue && self.is_timed() && extension_is_due;
        let food_is_due = |period: Duration| self.fed.is_none_or(|last| is_due(last, period / 3));
        let feeds = !is_overdue && self.watchdog.is_some_and(food_is_due);
        let mut text = String::new();
        if let Some(notice) = self.notice.filter(|_| is_news) {
            text.push_str(&words(notice, now));
        }
        if status != self.status {
            push(&mut text, format_args!("STATUS={status}"));
        }
        if extends {
            push(&mut text, format_args!("EXTEND_TIMEOUT_USEC={}", EXTENSION.as_micros()));
        }
        if feeds {
            push(&mut text, format_args!("WATCHDOG=1"));
        }
        Message { text, extends, feeds }
    }

    /// Whether the manager counts the time until we are where we want to be.
    fn is_timed(&self) -> bool {
        self.notice != Some(Notice::Ready)
    }

    fn send(&self, text: &str) -> io::Result<()> {
        // Not connected: a manager that was started anew has another socket at the same name. std sets MSG_NOSIGNAL.
        self.socket.send_to_addr(text.as_bytes(), &self.address).map(drop)
    }

    fn note_sent(&mut self, now: Moment, message: &Message, status: &str) {
        if message.extends {
            let pause = match self.extended {
                Some((_, pause)) if self.is_told => (pause * 2).min(EXTEND_EVERY),
                _ => EXTEND_SOON,
            };
            self.extended = Some((now, pause));
        }
        self.is_told = true;
        status.clone_into(&mut self.status);
        if message.feeds {
            self.fed = Some(now);
        }
        if let Trouble::Present { .. } = self.trouble {
            self.trouble = Trouble::History;
        }
    }

    fn note_unsent(&mut self, now: Moment, error: &io::Error) {
        let pause = match self.trouble {
            Trouble::Present { pause, .. } => (pause * 2).min(RETRY_MAX),
            Trouble::Never | Trouble::History => RETRY_MIN,
        };
        // It must not be us who let a watchdog bite.
        let pause = self.watchdog.map_or(pause, |period| pause.min(period / 3));
        if self.trouble == Trouble::Never {
            tracing::warn!(
                "cannot reach the service manager at NOTIFY_SOCKET={:?}: {error}; it will be told later, and nothing \
                 waits for that",
                self.address
            );
        }
        self.trouble = Trouble::Present { again: now.saturating_add(pause), pause };
    }

    /// When there will be something to say. A sign of life goes out with whatever wakes us after a third of its period; we
    /// wake for it after half, as `sd_watchdog_enabled(3)` advises.
    fn next(&self, now: Moment) -> Option<Moment> {
        if let Trouble::Present { again, .. } = self.trouble {
            return Some(again);
        }
        let food = self.watchdog.map(|period| self.fed.unwrap_or(now).saturating_add(period / 2));
        let (last, pause) = self.extended.unwrap_or((now, EXTEND_SOON));
        let extension = self.is_timed().then(|| last.saturating_add(pause));
        food.into_iter().chain(extension).min()
    }
}

fn words(notice: Notice, now: Moment) -> String {
    match notice {
        Notice::Ready => "READY=1\n".to_owned(),
        Notice::Reloading => {
            format!("RELOADING=1\nMONOTONIC_USEC={}\n", clock::of_the_kernel(now).as_micros())
        }
        Notice::Stopping => "STOPPING=1\n".to_owned(),
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    // A string takes whatever is written to it.
    let _infallible = writeln!(text, "{line}");
}

/// The name of a socket, in the form of `sd_notify(3)`.
fn address(name: &OsStr) -> io::Result<SocketAddr> {
    match name.as_bytes() {
        [b'/', ..] => SocketAddr::from_pathname(name),
        #[cfg(target_os = "linux")]
        [b'@', abstract_name @ ..] if !abstract_name.is_empty() => {
            <SocketAddr as std::os::linux::net::SocketAddrExt>::from_abstract_name(abstract_name)
        }
        _ => Err(io::ErrorKind::InvalidInput.into()),
    }
}

/// A line end would begin another assignment, and some of what we quote comes from elsewhere.
fn one_line(text: &str) -> String {
    let mut line = text.trim().replace(|letter: char| letter.is_control(), " ");
    line.truncate(line.floor_char_boundary(STATUS_BYTES_MAX));
    line
}

#[cfg(test)]
mod tests;
