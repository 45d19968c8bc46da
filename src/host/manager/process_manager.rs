//! Process managers besides systemd and launchd: how they are recognised, and how long each lets us stop.

mod supervisord;

use crate::platform::proc;
use std::ffi::OsString;
use std::fs;
use std::time::Duration;

/// `kill_timeout`, see <https://pm2.keymetrics.io/docs/usage/signals-clean-restart/>. Measured with 7.0.4: SIGINT to the
/// whole tree (`treekill`), SIGKILL 1.6 s later.
const PM2_KILL_TIMEOUT: Duration = Duration::from_millis(1600);

/// `stopwaitsecs`, see "[program:x] Section Settings" in supervisord's configuration file.
const SUPERVISORD_STOP_WAIT: Duration = Duration::from_secs(10);

/// What `sv force-stop` waits before SIGKILL, see sv(8). `sv stop` and `sv down` never kill.
const RUNIT_WAIT: Duration = Duration::from_secs(7);

/// How far up a manager may be. A run script, or a launcher such as env(1), may stand between.
const LEVELS_MAX: usize = 6;

/// Programs that start another one and wait for it, in names of 15 bytes at most.
const LAUNCHERS: [&str; 16] = [
    "sh",
    "bash",
    "dash",
    "ash",
    "busybox",
    "zsh",
    "ksh",
    "execlineb",
    "env",
    "sudo",
    "su",
    "runuser",
    "gosu",
    "nice",
    "tini",
    "dumb-init",
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessManager {
    Pm2 {
        kill_timeout: Duration,
        /// Whether a stop sends SIGINT to every process of the tree.
        kills_tree: bool,
    },
    Supervisord {
        stop_wait: Duration,
    },
    Runit,
    S6 {
        /// SIGKILL comes after `timeout-kill`, by default never, see s6-supervise and "servicedir" in its documentation.
        kill_timeout: Option<Duration>,
    },
}

impl ProcessManager {
    /// The manager of a process. `variable` looks into the environment of that process.
    pub fn of(pid: i32, variable: impl Fn(&str) -> Option<OsString>) -> Option<Self> {
        let (manager, name) = manager_above(pid).unzip();
        let text = |name: &str| variable(name).and_then(|value| value.into_string().ok());
        match name.as_deref() {
            Some("runsv") => return Some(Self::Runit),
            Some("s6-supervise") => return Some(Self::S6 { kill_timeout: s6_timeout(manager?, pid) }),
            Some("supervisord") => return Some(Self::supervisord(manager, text)),
            _ => {}
        }
        // pm2-runtime is node, and supervisord may be python3 -m supervisor: both set variables for their children.
        if text("pm_id").is_some() && (text("pm_exec_path").is_some() || text("PM2_HOME").is_some()) {
            let timeout = ["kill_timeout", "PM2_KILL_TIMEOUT"].into_iter().find_map(|name| text(name)?.parse().ok());
            return Some(Self::Pm2 {
                kill_timeout: timeout.map_or(PM2_KILL_TIMEOUT, Duration::from_millis),
                kills_tree: text("treekill").is_none_or(|value| value != "false"),
            });
        }
        text("SUPERVISOR_ENABLED").map(|_| Self::supervisord(manager, text))
    }

    fn supervisord(pid: Option<i32>, text: impl Fn(&str) -> Option<String>) -> Self {
        let programs = ["SUPERVISOR_GROUP_NAME", "SUPERVISOR_PROCESS_NAME"].into_iter().filter_map(text);
        let programs: Vec<String> = programs.collect();
        let configured = pid.and_then(|pid| supervisord::stop_wait(pid, &programs));
        Self::Supervisord { stop_wait: configured.unwrap_or(SUPERVISORD_STOP_WAIT) }
    }

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Pm2 { .. } => "pm2",
            Self::Supervisord { .. } => "supervisord",
            Self::Runit => "runit",
            Self::S6 { .. } => "s6",
        }
    }

    /// When SIGKILL follows a stop; `None` if never.
    #[must_use]
    pub fn stop_limit(self) -> Option<Duration> {
        match self {
            Self::Pm2 { kill_timeout, .. } => Some(kill_timeout),
            Self::Supervisord { stop_wait } => Some(stop_wait),
            Self::Runit => Some(RUNIT_WAIT),
            Self::S6 { kill_timeout } => kill_timeout,
        }
    }

    /// The command that keeps a stopped service down.
    #[must_use]
    pub fn stop_command(name: &str) -> Option<&'static str> {
        Some(match name {
            "pm2" => "pm2 stop NAME",
            "supervisord" => "supervisorctl stop NAME",
            "runit" => "sv down SERVICE",
            "s6" => "s6-svc -d SERVICEDIR",
            _ => return None,
        })
    }
}

