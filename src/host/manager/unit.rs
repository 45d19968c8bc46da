//! The systemd unit that we run in, and its properties as `systemctl` shows them.

use crate::platform::output::output;
use crate::platform::proc;
use crate::platform::standard_streams::has_terminal;
use nix::unistd::{Uid, User};
use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

const SYSTEMCTL_TIME_MAX: Duration = Duration::from_secs(2);

/// More than the value of any property that we ask for.
const ANSWER_MAX: usize = 128;

/// In bytes: of all [`PROPERTIES`].
const PROPERTIES_MAX: usize = 4096;

/// What a person asks of a service.
const PROPERTIES: &str = "LoadState,ActiveState,SubState,Result,UnitFileState,MainPID";

/// A service of systemd as its manager shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceProperties {
    pub name: String,
    /// `system manager`, `user manager` or `user manager of bob`.
    pub manager: String,
    pub properties: BTreeMap<String, String>,
}

/// The systemd unit that we run in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    name: String,
    /// Whether it belongs to a user manager.
    is_users: bool,
}

impl Unit {
    /// `None` unless systemd started us, or a script that started us. `INVOCATION_ID` is inherited: a desktop's terminal is
    /// a unit too, and neither its stop nor its timeout is ours.
    pub(super) fn ours() -> Option<Self> {
        std::env::var_os("INVOCATION_ID")?;
        let me = i32::try_from(std::process::id()).unwrap_or(0);
        let unit = Self::of(&proc::cgroup_of(me)?)?;
        // The pid that systemd executed, see systemd.exec(5).
        let main = std::env::var("SYSTEMD_EXEC_PID").ok().and_then(|pid| pid.parse().ok());
        unit.has_started(me, main, has_terminal()).then_some(unit)
    }

    /// Whether systemd started this process, in this unit, or a script below which it runs.
    fn has_started(&self, pid: i32, main: Option<i32>, has_terminal: bool) -> bool {
        // A script may have ended.
        let may_hold = |main| proc::cgroup_of(main).is_none_or(|cgroup| Self::of(&cgroup).as_ref() == Some(self));
        main == Some(pid) || (!has_terminal && main.is_none_or(may_hold))
    }

    /// The innermost service or scope of a cgroup path. A user manager is itself a service, with its units below it.
    pub(super) fn of(cgroup: &str) -> Option<Self> {
        let is_unit = |part: &&str| matches!(part.rsplit_once('.'), Some((_, "service" | "scope")));
        let mut units = cgroup.split('/').filter(is_unit);
        let name = units.next_back()?;
        // systemd prefixes names that the kernel reserves, such as those of controllers.
        let name = name.strip_prefix('_').unwrap_or(name).to_owned();
        Some(Self { name, is_users: units.any(|outer| outer.starts_with("user@")) })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// A service is stopped as a whole, with a timeout. A process in a login's scope is stopped from its terminal.
    pub(super) fn is_service(&self) -> bool {
        self.name.ends_with(".service")
    }

    /// The command that shows the unit's log.
    pub(super) fn journalctl(&self) -> String {
        format!("journalctl {}-u {}", self.scope(), self.name)
    }

    /// The command that stops the unit.
    pub(super) fn stop(&self) -> String {
        format!("systemctl {}stop {}", self.scope(), self.name)
    }

    /// The command that starts it.
    pub(super) fn start(&self) -> String {
        format!("systemctl {}start {}", self.scope(), self.name)
    }

    fn scope(&self) -> &'static str {
        if self.is_users { "--user " } else { "" }
    }

