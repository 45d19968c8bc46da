//! The service manager that runs us: what it kills when we exit, and how long it waits for us.

mod container;
pub mod output;
mod process_manager;
pub mod time_span;
mod unit;

pub use container::Container;
pub use process_manager::ProcessManager;

use crate::platform::proc;
use std::io::{self, IsTerminal};
use std::sync::OnceLock;
use std::time::Duration;
pub use unit::ServiceProperties;
use unit::Unit;

/// What a drain leaves of the manager's timeout: for SIGKILL to the tree, the last records and our own exit.
const MARGIN: Duration = Duration::from_secs(5);

/// A whole drain: the gateway exits by itself after 325 to 327 s. OpenClaw's own unit allows 330 s, of which [`MARGIN`]
/// would leave us in a race with the gateway.
pub const DRAIN_WHOLE: Duration = Duration::from_secs(328);

/// The margin if a whole drain just fits into the manager's timeout.
const MARGIN_MIN: Duration = Duration::from_secs(2);

/// Lower bound of a drain.
const DRAIN_MIN: Duration = Duration::from_secs(1);

/// The least margin: on a busy machine SIGKILL to a large tree takes a quarter of a second.
const MARGIN_SHORT: Duration = Duration::from_millis(600);

/// The container that this process runs in.
#[must_use]
pub fn container() -> Option<&'static Container> {
    static CONTAINER: OnceLock<Option<Container>> = OnceLock::new();
    CONTAINER.get_or_init(|| Container::of(std::process::id().cast_signed(), |name| std::env::var_os(name))).as_ref()
}

/// The process manager of this process. pm2 and supervisord give no program a terminal: with one a person has started us
/// in a shell below them, and their variables are inherited.
#[must_use]
pub fn process_manager() -> Option<ProcessManager> {
    static PROCESS_MANAGER: OnceLock<Option<ProcessManager>> = OnceLock::new();
    *PROCESS_MANAGER.get_or_init(|| {
        let is_terminal = io::stderr().is_terminal();
        let variable = |name: &str| if is_terminal { None } else { std::env::var_os(name) };
        ProcessManager::of(std::process::id().cast_signed(), variable)
    })
}

/// The name of what runs us, for the log.
#[must_use]
pub fn name() -> &'static str {
    let has = |name| std::env::var_os(name).is_some();
    if let Some(manager) = process_manager() {
        // Before systemd and launchd, which may run it in turn.
        manager.name()
    } else if Unit::ours().is_some() || has("NOTIFY_SOCKET") {
        "systemd"
    } else if has("XPC_SERVICE_NAME") && !io::stderr().is_terminal() {
        "launchd"
    } else if container().is_some() {
        "container"
    } else if io::stderr().is_terminal() {
        "terminal"
    } else {
        "unknown"
    }
}

/// The command that stops the systemd service with this main process.
pub async fn stop_command(pid: Option<i32>) -> String {
    let unit = pid.and_then(proc::cgroup_of).and_then(|cgroup| Unit::of(&cgroup));
    // A terminal's service may hold us too: INVOCATION_ID is inherited.
    let main = match &unit {
        Some(unit) => unit.property("MainPID").await,
        None => None,
    };
    let unit = unit.filter(|_| main.is_some() && main == pid.map(|pid| pid.to_string()));
    unit.map_or_else(|| "systemctl [--user] stop UNIT".to_owned(), |unit| unit.stop())
}

/// The systemd service that a process belongs to: its name, and the command that stops it.
#[must_use]
pub fn service_of(pid: i32) -> Option<(String, String)> {
    let unit = Unit::of(&proc::cgroup_of(pid)?).filter(Unit::is_service)?;
    Some((unit.name().to_owned(), unit.stop()))
}

/// The command that starts this supervisor again, if it is a systemd service.
#[must_use]
pub fn start_command() -> Option<String> {
    Unit::ours().filter(Unit::is_service).map(|unit| unit.start())
}