/// The first process above this one that is no launcher, with its name.
fn manager_above(pid: i32) -> Option<(i32, String)> {
    let mut current = pid;
    for _ in 0..LEVELS_MAX {
        current = proc::stat(current).ok()?.parent;
        let name = proc::name_of(current)?;
        if !LAUNCHERS.contains(&name.as_str()) {
            return Some((current, name));
        }
    }
    None
}

/// s6-supervise works in the service directory, and starts `run` there. Only its user and root may look where that is.
fn s6_timeout(manager: i32, pid: i32) -> Option<Duration> {
    let read = |pid: i32| fs::read_to_string(format!("/proc/{pid}/cwd/timeout-kill")).ok();
    let milliseconds = [manager, pid].into_iter().find_map(read)?.trim().parse().ok()?;
    Some(Duration::from_millis(milliseconds)).filter(|time| !time.is_zero())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &'static [(&'static str, &'static str)]) -> Option<ProcessManager> {
        let variable =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| OsString::from(value));
        // No process has this pid.
        ProcessManager::of(i32::MAX, variable)
    }

    #[test]
    fn the_variables_of_pm2_and_supervisord_name_them_and_their_stop_limits() {
        let seconds = Duration::from_secs;
        let pm2 = |kill_timeout, kills_tree| Some(ProcessManager::Pm2 { kill_timeout, kills_tree });
        for (variables, expected) in [
            (&[("pm_id", "0"), ("PM2_HOME", "/x"), ("treekill", "true")][..], pm2(PM2_KILL_TIMEOUT, true)),
            (&[("pm_id", "0"), ("pm_exec_path", "/x"), ("kill_timeout", "345000")], pm2(seconds(345), true)),
            (
                &[("pm_id", "0"), ("PM2_HOME", "/x"), ("PM2_KILL_TIMEOUT", "3000"), ("treekill", "false")],
                pm2(seconds(3), false),
            ),
            (
                &[("SUPERVISOR_ENABLED", "1"), ("SUPERVISOR_PROCESS_NAME", "x")],
                Some(ProcessManager::Supervisord { stop_wait: seconds(10) }),
            ),
            (&[("PM2_HOME", "/x")], None),
            (&[("INVOCATION_ID", "0")], None),
        ] {
            assert_eq!(of(variables), expected, "{variables:?}");
        }
    }

    #[test]
    fn each_has_a_name_a_stop_limit_and_a_command() {
        let all = [
            (ProcessManager::Runit, Some(7)),
            (ProcessManager::S6 { kill_timeout: None }, None),
            (ProcessManager::S6 { kill_timeout: Some(Duration::from_secs(3)) }, Some(3)),
            (ProcessManager::Supervisord { stop_wait: Duration::from_secs(4) }, Some(4)),
            (ProcessManager::Pm2 { kill_timeout: Duration::from_secs(5), kills_tree: true }, Some(5)),
        ];
        for (manager, seconds) in all {
            assert_eq!(manager.stop_limit().map(|limit| limit.as_secs()), seconds, "{manager:?}");
            assert!(ProcessManager::stop_command(manager.name()).is_some(), "{manager:?}");
        }
        assert_eq!(ProcessManager::stop_command("systemd"), None);
    }
}