    /// The properties of the service as its manager shows them. `uid`: of its processes. `None` if systemd does not answer in
    /// time.
    pub(super) async fn properties(&self, uid: Option<u32>) -> Option<ServiceProperties> {
        let mut command = Command::new("systemctl");
        let own = rustix::process::geteuid().as_raw();
        let (mut manager, mut user) = ("system manager".to_owned(), None);
        if self.is_users {
            command.arg("--user");
            user = uid.filter(|uid| *uid != own);
            manager = user.map_or_else(|| "user manager".to_owned(), |uid| format!("user manager of {}", name_of(uid)));
        }
        command.args(user.map(|uid| format!("--machine={}@", name_of(uid))));
        command.args(["show", "-p", PROPERTIES, "--", &self.name]).env("LC_ALL", "C");
        let answer = output(command, PROPERTIES_MAX, SYSTEMCTL_TIME_MAX).await.ok()?;
        let text = String::from_utf8_lossy(&answer.text);
        let pairs = text.lines().filter_map(|line| line.split_once('='));
        let properties: BTreeMap<_, _> = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        (!properties.is_empty()).then(|| ServiceProperties { name: self.name.clone(), manager, properties })
    }

    /// `None` if systemd does not answer in time, or with an empty value.
    pub(super) async fn property(&self, name: &str) -> Option<String> {
        let mut command = Command::new("systemctl");
        command.args(self.is_users.then_some("--user")).args(["show", "-p", name, "--value", "--", &self.name]);
        let answer = output(command, ANSWER_MAX, SYSTEMCTL_TIME_MAX).await.ok()?;
        Some(String::from_utf8_lossy(&answer.text).trim().to_owned()).filter(|answer| !answer.is_empty())
    }
}

fn name_of(uid: u32) -> String {
    let known = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    known.map_or_else(|| uid.to_string(), |user| user.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_unit_is_the_innermost_one_of_its_manager() {
        for (cgroup, expected) in [
            ("/system.slice/openclaw.service", Some(("openclaw.service", false))),
            ("/system.slice/openclaw.service/gateway", Some(("openclaw.service", false))),
            ("/system.slice/system-openclaw.slice/openclaw@a.service", Some(("openclaw@a.service", false))),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/openclaw-gateway.service",
                Some(("openclaw-gateway.service", true)),
            ),
            ("/user.slice/user-1000.slice/session-3.scope", Some(("session-3.scope", false))),
            ("/user.slice/user-1000.slice/user@1000.service/init.scope", Some(("init.scope", true))),
            ("/user.slice/user-1000.slice/user@1000.service", Some(("user@1000.service", false))),
            ("/system.slice/_cpu.service", Some(("cpu.service", false))),
            ("/", None),
            ("/docker/0123", None),
            ("", None),
        ] {
            let expected = expected.map(|(name, is_users)| Unit { name: name.to_owned(), is_users });
            assert_eq!(Unit::of(cgroup), expected, "{cgroup}");
        }
    }

    #[test]
    fn the_unit_of_a_terminal_or_of_another_program_is_not_ours() {
        let unit = Unit { name: "app-terminal@1.service".to_owned(), is_users: true };
        let me = i32::try_from(std::process::id()).unwrap();
        for (main, has_terminal, expected) in [
            (Some(me), false, true),
            (Some(me), true, true),
            (None, false, true),
            (None, true, false),
            (Some(i32::MAX), false, true),
            (Some(i32::MAX), true, false),
            // It is in no such unit.
            (Some(1), false, false),
        ] {
            assert_eq!(unit.has_started(me, main, has_terminal), expected, "{main:?} {has_terminal}");
        }
    }

    #[test]
    fn journalctl_addresses_the_manager_of_the_unit() {
        let unit = |cgroup: &str| Unit::of(cgroup).unwrap().journalctl();
        assert_eq!(unit("/system.slice/openclaw.service/gateway"), "journalctl -u openclaw.service");
        let users = "/user.slice/user-1000.slice/user@1000.service/app.slice/openclaw-gateway.service";
        assert_eq!(unit(users), "journalctl --user -u openclaw-gateway.service");
    }

    #[tokio::test]
    async fn an_unknown_unit_has_no_known_kill_mode() {
        let unit = Unit { name: "no-such-unit-of-openclaw-supervise.service".to_owned(), is_users: false };
        let mode = unit.property("KillMode").await;
        assert!(mode.as_deref() != Some("process"), "{mode:?}");
        assert!(mode.is_none_or(|mode| mode.len() < ANSWER_MAX));
    }
}