/// The systemd service that has this process as its main process.
pub async fn service_state(pid: i32) -> Option<ServiceProperties> {
    let unit = Unit::of(&proc::cgroup_of(pid)?).filter(Unit::is_service)?;
    let service = unit.properties(proc::uid_of(pid)).await?;
    (service.properties.get("MainPID") == Some(&pid.to_string())).then_some(service)
}

/// The command that shows the journal of the systemd service with this process.
#[must_use]
pub fn journal_command(pid: i32) -> Option<String> {
    let unit = Unit::of(&proc::cgroup_of(pid)?).filter(Unit::is_service)?;
    Some(unit.journalctl())
}

/// Why a gateway would not survive our exit. `None` if it would.
pub async fn refuses_detach() -> Option<&'static str> {
    if container().is_some_and(|container| container.ends_with_us) {
        return Some("the container, and every process in it, ends with this program");
    }
    match Unit::ours()?.property("KillMode").await {
        Some(mode) if keeps_children(&mode) => None,
        Some(_) => Some("its systemd unit kills every process left in it; set KillMode=process there"),
        None => Some("its systemd unit may kill every process left in it: systemctl did not tell its KillMode"),
    }
}

/// Whether the other processes of a unit survive its main process.
fn keeps_children(kill_mode: &str) -> bool {
    matches!(kill_mode, "process" | "none")
}

/// How long the service manager lets us drain a gateway when it stops us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StopBudget {
    Unbounded,
    /// SIGKILL comes after `within`, so a drain must not take longer than `drain`.
    Bounded {
        within: Duration,
        drain: Duration,
    },
    /// There is a limit, but the manager did not tell it.
    Unknown,
}

impl StopBudget {
    fn of(property: Option<&str>) -> Self {
        match property.map(time_span::parse) {
            Some(Some(within)) if within == Duration::MAX => Self::Unbounded,
            Some(Some(within)) => Self::Bounded { within, drain: drain_within(within) },
            Some(None) | None => Self::Unknown,
        }
    }
}

/// How long a gateway may drain if the manager sends SIGKILL after `limit`.
#[must_use]
pub fn drain_within(limit: Duration) -> Duration {
    let usual = limit.saturating_sub(MARGIN).max(DRAIN_MIN);
    if limit < DRAIN_WHOLE.saturating_add(MARGIN_MIN) { usual } else { usual.max(DRAIN_WHOLE) }
}

/// How long a gateway may drain if SIGKILL comes `grace` after the stop, by another manager than systemd. Of a short grace
/// period a fifth is kept: 10 s leave 8 s.
#[must_use]
pub fn drain_in_grace(grace: Duration) -> Duration {
    if grace / 5 >= MARGIN {
        return drain_within(grace);
    }
    grace.saturating_sub((grace / 5).max(MARGIN_SHORT)).max(DRAIN_MIN)
}

/// Asks systemd. With a notify socket there is no limit: while a gateway drains we send `EXTEND_TIMEOUT_USEC`, which
/// overrides `TimeoutStopSec`.
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
    fn only_kill_modes_process_and_none_keep_the_other_processes_of_a_unit() {
        for mode in ["process", "none"] {
            assert!(keeps_children(mode), "{mode}");
        }
        for mode in ["control-group", "mixed", "", "process\nmixed"] {
            assert!(!keeps_children(mode), "{mode}");
        }
    }

    #[test]
    fn a_drain_ends_before_the_grace_period() {
        for (grace, drain) in [
            (1000, 1000),
            (1600, 1000),
            (3000, 2400),
            (7000, 5600),
            (10_000, 8000),
            (25_000, 20_000),
            (30_000, 25_000),
            (330_000, 328_000),
            (345_000, 340_000),
        ] {
            let [grace, drain] = [grace, drain].map(Duration::from_millis);
            assert_eq!(drain_in_grace(grace), drain, "{grace:?}");
        }
    }

    #[test]
    fn a_drain_ends_before_the_timeout_of_systemd() {
        let bounded = |within, drain| {
            let [within, drain] = [within, drain].map(Duration::from_secs);
            StopBudget::Bounded { within, drain }
        };
        for (property, expected) in [
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
            assert_eq!(StopBudget::of(property), expected, "{property:?}");
        }
    }
}
