//! Notifications to the service manager, see `sd_notify(3)`.
//!
//! The socket is non-blocking, and a datagram that could not be sent is retried later. Each turn sends at most one datagram,
//! with everything that changed or is due.
//!
//! `MAINPID` is never sent: we stay the main process while gateways come and go.

use super::clock;
use crate::core::{Moment, Notice};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The value of `EXTEND_TIMEOUT_USEC`: after `TimeoutStartSec` or `TimeoutStopSec`, the manager kills us this long after the
/// last one. Two may be lost or late, as on a machine that swaps.
const EXTENSION: Duration = Duration::from_secs(30);

/// The interval of these requests: short after a change of state, then doubling up to [`EXTEND_EVERY`]. systemd restarts its
/// timeout when the process of `ExecReload` exits, which may be after our first request.
const EXTEND_SOON: Duration = Duration::from_millis(500);
const EXTEND_EVERY: Duration = Duration::from_secs(10);

/// The backoff after a failed send; it doubles up to [`RETRY_MAX`]. A busy manager has drained its queue by the first retry.
const RETRY_MIN: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// systemd reads no more than 4096 bytes of a datagram.
const STATUS_BYTES_MAX: usize = 2048;

/// Notifies the service manager; does nothing without one.
#[derive(Debug)]
pub struct Notifier(Option<NotifyConnection>);

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`.
    #[must_use]
    pub fn from_environment() -> Self {
        let Some(name) = std::env::var_os("NOTIFY_SOCKET").filter(|name| !name.is_empty()) else { return Self(None) };
        let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().unwrap_or_default());
        let is_meant = number("WATCHDOG_PID").is_none_or(|pid| pid == u64::from(std::process::id()));
        let usec = number("WATCHDOG_USEC").filter(|usec| is_meant && *usec > 0);
        Self::open(&name, usec.map(Duration::from_micros))
    }

    /// `watchdog` is the period in which `WATCHDOG=1` is due.
    fn open(name: &OsStr, watchdog: Option<Duration>) -> Self {
        let connection = NotifyConnection::open(name, watchdog);
        Self(connection.map_err(|error| tracing::warn!("cannot notify the service manager: {error}")).ok())
    }

    /// Queues a notice of the core for the next turn.
    pub fn queue(&mut self, notice: Notice) {
        if let Some(connection) = &mut self.0 {
            (connection.notice, connection.is_sent) = (Some(notice), false);
        }
    }

    /// Sends what is due. To be called before every wait. `is_overdue` means that the core has missed its deadline, so we do
    /// not count as alive. `status` is the text of `STATUS=`.
    pub fn turn(&mut self, now: Moment, is_overdue: bool, status: impl FnOnce() -> String) {
        if let Some(connection) = &mut self.0 {
            connection.turn(now, is_overdue, &one_line(&status()));
        }
    }

    /// When [`Notifier::turn`] is due, if nothing happens before.
    #[must_use]
    pub fn deadline(&self) -> Option<Moment> {
        self.0.as_ref()?.wake
    }

    /// Tells that we exit, and why. Not retried.
    pub fn notify_stopping(&self, reason: &str) {
        self.send_now(&format!("STOPPING=1\nSTATUS={}", one_line(reason)));
    }

    /// Tells why nothing was started. Not retried.
    pub fn notify_status(&self, reason: &str) {
        self.send_now(&format!("STATUS={}", one_line(reason)));
    }

    fn send_now(&self, text: &str) {
        let sent = self.0.as_ref().map_or(Ok(()), |connection| connection.send(text));
        if let Err(error) = sent {
            tracing::debug!(%error, "cannot tell the service manager why we exit");
        }
    }
}

#[derive(Debug, thiserror::Error)]
enum OpenError {
    #[error("NOTIFY_SOCKET={0:?} is neither an absolute path nor an @name ({1}); start us under systemd, or unset it")]
    Name(String, io::Error),
    #[error("cannot create a socket: {0}; raise the limit on open files")]
    Socket(io::Error),
}

#[derive(Debug)]
struct NotifyConnection {
    socket: UnixDatagram,
    address: SocketAddr,
    watchdog: Option<Duration>,
    /// The core's last notice.
    notice: Option<Notice>,
    /// Whether `notice` was sent.
    is_sent: bool,
    /// The last `STATUS=` that was sent.
    status: String,
    /// When the last `WATCHDOG=1` was sent.
    fed: Option<Moment>,
    /// When the last `EXTEND_TIMEOUT_USEC` was sent, and the interval until the next one.
    extended: Option<(Moment, Duration)>,
    delivery: Delivery,
    wake: Option<Moment>,
}

/// The state of the last sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Delivery {
    NeverFailed,
    /// Sends succeed again; the failure was logged.
    Recovered,
    Failing {
        retry_at: Moment,
        pause: Duration,
    },
}

/// One datagram.
#[derive(Debug, Default)]
struct Message {
    text: String,
    extends: bool,
    feeds: bool,
}

impl NotifyConnection {
    fn open(name: &OsStr, watchdog: Option<Duration>) -> Result<Self, OpenError> {
        let address = address(name).map_err(|error| OpenError::Name(name.to_string_lossy().into_owned(), error))?;
        let socket = UnixDatagram::unbound().map_err(OpenError::Socket)?;
        socket.set_nonblocking(true).map_err(OpenError::Socket)?;
        Ok(Self {
            socket,
            address,
            watchdog,
            notice: None,
            is_sent: true,
            status: String::new(),
            fed: None,
            extended: None,
            delivery: Delivery::NeverFailed,
            wake: None,
        })
    }

    fn turn(&mut self, now: Moment, is_overdue: bool, status: &str) {
        let is_paused = matches!(self.delivery, Delivery::Failing { retry_at, .. } if now < retry_at);
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
        let is_news = !self.is_sent;
        let extension_is_due = self.extended.is_none_or(|(last, pause)| is_news || is_due(last, pause));
        let extends = !is_overdue && self.is_timed() && extension_is_due;
        let food_is_due = |period: Duration| self.fed.is_none_or(|last| is_due(last, period / 3));
        let feeds = !is_overdue && self.watchdog.is_some_and(food_is_due);
        let mut text = String::new();
        if let Some(notice) = self.notice.filter(|_| is_news) {
            text.push_str(&assignments(notice, now));
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

    /// Whether a timeout of the manager runs.
    fn is_timed(&self) -> bool {
        self.notice != Some(Notice::Ready)
    }

    fn send(&self, text: &str) -> io::Result<()> {
        // Unconnected, because a restarted manager binds a new socket to the same name. std sets MSG_NOSIGNAL.
        self.socket.send_to_addr(text.as_bytes(), &self.address).map(drop)
    }

    fn note_sent(&mut self, now: Moment, message: &Message, status: &str) {
        if message.extends {
            let pause = match self.extended {
                Some((_, pause)) if self.is_sent => (pause * 2).min(EXTEND_EVERY),
                _ => EXTEND_SOON,
            };
            self.extended = Some((now, pause));
        }
        self.is_sent = true;
        status.clone_into(&mut self.status);
        if message.feeds {
            self.fed = Some(now);
        }
        if let Delivery::Failing { .. } = self.delivery {
            self.delivery = Delivery::Recovered;
        }
    }

    fn note_unsent(&mut self, now: Moment, error: &io::Error) {
        let pause = match self.delivery {
            Delivery::Failing { pause, .. } => (pause * 2).min(RETRY_MAX),
            Delivery::NeverFailed | Delivery::Recovered => RETRY_MIN,
        };
        // The backoff must not make us miss the watchdog.
        let pause = self.watchdog.map_or(pause, |period| pause.min(period / 3));
        if self.delivery == Delivery::NeverFailed {
            tracing::warn!(
                "cannot reach the service manager at NOTIFY_SOCKET={:?}: {error}; retrying in the background",
                self.address
            );
        }
        self.delivery = Delivery::Failing { retry_at: now.saturating_add(pause), pause };
    }

    /// The next wake-up. `WATCHDOG=1` goes out with any wake-up after a third of the period; we wake for it after half, as
    /// `sd_watchdog_enabled(3)` advises.
    fn next(&self, now: Moment) -> Option<Moment> {
        if let Delivery::Failing { retry_at, .. } = self.delivery {
            return Some(retry_at);
        }
        let food = self.watchdog.map(|period| self.fed.unwrap_or(now).saturating_add(period / 2));
        let (last, pause) = self.extended.unwrap_or((now, EXTEND_SOON));
        let extension = self.is_timed().then(|| last.saturating_add(pause));
        food.into_iter().chain(extension).min()
    }
}

fn assignments(notice: Notice, now: Moment) -> String {
    match notice {
        Notice::Ready => "READY=1\n".to_owned(),
        Notice::Reloading => {
            format!("RELOADING=1\nMONOTONIC_USEC={}\n", clock::of_the_kernel(now).as_micros())
        }
        Notice::Stopping => "STOPPING=1\n".to_owned(),
    }
}

fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _infallible = writeln!(text, "{line}");
}

/// A socket name in the form of `sd_notify(3)`.
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

/// A newline would start another assignment, and some of the text comes from other programs.
fn one_line(text: &str) -> String {
    let mut line = text.trim().replace(|letter: char| letter.is_control(), " ");
    line.truncate(line.floor_char_boundary(STATUS_BYTES_MAX));
    line
}

#[cfg(test)]
mod tests;
