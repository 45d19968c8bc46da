//! Who runs us, what becomes of what we leave behind, and how long we may take to leave.

mod messages;
pub mod span;
mod unit;

pub use messages::place_of_messages;

use std::io::{self, IsTerminal};
use std::time::Duration;
use unit::Unit;

/// What is left of the manager's time after a drain: for SIGKILL to the tree, the last records, and our own end.
const MARGIN: Duration = Duration::from_secs(5);

/// A whole drain: the gateway ends itself after 325 to 327 s. OpenClaw's own unit has 330 s for it, of which [`MARGIN`] would
/// leave us in a race with the gateway.
const DRAIN_WHOLE: Duration = Duration::from_secs(328);

/// What is left of the manager's time where a whole drain just fits into it.
const MARGIN_MIN: Duration = Duration::from_secs(2);

/// No drain is shorter, however little time there is.
const DRAIN_MIN: Duration = Duration::from_secs(1);

/// The name of our outer manager, for the log.
#[must_use]
pub fn name() -> &'static str {
    let has = |name| std::env::var_os(name).is_some();
    if has("INVOCATION_ID") || has("NOTIFY_SOCKET") {
        "systemd"
    } else if has("XPC_SERVICE_NAME") && !io::stderr().is_terminal() {
        "launchd"
    } else if std::process::id() == 1 {
        "container"
    } else if io::stderr().is_terminal() {
        "terminal"
    } else {
        "unknown"
    }
}

/// Why a gateway that we left behind would not outlive us, if that is so.
pub async fn refuses_detach() -> Option<&'static str> {
    if std::process::id() == 1 {
        return Some("with PID 1 the kernel ends every process of the container");
    }
    match Unit::ours()?.property("KillMode").await {
        Some(mode) if spares_the_rest(&mode) => None,
        Some(_) => Some("its systemd unit ends every process that is left in it; set KillMode=process there"),
        None => {
            Some("its systemd unit may end every process that is left in it, and systemctl does not tell its KillMode")
        }
    }
}

/// Whether what stays in a unit outlives its main process.
fn spares_the_rest(kill_mode: &str) -> bool {
    matches!(kill_mode, "process" | "none")
}

/// What the service manager leaves for the drain of a gateway when it stops us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopBudget {
    /// As long as it takes.
    Unbounded,
    /// After `within` it sends SIGKILL, so that a drain must not take longer than `drain`.
    Bounded {
        /// The manager's own time.
        within: Duration,
        /// Ours.
        drain: Duration,
    },
    /// It has a limit, and does not tell it.
    Unknown,
}

impl StopBudget {
    fn of(told: Option<&str>) -> Self {
        match told.map(span::parse) {
            Some(Some(within)) if within == Duration::MAX => Self::Unbounded,
            Some(Some(within)) => Self::Bounded { within, drain: drain_within(within) },
            Some(None) | None => Self::Unknown,
        }
    }
}

/// How long a gateway may drain where the manager sends SIGKILL after this.
#[must_use]
pub fn drain_within(limit: Duration) -> Duration {
    let usual = limit.saturating_sub(MARGIN).max(DRAIN_MIN);
    if limit < DRAIN_WHOLE.saturating_add(MARGIN_MIN) { usual } else { usual.max(DRAIN_WHOLE) }
}

/// Asks systemd. Where it listens to us it gets `EXTEND_TIMEOUT_USEC` while a gateway drains, which counts in place of the
/// unit's own `TimeoutStopSec`.
pub async fn stop_budget() -> StopBudget {
    if std::env::var_os("NOTIFY_SOCKET").is_some_and(|socket| !socket.is_empty()) {
        return StopBudget::Unbounded;
    }
    match Unit::ours().filter(Unit::is_service) {
        Some(unit) => StopBudget::of(unit.property("TimeoutStopUSec").await.as_deref()),
        None => StopBudget::Unbounded,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_unit_that_is_known_to_leave_the_rest_alone_does() {
        for mode in ["process", "none"] {
            assert!(spares_the_rest(mode), "{mode}");
        }
        for mode in ["control-group", "mixed", "", "process\nmixed"] {
            assert!(!spares_the_rest(mode), "{mode}");
        }
    }

    #[test]
    fn a_drain_ends_before_systemd_loses_its_patience() {
        let bounded = |within, drain| {
            let [within, drain] = [within, drain].map(Duration::from_secs);
            StopBudget::Bounded { within, drain }
        };
        for (told, expected) in [
            (Some("5min 29s"), bounded(329, 324)),
            (Some("5min 30s"), bounded(330, 328)),
            (Some("5min 33s"), bounded(333, 328)),
            (Some("5min 40s"), bounded(340, 335)),
            (Some("1min 30s"), bounded(90, 85)),
            (Some("12s"), bounded(12, 7)),
            (Some("6s"), bounded(6, 1)),
            (Some("2s"), bounded(2, 1)),
            (Some("1h"), bounded(3600, 3595)),
            (Some("infinity"), StopBudget::Unbounded),
            (Some("soon"), StopBudget::Unknown),
            (None, StopBudget::Unknown),
        ] {
            assert_eq!(StopBudget::of(told), expected, "{told:?}");
        }
    }
}
